// Package openwrt tests what is installed on OpenWrt (files/, OPENWRT.md): the init
// script and its helpers run as they are, under busybox, in a root of their own, with
// upnpd and stand-ins for the functions of OpenWrt. testdata/root has those in shell,
// the package standin is uci.
package openwrt
