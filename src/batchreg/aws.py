"""Clients of AWS, and what their errors mean in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, overload
from urllib.parse import urlsplit

from batchreg import waiting
from batchreg.errors import BatchregError

if TYPE_CHECKING:  # types-boto3-lite is a development dependency
    from types_boto3_autoscaling import AutoScalingClient
    from types_boto3_batch import BatchClient
    from types_boto3_cloudformation import CloudFormationClient
    from types_boto3_ec2 import EC2Client
    from types_boto3_ecs import ECSClient
    from types_boto3_iam import IAMClient
    from types_boto3_kms import KMSClient
    from types_boto3_logs import CloudWatchLogsClient
    from types_boto3_secretsmanager import SecretsManagerClient
    from types_boto3_service_quotas import ServiceQuotasClient
    from types_boto3_ssm import SSMClient
    from types_boto3_sts import STSClient

# With AWS_MAX_ATTEMPTS unset, for an endpoint that has answered before.
ATTEMPTS = 6
CONNECT_SECONDS, READ_SECONDS = 5, 13
# One that has never answered is not asked again if that could take longer in all.
DEAD_SECONDS = 15


# Where AWS is not amazonaws.com, by the region's first letters.
URL_SUFFIXES = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
    "eu-isoe-": "cloud.adc-e.uk",
}


def url_suffix(region: str) -> str:
    """Return the domain of AWS's endpoints in a region: `AWS::URLSuffix` of CloudFormation."""
    return next(
        (domain for start, domain in URL_SUFFIXES.items() if region.startswith(start)),
        "amazonaws.com",
    )


class Session:
    """Makes clients with the user's profile, region and endpoint, on first use."""

    def __init__(self, *, profile: str | None, region: str | None, endpoint: str | None) -> None:
        self.profile, self.endpoint = profile, endpoint
        # boto3 reads AWS_DEFAULT_REGION alone; every other SDK, and so every user, AWS_REGION.
        self.region = region or os.environ.get("AWS_REGION") or None
        self.place = ""  # region and profile in words, once there is a client
        self._session: Any = None

    # One line for each service in use, so that callers know the type of their client.
    @overload
    def client(self, service: Literal["autoscaling"]) -> AutoScalingClient: ...
    @overload
    def client(self, service: Literal["batch"]) -> BatchClient: ...
    @overload
    def client(self, service: Literal["cloudformation"]) -> CloudFormationClient: ...
    @overload
    def client(self, service: Literal["ec2"]) -> EC2Client: ...
    @overload
    def client(self, service: Literal["ecs"]) -> ECSClient: ...
    @overload
    def client(self, service: Literal["iam"]) -> IAMClient: ...
    @overload
    def client(self, service: Literal["kms"]) -> KMSClient: ...
    @overload
    def client(self, service: Literal["logs"]) -> CloudWatchLogsClient: ...
    @overload
    def client(self, service: Literal["secretsmanager"]) -> SecretsManagerClient: ...
    @overload
    def client(self, service: Literal["service-quotas"]) -> ServiceQuotasClient: ...
    @overload
    def client(self, service: Literal["ssm"]) -> SSMClient: ...
    @overload
    def client(self, service: Literal["sts"]) -> STSClient: ...
    @overload
    def client(self, service: str) -> Any: ...
    def client(self, service: str) -> Any:
        """Return a client that retries throttling and dropped connections by itself.

        Raises BatchregError where no region, no such profile or no usable endpoint is configured.
        """
        from botocore.exceptions import InvalidRegionError

        try:
            if self._session is None:
                self._session = self._new_session()
                with waiting.pending("Waiting for AWS credentials", is_call=True):
                    self._session.get_credentials()
            if not self._session.region_name:
                raise BatchregError("No AWS region is set.", "Use --region, or set AWS_REGION.")
            client = self._session.client(service, endpoint_url=self.endpoint or None)
            _ = urlsplit(client.meta.endpoint_url).port  # raises what the first call would
        except InvalidRegionError:
            raise BatchregError(
                f"{self._session.region_name!r} is not an AWS region.",
                "Use --region, or set AWS_REGION.",
            ) from None
        except ValueError as error:
            raise BatchregError(
                f"{error}.", "Check --endpoint-url and the AWS_* variables."
            ) from None
        client.meta.events.register("before-parse", _refuse_html)
        return client

    def _new_session(self) -> Any:
        """Return a session whose clients, those that get its credentials included, end in time."""
        import boto3
        import botocore.session
        from botocore.config import Config

        core = botocore.session.get_session()
        session = boto3.session.Session(
            profile_name=self.profile, region_name=self.region, botocore_session=core
        )
        attempts = core.get_config_variable("max_attempts") or ATTEMPTS
        core.set_default_client_config(
            Config(
                retries={"mode": "standard", "total_max_attempts": attempts},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                tcp_keepalive=True,
            )
        )
        self.place = f"region {session.region_name}, profile {session.profile_name}"
        calls = _Calls(self.place)
        core.register("before-call", calls.begin)
        core.register("needs-retry", calls.give_up)
        core.register("after-call", calls.end)
        core.register("after-call-error", calls.fail)
        return session


class _Calls:
    """Watches all calls of a session: what is waited for, and who has never answered.

    `place`: where it asks, in words. Its methods are handlers of botocore's events.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._answered: set[str] = set()

    def begin(self, **event: Any) -> None:
        parts = urlsplit(event["params"]["url"])
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        text = f"Waiting for {host} to answer {event['model'].name}"
        event["context"]["batchreg"] = waiting.begin(text, is_call=True)

    def end(self, **event: Any) -> None:
        waiting.end(event["context"].pop("batchreg", None))

    def fail(self, **event: Any) -> None:
        self.end(**event)
        _note(event["exception"], place=self._place)

    def give_up(self, **event: Any) -> None:
        """End the retries of an endpoint that has never answered, once time is short."""
        host = event["endpoint"].host
        if event["response"] is not None:
            self._answered.add(host)
        wait = event["request_dict"]["context"].get("batchreg")
        if not wait or host in self._answered:
            return
        _note(event["caught_exception"], dead=True)
        longest_pause = 2 ** (event["attempts"] - 1)  # of botocore's standard mode
        if wait.seconds + longest_pause + CONNECT_SECONDS > DEAD_SECONDS:
            raise event["caught_exception"]


def _note(error: Any, **facts: Any) -> None:
    """Keep facts in an error of botocore's, for `explain` and `is_transient`."""
    if isinstance(getattr(error, "kwargs", None), dict):
        error.kwargs |= facts


def _noted(error: Any, fact: str) -> Any:
    return getattr(error, "kwargs", {}).get(fact)


def quick_client(
    service: str,
    seconds: float,
    *,
    profile: str | None = None,
    region: str | None = None,
    endpoint_url: str | None = None,
) -> Any:
    """Return a client that answers within seconds or fails, for what is worth no waiting.

    It asks nobody for a code: a profile with `mfa_serial` is refused. It does without boto3.
    """
    import botocore.session
    from botocore.config import Config

    session = botocore.session.Session(profile=profile)
    profiles, name = session.full_config.get("profiles", {}), session.profile or "default"
    for _ in range(len(profiles)):  # through each source_profile
        if "mfa_serial" in profiles.get(name, {}):
            raise BatchregError(f"The profile {name} needs a code.")
        name = profiles.get(name, {}).get("source_profile", name)
    return session.create_client(
        service,
        region_name=region or os.environ.get("AWS_REGION") or None,
        endpoint_url=endpoint_url or None,
        config=Config(
            retries={"total_max_attempts": 1}, connect_timeout=seconds, read_timeout=seconds
        ),
    )


Connect = Callable[..., Session]  # what makes one; tests pass their own


def _refuse_html(response_dict: dict[str, Any], **_: Any) -> None:
    """Refuse a web page, parts of which botocore would take for an answer from AWS."""
    if not response_dict["headers"].get("content-type", "").startswith("text/html"):
        return
    if response_dict["status_code"] < 500:
        raise BatchregError(*NOT_AWS)
    response_dict["body"] = b""  # a gateway failed, and botocore then retries


NOT_AWS = ("The answer is not from AWS.", "Check the proxy and --endpoint-url.")

# The next step, by error code.
_PERMIT = "Ask for this permission, or use another --profile."
_LOG_IN = "Log in to AWS again."
_CREDENTIALS = "Check the AWS credentials, or log in to AWS again."
_SIGNATURE = "Check the AWS secret key and this machine's clock."
_WAIT = "Wait a minute, then try again."
NEXT_STEPS = {
    "AccessDenied": _PERMIT,
    "AccessDeniedException": _PERMIT,
    "AuthFailure": _CREDENTIALS,
    "ExpiredToken": _LOG_IN,
    "ExpiredTokenException": _LOG_IN,
    "InvalidClientTokenId": _CREDENTIALS,
    "InvalidSignatureException": _SIGNATURE,
    "LimitExceededException": "Delete what is no longer used, or request a higher quota.",
    "RequestExpired": "Log in to AWS again, or set this machine's clock.",
    "RequestLimitExceeded": _WAIT,
    "SignatureDoesNotMatch": _SIGNATURE,
    "Throttling": _WAIT,
    "ThrottlingException": _WAIT,
    "TooManyRequestsException": _WAIT,
    "UnauthorizedOperation": _PERMIT,
    "UnrecognizedClientException": _CREDENTIALS,
}


def is_transient(error: Exception) -> bool:
    """Tell whether the same call may soon work: throttling, or a network that is unavailable."""
    import botocore.exceptions as known

    if isinstance(error, known.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or NEXT_STEPS.get(_code(error)) == _WAIT
    if not isinstance(error, known.ConnectionError | known.HTTPClientError):
        return False
    return not _noted(error, "dead")


def explain(error: Exception) -> str | None:
    """Return one line for an error of botocore's, the fact and the next step; None for any other.

    Parameters' values stay out: no message of botocore's about requests is passed on whole.
    """
    explained = _explained(error)
    return " ".join(filter(None, explained)) if explained else None


def _explained(error: Exception) -> tuple[str, str] | None:
    """Return (fact, next step)."""
    import botocore.exceptions as known

    if isinstance(error, known.ClientError):
        return _refusal(error)
    if isinstance(error, known.NoCredentialsError):
        return "No AWS credentials.", "Log in, set AWS_PROFILE, or use --profile."
    if isinstance(error, known.PartialCredentialsError):
        return f"Incomplete AWS credentials: {error.kwargs['cred_var']} is not set.", ""
    if isinstance(error, known.ProfileNotFound):
        return (
            f"There is no AWS profile {error.kwargs['profile']}.",
            "`aws configure list-profiles` lists them.",
        )
    if isinstance(error, known.ConfigParseError):
        return f"{error.kwargs['path']} is not an AWS configuration file.", "Fix or move it."
    if isinstance(error, known.SSLError):
        return (
            f"No secure connection to {error.kwargs['endpoint_url']}: "
            f"{_line(error.kwargs['error'])}.",
            "Check --endpoint-url, or set AWS_CA_BUNDLE to your network's certificates.",
        )
    if isinstance(error, known.ProxyConnectionError):
        return f"No answer from the proxy {error.kwargs['proxy_url']}.", "Check HTTPS_PROXY."
    if isinstance(error, known.ConnectionError | known.HTTPClientError):
        place = f" ({place})" if (place := _noted(error, "place")) else ""
        return (
            f"No answer from {error.kwargs.get('endpoint_url') or 'AWS'}{place}.",
            "Check the network, the proxy, --region and --endpoint-url.",
        )
    if isinstance(error, known.ParamValidationError):
        return "A value does not have the form that AWS requires.", "Check the options."
    if type(error).__name__ == "ResponseParserError":
        return NOT_AWS
    if isinstance(
        error, known.CredentialRetrievalError | known.SSOError | known.TokenRetrievalError
    ):
        return f"No AWS credentials: {_line(error)}.", _LOG_IN
    if isinstance(error, known.BotoCoreError):
        return f"{_line(error)}.", ""
    return None


def _refusal(error: Any) -> tuple[str, str]:
    code, text = _code(error), _line(error.response.get("Error", {}).get("Message", ""))
    if code.isdecimal():  # botocore found no error of AWS's in the body
        return (
            f"No answer from AWS, but {' '.join(filter(None, (code, text)))}.",
            "Check the proxy and --endpoint-url, or try again.",
        )
    if not code:
        return NOT_AWS
    return f"AWS rejected {error.operation_name}: {text or code}.", NEXT_STEPS.get(code, "")


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _line(message: object) -> str:
    """Fold to one line without markup and without a full stop."""
    return re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", str(message))).strip(" .:")[:400]
