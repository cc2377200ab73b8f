"""Two real registries in one stack, one instance, a real engine; one password after the other."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from lab.agent import auth_for, read_ecs_config
from lab.instance import Instance
from lab.parts import PullError, Registry
from local_aws import LocalAws
from real_parts import batchreg, require, two_registries

REFRESH = ["python3", "/opt/batchreg/registry_login.py", "@/opt/batchreg/args"]
RESTART = ["--no-block", "try-restart", "ecs.service"]
STACK = "two-registries"


@dataclass
class Lab:
    """A stack with two registries, and an instance of it that has booted."""

    aws: LocalAws
    registries: tuple[Registry, Registry]
    images: tuple[str, str]
    instance: Instance
    arns: tuple[str, str]

    def auths(self) -> list[dict[str, str] | None]:
        """Return the login that the agent would use for each of the images."""
        config = read_ecs_config(self.instance.read("/etc/ecs/ecs.config") or b"")
        return [auth_for(image, config) for image in self.images]

    def refresh(self, *more: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        """Do what the timer does; return how it ended and the calls of systemctl."""
        before = len(self.instance.systemctl())
        done = self.instance.run([*REFRESH, *more])
        return done, self.instance.systemctl()[before:]


def rotate(aws: LocalAws, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return batchreg("rotate", "--stack-name", STACK, "--yes", *arguments, **aws.environ, **environ)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One for all tests, which leave it as they found it but for the passwords."""
    require("registry", "engine", "instance")
    folder = tmp_path_factory.mktemp("lab")
    with (
        two_registries(folder, STACK) as two,
        Instance(
            directory=folder / "instance",
            environ=two.aws.environ,
            files={"etc/ecs/ecs.config": b""},
        ) as instance,
    ):
        boot = instance.boot(two.user_data)
        assert boot.ok, boot.console
        yield Lab(
            two.aws,
            two.registries,
            two.images,
            instance,
            (two.outputs["RegistrySecretArn"], two.outputs["RegistrySecret2Arn"]),
        )


def test_both_images_pull_each_with_its_own_login(lab, engine):
    """And neither without one, nor with the other's."""
    auths = lab.auths()
    assert [auth["username"] for auth in auths] == ["ann", "ben"]
    for image, auth, wrong in zip(lab.images, auths, auths[::-1], strict=True):
        for nothing in (None, wrong):
            with pytest.raises(PullError):
                engine.pull(image, nothing)
        engine.pull(image, auth)
        engine.remove(image)


def test_rotated_password_replaces_the_old_one_and_leaves_the_other_registry_alone(lab, engine):
    """Within one refresh: the old password is gone, the new one pulls, one restart of the agent."""
    old, other = lab.auths()
    lab.registries[0].change_password("second:a")
    with pytest.raises(PullError):
        engine.pull(lab.images[0], old)
    result = rotate(
        lab.aws, "--registry", lab.registries[0].host, BATCHREG_PASSWORD="second:a"
    )  # the check passes: it is the real one's
    assert result.returncode == 0, result.stderr
    assert lab.auths() == [old, other]  # until the timer runs
    done, calls = lab.refresh()
    assert (done.returncode, calls) == (0, [RESTART])
    new, same = lab.auths()
    assert (new["username"], new["password"], same) == ("ann", "second:a", other)
    content = lab.instance.read("/etc/ecs/ecs.config")
    assert base64.b64encode(b"ann:first:a") not in content
    for image, auth in zip(lab.images, (new, same), strict=True):
        engine.pull(image, auth)
        engine.remove(image)
    assert lab.refresh()[1] == []  # the next run changes nothing


def test_password_that_the_registry_refuses_changes_nothing(lab):
    """Nor does one that pulls no image."""
    manager = lab.aws.client("secretsmanager")
    before = [manager.get_secret_value(SecretId=arn)["VersionId"] for arn in lab.arns]
    host = lab.registries[0].host
    for more in ([], ["--image", lab.images[0]], ["--json"]):
        result = rotate(lab.aws, "--registry", host, *more, BATCHREG_PASSWORD="canary-wrong")
        assert result.returncode == 1
        assert "No changes were made. To skip this check, give --no-check." in result.stderr
        assert "canary" not in result.stderr + result.stdout
    after = [manager.get_secret_value(SecretId=arn)["VersionId"] for arn in lab.arns]
    assert (after, lab.refresh()[1]) == (before, [])


@pytest.mark.parametrize("fault", ["invalid JSON", "deleted"])
def test_secret_that_breaks_between_two_refreshes_keeps_the_working_login(lab, engine, fault):
    """One line a refresh says why, and the other registry's news arrive all the same."""
    manager, (arn, other) = lab.aws.client("secretsmanager"), lab.arns
    texts = [manager.get_secret_value(SecretId=each)["SecretString"] for each in lab.arns]
    before, _ = lab.auths()
    password = f"after {fault}"
    lab.registries[1].change_password(password)
    assert (
        rotate(
            lab.aws,
            "--registry",
            lab.registries[1].host,
            "--image",
            lab.images[1],
            BATCHREG_PASSWORD=password,
        ).returncode
        == 0
    )
    if fault == "deleted":
        manager.delete_secret(SecretId=arn, RecoveryWindowInDays=7)
    else:
        manager.put_secret_value(SecretId=arn, SecretString='{"username": "canary')
    done, calls = lab.refresh("--deadline", "1")
    assert (done.returncode, calls) == (1, [RESTART])
    again, calls = lab.refresh("--deadline", "1")
    assert (again.returncode, calls) == (1, [])
    (line,) = again.stderr.splitlines()
    assert line.startswith(f"batchreg: {arn}: ")
    assert ("it is not JSON text" if fault == "invalid JSON" else "HTTP 400") in line
    assert "canary" not in done.stderr + again.stderr
    kept, news = lab.auths()
    assert (kept, news["password"]) == (before, password)
    for image, auth in zip(lab.images, (kept, news), strict=True):
        engine.pull(image, auth)
        engine.remove(image)
    if fault == "deleted":
        manager.restore_secret(SecretId=arn)
    else:
        manager.put_secret_value(SecretId=arn, SecretString=texts[0])
    assert lab.refresh()[0].returncode == 0
    assert (
        json.loads(manager.get_secret_value(SecretId=other)["SecretString"])["password"] == password
    )


def test_undo_is_checked_as_well(lab):
    """A password that the registry has dropped meanwhile is no way back."""
    result = rotate(lab.aws, "--undo", "--registry", lab.registries[1].host)
    assert result.returncode == 1
    assert "No changes were made." in result.stderr
