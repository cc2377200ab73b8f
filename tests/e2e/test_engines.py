"""Real workflow engines, unmodified, with private images from two registries.

They have the settings that `batchreg engine` prints, and know nothing of registries.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from lab.images import with_bash, with_python
from real_parts import Two, batchreg, require, two_registries
from workflows import environ, miniwdl

STACK = "engines"
TRUST = {"Version": "2012-10-17", "Statement": []}
Completed = subprocess.CompletedProcess

# Three steps, each with an image of its own. The second waits until somebody opens a gate.
WORKFLOW = """\
version 1.0
workflow genome {
    input { String aligner  String sorter  String counter  String gate }
    call align { input: image = aligner }
    call sort { input: image = sorter, reads = align.reads, gate = gate }
    call count { input: image = counter, sorted = sort.sorted }
    output { Int lines = count.lines }
}
task align {
    input { String image }
    command <<< printf 'c\\nb\\na\\n' > reads >>>
    output { File reads = "reads" }
    runtime { docker: image }
}
task sort {
    input { String image  File reads  String gate }
    command <<<
        echo waiting > "~{gate}.waiting"
        until [ -e "~{gate}" ]; do sleep 0.1; done
        sort "~{reads}"
    >>>
    output { File sorted = stdout() }
    runtime { docker: image }
}
task count {
    input { String image  File sorted }
    command <<< wc -l < "~{sorted}" >>>
    output { Int lines = read_int(stdout()) }
    runtime { docker: image }
}
"""

# Two steps on AWS Batch, and one where the flow is started. They pass data on through S3.
FLOW = """\
from metaflow import FlowSpec, batch, step

class Genome(FlowSpec):
    @batch(image="ALIGNER", cpu=1, memory=1000)
    @step
    def start(self):
        self.reads = ["c", "b", "a"]
        self.next(self.sort)

    @batch(image="SORTER", cpu=1, memory=1000)
    @step
    def sort(self):
        self.reads = sorted(self.reads)
        self.next(self.end)

    @step
    def end(self):
        print("reads:", self.reads)

if __name__ == "__main__":
    Genome()
"""
# What Metaflow asks of an image: itself it brings along.
PACKAGES = (
    *("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six"),
    *("requests", "certifi", "idna"),
)


@dataclass
class Lab:
    """A stack for two registries, with a folder that the instances share."""

    two: Two
    folder: Path

    @property
    def queue(self) -> str:
        return self.two.outputs["JobQueueArn"]

    def batchreg(self, command: str, *arguments: str, **environ: str) -> Completed:
        return batchreg(
            command, "--stack-name", STACK, *arguments, **self.two.aws.environ, **environ
        )

    def settings(self, engine: str, *options: str) -> str:
        """Return an engine's settings, as a user gets them."""
        done = self.batchreg("engine", engine, *options)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def miniwdl(self, aligner: str, sorter: str, counter: str, gate: str) -> subprocess.Popen[str]:
        """Start the workflow."""
        return miniwdl(
            self.two.aws,
            self.folder,
            self.queue,
            WORKFLOW,
            settings=self.settings("miniwdl").replace("/mnt/shared", str(self.folder)),
            aligner=aligner,
            sorter=sorter,
            counter=counter,
            gate=str(self.folder / gate),
        )

    def metaflow(self, aligner: str, sorter: str) -> Completed:
        """Run a flow, with a job role that the stack does not have."""
        aws = self.two.aws
        (self.folder / "config.json").write_text(self.settings("metaflow", "--bucket", "metaflow"))
        aws.client("s3").create_bucket(Bucket="metaflow")
        role = aws.client("iam").create_role(
            RoleName="MetaflowJobs", AssumeRolePolicyDocument=json.dumps(TRUST)
        )["Role"]["Arn"]
        source = self.folder / "genome.py"
        source.write_text(FLOW.replace("ALIGNER", aligner).replace("SORTER", sorter))
        return subprocess.run(
            [sys.executable, source, "--no-pylint", "run"],
            cwd=self.folder,
            text=True,
            capture_output=True,
            timeout=120,
            env=environ(
                aws,
                self.folder,
                USERNAME="lab",
                METAFLOW_HOME=str(self.folder),
                METAFLOW_S3_ENDPOINT_URL=aws.endpoint,
                METAFLOW_ECS_S3_ACCESS_IAM_ROLE=role,
            ),
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    require("registry", "engine", "machine")
    folder = tmp_path_factory.mktemp("engines")
    (folder / "shared").mkdir()
    with two_registries(folder, STACK, jobs=True) as two:
        yield Lab(two, folder / "shared")


def test_miniwdl_runs_a_workflow_over_a_rotation_of_a_password(lab: Lab) -> None:
    """The third step's image comes with a password that the first step's did not have."""
    registry, other = lab.two.registries
    aligner = registry.push("lab/align", "1", with_bash())
    sorter = other.push("lab/sort", "1", with_bash())
    run = lab.miniwdl(aligner, sorter, f"{registry.host}/lab/count:1", "gate")
    _await(lab.folder / "gate.waiting", run)
    registry.change_password("second:a")
    registry.push("lab/count", "1", with_bash())
    rotated = lab.batchreg(
        "rotate", "--yes", "--follow", "--registry", registry.host, BATCHREG_PASSWORD="second:a"
    )
    assert rotated.returncode == 0, rotated.stderr
    (lab.folder / "gate").touch()
    out, err = run.communicate(timeout=90)
    assert run.returncode == 0, err
    assert json.loads(out)["outputs"] == {"genome.lines": 3}


def test_miniwdl_says_why_an_image_does_not_come(lab: Lab) -> None:
    """With a password that is wrong the workflow fails, with the agent's own words."""
    registry, other = lab.two.registries
    password = registry.password
    registry.change_password("not what the stack has")
    image = registry.push("lab/align", "2", with_bash())
    run = lab.miniwdl(image, other.push("lab/sort", "1"), image, "never")
    out, err = run.communicate(timeout=90)
    registry.change_password(password)
    assert run.returncode != 0
    assert "CannotPullImageManifestError: Error response from daemon: " in out + err


def test_metaflow_passes_data_on_through_s3(lab: Lab) -> None:
    """With images of two registries, and the credentials of a job role."""
    registry, other = lab.two.registries
    image = with_python(*PACKAGES, METAFLOW_SKIP_INSTALL_DEPENDENCIES="1")
    done = lab.metaflow(*(one.push("lab/meta", "1", image) for one in (registry, other)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "reads: ['a', 'b', 'c']" in done.stdout


def _await(path: Path, run: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 90
    while not path.exists():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
