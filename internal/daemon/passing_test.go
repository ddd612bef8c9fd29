package daemon

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/lab/home"
)

// mirror sends back what comes to a port of a LAN host, by UDP and TCP.
func (w *inLab) mirror(n, port int) {
	w.t.Helper()
	addr := netip.AddrPortFrom(w.Host(n).Addr, uint16(port)).String()
	u, err := w.Host(n).ListenUDP(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := w.Host(n).ListenTCP(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	go func() {
		for buf := make([]byte, 100); ; {
			k, peer, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			u.WriteToUDPAddrPort(buf[:k], peer)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

// passing is what goes from the internet through the mappings of a mirror, and
// back: one stream of numbered datagrams, one TCP connection, and one UDP
// connection after the other.
type passing struct {
	w                   *inLab
	stream, conn, fresh exchange
	done                chan struct{}
	once                sync.Once
	senders             sync.WaitGroup
}

// exchange counts what was sent and what came back.
type exchange struct{ sent, back atomic.Uint32 }

// pass begins to send to an external port.
func (w *inLab) pass(port int) *passing {
	w.t.Helper()
	p := &passing{w: w, done: make(chan struct{})}
	to := fmt.Sprintf("%s:%d", lab.WANAddr, port)
	s, err := w.Internet.Dial("udp4", to, time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := w.Internet.Dial("tcp4", to, time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		p.stop()
		s.Close()
		c.Close()
	})
	go p.hear(s)
	p.send(func(i uint32) {
		s.Write(binary.BigEndian.AppendUint32(nil, i)) // what is refused is lost
		p.stream.sent.Add(1)
	})
	p.send(func(i uint32) {
		p.conn.sent.Add(1)
		if ask(c, i, 10*time.Second) {
			p.conn.back.Add(1)
		}
	})
	p.send(func(i uint32) {
		var u *net.UDPConn
		err := w.Internet.Do(func() (err error) {
			from := net.UDPAddr{IP: net.ParseIP(lab.InternetAddr), Port: 20000 + int(i%30000)}
			u, err = net.DialUDP("udp4", &from, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
			return err
		})
		if err != nil {
			w.t.Error(err)
			return
		}
		defer u.Close()
		p.fresh.sent.Add(1)
		if ask(u, i, time.Second) {
			p.fresh.back.Add(1)
		}
	})
	return p
}

// more waits until so many more of each were sent.
func (p *passing) more(n uint32) {
	p.w.t.Helper()
	for what, e := range p.exchanges() {
		end := e.sent.Load() + n
		home.Until(p.w.t, what+" goes on", func() bool { return e.sent.Load() >= end })
	}
}

func (p *passing) exchanges() map[string]*exchange {
	return map[string]*exchange{"the stream of datagrams": &p.stream, "the TCP connection": &p.conn, "new connections": &p.fresh}
}

// wantAll ends it and wants everything back.
func (p *passing) wantAll() {
	p.w.t.Helper()
	p.stop()
	for what, e := range p.exchanges() {
		sent := e.sent.Load()
		for end := time.Now().Add(time.Second); e.back.Load() < sent && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		p.w.t.Logf("%s: %d sent, %d lost", what, sent, sent-e.back.Load())
		if e.back.Load() != sent {
			p.w.t.Errorf("%s: %d of %d are lost", what, sent-e.back.Load(), sent)
		}
	}
}

func (p *passing) stop() {
	p.once.Do(func() { close(p.done) })
	p.senders.Wait()
}

// send calls for each number, about every millisecond, until the end.
func (p *passing) send(one func(uint32)) {
	p.senders.Add(1)
	go func() {
		defer p.senders.Done()
		for i := uint32(0); ; i++ {
			select {
			case <-p.done:
				return
			case <-time.After(500 * time.Microsecond):
				one(i)
			}
		}
	}()
}

// hear counts the numbers of the stream that come back, each once.
func (p *passing) hear(c net.Conn) {
	seen := map[uint32]bool{}
	for buf := make([]byte, 100); ; {
		k, err := c.Read(buf)
		if err != nil {
			return
		}
		if i := binary.BigEndian.Uint32(buf[:k]); !seen[i] {
			seen[i] = true
			p.stream.back.Add(1)
		}
	}
}

// ask sends a number, and reports whether it comes back.
func ask(c net.Conn, i uint32, timeout time.Duration) bool {
	c.SetDeadline(time.Now().Add(timeout))
	answer := make([]byte, 4)
	if _, err := c.Write(binary.BigEndian.AppendUint32(nil, i)); err != nil {
		return false
	}
	_, err := io.ReadFull(c, answer)
	return err == nil && binary.BigEndian.Uint32(answer) == i
}
