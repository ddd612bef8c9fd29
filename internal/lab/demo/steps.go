package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

const (
	page = "Hello from lan1\n"

	// Ports: what lan1 serves, and what the router opens for it.
	webPort, udpPort         = "8000", "7000"
	extWebPort, extUDPPort   = "8080", "9000"
	webAddr, udpAddr         = lab.WANAddr + ":" + extWebPort, lab.WANAddr + ":" + extUDPPort
	firewall                 = lab.Nftables
	replyTimeout, noReplyFor = 5 * time.Second, 700 * time.Millisecond
)

var steps = []step{
	{"two LAN hosts, a router and an internet host are up, in namespaces", raise,
		"root rights, and scripts/setup.sh for missing programs"},
	{"the router hides the LAN behind " + lab.WANAddr + " (masquerade), as home routers do", masquerade,
		"whether the kernel has the modules that nftables asks for"},
	{"upnpd -f " + lab.WANDev + " " + lab.LANDev + " runs on the router and serves", start,
		"the log of upnpd"},
	{"lan1 serves a web page and a UDP service; the internet cannot reach them yet", serve,
		"FORWARD and PREROUTING on the router: something opens ports by itself"},
	{"lan1 finds the router: upnpc -s says connected, address " + lab.WANAddr, find,
		"discovery: UDP port 1900 on " + lab.LANDev + ", then the descriptions over HTTP"},
	{"lan1 opens TCP port " + extWebPort + ": upnpc -a " + lab.LAN1Addr + " " + webPort + " " + extWebPort + " TCP", upnpc(
		"is redirected to internal "+lab.LAN1Addr+":"+webPort, "-e", "web page", "-a", lab.LAN1Addr, webPort, extWebPort, "TCP"),
		"the error code: 501 is the firewall, 606 a refusal, 718 a conflict"},
	{"lan1 opens UDP port " + extUDPPort, upnpc(
		"is redirected to internal "+lab.LAN1Addr+":"+udpPort, "-e", "a game", "-a", lab.LAN1Addr, udpPort, extUDPPort, "UDP"),
		"the error code: 501 is the firewall, 606 a refusal, 718 a conflict"},
	{"a peer on the internet fetches the page at http://" + webAddr + "/", fetch,
		"the maps and the accept of the mark (nft list ruleset on the router)"},
	{"a peer on the internet gets an answer over UDP from " + udpAddr, ask,
		"the maps and the accept of the mark (nft list ruleset on the router)"},
	{"lan2 asks for the same TCP port and is refused", refuse,
		"conflicts in the table of mappings"},
	{"upnpc -l lists both mappings", list,
		"GetGenericPortMappingEntry"},
	{"upnpctl check --live on the router finds nothing wrong", check,
		"the lines that say FAIL or WARN"},
	{"upnpd is killed (kill -9) and started again: both mappings work on", revive,
		"/run/upnpd/leases on the router, and the log of upnpd"},
	{"lan1 closes the TCP port: upnpc -d " + extWebPort + " TCP", upnpc("returned : 0", "-d", extWebPort, "TCP"),
		"the error code: 714 means that upnpd does not know the mapping"},
	{"the internet no longer reaches the page", noPage,
		"elements that deletion left: nft list ruleset on the router"},
	{"upnpd ends within 2 s of SIGTERM and leaves no rule", leave,
		"the rules that differ between before and after"},
}

func raise(t *tour, ctx context.Context) (string, error) {
	var err error
	t.lab, err = lab.New(ctx)
	return "", err
}

func masquerade(t *tour, _ context.Context) (string, error) {
	if err := t.lab.Masquerade(firewall); err != nil {
		return "", err
	}
	t.before = t.lab.Rules(firewall)
	if _, err := t.lab.Internet.EchoTCP(7); err != nil {
		return "", err
	}
	reply, err := t.lab.ReachTCP(t.lab.LAN1, lab.InternetAddr+":7", replyTimeout)
	if err == nil && !strings.Contains(reply, "-"+lab.WANAddr+":") {
		err = errors.New("the internet host sees another address than the router's")
	}
	return reply, err
}

func start(t *tour, _ context.Context) (string, error) {
	var err error
	// An empty file: the machine's own /etc/upnpd.conf is not for this router.
	t.daemon, err = t.lab.Router.Launch(t.upnpd, "--config", "/dev/null", lab.WANDev, lab.LANDev)
	return "", err
}

func serve(t *tour, ctx context.Context) (string, error) {
	web, err := t.lab.LAN1.ListenTCP(net.JoinHostPort(lab.LAN1Addr, webPort))
	if err != nil {
		return "", err
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, page) // a lost reply fails the step that fetches
	})
	go func() { _ = http.Serve(web, handler) }() // ends with the lab
	if _, err := t.lab.LAN1.EchoUDP(7000); err != nil {
		return "", err
	}
	if got, err := t.get("http://"+net.JoinHostPort(lab.LAN1Addr, webPort), t.lab.LAN2, replyTimeout); err != nil {
		return got, fmt.Errorf("lan2 cannot fetch the page on the LAN: %w", err)
	}
	if reply, err := t.lab.ReachUDP(t.lab.Internet, udpAddr, noReplyFor); err == nil {
		return reply, errors.New("the peer on the internet got an answer over UDP")
	}
	return noPage(t, ctx)
}

func find(t *tour, ctx context.Context) (string, error) {
	output, err := upnpc("Found valid IGD", "-s")(t, ctx)
	if err == nil && !strings.Contains(output, "ExternalIPAddress = "+lab.WANAddr) {
		err = errors.New("upnpc does not see the external address")
	}
	return output, err
}

func fetch(t *tour, _ context.Context) (string, error) {
	got, err := t.get("http://"+webAddr+"/", t.lab.Internet, replyTimeout)
	if err == nil && got != page {
		err = errors.New("this is another page")
	}
	return got, err
}

func ask(t *tour, _ context.Context) (string, error) {
	reply, err := t.lab.ReachUDP(t.lab.Internet, udpAddr, replyTimeout)
	want := "lan1 " + lab.LAN1Addr + ":" + udpPort + "-" + lab.InternetAddr + ":"
	if err == nil && !strings.HasPrefix(reply, want) {
		err = fmt.Errorf("the answer does not start with %q", want)
	}
	return reply, err
}

func refuse(t *tour, ctx context.Context) (string, error) {
	output, err := t.command(ctx, t.lab.LAN2, "upnpc", "-a", lab.LAN2Addr, webPort, extWebPort, "TCP")
	if !strings.Contains(output, "failed with code 718") {
		return output, fmt.Errorf("upnpc does not report 718, ConflictInMappingEntry (%w)", err)
	}
	return output, nil
}

func list(t *tour, ctx context.Context) (string, error) {
	output, err := upnpc("'web page'", "-l")(t, ctx)
	if err == nil && !strings.Contains(output, "'a game'") {
		err = errors.New("the UDP mapping is not in the list")
	}
	return output, err
}

func check(t *tour, ctx context.Context) (string, error) {
	return t.command(ctx, t.lab.Router, filepath.Join(filepath.Dir(t.upnpd), "upnpctl"), "check", "--live")
}

func revive(t *tour, ctx context.Context) (string, error) {
	t.daemon.Kill()
	if output, err := start(t, ctx); err != nil {
		return output, err
	}
	if output, err := fetch(t, ctx); err != nil {
		return output, err
	}
	return ask(t, ctx)
}

func noPage(t *tour, _ context.Context) (string, error) {
	if got, err := t.get("http://"+webAddr+"/", t.lab.Internet, noReplyFor); err == nil {
		return got, errors.New("the peer on the internet got an answer")
	}
	return "", nil
}

func leave(t *tour, _ context.Context) (string, error) {
	if err := t.daemon.Quit(); err != nil {
		return "", err
	}
	after := t.lab.Rules(firewall)
	if after != t.before {
		return "before:\n" + t.before + "after:\n" + after, errors.New("nft list ruleset shows other rules than before")
	}
	return "", nil
}

// upnpc is a step that runs upnpc on lan1 and looks for want in its output: the
// exit code does not always tell.
func upnpc(want string, args ...string) func(*tour, context.Context) (string, error) {
	return func(t *tour, ctx context.Context) (string, error) {
		output, err := t.command(ctx, t.lab.LAN1, "upnpc", args...)
		if err == nil && !strings.Contains(output, want) {
			err = fmt.Errorf("upnpc does not say %q", want)
		}
		return output, err
	}
}

func (t *tour) command(ctx context.Context, on *lab.Host, name string, args ...string) (string, error) {
	output, err := on.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s on %s: %w", name, strings.Join(args, " "), on.Name, err)
	}
	return string(output), err
}

// get fetches a page from a host.
func (t *tour) get(url string, from *lab.Host, timeout time.Duration) (string, error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			return from.Dial("tcp4", addr, timeout)
		},
	}
	reply, err := (&http.Client{Transport: transport, Timeout: timeout}).Get(url)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	return string(body), err
}
