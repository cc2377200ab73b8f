"""The instances' role, and what it is allowed to do."""

from __future__ import annotations

import json

from batchreg.doctor.facts import Denial, Facts, Role
from batchreg.doctor.rules import Evidence, Found, Layer, Table
from batchreg.doctor.rules.commands import aws, deploy, second_stack
from batchreg.doctor.rules.refusals import explicit
from batchreg.doctor.rules.repairs import attach_agent_policy, trust

RULES = Table()
rule = RULES.rule

SIMULATION = "docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html"
AGENT_ROLE = "docs.aws.amazon.com/AmazonECS/latest/developerguide/instance_IAM_role.html"
ENCRYPTION = "docs.aws.amazon.com/secretsmanager/latest/userguide/security-encryption.html"

READ_POLICY = "ReadRegistryLogin"  # of the template's instance role


@rule("profile-missing", "The instances have no role", layer=Layer.ROLE, source=AGENT_ROLE)
def profile_missing(facts: Facts) -> Found:
    role = facts.role
    if not role:
        return
    profile = ("--instance-profile-name", role.profile)
    put = aws(facts, "iam", "add-role-to-instance-profile", *profile, "--role-name", role.name)
    if not role.exists:
        yield Evidence(f"IAM has no role named {role.name}.", step=second_stack(facts))
    elif not role.profile_exists:
        create = aws(facts, "iam", "create-instance-profile", *profile)
        yield Evidence(
            f"IAM has no instance profile named {role.profile}.",
            fix=f"{create} && {put}" if role.name else "",
            step="" if role.name else second_stack(facts),
        )
    elif not role.in_profile and role.name:
        take = aws(
            facts, "iam", "remove-role-from-instance-profile", *profile, "--role-name", role.held
        )
        yield Evidence(
            f"The instance profile {role.profile} has "
            f"{f'the role {role.held}' if role.held else 'no role'}, not {role.name}.",
            fix=f"{take} && {put}" if role.held else put,
        )
    elif not role.in_profile:
        yield Evidence(
            f"The instance profile {role.profile} has no role.", step=second_stack(facts)
        )


@rule(
    "role-not-trusted",
    "EC2 is not allowed to give the role to instances",
    layer=Layer.ROLE,
    source=AGENT_ROLE,
)
def role_not_trusted(facts: Facts) -> Found:
    role = facts.role
    if role and role.exists and not role.trusted:
        text = f"The trust policy of {role.name} does not allow ec2.amazonaws.com."
        yield Evidence(text, *trust(facts, role, "ec2"))


@rule(
    "role-denied",
    "The instances are not allowed to read the secret",
    layer=Layer.ROLE,
    source=SIMULATION,
)
def role_denied(facts: Facts) -> Found:
    for role, denial in _denied(facts, "secretsmanager:"):
        # The policy that the stack gave to its role, whole and under its own name: a foreign one
        # would keep CloudFormation from deleting the role.
        arns = [one.arn for one in facts.secrets or () if one.arn and not one.of_job]
        if not facts.ours and denial.resource.startswith("arn:"):
            arns = [denial.resource]
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": denial.action, "Resource": arns}],
        }
        fix = aws(
            facts,
            *("iam", "put-role-policy", "--role-name", role.name),
            *("--policy-name", READ_POLICY, "--policy-document", json.dumps(policy)),
        )
        yield refusal(role, denial, fix if arns else "")


@rule(
    "key-denied",
    "The instances are not allowed to decrypt the secret",
    layer=Layer.ROLE,
    source=ENCRYPTION,
)
def key_denied(facts: Facts) -> Found:
    for role, denial in _denied(facts, "kms:"):
        known = facts.stack.kms_key if facts.stack and facts.ours else "unknown"
        fix = deploy(facts, "--kms-key-arn", denial.resource) if not known else ""
        yield refusal(
            role,
            denial,
            fix,
            f"Allow {denial.action} on the key, in the policy of the role {role.name} or in the "
            "key's own policy.",
        )


@rule(
    "policy-denies",
    "A policy explicitly denies what the jobs need",
    layer=Layer.ROLE,
    source="docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html",
)
def policy_denies(facts: Facts) -> Found:
    said = [(one.label, text) for one in facts.jobs or () if one.stuck for text in one.reasons]
    said += [(one.name, one.reason) for one in facts.environments or () if one.status == "INVALID"]
    said += [("Auto Scaling", text) for text in facts.launch_failures or ()]
    for whose, text in said:
        if refusal := explicit(text):
            who = f" {refusal.who}" if refusal.who else ""
            on = f" on {refusal.resource}" if refusal.resource else ""
            organization = refusal.policy in ("service control policy", "resource control policy")
            yield Evidence(
                f"{whose}: a {refusal.policy} denies{who} {refusal.action}{on}.",
                step="This cannot be fixed in this account: ask the administrator of the "
                "organization."
                if organization
                else "No allow statement overrides an explicit deny: remove it from that policy, "
                "or ask whoever manages the policy.",
            )


@rule(
    "role-without-ecs",
    "The instances are not allowed to join the ECS cluster",
    layer=Layer.ROLE,
    source=AGENT_ROLE,
)
def role_without_ecs(facts: Facts) -> Found:
    if any(instance.agent and instance.agent_seen for instance in facts.instances or ()):
        return  # a connected agent shows that it is allowed
    for role, denial in _denied(facts, "ecs:"):
        yield refusal(role, denial, attach_agent_policy(facts, role))


def _denied(facts: Facts, service: str) -> list[tuple[Role, Denial]]:
    role = facts.role
    if not role or not role.exists:
        return []
    return [(role, denial) for denial in role.denied if denial.action.startswith(service)]


def refusal(role: Role, denial: Denial, fix: str, step: str = "") -> Evidence:
    """Return what IAM said and what helps: an allow statement helps only where nothing allows."""
    what = f"{denial.action} on {denial.resource}"
    match denial.by:
        case "statement":
            policy = f" ({denial.policy})" if denial.policy else ""
            return Evidence(
                f"A policy{policy} explicitly denies {role.name} {what}.",
                step="No allow statement overrides an explicit deny: remove it from that policy, or "
                "ask whoever manages the policy.",
            )
        case "boundary":
            return Evidence(
                f"The permissions boundary of {role.name} does not allow {what}.",
                step=f"Allow {denial.action} in the boundary as well, or ask whoever manages it: "
                "the role's own policies cannot.",
            )
        case "organization":
            return Evidence(
                f"A service control policy of your organization does not allow {role.name} {what}.",
                step="This cannot be fixed in this account: ask the administrator of the "
                "organization.",
            )
    return Evidence(f"No policy allows {role.name} {what}.", fix, "" if fix else step)
