"""What doctor looks at of ECR's pull-through cache: rules, secrets, and policies beside IAM's."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from stubs import NOW, Iam, Stubs, client

from batchreg.cache.names import Cache, Cached
from batchreg.doctor import collect, facts
from batchreg.doctor.collect import cache, credentials, policies, redact, roles
from batchreg.doctor.collect.calls import Caller
from batchreg.render.upstreams import FIRST_PULL
from batchreg.stack.registries import StackRegistry
from batchreg.stack.states import Stack

ARN = (
    "arn:aws:secretsmanager:eu-central-1:111122223333:secret:ecr-pullthroughcache/lab-ghcr-1-AbCdEf"
)
GHCR = StackRegistry("ghcr.io", ARN, 1, "lab/ghcr")
ROLE = "arn:aws:iam::111122223333:role/lab"
REPOSITORIES = "arn:aws:ecr:eu-central-1:111122223333:repository/lab/ghcr"
ALIGN = f"{REPOSITORIES}/align"
DENIED, MISSING = "AccessDeniedException", "PullThroughCacheRuleNotFoundException"
PRESENT = {"ecrRepositoryPrefix": "lab/ghcr", "credentialArn": ARN}
OTHER = {"ecrRepositoryPrefix": "other"}


class Ecr:
    """A client of ECR whose answers are lists of rules, a validation, or codes of errors."""

    def __init__(self, described: Any, validated: Any) -> None:
        self.meta, self._described, self._validated = client("ecr").meta, described, validated

    def get_paginator(self, name: str) -> Any:
        assert name == "describe_pull_through_cache_rules"
        pages = [[one] for one in _answer(self._described)] if self._described != DENIED else None
        listed = [{"pullThroughCacheRules": one} for one in pages or ()]
        return type("Pages", (), {"paginate": lambda _: listed or _answer(self._described)})()

    def validate_pull_through_cache_rule(self, *, ecrRepositoryPrefix: str) -> Any:
        assert ecrRepositoryPrefix == "lab/ghcr"
        return _answer(self._validated)


def _answer(given: Any) -> Any:
    if isinstance(given, str):
        raise ClientError({"Error": {"Code": given, "Message": f"{given}."}}, "Operation")
    return given


VALID: dict[str, Any] = {"exists": True, "valid": True, "secret": ARN}
REFUSED = {"isValid": False, "failure": "No.", "credentialArn": ARN}


@pytest.mark.parametrize(
    ("described", "validated", "expected", "gaps"),
    [
        ([OTHER, PRESENT], {"isValid": True}, VALID, 0),
        ([PRESENT], REFUSED, {**VALID, "valid": False, "failure": "No."}, 0),
        *(
            ([PRESENT], code, {**VALID, "valid": False, "failure": f"{code}."}, 0)
            for code in cache.OF_SECRET
        ),
        ([OTHER], MISSING, {"exists": False, "valid": None, "secret": ""}, 0),
        ([PRESENT], DENIED, {**VALID, "valid": None}, 1),
        (DENIED, REFUSED, {**VALID, "valid": False, "failure": "No."}, 1),
        (DENIED, MISSING, {"exists": False, "valid": None, "secret": ""}, 1),
        # Nothing is known of it: not that it is missing.
        (DENIED, DENIED, {"exists": True, "valid": None, "secret": ""}, 2),
    ],
)
def test_rule_is_what_ecr_says_of_it(
    described: Any, validated: Any, expected: dict[str, Any], gaps: int
) -> None:
    """ECR lists its rules by pages, and tries one; each may be forbidden."""
    caller = Caller(lambda _: Ecr(described, validated))
    (rule,) = cache.rules(caller, [GHCR])
    common = {"prefix": "lab/ghcr", "registry": "ghcr.io", "host": "ghcr.io", "url": "ghcr.io"}
    assert rule == facts.CacheRule(**{**common, "expected": ARN, **expected})
    assert len(caller.gaps) == gaps
    assert {gap.permission for gap in caller.gaps.values()} <= {
        "ecr:DescribePullThroughCacheRules",
        "ecr:ValidatePullThroughCacheRule",
    }


@pytest.mark.parametrize(
    ("text", "keys", "problem"),
    [
        ('{"username": "lab", "accessToken": "canary-4711"}', ("username", "accessToken"), ""),
        (
            '{"username": "a:b", "accessToken": "x"}',
            ("username", "accessToken"),
            "a colon in username",
        ),
        ('{"username": "lab", "password": "canary-4711"}', ("username", "password"), ""),
    ],
)
def test_secret_is_judged_by_what_ecr_needs(text: str, keys: tuple[str, ...], problem: str) -> None:
    """Of the registry that its rule is for, whatever the secret says; no value is a fact."""
    stubs = Stubs("secretsmanager")
    stubs.secretsmanager.add_response("describe_secret", {"ARN": ARN, "LastChangedDate": NOW})
    stubs.secretsmanager.add_response("get_secret_value", {"SecretString": text})
    read = credentials.secret(stubs.caller, ARN, GHCR)
    assert (read.fact.cached, read.fact.host, read.fact.keys) == (True, "ghcr.io", keys)
    assert problem in read.fact.problem
    assert read.password == json.loads(text).get("accessToken", "")
    assert "canary" not in repr(read)


def test_token_for_ecr_is_redacted_in_all_its_forms() -> None:
    """By itself, and as registries get it."""
    words = redact.words('{"username": "lab", "accessToken": "canary-4711"}')
    assert set(words) == {"canary-4711", "bGFiOmNhbmFyeS00NzEx"}


def statement(effect: str, action: Any = "ecr:*", **more: Any) -> str:
    one = {"Effect": effect, "Action": action, "Principal": {"AWS": ROLE}, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [one]})


NOT_THEIRS = {"Principal": {"AWS": "arn:aws:iam::111122223333:role/other"}}
READ, IMPORT, CREATE = "ecr:BatchGetImage", *FIRST_PULL


@pytest.mark.parametrize(
    ("action", "registry", "repository", "granted"),
    [
        (IMPORT, "", "", False),
        (IMPORT, statement("Allow"), "", True),
        (IMPORT, statement("Allow", [CREATE]), "", False),
        (IMPORT, "", statement("Allow", "ecr:batchimport*"), True),
        (CREATE, statement("Allow", [CREATE, IMPORT]), "", True),
        (CREATE, statement("Allow", **NOT_THEIRS), "", False),
        (CREATE, statement("Allow", Principal="*"), "", True),
        (CREATE, statement("Allow", Principal={"AWS": "111122223333"}), "", True),
        (CREATE, "", statement("Allow"), False),  # only the registry's policy can grant it
        (CREATE, statement("Deny"), "", False),
        (READ, statement("Allow"), "", False),
        (READ, "", statement("Allow", READ), True),
        (policies.TOKEN, statement("Allow"), statement("Allow"), False),
        # Nobody knows.
        (CREATE, None, "", True),
        (READ, "", None, True),
    ],
)
def test_policies_of_ecr_grant_what_iam_does_not_simulate(
    action: str, registry: str | None, repository: str | None, granted: bool
) -> None:
    """A finding that a permission is missing would be wrong then."""
    of_ecr = policies.OfEcr(registry, {ALIGN: repository})
    refused = facts.Denial(action=action, resource=f"{REPOSITORIES}/*")
    assert of_ecr.grant(ROLE, refused) is granted


@pytest.mark.parametrize(
    ("policy", "denied"),
    [
        ("", 0),
        (None, 0),
        (statement("Allow"), 0),
        (statement("Deny"), 4),
        (statement("Deny", READ), 1),
        (statement("Deny", READ, Principal="*"), 1),
        (statement("Deny", READ, Principal={"AWS": "arn:aws:iam::111122223333:root"}), 1),
        (statement("Deny", "ecr:PutImage"), 0),
        (statement("Deny", **NOT_THEIRS), 0),
        # It depends on the request.
        (statement("Deny", Condition={"Bool": {"aws:SecureTransport": "false"}}), 0),
    ],
)
def test_repository_is_closed_only_by_what_certainly_denies_the_role(
    policy: str | None, denied: int
) -> None:
    """To the role, to its account, or to everyone."""
    found = list(policies.OfEcr("", {ALIGN: policy}).denials(ROLE))
    assert len(found) == denied
    assert {(one.resource, one.by) for one in found} <= {(ALIGN, "resource")}


@pytest.mark.parametrize(("registry", "denied"), [("", 1), (statement("Allow", CREATE), 0)])
def test_role_is_asked_whether_it_may_fill_the_cache(registry: str, denied: int) -> None:
    """Beside what it is asked anyway, and never about a secret that ECR alone reads."""
    iam = Iam("eu-central-1", "ec2.amazonaws.com")
    iam.simulated(roles.ECS, "*")
    iam.simulated((policies.TOKEN,), "*")
    actions = (*FIRST_PULL, *policies.READING)
    results = [
        {
            "EvalActionName": action,
            "EvalResourceName": f"{REPOSITORIES}/*",
            "EvalDecision": "implicitDeny" if action == CREATE else "allowed",
        }
        for action in actions
    ]
    iam.stubs.iam.add_response(
        "simulate_principal_policy",
        {"EvaluationResults": results},
        {"PolicySourceArn": ROLE, "ActionNames": [*actions], "ResourceArns": [f"{REPOSITORIES}/*"]},
    )
    found = iam.look(
        repositories=[f"{REPOSITORIES}/*"], of_ecr=lambda: policies.OfEcr(registry, {ALIGN: ""})
    )
    assert [one.action for one in found.denied] == [CREATE] * denied


def test_repositories_are_those_of_images_that_ecr_pulls() -> None:
    """Images of other registries, of ECR without the cache, and words that are none, have none."""
    of = Cache("111122223333.dkr.ecr.eu-central-1.amazonaws.com", (Cached("ghcr.io", "lab/ghcr"),))
    names = [f"{of.host}/lab/ghcr/align:3", f"{of.host}/align:3", "ghcr.io/lab/align", "No", ""]
    assert cache.repositories(of, "aws", names) == (ALIGN,)
    assert cache.patterns(of, "aws") == (f"{REPOSITORIES}/*",)


class Simulation:
    """A client of IAM that refuses one action, and remembers whom it was asked about."""

    def __init__(self, refused: str) -> None:
        self.meta, self._refused, self.asked = client("iam").meta, refused, set[str]()

    def get_paginator(self, name: str) -> Any:
        assert name == "simulate_principal_policy"

        def paginate(_: Any, *, PolicySourceArn: str, ActionNames: list[str], **more: Any) -> Any:
            self.asked.add(PolicySourceArn)
            resource = more.get("ResourceArns", ["*"])[0]
            decided = {
                action: "implicitDeny" if action == self._refused else "allowed"
                for action in ActionNames
            }
            results = [
                {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision}
                for action, decision in decided.items()
            ]
            return [{"EvaluationResults": results}]

        return type("Pages", (), {"paginate": paginate})()


STACK = Stack(
    name="lab",
    id="arn:aws:cloudformation:eu-central-1:111122223333:stack/lab/1",
    status="CREATE_COMPLETE",
    reason="",
    parameters={"RegistryUrl": "ghcr.io"},
    outputs={"RegistrySecretArn": ARN, "CacheRepositoryPrefix": "lab/ghcr"},
    tags={},
    role_arn=None,
    protected=False,
)


def test_execution_role_is_asked_where_fargate_pulls_with_it() -> None:
    """On EC2 the instances' role pulls; and another image is no matter of the cache's."""
    image = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/lab/ghcr/align:3"
    job = facts.Job(id="1", image=image, fargate=True, execution_role=ROLE)
    others = [
        replace(job, fargate=False, execution_role=f"{ROLE}-of-ec2"),
        replace(job, image="quay.io/lab/align", execution_role=f"{ROLE}-of-quay"),
        replace(job, execution_role=""),
    ]
    iam = Simulation(CREATE)
    jobs: Future[Any] = Future()
    jobs.set_result(((job, job, *others), {}, ()))
    of_ecr: Future[policies.OfEcr] = Future()
    of_ecr.set_result(policies.OfEcr())
    scope = collect.Scope(stack="lab", region="eu-central-1")
    collector = collect.Collector(Caller(lambda _: iam), scope, None, NOW)
    found = collector.execution_roles(collect.Origin(stack=STACK, exists=True), jobs, of_ecr)
    denial = facts.Denial(action=CREATE, resource=f"{REPOSITORIES}/*")
    assert found == (facts.Role(name="lab", denied=(denial,)),)
    assert iam.asked == {ROLE}
