package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// passwd is where the users are (passwd(5)). No other source is asked: a router has
// none.
const passwd = "/etc/passwd"

// account is who the daemon is.
type account struct{ uid, gid int }

// findAccount looks for a name or a uid in a file like /etc/passwd.
func findAccount(file, user string) (account, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return account{}, fmt.Errorf("user = %s: %w", user, err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		f := strings.Split(line, ":") // name, password, uid, gid, ...
		if len(f) < 4 || f[0] != user && f[2] != user {
			continue
		}
		uid, err := strconv.ParseUint(f[2], 10, 31)
		if err == nil {
			var gid uint64
			if gid, err = strconv.ParseUint(f[3], 10, 31); err == nil {
				return account{int(uid), int(gid)}, nil
			}
		}
	}
	return account{}, fmt.Errorf("user = %s: there is no such user in %s", user, file)
}

// own gives the account the directory of a file, when it is named after the daemon:
// others may be anybody's. The file itself gets replaced.
func (a account) own(path string) {
	if dir := filepath.Dir(path); filepath.Base(dir) == "upnpd" {
		_ = unix.Mkdir(dir, 0o755)
		_ = unix.Lchown(dir, a.uid, a.gid) // who writes there says what is wrong
	}
}

// become makes all threads the account's, with its group and no other. Capabilities
// stay permitted.
func (a account) become() error {
	if a.uid == os.Getuid() {
		return nil
	}
	err := everyThread(unix.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	if err == nil {
		err = syscall.Setgroups(nil)
	}
	if err == nil {
		err = syscall.Setresgid(a.gid, a.gid, a.gid)
	}
	if err == nil {
		err = syscall.Setresuid(a.uid, a.uid, a.uid)
	}
	if err != nil {
		return fmt.Errorf("user: become uid %d: %w (only root can; where systemd or a jail starts it, set the user there)", a.uid, err)
	}
	return nil
}
