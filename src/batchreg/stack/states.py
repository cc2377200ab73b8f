"""A stack as CloudFormation has it, the states it can be in, and the calls that leave them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batchreg.errors import BatchregError

if TYPE_CHECKING:
    from batchreg.render.text import Deployed

# Our change sets and tokens begin with it, so that a later run recognizes what it may follow.
PREFIX = "batchreg-"
NOT_CREATED = ("REVIEW_IN_PROGRESS",)  # a change set was made for it, and never executed
# A create that failed leaves a stack that can only be deleted.
ONLY_DELETABLE = ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED")
TO_ROLL_BACK = ("UPDATE_FAILED", "UPDATE_ROLLBACK_FAILED")
# The next deploy creates the stack again, and its parameters have no present value to keep.
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
    """An operation of CloudFormation failed. `stuck` names the resources that failed."""

    def __init__(self, fact: str, step: str = "", stuck: Iterable[str] = ()) -> None:
        super().__init__(fact, step)
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
        """Return the outputs of a kind that exist, such as JobQueueArn and FargateJobQueueArn."""
        return [value for name, value in self.outputs.items() if name.endswith(kind)]


def may_be_ours(parameters: Iterable[str]) -> bool:
    """Tell by the names of its parameters whether a stack may be of batchreg's making.

    Its template tells for certain, but costs a call. Every template has the one or the other: the
    instances refresh credentials, or ECR has them. Companion stacks are included.
    """
    return not {"CredentialRefreshMinutes", "CachePrefix"}.isdisjoint(parameters)


def find(client: Client, name: str) -> Stack | None:
    """Return the stack of this name or id, or None if it does not exist."""
    from botocore.exceptions import ClientError

    try:
        found = client.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        # The message is all there is: many other errors have the code ValidationError too.
        if "does not exist" in error.response.get("Error", {}).get("Message", ""):
            return None
        raise
    return None if found["StackStatus"] == "DELETE_COMPLETE" else read(found)


def read(found: Mapping[str, Any]) -> Stack:
    """Return a stack of DescribeStacks."""
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


def placed(stack_id: str) -> str:
    """Return "genomics in us-east-1, account 111122223333", which shows a wrong profile."""
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
    """Start what an update needs first, in a state of ONLY_DELETABLE or TO_ROLL_BACK.

    Returns the token that the events carry.
    """
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
    """Return the text of the deployed template, empty if there is none yet."""
    import json

    from botocore.exceptions import ClientError

    try:
        body = client.get_template(StackName=stack.id, TemplateStage="Original")["TemplateBody"]
    except ClientError:
        if stack.status in NOT_CREATED:
            return ""
        raise
    return body if isinstance(body, str) else json.dumps(body)


def deployed(client: Client, stack: Stack) -> Deployed | None:
    """Return what the deployed template says, None if batchreg did not render it."""
    from batchreg.render.text import read_template

    return read_template(template_of(client, stack))
