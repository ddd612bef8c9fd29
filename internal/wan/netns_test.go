package wan

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// All tests run in a namespace of their own, so that no traffic can leave it.
func TestMain(m *testing.M) { lab.Alone(m) }

// noDevices begins and ends the test without any device but lo.
func noDevices(t *testing.T) {
	t.Helper()
	lab.NeedAlone(t)
	t.Cleanup(func() {
		out, err := exec.Command("ip", "-o", "link").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(out), "\n") {
			if _, rest, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(rest, "lo:") {
				name, _, _ := strings.Cut(rest, ":")
				name, _, _ = strings.Cut(name, "@")
				_ = exec.Command("ip", "link", "del", name).Run() // may be gone with its other end
			}
		}
	})
}
