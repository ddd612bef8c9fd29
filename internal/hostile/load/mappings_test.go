package load

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// mostOfOne is max_mappings_per_client as it is delivered.
const mostOfOne = 200

// mappings asks for all 65,000 ports, for as many as there is time: it gets its quota.
func (h *house) mappings(t *testing.T) {
	begun := time.Now()
	var all sync.WaitGroup
	var asked, granted [4]int
	for i := range asked {
		all.Add(1)
		go func() {
			defer all.Done()
			for port := 1024 + i; port < 1<<16 && (time.Since(begun) < 8*time.Second || asked[i] < mostOfOne); port += len(asked) {
				answers, err := h.pipeline(&port, len(asked))
				if err != nil {
					t.Errorf("AddAnyPortMapping: %v", err)
					return
				}
				for _, status := range answers {
					if asked[i]++; status == "200" {
						granted[i]++
					}
				}
			}
		}()
	}
	all.Wait()
	h.flooded = true
	n, got := asked[0]+asked[1]+asked[2]+asked[3], granted[0]+granted[1]+granted[2]+granted[3]
	t.Logf("%d times AddAnyPortMapping in %v", n, time.Since(begun))
	if got != mostOfOne || n <= 2*mostOfOne {
		t.Errorf("%d of %d granted, want %d", got, n, mostOfOne)
	}
}

// pipeline asks 50 times on one connection, the most that it lives, and gives the
// statuses. port goes on by step.
func (h *house) pipeline(port *int, step int) (status []string, err error) {
	c, err := h.dial(h.LAN1)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for n := range 50 {
		if n > 0 {
			*port += step
		}
		add, _ := arguments(lab.LAN1Addr, *port)
		if _, err := io.WriteString(c, h.soap(h.control2, wanIP2, "AddAnyPortMapping", add, "keep-alive")); err != nil {
			return nil, err
		}
		line, length := "", 0
		for {
			text, err := in.ReadString('\n')
			if err != nil {
				return nil, err
			}
			if line == "" {
				line = text
			}
			fmt.Sscanf(strings.ToUpper(text), "CONTENT-LENGTH: %d", &length)
			if strings.TrimSpace(text) == "" {
				break
			}
		}
		if _, err := in.Discard(length); err != nil {
			return nil, err
		}
		status = append(status, line[9:12])
	}
	return status, nil
}
