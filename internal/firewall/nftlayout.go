package firewall

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Names, priorities and the mark of the table, all in this one place.
const (
	tableName = "upnpd"
	ext4      = "ext4"      // the uplink's addresses
	dnat4     = "dnat4"     // protocol . external port : client . internal port
	dnat4from = "dnat4from" // RemoteHost . protocol . external port : client . internal port
	dnat4net  = "dnat4net"  // remote prefix . remote ports . protocol . external port : client . internal port
	snat4     = "snat4"     // client . protocol . internal port : external address . external port
	pin6      = "pin6"      // pinholes: protocol . client . port
	pin6host  = "pin6host"  // RemoteHost before that
	pin6port  = "pin6port"  // RemotePort before that
	pin6both  = "pin6both"  // both before that, the host first
	pin6net   = "pin6net"   // a remote prefix and remote ports before that

	prerouting, postrouting, forward = "prerouting", "postrouting", "forward" // chains

	preroutingPriority  = -99 // dstnat + 1: after the administrator's own redirects
	postroutingPriority = 99  // srcnat - 1: before masquerading
	forwardPriority     = -1  // filter - 1: before the chains that accept our mark

	// The mark of connections that we redirect, in all backends, and as text.
	connMark = 0x10000000
	mark     = "0x10000000"
)

// setNames are the maps that hold the mappings, and then the sets that hold the
// pinholes, pinNames. Each combination of wildcards has a set of its own: in one set
// of intervals the kernel refuses what lies within an element that is there already
// (EEXIST). What PCP filters by a prefix has those (SPEC MAP-13): it is alone on its
// port.
var (
	setNames = []string{dnat4, dnat4from, snat4, dnat4net, pin6, pin6host, pin6port, pin6both, pin6net}
	pinNames = setNames[4:]
)

// layout is everything of our table that does not change with the mappings.
type layout struct {
	uplink   string
	counters bool // elements count, but for those of snat4
}

// datatype is one of nft's types of keys and values (its include/datatype.h):
// the number and, in the lower byte, the length.
type datatype uint32

const (
	ipAddr      datatype = 7<<8 | 4
	ip6Addr     datatype = 8<<8 | 16
	inetProto   datatype = 12<<8 | 1
	inetService datatype = 13<<8 | 2
)

// Attributes and a flag of maps whose keys have several parts
// (linux/netfilter/nf_tables.h).
const (
	setConcat     = 0x80 // NFT_SET_CONCAT
	setDescConcat = 2    // NFTA_SET_DESC_CONCAT, in NFTA_SET_DESC
	setFieldLen   = 1    // NFTA_SET_FIELD_LEN
	setExpr       = 17   // NFTA_SET_EXPR
	setElemKeyEnd = 10   // NFTA_SET_ELEM_KEY_END
)

// concat gives the type and the length of a key or value of several parts: six
// bits of the type for each, and whole registers.
func concat(parts ...datatype) (kind, length uint32) {
	for _, p := range parts {
		kind = kind<<6 | uint32(p>>8)
		length += uint32(part(p)) * 4
	}
	return kind, length
}

// part is how many registers a part of a key takes.
func part(p datatype) int { return (int(p&0xff) + 3) / 4 }

// install adds the table, its sets, chains and rules. What is there already
// stays, but for the rules, which are written anew.
func (l layout) install(b *batch, pinholes bool) {
	table := attributes(nil).text(unix.NFTA_TABLE_NAME, tableName)
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, table.number(unix.NFTA_TABLE_FLAGS, 0))
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, b.set(ext4, 0, ipAddr))
	b.addMap(dnat4, l.counters, inetProto, inetService)
	b.addMap(dnat4from, l.counters, ipAddr, inetProto, inetService)
	b.addMap(dnat4net, l.counters, ipAddr, inetService, inetProto, inetService)
	b.addMap(snat4, false, ipAddr, inetProto, inetService)
	b.addChain(prerouting, "nat", unix.NF_INET_PRE_ROUTING, preroutingPriority)
	b.addChain(postrouting, "nat", unix.NF_INET_POST_ROUTING, postroutingPriority)
	b.add(unix.NFT_MSG_DELRULE, 0, table)      // all of them
	b.addRule(prerouting, redirect(dnat4from)) // a specific RemoteHost matches first
	b.addRule(prerouting, redirect(dnat4))
	b.addRule(prerouting, redirect(dnat4net))
	b.addRule(postrouting, l.source())
	b.addRule(postrouting, l.hairpin())
	if pinholes {
		l.installPinholes(b)
		for _, set := range pinNames {
			b.addRule(forward, admit(set))
		}
	}
}

// installPinholes adds the sets and the chain of pinholes.
func (l layout) installPinholes(b *batch) {
	for _, set := range pinNames {
		var key []datatype
		if hasHost(set) {
			key = append(key, ip6Addr)
		}
		if hasPort(set) {
			key = append(key, inetService)
		}
		b.addMap(set, l.counters, append(key, inetProto, ip6Addr, inetService)...)
	}
	b.addChain(forward, "filter", unix.NF_INET_FORWARD, forwardPriority)
}

// removePinholes takes away what installPinholes adds, whether it is there or not.
func (l layout) removePinholes(b *batch) {
	l.installPinholes(b)
	b.add(unix.NFT_MSG_DELCHAIN, 0, attributes(nil).text(unix.NFTA_CHAIN_TABLE, tableName).text(unix.NFTA_CHAIN_NAME, forward))
	for _, set := range pinNames {
		b.add(unix.NFT_MSG_DELSET, 0, setHead(set))
	}
}

func hasHost(pins string) bool { return pins == pin6host || pins == pin6both || pins == pin6net }
func hasPort(set string) bool  { return set == pin6port || set == pin6both || intervals(set) }

// setHead names a set of our table; NEWSET, and messages about elements, agree
// on the numbers.
func setHead(name string) attributes {
	return attributes(nil).text(unix.NFTA_SET_TABLE, tableName).text(unix.NFTA_SET_NAME, name)
}

// set describes a set; its number is only for this transaction.
func (b *batch) set(name string, flags uint32, key ...datatype) attributes {
	kind, length := concat(key...)
	return setHead(name).number(unix.NFTA_SET_FLAGS, flags).number(unix.NFTA_SET_KEY_TYPE, kind).
		number(unix.NFTA_SET_KEY_LEN, length).number(unix.NFTA_SET_ID, b.seq)
}

// addMap adds a map from key to address and port, or a set of pinholes.
func (b *batch) addMap(name string, counters bool, key ...datatype) {
	flags := uint32(unix.NFT_SET_TIMEOUT | setConcat)
	if !slices.Contains(pinNames, name) {
		flags |= unix.NFT_SET_MAP
	}
	if intervals(name) {
		flags |= unix.NFT_SET_INTERVAL
	}
	a := b.set(name, flags, key...)
	if flags&unix.NFT_SET_MAP != 0 {
		kind, length := concat(ipAddr, inetService)
		a = a.number(unix.NFTA_SET_DATA_TYPE, kind).number(unix.NFTA_SET_DATA_LEN, length)
	}
	var fields attributes // nft crashes without them
	for _, part := range key {
		fields = fields.nest(unix.NFTA_LIST_ELEM, attributes(nil).number(setFieldLen, uint32(part&0xff)))
	}
	a = a.nest(unix.NFTA_SET_DESC, attributes(nil).nest(setDescConcat, fields))
	if counters {
		a = a.nest(setExpr, attributes(nil).text(unix.NFTA_EXPR_NAME, "counter"))
	}
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, a)
}

func (b *batch) addChain(name, kind string, hook uint32, priority int32) {
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, attributes(nil).
		text(unix.NFTA_CHAIN_TABLE, tableName).text(unix.NFTA_CHAIN_NAME, name).
		nest(unix.NFTA_CHAIN_HOOK, attributes(nil).number(unix.NFTA_HOOK_HOOKNUM, hook).number(unix.NFTA_HOOK_PRIORITY, uint32(priority))).
		text(unix.NFTA_CHAIN_TYPE, kind))
}

func (b *batch) addRule(chain string, r nftRule) {
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, attributes(nil).
		text(unix.NFTA_RULE_TABLE, tableName).text(unix.NFTA_RULE_CHAIN, chain).nest(unix.NFTA_RULE_EXPRESSIONS, r.list))
}

// redirect makes a rule of prerouting: what comes to the uplink's address, from
// the internet and from the LAN alike, goes where the map says. The lookup stands
// before the mark, so that only what has an entry gets it.
func redirect(set string) (r nftRule) {
	r.ipv4()
	r.load(daddr, reg1)
	r.within(ext4)
	next := uint32(unix.NFT_REG32_00)
	if set != dnat4 {
		r.load(saddr, next)
		next++
	}
	if set == dnat4net {
		r.load(sport, next)
		next++
	}
	r.meta(unix.NFT_META_L4PROTO, next)
	r.load(dport, next+1)
	r.lookup(set)
	r.ours()
	r.nat(unix.NFT_NAT_DNAT)
	return r
}

// admit makes a rule of forward: what a set of pinholes has gets the mark. Every
// packet that comes in counts (SPEC PIN-7), and only those of connections that
// others began: what a client sends out from its port stays its own. The device is
// not asked for: IPv6 may come in by a tunnel.
func admit(set string) (r nftRule) {
	r.meta(unix.NFT_META_NFPROTO, reg1)
	r.compare(unix.NFT_CMP_EQ, []byte{unix.NFPROTO_IPV6})
	r.ct(unix.NFT_CT_DIRECTION, unix.NFTA_CT_DREG, reg1)
	r.compare(unix.NFT_CMP_EQ, []byte{0}) // original
	next := uint32(unix.NFT_REG32_00)
	if hasHost(set) {
		r.load(saddr6, next)
		next += 4
	}
	if hasPort(set) {
		r.load(sport, next)
		next++
	}
	r.meta(unix.NFT_META_L4PROTO, next)
	r.load(daddr6, next+1)
	r.load(dport, next+5)
	r.within(set)
	r.ours()
	return r
}

// source lets a mapped host's own packets leave from the mapped port (SPEC
// WIP-25).
func (l layout) source() (r nftRule) {
	r.device(unix.NFT_META_OIFNAME, unix.NFT_CMP_EQ, l.uplink)
	r.ipv4()
	r.load(saddr, reg1)
	r.meta(unix.NFT_META_L4PROTO, reg2)
	r.load(sport, reg3)
	r.lookup(snat4)
	r.nat(unix.NFT_NAT_SNAT)
	return r
}

// hairpin makes the answer to a LAN host that used the external address come back
// through the router.
func (l layout) hairpin() (r nftRule) {
	r.device(unix.NFT_META_IIFNAME, unix.NFT_CMP_NEQ, l.uplink)
	r.device(unix.NFT_META_OIFNAME, unix.NFT_CMP_NEQ, l.uplink)
	r.ipv4()
	r.mark(unix.NFTA_CT_DREG, reg1)
	r.bitwise(reg1, connMark, 0)
	r.compare(unix.NFT_CMP_NEQ, host32(0))
	r.add("masq", nil)
	return r
}

func (r *nftRule) ipv4() {
	r.meta(unix.NFT_META_NFPROTO, reg1)
	r.compare(unix.NFT_CMP_EQ, []byte{unix.NFPROTO_IPV4})
}

func (r *nftRule) device(key, op uint32, name string) {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	r.meta(key, reg1)
	r.compare(op, padded)
}
