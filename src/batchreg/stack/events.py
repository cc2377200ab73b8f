"""What happens to a stack's resources, and the first cause of a failure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from batchreg import aws
from batchreg.stack.states import Client, Sleep, find


@dataclass(frozen=True)
class Event:
    """A change of a resource's state. `token` names the request that caused it."""

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
        """Tell whether it adds nothing to the resource's event before it."""
        return self.reason == "Resource creation Initiated"

    @property
    def final(self) -> bool:
        """Tell whether the whole operation ended with this event."""
        return self.of_stack and not self.status.endswith("_IN_PROGRESS")


def latest_token(client: Client, stack_id: str) -> str:
    """Return the token of the operation that the stack's newest event belongs to."""
    newest = client.describe_stack_events(StackName=stack_id)["StackEvents"][:1]
    return newest[0].get("ClientRequestToken", "") if newest else ""


def read(
    client: Client, stack_id: str, token: str, seen: frozenset[str] | set[str] = frozenset()
) -> list[Event]:
    """Return the events of the operation of `token` that are not in `seen`, oldest first.

    AWS lists the newest first, a hundred per page, and keeps them for 90 days. Reading stops where
    the operation began, and after one page if that shows nothing of it yet.
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
            if event.token == token:  # else it belongs to a later operation
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
    """Yield the events of the operation of `token` as they happen, until it finishes.

    A network failure is tolerated for `patience_seconds`. After as long without an event, the stack
    itself is described: someone may have deleted it, which is an operation with another token.
    """
    seen: set[str] = set()
    pause, silence = min(0.1, poll_seconds), 0.0
    while True:
        new: list[Event] = []
        began = time.monotonic()
        try:
            new = read(client, stack_id, token, seen)
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
            if event.final:
                return
        if new:  # more may follow soon, and the last of them ends it
            pause = min(0.1, poll_seconds)
        silence = 0 if new else silence + pause + time.monotonic() - began
        sleep(pause)
        pause = min(pause * 1.5, poll_seconds)


def failures(happened: Iterable[Event]) -> list[Event]:
    """Return what failed by itself, not because of another failure; the first is the cause.

    The stack's own failure, whose reason lists the resources, counts only if no resource failed.
    """
    failed = [
        event
        for event in happened
        if event.status.endswith("_FAILED")
        and not re.search("(creation|update|deletion) cancelled", event.reason, re.IGNORECASE)
    ]
    return [event for event in failed if not event.of_stack] or failed


def plain_reason(reason: str) -> str:
    """Return a resource's reason without handler codes, request ids and service names."""
    text = " ".join(reason.split())
    text = re.sub(
        r"\(Service: [^)]*\)|\(RequestToken: [^)]*\)|\(HandlerErrorCode: [^)]*\)", "", text
    )
    text = re.sub(r'^Resource handler returned message: "(.*)"', r"\1", text.strip())
    return text.strip().rstrip(".,") + "." if text.strip() else "no reason given."
