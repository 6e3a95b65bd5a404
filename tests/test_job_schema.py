"""The published schema of a job says what the program says: the same documents are good, and the same are not."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3bu.errors import JobError
from s3bu.job import parse_job
from s3bu.job.own import OWN_KEYS
from s3bu.prices import LIST_PRICES
from s3bu.retention import COUNTS
from s3bu.selection.presets import PRESETS
from tests.rounds import rounds

ROOT = Path(__file__).parents[1]
SCHEMA = json.loads((ROOT / "docs" / "job.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
EXAMPLES = sorted((ROOT / "examples" / "jobs").glob("*.yml"))


def is_good(document: object) -> bool:
    """Say whether the program takes a document, as strict as `job check` is."""
    text = yaml.safe_dump(document, allow_unicode=True).encode()
    try:
        parse_job(text, name="job", origin="job.yml", strict=True, directory=Path("/somewhere"))
    except JobError:
        return False
    return True


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_keys_presets_and_prices_are_those_of_the_program() -> None:
    own = SCHEMA["properties"]["s3bu"]["properties"]
    assert set(own) == set(OWN_KEYS)
    assert set(own["presets"]["items"]["enum"]) == set(PRESETS)
    assert set(own["prices"]["properties"]) == set(LIST_PRICES)
    assert set(own["retention"]["properties"]) == {f"keep_{name}" for name in (*COUNTS, "within")}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_good_by_the_schema(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text()))


SOURCE = st.fixed_dictionaries(
    {"path": st.sampled_from(["/srv", "relative", "~/x", "", None]), "label": st.sampled_from(["a", "b", "x y", "", 1])}
)
GOOD = st.just([{"path": "/srv", "label": "a"}])
SOURCES = GOOD | GOOD | GOOD | st.lists(SOURCE, max_size=2, unique_by=lambda source: str(source["label"])) | st.none()
NAMES = st.none() | st.lists(st.sampled_from([".bak", "a", "a/b", "", ".", "..", 7]), max_size=2) | st.just("text")
DIRECTORIES = st.none() | st.lists(st.sampled_from(["a", "a b", "a/b", "", "..", 7]), max_size=2) | st.just("text")
ITEMS = st.none() | st.lists(st.sampled_from([".nobackup", "a b", "..", "7"]), max_size=2)
PRICES = st.dictionaries(st.sampled_from(["put", "storage", "post"]), st.sampled_from([0.5, 0, -1, "0.25", "x", None]))
RULES = st.dictionaries(
    st.sampled_from(["keep_last", "keep_daily", "keep_within", "keep_forever"]),
    st.sampled_from(
        [7, 0, -1, "7", "07", "00000007", "1000000", "1000001", "7d", "1y5m7d2h", "0d", "d", "", None, [7]]
    ),
    max_size=2,
)
PATTERNS = st.lists(st.sampled_from(["*.o", "!a", "#a", "", "/b/", 5]), max_size=2)
OWN = st.fixed_dictionaries(
    {},
    optional={
        "exclude": st.none() | PATTERNS | st.just("*.o"),
        "ignore_files": DIRECTORIES,
        "cachedir_tag": st.sampled_from([True, False, "true", "yes", None, []]),
        "max_file_size": st.sampled_from([5, "5M", "1.5 GiB", "much", None, -1, [1]]),
        "one_file_system": st.sampled_from([True, "false", "no", None]),
        "presets": st.none() | st.lists(st.sampled_from(["os-junk", "caches", "nothing"]), max_size=2),
        "prices": st.none() | PRICES,
        "retention": st.none() | RULES | st.just("7d"),
        "colour": st.just("red"),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"sources": SOURCES},
    optional={
        "exclude_extensions": st.none() | st.lists(st.sampled_from([".bak", "a/b", "", 7]), max_size=2) | st.just("x"),
        "skip_dirs": DIRECTORIES,
        "exclude_top_dirs": DIRECTORIES,
        "skip_dir_items": ITEMS,
        "s3bu": st.none() | OWN | st.just("text"),
        "colour": st.just("red"),
    },
)


@settings(max_examples=rounds(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(document=DOCUMENTS)
def test_the_schema_and_the_program_agree(document: object) -> None:
    assert VALIDATOR.is_valid(document) == is_good(document)


@settings(max_examples=rounds(100), deadline=None, suppress_health_check=list(HealthCheck))
@given(own=OWN)
def test_of_what_stands_below_s3bu_they_agree_too(own: object) -> None:
    document = {"sources": [{"path": "/srv", "label": "a"}], "s3bu": own}
    assert VALIDATOR.is_valid(document) == is_good(document)
