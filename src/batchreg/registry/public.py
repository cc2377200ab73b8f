"""The public registries, and names that look like theirs and are not."""

from __future__ import annotations

# Hosts whose look-alikes are somebody else's: a password sent there is lost.
HOSTS = (
    "cgr.dev",
    "docker.io",
    "gcr.io",
    "ghcr.io",
    "mcr.microsoft.com",
    "nvcr.io",
    "public.ecr.aws",
    "quay.io",
    "registry.gitlab.com",
    "registry.k8s.io",
    "registry.redhat.io",
)


def misspelt(host: str) -> list[str]:
    """Return the public registries that `host` is one slip of the fingers away from."""
    if host in HOSTS:
        return []
    return sorted(
        (known for known in HOSTS if _one_slip(host, known)),
        key=lambda name: (sorted(name) != sorted(host), name),
    )  # letters that changed places first


def _one_slip(one: str, other: str) -> bool:
    """Tell whether a letter is missing, added, wrong, or has changed places with its neighbour."""
    short, long = sorted((one, other), key=len)
    if len(long) - len(short) > 1:
        return False
    start = next(
        (at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short)
    )
    if len(short) < len(long):
        return short[start:] == long[start + 1 :]
    return short[start + 1 :] == long[start + 1 :] or (
        short[start : start + 2] == long[start : start + 2][::-1]
        and short[start + 2 :] == long[start + 2 :]
    )
