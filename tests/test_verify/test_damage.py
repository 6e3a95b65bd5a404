"""Repositories with a random past, damaged at random: all of it is found, what can be is repaired, nothing false comes.

A case is a source with two labels and three snapshots of each, some compressed, some of whose contents are shared;
then a few kinds of damage. A model that looks at the bytes alone says what must be found.
"""

import contextlib
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from s3bu.errors import IntegrityError, NoIdentityError
from s3bu.repository import layout
from s3bu.repository.layout import ManifestKey
from s3bu.restore import plan_restore
from s3bu.restore import run as run_restore
from s3bu.restore.target import Target
from s3bu.storage import ObjectStat
from s3bu.storage.memory import StoredObject
from tests.fakes import IN_MEMORY, OLD, Listener, World, check_content, hash_of
from tests.rounds import rounds
from tests.test_backup.runs import run
from tests.test_verify.verifying import ALL, Verified, snapshots_of, verify

CASES = 200
SHARDS = 20
NAMES = ("a", "b", "c", "d/a", "d/b", "d/e/c")
LABELS = ("docs", "pics")


@dataclass(slots=True)
class Case:
    """A world with a past, before anything is damaged: what each snapshot holds by label and key."""

    world: World
    random: random.Random
    past: dict[str, dict[str, dict[bytes, str]]] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    readable: dict[str, dict[str, dict[bytes, str]]] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)

    def content(self) -> bytes:
        """Return a content: small, of some thousand bytes that pack well, or ones that do not; often one of few."""
        chosen = self.random.randrange(8)
        text = b"content %d " % chosen
        return (text, text * 300, random.Random(chosen).randbytes(3000))[chosen % 3]

    def live(self) -> dict[str, bytes]:
        source = self.world.source
        return {str(path.relative_to(source)): path.read_bytes() for path in source.rglob("*") if path.is_file()}

    def make(self) -> None:
        for number in range(3):
            for name in self.random.sample(NAMES, 4 if number == 0 else 2):
                path = self.world.source / name
                if number and self.random.random() < 0.3:
                    path.unlink(missing_ok=True)
                else:
                    self.world.write(name, self.content(), mtime=OLD + self.random.randrange(10**6))
            run(self.world, job=self.world.job(labels=LABELS), compress=self.random.random() < 0.5)
        self.past = {label: snapshots_of(self.world, label) for label in LABELS}

    @property
    def objects(self) -> dict[str, StoredObject]:
        return self.world.storage.objects

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix) and "/.s3bu/" not in key)

    def spoil(self, key: str, body: bytes, *, keeps_metadata: bool = True) -> None:
        self.objects[key] = StoredObject(body, self.objects[key].metadata if keeps_metadata else {})

    # --- what must be found

    def look(self) -> None:
        """Look at the bytes: which snapshots can be read, by label, and which contents are not what they should be."""
        self.readable = {label: dict(self._readable(label)) for label in LABELS}
        needed = {one for snapshots in self.past.values() for files in snapshots.values() for one in files.values()}
        self.bad = {content_hash for content_hash in needed if self._is_bad(content_hash)}

    def _readable(self, label: str) -> Iterator[tuple[str, dict[bytes, str]]]:
        for key in self.world.manifest_keys(label):
            with contextlib.suppress(IntegrityError):
                self.world.repository.read_snapshot(key)
                yield str(key), self.past[label][str(key)]

    def _is_bad(self, content_hash: str) -> bool:
        if layout.content_key(content_hash) not in self.objects:
            return True
        try:
            check_content(self.world.repository, content_hash)
        except (IntegrityError, NoIdentityError, AssertionError):
            return True
        return False


def _delete_object(case: Case) -> None:
    del case.objects[case.random.choice(case.keys("data/"))]


def _empty_object(case: Case) -> None:
    case.spoil(case.random.choice(case.keys("data/")), b"")


def _cut_object(case: Case) -> None:
    key = case.random.choice(case.keys("data/"))
    body = case.objects[key].body
    case.spoil(key, body[: case.random.randrange(len(body))])


def _swap_objects(case: Case) -> None:
    one, other = case.random.sample(case.keys("data/"), 2) if len(case.keys("data/")) > 1 else ("", "")
    if one:
        case.objects[one], case.objects[other] = case.objects[other], case.objects[one]


def _fill_object_with_garbage(case: Case) -> None:
    key = case.random.choice(case.keys("data/"))
    nbytes = case.random.choice([len(case.objects[key].body), 1, 5000])
    case.spoil(key, case.random.randbytes(nbytes), keeps_metadata=case.random.random() < 0.5)


def _flip_a_bit(case: Case) -> None:
    key = case.random.choice(case.keys("data/"))
    body = bytearray(case.objects[key].body)
    if body:
        body[case.random.randrange(len(body))] ^= 1 << case.random.randrange(8)
    case.spoil(key, bytes(body))


def _lose_metadata(case: Case) -> None:
    for key in case.keys("data/"):
        case.spoil(key, case.objects[key].body, keeps_metadata=False)


def _cut_manifest(case: Case) -> None:
    key = case.random.choice(case.keys("manifests/"))
    body = case.objects[key].body
    case.spoil(key, body[: case.random.randrange(max(len(body), 1))])


def _put_an_older_manifest_in_the_place_of_a_newer_one(case: Case) -> None:
    older, newer = sorted(case.random.sample(case.keys("manifests/home/docs/"), 2))
    case.spoil(newer, case.objects[older].body)


def _move_a_manifest_to_another_label(case: Case) -> None:
    key = layout.parse_manifest_key(case.random.choice(case.keys("manifests/home/docs/")))
    assert key is not None
    case.objects[str(replace(key, label="pics", second=99_999))] = case.objects.pop(str(key))


def _delete_manifest(case: Case) -> None:
    del case.objects[case.random.choice(case.keys("manifests/home/pics/"))]


DAMAGE: list[Callable[[Case], None]] = [
    _delete_object,
    _empty_object,
    _cut_object,
    _swap_objects,
    _fill_object_with_garbage,
    _flip_a_bit,
    _lose_metadata,
    _cut_manifest,
    _put_an_older_manifest_in_the_place_of_a_newer_one,
    _move_a_manifest_to_another_label,
    _delete_manifest,
]


@pytest.mark.parametrize("shard", range(SHARDS))
def test_damage_is_found_and_repaired_and_nothing_false_comes_back(shard: int) -> None:
    for number in range(shard, rounds(CASES), SHARDS):
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root:
            case = Case(World.make(Path(root)), random.Random(number))
            try:
                _play(case, is_first_contact=number % 3 == 0)
            except BaseException as error:
                error.add_note(f"case {number}: {case.damage}")
                raise


def _play(case: Case, *, is_first_contact: bool) -> None:
    """Damage a repository and verify it, by the machine that made it or one that sees it for the first time."""
    case.make()
    home = "another machine" if is_first_contact else "state"
    for damage in case.random.choices(DAMAGE, k=case.random.randrange(1, 4)):
        damage(case)
        case.damage.append(damage.__name__)
    case.look()
    listed = verify(case.world, home=home, labels=LABELS)
    _check_listed(case, listed)
    read = verify(case.world, home=home, labels=LABELS, reads=ALL)
    _check_found(case, read, home)
    _check_manifests(case, listed, knows_all=not is_first_contact)
    # What was read is remembered, so that a listing is enough to repair all of it.
    repaired = verify(case.world, home=home, labels=LABELS, repairs=True)
    case.look()
    _check_repaired(case, read, repaired)
    _check_restored(case)


def _needs(verified: Verified) -> set[tuple[str, bytes, str]]:
    """Return the paths that are named as damaged, each with all keys between the first and the last snapshot told."""
    found = set()
    for fault in verified.faults:
        if fault.problem not in ("unverified", "archived", "unreadable") and not fault.is_repaired:
            found.add((fault.label, fault.path, f"{fault.first.key} {fault.last.key} {fault.nsnapshots}"))
    return found


def _expected(case: Case) -> set[tuple[str, bytes, str]]:
    """Return the same from the bytes: each stretch of readable snapshots that have a path with a damaged content."""
    found = set()
    for label, snapshots in case.readable.items():
        keys = sorted(snapshots, key=_order)
        for path in {path for files in snapshots.values() for path in files}:
            found |= {(label, path, one) for one in _stretches(case, path, [(key, snapshots[key]) for key in keys])}
    return found


def _order(key: str) -> ManifestKey:
    parsed = layout.parse_manifest_key(key)
    assert parsed is not None
    return parsed


def _stretches(case: Case, path: bytes, snapshots: list[tuple[str, dict[bytes, str]]]) -> list[str]:
    stretches: list[list[str]] = []
    before = None
    for key, files in snapshots:
        content_hash = files.get(path)
        if content_hash is None or content_hash not in case.bad:
            before = None
            continue
        if content_hash == before:
            stretches[-1].append(key)
        else:
            stretches.append([key])
        before = content_hash
    return [f"{keys[0]} {keys[-1]} {len(keys)}" for keys in stretches]


def _per_snapshot(case: Case, needs: set[tuple[str, bytes, str]]) -> set[tuple[str, bytes, str]]:
    """Return path and snapshot one by one: a file whose mode or time changed makes two stretches of one."""
    found = set()
    for label, path, told in needs:
        first, last, number = told.split()
        keys = sorted(case.readable[label], key=_order)
        between = keys[keys.index(first) : keys.index(last) + 1]
        assert len(between) == int(number)
        found |= {(label, path, key) for key in between}
    return found


def _check_found(case: Case, verified: Verified, home: str) -> None:
    expected = _per_snapshot(case, _expected(case))
    assert _per_snapshot(case, _needs(verified)) == expected, home
    assert verified.report.problems.get("unverified", 0) == 0
    whole = {
        label: len(snapshots) - len({key for of_label, _, key in expected if of_label == label})
        for label, snapshots in case.readable.items()
    }
    assert {one.label: one.nwhole for one in verified.report.standings} == {
        label: number for label, number in whole.items() if case.keys(f"manifests/home/{label}/")
    }
    if any(fault.problem != "unopened" for fault in verified.faults):
        assert verified.code == 1


def _check_listed(case: Case, verified: Verified) -> None:
    """A listing accuses nothing that is right, and finds all that is missing or shorter than any object can be."""
    told = {fault.hash for fault in verified.faults if fault.problem in ("missing", "empty", "cut", "damaged")}
    assert all(content_hash in case.bad for content_hash in told)
    needed = {one for snapshots in case.readable.values() for files in snapshots.values() for one in files.values()}
    listed = {layout.parse_content_key(found.key): found for found in case.world.storage.list("data/")}
    assert {one for one in needed if _is_plainly_bad(listed.get(one))} <= told
    if told:
        assert verified.code == 1


def _is_plainly_bad(found: ObjectStat | None) -> bool:
    return found is None or found.nbytes < 200


def _check_manifests(case: Case, listed: Verified, *, knows_all: bool) -> None:
    """Every manifest that cannot be read is named, and those that are gone, where this machine knew them."""
    there = set(case.keys("manifests/"))
    readable = {key for snapshots in case.readable.values() for key in snapshots}
    assert {key for key, problem in listed.broken.items() if problem == "unreadable"} == there - readable
    known = {key for snapshots in case.past.values() for key in snapshots}
    vanished = {key for key, problem in listed.broken.items() if problem == "vanished"}
    assert vanished == (known - there if knows_all else set())
    if listed.broken:
        assert listed.code == (
            1 if there - readable or listed.report.problems.keys() & {"missing", "cut"} else listed.code
        )


def _check_repaired(case: Case, read: Verified, verified: Verified) -> None:
    """What the source still has is right again, nothing else is claimed to be, and nothing is forgotten."""
    assert {(fault.path, fault.hash) for fault in read.faults} == {
        (fault.path, fault.hash) for fault in verified.faults
    }
    live = {hash_of(content) for content in case.live().values()}
    assert {fault.hash for fault in verified.faults if fault.is_repaired} <= live
    at_hand = {(os.fsencode(name), hash_of(content)) for name, content in case.live().items()}
    needed = {one for snapshots in case.readable.values() for files in snapshots.values() for one in files.items()}
    assert not [one for one in needed & at_hand if one[1] in case.bad]


def _check_restored(case: Case) -> None:
    """Restore the newest readable snapshot of a label: each file is what it was, or a failure."""
    label = case.random.choice(LABELS)
    snapshots = case.readable[label]
    if not snapshots:
        return
    key = max(snapshots, key=_order)
    target = case.world.root / "target"
    shutil.rmtree(target, ignore_errors=True)
    plan = plan_restore(case.world.repository.read_snapshot(_order(key)))
    with Target(os.fsencode(target), is_filled_fine=False, overwrites=False, mode_mask=0o777) as opened:
        outcome = run_restore(case.world.reopen(), plan, opened, Listener())
    failed = {failure.path for failure in outcome.failures}
    restored = {
        os.fsencode(path.relative_to(target)): hash_of(path.read_bytes())
        for path in target.rglob("*")
        if path.is_file()
    }
    assert restored == {path: one for path, one in snapshots[key].items() if path not in failed}
    assert failed == {path for path, one in snapshots[key].items() if one in case.bad}
