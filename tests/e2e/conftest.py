"""The real parts, each for as many tests as can share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from lab.instance import Instance
from lab.parts import Engine, Registry
from real_parts import PASSWORD, Launch, require


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A private registry with one user; tests that change passwords start their own."""
    require("registry")
    with Registry("ci-robot", PASSWORD, directory=tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A Docker Engine, which pulls from 127.0.0.0/8 without TLS."""
    require("engine")
    with Engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Return a function that makes new machines, as Instance does, until the test ends."""
    require("instance")
    numbers = count()
    with ExitStack() as machines:
        yield lambda **options: machines.enter_context(
            Instance(directory=tmp_path / f"instance{next(numbers)}", **options)
        )
