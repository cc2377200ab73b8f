"""The credentials that `docker login` stored, in its configuration or in a credential helper.

Source: docs.docker.com/reference/cli/docker/login/#credential-stores. A helper is asked as Docker
asks it: the registry goes to its standard input, the credentials come from its output.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from batchreg.errors import BatchregError
from batchreg.registry.logins import Credentials, RegistrySpec
from batchreg.registry.names import host_of, same
from batchreg.registry_login import HUB


def stored(spec: RegistrySpec, folder: Path, *, seconds: float = 10) -> Credentials:
    """Return what Docker has stored for a registry, under any spelling of its host.

    `folder` is Docker's configuration folder; a credential helper has so many `seconds`. Raises
    BatchregError if Docker has nothing usable.
    """
    config = _read(folder / "config.json")
    helpers, auths = config["credHelpers"], config["auths"]
    spellings = [name for name in (*helpers, *auths) if same(name, spec.key)]
    for name in dict.fromkeys([spec.url, spec.key, *spellings]):
        helper = helpers.get(name) or config["credsStore"]
        found = _from_helper(helper, name, seconds) if helper else _decoded(auths.get(name))
        if found:
            return found
    host = "" if spec.key == HUB else f" {spec.key}"
    raise BatchregError(
        f"Docker has no credentials for {host_of(spec.key)}.", f"Run docker login{host} first."
    )


def _read(path: Path) -> dict[str, Any]:
    """Return the three entries that hold credentials, of the right types."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BatchregError(
            f"Cannot read {path}: {error.strerror}.", "Run docker login first."
        ) from None
    except ValueError:
        raise BatchregError(f"{path} is not JSON.", "Run docker login again.") from None
    if isinstance(config, dict):
        helpers, auths = config.get("credHelpers") or {}, config.get("auths") or {}
        if isinstance(helpers, dict) and isinstance(auths, dict):
            return {"credHelpers": helpers, "auths": auths, "credsStore": config.get("credsStore")}
    raise BatchregError(
        f"{path} does not have the form that Docker writes.", "Run docker login again."
    )


def _decoded(entry: object) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    if entry.get("identitytoken"):
        raise _identity_token("Docker")
    try:
        username, colon, password = base64.b64decode(entry["auth"]).decode().partition(":")
    except (KeyError, TypeError, ValueError):
        return None
    return Credentials(username, password) if colon and username else None


def _from_helper(helper: str, name: str, seconds: float) -> Credentials | None:
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=name, capture_output=True, text=True, timeout=seconds
        )
    except FileNotFoundError:
        raise BatchregError(
            f"Docker's credential helper {program} is not installed here.",
            "Install it, or give the credentials another way.",
        ) from None
    except subprocess.TimeoutExpired:
        raise BatchregError(
            f"{program} did not answer within {seconds:.0f} s.", "Unlock it, then try again."
        ) from None
    try:
        answer = json.loads(done.stdout)
        username, password = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        return None  # "credentials not found in native keychain"
    if username == "<token>":
        raise _identity_token(program)
    return Credentials(username, password) if username else None


def _identity_token(holder: str) -> BatchregError:
    return BatchregError(
        f"{holder} holds an identity token for this registry, which the ECS agent cannot use.",
        "Log in with an access token.",
    )
