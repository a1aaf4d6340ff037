"""Long documents: cut by tokens, one group each, and never a negative of their own query."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.groups import Groups, members_of
from stx_mine.core.ragged import Ragged
from stx_mine.errors import ArtifactError, ConfigError, ViolationError
from stx_mine.inputs.config import Source, SourceFields
from stx_mine.inputs.pairs import PairSource
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.leaks import in_training
from stx_mine.stages.evaluate.sets import read_evaluation_set
from stx_mine.stages.ingest.chunker import Chunker
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.core.best_chunk import best_chunk, term_counts
from stx_mine.stages.ingest.core.chunks import CHARACTER, INSIDE, SENTENCE, WORD, cut
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.candidates import CandidateFile
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.core.batch_ids import BatchIds
from stx_mine.stages.verify.core.batches import check_pair_batches, check_strict_batches, in_order
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import require
from stx_mine.store.batches import GROUPS, list_packings, slot_text_ids
from stx_mine.store.groups import TextGroups
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

TOKENS, OVERLAP = 64, 16
TEXTS = st.text(
    st.sampled_from("ab cd. e! \n 北京大学。 สวัสดี éß𐍈-'\u0301"), min_size=1, max_size=600
) | st.lists(st.sampled_from(["word", "Sentence.", "antidisestablishment" * 12, "好的。"])).map(
    " ".join
)


# --- the cut ---


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from([INSIDE, CHARACTER, WORD, WORD, SENTENCE]), max_size=120),
    st.integers(4, 40),
    st.integers(0, 39),
)
def test_chunks_cover_the_text_overlap_as_asked_and_fit(kinds, limit, overlap):
    overlap = min(overlap, limit - 1)
    # A character has three tokens at most.
    kinds = [
        CHARACTER
        if kind == INSIDE and (place < 3 or kinds[place - 2 : place] == [INSIDE] * 2)
        else kind
        for place, kind in enumerate(kinds)
    ]
    breaks = np.array(kinds, np.int8)
    chunks = cut(breaks, limit, overlap)
    assert chunks[0, 0] == 0
    assert chunks[-1, 1] == len(kinds)
    assert ((chunks[:, 1] - chunks[:, 0]) <= limit).all()
    for (first, end), (next_first, next_end) in pairwise(chunks.tolist()):
        assert first < next_first <= end < next_end
        assert end - next_first <= overlap
        # A word is split only where none begins in a whole chunk before its end.
        if breaks[end] < WORD:
            assert (breaks[max(end - limit + 1, first + 1) : end] < WORD).all()
            assert end - first > limit - 3
        elif breaks[end] == WORD:
            # No sentence ended in the last quarter, and not one more word would have fitted.
            high = first + limit
            previous = max((e for _, e in chunks.tolist() if e < end), default=0)
            assert (breaks[max(high - limit // 4 + 1, previous + 1) : high + 1] < SENTENCE).all()
            assert (breaks[end + 1 : high + 1] < WORD).all()
        # What is repeated begins with the first word in reach, if the next words fit behind it.
        words = [t for t in range(max(end - overlap, first + 1), end) if breaks[t] >= WORD]
        if words and next_first != end:
            assert next_first == words[0]


def test_a_chunk_ends_with_a_sentence_where_one_ends_near_its_end():
    breaks = np.full(40, WORD, np.int8)
    breaks[[0, 8, 18, 33]] = SENTENCE
    assert cut(breaks, 20, 4).tolist() == [[0, 18], [14, 33], [29, 40]]


def test_a_word_that_does_not_fit_behind_the_overlap_ends_it():
    breaks = np.full(30, CHARACTER, np.int8)
    breaks[:10] = WORD
    breaks[19] = WORD
    # The word of tokens 9 to 18 has ten tokens: with two of overlap it would be too long.
    assert cut(breaks, 10, 5).tolist()[:3] == [[0, 9], [9, 19], [19, 29]]


# --- the chunker ---


@pytest.fixture(scope="module")
def static_chunker() -> Chunker:
    return Chunker.load("package:wordllama", 24, 6)


@pytest.fixture(scope="module")
def bert_chunker(tiny_transformer) -> Chunker:
    return Chunker.load(str(tiny_transformer), 30, 8)


@settings(deadline=None, max_examples=150)
@given(text=TEXTS, title=st.sampled_from(["", "A title ", "title " * 40]), bert=st.booleans())
def test_chunks_are_slices_of_the_text_and_fit_by_the_tokenizer(
    text, title, bert, static_chunker, bert_chunker
):
    chunker = bert_chunker if bert else static_chunker
    (chunks,) = chunker.cut([title + text], [title]).chunks
    assert int(chunker.count(chunks).max(initial=0)) <= chunker.limit
    whole = int(chunker.count([title + text])[0])
    if whole <= chunker.limit:
        assert chunks == [title + text]
        return
    prefix, spans = chunker.spans(
        title + text, title, chunker.tokenizer.encode(title + text, add_special_tokens=False)
    )
    assert prefix == (title if int(chunker.count([title])[0]) <= chunker.limit // 2 else "")
    assert chunks == [prefix + (title + text)[first:last] for first, last in spans]
    covered, last_end = len(prefix), 0
    for first, end in spans:
        own = (title + text)[first:end]
        assert own == own.strip() != ""
        assert (title + text)[covered:first].strip() == ""
        assert end >= last_end
        covered, last_end = max(covered, end), end
    assert (title + text)[covered:].strip() == ""
    for (_, end), (first, _) in pairwise(spans):
        repeated = (title + text)[first:end] if first < end else ""
        assert int(chunker.count([repeated])[0]) <= chunker.overlap + 2


def test_the_limit_counts_what_the_model_reads(tiny_transformer, bert_chunker):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_transformer), device="cpu")
    text = "the quick brown fox jumps over the lazy dog. " * 8
    (chunks,) = bert_chunker.cut([text], [""]).chunks
    read = model.preprocess(chunks)["attention_mask"].sum(1)
    assert int(read.max()) == 30
    prompted = Chunker.load(str(tiny_transformer), 30, 8, ["passage: "])
    (chunks,) = prompted.cut([text], [""]).chunks
    read = model.preprocess(["passage: " + one for one in chunks])["attention_mask"].sum(1)
    assert int(read.max()) <= 30
    assert prompted.digest() != bert_chunker.digest()


def test_a_chunk_larger_than_the_model_is_refused(tiny_transformer):
    with pytest.raises(ConfigError, match="reads 128; give --chunk 128,32"):
        Chunker.load(str(tiny_transformer), 200, 32)
    with pytest.raises(ConfigError, match="reads 20"):
        Chunker.load(str(tiny_transformer), 30, 8, max_length=20)
    with pytest.raises(ConfigError, match="leaves 18 tokens"):
        Chunker.load(str(tiny_transformer), 20, 18)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"chunk": (64,)}, "TOKENS,OVERLAP"),
        ({"chunk": (64, 64)}, "TOKENS,OVERLAP"),
        ({"chunk": (64, 16)}, "--tokenizer"),
        ({"positive_chunk": "all"}, "needs --chunk"),
        ({"tokenizer": "package:wordllama"}, "needs --chunk"),
        (
            {"chunk": (64, 16), "tokenizer": "x", "pairs": None},
            "needs PAIRS or --sources",
        ),
    ],
)
def test_options_of_chunks_that_do_not_fit_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        IngestConfig(**{"pairs": "x", **fields})


# --- the positive ---


def test_the_best_chunk_is_the_one_whose_own_words_the_query_has():
    chunks = [
        term_counts(one)
        for one in ("the club in rome", "the club and its coach anna", "the club sold the bus")
    ]
    assert best_chunk(term_counts("who is the coach of the club"), chunks) == 1
    assert best_chunk(term_counts("the club"), chunks) == 2  # it has "the" twice
    assert best_chunk(term_counts("xyz"), chunks) is None


# --- groups in a batch ---


def test_members_of_groups_are_those_among_the_texts():
    groups = Ragged(np.array([0, 2, 2, 3]), np.array([0, 5, 7]))
    found = members_of(groups, np.array([1, 2, 5, 9]), np.array([0, 0, 5, 8]))
    assert found.offsets.tolist() == [0, 3, 3, 3]
    assert found.values.tolist() == [1, 2, 5]


def batch_of(anchors, positives, negatives, ignored, known, groups):
    def ragged(rows):
        return Ragged(
            np.cumsum([0, *map(len, rows)]), np.array([v for r in rows for v in r], np.int64)
        )

    none = ragged([[] for _ in anchors])
    return BatchIds(
        len(anchors), np.array(anchors), np.array(positives), ragged(negatives), ragged(ignored),
        ragged(known), none, np.arange(len(anchors)),
        Groups(np.array(list(groups)), np.array(list(groups.values()))),
    )  # fmt: skip


def found_in(batch, check, *arguments):
    return list(in_order(check(batch, *arguments), batch.batch_size))


def test_verify_finds_a_chunk_of_a_positive_document():
    groups = {1: 0, 2: 0}  # passages 0, 1 and 2 are one document
    fine = batch_of([10, 11], [1, 3], [[4], []], [[], []], [[0], [3]], groups)
    assert not found_in(fine, check_pair_batches)
    wrong = batch_of([10, 11], [1, 3], [[2], [4]], [[2], []], [[0], [3]], groups)
    assert [one.ids for one in found_in(wrong, check_pair_batches)] == [(2,)]
    # Another row has a chunk of the document: it must be ignored, and strict forbids it.
    other = batch_of([10, 11], [1, 3], [[4], [2]], [[], []], [[0], [3]], groups)
    (found,) = found_in(other, check_pair_batches)
    assert (found.row, found.ids) == (0, (2,))
    assert "misses" in found.what
    assert any("twice" in one.what for one in found_in(other, check_strict_batches, 1))
    masked = batch_of([10, 11], [1, 3], [[4], [2]], [[2], []], [[0], [3]], groups)
    assert not found_in(masked, check_pair_batches)


# --- shared chunks, files, sources ---

ALONE = " ".join(f"z{number}" for number in range(60))
FOOTER = "all rights reserved by the same publisher in every country of the world . " * 3


def long_text(name: str) -> str:
    """A text of its own, then a footer that is a chunk alone."""
    return " ".join(f"{name}{number}" for number in range(30)) + ".\n" + FOOTER.strip()


def write_jsonl(path: Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


@pytest.fixture
def shared_footer(tmp_path: Path, tiny_transformer: Path) -> IngestConfig:
    """Four documents with one footer; "own" asks for the second, "both" for two."""
    documents = [long_text(name) for name in "abcd"]
    pairs = [
        {"query": "own b7", "passage": documents[1]},
        {"query": "both", "passage": documents[2]},
        {"query": "both", "passage": documents[3]},
        {"query": "short", "passage": "a short text"},
    ]
    corpus = [{"text": one} for one in (*documents, ALONE)]
    return IngestConfig(
        pairs=write_jsonl(tmp_path / "pairs.jsonl", pairs),
        corpus=write_jsonl(tmp_path / "corpus.jsonl", corpus),
        chunk=(100, 10),
        tokenizer=str(tiny_transformer),
        run_dir=str(tmp_path / "run"),
    )


def test_a_shared_chunk_joins_no_documents_and_is_no_negative(shared_footer):
    run_ingest(shared_footer)
    store = TextStore.open(require(RunDir(shared_footer.run_dir), "texts"))
    texts = store.passages.column("text").to_pylist()
    documents = store.documents
    assert documents is not None
    assert len(documents.passage_ids) == 5
    chunks = [set(documents.passage_ids.row(n).tolist()) for n in range(4)]
    shared = set.intersection(*chunks)
    assert shared
    groups = TextGroups.of_texts(store).passages
    # The first document owns what all share; the others stay apart.
    assert {int(groups[one]) for one in shared} == {int(min(chunks[0]))}
    owned = [{int(groups[one]) for one in part - shared} for part in chunks]
    assert all(len(one) == 1 for one in owned)
    assert len(set.union(*owned)) == 4
    known = {(int(q), int(p)) for q, p in zip(*store.known_positives, strict=True)}
    queries = store.queries.column("text").to_pylist()
    for query, positives in (("own b7", [1]), ("both", [2, 3])):
        expected = {int(groups[p]) for number in positives for p in chunks[number]}
        asked = queries.index(query)
        assert {int(groups[p]) for q, p in known if q == asked} == expected
    chosen = dict(zip(store.pair_query_ids.tolist(), store.pair_passage_ids.tolist(), strict=True))
    assert "b7" in texts[chosen[queries.index("own b7")]]


def test_a_query_that_is_a_chunk_of_its_document_makes_no_row(shared_footer, tmp_path):
    run_ingest(shared_footer)
    store = TextStore.open(require(RunDir(shared_footer.run_dir), "texts"))
    assert store.documents is not None
    chunk = store.passages["text"][int(store.documents.passage_ids.row(4)[1])].as_py()
    pairs = [{"query": chunk, "passage": ALONE}, {"query": "z7 z8", "passage": ALONE}]
    path = write_jsonl(tmp_path / "more.jsonl", pairs)
    counts = run_ingest(replace(shared_footer, pairs=path, run_dir=str(tmp_path / "two"))).counts
    assert counts["pairs_dropped"]["query_is_its_passage"] == 1
    assert counts["pairs_in"] == counts["pairs_kept"] + 1 == counts["pair_rows"] + 1 == 2


def test_other_tokens_or_overlap_are_another_plan(shared_footer):
    run_ingest(shared_footer)
    assert run_ingest(shared_footer).skipped
    for change in ({"chunk": (100, 12)}, {"positive_chunk": "first"}, {"title": "none"}):
        with pytest.raises(ArtifactError, match=next(iter(change))):
            run_ingest(replace(shared_footer, **change))
    with pytest.raises(ArtifactError, match="tokenizer"):
        run_ingest(replace(shared_footer, tokenizer="package:wordllama"))


def test_a_named_document_stands_for_its_chunks(shared_footer, tmp_path):
    """Candidates and held-out data know documents, not chunks."""
    run_ingest(shared_footer)
    store = TextStore.open(require(RunDir(shared_footer.run_dir), "texts"))
    rows = [("own b7", long_text("d")), ("own b7", "a short text"), ("own b7", "unknown")]
    path = write_jsonl(tmp_path / "run.jsonl", [{"q": one, "p": two} for one, two in rows])
    found = CandidateFile.open(path).candidates(store)
    assert store.documents is not None
    texts = store.passages.column("text").to_pylist()
    expected = {*store.documents.passage_ids.row(3).tolist(), texts.index("a short text")}
    assert set(found.passage_ids.tolist()) == expected
    assert set(found.query_ids.tolist()) == {
        store.queries.column("text").to_pylist().index("own b7")
    }
    assert found.num_unknown == {"query": 0, "passage": 1}
    held_out = [{"q": "new", "p": long_text("b")}, {"q": "other", "p": ALONE}]
    path = write_jsonl(tmp_path / "dev.jsonl", held_out)
    data = read_evaluation_set("dev", PairSource.open(path, SourceFields(), "dev"))
    found = in_training(store, TextGroups.of_texts(store), data)
    assert found.seen.tolist() == [True, False]
    assert found.by_text.seen == 0
    # A document that was cut is a positive in training as a whole.
    assert found.by_positive == (1, 2)


@pytest.mark.parametrize("title", ["every", "first", "none"])
def test_titles_stand_where_asked(title, tmp_path, tiny_transformer):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": "D1", "title": "The Title", "text": long_text("a")},
        {"_id": "D2", "title": "The Title", "text": "short"},
    ]
    write_jsonl(folder / "corpus.jsonl", corpus)
    write_jsonl(folder / "queries.jsonl", [{"_id": "Q", "text": "what"}])
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nQ\tD1\t1\n")
    config = IngestConfig(
        pairs=str(folder), chunk=(80, 8), title=title, tokenizer=str(tiny_transformer),
        run_dir=str(tmp_path / "run"),
    )  # fmt: skip
    run_ingest(config)
    store = TextStore.open(require(RunDir(config.run_dir), "texts"))
    passages = store.passages.to_pylist()
    titled = [one["text"].startswith("The Title ") for one in passages]
    assert [one["original_id"] for one in passages][:2] == ["D1#0", "D1#1"]
    assert len(passages) > 3
    if title == "first":
        assert titled == [True, *[False] * (len(passages) - 2), True]
    else:
        assert titled == [title == "every"] * len(passages)


@pytest.mark.parametrize("how", ["best", "all"])
def test_chunks_of_several_sources_keep_their_source(how, tmp_path, tiny_transformer):
    sources = []
    for name in ("one", "two"):
        pairs = [
            {"q": f"{name} {n}", "p": long_text(f"{name}{'abcdefgh'[n]}"), "n": long_text("x")}
            for n in range(8)
        ]
        # The second source repeats a pair of the first.
        pairs += [{"q": "one 3", "p": long_text("oned"), "n": ""}] if name == "two" else []
        sources.append(
            Source(
                name=name,
                path=write_jsonl(tmp_path / f"{name}.jsonl", pairs),
                negative_column=("n",),
                passage_prompt="a long prompt: " if name == "two" else "",
            )
        )
    config = IngestConfig(
        sources=tuple(sources), chunk=(100, 10), positive_chunk=how,
        tokenizer=str(tiny_transformer), run_dir=str(tmp_path / how),
    )  # fmt: skip
    counts = run_ingest(config).counts
    assert counts["pairs_in"] == counts["pairs_kept"] + sum(counts["pairs_dropped"].values()) == 17
    assert counts["pairs_dropped"]["in_an_earlier_source"] == 1
    for name, one in counts["sources"].items():
        assert one["pairs_in"] == one["pairs_kept"] + sum(one["pairs_dropped"].values())
        assert one["pairs_kept"] == 8, name
    manifest = require(RunDir(config.run_dir), "texts")
    store = TextStore.open(manifest)
    assert store.sources is not None
    queries, passages = (
        table.column("text").to_pylist() for table in (store.queries, store.passages)
    )
    of_pairs = store.sources.numbers["pair"].tolist()
    assert len(of_pairs) == store.num_pairs
    for query, source in zip(store.pair_query_ids.tolist(), of_pairs, strict=True):
        assert queries[query].startswith(("one", "two")[source])
    for text, source in zip(passages, store.sources.numbers["passage"].tolist(), strict=True):
        if text.startswith(("one", "two")):
            assert text.startswith(("one", "two")[source])
    # A known negative stands for all chunks of its document.
    assert store.documents is not None
    known = pa.ipc.open_file(manifest.folder / "negatives.arrow").read_all()
    listed = [set(store.documents.passage_ids.row(n).tolist()) for n in range(17)]
    rejected = next(one for one in listed if any(passages[p].startswith("x0") for p in one))
    assert set(known.column("passage_id").to_pylist()) == rejected
    assert known.num_rows == 16 * len(rejected)


def test_labels_keep_chunks_of_one_document_apart(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs["best"], run)
    run_pack(
        PackConfig(run_dir=str(run), layout="labels", batch_size=24, texts_per_label=4, packings=2)
    )
    run_verify(VerifyConfig(run_dir=str(run)))
    store = TextStore.open(require(RunDir(run), "texts"))
    groups = Groups.of_all(TextGroups.of_texts(store).of_text_ids(store))
    for shard in (one for packing in list_packings(run / "batches") for one in packing):
        for number in range(shard.num_batches):
            table = shard.batch(number)
            owner: dict[int, int] = {}
            for text, label in zip(
                groups.of(table.column("text_id").to_numpy()).tolist(),
                table.column("label").to_pylist(),
                strict=True,
            ):
                assert owner.setdefault(text, label) == label


# --- end to end ---


@pytest.fixture(scope="module")
def runs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """xquad-en by the way of choosing positives, mined."""
    found = {}
    for how in ("best", "first", "all"):
        run = tmp_path_factory.mktemp("chunked") / how
        embed = EmbedConfig(
            pairs=str(shared_data / "xquad-en"),
            split="test",
            chunk=(TOKENS, OVERLAP),
            positive_chunk=how,
            run_dir=str(run),
            device="cpu",
        )
        run_embed(embed)
        run_mine(MineConfig(run_dir=str(run), k=4, device="cpu"))
        found[how] = run
    return found


def document_of(store: TextStore) -> dict[int, set[str]]:
    """Original ids of the documents that hold each passage."""
    found: dict[int, set[str]] = {}
    for number, name in enumerate(store.passages.column("original_id").to_pylist()):
        found.setdefault(number, set()).add(name.split("#")[0])
    assert store.documents is not None
    names = store.documents.original_ids.to_pylist()
    for name, row in zip(names, range(len(names)), strict=True):
        for passage in store.documents.passage_ids.row(row):
            found[int(passage)].add(name)
    return found


@pytest.fixture(scope="module")
def relevant(shared_data: Path) -> dict[str, set[str]]:
    """Query text -> ids of its relevant documents, read without any code of ours."""
    folder = shared_data / "xquad-en"
    lines = (folder / "queries.jsonl").read_text("utf-8").splitlines()
    texts = {one["_id"]: one["text"] for one in map(json.loads, lines)}
    found: dict[str, set[str]] = {}
    for line in (folder / "qrels/test.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, score = line.split("\t")
        if float(score) > 0:
            found.setdefault(texts[query], set()).add(document)
    return found


def test_the_chunks_of_a_document_are_one_group(runs, shared_data):
    store = TextStore.open(require(RunDir(runs["best"]), "texts"))
    documents, passages = store.documents, store.passages.to_pylist()
    assert documents is not None
    originals = {}
    for line in (shared_data / "xquad-en/corpus.jsonl").read_text("utf-8").splitlines():
        one = json.loads(line)
        originals[one["_id"]] = one
    assert len(documents.original_ids) > 200
    for name, chunks in zip(
        documents.original_ids.to_pylist(),
        (documents.passage_ids.row(n) for n in range(len(documents.original_ids))),
        strict=True,
    ):
        own = [one for one in chunks if passages[one]["original_id"].split("#")[0] == name]
        assert set(TextGroups.of_texts(store).passages[own]) == {min(own)}
        assert [passages[one]["original_id"] for one in chunks] == [
            f"{name}#{number}" for number in range(len(chunks))
        ]
        for one in chunks:
            text = passages[one]["text"]
            prefix = originals[name]["title"] + " "
            assert text.startswith(prefix)
            assert text.removeprefix(prefix) in originals[name]["text"]


def test_counts_of_chunks_add_up(runs):
    counts = require(RunDir(runs["best"]), "texts").counts
    assert counts["documents"] == 240
    whole = counts["documents"] - counts["documents_cut"]
    assert counts["chunks"] + whole == counts["passages"]
    assert counts["pairs_in"] == counts["pairs_kept"] + sum(counts["pairs_dropped"].values())
    store = TextStore.open(require(RunDir(runs["all"]), "texts"))
    counts = require(RunDir(runs["all"]), "texts").counts
    assert counts["pairs_in"] == counts["pairs_kept"] + sum(counts["pairs_dropped"].values())
    assert counts["pair_rows"] == store.num_pairs > 4 * counts["pairs_kept"]


def test_best_finds_better_chunks_than_first(runs):
    """By the score of the model, which did not choose."""
    means = {}
    for how in ("best", "first"):
        files = (runs[how] / "negatives").glob("negatives-*")
        columns = [pa.ipc.open_file(one).read_all().column("positive_score") for one in files]
        means[how] = np.concatenate([one.to_numpy() for one in columns]).mean()
    assert means["best"] > means["first"] + 0.05


@pytest.mark.parametrize("how", ["best", "first", "all"])
def test_no_pool_holds_a_chunk_of_a_positive_document(how, runs, relevant):
    store = TextStore.open(require(RunDir(runs[how]), "texts"))
    of, queries = document_of(store), store.queries.column("text").to_pylist()
    num_seen = 0
    for path in sorted((runs[how] / "negatives").glob("negatives-*")):
        for unit in pa.ipc.open_file(path).read_all().to_pylist():
            known = relevant[queries[unit["query_id"]]]
            names = [of[one] for one in unit["passage_ids"]]
            assert not any(known & one for one in names)
            # And one chunk a document at most.
            assert sum(map(len, names)) == len(set().union(*names))
            num_seen += len(names)
    assert num_seen > 10_000


@pytest.mark.parametrize("how", ["best", "all"])
@pytest.mark.parametrize("policy", ["merge", "strict"])
@pytest.mark.parametrize("layout", ["inline", "ids"])
def test_no_batch_has_a_chunk_of_a_positive_document_unmasked(
    how, policy, layout, runs, relevant, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(runs[how], run)
    size = 64 if policy == "merge" else 12
    pack = PackConfig(run_dir=str(run), batch_size=size, policy=policy, layout=layout, packings=2)
    run_pack(pack)
    run_verify(VerifyConfig(run_dir=str(run)))
    store = TextStore.open(require(RunDir(run), "texts"))
    of, masked = document_of(store), 0
    for shard in (one for packing in list_packings(run / "batches") for one in packing):
        for number in range(shard.num_batches):
            table = shard.batch(number)
            slots = slot_text_ids(table, shard.num_negatives)
            texts = {int(p): store.passages["text"][int(p)].as_py() for p in slots[slots >= 0]}
            assert table.column("positive").to_pylist() == [texts[p] for p in slots[0].tolist()]
            rows = zip(
                table.column("anchor").to_pylist(),
                slots[0].tolist(),
                table.column("ignore_ids").to_pylist(),
                strict=True,
            )
            for anchor, positive, ignored in rows:
                expected = {p for p in texts if p != positive and of[p] & relevant[anchor]}
                assert expected == set(ignored)
                masked += len(ignored)
    assert (masked > 0) == (policy == "merge")


def test_verify_misses_no_group(runs, tmp_path):
    """Without the table of groups a chunk of a positive document would go unnoticed."""
    run = tmp_path / "run"
    shutil.copytree(runs["best"], run)
    run_pack(PackConfig(run_dir=str(run), batch_size=12, policy="strict"))
    folder = run / "batches"
    groups = pq.read_table(folder / GROUPS)
    assert groups.num_rows > 500
    # Were all passages one document, every row would hold it twice.
    one = pa.table({"text_id": groups["text_id"], "group": pa.array([0] * groups.num_rows)})
    pq.write_table(one, folder / GROUPS)
    (folder / "manifest.json").unlink()
    with pytest.raises(ViolationError, match="twice in a strict batch"):
        run_verify(VerifyConfig(directory=str(folder), run_dir=str(run), max_violations=1_000))
