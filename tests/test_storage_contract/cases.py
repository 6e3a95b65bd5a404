"""What the contract is tried on, and how."""

from collections.abc import Callable
from dataclasses import dataclass

from s3bu.storage import Storage

METADATA = {"s3bu-encrypt": "age", "s3bu-encrypt-version": "001"}
LARGE = bytes(range(256)) * (20 * 4096) + b"!"


@dataclass(frozen=True, slots=True)
class Case:
    """A place that is there and empty, one beside it that is not there, and what they can do."""

    there: Callable[[], Storage]
    absent: Callable[[], Storage]
    keeps_metadata: bool = True


def read(storage: Storage, key: str, start: int = 0) -> bytes:
    with storage.open(key, start=start) as download:
        return download.read()


def keys(storage: Storage, prefix: str = "", after: str = "") -> list[str]:
    return [stat.key for stat in storage.list(prefix, after=after)]


def probe(storage: Storage) -> bool:
    answer = storage.probe("repo/probe")
    storage.delete("repo/probe")
    return answer


def write(storage: Storage, key: str, body: bytes, *, create: bool = False, chunk: int = 1_000_003) -> None:
    with storage.writer(key, len(body), METADATA, create=create) as upload:
        for start in range(0, len(body), chunk):
            assert upload.write(body[start : start + chunk]) == len(body[start : start + chunk])
            upload.flush()
        upload.commit()
