"""The image: what the registry says from here, and what the ECS agent said when it pulled."""

from __future__ import annotations

import re
from collections.abc import Callable

from batchreg.doctor.facts import Facts, Job, Secret
from batchreg.doctor.rules import NO_CREDENTIALS, NOTHING, Evidence, Found, Layer, Table
from batchreg.doctor.rules.cache import in_cache, upstream
from batchreg.doctor.rules.commands import attach, batchreg, deploy, repeated
from batchreg.doctor.rules.credentials import own_registries, readable
from batchreg.doctor.rules.refusals import explicit
from batchreg.doctor.rules.repairs import attach_agent_policy, rewrite
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
# What an agent says that has got no answer from the registry, or none that tells anything.
ALSO_FROM_THERE = ("registry-unreachable", "tls", "pull-failed", "disk-full")
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
FROM_HERE = ("registry-unreachable", "tls")  # what depends on where one asks
# What the registry says to ECR as well, which asks with the same credentials, from AWS.
OF_CACHED = ("no-tag", "no-permission", "rate-limited", "wrong-architecture", "wrong-credentials")
# Words of the agent's about an image that was pulled, or of Docker's about the disk.
ELSEWHERE = re.compile(r"exec format error|no space left on device")
ECR = re.compile(r"\d{12}\.dkr[.-]ecr[.-]")
SCRIPT = re.compile(r"\.(sh|bash|py|pl|rb|R)\b[\"']?: exec format error")
CURABLE = ("no-tag", "wrong-architecture", "rate-limited")  # a good answer from here refutes them


def pull_cause(job: Job) -> tuple[str, str] | None:
    """Return (cause, the agent's words) of a job whose image was not pulled or does not start.

    A container that runs from the cache after a failed pull carries that reason too: it explains
    nothing about a job that runs, has succeeded or has an exit code.
    """
    if not job.stuck:
        return None
    for reason in job.reasons:
        if explicit(reason):
            continue
        if (job.exit_code is None and "CannotPull" in reason) or ELSEWHERE.search(reason):
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
    cause = VERDICTS.get(facts.image.cause, "image-refused")
    if upstream(facts, facts.image.image):
        return cause if cause in OF_CACHED and not _accepted(facts, cause) else ""
    if cause in FROM_HERE:
        return "" if answered(facts) else cause
    return "" if facts.image.anonymous and has_more_credentials(facts) else cause


def _accepted(facts: Facts, cause: str) -> bool:
    """Tell whether ECR has just used the credentials that this machine was refused with."""
    assert facts.image
    its_own = key_of(upstream(facts, facts.image.image))
    valid = {one.host for one in facts.cache_rules if one.valid}
    return cause == "wrong-credentials" and its_own in valid


def answered(facts: Facts) -> bool:
    """Tell whether instances got an answer from the image's registry: then they do reach it."""
    assert facts.image
    key = key_of(facts.image.image)
    if key in map(key_of, facts.running_images):
        return True
    for job in facts.jobs or ():
        said = pull_cause(job)
        started = job.status in ("RUNNING", "SUCCEEDED") or job.exit_code is not None
        if key_of(job.image) == key and (started or (said and said[0] not in ALSO_FROM_THERE)):
            return True
    return False


def has_more_credentials(facts: Facts) -> bool:
    """Tell whether instances or the job may have credentials that could not be read from here."""
    template, wanted = facts.launch_template, key_of(facts.image.image) if facts.image else ""
    if facts.secrets is None or (template is None and not facts.ours):
        return True
    if template and template.sets_credentials:
        return True
    if any(one.exists and not one.host and not one.problem for one in facts.secrets):
        return True
    own = any(job.own_credentials and key_of(job.image) == wanted for job in facts.jobs or ())
    return own and not any(one.of_job and one.host == wanted for one in facts.secrets)


def said_by_registry(facts: Facts, cause: str) -> list[str]:
    if not facts.image or verdict_cause(facts) != cause:
        return []
    return [f"{facts.image.image}, checked from this machine: {facts.image.fact}"]


def said_by_agent(facts: Facts, cause: str) -> list[tuple[Job, str]]:
    """Return what the agent said about jobs, unless the registry's present answer refutes it."""
    found = []
    for job in facts.jobs or ():
        if "exec format error" in " ".join(job.reasons) and is_script(facts, job):
            continue
        cured = (
            cause in CURABLE and facts.image and facts.image.ok and facts.image.image == job.image
        )
        said = pull_cause(job)
        if said and said[0] == cause and (job.asked or not cured):
            found.append((job, f"{job.label}: {said[1]}"))
    return found


def is_script(facts: Facts, job: Job) -> bool:
    """Tell whether an exec format error is about a script without an interpreter line.

    The kernel says the same of a script without `#!` and of a program for another processor; the
    registry's answer tells which, or the script's name.
    """
    right = facts.image and facts.image.ok and facts.image.image == job.image
    return bool(right) or any(SCRIPT.search(reason) for reason in job.reasons)


def key_of(image: str) -> str:
    """Return the ECS agent's key for an image's registry, empty for an invalid image name."""
    try:
        parsed = parse(image)
    except BatchregError:
        return ""
    return HUB if parsed.on_hub else parsed.registry


@rule(
    "no-credentials-for-registry",
    "The instances have no credentials for the image's registry",
    layer=Layer.IMAGE,
    source="amazon-ecs-agent, dockerauth.go: credentials are chosen by the image's host",
    symptom_of=Layer.SECRET,
)
def no_credentials_for_registry(facts: Facts) -> Found:
    if facts.secrets is None or has_more_credentials(facts):
        return
    hosts = _covered(facts)
    refused = [
        job.image
        for job in facts.jobs or ()
        if not job.own_credentials
        and not ECR.match(job.image)
        and (pull_cause(job) or ("",))[0] == "pull-denied"
    ]
    if facts.image and verdict_cause(facts) == "no-credentials-for-registry":
        refused.append(facts.image.image)
    for image in dict.fromkeys(refused):
        if key_of(image) not in hosts and not in_cache(facts, image):
            whose = "the stack has" if facts.ours or facts.attached else "the instances have"
            covered = f"some for: {', '.join(sorted(hosts))}" if hosts else "none"
            yield Evidence(
                f"{image} cannot be pulled without credentials; {whose} {covered}.",
                *add_registry(facts, key_of(image)),
            )


def _covered(facts: Facts) -> set[str]:
    """Return the keys of the registries for which the instances get credentials."""
    template = facts.launch_template
    if not (facts.ours or facts.attached) and template and not template.fetches_credentials:
        return set()  # another environment of the queue may have some
    return {secret.host for secret in readable(facts) if secret.host and not secret.cached}


def add_registry(facts: Facts, key: str) -> tuple[str, str]:
    """Return (fix, step) that add a registry to the stack and keep the ones that it has."""
    host = "docker.io" if key == HUB else key
    if not facts.ours:
        return attach(facts, host)
    own = own_registries(facts)
    brought = [one.arn for one in facts.on_instances if not one.owned]
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
    cached: bool = True,
) -> None:
    """Enter the rules of a cause: one for the registry's answer, one for the agent's words.

    `step` returns a step, or (fix, step); its job is None for the registry's answer. `cached`: what
    the agent says means the same for an image that ECR pulls.
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
                if cached or not upstream(facts, job.image):
                    yield Evidence(evidence, *help_for(facts, job))


def _registrys_step(facts: Facts, _job: Job | None) -> str:
    """Return the step that the registry's answer calls for."""
    return facts.image.step if facts.image and facts.image.step else check(facts)


def check(facts: Facts, job: Job | None = None) -> str:
    """Return the step that finds out more about an image."""
    name = job.image if job else facts.image.image if facts.image else ""
    if not name:
        return f"To find out more: {batchreg(facts, 'check', 'IMAGE')}"
    if not facts.stack_name:
        host = key_of(name)
        host = "docker.io" if host == HUB else host
        words = ("--registry-url", host, "--username", "USER", name)
        return f"To find out more: {batchreg(facts, 'check', *words)}"
    return f"To find out more: {batchreg(facts, 'check', name)}"


def _right_credentials(facts: Facts, _job: Job | None) -> tuple[str, str]:
    secret = _secret_for(facts, facts.image.image if facts.image else "")
    return rewrite(facts, secret) if secret else ("", "Use credentials that the registry accepts.")


def _secret_for(facts: Facts, image: str) -> Secret | None:
    """Return the secret that an image's registry is asked with: a job's own counts first."""
    its_own = upstream(facts, image)
    fitting = [
        secret
        for secret in readable(facts)
        if secret.host == key_of(its_own or image) and secret.cached == bool(its_own)
    ]
    return next(iter(sorted(fitting, key=lambda one: not one.of_job)), None)


def _tag(facts: Facts, job: Job | None) -> str:
    if not job and facts.image and facts.image.step:
        return facts.image.step
    return "Correct the image's name or tag in the job definition, or push the image."


def _larger_disk(facts: Facts, _job: Job | None) -> tuple[str, str]:
    size = facts.stack.root_volume_gib if facts.stack else 0
    if not facts.ours:
        return "", (
            "Give the instances a larger disk: a block device mapping in the launch template of "
            "the compute environment. If the program of a job fills it, that has to write less."
        )
    if not size:
        return "", f"Deploy with a larger disk: {deploy(facts, '--root-volume-gib')} GIB"
    return deploy(facts, "--root-volume-gib", str(2 * size)), (
        f"This doubles the disk of each instance, which is {size} GiB now."
    )


def _fewer_pulls(facts: Facts, job: Job | None) -> str:
    name = in_cache(facts, job.image if job else facts.image.image if facts.image else "")
    if name:
        return (
            "Use the name by which ECR pulls the image for all jobs, with credentials, in the job "
            f"definition: {name}"
        )
    return (
        "Wait for the limit to reset, or use an account with a higher limit. To pull less, let "
        "instances use the images that they have (they then do not notice a tag that has moved): "
        + (
            deploy(facts, "--image-pull-behavior", "prefer-cached")
            if facts.ours
            else "ECS_IMAGE_PULL_BEHAVIOR=prefer-cached in /etc/ecs/ecs.config."
        )
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
    symptom_of=Layer.SECRET | Layer.CACHE,
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
_enter("no-tag", "The registry has no such image", _tag, source=DISTRIBUTION, cached=False)
_enter(
    "rate-limited",
    "The registry limits the pulls",
    _fewer_pulls,
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
        "the instances with a script"
        + (f": {deploy(facts, '--user-data')} FILE" if facts.ours else " in their user data.")
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


@rule(
    "no-interpreter",
    "The job's command is a script without an interpreter line",
    layer=Layer.IMAGE,
    source="man7.org/linux/man-pages/man2/execve.2.html, ENOEXEC",
)
def no_interpreter(facts: Facts) -> Found:
    for job in facts.jobs or ():
        for reason in job.reasons if job.stuck else ():
            if "exec format error" in reason and is_script(facts, job):
                yield Evidence(
                    f"{job.label}: {reason}",
                    step="Begin the script with a line such as #!/bin/sh, and build the image "
                    "again; or call the interpreter in the job's command.",
                )
                break


@rule(
    "ecr-denied",
    "The role is not allowed to pull the image from ECR",
    layer=Layer.IMAGE,
    source="docs.aws.amazon.com/AmazonECR/latest/userguide/ECR_on_ECS.html",
    symptom_of=Layer.ROLE,
)
def ecr_denied(facts: Facts) -> Found:
    for job, evidence in said_by_agent(facts, "pull-denied"):
        if ECR.match(job.image) and not upstream(facts, job.image):
            role = facts.role if facts.role and facts.role.name and not job.fargate else None
            yield Evidence(
                evidence,
                fix=attach_agent_policy(facts, role) if role and role.exists else "",
                step="If the repository is in another account, its own policy has to allow this "
                "account as well.",
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
    hosts = _covered(facts)
    known = verdict_cause(facts)
    for job, evidence in said_by_agent(facts, "pull-denied"):
        if ECR.match(job.image):
            continue  # ecr-denied says so
        own = job.own_credentials or key_of(job.image) in hosts
        if not own and in_cache(facts, job.image):
            continue  # image-not-by-its-cached-name says so
        if any(
            not view.ours and not _covered(view) and not has_more_credentials(view)
            for view in facts.views()
        ):
            continue  # no-credentials-for-registry says so
        if not job.own_credentials and hosts and key_of(job.image) not in hosts:
            continue  # no-credentials-for-registry says so
        same = facts.image and key_of(facts.image.image) == key_of(job.image)
        if same and known in ("wrong-credentials", "no-permission", "no-credentials-for-registry"):
            continue  # that finding says more
        if facts.image and facts.image.ok and facts.stack and facts.stack_name:
            step = (
                "The credentials work from here. Instances use changed ones within "
                f"{facts.stack.refresh_minutes} minutes: submit the job again."
            )
        else:
            step = "To tell wrong credentials from a missing permission: " + (
                batchreg(facts, "check", job.image or "IMAGE")
                if facts.stack_name
                else check(facts, job).partition(": ")[2]
            )
        yield Evidence(evidence, step=step)


@rule("pull-failed", "The image could not be pulled", layer=Layer.IMAGE, source=AGENT)
def pull_failed(facts: Facts) -> Found:
    for job, evidence in said_by_agent(facts, "pull-failed"):
        yield Evidence(evidence, step=check(facts, job))
