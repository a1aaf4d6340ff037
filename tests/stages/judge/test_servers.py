"""`judge --reranker`, `--llm` and batch jobs: servers of real protocols, answers of all kinds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from hypothesis import given
from hypothesis import strategies as st
from model_server import Served, serve

from stx_mine.errors import ConfigError, InputError, ModelError
from stx_mine.models import server as server_module
from stx_mine.models.chats import AnswerError
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.judge.core.budget import within_calls
from stx_mine.stages.judge.judge import rows_of_queries
from stx_mine.stages.judge.prompt import Prompt
from stx_mine.stages.judge.stage import run_judge
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.artifact import require
from stx_mine.store.judgements import StoredJudgements
from stx_mine.store.run_dir import RunDir
from stx_mine.store.texts import TextStore

PASSAGE = re.compile(r'<passage number="(\d+)">(.*?)</passage>', re.DOTALL)
QUERY = re.compile(r"<query>(.*?)</query>", re.DOTALL)
PROBE = "What is the capital of France?"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server_module, "_BACKOFF", 0.01)
    monkeypatch.chdir(tmp_path)


def share(query: str, passage: str) -> float:
    """How relevant a passage is, as the servers here say."""
    one, two = set(query.lower().split()), set(passage.lower().split())
    return len(one & two) / len(one | two) if one | two else 0.0


def grade(query: str, passage: str) -> str:
    found = share(query, passage)
    return "better" if found > 0.3 else "equal" if found > 0.1 else "worse"


def rerank_answer(body) -> dict:
    scores = [share(body["query"], one) for one in body["documents"]]
    rows = [{"index": n, "relevance_score": score} for n, score in enumerate(scores)]
    return {"model": "one", "results": sorted(rows, key=lambda row: -row["relevance_score"])}


def chat_answer(body, text: str | None = None, **more) -> dict:
    content = body["messages"][0]["content"]
    query = QUERY.search(content)[1]
    found = {number: grade(query, passage) for number, passage in PASSAGE.findall(content)}
    message = {"role": "assistant", "content": json.dumps(found) if text is None else text}
    return {
        "model": "one-2026",
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": len(content) // 3, "completion_tokens": 4 * len(found)},
        **more,
    }


@pytest.fixture
def server():
    def answer(path, body):
        return 200, rerank_answer(body) if path == "rerank" else chat_answer(body)

    with serve(answer) as served:
        yield served


def judge(run: Path, served: Served, kind: str = "llm", **options):
    own = {kind: served.url, "name": "served", "band": 0.05, **options}
    return run_judge(JudgeConfig(run_dir=str(run), **own))


def by_texts(run: Path, name: str = "served") -> dict[tuple[str, str], float]:
    store = TextStore.open(require(RunDir(run), "texts"))
    found = StoredJudgements.open(require(RunDir(run), "judgements", name), store)
    queries, passages = (
        table.column("text").to_pylist() for table in (store.queries, store.passages)
    )
    pairs = (divmod(int(key), store.num_passages) for key in found.keys)
    return {
        (queries[q], passages[p]): float(s) for (q, p), s in zip(pairs, found.scores, strict=True)
    }


def positives(run: Path) -> set[tuple[str, str]]:
    store = TextStore.open(require(RunDir(run), "texts"))
    queries, passages = (
        table.column("text").to_pylist() for table in (store.queries, store.passages)
    )
    pairs = zip(store.pair_query_ids.tolist(), store.pair_passage_ids.tolist(), strict=True)
    return {(queries[q], passages[p]) for q, p in pairs}


def test_scores_of_a_reranker_are_those_that_it_gave(run_copy: Path, server: Served) -> None:
    report = judge(run_copy, server, "reranker")
    found = by_texts(run_copy)
    assert len(found) > 100
    assert all(abs(score - share(*pair)) < 1e-6 for pair, score in found.items())
    asked = server.asked("rerank")
    assert report.counts["calls"] == len(asked) - 1  # One is the probe.
    assert sum(len(body["documents"]) for body in asked[1:]) == report.counts["judged"]
    assert len({body["query"] for body in asked[1:]}) == len(asked) - 1
    number = len(server.requests)
    assert judge(run_copy, server, "reranker").skipped
    assert len(server.requests) - number <= 2


def test_another_reranker_behind_the_same_name_is_another_judge(
    run_copy: Path, server: Served
) -> None:
    judge(run_copy, server, "reranker")

    def lower(path, body):
        rows = rerank_answer(body)["results"]
        return 200, {"results": [{**r, "relevance_score": r["relevance_score"] / 2} for r in rows]}

    server.answer = lower
    with pytest.raises(Exception, match="--overwrite"):
        judge(run_copy, server, "reranker")


def test_logits_go_through_a_sigmoid_where_that_is_said(run_copy: Path, server: Served) -> None:
    def logits(path, body):
        rows = rerank_answer(body)["results"]
        return 200, {
            "results": [{**r, "relevance_score": 8 * r["relevance_score"] - 3} for r in rows]
        }

    server.answer = logits
    with pytest.raises(ModelError, match=r"found -2\.\d+; say --score-scale logit"):
        judge(run_copy, server, "reranker")
    judge(run_copy, server, "reranker", score_scale="logit")
    for pair, score in by_texts(run_copy).items():
        assert score == pytest.approx(1 / (1 + np.exp(3 - 8 * share(*pair))), abs=1e-6)


@pytest.mark.parametrize("most", [3, 20])
def test_grades_of_a_language_model_become_scores(
    run_copy: Path, server: Served, most: int
) -> None:
    report = judge(run_copy, server, call_passages=most)
    found, known = by_texts(run_copy), positives(run_copy)
    score_of = {"worse": 0.0, "equal": 0.5, "better": 1.0}
    assert len(found) > 100
    assert any(pair in known for pair in found)
    for pair, score in found.items():
        assert score == (0.5 if pair in known else score_of[grade(*pair)])
    questions = [body for body in server.asked("chat/completions") if not is_probe(body)]
    assert report.counts["calls"] == len(questions)
    lists = [len(PASSAGE.findall(body["messages"][0]["content"])) for body in questions]
    assert max(lists) <= most
    assert sum(lists) == report.counts["judged"] - sum(pair in known for pair in found)
    assert report.counts["tokens_written"] == 4 * sum(lists)
    assert all("<reference>" in body["messages"][0]["content"] for body in questions)
    schema = questions[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["1"] == {"enum": ["worse", "equal", "better"]}
    run_mine(MineConfig(run_dir=str(run_copy), judges=("served",), k=2, device="cpu"))


def is_probe(body) -> bool:
    return PROBE in body["messages"][0]["content"]


def test_relevance_grades_positives_as_the_others(run_copy: Path, server: Served) -> None:
    def answer(path, body):
        passages = PASSAGE.findall(body["messages"][0]["content"])
        return 200, chat_answer(body, json.dumps({number: "2" for number, _ in passages}))

    server.answer = answer
    report = judge(run_copy, server, prompt="relevance")
    assert all(score == pytest.approx(0.67) for score in by_texts(run_copy).values())
    assert any("all scores are 0.67" in line for line in report.warnings)


BAD_ANSWERS = {
    "Passage 1 is better.": "no JSON",
    "Ich halte 1 für besser: {": "no JSON",
    '["better"]': "no JSON object",
    "": "empty answer",
    '{"1": "better", "1": "worse"}': "no JSON",
    '{"1": "best"}': "unknown grade",
    '{"0": "better"}': "other passages than asked",
    '{"1": "better", "2": "worse"}': "other passages than asked",
    '{"1": null}': "unknown grade",
    "[" * 10_000: "no JSON",
}


def test_answers_that_are_none_are_counted_by_their_reason(run_copy: Path, server: Served) -> None:
    texts = list(BAD_ANSWERS)

    def answer(path, body):
        query = QUERY.search(body["messages"][0]["content"])[1]
        place = sum(query.encode()) % (3 * len(texts))
        is_bad = place < len(texts) and not is_probe(body)
        return 200, chat_answer(body, texts[place] if is_bad else None)

    server.answer = answer
    report = judge(run_copy, server, call_passages=1, max_calls=400)
    counts = report.counts
    assert set(counts["failures"]) == set(BAD_ANSWERS.values())
    assert 0 < counts["failed"] == sum(counts["failures"].values()) < counts["judged"]
    # Each is asked twice.
    assert counts["calls"] > counts["failed"]
    assert any("no JSON" in line and "--overwrite" in line for line in report.warnings)
    server.answer = lambda path, body: (200, chat_answer(body))
    again = judge(run_copy, server, call_passages=1, max_calls=400, overwrite=True)
    assert again.counts["judged"] == counts["failed"]
    assert again.counts["known"] == counts["judged"]
    assert judge(run_copy, server, call_passages=1, max_calls=400).skipped


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(["choices", "message", "content", "finish_reason", "1", "2"]), x
            )
        ),
    )
)
def test_no_answer_is_taken_for_another(answer) -> None:
    with pytest.raises(AnswerError):
        Prompt.open("compare").scores_of(answer, 2)


def test_an_answer_that_is_cut_off_fails() -> None:
    cut = {"choices": [{"message": {"content": '{"1": "worse"}'}, "finish_reason": "length"}]}
    with pytest.raises(AnswerError, match="cut off"):
        Prompt.open("compare").scores_of(cut, 1)
    cut["choices"][0]["finish_reason"] = "stop"
    assert Prompt.open("compare").scores_of(cut, 1) == [0.0]


def test_questions_that_a_server_refuses_are_counted(run_copy: Path, server: Served) -> None:
    def answer(path, body):
        if "e" in QUERY.search(body["messages"][0]["content"])[1][-3:] and not is_probe(body):
            return 400, {"error": {"message": "context length exceeded"}}
        return 200, chat_answer(body)

    server.answer = answer
    report = judge(run_copy, server, requests=1, max_calls=60)
    assert report.counts["failures"] == {"refused by the server": report.counts["failed"]}
    server.answer = lambda path, body: (400, {"error": "no response_format"})
    with pytest.raises(ModelError, match=r"answers 400 .*no response_format"):
        judge(run_copy, server, name="none")


def test_another_model_between_two_calls_ends_it_and_what_is_done_stays(
    run_copy: Path, server: Served
) -> None:
    def answer(path, body):
        late = len(server.requests) > 60
        return 200, chat_answer(body, model="two-2026" if late else "one-2026")

    server.answer = answer
    with pytest.raises(ModelError, match=r"expected answers of one-2026 .* found one of two-2026"):
        judge(run_copy, server, call_passages=2, task_pairs=32)
    assert len(list(run_copy.glob("judgements/served*/scores-*"))) > 1
    server.answer = lambda path, body: (200, chat_answer(body))
    report = judge(run_copy, server, call_passages=2, task_pairs=32)
    assert report.counts["failed"] == 0


def test_a_server_that_dies_is_one_line_and_the_same_command_goes_on(
    run_copy: Path, server: Served
) -> None:
    def answer(path, body):
        return (503, b"gone") if len(server.requests) > 40 else (200, chat_answer(body))

    server.answer = answer
    with pytest.raises(ModelError, match=r"answers 503 .*the same command continues") as error:
        judge(run_copy, server, task_pairs=64)
    assert "\n" not in str(error.value)
    server.requests.clear()
    server.answer = lambda path, body: (200, chat_answer(body))
    judge(run_copy, server, task_pairs=64)
    continued = len(server.requests)
    judge(run_copy, server, task_pairs=64, name="whole")
    assert by_texts(run_copy) == by_texts(run_copy, "whole")
    assert continued < len(server.requests) - continued


def test_a_budget_of_calls_is_held(run_copy: Path, server: Served) -> None:
    report = judge(run_copy, server, max_calls=30)
    asked = [body for body in server.asked("chat/completions") if not is_probe(body)]
    assert 25 <= len(asked) <= 30
    assert report.counts["beyond_budget"] > 0
    assert any("--max-calls 30" in line for line in report.lines)
    # More of the same asks for the rest only.
    more = judge(run_copy, server, max_calls=60)
    assert more.counts["known"] > 0
    assert set(by_texts(run_copy)) > set()


@given(
    st.lists(st.integers(0, 5), max_size=40),
    st.lists(st.integers(0, 4), min_size=6, max_size=6),
    st.integers(1, 6),
    st.integers(0, 30),
)
def test_whole_queries_are_judged_within_a_budget_of_calls(
    queries: list[int], beside: list[int], most: int, max_calls: int
) -> None:
    kept = within_calls(np.array(queries, np.int64), np.array(beside), most, max_calls)
    order = list(dict.fromkeys(queries))
    chosen, calls = set(), 0
    for query in order:
        calls += -(-(queries.count(query) + beside[query]) // most)
        if calls > max_calls:
            break
        chosen.add(query)
    assert kept.tolist() == [query in chosen for query in queries]


@given(st.lists(st.integers(1, 9), max_size=9), st.integers(1, 5))
def test_parts_are_of_one_query_each(lengths: list[int], most: int) -> None:
    ids = np.repeat(np.arange(len(lengths)), lengths)
    parts = rows_of_queries(ids, most)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(len(ids)))
    assert all(len(set(ids[part])) == 1 and 0 < part.stop - part.start <= most for part in parts)
    assert len(parts) == sum(-(-length // most) for length in lengths)


def test_a_dry_run_says_calls_tokens_and_money(run_copy: Path, server: Served) -> None:
    report = judge(run_copy, server, dry_run=True, price_read=10, price_written=100)
    told, sampled = report.counts, len(server.requests)
    assert sampled < 20
    assert not (run_copy / "judgements").exists()
    done = judge(run_copy, server, price_read=10, price_written=100).counts
    assert told["calls"] == done["calls"]
    assert told["tokens"] == pytest.approx(done["tokens_read"], rel=0.1)
    assert told["tokens_written"] == pytest.approx(done["tokens_written"], rel=0.25)
    price = (10 * told["tokens"] + 100 * told["tokens_written"]) / 1e6
    assert told["price"] == pytest.approx(price, rel=0.01)
    assert "cost about" in report.lines[-1]


def test_batch_jobs_answer_what_a_server_would(run_copy: Path, server: Served) -> None:
    model = {"server_model": "one", "name": "batch", "band": 0.05}
    config = JudgeConfig(run_dir=str(run_copy), export_questions="q.jsonl", **model)
    report = run_judge(config)
    lines = [json.loads(line) for line in Path("q.jsonl").read_text().splitlines()]
    assert report.counts["questions"] == len(lines) == len({one["custom_id"] for one in lines})
    assert {one["url"] for one in lines} == {"/v1/chat/completions"}
    assert server.requests == [] and not (run_copy / "judgements").exists()
    with pytest.raises(ConfigError, match="expected no file at --export-questions"):
        run_judge(config)
    answers = [
        {
            "custom_id": one["custom_id"],
            "error": None,
            "response": {"status_code": 200, "body": chat_answer(one["body"])},
        }
        for one in lines
    ]
    answers[0] = {**answers[0], "response": None, "error": {"code": "expired"}}
    strange = {**answers[1], "custom_id": "nobody"}
    write_lines("a.jsonl", [strange, *reversed(answers[:-1])])
    first = import_of(run_copy, "a.jsonl")
    assert first.counts["unknown_answers"] == 1
    assert set(first.counts["failures"]) == {"refused by the server", "unanswered"}
    # A fuller file of the same questions is read by the same command, for what lacks.
    answers[0] = {
        **answers[1],
        "custom_id": lines[0]["custom_id"],
        "response": {"status_code": 200, "body": chat_answer(lines[0]["body"])},
    }
    write_lines("a.jsonl", answers)
    second = import_of(run_copy, "a.jsonl")
    assert second.counts["failed"] == 0
    assert second.counts["judged"] == first.counts["failed"]
    assert import_of(run_copy, "a.jsonl").skipped
    judge(run_copy, server)
    assert by_texts(run_copy, "batch") == by_texts(run_copy)
    # Nothing is left to be asked.
    rest = run_judge(JudgeConfig(run_dir=str(run_copy), export_questions="rest.jsonl", **model))
    assert rest.counts["questions"] == 0


def import_of(run: Path, path: str):
    model = {"server_model": "one", "name": "batch", "band": 0.05}
    return run_judge(JudgeConfig(run_dir=str(run), import_answers=path, **model))


def write_lines(path: str, rows) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("", InputError, "expected answers in"),
        ("hello\n", InputError, "in line 1 of"),
        ('{"custom_id": 3, "response": null}\n', InputError, "in line 1 of"),
        ('{"custom_id": "a"}\n', InputError, "in line 1 of"),
        ('{"custom_id": "a", "response": {"body": 3}}\n', InputError, "in line 1 of"),
        ("\xff\n", InputError, "in line 1 of"),
        (
            '{"custom_id": "a", "response": {"body": {"model": "x"}}}\n'
            '{"custom_id": "b", "response": {"body": {"model": "y"}}}\n',
            ModelError,
            "expected answers of one model .* found x, y",
        ),
        (
            '{"custom_id": "a", "response": {"body": {"model": "x"}}}\n',
            InputError,
            "expected scores from batch, found none: all .* pairs got unanswered",
        ),
    ],
)
def test_files_that_hold_no_answers_are_one_line(
    run_copy: Path, content: str, error: type[Exception], words: str
) -> None:
    Path("a.jsonl").write_bytes(content.encode("latin-1"))
    with pytest.raises(error, match=words) as found:
        import_of(run_copy, "a.jsonl")
    assert "\n" not in str(found.value)
    with pytest.raises(InputError, match="expected a file of answers"):
        import_of(run_copy, "nowhere.jsonl")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% set grades = {'a': 0, 'b': 1} %}{{ nothing }}", "no Jinja template"),
        ("{% if %}", "no Jinja template"),
        ("{{ query }}{{ passages }}", "expected `grades`"),
        ("{% set grades = {'a': 0, 'b': 7} %}{{ query }}{{ passages }}", "expected `grades`"),
        ("{% set grades = {'a': 0, 'b': 1} %}{{ query }}", "does not show the query or the"),
        (
            "{% set grades = {'a': 0, 'b': 1} %}{% set positive = 3 %}{{ query }}{{ passages }}",
            "as `positive`",
        ),
        (
            "{% set grades = {'a': 0, 'b': 1} %}{% set options = 3 %}{{ query }}{{ passages }}",
            "as `options`",
        ),
        (
            "{% set grades = {'a': 0, 'b': 1} %}{% set max_characters = 0 %}"
            "{{ query }}{{ passages }}",
            "as `max_characters`",
        ),
        ("{{ ''.__class__.__mro__ }}", "no Jinja template"),
        ("{{ 1 / 0 }}", "no Jinja template"),
    ],
)
def test_prompts_that_ask_nothing_are_refused(source: str, words: str) -> None:
    Path("mine.jinja").write_text(source)
    with pytest.raises(ConfigError, match=words):
        Prompt.open("mine.jinja")
    with pytest.raises(ConfigError, match="or a file, found nowhere"):
        Prompt.open("nowhere")


def test_a_prompt_of_ones_own_says_grades_options_and_lengths(
    run_copy: Path, server: Served
) -> None:
    Path("mine.jinja").write_text(
        "{% set grades = {'worse': 0, 'equal': 0.25, 'better': 0.5} %}"
        "{% set options = {'temperature': 0.7, 'seed': none, 'reasoning_effort': 'low'} %}"
        "{% set max_characters = 20 %}"
        "<query>{{ query }}</query>"
        "{% for text in passages %}"
        '<passage number="{{ loop.index }}">{{ text }}</passage>{% endfor %}'
    )
    report = judge(run_copy, server, prompt="mine.jinja")
    body = server.asked("chat/completions")[-1]
    assert (body["temperature"], body["reasoning_effort"], "seed" in body) == (0.7, "low", False)
    assert all(len(text) <= 20 for _, text in PASSAGE.findall(body["messages"][0]["content"]))
    assert report.counts["cut"] > 0
    assert any("were cut" in line for line in report.warnings)
    score_of = {"worse": 0.0, "equal": 0.25, "better": 0.5}
    for (query, passage), score in by_texts(run_copy).items():
        assert score == score_of[grade(query[:20], passage[:20])]


def test_a_cascade_asks_only_what_the_first_judge_leaves_open(
    run_copy: Path, server: Served
) -> None:
    judge(run_copy, server, "reranker", name="first", band=0.1)
    judge(run_copy, server, name="second", band=0.1, after="first", after_band=0.2)
    first, second, known = (
        by_texts(run_copy, "first"),
        by_texts(run_copy, "second"),
        positives(run_copy),
    )
    lowest: dict[str, float] = {}
    for (query, passage), score in first.items():
        if (query, passage) in known:
            lowest[query] = min(score, lowest.get(query, 2))
    share_of = np.float32(0.2)
    ambiguous = {
        pair
        for pair, score in first.items()
        if pair not in known
        and pair[0] in lowest
        and abs(np.float32(score - lowest[pair[0]])) <= share_of * np.float32(lowest[pair[0]])
    }
    asked = {pair for pair in second if pair not in known}
    assert 0 < len(ambiguous) < len(first) / 2
    assert asked == ambiguous
    config = {"run_dir": str(run_copy), "judges": ("first", "second"), "device": "cpu"}
    report = run_mine(MineConfig(combine="last", **config))
    assert any("the last of 2 judges (first, second)" in line for line in report.lines)
    with pytest.raises(ConfigError, match="--votes 2 does not fit --combine last"):
        MineConfig(combine="last", votes=2, **config)


def test_from_the_command_line(run_copy: Path, server: Served, cli_here: Cli) -> None:
    args = ("judge", "--llm", server.url, "--band", "0.05", "--max-calls", "20")
    done = cli_here(*args, run_dir=run_copy)
    assert done.code == 0, done.stderr
    assert "calls of about" in done.stderr and "tokens read" in done.stdout
    name = server.url.split("/")[2].replace(":", "-")
    assert (run_copy / "judgements" / name / "manifest.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"llm": "http://one/v1", "reranker": "http://two/v1"}, "does not fit --llm"),
        ({"llm": "http://one/v1", "cross_encoder": "m"}, "does not fit --llm"),
        ({"llm": "one"}, "--llm must be the base address of a server"),
        ({"reranker": "http://me:pw@one/v1"}, "--reranker must be the base address"),
        ({"llm": "http://one/v1", "max_length": 3}, "--max-length is for models"),
        ({"cross_encoder": "m", "server_model": "x"}, "--server-model is for servers"),
        ({"cross_encoder": "m", "max_calls": 3}, "--max-calls 3 needs"),
        ({"cross_encoder": "m", "prompt": "relevance"}, "--prompt relevance needs"),
        ({"reranker": "http://one/v1", "price_read": 1.0}, "--price-read 1.0 needs --llm"),
        ({"llm": "http://one/v1", "price_written": 1.0}, "needs --price-read"),
        ({"export_questions": "q"}, "needs --server-model"),
        ({"cross_encoder": "m", "after_band": 0.3}, "needs --after"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        JudgeConfig(**options)
