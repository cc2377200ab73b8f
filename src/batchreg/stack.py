"""The life of a stack, over an injected CloudFormation client."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from batchreg.errors import BatchregError

# Change sets and requests of ours have names of ours: a later run recognises what it may follow.
PREFIX = "batchreg-"
NOT_CREATED = ("REVIEW_IN_PROGRESS",)  # a change set was made for it, and never executed
# A create that failed leaves a stack that can only be deleted.
ONLY_DELETABLE = ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED")
UPDATABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE",
             "IMPORT_ROLLBACK_COMPLETE")

Client = Any
Sleep = Callable[[float], None]


class StackFailed(BatchregError):
    """An operation of CloudFormation's ended badly."""


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


@dataclass(frozen=True)
class Change:
    """One resource of a change set. `replacement` is True, False or Conditional, or empty."""

    action: str
    logical_id: str
    type: str
    replacement: str


@dataclass(frozen=True)
class ChangeSet:
    """A change set that waits to be executed, or, without an `id`, that would change nothing."""

    stack_id: str
    id: str | None
    creates: bool
    changes: tuple[Change, ...] = ()


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
        name=found["StackName"], id=found["StackId"], status=found["StackStatus"],
        reason=found.get("StackStatusReason", ""),
        parameters={parameter["ParameterKey"]: parameter.get("ParameterValue", "")
                    for parameter in found.get("Parameters", [])},
        outputs={output["OutputKey"]: output["OutputValue"]
                 for output in found.get("Outputs", [])},
        tags={tag["Key"]: tag["Value"] for tag in found.get("Tags", [])},
        role_arn=found.get("RoleARN"),
        protected=found.get("EnableTerminationProtection", False),
    )


def events(client: Client, stack_id: str, token: str | None = None,
           seen: frozenset[str] | set[str] = frozenset()) -> list[Event]:
    """Return the newest operation's events that are not in `seen`, oldest first.

    AWS lists the newest first, a hundred a page, and remembers them for 90 days: reading stops
    where the operation of `token` (default: the latest there is) began.
    """
    new: list[Event] = []
    for page in client.get_paginator("describe_stack_events").paginate(StackName=stack_id):
        for raw in page["StackEvents"]:
            event = Event(
                id=raw["EventId"], time=raw["Timestamp"], logical_id=raw["LogicalResourceId"],
                type=raw.get("ResourceType", ""), status=raw.get("ResourceStatus", ""),
                reason=raw.get("ResourceStatusReason", ""),
                token=raw.get("ClientRequestToken", ""),
                of_stack=raw.get("PhysicalResourceId") == stack_id,
            )
            token = event.token if token is None else token
            if event.token != token or event.id in seen:
                return new[::-1]
            new.append(event)
    return new[::-1]


def follow(client: Client, stack_id: str, token: str, *, sleep: Sleep = time.sleep,
           poll_seconds: float = 1) -> Iterator[Event]:
    """Yield the events of the operation of `token` as they happen, until the stack settles."""
    seen: set[str] = set()
    pause = min(0.1, poll_seconds)
    while True:
        for event in events(client, stack_id, token, seen):
            seen.add(event.id)
            yield event
            if event.settles:
                return
        sleep(pause)
        pause = min(pause * 1.5, poll_seconds)


def root_cause(happened: Iterable[Event]) -> Event | None:
    """Return the first failure that is not the consequence of another."""
    failures = [event for event in happened if event.status.endswith("_FAILED")]
    own = [event for event in failures if not event.of_stack and not re.search(
        "(creation|update|deletion) cancelled", event.reason, re.IGNORECASE)]
    return next(iter(own or failures), None)


def new_token() -> str:
    return PREFIX + uuid.uuid4().hex[:16]


def plan(client: Client, name: str, body: str, parameters: Mapping[str, str | None], *,
         creates: bool, tags: Mapping[str, str] | None = None, role_arn: str | None = None,
         sleep: Sleep = time.sleep) -> ChangeSet:
    """Make a change set; a value of None keeps the parameter's present one.

    Raises StackFailed with CloudFormation's reason where the template or a value is refused.
    """
    request: dict[str, Any] = {
        "StackName": name,
        "ChangeSetName": new_token(),
        "ChangeSetType": "CREATE" if creates else "UPDATE",
        "TemplateBody": body,
        "Capabilities": ["CAPABILITY_IAM"],
        "Parameters": [
            {"ParameterKey": key, "UsePreviousValue": True} if value is None else
            {"ParameterKey": key, "ParameterValue": value}
            for key, value in parameters.items()
        ],
    }
    if tags is not None:
        request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    if role_arn:
        request["RoleARN"] = role_arn
    made = client.create_change_set(**request)
    pause = 0.05
    while True:
        answer = client.describe_change_set(ChangeSetName=made["Id"], StackName=made["StackId"])
        if answer["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
            break
        sleep(pause)
        pause = min(pause * 2, 2)
    change_set = ChangeSet(made["StackId"], made["Id"], creates, tuple(_changes(client, answer)))
    if answer["Status"] != "FAILED":
        return change_set
    discard(client, change_set)
    reason = answer.get("StatusReason", "no reason given")
    if "didn't contain changes" in reason or "No updates are to be performed" in reason:
        return ChangeSet(made["StackId"], None, creates)
    raise StackFailed(f"CloudFormation refuses the change: {reason.rstrip('.')}.")


def _changes(client: Client, answer: dict[str, Any]) -> Iterator[Change]:
    while True:
        for change in answer.get("Changes", []):
            resource = change["ResourceChange"]
            yield Change(resource["Action"], resource["LogicalResourceId"],
                         resource["ResourceType"], resource.get("Replacement", ""))
        if not answer.get("NextToken"):
            return
        answer = client.describe_change_set(
            ChangeSetName=answer["ChangeSetId"], StackName=answer["StackId"],
            NextToken=answer["NextToken"])


def discard(client: Client, change_set: ChangeSet) -> None:
    """Delete a change set, and the empty stack that it was made for if nobody else waits there."""
    client.delete_change_set(ChangeSetName=change_set.id, StackName=change_set.stack_id)
    if change_set.creates:
        others = client.list_change_sets(StackName=change_set.stack_id)["Summaries"]
        if all(other["ChangeSetName"].startswith(PREFIX) for other in others):
            client.delete_stack(StackName=change_set.stack_id)


def execute(client: Client, change_set: ChangeSet) -> str:
    """Start the change; return the token that its events carry."""
    token = new_token()
    client.execute_change_set(ChangeSetName=change_set.id, StackName=change_set.stack_id,
                              ClientRequestToken=token)
    return token


def delete(client: Client, stack: Stack, *, retain: Iterable[str] = (),
           role_arn: str | None = None) -> str:
    """Start deleting the stack; return the token that its events carry."""
    token = new_token()
    request: dict[str, Any] = {"StackName": stack.id, "ClientRequestToken": token}
    if retain:
        request["RetainResources"] = list(retain)
    if role_arn:
        request["RoleARN"] = role_arn
    client.delete_stack(**request)
    return token


def recover(client: Client, stack: Stack) -> str | None:
    """Start what must come before an update can; return its token, or None if nothing must."""
    if stack.status in UPDATABLE:
        return None
    token = new_token()
    if stack.status == "UPDATE_ROLLBACK_FAILED":
        client.continue_update_rollback(StackName=stack.id, ClientRequestToken=token)
    elif stack.status == "UPDATE_FAILED":
        client.rollback_stack(StackName=stack.id, ClientRequestToken=token)
    elif stack.status in ONLY_DELETABLE:
        return delete(client, stack)
    else:
        raise StackFailed(f"{stack.name} is in {stack.status}, which batchreg cannot lead out of: "
                          "look at it in the CloudFormation console.")
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
