"""Server functions: reductions and updates that run where the rows are.

Each is two halves (Angel's psFunc): `partial` runs on a slot, `merge` combines the partial
results in slot order, so that the outcome does not depend on how slots lie on shards. Sums are
in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from daskps.server import _least_squares, _quasi_newton, topics
from daskps.server.slot import TableSlot
from daskps.server.tables import TableSpec

Partial = float | NDArray[np.float64]
Tables = Mapping[str, TableSlot]
F32 = NDArray[np.float32]
Vectors = tuple[F32, F32, F32, F32, F32]


@dataclass(frozen=True, slots=True)
class ServerFunction:
    """A reduction over a table in two halves."""

    partial: Callable[..., Partial]
    """Called with (tables of one slot, samples seen, **params)."""
    merge: Callable[[list[Any]], Any]
    """Called with the partial results in slot order."""


def _values(tables: Tables, table: str, T: float) -> NDArray[np.float64]:
    if table not in tables:  # small tables have no rows in most slots
        return np.zeros((0, 1))
    return np.asarray(tables[table].values(T), np.float64)


def _norm1(tables: Tables, T: float, *, table: str) -> Partial:
    return float(np.abs(_values(tables, table, T)).sum())


def _norm2_squared(tables: Tables, T: float, *, table: str) -> Partial:
    return float(np.square(_values(tables, table, T)).sum())


def _dot(tables: Tables, T: float, *, table: str, other: str) -> Partial:
    return float((_values(tables, table, T) * _values(tables, other, T)).sum())


def _count_nonzero(tables: Tables, T: float, *, table: str) -> Partial:
    return float(np.count_nonzero(_values(tables, table, T)))


def _axpy(tables: Tables, T: float, *, a: float, table: str, into: str) -> Partial:
    """Add a x `table` to `into`, which must hold plain numbers; return the rows touched."""
    if into not in tables:
        return 0.0
    target = tables[into]
    if target.spec.updater.n_fields != 1:
        raise ValueError(
            f"axpy into table {into!r}, whose updater {type(target.spec.updater).__name__} keeps "
            "state beside the values; expected a table with the updater Add."
        )
    x = (a * _values(tables, table, T)).astype(target.rows.dtype)
    target.apply(None, x[:, None, :], T, 0.0)
    return float(len(x))


def _fill(tables: Tables, T: float, *, table: str, value: float) -> Partial:
    """Set all numbers of `table`, which must hold plain ones, to `value`; return the rows."""
    if table not in tables:
        return 0.0
    rows = tables[table].writable()
    rows[:] = value
    return float(len(rows))


class Block(msgspec.Struct, frozen=True):
    """Tables of one group of parameters that L-BFGS works on, and their penalty.

    See `daskps.server._quasi_newton` for what is in them; all but `memory` are of one shape.
    """

    iterate: str
    trial: str
    gradient: str
    curvature: str
    memory: str
    """As wide as a row, times 2 + 2 x pairs."""
    l2: float
    l1: float

    def of(self, tables: Tables) -> Vectors:
        """Return x0, x, g, h, (m, width) each, and memory, of one slot, to be read."""
        names = (self.iterate, self.trial, self.gradient, self.curvature)
        x0, x, g, h = (tables[t].rows[:, 0] for t in names)
        return x0, x, g, h, tables[self.memory].rows.reshape(*x.shape, -1)

    def to_write(self, tables: Tables) -> Vectors:
        """Return the same with the iterate, the trial point and memory to be changed in place."""
        for name in (self.iterate, self.trial, self.memory):
            tables[name].writable()
        return self.of(tables)


def _lbfgs_measure(
    tables: Tables, T: float, *, blocks: Sequence[Block], n: float, pairs: int
) -> Partial:
    """Return the products of `daskps.server._quasi_newton.measure`, over all blocks."""
    out = np.zeros(_quasi_newton.N_SUMS + 4 * pairs)
    for b in _present(blocks, tables):
        _quasi_newton.measure(*b.of(tables), n, b.l2, b.l1, out)
    return out


def _lbfgs_move(
    tables: Tables,
    T: float,
    *,
    blocks: Sequence[Block],
    n: float,
    accept: bool,
    pair: int,
    coefficients: NDArray[np.float64] | None,
    length: float,
) -> Partial:
    """Accept the trial point or not, turn into a new direction if there is one, and step."""
    for b in _present(blocks, tables):
        x0, x, g, h, memory = b.to_write(tables)
        rule = (n, b.l2, b.l1)
        if accept:
            _quasi_newton.advance(x0, x, g, h, memory, *rule, pair)
        if coefficients is not None:
            _quasi_newton.turn(x0, h, memory, *rule, coefficients)
        _quasi_newton.step(x0, x, h, memory, *rule, length)
    return 0.0


def _present(blocks: Sequence[Block], tables: Tables) -> list[Block]:
    return [b for b in blocks if b.iterate in tables]  # small tables have no rows in most slots


def _topic_counts(tables: Tables, T: float, **params: Any) -> Partial:
    """Return the sums of `daskps.server.topics.measure`."""
    return topics.measure(tables, **params)


def _gram(tables: Tables, T: float, *, table: str, columns: int) -> Partial:
    """Return the sum of outer products of the rows of `table`, of their first `columns`."""
    if table not in tables:
        return np.zeros((columns, columns))
    return np.asarray(_least_squares.gram(tables[table].rows[:, 0, :columns]))


def _fetch(tables: Tables, T: float, *, table: str, width: int) -> Partial:
    """Return the one row of `table`, (width,)."""
    if table not in tables or not len(tables[table].rows):
        return np.zeros(width)
    return np.asarray(tables[table].rows[0, 0], np.float64)


def _put(tables: Tables, T: float, *, table: str, row: NDArray[np.float64]) -> Partial:
    """Set the one row of `table`; return the rows that were set."""
    if table not in tables or not len(tables[table].rows):
        return 0.0
    tables[table].writable()[0, 0] = row
    return 1.0


class Systems(msgspec.Struct, frozen=True):
    """Tables of the systems that conjugate gradients solve; see `daskps.server._least_squares`."""

    solution: str
    pushed: str
    residual: str
    direction: str
    l2: float


def _cg(
    tables: Tables, T: float, *, of: Systems, common: NDArray[np.float64], begin: bool
) -> Partial:
    """Begin to solve, or take a step, for each row; return the rows."""
    if of.solution not in tables:
        return 0.0
    y, r, p = (tables[t].writable()[:, 0] for t in (of.solution, of.residual, of.direction))
    act = _least_squares.begin if begin else _least_squares.move
    act(y, tables[of.pushed].rows[:, 0], common, of.l2, r, p)
    return float(len(y))


FUNCTIONS: dict[str, ServerFunction] = {
    "norm1": ServerFunction(_norm1, sum),
    "norm2": ServerFunction(_norm2_squared, lambda parts: float(np.sqrt(sum(parts)))),
    "dot": ServerFunction(_dot, sum),
    "count_nonzero": ServerFunction(_count_nonzero, sum),
    "axpy": ServerFunction(_axpy, sum),
    "fill": ServerFunction(_fill, sum),
    "gram": ServerFunction(_gram, sum),
    "fetch": ServerFunction(_fetch, sum),
    "put": ServerFunction(_put, sum),
    "cg": ServerFunction(_cg, sum),
    "lbfgs_measure": ServerFunction(_lbfgs_measure, sum),
    "lbfgs_move": ServerFunction(_lbfgs_move, sum),
    "topic_counts": ServerFunction(_topic_counts, sum),
}


def check_tables(names: Sequence[str], tables: Sequence[TableSpec]) -> None:
    """Refuse tables that are not there, or that do not pair.

    Raises
    ------
    ValueError
        Naming them.
    """
    known = {t.name: t for t in tables}
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"no table {unknown[0]!r}; expected one of {sorted(known)}.")
    specs = [known[name] for name in names]
    if len({(t.n_rows, t.width) for t in specs}) > 1 or (
        len(specs) > 1 and specs[0].keys == "hash"
    ):
        shapes = ", ".join(f"{t.name!r} ({t.keys}, {t.n_rows} x {t.width})" for t in specs)
        raise ValueError(f"tables {shapes} do not pair; expected range tables of one shape.")
