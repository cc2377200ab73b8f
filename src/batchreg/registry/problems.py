"""The ways in which a check can fail: for each a cause, a fact and the next step.

No text quotes what a server said: any of its words might be the password, sent back.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

# What people misspell; Docker Hub's names have a rule of their own.
KNOWN_HOSTS = ("ghcr.io", "gcr.io", "quay.io", "registry.gitlab.com", "public.ecr.aws")


class Problem(Exception):
    """Why an image cannot be pulled. `details` are values for programs, such as `retry_after`."""

    def __init__(self, cause: str, fact: str, step: str, **details: str) -> None:
        super().__init__(fact, step)
        self.cause, self.fact, self.step, self.details = cause, fact, step, details


# --- no answer ---


def timeout(peer: str, seconds: float) -> Problem:
    return Problem(
        "unreachable",
        f"{peer} did not answer within {seconds:g} s.",
        "Check that it is up, and that this network can reach it.",
        why="timeout",
    )


def unknown_host(peer: str) -> Problem:
    near = difflib.get_close_matches(peer, KNOWN_HOSTS, n=2, cutoff=0.85)
    wrong = near and peer not in near
    return Problem(
        "unreachable",
        f"This machine cannot find a host named {peer}.",
        f"Did you mean {' or '.join(near)}? Otherwise check the network and HTTPS_PROXY."
        if wrong
        else "Check the spelling, the network and HTTPS_PROXY.",
        why="dns",
    )


def refused(peer: str) -> Problem:
    return Problem(
        "unreachable",
        f"{peer} refused the connection.",
        "Check that the registry is up, and that this is its port.",
        why="refused",
    )


def hung_up(peer: str) -> Problem:
    return Problem(
        "unreachable",
        f"{peer} closed the connection without an answer.",
        "Check that this is the registry's port, and that no firewall is in the way.",
        why="closed",
    )


def proxy_refused(peer: str) -> Problem:
    return Problem(
        "unreachable",
        f"The proxy does not allow connections to {peer}.",
        "Check HTTPS_PROXY and NO_PROXY.",
        why="proxy",
    )


def proxy_unsupported(peer: str, scheme: str) -> Problem:
    return Problem(
        "unreachable",
        f"The proxy for {peer} is of the kind {scheme}://, which batchreg does not support.",
        "Set HTTPS_PROXY to an http:// proxy.",
        why="proxy",
    )


def proxy_down(peer: str, proxy: str) -> Problem:
    return Problem(
        "unreachable",
        f"The proxy {proxy} cannot be reached.",
        f"Check HTTPS_PROXY, or add {peer} to NO_PROXY if no proxy is needed for it.",
        why="proxy",
    )


def unreachable(peer: str, reason: str) -> Problem:
    why = f" ({reason})" if reason else ""
    return Problem(
        "unreachable",
        f"{peer} cannot be reached{why}.",
        "Check the network and the registry's port.",
        why="network",
    )


def untrusted(peer: str, reason: str) -> Problem:
    return Problem(
        "tls",
        f"The certificate of {peer} is not trusted ({reason}).",
        "Use a certificate from a public authority, or install your own authority's certificate "
        "on the instances (--user-data) and set SSL_CERT_FILE to it here.",
    )


def no_tls(peer: str) -> Problem:
    return Problem(
        "tls",
        f"{peer} does not speak TLS.",
        "Check the port, or give the registry a certificate.",
        why="plain",
    )


def broken_tls(peer: str, reason: str) -> Problem:
    return Problem(
        "tls", f"No secure connection to {peer} ({reason}).", "Check the registry's TLS settings."
    )


# --- not the answer of a registry ---


def not_http(peer: str) -> Problem:
    return Problem(
        "not-a-registry", f"{peer} does not answer in HTTP.", "Check the registry's host and port."
    )


def not_a_registry(host: str, what: str) -> Problem:
    return Problem(
        "not-a-registry",
        f"{host} is not a registry: it answered with {what}.",
        "Check the registry's host.",
    )


def redirect_loop(peer: str) -> Problem:
    return Problem("not-a-registry", f"{peer} redirects in a circle.", "Check the registry's host.")


def bad_address(peer: str) -> Problem:
    return Problem(
        "not-a-registry",
        f"{peer} refers to an invalid address.",
        "Check the registry's host and port.",
    )


def insecure(peer: str, host: str) -> Problem:
    return Problem(
        "no-tls",
        f"{peer} refers to {host} without TLS, where others could read the credentials.",
        "Ask the registry's administrator to use https there.",
    )


def unknown_scheme(where: str) -> Problem:
    return Problem(
        "not-a-registry",
        f"{where} asks for credentials in a way that Docker does not support.",
        "Check the registry's host.",
    )


def failing(host: str, status: int, seconds: int | None) -> Problem:
    """Say that a server has trouble of its own; `seconds`: after which it asks to try again."""
    when = f"in {_duration(seconds)}" if seconds else "later"
    return Problem(
        "registry-error",
        f"{host} failed (HTTP {status}).",
        f"Try again {when}, or contact the registry's administrator.",
        **({"retry_after": str(seconds)} if seconds else {}),
    )


def invalid_token(host: str) -> Problem:
    return Problem(
        "registry-error",
        f"{host} returned an invalid token.",
        "Contact the registry's administrator.",
    )


def token_rejected(where: str) -> Problem:
    return Problem(
        "registry-error",
        f"{where} rejects the tokens of its own token server.",
        "Ask its administrator to compare the clocks and certificates of the two.",
    )


# --- credentials ---


def blocked(where: str) -> Problem:
    return Problem(
        "blocked",
        f"{where} rejects this network before authentication (HTTP 403).",
        "Ask its administrator to allow your IP address.",
    )


def not_asked(where: str) -> Problem:
    return Problem(
        "registry-error",
        f"{where} refuses the image without credentials, but does not ask for them at /v2/, so "
        "Docker sends none.",
        "Ask its administrator to require authentication there.",
    )


def moved(where: str, host: str) -> Problem:
    return Problem(
        "registry-error",
        f"{where} redirects /v2/ to {host}, so Docker sends the credentials to that host alone.",
        "Name the image with that host, or contact the registry's administrator.",
    )


def content_refused(host: str, where: str) -> Problem:
    return Problem(
        "blocked",
        f"{host}, where {where} keeps the content of images, refuses access (HTTP 403).",
        "Check the policy of this network's proxy or VPC endpoint for that host, or contact the "
        "registry's administrator.",
    )


def wrong_credentials(where: str) -> Problem:
    return Problem(
        "wrong-login",
        f"{where} rejects these credentials.",
        "Check the user name and the password, or create a new access token.",
    )


def credentials_needed(where: str, repository: str) -> Problem:
    return Problem(
        "login-needed",
        f"{repository} on {where} is private or does not exist.",
        "Provide credentials, or check the name.",
    )


def not_permitted(where: str, repository: str) -> Problem:
    return Problem(
        "no-right",
        f"{where} accepts these credentials, but they may not pull {repository}, or it does not "
        "exist.",
        "Grant them read access to it, or check the name.",
    )


def rate_limited(where: str, left: str, seconds: int | None, *, anonymous: bool) -> Problem:
    """Say that the limit is reached: `left` is such as "0 of 100", `seconds` until the next try."""
    who = "anonymous pulls" if anonymous else "these credentials"
    wait = f"Try again {f'in {_duration(seconds)}' if seconds else 'later'}"
    more = ", or provide credentials, which have a limit of their own" if anonymous else ""
    details = {"remaining": left, "retry_after": str(seconds or "")}
    return Problem(
        "rate-limited",
        f"{where} has reached its pull limit for {who}{f' ({left} left)' if left else ''}.",
        f"{wait}{more}.",
        **{name: value for name, value in details.items() if value},
    )


def _duration(seconds: int) -> str:
    """Say it in the unit that people would choose."""
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


# --- the image ---


def hub_misspelt(registry: str, name: str) -> Problem:
    return Problem(
        "hub-misspelt",
        f"The ECS agent does not recognize {registry} as Docker Hub, so it sends no credentials.",
        f"Write {name}.",
    )


def host_in_capitals(registry: str, name: str) -> Problem:
    return Problem(
        "host-case",
        f"The ECS agent finds no credentials for {registry}, because of the capitals.",
        f"Write {name}.",
    )


def no_repository(where: str, repository: str) -> Problem:
    return Problem(
        "no-repository",
        f"{where} has no repository {repository}, or hides it from these credentials.",
        "Check the name.",
    )


def no_digest(where: str, repository: str, digest: str) -> Problem:
    return Problem(
        "no-tag",
        f"{where} has no {digest[:19]}... in {repository}.",
        "It may have been deleted. Push it again, or name a tag.",
    )


def no_tag(where: str, repository: str, tag: str, near: Sequence[str]) -> Problem:
    """Say that a tag is missing; `tag` is empty if the image's name has none."""
    lacks = f"{where} has no tag {tag or 'latest'} in {repository}"
    fact = lacks if tag else f"The image is given without a tag, and {lacks}"
    if not near:
        return Problem("no-tag", f"{fact}.", "Push it first.")
    there = ", ".join(near)
    return Problem(
        "no-tag", f"{fact}; it has {there}.", "Use one of these, or push it.", near=there
    )


def incomplete(where: str, repository: str) -> Problem:
    return Problem(
        "incomplete", f"{where} has lost a part of {repository}.", "Push the image again."
    )


def damaged(where: str, repository: str) -> Problem:
    return Problem(
        "incomplete", f"{where} has a damaged copy of {repository}.", "Push the image again."
    )


def mislabeled() -> Problem:
    return Problem(
        "not-a-registry",
        "The registry returned a manifest with a wrong media type or digest, which Docker refuses.",
        "Check the registry's host, and any proxy in front of it.",
    )


def no_manifest() -> Problem:
    return Problem(
        "not-a-registry",
        "The registry did not return an image manifest.",
        "Check the registry's host.",
    )


def not_an_image() -> Problem:
    return Problem(
        "not-an-image",
        "This is not a container image but another kind of artifact, such as a Helm chart.",
        "Push an image, or check the name.",
    )


def outdated_format() -> Problem:
    return Problem(
        "not-an-image",
        "It has the image format of 2015, which Docker no longer pulls.",
        "Build it again with a current version of Docker.",
    )


def wrong_architecture(there: Sequence[str], missing: Sequence[str]) -> Problem:
    has, needs = ", ".join(there), ", ".join(missing)
    platforms = ",".join(f"linux/{name}" for name in missing)
    fact = f"It is built for {has} and not for {needs}" if has else f"It has no image for {needs}"
    return Problem(
        "wrong-architecture",
        f"{fact}, which the instances need.",
        f"Run docker buildx build --platform {platforms}, or choose other instance types.",
        architectures=has,
    )
