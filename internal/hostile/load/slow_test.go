package load

import (
	"testing"
	"time"
)

// nothing is what the others are compared with.
func (h *house) nothing(*testing.T) { time.Sleep(time.Second) }
