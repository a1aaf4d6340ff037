"""Texts to model inputs with the prompt of their role: the contract of embedding and training."""

from dataclasses import dataclass
from typing import Any, Literal

from sentence_transformers import SentenceTransformer

from stx_mine.core.reach import within_reach
from stx_mine.core.role import Role

# What (text, label) rows hold: no role, as in `encode`.
AnyRole = Role | Literal["text"]
# The prompt names that sentence-transformers looks for, in its order.
_PROMPT_NAMES: dict[AnyRole, tuple[str, ...]] = {
    "query": ("query",),
    "passage": ("document", "passage", "corpus"),
    "text": (),
}
# Among model inputs: mini-batches of them shall have widths that are multiples of this.
PAD_TO = "pad_to"
_TASKS: dict[AnyRole, str | None] = {"query": "query", "passage": "document", "text": None}


@dataclass(frozen=True)
class Tokeniser:
    """Tokenises texts as `encode_query`, `encode_document` and `encode` of the model do.

    Attributes:
        model: The model.
        pad_to: Pad to a multiple of so many tokens; the inputs say so under `PAD_TO`.
    """

    model: SentenceTransformer
    pad_to: int | None = None

    def __call__(
        self, texts: list[str], role: AnyRole, prompt: str | None = None
    ) -> dict[str, Any]:
        """Model inputs of texts; `prompt` None takes the model's own, an empty one is none."""
        texts = within_reach(texts)
        prompt = role_prompt(self.model, role) if prompt is None else prompt or None
        options: dict[str, Any] = {"prompt": prompt, "task": _TASKS[role]}
        if self.pad_to is None:
            return dict(self.model.preprocess(texts, **options))
        options["processing_kwargs"] = {"text": {"pad_to_multiple_of": self.pad_to}}
        return {**self.model.preprocess(texts, **options), PAD_TO: self.pad_to}


def role_prompt(model: SentenceTransformer, role: AnyRole) -> str | None:
    """The prompt that the model puts before texts of a role; None for none."""
    names = [*_PROMPT_NAMES[role], model.default_prompt_name]
    for name in names:
        if name is not None and model.prompts.get(name) is not None:
            return model.prompts[name] or None
    return None
