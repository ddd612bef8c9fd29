// Package openwrt tests what is installed on OpenWrt (files/, OPENWRT.md): the init
// script and its helpers run as they are, under busybox, in a root of their own with
// stand-ins for the functions of OpenWrt. testdata/ has those in shell, the package
// standin the programs uci and upnpd.
package openwrt
