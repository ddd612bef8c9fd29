package home

import "github.com/linux-igd/upnpd/internal/lab"

// FW4 is what OpenWrt's firewall4 makes of its stock configuration, as far as IPv4
// goes: zones lan and wan, no redirect. post is what it includes of chain-post/forward.
func FW4(post string) string {
	return `table inet fw4 {
	chain input {
		type filter hook input priority filter; policy drop;
		iif "lo" accept
		ct state vmap { established : accept, related : accept }
		iifname "` + lab.LANDev + `" jump input_lan
		iifname "` + lab.WANDev + `" jump input_wan
		jump handle_reject
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state vmap { established : accept, related : accept }
		iifname "` + lab.LANDev + `" jump forward_lan
		iifname "` + lab.WANDev + `" jump forward_wan
` + post + `
		jump handle_reject
	}
	chain handle_reject {
		meta l4proto tcp reject with tcp reset
		reject with icmpx port-unreachable
	}
	chain input_lan { jump accept_from_lan; }
	chain input_wan { meta nfproto ipv4 udp dport 68 accept; icmp type echo-request accept; jump reject_from_wan; }
	chain forward_lan { jump accept_to_wan; jump accept_to_lan; }
	chain forward_wan { jump reject_to_wan; }
	chain accept_from_lan { iifname "` + lab.LANDev + `" counter accept; }
	chain accept_to_lan { oifname "` + lab.LANDev + `" counter accept; }
	chain accept_to_wan { meta nfproto ipv4 oifname "` + lab.WANDev + `" ct state invalid counter drop; oifname "` + lab.WANDev + `" counter accept; }
	chain reject_from_wan { iifname "` + lab.WANDev + `" counter jump handle_reject; }
	chain reject_to_wan { oifname "` + lab.WANDev + `" counter jump handle_reject; }
	chain srcnat {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "` + lab.WANDev + `" meta nfproto ipv4 masquerade
	}
}
`
}
