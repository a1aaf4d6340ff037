"""The pipeline that is tuned: its stages that play a part, and the file of the winner."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stx_mine.errors import ConfigError
from stx_mine.inputs.stage_settings import read_stage_settings, typed_value
from stx_mine.masking import escaped, masked
from stx_mine.settings import StageConfig
from stx_mine.stages.dedup.config import DedupConfig
from stx_mine.stages.embed.config import EmbedConfig
from stx_mine.stages.index.config import IndexConfig
from stx_mine.stages.judge.config import JudgeConfig
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.queries.config import QueriesConfig
from stx_mine.stages.split.config import SplitConfig
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.tune.core.policies import Settings, merged
from stx_mine.store.safe_yaml import dump_yaml, parse_yaml, read_yaml

# In the order in which they run; queries and split make the input of the others.
STAGES: dict[str, type[StageConfig]] = {
    "queries": QueriesConfig,
    "split": SplitConfig,
    "embed": EmbedConfig,
    "dedup": DedupConfig,
    "index": IndexConfig,
    "mine": MineConfig,
    "judge": JudgeConfig,
    "pack": PackConfig,
    "train": TrainConfig,
}
_NEEDED = ("embed", "train")
_VARIED = ("mine", "pack", "train")


@dataclass(frozen=True)
class TunedPipeline:
    """A pipeline file as far as it is tuned.

    Attributes:
        file: Its path.
        run_dir: Its run directory.
        settings: Fields of the stages that play a part, in the order in which they run.
        notes: What of the file plays no part, as sentences.
    """

    file: str
    run_dir: str
    settings: dict[str, dict[str, Any]]
    notes: list[str]

    @classmethod
    def read(cls, file: str, data: tuple[str, ...]) -> "TunedPipeline":
        """Read and check a file.

        Args:
            file: The pipeline file.
            data: Held-out data to evaluate on instead of those of the file.

        Raises:
            ConfigError: It is missing or malformed, has no stage that trains, or embeds nothing.
        """
        read = read_stage_settings(file, [], STAGES, leave_others=True)
        for name in _NEEDED:
            if name not in read.settings:
                raise ConfigError(
                    f"expected the stage {name} in {file}, found {', '.join(read.settings)}; tune "
                    "takes a pipeline that embeds and trains, as `stx-mine init` writes it"
                )
        settings = {name: dict(fields) for name, fields in read.settings.items()}
        settings.setdefault("mine", {})
        settings.setdefault("pack", {})
        left_out = [f"the stages {', '.join(read.others)}"] if read.others else []
        if read.rounds > 1:
            left_out.append(f"rounds 2 to {read.rounds}")
        if "judge" in settings:
            judge = JudgeConfig(run_dir=read.run_dir, **settings["judge"])
            settings["mine"].setdefault("judges", (judge.judge_name,))
        if data:
            settings["train"] = {
                name: value
                for name, value in settings["train"].items()
                if name not in ("evaluation_split", "evaluation_corpus")
            }
            settings["train"]["evaluation"] = data
        notes = [f"not tuned: {'; '.join(left_out)}"] if left_out else []
        if corpus := _corpus_to_search(settings["embed"], settings["train"]):
            settings["train"]["evaluation_corpus"] = corpus
            notes.append(
                f"the passages of {corpus} are searched beside those of the held-out pairs"
            )
        return cls(file, read.run_dir, {n: settings[n] for n in STAGES if n in settings}, notes)

    def json(self) -> dict[str, dict[str, Any]]:
        """The settings, JSON-ready."""
        found: dict[str, dict[str, Any]] = json.loads(json.dumps(self.settings, default=asdict))
        return found

    def text_with(self, changes: Settings, head: list[str]) -> str:
        """The text of the file with changes; its comments are not kept.

        Args:
            changes: Stage -> field -> value.
            head: What stands above it, a line each.

        Raises:
            ConfigError: The file has changed since, and cannot be read.
        """
        content = read_yaml(Path(self.file))
        own = {stage: fields or {} for stage, fields in content.items() if stage in STAGES}
        others = {name: value for name, value in content.items() if name not in STAGES}
        whole = _in_order({**others, **merged(own, _plain(changes))}, content)
        if not changes.get("mine", {}).get("judges", True):
            # Nobody would read what it says, and where nothing is mined there is nothing to ask.
            whole.pop("judge", None)
        comment = "".join(f"# {escaped(masked(one))}\n" for one in head)
        return comment + dump_yaml(whole)


def _corpus_to_search(embed: Mapping[str, Any], train: Mapping[str, Any]) -> str | None:
    """The corpus of the run, where held-out pairs would be searched among their own passages."""
    data, corpus = train.get("evaluation") or (), embed.get("corpus")
    is_file = [Path(one).is_file() for one in (*data, corpus or "")]
    searches_own = bool(data) and train.get("evaluation_corpus") is None and all(is_file)
    return str(corpus) if searches_own else None


def axes_of(vary: Sequence[str]) -> dict[tuple[str, str], list[Any]]:
    """(stage, field) -> values, of `STAGE.FIELD=VALUE,VALUE`.

    Raises:
        ConfigError: There is no such stage or field, or a value does not fit.
    """
    axes: dict[tuple[str, str], list[Any]] = {}
    for word in vary:
        name, _, values = word.partition("=")
        stage, _, field = name.partition(".")
        if stage not in _VARIED:
            raise ConfigError(
                f"--vary {word!r} names no stage that is tuned; there are {', '.join(_VARIED)}"
            )
        axes.setdefault((stage, field), []).extend(
            typed_value(stage, STAGES[stage], field, parse_yaml(one)) for one in values.split(",")
        )
    return axes


def _in_order(whole: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """Stages as they stand in the file; those that came with changes before what follows them."""
    new = [name for name in whole if name not in content]
    found: dict[str, Any] = {}
    for name in content:
        before = [
            one for one in new if name in STAGES and [*STAGES].index(one) < [*STAGES].index(name)
        ]
        found |= {one: whole[one] for one in before if one not in found}
        found[name] = whole[name]
    return {**found, **{one: whole[one] for one in new}}


def _plain(changes: Settings) -> dict[str, dict[str, Any]]:
    """Values as YAML has them."""
    return {
        stage: {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}
        for stage, fields in changes.items()
    }
