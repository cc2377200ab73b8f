"""Every state that a stack can be in: what deploy does, says and exits with."""

from __future__ import annotations

from typing import Any

import pytest
from stubbed import (
    BODY,
    CAUSE,
    CHANGED,
    CREATES,
    DEPLOY_OPTIONS,
    FAILED,
    FOLLOWING,
    GIVEN,
    ID,
    NAME,
    NOT_OURS,
    NOTHING,
    OLD_BODY,
    OURS,
    REMOVES,
    STUCK,
    THEIRS,
    UP,
    UPDATES,
    UPDATES_AFTER,
    Row,
    asks_who,
    continues_rollback,
    deletes,
    executes,
    first_look,
    follows,
    looks,
    named,
    plans,
    reads,
    rolls_back,
)

from batchreg.cli import deploy
from batchreg.errors import BatchregError
from batchreg.stack import deploy as deploying
from batchreg.stack.plan import Plan
from batchreg.stack.states import Stack

DEPLOY: list[Row] = [
    (None, CREATES, 0, (UP,)),
    ("REVIEW_IN_PROGRESS", CREATES, 0, (UP,)),
    ("CREATE_COMPLETE", UPDATES, 0, (CHANGED,)),
    ("UPDATE_COMPLETE", UPDATES, 0, (CHANGED,)),
    ("UPDATE_COMPLETE", (plans("UPDATE", changes=False),), 0, (NOTHING,)),
    ("UPDATE_ROLLBACK_COMPLETE", UPDATES, 0, (CHANGED,)),
    ("IMPORT_COMPLETE", UPDATES, 0, (CHANGED,)),
    ("IMPORT_ROLLBACK_COMPLETE", UPDATES, 0, (CHANGED,)),
    # An earlier run of ours was interrupted: it is watched to its end, and then the work continues.
    (
        "CREATE_IN_PROGRESS",
        (asks_who(OURS), follows("CREATE_COMPLETE"), looks("CREATE_COMPLETE"), *UPDATES_AFTER),
        0,
        (FOLLOWING.format("CREATE_IN_PROGRESS"), CHANGED),
    ),
    (
        "UPDATE_IN_PROGRESS",
        (
            asks_who(OURS),
            follows("UPDATE_COMPLETE"),
            looks("UPDATE_COMPLETE"),
            plans("UPDATE", changes=False),
        ),
        0,
        (FOLLOWING.format("UPDATE_IN_PROGRESS"), NOTHING),
    ),
    (
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        (
            asks_who(OURS),
            follows("UPDATE_COMPLETE"),
            looks("UPDATE_COMPLETE"),
            plans("UPDATE", changes=False),
        ),
        0,
        (FOLLOWING.format("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"), NOTHING),
    ),
    (
        "ROLLBACK_IN_PROGRESS",
        (
            asks_who(OURS),
            follows("ROLLBACK_COMPLETE", FAILED),
            looks("ROLLBACK_COMPLETE"),
            *REMOVES,
            *CREATES,
        ),
        0,
        (
            FOLLOWING.format("ROLLBACK_IN_PROGRESS"),
            CAUSE,
            "genomics is in ROLLBACK_COMPLETE: it was never created.",
            UP,
        ),
    ),
    (
        "UPDATE_ROLLBACK_IN_PROGRESS",
        (
            asks_who(OURS),
            follows("UPDATE_ROLLBACK_COMPLETE", FAILED),
            looks("UPDATE_ROLLBACK_COMPLETE"),
            *UPDATES_AFTER,
        ),
        0,
        (FOLLOWING.format("UPDATE_ROLLBACK_IN_PROGRESS"), CAUSE, CHANGED),
    ),
    (
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
        (
            asks_who(OURS),
            follows("UPDATE_ROLLBACK_COMPLETE", FAILED),
            looks("UPDATE_ROLLBACK_COMPLETE"),
            *UPDATES_AFTER,
        ),
        0,
        (FOLLOWING.format("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS"), CAUSE, CHANGED),
    ),
    (
        "DELETE_IN_PROGRESS",
        (asks_who(OURS), follows("DELETE_COMPLETE"), looks(None), *CREATES),
        0,
        (FOLLOWING.format("DELETE_IN_PROGRESS"), UP),
    ),
    (
        "DELETE_IN_PROGRESS",
        (
            asks_who(OURS),
            follows("DELETE_FAILED", STUCK),
            looks("DELETE_FAILED"),
            *REMOVES,
            *CREATES,
        ),
        0,
        (CAUSE, "genomics is in DELETE_FAILED: a delete got stuck.", UP),
    ),
    # Another tool is at work.
    *[
        (status, (asks_who(THEIRS),), 1, (NOT_OURS.format(status, "deploy"),))
        for status in (
            "CREATE_IN_PROGRESS",
            "UPDATE_IN_PROGRESS",
            "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
            "ROLLBACK_IN_PROGRESS",
            "UPDATE_ROLLBACK_IN_PROGRESS",
            "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
            "DELETE_IN_PROGRESS",
            "IMPORT_IN_PROGRESS",
            "IMPORT_ROLLBACK_IN_PROGRESS",
        )
    ],
    # A create or a delete went wrong: what is left of it goes first.
    (
        "CREATE_FAILED",
        (*REMOVES, *CREATES),
        0,
        ("genomics is in CREATE_FAILED: it was never created.", UP),
    ),
    (
        "ROLLBACK_COMPLETE",
        (*REMOVES, *CREATES),
        0,
        ("genomics is in ROLLBACK_COMPLETE: it was never created.", UP),
    ),
    (
        "ROLLBACK_FAILED",
        (*REMOVES, *CREATES),
        0,
        ("genomics is in ROLLBACK_FAILED: it was never created.", UP),
    ),
    (
        "ROLLBACK_FAILED",
        (deletes(), follows("DELETE_FAILED", STUCK)),
        1,
        (
            f"{CAUSE} Give subnets of this region with --subnet-id, then deploy again. Or leave it "
            "behind: batchreg destroy --stack-name genomics --retain JobQueue",
        ),
    ),
    (
        "DELETE_FAILED",
        (*REMOVES, *CREATES),
        0,
        ("genomics is in DELETE_FAILED: a delete got stuck.", UP),
    ),
    # An update went wrong: its rollback comes first.
    (
        "UPDATE_FAILED",
        (
            rolls_back,
            follows("UPDATE_ROLLBACK_COMPLETE"),
            looks("UPDATE_ROLLBACK_COMPLETE"),
            *UPDATES_AFTER,
        ),
        0,
        ("genomics is in UPDATE_FAILED: an update failed.", CHANGED),
    ),
    (
        "UPDATE_ROLLBACK_FAILED",
        (
            continues_rollback,
            follows("UPDATE_ROLLBACK_COMPLETE"),
            looks("UPDATE_ROLLBACK_COMPLETE"),
            *UPDATES_AFTER,
        ),
        0,
        ("genomics is in UPDATE_ROLLBACK_FAILED: an update failed.", CHANGED),
    ),
    (
        "UPDATE_ROLLBACK_FAILED",
        (continues_rollback, follows("UPDATE_ROLLBACK_FAILED", FAILED)),
        1,
        (
            f"{CAUSE} Give subnets of this region with --subnet-id, then deploy again. Or leave it as "
            "it is: aws cloudformation continue-update-rollback --stack-name genomics "
            "--resources-to-skip JobQueue",
        ),
    ),
    # Nothing of batchreg's can get there.
    (
        "IMPORT_ROLLBACK_FAILED",
        (),
        1,
        (
            "batchreg cannot recover a stack in IMPORT_ROLLBACK_FAILED. Look at genomics in the "
            "CloudFormation console.",
        ),
    ),
    # The operation itself ends badly.
    (
        None,
        (plans("CREATE"), executes, follows("ROLLBACK_COMPLETE", FAILED)),
        1,
        (f"{CAUSE} Give subnets of this region with --subnet-id, then deploy again.",),
    ),
    (
        "CREATE_COMPLETE",
        (
            plans("UPDATE"),
            executes,
            follows("UPDATE_ROLLBACK_COMPLETE"),
            looks("UPDATE_ROLLBACK_COMPLETE"),
        ),
        1,
        (
            "genomics ended in UPDATE_ROLLBACK_COMPLETE, but no resource reported a failure. "
            "Deploy again.",
        ),
    ),
]


@pytest.mark.parametrize(("state", "steps", "exit_status", "lines"), named(DEPLOY))
def test_deploy_recovers_from_every_state(run, state, steps, exit_status, lines):
    """No dead ends: it ends well, or the line says what to do."""
    ended, output = run(deploy.run, *first_look(state), *steps, **DEPLOY_OPTIONS)
    assert ended == exit_status, output
    for line in lines:
        assert line in output
    assert "hunter2" not in output


def test_the_table_leaves_no_state_out(cloud):
    """A state that CloudFormation may answer is a state that some stack will be in."""
    model = cloud.cfn.meta.service_model.shape_for("StackStatus")
    assert {state for state, *_ in DEPLOY if state} == set(model.enum) - {"DELETE_COMPLETE"}


@pytest.mark.parametrize(
    "state", ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"]
)
def test_an_unchanged_stack_takes_two_calls(run, state):
    """DescribeStacks and GetTemplate are enough to see that there is nothing to do."""
    assert run(
        deploy.run, looks(state), reads(BODY), password="", **{**DEPLOY_OPTIONS, "username": None}
    ) == (0, f"{NOTHING}\n")


def test_whether_a_password_has_changed_only_cloudformation_knows(run):
    """Nobody can read the present one, so a password that is given is always sent."""
    ended, output = run(
        deploy.run,
        looks("CREATE_COMPLETE"),
        reads(BODY),
        plans("UPDATE", changes=False),
        **DEPLOY_OPTIONS,
    )
    assert (ended, output) == (0, f"{NOTHING}\n")


def test_a_rollback_that_was_followed_is_not_taken_for_success(run):
    """While an update runs its template is the deployed one; after its rollback it no longer is."""
    kept = {key: GIVEN[key] for key in ("SubnetIDs", "SecurityGroupIDs")}
    ended, output = run(
        deploy.run,
        looks("UPDATE_IN_PROGRESS"),
        reads(BODY),
        asks_who(OURS),
        follows("UPDATE_ROLLBACK_COMPLETE", FAILED),
        looks("UPDATE_ROLLBACK_COMPLETE"),
        plans("UPDATE", given=kept),
        reads(OLD_BODY),
        executes,
        follows("UPDATE_COMPLETE"),
        looks("UPDATE_COMPLETE"),
        password="",
        **{**DEPLOY_OPTIONS, "username": None},
    )
    assert (ended, CHANGED in output, NOTHING in output) == (0, True, False)


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("ROLLBACK_COMPLETE", "Dry run: a deploy would first delete what is left of it."),
        ("DELETE_FAILED", "Dry run: a deploy would first delete what is left of it."),
        ("UPDATE_ROLLBACK_FAILED", "Dry run: a deploy would first finish its rollback."),
    ],
)
def test_a_dry_run_recovers_nothing(run, state, line):
    """It says what would happen first, and makes no call that changes anything."""
    ended, output = run(deploy.run, *first_look(state), **{**DEPLOY_OPTIONS, "dry_run": True})
    assert (ended, line in output) == (0, True)


@pytest.mark.parametrize("state", ["ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED"])
def test_nothing_is_recovered_without_asking(run, state):
    """Where there is no terminal to ask on, the missing flag is named."""
    ended, output = run(deploy.run, *first_look(state), **{**DEPLOY_OPTIONS, "yes": False})
    assert (ended, "--yes" in output) == (2, True)


@pytest.mark.parametrize("state", ["ROLLBACK_IN_PROGRESS", "DELETE_IN_PROGRESS"])
def test_a_stack_that_will_be_recreated_needs_its_credentials_again(run, state):
    """It is asked for before minutes are spent on following, not afterwards."""
    ended, output = run(deploy.run, *first_look(state), **{**DEPLOY_OPTIONS, "username": None})
    assert (ended, "Missing --username" in output) == (2, True)


def present(**changes: Any) -> Stack:
    values: dict[str, Any] = {
        "name": NAME,
        "id": ID,
        "status": "CREATE_COMPLETE",
        "reason": "",
        "outputs": {},
        "parameters": {"Password": "****", "MaxvCpus": "16"},
        "tags": {"team": "a"},
        "role_arn": None,
        "protected": False,
    }
    return Stack(**{**values, **changes})


def wanted(parameters: dict[str, str], **changes: Any) -> Plan:
    values: dict[str, Any] = {
        "name": NAME,
        "body": "A",
        "parameters": parameters,
        "masked": frozenset({"Password"}),
        "declared": {"Password": False, "Subnets": False, "MaxvCpus": True},
    }
    return Plan(**{**values, **changes})


@pytest.mark.parametrize(
    ("parameters", "changes", "body", "same"),
    [
        ({}, {}, "A", True),
        ({"MaxvCpus": "16"}, {}, "A", True),
        ({"MaxvCpus": "32"}, {}, "A", False),
        ({"Password": "x"}, {}, "A", False),  # nobody can read the present one
        ({"Password": "****"}, {}, "A", False),
        ({"Subnets": "a"}, {}, "A", False),  # it has none yet
        ({}, {}, "B", False),
        ({}, {"tags": {"team": "a"}}, "A", True),
        ({}, {"tags": {"team": "b"}}, "A", False),
        ({}, {"tags": {"new": "a"}}, "A", False),
        ({}, {"role_arn": "arn:aws:iam::1:role/x"}, "A", False),
        ({}, {"protect": True}, "A", True),  # not CloudFormation's to change, but batchreg's
    ],
)
def test_unchanged_is_known_without_asking(parameters, changes, body, same):
    """Only what certainly changes nothing is left out."""
    assert deploying.unchanged(wanted(parameters, **changes), present(), body) is same


@pytest.mark.parametrize(
    ("given", "known", "values"),
    [
        ({"Password": "x", "Subnets": "a"}, {}, {"Password": "x", "Subnets": "a"}),
        (
            {"Subnets": "b"},
            {"Password": "****", "Subnets": "a", "MaxvCpus": "16"},
            {"Password": None, "Subnets": "b", "MaxvCpus": None},
        ),
        ({"Password": "x"}, {"Subnets": "a", "Gone": "y"}, {"Password": "x", "Subnets": None}),
    ],
)
def test_what_is_not_given_stays_or_is_the_default(given, known, values):
    """A parameter of an older template that the new one lacks is not passed on."""
    assert deploying.fill_in(wanted(given), known) == values


def test_what_nobody_has_given_is_named():
    """All of it at once."""
    with pytest.raises(BatchregError, match="The stack needs Password, Subnets"):
        deploying.fill_in(wanted({}), {})
