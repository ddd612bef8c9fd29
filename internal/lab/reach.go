package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Dial connects from the host; network is "tcp" or "udp", perhaps with the
// family, addr an address
// and port in figures.
func (h *Host) Dial(network, addr string, timeout time.Duration) (net.Conn, error) {
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: timeout}).Dial(network, addr)
		return err
	})
	return conn, err
}

// ListenTCP listens on the host; it ends with the lab at the latest.
func (h *Host) ListenTCP(addr string) (net.Listener, error) {
	var listener net.Listener
	err := h.Do(func() (err error) {
		var config net.ListenConfig
		config.SetMultipathTCP(false) // what other programs' sockets look like
		listener, err = config.Listen(context.Background(), "tcp", addr)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", h.Name, err)
	}
	h.closeLater(listener)
	return listener, nil
}

// ListenUDP opens a UDP socket on the host; it ends with the lab at the latest.
func (h *Host) ListenUDP(addr string) (*net.UDPConn, error) {
	local, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", h.Name, err)
	}
	var conn *net.UDPConn
	err = h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(local))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("on %s: %w", h.Name, err)
	}
	h.closeLater(conn)
	return conn, nil
}

func (h *Host) closeLater(c io.Closer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers = append(h.servers, c)
}

// EchoTCP serves on the host's own address: every connection gets EchoReply
// and is closed. Close the result, or the lab, to end it.
func (h *Host) EchoTCP(port uint16) (io.Closer, error) { return h.echoTCP(h.Addr, port) }

// EchoTCP6 is EchoTCP on the IPv6 address.
func (h *Host) EchoTCP6(port uint16) (io.Closer, error) { return h.echoTCP(h.Addr6, port) }

func (h *Host) echoTCP(at netip.Addr, port uint16) (io.Closer, error) {
	listener, err := h.ListenTCP(netip.AddrPortFrom(at, port).String())
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			// The peer sees a failed write as a missing reply.
			_, _ = io.WriteString(conn, EchoReply(h, conn.LocalAddr(), conn.RemoteAddr()))
			_ = conn.Close()
		}
	}()
	return listener, nil
}

// EchoUDP is EchoTCP for datagrams: each is answered with EchoReply.
func (h *Host) EchoUDP(port uint16) (io.Closer, error) { return h.echoUDP(h.Addr, port) }

// EchoUDP6 is EchoUDP on the IPv6 address.
func (h *Host) EchoUDP6(port uint16) (io.Closer, error) { return h.echoUDP(h.Addr6, port) }

func (h *Host) echoUDP(at netip.Addr, port uint16) (io.Closer, error) {
	conn, err := h.ListenUDP(netip.AddrPortFrom(at, port).String())
	if err != nil {
		return nil, err
	}
	go func() {
		for buf := make([]byte, 1); ; {
			_, peer, err := conn.ReadFromUDP(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteToUDP([]byte(EchoReply(h, conn.LocalAddr(), peer)), peer)
			}
		}
	}()
	return conn, nil
}

// EchoReply is what the echo servers answer, "lan1 192.168.77.10:80-11.0.0.1:4711":
// the host that answers, its address and the peer's address as it arrived.
func EchoReply(h *Host, local, remote net.Addr) string {
	return fmt.Sprintf("%s %s-%s", h.Name, local, remote)
}

// ReachTCP connects from a host to addr and returns what the server there
// sends until it closes, or an error when timeout passes first.
func (l *Lab) ReachTCP(from *Host, addr string, timeout time.Duration) (string, error) {
	return from.reach("tcp", addr, timeout)
}

// ReachUDP sends a datagram from a host to addr and returns the answer, or an
// error when timeout passes first.
func (l *Lab) ReachUDP(from *Host, addr string, timeout time.Duration) (string, error) {
	return from.reach("udp", addr, timeout)
}

func (h *Host) reach(network, addr string, timeout time.Duration) (string, error) {
	deadline := time.Now().Add(timeout)
	conn, err := h.Dial(network, addr, timeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if network == "tcp" {
		reply, err := io.ReadAll(conn)
		return string(reply), err
	}
	if _, err := conn.Write([]byte{0}); err != nil {
		return "", err
	}
	reply := make([]byte, 2048)
	n, err := conn.Read(reply)
	return string(reply[:n]), err
}
