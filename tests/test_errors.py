"""What the program refuses, and how it says so: the right exit code, one line and a hint, and nothing touched."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from s3bu.crypto.identities import new_identity
from s3bu.keyring import new_secret, write_identities, write_secrets
from tests.running import (
    Scene,
    backed_up,
    check_refusal,
    listing,
    own_environment,
    program,
    run,
    succeed,
    tree,
    write_file,
    write_job,
)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return backed_up(tmp_path_factory.mktemp("first") / "scene")


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return first.copy(tmp_path / "scene", monkeypatch)


# --- no repository


COMMANDS: dict[str, Callable[[str | Path, Scene], tuple[str | Path, ...]]] = {
    "backup": lambda place, scene: ("backup", place, scene.job),
    "restore": lambda place, scene: ("restore", place, "home/src", scene.target),
    "restore by key": lambda place, scene: ("restore", place, scene.manifests()[0], scene.target),
    "snapshots": lambda place, scene: ("snapshots", place),
    "ls": lambda place, scene: ("ls", place, "home/src"),
    "download": lambda place, scene: ("download", place, "jobs/home/home-001.yml", scene.target),
    "job list": lambda place, scene: ("job", "list", place),
    "job show": lambda place, scene: ("job", "show", place, "home"),
    "job upload": lambda place, scene: ("job", "upload", place, "home", scene.job),
    "keys list": lambda place, scene: ("keys", "list", place),
    "keys accept": lambda place, scene: ("keys", "accept", place),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_directory_is_no_repository(scene: Scene, command: str, tmp_path: Path) -> None:
    write_job(scene.job, {"src": scene.source})
    absent = tmp_path / "absent"
    check_refusal(
        run(*COMMANDS[command](absent, scene)), 10, f"there is no directory {absent}", "hint: `s3bu init` makes it"
    )
    assert not absent.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_bucket_is_no_repository(
    scene: Scene, command: str, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_job(scene.job, {"src": scene.source})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_url)
    check_refusal(run(*COMMANDS[command]("absent-bucket", scene)), 10, "absent-bucket", "hint: ")


def test_a_directory_without_recipients_is_no_repository(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    check_refusal(
        run("backup", tmp_path / "other", scene.job),
        10,
        f"{tmp_path}/other: not a repository, since it has no repo/recipients.txt",
        f"hint: make it one with `s3bu init {tmp_path}/other`",
    )
    assert list((tmp_path / "other").iterdir()) == []


def test_recipients_without_a_key_are_none(scene: Scene) -> None:
    (scene.repository / "repo" / "recipients.txt").write_text("# nobody\n")
    check_refusal(scene.backup(), 10, "repo/recipients.txt", "no recipient", "age1")


# --- keys


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_a_wrong_passphrase_opens_nothing_and_changes_nothing(scene: Scene, command: str) -> None:
    scene.secrets.unlink()
    write_secrets(scene.secrets, [new_secret()])
    before = listing(scene.repository / "data") | listing(scene.repository / "manifests" / "home" / "src")
    result = scene.backup() if command == "backup" else scene.restore()
    check_refusal(result, 12, f"{scene.manifests()[0]}: no passphrase at hand opens it", "secrets.yml")
    assert listing(scene.repository / "data") | listing(scene.repository / "manifests" / "home" / "src") == before


def test_missing_secrets_are_named(scene: Scene) -> None:
    scene.secrets.unlink()
    check_refusal(scene.restore(), 2, f"{scene.secrets}: no such file", "s3bu init")


def test_missing_secrets_are_not_made_anew_for_a_repository_that_has_snapshots(scene: Scene) -> None:
    scene.secrets.unlink()
    check_refusal(
        run("init", scene.repository), 2, f"{scene.secrets}: no such file", "copy secrets.yml from the machine"
    )
    assert not scene.secrets.exists()


@pytest.mark.parametrize("name", ["secrets.yml", "identities.txt"])
def test_keys_that_others_can_read_are_refused(scene: Scene, name: str) -> None:
    path = scene.root / "keys" / name
    path.chmod(0o644)
    check_refusal(scene.restore(), 2, f"{path}: other users may use it", f"hint: chmod 600 {path}")
    assert not (scene.target / "a").exists()


def test_missing_identities_are_named_at_restore(scene: Scene) -> None:
    scene.identities.unlink()
    check_refusal(scene.restore(), 2, f"{scene.identities}: no such file")


def test_a_backup_needs_no_identities(scene: Scene) -> None:
    scene.identities.unlink()
    write_file(scene.source / "new", "new")
    assert scene.backup().code == 0


def test_a_wrong_identity_opens_nothing(scene: Scene) -> None:
    scene.identities.unlink()
    write_identities(scene.identities, [new_identity()])
    check_refusal(scene.restore(), 12, "no identity at hand opens it", "identities.txt")
    assert not any(name.startswith(b".s3bu") or name in (b"a", b"b") for name in tree(scene.target))


# --- names that lead nowhere


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("home", 2, ["'home' names no snapshot", "JOB/LABEL"]),
        ("work/src", 10, ["job 'work' has no snapshots", "these have: home"]),
        ("home/source", 2, ["no snapshots of a label 'source'", "it has src"]),
        ("home/src@1999-12-31", 2, ["no snapshot of home/src is that old", "the oldest one is of"]),
        ("home/src@yesterday", 2, ["'yesterday' is no time", "3d or 12h"]),
        ("manifests/home/src/home-src-1999-12-31-00000.csv.gz", 2, ["no such snapshot", "s3bu snapshots"]),
        ("manifests/home/src/", 2, ["no manifest's key", "s3bu snapshots"]),
    ],
)
def test_a_snapshot_that_is_not_there_is_named(scene: Scene, what: str, code: int, words: list[str]) -> None:
    check_refusal(scene.restore(what=what), code, *words)
    assert not scene.target.exists()


def test_an_unknown_job_is_named_with_what_there_is(scene: Scene) -> None:
    succeed("job", "upload", scene.repository, "work", write_job(scene.root / "work.yml", {"src": scene.source}))
    check_refusal(run("backup", scene.repository, "wrok"), 10, "no job 'wrok'", "it has work")


def test_an_unknown_label_is_named_with_what_there_is(scene: Scene) -> None:
    check_refusal(scene.backup("scr"), 2, "job 'home' has no source with the label 'scr'", "it has src")


def test_a_label_that_is_not_there_is_answered_with_the_nearest_and_with_all(scene: Scene) -> None:
    for label in ("doc", "proj", "project"):
        scene.put_manifest(b"", f"manifests/team/{label}/team-{label}-2020-01-01-00000.csv.gz")
    for wrong, hint in (("dok", "did you mean 'doc'? it has doc, proj, project"), ("xyz", "it has doc, proj, project")):
        result = scene.restore(what=f"team/{wrong}")
        check_refusal(result, 2, "has no snapshots of a label")
        assert result.errors[1] == f"hint: {hint}"


def test_an_object_that_is_not_there_is_named(scene: Scene, tmp_path: Path) -> None:
    result = run("download", scene.repository, "data/0000/" + "0" * 64, tmp_path / "out")
    check_refusal(result, 1, "data/0000/" + "0" * 64)
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["backup"], []),
        (["backup", "--nonsense", "./x", "home"], ["--nonsense"]),
        (["restor", "./x"], ["restor"]),
        (["backup", "gopher://x", "home"], ["unknown kind of repository: 'gopher://x'"]),
        (["backup", "bucket/prefix", "home"], ["bucket or directory? 'bucket/prefix'", "s3://bucket/prefix"]),
        (["restore", "./x", "home/src", "out", "(unclosed"], ["(unclosed"]),
        (["backup", "./x", "absent.yml"], ["no such file: absent.yml"]),
    ],
)
def test_a_wrong_command_line_is_told_in_a_line(arguments: list[str], words: list[str]) -> None:
    result = run(*arguments)
    check_refusal(result, 2, *words)
    assert result.errors[0].removeprefix("error: ")[0] in "abcdefghijklmnopqrstuvwxyz'-("


# --- jobs


def test_a_broken_job_is_refused_with_all_its_faults_and_lines(scene: Scene) -> None:
    scene.job.write_text("sources:\n- path: /x\n- label: y\nskip_dirs: no list\n")
    check_refusal(scene.backup(), 2, "home.yml:2: ", "home.yml:3: ", "home.yml:4: ", "'skip_dirs' must be a list")


@pytest.mark.parametrize("text", ["sources: [", "sources:\n- path: x\n\tlabel: y\n", "\0", "", "- a\n- b\n", "&a [*a]"])
def test_what_is_no_job_is_refused(scene: Scene, text: str) -> None:
    scene.job.write_text(text)
    check_refusal(scene.backup(), 2, "home.yml")
    assert len(scene.manifests()) == 1


def test_a_broken_job_is_not_uploaded(scene: Scene) -> None:
    scene.job.write_text("sources:\n- path: /x\n  lable: y\n")
    check_refusal(run("job", "upload", scene.repository, "home", scene.job), 2, "did you mean 'label'")
    assert not (scene.repository / "jobs").exists()


def test_a_plain_job_in_the_repository_is_used_with_a_warning(scene: Scene) -> None:
    write_job(scene.root / "plain.yml", {"src": scene.source})
    stored = scene.repository / "jobs" / "home" / "home-000.yml"
    stored.parent.mkdir(parents=True)
    shutil.copy(scene.root / "plain.yml", stored)
    result = run("backup", scene.repository, "home")
    assert result.code == 0
    assert "s3bu: warning: job 'home' is not encrypted" in result.err


# --- recipients


@pytest.fixture
def changed(scene: Scene) -> Scene:
    """A repository to which somebody added a recipient, after this machine had backed up into it."""
    succeed("backup", scene.repository, scene.job)
    recipients = scene.repository / "repo" / "recipients.txt"
    recipients.write_text(recipients.read_text() + new_identity()[1] + "\n")
    write_file(scene.source / "new", "new")
    return scene


def fingerprint(scene: Scene) -> str:
    return succeed("keys", "list", scene.repository).out.split()[1].rstrip(":")


def test_changed_recipients_are_refused_at_backup(changed: Scene) -> None:
    before = changed.contents()
    wanted = f"`s3bu keys accept {changed.repository} {fingerprint(changed)}`"
    check_refusal(changed.backup(), 12, f"the recipients of {changed.repository} changed", wanted)
    assert changed.contents() == before


def test_changed_recipients_do_not_hinder_a_restore(changed: Scene) -> None:
    assert changed.restore().code == 0


@pytest.mark.parametrize("given", [[], ["AAAA-BBBB-CCCC-DDDD-EEEE"]])
def test_changed_recipients_are_accepted_only_by_their_fingerprint(changed: Scene, given: list[str]) -> None:
    check_refusal(run("keys", "accept", changed.repository, *given), 2, "were not accepted", fingerprint(changed))
    assert changed.backup().code == 12


def test_accepted_recipients_are_encrypted_to(changed: Scene) -> None:
    succeed("keys", "accept", changed.repository, fingerprint(changed))
    assert changed.backup().code == 0
    assert changed.object_of("new").read_bytes().count(b"-> X25519 ") == 2


# --- sources


def test_a_missing_source_leaves_the_others_alone(scene: Scene) -> None:
    write_job(scene.job, {"gone": "absent", "src": "source"})
    write_file(scene.source / "new", "new")
    check_refusal(
        scene.backup(), 3, f"{scene.root}/absent: the source cannot be opened (no such file or directory)", "mounted"
    )
    assert len(scene.manifests()) == 2
    assert scene.manifests("gone") == []


def test_a_source_that_is_a_file_is_refused(scene: Scene) -> None:
    write_job(scene.job, {"src": "source/a"})
    result = scene.backup()
    check_refusal(result, 3, "source/a: the source cannot be opened (not a directory)", "is its path in the job right?")
    assert "mounted" not in result.err
    assert len(scene.manifests()) == 1


def test_a_source_that_a_rule_skips_whole_is_refused(scene: Scene) -> None:
    write_job(scene.job, {"src": "source"}, "skip_dir_items:\n- b\n")
    check_refusal(scene.backup(), 2, "skip_dir_items skips the whole source, since it contains 'b'", "remove that item")
    assert len(scene.manifests()) == 1


def test_a_repository_inside_the_source_is_left_out_and_said(scene: Scene) -> None:
    scene.repository.rename(scene.source / "repository")
    result = run("backup", scene.source / "repository", scene.job)
    assert result.code == 0
    assert "not backed up: the repository itself, at repository" in result.out
    succeed("restore", scene.source / "repository", "home/src", scene.target)
    assert b"repository" not in tree(scene.target)


@pytest.fixture(scope="module")
def hundred(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A source of a hundred files that was backed up."""
    scene = Scene(tmp_path_factory.mktemp("hundred") / "scene")
    with own_environment(scene.keys):
        scene.make()
        for number in range(100):
            write_file(scene.source / str(number), "the same in all")
        succeed("backup", scene.repository, scene.job)
    return scene


def remove(scene: Scene, number: int) -> None:
    for name in range(number):
        (scene.source / str(name)).unlink()


def test_half_of_a_source_may_vanish(hundred: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = hundred.copy(tmp_path / "scene", monkeypatch)
    remove(scene, 50)
    assert scene.backup().code == 0


def test_more_than_half_of_a_source_may_not_vanish_unless_accepted(
    hundred: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = hundred.copy(tmp_path / "scene", monkeypatch)
    remove(scene, 51)
    command = f"`s3bu backup {scene.repository} {scene.job} src -c --region eu-west-1 --accept-deletions`"
    result = scene.backup("-c", "--region", "eu-west-1")
    check_refusal(result, 1, "src: 51 of 100 files vanished", "nothing published", f"accept that with {command}")
    assert len(scene.manifests()) == 1
    assert scene.backup("--accept-deletions").code == 0
    assert len(scene.manifests()) == 2


# --- the command line


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("find r p extra", "one argument too many: 'extra'", "usage: s3bu find REPOSITORY PATTERN [OPTIONS]"),
        (
            "backup a b c d 'e f'",
            "2 arguments too many: 'd', 'e f'",
            "usage: s3bu backup REPOSITORY JOB [LABEL] [OPTIONS]",
        ),
        (
            "keys accept a b c",
            "one argument too many: 'c'",
            "usage: s3bu keys accept REPOSITORY [FINGERPRINT] [OPTIONS]",
        ),
        ("watch r", "no JOB was given", "usage: s3bu watch REPOSITORY JOB [LABEL] [OPTIONS]"),
        ("job upload", "no REPOSITORY was given", "usage: s3bu job upload REPOSITORY "),
        ("find r p --since", "--since needs a value", "usage: s3bu find REPOSITORY PATTERN [OPTIONS]"),
        ("job put a", 'unknown command "put"', "s3bu job has check, download, edit, list, show and upload"),
        ("index foo", 'unknown command "foo"', "s3bu index has path, rebuild, status and sync"),
        ("keys lst", 'unknown command "lst"', "s3bu keys has accept and list"),
        ("restoe x", 'unknown command "restoe". Did you mean "restore"?', "`s3bu --help` lists the commands"),
        ("backup a b --nope", "unknown option: --nope", "`s3bu --help` lists the commands"),
    ],
)
def test_what_is_wrong_with_a_command_line_is_said_with_what_is_right(line: str, message: str, hint: str) -> None:
    result = run(*shlex.split(line))
    assert result.code == 2
    assert result.errors[0].startswith(f"error: {message}"), result.errors
    assert result.errors[1].startswith(f"hint: {hint}"), result.errors


# --- the process


def test_a_refused_program_leaves_no_traceback(tmp_path: Path) -> None:
    job = write_job(tmp_path / "home.yml", {"src": tmp_path})
    for command in (["backup", tmp_path / "absent", job], ["backup", "--what"], ["ls", tmp_path / "absent", "a/b"]):
        result = program(*command)
        assert result.code in (2, 10)
        assert "Traceback" not in result.err


def test_output_that_nobody_reads_on_ends_as_other_programs_do(scene: Scene) -> None:
    key = scene.put_manifest(b"".join(b"1,1,0644,%064d,%0200d\n" % (0, number) for number in range(3000)))
    result = program("ls", scene.repository, key, prefix=["bash", "-o", "pipefail", "-c", '"$@" | head -n 1', "bash"])
    assert (result.code, result.err) == (141, "")
    assert len(result.out.splitlines()) == 1


def test_a_run_whose_messages_nobody_reads_goes_on(scene: Scene) -> None:
    write_file(scene.source / "new", "new")
    before = scene.manifests()
    prefix = ["bash", "-c", 'exec 2> >(exec true); sleep 0.5; exec "$@"', "bash"]
    assert program("backup", scene.repository, scene.job, prefix=prefix).code == 0
    assert len(scene.manifests()) == len(before) + 1


def test_output_that_cannot_be_written_is_an_error(scene: Scene) -> None:
    prefix = ["bash", "-c", 'exec "$@" > /dev/full', "bash"]
    check_refusal(program("ls", scene.repository, "home/src", prefix=prefix), 1, "cannot write the output")


def test_a_snapshot_of_other_secrets_does_not_hide_the_rest(scene: Scene) -> None:
    own = scene.secrets.read_text()
    scene.secrets.write_text("- id: other\n  passphrase: of another machine\n")
    scene.put_manifest(b"", "manifests/foreign/src/foreign-src-2020-01-01-00000.csv.gz")
    scene.secrets.write_text(own)
    result = run("snapshots", scene.repository)
    assert result.code == 3
    assert "manifests/home/src/" in result.out
    assert "no passphrase" in result.err


@pytest.mark.parametrize("command", ["snapshots {}", "ls {} home/src", "job show {} home", "restore {} home/src out"])
def test_a_directory_that_is_no_repository_is_not_an_empty_one(tmp_path: Path, command: str) -> None:
    (tmp_path / "other").mkdir()
    check_refusal(run(*command.format(tmp_path / "other").split(" ")), 10, "not a repository")


def test_names_that_could_steer_a_terminal_are_escaped(scene: Scene) -> None:
    scene.source.rename(scene.root / "so\x1b[31mred\nsource")
    scene.job.write_text('sources:\n- path: "so\\e[31mred\\nsource"\n  label: src\n')
    result = scene.backup()
    assert result.code == 0
    assert "\x1b" not in result.err + result.out
    assert any("so\\x1b[31mred\\x0asource" in line for line in result.err.splitlines())
