// Package config turns the command line and upnpd.conf into one validated
// Config. It keeps linux-igd's grammar: its command line, its file format, and
// its options under their old names with their old meanings (DESIGN.md,
// "Decisions"; PEERS.md 1.1 and 1.2).
//
// What was written is read first, as settings, from the file and then from the
// flags; values get their types after, in that order, so that flags win.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

// DefaultPath is the file that is read when the command line names none. It
// need not exist.
const DefaultPath = "/etc/upnpd.conf"

// UsageLine is the form of the command line.
const UsageLine = "upnpd [flags] EXTIF INTIF..."

// The command line asked for a text, or for a look at the configuration, instead
// of a daemon.
var (
	ErrHelp    = errors.New("help asked")
	ErrVersion = errors.New("version asked")
	ErrChecked = errors.New("the configuration can be read")
)

// Config is everything that an administrator can choose. Whether the devices,
// the address and the programs it names exist is for the daemon to find out.
type Config struct {
	Foreground bool
	Path       string // the file that was read, "" for none

	ExtIf  string     // the uplink's device
	IntIfs []string   // the devices of the served LANs, one or more, no two the same
	Places []string   // where each of IntIfs was written, for errors: "/etc/upnpd.conf:3: intif ="
	ExtIP  netip.Addr // reported instead of the uplink's address; the zero Addr: none

	Port     uint16 // of HTTP; 0: the first free one from 49152
	Firewall Firewall
	IPTables IPTables
	Policy   portmap.Policy

	// What WANCommonInterfaceConfig reports, in bit/s; 0: the link's speed.
	UpstreamBitrate, DownstreamBitrate uint64

	DescriptionName string        // of the root description below /, e.g. "gatedesc.xml"
	NotifyInterval  time.Duration // between announcements (SPEC SSDP-32)
	UUID            string        // lower case, without "uuid:"; "": made from the LAN's MAC
	FriendlyName    string        // 1 to 63 characters (SPEC HTTP-4)
	Serial          string        // serialNumber, up to 63 characters; may be ""
	ModelNumber     string        // up to 31 characters (SPEC HTTP-4); may be ""
	// PresentationURL is the router's own web page: nil for http://LANADDR/,
	// "" to leave the element out.
	PresentationURL *string

	UPnP     bool
	IGD      IGD
	IPv6     bool // UPnP over IPv6, and pinholes
	NATPMP   bool
	PCP      bool
	LogLevel LogLevel
	// LeaseFile and ControlSocket are absolute paths; "": none.
	LeaseFile, ControlSocket string
	IdleTimeout              time.Duration // for mappings of hosts that have left; 0: off
	Sandbox                  bool          // allow few system calls, where no program is started
	User                     string        // name or uid, who the daemon is once it has started; "": stay
}

// IGD says which faces of the device control points see (DESIGN.md, "Two
// faces").
type IGD string

// The faces: IGDAuto has both, version 2 for those who search for it.
const (
	IGDAuto IGD = "auto"
	IGD1    IGD = "1"
	IGD2    IGD = "2"
)

// Firewall names the kernel interface that carries the mappings.
type Firewall string

// The firewalls that can be chosen; FirewallAuto takes what the system uses.
const (
	FirewallAuto     Firewall = "auto"
	FirewallIPTables Firewall = "iptables"
	FirewallNFTables Firewall = "nftables"
)

// IPTables are linux-igd's options for the iptables firewall.
type IPTables struct {
	Location           string // path of the iptables program; "": look it up
	CreateForwardRules bool   // also accept mapped traffic in ForwardChain
	ForwardRulesAppend bool   // our jump goes to the end of ForwardChain, not to its head
	ForwardChain       string // the parent chain of our jump, in table filter
	PreroutingChain    string // the parent chain of our jump, in table nat
}

// LogLevel says how much is logged.
type LogLevel uint8

// From few lines to many; each level includes those before it.
const (
	LogError LogLevel = iota
	LogWarning
	LogInfo
	LogDebug
)

// String gives the level as the option log_level has it.
func (l LogLevel) String() string {
	if int(l) < len(logLevels) {
		return logLevels[l]
	}
	return fmt.Sprintf("level %d", uint8(l))
}

var logLevels = [...]string{"error", "warning", "info", "debug"}

func defaults() *Config {
	return &Config{
		Firewall: FirewallAuto,
		IPTables: IPTables{
			CreateForwardRules: true,
			ForwardChain:       "FORWARD",
			PreroutingChain:    "PREROUTING",
		},
		Policy: portmap.Policy{
			Secure:       true,
			MaxLease:     longestLease * time.Second,
			MinLease:     120 * time.Second, // MAP-9
			MaxMappings:  1000,
			MaxPerClient: 200,
		},
		DescriptionName: "gatedesc.xml",
		NotifyInterval:  900 * time.Second,
		FriendlyName:    "Linux router",
		UPnP:            true,
		IGD:             IGDAuto,
		IPv6:            true,
		NATPMP:          true,
		PCP:             true,
		LogLevel:        LogInfo,
		LeaseFile:       "/var/run/upnpd/leases",
		Sandbox:         true,
		ControlSocket:   "/var/run/upnpd/upnpd.sock",
	}
}

// Parse reads the command line, without the program's name, and the file that
// it names. It gives the Config and warnings: options that are accepted but
// mean nothing here. An error is one line that says what is wrong, where, and
// what would be right; ErrHelp, ErrVersion and ErrChecked are no faults.
func Parse(args []string) (*Config, []string, error) {
	return parse(args, DefaultPath)
}

func parse(args []string, defaultPath string) (*Config, []string, error) {
	line, err := readArgs(args)
	if err != nil {
		return nil, nil, err
	}
	path, file, err := readFile(line.path, defaultPath)
	if err != nil {
		return nil, nil, err
	}
	c := defaults()
	c.Foreground, c.Path = line.foreground, path
	if err := c.apply(file); err != nil {
		return nil, nil, err
	}
	fileRules := c.Policy.Rules
	c.Policy.Rules = nil
	if line.has("intif") {
		c.IntIfs, c.Places = nil, nil
	}
	if err := c.apply(line.settings); err != nil {
		return nil, nil, err
	}
	c.Policy.Rules = append(c.Policy.Rules, fileRules...) // the flags' rules come first
	if err := c.checkDevices(); err != nil {
		return nil, nil, err
	}
	if line.check {
		return nil, nil, ErrChecked
	}
	return c, warnings(append(file, line.settings...)), nil
}

// checkDevices holds EXTIF and INTIFs against each other.
func (c *Config) checkDevices() error {
	switch {
	case c.ExtIf == "":
		return errors.New("missing EXTIF, the uplink's device (usage: " + UsageLine + ")")
	case len(c.IntIfs) == 0:
		return errors.New("missing INTIF, the LAN's device (usage: " + UsageLine + ")")
	case slices.Contains(c.IntIfs, c.ExtIf):
		return fmt.Errorf("%q is both EXTIF and INTIF: the uplink cannot be a served LAN", c.ExtIf)
	}
	return nil
}

func warnings(all []setting) []string {
	var list []string
	for _, s := range all {
		if s.option.name == "xml_document_path" {
			list = append(list, fmt.Sprintf("%s %q has no meaning here: the descriptions are built in", s.place, s.value))
		}
	}
	return list
}
