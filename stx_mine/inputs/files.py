"""A file that someone brings, plain, compressed or inside a zip: its suffix and its bytes."""

import codecs
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from stx_mine.errors import InputError, one_line
from stx_mine.store.small_files import found_at

_COMPRESSIONS = (".gz", ".zst", ".bz2")
# How files begin that are no text, and the suffix that they are to have.
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"BZh": ".bz2",
    b"PK\x03\x04": ".zip",
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
}
_ENCRYPTED, _PART_BYTES = 1, 1 << 20
_CONTROL = re.compile(rb"[\x00-\x08\x80-\xff]")
_BINARY = (".parquet", ".arrow", ".feather")
# What libraries raise where a file is cut, damaged or something else than its name says.
UNREADABLE = (
    pa.ArrowInvalid,
    pa.ArrowNotImplementedError,
    pa.ArrowKeyError,
    OSError,
    EOFError,
    UnicodeError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class InputFile:
    """A file, or one inside a zip.

    Attributes:
        path: Where it lies.
        member: Its name inside the zip at `path`; empty for a file that is no zip.
        encoding: Of its text, as Python names it; None for UTF-8, or what a byte order mark says.
    """

    path: Path
    member: str = ""
    encoding: str | None = None

    @classmethod
    def open(cls, path: Path, encoding: str | None = None) -> "list[InputFile]":
        """The file at a path, or the files inside it if it is a zip.

        Args:
            path: A file; or below the path of a zip the name of a file in it.
            encoding: Of its text; None for UTF-8, or what a byte order mark says.

        Raises:
            InputError: There is none, it is empty, or the encoding is unknown.
        """
        for archive in path.parents:
            if archive.suffix.lower() == ".zip" and archive.is_file():
                member = path.relative_to(archive).as_posix()
                if member in zip_members(archive):
                    return [cls(archive, member, encoding)]
        url = _URL.match(str(path))
        if url and not path.exists():
            inside = "/" + url[2].lstrip("/")
            way = f"give the path {inside}" if url[1] == "file" else "download it first"
            raise InputError(
                f"expected a path, found the address {url[1]}://{url[2]} (not fetched); {way}"
            )
        if not path.is_file():
            raise InputError(f"expected a file at {path}, found {found_at(path)}; check the path")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty; give a file with at least one row")
        if encoding is not None:
            try:
                # Some names are of what makes no text, as hex or zlib.
                "".encode(encoding)
            except (LookupError, ValueError) as error:
                raise InputError(
                    f"--encoding {encoding!r} is not known; give utf-8, cp1252, latin-1, utf-16 ..."
                ) from error
        if path.suffix.lower() != ".zip":
            return [cls(path, encoding=encoding)]
        return [cls(path, member, encoding) for member in zip_members(path)]

    @property
    def name(self) -> str:
        """As messages name it."""
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def suffix(self) -> str:
        """Its suffix without that of a compression, in small letters; empty if it has none."""
        return suffix_of(Path(self.member or self.path.name))

    @property
    def is_compressed(self) -> bool:
        """Whether its name ends in that of a compression."""
        return _is_compressed(self.member or self.path.name)

    def head(self, size: int = 1 << 12) -> str:
        """Its first whole lines; empty where they are no text."""
        try:
            with self.stream() as stream:
                start = bytes(stream.read(size))
                return start[: start.rfind(b"\n") + 1 or None].decode()
        except UNREADABLE:
            return ""

    def binary(self) -> pa.NativeFile:
        """Open it for reading at any place; a file inside a zip is read into memory."""
        if self.member:
            with zipfile.ZipFile(self.path) as archive:
                return pa.BufferReader(archive.read(self.member))
        return pa.memory_map(str(self.path), "rb")

    def stream(self) -> Any:
        """Open it for reading its text as UTF-8, without a byte order mark."""
        plain = self._plain()
        head = plain.read(4)
        encoding = self.encoding or _marked_encoding(head)
        if encoding is None and not head.startswith(codecs.BOM_UTF8):
            plain.close()
            return self._plain()
        rest = _Joined(head, plain)
        return rest if encoding is None else _Recoded(rest, encoding)

    def _plain(self) -> pa.NativeFile:
        """Its bytes, decompressed."""
        name = self.member or self.path.name
        raw: Any = str(self.path)
        if self.member:
            raw = zipfile.ZipFile(self.path).open(self.member)
        compression = pa.Codec.detect(name).name if _is_compressed(name) else None
        return pa.input_stream(raw, compression=compression)

    def blocks(self, size: int) -> Iterator[bytes]:
        """Its text as UTF-8, so many bytes at a time or a few more.

        Raises:
            InputError: Its bytes are not of the encoding.
        """
        try:
            with self.stream() as stream:
                while block := stream.read(size):
                    yield block
        except UnicodeError as error:
            raise InputError(
                f"{self.name} is not {self.encoding or 'UTF-8'} ({error}); give another --encoding"
            ) from error
        except UNREADABLE as error:
            raise InputError(
                f"cannot read {self.name}: {one_line(error)}; write or fetch it again"
            ) from error


def zip_members(path: Path) -> list[str]:
    """Names of the files in a zip that are visible and not empty, sorted.

    A name that is absolute or leads out of the zip is no file of it.

    Raises:
        InputError: It is no zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = [info for info in archive.infolist() if not info.is_dir() and info.file_size]
    except UNREADABLE as error:
        raise InputError(
            f"expected a zip in {path}, found something else ({one_line(error)}); write it again"
        ) from error
    if any(info.flag_bits & _ENCRYPTED for info in found):
        raise InputError(f"the files in {path} are encrypted; unpack it, and give its folder")
    names = (info.filename for info in found)
    return sorted(name for name in names if is_visible(Path(name)) and not Path(name).is_absolute())


class _Recoded(io.RawIOBase):
    """A stream of text in some encoding, as UTF-8."""

    def __init__(self, source: Any, encoding: str) -> None:
        self._source, self._decoder = source, codecs.getincrementaldecoder(encoding)()
        self._waiting, self._is_done = b"", False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """So many bytes, or fewer at the end; UnicodeError where they are no such text."""
        parts = [self._waiting]
        while not self._is_done and not 0 <= size <= sum(map(len, parts)):
            block = self._source.read(_PART_BYTES)
            self._is_done = not block
            parts.append(self._decoder.decode(block, final=self._is_done).encode())
        found = b"".join(parts)
        end = len(found) if size < 0 else size
        self._waiting = found[end:]
        return found[:end]

    def close(self) -> None:
        self._source.close()
        super().close()


class _Joined(io.RawIOBase):
    """The first bytes of a stream, which are read already, and the rest of it."""

    def __init__(self, head: bytes, rest: pa.NativeFile) -> None:
        self._head, self._rest = head.removeprefix(codecs.BOM_UTF8), rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        head, self._head = self._head, b""
        rest: bytes = self._rest.read() if size < 0 else self._rest.read(max(size - len(head), 0))
        return head + rest

    def close(self) -> None:
        self._rest.close()
        super().close()


def _marked_encoding(head: bytes) -> str | None:
    return "utf-16" if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else None


def _is_compressed(name: str) -> bool:
    return Path(name).suffix.lower() in _COMPRESSIONS


def refuse_unlike_name(file: InputFile) -> None:
    """Refuse a file that begins as one of another suffix does.

    Raises:
        InputError: It does; or its text is UTF-16 without a mark.
    """
    if file.member:
        return
    with file.path.open("rb") as stream:
        start = stream.read(1 << 12)
    found = next((suffix for magic, suffix in _MAGIC.items() if start.startswith(magic)), "")
    own = file.path.suffix.lower()
    if file.suffix in _BINARY:
        is_other = found not in ("", file.suffix) and not (found == ".arrow" and own == ".feather")
        if not is_other and (b"\0" in start or found or not start.strip()):
            return
        what = found[1:] or "text"
        way = f"to end in {found}" if found else "to end in .csv, .jsonl or what it is"
        raise InputError(
            f"expected {file.suffix[1:]} in {file.name}, found {what}; rename it {way}"
        )
    found = found if _CONTROL.search(start) else ""
    if found and own != found:
        added = own + found if found in _COMPRESSIONS else found
        raise InputError(
            f"expected text in {file.name}, found {found[1:]}; rename it to end in {added}"
            + (", or save a spreadsheet as CSV" if found == ".zip" else "")
        )
    if not found and file.encoding is None and _marked_encoding(start) is None and b"\0" in start:
        is_little = start[1::2].count(0) >= start[::2].count(0)
        raise InputError(
            f"expected UTF-8 in {file.name}, found zero bytes, as UTF-16 without a mark has; give "
            f"--encoding utf-16-{'le' if is_little else 'be'}"
        )


def undecodable(name: str, block: bytes, first_line: int, error: UnicodeDecodeError) -> InputError:
    """The error of a block of lines that is not UTF-8.

    Args:
        name: The file, as messages name it.
        block: The lines.
        first_line: The number of its first line, from 1.
        error: Says where.
    """
    line = first_line + block.count(b"\n", 0, error.start)
    return InputError(
        f"line {line:,} of {name} is not UTF-8 ({error.reason}); give --encoding cp1252, "
        "latin-1 or what the file was written in"
    )


def at_home(path: str) -> Path:
    """A path, of which `~` names a home.

    Raises:
        InputError: Of nobody who is known here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{path} names a home that is not known; give the whole path, or ./{path}"
        ) from error


def suffix_of(path: Path) -> str:
    """The suffix of a name without that of a compression, in small letters; empty without one."""
    suffixes = [one.lower() for one in path.suffixes if one.lower() not in _COMPRESSIONS]
    return suffixes[-1] if suffixes else ""


def is_visible(path: Path) -> bool:
    """Whether no part of a relative path is hidden, or a note of an operating system."""
    return not any(part.startswith((".", "_")) for part in path.parts)
