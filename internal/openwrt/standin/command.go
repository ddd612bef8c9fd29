package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Where uci keeps packages, and changes that are not committed yet.
const (
	saved  = "/etc/config/"
	staged = "/tmp/.uci/"
)

var errNoEntry = errors.New("uci: Entry not found")

// run is uci [FLAG...] COMMAND ARGUMENT...
func run(args []string) error {
	quiet := false
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-q":
			quiet = true
		case "-S", "-n":
		default:
			return fmt.Errorf("stand-in: uci %s", args[0])
		}
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("stand-in: uci without a command")
	}
	err := execute(args[0], args[1:])
	if err != nil && quiet {
		os.Exit(1)
	}
	return err
}

func execute(command string, args []string) error {
	switch {
	case command == "export" && len(args) == 1:
		p, err := load(args[0])
		if err != nil {
			return err
		}
		fmt.Print(p.export(args[0]))
		return nil
	case command == "get" && len(args) == 1:
		name, _, _ := strings.Cut(args[0], ".")
		p, err := load(name)
		if err != nil {
			return err
		}
		v, err := p.get(args[0])
		if err == nil {
			fmt.Println(v)
		}
		return err
	case command == "batch" && len(args) == 0:
		return batch(os.Stdin)
	case command == "commit" && len(args) == 1:
		return commit(args[0])
	case (command == "set" || command == "add_list" || command == "delete") && len(args) == 1:
		return stage(command, args[0])
	}
	return fmt.Errorf("stand-in: uci %s %q", command, args)
}

// batch runs commands whose values have no blanks.
func batch(r io.Reader) error {
	for in := bufio.NewScanner(r); in.Scan(); {
		fields := strings.Fields(in.Text())
		if len(fields) == 0 {
			continue
		}
		if err := execute(fields[0], fields[1:]); err != nil {
			return err
		}
	}
	return nil
}

// stage keeps a change until it is committed or the router starts again.
func stage(command, arg string) error {
	name, _, _ := strings.Cut(arg, ".")
	p, err := load(name)
	if err == nil {
		err = p.change(command, arg)
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(staged, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(staged+name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %q\n", command, arg)
	return errors.Join(err, f.Close())
}

func commit(name string) error {
	p, err := load(name)
	if err != nil {
		return err
	}
	text, _ := strings.CutPrefix(p.export(name), "package "+name+"\n")
	if err := os.WriteFile(saved+name, []byte(text), 0o644); err != nil {
		return err
	}
	return os.RemoveAll(staged + name)
}

// load reads a package with what is staged for it.
func load(name string) (*pack, error) {
	text, err := os.ReadFile(saved + name)
	if err != nil {
		return nil, errNoEntry
	}
	p, err := parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("uci: Parse error (%w)", err)
	}
	changes, _ := os.ReadFile(staged + name)
	for _, line := range strings.Split(strings.TrimSpace(string(changes)), "\n") {
		var command, arg string
		if n, _ := fmt.Sscanf(line, "%s %q", &command, &arg); n == 2 {
			if err := p.change(command, arg); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}
