"""Writers of large objects."""

import pytest

from s3bu.errors import ObjectExists
from s3bu.storage import Storage
from tests.test_storage_contract.cases import LARGE, METADATA, Case, keys, probe, read, write


def test_a_writer_stores_a_large_body(case: Case, storage: Storage) -> None:
    write(storage, "data/x", LARGE)
    with storage.open("data/x") as download:
        assert (download.read() == LARGE, download.nbytes) == (True, len(LARGE))
        assert dict(download.metadata) == (METADATA if case.keeps_metadata else {})


def test_a_large_body_is_read_from_the_middle_in_pieces(storage: Storage) -> None:
    write(storage, "data/x", LARGE, chunk=len(LARGE))
    with storage.open("data/x", start=3_000_001) as download:
        pieces = list(iter(lambda: download.read(700_001), b""))
    assert all(len(piece) == 700_001 for piece in pieces[:-1])
    assert b"".join(pieces) == LARGE[3_000_001:]


def test_a_writer_takes_any_length(storage: Storage) -> None:
    part = 8 * 1024 * 1024
    for nbytes in (0, 1, part - 1, part, part + 1):
        write(storage, "x", LARGE[:nbytes])
        assert read(storage, "x") == LARGE[:nbytes]


@pytest.mark.parametrize("is_probed", [False, True])
@pytest.mark.parametrize("nbytes", [5, 9 * 1024 * 1024])
def test_a_writer_refuses_to_create_what_is_there(storage: Storage, nbytes: int, is_probed: bool) -> None:
    if is_probed:
        probe(storage)
    write(storage, "x", LARGE[:nbytes], create=True)
    with pytest.raises(ObjectExists, match="x is there already"):
        write(storage, "x", LARGE[1 : nbytes + 1], create=True)
    assert read(storage, "x") == LARGE[:nbytes]


def test_an_aborted_writer_leaves_nothing(storage: Storage) -> None:
    with storage.writer("x", len(LARGE), {}) as upload:
        upload.write(LARGE)
        upload.abort()
        upload.abort()
    assert keys(storage) == []


def test_a_writer_left_without_commit_leaves_nothing(storage: Storage) -> None:
    with storage.writer("x", len(LARGE), {}) as upload:
        upload.write(LARGE)
    assert keys(storage) == []


def test_a_writer_left_by_an_error_leaves_what_was_there(storage: Storage) -> None:
    storage.put("x", b"before", {})
    with pytest.raises(TypeError), storage.writer("x", len(LARGE), {}) as upload:
        upload.write(LARGE[: 9 * 1024 * 1024] + upload)  # type: ignore[operator]
    assert (keys(storage), read(storage, "x")) == (["x"], b"before")


def test_an_abort_after_the_commit_is_harmless(storage: Storage) -> None:
    with storage.writer("x", 5, {}) as upload:
        upload.write(b"hello")
        upload.commit()
        upload.abort()
    assert read(storage, "x") == b"hello"


def test_nothing_is_written_after_the_commit(storage: Storage) -> None:
    with storage.writer("x", 5, {}) as upload:
        upload.commit()
        with pytest.raises(ValueError, match="over"):
            upload.write(b"more")


def test_an_object_appears_at_the_commit_and_not_before(storage: Storage) -> None:
    with storage.writer("x", len(LARGE), {}) as upload:
        upload.write(LARGE)
        assert keys(storage) == []
        upload.commit()
    assert keys(storage) == ["x"]
