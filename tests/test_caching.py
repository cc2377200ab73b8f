"""The pull-through cache in the template and in a deploy's plan: who reads which secret, and why not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from attach_environments import attachment
from test_plan import LOGIN, NETWORK, ONE, given, listed, planned

from batchreg.attach import companion
from batchreg.cli.options import cache_prefix
from batchreg.errors import BatchregError
from batchreg.registry_login import HUB
from batchreg.render import constraints, template
from batchreg.render.settings import Settings
from batchreg.render.text import read_template, to_json, to_yaml
from batchreg.render.upstreams import upstream_of
from batchreg.stack import caching, preview
from batchreg.stack.plan import RegistryInput

GHCR = ((1, "ghcr.io"),)
AZURE = ((1, "lab01.azurecr.io"), (3, "lab02.azurecr.io"))
STRUCTURES = {
    "one": Settings(cached=GHCR),
    "hub": Settings(cached=((1, HUB),), fargate=True),
    "one of two": Settings(slots=(1, 2), cached=((2, "cgr.dev"),)),
    "all": Settings(
        slots=(1, 2, 3, 4, 5),
        cached=(
            (1, HUB),
            (2, "ghcr.io"),
            (3, "registry.gitlab.com"),
            (4, "cgr.dev"),
            (5, AZURE[0][1]),
        ),
    ),
    "two of Azure's": Settings(slots=(1, 3), cached=AZURE),
    "parts": Settings(
        cached=GHCR, user_parts=("Content-Type: text/x-shellscript\n\n#!/bin/sh\nx",)
    ),
}


def body(settings: Settings) -> dict:
    return json.loads(to_json(template.build(settings)))


@pytest.mark.parametrize("settings", STRUCTURES.values(), ids=STRUCTURES)
def test_settings_are_read_back(settings):
    """A later deploy keeps what is cached."""
    found = read_template(to_yaml(template.build(settings)))
    assert found
    assert found.settings == settings


@pytest.mark.parametrize("settings", STRUCTURES.values(), ids=STRUCTURES)
def test_no_role_reads_the_secret_of_a_cached_registry(settings):
    """It is ECR's alone: neither the instances' user data nor a policy names it."""
    resources = body(settings)["Resources"]
    for slot in dict(settings.cached):
        secret = "RegistrySecret" + (str(slot) if slot > 1 else "")
        uses = [
            name
            for name, resource in resources.items()
            if {"Ref": secret} in _values(resource) or f"${{{secret}}}" in json.dumps(resource)
        ]
        assert uses == [secret.replace("RegistrySecret", "CacheRule")]
        text = json.dumps(resources[secret]["Properties"])
        assert '"ecr-pullthroughcache/${AWS::StackName}"' in text
        assert '"accessToken"' in text
        assert "KmsKeyId" not in text  # ECR could not read it
        assert "registry_url" not in text


def _values(value):
    """Yield all that a resource is made of."""
    yield value
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from _values(item)


def test_rules_name_the_upstream_as_ecr_does():
    """Source: UpstreamRegistryUrl in the API reference of CreatePullThroughCacheRule."""
    rules = {
        resource["Properties"]["UpstreamRegistry"]: resource["Properties"]["UpstreamRegistryUrl"]
        for resource in body(STRUCTURES["all"])["Resources"].values()
        if resource["Type"] == "AWS::ECR::PullThroughCacheRule"
    }
    assert rules == {
        "docker-hub": "registry-1.docker.io",
        "github-container-registry": "ghcr.io",
        "gitlab-container-registry": "registry.gitlab.com",
        "chainguard": "cgr.dev",
        "azure-container-registry": "lab01.azurecr.io",
    }


def test_registries_of_azure_have_prefixes_of_their_own():
    """By the number that a registry keeps: its images keep their names when another one goes."""
    assert Settings(slots=(1, 3), cached=AZURE).directories == {1: "azure", 3: "azure3"}
    assert Settings(slots=(3,), cached=AZURE[1:]).directories == {3: "azure3"}


def test_where_ecr_pulls_everything_instances_have_no_program():
    """Nothing that could read a secret: only the agent's pull behavior is set."""
    text = json.dumps(body(STRUCTURES["one"])["Resources"]["LaunchTemplate"])
    assert "ECS_IMAGE_PULL_BEHAVIOR" in text
    assert "/opt/batchreg" not in text
    assert "CredentialRefreshMinutes" not in body(STRUCTURES["one"])["Parameters"]


def test_nobody_else_may_fill_the_cache():
    """Both roles that pull, for the stack's own prefix."""
    resources = body(STRUCTURES["one of two"])["Resources"]
    for role in ("InstanceRole", "JobExecutionRole"):
        (statement,) = next(
            policy["PolicyDocument"]["Statement"]
            for policy in resources[role]["Properties"]["Policies"]
            if policy.get("PolicyName") == "PullThroughCache"
        )
        assert statement["Action"] == ["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"]
        assert statement["Resource"]["Fn::Sub"].endswith(":repository/${CachePrefix}/*")


def test_lifecycle_policy_is_one_that_ecr_takes():
    """Text with a number in it, from 100 characters on, as the resource's schema wants."""
    policy = body(STRUCTURES["one"])["Resources"]["CacheRepositories"]["Properties"]
    text = policy["LifecyclePolicy"]["Fn::Sub"].replace("${CacheDays}", "90")
    assert 100 <= len(text) <= 30_720
    (rule,) = json.loads(text)["rules"]
    assert rule["selection"]["countNumber"] == 90


@pytest.mark.parametrize(
    ("cached", "fact", "step"),
    [
        (((1, "quay.io"),), "without credentials", "Leave quay.io out"),
        (
            ((1, "harbor.example.com"),),
            "does not support harbor.example.com",
            "Docker Hub, ghcr.io",
        ),
        (((1, "x.azurecr.io"),), "does not support x.azurecr.io", "azurecr.io"),
    ],
)
def test_registries_that_ecr_cannot_cache_are_refused(cached, fact, step):
    """With what it can."""
    with pytest.raises(BatchregError) as refused:
        Settings(cached=cached)
    assert fact in refused.value.fact
    assert step in refused.value.step


def test_prefix_and_registry_fit_into_what_ecr_allows():
    """30 characters in all, whatever the stack is called."""
    longest = constraints.CACHE_PREFIX_LENGTH[1]
    keys = [HUB, "ghcr.io", "registry.gitlab.com", "cgr.dev"]
    shorts = [upstream.short for key in keys if (upstream := upstream_of(key))]
    assert max(len(short) for short in [*shorts, "azure9"]) + 1 + longest == 30


@pytest.mark.parametrize(
    ("stack_name", "prefix"),
    [
        ("genomics", "genomics"),
        ("batchreg-Genomics-EU", "batchreg-genomics-eu"),
        ("x", "x-images"),
        ("a--b-", "a-b"),
    ],
)
def test_prefix_comes_from_the_stacks_name(stack_name, prefix):
    """Lower case, and without what ECR refuses."""
    assert caching.prefix_of(stack_name) == prefix
    assert cache_prefix(prefix) == prefix


def test_long_names_have_different_prefixes():
    """Two stacks whose names begin alike."""
    one, two = (caching.prefix_of("a-very-long-name-of-a-stack-" + end) for end in "ab")
    assert one != two
    assert cache_prefix(one) == one


# What is wanted; the registries of the stack; what is cached then.
CHOICES = {
    "all, of one": (("all",), {1: "ghcr.io"}, GHCR),
    "all, of three": (("all",), {1: "ghcr.io", 2: "quay.io", 3: "a.example.com"}, GHCR),
    "one of two": (("ghcr.io",), {1: "ghcr.io", 2: HUB}, GHCR),
    "none": ((), {1: "ghcr.io"}, ()),
    "as it is": (None, {1: "ghcr.io"}, GHCR),
    "as it is, with another registry": (None, {1: "harbor.example.com"}, ()),
    "as it is, with one more": (None, {1: "ghcr.io", 2: HUB}, GHCR),
}


@pytest.mark.parametrize("name", CHOICES)
def test_registries_are_cached_as_wanted(name):
    """What the stack has cached already is GHCR in its first slot."""
    wanted, keys, cached = CHOICES[name]
    assert caching.choose(wanted, GHCR, keys) == cached


@pytest.mark.parametrize(
    ("wanted", "keys", "message"),
    [
        (("all",), {1: "a.example.com"}, "cannot pull private images from a.example.com"),
        (("all",), {1: "quay.io"}, "cannot pull private images from quay.io"),
        (("ghcr.io",), {1: HUB}, "ghcr.io is not a registry of this stack, which has Docker Hub"),
    ],
)
def test_what_cannot_be_cached_is_refused(wanted, keys, message):
    """Before anything is asked."""
    with pytest.raises(BatchregError, match=message):
        caching.choose(wanted, (), keys)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, None),
        ("all", ("all",)),
        ("None", ()),
        ("ghcr", ("ghcr.io",)),
        ("docker.io, https://ghcr.io", (HUB, "ghcr.io")),
    ],
)
def test_option_takes_registries_as_people_write_them(text, wanted):
    """Short names, URLs, several."""
    assert caching.wanted(text) == wanted


def test_option_says_what_it_takes():
    """`attach --pull-through-cache genomics` takes the name for the option's value."""
    with pytest.raises(
        BatchregError, match=r"--pull-through-cache: genomics is not a registry\. Write all, none"
    ):
        caching.wanted("genomics")


def test_new_stack_gets_a_prefix_and_one_spelling_of_the_registry():
    """The rule in ECR decides what the registry is called."""
    login = {**LOGIN, **NETWORK, "RegistryUrl": "https://ghcr.io/lab"}
    plan = planned({**given(**login), "cache": ("all",)})
    assert plan.settings.cached == GHCR
    assert plan.parameters["RegistryUrl"] == "ghcr.io"
    assert plan.parameters["CachePrefix"] == "lab"
    assert plan.missing == ()


def test_switching_keeps_the_credentials_and_what_else_the_stack_has():
    """Nothing is asked again, over and back."""
    present = {**ONE, "RegistryUrl": "ghcr.io"}
    over = planned({"cache": ("all",)}, present)
    assert (over.settings.cached, over.missing) == (GHCR, ())
    assert over.parameters == {"CachePrefix": "lab"}
    back = planned({"cache": ()}, {**present, "CachePrefix": "lab"}, cached=GHCR)
    assert (back.settings.cached, back.parameters, back.missing) == ((), {}, ())


def test_prefix_stays():
    """It is in the names of all images."""
    plan = planned({}, {**ONE, "RegistryUrl": "ghcr.io", "CachePrefix": "ours"}, cached=GHCR)
    assert plan.parameters == {}


def test_one_cached_and_one_not():
    """Each registry's own way, in one stack."""
    two = listed(
        RegistryInput("ghcr.io", "gil", "", "a"), RegistryInput("a.example.com", "ann", "", "b")
    )
    plan = planned({**two, **given(**NETWORK), "cache": ("ghcr.io",)})
    assert plan.settings.cached == GHCR
    assert plan.settings.on_instances == (2,)


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("cache_prefix", "CachePrefix", "--cache-prefix requires --pull-through-cache"),
        ("cache_days", "CacheDays", "--cache-days requires --pull-through-cache"),
    ],
)
def test_options_of_the_cache_need_one(option, name, message):
    """On the command line it is a mistake; a file may serve several stacks."""
    inputs = given(**{**LOGIN, **NETWORK, name: "7"})
    assert name not in planned(inputs).parameters
    with pytest.raises(BatchregError, match=message):
        planned({**inputs, "on_command_line": frozenset({option})})


def test_secrets_of_ones_own_are_not_cached():
    """ECR wants another form and another name."""
    with pytest.raises(BatchregError, match="--registry instead of --secret-arn"):
        Settings(
            secret_arns=("arn:aws:secretsmanager:us-east-1:123456789012:secret:own-AbCdEf",),
            cached=GHCR,
        )


def test_preview_says_who_pulls_and_what_to_do_about_names():
    """Both ways."""
    before, after = (
        preview.deployment(to_yaml(template.build(settings)), {"RegistryUrl": "ghcr.io"})
        for settings in (Settings(), Settings(cached=GHCR))
    )
    assert before
    assert after
    over = preview.compare(before, after)
    assert (
        preview.Change("images of ghcr.io are pulled", "by the instances", "through ECR")
        in over.changes
    )
    assert "LaunchTemplate" in over.replaced
    assert preview.image_names(before, after, "batchreg image").endswith(
        "as this prints them: batchreg image"
    )
    assert "without ECR" in preview.image_names(after, before, "")
    assert preview.image_names(after, after, "") == ""


def test_companion_of_a_cache_alone_leaves_the_environment_as_it_is():
    """No launch template, no secret that the role may read; the role may pull through the cache."""
    built = json.loads(to_json(companion.build(replace(attachment(), copies=(), cached=GHCR))))
    kinds = sorted(resource["Type"] for resource in built["Resources"].values())
    assert kinds == [
        "AWS::ECR::PullThroughCacheRule",
        "AWS::ECR::RepositoryCreationTemplate",
        "AWS::IAM::Role",
        "AWS::IAM::Role",
        "AWS::IAM::RolePolicy",
        "AWS::SecretsManager::Secret",
    ]
    policy = json.dumps(built["Resources"]["InstanceRolePolicy"])
    assert "secretsmanager" not in policy
    found = read_template(json.dumps(built))
    assert found
    assert found.settings.cached == GHCR
    assert companion.recorded(found.attached or {}).cache_alone
