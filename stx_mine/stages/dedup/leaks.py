"""Texts of training pairs that stand in evaluation sets: `duplicates/leaks/`."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stx_mine.core.role import Role
from stx_mine.core.similarity import Similarity
from stx_mine.stages.dedup.alike import MOST, close_rows, cosine_searcher
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.dedup.core.best_matches import best_matches
from stx_mine.stages.dedup.evaluation_texts import EvaluationTexts
from stx_mine.stages.dedup.forms import Forms, TextBlocks, stored_texts
from stx_mine.stages.dedup.joins import EXACT, ScoredPairs
from stx_mine.stages.dedup.near import shingle_sets
from stx_mine.stages.dedup.near_texts import floor_below, near_pairs
from stx_mine.store.artifact import Artifact, Manifest
from stx_mine.store.counts import Counts
from stx_mine.store.files import write_table
from stx_mine.store.texts import TextStore
from stx_mine.store.vectors import Vectors

if TYPE_CHECKING:
    from stx_mine.stages.embed.embed_again import OtherTexts

LEAKS = "leaks.arrow"
# Kinds of likeness, that which says most first.
LEAK_KINDS = (EXACT, "jaccard", "cosine")
_ROWS = 4_096
_ROLES: tuple[tuple[Role, str], ...] = (("query", "queries"), ("passage", "passages"))


@dataclass(frozen=True)
class SetLeaks:
    """What of one evaluation set is in training pairs.

    Attributes:
        queries: Its distinct queries.
        positives: Its distinct passages that are relevant to one.
        queries_found: Queries that are a text of a training pair, or like one.
        positives_found: Positives likewise.
        pairs_by_query: Training pairs whose query is in the set, by kind of likeness.
        pairs_by_positive: Training pairs whose positive is in it.
    """

    queries: int
    positives: int
    queries_found: int
    positives_found: int
    pairs_by_query: dict[str, int]
    pairs_by_positive: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class LeakCounts(Counts):
    """Counts of `duplicates/leaks/`.

    Attributes:
        sets: What of each evaluation set is in training pairs.
        pairs: Training pairs.
        query_leaks: Those whose query is in a set.
        positive_leaks: Those whose positive is in a set, and whose query is not.
        other_numbers: Matches above a threshold that are none since their numbers differ.
        crowded: Texts with more candidates than are compared.
        embedded: Whether vectors of the sets were compared.
    """

    sets: dict[str, SetLeaks]
    pairs: int
    query_leaks: int
    positive_leaks: int
    other_numbers: int
    crowded: int
    embedded: bool

    @property
    def either(self) -> int:
        """Pairs whose query or positive is in a set."""
        return self.query_leaks + self.positive_leaks

    @classmethod
    def read(cls, manifest: Manifest) -> Self:
        """The counts of finished leaks.

        Raises:
            ArtifactError: The manifest lacks a count.
        """
        counts = super().read(manifest)
        sets: dict[str, Any] = manifest.counts["sets"]
        return replace(counts, sets={name: SetLeaks(**one) for name, one in sets.items()})


def write_leaks(
    artifact: Artifact,
    config: DedupConfig,
    store: TextStore,
    evaluation: EvaluationTexts,
    embeddings: Manifest | None,
    model: "OtherTexts | None",
) -> Manifest:
    """Find the texts of training pairs that are in evaluation sets, or like a text of one.

    Args:
        artifact: The leaks.
        config: What counts as alike.
        store: The texts of the run.
        evaluation: The evaluation sets.
        embeddings: The vectors of the run; None where none are compared.
        model: Embeds evaluation sets; None where nothing does.
    """
    artifact.begin([LEAKS])
    search = _LeakSearch(config, store, evaluation)
    search.find_equal()
    if config.jaccard is not None:
        search.find_near(config.jaccard)
    embedded = False
    if config.cosine is not None and embeddings is not None and model is not None:
        embedded = True
        for role, stored_role in _ROLES:
            search.find_close(config.cosine, role, Vectors.open(embeddings, stored_role), model)
    table = search.table()
    write_table(artifact.folder / LEAKS, table)
    by_query, by_positive = leaking_pairs(table["text_id"].to_numpy(), store)
    counts = LeakCounts(
        sets=_set_counts(search, table),
        pairs=store.num_pairs,
        query_leaks=int(by_query.sum()),
        positive_leaks=int((by_positive & ~by_query).sum()),
        other_numbers=search.other_numbers,
        crowded=search.crowded,
        embedded=embedded,
    )
    extra = {"read": evaluation.read, "notes": model.notes if model else ()}
    return artifact.finish([LEAKS], counts=counts, extra=extra)


def leaking_pairs(
    texts: NDArray[np.int64], store: TextStore
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Bool (pairs,) whether the query of each pair is among some texts, and whether its positive.

    Args:
        texts: int64 ids of texts.
        store: The texts and pairs.
    """
    among = np.zeros(store.num_texts, bool)
    among[texts] = True
    return among[store.query_texts[store.pair_query_ids]], among[store.pair_passage_ids]


@dataclass
class _LeakSearch:
    """Texts of training pairs and of evaluation sets, as rows of one numbering.

    Rows from 0 are the texts of training pairs by rising id, the others those of evaluation sets.

    Attributes:
        config: What counts as alike.
        store: The texts of the run.
        evaluation: The evaluation sets.
        found: Matches: `left` is a row of training, `right` one of a set, both `heads`. Of each
            kind the best match of each text with each set is there, and one of each text of a set.
        other_numbers: Matches that are none since their numbers differ.
        crowded: Texts with more candidates than are compared.
    """

    config: DedupConfig
    store: TextStore
    evaluation: EvaluationTexts
    found: list[ScoredPairs] = field(default_factory=list)
    other_numbers: int = 0
    crowded: int = 0

    @cached_property
    def text_ids(self) -> NDArray[np.int64]:
        """int64 (R,): the texts of training pairs, rising."""
        queries = self.store.query_texts[self.store.pair_query_ids]
        return np.union1d(queries, self.store.pair_passage_ids)

    @property
    def border(self) -> int:
        """The first row of evaluation sets."""
        return len(self.text_ids)

    @cached_property
    def row_of(self) -> NDArray[np.int64]:
        """int64 (num texts,): the row of each text of the run; -1 for one of no pair."""
        rows = np.full(self.store.num_texts, -1)
        rows[self.text_ids] = np.arange(len(self.text_ids))
        return rows

    def blocks(self) -> TextBlocks:
        """Rows and their texts."""
        for ids, texts in stored_texts(self.store):
            rows = self.row_of[ids]
            yield rows[rows >= 0], texts.filter(pa.array(rows >= 0))
        yield from self._evaluation_blocks()

    def _evaluation_blocks(self) -> Iterator[tuple[NDArray[np.int64], pa.Array]]:
        start = self.border
        for chunk in self.evaluation.texts.chunks:
            yield np.arange(start, start + len(chunk)), chunk
            start += len(chunk)

    @cached_property
    def forms(self) -> Forms:
        """The forms of all rows."""
        num_rows = self.border + len(self.evaluation.texts)
        return Forms.of(self.blocks(), num_rows, self.config.ignored)

    @cached_property
    def heads(self) -> NDArray[np.int64]:
        """int64 (rows,): the first row of the form of each row; of a set the first in that set."""
        own = self.forms.firsts[self.border :]
        both = np.stack([self.evaluation.sets, own])
        _, first, numbers = np.unique(both, axis=1, return_index=True, return_inverse=True)
        heads_of_sets = self.border + first[numbers.reshape(-1)]
        return np.concatenate([self.forms.firsts[: self.border], heads_of_sets])

    def find_equal(self) -> None:
        """Match texts of one form."""
        right = np.unique(self.heads[self.border :])
        right = right[self.forms.firsts[right] < self.border]
        scores = np.ones(len(right), np.float32)
        self.found.append(ScoredPairs(EXACT, self.forms.firsts[right], right, scores))

    def find_near(self, threshold: float) -> None:
        """Match texts that share shingles."""
        is_head = self.heads == np.arange(len(self.heads))
        rows, sets = shingle_sets(self.blocks(), is_head, self.config)
        border = int((rows < self.border).sum())
        found = near_pairs(sets, threshold, border, proposed=floor_below(threshold))
        self.crowded += found.num_crowded
        self._add(ScoredPairs("jaccard", rows[found.left], rows[found.right], found.scores))

    def find_close(
        self, threshold: float, role: Role, stored: Vectors, model: "OtherTexts"
    ) -> None:
        """Match texts of a role with close vectors."""
        rows = self.evaluation.rows(role)
        texts = self.evaluation.texts.take(pa.array(rows))
        vectors = Vectors((model.vectors(texts, role),), Similarity.COSINE)
        searcher = cosine_searcher(vectors, self.config.device)
        store = self.store
        ids = np.unique(store.pair_query_ids if role == "query" else store.pair_passage_ids)
        cosines = Vectors(stored.shards, Similarity.COSINE)
        for start in range(0, len(ids) if len(rows) else 0, _ROWS):
            block = ids[start : start + _ROWS]
            places, found, scores = close_rows(searcher, cosines.take(block), threshold)
            self.crowded += int((np.bincount(places, minlength=1) >= MOST).sum())
            text_ids = store.query_texts[block] if role == "query" else block
            left = self.heads[self.row_of[text_ids[places]]]
            self._add(ScoredPairs("cosine", left, self.heads[self.border + rows[found]], scores))

    def _add(self, pairs: ScoredPairs) -> None:
        """Keep matches of texts of different form and the same numbers, no more than are needed."""
        forms = self.forms
        pairs = pairs.where(forms.firsts[pairs.left] != forms.firsts[pairs.right])
        if "numbers" not in self.config.ignored:
            same = forms.numbers[pairs.left] == forms.numbers[pairs.right]
            self.other_numbers += int((~same).sum())
            pairs = pairs.where(same)
        one_kind = np.zeros(len(pairs.left), np.int8)
        sets = self.evaluation.sets[pairs.right - self.border]
        kept = np.zeros(len(pairs.left), bool)
        kept[best_matches(pairs.left, sets, one_kind, pairs.scores, pairs.right)] = True
        # Whether a text of a set is found is counted as well.
        kept[best_matches(pairs.right, sets, one_kind, pairs.scores, pairs.left)] = True
        self.found.append(pairs.where(kept))

    def table(self) -> pa.Table:
        """A row for each text of a training pair and each set that it is in, by rising text.

        `text_id`, `evaluation`, `text` and `role` (of the text of that set), `kind`, `score`.
        """
        left, right, scores = (
            np.concatenate([getattr(one, name) for one in self.found])
            for name in ("left", "right", "scores")
        )
        numbers = np.array([LEAK_KINDS.index(one.kind) for one in self.found], np.int8)
        kinds = np.repeat(numbers, [len(one.left) for one in self.found])
        sets = self.evaluation.sets[right - self.border]
        best = best_matches(left, sets, kinds, scores, right)
        rows, matches = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for number in range(len(self.evaluation.names)):
            # Every text of the form of a match.
            of_head = np.full(self.border, -1)
            inside = best[sets[best] == number]
            of_head[left[inside]] = inside
            of_rows = of_head[self.forms.firsts[: self.border]]
            rows.append(np.flatnonzero(of_rows >= 0))
            matches.append(of_rows[of_rows >= 0])
        order = np.argsort(np.concatenate(rows), kind="stable")
        row, match = np.concatenate(rows)[order], np.concatenate(matches)[order]
        others = right[match] - self.border
        roles = np.where(self.evaluation.is_query[others], 0, 1).astype(np.int8)
        return pa.table(
            {
                "text_id": self.text_ids[row],
                "evaluation": _named(sets[match], self.evaluation.names),
                "text": self.evaluation.texts.take(pa.array(others)),
                "role": _named(roles, ["query", "positive"]),
                "kind": _named(kinds[match], list(LEAK_KINDS)),
                "score": scores[match],
            }
        )


def _named(numbers: NDArray[Any], names: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32)), pa.array(names))


def _set_counts(search: _LeakSearch, table: pa.Table) -> dict[str, SetLeaks]:
    evaluation, store = search.evaluation, search.store
    is_found = np.zeros(len(search.heads), bool)
    for one in search.found:
        is_found[one.right] = True
    everything = evaluation.count(np.ones(len(evaluation.texts), bool))
    inside = evaluation.count(is_found[search.heads[search.border :]])
    sets, kinds = (
        table[name].combine_chunks().indices.to_numpy() for name in ("evaluation", "kind")
    )
    counts = {}
    for number, name in enumerate(evaluation.names):
        by_kind = [
            leaking_pairs(table["text_id"].to_numpy()[(sets == number) & (kinds == kind)], store)
            for kind in range(len(LEAK_KINDS))
        ]
        by_query, by_positive = (
            {
                kind: int(one[side].sum())
                for kind, one in zip(LEAK_KINDS, by_kind, strict=True)
                if one[side].any()
            }
            for side in (0, 1)
        )
        counts[name] = SetLeaks(
            **everything[number],
            queries_found=inside[number]["queries"],
            positives_found=inside[number]["positives"],
            pairs_by_query=by_query,
            pairs_by_positive=by_positive,
        )
    return counts
