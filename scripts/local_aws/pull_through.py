"""ECR as an engine sees it: a registry that asks for a token, and caches what its rules are for.

Images that somebody has pushed are ministack's. Those of a rule come through Debian's
docker-registry in proxy mode, and are then served without the upstream registry: ECR asks again
after 24 hours, which is longer than this lives. Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import asyncio
import base64
from collections import defaultdict
from typing import Any

from ministack.core.responses import AccountRegionScopedDict, get_account_id, get_region
from ministack.services import ecr

from local_aws import policies, upstreams
from local_aws.cache_rules import read_login, rules
from local_aws.creation_templates import create_repository, has_prefix
from local_aws.ecr import REGISTRY, caller_of, host, registry_policies
from local_aws.ecr_requests import EcrError

Data = dict[str, Any]

# Of each cached repository: the proxy that has it, and its name there.
_cached = AccountRegionScopedDict()
_importing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
_handle_request = ecr.handle_registry_request


class Refusal(Exception):
    """What the registry refuses, as the API of registries says it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = ecr._registry_error(status, code, message)


def install() -> None:
    """Add it to ministack, before the server starts."""
    ecr.handle_registry_request = handle_request


async def handle_request(method: str, path: str, headers: Data, body: bytes, query: Data) -> Any:
    verb, name, reference = ecr._parse_v2_path(path) or ("", "", "")
    ecr._select_registry_request_scope(name, headers, query)
    caller = _caller(headers.get("authorization", ""))
    if caller is None:
        challenge = f'Basic realm="https://{host()}/",service="ecr.amazonaws.com"'
        return 401, {"WWW-Authenticate": challenge}, b"Not Authorized\n"
    try:
        if verb in ("manifest", "blob") and method in ("GET", "HEAD"):
            reply = await _pull(caller, verb, name, reference)
            if reply:
                return _answer(method, reply)
    except Refusal as refusal:
        return refusal.answer
    except upstreams.Unavailable as error:  # its proxy, with what is cached
        return ecr._registry_error(503, "UNAVAILABLE", str(error))
    return await _handle_request(method, path, headers, body, query)


def _caller(authorization: str) -> str | None:
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, _, token = base64.b64decode(encoded).decode().partition(":")
    except ValueError:
        return None
    return caller_of(token) if (scheme.lower(), user) == ("basic", "AWS") else None


def _answer(method: str, reply: upstreams.Reply) -> Any:
    names = ("Content-Type", "Content-Length", "Docker-Content-Digest")
    kept = {name: reply.headers[name] for name in names if name in reply.headers}
    return ecr._registry_ok(reply.status, kept, b"" if method == "HEAD" else reply.body)


async def _pull(caller: str, verb: str, name: str, reference: str) -> upstreams.Reply | None:
    """Return what an image's pull asks for; None where it is no business of the cache's."""
    action = "ecr:BatchGetImage" if verb == "manifest" else "ecr:GetDownloadUrlForLayer"
    if not _may(caller, action, name):
        arn = ecr._repo_arn(name)
        result = policies.decide(caller, action, arn, resource_policies=_of_repository(name))
        raise Refusal(403, "DENIED", policies.refusal(caller, action, arn, result))
    if verb == "blob":
        return await _blob(name, reference) if _is_cached(name) else None
    async with _importing[f"{get_region()}/{name}"]:
        image = _image(name, reference)
        if image is None:
            return await _import(caller, name, reference)
    if not _is_cached(name):
        return None
    proxy, path = _where(name)
    return await asyncio.to_thread(proxy.get, f"/v2/{path}/manifests/{image['imageDigest']}")


def _image(name: str, reference: str) -> Data | None:
    key = "imageDigest" if reference.startswith("sha256:") else "imageTag"
    image: Data | None = ecr._find_image(name, {key: reference})
    return image


def _is_cached(name: str) -> bool:
    return name in ecr._repositories and name in _cached


def _where(name: str) -> tuple[upstreams.Proxy, str]:
    proxy, path = _cached[name]
    return upstreams.proxy_named(proxy), path


async def _blob(name: str, digest: str) -> upstreams.Reply:
    proxy, path = _where(name)
    if not proxy.has(path, digest):
        raise Refusal(404, "BLOB_UNKNOWN", "blob unknown to registry")
    return await asyncio.to_thread(proxy.get, f"/v2/{path}/blobs/{digest}")


# --- Permissions ---


def _may(caller: str, action: str, name: str, *more: str) -> bool:
    """Tell whether a caller may do something; `more` are policies besides the repository's."""
    found = [*_of_repository(name), *more]
    arn = ecr._repo_arn(name)
    result = policies.decide(caller, action, arn, resource_policies=found)
    return bool(result.decision == "Allow")


def _of_repository(name: str) -> list[str]:
    return [ecr._repo_policies[name]] if name in ecr._repo_policies else []


# --- The first pull ---


async def _import(caller: str, name: str, reference: str) -> upstreams.Reply:
    """Fetch an image from the upstream registry, and keep it.

    Where a permission is missing, ECR speaks of what is missing for that reason. Sources:
    docs.aws.amazon.com/AmazonECR/latest/userguide/error-pullthroughcache.html, pull-through-cache-iam.html
    """
    unknown = Refusal(404, "MANIFEST_UNKNOWN", "Requested image not found")
    fitting = [rule for prefix, rule in rules.items() if has_prefix(name, prefix)]
    of_registry = [registry_policies[REGISTRY]] if REGISTRY in registry_policies else []
    if name not in ecr._repositories and not (
        fitting and _may(caller, "ecr:CreateRepository", name, *of_registry)
    ):
        raise Refusal(
            404,
            "NAME_UNKNOWN",
            f"The repository with name '{name}' does not exist in the registry with id "
            f"'{get_account_id()}'",
        )
    if not fitting or not _may(caller, "ecr:BatchImportUpstreamImage", name, *of_registry):
        raise unknown
    rule = max(fitting, key=lambda rule: len(_without_root(rule["ecrRepositoryPrefix"])))
    upstream = rule["upstreamRegistryUrl"]
    try:
        login = read_login(rule["credentialArn"]) if "credentialArn" in rule else None
        reply, cached = await _fetch(rule, login, name, reference)
    except EcrError as error:
        raise Refusal(403, "DENIED", str(error)) from error
    except upstreams.Unavailable:
        raise unknown from None  # what AWS says then is not documented
    if reply.status != 200:
        refused = await asyncio.to_thread(upstreams.refuses, upstream, login)
        raise Refusal(403, "DENIED", refused) if refused == upstreams.REFUSED else unknown
    if name not in ecr._repositories:
        create_repository(name)
    _cached[name] = cached
    request = {
        "repositoryName": name,
        "imageDigest": reply.headers["Docker-Content-Digest"],
        "imageManifest": reply.body.decode(),
        "imageManifestMediaType": reply.headers["Content-Type"],
    }
    tag = {} if reference.startswith("sha256:") else {"imageTag": reference}
    ecr._put_image({**request, **tag})
    return reply


def _without_root(prefix: str) -> str:
    return "" if prefix == "ROOT" else prefix


async def _fetch(
    rule: Data, login: upstreams.Login | None, name: str, reference: str
) -> tuple[upstreams.Reply, tuple[str, str]]:
    """Return an image's manifest, and where in which proxy it is."""
    prefix = _without_root(rule["ecrRepositoryPrefix"])
    path = name.removeprefix(f"{prefix}/")
    if above := _without_root(rule["upstreamRepositoryPrefix"]):
        path = f"{above}/{path}"
    key = f"{get_region()}~{(prefix or 'ROOT').replace('/', '~')}"
    proxy = await upstreams.proxy_for(key, rule["upstreamRegistryUrl"], login)
    if not ecr._images.get(name):
        proxy.forget(path)  # of a repository that has been deleted
    return await asyncio.to_thread(proxy.fetch, path, reference), (key, path)
