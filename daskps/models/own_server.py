"""The server that a step of the user's own model sees: keys, rules and states put in its terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskps.models.own import Model, Rows
from daskps.run.plan import StepServer
from daskps.server.keys import KeySet, whole_table
from daskps.server.tables import Placement
from daskps.server.updaters import SGD


@dataclass(frozen=True, slots=True)
class Located:
    """Keys of a table as the server wants them, and as the user gave them."""

    keyset: KeySet
    order: NDArray[np.intp]
    """Place, among the user's keys, of each row of the key set."""

    def __sizeof__(self) -> int:
        """Return the bytes held."""
        return self.keyset.__sizeof__() + self.order.nbytes


@dataclass(frozen=True, slots=True)
class Places:
    """Where rows of tables are, as far as it is known before a step."""

    tables: Mapping[str, Placement]
    columns: Mapping[str, Located]
    """Of the columns that occur in some rows, by table."""

    def __sizeof__(self) -> int:
        """Return the bytes held."""
        return sum(found.__sizeof__() for found in self.columns.values())


def locate(place: Placement, keys: NDArray[Any]) -> Located:
    """Return where `keys`, distinct and shape (k,), are.

    Raises
    ------
    ValueError
        If one comes twice, is out of range, or is no integer.
    """
    name, n_rows = place.spec.name, place.spec.n_rows
    if keys.ndim != 1 or keys.dtype.kind not in "iu":
        raise ValueError(
            f"keys of table {name!r} are of shape {keys.shape} and type {keys.dtype}; expected "
            "integers, shape (k,)."
        )
    hashed = place.spec.keys == "hash"
    if not hashed and len(keys) and (int(keys.min()) < 0 or int(keys.max()) >= n_rows):
        raise ValueError(
            f"keys of table {name!r} reach from {keys.min()} to {keys.max()}; expected 0 to "
            f"{n_rows - 1}."
        )
    slots = place.slots(keys)
    at: NDArray[Any] = keys.astype(np.uint64) if hashed else place.positions(keys)
    order = np.lexsort((at, slots))
    at, slots = at[order], slots[order]
    if ((at[1:] == at[:-1]) & (slots[1:] == slots[:-1])).any():
        raise ValueError(f"keys of table {name!r} have one twice; expected distinct ones.")
    sizes = np.bincount(slots, minlength=place.n_slots)
    bounds = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    return Located(KeySet(name, bounds, at, hashed), order)


class Own(Protocol):
    """What must be known of the model that a step belongs to; see `own_plan`."""

    @property
    def model(self) -> Model:
        """What the user wrote."""
        ...

    @property
    def clocks_per_pass(self) -> int:
        """Slices of a partition."""
        ...


class BoundServer:
    """`daskps.models.own.Server` of one step, which says what each method does."""

    def __init__(self, own: Own, rows: Rows, server: StepServer, *, held_out: bool = False) -> None:
        self._own = own
        self._rows = rows
        self._places: Places = rows.places
        self._server = server
        self._held_out = held_out
        self._pulled: dict[str, tuple[NDArray[Any] | None, NDArray[Any]]] = {}
        self._pushed: dict[str, tuple[KeySet, NDArray[Any]]] = {}

    @property
    def partition(self) -> int:
        """Number of the partition."""
        return self._server.partition

    @property
    def clock(self) -> int:
        """Steps that the partition has finished."""
        return self._server.clock

    def random(self, seed: int = 0) -> np.random.Generator:
        """See `daskps.models.own.Server.random`."""
        return np.random.default_rng([seed, self.partition, self.clock])

    # -- tables ------------------------------------------------------------------------------

    def pull(self, table: str, keys: NDArray[Any] | None = None) -> NDArray[Any]:
        """See `daskps.models.own.Server.pull`."""
        place, found = self._place(table), self._located(table, keys)
        keyset = whole_table(place) if found is None else found.keyset
        (pulled,), _ = self._server.pull([keyset])
        rows = _to_user(place, keyset, found, pulled)
        if isinstance(place.spec.updater, SGD):
            self._pulled[table] = keys, rows
        return rows[:, 0].copy()  # steps change it, and a push repeats what was pulled

    def push(
        self,
        table: str,
        delta: NDArray[Any],
        keys: NDArray[Any] | None = None,
        *,
        response: NDArray[Any] | float = 0.0,
    ) -> None:
        """See `daskps.models.own.Server.push`."""
        place, found = self._place(table), self._located(table, keys)
        self._check_push(table)
        keyset = whole_table(place) if found is None else found.keyset
        change = self._change(place, delta, len(keyset), "delta")
        if isinstance(place.spec.updater, SGD):
            lam = self._change(place, response, len(keyset), "response")
            push = self._force(table, keys, change, lam, place.spec.updater)
        elif np.ndim(response) or response:
            raise ValueError(
                f"a push to table {table!r} came with a response; only tables with rule='steps' "
                "take one."
            )
        else:
            push = change[:, None]
        self._pushed[table] = keyset, _to_server(place, found, push)

    def pushes(self) -> tuple[Sequence[KeySet], Sequence[NDArray[Any]]]:
        """Return what the step has pushed."""
        pairs = self._pushed.values()
        return [keyset for keyset, _ in pairs], [push for _, push in pairs]

    def _place(self, table: str) -> Placement:
        if table not in self._places.tables:
            raise KeyError(
                f"{self._name} has no table {table!r}; expected one of "
                f"{sorted(self._places.tables)}."
            )
        return self._places.tables[table]

    def _located(self, table: str, keys: NDArray[Any] | None) -> Located | None:
        if keys is self._rows.columns and table in self._places.columns:
            return self._places.columns[table]
        place = self._place(table)
        if keys is None and place.spec.keys == "hash":
            raise ValueError(
                f"table {table!r} has a row for any key, so there is no 'all rows'; expected keys."
            )
        return None if keys is None else locate(place, np.asarray(keys))

    def _check_push(self, table: str) -> None:
        if self._held_out:
            raise RuntimeError(
                f"{self._name}.evaluate pushed to table {table!r}; held-out rows must not change "
                "the model."
            )
        if table in self._pushed:
            raise RuntimeError(
                f"{self._name}.step pushed to table {table!r} twice at clock {self.clock}; "
                "expected one push with all keys."
            )

    def _change(self, place: Placement, given: Any, n: int, what: str) -> NDArray[Any]:
        """Return what a push holds, (n, width), in the type of the table."""
        array, spec = np.asarray(given), place.spec
        dtype, shape = spec.updater.dtype, (n, spec.width)
        whole = array.dtype.kind in "biu"
        if not whole and not np.can_cast(array.dtype, dtype, "same_kind"):
            raise TypeError(
                f"{what} of a push to table {spec.name!r} is of type {array.dtype}; expected "
                f"{dtype} or what becomes it without loss."
            )
        try:
            return np.broadcast_to(array.astype(dtype, copy=False), shape)
        except ValueError:
            raise ValueError(
                f"{what} of a push to table {spec.name!r} has the shape {array.shape}; expected "
                f"{shape}, a row for each key."
            ) from None

    def _force(
        self,
        table: str,
        keys: NDArray[Any] | None,
        change: NDArray[Any],
        lam: NDArray[Any],
        updater: SGD,
    ) -> NDArray[Any]:
        """Return what the updater `SGD` takes of local steps."""
        if (lam < 0).any():
            raise ValueError(
                f"a response of a push to table {table!r} is {lam.min()}; expected numbers >= 0."
            )
        push = np.empty((len(change), updater.n_push, change.shape[1]), np.float32)
        push[:, 0] = (1 + lam) * change
        push[:, 1] = lam
        if updater.discount:
            by, rows = self._pulled.get(table, (keys, None))
            if rows is None or by is not keys:
                raise RuntimeError(
                    f"{self._name}.step pushed to table {table!r} by other keys than it pulled; "
                    "a table of steps takes a push by the same array of keys as the pull before."
                )
            push[:, 2:] = rows
        return push

    # -- states ------------------------------------------------------------------------------

    def state(self) -> dict[str, NDArray[Any]] | None:
        """See `daskps.models.own.Server.state`."""
        self._check_state()
        if self.clock < self._own.clocks_per_pass:
            return None
        return self._own_part(self._server.state() or {})

    def keep(self, **arrays: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """See `daskps.models.own.Server.keep`."""
        self._check_state()
        names = self._own.model.keeps
        if set(arrays) != set(names):
            raise ValueError(
                f"{self._name}.step kept {sorted(arrays)}; expected the names in its `keeps`: "
                f"{sorted(names)}."
            )
        now = {f"{name}.{self._slice}": _plain(name, a) for name, a in arrays.items()}
        before = self._server.state() or {}
        slices = range(self._own.clocks_per_pass)
        nothing = {f"{name}.{s}": np.empty(0, np.uint8) for s in slices for name in names}
        return self._own_part(self._server.keep({**nothing, **before, **now}))

    def _own_part(self, state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: state[f"{name}.{self._slice}"] for name in self._own.model.keeps}

    def _check_state(self) -> None:
        if self._held_out or not self._own.model.keeps:
            raise RuntimeError(
                f"{self._name} has no state here: "
                + ("held-out rows keep nothing." if self._held_out else "its `keeps` is empty.")
            )

    @property
    def _slice(self) -> int:
        return self.clock % self._own.clocks_per_pass

    @property
    def _name(self) -> str:
        return type(self._own.model).__name__


def _plain(name: str, given: Any) -> NDArray[Any]:
    """Return a copy that can be kept: what is kept becomes read-only, the user's stays his."""
    array = np.array(given, order="C")
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"the array {name!r} to be kept is of type {array.dtype}; expected numbers or booleans."
        )
    return array


def _to_user(
    place: Placement, keyset: KeySet, found: Located | None, pulled: NDArray[Any]
) -> NDArray[Any]:
    """Return rows, which stand in slot order, in the order of the user's keys."""
    rows = np.empty(pulled.shape, pulled.dtype)
    if found is not None:
        rows[found.order] = pulled
        return rows
    for slot in place.used(range(place.n_slots)):
        place.scatter(slot, pulled[slice(*keyset.span(slot, slot + 1))], rows)
    return rows


def _to_server(place: Placement, found: Located | None, rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows, which stand in the order of the user's keys, in slot order."""
    if found is not None:
        return rows[found.order]
    slots = place.used(range(place.n_slots))
    return np.concatenate([place.gather(slot, rows) for slot in slots])
