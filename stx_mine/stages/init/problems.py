"""What is wrong with some data, and what to do about it."""

from stx_mine.stages.init.core.recipe import FEW_PAIRS
from stx_mine.stages.init.peek import PairPeek, PassagePeek
from stx_mine.stages.init.pipeline_file import Section
from stx_mine.stages.train.core.diagnoses import title_like
from stx_mine.store.stage_report import percent


def problems_of(peek: PairPeek | PassagePeek, sections: list[Section]) -> list[str]:
    """What is wrong with the data, and what to do, in plain sentences.

    Args:
        peek: What was read.
        sections: The stages that are proposed for it.
    """
    if isinstance(peek, PassagePeek):
        return _few(peek.num_distinct, "passages")
    counts, found = peek.found.counts, _few(peek.num_pairs, "pairs")
    repeated = counts.pairs_dropped.get("repeated_pair", 0)
    if 2 * repeated > counts.pairs_in:
        found.append(
            f"{percent(repeated, counts.pairs_in)} of the rows repeat a pair and count once; if "
            "that is not meant, check the columns and how the file was written"
        )
    often = peek.num_of_most_frequent
    if 5 * often > peek.num_pairs >= FEW_PAIRS:
        found.append(
            f"one passage is the positive of {percent(often, peek.num_pairs)} of the pairs; if it "
            "answers nothing, such as 'see above', remove those rows"
        )
    lengths = peek.lengths
    if lengths["queries"].median > 2 * max(lengths["passages"].median, 5):
        found.append(
            "the queries are longer than their passages; if the columns are the wrong way round, "
            "give --query-column and --passage-column"
        )
    titles = title_like(peek.titles, {})
    if titles is not None and sections[0].stage != "queries":
        found.append(titles)
    return found


def _few(number: int, what: str) -> list[str]:
    if number >= FEW_PAIRS:
        return []
    return [
        f"{number:,} {what} are too few to learn much from, and to tell a better model from a "
        f"worse one; a few hundred are a beginning, thousands are good: add more"
    ]
