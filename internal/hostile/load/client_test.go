package load

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linux-igd/upnpd/internal/lab"
)

const envelope = `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" ` +
	`s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>%s</s:Body></s:Envelope>`

// soap is the POST of an action with the given inside of its element.
func (h *house) soap(path, service, action, arguments, connection string) string {
	body := fmt.Sprintf(envelope, fmt.Sprintf(`<u:%s xmlns:u="%s">%s</u:%[1]s>`, action, service, arguments))
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: \"%s#%s\"\r\n"+
		"Content-Length: %d\r\nConnection: %s\r\n\r\n%s", path, h.web, service, action, len(body), connection, body)
}

// arguments are those of AddPortMapping, and the first of DeletePortMapping.
func arguments(client string, port int) (add, remove string) {
	remove = fmt.Sprintf("<NewRemoteHost></NewRemoteHost><NewExternalPort>%d</NewExternalPort><NewProtocol>TCP</NewProtocol>", port)
	return remove + fmt.Sprintf("<NewInternalPort>8080</NewInternalPort><NewInternalClient>%s</NewInternalClient><NewEnabled>1</NewEnabled>"+
		"<NewPortMappingDescription>load</NewPortMappingDescription><NewLeaseDuration>3600</NewLeaseDuration>", client), remove
}

const wanIP1, wanIP2 = "urn:schemas-upnp-org:service:WANIPConnection:1", "urn:schemas-upnp-org:service:WANIPConnection:2"

// ask sends a whole request on a connection of its own and gives the answer.
func (h *house) ask(from *lab.Host, request string) (string, error) {
	return h.askFrom(from, from.Addr, request)
}

// askFrom is ask from one address of the host.
func (h *house) askFrom(host *lab.Host, from netip.Addr, request string) (string, error) {
	c, err := h.dialFrom(host, from)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}

// beside runs an attack, while the client on LAN2 makes and deletes a mapping again and
// again: none of its calls may fail. How long they take is shown.
func (h *house) beside(t *testing.T, attack func(t *testing.T)) {
	t.Helper()
	add, remove := arguments(lab.LAN2Addr, 7000)
	calls := []string{h.soap(h.control, wanIP1, "AddPortMapping", add, "close"), h.soap(h.control, wanIP1, "DeletePortMapping", remove, "close")}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	var took [2][]time.Duration
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil || i%2 == 1 || i == 0; i++ {
			begun := time.Now()
			answer, err := h.ask(h.LAN2, calls[i%2])
			if err != nil || !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
				t.Errorf("%s of the client beside it: %q, %v", []string{"AddPortMapping", "DeletePortMapping"}[i%2], answer, err)
				return
			}
			took[i%2] = append(took[i%2], time.Since(begun))
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	func() {
		defer func() {
			cancel()
			<-done
		}()
		attack(t)
	}()
	for i, action := range []string{"AddPortMapping", "DeletePortMapping"} {
		slices.Sort(took[i])
		if n := len(took[i]); n > 0 {
			t.Logf("%d times %s beside it: p50 %v, p99 %v, max %v", n, action, took[i][n/2], took[i][n*99/100], took[i][n-1])
		}
	}
	t.Logf("memory %d kB, at most %d kB; %d descriptors", memory(t, h.daemon, "VmRSS"), memory(t, h.daemon, "VmHWM"), descriptors(t, h.daemon))
}

// meanwhile asks by UDP from an address of LAN2 until there are some answers, which
// the result waits for: a datagram may be lost in a flood.
func (h *house) meanwhile(t *testing.T, from netip.Addr, port uint16, question string, some int) (wait func() (tries int)) {
	t.Helper()
	c, err := h.LAN2.ListenUDP(from.String() + ":0")
	if err != nil {
		t.Fatal(err)
	}
	done, n := make(chan struct{}), 0
	go func() {
		defer close(done)
		defer c.Close()
		b := make([]byte, 1500)
		for tries, answers, begun := 1, 0, time.Now(); ; tries++ {
			asked := time.Now()
			n = tries
			c.WriteToUDPAddrPort([]byte(question), netip.AddrPortFrom(h.Router.Addr, port))
			c.SetReadDeadline(asked.Add(500 * time.Millisecond))
			if _, err := c.Read(b); err == nil {
				if answers++; answers == some {
					t.Logf("port %d answered %v %d times for %d tries, in the end after %v", port, from, some, tries, time.Since(asked))
					return
				}
			}
			if time.Since(begun) > patience {
				t.Errorf("port %d answered %v %d times for %d tries", port, from, answers, tries)
				return
			}
			time.Sleep(100 * time.Millisecond) // a client that does not hurry
		}
	}()
	return func() int {
		<-done
		return n
	}
}
