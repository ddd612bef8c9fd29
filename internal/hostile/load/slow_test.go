package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

// nothing is what the others are compared with.
func (h *house) nothing(*testing.T) { time.Sleep(time.Second) }

// beginnings of a request, and what then comes of it byte by byte.
func (h *house) beginnings() []string {
	post := h.soap(h.control, wanIP1, "GetExternalIPAddress", "", "close")
	head, _, _ := strings.Cut(post, "\r\n\r\n")
	return []string{
		"",                 // connect, and be silent
		"POST / HTTP/1.1",  // half a line
		head[:len(head)/2], // slowloris
		head + "\r\n\r\n<", // a slow body
		"GET / HTTP/1.1\r\nHost: " + h.web + "\r\nX-a: " + strings.Repeat("b", 7000), // as much as may be kept
		"POST " + h.control + " HTTP/1.1\r\nHost: " + h.web + "\r\nContent-Length: 32768\r\n\r\n" + strings.Repeat(" ", 32000),
	}
}

// slow is 400 requests that never end, kept up for seconds: whatever the daemon
// closes is opened again.
func (h *house) slow(t *testing.T) { h.stalls(t, h.LAN1.Addr) }

// slowOfMany is the same from ten addresses of the one host, of which four could take
// all the connections that the daemon has for a LAN.
func (h *house) slowOfMany(t *testing.T) {
	var from []netip.Addr
	for i := range 10 {
		a := netip.AddrFrom4([4]byte{192, 168, 77, byte(30 + i)})
		h.LAN1.Run(t, "ip", "addr", "add", a.String()+"/24", "dev", lab.HostDev)
		from = append(from, a)
	}
	h.stalls(t, from...)
}

// The connections that the daemon has (HTTP-9), and those of hold.
const perClient, perLAN, held = 32, 128, 12

func (h *house) stalls(t *testing.T, from ...netip.Addr) {
	const slots = 400
	beginnings := h.beginnings()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var all sync.WaitGroup
	var opened, failed [slots]int
	for i := range slots {
		all.Add(1)
		go func() {
			defer all.Done()
			for ctx.Err() == nil {
				if h.stall(ctx, from[i%len(from)], beginnings[(i+opened[i])%len(beginnings)]) != nil {
					failed[i]++
				}
				opened[i]++
			}
		}()
	}
	least := 1 << 20
	for time.Sleep(3 * time.Second); ctx.Err() == nil; { // by then all have begun
		least = min(least, descriptors(t, h.daemon))
		time.Sleep(50 * time.Millisecond)
	}
	if most := h.start + held + 16 + min(perClient*len(from), perLAN); least > most { // 16: the client beside, and what ends
		t.Errorf("the daemon always had %d descriptors and more, want %d at times", least, most)
	}
	all.Wait()
	n, bad := 0, 0
	for i := range opened {
		n, bad = n+opened[i], bad+failed[i]
	}
	t.Logf("%d slow connections, %d of them not opened", n, bad)
}

// stall begins a request and adds a byte a second, until the daemon ends it or ctx
// does. Who was refused waits a little: the machine is the attacker's, too.
func (h *house) stall(ctx context.Context, from netip.Addr, beginning string) error {
	c, err := h.dialFrom(h.LAN1, from)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Time{})
	defer context.AfterFunc(ctx, func() { c.Close() })()
	go func() {
		io.WriteString(c, beginning)
		for beat := time.NewTicker(time.Second); ; {
			select {
			case <-beat.C:
			case <-ctx.Done():
				return
			}
			if _, err := io.WriteString(c, "x"); beginning == "" || err != nil {
				return
			}
		}
	}()
	io.Copy(io.Discard, c)
	select {
	case <-time.After(200 * time.Millisecond):
	case <-ctx.Done():
	}
	return nil
}

// hold opens slow requests at an address of LAN1 and goes on with them, a byte a
// second, until the result is called: by then the daemon must have ended them all,
// in 15 s at most (HTTP-9).
func (h *house) hold(t *testing.T) (over func(*testing.T)) {
	from := netip.MustParseAddr("192.168.77.60")
	h.LAN1.Run(t, "ip", "addr", "add", from.String()+"/24", "dev", lab.HostDev)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	var all sync.WaitGroup
	var n atomic.Int32
	for i, begin := range append(h.beginnings(), h.beginnings()...) {
		all.Add(1)
		n.Add(1)
		go func() {
			defer all.Done()
			if err := h.stall(ctx, from, begin); err != nil {
				t.Errorf("hold connection %d: %v", i, err)
			}
			n.Add(-1)
		}()
	}
	return func(t *testing.T) {
		defer all.Wait()
		defer cancel()
		until(t, "the daemon ends all slow requests", func() bool { return n.Load() == 0 })
	}
}

// connections come and go: at 10,000 a minute, and then as fast as they can.
func (h *house) connections(t *testing.T) {
	request := h.soap(h.control, wanIP1, "GetExternalIPAddress", "", "close")
	begun := time.Now()
	const seconds, rate = 8, 10000 / 60
	served := 0
	for i := range seconds * rate {
		time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / rate)))
		if answer, err := h.ask(h.LAN1, request); err == nil && strings.HasPrefix(answer, "HTTP/1.1 200 ") {
			served++
		}
	}
	t.Logf("%d connections in %v, %d served", seconds*rate, time.Since(begun), served)
	var all sync.WaitGroup
	var opened [4]int
	begun = time.Now()
	for i := range opened {
		all.Add(1)
		go func() {
			defer all.Done()
			for time.Since(begun) < 3*time.Second {
				c, err := h.dial(h.LAN1)
				if err != nil {
					t.Errorf("connect: %v", err)
					return
				}
				if opened[i]++; opened[i]%2 == 0 {
					io.WriteString(c, request)
				}
				c.Close() // with a reset
			}
		}()
	}
	all.Wait()
	t.Logf("%d connections at full speed in %v", opened[0]+opened[1]+opened[2]+opened[3], time.Since(begun))
}

// large requests: 1 GB announced and sent for as long as the daemon takes it, deep
// XML, 64 kB and more of header (CVE-2013-0229, CVE-2017-1000494).
func (h *house) large(t *testing.T) {
	post := func(field, body string, length int) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: \"%s#GetExternalIPAddress\"\r\n"+
			"Connection: close\r\n%sContent-Length: %d\r\n\r\n%s", h.control, h.web, wanIP1, field, length, body)
	}
	deep := strings.Repeat("<a>", 10000)
	_, body, _ := strings.Cut(h.soap(h.control, wanIP1, "GetExternalIPAddress", "", "close"), "\r\n\r\n")
	body = strings.Replace(body, "<s:Body>", "<s:Header>"+strings.Repeat("<a>", 4000)+strings.Repeat("</a>", 4000)+"</s:Header><s:Body>", 1)
	chunked := strings.Replace(post("Transfer-Encoding: chunked\r\n", "40000000\r\n", 0), "Content-Length: 0\r\n", "", 1)
	for _, attack := range []struct{ name, request, more, want string }{
		{"1 GB", post("", "", 1<<30), strings.Repeat("x", 1<<16), "HTTP/1.1 413 "},
		{"1 GB in a chunk", chunked, strings.Repeat("x", 1<<16), "HTTP/1.1 413 "},
		{"10,000 nested tags", post("", deep, len(deep)), "", "HTTP/1.1 500 "},
		{"4,000 nested tags in a part that is skipped", post("", body, len(body)), "", "HTTP/1.1 500 "},
		{"a header of 64 kB", post("X: "+strings.Repeat("y", 64<<10)+"\r\n", "", 0), "", "HTTP/1.1 431 "},
		{"a SOAPAction of 64 kB", post("SOAPAction: \""+strings.Repeat("y", 64<<10)+"\r\n", "", 0), "", "HTTP/1.1 431 "},
		{"a header without end", "GET / HTTP/1.1\r\n", strings.Repeat("X: y\r\n", 1<<13), "HTTP/1.1 431 "},
		{"a target of 64 kB", "GET /" + strings.Repeat("y", 64<<10), "", "HTTP/1.1 414 "},
	} {
		begun := time.Now()
		for range 40 {
			c, err := h.dial(h.LAN1)
			if err != nil {
				t.Fatal(err)
			}
			answer, sent := push(c, attack.request, attack.more)
			c.Close()
			if !strings.HasPrefix(answer, attack.want) || sent > 16<<20 {
				t.Fatalf("%s: %q after %d bytes, want %q", attack.name, answer, sent, attack.want)
			}
		}
		t.Logf("40 times %s in %v", attack.name, time.Since(begun))
	}
}

// push sends a request and more of it until the daemon does not take it any longer,
// or 64 MB, and gives the answer.
func push(c net.Conn, request, more string) (answer string, sent int) {
	done := make(chan int)
	go func() {
		n, err := io.WriteString(c, request)
		for more != "" && err == nil && n < 64<<20 {
			var k int
			k, err = io.WriteString(c, more)
			n += k
		}
		done <- n
	}()
	text, _ := io.ReadAll(c) // a reset may cut the rest
	c.Close()
	return string(text), <-done
}

// subscribe 300 times, to a subscriber who takes connections and says nothing
// (CallStranger's flood; GENA-13).
func (h *house) subscribe(t *testing.T) {
	l, err := h.LAN1.ListenTCP(lab.LAN1Addr + ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var mu sync.Mutex
	var taken []net.Conn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			taken = append(taken, c)
			mu.Unlock()
		}
	}()
	status := map[string]int{}
	for range 300 {
		answer, err := h.ask(h.LAN1, fmt.Sprintf("SUBSCRIBE %s HTTP/1.1\r\nHost: %s\r\nNT: upnp:event\r\nCALLBACK: <http://%v/>\r\nTIMEOUT: Second-1800\r\nConnection: close\r\n\r\n",
			h.events, h.web, l.Addr()))
		if len(answer) < 12 {
			t.Fatalf("SUBSCRIBE: %q, %v", answer, err)
		}
		status[answer[9:12]]++
	}
	if status["200"] != 16 || status["503"] != 284 {
		t.Errorf("300 SUBSCRIBEs of one host: %v, want 16 granted", status)
	}
	until(t, "the subscriber is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(taken) == 16
	})
	time.Sleep(500 * time.Millisecond) // its silence is nobody else's matter
	mu.Lock()
	defer mu.Unlock()
	for _, c := range taken {
		c.Close()
	}
}
