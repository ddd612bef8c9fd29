package daemon

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/config"
)

// Log writes the daemon's lines to stdout and stderr, or to syslog. Its methods may be
// called from any goroutine.
type Log struct {
	level atomic.Uint32
	write func(level config.LogLevel, line string)
	hosts hostLines
}

// NewLog writes lines as they are, what happens to stdout and what is wrong to
// stderr: what supervises a daemon in the foreground adds the time itself, and
// procd the level (OPENWRT.md, section 2).
func NewLog(stdout, stderr io.Writer) *Log {
	l := &Log{write: func(level config.LogLevel, line string) {
		w := stdout
		if level <= config.LogWarning {
			w = stderr
		}
		io.WriteString(w, line+"\n")
	}}
	l.SetLevel(config.LogInfo)
	return l
}

// facility is the one that linux-igd used: LOCAL6.
const facility = 22 << 3

// NewSyslog writes to the system's log daemon (RFC 3164) at /dev/log. Lines
// are lost while nothing listens there.
func NewSyslog() *Log {
	severity := map[config.LogLevel]int{config.LogError: 3, config.LogWarning: 4, config.LogInfo: 6, config.LogDebug: 7}
	l := &Log{write: func(level config.LogLevel, line string) {
		c, err := socket.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0, "syslog", nil)
		if err != nil {
			return
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		message := fmt.Sprintf("<%d>%s upnpd[%d]: %s", facility|severity[level], time.Now().Format(time.Stamp), os.Getpid(), line)
		c.Sendto(ctx, []byte(message), 0, &unix.SockaddrUnix{Name: "/dev/log"})
	}}
	l.SetLevel(config.LogInfo)
	return l
}

// SetLevel leaves out lines of higher levels from now on.
func (l *Log) SetLevel(level config.LogLevel) { l.level.Store(uint32(level)) }

func (l *Log) printf(level config.LogLevel, format string, args ...any) {
	if uint32(level) > l.level.Load() || level == config.LogInfo && !l.hosts.allow(args, l.OmittedLines) {
		return
	}
	line := fmt.Sprintf(format, args...)
	l.write(level, strings.Map(func(r rune) rune { // one call is one line, and cannot command a terminal
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, line))
}

// Errorf logs what keeps the daemon from its work.
func (l *Log) Errorf(format string, args ...any) { l.printf(config.LogError, format, args...) }

// Warnf logs what an administrator should look at.
func (l *Log) Warnf(format string, args ...any) { l.printf(config.LogWarning, format, args...) }

// Infof logs what happens. The first netip.Addr among args is the LAN host that the
// line is about: no host gets more than its share of the log.
func (l *Log) Infof(format string, args ...any) { l.printf(config.LogInfo, format, args...) }

// Debugf logs what a developer wants to see: each request.
func (l *Log) Debugf(format string, args ...any) { l.printf(config.LogDebug, format, args...) }
