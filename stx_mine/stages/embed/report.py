"""The closing report of `embed`: what was embedded, how, and what was lost."""

from stx_mine.stages.embed.choices import BY_ENCODE, Choices
from stx_mine.stages.embed.config import DEFAULT_MODEL, EmbedConfig
from stx_mine.stages.embed.counts import EmbedCounts
from stx_mine.stages.embed.pair_check import PairCheck
from stx_mine.store.artifact import Artifact, Manifest
from stx_mine.store.stage_report import StageReport, make_report, percent


def embed_report(
    artifact: Artifact,
    config: EmbedConfig,
    parts: tuple[StageReport, ...],
    texts: Manifest,
    has_gpu: bool,
    skipped: bool,
) -> StageReport:
    """The report of finished `embeddings/`.

    Args:
        artifact: The finished artifact.
        config: The config.
        parts: The report of `ingest` where it ran too.
        texts: The texts that were embedded.
        has_gpu: Whether torch sees a GPU.
        skipped: Whether it was finished before.
    """
    counts, extra = EmbedCounts.read(artifact.result), artifact.result.extra
    contract = extra["contract"]
    lines = [
        f"{counts.queries:,} queries and {counts.passages:,} passages embedded with "
        f"{config.miner} ({contract['dim']} dimensions, {contract['similarity']})"
    ]
    lines += _tuning_lines(Choices.from_json(extra["tuning"], extra["fidelity"]))
    lines += _loss_lines(counts)
    for name, prompts in contract.get("source_prompts", {}).items():
        named = ", ".join(
            f"{role} prompt {prompt!r}" for role, prompt in prompts.items() if prompt is not None
        )
        lines.append(f"source {name}: {named or 'the prompts of the model'}")
    if has_gpu and extra["model"] == DEFAULT_MODEL:
        lines.append(
            "a GPU is here: a transformer, for example --model BAAI/bge-small-en-v1.5, mines "
            "better negatives than the static default"
        )
    warnings = [*extra["notes"], *_warnings(counts)]
    warnings += PairCheck.of(texts, artifact.result).warnings
    return make_report(artifact, lines, warnings, parts=parts, skipped=skipped)


def _tuning_lines(choices: Choices) -> list[str]:
    """How texts went through the model, and what that does to vectors."""
    tuning, fidelity, lines = choices.tuning, choices.fidelity, list[str]()
    if choices.reason in ("default", "measured"):
        assert tuning is not None
        lines.append(
            f"{choices.way or tuning.precision}, {tuning.batch_tokens:,} tokens a batch, "
            f"batches at once: {tuning.batches_at_once} ({choices.reason})"
        )
    elif choices.reason == "encode":
        lines.append(f"through the model's own encode: {BY_ENCODE}")
    if fidelity:
        lines.append(
            f"{choices.way} against float32: cosine {fidelity.mean_cosine:.5f} on "
            f"average, {fidelity.worst_cosine:.5f} at worst; overlap of the top 10 "
            f"{fidelity.overlap_10:.3f}, of the top 100 {fidelity.overlap_100:.3f} "
            f"({fidelity.queries:,} queries, {fidelity.passages:,} passages)"
        )
    return lines


def _loss_lines(counts: EmbedCounts) -> list[str]:
    """What a limit of tokens took, and what a cache saved."""
    texts, lines = counts.queries + counts.passages, list[str]()
    if counts.truncated:
        whole = counts.tokens + counts.tokens_lost
        lines.append(
            f"truncated: {percent(counts.truncated, texts - counts.uncounted)} of the texts, "
            f"{percent(counts.tokens_lost, whole)} of the tokens"
        )
    if counts.cached:
        lines.append(f"from the cache: {percent(counts.cached, texts)} of the texts")
    return lines


def _warnings(counts: EmbedCounts) -> list[str]:
    warnings = [
        f"{len(ids):,} {role} have a zero vector (ids {', '.join(map(str, ids[:5]))}"
        f"{' ...' if len(ids) > 5 else ''}): the model knows none of their words, they score 0"
        for role, ids in counts.zero_vectors.items()
        if ids
    ]
    if counts.segments_damaged:
        warnings.append(
            f"{counts.segments_damaged:,} segments of the embedding cache were damaged and were "
            "removed; their texts were embedded anew"
        )
    if counts.halvings:
        warnings.append(
            f"memory ran out and the tokens of a batch were halved {counts.halvings} times; "
            "give a smaller --batch-tokens to begin with"
        )
    return warnings
