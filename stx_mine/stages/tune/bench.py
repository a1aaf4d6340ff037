"""Where trials are run: a policy mined, packed, trained and evaluated, with what it took."""

import gc
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stx_mine.errors import StxMineError, one_line
from stx_mine.models.load import is_static
from stx_mine.stages.embed.config import DEFAULT_MODEL
from stx_mine.stages.evaluate.config import EvaluateConfig
from stx_mine.stages.evaluate.judged_models import JudgedModel, load_models
from stx_mine.stages.evaluate.model_metrics import evaluate
from stx_mine.stages.mine.config import MineConfig
from stx_mine.stages.mine.stage import run_mine
from stx_mine.stages.pack.config import PackConfig
from stx_mine.stages.pack.stage import run_pack
from stx_mine.stages.train.config import TrainConfig
from stx_mine.stages.train.stage import run_train
from stx_mine.stages.tune.core.policies import Settings, TunedPolicy, merged
from stx_mine.stages.tune.preparation import Preparation, without_evaluation
from stx_mine.stages.tune.trials import PolicyTrial
from stx_mine.store.artifact import require
from stx_mine.store.files import read_json, write_array, write_json
from stx_mine.store.manifest import digest_of

# No checkpoint of a trial is continued.
_NEVER = 1_000_000_000


@dataclass(frozen=True)
class TrialBench:
    """Where trials are run, and kept as soon as they end.

    Attributes:
        preparation: What they start from.
        folder: Where they are kept.
        metric: What is measured.
    """

    preparation: Preparation
    folder: Path
    metric: str

    @property
    def _device(self) -> str | None:
        device: str | None = self.base["train"].get("device")
        return device

    @property
    def base(self) -> Settings:
        """The settings that policies change."""
        return self.preparation.ground.settings

    def run(self, policy: TunedPolicy, share: float, seed: int) -> PolicyTrial:
        """Run a trial, unless it was run before.

        Args:
            policy: What to try.
            share: Of the steps of the whole training.
            seed: Of packing and training.
        """
        path = self._path(policy, share, seed)
        if path.exists():
            return PolicyTrial.of_json(read_json(path))
        began = time.monotonic()
        try:
            trial, values_Q = self._measure(policy, share, seed)
        except StxMineError as error:
            if not policy.changes:
                # The file itself cannot be run: nothing can be compared with it.
                raise
            changes = merged({}, policy.changes)
            trial = PolicyTrial(changes=changes, seed=seed, share=share, failure=one_line(error))
        else:
            write_array(path.with_suffix(".npy"), values_Q)
        content = {**asdict(trial), "seconds": round(time.monotonic() - began, 3)}
        write_json(path, content)
        # A Trainer refers to itself: what it held is free only now.
        gc.collect()
        return PolicyTrial.of_json(content)

    def values(self, trial: PolicyTrial) -> NDArray[np.float64]:
        """Metric of each query of a trial that was run."""
        path = self._path(trial.policy, trial.share, trial.seed).with_suffix(".npy")
        values: NDArray[np.float64] = np.load(path, allow_pickle=False)
        return values

    def untrained(self) -> tuple[NDArray[np.float64], bool]:
        """Metric of each query of the model that training starts from; whether it is static."""
        student = self._student()
        return self._evaluated(student), is_static(student.encoder.model)

    def _student(self) -> JudgedModel:
        """The model that training starts from."""
        embed = require(self.preparation.run, "embeddings").content["config"]
        train = self.base["train"]
        if train.get("model") is None:
            return self._loaded(embed.get("model", DEFAULT_MODEL))
        asked = {name: train[name] for name in ("revision", "pooling") if name in train}
        return self._loaded(train["model"], **asked)

    def _path(self, policy: TunedPolicy, share: float, seed: int) -> Path:
        key = digest_of({"changes": policy.changes, "share": share, "seed": seed})
        return self.folder / f"{key}.json"

    def _measure(
        self, policy: TunedPolicy, share: float, seed: int
    ) -> tuple[PolicyTrial, NDArray[np.float64]]:
        run, settings = str(self.preparation.run.path), policy.settings(self.base)
        run_mine(MineConfig(run_dir=run, **settings["mine"]))
        pack = {**settings["pack"], "seed": seed}
        packed = run_pack(PackConfig(run_dir=run, overwrite=True, **pack)).counts
        whole = self._whole_steps(policy, packed["batches"], packed["packings"])
        steps = max(1, round(whole * share))
        train = {**without_evaluation(settings["train"]), "seed": seed, "steps": steps}
        trained = run_train(
            TrainConfig(run_dir=run, overwrite=True, checkpoint_steps=_NEVER, **train)
        ).counts
        values_Q = self._evaluated(self._loaded(str(self.preparation.run.folder("model"))))
        k = int(require(self.preparation.run, "batches").extra["k"])
        trial = PolicyTrial(
            changes=merged({}, policy.changes),
            seed=seed,
            share=share,
            steps=steps,
            whole_steps=whole,
            k=k,
            batch_size=trained["batch_size"],
            learning_rate=trained["learning_rate"],
            training_seconds=trained["seconds"],
            whole_seconds=self._whole_seconds(policy, k, trained["seconds"] * whole / steps),
            mean=float(values_Q.mean()),
        )
        return trial, values_Q

    def _whole_steps(self, policy: TunedPolicy, batches: int, packings: int) -> int:
        """Optimizer steps of the whole training: as many rows, whatever the size of a batch."""
        train, ground = policy.settings(self.base)["train"], self.preparation.ground
        if train.get("steps") is not None:
            rows = int(train["steps"]) * ground.batch_size
            return max(1, rows // ground.batch_size_of(policy))
        return batches * int(train.get("epochs") or packings)

    def _whole_seconds(self, policy: TunedPolicy, k: int, training: float) -> float:
        """From texts to model; without negatives nothing is searched, and no judge is asked."""
        run, parts = self.preparation.run, ["batches", *(["negatives"] if k else [])]
        made = sum(float(require(run, name).content["took"]["seconds"]) for name in parts)
        took, asks = self.preparation.seconds, self.preparation.ground.asks(policy)
        found = (took.search if k else 0.0) + (took.judge if asks else 0.0)
        return took.embed + found + made + training

    def _loaded(self, model: str, **reading: Any) -> JudgedModel:
        """A model to evaluate.

        Args:
            model: Its name; the one that embedded is read as it was then.
            reading: How the files of another one are read.
        """
        run = self.preparation.run
        config = EvaluateConfig(
            run_dir=str(run.path), models=(model,), device=self._device, **reading
        )
        return load_models(config, run, require(run, "texts"))[0]

    def _evaluated(self, model: JudgedModel) -> NDArray[np.float64]:
        """float64 (Q,): the queries of all sets, each set of the same weight."""
        sets = self.preparation.sets
        values = [
            evaluate(model.encoder, one, self._device, model.prompts)[self.metric] for one in sets
        ]
        total = sum(map(len, values))
        return np.concatenate([one * (total / (len(sets) * len(one))) for one in values])
