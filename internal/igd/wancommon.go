package igd

import (
	"math"
	"strconv"

	"github.com/linux-igd/upnpd/internal/wan"
)

// wanCommonInterfaceConfig is WANCommonInterfaceConfig:1 (SPEC 5.3): the
// uplink's speed, state and counters.
func wanCommonInterfaceConfig() *service {
	svc := &service{
		typ:  "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1",
		id:   "WANCommonIFC1",
		file: "gateicfgSCPD.xml",
		actions: []action{{
			"GetCommonLinkProperties", nil,
			args("NewWANAccessType", "NewLayer1UpstreamMaxBitRate", "NewLayer1DownstreamMaxBitRate", "NewPhysicalLinkStatus"),
			func(s *Server, _ *call) ([]string, error) {
				return []string{wanAccessType, s.upstreamBitrate(), s.downstreamBitrate(), s.physicalLinkStatus()}, nil
			},
		}},
		vars: []variable{
			{name: "WANAccessType", typ: "string", allowed: []string{"DSL", "POTS", "Cable", "Ethernet"},
				get: func(*Server) string { return wanAccessType }},
			{name: "Layer1UpstreamMaxBitRate", typ: "ui4", get: (*Server).upstreamBitrate},
			{name: "Layer1DownstreamMaxBitRate", typ: "ui4", get: (*Server).downstreamBitrate},
			{name: "PhysicalLinkStatus", typ: "string", evented: true, allowed: []string{"Up", "Down", "Initializing", "Unavailable"},
				get: (*Server).physicalLinkStatus},
		},
	}
	for _, c := range []struct {
		name string
		of   func(wan.Counters) uint64
	}{
		{"TotalBytesSent", func(c wan.Counters) uint64 { return c.BytesSent }},
		{"TotalBytesReceived", func(c wan.Counters) uint64 { return c.BytesReceived }},
		{"TotalPacketsSent", func(c wan.Counters) uint64 { return c.PacketsSent }},
		{"TotalPacketsReceived", func(c wan.Counters) uint64 { return c.PacketsReceived }},
	} {
		svc.actions = append(svc.actions, action{"Get" + c.name, nil, args("New" + c.name), func(s *Server, _ *call) ([]string, error) {
			all, err := s.uplink.Counters()
			if err != nil {
				return nil, err
			}
			return []string{low32(c.of(all))}, nil
		}})
		svc.vars = append(svc.vars, variable{name: c.name, typ: "ui4", get: func(s *Server) string {
			all, _ := s.uplink.Counters() // zero when the kernel does not answer
			return low32(c.of(all))
		}})
	}
	return svc
}

// wanAccessType: the daemon cannot see what is behind the uplink's device.
const wanAccessType = "Ethernet"

// low32 gives a counter as a ui4 that wraps.
func low32(n uint64) string { return strconv.FormatUint(n&math.MaxUint32, 10) }

func (s *Server) upstreamBitrate() string   { return s.bitrate(s.cfg.UpstreamBitrate) }
func (s *Server) downstreamBitrate() string { return s.bitrate(s.cfg.DownstreamBitrate) }

// bitrate is the configured rate or else the link's, held at the highest ui4.
func (s *Server) bitrate(configured uint64) string {
	if configured == 0 {
		configured = s.uplink.State().Uplink.Speed
	}
	return strconv.FormatUint(min(configured, math.MaxUint32), 10)
}

func (s *Server) physicalLinkStatus() string {
	if s.uplink.State().Uplink.Up {
		return "Up"
	}
	return "Down"
}
