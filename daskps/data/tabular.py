"""Blocks of triples from tables: DataFrames of pandas and Dask, text files, Parquet.

Owns finding out how a text file is written: separator, header, ids that look like numbers in one
block and like text in another. What the columns mean is in `triples`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from daskps.errors import DataError

from .lines import BLOCK_BYTES, Paths, Source, block_size, cut_files, find_files, read_blocks
from .triples import Names

Read = Callable[[], Any]
"""Returns a block as a pandas.DataFrame."""

_SEPARATORS = ("::", "\t", ";", "|", ",", " ")
_PARQUET = (".parquet", ".pq", ".parq")
_UNIT = "\x1f"


@dataclass(frozen=True, slots=True)
class Text:
    """How text files are written."""

    separator: str
    columns: tuple[str, ...]
    """Names of the columns, from the header or, without one, what stands where."""
    header: bool
    skip: int
    """Lines before the header or the first rating."""
    as_text: tuple[Any, ...] = ()
    """Columns to be read as strings."""


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A range of a text file."""

    source: Source
    how: Text

    def __call__(self) -> pd.DataFrame:
        """Return its rows."""
        blocks = [self._parse(b.data, b.offset) for b in read_blocks(self.source, BLOCK_BYTES)]
        return pd.concat(blocks, ignore_index=True) if len(blocks) > 1 else blocks[0]

    def _parse(self, data: bytes, offset: int) -> pd.DataFrame:
        how = self.how
        if offset == 0:
            for _ in range(how.skip + how.header):
                data = data.partition(b"\n")[2]
        separator = how.separator
        if len(separator) > 1:  # the fast parser takes one character
            data, separator = data.replace(separator.encode(), _UNIT.encode()), _UNIT
        dtype = dict.fromkeys(how.as_text, str)
        try:
            return pd.read_csv(
                io.BytesIO(data), sep=separator, names=list(how.columns), header=None, dtype=dtype,
                keep_default_na=True, index_col=False,
            )  # fmt: skip
        except pd.errors.EmptyDataError:
            return pd.DataFrame({c: pd.Series(dtype="float64") for c in how.columns})
        except (ValueError, pd.errors.ParserError) as error:
            raise DataError(
                f"file {self.source.path!r} cannot be read from byte {offset} on ({error}); "
                f"expected lines of {len(how.columns)} fields with {how.separator!r} between."
            ) from error


@dataclass(frozen=True, slots=True)
class ParquetBlock:
    """A Parquet file."""

    path: str
    columns: tuple[Any, ...]

    def __call__(self) -> pd.DataFrame:
        """Return its rows."""
        try:
            return pd.read_parquet(self.path, columns=list(self.columns))
        except ImportError as error:
            raise DataError(
                f"reading {self.path!r} needs pyarrow, which is not installed; install it, or give "
                "a CSV file."
            ) from error


def file_blocks(
    paths: Paths, names: Names, separator: str | None, skip: int
) -> tuple[list[Read], Names]:
    """Return the blocks of text or Parquet files, and the columns as they are called there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DataError
        If files are of several kinds, or lines have too few fields.
    """
    files = find_files(paths)
    parquet = [path.endswith(_PARQUET) for path in files]
    if any(parquet) and not all(parquet):
        raise DataError(f"some of {files!r} are Parquet and some are not; read them apart.")
    if all(parquet):
        return [ParquetBlock(path, tuple(names.wanted)) for path in files], names
    how, names = _text(files[0], names, separator, skip)
    sources = cut_files(files, block_size(files, BLOCK_BYTES))
    return [TextBlock(source, how) for source in sources], names


def as_text(blocks: Sequence[Read], names: Names) -> list[Read]:
    """Return text blocks that read ids as strings."""
    ids = (names.user, names.item)
    return [
        replace(b, how=replace(b.how, as_text=ids)) if isinstance(b, TextBlock) else b
        for b in blocks
    ]


def _text(path: str, names: Names, separator: str | None, skip: int) -> tuple[Text, Names]:
    first = Source(path, 0, 2**16)
    lines = next(read_blocks(first, 2**16)).data.decode(errors="replace").splitlines()[skip:]
    if not lines:
        raise DataError(f"file {path!r} has no line after the first {skip}; expected ratings.")
    line = lines[0]
    if separator is None:
        separator = next((s for s in _SEPARATORS if s in line), ",")
    fields = [field.strip().strip('"') for field in line.split(separator)]
    if len(fields) < 3 + (names.time is not None):
        raise DataError(
            f"the line {line[:80]!r} of {os.path.basename(path)!r} has {len(fields)} fields with "
            f"{separator!r} between; expected user, item, rating and, if asked for, a time: name "
            "the separator with sep=."
        )
    if not _numeric(fields[2]):
        return Text(separator, tuple(fields), True, skip), names
    # no header: what stands where is a convention of all ratings files
    time = "time" if names.time is None else names.time
    columns = (names.user, names.item, names.rating, time)[: len(fields)]
    columns += tuple(f"column {i}" for i in range(len(columns), len(fields)))
    return Text(separator, columns, False, skip), names


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
