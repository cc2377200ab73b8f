"""An AWS whose pull-through cache finds two private registries on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cache_world import Cache
from lab.ecr import Endpoint
from lab.parts import Engine, PullError, Registry
from local_aws import LocalAws
from real_parts import PASSWORD

HOSTS = ("ghcr.io", "registry.gitlab.com")


@dataclass
class World(Cache):
    """Its jobs run; `engine` is one besides, for pulls without a job."""

    aws: LocalAws
    engine: Engine
    endpoint: Endpoint
    registries: dict[str, Registry]  # by the host that stands for each

    def __post_init__(self) -> None:
        super().__init__(self.aws)

    def cached(self, host: str = "ghcr.io") -> str:
        """Create a rule with the right credentials, and return its prefix."""
        registry = self.registries[host]
        return self.rule(self.secret(registry.username, registry.password), host)

    def pull(self, image: str, role: str) -> str:
        """Pull with a role's token, from ECR and not from the engine's own store; return why not."""
        try:
            self.engine.pull(image, self.login(role))
        except PullError as error:
            return str(error)
        self.engine.remove(image)
        return ""


@contextmanager
def cached_registries(folder: Path) -> Iterator[World]:
    """Start two real registries with credentials each, and let the cache find them as `HOSTS`."""
    with (
        Registry("ann", PASSWORD, directory=folder / "a") as one,
        Registry("ben", "first:b", directory=folder / "b") as other,
        LocalAws(jobs=True, upstreams=dict(zip(HOSTS, (one.host, other.host), strict=True))) as aws,
        Endpoint(aws, aws.ecr_host, folder / "ecr") as endpoint,
        Engine(folder / "engine", etc=endpoint.etc) as engine,
    ):
        yield World(aws, engine, endpoint, dict(zip(HOSTS, (one, other), strict=True)))
