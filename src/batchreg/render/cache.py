"""ECR's pull-through cache in the template: the secrets, rules and permissions of cached registries.

Source: docs.aws.amazon.com/AmazonECR/latest/userguide/pull-through-cache-creating-secret.html and
repository-creation-templates-create.html there
"""

from __future__ import annotations

import json
from typing import Any

from troposphere import (
    AWSHelperFn,
    GetAtt,
    If,
    Join,
    NoValue,
    Output,
    Ref,
    Select,
    Split,
    Sub,
    Template,
    iam,
)

from batchreg.render.policies import allow, document
from batchreg.render.settings import Settings, suffix
from batchreg.render.upstreams import FIRST_PULL

# Images are pushed into the cache by ECR itself; AWS has no rule that expires what nobody pulls.
LIFECYCLE = json.dumps(
    {
        "rules": [
            {
                "rulePriority": 1,
                "description": "Expire what was cached long ago; the next pull caches it again",
                "selection": {
                    "tagStatus": "any",
                    "countType": "sinceImagePushed",
                    "countUnit": "days",
                    "countNumber": "DAYS",
                },
                "action": {"type": "expire"},
            }
        ]
    },
    separators=(",", ":"),
).replace('"DAYS"', "${CacheDays}")


def of_secret(directory: str) -> dict[str, Any]:
    """Return what a secret needs so that ECR may read it: a name, and the AWS managed key.

    The name ends with the stack's id, so that a stack that is created again gets another secret.
    """
    start = Sub("ecr-pullthroughcache/${AWS::StackName}")
    reason = "ECR reads no secret with another key than aws/secretsmanager."
    return {
        "Name": Join("-", [start, directory, Select(2, Split("/", Ref("AWS::StackId")))]),
        "Metadata": {"checkov": {"skip": [{"id": "CKV_AWS_149", "comment": reason}]}},
    }


def add(template: Template, settings: Settings) -> None:
    """Add the rules of the cached registries, and what the repositories of their images are like."""
    from troposphere import ecr  # a millisecond of every render, for the few that need it

    role = template.add_resource(
        iam.Role(
            "CacheRole",
            Condition="HasKmsKey",  # ECR needs a role only to use a customer managed key
            AssumeRolePolicyDocument=document(
                allow("sts:AssumeRole", Principal={"Service": "ecr.amazonaws.com"})
            ),
            Policies=[
                iam.Policy(
                    PolicyName="CreateRepositories",
                    PolicyDocument=document(
                        allow(
                            ["ecr:CreateRepository", "ecr:ReplicateImage"], Resource=_repositories()
                        ),
                        allow(
                            ["kms:CreateGrant", "kms:DescribeKey", "kms:RetireGrant"],
                            Resource=Ref("KmsKeyArn"),
                        ),
                    ),
                )
            ],
        )
    )
    template.add_resource(
        ecr.RepositoryCreationTemplate(
            "CacheRepositories",
            Prefix=Ref("CachePrefix"),
            Description=Sub("Cached images of ${AWS::StackName}"),
            AppliedFor=["PULL_THROUGH_CACHE"],
            EncryptionConfiguration=If(
                "HasKmsKey",
                ecr.EncryptionConfiguration(EncryptionType="KMS", KmsKey=Ref("KmsKeyArn")),
                ecr.EncryptionConfiguration(EncryptionType="AES256"),
            ),
            CustomRoleArn=If("HasKmsKey", GetAtt(role, "Arn"), NoValue),
            LifecyclePolicy=Sub(LIFECYCLE),
        )
    )
    for slot, upstream in settings.upstreams.items():
        n = suffix(slot)
        rule = template.add_resource(
            ecr.PullThroughCacheRule(
                f"CacheRule{n}",
                EcrRepositoryPrefix=Sub(f"${{CachePrefix}}/{settings.directories[slot]}"),
                UpstreamRegistry=upstream.name,
                UpstreamRegistryUrl=upstream.url,
                CredentialArn=Ref(f"RegistrySecret{n}"),
            )
        )
        template.add_output(
            Output(
                f"CacheRepositoryPrefix{n}",
                Description="Prefix of its cached images",
                Value=Ref(rule),
            )
        )


def permission() -> iam.Policy:
    """Return the policy for a role that pulls an image for the first time."""
    return iam.Policy(
        PolicyName="PullThroughCache",
        PolicyDocument=document(allow([*FIRST_PULL], Resource=_repositories())),
    )


def pull_statements() -> list[dict[str, Any]]:
    """Return all that a pull of a cached image needs, for a role of which nothing is known."""
    reading = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    return [
        allow(["ecr:GetAuthorizationToken"], Resource="*"),
        allow([*FIRST_PULL, *reading], Resource=_repositories()),
    ]


def _repositories() -> AWSHelperFn:
    return Sub(
        "arn:${AWS::Partition}:ecr:${AWS::Region}:${AWS::AccountId}:repository/${CachePrefix}/*"
    )
