"""Sending small bodies: those of a batch all under way at once, on the loop thread.

The futures of obstore are waited for as they are. A task and a timer for each body would take longer than sending it.
"""

import asyncio
import random
from collections.abc import Callable, Sequence

import obstore
from obstore.store import S3Store

from s3bu.errors import S3buError, StorageError
from s3bu.storage import Put
from s3bu.storage.s3_connection import Patience
from s3bu.storage.s3_errors import FAULTS, Request, code_of

CONFLICT = "ConditionalRequestConflict"
_CONFLICT_ATTEMPTS = 6
# The slowest line that is still thought to be alive, for all that is under way.
_SLOWEST_NBYTES_PER_SECOND = 64 * 1024


class Sender:
    """Sends the bodies of one storage, and knows how much is under way, since a slow line is shared by all of it."""

    def __init__(self, patience: Patience, explain: Callable[[Exception, Request], S3buError]) -> None:
        self._patience = patience
        self._explain = explain
        self._nbytes = 0

    async def send(self, store: S3Store, puts: Sequence[tuple[Request, Put]]) -> list[StorageError | None]:
        """Send bodies, and return for each what kept it from being stored."""
        errors: list[StorageError | None] = [None] * len(puts)
        waiting = list(range(len(puts)))
        for attempt in range(1, _CONFLICT_ATTEMPTS + 1):
            answers = await self._send_once(store, [puts[index] for index in waiting])
            again = []
            for index, answer in zip(waiting, answers, strict=True):
                if answer is None:
                    continue
                # Two creates at the same time: S3 asks both to try again.
                if attempt < _CONFLICT_ATTEMPTS and code_of(answer, puts[index][0].key) == CONFLICT:
                    again.append(index)
                else:
                    errors[index] = self._error(answer, puts[index][0])
            if not again:
                break
            waiting = again
            await asyncio.sleep(random.uniform(0.1, 0.4) * 2 ** (attempt - 1))  # noqa: S311 - nothing secret
        return errors

    async def _send_once(self, store: S3Store, puts: Sequence[tuple[Request, Put]]) -> list[Exception | None]:
        nbytes = sum(len(put.body) for _, put in puts)
        self._nbytes += nbytes
        futures = [_begin(store, request, put) for request, put in puts]
        try:
            await self._wait(futures)
            return [_answer(future) for future in futures]
        finally:
            self._nbytes -= nbytes
            for future in futures:
                future.cancel()

    async def _wait(self, futures: "list[asyncio.Future[object]]") -> None:
        """Wait as long as a slow line needs for the most that was under way meanwhile: others may join after us."""
        now = asyncio.get_running_loop().time
        begun, most, waiting = now(), 0, set(futures)
        while waiting:
            most = max(most, self._nbytes)
            seconds = min(self._patience.answer + most / _SLOWEST_NBYTES_PER_SECOND, self._patience.put_most)
            left = begun + seconds - now()
            if left <= 0:
                return
            _, waiting = await asyncio.wait(waiting, timeout=min(left, 1.0))

    def _error(self, answer: Exception, request: Request) -> StorageError:
        """Return the storage's error for one body; raise what concerns them all, such as a missing bucket."""
        error = self._explain(answer, request)
        if isinstance(error, StorageError):
            return error
        raise error from answer


def _begin(store: S3Store, request: Request, put: Put) -> "asyncio.Future[object]":
    try:
        return asyncio.ensure_future(
            obstore.put_async(
                store,
                request.key,
                put.body,
                attributes=dict(put.metadata),
                mode="create" if put.create else "overwrite",
                use_multipart=False,
            )
        )
    except FAULTS as error:
        refused: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        refused.set_exception(error)
        return refused


def _answer(future: "asyncio.Future[object]") -> Exception | None:
    if not future.done():
        return TimeoutError()
    error = future.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    return error
