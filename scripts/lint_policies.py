"""Run cfripper and parliament over templates; needs the environment of lint_requirements.txt."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cfripper.cli import get_cfmodel, init_cfripper

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports pkg_resources
    from parliament import analyze_policy_string

ACCOUNT = "111122223333"
KEY = f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"

# What parliament says of a policy and is not followed, and why: (logical id, issue, action).
EXCEPTIONS = {
    # ECR encrypts the repositories that it creates for the cache by grants on their key.
    ("CacheRole", "PERMISSIONS_MANAGEMENT_ACTIONS", "kms:creategrant"),
    # Every pull from ECR begins with it.
    ("InstanceRolePolicy", "CREDENTIALS_EXPOSURE", "ecr:getauthorizationtoken"),
    # parliament knows it for all repositories only. AWS's own example names them, which is less:
    # docs.aws.amazon.com/AmazonECR/latest/userguide/pull-through-cache-iam.html
    ("InstanceRole", "RESOURCE_MISMATCH", "ecr:BatchImportUpstreamImage"),
    ("InstanceRolePolicy", "RESOURCE_MISMATCH", "ecr:BatchImportUpstreamImage"),
    ("JobExecutionRole", "RESOURCE_MISMATCH", "ecr:BatchImportUpstreamImage"),
}


def findings(path: Path) -> Iterator[str]:
    """Yield what the two say of the template at `path`, as it is and as CloudFormation resolves it."""
    with path.open() as file:
        template = get_cfmodel(file)
    secrets = {
        name: f"arn:aws:secretsmanager:eu-central-1:{ACCOUNT}:secret:{name}-AbCdEf"
        for name, resource in template.Resources.items()
        if resource.Type == "AWS::SecretsManager::Secret"
    }
    values = {"AWS::Region": "eu-central-1", "AWS::AccountId": ACCOUNT, "KmsKeyArn": KEY, **secrets}
    resolved = template.resolve(values)
    config, rules = init_cfripper(None, None, ACCOUNT, None)
    for model in (template, resolved):
        result = rules.process_cf_template(model, config)
        # cfripper calls a template valid on which a rule has crashed.
        yield from (f"cfripper: {error!r}" for error in result.exceptions)
        yield from (f"cfripper: {failure.rule}: {failure.reason}" for failure in result.failures)
    for name, policy in policies(resolved):
        for finding in analyze_policy_string(policy, include_community_auditors=True).findings:
            if not any(
                (name, finding.issue) == exception[:2] and exception[2] in str(finding)
                for exception in EXCEPTIONS
            ):
                yield f"parliament: {name}: {finding}"


def policies(template: Any) -> Iterator[tuple[str, str]]:
    """Yield (logical id, policy document in JSON) of what a template's roles are allowed."""
    for name, resource in template.Resources.items():
        if resource.Type.startswith("AWS::IAM::"):
            for document in resource.policy_documents:
                model = document.policy_document.model_dump(exclude_none=True, mode="json")
                yield name, json.dumps(model)


if __name__ == "__main__":
    logging.disable()  # cfripper warns of each resource that it has no model of
    found = [f"{path}: {finding}" for path in sys.argv[1:] for finding in findings(Path(path))]
    print(*found, sep="\n", end="\n" * bool(found))
    sys.exit(bool(found))
