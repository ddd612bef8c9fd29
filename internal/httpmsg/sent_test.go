package httpmsg

import (
	"context"
	"io"
	"testing"
	"time"
)

// GENA-6: Sent is called once, when the client can have the whole answer, and
// when it went away, too. The handler knows the LAN.
func TestSent(t *testing.T) {
	for _, reads := range []bool{true, false} {
		sent := make(chan bool, 2)
		s := &Server{Device: "br0", Handler: func(req *Request) *Response {
			if req.Device != "br0" {
				t.Errorf("device %q", req.Device)
			}
			return &Response{Status: 200, Body: []byte("whole"), Sent: func() { sent <- true }}
		}}
		server, client := newTwins(serverAddr, clientAddr)
		done := make(chan struct{})
		go func() {
			s.ServeConn(context.Background(), server)
			close(done)
		}()
		_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nConnection: close\r\n"+host+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if reads {
			if _, err := io.ReadFull(client, make([]byte, 10)); err != nil { // a part of it
				t.Fatal(err)
			}
			if len(sent) > 0 {
				t.Error("sent before the answer was written")
			}
			if _, err := io.ReadAll(client); err != nil {
				t.Fatal(err)
			}
		}
		_ = client.Close()
		<-done
		if len(sent) != 1 {
			t.Errorf("client reads %v: Sent was called %d times", reads, len(sent))
		}
	}
}
