"""The tests' Secrets Manager is as strict as AWS."""

import re

import boto3
import pytest
from program import ROLE_AWAY, secret
from secrets_server import REGION, ROLE_KEYS, USER_KEYS


@pytest.mark.parametrize("keys", [ROLE_KEYS, USER_KEYS], ids=["token", "no token"])
def test_the_test_server_accepts_what_boto3_sends(server, keys):
    """A server that refused AWS's own client would judge ours by the wrong rules."""
    client = boto3.client(
        "secretsmanager",
        region_name=REGION,
        endpoint_url=server.url,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
    )
    try:
        assert client.get_secret_value(SecretId="ghcr")["SecretString"] == secret()
    finally:
        client.close()


@pytest.mark.parametrize(
    "env",
    [
        {**ROLE_AWAY, "AWS_SECRET_ACCESS_KEY": "wrong"},
        {**ROLE_AWAY, "AWS_ACCESS_KEY_ID": "AKIANOBODY"},
        {**ROLE_AWAY, "AWS_SESSION_TOKEN": "wrong"},
    ],
    ids=["secret key", "access key", "token"],
)
def test_wrong_keys_are_refused(instance, env):
    """Else the signatures in the other tests would prove nothing."""
    run = instance.run("ghcr", env=env, deadline=0.1)
    assert (run.code, instance.config.exists()) == (1, False)
    assert re.search("HTTP 400 (InvalidSignature|UnrecognizedClient)Exception$", run.lines[-1])
