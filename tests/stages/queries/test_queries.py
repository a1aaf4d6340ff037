"""`stx-mine queries`: passages in, pairs out that `embed` reads, counted, resumable, repeatable."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import Cli
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    set_seed,
)

from stx_mine.core.terms import num_words, sentences, terms
from stx_mine.errors import ArtifactError, ConfigError, InputError, ModelError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.queries import stage
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.generator import QueryGenerator, TokenSampling
from stx_mine.stages.queries.stage import run_queries


def make(run_dir: Path, **values: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The pairs, and the counts."""
    report = run_queries(QueriesConfig(run_dir=str(run_dir), **values))
    return pq.read_table(run_dir / "queries/pairs.parquet").to_pylist(), report.counts


def balanced(counts: dict[str, Any]) -> bool:
    whole = counts["rows_in"] == counts["passages"] + sum(counts["rows_dropped"].values())
    return whole and all(
        one["passages_in"] == one["passages_kept"] + sum(one["dropped"].values())
        for one in counts["methods"].values()
    )


@pytest.fixture
def titled(tmp_path: Path) -> Path:
    """Pairs of titles and passages: a repetition, an empty one, short ones, one title alone."""
    rows = [
        ("Deep nets", "Deep nets: they learn a lot. They need data to learn from. Deep nets win."),
        ("Cats", "We describe the cats of Rome. They sleep all day long. They eat at night."),
        (
            "Another title",
            "We describe the cats of Rome. They sleep all day long. They eat at night.",
        ),
        ("Nothing", ""),
        ("Short", "Two words"),
        ("Only a title", "Only a title."),
        ("", "Of this passage nobody knows the title. It has two sentences though."),
    ]
    path = tmp_path / "titled.jsonl"
    path.write_text("".join(json.dumps({"title": t, "abstract": p}) + "\n" for t, p in rows))
    return path


def test_crops_of_a_beir_folder_keep_their_provenance(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "xquad-en"
    lines = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    by_id = {line["_id"]: line for line in lines}
    pairs, counts = make(tmp_path, pairs=str(folder), per_passage=2)
    assert balanced(counts)
    assert counts["methods"]["crop"]["queries"] == len(pairs) > 400
    for pair in pairs:
        line = by_id[pair["passage_id"]]
        assert pair["passage"] == f"{line['title']} {line['text']}"
        assert lines[pair["source_row"]] == line
        assert pair["query"] in pair["passage"]
        assert pair["source"] == "corpus.jsonl"
        assert pair["method"] == "crop"


def test_what_is_dropped_is_counted_by_reason(titled: Path, tmp_path: Path) -> None:
    pairs, counts = make(
        tmp_path, pairs=str(titled), method=("crop", "keywords", "titles"), cut_titles=True
    )
    assert balanced(counts)
    assert counts["rows_in"] == 7
    assert counts["rows_dropped"] == {"empty": 1, "repeated": 1}
    assert counts["cut"] == {"titles": 5, "prefix": 2, "inside": 1, "absent": 2}
    assert counts["methods"]["crop"]["dropped"] == {"only_its_title": 1, "too_short": 1}
    assert counts["methods"]["keywords"]["dropped"] == {"only_its_title": 1, "too_few_terms": 1}
    assert counts["methods"]["titles"]["dropped"] == {"no_title": 1, "only_its_title": 1}
    titles = {pair["query"]: pair["passage"] for pair in pairs if pair["method"] == "titles"}
    assert set(titles) == {"Deep nets", "Cats", "Another title", "Short"}
    assert titles["Deep nets"] == "they learn a lot. They need data to learn from. win."
    # A passage keeps the titles of other rows.
    assert "cats" in titles["Another title"]
    assert "cats" not in titles["Cats"]
    assert not any("deep nets" in pair["passage"].lower() for pair in pairs)


def test_without_cutting_the_titles_stay(titled: Path, tmp_path: Path) -> None:
    pairs, counts = make(tmp_path, pairs=str(titled), method=("titles",))
    assert "cut" not in counts
    assert counts["methods"]["titles"]["dropped"] == {"no_title": 1}
    assert pairs[0]["passage"].startswith("Deep nets: they")


def test_all_queries_of_a_passage_share_what_is_left_of_it(tmp_path: Path, titled: Path) -> None:
    pairs, counts = make(
        tmp_path,
        pairs=str(titled),
        method=("crop", "keywords", "titles"),
        remove_share=1.0,
        per_passage=2,
    )
    crops = counts["crops"]
    assert crops["removed"] + crops["too_short_without"] == crops["cropped"] == 3
    left = {}
    for pair in pairs:
        left.setdefault((pair["source"], pair["source_row"]), set()).add(pair["passage"])
    assert all(len(texts) == 1 for texts in left.values())
    whole = [json.loads(line)["abstract"] for line in titled.read_text().splitlines()]
    for pair in pairs:
        text = whole[pair["source_row"]]
        if pair["method"] == "crop" and pair["passage"] != text:
            assert pair["query"] in text
            assert pair["query"] not in pair["passage"]
            kept = [text[a:b] for a, b in sentences(text) if text[a:b] in pair["passage"]]
            assert " ".join(kept) == pair["passage"]
    # The repeated passage of row 2 has lost the same sentences as that of row 1.
    assert left["titled.jsonl", 1] == left["titled.jsonl", 2]


def test_blocks_and_order_of_the_rows_change_no_query(shared_data: Path, tmp_path: Path) -> None:
    folder = str(shared_data / "xquad-en")
    values = {"method": ("crop", "keywords"), "per_passage": 2, "remove_share": 0.5}
    one, counts = make(tmp_path / "one", pairs=folder, **values)
    two, same = make(tmp_path / "two", pairs=folder, block_size=7, **values)
    assert one == two
    assert counts == same
    backwards = tmp_path / "backwards"
    backwards.mkdir()
    lines = (Path(folder) / "corpus.jsonl").read_text().splitlines()
    (backwards / "corpus.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    three, _ = make(tmp_path / "three", pairs=str(backwards), **values)
    assert Counter((p["query"], p["passage"]) for p in one) == Counter(
        (p["query"], p["passage"]) for p in three
    )
    other, _ = make(tmp_path / "other", pairs=folder, seed=1, **values)
    assert other != one


def test_a_killed_run_goes_on_where_it_stopped(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {
        "pairs": str(shared_data / "xquad-en"),
        "method": ("crop", "keywords"),
        "block_size": 50,
    }
    expected, counts = make(tmp_path / "whole", **values)
    real, made = stage.write_table, []

    def dies(path: Path, table: Any) -> None:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(path.name)
        real(path, table)

    monkeypatch.setattr(stage, "write_table", dies)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "run", **values)
    made.clear()
    monkeypatch.setattr(
        stage, "write_table", lambda path, t: (made.append(path.name), real(path, t))
    )
    again, same = make(tmp_path / "run", **values)
    assert made == ["00002.arrow", "00003.arrow", "00004.arrow"]
    assert again == expected
    assert same == counts
    assert not (tmp_path / "run/queries/blocks").exists()
    with pytest.raises(ArtifactError, match="seed was 42 and is 1 now"):
        make(tmp_path / "run", **{**values, "seed": 1})


def test_a_corpus_file_alone_and_beside_pairs(small_input: Path, tmp_path: Path) -> None:
    corpus, pairs = str(small_input / "corpus.parquet"), str(small_input / "pairs.parquet")
    _, alone = make(tmp_path / "alone", corpus=corpus, method=("keywords",))
    _, both = make(tmp_path / "both", corpus=corpus, pairs=pairs, method=("keywords",))
    assert alone["rows_in"] == 500
    assert both["rows_in"] == 1_100
    assert balanced(both)
    assert both["rows_dropped"]["repeated"] > 0


def test_what_queries_writes_embed_reads(shared_data: Path, tmp_path: Path, cli_here: Cli) -> None:
    for kind in ("parquet", "jsonl"):
        run = tmp_path / kind
        done = cli_here(
            "queries",
            shared_data / "xquad-zh",
            *("--method", "crop", "--method", "keywords", "--per-passage", "2"),
            *("--remove-share", "0.3", "--format", kind),
            run_dir=run,
        )
        assert done.code == 0, done.stderr
        path = run / "queries" / f"pairs.{kind}"
        assert f"stx-mine embed {path}" in done.stdout
        assert (
            "skipped"
            in cli_here(
                "queries",
                shared_data / "xquad-zh",
                *("--method", "crop", "--method", "keywords", "--per-passage", "2"),
                *("--remove-share", "0.3", "--format", kind),
                run_dir=run,
            ).stdout
        )
    report = run_embed(EmbedConfig(pairs=str(path), run_dir=str(run), device="cpu"))
    found = report.parts[0].counts
    made = pq.read_table(tmp_path / "parquet/queries/pairs.parquet").to_pylist()
    written = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert written == made
    assert found["pairs_in"] == len(made) > 800
    dropped = found["pairs_dropped"]
    assert (
        dropped["empty_query"] == dropped["empty_passage"] == dropped["query_is_its_passage"] == 0
    )
    assert found["pairs_kept"] > 0.99 * len(made)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("queries", ["PAIRS or --corpus"]),
        ("queries PAIRS --method generate", ["--generator MODEL"]),
        ("queries PAIRS --generator x", ["--generator x needs --method generate", "crop"]),
        ("queries PAIRS --terms 9", ["--terms 9 needs --method keywords"]),
        ("queries PAIRS --method crop --method crop", ["each method once", "crop crop"]),
        ("queries PAIRS --remove-share 2", ["--remove-share must be at most 1", "found 2"]),
        ("queries PAIRS --min-words 40", ["--max-words must be", "--min-words 40", "found 32"]),
        ("queries --corpus CORPUS --cut-titles", ["--cut-titles needs titles", "PAIRS"]),
        ("queries --corpus CORPUS --query-column x", ["--query-column needs PAIRS"]),
        ("queries PAIRS --corpus-column x", ["--corpus-column needs --corpus"]),
        ("queries PAIRS --query-column qeury", ["'qeury'", "query, passage"]),
        ("queries EMPTY", ["no_such.parquet", "check the path"]),
        ("queries FOLDER", ["corpus.jsonl", "right folder"]),
        (
            "queries PAIRS --method generate --generator FOLDER",
            ["cannot load the generator", "seq2seq or causal"],
        ),
        (
            "queries PAIRS --method generate --generator FOLDER --prompt-file PROMPT",
            ["expected {passage} in --prompt-file"],
        ),
        ("queries PAIRS --min-words 500 --max-words 500", ["no query can be made", "too_short"]),
        ("queries PAIRS --method keywords --min-words 7", ["--terms must be", "found 6"]),
    ],
)
def test_a_mistake_is_one_line(
    line: str, said: list[str], small_input: Path, tmp_path: Path, cli: Cli, cli_here: Cli
) -> None:
    (tmp_path / "prompt.txt").write_text("Ask something")
    (tmp_path / "folder").mkdir()
    known = {
        "PAIRS": small_input / "pairs.parquet",
        "CORPUS": small_input / "corpus.parquet",
        "EMPTY": tmp_path / "no_such.parquet",
        "FOLDER": tmp_path / "folder",
        "PROMPT": tmp_path / "prompt.txt",
    }
    error = cli_here(*(known.get(one, one) for one in line.split()), run_dir=tmp_path / "run").error
    for part in said:
        assert part in error
    assert not list((tmp_path / "run").rglob("plan.json"))


def test_passages_without_text_are_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("title,text\na,\nb, \n")
    with pytest.raises(InputError, match="2 rows are empty"):
        make(tmp_path / "run", pairs=str(path))


# --- generation ---


def tokenizer(special: str = "") -> PreTrainedTokenizerFast:
    """A vocabulary of letters; `special` is its end of text."""
    letters = [*"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,:'?!0123456789\n-()"]
    vocabulary = {token: n for n, token in enumerate(["<pad>", "<unk>", "</s>", *letters])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    pad = {"pad_token": "<pad>"} if not special else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="</s>", **pad
    )


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A T5 and a GPT-2 of random weights."""
    folder = tmp_path_factory.mktemp("generators")
    set_seed(0)
    for name in ("t5", "gpt2"):
        words = tokenizer("gpt" if name == "gpt2" else "")
        words.save_pretrained(folder / name)
        if name == "t5":
            config = T5Config(
                vocab_size=len(words),
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=1,
                num_heads=2,
                decoder_start_token_id=0,
                eos_token_id=2,
                pad_token_id=0,
            )
            T5ForConditionalGeneration(config).save_pretrained(folder / name)
        else:
            config = GPT2Config(
                vocab_size=len(words),
                n_embd=16,
                n_layer=1,
                n_head=2,
                n_positions=300,
                eos_token_id=2,
                bos_token_id=2,
            )
            GPT2LMHeadModel(config).save_pretrained(folder / name)
    return {name: folder / name for name in ("t5", "gpt2")}


def sampling(**values: Any) -> TokenSampling:
    defaults = {
        "prompt": "{passage}",
        "max_passage_tokens": 40,
        "max_new_tokens": 8,
        "temperature": 1.0,
        "top_p": 0.95,
        "batch_size": 4,
    }
    return TokenSampling(**{**defaults, **values})


PASSAGES = ["a short one", "a much longer passage about something else", "third", "number four."]


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_a_passage_gets_the_same_queries_in_any_batch(
    kind: str, generators: dict[str, Path]
) -> None:
    load = QueryGenerator.load
    one = load(str(generators[kind]), "cpu", sampling())
    together = one.generate(PASSAGES, [11, 22, 33, 44], 3)
    assert [len(queries) for queries in together] == [3] * 4
    assert sum(bool(query) for queries in together for query in queries) > 8
    assert len({query for queries in together for query in queries}) > 6
    alone = load(str(generators[kind]), "cpu", sampling(batch_size=1))
    assert alone.generate(PASSAGES[2:0:-1], [33, 22], 3) == together[2:0:-1]
    assert one.generate(PASSAGES[:1], [12], 3) != together[:1]
    assert load(str(generators[kind]), "cpu", sampling()).contract() == one.contract()
    assert load(str(generators[kind]), "cpu", sampling(prompt="Q {passage}")).contract() != (
        one.contract()
    )


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_a_greedy_model_writes_what_transformers_writes(
    kind: str, generators: dict[str, Path]
) -> None:
    one = QueryGenerator.load(str(generators[kind]), "cpu", sampling(temperature=0.0, batch_size=1))
    ((query,),) = one.generate(PASSAGES[:1], [1], 5)
    inputs = one.tokenizer(PASSAGES[0], return_tensors="pt")
    inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    written = one.model.generate(**inputs, do_sample=False, max_new_tokens=8)[0]
    written = written if kind == "t5" else written[inputs["input_ids"].shape[1] :]
    expected = one.tokenizer.decode(written, skip_special_tokens=True).strip()
    assert query == next((line.strip() for line in expected.splitlines() if line.strip()), "")


def test_tokens_are_drawn_by_their_probability(generators: dict[str, Path]) -> None:
    """One step of GPT-2, many keys: frequencies are the softmax."""
    one = QueryGenerator.load(
        str(generators["gpt2"]), "cpu", sampling(max_new_tokens=1, top_p=1.0, batch_size=512)
    )
    num = 4_000
    found = Counter(
        queries[0] for queries in one.generate(["abc"] * num, [k * 7919 for k in range(num)], 1)
    )
    inputs = one.tokenizer("abc", return_tensors="pt")
    logits = one.model(inputs["input_ids"]).logits[0, -1].detach()
    for token in "aQ?7":
        expected = float(logits.softmax(-1)[one.tokenizer.convert_tokens_to_ids(token)]) * num
        assert abs(found[token] - expected) < 5 * expected**0.5 + 1


def test_the_passage_is_cut_and_the_prompt_is_not(generators: dict[str, Path]) -> None:
    one = QueryGenerator.load(
        str(generators["gpt2"]), "cpu", sampling(prompt="Read {passage} now", max_passage_tokens=5)
    )
    assert one._prompts(["abcdefgh", "ab"]) == ["Read abcde now", "Read ab now"]
    long = QueryGenerator.load(str(generators["gpt2"]), "cpu", sampling(max_passage_tokens=400))
    with pytest.raises(ConfigError, match="--max-passage-tokens below 400"):
        long.generate(["x" * 390], [1], 1)


@pytest.mark.parametrize("kind", ["t5", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_generated_queries_through_the_command_line(
    kind: str,
    generators: dict[str, Path],
    small_input: Path,
    tmp_path: Path,
    cli: Cli,
    cli_here: Cli,
) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Q: {passage}\nA:")
    args = ["queries", "--corpus", small_input / "corpus.parquet", "--method", "generate"]
    args += ["--method", "crop", "--generator", generators[kind], "--prompt-file", prompt]
    args += ["--max-new-tokens", "6", "--max-passage-tokens", "60", "--per-passage", "2"]
    args += ["--generate-batch-size", "64", "--device", "cpu", "--block-size", "200"]
    done = cli_here(*args, run_dir=tmp_path / "run")
    assert done.code == 0, done.stderr
    pairs = pq.read_table(tmp_path / "run/queries/pairs.parquet").to_pylist()
    written = [pair for pair in pairs if pair["method"] == "generate"]
    assert len(written) > 300
    assert all(pair["query"].strip() == pair["query"] != "" for pair in written)
    prompt.write_text("Other: {passage}")
    error = cli(*args, run_dir=tmp_path / "run").error
    assert "generator was" in error
    manifest = json.loads((tmp_path / "run/queries/manifest.json").read_text())
    assert balanced(manifest["counts"])


def test_a_folder_that_is_no_generator_is_refused(tiny_transformer: Path) -> None:
    with pytest.raises(ModelError, match="cannot load the generator"):
        QueryGenerator.load(str(tiny_transformer.parent), "cpu", sampling())


def test_the_rows_of_a_source_come_in_blocks_of_the_size_asked_for(titled: Path) -> None:
    from stx_mine.stages.queries.passages import PassageSource

    source = PassageSource.open(QueriesConfig(pairs=str(titled)))
    for size in (1, 2, 3, 7, 8):
        blocks = list(source.blocks(size))
        assert [len(one) for one in blocks[:-1]] == [size] * (len(blocks) - 1)
        rows = [row for one in blocks for row in one.column("source_row").to_pylist()]
        assert rows == list(range(7))


def test_crops_are_sentences_of_real_text(shared_data: Path, tmp_path: Path) -> None:
    pairs, _ = make(tmp_path, pairs=str(shared_data / "xquad-zh"), min_words=3, max_words=20)
    for pair in pairs:
        assert 3 <= num_words(pair["query"]) <= 20
        assert pair["query"] in pair["passage"]
    assert all(one["source_row"] < two["source_row"] for one, two in pairwise(pairs))
    assert len(terms(pairs[0]["query"])) > 3
