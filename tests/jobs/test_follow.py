"""Jobs that `submit` and `logs --follow` follow to their end, on the embedded AWS.

Each run is a scenario: a thread that plays AWS Batch and CloudWatch while the process runs. All of
them start together, and each test then looks at what one has left.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import schemas
from local_aws import LocalAws
from submitting import (
    BATCHREG,
    EXITED,
    GROUP,
    IMAGE,
    NO_PULL,
    TOO_LARGE,
    USER,
    Run,
    deploy,
    described,
    detached,
    environ,
    run,
)

UNDER_WAY: list[subprocess.Popen[bytes]] = []


class Followed:
    """A process that follows a job, and the hands of AWS on that job."""

    def __init__(
        self, aws: LocalAws, folder: Path, *arguments: str, one_line: bool = False, **more: str
    ) -> None:
        self.aws = aws
        self._files = folder / "out", folder / "err"
        self._arguments = arguments
        command = [BATCHREG, *arguments]
        if one_line:  # read by a reader that then leaves
            pipe = '"$@" | head -1; exit ${PIPESTATUS[0]}'
            command = ["bash", "-c", pipe, "bash", *command]
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(
                command, env=environ(aws, **more), stdout=out, stderr=err, cwd="/"
            )
        self.logs = aws.client("logs")
        UNDER_WAY.append(self.process)

    @property
    def out(self) -> str:
        return self._files[0].read_text(errors="surrogateescape")

    @property
    def err(self) -> str:
        return self._files[1].read_text()

    def wait_for(self, text: str) -> re.Match[str]:
        """Wait until the process has said so."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            ended = self.process.poll() is not None
            if found := re.search(text, self.err + self.out):
                return found
            assert not ended, self.err
            time.sleep(0.02)
        raise AssertionError(f"{text} never came:\n{self.err}{self.out}")

    @property
    def job_id(self) -> str:
        return self.wait_for(r"Job ([0-9a-f-]{36}), of")[1]

    def set(self, status: str, **more: Any) -> None:
        self.aws.set_jobs(status, job_id=self.job_id, **more)

    def write(self, *lines: str, stream: str | None = None, time: int = 1_700_000_000_000) -> None:
        """Put lines into the job's log, all with one time stamp."""
        stream = stream or described(self.aws, self.job_id)["container"]["logStreamName"]
        with contextlib.suppress(self.logs.exceptions.ResourceAlreadyExistsException):
            self.logs.create_log_group(logGroupName=GROUP)
        with contextlib.suppress(self.logs.exceptions.ResourceAlreadyExistsException):
            self.logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        self.logs.put_log_events(
            logGroupName=GROUP,
            logStreamName=stream,
            logEvents=[{"timestamp": time, "message": line} for line in lines],
        )

    def end(self) -> Run:
        self.process.wait(timeout=60)
        schemas.check_lines(self._arguments, self.out)
        return Run(self.process.returncode, self.out, self.err)


SCENARIOS: dict[str, Callable[[LocalAws, Path], Any]] = {}


def scenario(function: Callable[[LocalAws, Path], Any]) -> Callable[[LocalAws, Path], Any]:
    SCENARIOS[function.__name__] = function
    return function


@scenario
def succeeds(aws: LocalAws, folder: Path) -> tuple[Run, dict[str, Any]]:
    job = Followed(aws, folder, "submit", IMAGE, "--", "align", "--all")
    for status in ("STARTING", "RUNNING"):
        job.set(status)
        job.wait_for(status)
    job.write("one", "two")
    job.wait_for("two")
    job.write("  three — €🐳  ", "four\tx")
    job.set("SUCCEEDED", reason=EXITED)
    return job.end(), described(aws, job.job_id)


@scenario
def fails(aws: LocalAws, folder: Path) -> tuple[str, Run]:
    job = Followed(aws, folder, "submit", IMAGE)
    job.set("RUNNING")
    job.write("wrong")
    job.set("FAILED", exit_code=3, reason=EXITED)
    return job.job_id, job.end()


@scenario
def cannot_pull(aws: LocalAws, folder: Path) -> tuple[str, Run]:
    job = Followed(aws, folder, "submit", IMAGE)
    job.set("STARTING")
    job.set("FAILED", reason="Task failed to start", container={"reason": NO_PULL})
    return job.job_id, job.end()


@scenario
def stuck(aws: LocalAws, folder: Path) -> tuple[str, Run]:
    job = Followed(aws, folder, "submit", "--vcpus", "1000", IMAGE)
    job.set("RUNNABLE", reason=TOO_LARGE)
    job.wait_for("MISCONFIGURATION")
    time.sleep(1)  # it asks again
    job.process.send_signal(signal.SIGINT)
    return job.job_id, job.end()


@scenario
def array(aws: LocalAws, folder: Path) -> tuple[str, Run]:
    job = Followed(aws, folder, "submit", "--array-size", "3", IMAGE)
    for summary in ({"RUNNABLE": 3}, {"RUNNING": 2, "SUCCEEDED": 1, "FAILED": 0}):
        job.set("PENDING", arrayProperties={"size": 3, "statusSummary": summary})
        job.wait_for("PENDING  [23] " + next(iter(summary)))
    job.set(
        "FAILED",
        reason="Array Child Job failed",
        arrayProperties={"size": 3, "statusSummary": {"SUCCEEDED": 2, "FAILED": 1}},
    )
    return job.job_id, job.end()


@scenario
def retried(aws: LocalAws, folder: Path) -> Run:
    job = Followed(aws, folder, "submit", "--retries", "2", IMAGE)
    first = {"container": {"logStreamName": "align/default/first", "exitCode": 1}}
    second = {"container": {"logStreamName": "align/default/second", "exitCode": 0}}
    job.set("RUNNING", container=first["container"])
    job.write("first attempt", stream="align/default/first")
    job.wait_for("first attempt")
    job.set("RUNNABLE", attempts=[first])
    job.wait_for("RUNNING\n.*RUNNABLE")
    job.set("RUNNING", attempts=[first], container=second["container"])
    job.write("second attempt", stream="align/default/second")
    job.wait_for("second attempt")
    job.set("SUCCEEDED", attempts=[first, second])
    return job.end()


@scenario
def talks_much(aws: LocalAws, folder: Path) -> Run:
    job = Followed(aws, folder, "submit", IMAGE)
    job.set("RUNNING")
    numbers = (f"line {number}" for number in count())
    for size in (1, 20_001, 3):  # CloudWatch's pages have 10,000 lines at most
        job.write(*islice(numbers, size))
        time.sleep(0.3)
    job.set("SUCCEEDED")
    return job.end()


@scenario
def ends_late(aws: LocalAws, folder: Path) -> Run:
    job = Followed(aws, folder, "submit", IMAGE)
    job.set("RUNNING")
    job.write("early")
    job.wait_for("early")
    job.write("just before the end")
    job.set("SUCCEEDED")
    time.sleep(1.2)
    job.write("late")
    return job.end()


@scenario
def group_appears_late(_: LocalAws, folder: Path) -> Run:
    with LocalAws() as fresh:  # without the group that the other scenarios' jobs have made
        deploy(fresh, "lab", "--registry-url", "ghcr.io", "--username", USER)
        fresh.set_jobs("RUNNING")
        job = Followed(fresh, folder, "submit", IMAGE)
        job.wait_for("RUNNING")
        time.sleep(1)  # it asks for a log that is not there
        job.logs.create_log_group(logGroupName=GROUP)
        time.sleep(0.5)  # nor is there a stream yet
        job.write("at last")
        job.set("SUCCEEDED")
        return job.end()


@scenario
def for_machines(aws: LocalAws, folder: Path) -> tuple[str, Run]:
    job = Followed(aws, folder, "submit", "--json", IMAGE)
    job.set("RUNNING")
    job.write("one", 'two "quoted" €')
    job.wait_for("two")
    job.set("FAILED", exit_code=4, reason=EXITED)
    return job.job_id, job.end()


@scenario
def follows_by_id(aws: LocalAws, folder: Path) -> Run:
    submitted = detached(aws, IMAGE)
    job = Followed(aws, folder, "logs", "--follow", submitted["jobId"])
    job.wait_for("RUNNABLE")
    aws.set_jobs("RUNNING", job_id=submitted["jobId"])
    stream = described(aws, submitted["jobId"])["container"]["logStreamName"]
    job.write("followed", stream=stream)
    job.wait_for("followed")
    aws.set_jobs("FAILED", job_id=submitted["jobId"], exit_code=5, reason=EXITED)
    return job.end()


@scenario
def loses_its_reader(aws: LocalAws, folder: Path) -> tuple[Run, Run]:
    (folder / "logs").mkdir()
    job = Followed(aws, folder, "submit", IMAGE, one_line=True)
    logs = Followed(aws, folder / "logs", "logs", "--follow", job.job_id, one_line=True)
    job.set("RUNNING")
    job.write("line 0")
    job.wait_for("line 0")
    logs.wait_for("line 0")
    job.write("line 1")
    left = logs.end()
    job.set("FAILED", exit_code=6, reason=EXITED)
    return job.end(), left


@scenario
def prints_what_the_terminal_lacks(aws: LocalAws, folder: Path) -> Run:
    job = Followed(aws, folder, "submit", IMAGE, PYTHONIOENCODING="latin-1")
    job.set("RUNNING")
    job.write("whale 🐳 ends")
    job.set("SUCCEEDED")
    return job.end()


@scenario
def ends_by_cancel(aws: LocalAws, folder: Path) -> tuple[Run, Run]:
    job = Followed(aws, folder, "submit", IMAGE)
    job.wait_for("RUNNABLE")
    return run(aws, "cancel", job.job_id), job.end()


@pytest.fixture(scope="module")
def played(
    aws: LocalAws, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Any]]]:
    """Play all scenarios side by side."""
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {
            name: pool.submit(play, aws, tmp_path_factory.mktemp(name))
            for name, play in SCENARIOS.items()
        }
    for process in UNDER_WAY:
        process.kill()  # a scenario that failed has left it
        process.wait()


@pytest.fixture
def after(played: dict[str, Future[Any]]) -> Callable[[str], Any]:
    return lambda name: played[name].result(timeout=90)


def test_success_exits_zero(after):
    """A script goes on."""
    done, _ = after("succeeds")
    assert done.status == 0


def test_stdout_is_exactly_the_log(after):
    """So that it can be piped: no state, no time, nothing trimmed."""
    done, _ = after("succeeds")
    assert done.out == "one\ntwo\n  three — €🐳  \nfour\tx\n"


def test_stderr_has_the_job_and_its_states(after):
    """With the time, and in their order."""
    done, job = after("succeeds")
    first, *states = done.err.splitlines()
    assert first == f"Job {job['jobId']}, of {job['jobDefinition'].rsplit('/', 1)[-1]}"
    assert all(re.match(r"\d\d:\d\d:\d\d  ", state) for state in states)
    assert [state[10:] for state in states][-3:] == ["STARTING", "RUNNING", f"SUCCEEDED  {EXITED}"]


def test_command_is_what_stands_behind_the_dashes(after):
    """Options of the job's own included."""
    _, job = after("succeeds")
    assert job["container"]["command"] == ["align", "--all"]
    assert job["container"]["image"] == IMAGE
    assert job["jobName"] == "align"


def test_failure_exits_as_the_job_does(after):
    """The job's own code, and the reason in one line."""
    job_id, done = after("fails")
    assert done.status == 3
    assert done.out == "wrong\n"
    assert done.err.splitlines()[-1] == (
        f"batchreg: Job {job_id} failed with exit code 3: {EXITED}."
    )


def test_failed_pull_exits_one_with_the_reason_and_what_to_do(after):
    """There is no exit code; the line has the engine's words, unwrapped, and the next step."""
    job_id, done = after("cannot_pull")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1] == (
        f"batchreg: Job {job_id} failed: {' '.join(NO_PULL.split())} The credentials may be "
        "wrong, or not allowed to pull this image: batchreg check --stack-name tells which."
    )


def test_stuck_job_says_why_once_and_what_to_do(after):
    """However often it is asked, with Batch's own words and the way out."""
    _, done = after("stuck")
    (said,) = [line for line in done.err.splitlines() if "MISCONFIGURATION" in line]
    assert said[10:] == (
        f"RUNNABLE  {TOO_LARGE}  The job is larger than the compute environment: "
        "use less --vcpus or --memory, or batchreg deploy --max-vcpus with more."
    )


def test_interrupt_detaches(after):
    """Exit 130, and one line: the job continues, how to follow it, how to end it."""
    job_id, done = after("stuck")
    assert done.status == 130
    assert done.err.splitlines()[-1] == (
        f"batchreg: {job_id} continues. To follow it: batchreg logs --follow {job_id}. "
        f"To end it: batchreg cancel {job_id}"
    )


def test_interrupted_job_goes_on(after, aws):
    """It still waits."""
    job_id, _ = after("stuck")
    assert described(aws, job_id)["status"] == "RUNNABLE"


def test_array_shows_its_jobs_per_state(after):
    """In the order of a job's life, zeros left out."""
    job_id, done = after("array")
    assert done.err.splitlines()[0].endswith(f"; the log of a child: batchreg logs {job_id}:0")
    shown = [line[10:] for line in done.err.splitlines()[1:-1]]
    assert shown[-3:] == [
        "PENDING  3 RUNNABLE",
        "PENDING  2 RUNNING, 1 SUCCEEDED",
        "FAILED  Array Child Job failed  2 SUCCEEDED, 1 FAILED",
    ]


def test_failed_array_exits_one(after):
    """It has no exit code of its own."""
    job_id, done = after("array")
    assert done.status == 1
    assert done.err.splitlines()[-1] == f"batchreg: Job {job_id} failed: Array Child Job failed."


def test_retried_job_shows_the_log_of_each_attempt(after):
    """In their order, and the end of the last is what counts."""
    done = after("retried")
    assert (done.status, done.out) == (0, "first attempt\nsecond attempt\n")


def test_long_log_loses_no_line_and_repeats_none(after):
    """20,005 lines, in pages, all with one time stamp."""
    done = after("talks_much")
    assert done.out.splitlines() == [f"line {number}" for number in range(20_005)]


def test_last_lines_are_waited_for(after):
    """They may reach CloudWatch after Batch has told the end."""
    assert after("ends_late").out == "early\njust before the end\nlate\n"


def test_log_group_may_appear_late(after):
    """The first job of an account makes it."""
    done = after("group_appears_late")
    assert (done.status, done.out) == (0, "at last\n")


def test_every_line_for_machines_is_json(after):
    """Notes, states, log and result, in this order, one object a line."""
    job_id, done = after("for_machines")
    said = [json.loads(line) for line in done.out.splitlines()]
    assert [each["text"] for each in said if each["type"] == "log"] == ["one", 'two "quoted" €']
    assert {each["type"] for each in said} == {"note", "state", "log", "result"}
    assert said[-1] == {
        "type": "result",
        "job": job_id,
        "status": "FAILED",
        "exit_code": 4,
        "reason": EXITED,
    }


def test_failure_for_machines_exits_the_same(after):
    """And says the same line on stderr, alone."""
    job_id, done = after("for_machines")
    assert done.status == 4
    assert done.line == f"batchreg: Job {job_id} failed with exit code 4: {EXITED}."


def test_logs_follow_takes_over(after):
    """As submit would: the log, the states, the exit code."""
    done = after("follows_by_id")
    assert (done.status, done.out) == (5, "followed\n")


def test_reader_that_leaves_costs_submit_no_exit_code(after):
    """`submit | head -1` still exits as the job does."""
    done, _ = after("loses_its_reader")
    assert (done.status, done.out) == (6, "line 0\n")


def test_reader_that_leaves_ends_logs(after):
    """`logs --follow | head -1` is done then, which is not a failure."""
    _, left = after("loses_its_reader")
    assert (left.status, left.out) == (0, "line 0\n")


def test_character_that_the_terminal_lacks_ends_nothing(after):
    """A log in UTF-8 on a terminal without."""
    done = after("prints_what_the_terminal_lacks")
    assert (done.status, done.out) == (0, "whale ? ends\n")


def test_cancel_ends_whoever_follows(after):
    """The job has no exit code: it never ran."""
    cancel, done = after("ends_by_cancel")
    assert cancel.status == 0
    assert done.status == 1
    assert done.err.splitlines()[-1].endswith("failed: Cancelled by batchreg cancel.")
