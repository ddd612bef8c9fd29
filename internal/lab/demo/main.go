// Command demo shows on one machine, in the lab's network namespaces, what
// upnpd does: a program on the LAN opens a port of the router, is reached from
// the internet through it, and loses it again. It needs root and the packages
// of scripts/setup.sh, takes less than a minute and leaves nothing behind.
//
//	demo [-upnpd PROGRAM]        go through the steps; exit 1 when one fails
//	demo [-upnpd PROGRAM] lab    keep the lab up until Ctrl-C, to try things
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
)

// demoTimeout bounds the whole demo; it takes about 15 seconds.
const demoTimeout = time.Minute

func main() {
	upnpd := flag.String("upnpd", "", "the upnpd to run; without it one is built")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx, *upnpd, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, upnpd string, args []string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root; nothing outside of them is touched")
	}
	if upnpd == "" {
		if upnpd, err = lab.BuildDaemon(); err != nil {
			return err
		}
	}
	if upnpd, err = filepath.Abs(upnpd); err != nil {
		return err
	}
	t := &tour{upnpd: upnpd}
	defer func() { err = errors.Join(err, t.end()) }()
	switch strings.Join(args, " ") {
	case "":
		ctx, cancel := context.WithTimeout(ctx, demoTimeout)
		defer cancel()
		return t.show(ctx)
	case "lab":
		return t.stay(ctx)
	}
	return fmt.Errorf("what is %q? usage: demo [-upnpd PROGRAM] [lab]", args)
}

// tour is one run of the demo: what the steps so far have made.
type tour struct {
	upnpd  string // path of the program
	lab    *lab.Lab
	daemon *lab.Daemon
	before string // the router's rules before upnpd came
}

// step is one line of the demo. do returns what the programs printed.
type step struct {
	text string
	do   func(*tour, context.Context) (output string, err error)
	hint string // where to look when it fails
}

// show goes through the steps until one fails.
func (t *tour) show(ctx context.Context) error {
	ok, failed := " ok ", "FAIL"
	if _, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS); err == nil {
		ok, failed = "\033[32m"+ok+"\033[m", "\033[31m"+failed+"\033[m"
	}
	for i, s := range steps {
		output, err := s.do(t, ctx)
		if err == nil {
			fmt.Printf("%s %2d  %s\n", ok, i+1, s.text)
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stopped at step %d (%s): %w", i+1, s.text, context.Cause(ctx))
		}
		fmt.Printf("%s %2d  %s\n", failed, i+1, s.text)
		for _, line := range strings.Split(strings.TrimSpace(err.Error()+"\n"+output), "\n") {
			fmt.Printf("         %s\n", line)
		}
		if t.daemon != nil {
			fmt.Printf("      log of upnpd:\n%s", t.daemon.Log())
		}
		fmt.Printf("      look at: %s\n", s.hint)
		return fmt.Errorf("step %d of %d failed", i+1, len(steps))
	}
	return nil
}

// end takes down whatever is up.
func (t *tour) end() error {
	var errs []error
	if t.daemon != nil {
		errs = append(errs, t.daemon.Quit())
	}
	if t.lab != nil {
		errs = append(errs, t.lab.Close())
	}
	return errors.Join(errs...)
}

// stay keeps the lab up, with upnpd on the router, until ctx or the standard
// input ends, and shows upnpd's log.
func (t *tour) stay(ctx context.Context) error {
	for _, do := range []func(*tour, context.Context) (string, error){raise, masquerade, start} {
		if output, err := do(t, ctx); err != nil {
			return fmt.Errorf("%w\n%s", err, output)
		}
	}
	fmt.Print("The lab is up. Enter a host as root from another terminal:\n\n")
	for _, h := range []*lab.Host{t.lab.Router, t.lab.LAN1, t.lab.LAN2, t.lab.Internet} {
		fmt.Printf("  nsenter -t %-7d -n -m bash   # %-8s %s\n", h.PID, h.Name, h.Addr)
	}
	fmt.Printf(`
Try on lan1:      upnpc -s
                  upnpc -e "my page" -a %s 8000 8080 TCP
                  upnpc -l
                  python3 -m http.server 8000
then on internet: wget -qO- http://%s:8080/
and on router:    nft list ruleset
                  %s list

Ctrl-C ends the lab. upnpd says:
`, lab.LAN1Addr, lab.WANAddr, filepath.Join(filepath.Dir(t.upnpd), "upnpctl"))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		buf := make([]byte, 512)
		for n := 1; n > 0; {
			n, _ = os.Stdin.Read(buf) // an error is the end as well
		}
	}()
	followed := make(chan error, 1)
	go func() { followed <- t.daemon.Follow(os.Stdout) }()
	select {
	case <-ctx.Done():
	case err := <-followed:
		return errors.Join(err, errors.New("upnpd ended by itself"))
	}
	_ = t.daemon.Quit() // end reports its error
	return <-followed
}
