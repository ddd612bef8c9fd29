package igd_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/linux-igd/upnpd/internal/gena"
	"github.com/linux-igd/upnpd/internal/igd"
)

// The SCPDs against the tables of the standard.
func TestSCPD(t *testing.T) {
	t.Run("version 1", func(t *testing.T) { checkSCPDs(t, newWorld(t), services) })
	t.Run("version 2", func(t *testing.T) { checkSCPDs(t, newWorld(t, version2), services2) })
}

func checkSCPDs(t *testing.T, w *world, services []serviceSpec) {
	t.Helper()
	for _, svc := range services {
		_, root := w.document(svc.scpd)
		if root.XMLName.Local != "scpd" || root.XMLName.Space != "urn:schemas-upnp-org:service-1-0" { // HTTP-3
			t.Errorf("%s: root element %v", svc.scpd, root.XMLName)
		}
		if !slices.Equal(root.names(), []string{"specVersion", "actionList", "serviceStateTable"}) {
			t.Errorf("%s has %q", svc.scpd, root.names())
		}
		if got, want := scpdActions(t, root), specActions(svc); !slices.Equal(got, want) {
			t.Errorf("%s: actions\n%s\nwant\n%s", svc.scpd, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if got, want := scpdVars(root), specVars(svc); !slices.Equal(got, want) {
			t.Errorf("%s: variables\n%s\nwant\n%s", svc.scpd, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// scpdActions makes one line of each action, and one of each argument.
func scpdActions(t *testing.T, root element) []string {
	t.Helper()
	known := map[string]bool{}
	for _, v := range root.child("serviceStateTable").children("stateVariable") {
		known[v.child("name").Text] = true
	}
	var lines []string
	for _, a := range root.child("actionList").children("action") {
		lines = append(lines, a.child("name").Text)
		for _, list := range a.children("argumentList") {
			if len(list.Elements) == 0 {
				t.Errorf("%s has an empty argumentList", a.child("name").Text)
			}
			for _, g := range list.children("argument") {
				variable := g.child("relatedStateVariable").Text
				if !known[variable] {
					t.Errorf("%s: no variable %s", a.child("name").Text, variable)
				}
				lines = append(lines, fmt.Sprintf("  %s %s %s", g.child("direction").Text, g.child("name").Text, variable))
			}
		}
	}
	return lines
}

func specActions(svc serviceSpec) []string {
	var lines []string
	for _, a := range svc.actions {
		lines = append(lines, a.name)
		for _, name := range a.in {
			lines = append(lines, fmt.Sprintf("  in %s %s", name, related(name)))
		}
		for _, name := range a.out {
			lines = append(lines, fmt.Sprintf("  out %s %s", name, related(name)))
		}
	}
	return lines
}

func scpdVars(root element) []string {
	var lines []string
	for _, v := range root.child("serviceStateTable").children("stateVariable") {
		var allowed []string
		for _, a := range v.child("allowedValueList").children("allowedValue") {
			allowed = append(allowed, a.Text)
		}
		limits := v.child("allowedValueRange")
		lines = append(lines, fmt.Sprintf("%s %s %s %q %q %s..%s", v.child("name").Text, v.child("dataType").Text,
			v.attr("sendEvents"), allowed, v.child("defaultValue").Text, limits.child("minimum").Text, limits.child("maximum").Text))
	}
	return lines
}

func specVars(svc serviceSpec) []string {
	var lines []string
	for _, v := range svc.vars {
		events := "no"
		if v.evented {
			events = "yes"
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %q %q %s..%s", v.name, v.typ, events, v.allowed, v.initial, v.low, v.high))
	}
	return lines
}

// Windows and Xbox stop at anything of version 2 (INT-1).
func TestNothingOfVersion2(t *testing.T) {
	w := newWorld(t, func(_ *world, c *igd.Config) { c.IPv6, c.Events = true, gena.New(gena.Config{}) })
	for _, path := range []string{"/gatedesc.xml", layer3Spec.scpd, wanCommonSpec.scpd, wanIPSpec.scpd} {
		doc, _ := w.document(path)
		for _, v2 := range []string{
			":2<", "/2/", "allowedValueRange", "AddAnyPortMapping", "DeletePortMappingRange", "GetListOfPortMappings",
			"SystemUpdateID", "A_ARG_TYPE_", "WANIPv6FirewallControl", "DeviceProtection",
		} {
			if bytes.Contains(doc, []byte(v2)) {
				t.Errorf("%s has %s", path, v2)
			}
		}
	}
}
