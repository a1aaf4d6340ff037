"""Model inputs from token ids: what `SentenceTransformer.preprocess` makes, without its detours.

Whether they are the same is not assumed but tried, on texts of the data, for each role and prompt.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from stx_mine.models.text_tokens import TextTokenizer, TextTokens, text_pairs
from stx_mine.models.tokenise import AnyRole, Tokeniser, role_prompt

Features = dict[str, Any]
# Texts that the inputs of a model are compared on.
_SAMPLE = 16
_PADDED = {"input_ids", "attention_mask", "token_type_ids"}
_CONSTANT = {"modality", "prompt_length"}


@dataclass(frozen=True)
class TokenInputs:
    """How texts of one role, with one prompt, become inputs of a model.

    Attributes:
        tokenizer: Tokenises them.
        prompt: Put before each; empty for none.
        padded: Which inputs have a column a token; empty for a static model, whose ids are flat.
        constants: Inputs that are the same for every batch.
        pad_id: The id that pads.
        pad_left: Whether padding stands before the text.
    """

    tokenizer: TextTokenizer
    prompt: str
    padded: frozenset[str] = frozenset()
    constants: tuple[tuple[str, Any], ...] = ()
    pad_id: int = 0
    pad_left: bool = False

    @classmethod
    def of(
        cls, model: SentenceTransformer, role: AnyRole, prompt: str | None, texts: pa.ChunkedArray
    ) -> "TokenInputs | None":
        """The inputs of a role, if token ids are all that its texts come down to.

        Args:
            model: The model.
            role: query, passage or text.
            prompt: Put before each; None for the model's own prompt of the role, empty for none.
            texts: Texts of this role; the first, and the longest of them, are tried.

        Returns:
            None where the model makes anything else of texts, as with chat templates, or asks for
            their role.
        """
        sample = _sample(texts)
        if any((model.module_kwargs or {}).values()) or any(
            isinstance(module, Router) for module in model
        ):
            return None
        if isinstance(model[0], StaticEmbedding):
            wanted = Tokeniser(model)(sample.to_pylist(), role, prompt)
            found = cls(_copied(model[0].tokenizer, False), _words(model, role, prompt))
        elif isinstance(model[0], Transformer) and isinstance(
            model[0].tokenizer, PreTrainedTokenizerFast
        ):
            fast = model[0].tokenizer
            # Sets the truncation that the copy takes over.
            wanted = Tokeniser(model)(sample.to_pylist(), role, prompt)
            found = cls(
                _copied(fast.backend_tokenizer, True),
                _words(model, role, prompt),
                *_batch_inputs(wanted, fast),
            )
        else:
            return None
        return found if _same(found.batch(found.tokens(sample)), wanted) else None

    @classmethod
    def of_pairs(
        cls, model: CrossEncoder, first: pa.Array, second: pa.Array
    ) -> "TokenInputs | None":
        """The inputs of pairs of texts, if token ids are all that they come down to.

        Args:
            model: The model.
            first: (N,) texts of this kind; the first, and the longest pair of them, are tried.
            second: (N,) the other text of each pair.

        Returns:
            None where the model makes anything else of pairs, as with prompts or chat templates.
        """
        sizes = pc.add(pc.binary_length(first), pc.binary_length(second)).to_numpy()
        chosen = pa.array([*range(min(_SAMPLE, len(first))), int(sizes.argmax())])
        some = first.take(chosen), second.take(chosen)
        fast = getattr(model[0], "tokenizer", None)
        if any((model.module_kwargs or {}).values()) or not (
            isinstance(model[0], Transformer) and isinstance(fast, PreTrainedTokenizerFast)
        ):
            return None
        # Sets the truncation that the copy takes over.
        wanted = model.preprocess(
            text_pairs(*some), prompt=model.prompts.get(model.default_prompt_name)
        )
        found = cls(_copied(fast.backend_tokenizer, True), "", *_batch_inputs(wanted, fast))
        return found if _same(found.batch(found.pairs(*some)), wanted) else None

    def pairs(self, first: pa.Array, second: pa.Array) -> TextTokens:
        """Tokens of pairs of texts."""
        return self.tokenizer.pairs(first, second)

    def tokens(self, texts: pa.ChunkedArray) -> TextTokens:
        """Tokens of texts, the prompt included."""
        return self.tokenizer(texts, self.prompt)

    def batch(self, tokens: TextTokens, rows: NDArray[np.int64] | None = None) -> Features:
        """The inputs of some texts.

        Args:
            tokens: The tokens of many texts.
            rows: int64 (B,) which of them; None for all.
        """
        if not self.padded:
            assert rows is None, "a static model takes texts as they come"
            return {
                "input_ids": torch.from_numpy(tokens.ids),
                "offsets": torch.from_numpy(tokens.offsets[:-1].astype(np.int32)),
            }
        rows = np.arange(len(tokens)) if rows is None else rows
        places_BL, used_BL = self._places(tokens, rows)
        made = {
            "input_ids": np.where(used_BL, tokens.ids[places_BL], self.pad_id).astype(np.int64),
            "attention_mask": used_BL.astype(np.int64),
        }
        if "token_type_ids" in self.padded:
            types_BL = np.zeros_like(used_BL) if tokens.types is None else tokens.types[places_BL]
            made["token_type_ids"] = np.where(used_BL, types_BL, 0).astype(np.int64)
        return {
            **{name: torch.from_numpy(made[name]) for name in made if name in self.padded},
            **dict(self.constants),
        }

    def _places(
        self, tokens: TextTokens, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where the token of each place of a batch stands, and whether there is one."""
        lengths = tokens.lengths[rows]
        columns = np.arange(lengths.max(initial=0))
        if self.pad_left:
            columns = columns - (len(columns) - lengths)[:, None]
            used_BL = columns >= 0
        else:
            columns = np.broadcast_to(columns, (len(rows), len(columns)))
            used_BL = columns < lengths[:, None]
        return np.where(used_BL, tokens.offsets[rows][:, None] + columns, 0), used_BL


def _batch_inputs(
    wanted: Features, fast: PreTrainedTokenizerFast
) -> tuple[frozenset[str], tuple[tuple[str, Any], ...], int, bool]:
    """What batches have besides token ids, as the attributes of `TokenInputs`."""
    constants = tuple((name, wanted[name]) for name in sorted(_CONSTANT & set(wanted)))
    padded = frozenset(_PADDED & set(wanted))
    return padded, constants, int(fast.pad_token_id or 0), fast.padding_side == "left"


def _words(model: SentenceTransformer, role: AnyRole, prompt: str | None) -> str:
    return (role_prompt(model, role) if prompt is None else prompt) or ""


def _copied(tokenizer: Tokenizer, special_tokens: bool) -> TextTokenizer:
    """A tokenizer of our own, with the truncation that the other one has now."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.no_padding()
    copy.encode_special_tokens = tokenizer.encode_special_tokens
    return TextTokenizer(copy, special_tokens)


def _sample(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """The first texts of some, and the longest among the first thousands."""
    near = texts.slice(0, 4_096)
    sizes = pc.binary_length(near)
    longest = int(pc.index(sizes, pc.max(sizes)).as_py()) if len(near) else 0
    return pa.chunked_array([*near.slice(0, _SAMPLE).chunks, *near.slice(longest, 1).chunks])


def _same(ours: Features, theirs: Features) -> bool:
    """Whether two sets of inputs hold the same names and numbers."""
    if set(ours) != set(theirs):
        return False
    return all(np.array_equal(np.asarray(ours[name]), np.asarray(theirs[name])) for name in theirs)
