package igd_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// internal maps port 8080 of a client by NAT-PMP or PCP.
func (w *world) internal(by portmap.Origin, client netip.Addr) portmap.Mapping {
	w.t.Helper()
	m, err := w.table.MapInternal(portmap.Request{
		Mapping: portmap.Mapping{Key: portmap.Key{Protocol: portmap.TCP, ExternalPort: 8080}, Client: client, InternalPort: 8080, Origin: by},
		Lease:   time.Hour, From: client,
	})
	if err != nil || m.ExternalPort != 8080 {
		w.t.Fatalf("%+v, %v", m, err)
	}
	return m
}

// WIP-11: what NAT-PMP and PCP have.
func TestOtherMechanisms(t *testing.T) {
	for _, tt := range []struct {
		id     string
		v1, v2 int
		by     portmap.Origin
		client netip.Addr
		ended  bool
	}{
		{id: "PCP's, another host's", v1: 718, v2: 729, by: portmap.PCP, client: bob},
		{id: "PCP's, the same host's", v1: 718, v2: 729, by: portmap.PCP, client: alice},
		{id: "NAT-PMP's, another host's", v1: 718, v2: 729, by: portmap.NATPMP, client: bob},
		{id: "NAT-PMP's, the same host's", by: portmap.NATPMP, client: alice},
		{id: "kept for another host after its deletion", v1: 718, v2: 729, by: portmap.NATPMP, client: bob, ended: true},
	} {
		for version, code := range map[int]int{1: tt.v1, 2: tt.v2} {
			t.Run(fmt.Sprintf("%s, version %d", tt.id, version), func(t *testing.T) {
				w, svc := newWorld(t), wanIPSpec
				if version == 2 {
					w, svc = newWorld(t, version2), wanIPSpec2
				}
				m := w.internal(tt.by, tt.client)
				if tt.ended {
					if err := w.table.UnmapInternal(m.Protocol, m.Client, m.InternalPort, tt.by, m.Nonce); err != nil {
						t.Fatal(err)
					}
				}
				w.expect(code, alice, svc, "AddPortMapping", mapping("NewExternalPort", "8080", "NewInternalPort", "8081")...)
				if left, err := w.table.Lookup(m.Key); code != 0 && !tt.ended && (err != nil || left != m) {
					t.Errorf("%+v, %v, want %+v", left, err, m)
				}
			})
		}
	}
}

// A pinhole by PCP is its nonce's.
func TestPinholeByPCP(t *testing.T) {
	w := newWorld(t, version2)
	m := w.internal(portmap.PCP, alice6)
	w.expect(606, alice6, firewall6Spec, "AddPinhole", pinhole()...)
	if left, err := w.table.Lookup(m.Key); err != nil || left != m {
		t.Errorf("%+v, %v, want %+v", left, err, m)
	}
	w.expect(0, alice6, firewall6Spec, "AddPinhole", pinhole("RemotePort", "443")...) // from elsewhere
}
