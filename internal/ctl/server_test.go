package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/portmap"
)

func TestDelete(t *testing.T) {
	w := newWorld(t)
	w.home()
	w.says(1, "nothing is deleted: there is no such mapping", "delete", "TCP", "3074")
	w.says(1, "nothing is deleted", "delete", "192.168.1.2") // who asked is not whom it leads to
	w.fw.Break(true)
	w.says(1, "the kernel refused the change", "delete", "tcp", "8080")
	w.fw.Break(false)
	if n := w.server.Table.Len(); n != 5 {
		t.Fatalf("%d mappings, want all 5", n)
	}
	got := w.says(0, "deleted TCP port 40000 from 11.0.0.20 to 192.168.1.5 port 40000  not forwarded\n", "delete", "tcp", "40000")
	if strings.Count(got, "\n") != 2 { // of all remote hosts
		t.Errorf("got %q", got)
	}
	w.says(0, "deleted UDP port 3074 to 192.168.1.5 port 3075  Xbox\n", "delete", "192.168.1.5")
	w.says(0, "TCP port 8080", "delete", "Tcp", "8080")
	if left := w.fw.Mappings(); len(left) != 1 || left[0].ExternalPort != 6881 {
		t.Errorf("left: %v", left)
	}
	w.says(0, "router  delete TCP port 8080 to 192.168.1.66 port 8080: by upnpctl\n", "log")
}

func TestFlush(t *testing.T) {
	w := newWorld(t)
	w.home()
	w.says(0, "mappings deleted: 9\n", "flush")
	w.says(0, "mappings deleted: 0\n", "flush")
	if left := w.fw.Mappings(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	w.says(0, "no mappings\n", "list")
}

func TestParseRequest(t *testing.T) {
	for line, ok := range map[string]bool{
		"list": true, "list json": true, " list\tjson ": true, "status json": true, "check": true, "check live": true,
		"check live json": true, "check json live": true, "log": true, "log follow": true, "flush": true,
		"export": true, "export remote-host": true, "delete TCP 8080": true, "delete uDp 65535": true, "delete 192.168.1.2": true,
		"delete fe80::1": true,

		"": false, " ": false, "json": false, "List": false, "lis": false, "listjson": false, "list follow": false, "list json x": false,
		"status live": false, "log json": false, "export json": false, "flush now": false, "check livejson": false, "help": false,
		"delete": false, "delete TCP": false, "delete TCP 0": false, "delete TCP 65536": false, "delete TCP -1": false,
		"delete TCP +80": false, "delete TCP 080": false, "delete TCP 0x50": false, "delete TCP 80 90": false, "delete any 80": false,
		"delete 6 80": false, "delete TCP 80,81": false, "delete host": false, "delete 192.168.1": false, "delete 192.168.1.2/24": false,
		"delete 192.168.1.2 json": false, "delete json": false,
	} {
		r, err := parseRequest(line)
		if (err == nil) != ok {
			t.Errorf("%q: %+v, %v", line, r, err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{"list json", "delete TCP 8080", "delete 192.168.1.2", "check live json", "log follow", "\x00", "delete \u202e", "delete TCP 080"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseRequest(line)
		if err != nil {
			if bad := unprintable(err.Error()); bad != "" {
				t.Errorf("%q: the error has %s", line, bad)
			}
			return
		}
		if !strings.Contains("list status check delete flush log export", r.command) {
			t.Errorf("%q is command %q", line, r.command)
		}
		if r.command == "delete" && r.client.IsValid() == (r.port != 0 && r.protocol != 0) {
			t.Errorf("%q deletes %+v", line, r)
		}
		if r.port != 0 && strings.Fields(line)[2] != strconv.Itoa(int(r.port)) {
			t.Errorf("%q deletes port %d", line, r.port)
		}
	})
}

func TestRequestLine(t *testing.T) {
	w := newWorld(t)
	fits := "list" + strings.Repeat(" ", maxRequest-5)
	for request, want := range map[string]string{
		"list\n":                       "0\nno mappings\n",
		"list\r\n":                     "0\nno mappings\n",
		fits + "\n":                    "0\nno mappings\n",
		"list\nflush\n":                "0\nno mappings\n", // one line only
		fits + " \n":                   "2\nthe request is longer than 256 bytes\n",
		strings.Repeat("x", 1<<20):     "2\nthe request is longer than 256 bytes\n",
		"\n":                           "2\nthe commands are ",
		"no\x1b\u202e\n":               "2\nunknown command ",
		"delete TCP 99999\n":           "2\ndelete needs TCP or UDP and a port",
		"log\n":                        "0\nno decisions yet\n",
		"\x00\x01\xff" + "json list\n": "2\nunknown command ",
	} {
		c := w.dial()
		_, _ = io.WriteString(c, request) // it need not read it all
		if got := readAll(t, c); !strings.HasPrefix(got, want) {
			t.Errorf("%.40q: got %q, want %q", request, got, want)
		}
	}
	// A line that does not end.
	c := w.dial()
	if _, err := io.WriteString(c, "list"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c); !strings.HasPrefix(got, "2\nthe request has no end") {
		t.Errorf("got %q", got)
	}
	// A script that says no more still wants the answer (printf | socat).
	for request, want := range map[string]string{
		"list\n": "0\nno mappings\n", "log\n": "0\nno decisions yet\n", "log follow\n": "0\n",
	} {
		for range 10 {
			c := w.dial()
			if _, err := io.WriteString(c, request); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, c); got != want {
				t.Fatalf("%q and the end: got %q, want %q", request, got, want)
			}
		}
	}
}

// A client that says nothing is dropped, and so is one that does not finish.
func TestSilentClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	silent, slow := w.dial(), w.dial()
	if _, err := io.WriteString(slow, "list"); err != nil {
		t.Fatal(err)
	}
	w.says(0, "no mappings", "list")
	start := time.Now()
	if got := readAll(t, silent); got != "" {
		t.Errorf("silence is answered by %q", got)
	}
	if got := readAll(t, slow); !strings.HasPrefix(got, "2\nthe request has no end") {
		t.Errorf("half a line is answered by %q", got)
	}
	if took := time.Since(start); took < requestTimeout/2 || took > 2*requestTimeout {
		t.Errorf("dropped after %v", took)
	}
}

// 8 at once; the others wait, and all are served.
func TestManyClients(t *testing.T) {
	w := newWorld(t)
	var inside, most atomic.Int32
	full, release := make(chan struct{}), make(chan struct{})
	w.daemon.onStatus = func() {
		n := inside.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == maxClients {
			close(full)
		}
		<-release
		inside.Add(-1)
	}
	answers := make(chan string)
	for range 20 {
		go func() {
			stdout, stderr, _ := w.upnpctl("status")
			answers <- stdout + stderr
		}()
	}
	await(t, full)
	select {
	case a := <-answers:
		t.Errorf("answered: %q", a)
	case <-time.After(50 * time.Millisecond): // a ninth would be inside by now
	}
	w.daemon.onStatus = nil // not read any more by those that wait
	if n := most.Load(); n != maxClients {
		t.Errorf("%d clients at once, want %d", n, maxClients)
	}
	close(release)
	for range 20 {
		select {
		case a := <-answers:
			if !strings.HasPrefix(a, "upnpd ") {
				t.Errorf("got %q", a)
			}
		case <-time.After(aWhile):
			t.Fatal("not all are served")
		}
	}
}

func await(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(aWhile):
		t.Fatal("it does not happen")
	}
}

// lineReader reads lines of a follower.
type lineReader struct {
	t *testing.T
	r io.Reader
}

func (l lineReader) next() string {
	l.t.Helper()
	var line []byte
	for b := make([]byte, 1); ; {
		if _, err := l.r.Read(b); err != nil {
			l.t.Fatalf("after %q: %v", line, err)
		}
		if b[0] == '\n' {
			return string(line)
		}
		line = append(line, b[0])
	}
}

func decision(what string) portmap.Decision {
	return portmap.Decision{Time: time.Now(), From: addr("192.168.1.2"), What: what, Verdict: "granted"}
}

// upnpctl log -f: what was, what comes, and its end with the daemon.
func TestFollow(t *testing.T) {
	w := newWorld(t)
	w.server.Journal.Record(decision("one"))
	out, in := io.Pipe()
	ended := make(chan int, 1)
	var fault strings.Builder
	go func() {
		ended <- Run([]string{"--socket", w.path, "log", "-f"}, in, &fault)
		in.Close()
	}()
	r := lineReader{t, out}
	for _, step := range []struct{ record, want string }{
		{"", "one: granted"}, {"two", "two: granted"}, {"two", "two: granted (2 times)"}, {"three", "three: granted"},
	} {
		if step.record != "" {
			w.server.Journal.Record(decision(step.record))
		}
		if got := r.next(); !strings.HasSuffix(got, "  192.168.1.2  "+step.want) || len(got) != len("15:04:05  192.168.1.2  ")+len(step.want) {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
	w.end()
	if _, err := out.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if code := <-ended; code != 2 || !strings.Contains(fault.String(), "has ended") { // upnpctl(8)
		t.Errorf("code %d, %q", code, fault.String())
	}
}

// Followers that go leave their places to others.
func TestFollowersGo(t *testing.T) {
	w := newWorld(t)
	w.server.Journal.Record(decision("one"))
	for range 3 {
		var followers []io.Closer
		for range maxClients {
			c := w.dial()
			if _, err := io.WriteString(c, "log follow\n"); err != nil {
				t.Fatal(err)
			}
			if got := (lineReader{t, c}).next(); got != "0" {
				t.Errorf("got %q", got)
			}
			followers = append(followers, c)
		}
		for _, c := range followers {
			_ = c.Close()
		}
	}
	w.says(0, "no mappings", "list")
	w.end()
	if n := len(w.server.Journal.followers); n != 0 {
		t.Errorf("%d followers are left", n)
	}
}

// One that does not read is dropped. It never blocks who records.
func TestSlowFollower(t *testing.T) {
	w := newWorld(t)
	slow, other := w.dial(), w.dial()
	for _, c := range []io.ReadWriter{slow, other} {
		if _, err := io.WriteString(c, "log follow\n"); err != nil {
			t.Fatal(err)
		}
		if got := (lineReader{t, c}).next(); got != "0" {
			t.Errorf("got %q", got)
		}
	}
	followers := func() int {
		w.server.Journal.mu.Lock()
		defer w.server.Journal.mu.Unlock()
		return len(w.server.Journal.followers)
	}
	r := lineReader{t, other}
	text := strings.Repeat("x", maxDecisionText)
	n := 0
	for ; followers() == 2; n++ { // in the step of one that reads
		if n == 5000 { // the buffers hold some hundreds
			t.Fatal("nobody is dropped")
		}
		w.server.Journal.Record(decision(fmt.Sprint(n, text)))
		r.next()
	}
	answer := readAll(t, slow)
	if lines := strings.Count(answer, "\n"); lines >= n || lines == 0 || !strings.HasSuffix(answer, "\n") {
		t.Errorf("%d lines of %d before the end", lines, n)
	}
	w.server.Journal.Record(decision("last"))
	if got := r.next(); !strings.HasSuffix(got, "last: granted") {
		t.Errorf("the other got %q", got)
	}
}

// The end of the daemon waits for nobody, and leaves no file.
func TestServeEnds(t *testing.T) {
	w := newWorld(t)
	inside := make(chan struct{})
	w.daemon.onFacts = func(ctx context.Context, live bool) {
		if !live {
			t.Error("live was asked for")
		}
		close(inside)
		<-ctx.Done()
	}
	w.dial() // says nothing
	follower, checker := w.dial(), w.dial()
	for c, request := range map[io.Writer]string{follower: "log follow\n", checker: "check live\n"} {
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
	}
	await(t, inside)
	start := time.Now()
	w.end()
	if took := time.Since(start); took > requestTimeout/2 {
		t.Errorf("it took %v", took)
	}
	if _, err := os.Lstat(w.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}
