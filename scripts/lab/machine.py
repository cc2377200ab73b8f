"""An EC2 instance with the real systemd: units, timers, the order of a boot, and its end.

`lab.instance` runs cloud-init's stages by hand, which is quicker; here Debian's own units run
them, with stand-ins for the two services of the ECS-optimized image that matter, docker and ecs.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

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

# Keeps what each start of the agent was given, registers the instance under one ARN for life, serves
# what it knows of itself, and takes the tasks that a test puts into a folder. As the agent does, it
# goes through a proxy to whatever NO_PROXY does not name, and nothing listens on the one of a parked
# instance (amazon-ecs-agent, agent/httpclient and agent/wsclient).
AGENT = """\
#!/usr/bin/python3
import http.server, json, os, signal, sys, threading, time, uuid
from pathlib import Path

def say(text):
    Path("/dev/console").write_text(f"The agent has {text}.\\n")

def reaches(host):
    exempt = os.environ.get("NO_PROXY", "").split(",")
    return "HTTP_PROXY" not in os.environ or host in exempt

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
os.umask(0o077)
Path("/run/agent").mkdir(exist_ok=True)
started = time.time_ns()
Path("/run/agent/new").write_text("".join(f"{k}={v}\\n" for k, v in os.environ.items()))
Path("/run/agent/new").rename(f"/run/agent/{started}")
say("started")

domain = os.environ.get("AWS_REGION", "us-east-1") + ".amazonaws.com"
while not all(map(reaches, (f"ecs.{domain}", f"ec2.{domain}", "169.254.169.254", "/var/run/docker.sock"))):
    time.sleep(1)
if os.path.exists("/etc/ecs/no-route-to-ecs"):
    signal.pause()
known = Path("/var/lib/ecs/arn")
if not known.exists():
    known.parent.mkdir(parents=True, exist_ok=True)
    known.write_text(f"arn:aws:ecs:us-east-1:123456789012:container-instance/lab/{uuid.uuid4().hex}")
metadata = json.dumps({"Cluster": "lab", "ContainerInstanceArn": known.read_text()}).encode()

class Introspection(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/v1/metadata" else 404)
        self.end_headers()
        self.wfile.write(metadata)
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("localhost", 51678), Introspection)
threading.Thread(target=server.serve_forever, daemon=True).start()
say("registered")

connected = reaches(f"ecs-a-1.{domain}")
Path("/run/tasks").mkdir(exist_ok=True)
while True:
    for task in sorted(Path("/run/tasks").glob("*.task")) if connected else ():
        image = task.read_text()
        task.with_suffix(".taken").write_text(json.dumps({"image": image, "agent": started}))
        task.unlink()
        say(f"taken {image}")
    time.sleep(0.05)
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


_numbers = count()


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

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # The agent listens on localhost. Machines share the network, but each has its own address.
        number = next(_numbers)
        address = f"127.{64 + number % 64}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
        self.own = {**self.own, "/etc/hosts": f"{address} localhost\n"}

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
        found = self.run(["find", "/run/agent", "-name", "[0-9]*"]).stdout.split()
        return [self._agent(path) for path in sorted(found)]

    def _agent(self, path: str) -> dict[str, str]:
        lines = (self.read(path) or b"").decode().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    @property
    def arn(self) -> str:
        """Return the ARN under which the agent has registered the instance, empty if it has not."""
        return (self.read("/var/lib/ecs/arn") or b"").decode()

    def submit(self, image: str) -> None:
        """Let a task with this image wait for the agent; an image is asked for once."""
        name = f"/run/tasks/{time.time_ns()}"
        self.write(name, image.encode())
        self.run(["mv", name, f"{name}.task"])

    def taken(self) -> dict[str, dict[str, str]]:
        """Return {image: the environment of the agent that took its task}."""
        found = {}
        for path in self.run(["find", "/run/tasks", "-name", "*.taken"]).stdout.split():
            task = json.loads(self.read(path) or b"")
            found[task["image"]] = self._agent(f"/run/agent/{task['agent']}")
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
