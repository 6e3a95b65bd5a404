"""What is parsed, from which examples, and what must hold of the outcome: texts that people write, keys, and state.

Manifests, and what is encrypted or comes from a server, stand in files of their own; `TARGETS` has all of them.
"""

import fcntl
import gzip
import io
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from s3bu.compression import GunzipReader, gzip_member
from s3bu.console.text import shown_line
from s3bu.crypto.identities import new_identity
from s3bu.errors import JobError, LockedError, S3buError
from s3bu.filters import Filters
from s3bu.job import parse_job
from s3bu.keyring import load_identities, load_secrets, new_secret
from s3bu.lock import hold
from s3bu.moment import parse_moment
from s3bu.pattern import compile_pattern, compile_regex
from s3bu.progress import Silent
from s3bu.remembered import Remembered
from s3bu.repository import layout
from s3bu.repository.recipients import RecipientSet
from s3bu.repository.state import read_marks
from s3bu.scan import Scan
from s3bu.selection import Selection
from s3bu.storage.place import S3Options, open_storage, parse_place
from tests.fuzz.encrypted import content_target, header_target, passphrase_target
from tests.fuzz.engine import Target
from tests.fuzz.manifests import indexed_target, manifest_target
from tests.fuzz.readers import BUCKETS, PieceReader, examples
from tests.fuzz.servers import answer_target, error_target, listing_target

_NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
_UNPACKED = 64 * 1024 * 1024
_MESSAGE = 1_000
"""No message that quotes a document of somebody else is longer, so that it cannot bury what matters."""

Making = Callable[[], AbstractContextManager[Target]]


@contextmanager
def target_of(name: str) -> Iterator[Target]:
    """Hold a target ready."""
    with TARGETS[name]() as target:
        yield target


# --- documents


@contextmanager
def job_target() -> Iterator[Target]:
    def run(document: bytes) -> None:
        for strict in (True, False):
            try:
                job = parse_job(document, name="home", origin="home.yml", strict=strict, directory=None)
            except JobError as error:
                assert error.problems
                assert all(len(problem) < _MESSAGE for problem in error.problems)
                assert all(len(shown_line(problem).splitlines()) == 1 for problem in error.problems)
            else:
                assert job.sources
                assert all(source.path.startswith(b"/") and b"\0" not in source.path for source in job.sources)

    tokens = b"sources: |path: |label: |skip_dirs: |- |&a |*a|<<: |!!str |! |%YAML 1.1\n|---\n|...\n|~|? |\\UFFFFFFFF"
    texts = [path.read_bytes() for path in sorted(Path("examples/jobs").glob("*.yml"))]
    seeds = [*texts, *examples("jobs/*/*.yml"), b"sources: [{path: /srv, label: srv}]\nskip_dirs: &a [x]\ns3bu: *a\n"]
    yield Target("job", run, seeds, tokens.split(b"|"))


def _check_silence(error: S3buError, document: bytes) -> None:
    """Hold an error, with all that caused it, to not a word of a document that may be a secret."""
    told = "".join(traceback.format_exception(error))
    for word in document.split():
        if len(word) >= 24:
            assert word.decode("utf-8", "replace") not in told
    assert len(error.message) < _MESSAGE


def _private_file(name: str, load: Callable[[Path], object], seeds: list[bytes], tokens: list[bytes]) -> Making:
    """Return the target of a file that only its user may read."""

    @contextmanager
    def made() -> Iterator[Target]:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "file"

            def run(document: bytes) -> None:
                path.write_bytes(document)
                path.chmod(0o600)
                try:
                    assert load(path)
                except S3buError as error:
                    _check_silence(error, document)
                    raise

            yield Target(name, run, seeds, tokens)

    return made


_SECRETS = [
    "".join(
        f"- id: {secret.id}\n  passphrase: {secret.passphrase}\n" for secret in [new_secret(), new_secret()]
    ).encode(),
    *(path.read_bytes() for path in sorted(BUCKETS.glob("*/secrets.yml"))),
    b"[{id: a, passphrase: 'b c'}, {passphrase: \"\\x41\", id: b}]",
]
_PLUGIN = b"AGE-PLUGIN-YUBIKEY-1QQPSQD0J6RK2FTQ9KLYQ\n"
_PEM = b"""-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACCWG9TJSbCOMQXWHRvAmZpXi3hYSDVV/vRTZBGhxrPSOwAAAJBqiYxEaomM
-----END OPENSSH PRIVATE KEY-----
"""
_IDENTITIES = [
    "\n".join(("# a comment", *new_identity(), new_identity()[0])).encode(),
    new_identity()[0].encode() + b"\n" + _PEM,
    _PLUGIN + new_identity()[0].encode(),
    *(path.read_bytes() for path in sorted(BUCKETS.glob("*/identities.txt"))),
]
_RECIPIENTS = [
    new_identity()[1].encode() + b"\n",
    b"# those\n\n" + new_identity()[1].encode() + b"\r\n" + new_identity()[1].encode(),
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJYb1MlJsI4xBdYdG8CZmleLeFhINVX+9FNkEaHGs9I7 me@here\n",
    b"age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt\n",
]


@contextmanager
def recipients_target() -> Iterator[Target]:
    def run(document: bytes) -> None:
        try:
            found = RecipientSet.parse({"repo/recipients.txt": document.decode("utf-8", "replace")})
        except S3buError as error:
            _check_silence(error, document)
            raise
        assert RecipientSet.parse({"x": "\n".join(one.text for one in found.recipients)}) == found

    yield Target("recipients", run, _RECIPIENTS, [b"age1", b"age1tag1", b"ssh-rsa AAAA", b"AGE-SECRET-KEY-1", b"#"])


# --- what is typed


@contextmanager
def moment_target() -> Iterator[Target]:
    def run(document: bytes) -> None:
        moment = parse_moment(os.fsdecode(document), now=_NOW)
        assert moment.utcoffset() == timedelta(0)

    dates = [b"2026-05-01", b"2026-05-01T12:00", b"2026-05-01 12:00:30.123456+02:00", b"0001-01-01T00:00Z"]
    ages = [b"3d", b"12h", b"1y", b"999999y", b"9999-12-31", b"2026-02-30T24:00:60-00:00"]
    yield Target("moment", run, [*dates, *ages], [b"T", b"Z", b"+0200", b"-23:59", b"W01", b"m", b"h", b"w"])


@contextmanager
def pattern_target() -> Iterator[Target]:
    path = b"letters/2026/a letter [1] to you.odt"

    def run(document: bytes) -> None:
        text = os.fsdecode(document[:2000])
        for compile_one in (compile_regex, compile_pattern):
            try:
                pattern = compile_one(text)
            except S3buError:
                continue
            # What an expression or a lot of stars does to a path is what was asked for.
            if compile_one is compile_pattern and not text.startswith("re:") and text.count("*") <= 4:
                pattern.search(path)

    seeds = [b"*.odt", b"letters/**/[!a-c]?.odt", b"re:^letters/.*[.]odt$", b"**/x", b"[]a]", b"re:(?P<a>x)(?P=a){2,3}"]
    yield Target("pattern", run, seeds, [b"[", b"]", b"[!", b"**/", b"(?", b"{99999999999}", b"(" * 500, b"\\x", b"|"])


@contextmanager
def ignore_target() -> Iterator[Target]:
    """Walk a tree whose ignore file holds anything: every path is there or was left out, in time."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for path in ("a" * 250, "letters/2026/a letter [1] to you.odt", "letters/!#.tmp", "/".join(["a"] * 40)):
            (root / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / "tree" / path).touch()
        filters = Filters(selection=Selection(ignore_files=(b".s3buignore",)))

        def run(document: bytes) -> None:
            (root / "tree" / ".s3buignore").write_bytes(document)
            skipped: list[bytes] = []
            scan = Scan(os.fsencode(root / "tree"), filters, tell=lambda one: skipped.append(one.path))
            found = [item.path for item in scan]
            assert found or skipped
            assert not set(found) & set(skipped)

        seeds = [b"*.tmp\n!keep.tmp\n/build/\n", b"**/a/**\n\\#x\n[!a-c]?[[:alpha:]]*\n", b"doc/**/*.pdf\r\n a \\ \n"]
        tokens = b"**/|/**|*a*|[!a]|[[:digit:]]|[|]|\\|!|#|\n|\r|\xff|\0|?"
        yield Target("ignore", run, seeds, tokens.split(b"|"))


@contextmanager
def place_target() -> Iterator[Target]:
    def run(document: bytes) -> None:
        place = parse_place(os.fsdecode(document[:10_000]))  # a path longer than the system takes, by far
        if place.kind == "directory":
            assert os.path.isabs(place.path)
            assert "\0" not in place.path
            open_storage(place, S3Options()).exists()
        else:
            assert place.bucket.isascii()
            assert not {"", ".", ".."} & set(place.prefix.split("/") if place.prefix else ["x"])

    seeds = [b"my-bucket", b"s3://my-bucket/a/prefix", b"/a/path", b"./a", b"~/a", b"~root/x", b"file:///a%20b", b".."]
    yield Target("place", run, seeds, [b"s3://", b"file://localhost/", b"FILE://", b"%00", b"..", b"~", b"http://"])


@contextmanager
def keys_target() -> Iterator[Target]:
    def run(document: bytes) -> None:
        key = document[:5000].decode("utf-8", "surrogateescape")
        manifest, job, content = (
            layout.parse_manifest_key(key),
            layout.parse_job_key(key),
            layout.parse_content_key(key),
        )
        if manifest is not None:
            assert str(manifest) == key
            following = layout.next_manifest_key(manifest.job, manifest.label, manifest, datetime(2026, 1, 1))
            assert following > manifest
            assert str(following) > key
        if job is not None:
            assert layout.job_key(*job) == key
        if content is not None:
            assert layout.content_key(content) == key
            assert len(bytes.fromhex(content)) == 32

    stored = {
        os.fsencode(path.relative_to(path.parents[len(path.parts) - path.parts.index("objects") - 2]))
        for path in BUCKETS.rglob("objects/**/*")
        if path.is_file()
    }
    long = b"manifests/j/" + b"a/" * 1500 + b"/j-a-2026-01-01-00001.csv.gz"
    newest = b"manifests/j/a/j-a-9999-12-31-99998.csv.gz"
    yield Target("keys", run, [*sorted(stored), long, newest], [b"jobs/", b"manifests/", b"data/", b"-99999.csv.gz"])


# --- state


@contextmanager
def remembered_target() -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as directory:
        remembered = Remembered(Path(directory), "place")
        remembered.pin_recipients("AAAA-BBBB")
        seed = remembered.path.read_bytes()

        def run(document: bytes) -> None:
            remembered.path.write_bytes(document)
            facts = Remembered(Path(directory), "place").facts
            assert facts.repository == "place"
            assert facts.recipients is None or isinstance(facts.recipients, str)
            assert facts.has_conditional_writes in (None, True, False)
            assert not isinstance(facts.has_conditional_writes, int | float) or facts.has_conditional_writes in (0, 1)

        seeds = [seed, seed.replace(b"null", b"true")]
        yield Target("remembered", run, seeds, [b"null", b"true", b"[]", b'"recipients":', b'{"a":' * 2000, b"1e999"])


@contextmanager
def lock_target() -> Iterator[Target]:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        with hold(home, "place", "home", Silent()):
            (path,) = (home / "locks").iterdir()
            seed = path.read_bytes()
        with path.open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)

            def run(document: bytes) -> None:
                file.truncate(0)
                os.pwrite(file.fileno(), document, 0)
                try:
                    with hold(home, "place", "home", Silent()):
                        raise AssertionError("the lock is held already")
                except LockedError as error:
                    assert len(error.message) < _MESSAGE

            yield Target("lock", run, [seed], [b"null", b"[]", b"[" * 3000, b'{"a":' * 800, b"1e999", b"-Infinity"])


@contextmanager
def marks_target() -> Iterator[Target]:
    def run(document: bytes) -> None:
        outcomes = []
        for reader in (io.BytesIO(document), PieceReader(document, 1000)):
            try:
                outcomes.append(list(read_marks(reader, "repo/marks/x")))
            except S3buError as error:
                assert len(error.message) < _MESSAGE
                outcomes.append([error.message.encode()])
        assert outcomes[0] == outcomes[1]

    line = bytes(range(32)).hex().encode() + b"\n"
    yield Target("marks", run, [b"# s3bu\n\n" + line * 3, line * 1000, line[:-1]], [line, b"#", line.upper()])


@contextmanager
def gunzip_target() -> Iterator[Target]:
    def run(document: bytes) -> None:
        reader = GunzipReader(PieceReader(document, 5000), origin="x")
        nbytes = 0
        pieces = []
        while piece := reader.read(100_000):
            nbytes += len(piece)
            if nbytes > _UNPACKED:
                return
            pieces.append(piece)
        assert document == b"" or b"".join(pieces) == gzip.decompress(document)

    text = b"a line of text\n" * 1000
    seeds = [
        gzip_member(text),
        gzip_member(b"a") + gzip_member(b"") + gzip_member(b"b"),
        gzip.compress(os.urandom(999)),
    ]
    bomb = gzip.compress(bytes(4 * 1024 * 1024))
    yield Target("gunzip", run, [*seeds, bomb, gzip_member(b"") * 200], [b"\x1f\x8b", b"\x1f\x8b\x08\x04", bomb[:500]])


_YAML = b"- id: |passphrase: |- {|[|]|&a |*a|!!binary |? |\\UFFFFFFFF|---\n|'|~".split(b"|")
_AGE = [b"AGE-SECRET-KEY-1", b"AGE-PLUGIN-X-1", b"-----BEGIN X-----\n", b"-----END X-----\n", b"age1", b"#", _PEM]

TARGETS: Mapping[str, Making] = {
    "answer": answer_target,
    "content": content_target,
    "error": error_target,
    "gunzip": gunzip_target,
    "header": header_target,
    "identities": _private_file("identities", load_identities, _IDENTITIES, _AGE),
    "ignore": ignore_target,
    "indexed": indexed_target,
    "job": job_target,
    "keys": keys_target,
    "listing": listing_target,
    "lock": lock_target,
    "manifest": manifest_target,
    "marks": marks_target,
    "moment": moment_target,
    "passphrase": passphrase_target,
    "pattern": pattern_target,
    "place": place_target,
    "recipients": recipients_target,
    "remembered": remembered_target,
    "secrets": _private_file("secrets", load_secrets, _SECRETS, _YAML),
}
