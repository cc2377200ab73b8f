"""The embedded AWS's ECR: rules, templates, tokens and permissions, in AWS's own words."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError
from cache_world import PULL, Cache, policy, statement
from cloud import Cloud
from local_aws import LocalAws
from registry_server import RegistryServer

RULE = "An error occurred (PullThroughCacheRule"
AUTHENTICATION = "The authentication to the upstream registry failed."
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:"


@pytest.fixture(scope="module")
def cache() -> Iterator[Cache]:
    with LocalAws() as aws:
        yield Cache(aws)


@pytest.fixture(scope="module")
def secret(cache: Cache) -> str:
    return cache.secret("ada", "right")


# Rules


def test_a_rule_is_described_until_it_is_deleted(cache: Cache, secret: str) -> None:
    """The upstream's name follows from its URL."""
    prefix = cache.rule(secret)
    (rule,) = cache.ecr.describe_pull_through_cache_rules(ecrRepositoryPrefixes=[prefix])[
        "pullThroughCacheRules"
    ]
    assert (rule["upstreamRegistry"], rule["credentialArn"]) == (
        "github-container-registry",
        secret,
    )
    cache.ecr.delete_pull_through_cache_rule(ecrRepositoryPrefix=prefix)
    with pytest.raises(cache.ecr.exceptions.PullThroughCacheRuleNotFoundException):
        cache.ecr.describe_pull_through_cache_rules(ecrRepositoryPrefixes=[prefix])


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"ecrRepositoryPrefix": "a" * 31}, "ValidationException", "less than or equal to 30"),
        ({"ecrRepositoryPrefix": "Lab"}, "ValidationException", "regular expression pattern"),
        (
            {"upstreamRegistryUrl": "harbor.example.com"},
            "UnsupportedUpstreamRegistryException",
            "isn't supported",
        ),
        (
            {"upstreamRegistry": "docker-hub"},
            "UnsupportedUpstreamRegistryException",
            "isn't supported",
        ),
        (
            {"credentialArn": None},
            "UnsupportedUpstreamRegistryException",
            "requires authentication. Specify a valid Secrets Manager ARN",
        ),
        (
            {"credentialArn": f"{SECRET}ecr-pullthroughcache/none-abcdef"},
            "SecretNotFoundException",
            "was not found",
        ),
        (
            {"credentialArn": f"{SECRET}my-secret-abcdef"},
            "ValidationException",
            "at 'credentialArn' failed to satisfy constraint",
        ),
    ],
)
def test_a_rule_that_ecr_refuses(
    cache: Cache, secret: str, changes: dict[str, str | None], code: str, message: str
) -> None:
    """With AWS's names of errors; none of them leaves a rule."""
    request = {
        "ecrRepositoryPrefix": "refused",
        "upstreamRegistryUrl": "ghcr.io",
        "credentialArn": secret,
        **changes,
    }
    given = {name: text for name, text in request.items() if text is not None}
    with pytest.raises(ClientError, match=message) as refusal:
        cache.ecr.create_pull_through_cache_rule(**given)
    assert refusal.value.response["Error"]["Code"] == code
    rules = cache.ecr.describe_pull_through_cache_rules()["pullThroughCacheRules"]
    assert "refused" not in {rule["ecrRepositoryPrefix"] for rule in rules}


def test_a_prefix_is_taken_once(cache: Cache, secret: str) -> None:
    """Two stacks cannot share one."""
    prefix = cache.rule(secret)
    with pytest.raises(cache.ecr.exceptions.PullThroughCacheRuleAlreadyExistsException):
        cache.ecr.create_pull_through_cache_rule(
            ecrRepositoryPrefix=prefix, upstreamRegistryUrl="ghcr.io", credentialArn=secret
        )


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_validation_tries_the_credentials(cache: Cache, secret: str, kind: str) -> None:
    """Both kinds of authentication; a new secret counts at once."""
    with RegistryServer(users={"ada": "right"}, login=kind) as registry:
        cache.aws.set_upstreams({"ghcr.io": registry.host})
        prefix = cache.rule(secret)
        assert cache.validated(prefix) == (True, "")
        wrong = cache.secret("ada", "wrong")
        cache.ecr.update_pull_through_cache_rule(ecrRepositoryPrefix=prefix, credentialArn=wrong)
        valid, failure = cache.validated(prefix)
        assert (valid, failure.startswith(AUTHENTICATION)) == (False, True), failure
        right = json.dumps({"username": "ada", "accessToken": "right"})
        cache.secrets.put_secret_value(SecretId=wrong, SecretString=right)
        assert cache.validated(prefix) == (True, "")
    assert cache.validated(prefix) == (False, "The upstream registry could not be reached.")


def test_validation_says_what_is_wrong_with_the_secret(cache: Cache) -> None:
    """What was right when the rule was made may have changed since."""
    secret = cache.secret("ada", "right")
    prefix = cache.rule(secret)
    cache.secrets.put_secret_value(SecretId=secret, SecretString='{"username": "a", "password": 1}')
    assert "the keys username and accessToken" in cache.validated(prefix)[1]
    denying = statement(["secretsmanager:*"], Effect="Deny", Principal="*")
    cache.secrets.put_resource_policy(SecretId=secret, ResourcePolicy=policy(denying))
    assert "The secret is unable to be accessed." in cache.validated(prefix)[1]
    cache.secrets.delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)
    assert (
        "the secret specified in the pull through cache rule was not" in cache.validated(prefix)[1]
    )


# Templates and policies


def test_a_template_is_described_until_it_is_deleted(cache: Cache) -> None:
    """An update changes what it names, and nothing else."""
    ecr, text = cache.ecr, json.dumps({"rules": []})
    ecr.create_repository_creation_template(
        prefix="team", appliedFor=["PULL_THROUGH_CACHE"], lifecyclePolicy=text
    )
    ecr.update_repository_creation_template(prefix="team", imageTagMutability="IMMUTABLE")
    (found,) = ecr.describe_repository_creation_templates(prefixes=["team"])[
        "repositoryCreationTemplates"
    ]
    assert (found["lifecyclePolicy"], found["imageTagMutability"]) == (text, "IMMUTABLE")
    with pytest.raises(ecr.exceptions.TemplateAlreadyExistsException):
        ecr.create_repository_creation_template(prefix="team", appliedFor=["REPLICATION"])
    ecr.delete_repository_creation_template(prefix="team")
    with pytest.raises(ecr.exceptions.TemplateNotFoundException):
        ecr.delete_repository_creation_template(prefix="team")


def test_tags_of_a_template_need_a_role(cache: Cache) -> None:
    """ECR's service-linked role may not set them."""
    with pytest.raises(cache.ecr.exceptions.InvalidParameterException, match="custom role"):
        cache.ecr.create_repository_creation_template(
            prefix="tagged",
            appliedFor=["PULL_THROUGH_CACHE"],
            resourceTags=[{"Key": "a", "Value": "b"}],
        )


def test_a_registry_has_a_policy_once_it_has_been_put(cache: Cache) -> None:
    """There is none at first."""
    with pytest.raises(cache.ecr.exceptions.RegistryPolicyNotFoundException):
        cache.ecr.get_registry_policy()
    cache.ecr.put_registry_policy(policyText=policy())
    assert cache.ecr.get_registry_policy()["policyText"] == policy()
    cache.ecr.delete_registry_policy()


# Tokens


def test_a_role_needs_permission_for_a_token(cache: Cache) -> None:
    """AWS names the role's session, the action, and why."""
    with pytest.raises(ClientError, match="is not authorized to perform: ecr:GetAuth") as refusal:
        cache.login(cache.role(statement(PULL)))
    assert refusal.value.response["Error"]["Code"] == "AccessDeniedException"
    assert cache.login(cache.puller())["username"] == "AWS"


def test_the_registry_asks_for_a_token(cache: Cache) -> None:
    """Neither no credentials nor wrong ones open it."""

    def status(credentials: str) -> tuple[int, str | None]:
        header = {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}
        request = urllib.request.Request(f"{cache.aws.endpoint}/v2/", headers=header)
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, None
        except urllib.error.HTTPError as error:
            error.close()
            return error.code, error.headers["WWW-Authenticate"]

    token = cache.login(cache.puller())["password"]
    assert status(f"AWS:{token}") == (200, None)
    assert status(f"ada:{token}")[0] == 401
    code, challenge = status("AWS:nonsense")
    assert code == 401
    assert challenge
    assert challenge.startswith(
        'Basic realm="https://123456789012.dkr.ecr.us-east-1.amazonaws.com/"'
    )


# CloudFormation


def cache_template(prefix: str, host: str = "ghcr.io") -> dict[str, object]:
    """Return a stack with a secret, a rule and a template."""
    content = {"username": "ada", "accessToken": "right"}
    return {
        "Parameters": {"Password": {"Type": "String"}, "Subnets": {"Type": "String"}},
        "Resources": {
            "Secret": {
                "Type": "AWS::SecretsManager::Secret",
                "Properties": {
                    "Name": f"ecr-pullthroughcache/{prefix}",
                    "SecretString": json.dumps(content),
                },
            },
            "Rule": {
                "Type": "AWS::ECR::PullThroughCacheRule",
                "Properties": {
                    "EcrRepositoryPrefix": prefix,
                    "UpstreamRegistryUrl": host,
                    "CredentialArn": {"Ref": "Secret"},
                },
            },
            "Creation": {
                "Type": "AWS::ECR::RepositoryCreationTemplate",
                "Properties": {
                    "Prefix": prefix,
                    "AppliedFor": ["PULL_THROUGH_CACHE"],
                    "EncryptionConfiguration": {"EncryptionType": "AES256"},
                },
            },
        },
        "Outputs": {"Rule": {"Value": {"Ref": "Rule"}}, "Creation": {"Value": {"Ref": "Creation"}}},
    }


@pytest.fixture(scope="module")
def cloud(cache: Cache) -> Cloud:
    return Cloud(cache.aws)


def test_a_stack_makes_and_deletes_a_rule(cache: Cache, cloud: Cloud) -> None:
    """Ref is the prefix, of the template as well."""
    name = cloud.create(cache_template("stacked"))
    assert cloud.outputs(name) == {"Rule": "stacked", "Creation": "stacked"}
    cloud.delete(name)
    with pytest.raises(cache.ecr.exceptions.PullThroughCacheRuleNotFoundException):
        cache.ecr.describe_pull_through_cache_rules(ecrRepositoryPrefixes=["stacked"])
    assert not cache.ecr.describe_repository_creation_templates(prefixes=["stacked"])[
        "repositoryCreationTemplates"
    ]


def test_a_stack_fails_where_the_prefix_is_taken(cache: Cache, cloud: Cloud, secret: str) -> None:
    """And leaves the rule that is there alone."""
    prefix = cache.rule(secret)
    name = cloud.create(cache_template(prefix))
    assert cloud.stack(name)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert f"with the prefix '{prefix}' already exists" in cloud.reasons(name)
    assert cache.ecr.describe_pull_through_cache_rules(ecrRepositoryPrefixes=[prefix])


def test_another_upstream_replaces_a_rule(cloud: Cloud) -> None:
    """All of a rule's properties are create-only, so the same prefix is in its own way."""
    name = cloud.create(cache_template("replaced"))
    body = cache_template("replaced", "registry.gitlab.com")
    changes = cloud.change_set(name, body)["Changes"]
    assert [
        (change["ResourceChange"]["LogicalResourceId"], change["ResourceChange"]["Replacement"])
        for change in changes
    ] == [("Rule", "True")]
    assert cloud.update(name, body)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    body = json.loads(json.dumps(body).replace('"replaced"', '"replacement"'))
    assert cloud.update(name, body)["StackStatus"] == "UPDATE_COMPLETE"
    assert cloud.outputs(name) == {"Rule": "replacement", "Creation": "replacement"}


# What IAM simulates

SECRET_ARN = f"{SECRET}ecr-pullthroughcache/x-abcdef"
READ = "secretsmanager:GetSecretValue"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
VIA = {"Condition": {"StringEquals": {"kms:ViaService": "secretsmanager.us-east-1.amazonaws.com"}}}
MANAGED = "arn:aws:iam::aws:policy/service-role/"


@pytest.mark.parametrize(
    ("statements", "action", "resource", "decision"),
    [
        ([], READ, SECRET_ARN, "implicitDeny"),
        ([statement(["secretsmanager:Get*"])], READ, SECRET_ARN, "allowed"),
        ([statement([READ], f"{SECRET}ecr-*")], READ, SECRET_ARN, "allowed"),
        ([statement([READ], f"{SECRET}other-*")], READ, SECRET_ARN, "implicitDeny"),
        ([statement([READ], SECRET_ARN)], READ, "*", "implicitDeny"),
        ([statement(["*"]), statement([READ], Effect="Deny")], READ, SECRET_ARN, "explicitDeny"),
        ([statement(["kms:Decrypt"], KEY, **VIA)], "kms:Decrypt", KEY, "implicitDeny"),
    ],
)
def test_simulation_follows_the_roles_policies(
    cache: Cache, statements: list[dict[str, object]], action: str, resource: str, decision: str
) -> None:
    """Wildcards, resources, denials and conditions."""
    assert simulated(cache, cache.role(*statements), action, resource) == decision


def simulated(cache: Cache, role: str, action: str, resource: str, **more: object) -> str:
    (result,) = cache.iam.simulate_principal_policy(
        PolicySourceArn=role, ActionNames=[action], ResourceArns=[resource], **more
    )["EvaluationResults"]
    return result["EvalDecision"]


def test_simulation_takes_what_it_is_told_of_the_request(cache: Cache) -> None:
    """A condition is met by the context that the caller gives."""
    role = cache.role(statement(["kms:Decrypt"], KEY, **VIA))
    entry = {
        "ContextKeyName": "kms:ViaService",
        "ContextKeyType": "string",
        "ContextKeyValues": ["secretsmanager.us-east-1.amazonaws.com"],
    }
    assert simulated(cache, role, "kms:Decrypt", KEY, ContextEntries=[entry]) == "allowed"


@pytest.mark.parametrize(
    ("name", "allowed", "denied"),
    [
        (
            "AmazonEC2ContainerServiceforEC2Role",
            ["ecs:Poll", *PULL],
            ["ecr:CreateRepository", READ],
        ),
        ("AmazonECSTaskExecutionRolePolicy", PULL, ["ecr:BatchImportUpstreamImage", READ]),
    ],
)
def test_simulation_knows_the_managed_policies_of_the_roles(
    cache: Cache, name: str, allowed: list[str], denied: list[str]
) -> None:
    """They pull what is cached, import nothing, and read no secret."""
    role = cache.role(attached=[MANAGED + name])
    assert {simulated(cache, role, action, "*") for action in allowed} == {"allowed"}
    assert {simulated(cache, role, action, "*") for action in denied} == {"implicitDeny"}


def test_simulation_counts_managed_policies_and_the_boundary(cache: Cache) -> None:
    """A boundary takes away what a policy of the account's own gives."""
    given, limit = (
        cache.iam.create_policy(PolicyName=name, PolicyDocument=policy(statement(actions)))[
            "Policy"
        ]["Arn"]
        for name, actions in (("given", ["ecr:*"]), ("limit", PULL))
    )
    role = cache.role(attached=[given])
    assert simulated(cache, role, "ecr:CreateRepository", "*") == "allowed"
    cache.iam.put_role_permissions_boundary(
        RoleName=role.rpartition("/")[2], PermissionsBoundary=limit
    )
    assert simulated(cache, role, "ecr:CreateRepository", "*") == "implicitDeny"
    assert simulated(cache, role, PULL[0], "*") == "allowed"
