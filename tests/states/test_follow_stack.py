"""An operation is followed to its end, and the first cause of a failure is named."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from stubbed import (
    CANCELLED,
    ID,
    NAME,
    OURS,
    QUEUE,
    STACK,
    THEIRS,
    UPDATING,
    WHY,
    Cloud,
    Pauses,
    looks,
)

from batchreg.cli.console import TextScreen
from batchreg.errors import BatchregError, Interrupted
from batchreg.stack import events as stack_events
from batchreg.stack import following
from batchreg.stack.events import Event


def page(
    cloud: Cloud, events: list[dict[str, Any]], *, asked: str | None = None, more: str | None = None
) -> None:
    """Answer a page of events, newest first, with more to come where `more` is given."""
    answer: dict[str, Any] = {"StackEvents": events[::-1]}
    if more:
        answer["NextToken"] = more
    cloud.answers(
        "describe_stack_events", answer, StackName=ID, **({"NextToken": asked} if asked else {})
    )


def history(cloud: Cloud, count: int) -> list[dict[str, Any]]:
    return [cloud.event("JobQueue", "UPDATE_COMPLETE", token=THEIRS) for _ in range(count)]


def operation(
    cloud: Cloud, resources: int, end: str | None = "UPDATE_COMPLETE", token: str = OURS
) -> list[dict[str, Any]]:
    return [
        cloud.event(NAME, "UPDATE_IN_PROGRESS", token=token),
        *(cloud.event(f"R{number}", "UPDATE_COMPLETE", token=token) for number in range(resources)),
        *([cloud.event(NAME, end, token=token)] if end else []),
    ]


def shown(events: Any) -> list[str]:
    return [event.logical_id for event in events]


def test_follow_yields_each_event_once_oldest_first_until_the_operation_finishes(cloud):
    """What a reader of the terminal expects."""
    old, new = history(cloud, 3), operation(cloud, 3)
    for seen in (2, 2, 5):
        page(cloud, old + new[:seen])
    pauses = Pauses()
    events = list(stack_events.follow(cloud.cfn, ID, OURS, sleep=pauses))
    assert shown(events) == [NAME, "R0", "R1", "R2", NAME]
    assert events[-1].final
    assert pauses == [0.1, pytest.approx(0.15)]
    cloud.done()


def test_500_events_of_history_cost_one_page_a_poll(cloud):
    """Reading stops at the first event that is known, or that another operation left."""
    old, new = history(cloud, 500), operation(cloud, 3)
    for seen in (0, 1, 3, 5):  # before the first event, too
        page(cloud, (old + new[:seen])[-100:], more="older")
    assert len(list(stack_events.follow(cloud.cfn, ID, OURS, sleep=Pauses()))) == 5
    cloud.done()


def test_an_operation_of_several_pages_is_read_to_its_beginning(cloud):
    """Whoever attaches late still sees all of it; then a page a poll is enough."""
    everything = history(cloud, 90) + operation(cloud, 248, end=None)
    page(cloud, everything[-100:], more="b")
    page(cloud, everything[-200:-100], asked="b", more="c")
    page(cloud, everything[-300:-200], asked="c", more="d")
    everything.append(cloud.event(NAME, "UPDATE_COMPLETE", token=OURS))
    page(cloud, everything[-100:], more="b")
    assert shown(stack_events.follow(cloud.cfn, ID, OURS, sleep=Pauses())) == [
        NAME,
        *(f"R{number}" for number in range(248)),
        NAME,
    ]
    cloud.done()


def test_the_next_operation_does_not_hide_the_end_of_this_one(cloud):
    """Someone may start another between two polls."""
    ours, theirs = operation(cloud, 1), operation(cloud, 2, end=None, token=THEIRS)
    page(cloud, ours[:1])
    page(cloud, ours + theirs)
    assert shown(stack_events.follow(cloud.cfn, ID, OURS, sleep=Pauses())) == [NAME, "R0", NAME]
    cloud.done()


def test_of_a_nested_stack_no_event_ends_the_whole(cloud):
    """Only the event of the stack itself does, which its physical id tells."""
    nested = cloud.event("Child", "UPDATE_COMPLETE", token=OURS)
    nested["ResourceType"] = STACK
    page(cloud, [nested])
    page(cloud, [nested, cloud.event(NAME, "UPDATE_COMPLETE", token=OURS)])
    assert shown(stack_events.follow(cloud.cfn, ID, OURS, sleep=Pauses())) == ["Child", NAME]
    cloud.done()


def silence(cloud: Cloud) -> None:
    """Answer the polls that a patience of 0.6 s takes, and the one that comes before a look."""
    for _ in range(5):
        page(cloud, history(cloud, 1))


def test_a_token_that_never_shows_up_ends_once_the_stack_has_finished(cloud):
    """Nobody waits for ever: without an event for long, the stack itself is asked."""
    silence(cloud)
    looks("UPDATE_COMPLETE", ID)(cloud)
    pauses = Pauses()
    assert list(stack_events.follow(cloud.cfn, ID, OURS, sleep=pauses, patience_seconds=0.6)) == []
    assert sum(pauses) == pytest.approx(0.8125)
    cloud.done()


def test_a_long_silence_is_waited_for_while_the_stack_is_busy(cloud):
    """A compute environment can take many minutes without a word."""
    silence(cloud)
    looks("UPDATE_IN_PROGRESS", ID)(cloud)
    page(cloud, operation(cloud, 1))
    events = stack_events.follow(cloud.cfn, ID, OURS, sleep=Pauses(), patience_seconds=0.6)
    assert shown(events) == [NAME, "R0", NAME]
    cloud.done()


def test_a_stack_deleted_in_the_meantime_ends_the_following(cloud, capsys):
    """Its end has another token."""
    ours = operation(cloud, 1, end=None)
    page(cloud, ours)
    for _ in range(5):
        page(cloud, [*ours, cloud.event(NAME, "DELETE_IN_PROGRESS", token=THEIRS)])
    looks(None, ID)(cloud)
    events = stack_events.follow(cloud.cfn, ID, OURS, sleep=Pauses(), patience_seconds=0.9)
    assert shown(events) == [NAME, "R0"]
    cloud.done()


@pytest.mark.parametrize("code", ["Throttling", "RequestLimitExceeded"])
def test_throttled_polls_are_waited_for(cloud, code):
    """The operation continues anyway; the reader loses nothing."""
    page(cloud, history(cloud, 1))
    for _ in range(3):
        cloud.refuses("describe_stack_events", "Rate exceeded", code, StackName=ID)
    page(cloud, operation(cloud, 1))
    assert len(list(stack_events.follow(cloud.cfn, ID, OURS, sleep=Pauses()))) == 3
    cloud.done()


def test_throttling_without_end_is_given_up(cloud):
    """Patience has a limit."""
    for _ in range(5):
        cloud.refuses("describe_stack_events", "Rate exceeded", "Throttling", StackName=ID)
    with pytest.raises(ClientError, match="Rate exceeded"):
        list(stack_events.follow(cloud.cfn, ID, OURS, sleep=Pauses(), patience_seconds=0.6))
    cloud.done()


def test_credentials_that_expire_on_the_way_end_the_following_with_one_line(cloud):
    """The line says that the operation continues, and how to watch it again."""
    page(cloud, operation(cloud, 1, end=None))
    cloud.refuses(
        "describe_stack_events",
        "The security token included in the request is expired",
        "ExpiredToken",
        StackName=ID,
    )
    with pytest.raises(BatchregError) as error:
        following.follow(cloud.cfn, UPDATING, TextScreen(), sleep=Pauses())
    assert str(error.value) == (
        "AWS rejected DescribeStackEvents: The security token included in the request is expired. "
        "Log in to AWS again. The operation on genomics continues; deploy again to watch it."
    )
    cloud.done()


def test_ctrl_c_while_following_says_how_to_resume(cloud):
    """The operation continues by itself; exit status 130 is cli.main's part."""
    page(cloud, operation(cloud, 1, end=None))

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="the operation on genomics continues"):
        following.follow(cloud.cfn, UPDATING, TextScreen(), sleep=interrupted)
    cloud.done()


def happened(*events: tuple[str, str, str]) -> list[Event]:
    return [
        Event(
            id=str(number),
            time=datetime.now(UTC),
            logical_id=logical_id,
            type=STACK if logical_id == NAME else QUEUE,
            status=status,
            reason=reason,
            token=OURS,
            of_stack=logical_id == NAME,
        )
        for number, (logical_id, status, reason) in enumerate(events)
    ]


@pytest.mark.parametrize(
    ("events", "causes"),
    [
        # The rest is cancelled because of the first.
        (
            [
                ("Role", "CREATE_FAILED", CANCELLED),
                ("Queue", "CREATE_FAILED", WHY),
                ("Secret", "CREATE_FAILED", CANCELLED),
            ],
            ["Queue"],
        ),
        # Two fail by themselves: the first is told.
        ([("Queue", "UPDATE_FAILED", WHY), ("Secret", "UPDATE_FAILED", "no")], ["Queue", "Secret"]),
        # The rollback fails too: the reason is still what came first.
        ([("Queue", "CREATE_FAILED", WHY), ("Queue", "DELETE_FAILED", "held")], ["Queue", "Queue"]),
        # A resource's failure before the stack's, which only lists it.
        (
            [
                (
                    NAME,
                    "UPDATE_ROLLBACK_FAILED",
                    "The following resource(s) failed to update: [Queue].",
                ),
                ("Queue", "UPDATE_FAILED", WHY),
            ],
            ["Queue"],
        ),
        # The outputs, say: no resource has failed.
        ([("Queue", "CREATE_COMPLETE", ""), (NAME, "CREATE_FAILED", "Output X is wrong")], [NAME]),
        # A person has cancelled the update: nothing has failed.
        (
            [
                ("Queue", "UPDATE_FAILED", "Resource update cancelled"),
                (NAME, "UPDATE_ROLLBACK_IN_PROGRESS", "User Initiated"),
            ],
            [],
        ),
        ([("Queue", "DELETE_FAILED", "Resource deletion cancelled")], []),
        ([("Queue", "CREATE_COMPLETE", "")], []),
        ([], []),
    ],
)
def test_the_first_failure_is_the_cause_and_cancelled_is_none(events, causes):
    """Forty events say "cancelled"; one says why."""
    assert [event.logical_id for event in stack_events.failures(happened(*events))] == causes


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (WHY, "The subnet ID 'subnet-1' does not exist."),
        (
            "Access denied for operation 'CreateQueue'. (Service: Batch, Status Code: 403, Request ID: "
            "1-2) (RequestToken: 3-4, HandlerErrorCode: AccessDenied)",
            "Access denied for operation 'CreateQueue'.",
        ),
        ("Two\nlines", "Two lines."),
        ("", "no reason given."),
    ],
)
def test_a_reason_is_told_without_its_wrapping(reason, words):
    """Request ids help support engineers; the user wants the sentence."""
    assert stack_events.plain_reason(reason) == words


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("The subnet ID 'subnet-1' does not exist", "Give subnets of this region with --subnet-id"),
        ("The security group 'sg-1' does not exist", "with --security-group-id"),
        ("is not authorized to perform: batch:CreateJobQueue", "Ask for this permission"),
        ("UserData is not MIME multipart", "--user-data"),
        ("Cannot delete, found existing JobQueue relationship", "Remove the compute environment"),
        ("You have exceeded your vCPU limit", "quota"),
        ("Instance type x9 is unknown", "--instance-type"),
        ("whatever", "Fix that"),
    ],
)
def test_a_failure_comes_with_the_next_step(reason, step):
    """The fact alone leaves the user where they are."""
    assert step in following.next_step(reason)
    assert following.next_step(reason).endswith(", then deploy again.")
    assert following.next_step(reason, "destroy again").endswith(", then destroy again.")
