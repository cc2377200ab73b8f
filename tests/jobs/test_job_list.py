"""`jobs`, and the start of an id where a command takes a job; `logs` from some line or time on."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from typing import Any

import pytest
from account import BATCHREG
from lab.environ import clean
from stubs import Stubs
from submitting import EXITED, GROUP, IMAGE, definition_of, described, detached, outputs, run
from terminal import Terminal

from batchreg.jobs import batch as jobs
from batchreg.jobs import listing
from batchreg.render import constraints

LONG = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement is too high " * 2


@pytest.fixture(scope="module")
def queue(aws) -> dict[str, Any]:
    """A queue of its own, with 18 jobs: an array job, one that waits, and 16 that failed."""
    batch = aws.client("batch")
    mine = batch.describe_job_queues(jobQueues=[outputs(aws, "lab")["JobQueueArn"]])["jobQueues"][0]
    name = batch.create_job_queue(
        jobQueueName="nights", priority=1, computeEnvironmentOrder=mine["computeEnvironmentOrder"]
    )["jobQueueName"]
    definition = definition_of(aws, detached(aws, IMAGE))["jobDefinitionArn"]

    def submit(job: str, status: str, reason: str = "", **more: Any) -> str:
        found = batch.submit_job(jobName=job, jobQueue=name, jobDefinition=definition, **more)
        time.sleep(0.002)  # so that the order of the jobs is theirs
        aws.set_jobs(status, job_id=found["jobId"], reason=reason)
        return found["jobId"]

    failed = [submit("align", "FAILED", EXITED) for _ in range(16)]
    waiting = submit("sort", "RUNNABLE", LONG)
    array = batch.submit_job(
        jobName="sweep",
        jobQueue=name,
        jobDefinition=definition,
        arrayProperties={"size": 3},
        parameters={"local-aws-status": "RUN"},  # it has children, and no instance to run them
    )["jobId"]
    return {"name": name, "failed": failed, "waiting": waiting, "array": array}


def rows(text: str) -> list[list[str]]:
    return [re.split("  +", line) for line in text.splitlines()]


def test_newest_job_comes_first(aws, queue):
    """What somebody has just submitted is what they look for. A pipe gets reasons whole."""
    done = run(aws, "jobs", "--queue", "nights")
    assert (done.status, done.err) == (0, "")
    heading, array, waiting, *failed = rows(done.out)
    assert heading == ["JOB", "NAME", "STATUS", "AGE", "REASON"]
    assert array[:3] == [queue["array"][:8], "sweep", "PENDING"]
    assert array[4] == "3 children: 3 RUNNABLE"
    assert waiting[:3] == [queue["waiting"][:8], "sort", "RUNNABLE"]
    assert waiting[4] == LONG.strip()
    assert re.fullmatch(r"\d+ s", waiting[3])
    assert [row[0] for row in failed] == [job[:8] for job in reversed(queue["failed"])]


def test_jobs_of_some_states_for_machines(aws, queue):
    """Whole ids and reasons, and the time as others write it."""
    done = run(aws, "jobs", "--queue", "nights", "--json", "--status", "runnable")
    (job,) = json.loads(done.out)["jobs"]
    assert job["id"] == queue["waiting"]
    assert (job["name"], job["status"], job["reason"]) == ("sort", "RUNNABLE", LONG.strip())
    assert (job["queue"], job["size"], job["children"]) == ("nights", 0, {})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}\+00:00", job["created"])


def test_long_list_is_cut_and_says_so(aws, queue):
    """Engines submit thousands."""
    done = run(aws, "jobs", "--queue", "nights", "--limit", "2")
    assert [row[1] for row in rows(done.out)[1:]] == ["sweep", "sort"]
    assert done.line == "2 of 18 jobs; --limit shows more."


def test_children_of_an_array_job_come_in_order(aws, queue):
    """A queue's list has the array job alone, which may have 10,000 children."""
    done = run(aws, "jobs", queue["array"])
    start = queue["array"][:8]
    assert [row[0] for row in rows(done.out)[1:]] == [f"{start}:0", f"{start}:1", f"{start}:2"]
    done = run(aws, "jobs", queue["waiting"])
    assert done.out == f"{queue['waiting']} has no such children; only an array job has any.\n"


def test_row_is_a_line_on_a_terminal(aws, queue, tmp_path):
    """A reason of 300 characters would hide the next job."""
    program = f"{BATCHREG} jobs --queue nights --status RUNNABLE 1>&2"
    terminal = Terminal("/bin/sh", "-c", program, environ=clean(**aws.environ), folder=tmp_path)
    try:
        assert terminal.wait() == 0, terminal.output
    finally:
        terminal.close()
    shown = [line for line in terminal.lines if queue["waiting"][:8] in line]
    assert [len(line) for line in shown] == [80]
    assert shown[0].endswith("...")


@pytest.mark.parametrize("command", ["logs", "cancel"])
def test_start_of_an_id_is_enough(aws, queue, command):
    """The list shows eight characters, and they work wherever a job is taken."""
    start = queue["failed"][0][:8]
    done = run(aws, command, "--queue", "nights", start.upper())
    assert done.status == 0
    assert done.line.startswith(f"{queue['failed'][0]} ")


def test_child_is_named_by_the_start_of_its_arrays_id(aws, queue):
    """As in the list of the children."""
    done = run(aws, "logs", "--queue", "nights", f"{queue['array'][:8]}:1")
    assert done.line.startswith(f"{queue['array']}:1 is ")


def test_doctor_takes_the_start_of_an_id(aws, queue):
    """And finds the reason of that job."""
    done = run(aws, "doctor", "--queue", "nights", "--job", queue["waiting"][:8], "--json")
    findings = json.loads(done.out)["findings"]
    assert any("Job sort" in line for each in findings for line in each["evidence"])
    assert "job-missing" not in done.out


def test_ambiguous_start_lists_the_candidates(aws, queue):
    """One line, with starts that tell them apart."""
    every = [*queue["failed"], queue["waiting"], queue["array"]]
    start, count = Counter(job[0] for job in every).most_common(1)[0]  # 18 jobs, 16 digits
    done = run(aws, "logs", "--queue", "nights", start)
    assert done.status == 1
    assert done.line.startswith(f"batchreg: {count} jobs have an id that starts with {start}: ")
    assert done.line.endswith(". Give more of the id.")
    named = re.findall(r"([0-9a-f]{8}) \((?:align|sort|sweep), [A-Z]+\)", done.line)
    assert set(named) <= {job[:8] for job in every if job.startswith(start)}
    assert len(named) == min(count, 5)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("ffffffffff", "No job in nights has an id that starts with ffffffffff."),
        ("align", "'align' is not the id of a job, or the start of one."),
    ],
)
def test_unknown_start_names_the_command_that_lists_jobs(aws, queue, text, fact):
    """A slip, another queue, or a name in place of the id."""
    done = run(aws, "logs", "--queue", "nights", text)
    assert (done.status, done.line) == (
        1,
        f"batchreg: {fact} To list the jobs: batchreg jobs --queue nights",
    )


def test_without_a_stack_all_queues_are_searched(aws, queue):
    """Who runs jobs on other people's queues has no stack of this name."""
    start = queue["failed"][3][:8]
    done = run(aws, "cancel", start, BATCHREG_STACK_NAME="")
    assert done.line == f"{queue['failed'][3]} has already finished: FAILED."
    done = run(aws, "cancel", "ffffffffff", BATCHREG_STACK_NAME="")
    assert done.line.endswith(" starts with ffffffffff. To list the jobs: batchreg jobs")
    done = run(aws, "jobs", "--queue", "nights", "--stack-name", "lab")
    assert (done.status, done.out) == (2, "")
    assert "Give one of --stack-name and --queue." in done.line
    done = run(aws, "cancel", start, "--stack-name", "nowhere")
    assert done.line.startswith("batchreg: There is no stack nowhere in us-east-1.")


def test_stacks_queues_are_the_default(aws, queue):
    """Both, where the stack has one on Fargate."""
    job = detached(aws, IMAGE)
    listed = json.loads(run(aws, "jobs", "--json", "--limit", "9999").out)["jobs"]
    assert job["jobId"] in [each["id"] for each in listed]
    assert "nights" not in {each["queue"] for each in listed}


def test_all_pages_are_read():
    """AWS Batch lists at most 100 jobs in one answer."""
    stubs = Stubs("batch")
    for number, token in ((1, {"nextToken": "more"}), (2, {})):
        raw = {"jobId": f"{number}", "jobName": "x", "status": "FAILED", "createdAt": number}
        stubs.batch.add_response("list_jobs", {"jobSummaryList": [raw], **token})
    found = listing.look(stubs.clients["batch"], ["genomics"], ["FAILED"])
    assert [job.id for job in found] == ["2", "1"]


def test_whole_id_needs_no_call(aws):
    """In any region, and without the permission to list jobs."""
    for text in ("0f0e0d0c-0000-4000-8000-000000000000", "0f0e0d0c-0000-4000-8000-000000000000:7"):
        assert listing.is_whole(text)
    assert not listing.is_whole("0f0e0d0c-0000")


def test_states_of_the_option_are_those_of_jobs():
    """Each part has them for itself: the option must be quick to declare."""
    assert constraints.JOB_STATUSES == jobs.STATES


# --- A part of a log ---


@pytest.fixture(scope="module")
def spoke(aws) -> str:
    """The id of a job that has said a line each hour, and the last one just now."""
    job_id = detached(aws, IMAGE)["jobId"]
    aws.set_jobs("FAILED", job_id=job_id, exit_code=3, reason=EXITED)
    logs, stream = aws.client("logs"), described(aws, job_id)["container"]["logStreamName"]
    logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    now = int(time.time() * 1000)
    events = [
        {"timestamp": now - hours * 3_600_000, "message": f"{hours} hours ago"}
        for hours in (3, 2, 1, 0)
    ]
    logs.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)
    return job_id


@pytest.mark.parametrize(
    ("options", "hours"),
    [
        (["--tail", "2"], [1, 0]),
        (["--tail", "9"], [3, 2, 1, 0]),
        (["--since", "90m"], [1, 0]),
        (["--since", "2000-01-01T00:00Z"], [3, 2, 1, 0]),
        (["--since", "1d", "--tail", "1"], [0]),
        (["--follow", "--since", "150m", "--tail", "2"], [1, 0]),
    ],
)
def test_part_of_a_log_is_what_was_asked_for(aws, spoken, spoke, options, hours):
    """The end of a long log is what tells why a job failed."""
    out = run(aws, "logs", spoke, *options).out
    assert out.splitlines() == [f"{hour} hours ago" for hour in hours]


def test_timestamps_begin_the_lines(aws, spoken):
    """In UTC: two people compare theirs."""
    assert run(aws, "logs", "--timestamps", "--tail", "1", spoken).out == (
        "2023-11-14T22:13:20.000+00:00  two\n"
    )


def test_log_without_recent_lines_says_so(aws, spoken):
    """It has a log, whose lines are older."""
    line = run(aws, "logs", "--since", "1m", spoken).line
    assert re.fullmatch(rf"{spoken} is FAILED and has no log since 20[\d-]+T[\d:.+]+\.", line)


@pytest.mark.parametrize("text", ["yesterday", "99999999999999d"])
def test_no_time_is_wrong_usage(aws, text):
    """With examples of what is one."""
    done = run(aws, "logs", "--since", text, "x")
    assert done.status == 2
    assert f"{text!r} is not a time, such as 10m, 2h, 1d or 2026-07-01T12:30." in done.line
