"""Names that become paths: what leaves its folder, hides or hurts is refused before it is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.errors import ArtifactError
from stx_mine.store.listing import MANIFEST, PLAN, refuse_listing
from stx_mine.store.names import artifact_problem, name_problem, path_problem

BAD_NAMES = [
    *("", " ", ".", "..", ".x", "../x", "a/b", "a\\b", "C:x", "a\0", "a\nb", "a\x1b[2J", "\u202ea"),
    *("a ", "x.new", "x.old", "x.tmp", "x" * 201, "\ud800"),
]
BAD_PATHS = [
    "/etc/passwd",
    "a/../b",
    "a//b",
    "./a",
    "a/",
    "a/.b",
    "a/b\\c",
    "../a",
    "/".join("a" * 17),
]
ENTRY = {"file": "a/b.txt", "bytes": 3, "xxh3_128": "0" * 32}
CONTENT = {"key": "k", "inputs": {}, "digest": "d", "counts": {}, "files": [ENTRY]}


@pytest.mark.parametrize("name", [*BAD_NAMES, None, 7, ["a"]])
def test_a_bad_name_is_refused(name: object) -> None:
    assert name_problem(name)
    assert path_problem(name) or "/" in str(name)


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_bad_path_is_refused(path: str) -> None:
    assert path_problem(path)


@pytest.mark.parametrize("name", ["dev", "dev.a", "NFCorpus 2", "1_Pooling", "données", "a..b"])
def test_a_plain_name_is_taken(name: str) -> None:
    assert name_problem(name) == "" == path_problem(f"a/{name}")


@given(st.text())
def test_a_path_that_is_taken_stays_in_its_folder(path: str) -> None:
    if not path_problem(path):
        parts = path.split("/")
        assert all(parts) and not {".", ".."} & set(parts)
        assert not any(one.startswith(".") or "\\" in one or "\0" in one for one in parts)


def test_only_some_kinds_have_folders_of_their_own() -> None:
    assert artifact_problem("hits/dense") == artifact_problem("texts") == ""
    for name in ("text", "texts/x", "hits/..", "hits/", "evaluations/../model", "", "rounds/2"):
        assert artifact_problem(name), name


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in CONTENT),
        {"key": ""},
        {"files": {"a": 1}},
        {"files": ["a"]},
        *({"files": [{**ENTRY, "file": file}]} for file in ("../x", "/x", "", PLAN, MANIFEST, 3)),
        *({"files": [{**ENTRY, "bytes": n}]} for n in (-1, 1 << 60, 0.5, True, None)),
        *({"files": [{**ENTRY, "xxh3_128": digest}]} for digest in (None, "", "x" * 32)),
        {"files": [ENTRY, ENTRY]},
    ],
)
def test_a_manifest_that_lists_anything_else_is_refused(change: dict[str, object]) -> None:
    refuse_listing(CONTENT, "m.json", "do")
    with pytest.raises(ArtifactError, match=r"in m\.json, found .*; do$"):
        refuse_listing({**CONTENT, **change}, "m.json", "do")
