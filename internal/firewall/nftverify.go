package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Verify compares the kernel with what the last Sync and the changes since left
// there, and says in words what differs, "" for nothing. It changes nothing. Rules
// are counted, not read. Before the first Sync nothing can differ.
func (f *NFTables) Verify() (said string, err error) {
	if !f.proved {
		return "", nil
	}
	for range 2 { // a map that grew lately may miss elements in a dump
		if said, err = inspect(f.verify); said == "" || err != nil {
			break
		}
	}
	return strings.TrimPrefix(said, "; "), err
}

// verify gives the differences, each with "; " before it.
func (f *NFTables) verify(conn *netlink.Conn) (said string, err error) {
	present, err := f.present()
	if err != nil {
		return "", err
	}
	if !present {
		return "; table inet " + tableName + " is missing", nil
	}
	chains, err := readChains(conn)
	if err != nil {
		return "", err
	}
	ours := []kernelChain{
		{name: prerouting, hook: unix.NF_INET_PRE_ROUTING, kind: "nat"},
		{name: postrouting, hook: unix.NF_INET_POST_ROUTING, kind: "nat"},
		{name: forward, hook: unix.NF_INET_FORWARD, kind: "filter"},
	}
	if !f.IPv6 {
		ours = ours[:2]
	}
	for _, want := range ours {
		want.family, want.table, want.policy = unix.NFPROTO_INET, tableName, nfAccept
		number := 2
		switch want.name {
		case forward:
			number = len(pinNames)
		case prerouting:
			number = 3
		}
		rules, err := readRules(conn, want)
		if err != nil {
			return "", err
		}
		there := false
		for _, c := range chains {
			there = there || c == want
		}
		if there {
			said += amiss("chain "+want.name, number-len(rules), number, len(rules)-number, "rules")
		} else {
			said += "; chain " + want.name + " is missing"
		}
	}
	for _, set := range append([]string{ext4}, f.sets()...) {
		have, err := f.readSet(set)
		switch {
		case errors.Is(err, unix.ENOENT):
			said += "; map " + set + " is missing"
		case err != nil:
			return "", err
		case set == ext4:
			said += f.verifyAddress(have)
		default:
			said += f.verifyMap(set, have)
		}
	}
	return said, nil
}

func (f *NFTables) verifyAddress(have []entry) string {
	var want, got []byte
	if f.network.External.Is4() {
		want = f.network.External.AsSlice()
	}
	for _, e := range have {
		got = append(got, e.key...)
	}
	if !bytes.Equal(got, want) {
		return "; set " + ext4 + " is not the uplink's address"
	}
	return ""
}

func (f *NFTables) verifyMap(name string, have []entry) string {
	gone, come := f.state.compare(name, have, f.now())
	late := map[string]bool{} // their time is over, and the kernel may have ended them
	missing, further := 0, 0
	for _, e := range come {
		if e.expires <= grace {
			late[e.id()] = true
		} else {
			missing++
		}
	}
	for _, e := range gone {
		if !late[e.id()] {
			further++
		}
	}
	return amiss("map "+name, missing, len(f.state.all(name)), further, "mappings")
}

// amiss says how many things there are too few or too many, "" for neither.
func amiss(where string, missing, wanted, further int, things string) (said string) {
	if missing > 0 {
		said = fmt.Sprintf("; %s lacks %d of %d %s", where, missing, wanted, things)
	}
	if further > 0 {
		said += fmt.Sprintf("; %s has %d too many", where, further)
	}
	return said
}
