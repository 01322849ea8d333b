"""Datasets from UCI bag-of-words files: `read_docword`.

A file begins with three lines, the numbers of documents, words and entries; an entry is a line
``document word count``, both numbered from 1, documents in order. The words stand in a file beside
it, one a line. Owns the format and errors that name file and line.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from daskps.errors import DataError

from .dataset import Dataset
from .ingest import Recipe, assemble, assemble_on_disk, flat, prepare, writing
from .labels import Classes
from .lines import BLOCK_BYTES, Block, cut_files, find_files, read_blocks
from .partition import Partition
from .pieces import Piece
from .stores import resolve

_FORMAT = "'document word count', whole numbers, documents ascending"
_LARGEST = 2**24
HEADER = 3
"""Lines before the first entry."""


def read_docword(
    path: str | os.PathLike[str],
    store: Any = None,
    *,
    vocabulary: str | os.PathLike[str] | Sequence[str] | None = None,
    n_partitions: int | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Make a dataset of a UCI bag-of-words file (``docword``), plain or gzip.

    Documents keep their order; those without an entry are empty rows. The file is read as a
    stream.

    Parameters
    ----------
    path
        The file.
    store
        Where to write the dataset: a path, URL or Zarr store. None keeps it in memory.
    vocabulary
        The words, or the file that holds them, one a line. None takes the file beside `path` that
        is named ``vocab`` where that has ``docword``, if there is one.
    n_partitions, overwrite
        As in `from_arrays`.

    Raises
    ------
    DataError
        If a line cannot be used, the file holds less than it says, or the vocabulary has another
        number of words.
    FileNotFoundError
        If there is no such file.
    """
    file = find_files(path)
    if len(file) != 1:
        raise DataError(f"{path!r} are {len(file)} files, expected one.")
    sizes = _header(file[0])
    words = _words(vocabulary, file[0], sizes[1])

    def recipe(pieces: Sequence[Piece]) -> Recipe:
        return Recipe(
            n_features=sizes[1], n_partitions=n_partitions, seed=None, feature_names=words
        )

    inputs = [(file[0], sizes)]
    if store is None:
        pieces = flat(prepare(_read, inputs, None, None))
        return assemble(pieces, recipe(pieces))
    with writing(resolve(store), overwrite) as target:
        pieces = flat(prepare(_read, inputs, None, target))
        return assemble_on_disk(pieces, recipe(pieces), target, spread=True)


def _blocks(path: str) -> Iterator[Block]:
    for source in cut_files([path], BLOCK_BYTES):
        yield from read_blocks(source, BLOCK_BYTES)


def _header(path: str) -> tuple[int, int, int]:
    """Return the numbers of documents, words and entries."""
    text = b""
    for block in _blocks(path):
        text += block.data[:200]
        if text.count(b"\n") >= HEADER:
            break
    lines = text.split(b"\n")[:HEADER]
    try:
        documents, words, entries = (int(line) for line in lines)
    except ValueError:
        documents = words = entries = 0
    if documents < 1 or words < 1 or entries < 0:
        raise DataError(
            f"{path!r} begins with {lines!r}; expected three lines with the numbers of documents, "
            "words and entries."
        )
    return documents, words, entries


def _words(
    given: str | os.PathLike[str] | Sequence[str] | None, path: str, n_words: int
) -> NDArray[Any] | None:
    where: str | os.PathLike[str] | None = None
    listed: Sequence[str] = ()
    if given is None:
        name = os.path.basename(path).replace("docword", "vocab", 1)
        beside = Path(path).with_name(name.removesuffix(".gz"))
        if name == os.path.basename(path) or not beside.exists():
            return None
        where = beside
    elif isinstance(given, (str, os.PathLike)):
        where = given
    else:
        listed = given
    if where is not None:
        listed = Path(where).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    words = np.array([str(w).strip() for w in listed], dtype=str)
    if len(words) != n_words:
        source = "vocabulary" if where is None else f"vocabulary {os.fspath(where)!r}"
        raise DataError(f"{source} has {len(words)} words, but {path!r} says {n_words}.")
    return words


def _read(path: str, sizes: tuple[int, int, int]) -> Iterator[tuple[Partition, Classes]]:
    """Yield the documents of a file, some at a time."""
    n_docs, n_words, n_entries = sizes
    done, seen = 0, 0  # documents that were yielded, entries that were read
    rest = np.empty((0, 3), np.int64)
    skip = HEADER
    for block in _blocks(path):
        entries = _entries(block, skip, n_docs, n_words)
        skip = max(0, skip - block.data.count(b"\n"))
        seen += len(entries)
        entries = np.concatenate([rest, entries])
        if (np.diff(entries[:, 0]) < 0).any():
            at = int(np.flatnonzero(np.diff(entries[:, 0]) < 0)[0])
            raise DataError(
                f"{path!r} has document {entries[at + 1, 0]} after {entries[at, 0]}; expected "
                "documents in ascending order."
            )
        if not len(entries):
            continue
        last = int(entries[-1, 0])  # it may go on in the next block
        whole = np.searchsorted(entries[:, 0], last)
        if whole:
            yield _rows(entries[:whole], done, last - 1, n_words), None
            done = last - 1
        rest = entries[whole:]
    if seen != n_entries:
        raise DataError(
            f"{path!r} has {seen} entries, but says {n_entries}; it is not complete, or has been "
            "changed."
        )
    yield _rows(rest, done, n_docs, n_words), None


def _entries(block: Block, skip: int, n_docs: int, n_words: int) -> NDArray[np.int64]:
    """Return the checked entries of a block, shape (n, 3)."""
    if skip >= block.data.count(b"\n") > 0:
        return np.empty((0, 3), np.int64)
    try:
        table: NDArray[np.int64] = pd.read_csv(
            io.BytesIO(block.data),
            sep=r"\s+",
            header=None,
            skiprows=skip,
            names=["document", "word", "count"],
            dtype=np.int64,
            index_col=False,
        ).to_numpy()
    except pd.errors.EmptyDataError:
        return np.empty((0, 3), np.int64)
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        raise _bad_line(block, skip, n_docs, n_words) from error
    low, high = np.array([1, 1, 0]), np.array([n_docs, n_words, _LARGEST - 1])
    if ((table < low) | (table > high)).any():
        raise _bad_line(block, skip, n_docs, n_words)
    return table


def _bad_line(block: Block, skip: int, n_docs: int, n_words: int) -> DataError:
    """Return the error of the first line that cannot be used."""
    for i, line in enumerate(block.data.split(b"\n")):
        if i < skip or not line.strip():
            continue
        fields = line.split()
        try:
            d, w, c = (int(x) for x in fields)
            good = 1 <= d <= n_docs and 1 <= w <= n_words and 0 <= c < _LARGEST
        except ValueError:
            good = False
        if not good:
            return DataError(
                f"{block.path!r}, line {block.line_number(i)} is {line[:80]!r}; expected "
                f"{_FORMAT}, up to document {n_docs} and word {n_words}, counts from 0."
            )
    return DataError(f"{block.path!r} cannot be read; expected lines {_FORMAT}.")


def _rows(entries: NDArray[np.int64], first: int, stop: int, n_words: int) -> Partition:
    """Return documents first + 1 .. stop; a word that comes twice is added up."""
    docs, words, counts = entries[:, 0] - 1 - first, entries[:, 1] - 1, entries[:, 2]
    order = np.lexsort((words, docs))
    docs, words, counts = docs[order], words[order], counts[order]
    new = np.append(True, (np.diff(docs) != 0) | (np.diff(words) != 0))[: len(docs)]
    at = np.flatnonzero(new)
    values = np.add.reduceat(counts, at) if len(at) else counts
    indptr = np.searchsorted(docs[at], np.arange(stop - first + 1)).astype(np.int64)
    kept = values.astype(np.float32)
    return Partition(
        indptr,
        words[at].astype(np.uint32),
        None if (kept == 1).all() else kept,
        None,
        None,
        n_words,
    )
