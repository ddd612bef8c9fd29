// Command standin is, by the name it is called by, OpenWrt's uci or a upnpd that
// only checks its configuration.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/linux-igd/upnpd/internal/config"
)

func main() {
	var err error
	switch name := filepath.Base(os.Args[0]); name {
	case "uci":
		err = runUCI(os.Args[1:])
	case "upnpd":
		err = check(os.Args[1:])
	default:
		err = fmt.Errorf("standin: no program %q", name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// check is `upnpd --check-config --config FILE`.
func check(args []string) error {
	if len(args) == 0 || args[0] != "--check-config" {
		return fmt.Errorf("standin: upnpd %q", args)
	}
	if _, _, err := config.Parse(args[1:]); err != nil {
		return fmt.Errorf("upnpd: %w", err)
	}
	return nil
}
