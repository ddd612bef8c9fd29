package openwrt

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// daemonOptions are the options in upnpd.conf(5), which a test of package config
// holds against the code.
func daemonOptions(t *testing.T) (all []string) {
	t.Helper()
	page, err := os.ReadFile("../../doc/upnpd.conf.5")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range regexp.MustCompile(`(?m)^\.T[PQ].*\n`).Split(string(page), -1) {
		if m := regexp.MustCompile(`^\\fB([a-z_]+)\\fR `).FindStringSubmatch(part); m != nil {
			all = append(all, strings.ReplaceAll(m[1], `\-`, "-"))
		}
	}
	if len(all) < 30 {
		t.Fatalf("%d options", len(all))
	}
	return all
}
