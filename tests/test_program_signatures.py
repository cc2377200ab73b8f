"""Signature Version 4, judged by botocore."""

import json
import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from secrets_server import Keys, authorization

from batchreg.registry_login import sign

TOKENS = st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)
ACCESS_KEYS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", min_size=16, max_size=128)
SECRET_KEYS = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", min_size=1
)
REGIONS = st.builds(
    "{}-{}-{}".format,
    st.sampled_from(["eu", "us-gov", "cn", "us-iso", "ap"]),
    st.sampled_from(["central", "northwest", "southeast"]),
    st.integers(1, 9),
)
ENDPOINTS = st.sampled_from(
    [
        "https://secretsmanager.{region}.amazonaws.com/",
        "http://127.0.0.1:4566/",
        "https://secretsmanager.{region}.amazonaws.com.cn/",
        "https://proxy.example:8443/a/b%20c/~d/",
        "https://vpce-0a1b2c-3d4e5f.secretsmanager.{region}.vpce.amazonaws.com/",
    ]
)


@given(
    endpoint=ENDPOINTS,
    region=REGIONS,
    access_key=ACCESS_KEYS,
    secret_key=SECRET_KEYS,
    token=TOKENS,
    secret_id=st.text(),
    now=st.floats(0, 4e9) | st.integers(0, 4_000_000_000),
)
@settings(max_examples=1000, deadline=None)
def test_a_signature_is_the_one_botocore_makes(
    endpoint, region, access_key, secret_key, token, secret_id, now
):
    """The one thing that is written here although AWS ships it, judged by what AWS ships."""
    url = endpoint.format(region=region)
    body = json.dumps({"SecretId": secret_id}).encode()
    keys = {"AccessKeyId": access_key, "SecretAccessKey": secret_key, "Token": token}
    headers = sign(url, body, region, keys, now)
    request = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Target": "secretsmanager.GetSecretValue",
        "X-Amz-Date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)),
    }
    if token:
        request["X-Amz-Security-Token"] = token
    assert headers.pop("host") == re.split("/+", url)[1]
    expected = authorization(url, request, body, region, Keys(access_key, secret_key, token))
    assert headers.pop("authorization") == expected
    assert headers == {name.lower(): value for name, value in request.items()}
