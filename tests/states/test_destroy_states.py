"""Every state that a stack can be in: what destroy does, says and exits with."""

from __future__ import annotations

import pytest
from stubbed import (
    BODY,
    CAUSE,
    DESTROY_OPTIONS,
    DESTROYS,
    FOLLOWING,
    GONE,
    NOT_OURS,
    OURS,
    STUCK,
    THEIRS,
    Row,
    asks_who,
    deletes,
    first_look,
    follows,
    lists_resources,
    looks,
    named,
    reads,
)

from batchreg.cli import destroy

DESTROY: list[Row] = [
    (None, (), 0, ("There is no stack genomics in eu-central-1: nothing to destroy.",)),
    ("REVIEW_IN_PROGRESS", (deletes(), follows("DELETE_COMPLETE")), 0, (GONE,)),
    *[
        (status, DESTROYS, 0, (GONE,))
        for status in (
            "CREATE_COMPLETE",
            "UPDATE_COMPLETE",
            "UPDATE_ROLLBACK_COMPLETE",
            "CREATE_FAILED",
            "ROLLBACK_COMPLETE",
            "ROLLBACK_FAILED",
            "UPDATE_FAILED",
            "UPDATE_ROLLBACK_FAILED",
            "DELETE_FAILED",
            "IMPORT_COMPLETE",
            "IMPORT_ROLLBACK_COMPLETE",
            "IMPORT_ROLLBACK_FAILED",
        )
    ],
    # An earlier run of ours was interrupted: it is watched to its end, and then the stack is deleted.
    *[
        (
            status,
            (asks_who(OURS), follows(end), looks(end), *DESTROYS),
            0,
            (FOLLOWING.format(status), GONE),
        )
        for status, end in (
            ("CREATE_IN_PROGRESS", "CREATE_COMPLETE"),
            ("UPDATE_IN_PROGRESS", "UPDATE_COMPLETE"),
            ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_COMPLETE"),
            ("ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE"),
            ("UPDATE_ROLLBACK_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"),
            ("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE"),
        )
    ],
    (
        "DELETE_IN_PROGRESS",
        (asks_who(OURS), follows("DELETE_COMPLETE"), looks(None)),
        0,
        (FOLLOWING.format("DELETE_IN_PROGRESS"), GONE),
    ),
    (
        "DELETE_IN_PROGRESS",
        (asks_who(OURS), follows("DELETE_FAILED", STUCK), looks("DELETE_FAILED"), *DESTROYS),
        0,
        (f"{CAUSE} Give subnets of this region with --subnet-id, then destroy again.", GONE),
    ),
    # Another tool is at work.
    *[
        (status, (asks_who(THEIRS),), 1, (NOT_OURS.format(status, "destroy"),))
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
    # The delete gets stuck: once more, and then the way on.
    (
        "CREATE_COMPLETE",
        (
            lists_resources,
            deletes(),
            follows("DELETE_FAILED", STUCK),
            deletes(),
            follows("DELETE_COMPLETE"),
        ),
        0,
        ("Trying once more.", GONE),
    ),
    (
        "CREATE_COMPLETE",
        (
            lists_resources,
            deletes(),
            follows("DELETE_FAILED", STUCK),
            deletes(),
            follows("DELETE_FAILED", STUCK, ("Secret", "DELETE_FAILED", "held")),
        ),
        1,
        (
            CAUSE,
            "Or leave it behind: batchreg destroy --stack-name genomics --retain JobQueue "
            "--retain Secret",
        ),
    ),
]


@pytest.mark.parametrize(("state", "steps", "exit_status", "lines"), named(DESTROY))
def test_destroy_works_from_every_state(run, state, steps, exit_status, lines):
    """A stack can be taken down whatever has happened to it."""
    ended, output = run(destroy.run, *first_look(state), *steps, **DESTROY_OPTIONS)
    assert ended == exit_status, output
    for line in lines:
        assert line in output


def test_the_table_leaves_no_state_out(cloud):
    """A state that CloudFormation may answer is a state that some stack will be in."""
    model = cloud.cfn.meta.service_model.shape_for("StackStatus")
    assert {state for state, *_ in DESTROY if state} == set(model.enum) - {"DELETE_COMPLETE"}


def test_retain_is_for_deletes_that_got_stuck(run):
    """CloudFormation refuses it otherwise, with a message that explains nothing."""
    options = {**DESTROY_OPTIONS, "retain": ("JobQueue",)}
    ended, output = run(destroy.run, *first_look("CREATE_COMPLETE"), **options)
    assert (ended, "Try without --retain first" in output) == (1, True)
    ended, output = run(
        destroy.run,
        *first_look("DELETE_FAILED"),
        lists_resources,
        deletes("JobQueue"),
        follows("DELETE_COMPLETE"),
        **options,
    )
    assert (ended, GONE in output) == (0, True)


def test_what_gets_stuck_beside_what_is_retained_is_named(run):
    """No second try: what was to stay has been left out already."""
    ended, output = run(
        destroy.run,
        *first_look("DELETE_FAILED"),
        lists_resources,
        deletes("JobQueue"),
        follows("DELETE_FAILED", ("Secret", "DELETE_FAILED", "held")),
        **{**DESTROY_OPTIONS, "retain": ("JobQueue",)},
    )
    assert (ended, "--retain Secret" in output) == (1, True)


@pytest.mark.parametrize(
    ("queue", "line"),
    [
        (
            "arn:foreign",
            "the job queue nightly still uses its compute environment. Remove it there, "
            "then destroy again.",
        ),
        ("arn:own", "--retain JobQueue"),
    ],
)
def test_a_queue_that_holds_the_compute_environment_is_named(run, cloud, queue, line):
    """Unless it is the stack's own, which then is what got stuck."""
    cloud.client("batch")
    batch = cloud.stubs["batch"]
    for _ in range(5):  # unfinished states, side by side
        batch.add_response("list_jobs", {"jobSummaryList": []})
    batch.add_response(
        "describe_job_queues",
        {
            "jobQueues": [
                {
                    "jobQueueName": "nightly",
                    "jobQueueArn": queue,
                    "state": "ENABLED",
                    "priority": 1,
                    "computeEnvironmentOrder": [
                        {"order": 1, "computeEnvironment": "arn:environment"}
                    ],
                }
            ]
        },
    )
    outputs = [
        {"OutputKey": "JobQueueArn", "OutputValue": "arn:own"},
        {"OutputKey": "ComputeEnvironmentArn", "OutputValue": "arn:environment"},
    ]
    ended, output = run(
        destroy.run,
        looks("CREATE_COMPLETE", Outputs=outputs),
        reads(BODY),
        lists_resources,
        deletes(),
        follows("DELETE_FAILED", STUCK),
        deletes(),
        follows("DELETE_FAILED", STUCK),
        **DESTROY_OPTIONS,
    )
    assert (ended, line in output) == (1, True), output


def test_a_protected_stack_says_how_to_lift_the_protection(run):
    """The flag that undoes it is in the line."""
    ended, output = run(
        destroy.run,
        looks("CREATE_COMPLETE", EnableTerminationProtection=True),
        reads(BODY),
        **DESTROY_OPTIONS,
    )
    assert (ended, "--no-termination-protection" in output) == (1, True)


def test_a_stuck_delete_that_took_the_queue_continues(run, cloud):
    """The outputs of a stack in DELETE_FAILED still name the queue that is gone."""
    cloud.client("batch")
    for _ in range(5):  # unfinished states, side by side
        cloud.stubs["batch"].add_client_error("list_jobs", "ClientException", "no such queue")
    ended, output = run(
        destroy.run,
        looks("DELETE_FAILED", Outputs=[{"OutputKey": "JobQueueArn", "OutputValue": "arn:queue"}]),
        reads(BODY),
        *DESTROYS,
        **DESTROY_OPTIONS,
    )
    assert (ended, GONE in output) == (0, True)
