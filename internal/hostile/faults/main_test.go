package faults

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

// atOnce is how many tests run side by side: most of their time they wait.
const atOnce = "12"

func TestMain(m *testing.M) {
	if socket, daemon, ok := strings.Cut(os.Getenv(supervisorEnv), " "); ok {
		fmt.Fprintln(os.Stderr, supervised(socket, daemon))
		os.Exit(1)
	}
	os.Setenv("GORACE", "atexit_sleep_ms=0") // else each upnpctl takes a second to end
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
