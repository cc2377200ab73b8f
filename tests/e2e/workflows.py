"""miniwdl, unmodified, with the settings of its own documentation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lab.environ import clean
from local_aws import LocalAws


def environ(aws: LocalAws, folder: Path, **more: str) -> dict[str, str]:
    """Return what an engine finds around it: an AWS, and a folder that the instances share."""
    found = {key: value for key, value in aws.environ.items() if key.startswith("AWS_")}
    return clean(**found, HOME=str(folder), **more)


def miniwdl(
    aws: LocalAws, folder: Path, queue: str, workflow: str, *, settings: str = "", **inputs: str
) -> subprocess.Popen[str]:
    """Start a workflow, given as WDL, in a job queue, given by its name or ARN.

    With `settings`, the text of a miniwdl.cfg, the queue and all else is what that says.
    """
    known = {
        "MINIWDL__SCHEDULER__CONTAINER_BACKEND": "aws_batch_job_no_efs",
        "MINIWDL__FILE_IO__ROOT": str(folder),
        "MINIWDL__AWS__TASK_QUEUE": queue,
    }
    if settings:
        config = folder / "miniwdl.cfg"
        config.write_text(settings)
        known = {"MINIWDL_CFG": str(config)}
    source = folder / "genome.wdl"
    source.write_text(workflow)
    return subprocess.Popen(
        [
            Path(sys.executable).with_name("miniwdl"),
            "run",
            source,
            *(f"{name}={value}" for name, value in inputs.items()),
            "--dir",
            folder / "runs",
            "--error-json",
        ],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ(
            aws,
            folder,
            **known,
            MINIWDL__AWS__DESCRIBE_PERIOD="0.2",
            MINIWDL__AWS__SUBMIT_PERIOD="0.1",
        ),
    )
