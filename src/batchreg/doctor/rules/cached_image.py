"""Images that ECR pulls for a stack, and those that it could pull."""

from __future__ import annotations

import re

from batchreg.doctor.facts import Facts, Job
from batchreg.doctor.filters import State
from batchreg.doctor.path import Path, paths, to_internet
from batchreg.doctor.rules import Evidence, Found, Layer, Table
from batchreg.doctor.rules.breaks import listed
from batchreg.doctor.rules.cache import allow, in_cache, upstream
from batchreg.doctor.rules.commands import batchreg
from batchreg.doctor.rules.credentials import readable
from batchreg.doctor.rules.image import (
    has_more_credentials,
    key_of,
    pull_cause,
    said_by_agent,
    verdict_cause,
)
from batchreg.render.upstreams import FIRST_PULL

RULES = Table()
rule = RULES.rule

# github.com/aws/containers-roadmap/issues/2354: also where there is no such image.
UPSTREAM_REFUSED = "authentication to the upstream registry failed"
NOT_AUTHORIZED = re.compile(r"not authorized to perform:? (ecr:\w+)")
# What the agent may say of an image that ECR did not get.
FAILED_PULLS = ("no-tag", "pull-denied", "pull-failed", "registry-unreachable")
ECR = "docs.aws.amazon.com/AmazonECR/latest/userguide/"


@rule(
    "image-not-by-its-cached-name",
    "The job names the image at its registry, and only ECR has the credentials",
    layer=Layer.IMAGE,
    source=ECR + "pull-through-cache-working-pulling.html",
)
def image_not_by_its_cached_name(facts: Facts) -> Found:
    if has_more_credentials(facts):
        return
    given = {secret.host for secret in readable(facts) if not secret.cached}
    refused = [
        job.image
        for job in facts.jobs or ()
        if not job.own_credentials and (pull_cause(job) or ("",))[0] == "pull-denied"
    ]
    if facts.image and verdict_cause(facts) == "no-credentials-for-registry":
        refused.append(facts.image.image)
    for image in dict.fromkeys(refused):
        name = in_cache(facts, image)
        if name and key_of(image) not in given:
            yield Evidence(
                f"{image} cannot be pulled without credentials, and the instances have none for its "
                "registry.",
                step=f"Use the name by which ECR pulls it in the job definition: {name}. To print "
                f"such names: {batchreg(facts, 'image', image)}",
            )


@rule(
    "first-pull-without-internet",
    "The first pull of an image through ECR's cache needs a route to the internet",
    layer=Layer.IMAGE,
    source=ECR + "pull-through-cache.html, considerations",
    symptom_of=Layer.CACHE | Layer.SECRET,
)
def first_pull_without_internet(facts: Facts) -> Found:
    closed = _by_endpoint_alone(facts)
    for job in facts.jobs or ():
        said = pull_cause(job)
        if said and said[0] in FAILED_PULLS and closed and upstream(facts, job.image):
            endpoints = [path.endpoint.id for path in closed if path.endpoint]
            yield Evidence(
                f"{job.label}: {said[1]}",
                step="There is no way to the internet from "
                f"{listed(path.subnet.id for path in closed)}, which reach ECR through "
                f"{listed(endpoints)}. In such a VPC AWS asks for a route to a NAT gateway for the "
                "first pull of an image. Add one, or pull the image once from elsewhere: docker "
                f"pull {job.image}",
            )


def _by_endpoint_alone(facts: Facts) -> list[Path]:
    """Return the paths to ECR's endpoint from subnets that certainly have no way to the internet."""
    if not facts.cache_rules:
        return []
    closed = {path.subnet.id for path in to_internet(facts) if path.state is State.BROKEN}
    return [
        path
        for path in paths(facts)
        if path.subnet.id in closed and path.destination.name == "ecr.dkr" and path.endpoint
    ]


@rule(
    "cache-not-filled",
    "ECR did not get the image from its registry",
    layer=Layer.IMAGE,
    source=ECR + "error-pullthroughcache.html",
    symptom_of=Layer.CACHE | Layer.SECRET | Layer.ROLE,
)
def cache_not_filled(facts: Facts) -> Found:
    if _by_endpoint_alone(facts):
        return  # first-pull-without-internet says so
    for cause in ("no-tag", "pull-denied"):
        for job, evidence in said_by_agent(facts, cause):
            same = facts.image and facts.image.image == job.image
            if upstream(facts, job.image) and not (same and verdict_cause(facts)):
                yield Evidence(evidence, *_filled(facts, job, evidence))


def _filled(facts: Facts, job: Job, said: str) -> tuple[str, str]:
    """Return (fix, step) for what the agent said of a cached image."""
    its_own = upstream(facts, job.image)
    role = facts.role if facts.role and facts.role.exists and not job.fargate else None
    if role and role.name and (refused := NOT_AUTHORIZED.search(said)):
        return allow(facts, role, refused[1]), ""
    check = f"To see which: {batchreg(facts, 'check', job.image)}"
    if UPSTREAM_REFUSED in said:
        return "", (
            f"The registry has no {its_own}, or the credentials in the stack's secret do not reach "
            f"it. {check}"
        )
    whose = "job's execution role" if job.fargate else "instances' role"
    return "", (
        f"ECR says the same where the registry has no {its_own}, and where the {whose} is not "
        f"allowed {' or '.join(FIRST_PULL)}. {check}"
    )
