package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// A Go program cannot fork, so the daemon in the background is this program
// started again in a session of its own. childEnv marks it, and it tells the
// parent over a pipe when it serves, or why it does not.
const (
	childEnv = "UPNPD_BACKGROUND"
	childFD  = 3
	ready    = "ready"
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
	cmd := exec.Command(self, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.ExtraFiles = []*os.File{w} // becomes childFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start in the background: %w", err)
	}
	w.Close()
	said, _ := io.ReadAll(io.LimitReader(r, 4096))
	switch string(said) {
	case ready:
		return cmd.Process.Release()
	case "":
		return fmt.Errorf("the daemon ended before it served: %v", cmd.Wait())
	}
	cmd.Wait()
	return fmt.Errorf("%s", said)
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
