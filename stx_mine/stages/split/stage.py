"""Split: divide pairs into training, development and test by what shares no text."""

import numpy as np
from numpy.typing import NDArray

from stx_mine.errors import ConfigError
from stx_mine.inputs.pairs import PairSource
from stx_mine.settings import key_fields
from stx_mine.stages.dedup.near_texts import refuse_without_rensa
from stx_mine.stages.dedup.stored_duplicates import StoredDuplicates
from stx_mine.stages.ingest.named_documents import NamedDocuments
from stx_mine.stages.ingest.pairs import Ingested, read_source
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.core.parts import PARTS
from stx_mine.stages.split.core.units import PairGraph
from stx_mine.stages.split.counts import PartCounts, SplitCounts
from stx_mine.stages.split.files import (
    CORPUS,
    QUERIES,
    PartOfJudgement,
    QrelsCounts,
    qrels_file,
    write_corpus,
    write_qrels,
    write_query_file,
)
from stx_mine.stages.split.graph import Division, pair_graph
from stx_mine.stages.split.judgements import judgements_of
from stx_mine.stages.split.output_ids import OutputIds
from stx_mine.stages.split.report import GROUPED_BY, LEAST, split_report
from stx_mine.stages.split.same_in_run import same_texts_of_run
from stx_mine.stages.split.same_texts import find_same_texts
from stx_mine.store.artifact import Artifact
from stx_mine.store.manifest import refuse_damaged
from stx_mine.store.places import refuse_input_within
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport


def run_split(config: SplitConfig) -> StageReport:
    """Write `split/`: a BEIR folder whose qrels are `train`, `dev` and `test`.

    Raises:
        ConfigError: No pairs are named, the input is the folder that is written, a package is
            missing, or more texts would count as one than is allowed.
        InputError: The input is missing or malformed, or parts of these sizes cannot be made.
        ArtifactError: `split/` was made from something else.
    """
    if config.pairs is None:
        raise ConfigError("expected PAIRS, found none; name a file of pairs or a BEIR folder")
    refuse_damaged(config.pairs, config.corpus)
    if config.jaccard is not None:
        refuse_without_rensa("give --ignore case,punctuation instead")
    source = PairSource.open(config.pairs, config, "train").with_languages(config)
    run = RunDir(config.run_dir)
    refuse_input_within(run.folder("split"), (config.pairs, config.corpus))
    with run.lock(begins=True):
        fields = {**key_fields(config, "split"), **key_fields(config, "texts")}
        fields = {name: v for name, v in fields.items() if name not in ("pairs", "corpus")}
        fields["content"] = source.fingerprint()
        duplicates = None
        if config.groups is not None:
            duplicates = StoredDuplicates.open(RunDir(config.groups))
            fields["groups"] = duplicates.digest
        artifact = Artifact(
            run,
            "split",
            config,
            fields=fields,
            inputs={},
            overwrite=config.overwrite,
        )
        skipped = artifact.done
        if not skipped:
            _write(artifact, config, source, duplicates)
        return split_report(artifact, config, _other_qrels(source), skipped)


def _other_qrels(source: PairSource) -> list[str]:
    """The qrels of a BEIR folder that were not read."""
    if not source.is_folder or not source.has_judgements:
        return []
    return [f"{split}{source.pairs.files[0].suffix}" for split in sorted(source.other_splits)]


def _write(
    artifact: Artifact,
    config: SplitConfig,
    source: PairSource,
    duplicates: StoredDuplicates | None,
) -> None:
    found = read_source(source)
    asked = np.zeros(len(found.queries.digests), bool)
    asked[found.pairs[:, 0]] = True
    queries, passages = (
        OutputIds.of("query", found.queries, asked),
        OutputIds.of("passage", found.passages),
    )
    same, judgements = None, judgements_of(source, found, queries, passages)
    if duplicates is not None:
        same = same_texts_of_run(config, found, judgements, duplicates)
    elif config.joins_alike:
        same = find_same_texts(config, source, found, judgements)
    named_documents = NamedDocuments.of([source], found.passages)
    graph = pair_graph(found, None if same is None else same.counts_as, named_documents)
    division = Division.of(graph, config)
    names = [name for name in PARTS if division.targets[name]]
    files = [CORPUS, QUERIES, *map(qrels_file, names)]
    artifact.begin(files)
    num_passages = write_corpus(artifact.folder / CORPUS, source, passages, named_documents)
    num_queries = write_query_file(artifact.folder / QUERIES, source, queries)
    of_qrels = write_qrels(
        artifact.folder,
        names,
        judgements_of(source, found, queries, passages),
        PartOfJudgement.of(found, graph, division.parts),
    )
    named = np.zeros(len(found.passages.digests), bool)
    named[found.pairs[:, 1]] = True
    counts = SplitCounts(
        pairs_in=found.counts.pairs_in,
        pairs_kept=found.counts.pairs_kept,
        pairs_dropped=found.counts.pairs_dropped,
        queries=num_queries,
        queries_left_out=_left_out(source, found, asked),
        passages=num_passages,
        corpus_empty=found.counts.corpus_empty,
        passages_without_pair=int((~named[passages.texts]).sum()),
        components=len(division.components),
        largest_component=int(division.components.sizes_U.max()),
        not_relevant_dropped=of_qrels.dropped,
        parts=_part_counts(found, graph, division, of_qrels, names),
        leaks=division.leaks,
        joined=None if same is None else same.counts,
    )
    read = [*source.description(), *found.notes]
    if named_documents is not None:
        read.append(f"{named_documents.note}, which stay in one part, as one text does")
    extra = {
        "read": read,
        LEAST: same.least if same else [],
        GROUPED_BY: duplicates.command if duplicates else "",
    }
    artifact.finish(files, counts=counts, extra=extra)


def _left_out(source: PairSource, found: Ingested, asked: NDArray[np.bool_]) -> int:
    """Queries without a pair; a BEIR folder has those of its other qrels too."""
    of_others = found.queries.num_empty if source.has_judgements else 0
    return int((~asked).sum()) + of_others


def _part_counts(
    found: Ingested, graph: PairGraph, division: Division, qrels: QrelsCounts, names: list[str]
) -> dict[str, PartCounts]:
    counts = {}
    for name in names:
        part = PARTS.index(name)
        inside = division.parts == part
        counts[name] = PartCounts(
            target=division.targets[name],
            pairs=int(inside.sum()),
            queries=len(np.unique(graph.queries_N[inside])),
            passages=len(np.unique(graph.passages_N[inside])),
            components=division.components.num_in(inside),
            rows=int(qrels.rows[part]),
            not_relevant=int(qrels.not_relevant[part]),
        )
    return counts
