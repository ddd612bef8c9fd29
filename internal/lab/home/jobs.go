package home

import (
	"strconv"
	"testing"
	"time"
)

// World is a home network with a running daemon: on loopback with a kernel
// that is played, or in namespaces with a real one. The same jobs run in
// both.
type World interface {
	// Client is a control point on LAN host 1 or 2.
	Client(n int) *ControlPoint
	// Reaches tells which LAN host (0: none) answers a peer on the internet
	// that connects to the external port.
	Reaches(proto string, external int) int
	// Answers is Reaches for a UDP peer that sends from the same port each
	// time, so that to the kernel all its packets are one connection.
	Answers(external int) int
	// SetWAN gives the uplink another address; "" takes it away.
	SetWAN(addr string)
	// Served is an internal port where every LAN host has a TCP and a UDP
	// server.
	Served() int
}

// Jobs are what a daemon does for a home network.
var Jobs = map[string]func(*testing.T, World){
	"map, reach, delete":  mapReachDelete,
	"lease ends":          leaseEnds,
	"two hosts, one port": twoHosts,
	"WAN address changes": wanChanges,
	"bad input":           badInput,
}

func mapReachDelete(t *testing.T, w World) {
	c := w.Client(1)
	if got := w.Answers(18080); got != 0 {
		t.Fatalf("host %d answers before anybody asked", got)
	}
	for _, proto := range []string{"TCP", "UDP"} {
		if got := w.Reaches(proto, 18080); got != 0 {
			t.Fatalf("%s: host %d is reached before anybody asked", proto, got)
		}
		began := time.Now()
		if code := c.Add(proto, 18080, w.Served(), 3600); code != 0 {
			t.Fatalf("%s: AddPortMapping: error %d", proto, code)
		}
		if got := w.Reaches(proto, 18080); got != 1 {
			t.Errorf("%s: the mapped port reaches host %d, want 1", proto, got)
		}
		out, code := c.Call("GetSpecificPortMappingEntry", "NewRemoteHost", "", "NewExternalPort", "18080", "NewProtocol", proto)
		if code != 0 || out["NewInternalClient"] != c.Addr || out["NewPortMappingDescription"] != "test & <more>" {
			t.Errorf("%s: GetSpecific: %v, error %d", proto, out, code)
		}
		if left, _ := strconv.Atoi(out["NewLeaseDuration"]); left < 3599-int(time.Since(began).Seconds()) || left > 3600 { // WIP-5
			t.Errorf("%s: %d s left of 3600", proto, left)
		}
	}
	Until(t, "the peer that knocked before gets through", func() bool { return w.Answers(18080) == 1 })
	if out, code := c.Call("GetGenericPortMappingEntry", "NewPortMappingIndex", "1"); code != 0 || out["NewProtocol"] != "UDP" {
		t.Errorf("GetGeneric 1: %v, error %d", out, code)
	}
	if _, code := c.Call("GetGenericPortMappingEntry", "NewPortMappingIndex", "2"); code != 713 { // WIP-17
		t.Errorf("GetGeneric beyond the end: error %d, want 713", code)
	}
	for _, proto := range []string{"TCP", "UDP"} {
		if code := c.Delete(proto, 18080); code != 0 {
			t.Errorf("%s: DeletePortMapping: error %d", proto, code)
		}
		if got := w.Reaches(proto, 18080); got != 0 {
			t.Errorf("%s: host %d is reached after deletion", proto, got)
		}
		if code := c.Delete(proto, 18080); code != 714 { // WIP-13
			t.Errorf("%s: deleting again: error %d, want 714", proto, code)
		}
	}
	Until(t, "the open connection ends with its mapping", func() bool { return w.Answers(18080) == 0 }) // WIP-13
}

func leaseEnds(t *testing.T, w World) {
	c := w.Client(1)
	if code := c.Add("TCP", 18081, w.Served(), 1); code != 0 {
		t.Fatalf("AddPortMapping: error %d", code)
	}
	if got := w.Reaches("TCP", 18081); got != 1 {
		t.Fatalf("the mapped port reaches host %d, want 1", got)
	}
	if code := c.Add("UDP", 18081, w.Served(), 1); code != 0 {
		t.Fatalf("AddPortMapping: error %d", code)
	}
	if got := w.Answers(18081); got != 1 {
		t.Fatalf("the mapped UDP port reaches host %d, want 1", got)
	}
	Until(t, "the lease of one second ends", func() bool {
		_, code := c.Call("GetSpecificPortMappingEntry", "NewRemoteHost", "", "NewExternalPort", "18081", "NewProtocol", "TCP")
		return code == 714
	})
	if got := w.Reaches("TCP", 18081); got != 0 {
		t.Errorf("host %d is reached after the lease", got)
	}
	Until(t, "the open connection ends with its lease", func() bool { return w.Answers(18081) == 0 })
}

func twoHosts(t *testing.T, w World) {
	one, two := w.Client(1), w.Client(2)
	if code := one.Add("UDP", 13074, w.Served(), 0); code != 0 {
		t.Fatalf("AddPortMapping: error %d", code)
	}
	if code := two.Add("UDP", 13074, w.Served(), 0); code != 718 { // WIP-2
		t.Errorf("the other host's AddPortMapping: error %d, want 718", code)
	}
	if code := two.Delete("UDP", 13074); code != 606 { // WIP-13, secure
		t.Errorf("the other host's DeletePortMapping: error %d, want 606", code)
	}
	if code := two.Add("UDP", 13075, w.Served(), 0); code != 0 { // INT-6
		t.Errorf("the next port: error %d", code)
	}
	if a, b := w.Reaches("UDP", 13074), w.Reaches("UDP", 13075); a != 1 || b != 2 {
		t.Errorf("the ports reach hosts %d and %d, want 1 and 2", a, b)
	}
	if one.Delete("UDP", 13074) != 0 || two.Delete("UDP", 13075) != 0 {
		t.Error("the owners cannot delete")
	}
}

func wanChanges(t *testing.T, w World) {
	c := w.Client(1)
	before := c.ExternalAddress()
	if code := c.Add("TCP", 18082, w.Served(), 0); code != 0 {
		t.Fatalf("AddPortMapping: error %d", code)
	}
	w.SetWAN("")
	Until(t, "ExternalIPAddress is empty without an uplink", func() bool { return c.ExternalAddress() == "" }) // WIP-22
	if out, _ := c.Call("GetStatusInfo"); out["NewConnectionStatus"] != "Disconnected" || out["NewUptime"] != "0" {
		t.Errorf("GetStatusInfo without an uplink: %v", out)
	}
	if code := c.Add("UDP", 18082, w.Served(), 0); code != 0 {
		t.Errorf("AddPortMapping while the uplink is away: error %d", code)
	}
	for _, addr := range []string{"11.0.0.77", before} {
		w.SetWAN(addr)
		Until(t, "the new address is reported", func() bool { return c.ExternalAddress() == addr })
		Until(t, "the mappings follow", func() bool { return w.Reaches("TCP", 18082) == 1 && w.Reaches("UDP", 18082) == 1 })
	}
	if out, _ := c.Call("GetStatusInfo"); out["NewConnectionStatus"] != "Connected" {
		t.Errorf("GetStatusInfo: %v", out)
	}
	if c.Delete("TCP", 18082) != 0 || c.Delete("UDP", 18082) != 0 {
		t.Error("DeletePortMapping failed")
	}
}

// badInput: an error, nothing changed, the daemon alive (PEERS.md 2.3).
func badInput(t *testing.T, w World) {
	c := w.Client(1)
	good := map[string]string{"NewRemoteHost": "", "NewExternalPort": "18083", "NewProtocol": "TCP",
		"NewInternalPort": strconv.Itoa(w.Served()), "NewInternalClient": c.Addr, "NewEnabled": "1",
		"NewPortMappingDescription": "x", "NewLeaseDuration": "60"}
	for _, bad := range []struct {
		name, value string
		code        int
	}{
		{"NewExternalPort", "0", 716}, {"NewExternalPort", "70000", 402}, {"NewExternalPort", "-1", 402},
		{"NewExternalPort", "5011abc", 402}, {"NewExternalPort", "", 402}, {"NewExternalPort", "80", 718},
		{"NewInternalPort", "0", 402}, {"NewInternalPort", "65536", 402},
		{"NewProtocol", "XYZ", 601}, {"NewProtocol", "", 601},
		{"NewInternalClient", "localhost", 402}, {"NewInternalClient", "`touch x`", 402},
		{"NewInternalClient", "8.8.8.8", 402}, {"NewInternalClient", "255.255.255.255", 402},
		{"NewInternalClient", w.Client(2).Addr, 718},
		{"NewRemoteHost", "bogus host", 402}, {"NewRemoteHost", "224.0.0.1", 402},
		{"NewEnabled", "zzz", 402}, {"NewLeaseDuration", "abc", 402}, {"NewLeaseDuration", "4294967296", 402},
	} {
		var args []string
		for name, value := range good {
			if name == bad.name {
				value = bad.value
			}
			args = append(args, name, value)
		}
		if _, code := c.Call("AddPortMapping", args...); code != bad.code {
			t.Errorf("%s = %q: error %d, want %d", bad.name, bad.value, code, bad.code)
		}
	}
	if _, code := c.Call("AddPortMapping", "NewExternalPort", "18083"); code != 402 {
		t.Errorf("missing arguments: error %d, want 402", code)
	}
	if _, code := c.Call("GetGenericPortMappingEntry", "NewPortMappingIndex", "0"); code != 713 {
		t.Errorf("after bad requests there is a mapping (error %d, want 713)", code)
	}
}

// patience is far longer than anything takes on a machine that is not stuck.
const patience = 30 * time.Second

// Until waits for what the daemon does by itself, with a deadline.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
