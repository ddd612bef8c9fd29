package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// pack is a UCI package: sections in their order.
type pack struct{ sections []*section }

type section struct {
	kind, name string
	anonymous  bool
	options    []*uciOption
}

type uciOption struct {
	name   string
	list   bool
	values []string
}

// find gives the option of that name, nil for none.
func (s *section) find(name string) *uciOption {
	for _, o := range s.options {
		if o.name == name {
			return o
		}
	}
	return nil
}

func (s *section) set(name, value string, list bool) {
	o := s.find(name)
	if o == nil {
		o = &uciOption{name: name}
		s.options = append(s.options, o)
	}
	if !list {
		o.values = nil
	}
	o.list, o.values = list, append(o.values, value)
}

// parse reads a file of UCI: a line is words, of which some are quoted, and may go
// on in another line inside quotes. Sections without a name get one.
func parse(text string) (*pack, error) {
	p := &pack{}
	for text != "" {
		words, rest, err := line(text)
		if err != nil {
			return nil, err
		}
		text = rest
		if err := p.add(words); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *pack) add(words []string) error {
	switch {
	case len(words) == 0, words[0] == "package":
		return nil
	case words[0] == "config" && (len(words) == 2 || len(words) == 3):
		s := &section{kind: words[1]}
		if s.anonymous = len(words) == 2; s.anonymous {
			s.name = fmt.Sprintf("cfg%02xb7a4", len(p.sections)+1)
		} else {
			s.name = words[2]
		}
		p.sections = append(p.sections, s)
		return nil
	case (words[0] == "option" || words[0] == "list") && len(words) == 3 && len(p.sections) > 0:
		p.sections[len(p.sections)-1].set(words[1], words[2], words[0] == "list")
		return nil
	}
	return fmt.Errorf("bad line %q", words)
}

// line splits the first line of text into words.
func line(text string) (words []string, rest string, err error) {
	var word []byte
	inWord := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\n', '#', ' ', '\t':
			if inWord {
				words, word, inWord = append(words, string(word)), nil, false
			}
			if c == '#' {
				i += strings.IndexByte(text[i:]+"\n", '\n')
			}
			if c == '#' || c == '\n' {
				return words, text[min(i+1, len(text)):], nil
			}
		case '\'', '"':
			inWord = true
			for i++; i < len(text) && text[i] != c; i++ {
				if text[i] == '\\' && c == '"' {
					i++
				}
				word = append(word, text[min(i, len(text)-1)])
			}
			if i >= len(text) {
				return nil, "", errors.New("a quote has no end")
			}
		default:
			if c == '\\' && i+1 < len(text) {
				i++
			}
			word, inWord = append(word, text[i]), true
		}
	}
	if inWord {
		words = append(words, string(word))
	}
	return words, "", nil
}

// quote is how export writes a value, for a shell.
func quote(v string) string { return "'" + strings.ReplaceAll(v, "'", `'\''`) + "'" }

// export prints the package as `uci -n export` does, with names for all sections.
func (p *pack) export(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "package %s\n", name)
	for _, s := range p.sections {
		fmt.Fprintf(&b, "\nconfig %s %s\n", s.kind, quote(s.name))
		for _, o := range s.options {
			for _, v := range o.values {
				word := "option"
				if o.list {
					word = "list"
				}
				fmt.Fprintf(&b, "\t%s %s %s\n", word, o.name, quote(v))
			}
		}
	}
	return b.String()
}

// section finds NAME or @TYPE[N].
func (p *pack) section(name string) *section {
	kind, index, isIndex := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(name, "@"), "]"), "[")
	n, _ := strconv.Atoi(index)
	for _, s := range p.sections {
		if !isIndex && s.name == name {
			return s
		}
		if isIndex && s.kind == kind {
			if n == 0 {
				return s
			}
			n--
		}
	}
	return nil
}

// get gives the value of PACKAGE.SECTION.OPTION, or the type of PACKAGE.SECTION.
func (p *pack) get(path string) (string, error) {
	part := strings.Split(path, ".")
	if len(part) < 2 {
		return "", errNoEntry
	}
	s := p.section(part[1])
	if s == nil {
		return "", errNoEntry
	}
	if len(part) == 2 {
		return s.kind, nil
	}
	o := s.find(strings.Join(part[2:], "."))
	if o == nil {
		return "", errNoEntry
	}
	return strings.Join(o.values, " "), nil
}

// change is `uci set`, add_list or delete, of PACKAGE.SECTION[.OPTION][=VALUE].
func (p *pack) change(command, arg string) error {
	path, value, _ := strings.Cut(arg, "=")
	part := strings.Split(path, ".")
	if len(part) == 2 && command == "set" {
		if s := p.section(part[1]); s != nil {
			s.kind = value
		} else {
			p.sections = append(p.sections, &section{kind: value, name: part[1]})
		}
		return nil
	}
	if len(part) != 3 {
		return errors.New("uci: Invalid argument")
	}
	s := p.section(part[1])
	if s == nil {
		return errNoEntry
	}
	if command != "delete" && value != "" {
		s.set(part[2], value, command == "add_list")
		return nil
	}
	for i, o := range s.options {
		if o.name == part[2] {
			s.options = append(s.options[:i], s.options[i+1:]...)
			return nil
		}
	}
	if command == "delete" {
		return errNoEntry
	}
	return nil
}
