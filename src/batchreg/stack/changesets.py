"""Change sets: created, read, discarded or executed, over an injected CloudFormation client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from batchreg.stack.events import latest_token
from batchreg.stack.states import NOT_CREATED, PREFIX, Client, Sleep, StackFailed, find, new_token


@dataclass(frozen=True)
class Change:
    """One resource of a change set. `replacement` is True, False or Conditional, or empty."""

    action: str
    logical_id: str
    type: str
    replacement: str


@dataclass(frozen=True)
class ChangeSet:
    """A change set to be executed; without an `id`, one that would change nothing."""

    stack_id: str
    id: str | None
    creates: bool
    changes: tuple[Change, ...] = ()


def create(
    client: Client,
    name: str,
    body: str,
    parameters: Mapping[str, str | None],
    *,
    creates: bool,
    tags: Mapping[str, str] | None = None,
    role_arn: str | None = None,
    sleep: Sleep = time.sleep,
) -> ChangeSet:
    """Create a change set; a value of None keeps the parameter's present one.

    Raises StackFailed with CloudFormation's reason if it rejects the template or a value.
    """
    token = new_token()
    request: dict[str, Any] = {
        "StackName": name,
        "ChangeSetName": token,
        "ClientToken": token,  # a repeated request creates no second one
        "ChangeSetType": "CREATE" if creates else "UPDATE",
        "TemplateBody": body,
        "Capabilities": ["CAPABILITY_IAM"],
        "Parameters": [
            {"ParameterKey": key, "UsePreviousValue": True}
            if value is None
            else {"ParameterKey": key, "ParameterValue": value}
            for key, value in parameters.items()
        ],
    }
    if tags is not None:
        request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    if role_arn:
        request["RoleARN"] = role_arn
    created = ChangeSet(*_create(client, request, creates), creates)
    with discarding_on_failure(client, created):
        pause = 0.05
        while True:
            answer = client.describe_change_set(
                ChangeSetName=created.id, StackName=created.stack_id
            )
            if answer["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                break
            sleep(pause)
            pause = min(pause * 2, 0.3)
        change_set = replace(created, changes=tuple(_changes(client, answer)))
        if answer["Status"] != "FAILED":
            return change_set
        reason = _refusal(client, change_set, answer)
    discard(client, change_set)
    if "didn't contain changes" in reason or "No updates are to be performed" in reason:
        return replace(created, id=None)
    raise StackFailed(f"CloudFormation rejects the change: {reason}.")


def _refusal(client: Client, change_set: ChangeSet, answer: dict[str, Any]) -> str:
    """Return why there is no change set; early validation reports its findings as events."""
    reason = " ".join(answer.get("StatusReason", "no reason given").split()).rstrip(".")
    if "DescribeEvents" not in reason or not hasattr(client, "describe_events"):
        return reason
    with suppress(client.exceptions.ClientError):  # without permission for it, the reason has to do
        found = client.describe_events(ChangeSetName=change_set.id, Filters={"FailedEvents": True})[
            "OperationEvents"
        ]
        findings = [
            f"{event.get('LogicalResourceId', '')}: {event['ValidationStatusReason']}"
            for event in found
            if event.get("ValidationStatusReason")
        ]
        return "; ".join(dict.fromkeys(findings)).rstrip(".") or reason
    return reason


def _create(client: Client, request: Mapping[str, Any], creates: bool) -> tuple[str, str]:
    """Create the change set, to the end even if interrupted: only then can it be discarded."""
    with ThreadPoolExecutor(1) as pool:
        creating = pool.submit(_ids, client, request)
        try:
            return creating.result()
        except KeyboardInterrupt:
            if not creating.exception():
                discard(client, ChangeSet(*creating.result(), creates))
            raise


def _ids(client: Client, request: Mapping[str, Any]) -> tuple[str, str]:
    """Create the change set; return the stack's id and its own."""
    try:
        answer = client.create_change_set(**request)
        return answer["StackId"], answer["Id"]
    except client.exceptions.AlreadyExistsException:
        # The answer to a first request was lost: nobody else knows the name.
        answer = client.describe_change_set(
            ChangeSetName=request["ChangeSetName"], StackName=request["StackName"]
        )
        return answer["StackId"], answer["ChangeSetId"]


def _changes(client: Client, answer: dict[str, Any]) -> Iterator[Change]:
    while True:
        for change in answer.get("Changes", []):
            resource = change["ResourceChange"]
            yield Change(
                resource["Action"],
                resource["LogicalResourceId"],
                resource["ResourceType"],
                resource.get("Replacement", ""),
            )
        if not answer.get("NextToken"):
            return
        answer = client.describe_change_set(
            ChangeSetName=answer["ChangeSetId"],
            StackName=answer["StackId"],
            NextToken=answer["NextToken"],
        )


@contextmanager
def discarding_on_failure(client: Client, change_set: ChangeSet) -> Iterator[None]:
    """Discard the change set if the block fails or is interrupted; that failure is raised."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            discard(client, change_set)
        raise


def discard(client: Client, change_set: ChangeSet) -> None:
    """Delete a change set, and the empty stack it was created for unless others use that."""
    with suppress(client.exceptions.ChangeSetNotFoundException):  # an interrupted discard did it
        client.delete_change_set(ChangeSetName=change_set.id, StackName=change_set.stack_id)
    if change_set.creates:
        others = client.list_change_sets(StackName=change_set.stack_id)["Summaries"]
        present = find(client, change_set.stack_id)
        # Another batchreg may have created it in the meantime.
        if (
            present
            and present.status in NOT_CREATED
            and all(other["ChangeSetName"].startswith(PREFIX) for other in others)
        ):
            client.delete_stack(StackName=change_set.stack_id)


def execute(client: Client, change_set: ChangeSet) -> str:
    """Start the change; return the token that its events carry."""
    from botocore.exceptions import ClientError

    token = new_token()
    try:
        client.execute_change_set(
            ChangeSetName=change_set.id, StackName=change_set.stack_id, ClientRequestToken=token
        )
    except ClientError:
        with suppress(Exception):
            if latest_token(client, change_set.stack_id) == token:
                return token  # it has begun: the answer to a first request was lost
            discard(client, change_set)
        raise
    return token
