// Command standin stands in for OpenWrt's uci, for tests: packages in
// /etc/config, and changes that are not committed yet.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
