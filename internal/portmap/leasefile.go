package portmap

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LeaseFile keeps mappings for the next run, one line each:
//
//	CHECK PROTO PORT REMOTE PORT CLIENT PORT PORTS STATE ORIGIN OWNER NONCE ID DEADLINE LEFT EXPIRY DESCRIPTION
//
// with "-" for nothing, and 0 for a remote port or an ID that is none, or PORTS that
// are one. STATE is on, off or peer (on, by PEER). REMOTE is an address, or a prefix as in 192.0.2.0/24. A CLIENT of IPv6
// has a pinhole, any other a port mapping. CHECK is the CRC-32 of what follows it:
// a damaged line must not open another port. DEADLINE is in milliseconds on the boot clock of
// the boot that the first line names, LEFT in seconds, for another boot. EXPIRY
// is for people: no lease depends on the wall clock. The description is last and
// has no control characters, so that nothing in it can forge a line.
type LeaseFile struct {
	Path   string
	BootID string // of this boot (/proc/sys/kernel/random/boot_id)
	Now    func() time.Duration
}

const (
	leaseFile  = "upnpd leases "
	leaseHead  = leaseFile + "3, boot "
	leaseState = "on"
	leasePeer  = "peer"
	// Bounds of what is read, and of the faults that are told one by one.
	leaseLine   = 1024
	leaseLines  = 1 << 16
	leaseFaults = 10
)

// Read gives the mappings in the file, at most as many as most, with deadlines on
// the boot clock, and what is wrong with the lines that are none. No file is no
// error.
func (f *LeaseFile) Read(most int) (all []Mapping, bad []error, err error) {
	// Of a pipe or a device nobody knows when it ends: no start shall wait for it.
	file, err := os.OpenFile(f.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, nil, errors.Join(fmt.Errorf("read %s: this is no file of leases; move it away or choose another lease_file", f.Path), err)
	}
	lines := bufio.NewReaderSize(file, leaseLine)
	sameBoot, faults := false, 0
	defer func() {
		if faults > leaseFaults {
			bad = append(bad, fmt.Errorf("%s: %d more lines like these", f.Path, faults-leaseFaults))
		}
	}()
	for n := 1; ; n++ {
		line, err := readLine(lines)
		if err == io.EOF {
			return all, bad, nil
		}
		if err != nil && !errors.Is(err, errBadLine) {
			return all, bad, fmt.Errorf("read leases: %w", err)
		}
		if n > leaseLines || len(all) == most {
			return all, bad, fmt.Errorf("%s:%d: too many lines; the rest is not read", f.Path, n)
		}
		if err == nil && n == 1 {
			head, _ := checked(line)
			if boot, ok := strings.CutPrefix(head, leaseHead); ok {
				sameBoot = boot == f.BootID && boot != ""
				continue
			}
			if strings.HasPrefix(head, leaseFile) {
				return nil, []error{fmt.Errorf("%s: %q is not format 3: none of it is read", f.Path, head)}, nil
			}
		}
		var m Mapping
		if err == nil {
			m, err = f.parse(line, sameBoot)
		}
		if err == nil {
			all = append(all, m)
		} else if faults++; faults <= leaseFaults {
			bad = append(bad, fmt.Errorf("%s:%d: %w", f.Path, n, err))
		}
	}
}

var errBadLine = errors.New("damaged line")

// readLine gives one whole line without its end. A longer one is skipped.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case err == nil:
		return string(line[:len(line)-1]), nil
	case err == io.EOF && len(line) > 0:
		return "", fmt.Errorf("%w: it has no end", errBadLine)
	case !errors.Is(err, bufio.ErrBufferFull):
		return "", err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	return "", fmt.Errorf("%w: more than %d bytes", errBadLine, leaseLine)
}

// checked takes the checksum off a line.
func checked(line string) (string, error) {
	sum, text, _ := strings.Cut(line, " ")
	if want, err := strconv.ParseUint(sum, 16, 32); err != nil || uint32(want) != checksum(text) {
		return "", fmt.Errorf("%w: the checksum is wrong", errBadLine)
	}
	return text, nil
}

// checksum is CRC-32 (IEEE 802.3).
func checksum(s string) uint32 {
	crc := ^uint32(0)
	for i := range len(s) {
		crc ^= uint32(s[i])
		for range 8 {
			crc = crc>>1 ^ 0xedb88320&-(crc&1)
		}
	}
	return ^crc
}

// fields reads the columns of a line one after another; the first fault stays.
type fields struct {
	rest string
	err  error
}

func (f *fields) next() string {
	field, rest, ok := strings.Cut(f.rest, " ")
	if !ok {
		f.fail("too few columns")
	}
	f.rest = rest
	return field
}

func (f *fields) fail(what string) {
	if f.err == nil {
		f.err = fmt.Errorf("%w: %s", errBadLine, what)
	}
}

func (f *fields) number(bits int) uint64 {
	n, err := strconv.ParseUint(f.next(), 10, bits)
	if err != nil {
		f.fail("no number")
	}
	return n
}

// addr reads an address; "-" is the zero Addr.
func (f *fields) addr() netip.Addr {
	text := f.next()
	a, err := netip.ParseAddr(text)
	if err != nil && text != "-" {
		f.fail("no address")
	}
	return a
}

// remote reads an address or a prefix that is more than one.
func (f *fields) remote() (netip.Addr, uint8) {
	if text, _, _ := strings.Cut(f.rest, " "); !strings.Contains(text, "/") {
		return f.addr(), 0
	}
	p, err := netip.ParsePrefix(f.next())
	if err != nil || p.Bits() == 0 {
		f.fail("no prefix")
	}
	return p.Addr(), uint8(p.Bits())
}

func (f *LeaseFile) parse(line string, sameBoot bool) (m Mapping, err error) {
	text, err := checked(line)
	if err != nil {
		return m, err
	}
	in := &fields{rest: text}
	var ok bool
	if m.Protocol, ok = ParseProtocol(in.next()); !ok {
		in.fail("no protocol")
	}
	m.ExternalPort = uint16(in.number(16))
	m.RemoteHost, m.RemoteBits = in.remote()
	m.RemotePort, m.Client = uint16(in.number(16)), in.addr()
	m.InternalPort, m.Ports = uint16(in.number(16)), uint16(in.number(16))
	if m.Client.Is6() {
		m.Pinhole = m.Client
	}
	state := in.next()
	m.Peer = state == leasePeer
	m.Enabled = m.Peer || state == leaseState
	m.Origin, m.Owner = originOf(in.next()), in.addr()
	if nonce := in.next(); nonce != "-" {
		b, err := hex.DecodeString(nonce)
		if err != nil || len(b) != len(m.Nonce) {
			in.fail("no nonce")
		}
		copy(m.Nonce[:], b)
	}
	m.ID = uint16(in.number(16))
	deadline, left := in.number(53), in.number(32)
	in.next() // EXPIRY
	m.Description = in.rest
	m.Deadline = f.Now() + time.Duration(left)*time.Second
	if sameBoot {
		m.Deadline = time.Duration(deadline) * time.Millisecond
	}
	return m, in.err
}

func originOf(name string) Origin {
	for i, o := range origins {
		if o == name {
			return Origin(i)
		}
	}
	return 0
}

// Write replaces the file: a crash at any moment leaves the old one or the new.
func (f *LeaseFile) Write(all []Mapping) error {
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	next := f.Path + ".new"
	_ = os.Remove(next) // of a crash; a link of somebody else's must not be followed
	file, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(file)
	line := func(text string) { fmt.Fprintf(out, "%08x %s\n", checksum(text), text) }
	line(leaseHead + f.BootID)
	now, wall := f.Now(), time.Now().UTC()
	for i := range all {
		line(format(&all[i], now, wall))
	}
	err = out.Flush()
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(next, f.Path)
	}
	if err != nil {
		os.Remove(next)
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	return nil
}

func format(m *Mapping, now time.Duration, wall time.Time) string {
	state, nonce, remote := "off", "-", addrOrNone(m.RemoteHost)
	if m.RemoteBits != 0 {
		remote = m.Remote().String()
	}
	if m.Peer {
		state = leasePeer
	} else if m.Enabled {
		state = leaseState
	}
	if m.Nonce != [12]byte{} {
		nonce = hex.EncodeToString(m.Nonce[:])
	}
	left := max(m.Deadline-now, 0)
	return fmt.Sprintf("%v %d %s %d %v %d %d %s %v %s %s %d %d %d %s %s", m.Protocol, m.ExternalPort, remote, m.RemotePort,
		m.Client, m.InternalPort, m.Ports, state, m.Origin, addrOrNone(m.Owner), nonce, m.ID,
		m.Deadline/time.Millisecond, (left+time.Second-1)/time.Second, wall.Add(left).Format(time.RFC3339), m.Description)
}

func addrOrNone(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}
