"""A CloudFormation of botocore's stubs: what it answers, call by call.

No emulator reaches most states of a stack. Each row of a table lists the calls that follow the first
look at the stack, in order: a call that is missing, that is too many or that has other parameters
fails the row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import to_yaml
from batchreg.stack.following import Operation

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
UPDATING = Operation(stack_id=ID, name=NAME, token=OURS, verb="Updating")


class Token:
    """Equals the token that a request carries, and puts it into the events that follow."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __eq__(self, token: object) -> bool:
        for event in self.events:
            event["ClientRequestToken"] = token
        return str(token).startswith("batchreg-")

    __hash__ = None


class Network:
    """An EC2 in which subnet-1 and sg-1 are as a deploy wants them: these tests are about stacks."""

    def describe_subnets(self, **_: object) -> dict[str, Any]:
        subnet = {"SubnetId": "subnet-1", "VpcId": "vpc-1", "MapPublicIpOnLaunch": True}
        return {"Subnets": [subnet]}

    def describe_security_groups(self, **_: object) -> dict[str, Any]:
        return {"SecurityGroups": [{"GroupId": "sg-1", "VpcId": "vpc-1"}]}

    def describe_route_tables(self, **_: object) -> dict[str, Any]:
        route = {"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}
        table = {"VpcId": "vpc-1", "Associations": [{"Main": True}], "Routes": [route]}
        return {"RouteTables": [table]}


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
        if service == "ec2":
            return Network()
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


# The steps of a row: each says which call comes next and what it is answered.

Step = Callable[[Cloud], None]


def looks(status: str | None, name: str = NAME, **more: Any) -> Step:
    """batchreg looks at the stack; None where there is none."""

    def step(cloud: Cloud) -> None:
        if status is None:
            cloud.refuses("describe_stacks", f"Stack with id {name} does not exist", StackName=name)
            return
        values = {
            **dict.fromkeys(PARAMETERS, "x"),
            **GIVEN,
            "RegistryUrl": "ghcr.io",
            "Username": "****",
            "Password": "****",
        }
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


def lists(*names: str) -> Step:
    """batchreg lists the stacks there, for a hint; the first one is not its own."""
    parameters = [{"ParameterKey": name} for name in PARAMETERS]
    more = {"CreationTime": datetime(2026, 11, 1, tzinfo=UTC), "StackStatus": "CREATE_COMPLETE"}
    stacks = [
        {"StackName": "genomics2", **more},
        *({"StackName": name, "Parameters": parameters, **more} for name in names),
    ]
    return lambda cloud: cloud.answers("describe_stacks", {"Stacks": stacks})


def may_not_list(cloud: Cloud) -> None:
    cloud.refuses("describe_stacks", "not authorized", "AccessDenied")


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
    """batchreg reads the events of the operation, which has finished."""

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
EXECUTED = (executes, follows("UPDATE_COMPLETE"), looks("UPDATE_COMPLETE"))
UPDATES = (plans("UPDATE"), *EXECUTED)
# After an operation that was followed, the template is another one: it is read for the preview.
UPDATES_AFTER = (plans("UPDATE"), reads(OLD_BODY), *EXECUTED)
REMOVES = (deletes(), follows("DELETE_COMPLETE"), looks(None))
DESTROYS = (lists_resources, deletes(), follows("DELETE_COMPLETE"))
FAILED = ("JobQueue", "UPDATE_FAILED", WHY)
STUCK = ("JobQueue", "DELETE_FAILED", WHY)
CAUSE = "genomics: JobQueue (AWS::Batch::JobQueue) failed: The subnet ID 'subnet-1' does not exist."
UP, CHANGED, GONE = "genomics is up.", "genomics is up to date.", "genomics is gone."
NOTHING = "genomics is up to date: nothing to change."
NOT_OURS = "{}, and batchreg did not start that operation. Wait until it finishes, then {} again."
FOLLOWING = "An earlier run left genomics in {}; watching it."

# The state, the calls after the first look, the exit status, and lines that the user reads.
Row = tuple[str | None, tuple[Step, ...], int, tuple[str, ...]]

OPTIONS: dict[str, Any] = {
    "stack_name": NAME,
    "json_output": False,
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
    "on_failure": None,
    "password_stdin": False,
    "default_vpc": False,
    "username": "lab",
    "subnet_id": ("subnet-1",),
    "security_group_id": ("sg-1",),
}


def first_look(state: str | None, body: str = OLD_BODY) -> tuple[Step, ...]:
    if state is None:
        return (looks(None),)
    return looks(state), has_no_template if state == "REVIEW_IN_PROGRESS" else reads(body)


def named(rows: list[Row]) -> list[Any]:
    def name(state: str | None, steps: tuple[Step, ...]) -> str:
        return "-".join([state or "absent", *(step.__qualname__.split(".")[0] for step in steps)])

    return [pytest.param(*row, id=name(*row[:2])) for row in rows]


class Pauses(list[float]):
    """A sleep that does not sleep."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
