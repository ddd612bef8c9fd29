// Package privilege is a room for tests only: what a daemon that has started may
// still do, and that it does its whole work with no more (issue 8, point 6).
package privilege
