package vm

import (
	"testing"
	"github.com/linux-igd/upnpd/internal/lab"
)

func TestBoot(t *testing.T) {
	p, err := Packages("../../..")
	if err != nil {
		t.Fatal(err)
	}
	l := lab.Start(t)
	r := Boot(t, l, p, map[string]string{"usr/sbin/upnpd": "../../../dist/upnpd-mipsle"})
	t.Log(r.BootTime)
	t.Log(r.Console())
	t.Log(r.Sh("uname -a; free; df; ip a; lsmod; nft --version; iptables-legacy --version; upnpd --version; cat /proc/cpuinfo"))
	t.Log(r.Sh("ping -c 2 192.168.77.10; ping -c 2 11.0.0.1; dmesg|tail -20"))
}
