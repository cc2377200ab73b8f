"""What the tests of states share: stubs for AWS, and commands that run on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
import pytest
from stubbed import Cloud, Step

from batchreg.errors import BatchregError


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def run(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Run a command on the stubs; return its exit status and all that the user reads."""

    def run(
        command: Callable[..., int], *steps: Step, password: str = "hunter2", **options: Any
    ) -> tuple[int, str]:
        monkeypatch.setenv("BATCHREG_PASSWORD", password)
        for step in steps:
            step(cloud)
        try:
            command(
                connect=cloud, **options, **({"no_check": True} if "user_data" in options else {})
            )
            exit_status = 0
        except (BatchregError, click.UsageError) as error:  # as cli.main does
            print(error, file=sys.stderr)
            exit_status = 1 if isinstance(error, BatchregError) else 2
        captured = capsys.readouterr()
        cloud.done()
        return exit_status, captured.err + captured.out

    return run
