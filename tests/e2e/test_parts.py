"""The real parts do what the end-to-end tests believe of them."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from lab import parts
from lab.agent import Ambiguous, auth_for, read_ecs_config
from lab.instance import Instance, boot
from lab.parts import Engine, PullError, Registry, missing

Launch = Callable[..., Instance]


def status(registry: Registry, username: str, password: str | None) -> int:
    """Ask the registry whether it knows this login, and return the HTTP status."""
    headers = {}
    if password is not None:
        login = base64.b64encode(f"{username}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}"}
    connection = http.client.HTTPConnection(registry.host, timeout=10)
    try:
        connection.request("GET", "/v2/", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def processes_with(word: str) -> list[bytes]:
    """Return the command lines that hold this word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_bytes())
    return [command for command in found if word.encode() in command]


def dockercfg(**registries: str) -> dict[str, str]:
    """Return the agent's two variables for registries with their `user:password`."""
    data = {
        key: {"auth": base64.b64encode(login.encode()).decode()}
        for key, login in registries.items()
    }
    return {"ECS_ENGINE_AUTH_TYPE": "dockercfg", "ECS_ENGINE_AUTH_DATA": json.dumps(data)}


LOGIN = {"username": "ada", "password": "x:y"}


class TestMissing:
    def test_names_the_package(self) -> None:
        """Who sees a test skip can do something about it."""
        reason = missing(["registry"], path="")
        assert reason == "no docker-registry: apt-get install docker-registry"


class TestRegistry:
    def test_lets_in_only_its_user(self, registry: Registry) -> None:
        """A wrong login must be able to fail."""
        assert status(registry, registry.username, None) == 401
        assert status(registry, registry.username, "wrong") == 401
        assert status(registry, registry.username, registry.password) == 200

    def test_changes_the_password(self, registry: Registry, tmp_path: Path) -> None:
        """Twice in a row, because file times are coarse."""
        with Registry("ada", "first", directory=tmp_path) as own:
            for old, new in [("first", "second"), ("second", "third")]:
                assert status(own, "ada", old) == 200
                own.change_password(new)
                assert status(own, "ada", old) == 401
                assert status(own, "ada", new) == 200

    def test_has_several_users_and_addresses(self, registry: Registry, tmp_path: Path) -> None:
        """Two registries may differ in the host alone."""
        with Registry("ada", "a", directory=tmp_path, host="127.0.0.2") as other:
            assert other.host.startswith("127.0.0.2:")
            other.add_user("bob", "b")
            assert status(other, "ada", "a") == status(other, "bob", "b") == 200
            assert status(other, registry.username, registry.password) == 401

    def test_keeps_passwords_to_itself(self, registry: Registry, tmp_path: Path) -> None:
        """Nobody else on the machine can read them."""
        with Registry("ada", "canary-4711", directory=tmp_path):
            files = [path for path in tmp_path.rglob("*") if path.is_file()]
            assert not [path for path in files if b"canary-4711" in path.read_bytes()]
            assert (tmp_path / "htpasswd").stat().st_mode & 0o777 == 0o600

    def test_ends_with_a_killed_program(self, registry: Registry, tmp_path: Path) -> None:
        """No test run leaves a server behind."""
        script = (
            "import sys, time; from pathlib import Path; from lab.parts import Registry\n"
            "with Registry('ada', 'a', directory=Path(sys.argv[1])) as registry:\n"
            "    print(registry.host, flush=True); time.sleep(60)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, tmp_path],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(parts.__file__).parents[1])},
        ) as program:
            assert program.stdout
            host, _, port = program.stdout.readline().strip().partition(":")
            socket.create_connection((host, int(port))).close()
            program.send_signal(signal.SIGKILL)
            # The server holds no pipe of ours: wait for the port.
            for _ in range(500):
                try:
                    socket.create_connection((host, int(port))).close()
                except ConnectionRefusedError:
                    break
                time.sleep(0.01)
            else:
                pytest.fail("the registry is still there")


class TestEngine:
    def test_pulls_only_with_the_login(self, registry: Registry, engine: Engine) -> None:
        """The registry asks and the engine answers as between ECS and a private registry."""
        image = registry.push("lab/align", "3")
        with pytest.raises(PullError, match="no basic auth credentials"):
            engine.pull(image, None)
        with pytest.raises(PullError, match="unauthorized"):
            engine.pull(image, {"username": registry.username, "password": "wrong"})
        engine.pull(image, {"username": registry.username, "password": registry.password})
        engine.remove(image)

    def test_pulls_with_what_the_agent_reads(self, registry: Registry, engine: Engine) -> None:
        """From the file to the running container, with a password full of special characters."""
        image = registry.push("lab/align")
        settings = dockercfg(**{registry.host: f"{registry.username}:{registry.password}"})
        text = "".join(f"{name}={value}\n" for name, value in settings.items())
        engine.pull(image, auth_for(image, read_ecs_config(text.encode())))
        assert engine.run(image, ["/bin/busybox", "echo", "hello"]) == (0, "hello\n")
        engine.remove(image)

    def test_says_that_an_image_is_not_there(self, registry: Registry, engine: Engine) -> None:
        """A typo in a tag is another fault than a wrong password."""
        login = {"username": registry.username, "password": registry.password}
        with pytest.raises(PullError, match=r"not found|manifest unknown"):
            engine.pull(f"{registry.host}/lab/nothing:1", login)

    def test_runs_commands(self, registry: Registry, engine: Engine) -> None:
        """Exit code and both streams come back."""
        image = registry.push("lab/run")
        engine.pull(image, {"username": registry.username, "password": registry.password})
        code, output = engine.run(image, ["sh", "-c", "echo one; echo two >&2; exit 3"])
        assert code == 3
        assert sorted(output.splitlines()) == ["one", "two"]
        assert engine.run(image, ["true"], network="host") == (0, "")
        engine.remove(image)

    @pytest.mark.usefixtures("engine")
    def test_leaves_nothing_behind(self, registry: Registry, tmp_path: Path) -> None:
        """Not even after an exception: no process, mount, control group or folder."""
        places = (
            "/etc/docker/key.json",
            "/opt/containerd",
            "/run/containerd",
            "/run/docker",
            "/run/docker.pid",
            "/var/lib/docker",
        )
        before = [path for path in places if Path(path).exists()]
        with suppress(PullError), Engine(tmp_path) as own:
            image = registry.push("lab/run")
            own.pull(image, {"username": registry.username, "password": registry.password})
            own.run(image, ["true"])
            assert processes_with(str(tmp_path))
            own.pull(f"{registry.host}/lab/nothing")
        assert [path for path in places if Path(path).exists()] == before
        assert str(tmp_path) not in Path("/proc/mounts").read_text()
        assert not list(Path("/sys/fs/cgroup").glob(f"**/{own.group}"))
        assert not processes_with(str(tmp_path))
        assert not (tmp_path / "data").exists()


class TestAgentReadsTheFile:
    @pytest.mark.parametrize(
        ("text", "variables"),
        [
            (b"", {}),
            (b"\n\n  A=b  \nnothing\n#C=d\n", {"A": "b", "#C": "d"}),
            (b"A=1\nA=2\n", {"A": "2"}),
            (b"A=b=c=\n", {"A": "b=c="}),
            (b"A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
            (b"A=\"x\"\nB='y'\n", {"A": '"x"', "B": "'y'"}),
            (b"export A=1\nB =2\nC= 3\n", {"export A": "1", "B ": "2", "C": " 3"}),
            (b"\xef\xbb\xbfA=1\n", {"\ufeffA": "1"}),
            (b"A={}B=2\n", {"A": "{}B=2"}),
            (b'A={\n  "x": 1\n}\n', {"A": "{"}),
            (b"A=\xff\n", {"A": "\ufffd"}),
            (b"A=1\x1c\n", {"A": "1\x1c"}),
        ],
    )
    def test_line_by_line(self, text: bytes, variables: dict[str, str]) -> None:
        """No quotes, comments, exports or continuation lines; the last of equal names wins."""
        assert read_ecs_config(text) == variables


HUB = (
    "nginx",
    "lab/align",
    "docker.io/lab/align",
    "index.docker.io/lab/align",
    "registry-1.docker.io/lab/align",
)


class TestAgentPicksTheLogin:
    @pytest.mark.parametrize(
        ("key", "image"),
        [
            *(("https://index.docker.io/v1/", image) for image in HUB),
            *(("index.docker.io/v1/", image) for image in HUB),
            ("registry.gitlab.com", "registry.gitlab.com/group/project:1"),
            ("https://registry.gitlab.com", "registry.gitlab.com/group/project"),
            ("http://registry.gitlab.com/", "registry.gitlab.com/group/project"),
            ("https://registry.gitlab.com/v2/", "registry.gitlab.com/group/project"),
            ("registry.gitlab.com/group/project", "registry.gitlab.com/group/project:1"),
            ("registry.gitlab.com/group/project", "registry.gitlab.com/other"),
            ("ghcr.io", "ghcr.io/lab/align:3"),
            ("ghcr.io", "ghcr.io/lab/align@sha256:0123"),
            ("https://ghcr.io/", "ghcr.io/lab/align"),
            ("registry.example.com:5050", "registry.example.com:5050/align"),
            ("https://registry.example.com:5050/", "registry.example.com:5050/align:3"),
            ("https://registry.example.com:443", "registry.example.com:443/align"),
            ("localhost:5000", "localhost:5000/align"),
            ("localhost", "localhost/align"),
        ],
    )
    def test_matches(self, key: str, image: str) -> None:
        """What the agent takes for the image's registry."""
        assert auth_for(image, dockercfg(**{key: "ada:x:y"})) == LOGIN

    @pytest.mark.parametrize(
        ("key", "image"),
        [
            *(
                (key, image)
                for image in HUB
                for key in (
                    "https://index.docker.io/v1",
                    "docker.io",
                    "https://docker.io",
                    "index.docker.io",
                    "registry-1.docker.io",
                    "https://registry-1.docker.io/v2/",
                    "hub.docker.com",
                    "registry.hub.docker.com",
                )
            ),
            ("HTTPS://ghcr.io", "ghcr.io/lab/align"),
            ("GHCR.IO", "ghcr.io/lab/align"),
            (" ghcr.io", "ghcr.io/lab/align"),
            ("ghcr.io ", "ghcr.io/lab/align"),
            ("registry.example.com:5050", "registry.example.com/align"),
            ("https://registry.example.com:443", "registry.example.com/align"),
            ("localhost:5000", "127.0.0.1:5000/align"),
            ("myhost", "myhost/align"),
            ("example.com", "registry.example.com/align"),
        ],
    )
    def test_does_not_match(self, key: str, image: str) -> None:
        """Spellings that users try, and that never work."""
        assert auth_for(image, dockercfg(**{key: "ada:x:y"})) is None

    def test_longer_path_wins(self) -> None:
        """By plain prefix, so that a name that only begins alike matches too."""
        config = dockercfg(**{"r.io": "host:p", "r.io/a": "a:p", "r.io/a/b": "ab:p"})
        users = {
            image: (auth_for(image, config) or {})["username"]
            for image in ("r.io/x", "r.io/a/x", "r.io/a/b", "r.io/a/bc", "r.io/abc")
        }
        assert users == {
            "r.io/x": "host",
            "r.io/a/x": "a",
            "r.io/a/b": "ab",
            "r.io/a/bc": "ab",
            "r.io/abc": "a",
        }

    @pytest.mark.parametrize(
        "keys", [["r.io/a", "r.io/bb"], ["r.io", "https://r.io"], ["r.io", "http://r.io"]]
    )
    def test_random_answers_are_no_answers(self, keys: list[str]) -> None:
        """Where two starts of one agent could differ, the oracle refuses to answer."""
        config = dockercfg(**{key: f"user{number}:p" for number, key in enumerate(keys)})
        with pytest.raises(Ambiguous):
            auth_for("r.io/a/x", config)
        assert auth_for("r.io/a/x", dockercfg(**dict.fromkeys(keys, "ada:x:y"))) == LOGIN

    def test_longest_key_settles_the_order(self) -> None:
        """Two path keys are sure where the longest of them fits."""
        config = dockercfg(**{"r.io/a": "short:p", "r.io/bb": "ada:x:y"})
        assert auth_for("r.io/bb/x", config) == LOGIN

    @pytest.mark.parametrize(
        "data",
        [
            "",
            "x",
            "[]",
            "'{}'",
            '{"ghcr.io": {"auth": "YWRhOng6eQ=="},}',
            '{"ghcr.io": NaN}',
            '{"ghcr.io": {"auth": "YWRhOng6eQ=="}, "r.io": {"auth": true}}',
            '{"ghcr.io": {"auth": "YWRhOng6eQ=="}, "r.io": "YWRhOng6eQ=="}',
            '{"auths": {"ghcr.io": {"auth": "YWRhOng6eQ=="}}}',
            "null",
            "{}",
            '{"ghcr.io": {"auth": "YWRhOng6eQ"}}',
            '{"ghcr.io": {"auth": "YWRh"}}',
        ],
    )
    def test_bad_data_is_no_login(self, data: str) -> None:
        """The agent starts all the same, and pulls without a login."""
        config = {"ECS_ENGINE_AUTH_TYPE": "dockercfg", "ECS_ENGINE_AUTH_DATA": data}
        assert auth_for("ghcr.io/lab/align", config) is None

    def test_one_value_that_is_no_login_spares_the_others(self) -> None:
        """Of a wrong type it costs all of them, but base64 is looked at one by one."""
        data = '{"ghcr.io": {"AUTH": "YWRhOng6eQ==", "email": "x"}, "r.io": {"auth": "%"}}'
        config = {"ECS_ENGINE_AUTH_TYPE": "dockercfg", "ECS_ENGINE_AUTH_DATA": data}
        assert auth_for("ghcr.io/lab/align", config) == LOGIN

    @pytest.mark.parametrize(
        ("kind", "login"),
        [("docker", LOGIN), (" docker ", LOGIN), ('"docker"', None), ("Docker", None), ("", None)],
    )
    def test_type_docker_holds_the_login_as_it_is(
        self, kind: str, login: dict[str, str] | None
    ) -> None:
        """The type is one of two words."""
        config = {
            "ECS_ENGINE_AUTH_TYPE": kind,
            "ECS_ENGINE_AUTH_DATA": json.dumps(
                {"ghcr.io": {"username": "ada", "password": "x:y", "unknown": 1, "email": None}}
            ),
        }
        assert auth_for("ghcr.io/lab/align", config) == login


ARCHIVE = b"""\
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="==MINE=="

--==MINE==
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/sh
set -e
cat /opt/one /opt/two
echo "$GREETING from $(hostname)"
echo said to the console > /dev/console
echo and this > /dev/console
systemctl --no-block try-restart ecs.service
systemctl daemon-reload
poweroff
umask 077
mkdir -p /etc/ecs
echo ECS_CLUSTER=batch >> /etc/ecs/ecs.config
useradd --create-home somebody
sleep 60 &

--==MINE==
Content-Type: text/cloud-config; charset="us-ascii"

#cloud-config
write_files:
- {path: /opt/one, content: "first part\\n", permissions: "0600"}

--==MINE==
Content-Type: text/cloud-config; charset="us-ascii"

#cloud-config
merge_how: list(append)+dict(no_replace,recurse_list)
write_files:
- {path: /opt/two, content: "second part\\n"}
runcmd:
- [touch, /opt/three]

--==MINE==
Content-Type: text/cloud-boothook; charset="us-ascii"

#!/bin/sh
touch /opt/four

--==MINE==--
"""


class TestInstance:
    def test_runs_an_archive(self, launch: Launch) -> None:
        """Scripts, several cloud-configs and boothooks all take effect, as on EC2."""
        machine = launch(environ={"GREETING": "hello"})
        done = machine.boot(ARCHIVE)
        assert done.ok, done.console
        for text in (
            "first part\nsecond part\nhello from ip-10-0-0-1\n",
            "said to the console\nand this\n",
        ):
            assert text in done.console
        assert done.systemctl == [
            ["--no-block", "try-restart", "ecs.service"],
            ["daemon-reload"],
            ["poweroff"],
        ]
        assert (done.ecs_config, done.ecs_config_mode) == (b"ECS_CLUSTER=batch\n", 0o600)
        assert done.read("/opt/one") == b"first part\n"
        assert machine.read("/opt/three") == machine.read("/opt/four") == b""
        assert machine.read("/opt/five") is None
        changed = {file.path: file.mode for file in done.tree()}
        assert changed["/opt/one"] == 0o600
        assert "/var/log/cloud-init.log" in changed
        assert b"Traceback" not in (machine.read("/var/log/cloud-init.log") or b"")

    def test_leaves_this_machine_alone(self, launch: Launch, tmp_path: Path) -> None:
        """What a root script on the instance does stays there."""

        def state() -> list[object]:
            made = (
                "/etc/cloud/cloud.cfg",
                "/etc/ecs",
                "/etc/hostname",
                "/etc/shadow",
                "/home/somebody",
                "/opt/one",
                "/run/cloud-init",
                "/run/systemctl.calls",
                "/usr/bin/systemctl",
                "/usr/sbin/poweroff",
                "/var/lib/cloud",
                "/var/log/cloud-init.log",
            )
            return [
                socket.gethostname(),
                socket.if_nameindex(),
                *((path, Path(path).exists() and Path(path).stat().st_mtime_ns) for path in made),
            ]

        before = state()
        machine = launch()
        assert machine.boot(ARCHIVE).ok
        # Root as it is there, it shares the network and the clock with this machine.
        refused = machine.run(["sh", "-c", 'ip link add x0 type dummy || date -s "$(date)"'])
        assert refused.returncode != 0
        assert state() == before
        assert str(tmp_path) not in Path("/proc/mounts").read_text()

    def test_failing_script_shows(self, launch: Launch, tmp_path: Path) -> None:
        """A script's exit code is not lost."""
        done = boot(b"#!/bin/sh\necho before it failed\nexit 3\n", directory=tmp_path / "one")
        assert not done.ok
        assert "scripts-user" in "".join(done.errors)
        assert "before it failed" in done.console

    def test_time_out_is_an_error(self, launch: Launch) -> None:
        """A script that blocks the boot does not block the tests."""
        machine = launch()
        with pytest.raises(TimeoutError, match="cloud-init init"):
            machine.boot(b"#cloud-boothook\n#!/bin/sh\nsleep 600\n", timeout=3)
        assert machine.run(["true"]).returncode == 0, "one can still look around"

    def test_has_given_files_and_a_loopback(self, launch: Launch) -> None:
        """Emulators of AWS services listen there; their address comes with the environment."""

        class Hello(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"hello from this side\n")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        with http.server.HTTPServer(("127.0.0.1", 0), Hello) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                done = launch(
                    environ={"URL": f"http://127.0.0.1:{server.server_port}/"},
                    files={"etc/ecs/ecs.config": b"ECS_CLUSTER=batch\n"},
                ).boot(
                    b"#!/usr/bin/python3\nimport os, urllib.request\n"
                    b"print(urllib.request.urlopen(os.environ['URL']).read().decode())\n"
                )
            finally:
                server.shutdown()
                thread.join()
        assert "hello from this side\n" in done.console, done.console
        assert (done.ecs_config, done.ecs_config_mode) == (b"ECS_CLUSTER=batch\n", 0o644)
        assert "/etc/ecs/ecs.config" not in {file.path for file in done.tree()}

    def test_lives_on_after_the_boot(self, launch: Launch) -> None:
        """A timer's later run and a reboot happen on the same machine."""
        machine = launch()
        assert machine.run(["test", "-e", "/etc/ecs"]).returncode == 1
        machine.boot(b"#!/bin/sh\necho booted >> /opt/boots\n")
        machine.write("/opt/given", b"text")
        done = machine.run(
            ["sh", "-c", "cat /opt/given; echo $X; systemctl start x; exit 4"], {"X": "1"}
        )
        assert (done.returncode, done.stdout) == (4, "text1\n")
        assert machine.systemctl() == [["start", "x"]]
        again = machine.boot(b"#!/bin/sh\necho booted >> /opt/boots\n")
        assert again.ok
        assert again.systemctl == []
        assert machine.read("/opt/boots") == b"booted\n", "once per instance, not once per boot"
