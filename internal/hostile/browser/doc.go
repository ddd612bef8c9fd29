// Package browser holds tests of the daemon against web pages: somebody on the
// LAN opens a page of the attacker's, and the page's script goes for the router
// (VU#361684 "filet-o-firewall", DNS rebinding, cross-site requests). The
// requests are made by hand first, then by a real headless Chromium.
package browser
