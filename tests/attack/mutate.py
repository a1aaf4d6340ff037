"""Mutation testing of the pure cores: change one operator at a time; the quick tests must notice.

    python tests/attack/mutate.py [--core verify] [--sample 150] [--seconds 600] [--output X.json]

A mutant replaces the code of one function in a forked process, in which the tests of its core then
run without compilation (NUMBA_DISABLE_JIT=1). A failing test, a crash or a test that no longer ends
kills it. Survivors that no test can kill are listed with the reason in `mutants.yaml`; they count
apart. mutmut leaves out decorated functions, which all kernels are, and cosmic-ray starts a process
for each mutant, which takes longer than most of these tests.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import inspect
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

os.environ["NUMBA_DISABLE_JIT"] = "1"
TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
KNOWN = Path(__file__).with_name("mutants.yaml")
_PACK, _VERIFY = "stx_mine.stages.pack.core", "stx_mine.stages.verify.core"
CORES: dict[str, tuple[list[str], list[str]]] = {
    "select": (
        ["stx_mine.stages.mine.core.select", "stx_mine.stages.mine.core.uses"],
        ["stages/mine/test_select.py"],
    ),
    "assign": (
        [f"{_PACK}.{name}" for name in ("assign", "strict_fill", "strict_rows", "bounds")],
        ["stages/pack/test_assign.py"],
    ),
    "bind": (
        [f"{_PACK}.bind", "stx_mine.core.forbidden"],
        ["stages/pack/test_assign.py", "stages/pack/test_bind.py"],
    ),
    "verify": (
        [f"{_VERIFY}.{name}" for name in ("batches", "ignored", "labels", "sets", "rows")],
        ["stages/verify/test_verify_batches.py", "stages/verify/test_verify_rows.py"],
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


class _Durations:
    """Measures tests, and ends those that take too long."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s, self.seconds = limit_s, {}

    def pytest_runtest_logreport(self, report) -> None:
        if report.when == "call" and report.passed:
            self.seconds[report.nodeid] = report.duration

    def pytest_runtest_setup(self, item) -> None:
        signal.signal(signal.SIGALRM, _too_long)
        signal.setitimer(signal.ITIMER_REAL, self.limit_s)

    def pytest_runtest_teardown(self, item) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _too_long(*_: object) -> None:
    raise TimeoutError


def _pytest(arguments: list[str], *plugins: object) -> int:
    import pytest

    with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", f"--rootdir={ROOT}"]
        return int(pytest.main([*options, "-c", str(ROOT / "pyproject.toml"), *arguments], plugins))


def _is_killed(mutant: Mutant, code: CodeType, tests: list[str], limit_s: float) -> str:
    """What killed a mutant: "failed", "crashed", "endless"; empty where it survived."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            _function(importlib.import_module(mutant.module), mutant.function).__code__ = code
            os._exit(_pytest(["-x", *tests]))
        os._exit(3)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            exit_code = os.waitstatus_to_exitcode(status)
            return {0: "", 1: "failed"}.get(exit_code, "crashed")
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "endless"


def attack(core: str, arguments: argparse.Namespace, known: dict[str, str]) -> dict[str, object]:
    """Try the mutants of a core, in a random order, until a limit is reached."""
    modules, files = CORES[core]
    durations = _Durations(arguments.test_seconds)
    _pytest([str(TESTS / file) for file in files if (TESTS / file).exists()], durations)
    if not durations.seconds:
        raise SystemExit(f"no test of {core} passes in {arguments.test_seconds} s")
    # Quick ones first.
    tests = [
        str(TESTS.parent / one) for one in sorted(durations.seconds, key=durations.seconds.get)
    ]
    limit_s = 10 + 10 * sum(durations.seconds.values())
    found = [pair for module in modules for pair in mutants_of(module)]
    random.Random(arguments.seed).shuffle(found)
    results: dict[str, str] = {}
    survivors: list[Mutant] = []
    end = time.monotonic() + arguments.seconds
    for mutant, code in found[: arguments.sample]:
        if time.monotonic() > end:
            break
        results[mutant.name] = _is_killed(mutant, code, tests, limit_s)
        if not results[mutant.name] and mutant.name not in known:
            survivors.append(mutant)
    judged = sum(name in known and not how for name, how in results.items())
    killed = sum(map(bool, results.values()))
    return {
        "core": core,
        "mutants": len(found),
        "tried": len(results),
        "killed": killed,
        "equivalent": judged,
        "survived": len(survivors),
        "killed_share": killed / max(1, len(results) - judged),
        "tests": len(tests),
        "survivors": [{**asdict(one), "name": one.name} for one in survivors],
    }


def main() -> None:
    """Attack the cores; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", choices=list(CORES), action="append", help="default: all")
    parser.add_argument("--sample", type=int, default=150, help="mutants of each core at most")
    parser.add_argument("--seconds", type=float, default=600, help="for each core at most")
    parser.add_argument("--test-seconds", type=float, default=5, help="leave slower tests out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="where to write the survivors")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(TESTS)]
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    import hypothesis
    import yaml

    hypothesis.settings.register_profile(
        "mutants",
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    )
    hypothesis.settings.load_profile("mutants")
    known = {}
    if KNOWN.exists():
        known = {one["mutant"]: one["reason"] for one in yaml.safe_load(KNOWN.read_text()) or []}
    found = [attack(core, arguments, known) for core in arguments.core or CORES]
    for one in found:
        print(
            f"{one['core']:8} {one['killed']:4} of {one['tried']:4} killed, "
            f"{one['equivalent']:3} equivalent, {one['survived']:3} survived "
            f"({one['killed_share']:.1%}; {one['mutants']} mutants, {one['tests']} tests)"
        )
        for survivor in one["survivors"]:
            print(f"  {survivor['line']:4} {survivor['name']}")
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps({str(one["core"]): one["killed_share"] for one in found}))


if __name__ == "__main__":
    main()
