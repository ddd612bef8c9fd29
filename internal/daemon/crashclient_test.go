package daemon

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// mapState is what a client knows of a mapping; the zero mapState: there is none.
type mapState struct {
	client      string
	internal    int
	enabled     bool
	description string
	until       time.Time // about
}

// like allows for the time that an answer takes, and for whole seconds.
func (s mapState) like(o mapState) bool {
	near := s.until.Sub(o.until).Abs() < 3*time.Second
	s.until = o.until
	return near && s == o
}

func (s mapState) String() string {
	if s == (mapState{}) {
		return "not mapped"
	}
	return fmt.Sprintf("%s:%d, enabled %t, until %s, %q", s.client, s.internal, s.enabled, s.until.Format("01-02 15:04:05"), s.description)
}

// state is the mapping as its client knows it, if it was listed at that time.
func (m listed) state(at time.Time) (portmap.Key, mapState) {
	k := portmap.Key{ExternalPort: uint16(m.ExternalPort)}
	k.Protocol, _ = portmap.ParseProtocol(m.Protocol)
	if m.RemoteHost != nil {
		k.RemoteHost, _ = netip.ParseAddr(*m.RemoteHost)
	}
	return k, mapState{m.Client, m.InternalPort, m.Enabled, m.Description, at.Add(time.Duration(m.Lease) * time.Second)}
}

// answer is what a client was told, and when it had read that. sure: false when
// the answer did not come, so that nobody knows.
type answer struct {
	at    time.Time
	state mapState
	sure  bool
}

// crashClient is a program on a host that asks without rest, and knows what it was told. Its
// keys are its own.
type crashClient struct {
	host int
	cp   *home.ControlPoint
	rng  *rand.Rand
	keys []portmap.Key
	may  map[portmap.Key][]mapState // what each may have been at the start of this life
	told map[portmap.Key][]answer   // in this life
	acks int
}

// Ports of the first client, and how many each has: few, so that the same ones come and go.
const (
	crashPort  = 20000
	crashPorts = 12
)

func newCrashClient(host int, first uint16, cp *home.ControlPoint, rng *rand.Rand) *crashClient {
	c := &crashClient{host: host, cp: cp, rng: rng, may: map[portmap.Key][]mapState{}, told: map[portmap.Key][]answer{}}
	for port := first; port < first+crashPorts; port++ {
		for _, proto := range []portmap.Protocol{portmap.TCP, portmap.UDP} {
			for _, remote := range []netip.Addr{{}, netip.MustParseAddr(lab.InternetAddr), netip.MustParseAddr("11.0.0.9")} {
				k := portmap.Key{Protocol: proto, ExternalPort: port, RemoteHost: remote}
				c.keys = append(c.keys, k)
				c.may[k] = []mapState{{}}
			}
		}
	}
	return c
}

// odd are descriptions that try to be something else, and what is kept of them.
var odd = []struct{ sent, kept string }{
	{"a game", "a game"}, {"", ""}, {" ", " "}, {"-", "-"}, {"two\nlines\r\n", "twolines"}, {"tab\there", "tabhere"},
	{"x\n00000000 TCP 22 - 0 192.168.77.10 22 on UPnP 192.168.77.10 - 0 99999999 9999 - forged", "x00000000 TCP 22 - 0 192.168.77.10 22 on UPnP 192.168.77.10 - 0 99999999 9999 - forged"},
	{`"quoted" <&> 'too' \n %s`, `"quoted" <&> 'too' \n %s`}, {"ä ☃ \U0001F600 \u202e", "ä ☃ \U0001F600 \u202e"},
	{strings.Repeat("long ", 60), strings.Repeat("long ", 60)[:portmap.MaxDescription]}, {" blanks at both ends  ", " blanks at both ends  "},
}

// step makes one request. An error says that no answer came, or one that cannot
// be.
func (c *crashClient) step() error {
	k := c.keys[c.rng.IntN(len(c.keys))]
	before, known := c.latest(k)
	words := []string{"NewRemoteHost", addrText(k.RemoteHost), "NewExternalPort", strconv.Itoa(int(k.ExternalPort)), "NewProtocol", k.Protocol.String()}
	if c.rng.IntN(3) == 0 {
		_, code, err := c.cp.Try("DeletePortMapping", words...)
		c.note(k, mapState{}, err)
		if err == nil && known && (code == 714) != (before == mapState{}) || code != 0 && code != 714 {
			err = fmt.Errorf("delete %v: error %d; it was %v", k, code, before)
		}
		return err
	}
	description := odd[c.rng.IntN(len(odd))]
	next := mapState{client: c.cp.Addr, internal: 8080 + c.rng.IntN(2), enabled: c.rng.IntN(4) > 0, description: description.kept}
	if c.rng.IntN(2) == 0 && before != (mapState{}) { // a renewal
		next = before
		i := slices.IndexFunc(odd, func(d struct{ sent, kept string }) bool { return d.kept == before.description })
		description = odd[i]
	}
	lease, enabled := 1000*(1+c.rng.IntN(600)), "0"
	if next.enabled {
		enabled = "1"
	}
	_, code, err := c.cp.Try("AddPortMapping", append(words, "NewInternalPort", strconv.Itoa(next.internal), "NewInternalClient", next.client,
		"NewEnabled", enabled, "NewPortMappingDescription", description.sent, "NewLeaseDuration", strconv.Itoa(lease))...)
	next.until = time.Now().Add(time.Duration(lease) * time.Second)
	c.note(k, next, err)
	if code != 0 {
		err = fmt.Errorf("add %v: error %d", k, code)
	}
	return err
}

// latest is what the client was told last; false: it does not know.
func (c *crashClient) latest(k portmap.Key) (mapState, bool) {
	if told := c.told[k]; len(told) > 0 {
		last := told[len(told)-1]
		return last.state, last.sure
	}
	may := c.may[k]
	return may[len(may)-1], len(may) == 1
}

// note remembers an answer, or that there was none.
func (c *crashClient) note(k portmap.Key, s mapState, err error) {
	if err == nil {
		c.acks++
	}
	c.told[k] = append(c.told[k], answer{time.Now(), s, err == nil})
}

// crashed works out what each key may be after a kill at that time, when what is
// older than loss is sure, and says for how many of those that have changed there
// is no doubt.
func (c *crashClient) crashed(at time.Time, loss time.Duration) (certain int) {
	for k, told := range c.told {
		may := c.may[k]
		for _, a := range told {
			if a.sure && at.Sub(a.at) > loss {
				may = nil
				certain++
			}
			may = append(slices.Clip(may), a.state)
		}
		c.may[k] = may
	}
	clear(c.told)
	return certain
}

// compare wants one of the states that are right. From then on it is the one.
func (c *crashClient) compare(k portmap.Key, have mapState) error {
	may := c.may[k]
	for _, s := range may {
		if s.like(have) {
			c.may[k] = []mapState{have}
			return nil
		}
	}
	return fmt.Errorf("%v is %v after the crash; right is %v", k, have, may)
}
