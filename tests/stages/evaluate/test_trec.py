"""Numbers are those of trec_eval: grades, ties, copies, own texts, what is missing."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from stx_mine.core.ragged import Ragged, offsets_of, ragged_sets
from stx_mine.errors import InputError
from stx_mine.models.encoder import SentenceTransformerEncoder
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.core.metrics import Relevance, retrieval_metrics
from stx_mine.stages.evaluate.core.ranking import ranked_documents
from stx_mine.stages.evaluate.judgements import Judgements
from stx_mine.stages.evaluate.stage import run_evaluate
from stx_mine.store.files import read_json

MODEL = "package:wordllama"
JUDGEMENTS = pa.schema(
    [("query", pa.large_string()), ("passage", pa.large_string()), ("grade", pa.float64())]
)
Qrels = dict[str, dict[str, int]]
Run = dict[str, dict[str, float]]


def trec(qrels: Qrels, run: Run, level: int = 1) -> dict[str, dict[str, float]]:
    """Query -> metric -> value of pytrec_eval; MRR of the ten that it ranks first."""
    evaluate = pytrec_eval.RelevanceEvaluator
    whole = evaluate(qrels, {"ndcg_cut.10", "recall.100"}, relevance_level=level).evaluate(run)
    # pytrec_eval has no cut of the reciprocal rank: it is that of the first ten alone.
    tops = {
        query: dict(sorted(found.items(), key=lambda one: (one[1], one[0]), reverse=True)[:10])
        for query, found in run.items()
    }
    cut = evaluate(qrels, {"recip_rank"}, relevance_level=level).evaluate(tops)
    return {
        query: {
            "ndcg@10": values["ndcg_cut_10"],
            "mrr@10": cut[query]["recip_rank"],
            "recall@100": values["recall_100"],
        }
        for query, values in whole.items()
    }


# --- the metric functions ---

GRADED = st.dictionaries(st.integers(0, 150), st.integers(-1, 5), min_size=1, max_size=40)
RANKED = st.lists(st.tuples(st.integers(0, 150), st.integers(0, 6)), min_size=1, max_size=130)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(GRADED, RANKED), min_size=1, max_size=4),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_any_judgements_and_any_ranking_score_as_in_trec_eval(data, level, random):
    """Documents are ranked by score, and by falling id where scores tie, as trec_eval ranks."""
    names = [f"d{number}" for number in range(151)]
    random.shuffle(names)
    order = sorted(range(151), key=lambda one: names[one], reverse=True)
    # The number that a document gets is its place among those that tie.
    number_of = {document: number for number, document in enumerate(order)}
    qrels = {
        f"q{q}": {names[d]: g for d, g in judged.items()} for q, (judged, _) in enumerate(data)
    }
    run = {
        f"q{q}": {names[d]: float(score) for d, score in ranked}
        for q, (_, ranked) in enumerate(data)
    }
    kept = [{number_of[d]: g for d, g in judged.items() if g > 0} for judged, _ in data]
    grades = np.array([g for one in kept for g in one.values()], float)
    documents = np.array([d for one in kept for d in one], np.int64)
    offsets = offsets_of([len(one) for one in kept])
    judged = Relevance(Ragged(offsets, documents), grades, grades >= level)

    width = max(len(dict(ranked)) for _, ranked in data)
    ids_QK = np.zeros((len(data), width), np.int64)
    scores_QK = np.full((len(data), width), -1, np.float32)
    for q, (_, ranked) in enumerate(data):
        scores = {number_of[d]: score for d, score in dict(ranked).items()}
        # What a query has not ranked stands last, and is left out.
        padding = [d for d in range(151) if d not in scores][: width - len(scores)]
        ids_QK[q] = [*scores, *padding]
        scores_QK[q, : len(scores)] = list(scores.values())
    every = ragged_sets(np.arange(151), np.arange(151), 151)
    rows, columns = np.nonzero(scores_QK < 0)
    away = ragged_sets(rows, ids_QK[rows, columns], len(data))
    found = retrieval_metrics(ranked_documents(ids_QK, scores_QK, every, away, 100), judged)
    expected = trec(qrels, run, level)
    for metric, values in found.items():
        wanted = [expected[f"q{q}"][metric] for q in range(len(data))]
        np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-9, err_msg=metric)


def test_ties_go_by_the_lower_number_and_decide():
    """Of two that tie one is relevant: the metric tells in which order they were ranked."""
    ids = np.array([[3, 1, 2], [3, 1, 2]])
    scores = np.array([[0.5, 0.5, 0.9], [0.5, 0.5, 0.1]], np.float32)
    every = ragged_sets(np.arange(4), np.arange(4), 4)
    nothing = ragged_sets(np.empty(0, np.int64), np.empty(0, np.int64), 2)
    ranked = ranked_documents(ids, scores, every, nothing, 3)
    assert ranked.tolist() == [[2, 1, 3], [1, 3, 2]]
    judged = Relevance.binary(ragged_sets(np.arange(2), np.array([3, 3]), 2))
    assert retrieval_metrics(ranked, judged)["mrr@10"].tolist() == [1 / 3, 1 / 2]


# --- the command ---


def write_beir(
    folder: Path,
    corpus: dict[str, str | tuple[str, str]],
    queries: dict[str, str],
    qrels: dict[str, dict[str, float]],
) -> Path:
    """A folder in BEIR layout; a passage is a text, or (title, text)."""
    (folder / "qrels").mkdir(parents=True)
    titled = {name: ("", one) if isinstance(one, str) else one for name, one in corpus.items()}
    rows = [{"_id": name, "title": one, "text": text} for name, (one, text) in titled.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [{"_id": name, "text": text} for name, text in queries.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    lines = [f"{q}\t{d}\t{g}" for q, of_query in qrels.items() for d, g in of_query.items()]
    (folder / "qrels/test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    return folder


def full_run(corpus: dict[str, str], queries: dict[str, str]) -> Run:
    """Every document of the corpus with its score, as a tool of the field would write it."""
    encoder = SentenceTransformerEncoder.load(MODEL, "cpu", None, 256)
    sides = (("query", queries), ("passage", corpus))
    q, p = (encoder.encode(list(texts.values()), role) for role, texts in sides)
    q, p = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (q, p))
    # As ours: rounding must not untie what is equal.
    distinct, rows = np.unique(p, axis=0, return_inverse=True)
    scores = (q.astype(np.float64) @ distinct.T.astype(np.float64)).astype(np.float32)
    scores = scores[:, rows.reshape(-1)]
    return {
        query: dict(zip(corpus, map(float, scores[number]), strict=True))
        for number, query in enumerate(queries)
    }


def evaluated(folder: Path, run_dir: Path, **options) -> tuple[dict[str, dict[str, float]], list]:
    """Query -> metric -> value, and the lines of the report."""
    config = EvaluateConfig(
        run_dir=str(run_dir), data=str(folder), models=(MODEL,), device="cpu", **options
    )
    report = run_evaluate(config)
    name = options.get("name", folder.name)
    table = pq.read_table(run_dir / "evaluations" / name / "queries.parquet").to_pylist()
    names = ("ndcg@10", "mrr@10", "recall@100")
    return {row["original_id"]: {name: row[name] for name in names} for row in table}, [
        *report.lines,
        *report.warnings,
    ]


def compare(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    assert found.keys() == expected.keys()
    for query, values in expected.items():
        assert found[query] == pytest.approx(values, rel=0, abs=1e-9), query


WORDS = ["kettle", "candle", "bridge", "orchard", "island", "quarry", "engine", "jacket", "glacier"]


@pytest.fixture
def texts() -> tuple[dict[str, str], dict[str, str]]:
    """Passages that share words, and queries; ids whose order as text is not that of numbers."""
    rng = np.random.default_rng(3)
    corpus = {
        str(number): " ".join(rng.choice(WORDS, 6)) + f" and the {WORDS[number % 9]}"
        for number in range(140)
    }
    queries = {f"q{number}": f"the {' or the '.join(rng.choice(WORDS, 3))}" for number in range(25)}
    return corpus, queries


@pytest.fixture
def grades(texts) -> Qrels:
    """A few judgements a query, of any grade; one query has none above 0."""
    rng = np.random.default_rng(4)
    found: Qrels = {}
    for query in texts[1]:
        chosen = rng.choice(list(texts[0]), 9, replace=False)
        found[query] = {
            str(one): int(grade) for one, grade in zip(chosen, rng.integers(-1, 5, 9), strict=True)
        }
    found["q7"] = dict.fromkeys(found["q7"], 0)
    return found


@pytest.mark.parametrize("min_grade", [None, 2])
def test_graded_qrels_are_those_of_trec_eval(texts, grades, tmp_path, min_grade):
    folder = write_beir(tmp_path / "graded", *texts, grades)
    found, lines = evaluated(folder, tmp_path / "run", min_grade=min_grade)
    compare(found, trec(grades, full_run(*texts), min_grade or 1))
    assert found["q7"] == {"ndcg@10": 0, "mrr@10": 0, "recall@100": 0}
    assert any("grades from 1 to 4 are the gains of nDCG" in line for line in lines)
    assert any(f"of {min_grade} or more" in line for line in lines) == (min_grade is not None)
    assert any("queries are judged without a positive" in line for line in lines)
    results = read_json(tmp_path / "run/evaluations/graded/results.json")
    mean = np.mean([values["ndcg@10"] for values in found.values()])
    assert results["models"][MODEL]["ndcg@10"] == pytest.approx(mean)
    assert results["data"]["queries"] == 25
    assert results["data"]["queries_without_positive"] >= 1


def test_the_case_of_the_issue(shared_data, tmp_path, monkeypatch):
    case = shared_data.parent / "cases/graded"
    if not case.is_dir():
        pytest.skip("no shared cases")
    corpus, queries = (
        {row["_id"]: row["text"] for row in map(json.loads, (case / f"{one}.jsonl").open())}
        for one in ("corpus", "queries")
    )
    # As the issue has it: the folder is where the command runs.
    monkeypatch.chdir(case)
    found, _ = evaluated(Path(), tmp_path / "run", name="here")
    compare(found, trec({"0": {"0": 1, "1": 2, "2": 4}}, full_run(corpus, queries)))
    config = EvaluateConfig(run_dir=str(tmp_path / "run"), data=".", models=(MODEL,), device="cpu")
    assert run_evaluate(config).folder.endswith("evaluations/graded")


def test_copies_are_documents_of_their_own(texts, grades, tmp_path):
    """Copies tie: trec_eval ranks them by falling id, and an unjudged one is not relevant."""
    corpus, queries = texts
    judged = [name for of_query in grades.values() for name, g in of_query.items() if g > 0]
    copies = {
        # Before and after their originals, by id and by place.
        **{f"{name}x": corpus[name] for name in judged[:30]},
        **{f"!{name}": corpus[name] for name in judged[20:60]},
    }
    order = [*list(copies.items())[::2], *corpus.items(), *list(copies.items())[1::2]]
    grades["q3"][next(iter(copies))] = 3
    folder = write_beir(tmp_path / "copied", dict(order), queries, grades)
    found, lines = evaluated(folder, tmp_path / "run")
    expected = trec(grades, full_run(dict(order), queries))
    compare(found, expected)
    assert found != trec(grades, full_run(corpus, queries))
    (line,) = (line for line in lines if "copies of others" in line)
    assert line.startswith(f"{len(copies)} passages are copies of others")
    assert any(f"{len(order):,} passages" in line for line in lines)


def test_queries_of_one_text_are_queries_of_their_own(texts, grades, tmp_path):
    corpus, queries = texts
    queries["q4"] = queries["q5"] = queries["q6"]
    folder = write_beir(tmp_path / "same", corpus, queries, grades)
    found, _ = evaluated(folder, tmp_path / "run")
    compare(found, trec(grades, full_run(corpus, queries)))
    assert found["q4"] != found["q6"]


def test_a_judgement_that_is_made_twice_counts_as_it_was_last(texts, grades, tmp_path):
    folder = write_beir(tmp_path / "twice", *texts, grades)
    first = next(iter(grades["q1"]))
    with (folder / "qrels/test.tsv").open("a") as handle:
        handle.write(f"q1\t{first}\t5\n")
    grades["q1"][first] = 5
    found, lines = evaluated(folder, tmp_path / "run")
    compare(found, trec(grades, full_run(*texts)))
    assert any("repeated_judgement 1" in line for line in lines)


def test_fractional_grades_are_gains_and_any_above_0_is_relevant(texts, tmp_path):
    """pytrec_eval takes whole numbers; ten times as much gives the same nDCG."""
    rng = np.random.default_rng(5)
    tenths: Qrels = {
        query: {
            str(one): int(g) for one, g in zip(rng.choice(140, 8, False), range(8), strict=True)
        }
        for query in texts[1]
    }
    parts = {q: {d: g / 10 for d, g in of_query.items()} for q, of_query in tenths.items()}
    folder = write_beir(tmp_path / "tenths", *texts, parts)
    found, _ = evaluated(folder, tmp_path / "run")
    compare(found, trec(tenths, full_run(*texts)))


def test_a_grade_that_is_no_number_is_refused(texts, grades, tmp_path):
    grades["q1"]["3"] = float("nan")
    folder = write_beir(tmp_path / "nan", *texts, grades)
    with pytest.raises(InputError, match=r"expected numbers in column 'score'.*found 'nan'"):
        evaluated(folder, tmp_path / "run")


# --- what is judged and not there ---


def test_a_judged_document_that_is_missing_counts_as_not_found():
    """In the ideal of nDCG and among what Recall counts, as in trec_eval."""
    qrels = {"a": {"x": 1, "gone": 3, "y": 2}, "b": {"gone": 1}}
    run = {"a": {"x": 0.5, "z": 0.7, "y": 0.1}, "b": {"z": 0.3}}
    rows = [(q, d, float(g)) for q, of_query in qrels.items() for d, g in of_query.items()]
    columns = zip(*rows, strict=True)
    table = pa.table(dict(zip(("query", "passage", "grade"), map(list, columns), strict=True)))
    table = table.cast(JUDGEMENTS)
    names = pa.array(["z", "y", "x"], pa.large_string())
    found = Judgements.join(table, pa.array(["a", "b"], pa.large_string()), names, None)
    metrics = retrieval_metrics(np.array([[0, 2, 1], [0, -1, -1]]), found.judged)
    expected = trec(qrels, run)
    for metric, values in metrics.items():
        assert values.tolist() == pytest.approx([expected[q][metric] for q in "ab"], abs=1e-9)
    assert found.judged.documents.values.tolist() == [2, -1, 1, -1]


def test_qrels_of_missing_documents_are_evaluated(texts, grades, tmp_path):
    grades["q1"]["gone"], grades["q7"]["gone"] = 4, 2
    folder = write_beir(tmp_path / "gone", *texts, grades)
    found, lines = evaluated(folder, tmp_path / "run")
    compare(found, trec(grades, full_run(*texts)))
    assert any("judged passages are missing from the corpus" in line for line in lines)


# --- own texts and ids ---


def arguments(texts, with_titles: bool) -> tuple[dict, dict[str, str], Qrels]:
    """As ArguAna: queries that stand in the corpus under their own id, here before a title."""
    corpus = dict(texts[0])
    queries = {f"n{number}": f"{corpus[str(number)]} is rough" for number in range(30)}
    titled = {name: ("a", one) if with_titles else one for name, one in queries.items()}
    # The counter-argument is the passage that all but repeats the query.
    return {**corpus, **titled}, queries, {f"n{number}": {str(number): 1} for number in range(30)}


@pytest.mark.parametrize("with_titles", [False, True])
def test_the_own_passage_of_a_query_is_not_ranked(texts, tmp_path, with_titles):
    corpus, queries, qrels = arguments(texts, with_titles)
    folder = write_beir(tmp_path / "arguana", corpus, queries, qrels)
    found, lines = evaluated(folder, tmp_path / "run")
    joined = {d: one if isinstance(one, str) else " ".join(one) for d, one in corpus.items()}
    run = full_run(joined, queries)
    ignored = {q: {d: s for d, s in found_.items() if d != q} for q, found_ in run.items()}
    compare(found, trec(qrels, ignored))
    assert any(line.startswith("30 passages are not ranked for their own query") for line in lines)

    ranked, lines = evaluated(folder, tmp_path / "ranked", own_passages="ranked")
    compare(ranked, trec(qrels, run))
    gap = [found[query]["mrr@10"] - ranked[query]["mrr@10"] for query in queries]
    assert np.mean(gap) > 0.3
    assert not any("own query" in line for line in lines)


def test_the_own_text_under_another_id_is_not_ranked_unless_it_is_judged(texts, grades, tmp_path):
    corpus, queries = texts
    grades = {query: {d: max(g, 0) for d, g in one.items()} for query, one in grades.items()}
    corpus |= {"own0": queries["q0"], "own1": queries["q1"] + " ", "own2": queries["q2"]}
    grades["q1"]["own1"] = 3
    folder = write_beir(tmp_path / "own", corpus, queries, grades)
    found, lines = evaluated(folder, tmp_path / "run")
    run = full_run(corpus, queries)
    expected = trec(grades, run)
    for query, own in (("q0", "own0"), ("q2", "own2")):
        del run[query][own]
        expected |= trec({query: grades[query]}, {query: run[query]})
    compare(found, expected)
    assert found["q1"]["mrr@10"] >= 0.5
    assert any(line.startswith("2 passages are not ranked") for line in lines)
    assert any(line.startswith("1 passages with the text or id of their query") for line in lines)


def test_own_texts_that_are_all_that_is_judged_are_ranked(texts, tmp_path):
    """They are no pairs to train on, and what the judgements say of a ranking all the same."""
    corpus, queries = texts
    corpus = {**{f"own{number}": text for number, text in enumerate(queries.values())}, **corpus}
    qrels = {query: {f"own{number}": 1} for number, query in enumerate(queries)}
    folder = write_beir(tmp_path / "own", corpus, queries, qrels)
    found, _ = evaluated(folder, tmp_path / "run")
    compare(found, trec(qrels, full_run(corpus, queries)))
    nothing = {query: dict.fromkeys(judged, 0) for query, judged in qrels.items()}
    folder = write_beir(tmp_path / "nothing", corpus, queries, nothing)
    with pytest.raises(InputError, match=r"no judgement of nothing is .* \(not_relevant 25\)"):
        evaluated(folder, tmp_path / "run")


def test_ids_that_only_look_the_same_leave_nothing_out(texts, tmp_path):
    """Queries and passages are both numbered from 0, as in many files; BEIR drops passage q."""
    corpus, named = texts
    queries = {str(number): text for number, text in enumerate(named.values())}
    qrels = {
        q: {str((int(q) + 7 * step) % 140): step for step in range(0 if int(q) % 2 else 1, 4)}
        for q in queries
    }
    for number in range(1, 25, 2):
        qrels[str(number)][str(number)] = 2
    folder = write_beir(tmp_path / "numbers", corpus, queries, qrels)
    found, lines = evaluated(folder, tmp_path / "run")
    run = full_run(corpus, queries)
    compare(found, trec(qrels, run))
    (line,) = (line for line in lines if "the id of a passage of another text" in line)
    assert line.startswith("13 queries")

    as_beir, _ = evaluated(folder, tmp_path / "beir", own_passages="ids")
    ignored = {q: {d: s for d, s in of_query.items() if d != q} for q, of_query in run.items()}
    compare(as_beir, trec(qrels, ignored))


def test_one_own_text_among_many_copies_of_it(texts, tmp_path):
    """All copies are left out but for the one that is judged, however many there are."""
    corpus, queries = texts
    corpus = {**corpus, **{f"c{number:03}": queries["q0"] for number in range(300)}}
    qrels = {"q0": {"c150": 2, "3": 1}, "q1": {"5": 1}}
    folder = write_beir(tmp_path / "copies", corpus, queries, qrels)
    found, _ = evaluated(folder, tmp_path / "run")
    run = full_run(corpus, {q: queries[q] for q in qrels})
    run["q0"] = {d: s for d, s in run["q0"].items() if not d.startswith("c") or d == "c150"}
    compare(found, trec(qrels, run))


def test_a_query_among_the_passages_of_a_file_is_not_ranked(texts, tmp_path):
    """Pairs of questions that duplicate one another: every query is a passage as well."""
    corpus, _ = texts
    originals = list(corpus.values())[:40]
    pairs = [(text, text + " now") for text in originals]
    pairs += [(after, before) for before, after in pairs]
    path = tmp_path / "duplicates.jsonl"
    path.write_text("".join(json.dumps({"query": q, "passage": p}) + "\n" for q, p in pairs))
    _, lines = evaluated(path, tmp_path / "run", name="duplicates.jsonl")
    results = read_json(tmp_path / "run/evaluations/duplicates.jsonl/results.json")
    assert results["models"][MODEL]["mrr@10"] > 0.95
    assert any(line.startswith("80 passages are not ranked") for line in lines)
    path.write_text(path.read_text() + json.dumps({"query": "one", "passage": "one"}) + "\n")
    _, lines = evaluated(path, tmp_path / "run", name="duplicates.jsonl")
    assert any("query_is_its_passage 1" in line for line in lines)
