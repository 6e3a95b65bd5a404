"""The files of secrets and identities: who may read them, what they may hold, and how they are made."""

import os
import re
import shutil
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3bu.crypto.identities import new_identity
from s3bu.errors import KeyringError
from s3bu.keyring import (
    MAX_FILE_NBYTES,
    Keyring,
    Secret,
    default_home,
    load_identities,
    load_secrets,
    new_secret,
    write_identities,
    write_secrets,
)

BUCKET = Path(__file__).parent / "interop/original-bucket"
PASSPHRASE = "hunter2-and-more"
GOOD = f"- id: one\n  passphrase: {PASSPHRASE}\n"


def private(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    return path


@pytest.fixture
def secrets_path(tmp_path: Path) -> Path:
    return private(tmp_path / "secrets.yml", GOOD)


# who may read


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_a_file_that_others_may_use_is_refused(mode: int, secrets_path: Path) -> None:
    secrets_path.chmod(mode)
    with pytest.raises(KeyringError, match="other users may use it") as caught:
        load_secrets(secrets_path)
    assert caught.value.hint == f"chmod 600 {secrets_path}"


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_the_user_alone_is_read(mode: int, secrets_path: Path) -> None:
    secrets_path.chmod(mode)
    assert load_secrets(secrets_path) == (Secret("one", PASSPHRASE),)


def test_identities_that_others_may_read_are_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "identities.txt", new_identity()[0])
    path.chmod(0o644)
    with pytest.raises(KeyringError, match="other users may use it"):
        load_identities(path)


def test_a_file_of_another_user_is_refused(secrets_path: Path) -> None:
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "the tests are run as root there"
        pytest.skip("only root gives files away")
    os.chown(secrets_path, 12345, 12345)
    with pytest.raises(KeyringError, match="belongs to another user"):
        load_secrets(secrets_path)


def test_a_link_to_a_private_file_is_followed(secrets_path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(secrets_path)
    assert load_secrets(tmp_path / "link") == load_secrets(secrets_path)


def test_a_link_to_an_open_file_is_refused(secrets_path: Path, tmp_path: Path) -> None:
    secrets_path.chmod(0o644)
    (tmp_path / "link").symlink_to(secrets_path)
    with pytest.raises(KeyringError, match="other users may use it"):
        load_secrets(tmp_path / "link")


def test_a_directory_and_a_fifo_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("directory", "fifo"):
        with pytest.raises(KeyringError, match=r"not a regular file|is a directory"):
            load_secrets(tmp_path / name)


@pytest.mark.parametrize("load", [load_secrets, load_identities])
def test_an_absent_file_is_an_error_with_a_remedy(load: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="no such file") as caught:
        load(tmp_path / "absent")
    assert "s3bu init" in str(caught.value.hint)


@pytest.mark.parametrize("load", [load_secrets, load_identities])
def test_a_huge_file_is_refused(load: Callable[[Path], object], tmp_path: Path) -> None:
    path = private(tmp_path / "huge", b"#" * (MAX_FILE_NBYTES + 1))
    with pytest.raises(KeyringError, match="larger than"):
        load(path)


# what secrets.yml may hold


def test_the_secrets_of_the_original_are_read(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    shutil.copy(BUCKET / "secrets.yml", path)
    path.chmod(0o600)
    assert [secret.id for secret in load_secrets(path)] == ["Ol4uX0S47CRmk2ZR", "jhU3wC1wQ5sFakiN"]
    assert load_secrets(path)[0].passphrase == "often-shove-area-age-frog-brick-lift-snake-city-joy"


@pytest.mark.parametrize(
    "written",
    ["0123", "no", "1e3", "2024-01-01", "0x1F", "!x", '"quoted"', "=", "12:30", "x", "é", "1_000", '"\\u00e9"'],
)
def test_every_value_is_a_string_as_it_stands(written: str, tmp_path: Path) -> None:
    text = f"- id: a\n  passphrase: {written if written != '!x' else repr(written)}\n"
    (secret,) = load_secrets(private(tmp_path / "s", text))
    assert secret.passphrase == {'"quoted"': "quoted", '"\\u00e9"': "é"}.get(written, written)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no secret"),
        ("# nothing\n", "holds no secret"),
        ("[]", "holds no secret"),
        ("id: a\npassphrase: hunter2\n", "line 1: not what belongs here"),
        ("hunter2", "line 1: not what belongs here"),
        ("- hunter2\n", "line 1: not what belongs here"),
        ("- id: a\n", "line 1: a secret whose passphrase is missing or empty"),
        ("- passphrase: hunter2\n", "line 1: a secret whose id is missing or empty"),
        ("- id: a\n  passphrase: ''\n", "passphrase is missing or empty"),
        ("- id: a\n  passphrase:\n", "passphrase is missing or empty"),
        ("- id: a\n  passphrase: ~\n", "passphrase is missing or empty"),
        ("- id: a\n  passphrase: [hunter2]\n", "line 2: not what belongs here"),
        ("- id: a\n  passphrase: {hunter2: hunter2}\n", "line 2: not what belongs here"),
        ("- id: a\n  passphrase: b\n  hunter2: c\n", "line 3: a key that is neither"),
        ("- id: a\n  passphrase: b\n  passphrase: hunter2\n", "line 3: a key that is neither id nor .* stands twice"),
        ("- {id: a, passphrase: hunter2}\n- {id: a, passphrase: b}\n", "line 2: an id that stands above already"),
        ("- id: &x a\n  passphrase: hunter2\n", "line 1: not what belongs here"),
        ("- id: a\n  passphrase: *hunter2\n", "line 2: not what belongs here"),
        ("- &a {id: a, passphrase: hunter2}\n- *a\n", "not what belongs here"),
        ("- <<: {id: a}\n  passphrase: hunter2\n", "line 1: a key that is neither"),
        ("- id: a\n  passphrase: !!binary aHVudGVyMg==\n", "line 2: not what belongs here"),
        ("- id: a\n  passphrase: !!python/name:os.system hunter2\n", "line 2: not what belongs here"),
        (f"{GOOD}---\n{GOOD}", "line 4: something follows the list"),
        ("- id: a\n\tpassphrase: hunter2\n", "line 2: not valid YAML"),
        ("- id: a\n  passphrase: 'hunter2\n", "not valid YAML"),
        ("- id: a\n  passphrase: hunter2: x\n", "line 2: not valid YAML"),
        ('- id: a\n  passphrase: "hunter2\\q"\n', "line 2: not valid YAML"),
        ('- id: a\n  passphrase: "hunter2\\UFFFFFFFF"\n', "not valid YAML"),
        (f"%YAML {'1' * 5000}.1\n---\n{GOOD}", "not valid YAML"),
        ("- id: a\n  passphrase: hunter2\x07\n", "not valid YAML"),
        ('- id: a\n  passphrase: "hunter2\\ud800"\n', "cannot be written in UTF-8"),
        ("- id: b\u00e4r\n  passphrase: hunter2\n", "an id of more than 128 characters, or of others"),
        (f"- id: {'a' * 129}\n  passphrase: hunter2\n", "an id of more than 128 characters"),
        (b"- id: a\n  passphrase: hunter2\xff\n", "not UTF-8 text"),
        ("[" * 100_000, "line 1: not what belongs here"),
        ("- " * 100_000, "line 1: not what belongs here"),
        ("{" * 100_000, "line 1: not what belongs here"),
    ],
)
def test_broken_and_hostile_secrets_are_refused_without_repeating_them(
    text: str | bytes, says: str, tmp_path: Path
) -> None:
    path = private(tmp_path / "secrets.yml", text)
    with pytest.raises(KeyringError, match=says) as caught:
        load_secrets(path)
    assert caught.value.message.startswith(str(path))
    told = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in told
    assert "hunter2" not in f"{caught.value.hint} {caught.value.__context__}"


def test_a_byte_order_mark_and_crlf_are_no_matter(tmp_path: Path) -> None:
    path = private(tmp_path / "secrets.yml", b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_secrets(path) == (Secret("one", PASSPHRASE),)


@given(pieces=st.lists(st.sampled_from([*"-:[]{}&*!|>'\"%#,?\n\t ~", "id", "passphrase", "<<", "\\u"]), max_size=60))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_secrets_or_a_keyring_error(pieces: list[str], tmp_path: Path) -> None:
    path = private(tmp_path / "secrets.yml", "".join(pieces))
    try:
        secrets = load_secrets(path)
    except KeyringError:
        return
    assert all(secret.id and secret.passphrase for secret in secrets)


def test_a_secret_does_not_show_its_passphrase() -> None:
    assert PASSPHRASE not in repr(Secret("one", PASSPHRASE))


# identities


def test_identities_are_read(tmp_path: Path) -> None:
    secret, public = new_identity()
    path = private(tmp_path / "identities.txt", f"# caf\xe9 \n{secret}\n".encode("latin-1"))
    assert [identity.recipient for identity in load_identities(path)] == [public]


def test_a_bad_identity_is_refused_with_path_and_line(tmp_path: Path) -> None:
    path = private(tmp_path / "identities.txt", "# one\nhunter2\n")
    with pytest.raises(KeyringError, match="line 2: not an identity") as caught:
        load_identities(path)
    assert caught.value.message.startswith(str(path))


# making them


def test_a_new_secret_can_be_typed_and_is_no_other() -> None:
    made = [new_secret() for _ in range(50)]
    assert len({secret.id for secret in made} | {secret.passphrase for secret in made}) == 100
    for secret in made:
        assert re.fullmatch(r"[A-Za-z0-9]{16}", secret.id)
        assert re.fullmatch(r"([a-hjkmnp-z2-9]{5}-){5}[a-hjkmnp-z2-9]{5}", secret.passphrase)


def test_written_secrets_are_private_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new/home/secrets.yml"
    secrets = (new_secret(), Secret("b", "0123"), Secret("c", "- : # 'x' \"y\" é ☃"), Secret("d", "null"))
    previous = os.umask(0)
    try:
        write_secrets(path, secrets)
    finally:
        os.umask(previous)
    assert load_secrets(path) == secrets
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(directory.stat().st_mode) for directory in path.parents[:2]] == [0o700, 0o700]


@given(passphrases=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=3))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_passphrase_is_written_and_read_back(passphrases: list[str], tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    path.unlink(missing_ok=True)
    secrets = tuple(Secret(f"id{number}", passphrase) for number, passphrase in enumerate(passphrases))
    write_secrets(path, secrets)
    assert load_secrets(path) == secrets
    assert [entry["passphrase"] for entry in yaml.safe_load(path.read_text())] == passphrases


def test_written_identities_are_private_and_read_back(tmp_path: Path) -> None:
    made = [new_identity(), new_identity()]
    write_identities(tmp_path / "identities.txt", made)
    assert [identity.recipient for identity in load_identities(tmp_path / "identities.txt")] == [
        public for _, public in made
    ]
    assert stat.S_IMODE((tmp_path / "identities.txt").stat().st_mode) == 0o600


def test_nothing_is_ever_overwritten(secrets_path: Path) -> None:
    with pytest.raises(KeyringError, match="never overwritten"):
        write_secrets(secrets_path, [new_secret()])
    with pytest.raises(KeyringError, match="never overwritten"):
        write_identities(secrets_path, [new_identity()])
    assert secrets_path.read_text() == GOOD


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "secrets.yml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyringError, match="never overwritten"):
        write_secrets(tmp_path / "secrets.yml", [new_secret()])
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_in_the_way_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "place").write_text("a file")
    with pytest.raises(KeyringError, match=r"secrets\.yml: "):
        write_secrets(tmp_path / "place/secrets.yml", [new_secret()])


# the keyring


def test_passphrases_come_preferred_first_then_newest_first(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    write_secrets(path, [Secret(name, f"of {name}") for name in ("oldest", "middle", "newest")])
    keyring = Keyring(path, tmp_path / "identities.txt")
    assert keyring.newest_secret.id == "newest"
    assert keyring.passphrases(None) == ["of newest", "of middle", "of oldest"]
    assert keyring.passphrases("oldest") == ["of oldest", "of newest", "of middle"]
    assert keyring.passphrases("unknown") == ["of newest", "of middle", "of oldest"]


def test_a_keyring_reads_each_file_when_it_is_needed_and_once(secrets_path: Path, tmp_path: Path) -> None:
    keyring = Keyring(secrets_path, tmp_path / "absent")
    assert len(keyring.secrets) == 1
    secrets_path.unlink()
    assert len(keyring.secrets) == 1
    with pytest.raises(KeyringError, match="no such file"):
        _ = keyring.identities


def test_the_home_is_named_by_the_environment() -> None:
    assert default_home({"S3BU_HOME": "/srv/keys", "HOME": "/home/me"}) == Path("/srv/keys")
    assert default_home({"S3BU_HOME": "", "HOME": "/home/me"}) == Path("/home/me/.s3bu")


def test_importing_the_keyring_loads_neither_yaml_nor_a_library_of_encryption() -> None:
    program = "import sys, s3bu.keyring; print([n for n in ('yaml', 'pyrage', 'cryptography') if n in sys.modules])"
    root = Path(__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, check=True).stdout == b"[]\n"
