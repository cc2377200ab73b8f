"""How secrets, the role and the launch template become facts."""

from __future__ import annotations

import base64
import json
from concurrent.futures import Future
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from typing import Any

import pytest
from stubs import ARN, LOGIN, NOW, Stubs

from batchreg.aws import url_suffix
from batchreg.doctor import collect, facts
from batchreg.doctor.collect import credentials, launch_template, redact, roles
from batchreg.doctor.facts import Facts
from batchreg.render import userdata
from batchreg.stack.states import Stack

KEY = "arn:aws:kms:eu-central-1:111122223333:key/1a2b"


class TestSecret:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                json.dumps(LOGIN),
                {"keys": ("username", "password", "registry_url"), "others": 0, "host": "ghcr.io"},
            ),
            (
                json.dumps({**LOGIN, "registry_url": "HTTPS://Registry.Example.com:5050/x"}),
                {
                    "keys": ("username", "password", "registry_url"),
                    "others": 0,
                    "host": "registry.example.com:5050",
                },
            ),
            (None, {"has_value": False}),
            ("ghp_token", {"is_json": False}),
            ('"ghp_token"', {"is_json": False}),
            ("[1]", {"is_json": False}),
            (
                '{"auths": {"ghcr.io": {"auth": "bGFiOmNhbmFyeQ=="}}}',
                {"keys": ("auths",), "others": 0, "problem": "it has no 'username'"},
            ),
            (
                '{"user": "lab", "canary-4711": "x"}',
                {"keys": ("user",), "others": 1, "problem": "it has no 'username'"},
            ),
            (
                json.dumps({**LOGIN, "registry_url": "myhost"}),
                {
                    "keys": ("username", "password", "registry_url"),
                    "others": 0,
                    "problem": "registry_url: myhost/x is Docker Hub's, so add a domain or port to myhost",
                },
            ),
        ],
    )
    def test_shape_is_told_without_values(self, text: str | None, expected: Any) -> None:
        """What people need to fix it, and nothing that an attacker needs."""
        assert credentials.shape(text) == expected

    def test_words_are_all_that_could_give_it_away(self) -> None:
        """The password, the pair as Docker encodes it, all of a secret of another shape."""
        pair = base64.b64encode(b"lab:canary-4711").decode()
        assert set(redact.words(json.dumps(LOGIN))) == {"canary-4711", pair}
        assert "ghp_token" in redact.words(" ghp_token\n")
        assert {"deep-4711", "list-4711"} <= set(
            redact.words('{"auths": {"ghcr.io": {"auth": "deep-4711"}}, "x": ["list-4711"]}')
        )

    def test_words_are_redacted_however_deep(self) -> None:
        """Of AWS's own messages, of a job's reason, of a console line."""
        seen = Facts(
            jobs=(facts.Job(id="1", reasons=("login lab:canary-4711 failed",)),),
            role=facts.Role(name="r", denied=(facts.Denial(action="a", resource="canary-4711"),)),
        )
        shown = redact.without(seen, redact.words(json.dumps(LOGIN)))
        assert shown.jobs[0].reasons == ("login lab:******** failed",)
        assert shown.role.denied[0].resource == "********"

    def test_secret_that_may_not_be_read_is_there_all_the_same(self) -> None:
        """Whoever may describe it and no more gets the facts but its shape."""
        stubs = Stubs("secretsmanager")
        stubs.secretsmanager.add_response(
            "describe_secret", {"ARN": ARN, "Name": "team/ghcr", "LastChangedDate": NOW}
        )
        stubs.secretsmanager.add_client_error(
            "get_secret_value", "AccessDeniedException", "No.", 400
        )
        read = credentials.secret(stubs.caller, ARN)
        assert read.fact == facts.Secret(
            name="team/ghcr",
            arn=ARN,
            changed="2026-07-01T12:00:00+00:00",
            keys=("username", "password"),
        )
        assert [gap.permission for gap in stubs.caller.gaps.values()] == [
            "secretsmanager:GetSecretValue"
        ]

    def test_key_of_the_secret_is_looked_at(self) -> None:
        """A key that waits for its deletion makes the secret unreadable."""
        stubs = Stubs("secretsmanager", "kms")
        key = "arn:aws:kms:eu-central-1:111122223333:key/1a2b"
        stubs.secretsmanager.add_response("describe_secret", {"ARN": ARN, "KmsKeyId": key})
        stubs.secretsmanager.add_response("get_secret_value", {"SecretString": json.dumps(LOGIN)})
        stubs.kms.add_response(
            "describe_key",
            {"KeyMetadata": {"KeyId": "1a2b", "KeyState": "PendingDeletion"}},
            {"KeyId": key},
        )
        read = credentials.secret(stubs.caller, ARN)
        assert (read.fact.key, read.fact.key_state) == (key, "PendingDeletion")
        assert "canary" not in repr(read)

    @pytest.mark.parametrize("given", ["alias/registry", "1a2b", KEY])
    def test_key_is_the_one_that_kms_names(self, given: str) -> None:
        """The policy of a role is about a key's ARN, and a secret may name an alias or an id."""
        stubs = Stubs("secretsmanager", "kms")
        stubs.secretsmanager.add_response("describe_secret", {"ARN": ARN, "KmsKeyId": given})
        stubs.secretsmanager.add_response("get_secret_value", {"SecretString": json.dumps(LOGIN)})
        stubs.kms.add_response(
            "describe_key",
            {"KeyMetadata": {"KeyId": "1a2b", "Arn": KEY, "KeyState": "Enabled"}},
            {"KeyId": given},
        )
        assert credentials.secret(stubs.caller, ARN).fact.key == KEY

    def test_key_of_aws_is_nobodys_to_look_at(self) -> None:
        """An alias may lead to the AWS managed key, which every role may use."""
        stubs = Stubs("secretsmanager", "kms")
        stubs.secretsmanager.add_response("describe_secret", {"ARN": ARN, "KmsKeyId": "alias/x"})
        stubs.secretsmanager.add_response("get_secret_value", {"SecretString": json.dumps(LOGIN)})
        stubs.kms.add_response(
            "describe_key", {"KeyMetadata": {"KeyId": "1a2b", "Arn": KEY, "KeyManager": "AWS"}}
        )
        assert credentials.secret(stubs.caller, ARN).fact.key == ""

    def test_secret_of_another_region_is_not_called_missing(self) -> None:
        """Secrets Manager here does not know it: its region is in its ARN, and nobody is asked."""
        there = ARN.replace("eu-central-1", "us-west-2")
        found = credentials.secret(Stubs("secretsmanager").caller, there).fact
        assert (found.exists, found.seen, found.region) == (True, False, "us-west-2")

    def test_secret_that_nobody_could_read_has_no_row(self) -> None:
        """No more is known than its name."""
        stubs = Stubs("secretsmanager")
        for call in ("describe_secret", "get_secret_value"):
            stubs.secretsmanager.add_client_error(call, "AccessDeniedException", "No.", 400)
        found = credentials.secret(stubs.caller, ARN).fact
        assert found.seen is False
        assert not [row for row in Facts(secrets=(found,)).rows() if row[0].startswith("Secret")]


def archive(*scripts: str) -> str:
    parts = MIMEMultipart()
    for script in scripts:
        parts.attach(MIMEText(script, "x-shellscript", "utf-8"))
    return parts.as_string()


class TestUserData:
    OURS = userdata.for_instance([ARN], "eu-central-1")

    def test_ours_is_what_it_should_be(self) -> None:
        """The healthy case."""
        assert launch_template.user_data(
            base64.b64encode(self.OURS.encode()).decode(), self.OURS
        ) == {
            "mime": True,
            "bytes": len(self.OURS),
            "fetches_credentials": True,
            "differs": False,
            "blocks": "",
            "proxy": False,
            "cluster": "",
            "stops": "",
            "installs_agent": False,
            "secret_ids": (ARN,),
            "sets_credentials": False,
        }

    @pytest.mark.parametrize(
        "region",
        ["eu-central-1", "cn-north-1", "eusc-de-east-1", "us-iso-east-1", "eu-isoe-west-1"],
    )
    def test_ours_is_not_taken_for_changed_in_any_partition(
        self, template: str, region: str
    ) -> None:
        """CloudFormation fills in AWS::URLSuffix, and so must whoever compares."""
        deployed = userdata.for_instance(["lab-secret"], region)
        assert f"--url-suffix={url_suffix(region)}\n" in deployed
        stubs = Stubs("ec2", region=region)
        encoded = base64.b64encode(deployed.encode()).decode()
        version = {"VersionNumber": 1, "LaunchTemplateData": {"UserData": encoded}}
        stubs.ec2.add_response(
            "describe_launch_template_versions", {"LaunchTemplateVersions": [version]}
        )
        text: Future[str | None] = Future()
        text.set_result(template)
        stack = Stack(
            name="lab",
            id="1",
            status="CREATE_COMPLETE",
            reason="",
            parameters={"CredentialRefreshMinutes": "30", "ImagePullBehavior": "default"},
            outputs={"RegistrySecretArn": "lab-secret", "LaunchTemplateId": "lt-1"},
            tags={},
            role_arn=None,
            protected=False,
        )
        scope = collect.Scope(stack="lab", region=region)
        found = collect.Collector(stubs.caller, scope, None, NOW).templates(
            collect.Origin(stack=stack, exists=True, template=text), collect.Place()
        )
        assert found
        assert (found.differs, found.restorable) == (False, 1)

    @pytest.mark.parametrize(
        ("arguments", "fetches"),
        [
            (f"-s{ARN}", True),
            (f"--secret-id={ARN}", True),
            ("--region=eu-central-1", False),
            ("", False),
        ],
    )
    def test_program_without_a_secret_fetches_nothing(self, arguments: str, fetches: bool) -> None:
        """The program's own text names the option; what counts is that it is given one."""
        file = f"cat > /opt/batchreg/args <<'EOF'\n{arguments}\nEOF\n"
        text = archive(
            f"#!/bin/sh\n{file}cat > registry_login.py <<'EOF'\n{userdata.script()}EOF\n"
        )
        found = launch_template.user_data(base64.b64encode(text.encode()).decode(), None)
        assert found["fetches_credentials"] == fetches
        line = f"python3 /opt/batchreg/registry_login.py --region r {arguments.replace('=', ' ')}\n"
        text = archive(f"#!/bin/sh\n{line}")
        found = launch_template.user_data(base64.b64encode(text.encode()).decode(), None)
        assert found["fetches_credentials"] == fetches

    @pytest.mark.parametrize(
        ("text", "mime"),
        [
            ("#!/bin/bash\necho\n", False),
            ("#cloud-config\n", False),
            ("", True),
            ("Content-Type: multipart/mixed; boundary=x\n\n--y\n", False),
            (archive("#!/bin/sh\n"), True),
        ],
    )
    def test_what_batch_cannot_merge_is_told(self, text: str, mime: bool) -> None:
        """It wants a MIME archive, or nothing."""
        found = launch_template.user_data(base64.b64encode(text.encode()).decode(), None)
        assert (found["mime"], found["fetches_credentials"], found["differs"]) == (
            mime,
            False,
            None,
        )

    @pytest.mark.parametrize(
        ("command", "blocks"),
        [
            ("systemctl restart ecs", True),
            ("sudo systemctl start ecs.service", True),
            ("systemctl restart docker", True),
            ("service docker restart ecs", True),
            ("systemctl enable --now ecs", True),
            ("systemctl enable --now --no-block ecs.service", False),
            ("systemctl --no-block restart ecs", False),
            ("systemctl restart nginx; ls /etc/ecs", False),
            ("# systemctl restart nginx # ecs", False),
            ("echo start ecs", False),
        ],
    )
    def test_command_that_waits_for_the_agent_is_found(self, command: str, blocks: bool) -> None:
        """In any part, in base64 too."""
        text = archive("#!/bin/sh\ntrue\n", f"#!/bin/sh\n{command} && é\n")
        found = launch_template.user_data(base64.b64encode(text.encode()).decode(), None)
        assert bool(found["blocks"]) == blocks

    @pytest.mark.parametrize(
        ("wanted", "number"), [("1", 1), ("$Latest", 3), ("$Default", 2), ("", 2)]
    )
    def test_version_is_the_one_that_the_environment_uses(
        self, stubbed_ec2: Stubs, wanted: str, number: int
    ) -> None:
        """Not the newest, which may be somebody's experiment."""
        stubbed_ec2.ec2.add_response(
            "describe_launch_template_versions",
            {
                "LaunchTemplateVersions": [
                    {
                        "VersionNumber": version,
                        "DefaultVersion": version == 2,
                        "LaunchTemplateData": {"ImageId": f"ami-{version}"},
                    }
                    for version in (1, 2, 3)
                ]
            },
        )
        found = launch_template.launch_template(
            stubbed_ec2.caller, {"launchTemplateId": "lt-1", "version": wanted}, None
        )
        assert (found.version, found.latest, found.machine_image) == (number, 3, f"ami-{number}")

    def test_version_to_go_back_to_is_as_the_stack_wrote_it(self, stubbed_ec2: Stubs) -> None:
        """With its user data and its disk size: not an older one, not one made by hand."""

        def version(number: int, user_data: str, size: int, **more: Any) -> dict[str, Any]:
            volume = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": size}}
            data = {"UserData": base64.b64encode(user_data.encode()).decode(), **more}
            return {
                "VersionNumber": number,
                "LaunchTemplateData": {"BlockDeviceMappings": [volume], **data},
            }

        stubbed_ec2.ec2.add_response(
            "describe_launch_template_versions",
            {
                "LaunchTemplateVersions": [
                    version(1, self.OURS, 50),
                    version(2, self.OURS, 100),
                    version(3, self.OURS, 100, ImageId="ami-1"),
                    version(4, "#!/bin/sh\n", 100),
                ]
            },
        )
        found = launch_template.launch_template(
            stubbed_ec2.caller,
            {"launchTemplateId": "lt-1", "version": "$Latest"},
            launch_template.Written(self.OURS, 100),
        )
        assert (found.version, found.restorable) == (4, 2)

    def test_version_that_is_gone_is_a_fact(self, stubbed_ec2: Stubs) -> None:
        """EC2 refuses the call as a whole."""
        stubbed_ec2.ec2.add_client_error(
            "describe_launch_template_versions",
            "InvalidLaunchTemplateId.VersionNotFound",
            "No.",
            400,
        )
        found = launch_template.launch_template(
            stubbed_ec2.caller, {"launchTemplateName": "lab", "version": "7"}, None
        )
        assert found == facts.LaunchTemplate(id="lab", exists=False, version=7)


PROFILE = "arn:aws:iam::111122223333:instance-profile/p"


def at_once(function: Any, *arguments: Any) -> Future[Any]:
    """Do at once what doctor begins, so that the order of calls is known."""
    done: Future[Any] = Future()
    done.set_result(function(*arguments))
    return done


class Iam:
    """IAM's answers about one role, with a customer managed key beside the secret."""

    def __init__(self, region: str, service: Any) -> None:
        self.region, self.stubs = region, Stubs("iam", "secretsmanager", region=region)
        when = {"CreateDate": NOW, "Path": "/"}
        self.document = {"Statement": {"Effect": "Allow", "Principal": {"Service": service}}}
        self.role = {
            "RoleName": "lab",
            "RoleId": "AROA0000000000000000",
            "Arn": "arn:aws:iam::111122223333:role/lab",
            "AssumeRolePolicyDocument": json.dumps(self.document),
            **when,
        }
        profile = {
            "InstanceProfileName": "p",
            "InstanceProfileId": "AIPA0000000000000000",
            "Roles": [dict(self.role)],
            "Arn": PROFILE,
            **when,
        }
        self.stubs.iam.add_response("get_instance_profile", {"InstanceProfile": profile})
        self.stubs.iam.add_response("get_role", {"Role": dict(self.role)})

    def simulated(
        self, actions: tuple[str, ...], resource: str, *, context: Any = None, **decision: Any
    ) -> None:
        """Expect the next question, and decide it; without a decision it is allowed."""
        expected: dict[str, Any] = {
            "PolicySourceArn": self.role["Arn"],
            "ActionNames": list(actions),
        }
        if resource != "*":
            expected["ResourceArns"] = [resource]
        if context:
            expected["ContextEntries"] = context
        results = [
            {
                "EvalActionName": action,
                "EvalResourceName": resource,
                "EvalDecision": "allowed",
                **decision,
            }
            for action in actions
        ]
        self.stubs.iam.add_response(
            "simulate_principal_policy", {"EvaluationResults": results}, expected
        )

    def look(self, *secrets: credentials.Read) -> facts.Role:
        arns = [read.arn for read in secrets]
        holder = roles.Holder(PROFILE)
        found = roles.role(
            self.stubs.caller, holder, self.region, arns, lambda: secrets, begin=at_once
        )
        self.stubs.iam.assert_no_pending_responses()
        return found


class TestRole:
    @pytest.mark.parametrize(
        ("region", "service", "trusted"),
        [
            ("eu-central-1", "ec2.amazonaws.com", True),
            ("eu-central-1", ["ecs-tasks.amazonaws.com", "ec2.amazonaws.com"], True),
            ("cn-north-1", "ec2.amazonaws.com.cn", True),
            ("cn-north-1", "ec2.amazonaws.com", True),
            ("eusc-de-east-1", "ec2.amazonaws.eu", True),
            ("eu-central-1", "ecs-tasks.amazonaws.com", False),
        ],
    )
    def test_role_is_asked_what_it_may(self, region: str, service: Any, trusted: bool) -> None:
        """By IAM's own simulation, with the condition that the key's policy has."""
        iam = Iam(region, service)
        iam.simulated(roles.ECS, "*")
        iam.simulated(("secretsmanager:GetSecretValue",), ARN)
        via = f"secretsmanager.{region}.{url_suffix(region)}"
        entry = {
            "ContextKeyName": "kms:ViaService",
            "ContextKeyType": "string",
            "ContextKeyValues": [via],
        }
        iam.simulated(("kms:Decrypt",), KEY, context=[entry], EvalDecision="implicitDeny")
        found = iam.look(credentials.Read(facts.Secret(name="s", key=KEY), ARN))
        assert found == facts.Role(
            name="lab",
            profile="p",
            held="lab",
            trusted=trusted,
            trust="" if trusted else json.dumps(iam.document),
            denied=(facts.Denial(action="kms:Decrypt", resource=KEY),),
        )

    @pytest.mark.parametrize(
        ("region", "suffix"),
        [
            ("eu-central-1", "amazonaws.com"),
            ("cn-north-1", "amazonaws.com.cn"),
            ("eusc-de-east-1", "amazonaws.eu"),
            ("us-iso-east-1", "c2s.ic.gov"),
            ("us-isob-east-1", "sc2s.sgov.gov"),
        ],
    )
    def test_key_is_asked_for_as_the_service_of_its_partition(
        self, region: str, suffix: str
    ) -> None:
        """With another name the key's policy does not fit, and a healthy stack seems broken."""
        iam = Iam(region, "ec2.amazonaws.com")
        iam.simulated(roles.ECS, "*")
        iam.simulated(("secretsmanager:GetSecretValue",), ARN)
        entry = {
            "ContextKeyName": "kms:ViaService",
            "ContextKeyType": "string",
            "ContextKeyValues": [f"secretsmanager.{region}.{suffix}"],
        }
        iam.simulated(("kms:Decrypt",), KEY, context=[entry])
        assert iam.look(credentials.Read(facts.Secret(name="s", key=KEY), ARN)).denied == ()

    @pytest.mark.parametrize(
        ("decision", "by", "policy"),
        [
            ({"EvalDecision": "implicitDeny"}, "", ""),
            (
                {
                    "EvalDecision": "explicitDeny",
                    "MatchedStatements": [{"SourcePolicyId": "role_lab_no"}],
                },
                "statement",
                "role_lab_no",
            ),
            (
                {
                    "EvalDecision": "implicitDeny",
                    "PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False},
                },
                "boundary",
                "",
            ),
            (
                {
                    "EvalDecision": "explicitDeny",
                    "OrganizationsDecisionDetail": {"AllowedByOrganizations": False},
                },
                "organization",
                "",
            ),
        ],
    )
    def test_kind_of_policy_that_refuses_is_a_fact(
        self, decision: dict[str, Any], by: str, policy: str
    ) -> None:
        """An allow statement helps against the first of these alone."""
        iam = Iam("eu-central-1", "ec2.amazonaws.com")
        iam.stubs.secretsmanager.add_response("get_resource_policy", {"ARN": ARN})
        iam.simulated(roles.ECS, "*")
        iam.simulated(("secretsmanager:GetSecretValue",), ARN, **decision)
        found = iam.look(credentials.Read(facts.Secret(name="s"), ARN))
        assert found.denied == (
            facts.Denial(
                action="secretsmanager:GetSecretValue", resource=ARN, by=by, policy=policy
            ),
        )

    def test_each_resource_has_a_decision_of_its_own(self) -> None:
        """With several secrets, IAM's answer as a whole says nothing about one of them."""
        iam = Iam("eu-central-1", "ec2.amazonaws.com")
        iam.simulated(roles.ECS, "*")
        other = ARN.replace("ghcr", "hub")
        denied = {
            "EvalResourceName": other,
            "EvalResourceDecision": "explicitDeny",
            "MatchedStatements": [{"SourcePolicyId": "no-hub"}],
        }
        allowed = {"EvalResourceName": ARN, "EvalResourceDecision": "allowed"}
        iam.stubs.iam.add_response(
            "simulate_principal_policy",
            {
                "EvaluationResults": [
                    {
                        "EvalActionName": "secretsmanager:GetSecretValue",
                        "EvalDecision": "explicitDeny",
                        "ResourceSpecificResults": [allowed, denied],
                    }
                ]
            },
        )
        reads = [credentials.Read(facts.Secret(name="s"), arn) for arn in (ARN, other)]
        (found,) = iam.look(*reads).denied
        assert (found.resource, found.by, found.policy) == (other, "statement", "no-hub")

    @pytest.mark.parametrize(
        ("policy", "denied"),
        [
            ({"Principal": {"AWS": "arn:aws:iam::111122223333:role/lab"}}, 0),
            ({"Principal": {"AWS": ["arn:aws:iam::111122223333:role/lab"]}}, 0),
            ({"Principal": "*"}, 0),
            ({"Principal": {"AWS": "arn:aws:iam::111122223333:role/other"}}, 1),
            ({"Principal": {"AWS": "arn:aws:iam::111122223333:root"}}, 1),
            ({"Principal": "*", "Effect": "Deny"}, 1),
            ({"Principal": "*", "Action": "secretsmanager:DescribeSecret"}, 1),
        ],
    )
    def test_policy_of_the_secret_counts_too(self, policy: dict[str, Any], denied: int) -> None:
        """A companion stack lets somebody's role in this way, and IAM does not simulate it."""
        iam = Iam("eu-central-1", "ec2.amazonaws.com")
        iam.simulated(roles.ECS, "*")
        iam.simulated(("secretsmanager:GetSecretValue",), ARN, EvalDecision="implicitDeny")
        statement = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", **policy}
        iam.stubs.secretsmanager.add_response(
            "get_resource_policy", {"ResourcePolicy": json.dumps({"Statement": [statement]})}
        )
        found = iam.look(credentials.Read(facts.Secret(name="s"), ARN))
        assert len(found.denied) == denied

    def test_permissions_that_could_not_be_simulated_are_not_claimed(self) -> None:
        """The row then says that the role exists, and no more."""
        iam = Iam("eu-central-1", "ec2.amazonaws.com")
        iam.stubs.iam.add_client_error("simulate_principal_policy", "AccessDenied", "No.", 403)
        found = iam.look()
        assert found.row == ("Role lab", "exists")
