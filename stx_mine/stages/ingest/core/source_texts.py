"""Texts that several sources hold: the first source of each, and those under two prompts."""

import numpy as np
from numpy.typing import NDArray


def first_sources(texts_of: list[NDArray[np.int64]]) -> NDArray[np.int16]:
    """The first source of each text.

    Args:
        texts_of: int64 ids of the texts of each source; together every id from 0 on.

    Returns:
        int16 (num texts,): the number of the source, by id.
    """
    first = np.zeros(1 + max(int(ids.max(initial=-1)) for ids in texts_of), np.int16)
    for number, ids in reversed(list(enumerate(texts_of))):
        first[ids] = number
    return first


def num_with_two_prompts(texts_of: list[NDArray[np.int64]], prompts: list[str | None]) -> int:
    """How many texts stand in sources of different prompts.

    Args:
        texts_of: int64 ids of the texts of each source.
        prompts: The prompt of each source; None is the model's own.
    """
    by_prompt = [
        np.unique(
            np.concatenate(
                [ids for ids, of_ids in zip(texts_of, prompts, strict=True) if of_ids == prompt]
            )
        )
        for prompt in dict.fromkeys(prompts)
    ]
    return int((np.bincount(np.concatenate(by_prompt)) > 1).sum())
