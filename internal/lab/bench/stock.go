package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	nft "github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A miniupnpd needs minutes to take thousands of mappings by SOAP. It keeps
// them in the kernel only, so rules like its own are its mappings too; what is
// missing are their descriptions. fill checks that it knows them.

// stock gives a miniupnpd n more mappings by writing its rules.
func (r *router) stock(n int) error {
	template := r.live.ports[len(r.live.ports)-1]
	ports := make([]int, n)
	for i := range ports {
		ports[i] = r.live.next + i
	}
	err := r.lab.Router.Do(func() error {
		if r.backend == nftables {
			return errors.Join(cloneNft("prerouting_miniupnpd", template, ports), cloneNft("miniupnpd", template, ports))
		}
		return errors.Join(cloneRules("nat", 2, template, ports), cloneRules("filter", 1, template, ports))
	})
	if err == nil {
		r.live.ports = append(r.live.ports, ports...)
		r.live.next += n
	}
	return err
}

// nftBatch keeps the kernel's answers to a batch inside the socket's buffer.
const nftBatch = 100

// cloneNft copies the rule of the port template in a chain for each of ports,
// behind the last rule. The thread must be on the router.
func cloneNft(chain string, template int, ports []int) error {
	conn, err := nft.New()
	if err != nil {
		return err
	}
	c := &nft.Chain{Name: chain, Table: &nft.Table{Name: "filter", Family: nft.TableFamilyINet}}
	rules, err := conn.GetRules(c.Table, c)
	if err != nil || len(rules) == 0 {
		return fmt.Errorf("list %d rules in chain %s: %w", len(rules), chain, err)
	}
	rule := rules[len(rules)-1] // of the newest mapping
	for batch := range slices.Chunk(ports, nftBatch) {
		for _, p := range batch {
			exprs, changed := otherPort(rule.Exprs, template, p)
			if !changed {
				return fmt.Errorf("the last rule in chain %s is not for port %d", chain, template)
			}
			conn.AddRule(&nft.Rule{Table: c.Table, Chain: c, Exprs: exprs, UserData: fmt.Appendf(nil, "bench %d", p)})
		}
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("add rules to chain %s: %w", chain, err)
		}
	}
	return nil
}

// otherPort copies a rule with another port.
func otherPort(exprs []expr.Any, from, to int) (all []expr.Any, changed bool) {
	old, now := binary.BigEndian.AppendUint16(nil, uint16(from)), binary.BigEndian.AppendUint16(nil, uint16(to))
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Cmp:
			if e.Op == expr.CmpOpEq && string(e.Data) == string(old) {
				all, changed = append(all, &expr.Cmp{Op: e.Op, Register: e.Register, Data: now}), true
				continue
			}
		case *expr.Immediate:
			if len(e.Data) >= 2 && string(e.Data[:2]) == string(old) {
				data := append(slices.Clone(now), e.Data[2:]...)
				all, changed = append(all, &expr.Immediate{Register: e.Register, Data: data}), true
				continue
			}
		}
		all = append(all, e)
	}
	return all, changed
}

// The layout of a legacy table in linux/netfilter_ipv4/ip_tables.h. No tool
// writes miniupnpd's rules: it uses a revision of DNAT that they have left.
const (
	setReplace, getInfo, getEntries = 64, 64, 65 // socket options

	hooks      = 5 // chains that the kernel itself begins with
	nameSize   = 32
	infoSize   = nameSize + 4 + 4*hooks + 4*hooks + 4 + 4 // struct ipt_getinfo
	askSize    = nameSize + 8                             // struct ipt_get_entries
	headSize   = nameSize + 12 + 8*hooks + 4 + 8          // struct ipt_replace
	counter    = 16
	targetAt   = 88  // in struct ipt_entry: where its target is
	nextAt     = 90  // and where it ends
	matchesAt  = 112 // its size
	verdictAt  = 32  // in struct xt_standard_target
	targetName = 2   // in struct xt_entry_target; standard targets have none
)

// cloneRules copies the rules of the port template, of which there must be so
// many, for each of ports, behind the original. The thread must be on the
// router.
func cloneRules(table string, rules, template int, ports []int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // nothing is lost with it
	info := make([]byte, infoSize)
	copy(info, table)
	if err := getsockopt(fd, getInfo, info); err != nil {
		return err
	}
	order := binary.NativeEndian
	count, size := order.Uint32(info[infoSize-8:]), order.Uint32(info[infoSize-4:])
	old := make([]byte, askSize+int(size))
	copy(old, table)
	order.PutUint32(old[nameSize:], size)
	if err := getsockopt(fd, getEntries, old); err != nil {
		return err
	}
	entries, moved, added, err := grow(old[askSize:], template, ports)
	if err != nil {
		return err
	}
	if added != rules*len(ports) {
		return fmt.Errorf("port %d is in %d rules, not in %d", template, added/len(ports), rules)
	}
	counters := make([]byte, int(count)*counter)
	head := make([]byte, headSize)
	copy(head, table)
	copy(head[nameSize:], info[nameSize:nameSize+4]) // valid hooks
	order.PutUint32(head[nameSize+4:], count+uint32(added))
	order.PutUint32(head[nameSize+8:], uint32(len(entries)))
	for i := range 2 * hooks { // their first rules and their policies
		at := order.Uint32(info[nameSize+4+4*i:])
		order.PutUint32(head[nameSize+12+4*i:], uint32(moved[int(at)]))
	}
	order.PutUint32(head[headSize-12:], count)
	order.PutUint64(head[headSize-8:], uint64(uintptr(unsafe.Pointer(&counters[0]))))
	err = unix.SetsockoptString(fd, unix.IPPROTO_IP, setReplace, string(head)+string(entries))
	runtime.KeepAlive(counters)
	return err
}

func getsockopt(fd, option int, value []byte) error {
	size := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, uintptr(option),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// grow copies all rules, those of the template for each port as well. moved
// says where an old rule is now.
func grow(old []byte, template int, ports []int) (entries []byte, moved map[int]int, added int, err error) {
	order := binary.NativeEndian
	moved = map[int]int{}
	for at := 0; at < len(old); {
		size := int(order.Uint16(old[at+nextAt:]))
		if size < matchesAt || at+size > len(old) {
			return nil, nil, 0, fmt.Errorf("a rule of %d bytes at %d of %d", size, at, len(old))
		}
		entry := old[at : at+size]
		moved[at] = len(entries)
		entries = append(entries, entry...)
		if hasPort(entry, template) {
			for _, p := range ports {
				entries = append(entries, withPort(entry, template, p)...)
			}
			added += len(ports)
		}
		at += size
	}
	for at := 0; at < len(entries); at += int(order.Uint16(entries[at+nextAt:])) {
		target := entries[at+int(order.Uint16(entries[at+targetAt:])):]
		to := int32(order.Uint32(target[verdictAt:]))
		if target[targetName] == 0 && to >= 0 { // a jump
			order.PutUint32(target[verdictAt:], uint32(moved[int(to)]))
		}
	}
	return entries, moved, added, nil
}

func hasPort(entry []byte, port int) bool {
	return string(withPort(entry, port, port+1)) != string(entry)
}

// withPort puts another port into a copy of a rule: matches have it in the
// order of the machine, targets in that of the network.
func withPort(entry []byte, from, to int) []byte {
	entry = append([]byte(nil), entry...)
	for at := matchesAt; at+2 <= len(entry); at += 2 {
		for _, order := range []binary.ByteOrder{binary.NativeEndian, binary.BigEndian} {
			if word := entry[at:]; order.Uint16(word) == uint16(from) {
				order.PutUint16(word, uint16(to))
				break
			}
		}
	}
	return entry
}
