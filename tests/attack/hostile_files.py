"""Make the files of a hostile case: each is one entry of YAML that says how.

| kind | value | makes |
|---|---|---|
| `text` | text | that text in UTF-8 |
| `base64` | text | those bytes |
| `repeat` | `[text, times]`, or a list of them | the texts so often; `base64` third for bytes |
| `nested` | `{open, close, depth, before, after}` | brackets within brackets |
| `json`, `jsonl` | anything, a list | JSON, a line for each value |
| `parquet` | `[[column, values], ...]` | a Parquet file; names may stand twice |
| `vectors` | `{rows, dim, dtype, fill, put}` | a NumPy file; `put: [row, column, value]` |
| `arrays` | names | an `.npz` file |
| `zip` | `{name: text}` | a zip |
| `gzip` | `{text, cut}` | gzip, maybe cut short |
| `copy` | a path | a copy of a file or folder, then changed by `cut`, `flip`, `put`, `drop` |
| `link` | a path | a symbolic link |
| `mode` | `fifo`, `socket`, `folder` | what is no file |
"""

import base64
import gzip
import json
import os
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def make_file(path: Path, spec: dict[str, Any], fill: Callable[[str], str]) -> None:
    """Make one file.

    Args:
        path: Where.
        spec: How: see above.
        fill: Puts the folders of a test in place of `{here}`, `{run}` and the like.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind, value = next(iter(spec.items()))
    if kind == "copy":
        _copy(path, Path(fill(value)), spec, fill)
    elif kind == "link":
        path.symlink_to(fill(value))
    elif kind == "mode":
        _special(path, value)
    elif kind == "parquet":
        names, columns = [name for name, _ in value], [pa.array(one) for _, one in value]
        pq.write_table(pa.Table.from_arrays(columns, names=names), path)
    elif kind == "vectors":
        np.save(path, _vectors(value), allow_pickle=False)
    elif kind == "arrays":
        with path.open("wb") as handle:
            np.savez(handle, **{name: np.ones((2, 2), np.float32) for name in value})
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in value.items():
                archive.writestr(name, text)
    else:
        path.write_bytes(_content(kind, value, fill))


def _content(kind: str, value: Any, fill: Callable[[str], str]) -> bytes:
    if kind == "text":
        return fill(value).encode()
    if kind == "base64":
        return base64.b64decode(value)
    if kind == "json":
        return json.dumps(value).encode()
    if kind == "jsonl":
        return "".join(json.dumps(one) + "\n" for one in value).encode()
    if kind == "repeat":
        parts = value if isinstance(value[0], list) else [value]
        return b"".join(_part(*part) for part in parts)
    if kind == "nested":
        return (
            value.get("before", "")
            + value["open"] * value["depth"]
            + value.get("inside", "")
            + value["close"] * value["depth"]
            + value.get("after", "")
        ).encode()
    if kind == "gzip":
        return gzip.compress(value["text"].encode())[: value.get("cut")]
    raise AssertionError(f"no way to make {kind!r}")


def _part(text: str, times: int, form: str = "") -> bytes:
    return (base64.b64decode(text) if form == "base64" else text.encode()) * times


def _vectors(value: dict[str, Any]) -> "np.ndarray[Any, Any]":
    shape = value["shape"] if "shape" in value else (value["rows"], value["dim"])
    found = np.full(shape, value.get("fill", 1.0)).astype(value.get("dtype", "float32"))
    if "fill" not in value and found.ndim == 2:
        # Rows that differ.
        found[:] = np.random.default_rng(0).standard_normal(shape).astype(found.dtype)
    for row, column, number in value.get("put", []):
        found[row, column] = float(number)
    return found


def _copy(path: Path, source: Path, spec: dict[str, Any], fill: Callable[[str], str]) -> None:
    """A copy, of which some files are changed: `cut`, `flip`, `put` and `drop` name them."""
    if source.is_dir():
        shutil.copytree(source, path, symlinks=True)
    else:
        shutil.copyfile(source, path)

    def inside(name: str) -> Path:
        return path / name if source.is_dir() else path

    for name in spec.get("drop", []):
        inside(name).unlink()
    for name, size in spec.get("cut", {}).items():
        os.truncate(inside(name), size)
    for name, place in spec.get("flip", {}).items():
        content = bytearray(inside(name).read_bytes())
        content[place] ^= 0xFF
        inside(name).write_bytes(content)
    for name, own in spec.get("put", {}).items():
        target = inside(name)
        if target.is_file():
            target.unlink()
        make_file(target, own, fill)


def _special(path: Path, mode: str) -> None:
    if mode == "fifo":
        os.mkfifo(path)
    elif mode == "folder":
        path.mkdir()
    elif mode == "socket":
        # The path of a socket is short.
        here = os.open(path.parent, os.O_RDONLY)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)
    else:
        raise AssertionError(f"no such mode: {mode!r}")
