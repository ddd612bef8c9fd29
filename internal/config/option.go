package config

import (
	"errors"
	"slices"
	"strings"
)

// longestLease is the standard's longest lease, in seconds (SPEC WIP-4).
const longestLease = 604800

// option is one name of upnpd.conf; as a flag it has dashes.
type option struct {
	name   string
	alias  string // the option that sets the same thing, "" for none
	repeat bool
	// set gives the value its type. Its error says what would be right.
	set func(c *Config, v string) error
}

// sets names what the option sets, the same for an alias and its option.
func (o option) sets() string {
	if o.alias != "" {
		return o.alias
	}
	return o.name
}

// flagName is the option's name on the command line.
func (o option) flagName() string { return strings.ReplaceAll(o.name, "_", "-") }

// options are all options: linux-igd's, then the project's own.
var options = append(igdOptions, ownOptions...)

// igdOptions are those of linux-igd (PEERS.md 1.2).
var igdOptions = []option{
	{name: "iptables_location", set: func(c *Config, v string) error { return path(&c.IPTables.Location, v) }},
	{name: "debug_mode", alias: "log_level", set: func(c *Config, v string) error { return number(&c.LogLevel, v, 0, 3) }},
	{name: "create_forward_rules", set: func(c *Config, v string) error { return yesNo(&c.IPTables.CreateForwardRules, v) }},
	{name: "forward_rules_append", set: func(c *Config, v string) error { return yesNo(&c.IPTables.ForwardRulesAppend, v) }},
	{name: "forward_chain_name", set: func(c *Config, v string) error { return chain(&c.IPTables.ForwardChain, v, "FORWARD") }},
	{name: "prerouting_chain_name", set: func(c *Config, v string) error { return chain(&c.IPTables.PreroutingChain, v, "PREROUTING") }},
	{name: "upstream_bitrate", set: func(c *Config, v string) error { return bitrate(&c.UpstreamBitrate, v) }},
	{name: "downstream_bitrate", set: func(c *Config, v string) error { return bitrate(&c.DownstreamBitrate, v) }},
	{name: "duration", set: func(c *Config, v string) error { return duration(&c.Policy.DefaultLease, v) }},
	{name: "description_document_name", set: func(c *Config, v string) error { return fileName(&c.DescriptionName, v) }},
	{name: "xml_document_path", set: func(*Config, string) error { return nil }}, // gets a warning
	{name: "listenport", alias: "port", set: func(c *Config, v string) error { return number(&c.Port, v, 0, 65535) }},
}

var ownOptions = []option{
	{name: "extif", set: func(c *Config, v string) error { return device(&c.ExtIf, v) }},
	{name: "intif", repeat: true, set: addIntIf},
	{name: "extip", set: func(c *Config, v string) error { return unicast(&c.ExtIP, v) }},
	{name: "port", set: func(c *Config, v string) error { return number(&c.Port, v, 0, 65535) }},
	{name: "firewall", set: setFirewall},
	{name: "secure", set: func(c *Config, v string) error { return yesNo(&c.Policy.Secure, v) }},
	{name: "max_lease", set: func(c *Config, v string) error { return seconds(&c.Policy.MaxLease, v, 1, longestLease) }},
	{name: "max_mappings", set: func(c *Config, v string) error { return number(&c.Policy.MaxMappings, v, 1, 65535) }},
	{name: "max_mappings_per_client", set: func(c *Config, v string) error { return number(&c.Policy.MaxPerClient, v, 1, 65535) }},
	{name: "notify_interval", set: func(c *Config, v string) error { return seconds(&c.NotifyInterval, v, 30, 43200) }},
	{name: "uuid", set: func(c *Config, v string) error { return uuid(&c.UUID, v) }},
	{name: "friendly_name", set: func(c *Config, v string) error { return text(&c.FriendlyName, v, 1, 63) }},
	{name: "serial", set: func(c *Config, v string) error { return text(&c.Serial, v, 0, 63) }},
	{name: "model_number", set: func(c *Config, v string) error { return text(&c.ModelNumber, v, 0, 31) }},
	{name: "presentation_url", set: func(c *Config, v string) error { return webPage(&c.PresentationURL, v) }},
	{name: "upnp", set: func(c *Config, v string) error { return yesNo(&c.UPnP, v) }},
	{name: "igd", set: setIGD},
	{name: "ipv6", set: func(c *Config, v string) error { return yesNo(&c.IPv6, v) }},
	{name: "natpmp", set: func(c *Config, v string) error { return yesNo(&c.NATPMP, v) }},
	{name: "pcp", set: func(c *Config, v string) error { return yesNo(&c.PCP, v) }},
	{name: "pcp_nonce", set: setNonce},
	{name: "min_lease", set: func(c *Config, v string) error { return seconds(&c.Policy.MinLease, v, 1, 86400) }},
	{name: "log_level", set: setLogLevel},
	{name: "lease_file", set: func(c *Config, v string) error { return path(&c.LeaseFile, v) }},
	{name: "control_socket", set: func(c *Config, v string) error { return path(&c.ControlSocket, v) }},
	{name: "user", set: func(c *Config, v string) error { return account(&c.User, v) }},
	{name: "sandbox", set: func(c *Config, v string) error { return yesNo(&c.Sandbox, v) }},
	{name: "idle_timeout", set: func(c *Config, v string) error { return seconds(&c.IdleTimeout, v, 0, longestLease) }},
	{name: "allow", repeat: true, set: func(c *Config, v string) error { return addRule(c, "allow", v) }},
	{name: "deny", repeat: true, set: func(c *Config, v string) error { return addRule(c, "deny", v) }},
}

func addIntIf(c *Config, v string) error {
	if slices.Contains(c.IntIfs, v) {
		return errors.New("the same INTIF twice")
	}
	var name string
	err := device(&name, v)
	c.IntIfs = append(c.IntIfs, name)
	return err
}

func setFirewall(c *Config, v string) error {
	switch f := Firewall(v); f {
	case FirewallAuto, FirewallIPTables, FirewallNFTables:
		c.Firewall = f
		return nil
	}
	return errors.New("want auto, iptables or nftables")
}

func setIGD(c *Config, v string) error {
	switch i := IGD(v); i {
	case IGDAuto, IGD1, IGD2:
		c.IGD = i
		return nil
	}
	return errors.New("want auto, 1 or 2")
}

func setNonce(c *Config, v string) error {
	if v != "strict" && v != "same-host" {
		return errors.New("want strict or same-host")
	}
	c.Policy.SameHostNonce = v == "same-host"
	return nil
}

func setLogLevel(c *Config, v string) error {
	i := slices.Index(logLevels[:], v)
	if i < 0 {
		return errors.New("want one of " + strings.Join(logLevels[:], ", "))
	}
	c.LogLevel = LogLevel(i)
	return nil
}
