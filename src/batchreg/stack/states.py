"""The life of a stack, over an injected CloudFormation client."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from batchreg import aws
from batchreg.errors import BatchregError

# Change sets and requests of ours have names of ours: a later run recognises what it may follow.
PREFIX = "batchreg-"
NOT_CREATED = ("REVIEW_IN_PROGRESS",)  # a change set was made for it, and never executed
# A create that failed leaves a stack that can only be deleted.
ONLY_DELETABLE = ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED")
TO_ROLL_BACK = ("UPDATE_FAILED", "UPDATE_ROLLBACK_FAILED")
# The next deploy makes the stack anew, and its parameters have no present value to keep.
LOSES_PARAMETERS = (*NOT_CREATED, *ONLY_DELETABLE, "ROLLBACK_IN_PROGRESS", "DELETE_IN_PROGRESS")
UPDATABLE = (
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
)

Client = Any
Sleep = Callable[[float], None]


class StackFailed(BatchregError):
    """An operation of CloudFormation's ended badly. `stuck` names the resources that failed."""

    def __init__(self, message: str, stuck: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.stuck = tuple(stuck)


@dataclass(frozen=True)
class Stack:
    """A stack as CloudFormation describes it. Values of NoEcho parameters come as `****`."""

    name: str
    id: str
    status: str
    reason: str
    parameters: Mapping[str, str] = field(repr=False)
    outputs: Mapping[str, str]
    tags: Mapping[str, str]
    role_arn: str | None
    protected: bool

    @property
    def busy(self) -> bool:
        return self.status.endswith("_IN_PROGRESS") and self.status not in NOT_CREATED

    def arns(self, kind: str) -> list[str]:
        """Return the outputs JobQueueArn and FargateJobQueueArn, say, as far as they are there."""
        return [value for name, value in self.outputs.items() if name.endswith(kind)]


@dataclass(frozen=True)
class Event:
    """What happened to a resource. `token` names the request that caused it."""

    id: str
    time: datetime
    logical_id: str
    type: str
    status: str
    reason: str
    token: str
    of_stack: bool

    @property
    def repeats(self) -> bool:
        """Tell whether it says nothing that the resource's event before it did not say."""
        return self.reason == "Resource creation Initiated"

    @property
    def settles(self) -> bool:
        """Tell whether the whole operation has ended with this event."""
        return self.of_stack and not self.status.endswith("_IN_PROGRESS")


def check_name(name: str) -> None:
    """Refuse what CloudFormation would refuse as a stack's name."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9-]{0,127}", name):
        raise BatchregError(
            f"{name!r} cannot be a stack's name: letters, digits and hyphens, a letter first."
        )


def find(client: Client, name: str) -> Stack | None:
    """Return the stack, or None where there is none of this name."""
    from botocore.exceptions import ClientError

    try:
        found = client.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        # There is no better way: the code is ValidationError for much else too.
        if "does not exist" in error.response.get("Error", {}).get("Message", ""):
            return None
        raise
    if found["StackStatus"] == "DELETE_COMPLETE":
        return None
    return Stack(
        name=found["StackName"],
        id=found["StackId"],
        status=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        parameters={
            parameter["ParameterKey"]: parameter.get("ParameterValue", "")
            for parameter in found.get("Parameters", [])
        },
        outputs={output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])},
        tags={tag["Key"]: tag["Value"] for tag in found.get("Tags", [])},
        role_arn=found.get("RoleARN"),
        protected=found.get("EnableTerminationProtection", False),
    )


def latest_token(client: Client, stack_id: str) -> str:
    """Return the token of the operation that the stack's newest event belongs to."""
    newest = client.describe_stack_events(StackName=stack_id)["StackEvents"][:1]
    return newest[0].get("ClientRequestToken", "") if newest else ""


def events(
    client: Client, stack_id: str, token: str, seen: frozenset[str] | set[str] = frozenset()
) -> list[Event]:
    """Return the events of the operation of `token` that are not in `seen`, oldest first.

    AWS lists the newest first, a hundred a page, and remembers them for 90 days: reading stops
    where the operation began, and after one page where that shows nothing of it yet.
    """
    new: list[Event] = []
    for page in client.get_paginator("describe_stack_events").paginate(StackName=stack_id):
        for raw in page["StackEvents"]:
            event = Event(
                id=raw["EventId"],
                time=raw["Timestamp"],
                logical_id=raw["LogicalResourceId"],
                type=raw.get("ResourceType", ""),
                status=raw.get("ResourceStatus", ""),
                reason=raw.get("ResourceStatusReason", ""),
                token=raw.get("ClientRequestToken", ""),
                of_stack=raw.get("PhysicalResourceId") == stack_id,
            )
            if event.id in seen or (new and event.token != token):
                return new[::-1]
            if event.token == token:  # else of another operation, which came after it
                new.append(event)
        if not new:
            break
    return new[::-1]


def follow(
    client: Client,
    stack_id: str,
    token: str,
    *,
    sleep: Sleep = time.sleep,
    poll_seconds: float = 1,
    patience_seconds: float = 60,
) -> Iterator[Event]:
    """Yield the events of the operation of `token` as they happen, until the stack settles.

    A network that is away for less than `patience_seconds` is waited for. After as long without an
    event, the stack itself is asked: somebody may have deleted it meanwhile, which is an operation
    with another token.
    """
    seen: set[str] = set()
    pause, silence = min(0.1, poll_seconds), 0.0
    while True:
        new: list[Event] = []
        began = time.monotonic()
        try:
            new = events(client, stack_id, token, seen)
            if silence > patience_seconds and not new:
                present = find(client, stack_id)
                if not present or not present.busy:
                    return
                silence = 0
        except Exception as error:
            if silence > patience_seconds or not aws.is_transient(error):
                raise
        for event in new:
            seen.add(event.id)
            yield event
            if event.settles:
                return
        if new:  # more may follow at once, and the last of them is the end
            pause = min(0.1, poll_seconds)
        silence = 0 if new else silence + pause + time.monotonic() - began
        sleep(pause)
        pause = min(pause * 1.5, poll_seconds)


def failures(happened: Iterable[Event]) -> list[Event]:
    """Return what failed by itself, not in consequence of another failure; the first is the cause.

    The stack's own failure, whose reason lists the resources, counts where no resource's is there.
    """
    failed = [
        event
        for event in happened
        if event.status.endswith("_FAILED")
        and not re.search("(creation|update|deletion) cancelled", event.reason, re.IGNORECASE)
    ]
    return [event for event in failed if not event.of_stack] or failed


def plain_reason(reason: str) -> str:
    """Take the wrapping off a resource's reason: handler codes, request ids, service names."""
    text = " ".join(reason.split())
    text = re.sub(
        r"\(Service: [^)]*\)|\(RequestToken: [^)]*\)|\(HandlerErrorCode: [^)]*\)", "", text
    )
    text = re.sub(r'^Resource handler returned message: "(.*)"', r"\1", text.strip())
    return text.strip().rstrip(".,") + "." if text.strip() else "no reason given."


def placed(stack_id: str) -> str:
    """Return "genomics in us-east-1, account 111122223333": a mistaken profile shows there."""
    _, _, _, region, account, path = stack_id.split(":", 5)
    return f"{path.split('/')[1]} in {region}, account {account}"


def new_token() -> str:
    return PREFIX + uuid.uuid4().hex[:16]


def delete(
    client: Client, stack: Stack, *, retain: Iterable[str] = (), role_arn: str | None = None
) -> str:
    """Start deleting the stack; return the token that its events carry."""
    token = new_token()
    request: dict[str, Any] = {"StackName": stack.id, "ClientRequestToken": token}
    if retain:
        request["RetainResources"] = list(retain)
    if role_arn:
        request["RoleARN"] = role_arn
    client.delete_stack(**request)
    return token


def recover(client: Client, stack: Stack, *, role_arn: str | None = None) -> str:
    """Start what must come before an update can, in a state of ONLY_DELETABLE or TO_ROLL_BACK."""
    if stack.status in ONLY_DELETABLE:
        return delete(client, stack, role_arn=role_arn)
    token = new_token()
    role = {"RoleARN": role_arn} if role_arn else {}
    if stack.status == "UPDATE_ROLLBACK_FAILED":
        client.continue_update_rollback(StackName=stack.id, ClientRequestToken=token, **role)
    else:
        client.rollback_stack(StackName=stack.id, ClientRequestToken=token, **role)
    return token


def template_of(client: Client, stack: Stack) -> str:
    """Return the text of the deployed template, empty where there is none yet."""
    import json

    from botocore.exceptions import ClientError

    try:
        body = client.get_template(StackName=stack.id, TemplateStage="Original")["TemplateBody"]
    except ClientError:
        if stack.status in NOT_CREATED:
            return ""
        raise
    return body if isinstance(body, str) else json.dumps(body)
