"""CloudFormation as AWS has it, where ministack (1.4.21) behaves otherwise.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import html
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from ministack.core.responses import new_uuid, now_iso
from ministack.services import cloudformation
from ministack.services.cloudformation import (
    changesets,
    engine,
    handlers,
    helpers,
    provisioners,
    stacks,
)

from local_aws.resources import TYPES, as_text, replacement_of

Data = dict[str, Any]

PACE = 0.0  # seconds that each resource of a stack takes; `install` sets it


def install(pace: float) -> None:
    """Mend ministack's CloudFormation, before the server starts."""
    global PACE
    PACE = pace
    for kind, (create, update, delete) in TYPES.items():
        provisioners._RESOURCE_HANDLERS[kind] = {
            "create": create,
            "update": update,
            "update_with_logical_id": True,
            "delete": delete,
        }
    # These modules imported each other's functions by name, so each has a reference of its own.
    for module in (cloudformation, engine, handlers, changesets, stacks):
        for name in REPLACED.keys() & vars(module).keys():
            setattr(module, name, REPLACED[name])
    handlers._ACTION_HANDLERS.update(ACTIONS)
    for action, answer in handlers._ACTION_HANDLERS.items():
        handlers._ACTION_HANDLERS[action] = functools.partial(_answer, action, answer)


# --- Parameters, intrinsics and templates ---

_ministack_parameters = engine._resolve_parameters
_ministack_resolve = engine._resolve_refs
_ministack_diff = stacks._diff_resources
_ministack_add_event = stacks._add_event
# What a request starts runs in a task with a copy of the request's context.
_token = contextvars.ContextVar("ClientRequestToken", default="")
_LITERAL = "$\0{"  # stands for `${!` while ministack substitutes; no template contains it


class Refused(Exception):
    """A CloudFormation request that AWS answers with an error."""

    def __init__(self, message: str, code: str = "ValidationError") -> None:
        super().__init__(message)
        self.code = code


def resolve_parameters(template: Data, given: list[Data], previous: Data | None = None) -> Data:
    """Check the parameters as AWS does, and remember which of them are lists."""
    declared = template.get("Parameters", {})
    keys = [entry["Key"] for entry in given]
    if unknown := [key for key in keys if key not in declared]:
        raise ValueError(f"Parameters: {_listed(unknown)} do not exist in the template")
    if missing := [key for key in declared if key not in keys and "Default" not in declared[key]]:
        raise ValueError(f"Parameters: {_listed(missing)} must have values")
    bare = {
        key: {k: v for k, v in definition.items() if k != "AllowedValues"}
        for key, definition in declared.items()
    }
    resolved: Data = _ministack_parameters({**template, "Parameters": bare}, given, previous)
    for key, definition in declared.items():
        value, kind = resolved[key]["Value"], definition["Type"]
        is_list = resolved[key]["List"] = kind == "CommaDelimitedList" or kind.startswith("List<")
        for part in _split(value) if is_list else [value]:
            _check_parameter(key, definition, part)
    return resolved


def _check_parameter(key: str, definition: Data, value: str) -> None:
    number = float(value) if definition["Type"] == "Number" else 0.0
    checks: dict[str, tuple[Callable[[Any], Any], str]] = {
        "AllowedValues": (lambda them: value in map(as_text, them), "must be one of AllowedValues"),
        "AllowedPattern": (lambda it: re.fullmatch(it, value), "must match pattern {}"),
        "MinLength": (lambda it: len(value) >= int(it), "must contain at least {} characters"),
        "MaxLength": (lambda it: len(value) <= int(it), "must contain at most {} characters"),
        "MinValue": (lambda it: number >= float(it), "must be a number not less than {}"),
        "MaxValue": (lambda it: number <= float(it), "must be a number not greater than {}"),
    }
    for rule in definition.keys() & checks.keys():
        holds, message = checks[rule]
        if not holds(definition[rule]):
            if words := definition.get("ConstraintDescription"):
                raise ValueError(f"Parameter {key} failed to satisfy constraint: {words}")
            raise ValueError(f"Parameter '{key}' {message.format(definition[rule])}")
    if len(value.encode()) > 4096:
        raise ValueError(f"Parameter '{key}' must contain at most 4096 bytes")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _listed(names: list[str]) -> str:
    return f"[{', '.join(names)}]"


def resolve(value: Any, resources: Data, params: Data, *rest: Any) -> Any:
    """Resolve intrinsics, where ministack loses lists, literals and misspelt attributes."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, args),) = value.items()
        if name == "Ref" and params.get(args, {}).get("List"):
            return _split(params[args]["Value"])
        if name == "Fn::Sub":
            text, *variables = args if isinstance(args, list) else [args]
            value = {"Fn::Sub": [text.replace("${!", _LITERAL), *variables]}
            return _ministack_resolve(value, resources, params, *rest).replace(_LITERAL, "${")
        if name == "Fn::GetAtt":
            logical_id, attribute = args if isinstance(args, list) else args.split(".", 1)
            if attribute not in resources.get(logical_id, {}).get("Attributes", [attribute]):
                raise ValueError(
                    f"Template error: resource {logical_id} does not support "
                    f"attribute type {attribute} in Fn::GetAtt"
                )
    return _ministack_resolve(value, resources, params, *rest)


def evaluate_conditions(template: Data, params: Data) -> dict[str, bool]:
    """Evaluate the conditions; ministack's own take only Ref and Equals as operands."""
    defined = template.get("Conditions", {})
    known: dict[str, bool] = {}

    def holds(expression: Data) -> bool:
        ((name, args),) = expression.items()
        if name == "Condition":
            if args not in known:
                known[args] = holds(defined[args])
            return known[args]
        if name == "Fn::Equals":
            mappings = template.get("Mappings", {})
            left, right = (resolve(arg, {}, params, known, mappings, "", "") for arg in args)
            return as_text(left) == as_text(right)
        results = [holds(arg) for arg in args]
        return {"Fn::And": all(results), "Fn::Or": any(results), "Fn::Not": not results[0]}[name]

    return {name: holds({"Condition": name}) for name in defined}


def _references(node: Any) -> Iterator[tuple[str, bool]]:
    """Find what Ref, GetAtt and Sub refer to, and whether to an attribute of it."""
    if isinstance(node, list):
        for item in node:
            yield from _references(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref":
                yield value, False
            elif key == "Fn::GetAtt":
                yield value[0] if isinstance(value, list) else value.split(".")[0], True
            elif key == "Fn::Sub":
                text, variables = value if isinstance(value, list) else (value, {})
                for name in re.findall(r"\$\{([^!}][^}]*)\}", text):
                    if name not in variables:
                        yield name.split(".")[0], "." in name
                yield from _references(variables)
            else:
                yield from _references(value)


def _check_template(params: Data, stack: Data | None) -> None:
    """Refuse a template that AWS refuses, or that needs a capability which is not given."""
    body = helpers._p(params, "TemplateBody")
    if len(body.encode()) > 51_200:
        raise Refused(
            f"1 validation error detected: Value '{body[:40]}...' at 'templateBody' failed to "
            "satisfy constraint: Member must have length less than or equal to 51200"
        )
    try:
        template = engine._parse_template(body or (stack or {}).get("_template_body") or "{}")
    except Exception:
        return  # ministack's own answer to this is AWS's
    resources = template.get("Resources", {})
    if body and not resources:
        raise Refused("Template format error: At least one Resources member must be defined.")
    kinds = {resource["Type"] for resource in resources.values()}
    if unknown := sorted(
        kind
        for kind in kinds - provisioners._RESOURCE_HANDLERS.keys()
        if not kind.startswith(("Custom::", "AWS::CloudFormation::"))
    ):
        raise Refused(f"Template format error: Unrecognized resource types: {_listed(unknown)}")
    declared = {*resources, *template.get("Parameters", {})}
    for block in ("Resources", "Outputs"):
        used = {name for name, _ in _references(template.get(block)) if name[:5] != "AWS::"}
        if used - declared:
            missing = _listed(sorted(used - declared))
            raise Refused(
                f"Template format error: Unresolved resource dependencies {missing} in "
                f"the {block} block of the template"
            )
    try:
        engine._topological_sort(resources, {})
    except ValueError as error:
        raise Refused(str(error)) from None
    names = {"RoleName", "InstanceProfileName", "ManagedPolicyName", "UserName", "GroupName"}
    iams = [r for r in resources.values() if r["Type"].startswith("AWS::IAM::")]
    named = any(names & resource.get("Properties", {}).keys() for resource in iams)
    enough = ["CAPABILITY_NAMED_IAM"] if named else ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM"]
    given = [helpers._p(params, f"Capabilities.member.{n}") for n in range(1, 5)]
    if iams and not set(enough) & set(given):
        raise Refused(f"Requires capabilities : [{enough[0]}]", "InsufficientCapabilitiesException")


# --- What a stack operation does ---


def add_event(stack_id: str, *event: Any, **more: Any) -> None:
    """Keep the newest event first: a sort by time leaves those of one millisecond as they are."""
    _ministack_add_event(stack_id, *event, **more)
    events = cloudformation._stack_events[stack_id]
    events[-1]["_token"] = _token.get()
    events.insert(0, events.pop())


def _say(
    stack: Data, logical_id: str, kind: str, status: str, reason: str = "", physical_id: str = ""
) -> None:
    add_event(stack["StackId"], stack["StackName"], logical_id, kind, status, reason, physical_id)


def _settle(stack: Data, status: str, reason: str = "") -> None:
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


async def _apply(stack: Data, template: Data, params: Data) -> tuple[list[str], Data]:
    """Bring the resources to what the template says; return what failed and what was replaced."""
    conditions = evaluate_conditions(template, params)
    definitions, resources = template["Resources"], stack["_resources"]
    stack_name = stack["StackName"]
    scope = (
        resources,
        params,
        conditions,
        template.get("Mappings", {}),
        stack_name,
        stack["StackId"],
    )
    failed: list[str] = []
    replaced: Data = {}

    async def step(name: str) -> None:
        kind, before = definitions[name]["Type"], resources.get(name)
        old_id = before["PhysicalResourceId"] if before else ""
        verb, noun = ("UPDATE", "update") if before else ("CREATE", "creation")
        say = functools.partial(_say, stack, name, kind)
        try:
            properties = resolve(copy.deepcopy(definitions[name].get("Properties", {})), *scope)
            if before and before["Properties"] == properties:
                return
            say(f"{verb}_IN_PROGRESS", physical_id=old_id)
            await asyncio.sleep(PACE / 2)
            if before:
                new_id, attributes = provisioners._update_resource(
                    kind,
                    old_id,
                    before["Properties"],
                    properties,
                    stack_name,
                    name,
                    before["Attributes"],
                )
            else:
                new_id, attributes = provisioners._provision_resource(
                    kind, name, properties, stack_name
                )
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
            resources[name] = {
                "PhysicalResourceId": new_id,
                "ResourceType": kind,
                "LogicalResourceId": name,
                "ResourceStatus": f"{verb}_COMPLETE",
                "Timestamp": now_iso(),
                "Properties": properties,
                "Attributes": attributes,
            }
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

    names = engine._topological_sort(definitions, conditions)
    await _in_order(_needs(template, set(names)), step)
    return failed, replaced


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
            provisioners._delete_resource(kind, physical_id, record["Properties"])
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
) -> None:
    """Create or update a stack; ministack's rollback would delete what an update has touched."""
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
            _settle(stack, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
            conditions = evaluate_conditions(template, params)
            kept = engine._topological_sort(template["Resources"], conditions)
            removed = {key: record for key, record in old.items() if key not in kept}
            await _remove(stack, {**replaced, **removed}, previous_stack["_template"])
        _settle(stack, f"{verb}_COMPLETE")
    elif disable_rollback:
        _settle(stack, f"{verb}_FAILED", reason)
    elif previous_stack:
        _settle(stack, "UPDATE_ROLLBACK_IN_PROGRESS", reason)
        await _go_back(stack, template, previous_stack, old, replaced)
    else:
        _settle(stack, "ROLLBACK_IN_PROGRESS", reason + "Rollback requested by user.")
        stuck = await _remove(stack, dict(stack["_resources"]), template)
        _settle(stack, "ROLLBACK_FAILED" if stuck else "ROLLBACK_COMPLETE")


async def _go_back(stack: Data, template: Data, previous: Data, old: Data, replaced: Data) -> None:
    """Apply the previous template again, and remove what only the new one had made."""
    made = {
        key: record
        for key, record in stack["_resources"].items()
        if key in replaced or key not in old
    }
    stack["_resources"].update(replaced)
    params = previous["_resolved_params"]
    failed, _ = await _apply(stack, previous["_template"], params)
    _settle(stack, "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
    await _remove(stack, made, template)
    stack["_template_body"] = previous["_template_body"]
    stack["Parameters"] = [
        {"ParameterKey": key, "ParameterValue": value["Value"], "NoEcho": value["NoEcho"]}
        for key, value in params.items()
    ]
    _settle(stack, "UPDATE_ROLLBACK_FAILED" if failed else "UPDATE_ROLLBACK_COMPLETE")


def _outputs(stack: Data, template: Data, params: Data) -> list[Data]:
    conditions = evaluate_conditions(template, params)
    scope = (
        stack["_resources"],
        params,
        conditions,
        template.get("Mappings", {}),
        stack["StackName"],
        stack["StackId"],
    )
    return [
        {
            "OutputKey": key,
            "OutputValue": as_text(resolve(output["Value"], *scope)),
            "Description": output.get("Description", ""),
        }
        for key, output in template.get("Outputs", {}).items()
        if conditions.get(output.get("Condition"), True)
    ]


async def delete(name: str, stack_id: str) -> None:
    """Delete a stack; ministack would report success even when a resource does not go."""
    stack = cloudformation._stacks[name]
    _settle(stack, "DELETE_IN_PROGRESS", "User Initiated")
    task = stack.pop("_task", None)
    if task and not task.done():
        task.cancel()
        await asyncio.wait([task])
    doomed = dict(stack["_resources"])
    for logical_id in doomed.keys() & stack.pop("_retained", []):
        _say(stack, logical_id, doomed.pop(logical_id)["ResourceType"], "DELETE_SKIPPED")
    stuck = await _remove(stack, doomed, stack["_template"])
    if stuck:
        reason = f"The following resource(s) failed to delete: {_listed(stuck)}. "
        _settle(stack, "DELETE_FAILED", reason)
    else:
        stack["DeletionTime"] = now_iso()
        _settle(stack, "DELETE_COMPLETE")


# --- The requests ---


def effective(template: Data, params: Data, stack_name: str, stack_id: str) -> Data:
    """Resolve what is known before the deployment, and leave out what conditions leave out."""
    conditions = evaluate_conditions(template, params)
    resources, mappings = template.get("Resources", {}), template.get("Mappings", {})
    return {
        "Resources": {
            name: {
                **resources[name],
                "_references": list(_references(resources[name])),
                "Properties": resolve(
                    copy.deepcopy(resources[name].get("Properties", {})),
                    {},
                    params,
                    conditions,
                    mappings,
                    stack_name,
                    stack_id,
                ),
            }
            for name in engine._topological_sort(resources, conditions)
        }
    }


def diff(old_template: Data, new_template: Data) -> list[Data]:
    """List the changes, with replacements and with what changes because another resource does."""
    changes = {
        change["ResourceChange"]["LogicalResourceId"]: change
        for change in _ministack_diff(old_template, new_template)
    }
    old, replacement = old_template.get("Resources", {}), {}
    for name, new in new_template["Resources"].items():  # each after those it refers to
        if name not in old:
            continue
        if name in changes:
            replacement[name] = replacement_of(
                new["Type"], old[name]["Properties"], new["Properties"]
            )
        elif any(
            replacement.get(other) in ("True", "Conditional")
            or (other in replacement and attribute)
            for other, attribute in new["_references"]
        ):
            replacement[name] = "Conditional"
            changes[name] = {
                "ResourceChange": {
                    "Action": "Modify",
                    "LogicalResourceId": name,
                    "ResourceType": new["Type"],
                }
            }
    for name, value in replacement.items():
        changes[name]["ResourceChange"]["Replacement"] = value
    return [changes[name] for name in sorted(changes)]


REPLACED: dict[str, Callable[..., Any]] = {
    "_resolve_parameters": resolve_parameters,
    "_resolve_refs": resolve,
    "_evaluate_conditions": evaluate_conditions,
    "_resolve_props_for_diff": effective,
    "_diff_resources": diff,
    "_add_event": add_event,
    "_deploy_stack_async": deploy,
    "_delete_stack_async": delete,
}


def _answer(action: str, function: Callable[[Data], Any], params: Data) -> Any:
    """Let every request name its stack by the ID as well, and none a deleted one by its name."""
    name, known = helpers._p(params, "StackName"), cloudformation._stacks
    for stack in known.values():
        if stack["StackId"] == name and stack["StackStatus"] != "DELETE_COMPLETE":
            params["StackName"] = [stack["StackName"]]
    if (
        name in known
        and not _live(params)
        and not name.startswith("arn:")
        and action not in ("CreateStack", "CreateChangeSet", "DeleteStack", "DescribeStacks")
    ):
        return helpers._error("ValidationError", f"Stack [{name}] does not exist")
    _token.set(helpers._p(params, "ClientRequestToken"))
    try:
        return function(params)
    except Refused as refusal:
        return helpers._error(refusal.code, str(refusal))


def _live(params: Data) -> Data | None:
    stack: Data | None = cloudformation._stacks.get(helpers._p(params, "StackName"))
    return None if stack and stack["StackStatus"] == "DELETE_COMPLETE" else stack


def _begun(function: Callable[[Data], Any], params: Data) -> Any:
    """Keep a deleted stack under its ID once its name is used again, and nothing of a refusal."""
    name, known = helpers._p(params, "StackName"), cloudformation._stacks
    before = known.get(name)
    response = function(params)
    if response[0] >= 400:
        known.pop(name, None)
        if before:
            known[name] = before
    elif before and known[name] is not before:
        known[before["StackId"]] = before
    return response


def create_stack(params: Data) -> Any:
    if stack := _live(params):
        raise Refused(f"Stack [{stack['StackName']}] already exists", "AlreadyExistsException")
    _check_template(params, None)
    return _begun(handlers._create_stack, params)


def update_stack(params: Data) -> Any:
    _check_updatable(_live(params))
    _check_template(params, _live(params))
    return handlers._update_stack(params)


def _check_updatable(stack: Data | None) -> None:
    if stack and stack["StackStatus"] not in (
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
    ):
        raise Refused(
            f"Stack:{stack['StackId']} is in {stack['StackStatus']} state and can not be updated."
        )


def create_change_set(params: Data) -> Any:
    name, stack = helpers._p(params, "ChangeSetName"), _live(params)
    if helpers._p(params, "ChangeSetType") != "CREATE":
        _check_updatable(stack)
    elif stack and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
        raise Refused(
            f"Stack [{stack['StackName']}] already exists and cannot be created again "
            f"with the changeSet [{name}]."
        )
    _check_template(params, stack)
    response = _begun(changesets._create_change_set, params)
    if response[0] < 400:
        _, change_set = changesets._find_change_set(name, helpers._p(params, "StackName"))
        _finish_change_set(change_set, stack)
    return response


def _finish_change_set(change_set: Data, stack: Data | None) -> None:
    """Mask the secrets, count changed outputs and tags as changes, and take some time."""
    for parameter in change_set["Parameters"]:
        if change_set["_resolved_params"][parameter["ParameterKey"]]["NoEcho"]:
            parameter["ParameterValue"] = "****"
    ready = {"Status": "CREATE_COMPLETE", "ExecutionStatus": "AVAILABLE", "StatusReason": ""}
    if stack and change_set["Status"] == "FAILED":
        old, new = (one["_template"].get("Outputs", {}) for one in (stack, change_set))
        if old != new or change_set["Tags"] not in ([], stack["Tags"]):
            change_set.update(ready)
    if PACE:
        outcome = {key: change_set[key] for key in ready}
        change_set.update(ready, Status="CREATE_IN_PROGRESS", ExecutionStatus="UNAVAILABLE")
        asyncio.get_running_loop().call_later(PACE, change_set.update, outcome)


def execute_change_set(params: Data) -> Any:
    _, change_set = changesets._find_change_set(
        helpers._p(params, "ChangeSetName"), helpers._p(params, "StackName")
    )
    if change_set and change_set["ExecutionStatus"] != "AVAILABLE":
        raise Refused(
            f"ChangeSet [{change_set['ChangeSetId']}] cannot be executed in its current "
            f"status of [{change_set['Status']}]",
            "InvalidChangeSetStatus",
        )
    return changesets._execute_change_set(params)


def delete_change_set(params: Data) -> Any:
    answer = changesets._delete_change_set(params)
    # botocore cannot read the answer without the element that is missing from it.
    return (
        answer
        if answer[0] >= 400
        else helpers._xml(
            200, "DeleteChangeSetResponse", "<DeleteChangeSetResult></DeleteChangeSetResult>"
        )
    )


def delete_stack(params: Data) -> Any:
    stack = _live(params)
    if not stack or stack["StackStatus"] == "DELETE_IN_PROGRESS":
        return helpers._xml(200, "DeleteStackResponse", "")
    status = stack["StackStatus"]
    if stack.get("_protected"):
        raise Refused(
            f"Stack [{stack['StackName']}] cannot be deleted while TerminationProtection is enabled"
        )
    if status.startswith("UPDATE_") and status.endswith("_IN_PROGRESS"):
        raise Refused(f"Stack [{stack['StackId']}] cannot be deleted while in status {status}")
    retained = [v[0] for k, v in params.items() if k.startswith("RetainResources.member.")]
    if retained and status != "DELETE_FAILED":
        raise Refused(
            "Invalid operation on stack. Specify which resources to retain only when "
            "the stack is in the DELETE_FAILED state."
        )
    stack["_retained"] = retained
    return handlers._delete_stack(params)


def update_termination_protection(params: Data) -> Any:
    stack = _live(params)
    if not stack:
        raise Refused(f"Stack [{helpers._p(params, 'StackName')}] does not exist")
    stack["_protected"] = helpers._p(params, "EnableTerminationProtection") == "true"
    root, result = "UpdateTerminationProtection", f"<StackId>{stack['StackId']}</StackId>"
    return helpers._xml(200, f"{root}Response", f"<{root}Result>{result}</{root}Result>")


def describe_stacks(params: Data) -> Any:
    status, headers, body = handlers._describe_stacks(params)
    for stack in cloudformation._stacks.values():
        element = f"<StackId>{stack['StackId']}</StackId>"
        protected = as_text(stack.get("_protected", False))
        more = f"<EnableTerminationProtection>{protected}</EnableTerminationProtection>"
        body = body.replace(element.encode(), (element + more).encode())
    return status, headers, body


def describe_stack_events(params: Data) -> Any:
    status, headers, body = handlers._describe_stack_events(params)
    for events in cloudformation._stack_events.values():
        for event in events:
            if event["_token"]:
                element = f"<EventId>{event['EventId']}</EventId>"
                more = f"<ClientRequestToken>{html.escape(event['_token'])}</ClientRequestToken>"
                body = body.replace(element.encode(), (element + more).encode())
    return status, headers, body


ACTIONS: dict[str, Callable[[Data], Any]] = {
    "CreateStack": create_stack,
    "UpdateStack": update_stack,
    "CreateChangeSet": create_change_set,
    "ExecuteChangeSet": execute_change_set,
    "DeleteChangeSet": delete_change_set,
    "DeleteStack": delete_stack,
    "UpdateTerminationProtection": update_termination_protection,
    "DescribeStacks": describe_stacks,
    "DescribeStackEvents": describe_stack_events,
}
