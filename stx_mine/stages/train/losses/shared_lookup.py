"""Word embeddings that all mini-batches of a step look up together."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stx_mine.models.tokenise import PAD_TO

# Of tokens that no text has.
_NONE = -1


class SharedLookup:
    """Replaces what a table of word embeddings gives to a network that is called within it.

    A mini-batch that looks up by itself makes a gradient of the size of the whole table, which is
    filled with zeros and added to that of the others: 47 MB for 30,000 tokens of 384 dimensions,
    and multilingual models know 250,000. Here a mini-batch makes one of the size of the tokens
    that the texts have. Values are the same, gradients up to the order of their sums.
    """

    def __init__(self, table: nn.Embedding, tokens: Tensor) -> None:
        """Look up every token once.

        Args:
            table: The word embeddings.
            tokens: int64, any shape: of all texts, padding included.
        """
        distinct_T = tokens.unique()
        self._table = table
        self._rows_TD = functional.embedding(distinct_T, table.weight)
        self._row_of = torch.full((table.num_embeddings,), _NONE, device=tokens.device)
        self._row_of[distinct_T] = torch.arange(len(distinct_T), device=tokens.device)
        padding = table.padding_idx
        row = _NONE if padding is None else int(self._row_of[padding])
        # Padding gets no gradient.
        self._padding_row = None if row == _NONE else row

    def __enter__(self) -> None:
        """Begin to replace."""
        self._handle = self._table.register_forward_hook(self._replaced)

    def __exit__(self, *_: object) -> None:
        """Leave the table as it was."""
        self._handle.remove()

    def _replaced(self, _: nn.Module, inputs: tuple[Tensor, ...], found: Tensor) -> Tensor:
        rows = self._row_of[inputs[0]]
        if (rows == _NONE).any():
            # The network asks for tokens that it makes itself.
            return found
        return functional.embedding(rows, self._rows_TD, self._padding_row)


def shared_lookup(model: nn.Module, features: dict[str, Any]) -> AbstractContextManager[None]:
    """A `SharedLookup` for texts, where it is worth it: on a CPU, for a table that is trained.

    A compiled network, whose inputs say `PAD_TO`, takes no hooks.

    Args:
        model: A SentenceTransformer, perhaps wrapped.
        features: Its inputs of all texts that are looked up together.
    """
    tokens = features.get("input_ids")
    if tokens is None or tokens.device.type != "cpu" or PAD_TO in features:
        return nullcontext()
    table = _word_embeddings(model)
    return nullcontext() if table is None else SharedLookup(table, tokens)


def _word_embeddings(model: nn.Module) -> nn.Embedding | None:
    """The table of a network; None where it does more than look up, or is not trained."""
    for module in model.modules():
        if hasattr(module, "get_input_embeddings"):
            table = module.get_input_embeddings()
            plain = type(table) is nn.Embedding and table.max_norm is None and not table.sparse
            return table if plain and table.weight.requires_grad else None
    return None
