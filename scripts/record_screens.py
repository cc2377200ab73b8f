"""Record the terminal screens of the documents: commands of a story, run against an embedded AWS.

A screen stands in a document between a marker and the end of its block:

    <!-- screen: status -->
    ```console
    $ batchreg status --stack-name genomics
    ```

The story below says which commands run, in which order, and what a person answers. Under the names
ghcr.io and Docker Hub's a test registry answers. What differs from run to run (ids, times) is
replaced by values that do not, long lines are folded between words, and `...` stands for what is
left out. `make docs` writes the screens; a test compares them.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import documented
from attach_archives import multipart, shell
from attach_lab import Lab
from lab.environ import clean
from local_aws import LocalAws
from registry_server import RegistryServer
from terminal import Terminal

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BATCHREG = Path(sys.executable).with_name("batchreg")
WIDTH = 88  # of a screen: what fits on GitHub, PyPI and the site
PASSWORD, NEW_PASSWORD = "pass:word", "word:pass"
BLOCK = re.compile(r"(?m)^<!-- screen: ([a-z-]+) -->\n```console\n((?:.*\n)*?)```$")

# The events of a stack, whose order and time depend on the machine.
EVENT = re.compile(r"_(?:COMPLETE|IN_PROGRESS)  \d+ s$")
ROW = r"[A-Z]\w+ +AWS::\S+"  # of a table of resources
# What differs from run to run, and what stands there instead of the n-th such thing in a screen.
UNSTEADY: tuple[tuple[str, Callable[[int], str]], ...] = (
    (r"(?<=lt-)[0-9a-f]{17}", lambda n: f"0a1b2c3d4e5f6a7{n:02}"),
    (
        r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        lambda n: f"2a58d41c-4c28-498f-bc4d-{n:012}",
    ),
    (r"(?m)^[0-9a-f]{8}(?=  )", lambda n: f"2a58d{n:03}"),
    (r"(?<=ment-|ueue-)[0-9a-f]{12}\b", lambda n: f"5769b264d{n:03}"),
    (r"(?:\d{4}-\d\d-\d\d )?\d\d:\d\d(?= at the latest)", lambda _: "10:12"),
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b", lambda _: "2026-11-26 09:41"),
)

OUTPUTS = r"^[A-Z]\w+: (arn:|lt-|\w+/|\d)"  # of a stack

# What is on the screen, and what is typed then or happens then.
Answers = tuple[tuple[str, "str | Callable[[World], None]"], ...]
ASK_PASSWORD = ("Password or access token:", PASSWORD)
CONFIRM = ("[y/N]:", "y")
NOT_SAVED = ("Save these settings to batchreg.yaml?", "n")  # which would change what follows


@dataclass
class World:
    """An account with a queue whose environment has no credentials, and a private registry."""

    aws: LocalAws
    registry: RegistryServer
    folder: Path
    environ: dict[str, str]

    def failed_job(self) -> None:
        """Let a job fail on the queue as it does where instances have no credentials."""
        batch = self.aws.client("batch")
        reason = (
            "CannotPullImageManifestError: Error response from daemon: Head "
            '"https://ghcr.io/v2/lab/align/manifests/3": unauthorized'
        )
        self.aws.set_jobs("FAILED", reason="Task failed to start", container={"reason": reason})
        needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "2048"}]
        definition = batch.register_job_definition(
            jobDefinitionName="align",
            type="container",
            containerProperties={"image": "ghcr.io/lab/align:3", "resourceRequirements": needs},
        )["jobDefinitionArn"]
        batch.submit_job(jobName="align", jobQueue="research", jobDefinition=definition)
        self.aws.set_jobs("SUCCEEDED", exit_code=0)

    def jobs_wait(self) -> None:
        self.aws.set_jobs("RUNNABLE")

    def job_runs(self) -> None:
        self.aws.set_jobs("RUNNING", job_id=self._job)
        log = {"logGroupName": "/aws/batch/job", "logStreamName": self._log_stream}
        logs = self.aws.client("logs")
        logs.create_log_group(logGroupName=log["logGroupName"])
        logs.create_log_stream(**log)
        line = {"timestamp": 1_700_000_000_000, "message": "120 reads aligned"}
        logs.put_log_events(**log, logEvents=[line])

    def job_ends(self) -> None:
        """Let it end four minutes after it was submitted, as jobs of a person do."""
        self.aws.set_jobs(
            "SUCCEEDED",
            job_id=self._job,
            exit_code=0,
            reason="Essential container in task exited",
            createdAt=int((time.time() - 245) * 1000),
        )
        self.aws.set_jobs("SUCCEEDED", exit_code=0)

    @property
    def _job(self) -> str:
        """The id of the one job on the queue of the stack that has not ended."""
        batch, queue = self.aws.client("batch"), self._output("JobQueueArn")
        (job,) = (
            job
            for status in ("RUNNABLE", "RUNNING")
            for job in batch.list_jobs(jobQueue=queue, jobStatus=status)["jobSummaryList"]
        )
        return str(job["jobId"])

    @property
    def _log_stream(self) -> str:
        (job,) = self.aws.client("batch").describe_jobs(jobs=[self._job])["jobs"]
        return str(job["container"]["logStreamName"])

    def _output(self, name: str) -> str:
        (stack,) = self.aws.client("cloudformation").describe_stacks(StackName="genomics")["Stacks"]
        return str({one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}[name])

    def invalidated(self) -> None:
        """Let the environment become INVALID as it does when no instance joins its cluster."""
        for _ in range(2):
            self.aws.lost(self._output("ComputeEnvironmentArn"), "powered off")

    def new_password(self) -> None:
        self.registry.users["lab"] = NEW_PASSWORD


@dataclass(frozen=True)
class Screen:
    """A command, what a person answers at its prompts, and a pattern of lines to leave out."""

    name: str
    command: str
    answers: Answers = ()
    status: int = 0
    cut: str = ""
    is_code: bool = False  # lines are not folded


STORY: tuple[Screen | Callable[[World], None], ...] = (
    World.failed_job,
    Screen(
        "doctor-queue",
        "batchreg doctor --queue research",
        status=1,
        # The embedded AWS has no quotas.
        cut=r"^Looked at|^Not looked at|^   servicequotas",
    ),
    Screen(
        "check",
        "batchreg check ghcr.io/lab/align:3 ghcr.io/lab/sort:3.3 --registry-url ghcr.io "
        "--username lab",
        (ASK_PASSWORD,),
        status=1,
    ),
    Screen(
        "attach-plan", "batchreg attach research --registry-url ghcr.io --username lab --dry-run"
    ),
    Screen(
        "attach",
        "batchreg attach research --registry-url ghcr.io --username lab",
        (ASK_PASSWORD, CONFIRM),
        cut=OUTPUTS,
    ),
    Screen("status-attached", "batchreg status --stack-name batchreg-research"),
    Screen(
        "engine-nextflow-attached",
        "batchreg engine nextflow --stack-name batchreg-research",
        is_code=True,
    ),
    World.new_password,
    Screen(
        "rotate",
        "batchreg rotate --stack-name batchreg-research",
        (("New password for ghcr.io:", NEW_PASSWORD), CONFIRM),
    ),
    Screen("detach", "batchreg detach research", (CONFIRM,)),
    Screen(
        "deploy",
        "batchreg deploy --stack-name genomics --registry-url ghcr.io",
        (
            ("User name at the registry:", "lab"),
            ("Password or access token:", NEW_PASSWORD),
            ("Subnets (", "1,2"),
            ("Security groups (", "1"),
            CONFIRM,
            NOT_SAVED,
        ),
        cut=OUTPUTS,
    ),
    World.jobs_wait,
    Screen(
        "submit",
        "batchreg submit ghcr.io/lab/align:3 --stack-name genomics --vcpus 4 --memory 8G "
        "-- align --all",
        (("RUNNABLE", World.job_runs), ("120 reads aligned", World.job_ends)),
    ),
    Screen("status", "batchreg status --stack-name genomics"),
    Screen("jobs", "batchreg jobs --stack-name genomics"),
    Screen(
        "deploy-update",
        "batchreg deploy --stack-name genomics --root-volume-gib 200 --instance-type m7i",
        (CONFIRM,),
        cut=OUTPUTS,
    ),
    World.invalidated,
    Screen(
        "deploy-replace",
        "batchreg deploy --stack-name genomics",
        (("[y/N]:", "y"), CONFIRM),
        cut=OUTPUTS,
    ),
    Screen(
        "deploy-refused",
        "batchreg deploy --stack-name genomics --subnet-id subnet-9f8e --security-group-id sg-7d6c",
        status=1,
    ),
    Screen("destroy", "batchreg destroy --stack-name genomics", (CONFIRM,)),
    Screen(
        "cache-deploy",
        "batchreg deploy --stack-name cached --registry-url ghcr.io --username lab "
        "--pull-through-cache --default-vpc",
        (("Password or access token:", NEW_PASSWORD), CONFIRM, NOT_SAVED),
        cut=OUTPUTS,
    ),
    Screen("image", "batchreg image --stack-name cached ghcr.io/lab/align:3 quay.io/lab/sort:1"),
    Screen("engine-nextflow-cached", "batchreg engine nextflow --stack-name cached", is_code=True),
    Screen("cache-destroy", "batchreg destroy --stack-name cached", (CONFIRM,)),
)


@contextmanager
def world() -> Iterator[World]:
    """Start the embedded AWS and the registry, with nothing of batchreg's in it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchreg-screens-")))
        registry, at_registry = stack.enter_context(documented.registry(folder, PASSWORD))
        aws = stack.enter_context(LocalAws())
        lab = Lab(aws, "research")
        base = lab.template("base", multipart(shell("mount /mnt/shared")))
        lab.make({"launchTemplateId": base, "version": "$Latest"})
        given = {key: value for key, value in aws.environ.items() if key[:9] != "BATCHREG_"}
        environ = clean(
            **given,
            HOME=str(folder),
            PATH=f"{BATCHREG.parent}:{os.environ['PATH']}",
            DOCKER_CONFIG=str(folder),
            **at_registry,
        )
        (folder / "empty").mkdir()
        yield World(aws, registry, folder / "empty", environ)


def record(there: World, screen: Screen) -> str:
    """Run a command at a terminal, and return what a document shows of it."""
    # stdout is the terminal as well, as for a person. It is wide: `fold` breaks lines at words.
    line = f"exec {screen.command} >&2"
    terminal = Terminal(
        "/bin/sh", "-c", line, environ=there.environ, folder=there.folder, columns=1000
    )
    try:
        for prompt, answer in screen.answers:
            terminal.expect(prompt)
            if isinstance(answer, str):
                terminal.type(f"{answer}\n")
            else:
                answer(there)
        status = terminal.wait()
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{screen.command} waits for something:\n{terminal.output}") from None
    finally:
        terminal.close()
    lines = [each.rstrip() for each in terminal.screen]
    if status != screen.status:
        text = "\n".join(lines)
        raise RuntimeError(f"{screen.command} ended with exit status {status}:\n{text}")
    shown = "\n".join([*command_lines(screen.command), *left_out(screen, lines)])
    return steady(shown).strip("\n") + "\n"


def command_lines(command: str) -> list[str]:
    """Return a command as it is typed, on several lines if it is long."""
    lines = textwrap.wrap(
        f"$ {command}", WIDTH - 2, subsequent_indent="    ", break_on_hyphens=False
    )
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def left_out(screen: Screen, lines: list[str]) -> Iterator[str]:
    """Yield the lines, folded, with `...` for the events of a stack and for lines to cut."""
    before = ""
    for line in in_order(lines):
        if EVENT.search(line) or (screen.cut and re.search(screen.cut, line)):
            if before != "...":
                yield "..."
            before = "..."
        else:
            yield from [line] if screen.is_code else fold(line)
            before = line


def in_order(lines: list[str]) -> Iterator[str]:
    """Yield the lines; resources that will be deleted come in any order, and are sorted."""
    rows: list[str] = []
    for line in [*lines, ""]:
        if re.fullmatch(ROW, line):
            rows.append(line)
        else:
            yield from sorted(rows)
            yield line
            rows = []


def fold(line: str) -> list[str]:
    """Break a long line between words; what follows is indented as the line is."""
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line,
        WIDTH,
        subsequent_indent=indent,
        drop_whitespace=True,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]


def steady(text: str) -> str:
    """Replace ids and times by others of the same length that are the same in each recording."""
    for pattern, made in UNSTEADY:
        known = {found: made(n) for n, found in enumerate(dict.fromkeys(re.findall(pattern, text)))}
        for found, stands in known.items():
            text = text.replace(found, stands)
    minutes = itertools.count(41)  # two events of one second are two events
    return re.sub(r"(?m)^\d\d:\d\d:\d\d(?=  )", lambda _: f"09:{next(minutes)}:07", text)


def written(page: str, screens: Mapping[str, str]) -> str:
    """Return a page with its screens as they were recorded."""
    return BLOCK.sub(
        lambda found: f"<!-- screen: {found[1]} -->\n```console\n{screens[found[1]]}```", page
    )


def screens() -> dict[str, str]:
    """Run the story, and return its screens by name."""
    recorded = {}
    with world() as there:
        for step in STORY:
            if isinstance(step, Screen):
                recorded[step.name] = record(there, step)
            else:
                step(there)
    return recorded


def main() -> None:
    recorded = screens()
    for page in PAGES:
        page.write_text(written(page.read_text(), recorded))


if __name__ == "__main__":
    main()
