"""Every state that a stack can be in: what deploy, destroy and status do, say and exit with.

CloudFormation's answers are botocore's stubs, since no emulator reaches most of these states. Each
row of the tables lists the calls that follow the first look at the stack, in order: a call that is
missing, that is too many or that has other parameters fails the row.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import click
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber

from batchreg import __version__
from batchreg.cli import deploy as commands
from batchreg.cli.console import Console
from batchreg.errors import BatchregError, Interrupted
from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import to_yaml
from batchreg.stack import changesets
from batchreg.stack import deploy as deploying
from batchreg.stack import states as stack
from batchreg.stack.changesets import Change, ChangeSet
from batchreg.stack.states import Event, Stack, StackFailed

NAME = "genomics"
ID = "arn:aws:cloudformation:eu-central-1:111122223333:stack/genomics/0e2f1c50-0000"
CHANGE_SET = "arn:aws:cloudformation:eu-central-1:111122223333:changeSet/batchreg-1/aa11"
OURS = "batchreg-0123456789abcdef"
THEIRS = "Console-UpdateStack-11112222-3333"
STACK, QUEUE = "AWS::CloudFormation::Stack", "AWS::Batch::JobQueue"
BODY = to_yaml(template.build(Settings()))
OLD_BODY = BODY.replace("Job queue", "A queue")  # an update changes something
FOREIGN_BODY = "Resources:\n  Topic: {Type: AWS::SNS::Topic}\n"
PARAMETERS = list(template.build(Settings()).parameters)
GIVEN = {
    "Username": "lab",
    "Password": "hunter2",
    "SubnetIDs": "subnet-1",
    "SecurityGroupIDs": "sg-1",
}
WHY = (
    "Resource handler returned message: \"The subnet ID 'subnet-1' does not exist\" "
    "(RequestToken: 1-2, HandlerErrorCode: InvalidRequest)"
)
CANCELLED = "Resource creation cancelled"


class Token:
    """Equals the token that a request carries, and puts it into the events that follow."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __eq__(self, token: object) -> bool:
        for event in self.events:
            event["ClientRequestToken"] = token
        return str(token).startswith("batchreg-")

    __hash__ = None


class Cloud:
    """Stands in for aws.Session: a stubbed client a service, and what its answers will be."""

    def __init__(self) -> None:
        self.stubs: dict[str, Stubber] = {}
        self.token: Any = OURS  # of the operation that the next events belong to
        self.numbers = itertools.count()
        self.cfn = self.client("cloudformation")

    def __call__(self, **_: object) -> Cloud:
        return self

    def client(self, service: str) -> Any:
        if service not in self.stubs:
            client = boto3.client(
                service,
                region_name="eu-central-1",
                aws_access_key_id="x",
                aws_secret_access_key="x",
            )
            self.stubs[service] = Stubber(client)
            self.stubs[service].activate()
        return self.stubs[service].client

    def answers(self, call: str, answer: dict[str, Any], **expected: Any) -> None:
        self.stubs["cloudformation"].add_response(call, answer, expected)

    def refuses(
        self, call: str, message: str, code: str = "ValidationError", **expected: Any
    ) -> None:
        self.stubs["cloudformation"].add_client_error(call, code, message, expected_params=expected)

    def operation(self) -> Any:
        """Begin an operation of ours, whose events carry the token that its request had."""
        self.token = Token()
        return self.token

    def event(
        self, logical_id: str, status: str, reason: str = "", token: Any = None
    ) -> dict[str, Any]:
        number = next(self.numbers)
        token = token or self.token
        event = {
            "StackId": ID,
            "StackName": NAME,
            "EventId": f"event-{number}",
            "LogicalResourceId": logical_id,
            "ResourceStatus": status,
            "PhysicalResourceId": ID if logical_id == NAME else f"physical-{logical_id}",
            "ResourceType": STACK if logical_id == NAME else QUEUE,
            "Timestamp": datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=number),
            "ClientRequestToken": token if isinstance(token, str) else "unknown",
        }
        if reason:
            event["ResourceStatusReason"] = reason
        if isinstance(token, Token):
            token.events.append(event)
        return event

    def done(self) -> None:
        self.stubs["cloudformation"].assert_no_pending_responses()


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


# The steps of a row: each says which call comes next and what it is answered.

Step = Callable[[Cloud], None]


def looks(status: str | None, name: str = NAME, **more: Any) -> Step:
    """batchreg looks at the stack; None where there is none."""

    def step(cloud: Cloud) -> None:
        if status is None:
            cloud.refuses("describe_stacks", f"Stack with id {name} does not exist", StackName=name)
            return
        values = {**dict.fromkeys(PARAMETERS, "x"), **GIVEN, "Username": "****", "Password": "****"}
        described = {
            "StackName": NAME,
            "StackId": ID,
            "StackStatus": status,
            "CreationTime": datetime(2026, 11, 1, tzinfo=UTC),
            "Parameters": [
                {"ParameterKey": key, "ParameterValue": value} for key, value in values.items()
            ],
            **more,
        }
        cloud.answers("describe_stacks", {"Stacks": [described]}, StackName=name)

    return step


def reads(body: str) -> Step:
    """batchreg reads the deployed template."""
    return lambda cloud: cloud.answers(
        "get_template", {"TemplateBody": body}, StackName=ID, TemplateStage="Original"
    )


def has_no_template(cloud: Cloud) -> None:
    cloud.refuses(
        "get_template",
        f"Stack {NAME} is in REVIEW_IN_PROGRESS",
        StackName=ID,
        TemplateStage="Original",
    )


def asks_who(token: str) -> Step:
    """batchreg asks for the newest event: whose operation is this?"""

    def step(cloud: Cloud) -> None:
        cloud.token = token
        newest = cloud.event("JobQueue", "UPDATE_IN_PROGRESS")
        cloud.answers("describe_stack_events", {"StackEvents": [newest]}, StackName=ID)

    return step


def follows(status: str, *failed: tuple[str, str, str]) -> Step:
    """batchreg reads the events of the operation, which has settled."""

    def step(cloud: Cloud) -> None:
        older = cloud.event(NAME, "CREATE_COMPLETE", token=THEIRS)
        new = [
            cloud.event("JobQueue", "UPDATE_IN_PROGRESS"),
            *(cloud.event(*failure) for failure in failed),
            cloud.event(NAME, status),
        ]
        cloud.answers("describe_stack_events", {"StackEvents": [*new[::-1], older]}, StackName=ID)

    return step


def plans(kind: str, *, changes: bool = True, given: Mapping[str, str] = GIVEN) -> Step:
    """batchreg makes a change set; without changes it fails, and is deleted."""

    def step(cloud: Cloud) -> None:
        kept = {} if kind == "CREATE" else dict.fromkeys(PARAMETERS)
        values = {name: value for name, value in {**kept, **given}.items() if name in PARAMETERS}
        values = {name: values[name] for name in PARAMETERS if name in values}
        token = Token()
        cloud.answers(
            "create_change_set",
            {"Id": CHANGE_SET, "StackId": ID},
            StackName=NAME,
            ChangeSetName=token,
            ClientToken=token,
            ChangeSetType=kind,
            TemplateBody=BODY,
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": name, "UsePreviousValue": True}
                if value is None
                else {"ParameterKey": name, "ParameterValue": value}
                for name, value in values.items()
            ],
        )
        cloud.answers(
            "describe_change_set",
            {
                "Status": "CREATE_COMPLETE" if changes else "FAILED",
                "StatusReason": ""
                if changes
                else "The submitted information didn't contain changes.",
                "Changes": [
                    {
                        "Type": "Resource",
                        "ResourceChange": {
                            "Action": "Modify",
                            "LogicalResourceId": "JobQueue",
                            "ResourceType": QUEUE,
                            "Replacement": "False",
                        },
                    }
                ]
                * changes,
            },
            ChangeSetName=CHANGE_SET,
            StackName=ID,
        )
        if not changes:
            discards(cloud)

    return step


def discards(cloud: Cloud) -> None:
    cloud.answers("delete_change_set", {}, ChangeSetName=CHANGE_SET, StackName=ID)


def executes(cloud: Cloud) -> None:
    cloud.answers(
        "execute_change_set",
        {},
        ChangeSetName=CHANGE_SET,
        StackName=ID,
        ClientRequestToken=cloud.operation(),
    )


def deletes(*retained: str) -> Step:
    retain = {"RetainResources": list(retained)} if retained else {}
    return lambda cloud: cloud.answers(
        "delete_stack", {}, StackName=ID, ClientRequestToken=cloud.operation(), **retain
    )


def rolls_back(cloud: Cloud) -> None:
    cloud.answers("rollback_stack", {}, StackName=ID, ClientRequestToken=cloud.operation())


def continues_rollback(cloud: Cloud) -> None:
    cloud.answers(
        "continue_update_rollback", {}, StackName=ID, ClientRequestToken=cloud.operation()
    )


def lists_resources(cloud: Cloud) -> None:
    cloud.answers(
        "list_stack_resources",
        {
            "StackResourceSummaries": [
                {
                    "LogicalResourceId": "JobQueue",
                    "ResourceType": QUEUE,
                    "ResourceStatus": "CREATE_COMPLETE",
                    "LastUpdatedTimestamp": datetime(2026, 11, 1, tzinfo=UTC),
                }
            ]
        },
        StackName=ID,
    )


# What several rows have in common.

CREATES = (plans("CREATE"), executes, follows("CREATE_COMPLETE"), looks("CREATE_COMPLETE"))
UPDATES = (plans("UPDATE"), executes, follows("UPDATE_COMPLETE"), looks("UPDATE_COMPLETE"))
REMOVES = (deletes(), follows("DELETE_COMPLETE"), looks(None))
DESTROYS = (lists_resources, deletes(), follows("DELETE_COMPLETE"))
FAILED = ("JobQueue", "UPDATE_FAILED", WHY)
STUCK = ("JobQueue", "DELETE_FAILED", WHY)
CAUSE = "genomics: JobQueue (AWS::Batch::JobQueue) failed: The subnet ID 'subnet-1' does not exist."
UP, CHANGED, GONE = "genomics is up.", "genomics is up to date.", "genomics is gone."
NOTHING = "genomics is up to date: nothing to change."
NOT_OURS = "{}, which batchreg did not begin: wait until it has settled, then try again."
FOLLOWING = "{} since an earlier run: following it."

# The state, the calls after the first look, the exit status, and lines that the user reads.
Row = tuple[str | None, tuple[Step, ...], int, tuple[str, ...]]

DEPLOY: list[Row] = [
    (None, CREATES, 0, (UP,)),
    ("REVIEW_IN_PROGRESS", CREATES, 0, (UP,)),
    ("CREATE_COMPLETE", UPDATES, 0, (CHANGED,)),
    ("UPDATE_COMPLETE", UPDATES, 0, (CHANGED,)),
    ("UPDATE_COMPLETE", (plans("UPDATE", changes=False),), 0, (NOTHING,)),
    ("UPDATE_ROLLBACK_COMPLETE", UPDATES, 0, (CHANGED,)),
    ("IMPORT_COMPLETE", UPDATES, 0, (CHANGED,)),
    ("IMPORT_ROLLBACK_COMPLETE", UPDATES, 0, (CHANGED,)),
    # An earlier run of ours was interrupted: it is followed to its end, and then the work goes on.
    (
        "CREATE_IN_PROGRESS",
        (asks_who(OURS), follows("CREATE_COMPLETE"), looks("CREATE_COMPLETE"), *UPDATES),
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
            "genomics is in ROLLBACK_COMPLETE: it never came up.",
            UP,
        ),
    ),
    (
        "UPDATE_ROLLBACK_IN_PROGRESS",
        (
            asks_who(OURS),
            follows("UPDATE_ROLLBACK_COMPLETE", FAILED),
            looks("UPDATE_ROLLBACK_COMPLETE"),
            *UPDATES,
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
            *UPDATES,
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
    # Somebody else is at work.
    *[
        (status, (asks_who(THEIRS),), 1, (NOT_OURS.format(status),))
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
        ("genomics is in CREATE_FAILED: it never came up.", UP),
    ),
    (
        "ROLLBACK_COMPLETE",
        (*REMOVES, *CREATES),
        0,
        ("genomics is in ROLLBACK_COMPLETE: it never came up.", UP),
    ),
    (
        "ROLLBACK_FAILED",
        (*REMOVES, *CREATES),
        0,
        ("genomics is in ROLLBACK_FAILED: it never came up.", UP),
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
            *UPDATES,
        ),
        0,
        ("genomics is in UPDATE_FAILED: an update went wrong.", CHANGED),
    ),
    (
        "UPDATE_ROLLBACK_FAILED",
        (
            continues_rollback,
            follows("UPDATE_ROLLBACK_COMPLETE"),
            looks("UPDATE_ROLLBACK_COMPLETE"),
            *UPDATES,
        ),
        0,
        ("genomics is in UPDATE_ROLLBACK_FAILED: an update went wrong.", CHANGED),
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
            "genomics is in IMPORT_ROLLBACK_FAILED, which batchreg cannot lead out of: look at it in "
            "the CloudFormation console.",
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
            "genomics ended in UPDATE_ROLLBACK_COMPLETE, without a failure of its own: deploy again.",
        ),
    ),
]

DESTROY: list[Row] = [
    (None, (), 0, ("There is no stack genomics: nothing to destroy.",)),
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
    # An earlier run of ours was interrupted: it is followed to its end, and then the stack goes.
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
    # Somebody else is at work.
    *[
        (status, (asks_who(THEIRS),), 1, (NOT_OURS.format(status),))
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

STATUS: list[Row] = [
    (
        None,
        (),
        1,
        (
            "There is no stack genomics in this region: batchreg deploy --stack-name "
            "genomics makes it.",
        ),
    ),
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

OPTIONS: dict[str, Any] = {
    "stack_name": NAME,
    "machine": False,
    "profile": None,
    "region": None,
    "endpoint_url": None,
}
DESTROY_OPTIONS: dict[str, Any] = {
    **OPTIONS,
    "yes": True,
    "force": False,
    "wait": True,
    "terminate_jobs": False,
    "retain": (),
    "role_arn": None,
}
DEPLOY_OPTIONS: dict[str, Any] = {
    **OPTIONS,
    "yes": True,
    "force": False,
    "wait": True,
    "dry_run": False,
    "protect": None,
    "role_arn": None,
    "tag": (),
    "secret_arn": (),
    "image_type": None,
    "user_data": None,
    "fargate": None,
    "password_stdin": False,
    "default_vpc": False,
    "username": "lab",
    "subnet_id": ("subnet-1",),
    "security_group_id": ("sg-1",),
}


@pytest.fixture
def run(
    cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Run a command on the stubs; return its exit status and all that the user reads."""

    def run(
        command: Callable[..., None], *steps: Step, password: str = "hunter2", **options: Any
    ) -> tuple[int, str]:
        monkeypatch.setenv("BATCHREG_PASSWORD", password)
        for step in steps:
            step(cloud)
        try:
            command(connect=cloud, **options)
            exit_status = 0
        except (BatchregError, click.UsageError) as error:  # as cli.main does
            print(error, file=sys.stderr)
            exit_status = 1 if isinstance(error, BatchregError) else 2
        captured = capsys.readouterr()
        cloud.done()
        return exit_status, captured.err + captured.out

    return run


def first_look(state: str | None, body: str = OLD_BODY) -> tuple[Step, ...]:
    if state is None:
        return (looks(None),)
    return looks(state), has_no_template if state == "REVIEW_IN_PROGRESS" else reads(body)


def named(rows: list[Row]) -> list[Any]:
    def name(state: str | None, steps: tuple[Step, ...]) -> str:
        return "-".join([state or "absent", *(step.__qualname__.split(".")[0] for step in steps)])

    return [pytest.param(*row, id=name(*row[:2])) for row in rows]


@pytest.mark.parametrize(("state", "steps", "exit_status", "lines"), named(DEPLOY))
def test_deploy_has_a_way_on_from_every_state(run, state, steps, exit_status, lines):
    """No dead ends: it ends well, or the line says what to do."""
    ended, output = run(commands.deploy, *first_look(state), *steps, **DEPLOY_OPTIONS)
    assert ended == exit_status, output
    for line in lines:
        assert line in output
    assert "hunter2" not in output


@pytest.mark.parametrize(("state", "steps", "exit_status", "lines"), named(DESTROY))
def test_destroy_has_a_way_on_from_every_state(run, state, steps, exit_status, lines):
    """A stack can be taken down whatever has happened to it."""
    ended, output = run(commands.destroy, *first_look(state), *steps, **DESTROY_OPTIONS)
    assert ended == exit_status, output
    for line in lines:
        assert line in output


@pytest.mark.parametrize(("state", "steps", "exit_status", "lines"), named(STATUS))
def test_status_shows_every_state(run, state, steps, exit_status, lines):
    """Looking never fails because of what there is to see."""
    ended, output = run(commands.status, *first_look(state), *steps, **OPTIONS)
    assert ended == exit_status, output
    for line in lines:
        assert line in output


def test_the_tables_leave_no_state_out(cloud):
    """A state that CloudFormation may answer is a state that somebody will be in."""
    model = cloud.cfn.meta.service_model.shape_for("StackStatus")
    for rows in (DEPLOY, DESTROY, STATUS):
        assert {state for state, *_ in rows if state} == set(model.enum) - {"DELETE_COMPLETE"}


@pytest.mark.parametrize(
    "state", ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"]
)
def test_an_unchanged_stack_takes_two_calls(run, state):
    """DescribeStacks and GetTemplate are enough to see that there is nothing to do."""
    assert run(
        commands.deploy,
        looks(state),
        reads(BODY),
        password="",
        **{**DEPLOY_OPTIONS, "username": None},
    ) == (0, f"{NOTHING}\n")


def test_whether_a_password_has_changed_only_cloudformation_knows(run):
    """Nobody can read the present one, so a password that is given is always sent."""
    ended, output = run(
        commands.deploy,
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
        commands.deploy,
        looks("UPDATE_IN_PROGRESS"),
        reads(BODY),
        asks_who(OURS),
        follows("UPDATE_ROLLBACK_COMPLETE", FAILED),
        looks("UPDATE_ROLLBACK_COMPLETE"),
        plans("UPDATE", given=kept),
        executes,
        follows("UPDATE_COMPLETE"),
        looks("UPDATE_COMPLETE"),
        password="",
        **{**DEPLOY_OPTIONS, "username": None},
    )
    assert (ended, CHANGED in output, NOTHING in output) == (0, True, False)


# Whose stack it is


@pytest.mark.parametrize(
    ("command", "options"), [(commands.deploy, DEPLOY_OPTIONS), (commands.destroy, DESTROY_OPTIONS)]
)
def test_a_foreign_stack_is_left_alone(run, command, options):
    """A typing error in --stack-name must not cost somebody their stack."""
    assert run(command, looks("CREATE_COMPLETE"), reads(FOREIGN_BODY), **options) == (
        1,
        "genomics was not made by batchreg: choose another --stack-name, or give --force.\n",
    )


def test_a_foreign_stack_can_be_destroyed_with_force(run):
    """Whoever says so means it."""
    ended, output = run(
        commands.destroy,
        looks("CREATE_COMPLETE"),
        reads(FOREIGN_BODY),
        *DESTROYS,
        **{**DESTROY_OPTIONS, "force": True},
    )
    assert (ended, GONE in output) == (0, True)


def test_a_foreign_stack_has_a_status(run):
    """Looking is allowed, and says whose it is not."""
    ended, output = run(commands.status, looks("CREATE_COMPLETE"), reads(FOREIGN_BODY), **OPTIONS)
    assert (ended, "not batchreg's" in output) == (0, True)


@pytest.mark.parametrize("version", ["0.0.1", "9.9.9"])
@pytest.mark.parametrize(
    ("command", "options", "then", "end"),
    [
        (commands.deploy, DEPLOY_OPTIONS, UPDATES, CHANGED),
        (commands.destroy, DESTROY_OPTIONS, DESTROYS, GONE),
    ],
)
def test_another_batchregs_stack_is_ours_and_says_so(run, version, command, options, then, end):
    """An update may come from a newer or an older colleague; the table of changes tells what."""
    body = BODY.replace(f"Version: {__version__}", f"Version: {version}")
    ended, output = run(command, looks("CREATE_COMPLETE"), reads(body), *then, **options)
    assert (ended, end in output) == (0, True)
    assert f"The stack was made by batchreg {version}; this is {__version__}." in output


# What the user may want


@pytest.mark.parametrize(
    ("state", "line"),
    [
        ("ROLLBACK_COMPLETE", "Dry run: a deploy would first remove what is left of it."),
        ("DELETE_FAILED", "Dry run: a deploy would first remove what is left of it."),
        ("UPDATE_ROLLBACK_FAILED", "Dry run: a deploy would first finish its rollback."),
    ],
)
def test_a_dry_run_does_not_lead_out_of_a_state(run, state, line):
    """It says what would happen first, and makes no call that changes anything."""
    ended, output = run(commands.deploy, *first_look(state), **{**DEPLOY_OPTIONS, "dry_run": True})
    assert (ended, line in output) == (0, True)


@pytest.mark.parametrize("state", ["ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED"])
def test_nothing_is_led_out_of_a_state_without_asking(run, state):
    """Where there is no terminal to ask on, the missing flag is named."""
    ended, output = run(commands.deploy, *first_look(state), **{**DEPLOY_OPTIONS, "yes": False})
    assert (ended, "--yes" in output) == (2, True)


@pytest.mark.parametrize("state", ["ROLLBACK_IN_PROGRESS", "DELETE_IN_PROGRESS"])
def test_a_stack_that_will_be_made_anew_needs_its_login_again(run, state):
    """It is asked for before minutes are spent on following, not afterwards."""
    ended, output = run(commands.deploy, *first_look(state), **{**DEPLOY_OPTIONS, "username": None})
    assert (ended, "Missing --username" in output) == (2, True)


def test_retain_is_for_deletes_that_got_stuck(run):
    """CloudFormation refuses it otherwise, with a message that explains nothing."""
    options = {**DESTROY_OPTIONS, "retain": ("JobQueue",)}
    ended, output = run(commands.destroy, *first_look("CREATE_COMPLETE"), **options)
    assert (ended, "try without --retain first" in output) == (1, True)
    ended, output = run(
        commands.destroy,
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
        commands.destroy,
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
            "the job queue nightly still uses its compute environment: take it out there, "
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
        commands.destroy,
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
        commands.destroy,
        looks("CREATE_COMPLETE", EnableTerminationProtection=True),
        reads(BODY),
        **DESTROY_OPTIONS,
    )
    assert (ended, "--no-termination-protection" in output) == (1, True)


def test_a_stuck_delete_that_took_the_queue_goes_on(run, cloud):
    """The outputs of a stack in DELETE_FAILED still name the queue that is gone."""
    cloud.client("batch")
    for _ in range(5):  # unfinished states, side by side
        cloud.stubs["batch"].add_client_error("list_jobs", "ClientException", "no such queue")
    ended, output = run(
        commands.destroy,
        looks("DELETE_FAILED", Outputs=[{"OutputKey": "JobQueueArn", "OutputValue": "arn:queue"}]),
        reads(BODY),
        *DESTROYS,
        **DESTROY_OPTIONS,
    )
    assert (ended, GONE in output) == (0, True)


# stack.events and stack.follow


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


class Pauses(list[float]):
    """A sleep that does not sleep."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


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


def test_follow_yields_each_event_once_oldest_first_until_the_stack_settles(cloud):
    """What a reader of the terminal expects."""
    old, new = history(cloud, 3), operation(cloud, 3)
    for seen in (2, 2, 5):
        page(cloud, old + new[:seen])
    pauses = Pauses()
    events = list(stack.follow(cloud.cfn, ID, OURS, sleep=pauses))
    assert shown(events) == [NAME, "R0", "R1", "R2", NAME]
    assert events[-1].settles
    assert pauses == [0.1, pytest.approx(0.15)]
    cloud.done()


def test_500_events_of_history_cost_one_page_a_poll(cloud):
    """Reading stops at the first event that is known, or that another operation left."""
    old, new = history(cloud, 500), operation(cloud, 3)
    for seen in (0, 1, 3, 5):  # before the first event, too
        page(cloud, (old + new[:seen])[-100:], more="older")
    assert len(list(stack.follow(cloud.cfn, ID, OURS, sleep=Pauses()))) == 5
    cloud.done()


def test_an_operation_of_several_pages_is_read_to_its_beginning(cloud):
    """Whoever attaches late still sees all of it; then a page a poll is enough."""
    everything = history(cloud, 90) + operation(cloud, 248, end=None)
    page(cloud, everything[-100:], more="b")
    page(cloud, everything[-200:-100], asked="b", more="c")
    page(cloud, everything[-300:-200], asked="c", more="d")
    everything.append(cloud.event(NAME, "UPDATE_COMPLETE", token=OURS))
    page(cloud, everything[-100:], more="b")
    assert shown(stack.follow(cloud.cfn, ID, OURS, sleep=Pauses())) == [
        NAME,
        *(f"R{number}" for number in range(248)),
        NAME,
    ]
    cloud.done()


def test_the_next_operation_does_not_hide_the_end_of_this_one(cloud):
    """Somebody may start another between two polls."""
    ours, theirs = operation(cloud, 1), operation(cloud, 2, end=None, token=THEIRS)
    page(cloud, ours[:1])
    page(cloud, ours + theirs)
    assert shown(stack.follow(cloud.cfn, ID, OURS, sleep=Pauses())) == [NAME, "R0", NAME]
    cloud.done()


def test_of_a_nested_stack_no_event_settles_the_whole(cloud):
    """Only the event of the stack itself does, which its physical id tells."""
    nested = cloud.event("Child", "UPDATE_COMPLETE", token=OURS)
    nested["ResourceType"] = STACK
    page(cloud, [nested])
    page(cloud, [nested, cloud.event(NAME, "UPDATE_COMPLETE", token=OURS)])
    assert shown(stack.follow(cloud.cfn, ID, OURS, sleep=Pauses())) == ["Child", NAME]
    cloud.done()


def silence(cloud: Cloud) -> None:
    """Answer the polls that a patience of 0.6 s takes, and the one that comes before a look."""
    for _ in range(5):
        page(cloud, history(cloud, 1))


def test_a_token_that_never_shows_up_ends_once_the_stack_is_settled(cloud):
    """Nobody waits for ever: without an event for long, the stack itself is asked."""
    silence(cloud)
    looks("UPDATE_COMPLETE", ID)(cloud)
    pauses = Pauses()
    assert list(stack.follow(cloud.cfn, ID, OURS, sleep=pauses, patience_seconds=0.6)) == []
    assert sum(pauses) == pytest.approx(0.8125)
    cloud.done()


def test_a_long_silence_is_waited_for_while_the_stack_is_busy(cloud):
    """A compute environment can take many minutes without a word."""
    silence(cloud)
    looks("UPDATE_IN_PROGRESS", ID)(cloud)
    page(cloud, operation(cloud, 1))
    events = stack.follow(cloud.cfn, ID, OURS, sleep=Pauses(), patience_seconds=0.6)
    assert shown(events) == [NAME, "R0", NAME]
    cloud.done()


def test_a_stack_that_somebody_deletes_meanwhile_ends_the_following(cloud, capsys):
    """Its end has another token."""
    ours = operation(cloud, 1, end=None)
    page(cloud, ours)
    for _ in range(5):
        page(cloud, [*ours, cloud.event(NAME, "DELETE_IN_PROGRESS", token=THEIRS)])
    looks(None, ID)(cloud)
    events = stack.follow(cloud.cfn, ID, OURS, sleep=Pauses(), patience_seconds=0.9)
    assert shown(events) == [NAME, "R0"]
    cloud.done()


@pytest.mark.parametrize("code", ["Throttling", "RequestLimitExceeded"])
def test_throttled_polls_are_waited_for(cloud, code):
    """The stack goes on anyway; the reader loses nothing."""
    page(cloud, history(cloud, 1))
    for _ in range(3):
        cloud.refuses("describe_stack_events", "Rate exceeded", code, StackName=ID)
    page(cloud, operation(cloud, 1))
    assert len(list(stack.follow(cloud.cfn, ID, OURS, sleep=Pauses()))) == 3
    cloud.done()


def test_throttling_without_end_is_given_up(cloud):
    """Patience has a limit."""
    for _ in range(5):
        cloud.refuses("describe_stack_events", "Rate exceeded", "Throttling", StackName=ID)
    with pytest.raises(ClientError, match="Rate exceeded"):
        list(stack.follow(cloud.cfn, ID, OURS, sleep=Pauses(), patience_seconds=0.6))
    cloud.done()


def test_credentials_that_expire_on_the_way_end_the_following_with_one_line(cloud):
    """The line says that the stack goes on, and how to come back to it."""
    page(cloud, operation(cloud, 1, end=None))
    cloud.refuses(
        "describe_stack_events",
        "The security token included in the request is expired",
        "ExpiredToken",
        StackName=ID,
    )
    with pytest.raises(BatchregError) as error:
        deploying.follow(cloud.cfn, ID, NAME, OURS, Console(), "Updating", sleep=Pauses())
    assert str(error.value) == (
        "AWS rejected DescribeStackEvents: The security token included in the request is expired. "
        "Log in to AWS again. genomics goes on; deploy again to follow it."
    )
    cloud.done()


def test_ctrl_c_while_following_says_how_to_go_on(cloud):
    """The stack goes on by itself; exit status 130 is cli.main's part."""
    page(cloud, operation(cloud, 1, end=None))

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="genomics goes on without batchreg"):
        deploying.follow(cloud.cfn, ID, NAME, OURS, Console(), "Updating", sleep=interrupted)
    cloud.done()


# stack.failures


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
        # Somebody has cancelled the update: nothing has failed.
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
    assert [event.logical_id for event in stack.failures(happened(*events))] == causes


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
    assert stack.plain_reason(reason) == words


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        ("The subnet ID 'subnet-1' does not exist", "Give subnets of this region with --subnet-id"),
        ("The security group 'sg-1' does not exist", "with --security-group-id"),
        ("is not authorized to perform: batch:CreateJobQueue", "Ask for this permission"),
        ("UserData is not MIME multipart", "--user-data"),
        ("Cannot delete, found existing JobQueue relationship", "Take the compute environment out"),
        ("You have exceeded your vCPU limit", "quota"),
        ("Instance type x9 is unknown", "--instance-type"),
        ("whatever", "Mend that"),
    ],
)
def test_a_failure_comes_with_the_next_step(reason, step):
    """The fact alone leaves the user where they are."""
    assert step in deploying.next_step(reason)
    assert deploying.next_step(reason).endswith(", then deploy again.")
    assert deploying.next_step(reason, "destroy again").endswith(", then destroy again.")


# changesets.plan


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
    return changesets.plan(
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
    assert str(failure.value) == "CloudFormation refuses the change: Transform failed with: X."
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
        "CloudFormation refuses the change: Queue: Priority is not a "
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


# deploy.unchanged and deploy.fill_in


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


def wanted(parameters: dict[str, str], **changes: Any) -> deploying.Request:
    values: dict[str, Any] = {
        "name": NAME,
        "body": "A",
        "parameters": parameters,
        "masked": frozenset({"Password"}),
        "declared": {"Password": False, "Subnets": False, "MaxvCpus": True},
    }
    return deploying.Request(**{**values, **changes})


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
