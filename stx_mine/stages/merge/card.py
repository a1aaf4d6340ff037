"""The card of a merged model: of what it was made, and how."""

from typing import Any

from stx_mine import __version__
from stx_mine.stages.evaluate.model_card import front_matter, usage_section
from stx_mine.store.markdown import code_span, markdown_text
from stx_mine.store.provenance import shown

METHODS = {
    "linear": "the weighted mean of",
    "slerp": "the point on the arc (per tensor) between",
    "task": "a base (the last) plus the weighted differences to it of",
}


def merged_card(method: str, models: list[dict[str, Any]], settings: dict[str, Any]) -> str:
    """The card, in Markdown; of paths it has only the last part.

    Args:
        method: How they were merged.
        models: Of each its `model` (name), `weight`, `weights` (digest), `cosine`, `relative`.
        settings: Of sentence-transformers, of the merged model.
    """
    names = [str(one["model"]) for one in models]
    title = " + ".join(markdown_text(shown(name)) for name in names)
    rows = [
        f"| {code_span(shown(str(one['model'])))} | {one['weight']:.4g} | `{one['weights']}` | "
        f"{one['cosine']:.4f} | {one['relative']:.4f} |"
        for one in models
    ]
    parts = [
        "\n".join([*front_matter(list(dict.fromkeys(names))), "", f"# {title}, merged"]),
        "A [sentence-transformers](https://www.sbert.net) model for retrieval, merged by stx-mine "
        f"{__version__}: its weights are {METHODS[method]} those below (`{method}`). Prompts, "
        "tokenizer and number format are those of the first; a distance is the length of the "
        "difference to it, by its own.",
        usage_section(settings),
        "\n".join(
            [
                "## Merged models",
                "",
                "| model | weight | weights (xxh3-128) | cosine to the first | distance |",
                "|---|---|---|---|---|",
                *rows,
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"
