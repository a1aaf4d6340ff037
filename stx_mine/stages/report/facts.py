"""All that a page tells of a run, JSON-ready."""

from dataclasses import asdict, dataclass, field
from typing import Any

from stx_mine.stages.mine.counts import MineCounts
from stx_mine.stages.report.config import ReportConfig
from stx_mine.stages.report.examples import MOST_SCORED, QueryExample, query_examples
from stx_mine.stages.report.glance import Glance, glance_of
from stx_mine.stages.report.mined_facts import (
    GroupFacts,
    ScoreFacts,
    UnitSample,
    UseFacts,
    VerdictFact,
    group_facts,
    score_facts,
    use_facts,
    verdict_facts,
)
from stx_mine.stages.report.packed_facts import PackedFacts, batch_facts
from stx_mine.stages.report.parts import MINED, RunParts
from stx_mine.stages.report.training_facts import (
    EvaluationFacts,
    TrainingFacts,
    evaluation_facts,
    training_facts,
)
from stx_mine.stages.tune.results import TuningResults
from stx_mine.store.audits import AuditFinding
from stx_mine.store.groups import TextGroups
from stx_mine.store.texts import TextStore

# The sections in their order, after the glance.
SECTIONS = (
    ("waterfall", "What became of the hits"),
    ("scores", "Scores and margins"),
    ("audits", "False negatives"),
    ("queries", "Queries to read"),
    ("uses", "Passages used most"),
    ("groups", "Texts that count as one"),
    ("batches", "Batches"),
    ("training", "Training"),
    ("evaluations", "Before and after"),
    ("tuning", "Policies that were tried"),
)


@dataclass
class RunFacts:
    """What a page tells of a run.

    Attributes:
        run: Path of the run directory, as it was named.
        glance: The run at a glance.
        left_out: Section -> why it is left out.
        samples: Which numbers are of a sample, as sentences.
        queries: Queries to read; this section and those below are None where they are left out.
        k: Negatives of a full row.
        waterfall: Hits by verdict.
        scores: Histograms and curves.
        audits: Shares of false negatives with intervals.
        uses: How often passages are negatives.
        groups: Sizes of groups.
        batches: The make-up of batches.
        training: Curves of the log.
        evaluations: Scores with intervals.
        tuning: What policies reached.
    """

    run: str
    glance: Glance
    left_out: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)
    queries: list[QueryExample] | None = None
    k: int | None = None
    waterfall: list[VerdictFact] | None = None
    scores: ScoreFacts | None = None
    audits: list[AuditFinding] | None = None
    uses: UseFacts | None = None
    groups: GroupFacts | None = None
    batches: PackedFacts | None = None
    training: TrainingFacts | None = None
    evaluations: list[EvaluationFacts] | None = None
    tuning: TuningResults | None = None

    def to_json(self) -> dict[str, Any]:
        """As `report.json` holds them."""
        return asdict(self)

    @property
    def sections(self) -> list[str]:
        """Names of the sections that are there."""
        return [name for name, _ in SECTIONS if name not in self.left_out]


def facts_of(config: ReportConfig, parts: RunParts) -> RunFacts:
    """Read what the artifacts of a run say.

    Raises:
        DamagedError: A file is damaged.
    """
    facts = RunFacts(config.run_dir, glance_of(parts.manifests))
    if lack := parts.lack("texts", "groups"):
        facts.left_out["groups"] = lack
    else:
        store = TextStore.open(parts.manifests["texts"])
        facts.groups = group_facts(store, TextGroups.open(parts.manifests["groups"]))
    if lack := parts.lack(*MINED):
        facts.left_out |= dict.fromkeys(("queries", "waterfall", "scores", "uses"), lack)
    else:
        _add_mined(facts, config, parts)
    _add_batches(facts, config, parts)
    if lack := parts.lack("model"):
        facts.left_out["training"] = lack
    else:
        facts.training = training_facts(parts.manifests["model"])
    facts.evaluations = evaluation_facts(parts.of_kind("evaluations"))
    if not facts.evaluations:
        facts.left_out["evaluations"] = parts.lack_of_kind("evaluations")
    if lack := parts.lack("tuning"):
        facts.left_out["tuning"] = lack
    else:
        facts.tuning = TuningResults.read(parts.manifests["tuning"])
    facts.audits = [AuditFinding.read(one) for one in parts.of_kind("audits").values()]
    if not facts.audits:
        facts.left_out["audits"] = parts.lack_of_kind("audits")
    return facts


def _add_mined(facts: RunFacts, config: ReportConfig, parts: RunParts) -> None:
    views, mined = parts.views, parts.views.mined
    facts.waterfall = verdict_facts(MineCounts.read(mined.negatives))
    facts.uses = use_facts(views)
    sample = _add_scores(facts, config, parts)
    facts.queries = query_examples(views, sample, config.queries, config.seed)
    if not facts.queries:
        facts.left_out["queries"] = "--queries 0 asks for none"
    if mined.store.num_queries > MOST_SCORED:
        facts.samples.append(f"the worst positives are those of {MOST_SCORED:,} queries, drawn")


def _add_scores(facts: RunFacts, config: ReportConfig, parts: RunParts) -> UnitSample | None:
    """Take down what plots of scores show; the sample that it is of."""
    mined = parts.views.mined
    facts.k, sample = mined.k, UnitSample.draw(mined, config.seed)
    if sample is None:
        facts.left_out["scores"] = "no query has hits"
        return None
    facts.scores = score_facts(mined, sample)
    if facts.scores.units < facts.scores.of_units:
        facts.samples.append(
            f"scores, ranks, margins and suspect negatives are of {facts.scores.units:,} of "
            f"{facts.scores.of_units:,} {facts.scores.unit}, drawn with seed {config.seed}"
        )
    return sample


def plotted_facts(config: ReportConfig, parts: RunParts) -> RunFacts:
    """What the plots show, and nothing else.

    Raises:
        DamagedError: A file is damaged.
    """
    facts = RunFacts(config.run_dir, glance_of(parts.manifests))
    if not parts.lack(*MINED):
        _add_scores(facts, config, parts)
    if not parts.lack("model"):
        facts.training = training_facts(parts.manifests["model"])
    return facts


def _add_batches(facts: RunFacts, config: ReportConfig, parts: RunParts) -> None:
    if lack := parts.lack("batches"):
        facts.left_out["batches"] = lack
        return
    batches = parts.manifests["batches"]
    if batches.fields["layout"] == "labels":
        facts.left_out["batches"] = "batches/ holds rows of texts and labels, which have no masks"
        return
    facts.batches = batch_facts(batches, config.seed)
    if facts.batches.looked_at < facts.batches.of_batches:
        facts.samples.append(
            f"the make-up of batches is of {facts.batches.looked_at:,} of "
            f"{facts.batches.of_batches:,} batches, drawn with seed {config.seed}"
        )
