"""Queries: retrieval-like queries out of passages, as a file of pairs that `embed` reads."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.engine.local import run_tasks
from stx_mine.errors import ConfigError, InputError
from stx_mine.settings import key_fields
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.queries.core.keywords import TermStatistics
from stx_mine.stages.queries.generator import PLACE, QueryGenerator, TokenSampling
from stx_mine.stages.queries.makers import (
    Made,
    Maker,
    Passage,
    crop_passages,
    cut_titles,
    make_crops,
    make_generated,
    make_keywords,
    make_titles,
)
from stx_mine.stages.queries.passages import PASSAGE_SCHEMA, PassageSource
from stx_mine.store.artifact import Artifact
from stx_mine.store.digests import text_numbers
from stx_mine.store.files import read_array, read_table, write_array, write_table
from stx_mine.store.report import StageReport, listed, make_report, percent
from stx_mine.store.run_dir import RunDir
from stx_mine.store.tables import write_json_lines, write_parquet

_BLOCKS, _STATISTICS, _COUNTS = "blocks", "blocks/terms.npy", b"counts"
_SCHEMA = pa.schema(
    [
        ("query", pa.large_string()),
        ("passage", pa.large_string()),
        ("method", pa.large_string()),
        *(field for field in PASSAGE_SCHEMA if field.name not in ("passage", "title")),
    ]
)


def run_queries(config: QueriesConfig) -> StageReport:
    """Write `queries/pairs.parquet` (or `.jsonl`).

    Raises:
        ConfigError: No passages are named, or options contradict one another.
        InputError: An input is missing or malformed, or no query can be made.
        ModelError: The generator cannot be loaded.
        ArtifactError: `queries/` was made from something else.
    """
    source, run = PassageSource.open(config), RunDir(config.run_dir)
    with run.lock(begins=True):
        generator = _generator(config)
        fields = {
            key: value
            for key, value in key_fields(config, "queries").items()
            if key not in ("pairs", "corpus", "generator")
        }
        fields["content"] = source.fingerprint()
        fields["generator"] = generator and generator.contract()
        artifact = Artifact(
            run, "queries", config, fields=fields, inputs={}, overwrite=config.overwrite
        )
        if artifact.done:
            return _report(artifact, skipped=True)
        _write(artifact, config, source, generator)
        return _report(artifact)


def _generator(config: QueriesConfig) -> QueryGenerator | None:
    if config.generator is None:
        return None
    sampling = TokenSampling(
        prompt=None if config.prompt_file is None else _read_prompt(config.prompt_file),
        max_passage_tokens=config.max_passage_tokens,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        batch_size=config.generate_batch_size,
    )
    return QueryGenerator.load(config.generator, config.device, sampling)


def _read_prompt(path: str) -> str:
    """The text of a prompt file.

    Raises:
        ConfigError: It is missing, not UTF-8, or has no place for the passage.
    """
    try:
        prompt = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"expected a prompt in UTF-8 at --prompt-file {path}, found none; check the path"
        ) from error
    if PLACE not in prompt:
        raise ConfigError(
            f"expected {PLACE} in --prompt-file {path}, found none; write it where the passage "
            "belongs"
        )
    return prompt


@dataclass(frozen=True)
class _Rows:
    """What one pass over the input finds.

    Attributes:
        numbers: int64 (rows,) number of each text; -1 where it is empty.
        first: Bool (rows,) the first row of each text.
    """

    numbers: NDArray[np.int64]
    first: NDArray[np.bool_]

    @classmethod
    def read(cls, source: PassageSource, block_size: int) -> "_Rows":
        parts = [np.empty(0, np.int64)]
        for block in source.blocks(block_size):
            parts += [text_numbers(chunk) for chunk in block.column("passage").chunks]
        numbers = np.concatenate(parts)
        first = np.zeros(len(numbers), bool)
        first[np.unique(numbers, return_index=True)[1]] = True
        return cls(numbers, first & (numbers >= 0))


def _write(
    artifact: Artifact,
    config: QueriesConfig,
    source: PassageSource,
    generator: QueryGenerator | None,
) -> None:
    rows = _Rows.read(source, config.block_size)
    if not rows.first.any():
        raise InputError(
            f"expected passages in {config.pairs or config.corpus}, found none "
            f"({len(rows.numbers):,} rows are empty); check its columns"
        )
    num_blocks = -(-len(rows.numbers) // config.block_size)
    names = [f"{_BLOCKS}/{number:05d}.arrow" for number in range(num_blocks)]
    artifact.begin(names)
    makers = _makers(artifact, config, source, rows, generator)
    pending = artifact.pending(names)
    blocks = _blocks(source, config, rows, set(pending), names)

    def make(_: str) -> None:
        name, block, passages = next(blocks)
        write_table(artifact.folder / name, _pairs(block, passages, config, makers))

    run_tasks(pending, make, "queries")
    tables = [read_table(artifact.folder / name) for name in names]
    counts = _counts(tables, rows)
    if not counts["pairs"]:
        shutil.rmtree(artifact.folder)
        raise InputError(
            f"no query can be made of the {counts['rows_in']:,} rows ("
            + "; ".join(f"{m}: {listed(one['dropped'])}" for m, one in counts["methods"].items())
            + "); give longer passages or a smaller --min-words"
        )
    file = f"pairs.{config.format}"
    write = write_parquet if config.format == "parquet" else write_json_lines
    write(artifact.folder / file, (table.replace_schema_metadata() for table in tables))
    artifact.finish([file], counts=counts)
    shutil.rmtree(artifact.folder / _BLOCKS)


def _makers(
    artifact: Artifact,
    config: QueriesConfig,
    source: PassageSource,
    rows: _Rows,
    generator: QueryGenerator | None,
) -> dict[str, Maker]:
    makers: dict[str, Maker] = {"crop": make_crops, "titles": make_titles}
    if "keywords" in config.method:
        statistics = _statistics(artifact, config, source, rows)
        makers["keywords"] = make_keywords(statistics, config)
    if generator is not None:
        makers["generate"] = make_generated(generator, config)
    return {method: makers[method] for method in config.method}


def _statistics(
    artifact: Artifact, config: QueriesConfig, source: PassageSource, rows: _Rows
) -> TermStatistics:
    """Of the distinct passages, before titles are cut; kept for a resumed run."""
    if artifact.pending([_STATISTICS]):

        def texts() -> Iterator[str]:
            start = 0
            for block in source.blocks(config.block_size):
                first = pa.array(rows.first[start : start + len(block)])
                yield from block.column("passage").filter(first).to_pylist()
                start += len(block)

        write_array(artifact.folder / _STATISTICS, TermStatistics.of(texts()).to_array())
    return TermStatistics.from_array(read_array(artifact.folder / _STATISTICS))


def _blocks(
    source: PassageSource, config: QueriesConfig, rows: _Rows, wanted: set[str], names: list[str]
) -> Iterator[tuple[str, pa.Table, list[Passage]]]:
    """Yield the blocks that are still to make, with the passages that may get a query."""
    for number, block in enumerate(source.blocks(config.block_size)):
        if names[number] not in wanted:
            continue
        start = number * config.block_size
        texts, titles = (block.column(name).to_pylist() for name in ("passage", "title"))
        passages = [
            Passage(
                row,
                texts[row],
                (titles[row] or "").strip(),
                int(rows.numbers[start + row]),
                bool(rows.first[start + row]),
            )
            for row in range(len(block))
            if rows.numbers[start + row] >= 0
            and (rows.first[start + row] or "titles" in config.method)
        ]
        yield names[number], block, passages


def _pairs(
    block: pa.Table, passages: list[Passage], config: QueriesConfig, makers: dict[str, Maker]
) -> pa.Table:
    """The pairs of a block in the order of its rows, with counts in the metadata."""
    counts: dict[str, Any] = {"methods": {}}
    if config.cut_titles:
        counts["cut"] = cut_titles(passages)
    if "crop" in makers:
        counts["crops"] = crop_passages([one for one in passages if one.text], config)
    lines = list[tuple[int, str, str, str]]()
    for method, make in makers.items():
        asked = [one for one in passages if one.first or method == "titles"]
        left = [one for one in asked if one.text]
        made = make(left) if left else []
        counts["methods"][method] = _method_counts(made, len(asked), config.per_passage)
        for one, found in zip(left, made, strict=True):
            lines += [(one.row, query, one.text, method) for query in found.queries]
    lines.sort(key=lambda line: line[0])
    rows, *texts = [list(column) for column in zip(*lines, strict=True)] if lines else [[]] * 4
    taken = block.take(pa.array(rows, pa.int64()))
    columns = [pa.array(one, pa.large_string()) for one in texts]
    columns += [taken.column(name) for name in ("passage_id", "source", "source_row")]
    metadata = {_COUNTS: json.dumps(counts).encode()}
    return pa.table(columns, schema=_SCHEMA).replace_schema_metadata(metadata)


def _method_counts(made: list[Made], num_asked: int, per_passage: int) -> dict[str, Any]:
    """Passages in = kept + dropped by reason; queries; passages with fewer than asked for."""
    reasons = Counter(one.reason for one in made if not one.queries)
    if num_asked > len(made):
        reasons["only_its_title"] = num_asked - len(made)
    lengths = [len(one.queries) for one in made]
    return {
        "passages_in": num_asked,
        "passages_kept": sum(map(bool, lengths)),
        "dropped": dict(sorted(reasons.items())),
        "queries": sum(lengths),
        "passages_with_fewer": sum(0 < length < per_passage for length in lengths),
    }


def _counts(tables: list[pa.Table], rows: _Rows) -> dict[str, Any]:
    """The counts of all blocks; rows in = distinct + dropped by reason."""
    total: dict[str, Any] = {}
    for table in tables:
        _add(total, json.loads(table.schema.metadata[_COUNTS]))
    distinct, filled = int(rows.first.sum()), int((rows.numbers >= 0).sum())
    return {
        "rows_in": len(rows.numbers),
        "passages": distinct,
        "rows_dropped": {"empty": len(rows.numbers) - filled, "repeated": filled - distinct},
        "pairs": sum(map(len, tables)),
        **total,
    }


def _add(total: dict[str, Any], one: dict[str, Any]) -> None:
    """Add numbers by their names, at any depth."""
    for name, value in one.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value


def _report(artifact: Artifact, skipped: bool = False) -> StageReport:
    manifest = artifact.result
    counts, fields = manifest.counts, manifest.fields
    lines = [
        f"{counts['passages']:,} distinct passages in {counts['rows_in']:,} rows; dropped: "
        f"{listed(counts['rows_dropped']) or 'none'}"
    ]
    if cut := counts.get("cut"):
        lines.append(
            f"{percent(cut['prefix'] + cut['inside'], cut['titles'])} of {cut['titles']:,} titles "
            f"stand in their passage and are cut out of it: {cut['prefix']:,} at its beginning, "
            f"{cut['inside']:,} inside"
        )
    for method, one in counts["methods"].items():
        line = f"{method}: {one['queries']:,} queries of {one['passages_kept']:,} passages"
        if one["dropped"]:
            none = one["passages_in"] - one["passages_kept"]
            line += f"; none of {percent(none, one['passages_in'])}: {listed(one['dropped'])}"
        if one["passages_with_fewer"] and method != "titles":
            line += (
                f"; {one['passages_with_fewer']:,} have fewer than --per-passage "
                f"{fields['per_passage']}"
            )
        lines.append(line)
    if fields["remove_share"]:
        crops = counts["crops"]
        lines.append(
            f"{percent(crops['removed'], crops['cropped'])} of the cropped passages lost their "
            f"sentences, {crops['too_short_without']:,} more would be too short without"
        )
    file = manifest.content["files"][0]["file"]
    lines.append(f"read them with `stx-mine embed {manifest.folder / file}`")
    return make_report(artifact, lines, skipped=skipped)
