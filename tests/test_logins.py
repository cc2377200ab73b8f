"""The registries of a stack: one key a host, a slot for life, and logins from where they are."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from batchreg.cli import config as batchreg_config
from batchreg.cli.commands import cli
from batchreg.errors import BatchregError
from batchreg.registry.docker_config import stored
from batchreg.registry.logins import Credentials, RegistrySpec, merged
from batchreg.registry.names import host_of, key_of
from batchreg.registry_login import HUB
from batchreg.render import settings, template, userdata
from batchreg.render.settings import Settings
from batchreg.render.text import to_json, to_yaml
from batchreg.stack.slots import assign, of_one, parameters

HUB_SPELLINGS = (
    "docker.io",
    "https://docker.io",
    "index.docker.io",
    "registry-1.docker.io",
    "https://index.docker.io/v1/",
    "hub.docker.com",
    "registry.hub.docker.com",
)


@st.composite
def registries(draw, count=20):
    """Registries in any spelling: {host: spellings}, with Docker Hub at times."""
    hosts = draw(
        st.lists(
            st.from_regex(r"[a-z]{1,8}\.(io|example\.com)(:[1-9][0-9]{3})?", fullmatch=True),
            max_size=count - 1,
            unique=True,
        )
    )
    hosts += ["Docker Hub"] * draw(st.booleans())
    return draw(st.permutations(hosts))


def spelt(host, draw):
    """Write a host as somebody might."""
    if host == "Docker Hub":
        return draw(st.sampled_from(HUB_SPELLINGS))
    before, behind, case = draw(
        st.tuples(
            st.sampled_from(["", "https://", "HTTP://", "  "]),
            st.sampled_from(["", "/", "/v2/", "/team/project", " \n"]),
            st.sampled_from([str.lower, str.upper, str.title]),
        )
    )
    return before + case(host) + behind


@given(st.data())
@effort(max_examples=60)
def test_any_list_becomes_one_key_a_host_and_none_is_lost(data):
    """Up to twenty, in any spellings, with duplicates: the agent takes one key a host."""
    hosts = data.draw(registries())
    again = data.draw(st.lists(st.sampled_from(hosts), max_size=20 - len(hosts))) if hosts else []
    wanted = [RegistrySpec(spelt(host, data.draw), f"user of {host}") for host in [*hosts, *again]]
    found = merged(wanted)
    assert [host_of(one.key) for one in found] == list(hosts)
    assert [one.username for one in found] == [f"user of {host}" for host in hosts]


@given(st.data())
@effort(max_examples=60)
def test_a_registry_keeps_its_slot_for_life(data):
    """Whatever is added, removed, turned round or spelt otherwise meanwhile."""
    hosts = data.draw(registries())
    slots = data.draw(st.lists(st.integers(1, 30), unique=True, max_size=len(hosts)))
    present = {slot: spelt(host, data.draw) for slot, host in zip(slots, hosts, strict=False)}
    kept = data.draw(st.permutations(hosts))[: data.draw(st.integers(0, len(hosts)))]
    assigned = assign([RegistrySpec(spelt(host, data.draw)) for host in kept], present)
    assert sorted(host_of(one.key) for one in assigned.values()) == sorted(kept)
    for slot, one in assigned.items():
        if slot in present:
            assert key_of(present[slot]) == one.key
        else:
            assert one.key not in map(key_of, present.values())


@given(st.data())
@effort(max_examples=60)
def test_two_logins_for_one_registry_are_refused_by_its_name(data):
    """An instance could use one of them, at random."""
    hosts = data.draw(registries().filter(bool))
    twice = data.draw(st.sampled_from(hosts))
    other = data.draw(
        st.sampled_from([{"username": "canary-eve"}, {"username": "lab", "source": "env:CANARY"}])
    )
    wanted = [
        *(RegistrySpec(spelt(host, data.draw), "lab") for host in hosts),
        RegistrySpec(spelt(twice, data.draw), **other),
    ]
    with pytest.raises(BatchregError) as caught:
        merged(data.draw(st.permutations(wanted)))
    assert str(caught.value).startswith(f"{twice} is named twice")
    assert "canary" not in str(caught.value).lower()


@given(st.data())
@effort(max_examples=60)
def test_only_what_is_new_gets_all_its_parameters(data):
    """What is not among the parameters keeps its value: the others' logins are left alone."""
    hosts = data.draw(registries().filter(bool))
    present = dict(enumerate(hosts[: len(hosts) // 2], 1))
    assigned = assign(
        [RegistrySpec("docker.io" if host == "Docker Hub" else host) for host in hosts],
        {slot: spelt(host, data.draw) for slot, host in present.items()},
    )
    given_ = parameters(
        assigned, present, lambda one, new: Credentials("u", "p") if new else Credentials()
    )
    new = assigned.keys() - present.keys()
    assert given_.keys() == {
        f"{name}{settings.suffix(slot)}"
        for slot in new
        for name in ("RegistryUrl", "Username", "Password")
    }


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ghcr.io", RegistrySpec("ghcr.io")),
        ("ghcr.io,username=lab", RegistrySpec("ghcr.io", "lab")),
        ("ghcr.io,password=env:TOKEN,username=a=b", RegistrySpec("ghcr.io", "a=b", "env:TOKEN")),
        ("ghcr.io,password=docker-config", RegistrySpec("ghcr.io", "", "docker-config")),
        ("GHCR,username=lab", RegistrySpec("ghcr.io", "lab")),
        ("docker-hub", RegistrySpec(HUB)),
        ("gitlab", RegistrySpec("registry.gitlab.com")),
    ],
)
def test_entry_is_read(text, wanted):
    """As it stands in the help."""
    assert RegistrySpec.parse(text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ghcr.io,password=canary", "cannot be part of --registry"),
        ("ghcr.io,password=env:", "cannot be part of --registry"),
        ("ghcr.io,user=canary", "Give username and password only, not user."),
        ("https://lab:canary@ghcr.io", "Leave user name and password out of the URL"),
        ("myhost", "Write a full host, such as myhost.example.com"),
    ],
)
def test_wrong_entry_says_what_is_right_and_quotes_no_login(text, message):
    """A password in the wrong place is still a password."""
    with pytest.raises(BatchregError, match=message) as caught:
        merged([RegistrySpec.parse(text)])
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("a b", "'a b' is not a registry host. Write it like ghcr.io."),
        ("", "'' is not a registry host. Write it like ghcr.io."),
        (
            "myhost/lab",
            "Docker would look for myhost/x on Docker Hub. "
            "Write a full host, such as myhost.example.com.",
        ),
        (
            "https://a.io:443/x",
            "a.io:443 is not how images name this registry. "
            "Write a.io or a.io:443, as your images do, without https://.",
        ),
        *(
            (
                url,
                "The registry is not a host. "
                "Write it like ghcr.io. Leave user name and password out of the URL.",
            )
            for url in ("https://lab:canary@ghcr.io", "lab:canary", "https://lab:canary", "canary@")
        ),
    ],
)
def test_url_that_no_image_matches_is_refused_in_a_sentence(url, message):
    """Quoted, unless credentials may be in it."""
    with pytest.raises(BatchregError) as caught:
        key_of(url)
    assert str(caught.value) == message


def test_options_for_one_registry_mean_the_one_of_the_stack():
    """Even where that is the third that the stack has had."""
    assert of_one({"Username": "u", "MaxvCpus": "5"}, {3: "ghcr.io"}) == {
        "Username3": "u",
        "MaxvCpus": "5",
    }
    assert of_one(
        {"Password": "p", "RegistryUrl": "https://GHCR.io"}, {1: "quay.io", 2: "ghcr.io"}
    ) == {"Password2": "p"}


@pytest.mark.parametrize("url", [{}, {"RegistryUrl": "registry.gitlab.com"}])
def test_options_for_one_registry_must_name_one_of_several(url):
    """Nobody's password goes to the wrong registry."""
    with pytest.raises(BatchregError, match=r"one of ghcr\.io, Docker Hub with --registry-url"):
        of_one({"Password": "canary", **url}, {1: "ghcr.io", 2: "docker.io"})


# --- batchreg.yaml ---


def config(tmp_path: Path, text: str) -> dict[str, object]:
    path = tmp_path / "batchreg.yaml"
    path.write_text(text)
    found = batchreg_config.read(path, batchreg_config.keys(cli))
    return {key: value for key, (value, _) in found.items()}


def test_settings_file_lists_registries_as_strings_and_as_mappings(tmp_path):
    """The natural home of several registries."""
    assert config(
        tmp_path,
        """
registries:
- ghcr.io
- quay,username=lab,password=env:QUAY
- url: registry.example.com:5050
  username: ci
  password: docker-config
""",
    ) == {
        "registries": [
            "ghcr.io",
            "quay,username=lab,password=env:QUAY",
            "registry.example.com:5050,username=ci,password=docker-config",
        ]
    }
    assert config(tmp_path, "registries: ghcr.io") == {"registries": ["ghcr.io"]}


@pytest.mark.parametrize(
    "entry",
    [
        "{url: ghcr.io, password: canary}",
        "{url: ghcr.io, user: canary}",
        "{username: canary}",
        "[canary]",
        "{url: [ghcr.io]}",
        "{url: ghcr.io, username: 'a,b'}",
        "myhost",
        "''",
        "{[url]: canary}",
        "'https://lab:canary@ghcr.io'",
    ],
)
def test_wrong_entry_of_the_settings_file_is_told_with_its_line(tmp_path, entry):
    """In one line, without whatever somebody has written there."""
    with pytest.raises(BatchregError, match=r"batchreg\.yaml, line 3: ") as caught:
        config(tmp_path, f"registries:\n- ghcr.io\n- {entry}\n")
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)


# --- What docker login stored ---


def encoded(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


@pytest.fixture
def docker(tmp_path):
    """Write Docker's configuration and return its folder."""

    def write(**config: object) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


HELPER = """\
#!/bin/sh
[ "$1" = get ] || exit 2
read -r name || [ "$name" ]
case $name in
ghcr.io) printf '%s\\n' '{"ServerURL": "ghcr.io", "Username": "lab", "Secret": "s:e\\\\c"}';;
https://index.docker.io/v1/) echo '{"Username": "hub", "Secret": "h"}';;
https://token.example.com) echo '{"Username": "<token>", "Secret": "canary"}';;
slow.example.com) exec sleep 60;;
*) echo credentials not found in native keychain; exit 1;;
esac
"""


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """A credential helper `docker-credential-x` on the PATH, as real as Docker's own."""
    program = tmp_path / "bin" / "docker-credential-x"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("spelling", "wanted"),
    [
        ("ghcr.io", "https://ghcr.io/"),
        ("https://ghcr.io", "GHCR.io"),
        ("ghcr.io", "ghcr.io"),
        (HUB, "docker.io"),
        ("docker.io", "registry-1.docker.io"),
    ],
)
def test_stored_login_is_found_under_any_spelling(docker, spelling, wanted):
    """Docker and people write the same registry in several ways."""
    folder = docker(auths={"quay.io": encoded("no", "no"), spelling: encoded("lab", "p:w")})
    assert stored(RegistrySpec(wanted), folder) == Credentials("lab", "p:w")


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize(
    "config",
    [
        {"credsStore": "x", "auths": {"ghcr.io": {}, HUB: {}}},
        {"credHelpers": {"ghcr.io": "x", HUB: "x"}},
        {
            "credHelpers": {"ghcr.io": "x"},
            "credsStore": "x",
            "auths": {"ghcr.io": encoded("a", "b")},
        },
    ],
)
def test_credential_helper_is_asked(docker, config):
    """Where there is one, the file itself holds no passwords."""
    folder = docker(**config)
    assert stored(RegistrySpec("ghcr.io"), folder) == Credentials("lab", "s:e\\c")
    assert stored(RegistrySpec("docker.io"), folder) == Credentials("hub", "h")


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize(
    ("config", "url", "message"),
    [
        ({}, "ghcr.io", "Docker has no credentials for ghcr.io. Run docker login ghcr.io first."),
        ({}, "docker.io", "Docker has no credentials for Docker Hub. Run docker login first."),
        ({"credsStore": "x"}, "quay.io", "Docker has no credentials for quay.io"),
        (
            {"auths": {"quay.io": {"auth": "canary"}}},
            "quay.io",
            "Docker has no credentials for quay.io",
        ),
        (
            {"auths": {"quay.io": {**encoded("00", ""), "identitytoken": "canary"}}},
            "quay.io",
            "identity token",
        ),
        (
            {"credHelpers": {"https://token.example.com": "x"}},
            "token.example.com",
            "identity token",
        ),
        ({"credsStore": "none-such"}, "quay.io", "docker-credential-none-such is not installed"),
        ({"credsStore": "x"}, "slow.example.com", "docker-credential-x did not answer within"),
        ({"credHelpers": ["canary"]}, "quay.io", "does not have the form that Docker writes"),
        ({"auths": "canary"}, "quay.io", "does not have the form that Docker writes"),
    ],
)
def test_login_that_docker_does_not_have_is_told(docker, config, url, message):
    """With what to do, and without a part of any login."""
    with pytest.raises(BatchregError, match=message) as caught:
        stored(RegistrySpec(url), docker(**config), seconds=0.2 if "slow" in url else 10)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory. Run docker login first"),
        ("{canary", "is not JSON"),
        ("[]", "does not have the form that Docker writes"),
        ("3", "does not have the form that Docker writes"),
    ],
)
def test_configuration_that_is_none_is_told(tmp_path, content, message):
    """One line, not a traceback."""
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(BatchregError, match=message):
        stored(RegistrySpec("ghcr.io"), tmp_path)


# --- How many fit ---


# The number that the README gives, with the longest numbers that slots may have after years.
NINE = tuple(range(90, 99))
# As long as Secrets Manager's ARNs get: the longest partition, region and name of ours.
LONG_ARN = (
    "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:"
    "RegistrySecret99-aBcDeFgHiJkL-aBcDeF"
)


def test_nine_registries_fit_and_the_tenth_is_refused():
    """By the user data, which is the narrowest place."""

    def secrets(slots: tuple[int, ...]) -> list[str]:
        return [f"${{RegistrySecret{settings.suffix(slot)}}}" for slot in slots]

    assert userdata.build(secrets(NINE))
    with pytest.raises(BatchregError, match="10 registries are too many for one stack"):
        userdata.build(secrets((*range(1, 10), 99)))


def test_nine_registries_are_within_the_limits_of_cloudformation():
    """A template of 51,200 bytes, 200 parameters and 200 outputs at most."""
    built = template.build(Settings(slots=NINE, fargate=True))
    assert len(to_yaml(built)) < 51_200  # what deploy sends
    assert len(built.parameters) < 100
    assert len(built.outputs) < 100


def own_secrets() -> tuple[str, ...]:
    """Return as many ARNs as possible of secrets of the user's own, as short as they get."""
    arns: list[str] = []
    with contextlib.suppress(BatchregError):
        while True:
            arns.append(
                f"arn:aws:secretsmanager:eu-west-1:123456789012:secret:{len(arns):02}-aBcDeF"
            )
            userdata.build(arns)
    return tuple(arns[:-1])


@pytest.mark.parametrize("made", [Settings(slots=NINE), Settings(secret_arns=own_secrets())])
def test_policies_are_shorter_than_iam_takes(made):
    """10,240 characters for all the inline policies of a role, white space not counted."""
    resources = json.loads(to_json(template.build(made)))["Resources"]
    key = resources["KeyPolicy"]["Properties"]["PolicyDocument"]
    for name in ("InstanceRole", "JobExecutionRole"):
        (policy,) = resources[name]["Properties"]["Policies"]
        documents = json.dumps([policy["PolicyDocument"], key])
        whole = re.sub(
            r'{"Ref": "(RegistrySecret\d*|KmsKeyArn)"}|\s',
            lambda found: f'"{LONG_ARN}"' if found[1] else "",
            documents,
        )
        assert LONG_ARN in whole
        assert len(whole) < 10_240 / 2
