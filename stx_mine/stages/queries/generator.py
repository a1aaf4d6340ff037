"""Queries written by a language model: any seq2seq or causal model of transformers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.generation import TemperatureLogitsWarper, TopPLogitsWarper

from stx_mine.core.random import mix
from stx_mine.errors import ConfigError, ModelError, one_line
from stx_mine.models.devices import refuse_device
from stx_mine.models.encoder import add_weights
from stx_mine.models.load import BROKEN
from stx_mine.store.small_files import read_small

PLACE = "{passage}"
# Models that were trained to write queries (doc2query) take the passage as it is.
SEQ2SEQ_PROMPT = PLACE
_MOST_PROMPT_BYTES = 1 << 20
CAUSAL_PROMPT = (
    "Passage: {passage}\n\nA question that somebody types into a search engine, in the language "
    "of the passage, and that the passage answers:\n"
)


@dataclass(frozen=True, kw_only=True)
class TokenSampling:
    """How a generator reads and writes.

    Attributes:
        prompt: With `{passage}`; None for the default of the kind of model.
        max_passage_tokens: Tokens of a passage that it reads.
        max_new_tokens: Tokens that it writes.
        temperature: 0 is greedy.
        top_p: It draws from the fewest tokens whose probabilities sum up to this, in (0, 1].
        batch_size: Prompts per batch.
    """

    prompt: str | None
    max_passage_tokens: int
    max_new_tokens: int
    temperature: float
    top_p: float
    batch_size: int


@dataclass(frozen=True)
class QueryGenerator:
    """A language model with its prompt.

    Attributes:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        sampling: How it reads and writes.
        seq2seq: Whether it has an encoder.
    """

    model: Any
    tokenizer: Any
    sampling: TokenSampling
    seq2seq: bool

    @classmethod
    def load(cls, name: str, device: str | None, sampling: TokenSampling) -> "QueryGenerator":
        """Load a model by hub id or folder; code in its folder is not run.

        Raises:
            ModelError: There is no such model, or it cannot be loaded.
        """
        refuse_device(device)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
            seq2seq = bool(config.is_encoder_decoder)
            kind = AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM
            side = "right" if seq2seq else "left"
            tokenizer = AutoTokenizer.from_pretrained(
                name, trust_remote_code=False, padding_side=side
            )
            # Half precision is slower on processors without it.
            dtype = torch.float32 if device == "cpu" else "auto"
            model = kind.from_pretrained(name, trust_remote_code=False, dtype=dtype).to(device)
        except BROKEN as error:
            reason = one_line(error)[:300]
            raise ModelError(
                f"cannot load the generator {name!r} ({type(error).__name__}: {reason}); give a "
                "hub id or a folder of a seq2seq or causal model of transformers"
            ) from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # Beams, penalties and sampling that the model's author set would override ours.
        tokens = {
            key: value
            for key, value in model.generation_config.to_dict().items()
            if key.endswith("token_id")
        }
        model.generation_config = GenerationConfig(
            **{**tokens, "pad_token_id": tokenizer.pad_token_id}
        )
        return cls(model.eval(), tokenizer, sampling, seq2seq)

    def contract(self) -> dict[str, Any]:
        """What decides the queries beside the config, JSON-ready; the name is not part of it."""
        digest = xxhash.xxh3_128()
        add_weights(digest, self.model.state_dict())
        return {"weights": digest.hexdigest(), "prompt": self._prompt, "chat": self._chats}

    def generate(self, passages: list[str], keys: list[int], num_queries: int) -> list[list[str]]:
        """Write queries.

        Args:
            passages: The passages.
            keys: A number for each, uint64; what is drawn depends on it, not on the batch.
            num_queries: Queries per passage; a greedy model writes one.

        Returns:
            For each passage the first line of each answer, which may be empty.
        """
        num_queries = num_queries if self.sampling.temperature else 1
        prompts = self._prompts(passages)
        rows = [(place, n) for place in range(len(prompts)) for n in range(num_queries)]
        # Prompts of similar length need little padding; the longest first fail soonest.
        rows.sort(key=lambda row: -len(prompts[row[0]]))
        found: list[list[str]] = [[""] * num_queries for _ in prompts]
        for start in range(0, len(rows), self.sampling.batch_size):
            batch = rows[start : start + self.sampling.batch_size]
            draws = [int(mix(np.uint64(keys[p]), np.uint64(n), np.uint64(0))) for p, n in batch]
            answers = self._answer([prompts[place] for place, _ in batch], draws)
            for (place, n), answer in zip(batch, answers, strict=True):
                found[place][n] = _first_line(answer)
        return found

    @property
    def _prompt(self) -> str:
        return self.sampling.prompt or (SEQ2SEQ_PROMPT if self.seq2seq else CAUSAL_PROMPT)

    @property
    def _chats(self) -> bool:
        return getattr(self.tokenizer, "chat_template", None) is not None

    def _prompts(self, passages: list[str]) -> list[str]:
        """The prompts, with each passage cut to its tokens; as a turn of the user in a chat."""
        limit = self.sampling.max_passage_tokens
        ids = self.tokenizer(passages, add_special_tokens=False)["input_ids"]
        prompts = []
        for passage, tokens in zip(passages, ids, strict=True):
            read = passage if len(tokens) <= limit else self.tokenizer.decode(tokens[:limit])
            prompt = self._prompt.replace(PLACE, read)
            if self._chats:
                turn = [{"role": "user", "content": prompt}]
                prompt = self.tokenizer.apply_chat_template(
                    turn, tokenize=False, add_generation_prompt=True
                )
            prompts.append(prompt)
        return prompts

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _answer(self, prompts: list[str], draws: list[int]) -> list[str]:
        inputs = self.tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=not self._chats
        ).to(self.model.device)
        length = inputs["input_ids"].shape[1]
        self._check_length(length)
        # T5 knows no token types, though some tokenizers give them.
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        processors = LogitsProcessorList()
        if self.sampling.temperature:
            processors += [
                TemperatureLogitsWarper(self.sampling.temperature),
                TopPLogitsWarper(self.sampling.top_p),
                _Drawn(draws),
            ]
        written = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.sampling.max_new_tokens,
            logits_processor=processors,
        )
        written = written if self.seq2seq else written[:, length:]
        return list(self.tokenizer.batch_decode(written, skip_special_tokens=True))

    def _check_length(self, length: int) -> None:
        limit = getattr(self.model.config, "max_position_embeddings", None)
        needed = length if self.seq2seq else length + self.sampling.max_new_tokens
        if limit is not None and needed > limit:
            raise ConfigError(
                f"a prompt has {length} tokens, with --max-new-tokens "
                f"{self.sampling.max_new_tokens} more than the {limit} of the generator; give "
                f"--max-passage-tokens below {self.sampling.max_passage_tokens}"
            )


class _Drawn(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token per row, drawn by its probability.

    Its random numbers follow from (row, step), so that the other rows of the batch play no part: a
    run that is resumed, or cut into other batches, draws the same.
    """

    def __init__(self, draws: list[int]) -> None:
        self.draws, self.step = draws, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Float (rows, vocabulary) logits -> 0 for the token drawn, -inf for the others."""
        numbers = [
            int(mix(np.uint64(draw), np.uint64(self.step), np.uint64(1))) for draw in self.draws
        ]
        self.step += 1
        # In (0, 1], so that a token of probability 0 is never the first to reach it.
        uniform = torch.tensor([((number >> 11) + 1) * 2.0**-53 for number in numbers])[:, None]
        sums = scores.float().softmax(-1).cumsum(-1)
        wanted = uniform.to(sums) * sums[:, -1:]
        drawn = (sums < wanted).sum(-1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def read_prompt(path: str) -> str:
    """The text of a prompt file.

    Raises:
        ConfigError: It is missing, not UTF-8, or has no place for the passage.
    """
    try:
        prompt = read_small(Path(path), _MOST_PROMPT_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"expected a prompt in UTF-8 at --prompt-file {path}: {one_line(error)}; check the path"
        ) from error
    if PLACE not in prompt:
        raise ConfigError(
            f"expected {PLACE} in --prompt-file {path}, found none; write it where the passage "
            "belongs"
        )
    return prompt


def _first_line(answer: str) -> str:
    return next((line.strip() for line in answer.splitlines() if line.strip()), "")
