"""The watcher as a service of systemd: what it tells its manager, by a real socket, and the unit that starts it."""

import os
import shlex
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Scene, run, started, succeed, write_file, write_job
from tests.test_watch.watching import await_run


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    scene = Scene(tmp_path / "scene")
    scene.enter(monkeypatch)
    scene.make()
    write_file(scene.source / "a", "content of a")
    return scene


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Manager"]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        yield Manager(server)


class Manager:
    """What systemd hears."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server

    def await_word(self, word: str) -> str:
        """Wait for a message that begins so."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            message = self._server.recv(65536).decode()
            if message.startswith(word):
                return message
        raise AssertionError(f"nothing begins with {word}")


def test_systemd_is_told_that_it_is_ready_lives_reloads_and_ends(scene: Scene, manager: Manager) -> None:
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        manager.await_word("READY=1")
        for _ in range(3):
            manager.await_word("WATCHDOG=1")
        watcher.send(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in manager.await_word("RELOADING=1")
        manager.await_word("READY=1")
        watcher.send(signal.SIGTERM)
        manager.await_word("STOPPING=1")
        assert watcher.end().code == 0


def test_the_status_says_what_is_watched(scene: Scene, manager: Manager) -> None:
    with started("watch", scene.repository, scene.job, "--record-only") as watcher:
        assert manager.await_word("STATUS=") == "STATUS=watching 1 directory of home/src"
        watcher.send(signal.SIGTERM)
        assert watcher.end().code == 0


def test_a_runs_silence_is_no_silence_of_the_watcher(scene: Scene, manager: Manager) -> None:
    with started("watch", scene.repository, scene.job, "--interval", "1s") as watcher:
        watcher.await_line("backup began")
        os.kill(await_run(watcher.pid), signal.SIGSTOP)
        for _ in range(6):
            manager.await_word("WATCHDOG=1")
        watcher.send(signal.SIGTERM)
        assert watcher.end().code == 0


# --- the unit


def unit(*arguments: object) -> dict[str, str]:
    """Print a unit, and return its settings."""
    text = succeed("watch", *map(str, arguments), "--print-unit").out
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_the_unit_runs_just_this_command_line_with_whole_paths(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene.root)
    monkeypatch.setenv("AWS_PROFILE", "backup")
    write_job(scene.root / "my mail.yml", {"inbox": "mail"})
    arguments = ("./repository", "home.yml", "src", "--also", "my mail.yml", "--interval", "15m", "-c")
    settings = unit(*arguments, "-s", "keys/secrets.yml", "--region", "100%")
    words = shlex.split(settings["ExecStart"])
    program, *rest = words[words.index("watch") - 1 :]
    assert os.path.isabs(words[0]), program
    expected = ["watch", str(scene.repository), str(scene.job), "src", "--also", f"{scene.root}/my mail.yml"]
    expected += ["--interval", "15m", "-c", "--region", "100%%", "--secrets-file", str(scene.secrets)]
    assert rest[: len(expected)] == expected
    assert settings["Type"] == "notify"


def test_variables_that_a_unit_does_not_take_over_are_named_without_their_values(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert "not taken over" not in succeed("watch", "my-bucket", "home", "--print-unit").out
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret")
    text = succeed("watch", "my-bucket", "home", "--print-unit").out
    assert "\n# Set here, and not taken over: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. Credentials go into" in text
    assert "an id" not in text
    assert "a secret" not in text


def test_a_bucket_and_a_job_of_it_stay_as_they_are(scene: Scene) -> None:
    words = shlex.split(unit("my-bucket", "home", "--record-only")["ExecStart"])
    assert words[words.index("watch") :][:4] == ["watch", "my-bucket", "home", "--record-only"]


def test_a_unit_is_printed_without_a_look_at_the_repository(scene: Scene) -> None:
    assert run("watch", scene.root / "nowhere", "home", "--print-unit").code == 0
