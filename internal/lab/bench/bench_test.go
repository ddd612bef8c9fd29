package main

import (
	"encoding/binary"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	hundred := make(samples, 100)
	for i := range hundred {
		hundred[99-i] = float64(i + 1)
	}
	for _, test := range []struct {
		s       samples
		q, want float64
	}{
		{nil, 0.5, 0},
		{samples{7}, 0.99, 7},
		{samples{3, 1, 2}, 0.5, 2},
		{samples{4, 1, 3, 2}, 0.5, 2},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
	} {
		if got := test.s.quantile(test.q); got != test.want {
			t.Errorf("quantile %v of %d samples: %v, want %v", test.q, len(test.s), got, test.want)
		}
	}
}

func TestParseStat(t *testing.T) {
	// A name may hold anything (proc_pid_stat(5)); fields 16 and 17 are the children's times.
	got, err := parseStat("4711 (a) b (c) S 17 4711 4711 0 -1 4194304 1 2 3 4 50 60 250 150 20 0 1 0 9\n")
	if want := (stat{pid: 4711, parent: 17, ofChildren: 4 * time.Second}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := parseStat("4711 (short) S 17"); err == nil {
		t.Error("a short line is taken")
	}
}

func TestVerdict(t *testing.T) {
	for _, test := range []struct {
		k     key
		ratio float64
		want  string
	}{
		{key{nftables, addMapping, 100}, 0.5, "met"},
		{key{nftables, addMapping, 100}, 0.51, "MISSED"},
		{key{nftables, addMapping, 1000}, 0.09, "MISSED"},
		{key{iptables, addMapping, 1000}, 0.4, "met"},
		{key{iptables, addMapping, 10}, 9, ""}, // no target was set
		{key{iptables, getWholeList, 1000}, 0.31, "MISSED"},
		{key{nftables, getExternalIPAddress, 100}, 1, "met"},
		{key{nftables, residentMemory, 5000}, 2.1, "MISSED"},
		{key{nftables, connectLast, 100}, 9, ""},
	} {
		limit, wanted := target(test.k)
		if got := verdict(test.ratio, limit, wanted)[1]; got != test.want {
			t.Errorf("%+v with ratio %v: %q, want %q", test.k, test.ratio, got, test.want)
		}
	}
}

// rule is a struct ipt_entry with a match on a port and a standard target.
func rule(port, verdict int) []byte {
	b := make([]byte, matchesAt+4+verdictAt+4)
	order := binary.NativeEndian
	order.PutUint16(b[targetAt:], matchesAt+4)
	order.PutUint16(b[nextAt:], uint16(len(b)))
	order.PutUint16(b[matchesAt:], uint16(port))
	order.PutUint32(b[matchesAt+4+verdictAt:], uint32(int32(verdict)))
	return b
}

// A jump behind the copies must follow what it jumps to.
func TestGrow(t *testing.T) {
	one := len(rule(0, 0))
	old := append(append(rule(1, 2*one), rule(2000, -2)...), rule(3, -2)...)
	entries, moved, added, err := grow(old, 2000, []int{2001, 2002})
	if err != nil || added != 2 || moved[2*one] != 4*one {
		t.Fatalf("%d rules more, the third is at %d: %v", added, moved[2*one], err)
	}
	want := append(append(append(append(rule(1, 4*one), rule(2000, -2)...), rule(2001, -2)...), rule(2002, -2)...), rule(3, -2)...)
	if string(entries) != string(want) {
		t.Errorf("rules\n%x\nwant\n%x", entries, want)
	}
}
