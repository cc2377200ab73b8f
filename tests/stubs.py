"""Clients of AWS whose responses a test gives beforehand."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.session
from botocore.stub import Stubber

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
