"""Mutation testing of the pure cores: change one operator at a time; the quick tests must notice.

    python tests/attack/mutate.py [--core verify] [--sample 150] [--seconds 600] [--output X.json]

A mutant replaces the code of one function in a forked process, in which the tests of its core that
need no fixture then run, the quick ones first, without compilation (NUMBA_DISABLE_JIT=1). A failing
test, a crash or a test that no longer ends kills it. Times are of the processor. Survivors that no
test can kill are listed with the reason in `mutants.yaml`; they count apart. mutmut leaves out
decorated functions, which all kernels are, and cosmic-ray starts a process for each mutant, which
takes longer than most of these tests.
"""

import argparse
import ast
import copy
import importlib.util
import inspect
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

os.environ["NUMBA_DISABLE_JIT"] = "1"
TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
_MEMORY, _EXAMPLES = 8 << 30, 25
KNOWN = Path(__file__).with_name("mutants.yaml")
_PACK, _VERIFY = "stx_mine.stages.pack.core", "stx_mine.stages.verify.core"
CORES: dict[str, tuple[list[str], list[str]]] = {
    "select": (
        ["stx_mine.stages.mine.core.select", "stx_mine.stages.mine.core.uses"],
        ["stages/mine/test_select.py", "stages/mine/test_select_limits.py"],
    ),
    "assign": (
        [f"{_PACK}.{name}" for name in ("assign", "strict_fill", "strict_rows", "bounds")],
        [
            f"stages/pack/test_{name}.py"
            for name in ("assign", "strict_fill", "strict_rows", "bounds", "merge_swaps")
        ],
    ),
    "bind": (
        [f"{_PACK}.bind", "stx_mine.core.forbidden"],
        ["stages/pack/test_assign.py", "stages/pack/test_bind.py"],
    ),
    "verify": (
        [f"{_VERIFY}.{name}" for name in ("batches", "ignored", "labels", "sets", "rows")],
        [
            f"stages/verify/test_verify_{name}.py"
            for name in ("batches", "labels", "rows", "sets", "slots")
        ],
    ),
}
"""Core -> its modules, and the files of tests that are nearest to them."""

_COMPARED: dict[type[ast.cmpop], list[type[ast.cmpop]]] = {
    ast.Lt: [ast.LtE, ast.GtE],
    ast.LtE: [ast.Lt, ast.Gt],
    ast.Gt: [ast.GtE, ast.LtE],
    ast.GtE: [ast.Gt, ast.Lt],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True)
class Mutant:
    """One change: `before` -> `after`, the `nth` such change in the function."""

    module: str
    function: str
    line: int
    before: str
    after: str
    nth: int = 0

    @property
    def name(self) -> str:
        """What `mutants.yaml` calls it; it holds no number of a line."""
        again = f" #{self.nth + 1}" if self.nth else ""
        module = self.module.removeprefix("stx_mine.")
        return f"{module}.{self.function}: {self.before} -> {self.after}{again}"


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """Every changed form of a node."""
    yield from _other_operators(node)
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.Continue | ast.Break | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()
    elif isinstance(node, ast.If | ast.While) and isinstance(node.test, ast.Name | ast.Subscript):
        changed = copy.copy(node)
        changed.test = ast.UnaryOp(ast.Not(), node.test)
        yield changed


def _other_operators(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for place, old in enumerate(node.ops):
            for new in _COMPARED.get(type(old), []):
                ops = [*node.ops[:place], new(), *node.ops[place + 1 :]]
                yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _COMPUTED:
        changed = copy.copy(node)
        changed.op = _COMPUTED[type(node.op)]()
        yield changed
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for one in node.body:
                if isinstance(one, ast.FunctionDef):
                    yield f"{node.name}.{one.name}", one


def _inside(node: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """(parent, field, place in a list) of every node below the body of a function."""
    for name, value in ast.iter_fields(node):
        if name in ("decorator_list", "args", "returns", "annotation"):
            continue
        for place, one in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(one, ast.AST):
                yield node, name, place
                yield from _inside(one)


def _short(node: ast.AST) -> str:
    return " ".join(ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split())[:80]


def mutants_of(module: str) -> Iterator[tuple[Mutant, CodeType]]:
    """Every mutant of a module, with the code of its function."""
    path = Path(inspect.getfile(importlib.import_module(module)))
    tree = ast.parse(path.read_text("utf-8"))
    seen: dict[Mutant, int] = {}
    for function, definition in _functions(tree):
        for parent, name, place in _inside(definition):
            value = getattr(parent, name)
            node = value if place is None else value[place]
            for changed in _changes(node):
                new = changed if place is None else [*value[:place], changed, *value[place + 1 :]]
                ast.copy_location(changed, node)
                setattr(parent, name, new)
                code = compile(ast.fix_missing_locations(tree), str(path), "exec")
                setattr(parent, name, value)
                line = getattr(node, "lineno", 0)
                key = Mutant(module, function, 0, _short(node), _short(changed))
                seen[key] = number = seen.get(key, -1) + 1
                mutant = Mutant(module, function, line, key.before, key.after, number)
                yield mutant, _code_of(code, function)


def _code_of(code: CodeType, function: str) -> CodeType:
    for part in function.split("."):
        [code] = [
            one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == part
        ]
    return code


def _function(module: ModuleType, name: str) -> FunctionType:
    found = module
    for part in name.split("."):
        found = vars(found)[part]
    for inner in ("__func__", "fget", "func"):
        found = getattr(found, inner, found)
    return inspect.unwrap(found)


@dataclass(frozen=True)
class Case:
    """A test function with its parameters; `seconds` of the processor that it took."""

    name: str
    test: Callable[..., None]
    parameters: dict[str, object]
    seconds: float = 0.0


def _cases(path: Path) -> Iterator[Case]:
    """The tests of a file that need no fixture, called as they are, without pytest."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    for name, test in vars(module).items():
        if not name.startswith("test_") or not callable(test):
            continue
        rows: list[dict[str, object]] = [{}]
        marks = getattr(test, "pytestmark", [])
        for mark in (one for one in marks if one.name == "parametrize"):
            names, values = mark.args
            names = [one.strip() for one in names.split(",")] if isinstance(names, str) else names
            more = [zip(names, one if len(names) > 1 else [one], strict=True) for one in values]
            rows = [{**row, **dict(one)} for one in map(list, more) for row in rows]
        settings = getattr(test, "_hypothesis_internal_use_settings", None)
        if settings is not None:
            test._hypothesis_internal_use_settings = _few_examples(settings)
        slow = any(mark.name in ("slow", "skipif", "skip") for mark in marks)
        if not slow and set(inspect.signature(test).parameters) == set(rows[0]):
            yield from (Case(name, test, row) for row in rows)


def _few_examples(settings: Any) -> Any:
    """The same settings, with as few examples as a thousand mutants allow, the same each time."""
    import hypothesis

    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    return hypothesis.settings(
        settings,
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=phases,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def _timed(case: Case, limit_s: float) -> Case | None:
    """The case with its time; None where it takes too long, or fails as it is."""

    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGPROF, stop)
    start = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        case.test(**case.parameters)
    except Exception as error:
        print(f"  left out: {case.name}: {type(error).__name__}", file=sys.stderr)
        return None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return replace(case, seconds=time.process_time() - start)


def _killed_by(mutant: Mutant, code: CodeType, cases: list[Case]) -> str:
    """The test that killed a mutant, "endless" or "crashed"; empty where it survived."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        limit = 3 + int(3 * sum(case.seconds for case in cases))
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        _function(importlib.import_module(mutant.module), mutant.function).__code__ = code
        for case in cases:
            try:
                case.test(**case.parameters)
            except BaseException:
                os.write(write, case.name.encode())
                os._exit(1)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answers:
        name = answers.read()
    code_of_exit = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code_of_exit in (0, 1):
        return name
    return "endless" if code_of_exit in (-signal.SIGXCPU, -signal.SIGKILL) else "crashed"


def attack(core: str, arguments: argparse.Namespace, known: dict[str, str]) -> dict[str, object]:
    """Try the mutants of a core, in a random order, until a limit is reached."""
    modules, files = CORES[core]
    cases = [case for file in files for case in _cases(TESTS / file)]
    timed = filter(None, (_timed(case, arguments.test_seconds) for case in cases))
    # Quick ones first.
    cases = sorted(timed, key=lambda case: case.seconds)
    assert cases, f"no test of {core} passes"
    found = [pair for module in modules for pair in mutants_of(module)]
    random.Random(arguments.seed).shuffle(found)
    results: dict[str, str] = {}
    survivors: list[Mutant] = []
    end = time.monotonic() + arguments.seconds
    for mutant, code in found[: arguments.sample]:
        if time.monotonic() > end:
            break
        results[mutant.name] = _killed_by(mutant, code, cases)
        if not results[mutant.name] and mutant.name not in known:
            survivors.append(mutant)
            print(f"  alive: {mutant.line} {mutant.name}", file=sys.stderr, flush=True)
    judged = sum(name in known and not how for name, how in results.items())
    killed = sum(map(bool, results.values()))
    return {
        "core": core,
        "mutants": len(found),
        "tried": len(results),
        "killed": killed,
        "equivalent": judged,
        "killed_share": killed / max(1, len(results) - judged),
        "tests": len(cases),
        "by": dict(Counter(results.values())),
        "survivors": [{**asdict(one), "name": one.name} for one in survivors],
    }


def main() -> None:
    """Attack the cores; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", choices=list(CORES), action="append", help="default: all")
    parser.add_argument("--sample", type=int, default=150, help="mutants of each core at most")
    parser.add_argument("--seconds", type=float, default=600, help="for each core at most")
    parser.add_argument("--test-seconds", type=float, default=3, help="leave slower tests out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="where to write the survivors")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(TESTS)]
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    import yaml

    known = {}
    if KNOWN.exists():
        known = {one["mutant"]: one["reason"] for one in yaml.safe_load(KNOWN.read_text()) or []}
    found = []
    for core in arguments.core or CORES:
        one = attack(core, arguments, known)
        found.append(one)
        print(
            f"{core:8} {one['killed']:4} of {one['tried']:4} killed, {one['equivalent']:3} "
            f"equivalent, {len(one['survivors']):3} survived ({one['killed_share']:.1%}; "
            f"{one['mutants']} mutants, {one['tests']} tests, by {one['by']})"
        )
        for survivor in one["survivors"]:
            print(f"  {survivor['line']:4} {survivor['name']}", flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({str(one["core"]): one["killed_share"] for one in found}))


if __name__ == "__main__":
    main()
