"""Policies: what is tried, as changes of the settings of a pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Stage -> field -> value.
Settings = Mapping[str, Mapping[str, Any]]
# A batch that is larger leaves fewer steps a pass than this; one that is smaller has too few rows.
_FEWEST_STEPS, _SMALLEST_BATCH = 5, 16
# How much larger and smaller batches are tried.
_FACTOR = 4
_DEFAULT_K = 8
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
    """

    settings: Settings
    k: int
    batch_size: int
    num_rows: int
    passes: int

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
        if self.settings.get("pack", {}).get("k") is not None:
            changes["pack"] = {"k": k}
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
            changes: dict[str, dict[str, Any]] = {}
            if k != ground.k:
                changes = ground.negatives(k)
            if rows != size:
                changes["pack"] = {**changes.get("pack", {}), "batch_size": rows}
            policies.append(TunedPolicy(changes))
    return distinct_policies(policies)


def refinements(ground: Ground, leader: TunedPolicy, learning_rate: float) -> list[Settings]:
    """One change each, of what may suit the leader better.

    Args:
        ground: What the policies start from.
        leader: The best policy so far.
        learning_rate: Its peak rate.
    """
    temperature = float(leader.get(ground.settings, "train", "temperature", 0.05))
    found: list[Settings] = [
        {"train": {"learning_rate": float(f"{learning_rate * factor:.3g}")}} for factor in (2, 0.5)
    ]
    found += [{"train": {"temperature": temperature * factor}} for factor in (2, 0.5)]
    if ground.settings.get("train", {}).get("steps") is None:
        found.append({"train": {"epochs": 2 * ground.passes_of(leader)}})
    found += [{"train": {"mask_above": 0.1}}, {"train": {"merge_with_base": 0.7}}]
    if ground.k_of(leader):
        margin = leader.get(ground.settings, "mine", "relative_margin", 0.05)
        found += [
            {"mine": {"relative_margin": value}} for value in (0.0, 0.05, 0.15) if value != margin
        ]
        found += [{"mine": {"range_min": 10}}, {"mine": {"sampling": "random"}}]
    return found


def varied(ground: Ground, axes: Mapping[tuple[str, str], Sequence[Any]]) -> list[TunedPolicy]:
    """The file itself, and one change each of what a person asked to vary.

    Args:
        ground: What the policies start from.
        axes: (stage, field) -> values.
    """
    policies = [TunedPolicy({})]
    for (stage, field), values in axes.items():
        own = ground.settings.get(stage, {}).get(field)
        policies += [TunedPolicy({stage: {field: value}}) for value in values if value != own]
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
