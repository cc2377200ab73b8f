"""The real private registry and the real Docker Engine that the tests and the demo use.

Both are Debian's, run in a folder of their own, and are gone when the `with` block ends.
"""

from __future__ import annotations

import base64
import functools
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

from lab import images
from lab.environ import ENVIRON

T = TypeVar("T")

# Each part's programs, with the Debian packages that bring them.
PROGRAMS = {
    "registry": {
        "docker-registry": "docker-registry",
        "htpasswd": "apache2-utils",
        "busybox": "busybox-static",
    },
    "engine": {"dockerd": "docker.io", "containerd": "containerd", "runc": "runc"},
    "instance": {"cloud-init": "cloud-init"},
    "machine": {"cloud-init": "cloud-init", "systemd-analyze": "systemd", "openssl": "openssl"},
    "browser": {"chromium-headless-shell": "chromium-headless-shell"},
}


def missing(needs: Iterable[str], *, path: str = ENVIRON["PATH"]) -> str | None:
    """Say why one of these parts (the keys of PROGRAMS) cannot run here."""
    for need in needs:
        for program, package in PROGRAMS[need].items():
            if not shutil.which(program, path=path):
                return f"no {program}: apt-get install {package}"
        if need == "registry" and not _is_static(images.busybox_path()):
            return "busybox needs shared libraries: apt-get install busybox-static"
        if need in ("engine", "instance", "machine") and (reason := _no_mounts()):
            return reason
        if need == "machine" and (reason := _no_groups()):
            return reason
    return None


@functools.cache
def _no_mounts() -> str | None:
    """Say why no private mount namespace with an overlay of this machine can be had."""
    if os.geteuid() != 0:
        return "not root"
    try:
        subprocess.run(
            [
                "unshare",
                "--mount",
                "--uts",
                "--ipc",
                "--pid",
                "--fork",
                "sh",
                "-ec",
                "mount -t tmpfs probe /mnt; mkdir /mnt/upper /mnt/work;"
                "mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work probe /mnt",
            ],
            env=ENVIRON,
            check=True,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return "no unshare: apt-get install util-linux"
    except subprocess.CalledProcessError as error:
        return f"no mounting here: {error.stderr.strip()}"
    return None


@functools.cache
def _no_groups() -> str | None:
    """Say why no group of processes of one's own can be had, which systemd needs."""
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-ec",
            'mount -t cgroup2 groups /mnt; mkdir "/mnt/probe-$$"; rmdir "/mnt/probe-$$"',
        ],
        env=ENVIRON,
        capture_output=True,
        text=True,
    )
    return f"no control groups here: {done.stderr.strip()}" if done.returncode else None


class Daemon:
    """A server process that ends with this object, or with this program however that ends."""

    # The pipe on the standard input closes even when this program is killed, and then the watcher
    # ends the daemon, if need be by asking again: the first process of a namespace is deaf until it
    # listens. The daemon leads a session, so its id stays its own as long as the watcher is there,
    # and keyboard interrupts do not reach it before its `with` block ends.
    WATCHED = """
        exec 3<&0
        (read -r _ <&3; while kill "$$"; do sleep 0.5; done) &
        exec "$@" 3<&- </dev/null
    """

    def __init__(self, argv: list[str], log: Path, *, inside: Iterable[str] = ()) -> None:
        """Start it; `inside` is a program that makes its surroundings and then runs it."""
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*inside, "sh", "-c", self.WATCHED, "sh", *argv],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=ENVIRON,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], T | None], seconds: float = 20) -> T:
        """Ask `ready` until it answers."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            if (answer := ready()) is not None:
                return answer
            time.sleep(0.01)
        log = self._log.read_text(errors="replace")
        self.stop()
        raise RuntimeError(f"{self._log.stem} did not start:\n{log[-2000:]}")

    def stop(self) -> None:
        """End it, by force where it does not end by itself."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_registry(directory: Path, address: str, **sections: object) -> tuple[Daemon, str]:
    """Start Debian's docker-registry on what `directory` holds; return it and its host.

    `sections` are those of its configuration. They may hold a password.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "registry.json"
    config.touch(mode=0o600)
    config.write_text(
        json.dumps(
            {
                "version": "0.1",
                "log": {"accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(directory / "images")}},
                "http": {"addr": f"{address}:0", "secret": "of one process"},
                **sections,
            },
            ensure_ascii=False,  # it is read as YAML, which knows no pairs of escapes
        ),
        encoding="utf-8",
    )
    log = directory / "docker-registry.log"

    def listens_on() -> str | None:
        for line in log.read_text(errors="replace").splitlines():
            _, found, rest = line.partition('msg="listening on ')
            if found:
                return rest.partition('"')[0].rstrip(",")
        return None

    daemon = Daemon(["docker-registry", "serve", str(config)], log)
    try:
        return daemon, daemon.wait_until(listens_on)
    finally:
        config.unlink()


class Registry:
    """A private container registry: Debian's docker-registry, with logins from an htpasswd file."""

    def __init__(
        self,
        username: str,
        password: str,
        *,
        directory: Path,
        host: str = "127.0.0.1",
        auth: Mapping[str, Any] | None = None,
    ) -> None:
        """Set up the first user; `host` may be any address of 127.0.0.0/8, which Docker trusts.

        `auth` takes the place of the htpasswd file, as in docker-registry's configuration.
        """
        self._auth = auth
        self.username = username
        self._passwords = {username: password}
        self._directory = directory
        self._address = host
        self._htpasswd = directory / "htpasswd"
        self.host = ""

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._write_htpasswd()
        self._daemon, self.host = start_registry(
            self._directory,
            self._address,
            auth=self._auth or {"htpasswd": {"realm": "registry", "path": str(self._htpasswd)}},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.stop()

    @property
    def password(self) -> str:
        """The first user's password as it is now."""
        return self._passwords[self.username]

    def add_user(self, username: str, password: str) -> None:
        """Let one more user in."""
        self._passwords[username] = password
        self._write_htpasswd()

    def change_password(self, new: str) -> None:
        """Refuse the first user's old password from now on, and take the new one."""
        self.add_user(self.username, new)

    def push(self, name: str, tag: str = "latest", image: images.Image | None = None) -> str:
        """Put an image there, else a small one, and return what to call it in a pull."""
        image = image or images.small()
        for blob in (image.layer, image.config):
            upload = self._request("POST", f"/v2/{name}/blobs/uploads/")
            where = f"{upload}{'&' if '?' in upload else '?'}digest={quote(images.digest(blob))}"
            self._request("PUT", where, blob, "application/octet-stream")
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("config.v1+json", image.config),
            "layers": [_descriptor("layer.v1.tar", image.layer)],
        }
        self._request(
            "PUT",
            f"/v2/{name}/manifests/{tag}",
            json.dumps(manifest).encode(),
            "application/vnd.oci.image.manifest.v1+json",
        )
        return f"{self.host}/{name}:{tag}"

    def _request(self, method: str, path: str, body: bytes = b"", kind: str = "") -> str:
        """Send one request as the first user, and return the path to go on with."""
        login = f"{self.username}:{self.password}".encode()
        headers = {
            "Authorization": f"Basic {base64.b64encode(login).decode()}",
            "Content-Type": kind,
        }
        connection = http.client.HTTPConnection(self.host, timeout=10)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        finally:
            connection.close()
        if answer.status not in (201, 202):
            raise RuntimeError(f"the registry answered {answer.status} to {method} {path}: {text}")
        location = urlsplit(answer.getheader("Location", ""))
        return f"{location.path}?{location.query}" if location.query else location.path

    def _write_htpasswd(self) -> None:
        beside = self._htpasswd.with_suffix(".new")
        beside.touch(mode=0o600)
        beside.write_bytes(
            b"".join(
                subprocess.run(
                    ["htpasswd", "-niB", username],
                    input=password.encode(),
                    env=ENVIRON,
                    check=True,
                    capture_output=True,
                ).stdout
                for username, password in self._passwords.items()
            )
        )
        if self._htpasswd.exists():
            # The registry reads the file again only when its time stamp is later than before, and
            # two changes may fall into one tick of the file system's clock.
            later = self._htpasswd.stat().st_mtime_ns + 1_000_000_000
            os.utime(beside, ns=(later, later))
        beside.replace(self._htpasswd)


def _is_static(program: Path) -> bool:
    """Whether it names no dynamic loader, which an ELF file does right behind its headers."""
    with program.open("rb") as file:
        return b"/ld-" not in file.read(4096)


def _descriptor(kind: str, blob: bytes) -> dict[str, str | int]:
    media_type = f"application/vnd.oci.image.{kind}"
    return {"mediaType": media_type, "size": len(blob), "digest": images.digest(blob)}


class EngineError(RuntimeError):
    """The Docker Engine refused a request."""


class PullError(EngineError):
    """The Docker Engine could not pull an image."""


class Engine:
    """A Docker Engine of its own: Debian's dockerd, with the containerd that it starts itself."""

    # As the first process of its own process and mount namespaces dockerd takes every container,
    # shim and mount with it, even when it is killed. The overlays keep to themselves what it would
    # leave behind on this machine: /etc/docker/key.json, /opt/containerd, /run/docker.
    SURROUNDINGS = """
        mount -t tmpfs -o mode=755 tmpfs /run
        for name in etc opt; do
            mkdir /run/$name /run/$name.work
            mount -t overlay overlay /$name \
                -o lowerdir=/$name,upperdir=/run/$name,workdir=/run/$name.work
        done
        [ -z "$ETC" ] || cp -r "$ETC/." /etc/
        exec "$@"
    """

    def __init__(self, directory: Path, *, etc: Path | None = None) -> None:
        """Keep images and containers in `directory`; what `etc` holds it finds in its /etc."""
        self._directory, self._etc = directory, etc
        self.socket = directory / "docker.sock"
        self.group = f"engine-{os.getpid()}-{id(self)}"
        self.driver = ""

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            self._start("overlay2")
        except RuntimeError:
            self._start("vfs")  # slow, but on every file system
        return self

    def __exit__(self, *_: object) -> None:
        self._daemon.stop()
        shutil.rmtree(self._directory / "data", ignore_errors=True)
        # Control groups are in no namespace: one tree in version 2, one a controller in version 1.
        groups = Path("/sys/fs/cgroup")
        for group in [*groups.glob(self.group), *groups.glob(f"*/{self.group}")]:
            for branch in os.walk(group, topdown=False):
                os.rmdir(branch[0])

    def _start(self, driver: str) -> None:
        config = self._directory / "daemon.json"
        config.write_text(
            json.dumps(
                {
                    "hosts": [f"unix://{self.socket}"],
                    "data-root": str(self._directory / "data"),
                    "exec-root": "/run/docker",
                    "pidfile": "/run/docker.pid",
                    "exec-opts": ["native.cgroupdriver=cgroupfs"],
                    "cgroup-parent": f"/{self.group}",
                    "storage-driver": driver,
                    "iptables": False,
                    "ip6tables": False,
                    "bridge": "none",
                    "log-level": "warn",
                    "shutdown-timeout": 1,
                }
            )
        )
        self._daemon = Daemon(
            ["dockerd", "--config-file", str(config)],
            self._directory / "dockerd.log",
            inside=[
                "env",
                f"ETC={self._etc or ''}",
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-ec",
                self.SURROUNDINGS,
                "sh",
            ],
        )
        self._daemon.wait_until(self._answers)
        self.driver = driver

    def _answers(self) -> bool | None:
        try:
            return self._call("GET", "/_ping") == b"OK" or None
        except OSError:
            return None

    def pull(self, image: str, auth: Mapping[str, str] | None = None) -> None:
        """Pull as the ECS agent does, with the login it would send or with none."""
        last = image.rpartition("/")[2]
        if ":" not in last and "@" not in last:
            image += ":latest"  # without a tag the engine would pull all of them
        login = base64.urlsafe_b64encode(json.dumps(auth or {}).encode()).decode()
        try:
            stream = self._call(
                "POST",
                f"/images/create?fromImage={quote(image, safe='')}",
                headers={"X-Registry-Auth": login},
            )
        except EngineError as error:
            raise PullError(str(error)) from None
        for line in stream.splitlines():
            if "error" in (event := json.loads(line)):
                raise PullError(event["error"])

    def run(self, image: str, command: list[str], *, network: str = "none") -> tuple[int, str]:
        """Run a command in a new container, and return its exit code and what it printed."""
        container = self._json(
            "POST",
            "/containers/create",
            {"Image": image, "Cmd": command, "HostConfig": {"NetworkMode": network}},
        )["Id"]
        try:
            self._call("POST", f"/containers/{container}/start")
            code = self._json("POST", f"/containers/{container}/wait")["StatusCode"]
            frames = self._call("GET", f"/containers/{container}/logs?stdout=1&stderr=1")
        finally:
            self._call("DELETE", f"/containers/{container}?force=1&v=1")
        return code, _unframed(frames).decode(errors="replace")

    def remove(self, image: str) -> None:
        """Forget an image, so that the next pull asks the registry again."""
        self._call("DELETE", f"/images/{image}?force=1")

    def _json(self, method: str, path: str, body: object = None) -> Any:
        return json.loads(self._call(method, path, body))

    def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float | None = 60,
    ) -> bytes:
        connection, answer = self._open(method, path, body, headers, timeout=timeout)
        try:
            return answer.read()
        finally:
            connection.close()

    def _open(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float | None = 60,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Ask, and return what is to be read; raise EngineError where the engine refuses."""
        connection = _UnixConnection(self.socket, timeout)
        try:
            connection.request(
                method,
                path,
                None if body is None else json.dumps(body),
                {"Content-Type": "application/json", **(headers or {})},
            )
            answer = connection.getresponse()
            if answer.status >= 400:
                raise EngineError(json.loads(answer.read())["message"])
        except BaseException:
            connection.close()
            raise
        return connection, answer


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, which the standard library has not."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _unframed(frames: bytes) -> bytes:
    """Return what a container printed: each frame is a stream's number, three zeros, a length."""
    output = b""
    while frames:
        end = 8 + int.from_bytes(frames[4:8], "big")
        output += frames[8:end]
        frames = frames[end:]
    return output
