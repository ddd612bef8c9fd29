package sock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// maxUnixPath is the longest path of a socket: sun_path without its NUL
// (unix(7)).
const maxUnixPath = 107

// dialRetry is the pause before a connection is tried again while a server's
// queue is full: poll(2) does not tell when there is room in it.
const dialRetry = 50 * time.Millisecond

// UnixListener accepts connections at a path that only its owner and root can
// use.
type UnixListener struct {
	c        *socket.Conn
	path     string
	dev, ino uint64 // of the file that bind made
	closed   atomic.Bool
}

// ListenUnix listens at the path, with mode 0600 from the first moment. It makes
// the directory of the file when there is none. The socket file of a process
// that ended is replaced; where somebody answers, or the file is no socket, the
// error says so.
func ListenUnix(path string) (*UnixListener, error) {
	l, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, err)
	}
	return l, nil
}

func listenUnix(path string) (*UnixListener, error) {
	c, err := openUnix(path)
	if err != nil {
		return nil, err
	}
	l := &UnixListener{c: c, path: path}
	if err = makeDir(path[:max(strings.LastIndexByte(path, '/'), 1)]); err == nil {
		err = l.bind()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return l, nil
}

// openUnix returns a socket that is not bound, when the path can be an address.
func openUnix(path string) (*socket.Conn, error) {
	// The kernel takes a first NUL as a name without a file, and so does package
	// unix a first @.
	if len(path) > maxUnixPath || !strings.HasPrefix(path, "/") || strings.Contains(path, "\x00") {
		return nil, fmt.Errorf("a socket needs a path from / on of at most %d bytes, this has %d", maxUnixPath, len(path))
	}
	return socket.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, "unix", nil)
}

func makeDir(dir string) error {
	if err := unix.Mkdir(dir, 0o755); err != nil && err != unix.EEXIST {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	return nil
}

func (l *UnixListener) bind() error {
	if err := removeStale(l.path); err != nil {
		return err
	}
	// The file gets the mode of the socket.
	if err := control(l.c, func(fd int) error { return unix.Fchmod(fd, 0o600) }); err != nil {
		return err
	}
	if err := l.c.Bind(&unix.SockaddrUnix{Name: l.path}); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(l.path, &st); err != nil {
		return err
	}
	l.dev, l.ino = uint64(st.Dev), st.Ino
	if err := l.c.Listen(backlog); err != nil {
		_ = unix.Unlink(l.path)
		return err
	}
	return nil
}

// removeStale takes away a socket file where nobody listens any more.
func removeStale(path string) error {
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return errors.New("this is no socket; move it away or choose another path")
	}
	c, err := openUnix(path)
	if err != nil {
		return err
	}
	defer c.Close()
	switch err := connectUnix(c, path); {
	case err == nil, errors.Is(err, unix.EAGAIN): // a server whose queue is full lives, too
		return errors.New("another process answers there")
	case !errors.Is(err, unix.ECONNREFUSED):
		return err
	}
	return unix.Unlink(path)
}

// connectUnix tries once. A connection to a path is there at once or not at all,
// which Connect of package socket does not know: it would wait for ever.
func connectUnix(c *socket.Conn, path string) error {
	return control(c, func(fd int) error { return unix.Connect(fd, &unix.SockaddrUnix{Name: path}) })
}

// Accept waits for a connection. It fails as Listener.Accept does: with
// ErrExhausted it may be called again after the 100 ms that it waited; every
// other error is final and wraps ctx.Err() or, after Close, os.ErrClosed.
func (l *UnixListener) Accept(ctx context.Context) (*UnixConn, error) {
	for {
		// A context that ended during an earlier call may have left its deadline.
		_ = l.c.SetReadDeadline(time.Time{})
		c, _, err := l.c.Accept(ctx, 0)
		switch {
		case err == nil:
			return &UnixConn{c: c}, nil
		case l.closed.Load():
			err = os.ErrClosed
		case isErrno(err, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM):
			select {
			case <-ctx.Done():
			case <-time.After(exhaustedWait):
			}
			err = fmt.Errorf("%w: %w", ErrExhausted, err)
		case passing(err):
			continue
		}
		return nil, fmt.Errorf("accept at %s: %w", l.path, err)
	}
}

// Close removes the file, unless it is another's by now, and ends all calls with
// os.ErrClosed. Closing again is no error. Accepted connections stay open.
func (l *UnixListener) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	// As long as the socket is open, no other file has its number.
	var st unix.Stat_t
	var err error
	if unix.Lstat(l.path, &st) == nil && uint64(st.Dev) == l.dev && st.Ino == l.ino {
		err = unix.Unlink(l.path)
	}
	return errors.Join(err, l.c.Close())
}

// UnixConn is one end of a connection. One goroutine may read while another
// writes.
type UnixConn struct{ c *socket.Conn }

// DialUnix connects to the path. While the queue of the server is full it tries
// again until ctx ends. Without a server the error wraps ENOENT or ECONNREFUSED.
func DialUnix(ctx context.Context, path string) (*UnixConn, error) {
	c, err := openUnix(path)
	for err == nil {
		if err = connectUnix(c, path); err == nil {
			return &UnixConn{c: c}, nil
		}
		if errors.Is(err, unix.EAGAIN) {
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-time.After(dialRetry):
				err = nil
			}
		}
	}
	if c != nil {
		_ = c.Close()
	}
	return nil, fmt.Errorf("connect to %s: %w", path, err)
}

// Read gives io.EOF when the peer has sent all, and an error that wraps
// os.ErrDeadlineExceeded when the deadline passed.
func (c *UnixConn) Read(p []byte) (int, error) { return c.c.Read(p) }

// Write writes all of p or gives an error; the error wraps
// os.ErrDeadlineExceeded when the deadline passed.
func (c *UnixConn) Write(p []byte) (int, error) { return c.c.Write(p) }

// SetDeadline ends present and later reads and writes at t; the zero time: never.
func (c *UnixConn) SetDeadline(t time.Time) error { return c.c.SetDeadline(t) }

// SetWriteDeadline ends present and later writes at t; the zero time: never.
func (c *UnixConn) SetWriteDeadline(t time.Time) error { return c.c.SetWriteDeadline(t) }

// Close ends present reads and writes. Closing again is no error.
func (c *UnixConn) Close() error { return c.c.Close() }
