module github.com/linux-igd/upnpd

go 1.23.0

toolchain go1.25.14

require (
	github.com/coreos/go-iptables v0.8.0
	github.com/google/nftables v0.3.0
	github.com/mdlayher/netlink v1.8.0
	github.com/mdlayher/socket v0.5.1
	github.com/spf13/pflag v1.0.10
	golang.org/x/sys v0.35.0
)

require (
	github.com/google/go-cmp v0.6.0 // indirect
	github.com/jackpal/go-nat-pmp v1.0.2
	golang.org/x/net v0.43.0 // indirect
	golang.org/x/sync v0.6.0 // indirect
)
