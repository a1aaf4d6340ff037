"""YAML that came from a person or a stranger: plain values, bounded, each key once.

What is written here reads back as it was, whatever characters it holds.
"""

from pathlib import Path
from typing import Any

import yaml

from stx_mine.errors import one_line
from stx_mine.store.small_files import read_small

# That of libyaml where PyYAML has it, which is many times as fast.
_Safe = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LINE_ENDS = frozenset("\n\x85\u2028\u2029")
_MOST_BYTES, _MOST_LEVELS, _MOST_VALUES = 1 << 20, 32, 100_000


class _Loader(_Safe):  # type: ignore[misc,valid-type]
    """Builds plain values, and refuses a mapping that has a key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, each key of which stands once; one that is merged in may be overridden."""
        taken = set[str]()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in taken:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} stands twice", key.start_mark
                )
            taken.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


class _Dumper(yaml.SafeDumper):
    """Writes plain values; a text with an end of line in double quotes, which alone keep each."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """A text; YAML knows four ends of a line, and folds those that no quotes escape."""
        if _LINE_ENDS.intersection(data):
            return self.represent_scalar("tag:yaml.org,2002:str", data, style='"')
        return super().represent_str(data)


_Dumper.add_representer(str, _Dumper.represent_str)


def dump_yaml(value: Any, **options: Any) -> str:
    """A YAML document of plain values, keys in their order; `options` are those of PyYAML."""
    written: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options)
    return written


def parse_yaml(text: str) -> Any:
    """The value of a YAML document; None for an empty one.

    Raises:
        ValueError: It is no YAML, has a key twice, or is deeper, longer or, its aliases written
            out, larger than any file of ours. The message is one line.
    """
    if len(text) > _MOST_BYTES:
        raise ValueError(f"it is longer than {_MOST_BYTES:,} characters")
    try:
        levels = 0
        for number, event in enumerate(yaml.parse(text, Loader=_Safe)):
            if number > 2 * _MOST_VALUES:
                raise ValueError(f"it holds more than {_MOST_VALUES:,} values")
            levels += isinstance(event, yaml.CollectionStartEvent)
            levels -= isinstance(event, yaml.CollectionEndEvent)
            if levels > _MOST_LEVELS:
                raise ValueError(f"it is nested more than {_MOST_LEVELS} levels deep")
        node = yaml.compose(text, Loader=_Safe)
        if node is not None and _num_values(node, {}, set()) > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES:,} values, aliases written out")
        return _Loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(one_line(error)) from error


def read_yaml(path: Path) -> Any:
    """The value of a YAML file.

    Raises:
        OSError: It cannot be read, or is no plain file.
        ValueError: As of `parse_yaml`; or it is no UTF-8, or longer than any of ours.
    """
    return parse_yaml(read_small(path, _MOST_BYTES))


def _num_values(node: yaml.Node, known: dict[yaml.Node, int], within: set[yaml.Node]) -> int:
    """Values below a node, those of an alias as often as it stands."""
    if node in within:
        raise ValueError("an alias stands within what it names")
    if node in known:
        return known[node]
    parts = node.value if isinstance(node, yaml.CollectionNode) else []
    flat = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
    within.add(node)
    found = 1 + sum(_num_values(part, known, within) for part in flat)
    within.remove(node)
    known[node] = found
    return found
