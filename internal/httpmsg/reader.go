package httpmsg

import (
	"bytes"
	"errors"
	"io"
	"slices"
)

// readAhead is the least room for one read, in bytes.
const readAhead = 1024

// errTooLong says that a line did not end within its budget.
var errTooLong = errors.New("line too long")

// A reader buffers what came from a connection and was not used yet. Its
// memory grows with what really arrives, not with what a client announces.
type reader struct {
	src io.Reader
	buf []byte
	pos int // buf before it is used up
}

func (r *reader) buffered() int { return len(r.buf) - r.pos }

// release gives the memory of a large request back, once it is used; the beginning of
// another one may be there already.
func (r *reader) release() {
	if cap(r.buf) > 4*readAhead+2*r.buffered() {
		r.buf, r.pos = append([]byte(nil), r.buf[r.pos:]...), 0
	}
}

// fill reads once. What line returned before is overwritten.
func (r *reader) fill() error {
	r.buf = r.buf[:copy(r.buf, r.buf[r.pos:])]
	r.pos = 0
	if cap(r.buf)-len(r.buf) < readAhead {
		r.buf = slices.Grow(r.buf, readAhead)
	}
	n, err := r.src.Read(r.buf[len(r.buf):cap(r.buf)])
	r.buf = r.buf[:len(r.buf)+n]
	if n > 0 {
		return nil
	}
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// line returns the next line without its end and takes its length off the
// budget. It is valid until the next call.
func (r *reader) line(budget *int) ([]byte, error) {
	for seen := 0; ; {
		if i := bytes.IndexByte(r.buf[r.pos+seen:], '\n'); i >= 0 {
			n := seen + i + 1
			if n > *budget {
				return nil, errTooLong
			}
			*budget -= n
			line := r.buf[r.pos : r.pos+n-1]
			r.pos += n
			return trimCR(line), nil
		}
		if seen = r.buffered(); seen >= *budget {
			return nil, errTooLong
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// take appends the next n bytes to dst.
func (r *reader) take(dst []byte, n int) ([]byte, error) {
	for r.buffered() < n {
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
	dst = append(dst, r.buf[r.pos:r.pos+n]...)
	r.pos += n
	return dst, nil
}
