"""The same job in somebody else's environment: fails, succeeds once attached, and fails again.

An instance boots their user data with ours, the real Docker Engine pulls, and the container runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attach_archives import multipart, shell
from attach_lab import Lab
from lab.parts import Registry
from local_aws import LocalAws
from real_parts import batchreg, require

HURRY = 30


# What a shell says of a program that is not there; cloud-init has its own path to Python.
NO_PYTHON = shell(
    "printf '#!/bin/sh\\nexit 127\\n' > /usr/local/bin/python3",
    "chmod 755 /usr/local/bin/python3",
    name="a.sh",
)
PUBLIC = {"none": {}}


class Theirs:
    """An environment whose own scripts write credentials for another registry by hand."""

    def __init__(
        self,
        aws: LocalAws,
        registry: Registry,
        own: Registry,
        name: str = "theirs",
        *more_parts: str,
    ) -> None:
        self.aws, self.registry, self.own, self.name = aws, registry, own, name
        self.private, self.known = registry.push("lab/align", "3"), own.push("lab/sort", "1")
        login = {own.host: {"username": own.username, "password": own.password}}
        data = multipart(
            *more_parts,
            shell(
                "echo ECS_ENGINE_AUTH_TYPE=docker >> /etc/ecs/ecs.config",
                f"echo 'ECS_ENGINE_AUTH_DATA={json.dumps(login)}' >> /etc/ecs/ecs.config",
                name="zzzzz.sh",
            ),
        )
        self.lab = Lab(aws, name)
        self.lab.make(
            {"launchTemplateId": self.lab.template("base", data), "version": "$Latest"},
            resources={"instanceTypes": ["m7i.large"]},
        )

    def run(self, image: str) -> dict[str, Any]:
        """Run a job, and return it once it has ended."""
        batch = self.aws.client("batch")
        definition = batch.register_job_definition(
            jobDefinitionName=self.name,
            type="container",
            containerProperties={
                "image": image,
                "command": ["true"],
                "resourceRequirements": [
                    {"type": "VCPU", "value": "1"},
                    {"type": "MEMORY", "value": "64"},
                ],
            },
        )["jobDefinitionArn"]
        job = batch.submit_job(jobName="job", jobQueue=self.name, jobDefinition=definition)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            (found,) = batch.describe_jobs(jobs=[job["jobId"]])["jobs"]
            if found["status"] in ("SUCCEEDED", "FAILED"):
                return dict(found)
            time.sleep(0.1)
        raise TimeoutError(f"{found['status']}: {found['statusReason']}")

    def pulls(self, image: str) -> bool:
        """Tell whether a job with this image runs, or fails for want of credentials."""
        job = self.run(image)
        if job["status"] == "FAILED":
            assert "no basic auth credentials" in job["container"]["reason"]
        return job["status"] == "SUCCEEDED"

    def batchreg(self, *arguments: str) -> str:
        result = batchreg(
            *arguments,
            **self.aws.environ,
            BATCHREG_USERNAME=self.registry.username,
            BATCHREG_PASSWORD=self.registry.password,
            BATCHREG_REGISTRY_URL=f"http://{self.registry.host}/",
        )
        assert result.returncode == 0, result.stderr
        return result.stderr


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image that everybody may pull."""
    require("registry")
    folder = tmp_path_factory.mktemp("public")
    with Registry("ann", "a", directory=folder, host="127.0.0.3", auth=PUBLIC) as registry:
        yield registry.push("lab/open", "1")


@pytest.fixture(scope="module")
def theirs(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theirs]:
    """One environment, which the tests take through its life in order."""
    require("registry", "engine", "machine")
    folder: Path = tmp_path_factory.mktemp("own")
    with (
        LocalAws(jobs=True, hurry=HURRY) as aws,
        Registry("ben", "x:y", directory=folder, host="127.0.0.2") as own,
    ):
        yield Theirs(aws, registry, own)


def test_job_runs_once_the_environment_is_attached_and_theirs_keep_running(theirs):
    """Nothing but the launch template changes, and it comes back."""
    before = theirs.lab.environment
    assert (theirs.pulls(theirs.private), theirs.pulls(theirs.known)) == (False, True)
    shown = theirs.batchreg("attach", "theirs", "--yes")
    assert "sets registry credentials by hand" in shown
    assert (theirs.pulls(theirs.private), theirs.pulls(theirs.known)) == (True, True)
    theirs.batchreg("detach", "theirs", "--yes")
    assert (theirs.pulls(theirs.private), theirs.pulls(theirs.known)) == (False, True)
    after = theirs.lab.environment
    assert {**after, "statusReason": ""} == {**before, "statusReason": ""}


def test_without_the_secret_new_instances_run_what_they_ran_before(theirs):
    """We never cost anyone their environment."""
    theirs.batchreg("attach", "theirs", "--yes")
    arn = theirs.lab.outputs["RegistrySecretArn"]
    theirs.aws.client("secretsmanager").delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)
    # An update replaces the instances, which have the credentials.
    theirs.lab.batch.update_compute_environment(
        computeEnvironment="theirs", computeResources={"instanceTypes": ["m7i.xlarge"]}
    )
    assert (theirs.pulls(theirs.private), theirs.pulls(theirs.known)) == (False, True)
    assert theirs.lab.environment["status"] == "VALID"


def test_without_the_registry_new_instances_run_public_images(theirs, public, tmp_path):
    """A boot asks AWS for the credentials, and the registry for nothing."""
    with Registry("ann", "down:a", directory=tmp_path, host="127.0.0.4") as registry:
        lost = Theirs(theirs.aws, registry, theirs.own, "down")
        lost.batchreg("attach", "down", "--yes")
    job = lost.run(lost.private)
    assert job["status"] == "FAILED"
    assert "connection refused" in job["container"]["reason"]
    assert (lost.pulls(public), lost.pulls(lost.known)) == (True, True)
    assert lost.lab.environment["status"] == "VALID"


def test_without_python_new_instances_run_what_they_ran_before(theirs, public):
    """A custom image may have none; the attached part of the user data needs it."""
    bare = Theirs(theirs.aws, theirs.registry, theirs.own, "bare", NO_PYTHON)
    bare.batchreg("attach", "bare", "--yes")
    assert bare.pulls(public)
    assert (bare.pulls(bare.private), bare.pulls(bare.known)) == (False, True)
    assert bare.lab.environment["status"] == "VALID"
