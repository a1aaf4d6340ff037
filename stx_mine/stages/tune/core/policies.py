"""Policies: what is tried, as changes of the settings of a pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stx_mine.stages.pack.core.useful_packings import useful_packings
from stx_mine.stages.train.core.learning_rate import rate_of_size

# Stage -> field -> value.
Settings = Mapping[str, Mapping[str, Any]]
# A batch that is larger leaves fewer steps a pass than this; one that is smaller has too few rows.
_FEWEST_STEPS, _SMALLEST_BATCH = 5, 16
# How much larger and smaller batches are tried.
_FACTOR = 4
_DEFAULT_K = 8
# How many times as many passes are tried; five times gained most on four sets of five.
_LONGER = (2, 5)
# Changes that are tried whatever a policy trains on, and those of which negatives it has.
_OF_TRAINING: tuple[dict[str, Any], ...] = (
    {"mask_above": 0.1},
    {"weight": "logq"},
    {"merge_with_base": 0.7},
)
_OF_MINING: tuple[dict[str, Any], ...] = (
    {"closeness": 0.7, "relative_margin": None},
    {"range_min": 10},
    {"sampling": "random"},
)
AS_GIVEN = "as in the file"


@dataclass(frozen=True)
class TunedPolicy:
    """Changes of a pipeline.

    Attributes:
        changes: What differs from its file; nothing in the file itself.
    """

    changes: Settings

    @property
    def name(self) -> str:
        """What differs, in words."""
        words = [
            f"{field.replace('_', ' ')} {_word(value)}"
            for fields in self.changes.values()
            for field, value in fields.items()
        ]
        return ", ".join(dict.fromkeys(words)) or AS_GIVEN

    @property
    def overrides(self) -> list[str]:
        """The same as `stx-mine run --set` takes it."""
        return [
            f"{stage}.{field}={_word(value)}"
            for stage, fields in self.changes.items()
            for field, value in fields.items()
        ]

    def settings(self, base: Settings) -> dict[str, dict[str, Any]]:
        """The settings of a pipeline, with these changes."""
        return merged(base, self.changes)

    def get(self, base: Settings, stage: str, field: str, default: Any) -> Any:
        """What a field of a pipeline is with these changes."""
        value = self.settings(base).get(stage, {}).get(field)
        return default if value is None else value

    def beside(self, other: "TunedPolicy") -> Settings:
        """What this policy changes that another one does not change so."""
        found: dict[str, dict[str, Any]] = {}
        for stage, fields in self.changes.items():
            same = other.changes.get(stage, {})
            own = {name: v for name, v in fields.items() if name not in same or same[name] != v}
            if own:
                found[stage] = own
        return found

    def changed(self, *changes: Settings) -> "TunedPolicy":
        """This policy with more changes; the last one counts."""
        found: Settings = self.changes
        for one in changes:
            found = merged(found, one)
        return TunedPolicy(found)


def merged(base: Settings, changes: Settings) -> dict[str, dict[str, Any]]:
    """Settings with changes; a stage that comes with them stands last."""
    found = {stage: dict(fields) for stage, fields in base.items()}
    for stage, fields in changes.items():
        found[stage] = {**found.get(stage, {}), **fields}
    return found


def _word(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Ground:
    """What the policies start from.

    Attributes:
        settings: Of the pipeline, by stage.
        k: Negatives of a row.
        batch_size: Rows of a step.
        num_rows: Rows to train on.
        passes: Passes over them.
        judges: Names of the judgements that are there.
        unjudged: Fields of `mine` by which no judge is asked.
        learning_rate: For batches of `batch_size` rows, where it is another than that of the file
            or the file names one; None: as the file says.
        static: Whether a static model is trained.
    """

    settings: Settings
    k: int
    batch_size: int
    num_rows: int
    passes: int
    judges: tuple[str, ...] = ()
    unjudged: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    static: bool = False

    def k_of(self, policy: TunedPolicy) -> int:
        """Negatives of a row of a policy."""
        mined = policy.get(self.settings, "mine", "k", _DEFAULT_K)
        return int(policy.get(self.settings, "pack", "k", mined))

    def passes_of(self, policy: TunedPolicy) -> int:
        """Passes over the rows of a policy."""
        return int(policy.get(self.settings, "train", "epochs", self.passes))

    def negatives(self, k: int) -> dict[str, dict[str, Any]]:
        """The changes that give every row k negatives."""
        changes: dict[str, dict[str, Any]] = {"mine": {"k": k}}
        if not k and self.asks(TunedPolicy({})):
            # There is nothing to ask judges about.
            changes["mine"] |= self.unjudged
        if self.settings.get("pack", {}).get("k") is not None:
            changes["pack"] = {"k": k}
        return changes

    def asks(self, policy: TunedPolicy) -> bool:
        """Whether judges decide in a policy."""
        return bool(policy.get(self.settings, "mine", "judges", ()))

    def rows(self, batch_size: int) -> dict[str, dict[str, Any]]:
        """The changes that give a batch so many rows, and the rate that goes with them.

        A rate follows the size as `--learning-rate auto` does.
        """
        changes: dict[str, dict[str, Any]] = {}
        if batch_size != self.batch_size:
            changes["pack"] = {"batch_size": batch_size}
        if self.learning_rate is not None:
            rate = rate_of_size(self.learning_rate, self.batch_size, batch_size, self.static)
            rate = float(f"{rate:.3g}")
            if rate != self.settings.get("train", {}).get("learning_rate"):
                changes["train"] = {"learning_rate": rate}
        return changes

    def batch_size_of(self, policy: TunedPolicy) -> int:
        """Rows of a step of a policy."""
        return int(policy.get(self.settings, "pack", "batch_size", self.batch_size))


def first_policies(ground: Ground) -> list[TunedPolicy]:
    """The file itself, then none, one and all of its negatives in batches of three sizes."""
    size = ground.batch_size
    sizes = [size]
    if ground.num_rows // (_FACTOR * size) >= _FEWEST_STEPS:
        sizes.append(_FACTOR * size)
    if size // _FACTOR >= _SMALLEST_BATCH:
        sizes.append(size // _FACTOR)
    policies = [TunedPolicy({})]
    for rows in sizes:
        for k in dict.fromkeys((ground.k or _DEFAULT_K, 0, 1)):
            policy = TunedPolicy(ground.rows(rows))
            policies.append(policy if k == ground.k else policy.changed(ground.negatives(k)))
    return distinct_policies(policies)


def refinements(ground: Ground, leader: TunedPolicy, learning_rate: float) -> list[Settings]:
    """One change each, of what may suit the leader better.

    Args:
        ground: What the policies start from.
        leader: The best policy so far.
        learning_rate: Its peak rate.
    """
    temperature = float(leader.get(ground.settings, "train", "temperature", 0.05))
    found: list[Settings] = _longer(ground, leader)
    found += [one.changes for one in other_rates(learning_rate)]
    found += [{"train": {"temperature": temperature * factor}} for factor in (2, 0.5)]
    found += [{"train": change} for change in _OF_TRAINING]
    if ground.k_of(leader):
        found += _other_negatives(ground, leader)
    return found


def longer_as_given(ground: Ground, leader: TunedPolicy) -> list[TunedPolicy]:
    """More passes in batches of the file, where the leader has others.

    Short trainings favour small batches, which have more steps; longer ones need not.
    """
    if ground.batch_size_of(leader) == ground.batch_size:
        return []
    as_given = TunedPolicy(ground.rows(ground.batch_size))
    return [as_given.changed(one) for one in _longer(ground, as_given)]


def _longer(ground: Ground, policy: TunedPolicy) -> list[Settings]:
    """The changes that train for more passes, each with batches of its own while they are few.

    None where a pipeline says its steps.
    """
    if ground.settings.get("train", {}).get("steps") is not None:
        return []
    passes = [factor * ground.passes_of(policy) for factor in _LONGER]
    return [
        {"pack": {"packings": useful_packings(one)}, "train": {"epochs": one}} for one in passes
    ]


def _other_negatives(ground: Ground, leader: TunedPolicy) -> list[Settings]:
    """One change each of which negatives rows have."""
    margin = leader.get(ground.settings, "mine", "relative_margin", 0.05)
    margins = [{"relative_margin": value} for value in (0.0, 0.05, 0.15) if value != margin]
    found: list[Settings] = [{"mine": change} for change in (*margins, *_OF_MINING)]
    asked = leader.get(ground.settings, "mine", "negatives_from", "auto")
    found += [{"mine": {"negatives_from": one}} for one in ("positives", "corpus") if one != asked]
    if ground.k_of(leader) > 2:
        found.append(ground.negatives(ground.k_of(leader) // 2))
    if ground.asks(leader):
        found.append({"mine": dict(ground.unjudged)})
    else:
        found += [{"mine": {"judges": (name,)}} for name in ground.judges]
    return found


def other_rates(learning_rate: float) -> list[TunedPolicy]:
    """Twice and half a rate."""
    rates = (float(f"{learning_rate * factor:.3g}") for factor in (2, 0.5))
    return [TunedPolicy({"train": {"learning_rate": rate}}) for rate in rates]


def varied(ground: Ground, axes: Mapping[tuple[str, str], Sequence[Any]]) -> list[TunedPolicy]:
    """The file itself, and one change each of what a person asked to vary.

    Args:
        ground: What the policies start from.
        axes: (stage, field) -> values.
    """
    policies = [TunedPolicy({})]
    for (stage, name), values in axes.items():
        own = ground.settings.get(stage, {}).get(name)
        of_k = (stage, name) == ("mine", "k")
        policies += [
            TunedPolicy(ground.negatives(value) if of_k else {stage: {name: value}})
            for value in values
            if value != own
        ]
    return distinct_policies(policies)


def combinations(leader: TunedPolicy, helpful: Sequence[Settings]) -> list[TunedPolicy]:
    """The leader with several changes that helped it, each by itself.

    Args:
        leader: The policy that they changed.
        helpful: The changes, the most helpful first.
    """
    # Of two values of one field the better one counts.
    chosen: list[Settings] = []
    taken: set[tuple[str, str]] = set()
    for one in helpful:
        fields = {(stage, field) for stage, some in one.items() for field in some}
        if not fields & taken:
            chosen.append(one)
            taken |= fields
    return distinct_policies([leader.changed(*chosen[:many]) for many in range(2, len(chosen) + 1)])


def distinct_policies(policies: Sequence[TunedPolicy]) -> list[TunedPolicy]:
    """Each policy once, in order."""
    return list({one.name: one for one in policies}.values())
