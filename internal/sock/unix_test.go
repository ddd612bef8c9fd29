package sock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "sock") }

func listenAt(t *testing.T, path string) *UnixListener {
	t.Helper()
	l, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// pair gives the server's and the client's end.
func pair(t *testing.T, l *UnixListener) (server, client *UnixConn) {
	t.Helper()
	client, err := DialUnix(deadline(t), l.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	// Without a deadline of its own, which would hide one that was left behind.
	ctx, cancel := context.WithCancel(context.Background())
	defer time.AfterFunc(aWhile, cancel).Stop()
	server, err = l.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server, client
}

func TestUnixConn(t *testing.T) {
	server, client := pair(t, listenAt(t, socketPath(t)))
	// More than the socket buffers hold: Write goes on until all is written.
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	written := make(chan error, 1)
	go func() {
		_, err := server.Write(sent)
		written <- errors.Join(err, server.Close())
	}()
	got, err := io.ReadAll(client)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("read %d of %d bytes, %v", len(got), len(sent), err)
	}
	if err := wantSoon(t, written); err != nil {
		t.Errorf("Write: %v", err)
	}
	if _, err := client.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("Write to nobody: %v, want EPIPE", err)
	}
}

func TestUnixConnDeadlines(t *testing.T) {
	server, _ := pair(t, listenAt(t, socketPath(t)))
	if err := server.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read: %v, want os.ErrDeadlineExceeded", err)
	}
	if _, err := server.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write to a peer that does not read: %v, want os.ErrDeadlineExceeded", err)
	}
	if err := server.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		_, err := server.Read(make([]byte, 1))
		got <- err
	}()
	if err := server.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := wantSoon(t, got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read, deadline set from elsewhere: %v", err)
	}
}

// The file has its mode when it appears: not one moment is it anybody's.
func TestUnixModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	path := filepath.Join(dir, "sock")
	for _, umask := range []int{0o077, 0} {
		old := unix.Umask(umask)
		c, err := openUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		l := &UnixListener{c: c, path: path}
		err = errors.Join(makeDir(dir), l.bind())
		unix.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]os.FileMode{dir: os.ModeDir | 0o755&^os.FileMode(umask), path: os.ModeSocket | 0o600} {
			info, err := os.Lstat(name)
			if err != nil || info.Mode() != want {
				t.Errorf("umask %o: %s has %v, %v; want %v", umask, name, info.Mode(), err, want)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := os.Remove(dir); err != nil {
			t.Errorf("Close left something: %v", err)
		}
	}
}

func TestListenUnixReplacesOnlyTheDead(t *testing.T) {
	path := socketPath(t)
	refused := func(what, want string) {
		t.Helper()
		l, err := ListenUnix(path)
		if err == nil {
			_ = l.Close()
			t.Fatalf("%s: no error", what)
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %q and the path", what, err, want)
		}
	}
	l := listenAt(t, path)
	refused("a living server", "another process answers there")
	if _, err := DialUnix(deadline(t), path); err != nil {
		t.Errorf("and now it is unreachable: %v", err)
	}

	_ = l.c.Close() // as when the process is killed: the file stays
	if _, err := DialUnix(deadline(t), path); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a dead server: %v, want ECONNREFUSED", err)
	}
	l = listenAt(t, path)
	pair(t, l)

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again := listenAt(t, path)
	if err := l.Close(); err != nil { // the file is another's by now
		t.Error(err)
	}
	pair(t, again)
	for range 2 {
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Close left the file: %v", err)
	}

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a file", "no socket")
	if err := errors.Join(os.Remove(path), os.Symlink("/nowhere", path)); err != nil {
		t.Fatal(err)
	}
	refused("a symlink", "no socket")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	refused("another kind of socket", "wrong type")
}

func TestListenUnixBadPaths(t *testing.T) {
	dir := t.TempDir()
	fits := filepath.Join(dir, strings.Repeat("x", maxUnixPath-len(dir)-1))
	listenAt(t, fits)
	for path, want := range map[string]string{
		"":                            "at most 107 bytes",
		"sock":                        "a path from / on",
		"@abstract":                   "a path from / on",
		fits + "x":                    "at most 107 bytes, this has 108",
		dir + "/a\x00b":               "a path from / on",
		filepath.Join(dir, "no/no/s"): "no such file",
	} {
		if l, err := ListenUnix(path); err == nil {
			_ = l.Close()
			t.Errorf("%q: no error", path)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
	}
	if _, err := DialUnix(deadline(t), fits+"x"); err == nil || !strings.Contains(err.Error(), "at most 107 bytes") {
		t.Errorf("DialUnix: %v", err)
	}
	if _, err := DialUnix(deadline(t), dir+"/none"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("DialUnix without a server: %v, want ENOENT", err)
	}
}

// A server with a full queue is alive: clients wait for it, nobody replaces it.
func TestUnixFullQueue(t *testing.T) {
	path := socketPath(t)
	l := listenAt(t, path)
	full := errors.New("not yet")
	for full != nil && !errors.Is(full, unix.EAGAIN) {
		c, err := openUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if full = connectUnix(c, path); full == nil {
			full = errors.New("not yet")
		}
	}
	if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "another process answers there") {
		t.Errorf("ListenUnix: %v", err)
	}
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := DialUnix(short, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("DialUnix: %v, want the deadline", err)
	}
	dialed := make(chan error, 1)
	go func() {
		c, err := DialUnix(deadline(t), path)
		if err == nil {
			err = c.Close()
		}
		dialed <- err
	}()
	c, err := l.Accept(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := wantSoon(t, dialed); err != nil {
		t.Errorf("there was room again: %v", err)
	}
}

func TestUnixAcceptEnds(t *testing.T) {
	l := listenAt(t, socketPath(t))
	got := make(chan error)
	accept := func(ctx context.Context) {
		_, err := l.Accept(ctx)
		got <- err
	}
	for range 20 { // some before, some while it waits
		ctx, cancel := context.WithCancel(context.Background())
		go accept(ctx)
		cancel()
		if err := wantSoon(t, got); !errors.Is(err, context.Canceled) {
			t.Errorf("after cancel: %v", err)
		}
	}
	if err := l.c.SetDeadline(time.Unix(1, 0)); err != nil { // as a context may leave it
		t.Fatal(err)
	}
	pair(t, l)
	go accept(context.Background())
	_ = l.Close()
	if err := wantSoon(t, got); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestUnixAcceptExhausted(t *testing.T) {
	l := listenAt(t, socketPath(t))
	client, err := DialUnix(deadline(t), l.path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, err = l.Accept(deadline(t))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, ErrExhausted) {
		t.Errorf("no descriptors left: %v, want ErrExhausted", err)
	}
	c, err := l.Accept(deadline(t))
	if err != nil {
		t.Fatalf("the waiting connection is lost: %v", err)
	}
	_ = c.Close()
}
