"""The way of credentials from the template's parameters to what the ECS agent reads."""

from __future__ import annotations

import base64
import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lab import agent
from ministack.services.cloudformation import engine

from batchreg import registry_login
from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import to_json

BODY = json.loads(to_json(template.build(Settings())))
text = st.text(min_size=1, max_size=40)
awkward = st.text(
    min_size=1, alphabet=("\"'\\$`{}:!%^&*()#@,;|<>[]~ \t\r\n\0\x7f\u00e9\u4e2d\U0001f41f")
)
long = st.builds(
    lambda piece, size: (piece * size)[:size],
    st.sampled_from(["x", '"', "\\", "{{", "${A}"]),
    st.integers(1, 4096),
)


@pytest.mark.parametrize("name", ["Username", "Password"])
def test_dynamic_references_are_refused(name):
    """CloudFormation would put another value in their place."""
    assert allowed(name, "a{{b}}")
    assert not allowed(name, "a{{resolve:ssm:b}}")


def allowed(name: str, value: str) -> bool:
    """Say whether CloudFormation takes this value: its pattern, and 4,096 bytes."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # no API call can carry it
        return False
    return size <= 4096 and bool(re.fullmatch(BODY["Parameters"][name]["AllowedPattern"], value))


@settings(max_examples=1000, deadline=None)
@given(username=text | awkward, password=text | awkward | long)
@example(username="lab", password='a"b\\c\\"d\\\\')
@example(username="lab", password="${AWS::Region} ${!x} {{resolve:ssm:x}}")
@example(username="lab", password='","registry_url":"evil.example.com')
@example(username="robot$lab+ci", password=" :colon: ")
@example(username="_json_key", password='{"private_key": "-----BEGIN\\n"}')
@example(username="lab", password="\U0001f41f" * 1024)
def test_all_credentials_arrive_unchanged_or_are_refused_before_anything_is_created(
    tmp_path_factory, username, password
):
    """No character of a password may be lost between the console and the registry."""
    if not (allowed("Username", username) and allowed("Password", password)):
        return
    parameters = {
        name: {"Value": value}
        for name, value in {
            "Username": username,
            "Password": password,
            "RegistryUrl": "https://GHCR.io/",
        }.items()
    }
    secret = engine._resolve_refs(
        BODY["Resources"]["RegistrySecret"]["Properties"]["SecretString"],
        {},
        parameters,
        {},
        {},
        "stack",
        "stack-id",
    )
    assert json.loads(secret)["password"] == password  # strictly, as repositoryCredentials is read
    key, auth = registry_login.login(secret)
    path = tmp_path_factory.getbasetemp() / "ecs.config"
    registry_login.put(str(path), {key: {"auth": auth}}, (), True)
    found = agent.auth_for("ghcr.io/lab/x:1", agent.read_ecs_config(path.read_bytes()))
    assert (found["username"], found["password"]) == (username, password)


@settings(max_examples=1000, deadline=None)
@given(username=text | awkward, password=text | awkward | long)
@example(username="_json_key", password='{\n  "private_key": "-----BEGIN\\n"\n}\n')
def test_all_credentials_in_a_secret_of_ones_own_arrive_or_are_refused(
    tmp_path_factory, username, password
):
    """Whatever Secrets Manager can store, the agent gets as it is, or nobody claims it does."""
    secret = json.dumps({"username": username, "password": password, "registry_url": "ghcr.io"})
    path = tmp_path_factory.getbasetemp() / "own.config"
    path.unlink(missing_ok=True)
    if ":" in username or "\0" in username + password:
        with pytest.raises(registry_login.Refused, match="a NUL, or a colon"):
            registry_login.login(secret)
        return
    key, auth = registry_login.login(secret)
    registry_login.put(str(path), {key: {"auth": auth}}, (), True)
    found = agent.auth_for("ghcr.io/lab/x:1", agent.read_ecs_config(path.read_bytes()))
    assert (found["username"], found["password"]) == (username, password)
    assert base64.b64decode(auth).decode() == f"{username}:{password}"
