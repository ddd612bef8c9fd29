// Command upnpd lets programs on the LAN open ports of a home router by UPnP.
//
//	upnpd [flags] EXTIF INTIF...
//
// It goes to the background as linux-igd did, but only once it serves. See
// `upnpd --help` and README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/config"
	"github.com/linux-igd/upnpd/internal/ctl"
	"github.com/linux-igd/upnpd/internal/daemon"
)

var version = "0.1.0-dev" // set by the linker

func main() { os.Exit(run(os.Args)) }

func run(argv []string) int {
	if filepath.Base(argv[0]) == "upnpctl" {
		return ctl.Run(argv[1:], os.Stdout, os.Stderr)
	}
	load := func() (*config.Config, []string, error) { return config.Parse(argv[1:]) }
	cfg, warnings, err := load()
	switch {
	case errors.Is(err, config.ErrHelp):
		fmt.Print(config.Usage())
		return 0
	case errors.Is(err, config.ErrVersion):
		fmt.Println(version)
		return 0
	case errors.Is(err, config.ErrChecked):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "upnpd:", err)
		return 1
	}
	debug.SetGCPercent(20) // routers have little memory, and the heap is small
	runtime.GOMAXPROCS(1)  // nothing here is parallel; waking other threads only costs
	child := isChild()
	if !cfg.Foreground && !child {
		return background(argv)
	}
	log, parent := daemon.NewLog(os.Stdout, os.Stderr), (*os.File)(nil)
	if child {
		log, parent = daemon.NewSyslog(), parentPipe()
	}
	log.SetLevel(cfg.LogLevel)
	for _, w := range warnings {
		log.Warnf("%s", w)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2)
	signal.Ignore(unix.SIGPIPE)
	err = daemon.Run(untilStopped(), cfg, daemon.Options{
		Version: version, Log: log, Signals: signals, Load: load,
		Ready: func(notice string) { tell(parent, ready+notice) },
	})
	if err != nil {
		log.Errorf("upnpd: %v", err)
		tell(parent, err.Error())
		return 1
	}
	return 0
}

// untilStopped ends with SIGTERM or SIGINT. They have a channel of their own,
// so that no flood of other signals crowds them out.
func untilStopped() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM, unix.SIGINT)
	go func() {
		sig := <-stop
		cancel(fmt.Errorf("signal %d (%v)", sig, sig))
	}()
	return ctx
}
