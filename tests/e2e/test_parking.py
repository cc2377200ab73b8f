"""An instance without credentials under the real systemd: parked, released, powered off, or joined."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from lab.agent import auth_for
from lab.machine import Machine
from real_parts import require
from secrets_server import DENIED, REGION, SecretsServer

from batchreg.render import userdata

IMAGE = "ghcr.io/lab/align:1"
SECRET = json.dumps({"username": "ann", "password": "canary-1", "registry_url": "ghcr.io"})
PARKING = f"""\
HTTP_PROXY=127.0.0.1:9
NO_PROXY=ecs.{REGION}.amazonaws.com,ec2.{REGION}.amazonaws.com,169.254.169.254,/var/run/docker.sock
"""
NOT_FOUND = "ghcr: HTTP 400 ResourceNotFoundException"

Start = Callable[..., Machine]


def user_data(
    *user_parts: str,
    on_failure: str = "park",
    deadline: int = 60,
    patience: int = 600,
    retry: float = 0.3,
) -> bytes:
    """Return the user data of an instance with one secret, with short times."""
    text = userdata.for_instance(["ghcr"], REGION, user_parts, on_failure=on_failure)
    for old, new in (
        (
            f"--on-failure={on_failure}\n",
            f"--on-failure={on_failure}\n--deadline={deadline}\n--patience={patience}\n",
        ),
        ("OnUnitInactiveSec=30\nAccuracySec=1s", f"OnUnitInactiveSec={retry}\nAccuracySec=1ms"),
    ):
        assert old in text
        text = text.replace(old, new)
    return text.encode()


@pytest.fixture
def server() -> Iterator[SecretsServer]:
    require("machine")
    with SecretsServer({}) as server:
        yield server


@pytest.fixture
def start(server: SecretsServer, tmp_path: Path) -> Iterator[Start]:
    """Return a function that boots a machine with this user data."""
    numbers = count()
    with ExitStack() as machines:

        def boot(data: bytes, **files: bytes) -> Machine:
            machine = machines.enter_context(
                Machine(
                    directory=tmp_path / str(next(numbers)),
                    environ={
                        "AWS_ENDPOINT_URL": server.url,
                        "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url,
                        "AWS_REGION": REGION,
                    },
                    files=files,
                )
            )
            machine.submit(IMAGE)
            machine.boot(data)
            return machine

        yield boot


def config(machine: Machine) -> str:
    return (machine.read("/etc/ecs/ecs.config") or b"").decode()


def idle(machine: Machine) -> None:
    """Wait until the service has nothing to do."""
    machine.wait_until(
        lambda: machine.show("batchreg.service", "ActiveState") in ("inactive", "failed")
    )


def test_instance_without_credentials_joins_parked_and_says_why(server, start):
    """An environment that no instance joins is lost for good, and a job must not fail meanwhile."""
    machine = start(user_data())
    machine.wait_until(lambda: machine.arn and "batchreg: parked: " + NOT_FOUND in machine.console)
    assert config(machine).endswith(PARKING)
    asked = server.count("ghcr")
    machine.wait_until(lambda: server.count("ghcr") > asked + 2)  # it keeps trying
    assert machine.taken() == {}
    assert machine.console.count("batchreg:") == 1  # and says it once


def test_secret_that_is_fixed_later_releases_the_same_instance(server, start):
    """Within one retry: the waiting task runs, with the credentials."""
    machine = start(user_data())
    machine.wait_until(lambda: machine.arn)
    arn = machine.arn
    server.secrets["ghcr"] = SECRET
    machine.wait_until(machine.taken)
    agent = machine.taken()[IMAGE]
    assert auth_for(IMAGE, agent) == {"username": "ann", "password": "canary-1"}
    assert "_PROXY" not in config(machine) + " ".join(agent)
    assert machine.arn == arn
    assert machine.console.index("batchreg: parked:") < machine.console.index("batchreg: released")
    idle(machine)
    assert len(machine.agents) == 2
    assert machine.show("batchreg-retry.timer", "ActiveState") == "inactive"
    asked = server.count("ghcr")
    time.sleep(1)
    assert (server.count("ghcr"), len(machine.agents)) == (asked, 2)


def test_instance_powers_off_only_after_it_has_registered(server, start):
    """It takes no task until its end."""
    machine = start(user_data(patience=1))
    machine.wait_until(lambda: machine.ended)
    said = machine.console
    assert "taken" not in said
    assert said.index("batchreg: parked:") < said.index("The agent has registered")
    assert said.index("has registered") < said.index("no registry credentials: powering off")


def test_instance_that_cannot_register_gets_more_time(server, start):
    """There is nothing to win by powering off at once, and perhaps an environment to lose."""
    machine = start(user_data(patience=1), **{"etc/ecs/no-route-to-ecs": b""})
    machine.wait_until(lambda: "batchreg: parked" in machine.console)
    asked = server.count("ghcr")
    machine.wait_until(lambda: server.count("ghcr") > asked + 5)
    assert not machine.ended
    assert "powering off" not in machine.console


def test_foreign_proxy_is_left_alone_and_no_agent_starts(server, start):
    """Parking would need its lines: the instance waits without an agent, and gives up."""
    theirs = b"HTTPS_PROXY=http://proxy.example.com:3128\n"
    machine = start(user_data(patience=600), **{"etc/ecs/ecs.config": theirs})
    machine.wait_until(lambda: "batchreg: cannot park the agent, " in machine.console)
    assert "batchreg: parked" not in machine.console
    assert config(machine).encode() == theirs
    assert machine.agents == []
    server.secrets["ghcr"] = SECRET
    machine.wait_until(machine.taken)
    assert config(machine).encode().startswith(theirs)
    assert [auth_for(IMAGE, agent)["username"] for agent in machine.agents] == ["ann"]


def test_instance_behind_a_foreign_proxy_powers_off_without_an_agent(start):
    """As it cannot be parked."""
    machine = start(user_data(patience=1), **{"etc/ecs/ecs.config": b"http_proxy=http://p:1\n"})
    machine.wait_until(lambda: machine.ended)
    assert "no registry credentials: powering off" in machine.console
    assert "The agent has" not in machine.console


def test_joining_instance_works_without_credentials_and_gets_them_later(server, start):
    """Its environment worked before: public images run throughout."""
    server.play("ghcr", then=DENIED)
    machine = start(user_data(on_failure="join", deadline=1, patience=1))
    machine.wait_until(lambda: IMAGE in machine.taken())
    assert auth_for(IMAGE, machine.taken()[IMAGE]) is None
    reason = "batchreg: continuing without credentials: ghcr: HTTP 400 AccessDeniedException"
    machine.wait_until(lambda: machine.console.count(reason) == 1)
    arn = machine.arn
    server.secrets["ghcr"] = SECRET
    server.steps.clear()
    machine.wait_until(lambda: len(machine.agents) == 2)
    machine.submit("ghcr.io/lab/sort:1")
    machine.wait_until(lambda: "ghcr.io/lab/sort:1" in machine.taken())
    assert auth_for(IMAGE, machine.taken()["ghcr.io/lab/sort:1"])["username"] == "ann"
    assert (machine.arn, machine.ended) == (arn, False)
    assert "parked" not in machine.console
    assert "released" not in machine.console


def test_joining_instance_keeps_the_credentials_that_others_write(server, start):
    """They may be for other registries, and of the other type."""
    server.secrets["ghcr"] = SECRET
    theirs = json.dumps({"https://quay.io": {"username": "eve", "password": "theirs"}})
    machine = start(
        user_data(on_failure="join"),
        **{
            "etc/ecs/ecs.config": f"ECS_ENGINE_AUTH_TYPE=docker\nECS_ENGINE_AUTH_DATA={theirs}\n".encode()
        },
    )
    machine.wait_until(machine.taken)
    agent = machine.taken()[IMAGE]
    assert auth_for(IMAGE, agent)["username"] == "ann"
    assert auth_for("quay.io/lab/x", agent) == {"username": "eve", "password": "theirs"}


OLD_PYTHON = b'#!/bin/sh\ncase "$*" in *version_info*) exit 1;; esac\nexit 99\n'


def test_instance_without_a_python_that_will_do_is_parked_or_joins(server, start):
    """The shell says so, as there is nobody else."""
    server.secrets["ghcr"] = SECRET
    why = "it needs python3, 3.6 or newer"
    shadow = {"usr/local/bin/python3": OLD_PYTHON}
    hurried = user_data().replace(
        b"--on-active=930", b"--timer-property=AccuracySec=1ms --on-active=4"
    )
    parked = start(hurried, **shadow)
    parked.wait_until(lambda: f"batchreg: parked: {why}" in parked.console)
    assert config(parked).endswith(PARKING)
    joined = start(user_data(on_failure="join"), **shadow)
    joined.wait_until(joined.taken)
    assert f"batchreg: continuing without credentials: {why}" in joined.console
    parked.wait_until(lambda: parked.ended)
    assert "The agent has registered" in parked.console
    assert "The agent has taken" not in parked.console


def test_agent_is_never_without_both_credentials_and_parking(server, start):
    """Whenever the run before its start is killed; later runs release it."""
    machine = start(user_data())
    machine.wait_until(lambda: machine.arn)
    for number in range(12):
        server.secrets.clear()
        if number % 2:
            server.secrets["ghcr"] = SECRET
        seen = len(machine.agents)
        # A wiped file, and 0 to 200 ms of the run that precedes the agent.
        machine.run(["systemctl", "stop", "ecs"])
        idle(machine)
        machine.run(
            [
                "sh",
                "-c",
                f"rm -f /etc/ecs/ecs.config; systemctl --no-block start ecs; sleep {number // 2 / 30}; "
                "systemctl kill --signal=KILL batchreg.service",
            ]
        )
        machine.wait_until(lambda seen=seen: len(machine.agents) > seen)
        if number % 2:
            machine.wait_until(lambda: auth_for(IMAGE, machine.agents[-1]))
            machine.wait_until(lambda: "_PROXY" not in config(machine))
    assert len(machine.agents) >= 12
    for agent in machine.agents:
        assert ("HTTP_PROXY" in agent) != (auth_for(IMAGE, agent) is not None)
