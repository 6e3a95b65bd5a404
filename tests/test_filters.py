"""The filter rules, one by one and against what they say in plain words."""

from hypothesis import given
from hypothesis import strategies as st

from s3bu.filters import Filters

NAMES = st.binary(min_size=1, max_size=8).filter(lambda name: b"/" not in name and b"\0" not in name)
SHORT_NAMES = st.lists(st.sampled_from([b"a", b".b", b"a.b", b".", b".a.b", b"B", b""]), max_size=4).map(tuple)


def test_no_rules_want_everything() -> None:
    filters = Filters()
    assert filters.file_rule(b"anything") is None
    assert filters.directory_rule(b"anything", is_top=True) is None
    assert filters.skipping_item([b"anything"]) is None


def test_an_extension_gets_the_dot_that_it_lacks() -> None:
    filters = Filters(exclude_extensions=(b"gz",))
    assert filters.file_rule(b"a.gz") is not None
    assert filters.file_rule(b"agz") is None


def test_an_extension_may_have_several_dots() -> None:
    filters = Filters(include_extensions=(b".tar.gz",))
    assert filters.file_rule(b"a.tar.gz") is None
    assert filters.file_rule(b"a.gz") is not None


def test_an_extension_matches_a_file_of_just_that_name() -> None:
    assert Filters(exclude_extensions=(b".DS_Store",)).file_rule(b".DS_Store") is not None


def test_extensions_heed_case() -> None:
    filters = Filters(include_extensions=(b"jpg",))
    assert filters.file_rule(b"a.JPG") is not None


def test_extensions_match_bytes_that_are_not_text() -> None:
    assert Filters(exclude_extensions=(b".\xff",)).file_rule(b"\xfe.\xff") is not None


def test_a_lone_dot_is_the_end_of_names_that_end_with_a_dot() -> None:
    filters = Filters(exclude_extensions=(b".",))
    assert filters.file_rule(b"a.") is not None
    assert filters.file_rule(b"a.b") is None


def test_what_is_included_can_still_be_excluded() -> None:
    filters = Filters(include_extensions=(b"gz",), exclude_extensions=(b"tar.gz",))
    assert filters.file_rule(b"a.gz") is None
    assert filters.file_rule(b"a.tar.gz") is not None


def test_an_empty_extension_excludes_nothing() -> None:
    assert Filters(exclude_extensions=(b"",)).file_rule(b"a.") is None


def test_an_empty_extension_alone_includes_nothing() -> None:
    assert Filters(include_extensions=(b"",)).file_rule(b"a.") is not None


def test_an_empty_extension_beside_others_changes_nothing() -> None:
    filters = Filters(include_extensions=(b"", b"txt"))
    assert filters.file_rule(b"a.txt") is None
    assert filters.file_rule(b"a.") is not None


def test_only_included_top_directories_are_entered() -> None:
    filters = Filters(include_top_dirs=(b"kept",))
    assert filters.directory_rule(b"kept", is_top=True) is None
    assert filters.directory_rule(b"other", is_top=True) is not None


def test_top_directory_rules_end_below_the_top() -> None:
    filters = Filters(include_top_dirs=(b"kept",), exclude_top_dirs=(b"dropped",))
    assert filters.directory_rule(b"other", is_top=False) is None
    assert filters.directory_rule(b"dropped", is_top=False) is None


def test_a_top_directory_both_included_and_excluded_is_left_out() -> None:
    assert Filters(include_top_dirs=(b"a",), exclude_top_dirs=(b"a",)).directory_rule(b"a", is_top=True) is not None


def test_skipped_directories_are_skipped_at_every_level() -> None:
    filters = Filters(include_top_dirs=(b"cache",), skip_dirs=(b"cache",))
    assert filters.directory_rule(b"cache", is_top=True) is not None
    assert filters.directory_rule(b"cache", is_top=False) is not None


def test_directories_are_named_whole_and_in_their_case() -> None:
    filters = Filters(skip_dirs=(b"cache",))
    assert filters.directory_rule(b"cache2", is_top=False) is None
    assert filters.directory_rule(b"Cache", is_top=False) is None


def test_an_empty_name_alone_includes_no_top_directory() -> None:
    assert Filters(include_top_dirs=(b"",)).directory_rule(b"a", is_top=True) is not None


def test_directory_rules_leave_files_alone() -> None:
    filters = Filters(include_top_dirs=(b"a",), exclude_top_dirs=(b"b",), skip_dirs=(b"b",), skip_dir_items=(b"b",))
    assert filters.file_rule(b"b") is None


def test_extension_rules_leave_directories_alone() -> None:
    assert Filters(exclude_extensions=(b"d",)).directory_rule(b"conf.d", is_top=True) is None


def test_a_skipping_item_is_found_among_names() -> None:
    filters = Filters(skip_dir_items=(b".nobackup",))
    assert filters.skipping_item([b"a", b".nobackup"]) == b".nobackup"
    assert filters.skipping_item([b"a", b".nobackup2"]) is None


def test_the_first_skipping_item_of_the_job_is_told() -> None:
    filters = Filters(skip_dir_items=(b"z", b"a"))
    assert filters.skipping_item(name for name in (b"a", b"z")) == b"z"


def test_filters_of_the_same_lists_are_equal() -> None:
    assert Filters(skip_dirs=(b"a",)) == Filters(skip_dirs=(b"a",))
    assert Filters(skip_dirs=(b"a",)) != Filters(skip_dirs=(b"b",))


def _ends_as_one_of(name: bytes, extensions: tuple[bytes, ...]) -> bool:
    return any(name.endswith(b"." + extension.removeprefix(b".")) for extension in extensions if extension)


@given(name=NAMES, include=SHORT_NAMES, exclude=SHORT_NAMES)
def test_a_file_is_wanted_when_included_and_not_excluded(
    name: bytes, include: tuple[bytes, ...], exclude: tuple[bytes, ...]
) -> None:
    wanted = (not include or _ends_as_one_of(name, include)) and not _ends_as_one_of(name, exclude)
    rule = Filters(include_extensions=include, exclude_extensions=exclude).file_rule(name)
    assert (rule is None) == wanted


@given(names=st.lists(NAMES, max_size=6), items=SHORT_NAMES)
def test_a_directory_is_skipped_exactly_when_it_holds_an_item(names: list[bytes], items: tuple[bytes, ...]) -> None:
    item = Filters(skip_dir_items=items).skipping_item(iter(names))
    assert (item is not None) == bool(set(names) & set(items))
    assert item is None or (item in names and item in items)
