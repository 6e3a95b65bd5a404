"""Histories in which one thing is interrupted once, at a request that is chosen."""

import shutil
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from s3bu import prune
from s3bu.repository.layout import parse_manifest_key
from tests.fakes import OLD, write
from tests.test_prune.histories import History, Tally


class Interrupted(History):
    """A history in which one thing is interrupted once, at the request of that number, by some others."""

    def __init__(self, root: Path, tally: Tally, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(root, 0, tally, monkeypatch)
        self._deadliness = self._restlessness = 0
        self._stamps_of_writers = False
        monkeypatch.setattr(prune, "YOUNG", timedelta(0))
        self._left = -1
        self._meanwhile: Callable[[], object] = lambda: None

    def interrupt(self, number: int, meanwhile: Callable[[], object]) -> None:
        """Let other things happen at the request of that number, counted from now on."""
        self._left, self._meanwhile = number, meanwhile

    @property
    def was_interrupted(self) -> bool:
        """Whether there was such a request."""
        return self._left < 0

    def meet(self, request: str, key: str) -> None:
        super().meet(request, key)
        is_last_moment = request == "put" and parse_manifest_key(key) is not None
        if self._quiet or not self._stack or len(self._stack) > 1 or self._left < 0:
            return
        self._left -= 1
        if self._left < 0:
            self._left = 0 if is_last_moment else -1
            if not is_last_moment:
                self._meanwhile()

    def write(self, job: str, label: str, contents: Mapping[str, bytes]) -> None:
        """Let a source be these files and nothing else."""
        shutil.rmtree(self._source(job, label), ignore_errors=True)
        self._source(job, label).mkdir(parents=True)
        for name, content in contents.items():
            write(self._source(job, label) / name, content, mtime=OLD + len(content))

    def back_up(self, job: str, label: str) -> None:
        self._back_up_source(job, label)

    def prune_twice(self) -> None:
        """Mark, wait, and sweep, on a machine whose clock is right."""
        for _ in range(2):
            self._prune()
            self.clock.seconds += 73 * 3600

    def check(self) -> None:
        """Hold all that is published to what is stored."""
        with self.undisturbed():
            self._check()
