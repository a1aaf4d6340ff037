"""Pairs that wheels on PyPI hold: fetched once, at a fixed version, and kept in the cache.

| set | query | passage | wheels |
|---|---|---|---|
| botocore | service and operation | the operation's documentation | botocore |
| google | service and method | the method's description | google-api-python-client |
| python | first paragraph of a docstring | the function's code | django, networkx, sympy |
"""

import ast
import gzip
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "benchmarks" / ".cache"
BOTOCORE_VERSION = "1.44.5"
GOOGLE_VERSION = "2.202.0"
FUNCTIONS_OF = {"django": "5.2.19", "networkx": "3.6.1", "sympy": "1.14.0"}
# Shorter docstrings name no task.
FEWEST_LETTERS = 15

Pair = tuple[str, str]


def download_wheel(package: str, version: str) -> Path:
    """The path of a wheel in the cache, after downloading it where it is missing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    wheel = CACHE / f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
    if not wheel.is_file():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest"]
        subprocess.run([*command, str(CACHE), f"{package}=={version}"], check=True)
    return wheel


# --- botocore: operations of services --------------------------------------------------------


def operations() -> Iterator[Pair]:
    """Yield one pair for each documented operation of each service's newest version."""
    for service, model in service_models(download_wheel("botocore", BOTOCORE_VERSION)):
        for operation, entry in model["operations"].items():
            documentation = plain_text(entry.get("documentation", ""))
            if documentation:
                yield f"{service} {split_words(operation)}", documentation


def service_models(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each service's name in words and the newest version of its model, by name."""
    with zipfile.ZipFile(path) as wheel:
        newest: dict[str, PurePosixPath] = {}
        for name in sorted(wheel.namelist()):  # .../<service>/<date>/: the newest comes last
            member = PurePosixPath(name)
            if member.name in ("service-2.json", "service-2.json.gz"):
                newest[member.parent.parent.name] = member
        for service, member in newest.items():
            content = wheel.read(str(member))
            model = json.loads(gzip.decompress(content) if member.suffix == ".gz" else content)
            yield service.replace("-", " "), model


def split_words(name: str) -> str:
    """Split a camel-case name: "DescribeVPCPeering" becomes "Describe VPC Peering"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)


class _TextParser(HTMLParser):
    """Collects the text of an HTML fragment; any tag but an inline one separates words."""

    INLINE = frozenset(("a", "b", "code", "em", "i", "span", "strong", "sub", "sup", "tt", "u"))

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.INLINE:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.INLINE:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def plain_text(html: str) -> str:
    """Return the text of an HTML fragment, with white space collapsed."""
    parser = _TextParser()
    parser.feed(html)
    parser.close()
    return " ".join("".join(parser.parts).split())


# --- google: methods of services -------------------------------------------------------------


def methods() -> Iterator[Pair]:
    """Yield one pair for each described method of each version of a service."""
    with zipfile.ZipFile(download_wheel("google-api-python-client", GOOGLE_VERSION)) as wheel:
        for name in sorted(wheel.namelist()):
            if name.endswith(".json") and "/documents/" in name:
                yield from _methods_of(json.loads(wheel.read(name)))


def _methods_of(resource: dict[str, Any]) -> Iterator[Pair]:
    for method in resource.get("methods", {}).values():
        if method.get("description"):
            yield split_words(method["id"]).replace(".", " "), method["description"]
    for inner in resource.get("resources", {}).values():
        yield from _methods_of(inner)


# --- python: functions and what their docstrings say -----------------------------------------


def functions() -> Iterator[Pair]:
    """Yield one pair for each documented function outside of tests."""
    for package, version in FUNCTIONS_OF.items():
        with zipfile.ZipFile(download_wheel(package, version)) as wheel:
            for name in sorted(wheel.namelist()):
                if name.endswith(".py") and "/tests/" not in name:
                    yield from _functions_of(wheel.read(name).decode("utf-8"))


def _functions_of(source: str) -> Iterator[Pair]:
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a template of a file
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        task = " ".join((ast.get_docstring(node) or "").strip().split("\n\n")[0].split())
        if len(task) >= FEWEST_LETTERS and len(node.body) > 1:
            node.body = node.body[1:]
            yield task, ast.unparse(node)
