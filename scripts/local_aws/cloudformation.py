"""CloudFormation as AWS has it, where ministack (1.5.33) behaves otherwise: its requests.

What a stack operation then does is in `operations`, and the resource types are in `resources`. Only
the embedded AWS's own process imports this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ministack.services import cloudformation
from ministack.services.cloudformation import (
    changesets,
    engine,
    handlers,
    helpers,
    provisioners,
    stacks,
)

from local_aws import operations
from local_aws.properties import as_text
from local_aws.resources import CREATE_ONLY, TYPES, reshapes

Data = dict[str, Any]

ENVIRONMENT = "AWS::Batch::ComputeEnvironment"


def install(pace: float) -> None:
    """Change ministack's CloudFormation, before the server starts."""
    operations.PACE = pace
    for kind, (create, update, delete) in TYPES.items():
        provisioners._RESOURCE_HANDLERS[kind] = {
            "create": create,
            "update": update,
            "update_with_logical_id": True,
            "delete": delete,
        }
    provisioners._REPLACING_PROPERTIES.update(CREATE_ONLY)
    # These modules imported each other's functions by name, so each has a reference of its own.
    for module in (cloudformation, engine, handlers, changesets, stacks):
        for name in REPLACED.keys() & vars(module).keys():
            setattr(module, name, REPLACED[name])
    for action, function in ACTIONS.items():
        handlers._ACTION_HANDLERS[action] = _refusing(function)


class Refused(Exception):
    """A CloudFormation request that AWS answers with an error."""

    def __init__(self, message: str, code: str = "ValidationError") -> None:
        super().__init__(message)
        self.code = code


def _refusing(function: Callable[[Data], Any]) -> Callable[[Data], Any]:
    def answer(params: Data) -> Any:
        try:
            return function(params)
        except Refused as refusal:
            return helpers._error(refusal.code, str(refusal))

    return answer


# --- Parameters and templates ---

_ministack_parameters = engine._resolve_parameters
_ministack_effective = changesets._resolve_props_for_diff
_ministack_diff = stacks._diff_resources
_ministack_support = engine.validate_template_support


def resolve_parameters(template: Data, given: list[Data], previous: Data | None = None) -> Data:
    """Refuse unknown and missing parameters and other values than the allowed, in AWS's words."""
    declared = template.get("Parameters", {})
    values = {
        entry["Key"]: None if entry.get("UsePreviousValue") else entry.get("Value")
        for entry in given
    }
    if unknown := [key for key in values if key not in declared]:
        raise ValueError(f"Parameters: {_listed(unknown)} do not exist in the template")
    if missing := [k for k in declared if k not in values and "Default" not in declared[k]]:
        raise ValueError(f"Parameters: {_listed(missing)} must have values")
    for key, definition in declared.items():
        allowed = definition.get("AllowedValues")
        if allowed and values.get(key) not in (None, *map(as_text, allowed)):
            raise constraint_error(key, definition, "must be one of AllowedValues")
    resolved: Data = _ministack_parameters(template, given, previous)
    return resolved


def constraint_error(name: str, definition: Data, reason: str) -> ValueError:
    if words := definition.get("ConstraintDescription"):
        return ValueError(f"Parameter {name} failed to satisfy constraint: {words}")
    return ValueError(f"Parameter '{name}' {reason}")


def _listed(names: list[str]) -> str:
    return f"[{', '.join(names)}]"


def validate_template_support(template: Data, *rest: Any, **more: Any) -> None:
    """Refuse references to what the template does not declare, besides what ministack refuses."""
    _ministack_support(template, *rest, **more)
    declared = {*template.get("Resources", {}), *template.get("Parameters", {})}
    for block in ("Resources", "Outputs"):
        used = {name for name, _ in engine._intrinsic_references(template.get(block))}
        if missing := sorted(name for name in used - declared if not name.startswith("AWS::")):
            raise ValueError(
                f"Template format error: Unresolved resource dependencies {_listed(missing)} in "
                f"the {block} block of the template"
            )


# --- Change sets ---


def effective(template: Data, params: Data, *stack: str) -> Data:
    """Leave out of a change set what the template's conditions leave out."""
    resolved: Data = _ministack_effective(template, params, *stack)
    if not template:
        return resolved
    conditions = engine._evaluate_conditions(template, params)
    kept = engine._topological_sort(template.get("Resources", {}), conditions)
    return {"Resources": {name: resolved["Resources"][name] for name in kept}}


def diff(old: Data, new: Data, *rest: Any) -> list[Data]:
    """List the changes; a compute environment that only scales otherwise is never replaced."""
    conditional = provisioners._CONDITIONALLY_REPLACING_PROPERTIES
    conditional[ENVIRONMENT] = ("ComputeResources",)
    changes: list[Data] = _ministack_diff(old, new, *rest)

    def scales(change: Data) -> bool:
        name, details = change["LogicalResourceId"], change.get("Details", [])
        before, after = (one["Resources"][name]["Properties"] for one in (old, new))
        refers = any("Resource" in each.get("ChangeSource", "") for each in details)
        return not refers and not reshapes(before, after)

    found = [change["ResourceChange"] for change in changes]
    environments = [
        one for one in found if one["ResourceType"] == ENVIRONMENT and one["Action"] == "Modify"
    ]
    if environments and all(map(scales, environments)):
        conditional[ENVIRONMENT] = ()
        changes = _ministack_diff(old, new, *rest)
    return changes


def create_change_set(params: Data) -> Any:
    name, stack = helpers._p(params, "ChangeSetName"), _live(params)
    if helpers._p(params, "ChangeSetType") != "CREATE":
        _check_updatable(stack)
    elif stack and stack["StackStatus"] != "REVIEW_IN_PROGRESS":
        raise Refused(
            f"Stack [{stack['StackName']}] already exists and cannot be created again "
            f"with the changeSet [{name}]."
        )
    response = changesets._create_change_set(params)
    if response[0] < 400:
        _, change_set = changesets._find_change_set(name, helpers._p(params, "StackName"))
        _finish_change_set(change_set, stack)
    return response


def _finish_change_set(change_set: Data, stack: Data | None) -> None:
    """Mask the secrets, count changed outputs as changes, and take some time."""
    for parameter in change_set["Parameters"]:
        if change_set["_resolved_params"][parameter["ParameterKey"]]["NoEcho"]:
            parameter["ParameterValue"] = "****"
    ready = {"Status": "CREATE_COMPLETE", "ExecutionStatus": "AVAILABLE", "StatusReason": ""}
    if stack and change_set["Status"] == "FAILED":
        old, new = (one["_template"].get("Outputs", {}) for one in (stack, change_set))
        if old != new:
            change_set.update(ready)
    if operations.PACE:
        outcome = {key: change_set[key] for key in ready}
        change_set.update(ready, Status="CREATE_IN_PROGRESS", ExecutionStatus="UNAVAILABLE")
        asyncio.get_running_loop().call_later(operations.PACE, change_set.update, outcome)


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


# --- Stacks ---


def _live(params: Data) -> Data | None:
    stack: Data | None = handlers._resolve_stack(helpers._p(params, "StackName"))
    return None if stack and stack["StackStatus"] == "DELETE_COMPLETE" else stack


def create_stack(params: Data) -> Any:
    if stack := _live(params):
        raise Refused(f"Stack [{stack['StackName']}] already exists", "AlreadyExistsException")
    return handlers._create_stack(params)


def update_stack(params: Data) -> Any:
    _check_updatable(_live(params))
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


def delete_stack(params: Data) -> Any:
    stack = _live(params)
    status = stack["StackStatus"] if stack else ""
    if status == "DELETE_IN_PROGRESS":
        return helpers._xml(200, "DeleteStackResponse", "")
    if stack and status.startswith("UPDATE_") and status.endswith("_IN_PROGRESS"):
        raise Refused(f"Stack [{stack['StackId']}] cannot be deleted while in status {status}")
    return handlers._delete_stack(params)


REPLACED: dict[str, Callable[..., Any]] = {
    "_capabilities_enforced": lambda: True,
    "_constraint_error": constraint_error,
    "_resolve_parameters": resolve_parameters,
    "validate_template_support": validate_template_support,
    "_resolve_props_for_diff": effective,
    "_diff_resources": diff,
    "_deploy_stack_async": operations.deploy,
    "_delete_stack_async": operations.delete,
}

ACTIONS: dict[str, Callable[[Data], Any]] = {
    "CreateStack": create_stack,
    "UpdateStack": update_stack,
    "CreateChangeSet": create_change_set,
    "ExecuteChangeSet": execute_change_set,
    "DeleteStack": delete_stack,
}
