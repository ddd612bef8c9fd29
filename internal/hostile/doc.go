// Package hostile holds tests of the daemon with hosts that mean harm: on the
// internet and on the LAN. Each attack has the name of the CVE or the advisory that
// told of it, and the real daemon is on the router of a lab.
//
// Left to the rooms beside this one: browsers (VU#361684, DNS rebinding), floods and
// the amplification of searches.
//
// The advisories about miniupnpc (CVE-2014-3985, CVE-2015-6031, CVE-2017-8798) are
// about a control point that reads what a router says. The daemon is none: it asks
// no other router, and reads of a subscriber's answer no more than the status.
//
// Who forges packets of another host of the same LAN, or takes its address by ARP or
// neighbour discovery, is that host to a router. What is left then is the nonce of
// PCP and the way back that TCP needs; NAT-PMP has nothing (RFC 6886 section 9).
package hostile
