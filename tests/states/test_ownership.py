"""Whose stack it is: another tool's is left alone, another version's is ours."""

from __future__ import annotations

import pytest
from stubbed import (
    BODY,
    CHANGED,
    DEPLOY_OPTIONS,
    DESTROY_OPTIONS,
    DESTROYS,
    FOREIGN_BODY,
    GONE,
    OPTIONS,
    UPDATES,
    looks,
    reads,
)

from batchreg import __version__
from batchreg.cli import deploy, destroy, status


@pytest.mark.parametrize(
    ("command", "options"), [(deploy.run, DEPLOY_OPTIONS), (destroy.run, DESTROY_OPTIONS)]
)
def test_a_foreign_stack_is_left_alone(run, command, options):
    """A typing error in --stack-name must not cost anyone their stack."""
    assert run(command, looks("CREATE_COMPLETE"), reads(FOREIGN_BODY), **options) == (
        1,
        "genomics was not created by batchreg. Choose another --stack-name, or give --force.\n",
    )


def test_a_foreign_stack_can_be_destroyed_with_force(run):
    """Whoever says so means it."""
    ended, output = run(
        destroy.run,
        looks("CREATE_COMPLETE"),
        reads(FOREIGN_BODY),
        *DESTROYS,
        **{**DESTROY_OPTIONS, "force": True},
    )
    assert (ended, GONE in output) == (0, True)


def test_a_foreign_stack_has_a_status(run):
    """Looking is allowed, and says whose it is not."""
    ended, output = run(status.run, looks("CREATE_COMPLETE"), reads(FOREIGN_BODY), **OPTIONS)
    assert (ended, "not batchreg's" in output) == (0, True)


@pytest.mark.parametrize("version", ["0.0.1", "9.9.9"])
@pytest.mark.parametrize(
    ("command", "options", "then", "end"),
    [
        (deploy.run, DEPLOY_OPTIONS, UPDATES, CHANGED),
        (destroy.run, DESTROY_OPTIONS, DESTROYS, GONE),
    ],
)
def test_stack_of_another_version_is_ours_and_says_so(run, version, command, options, then, end):
    """An update may come from a newer or an older colleague; the table of changes tells what."""
    body = BODY.replace(f"Version: {__version__}", f"Version: {version}")
    ended, output = run(command, looks("CREATE_COMPLETE"), reads(body), *then, **options)
    assert (ended, end in output) == (0, True)
    assert f"The stack was created by batchreg {version}; this is {__version__}." in output
