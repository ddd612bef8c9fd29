package openwrt

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// with is the usual network with others.
func with(more map[string]network) map[string]network {
	all := usual()
	maps.Copy(all, more)
	return all
}

// TestUplink: a network by its l3 device, also while it is down, or a device
// (OPENWRT.md section 3; issue 5, point 6).
func TestUplink(t *testing.T) {
	const none = "config upnpd 'config'\n"
	wan := func(config, device string) map[string]network {
		return with(map[string]network{"wan": {config, device, device != ""}})
	}
	tests := []struct {
		name     string
		uci      string
		networks map[string]network
		extif    string
		triggers string // networks whose events reload it
		log      string
	}{
		{"up", section(), usual(), "eth1", "wan lan", ""},
		{"dhcp, down", section(), wan("option proto dhcp\noption device eth1", ""), "eth1", "wan lan", ""},
		{"static, down", section(), wan("option proto static\noption device eth0.2", ""), "eth0.2", "wan lan", ""},
		{"static, down, as in 19.07", section(), wan("option proto static\noption ifname eth0.2", ""), "eth0.2", "wan lan", ""},
		{"bridge, down, as in 19.07", section(), wan("option proto static\noption ifname 'eth0.2 eth0.3'\noption type bridge", ""), "br-wan", "wan lan", ""},
		{"pppoe, up", section(), wan("option proto pppoe\noption device eth1", "pppoe-wan"), "pppoe-wan", "wan lan", ""},
		{"pppoe, down", section(), wan("option proto pppoe\noption device eth1", ""), "pppoe-wan", "wan lan", ""},
		{"pppoe with a name, down", section(), wan("option proto pppoe\noption device eth1\noption pppname isp", ""), "isp", "wan lan", ""},
		{"l2tp, down", section(), wan("option proto l2tp\noption server isp.example", ""), "l2tp-wan", "wan lan", ""},
		{"a modem, down", section(), wan("option proto qmi\noption device /dev/cdc-wdm0", ""), "wan", "wan lan", ""},
		{"wifi, down", section(), wan("option proto dhcp", ""), "wan", "wan lan", ""},
		{"a name longer than a device's", "config upnpd 'config'\n\toption extif 'the_other_provider'\n", with(map[string]network{
			"the_other_provider": {"option proto dhcp", "", false},
		}), "the_other_provi", "the_other_provider lan", ""},
		{"over another network, down", "config upnpd 'config'\n\toption extif 'vpn'\n", map[string]network{
			"wan": {"option proto pppoe\noption device eth1", "", false},
			"vpn": {"option proto static\noption device @wan", "", false},
			"lan": usual()["lan"],
		}, "pppoe-wan", "vpn lan", ""},
		{"a circle of networks", section(), wan("option proto static\noption device @wan", ""), "wan", "wan lan", ""},
		{"a device", "config upnpd 'config'\n\toption extif 'eth0.2'\n", with(map[string]network{"vlan": {"option proto none", "eth0.2", false}}), "eth0.2", "lan", ""},
		{"a device that is not there", "config upnpd 'config'\n\toption extif 'ppp0'\n", usual(), "ppp0", "lan",
			`daemon.notice upnpd: upnpd.config.extif: "ppp0" is no network, and no device so far; waiting for it`},
		{"miniupnpd's name", "config upnpd 'config'\n\toption external_iface 'wan'\n", usual(), "eth1", "wan lan", ""},
		{"ours goes first", "config upnpd 'config'\n\toption external_iface 'lan'\n\toption extif 'wan'\n", usual(), "eth1", "wan lan", ""},
		{"a zone", "config upnpd 'config'\n\toption external_zone 'outside'\n", usual(), "eth1", "wan lan", ""},
		{"the default route", none, with(map[string]network{
			"wan":  {"option proto dhcp\noption device eth1", "", false},
			"wwan": {"option proto dhcp", "wlan0", true},
		}), "wlan0", "wwan lan any", ""},
		{"a network that another one made", none, with(map[string]network{
			"wan":   {"option proto map\noption device eth1", "eth1", false},
			"wan_4": {"", "map-wan_4", true},
		}), "map-wan_4", "wan_4 lan any", ""},
		{"no default route", none, wan("option proto dhcp\noption device eth1", ""), "eth1", "wan lan any", ""},
		{"no wan at all", none, map[string]network{"lan": usual()["lan"]}, "wan", "lan any",
			`daemon.notice upnpd: upnpd.config.extif is not set: "wan" is no network, and no device so far; waiting for it`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRouter(t, tt.uci)
			r.write("/etc/config/firewall", "config zone\n\toption name inside\n\tlist network lan\n"+
				"config zone\n\toption name outside\n\tlist network wan\n\tlist network wan6\n")
			r.networks(tt.networks)
			s := r.init("start")
			if s.happened() != "starts" {
				t.Errorf("it %s: %q", s.happened(), s.log)
			}
			if c := r.conf(); c.ExtIf != tt.extif || !slices.Equal(c.IntIfs, []string{"br-lan"}) {
				t.Errorf("extif %s, want %s; intif %s", c.ExtIf, tt.extif, c.IntIfs)
			}
			if got := s.args("procd_set_param")[3]; got != "netdev "+tt.extif+" br-lan" {
				t.Errorf("%s", got)
			}
			triggers := s.args("procd_add_reload_interface_trigger")
			if raw := s.args("procd_add_raw_trigger"); slices.Equal(raw, []string{"interface.* 2000 /etc/init.d/upnpd reload"}) {
				triggers = append(triggers, "any")
			} else if raw != nil {
				t.Errorf("trigger %q", raw)
			}
			if got := strings.Join(triggers, " "); got != tt.triggers {
				t.Errorf("triggers: %s, want %s", got, tt.triggers)
			}
			if got := strings.Join(s.log, "\n"); got != tt.log {
				t.Errorf("log: %q, want %q", got, tt.log)
			}
		})
	}
}

// TestUplinkGoes: while the uplink is down nothing changes, whatever kind it is.
func TestUplinkGoes(t *testing.T) {
	for config, device := range map[string]string{
		"option proto dhcp\noption device eth1":              "eth1",
		"option proto pppoe\noption device eth1":             "pppoe-wan",
		"option proto qmi\noption device /dev/cdc-wdm0":      "wwan0",
		"option proto dhcp":                                  "phy0-sta0",
		"option proto dhcp\noption ifname @other":            "wlan0",
		"option proto modemmanager\noption device /sys/a/b1": "wwan0",
	} {
		r := newRouter(t, section())
		r.networks(with(map[string]network{"wan": {config, device, true}}))
		r.init("start")
		r.networks(with(map[string]network{"wan": {config, "", false}}))
		s := r.init("reload")
		if c := r.conf(); c.ExtIf != device || s.happened() != "stays" && s.happened() != "gets signal 1" {
			t.Errorf("%q down: extif %s, want %s; it %s", config, c.ExtIf, device, s.happened())
		}
	}
}

// TestLANs: networks and devices, as a list or with blanks between them.
func TestLANs(t *testing.T) {
	guest := network{"option proto static\noption device br-guest", "br-guest", false}
	vlan := network{"option proto static\noption device eth0.3", "eth0.3", false}
	more := with(map[string]network{"guest": guest, "iot": vlan})
	const head = "config upnpd 'config'\n\toption extif 'wan'\n\t"
	tests := []struct {
		name     string
		uci      string
		intif    string
		triggers string
		log      string
	}{
		{"not set", head, "br-lan", "wan lan", ""},
		{"list", head + "list intif 'lan'\n\tlist intif 'guest'\n", "br-lan br-guest", "wan lan guest", ""},
		{"option", head + "option intif 'guest lan'\n", "br-guest br-lan", "wan guest lan", ""},
		{"miniupnpd's", head + "option internal_iface 'lan guest iot'\n", "br-lan br-guest eth0.3", "wan lan guest iot", ""},
		{"devices", head + "list intif 'eth0.3'\n\tlist intif 'br-lan'\n", "eth0.3 br-lan", "wan", ""},
		{"one device twice", head + "list intif 'lan'\n\tlist intif 'br-lan'\n\tlist intif 'lan'\n", "br-lan", "wan lan", ""},
		{"one that is down", head + "option intif 'lan spare'\n", "br-lan", "wan lan spare",
			"daemon.notice upnpd: upnpd.config.intif: network spare has no device now; waiting for it"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRouter(t, tt.uci)
			more["spare"] = network{"option proto static\noption device br-spare", "", false}
			r.networks(more)
			s := r.init("start")
			if c := r.conf(); strings.Join(c.IntIfs, " ") != tt.intif || s.happened() != "starts" {
				t.Errorf("intif %s, want %s; it %s", c.IntIfs, tt.intif, s.happened())
			}
			if got := s.args("procd_set_param")[3]; got != "netdev eth1 "+tt.intif {
				t.Errorf("%s", got)
			}
			if got := strings.Join(s.args("procd_add_reload_interface_trigger"), " "); got != tt.triggers {
				t.Errorf("triggers: %s, want %s", got, tt.triggers)
			}
			if got := strings.Join(s.log, "\n"); got != tt.log {
				t.Errorf("log: %q, want %q", got, tt.log)
			}
		})
	}
}

// TestLANComes: a LAN that was not there is served when it comes, and what is known
// already is not logged once more.
func TestLANComes(t *testing.T) {
	guest := "option proto static\noption device br-guest"
	r := newRouter(t, "config upnpd 'config'\n\toption extif 'wan'\n\toption intif 'lan guest'\n")
	r.networks(with(map[string]network{"guest": {guest, "", false}}))
	if s := r.init("start"); len(s.log) != 1 {
		t.Errorf("log: %q", s.log)
	}
	if s := r.init("reload"); len(s.log) != 0 || s.happened() != "stays" {
		t.Errorf("it %s; log: %q", s.happened(), s.log)
	}
	r.networks(with(map[string]network{"guest": {guest, "br-guest", false}}))
	s := r.init("reload")
	if c := r.conf(); s.happened() != "gets signal 1" || !slices.Equal(c.IntIfs, []string{"br-lan", "br-guest"}) {
		t.Errorf("it %s; intif %s", s.happened(), c.IntIfs)
	}
}

// TestNoLAN: without any LAN there is nothing to start, until one comes. One that
// goes for a moment, as at `/etc/init.d/network restart`, stops nothing.
func TestNoLAN(t *testing.T) {
	const lan = "option proto static\noption device br-lan"
	r := newRouter(t, section())
	down := map[string]network{"wan": usual()["wan"], "lan": {lan, "", false}}
	r.networks(down)
	r.remove("/sys/class/net/br-lan")
	s := r.init("start")
	want := []string{"daemon.notice upnpd: upnpd.config.intif: network lan has no device now; waiting for it"}
	if s.happened() != "" || len(s.args("procd_open_instance")) > 0 || !slices.Equal(s.log, want) {
		t.Errorf("it %s; log: %q", s.happened(), s.log)
	}
	if got := s.args("procd_add_reload_interface_trigger"); !slices.Contains(got, "lan") {
		t.Errorf("nothing would start it: %q", got)
	}
	r.networks(usual())
	if s := r.init("reload"); s.happened() != "starts" {
		t.Errorf("it %s; %q", s.happened(), s.log)
	}
	r.networks(down)
	r.remove("/sys/class/net/br-lan")
	if s := r.init("reload"); s.happened() != "" {
		t.Errorf("it %s", s.happened())
	}
}
