package load

import (
	"os"
	"testing"
)

// The race detector's own memory is many times the daemon's: what is measured here is
// the daemon as it is shipped.
func TestMain(m *testing.M) {
	os.Unsetenv("UPNPD_RACE")
	os.Exit(m.Run())
}
