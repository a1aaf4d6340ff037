"""Estimate: what a training step will embed, score, hold and take, before anything is trained."""

from dataclasses import dataclass, replace

from sentence_transformers import SentenceTransformer

from stx_mine.core.role import Role
from stx_mine.errors import ArtifactError, ConfigError, DamagedError
from stx_mine.models.load import is_static, open_model
from stx_mine.settings import key_fields
from stx_mine.stages.estimate.base_model import model_to_train
from stx_mine.stages.estimate.config import EstimateConfig
from stx_mine.stages.estimate.counts import EstimateCounts
from stx_mine.stages.estimate.model_shape import model_shape, sample_texts
from stx_mine.stages.estimate.report import estimate_report
from stx_mine.stages.estimate.results import Cell, Estimate
from stx_mine.stages.estimate.step_costs import StepCosts
from stx_mine.stages.estimate.step_texts import TrialPacking, count_batches
from stx_mine.stages.estimate.step_time import time_step
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.hardness import BatchHardness
from stx_mine.stages.pack.packings import default_packings
from stx_mine.stages.train.losses.embedding import MiniBatches
from stx_mine.store.artifact import Artifact, Manifest, require
from stx_mine.store.batches import BatchShard, list_packings
from stx_mine.store.files import read_json, write_json
from stx_mine.store.groups import TextGroups
from stx_mine.store.manifest import is_begun
from stx_mine.store.negatives import with_judged
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport
from stx_mine.store.texts import TextStore

RESULTS = "results.json"
_GRID_KS = (0, 1, 4, 8, 16, 64)
_GRID_ROWS = tuple(4**power for power in range(3, 9))


def run_estimate(config: EstimateConfig) -> StageReport:
    """Estimate and write `estimates/results.json`.

    Raises:
        ConfigError: No batch of the size asked for can be filled.
        ModelError: The model cannot be loaded.
        ArtifactError: There are no texts.
    """
    run = RunDir(config.run_dir, config.check)
    with run.lock():
        texts, grouping = require(run, "texts"), require(run, "groups")
        counted_in, notes = _finished_artifacts(run)
        name, length, reading = model_to_train(config, run)
        fields = {**key_fields(config, "estimates"), **config.step_fields()}
        fields |= {"model": name, "max_length": length}
        inputs = {part: one.digest for part, one in counted_in.items()}
        inputs |= {"texts": texts.digest, "groups": grouping.digest}
        artifact = Artifact(
            run, "estimates", config, fields=fields, inputs=inputs, overwrite=config.overwrite
        )
        if artifact.done:
            done = Estimate.of_json(read_json(artifact.folder / RESULTS))
            return estimate_report(artifact, done, notes, skipped=True)
        store, groups = TextStore.open(texts), TextGroups.open(grouping)
        if "negatives" in counted_in:
            store = with_judged(store, counted_in["negatives"])
        model = open_model(name, config.device, length, reading=reading)
        notes += model.notes
        estimate = _estimate(config, counted_in, store, groups, name, model.model)
        artifact.begin([RESULTS])
        write_json(artifact.folder / RESULTS, estimate.to_json())
        artifact.finish([RESULTS], counts=EstimateCounts(rows=estimate.rows))
        return estimate_report(artifact, estimate, notes)


def _finished_artifacts(run: RunDir) -> tuple[dict[str, Manifest], list[str]]:
    """Finished artifacts beside the texts that counts may come from, and why others are not read.

    Raises:
        ArtifactError: A manifest lacks what every manifest has.
    """
    found, notes = {}, []
    for name in ("embeddings", "negatives", "batches"):
        if not is_begun(run, name):
            continue
        try:
            found[name] = require(run, name)
        except DamagedError:
            raise
        except ArtifactError as error:
            notes.append(f"{name}/ is not read: {error}")
    if "batches" in found and found["batches"].fields["layout"] == "labels":
        notes.append("batches/ is not read: it holds (text, label) rows")
        del found["batches"]
    return found, notes


def _estimate(
    config: EstimateConfig,
    counted_in: dict[str, Manifest],
    store: TextStore,
    groups: TextGroups,
    model_name: str,
    model: SentenceTransformer,
) -> Estimate:
    packings = list_packings(counted_in["batches"].folder) if "batches" in counted_in else []
    asked = _asked(config, counted_in.get("negatives"), packings)
    ks = sorted({*_GRID_KS, asked.k})
    negatives, embeddings = (counted_in.get(name) for name in ("negatives", "embeddings"))
    dry_run = TrialPacking.open(config.run_dir, store, groups, negatives, embeddings, ks[-1])
    sample: dict[Role, list[str]] = {
        "query": sample_texts(store.queries.column("text")),
        "passage": sample_texts(store.passages.column("text")),
    }
    shape = model_shape(model, sample)
    mini_batches = MiniBatches.of(config, model.device)
    tokens = mini_batches.tokens
    measured = None
    if config.time:
        means: dict[Role, float] = {"query": shape.query_tokens, "passage": shape.passage_tokens}
        measured = time_step(model, sample, means, tokens)
    room = mini_batches.room(model.device)
    costs = StepCosts(shape, config.chunk_rows, tokens, room, measured, config.interactions)
    cells, hardness = _cells(asked, dry_run, costs, ks)
    if packings:
        shard = packings[0][0]
        passes = config.epochs or len(packings)
        packed = costs.cell(shard.batch_size, shard.num_negatives, count_batches(packings), passes)
        cells = [
            replace(packed, harder=cell.harder) if cell.size == packed.size else cell
            for cell in cells
        ]
    return Estimate(
        batch_size=asked.batch_size,
        k=asked.k,
        rows=dry_run.num_rows,
        model_name=model_name,
        static=is_static(model),
        shape=shape,
        chunk_rows=config.chunk_rows,
        batch_tokens=tokens,
        measured=measured,
        cells=cells,
        hardness=hardness[asked.batch_size] if asked.k else None,
    )


def _cells(
    asked: "_Asked", dry_run: TrialPacking, costs: StepCosts, ks: list[int]
) -> tuple[list[Cell], dict[int, BatchHardness | None]]:
    """The cells of all batch sizes that can be filled, and how hard batches of each size are.

    Raises:
        ConfigError: No batch of the size asked for can be filled.
    """
    cells, hardness = list[Cell](), dict[int, BatchHardness | None]()
    for size in sorted({asked.batch_size, *(s for s in _GRID_ROWS if s <= dry_run.num_rows)}):
        texts = dry_run.count(size, ks)
        if texts is None:
            if size == asked.batch_size:
                raise ConfigError(
                    f"no batch of {size:,} rows can be filled with the {dry_run.num_rows:,} rows "
                    "that a packing takes; give a smaller --batch-size, or add pairs"
                )
            continue
        passes = asked.passes or default_packings(texts.num_batches)
        found = hardness[size] = dry_run.hardness(size, max(asked.k, 1))
        harder = None if found is None else found.harder
        cells += [
            replace(costs.cell(size, k, texts, passes), harder=harder if k else None) for k in ks
        ]
    return cells, hardness


@dataclass(frozen=True)
class _Asked:
    """What was asked for, with defaults from what is there.

    Attributes:
        batch_size: Rows per step.
        k: Negatives per row.
        passes: Over the rows; None where it follows from the batches of a packing.
    """

    batch_size: int
    k: int
    passes: int | None


def _asked(
    config: EstimateConfig, negatives: Manifest | None, packings: list[list[BatchShard]]
) -> _Asked:
    size, k = PackConfig.batch_size, MineConfig.k
    if negatives is not None:
        k = int(negatives.extra["k"])
    if packings:
        size, k = packings[0][0].batch_size, packings[0][0].num_negatives
    return _Asked(config.batch_size or size, k if config.k is None else config.k, config.epochs)
