"""`batchreg submit`, `logs`, `cancel` and `job-definition`, as processes, on the embedded AWS.

Each run of `submit` that is followed is a scenario: a thread that plays AWS Batch and CloudWatch
while the process runs. All of them start together, and each test then looks at what one has left.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count, islice
from pathlib import Path
from typing import Any

import lint_templates
import pytest
import write_templates
from local_aws import LocalAws

from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import to_yaml

BATCHREG = str(Path(sys.executable).with_name("batchreg"))
USER, PASSWORD = "canary-user", 'canary-"pass\\word'
CANARIES = ("canary", "Y2FuYXJ5")  # the second is how base64 of "canary-user:..." starts
IMAGE = "ghcr.io/lab/align:3"
GROUP = "/aws/batch/job"
EXITED = "Essential container in task exited"
NO_PULL = (
    "CannotPullContainerError: Error response from daemon:\n pull access denied for "
    "ghcr.io/lab/align, repository does not exist or may require 'docker login'."
)
TOO_LARGE = (
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job "
    "queue cannot meet the CPU requirement specified in the job."
)


def environ(aws: LocalAws, **more: str) -> dict[str, str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "BATCHREG_"))
    }
    return {**clean, **aws.environ, "BATCHREG_STACK_NAME": "lab", **more}


@dataclass(frozen=True)
class Run:
    """What a process has left."""

    status: int
    out: str
    err: str

    def __post_init__(self) -> None:
        for canary in CANARIES:  # no output of any test here may have a part of the login
            assert canary not in self.out + self.err

    @property
    def line(self) -> str:
        """The one line that it said on stderr."""
        (line,) = self.err.splitlines()
        return line


def run(aws: LocalAws, *arguments: str, **more: str) -> Run:
    done = subprocess.run(
        [BATCHREG, *arguments],
        env=environ(aws, **more),
        text=True,
        capture_output=True,
        timeout=60,
        cwd="/",
    )
    return Run(done.returncode, done.stdout, done.stderr)


def deploy(aws: LocalAws, name: str, *arguments: str) -> None:
    secret = {} if "--secret-arn" in arguments else {"BATCHREG_PASSWORD": PASSWORD}
    done = run(aws, "deploy", "--yes", "--stack-name", name, *arguments, **secret)
    assert done.status == 0, done.err


def detached(aws: LocalAws, *arguments: str, **more: str) -> dict[str, Any]:
    """Submit a job, and return it as Batch describes it."""
    done = run(aws, "submit", "--detach", *arguments, **more)
    assert done.status == 0, done.err
    return described(aws, done.out.strip())


def described(aws: LocalAws, job_id: str) -> dict[str, Any]:
    (job,) = aws.client("batch").describe_jobs(jobs=[job_id])["jobs"]
    return job


def definition_of(aws: LocalAws, job: dict[str, Any]) -> dict[str, Any]:
    (found,) = aws.client("batch").describe_job_definitions(jobDefinitions=[job["jobDefinition"]])[
        "jobDefinitions"
    ]
    return found


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    """An AWS with a stack, whose jobs wait until somebody moves them."""
    with LocalAws() as aws:
        login = ("--registry-url", "ghcr.io", "--username", USER)
        deploy(aws, "lab", "--fargate", *login)
        deploy(aws, "plain", *login)
        aws.set_jobs("RUNNABLE")
        yield aws


# --- Runs that are followed ---


UNDER_WAY: list[subprocess.Popen[bytes]] = []


class Followed:
    """A process that follows a job, and the hands of AWS on that job."""

    def __init__(self, aws: LocalAws, folder: Path, *arguments: str, **more: str) -> None:
        self.aws = aws
        self._files = folder / "out", folder / "err"
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(
                [BATCHREG, *arguments], env=environ(aws, **more), stdout=out, stderr=err, cwd="/"
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
        f"batchreg: Job {job_id} failed: {' '.join(NO_PULL.split())} The login may be wrong, or "
        "may not read this image: check it, then batchreg deploy with the right one."
    )


def test_stuck_job_says_why_once_and_what_to_do(after):
    """However often it is asked, with Batch's own words and the way out."""
    _, done = after("stuck")
    (said,) = [line for line in done.err.splitlines() if "MISCONFIGURATION" in line]
    assert said[10:] == (
        f"RUNNABLE  {TOO_LARGE}  The job is larger than the compute environment: "
        "give less --vcpus or --memory, or batchreg deploy --max-vcpus with more."
    )


def test_interrupt_detaches(after):
    """Exit 130, and one line: the job goes on, how to follow it, how to end it."""
    job_id, done = after("stuck")
    assert done.status == 130
    assert done.err.splitlines()[-1] == (
        f"batchreg: {job_id} goes on. Follow it: batchreg logs --follow {job_id}. End it: "
        f"batchreg cancel {job_id}"
    )


def test_interrupted_job_goes_on(after, aws):
    """It still waits."""
    job_id, _ = after("stuck")
    assert described(aws, job_id)["status"] == "RUNNABLE"


def test_array_shows_its_jobs_per_state(after):
    """In the order of a job's life, zeros left out."""
    job_id, done = after("array")
    assert done.err.splitlines()[0].endswith(
        f"; the log of each: batchreg logs {job_id}:0 and so on"
    )
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


# --- Detached, logs, cancel ---


def test_detach_prints_the_id_alone(aws):
    """For a script; how to follow stands on stderr."""
    done = run(aws, "submit", "--detach", IMAGE)
    assert re.fullmatch("[0-9a-f-]{36}\n", done.out)
    assert done.line == f"Follow it: batchreg logs --follow {done.out.strip()}"


def test_detach_for_machines_is_one_object(aws):
    """With the definition that was used."""
    done = run(aws, "submit", "--detach", "--json", IMAGE)
    result = json.loads(done.out)
    assert described(aws, result["job"])["jobDefinition"] == result["definition"]
    assert (done.status, done.err, result["status"]) == (0, "", "SUBMITTED")


def test_all_options_reach_the_job(aws):
    """Each in the place where Batch wants it."""
    job = detached(
        aws,
        "--vcpus",
        "2",
        "--memory",
        "4G",
        "--gpus",
        "1",
        "--env",
        "A=1=2",
        "--env",
        "B=",
        "--job-role-arn",
        "arn:aws:iam::123456789012:role/mine",
        "--retries",
        "3",
        "--timeout",
        "90",
        "--name",
        "night_1",
        "--array-size",
        "7",
        IMAGE,
    )
    body = definition_of(aws, job)
    container = body["containerProperties"]
    assert {each["type"]: each["value"] for each in container["resourceRequirements"]} == {
        "VCPU": "2",
        "MEMORY": "4096",
        "GPU": "1",
    }
    assert container["environment"] == [{"name": "A", "value": "1=2"}, {"name": "B", "value": ""}]
    assert container["jobRoleArn"] == "arn:aws:iam::123456789012:role/mine"
    assert body["retryStrategy"] == {"attempts": 3}
    assert body["timeout"] == {"attemptDurationSeconds": 90}
    assert (job["jobName"], job["arrayProperties"]["size"]) == ("night_1", 7)


def test_name_is_made_of_the_image(aws):
    """Batch takes no dots there."""
    assert detached(aws, "ghcr.io/lab/align.v2:3")["jobName"] == "align-v2"


@pytest.fixture(scope="module")
def spoken(aws: LocalAws) -> str:
    """The id of a job that has ended and has a log."""
    job_id = detached(aws, IMAGE)["jobId"]
    aws.set_jobs("FAILED", job_id=job_id, exit_code=3, reason=EXITED)
    logs, stream = aws.client("logs"), described(aws, job_id)["container"]["logStreamName"]
    with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    logs.put_log_events(
        logGroupName=GROUP,
        logStreamName=stream,
        logEvents=[{"timestamp": 1_700_000_000_000, "message": text} for text in ("one", "two")],
    )
    return job_id


def test_logs_prints_what_there_is(aws, spoken):
    """That the job failed does not make printing fail."""
    assert run(aws, "logs", spoken) == Run(0, "one\ntwo\n", "")


def test_logs_for_machines_end_with_the_result(aws, spoken):
    """One object a line."""
    said = [json.loads(line) for line in run(aws, "logs", "--json", spoken).out.splitlines()]
    assert said == [
        {"type": "log", "time": 1_700_000_000_000, "text": "one"},
        {"type": "log", "time": 1_700_000_000_000, "text": "two"},
        {"type": "result", "job": spoken, "status": "FAILED"},
    ]


def test_logs_of_a_waiting_job_say_that_it_waits(aws):
    """And why."""
    job_id = detached(aws, IMAGE)["jobId"]
    aws.set_jobs("RUNNABLE", job_id=job_id, reason="no instance yet.")
    assert run(aws, "logs", job_id) == Run(
        0, "", f"{job_id} is RUNNABLE and has no log: no instance yet.\n"
    )


def test_logs_of_an_array_name_its_jobs(aws):
    """An array itself has none."""
    job_id = detached(aws, "--array-size", "2", IMAGE)["jobId"]
    assert run(aws, "logs", job_id).line == (
        f"{job_id} is RUNNABLE and has no log: its 2 jobs have, see batchreg logs {job_id}:0 and "
        "so on."
    )


def test_logs_into_a_closed_pipe_are_quiet(aws, spoken):
    """As into `head -1`."""
    done = subprocess.run(
        f"{BATCHREG} logs {spoken} | head -0",
        env=environ(aws),
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["logs", "cancel"])
def test_unknown_job_is_one_line(aws, command):
    """A slip in the id, another region, or a job of last month."""
    done = run(aws, command, "nonsense")
    assert (done.status, done.out) == (1, "")
    assert done.line == (
        "batchreg: There is no job nonsense in this region; Batch forgets jobs after a week."
    )


@pytest.mark.parametrize("status", ["RUNNABLE", "RUNNING"])
def test_cancel_ends_a_job(aws, status):
    """Whether it waits or runs."""
    job_id = detached(aws, IMAGE)["jobId"]
    aws.set_jobs(status, job_id=job_id)
    assert run(aws, "cancel", job_id) == Run(0, "", f"{job_id} was {status}; it ends now.\n")
    assert described(aws, job_id)["status"] == "FAILED"


def test_cancel_of_an_ended_job_is_a_success(aws, spoken):
    """There is nothing to do."""
    assert run(aws, "cancel", spoken) == Run(0, "", f"{spoken} has ended already: FAILED.\n")


# --- Job definitions ---


def test_definition_has_a_new_revision_only_for_a_change(aws):
    """The same again is the same revision, and so is what there was before a change."""

    def revision(*options: str, tag: str = "1") -> str:
        job = detached(aws, *options, f"ghcr.io/lab/revised:{tag}", "--", "any", "command")
        return job["jobDefinition"].rsplit("/", 1)[-1]

    assert [revision(), revision(), revision(tag="2"), revision("--memory", "1G"), revision()] == [
        f"ghcr-io-lab-revised:{number}" for number in (1, 1, 2, 3, 1)
    ]


def test_definition_is_tagged_as_ours(aws):
    """Else it could not be told from one that somebody else has registered."""
    batch = aws.client("batch")
    job = detached(aws, "ghcr.io/lab/tagged:1")
    assert re.fullmatch("[0-9a-f]{16}", definition_of(aws, job)["tags"]["batchreg"])
    batch.register_job_definition(
        jobDefinitionName="ghcr-io-lab-tagged",
        type="container",
        containerProperties={"image": "ghcr.io/lab/tagged:1"},
    )
    assert detached(aws, "ghcr.io/lab/tagged:1")["jobDefinition"] == job["jobDefinition"]


def test_instance_login_leaves_no_trace_in_the_definition(aws):
    """The default: the compute environment has it."""
    container = definition_of(aws, detached(aws, IMAGE))["containerProperties"]
    assert not {"repositoryCredentials", "executionRoleArn"} & container.keys()


def outputs(aws: LocalAws, name: str) -> dict[str, str]:
    (found,) = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def test_job_login_is_the_stacks_secret_read_by_its_execution_role(aws):
    """As Secrets Manager and IAM know them."""
    made = outputs(aws, "plain")
    job = detached(aws, "--auth", "job", IMAGE, BATCHREG_STACK_NAME="plain")
    container = definition_of(aws, job)["containerProperties"]
    assert container["repositoryCredentials"] == {"credentialsParameter": made["RegistrySecretArn"]}
    assert container["executionRoleArn"] == made["JobExecutionRoleArn"]
    assert definition_of(aws, job)["platformCapabilities"] == ["EC2"]


def test_job_login_has_what_the_execution_role_hands_to_the_registry(aws):
    """repositoryCredentials want `username` and `password` in the secret's JSON."""
    text = aws.client("secretsmanager").get_secret_value(
        SecretId=outputs(aws, "plain")["RegistrySecretArn"]
    )["SecretString"]
    assert {"username": USER, "password": PASSWORD}.items() <= json.loads(text).items()


def test_fargate_implies_the_job_login_and_its_own_queue(aws):
    """There is no instance to carry one."""
    made = outputs(aws, "lab")
    job = detached(aws, "--fargate", "--vcpus", "0.25", "--memory", "512", IMAGE)
    body = definition_of(aws, job)
    assert job["jobQueue"] == made["FargateJobQueueArn"]
    assert body["platformCapabilities"] == ["FARGATE"]
    assert body["containerProperties"]["repositoryCredentials"] == {
        "credentialsParameter": made["RegistrySecretArn"]
    }
    assert body["containerProperties"]["executionRoleArn"] == made["JobExecutionRoleArn"]


def test_printed_definition_is_the_registered_one(aws):
    """For who registers it elsewhere; the command, which submit sends with the job, is in it."""
    done = run(aws, "job-definition", "--auth", "job", IMAGE, "--", "align")
    printed = json.loads(done.out)
    assert printed["containerProperties"].pop("command") == ["align"]
    registered = definition_of(aws, detached(aws, "--auth", "job", IMAGE))
    assert printed.items() <= registered.items()


def test_printed_definition_needs_no_aws():
    """Unless it carries a login."""
    done = subprocess.run(
        [BATCHREG, "job-definition", IMAGE],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        timeout=60,
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["containerProperties"]["image"] == IMAGE


@pytest.fixture(scope="module")
def own(aws: LocalAws) -> dict[str, str]:
    """A stack with three secrets of its user's own: {registry: ARN}. One is of no use."""
    manager = aws.client("secretsmanager")
    texts = {
        url: json.dumps({"username": USER, "password": PASSWORD, "registry_url": url})
        for url in ("https://quay.io/", "docker.io")
    }
    texts["broken"] = f"{PASSWORD}: not JSON"
    arns = {
        name: manager.create_secret(Name=f"own{number}", SecretString=text)["ARN"]
        for number, (name, text) in enumerate(texts.items())
    }
    deploy(
        aws, "own", "--fargate", *(part for arn in arns.values() for part in ("--secret-arn", arn))
    )
    return arns


@pytest.mark.parametrize(
    ("image", "secret"),
    [
        ("quay.io/lab/x:1", "https://quay.io/"),
        ("lab/x", "docker.io"),
        ("docker.io/library/x", "docker.io"),
    ],
)
def test_secret_of_the_images_registry_is_chosen(aws, own, image, secret):
    """Among several, by the registry that each says it is for."""
    job = detached(aws, "--auth", "job", image, BATCHREG_STACK_NAME="own")
    assert definition_of(aws, job)["containerProperties"]["repositoryCredentials"] == {
        "credentialsParameter": own[secret]
    }


def test_own_secrets_that_do_not_cover_the_registry_are_named(aws, own):
    """By their registries, and by nothing else that stands in them."""
    done = run(aws, "submit", "--detach", IMAGE, BATCHREG_STACK_NAME="own")
    assert done.status == 0
    assert done.err.splitlines()[0] == (
        "No credentials for ghcr.io in this stack; they cover quay.io, Docker Hub."
    )


def test_secret_of_each_of_the_stacks_registries_is_found(aws):
    """A stack may make several secrets, each with its number."""
    body = to_yaml(template.build(Settings(slots=(1, 3))))
    values = {
        "Username": USER,
        "Password": PASSWORD,
        "Username3": USER,
        "Password3": PASSWORD,
        "RegistryUrl": "ghcr.io",
        "RegistryUrl3": "https://quay.io",
        "SubnetIDs": ",".join(aws.subnet_ids),
        "SecurityGroupIDs": ",".join(aws.security_group_ids),
    }
    client = aws.client("cloudformation")
    client.create_stack(
        StackName="several",
        TemplateBody=body,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value} for key, value in values.items()
        ],
    )
    client.get_waiter("stack_create_complete").wait(StackName="several", WaiterConfig={"Delay": 1})
    job = detached(aws, "--auth", "job", "quay.io/lab/x:1", BATCHREG_STACK_NAME="several")
    assert definition_of(aws, job)["containerProperties"]["repositoryCredentials"] == {
        "credentialsParameter": outputs(aws, "several")["RegistrySecret3Arn"]
    }


class Denied(BaseHTTPRequestHandler):
    """Secrets Manager for a user who may not read secrets."""

    def do_POST(self) -> None:
        body = b'{"__type": "AccessDeniedException", "Message": "not authorized"}'
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def denied() -> Iterator[dict[str, str]]:
    """The environment of a user who may not read secrets."""
    with HTTPServer(("127.0.0.1", 0), Denied) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"AWS_ENDPOINT_URL_SECRETS_MANAGER": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()


def test_user_who_may_not_read_secrets_can_submit(aws, own, denied):
    """The instances have the logins; that no warning is possible is no reason to refuse."""
    done = run(aws, "submit", "--detach", IMAGE, BATCHREG_STACK_NAME="own", **denied)
    assert (done.status, len(done.err.splitlines())) == (0, 1)


def test_user_who_may_not_read_secrets_cannot_have_one_chosen(aws, own, denied):
    """A wrong guess would fail minutes later, at the pull."""
    done = run(aws, "submit", "--auth", "job", IMAGE, BATCHREG_STACK_NAME="own", **denied)
    assert (done.status, done.out) == (1, "")
    assert done.line == (
        "batchreg: Which secret is for ghcr.io? Ask for the permission "
        "secretsmanager:GetSecretValue on the stack's secrets."
    )


def test_only_secret_is_taken_unread(aws, own, denied):
    """It is the one that can be meant."""
    deploy(aws, "single", "--secret-arn", own["https://quay.io/"])
    job = detached(aws, "--auth", "job", IMAGE, BATCHREG_STACK_NAME="single", **denied)
    assert definition_of(aws, job)["containerProperties"]["repositoryCredentials"] == {
        "credentialsParameter": own["https://quay.io/"]
    }


# --- Fargate in the template ---


@pytest.mark.parametrize("style", ["yaml", "json"])
def test_template_without_fargate_is_the_committed_one(aws, style):
    """To the byte: nobody's stack changes because others want Fargate."""
    committed = (write_templates.FOLDER / f"batchreg.{style}").read_text()
    assert run(aws, "render", "--format", style).out == committed
    assert run(aws, "render", "--format", style, "--no-fargate").out == committed


def test_template_with_fargate_lints_clean_in_every_region(aws, tmp_path):
    """Informational findings included."""
    arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:registry/ghcr-AbCdEf"
    paths = []
    for number, options in enumerate([(), ("--secret-arn", arn)]):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(run(aws, "render", "--fargate", *options).out)
    result = lint_templates.lint(*map(str, paths))
    assert (result.returncode, result.stdout) == (0, "")


def test_deploy_remembers_fargate_until_it_is_told_otherwise(aws):
    """An update that says nothing of it leaves it, --no-fargate takes it away."""

    def resources() -> set[str]:
        pages = aws.client("cloudformation").list_stack_resources(StackName="toggled")
        return {each["LogicalResourceId"] for each in pages["StackResourceSummaries"]}

    fargate = {"FargateComputeEnvironment", "FargateJobQueue"}
    deploy(aws, "toggled", "--registry-url", "ghcr.io", "--username", USER, "--fargate")
    assert fargate <= resources()
    deploy(aws, "toggled", "--max-vcpus", "16")
    assert fargate <= resources()
    deploy(aws, "toggled", "--no-fargate")
    assert not fargate & resources()
    environments = aws.client("batch").describe_compute_environments()["computeEnvironments"]
    assert not any(
        each["computeEnvironmentName"].startswith("toggled-Fargate") for each in environments
    )


# --- What cannot work ---


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["https://ghcr.io/lab/x"],
            "'https://ghcr.io/lab/x' is not the name of an image. Write it like ghcr.io/lab/align:3, "
            "without a scheme.",
        ),
        (
            ["ghcr.io/lab/x y"],
            "'ghcr.io/lab/x y' is not the name of an image. Write it like ghcr.io/lab/align:3.",
        ),
        (
            [IMAGE, "--fargate", "--gpus", "1"],
            "Fargate has no GPUs: leave out --gpus or --fargate.",
        ),
        ([IMAGE, "--vcpus", "0.5"], "On EC2 a job takes whole vCPUs: give --vcpus 1 or more."),
        (
            [IMAGE, "--fargate", "--vcpus", "4", "--memory", "4G"],
            "Fargate has no 4 vCPUs with 4096 MiB; the nearest are --vcpus 4 --memory 8192, --vcpus 4 "
            "--memory 9216, --vcpus 4 --memory 10240.",
        ),
        (
            [IMAGE, "--name", "a.b"],
            "'a.b' cannot be a job's name: letters, digits, hyphens and underscores, a letter or a digit "
            "first, 128 at most.",
        ),
        (
            [IMAGE, "--stack-name", "no_name"],
            "'no_name' cannot be a stack's name: letters, digits and hyphens, a letter first.",
        ),
        (
            [IMAGE, "--stack-name", "nowhere"],
            "There is no stack nowhere in this region: batchreg deploy --stack-name nowhere makes it.",
        ),
        (
            [IMAGE, "--stack-name", "plain", "--fargate"],
            "plain has no job queue on Fargate: batchreg deploy --fargate adds one.",
        ),
    ],
)
def test_what_cannot_work_is_one_line(aws, arguments, line):
    """The fact, then what to do."""
    assert run(aws, "submit", *arguments) == Run(1, "", f"batchreg: {line}\n")


@pytest.mark.parametrize("text", ["hunter2", "=hunter2"])
def test_variable_without_a_name_or_a_value_is_wrong_usage(aws, text):
    """The line does not repeat what may be a secret."""
    assert run(aws, "submit", IMAGE, "--env", text) == Run(
        2,
        "",
        "batchreg: Invalid value for '--env': write KEY=VALUE. See `batchreg submit --help`.\n",
    )


def test_registry_that_no_secret_covers_is_a_warning(aws):
    """The image may be public."""
    done = run(aws, "submit", "--detach", "quay.io/lab/x:1")
    assert done.status == 0
    assert done.err.splitlines()[0] == (
        "No credentials for quay.io in this stack; they cover ghcr.io."
    )


def test_public_image_runs_on_fargate(aws):
    """Without a login, but with the execution role that Fargate asks for."""
    job = detached(aws, "--fargate", "quay.io/lab/x:1")
    container = definition_of(aws, job)["containerProperties"]
    assert "repositoryCredentials" not in container
    assert container["executionRoleArn"] == outputs(aws, "lab")["JobExecutionRoleArn"]


@pytest.mark.parametrize(
    ("kind", "output"),
    [("job queue", "JobQueueArn"), ("compute environment", "ComputeEnvironmentArn")],
)
def test_what_is_disabled_is_one_line(aws, kind, output):
    """A job would wait there for ever."""
    batch, arn = aws.client("batch"), outputs(aws, "plain")[output]
    turn = {
        "job queue": lambda state: batch.update_job_queue(jobQueue=arn, state=state),
        "compute environment": lambda state: batch.update_compute_environment(
            computeEnvironment=arn, state=state
        ),
    }[kind]
    turn("DISABLED")
    try:
        done = run(aws, "submit", IMAGE, BATCHREG_STACK_NAME="plain")
    finally:
        turn("ENABLED")
    assert done == Run(
        1,
        "",
        f"batchreg: The {kind} {arn.rsplit('/', 1)[-1]} is DISABLED: enable "
        "it in the AWS Batch console.\n",
    )


def test_no_output_has_a_part_of_the_login(aws, own):
    """Run checks it for every process of these tests; here are those that handle secrets."""
    for options in (["--auth", "job", "quay.io/lab/x:1"], ["--fargate", "--json", "ghcr.io/lab/x"]):
        run(aws, "submit", "--detach", *options, BATCHREG_STACK_NAME="own")


def test_no_definition_has_a_part_of_the_login(aws, own):
    """People who may describe jobs may not read secrets."""
    batch = aws.client("batch")
    run(aws, "submit", "--detach", "--auth", "job", "lab/x", BATCHREG_STACK_NAME="own")
    text = json.dumps(batch.describe_job_definitions()["jobDefinitions"], default=str)
    assert "own0" in text or "own1" in text
    assert not any(canary in text for canary in CANARIES)
