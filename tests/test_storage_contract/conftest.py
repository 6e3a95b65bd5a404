"""The storages that the contract is tried on: `storage` is there and empty, `absent` is not there."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from s3bu.storage import Storage
from s3bu.storage.memory import MemoryStorage
from s3bu.storage.place import Place, S3Options, open_storage
from tests.test_storage_contract.cases import Case

KINDS = ("moto", "rclone with a prefix", "directory", "memory")


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path, make_bucket: Callable[[str], str]) -> Case:
    kind: str = request.param
    if kind == "memory":
        return Case(MemoryStorage, absent_memory)
    if kind == "directory":
        (tmp_path / "root").mkdir()
        there = Place("directory", path=str(tmp_path / "root"))
        absent = Place("directory", path=str(tmp_path / "absent" / "deeper"))
        options = S3Options()
        return Case(partial(open_storage, there, options), partial(open_storage, absent, options), keeps_metadata=False)
    url = request.getfixturevalue(f"{kind.split(maxsplit=1)[0]}_url")
    bucket, options = make_bucket(url), S3Options(endpoint_url=url)
    prefix = "some/prefix" if "prefix" in kind else ""
    there = Place("bucket", bucket=bucket, prefix=prefix)
    absent = Place("bucket", bucket=f"absent-{bucket}", prefix=prefix)
    return Case(partial(open_storage, there, options), partial(open_storage, absent, options))


def absent_memory() -> MemoryStorage:
    storage = MemoryStorage("absent")
    storage.is_there = False
    return storage


@pytest.fixture
def storage(case: Case) -> Iterator[Storage]:
    opened = case.there()
    yield opened
    opened.close()


@pytest.fixture
def absent(case: Case) -> Iterator[Storage]:
    opened = case.absent()
    yield opened
    opened.close()
