"""What a step costs by the texts that it embeds: scores, memory and time."""

from dataclasses import dataclass

from stx_mine.stages.estimate.core.step_cost import ModelShape, kept_share, step_memory
from stx_mine.stages.estimate.results import Cell, ScoringCost
from stx_mine.stages.estimate.step_texts import StepTexts
from stx_mine.stages.estimate.step_time import StepTime


@dataclass(frozen=True)
class StepCosts:
    """What turns texts per step into scores, memory and time.

    Attributes:
        shape: Of the model.
        chunk_rows: Rows whose scores exist at one time.
        batch_tokens: Tokens that go through a network at one time.
        measured: Seconds of the parts of a step; None where they were not measured.
        room: Bytes that activations may take.
        interactions: What else rows are scored against where they are against all passages.
    """

    shape: ModelShape
    chunk_rows: int
    batch_tokens: int
    room: float
    measured: StepTime | None
    interactions: tuple[str, ...] = ()

    def cell(self, size: int, k: int, counted: StepTexts, passes: int) -> Cell:
        """The costs of one batch size and number of negatives.

        Args:
            size: Rows per step.
            k: Negatives per row, one of those that were counted.
            counted: Texts per step.
            passes: Passes over the rows.
        """
        texts, steps = counted.means[k], counted.num_batches * passes
        return Cell(
            batch_size=size,
            k=k,
            counted="at most" if counted.bounded and k > 0 else counted.how,
            batches_counted=counted.num_counted,
            texts=texts.distinct,
            queries=texts.anchors,
            passages=texts.passages,
            most_texts=counted.most[k].distinct,
            texts_without_sharing=texts.slots,
            steps=steps,
            in_batch=self._scoring(size, k, counted, steps, in_batch=True),
            own_negatives=self._scoring(size, k, counted, steps, in_batch=False),
            kept_share=kept_share(texts, self.shape, self.room),
        )

    def _scoring(
        self, size: int, k: int, counted: StepTexts, steps: int, *, in_batch: bool
    ) -> ScoringCost:
        texts = counted.means[k]
        num_scores = texts.slots - size
        if in_batch:
            num_scores = size * texts.candidates(self.interactions)
        memory = step_memory(
            counted.most[k],
            self.shape,
            size,
            k,
            in_batch=in_batch,
            chunk_rows=self.chunk_rows,
            batch_tokens=self.batch_tokens,
            interactions=self.interactions,
        )
        if self.measured is None:
            return ScoringCost(num_scores, memory, None, None)
        kept = kept_share(texts, self.shape, self.room)
        seconds = self.measured.seconds(texts, num_scores, in_batch, kept)
        return ScoringCost(num_scores, memory, seconds, seconds * steps)
