package firewall

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// probe is the first packet of a connection from the internet, as the forward
// hook sees it: what is known of it, for rules to match.
type probe struct {
	uplink   string // where it comes from, and does not go to
	mark     uint32 // of the connection
	status   uint32 // of the connection
	elements func(set string) ([]nftables.SetElement, error)
}

// Bits of a connection (linux/netfilter/nf_conntrack_common.h, xt_conntrack.h).
const (
	dnatStatus  = 1 << 5 // IPS_DST_NAT
	newState    = 1 << 3 // of nft's ct state and of xt_conntrack alike
	xtDNATState = 1 << 7 // XT_CONNTRACK_STATE_DNAT
)

// match tells whether a packet matches.
type match int

const (
	no match = iota
	maybe
	yes
)

func is(b bool) match {
	if b {
		return yes
	}
	return no
}

// verdict is what a rule says to packets that match so far.
type verdict struct {
	kind  expr.VerdictKind
	chain string
	match match
}

// register is what is known of one of the kernel's: the data, or, of a device,
// data that it has not.
type register struct {
	data   []byte
	device bool
}

// evaluation is a rule's work on a probe.
type evaluation struct {
	probe
	registers map[uint32]register
	match     match
	narrow    bool // it is about more than we know and devices: addresses, ports
	verdicts  []verdict
}

// verdicts runs a rule. A rule that does not match gives none.
func (p probe) verdicts(rule []expr.Any) (evaluation, error) {
	e := evaluation{probe: p, registers: map[uint32]register{}, match: yes}
	for _, x := range rule {
		if err := e.step(x); err != nil {
			return e, err
		}
		if e.match == no {
			e.verdicts = nil
			break
		}
	}
	return e, nil
}

func (e *evaluation) step(x expr.Any) error {
	switch x := x.(type) {
	case *expr.Ct:
		e.load(x.Register, e.ct(x.Key))
	case *expr.Meta:
		if !x.SourceRegister {
			e.load(x.Register, e.meta(x.Key))
		}
	case *expr.Bitwise:
		e.load(x.DestRegister, e.bitwise(x))
	case *expr.Cmp:
		e.require(e.compare(x), e.registers[x.Register].device)
		delete(e.registers, x.Register) // an expression that the library leaves out may load it
	case *expr.Lookup:
		return e.lookup(x)
	case *expr.Match:
		e.require(e.extension(x), false)
	case *expr.Limit, *expr.Quota, *expr.Connlimit, *expr.Range, *expr.Dynset:
		e.require(maybe, false)
	case *expr.Verdict:
		e.say(x.Kind, x.Chain)
	case *expr.Reject:
		e.say(expr.VerdictDrop, "")
	case *expr.Queue: // somebody else decides
		e.say(expr.VerdictAccept, "")
	case *expr.Target:
		if x.Name == "REJECT" {
			e.say(expr.VerdictDrop, "")
		}
	default:
		clear(e.registers)
	}
	return nil
}

func (e *evaluation) say(kind expr.VerdictKind, chain string) {
	e.verdicts = append(e.verdicts, verdict{kind, chain, e.match})
}

// require takes a condition into account.
func (e *evaluation) require(m match, device bool) {
	e.match = min(e.match, m)
	e.narrow = e.narrow || m == maybe && !device
}

func (e *evaluation) load(to uint32, r register) { e.registers[to] = r }

// ct gives data of the connection, in the host's byte order.
func (e *evaluation) ct(key expr.CtKey) register {
	switch key {
	case expr.CtKeyMARK:
		return register{data: binaryutil.NativeEndian.PutUint32(e.mark)}
	case expr.CtKeySTATUS:
		return register{data: binaryutil.NativeEndian.PutUint32(e.status)}
	case expr.CtKeySTATE:
		return register{data: binaryutil.NativeEndian.PutUint32(newState)}
	case expr.CtKeyDIRECTION:
		return register{data: []byte{0}} // original
	}
	return register{}
}

func (e *evaluation) meta(key expr.MetaKey) register {
	device := make([]byte, unix.IFNAMSIZ)
	copy(device, e.uplink)
	switch key {
	case expr.MetaKeyNFPROTO:
		return register{data: []byte{unix.NFPROTO_IPV4}}
	case expr.MetaKeyPROTOCOL:
		return register{data: binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP)}
	case expr.MetaKeyIIFNAME:
		return register{data: device}
	case expr.MetaKeyOIFNAME:
		return register{data: device, device: true}
	case expr.MetaKeyIIF, expr.MetaKeyOIF, expr.MetaKeyIIFGROUP, expr.MetaKeyOIFGROUP, expr.MetaKeyIIFTYPE, expr.MetaKeyOIFTYPE:
		return register{device: true}
	}
	return register{}
}

func (e *evaluation) bitwise(x *expr.Bitwise) register {
	from := e.registers[x.SourceRegister]
	if from.device || len(from.data) == 0 || len(from.data) != len(x.Mask) || len(x.Xor) != len(x.Mask) {
		return register{}
	}
	to := make([]byte, len(from.data))
	for i := range to {
		to[i] = from.data[i]&x.Mask[i] ^ x.Xor[i]
	}
	return register{data: to}
}

// compare is for equality; a shorter operand compares the beginning (wan*).
func (e *evaluation) compare(x *expr.Cmp) match {
	r := e.registers[x.Register]
	if len(r.data) < len(x.Data) || len(x.Data) == 0 || x.Op != expr.CmpOpEq && x.Op != expr.CmpOpNeq {
		return maybe
	}
	equal := bytes.Equal(r.data[:len(x.Data)], x.Data)
	if !r.device {
		return is(equal == (x.Op == expr.CmpOpEq))
	}
	if equal && len(x.Data) == len(r.data) {
		return is(x.Op == expr.CmpOpNeq)
	}
	return maybe
}

// lookup is a condition, or, in a map of verdicts, several rules in one.
func (e *evaluation) lookup(x *expr.Lookup) error {
	r := e.registers[x.SourceRegister]
	clear(e.registers)
	verdicts := x.IsDestRegSet && x.DestRegister == unix.NFT_REG_VERDICT
	if r.data == nil && !verdicts {
		e.require(maybe, r.device)
		return nil
	}
	elements, err := e.elements(x.SetName)
	if err != nil {
		return err
	}
	interval := slices.ContainsFunc(elements, func(s nftables.SetElement) bool { return s.IntervalEnd || s.KeyEnd != nil })
	found := no
	for _, element := range elements {
		m := maybe // intervals are not looked into
		if !interval {
			m = r.equals(element.Key)
		}
		if verdicts && m != no {
			kind, chain := decodeVerdict(element.Val)
			e.verdicts = append(e.verdicts, verdict{kind, chain, min(e.match, m)})
			e.narrow = e.narrow || m == maybe && !r.device
		}
		found = max(found, m)
	}
	if !verdicts {
		if x.Invert {
			found = yes - found
		}
		e.require(found, r.device)
	}
	return nil
}

// equals tells whether the register has this data.
func (r register) equals(data []byte) match {
	equal := bytes.Equal(r.data, data)
	switch {
	case r.data == nil || len(r.data) != len(data):
		return maybe
	case !r.device:
		return is(equal)
	case equal:
		return no
	}
	return maybe
}

// decodeVerdict reads a map's verdict, which the library leaves as it is.
func decodeVerdict(b []byte) (kind expr.VerdictKind, chain string) {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return expr.VerdictContinue, ""
	}
	ad.ByteOrder = binary.BigEndian
	kind = expr.VerdictContinue
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			kind = expr.VerdictKind(int32(ad.Uint32()))
		case unix.NFTA_VERDICT_CHAIN:
			chain = ad.String()
		}
	}
	return kind, chain
}

// extension is a match of iptables-nft, kept in the form of the old xtables.
func (e *evaluation) extension(x *expr.Match) match {
	switch info := x.Info.(type) {
	case *xt.ConntrackMtinfo1:
		return e.conntrack(info.ConntrackMtinfoBase, uint16(info.StateMask))
	case *xt.ConntrackMtinfo2:
		return e.conntrack(info.ConntrackMtinfoBase, info.StateMask)
	case *xt.ConntrackMtinfo3:
		return e.conntrack(info.ConntrackMtinfoBase, info.StateMask)
	case *xt.Comment:
		return yes
	case *xt.Unknown:
		if x.Name == "connmark" && len(*info) >= 9 { // struct xt_connmark_mtinfo1: mark, mask, invert
			b := []byte(*info)
			equal := e.mark&binaryutil.NativeEndian.Uint32(b[4:8]) == binaryutil.NativeEndian.Uint32(b[0:4])
			return is(equal != (b[8] != 0))
		}
	}
	return maybe
}

// conntrack is xt_conntrack: --ctstate is known, all else is not.
func (e *evaluation) conntrack(info xt.ConntrackMtinfoBase, states uint16) match {
	flags := xt.ConntrackFlags(info.MatchFlags) &^ xt.ConntrackStateAlias
	m := yes
	if flags&xt.ConntrackState != 0 {
		state := uint16(newState)
		if e.status&dnatStatus != 0 {
			state |= xtDNATState
		}
		m = is((states&state != 0) != (xt.ConntrackFlags(info.InvertFlags)&xt.ConntrackState != 0))
	}
	if flags&^xt.ConntrackState != 0 {
		m = min(m, maybe)
	}
	return m
}
