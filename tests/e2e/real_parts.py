"""What end-to-end tests share: batchreg as a user runs it, real parts, and what they need."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import schemas
from lab.environ import clean
from lab.instance import Instance
from lab.parts import Registry, missing
from local_aws import LocalAws

# What a careless layer on its way (shell, JSON, Fn::Sub, base64url) would change.
PASSWORD = "sé:cr\"e\\t $HOME ${AWS::Region} {{x}} %41 '~?>🐳"

Launch = Callable[..., Instance]


def batchreg(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `batchreg` as a user does, with no settings from outside but these."""
    program = Path(sys.executable).with_name("batchreg")
    done = subprocess.run(
        [program, *arguments],
        text=True,
        capture_output=True,
        timeout=60,
        cwd="/",
        env=clean(**environ),
    )
    schemas.check_lines(arguments, done.stdout)
    return done


def deployed(aws: LocalAws, *arguments: str, **environ: str) -> tuple[dict[str, str], bytes]:
    """Deploy a stack; return its outputs, and the user data of its launch template."""
    result = batchreg("deploy", "--yes", *arguments, **aws.environ, **environ)
    assert result.returncode == 0, result.stderr
    outputs = dict(line.split(": ") for line in result.stdout.splitlines())
    (version,) = aws.client("ec2").describe_launch_template_versions(
        LaunchTemplateId=outputs["LaunchTemplateId"], Versions=["$Latest"]
    )["LaunchTemplateVersions"]
    return outputs, base64.b64decode(version["LaunchTemplateData"]["UserData"])


@dataclass
class Two:
    """A stack with two registries, and what its launch template gives to an instance."""

    aws: LocalAws
    registries: tuple[Registry, Registry]
    images: tuple[str, str]
    outputs: dict[str, str]
    user_data: bytes


@contextmanager
def two_registries(folder: Path, stack: str, *, jobs: bool = False) -> Iterator[Two]:
    """Start two real registries with a login each, and deploy a stack for both."""
    with (
        LocalAws(jobs=jobs) as aws,
        Registry("ann", "first:a", directory=folder / "a", host="127.0.0.1") as one,
        Registry("ben", 'first "b\\', directory=folder / "b", host="127.0.0.2") as other,
    ):
        images = one.push("lab/align"), other.push("lab/sort")
        yield Two(
            aws,
            (one, other),
            images,
            *deployed(
                aws,
                "--stack-name",
                stack,
                "--registry",
                f"{one.host},username=ann,password=env:A",
                "--registry",
                f"http://{other.host}/v2/,username=ben,password=env:B",
                A=one.password,
                B=other.password,
            ),
        )


def require(*parts: str) -> None:
    """Skip the test where a part cannot run, but fail in CI, which has them all."""
    if reason := missing(parts):
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
