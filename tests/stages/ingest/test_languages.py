"""Languages: read from columns, kept through to the shards, and a rule of selection."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.verdicts import Verdict
from stx_mine.errors import ArtifactError, ConfigError, InputError
from stx_mine.inputs.config import Source
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.core.languages import wrong_language
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import require
from stx_mine.store.batches import list_packings, ragged_column
from stx_mine.store.languages import first_languages, number_languages
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

# --- cores ---


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3))),
    st.sampled_from(["any", "same", "cross"]),
)
def test_the_rule_drops_what_is_known_to_be_wrong(hits, wanted):
    queries, passages = (np.array([one[side] for one in hits], np.int16) for side in (0, 1))
    expected = []
    for query, passage in hits:
        if wanted == "any" or query < 0 or passage < 0:
            expected.append(False)
        else:
            expected.append((query == passage) != (wanted == "same"))
    assert wrong_language(queries, passages, wanted).tolist() == expected


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(-1, 4), st.sampled_from(["en", " en", "de", "", None]))))
def test_a_text_has_the_first_language_that_a_row_names(rows):
    names, numbers = number_languages([pa.array([one for _, one in rows], pa.large_string())])
    ids = np.array([one for one, _ in rows], np.int64)
    found, num_several = first_languages(ids, numbers, 5)
    known: dict[int, list[str]] = {}
    for text, name in rows:
        if text >= 0 and name:
            known.setdefault(text, []).append(name.strip())
    assert [names[one] if one >= 0 else None for one in found] == [
        known.get(text, [None])[0] for text in range(5)
    ]
    assert num_several == sum(len(set(one)) - 1 for one in known.values())


# --- reading ---


def write_jsonl(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def languages_of(config: IngestConfig) -> tuple[dict[str, str | None], dict[str, str | None]]:
    run_ingest(config)
    store = TextStore.open(require(RunDir(config.run_dir), "texts"))
    assert store.languages is not None
    return tuple(
        dict(
            zip(
                table.column("text").to_pylist(),
                store.languages.named(numbers).to_pylist(),
                strict=True,
            )
        )
        for table, numbers in (
            (store.queries, store.languages.queries),
            (store.passages, store.languages.passages),
        )
    )  # type: ignore[return-value]


def test_languages_come_from_the_columns_of_every_file(tmp_path):
    pairs = [
        {"q": "one", "p": "eins", "n": "neun", "query_language": "en", "language": "de"},
        {"q": "two", "p": "deux", "n": "trois", "query_language": "", "language": "fr"},
        {"q": "two", "p": "eins", "n": "in no language", "query_language": None, "language": None},
    ]
    corpus = [{"text": "eins", "language": None}, {"text": "tre", "language": "sv"}]
    config = IngestConfig(
        pairs=write_jsonl(tmp_path / "pairs.jsonl", pairs),
        corpus=write_jsonl(tmp_path / "corpus.jsonl", corpus),
        negative_column=("n",),
        run_dir=str(tmp_path / "run"),
    )
    queries, passages = languages_of(config)
    assert queries == {"one": "en", "two": None}
    assert passages == {
        "eins": "de", "tre": "sv", "deux": "fr", "neun": "de", "trois": "fr",
        "in no language": None,
    }  # fmt: skip
    counts = require(RunDir(config.run_dir), "texts").counts
    assert counts["languages"]["queries"] == {"unknown": 1, "en": 1, "de": 0, "fr": 0, "sv": 0}


def test_one_language_fills_what_no_column_names(tmp_path):
    pairs = [{"q": "a", "p": "b", "lang": "xx"}, {"q": "c", "p": "d", "lang": None}]
    path = write_jsonl(tmp_path / "pairs.jsonl", pairs)
    config = IngestConfig(
        pairs=path, language_column="lang", language="yy", run_dir=str(tmp_path / "run")
    )
    assert languages_of(config) == ({"a": "xx", "c": "yy"}, {"b": "xx", "d": "yy"})
    with pytest.raises(ArtifactError, match="language was 'yy'"):
        run_ingest(IngestConfig(pairs=path, language_column="lang", run_dir=str(tmp_path / "run")))


def test_a_misspelt_column_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "pairs.jsonl", [{"q": "a", "p": "b", "lang": "xx"}])
    with pytest.raises(InputError, match=r"'lagn' is a column of no file.*q, p, lang"):
        run_ingest(IngestConfig(pairs=path, language_column="lagn", run_dir=str(tmp_path / "run")))


def test_without_languages_nothing_is_written_and_the_rule_is_refused(run_copy):
    assert TextStore.open(require(RunDir(run_copy), "texts")).languages is None
    with pytest.raises(ConfigError, match="names none; give it a column `language`"):
        run_mine(MineConfig(run_dir=str(run_copy), negative_language="same", device="cpu"))


# --- English and Chinese in one run ---


@pytest.fixture(scope="module")
def bilingual(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("bilingual") / "run"
    sources = tuple(
        Source(name=name, path=str(shared_data / f"xquad-{name}"), split="test", language=name)
        for name in ("en", "zh")
    )
    run_embed(EmbedConfig(sources=sources, chunk=(128, 16), run_dir=str(run), device="cpu"))
    return run


@pytest.mark.parametrize("wanted", ["same", "cross", "any"])
def test_negatives_have_the_language_asked_for(wanted, bilingual, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(bilingual, run)
    config = MineConfig(run_dir=str(run), k=4, negative_language=wanted, device="cpu", depth=300)
    counts = run_mine(config).counts
    store = TextStore.open(require(RunDir(run), "texts"))
    assert store.sources is not None
    is_chinese = [(store.sources.numbers[role] == 1).tolist() for role in ("query", "passage")]
    dropped, pooled = 0, []
    for path in sorted((run / "negatives").glob("negatives-*")):
        for unit in pa.ipc.open_file(path).read_all().to_pylist():
            asked = is_chinese[0][unit["query_id"]]
            pooled += [is_chinese[1][one] == asked for one in unit["passage_ids"]]
            dropped += unit["verdicts"].count(Verdict.LANGUAGE)
    assert dropped == counts["dropped"]["language"]
    assert (dropped > 0) == (wanted != "any")
    assert len(pooled) > 10_000
    share = np.mean(pooled)
    if wanted == "any":
        assert 0.5 < share < 1
    else:
        assert share == (wanted == "same")
    run_pack(PackConfig(run_dir=str(run), batch_size=64, packings=1, sources_per_batch="mixed"))
    run_verify(VerifyConfig(run_dir=str(run)))
    for shard in (one for packing in list_packings(run / "batches") for one in packing):
        for number in range(shard.num_batches):
            table = shard.batch(number)
            # A query names its source, and so its language.
            assert table.column("language").to_pylist() == table.column("source").to_pylist()
            ids = ragged_column(table, "negative_ids")
            for row, languages in enumerate(table.column("passage_languages").to_pylist()):
                passages = [table.column("positive_id")[row].as_py(), *ids.row(row).tolist()]
                chinese = [is_chinese[1][one] for one in passages]
                assert [one == "zh" for one in languages] == chinese
                assert set(languages) <= {"en", "zh"}


def test_labels_name_the_language_of_each_text(bilingual, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(bilingual, run)
    run_pack(PackConfig(run_dir=str(run), layout="labels", batch_size=16, packings=1))
    run_verify(VerifyConfig(run_dir=str(run)))
    agree, seen = [], set()
    for shard in list_packings(run / "batches")[0]:
        for number in range(shard.num_batches):
            table = shard.batch(number)
            languages = table.column("language").to_pylist()
            seen |= set(languages)
            for text, language in zip(table.column("text").to_pylist(), languages, strict=True):
                num_chinese = sum("\u4e00" <= one <= "\u9fff" for one in text)
                agree.append((num_chinese > len(text) / 8) == (language == "zh"))
    assert seen == {"en", "zh"}
    # A few Chinese chunks are mostly names in Latin letters.
    assert np.mean(agree) > 0.98


def test_choosing_again_by_language_reuses_the_search(bilingual, tmp_path, cli_here: Cli):
    run = tmp_path / "run"
    shutil.copytree(bilingual, run)
    assert cli_here("mine", "--k", "2", run_dir=run).code == 0
    done = cli_here("mine", "--k", "2", "--negative-language", "cross", run_dir=run)
    assert done.code == 0
    assert "hits reused" in done.stdout
    assert " language" in done.stdout
