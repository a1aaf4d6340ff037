"""Options of `index`."""

from dataclasses import dataclass

from stx_mine.settings import MAX_SEED, ReadingConfig, option


@dataclass(frozen=True, kw_only=True)
class IndexConfig(ReadingConfig):
    """Build a FAISS index of the passages and measure its recall against exact search."""

    factory: str = option("IVF1024,Flat", "A FAISS index factory string.", "index", group="Index")
    nprobe: int = option(
        16, "Cells that an IVF index visits per query.", "index", minimum=1, group="Index"
    )
    refine_factor: int = option(
        1,
        "Hits that the index proposes per hit wanted; the best by their exact scores are kept.",
        "index",
        minimum=1,
        group="Index",
    )
    recall_depth: int = option(
        100, "Recall is measured at this depth.", "index", minimum=1, group="Recall"
    )
    recall_queries: int = option(
        1_000, "Queries of the recall sample.", "index", minimum=1, group="Recall"
    )
    min_recall: float = option(
        0.0,
        "Below this measured recall the index is refused.",
        minimum=0,
        group="Recall",
    )
    seed: int = option(
        42, "Seed of the recall sample.", "index", minimum=0, maximum=MAX_SEED, group="Recall"
    )
