"""`image`: the names by which jobs pull images through the stack's cache in ECR."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

from batchreg.cache import names
from batchreg.cache import stack as cache_of
from batchreg.cli import runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.registry.images import parse


def run(*, image: tuple[str, ...], stack_name: str, json_output: bool, **place: Any) -> int:
    """Print a name per image; `place` is for `target.session`."""
    show = screen(json_output)
    return runner.run(Names(given=image, stack_name=stack_name, place=place, screen=show), show)


@dataclass(frozen=True, kw_only=True)
class Names:
    """The stages of `image`. `given`: images, or "-" for those on stdin, one a line."""

    given: tuple[str, ...]
    stack_name: str
    place: dict[str, Any] = field(repr=False)
    screen: AnyScreen

    def gather(self) -> tuple[str, ...]:
        images = self.given
        if images == ("-",):
            lines = sys.stdin.read().splitlines()
            images = tuple(line.strip() for line in lines if line.strip())
        for image in images:
            parse(image)
        return images

    def resolve(self, images: tuple[str, ...]) -> list[tuple[str, str, str]]:
        """Return (image, its name, why it is the same) for each."""
        present = target.find(self.stack_name, **self.place).existing()
        cache = cache_of.of(present)
        if not cache:
            why = f"{present.name} has no pull-through cache."
            return [(image, image, why) for image in images]
        return [
            (image, name or image, "" if name else names.reason(image, cache))
            for image in images
            for name in [names.cached_name(image, cache)]
        ]

    def ask(self, named: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        return named

    def act(self, named: list[tuple[str, str, str]]) -> int:
        for image, name, why in named:
            fields = {"image": image, "name": name, "cached": not why, "reason": why}
            self.screen.product("image", f"{name}\n", **fields)
            if why:
                self.screen.tell(f"{image} stays as it is. {why}")
        self.screen.emit("result", cached=sum(not why for _, _, why in named))
        return 0
