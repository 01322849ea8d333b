"""From a model, a dataset and options to a finished run: engine, resume, drive, collect."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from dask.utils import parse_timedelta
from msgspec import structs
from numpy.typing import NDArray

from daskps import config, html
from daskps.data import Dataset
from daskps.errors import CheckpointError, ShardLost
from daskps.run import checkpoint, partition_states
from daskps.run.checkpoint import Checkpoints
from daskps.run.coordinator import Coordinator
from daskps.run.driver import Listener, drive, overhearing
from daskps.run.engine import Engine
from daskps.run.inprocess import InProcessEngine
from daskps.run.ledger import Ledger
from daskps.run.plan import Conducted, Model, Plan
from daskps.run.policy import Policy, staleness_of
from daskps.run.recovery import goes_on
from daskps.run.size import check_fits, limits_of, size_of, tell
from daskps.run.state import State
from daskps.server.messages import Arrays
from daskps.server.spec import ServerSpec

logger = logging.getLogger("daskps")

N_SLOTS = 64


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to train, apart from the model; names and defaults are those of the estimators."""

    consistency: str = "bsp"
    staleness: int = 2
    quorum: float = 1.0
    max_iter: int = 10
    clocks_per_pass: int = 1
    tol: float | None = None
    n_iter_no_change: int = 2
    checkpoint: str | None = None
    checkpoint_every: int | str | None = None
    keep: int = 2
    n_shards: int | None = None
    replicas: int = 0
    rebalance: bool = True
    resume: bool = False
    listeners: Sequence[Listener] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run leaves."""

    reason: str
    """``max_iter``, ``tol`` or ``interrupted``."""
    clock: int
    values: dict[str, tuple[NDArray[Any] | None, NDArray[Any]]]
    """Keys (of hash tables) and parameters of each table."""
    ledger: Ledger
    state: State | None = field(repr=False)
    """Everything that the shards held, if it was asked for."""

    def _repr_html_(self) -> str:
        found = {"ended by": self.reason, "clocks": self.clock, "tables": ", ".join(self.values)}
        found["recoveries"] = len(self.ledger.recoveries)
        losses = self.ledger.to_xarray()["loss"].to_numpy().tolist()
        return html.facts("daskps run", found, html.line(losses, "training loss by clock"))


def run_training(
    model: Model,
    dataset: Dataset,
    options: RunOptions,
    *,
    held_out: Dataset | None = None,
    start: State | None = None,
    keep_state: bool = False,
    collect: Callable[[int, Arrays], None] | None = None,
    client: Any = None,
) -> Outcome:
    """Train `model` on `dataset`.

    Parameters
    ----------
    model, dataset, options
        What, on what, how.
    held_out
        Evaluated after each pass; decides about stopping early when `options.tol` is given.
    start
        Rows to start from, of a run with the same tables.
    keep_state
        Whether the outcome holds the rows with their updater state.
    collect
        Called after the run with each partition's number and what it keeps, one at a time; again
        from the first if a loss takes the result and the run goes on.
    client
        A `distributed.Client` to run on; None runs in this process.

    Raises
    ------
    CheckpointError
        If `options.resume` finds checkpoints of another run.
    NotEnoughMemory
        If the workers cannot hold the parameters.
    DaskpsError
        If training could not go on.
    """
    staleness = staleness_of(options.consistency, options.staleness, options.quorum)
    if staleness and isinstance(model, Conducted):
        raise ValueError(
            f"consistency={options.consistency!r} with {type(model).__name__}, which acts between "
            "clocks that are common to everybody; expected consistency='bsp'."
        )
    spec = ServerSpec(model.tables(), N_SLOTS, dataset.n_partitions, staleness, options.quorum)
    cuts = options.checkpoint is not None
    size = size_of(spec, dataset, cuts=cuts, replicas=options.replicas)
    tell(size)
    check_fits(size, *limits_of(_workers(client)), n_shards=options.n_shards)
    rows = tuple(int(n) for n in dataset.partition_rows)
    plan = Plan(
        *(uuid.uuid4().hex[:12], model, spec, options.clocks_per_pass, rows),
        call_timeout=config.seconds("call-timeout"),
    )
    checkpoints = _checkpoints(model, options)
    last_clock = options.max_iter * options.clocks_per_pass
    cut, manifest, whole = None, None, True
    if options.resume:
        cut, manifest, whole = _resumed(plan, checkpoints, last_clock)
    clocks = dict(enumerate(manifest.clocks)) if manifest else dict.fromkeys(range(len(rows)), 0)
    ledger = None
    if manifest is not None:
        ledger = checkpoint.ledger_from_builtins(manifest.ledger, plan.clocks_per_pass)
    if start is not None and not start.fits(spec):
        start = None  # another consistency or solver keeps other state: values cannot be carried
    engine = _engine(plan, dataset, held_out, options, checkpoints, client)
    engine.keeps_replicas = options.replicas > 0
    engine.recovery_timeout = config.seconds("recovery-timeout")
    engine.last_clock = last_clock
    try:
        engine.start(cut, clocks, start, whole)
        listeners = (*options.listeners, *overhearing())
        for listener in listeners:
            if hasattr(listener, "attach"):
                listener.attach(engine)
        policy = _policy(options, plan, engine.n_shards, staleness, held_out is not None)
        coordinator = Coordinator.start(policy, clocks if manifest else None, ledger)
        lost = None
        while True:
            reason = drive(engine, coordinator, listeners, lost=lost)
            try:
                values = {name: engine.values(name) for name in _results(model)}
                # what a conducted model keeps beside its results says nothing to another run
                keeps = keep_state and not isinstance(model, Conducted)
                state = engine.state() if keeps else None
                if collect is not None:
                    for p in range(len(rows)):
                        collect(p, _kept(engine, p, coordinator.min_clock))
                break
            except ShardLost:  # the result is lost with it: go back to a cut, or begin again
                if (lost := engine.silent()) is None:
                    raise
    finally:
        engine.close()
    return Outcome(reason, coordinator.min_clock, values, coordinator.ledger, state)


def _kept(engine: Engine, partition: int, clock: int) -> Arrays:
    """Return what a partition kept last; nothing in a run of no clocks."""
    found = engine.kept(partition)
    if clock and not found:
        raise CheckpointError(
            f"what partition {partition} keeps is lost, and the run ended at clock {clock}, before "
            "a step could make it again; call fit again, from the beginning."
        )
    return found


def _workers(client: Any) -> dict[str, Any]:
    """Return what the scheduler says of each worker."""
    if client is None or client.asynchronous:
        return {}
    try:
        found: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    except (OSError, TimeoutError):  # the engine says what is wrong
        return {}
    return found


def _results(model: Model) -> tuple[str, ...]:
    """Return the tables whose values leave the shards: those that a model names, or all."""
    named: tuple[str, ...] | None = getattr(model, "results", None)
    return tuple(t.name for t in model.tables()) if named is None else named


def _policy(
    options: RunOptions, plan: Plan, n_shards: int, staleness: float, evaluate: bool
) -> Policy:
    conducted = isinstance(plan.model, Conducted)
    every = options.checkpoint_every if options.checkpoint is not None else None
    return Policy(
        n_partitions=plan.server.n_partitions,
        n_shards=n_shards,
        n_clocks=options.max_iter * plan.clocks_per_pass,
        clocks_per_pass=plan.clocks_per_pass,
        staleness=staleness,
        quorum=options.quorum,
        checkpoint_clocks=every if isinstance(every, int) else None,
        checkpoint_seconds=parse_timedelta(every) if isinstance(every, str) else None,
        checkpoint_chosen=options.checkpoint is not None and every is None,
        evaluate=evaluate,
        keeps_states=plan.keeps_states and not plan.rebuilds,
        replicas=options.replicas,
        rebalance=options.rebalance,
        takes_turns=conducted,
        looks_on=plan.looks_on,
        # what a conducted model evaluates may be a point that it gives up: it judges by itself
        tol=None if conducted and not evaluate else options.tol,
        n_iter_no_change=options.n_iter_no_change,
        lease=config.seconds("lease"),
        patience=config.seconds("patience"),
        max_recoveries=config.count("max-recoveries"),
        probe=config.seconds("probe"),
    )


def _checkpoints(model: Model, options: RunOptions) -> Checkpoints | None:
    if options.checkpoint is None:
        return None
    if not options.resume and checkpoint.published(options.checkpoint):
        raise CheckpointError(
            f"checkpoint={options.checkpoint!r} holds checkpoints of an earlier run; pass "
            "resume=True to go on from them, or name another place, or delete it."
        )
    return Checkpoints(options.checkpoint, repr(model), options.keep)


def _resumed(
    plan: Plan, checkpoints: Checkpoints | None, last_clock: int
) -> tuple[str | None, checkpoint.Manifest | None, bool]:
    """Return the newest usable cut, its manifest, and whether all of it can be read.

    Neither cut nor manifest when there is no cut yet.
    """
    if checkpoints is None:
        raise CheckpointError("resume=True without a checkpoint; pass checkpoint='path.zarr'.")
    store, torn = checkpoints.store, list[str]()
    cuts = checkpoint.published(store)
    last: CheckpointError | None = None
    for cut in cuts:
        try:
            manifest = checkpoint.read_manifest(store, cut)
            # is every chunk whole?
            checkpoint.read_slots(store, cut, manifest, range(plan.server.n_slots))
            if plan.rebuilds and goes_on(store, cut, last_clock):
                torn.append(cut)
            for p in range(plan.server.n_partitions):
                partition_states.read(store, cut, manifest.states, [p])
        except CheckpointError as error:
            logger.warning("%s", error)
            last = error
            continue
        _check_same(plan, checkpoints, cut, manifest)
        return cut, manifest, True
    if torn:
        manifest = checkpoint.read_manifest(store, torn[0])
        _check_same(plan, checkpoints, torn[0], manifest)
        return torn[0], manifest, False
    if last is not None:  # what was asked for is not there: beginning anew must be asked for too
        raise CheckpointError(
            f"none of the {len(cuts)} cuts in checkpoint {checkpoints.store!r} can be used; the "
            f"oldest: {last} Delete the checkpoint to begin anew."
        ) from last
    return None, None, True


def _check_same(
    plan: Plan, checkpoints: Checkpoints, cut: str, manifest: checkpoint.Manifest
) -> None:
    made_by, server = checkpoints.fingerprint, plan.server
    earlier = getattr(plan.model, "earlier", None)
    if earlier is not None and manifest.model == repr(earlier):
        made_by, server = manifest.model, structs.replace(server, tables=earlier.tables())
    pairs = [
        ("the model", made_by, manifest.model),
        ("consistency", plan.server.staleness, manifest.server.staleness),
        ("quorum", plan.server.quorum, manifest.server.quorum),
        ("rows_per_clock", plan.clocks_per_pass, manifest.clocks_per_pass),
        ("the training data's partitions", list(plan.partition_rows), manifest.partition_rows),
        ("tables", msgspec.to_builtins(server), msgspec.to_builtins(manifest.server)),
    ]
    for what, now, then in pairs:
        if now != then:
            raise CheckpointError(
                f"cut {cut!r} of checkpoint {checkpoints.store!r} was made with another setting "
                f"of {what}: {_short(then)}, now {_short(now)}. Resume with the same settings and "
                "data, or start anew at another place."
            )


def _short(x: Any) -> str:
    text = repr(x)
    return text if len(text) <= 200 else text[:200] + "..."


def _engine(
    plan: Plan,
    dataset: Dataset,
    held_out: Dataset | None,
    options: RunOptions,
    checkpoints: Checkpoints | None,
    client: Any,
) -> Engine:
    if client is None:
        return InProcessEngine(
            plan, dataset, held_out, n_shards=options.n_shards or 1, checkpoints=checkpoints
        )
    from daskps.run.dask_engine import DaskEngine

    return DaskEngine(
        plan, dataset, held_out, client, n_shards=options.n_shards, checkpoints=checkpoints
    )
