package firewall

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/linux-igd/upnpd/internal/lab"
	"github.com/linux-igd/upnpd/internal/portmap"
)

// ports gives n mappings of consecutive ports, from the first on.
func ports(first, n int) []portmap.Mapping {
	all := make([]portmap.Mapping, n)
	for i := range all {
		all[i] = leased(web, time.Hour)
		all[i].ExternalPort, all[i].InternalPort = uint16(first+i), uint16(first+i)
	}
	return all
}

// dnats gives the elements of mappings.
func dnats(all []portmap.Mapping) (list []entry) {
	for _, m := range all {
		list = append(list, dnat(m).entry(portmap.BootTime()))
	}
	return list
}

// TestBatchErrors: an error anywhere in a transaction is seen and undoes all of
// it, and what the kernel said about one never answers for the next.
func TestBatchErrors(t *testing.T) {
	l := lab.Start(t)
	f := openNFT(t, l)
	there := ports(1000, 1)
	on(t, l, func() error { return f.Sync(home, there) })
	add, del := unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM
	other := there[0]
	other.InternalPort = 9 // another value for a key that is there
	for _, tt := range []struct {
		name string
		fill func(*batch)
		want error
	}{
		{"the first", func(b *batch) {
			b.elements(del, dnat4, dnats(ports(9, 1)))
			b.elements(add, dnat4, dnats(ports(2000, 10)))
		}, unix.ENOENT},
		{"in the middle", func(b *batch) {
			for i := range 300 {
				b.elements(add, dnat4, dnats(ports(2000+i, 1)))
			}
			b.elements(add, dnat4, dnats([]portmap.Mapping{other}))
			for i := range 300 {
				b.elements(add, dnat4, dnats(ports(3000+i, 1)))
			}
		}, unix.EEXIST},
		{"the last", func(b *batch) {
			b.elements(add, dnat4, dnats(ports(2000, 10)))
			b.elements(del, dnat4, dnats(ports(9, 1)))
		}, unix.ENOENT},
		{"all but the last", func(b *batch) {
			for i := range 600 {
				b.elements(del, dnat4, dnats(ports(2000+i, 1)))
			}
			b.elements(add, dnat4, dnats(ports(5000, 1)))
		}, unix.ENOENT},
		{"a set that is not there", func(b *batch) { b.elements(add, "nowhere", dnats(ports(2000, 1))) }, unix.ENOENT},
		{"a key of a wrong length", func(b *batch) { b.elements(add, dnat4from, dnats(ports(2000, 1))) }, unix.EINVAL},
		{"none", func(b *batch) { b.elements(add, dnat4, dnats(there)) }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := f.conn.begin()
			tt.fill(b)
			if err := f.conn.commit(b); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			// Whatever answers are left, the next two have their own.
			for _, want := range []error{nil, unix.EEXIST} {
				b := f.conn.begin()
				b.elements(add, dnat4, dnats(there))
				if want != nil {
					b.elements(add, dnat4, dnats([]portmap.Mapping{other}))
				}
				if err := f.conn.commit(b); !errors.Is(err, want) {
					t.Errorf("the next got %v, want %v", err, want)
				}
			}
			all, err := f.readSet(dnat4)
			if err != nil || len(all) != 1 {
				t.Errorf("%d elements (%v), want the one from before", len(all), err)
			}
		})
	}
	on(t, l, f.Close)
}

// TestBatchOverrun: answers that were lost give the connection up, and the next
// Sync makes all right.
func TestBatchOverrun(t *testing.T) {
	l := lab.Start(t)
	f := openNFT(t, l)
	on(t, l, func() error { return f.Sync(home, nil) })
	if err := f.conn.socket.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	b := f.conn.begin()
	for i := range 100 {
		b.elements(unix.NFT_MSG_DELSETELEM, dnat4, dnats(ports(2000+i, 1)))
	}
	err := f.commit(b)
	if err == nil || f.conn != nil && !errors.Is(err, unix.ENOENT) {
		t.Errorf("100 errors in a buffer for two: %v; the connection is kept: %v", err, f.conn != nil)
	}
	// The one answer that is wanted finds no room behind those of before.
	on(t, l, f.connect)
	if err := f.conn.socket.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b = f.conn.begin()
		for i := range 100 {
			b.elements(unix.NFT_MSG_DELSETELEM, dnat4, dnats(ports(2000+i, 1)))
		}
		if err = f.commit(b); f.conn == nil {
			break
		}
	}
	if !errors.Is(err, unix.ENOBUFS) || f.conn != nil {
		t.Errorf("answers were lost: %v; the connection is kept: %v", err, f.conn != nil)
	}
	all := ports(1000, 3)
	on(t, l, func() error { return f.Sync(home, all) })
	if got, err := f.readSet(dnat4); len(got) != 3 || err != nil {
		t.Errorf("%d elements (%v), want 3", len(got), err)
	}
	on(t, l, f.Close)
}

// TestBatchSilence: a kernel that does not answer is not waited for.
func TestBatchSilence(t *testing.T) {
	c, err := dialBatch()
	if err != nil {
		t.Fatal(err)
	}
	defer c.socket.Close()
	if err := c.socket.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := c.answer(1, 3); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestBatchWithoutRights: the kernel answers in the name of the first message.
func TestBatchWithoutRights(t *testing.T) {
	l := lab.Start(t)
	on(t, l, func() error { // on a thread of its own
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var rights, none [2]unix.CapUserData
		if err := unix.Capget(&header, &rights[0]); err != nil {
			return err
		}
		none = rights
		none[0].Effective, none[1].Effective = 0, 0
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		c, err := dialBatch()
		if err == nil {
			defer c.socket.Close()
			b := c.begin()
			layout{"wan0", true}.install(b, true)
			err = c.commit(b)
		}
		if !errors.Is(err, unix.EPERM) {
			t.Errorf("got %v, want %v", err, unix.EPERM)
		}
		return unix.Capset(&header, &rights[0])
	})
}

// TestNFTAllPorts: as many mappings as there are ports come in one transaction,
// and go in one, which would fail if one of them were missing.
func TestNFTAllPorts(t *testing.T) {
	l := lab.Start(t)
	f := openNFT(t, l)
	all := ports(1, 65535)
	on(t, l, func() error { return f.Sync(home, all) })
	on(t, l, func() error { return f.Change(all, nil) })
	for _, set := range []string{dnat4, snat4} {
		if left, err := f.readSet(set); err != nil || len(left) != 0 {
			t.Errorf("%d elements are left in %s (%v)", len(left), set, err)
		}
	}
	on(t, l, f.Close)
}
