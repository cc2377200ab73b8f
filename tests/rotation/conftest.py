"""What the tests of rotation share: stacks with one registry and with two."""

from __future__ import annotations

import pytest
from canary import Watched
from rotating import Registries, rendered


@pytest.fixture
def one(made, batchreg):
    """A stack with one registry, Docker Hub."""
    return Registries(made, batchreg)


@pytest.fixture
def two(account, batchreg):
    """A stack with two registries."""
    account.make(
        rendered(slots=(1, 2)),
        RegistryUrl="a.example.com",
        Username="ann",
        Password="old",
        RegistryUrl2="b.example.com",
        Username2="ben",
        Password2="other",
    )
    return Registries(account, batchreg)


@pytest.fixture
def watched(account, tmp_path):
    return Watched(account, tmp_path)
