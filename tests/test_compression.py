"""Gzip as streams, held to Python's own, and to what a hostile stream may look like."""

import gzip
import io
import os
import random
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3bu.compression import CHUNK, GunzipReader, GzipReader, Inflater, is_worth_compressing
from s3bu.errors import IntegrityError

SHAPES = st.binary(max_size=2000) | st.integers(0, 3 * CHUNK)
"""What a content is made from; a long one by its length alone, since hypothesis prints what it tries."""
NOISE = random.Random(1).randbytes(3 * CHUNK)


def content(shape: bytes | int) -> bytes:
    return shape if isinstance(shape, bytes) else b"abc" * (shape // 3)


class Dripping:
    """A reader that hands out as little as it likes, never nothing before the end."""

    def __init__(self, content: bytes, sizes: Iterator[int]) -> None:
        self._stream = io.BytesIO(content)
        self._sizes = sizes

    def read(self, size: int = -1, /) -> bytes:
        least = next(self._sizes)
        return self._stream.read(least if size < 0 else min(size, least))


def inflate(packed: bytes, step: int = CHUNK) -> bytes:
    inflater = Inflater("x")
    plain = b"".join(
        piece for start in range(0, len(packed), step) for piece in inflater.pieces(packed[start : start + step])
    )
    inflater.finish()
    return plain


@settings(deadline=None)
@given(SHAPES, st.integers(1, 9))
def test_what_is_packed_python_unpacks(shape: bytes | int, level: int) -> None:
    plain = content(shape)
    assert gzip.decompress(GzipReader(io.BytesIO(plain), level=level).read()) == plain


@settings(deadline=None)
@given(SHAPES, st.integers(1000, 100_000))
def test_packing_is_the_same_in_pieces(shape: bytes | int, size: int) -> None:
    plain = content(shape)
    reader = GzipReader(io.BytesIO(plain))
    pieces = list(iter(lambda: reader.read(size), b""))
    assert all(len(piece) == size for piece in pieces[:-1])
    assert b"".join(pieces) == GzipReader(io.BytesIO(plain)).read()


def test_equal_input_gives_equal_bytes_whatever_the_clock_says() -> None:
    packed = GzipReader(io.BytesIO(b"plain")).read()
    assert packed[4:8] == b"\0\0\0\0"
    assert packed == GzipReader(io.BytesIO(b"plain")).read()


def test_at_the_end_a_reader_gives_nothing_again_and_again() -> None:
    reader = GzipReader(io.BytesIO(b"plain"))
    reader.read()
    assert [reader.read(), reader.read(5), reader.read(0)] == [b"", b"", b""]


@settings(deadline=None)
@given(SHAPES, st.integers(1, 5000))
def test_what_python_packs_is_unpacked_however_it_is_fed(shape: bytes | int, step: int) -> None:
    plain = content(shape)
    assert inflate(gzip.compress(plain), step) == plain


@pytest.mark.parametrize("step", [1, 7, CHUNK])
def test_several_members_are_one_stream(step: int) -> None:
    packed = b"".join(gzip.compress(one) for one in (b"first", b"", b"second", b"x" * 10_000))
    assert inflate(packed, step) == b"firstsecond" + b"x" * 10_000


@pytest.mark.parametrize("garbage", [b"garbage", b"\0", b"\x1f\x8b", b"\x1f"])
@pytest.mark.parametrize("step", [1, CHUNK])
def test_other_bytes_behind_it_are_an_error(garbage: bytes, step: int) -> None:
    with pytest.raises(IntegrityError, match="x: the compressed stream is"):
        inflate(gzip.compress(b"plain") + garbage, step)


@pytest.mark.parametrize("plain", [b"", b"plain", NOISE])
def test_a_cut_stream_is_an_error_wherever_it_is_cut(plain: bytes) -> None:
    packed = gzip.compress(plain)
    for kept in {*range(min(40, len(packed))), *range(len(packed) - 12, len(packed)), len(packed) // 2}:
        with pytest.raises(IntegrityError, match="x: the compressed stream is cut short"):
            inflate(packed[:kept])


@settings(deadline=None)
@given(st.data())
def test_an_altered_stream_never_gives_other_bytes_without_an_error(data: st.DataObject) -> None:
    packed = bytearray(gzip.compress(NOISE[:500] + b"z" * 500))
    position = data.draw(st.integers(10, len(packed) - 1))
    packed[position] ^= data.draw(st.integers(1, 255))
    try:
        plain = inflate(bytes(packed))
    except IntegrityError:
        return
    assert plain == NOISE[:500] + b"z" * 500


def test_nothing_is_no_stream() -> None:
    with pytest.raises(IntegrityError, match="cut short"):
        inflate(b"")


def test_what_is_not_gzip_is_an_error() -> None:
    with pytest.raises(IntegrityError, match="broken"):
        inflate(b"plain text")


def test_a_bomb_comes_in_small_pieces() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(deflate.compress(bytes(1024 * 1024)) for _ in range(64)) + deflate.flush()
    assert len(packed) < 100_000
    sizes = [len(piece) for piece in Inflater("x").pieces(packed)]
    assert (max(sizes), sum(sizes)) == (CHUNK, 64 * 1024 * 1024)


@settings(deadline=None)
@given(SHAPES, st.integers(1000, 100_000))
def test_a_reader_unpacks_in_pieces(shape: bytes | int, size: int) -> None:
    plain = content(shape)
    reader = GunzipReader(io.BytesIO(gzip.compress(plain)), origin="x")
    pieces = list(iter(lambda: reader.read(size), b""))
    assert all(len(piece) <= size for piece in pieces)
    assert b"".join(pieces) == plain


@settings(deadline=None)
@given(SHAPES, st.lists(st.integers(1, 300), min_size=1))
def test_a_reader_does_not_mind_a_source_that_drips(shape: bytes | int, sizes: list[int]) -> None:
    plain = content(shape)
    drips = iter(lambda: sizes[0], 0)
    assert GunzipReader(Dripping(gzip.compress(plain), drips), origin="x").read() == plain


def test_a_reader_of_a_cut_stream_does_not_end_as_if_it_were_whole() -> None:
    reader = GunzipReader(io.BytesIO(gzip.compress(NOISE)[:-1]), origin="key")
    with pytest.raises(IntegrityError, match="key: the compressed stream is cut short"):
        list(iter(lambda: reader.read(CHUNK), b""))


def test_a_reader_whose_source_fails_passes_that_on() -> None:
    class Failing:
        def read(self, size: int = -1, /) -> bytes:
            raise OSError("the cable broke")

    with pytest.raises(OSError, match="the cable broke"):
        GunzipReader(Failing(), origin="x").read(1)


def test_text_is_worth_compressing_and_noise_is_not() -> None:
    assert is_worth_compressing(b"some text " * 100)
    assert not is_worth_compressing(os.urandom(1000))
    assert not is_worth_compressing(gzip.compress(NOISE))


@pytest.mark.parametrize("sample", [b"", b"a", b"tiny"])
def test_what_would_grow_is_not_worth_it(sample: bytes) -> None:
    assert not is_worth_compressing(sample)
