"""What tests share: the command line as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

BATCHREG = str(Path(sys.executable).with_name("batchreg"))

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def batchreg(tmp_path: Path) -> Run:
    """Run `batchreg` as a subprocess in an empty folder, with no settings from outside."""
    def run(*arguments: str, environ: dict[str, str] | None = None,
            **options: object) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items()
                 if not name.startswith(("AWS_", "BATCHREG_"))}
        options = {"capture_output": True, "cwd": tmp_path, **options}
        return subprocess.run([BATCHREG, *arguments], text=True, timeout=60,
                              env={**clean, **(environ or {})}, **options)
    return run
