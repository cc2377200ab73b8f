"""What the program makes of any ecs.config."""

import stat
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from program import AUTHS, OLD, OURS, agent_logins

from batchreg.registry_login import put

FILES = {
    "empty": (b"", b""),
    "foreign": (b"ECS_CLUSTER=blue\n", b"ECS_CLUSTER=blue\n"),
    "no final newline": (b"ECS_CLUSTER=blue", b"ECS_CLUSTER=blue\n"),
    "CRLF": (b"A=1\r\nB=2\r\n", b"A=1\r\nB=2\r\n"),
    "CRLF, no final newline": (b"A=1\r\nB=2", b"A=1\r\nB=2\n"),
    "ours in CRLF": (b"A=1\r\n" + OLD.replace(b"\n", b"\r\n"), b"A=1\r\n"),
    "ours": (OLD, b""),
    "ours, no final newline": (OLD[:-1], b""),
    "ours several times": (OLD + b"A=1\n" + OLD + OLD, b"A=1\n"),
    "before, between, after": (
        b"B=2\n" + OLD.replace(b"\nECS", b"\nA=1\nECS") + b"C=3\nB=1\n",
        b"B=2\nA=1\nC=3\nB=1\n",
    ),
    "docker instead of dockercfg": (b"ECS_ENGINE_AUTH_TYPE=docker\nA=1\n", b"A=1\n"),
    "ours, indented": (b"  ECS_ENGINE_AUTH_DATA={}\nA=1\n", b"A=1\n"),
    "ours with blanks": (b"ECS_ENGINE_AUTH_TYPE = dockercfg\nA=1\n", b"A=1\n"),
    "a name that begins like ours": (b"ECS_ENGINE_AUTH_TYPES=1\n", b"ECS_ENGINE_AUTH_TYPES=1\n"),
    "our name as a value": (b"A=ECS_ENGINE_AUTH_TYPE=x\n", b"A=ECS_ENGINE_AUTH_TYPE=x\n"),
    "comments and blank lines": (b"# A=1\n\n\n  B = 2 \n\n", b"# A=1\n\n\n  B = 2 \n\n"),
    "a blank line before ours": (b"A=1\n\n" + OLD[:-1], b"A=1\n\n"),
    "not UTF-8": (b"A=\xff\xfe\0\n", b"A=\xff\xfe\0\n"),
    "BOM": (b"\xef\xbb\xbfA=1\n", b"\xef\xbb\xbfA=1\n"),
}


@pytest.mark.parametrize(("old", "foreign"), [*FILES.values()], ids=FILES)
def test_foreign_lines_stay_as_they_are(tmp_path, old, foreign):
    """AWS Batch appends ECS_CLUSTER to the same file: losing it loses the instance."""
    path = tmp_path / "ecs.config"
    path.write_bytes(old)
    assert put(path, AUTHS, (), True)
    assert path.read_bytes() == foreign + OURS


LINES = st.lists(
    st.sampled_from(
        [
            b"ECS_CLUSTER=blue",
            b"A=1",
            b"A=2\r",
            b"",
            b" ",
            b"# x",
            b"A",
            b"=",
            b"\xff=\xfe",
            b"  B = 2 ",
            b"ECS_ENGINE_AUTH_TYPE=docker",
            b"ECS_ENGINE_AUTH_TYPE=dockercfg",
            b"ECS_ENGINE_AUTH_TYPE",
            b"ECS_ENGINE_AUTH_TYPE= dockercfg",
            b"ECS_ENGINE_AUTH_TYPE =dockercfg",
            b"ECS_ENGINE_AUTH_DATA=null",
            b"ECS_ENGINE_AUTH_DATA=[1]",
            b"ECS_ENGINE_AUTH_DATA={",
            *OURS.splitlines(),
            *OLD.splitlines(),
        ]
    )
)


@given(lines=LINES, newline=st.booleans(), complete=st.booleans())
@settings(max_examples=300, deadline=None)
@example(
    lines=[b"ECS_ENGINE_AUTH_TYPE =dockercfg", OURS.splitlines()[1]], newline=True, complete=True
)
@example(lines=[b"A=1", b"", b"ECS_ENGINE_AUTH_TYPE=docker"], newline=False, complete=True)
def test_any_file_ends_up_with_our_login_and_all_foreign_lines(
    tmp_path_factory, lines, newline, complete
):
    """Every file that other tools may leave: the agent reads our lines, the others survive."""
    path = tmp_path_factory.getbasetemp() / "any.config"
    old = b"\n".join(lines) + b"\n" * newline
    path.write_bytes(old)
    path.chmod(0o600)
    put(path, AUTHS, (), complete)
    content = path.read_bytes()

    def foreign(content: bytes) -> list[bytes]:
        lines = content.removesuffix(b"\n").split(b"\n") if content else []
        return [line for line in lines if not line.strip().startswith(b"ECS_ENGINE_AUTH")]

    assert foreign(content) == foreign(old)
    assert agent_logins(content)["ghcr.io"] == "ada:x"
    assert content.endswith(b"\n")
    before = path.stat()
    assert not put(path, AUTHS, (), complete)
    assert (path.stat().st_ino, path.read_bytes()) == (before.st_ino, content)


def test_credentials_of_the_other_type_are_kept_in_ours(tmp_path):
    """The agent reads one type for all."""
    path = tmp_path / "ecs.config"
    path.write_bytes(
        b"ECS_ENGINE_AUTH_TYPE=docker\n"
        b'ECS_ENGINE_AUTH_DATA={"quay.io":{"username":"a","password":"b"}}\n'
    )
    put(path, AUTHS, (), False)
    assert agent_logins(path.read_bytes()) == {"quay.io": "a:b", "ghcr.io": "ada:x"}


@pytest.mark.parametrize(
    "data",
    [b"{", b"[1]", b"null", b'{"quay.io": 5}', b'{"quay.io": {}}', b'{"quay.io": {"auth": 5}}'],
)
def test_credentials_that_the_agent_cannot_read_are_not_kept(tmp_path, data):
    """One such entry costs it all the others."""
    path = tmp_path / "ecs.config"
    path.write_bytes(b"ECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA=" + data + b"\n")
    put(path, AUTHS, (), False)
    assert path.read_bytes() == OURS


def test_one_host_never_gets_two_keys(tmp_path):
    """The agent would take one at random."""
    path = tmp_path / "ecs.config"
    path.write_bytes(OURS.replace(b"ghcr.io", b"https://ghcr.io").replace(b"YWRhOng=", b"b2xkOmI="))
    put(path, AUTHS, (), False)
    assert path.read_bytes() == OURS


def test_logins_that_came_one_by_one_are_no_change_later(tmp_path):
    """Which secret was late at boot must not restart the agent at the next refresh."""
    path, late = tmp_path / "ecs.config", {"a.example": {"auth": "YTpi"}}
    put(path, AUTHS, (), False)
    assert put(path, late, (), False)
    assert not put(path, {**late, **AUTHS}, (), True)


def test_an_absent_file_is_made(tmp_path):
    """The image brings none; its directory may be missing too."""
    path = tmp_path / "etc" / "ecs" / "ecs.config"
    assert put(path, AUTHS, (), True)
    assert path.read_bytes() == OURS


def test_settings_are_lines_of_ours(tmp_path):
    """They stand beside the login, unless the file has them: then somebody has decided already."""
    path = tmp_path / "ecs.config"
    path.write_bytes(b"P=theirs\nA=1\n")
    put(path, AUTHS, ["P=ours", "Q=ours"], True)
    assert path.read_bytes() == b"P=theirs\nA=1\n" + OURS + b"Q=ours\n"


def test_a_symbolic_link_stays_one(tmp_path):
    """Somebody's own arrangement of files is not ours to undo."""
    (tmp_path / "ecs.config").symlink_to("real")
    (tmp_path / "real").write_bytes(b"A=1\n")
    put(tmp_path / "ecs.config", AUTHS, (), True)
    assert (tmp_path / "ecs.config").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"A=1\n" + OURS


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("old", [b"", b"A=1\n", OLD, OURS], ids=["empty", "foreign", "old", "ours"])
def test_only_the_owner_can_read_the_file(tmp_path, old):
    """Whatever the mode was before: now there is a password in it."""
    path = tmp_path / "ecs.config"
    path.write_bytes(old)
    path.chmod(0o644)
    put(path, AUTHS, (), True)
    assert mode(path) == 0o600


def test_mending_the_mode_needs_no_restart(tmp_path):
    """The agent has read the same text already."""
    path = tmp_path / "ecs.config"
    path.write_bytes(OURS)
    path.chmod(0o644)
    assert not put(path, AUTHS, (), True)


def test_a_new_file_is_the_owners_alone(instance):
    """Also where the umask would allow more."""
    instance.run("ghcr", shell="umask 0")
    assert mode(instance.config) == 0o600


def test_a_full_disk_leaves_the_old_file(instance):
    """A truncated ecs.config would cost the instance its cluster."""
    old = b"A=1\n" * 5_000
    instance.config.write_bytes(old)
    run = instance.run("ghcr", shell="ulimit -f 8")  # blocks: writes end with EFBIG
    assert (run.code, run.lines) == (
        1,
        [f"batchreg: {instance.config}: it is unchanged: File too large"],
    )
    assert (instance.config.read_bytes(), instance.scratch_files) == (old, [])
    assert instance.systemctl_calls == []


def test_an_unexpected_error_is_one_line(instance):
    """A traceback could quote a secret."""
    instance.config.mkdir()
    run = instance.run("ghcr")
    assert (run.code, run.lines) == (
        1,
        [f"batchreg: {instance.config}: it is unchanged: Is a directory"],
    )
