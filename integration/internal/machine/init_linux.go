package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// initSpec configures Init.
type initSpec struct {
	Root    string // the system; empty: this one
	New     string // where it is put together
	Program string // systemd
}

// Where units are: the administrator's, those of systemd-run, and the few of the
// distribution's.
const (
	unitDir  = "/etc/systemd/system"
	stubDir  = "/run/baton-units"
	unitPath = unitDir + ":/run/systemd/system:/run/systemd/transient:" + stubDir
)

// theirs are the distribution's units that a boot needs.
func theirs() []string {
	return []string{
		"basic.target", "dbus.service", "dbus.socket", "exit.target", "final.target", "local-fs-pre.target", "local-fs.target",
		"multi-user.target", "network.target", "network-online.target", "paths.target", "poweroff.target", "reboot.target",
		"shutdown.target", "slices.target", "sockets.target", "systemd-exit.service", "systemd-journald-dev-log.socket",
		"systemd-journald.service", "systemd-journald.socket", "systemd-poweroff.service", "timers.target", "umount.target",
	}
}

// stubs are units in the place of theirs. Theirs would start udev, set sysctls
// and load modules.
func stubs() map[string]string {
	return map[string]string{
		"sysinit.target": "[Unit]\nDefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n",
		bootTarget: "[Unit]\nDefaultDependencies=no\nRequires=systemd-journald.socket systemd-journald.service\n" +
			"After=systemd-journald.service\nAllowIsolate=yes\n",
	}
}

const bootTarget = "baton.target"

// Init is the process that becomes systemd: PID 1 of its namespace. It puts the
// machine's files together and returns only with an error.
func Init(args []string) error {
	if len(args) != 1 || os.Getpid() != 1 {
		return errors.New("this is PID 1 of a machine, and for its owner to start")
	}
	var spec initSpec
	if err := json.Unmarshal([]byte(args[0]), &spec); err != nil {
		return err
	}
	// The cgroup namespace and the capabilities are the thread's, and go over to
	// systemd by the execve that ends all others.
	runtime.LockOSThread()
	// Not by clone(2): that would take the creator's cgroup for the root.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := spec.build(); err != nil {
		return err
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	// The signal of the parent's death is the first thread's, and would go with it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl(PR_SET_PDEATHSIG)", err)
	}
	env := []string{
		"container=baton", "PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "LANG=C.UTF-8",
		"SYSTEMD_UNIT_PATH=" + unitPath, "SYSTEMD_GENERATOR_PATH=/run/none", "SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none",
	}
	argv := []string{spec.Program, "--system", "--unit=" + bootTarget, "--show-status=no", "--log-level=info"}
	return os.NewSyscallError("execve", syscall.Exec(spec.Program, argv, env))
}

// mountError names what could not be mounted.
func mountError(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("mount %s: %w", what, err)
}

// build puts the file system together and makes it the root.
func (s *initSpec) build() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return mountError("/ private", err)
	}
	if err := os.MkdirAll(s.New, 0o755); err != nil {
		return err
	}
	root := s.Root
	if root == "" {
		root = "/"
	}
	if err := unix.Mount(root, s.New, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return mountError(root, err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, s.New, unix.AT_RECURSIVE, &attr); err != nil {
		return os.NewSyscallError("mount_setattr (Linux 5.12)", err)
	}
	for _, f := range []func() error{s.fileSystems, s.devices, s.etc, s.units} {
		if err := f(); err != nil {
			return err
		}
	}
	if err := os.Chdir(s.New); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount", err)
	}
	return os.Chdir("/")
}

// mount mounts a file system of its own at a path of the new root.
func (s *initSpec) mount(kind, path string, flags uintptr, options string) error {
	return mountError(path, unix.Mount(kind, s.New+path, kind, flags, options))
}

// fileSystems mounts what is the machine's own.
func (s *initSpec) fileSystems() error {
	const nothing = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := errors.Join(
		s.mount("proc", "/proc", nothing, ""),
		s.mount("sysfs", "/sys", nothing|unix.MS_RDONLY, ""),
		s.mount("cgroup2", "/sys/fs/cgroup", nothing, ""),
	)
	for _, path := range []string{"/run", "/tmp", "/var/tmp", "/var/log", "/var/lib/systemd", "/usr/local/bin"} {
		mode := "mode=755"
		if strings.HasSuffix(path, "tmp") {
			mode = "mode=1777"
		}
		err = errors.Join(err, s.mount("tmpfs", path, unix.MS_NOSUID|unix.MS_NODEV, mode))
	}
	if err != nil {
		return err
	}
	// PID 1 sets sysctls, and SysRq is open to every user.
	for _, path := range []string{"/proc/sys", "/proc/sysrq-trigger"} {
		if _, err := os.Stat(s.New + path); err != nil {
			continue
		}
		if err := unix.Mount(s.New+path, s.New+path, "", unix.MS_BIND, ""); err != nil {
			return mountError(path, err)
		}
		if err := unix.Mount("", s.New+path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|nothing, ""); err != nil {
			return mountError(path+" read-only", err)
		}
	}
	return os.MkdirAll(s.New+"/var/log/journal", 0o755)
}

// devices makes a small /dev: the machine's console is a hole.
func (s *initSpec) devices() error {
	// systemd makes nothing there but links, the journal's socket and the like.
	if err := s.mount("tmpfs", "/dev", unix.MS_NOSUID, "mode=755"); err != nil {
		return err
	}
	for name, from := range map[string]string{
		"null": "null", "zero": "zero", "full": "full", "random": "random", "urandom": "urandom", "tty": "tty", "console": "null",
	} {
		path := s.New + "/dev/" + name
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+from, path, "", unix.MS_BIND, ""); err != nil {
			return mountError(path, err)
		}
	}
	for _, dir := range []string{"pts", "shm"} {
		if err := os.Mkdir(s.New+"/dev/"+dir, 0o755); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(to, s.New+"/dev/"+name); err != nil {
			return err
		}
	}
	return errors.Join(
		s.mount("devpts", "/dev/pts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"),
		s.mount("tmpfs", "/dev/shm", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"))
}

// etc lays a layer over /etc that takes what is written there: a machine's id,
// and units.
func (s *initSpec) etc() error {
	upper, work := s.New+"/run/baton-etc/upper", s.New+"/run/baton-etc/work"
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := s.mount("overlay", "/etc", 0, "lowerdir="+s.New+"/etc,upperdir="+upper+",workdir="+work); err != nil {
		return err
	}
	if err := os.WriteFile(s.New+"/etc/machine-id", nil, 0o444); err != nil { // systemd thinks of one
		return err
	}
	if err := os.MkdirAll(s.New+unitDir, 0o755); err != nil {
		return err
	}
	return s.mount("tmpfs", unitDir, unix.MS_NOSUID|unix.MS_NODEV, "mode=755") // the host's are not for this machine
}

// units writes those that a boot needs.
func (s *initSpec) units() error {
	dir := s.New + stubDir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range theirs() {
		for _, lib := range []string{"/usr/lib", "/lib"} {
			text, err := os.ReadFile(s.New + lib + "/systemd/system/" + name)
			if err != nil {
				continue // dbus, where it is not installed
			}
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
				return err
			}
			break
		}
	}
	for name, text := range stubs() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// dropCapabilities takes those out of the bounding set that are forbidden.
func dropCapabilities() error {
	for _, c := range []uintptr{
		unix.CAP_SYS_TIME, unix.CAP_SYS_MODULE, unix.CAP_SYS_BOOT, unix.CAP_SYS_RAWIO, unix.CAP_WAKE_ALARM,
		unix.CAP_MAC_ADMIN, unix.CAP_MAC_OVERRIDE, unix.CAP_SYSLOG, unix.CAP_AUDIT_CONTROL, // as forbidden has them
	} {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return os.NewSyscallError("prctl(PR_CAPBSET_DROP)", err)
		}
	}
	return nil
}
