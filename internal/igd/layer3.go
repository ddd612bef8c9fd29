package igd

import "strings"

// layer3Forwarding is Layer3Forwarding:1 (SPEC 5.2): which connection service
// is the default one. There is one, so it cannot be changed to another.
func layer3Forwarding() *service {
	return &service{
		typ:  "urn:schemas-upnp-org:service:Layer3Forwarding:1",
		id:   "L3Forwarding1",
		file: "gatel3fSCPD.xml",
		actions: []action{
			{"SetDefaultConnectionService", args("NewDefaultConnectionService"), nil, (*Server).setDefaultConnectionService},
			{"GetDefaultConnectionService", nil, args("NewDefaultConnectionService"), func(s *Server, _ *call) ([]string, error) {
				return []string{s.defaultConnectionService()}, nil
			}},
		},
		vars: []variable{
			{name: "DefaultConnectionService", typ: "string", evented: true, get: (*Server).defaultConnectionService},
		},
	}
}

func (s *Server) defaultConnectionService() string {
	connection := s.root.devices[0].devices[0]
	version := ":WANConnectionDevice:1"
	if s.v2 {
		version = ":WANConnectionDevice:2"
	}
	return "uuid:" + connection.uuid + version + ",urn:upnp-org:serviceId:" + connection.services[0].id
}

func (s *Server) setDefaultConnectionService(c *call) ([]string, error) {
	ours := s.defaultConnectionService()
	device, id, _ := strings.Cut(c.text("NewDefaultConnectionService"), ",")
	ourDevice, ourID, _ := strings.Cut(ours, ",")
	if !strings.EqualFold(device, ourDevice) {
		return nil, errDeviceUUID.with("the only connection service is %s", ours)
	}
	if id != ourID {
		return nil, errServiceID.with("the only connection service is %s", ours)
	}
	return nil, nil
}
