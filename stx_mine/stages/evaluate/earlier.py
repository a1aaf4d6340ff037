"""An earlier evaluation of the same name: other settings never replace it unasked.

*Settings* are what the user asks for: the data, how it is read, the models by name, what they are
judged with, dimensions, the seed. *Inputs* are what that finds: the content of the data, the
weights of the models, the texts of the run. Other inputs renew an evaluation, and that is said;
other settings are refused.
"""

from pathlib import Path
from typing import Any

from stx_mine.errors import ArtifactError
from stx_mine.settings import key_defaults
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.store.artifact import PLAN, Artifact
from stx_mine.store.files import read_json
from stx_mine.store.kinds import KINDS
from stx_mine.store.run_dir import RunDir

# The input that is the content of the data, and the setting that is what models are judged with.
CONTENT, JUDGED_WITH = "content", "judged_with"
# Settings of which more may be asked for: nothing that was there is lost.
_GROWING = ("models", "dims", "sets")
# Settings that say where content lies; the same content elsewhere is the same data.
_PLACES = ("data", "corpus")
_MODEL = "model "


def model_input(name: str) -> str:
    """The name of the input that a model is."""
    return _MODEL + name


class EarlierEvaluation:
    """The plan of an evaluation that is there already.

    Attributes:
        fields: Its settings.
        inputs: Digests of its inputs, by name.
    """

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self._folder, self._schema = folder, plan.get("schema")
        self.fields: dict[str, Any] = plan.get("fields", {})
        self.inputs: dict[str, str] = plan.get("inputs", {})

    @classmethod
    def find(cls, folder: Path) -> "EarlierEvaluation | None":
        """The evaluation in a folder, finished or not; None where there is none."""
        path = folder / PLAN
        return cls(folder, read_json(path)) if path.exists() else None

    def settings_of(self, fields: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
        """The settings, with the places of data whose content is the same as they were."""
        if inputs.get(CONTENT) != self.inputs.get(CONTENT):
            return fields
        places = [name for name in _PLACES if name in fields and name in self.fields]
        return {**fields, **{name: self.fields[name] for name in places}}

    def refuse(self, fields: dict[str, Any], inputs: dict[str, str]) -> None:
        """Refuse to replace it by an evaluation with other settings.

        Args:
            fields: The settings.
            inputs: Digests of the inputs, by name.

        Raises:
            ArtifactError: Settings differ; the message names them.
        """
        if self._schema != KINDS["evaluations"].schema:
            differences = ["it was made by another version, which counts otherwise"]
        else:
            differences = self._differences(self.settings_of(fields, inputs))
        if differences:
            raise ArtifactError(
                f"{self._folder}/ is an evaluation with other settings: {'; '.join(differences)}; "
                "give --name NAME to keep both, or --overwrite to replace it"
            )

    def _differences(self, fields: dict[str, Any]) -> list[str]:
        """Settings of which something would be lost, in words."""
        defaults = {
            **key_defaults(EvaluateConfig, "evaluations"),
            **key_defaults(EvaluateConfig, "texts"),
        }
        before, after = _flat({**defaults, **self.fields}), _flat({**defaults, **fields})
        return [
            f"{name} was {before.get(name)!r} and is {after.get(name)!r} now"
            for name in {**before, **after}
            if not _is_kept(name, before, after)
        ]

    def renewed_by(self, inputs: dict[str, str]) -> list[str]:
        """What has changed or come since, in words."""
        named = {CONTENT: "the content of the data"}
        return [
            named.get(name, name if name.startswith(_MODEL) else f"{name}/")
            for name in {**self.inputs, **inputs}
            if self.inputs.get(name) != inputs.get(name)
        ]


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    """Settings by name; what each model is judged with as settings of its own."""
    found = {name: value for name, value in fields.items() if name != JUDGED_WITH}
    for model, how in fields.get(JUDGED_WITH, {}).items():
        for name, value in how.items():
            found[f"the {name.replace('_', ' ')} of {model}"] = value
    return found


def _is_kept(name: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether nothing of an earlier setting is lost."""
    if name in _GROWING:
        return set(before.get(name) or ()) <= set(after.get(name) or ())
    # A model that was not there has lost nothing; one that is gone stands in `models`.
    is_of_model = name.startswith("the ")
    if is_of_model and (name not in before or name not in after):
        return True
    return bool(before.get(name) == after.get(name))


def open_evaluation(
    config: EvaluateConfig, run: RunDir, name: str, fields: dict[str, Any], inputs: dict[str, str]
) -> tuple[Artifact, list[str]]:
    """Open the artifact of an evaluation.

    Args:
        config: The config.
        run: The run.
        name: Name of the evaluation.
        fields: The settings.
        inputs: Digests of the inputs, by name.

    Returns:
        The artifact, and what has changed since an earlier one of its name, in words.

    Raises:
        ArtifactError: One of other settings is there, and is not to be replaced.
    """
    earlier = EarlierEvaluation.find(run.folder("evaluations", name))
    renewed_by: list[str] = []
    if earlier is not None:
        if not config.overwrite:
            earlier.refuse(fields, inputs)
        fields = earlier.settings_of(fields, inputs)
        renewed_by = [] if config.overwrite else earlier.renewed_by(inputs)
    artifact = Artifact(
        run,
        "evaluations",
        config,
        fields=fields,
        inputs=inputs,
        overwrite=config.overwrite,
        subfolder=name,
    )
    return artifact, renewed_by
