"""What the program refuses at once, because no waiting changes it."""

import base64
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from program import secret
from secrets_server import fail

from batchreg.registry_login import HUB, Refused, login


@pytest.mark.parametrize(
    "step",
    [
        fail(400, "ResourceNotFoundException"),
        fail(400, "com.amazonaws.secretsmanager#InvalidRequestException", "marked for deletion"),
        fail(400, "InvalidParameterException"),
        fail(400, "ValidationException"),
        fail(400, "DecryptionFailure"),
    ],
    ids=["missing", "deleted", "parameter", "validation", "decryption"],
)
def test_what_no_retry_changes_fails_at_once(instance, server, step):
    """An instance that cannot ever pull should not idle for minutes before it says so."""
    server.play("ghcr", then=step)
    run = instance.run("ghcr", deadline=60)
    assert (run.code, len(run.lines), server.count("ghcr")) == (1, 1, 1)
    assert run.seconds < 20


def test_a_missing_secret_is_named(instance):
    """The line on the console is all that people see of the instance."""
    assert instance.run("gone").lines == ["batchreg: gone: HTTP 400 ResourceNotFoundException"]


NOT_A_LOGIN = {
    "not JSON": "ada:secret",
    "empty": "",
    "binary": b'{"username": "ada", "password": "x"}',
    "list": '["ada", "x"]',
    "string": '"ada"',
    "number": "5",
    "null": "null",
    "no username": '{"password": "x"}',
    "no password": '{"username": "ada"}',
    "empty username": secret(user=""),
    "empty password": secret(password=""),
    "username is a number": '{"username": 5, "password": "x"}',
    "username is null": '{"username": null, "password": "x"}',
    "username is a list": '{"username": ["ada"], "password": "x"}',
    "password is a number": '{"username": "ada", "password": 5}',
    "password is null": '{"username": "ada", "password": null}',
    "password is a list": '{"username": "ada", "password": ["x"]}',
    "registry_url is a number": '{"username": "ada", "password": "x", "registry_url": 5}',
    "registry_url is a list": '{"username": "ada", "password": "x", "registry_url": ["ghcr.io"]}',
    "colon in username": secret(user="ada:x"),
    "NUL in username": secret(user="ada\0"),
    "NUL in password": secret(password="x\0"),
    "half a surrogate": '{"username": "ada", "password": "\\ud800"}',
    "nested too deep": "[" * 100_000,
    "a number too long": "9" * 10_000,
}


@pytest.mark.parametrize("value", [*NOT_A_LOGIN.values()], ids=NOT_A_LOGIN)
def test_a_secret_that_is_no_login_is_refused(value):
    """The agent drops every registry's login over one bad entry, and says nothing."""
    with pytest.raises(Refused):
        login(value if isinstance(value, str) else None)


@pytest.mark.parametrize("kind", ["not JSON", "binary", "no username", "list"])
def test_a_broken_secret_writes_nothing(instance, server, kind):
    """Better no line than one that looks like a login."""
    server.secrets["ghcr"] = NOT_A_LOGIN[kind]
    run = instance.run("ghcr")
    assert (run.code, len(run.lines)) == (1, 1)
    assert run.lines[0].startswith("batchreg: ghcr: it ")
    assert not instance.config.exists()
    assert instance.systemctl_calls == []


@pytest.mark.parametrize("field", ["username", "password"])
def test_a_missing_field_is_named(field):
    """People mistype keys more often than values."""
    fields = {"username": "ada", "password": "x"}
    del fields[field]
    with pytest.raises(Refused, match=f"it has no '{field}'"):
        login(json.dumps(fields))


@pytest.mark.parametrize("more", [{}, {"registry_url": None}, {"registry_url": ""}])
def test_no_registry_url_means_docker_hub(more):
    """As it does for `docker login`."""
    assert login(json.dumps({"username": "ada", "password": "x", **more}))[0] == HUB


NASTY = st.text() | st.text("\"'\\$ {}:=#%\t\r\n\0\x1b😀é`", max_size=40)
WORDS = NASTY | st.builds(lambda some, times: (some * times)[:4096], NASTY, st.integers(1, 400))


@given(user=WORDS, password=WORDS, escaped=st.booleans(), raw=st.booleans())
@settings(max_examples=1000, deadline=None)
def test_any_password_reaches_the_agent_unchanged(user, password, escaped, raw):
    """Generated passwords hold every character there is, and key files hold line breaks."""
    content = json.dumps({"username": user, "password": password}, ensure_ascii=escaped)
    if raw:  # line breaks as they are, as people paste them
        content = re.sub(r"(?<!\\)((?:\\\\)*)\\n", r"\1\n", content)
    if not user or not password or ":" in user or "\0" in user + password:
        with pytest.raises(Refused):
            login(content)
    else:
        assert base64.b64decode(login(content)[1]).decode() == f"{user}:{password}"
