package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// A Go program cannot fork, so the daemon in the background is this program
// started again in a session of its own. childEnv marks it, and it tells the
// parent over a pipe when it serves, or why it does not.
const (
	childEnv = "UPNPD_BACKGROUND"
	childFD  = 3
	ready    = "ready\n" // a notice may follow
)

func isChild() bool { return os.Getenv(childEnv) != "" }

// background starts the daemon and waits until it serves. It gives the exit
// code of the parent.
func background(argv []string) int {
	err := startChild(argv)
	if err != nil {
		fmt.Fprintln(os.Stderr, "upnpd:", err)
		return 1
	}
	return 0
}

func startChild(argv []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find my own program: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	keepOpenFiles()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	os.Unsetenv(childEnv) // it may be there, and empty
	child, err := os.StartProcess(self, argv, &os.ProcAttr{
		Env:   append(os.Environ(), childEnv+"=1"),
		Files: []*os.File{null, null, null, w}, // w becomes childFD
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	w.Close()
	said, _ := io.ReadAll(io.LimitReader(r, 4096))
	if notice, ok := strings.CutPrefix(string(said), ready); ok {
		if notice != "" {
			fmt.Fprintln(os.Stderr, "upnpd:", notice)
		}
		return child.Release()
	}
	ended, err := child.Wait()
	if err != nil {
		return err
	}
	if len(said) == 0 {
		return fmt.Errorf("the daemon ended before it served: %v", ended)
	}
	return fmt.Errorf("%s", said)
}

// keepOpenFiles keeps what the caller left open from the daemon, which would
// hold it for ever: a lock, say.
func keepOpenFiles() {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// parentPipe is the child's end of the pipe.
func parentPipe() *os.File {
	os.Unsetenv(childEnv)
	syscall.CloseOnExec(childFD)
	return os.NewFile(childFD, "parent")
}

// tell gives the parent its one message; it hears no second one.
func tell(parent *os.File, message string) {
	if parent != nil {
		io.WriteString(parent, message)
		parent.Close()
	}
}
