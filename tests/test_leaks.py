"""Secrets stay out of sight: whatever a command prints, also when it fails, no passphrase, identity or key is in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from s3bu.keyring import load_secrets
from tests.battery import every_command
from tests.running import Scene, backed_up, run, write_file

_KEY = "CANARYKEY0123456789/secret+access+key"
_TOKEN = "CANARYTOKEN0123456789"


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = backed_up(tmp_path / "scene")
    scene.enter(monkeypatch)
    monkeypatch.setenv("EDITOR", "sed -i s/home/house/")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "CANARYACCESS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", _TOKEN)
    return scene


def canaries(scene: Scene) -> set[str]:
    """Return what must never be printed: passphrases whole and in halves, identities, keys of AWS."""
    passphrases = [secret.passphrase for secret in load_secrets(scene.keys / "secrets.yml")]
    lines = (scene.keys / "identities.txt").read_text().splitlines()
    identities = [line.removeprefix("AGE-SECRET-KEY-") for line in lines if line.startswith("AGE-SECRET-KEY-")]
    whole = [*passphrases, *identities, _KEY, _TOKEN]
    assert len(whole) == 4
    return {*whole, *(one[: len(one) // 2] for one in whole), *(one[len(one) // 2 :] for one in whole)}


@pytest.mark.parametrize("options", [("-v",), ("-v", "--json")])
def test_no_command_prints_a_secret(scene: Scene, options: tuple[str, ...]) -> None:
    secrets = canaries(scene)
    for said in every_command(scene, *options):
        assert [one for one in secrets if one in said.result.out + said.result.err] == [], said.words


def failures(scene: Scene) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what is broken next, and a command that meets it."""
    secrets, identities = scene.keys / "secrets.yml", scene.keys / "identities.txt"
    good_secrets, good_identities = secrets.read_text(), identities.read_text()
    restore = ("restore", str(scene.repository), "home/src", str(scene.target))
    secrets.chmod(0o644)
    yield "secrets open to all", restore
    secrets.chmod(0o600)
    for spoilt in (good_secrets.replace("passphrase:", "passphrase"), good_secrets + "- [", "x" + good_secrets):
        secrets.write_text(spoilt)
        yield "broken secrets", restore
    secrets.write_text(good_secrets)
    for spoilt in (good_identities[:-8], good_identities.lower(), "x" + good_identities, good_identities * 2 + "\0"):
        identities.write_text(spoilt)
        yield "broken identities", restore
    identities.write_text(good_identities)
    recipients = scene.repository / "repo" / "recipients.txt"
    recipients.write_text(next(line for line in good_identities.splitlines() if line.startswith("AGE-SECRET-KEY-")))
    yield "an identity among the recipients", ("keys", "list", str(scene.repository))
    yield "an identity among the recipients", ("backup", str(scene.repository), str(scene.job))
    job = write_file(scene.root / "leak.yml", f"sources:\n- {{path: /x, label: x}}\n{good_secrets}")
    yield "secrets in place of a job", ("job", "check", str(job))


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_no_error_prints_a_secret(scene: Scene, options: tuple[str, ...]) -> None:
    secrets = canaries(scene)
    for what, words in failures(scene):
        result = run(*words, "-v", *options)
        assert result.code != 0 or what == "broken identities", (what, result)
        assert [one for one in secrets if one in result.out + result.err] == [], (what, result)


def test_a_server_that_refuses_gets_no_secret_said_of_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    secrets = canaries(scene)
    for options in ((), ("--json",)):
        result = run("snapshots", "my-bucket", *options)
        assert result.code == 1
        assert [one for one in secrets if one in result.out + result.err] == [], result
