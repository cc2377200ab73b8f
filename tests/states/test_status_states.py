"""Every state that a stack can be in: what status shows."""

from __future__ import annotations

import pytest
from stubbed import NAME, OPTIONS, Row, first_look, lists, may_not_list, named

from batchreg.cli import status

STATUS: list[Row] = [
    *[
        (
            None,
            (step,),
            1,
            (
                f"There is no stack genomics in eu-central-1. {hint} To create it: batchreg deploy "
                "--stack-name genomics",
            ),
        )
        for step, hint in (
            (lists("lab", "genomic"), "Did you mean genomic?"),
            (lists("lab", "imaging"), "The stacks of batchreg there: imaging, lab."),
            (lists(), "Check --region."),
            (may_not_list, "Check --region."),
        )
    ],
    ("REVIEW_IN_PROGRESS", (), 0, (NAME, " REVIEW_IN_PROGRESS", "none yet")),
    *[
        (status, (), 0, (NAME, f" {status} "))
        for status in (
            "CREATE_IN_PROGRESS",
            "CREATE_COMPLETE",
            "CREATE_FAILED",
            "UPDATE_IN_PROGRESS",
            "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
            "UPDATE_COMPLETE",
            "UPDATE_FAILED",
            "ROLLBACK_IN_PROGRESS",
            "ROLLBACK_COMPLETE",
            "ROLLBACK_FAILED",
            "UPDATE_ROLLBACK_IN_PROGRESS",
            "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
            "UPDATE_ROLLBACK_COMPLETE",
            "UPDATE_ROLLBACK_FAILED",
            "DELETE_IN_PROGRESS",
            "DELETE_FAILED",
            "IMPORT_IN_PROGRESS",
            "IMPORT_COMPLETE",
            "IMPORT_ROLLBACK_IN_PROGRESS",
            "IMPORT_ROLLBACK_COMPLETE",
            "IMPORT_ROLLBACK_FAILED",
        )
    ],
]


@pytest.mark.parametrize(("state", "steps", "exit_status", "lines"), named(STATUS))
def test_status_shows_every_state(run, state, steps, exit_status, lines):
    """Looking never fails because of what there is to see."""
    ended, output = run(status.run, *first_look(state), *steps, **OPTIONS)
    assert ended == exit_status, output
    for line in lines:
        assert line in output


def test_the_table_leaves_no_state_out(cloud):
    """A state that CloudFormation may answer is a state that some stack will be in."""
    model = cloud.cfn.meta.service_model.shape_for("StackStatus")
    assert {state for state, *_ in STATUS if state} == set(model.enum) - {"DELETE_COMPLETE"}
