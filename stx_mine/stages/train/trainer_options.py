"""Options that go through to the Trainer, and those that would break packed batches."""

import json
import os
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Union, get_args, get_origin, get_type_hints

from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

from stx_mine.errors import ConfigError, one_line
from stx_mine.models.load import is_static

_BATCHES = "a packed batch is the batch of one step: `stx-mine pack --batch-size` sets it"
_ORDER = "the order is that of the packing"
_READING = "a thread of stx-mine reads ahead"
_SHARDED = (
    "gradients are averaged over whole replicas, so models cannot be cut into pieces; start "
    "`torchrun --no-python stx-mine train`, and for memory give --batch-tokens, "
    "--gradient-checkpointing, --precision bf16 or --lora-rank"
)
_FOLDER = "checkpoints and the model are published into the run directory"
_LOGGING = "the log is that of the stage"
_JUDGE = "give --evaluation, --evaluation-steps and --patience"
_KWARGS = ("", "_kwargs")
# Option of the Trainer -> what decides it here.
OWNED: dict[str, str] = {
    "output_dir": _FOLDER,
    **dict.fromkeys(("save_strategy", "save_total_limit", "save_only_model"), _FOLDER),
    **dict.fromkeys(("push_to_hub", "hub_token", "hub_model_id", "hub_strategy"), _FOLDER),
    **dict.fromkeys(("hub_private_repo", "hub_always_push", "hub_revision"), _FOLDER),
    **dict.fromkeys(("resume_from_checkpoint", "ignore_data_skip"), "a run continues by itself"),
    "save_steps": "give --checkpoint-steps",
    **dict.fromkeys(("num_train_epochs", "max_steps"), "give --epochs or --steps"),
    "learning_rate": "give --learning-rate",
    **dict.fromkeys(("warmup_steps", "warmup_ratio"), "give --warmup"),
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler_kwargs"), "give --schedule and --floor"),
    **dict.fromkeys(("seed", "data_seed"), "give --seed"),
    "use_cpu": "give --device cpu",
    **dict.fromkeys(("bf16", "fp16"), "give --precision"),
    **dict.fromkeys(
        (f"{kind}_checkpointing{more}" for kind in ("gradient", "activation") for more in _KWARGS),
        "give --gradient-checkpointing",
    ),
    "torch_compile": "give --compile",
    **dict.fromkeys(("per_device_train_batch_size", "auto_find_batch_size"), _BATCHES),
    "gradient_accumulation_steps": _BATCHES,
    **dict.fromkeys(("batch_sampler", "multi_dataset_batch_sampler"), _ORDER),
    **dict.fromkeys(("train_sampling_strategy", "length_column_name"), _ORDER),
    **dict.fromkeys(("dataloader_drop_last", "accelerator_config"), _ORDER),
    **dict.fromkeys(("prompts", "router_mapping"), "prompts are those of the sources"),
    **dict.fromkeys(("remove_unused_columns", "label_names"), "the collator reads the shards"),
    **dict.fromkeys(("dataloader_num_workers", "dataloader_prefetch_factor"), _READING),
    **dict.fromkeys(("dataloader_persistent_workers", "dataloader_pin_memory"), _READING),
    **dict.fromkeys(("dataloader_multiprocessing_context", "dataloader_in_order"), _READING),
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "parallelism_config"), _SHARDED),
    **dict.fromkeys(("eval_strategy", "eval_steps", "eval_delay", "eval_on_start"), _JUDGE),
    **dict.fromkeys(("load_best_model_at_end", "metric_for_best_model"), _JUDGE),
    "restore_callback_states_from_checkpoint": _JUDGE,
    "report_to": "give --report-to",
    **dict.fromkeys(("logging_steps", "logging_nan_inf_filter", "disable_tqdm"), _LOGGING),
}
# Tokens of models that say no limit, which stand for it by a huge number.
_NO_LIMIT = 1_000_000
# What `accelerate launch` asks for by the environment.
_SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
_TRUE = ("1", "true", "yes", "on", "y", "t")
_BOOLEANS = dict.fromkeys(_TRUE, True) | dict.fromkeys(("0", "false", "no", "off", "n", "f"), False)


def user_arguments(
    words: Iterable[str], gradient_checkpointing: bool, compiled: bool
) -> dict[str, Any]:
    """Keywords for SentenceTransformerTrainingArguments.

    Args:
        words: `NAME=VALUE`, NAME as the Trainer spells it.
        gradient_checkpointing: Whether layers run again backwards, instead of keeping all values.
        compiled: Whether torch.compile compiles the network.

    Raises:
        ConfigError: The Trainer has no such option, stx-mine decides it, or the value is no value
            of its type.
    """
    found: dict[str, Any] = {}
    if gradient_checkpointing:
        # The other kind does not nest in gradient caching.
        found["gradient_checkpointing"] = True
        found["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    if compiled:
        found["torch_compile"] = True
    return found | dict(map(_named_value, words))


def precision_arguments(precision: str) -> dict[str, Any]:
    """The keywords by which a network computes in a precision; weights and loss stay float32."""
    return {precision: True} if precision in ("bf16", "fp16") else {}


def refuse_arguments(arguments: Mapping[str, Any], use_cpu: bool) -> None:
    """Try the keywords before anything is written.

    Raises:
        ConfigError: The Trainer refuses one, for its value or for this machine.
    """
    if use_cpu and arguments.get("fp16"):
        raise ConfigError("--precision fp16 needs a GPU, found a CPU; give --precision bf16")
    try:
        SentenceTransformerTrainingArguments(output_dir=".", use_cpu=use_cpu, **arguments)
    except (ValueError, TypeError, ImportError) as error:
        said = ", ".join(f"{name}={value}" for name, value in arguments.items())
        reason = one_line(error)
        raise ConfigError(
            f"expected options that the Trainer takes on this machine, found {said}: {reason}; "
            "change --trainer-option, --precision or --compile"
        ) from error


def refuse_shapes(
    model: SentenceTransformer, gradient_checkpointing: bool, pad_to: int | None
) -> None:
    """Refuse what only a transformer can do, and widths that its texts cannot have.

    Raises:
        ConfigError: A static model, or `pad_to` does not divide the model's limit.
    """
    asked = {"--gradient-checkpointing": gradient_checkpointing, f"--pad-to {pad_to}": pad_to}
    if is_static(model):
        for words in (name for name, value in asked.items() if value):
            raise ConfigError(
                f"{words} needs a transformer, found a static model, whose texts are one sum of "
                "token vectors each; leave it out"
            )
        return
    limit = int(min(model.max_seq_length or _NO_LIMIT, _NO_LIMIT))
    if pad_to is not None and limit != _NO_LIMIT and limit % pad_to:
        fit = [one for one in range(1, limit + 1) if limit % one == 0]
        raise ConfigError(
            f"--pad-to must divide the {limit} tokens that the model reads at most, so that no "
            f"text is padded past them, found {pad_to}; give one of {', '.join(map(str, fit))}, or "
            "another --max-length"
        )


def refuse_launcher(precision: str) -> None:
    """Refuse what a launcher asks for by the environment and packed batches cannot have.

    Raises:
        ConfigError: FSDP, DeepSpeed or their kin, or another precision than `precision`.
    """
    for name in _SHARDING:
        variable = f"ACCELERATE_USE_{name}"
        if os.environ.get(variable, "").lower() in _TRUE:
            raise ConfigError(f"expected plain replicas, found {variable}: {_SHARDED}")
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", precision):
        raise ConfigError(
            f"the launcher asks for mixed precision {asked} (ACCELERATE_MIXED_PRECISION), found "
            f"--precision {precision}; say the precision with --precision alone"
        )


def _named_value(word: str) -> tuple[str, Any]:
    name, _, value = word.partition("=")
    names = {field.name for field in fields(SentenceTransformerTrainingArguments) if field.init}
    if name in OWNED:
        raise ConfigError(f"--trainer-option {name} is not the Trainer's to decide: {OWNED[name]}")
    if name not in names:
        near = get_close_matches(name, names - OWNED.keys(), n=3)
        raise ConfigError(
            f"expected an option of SentenceTransformerTrainingArguments, found {name!r}; "
            + (f"did you mean {' or '.join(near)}?" if near else "see its documentation")
        )
    hint = get_type_hints(SentenceTransformerTrainingArguments)[name]
    kinds = _kinds(hint)
    for kind in (type(None), bool, int, float, dict, list, str):
        if kind in kinds and (read := _read(value, kind)) is not _NO_VALUE:
            return name, read
    expected = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise ConfigError(f"--trainer-option {name} must be of type {expected}, found {value!r}")


def _kinds(hint: Any) -> set[type]:
    """The plain types of a hint; enumerations come with str."""
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*map(_kinds, get_args(hint)))
    kind = get_origin(hint) or hint
    return {kind} if isinstance(kind, type) else set()


_NO_VALUE = object()


def _read(value: str, kind: type) -> Any:
    if kind is type(None):
        return None if value.lower() == "none" else _NO_VALUE
    if kind is bool:
        return _BOOLEANS.get(value.lower(), _NO_VALUE)
    try:
        read = json.loads(value) if kind in (dict, list) else kind(value)
    except ValueError:
        return _NO_VALUE
    return read if isinstance(read, kind) else _NO_VALUE
