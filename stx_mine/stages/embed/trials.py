"""Trials: which precision and batches embed most tokens per second, on one model and device.

A trial takes a fraction of a second. `tuning.py` decides whether a run makes any, and keeps their
result with its plan.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from stx_mine.models.text_tokens import TextTokens
from stx_mine.models.token_inputs import TokenInputs
from stx_mine.stages.embed.choices import Trial
from stx_mine.stages.embed.token_encoder import Precision, TokenEncoder, Tuning

# Tokens of a batch to try, from the smallest; on a CPU caches decide, on a GPU how full it is.
_CPU_TOKENS = (512, 1_024, 2_048)
_GPU_TOKENS = (8_192, 16_384, 32_768, 65_536)
# A trial lasts for so many batches of the largest size.
_CPU_BATCHES, _GPU_BATCHES = 2, 8
# Beyond so many batches at once, Python itself may be what they wait for.
_MOST_AT_ONCE = 8
# Half precision has to earn its place; of two budgets that differ by less the smaller is taken.
_HALF_GAIN, _TIE = 1.2, 1.03


@dataclass(frozen=True)
class Asked:
    """The parts of a tuning that are fixed; None is measured, or the default.

    Attributes:
        precision: Number format of the network.
        batch_tokens: Tokens of a batch.
        batches_at_once: Batches that a CPU works on at once.
    """

    precision: Precision | None = None
    batch_tokens: int | None = None
    batches_at_once: int | None = None


def default_tuning(device_type: str, asked: Asked) -> Tuning:
    """The tuning of runs with too few texts for trials to pay.

    Args:
        device_type: Such as cpu or cuda.
        asked: What is fixed.
    """
    return Tuning(
        asked.precision or "float32",
        asked.batch_tokens or (_GPU_TOKENS if device_type == "cuda" else _CPU_TOKENS)[1],
        asked.batches_at_once or (_few_at_once() if device_type == "cpu" else 1),
    )


def tune(
    model: SentenceTransformer | CrossEncoder, inputs: TokenInputs, tokens: TextTokens, asked: Asked
) -> tuple[Tuning, list[Trial]]:
    """Try precisions, then budgets of tokens, and on a CPU how many batches at once.

    Args:
        model: The model, on its device.
        inputs: How tokens become its inputs.
        tokens: Of a sample of texts, some hundred or more.
        asked: What is fixed.

    Returns:
        The fastest tuning, and all that was tried, in order.
    """
    tried: list[Trial] = []
    best = default_tuning(model.device.type, asked)
    encoders: dict[Precision, TokenEncoder] = {}

    def speed(tuning: Tuning) -> float:
        encoder = encoders.setdefault(tuning.precision, TokenEncoder(model, tuning))
        tried.append(Trial(tuning, _speed(encoder, tuning, inputs, tokens)))
        return tried[-1].tokens_per_s

    most = speed(best)
    if asked.precision is None and _has_fast_half(model.device):
        half = replace(best, precision="bfloat16")
        if (found := speed(half)) > _HALF_GAIN * most:
            best, most = half, found
    for other in _others(best, model.device, asked):
        found = speed(other)
        fewer = other.batch_tokens < best.batch_tokens
        if found * (_TIE if fewer else 1 / _TIE) > most:
            best, most = other, found
    return best, tried


def _others(best: Tuning, device: torch.device, asked: Asked) -> list[Tuning]:
    """Other budgets, and one batch at a time, or one per core."""
    budgets = _GPU_TOKENS if device.type == "cuda" else _CPU_TOKENS
    others = [] if asked.batch_tokens else [n for n in budgets if n != best.batch_tokens]
    found = [replace(best, batch_tokens=other) for other in others]
    if asked.batches_at_once is None and best.batches_at_once > 1:
        found.append(
            replace(best, batches_at_once=1, batch_tokens=asked.batch_tokens or budgets[-1])
        )
        if torch.get_num_threads() > best.batches_at_once:
            found.append(replace(best, batches_at_once=torch.get_num_threads()))
    return found


def _few_at_once() -> int:
    return min(_MOST_AT_ONCE, int(torch.get_num_threads()))


def _speed(encoder: TokenEncoder, tuning: Tuning, inputs: TokenInputs, tokens: TextTokens) -> float:
    """Tokens per second on some of the texts, of all lengths."""
    on_gpu = encoder.device.type == "cuda"
    wanted = _GPU_BATCHES * _GPU_TOKENS[-1] if on_gpu else _CPU_BATCHES * _CPU_TOKENS[-1]
    order = np.argsort(tokens.lengths, kind="stable")
    step = max(1, int(tokens.lengths.sum()) // wanted)
    some = tokens.take(np.sort(order[::step]))
    encoder.tuning = tuning
    # What is made at the first call must not be timed.
    encoder.encode(inputs, some.take(np.arange(min(2, len(some)))))
    started = time.perf_counter()
    encoder.encode(inputs, some)
    return len(some.ids) / (time.perf_counter() - started)


def _has_fast_half(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware, so that it is worth a trial."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
