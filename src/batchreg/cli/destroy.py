"""`destroy`: delete the stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchreg.cli import prompts, runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.cli.target import Target
from batchreg.stack import states
from batchreg.stack.destroy import destroy


def run(
    *,
    stack_name: str,
    json_output: bool,
    yes: bool,
    force: bool,
    wait: bool,
    terminate_jobs: bool,
    retain: tuple[str, ...],
    role_arn: str | None,
    **place: Any,
) -> int:
    """Delete the stack; one that does not exist is a success. `place` is for `target.session`."""
    show = screen(json_output)
    how = {"terminate_jobs": terminate_jobs, "retain": retain, "role_arn": role_arn, "wait": wait}
    command = Destroy(
        stack_name=stack_name, place=place, how=how, yes=yes, force=force, screen=show
    )
    return runner.run(command, show, stack=stack_name)


@dataclass(frozen=True, kw_only=True)
class Destroy:
    """The stages of `destroy`; `how` is for `stack.destroy`."""

    stack_name: str
    place: dict[str, Any]
    how: dict[str, Any]
    yes: bool
    force: bool
    screen: AnyScreen

    def gather(self) -> str:
        target.check_name(self.stack_name)
        return self.stack_name

    def resolve(self, name: str) -> Target:
        found = target.find(name, **self.place)
        target.require_batchreg_stack(found.stack, found.template(), self.screen, force=self.force)
        return found

    def ask(self, found: Target) -> Target:
        return found  # `stack.destroy` asks, after it has shown what will be deleted

    def act(self, found: Target) -> int:
        if found.stack is None:
            self.screen.note(
                f"There is no stack {found.name} in {found.region}: nothing to destroy."
            )
        else:
            destroy(
                found.client,
                found.session.client("batch"),
                found.stack,
                self.screen,
                prompts.asker(self.yes),
                **self.how,
            )
        left = None if self.how["wait"] else states.find(found.client, found.name)
        self.screen.emit("result", stack=found.name, status=left.status if left else None)
        return 0
