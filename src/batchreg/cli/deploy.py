"""`deploy`: create or update the stack.

The stages (`cli.runner`):

1. gather (`inputs`): flags, environment, batchreg.yaml and stdin become frozen `Inputs`.
2. resolve (`stack.plan`): `Inputs` and the present stack become a frozen `Plan`, by a pure function.
3. ask (`prompts`): a person is asked for what `Plan.missing` lists; Docker's store and the default
   VPC provide the rest.
4. act (`stack.deploy`): what can be checked is checked first (`preflight`); then a change set is
   created, shown, confirmed and executed.

The path of a password:

1. `inputs.password` reads it from stdin or BATCHREG_PASSWORD, `inputs` from another variable that
   --registry names; all of them are taken out of the environment.
2. `Inputs` holds it: in `parameters`, or in the `RegistryInput` it belongs to.
3. `plan.resolve` puts it into `Plan.parameters`, under the name of a NoEcho parameter.
4. `prompts.complete` adds one that was asked for, or that `docker login` stored.
5. `preflight` sends it to its registry, and nowhere else.
6. `changesets.create` sends it to CloudFormation, which keeps it in Secrets Manager. `masking` takes
   it out of a rejection that quotes the request.
7. `repair.restore` sends it to Secrets Manager, if the secret was changed by hand.

No repr shows the fields that hold it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from batchreg import waiting
from batchreg.aws import Connect, Session
from batchreg.cli import ending, inputs, prompts, runner, target
from batchreg.cli.console import AnyScreen, TextScreen, screen
from batchreg.cli.target import Target
from batchreg.errors import Interrupted
from batchreg.stack import repair
from batchreg.stack.deploy import deploy
from batchreg.stack.environment import beyond_repair, running
from batchreg.stack.plan import Inputs, Plan, resolve
from batchreg.stack.states import Stack


def run(
    *,
    stack_name: str,
    json_output: bool,
    yes: bool,
    force: bool,
    wait: bool,
    dry_run: bool,
    check: tuple[str, ...] = (),
    no_check: bool = False,
    replace_environment: bool = False,
    wait_timeout: float | None = None,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
    connect: Connect = Session,
    **options: Any,
) -> int:
    """Create or update the stack and print its queue; `options` are for `inputs.gather`."""
    place = {"profile": profile, "region": region, "endpoint_url": endpoint_url, "connect": connect}
    show = screen(json_output)
    how = How(
        yes=yes,
        force=force,
        wait=wait,
        dry_run=dry_run,
        check=check,
        no_check=no_check,
        replace_environment=replace_environment,
        wait_timeout=wait_timeout,
    )
    command = Deploy(stack_name=stack_name, place=place, options=options, how=how, screen=show)
    return runner.run(command, show, stack=stack_name)


@dataclass(frozen=True, kw_only=True)
class How:
    """The options that say how to act, not what the stack should be."""

    yes: bool
    force: bool
    wait: bool
    dry_run: bool
    check: tuple[str, ...]
    no_check: bool
    replace_environment: bool
    wait_timeout: float | None


@dataclass(frozen=True)
class Resolved:
    """The plan; and if the compute environment is beyond repair, why, and the plan that replaces it.

    `why`: a predicate, such as "does not exist."
    """

    target: Target
    plan: Plan
    why: str | None = None
    replacing: Plan | None = None


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """The stages of `deploy`. `place`: for `target.find`; `options`: for `inputs.gather`."""

    stack_name: str
    place: dict[str, Any] = field(repr=False)
    options: dict[str, Any] = field(repr=False)
    how: How
    screen: AnyScreen

    def gather(self) -> Inputs:
        target.check_name(self.stack_name)
        return inputs.gather(stack_name=self.stack_name, **self.options)

    def resolve(self, given: Inputs) -> Resolved:
        found = target.find(self.stack_name, **self.place)
        # Whether its cluster exists takes one more call; other deploys need not wait for it.
        ecs = (lambda: found.session.client("ecs")) if self.how.replace_environment else None

        def look() -> str | None:
            return beyond_repair(found.session.client("batch"), found.stack, ecs)

        with ThreadPoolExecutor(1) as pool:  # while the template comes, not after it
            asked = pool.submit(look) if found.stack else None
            body = found.template()
            why = asked.result() if asked else None
        deployed = target.require_batchreg_stack(
            found.stack, body, self.screen, force=self.how.force
        )
        target.refuse_companion(deployed, self.stack_name)
        plan = resolve(given, found.stack, body, deployed)
        if not why or not deployed:
            return Resolved(found, plan)
        generation = deployed.settings.generation + 1
        replacing = replace(given, settings={**given.settings, "generation": generation})
        return Resolved(found, plan, why, resolve(replacing, found.stack, body, deployed))

    def ask(self, resolved: Resolved) -> Resolved:
        plan = resolved.plan
        if resolved.replacing and self._replaces(resolved):
            plan = resolved.replacing
        confirmed = self.how.yes or self.how.dry_run or bool(plan.kept)
        return replace(
            resolved, plan=prompts.complete(plan, resolved.target.session, yes=confirmed)
        )

    def _replaces(self, resolved: Resolved) -> bool:
        """Ask whether to replace an environment beyond repair; --yes alone does not say so."""
        name = resolved.plan.name
        self.screen.note(f"The compute environment of {name} {resolved.why}")
        if self.how.replace_environment:
            return True
        if prompts.interactive() and not (self.how.yes or self.how.dry_run):
            return prompts.asker(False)("Replace it with a new one, behind the same job queue?")
        command = self.screen.command("deploy", "--stack-name", name, "--replace-environment")
        self.screen.note(f"This deploy does not repair it. To replace it: {command}")
        return False

    def act(self, resolved: Resolved) -> int:
        found, plan = resolved.target, resolved.plan
        cache_changes = plan.settings.cached and plan.body != plan.present_body
        if plan.parameters or plan.new_secrets or self.options["user_data"] or cache_changes:
            from batchreg.cli import preflight

            preflight.require_ready(
                found,
                plan,
                self.options["user_data"],
                self.screen,
                check=not self.how.no_check,
                force=self.how.force,
            )
        if self.how.check:
            from batchreg.cli.check import before_deploy

            before_deploy(self.how.check, plan, found.session, self.screen)
        ask, dry_run = prompts.asker(self.how.yes), self.how.dry_run

        def restore(stack: Stack) -> bool:
            manager = found.session.client("secretsmanager")
            return repair.restore(manager, plan, stack, self.screen, ask, dry_run=dry_run)

        done = deploy(
            found.client,
            plan,
            self.screen,
            ask,
            dry_run=dry_run,
            wait=self.how.wait,
            running=lambda: running(found.session.client("batch"), plan.stack),
            restore=restore,
            sleep=waiting.limited(self.how.wait_timeout),
        )
        try:
            if done and done is not plan.stack and self.how.wait:
                ending.show(done, self.screen, self.how.check)
            self.screen.product(
                "result",
                "" if dry_run else ending.queue_line(done),
                stack=plan.name,
                status=done.status if done else None,
                outputs=dict(done.outputs) if done else {},
            )
        except KeyboardInterrupt:
            status = self.screen.command("status", "--stack-name", plan.name)
            raise Interrupted(f"interrupted; the work is done. For its status: {status}") from None
        if done and not plan.stack and not self.how.yes and isinstance(self.screen, TextScreen):
            from batchreg.cli import settings_file

            settings_file.offer(plan, found.region, self.screen)
        return 0
