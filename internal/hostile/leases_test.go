package hostile

import (
	"fmt"
	"hash/crc32"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/lab"
)

// lease is what upnpctl list --json counts down.
var lease = regexp.MustCompile(`"lease":\d+`)

// TestLeaseInjection: miniupnpd 38a9963: the end of a line in a description made
// another line of the lease file, which the next run believed.
func TestLeaseInjection(t *testing.T) {
	t.Parallel()
	h := enter(t).begin()
	p := h.peer(h.LAN2, lab.LAN2Addr).find()
	if _, code := p.add(wanip1, "AddPortMapping", wish{external: 30000, internal: 8080}); code != 0 {
		t.Fatalf("error %d", code)
	}
	var lines []string
	until(t, "the lease file is written", func() bool {
		text, _ := os.ReadFile(h.leases)
		lines = strings.Split(string(text), "\n")
		return len(lines) > 2
	})
	_, row, _ := strings.Cut(lines[1], " ")
	victim := strings.ReplaceAll(strings.Replace(row, "30000", "80", 1), lab.LAN2Addr, lab.LAN1Addr)
	forged := fmt.Sprintf("%08x %s", crc32.ChecksumIEEE([]byte(victim)), victim)
	n := 30001
	for _, end := range []string{"\n", "\r\n", "\r", "\n\n", "\x00\n", "\v", "\f", "\u0085", "\u2028", "\u2029", strings.Repeat("x", 1100) + "\n", strings.Repeat("x", 990) + "\n"} {
		desc := "x" + end + forged + end
		// XML has no NUL, and as &#10; what XML would make a blank of otherwise.
		for _, d := range []string{desc, strings.ReplaceAll(desc, "\n", "&#10;"), "<![CDATA[" + desc + "]]>"} {
			p.post(wanip1, "AddPortMapping", envelope(wanip1, "AddPortMapping", fmt.Sprintf("<NewRemoteHost/><NewExternalPort>%d</NewExternalPort><NewProtocol>TCP</NewProtocol><NewInternalPort>8080</NewInternalPort>"+
				"<NewInternalClient>%s</NewInternalClient><NewEnabled>1</NewEnabled><NewPortMappingDescription>%s</NewPortMappingDescription><NewLeaseDuration>0</NewLeaseDuration>", n, lab.LAN2Addr, d)))
			n++
		}
		if len(desc) < 900 {
			p.pcp(pcpAsk{lifetime: 7200, nonce: "x", proto: protoTCP, internal: uint16(n), external: uint16(n), options: option(optDescription, []byte(desc)...)})
		}
		n++
	}
	if rows := strings.Count(h.upnpctl("list"), "\n") - 1; rows < 30 {
		t.Errorf("%d mappings: too few were tried", rows)
	}
	h.same("SIGTERM", func() { h.daemon.Stop(t) })
	h.same("kill -9", h.daemon.Kill)
	if log := h.daemon.Log(); strings.Contains(log, "damaged") || strings.Contains(log, "\nx") || strings.ContainsAny(log, "\x00\v\f\r\u2028") {
		t.Errorf("the log:\n%q", log)
	}
}

// same checks that the daemon comes back with what it had, and nothing more.
func (h *house) same(how string, end func()) {
	h.t.Helper()
	before := lease.ReplaceAllString(h.upnpctl("list", "--json"), "")
	until(h.t, "the lease file has all", func() bool {
		text, _ := os.ReadFile(h.leases)
		return strings.Count(string(text), "\n") == strings.Count(before, `"client"`)+1
	})
	end()
	h.begin()
	after := lease.ReplaceAllString(h.upnpctl("list", "--json"), "")
	if after != before || strings.Contains(after, lab.LAN1Addr+`"`) || strings.Contains(after, `"external_port":80,`) {
		h.t.Errorf("after %s it has\n%s\nhad\n%s", how, after, before)
	}
}
