package main

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
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

// The layouts are those of RFC 6886, section 3, and RFC 6887, sections 7 and 11.
func TestAnswers(t *testing.T) {
	host := netip.MustParseAddr("192.168.77.11")
	const yes, mapped = "00000007", "00000000000000000000ffff0b000002" // epoch, external address
	pcp := pcpMap(host, 54000, 3600)
	if want := "02010000" + "00000e10" + "00000000000000000000ffffc0a84d0b" + hex.EncodeToString([]byte(nonce)) +
		"06000000" + "d2f0d2f0" + "00000000000000000000ffff00000000"; hex.EncodeToString(pcp) != want {
		t.Errorf("PCP MAP\n%x\nwant\n%s", pcp, want)
	}
	body := hex.EncodeToString(pcp[headerLen:42])
	header := func(lifetime string) string { return "02810000" + lifetime + yes + "000000000000000000000000" }
	for name, test := range map[string]struct {
		request []byte
		reply   string
		want    bool
	}{
		"address":              {natpmpAddress(host), "00800000" + yes + "0b000002", true},
		"another address":      {natpmpAddress(host), "00800000" + yes + "0b000003", false},
		"no address":           {natpmpAddress(host), "00800003" + yes + "00000000", false},
		"NAT-PMP":              {natpmpMap(host, 54000, 3600), "00820000" + yes + "d2f0d2f000000e10", true},
		"NAT-PMP, other port":  {natpmpMap(host, 54000, 3600), "00820000" + yes + "d2f0d2f100000e10", false},
		"NAT-PMP, no lifetime": {natpmpMap(host, 54000, 3600), "00820000" + yes + "d2f0d2f000000000", false},
		"NAT-PMP refused":      {natpmpMap(host, 54000, 3600), "00820002" + yes + "d2f0d2f000000e10", false},
		"NAT-PMP deletion":     {natpmpMap(host, 54000, 0), "00820000" + yes + "d2f0000000000000", true},
		"PCP":                  {pcp, header("00000e10") + body + "d2f0" + mapped, true},
		"PCP, other port":      {pcp, header("00000e10") + body + "d2f1" + mapped, false},
		"PCP, other nonce":     {pcp, header("00000e10") + "ff" + body[2:] + "d2f0" + mapped, false},
		"PCP, no lifetime":     {pcp, header("00000000") + body + "d2f0" + mapped, false},
		"PCP cut":              {pcp, header("00000e10") + body, false},
		"PCP refused":          {pcp, "02810002" + header("00000e10")[8:] + body + "d2f0" + mapped, false},
		"PCP deletion":         {pcpMap(host, 54000, 0), header("00000000") + body + "d2f0" + mapped, true},
		"ANNOUNCE":             {pcpAnnounce(host), "02800000" + header("00000000")[8:], true},
		"a request again":      {pcpAnnounce(host), hex.EncodeToString(pcpAnnounce(host)), false},
	} {
		reply, err := hex.DecodeString(test.reply)
		if err != nil {
			t.Fatal(name, err)
		}
		if err := answers(test.request, reply); (err == nil) != test.want {
			t.Errorf("%s: %v, want yes: %v", name, err, test.want)
		}
	}
}

// A port must always be the same host's, also when the ports begin anew, and a
// burst must have a request of every host.
func TestNextAsked(t *testing.T) {
	r := &router{asked: askedPorts - 3}
	for range hosts {
		r.askers = append(r.askers, &asker{})
	}
	perHost := map[*asker]int{}
	for _, port := range r.nextAsked(blockSize * hosts) {
		if port < firstAsked || port >= firstAsked+askedPorts {
			t.Errorf("port %d", port)
		}
		perHost[r.of(port)]++
	}
	for _, n := range perHost {
		if n != blockSize {
			t.Errorf("one host has %d ports, want %d", n, blockSize)
		}
	}
	if r.of(firstAsked) != r.askers[0] || askedPorts%hosts != 0 {
		t.Error("ports change their host")
	}
}

// More is better in rates only, and a table has a name for each measure.
func TestDescribe(t *testing.T) {
	for m := range measures {
		name, unit := m.describe()
		if name == "" || unit == 0 || m.perSecond() != strings.HasSuffix(name, "requests/s") || strings.HasSuffix(name, "ms") != (unit == 1e6 && !strings.HasSuffix(name, "MB")) {
			t.Errorf("measure %d: %q, %v", m, name, unit)
		}
	}
}
