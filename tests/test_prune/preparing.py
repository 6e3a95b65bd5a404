"""The ground on which histories are played: keys, and a program that does all in one thread and in no time."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest

from s3bu.crypto.identities import new_identity
from s3bu.keyring import new_secret, write_identities, write_secrets
from tests.fakes import quicken_scrypt

Item = TypeVar("Item")
Result = TypeVar("Result")


def inline(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, give_up: Callable[[], None]
) -> Iterator[Result]:
    """Do what `parallel.each` does, in this thread."""
    return map(function, items)


class InlinePool:
    """A pool of threads that does all in this thread, when it is asked to."""

    def __init__(self, *_bounds: object, **_names: object) -> None:
        pass

    def submit(self, call: Callable[..., Result], *given: Any) -> "Future[Result]":
        future: Future[Result] = Future()
        try:
            future.set_result(call(*given))
        except Exception as error:  # noqa: BLE001 - it is raised again where the result is asked for
            future.set_exception(error)
        return future

    def shutdown(self, **_how: object) -> None:
        pass


def prepare(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the keys of all histories, and let nothing take time or other threads."""
    quicken_scrypt(monkeypatch)
    identity, recipient = new_identity()
    write_secrets(root / "keys" / "secrets.yml", [new_secret()])
    write_identities(root / "keys" / "identities.txt", [(identity, recipient)])
    (root / "recipient").write_text(f"{recipient}\n")
    for module in ("s3bu.prune", "s3bu.prune.manifests", "s3bu.forget", "s3bu.store"):
        monkeypatch.setattr(f"{module}.each", inline)
    monkeypatch.setattr("s3bu.sync.ThreadPoolExecutor", InlinePool)


def clear(root: Path) -> None:
    """Remove what one history left, for the next."""
    for path in root.iterdir():
        if path.name not in ("keys", "recipient"):
            shutil.rmtree(path)
