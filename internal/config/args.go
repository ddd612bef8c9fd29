package config

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// commandLine is what the arguments say, before values have types.
type commandLine struct {
	foreground bool
	check      bool   // --check-config
	path       string // --config, "" when not given
	settings   []setting
}

func (l *commandLine) has(name string) bool {
	return slices.ContainsFunc(l.settings, func(s setting) bool { return s.option.name == name })
}

// flag collects the values of one option, in the order of the command line.
type flag struct {
	option option
	line   *commandLine
}

func (f flag) String() string { return "" }
func (f flag) Type() string   { return "value" }
func (f flag) Set(v string) error {
	s := setting{option: f.option, value: v, place: "--" + f.option.flagName()}
	f.line.settings = append(f.line.settings, s)
	return nil
}

// readArgs splits the command line. Every option of the file is a flag too.
func readArgs(args []string) (*commandLine, error) {
	line := &commandLine{}
	flags := pflag.NewFlagSet("upnpd", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.BoolVarP(&line.foreground, "foreground", "f", false, "")
	flags.StringVar(&line.path, "config", "", "")
	flags.BoolVar(&line.check, "check-config", false, "")
	help := flags.BoolP("help", "h", false, "")
	version := flags.Bool("version", false, "")
	for _, o := range options {
		flags.Var(flag{o, line}, o.flagName(), "")
	}
	err := flags.Parse(args)
	switch {
	case err != nil:
		return nil, flagError(err)
	case *help:
		return nil, ErrHelp
	case *version:
		return nil, ErrVersion
	case flags.Changed("config") && line.path == "":
		return nil, errors.New(`--config "": want the name of a file`)
	}
	return line, line.devices(flags.Args())
}

// devices takes EXTIF INTIF... from the command line. They replace those of
// the file as a whole, so both must be there.
func (l *commandLine) devices(names []string) error {
	switch {
	case len(names) == 0:
		return nil
	case l.has("extif") || l.has("intif"):
		return fmt.Errorf("%q: want EXTIF INTIF... or --extif and --intif, not both", names[0])
	case len(names) == 1:
		return errors.New("missing INTIF, the LAN's device (usage: " + UsageLine + ")")
	}
	l.settings = append(l.settings, setting{option: findOption("extif"), value: names[0], place: "EXTIF"})
	for _, name := range names[1:] {
		l.settings = append(l.settings, setting{option: findOption("intif"), value: name, place: "INTIF"})
	}
	return nil
}

// flagError says in our words what pflag found, in one line that prints whatever
// the arguments were.
func flagError(err error) error {
	return errors.New(strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, inOurWords(err).Error()))
}

func inOurWords(err error) error {
	switch e := err.(type) { // pflag wraps neither
	case *pflag.NotExistError:
		if e.GetSpecifiedShortnames() == "" {
			return unknown("--"+e.GetSpecifiedName(), e.GetSpecifiedName(), "--")
		}
	case *pflag.ValueRequiredError:
		return fmt.Errorf("--%s: want a value after it", e.GetSpecifiedName())
	}
	return fmt.Errorf("%w; usage: %s", err, UsageLine)
}
