"""The documents say what the program does: commands, options, exit codes, messages, floors, policies and links."""

import io
import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import boto3
import pytest

from s3bu import errors
from s3bu.cli import app
from s3bu.keyring import load_secrets
from s3bu.manifest.reader import read_manifest
from tests.running import Result, run, write_file, write_job
from tests.servers import ACCESS_KEY, SECRET_KEY, moto_server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
SOURCES = {str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("s3bu/**/*.py")}
INTERRUPTED = {130, 141, 143}


# --- reading the documents


def section(title: str, text: str = README) -> str:
    """Return what stands below a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", _unfenced(text), re.MULTILINE | re.DOTALL)
    assert found is not None, f"no heading {title!r}"
    return found[1]


def _unfenced(text: str) -> str:
    """Return a document without its code blocks, in which `#` begins a comment."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield language and content of each code block."""
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield found[1], found[2]


def marked(kind: str, name: str) -> str:
    """Return the one code block behind the comment that marks it."""
    (found,) = re.findall(rf"^<!-- {kind}: {name} -->\n```\w+\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return str(found)


def cells(table: str) -> list[list[str]]:
    """Return the cells of the rows of the tables in a text, without their titles."""
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[1:]]


def options(table: str) -> set[str]:
    return {option for row in cells(table) for option in re.findall(r"`(--?[\w-]+)`", row[0])}


def commands_of(text: str) -> Iterator[list[str]]:
    """Yield the words of each call of s3bu in the code blocks of a document."""
    for language, block in blocks(text):
        for line in block.splitlines():
            if language != "console" or line.startswith("$ "):
                for piece in line.split(" && "):
                    found = re.search(r"(?:^|[\s/=])s3bu (?!\d)(.*)", piece)
                    if found:
                        yield shlex.split(found[1], comments=True)


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


# --- what the program says of itself


def helped(*command: str) -> dict[str, list[str]]:
    """Return the lines of a command's help by section."""
    result = run(*command, "--help")
    assert result.code == 0
    sections: dict[str, list[str]] = {}
    title = ""
    for line in result.out.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            title = line
        elif line.startswith("   ") and title in sections:
            sections[title][-1] += f" {line.strip()}"  # the meaning of an entry goes on
        elif line.startswith("  "):
            sections.setdefault(title, []).append(line)
    return sections


def all_commands(*parent: str) -> Iterator[tuple[str, ...]]:
    lines = helped(*parent).get("Commands:", [])
    if not lines:
        yield parent
    for line in lines:
        name = line.split()[0]
        if not name.startswith("-"):
            yield from all_commands(*parent, name)


def options_in(lines: list[str]) -> set[str]:
    heads = [re.match(r"  (--[\w-]+)(?:, (-\w))?", line) for line in lines]
    return {option for head in heads if head for option in head.groups() if option}


def usage(*command: str) -> str:
    """Return a command with its arguments, those that may be absent in brackets."""
    words = [re.match(r"  ([A-Z]+)(.*)", line) for line in helped(*command)["Arguments:"]]
    arguments = [word[1] if word[2].endswith("[required]") else f"[{word[1]}]" for word in words if word]
    return " ".join(["s3bu", *command, *arguments])


# --- commands and options


def test_help_fits_a_terminal_of_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in ((), *{command[:-1] for command in all_commands()}, *all_commands()):
        assert [line for line in run(*command, "--help").out.splitlines() if len(line) > 80] == [], command


def test_every_command_has_examples_and_says_what_each_of_its_words_means() -> None:
    for command in all_commands():
        sections = helped(*command)
        assert any(" ".join(["s3bu", *command]) in line for line in sections["For example:"]), command
        for title in ("Arguments:", "Parameters:", "Common options:"):
            for line in sections.get(title, []):
                label, _, meaning = line.strip().partition("  ")
                assert re.sub(r" *\[.*\]$", "", meaning.strip()), f"{' '.join(command)}: {label}"


def test_every_command_has_a_section_with_its_arguments_and_no_other_section_is_there() -> None:
    headings = re.findall(r"^### `(s3bu .*)`$", README, re.MULTILINE)
    assert sorted(headings) == sorted(usage(*command) for command in all_commands())


def test_every_option_stands_in_the_section_of_its_command_and_no_other() -> None:
    for command in all_commands():
        documented = options(section(f"`{usage(*command)}`"))
        assert documented == options_in(helped(*command).get("Parameters:", [])), command


def test_the_common_options_are_those_of_all_commands() -> None:
    documented = options(section("Common options"))
    telling = {"--json", "--quiet", "-q", "--verbose", "-v", "--no-progress"}
    assert telling < documented
    for command in all_commands():
        found = options_in(helped(*command).get("Common options:", []))
        assert found == (telling if command == ("job", "check") else documented), command


def test_the_environment_variables_of_the_help_are_documented() -> None:
    named = set(re.findall(r"\b(?:S3BU|AWS)_[A-Z_]+", run("backup", "--help").out))
    assert named
    assert all(name in section("Common options") for name in named)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_calls_in_a_document_are_calls_that_the_program_takes(document: str) -> None:
    for words in commands_of(DOCUMENTS[document]):
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_calls_in_the_documents_are_found() -> None:
    calls = [words for text in DOCUMENTS.values() for words in commands_of(text)]
    assert {"init", "backup", "restore", "keys", "job"} <= {words[0] for words in calls}
    assert ["backup", "-p", "backup", "my-bucket", "home", "-c"] in calls


def test_the_original_s_commands_all_have_one_beside_them() -> None:
    rows = cells(section("Coming from the original s3backup"))
    beside = {row[0].split()[0].strip("`"): row[1].strip("`").removeprefix("s3bu ") for row in rows}
    assert beside.keys() == {"s3backup", "s3restore", "s3jobdownload", "s3jobupload", "s3download"}
    assert set(beside.values()) <= {" ".join(command) for command in all_commands()}


# --- exit codes and messages


def subclasses(kind: type[errors.S3buError]) -> Iterator[type[errors.S3buError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)


def test_the_table_of_exit_codes_has_those_of_the_errors() -> None:
    documented = {int(code) for row in cells(section("Exit codes")) for code in re.findall(r"\d+", row[0])}
    assert documented == {error.exit_code for error in subclasses(errors.S3buError)} | INTERRUPTED | {0, 3, 4}


def test_messages_that_operations_explains_are_messages_of_the_program() -> None:
    program = re.sub(r'"\s*\n\s*f?"', "", "\n".join(SOURCES.values()))
    rows = cells(section("What to do when …", DOCUMENTS["docs/operations.md"]))
    said = [message for row in rows for message in re.findall(r"`([^`]+)`", row[0])]
    assert len(said) > 30
    for message in said:
        for part in re.split(r"…|[\w/]+\.(?:yml|txt)\b", message):
            assert part.strip("' :,") in program, message


# --- commands that others run


def test_the_quickstart_makes_an_environment_installs_and_backs_up_an_example() -> None:
    (line,) = marked("command", "quickstart").splitlines()
    make, install, backup = line.split(" && ")
    assert make == "python3 -m venv .venv"
    assert install == ".venv/bin/pip install ."
    program, *arguments = backup.split()
    assert program == ".venv/bin/s3bu"
    _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    assert bound.arguments["init"] is True
    assert (ROOT / bound.arguments["job"]).is_file()
    assert bound.arguments["repository"].startswith("./")


def test_the_tests_are_run_in_an_environment_of_their_own() -> None:
    (line,) = marked("command", "tests").splitlines()
    make, install, test = line.split(" && ")
    assert make == "python3 -m venv .venv"
    assert install == ".venv/bin/pip install -e '.[test]'"
    assert test == ".venv/bin/python -m pytest"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_shell_blocks_are_shell(document: str) -> None:
    for language, block in blocks(DOCUMENTS[document]):
        if language in {"sh", "bash"}:
            subprocess.run([language, "-n"], input=block.encode(), check=True)


def test_the_rotation_adds_a_secret_that_encrypts_from_then_on(tmp_path: Path) -> None:
    secrets = Path(os.environ["S3BU_HOME"]) / "secrets.yml"
    assert run("init", tmp_path / "repository").code == 0
    before = load_secrets(secrets)
    subprocess.run(["sh", "-c", marked("command", "rotate")], check=True)
    *kept, new = load_secrets(secrets)
    assert tuple(kept) == before
    assert re.fullmatch(r"[0-9a-f]{16}", new.id)
    assert re.fullmatch(r"[0-9a-f]{32}", new.passphrase)


# --- policies


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server that enforces the policies of the README; yields its URL and, by user, the two parts of a key."""
    users = {"owner": {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}}
    users |= {name: json.loads(marked("policy", name)) for name in ("backup", "restore", "admin")}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("INITIAL_NO_AUTH_ACTION_COUNT", str(3 * len(users)))
        with moto_server(tmp_path_factory.mktemp("iam") / "log") as url:
            iam = client("iam", url, ACCESS_KEY, SECRET_KEY)
            yield {"url": url} | {name: user(iam, name, policy) for name, policy in users.items()}
            iam.close()


def client(service: Literal["iam", "s3"], url: str, key: str, secret: str) -> Any:
    return boto3.Session().client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret
    )


def user(iam: Any, name: str, policy: dict[str, Any]) -> str:
    document = json.dumps({"Version": "2012-10-17"} | policy)
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=document)
    made = iam.create_access_key(UserName=name)["AccessKey"]
    return f"{made['AccessKeyId']} {made['SecretAccessKey']}"


@pytest.fixture
def by(account: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", account["url"])

    def call(name: str, *arguments: str | Path) -> Result:
        key, secret = account[name].split()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        return run(*arguments)

    return call


def test_the_policies_allow_what_they_are_for_and_no_more(
    by: Callable[..., Result], account: dict[str, str], tmp_path: Path
) -> None:
    source = write_file(tmp_path / "source" / "small", "small").parent
    write_file(source / "large", os.urandom(9 * 1024 * 1024))
    job = write_job(tmp_path / "home.yml", {"src": source})
    assert by("owner", "init", "my-bucket").code == 0
    assert by("owner", "job", "upload", "my-bucket", "home", job).code == 0
    assert by("backup", "backup", "my-bucket", "home").code == 0
    assert by("backup", "restore", "my-bucket", "home/src", tmp_path / "denied").code == 1
    assert by("restore", "plan", "my-bucket", "home").code == 0
    assert by("restore", "restore", "my-bucket", "home/src", tmp_path / "restored").code == 0
    assert (tmp_path / "restored" / "large").read_bytes() == (source / "large").read_bytes()
    write_file(source / "small", "changed")
    assert by("restore", "backup", "my-bucket", "home").code == 1
    assert by("backup", "backup", "my-bucket", "home").code == 0
    denied = by("backup", "forget", "my-bucket", "home", "--keep-last", "1")
    assert (denied.code, "the credentials need s3:DeleteObject" in denied.err) == (1, True)
    assert by("admin", "forget", "my-bucket", "home", "--keep-last", "1").code == 0
    assert by("backup", "prune", "my-bucket").code == 1
    assert by("admin", "prune", "my-bucket").code == 0
    for name in ("backup", "restore"):
        storage = client("s3", account["url"], *account[name].split())
        with pytest.raises(storage.exceptions.ClientError, match="AccessDenied"):
            storage.delete_object(Bucket="my-bucket", Key="repo/recipients.txt")
        storage.close()


def test_the_policy_against_overwriting_has_the_conditions_that_aws_names() -> None:
    (statement,) = json.loads(marked("policy", "never overwrite"))["Statement"]
    assert statement["Effect"] == "Deny"
    conditions = {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}}
    assert statement["Condition"] == conditions


# --- format and architecture


def test_the_manifest_that_the_format_shows_is_one() -> None:
    shown = [block for language, block in blocks(DOCUMENTS["docs/format.md"]) if block.startswith("#s3bu")]
    key = re.search(r"key=(\S+)", shown[0])
    assert key is not None
    reader = read_manifest(io.BytesIO(shown[0].encode()), key=key[1].replace("%2F", "/"), job="home", label="documents")
    assert {entry.path for entry in reader} >= {b"empty", b"latest", b"letters/aunt.odt"}
    assert reader.warnings == []


def test_the_format_explains_every_kind_of_line_that_is_read() -> None:
    rows = cells(section("Extension lines", DOCUMENTS["docs/format.md"]))
    explained = {word for row in rows for word in re.findall(r"`([@#]\w+)", row[0])}
    read = set(re.findall(r'b"([@#]\w+)"', SOURCES["s3bu/manifest/reader.py"]))
    assert explained == read | {"#s3bu"}


def test_the_floors_are_those_that_imports_are_held_to() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["name"] == "floors"]
    rows = cells(section("Floors", DOCUMENTS["docs/architecture.md"]))
    documented = [sorted(re.findall(r"`(\w+)`", row[1])) for row in rows]
    assert documented == [sorted(layer.split(" | ")) for layer in layers]


@pytest.mark.parametrize("source", SOURCES)
def test_documents_that_the_code_names_are_there(source: str) -> None:
    for document, title in re.findall(r'([\w/]+\.md)\b(?!\d)(?:, "([^"]+)")?', SOURCES[source]):
        text = DOCUMENTS[document]
        assert not title or section(title, text).strip()


# --- all documents


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _unfenced(DOCUMENTS[document])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), target
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.*)$", _unfenced(file.read_text()), re.MULTILINE)), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_nothing_is_left_over_from_writing(document: str) -> None:
    text = DOCUMENTS[document]
    assert not re.findall(r"\b(?:TODO|FIXME|XXX|TBD)\b|@[A-Z]{4,}@", text)
    assert not re.findall(r"(?<![\w.])/(?:root|work|tmp|Users|home/(?!me\b))\S*", text)
    assert max(map(len, text.splitlines())) < 1000
    assert not re.search(r"[ \t]$", text, re.MULTILINE)
