"""A model of the user's own: what it declares, and what its steps are given.

How it reaches the parameter server is in `own_plan`, how it is trained in `own_fit`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

RULES = ("sum", "last", "steps")
INITS = ("constant", "normal", "uniform")


@dataclass(frozen=True, slots=True)
class Table:
    """A named array of parameters, (n_rows, width), spread over the shards of a run.

    Parameters
    ----------
    name
        Unique among the tables of a model.
    n_rows
        Rows, with the keys 0 .. n_rows - 1. None stands for any 64-bit key: a row is there from the
        first push to it.
    width
        Numbers a row.
    rule
        What becomes of the pushes of partitions that work at the same time. ``"sum"`` adds them:
        counts, statistics. ``"last"`` holds the sum of the pushes of the last clock and nothing
        older: a gradient. ``"steps"`` is for steps that each partition takes by itself, which
        overshoot if they are added: they are weighted by the `response` that comes with each push.
    dtype
        ``"float32"``, ``"float64"``, ``"int32"`` or ``"int64"``; integers are added exactly.
        ``"steps"`` needs float32.
    init, scale, seed
        What rows begin with: ``"constant"``: `scale` itself; ``"normal"``: mean 0, standard
        deviation `scale`; ``"uniform"``: from -`scale` to `scale`. A row's value depends on `seed`
        and its key alone. `daskps.train` takes other values by `start`.

    Raises
    ------
    ValueError
        If a value is none of these.
    """

    name: str
    n_rows: int | None
    width: int = 1
    rule: Literal["sum", "last", "steps"] = "sum"
    dtype: str = "float32"
    init: Literal["constant", "normal", "uniform"] = "constant"
    scale: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no shard could hold."""
        dtypes = ("float32",) if self.rule == "steps" else ("float32", "float64", "int32", "int64")
        rows = self.n_rows
        for good, what, expected in (
            (_named(self.name), "name", "an identifier, not 'state' and not ending in '_key'"),
            (rows is None or (_whole(rows) and rows >= 1), "n_rows", "an integer >= 1 or None"),
            (_whole(self.width) and self.width >= 1, "width", "an integer >= 1"),
            (self.rule in RULES, "rule", " or ".join(map(repr, RULES))),
            (self.dtype in dtypes, "dtype", " or ".join(map(repr, dtypes))),
            (self.init in INITS, "init", " or ".join(map(repr, INITS))),
            (np.isfinite(self.scale), "scale", "a finite number"),
        ):
            if not good:
                value = getattr(self, what)
                raise ValueError(f"Table({self.name!r}, {what}={value!r}); expected {expected}.")


def _named(name: Any) -> bool:
    # it stands in checkpoints, beside arrays of keys and the group of states
    good = isinstance(name, str) and name.isidentifier()
    return good and name != "state" and not name.endswith("_key")


def _whole(x: Any) -> bool:
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of a partition that one step works on; the same at each of its visits.

    Only columns that occur in them are there, so that a step's work and what it pulls do not grow
    with the width of the data.
    """

    X: sp.csr_array
    """The values, float32, shape (n_rows, n_columns): column j is the data's ``columns[j]``."""
    columns: NDArray[Any]
    """Ids of the columns that occur, ascending, shape (n_columns,)."""
    y: NDArray[np.float64] | None
    """Labels, shape (n_rows,), or codes into the classes of the data; None if it has none."""
    weight: NDArray[np.float32]
    """Weights, shape (n_rows,); ones if the data has none."""
    places: Any = field(repr=False)
    """Where rows of tables are; for `Server`."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.weight)

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        arrays = (self.X.data, self.X.indices, self.X.indptr, self.columns, self.y, self.weight)
        held = sum(a.nbytes for a in arrays if a is not None)
        return int(held) + int(self.places.__sizeof__())


class Server(Protocol):
    """What a step sees of the parameter server; it is bound to one partition and clock."""

    @property
    def partition(self) -> int:
        """Number of the partition."""
        ...

    @property
    def clock(self) -> int:
        """Steps that the partition has finished."""
        ...

    def pull(self, table: str, keys: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return rows of a table.

        Parameters
        ----------
        table
            Its name.
        keys
            Which rows, distinct integers, shape (k,); None for all. ``rows.columns`` is the
            fastest, because where they are has been worked out before.

        Returns
        -------
        values
            Shape (k, width), a copy, in the order of `keys`.
        """
        ...

    def push(
        self,
        table: str,
        delta: NDArray[Any],
        keys: NDArray[Any] | None = None,
        *,
        response: NDArray[Any] | float = 0.0,
    ) -> None:
        """Change rows of a table, once a step and table; it is sent when the step ends.

        Parameters
        ----------
        table, keys
            As of `pull`; a table of steps must have been pulled by the same keys.
        delta
            What is added, shape (k, width).
        response
            For tables of steps: how much of the slope each number has used up by itself, >= 0, the
            sum of step size times curvature over the step. 0 adds as ``"sum"`` does.
        """
        ...

    def state(self) -> dict[str, NDArray[Any]] | None:
        """Return what these rows kept at their last visit, read-only; None at the first."""
        ...

    def keep(self, **arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Keep arrays beside these rows until their next visit; before any push of the step.

        Parameters
        ----------
        **arrays
            One for each name in `Model.keeps`; they become read-only.

        Returns
        -------
        kept
            What counts: the same, or what an attempt of this very step kept before its worker was
            lost. A delta that must agree with what is kept is made of this.
        """
        ...

    def random(self, seed: int = 0) -> np.random.Generator:
        """Return random numbers that depend on `seed`, partition and clock alone."""
        ...


class Model(ABC):
    """A model of your own: tables, and a step over some rows; `daskps.train` trains it.

    Consistency, checkpoints, recovery and moving workers come with it. A step is repeated when a
    worker is lost, so its result must depend on its arguments alone: no clock, no randomness but
    `Server.random`, nothing kept in ``self``. A model travels to workers, so it holds settings,
    not data; a frozen dataclass is best. Its ``repr`` names it in checkpoints: a run resumes only
    from those of a model that looks the same.

    Examples
    --------
    The mean of each column:

    >>> class Mean(daskps.Model):
    ...     def tables(self):
    ...         return [daskps.Table("sum", 3), daskps.Table("n", 1)]
    ...
    ...     def step(self, rows, server):
    ...         server.push("sum", rows.X.sum(axis=0)[:, None], rows.columns)
    ...         server.push("n", np.array([[len(rows)]]))
    ...         return 0.0
    >>> fitted = daskps.train(Mean(), np.eye(3), max_iter=1)
    >>> fitted["sum"] / fitted["n"]
    array([[0.33333334],
           [0.33333334],
           [0.33333334]], dtype=float32)
    """

    keeps: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays that `Server.keep` keeps; empty for none."""

    @abstractmethod
    def tables(self) -> Sequence[Table]:
        """Return the tables that hold the parameters."""

    @abstractmethod
    def step(self, rows: Rows, server: Server) -> float:
        """Pull, compute over `rows`, push; return the sum of the losses of the rows.

        The loss is that before the step, or on the way; its mean is shown, stands in the history,
        and decides about stopping early.
        """

    def evaluate(self, rows: Rows, server: Server) -> float:
        """Return the sum of the losses of held-out rows; pulls, and pushes nothing.

        Only for `daskps.train` with an `eval_set`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no method evaluate(rows, server); define it, or leave "
            "eval_set out."
        )

    def __repr__(self) -> str:
        """Return the class and its settings."""
        settings = ", ".join(f"{name}={value!r}" for name, value in sorted(vars(self).items()))
        return f"{type(self).__name__}({settings})"
