package config

// Usage is the text of --help, at most 24 lines of 80 columns.
func Usage() string {
	return `Usage: ` + UsageLine + `
Opens ports of this router for programs on the LAN (UPnP IGD). EXTIF is the
device of the uplink, each INTIF that of a LAN. The program goes to the
background when it serves. SIGHUP: read the file again; SIGUSR1: delete all
mappings; SIGUSR2: end, but leave them working for the next run. See upnpctl.

  -f, --foreground      stay in the foreground and log to stdout and stderr
      --config FILE     read FILE instead of ` + DefaultPath + `
      --check-config    only say whether the configuration can be read
      --extip ADDR      report ADDR as the external address
      --port PORT       HTTP port (default 0: the first free one from 49152)
      --firewall NAME   auto, nftables or iptables (default auto)
      --secure no       let a host map ports for other hosts
      --allow "RULE"    allow a mapping, e.g. "any 192.168.1.0/24 any udp"
      --deny "RULE"     refuse a mapping; of all rules the first match decides
      --max-lease SEC   the longest lease (default 604800)
      --log-level NAME  error, warning, info or debug (default info)
  -h, --help            show this
      --version         show the version

Every option of the file is a flag too, with dashes: "max_mappings = 50" in the
file is "--max-mappings 50" here. Flags win over the file.
`
}
