package faults

import (
	"flag"
	"os"
	"testing"
)

// atOnce is how many tests run side by side: most of their time they wait.
const atOnce = "12"

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", atOnce); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
