"""`destroy`: delete the stack; of a companion stack, `detach`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchreg import waiting
from batchreg.cli import prompts, runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.cli.target import Target
from batchreg.stack import states
from batchreg.stack.destroy import destroy

if TYPE_CHECKING:
    from batchreg.cli.detach import Detached


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
    wait_timeout: float | None = None,
    **place: Any,
) -> int:
    """Delete the stack; one that does not exist is a success. `place` is for `target.session`."""
    show = screen(json_output)
    how = {
        "terminate_jobs": terminate_jobs,
        "retain": retain,
        "role_arn": role_arn,
        "wait": wait,
        "sleep": waiting.limited(wait_timeout),
    }
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

    def resolve(self, name: str) -> tuple[Target, Detached | None]:
        found = target.find(name, **self.place)
        deployed = target.require_batchreg_stack(
            found.stack, found.template(), self.screen, force=self.force
        )
        if not deployed or not deployed.attached:
            return found, None
        from batchreg.cli import detach

        policy = {"job_timeout_minutes": None, "terminate_jobs": self.how["terminate_jobs"]}
        sleep = self.how["sleep"]
        return found, detach.resolve(found.session, name, self.screen, policy, sleep)

    def ask(self, resolved: tuple[Target, Detached | None]) -> tuple[Target, Detached | None]:
        return resolved  # `stack.destroy` asks, after it has shown what will be deleted

    def act(self, resolved: tuple[Target, Detached | None]) -> int:
        found, detached = resolved
        if detached:
            from batchreg.cli import detach

            how = {name: self.how[name] for name in ("role_arn", "wait", "sleep")}
            detach.act(found.session, detached, self.screen, prompts.asker(self.yes), how)
        elif found.stack is None:
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
