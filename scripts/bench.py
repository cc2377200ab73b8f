"""Measure batchreg beside what a user would pick instead, and print medians and ratios.

All times of a table come from one run, in which the commands took turns. Tools that are no part of
the development environment go into `.bench/`, a virtual environment each; what cannot be had is
named and left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import bench_boot
import fleet
from lab.environ import clean
from lab.forwarder import Call, Forwarder
from local_aws import LocalAws
from tables import Table, milliseconds, ratio, show
from theirs import make_queue

ROOT = Path(__file__).parent.parent
TOOLS = ROOT / ".bench"
BIN = Path(sys.executable).parent
STACK, THEIRS = "bench", "theirs"
DISTANCE = 0.1  # seconds, of each call in the part `distant`
DEPLOY = ("deploy", "--stack-name", STACK, "--yes")
RELEASED = "1098984"  # the commit of version 0.1.0

CLICK = "import click"
TEMPLATE = "import troposphere.batch, troposphere.ec2, troposphere.iam, troposphere.secretsmanager"
BOTO3 = "import boto3; client = boto3.client('cloudformation')"
CALLS = f"client.describe_stacks(StackName='{STACK}'); client.get_template(StackName='{STACK}')"

# Fair to them: templates that are ready-made, where batchreg builds its own.
SCEPTRE = {
    "config/dev/config.yaml": "project_code: bench\nregion: us-east-1\n",
    "config/dev/batch.yaml": "template: {path: template.yaml, type: file}\n",
}
CDK = {
    "app.py": """\
from aws_cdk import App, SecretValue, Stack
from aws_cdk import aws_batch as batch, aws_ec2 as ec2, aws_secretsmanager as secretsmanager

app = App()
stack = Stack(app, "Bench")
vpc = ec2.Vpc.from_vpc_attributes(
    stack, "Vpc", vpc_id="vpc-01234567", availability_zones=["us-east-1a"],
    private_subnet_ids=["subnet-01234567"])
secret = secretsmanager.Secret(stack, "RegistrySecret")
template = ec2.LaunchTemplate(stack, "LaunchTemplate", user_data=ec2.UserData.for_linux())
environment = batch.ManagedEc2EcsComputeEnvironment(
    stack, "ComputeEnvironment", vpc=vpc, launch_template=template, maxv_cpus=256)
secret.grant_read(environment.instance_role)
batch.JobQueue(stack, "JobQueue", compute_environments=[
    batch.OrderedComputeEnvironment(compute_environment=environment, order=1)])
app.synth()
"""
}


@dataclass(frozen=True)
class Contestant:
    """A command. Beside another it is a floor, or a tool that does the same for a user."""

    name: str
    command: list[str]
    beside: str = ""
    floor: bool = False
    target: str = ""
    times: list[float] = field(default_factory=list)


class Missing(Exception):
    """A tool that cannot be had here; the text says why."""


def tool(package: str, program: str, *, npm: bool = False) -> str:
    """Return the path of a tool from PyPI or npm; install it once."""
    folder = TOOLS / package
    if not (folder / "ready").exists():
        print(f"Installing {package} into {folder.relative_to(ROOT)}", flush=True)
        if npm:
            _run("npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), package)
        else:
            _run(sys.executable, "-m", "venv", str(folder))
            _run(str(folder / "bin/pip"), "install", "--quiet", package)
        (folder / "ready").touch()
    return str(folder / ("node_modules/.bin" if npm else "bin") / program)


def _run(*command: str, **more: Any) -> float:
    """Run a command and return its seconds; Missing where it fails, with what it said last."""
    began = time.perf_counter()
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=900, **more)
    except FileNotFoundError:
        raise Missing(f"no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"{command[0]} took too long") from None
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).strip().splitlines() or ["no reason given"]
        raise Missing(f"{Path(command[0]).name}: {said[-1]}") from None
    return time.perf_counter() - began


def contestants(folder: Path) -> list[Contestant]:
    """Return what runs in turn, and say what is left out."""
    python, batchreg = sys.executable, str(BIN / "batchreg")
    found = [
        Contestant("batchreg --help", [batchreg, "--help"]),
        Contestant(
            f"python -c '{CLICK}'",
            [python, "-c", CLICK],
            "batchreg --help",
            floor=True,
            target="at most 1.3",
        ),
        Contestant("batchreg render", [batchreg, "render"]),
        Contestant(
            "python -c 'import click, troposphere.…'",
            [python, "-c", f"{CLICK}; {TEMPLATE}"],
            "batchreg render",
            floor=True,
            target="at most 1.25",
        ),
    ]
    others: list[tuple[str, str, Callable[[], list[str]]]] = [
        (
            "sceptre generate",
            "at least 5",
            lambda: [
                tool("sceptre", "sceptre"),
                "--dir",
                str(folder),
                "generate",
                "dev/batch.yaml",
            ],
        ),
        (
            "sam validate",
            "at least 10",
            lambda: [
                tool("aws-sam-cli", "sam"),
                "validate",
                "--template",
                str(folder / "template.yaml"),
                "--region",
                "us-east-1",
            ],
        ),
        (
            "cdk synth",
            "at least 20",
            lambda: [
                tool("aws-cdk@2", "cdk", npm=True),
                "synth",
                "--quiet",
                "--no-notices",
                "--output",
                str(folder / "cdk.out"),
                "--app",
                f"{tool('aws-cdk-lib', 'python')} {folder}/app.py",
            ],
        ),
    ]
    for name, target, command in others:
        try:
            found.append(Contestant(name, command(), "batchreg render", target=target))
        except Missing as reason:
            print(f"Left out: {name} ({reason})")
    deploy, aws = "batchreg deploy, no change", str(BIN / "aws")
    template = str(folder / "template.yaml")
    return [
        *found,
        Contestant(deploy, [batchreg, *DEPLOY]),
        Contestant(
            "python -c 'import …', and its calls",
            [python, "-c", f"{CLICK}; {TEMPLATE}; {BOTO3}; {CALLS}"],
            deploy,
            floor=True,
        ),
        Contestant(
            "aws cloudformation validate-template",
            [aws, "cloudformation", "validate-template", "--template-body", f"file://{template}"],
            deploy,
        ),
        Contestant(
            "aws cloudformation deploy, no change",
            [
                aws,
                "cloudformation",
                "deploy",
                "--stack-name",
                STACK,
                "--template-file",
                template,
                "--capabilities",
                "CAPABILITY_IAM",
                "--no-fail-on-empty-changeset",
            ],
            deploy,
        ),
    ]


def commands(runs: int) -> Table:
    """Return a table of batchreg's commands, their floors, and other tools."""
    with tempfile.TemporaryDirectory() as name, LocalAws() as aws:
        folder = Path(name)
        # Compiled code counts, and the tools keep caches at home.
        environ = clean("PYTHON", **aws.environ, HOME=name, SAM_CLI_TELEMETRY="0")
        for place, text in {**SCEPTRE, **CDK}.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text(text)
        (folder / "templates").symlink_to(".")  # where sceptre looks

        def seconds(*command: str, **more: str) -> float:
            return _run(*command, cwd=folder, env={**environ, **more})

        batchreg = str(BIN / "batchreg")
        deploy = (batchreg, *DEPLOY)
        seconds(batchreg, "render", "-o", "template.yaml")
        seconds(*deploy, "--username", "lab", BATCHREG_PASSWORD="secret")
        everyone = []
        for each in contestants(folder):
            try:
                seconds(*each.command)  # fills the caches, and shows what does not work here
                everyone.append(each)
            except Missing as reason:
                print(f"Left out: {each.name} ({reason})")
        for number in range(runs):
            # Neighbours change places, or one would always run in the wake of the other.
            turns = [(place ^ number % 2, each) for place, each in enumerate(everyone)]
            for _, each in sorted(turns, key=itemgetter(0)):
                each.times.append(seconds(*each.command))
        called = _calls(aws, lambda url: seconds(*deploy, AWS_ENDPOINT_URL=url))
    print(f"A deploy without changes makes {len(called)} calls: {', '.join(called)}.")
    times = {each.name: each.times for each in everyone}
    return [
        ("command", "median", "batchreg takes", "target"),
        *(_row(each, times.get(each.beside)) for each in everyone),
    ]


def _row(one: Contestant, ours: list[float] | None) -> tuple[str, ...]:
    if not ours:
        return one.name, milliseconds(one.times)
    words = (
        f"{ratio(ours, one.times):.2f} x as long"
        if one.floor
        else f"1/{ratio(one.times, ours):.1f} of that"
    )
    return f"  {one.name}", milliseconds(one.times), words, one.target


def _calls(aws: LocalAws, act: Callable[[str], object]) -> list[str]:
    """Return the names of the AWS calls that `act` makes when it is given an address."""
    with Forwarder(aws.endpoint) as forwarder:
        act(forwarder.url)
    return [call.operation for call in forwarder.calls]


class Distant(Forwarder):
    """An AWS that takes its time: each call waits, however many are under way."""

    def before(self, call: Call) -> None:
        time.sleep(DISTANCE)


def distant(runs: int) -> Table:
    """Return a table of what reads a lot from an AWS that is far away, in units of one call."""
    batchreg = str(BIN / "batchreg")
    login = ("--registry-url", "ghcr.io", "--username", "lab", "--no-check", "--yes")
    rows = {
        "one call": [sys.executable, "-c", f"{BOTO3}; client.describe_stacks()"],
        "batchreg status": [batchreg, "status", "--stack-name", STACK],
        "batchreg doctor --queue": [batchreg, "doctor", "--queue", THEIRS],
        "batchreg attach --dry-run": [batchreg, "attach", THEIRS, *login, "--dry-run"],
    }
    with tempfile.TemporaryDirectory() as home, LocalAws() as aws:
        environ = clean("PYTHON", **aws.environ, HOME=home, BATCHREG_PASSWORD="secret")
        _run(batchreg, *DEPLOY, "--default-vpc", "--username", "lab", "--no-check", env=environ)
        make_queue(aws, THEIRS)
        here: dict[str, list[float]] = {name: [] for name in rows}
        there: dict[str, list[float]] = {name: [] for name in rows}
        calls = {}
        for _ in range(runs):
            for name, command in rows.items():
                with Distant(aws.endpoint) as far:
                    there[name].append(_timed(command, {**environ, "AWS_ENDPOINT_URL": far.url}))
                    calls[name] = len(far.calls)
                here[name].append(_timed(command, environ))
    # The least of each: what else the machine does only adds to it.
    more = {name: (min(there[name]) - min(here[name])) / DISTANCE for name in rows}
    return [
        ("command", "calls", "at once", f"{DISTANCE * 1000:g} ms a call", "in calls"),
        *(
            (
                name,
                str(calls[name]),
                milliseconds([min(here[name])]),
                milliseconds([min(there[name])]),
                f"{more[name]:.1f}",
            )
            for name in rows
        ),
    ]


def _timed(command: list[str], environ: Mapping[str, str]) -> float:
    """Return the seconds of a command; doctor's exit status says what it has found."""
    began = time.perf_counter()
    done = subprocess.run(command, env=environ, capture_output=True, timeout=60)
    if done.returncode not in (0, 1 if "doctor" in command else 0):
        raise Missing(f"{command[1]}: {done.stderr.decode()[-200:]}")
    return time.perf_counter() - began


def before_and_now(runs: int, commit: str) -> Table:
    """Return a table of this version beside the one of a commit, with the same libraries."""
    module = [sys.executable, "-P", "-m", "batchreg"]
    commands = {"--help": ["--help"], "render": ["render"], "deploy, no change": [*DEPLOY]}
    with tempfile.TemporaryDirectory() as name, LocalAws() as aws, LocalAws() as other:
        folder = Path(name)
        archive = folder / "source.tar"
        _run("git", "archive", "--output", str(archive), commit, "src", cwd=ROOT)
        _run("tar", "-xf", str(archive), "-C", name)
        sides = [
            clean("PYTHON", **each.environ, HOME=name, PYTHONPATH=str(source / "src"))
            for each, source in ((other, folder), (aws, ROOT))
        ]
        for environ in sides:
            make = {**environ, "BATCHREG_PASSWORD": "secret", "BATCHREG_NO_CHECK": "1"}
            _run(*module, *DEPLOY, "--default-vpc", "--username", "lab", env=make)
        times: dict[str, tuple[list[float], list[float]]] = {each: ([], []) for each in commands}
        for number in range(runs):
            for each, arguments in commands.items():
                for side in (0, 1) if number % 2 else (1, 0):
                    command = [*module, *arguments]
                    times[each][side].append(_timed(command, sides[side]))
    return [
        ("command", commit, "now", "now takes", "target"),
        *(
            (
                f"batchreg {each}",
                milliseconds(old),
                milliseconds(new),
                f"{ratio(new, old):.2f} x as long",
                "at most 1",
            )
            for each, (old, new) in times.items()
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure batchreg beside the alternatives.")
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        default=["commands", "distant", "before", "boot", "fleet"],
        help="commands, distant, before, boot or fleet; all of them by default",
    )
    parser.add_argument("--against", default=RELEASED, help="commit for the part `before`")
    parser.add_argument("--runs", type=int, default=12)
    options = parser.parse_args()
    if "commands" in options.parts:
        print(
            f"\nWhole processes, medians of {options.runs} turns. The tools get templates that "
            "are ready-made."
        )
        show(commands(options.runs))
    if "distant" in options.parts:
        print(
            f"\nWhole processes, with an AWS {DISTANCE * 1000:g} ms away; the least of "
            f"{options.runs}. In calls: what the distance adds, as a multiple of one call's."
        )
        show(distant(options.runs))
    if "before" in options.parts:
        print(f"\nWhole processes in turn, beside version 0.1.0 ({options.against}); medians.")
        try:
            show(before_and_now(options.runs, options.against))
        except Missing as missing:
            print(f"Left out: {missing}")
    if "boot" in options.parts:
        print(
            f"\nThe boot step, medians of {options.runs} turns. own: without the time of the "
            "answers."
        )
        if reason := bench_boot.needs():
            print(f"Left out: {reason}")
        else:
            show(bench_boot.compare(options.runs))
            print(f"The walk-through also installs {bench_boot.PACKAGES} before that.")
    if "fleet" in options.parts:
        print(
            f"\nA fleet that boots at one moment under a limit of {fleet.RATE} calls a second, "
            "simulated."
        )
        fleet.main()


if __name__ == "__main__":
    main()
