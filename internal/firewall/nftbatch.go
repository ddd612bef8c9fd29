package firewall

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// Buffers of the socket: for a Sync of as many mappings as there are ports, sent
// as one message, and for the kernel's answers. The memory is used only then.
const (
	sendBuffer    = 16 << 20
	receiveBuffer = 1 << 20
)

// answerTime bounds the wait for an answer: it is there when the message has been
// taken, or it never comes. Meanwhile nobody else gets a mapping.
const answerTime = time.Second / 2

// longAnswerTime is for lists of unknown length, which come in parts.
const longAnswerTime = 5 * time.Second

// Lengths of the headers of a message: struct nlmsghdr, and struct nfgenmsg with
// family, version and resource (linux/netlink.h, linux/netfilter/nfnetlink.h).
const (
	nlmsghdr = 16
	nfgenmsg = 4
)

// batch is a transaction in the making: its messages, one behind the other.
type batch struct {
	bytes []byte
	last  int    // where the last message begins
	seq   uint32 // of the next message
}

// message adds one of any netfilter subsystem; what is its type.
func (b *batch) message(what, flags int, family byte, resource uint16, a attributes) {
	host := binary.NativeEndian
	b.last = len(b.bytes)
	b.bytes = host.AppendUint32(b.bytes, uint32(nlmsghdr+nfgenmsg+len(a)))
	b.bytes = host.AppendUint16(b.bytes, uint16(what))
	b.bytes = host.AppendUint16(b.bytes, uint16(unix.NLM_F_REQUEST|flags))
	b.bytes = host.AppendUint32(b.bytes, b.seq)
	b.bytes = append(b.bytes, 0, 0, 0, 0, family, unix.NFNETLINK_V0) // the kernel puts in our address
	b.bytes = binary.BigEndian.AppendUint16(b.bytes, resource)
	b.bytes = append(b.bytes, a...)
	b.seq++
}

// add adds a message about our table, of the type NFT_MSG_... .
func (b *batch) add(what, flags int, a attributes) {
	b.message(unix.NFNL_SUBSYS_NFTABLES<<8|what, flags, unix.NFPROTO_INET, 0, a)
}

// batchConn sends transactions to nf_tables. It has a socket without the
// comforts of netlink.Conn, whose errors do not tell which message they answer.
type batchConn struct {
	socket *socket.Conn
	port   uint32 // our address: by it the kernel names who made a change
	seq    uint32 // of the next message
}

func dialBatch() (*batchConn, error) {
	s, err := socket.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, "nf_tables", nil)
	if err != nil {
		return nil, err
	}
	name, err := bound(s)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &batchConn{socket: s, port: name.Pid}, nil
}

// bound sets the socket up and gives its address.
func bound(s *socket.Conn) (*unix.SockaddrNetlink, error) {
	err := errors.Join(
		s.SetReadBuffer(receiveBuffer), s.SetWriteBuffer(sendBuffer),
		s.SetsockoptInt(unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1), // errors do not repeat the message
		s.Bind(&unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	if err != nil {
		return nil, err
	}
	name, err := s.Getsockname()
	if err != nil {
		return nil, err
	}
	return name.(*unix.SockaddrNetlink), nil
}

// begin starts a transaction.
func (c *batchConn) begin() *batch {
	b := &batch{seq: c.seq}
	b.message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	return b
}

// commit has the kernel take a transaction, whole or not at all. Only the last
// message asks for an answer, so that the buffer holds the answers to any batch,
// but a message that fails has one anyway. The kernel answers in order, and for
// a failure of the whole in the name of the first message.
//
// The error is a syscall.Errno if the kernel refused the transaction; what it says
// further is then left, and passed over by the next commit.
func (c *batchConn) commit(b *batch) error {
	first, last := c.seq, b.seq-1
	flags := b.bytes[b.last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
	b.message(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	c.seq = b.seq
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if _, err := c.socket.Sendmsg(context.Background(), b.bytes, nil, kernel, 0); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := c.socket.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	return c.answer(first, last)
}

// answer waits for the answer to the message last of a transaction that begins
// with first; an error of one between them is the transaction's.
func (c *batchConn) answer(first, last uint32) error {
	host := binary.NativeEndian
	buf := make([]byte, nlmsghdr+4) // and the error's number; each comes by itself
	for {
		n, _, _, _, err := c.socket.Recvmsg(context.Background(), buf, nil, 0)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		seq := host.Uint32(buf[8:])
		if n < len(buf) || host.Uint16(buf[4:]) != unix.NLMSG_ERROR || seq-first > last-first {
			continue // of a transaction before
		}
		if errno := -int32(host.Uint32(buf[nlmsghdr:])); errno != 0 {
			return syscall.Errno(errno)
		}
		if seq == last {
			return nil
		}
	}
}
