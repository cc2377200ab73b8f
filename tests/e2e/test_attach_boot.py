"""Attached user data, booted by the real cloud-init: theirs runs as before, and ours is there."""

from __future__ import annotations

import pytest
from attach_archives import ACCEPTED, PART, resolved

from batchreg.attach import archive

# How many marks the scripts of a structure leave behind, where it is not one.
MARKS = {
    "none": 0,
    "empty": 0,
    "blank": 0,
    "several shell scripts": 3,
    "cloud-config and shell": 2,
    "never closed, two scripts": 2,
    "nested": 2,
    "nested, the inner one never closed": 2,
    "nested, inner boundary longer by a word": 2,
    "UTF-8": 0,  # cloud-init 22.4 does not run it, with or without us
}
MARK = b"eu-central-1 ${HOME}\n"


@pytest.mark.parametrize("structure", ACCEPTED)
def test_their_scripts_run_as_before_and_ours_is_installed(launch, structure):
    """Whatever the structure of the archive."""
    data = resolved(archive.splice(archive.read(ACCEPTED[structure]), PART))
    boot = launch().boot(data)
    expected = "".join(f"ran-{n + 1}\n" for n in range(MARKS.get(structure, 1)))
    assert (boot.read("/etc/theirs") or b"").decode() == expected
    assert boot.read("/opt/batchreg/mark") == MARK
