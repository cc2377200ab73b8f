"""An EC2 instance's first boot, on this machine: Debian's real cloud-init runs the user data.

The instance is an overlay of this machine's root file system in namespaces of its own. It shares
the network, so that it reaches servers on the loopback address, and nothing else.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from lab.environ import ENVIRON

# What namespaces do not keep apart, root on the instance may not touch: this machine's network,
# clock, kernel modules and power.
FORBIDDEN = "-net_admin,-sys_time,-sys_module,-sys_rawio,-sys_boot"

ECS_CONFIG = "/etc/ecs/ecs.config"

STAGES = (
    ["cloud-init", "init", "--local"],
    ["cloud-init", "init"],
    ["cloud-init", "modules", "--mode=config"],
    ["cloud-init", "modules", "--mode=final"],
)

# Of the modules those that run what user data brings; none that would set this machine's network,
# users, keys, packages or disks.
CLOUD_CONFIG = """\
datasource_list: [NoCloud]
datasource: {NoCloud: {fs_label: null}}
network: {config: disabled}
users: []
cloud_init_modules: [bootcmd, write-files]
cloud_config_modules: [runcmd]
cloud_final_modules: [write-files-deferred, scripts-vendor, scripts-per-once, scripts-per-boot,
  scripts-per-instance, scripts-user, final-message]
system_info: {distro: debian}
# To the file alone: with the usual `tee` the last lines may come after cloud-init has ended.
output: {all: ">> /var/log/cloud-init-output.log"}
log_cfgs:
- |
  [loggers]
  keys=root
  [handlers]
  keys=stderr,file
  [formatters]
  keys=plain
  [logger_root]
  level=DEBUG
  handlers=stderr,file
  [handler_stderr]
  class=StreamHandler
  level=WARNING
  formatter=plain
  args=(sys.stderr,)
  [handler_file]
  class=FileHandler
  level=DEBUG
  formatter=plain
  args=('/var/log/cloud-init.log', 'a', 'UTF-8')
  [formatter_plain]
  format=%(asctime)s - %(filename)s[%(levelname)s]: %(message)s
"""

META_DATA = "instance-id: i-0123456789abcdef0\nlocal-hostname: ip-10-0-0-1\n"

# There is no systemd to talk to. What would power the machine off is a link to systemctl, as it is
# on a real one.
SYSTEMCTL = """\
#!/bin/sh
[ "${0##*/}" = systemctl ] || set -- "${0##*/}" "$@"
printf '%s\\0' "$@" '' >> /run/systemctl.calls
"""
POWER = ("halt", "poweroff", "reboot", "shutdown")

# What this machine has gathered there is none of the instance's business.
EMPTY = {
    "etc/cloud": 0o755,
    "home": 0o755,
    "root": 0o700,
    "run": 0o755,
    "tmp": 0o1777,
    "var/lib/cloud": 0o755,
    "var/log": 0o755,
    "var/tmp": 0o1777,
}

# What the first process of the namespaces begins with. Between two mounts it waits for the image.
# Relative paths, because mount options know no quoting. What would reach past the namespaces (/sys,
# /proc/sys, SysRq) is read-only or void.
MOUNTS = """
cd "$1"
mount -t tmpfs -o mode=755 instance .
cd "$1"
mkdir image changes work root
echo mounted
read -r _
mount -t overlay -o lowerdir=image:/,upperdir=changes,workdir=work instance root
mount -t proc proc root/proc
mount --bind root/proc/sys root/proc/sys
mount -o remount,bind,ro root/proc/sys
[ ! -e root/proc/sysrq-trigger ] || mount --bind /dev/null root/proc/sysrq-trigger
mount -t sysfs -o ro sysfs root/sys
mount -t tmpfs -o mode=755 dev root/dev
for name in null zero full random urandom tty; do
    touch root/dev/$name
    mount --bind /dev/$name root/dev/$name
done
mkdir -m 1777 root/dev/shm
ln -s /proc/self/fd root/dev/fd
ln -s fd/0 root/dev/stdin
ln -s fd/1 root/dev/stdout
ln -s fd/2 root/dev/stderr
"""

# Then it waits for the end: all is gone when its standard input closes.
FIRST_PROCESS = (
    MOUNTS
    + """
mkfifo -m 600 root/dev/console
echo ready
read -r _
"""
)


class File(NamedTuple):
    """A file on the instance, with its path from the root and its permissions."""

    path: str
    data: bytes
    mode: int


@dataclass(frozen=True)
class Boot:
    """What a boot did."""

    errors: tuple[str, ...]
    console: str = field(repr=False)
    systemctl: list[list[str]]
    seconds: float
    files: Mapping[str, File] = field(repr=False)
    changed: tuple[File, ...] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether cloud-init found no fault, which includes every script's exit code."""
        return not self.errors

    @property
    def ecs_config(self) -> bytes | None:
        """The ECS agent's configuration."""
        return self.read(ECS_CONFIG)

    @property
    def ecs_config_mode(self) -> int | None:
        """Its permissions."""
        file = self.files.get(ECS_CONFIG)
        return file.mode if file else None

    def read(self, path: str) -> bytes | None:
        """Return a file that was given to the instance or that the boot made or changed."""
        file = self.files.get(_absolute(path))
        return file.data if file else None

    def tree(self) -> Iterator[File]:
        """Yield every file that the boot made or changed."""
        return iter(self.changed)


class Instance:
    """A machine that looks new, to boot and to run commands on until the `with` block ends."""

    first_process = FIRST_PROCESS
    empty: Mapping[str, int] = EMPTY
    own: Mapping[str, str] = {"/usr/bin/systemctl": SYSTEMCTL, "/etc/cloud/cloud.cfg": CLOUD_CONFIG}

    def __init__(
        self,
        *,
        directory: Path,
        environ: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Make a machine image with `files`; `environ` is for everything that runs on it."""
        self._directory = directory.resolve()
        self._environ = {**ENVIRON, **(environ or {})}
        self._files = {_absolute(path): data for path, data in (files or {}).items()}

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._console = -1
        self._process = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig=KILL",
                "unshare",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-ec",
                self.first_process,
                "sh",
                str(self._directory),
                *self._arguments(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=ENVIRON,
            start_new_session=True,
            text=True,
            bufsize=1,
        )
        try:
            self._expect("mounted")
            task = f"/proc/{self._process.pid}/task/{self._process.pid}"
            self._first = Path(f"{task}/children").read_text().strip()
            # The namespaces' own view of the folder, for which this machine has no mount.
            self._mounted = Path(f"/proc/{self._process.pid}/root{self._directory}")
            self._make_image(self._mounted / "image")
            assert self._process.stdin
            self._process.stdin.write("image is there\n")
            self._expect("ready")
            self._open_console()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def boot(self, user_data: bytes, *, timeout: float = 120) -> Boot:
        """Start the machine with this user data; a second time is a reboot.

        Raises TimeoutError where it takes longer than `timeout` seconds, which leaves the machine
        as it is, with the stage still running.
        """
        self.run(["sh", "-c", "rm -rf /run/*"])
        self.write("/var/lib/cloud/seed/nocloud/user-data", user_data)
        self.write("/var/lib/cloud/seed/nocloud/meta-data", META_DATA.encode())
        logged = len(self.read("/var/log/cloud-init-output.log") or b"")
        started = time.monotonic()
        output = b""
        for stage in STAGES:
            left = started + timeout - time.monotonic()
            try:
                done = self._enter(stage, timeout=left)
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"{' '.join(stage)}: not done after {timeout} s") from None
            output += done.stdout + done.stderr
        output += self._start_services(started + timeout - time.monotonic())
        seconds = time.monotonic() - started
        output += (self.read("/var/log/cloud-init-output.log") or b"")[logged:]
        changed = tuple(self.tree())
        given = [file for path in self._files if (file := self._file(path))]
        return Boot(
            errors=errors(self.read("/run/cloud-init/result.json")),
            console=(output + self._printed()).decode(errors="replace"),
            systemctl=self.systemctl(),
            seconds=seconds,
            files={file.path: file for file in [*given, *changed]},
            changed=changed,
        )

    def _start_services(self, timeout: float) -> bytes:
        """Do what systemd would: run the new services that a script has started; return the output."""
        output = b""
        for call in self.systemctl():
            for name in call[call.index("start") + 1 :] if "start" in call else ():
                unit = (self.read(f"/etc/systemd/system/{name}") or b"").decode()
                for command in re.findall("(?m)^ExecStart=(.*)$", unit):
                    done = self._enter(command.split(), timeout=timeout)
                    output += done.stdout + done.stderr
        return output

    def run(
        self,
        argv: list[str],
        environ: Mapping[str, str] | None = None,
        *,
        stdin: bytes = b"",
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine."""
        done = self._enter(argv, environ, stdin, timeout)
        return subprocess.CompletedProcess(
            argv,
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def read(self, path: str) -> bytes | None:
        """Return a file, following links as the machine does."""
        done = self._enter(["cat", "--", _absolute(path)])
        return done.stdout if done.returncode == 0 else None

    def write(self, path: str, data: bytes) -> None:
        """Create or overwrite a file."""
        path = _absolute(path)
        done = self._enter(["sh", "-ec", 'mkdir -p "${1%/*}/"; cat > "$1"', "sh", path], stdin=data)
        if done.returncode:
            raise OSError(f"{path}: {done.stderr.decode(errors='replace')}")

    def systemctl(self) -> list[list[str]]:
        """Return the calls of systemctl since the last boot began."""
        return _calls(self.read("/run/systemctl.calls") or b"")

    def tree(self) -> Iterator[File]:
        """Yield every file that differs from the machine image."""
        changes = self._mounted / "changes"
        for folder, _, names in os.walk(changes):
            for name in sorted(names):
                path = Path(folder, name)
                with suppress(FileNotFoundError):  # gone meanwhile
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode):  # not links, and not a deleted file's mark
                        yield File(
                            f"/{path.relative_to(changes)}",
                            path.read_bytes(),
                            stat.S_IMODE(status.st_mode),
                        )

    @property
    def mounted_root(self) -> Path:
        """The machine's root file system as this machine sees it, for reading without a process."""
        return self._mounted / "root"

    def _arguments(self) -> list[str]:
        """Return what the first process gets besides its folder."""
        return []

    def _open_console(self) -> None:
        # Read and write, so that a writer never has to wait for a reader.
        self._console = os.open(self._mounted / "root/dev/console", os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._console, fcntl.F_SETPIPE_SZ, 1 << 20)

    def _file(self, path: str) -> File | None:
        data = self.read(path)
        mode = self.run(["stat", "--dereference", "--format=%a", path]).stdout
        return None if data is None else File(path, data, int(mode, 8))

    def _make_image(self, image: Path) -> None:
        for name, mode in self.empty.items():
            folder = image / name
            folder.mkdir(parents=True)
            folder.chmod(mode)
            os.setxattr(folder, "trusted.overlay.opaque", b"y")
        own = {path: text.encode() for path, text in self.own.items()}
        for path, data in {**own, **self._files}.items():
            file = image / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(0o755 if data.startswith(b"#!") else 0o644)
        for name in POWER if "/usr/bin/systemctl" in own else ():
            (image / "usr/sbin").mkdir(exist_ok=True)
            (image / "usr/sbin" / name).symlink_to("/usr/bin/systemctl")

    def _enter(
        self,
        argv: list[str],
        environ: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[bytes]:
        # To files, because a pipe would make us wait for whatever runs on in the background.
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            done = subprocess.run(
                [
                    "nsenter",
                    f"--target={self._first}",
                    "--mount",
                    "--uts",
                    "--ipc",
                    "--pid",
                    "setpriv",
                    f"--bounding-set={FORBIDDEN}",
                    "chroot",
                    str(self._directory / "root"),
                    *argv,
                ],
                env={**self._environ, **(environ or {})},
                check=False,
                timeout=timeout,
                input=stdin,
                stdout=output,
                stderr=errors,
            )
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(argv, done.returncode, output.read(), errors.read())

    def _printed(self) -> bytes:
        """Return what has been written to /dev/console since the last time."""
        text = b""
        with suppress(BlockingIOError):
            while True:
                text += os.read(self._console, 1 << 20)
        return text

    def _expect(self, word: str) -> None:
        assert self._process.stdout
        if self._process.stdout.readline() != f"{word}\n":
            raise RuntimeError("the instance's file system could not be mounted")

    def _end(self) -> None:
        if self._console >= 0:
            os.close(self._console)
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def boot(
    user_data: bytes,
    *,
    directory: Path,
    environ: Mapping[str, str] | None = None,
    files: Mapping[str, bytes] | None = None,
    timeout: float = 120,
) -> Boot:
    """Boot a new machine once, and throw it away."""
    with Instance(directory=directory, environ=environ, files=files) as instance:
        return instance.boot(user_data, timeout=timeout)


def _absolute(path: str) -> str:
    return "/" + path.lstrip("/")


def errors(result: bytes | None) -> tuple[str, ...]:
    if result is None:
        return ("cloud-init did not come to its end",)
    return tuple(json.loads(result)["v1"]["errors"])


def _calls(recorded: bytes) -> list[list[str]]:
    """Take the recorder's file apart: arguments end with a zero byte, calls with an empty one."""
    return [call.decode(errors="replace").split("\0") for call in recorded.split(b"\0\0") if call]
