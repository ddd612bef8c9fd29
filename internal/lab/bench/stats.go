package main

import (
	"slices"
	"time"
)

// measure is what is measured, in the order of the table.
type measure int

const (
	addMapping measure = iota
	renewMapping
	deleteMapping
	getSpecificEntry
	getWholeList
	getExternalIPAddress
	natpmpAdd
	natpmpRenew
	natpmpRead
	pcpAdd
	pcpRenew
	pcpRead
	natpmpAddRate
	natpmpRenewRate
	natpmpReadRate
	pcpAddRate
	pcpRenewRate
	pcpReadRate
	searchUnicast
	searchMulticast
	connectFirst
	connectMiddle
	connectLast
	cpuChanges
	cpuReads
	residentMemory
	anonymousMemory
	idleWakeUps
	measures // how many
)

// describe gives the name of a measure with its unit and how many of the
// measured values (nanoseconds, bytes, times or rates) are one of that unit.
func (m measure) describe() (name string, unit float64) {
	const ms, mb = float64(time.Millisecond), 1e6
	return [measures]string{
			"AddPortMapping, ms", "renewal, ms", "DeletePortMapping, ms",
			"GetSpecificPortMappingEntry, ms", "GetGeneric..., whole list, ms", "GetExternalIPAddress, ms",
			"NAT-PMP new mapping, ms", "NAT-PMP renewal, ms", "NAT-PMP external address, ms",
			"PCP MAP, new mapping, ms", "PCP MAP, renewal, ms", "PCP ANNOUNCE, ms",
			"NAT-PMP new mappings, requests/s", "NAT-PMP renewals, requests/s", "NAT-PMP external address, requests/s",
			"PCP MAP, new mappings, requests/s", "PCP MAP, renewals, requests/s", "PCP ANNOUNCE, requests/s",
			"unicast search, ms", "multicast search (MX 1), ms",
			"new connection, oldest mapping, ms", "new connection, middle mapping, ms", "new connection, newest mapping, ms",
			"CPU of 1000 changes, ms", "CPU of 1000 reads, ms",
			"RSS, MB", "anonymous memory, MB", "idle wake-ups",
		}[m], [measures]float64{
			ms, ms, ms, ms, ms, ms, // SOAP
			ms, ms, ms, ms, ms, ms, 1, 1, 1, 1, 1, 1, // NAT-PMP and PCP
			ms, ms, ms, ms, ms, ms, ms, mb, mb, 1,
		}[m]
}

// perSecond says whether more is better: the measured values are requests per
// second.
func (m measure) perSecond() bool { return m >= natpmpAddRate && m <= pcpReadRate }

// samples are measured values: nanoseconds, bytes or times.
type samples []float64

// quantile is the smallest value that the share q of all values do not exceed.
func (s samples) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// key names a row of the results.
type key struct {
	backend string
	measure measure
	count   int // live mappings
}

// row holds what both daemons of a pair did.
type row struct {
	ours, peer samples
	estimated  bool // one of them is not wholly measured
}

// ratio is the medians' ratio, ours to the peer's; false without one.
func (r *row) ratio() (float64, bool) {
	if len(r.ours) == 0 || len(r.peer) == 0 || r.peer.quantile(0.5) == 0 {
		return 0, false
	}
	return r.ours.quantile(0.5) / r.peer.quantile(0.5), true
}

// target is the highest ratio that the project wants; false: none was set.
func target(k key) (float64, bool) {
	switch k.measure {
	case addMapping:
		limit, ok := map[key]float64{
			{backend: nftables, count: 100}: 0.5, {backend: nftables, count: 1000}: 0.08,
			{backend: iptables, count: 100}: 1, {backend: iptables, count: 1000}: 0.4,
		}[key{backend: k.backend, count: k.count}]
		return limit, ok
	case getSpecificEntry, getExternalIPAddress:
		return 1, k.count == 100
	case getWholeList:
		return map[int]float64{100: 1, 1000: 0.3}[k.count], k.count == 100 || k.count == 1000
	case residentMemory:
		return 2, true
	case idleWakeUps:
		return 1, true
	}
	return 0, false
}

// flatLimit is how much slower the largest count may be than the smallest.
const flatLimit = 1.5

// flat says whether a measure should not depend on the number of mappings.
func flat(backend string, m measure) bool {
	return backend == nftables && m == addMapping || m == getSpecificEntry || m == getExternalIPAddress
}
