"""`submit`, `logs` and `cancel` without following, and what cannot work."""

from __future__ import annotations

import json
import re
import subprocess

import lint_templates
import pytest
import write_templates
from submitting import (
    BATCHREG,
    CANARIES,
    IMAGE,
    USER,
    Run,
    definition_of,
    deploy,
    described,
    detached,
    environ,
    outputs,
    run,
)

# --- Detached, logs, cancel ---


def test_detach_prints_the_id_alone(aws):
    """For a script; how to follow stands on stderr."""
    done = run(aws, "submit", "--detach", IMAGE)
    assert re.fullmatch("[0-9a-f-]{36}\n", done.out)
    assert done.line == f"To follow it: batchreg logs --follow {done.out.strip()}"


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
        BATCHREG_STACK_NAME="plain",
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


def test_logs_prints_what_there_is(aws, spoken):
    """That the job failed does not make printing fail."""
    assert run(aws, "logs", spoken) == Run(0, "one\ntwo\n", "")


def test_logs_for_machines_end_with_the_result(aws, spoken):
    """One object a line."""
    said = [json.loads(line) for line in run(aws, "logs", "--json", spoken).out.splitlines()]
    assert said == [
        {"type": "log", "time": "2023-11-14T22:13:20.000+00:00", "text": "one"},
        {"type": "log", "time": "2023-11-14T22:13:20.000+00:00", "text": "two"},
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
        f"{job_id} is RUNNABLE and has no log, but its 2 children may: batchreg logs {job_id}:0"
    )


def test_command_to_follow_with_has_the_region_that_was_given(aws):
    """As printed it finds the job, whatever region is configured."""
    region = aws.environ["AWS_REGION"]
    done = run(aws, "submit", "--detach", "--region", region, IMAGE)
    job_id = done.out.strip()
    assert done.line == f"To follow it: batchreg logs --follow {job_id} --region {region}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([IMAGE, "ls", "-l"], "No such option '-l'. Put -- before the container's command."),
        ([IMAGE, "--memroy", "4G"], "No such option '--memroy'. Did you mean '--memory'?"),
        ([IMAGE, "--vcpus", "many"], "Invalid value for '--vcpus': 'many' is not a number."),
        ([IMAGE, "--gpus", "1.5"], "Invalid value for '--gpus': '1.5' is not a whole number."),
        ([IMAGE, "--retries", "11"], "Invalid value for '--retries': 11 is not between 1 and 10."),
        (
            [IMAGE, "--timeout", "59"],
            "Invalid value for '--timeout': 59 is not a number of at least 60.",
        ),
    ],
)
def test_wrong_option_says_what_is_wrong_with_it(aws, arguments, message):
    """And, for the usual slip of an option that is the container's, what to do."""
    assert run(aws, "submit", *arguments) == Run(
        2, "", f"batchreg: {message} See `batchreg submit --help`.\n"
    )


def test_logs_into_a_closed_pipe_are_quiet(aws, spoken):
    """As into `head -1`."""
    done = subprocess.run(
        f"{BATCHREG} logs {spoken} | head -0; echo ${{PIPESTATUS[@]}}",
        env=environ(aws),
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        executable="/bin/bash",
    )
    assert (done.stdout, done.stderr) == ("0 0\n", "")


@pytest.mark.parametrize("command", ["logs", "cancel"])
def test_unknown_job_is_one_line(aws, command):
    """A slip in the id, another region, or a job of last month."""
    done = run(aws, command, "00000000-0000-4000-8000-000000000000")
    assert (done.status, done.out) == (1, "")
    assert done.line == (
        "batchreg: There is no job 00000000-0000-4000-8000-000000000000 in this region. Check the "
        "id and --region; AWS Batch forgets jobs after a week."
    )


@pytest.mark.parametrize("status", ["RUNNABLE", "RUNNING"])
def test_cancel_ends_a_job(aws, status):
    """Whether it waits or runs."""
    job_id = detached(aws, IMAGE)["jobId"]
    aws.set_jobs(status, job_id=job_id)
    assert run(aws, "cancel", job_id) == Run(
        0, "", f"{job_id} was {status}; AWS Batch is ending it.\n"
    )
    assert described(aws, job_id)["status"] == "FAILED"


def test_cancel_of_an_ended_job_is_a_success(aws, spoken):
    """There is nothing to do."""
    assert run(aws, "cancel", spoken) == Run(0, "", f"{spoken} has already finished: FAILED.\n")


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
            "Fargate has no GPUs. Leave out --gpus or --fargate.",
        ),
        (
            [IMAGE, "--vcpus", "0.5"],
            "0.5 is not a whole number of vCPUs, which EC2 requires. Use --vcpus 1, or --fargate.",
        ),
        (
            [IMAGE, "--fargate", "--vcpus", "4", "--memory", "4G"],
            "Fargate does not offer 4 vCPUs with 4096 MiB. The nearest are --vcpus 4 --memory 8192, "
            "--vcpus 4 --memory 9216, --vcpus 4 --memory 10240.",
        ),
        (
            [IMAGE, "--name", "a.b"],
            "'a.b' cannot be a job's name. Use at most 128 letters, digits, hyphens and underscores, "
            "a letter or digit first.",
        ),
        (
            [IMAGE, "--stack-name", "plain", "--fargate"],
            "plain has no job queue on Fargate. To add one: batchreg deploy --fargate --stack-name plain",
        ),
    ],
)
def test_what_cannot_work_is_one_line(aws, arguments, line):
    """The fact, then what to do."""
    assert run(aws, "submit", *arguments) == Run(1, "", f"batchreg: {line}\n")


def test_stack_that_does_not_exist_is_named_with_its_region(aws):
    """The usual cause is another region or a slip."""
    done = run(aws, "submit", IMAGE, "--stack-name", "nowhere")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith("batchreg: There is no stack nowhere in us-east-1. ")
    assert done.err.endswith(" To create it: batchreg deploy --stack-name nowhere\n")


def test_name_that_no_stack_can_have_is_wrong_usage(aws):
    """AWS is not asked."""
    assert run(aws, "submit", IMAGE, "--stack-name", "no_name") == Run(
        2,
        "",
        "batchreg: 'no_name' cannot be a stack's name: use letters, digits and hyphens, a letter "
        "first. See `batchreg submit --help`.\n",
    )


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
        f"batchreg: The {kind} {arn.rsplit('/', 1)[-1]} is DISABLED. Enable "
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
