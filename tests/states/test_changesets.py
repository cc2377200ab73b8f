"""Change sets: waited for, read to the end, and discarded if they are rejected."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.stub import ANY
from stubbed import CHANGE_SET, ID, NAME, QUEUE, Cloud, Pauses, discards, looks

from batchreg.stack import changesets
from batchreg.stack.changesets import Change, ChangeSet
from batchreg.stack.states import StackFailed


def planned(
    cloud: Cloud,
    *answers: dict[str, Any],
    creates: bool = False,
    sleep: Pauses | None = None,
    **request: Any,
) -> ChangeSet:
    """Make a change set that is answered so."""
    cloud.answers(
        "create_change_set",
        {"Id": CHANGE_SET, "StackId": ID},
        StackName=NAME,
        ChangeSetName=ANY,
        ClientToken=ANY,
        TemplateBody="{}",
        Parameters=[],
        ChangeSetType="CREATE" if creates else "UPDATE",
        Capabilities=["CAPABILITY_IAM"],
        **{key: value for key, value in request.items() if key in ("Tags", "RoleARN")},
    )
    for answer in answers:
        more = {"NextToken": answer.pop("asked")} if "asked" in answer else {}
        cloud.answers("describe_change_set", answer, ChangeSetName=CHANGE_SET, StackName=ID, **more)
    for step in request.get("then", ()):
        step(cloud)
    return changesets.create(
        cloud.cfn,
        NAME,
        "{}",
        {},
        creates=creates,
        tags=request.get("tags"),
        role_arn=request.get("RoleARN"),
        sleep=Pauses() if sleep is None else sleep,
    )


def change(name: str, replacement: str = "False") -> dict[str, Any]:
    return {
        "Type": "Resource",
        "ResourceChange": {
            "Action": "Modify",
            "LogicalResourceId": name,
            "ResourceType": QUEUE,
            "Replacement": replacement,
        },
    }


def test_a_change_set_is_waited_for(cloud):
    """It takes AWS some seconds, and longer pauses than here."""
    pauses = Pauses()
    made = planned(
        cloud,
        {"Status": "CREATE_PENDING"},
        {"Status": "CREATE_IN_PROGRESS"},
        {"Status": "CREATE_COMPLETE", "Changes": [change("Queue")]},
        sleep=pauses,
    )
    assert made == ChangeSet(ID, CHANGE_SET, False, (Change("Modify", "Queue", QUEUE, "False"),))
    assert pauses == [0.05, 0.1]
    cloud.done()


def test_all_pages_of_changes_are_read(cloud):
    """Nothing is replaced that the table did not show."""
    made = planned(
        cloud,
        {
            "Status": "CREATE_COMPLETE",
            "Changes": [change("A")],
            "NextToken": "2",
            "ChangeSetId": CHANGE_SET,
            "StackId": ID,
        },
        {
            "asked": "2",
            "Status": "CREATE_COMPLETE",
            "Changes": [change("B", "True")],
            "NextToken": "3",
            "ChangeSetId": CHANGE_SET,
            "StackId": ID,
        },
        {"asked": "3", "Status": "CREATE_COMPLETE", "Changes": [change("C")]},
    )
    assert [(each.logical_id, each.replacement) for each in made.changes] == [
        ("A", "False"),
        ("B", "True"),
        ("C", "False"),
    ]
    cloud.done()


def test_tags_and_the_role_are_passed_on(cloud):
    """Left out, CloudFormation keeps the present ones."""
    planned(
        cloud,
        {"Status": "CREATE_COMPLETE"},
        tags={"team": "genomics"},
        Tags=[{"Key": "team", "Value": "genomics"}],
        RoleARN="arn:aws:iam::1:role/deployer",
    )
    cloud.done()


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information to create a "
        "change set.",
        "No updates are to be performed.",
    ],
)
def test_no_changes_are_no_failure(cloud, reason):
    """CloudFormation says so in two ways; the change set is deleted."""
    made = planned(cloud, {"Status": "FAILED", "StatusReason": reason}, then=[discards])
    assert made == ChangeSet(ID, None, False)
    cloud.done()


def test_a_refused_change_says_why_and_leaves_nothing(cloud):
    """The reason in one line; the change set, and the empty stack that it made, are deleted."""

    def discards_stack(cloud: Cloud) -> None:
        discards(cloud)
        cloud.answers("list_change_sets", {"Summaries": []}, StackName=ID)
        looks("REVIEW_IN_PROGRESS", ID)(cloud)
        cloud.answers("delete_stack", {}, StackName=ID)

    with pytest.raises(StackFailed) as failure:
        planned(
            cloud,
            {"Status": "FAILED", "StatusReason": "Transform\n failed with: X."},
            creates=True,
            then=[discards_stack],
        )
    assert str(failure.value) == "CloudFormation rejects the change: Transform failed with: X."
    cloud.done()


EARLY = (
    "The following hook(s)/validation failed: [AWS::EarlyValidation::PropertyValidation]. To "
    "troubleshoot Early Validation errors, use the DescribeEvents API for detailed failure "
    "information."
)


def test_an_early_validation_says_what_it_found(cloud):
    """CloudFormation tells it through a call of its own, which no user should have to make."""

    def finds(cloud: Cloud) -> None:
        cloud.answers(
            "describe_events",
            {
                "OperationEvents": [
                    {
                        "LogicalResourceId": "Queue",
                        "ValidationStatusReason": "Priority is not a number.",
                    },
                    {"LogicalResourceId": NAME},
                    {"LogicalResourceId": "Secret", "ValidationStatusReason": "It exists already."},
                ]
            },
            ChangeSetName=CHANGE_SET,
            Filters={"FailedEvents": True},
        )
        discards(cloud)

    with pytest.raises(StackFailed) as failure:
        planned(cloud, {"Status": "FAILED", "StatusReason": EARLY}, then=[finds])
    assert str(failure.value) == (
        "CloudFormation rejects the change: Queue: Priority is not a "
        "number.; Secret: It exists already."
    )
    cloud.done()


def test_an_early_validation_without_the_permission_to_ask_is_told_as_it_is(cloud):
    """The missing permission must not hide what has failed."""

    def refuses(cloud: Cloud) -> None:
        cloud.refuses(
            "describe_events",
            "not authorized",
            "AccessDenied",
            ChangeSetName=CHANGE_SET,
            Filters={"FailedEvents": True},
        )
        discards(cloud)

    with pytest.raises(StackFailed, match="EarlyValidation::PropertyValidation"):
        planned(cloud, {"Status": "FAILED", "StatusReason": EARLY}, then=[refuses])
    cloud.done()
