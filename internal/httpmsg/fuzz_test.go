package httpmsg

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"testing"
)

// FuzzHost: a Host field is ours only if it is our address as a literal, with no
// port or ours (HTTP-10): names are what DNS rebinding needs.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"192.168.1.1:5000", "192.168.1.1", "192.168.1.1:", "192.168.1.1:05000", "192.168.1.1:5001", "192.168.001.1", "0xc0a80101",
		"3232235777", "192.168.1.1.nip.io", "[::ffff:192.168.1.1]:5000", "[fe80::1]:5000", "[fe80::1%lan]", "fe80::1", "[fe80::1", "[]", ":5000", "upnpd.lan", "192.168.1.1@x"} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, host string, six bool) {
		local := netip.MustParseAddrPort("192.168.1.1:5000")
		if six {
			local = netip.MustParseAddrPort("[fe80::1]:5000")
		}
		if !isOwnHost(host, local) {
			if host == local.String() {
				t.Errorf("%q is not ours", host)
			}
			return
		}
		literal := strings.TrimSuffix(host, ":")
		if !strings.HasSuffix(literal, ":5000") || literal == "["+local.Addr().String()+"]" {
			literal = strings.TrimSuffix(literal, ":5000") + ":5000"
		}
		theirs, err := netip.ParseAddrPort(literal)
		if err != nil || theirs.Port() != 5000 || theirs.Addr().Unmap().WithZone("") != local.Addr() {
			t.Errorf("%q is taken for %v: %v, %v", host, local, theirs, err)
		}
	})
}

// pieces gives what comes some bytes at a time.
type pieces struct {
	*twin
	size int
}

func (p pieces) Read(b []byte) (int, error) { return p.twin.Read(b[:min(len(b), p.size)]) }

// FuzzSegments: what a client sends is read the same, in whatever pieces it comes,
// and is never more than the limits (issue 8, point 8).
func FuzzSegments(f *testing.F) {
	for _, tt := range requests {
		f.Add(tt.in+next, uint8(len(tt.in)/2))
	}
	f.Fuzz(func(t *testing.T, in string, step uint8) {
		var got [2][]*Request
		for i, size := range []int{len(in) + 1, int(step)%100 + 1} {
			var e echo
			s := &Server{Handler: e.handle, Limits: testLimits()}
			server, client := newTwins(serverAddr, clientAddr)
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.ServeConn(context.Background(), pieces{server, size})
			}()
			go func() {
				_, _ = io.WriteString(client, in)
				_ = client.CloseWrite()
			}()
			_, _ = io.Copy(io.Discard, client)
			<-done
			got[i] = e.reqs
		}
		if len(got[0]) != len(got[1]) {
			t.Fatalf("%d requests, in pieces %d", len(got[0]), len(got[1]))
		}
		limits := testLimits()
		for i, req := range got[0] {
			if show(req) != show(got[1][i]) || string(req.Body) != string(got[1][i].Body) {
				t.Errorf("got\n%s\nin pieces\n%s", show(req), show(got[1][i]))
			}
			if len(req.Body) > limits.BodyBytes || len(req.Header) > maxFields || len(req.Target) > limits.HeaderBytes {
				t.Errorf("%d bytes, %d fields, a target of %d", len(req.Body), len(req.Header), len(req.Target))
			}
		}
	})
}
