"""doctor's page: what it draws of each fault, and what must never be in it."""

from __future__ import annotations

import functools
import stat
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import draw_doctor
import pytest
from account import Account, Run
from attach_archives import multipart, shell
from attach_lab import Lab
from canary import PASSWORD, USERNAME, sung
from test_findings import FAULTS, Fault
from worlds import MATRIX, build, seen
from write_troubleshooting import changed

from batchreg.doctor import savefile
from batchreg.doctor.facts import Facts, Gap
from batchreg.doctor.findings import RULES, diagnose
from batchreg.doctor.page import credentials, html, packets
from batchreg.doctor.page.traces import Figure, Mark, Trace
from batchreg.doctor.path import paths
from batchreg.doctor.rules import Layer, network

OF_NETWORK = {rule.cause for rule in network.RULES}
OF_SECRETS = {rule.cause for rule in RULES if rule.layer is Layer.SECRET}
HOSTILE = "</style><script>document.title='owned'</script><img src=x onerror=alert(1)> & \"'"
OUT_OF_SIGHT: dict[str, Any] = {
    "subnets.1.routes": [
        {"destination": "10.0.0.0/16", "target": "local"},
        {"destination": "0.0.0.0/0", "target": "tgw-1"},
    ]
}


def page_of(facts: Facts) -> str:
    return html.page(facts, diagnose(facts))


@functools.cache
def parsed(name: str) -> ElementTree.Element:
    """Return a fault's page, which has to be well-formed for it."""
    (change,) = [fault.change for fault in FAULTS if fault.name == name]
    return ElementTree.fromstring(page_of(changed(change)))


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def of_class(page: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [one for one in page.iter() if name in one.get("class", "").split()]


def marks(figures: tuple[Figure, ...]) -> set[Mark]:
    return {node.mark for one in figures for trace in one.traces for node in trace.nodes if node}


def trace(figures: tuple[Figure, ...], name: str) -> Trace:
    """Return the first trace with this name."""
    return next(one for figure in figures for one in figure.traces if one.name == name)


def broken_steps(facts: Facts) -> list[str]:
    figures = credentials.figures(facts, diagnose(facts))
    stops = [trace.stop for figure in figures for trace in figure.traces]
    return [stop.stage for stop in stops if stop and stop.mark is Mark.BROKEN]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_true_cause_comes_first_as_on_the_terminal(fault: Fault) -> None:
    """With the same evidence, fixes and steps."""
    page, findings = parsed(fault.name), diagnose(changed(fault.change))
    (heading,) = page.iter("h1")
    assert words(heading) == f"✗{findings[0].text}"
    (first,) = of_class(page, "first")
    assert fault.finding in words(first)
    shown = words(page)
    for finding in findings:
        for line in (finding.text, *finding.evidence, *finding.fix, *finding.steps):
            assert " ".join(line.split()) in shown


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_hop_is_marked_exactly_where_the_network_is_a_finding(fault: Fault) -> None:
    """And so is a step of the credentials where a secret is one."""
    facts = changed(fault.change)
    causes = {finding.cause for finding in diagnose(facts)}
    figures = packets.figures(facts)
    assert (Mark.BROKEN in marks(figures)) == bool(causes & OF_NETWORK)
    for figure in figures:
        if figure.broken:
            assert list(figure.stops(Mark.BROKEN)), "the drawing does not say why"
    assert not causes & OF_SECRETS or set(broken_steps(facts)) & {"Secret", "KMS key"}
    drawn = of_class(parsed(fault.name), "stop")
    assert bool(drawn) == bool(causes & OF_NETWORK or broken_steps(facts))


def test_healthy_page_says_so_and_marks_nothing() -> None:
    """All rows that were looked at are in it."""
    page = ElementTree.fromstring(page_of(changed()))
    assert words(next(page.iter("h1"))) == "✓Nothing is wrong with what was looked at"
    assert not of_class(page, "stop")
    assert not of_class(page, "ring")
    for what, state in changed().rows():
        assert f"{what}{state}" in words(page)


@pytest.mark.parametrize(
    ("name", "destination", "stages"),
    [
        ("egress-closed", "ECS", "Security groups"),
        ("acl-without-answers", "ECS", "Network ACL"),
        ("no-route", "ECS", "Route"),
        ("nat-gateway-failed", "ECS", "Gateway"),
        ("endpoint-groups-admit-nothing", "ECS", "Gateway"),
        ("dns-off", "ECS", "Host"),
        ("group-missing", "ECS", "Security groups"),
        ("no-free-addresses", "ECS", "Instances"),
        ("subnet-missing", "Everything", "Instances"),
    ],
)
def test_broken_hop_is_at_its_place(name: str, destination: str, stages: str) -> None:
    """Nothing after it counts as reached."""
    (change,) = [fault.change for fault in FAULTS if fault.name == name]
    found = trace(packets.figures(changed(change)), destination)
    assert found.stop
    assert (found.stop.stage, found.stop.mark) == (stages, Mark.BROKEN)
    assert found.nodes[-1]
    assert found.nodes[-1].mark in (Mark.BEYOND, Mark.BROKEN)


def test_what_a_transit_gateway_does_is_drawn_as_not_known() -> None:
    """Neither as broken nor as fine."""
    facts = changed(OUT_OF_SIGHT)
    figures = packets.figures(facts)
    (figure,) = [one for one in figures if one.title == "subnet-0b"]
    assert marks((figure,)) == {Mark.PASSES, Mark.UNKNOWN}
    assert all(one.nodes[-1] and one.nodes[-1].mark is Mark.UNKNOWN for one in figure.traces)
    page = ElementTree.fromstring(page_of(facts))
    assert of_class(page, "ring")
    assert "subnet-0b routes it to tgw-1. Not known for all packets." in words(page)


def test_proxy_leaves_the_whole_way_unknown() -> None:
    """The instances do not talk to the hosts themselves."""
    found = trace(packets.figures(changed({"launch_template.proxy": True})), "ECS")
    assert [one and one.mark for one in found.nodes] == [Mark.PASSES, *[Mark.UNKNOWN] * 5]


def test_drawing_agrees_with_the_model_of_the_network() -> None:
    """A row stops where its path does, and at the stage of the first broken hop."""
    counts = {Mark.BROKEN: 0, Mark.UNKNOWN: 0, Mark.PASSES: 0}
    for choice in MATRIX[::10]:
        facts = seen(choice, build(choice))
        drawn = {
            (name, one.name): one
            for figure in packets.figures(facts)
            for name in figure.title.split(" and ")
            for one in figure.traces
        }
        for path in paths(facts):
            name = packets.SERVICES.get(path.destination.service, path.destination.name)
            stop = drawn[path.subnet.id, name].stop
            mark = stop.mark if stop else Mark.PASSES
            assert mark.name == path.state.name, choice
            counts[mark] += 1
            if stop and path.broken:
                stage = packets.STAGE_OF.get(path.broken[0].kind, packets.GATEWAY)
                assert stop.stage == packets.PACKETS[stage], choice
    assert all(count > 20 for count in counts.values())


def test_hop_that_is_known_to_pass_is_drawn_so_after_one_that_is_not() -> None:
    """Only what a broken hop keeps packets from is not reached."""
    rule = {"group": "sg-1", "target": "pl-1"}
    found = trace(packets.figures(changed({"egress": [rule]})), "ECS")
    assert [one and one.mark.name for one in found.nodes] == [
        *("PASSES", "UNKNOWN", "PASSES", "PASSES", "PASSES", "UNKNOWN")
    ]


def test_response_that_is_lost_leaves_the_way_there_as_it_is() -> None:
    """The request arrives; the network ACL does not let the answer in."""
    (change,) = [fault.change for fault in FAULTS if fault.name == "acl-without-answers"]
    found = trace(packets.figures(changed(change)), "ECS")
    assert [one and one.mark.name for one in found.nodes] == [
        *("PASSES", "PASSES", "BROKEN", "PASSES", "PASSES", "BEYOND")
    ]


def test_network_acl_beyond_a_nat_gateway_is_named_as_what_it_is() -> None:
    """It stands where the gateway does, in its subnet."""
    shown = words(parsed("acl-of-the-nat-gateway"))
    assert "Network ACL acl-9: no rule allows responses, inbound TCP ports" in shown
    assert "at subnet-0n. Stops all packets." in shown


@pytest.mark.parametrize(("egress", "known"), [(False, "inbound"), (True, "responses, outbound")])
def test_broken_hop_outweighs_one_that_nobody_knows_at_its_place(egress: bool, known: str) -> None:
    """The subnet of the NAT gateway leads out of sight, and its network ACL denies, there or back."""
    allow = {"number": 100, "allows": True}
    beyond = {
        "id": "subnet-0n",
        "vpc": "vpc-1",
        "cidr": "10.0.9.0/24",
        "routes": [{"destination": "0.0.0.0/0", "target": "tgw-1"}],
        "acl": "acl-9",
        "acl_rules": [{**allow, "egress": not egress}],
    }
    facts = changed({"passed_subnets": [beyond], "nat_gateways.0.subnet": "subnet-0n"})
    (figure,) = [one for one in packets.figures(facts) if one.title == "subnet-0b"]
    assert figure.broken
    ((what, why, at, _),) = figure.stops(Mark.BROKEN)
    assert (what, {*at}) == ("Network ACL", {"acl-9"})
    assert why.startswith(f"no rule allows {known} TCP port")


def test_endpoint_of_its_own_subnet_needs_no_network_acl() -> None:
    """A stage that is not on the way has no node, rather than one that passes."""
    (change,) = [one.change for one in FAULTS if one.name == "endpoint-groups-admit-nothing"]
    found = trace(packets.figures(changed(change)), "ECS")
    assert [one and one.stage for one in found.nodes] == [
        *("Instances", "Security groups", None, "Route", "Gateway", "Host")
    ]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("secret-deleted", ["Secret"]),
        ("secrets-clash", ["Secret", "Secret"]),
        ("secret-missing-of-two", ["Secret"]),
        ("key-disabled", ["KMS key"]),
        ("role-denied", ["Instance role"]),
        ("parked", ["ecs.config"]),
        ("user-data-without-credentials", ["ecs.config"]),
        ("wrong-credentials", ["Registry"]),
        ("no-credentials-for-registry", ["Secret"]),
        ("second-environment-not-attached", ["Secret"]),
        ("execution-role", ["Execution role"]),
        ("disk-full", []),
        ("no-tag", []),
    ],
)
def test_broken_step_of_the_credentials_is_at_its_place(name: str, steps: list[str]) -> None:
    """What has nothing to do with them breaks none."""
    (change,) = [fault.change for fault in FAULTS if fault.name == name]
    assert broken_steps(changed(change)) == steps


def test_stage_that_no_secret_has_is_not_drawn() -> None:
    """Most secrets have no key of their own."""
    (figure,) = credentials.figures(changed({"secrets.0.key": ""}), [])
    assert figure.stages == ("Secret", "Instance role", "ecs.config", "Registry")
    assert [node and node.stage for node in figure.traces[0].nodes] == [*figure.stages]


def test_what_was_not_looked_at_is_listed_with_its_permission() -> None:
    """As on the terminal; and it is drawn as nothing."""
    gap = Gap(what="subnets", permission="ec2:DescribeSubnets", reason="no answer within 9 s")
    facts = changed({"subnets": None, "secrets": None, "not_looked_at": [vars(gap)]})
    shown = words(ElementTree.fromstring(page_of(facts)))
    assert "1 thing could not be looked at." in shown
    assert "ec2:DescribeSubnetssubnets: no answer within 9 s" in shown
    assert "The network was not looked at." in shown
    assert "The secrets were not looked at." in shown


def hostile() -> Facts:
    """Return facts with every text that others choose made of markup."""
    return changed(
        {
            "jobs.0.name": HOSTILE,
            "jobs.0.status": "FAILED",
            "jobs.0.exit_code": None,
            "jobs.0.reasons": [f"{HOSTILE}\x1b[31m\x00\u202e\ud800"],
            "queues.0.name": HOSTILE,
            "secrets.0.name": HOSTILE,
            "secrets.0.deleted": HOSTILE,
            "role.name": HOSTILE,
            "subnets.0.id": HOSTILE,
            "groups": [HOSTILE],
            "groups_missing": [HOSTILE],
            "image.image": HOSTILE,
            "time": HOSTILE,
            "not_looked_at": [{"what": HOSTILE, "permission": HOSTILE, "reason": HOSTILE}],
        }
    )


def test_markup_in_a_name_or_a_reason_stays_text() -> None:
    """Nor does a control character or a turned direction get into the page."""
    written = page_of(hostile())
    page = ElementTree.fromstring(written)
    known = {one.tag for one in ElementTree.fromstring(page_of(changed())).iter()}
    assert {one.tag for one in page.iter()} <= known | {
        *("h3", "ol", "pre", "code", "rect", "path", "text", "small", "b")
    }
    assert HOSTILE in words(page)
    written.encode()
    assert not {"\x1b", "\x00", "\u202e"} & {*written}


def test_page_needs_nothing_else() -> None:
    """No script, no address to load anything from; and the page itself forbids both."""
    for facts in (changed(), hostile()):
        page = ElementTree.fromstring(page_of(facts))
        loading = {"src", "href", "srcset", "data", "action", "poster", "background"}
        for element in page.iter():
            names = {name.rpartition("}")[2] for name in element.attrib}
            assert not names & loading
            assert not [name for name in names if name.startswith("on")]
        (style,) = page.iter("style")
        assert "url(" not in words(style)
        assert "@import" not in words(style)
        policies = [one.get("content") for one in page.iter("meta") if one.get("http-equiv")]
        assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_each_drawing_is_told_in_words() -> None:
    """For those who do not see it: a title, and all hops with their states."""
    page = parsed("nat-gateway-without-a-way-out")
    drawings = of_class(page, "track")
    assert len(drawings) == 13
    for one in drawings:
        assert one.get("role") == "img"
        assert [child.tag for child in one][:2] == ["title", "desc"]
    assert words(drawings[0]).startswith(
        "ECS: broken at Gateway: is in subnet-0n, where the default route is missing"
        "Instances: passes, Security groups sg-1: passes, Network ACL acl-1: passes, "
        "Route rtb-private: passes, Gateway nat-1: broken, Host: not reached"
    )


@pytest.fixture
def saved(tmp_path: Path) -> str:
    file = tmp_path / "facts.json"
    file.write_text(savefile.dump(changed({"environments.0.state": "DISABLED"})))
    return str(file)


def test_page_of_saved_facts_is_private_and_changes_nothing_else(
    batchreg: Run, saved: str, tmp_path: Path
) -> None:
    """stdout and the exit status are those without it; stderr says where the page is."""
    plain = batchreg("doctor", "--from", saved, "--json")
    file = tmp_path / "page.html"
    file.write_text("an older one")
    file.chmod(0o644)
    drawn = batchreg("doctor", "--from", saved, "--json", "--html", "page.html")
    assert (drawn.returncode, drawn.stdout) == (plain.returncode, plain.stdout) == (1, plain.stdout)
    assert drawn.stderr == "Page written to page.html\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == page_of(savefile.load(Path(saved).read_text(), "facts"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["facts.json", "page.html"]
    to_stdout = batchreg("doctor", "--from", saved, "--html", "-")
    assert (to_stdout.stdout, to_stdout.stderr) == (file.read_text(), "")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/page.html", "the directory {folder}/no does not exist. Create it, or name a file"),
        (".", "it is a directory. Name a file in it."),
        ("/proc/page.html", "No such file or directory. Name a file in a directory of your own."),
    ],
)
def test_page_that_cannot_be_written_is_refused_before_aws_is_asked(
    batchreg: Run, tmp_path: Path, path: str, message: str
) -> None:
    """There is no AWS at that address."""
    nowhere = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_DEFAULT_REGION": "us-east-1"}
    result = batchreg("doctor", "--queue", "q", "--html", path, environ=nowhere)
    assert result.returncode == 1
    assert result.stderr.startswith(f"batchreg: Cannot write {path}: ")
    assert message.format(folder=tmp_path) in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_picture_in_the_documents_is_that_of_the_page(batchreg: Run, tmp_path: Path) -> None:
    """It is drawn from what the command writes: `make docs`."""
    file = tmp_path / "facts.json"
    file.write_text(savefile.dump(draw_doctor.facts()))
    written = batchreg("doctor", "--from", str(file), "--html", "-").stdout
    assert written == draw_doctor.drawn()
    png = draw_doctor.PICTURE.read_bytes()
    assert draw_doctor.mark(written) in png
    assert struct.unpack(">I", png[16:20]) == (draw_doctor.WIDTH,)
    assert len(png) < 150_000


def test_only_one_product_goes_to_stdout(batchreg: Run) -> None:
    """Two in one stream could not be read again."""
    result = batchreg("doctor", "--save", "-", "--html", "-")
    assert result.returncode == 2
    assert "both cannot write to stdout" in result.stderr


def test_no_credentials_get_into_the_page(
    batchreg: Run, account: Account, template: str, tmp_path: Path
) -> None:
    """From the environment, a secret, a job's command, variables and reason, and user data."""
    account.make(template, Username=USERNAME, Password=PASSWORD)
    batch = account.aws.client("batch")
    batch.register_job_definition(
        jobDefinitionName=account.name,
        type="container",
        containerProperties={
            "image": "127.0.0.1:9/lab/align",
            "command": ["login", PASSWORD],
            "environment": [{"name": "TOKEN", "value": PASSWORD}],
            "resourceRequirements": [
                {"type": "VCPU", "value": "1"},
                {"type": "MEMORY", "value": "128"},
            ],
        },
    )
    account.aws.set_jobs("FAILED", reason=f"CannotPullContainerError: {PASSWORD} is wrong")
    job = batch.submit_job(
        jobName="align", jobQueue=account.outputs["JobQueueArn"], jobDefinition=account.name
    )["jobId"]
    account.aws.set_jobs("SUCCEEDED")
    lab = Lab(account.aws, f"{account.name}-theirs")
    script = shell(f"docker login --username {USERNAME} --password {PASSWORD} ghcr.io")
    own = lab.template("own", multipart(script))
    lab.make({"launchTemplateId": own, "version": "1"})
    environ = {**account.aws.environ, "BATCHREG_USERNAME": USERNAME, "BATCHREG_PASSWORD": PASSWORD}
    for number, asked in enumerate(
        (("--stack-name", account.name, "--job", job), ("--queue", lab.name))
    ):
        name = f"{number}.html"
        result = batchreg("doctor", *asked, "--html", name, environ=environ)
        written = (tmp_path / name).read_text()
        assert not sung(written, result.stdout, result.stderr)
        assert asked[1] in written
    assert "CannotPullContainerError: ******** is wrong" in (tmp_path / "0.html").read_text()
