"""What tests of attach share: an account, and batchreg with credentials."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from attach_lab import LOGIN, Lab
from local_aws import LocalAws

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def lab(aws: LocalAws, stack: str) -> Lab:
    """An account where nothing exists yet but the network."""
    return Lab(aws, stack)


@pytest.fixture
def run(batchreg: Run, aws: LocalAws) -> Run:
    """Run a command of batchreg with credentials for AWS and for the registry."""

    def call(*arguments: str, status: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        result = batchreg(*arguments, environ={**aws.environ, **LOGIN, **environ})
        assert result.returncode == status, result.stdout + result.stderr
        assert "Traceback" not in result.stderr
        return result

    return call
