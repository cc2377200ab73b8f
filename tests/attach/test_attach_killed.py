"""Attach and detach, killed between any two calls of AWS, continue when they are run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from attach_lab import LOGIN, THEIRS, Lab
from lab.environ import clean
from lab.forwarder import Call, Drop, Forwarder
from local_aws import LocalAws

BATCHREG = str(Path(sys.executable).with_name("batchreg"))
READS = ("Describe", "Get", "List", "/v1/describe", "/v1/list", "Validate")


class Killer(Forwarder):
    """Kills a program before AWS gets a certain one of its calls."""

    def __init__(self, target: str, point: int | None) -> None:
        super().__init__(target)
        self._point, self._seen, self._lock = point, 0, threading.Lock()
        self.pid = 0

    def before(self, call: Call) -> None:
        with self._lock:
            self._seen += 1
            if self._seen == self._point:
                os.kill(self.pid, signal.SIGKILL)
            if self._point and self._seen >= self._point:
                raise Drop


def run(aws: LocalAws, *arguments: str, point: int | None = None) -> tuple[int, list[str]]:
    """Run a command, killed before a call; return its exit status and the calls until then."""
    with Killer(aws.endpoint, point) as killer:
        environ = clean(**{**aws.environ, **LOGIN, "AWS_ENDPOINT_URL": killer.url})
        process = subprocess.Popen(
            [BATCHREG, *arguments], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        killer.pid = process.pid
        output, _ = process.communicate(timeout=60)
        assert point or process.returncode == 0, output.decode()
        return process.returncode, [call.operation for call in killer.calls]


def points(calls: list[str]) -> Iterator[int]:
    """Yield the numbers of the calls before which the account is as before no other.

    Reads in parallel or in a loop change nothing, so that one of each stands for all.
    """
    changed, seen = 0, set()
    for number, operation in enumerate(calls, 1):
        if (changed, operation) not in seen:
            seen.add((changed, operation))
            yield number
        changed += not operation.startswith(READS)


def works(lab: Lab) -> bool:
    """Tell whether new instances of the environment start, with their own scripts."""
    return lab.environment["status"] in ("VALID", "UPDATING") and b"/etc/theirs" in lab.user_data()


def made(aws: LocalAws, name: str) -> Lab:
    lab = Lab(aws, name)
    return lab.make({"launchTemplateId": lab.template("base", THEIRS), "version": "$Latest"})


@pytest.mark.parametrize("command", ["attach", "detach"])
def test_killed_anywhere_it_continues_and_the_environment_always_works(aws, stack, command):
    """SIGKILL leaves no time to clean up."""
    first = made(aws, f"{stack}0")
    calls = run(aws, "attach", first.name, "--yes")[1]
    if command == "detach":
        calls = run(aws, "detach", first.name, "--yes")[1]
    assert {"ExecuteChangeSet", "/v1/updatecomputeenvironment"} & set(calls)
    killed = 0
    for point in points(calls):
        lab = made(aws, f"{stack}-{point}")
        before = lab.environment
        if command == "detach":
            run(aws, "attach", lab.name, "--yes")
        status, _ = run(aws, command, lab.name, "--yes", point=point)
        # How often it asks whether something has ended differs: the last points may not be reached.
        assert status in (0, -signal.SIGKILL), point
        killed += status != 0
        assert works(lab), point
        if command == "attach":
            run(aws, "attach", lab.name, "--yes")
            assert b"/opt/batchreg/" in lab.user_data(), point
            assert works(lab), point
        run(aws, "detach", lab.name, "--yes")
        assert lab.companion is None, point
        after = lab.environment
        assert {**after, "statusReason": ""} == {**before, "statusReason": ""}, point
    assert killed > 5


def test_switch_to_the_cache_and_back_continues_wherever_it_was_killed(aws, stack):
    """Before the first change and after each; the environment works at every point."""
    switches = (("--pull-through-cache", "all"), ("--pull-through-cache", "none"))
    lab = made(aws, stack)
    before = lab.environment
    run(aws, "attach", lab.name, "--yes", "--registry-url", "ghcr.io")
    whole = [run(aws, "attach", lab.name, "--yes", *switch)[1] for switch in switches]
    changes = [
        [number for number, call in enumerate(calls, 1) if not call.startswith(READS)]
        for calls in whole
    ]
    killed = 0
    for turn in range(1 + max(map(len, changes))):
        for (option, value), numbers in zip(switches, changes, strict=True):
            point = [numbers[0], *(number + 1 for number in numbers)][min(turn, len(numbers))]
            switch = ("attach", lab.name, "--yes", option, value)
            status, _ = run(aws, *switch, point=point)
            assert status in (0, -signal.SIGKILL), (value, point)
            killed += status != 0
            assert works(lab), (value, point)
            run(aws, *switch)
            on_instances = value == "none"
            assert (b"/opt/batchreg/" in lab.user_data()) == on_instances, (value, point)
            assert ("CacheRepositoryPrefix" in lab.outputs) != on_instances, (value, point)
    assert killed > 5
    run(aws, "detach", lab.name, "--yes")
    assert {**lab.environment, "statusReason": ""} == {**before, "statusReason": ""}
