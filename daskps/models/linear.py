"""Linear models as the parameter server sees them: two tables and a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from daskps.data import Partition
from daskps.kernels import linear as kernel
from daskps.models.admission import COUNTS, Counted, Drawn, counted, counts_table, drawn, in_model
from daskps.run.plan import StepServer
from daskps.run.state import State
from daskps.server.keys import KeySet, localise, whole_table
from daskps.server.slot import TableSlot
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import FTRL, AdaGrad

COEF, INTERCEPT = "coef", "intercept"
_W = 2  # field of the working state that holds the weight


@dataclass(frozen=True, slots=True)
class LinearData:
    """Rows ready for the kernels: indices are positions in the first key set."""

    rows: kernel.Rows
    keysets: tuple[KeySet, ...]
    admission: Drawn | Counted | None = None
    """Which keys of the first key set these rows bring into the model; None: all."""

    @property
    def n_rows(self) -> int:
        """Number of samples."""
        return len(self.rows.indptr) - 1

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        arrays = sum(a.nbytes for a in self.rows if a is not None)
        keys = sum(k.__sizeof__() for k in self.keysets)
        return int(arrays) + keys + (self.admission.__sizeof__() if self.admission else 0)

    def only(
        self, known: NDArray[np.bool_], pulled: Sequence[NDArray[Any]]
    ) -> tuple[LinearData, list[NDArray[Any]]]:
        """Return data and pulled rows without the keys that are not `known`."""
        if known.all():
            return self, list(pulled)
        keysets = tuple(k.only(known) if k.hashed else k for k in self.keysets)
        rows = [p[known] if k.hashed else p for k, p in zip(self.keysets, pulled, strict=True)]
        left = kernel.without_unknown(self.rows, known)
        return dataclasses.replace(self, rows=left, keysets=keysets), rows

    def pull(self, server: StepServer) -> tuple[LinearData, list[NDArray[Any]], float]:
        """Pull rows; return what is left without features that stay out, its rows, and samples."""
        if self.admission is None:
            return self, *server.pull(self.keysets)
        pulled, seen = server.pull([*self.keysets, *self.admission.keysets])
        own, counts = pulled[: len(self.keysets)], pulled[len(self.keysets) :]
        entering = self.admission.enter(counts, server.passes)
        return *self.only(in_model(own[0]) | entering, own), seen

    def push(self, deltas: Sequence[NDArray[Any]], server: StepServer) -> None:
        """Push the deltas of what `pull` left, and the rows that were counted."""
        keysets, told = self.keysets, list(deltas)
        if self.admission is not None and (counts := self.admission.told(server.passes)):
            keysets, told = (*keysets, *self.admission.keysets), told + counts
        server.push(keysets, told, samples=self.n_rows)


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Linear classification or regression by local steps.

    Parameters
    ----------
    n_features
        Rows of the table of weights; 0 where keys create them.
    classes
        Names of the classes, ascending; the labels of partitions are positions in it. More than
        two have a margin each. Empty where labels are quantities.
    class_weight
        Factor of each class's samples, or None.
    solver
        ``adagrad`` or ``ftrl``.
    eta, beta, kappa
        See `daskps.kernels.linear.Rule`.
    alpha, l1_ratio
        Penalty, see `daskps.kernels.linear`.
    fit_intercept
        Whether there is an unpenalised intercept.
    discount
        Whether pushes are merged on arrival (SSP, ASP).
    loss
        What is minimised beside the penalty.
    admission, seed, cells
        Probability with which each row that has a feature brings it into the model, or from 2 on
        the rows that it takes, see `daskps.models.admission`; the seed of draws and cells; cells
        of the table of counts, if there is one.
    refined_after
        Samples after which steps are those of `daskps.models.refined`; None for never.
    short
        Whether weights are pushed as bfloat16, see `daskps.models.compressed`.
    """

    n_features: int
    classes: tuple[str | bool | float, ...]
    class_weight: tuple[float, ...] | None
    solver: Literal["adagrad", "ftrl", "lbfgs", "admm"]
    eta: float
    beta: float
    alpha: float
    l1_ratio: float
    fit_intercept: bool
    discount: bool
    loss: kernel.Loss = kernel.LOG_LOSS
    admission: float = 1.0
    seed: int = 0
    cells: int = 0
    refined_after: float | None = None
    short: bool = False
    kappa: float = 0.0

    @property
    def width(self) -> int:
        """Numbers a feature: one weight, or one for each class."""
        return 1 if len(self.classes) <= 2 else len(self.classes)

    @property
    def rule(self) -> kernel.Rule:
        """How the kernels step."""
        l2, l1 = self.alpha * (1 - self.l1_ratio), self.alpha * self.l1_ratio
        return kernel.Rule(self.solver == "ftrl", self.eta, self.beta, l2, l1, self.kappa)

    @property
    def _rules(self) -> tuple[kernel.Rule, kernel.Rule]:
        return self.rule, self.rule.unpenalised()

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables of weights and intercepts."""
        updater = FTRL if self.solver == "ftrl" else AdaGrad
        rule, free = self._rules
        common: Any = {"discount": self.discount, "refined_after": self.refined_after}
        if updater is AdaGrad:
            common["kappa"] = self.kappa
        penalised = updater(
            eta=rule.eta,
            beta=rule.beta,
            alpha=self.alpha,
            l1_ratio=self.l1_ratio,
            short=self.short,
            **common,
        )
        kind: Literal["range", "hash"] = "range" if self.n_features else "hash"
        found = [TableSpec(COEF, self.n_features, self.width, penalised, keys=kind)]
        if self.fit_intercept:
            own = updater(eta=free.eta, beta=free.beta, **common)
            found.append(TableSpec(INTERCEPT, 1, self.width, own))
        if self.cells:
            found.append(counts_table(self.cells, int(self.admission)))
        return tuple(found)

    @property
    def results(self) -> tuple[str, ...]:
        """Tables of weights and intercepts."""
        return (COEF, INTERCEPT) if self.fit_intercept else (COEF,)

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> LinearData:
        """Fold weights, and rewrite indices to positions in the key set."""
        keyset, local = localise(placements[COEF], partition.indices)
        keysets: tuple[KeySet, ...] = (keyset,)
        if self.fit_intercept:
            keysets += (whole_table(placements[INTERCEPT]),)
        assert partition.label is not None, partition  # labels were counted
        y: NDArray[Any] = partition.label.astype(np.float32 if self.width == 1 else np.int32)
        weight = partition.weight
        if self.class_weight is not None:
            factor = np.asarray(self.class_weight, np.float32)[y.astype(np.intp)]
            weight = factor if weight is None else weight * factor
        rows = kernel.Rows(partition.indptr, local, partition.values, y, weight)
        if self.admission < 1:
            chosen = drawn(keyset, rows, self.admission, self.seed)
            return LinearData(rows, keysets, chosen)
        if self.cells:
            how = int(self.admission), self.seed
            counts = counted(placements[COUNTS], keyset, rows, *how)
            return LinearData(rows, keysets, counts)
        return LinearData(rows, keysets)

    def step(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Take local steps over the rows on a snapshot and push what they changed."""
        data, deltas, figures = self.learn(data, server)
        data.push(deltas, server)
        return figures

    def learn(
        self, data: LinearData, server: StepServer
    ) -> tuple[LinearData, list[NDArray[Any]], dict[str, float]]:
        """Take local steps; return the data with the keys to push, the push, and figures."""
        data, pulled, seen = data.pull(server)
        return data, *self.steps(data, pulled, seen + server.samples_together, server)

    def steps(
        self, data: LinearData, pulled: list[NDArray[Any]], T_end: float, server: StepServer
    ) -> tuple[list[NDArray[Any]], dict[str, float]]:
        """Take local steps from pulled rows; return the push, and figures.

        `T_end` is the samples that all will have seen when the clock is over.
        """
        states = self._begin(pulled, T_end, server)
        bias = states[1] if self.fit_intercept else self._no_bias()
        loss = kernel.train(
            *(self.rule, data.rows, 0, data.n_rows, states[0], bias, T_end),
            loss=self.loss,
            fit_intercept=self.fit_intercept,
        )
        deltas: list[NDArray[Any]] = []
        for rule, p, state in zip(self._rules, pulled, states, strict=False):
            shape = (len(p), 3 if server.sync else 5, self.width)
            deltas.append(server.scratch(f"push {len(deltas)}", shape, np.float32))
            kernel.end(rule, p, state, T_end, deltas[-1])
        return deltas, {"loss": loss, "samples": float(data.n_rows)}

    def evaluate(self, data: LinearData, server: StepServer) -> Mapping[str, float]:
        """Return the sum of losses at the present weights."""
        w, b = self.weights(*server.pull(data.keysets), server)
        scores = kernel.decision(*data.rows[:3], w, b)
        loss = kernel.total_loss(self.loss, scores, data.rows.y, data.rows.weight)
        return {"loss": loss, "samples": float(data.n_rows)}

    def weights(
        self, pulled: list[NDArray[Any]], seen: float, server: StepServer
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return weights (m, width) and intercepts (width,) of pulled rows after `seen` samples."""
        if self.refined_after is not None:  # FTRL's penalty grows no further
            seen = min(seen, self.refined_after)
        states = self._begin(pulled, seen, server)
        bias = states[1] if self.fit_intercept else self._no_bias()
        return np.ascontiguousarray(states[0][:, _W]), np.ascontiguousarray(bias[0, _W])

    def _begin(
        self, pulled: list[NDArray[Any]], T: float, server: StepServer
    ) -> list[NDArray[np.float32]]:
        states: list[NDArray[np.float32]] = []
        for rule, rows in zip(self._rules, pulled, strict=False):
            shape = (len(rows), kernel.STATE_FIELDS, self.width)
            states.append(server.scratch(f"state {len(states)}", shape, np.float32))
            kernel.begin(rule, rows, T, states[-1])
        return states

    def _no_bias(self) -> NDArray[np.float32]:
        return np.zeros((1, kernel.STATE_FIELDS, self.width), np.float32)


def state_of(
    tables: tuple[TableSpec, ...],
    values: Mapping[str, NDArray[Any]],
    keys: Mapping[str, NDArray[np.uint64]],
    n_slots: int,
) -> State:
    """Return rows that hold `values`, (n_rows, width) by table, as if nothing had been seen.

    The rows of a hash table are those of its `keys`; a table without values begins as it would.
    """
    found: dict[str, dict[int, Any]] = {}
    for table in tables:
        place = Placement(table, n_slots)
        found[table.name] = {}
        held = keys[table.name] if table.keys == "hash" else None
        slots = None if held is None else place.slots(held)
        for slot in place.used(range(n_slots)):
            if table.name not in values:
                found[table.name][slot] = (None, TableSlot(place, slot).rows)
                continue
            if held is None:
                own, start = None, place.gather(slot, values[table.name])
            else:
                own = held[slots == slot]
                start = np.ascontiguousarray(values[table.name][slots == slot])
            shape = (len(start), table.updater.n_fields, table.width)
            rows = np.zeros(shape, table.updater.dtype)
            table.updater.init(rows, start)
            found[table.name][slot] = (own, rows)
    return State(0.0, found)


def goes_on_from(before: tuple[TableSpec, ...], now: tuple[TableSpec, ...]) -> bool:
    """Return whether rows of the tables `before` mean the same in the tables `now`."""
    return len(before) == len(now) and all(
        b == n or (b == replace(n, updater=b.updater) and _bare_adagrad(b) and _bare_adagrad(n))
        for b, n in zip(before, now, strict=True)
    )


def _bare_adagrad(table: TableSpec) -> bool:
    """Return whether the rows of `table` are weights and sums that no setting went into."""
    # with discount rows wait to be shrunk by their own alpha; FTRL's duals are scaled by eta
    return isinstance(table.updater, AdaGrad) and not table.updater.discount
