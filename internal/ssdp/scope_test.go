//go:build go1.25

package ssdp

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bothScopes cuts a set that went to both scopes.
func bothScopes(t *testing.T, set []sent, nts string, want []string) {
	t.Helper()
	if len(set) != 2*len(want) {
		t.Fatalf("%s set of %d rows, want %d to each of two scopes", nts, len(set), len(want))
	}
	checkSetOf(t, linkScope, set[:len(want)], nts, want)
	checkSetOf(t, siteScope, set[len(want):], nts, want)
}

// SSDP-6, SSDP-35: everything goes to each scope, once a round, and byebye too;
// the second face is taken back there and never announced.
func TestScopesAnnounce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startOn(t, testConfig(v1(), v2()), testLAN6(linkScope, siteScope))
		time.Sleep(time.Second)
		synctest.Wait()
		first := sets(r.take())
		if len(first) != 4 {
			t.Fatalf("%d sets at the start, want 4", len(first))
		}
		one := pairsOf(v1().Targets)
		both := append(pairsOf(v1().Targets), pairsOf(v2().Targets)...)
		for i, set := range first {
			if i < 2 {
				bothScopes(t, set, "ssdp:byebye", both)
			} else {
				bothScopes(t, set, "ssdp:alive", one)
			}
		}
		for _, m := range first[2] {
			want := "http://[" + m.src.String() + "]:49152/v1/rootDesc.xml"
			if m.fields["LOCATION"] != want || strings.Contains(want, "%") {
				t.Errorf("to %s: LOCATION %q, want %q", m.to, m.fields["LOCATION"], want)
			}
		}
		for i, m := range first[0] { // SSDP-13: each tree has its own
			want := "4711"
			if i%len(both) >= len(one) {
				want = "815"
			}
			if got := m.fields["CONFIGID.UPNP.ORG"]; got != want {
				t.Errorf("%v: CONFIGID %s, want %s", m, got, want)
			}
		}
		goodbye, _ := r.end()
		last := sets(goodbye)
		if len(last) != 2 {
			t.Fatalf("%d sets at the end, want 2", len(last))
		}
		for _, set := range last {
			bothScopes(t, set, "ssdp:byebye", both)
		}
	})
}

// A search is answered once, by the scope it came to.
func TestScopesAnswer(t *testing.T) { // SSDP-6, SSDP-44
	synctest.Test(t, func(t *testing.T) {
		r := startOn(t, testConfig(v1(), v2()), testLAN6(linkScope, siteScope))
		time.Sleep(time.Second)
		synctest.Wait()
		r.take()
		for _, tt := range []struct {
			st     string
			rows   int
			path   string
			config string
		}{
			{"ssdp:all", 10, "/v1/rootDesc.xml", "4711"},
			{"urn:schemas-upnp-org:device:InternetGatewayDevice:1", 1, "/v1/rootDesc.xml", "4711"},
			{"urn:schemas-upnp-org:device:InternetGatewayDevice:2", 1, "/v2/rootDesc.xml", "815"},
			{"urn:schemas-upnp-org:service:WANIPv6FirewallControl:1", 1, "/v2/rootDesc.xml", "815"},
		} {
			for _, scope := range []Scope{linkScope, siteScope} {
				host := hostLink
				if scope == siteScope {
					host = hostSite
				}
				for dst, datagram := range map[string]string{
					scope.Group.String(): mSearch(man, "MX: 1", "ST: "+tt.st),
					scope.Addr.String():  mSearch(man, "ST: "+tt.st),
				} {
					r.search(datagram, host, parse(dst))
					time.Sleep(time.Second)
					synctest.Wait()
					got := r.take()
					if len(got) != tt.rows {
						t.Errorf("%s to %s draws %d answers, want %d", tt.st, dst, len(got), tt.rows)
					}
					for _, m := range got {
						want := "http://[" + scope.Addr.String() + "]:49152" + tt.path
						if m.src != scope.Addr || m.to != host || m.fields["LOCATION"] != want || m.fields["CONFIGID.UPNP.ORG"] != tt.config {
							t.Errorf("%s to %s answered from %s to %s: %v", tt.st, dst, m.src, m.to, m.fields)
						}
					}
				}
			}
		}
		r.end()
	})
}

// A global address that cannot be used yet, or any more, leaves the link-local
// one alone; the set counts when both got it.
func TestScopeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(v1())
		cfg.Rand = func(time.Duration) time.Duration { return 0 }
		r := startOn(t, cfg, testLAN6(siteScope, linkScope), func(r *running) { r.setGone(routerSite) })
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		first, want := sets(r.take()), pairsOf(v1().Targets)
		if len(first) != 3 {
			t.Fatalf("%d sets sent, want 2 byebye and an alive", len(first))
		}
		checkSetOf(t, linkScope, first[0], "ssdp:byebye", want)
		checkSetOf(t, linkScope, first[2], "ssdp:alive", want)
		if r.announced != nil || r.refused == nil || !strings.Contains(r.refused.Error(), routerSite.String()) {
			t.Errorf("announced at %v, told %v", r.announced, r.refused)
		}
		r.setGone(netip.Addr{})
		time.Sleep(time.Second) // the alive set at 0.2 s is tried again at 1.2 s
		synctest.Wait()
		again := sets(r.take())
		if len(again) != 2 || len(again[0]) != 2*len(want) || again[0][0].at != 1200*time.Millisecond {
			t.Fatalf("sent later: %v", again)
		}
		checkSetOf(t, siteScope, again[0][:len(want)], "ssdp:alive", want)
		checkSetOf(t, linkScope, again[0][len(want):], "ssdp:alive", want)
		r.logged = nil
		r.setGone(routerSite)
		goodbye, _ := r.end()
		last := sets(goodbye)
		if len(last) != 2 {
			t.Fatalf("%d sets at the end", len(last))
		}
		checkSetOf(t, linkScope, last[1], "ssdp:byebye", want)
		if len(r.logged) != 1 || !strings.HasPrefix(r.logged[0], "ssdp: goodbye on "+routerSite.String()) {
			t.Errorf("logged %q, want one line about the goodbye", r.logged)
		}
	})
}

// One version 2 tree alone, announced (igd = 2), answers what was asked.
func TestOnlySecondFace(t *testing.T) { // SSDP-46
	device := v2()
	device.Announce = true
	synctest.Test(t, func(t *testing.T) {
		r := startOn(t, testConfig(device), testLAN6(linkScope))
		time.Sleep(time.Second)
		synctest.Wait()
		checkSetOf(t, linkScope, sets(r.take())[2], "ssdp:alive", pairsOf(device.Targets))
		for st, rows := range map[string]int{
			"urn:schemas-upnp-org:device:InternetGatewayDevice:1": 1,
			"urn:schemas-upnp-org:device:InternetGatewayDevice:2": 1,
			"urn:schemas-upnp-org:device:InternetGatewayDevice:3": 0,
			"urn:schemas-upnp-org:service:WANIPConnection:1":      1,
			"upnp:rootdevice": 1,
			"ssdp:all":        len(device.Targets),
		} {
			r.search(mSearch(man, "MX: 1", "ST: "+st), hostLink, linkGroup)
			time.Sleep(time.Second)
			synctest.Wait()
			got := r.take()
			if len(got) != rows {
				t.Errorf("%s draws %d answers, want %d", st, len(got), rows)
			}
			for _, m := range got {
				if st != "ssdp:all" && (m.fields["ST"] != st || !strings.HasSuffix(m.fields["USN"], "::"+st)) ||
					!strings.HasSuffix(m.fields["LOCATION"], device.Path) {
					t.Errorf("%s: %v", st, m.fields)
				}
			}
		}
		goodbye, _ := r.end()
		if got := pairs(sets(goodbye)[0]); !slices.Equal(got, pairsOf(device.Targets)) {
			t.Errorf("byebye %q", got)
		}
	})
}
