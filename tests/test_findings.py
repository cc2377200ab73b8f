"""Every fault of the catalogue is named by its cause, first, and what is well stays unnamed."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import write_troubleshooting
from write_troubleshooting import changed as broken

from batchreg.doctor import savefile
from batchreg.doctor.facts import Facts
from batchreg.doctor.findings import RULES, Finding, diagnose, looked_at
from batchreg.doctor.rules import ANY
from batchreg.errors import BatchregError

FOLDER = Path(__file__).with_name("faults")
HEALTHY = json.loads((FOLDER / "healthy.json").read_text())


class Fault(NamedTuple):
    """What is broken, where people meet it, how the facts then differ, and what must be found."""

    name: str
    broken: str
    source: str
    change: dict[str, Any]
    finding: str


FAULTS = [
    Fault(path.stem, **json.loads(path.read_text()))
    for path in sorted(FOLDER.glob("*.json"))
    if path.stem != "healthy"
]


def causes(seen: Facts) -> list[str]:
    return [finding.cause for finding in diagnose(seen)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_right_cause_comes_first(fault: Fault) -> None:
    """The rest, if any, is what people would look at next."""
    findings = diagnose(broken(fault.change))
    assert findings, fault.broken
    first = findings[0]
    assert first.cause == fault.finding, findings
    assert first.text
    assert all(first.evidence)
    assert all(first.fix)
    assert fault.source.startswith("https://")


def test_healthy_set_has_no_finding() -> None:
    """A false alarm costs more trust than a missed cause."""
    assert diagnose(broken()) == []
    assert len(looked_at(broken())) > 15


def test_nothing_known_is_no_finding() -> None:
    """What was not looked at speaks for nothing."""
    assert diagnose(Facts()) == []


@pytest.mark.parametrize(
    "name", [field.name for field in dataclasses.fields(Facts) if field.default is None]
)
def test_missing_fact_is_no_finding(name: str) -> None:
    """A missing permission costs that fact, and makes no other look wrong."""
    assert diagnose(broken({name: None})) == []


def test_catalogue_is_long_enough_and_covers_what_facts_md_lists() -> None:
    """Thirty were asked for; the stuck states of AWS Batch are all there."""
    assert len(FAULTS) >= 30
    assert {fault.finding for fault in FAULTS} >= {
        "no-route",
        "never-joined",
        "user-data-blocks",
        "environment-invalid",
        "user-data-not-mime",
        "service-role",
        "vcpu-quota",
        "job-too-large",
        "stack-delete-stuck",
        "wrong-login",
        "pull-denied",
        "rate-limited",
        "disk-full",
        "no-tag",
        "wrong-architecture",
        "registry-unreachable",
    }


def test_every_rule_is_hit() -> None:
    """A rule that no fault shows is a rule that nobody has seen work."""
    seen = [broken(fault.change) for fault in FAULTS]
    idle = [(rule.cause, rule.look) for rule in RULES if not any(map(any, map(rule.look, seen)))]
    assert not idle


def test_every_cause_is_expected_first_by_some_fault() -> None:
    """A cause that never comes first would hide behind others."""
    assert {rule.cause for rule in RULES} == {fault.finding for fault in FAULTS}


def test_rules_are_silent_only_for_causes_before_them() -> None:
    """Else `unless` would do nothing; and a misspelt cause would, too."""
    before: set[str] = {ANY}
    for rule in RULES:
        assert rule.unless <= before, rule.cause
        before.add(rule.cause)


# Findings of faults that cannot be true at once, and what one takes from the other.
CONTRADICTIONS = [
    # A VPC with endpoints in place of a way out.
    (
        {"endpoints-missing", "no-route-to-registry"},
        {"acl-closed", "no-public-address", "no-route"},
    ),
    # Nothing to measure a job or a launch template against.
    ({"environment-missing"}, {"job-too-large", "no-gpu", "launch-template-old"}),
    # A registry that nobody knows, or another one.
    (
        {"secrets-clash"},
        {
            "secret-missing",
            "secret-deleted",
            "secret-empty",
            "secret-not-json",
            "secret-incomplete",
            "secret-unusable",
            "egress-closed",
        },
    ),
    # A compute environment with a service role of its own.
    ({"service-linked-role-missing"}, {"service-role"}),
    # The fault's network ACL is that of the subnet that is gone.
    ({"subnet-missing"}, {"acl-closed", "no-route"}),
]


def compatible(one: Fault, other: Fault) -> bool:
    """Tell whether both can be true at once: of different things, and of none that is gone."""

    def parts(fault: Fault) -> set[str]:
        return {path.removesuffix(".exists") for path in fault.change}

    return not any(
        f"{mine}.".startswith(f"{theirs}.") or f"{theirs}.".startswith(f"{mine}.")
        for mine in parts(one)
        for theirs in parts(other)
    ) and not any(
        {one.finding, other.finding} & some and {one.finding, other.finding} & more
        for some, more in CONTRADICTIONS
    )


def test_two_faults_at_once_are_both_named() -> None:
    """One cause does not hide another, unless it explains what the other's rule sees."""
    pairs = [pair for pair in itertools.combinations(FAULTS, 2) if compatible(*pair)]
    assert len(pairs) > 3000
    unless = {
        cause: {other for rule in RULES if rule.cause == cause for other in rule.unless}
        for cause in {rule.cause for rule in RULES}
    }
    for one, other in pairs:
        found = causes(broken(one.change, other.change))
        for fault in (one, other):
            assert fault.finding in found or unless[fault.finding] & {*found, ANY}, (one, other)
        # Whichever of the two is first, no third cause is before them.
        assert found[0] in {one.finding, other.finding}, (one, other, found)


def test_findings_of_one_cause_are_one_finding() -> None:
    """Three subnets without a route are one thing to mend."""
    seen = broken({"subnets.0.route": "", "subnets.1.route": ""})
    (finding,) = diagnose(seen)
    assert [text.split(":")[0] for text in finding.evidence] == ["subnet-0a", "subnet-0b"]
    assert len(finding.fix) == 1


def test_long_evidence_is_cut() -> None:
    """A hundred failed jobs must not push the fix out of sight."""
    job = {**HEALTHY["jobs"][0], "status": "FAILED", "exit_code": None}
    seen = broken(
        {
            "image": None,
            "jobs": [
                {
                    **job,
                    "name": f"job{number}",
                    "reasons": ["CannotPullContainerError: no space left"],
                }
                for number in range(30)
            ],
        }
    )
    (finding,) = diagnose(seen)
    assert finding.evidence[-1] == "and 26 more"


def test_image_that_comes_by_now_is_no_finding() -> None:
    """Jobs that failed before the tag was pushed say nothing about now; one asked for does."""
    change = {
        "jobs.0.status": "FAILED",
        "jobs.0.exit_code": None,
        "jobs.0.reasons": ["CannotPullContainerError: manifest unknown"],
    }
    assert causes(broken(change)) == ["no-tag"]
    assert causes(broken(change, {"jobs.0.asked": False})) == []


def test_unknown_route_tables_are_no_finding() -> None:
    """Where ec2:DescribeRouteTables is not allowed, nobody knows where the subnet leads."""
    assert (
        diagnose(
            broken(
                {
                    "subnets.0.route": "unknown",
                    "subnets.1.route": "unknown",
                    "subnets.0.public": False,
                }
            )
        )
        == []
    )


def test_registry_that_may_be_inside_the_vpc_is_no_finding() -> None:
    """A registry by the name of a company may well be reached without the internet."""
    endpoints = [
        {"service": service, "vpc": "vpc-1"}
        for service in ("ecs", "ecs-agent", "ecs-telemetry", "secretsmanager", "logs")
    ]
    change = {
        "subnets.0.route": "",
        "subnets.1.route": "",
        "endpoints": endpoints,
        "secrets.0.host": "registry.corp.example",
        "image": None,
    }
    assert diagnose(broken(change)) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_saved_facts_are_the_same_when_read_back(fault: Fault) -> None:
    """A colleague with the file sees what the user saw."""
    seen = broken(fault.change)
    assert savefile.load(savefile.dump(seen), "file") == seen


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "{}",
        '{"format": "batchreg-facts-0"}',
        '{"format": "batchreg-facts-1", "jobs": 3}',
        '{"format": "batchreg-facts-1", "jobs": [{"id": 3}]}',
        '{"format": "batchreg-facts-1", "jobs": [{}]}',
        '{"format": "batchreg-facts-1", "nonsense": 3}',
        '{"format": "batchreg-facts-1", "stack": {"name": "s", "refresh_minutes": "many"}}',
        '{"format": "batchreg-facts-1", "role": {"name": "r", "denied": [["one"]]}}',
        "[" * 100_000,
    ],
)
def test_file_that_save_did_not_write_is_refused_in_one_line(text: str) -> None:
    """The file comes by mail, from anywhere."""
    with pytest.raises(BatchregError, match=r"file\.json is not what batchreg .* writes"):
        savefile.load(text, "file.json")


def test_page_of_troubleshooting_is_complete() -> None:
    """docs/troubleshooting.md has every finding: python scripts/write_troubleshooting.py."""
    assert write_troubleshooting.PAGE.read_text() == write_troubleshooting.page()


def test_finding_is_frozen() -> None:
    """What was found does not change on its way to the user."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Finding("a", "b", (), ()).cause = "c"  # type: ignore[misc]
