"""An EC2 instance with the real systemd: units, timers, the order of a boot, and its end.

`lab.instance` runs cloud-init's stages by hand, which is quicker; here Debian's own units run
them, with stand-ins for the two services of the ECS-optimized image that matter, docker and ecs.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from lab.environ import ENVIRON
from lab.instance import CLOUD_CONFIG, EMPTY, META_DATA, MOUNTS, Boot, Instance, errors

# As in the image's amazon-ecs-init package, but for the program, and for the limit of five starts
# in ten seconds, which no test can wait for.
ECS = """\
[Unit]
Description=Amazon Elastic Container Service - container agent
Wants=docker.service
PartOf=docker.service
After=docker.service cloud-final.service
StartLimitIntervalSec=0
[Service]
Type=simple
Restart=on-failure
RestartSec=10s
RestartPreventExitStatus=5
EnvironmentFile=-/var/lib/ecs/ecs.config
EnvironmentFile=-/etc/ecs/ecs.config
ExecStart=/usr/libexec/amazon-ecs-init start
"""

# Keeps what each start of the agent was given.
AGENT = """\
#!/bin/sh
umask 077
mkdir -p /run/agent
env > /run/agent/new
mv /run/agent/new /run/agent/$(date +%s%N)
echo The agent has started. > /dev/console
exec sleep infinity
"""

DOCKER = """\
[Unit]
Description=Docker Application Container Engine
[Service]
ExecStart=/bin/sleep infinity
"""

TARGET = """\
[Unit]
Description=What an instance starts
Wants=systemd-journald.service docker.service ecs.service
Wants=cloud-init-local.service cloud-init.service cloud-config.service cloud-final.service
"""

UNITS = "usr/lib/systemd/system"

# A console that is a terminal, a group of processes that is a root for systemd, and systemd in the
# end. It may reboot, which ends its namespaces alone.
FIRST_PROCESS = (
    MOUNTS
    + """
touch root/dev/console
mount --bind "$2" root/dev/console
mount -t tmpfs -o mode=755 run root/run
mkdir groups
mount -t cgroup2 groups groups
mkdir "groups/$3"
echo 1 > "groups/$3/cgroup.procs"
echo ready
read -r _
exec unshare --cgroup sh -ec '
    mount -t cgroup2 groups root/sys/fs/cgroup
    exec setpriv --bounding-set=-net_admin,-sys_time,-sys_module,-sys_rawio \
        env -i container=lab PATH="$PATH" \
        chroot root /lib/systemd/systemd --unit=instance.target --show-status=0
' </dev/null >/dev/null 2>&1
"""
)

# An empty group of processes stays until somebody removes it. The last ones may yet be ending.
REMOVE_GROUP = """
mount -t cgroup2 groups /mnt
cd /mnt
[ -d "$1" ] || exit 0
while grep -q "populated 1" "$1/cgroup.events"; do sleep 0.01; done
find "$1" -depth -type d -exec rmdir {} +
"""


class Machine(Instance):
    """An instance whose first process is systemd. It boots once, and may power itself off."""

    first_process = FIRST_PROCESS
    empty: Mapping[str, int] = {
        **EMPTY,
        "etc/systemd/system": 0o755,
        **{
            f"{UNITS}/{name}.target.wants": 0o755
            for name in ("sysinit", "sockets", "timers", "local-fs", "multi-user")
        },
    }
    own: Mapping[str, str] = {
        # To the console as well, as cloud-init does by itself.
        "/etc/cloud/cloud.cfg": CLOUD_CONFIG.replace('">> /', '"| tee -a /'),
        "/etc/fstab": "",
        "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
        "/etc/systemd/system/instance.target": TARGET,
        "/etc/systemd/system/docker.service": DOCKER,
        "/etc/systemd/system/ecs.service": ECS,
        "/usr/libexec/amazon-ecs-init": AGENT,
    }

    def _arguments(self) -> list[str]:
        # A terminal, because systemd wants one for its console, and a thread that reads it, because
        # a full one would hold the machine up.
        self._master, self._console = os.openpty()
        self._printed_yet = bytearray()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._group = f"batchreg-{os.getpid()}-{self._console}"
        return [os.ttyname(self._console), self._group]

    def _open_console(self) -> None:
        pass  # it is there before the machine

    def _listen(self) -> None:
        with suppress(OSError):  # the last one has closed it
            while text := os.read(self._master, 1 << 16):
                self._printed_yet += text

    def boot(self, user_data: bytes, *, timeout: float = 120) -> Boot:
        """Start the machine, until cloud-init has ended or the machine has.

        Raises TimeoutError where neither happens within `timeout` seconds.
        """
        variables = " ".join(f'"{name}={value}"' for name, value in self._environ.items())
        manager = f"[Manager]\nDefaultEnvironment={variables}\n"
        for path, text in {
            "/etc/systemd/system.conf.d/environment.conf": manager.encode(),
            "/var/lib/cloud/seed/nocloud/user-data": user_data,
            "/var/lib/cloud/seed/nocloud/meta-data": META_DATA.encode(),
        }.items():
            self.write(path, text)
        started = time.monotonic()
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self.wait_until(
            lambda: self.ended or self.show("cloud-final", "ActiveState") in ("active", "failed"),
            timeout,
        )
        seconds = time.monotonic() - started
        changed = () if self.ended else tuple(self.tree())
        return Boot(
            errors=errors(self.read("/run/cloud-init/result.json")),
            console=self.console,
            systemctl=[],
            seconds=seconds,
            files={file.path: file for file in changed},
            changed=changed,
        )

    @property
    def console(self) -> str:
        """All that the console has shown."""
        return self._printed_yet.decode(errors="replace")

    @property
    def ended(self) -> bool:
        """Tell whether the machine has powered itself off."""
        return self._process.poll() is not None

    @property
    def agents(self) -> list[dict[str, str]]:
        """Return the environment of each start of the agent, first to last."""
        found = []
        for path in sorted(self.run(["find", "/run/agent", "-name", "[0-9]*"]).stdout.split()):
            lines = (self.read(path) or b"").decode().splitlines()
            found.append(dict(line.split("=", 1) for line in lines if "=" in line))
        return found

    def show(self, unit: str, key: str) -> str:
        """Return a property of a unit."""
        return self.run(["systemctl", "show", "--value", f"--property={key}", unit]).stdout.strip()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Hold everything on the machine, as where its host suspends it."""
        switch = self._mounted / "groups" / self._group / "cgroup.freeze"
        switch.write_text("1")
        try:
            yield
        finally:
            switch.write_text("0")

    def wait_until(self, true: Callable[[], bool], seconds: float = 30) -> None:
        """Wait for something; TimeoutError where it takes longer."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds} s; the console:\n{self.console[-2000:]}")
            time.sleep(0.05)

    def _end(self) -> None:
        self._process.kill()  # and all that runs on it
        super()._end()
        subprocess.run(
            ["unshare", "--mount", "sh", "-ec", REMOVE_GROUP, "sh", self._group],
            env=ENVIRON,
            check=True,
            timeout=20,
        )
        self._listener.join()
        os.close(self._master)
