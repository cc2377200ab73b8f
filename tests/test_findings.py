"""Every fault of the catalogue is named by its cause, first, and what is well stays unnamed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shlex
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import near_faults
import pytest
import write_troubleshooting
from write_troubleshooting import changed as broken

from batchreg.doctor import savefile
from batchreg.doctor.facts import Facts
from batchreg.doctor.findings import RULES, Finding, diagnose
from batchreg.doctor.rules import ANYTHING, NOTHING, network
from batchreg.doctor.rules.repairs import SAME_DATA
from batchreg.doctor.rules.role import READ_POLICY
from batchreg.errors import BatchregError
from batchreg.render.userdata import PATIENCE_SECONDS

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
    assert first.fix or first.steps
    assert all((*first.fix, *first.steps))
    assert fault.source.startswith("https://")


def test_healthy_set_has_no_finding() -> None:
    """A false alarm costs more trust than a missed cause."""
    assert diagnose(broken()) == []
    assert len(list(broken().rows())) > 15


@pytest.mark.parametrize("world", ["cached", "mixed"])
def test_healthy_stack_with_a_pull_through_cache_has_no_finding(world: str) -> None:
    """Its instances fetch no credentials for the registry that ECR pulls from, and need not."""
    assert diagnose(broken({"world": world})) == []
    rows = dict(broken({"world": world}).rows())
    assert rows[{"cached": "Registry ghcr.io", "mixed": "Registry docker.io"}[world]] == (
        f"pulled through ECR as genomics/{'ghcr' if world == 'cached' else 'hub'}/, valid"
    )


ON_INSTANCES = [fault for fault in FAULTS if "world" not in fault.change and fault.change]


def test_registry_on_the_instances_is_judged_as_ever_beside_one_that_ecr_pulls_from() -> None:
    """The same facts about the one registry are the same faults, whatever ECR does for another.

    Where there is no way to the registry, there may be none to ECR, which a cache needs: that says it.
    """
    for fault in ON_INSTANCES:
        found, alone = (
            causes(broken({"world": "mixed"}, fault.change)),
            causes(broken(fault.change)),
        )
        extra, lost = {*found} - {*alone}, {*alone} - {*found}
        assert extra <= {"endpoints-missing", "no-route"}, fault.name
        assert not lost or (lost == {"no-route-to-registry"} and extra), fault.name


NEAR = [
    *(
        pytest.param(change, id=f"{cause}-{number}")
        for cause, changes in near_faults.NEAR.items()
        for number, change in enumerate(changes)
    ),
    *(
        pytest.param(change, id=f"like-{fault.name}-{number}")
        for fault in FAULTS
        for number, change in enumerate(near_faults.made_from(fault.change))
    ),
]


@pytest.mark.parametrize("change", NEAR)
def test_what_is_next_to_a_fault_is_no_finding(change: dict[str, Any]) -> None:
    """A rule that fires for its neighbors is a false alarm."""
    assert diagnose(broken(change)) == []


def test_every_cause_has_a_neighbor_that_is_silent() -> None:
    """But those of the network, which a matrix of routes, groups and addresses covers."""
    of_network = {rule.cause for rule in network.RULES}
    assert {rule.cause for rule in RULES} - of_network == near_faults.NEAR.keys()


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
    """The stuck states of AWS Batch are all there."""
    assert len(FAULTS) >= 150
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
        "wrong-credentials",
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


def test_rules_are_silent_only_for_layers_that_come_before_them() -> None:
    """What explains a symptom is below it: a layer that comes later has not been judged yet."""
    before = NOTHING
    for rule in RULES:
        before |= rule.layer
        assert rule.symptom_of == ANYTHING or rule.symptom_of & before == rule.symptom_of, rule


def test_every_rule_says_where_its_knowledge_comes_from() -> None:
    """A reader can check it, and see whether it still holds."""
    assert [rule.cause for rule in RULES if not re.search(r"[/,]", rule.source)] == []


def test_one_cause_has_one_text_and_one_layer() -> None:
    """Rules that show the same cause are about the same thing."""
    texts = {(rule.cause, rule.text, rule.layer) for rule in RULES}
    assert len(texts) == len({rule.cause for rule in RULES})


# Findings about the way out of a subnet: packets take one, and do not come to another's fault.
WAYS = {
    "endpoint-closed",
    "endpoint-unusable",
    "endpoints-missing",
    "internet-gateway-detached",
    "nat-gateway-without-internet",
    "no-public-address",
    "no-route",
    "no-route-to-registry",
}
# Findings, or faults by name, that cannot be true at once, and what one takes from the other.
CONTRADICTIONS = [
    (WAYS, WAYS),
    # A VPC with endpoints in place of a way out.
    ({"endpoints-missing", "no-route-to-registry"}, {"acl-closed"}),
    ({"endpoint-groups-admit-nothing", "endpoint-groups-admit-others"}, {"acl-closed"}),
    ({"endpoint-groups-admit-nothing"}, {"egress-to-the-vpc-alone"}),
    ({"egress-to-a-group-beside-a-gateway-endpoint"}, {"acl-of-the-nat-gateway", *WAYS}),
    ({"private-registry-with-its-port-closed"}, {"no-route-to-registry"}),
    # A network ACL on a way that is not taken.
    ({"acl-of-the-endpoint", "acl-of-the-nat-gateway"}, WAYS),
    # Nothing to measure a job or a launch template against.
    (
        {"environment-missing", "stack-missing"},
        {
            "instance-types-unsupported",
            "job-too-large",
            "launch-template-old",
            "machine-image",
            "no-gpu",
            "user-data-other-cluster",
            "vcpu-quota-below-the-smallest-instance",
        },
    ),
    ({"instance-types-not-in-the-region"}, {"machine-image-of-another-architecture"}),
    # Of the second compute environment nobody knows its instance types.
    (
        {"role-without-ecs-in-the-second-environment"},
        {"instance-types-unsupported", "job-too-large", "vcpu-quota-below-the-smallest-instance"},
    ),
    # An image of the user's own may have the drivers.
    ({"no-gpu-drivers"}, {"machine-image", "machine-image-without-agent"}),
    # An agent tells only once it is connected.
    (
        {"job-with-more-memory-than-an-agent-registers", "instance-draining", "no-awslogs"},
        {
            "dns-off",
            "machine-image-without-agent",
            "metadata-off",
            "role-denied",
            "role-without-ecs",
            "role-without-ecs-and-invalidated",
            "secret-deleted",
            "user-data-blocks",
            "user-data-blocks-and-invalidated",
            "user-data-other-cluster",
            "user-data-stops-agent",
            "volume-key",
        },
    ),
    # A job that has credentials of its own.
    ({"execution-role-denied"}, {"no-credentials-for-registry"}),
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
            *WAYS,
        },
    ),
    # A compute environment with a service role of its own.
    ({"service-linked-role-missing"}, {"service-role"}),
    # The fault's subnet is the one that is gone, or none is known.
    ({"subnet-missing"}, {"acl-closed", *WAYS}),
    ({"stack-missing"}, WAYS),
    # A secret that is elsewhere was not read.
    (
        {"secret-elsewhere"},
        {"secret-empty", "secret-incomplete", "secret-not-json", "secret-unusable"},
    ),
    # The registry's answer shows that the image fits the instances.
    (
        {"no-interpreter"},
        {
            "image-misspelled",
            "image-refused",
            "no-credentials-for-registry",
            "no-permission",
            "no-tag",
            "rate-limited",
            "secret-missing",
            "wrong-architecture",
            "wrong-credentials",
        },
    ),
    # These faults have no image that the registry was asked for.
    (
        {"no-interpreter"},
        {
            "egress-to-a-group-beside-a-gateway-endpoint",
            "endpoint-unusable",
            "endpoints-without-s3",
            "private-registry-with-its-port-closed",
            "private-registry-without-a-route",
        },
    ),
    # ECR is a service of AWS: without a way to it, its endpoints are missing.
    ({"ecr-denied", "no-tag-in-ecr", "policy-denies-an-image"}, {"no-route-to-registry"}),
    # Only a job that was asked about is in a queue that does not belong to the stack.
    ({"job-elsewhere"}, {"job-failed"}),
]


# Findings that say the same more precisely, of the same job or compute environment.
MORE_PRECISE = {
    "pull-denied": {"no-credentials-for-registry", "wrong-credentials", "no-permission"},
    "job-failed": {"out-of-memory", "host-terminated", "timed-out", "wrong-architecture"},
    "job-too-large": {"no-gpu"},
    "queue-invalid": {"launch-template-missing", "policy-denies"},
}


def compatible(one: Fault, other: Fault) -> bool:
    """Tell whether both can be true at once: of different things, and of none that is gone."""

    def parts(fault: Fault) -> set[str]:
        return {path.removesuffix(".exists") for path in fault.change if path != "world"}

    if any(path in fault.change for fault in (one, other) for path in ("stack", "stack.kind")):
        return False  # other commands fix what batchreg did not make
    if one.change.get("world") != other.change.get("world"):
        return False
    return not any(
        f"{mine}.".startswith(f"{theirs}.") or f"{theirs}.".startswith(f"{mine}.")
        for mine in parts(one)
        for theirs in parts(other)
    ) and not any(
        {*mine} & some and {*theirs} & more
        for mine, theirs in itertools.permutations(
            [(one.finding, one.name), (other.finding, other.name)]
        )
        for some, more in CONTRADICTIONS
    )


def together(one: Fault, other: Fault, alone: dict[str, Facts]) -> Facts:
    """Return the facts with both faults, from those with each alone where that can be done."""
    fields = {path.partition(".")[0] for path in other.change}
    if fields & {path.partition(".")[0] for path in one.change}:
        return broken(one.change, other.change)
    second = alone[other.name]
    return dataclasses.replace(alone[one.name], **{name: getattr(second, name) for name in fields})


def test_two_faults_at_once_are_both_named() -> None:
    """One cause does not hide another, unless it explains what the other's rule sees.

    Of some 20,000 pairs a quarter is tried, always the same one: a minute is enough.
    """
    pairs = [
        (one, other)
        for one, other in itertools.combinations(FAULTS, 2)
        if crc32(f"{one.name} {other.name}".encode()) % 4 == 0 and compatible(one, other)
    ]
    assert len(pairs) > 3000
    layers = {rule.cause: rule.layer for rule in RULES}
    explained_by = dict.fromkeys(layers, NOTHING)
    for rule in RULES:
        explained_by[rule.cause] |= rule.symptom_of
    alone = {fault.name: broken(fault.change) for fault in FAULTS}
    for one, other in pairs:
        found = causes(together(one, other, alone))
        present = NOTHING
        for cause in found:
            present |= layers[cause]
        for fault in (one, other):
            known = {fault.finding, *MORE_PRECISE.get(fault.finding, ())}
            assert known & {*found} or explained_by[fault.finding] & present, (one, other)
        # Whichever of the two is first, no third cause is before them.
        assert found[0] in {one.finding, other.finding}, (one, other, found)


def test_findings_of_one_cause_are_one_finding() -> None:
    """Three subnets without a route are one thing to fix."""
    seen = broken({"subnets.0.routes": [], "subnets.1.routes": []})
    (finding,) = diagnose(seen)
    assert [text.split(":")[0] for text in finding.evidence] == ["subnet-0a", "subnet-0b"]
    assert (len(finding.fix), len(finding.steps)) == (0, 1)


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
                    "reasons": ["CannotPullImageManifestError: no space left"],
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
        "jobs.0.reasons": ["CannotPullImageManifestError: manifest unknown"],
    }
    assert causes(broken(change)) == ["no-tag"]
    assert causes(broken(change, {"jobs.0.asked": False})) == []


def test_unknown_route_tables_are_no_finding() -> None:
    """Where ec2:DescribeRouteTables is not allowed, nobody knows where the subnet leads."""
    assert (
        diagnose(
            broken({"subnets.0.routes": None, "subnets.1.routes": None, "subnets.0.public": False})
        )
        == []
    )


def test_registry_that_may_be_inside_the_vpc_is_no_finding() -> None:
    """A registry by the name of a company may well be reached without the internet."""
    endpoints = [
        {"service": service, "vpc": "vpc-1", "subnets": ["subnet-0a"], "groups": ["sg-9"]}
        for service in ("ecs", "ecs-agent", "ecs-telemetry", "secretsmanager", "logs")
    ]
    inside = [{"destination": "10.0.0.0/16", "target": "local"}]
    change = {
        "subnets.0.routes": inside,
        "subnets.1.routes": inside,
        "endpoints": endpoints,
        "ingress": [{"group": "sg-9", "target": "10.0.0.0/16"}],
        "secrets.0.host": "registry.corp.example",
        "image": None,
    }
    assert diagnose(broken(change)) == []


@pytest.mark.parametrize("status", ["RUNNING", "SUCCEEDED"])
def test_pull_error_of_a_job_that_runs_is_no_finding(status: str) -> None:
    """A container that runs from the cache after a failed pull carries the reason all the same."""
    change = {
        "jobs.0.status": status,
        "jobs.0.exit_code": None,
        "jobs.0.reasons": ["CannotPullImageManifestError: unauthorized"],
    }
    assert causes(broken(change)) == []


def test_job_that_ran_from_the_cache_has_failed_by_itself() -> None:
    """An exit code shows that its container was started."""
    change = {
        "jobs.0.status": "FAILED",
        "jobs.0.exit_code": 1,
        "jobs.0.reasons": ["CannotPullImageManifestError: unauthorized"],
    }
    assert causes(broken(change)) == ["job-failed"]


def test_instance_has_joined_late_only_after_its_patience() -> None:
    """It may try for all that time before it gives up, and has to boot before."""
    change = {"instances.0.agent": None, "instances.0.console": []}
    for seconds, expected in ((PATIENCE_SECONDS, []), (PATIENCE_SECONDS + 121, ["never-joined"])):
        launched = datetime.fromisoformat(HEALTHY["time"]) - timedelta(seconds=seconds)
        at = {"instances.0.launched": launched.isoformat()}
        assert causes(broken(change, at)) == expected


def test_secret_of_a_job_is_not_taken_for_the_stacks() -> None:
    """A job's own credentials for the same registry do not clash with the instances'."""
    own = {"name": "jobs", "of_job": True, "keys": ["username", "password"], "host": "ghcr.io"}
    assert causes(broken({"secrets.1": own, "jobs.0.own_credentials": True})) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fix_is_a_command_with_all_that_it_needs(fault: Fault) -> None:
    """No placeholder, no guess: it runs as it is, in the stack, region and profile of the user."""
    seen = dataclasses.replace(broken(fault.change), profile="team")
    for finding in diagnose(seen):
        for fix in finding.fix:
            inner = re.findall(r"\$\((.*?)\)", fix)
            for command in [*re.sub(r"\$\(.*?\)", "1", fix).split(" && "), *inner]:
                program, *words = shlex.split(command)
                assert program in ("batchreg", "aws")
                assert ("--region", "eu-central-1") in itertools.pairwise(words)
                assert ("--profile", "team") in itertools.pairwise(words)
                stack = ("--stack-name", "genomics") in itertools.pairwise(words)
                assert stack == (program == "batchreg" and words[0] != "attach")
                assert not [word for word in words if re.fullmatch("[A-Z][A-Z-]+", word)] or (
                    "ENABLED" in words
                )


def test_fixes_say_what_the_template_says(template: str) -> None:
    """A fix restores what the stack made: the name of its policy, and a setting that is its own."""
    assert f"PolicyName: {READ_POLICY}\n" in template
    assert f"{SAME_DATA.replace('=', ': ')}\n" in template


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_text_is_plain(fault: Fault) -> None:
    """Sentences in the field's own terms; evidence never ends with a step of its own."""
    for finding in diagnose(broken(fault.change)):
        assert finding.text[0].isupper()
        assert not finding.text.endswith(".")
        for text in (finding.text, *finding.steps):
            assert not re.search(r"\b(login|logins|anew|mend|settled?|somebody)\b", text)
        for step in finding.steps:
            assert step[0].isupper()


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
        '{"format": "batchreg-facts-2", "jobs": 3}',
        '{"format": "batchreg-facts-2", "jobs": [{"id": 3}]}',
        '{"format": "batchreg-facts-2", "jobs": [{}]}',
        '{"format": "batchreg-facts-2", "nonsense": 3}',
        '{"format": "batchreg-facts-2", "stack": {"name": "s", "refresh_minutes": "many"}}',
        '{"format": "batchreg-facts-2", "role": {"name": "r", "denied": [["one", "two"]]}}',
        "[" * 100_000,
    ],
)
def test_file_that_save_did_not_write_is_refused_in_one_line(text: str) -> None:
    """The file comes by mail, from anywhere."""
    with pytest.raises(BatchregError, match=r"file\.json was not written by doctor --save"):
        savefile.load(text, "file.json")


def test_page_of_troubleshooting_is_complete() -> None:
    """docs/troubleshooting.md has every finding: python scripts/write_troubleshooting.py."""
    assert write_troubleshooting.PAGE.read_text() == write_troubleshooting.page()


def test_comparison_with_aws_runbooks_names_findings_that_exist() -> None:
    """A finding that is renamed is renamed there too."""
    page = write_troubleshooting.PAGE.with_name("runbooks.md").read_text()
    rows = re.findall(r"(?m)^\| (?!examined).*\| (.*) \|$", page)
    named = {name for cell in rows for name in re.findall("`([a-z-]+)`", cell)}
    assert len(rows) > 30
    assert all("`" in cell for cell in rows)
    assert named <= {rule.cause for rule in RULES}


def test_finding_is_frozen() -> None:
    """What was found does not change on its way to the user."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Finding("a", "b", (), ()).cause = "c"  # type: ignore[misc]  # that is the test
