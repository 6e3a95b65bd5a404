"""Mounts are seen where no event tells of them, and what can never be watched whole is said; plays in `alone`."""

from pathlib import Path

import pytest

from tests.running import IS_CI, IS_ROOT
from tests.test_watch import alone

needs_root = pytest.mark.skipif(not IS_ROOT and not IS_CI, reason="mounting needs root")

SCENARIOS = [
    alone.mount_in_the_source,
    alone.mount_in_what_is_left_out,
    alone.mount_over_the_source,
    alone.unmount_in_secret,
    alone.bind_mount,
    alone.overlay,
    alone.mounted_file,
    alone.covered_mounts,
    alone.missing_source_that_is_mounted,
]


@needs_root
@pytest.mark.parametrize("scenario", [one.__name__ for one in SCENARIOS])
def test_what_is_mounted_is_seen(scenario: str, tmp_path: Path) -> None:
    alone.play(scenario, tmp_path, *alone.OWN_MOUNTS)
