"""The decision table of `deploy`: what was given and the stack as it is become a plan.

No AWS, no terminal, no environment: `resolve` is a pure function.
"""

from __future__ import annotations

from typing import Any

import pytest

from batchreg.errors import BatchregError
from batchreg.registry.logins import DOCKER, ENV, PROMPT
from batchreg.registry_login import HUB
from batchreg.render.settings import Settings
from batchreg.render.text import Deployed
from batchreg.stack.plan import DEFAULT_VPC, Inputs, Missing, Plan, RegistryInput, resolve
from batchreg.stack.states import LOSES_PARAMETERS, Stack

ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:own-AbCdEf"
NETWORK = {"SubnetIDs": "subnet-1", "SecurityGroupIDs": "sg-1"}
LOGIN = {"Username": "lab", "Password": "secret"}
ONE = {"RegistryUrl": HUB, "Username": "****", "Password": "****", **NETWORK}
A, B = "a.example.com", "b.example.com"
TWO = {
    "RegistryUrl": A,
    "Username": "****",
    "Password": "****",
    "RegistryUrl2": B,
    "Username2": "****",
    "Password2": "****",
    **NETWORK,
}


def stack(parameters: dict[str, str], status: str = "UPDATE_COMPLETE") -> Stack:
    return Stack("lab", "id", status, "", parameters, {}, {}, None, False)


def planned(
    inputs: dict[str, Any],
    parameters: dict[str, str] | None = None,
    status: str = "UPDATE_COMPLETE",
    **settings: Any,
) -> Plan:
    """Return the plan for a stack with these parameters and settings; None: there is no stack."""
    present = None if parameters is None else stack(parameters, status)
    deployed = Deployed("0.1.0", Settings(**settings), "") if present else None
    return resolve(Inputs(stack_name="lab", **inputs), present, "BODY", deployed)


def given(**parameters: str) -> dict[str, Any]:
    return {"parameters": parameters}


def listed(*registries: RegistryInput, **more: Any) -> dict[str, Any]:
    return {"registries": registries, **more}


def asked(*names: str) -> list[tuple[str, str]]:
    return [(name, PROMPT) for name in names]


# What was given; the present parameters, None for no stack, and settings; the values to set; what
# is missing, and where it comes from.
TABLE = {
    "nothing for a new stack": (
        {},
        None,
        {},
        {},
        asked("Username", "Password", "SubnetIDs", "SecurityGroupIDs"),
    ),
    "all for a new stack": (given(**LOGIN, **NETWORK), None, {}, {**LOGIN, **NETWORK}, []),
    "the default VPC for a new stack": (
        {**given(**LOGIN), "default_vpc": True},
        None,
        {},
        LOGIN,
        [("SubnetIDs", DEFAULT_VPC), ("SecurityGroupIDs", DEFAULT_VPC)],
    ),
    "the default VPC overrides batchreg.yaml": (
        {**given(**LOGIN, **NETWORK), "default_vpc": True},
        None,
        {},
        LOGIN,
        [("SubnetIDs", DEFAULT_VPC), ("SecurityGroupIDs", DEFAULT_VPC)],
    ),
    "the command line overrides the default VPC": (
        {
            **given(**LOGIN, **NETWORK),
            "default_vpc": True,
            "on_command_line": frozenset({"subnet_id"}),
        },
        None,
        {},
        {**LOGIN, "SubnetIDs": "subnet-1"},
        [("SecurityGroupIDs", DEFAULT_VPC)],
    ),
    "nothing for a stack that is there": ({}, ONE, {}, {}, []),
    "one value for a stack that is there": (given(MaxvCpus="7"), ONE, {}, {"MaxvCpus": "7"}, []),
    "a new password": (given(Password="new"), ONE, {}, {"Password": "new"}, []),
    "the registry that is left has a number of its own": (
        given(Username="eve"),
        {key: value for key, value in TWO.items() if key in NETWORK or key.endswith("2")},
        {"slots": (2,)},
        {"Username2": "eve"},
        [],
    ),
    "one of two registries, named": (
        given(RegistryUrl=f"https://{B}/", Password="new"),
        TWO,
        {"slots": (1, 2)},
        {"Password2": "new"},
        [],
    ),
    "a stack that must be created again": (
        given(Username="lab"),
        ("ROLLBACK_COMPLETE", ONE),
        {},
        {"Username": "lab"},
        asked("Password", "SubnetIDs", "SecurityGroupIDs"),
    ),
    "secrets of the user's own": (
        {**given(**NETWORK), "settings": {"secret_arns": (ARN,)}},
        None,
        {},
        NETWORK,
        [],
    ),
    "credentials from batchreg.yaml for a stack with secrets of the user's own": (
        given(**LOGIN),
        NETWORK,
        {"secret_arns": (ARN,)},
        {},
        [],
    ),
    "back to a secret of the stack's": (
        {"settings": {"secret_arns": ()}},
        NETWORK,
        {"secret_arns": (ARN,)},
        {},
        asked("Username", "Password"),
    ),
    "two registries for a new stack, one password known": (
        listed(
            RegistryInput(A, "ann", f"{ENV}A", "secret"),
            RegistryInput(B, "ben"),
            parameters=NETWORK,
        ),
        None,
        {},
        {
            "RegistryUrl": A,
            "Username": "ann",
            "Password": "secret",
            "RegistryUrl2": B,
            "Username2": "ben",
            **NETWORK,
        },
        asked("Password2"),
    ),
    "registries that the stack has": (
        listed(RegistryInput(B), RegistryInput(A)),
        TWO,
        {"slots": (1, 2)},
        {},
        [],
    ),
    "a registry that the stack has, with a new password": (
        listed(RegistryInput(A), RegistryInput(B, "", f"{ENV}B", "new")),
        TWO,
        {"slots": (1, 2)},
        {"Password2": "new"},
        [],
    ),
    "a variable that is not set keeps what the stack has": (
        listed(RegistryInput(A, "ann", f"{ENV}A"), RegistryInput(B)),
        TWO,
        {"slots": (1, 2)},
        {"Username": "ann"},
        [],
    ),
    "a registry more": (
        listed(RegistryInput(A), RegistryInput(B), RegistryInput("ghcr.io", "gil")),
        TWO,
        {"slots": (1, 2)},
        {"RegistryUrl3": "ghcr.io", "Username3": "gil"},
        asked("Password3"),
    ),
    "a new registry whose credentials Docker has": (
        listed(RegistryInput(A), RegistryInput("ghcr.io", "", DOCKER)),
        TWO,
        {"slots": (1, 2)},
        {"RegistryUrl3": "ghcr.io"},
        [("Username3", DOCKER), ("Password3", DOCKER)],
    ),
    "Docker's store does not override what the stack has": (
        listed(RegistryInput(A, "", DOCKER)),
        TWO,
        {"slots": (1, 2)},
        {},
        [],
    ),
    "unless the command line says so": (
        listed(RegistryInput(A, "ann", DOCKER), on_command_line=frozenset({"from_docker_config"})),
        TWO,
        {"slots": (1, 2)},
        {"Username": "ann"},
        [("Password", DOCKER)],
    ),
}


@pytest.mark.parametrize(
    ("inputs", "present", "settings", "values", "missing"), TABLE.values(), ids=TABLE
)
def test_plan_sets_what_was_given_and_asks_for_the_rest(inputs, present, settings, values, missing):
    """The whole decision, without AWS."""
    status, parameters = present if isinstance(present, tuple) else ("UPDATE_COMPLETE", present)
    plan = planned(inputs, parameters, status, **settings)
    assert plan.parameters == values
    assert [(each.parameter, each.source) for each in plan.missing] == missing


@pytest.mark.parametrize(
    ("inputs", "present", "settings", "message"),
    [
        (
            {**given(**LOGIN), "on_command_line": frozenset({"username", "password"})},
            NETWORK,
            {"secret_arns": (ARN,)},
            r"--username, --password-stdin cannot be used with --secret-arn\.",
        ),
        (given(Username="eve"), TWO, {"slots": (1, 2)}, "The stack has several registries"),
        (
            given(RegistryUrl="ghcr.io", Username="eve"),
            TWO,
            {"slots": (1, 2)},
            f"Name one of {A}, {B}",
        ),
        (
            listed(RegistryInput(A, "ann", f"{ENV}TOKEN")),
            None,
            {},
            f"{A}: the variable TOKEN is not set. Set it to the password.",
        ),
    ],
)
def test_contradictions_are_refused(inputs, present, settings, message):
    """Before anything is asked or changed."""
    with pytest.raises(BatchregError, match=message):
        planned(inputs, present, **settings)


def test_registries_keep_their_numbers_and_those_left_out_are_removed():
    """The list is complete; a registry's secret must not be recreated under another number."""
    plan = planned(listed(RegistryInput("ghcr.io", "gil"), RegistryInput(B)), TWO, slots=(1, 2))
    assert plan.settings.slots == (2, 3)
    assert not {"Username", "RegistryUrl"} & plan.declared.keys()


def test_missing_credentials_name_their_registry():
    """The question on the terminal does too."""
    plan = planned(listed(RegistryInput(A, "ann"), parameters=NETWORK))
    assert plan.missing == (Missing("Password", PROMPT, RegistryInput(A, "ann")),)


@pytest.mark.parametrize("status", LOSES_PARAMETERS)
def test_stack_that_is_created_again_keeps_no_value(status):
    """Its parameters go with it."""
    assert planned({}, ONE, status).kept == frozenset()
    assert planned({}, ONE).kept == ONE.keys()


def test_settings_stay_as_deployed_unless_given():
    """A colleague without the file must not remove the user data."""
    plan = planned({"settings": {"fargate": True}}, ONE, image_type="ECS_AL2023_NVIDIA")
    assert plan.settings == Settings(image_type="ECS_AL2023_NVIDIA", fargate=True)


def test_plan_is_complete_with_the_answers():
    """What was asked for is set, and nothing is missing any more."""
    plan = planned(given(**NETWORK)).complete(LOGIN)
    assert (plan.parameters, plan.missing) == ({**NETWORK, **LOGIN}, ())


def test_no_secret_value_can_be_read_back():
    """`masked` are the parameters whose present value CloudFormation shows as ****."""
    assert planned({}, TWO, slots=(1, 2)).masked == {
        "Username",
        "Password",
        "Username2",
        "Password2",
    }


@pytest.mark.parametrize(
    ("values", "present", "text"),
    [
        (
            {"RootVolumeThroughput": "1000"},
            {},
            "A root volume with 1000 MiB/s needs at least 4000 IOPS, and would have 3000. Give "
            "--root-volume-iops 4000, or --root-volume-throughput 750 or less.",
        ),
        (
            {"RootVolumeIops": "4000"},
            {"RootVolumeThroughput": "2000"},
            "A root volume with 2000 MiB/s needs at least 8000 IOPS, and would have 4000. Give "
            "--root-volume-iops 8000, or --root-volume-throughput 1000 or less.",
        ),
        (
            {"RootVolumeGiB": "30"},
            {"RootVolumeIops": "16000", "RootVolumeThroughput": "1000"},
            "A root volume of 30 GiB can have at most 15000 IOPS, and would have 16000. Give "
            "--root-volume-iops 15000 or less, or --root-volume-gib 32.",
        ),
    ],
)
def test_volume_that_gp3_refuses_is_refused_first(values, present, text):
    """By what is given, else deployed, else the default: CloudFormation would accept it."""
    with pytest.raises(BatchregError) as refusal:
        planned(given(**values), {**ONE, **present})
    assert str(refusal.value) == text


def test_volume_that_gp3_accepts_is_planned():
    """At both limits; and one that is deployed already stops no other change."""
    limits = {"RootVolumeGiB": "32", "RootVolumeIops": "16000", "RootVolumeThroughput": "2000"}
    assert planned(given(**limits), ONE).parameters == limits
    planned(given(MaxvCpus="5"), {**ONE, "RootVolumeThroughput": "2000"})
