"""What is fuzzed: a reader takes bytes, and either reads them or says what is wrong with them."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from stx_mine.errors import StxMineError
from stx_mine.inputs.column_file import ColumnFile
from stx_mine.inputs.labeled import LabeledFile
from stx_mine.inputs.run_file import RunFile
from stx_mine.inputs.stage_settings import load_sources
from stx_mine.pipeline import load_pipeline
from stx_mine.stages.ingest.config import IngestConfig
from stx_mine.stages.ingest.pairs import read_sources
from stx_mine.stages.ingest.stage import open_input
from stx_mine.stages.transfer.listings import Listing, read_object, refuse_manifest
from stx_mine.store.artifact import require
from stx_mine.store.places import settle_all
from stx_mine.store.run_dir import RunDir

# In memory where there is such a disk: a target runs some hundred times a second.
_MEMORY = Path("/dev/shm")
FOLDER = Path(tempfile.mkdtemp(prefix="stx-fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))


def _written(name: str, content: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(content)
    return path


def read_table(suffix: str, content: bytes) -> None:
    """A table of pairs, from its first byte to the texts and ids of a run."""
    path = _written(f"pairs{suffix}", content)
    encodings = {b"\xff": "utf-16", b"\xfe": "cp1252"}
    encoding = encodings.get(content[:1])
    with suppress(StxMineError):
        file = ColumnFile.open(path, encoding=encoding)
        for _ in file.arrays(file.columns):
            pass
    with suppress(StxMineError):
        read_sources(open_input(IngestConfig(pairs=str(path), encoding=encoding)))
    with suppress(StxMineError):
        LabeledFile.read(str(path), None, None)


def read_run(content: bytes) -> None:
    """A run of another retriever."""
    with suppress(StxMineError):
        for _ in RunFile.open(_written("run.trec", content)).batches():
            pass


def read_pipeline(content: bytes) -> None:
    """A pipeline file, and a list of sources."""
    path = str(_written("pipeline.yaml", content))
    with suppress(StxMineError):
        load_pipeline(path, [])
    with suppress(StxMineError):
        load_sources(path)


def read_override(content: bytes) -> None:
    """What `--set` gives to a pipeline."""
    path = str(_written("plain.yaml", b"mine:\n  k: 4\n"))
    with suppress(StxMineError):
        load_pipeline(path, [content.decode("utf-8", "replace")])


def read_plan(content: bytes) -> None:
    """The plan and the manifest of an artifact, in a run directory and at a URL."""
    run = RunDir(FOLDER / "run")
    folder = run.folder("negatives")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("manifest.json", "plan.json"):
        (folder / name).write_bytes(content)
    with suppress(StxMineError):
        require(run, "negatives")
    with suppress(StxMineError):
        settle_all(run.path, ["negatives"], is_alone=True)
    found = read_object(content)
    if found is not None:
        with suppress(StxMineError):
            refuse_manifest(found, "negatives", "file:///x")
            Listing.of(found)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "csv": partial(read_table, ".csv"),
    "tsv": partial(read_table, ".tsv"),
    "jsonl": partial(read_table, ".jsonl"),
    "json": partial(read_table, ".json"),
    "trec": partial(read_table, ".trec"),
    "parquet": partial(read_table, ".parquet"),
    "arrow": partial(read_table, ".arrow"),
    "zip": partial(read_table, ".zip"),
    "run": read_run,
    "pipeline": read_pipeline,
    "set": read_override,
    "manifest": read_plan,
}
SEEDS: dict[str, list[bytes]] = {
    "csv": [
        b"query,passage\na,b\n",
        b'"query","passage"\n"a ""b""","c\nd"\n',
        b"sep=;\nquery;passage;label\na;b;1\nc;d;0\n",
        b"\xef\xbb\xbfquery,passage\na,b\n",
        "query,passage\né,ü\n".encode("utf-16"),
        b"q1,d1,1\nq2,d2,0\n",
        b'anchor, "positive", "negative"\na, "b", "c"\n',
    ],
    "tsv": [
        b"query-id\tcorpus-id\tscore\nq1\td1\t1\n",
        b"a question here\tan answer there\n",
        b'query\tpassage\n"a \\"b\\""\tc\n',
        b"q1 0 d1 1\nq2 0 d2 1\n",
    ],
    "jsonl": [
        b'{"query": "a", "passage": "b"}\n{"query": "c", "passage": ["d"]}\n',
        b'{"query": "a", "pos": ["b"], "neg": ["c", "d"]}\n',
        b'["query", "passage"]\n["a", "b"]\n',
        b'{"query": {"text": "a"}, "positive": [{"text": "b", "score": 1}]}\n',
        b'{"messages": [{"role": "user", "content": "a"}], "label": true}\n',
    ],
    "json": [
        b'[{"query": "a", "passage": "b"}]',
        b'{"data": [{"paragraphs": [{"context": "a", "qas": [{"id": "1", "question": "b",'
        b' "answers": [{"text": "a"}]}]}]}]}',
        b'{"columns": ["query", "passage"], "data": [["a", "b"]]}',
        b'{"query": ["a", "c"], "passage": ["b", "d"]}',
        b'{"queries": {"q": "a"}, "corpus": {"d": "b"}, "relevant_docs": {"q": ["d"]}}',
        b'{"q1": {"d1": 1, "d2": 0}, "q2": {"d1": 1}}',
        b'{"corpus": {"path": "c.jsonl"}, "data": [{"question": "a", "pos_doc": [{"id": 1}]}]}',
    ],
    "trec": [b"q1 0 d1 1\nq2 0 d2 0\n", b"q1\t0\td1\t1\n"],
    "parquet": [],
    "arrow": [],
    "zip": [],
    "run": [
        b"q1 Q0 d1 1 0.5 tag\nq1 Q0 d2 2 0.4 tag\n",
        b"q1\td1\t1\t0.5\n",
        b"q1 d1 1\n\xef\xbb\xbf",
        b"q 1\tQ0\td 1\t1\t0.5\ttag\n",
    ],
    "pipeline": [
        b"run_dir: r\nrounds: 2\nembed:\n  pairs: p.csv\nmine:\n  k: 4\npack:\ntrain:\n",
        b"- name: a\n  path: p.csv\n  weight: 2\n- {name: b, path: q.csv}\n",
        b"a: &a [x, y]\nb: *a\nc: {<<: {d: 1}}\n",
        b"mine: {relative_margin: 1e-3, max_uses: null}\n",
    ],
    "set": [
        b"mine.k=4",
        b"run_dir=r",
        b"mine.sources=[a, b]",
        b"rounds=3",
        b"evaluate.data={a: 1}",
    ],
    "manifest": [
        b'{"artifact": "negatives", "schema": 5, "fields": {"k": 4}, "inputs": {"texts": "1"},'
        b' "key": "0", "digest": "1", "counts": {}, "extra": {}, "config": {}, "files": [{"file":'
        b' "a.arrow", "bytes": 3, "xxh3_128": "00000000000000000000000000000000"}]}',
        b'{"key": "0", "inputs": {"hits/dense": "1"}, "files": []}',
    ],
}


def seeds_of(target: str) -> list[bytes]:
    """Inputs of a target to begin with; those of binary formats are written anew."""
    return SEEDS[target] or [_binary(target)]


def _binary(target: str) -> bytes:
    import io
    import zipfile

    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    sink = io.BytesIO()
    table = pa.table({"query": ["a", "c"], "passage": [["b"], ["d", "e"]], "label": [1, 0]})
    if target == "parquet":
        pyarrow.parquet.write_table(table, sink, compression="none")
    elif target == "arrow":
        pyarrow.feather.write_feather(table, sink, compression="uncompressed")
    else:
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("a.csv", "query,passage\na,b\n")
    return sink.getvalue()
