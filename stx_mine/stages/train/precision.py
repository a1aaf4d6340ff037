"""Which precision a network computes faster in, on this device."""

import time
from functools import partial
from typing import Any, Literal

import torch
from sentence_transformers import SentenceTransformer

from stx_mine.models.tokenise import Tokeniser
from stx_mine.stages.train.known_tokens import RememberingTokeniser
from stx_mine.stages.train.losses.embedding import MiniBatches, embed, on_device
from stx_mine.stages.train.processes import mean_over_processes
from stx_mine.store.batches import BatchShard

TrainingPrecision = Literal["float32", "bf16", "fp16"]
# Passages that are timed, forwards and backwards, and how often.
_CPU_TEXTS, _OTHER_TEXTS, _REPEATS = 16, 256, 3
# Half precision is taken from so much on: below, it is not worth its rounding.
_LEAST_GAIN = 1.1


def faster_precision(
    model: SentenceTransformer,
    shard: BatchShard,
    tokenise: Tokeniser | RememberingTokeniser,
    mini_batches: MiniBatches,
) -> tuple[TrainingPrecision, str]:
    """bf16 where it is measured to be faster than float32, and a sentence that says why.

    Every process measures, and all of them choose by the mean.

    Args:
        model: The model; its weights are as they were afterwards.
        shard: Whose passages are timed.
        tokenise: Makes its inputs.
        mini_batches: What goes through the network at one time.
    """
    device = model.device
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "float32", "this GPU has no bf16"
    name = "positive" if shard.texts_per_label is None else "text"
    num_texts = _CPU_TEXTS if device.type == "cpu" else _OTHER_TEXTS
    texts = shard.batch(0).column(name).slice(0, num_texts).to_pylist()
    features = on_device(tokenise(texts, "passage"), device)
    step = partial(_seconds, model, features, mini_batches)
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # The first ones make kernels.
        step(torch.float32)
        step(torch.bfloat16)
        times = [(step(torch.float32), step(torch.bfloat16)) for _ in range(_REPEATS)]
    model.zero_grad(set_to_none=True)
    whole, half = (mean_over_processes(min(one), device) for one in zip(*times, strict=True))
    words = (
        f"{len(texts)} passages forwards and backwards: float32 {whole:.3g} s, bf16 {half:.3g} s"
    )
    return ("bf16" if whole >= _LEAST_GAIN * half else "float32"), words


def _seconds(
    model: SentenceTransformer,
    features: dict[str, Any],
    mini_batches: MiniBatches,
    precision: torch.dtype,
) -> float:
    """Of one forward and backward pass."""
    device = model.device
    started = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        embeddings = embed(model, features, mini_batches)
    embeddings.float().square().mean().backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
