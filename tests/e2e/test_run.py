"""From an image's name to a container's exit code, with a real registry and a real Docker Engine.

AWS Batch and CloudWatch are the embedded AWS's. What lies between them and the engine on an
instance, the ECS agent, is played by `Agent`, with nothing but the login that an instance has.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from conftest import batchreg, deployed
from lab.agent import Login, auth_for, read_ecs_config
from lab.parts import Engine, PullError
from local_aws import LocalAws

from batchreg import registry_login
from batchreg.errors import BatchregError
from batchreg.registry import images as image

GROUP = "/aws/batch/job"
AUTH_MAY_BE_WRONG = (
    "The login may be wrong, or may not read this image: check it, then batchreg "
    "deploy with the right one."
)


@dataclass
class Agent:
    """What the ECS agent does with a job of Batch's."""

    aws: LocalAws
    engine: Engine
    config: dict[str, str] = field(default_factory=dict)  # of /etc/ecs/ecs.config

    def login(self, container: dict) -> Login | None:
        """Return the login for a job's image: the one that it carries, or the instance's."""
        own = container.get("repositoryCredentials")
        if not own:
            return auth_for(container["image"], self.config)
        secret = json.loads(
            self.aws.client("secretsmanager").get_secret_value(
                SecretId=own["credentialsParameter"]
            )["SecretString"]
        )
        return {name: secret[name] for name in ("username", "password")}

    def work(self, job_id: str) -> None:
        """Pull the job's image, run its command, send its output to its log, report its end."""
        container = self._container(job_id)
        try:
            self.engine.pull(container["image"], self.login(container))
        except PullError as error:
            self.aws.set_jobs(
                "FAILED",
                job_id=job_id,
                reason="Task failed to start",
                container={
                    "reason": f"CannotPullContainerError: Error response from daemon: {error}"
                },
            )
            return
        code, output = self.engine.run(container["image"], container["command"])
        self.engine.remove(container["image"])
        self.aws.set_jobs("RUNNING", job_id=job_id)
        self._log(self._container(job_id)["logStreamName"], output)
        self.aws.set_jobs(
            "FAILED" if code else "SUCCEEDED",
            job_id=job_id,
            exit_code=code,
            reason="Essential container in task exited",
        )

    def _container(self, job_id: str) -> dict:
        (job,) = self.aws.client("batch").describe_jobs(jobs=[job_id])["jobs"]
        return job["container"]

    def _log(self, stream: str, output: str) -> None:
        logs = self.aws.client("logs")
        with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=GROUP)
        logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
        logs.put_log_events(
            logGroupName=GROUP,
            logStreamName=stream,
            logEvents=[
                {"timestamp": 1_700_000_000_000, "message": line} for line in output.splitlines()
            ],
        )


@pytest.fixture(scope="module")
def aws(registry):
    """An AWS with a stack that has the registry's login; its jobs wait for an agent."""
    with LocalAws() as aws:
        deployed(
            aws,
            "--stack-name",
            "run",
            "--username",
            registry.username,
            "--registry-url",
            f"http://{registry.host}/",
            "--fargate",
            BATCHREG_PASSWORD=registry.password,
        )
        aws.set_jobs("RUNNABLE")
        yield aws


@pytest.fixture(scope="module")
def ecs_config(aws, tmp_path_factory) -> bytes:
    """What registry_login makes of the stack's secret on an instance."""
    path = tmp_path_factory.mktemp("ecs") / "ecs.config"
    (stack,) = aws.client("cloudformation").describe_stacks(StackName="run")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    subprocess.run(
        [
            sys.executable,
            registry_login.__file__,
            "--region",
            "us-east-1",
            "--secret-id",
            outputs["RegistrySecretArn"],
            "--ecs-config",
            str(path),
        ],
        env={**aws.environ, "PATH": "/nonexistent"},
        check=True,
        capture_output=True,
        timeout=60,
    )
    return path.read_bytes()


Outcome = subprocess.CompletedProcess


@pytest.fixture
def run(aws, engine) -> Callable[..., Outcome]:
    """Submit a job, let an agent with this ecs.config work on it, and follow it to its end."""

    def run(ecs_config: bytes, *arguments: str) -> Outcome:
        submitted = batchreg("submit", "--stack-name", "run", "--detach", *arguments, **aws.environ)
        assert submitted.returncode == 0, submitted.stderr
        job_id = submitted.stdout.strip()
        Agent(aws, engine, read_ecs_config(ecs_config)).work(job_id)
        return batchreg("logs", "--follow", job_id, **aws.environ)

    return run


def test_login_of_the_instance_pulls_the_image_and_runs_the_command(run, registry, ecs_config):
    """The walk-through's end: a private image, its output, success."""
    done = run(ecs_config, registry.push("lab/align", "3"), "--", "echo", "aligned", "$HOME")
    assert (done.returncode, done.stdout) == (0, "aligned $HOME\n")


def test_exit_code_of_the_container_is_batchregs(run, registry, ecs_config):
    """Through engine, agent and Batch."""
    done = run(ecs_config, registry.push("lab/align", "3"), "--", "sh", "-c", "echo no; exit 3")
    assert (done.returncode, done.stdout) == (3, "no\n")


def test_pull_without_the_login_is_refused(run, registry):
    """An instance that has none: one line, with the engine's own words and what to do."""
    done = run(b"", registry.push("lab/align", "3"), "--", "true")
    assert (done.returncode, done.stdout) == (1, "")
    line = done.stderr.splitlines()[-1]
    assert "CannotPullContainerError: Error response from daemon: " in line
    assert line.endswith(AUTH_MAY_BE_WRONG)


def test_pull_of_a_missing_tag_says_so(run, registry, ecs_config):
    """The login is right, and is not blamed."""
    registry.push("lab/align", "3")
    done = run(ecs_config, f"{registry.host}/lab/align:nine", "--", "true")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(" Check the image's name and tag.")


@pytest.mark.parametrize("options", [("--auth", "job"), ("--fargate",)])
def test_job_that_carries_its_login_needs_none_on_the_instance(run, registry, options):
    """The execution role hands the secret's user name and password to the registry."""
    done = run(b"", *options, registry.push("lab/align", "3"), "--", "echo", "aligned")
    assert (done.returncode, done.stdout) == (0, "aligned\n")


@pytest.mark.parametrize(
    "name",
    [
        "ghcr.io/Lab/x",
        "https://ghcr.io/lab/x",
        "a//b",
        "-a/b",
        "a___b/c",
        "ghcr.io/lab/x:-3",
        "ghcr.io/",
        "-ghcr.io/x",
        "ghcr.io:port/x",
        "x@sha256:12",
    ],
)
def test_engine_refuses_the_names_that_we_refuse(engine, name):
    """Before it asks any registry."""
    with pytest.raises(BatchregError):
        image.parse(name)
    with pytest.raises(PullError, match=r"invalid (reference|tag) format"):
        engine.pull(name)
