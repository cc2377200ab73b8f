"""Rules of ECR's pull-through cache, their secrets, and the roles that pull, without batchreg."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count
from typing import Any

from lab.agent import Login
from lab.ecr import token
from local_aws import LocalAws

PULL = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
IMPORT = ("ecr:BatchImportUpstreamImage", "ecr:CreateRepository")
NOBODY = {"Version": "2012-10-17", "Statement": []}

_numbers = count(1)


def statement(actions: Iterable[str], resource: str = "*", **more: Any) -> dict[str, Any]:
    """Return a statement that allows something, unless `more` says otherwise."""
    return {"Effect": "Allow", "Action": [*actions], "Resource": resource, **more}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [*statements]})


class Cache:
    """ECR of an embedded AWS; what it makes has names of its own."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.ecr, self.iam, self.secrets = map(aws.client, ("ecr", "iam", "secretsmanager"))

    def secret(self, username: str, password: str) -> str:
        """Create a secret for a rule, and return its ARN."""
        content = json.dumps({"username": username, "accessToken": password})
        name = f"ecr-pullthroughcache/lab{next(_numbers)}"
        return self.secrets.create_secret(Name=name, SecretString=content)["ARN"]

    def rule(self, secret: str, host: str = "ghcr.io") -> str:
        """Create a rule, and return its prefix."""
        prefix = f"lab{next(_numbers)}"
        self.ecr.create_pull_through_cache_rule(
            ecrRepositoryPrefix=prefix, upstreamRegistryUrl=host, credentialArn=secret
        )
        return prefix

    def validated(self, prefix: str) -> tuple[bool, str]:
        found = self.ecr.validate_pull_through_cache_rule(ecrRepositoryPrefix=prefix)
        return found["isValid"], found.get("failure", "")

    def repository(self, name: str) -> dict[str, Any] | None:
        try:
            return self.ecr.describe_repositories(repositoryNames=[name])["repositories"][0]
        except self.ecr.exceptions.RepositoryNotFoundException:
            return None

    def role(self, *statements: dict[str, Any], attached: Iterable[str] = ()) -> str:
        """Create a role that may do this, and return its ARN."""
        name = f"lab{next(_numbers)}"
        role = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(NOBODY))
        if statements:
            document = policy(*statements)
            self.iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)
        for arn in attached:
            self.iam.attach_role_policy(RoleName=name, PolicyArn=arn)
        return role["Role"]["Arn"]

    def puller(self, *actions: str) -> str:
        """Create a role that may get a token and do this besides."""
        return self.role(statement(("ecr:GetAuthorizationToken", *actions)))

    def login(self, role: str) -> Login:
        """Return what a role logs in to ECR with."""
        sts = self.aws.client("sts")
        given = sts.assume_role(RoleArn=role, RoleSessionName="lab")["Credentials"]
        keys = {name: given[name] for name in ("AccessKeyId", "SecretAccessKey")}
        return token(self.aws.client("ecr", {**keys, "Token": given["SessionToken"]}))

    def image(self, prefix: str, path: str) -> str:
        return f"{self.aws.ecr_host}/{prefix}/{path}"
