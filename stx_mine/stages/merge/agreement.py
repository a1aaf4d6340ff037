"""What models have to agree on before their weights mean the same: tensors, texts, readings."""

from collections.abc import Sequence
from typing import Any

from stx_mine.errors import ModelError, one_line, shortened
from stx_mine.stages.merge.model_folder import (
    CONFIGS,
    TOKENIZER,
    ModelFolder,
    TensorKey,
)

# Of a config, what says where a model came from or how it was stored, and the limit of tokens.
_NO_READING = {
    *("_name_or_path", "transformers_version", "__version__", "dtype", "torch_dtype"),
    *("architectures", "use_cache", "max_seq_length", "model_max_length"),
}
_LIMITS = ("max_seq_length",)
_FLOATS = ("F", "BF")


def disagreement(models: Sequence[ModelFolder]) -> str:
    """Why weights of models cannot be merged, and what to do; empty where they can."""
    first = models[0]
    # One that stands alone, as one that is merged with itself, is read all the same.
    for other in models[1:] or models:
        for find in (_of_modules, _of_settings, _of_tensors, _of_vocabularies):
            if problem := find(first, other):
                return f"{problem}; name models that were tuned from one"
    return ""


def reading_notes(models: Sequence[ModelFolder]) -> list[str]:
    """What models differ in and the merged one takes from the first, as sentences."""
    first, notes = models[0], []
    for other in models[1:]:
        found = [
            *_differing(_prompts(first), _prompts(other), "the prompt"),
            *_differing(_limits(first), _limits(other), "the limit of tokens"),
            *_differing(_text_forms(first), _text_forms(other), "the tokenizer's"),
        ]
        notes += [
            f"{what}: {shortened(here)} in {first.name}, {shortened(there)} in {other.name}; the "
            "merged model has that of the first"
            for what, here, there in found
        ]
    return notes


def is_float(dtype: str) -> bool:
    """Whether a tensor of this format (as safetensors call it) has a mean; others must be equal."""
    return dtype.startswith(_FLOATS)


def _of_modules(first: ModelFolder, other: ModelFolder) -> str:
    kinds = [
        [(str(one["type"]).rpartition(".")[2], one["path"]) for one in model.modules]
        for model in (first, other)
    ]
    if kinds[0] == kinds[1]:
        return ""
    shown = [", ".join(kind for kind, _ in one) for one in kinds]
    if shown[0] == shown[1]:
        shown = [", ".join(repr(path) for _, path in one) for one in kinds]
    return (
        f"expected one list of modules, found {shown[0]} in {first.name} and {shown[1]} in "
        f"{other.name}"
    )


def _of_settings(first: ModelFolder, other: ModelFolder) -> str:
    """The first setting of a module, or of how vectors are compared, that differs."""
    readings = [_readings(first), _readings(other)]
    for name, here, there in _differing(readings[0], readings[1], "the setting"):
        return (
            f"expected models that read texts in one way, found {name} {shortened(here)} in "
            f"{first.name} and {shortened(there)} in {other.name}"
        )
    return ""


def _readings(model: ModelFolder) -> dict[str, Any]:
    settings = model.settings
    found = {
        "similarity": settings.get("similarity_fn_name") or "cosine",
        "truncate_dim": settings.get("truncate_dim"),
    }
    for file, content in model.files_named(*CONFIGS).items():
        if isinstance(content, dict):
            found |= {
                f"{name} of {file}": one for name, one in content.items() if name not in _NO_READING
            }
    return found


def _of_tensors(first: ModelFolder, other: ModelFolder) -> str:
    """Names and shapes; the first that differs, and how many do."""
    here, there = first.tensors, other.tensors
    alone = [key for key in here if key not in there]
    if alone := alone + [key for key in there if key not in here]:
        holder, lacks = (first, other) if alone[0] in here else (other, first)
        return (
            f"expected the same tensors, found {alone[0]} in {holder.name} and not in {lacks.name} "
            f"({len(alone):,} of {len({*here, *there}):,} are in one only)"
        )
    if unlike := [key for key in here if here[key].shape != there[key].shape]:
        shapes = [" x ".join(map(str, one[unlike[0]].shape)) for one in (here, there)]
        return (
            f"expected tensors of the same shapes, found {unlike[0]} of {shapes[0]} in "
            f"{first.name} and of {shapes[1]} in {other.name} "
            f"({len(unlike):,} of {len(here):,} differ)"
        )
    wrong = [key for key in here if is_float(here[key].dtype) != is_float(there[key].dtype)]
    return _other_kind(wrong[0], first, other) if wrong else ""


def _other_kind(key: TensorKey, first: ModelFolder, other: ModelFolder) -> str:
    kinds = [model.tensors[key].dtype for model in (first, other)]
    return (
        f"expected tensors of one kind, found {key} of {kinds[0]} in {first.name} and of "
        f"{kinds[1]} in {other.name}"
    )


def _of_vocabularies(first: ModelFolder, other: ModelFolder) -> str:
    """Which numbers the words have: a row of a table has to stand for one word in all models."""
    here, there = (model.files_named(TOKENIZER) for model in (first, other))
    if not here:
        return f"expected {TOKENIZER} in each model, to compare words, found none in {first.name}"
    if here.keys() != there.keys():
        alone = sorted(here.keys() ^ there.keys())[0]
        holder, lacks = (first, other) if alone in here else (other, first)
        return f"expected {alone} in each model, found it in {holder.name} and not in {lacks.name}"
    for file in here:
        words = [
            _read_words(model, file, one[file]) for model, one in ((first, here), (other, there))
        ]
        if words[0] != words[1]:
            unlike = [word for word in words[0] if words[1].get(word) != words[0][word]]
            unlike += [word for word in words[1] if word not in words[0]]
            return (
                f"expected one vocabulary, found {len(words[0]):,} words in {file} of {first.name} "
                f"and {len(words[1]):,} in that of {other.name} ({len(unlike):,} differ, such as "
                f"{shortened(unlike[0])})"
            )
    return ""


def _read_words(model: ModelFolder, file: str, content: Any) -> dict[str, Any]:
    """The words of a tokenizer.

    Raises:
        ModelError: The file holds none.
    """
    try:
        return _words(content)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ModelError(
            f"expected a tokenizer in {file} of {model.name}, found something else "
            f"({one_line(error)}); fetch the model again"
        ) from error


def _words(tokenizer: Any) -> dict[str, Any]:
    """Word -> its number, or its number and score; merges stand behind them."""
    model = tokenizer["model"]
    vocab = model["vocab"]
    if isinstance(vocab, list):
        # Of unigram models: a list of (word, score).
        found: dict[str, Any] = {str(one[0]): (number, one[1]) for number, one in enumerate(vocab)}
    else:
        found = dict(vocab)
    added = tokenizer.get("added_tokens") or ()
    found |= {str(one["content"]): one["id"] for one in added}
    merges = ((one if isinstance(one, str) else " ".join(one)) for one in model.get("merges") or ())
    return found | {f"merge {one}": number for number, one in enumerate(merges)}


def _text_forms(model: ModelFolder) -> dict[str, Any]:
    """What tokenizers do to texts before and after words are looked up."""
    parts = ("normalizer", "pre_tokenizer", "post_processor")
    return {
        f"{part} ({file})": content.get(part)
        for file, content in model.files_named(TOKENIZER).items()
        if isinstance(content, dict)
        for part in parts
    }


def _prompts(model: ModelFolder) -> dict[str, Any]:
    settings = model.settings
    prompts = settings.get("prompts")
    found = {f"{name!r}": text for name, text in (prompts or {}).items() if text}
    default = settings.get("default_prompt_name")
    return {**found, "by default": default} if default else found


def _limits(model: ModelFolder) -> dict[str, Any]:
    return {
        f"{name} ({file})": content[name]
        for file, content in model.files_named("sentence_bert_config.json").items()
        for name in _LIMITS
        if isinstance(content, dict) and name in content
    }


def _differing(
    here: dict[str, Any], there: dict[str, Any], what: str
) -> list[tuple[str, Any, Any]]:
    """(name, one value, other value) of what differs."""
    return [
        (f"{what} {name}", here.get(name), there.get(name))
        for name in {**here, **there}
        if here.get(name) != there.get(name)
    ]
