"""Several sources: one id space, prompts of their own, batches of one source or in proportion."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.errors import ArtifactError, ConfigError, InputError, ViolationError
from stx_mine.inputs.config import Source
from stx_mine.inputs.stage_settings import load_sources
from stx_mine.models.load import load_model
from stx_mine.models.tokenise import Tokeniser
from stx_mine.pipeline import load_pipeline, pipeline_steps
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.stage import run_ingest
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.composition import Composition
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.core.assign import Assignment, assign_merge
from stx_mine.stages.pack.core.strata import assign_beside, interleaved, rows_to_take, take_rows
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.collator import PackedCollator
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.verify.config import VerifyConfig
from stx_mine.stages.verify.stage import run_verify
from stx_mine.store.artifact import require
from stx_mine.store.batches import list_packings
from stx_mine.store.digests import normalise
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import SourceInfo, SourceTable
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

SHELL, BANK = "write a shell command: ", "banking question: "
NONE = np.empty(0, np.int64)


def write_pairs(path: Path, pairs: list[tuple[str, str]]) -> Path:
    columns = {"query": [q for q, _ in pairs], "passage": [p for _, p in pairs]}
    pq.write_table(pa.table(columns, schema=pa.schema(dict.fromkeys(columns, pa.string()))), path)
    return path


def beir_pairs(folder: Path, split: str, num_pairs: int) -> list[tuple[str, str]]:
    """A pair of each of the first queries, each with a passage of its own."""

    def texts(name: str) -> dict[str, str]:
        rows = map(json.loads, (folder / f"{name}.jsonl").read_text("utf-8").splitlines())
        return {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in rows}

    queries, passages = texts("queries"), texts("corpus")
    first: dict[str, str] = {}
    used: set[str] = set()
    lines = (folder / "qrels" / f"{split}.tsv").read_text("utf-8").splitlines()[1:]
    for query, passage, score in (line.split("\t") for line in lines):
        fresh = query not in first and passage not in used
        if float(score) > 0 and fresh and len(first) < num_pairs:
            first[query] = passage
            used.add(passage)
    return [(queries[query], passages[passage]) for query, passage in first.items()]


@pytest.fixture(scope="module")
def two_inputs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shell.parquet` (300 pairs of nl2bash) and `bank.parquet` (200 of banking77)."""
    folder = tmp_path_factory.mktemp("two_inputs")
    write_pairs(folder / "shell.parquet", beir_pairs(shared_data / "nl2bash", "train", 300))
    write_pairs(folder / "bank.parquet", beir_pairs(shared_data / "banking77", "test", 200))
    return folder


def two_sources(folder: Path, **of_shell: object) -> tuple[Source, ...]:
    return (
        Source(name="shell", path=str(folder / "shell.parquet"), **of_shell),
        Source(name="bank", path=str(folder / "bank.parquet")),
    )


def make_run(run: Path, sources: tuple[Source, ...]) -> Path:
    run_embed(EmbedConfig(run_dir=str(run), sources=sources, device="cpu"))
    run_mine(MineConfig(run_dir=str(run), k=3, device="cpu"))
    return run


@pytest.fixture(scope="module")
def prompted_run(two_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources with prompts of their own, embedded and mined."""
    shell, bank = two_sources(two_inputs, query_prompt=SHELL)
    bank = Source(name="bank", path=bank.path, query_prompt=BANK, passage_prompt="answer: ")
    return make_run(tmp_path_factory.mktemp("prompted") / "run", (shell, bank))


@pytest.fixture(scope="module")
def plain_run(two_inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same sources without prompts."""
    return make_run(tmp_path_factory.mktemp("plain") / "run", two_sources(two_inputs))


def copied(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def store_of(run: Path) -> TextStore:
    return TextStore.open(require(RunDir(run), "texts"))


def pack(run: Path, **fields: object):
    return run_pack(PackConfig(run_dir=str(run), overwrite=True, **fields))


def batches_of(run: Path, packing: int) -> list[pa.Table]:
    shards = list_packings(run / "batches")[packing]
    return [shard.batch(number) for shard in shards for number in range(shard.num_batches)]


# --- ingest ---

TEXT = st.sampled_from(["a", "b", " b ", "c", "d", "", "e"])
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=8)


def normal(text: str) -> str:
    return normalise(pa.array([text], pa.large_string()))[0].as_py()


def drop_reason(query: str, passage: str, source: int, seen: dict[tuple[str, str], int]) -> str:
    if not query or not passage:
        return "empty_passage" if query else "empty_query"
    if query == passage:
        return "query_is_its_passage"
    if (query, passage) in seen:
        return "in_an_earlier_source" if seen[query, passage] < source else "repeated_pair"
    return ""


def by_hand(inputs):
    """Distinct texts of both roles with their first source, kept pairs, reasons by source."""
    texts: tuple[dict[str, tuple[str, int]], ...] = ({}, {})
    pairs, seen, dropped = [], {}, [Counter() for _ in inputs]
    for s, rows in enumerate(inputs):
        for row in rows:
            query, passage = map(normal, row)
            for role, text in enumerate((query, passage)):
                if text:
                    texts[role].setdefault(text, (row[role], s))
            reason = drop_reason(query, passage, s, seen)
            if reason:
                dropped[s][reason] += 1
            else:
                seen[query, passage] = s
                pairs.append((query, passage, s))
    return texts, pairs, dropped


@settings(deadline=None)
@given(st.lists(PAIRS.map(lambda pairs: [("own q", "own p"), *pairs]), min_size=1, max_size=3))
def test_several_sources_are_one_id_space_as_by_hand(tmp_path_factory, inputs):
    folder = tmp_path_factory.mktemp("by_hand")
    inputs = [[*one, (f"q{s}", f"p{s}")] for s, one in enumerate(inputs)]
    sources = tuple(
        Source(name=f"s{s}", path=str(write_pairs(folder / f"{s}.parquet", pairs)))
        for s, pairs in enumerate(inputs)
    )
    counts = run_ingest(IngestConfig(run_dir=str(folder / "run"), sources=sources)).counts
    store = store_of(folder / "run")

    texts, pairs, dropped = by_hand(inputs)
    found = (store.queries, store.passages)
    for role, name in ((0, "query"), (1, "passage")):
        column = found[role]["text"].to_pylist()
        assert column == [text for text, _ in texts[role].values()]
        assert store.sources.numbers[name].tolist() == [s for _, s in texts[role].values()]
    queries, passages = (list(one) for one in texts)
    stored = np.stack(
        [store.pair_query_ids, store.pair_passage_ids, store.sources.numbers["pair"]], axis=1
    )
    assert [(queries[q], passages[p], s) for q, p, s in stored.tolist()] == pairs
    for s, rows in enumerate(inputs):
        one = counts["sources"][f"s{s}"]
        assert Counter(one["pairs_dropped"]) == dropped[s]
        assert one["pairs_in"] == len(rows) == one["pairs_kept"] + dropped[s].total()
    assert counts["pairs_in"] == counts["pairs_kept"] + sum(counts["pairs_dropped"].values())
    assert Counter(counts["pairs_dropped"]) == sum(dropped, Counter())


def test_equal_ids_of_two_beir_folders_are_different_texts(tmp_path):
    for name in ("one", "two"):
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        lines = {"queries": f"query of {name}", "corpus": f"passage of {name}"}
        for file, text in lines.items():
            (folder / f"{file}.jsonl").write_text(json.dumps({"_id": "1", "text": text}) + "\n")
        (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\n1\t1\t1\n")
    sources = tuple(Source(name=one, path=str(tmp_path / one)) for one in ("one", "two"))
    run_ingest(IngestConfig(run_dir=str(tmp_path / "run"), sources=sources))
    store = store_of(tmp_path / "run")
    assert store.queries["text"].to_pylist() == ["query of one", "query of two"]
    assert store.passages["original_id"].to_pylist() == ["1", "1"]
    assert store.pair_passage_ids.tolist() == [0, 1]


def test_a_corpus_and_known_negatives_belong_to_their_source(tmp_path):
    write_pairs(tmp_path / "one.parquet", [("q1", "p1")])
    columns = {"query": ["q2"], "passage": ["p2"], "wrong": ["p1"]}
    pq.write_table(pa.table(columns), tmp_path / "two.parquet")
    pq.write_table(pa.table({"text": ["c", "p1"]}), tmp_path / "corpus.parquet")
    two = Source(
        name="two",
        path=str(tmp_path / "two.parquet"),
        corpus=str(tmp_path / "corpus.parquet"),
        negative_column=("wrong",),
    )
    sources = (Source(name="one", path=str(tmp_path / "one.parquet")), two)
    counts = run_ingest(IngestConfig(run_dir=str(tmp_path / "run"), sources=sources)).counts
    store = store_of(tmp_path / "run")
    assert store.passages["text"].to_pylist() == ["p1", "c", "p2"]
    assert store.sources.numbers["passage"].tolist() == [0, 1, 1]
    assert (counts["known_negatives"], counts["corpus_rows"]) == (1, 2)
    assert counts["passages_only_in_pairs"] == 1


def test_texts_of_two_prompts_are_counted_and_take_the_first(tmp_path, cli_here):
    write_pairs(tmp_path / "a.parquet", [("shared", "p1"), ("own", "both")])
    write_pairs(tmp_path / "b.parquet", [("shared", "p2"), ("other", "both")])
    (tmp_path / "s.yaml").write_text(
        yaml.safe_dump(
            [
                {"name": "a", "path": str(tmp_path / "a.parquet"), "query_prompt": "A: "},
                {"name": "b", "path": str(tmp_path / "b.parquet"), "query_prompt": "B: "},
            ]
        )
    )
    done = cli_here("embed", "--sources", tmp_path / "s.yaml", run_dir=tmp_path / "run")
    assert done.code == 0, done
    assert "1 query texts stand in sources of different query prompts" in done.stdout
    assert "passage texts" not in done.stdout
    assert "source b: query prompt 'B: '" in done.stdout
    embeddings = require(RunDir(tmp_path / "run"), "embeddings")
    vectors = Vectors.open(embeddings, "queries").shards[0]
    model = load_model("package:wordllama", "cpu")
    expected = model.encode(["A: shared", "A: own", "B: other"])
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-6)


# --- what a user gets wrong ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("just text", "expected a list of sources, each with name: and path:"),
        ("[]", "expected a list of sources"),
        ("- {path: a}", "every source needs a name"),
        ("- {name: a}", "every source needs a path"),
        ("- {name: a, path: p, promt: x}", r"sources\[0\].promt is no field.*query_prompt"),
        ("- {name: a, path: p, weight: 0}", "weight of source 'a' must be above 0, found 0"),
        ("- {name: a, path: p, weight: much}", r"sources\[0\].weight must be a number"),
        ("- {name: a, path: p}\n- {name: a, path: q}", "different names, found a more than once"),
        ("- {name: a, path: nothing.parquet}", "expected a file at nothing.parquet, found nothing"),
    ],
)
def test_mistakes_in_a_list_of_sources_are_named(tmp_path, cli_here, content, message):
    path = tmp_path / "s.yaml"
    path.write_text(content)
    assert_error = cli_here("ingest", "--sources", path, run_dir=tmp_path / "run")
    assert assert_error.code == 2
    with pytest.raises((ConfigError, InputError), match=message):
        run_ingest(IngestConfig(run_dir=str(tmp_path / "run"), sources=load_sources(str(path))))


def test_pairs_are_said_once():
    sources = (Source(name="a", path="a.parquet"),)
    with pytest.raises(ConfigError, match="PAIRS or --sources, found both"):
        IngestConfig(pairs="b.parquet", sources=sources)
    with pytest.raises(ConfigError, match="--corpus or --sources, found both"):
        IngestConfig(corpus="c.parquet", sources=sources)
    with pytest.raises(ConfigError, match="PAIRS or --sources, found neither"):
        run_ingest(IngestConfig())


def test_a_source_without_a_usable_pair_is_named(tmp_path):
    write_pairs(tmp_path / "a.parquet", [("q", "p")])
    write_pairs(tmp_path / "b.parquet", [("q", "p")])
    sources = tuple(Source(name=one, path=str(tmp_path / f"{one}.parquet")) for one in "ab")
    with pytest.raises(InputError, match=r"no usable pair in .*b.parquet \(in_an_earlier_source 1"):
        run_ingest(IngestConfig(run_dir=str(tmp_path / "run"), sources=sources))


def test_sources_in_a_pipeline_file(tmp_path):
    entry = {"name": "a", "path": "a.parquet", "weight": 2, "query_prompt": "A: "}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"embed": {"sources": [entry]}, "mine": {}}))
    (tmp_path / "list.yaml").write_text(yaml.safe_dump([entry]))
    (tmp_path / "q.yaml").write_text(f"embed: {{sources: {tmp_path}/list.yaml}}\nmine: {{}}")
    for name in ("p", "q"):
        pipeline = load_pipeline(str(tmp_path / f"{name}.yaml"), [])
        ((_, _, embed), *_) = pipeline_steps(pipeline)
        assert embed.sources == (
            Source(name="a", path="a.parquet", weight=2.0, query_prompt="A: "),
        )
    with pytest.raises(ConfigError, match=r"sources\[0\].pats is no field"):
        load_pipeline(str(tmp_path / "p.yaml"), ["embed.sources=[{name: a, pats: b}]"])


# --- composition: invariants ---

SIZES = st.lists(st.integers(0, 60), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) > 0)
WEIGHTS = st.lists(st.floats(0.01, 100), min_size=4, max_size=4)


@given(SIZES, WEIGHTS, st.floats(0.2, 50))
def test_a_packing_takes_as_many_rows_as_the_shares_allow(sizes, weights, temperature):
    sizes_S, weights_S = np.array(sizes), np.array(weights[: len(sizes)])
    taken = rows_to_take(sizes_S, weights_S, temperature)
    assert (taken <= sizes_S).all()
    logs = [np.log(w * n) / temperature for w, n in zip(weights_S, sizes_S, strict=True) if n]
    shares = np.exp(np.array(logs) - max(logs))
    exact = (sizes_S[sizes_S > 0] / shares).min() * shares
    # Whole rows, rounded down.
    assert (taken[sizes_S > 0] <= exact + 1e-3).all()
    assert (taken[sizes_S > 0] > exact - 1 - 1e-3).all()
    assert (taken == sizes_S)[sizes_S > 0].any()


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6), st.floats(0.01, 100))
def test_equal_weights_take_every_row(sizes, weight):
    sizes_S = np.array(sizes)
    taken = rows_to_take(sizes_S, np.full(len(sizes), weight), 1.0)
    assert taken.tolist() == sizes


def test_shares_worked_by_hand():
    sizes = np.array([1_000, 100])
    assert rows_to_take(sizes, np.ones(2), 2.0).tolist() == [316, 100]
    assert rows_to_take(sizes, np.array([1.0, 5.0]), 1.0).tolist() == [200, 100]
    assert rows_to_take(sizes, np.array([1.0, 0.5]), 1.0).tolist() == [1_000, 50]
    assert rows_to_take(sizes, np.ones(2), 1e9).tolist() == [100, 100]


@settings(deadline=None)
@given(SIZES, st.integers(1, 9), st.integers(0, 99))
def test_batches_beside_hold_every_source_in_proportion(sizes, size, seed):
    rng = np.random.default_rng(seed)
    sources = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int16)
    num = len(sources)
    groups = rng.integers(0, 5, num)
    parts = [rng.permutation(np.flatnonzero(sources == s)) for s in range(len(sizes))]
    order = interleaved(parts)

    def assign(rows, width):
        return assign_merge(np.arange(num), groups, width, rows, rng)

    done = assign_beside(order, sources, size, assign, rng)
    assert done.rows_PB.shape == (num // size, size)
    used = done.rows_PB.ravel()
    assert sorted([*used.tolist(), *done.left_out.tolist()]) == list(range(num))
    for source, count in enumerate(sizes):
        in_batch = (sources[done.rows_PB] == source).sum(1)
        if len(in_batch):
            assert in_batch.max() - in_batch.min() <= 1
            assert abs(in_batch.sum() - count * len(used) / num) <= len(sizes)


def test_a_repeated_text_is_spread_over_batches_within_its_source():
    rng = np.random.default_rng(0)
    sources = np.repeat([0, 1], [600, 200]).astype(np.int16)
    positives = np.arange(800) % 75
    order = interleaved([np.arange(600), np.arange(600, 800)])

    def assign(rows, width):
        return assign_merge(np.arange(800), positives, width, rows, rng)

    rows_PB = assign_beside(order, sources, 80, assign, rng).rows_PB
    for batch in rows_PB:
        # 8 rows of each positive in the first source, 2 or 3 in the second; 10 batches.
        for source in (0, 1):
            rows = batch[sources[batch] == source]
            assert np.bincount(positives[rows]).max() == 1


def composition_of(sizes, seed, config, prompts=None, weights=None, keys=None):
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int16)
    infos = tuple(SourceInfo(str(s), prompts[s] if prompts else None) for s in range(len(sizes)))
    weights = np.ones(len(sizes)) if weights is None else np.array(weights[: len(sizes)])
    table = SourceTable(infos, weights, {"pair": numbers})
    one = config.sources_per_batch == "one"
    return Composition(config, np.empty(0) if keys is None else keys, table, one), numbers


def first_come(rows, size):
    """The plainest assignment there is."""
    fits = len(rows) // size * size
    return Assignment(rows[:fits].reshape(-1, size), np.sort(rows[fits:]))


@settings(deadline=None)
@given(
    SIZES,
    WEIGHTS,
    st.integers(2, 9),
    st.integers(0, 99),
    st.sampled_from(["one", "mixed"]),
    st.sampled_from(["random", "easy-to-hard"]),
    st.booleans(),
)
def test_every_composition_keeps_its_promises(sizes, weights, size, seed, per_batch, order, equal):
    config = PackConfig(batch_size=size, sources_per_batch=per_batch, order=order)
    rng = np.random.default_rng(seed)
    keys = rng.random(sum(sizes)) if order != "random" else None
    weights = None if equal else weights
    composition, numbers = composition_of(sizes, seed, config, weights=weights, keys=keys)
    everything, uses = np.arange(sum(sizes)), np.zeros(sum(sizes), np.int64)
    taken = composition.rows_taken(everything)
    first, earlier = NONE, []
    for packing in range(4):
        others = rng.permutation(np.setdiff1d(everything, first))
        ordered = np.concatenate([rng.permutation(first), others])
        done = composition.assign(ordered, earlier, rng, first_come)
        packed = done.rows_PB.ravel()
        assert done.rows_PB.shape == (composition.num_batches(everything), size)
        assert len(set(packed.tolist())) == len(packed)
        assert sorted([*packed.tolist(), *done.left_out.tolist()]) == everything.tolist()
        by_source = np.bincount(numbers[packed], minlength=len(sizes))
        assert (by_source <= taken).all()
        if per_batch == "one":
            assert (numbers[done.rows_PB] == numbers[done.rows_PB][:, :1]).all()
            assert by_source.tolist() == (taken // size * size).tolist()
        elif len(packed):
            in_batch = np.stack([(numbers[done.rows_PB] == s).sum(1) for s in range(len(sizes))])
            share = taken / taken.sum() * size
            assert (np.abs(in_batch - share[:, None]) <= 1 + len(sizes)).all()
        if equal and per_batch == "mixed":
            assert len(done.rows_PB) == sum(sizes) // size
        if packing and per_batch == "one":
            # Rows left out come first: of each source as many as it gives batches for.
            for source in range(len(sizes)):
                waited = first[numbers[first] == source]
                here = set(packed[numbers[packed] == source].tolist())
                assert len(here & set(waited.tolist())) == min(len(waited), len(here))
        uses[packed] += 1
        earlier.append(done)
        first = done.left_out
    for source in range(len(sizes)):
        of_source = uses[numbers == source]
        if len(of_source) and per_batch == "one" and taken[source] % size == 0:
            # Nothing but the weights leaves rows out: they take turns.
            assert of_source.max() - of_source.min() <= 1


def test_the_rows_that_were_used_least_are_taken_first():
    order, sources = np.array([4, 0, 3, 1, 2]), np.zeros(5, np.int16)
    uses = np.array([0, 1, 0, 1, 1])
    assert take_rows(order, sources, np.array([3]), uses)[0].tolist() == [4, 0, 2]


# --- a run of two real sources ---


def test_the_prompts_of_a_source_reach_the_encoder(prompted_run):
    store, model = store_of(prompted_run), load_model("package:wordllama", "cpu")
    embeddings = require(RunDir(prompted_run), "embeddings")
    prompts = {"queries": ("query", (SHELL, BANK)), "passages": ("passage", (None, "answer: "))}
    for part, (role, by_source) in prompts.items():
        texts = getattr(store, part)["text"].to_pylist()
        stored = Vectors.open(embeddings, part).shards[0]
        encode = model.encode_query if role == "query" else model.encode_document
        for source, prompt in enumerate(by_source):
            ids = np.flatnonzero(store.sources.numbers[role] == source)
            assert len(ids) > 50
            expected = encode([texts[one] for one in ids], prompt=prompt)
            np.testing.assert_allclose(stored[ids], expected, rtol=1e-5, atol=1e-6)
            if prompt is not None:
                assert not np.allclose(stored[ids], encode([texts[one] for one in ids]), atol=1e-3)
    named = embeddings.fields["model"]["source_prompts"]
    assert named == {
        "shell": {"query": SHELL, "passage": None},
        "bank": {"query": BANK, "passage": "answer: "},
    }


@pytest.mark.parametrize(("policy", "layout"), [("merge", "ids"), ("strict", "inline")])
def test_sources_of_different_prompts_have_batches_of_their_own(
    prompted_run, tmp_path, policy, layout
):
    run = copied(prompted_run, tmp_path)
    report = pack(run, batch_size=16, k=1, policy=policy, packings=3, layout=layout)
    run_verify(VerifyConfig(run_dir=str(run)))
    store, orders = store_of(run), []
    for packing in range(3):
        sources = [batch["source"].to_pylist() for batch in batches_of(run, packing)]
        assert all(len(set(names)) == 1 for names in sources)
        orders.append([names[0] for names in sources])
        for batch, names in zip(batches_of(run, packing), sources, strict=True):
            numbers = store.sources.numbers["pair"][batch["row_id"].to_numpy()]
            assert [store.sources.names[one] for one in numbers] == names
    counts = report.counts["sources"]
    if policy == "merge":
        for name in ("shell", "bank"):
            assert all(order.count(name) == counts[name]["rows_in"] // 16 for order in orders)
    # Sources take turns by chance, in another order each packing.
    assert orders[0] != sorted(orders[0]) != sorted(orders[0], reverse=True)
    assert orders[0] != orders[1]
    for one in counts.values():
        assert one["rows_in"] == one["rows_packed"] + sum(one["rows_left_out"].values())
    assert report.counts["batches"] <= report.counts["batches_bound"]
    assert any(line.startswith("source bank: ") for line in report.lines)
    assert "a batch holds rows of one source" in report.lines
    dry = pack(run, batch_size=16, k=1, policy=policy, dry_run=True)
    assert dry.counts["batches"][policy] == report.counts["batches"]
    assert any(line.startswith("a packing takes 300 rows of shell") for line in dry.lines)
    assert "  - bank: " in (run / "batches/README.md").read_text()


def test_a_batch_trains_with_the_prompts_of_its_source(prompted_run, tmp_path):
    run = copied(prompted_run, tmp_path)
    pack(run, batch_size=32, k=2, packings=1)
    model = load_model("package:wordllama", "cpu")
    collator, tokenise = PackedCollator(list_packings(run / "batches")[0], Tokeniser(model)), set()
    for number, table in enumerate(batches_of(run, 0)):
        name = table["source"][0].as_py()
        batch = collator([{"row": row} for row in range(32 * number, 32 * number + 32)])
        texts = dict(zip(table["anchor_id"].to_pylist(), table["anchor"].to_pylist(), strict=True))
        prompt = {"shell": SHELL, "bank": BANK}[name]
        expected = Tokeniser(model)([prompt + texts[one] for one in sorted(texts)], "query")
        assert batch["anchor_input_ids"].tolist() == expected["input_ids"].tolist()
        answers = (batch["passage_input_ids"], batch["passage_offsets"])
        first = answers[0][: answers[1][1]].tolist()
        start = Tokeniser(model)(["answer: "], "passage")["input_ids"].tolist()
        assert (first[: len(start) - 1] == start[:-1]) == (name == "bank")
        tokenise.add(name)
    assert tokenise == {"shell", "bank"}
    run_train(TrainConfig(run_dir=str(run), device="cpu"))
    prompts = json.loads((run / "model/config_sentence_transformers.json").read_text())["prompts"]
    assert prompts["shell-query"] == SHELL
    assert prompts["bank-document"] == "answer: "


def test_verify_finds_a_row_of_another_prompt(prompted_run, tmp_path):
    run = copied(prompted_run, tmp_path)
    pack(run, batch_size=32, k=2, packings=1)
    (run / "batches/manifest.json").unlink()
    (path,) = (run / "batches/epoch-000").glob("*.parquet")
    table = pq.read_table(path)
    names = table["source"].to_pylist()
    names[5] = "bank" if names[5] == "shell" else "shell"
    column = table.schema.get_field_index("source")
    field = table.schema.field("source")
    pq.write_table(table.set_column(column, field, pa.array(names, field.type)), path)
    with pytest.raises(ViolationError, match=r"row 5: its source '\w+' has other prompts than"):
        run_verify(VerifyConfig(run_dir=str(run)))


@pytest.mark.parametrize("policy", ["merge", "strict"])
@pytest.mark.parametrize("order", ["random", "hard-to-easy"])
def test_sources_of_equal_prompts_are_mixed_in_proportion(plain_run, tmp_path, policy, order):
    run = copied(plain_run, tmp_path)
    report = pack(run, batch_size=20, k=1, policy=policy, packings=2, order=order)
    run_verify(VerifyConfig(run_dir=str(run)))
    store = store_of(run)
    share = (store.sources.numbers["pair"] == 0).mean() * 20
    for packing in range(2):
        counts = [batch["source"].to_pylist().count("shell") for batch in batches_of(run, packing)]
        if policy == "merge":
            assert len(counts) == store.num_pairs // 20
            assert set(counts) <= {int(share), int(share) + 1, int(share) + 2, int(share) - 1}
            assert max(counts) - min(counts) <= (1 if order == "random" else 2)
        # Strict cannot choose who fits, but sees rows of both in proportion.
        assert abs(np.mean(counts) - share) < 1.5
    assert "a batch holds rows of every source, in proportion" in report.lines
    low, high = report.counts["sources"]["shell"]["rows_a_batch"]
    assert low <= share <= high


def test_one_source_a_batch_on_demand_with_topics(plain_run, tmp_path):
    run = copied(plain_run, tmp_path)
    pack(run, batch_size=20, k=1, packings=2, sources_per_batch="one", cluster=0.5)
    run_verify(VerifyConfig(run_dir=str(run)))
    assert all(len(set(batch["source"].to_pylist())) == 1 for batch in batches_of(run, 1))
    pack(run, batch_size=20, k=1, packings=2, cluster=1.0)
    mixed = [len(set(batch["source"].to_pylist())) for batch in batches_of(run, 0)]
    assert 1 in mixed


def test_weights_leave_rows_to_later_packings_and_no_embedding_stale(two_inputs, tmp_path):
    run = make_run(tmp_path / "run", two_sources(two_inputs))
    pack(run, batch_size=20, k=1)
    weighted = two_sources(two_inputs, weight=0.5)
    with pytest.raises(ArtifactError, match=r"shell.weight was 1.0 and is 0.5 now"):
        run_ingest(IngestConfig(run_dir=str(run), sources=weighted))
    run_ingest(IngestConfig(run_dir=str(run), sources=weighted, overwrite=True))
    with pytest.raises(ArtifactError, match=r"weights was \[1.0, 1.0\] and is \[0.5, 1.0\] now"):
        run_pack(PackConfig(run_dir=str(run), batch_size=20, k=1))
    counts = pack(run, batch_size=20, k=1, packings=2).counts["sources"]
    shell, bank = counts["shell"], counts["bank"]
    assert shell["rows_left_out"]["down_weighted"] == shell["rows_in"] - shell["rows_in"] // 2
    assert bank["rows_left_out"]["down_weighted"] == 0
    store = store_of(run)
    rows = [
        np.concatenate([batch["row_id"].to_numpy() for batch in batches_of(run, packing)])
        for packing in range(2)
    ]
    of_shell = [set(one[store.sources.numbers["pair"][one] == 0].tolist()) for one in rows]
    assert len(of_shell[0] & of_shell[1]) <= 2 * 20 // 2
    assert len(of_shell[0] | of_shell[1]) > 0.9 * shell["rows_in"]


def test_options_about_sources_that_do_not_fit_are_refused(prompted_run, small_run, tmp_path):
    run = copied(prompted_run, tmp_path)
    with pytest.raises(ConfigError, match=r"mixed needs sources of equal prompts.*shell, bank"):
        pack(run, batch_size=16, sources_per_batch="mixed")
    with pytest.raises(ConfigError, match=r"no batch of 400 rows can be filled.*one source"):
        pack(run, batch_size=400)
    for fields in ({"sources_per_batch": "one"}, {"source_temperature": 2.0}):
        with pytest.raises(ConfigError, match="this run was made from PAIRS"):
            run_pack(PackConfig(run_dir=str(small_run), batch_size=16, dry_run=True, **fields))
    with pytest.raises(ConfigError, match=r"'sell' is no source .*shell, bank"):
        data = str(tmp_path / "x.parquet")
        write_pairs(tmp_path / "x.parquet", [("q", "p")])
        run_evaluate(EvaluateConfig(run_dir=str(run), data=data, source="sell", device="cpu"))
    report = pack(run, batch_size=250, k=1)
    assert any("no row of source bank is in a batch" in one for one in report.warnings)


def test_evaluation_takes_the_prompts_of_a_source(prompted_run, two_inputs, tmp_path):
    run = copied(prompted_run, tmp_path)
    data = str(two_inputs / "bank.parquet")
    without = run_evaluate(EvaluateConfig(run_dir=str(run), data=data, device="cpu"))
    assert "different prompts (shell, bank)" in without.warnings[0]
    options = {"run_dir": str(run), "data": data, "source": "bank", "device": "cpu"}
    with pytest.raises(ArtifactError, match=r"query prompt of .* was None and is 'banking quest"):
        run_evaluate(EvaluateConfig(**options))
    found = run_evaluate(EvaluateConfig(**options, overwrite=True))
    assert not any("different prompts" in one for one in found.warnings)
    assert any(line.endswith("with the prompts of source bank") for line in found.lines)
    assert found.lines != without.lines


def test_an_export_says_that_it_holds_no_prompts(prompted_run, plain_run, tmp_path):
    plain = run_export(ExportConfig(run_dir=str(copied(plain_run, tmp_path))))
    assert not any("prompts" in one for one in plain.warnings)
    shutil.rmtree(tmp_path / "run")
    prompted = run_export(ExportConfig(run_dir=str(copied(prompted_run, tmp_path))))
    assert "the prompts of shell, bank are not in the rows" in prompted.warnings[0]


def test_runs_without_sources_have_no_trace_of_them(small_run, tmp_path):
    run = copied(small_run, tmp_path)
    pack(run, batch_size=50)
    assert not list((run / "texts").glob("*source*"))
    assert "source" not in batches_of(run, 0)[0].column_names
    assert "source" not in (run / "batches/README.md").read_text().split("---")[2]


@pytest.mark.slow
def test_sources_give_the_same_bytes_under_any_hash_seed(two_inputs, tmp_path, cli):
    entries = [
        {"name": "shell", "path": str(two_inputs / "shell.parquet"), "weight": 0.7},
        {"name": "bank", "path": str(two_inputs / "bank.parquet")},
    ]
    digests = []
    for seed in ("1", "2"):
        pipeline = {
            "run_dir": str(tmp_path / seed),
            "embed": {"sources": entries},
            "mine": {"k": 2},
            "pack": {"batch_size": 16, "source_temperature": 2.0},
        }
        (tmp_path / f"{seed}.yaml").write_text(yaml.safe_dump(pipeline))
        done = cli("run", tmp_path / f"{seed}.yaml", PYTHONHASHSEED=seed)
        assert done.code == 0, done
        names = ("texts", "embeddings", "negatives", "batches")
        digests.append([require(RunDir(tmp_path / seed), name).digest for name in names])
    assert digests[0] == digests[1]
