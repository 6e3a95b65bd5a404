"""What tests of a prune share: a prune as the program runs it, and time that passes."""

from datetime import timedelta

import pytest

from s3bu.errors import (
    S3buError,
)
from s3bu.prune import Options, Outcome, run
from s3bu.repository.layout import MARKS
from s3bu.storage.memory import StoredObject
from tests.fakes import Listener, World, file_entry, key_of

NAMED, ORPHAN, OTHER = b"named", b"orphan", b"other"
FILES = [file_entry(b"a", NAMED)]


def pass_time(world: World, time: timedelta) -> None:
    """Let all that is stored have been put so much earlier."""
    objects = world.storage.objects
    for key, one in objects.items():
        objects[key] = StoredObject(one.body, one.metadata, one.etag, one.modified - time)


def pruned(world: World, *, is_dry: bool = False, is_original_stopped: bool = False) -> Outcome:
    return run(world.reopen(), Options(is_dry, is_original_stopped), Listener())


def marked(world: World, *, hours: float = 73) -> World:
    """Mark, and let hours pass."""
    pruned(world)
    pass_time(world, timedelta(hours=hours))
    return world


def contents(world: World) -> set[bytes]:
    return {one for one in (NAMED, ORPHAN, OTHER) if key_of(one) in world.storage.objects}


def marks(world: World) -> list[str]:
    return [key for key in world.storage.objects if key.startswith(MARKS)]


def nothing_moves(world: World, error: type[S3buError], words: str, **options: bool) -> S3buError:
    """Hold a prune to an error, and to have deleted nothing."""
    before = contents(world)
    with pytest.raises(error, match=words) as caught:
        pruned(world, **options)
    assert contents(world) == before
    return caught.value
