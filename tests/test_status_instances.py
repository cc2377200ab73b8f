"""What `batchreg status` says about instances: who works, and why the others do not."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from stubs import Stubs

from batchreg.stack.instances import Instances, Standing, look

CLUSTER = "arn:aws:ecs:eu-central-1:111122223333:cluster/x"
BOOT = "[   12.3] cloud-init[1312]: something else\n"


def told(stubs: Stubs, **agents: bool) -> None:
    """Let ECS tell of these instances, and whether their agents are connected."""
    arns = [f"{CLUSTER}/{name}" for name in agents]
    stubs.ecs.add_response("list_container_instances", {"containerInstanceArns": arns})
    if agents:
        stubs.ecs.add_response(
            "describe_container_instances",
            {
                "containerInstances": [
                    {"ec2InstanceId": f"i-{name}", "agentConnected": connected}
                    for name, connected in agents.items()
                ]
            },
            {"cluster": CLUSTER, "containerInstances": arns},
        )


def console(stubs: Stubs, name: str, *said: str) -> None:
    text = BOOT + "".join(f"[   20.1] python3[1400]: batchreg: {line}\n" for line in said)
    stubs.ec2.add_response(
        "get_console_output",
        {"Output": base64.b64encode(text.encode()).decode()},
        {"InstanceId": f"i-{name}", "Latest": True},
    )


@pytest.fixture
def stubs() -> Iterator[Stubs]:
    stubs = Stubs("ecs", "ec2")
    yield stubs
    for stub in stubs.stubs.values():
        stub.assert_no_pending_responses()


def found(stubs: Stubs, *, join: bool = False) -> Instances:
    return look(stubs.clients["ecs"], stubs.clients["ec2"], CLUSTER, join=join)


def test_parked_instance_says_why(stubs: Stubs) -> None:
    """In its program's words; the console of a connected agent need not be read."""
    told(stubs, a=True, b=False, c=True)
    console(stubs, "b", "waiting for s: HTTP 400", "parked: s: HTTP 400 AccessDenied")
    seen = found(stubs)
    assert seen == Instances(2, (Standing("i-b", "parked", "s: HTTP 400 AccessDenied"),))
    assert str(seen) == "2 running, 1 parked: s: HTTP 400 AccessDenied"


def test_instance_that_continues_without_credentials_says_why(stubs: Stubs) -> None:
    """It takes jobs, so only its console tells: read where the stack lets instances join."""
    told(stubs, a=True)
    console(stubs, "a", "continuing without credentials: s: not found")
    assert str(found(stubs, join=True)) == "1 without credentials: s: not found"


def test_instance_with_credentials_runs_again(stubs: Stubs) -> None:
    """What it said before no longer counts."""
    told(stubs, a=True)
    console(stubs, "a", "continuing without credentials: s: x", "released")
    assert str(found(stubs, join=True)) == "1 running"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ([], "1 not connected"),
        (["waiting for s: HTTP 400"], "1 not connected: waiting for s: HTTP 400"),
        (["parked: s: x", "powering off"], "1 powered off: s: x"),
        (["/etc/ecs/ecs.config has the credentials for ghcr.io"], "1 not connected"),
    ],
)
def test_agent_that_is_not_connected_is_no_running_instance(
    stubs: Stubs, said: list[str], text: str
) -> None:
    """Whatever the console says, or does not say."""
    told(stubs, a=False)
    console(stubs, "a", *said)
    assert str(found(stubs)) == text


def test_same_reason_of_many_instances_is_said_once(stubs: Stubs) -> None:
    """A secret that is gone parks them all; twenty consoles are enough to see it."""
    names = [f"{number:02}" for number in range(30)]
    told(stubs, **dict.fromkeys(names, False))
    for _ in range(20):
        stubs.ec2.add_response(
            "get_console_output",
            {"Output": base64.b64encode(b"x batchreg: parked: s: gone\n").decode()},
        )
    assert str(found(stubs)) == "20 parked: s: gone, 10 not connected"


def test_cluster_without_instances_has_none(stubs: Stubs) -> None:
    """As most of the time: there are no jobs."""
    told(stubs)
    assert str(found(stubs)) == "none"


def test_missing_permission_for_the_cluster_costs_the_row_alone(stubs: Stubs) -> None:
    """With the permission that is missing."""
    stubs.ecs.add_client_error("list_container_instances", "AccessDeniedException", "no", 400)
    assert str(found(stubs)).startswith("unknown: AWS rejected ListContainerInstances: no.")


def test_missing_permission_for_consoles_costs_the_reason_alone(stubs: Stubs) -> None:
    """That an agent is not connected is known all the same."""
    told(stubs, a=True, b=False)
    stubs.ec2.add_client_error("get_console_output", "UnauthorizedOperation", "no", 403)
    text = str(found(stubs))
    assert text.startswith("1 running, 1 not connected: AWS rejected GetConsoleOutput: no.")


@contextmanager
def joined(account: Any, name: str, *, connected: bool) -> Iterator[None]:
    """Let an instance join the stack's cluster in the embedded AWS."""
    environment = account.outputs["ComputeEnvironmentArn"]
    account.aws.agent(
        "Join", {"InstanceId": name, "Environment": environment, "Connected": connected}
    )
    try:
        yield
    finally:
        account.aws.agent("Leave", {"InstanceId": name})


def test_status_shows_instances_in_a_row_and_in_json(batchreg: Any, made: Any) -> None:
    """The embedded AWS has no consoles, as a user who may not read them."""
    with joined(made, "i-1", connected=True), joined(made, "i-2", connected=False):
        place = made.aws.environ
        shown = batchreg("status", "--stack-name", made.name, environ=place)
        result = batchreg("status", "--stack-name", made.name, "--json", environ=place)
    row = r"^Instances +1 running, 1 not connected: AWS rejected GetConsoleOutput: "
    assert re.search(row, shown.stdout, re.MULTILINE), shown.stdout
    seen = json.loads(result.stdout)["instances"]
    (other,) = seen["others"]
    assert (seen["running"], seen["unknown"]) == (1, None)
    assert (other["id"], other["state"]) == ("i-2", "not connected")


def test_json_has_one_format_of_dates(batchreg: Any, made: Any) -> None:
    """ISO 8601 with a T and an offset, in each command."""
    result = batchreg("status", "--stack-name", made.name, "--json", environ=made.aws.environ)
    (changed,) = json.loads(result.stdout)["secrets"].values()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d", changed)
