// Package soap reads the SOAP 1.1 calls that UPnP control points send and
// writes the answers.
//
// Documents: SPEC.md 3 (SOAP-1 to SOAP-13), the UPnP Device Architecture
// (control), XML 1.0 and Namespaces in XML 1.0. The reader is a subset: UTF-8
// only, no DTD and so no entities but the five predefined ones (SOAP-8), names
// in ASCII, bounded depth and counts. Whatever encoding/xml refuses, it
// refuses; the tests compare the two.
package soap

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// envelopeNS is the namespace of SOAP 1.1 (SOAP-1).
	envelopeNS = "http://schemas.xmlsoap.org/soap/envelope/"
	// maxArgs bounds the arguments of one call; the longest action of an
	// IGD has 8.
	maxArgs = 64
)

var (
	// ErrSyntax says that the body is not well-formed XML.
	ErrSyntax = errors.New("not well-formed XML")
	// ErrUnsupported says that the body is XML of a kind that is refused:
	// a DTD, another encoding, a bound exceeded, a header that must be
	// understood (SOAP-4, SOAP-8).
	ErrUnsupported = errors.New("unsupported XML")
	// ErrEnvelope says that the body is XML, but not one SOAP call.
	ErrEnvelope = errors.New("not a SOAP call")
	// ErrAction says that a SOAPACTION value names no action.
	ErrAction = errors.New("not a SOAP action")
)

// An Arg is one argument of a call or an answer.
type Arg struct {
	Name  string // without namespace prefix
	Value string // decoded, not trimmed
	// XML says that the Value of an answer is a document: it goes as a CDATA
	// section, because miniupnpc does not decode references in one (SPEC WIP-16).
	XML bool
}

// A Call is the one action in the body of an envelope.
type Call struct {
	// Namespace of the action element: the service type. It is empty where
	// the element has none or an undeclared prefix (SOAP-4).
	Namespace string
	Action    string
	Args      []Arg // in the order of the request
}

// Arg returns the value of the named argument; ok tells an empty one from a
// missing one. Names are case-sensitive.
func (c Call) Arg(name string) (value string, ok bool) {
	for _, a := range c.Args {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// ParseAction splits the value of a SOAPACTION field, serviceType#action, at
// the last '#'. Quotes and blanks around it are optional (SOAP-2). Anything
// else is ErrAction.
func ParseAction(header string) (serviceType, action string, err error) {
	s := strings.Trim(header, " \t")
	s = strings.TrimPrefix(s, `"`)
	s = strings.TrimSuffix(s, `"`)
	s = strings.Trim(s, " \t")
	i := strings.LastIndexByte(s, '#')
	if i <= 0 || i == len(s)-1 {
		return "", "", fmt.Errorf("%w: want serviceType#action", ErrAction)
	}
	for j := 0; j < len(s); j++ {
		if s[j] <= ' ' || s[j] >= 0x7f || s[j] == '"' {
			return "", "", fmt.Errorf("%w: blank, quote or byte outside ASCII", ErrAction)
		}
	}
	return s[:i], s[i+1:], nil
}

// ParseCall reads the envelope in body (SOAP-1). Prefixes are free, an
// envelope without namespace and any encodingStyle are accepted, header
// entries are skipped unless they must be understood (SOAP-4). An argument
// may come once, has no elements inside, and its value is what the characters,
// references and CDATA sections in it say, not trimmed.
//
// The error wraps ErrSyntax, ErrUnsupported or ErrEnvelope. The caller bounds
// the length of body.
func ParseCall(body []byte) (Call, error) {
	s, err := newScanner(body)
	if err != nil {
		return Call{}, err
	}
	if err := openBody(s); err != nil {
		return Call{}, err
	}
	call, err := readAction(s)
	if err != nil {
		return Call{}, err
	}
	for _, what := range []string{"in the body after the action", "after the body"} {
		if _, ok, err := s.child(); err != nil {
			return Call{}, err
		} else if ok {
			return Call{}, fmt.Errorf("%w: an element %s", ErrEnvelope, what)
		}
	}
	// The scanner itself refuses whatever may not follow the envelope.
	if _, _, err := s.child(); err != nil {
		return Call{}, err
	}
	return call, nil
}

// openBody reads up to and including the start tag of the Body.
func openBody(s *scanner) error {
	el, ok, err := s.child()
	if err != nil {
		return err
	}
	if !ok || !isEnvelopePart(el, "Envelope") {
		return fmt.Errorf("%w: the root is not Envelope", ErrEnvelope)
	}
	if el, ok, err = s.child(); err != nil {
		return err
	}
	if ok && isEnvelopePart(el, "Header") {
		if err := skipHeader(s); err != nil {
			return err
		}
		if el, ok, err = s.child(); err != nil {
			return err
		}
	}
	if !ok || !isEnvelopePart(el, "Body") {
		return fmt.Errorf("%w: no Body where it belongs", ErrEnvelope)
	}
	return nil
}

func isEnvelopePart(el element, local string) bool {
	return el.local == local && (el.space == envelopeNS || el.space == "")
}

// skipHeader reads to the end of the Header. No header entry is known here,
// so one that must be understood refuses the call (SOAP 1.1 section 4.2.3).
func skipHeader(s *scanner) error {
	for {
		el, ok, err := s.child()
		if err != nil || !ok {
			return err
		}
		for _, a := range el.attrs {
			if v := strings.TrimSpace(a.value); a.local == "mustUnderstand" && (v == "1" || v == "true") {
				return fmt.Errorf("%w: header %s must be understood", ErrUnsupported, el.local)
			}
		}
		if err := s.skip(); err != nil {
			return err
		}
	}
}

// readAction reads the action element whole.
func readAction(s *scanner) (Call, error) {
	el, ok, err := s.child()
	if err != nil {
		return Call{}, err
	}
	if !ok {
		return Call{}, fmt.Errorf("%w: the Body is empty", ErrEnvelope)
	}
	call := Call{Namespace: el.space, Action: el.local}
	for {
		el, ok, err := s.child()
		if err != nil {
			return Call{}, err
		}
		if !ok {
			return call, nil
		}
		if _, twice := call.Arg(el.local); twice {
			return Call{}, fmt.Errorf("%w: argument %s comes twice", ErrEnvelope, el.local)
		}
		if len(call.Args) == maxArgs {
			return Call{}, fmt.Errorf("%w: more than %d arguments", ErrUnsupported, maxArgs)
		}
		value, err := s.value()
		if err != nil {
			return Call{}, err
		}
		call.Args = append(call.Args, Arg{Name: el.local, Value: value})
	}
}
