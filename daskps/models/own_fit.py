"""Training a model of the user's own: `train`, and what it returns."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from numpy.typing import ArrayLike, NDArray

from daskps import html
from daskps.cluster import current_client
from daskps.data import Dataset, as_dataset
from daskps.errors import RunFailed
from daskps.models.linear import state_of
from daskps.models.own import Model, Table
from daskps.models.own_plan import OwnModel, OwnStatefulModel
from daskps.models.parameters import absolute, check_parameters, clocks_per_pass
from daskps.models.predict import held_out
from daskps.models.saved import check_room, complete, write_array
from daskps.monitor.plots import Plots
from daskps.monitor.progress import ClockCallback, progress_listeners
from daskps.run.launch import N_SLOTS, Outcome, RunOptions, run_training
from daskps.run.state import State

ASK = 60.0
"""Seconds in which workers must say whether they can import a module; they import daskps for it."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What training leaves; ``trained["name"]`` is the table of that name, (n_rows, width)."""

    model: Model
    tables: xr.Dataset
    """A variable for each table, with the dimensions ``<name>_row`` and ``<name>_column``; rows of
    a table of any keys have the keys as coordinates."""
    history: xr.Dataset = field(repr=False)
    """Loss, samples, seconds, bytes and staleness over clocks."""
    n_iter: int
    """Passes over the data."""
    stop_reason: str
    """``max_iter``, ``tol`` or ``interrupted``."""

    def __getitem__(self, table: str) -> NDArray[Any]:
        """Return the values of a table, (n_rows, width)."""
        return self.tables[table].to_numpy()

    def save(self, store: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the tables to a Zarr group, which `xarray.open_zarr` opens.

        Raises
        ------
        FileExistsError
            If there is something at `store` and `overwrite` is not given.
        """
        where = os.fspath(store)
        check_room(where, overwrite)
        group = zarr.open_group(where, mode="w", zarr_format=3)
        for name, array in self.tables.variables.items():
            write_array(group, str(name), array.to_numpy(), tuple(map(str, array.dims)))
        found = {"model": repr(self.model), "n_iter": self.n_iter, "stop_reason": self.stop_reason}
        complete(where, {"format": "tables", "version": 1, **found})

    @property
    def plot(self) -> Plots:
        """Plots of the training: ``plot.loss()``, ``.staleness()``, ``.throughput()``."""
        return Plots(self.history)

    def _repr_html_(self) -> str:
        sizes = (f"{name} {a.shape[0]} x {a.shape[1]}" for name, a in self.tables.items())
        found = {"tables": ", ".join(sizes), "passes": self.n_iter, "ended by": self.stop_reason}
        losses = html.line(self.history.loss.to_numpy().tolist(), "training loss by clock")
        return html.facts(f"{type(self.model).__name__}, trained", found, losses)


def train(
    model: Model,
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    consistency: Literal["bsp", "ssp", "asp"] = "bsp",
    staleness: int = 2,
    quorum: float = 1.0,
    max_iter: int = 10,
    tol: float | None = None,
    n_iter_no_change: int = 2,
    rows_per_clock: int | None = None,
    start: Mapping[str, ArrayLike] | None = None,
    eval_set: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | str | None = None,
    keep: int = 2,
    n_shards: int | None = None,
    replicas: int = 0,
    random_state: int | None = 0,
    resume: bool = False,
    progress: bool | None = None,
    callback: ClockCallback | None = None,
) -> Trained:
    """Train a model of your own on the current Dask cluster, or on threads where there is none.

    Ctrl-C ends training at the next clock; what was learnt until then is returned.

    Parameters
    ----------
    model
        Tables and a step.
    X, y, sample_weight
        A `daskps.Dataset`, the path or URL of one, or a matrix, shape (n_rows, n_features), with
        labels and weights, shape (n_rows,), or without.
    consistency
        ``"bsp"``: all partitions finish a clock before any begins the next, and the result is the
        same to the last bit on any number of workers. ``"ssp"``: the fastest may be `staleness`
        clocks ahead. ``"asp"``: nobody waits.
    staleness
        Of SSP, in clocks.
    quorum
        Share of the partitions, the fastest, that this looks at.
    max_iter
        Passes over the data.
    tol, n_iter_no_change
        Training ends when the mean loss, of the held-out data if there is any, has not become
        better than the best by `tol` in so many passes. None for the full `max_iter`.
    rows_per_clock
        Rows of a partition that one step gets; None for all of them.
    start
        What tables begin with, (n_rows, width), by name; the others begin as their `Table` says.
    eval_set
        Held-out data, evaluated after each pass by the model's `evaluate`: a Dataset, a path, or a
        tuple (X, y) or (X, y, sample_weight).
    checkpoint, checkpoint_every, keep
        Path or URL; clocks or a time such as ``"30s"`` (None: as often as costs the
        least time in all); how many are kept.
    n_shards
        Shards; None for one a worker.
    replicas
        1 keeps every shard once more, on another worker.
    random_state
        Seed of the shuffle of a matrix; None for a new one.
    resume
        Whether to go on from the newest usable cut in `checkpoint`.
    progress
        Whether to draw a bar or panel; None where somebody looks.
    callback
        Called with the number of clocks that all partitions have finished, and the mean loss of
        the last one; or an object with ``on_event``, see `daskps.monitor.callbacks`. What it
        raises ends training.

    Raises
    ------
    TypeError
        If `model` is no `Model`, or a table of it no `Table`.
    ValueError
        If an argument cannot be used.
    DataError
        If the data cannot be used.
    CheckpointError
        If `checkpoint` holds cuts of another run.
    RunFailed
        If training could not go on.
    """
    tables = _tables(model)
    _check(model, locals())
    _check_on_workers(model, current_client())
    dataset = as_dataset(X, y, sample_weight, random_state=random_state)
    clocks = 1 if rows_per_clock is None else clocks_per_pass(dataset, rows_per_clock)
    kind = OwnStatefulModel if model.keeps else OwnModel
    own = kind(model, consistency != "bsp", clocks)
    outcome = run_training(
        own,
        dataset,
        RunOptions(
            consistency=consistency,
            staleness=staleness,
            quorum=quorum,
            max_iter=max_iter,
            clocks_per_pass=clocks,
            tol=tol,
            n_iter_no_change=n_iter_no_change,
            checkpoint=absolute(checkpoint),
            checkpoint_every=checkpoint_every,
            keep=keep,
            n_shards=n_shards,
            replicas=replicas,
            resume=resume,
            listeners=progress_listeners(progress, callback),
        ),
        held_out=_held_out(model, eval_set, dataset),
        start=None if start is None else _state(own, tables, start),
        client=current_client(),
    )
    history, passes = outcome.ledger.to_xarray(), outcome.clock // clocks
    return Trained(model, _found(outcome), history, passes, outcome.reason)


def _tables(model: Any) -> tuple[Table, ...]:
    if not isinstance(model, Model):
        raise TypeError(
            f"train got {model!r} for a model; expected an instance of a class that derives from "
            "daskps.Model."
        )
    tables, name = tuple(model.tables()), type(model).__name__
    if wrong := [t for t in tables if not isinstance(t, Table)]:
        raise TypeError(f"{name}.tables() has {wrong[0]!r}; expected daskps.Table.")
    names = [t.name for t in tables]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"{name}.tables() has the tables {names}; expected at least one, each with a name of "
            "its own."
        )
    return tables


def _check(model: Model, given: Mapping[str, Any]) -> None:
    stored = (
        "consistency",
        "staleness",
        "quorum",
        "max_iter",
        "tol",
        "n_iter_no_change",
        "rows_per_clock",
        "checkpoint",
        "checkpoint_every",
        "keep",
        "n_shards",
        "replicas",
        "random_state",
        "progress",
    )
    check_parameters(_Arguments(**{name: given[name] for name in stored}))
    if given["eval_set"] is not None and type(model).evaluate is Model.evaluate:
        raise ValueError(
            f"eval_set given, but {type(model).__name__} has no method evaluate(rows, server); "
            "define it, or leave eval_set out."
        )


def _check_on_workers(model: Model, client: Any) -> None:
    """Refuse a class that workers cannot import: a message that names it would end them."""
    module, name = type(model).__module__, type(model).__qualname__
    if client is None or module == "__main__" or "<locals>" in name:
        return  # those travel with their code
    try:
        found = client.run(importable, module, on_error="return", callback_timeout=ASK)
    except TimeoutError:
        return  # a worker that hangs is noticed by the run itself
    if without := sorted(address for address, there in found.items() if there is False):
        raise RunFailed(
            f"{len(without)} of {len(found)} workers, {without[0]} among them, have no module "
            f"{module!r}, in which {name} is. Send its file with client.upload_file(...), install "
            "it on all workers, or define the class in the script or notebook that calls train."
        )


def importable(module: str) -> bool:
    """Return whether this process, a worker, finds a module."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor the package that it is in
        return False


class _Arguments(SimpleNamespace):
    """Arguments of `train`, as checks of estimators want to see them."""


_Arguments.__name__ = train.__name__


def _held_out(model: Model, eval_set: Any, dataset: Dataset) -> Dataset | None:
    any_width = any(t.n_rows is None for t in model.tables())
    return held_out(eval_set, dataset.n_features, dataset.hashing, any_width=any_width)


def _state(own: OwnModel, tables: tuple[Table, ...], start: Mapping[str, ArrayLike]) -> State:
    """Return the rows to begin with."""
    sized = {t.name: t for t in tables if t.n_rows is not None}
    if strangers := sorted(set(start) - set(sized)):
        raise ValueError(
            f"start has {strangers[0]!r}; expected names of tables with a number of rows: "
            f"{sorted(sized)}."
        )
    values, keys = {}, {}
    for spec in own.tables():
        if spec.keys == "hash":
            keys[spec.name] = np.empty(0, np.uint64)
        rows = np.arange(spec.n_rows)
        values[spec.name] = spec.init.values(rows, spec.width)
        if spec.name in start:
            values[spec.name] = _given(spec.name, start[spec.name], values[spec.name].shape)
    return state_of(own.tables(), values, keys, N_SLOTS)


def _given(name: str, given: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(given)
    if array.shape != shape or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(
            f"start[{name!r}] is of shape {array.shape} and type {array.dtype}; expected finite "
            f"numbers of shape {shape}."
        )
    return array


def _found(outcome: Outcome) -> xr.Dataset:
    """Return the tables of an outcome."""
    found = {}
    for name, (keys, values) in outcome.values.items():
        dims = (f"{name}_row", f"{name}_column")
        found[name] = xr.DataArray(
            values, dims=dims, coords={} if keys is None else {dims[0]: keys}
        )
    return xr.Dataset(found)
