"""What a service tells systemd: that it is ready, what it does, that it lives, that it ends.

Each message is one datagram to the socket that $NOTIFY_SOCKET names (sd_notify(3)). Without one nothing is told, and
what cannot be told is no reason to end: systemd then ends the service itself.
"""

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """The way to whoever started this process as a service.

    `watchdog` is how often, in seconds, it wants to hear that the process lives; `None` where it does not.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is one of the abstract ones, which begin with a NUL.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address.startswith(("/", "\0")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self.watchdog = _watchdog(environ) if self._socket else None

    def close(self) -> None:
        """Close the socket."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def ready(self) -> None:
        """Say that all is watched."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Say in one line what the process does now, for `systemctl status`."""
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        """Say that the process lives."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Say that the jobs are read again; `ready` says when that is done."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Say that the process is about to end."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(message.encode("utf-8", "replace"), self._address)
        except OSError:
            return  # nobody is there, or does not listen


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Return half of the time after which a silent process is taken to hang, if it is this process that is meant."""
    try:
        if int(environ.get("WATCHDOG_PID", os.getpid())) != os.getpid():
            return None
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
    except ValueError:
        return None
    return microseconds / 2_000_000 if microseconds > 0 else None
