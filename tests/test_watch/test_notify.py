"""What is told to systemd, by a socket as it has one."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3bu.watch.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = f"@s3bu-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name.replace("@", "\0", 1))
        server.settimeout(10)
        yield server, name


def test_each_message_is_one_datagram(listening: tuple[socket.socket, str]) -> None:
    server, name = listening
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for tell in (notifier.ready, lambda: notifier.status("watching 3 sources"), notifier.alive, notifier.stopping):
        tell()
    said = [server.recv(4096) for _ in range(4)]
    assert said == [b"READY=1", b"STATUS=watching 3 sources", b"WATCHDOG=1", b"STOPPING=1"]
    notifier.reloading()
    first, second = server.recv(4096).split(b"\n")
    assert first == b"RELOADING=1"
    assert int(second.removeprefix(b"MONOTONIC_USEC=")) > 0
    notifier.close()


def watchdog(environ: dict[str, str]) -> float | None:
    notifier = Notifier(environ)
    notifier.close()
    return notifier.watchdog


def test_the_watchdog_is_fed_at_half_its_time_if_it_waits_for_this_process(tmp_path: Path) -> None:
    told = {"NOTIFY_SOCKET": str(tmp_path / "s"), "WATCHDOG_USEC": "30000000"}
    assert watchdog(told) == 15.0
    assert watchdog(told | {"WATCHDOG_PID": str(os.getpid())}) == 15.0
    assert watchdog(told | {"WATCHDOG_PID": "1"}) is None
    assert watchdog(told | {"WATCHDOG_PID": "x"}) is None
    assert watchdog(told | {"WATCHDOG_USEC": "0"}) is None
    assert watchdog({"WATCHDOG_USEC": "30000000"}) is None


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all"])
def test_without_somebody_who_listens_nothing_is_told(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.close()
    notifier.alive()
