"""Clients of AWS, and what their errors mean in one line."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from batchreg.errors import BatchregError

if TYPE_CHECKING:
    from botocore.client import BaseClient


class Session:
    """Makes clients with the user's profile, region and endpoint, on first use."""

    def __init__(self, *, profile: str | None, region: str | None, endpoint: str | None) -> None:
        self.profile, self.endpoint = profile, endpoint
        # boto3 reads AWS_DEFAULT_REGION alone; every other SDK, and so every user, AWS_REGION.
        self.region = region or os.environ.get("AWS_REGION") or None
        self._session: Any = None

    def client(self, service: str) -> BaseClient:
        """Return a client that retries throttling and dropped connections by itself.

        Raises BatchregError where no region or no such profile is configured.
        """
        import boto3
        from botocore.config import Config

        if self._session is None:
            self._session = boto3.session.Session(
                profile_name=self.profile, region_name=self.region)
        if not self._session.region_name:
            raise BatchregError("No AWS region: give --region, or set AWS_REGION.")
        client: BaseClient = self._session.client(
            service, endpoint_url=self.endpoint or None,
            config=Config(retries={"mode": "standard", "total_max_attempts": 6},
                          connect_timeout=10, read_timeout=30, tcp_keepalive=True))
        return client


# What to do next, by error code.
NEXT_STEPS = {
    "AccessDenied": "ask for this permission, or use --profile or --role-arn",
    "AccessDeniedException": "ask for this permission, or use --profile or --role-arn",
    "ExpiredToken": "log in to AWS again",
    "ExpiredTokenException": "log in to AWS again",
    "InvalidClientTokenId": "check the AWS credentials, or log in to AWS again",
    "RequestExpired": "log in to AWS again, or set this machine's clock",
    "SignatureDoesNotMatch": "check the AWS secret key and this machine's clock",
    "Throttling": "wait a minute, then try again",
    "UnrecognizedClientException": "check the AWS credentials, or log in to AWS again",
}


def explain(error: Exception) -> str | None:
    """Return one line for an error of botocore's, None for any other exception.

    Parameters' values stay out: no message of botocore's about requests is passed on whole.
    """
    import botocore.exceptions as known

    if isinstance(error, known.ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        text = error.response.get("Error", {}).get("Message", "")
        text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", text)).strip().rstrip(".")[:400]
        step = NEXT_STEPS.get(code)
        line = f"AWS refuses {error.operation_name}: {text or code}"
        return f"{line}. Next: {step}." if step else f"{line}."
    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError):
        return "No AWS credentials: log in, set AWS_PROFILE, or give --profile."
    if isinstance(error, known.ProfileNotFound):
        return f"{error}. `aws configure list-profiles` lists them.".replace("..", ".")
    if isinstance(error, known.EndpointConnectionError | known.ConnectionError
                  | known.HTTPClientError):
        url = error.kwargs.get("endpoint_url") or "AWS"
        return f"No answer from {url}: check the network, the proxy and --endpoint-url."
    if isinstance(error, known.ParamValidationError):
        return "A value does not have the form that AWS asks for: check the options."
    if type(error).__name__ == "ResponseParserError":
        return "The answer is not from AWS: a proxy or --endpoint-url is in the way."
    if isinstance(error, known.BotoCoreError):
        return re.sub(r"\s+", " ", str(error)).rstrip(".")[:400] + "."
    return None
