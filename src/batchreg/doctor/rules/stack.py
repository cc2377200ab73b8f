"""The stack in CloudFormation."""

from __future__ import annotations

from batchreg.doctor.facts import Facts
from batchreg.doctor.rules import Evidence, Found, Layer, Table
from batchreg.doctor.rules.commands import batchreg, deploy, diagnose

RULES = Table()
rule = RULES.rule

STATUSES = (
    "docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html, stack statuses"
)
QUEUES = 10  # that are listed
FAILED = ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED")


@rule("stack-missing", "The stack does not exist", layer=Layer.STACK, source=STATUSES)
def stack_missing(facts: Facts) -> Found:
    asked = any(job.asked and job.exists for job in facts.jobs or ())
    if facts.stack and not facts.stack.exists and not asked:
        text = f"CloudFormation has no stack named {facts.stack.name} in {facts.region}."
        if names := facts.queue_names:
            more = f" and {len(names) - QUEUES} more" if len(names) > QUEUES else ""
            yield Evidence(
                text,
                step=f"The job queues there: {', '.join(names[:QUEUES])}{more}. To diagnose one: "
                f"{diagnose(facts, names[0])}",
            )
        else:
            yield Evidence(
                text,
                step="Check --stack-name, --region and --profile. To create the stack: "
                f"{deploy(facts)}",
            )


@rule("stack-never-created", "The stack was never created", layer=Layer.STACK, source=STATUSES)
def stack_never_created(facts: Facts) -> Found:
    if facts.stack and facts.stack.status == "REVIEW_IN_PROGRESS":
        yield Evidence(
            f"{facts.stack.name} is in REVIEW_IN_PROGRESS: its change set was not executed.",
            fix=deploy(facts) if facts.ours else "",
            step="" if facts.ours else "Execute its change set, or delete the stack.",
        )


@rule("stack-failed", "Creating the stack failed", layer=Layer.STACK, source=STATUSES)
def stack_failed(facts: Facts) -> Found:
    if facts.stack and facts.stack.status in FAILED:
        yield Evidence(_state(facts), step=f"Fix what it reports, then {again(facts)}")


@rule("stack-delete-stuck", "Deleting the stack failed", layer=Layer.STACK, source=STATUSES)
def stack_delete_stuck(facts: Facts) -> Found:
    if facts.stack and facts.stack.status == "DELETE_FAILED":
        how = "." if facts.stack.kind == "foreign" else f": {batchreg(facts, 'destroy')}"
        yield Evidence(
            _state(facts), step=f"Remove what it reports, then delete the stack again{how}"
        )


@rule(
    "stack-update-stuck",
    "An update of the stack failed, and so did its rollback",
    layer=Layer.STACK,
    source=STATUSES,
)
def stack_update_stuck(facts: Facts) -> Found:
    if facts.stack and facts.stack.status in ("UPDATE_ROLLBACK_FAILED", "UPDATE_FAILED"):
        step = "" if facts.ours else f"Fix what it reports, then {again(facts)}"
        yield Evidence(_state(facts), fix=deploy(facts) if facts.ours else "", step=step)


@rule(
    "stack-busy", "CloudFormation is still changing the stack", layer=Layer.STACK, source=STATUSES
)
def stack_busy(facts: Facts) -> Found:
    status = facts.stack.status if facts.stack else ""
    if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        yield Evidence(
            f"{facts.stack_name} is in {status}.",
            step=f"Wait until the operation finishes; {batchreg(facts, 'status')} shows its state.",
        )


def again(facts: Facts) -> str:
    """Return how to repeat what failed: "deploy again: batchreg deploy ..."."""
    kind = facts.stack.kind if facts.stack else ""
    if kind == "companion":
        return "attach the compute environment again."
    return f"deploy again: {deploy(facts)}" if facts.ours else "update the stack again."


def _state(facts: Facts) -> str:
    assert facts.stack
    why = facts.stack.cause or facts.stack.reason
    return f"{facts.stack.name} is in {facts.stack.status}{': ' if why else '.'}{why}"
