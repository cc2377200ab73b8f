"""A real workflow engine, unmodified, on an environment that batchreg did not create."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from attach_lab import Lab
from lab.images import with_bash
from lab.parts import Registry
from local_aws import LocalAws
from real_parts import batchreg, require
from workflows import miniwdl

NAME = "theirs"

WORKFLOW = """\
version 1.0
workflow genome {
    input { String aligner }
    call align { input: image = aligner }
    output { Array[String] reads = align.reads }
}
task align {
    input { String image }
    command <<< printf 'c\\nb\\na\\n' >>>
    output { Array[String] reads = read_lines(stdout()) }
    runtime { docker: image }
}
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An environment and a queue from plain boto3, without a launch template."""
    require("registry", "engine", "machine")
    with LocalAws(jobs=True) as aws:
        yield Lab(aws, NAME).make(resources={"instanceTypes": ["m7i.large"]})


def test_the_same_workflow_fails_before_and_succeeds_after_the_queue_is_attached(
    lab: Lab, registry: Registry, tmp_path: Path
) -> None:
    """The engine knows the queue by its name, before and after."""
    image = registry.push("lab/align", "engine", with_bash())

    def workflow() -> tuple[int, str]:
        run = miniwdl(lab.aws, tmp_path, NAME, WORKFLOW, aligner=image)
        out, err = run.communicate(timeout=90)
        return run.returncode, out if run.returncode == 0 else out + err

    status, said = workflow()
    assert status != 0
    assert "CannotPullImageManifestError: Error response from daemon: " in said
    assert "no basic auth credentials" in said
    (queue,) = lab.batch.describe_job_queues(jobQueues=[NAME])["jobQueues"]
    attached = batchreg(
        "attach",
        queue["jobQueueArn"],
        "--registry-url",
        registry.host,
        "--username",
        registry.username,
        "--yes",
        **lab.aws.environ,
        BATCHREG_PASSWORD=registry.password,
    )
    assert attached.returncode == 0, attached.stderr
    status, said = workflow()
    assert status == 0, said
    assert json.loads(said)["outputs"] == {"genome.reads": ["c", "b", "a"]}
