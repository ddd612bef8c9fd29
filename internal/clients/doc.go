// Package clients holds tests of the daemon with real control points, in the lab.
package clients
