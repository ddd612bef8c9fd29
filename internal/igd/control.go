package igd

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/linux-igd/upnpd/internal/httpmsg"
	"github.com/linux-igd/upnpd/internal/portmap"
	"github.com/linux-igd/upnpd/internal/soap"
)

// upnpError is an error with its code in the standard's tables (SPEC 3.1, 3.2).
type upnpError struct {
	code int
	text string
}

func (e upnpError) Error() string { return fmt.Sprintf("%d %s", e.code, e.text) }

// with adds what was wrong, for the person who debugs the client.
func (e upnpError) with(format string, args ...any) upnpError {
	return upnpError{e.code, e.text + ": " + fmt.Sprintf(format, args...)}
}

var (
	errInvalidAction = upnpError{401, "Invalid Action"}
	errInvalidArgs   = upnpError{402, "Invalid Args"}
	errInvalidVar    = upnpError{404, "Invalid Var"}
	errActionFailed  = upnpError{501, "Action Failed"}
	errOutOfRange    = upnpError{601, "Argument Value Out of Range"}
	errNotAuthorized = upnpError{606, "Action not authorized"}
	errSetupFailed   = upnpError{704, "ConnectionSetupFailed"}
	errNoIndex       = upnpError{713, "SpecifiedArrayIndexInvalid"}
	errNoEntry       = upnpError{714, "NoSuchEntryInArray"}
	errNoClient      = upnpError{715, "WildCardNotPermittedInSrcIP"}
	errWildcardPort  = upnpError{716, "WildCardNotPermittedInExtPort"}
	errConflict      = upnpError{718, "ConflictInMappingEntry"}
	errDeviceUUID    = upnpError{720, "InvalidDeviceUUID"}
	errServiceID     = upnpError{721, "InvalidServiceID"}
	errFull          = upnpError{728, "NoPortMapsAvailable"}
	errInUse         = upnpError{729, "ConflictWithOtherMechanisms"}
	errNotFound      = upnpError{730, "PortMappingNotFound"}
	errReadOnly      = upnpError{731, "ReadOnly"}
	errInternalPort  = upnpError{732, "WildCardNotPermittedInIntPort"}
	errInconsistent  = upnpError{733, "InconsistentParameters"}
)

// code gives the error of the version that was asked: where the two differ,
// only in this.
func (s *Server) code(v1, v2 upnpError) upnpError {
	if s.v2 {
		return v2
	}
	return v1
}

// call is one action request with its arguments typed.
type call struct {
	from   netip.Addr // the control point; a link-local address has the LAN device as its zone
	action string
	values map[string]value
}

// value is an argument: the trimmed text, and the number of a ui2, ui4 or boolean.
type value struct {
	text   string
	number uint32
}

func (c *call) text(name string) string { return c.values[name].text }
func (c *call) ui4(name string) uint32  { return c.values[name].number }
func (c *call) ui2(name string) uint16  { return uint16(c.values[name].number) } // checked by parseValue
func (c *call) boolean(name string) bool {
	return c.values[name].number != 0
}

// protocol is checked by parseValue against the allowed values.
func (c *call) protocol(name string) portmap.Protocol {
	p, _ := portmap.ParseProtocol(c.text(name))
	return p
}

const queryService = "urn:schemas-upnp-org:control-1-0"

// handleControl answers a POST to a control URL (SPEC 3).
func (s *Server) handleControl(svc *service, req *httpmsg.Request) *httpmsg.Response {
	if ct, ok := req.Header.Get("Content-Type"); ok && !isXML(ct) {
		return &httpmsg.Response{Status: 415} // SOAP-13
	}
	header, ok := req.Header.Get("SOAPAction")
	if !ok {
		return &httpmsg.Response{Status: 400} // SOAP-2
	}
	typ, name, err := soap.ParseAction(header)
	if err != nil {
		return &httpmsg.Response{Status: 400}
	}
	body, err := soap.ParseCall(req.Body)
	if err != nil {
		return fault(errInvalidArgs.with("%v", err))
	}
	if body.Action != name || body.Namespace != "" && body.Namespace != typ { // SOAP-3
		return fault(errInvalidAction.with("SOAPACTION says %s#%s, the body %s#%s", typ, name, body.Namespace, body.Action))
	}
	if typ == queryService {
		return s.query(svc, name, body)
	}
	a := svc.action(name)
	if a == nil || typ != svc.typ && typ != svc.oldTyp {
		return fault(errInvalidAction.with("%s has no %s#%s", svc.id, typ, name))
	}
	c := &call{from: req.Remote.Addr(), action: name}
	if c.from.IsLinkLocalUnicast() {
		c.from = c.from.WithZone(req.Device) // two LANs may have the same one
	}
	if c.values, err = svc.parseArgs(a, body); err != nil {
		return fault(s.refuse(c, err))
	}
	out, err := a.do(s, c)
	if err != nil {
		return fault(err)
	}
	return success(typ, a, out)
}

// refuse logs a request that is refused before the table hears of it.
func (s *Server) refuse(c *call, err error) error {
	s.table.Refused(c.from, c.action, err)
	return err
}

func isXML(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.TrimSpace(media)
	return strings.EqualFold(media, "text/xml") || strings.EqualFold(media, "application/xml")
}

func success(typ string, a *action, out []string) *httpmsg.Response {
	list, size := make([]soap.Arg, len(out)), 1<<10
	for i, v := range out {
		size += len(v)
		list[i] = soap.Arg{Name: a.out[i].name, Value: v, XML: a.out[i].name == "NewPortListing"}
	}
	return controlResponse(200, soap.AppendResponse(make([]byte, 0, size), typ, a.name, list))
}

func fault(err error) *httpmsg.Response {
	e, ok := err.(upnpError)
	if !ok {
		e = errActionFailed.with("%v", err)
	}
	return controlResponse(500, soap.AppendFault(nil, e.code, e.text))
}

func controlResponse(status int, body []byte) *httpmsg.Response {
	r := xmlResponse(status, body)
	r.Header = append(r.Header, httpmsg.Field{Name: "EXT"})
	return r
}

// query is QueryStateVariable (SOAP-12): deprecated, but asked for by old
// control points.
func (s *Server) query(svc *service, name string, body soap.Call) *httpmsg.Response {
	if name != "QueryStateVariable" {
		return fault(errInvalidAction.with("%s", name))
	}
	asked, ok := body.Arg("varName")
	if !ok {
		return fault(errInvalidArgs.with("varName is missing"))
	}
	v := svc.variable(strings.TrimSpace(asked))
	if v == nil || v.get == nil {
		return fault(errInvalidVar.with("%q", asked))
	}
	return controlResponse(200, soap.AppendResponse(nil, queryService, name, []soap.Arg{{Name: "return", Value: v.get(s)}}))
}

// parseArgs types the in arguments: all must be there, others are ignored
// (SOAP-5).
func (s *service) parseArgs(a *action, body soap.Call) (map[string]value, error) {
	values := make(map[string]value, len(a.in))
	for _, g := range a.in {
		raw, ok := body.Arg(g.name)
		if !ok {
			return nil, errInvalidArgs.with("%s is missing", g.name)
		}
		v, err := s.variable(g.related).parse(g.name, raw)
		if err != nil {
			return nil, err
		}
		values[g.name] = v
	}
	return values, nil
}

// parse reads one argument as the variable's type says (SOAP-6, SOAP-7): no
// number is truncated, no word guessed.
func (v *variable) parse(name, raw string) (value, error) {
	text := strings.Trim(raw, " \t\r\n")
	switch v.typ {
	case "ui2", "ui4":
		bits := 16
		if v.typ == "ui4" {
			bits = 32
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(text, "+"), 10, bits)
		if err != nil {
			return value{}, errInvalidArgs.with("%s is %q, not a number from 0 to %d", name, text, uint64(1)<<bits-1)
		}
		return value{text, uint32(n)}, nil
	case "boolean":
		switch strings.ToLower(text) {
		case "1", "true", "yes":
			return value{text, 1}, nil
		case "0", "false", "no":
			return value{text, 0}, nil
		}
		return value{}, errInvalidArgs.with("%s is %q, not 0 or 1", name, text)
	}
	if len(v.allowed) == 0 {
		return value{text: raw}, nil
	}
	for _, a := range v.allowed {
		if strings.EqualFold(a, text) {
			return value{text: a}, nil
		}
	}
	return value{}, errOutOfRange.with("%s is %q, not one of %s", name, text, strings.Join(v.allowed, ", "))
}
