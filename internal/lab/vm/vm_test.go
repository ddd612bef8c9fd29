package vm

import (
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// TestRouter: the machine is what it says it is, and commands and answers arrive
// whole.
func TestRouter(t *testing.T) {
	l := lab.Start(t)
	packages, err := Packages("../../..")
	if err != nil {
		t.Fatal(err)
	}
	r := Boot(t, l, packages, System{})
	long := strings.Repeat("0123456789abcdef", 2000)
	for _, tt := range []struct{ script, want string }{
		{"uname -m", "mips\n"},
		{"grep -c 'MIPS 24Kc' /proc/cpuinfo", "1\n"},
		{"cat /sys/class/net/br-lan/brif/lan0/port_no", "0x1\n"},
		{"ip -4 addr show wan0 | grep -c " + lab.WANAddr, "1\n"},
		{"cat /proc/sys/net/ipv4/ip_forward", "1\n"},
		{"cat /sys/devices/system/clockevents/clockevent0/current_device", "pit\n"},
		{"dd if=/dev/port bs=1 skip=1233 count=1 2>/dev/null | hexdump -e '\"%x\"'", "c"},
		{"printf '%s' " + long, long},
		{"printf 'no end'; printf ' of line' >&2", "no end of line"},
		{"", ""},
	} {
		if got := r.Run(t, tt.script); got != tt.want {
			t.Errorf("%.60s: %.200q, want %.200q", tt.script, got, tt.want)
		}
	}
	out, err := r.Sh("echo words; exit 7")
	if out != "words\n" || err == nil || !strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "words") {
		t.Errorf("a script that fails: %q, %v", out, err)
	}
	busy(t, l.LAN1, r)
	for _, h := range []*lab.Host{l.LAN1, l.LAN2, l.Internet} {
		if out, err := r.Sh("ping -c 1 -w 5 " + h.Addr.String()); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// busy has commands and packets from the LAN come in at the same time, by devices
// that share an interrupt.
func busy(t *testing.T, host *lab.Host, r *Router) {
	t.Helper()
	c, err := host.Dial("udp4", lab.RouterLANAddr+":9", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		for range 5000 {
			_, _ = c.Write([]byte("x")) // an error is that of the one before: nobody listens
			time.Sleep(time.Millisecond)
		}
	}()
	defer func() {
		<-done
		c.Close()
	}()
	for n := 0; ; n++ {
		select {
		case <-done:
			t.Logf("%d commands meanwhile", n)
			return
		default:
			r.Run(t, "true")
		}
	}
}
