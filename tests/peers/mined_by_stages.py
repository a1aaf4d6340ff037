"""The `mine_hard_negatives` of sentence-transformers, made of the stages of stx-mine.

It takes the arguments of the peer, writes what a person would bring as files, runs `embed`, `index`
where FAISS is asked for, `mine` and `export`, and reads the export as `datasets` does.
"""

import inspect
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from sentence_transformers.util import mine_hard_negatives as of_the_peer

from stx_mine.errors import StxMineError
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.embed.stage import run_embed
from stx_mine.stages.export.config import ExportConfig
from stx_mine.stages.export.stage import run_export
from stx_mine.stages.index.config import IndexConfig
from stx_mine.stages.index.stage import run_index
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.store.stage_report import StageReport

SIGNATURE = inspect.signature(of_the_peer)
# Set by the call that embeds with `encode`.
_in_memory: Any = None


def encode(texts: list[str]) -> Any:
    """For `--encoder`: a model that lives in memory alone. Prompts stand in the texts."""
    return _in_memory.encode(texts, prompt="", show_progress_bar=False)


def mine_hard_negatives(*args: Any, **kwargs: Any) -> Dataset:
    """As the peer's.

    Raises:
        ValueError: What stx-mine refuses, in its words.
        NotImplementedError: An option that stx-mine does not have.
    """
    given = SIGNATURE.bind(*args, **kwargs)
    given.apply_defaults()
    wanted = SimpleNamespace(**given.arguments)
    if wanted.cross_encoder is not None:
        raise NotImplementedError("stx-mine has no cross_encoder")
    with tempfile.TemporaryDirectory() as folder:
        try:
            return _mined(wanted, Path(folder))
        except StxMineError as error:
            raise ValueError(str(error)) from error


def _mined(wanted: SimpleNamespace, folder: Path) -> Dataset:
    run = {"run_dir": str(folder / "run")}
    names = wanted.dataset.column_names
    anchor, positive = (
        given or first
        for given, first in zip(
            (wanted.anchor_column_name, wanted.positive_column_name), names[:2], strict=True
        )
    )
    reports = [run_embed(EmbedConfig(**run, **_pairs(wanted, folder), **_vectors(wanted, folder)))]
    if wanted.use_faiss:
        reports.append(run_index(IndexConfig(**run, factory="Flat")))
    reports.append(run_mine(MineConfig(**run, **_rules(wanted))))
    layout, scores = _layout(wanted)
    exported = ExportConfig(
        **run, to=layout, scores=scores, include_positives=wanted.include_positives
    )
    reports.append(run_export(exported))
    if wanted.verbose:
        _show(reports)
    rows = pq.read_table(sorted((folder / "run/exports" / layout).glob("data/*.parquet")))
    renamed = {"anchor": anchor, "positive": positive}
    return Dataset.from_dict(
        {renamed.get(name, name): rows[name].to_pylist() for name in rows.column_names}
    )


def _pairs(wanted: SimpleNamespace, folder: Path) -> dict[str, Any]:
    """The options of the input, which is written."""
    wanted.dataset.to_parquet(folder / "pairs.parquet")
    found = {
        "pairs": str(folder / "pairs.parquet"),
        "query_column": wanted.anchor_column_name,
        "passage_column": wanted.positive_column_name,
    }
    if wanted.corpus is not None:
        pq.write_table(pa.table({"text": wanted.corpus}), folder / "corpus.parquet")
        found["corpus"] = str(folder / "corpus.parquet")
    return found


def _vectors(wanted: SimpleNamespace, folder: Path) -> dict[str, Any]:
    """The options of the model: a folder, a function, or the vectors where there is no model."""
    global _in_memory
    model = wanted.model
    if not hasattr(model, "save_pretrained"):
        return _given_vectors(wanted, folder)
    common: dict[str, Any] = {
        "query_prompt": _prompt(model, wanted.query_prompt, wanted.query_prompt_name),
        "passage_prompt": _prompt(model, wanted.corpus_prompt, wanted.corpus_prompt_name),
        "normalize": True,
        "device": "cpu",
        "embedding_cache": wanted.cache_folder,
    }
    if vars(model).keys() & {"preprocess", "tokenize"}:
        # A method was replaced in memory; no folder would hold that.
        _in_memory = model
        common["device"] = None
        how = {"encoder": f"{__name__}:encode", "similarity": model.similarity_fn_name}
    else:
        model.save_pretrained(str(folder / "model"), create_model_card=False)
        how = {"model": str(folder / "model")}
    return {**common, **how}


def _given_vectors(wanted: SimpleNamespace, folder: Path) -> dict[str, Any]:
    rows = wanted.dataset.to_dict()
    queries, passages = (rows[name] for name in wanted.dataset.column_names[:2])
    passages = wanted.corpus or passages
    paths = {"query_vectors": folder / "queries.npy", "passage_vectors": folder / "passages.npy"}
    np.save(paths["query_vectors"], wanted.model.encode_query(queries))
    np.save(paths["passage_vectors"], wanted.model.encode_document(passages))
    return {name: str(path) for name, path in paths.items()}


def _prompt(model: Any, prompt: str | None, name: str | None) -> str | None:
    """None for the model's own."""
    return model.prompts[name] if prompt is None and name is not None else prompt


def _rules(wanted: SimpleNamespace) -> dict[str, Any]:
    """The options of `mine`."""
    k, window = wanted.num_negatives, wanted.range_max
    return {
        "k": k,
        "pool": max(k, 1),
        "depth": max(100, wanted.range_min + k if window is None else window),
        "search": "faiss" if wanted.use_faiss else "exact",
        "range_min": wanted.range_min,
        "range_max": window,
        "min_score": wanted.min_score,
        "max_score": wanted.max_score,
        "absolute_margin": wanted.absolute_margin if wanted.margin is None else wanted.margin,
        "relative_margin": wanted.relative_margin,
        "sampling": wanted.sampling_strategy,
        "query_block": wanted.faiss_batch_size,
        "device": "cpu",
    }


def _layout(wanted: SimpleNamespace) -> tuple[str, bool]:
    """`--to` and `--scores`."""
    if wanted.include_positives:
        return "labeled-list", False
    if wanted.output_format == "n-tuple-scores":
        return "n-tuple", True
    if wanted.as_triplets is not None:
        return "triplet" if wanted.as_triplets else "n-tuple", wanted.output_scores
    return wanted.output_format, wanted.output_scores


def _show(reports: list[StageReport]) -> None:
    for report in reports:
        print("\n".join([report.stage, *report.lines, *report.warnings]))
