"""What the program on the instance does, run there as it is: stripped, by a plain interpreter."""

import ast
import base64
import contextlib
import itertools
import json
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from secrets_server import (
    DENIED,
    NO_ROLE,
    REGION,
    ROLE_KEYS,
    THROTTLED,
    USER_KEYS,
    Keys,
    SecretsServer,
    authorization,
    certificate,
    drip,
    fail,
    hang,
    reset,
    slow,
    text,
)

from batchreg import registry_login
from batchreg.registry_login import (
    HUB,
    Refused,
    SecretsManager,
    login,
    put,
    read_all,
    registry_key,
    sign,
)
from batchreg.render import userdata

PASSWORD = 'p"a\\s$s {{w}}: é😀\n=#%'
RESTART = "--no-block try-restart ecs.service"
ROLE_AWAY = {
    "AWS_ACCESS_KEY_ID": USER_KEYS.access_key,
    "AWS_SECRET_ACCESS_KEY": USER_KEYS.secret_key,
}


def secret(user: str = "ada", password: str = PASSWORD, url: str = "ghcr.io") -> str:
    return json.dumps({"username": user, "password": password, "registry_url": url})


def as_ecs_init_reads(content: bytes) -> dict[bytes, bytes]:
    """Return the settings in an ecs.config, as ecs-init's docker.go finds them."""
    lines = [line.strip() for line in content.strip().split(b"\n")]
    return dict(line.split(b"=", 1) for line in lines if b"=" in line)


def agent_logins(content: bytes) -> dict[str, str]:
    """Return {registry key: user:password} as the agent finds it in an ecs.config."""
    found = as_ecs_init_reads(content)
    assert found[b"ECS_ENGINE_AUTH_TYPE"] == b"dockercfg"
    auths = json.loads(found[b"ECS_ENGINE_AUTH_DATA"])
    return {key: base64.b64decode(entry["auth"]).decode() for key, entry in auths.items()}


@dataclass(frozen=True)
class Run:
    """One run of the program, ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


class Instance:
    """A directory as the machine, with a systemctl that only writes down how it was called."""

    def __init__(self, directory: Path, server: SecretsServer) -> None:
        self.directory, self.server = directory, server
        self.config = directory / "etc" / "ecs" / "ecs.config"
        self.config.parent.mkdir(parents=True)
        self.script = directory / "registry_login.py"
        self.script.write_text(userdata.script())
        systemctl = directory / "bin" / "systemctl"
        systemctl.parent.mkdir()
        systemctl.write_text('#!/bin/sh\necho "$*" >>"$0.calls"\nenv >>"$0.environment"\n')
        systemctl.chmod(0o755)
        self.calls_file = Path(f"{systemctl}.calls")

    def command(
        self,
        *secret_ids: str,
        deadline: float = 30,
        python: str = sys.executable,
        options: tuple[str, ...] = (),
    ) -> list[str]:
        return [
            python,
            str(self.script),
            f"--region={REGION}",
            f"--endpoint-url={self.server.url}",
            f"--ecs-config={self.config}",
            f"--deadline={deadline}",
            *(f"--secret-id={name}" for name in secret_ids),
            *options,
        ]

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{self.directory}/bin:/usr/bin:/bin",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.server.url,
            **more,
        }

    def start(self, command: list[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environment(env),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(
        self,
        *secret_ids: str,
        env: Mapping[str, str] | None = None,
        shell: str = "",
        **choices: object,
    ) -> Run:
        """Run the program to its end; `shell` are commands that come before it in its process."""
        command = self.command(*secret_ids, **choices)
        if shell:
            command = ["/bin/sh", "-c", f'{shell}; exec "$@"', "sh", *command]
        start = time.monotonic()
        with self.start(command, env or {}) as process:
            out, err = process.communicate(timeout=60)
        return Run(process.returncode, out, err, time.monotonic() - start)

    @property
    def systemctl_calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    @property
    def logins(self) -> dict[str, str]:
        return agent_logins(self.config.read_bytes())

    @property
    def scratch_files(self) -> list[Path]:
        return [path for path in self.config.parent.iterdir() if path != self.config]


@pytest.fixture
def server() -> Iterator[SecretsServer]:
    secrets: dict[str, str | bytes] = {"ghcr": secret(), "hub": secret("bob", "b", "docker.io")}
    with SecretsServer(secrets) as running:
        yield running
    assert running.errors == []


@pytest.fixture
def instance(tmp_path: Path, server: SecretsServer) -> Instance:
    return Instance(tmp_path, server)


@pytest.fixture
def read(server: SecretsServer, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Read secrets as the program does, in this process, where waiting takes no time."""
    for name in ("AWS_ACCESS_KEY_ID", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
    reader = SecretsManager(REGION, server.url)
    return lambda *ids: read_all(ids, reader.read, 30, sleep=lambda seconds: None)


def interpreters() -> Iterator[str]:
    """Find this Python and, where there is one that works, the instance's own version."""
    yield sys.executable
    old = shutil.which("python3.9")
    if old and subprocess.run([old, "-c", ""], capture_output=True).returncode == 0:
        yield old


# The server of these tests


@pytest.mark.parametrize("keys", [ROLE_KEYS, USER_KEYS], ids=["token", "no token"])
def test_the_test_server_accepts_what_boto3_sends(server, keys):
    """A server that refused AWS's own client would judge ours by the wrong rules."""
    client = boto3.client(
        "secretsmanager",
        region_name=REGION,
        endpoint_url=server.url,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
    )
    try:
        assert client.get_secret_value(SecretId="ghcr")["SecretString"] == secret()
    finally:
        client.close()


@pytest.mark.parametrize(
    "env",
    [
        {**ROLE_AWAY, "AWS_SECRET_ACCESS_KEY": "wrong"},
        {**ROLE_AWAY, "AWS_ACCESS_KEY_ID": "AKIANOBODY"},
        {**ROLE_AWAY, "AWS_SESSION_TOKEN": "wrong"},
    ],
    ids=["secret key", "access key", "token"],
)
def test_wrong_keys_are_refused(instance, env):
    """Else the signatures in the other tests would prove nothing."""
    run = instance.run("ghcr", env=env, deadline=0.1)
    assert (run.code, instance.config.exists()) == (1, False)
    assert re.search("HTTP 400 (InvalidSignature|UnrecognizedClient)Exception$", run.lines[-1])


# A good run


@pytest.mark.parametrize("python", [*interpreters()])
def test_one_secret_becomes_one_login(instance, python):
    """The reason why the program exists, on this Python and on the instance's."""
    run = instance.run("ghcr", python=python)
    assert (run.code, instance.logins) == (0, {"ghcr.io": "ada:" + PASSWORD})


def test_two_secrets_become_two_logins(instance):
    """One compute environment may pull from several registries."""
    assert instance.run("ghcr", "hub").code == 0
    assert instance.logins == {"ghcr.io": "ada:" + PASSWORD, HUB: "bob:b"}


def test_each_secret_costs_one_request(instance, server):
    """Secrets Manager charges by the request and throttles a fleet."""
    instance.run("ghcr", "hub")
    assert (server.count("ghcr"), server.count("hub"), server.secret_requests) == (1, 1, 2)


def test_the_role_costs_three_requests(instance, server):
    """The keys serve all secrets of a run; the metadata service throttles too."""
    instance.run("ghcr", "hub")
    assert [server.count(place) for place in ("token", "role", "keys")] == [1, 1, 1]


def test_a_secret_named_twice_is_read_once(instance, server):
    """Repeating an option is a slip that must not become a conflict."""
    assert instance.run("ghcr", "ghcr").code == 0
    assert server.count("ghcr") == 1


@pytest.mark.parametrize(
    "env",
    [
        ROLE_AWAY,
        {
            "AWS_ACCESS_KEY_ID": ROLE_KEYS.access_key,
            "AWS_SECRET_ACCESS_KEY": ROLE_KEYS.secret_key,
            "AWS_SESSION_TOKEN": ROLE_KEYS.token,
        },
    ],
    ids=["no token", "token"],
)
def test_keys_in_the_environment_replace_the_role(instance, server, env):
    """Whoever sets the standard variables may have no metadata service at all."""
    assert instance.run("ghcr", env=env).code == 0
    assert server.metadata_requests == 0


def test_the_endpoint_may_come_from_the_environment(instance, server):
    """AWS_ENDPOINT_URL works as in the SDKs."""
    command = [part for part in instance.command("ghcr") if "--endpoint-url" not in part]
    with instance.start(command, {"AWS_ENDPOINT_URL": server.url}) as process:
        process.communicate(timeout=60)
    assert (process.returncode, server.secret_requests) == (0, 1)


@pytest.mark.parametrize(
    ("region", "suffix"), [("eu-central-1", "amazonaws.com"), ("cn-north-1", "amazonaws.com.cn")]
)
def test_the_endpoint_is_the_regions_own(instance, server, region, suffix):
    """China's has another ending. A proxy sees where the program wants to go."""
    command = [
        *instance.command()[:2],
        "--secret-id=ghcr",
        "--deadline=0.1",
        f"--region={region}",
        f"--url-suffix={suffix}",
        f"--ecs-config={instance.config}",
    ]
    with instance.start(command, {**ROLE_AWAY, "https_proxy": server.url}) as process:
        process.communicate(timeout=60)
    assert {(request.method, request.path) for request in server.requests} == {
        ("CONNECT", f"secretsmanager.{region}.{suffix}:443")
    }


def test_metadata_are_never_asked_through_a_proxy(instance, server):
    """A proxy would answer with its own role, if at all."""
    instance.run("ghcr", env={"http_proxy": server.url}, deadline=0.1)
    paths = [request.path for request in server.requests if request.method != "POST"]
    assert all(path.startswith("/latest/") for path in paths)
    assert paths


def test_arguments_may_come_from_a_file(instance):
    """The user data keeps them in one, for the boot and for the timer."""
    command = instance.command("ghcr", "hub", options=("--setting=ECS_IMAGE_PULL_BEHAVIOR=once",))
    arguments = instance.directory / "args"
    arguments.write_text("\n".join(command[2:]) + "\n")
    with instance.start([*command[:2], f"@{arguments}"], {}) as process:
        process.communicate(timeout=60)
    assert as_ecs_init_reads(instance.config.read_bytes())[b"ECS_IMAGE_PULL_BEHAVIOR"] == b"once"


def test_a_good_run_says_one_line(instance):
    """The console tells which registries have a login, and nothing else."""
    run = instance.run("ghcr", "hub")
    assert (run.out, run.lines) == (
        "",
        [f"batchreg: {instance.config} has the logins for ghcr.io, {HUB}"],
    )


def test_no_python_warns_about_the_program(instance):
    """A deprecation today is a boot failure on some image of tomorrow."""
    assert instance.run("ghcr", env={"PYTHONWARNINGS": "error"}).code == 0


def test_a_first_login_restarts_the_agent_without_waiting(instance):
    """A blocking start or restart in user data deadlocks (amazon-ecs-agent #1707)."""
    instance.run("ghcr")
    assert instance.systemctl_calls == [RESTART]


def test_a_missing_systemctl_fails_nothing(instance):
    """The logins are in place all the same."""
    shutil.rmtree(instance.directory / "bin")
    assert instance.run("ghcr", env={"PATH": "/nonexistent"}).code == 0


# What passes when one waits


def test_a_role_that_is_not_there_yet_is_awaited(instance, server):
    """Right after boot the metadata service answers 404 for the role."""
    server.play("role", NO_ROLE, NO_ROLE)
    assert instance.run("ghcr").code == 0
    assert (server.count("role"), server.count("ghcr")) == (3, 1)


@pytest.mark.parametrize("place", ["token", "role", "keys"])
@pytest.mark.parametrize(
    "step",
    [
        text(500, "<html>"),
        text(503, ""),
        text(200, "<html>busy</html>\n <b>"),
        text(200, '{"Code": "Failed"}'),
        reset,
    ],
    ids=["500", "503", "HTML", "failed", "reset"],
)
def test_a_metadata_service_that_stumbles_is_asked_again(read, server, place, step):
    """It serves every container on the machine, and boots with it."""
    server.play(place, step)
    assert read("ghcr") == ({"ghcr": secret()}, {})


def test_slow_metadata_are_awaited(instance, server):
    """A second and a half is slow, not dead."""
    server.play("keys", slow(1.5))
    assert instance.run("ghcr").code == 0
    assert server.count("keys") == 1


def test_silent_metadata_are_asked_again(instance, server):
    """One lost packet must not use up the whole boot."""
    server.play("token", hang)
    run = instance.run("ghcr")
    assert run.code == 0
    assert run.seconds > 2  # its time-out


def test_the_wait_names_its_reason_once(read, server, capsys):
    """The console shows what an instance waits for, not the same line a hundred times."""
    server.play("role", NO_ROLE, NO_ROLE)
    read("ghcr")
    assert capsys.readouterr().err.splitlines() == [
        "batchreg: waiting for ghcr: no role on this instance (metadata answers HTTP 404)"
    ]


def test_access_that_is_granted_late_is_awaited(instance, server):
    """A new role takes seconds to spread through AWS."""
    server.play("ghcr", DENIED, DENIED)
    assert instance.run("ghcr").code == 0
    assert server.count("ghcr") == 3


def test_access_denied_asks_for_fresh_keys(read, server):
    """The keys at hand may be what is wrong."""
    server.play("ghcr", DENIED)
    read("ghcr")
    assert server.count("keys") == 2


def test_throttling_is_waited_out(read, server):
    """A whole fleet boots in one moment."""
    server.play("ghcr", *[THROTTLED, fail(429, "TooManyRequestsException")] * 3)
    assert read("ghcr") == ({"ghcr": secret()}, {})


@pytest.mark.parametrize(
    "step",
    [
        fail(500, "InternalServiceError"),
        fail(400, "com.amazon.coral.service#ExpiredTokenException"),
        text(503, "<html>Service Unavailable</html>"),
        text(200, "<html>Please log in</html>"),
        text(200, "[]"),
        text(200, "null"),
        text(200, ""),
        text(200, '{"SecretString": "', missing=20),
        text(400, '{"message": "no type"}'),
        text(400, '{"__type": 5}'),
        reset,
    ],
    ids=[
        "500",
        "expired",
        "503 HTML",
        "HTML",
        "list",
        "null",
        "empty",
        "cut off",
        "no type",
        "odd type",
        "reset",
    ],
)
def test_a_bad_answer_is_not_the_last_word(read, server, step):
    """Whatever stands between the instance and AWS may pass."""
    server.play("ghcr", step)
    assert read("ghcr") == ({"ghcr": secret()}, {})


def test_an_endpoint_that_comes_up_late_is_awaited(tmp_path):
    """The VPC endpoint may be younger than the instance."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        late = SecretsServer({"ghcr": secret()}, port=placeholder.getsockname()[1])
    instance = Instance(tmp_path, late)
    with instance.start(instance.command("ghcr"), ROLE_AWAY) as process:
        assert "Connection refused" in process.stderr.readline()
        with late:
            process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_silent_endpoint_fails_at_the_deadline(instance, server):
    """A packet filter that drops everything must not hold the boot for ever."""
    server.play("ghcr", then=hang)
    run = instance.run("ghcr", deadline=1)
    assert (run.code, run.lines[-1]) == (1, "batchreg: ghcr: timed out")
    assert run.seconds < 10


def test_an_answer_byte_by_byte_ends_with_the_program(instance, server):
    """No time-out sees it, so that an alarm ends the attempt; it does not cost the other login."""
    server.play("hub", then=drip)
    run = instance.run("hub", "ghcr", deadline=1, options=("-q",))
    assert (run.code, list(instance.logins)) == (1, ["ghcr.io"])
    assert run.lines[-1] == "batchreg: hub: no answer in time; a login that works stays"
    assert run.seconds < 20


def test_a_program_that_was_stopped_while_it_waited_uses_what_it_has(instance, server):
    """An alarm that went off meanwhile is for requests alone."""
    server.play("hub", then=THROTTLED)
    with instance.start(instance.command("hub", "ghcr", deadline=6), {}) as process:
        assert "waiting for hub" in process.stderr.readline()
        time.sleep(0.3)  # into the pause, or the next one
        process.send_signal(signal.SIGSTOP)
        time.sleep(13)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)
    assert (process.returncode, list(instance.logins)) == (1, ["ghcr.io"])


def test_a_request_that_hangs_is_sent_again(server):
    """One lost connection must not use up the whole boot."""
    server.play("ghcr", hang)
    reader = SecretsManager(REGION, server.url)
    reader.keys = {
        "AccessKeyId": USER_KEYS.access_key,
        "Token": None,
        "SecretAccessKey": USER_KEYS.secret_key,
    }
    with pytest.raises(TimeoutError):
        reader.read("ghcr", 1)
    assert reader.read("ghcr", 1) == secret()


@pytest.mark.parametrize("ahead", [600, -600])
def test_a_clock_that_is_off_costs_one_request(instance, server, ahead):
    """Boot comes before the time is set, and AWS refuses signatures of another time."""
    server.clock_ahead = ahead
    assert instance.run("ghcr").code == 0
    assert server.count("ghcr") == 2


# TLS


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("tls")
    return {
        "right": certificate(directory / "right", "IP:127.0.0.1"),
        "wrong": certificate(directory / "wrong", "DNS:elsewhere.example"),
    }


def test_a_certificate_that_fits_is_trusted(tmp_path, certificates):
    """SSL_CERT_FILE adds a private authority, as for other programs."""
    with SecretsServer({"ghcr": secret()}, certificate=certificates["right"]) as server:
        env = {**ROLE_AWAY, "SSL_CERT_FILE": str(certificates["right"])}
        assert Instance(tmp_path, server).run("ghcr", env=env).code == 0


@pytest.mark.parametrize(
    ("shown", "trusted"),
    [("wrong", "wrong"), ("right", "wrong")],
    ids=["another name", "another issuer"],
)
def test_a_certificate_that_does_not_fit_fails(tmp_path, certificates, shown, trusted):
    """Whoever sits between must not learn the session token or plant a login."""
    with SecretsServer({"ghcr": secret()}, certificate=certificates[shown]) as server:
        instance = Instance(tmp_path, server)
        env = {**ROLE_AWAY, "SSL_CERT_FILE": str(certificates[trusted])}
        run = instance.run("ghcr", env=env, deadline=0.5)
    assert (run.code, instance.config.exists(), server.requests) == (1, False, [])
    assert re.match(r"batchreg: ghcr: .*CERTIFICATE_VERIFY_FAILED", run.lines[-1])


# What no waiting changes


@pytest.mark.parametrize(
    "step",
    [
        fail(400, "ResourceNotFoundException"),
        fail(400, "com.amazonaws.secretsmanager#InvalidRequestException", "marked for deletion"),
        fail(400, "InvalidParameterException"),
        fail(400, "ValidationException"),
        fail(400, "DecryptionFailure"),
    ],
    ids=["missing", "deleted", "parameter", "validation", "decryption"],
)
def test_what_no_retry_changes_fails_at_once(instance, server, step):
    """An instance that cannot ever pull should not idle for minutes before it says so."""
    server.play("ghcr", then=step)
    run = instance.run("ghcr", deadline=60)
    assert (run.code, len(run.lines), server.count("ghcr")) == (1, 1, 1)
    assert run.seconds < 20


def test_a_missing_secret_is_named(instance):
    """The line on the console is all that people see of the instance."""
    assert instance.run("gone").lines == ["batchreg: gone: HTTP 400 ResourceNotFoundException"]


NOT_A_LOGIN = {
    "not JSON": "ada:secret",
    "empty": "",
    "binary": b'{"username": "ada", "password": "x"}',
    "list": '["ada", "x"]',
    "string": '"ada"',
    "number": "5",
    "null": "null",
    "no username": '{"password": "x"}',
    "no password": '{"username": "ada"}',
    "empty username": secret(user=""),
    "empty password": secret(password=""),
    "username is a number": '{"username": 5, "password": "x"}',
    "username is null": '{"username": null, "password": "x"}',
    "username is a list": '{"username": ["ada"], "password": "x"}',
    "password is a number": '{"username": "ada", "password": 5}',
    "password is null": '{"username": "ada", "password": null}',
    "password is a list": '{"username": "ada", "password": ["x"]}',
    "registry_url is a number": '{"username": "ada", "password": "x", "registry_url": 5}',
    "registry_url is a list": '{"username": "ada", "password": "x", "registry_url": ["ghcr.io"]}',
    "colon in username": secret(user="ada:x"),
    "NUL in username": secret(user="ada\0"),
    "NUL in password": secret(password="x\0"),
    "half a surrogate": '{"username": "ada", "password": "\\ud800"}',
    "nested too deep": "[" * 100_000,
    "a number too long": "9" * 10_000,
}


@pytest.mark.parametrize("value", [*NOT_A_LOGIN.values()], ids=NOT_A_LOGIN)
def test_a_secret_that_is_no_login_is_refused(value):
    """The agent drops every registry's login over one bad entry, and says nothing."""
    with pytest.raises(Refused):
        login(value if isinstance(value, str) else None)


@pytest.mark.parametrize("kind", ["not JSON", "binary", "no username", "list"])
def test_a_broken_secret_writes_nothing(instance, server, kind):
    """Better no line than one that looks like a login."""
    server.secrets["ghcr"] = NOT_A_LOGIN[kind]
    run = instance.run("ghcr")
    assert (run.code, len(run.lines)) == (1, 1)
    assert run.lines[0].startswith("batchreg: ghcr: it ")
    assert not instance.config.exists()
    assert instance.systemctl_calls == []


@pytest.mark.parametrize("field", ["username", "password"])
def test_a_missing_field_is_named(field):
    """People mistype keys more often than values."""
    fields = {"username": "ada", "password": "x"}
    del fields[field]
    with pytest.raises(Refused, match=f"it has no '{field}'"):
        login(json.dumps(fields))


@pytest.mark.parametrize("more", [{}, {"registry_url": None}, {"registry_url": ""}])
def test_no_registry_url_means_docker_hub(more):
    """As it does for `docker login`."""
    assert login(json.dumps({"username": "ada", "password": "x", **more}))[0] == HUB


# ecs.config

AUTHS = {"ghcr.io": {"auth": "YWRhOng="}}
TYPE = b"ECS_ENGINE_AUTH_TYPE=dockercfg\n"
OURS = TYPE + b'ECS_ENGINE_AUTH_DATA={"ghcr.io":{"auth":"YWRhOng="}}\n'
OLD = b'ECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA={"quay.io":{"auth":"b2xkOm9sZA=="}}\n'

FILES = {
    "empty": (b"", b""),
    "foreign": (b"ECS_CLUSTER=blue\n", b"ECS_CLUSTER=blue\n"),
    "no final newline": (b"ECS_CLUSTER=blue", b"ECS_CLUSTER=blue\n"),
    "CRLF": (b"A=1\r\nB=2\r\n", b"A=1\r\nB=2\r\n"),
    "CRLF, no final newline": (b"A=1\r\nB=2", b"A=1\r\nB=2\n"),
    "ours in CRLF": (b"A=1\r\n" + OLD.replace(b"\n", b"\r\n"), b"A=1\r\n"),
    "ours": (OLD, b""),
    "ours, no final newline": (OLD[:-1], b""),
    "ours several times": (OLD + b"A=1\n" + OLD + OLD, b"A=1\n"),
    "before, between, after": (
        b"B=2\n" + OLD.replace(b"\nECS", b"\nA=1\nECS") + b"C=3\nB=1\n",
        b"B=2\nA=1\nC=3\nB=1\n",
    ),
    "docker instead of dockercfg": (b"ECS_ENGINE_AUTH_TYPE=docker\nA=1\n", b"A=1\n"),
    "ours, indented": (b"  ECS_ENGINE_AUTH_DATA={}\nA=1\n", b"A=1\n"),
    "ours with blanks": (b"ECS_ENGINE_AUTH_TYPE = dockercfg\nA=1\n", b"A=1\n"),
    "a name that begins like ours": (b"ECS_ENGINE_AUTH_TYPES=1\n", b"ECS_ENGINE_AUTH_TYPES=1\n"),
    "our name as a value": (b"A=ECS_ENGINE_AUTH_TYPE=x\n", b"A=ECS_ENGINE_AUTH_TYPE=x\n"),
    "comments and blank lines": (b"# A=1\n\n\n  B = 2 \n\n", b"# A=1\n\n\n  B = 2 \n\n"),
    "a blank line before ours": (b"A=1\n\n" + OLD[:-1], b"A=1\n\n"),
    "not UTF-8": (b"A=\xff\xfe\0\n", b"A=\xff\xfe\0\n"),
    "BOM": (b"\xef\xbb\xbfA=1\n", b"\xef\xbb\xbfA=1\n"),
}


@pytest.mark.parametrize(("old", "foreign"), [*FILES.values()], ids=FILES)
def test_foreign_lines_stay_as_they_are(tmp_path, old, foreign):
    """AWS Batch appends ECS_CLUSTER to the same file: losing it loses the instance."""
    path = tmp_path / "ecs.config"
    path.write_bytes(old)
    assert put(path, AUTHS, {}, True)
    assert path.read_bytes() == foreign + OURS


LINES = st.lists(
    st.sampled_from(
        [
            b"ECS_CLUSTER=blue",
            b"A=1",
            b"A=2\r",
            b"",
            b" ",
            b"# x",
            b"A",
            b"=",
            b"\xff=\xfe",
            b"  B = 2 ",
            b"ECS_ENGINE_AUTH_TYPE=docker",
            b"ECS_ENGINE_AUTH_TYPE=dockercfg",
            b"ECS_ENGINE_AUTH_TYPE",
            b"ECS_ENGINE_AUTH_TYPE= dockercfg",
            b"ECS_ENGINE_AUTH_TYPE =dockercfg",
            b"ECS_ENGINE_AUTH_DATA=null",
            b"ECS_ENGINE_AUTH_DATA=[1]",
            b"ECS_ENGINE_AUTH_DATA={",
            *OURS.splitlines(),
            *OLD.splitlines(),
        ]
    )
)


@given(lines=LINES, newline=st.booleans(), complete=st.booleans())
@settings(max_examples=300, deadline=None)
@example(
    lines=[b"ECS_ENGINE_AUTH_TYPE =dockercfg", OURS.splitlines()[1]], newline=True, complete=True
)
@example(lines=[b"A=1", b"", b"ECS_ENGINE_AUTH_TYPE=docker"], newline=False, complete=True)
def test_any_file_ends_up_with_our_login_and_all_foreign_lines(
    tmp_path_factory, lines, newline, complete
):
    """Every file that other tools may leave: the agent reads our lines, the others survive."""
    path = tmp_path_factory.getbasetemp() / "any.config"
    old = b"\n".join(lines) + b"\n" * newline
    path.write_bytes(old)
    path.chmod(0o600)
    put(path, AUTHS, {}, complete)
    content = path.read_bytes()

    def foreign(content: bytes) -> list[bytes]:
        lines = content.removesuffix(b"\n").split(b"\n") if content else []
        return [line for line in lines if not line.strip().startswith(b"ECS_ENGINE_AUTH")]

    assert foreign(content) == foreign(old)
    assert agent_logins(content)["ghcr.io"] == "ada:x"
    assert content.endswith(b"\n")
    before = path.stat()
    assert not put(path, AUTHS, {}, complete)
    assert (path.stat().st_ino, path.read_bytes()) == (before.st_ino, content)


def test_logins_of_another_format_are_not_kept(tmp_path):
    """One entry that the agent cannot read costs it all the others."""
    path = tmp_path / "ecs.config"
    path.write_bytes(
        b"ECS_ENGINE_AUTH_TYPE=docker\n"
        b'ECS_ENGINE_AUTH_DATA={"quay.io":{"username":"a","password":"b"}}\n'
    )
    put(path, AUTHS, {}, False)
    assert path.read_bytes() == OURS


def test_logins_that_came_one_by_one_are_no_change_later(tmp_path):
    """Which secret was late at boot must not restart the agent at the next refresh."""
    path, late = tmp_path / "ecs.config", {"a.example": {"auth": "YTpi"}}
    put(path, AUTHS, {}, False)
    assert put(path, late, {}, False)
    assert not put(path, {**late, **AUTHS}, {}, True)


def test_an_absent_file_is_made(tmp_path):
    """The image brings none; its directory may be missing too."""
    path = tmp_path / "etc" / "ecs" / "ecs.config"
    assert put(path, AUTHS, {}, True)
    assert path.read_bytes() == OURS


def test_settings_are_lines_of_ours(tmp_path):
    """They stand beside the login, unless the file has them: then somebody has decided already."""
    path = tmp_path / "ecs.config"
    path.write_bytes(b"P=theirs\nA=1\n")
    put(path, AUTHS, {"P": "ours", "Q": "ours"}, True)
    assert path.read_bytes() == b"P=theirs\nA=1\n" + OURS + b"Q=ours\n"


def test_a_symbolic_link_stays_one(tmp_path):
    """Somebody's own arrangement of files is not ours to undo."""
    (tmp_path / "ecs.config").symlink_to("real")
    (tmp_path / "real").write_bytes(b"A=1\n")
    put(tmp_path / "ecs.config", AUTHS, {}, True)
    assert (tmp_path / "ecs.config").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"A=1\n" + OURS


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("old", [b"", b"A=1\n", OLD, OURS], ids=["empty", "foreign", "old", "ours"])
def test_only_the_owner_can_read_the_file(tmp_path, old):
    """Whatever the mode was before: now there is a password in it."""
    path = tmp_path / "ecs.config"
    path.write_bytes(old)
    path.chmod(0o644)
    put(path, AUTHS, {}, True)
    assert mode(path) == 0o600


def test_mending_the_mode_needs_no_restart(tmp_path):
    """The agent has read the same text already."""
    path = tmp_path / "ecs.config"
    path.write_bytes(OURS)
    path.chmod(0o644)
    assert not put(path, AUTHS, {}, True)


def test_a_new_file_is_the_owners_alone(instance):
    """Also where the umask would allow more."""
    instance.run("ghcr", shell="umask 0")
    assert mode(instance.config) == 0o600


def test_a_full_disk_leaves_the_old_file(instance):
    """A truncated ecs.config would cost the instance its cluster."""
    old = b"A=1\n" * 5_000
    instance.config.write_bytes(old)
    run = instance.run("ghcr", shell="ulimit -f 8")  # blocks: writes end with EFBIG
    assert (run.code, run.lines) == (
        1,
        [f"batchreg: {instance.config}: it stays as it was: File too large"],
    )
    assert (instance.config.read_bytes(), instance.scratch_files) == (old, [])
    assert instance.systemctl_calls == []


def test_an_unexpected_error_is_one_line(instance):
    """A traceback could quote a secret."""
    instance.config.mkdir()
    run = instance.run("ghcr")
    assert (run.code, run.lines) == (
        1,
        [f"batchreg: {instance.config}: it stays as it was: Is a directory"],
    )


# The second run


@pytest.mark.parametrize("more", [b"", b"ECS_CLUSTER=blue\n"], ids=["alone", "foreign line after"])
def test_unchanged_secrets_touch_nothing(instance, more):
    """Every half hour, on every instance: no write, no restart of the agent."""
    instance.run("ghcr", "hub")
    with instance.config.open("ab") as file:
        file.write(more)
    instance.calls_file.unlink()
    before, content = instance.config.stat(), instance.config.read_bytes()
    run = instance.run("ghcr", "hub")
    after = instance.config.stat()
    assert (run.code, run.err, instance.systemctl_calls) == (0, "", [])
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert instance.config.read_bytes() == content


@pytest.mark.parametrize("ids", [("ghcr", "hub"), ("hub", "ghcr")])
def test_the_order_of_the_secrets_is_no_change(instance, ids):
    """A restart of the agent for nothing is a disturbance."""
    instance.run("ghcr", "hub")
    instance.calls_file.unlink()
    instance.run(*ids)
    assert instance.systemctl_calls == []


def test_a_changed_password_restarts_the_agent_once(instance, server):
    """The agent reads ecs.config only as it starts (amazon-ecs-agent #423)."""
    instance.run("ghcr")
    instance.calls_file.unlink()
    server.secrets["ghcr"] = secret(password="new")
    instance.run("ghcr")
    assert (instance.systemctl_calls, instance.logins) == ([RESTART], {"ghcr.io": "ada:new"})


def test_a_secret_no_longer_asked_for_goes(instance):
    """A login that was withdrawn must not live on."""
    instance.run("ghcr", "hub")
    instance.run("hub")
    assert instance.logins == {HUB: "bob:b"}


# One broken secret of two


@pytest.mark.parametrize(
    ("value", "problem"),
    [("oops", "it is not JSON text like"), (None, "HTTP 400 ResourceNotFoundException")],
    ids=["not JSON", "missing"],
)
def test_a_broken_secret_does_not_cost_the_other(instance, server, value, problem):
    """Half of the images can be pulled: better than none, and the rest is named."""
    del server.secrets["ghcr"]
    if value:
        server.secrets["ghcr"] = value
    run = instance.run("ghcr", "hub")
    assert (run.code, instance.logins) == (1, {HUB: "bob:b"})
    named = [line for line in run.lines if "ghcr" in line]
    assert len(named) == 1
    assert named[0].startswith(f"batchreg: ghcr: {problem}")


@pytest.mark.parametrize(
    "step",
    [fail(400, "ResourceNotFoundException"), DENIED, reset, text(200, '{"SecretString": "{}"}')],
    ids=["deleted", "denied", "unreachable", "empty"],
)
def test_a_secret_that_breaks_keeps_its_old_login(instance, server, step):
    """A refresh that fails must not take away what works."""
    instance.run("ghcr", "hub")
    server.play("ghcr", then=step)
    server.secrets["hub"] = secret("bob", "new", "docker.io")
    assert instance.run("ghcr", "hub", deadline=0.5).code == 1
    assert instance.logins == {"ghcr.io": "ada:" + PASSWORD, HUB: "bob:new"}


def test_secrets_that_all_break_leave_the_file_alone(instance, server):
    """The old logins may still work; none at all do not."""
    instance.run("ghcr", "hub")
    before, content = instance.config.stat(), instance.config.read_bytes()
    server.secrets.clear()
    assert instance.run("ghcr", "hub").code == 1
    assert (instance.config.stat().st_ino, instance.config.read_bytes()) == (before.st_ino, content)


def test_two_logins_for_one_registry_are_refused(instance, server):
    """The agent takes one key a host; a second would win at random."""
    server.secrets["ghcr2"] = secret("eve", "x", "https://GHCR.io/")
    run = instance.run("ghcr", "ghcr2")
    assert (run.code, instance.logins) == (1, {"ghcr.io": "ada:" + PASSWORD})
    assert run.lines[-1] == "batchreg: ghcr2: another secret has another login for ghcr.io"


def test_logins_are_no_longer_than_a_variable_can_be():
    """The agent gets them in one, and does not start where the kernel refuses it."""

    def started(length: int) -> bool:
        try:
            subprocess.run(["true"], env={"ECS_ENGINE_AUTH_DATA": "x" * length}, check=True)
        except OSError:
            return False
        return True

    assert started(registry_login.ROOM)
    assert not started(registry_login.ROOM + 100)


def test_login_that_no_longer_fits_does_not_cost_the_others(instance, server):
    """It is named; nine with the longest parameters that CloudFormation takes do fit."""
    nine = [str(number) for number in range(9)]
    for number in nine:
        server.secrets[number] = secret("\x7f" * 4096, "x" * 4096, f"r{number}.example.com:50000")
    assert instance.run(*nine).code == 0
    server.secrets["a"] = secret("u", "x" * 49_000, "a.example.com")
    server.secrets["b"] = secret("v", "new", "b.example.com")
    run = instance.run(*nine, "a", "b")
    assert (run.code, run.lines[1:]) == (1, ["batchreg: a: with it, the logins are too long"])
    assert instance.logins["b.example.com"] == "v:new"
    assert len(instance.logins) == 10


def test_login_that_grows_does_not_push_the_agent_over_the_limit(instance, server):
    """With what the file has of a secret that no longer fits: then all stays as it is."""
    server.secrets["quay"] = secret("u", "x" * 60_000, "quay.io")
    assert instance.run("ghcr", "quay").code == 0
    before, calls = instance.config.read_bytes(), instance.systemctl_calls
    server.secrets["ghcr"] = secret("u", "y" * 50_000)
    run = instance.run("ghcr", "quay")
    assert (run.code, len(run.lines)) == (1, 1)
    assert run.lines[0].endswith("ecs.config: it stays as it was: the logins are too long")
    assert (instance.config.read_bytes(), instance.systemctl_calls) == (before, calls)


def test_one_long_login_in_two_secrets_counts_once(instance, server):
    """They are one entry."""
    server.secrets["again"] = server.secrets["ghcr"] = secret("u", "x" * 60_000)
    assert instance.run("ghcr", "again").code == 0


def test_which_of_two_logins_wins_is_no_matter_of_luck(instance, server):
    """One throttled request would hand the registry to the other secret, and restart the agent."""
    server.secrets["ghcr2"] = secret("eve", "x")
    server.play("ghcr", THROTTLED)
    instance.run("ghcr", "ghcr2")
    assert instance.logins == {"ghcr.io": "ada:" + PASSWORD}


# Killed at any moment

KILLER = """
import json, os, signal, sys
from pathlib import Path
from batchreg.registry_login import put

path, old, auths = Path(sys.argv[1]), sys.argv[2].encode(), json.loads(sys.argv[3])

def put_until(limit):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        if lines == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    put(path, auths, {}, True)
    sys.settrace(None)

limit = status = 1
while status:
    path.write_bytes(old)
    path.chmod(0o644)
    child = os.fork()
    if not child:
        put_until(limit)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    now = path.read_bytes()
    left = [file for file in path.parent.iterdir() if file != path]
    modes = [file.stat().st_mode & 0o777 for file in left]
    put(path, auths, {}, True)
    then = path.read_bytes()
    for file in left:
        file.unlink()
    print(json.dumps([status, now.decode(), modes, then.decode()]))
    limit += 1
"""


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, bytes, list[int], bytes]]:
    """Kill `put` at its first traced line, its second and so on, until it lives to its end.

    Each is (status, ecs.config afterwards, modes of other files, ecs.config after a whole run).
    """
    directory = tmp_path_factory.mktemp("killed")
    old = b"A=1\n" + OLD
    run = subprocess.run(
        [sys.executable, "-c", KILLER, directory / "ecs.config", old, json.dumps(AUTHS)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    found = map(json.loads, run.stdout.splitlines())
    return [(status, now.encode(), modes, then.encode()) for status, now, modes, then in found]


def test_the_killer_kills_before_and_after_the_change(kills):
    """Else the three tests below would prove nothing."""
    killed = [now for status, now, _, _ in kills if status]
    assert (killed[0], killed[-1]) == (b"A=1\n" + OLD, b"A=1\n" + OURS)
    assert any(modes for _, _, modes, _ in kills)


def test_a_kill_leaves_the_old_file_or_the_new_one(kills):
    """Power may go at any moment, and the next boot must find its cluster."""
    assert {now for _, now, _, _ in kills} == {b"A=1\n" + OLD, b"A=1\n" + OURS}


def test_a_kill_leaves_nothing_that_others_can_read(kills):
    """A scratch file that survives holds the password too."""
    assert {file for _, _, modes, _ in kills for file in modes} == {0o600}


def test_the_run_after_a_kill_succeeds(kills):
    """Nobody comes to clean up an instance."""
    assert {then for _, _, _, then in kills} == {b"A=1\n" + OURS}


# Nothing of a secret shows

CANARY_USER, CANARY = f"user{uuid.uuid4().hex}", f"Pass{uuid.uuid4().hex}"
NEEDLES = [
    needle.lower()
    for plain in (CANARY, CANARY_USER, f"{CANARY_USER}:{CANARY}")
    for needle in (plain, base64.b64encode(plain.encode()).decode())
] + [ROLE_KEYS.secret_key.lower(), ROLE_KEYS.token.lower()]


def canary(**changes: object) -> str:
    fields = {"username": CANARY_USER, "password": CANARY, "registry_url": "ghcr.io", **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not None})


CANARY_SECRETS = {
    "good": canary(),
    "cut off": canary()[:-2],
    "not JSON": f"{CANARY_USER}:{CANARY}",
    "a list": json.dumps([CANARY_USER, CANARY]),
    "no username": canary(username=None, user=CANARY_USER),
    "no password": canary(password=None, pass_word=CANARY),
    "colon in username": canary(username=f"{CANARY_USER}:x"),
    "NUL": canary(password=f"{CANARY}\0"),
    "half a surrogate": canary(password=f"{CANARY}\ud800"),
    "password is a list": canary(password=[CANARY]),
    "nested too deep": "[" * 100_000 + CANARY,
    "login in the URL": canary(registry_url=f"https://{CANARY_USER}:{CANARY}@ghcr.io"),
    "password in the URL's path": canary(registry_url=f"https://myhost/{CANARY}"),
}
CANARY_STEPS = {
    "HTML": text(200, f"<html>{CANARY_USER} {CANARY}</html>"),
    "cut off answer": text(200, json.dumps({"SecretString": canary()}), missing=5),
    "denied, in many words": fail(400, "AccessDeniedException", canary()),
    "an odd answer": text(200, json.dumps([canary()])),
    "an odd error": text(400, json.dumps({"message": canary()})),
    "reset": reset,
}


def everywhere(instance: Instance, run: Run, seen: set[str]) -> Iterator[tuple[str, str]]:
    """Yield (where, what) for each place where a secret could show."""
    yield "stdout", run.out
    yield "stderr", run.err
    yield "processes", "\n".join(seen)
    for path in instance.directory.rglob("*"):
        yield "file names", path.name
        if path.is_file() and path != instance.config:
            yield path.name, path.read_text()


def watched(instance: Instance, *secret_ids: str, **choices: object) -> list[str]:
    """Run the program under the eyes of a thread that samples all processes; return the leaks."""
    seen, over = set(), threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):  # it ended
                    seen.add(path.read_text(errors="replace"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run = instance.run(*secret_ids, **choices)
    finally:
        over.set()
        watcher.join()
    assert any(str(instance.script) in line for line in seen)  # it was really looking
    assert "Traceback" not in run.err
    return [
        where
        for where, what in everywhere(instance, run, seen)
        if any(needle in what.lower() for needle in NEEDLES)
    ]


@pytest.mark.parametrize("value", [*CANARY_SECRETS.values()], ids=CANARY_SECRETS)
def test_no_part_of_a_secret_shows(instance, server, value):
    """The console, the journal and the process list have more readers than the secret."""
    server.secrets["canary"] = value
    assert watched(instance, "hub", "canary") == []


@pytest.mark.parametrize("step", [*CANARY_STEPS.values()], ids=CANARY_STEPS)
def test_no_part_of_an_answer_shows(instance, server, step):
    """An answer may quote the secret, and an error message the signed request."""
    server.play("canary", then=step)
    assert watched(instance, "hub", "canary", deadline=0.5) == []


def test_no_part_of_a_refused_signature_shows(instance, server):
    """AWS quotes the headers that it expected, session token included."""
    server.secrets["canary"] = canary()
    server.clock_ahead = 600
    assert watched(instance, "canary", deadline=0.1) == []


def test_no_part_of_a_secret_shows_on_a_full_disk(instance, server):
    """Nor does it stay in a scratch file."""
    server.secrets["canary"] = canary()
    instance.config.write_bytes(b"A=1\n" * 5_000)
    assert watched(instance, "canary", shell="ulimit -f 8") == []


def test_no_part_of_a_secret_shows_on_an_unexpected_error(instance, server):
    """A traceback would show the line, and some show its values."""
    server.secrets["canary"] = canary()
    instance.config.mkdir()
    assert watched(instance, "canary") == []


# Signatures

TOKENS = st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)
ACCESS_KEYS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", min_size=16, max_size=128)
SECRET_KEYS = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", min_size=1
)
REGIONS = st.builds(
    "{}-{}-{}".format,
    st.sampled_from(["eu", "us-gov", "cn", "us-iso", "ap"]),
    st.sampled_from(["central", "northwest", "southeast"]),
    st.integers(1, 9),
)
ENDPOINTS = st.sampled_from(
    [
        "https://secretsmanager.{region}.amazonaws.com/",
        "http://127.0.0.1:4566/",
        "https://secretsmanager.{region}.amazonaws.com.cn/",
        "https://proxy.example:8443/a/b%20c/~d/",
        "https://vpce-0a1b2c-3d4e5f.secretsmanager.{region}.vpce.amazonaws.com/",
    ]
)


@given(
    endpoint=ENDPOINTS,
    region=REGIONS,
    access_key=ACCESS_KEYS,
    secret_key=SECRET_KEYS,
    token=TOKENS,
    secret_id=st.text(),
    now=st.floats(0, 4e9) | st.integers(0, 4_000_000_000),
)
@settings(max_examples=1000, deadline=None)
def test_a_signature_is_the_one_botocore_makes(
    endpoint, region, access_key, secret_key, token, secret_id, now
):
    """The one thing that is written here although AWS ships it, judged by what AWS ships."""
    url = endpoint.format(region=region)
    body = json.dumps({"SecretId": secret_id}).encode()
    keys = {"AccessKeyId": access_key, "SecretAccessKey": secret_key, "Token": token}
    headers = sign(url, body, region, keys, now)
    request = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "secretsmanager.GetSecretValue",
        "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)),
    }
    if token:
        request["X-Amz-Security-Token"] = token
    assert headers.pop("host") == re.split("/+", url)[1]
    expected = authorization(url, request, body, region, Keys(access_key, secret_key, token))
    assert headers.pop("authorization") == expected
    assert headers == {name.lower(): value for name, value in request.items()}


# Registry URLs

HUB_SPELLINGS = [
    "https://index.docker.io/v1/",
    "index.docker.io/v1/",
    "https://index.docker.io/v1",
    "docker.io",
    "https://docker.io",
    "index.docker.io",
    "registry-1.docker.io",
    "https://registry-1.docker.io/v2/",
    "hub.docker.com",
    "registry.hub.docker.com",
    "https://hub.docker.com/u/ada",
    "auth.docker.io",
    "Docker.IO",
    " docker.io\n",
]
SPELLINGS = {
    **dict.fromkeys(HUB_SPELLINGS, HUB),
    "registry.gitlab.com": "registry.gitlab.com",
    "https://registry.gitlab.com": "registry.gitlab.com",
    "registry.gitlab.com/": "registry.gitlab.com",
    "https://registry.gitlab.com/v2/": "registry.gitlab.com",
    "registry.gitlab.com/group/project": "registry.gitlab.com",
    "ghcr.io": "ghcr.io",
    "https://ghcr.io/": "ghcr.io",
    "http://ghcr.io": "ghcr.io",
    "HTTPS://ghcr.io": "ghcr.io",
    "GHCR.IO": "ghcr.io",
    " ghcr.io": "ghcr.io",
    "ghcr.io \n": "ghcr.io",
    "registry.example.com:5050": "registry.example.com:5050",
    "https://registry.example.com:5050": "registry.example.com:5050",
    "https://registry.example.com:5050/": "registry.example.com:5050",
    "registry.example.com:443": "registry.example.com:443",
    "http://registry.example.com:443": "registry.example.com:443",
    "localhost:5000": "localhost:5000",
    "http://localhost:5000/": "localhost:5000",
    "localhost": "localhost",
    "127.0.0.1:5000": "127.0.0.1:5000",
    "myhost:5000": "myhost:5000",
    "my--registry.xn--e1afmkfd.example": "my--registry.xn--e1afmkfd.example",
    "notdocker.io": "notdocker.io",
    "docker.io.example.com": "docker.io.example.com",
}


@pytest.mark.parametrize(("url", "key"), [*SPELLINGS.items()])
def test_every_spelling_becomes_the_key_that_the_agent_matches(url, key):
    """What people copy from browsers and manuals, most of which the agent never matches."""
    assert registry_key(url) == key


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        (
            "https://registry.example.com:443",
            "write registry.example.com or registry.example.com:443,",
        ),
        (
            "http://registry.example.com:80/",
            "write registry.example.com or registry.example.com:80,",
        ),
        ("myhost", "add a domain or port to myhost"),
        ("https://myhost/v2/", "add a domain or port to myhost"),
        ("", "write it like ghcr.io"),
        ("https://", "write it like ghcr.io"),
        ("https:ghcr.io", "write it like ghcr.io"),
        ("ftp://ghcr.io", "write it like ghcr.io"),
        ("https://ada:x@ghcr.io", "write it like ghcr.io"),
        ("ghcr.io lab", "write it like ghcr.io"),
        ("ghcr..io", "write it like ghcr.io"),
        (".ghcr.io", "write it like ghcr.io"),
        ("ghcr.io.", "write it like ghcr.io"),
        ("ghcr.-io", "write it like ghcr.io"),
        ("ghcr-.io", "write it like ghcr.io"),
        ("ghcr_io.example", "write it like ghcr.io"),
        ("ghcr.io:", "write it like ghcr.io"),
        ("ghcr.io:port", "write it like ghcr.io"),
        ("bücher.example", "write it like ghcr.io"),
        ("[::1]:5000", "write it like ghcr.io"),
    ],
)
def test_what_no_image_would_match_is_refused_with_the_way_out(url, instead):
    """A key that never matches is a job that hangs, with nothing in any log."""
    with pytest.raises(Refused, match=re.escape(instead)):
        registry_key(url)


GOOD_HOSTS = st.sampled_from(
    [
        "ghcr.io",
        "GHCR.io",
        "docker.io",
        "index.docker.io",
        "hub.docker.com",
        "localhost",
        "myhost",
        "a",
        "x.y",
        "10.0.0.1",
        "a-b.example",
        "a--b.example",
    ]
)
BAD_HOSTS = st.sampled_from(["-", ".", "..", ".-", "-.", "_", "KELVIN\u212a", "é", "@", "%", " "])
URLS = st.one_of(
    st.text(),
    *[
        st.builds(
            "".join,
            st.tuples(
                st.sampled_from(["", " ", "http://", "https://", "HTTPS://", "ftp://", "//"]),
                GOOD_HOSTS | st.lists(GOOD_HOSTS | BAD_HOSTS, max_size=4).map("".join),
                st.sampled_from(["", ":", ":443", ":80", ":5000", ":123456", ":x"]),
                st.sampled_from(["", "/", "/v1/", "/v2", "/a/b", "?q", "#f", "/\n", " "]),
            ),
        )
    ]
    * 9,
)
# How an image's name writes its registry: github.com/distribution/reference, regexp.go.
DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]+)?")


def key_or_none(url: str) -> str | None:
    try:
        return registry_key(url)
    except Refused:
        return None


@given(URLS)
@settings(max_examples=1000, deadline=None)
def test_a_key_is_its_own_key(url):
    """What `check` shows can be put back into the secret."""
    key = key_or_none(url)
    if key:
        assert registry_key(key) == key


@given(URLS)
@settings(max_examples=1000, deadline=None)
def test_no_key_is_one_that_the_agent_cannot_match(url):
    """Any key but Docker Hub's is a registry as an image's name can write it."""
    key = key_or_none(url)
    if key and key != HUB:
        assert DOMAIN.fullmatch(key)
        assert "." in key or ":" in key or key == "localhost"
        assert key not in HUB_SPELLINGS


# Passwords

NASTY = st.text() | st.text("\"'\\$ {}:=#%\t\r\n\0\x1b😀é`", max_size=40)
WORDS = NASTY | st.builds(lambda some, times: (some * times)[:4096], NASTY, st.integers(1, 400))


@given(user=WORDS, password=WORDS, escaped=st.booleans(), raw=st.booleans())
@settings(max_examples=1000, deadline=None)
def test_any_password_reaches_the_agent_unchanged(user, password, escaped, raw):
    """Generated passwords hold every character there is, and key files hold line breaks."""
    content = json.dumps({"username": user, "password": password}, ensure_ascii=escaped)
    if raw:  # line breaks as they are, as people paste them
        content = re.sub(r"(?<!\\)((?:\\\\)*)\\n", r"\1\n", content)
    if not user or not password or ":" in user or "\0" in user + password:
        with pytest.raises(Refused):
            login(content)
    else:
        assert base64.b64decode(login(content)[1]).decode() == f"{user}:{password}"


# Waiting


class Clock:
    """A clock that only sleeping moves, and reading where a test says so."""

    def __init__(self) -> None:
        self.now, self.sleeps = 1000.0, []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def wait(read: Callable, ids=("a",), deadline: float = 300, spread: Callable = lambda: 1.0):
    clock = Clock()
    result = read_all(
        ids, read(clock) if isinstance(read, type) else read, deadline, clock, clock.sleep, spread
    )
    return result, clock


def broken(secret_id: str, seconds: float) -> str:
    raise OSError("away")


def test_the_first_attempt_comes_at_once():
    """Most boots need no waiting at all."""
    (texts, problems), clock = wait(lambda secret_id, seconds: "text")
    assert (texts, problems, clock.sleeps) == ({"a": "text"}, {}, [])


# What a pause can be at most, round after round.
CEILINGS = [min(3 * 1.3**number, 10) for number in range(100)]


def test_the_pause_grows_up_to_ten_seconds():
    """Exponential, and still in time when the cause has gone."""
    _, clock = wait(broken)
    assert clock.sleeps[:8] == pytest.approx(CEILINGS[:8])
    assert CEILINGS[5:] == [10] * 95


@given(seed=st.integers())
@settings(deadline=None)
def test_no_pause_is_longer_than_its_ceiling(seed):
    """With jitter from nothing to the ceiling."""
    _, clock = wait(broken, spread=random.Random(seed).random)
    assert all(
        0 <= pause <= ceiling + 1e-9 for pause, ceiling in zip(clock.sleeps, CEILINGS, strict=False)
    )


def test_the_pause_is_spread_from_nothing_on():
    """A fleet that booted in one moment must not come back in one."""
    _, clock = wait(broken, spread=lambda: 0.25)
    assert clock.sleeps[:3] == pytest.approx([ceiling / 4 for ceiling in CEILINGS[:3]])


@given(
    deadline=st.floats(0, 400),
    seed=st.integers(),
    count=st.integers(1, 3),
    durations=st.lists(st.floats(0, 30), min_size=1),
)
@settings(deadline=None)
def test_it_stops_by_the_deadline(deadline, seed, count, durations):
    """Whatever an attempt takes: no later than that, but for one last second a secret."""
    clock, duration = Clock(), itertools.cycle(durations)

    def read(secret_id: str, seconds: float) -> str:
        clock.now += min(next(duration), seconds)
        raise OSError("timed out")

    ids = [str(number) for number in range(count)]
    chance = random.Random(seed).random
    _, problems = read_all(ids, read, deadline, clock, clock.sleep, lambda: chance() + 0.001)
    assert list(problems) == ids
    assert clock.now - 1000 <= deadline + count


def test_a_healthy_secret_does_not_wait_for_a_broken_one():
    """Its login is at hand after the first round, and it is not read again."""
    asked = []

    def read(secret_id: str, seconds: float) -> str:
        asked.append(secret_id)
        if secret_id == "bad":
            raise OSError("away")
        return "text"

    (texts, problems), _ = wait(read, ids=("bad", "good"), deadline=7)
    assert (texts, problems, asked) == (
        {"good": "text"},
        {"bad": "away"},
        ["bad", "good", "bad", "bad"],
    )


def test_a_refusal_is_final():
    """A missing secret stays missing."""
    asked = []

    def read(secret_id: str, seconds: float) -> str:
        asked.append(secret_id)
        raise Refused("gone")

    (texts, problems), clock = wait(read)
    assert (texts, problems, asked, clock.sleeps) == ({}, {"a": "gone"}, ["a"], [])


def test_an_attempt_gets_no_more_time_than_there_is():
    """A hanging request must not outlive the deadline."""
    given_seconds = []

    def read(secret_id: str, seconds: float) -> str:
        given_seconds.append(seconds)
        raise OSError("away")

    wait(read, deadline=10)
    assert given_seconds == pytest.approx([10, 7, 3.1])


def test_a_reason_is_said_when_it_changes(capsys):
    """The console shows progress, not repetition."""
    reasons = iter(["no role", "no role", "denied", "denied", "no role"])

    def read(secret_id: str, seconds: float) -> str:
        raise OSError(next(reasons))

    wait(read, deadline=20)
    assert capsys.readouterr().err.splitlines() == [
        f"batchreg: waiting for a: {reason}" for reason in ("no role", "denied", "no role")
    ]


# The script as it travels

SOURCE = Path(registry_login.__file__)


@pytest.mark.parametrize("stripped", [False, True], ids=["source", "stripped"])
def test_the_script_is_valid_for_the_instances_python(tmp_path, stripped):
    """Amazon Linux 2023 has Python 3.9."""
    path = tmp_path / "registry_login.py"
    path.write_text(userdata.script() if stripped else SOURCE.read_text())
    run = subprocess.run(
        [Path(sys.executable).with_name("vermin"), "-t=3.9-", "--violations", path],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout


def test_stripping_changes_no_code():
    """The stripped text is made with regular expressions, which know no Python."""
    tree = ast.parse(SOURCE.read_text())
    for node in ast.walk(tree):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            del node.body[0]
    assert ast.dump(ast.parse(userdata.script())) == ast.dump(tree)


def test_the_script_imports_nothing_but_the_standard_library():
    """Nothing is installed on the instance."""
    imports = [
        node
        for node in ast.walk(ast.parse(userdata.script()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    names = {
        name.split(".")[0]
        for node in imports
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
        )
    }
    assert names <= sys.stdlib_module_names
