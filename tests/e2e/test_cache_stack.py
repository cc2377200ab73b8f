"""A stack and an attached environment whose images ECR pulls, with real registries and jobs."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from attach_lab import Lab
from cached import World, cached_registries
from lab.agent import read_ecs_config
from lab.images import with_bash
from lab.parts import Registry
from real_parts import PASSWORD, Launch, batchreg, outputs_of, require
from workflows import miniwdl

STACK = "cached"
Completed = subprocess.CompletedProcess
# One image is in the cached registry, the other in the one that the instances pull from.
WORKFLOW = """\
version 1.0
workflow genome {
    input { String aligner  String sorter }
    call align { input: image = aligner }
    call sort { input: image = sorter, reads = align.reads }
    output { Array[String] sorted = sort.sorted }
}
task align {
    input { String image }
    command <<< printf 'c\\nb\\na\\n' > reads >>>
    output { File reads = "reads" }
    runtime { docker: image }
}
task sort {
    input { String image  File reads }
    command <<< sort "~{reads}" >>>
    output { Array[String] sorted = read_lines(stdout()) }
    runtime { docker: image }
}
"""


@dataclass
class Cached:
    """A stack with two registries: ECR pulls from ghcr.io, the instances from the other one."""

    world: World
    other: Registry
    outputs: dict[str, str]

    def __post_init__(self) -> None:
        self.batch = self.world.aws.client("batch")

    def batchreg(self, command: str, *arguments: str, **environ: str) -> Completed:
        place = () if command in ("attach", "detach") else ("--stack-name", STACK)
        return batchreg(command, *place, *arguments, **self.world.aws.environ, **environ)

    def done(self, command: str, *arguments: str, **environ: str) -> Completed:
        result = self.batchreg(command, *arguments, **environ)
        assert result.returncode == 0, result.stderr
        return result

    def name(self, image: str) -> str:
        return str(self.done("image", image).stdout).strip()

    def submit(self, image: str, *command: str) -> str:
        """Submit a job, and return its id."""
        return str(
            self.done("submit", "--detach", "--memory", "64", image, "--", *command).stdout
        ).strip()

    def wait(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """Return a job once it has one of these statuses, or has ended."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            (job,) = self.batch.describe_jobs(jobs=[job_id])["jobs"]
            if job["status"] in (*statuses, "SUCCEEDED", "FAILED"):
                return job
            time.sleep(0.05)
        raise TimeoutError(job["status"])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cached]:
    require("registry", "engine", "machine")
    folder = tmp_path_factory.mktemp("cache")
    with (
        Registry("cyd", "third:c", directory=folder / "other", host="127.0.0.3") as other,
        cached_registries(folder) as world,
    ):
        for name in ("align", "sort", "count"):
            world.registries["ghcr.io"].push(f"lab/{name}", "1", with_bash())
        other.push("lab/sort", "1", with_bash())
        arguments = (
            *(
                "deploy",
                "--stack-name",
                STACK,
                "--yes",
                "--json",
                "--no-check",
                "--pull-through-cache",
                "ghcr.io",
            ),
            *("--registry", "ghcr.io,username=ann,password=env:A"),
            *("--registry", f"{other.host},username=cyd,password=env:C"),
        )
        result = batchreg(*arguments, **world.aws.environ, A=PASSWORD, C="third:c")
        yield Cached(world, other, outputs_of(result))


def test_job_runs_where_no_instance_has_the_credentials(lab: Cached) -> None:
    """What ECR pulled came from the private registry, with the secret that only ECR reads."""
    submitted = lab.done("submit", "--memory", "64", "ghcr.io/lab/align:1", "--", "echo", "aligned")
    name = f"{lab.world.aws.ecr_host}/{STACK}/ghcr/lab/align:1"
    assert f"Pulled through ECR: {name}" in submitted.stderr
    assert "aligned" in submitted.stdout


def test_instance_gets_the_other_registrys_credentials_alone(lab: Cached, launch: Launch) -> None:
    """As the launch template says; its instances also set what the agent does about images."""
    (version,) = lab.world.aws.client("ec2").describe_launch_template_versions(
        LaunchTemplateId=lab.outputs["LaunchTemplateId"], Versions=["$Latest"]
    )["LaunchTemplateVersions"]
    instance = launch(environ=lab.world.aws.environ, files={"etc/ecs/ecs.config": b""})
    boot = instance.boot(base64.b64decode(version["LaunchTemplateData"]["UserData"]))
    assert boot.ok, boot.console
    config = read_ecs_config(instance.read("/etc/ecs/ecs.config") or b"")
    assert [*json.loads(config["ECS_ENGINE_AUTH_DATA"])] == [lab.other.host]
    assert config["ECS_IMAGE_PULL_BEHAVIOR"] == "default"


def test_second_pull_needs_no_registry(lab: Cached) -> None:
    """ECR has it: an outage of the registry is no outage of the jobs."""
    lab.done("submit", "--memory", "64", "ghcr.io/lab/count:1", "--", "true")
    name = lab.name("ghcr.io/lab/count:1")
    lab.world.aws.set_upstreams({"ghcr.io": "127.0.0.1:1"})
    try:
        role = lab.outputs["InstanceRoleArn"]
        assert lab.world.pull(name, role) == ""
        assert "Requested image not found" in lab.world.pull(name.replace("count", "sort"), role)
    finally:
        lab.world.aws.set_upstreams({"ghcr.io": lab.world.registries["ghcr.io"].host})


def test_one_workflow_over_both_kinds_of_registries(lab: Cached, tmp_path: Path) -> None:
    """The engine is unmodified, and is given the cached name where there is one."""
    run = miniwdl(
        lab.world.aws,
        tmp_path,
        lab.outputs["JobQueueArn"],
        WORKFLOW,
        aligner=lab.name("ghcr.io/lab/align:1"),
        sorter=lab.name(f"{lab.other.host}/lab/sort:1"),
    )
    out, err = run.communicate(timeout=90)
    assert run.returncode == 0, err
    assert json.loads(out)["outputs"] == {"genome.sorted": ["a", "b", "c"]}


def test_neither_role_can_read_the_secret(lab: Cached) -> None:
    """Nor is the password in any file of an instance, in ECR or in a log."""
    secret = lab.outputs["RegistrySecretArn"]
    for role in ("InstanceRoleArn", "JobExecutionRoleArn"):
        decisions = {}
        for arn in (secret, lab.outputs["RegistrySecret2Arn"]):
            (result,) = lab.world.iam.simulate_principal_policy(
                PolicySourceArn=lab.outputs[role],
                ActionNames=["secretsmanager:GetSecretValue"],
                ResourceArns=[arn],
            )["EvaluationResults"]
            decisions[arn] = result["EvalDecision"]
        assert [*decisions.values()] == ["implicitDeny", "allowed"]
    texts = (PASSWORD, quote(PASSWORD, safe=""), json.dumps(PASSWORD)[1:-1])
    for path in lab.world.aws.log.parent.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(text.encode() in content for text in texts), path


def test_rotated_password_counts_for_the_next_pull(lab: Cached) -> None:
    """No instance is asked to do anything."""
    registry = lab.world.registries["ghcr.io"]
    registry.change_password("second:a")
    try:
        rotated = lab.done(
            "rotate", "--yes", "--no-check", "--registry", "ghcr.io", BATCHREG_PASSWORD="second:a"
        )
        assert "ECR uses it with its next pull" in rotated.stderr
        registry.push("lab/new", "1", with_bash())
        lab.done("submit", "--memory", "64", "ghcr.io/lab/new:1", "--", "true")
    finally:
        registry.change_password(PASSWORD)
        lab.done(
            "rotate", "--yes", "--no-check", "--registry", "ghcr.io", BATCHREG_PASSWORD=PASSWORD
        )


def test_from_the_cache_to_the_instances_and_back_while_jobs_run(
    lab: Cached, tmp_path: Path
) -> None:
    """Running jobs go on, what is cached stays usable, and nothing is asked again."""
    tmp_path.chmod(0o755)
    cached, direct = "ghcr.io/lab/align:1", f"{lab.other.host}/lab/sort:1"
    waiting = ("sh", "-c", "for i in $(seq 100); do sleep 0.1; done")
    running = [lab.submit(image, *waiting) for image in (cached, direct)]
    assert [lab.wait(job, "RUNNING")["status"] for job in running] == ["RUNNING"] * 2
    back = lab.done("deploy", "--yes", "--no-check", "--pull-through-cache", "none")
    assert "through ECR" in back.stderr
    assert (
        "RegistrySecret"
        in lab.world.aws.client("cloudformation").get_template(StackName=STACK)["TemplateBody"]
    )
    by_cached_name = lab.submit(lab.world.image(f"{STACK}/ghcr", "lab/align:1"), "true")
    over = lab.done("deploy", "--yes", "--no-check", "--pull-through-cache", "ghcr.io")
    assert "batchreg image" in over.stderr
    running += [by_cached_name, lab.submit(cached, "true"), lab.submit(direct, "true")]
    ended = [lab.wait(job) for job in running]
    assert [job["status"] for job in ended] == ["SUCCEEDED"] * 5, ended


def test_attached_environment_stays_as_it_is(lab: Cached) -> None:
    """No launch template, no new instance: the role may pull, and ECR has the credentials."""
    theirs = Lab(lab.world.aws, "theirs").make(resources={"instanceTypes": ["m7i.large"]})
    before = theirs.environment
    login = ("--registry-url", "ghcr.io", "--username", "ann", "--no-check", "--yes")
    attached = lab.done(
        "attach", "theirs", *login, "--pull-through-cache", BATCHREG_PASSWORD=PASSWORD
    )
    assert "itself does not change" in attached.stderr
    assert theirs.environment == before
    place = ("--stack-name", "batchreg-theirs")
    environ = lab.world.aws.environ
    submitted = batchreg(
        "submit", *place, "--memory", "64", "ghcr.io/lab/sort:1", "--", "true", **environ
    )
    assert submitted.returncode == 0, submitted.stderr
    again = lab.done("attach", "theirs", "--yes", "--no-check")
    assert "nothing to change" in again.stderr
    status = batchreg("status", *place, **environ)
    assert "batchreg-theirs/ghcr/..." in status.stdout
    lab.done("detach", "theirs", "--yes")
    assert theirs.environment == before
    assert theirs.companion is None
