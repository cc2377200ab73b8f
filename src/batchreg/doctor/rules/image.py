"""The image: what the registry says from here, and what the ECS agent said when it pulled."""

from __future__ import annotations

import re
from collections.abc import Callable

from batchreg.doctor.facts import Facts, Job, Secret
from batchreg.doctor.rules import NO_CREDENTIALS, NOTHING, Evidence, Found, Layer, Table
from batchreg.doctor.rules.commands import batchreg, deploy, repeated
from batchreg.doctor.rules.credentials import own_registries, readable
from batchreg.doctor.rules.repairs import rewrite
from batchreg.errors import BatchregError
from batchreg.registry.images import parse
from batchreg.registry_login import HUB

RULES = Table()
rule = RULES.rule

AGENT = "docs.aws.amazon.com/AmazonECS/latest/developerguide/task_cannot_pull_image.html"
DISTRIBUTION = "github.com/opencontainers/distribution-spec, error codes"

# Causes by the agent's words about a failed pull, the first that fits: most are the Docker Engine's
# or the registry's. Source: AGENT, and what people quote (tests/faults).
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
# What the causes of `registry` are called here; any other is image-refused.
VERDICTS = {
    "hub-misspelt": "image-misspelled",
    "host-case": "image-misspelled",
    "login-needed": "no-credentials-for-registry",
    "wrong-login": "wrong-credentials",
    "no-right": "no-permission",
    "no-tag": "no-tag",
    "no-repository": "no-tag",
    "rate-limited": "rate-limited",
    "wrong-architecture": "wrong-architecture",
    "no-tls": "tls",
    "tls": "tls",
    "unreachable": "registry-unreachable",
}
CURABLE = ("no-tag", "wrong-architecture", "rate-limited")  # a good answer from here refutes them


def pull_cause(job: Job) -> tuple[str, str] | None:
    """Return (cause, the agent's words) of a job whose image was not pulled or does not start.

    A container that runs from the cache after a failed pull carries that reason too: it explains
    nothing about a job that runs, has succeeded or has an exit code.
    """
    if not job.stuck:
        return None
    for reason in job.reasons:
        if (job.exit_code is None and "CannotPull" in reason) or "exec format error" in reason:
            return next(
                (cause, reason)
                for cause, pattern in REASONS
                if re.search(pattern, reason, re.IGNORECASE)
            )
    return None


def verdict_cause(facts: Facts) -> str:
    """Return what the registry's refusal is called here, empty without one."""
    if not facts.image or facts.image.ok:
        return ""
    return VERDICTS.get(facts.image.cause, "image-refused")


def said_by_registry(facts: Facts, cause: str) -> list[str]:
    if not facts.image or verdict_cause(facts) != cause:
        return []
    return [f"{facts.image.image}, checked from this machine: {facts.image.fact}"]


def said_by_agent(facts: Facts, cause: str) -> list[tuple[Job, str]]:
    """Return what the agent said about jobs, unless the registry's present answer refutes it."""
    found = []
    for job in facts.jobs or ():
        cured = (
            cause in CURABLE and facts.image and facts.image.ok and facts.image.image == job.image
        )
        said = pull_cause(job)
        if said and said[0] == cause and (job.asked or not cured):
            found.append((job, f"{job.label}: {said[1]}"))
    return found


def key_of(image: str) -> str:
    """Return the ECS agent's key for an image's registry, empty for an invalid image name."""
    try:
        parsed = parse(image)
    except BatchregError:
        return ""
    return HUB if parsed.on_hub else parsed.registry


@rule(
    "no-credentials-for-registry",
    "The stack has no credentials for the image's registry",
    layer=Layer.IMAGE,
    source="amazon-ecs-agent, dockerauth.go: credentials are chosen by the image's host",
    symptom_of=Layer.SECRET,
)
def no_credentials_for_registry(facts: Facts) -> Found:
    if facts.secrets is None or any(
        secret.exists and not secret.host and not secret.problem for secret in facts.secrets
    ):
        return  # a secret that this user is not allowed to read may be the one
    hosts = {secret.host for secret in facts.secrets if secret.host}
    refused = [
        job.image
        for job in facts.jobs or ()
        if not job.own_credentials and (pull_cause(job) or ("",))[0] == "pull-denied"
    ]
    if facts.image and verdict_cause(facts) == "no-credentials-for-registry":
        refused.append(facts.image.image)
    for image in dict.fromkeys(refused):
        if key_of(image) not in hosts:
            covered = ", ".join(sorted(hosts)) or "none"
            yield Evidence(
                f"{image} cannot be pulled without credentials; the stack has some for: {covered}.",
                *add_registry(facts, key_of(image)),
            )


def add_registry(facts: Facts, key: str) -> tuple[str, str]:
    """Return (fix, step) that add a registry to the stack and keep the ones that it has."""
    host = "docker.io" if key == HUB else key
    own = own_registries(facts)
    brought = [one.arn for one in facts.secrets or () if not one.owned and not one.of_job]
    if own or not brought:
        return (
            deploy(facts, *repeated("--registry", [*own, host])),
            f"It asks for the credentials of {host}. The list is complete: a registry that is left "
            "out is removed.",
        )
    command = deploy(facts, *repeated("--secret-arn", brought), "--secret-arn")
    return "", (
        f"Create a secret with the credentials for {host}, then add its ARN to the stack's: "
        f"{command} NEW-ARN"
    )


def _enter(
    cause: str,
    text: str,
    step: Callable[[Facts, Job | None], str | tuple[str, str]],
    *,
    source: str = AGENT,
    registry: bool = True,
    agent: bool = True,
    symptom_of: Layer = NOTHING,
    agent_symptom_of: Layer = NOTHING,
) -> None:
    """Enter the rules of a cause: one for the registry's answer, one for the agent's words.

    `step` returns a step, or (fix, step); its job is None for the registry's answer.
    """

    def help_for(facts: Facts, job: Job | None) -> tuple[str, str]:
        found = step(facts, job)
        return found if isinstance(found, tuple) else ("", found)

    if registry:

        @rule(cause, text, layer=Layer.IMAGE, source=source, symptom_of=symptom_of)
        def from_here(facts: Facts) -> Found:
            for evidence in said_by_registry(facts, cause):
                yield Evidence(evidence, *help_for(facts, None))

    if agent:
        silent = symptom_of | agent_symptom_of

        @rule(cause, text, layer=Layer.IMAGE, source=source, symptom_of=silent)
        def from_there(facts: Facts) -> Found:
            for job, evidence in said_by_agent(facts, cause):
                yield Evidence(evidence, *help_for(facts, job))


def _registrys_step(facts: Facts, _job: Job | None) -> str:
    """Return the step that the registry's answer calls for."""
    return facts.image.step if facts.image and facts.image.step else check(facts)


def check(facts: Facts, job: Job | None = None) -> str:
    """Return the step that finds out more about an image."""
    name = job.image if job else facts.image.image if facts.image else ""
    if not name:
        return "Check the image with batchreg check."
    return f"To find out more: {batchreg(facts, 'check', name)}"


def _right_credentials(facts: Facts, _job: Job | None) -> tuple[str, str]:
    secret = _secret_for(facts, facts.image.image if facts.image else "")
    return rewrite(facts, secret) if secret else ("", "Use credentials that the registry accepts.")


def _secret_for(facts: Facts, image: str) -> Secret | None:
    """Return the secret that an image's registry is asked with: a job's own counts first."""
    fitting = [secret for secret in readable(facts) if secret.host == key_of(image)]
    return next(iter(sorted(fitting, key=lambda one: not one.of_job)), None)


def _tag(facts: Facts, job: Job | None) -> str:
    if not job and facts.image and facts.image.step:
        return facts.image.step
    return "Correct the image's name or tag in the job definition, or push the image."


def _larger_disk(facts: Facts, _job: Job | None) -> tuple[str, str]:
    size = facts.stack.root_volume_gib if facts.stack else 0
    if not size:
        return "", f"Deploy with a larger disk: {deploy(facts, '--root-volume-gib')} GIB"
    return deploy(facts, "--root-volume-gib", str(2 * size)), (
        f"This doubles the disk of each instance, which is {size} GiB now."
    )


_enter(
    "image-misspelled",
    "The image's registry is written in a way that gets no credentials",
    _registrys_step,
    source="amazon-ecs-agent, dockerauth.go: hosts are compared letter by letter",
    agent=False,
)
_enter(
    "wrong-credentials",
    "The registry rejects the credentials",
    _right_credentials,
    source=DISTRIBUTION,
    agent=False,
    symptom_of=Layer.SECRET,
)
_enter(
    "no-permission",
    "The credentials are not allowed to pull this image",
    lambda facts, job: (
        "Give their user permission to pull this repository, in the registry's administration."
    ),
    source=DISTRIBUTION,
    agent=False,
    symptom_of=Layer.SECRET,
)
_enter("no-tag", "The registry has no such image", _tag, source=DISTRIBUTION)
_enter(
    "rate-limited",
    "The registry limits the pulls",
    lambda facts, job: (
        "Wait for the limit to reset, or use an account with a higher limit. To pull less, let "
        "instances use the images that they have (they then do not notice a tag that has moved): "
        f"{deploy(facts, '--image-pull-behavior', 'prefer-cached')}"
    ),
    source="docs.docker.com/docker-hub/usage/",
)
_enter(
    "wrong-architecture",
    "The image is for another architecture than the instances",
    lambda facts, job: (
        "Build it for both: docker buildx build --platform linux/amd64,linux/arm64 --push; or "
        "deploy other instance types."
    ),
)
_enter(
    "tls",
    "The registry's certificate is not trusted",
    lambda facts, job: (
        "Give the registry a certificate from a public authority, or install its own authority on "
        f"the instances with a script: {deploy(facts, '--user-data')} FILE"
    ),
)
_enter(
    "registry-unreachable",
    "The registry does not respond",
    lambda facts, job: (
        "Check that the registry is running, and that the subnets, the security groups and the "
        "registry's own firewall let the instances through."
    ),
    agent_symptom_of=Layer.NETWORK,
)
_enter("disk-full", "The instances' disks are full", _larger_disk, registry=False)
_enter(
    "image-refused",
    "The registry does not serve the image",
    _registrys_step,
    source=DISTRIBUTION,
    agent=False,
)


@rule(
    "pull-denied",
    "The registry rejects the instances",
    layer=Layer.IMAGE,
    source=AGENT,
    symptom_of=NO_CREDENTIALS,
)
def pull_denied(facts: Facts) -> Found:
    hosts = {secret.host for secret in readable(facts) if secret.host}
    known = verdict_cause(facts)
    for job, evidence in said_by_agent(facts, "pull-denied"):
        if not job.own_credentials and hosts and key_of(job.image) not in hosts:
            continue  # no-credentials-for-registry says so
        same = facts.image and key_of(facts.image.image) == key_of(job.image)
        if same and known in ("wrong-credentials", "no-permission", "no-credentials-for-registry"):
            continue  # that finding says more
        if facts.image and facts.image.ok and facts.stack:
            step = (
                "The credentials work from here. Instances use changed ones within "
                f"{facts.stack.refresh_minutes} minutes: submit the job again."
            )
        else:
            step = (
                "To tell wrong credentials from a missing permission: "
                f"{batchreg(facts, 'check', job.image or 'IMAGE')}"
            )
        yield Evidence(evidence, step=step)


@rule("pull-failed", "The image could not be pulled", layer=Layer.IMAGE, source=AGENT)
def pull_failed(facts: Facts) -> Found:
    for job, evidence in said_by_agent(facts, "pull-failed"):
        yield Evidence(evidence, step=check(facts, job))
