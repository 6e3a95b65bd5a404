"""Fixtures of the suites behind the proxy.

- `place`: a fresh repository behind a proxy before rclone, in haste: what passes in minutes passes in seconds.
- `moto_place`: the same before moto, which knows conditions and uploads in parts.
- `stored`: one with two snapshots, which tests only read.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.proxy import FaultProxy, fault_proxy
from tests.faults.scenes import Place, in_haste
from tests.running import own_environment, succeed
from tests.servers import s3_client


@pytest.fixture(scope="package")
def rclone_proxy(rclone_url: str) -> Iterator[FaultProxy]:
    with fault_proxy(rclone_url) as proxy:
        yield proxy


@pytest.fixture(scope="package")
def moto_proxy(moto_url: str) -> Iterator[FaultProxy]:
    with fault_proxy(moto_url) as proxy:
        yield proxy


@pytest.fixture
def place(
    rclone_proxy: FaultProxy,
    rclone_url: str,
    tmp_path: Path,
    make_bucket: Callable[[str], str],
    make_client: Callable[[str], Any],
) -> Iterator[Place]:
    place = Place.make(tmp_path, rclone_proxy, make_client(rclone_url), make_bucket(rclone_url))
    yield from entered(place)


@pytest.fixture
def moto_place(
    moto_proxy: FaultProxy,
    moto_url: str,
    tmp_path: Path,
    make_bucket: Callable[[str], str],
    make_client: Callable[[str], Any],
) -> Iterator[Place]:
    place = Place.make(tmp_path, moto_proxy, make_client(moto_url), make_bucket(moto_url))
    yield from entered(place)


def entered(place: Place) -> Iterator[Place]:
    """Be the machine of a place, behind a proxy that strikes nothing yet."""
    place.proxy.begin()
    with own_environment(place.root / "keys", place.proxy.url), in_haste():
        yield place
    place.proxy.begin()


@pytest.fixture(scope="module")
def stored_once(
    rclone_proxy: FaultProxy, rclone_url: str, tmp_path_factory: pytest.TempPathFactory, clients: dict[str, Any]
) -> Place:
    client = clients.setdefault(rclone_url, s3_client(rclone_url))
    bucket = f"stored-{uuid.uuid4().hex[:16]}"
    client.create_bucket(Bucket=bucket)
    place = Place.make(tmp_path_factory.mktemp("stored"), rclone_proxy, client, bucket)
    for _ in entered(place):
        succeed("backup", place.bucket, place.job)
        place.change(1)
        succeed("backup", place.bucket, place.job)
    return place


@pytest.fixture
def stored(stored_once: Place, tmp_path: Path) -> Iterator[Place]:
    """A repository with two snapshots that tests only read, each with a target of its own."""
    shutil.rmtree(stored_once.target, ignore_errors=True)
    yield from entered(stored_once)
