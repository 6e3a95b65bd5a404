"""Verify: whether each snapshot could come back whole, and which could not, for want of what.

By one listing, and by size; contents are read where that is asked for. What is found is told in the words of who needs
it: paths and snapshots. `contents` compares what is needed with what is stored, `reading` reads, `live` knows the files
that are still there, `report` says what of it concerns whom.
"""

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime

from s3bu.errors import IntegrityError, JobNotFoundError, ObjectNotFound, PassphraseNotFoundError, S3buError
from s3bu.index import Index, IndexedSnapshot
from s3bu.progress import Progress
from s3bu.repository import Repository
from s3bu.repository.layout import parse_manifest_key
from s3bu.repository.naming import no_label, no_snapshots
from s3bu.size import Share
from s3bu.verify.contents import DAMAGE, Tally, check, tell_index
from s3bu.verify.live import Compared, Live, compare, repair
from s3bu.verify.reading import Read, read
from s3bu.verify.report import Broken, Standing, counts, standings

SOUND, DAMAGED, INCOMPLETE = 0, 1, 3
"""Exit codes: all is well; something cannot come back; something was repaired, or nobody can say."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to look at (all jobs, one, or one label of it), and how closely.

    `reads` and `compares` are shares of the contents to read, and of the live files to compare. A newest snapshot from
    before `oldest` is too old.
    """

    job: str | None = None
    label: str | None = None
    reads: Share | None = None
    compares: Share | None = None
    is_repairing: bool = False
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True)
class Manifests:
    """Keys of manifests, as bringing the index up to date found them: read whole just now, gone, altered.

    `locked` are those of which no passphrase is at hand.
    """

    taken: Sequence[str] = ()
    vanished: Sequence[str] = ()
    altered: Sequence[str] = ()
    locked: AbstractSet[str] = frozenset()


@dataclass(slots=True)
class Report:
    """What came of it. `problems` and `repaired` count contents by what is or was wrong with them.

    `errors` ended a part of it: what was found until then is told all the same.
    """

    tally: Tally = field(default_factory=Tally)
    broken: list[Broken] = field(default_factory=list)
    problems: dict[str, int] = field(default_factory=dict)
    repaired: int = 0
    standings: list[Standing] = field(default_factory=list)
    read: Read | None = None
    compared: Compared | None = None
    errors: list[S3buError] = field(default_factory=list)
    nmanifests_read: int = 0

    @property
    def is_damaged(self) -> bool:
        """Whether something was found that cannot come back; the exit code does not tell, since most errors have 1."""
        has_damage = any(one.is_damage for one in self.broken) or any(one in DAMAGE for one in self.problems)
        return has_damage or bool(self.compared and self.compared.differing)

    @property
    def exit_code(self) -> int:
        """0 when all is sound, 1 when something is damaged, 3 when something was repaired or cannot be known.

        Without damage, an error that ended a part has its own.
        """
        if self.is_damaged:
            return DAMAGED
        if self.errors:
            return self.errors[0].exit_code
        is_open = self.broken or self.problems or self.repaired or any(one.is_too_old for one in self.standings)
        return INCOMPLETE if is_open or (self.compared and self.compared.has_gaps) else SOUND


def run(
    repository: Repository,
    index: Index,
    manifests: Manifests,
    live: Sequence[Live],
    options: Options,
    progress: Progress,
) -> Report:
    """Verify what the index, which was brought up to date just now, says that the repository holds.

    `live` are the sources that this machine has, for the options that need them. `JobNotFoundError` and `UsageError`
    when there is no snapshot of the job or label; `KeyringError` when contents are to be read without identities.
    """
    return _Verify(repository, index, manifests, options, progress).run(list(live))


class _Verify:
    """One verification under way."""

    def __init__(
        self, repository: Repository, index: Index, manifests: Manifests, options: Options, progress: Progress
    ) -> None:
        self._repository = repository
        self._index = index
        self._manifests = manifests
        self._options = options
        self._progress = progress
        self._report = Report()

    def run(self, live: list[Live]) -> Report:
        options, report = self._options, self._report
        if options.reads:
            _ = self._repository.keyring.identities  # says so before anything else when there are none
        sources = self._sources()
        self._note_manifests(sources)
        keeps_all = options.reads is not None
        report.tally = check(self._repository, self._index, list(sources), self._progress, keeps_all=keeps_all)
        self._look_closer([one for one in live if one.source in sources], sources)
        tell_index(self._index)
        report.problems, report.repaired = counts(self._index)
        report.standings = standings(self._index, sources, report.broken, options.oldest)
        return report

    def _look_closer(self, live: list[Live], sources: dict[int, tuple[str, str]]) -> None:
        """Read, compare and repair as far as that is asked for; an error ends this part, and is kept."""
        options, report = self._options, self._report
        try:
            if options.reads:
                self._read_manifests(options.reads, sources)
                report.read = read(self._repository, self._index, options.reads, self._progress)
            if options.compares:
                report.compared = compare(self._index, live, options.compares, self._progress)
            if options.is_repairing and live:
                repair(self._repository, self._index, live, self._progress)
        except S3buError as error:
            report.errors.append(error)

    # --- snapshots

    def _sources(self) -> dict[int, tuple[str, str]]:
        """Return job and label of the chosen sources by their numbers in the index."""
        job, label = self._options.job, self._options.label
        rows = self._index.connection.execute(
            "SELECT id, job, label FROM source so WHERE EXISTS (SELECT 1 FROM snapshot WHERE source = so.id) "
            "ORDER BY job, label"
        )
        found = {number: (of_job, of_label) for number, of_job, of_label in rows if job in (None, of_job)}
        lost = [parse_manifest_key(key) for key in self._manifests.vanished]
        if job is not None and not found and not any(key and key.job == job for key in lost):
            raise no_snapshots(self._repository, job)
        if not found and not lost:
            raise JobNotFoundError(
                f"{self._repository.storage.url}: there is no snapshot to verify", hint="is it the right place?"
            )
        chosen = {number: names for number, names in found.items() if label in (None, names[1])}
        if job is not None and label is not None and not chosen and not any(key and key.label == label for key in lost):
            raise no_label(job, label, [of_label for _, of_label in found.values()])
        return chosen

    def _is_chosen(self, key: str) -> bool:
        parsed = parse_manifest_key(key)
        names = (parsed.job, parsed.label) if parsed else ("", "")
        return self._options.job in (None, names[0]) and self._options.label in (None, names[1])

    def _note_manifests(self, sources: dict[int, tuple[str, str]]) -> None:
        broken = self._report.broken
        for snapshot in self._index.snapshots():
            if snapshot.source in sources and snapshot.error is not None:
                make = Broken.locked if snapshot.key in self._manifests.locked else Broken.unreadable
                broken.append(make(snapshot.key, snapshot.error))
        noted = {one.key for one in broken}
        altered = [key for key in self._manifests.altered if self._is_chosen(key) and key not in noted]
        broken.extend(Broken.altered(key) for key in altered)
        broken.extend(Broken.vanished(key) for key in self._manifests.vanished if self._is_chosen(key))
        with self._index.transaction():
            for key in self._manifests.taken:
                self._note_read(key)

    def _note_read(self, key: str) -> None:
        self._index.connection.execute("UPDATE snapshot SET read_s = ? WHERE key = ?", (int(time.time()), key))

    def _read_manifests(self, share: Share, sources: dict[int, tuple[str, str]]) -> None:
        """Read a share of the manifests again, what was not read for the longest time first."""
        snapshots = {one.key: one for one in self._index.snapshots() if one.source in sources and one.error is None}
        fresh = set(self._manifests.taken)
        order = self._index.connection.execute("SELECT key FROM snapshot ORDER BY read_s NULLS FIRST, key").fetchall()
        keys = [key for (key,) in order if key in snapshots and key not in fresh]
        chosen = keys[: Share(share.fraction_of(self._report.tally.nbytes_stored)).of(len(keys))]
        self._progress.phase("reading manifests", files=len(chosen), noun="snapshot")
        for key in chosen:
            self._read_manifest(snapshots[key])
            self._progress.advance(files=1)

    def _read_manifest(self, snapshot: IndexedSnapshot) -> None:
        try:
            self._read_whole(snapshot.key)
        except ObjectNotFound:
            self._report.broken.append(Broken.vanished(snapshot.key))
        except IntegrityError as error:
            self._report.broken.append(Broken.unreadable(snapshot.key, error.message))
            self._doubt(snapshot.key)
        except PassphraseNotFoundError as error:
            self._report.broken.append(Broken.locked(snapshot.key, error.message))
        else:
            self._report.nmanifests_read += 1
            self._note_read(snapshot.key)

    def _read_whole(self, key: str) -> None:
        """Read a manifest to its end; what comes out wrong is read once more, since a line may err too."""
        try:
            _read_through(self._repository, key)
        except IntegrityError:
            _read_through(self._repository, key)

    def _doubt(self, key: str) -> None:
        """Let the index read a manifest anew, and find what is wrong with it, when it is brought up to date."""
        self._index.connection.execute("UPDATE snapshot SET etag = '' WHERE key = ?", (key,))


def _read_through(repository: Repository, key: str) -> None:
    """Read a manifest to its end, where it shows whether it is whole."""
    parsed = parse_manifest_key(key)
    assert parsed is not None
    with repository.open_manifest(parsed) as (reader, _):
        for _item in reader:
            pass
