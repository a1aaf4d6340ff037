"""Options of `mine`."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from stx_mine.engine.config import EngineConfig
from stx_mine.errors import ConfigError
from stx_mine.settings import MAX_SEED, WHERE, given_fields, option, option_words

HIT_SOURCES = ("dense", "bm25")
KNOWN_ONLY = "known"
# What is without effect where nothing is searched, and where no rule about scores applies.
_OF_SEARCH = ("depth", "max_depth", "search", "candidates", "corpus_parts")
_JUDGES = "Judges"
# What is asked of judges.
OF_JUDGES = ("judges", "judged", "judged_margin", "combine", "votes")
_RULES = (
    "negatives_from",
    "negative_language",
    "range_min",
    "range_max",
    "min_score",
    "max_score",
    "absolute_margin",
    "relative_margin",
    "upper_margin",
    "closeness",
    "max_uses",
    "judges",
)


def _unlike_sources(sources: str) -> str:
    """What is wrong with a value of `sources`."""
    names = {name.strip() for name in sources.split(",")}
    if names == {KNOWN_ONLY} or "dense" in names <= set(HIT_SOURCES):
        return ""
    return (
        f"--sources must be dense, dense,bm25 or known (alone), found {sources!r}; other "
        "retrievers come in by --candidates, known negatives of the input are always candidates"
    )


@dataclass(frozen=True, kw_only=True)
class MineConfig(EngineConfig):
    """Search deeply, filter, keep an ordered pool of negatives per pair."""

    k: int = option(
        8,
        "Negatives per row that pack will bind; 0: none, and nothing is searched.",
        "negatives",
        minimum=0,
        group="Pool",
    )
    pool: int = option(
        30, "Negatives kept per pair; never fewer than k.", "negatives", minimum=1, group="Pool"
    )
    depth: int = option(
        100,
        "Candidates searched per query, beyond its known positives.",
        "negatives",
        minimum=1,
        group="Search",
    )
    max_depth: int | None = option(
        None,
        "Queries with fewer than k negatives are searched again, four times deeper, up to this.",
        "negatives",
        minimum=1,
        group="Search",
    )
    search: Literal["auto", "exact", "faiss"] = option(
        "auto",
        "exact, faiss (needs index/), or auto: faiss where index/ exists.",
        "hits",
        group="Search",
    )
    sources: str = option(
        "dense",
        "Where candidates come from: dense; dense,bm25 (needs bm25s); or known, to search nothing "
        "and take the known negatives of the input alone.",
        "negatives",
        group="Search",
        check=_unlike_sources,
    )
    candidates: str | None = option(
        None,
        "Candidates of another retriever: a TREC run, or a file of query and passage texts.",
        group="Search",
    )
    known_negatives: Literal["keep", "filter"] = option(
        "keep",
        "What becomes of the input's known negatives: they come first in the pool unless they are "
        "positives of their query (keep), or the rules apply to them as to all hits (filter).",
        "negatives",
        group="Rules",
    )
    negatives_from: Literal["auto", "positives", "corpus"] = option(
        "auto",
        "Which passages may be negatives: those that are a positive of some row, the whole corpus, "
        "or auto: the former where they are at least half of the passages.",
        "negatives",
        group="Rules",
    )
    negative_language: Literal["any", "same", "cross"] = option(
        "any",
        "Negatives in the language of their query (same), in others (cross), or in any; what is "
        "unknown is kept.",
        "negatives",
        group="Rules",
    )
    range_min: int = option(
        0, "First rank that may be a negative (0-based).", "negatives", minimum=0, group="Rules"
    )
    range_max: int | None = option(
        None, "Rank at which the window ends (exclusive).", "negatives", minimum=1, group="Rules"
    )
    min_score: float | None = option(
        None, "Lowest score of a negative.", "negatives", group="Rules"
    )
    max_score: float | None = option(
        None, "Highest score of a negative.", "negatives", group="Rules"
    )
    absolute_margin: float | None = option(
        None,
        "Keep a candidate if score <= positive - margin.",
        "negatives",
        minimum=0,
        group="Rules",
    )
    relative_margin: float | None = option(
        0.05,
        "Keep a candidate if score <= positive - |positive| * margin; none: off.",
        "negatives",
        minimum=0,
        group="Rules",
    )
    upper_margin: float | None = option(
        None,
        "Keep a candidate if score >= positive - margin (semi-hard).",
        "negatives",
        minimum=0,
        group="Rules",
    )
    positive_score: Literal["lowest", "pair"] = option(
        "lowest",
        "Margins count from the query's lowest positive, or the pair's own.",
        "negatives",
        group="Rules",
    )
    closeness: float | None = option(
        None,
        "Drop a candidate c if cos(q,c) + cos(p,c) > closeness x (1 + cos(q,p)); 0.7 is measured.",
        "negatives",
        minimum=0,
        group="Rules",
    )
    min_positive_percentile: float | None = option(
        None,
        "Drop pairs whose positive scores above fewer than this percent of random passages.",
        "negatives",
        minimum=0,
        group="Rules",
    )
    max_uses: int | None = option(
        None,
        "How often one passage may be a negative: its best uses stay.",
        "negatives",
        minimum=1,
        group="Rules",
    )
    judges: tuple[str, ...] = option(
        (),
        "Names of judgements (`stx-mine judge`), which decide about what they are about; the "
        "margins decide about the rest.",
        "negatives",
        group=_JUDGES,
    )
    judged: Literal["auto", "relabel", "mask", "drop"] = option(
        "auto",
        "What is judged no worse than its positive becomes a positive (relabel), what is close is "
        "left out of the loss; or both are left out (mask), or are no negatives, no more (drop); "
        "auto: relabel if the judges take at most 5% of random passages for positives, else mask.",
        "negatives",
        group=_JUDGES,
        needs="judges",
    )
    judged_margin: float = option(
        0.1,
        "Close is what a judge scores below the positive by at most this share of its score.",
        "negatives",
        minimum=0,
        maximum=1,
        group=_JUDGES,
        needs="judges",
    )
    combine: Literal["votes", "last"] = option(
        "votes",
        "Of several judges: what enough of them agree on, or what the last one says that judged.",
        "negatives",
        group=_JUDGES,
        needs="judges",
    )
    votes: int | None = option(
        None,
        "How many judges have to agree (default: more than half).",
        "negatives",
        minimum=1,
        group=_JUDGES,
        needs="judges",
        conflicts="combine=last",
    )
    sampling: Literal["top", "random", "weighted"] = option(
        "top",
        "The pool takes the best candidates, draws evenly, or draws by exp(score / temperature).",
        "negatives",
        group="Pool",
    )
    sampling_temperature: float = option(
        0.05,
        "Temperature of weighted sampling.",
        "negatives",
        minimum=1e-6,
        group="Pool",
        needs="sampling=weighted",
    )
    short_rows: Literal["keep", "drop"] = option(
        "keep", "What becomes of rows with fewer than k negatives.", "negatives", group="Pool"
    )
    seed: int = option(
        42, "Seed of sampling.", "negatives", minimum=0, maximum=MAX_SEED, group="Pool"
    )
    query_block: int = option(4_096, "Queries per search task.", "hits", minimum=1, group=WHERE)
    passage_block: int = option(16_384, "Passages per matrix product.", minimum=1, group=WHERE)
    corpus_parts: int = option(
        1,
        "Parts of a corpus larger than one device: searched by tasks of their own.",
        minimum=1,
        group=WHERE,
    )
    device: str | None = option(
        None, "cpu, cuda, mps ... (default: the best one seen).", group=WHERE
    )

    def __post_init__(self) -> None:
        """Check what one range alone cannot tell.

        Raises:
            ConfigError: An empty window, or values that do not fit one another.
        """
        super().__post_init__()
        self._check_ranks()
        self._check_judges()
        lowest, highest = self.min_score, self.max_score
        if lowest is not None and highest is not None and lowest > highest:
            raise ConfigError(
                f"--min-score must not be above --max-score, found {self.min_score} and "
                f"{self.max_score}; swap them"
            )
        above, below = self.absolute_margin, self.upper_margin
        if above is not None and below is not None and below < above:
            raise ConfigError(
                f"--upper-margin must be at least --absolute-margin {above:g}, found {below:g}: "
                "no score is between; swap them"
            )

    def _check_judges(self) -> None:
        """Refuse votes that nobody can give, and new pairs where every pair has its own pool.

        Raises:
            ConfigError: One of them.
        """
        if len(set(self.judges)) < len(self.judges):
            raise ConfigError(
                f"--judges must differ, found {', '.join(self.judges)}; name each once"
            )
        if self.judges and not self.mines:
            raise ConfigError(
                f"--judges {', '.join(self.judges)} needs candidates, found --k 0, which finds "
                "none; give --k 1 or more, or no judges"
            )
        if self.votes is not None and self.votes > len(self.judges):
            raise ConfigError(
                f"--votes must be at most the {len(self.judges)} judges, found {self.votes}; give "
                "less, or more --judges"
            )
        if self.judges and self.judged == "relabel" and self.positive_score == "pair":
            raise ConfigError(
                "--judged relabel makes pairs that share the pool of their query, found "
                "--positive-score pair, which gives every pair its own; give --judged mask, or "
                "--positive-score lowest"
            )

    @classmethod
    def without_judges(cls, settings: dict[str, Any]) -> "MineConfig":
        """The settings of `negatives/` as the embedding model alone would have decided.

        Args:
            settings: Of its plan.
        """
        own = {name: value for name, value in settings.items() if name not in OF_JUDGES}
        return cls(**own)

    @classmethod
    def as_mined(cls, settings: dict[str, Any], **given: Any) -> "MineConfig":
        """The settings that decided finished `negatives/`, to select once more as they were.

        Args:
            settings: All options of the command that mined.
            given: What else is set, as where it runs.
        """
        decisive = {
            one.name
            for one in fields(cls)
            if one.name == "candidates" or {"negatives", "hits"} & set(one.metadata["affects"])
        }
        own = {name: value for name, value in settings.items() if name in decisive}
        return cls(**{**own, **given})

    @property
    def votes_needed(self) -> int:
        """How many judges have to agree."""
        return self.votes or len(self.judges) // 2 + 1

    def _check_ranks(self) -> None:
        """Refuse a window, or a search, that cannot hold k candidates.

        Raises:
            ConfigError: One of them.
        """
        if self.range_max is not None and self.range_max <= self.range_min:
            raise ConfigError(
                f"--range-max must be above --range-min, found {self.range_max} and "
                f"{self.range_min}; ranks are 0-based and the window is half-open"
            )
        if self.range_max is not None and self.range_max - self.range_min < self.k:
            ranks = self.range_max - self.range_min
            raise ConfigError(
                f"--range-min {self.range_min} and --range-max {self.range_max} leave {ranks} "
                f"ranks, fewer than the k={self.k} negatives of a row; give --range-max "
                f"{self.range_min + self.k} or more, or --k {ranks}"
            )
        if not self.mines:
            return
        if not self.searches:
            self._refuse_idle_options()
            return
        if self.depth < self.k:
            raise ConfigError(
                f"--depth must be at least k={self.k}, found {self.depth}; give --depth {self.k}"
            )
        if self.max_depth is not None and self.max_depth < self.depth:
            raise ConfigError(
                f"--max-depth must be at least --depth {self.depth}, found {self.max_depth}; "
                f"give --depth {self.max_depth} or a larger --max-depth"
            )
        deepest = self.max_depth or self.depth
        one_source = self.source_names == ("dense",) and self.candidates is None
        if one_source and deepest < self.range_min + self.k:
            name = "--max-depth" if self.max_depth else "--depth"
            raise ConfigError(
                f"{name} must be at least --range-min {self.range_min} + k={self.k}, found "
                f"{deepest}: no query would have k candidates in the window; give {name} "
                f"{self.range_min + self.k}"
            )

    def _refuse_idle_options(self) -> None:
        """Refuse what has no effect on known negatives alone."""
        for one in given_fields(self):
            words = option_words(one, getattr(self, one.name))
            if one.name in _OF_SEARCH:
                raise ConfigError(
                    f"--sources known searches nothing, found {words}; leave one of them out"
                )
            if one.name in _RULES and self.known_negatives == "keep":
                raise ConfigError(
                    f"{words} has no effect on known negatives that are kept, and --sources known "
                    "takes nothing else; give --known-negatives filter, or leave it out"
                )

    @property
    def searches(self) -> bool:
        """Whether the corpus is searched."""
        return self.mines and "dense" in self.source_names

    @property
    def mines(self) -> bool:
        """Whether rows get any negatives of their own."""
        return self.k > 0

    @property
    def source_names(self) -> tuple[str, ...]:
        """The names in `sources`."""
        return tuple(name.strip() for name in self.sources.split(","))
