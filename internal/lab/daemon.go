package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// serving is the line that upnpd prints once it answers requests.
	serving = "Advertisements Sent"
	// logTimeout bounds every wait for a line of the log.
	logTimeout = 10 * time.Second
	// stopTimeout is how long upnpd may take to end after SIGTERM. It needs a
	// fraction of a second, and more on a busy machine.
	stopTimeout = 10 * time.Second
)

// Daemon is a upnpd that runs in the foreground on a host.
type Daemon struct {
	// PID is the daemon's process.
	PID int

	cmd    *exec.Cmd
	log    *logBuffer
	ended  chan struct{} // closed when the process has ended and err is set
	err    error
	killed bool
}

// Launch runs "binary -f args..." on the host and waits until it serves.
func (h *Host) Launch(binary string, args ...string) (*Daemon, error) {
	cmd := h.Command(context.Background(), binary, append([]string{"-f"}, args...)...)
	d := &Daemon{cmd: cmd, log: &logBuffer{grown: make(chan struct{})}, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = d.log, d.log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", binary, h.Name, err)
	}
	d.PID = cmd.Process.Pid
	go func() {
		d.err = cmd.Wait()
		close(d.ended)
	}()
	if err := d.WaitLog(serving); err != nil {
		d.Kill()
		return nil, fmt.Errorf("%s on %s does not serve: %w", binary, h.Name, err)
	}
	return d, nil
}

// StartDaemon is Launch for a test. The daemon is stopped at the test's end
// unless the test did so, and its log is shown when the test fails.
func (h *Host) StartDaemon(t testing.TB, binary string, args ...string) *Daemon {
	t.Helper()
	d, err := h.Launch(binary, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !d.killed {
			d.Stop(t)
		}
		if strings.Contains(d.Log(), "DATA RACE") {
			t.Error("the race detector found a data race in the daemon")
		}
		if t.Failed() {
			t.Logf("log of upnpd on %s:\n%s", h.Name, d.Log())
		}
	})
	return d
}

// Quit sends SIGTERM and waits for the end. The error says that the daemon did
// not end within 10 seconds or did not exit with 0. Quit again changes nothing.
func (d *Daemon) Quit() error {
	select {
	case <-d.ended:
		return d.err
	default:
	}
	if err := d.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.ended:
		return d.err
	case <-time.After(stopTimeout):
		d.Kill()
		return fmt.Errorf("upnpd still ran %v after SIGTERM", stopTimeout)
	}
}

// Stop is Quit for a test.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	if err := d.Quit(); err != nil {
		t.Errorf("stop upnpd: %v", err)
	}
}

// Kill ends the daemon with kill -9 and waits until it is gone.
func (d *Daemon) Kill() {
	d.killed = true
	_ = d.Signal(syscall.SIGKILL) // it may have ended by itself
	<-d.ended
}

// Signal sends a signal to the daemon.
func (d *Daemon) Signal(sig syscall.Signal) error {
	return d.cmd.Process.Signal(sig)
}

// Ended is closed when the daemon's process has ended.
func (d *Daemon) Ended() <-chan struct{} { return d.ended }

// Log returns everything that the daemon has printed so far.
func (d *Daemon) Log() string {
	text, _ := d.log.read()
	return text
}

// WaitLog waits until the log contains substr: at most 10 seconds, and no
// longer than the daemon runs.
func (d *Daemon) WaitLog(substr string) error {
	timeout := time.After(logTimeout)
	for {
		text, grown := d.log.read()
		if strings.Contains(text, substr) {
			return nil
		}
		select {
		case <-grown:
		case <-d.ended:
			if strings.Contains(d.Log(), substr) {
				return nil
			}
			return fmt.Errorf("upnpd ended (%v) without %q in its log:\n%s", d.err, substr, d.Log())
		case <-timeout:
			return fmt.Errorf("no %q in the log of upnpd after %v:\n%s", substr, logTimeout, text)
		}
	}
}

// Follow writes the log to w, as it grows, until the daemon ends.
func (d *Daemon) Follow(w io.Writer) error {
	for shown, running := 0, true; running; {
		text, grown := d.log.read()
		n, err := io.WriteString(w, text[shown:])
		if err != nil {
			return err
		}
		shown += n
		select {
		case <-grown:
		case <-d.ended:
			running = len(d.Log()) > shown
		}
	}
	return nil
}

// logBuffer collects output and tells waiters when it grows.
type logBuffer struct {
	mu    sync.Mutex
	text  strings.Builder
	grown chan struct{} // closed and replaced at every write
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.grown)
	b.grown = make(chan struct{})
	return b.text.Write(p)
}

func (b *logBuffer) read() (string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String(), b.grown
}

// Build is BuildDaemon for a test.
func Build(t testing.TB) string {
	t.Helper()
	path, err := BuildDaemon()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// BuildDaemon returns the path of a upnpd built from this module, once per
// process, which must run inside the module. UPNPD_RACE in the environment, if
// not empty, asks for the race detector; UPNPD_BINARY is the absolute path of a
// upnpd that is built already. The link upnpctl stands beside it.
func BuildDaemon() (string, error) {
	b, err := buildOnce()
	return b.path, err
}

// built is a daemon built for this process. The directory it lies in is removed
// when sweep is closed: by the kernel when the process ends, however it ends.
type built struct {
	path  string
	sweep io.Closer
}

// buildOnce is the package's one variable: "once per process" needs one.
var buildOnce = sync.OnceValues(build)

func build() (built, error) {
	if path := os.Getenv("UPNPD_BINARY"); path != "" {
		return built{path: path}, nil
	}
	dir, err := os.MkdirTemp("", "upnpd-lab-")
	if err != nil {
		return built{}, err
	}
	sweeper := exec.Command("sh", "-c", `read -r _; rm -rf -- "$1"`, "sh", dir)
	sweeper.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	b := built{path: filepath.Join(dir, "upnpd")}
	if b.sweep, err = sweeper.StdinPipe(); err == nil {
		err = sweeper.Start()
	}
	if err != nil {
		return built{}, errors.Join(err, os.RemoveAll(dir))
	}
	if err := readSources(); err != nil {
		return built{}, err
	}
	args := []string{"build", "-o", b.path}
	if os.Getenv("UPNPD_RACE") != "" {
		args = append(args, "-race")
	}
	args = append(args, "github.com/linux-igd/upnpd/cmd/upnpd")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return built{}, fmt.Errorf("build upnpd: %w\n%s", err, out)
	}
	return b, os.Symlink("upnpd", filepath.Join(dir, "upnpctl"))
}

// readSources looks at the daemon's sources: go test keeps a result in its cache until
// a file that the test looked at has changed.
func readSources() error {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("find the module: %w", err)
	}
	return filepath.WalkDir(filepath.Dir(string(mod)), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			_, err = os.Stat(path)
		}
		return err
	})
}
