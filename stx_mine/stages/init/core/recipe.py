"""A model, a size of batches and of held-out parts, by the size of the data and the device."""

from dataclasses import dataclass

# An epoch of fewer steps leaves little to learn from (`pack` warns below it, too).
_FEWEST_STEPS = 20
_SMALLEST_BATCH = 16
# Largest batches: of the quickstart, of transformers, and of pipelines/large-batch.yaml.
_STATIC_MOST, _NETWORK_MOST, _LARGE = 2_048, 1_024, 32_768
_FEWEST_OF_LARGE = 1_000_000
# Held-out parts that are larger than this only take time.
_MOST_TEST, _MOST_DEV = 5_000, 2_000
# A best step that fewer pairs choose is chosen by chance.
_FEWEST_DEV = 100
FEW_PAIRS = 100
# Passes of static models, where they were measured; larger data takes long.
_STATIC_PASSES, _LONGER = 10, range(1_000, 200_001)
_STATIC = "package:wordllama"
_ENGLISH = "sentence-transformers/all-MiniLM-L6-v2"
_OTHERS = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"


@dataclass(frozen=True)
class Recipe:
    """What to train with, each with its reason.

    Attributes:
        model: A hub id, or `package:NAME`.
        batch_size: Rows of a batch.
        k: Negatives of a row.
        passes: Packings, and passes over the rows in training; None for the defaults.
        is_network: Whether the model is a transformer, as far as its name tells.
        is_large: Whether batches are so large that texts stand beside the shards once.
        of_model: Why this model.
        of_batch: Why this size.
        of_k: Why so many negatives.
        of_passes: Why so many passes; empty for the defaults.
    """

    model: str
    batch_size: int
    k: int
    passes: int | None
    is_network: bool
    is_large: bool
    of_model: str
    of_batch: str
    of_k: str
    of_passes: str


def propose_recipe(
    num_rows: int,
    num_passages: int,
    num_texts: int,
    on_gpu: bool,
    is_english: bool,
    asked: str | None,
) -> Recipe:
    """A recipe for training.

    Args:
        num_rows: Pairs to train on.
        num_passages: Distinct passages, at least 2.
        num_texts: Distinct texts to embed.
        on_gpu: Whether an accelerator will do it.
        is_english: Whether nearly all letters are of the Latin alphabet without marks.
        asked: The model that a person named; None to propose one.
    """
    model, of_model = _model(num_texts, on_gpu, is_english, asked)
    is_static = model == _STATIC
    is_large = on_gpu and num_rows >= _FEWEST_OF_LARGE
    most = _LARGE if is_large else _STATIC_MOST if is_static else _NETWORK_MOST
    size = batch_size_of(num_rows, most)
    steps = num_rows // size
    of_batch = f"{num_rows:,} pairs to train on make {steps:,} steps per epoch; "
    if size == most:
        of_batch += "larger batches are rarely worth their time"
        if is_large:
            of_batch = of_batch.partition(";")[0] + ", as in pipelines/large-batch.yaml"
    elif steps >= _FEWEST_STEPS:
        of_batch += f"twice the size would leave fewer than {_FEWEST_STEPS}"
    else:
        of_batch += f"{_FEWEST_STEPS} would be good, but smaller batches hold too few negatives"
    if is_large:
        k, of_k = 2, "a large batch has negatives of its own, few per row are enough"
    elif is_static:
        k, of_k = 8, "the default; 1.3 to 3 points above none with a static model, on five sets"
    else:
        k = 4
        of_k = (
            "0.8 to 4 points above none with MiniLM and 64 rows a step, on four sets; each costs "
            "a transformer a pass"
        )
    if k >= num_passages:
        k, of_k = num_passages - 1, f"there are no more than {num_passages:,} passages"
    passes, of_passes = None, ""
    if is_static and num_rows in _LONGER:
        passes = _STATIC_PASSES
        of_passes = (
            "a static model learns more from ten passes than from two, each with batches of its "
            "own: 0.9 to 3.2 points of nDCG@10 more on four sets, 0.6 less on a fifth; "
            "`stx-mine tune` tells"
        )
    return Recipe(
        model, size, k, passes, not is_static, is_large, of_model, of_batch, of_k, of_passes
    )


def _model(num_texts: int, on_gpu: bool, is_english: bool, asked: str | None) -> tuple[str, str]:
    """A model and the reason for it."""
    if asked is not None:
        return asked, "named by --model"
    if not on_gpu:
        reason = (
            f"a static model embeds {num_texts:,} texts on a CPU in seconds to minutes and comes "
            "with the installation; a transformer is better and takes hours without a GPU"
        )
        if not is_english:
            reason += (
                f". It learned from English, and these texts are not: {_OTHERS} reads 50 languages"
            )
        return _STATIC, reason
    model, reads = (_ENGLISH, "English") if is_english else (_OTHERS, "50 languages")
    return model, (
        f"a small transformer for {reads}, since there is a GPU; downloaded from the hub once. "
        f"{_STATIC} needs no network and is faster and weaker"
    )


def batch_size_of(num_rows: int, most: int) -> int:
    """The largest power of two that leaves 20 steps per epoch, from 16 to `most`.

    It is never above the number of rows, unless that is below 2.
    """
    size = most
    while size > _SMALLEST_BATCH and num_rows // size < _FEWEST_STEPS:
        size //= 2
    while size > max(num_rows, 2):
        size //= 2
    return size


def held_out_sizes(num_pairs: int) -> tuple[float, float]:
    """Sizes of test and dev, as `split` takes them: shares, or numbers where shares are many."""
    test = 0.2 if num_pairs < FEW_PAIRS else 0.1
    dev = 0.05 if num_pairs * 0.05 >= _FEWEST_DEV else 0
    return (
        _MOST_TEST if num_pairs * test > _MOST_TEST else test,
        _MOST_DEV if num_pairs * dev > _MOST_DEV else dev,
    )
