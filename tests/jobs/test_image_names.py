"""Image names, and the registry that each belongs to."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from lab.agent import DOCKER_HUB_KEY, auth_for

from batchreg.errors import BatchregError
from batchreg.registry import images as image

DIGEST = "sha256:" + "0123456789abcdef" * 4


part = st.from_regex("[a-z0-9]{1,6}((\\.|_|__|-|---)[a-z0-9]{1,6}){0,2}", fullmatch=True)
label = st.from_regex("[A-Za-z0-9]{1,5}(-[A-Za-z0-9]{1,3})?", fullmatch=True)
dotted = st.lists(label, min_size=2, max_size=3).map(".".join)
port = st.integers(1, 65535).map(lambda number: f":{number}")
hosts = st.one_of(
    dotted,
    st.builds("{}{}".format, st.one_of(label, dotted), port),
    st.sampled_from(["localhost", "docker.io", "ghcr.io", "index.docker.io"]),
)
tags = st.from_regex("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True).map(":{}".format)


@given(
    host=st.none() | hosts,
    path=st.lists(part, min_size=1, max_size=3).map("/".join),
    tag=st.just("") | tags,
    digest=st.sampled_from(["", "@" + DIGEST]),
)
def test_every_well_formed_name_is_taken_apart(host, path, tag, digest):
    """Host, path, tag and digest, as github.com/distribution/reference defines them."""
    first, slash, _ = path.partition("/")
    assume(host or not slash or ("." not in first and first != "localhost"))  # else it is the host
    name = f"{host + '/' if host else ''}{path}{tag}{digest}"
    found = image.parse(name)
    assert (found.name, found.registry, found.path) == (name, host or "docker.io", path)


@given(
    name=st.one_of(
        st.from_regex(r"[A-Za-z0-9.:/@_-]{1,40}", fullmatch=True),
        st.builds("{}/{}".format, hosts, part),
        st.builds("{}{}".format, part, tags),
    )
)
@example("registry-1.docker.io/lab/x")
@example("localhost/x")
@example("lab/x:5000/y")
def test_the_registry_is_the_one_whose_login_the_agent_sends(name):
    """Else the warning about missing credentials would be wrong, or the job's login another's."""
    try:
        found = image.parse(name)
    except BatchregError:
        return
    key = DOCKER_HUB_KEY if found.on_hub else found.registry
    config = {
        "ECS_ENGINE_AUTH_TYPE": "dockercfg",
        "ECS_ENGINE_AUTH_DATA": json.dumps({key: {"auth": "dTpw"}}),
    }
    assert auth_for(name, config) == {"username": "u", "password": "p"}


@given(st.text())
def test_any_other_text_is_refused_in_one_line(text):
    """Whatever is pasted there: no traceback, and no line break in the message."""
    try:
        message = image.parse(text).name
    except BatchregError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "/",
        "a/",
        "/a",
        "a//b",
        "a:",
        "a:b:c",
        "a@",
        "a@sha256:12",
        "-a",
        "a-",
        "a..b",
        "ghcr.io/Lab/x",
        "https://ghcr.io/lab/x",
        "ghcr.io/lab/x:3\n",
        "ghcr.io:port/x",
        "a___b",
        "ghcr.io/lab/x:-3",
        "-ghcr.io/x",
        "ghcr-.io/x",
        "ghcr.io/",
        "ghcr.io/lab/x y",
        "häuser/x",
        "x:" + "t" * 129,
        f"x@{DIGEST.upper()}",
        "$(id)",
        "..",
        "a/../b",
    ],
)
def test_malformed_name_is_refused(name):
    """Docker would refuse it on the instance, minutes later."""
    with pytest.raises(BatchregError, match=r"is not the name of an image\. Write it like"):
        image.parse(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("https://ghcr.io/lab/x:3", "without a scheme"), ("ghcr.io/Lab/x", "in lower case")],
)
def test_refusal_says_what_to_mend(name, hint):
    """The two slips that people make most."""
    with pytest.raises(BatchregError, match=f"{hint}[.]$"):
        image.parse(name)


@pytest.mark.parametrize(
    "name", ["lab:canary@ghcr.io/lab/x", "https://lab:canary@ghcr.io/x:3", "lab:canary@ghcr.io"]
)
def test_name_that_may_hold_a_password_is_not_quoted(name):
    with pytest.raises(BatchregError, match="without a user name and a password") as caught:
        image.parse(name)
    assert "canary" not in str(caught.value)


def test_name_that_batch_would_refuse_for_its_length_is_refused():
    """255 characters are the most that ContainerProperties.image takes."""
    longest = "ghcr.io/" + "a" * 247
    assert image.parse(longest).name == longest
    with pytest.raises(BatchregError, match="has 256 characters; AWS Batch accepts 255"):
        image.parse(longest + "a")
