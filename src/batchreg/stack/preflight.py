"""What a deploy checks before it changes anything: in parallel, and within seconds.

Each check yields problems. One that is certain refuses the deploy; what cannot be known from here,
such as a registry inside a VPC, or what the caller is not allowed to look at, is a warning.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from functools import partial
from typing import Any

from batchreg import aws, registry_login
from batchreg.registry.check import check_login
from batchreg.registry.logins import Credentials
from batchreg.registry.names import host_of
from batchreg.registry.public import misspelt
from batchreg.render.constraints import KMS_KEY_ARN
from batchreg.stack.network import (
    CLOSED,
    CLOSED_MEANS,
    has_endpoints,
    route_to_internet,
    why_closed,
)

SECONDS = 15  # for all checks together; each call of AWS's and of a registry's ends earlier


@dataclass(frozen=True)
class Problem:
    """Something that is wrong: the fact, then the next step. `certain` ones refuse the deploy."""

    fact: str
    step: str = ""
    certain: bool = True

    def __str__(self) -> str:
        return f"{self.fact} {self.step}".strip()


@dataclass(frozen=True)
class Check:
    """One question. `what` names its subject where it could not be answered."""

    what: str
    find: Callable[[], Iterable[Problem]]


def run(checks: Sequence[Check], *, seconds: float = SECONDS) -> list[Problem]:
    """Return the problems of all checks, in the order of the checks, the certain ones first."""
    pool = ThreadPoolExecutor(max(len(checks), 1), thread_name_prefix="preflight")
    until = time.monotonic() + seconds
    found: list[Problem] = []
    try:
        answers = [(check, pool.submit(lambda find: list(find()), check.find)) for check in checks]
        for check, answer in answers:
            try:
                found += answer.result(max(0, until - time.monotonic()))
            except Late:
                found.append(_unknown(check.what, "no answer in time"))
            except Exception as error:
                line = aws.explain(error)
                if line is None:
                    raise
                found.append(_unknown(check.what, line.rstrip(".")))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return sorted(dict.fromkeys(found), key=lambda problem: not problem.certain)


def _unknown(what: str, why: str) -> Problem:
    return Problem(f"{what} could not be checked: {why}.", "Continuing.", certain=False)


def network(ec2: Any, region: str, subnets: Sequence[str], groups: Sequence[str]) -> list[Check]:
    """Return the check of subnets and security groups: they exist, in one VPC, with a route out."""
    return [Check("The network", partial(_network, ec2, region, subnets, groups))]


def _network(
    ec2: Any, region: str, subnets: Sequence[str], groups: Sequence[str]
) -> Iterator[Problem]:
    with ThreadPoolExecutor(2) as pool:
        # By a filter: of ids that are gone EC2 then says nothing, instead of refusing all.
        subnets_asked = pool.submit(ec2.describe_subnets, Filters=_named("subnet-id", subnets))
        groups_asked = pool.submit(ec2.describe_security_groups, Filters=_named("group-id", groups))
        subnet_vpcs = {
            one["SubnetId"]: one
            for one in subnets_asked.result()["Subnets"]
            if one["SubnetId"] in subnets
        }
        group_vpcs = {
            one["GroupId"]: one["VpcId"]
            for one in groups_asked.result()["SecurityGroups"]
            if one["GroupId"] in groups
        }
    missing = [("subnet", name, "--subnet-id") for name in subnets if name not in subnet_vpcs]
    missing += [
        ("security group", name, "--security-group-id") for name in groups if name not in group_vpcs
    ]
    for kind, name, option in missing:
        yield Problem(
            f"There is no {kind} {name} in {region}.", f"Check {option}, --region and --profile."
        )
    vpcs = sorted({one["VpcId"] for one in subnet_vpcs.values()})
    if len(vpcs) > 1:
        places = ", ".join(f"{name} in {one['VpcId']}" for name, one in sorted(subnet_vpcs.items()))
        yield Problem(f"The subnets are in different VPCs: {places}.", "Choose subnets of one VPC.")
    for name, vpc in group_vpcs.items():
        if vpcs and vpc not in vpcs:
            yield Problem(
                f"Security group {name} is in {vpc}, but the subnets are in {', '.join(vpcs)}.",
                "Choose a security group of the subnets' VPC with --security-group-id.",
            )
    if vpcs:
        yield from _routes(ec2, subnet_vpcs, vpcs)


def _named(name: str, values: Sequence[str]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": list(values)}]


def _routes(ec2: Any, subnets: dict[str, dict[str, Any]], vpcs: list[str]) -> Iterator[Problem]:
    """Warn of subnets from which nothing leaves the VPC, unless endpoints may stand in."""
    filters = _named("vpc-id", vpcs)
    tables = ec2.describe_route_tables(Filters=filters)["RouteTables"]
    closed = {name: route_to_internet(one, tables) for name, one in subnets.items()}
    closed = {name: route for name, route in closed.items() if route in CLOSED}
    if closed and not has_endpoints(ec2, vpcs):
        for name, route in sorted(closed.items()):
            yield Problem(why_closed(name, route), CLOSED_MEANS, certain=False)


def key(kms: Any, region: str, arn: str, option: str = "--kms-key-arn") -> list[Check]:
    """Return the check of a customer managed key: of this region, there, and enabled."""
    return [Check(f"KMS key {arn}", partial(_key, kms, region, arn, option))]


def _key(kms: Any, region: str, arn: str, option: str = "") -> Iterator[Problem]:
    """Yield what is wrong with a key; without an option, one that a secret names in any way."""
    from botocore.exceptions import ClientError

    where = f"Check {option}." if option else "Choose another key for the secret."
    if option and not re.fullmatch(KMS_KEY_ARN, arn):
        yield Problem(
            f"{arn!r} is not the ARN of a KMS key.",
            f"Give {option} the ARN of a key (not of an alias).",
        )
        return
    if _region(arn) not in ("", region):
        yield Problem(f"KMS key {arn} is in {_region(arn)}, the stack is in {region}.", where)
        return
    try:
        found = kms.describe_key(KeyId=arn)["KeyMetadata"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NotFoundException":
            raise
        yield Problem(f"There is no KMS key {arn}.", where)
        return
    if found.get("KeyState", "Enabled") != "Enabled":
        yield Problem(
            f"KMS key {arn} is {found['KeyState']}.",
            "Enable it, or cancel its deletion, in the KMS console.",
        )


def secrets(manager: Any, kms: Any, region: str, arns: Sequence[str]) -> list[Check]:
    """Return the checks of secrets of the user's own: there, readable, and of the right form."""
    return [Check(f"Secret {arn}", partial(_secret, manager, kms, region, arn)) for arn in arns]


def _secret(manager: Any, kms: Any, region: str, arn: str) -> Iterator[Problem]:
    from botocore.exceptions import ClientError

    if _region(arn) != region:
        yield Problem(
            f"Secret {arn} is in {_region(arn)}, the stack is in {region}.",
            f"Replicate the secret to {region}, and give the ARN of the replica.",
        )
        return
    try:
        described = manager.describe_secret(SecretId=arn)
        if described.get("DeletedDate"):
            yield Problem(
                f"Secret {arn} is scheduled for deletion.",
                f"Restore it: aws secretsmanager restore-secret --secret-id {arn}",
            )
            return
        owner = described.get("KmsKeyId", "")
        if owner and "alias/aws/" not in owner:
            yield from _key(kms, region, owner)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            yield Problem(
                f"There is no secret {arn}.", "Check --secret-arn, --region and --profile."
            )
            return
        yield _unknown(f"Secret {arn}", str(aws.explain(error)).rstrip("."))
    try:
        registry_login.login(manager.get_secret_value(SecretId=arn).get("SecretString") or "")
    except registry_login.Refused as refusal:
        yield Problem(
            f"Secret {arn} cannot be used: {refusal}.", "Correct its value in Secrets Manager."
        )
    except ClientError as error:
        yield _unknown(f"The value of secret {arn}", str(aws.explain(error)).rstrip("."))


def _region(arn: str) -> str:
    return arn.split(":")[3] if arn.startswith("arn:") else ""


# What a registry says about credentials that waiting, or another network, may change.
UNCERTAIN = ("unreachable", "rate-limited", "registry-error", "no-tls")


def credentials(given: Mapping[str, Credentials], *, seconds: float = 8) -> list[Check]:
    """Return a check for each registry that gets new credentials: `given` is {agent's key: them}."""
    return [
        Check(f"The credentials of {host_of(key)}", partial(_credentials, key, them, seconds))
        for key, them in given.items()
    ]


def _credentials(key: str, them: Credentials, seconds: float) -> Iterator[Problem]:
    if near := misspelt(key):
        # Not asked: whoever owns a name like gchr.io waits for such passwords.
        yield Problem(
            f"{key} looks like a misspelling of {' or '.join(near)}; nothing was sent to it.",
            "Correct the registry, or confirm it with --no-check.",
        )
        return
    host = "docker.io" if key == registry_login.HUB else key
    verdict = check_login(host, them, seconds=seconds)
    if not verdict.ok:
        yield Problem(
            verdict.fact,
            f"{verdict.step} To skip this check, give --no-check.",
            certain=verdict.cause not in UNCERTAIN,
        )
