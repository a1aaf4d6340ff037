"""Tests of sentence-transformers, of what stx-mine does as well, on the code of stx-mine.

Each passes, or stands in `differences.yaml` with the reason and with how it fails.
"""

import inspect
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPO_ROOT
from sentence_transformers.util import mine_hard_negatives
from suites import Suite

HERE = Path(__file__).parent
PAGE = REPO_ROOT / "docs/mine_hard_negatives.md"
DIFFERENCES = yaml.safe_load((HERE / "differences.yaml").read_text())
SUITES = [
    Suite(
        function="mine_hard_negatives",
        version="5.0.0",
        file="tests/test_util.py",
        digest="e5a411845910275fd166bacb01d28b7f79537d3550628ae42309dbdd3d5670d1",
        archived=True,
        about="mine_hard_negatives",
    ),
    Suite(
        function="CachedMultipleNegativesRankingLoss",
        version="5.3.0",
        file="tests/test_cmnrl.py",
        digest="414a0a881f53a4df0e6cbace75f823bfcb6b94d674c42a384b498959b7c065e2",
        archived=True,
        about="same_grad",
    ),
    # The file did not change between this tag and the next minor version.
    Suite(
        function="mine_hard_negatives",
        version="6.0.0",
        file="tests/util/test_hard_negatives.py",
        digest="661f7fd3d0aae992de45d842c90c0bb0015a8ffda9b953d606f35ef0e0aafbd7",
        archived=False,
    ),
]


@pytest.fixture(params=SUITES, ids=lambda suite: f"{suite.function}-{suite.version}")
def suite(request: pytest.FixtureRequest) -> Suite:
    return request.param


def run(
    suite: Suite, tmp_path: Path, functions_of: str, **environment: str
) -> dict[str, str | None]:
    """Test -> how it failed; None if it passed. What is skipped is left out."""
    tests, results = tmp_path / "suite/test_of_peer.py", tmp_path / "results.xml"
    tests.parent.mkdir()
    shutil.copy(suite.found(tmp_path), tests)
    (tests.parent / "pytest.ini").write_text("[pytest]\n")
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "peer_plugin", "-p", "no:cacheprovider"),
            *("-q", "--tb=line", "-k", suite.about, f"--junitxml={results}", tests.name),
        ],
        capture_output=True,
        text=True,
        env={
            **inherited,
            "PYTHONPATH": os.pathsep.join(map(str, (REPO_ROOT, HERE.parent, HERE))),
            "HF_HUB_OFFLINE": "1",
            "STX_FUNCTIONS_OF": functions_of,
            **environment,
        },
        cwd=tests.parent,
        timeout=280,
    )
    # 1: some failed. Anything else is no answer.
    assert done.returncode in (0, 1), done.stdout[-3_000:] + done.stderr[-3_000:]
    found = {}
    for case in ElementTree.parse(results).iter("testcase"):
        assert case.find("error") is None, (case.get("name"), case.find("error").get("message"))
        if case.find("skipped") is None:
            failure = case.find("failure")
            found[case.get("name")] = None if failure is None else failure.get("message")
    return found


def listed(test: str, suite: Suite) -> list[dict[str, Any]]:
    """The entries for a test; brackets are no pattern here."""
    return [
        entry
        for entry in DIFFERENCES
        if entry.get("version", suite.version) == suite.version
        and any(fnmatchcase(test, name.replace("[", "[[]")) for name in entry["tests"])
    ]


def test_the_function_of_the_peer_passes(suite: Suite, tmp_path: Path) -> None:
    # With the models that stand for its own: else what follows would say nothing of stx-mine. With
    # CI set it starts no processes.
    found = run(suite, tmp_path, "peer", CI="true")
    assert found
    assert {test: failure for test, failure in found.items() if failure} == {}


def test_stx_mine_passes_or_differs_on_purpose(suite: Suite, tmp_path: Path) -> None:
    found = run(suite, tmp_path, "stx-mine")
    assert any(failure is None for failure in found.values())
    wrong = []
    for test, failure in found.items():
        entries = listed(test, suite)
        if failure is None and entries:
            wrong.append(f"{test} passes and is listed")
        elif failure is not None and not any(entry["fails"] in failure for entry in entries):
            wrong.append(f"{test} fails and is not listed, or for another reason: {failure}")
    assert wrong == []
    num_passed = sum(failure is None for failure in found.values())
    name, counts = f"`{suite.function}`", (len(found), num_passed, len(found) - num_passed)
    row = "| {} | {} | {} | {} | {} |".format(name, suite.version, *counts)
    assert row in PAGE.read_text()


def test_nothing_is_listed_that_no_suite_has(tmp_path: Path) -> None:
    text = "".join(one.found(tmp_path).read_text() for one in SUITES)
    named = {name.partition("[")[0] for entry in DIFFERENCES for name in entry["tests"]}
    assert sorted(name for name in named if f"def {name}(" not in text) == []


def test_the_page_has_a_row_for_every_option_of_the_peer() -> None:
    table = PAGE.read_text().partition("## Arguments")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(inspect.signature(mine_hard_negatives).parameters)
    assert {entry["option"] for entry in DIFFERENCES} <= {*named, "errors"}
