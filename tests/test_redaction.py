"""Secrets are redacted after judging: what a password happens to be changes no finding."""

from __future__ import annotations

import json

import pytest
from test_findings import FAULTS, Fault
from write_troubleshooting import changed

from batchreg.doctor.collect import redact
from batchreg.doctor.findings import diagnose, signature

# Words of AWS's, of registries' and of batchreg's that are also passwords or fields of a secret.
WORDS = ("wrong", "login", "denied", "unauthorized", "CannotPull", "INVALID", "FAILED", "found")
CANARY = "canary-4711"


def words_of(secret: object) -> tuple[str, ...]:
    return redact.words(secret if isinstance(secret, str) else json.dumps(secret))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_no_word_changes_a_finding(fault: Fault) -> None:
    """Whatever the secret is, the causes and their fixes are those of the facts."""
    seen = changed(fault.change)
    shown = redact.without_changing(seen, WORDS, signature)
    assert signature(shown) == signature(seen)


@pytest.mark.parametrize(
    "secret",
    [
        {"username": "lab", "password": "wrong", "registry_url": "ghcr.io"},
        {"username": "lab", "password": CANARY, "kind": "login"},
        "wrong",
    ],
)
def test_password_that_is_a_word_of_ours_does_not_hide_the_cause(secret: object) -> None:
    """It would be told by the asterisks in place of a word that everybody knows."""
    change = {
        "image.ok": False,
        "image.cause": "wrong-login",
        "image.fact": "ghcr.io rejects the credentials: wrong user name or password.",
    }
    shown = redact.without_changing(changed(change), words_of(secret), signature)
    assert [finding.cause for finding in diagnose(shown)] == ["wrong-credentials"]


def test_password_is_redacted_wherever_it_stands() -> None:
    """In AWS's words, in an agent's, in a console's, and in what an image says."""
    change = {
        "jobs.0.status": "FAILED",
        "jobs.0.exit_code": None,
        "jobs.0.reasons": [f"CannotPullImageManifestError: unauthorized: {CANARY} is wrong"],
        "instances.0.console": [f"parked: {CANARY}"],
        "launch_failures": [f"InsufficientInstanceCapacity {CANARY}"],
        "image.fact": CANARY,
    }
    seen = changed(change)
    shown = redact.without_changing(
        seen, words_of({"username": "lab", "password": CANARY}), signature
    )
    assert CANARY not in repr(shown)
    assert signature(shown) == signature(seen)
