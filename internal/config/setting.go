package config

import (
	"fmt"
	"strings"
)

// setting is one option as somebody wrote it.
type setting struct {
	option option
	value  string
	place  string // of the value, for errors: "/etc/upnpd.conf:12: max_lease =" or "--max-lease"
}

func (s setting) fail(err error) error {
	return fmt.Errorf("%s %q: %w", s.place, s.value, err)
}

// apply gives settings their types, in order. All of them come from one
// source, in which no option may be set twice unless it is repeatable.
func (c *Config) apply(settings []setting) error {
	seen := map[string]setting{}
	for _, s := range settings {
		o := s.option
		if first, ok := seen[o.sets()]; ok && !o.repeat {
			return s.fail(fmt.Errorf("set already by %s %q", first.place, first.value))
		}
		seen[o.sets()] = s
		if err := o.set(c, s.value); err != nil {
			return s.fail(err)
		}
		if len(c.IntIfs) > len(c.Places) {
			c.Places = append(c.Places, s.place)
		}
	}
	return nil
}

// findOption gives the option of that name, the zero option for none.
func findOption(name string) option {
	for _, o := range options {
		if o.name == name {
			return o
		}
	}
	return option{}
}

// unknown is the error for a name that is no option; dashes is how the name
// would begin on the command line.
func unknown(place, name, dashes string) error {
	hint := nearest(name)
	if hint == "" {
		return fmt.Errorf("%s: unknown option", place)
	}
	if dashes != "" {
		hint = dashes + strings.ReplaceAll(hint, "_", "-")
	}
	return fmt.Errorf("%s: unknown option, did you mean %s?", place, hint)
}

// nearest gives the option whose name is most like this one, "" for none.
func nearest(name string) string {
	name = strings.ReplaceAll(strings.ToLower(name), "-", "_")
	switch name { // what miniupnpd and linux-igd's init script call it
	case "ext_ifname", "extiface":
		return "extif"
	case "listening_ip", "intiface":
		return "intif"
	case "ext_ip":
		return "extip"
	case "secure_mode":
		return "secure"
	case "bitrate_up", "uprate":
		return "upstream_bitrate"
	case "bitrate_down", "downrate":
		return "downstream_bitrate"
	case "max_lifetime":
		return "max_lease"
	}
	best, least := "", len(name)/3+1
	for _, o := range options {
		if d := distance(name, o.name); d <= least && (best == "" || d < distance(name, best)) {
			best = o.name
		}
	}
	return best
}

// distance counts the letters to insert, delete or replace between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := min(row[j], row[j+1]) + 1
			if a[i] == b[j] {
				d = min(d, diagonal)
			} else {
				d = min(d, diagonal+1)
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
