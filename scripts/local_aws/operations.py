"""What a stack operation does to a stack's resources, and the events that tell of it.

ministack does one resource after the other, at once, and speaks of all of them. Here as on AWS
resources that do not need each other change side by side and take their time, a failure cancels
what is under way, and only what changes has events. Only the embedded AWS's own process imports
this.
"""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from ministack.core.responses import new_uuid, now_iso
from ministack.services import cloudformation
from ministack.services.cloudformation import engine, provisioners, stacks

from local_aws.properties import as_text

Data = dict[str, Any]

PACE = 0.0  # seconds that each resource of a stack takes


def _say(
    stack: Data, logical_id: str, kind: str, status: str, reason: str = "", physical_id: str = ""
) -> None:
    stacks._add_event(
        stack["StackId"], stack["StackName"], logical_id, kind, status, reason, physical_id
    )


def _end(stack: Data, status: str, reason: str = "") -> None:
    """Bring the stack itself to a status."""
    stack.update(StackStatus=status, StackStatusReason=reason)
    kind = "AWS::CloudFormation::Stack"
    _say(stack, stack["StackName"], kind, status, reason, stack["StackId"])


def _explained(error: Exception) -> str:
    return (
        f'Resource handler returned message: "{error}" '
        f"(RequestToken: {new_uuid()}, HandlerErrorCode: InvalidRequest)"
    )


async def _in_order(
    needs: dict[str, set[str]], step: Callable[[str], Awaitable[None]], *, to_the_end: bool = False
) -> None:
    """Run a step for each name after those it needs, all others side by side."""

    async def run(name: str) -> None:
        needed = [tasks[other] for other in needs[name]]
        if needed:
            await asyncio.wait(needed)
        for task in needed:
            task.result()  # raises what has kept the other from its end
        await step(name)

    tasks = {name: asyncio.create_task(run(name)) for name in needs}
    when = asyncio.ALL_COMPLETED if to_the_end else asyncio.FIRST_EXCEPTION
    try:
        if tasks:
            await asyncio.wait(tasks.values(), return_when=when)
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


def _needs(template: Data, names: set[str]) -> dict[str, set[str]]:
    definitions = template.get("Resources", {})
    return {name: engine._extract_deps(definitions.get(name, {}), names) - {name} for name in names}


def _scope(stack: Data, template: Data, params: Data) -> tuple[Any, ...]:
    """Return what intrinsics are resolved against."""
    return (
        stack["_resources"],
        params,
        engine._evaluate_conditions(template, params),
        template.get("Mappings", {}),
        stack["StackName"],
        stack["StackId"],
    )


async def _apply(stack: Data, template: Data, params: Data) -> tuple[list[str], Data]:
    """Bring the resources to what the template says; return what failed and what was replaced."""
    definitions, resources = template["Resources"], stack["_resources"]
    scope = _scope(stack, template, params)
    failed: list[str] = []
    replaced: Data = {}

    async def step(name: str) -> None:
        kind, before = definitions[name]["Type"], resources.get(name)
        old_id = before["PhysicalResourceId"] if before else ""
        verb, noun = ("UPDATE", "update") if before else ("CREATE", "creation")
        say = functools.partial(_say, stack, name, kind)
        try:
            properties = engine._resolve_refs(
                copy.deepcopy(definitions[name].get("Properties", {})), *scope
            )
            properties = {k: v for k, v in properties.items() if v is not engine._NO_VALUE}
            if before and before["Properties"] == properties:
                return
            say(f"{verb}_IN_PROGRESS", physical_id=old_id)
            await asyncio.sleep(PACE / 2)
            record = _make(stack, name, kind, properties, before)
            new_id = record["PhysicalResourceId"]
            if before and new_id != old_id:
                replaced[name] = before
                say(
                    "UPDATE_IN_PROGRESS",
                    "Requested update requires the creation of a new "
                    "physical resource; hence creating one.",
                    old_id,
                )
            if new_id != old_id:
                say(f"{verb}_IN_PROGRESS", "Resource creation Initiated", new_id)
            resources[name] = record
            await asyncio.sleep(PACE / 2)
            say(f"{verb}_COMPLETE", physical_id=new_id)
        except asyncio.CancelledError:
            failed.append(name)
            say(f"{verb}_FAILED", f"Resource {noun} cancelled")
            raise
        except Exception as error:
            failed.append(name)
            say(f"{verb}_FAILED", _explained(error), old_id)
            raise

    names = engine._topological_sort(definitions, scope[2])
    await _in_order(_needs(template, set(names)), step)
    return failed, replaced


def _make(stack: Data, name: str, kind: str, properties: Data, before: Data | None) -> Data:
    """Create or update one resource, and return its record."""
    # What an update replaces stays until the operation has succeeded, and a generated name stays.
    provisioners._DEFERRED_PREDECESSOR_DELETES.set([])
    provisioners._NAME_SEED.set(before.get("_name_seed", "") if before else "")
    if before:
        physical_id, attributes = provisioners._update_resource(
            kind,
            before["PhysicalResourceId"],
            before["Properties"],
            properties,
            stack["StackName"],
            name,
            before["Attributes"],
        )
    else:
        physical_id, attributes = provisioners._provision_resource(
            kind, name, properties, stack["StackName"]
        )
    return {
        "PhysicalResourceId": physical_id,
        "ResourceType": kind,
        "LogicalResourceId": name,
        "ResourceStatus": "UPDATE_COMPLETE" if before else "CREATE_COMPLETE",
        "Timestamp": now_iso(),
        "Properties": properties,
        "Attributes": attributes,
        "_name_seed": provisioners._NAME_SEED.get(),
    }


async def _remove(stack: Data, doomed: Data, template: Data) -> list[str]:
    """Delete resources, those that use others first; return those that would not go."""
    needs = _needs(template, set(doomed))
    users = {name: {other for other in doomed if name in needs[other]} for name in doomed}
    stuck: list[str] = []

    async def step(name: str) -> None:
        record = doomed[name]
        kind, physical_id = record["ResourceType"], record["PhysicalResourceId"]
        say = functools.partial(_say, stack, name, kind, physical_id=physical_id)
        if template["Resources"].get(name, {}).get("DeletionPolicy") == "Retain":
            say("DELETE_SKIPPED")
            return
        say("DELETE_IN_PROGRESS")
        await asyncio.sleep(PACE)
        try:
            provisioners._delete_resource(
                kind, physical_id, record["Properties"], stack["StackName"], name
            )
        except Exception as error:
            stuck.append(name)
            say("DELETE_FAILED", _explained(error))
            raise
        if stack["_resources"].get(name) is record:
            del stack["_resources"][name]
        say("DELETE_COMPLETE")

    await _in_order(users, step, to_the_end=True)
    return stuck


async def deploy(
    name: str,
    stack_id: str,
    template: Data,
    params: Data,
    disable_rollback: bool,
    tags: Any,
    is_update: bool = False,
    previous_stack: Data | None = None,
    **_: Any,
) -> None:
    """Create or update a stack, as ministack's function of this signature does."""
    stack = cloudformation._stacks[name]
    stack["_task"] = asyncio.current_task()
    verb = "UPDATE" if previous_stack else "CREATE"
    old = dict(stack["_resources"])
    if not previous_stack:
        stack["_template"] = template
    failed, replaced = await _apply(stack, template, params)
    reason = f"The following resource(s) failed to {verb.lower()}: {_listed(failed)}. "
    try:
        outputs = [] if failed else _outputs(stack, template, params)
    except ValueError as error:
        failed, reason = ["Outputs"], f"{error}. "
    if not failed:
        stack.update(
            _template=template,
            _resolved_params=params,
            Outputs=outputs,
            Description=template.get("Description", ""),
        )
        if previous_stack:
            _end(stack, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
            conditions = engine._evaluate_conditions(template, params)
            kept = engine._topological_sort(template["Resources"], conditions)
            removed = {key: record for key, record in old.items() if key not in kept}
            await _remove(stack, {**replaced, **removed}, previous_stack["_template"])
        _end(stack, f"{verb}_COMPLETE")
    elif disable_rollback:
        _end(stack, f"{verb}_FAILED", reason)
    elif previous_stack:
        _end(stack, "UPDATE_ROLLBACK_IN_PROGRESS", reason)
        await _go_back(stack, template, previous_stack, old, replaced)
    else:
        _end(stack, "ROLLBACK_IN_PROGRESS", reason + "Rollback requested by user.")
        stuck = await _remove(stack, dict(stack["_resources"]), template)
        _end(stack, "ROLLBACK_FAILED" if stuck else "ROLLBACK_COMPLETE")


def _listed(names: list[str]) -> str:
    return f"[{', '.join(names)}]"


async def _go_back(stack: Data, template: Data, previous: Data, old: Data, replaced: Data) -> None:
    """Apply the previous template again, and remove what only the new one had made."""
    made = {
        key: record
        for key, record in stack["_resources"].items()
        if key in replaced or key not in old
    }
    stack["_resources"].update(replaced)
    failed, _ = await _apply(stack, previous["_template"], previous["_resolved_params"])
    _end(stack, "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
    await _remove(stack, made, template)
    stack.update({key: previous[key] for key in ("_template_body", "Parameters", "Tags")})
    _end(stack, "UPDATE_ROLLBACK_FAILED" if failed else "UPDATE_ROLLBACK_COMPLETE")


def _outputs(stack: Data, template: Data, params: Data) -> list[Data]:
    scope = _scope(stack, template, params)
    return [
        {
            "OutputKey": key,
            "OutputValue": as_text(engine._resolve_refs(output["Value"], *scope)),
            "Description": output.get("Description", ""),
        }
        for key, output in template.get("Outputs", {}).items()
        if scope[2].get(output.get("Condition"), True)
    ]


async def delete(
    name: str, stack_id: str, retained: frozenset[str] = frozenset(), **_: Any
) -> None:
    """Delete a stack, as ministack's function of this signature does; only its ID remains."""
    stack = cloudformation._stacks[name]
    _end(stack, "DELETE_IN_PROGRESS", "User Initiated")
    task = stack.pop("_task", None)
    if task and not task.done():
        task.cancel()
        await asyncio.wait([task])
    doomed = dict(stack["_resources"])
    for logical_id in doomed.keys() & retained:
        _say(stack, logical_id, doomed.pop(logical_id)["ResourceType"], "DELETE_SKIPPED")
    stuck = await _remove(stack, doomed, stack["_template"])
    if stuck:
        reason = f"The following resource(s) failed to delete: {_listed(stuck)}. "
        _end(stack, "DELETE_FAILED", reason)
        return
    stack["DeletionTime"] = now_iso()
    _end(stack, "DELETE_COMPLETE")
    cloudformation._stacks[stack_id] = cloudformation._stacks.pop(name)
