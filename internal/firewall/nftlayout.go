package firewall

import (
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names, priorities and the mark of the table, all in this one place.
const (
	tableName = "upnpd"
	ext4      = "ext4"      // the uplink's addresses
	dnat4     = "dnat4"     // protocol . external port : client . internal port
	dnat4from = "dnat4from" // RemoteHost . protocol . external port : client . internal port
	snat4     = "snat4"     // client . protocol . internal port : external address . external port

	preroutingPriority  = -99 // dstnat + 1: after the administrator's own redirects
	postroutingPriority = 99  // srcnat - 1: before masquerading

	// The mark of connections that we redirect, in all backends, and as text.
	connMark = 0x10000000
	mark     = "0x10000000"
)

// mapNames are the maps that hold the mappings.
var mapNames = []string{dnat4, dnat4from, snat4}

// layout is everything of our table that does not change with the mappings.
type layout struct {
	uplink   string
	counters bool // elements of dnat4 and dnat4from count
	table    *nftables.Table
	sets     map[string]*nftables.Set
}

func newLayout(uplink string, counters bool) layout {
	l := layout{
		uplink: uplink, counters: counters,
		table: &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName},
		sets:  map[string]*nftables.Set{},
	}
	target := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	port := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	host := append([]nftables.SetDatatype{nftables.TypeIPAddr}, port...)
	for _, s := range []*nftables.Set{
		{Name: ext4, KeyType: nftables.TypeIPAddr},
		{Name: dnat4, KeyType: nftables.MustConcatSetType(port...), Counter: counters},
		{Name: dnat4from, KeyType: nftables.MustConcatSetType(host...), Counter: counters},
		{Name: snat4, KeyType: nftables.MustConcatSetType(host...)},
	} {
		s.Table = l.table
		if s.Name != ext4 {
			s.IsMap, s.Concatenation, s.HasTimeout, s.DataType = true, true, true, target
		}
		l.sets[s.Name] = s
	}
	return l
}

func (l layout) set(name string) *nftables.Set { return l.sets[name] }

// install queues the table, its sets, chains and rules. What is there already
// stays, but for the rules, which are written anew.
func (l layout) install(c *nftables.Conn) {
	c.AddTable(l.table)
	for _, name := range append([]string{ext4}, mapNames...) {
		c.AddSet(l.sets[name], nil)
	}
	prerouting := c.AddChain(&nftables.Chain{
		Table: l.table, Name: "prerouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(preroutingPriority),
	})
	postrouting := c.AddChain(&nftables.Chain{
		Table: l.table, Name: "postrouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityRef(postroutingPriority),
	})
	c.FlushTable(l.table) // rules only
	for _, r := range l.prerouting() {
		c.AddRule(&nftables.Rule{Table: l.table, Chain: prerouting, Exprs: r})
	}
	for _, r := range l.postrouting() {
		c.AddRule(&nftables.Rule{Table: l.table, Chain: postrouting, Exprs: r})
	}
}

// Registers: a key of several parts stands in consecutive ones, and so does
// what a map gives. The first has 16 bytes' name, the others 4 bytes' names.
const (
	reg1, reg2, reg3 = 1, 9, 10
	spare            = 2 // 16 bytes that no key reaches
)

// Offsets and lengths in packet headers.
var (
	saddr = expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}
	daddr = expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}
	sport = expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}
	dport = expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
)

func load(p expr.Payload, register uint32) expr.Any {
	p.DestRegister = register
	return &p
}

// prerouting redirects what comes to the uplink's address, from the internet
// and from the LAN alike. The lookup stands before the mark, so that only what
// has an entry gets it. A specific RemoteHost matches first.
func (l layout) prerouting() [][]expr.Any {
	to := append(ipv4(), load(daddr, reg1), &expr.Lookup{SourceRegister: reg1, SetName: ext4})
	from := append(to[:len(to):len(to)], load(saddr, reg1), l4proto(reg2), load(dport, reg3))
	any := append(to[:len(to):len(to)], l4proto(reg1), load(dport, reg2))
	return [][]expr.Any{
		append(append(from, lookup(dnat4from)), redirect()...),
		append(append(any, lookup(dnat4)), redirect()...),
	}
}

// postrouting lets a mapped host's own packets leave from the mapped port
// (SPEC WIP-25), and makes the answer to a LAN host that used the external
// address come back through the router.
func (l layout) postrouting() [][]expr.Any {
	source := append(device(expr.MetaKeyOIFNAME, expr.CmpOpEq, l.uplink), ipv4()...)
	source = append(source, load(saddr, reg1), l4proto(reg2), load(sport, reg3), lookup(snat4),
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg2, Specified: true})

	hairpin := append(device(expr.MetaKeyIIFNAME, expr.CmpOpNeq, l.uplink), device(expr.MetaKeyOIFNAME, expr.CmpOpNeq, l.uplink)...)
	hairpin = append(append(hairpin, ipv4()...), marked()...)
	hairpin = append(hairpin, &expr.Masq{})
	return [][]expr.Any{source, hairpin}
}

func ipv4() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.NFPROTO_IPV4}},
	}
}

func l4proto(register uint32) expr.Any {
	return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}
}

func device(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, &expr.Cmp{Op: op, Register: reg1, Data: padded}}
}

func lookup(set string) expr.Any {
	return &expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: set}
}

// redirect marks the connection and sends it where the lookup said.
func redirect() []expr.Any {
	host := binaryutil.NativeEndian // marks are the kernel's own integers
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: spare},
		&expr.Bitwise{
			SourceRegister: spare, DestRegister: spare, Len: 4,
			Mask: host.PutUint32(^uint32(connMark)), Xor: host.PutUint32(connMark),
		},
		&expr.Ct{Key: expr.CtKeyMARK, Register: spare, SourceRegister: true},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg1, RegProtoMin: reg2, Specified: true},
	}
}

func marked() []expr.Any {
	host := binaryutil.NativeEndian
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: reg1},
		&expr.Bitwise{
			SourceRegister: reg1, DestRegister: reg1, Len: 4,
			Mask: host.PutUint32(connMark), Xor: host.PutUint32(0),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: host.PutUint32(0)},
	}
}
