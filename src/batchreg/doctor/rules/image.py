"""The image: what the registry says from here, and what the ECS agent said when it pulled."""

from __future__ import annotations

import re
from collections.abc import Callable

from batchreg.doctor.facts import Facts, Job
from batchreg.doctor.rules import Found, Table, deploy
from batchreg.errors import BatchregError
from batchreg.registry.images import parse
from batchreg.registry_login import HUB

RULES = Table()
rule = RULES.rule

# Reasons of amazon-ecs-agent's CannotPullContainerError, the first that fits: most are the Docker
# Engine's or the registry's words.
REASONS = (
    ("rate-limited", r"toomanyrequests|too many requests|rate limit|\b429\b"),
    ("disk-full", r"no space left"),
    (
        "wrong-architecture",
        r"no matching manifest|does not match the (specified|detected|host) "
        r"platform|exec format error",
    ),
    (
        "pull-denied",
        r"unauthorized|denied|authentication required|no basic auth|\b40[13]\b|"
        r"docker login",
    ),
    ("no-tag", r"manifest unknown|not found|does not exist"),
    ("tls", r"x509|certificate|server gave HTTP response to HTTPS"),
    (
        "registry-unreachable",
        r"i/o timeout|deadline exceeded|dial tcp|no such host|handshake|"
        r"connection re|Client\.Timeout|unreachable|EOF|context canceled",
    ),
    ("pull-failed", r""),
)
# What the causes of `registry` are called here, where they differ.
VERDICTS = {
    "unreachable": "registry-unreachable",
    "no-tls": "tls",
    "no-repository": "no-tag",
    "hub-misspelt": "image-misspelt",
    "host-case": "image-misspelt",
}
KNOWN = (
    "image-misspelt",
    "login-needed",
    "wrong-login",
    "no-right",
    "no-tag",
    "rate-limited",
    "wrong-architecture",
    "tls",
    "registry-unreachable",
)

# What asking the registry from here refutes.
CURABLE = ("no-tag", "wrong-architecture", "rate-limited")

NO_SECRET = (
    "secret-missing",
    "secret-deleted",
    "secret-empty",
    "secret-not-json",
    "secret-incomplete",
    "secret-unusable",
    "key-unusable",
)
NO_LOGIN = (
    *NO_SECRET,
    "secrets-clash",
    "profile-missing",
    "role-not-trusted",
    "role-denied",
    "key-denied",
    "user-data-without-login",
    "metadata-off",
)


def pull_cause(job: Job) -> tuple[str, str] | None:
    """Return (cause, the agent's words) of a job whose image did not come."""
    for reason in job.reasons:
        if "CannotPull" in reason or re.search("exec format error", reason):
            return next(
                (cause, reason)
                for cause, pattern in REASONS
                if re.search(pattern, reason, re.IGNORECASE)
            )
    return None


def said_by_registry(facts: Facts, cause: str) -> Found:
    """Yield the registry's verdict, if it is of this cause, without the step that it ends with."""
    verdict = facts.image
    if verdict and not verdict.ok and VERDICTS.get(verdict.cause, verdict.cause) == cause:
        yield f"{verdict.image}, asked from this machine: {verdict.text}", ""


def said_by_agent(facts: Facts, cause: str) -> Found:
    """Yield what the agent said about jobs, but what the registry now says otherwise about."""
    for job in facts.jobs or ():
        found = pull_cause(job)
        cured = (
            cause in CURABLE and facts.image and facts.image.ok and (facts.image.image == job.image)
        )
        if found and found[0] == cause and (job.asked or not cured):
            yield f"{job.label}: {found[1]}", ""


def key_of(image: str) -> str:
    """Return the ECS agent's key for an image's registry, empty for what is no image's name."""
    try:
        parsed = parse(image)
    except BatchregError:
        return ""
    return HUB if parsed.on_hub else parsed.registry


@rule(
    "no-login-for-registry", "No secret of the stack is for the image's registry", unless=NO_SECRET
)
def no_login_for_registry(facts: Facts) -> Found:
    if facts.secrets is None or any(
        secret.exists and not secret.host and not secret.problem for secret in facts.secrets
    ):
        return  # nobody knows what is in a secret that this user may not read
    hosts = {secret.host for secret in facts.secrets if secret.host}
    refused = [
        job.image
        for job in facts.jobs or ()
        if not job.own_login and (pull_cause(job) or ("",))[0] == "pull-denied"
    ]
    if facts.image and facts.image.cause == "login-needed":
        refused.append(facts.image.image)
    for image in dict.fromkeys(refused):
        if key_of(image) not in hosts:
            covered = ", ".join(sorted(hosts)) or "none"
            yield (
                f"{image} is refused without a login; the secrets' registries: {covered}.",
                f"{deploy(facts)} with a login for it: --registry-url, or one more --secret-arn",
            )


def _enter(
    cause: str,
    text: str,
    fix: Callable[[Facts], str],
    *,
    registry: bool = True,
    agent: bool = True,
    unless: tuple[str, ...] = (),
    agent_unless: tuple[str, ...] = (),
) -> None:
    if registry:

        @rule(cause, text, unless=unless)
        def from_here(facts: Facts) -> Found:
            for evidence, _ in said_by_registry(facts, cause):
                yield evidence, fix(facts)

    if agent:

        @rule(cause, text, unless=(*unless, *agent_unless))
        def from_there(facts: Facts) -> Found:
            for evidence, _ in said_by_agent(facts, cause):
                yield evidence, fix(facts)


_enter(
    "image-misspelt",
    "The image's registry is written in a way that gets no login",
    lambda facts: (
        "Write the image as Docker does: lab/align:3 or docker.io/lab/align:3 for "
        "Docker Hub, any other host in lower case"
    ),
    agent=False,
)
_enter(
    "wrong-login",
    "The registry refuses the login",
    lambda facts: f"{deploy(facts)} with the right --username and password",
    agent=False,
    unless=("no-login-for-registry", *NO_SECRET),
)
_enter(
    "no-right",
    "The login may not read this repository",
    lambda facts: (
        f"Give its user the right to read the repository, or {deploy(facts)} with another login"
    ),
    agent=False,
    unless=("no-login-for-registry", *NO_SECRET),
)
_enter(
    "no-tag",
    "There is no such image in the registry",
    lambda facts: "Mend the image's name or tag in the job definition, or push the image",
)
_enter(
    "rate-limited",
    "The registry limits the pulls",
    lambda facts: (
        "Use a login with a plan that allows more, and "
        f"{deploy(facts, '--image-pull-behavior prefer-cached')}"
    ),
)
_enter(
    "wrong-architecture",
    "The image is for another architecture than the instances",
    lambda facts: (
        "docker buildx build --platform linux/amd64,linux/arm64 --push; or other "
        f"instances: {deploy(facts, '--instance-type TYPE')}"
    ),
)
_enter(
    "tls",
    "The registry's certificate is not trusted",
    lambda facts: (
        "Give the registry a certificate from a public authority, or install its own "
        f"authority on the instances: {deploy(facts, '--user-data FILE')}"
    ),
)
_enter(
    "registry-unreachable",
    "The registry does not answer",
    lambda facts: (
        "See that the registry is up, and that the subnets, the security groups and "
        "the registry's own firewall let the instances through"
    ),
    agent_unless=(
        "no-route",
        "no-public-address",
        "no-route-to-registry",
        "egress-closed",
        "acl-closed",
        "dns-off",
    ),
)
_enter(
    "disk-full",
    "The instances' disks are full",
    lambda facts: deploy(facts, "--root-volume-gib 200") + ", or more",
    registry=False,
)


@rule("image-refused", "The registry does not hand out the image")
def image_refused(facts: Facts) -> Found:
    verdict = facts.image
    if verdict and not verdict.ok and VERDICTS.get(verdict.cause, verdict.cause) not in KNOWN:
        yield (
            f"{verdict.image}, asked from this machine: {verdict.text}",
            f"batchreg check {verdict.image}",
        )


@rule(
    "pull-denied",
    "The registry refuses the instances",
    unless=("no-login-for-registry", "wrong-login", "no-right", *NO_LOGIN),
)
def pull_denied(facts: Facts) -> Found:
    for evidence, _ in said_by_agent(facts, "pull-denied"):
        if facts.image and facts.image.ok and facts.stack:
            step = (
                f"The login works from here. Instances read a changed one within "
                f"{facts.stack.refresh_minutes} minutes: submit the job again"
            )
        else:
            step = (
                "batchreg check IMAGE tells a wrong login from a missing right; then "
                f"{deploy(facts)} with the right one"
            )
        yield evidence, step


@rule("pull-failed", "The image did not come")
def pull_failed(facts: Facts) -> Found:
    for evidence, _ in said_by_agent(facts, "pull-failed"):
        yield evidence, "batchreg check IMAGE says more"
