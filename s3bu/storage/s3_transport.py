"""The transport: one thread that runs all small puts and all reads through libcurl, any number at the same time.

Callers hand over several exchanges at once and wait once for all of them, so that a small object costs little more
than its bytes. libcurl signs, keeps connections and watches for silence; what is to be tried again is decided here.
"""

import contextlib
import heapq
import itertools
import os
import random
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import pycurl

from s3bu.errors import StorageStopped
from s3bu.patience import Stopwatch
from s3bu.storage.s3_exchange import Exchange, HttpFault

_CONFLICT = 409
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
# The slowest line that is still thought to be alive. What lies in the system's buffers counts as sent for libcurl, so
# silence may last until the line has taken all that is under way.
_SLOWEST_NBYTES_PER_SECOND = 64 * 1024
_BUFFER_NBYTES = 256 * 1024
_ACTIONS = {
    pycurl.POLL_IN: selectors.EVENT_READ,
    pycurl.POLL_OUT: selectors.EVENT_WRITE,
    pycurl.POLL_INOUT: selectors.EVENT_READ | selectors.EVENT_WRITE,
}


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms exchanges run: signed with which keys, given up after how many seconds, how often repeated.

    `silence` bounds the seconds between two signs of life, `most` the seconds in which repetitions may begin.
    """

    access_key: str
    secret_key: str
    silence: float
    retries: int
    most: float


class _Batch:
    """Exchanges that one caller waits for together."""

    def __init__(self, count: int, terms: Terms) -> None:
        self.terms = terms
        self.begun = Stopwatch()
        self.outcome: Future[None] = Future()
        self._left = count

    def settle_one(self) -> None:
        self._left -= 1
        if not self._left:
            self.outcome.set_result(None)


@dataclass(slots=True)
class _Live:
    """An exchange, the batch that waits for it until `is_awaited` ends, and the handle of the attempt under way."""

    exchange: Exchange
    batch: _Batch
    is_awaited: bool = True
    handle: pycurl.Curl | None = None


class Transport:
    """Runs exchanges with one endpoint; all methods but those of the thread itself may be called from any thread."""

    def __init__(self, url: str, region: str, *, authorities: str, connect: float) -> None:
        self._url = url
        self._region = region
        self._authorities = authorities
        self._connect = connect
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._is_stopping = False
        self._orders: deque[Callable[[], None]] = deque()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        # The rest belongs to the thread.
        self._selector = selectors.DefaultSelector()
        self._multi = pycurl.CurlMulti()
        self._alarm: float | None = None
        self._live: dict[pycurl.Curl, _Live] = {}
        self._idle: dict[str, list[pycurl.Curl]] = {}
        self._waiting: list[tuple[float, int, _Live]] = []
        self._ticket = itertools.count()
        self._unopened: list[_Live] = []
        self._nbytes = 0
        self._is_over = False

    def run(self, exchanges: Sequence[Exchange], terms: Terms) -> None:
        """Run exchanges until each is settled, or open and flowing; `StorageStopped` when they are given up."""
        batch = _Batch(len(exchanges), terms)
        self._order(lambda: self._begin_all(exchanges, batch))
        batch.outcome.result()

    def resume(self, exchange: Exchange) -> None:
        """Let a paused transfer go on: its reader has taken what was there."""
        self._order(lambda: self._unpause(exchange))

    def give_up(self, exchange: Exchange) -> None:
        """End a transfer that nobody reads any more."""
        with contextlib.suppress(StorageStopped):
            self._order(lambda: self._drop(exchange))

    def stop(self) -> None:
        """Give up all exchanges under way and to come; may be called by a signal's handler."""
        self._is_stopping = True
        self._ring()

    def close(self) -> None:
        """Stop, and end the thread."""
        self.stop()
        with self._lock:
            self._is_closed = True
            thread = self._thread
        if thread is not None:
            self._ring()
            thread.join()
        self._multi.close()
        self._selector.close()
        self._ear.close()
        self._bell.close()

    def _order(self, order: Callable[[], None]) -> None:
        with self._lock:
            if self._is_closed or self._is_stopping:
                raise _stopped()
            self._orders.append(order)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, daemon=True, name="s3bu-transport")
                self._thread.start()
        self._ring()

    def _ring(self) -> None:
        try:
            self._bell.send(b"\0")
        except OSError:
            return  # it rings already, or there is nobody left to hear it

    # --- the thread

    def _serve(self) -> None:
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_alarm)
        self._selector.register(self._ear, selectors.EVENT_READ)
        try:
            while not self._is_over:
                self._turn()
        finally:
            self._is_stopping = True  # also when something is wrong here: nobody must wait for ever
            self._end_all()

    def _turn(self) -> None:
        for key, events in self._selector.select(self._seconds()):
            if key.fileobj is self._ear:
                self._ear.recv(4096)
            else:
                self._act(key.fd, events)
        if self._alarm is not None and self._alarm <= time.monotonic():
            self._alarm = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._obey()
        self._begin_due()
        self._conclude_done()

    def _seconds(self) -> float | None:
        moments = [moment for moment in (self._alarm, self._waiting[0][0] if self._waiting else None) if moment]
        return max(min(moments) - time.monotonic(), 0) if moments else None

    def _act(self, descriptor: int, events: int) -> None:
        read, write = events & selectors.EVENT_READ, events & selectors.EVENT_WRITE
        self._multi.socket_action(descriptor, (pycurl.CSELECT_IN if read else 0) | (pycurl.CSELECT_OUT if write else 0))

    def _watch(self, action: int, descriptor: int, _multi: object, _data: object) -> None:
        """Do what libcurl asks: watch a socket, watch it otherwise, or let it be."""
        is_known = descriptor in self._selector.get_map()
        if action == pycurl.POLL_REMOVE:
            if is_known:
                self._selector.unregister(descriptor)
        elif is_known:
            self._selector.modify(descriptor, _ACTIONS[action])
        else:
            self._selector.register(descriptor, _ACTIONS[action])

    def _set_alarm(self, milliseconds: int) -> None:
        self._alarm = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _obey(self) -> None:
        while self._orders:
            self._orders.popleft()()
        if self._is_stopping:
            self._end_all()
            self._is_over = self._is_closed and not self._orders

    # --- exchanges

    def _begin_all(self, exchanges: Sequence[Exchange], batch: _Batch) -> None:
        for exchange in exchanges:
            self._begin(_Live(exchange, batch))

    def _begin(self, live: _Live) -> None:
        exchange, terms = live.exchange, live.batch.terms
        self._nbytes += len(exchange.body)
        idle = self._idle.setdefault(exchange.method, [])
        handle = live.handle = idle.pop() if idle else self._made(exchange.method)
        silence = terms.silence + self._nbytes / _SLOWEST_NBYTES_PER_SECOND
        handle.setopt(pycurl.LOW_SPEED_TIME, max(round(silence), 1))
        handle.setopt(pycurl.URL, self._url + exchange.path)
        handle.setopt(pycurl.HTTPHEADER, exchange.begin())
        # A server that closed all idle connections at once must not cost one attempt for each of them.
        handle.setopt(pycurl.FRESH_CONNECT, exchange.attempts > 1)
        handle.setopt(pycurl.USERNAME, terms.access_key)
        handle.setopt(pycurl.PASSWORD, terms.secret_key)
        handle.setopt(pycurl.WRITEFUNCTION, exchange.take_body)
        if exchange.method == "PUT":
            handle.setopt(pycurl.POSTFIELDS, exchange.body)
        else:
            # Of a put the status says all, and each line costs a wait for the interpreter's lock.
            handle.setopt(pycurl.HEADERFUNCTION, exchange.take_header)
        self._live[handle] = live
        if live.is_awaited and exchange.method == "GET":
            self._unopened.append(live)
        self._multi.add_handle(handle)

    def _made(self, method: str) -> pycurl.Curl:
        handle = pycurl.Curl()
        handle.setopt(pycurl.AWS_SIGV4, f"aws:amz:{self._region}:s3")
        handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, int(self._connect * 1000))
        handle.setopt(pycurl.LOW_SPEED_LIMIT, 1)
        handle.setopt(pycurl.BUFFERSIZE, _BUFFER_NBYTES)
        handle.setopt(pycurl.UPLOAD_BUFFERSIZE, _BUFFER_NBYTES)
        for option in (pycurl.NOSIGNAL, pycurl.TCP_NODELAY, pycurl.TCP_KEEPALIVE):
            handle.setopt(option, 1)
        handle.setopt(pycurl.CAPATH if os.path.isdir(self._authorities) else pycurl.CAINFO, self._authorities)
        if method == "HEAD":
            handle.setopt(pycurl.NOBODY, 1)
        elif method != "GET":
            handle.setopt(pycurl.CUSTOMREQUEST, method)
        return handle

    def _begin_due(self) -> None:
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            self._begin(heapq.heappop(self._waiting)[2])

    def _conclude_done(self) -> None:
        left = 1
        while left:
            left, done, failed = self._multi.info_read()
            for handle in done:
                self._conclude(handle, 0)
            for handle, number, _ in failed:
                self._conclude(handle, number)
        if self._unopened:
            for live in self._unopened:
                if live.exchange.is_open:
                    self._let_go(live)
            self._unopened = [live for live in self._unopened if live.is_awaited and live.handle is not None]

    def _conclude(self, handle: pycurl.Curl, number: int) -> None:
        live = self._release(handle)
        live.exchange.conclude(number, handle.getinfo(pycurl.RESPONSE_CODE))
        pause = self._pause(live)
        if pause is None:
            self._settle(live)
        else:
            heapq.heappush(self._waiting, (time.monotonic() + pause, next(self._ticket), live))

    def _release(self, handle: pycurl.Curl) -> _Live:
        live = self._live.pop(handle)
        self._multi.remove_handle(handle)
        self._nbytes -= len(live.exchange.body)
        self._idle[live.exchange.method].append(handle)
        # An idle handle would hold on to a body.
        handle.setopt(pycurl.WRITEFUNCTION, _ignore)
        if live.exchange.method == "PUT":
            handle.setopt(pycurl.POSTFIELDS, b"")
        else:
            handle.setopt(pycurl.HEADERFUNCTION, _ignore)
        live.handle = None
        return live

    def _pause(self, live: _Live) -> float | None:
        """Return after how many seconds to try again, `None` for not at all."""
        fault, terms = live.exchange.fault, live.batch.terms
        if not isinstance(fault, HttpFault) or not live.exchange.is_wanted:
            return None
        # 409 says of a conditional create that another one is under way; S3 asks to try again.
        if not fault.may_pass and not (fault.status == _CONFLICT and live.exchange.method == "PUT"):
            return None
        if live.exchange.attempts > terms.retries:
            return None
        if live.is_awaited and live.batch.begun.seconds > terms.most:
            return None
        longest = min(_FIRST_PAUSE * 2 ** (live.exchange.attempts - 1) * 2, _LONGEST_PAUSE)
        return random.uniform(longest / 4, longest)  # noqa: S311 - nothing secret

    def _settle(self, live: _Live) -> None:
        live.exchange.settle()
        self._let_go(live)

    def _let_go(self, live: _Live) -> None:
        if live.is_awaited:
            live.is_awaited = False
            live.batch.settle_one()

    def _unpause(self, exchange: Exchange) -> None:
        handle = self._handle(exchange)
        if handle is None or not exchange.is_paused:
            return
        exchange.is_paused = False
        try:
            handle.pause(pycurl.PAUSE_CONT)
        except pycurl.error as error:  # what was held back is handed over in this very call, and may be refused
            self._conclude(handle, int(error.args[0]))

    def _drop(self, exchange: Exchange) -> None:
        handle = self._handle(exchange)
        if handle is not None:
            self._release(handle)

    def _handle(self, exchange: Exchange) -> pycurl.Curl | None:
        return next((handle for handle, live in self._live.items() if live.exchange is exchange), None)

    def _end_all(self) -> None:
        for handle in list(self._live):
            self._end(self._release(handle))
        for _, _, live in self._waiting:
            self._end(live)
        self._waiting.clear()

    def _end(self, live: _Live) -> None:
        live.exchange.fault = _stopped()
        self._settle(live)


def _ignore(_: bytes) -> None:
    """Take a line or a chunk that nobody waits for."""


def _stopped() -> StorageStopped:
    return StorageStopped("the request was given up because the run is being stopped")
