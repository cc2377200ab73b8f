"""The refresh timer under the real systemd: what it brings, and what it leaves alone."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from lab.agent import auth_for, read_ecs_config
from lab.machine import Machine
from lab.parts import PullError, Registry
from real_parts import Two, batchreg, require, two_registries
from secrets_server import DENIED, REGION, THROTTLED, SecretsServer, fail, hang, reset

PASSWORDS = ("first", "second", "third", "fourth", "fifth")  # of ann, test after test


def hurried(user_data: bytes) -> bytes:
    """Return the same user data with a short interval."""
    for old, new in (
        # After the end of a run: without a pause between two the agent would never start.
        (b"OnUnitActiveSec=30min", b"OnUnitInactiveSec=300ms"),
        (b"DelaySec=1min", b"DelaySec=0"),
        (b"AccuracySec=1s", b"AccuracySec=1ms"),
    ):
        assert old in user_data
        user_data = user_data.replace(old, new)
    return user_data


def refreshes(machine: Machine) -> list[list[str]]:
    """Return what each refresh has said that has come to its end."""
    lines = machine.run(
        [
            "journalctl",
            "--quiet",
            "--output=cat",
            "_SYSTEMD_UNIT=batchreg.service",
            "+",
            "UNIT=batchreg.service",
        ]
    ).stdout
    runs = re.split("(?m)^Starting batchreg.service", lines)[1:]
    return [
        re.findall("(?m)^batchreg: .*$", run)
        for run in runs
        if re.search("(?m)^(Finished|Failed to start) batchreg.service", run)
    ]


def await_refreshes(machine: Machine, count: int) -> list[list[str]]:
    """Wait for so many that have begun and ended from now on; return what they have said."""
    seen = len(refreshes(machine)) + 1  # one may be under way
    machine.wait_until(lambda: len(refreshes(machine)) >= seen + count)
    return refreshes(machine)[seen : seen + count]


def logins(machine: Machine) -> dict[str, str]:
    """Return {registry: user:password} of the agent's configuration."""
    data = read_ecs_config(machine.read("/etc/ecs/ecs.config") or b"")["ECS_ENGINE_AUTH_DATA"]
    return {
        host: base64.b64decode(entry["auth"]).decode() for host, entry in json.loads(data).items()
    }


# --- Two real registries and the embedded AWS ---


@dataclass
class Lab:
    """A stack with two registries, and an instance of it that has booted under systemd."""

    two: Two
    machine: Machine

    @property
    def environment(self) -> str:
        return self.two.outputs["ComputeEnvironmentArn"]

    def rotate(
        self, registry: Registry, password: str, *more: str
    ) -> subprocess.CompletedProcess[str]:
        return batchreg(
            "rotate",
            "--stack-name",
            "timer",
            "--yes",
            "--registry",
            registry.host,
            *more,
            **self.two.aws.environ,
            BATCHREG_PASSWORD=password,
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    require("registry", "engine", "machine")
    folder = tmp_path_factory.mktemp("timer")
    with two_registries(folder, "timer") as two:
        # The role's keys, through the metadata service, as on an instance.
        environ = {
            name: two.aws.environ[name]
            for name in ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_SERVICE_ENDPOINT")
        }
        with Machine(
            directory=folder / "machine",
            environ=environ,
            files={"etc/ecs/ecs.config": b"ECS_CLUSTER=lab\n"},
        ) as machine:
            boot = machine.boot(hurried(two.user_data))
            assert boot.ok, boot.console
            yield Lab(two, machine)


def test_agent_starts_once_and_has_the_logins_from_its_start(lab):
    """It waits for the boot to end, and systemd passes the line on as it stands in the file."""
    machine = lab.machine
    machine.wait_until(lambda: machine.agents)
    (agent,) = machine.agents
    assert "The agent has started." in machine.console
    config = read_ecs_config(machine.read("/etc/ecs/ecs.config"))
    assert {name: agent[name] for name in config} == config
    assert [auth_for(image, agent)["username"] for image in lab.two.images] == ["ann", "ben"]
    assert machine.show("batchreg.timer", "ActiveState") == "active"
    assert machine.show("batchreg.timer", "UnitFileState") == "enabled"


def test_new_password_comes_within_one_interval_with_one_restart_of_the_agent(lab, engine):
    """The old one is gone, the other registry and what runs in Docker are left alone."""
    machine, (registry, other), (image, same) = lab.machine, lab.two.registries, lab.two.images
    assert await_refreshes(machine, 2) == [[], []]  # nothing new, nothing said
    docker, starts = machine.show("docker", "MainPID"), len(machine.agents)
    registry.change_password("second:a")
    with pytest.raises(PullError):
        engine.pull(image, auth_for(image, machine.agents[-1]))
    result = lab.rotate(registry, "second:a")
    assert result.returncode == 0, result.stderr
    await_refreshes(machine, 1)  # the first to begin after it
    assert logins(machine) == {registry.host: "ann:second:a", other.host: f"ben:{other.password}"}
    assert base64.b64encode(b"ann:first:a") not in machine.read("/etc/ecs/ecs.config")
    assert await_refreshes(machine, 2) == [[], []]
    assert len(machine.agents) == starts + 1
    assert machine.show("docker", "MainPID") == docker
    for each in (image, same):
        engine.pull(each, auth_for(each, machine.agents[-1]))
        engine.remove(each)


@pytest.fixture
def timer_off(lab: Lab) -> Iterator[None]:
    """What comes now comes by Systems Manager."""
    lab.machine.run(["systemctl", "stop", "batchreg.timer"])
    yield
    lab.machine.run(["systemctl", "start", "batchreg.timer"])


@pytest.mark.usefixtures("timer_off")
def test_follow_brings_the_password_at_once_and_waits_for_it(lab, engine):
    """By Run Command, with nothing of the password in it."""
    machine, (registry, _), (image, _) = lab.machine, lab.two.registries, lab.two.images
    scripts, starts = [], len(machine.agents)

    def run(script: str) -> int:
        scripts.append(script)
        return machine.run(["sh", "-c", script]).returncode

    registry.change_password("third:a")
    with lab.two.aws.joined(lab.environment, "i-0a1b2c3d", run):
        result = lab.rotate(registry, "third:a", "--follow", "--json")
    assert result.returncode == 0, result.stdout
    assert json.loads(result.stdout.splitlines()[-1])["instances"] == {"i-0a1b2c3d": "Success"}
    assert logins(machine)[registry.host] == "ann:third:a"  # by now
    assert scripts == ["systemctl start batchreg.service; systemctl start batchreg.service"]
    machine.wait_until(lambda: len(machine.agents) == starts + 1)
    engine.pull(image, auth_for(image, machine.agents[-1]))
    engine.remove(image)


@pytest.mark.usefixtures("timer_off")
def test_instance_that_does_not_take_the_password_is_named(lab):
    """The password is current all the same, and the timer tries again; exit status 1."""
    machine, (registry, _) = lab.machine, lab.two.registries
    arguments = machine.read("/opt/batchreg/args")
    machine.write("/opt/batchreg/args", arguments + b"--secret-id=no-such-secret\n")
    registry.change_password("fourth:a")
    with lab.two.aws.joined(
        lab.environment, "i-0a1b2c3d", lambda script: machine.run(["sh", "-c", script]).returncode
    ):
        result = lab.rotate(registry, "fourth:a", "--follow")
    machine.write("/opt/batchreg/args", arguments)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(
        "batchreg: i-0a1b2c3d did not take the password; the timer tries again."
    )


@pytest.mark.usefixtures("timer_off")
def test_now_does_not_wait(lab):
    """It says by when the instances that have been asked will have it."""
    machine, (registry, _) = lab.machine, lab.two.registries
    registry.change_password("fifth:a")
    with lab.two.aws.joined(
        lab.environment, "i-0a1b2c3d", lambda script: machine.run(["sh", "-c", script]).returncode
    ):
        result = lab.rotate(registry, "fifth:a", "--now")
        assert result.returncode == 0, result.stderr
        machine.wait_until(lambda: logins(machine)[registry.host] == "ann:fifth:a")
    assert (
        "has a new password. 1 instance asked to refresh now; any other uses it by "
        in result.stderr
    )


def test_no_password_is_in_the_journal_or_on_the_console(lab):
    """systemd would quote a line that it cannot read."""
    journal, console = lab.machine.run(["journalctl"]).stdout, lab.machine.console
    for text in (journal, console):
        assert "batchreg: /etc/ecs/ecs.config has the credentials" in text
    of_ben = f"ben:{lab.two.registries[1].password}"
    for login in (*(f"ann:{word}:a" for word in PASSWORDS), of_ben):
        for secret in (login.partition(":")[2], base64.b64encode(login.encode()).decode()):
            assert secret not in journal + console


# --- A Secrets Manager whose faults are scripted ---


@dataclass
class Strict:
    """An instance with two secrets, of a service that checks signatures under its own clock."""

    server: SecretsServer
    machine: Machine
    passwords: Iterator[int] = field(default_factory=lambda: iter(range(1000)))

    def renew(self) -> str:
        """Give the first secret a new password and return the login."""
        password = f"password {next(self.passwords)}"
        self.server.secrets["ghcr"] = secret("ann", password, "ghcr.io")
        return f"ann:{password}"

    def give_up_after(self, seconds: int) -> None:
        """Let a refresh try for so long; by itself it does for a minute."""
        arguments = self.machine.read("/opt/batchreg/args").partition(b"--deadline")[0]
        self.machine.write("/opt/batchreg/args", arguments + b"--deadline=%d\n" % seconds)


def secret(username: str, password: str, url: str) -> str:
    return json.dumps({"username": username, "password": password, "registry_url": url})


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    require("machine")
    with SecretsServer(
        {"ghcr": secret("ann", "first", "ghcr.io"), "quay": secret("ben", "other", "quay.io")}
    ) as server:
        text = batchreg(
            "user-data", "--secret-id", "ghcr", "--secret-id", "quay", "--region", REGION
        ).stdout
        with Machine(
            directory=tmp_path_factory.mktemp("strict"),
            environ={
                "AWS_ENDPOINT_URL": server.url,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url,
            },
        ) as machine:
            boot = machine.boot(hurried(text.encode()))
            assert boot.ok, boot.console
            machine.wait_until(lambda: len(machine.agents) == 1)
            yield Strict(server, machine)


@pytest.fixture
def strict(booted: Strict) -> Iterator[Strict]:
    """The service is itself again after each test, and brings a new password."""
    yield booted
    booted.server.steps.clear()
    booted.server.clock_ahead = 0
    booted.give_up_after(20)
    login, machine = booted.renew(), booted.machine
    machine.wait_until(lambda: logins(machine) == {"ghcr.io": login, "quay.io": "ben:other"})
    await_refreshes(machine, 1)


FAULTS = {
    "deleted": (lambda server: server.secrets.pop("ghcr"), "HTTP 400 ResourceNotFoundException"),
    "being deleted": (
        lambda server: server.play("ghcr", then=fail(400, "InvalidRequestException")),
        "HTTP 400 InvalidRequestException",
    ),
    "not JSON": (
        lambda server: server.secrets.update(ghcr='{"username": "canary'),
        'it is not JSON text like {"username": "...", "password": "..."}',
    ),
    "no password": (
        lambda server: server.secrets.update(ghcr=secret("canary", "", "ghcr.io")),
        "an empty username or password, a NUL, or a colon in username",
    ),
    "another host": (
        lambda server: server.secrets.update(ghcr=secret("a", "canary", "myhost")),
        "registry_url: myhost/x is Docker Hub's, so add a domain or port to myhost",
    ),
    "access revoked": (
        lambda server: server.play("ghcr", then=DENIED),
        "HTTP 400 AccessDeniedException",
    ),
    "throttled": (
        lambda server: server.play("ghcr", then=THROTTLED),
        "HTTP 400 ThrottlingException",
    ),
    "no connection": (
        lambda server: server.play("ghcr", then=reset),
        "[Errno 104] Connection reset by peer",
    ),
    "no answer": (lambda server: server.play("ghcr", then=hang), "timed out"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_failed_refresh_keeps_what_works_and_says_why_in_one_line(strict, fault):
    """On the console and in the journal; the agent is not restarted for it."""
    machine, before = strict.machine, strict.machine.read("/etc/ecs/ecs.config")
    starts, shown = len(machine.agents), len(machine.console)
    strict.give_up_after(1)
    break_it, reason = FAULTS[fault]
    break_it(strict.server)
    line = f"batchreg: ghcr: {reason}; credentials that work stay"
    assert await_refreshes(machine, 2) == [[line], [line]]
    assert machine.read("/etc/ecs/ecs.config") == before
    assert len(machine.agents) == starts
    assert line in machine.console[shown:]
    assert "canary" not in machine.console + machine.run(["journalctl"]).stdout


@pytest.mark.parametrize("seconds", [-86_400, 86_400])
def test_clock_that_jumps_by_a_day_costs_nothing(strict, seconds):
    """Signatures of another day are refused; the answer's own date helps."""
    machine, starts = strict.machine, len(strict.machine.agents)
    strict.server.clock_ahead = seconds
    login = strict.renew()
    machine.wait_until(lambda: logins(machine)["ghcr.io"] == login)
    assert await_refreshes(machine, 1) == [[]]  # and says nothing
    machine.wait_until(lambda: len(machine.agents) == starts + 1)


def test_instance_that_was_suspended_for_a_day_goes_on_where_it_stopped(strict):
    """In the middle of a request, on which nobody waits any more: a line each, then the news."""
    machine, before = strict.machine, logins(strict.machine)
    starts, heard, asked = len(machine.agents), len(refreshes(machine)), threading.Event()
    strict.give_up_after(4)

    def asked_in_vain(server: SecretsServer) -> None:
        asked.set()
        hang(server)

    strict.server.play("ghcr", asked_in_vain)
    assert asked.wait(30)
    with machine.frozen():
        strict.server.clock_ahead = 86_400
        login = strict.renew()
        time.sleep(5)  # past the refresh's deadline
        assert logins(machine) == before
    machine.wait_until(lambda: logins(machine)["ghcr.io"] == login)
    await_refreshes(machine, 1)  # the one that has brought it has ended
    said = [lines for lines in refreshes(machine)[heard:] if lines]
    assert said == [
        [
            f"batchreg: {problem}; credentials that work stay"
            for problem in ("ghcr: timed out", "quay: HTTP 400 InvalidSignatureException")
        ],
        ["batchreg: /etc/ecs/ecs.config has the credentials for ghcr.io, quay.io"],
    ]
    machine.wait_until(lambda: len(machine.agents) == starts + 1)
