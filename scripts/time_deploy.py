"""Time what batchreg itself adds to a deploy, beyond what AWS takes.

Each run is a whole process, from its start to its end, against the embedded AWS behind a proxy that
notes when each call begins and ends. AWS's part is the time in which a call is under way, or the
stack has been told to change and has not settled; pauses after that are batchreg's. The medians of
several runs must stay under one second, also when the stack has a long history, and when AWS takes
its time so that batchreg has to wait.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.environ import clean
from lab.forwarder import Call, Forwarder
from local_aws import LocalAws

BATCHREG = str(Path(sys.executable).with_name("batchreg"))
LIMIT_SECONDS = 1.0
PACE = 0.5
LOGIN = ["--username", "lab"]


@dataclass(frozen=True)
class Run:
    """One process: when it began and ended, what it asked AWS, and when AWS was at work."""

    began: float
    ended: float
    cpu: float
    calls: tuple[Call, ...]
    work: tuple[tuple[float, float], ...]  # when AWS worked on a change set, or on the stack

    @property
    def aws(self) -> float:
        """Return the seconds in which AWS was at work, calls side by side counted once."""
        total, until = 0.0, self.began
        for began, ended in sorted(
            [*((call.began, call.ended) for call in self.calls), *self.work]
        ):
            total += max(0.0, min(ended, self.ended) - max(began, until))
            until = max(until, ended)
        return total

    @property
    def wall(self) -> float:
        return self.ended - self.began

    @property
    def own(self) -> float:
        return self.wall - self.aws

    @property
    def start(self) -> float:
        """Return the seconds until the first call: Python's start, imports, rendering."""
        return self.calls[0].began - self.began


def deploy(aws: LocalAws, stack: str, *options: str, pace: float = 0) -> Run:
    """Run `batchreg deploy` and time it; a change set takes `pace` seconds. Exit where it fails."""
    password = {"BATCHREG_PASSWORD": "hunter2"} if "--username" in options else {}
    with Forwarder(aws.endpoint) as forwarder, tempfile.TemporaryDirectory() as folder:
        environ = clean(**{**aws.environ, **password, "AWS_ENDPOINT_URL": forwarder.url})
        before, began = cpu(), time.time()
        result = subprocess.run(
            [BATCHREG, "deploy", "--yes", "--stack-name", stack, *options],
            text=True,
            capture_output=True,
            env=environ,
            cwd=folder,
        )
        ended = time.time()
        used = cpu() - before
    if result.returncode:
        sys.exit(result.stderr)
    calls = forwarder.calls
    work = [
        (call.ended, call.ended + pace) for call in calls if call.operation == "CreateChangeSet"
    ]
    work += [
        (call.ended, settled(aws, stack)) for call in calls if call.operation == "ExecuteChangeSet"
    ]
    return Run(began, ended, used, tuple(calls), tuple(work))


def cpu() -> float:
    """Return the processor seconds of the processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def settled(aws: LocalAws, stack: str) -> float:
    """Return when the stack's last operation ended."""
    newest = aws.client("cloudformation").describe_stack_events(StackName=stack)["StackEvents"][0]
    return float(newest["Timestamp"].timestamp())


def add_history(aws: LocalAws, stack: str, events: int) -> None:
    """Update the stack until it has so many events."""
    client = aws.client("cloudformation")
    (described,) = client.describe_stacks(StackName=stack)["Stacks"]
    names = [parameter["ParameterKey"] for parameter in described["Parameters"]]
    vcpus = 1000
    while len(client.describe_stack_events(StackName=stack)["StackEvents"]) < events:
        vcpus += 1
        client.update_stack(
            StackName=stack,
            UsePreviousTemplate=True,
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": "MaxvCpus", "ParameterValue": str(vcpus)}
                if name == "MaxvCpus"
                else {"ParameterKey": name, "UsePreviousValue": True}
                for name in names
            ],
        )
        client.get_waiter("stack_update_complete").wait(
            StackName=stack, WaiterConfig={"Delay": 0.01, "MaxAttempts": 1000}
        )


def report(what: str, runs: list[Run]) -> float:
    """Print a line on the runs, and return the median of batchreg's own time."""
    own = statistics.median(run.own for run in runs)
    wall, aws, start, used = (
        statistics.median(getattr(run, name) for run in runs)
        for name in ("wall", "aws", "start", "cpu")
    )
    counts = Counter(call.operation for call in runs[-1].calls)
    calls = ", ".join(f"{count} {name}" if count > 1 else name for name, count in counts.items())
    print(
        f"{what:<34}{wall:6.2f} s {aws:6.2f} s {own:6.2f} s {start:6.2f} s {used:6.2f} s   "
        f"{sum(counts.values()):2}: {calls}",
        flush=True,
    )
    return own


def main() -> None:
    parser = argparse.ArgumentParser(description="Time what batchreg adds to a deploy.")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--events", type=int, default=500, help="of history (%(default)s)")
    options = parser.parse_args()
    print(
        f"Medians of {options.runs} runs. start: the part of `own` before the first call; cpu: "
        "of the process, which on a\nbusy machine is less than its time."
    )
    print(f"{'':<34}{'wall':>8} {'AWS':>8} {'own':>8} {'start':>8} {'cpu':>8}   calls")
    vcpus = iter(range(16, 10_000))

    with LocalAws(pace=PACE) as aws:
        medians = [
            report(
                f"create, {PACE} s a resource",
                [deploy(aws, f"s{number}", *LOGIN, pace=PACE) for number in range(options.runs)],
            )
        ]
    with LocalAws() as aws:
        kinds: list[tuple[str, Callable[[], Run]]] = [
            ("update", lambda: deploy(aws, "s0", "--max-vcpus", str(next(vcpus)))),
            ("no change", lambda: deploy(aws, "s0")),
            ("no change, with the login again", lambda: deploy(aws, "s0", *LOGIN)),
        ]
        medians.append(
            report("create", [deploy(aws, f"s{number}", *LOGIN) for number in range(options.runs)])
        )
        for history in ("", f", {options.events} events of history"):
            if history:
                add_history(aws, "s0", options.events)
                print(f"With {options.events} events of history:")
            medians += [report(what, [run() for _ in range(options.runs)]) for what, run in kinds]
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        print(f"This machine is busy (load {load:.1f} on {cores} cores): all times are too long.")
    if max(medians) >= LIMIT_SECONDS:
        sys.exit(f"batchreg adds {max(medians):.2f} s, {LIMIT_SECONDS:.0f} s is the limit.")


if __name__ == "__main__":
    main()
