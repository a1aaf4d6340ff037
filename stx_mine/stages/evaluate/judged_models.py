"""The models to evaluate, each with the prompts and the length limit that it is judged with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stx_mine.core.role import Role
from stx_mine.errors import ConfigError
from stx_mine.models.encoder import SentenceTransformerEncoder, token_limit, weights_digest
from stx_mine.models.limits import embedding_dim, limit_tokens
from stx_mine.models.tokenise import role_prompt
from stx_mine.stages.embed.config import DEFAULT_MODEL
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.model_readings import model_readings
from stx_mine.store.artifact import MANIFEST, Manifest, read_manifest
from stx_mine.store.manifest import is_begun, read_finished
from stx_mine.store.run_dir import RunDir
from stx_mine.store.sources import prompts_differ, stored_sources

Place = Literal["base", "trained"]
Prompts = Mapping[str, str | None]


@dataclass(frozen=True)
class OfRun:
    """A model of a run.

    Attributes:
        place: Whether it was trained by the run, or is what the run embeds with or trains.
        prompts: Prompts that the run has for it, by the names that models have for them.
        max_length: Tokens that it reads of a text; None for its own limit.
    """

    place: Place
    prompts: Mapping[str, str]
    max_length: int | None


@dataclass(frozen=True)
class JudgedModel:
    """A model to evaluate.

    Attributes:
        encoder: The model, with its prompts and length limit.
        place: What it is of the run; None where it is of another.
        prompts: Role -> prompt that stands before those of the model.
    """

    encoder: SentenceTransformerEncoder
    place: Place | None
    prompts: Prompts

    @property
    def name(self) -> str:
        """How the user named it."""
        return self.encoder.name

    def contract(self) -> dict[str, Any]:
        """What decides its numbers, JSON-ready."""
        return {**self.encoder.contract(), "role_prompts": dict(self.prompts)}

    def settings(self) -> dict[str, Any]:
        """What its texts are encoded with, JSON-ready; no prompt and no limit are None."""
        found: dict[str, Any] = {}
        roles: tuple[Role, ...] = ("query", "passage")
        for role in roles:
            given = self.prompts.get(role)
            prompt = role_prompt(self.encoder.model, role) if given is None else given
            found[f"{role}_prompt"] = prompt or None
        return {**found, "max_length": token_limit(self.encoder.model)}

    def how(self) -> dict[str, Any]:
        """`settings`, and what it is of the run."""
        return {"of_run": self.place, **self.settings()}


def load_models(config: EvaluateConfig, run: RunDir, texts: Manifest | None) -> list[JudgedModel]:
    """Load the models that are named, or those of the run.

    Args:
        config: Names them, and what they are judged with.
        run: The run.
        texts: Its `texts/`; None where it has none.

    Raises:
        ConfigError: The run has no such source, or no model is named and there is none.
        ModelError: One cannot be loaded.
    """
    known, source_prompts = ModelsOfRun.of(run), _source_prompts(config, run, texts)
    asked = {"query": config.query_prompt, "passage": config.passage_prompt}
    given = {role: prompt for role, prompt in asked.items() if prompt is not None}
    models = []
    names = list(dict.fromkeys(config.models or default_models(run)))
    for name, reading in model_readings(config, _embeddings(run.first_round), names).items():
        encoder = SentenceTransformerEncoder.load(
            name, config.device, None, config.encode_batch_size, reading
        )
        own = known.find(encoder)
        if own is not None:
            encoder.model.prompts.update(own.prompts)
        max_length = config.max_length or (own.max_length if own else None)
        if max_length is not None:
            limit_tokens(encoder.model, name, max_length)
        # Sources that agree have the prompts of the run; a source that is named is asked for.
        prompts = source_prompts if own is not None or config.source is not None else {}
        models.append(JudgedModel(encoder, own.place if own else None, {**prompts, **given}))
    return models


@dataclass(frozen=True)
class ModelsOfRun:
    """The models of a run and of its rounds.

    A model that was trained is judged as it was trained; so is the model that training began with,
    even where texts were embedded with another limit.

    Attributes:
        by_weights: By the digest of their weights.
        by_name: By their names and folders.
    """

    by_weights: dict[str, OfRun]
    by_name: dict[str, OfRun]

    @classmethod
    def of(cls, run: RunDir) -> "ModelsOfRun":
        """Find those that are finished."""
        found, first = cls({}, {}), run.first_round
        rounds = [first, *map(RunDir, sorted((first.path / "rounds").glob("*")))]
        trained = [
            read_manifest(one.folder("model"))
            for one in rounds
            if (one.folder("model") / MANIFEST).exists()
        ]
        for model in trained:
            # Its prompts are those that it was saved with.
            limit = model.fields["model"]["max_length"]
            of_run = OfRun("trained", {}, limit)
            found._add(of_run, str(model.extra["weights"]), _folder(str(model.folder)))
        for model in trained:
            began = model.fields["model"]
            prompts = {name: text for name, text in began["prompts"].items() if text is not None}
            of_run = OfRun("base", prompts, began["max_length"])
            found._add(of_run, began["weights"], _folder(model.extra["base_model"]))
        embeddings = _embeddings(first)
        if embeddings is not None and embeddings.extra["model"] is not None:
            extra = embeddings.extra
            of_run = OfRun("base", extra["prompts"], embeddings.fields["max_length"])
            found._add(of_run, extra["contract"]["weights"], _folder(extra["model"]))
        return found

    def _add(self, of_run: OfRun, weights: str, name: str) -> None:
        self.by_weights.setdefault(weights, of_run)
        self.by_name.setdefault(name, of_run)

    def find(self, encoder: SentenceTransformerEncoder) -> OfRun | None:
        """What a model is of the run, as it was loaded; None where it is of another."""
        if not self.by_name:
            return None
        named = self.by_name.get(_folder(encoder.name))
        return named or self.by_weights.get(weights_digest(encoder.model))


def _folder(name: str) -> str:
    """The one spelling of a local folder; another name is left as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _embeddings(run: RunDir) -> Manifest | None:
    return read_finished(run, "embeddings") if is_begun(run, "embeddings") else None


def _source_prompts(config: EvaluateConfig, run: RunDir, texts: Manifest | None) -> Prompts:
    """Role -> prompt of the source that is named, or of all sources where they agree.

    Raises:
        ConfigError: The run has no such source.
    """
    sources = () if texts is None else stored_sources(texts)
    if config.source is None:
        return {} if prompts_differ(sources) or not sources else sources[0].prompts
    chosen = [one for one in sources if one.name == config.source]
    if not chosen:
        names = ", ".join(source.name for source in sources)
        raise ConfigError(
            f"--source {config.source!r} is no source of {run.path}, which has "
            f"{names or 'none'}; name one of them, or leave it out"
        )
    return chosen[0].prompts


def prompt_warnings(config: EvaluateConfig, texts: Manifest | None) -> list[str]:
    """A warning where sources have different prompts and none is named."""
    sources = () if texts is None else stored_sources(texts)
    if config.source is not None or not prompts_differ(sources):
        return []
    names = ", ".join(source.name for source in sources)
    return [
        f"the sources of this run have different prompts ({names}), the data was encoded with "
        "those of each model; give --source NAME for the prompts of one"
    ]


def default_models(run: RunDir, option: str = "--models") -> list[str]:
    """The model that training began with or that embedded round 1, and the one that was trained.

    Args:
        run: The run.
        option: What names models instead.

    Raises:
        ConfigError: There is neither.
    """
    embeddings = _embeddings(run.first_round)
    if is_begun(run, "model"):
        trained = read_finished(run, "model")
        if run.checks_all:
            trained.refuse_damage(full=True)
        return [trained.extra["base_model"], str(trained.folder)]
    base = DEFAULT_MODEL if embeddings is None else embeddings.extra["model"]
    if not base:
        raise ConfigError(
            f"expected {option}, found none, and {run.path} was embedded without a model; name one"
        )
    return [base]


def refuse_dims(dims: Sequence[int], models: Sequence[JudgedModel]) -> None:
    """Refuse more dimensions than a model has.

    Raises:
        ConfigError: One has fewer.
    """
    for one in models:
        most = embedding_dim(one.encoder.model)
        if dims and max(dims) > most:
            raise ConfigError(
                f"--dims must be at most the {most} dimensions of the model {one.name!r}, "
                f"found {max(dims)}; give smaller ones, or evaluate that model by itself"
            )
