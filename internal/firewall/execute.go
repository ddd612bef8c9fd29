package firewall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Programs are run without package os/exec, which would make the daemon 90 kB
// larger.

// child is a running program and our ends of its pipes.
type child struct {
	*os.Process
	stdin, stdout, stderr *os.File
}

func start(path string, args []string) (*child, error) {
	var ours, theirs [3]*os.File
	var err error
	for i := range ours {
		if ours[i], theirs[i], err = os.Pipe(); err != nil {
			break
		}
	}
	ours[0], theirs[0] = theirs[0], ours[0] // its input is what we write
	c := &child{stdin: ours[0], stdout: ours[1], stderr: ours[2]}
	if err == nil {
		c.Process, err = os.StartProcess(path, append([]string{path}, args...), &os.ProcAttr{Files: theirs[:]})
	}
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		c.close()
	}
	return c, err
}

func (c *child) close() {
	for _, f := range []*os.File{c.stdin, c.stdout, c.stderr} {
		f.Close()
	}
}

// output is what the program wrote to a pipe, and why that may not be all.
type output struct {
	text []byte
	err  error
}

// collect reads a pipe to its end.
func collect(pipe io.Reader) <-chan output {
	all := make(chan output, 1)
	go func() {
		text, err := io.ReadAll(pipe)
		all <- output{text, err}
	}()
	return all
}

// execute runs one of the two programs and gives what it printed.
func execute(ctx context.Context, path, input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, execTimeout)
	defer cancel()
	c, err := start(path, args)
	if err != nil {
		return "", err
	}
	defer c.close()
	defer context.AfterFunc(ctx, func() { _ = c.Kill() })()
	said, complained := collect(c.stdout), collect(c.stderr)
	go func() {
		_, _ = io.WriteString(c.stdin, input) // a program that failed does not read it all
		c.stdin.Close()
	}()
	state, err := c.Wait()
	late := time.Now().Add(time.Second) // a child of a wrapper may keep the pipes
	_ = c.stdout.SetReadDeadline(late)
	_ = c.stderr.SetReadDeadline(late)
	stdout, stderr := <-said, <-complained
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s: %w", path, ctx.Err())
	case err == nil && !state.Success():
		return "", fmt.Errorf("%s: %v: %s", path, state, explain(string(stderr.text), input))
	}
	if err = errors.Join(err, stdout.err, stderr.err); err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return string(stdout.text), nil
}

// find gives the path of a program: itself, or the first in $PATH.
func find(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	for _, dir := range strings.Split(os.Getenv("PATH"), ":") {
		if path := dir + "/" + name; filepath.IsAbs(path) && executable(path) == nil {
			return path, nil
		}
	}
	return "", errors.New("no such program in $PATH")
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		err = unix.EISDIR
	}
	if err != nil {
		return err
	}
	return unix.Access(path, unix.X_OK)
}
