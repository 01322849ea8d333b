"""Blocks of svmlight text to checked CSR rows, through scikit-learn's reader.

Owns the format, the checks and errors that name file and line. Does not read files.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_svmlight_file

from daskps.errors import DataError

from .convert import row_of
from .format import index_dtype
from .labels import Classes
from .lines import Block, Source, read_blocks
from .partition import Partition

MAX_INDEX = 2**64 - 1
"""The largest column id; only hashed data may have it, for it is what pads on disk hold."""
_FORMAT = "'label index:value index:value ...', indices ascending and >= 0"


@dataclass(frozen=True, slots=True)
class Limits:
    """Column ids that a file may hold, both included."""

    lowest: int = 0
    highest: int = MAX_INDEX


@dataclass(frozen=True, slots=True)
class _Rows:
    """Parsed text; column ids are as in the text."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int64] | NDArray[np.uint64]
    values: NDArray[np.float32]
    label: NDArray[np.float64]


def read_source(
    source: Source, limits: Limits, block_bytes: int
) -> Iterator[tuple[Partition, Classes]]:
    """Yield the rows of `source` block by block; column ids are as in the file."""
    for block in read_blocks(source, block_bytes):
        yield parse_block(block, limits), None


def parse_block(block: Block, limits: Limits) -> Partition:
    """Return the rows of `block`.

    Raises
    ------
    DataError
        If a line cannot be understood or holds a value that cannot be used.
    """
    try:
        rows = _parse(block.data)
    except (ValueError, OverflowError) as error:
        index, reason = _first_bad_line(block.data)
        raise _error(block, index, reason, _FORMAT) from error
    _check(block, rows, limits)
    n_features = int(rows.indices.max()) + 1 if len(rows.indices) else 1
    return Partition(
        rows.indptr,
        rows.indices.astype(index_dtype(n_features)),
        None if np.all(rows.values == 1) else rows.values,
        rows.label,
        None,
        n_features,
    )


def _parse(data: bytes) -> _Rows:
    try:
        csr, label = load_svmlight_file(io.BytesIO(data), dtype=np.float32, zero_based=True)
    except OverflowError:
        # The reader holds column ids in a C int; hashed ids may be wider.
        return _parse_wide(data)
    indptr, indices = (np.asarray(a, np.int64) for a in (csr.indptr, csr.indices))
    return _Rows(indptr, indices, csr.data, label)


def _parse_wide(data: bytes) -> _Rows:
    """Parse column ids up to 2**64 - 1, slowly, by the rules of scikit-learn's reader."""
    label: list[float] = []
    lengths: list[int] = []
    indices: list[int] = []
    values: list[float] = []
    for line in _rows_of(data):
        target, *features = line.split()
        if features and features[0].startswith(b"qid"):
            del features[0]
        pairs = [feature.split(b":", 1) for feature in features]
        ids = [int(index) for index, _ in pairs]
        if ids and ids[0] < 0:
            raise ValueError(f"invalid index {ids[0]}")
        if any(a >= b for a, b in itertools.pairwise(ids)):
            raise ValueError("feature indices should be sorted and unique")
        if ids and ids[-1] > MAX_INDEX:
            raise ValueError(f"index {ids[-1]} is above {MAX_INDEX}")
        label.append(float(target))
        lengths.append(len(ids))
        indices += ids
        values += [float(value) for _, value in pairs]
    indptr = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)
    with np.errstate(over="ignore"):
        narrow = np.array(values, np.float64).astype(np.float32)
    return _Rows(indptr, np.array(indices, np.uint64), narrow, np.array(label, np.float64))


def _check(block: Block, rows: _Rows, limits: Limits) -> None:
    def refuse(array: NDArray[Any], bad: NDArray[np.bool_], name: str, expected: str) -> None:
        if not bad.any():
            return
        at = int(np.argmax(bad))
        row = at if array is rows.label else row_of(rows.indptr, at)
        raise _error(block, _line_of_row(block.data, row), f"{name} {array[at].item()!r}", expected)

    finite = "a finite number that float32 can hold"
    refuse(rows.label, ~np.isfinite(rows.label), "label", "a finite number")
    refuse(rows.values, ~np.isfinite(rows.values), "value", finite)
    outside = (rows.indices < limits.lowest) | (rows.indices > limits.highest)
    refuse(rows.indices, outside, "index", f"{limits.lowest} to {limits.highest}")


def _error(block: Block, index: int, reason: str, expected: str) -> DataError:
    line = block.data.split(b"\n")[index][:80].decode("utf-8", "replace")
    return DataError(
        f"{block.path!r}, line {block.line_number(index)}: {reason} in {line!r}, expected "
        f"{expected}; correct or remove the line."
    )


def _first_bad_line(data: bytes) -> tuple[int, str]:
    """Return index and reason of the first line that does not parse, by bisection."""
    lines = data.split(b"\n")
    good, bad = 0, len(lines)  # lines[:good] parse, lines[:bad] do not.
    reason = ""
    while bad - good > 1 or not reason:
        middle = max(good + 1, (good + bad) // 2)
        try:
            _parse(b"\n".join(lines[good:middle]))
            good = middle
        except (ValueError, OverflowError) as error:
            bad, reason = middle, str(error)
    if "unpack" in reason:
        reason = "a feature without ':'"
    return good, reason


def _line_of_row(data: bytes, row: int) -> int:
    """Return the index of the line that became row `row`."""
    lines = data.split(b"\n")
    return [i for i, line in enumerate(lines) if line.split(b"#", 1)[0].split()][row]


def _rows_of(data: bytes) -> Iterator[bytes]:
    for line in data.split(b"\n"):
        content = line.split(b"#", 1)[0]
        if content.split():
            yield content
