package vm

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// wallClock sets the machine's clock a day ahead, and two days back: no lease ends or
// becomes longer, the epoch of PCP goes on, and a restart in between knows what is left
// (issue 8, point 5).
func wallClock(w *world) {
	const port, lease = 18085, 3600
	began := time.Now()
	if err := w.opens(port, lease); err != nil {
		w.t.Fatal(err)
	}
	began = began.Add(-time.Second)
	epoch := w.epoch()
	right := func(when string) {
		w.t.Helper()
		w.wantPorts(port)
		w.reached(port, 1, when)
		past := int(time.Since(began)/time.Second) + 1
		if left := w.leaseLeft(port); left > lease || left < lease-2*past { // an emulated clock may run fast
			w.t.Errorf("%s %d s are left of %d after %d s", when, left, lease, past)
		}
	}
	for _, jump := range []string{"+86400", "-172800", "+86400"} {
		w.sh("date -s @$(( $(date +%%s) %s ))", jump)
		right("after a jump of " + jump + " s")
		if now := w.epoch(); now < epoch || now > epoch+uint32(2*time.Since(began)/time.Second)+2 {
			w.t.Errorf("after a jump of %s s the epoch is %d, %d before", jump, now, epoch)
		}
		if jump == "-172800" { // another wall clock than that of the lease file
			w.stop()
			w.sh("date -s @$(( $(date +%%s) + 3600 ))")
			w.start()
			right("after a restart")
			epoch = 0
			w.sh("date -s @$(( $(date +%%s) - 3600 ))")
		}
	}
	for _, proto := range []string{"TCP", "UDP"} {
		if code := w.Client(1).Delete(proto, port); code != 0 {
			w.t.Errorf("%s: DeletePortMapping: error %d", proto, code)
		}
	}
}

// leaseLeft is what GetSpecificPortMappingEntry says of a port by TCP, in seconds.
func (w *world) leaseLeft(port int) int {
	w.t.Helper()
	out, code := w.Client(1).Call("GetSpecificPortMappingEntry", "NewRemoteHost", "", "NewExternalPort", strconv.Itoa(port), "NewProtocol", "TCP")
	left, err := strconv.Atoi(out["NewLeaseDuration"])
	if code != 0 || err != nil {
		w.t.Fatalf("GetSpecificPortMappingEntry: error %d, %v", code, err)
	}
	return left
}

// epoch is what NAT-PMP says (PMP-5); PCP has the same.
func (w *world) epoch() uint32 {
	w.t.Helper()
	c, err := w.Host(1).Dial("udp4", lab.RouterLANAddr+":5351", time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	reply := make([]byte, 1100)
	for range 5 {
		c.Write([]byte{0, 0})
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if n, err := c.Read(reply); err == nil && n == 12 {
			return binary.BigEndian.Uint32(reply[4:])
		}
	}
	w.t.Fatal("NAT-PMP does not answer")
	return 0
}
