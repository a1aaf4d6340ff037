"""Words that the reports of `dedup` and of leaks share: kinds of likeness, and two texts."""

import numpy as np

from stx_mine.stages.dedup.config import DedupConfig, LikenessFields
from stx_mine.stages.dedup.joins import EXACT
from stx_mine.store.texts import TextStore, take_texts

_LETTERS = 70


def likeness_words(fields: LikenessFields) -> dict[str, str]:
    """Kind of likeness -> what texts of that kind are."""
    words = {EXACT: f"equal but for {', '.join(fields.ignored_in_forms) or 'nothing'}"}
    if fields.jaccard is not None:
        words["jaccard"] = f"near (Jaccard of {_shingles(fields)} >= {fields.jaccard:g})"
    if isinstance(fields, DedupConfig) and fields.cosine is not None:
        words["cosine"] = f"of one meaning (cosine >= {fields.cosine:g})"
    return words


def _shingles(config: LikenessFields) -> str:
    return f"{'' if config.run_length == 1 else f'runs of {config.run_length} '}{config.shingles}"


def beside_another(*texts: str) -> str:
    """Two texts in short, from where they begin to differ."""
    # What tells two long texts apart is shown.
    differ = (place for place, both in enumerate(zip(*texts, strict=False)) if both[0] != both[1])
    end = 0 if texts[0] == texts[1] else len(min(texts, key=len))
    first = next(differ, end) - _LETTERS // 3
    return " = ".join(_shown(text, first) for text in texts)


def _shown(text: str, first: int) -> str:
    """A text in short, in quotes; what is to be seen stands after some letters of `first`."""
    first = max(0, min(first, len(text) - _LETTERS))
    before, after = "..." if first else "", "..." if len(text) > first + _LETTERS else ""
    return f'"{before}{text[first : first + _LETTERS]}{after}"'


def text_of_id(store: TextStore, text_id: int) -> str:
    """A text of a run on one line."""
    if text_id < store.num_passages:
        column, row = store.passages["text"], text_id
    else:
        column = store.queries["text"]
        row = int(np.flatnonzero(np.asarray(store.query_texts) == text_id)[0])
    return " ".join(take_texts(column, np.array([row])).to_pylist()[0].split())
