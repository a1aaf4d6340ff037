"""What is said and written: without credentials, on one line, and never as markup."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stx_mine.errors import ConfigError
from stx_mine.masking import escaped, masked, masked_json
from stx_mine.stages.index.config import IndexConfig
from stx_mine.store.artifact import Artifact
from stx_mine.store.files import read_json
from stx_mine.store.markdown import code_span, markdown_text, yaml_text
from stx_mine.store.run_dir import RunDir
from stx_mine.store.stage_report import StageReport

SECRET = "wJalr/XUtn+FEMI"
WITH_SECRET = [
    f"s3://AKIAIOSFODNN7EXAMPLE:{SECRET}@bucket/run",
    f"https://{SECRET.replace('/', '')}@host/path",
    f"cannot open https://host/run?sv=1&sig={SECRET}; check it",
    f"az://c/run?token={SECRET}#x",
    f"password={SECRET}, user=me",
    f"--trainer-option hub_token={SECRET}",
    f"AccountName=a;AccountKey={SECRET};x=1",
    f"aws_secret_access_key = '{SECRET}'",
    "hf_" + SECRET.replace("/", "").replace("+", "") * 2,
]
WITHOUT = [
    *("s3://bucket/run", "memory://b/run", "file:///data/run", "C:/x", "user@host", "q://a/b@main"),
    *("pad_token=[PAD]", "max_tokens=512", "tokenizer=x", "tokens: 12", "a secret: none"),
    "see https://huggingface.co/docs?",
]


@pytest.mark.parametrize("text", WITH_SECRET)
def test_credentials_are_masked(text: str) -> None:
    shown = masked(text)
    assert SECRET not in shown
    assert SECRET.replace("/", "")[:9] not in shown
    assert "***" in shown
    assert masked(shown) == shown
    assert SECRET not in str(ConfigError(text))
    report = StageReport("x", {}, (text,), (text,), folder=text)
    assert SECRET not in f"{report.lines}{report.warnings}{report.folder}"


@pytest.mark.parametrize("text", WITHOUT)
def test_what_is_no_credential_stays(text: str) -> None:
    assert masked(text) == text


def test_no_plan_or_manifest_holds_a_credential(tmp_path) -> None:
    config = IndexConfig(factory=WITH_SECRET[0], run_dir=WITH_SECRET[2])
    fields = {"url": WITH_SECRET[0], "token": SECRET, "options": [WITH_SECRET[5]], "k": 4}
    for url in (WITH_SECRET[0], WITH_SECRET[0].replace(SECRET, "another")):
        made = Artifact(RunDir(tmp_path), "index", config, inputs={}, fields={**fields, "url": url})
        made.begin([])
        made.finish([], counts={})
    for path in made.folder.iterdir():
        assert SECRET not in path.read_text()
    assert read_json(made.folder / "plan.json")["fields"]["k"] == 4
    assert masked_json({"tokenizer": "a", "password": ""}) == {"tokenizer": "a", "password": ""}


@pytest.mark.parametrize("text", ["a\nb", "a\r\x1b[2Jb", "\u202egnp.exe", "a\u2028b", "\udcff"])
def test_a_message_is_one_line_of_what_can_be_shown(text: str) -> None:
    for shown in (
        str(ConfigError(text)),
        StageReport("x", {}, (text,)).lines[0],
        markdown_text(text),
    ):
        assert len(shown.splitlines()) == 1
        assert shown.isprintable()
    assert escaped("données 質問 می‌خواهم") == "données 質問 می‌خواهم"


HOSTILE = [
    "<script>alert(1)</script>",
    "x\n---\nlicense: evil\n---\n# You",
    "](http://evil) [x",
    "` <img src=x onerror=y> `",
    "a | b | c",
    "# Heading",
    "&lt;b&gt; \\<b>",
    "x" * 5_000,
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("write", [markdown_text, code_span])
def test_a_name_in_markdown_is_no_markup(text: str, write) -> None:
    shown = write(text)
    assert len(shown) < 500
    assert "\n" not in shown and "<" not in shown
    outside = shown if not shown.startswith("`") else ""
    for letter in "[]|`#":
        assert outside.count(letter) == outside.count(f"\\{letter}")


@given(st.text())
def test_a_text_in_yaml_is_one_scalar_whatever_it_holds(text: str) -> None:
    line = yaml_text(text)
    assert "\n" not in line
    found = yaml.safe_load(f"text: {line}\n")
    assert set(found) == {"text"}
