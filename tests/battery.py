"""Every command, run once, and some so that they fail: what tests of the output share."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.fakes import without_override
from tests.running import Argument, Result, Scene, run, write_file, write_job


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and under which heading its summary is documented."""

    heading: str
    words: tuple[Argument, ...]
    result: Result


def every_command(scene: Scene, *options: str) -> Iterator[Said]:
    """Run every command in a repository that was backed up once, and some so that they fail."""

    def say(heading: str, *words: Argument) -> Said:
        return Said(heading, words, run(*words, *(option for option in options if option not in words)))

    repository, job = scene.repository, scene.job
    target = scene.target
    odd = os.fsdecode(b"\xff")
    yield say("", "init", repository)
    yield say("summary of job check", "job", "check", job)
    yield say("", "job", "check", write_file(scene.target.parent / "bad.yml", "sources: 3\nnonsense: 1\n"))
    yield say("summary of job upload, job edit and job download", "job", "upload", repository, "home", job)
    yield say("summary of job upload, job edit and job download", "job", "edit", repository, "home")
    out = target.parent / "out.yml"
    yield say("summary of job upload, job edit and job download", "job", "download", repository, "home", "-o", out)
    yield say("", "job", "show", repository, "home")
    yield say("", "job", "list", repository)
    write_file(scene.source / odd, "odd")
    write_file(scene.source / "copy", "odd")
    write_file(scene.source / f"secret{odd}", "unreadable").chmod(0)
    os.symlink(odd, scene.source / "odd link")
    yield say("summary of plan", "plan", repository, job)
    yield say("", "plan", repository, job, "--explain", odd)
    with without_override():
        yield say("summary of backup", "backup", repository, job, "-v")
    yield say("", "backup", repository, write_file(target.parent / "gone.yml", "sources:\n- {path: /no, label: no}\n"))
    yield say("", "watch", repository, job, "--once")
    yield say("", "status", repository)
    yield say("", "snapshots", repository)
    yield say("", "ls", repository, "home/src")
    yield say("summary of restore", "restore", repository, "home/src", target, "-v")
    yield say("summary of restore", "restore", repository, "home/src", target, "-c")
    yield say("summary of download", "download", repository, "repo/recipients.txt", target.parent)
    yield say("summary of index sync and index rebuild", "index", "sync", repository)
    yield say("summary of index sync and index rebuild", "index", "rebuild", repository)
    yield from _search(scene, say)
    yield from _verify(scene, say)
    yield from _what_deletes(scene, say)
    yield say("", "index", "path", repository)
    fingerprint = json.loads(run("keys", "list", repository, "--json").out)["fingerprint"]
    yield say("", "keys", "list", repository)
    yield say("summary of keys accept", "keys", "accept", repository, fingerprint)
    (scene.repository / scene.manifests()[0]).write_bytes(b"no manifest")
    yield say("", "snapshots", repository)
    yield say("", "ls", repository, "home/nothing")
    yield say("", "nonsense")


def _search(scene: Scene, say: Callable[..., Said]) -> Iterator[Said]:
    """Ask the index."""
    repository = scene.repository
    yield say("", "index", "status", repository)
    yield say("", "find", repository, "*")
    yield say("", "history", repository, "a")
    write_file(scene.source / f"since{os.fsdecode(bytes([255]))}", "since")
    run("job", "upload", repository, "home", write_job(scene.root / "whole.yml", {"src": scene.source}))
    yield say("", "diff", repository, "home/src", "now")
    for asked in ((), ("--growth", "1d"), ("--largest",), ("--duplicates",)):
        yield say("", "du", repository, *asked)
    yield say("", "query", repository, "--tables")
    yield say("", "query", repository, "SELECT path, path_raw FROM versions")
    yield say("", "query", repository, "SELECT nothing FROM nowhere")
    chosen = "SELECT path_raw, hash FROM files WHERE kind = 'file'"
    yield say("summary of restore", "restore", repository, chosen, scene.target, "-c")


def _verify(scene: Scene, say: Callable[..., Said]) -> Iterator[Said]:
    """Verify a repository in which a content is missing, and one is not what it should be; and then a sound one."""
    heading, repository = "summary of verify", scene.repository
    scene.object_of("odd").unlink()
    yield say(heading, "verify", repository, scene.job)
    scene.put_content(b"CONTENT OF B", at=b"content of b")
    write_file(scene.source / os.fsdecode(b"\xff"), "ODD")
    yield say(heading, "verify", repository, scene.job, "--read-data", "all", "--against-source", "all", "--repair")
    write_file(scene.source / os.fsdecode(b"\xff"), "odd")


def _what_deletes(scene: Scene, say: Callable[..., Said]) -> Iterator[Said]:
    """Run the commands that delete something."""
    repository = scene.repository
    yield say("summary of rewrite", "rewrite", repository, scene.manifests()[0], "--remove", "b", "-v")
    yield say("summary of forget", "forget", repository, "--keep-within", "1y", "-n")
    yield say("summary of forget", "forget", repository, "--keep-within", "1y")
    yield say("summary of prune", "prune", repository, "-n")
    mark = (repository / "repo" / "marks" / "2020-01-01T00:00:00Z", f"{'0' * 64}\n#=gone\n")
    write_file(*mark)
    yield say("summary of prune", "prune", repository)
    write_file(*mark)
    yield say("", "prune", repository, "--status")
