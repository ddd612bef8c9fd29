package sock

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// All tests run in a namespace of their own, so that no traffic can leave it.
func TestMain(m *testing.M) { lab.Alone(m) }

// host is another machine: a goroutine on a thread of its own, in a network
// namespace of its own.
type host struct {
	t     *testing.T
	ns    string // path of the namespace
	calls chan func()
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, calls: make(chan func())}
	ready := make(chan error, 1)
	go h.serve(ready)
	t.Cleanup(func() { close(h.calls) })
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) serve(ready chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if unix.Gettid() == os.Getpid() {
		// The main thread would not end, and /proc/net is about its namespace.
		// While it is held here, another goroutine gets another thread.
		done := make(chan struct{})
		go func() { defer close(done); h.serve(ready) }()
		<-done
		runtime.UnlockOSThread()
		return
	}
	h.ns = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
	ready <- unix.Unshare(unix.CLONE_NEWNET)
	for call := range h.calls {
		call()
	}
}

// do runs call on the host and waits for it. Sockets and programs that call
// makes belong to the host.
func (h *host) do(call func()) {
	h.t.Helper()
	finished := false
	done := make(chan struct{})
	h.calls <- func() { defer close(done); call(); finished = true }
	<-done
	if !finished {
		h.t.FailNow() // as call did, which ended the goroutine of the host
	}
}

// watchUp returns a function that waits until the device is up. A veth comes
// up in the background, and drops what is sent before.
func watchUp(t *testing.T, dev string) (wait func()) {
	t.Helper()
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: 1 << (unix.RTNLGRP_LINK - 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(aWhile)); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		for up := false; !up; {
			msgs, err := c.Receive()
			if err != nil {
				t.Fatalf("wait for %s: %v", dev, err)
			}
			up = slices.ContainsFunc(msgs, func(m netlink.Message) bool { return isUp(t, m, dev) })
		}
	}
}

func isUp(t *testing.T, m netlink.Message, dev string) bool {
	t.Helper()
	attrs, err := netlink.UnmarshalAttributes(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		t.Fatal(err)
	}
	const operUp = 6
	name, up := false, false
	for _, a := range attrs {
		name = name || a.Type == unix.IFLA_IFNAME && string(a.Data) == dev+"\x00"
		up = up || a.Type == unix.IFLA_OPERSTATE && a.Data[0] == operUp
	}
	return name && up
}

// newLAN makes the device dev with 10.INDEX.0.1/24 here and, on another host,
// eth0 with 10.INDEX.0.2/24. There are no other routes.
func newLAN(t *testing.T, dev string, index int) *host {
	t.Helper()
	lab.NeedAlone(t)
	h := newHost(t)
	var hereUp, thereUp func()
	hereUp = watchUp(t, dev)
	h.do(func() { thereUp = watchUp(t, "eth0") })
	lab.IP(t,
		"link set lo up",
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", dev, h.ns),
		fmt.Sprintf("addr add 10.%d.0.1/24 dev %s", index, dev),
		fmt.Sprintf("link set %s up", dev))
	t.Cleanup(func() { lab.IP(t, "link del "+dev) })
	h.do(func() {
		lab.IP(t, fmt.Sprintf("addr add 10.%d.0.2/24 dev eth0", index), "link set lo up", "link set eth0 up")
	})
	hereUp()
	thereUp()
	return h
}
