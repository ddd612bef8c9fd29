package faults

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

// atOnce is how many tests run side by side: most of their time they wait.
const atOnce = "14"

func TestMain(m *testing.M) {
	if socket, daemon, ok := strings.Cut(os.Getenv(supervisorEnv), " "); ok {
		fmt.Fprintln(os.Stderr, supervised(socket, daemon))
		os.Exit(1)
	}
	// Else each upnpctl, built with the race detector, takes a second to end.
	os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
