"""Which texts of the input count as one, as the `dedup` of a run says."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stx_mine.errors import InputError
from stx_mine.stages.dedup.forms import stored_texts
from stx_mine.stages.dedup.joins import refuse_many
from stx_mine.stages.dedup.stored_duplicates import StoredDuplicates
from stx_mine.stages.ingest.pairs import Ingested
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.split.core.units import connected
from stx_mine.stages.split.judgements import JudgementBlock
from stx_mine.stages.split.same_texts import JoinedTexts, SameTexts, named_texts
from stx_mine.store.digests import text_digests


def same_texts_of_run(
    config: SplitConfig,
    found: Ingested,
    judgements: Iterable[JudgementBlock],
    duplicates: StoredDuplicates,
) -> SameTexts:
    """Join texts of the input that the run holds for one; what it does not have counts as itself.

    Args:
        config: How many texts may be joined.
        found: What was read of the input.
        judgements: Pairs and known negatives, whose texts are joined.
        duplicates: What the run has found.

    Raises:
        InputError: The run has none of the texts.
        ConfigError: More texts would be joined than is allowed.
    """
    named = named_texts(found, judgements)
    ids_T = _ids_in_input(found, named, duplicates)
    members = np.flatnonzero(ids_T >= 0)
    num_texts = int(named.sum())
    if not len(members):
        raise InputError(
            f"expected texts of {config.pairs} in the run --groups {config.groups}, found none of "
            f"{num_texts:,}; name the run that read the same pairs, or give --jaccard instead"
        )
    # The first text of a form need not be in the input: any other one stands for it.
    forms, first, numbers = np.unique(
        duplicates.firsts[members], return_index=True, return_inverse=True
    )
    heads_T = np.full(len(ids_T), -1)
    heads_T[forms] = ids_T[members[first]]
    equal_2E = np.stack([ids_T[members[first]][numbers], ids_T[members]])
    near_2E = heads_T[duplicates.pairs]
    left, right = np.concatenate([equal_2E, near_2E[:, (near_2E >= 0).all(axis=0)]], axis=1)
    counts_as = connected(left, right, len(named))
    num_joined = int((counts_as != np.arange(len(named))).sum())
    refuse_many(num_joined, num_texts, config.max_joined, "nothing was divided")
    num_equal = len(members) - len(forms)
    unknown = num_texts - len(members)
    counts = JoinedTexts(num_texts, num_equal, num_joined - num_equal, 0, 0, unknown)
    return SameTexts(counts_as, counts, [])


def _ids_in_input(
    found: Ingested, named: NDArray[np.bool_], duplicates: StoredDuplicates
) -> NDArray[np.int64]:
    """int64 (texts of the run,): the id of the text in the input; -1 for none."""
    num_passages = len(found.passages.digests)
    digests = pa.concat_arrays([found.passages.digests, found.queries.digests])
    ids_D = np.concatenate([np.arange(num_passages), found.query_texts])
    ids_T = np.full(len(duplicates.firsts), -1)
    for block, texts in stored_texts(duplicates.store):
        places = pc.index_in(text_digests(texts), value_set=digests)
        inside = places.is_valid().to_numpy(zero_copy_only=False)
        ids_T[block[inside]] = ids_D[places.drop_null().to_numpy()]
    ids_T[(ids_T >= 0) & ~named[ids_T]] = -1
    return ids_T
