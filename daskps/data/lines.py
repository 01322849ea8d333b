"""Text files as blocks of whole lines: byte ranges of plain files, streams of gzip files.

Owns finding files, cutting them, and line numbers. Does not know what a line means.
"""

from __future__ import annotations

import glob
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskps.errors import DataError

BLOCK_BYTES = 16 * 2**20
MAX_BLOCKS = 1024

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Source:
    """The lines of a file that begin in a range of its bytes; a gzip file is one source."""

    path: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines that are next to each other in a file."""

    path: str
    data: bytes
    offset: int
    """Bytes before this block, uncompressed."""

    def line_number(self, index: int) -> int:
        """Return the number in the file, from 1, of line `index` of this block (reads the file)."""
        before, left = 0, self.offset
        opener: Any = gzip.GzipFile if _is_gzip(self.path) else open
        with opener(self.path, "rb") as file:
            while left and (data := file.read(min(left, BLOCK_BYTES))):
                before += data.count(b"\n")
                left -= len(data)
        return before + index + 1


def find_files(paths: Paths) -> list[str]:
    """Return the files of a path, glob pattern or list of those, in the order given, globs sorted.

    Raises
    ------
    FileNotFoundError
        If a path or pattern matches no file.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise DataError("paths is an empty list, expected at least one file.")
    found: list[str] = []
    for entry in given:
        text = os.path.expanduser(os.fspath(entry))
        matches = [text] if os.path.exists(text) else sorted(glob.glob(text, recursive=True))
        if not matches:
            raise FileNotFoundError(
                f"no file matches {text!r} (working directory {os.getcwd()!r}); "
                "check the path or the pattern."
            )
        found += matches
    return [_readable(path) for path in found]


def _readable(path: str) -> str:
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path!r} is a directory; name its files, for example '{path}/*'.")
    try:
        with open(path, "rb"):
            return os.path.abspath(path)
    except OSError as error:
        raise type(error)(
            error.errno, f"cannot be read ({error.strerror}); check its permissions", path
        ) from error


def _is_gzip(path: str) -> bool:
    return path.endswith(".gz")


def block_size(files: Sequence[str], smallest: int) -> int:
    """Return the bytes of a block: more of large data, for every partition reads every block.

    Parameters
    ----------
    files
        All files.
    smallest
        Bytes that blocks have until there are `MAX_BLOCKS` of them; they grow to four times that.
    """
    total = sum(Path(path).stat().st_size for path in files)
    return min(4 * smallest, max(smallest, total // MAX_BLOCKS))


def cut_files(files: Sequence[str], block_bytes: int) -> list[Source]:
    """Cut plain files into ranges of `block_bytes`; the last one of a file may be shorter."""
    sources = []
    for path in files:
        size = Path(path).stat().st_size
        step = size if _is_gzip(path) else block_bytes
        sources += [Source(path, at, min(at + step, size)) for at in range(0, size, max(1, step))]
    return sources


def read_blocks(source: Source, block_bytes: int) -> Iterator[Block]:
    """Yield the lines of `source` in blocks of about `block_bytes`.

    Raises
    ------
    DataError
        If a gzip file is truncated or damaged.
    """
    if not _is_gzip(source.path):
        yield _read_range(source)
        return
    offset = 0
    with gzip.open(source.path, "rb") as file:
        while True:
            try:
                data = file.read(block_bytes) + file.readline()
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DataError(
                    f"gzip file {source.path!r} is truncated or damaged after {offset} bytes of "
                    f"text ({error}); fetch it again."
                ) from error
            if not data:
                return
            yield Block(source.path, data, offset)
            offset += len(data)


def _read_range(source: Source) -> Block:
    with open(source.path, "rb") as file:
        if source.start:
            # Ends the line that began in the range before; a lone newline if none did.
            file.seek(source.start - 1)
            file.readline()
        begin = file.tell()
        data = file.read(max(0, source.stop - begin))
        if data and not data.endswith(b"\n"):
            data += file.readline()
    return Block(source.path, data, begin)
