"""The ways of credentials, from a secret to a registry, with the step at which a finding ends them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from batchreg.doctor import destinations
from batchreg.doctor.facts import Facts, Job, Secret
from batchreg.doctor.findings import RULES, Finding, diagnose
from batchreg.doctor.page.traces import Figure, Mark, Node, Trace, until_broken
from batchreg.doctor.rules import Layer, credentials
from batchreg.doctor.rules.breaks import listed
from batchreg.doctor.rules.refusals import explicit
from batchreg.stack import console_lines

OF_INSTANCES = ("Secret", "KMS key", "Instance role", "ecs.config", "Registry")
OF_JOB = ("Secret", "KMS key", "Execution role", "Registry")
# The causes that break a step of the credentials; those of a secret are judged secret by secret.
AT_ROLE = {"profile-missing", "role-not-trusted", "role-denied", "key-denied"}
AT_INSTANCE = {
    *(rule.cause for rule in RULES if rule.layer is Layer.LAUNCH),
    *("user-data-not-mime", "parked", "no-credentials"),
}
AT_REGISTRY = {"wrong-credentials", "no-permission", "pull-denied", "image-misspelled"}


def figures(facts: Facts, findings: Sequence[Finding]) -> tuple[Figure, ...]:
    """Return the ways of credentials: to the instances of each environment, and of a job's own."""
    named = {finding.cause for finding in findings}
    found: dict[tuple[str, tuple[Trace, ...]], list[str]] = {}
    for view in facts.views():
        causes = named & {one.cause for one in diagnose(replace(view, others=()))}
        if traces := tuple(_to_instances(view, causes)):
            role = view.role.name if view.role else ""
            found.setdefault((role, traces), []).append(view.environment)
    drawn = [
        _figure(
            f"To the instances of {listed(names)}" if all(names) else "To the instances",
            (f"role {role}",) if role else (),
            OF_INSTANCES,
            traces,
        )
        for (role, traces), names in found.items()
    ]
    own_secrets = [one for one in facts.secrets or () if one.of_job] or [
        Secret(name="", host=host, seen=False)
        for host in _hosts_of([one for one in facts.jobs or () if one.own_credentials])
    ]
    if own := tuple(_of_job(facts, one, named) for one in own_secrets):
        drawn.append(_figure("In the job definition", (), OF_JOB, own))
    return tuple(drawn)


def _figure(
    title: str, details: tuple[str, ...], stages: tuple[str, ...], traces: tuple[Trace, ...]
) -> Figure:
    """Return a figure without the stages that no secret has, such as a key."""
    used = [number for number in range(len(stages)) if any(one.nodes[number] for one in traces)]
    return Figure(
        title,
        details,
        tuple(stages[number] for number in used),
        tuple(replace(one, nodes=tuple(one.nodes[number] for number in used)) for one in traces),
    )


def _to_instances(facts: Facts, causes: Collection[str]) -> Iterator[Trace]:
    given = [one for one in facts.secrets or () if not one.of_job and _is_given(facts, one)]
    for secret in given:
        yield Trace(
            _registry(secret),
            until_broken(
                [
                    *_of_secret(facts, secret),
                    _of_role(facts, causes),
                    _of_instances(facts, causes),
                    _of_registry(facts, secret, causes),
                ]
            ),
            secret.name,
        )
    if "no-credentials-for-registry" in causes:
        covered = [_registry(one) for one in given]
        for host in destinations.registries(facts):
            if host in covered or destinations.ECR.fullmatch(host):
                continue
            none = Node("Secret", Mark.BROKEN, why=f"no secret has credentials for {host}")
            yield Trace(host, (none, None, *(Node(one, Mark.BEYOND) for one in OF_INSTANCES[2:])))


def _is_given(facts: Facts, secret: Secret) -> bool:
    """Tell whether the instances of an environment are given a secret."""
    template = facts.launch_template
    if not template or facts.ours:
        return True
    if template.secret_ids:
        return bool({secret.arn, secret.name} & {*template.secret_ids})
    return template.fetches_credentials or facts.attached


def _of_job(facts: Facts, secret: Secret, causes: Collection[str]) -> Trace:
    """Return the way of the credentials that a job's definition names; its role is not read."""
    said = [explicit(text) for job in facts.jobs or () for text in job.reasons if job.stuck]
    denied = any(one and one.action.startswith(("secretsmanager", "kms")) for one in said)
    role = Node("Execution role", Mark.UNKNOWN, why="its permissions are not looked at")
    if "execution-role" in causes:
        role = replace(role, mark=Mark.BROKEN, why="the role or its secret cannot be used")
    elif denied and "policy-denies" in causes:
        role = replace(role, mark=Mark.BROKEN, why="a policy denies it the secret")
    return Trace(
        _registry(secret),
        until_broken([*_of_secret(facts, secret), role, _of_registry(facts, secret, causes)]),
        secret.name,
    )


def _of_secret(facts: Facts, secret: Secret) -> tuple[Node, Node | None]:
    """Return the secret's node and its key's, by what the rules say about this secret alone."""
    alone = replace(facts, secrets=(secret,), others=())
    found = diagnose(alone, credentials.RULES)
    twins = [one for one in facts.secrets or () if one.host and one.host == secret.host]
    if not found and len(twins) > 1:
        found = diagnose(replace(alone, secrets=tuple(twins)), credentials.RULES)
    node = Node("Secret", Mark.PASSES, secret.name)
    if not secret.seen:
        node = replace(node, mark=Mark.UNKNOWN, why="it was not looked at")
    key = None
    if secret.key:
        key = Node("KMS key", Mark.PASSES, secret.key.rpartition("/")[2])
        if not secret.key_state:
            key = replace(key, mark=Mark.UNKNOWN, why="it was not looked at")
    for finding in found:
        if finding.cause == "key-unusable" and key:
            key = replace(key, mark=Mark.BROKEN, why=f"it is {secret.key_state}")
        else:
            node = replace(node, mark=Mark.BROKEN, why=finding.evidence[0])
    return node, key


def _of_role(facts: Facts, causes: Collection[str]) -> Node:
    name = facts.role.name if facts.role else ""
    if text := _text_of(causes, AT_ROLE):
        return Node("Instance role", Mark.BROKEN, name, text)
    if facts.role and facts.role.seen and facts.role.simulated:
        return Node("Instance role", Mark.PASSES, name)
    return Node("Instance role", Mark.UNKNOWN, name, "its permissions were not looked at")


def _of_instances(facts: Facts, causes: Collection[str]) -> Node:
    if text := _text_of(causes, AT_INSTANCE):
        return Node("ecs.config", Mark.BROKEN, "", text)
    said = [console_lines.state_of(one.console or ())[0] for one in facts.instances or ()]
    if said and all(one is console_lines.State.READY for one in said):
        return Node("ecs.config", Mark.PASSES)
    why = "not every instance has reported credentials" if said else "there are no instances"
    return Node("ecs.config", Mark.UNKNOWN, "", why)


def _of_registry(facts: Facts, secret: Secret, causes: Collection[str]) -> Node:
    host = _registry(secret)
    asked = facts.image.registry if facts.image else ""
    here = host in destinations.hosts([asked]) if asked else False
    stuck = [job for job in facts.jobs or () if job.stuck]
    if (here or host in _hosts_of(stuck)) and (text := _text_of(causes, AT_REGISTRY)):
        return Node("Registry", Mark.BROKEN, host, text)
    if here and facts.image and facts.image.ok and not facts.image.anonymous:
        return Node("Registry", Mark.PASSES, host)
    return Node("Registry", Mark.UNKNOWN, host, "it has not accepted them in this check")


def _hosts_of(jobs: Sequence[Job]) -> list[str]:
    return destinations.hosts(destinations.of_images(job.image for job in jobs))


def _text_of(causes: Collection[str], at: Collection[str]) -> str:
    return next((rule.text for rule in RULES if rule.cause in at and rule.cause in causes), "")


def _registry(secret: Secret) -> str:
    return next(iter(destinations.hosts([secret.host or secret.registry or secret.name])), "")
