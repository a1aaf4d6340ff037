"""Put right what the files of a model leave open, or refuse it, before the first text."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import nn
from transformers import modeling_utils
from transformers.integrations import peft
from transformers.utils.loading_report import LoadStateDictInfo

from stx_mine.errors import ConfigError, ModelError, shortened

# Names of tables of learned positions, as the networks of transformers have them.
_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")
# A network that is used for its token vectors needs none of it.
_POOLER = "pooler"
_FEWEST_WORDS = 4


def transformers_of(model: nn.Module) -> list[Transformer]:
    """The transformers in a model: none in a static one, several behind a router."""
    return [module for module in model.modules() if isinstance(module, Transformer)]


@dataclass
class WeightReport:
    """What networks and files did not have in common when they were loaded.

    Attributes:
        missing: Weights of a network that its files lack; the library fills in random numbers.
        misfits: Weights of an adapter without a layer, and adapted layers without weights.
    """

    missing: set[str] = field(default_factory=set)
    misfits: set[str] = field(default_factory=set)


@contextmanager
def watch_weights() -> Iterator[WeightReport]:
    """Collect what the library only logs while it loads."""
    found = WeightReport()
    before = {module: module.log_state_dict_report for module in (modeling_utils, peft)}

    def noting(module: ModuleType) -> Callable[..., None]:
        def note(*args: Any, loading_info: LoadStateDictInfo, **others: Any) -> None:
            lacking = loading_info.missing_and_mismatched()
            if module is peft:
                found.misfits |= lacking | set(loading_info.unexpected_keys)
            else:
                found.missing |= lacking
            before[module](*args, loading_info=loading_info, **others)

        return note

    try:
        for module in before:
            module.log_state_dict_report = noting(module)
        yield found
    finally:
        for module, report in before.items():
            module.log_state_dict_report = report


def refuse_random_weights(model: nn.Module, name: str, report: WeightReport) -> None:
    """Take out a pooler that the files do not have, and refuse a network that lacks other weights.

    Raises:
        ModelError: It lacks others.
    """
    others = sorted(one for one in report.missing if _POOLER not in one.split("."))
    if others:
        raise ModelError(
            f"{len(others)} weights of the network are not in the files of {name} ("
            f"{', '.join(others[:3])}{' ...' if len(others) > 3 else ''}) and would be random; "
            "give a checkpoint that is whole, of the architecture that its config.json names"
        )
    if report.missing:
        for one in transformers_of(model):
            if isinstance(getattr(one.model, _POOLER, None), nn.Module):
                setattr(one.model, _POOLER, None)


def refuse_misfits(name: str, report: WeightReport) -> None:
    """Refuse an adapter of which a part fits no layer: the library leaves it out.

    Raises:
        ModelError: It is one.
    """
    wrong = sorted(report.misfits)
    if wrong:
        raise ModelError(
            f"{len(wrong)} weights of the adapter {name} do not fit the layers of its base (such "
            f"as {wrong[0]}); merge it with peft, and give what that saves"
        )


def refuse_no_input(model: SentenceTransformer, name: str) -> None:
    """Refuse a model whose first module takes no texts.

    Raises:
        ModelError: It takes none.
    """
    if not any(hasattr(model[0], taking) for taking in ("preprocess", "tokenize")):
        raise ModelError(
            f"expected a module that reads texts first in {name}, found "
            f"{type(model[0]).__name__}; correct modules.json, or fetch the model again"
        )


def refuse_empty_vocabulary(model: nn.Module, name: str) -> None:
    """Refuse a tokenizer that knows special tokens only: the library makes one where files lack.

    Raises:
        ModelError: It does.
    """
    for one in transformers_of(model):
        tokenizer = one.tokenizer
        if tokenizer is None:
            raise ModelError(f"expected a tokenizer in {name}, found none; put its files there")
        words = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
        if len(words) < _FEWEST_WORDS:
            raise ModelError(
                f"expected the files of a tokenizer in {name}, found none, or one without words; "
                "put tokenizer.json of its base model there"
            )


def name_pad_token(model: nn.Module, name: str) -> list[str]:
    """Give tokenizers without a pad token their end-of-text token for it; attention skips both.

    Returns:
        A sentence that says so, if it was done.

    Raises:
        ModelError: There is neither.
    """
    notes = []
    for one in transformers_of(model):
        tokenizer = one.tokenizer
        if tokenizer.pad_token is not None:
            continue
        if tokenizer.eos_token is None:
            raise ModelError(
                f"the tokenizer of {name} has neither a pad token nor an end-of-text token; set "
                "pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
        notes.append(
            f"the tokenizer of {name} has no pad token: its end-of-text token "
            f"{tokenizer.eos_token} pads"
        )
    return notes


def keep_within_positions(model: nn.Module, name: str, asked: int | None) -> list[str]:
    """Bring the limit of tokens down to the table of positions, which has nothing behind its end.

    Args:
        model: Changed in place.
        name: For messages.
        asked: The limit that the user gave.

    Returns:
        Sentences about limits that were lowered, or that lie beyond what a model was trained for.

    Raises:
        ConfigError: The limit that was asked for is beyond the table.
        ModelError: The limit in the files is none.
    """
    notes = []
    for one in transformers_of(model):
        table, trained = _position_rows(one.model), _trained_positions(one.model)
        limit = one.max_seq_length
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise ModelError(
                f"expected a limit of at least 1 token in {name}, found {shortened(limit)}; "
                "correct max_seq_length in its files, or give --max-length"
            )
        if table is not None and asked is not None and asked > table:
            raise ConfigError(
                f"--max-length {asked} is more than the {table} positions of {name}; give at most "
                f"{table}"
            )
        if table is not None and (limit is None or limit > table):
            one.max_seq_length = table
            notes.append(
                f"{name} reads {table} tokens of a text, as many as it has positions, where its "
                f"files say {limit}"
            )
        elif table is None and asked is not None and trained is not None and asked > trained:
            notes.append(
                f"--max-length {asked} is more than the {trained} tokens that {name} was made for"
            )
    return notes


def _position_rows(network: nn.Module) -> int | None:
    """Tokens that the tables of learned positions have room for; None without such tables."""
    rows = []
    for path, module in network.named_modules() if isinstance(network, nn.Module) else ():
        parts = path.split(".")
        if parts[-1] not in _TABLES or "vision" in path or not isinstance(module, nn.Embedding):
            continue
        # Positions begin behind the pad id, or at an offset, in the tables that are older.
        behind = 0 if module.padding_idx is None else module.padding_idx + 1
        rows.append(module.num_embeddings - max(behind, int(getattr(module, "offset", 0))))
    return min(rows, default=None)


def _trained_positions(network: nn.Module) -> int | None:
    """Tokens that the config says; what encodes positions by a formula goes beyond, untrained."""
    found = getattr(getattr(network, "config", None), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
