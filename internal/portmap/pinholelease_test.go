//go:build go1.25

package portmap_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// TestPinholeLease: UpdatePinhole sets what is left (SPEC PIN-6), within the
// policy, and an ended pinhole is no entry.
func TestPinholeLease(t *testing.T) {
	live(t, func(c *portmap.Config) { c.Policy.MaxLease = 2 * time.Hour }, func(t *testing.T, w *world) {
		m := w.mustMap(pin(ann6, 8080))
		for _, tt := range []struct{ wish, want time.Duration }{
			{time.Minute, time.Minute}, {90 * time.Minute, 90 * time.Minute}, {86400 * time.Second, 2 * time.Hour}, {0, 2 * time.Hour}, {time.Second, time.Second},
		} {
			after(100 * time.Millisecond)
			if err := w.UpdatePinhole(m.ID, tt.wish, ann6); err != nil {
				t.Fatal(err)
			}
			got, err := w.Pinhole(m.ID, ann6)
			if left := w.Remaining(got); err != nil || left != tt.want {
				t.Errorf("%v: %v are left, %v", tt.wish, left, err)
			}
			m.Deadline = got.Deadline
			if got != m {
				t.Errorf("%v: it has become %+v", tt.wish, got)
			}
			w.checkKernel()
		}
		w.fw.Break(true)
		if err := w.UpdatePinhole(m.ID, time.Hour, ann6); !errors.Is(err, portmap.ErrFirewall) {
			t.Error(err)
		}
		if err := w.DeletePinhole(m.ID, ann6); !errors.Is(err, portmap.ErrFirewall) {
			t.Error(err)
		}
		w.fw.Break(false)
		if got, _ := w.Pinhole(m.ID, ann6); got != m {
			t.Errorf("refused, but %+v", got)
		}
		after(time.Second)
		for what, err := range map[string]error{
			"update": w.UpdatePinhole(m.ID, time.Hour, ann6), "delete": w.DeletePinhole(m.ID, ann6),
			"update 0": w.UpdatePinhole(0, time.Hour, ann6), "delete 0": w.DeletePinhole(0, ann6),
		} {
			if !errors.Is(err, portmap.ErrNoEntry) {
				t.Errorf("%s: %v", what, err)
			}
		}
		after(time.Second)
		w.checkKernel()

		// A policy that no longer allows it lets it end, but not live longer.
		m = w.mustMap(pin(ann6, 8080))
		p := policy()
		p.Rules = []portmap.Rule{anyRule(false, ports(8080, 8080), "deny 8080")}
		w.SetPolicy(p)
		if err := w.UpdatePinhole(m.ID, 2*time.Hour, ann6); !errors.Is(err, portmap.ErrDenied) {
			t.Error(err)
		}
		if err := w.DeletePinhole(m.ID, ann6); err != nil {
			t.Error(err)
		}
	})
}

// TestPinholeLog: one line for each, as those of mappings.
func TestPinholeLog(t *testing.T) {
	live(t, nil, func(t *testing.T, w *world) {
		var got []string
		last := func() {
			got = append(got, w.log[len(w.log)-1])
		}
		m := w.mustMap(pinFrom(ann6, 8080, peer6, 4000))
		last()
		lines := len(w.log)
		w.mustMap(pinFrom(ann6, 8080, peer6, 4000))
		w.UpdatePinhole(m.ID, time.Minute, ann6)
		if len(w.log) != lines {
			t.Errorf("renewals are logged: %q", w.log[lines:])
		}
		w.DeletePinhole(m.ID, ann6)
		last()
		w.mustMap(pin(ann6, 8080))
		after(time.Hour)
		last()
		w.mustMap(pin(ann6, 8080))
		w.Revoke(func(*portmap.Mapping) bool { return true }, "by the administrator")
		last()
		w.Map(pin(ann6, 80))
		last()
		w.DeletePinhole(7, ann6)
		last()
		want := []string{
			fmt.Sprintf("AddPinhole: TCP port 8080 of 2001:db8:1::10 from 2001:db8:9::101 port 4000 ID: %d Lease: 3600 s", m.ID),
			"DeletePinhole: TCP port 8080 of 2001:db8:1::10 from 2001:db8:9::101 port 4000",
			"ExpirePinhole: TCP port 8080 of 2001:db8:1::10 from any",
			"DeletePinhole: TCP port 8080 of 2001:db8:1::10 from any (by the administrator)",
			"refused 2001:db8:1::10: open pinhole TCP port 80 of 2001:db8:1::10 from any: denied by the rules: ports below 1024 need an allow rule",
			"refused 2001:db8:1::10: delete pinhole 7: no such mapping",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
