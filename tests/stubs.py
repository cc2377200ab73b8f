"""Clients of AWS whose responses a test gives beforehand."""

from __future__ import annotations

import json
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.session
from botocore.stub import Stubber

from batchreg.doctor import facts
from batchreg.doctor.collect import credentials, roles
from batchreg.doctor.collect.calls import Caller

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:team/ghcr-AbCdEf"
LOGIN = {"username": "lab", "password": "canary-4711", "registry_url": "ghcr.io"}


@cache
def session() -> Any:
    return botocore.session.get_session()


def client(service: str, region: str = "eu-central-1") -> Any:
    return session().create_client(
        service, region_name=region, aws_access_key_id="x", aws_secret_access_key="y"
    )


class Stubs:
    """Clients whose responses are given beforehand, in the order in which they are asked for."""

    def __init__(self, *services: str, region: str = "eu-central-1") -> None:
        self.clients = {service: client(service, region) for service in services}
        self.stubs = {service: Stubber(made) for service, made in self.clients.items()}
        for stub in self.stubs.values():
            stub.activate()
        self.caller = Caller(self.clients.__getitem__, seconds=5)

    def __getattr__(self, service: str) -> Stubber:
        return self.stubs[service]


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

    def look(self, *secrets: credentials.Read, **more: Any) -> facts.Role:
        arns = [read.arn for read in secrets]
        holder = roles.Holder(PROFILE)
        found = roles.role(
            self.stubs.caller, holder, self.region, arns, lambda: secrets, begin=at_once, **more
        )
        self.stubs.iam.assert_no_pending_responses()
        return found
