"""What runs on a worker for one (partition, clock), whatever the engine."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import DTypeLike, NDArray
from threadpoolctl import ThreadpoolController

from daskps.run.plan import Plan, Prepared
from daskps.server.buffers import Buffers
from daskps.server.client import ParameterClient, Transport
from daskps.server.keys import KeySet
from daskps.server.layout import Layout
from daskps.server.messages import Arrays
from daskps.server.states import LATEST

logger = logging.getLogger("daskps")


@functools.cache
def _pools() -> ThreadpoolController:
    # looking for the libraries takes 10 ms, as long as a small task
    return ThreadpoolController()


class _BoundServer:
    """`StepServer` of one task; measures what it does."""

    def __init__(
        self,
        plan: Plan,
        data: Prepared,
        client: ParameterClient,
        buffers: Buffers,
        partition: int,
        clock: int,
    ) -> None:
        self._client = client
        self._buffers = buffers
        self._plan = plan
        self._data = data
        self._id = {"partition": partition, "clock": clock}
        self.seconds = 0.0
        self.pushed = False
        self._pulled = False
        self._kept = False

    @property
    def sync(self) -> bool:
        return self._client.spec.sync

    @property
    def partition(self) -> int:
        return self._id["partition"]

    @property
    def clock(self) -> int:
        return self._id["clock"]

    @property
    def passes(self) -> int:
        return self._id["clock"] // self._plan.clocks_per_pass

    @property
    def samples_together(self) -> int:
        return self._plan.samples_of(self._id["clock"], self._id["partition"])

    def scratch(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return self._buffers.take(f"step {purpose}", shape, dtype)

    def pull(self, keysets: Sequence[KeySet]) -> tuple[list[NDArray[Any]], float]:
        self._pulled = True
        start = time.perf_counter()
        result = self._client.pull(keysets, **self._id)
        self.seconds += time.perf_counter() - start
        return result

    def rows(self, keyset: KeySet) -> Arrays:
        start = time.perf_counter()
        ask = functools.partial(self._client.rows, keyset, **self._id)
        if self.sync and keyset.at is None:
            version = (self._client.layout.generation, self.clock)
            found = self._buffers.together.rows(self._plan.run, keyset.table, version, ask)
        else:
            found = ask()
        self.seconds += time.perf_counter() - start
        return found

    def histogram(self, table: str) -> Arrays:
        start = time.perf_counter()
        found = self._client.histogram(table, **self._id)
        self.seconds += time.perf_counter() - start
        return found

    def push(
        self, keysets: Sequence[KeySet], deltas: Sequence[NDArray[Any]], *, samples: float
    ) -> None:
        if self.pushed:
            raise RuntimeError(
                "a step pushed more than once for partition {partition} at clock {clock}, which is "
                "the push's id; expected one push with all key sets.".format(**self._id)
            )
        self.pushed = True
        start = time.perf_counter()
        self._client.push(keysets, deltas, samples=samples, **self._id)
        self.seconds += time.perf_counter() - start

    def state(self) -> Arrays | None:
        self._check_stateful()
        start = time.perf_counter()
        found = self._client.state(**self._id)
        self.seconds += time.perf_counter() - start
        lost = found is None and self.clock > 0
        return self._rebuilt() if lost and self._plan.rebuilds else found

    def _rebuilt(self) -> Arrays:
        """Make the state again that no shard and no cut has any more."""
        # the memory of what was pulled would be used again under the step's hands
        assert not self._pulled, "a step that may rebuild asks for its state before it pulls"
        logger.warning(
            "what partition %s keeps is lost; it is made again at clock %s from its rows and the "
            "tables.",
            *(self.partition, self.clock),
        )
        model: Any = self._plan.model  # a Rebuilding one, as was checked
        made = model.rebuild_state(self._data.slices, self)
        # as the step before would have done: other attempts must go on from the same
        return self._client.keep(made, partition=self.partition, clock=self.clock - 1)

    def keep(self, arrays: Arrays) -> Arrays:
        self._check_stateful()
        if self.pushed or self._kept:
            raise RuntimeError(
                "a step kept state {what} for partition {partition} at clock {clock}; expected one "
                "call of keep, before push.".format(
                    what="after its push" if self.pushed else "twice", **self._id
                )
            )
        model: Any = self._plan.model  # a Stateful one, as was checked
        if set(arrays) != set(model.keeps):
            raise ValueError(
                f"{type(model).__name__}.step kept {sorted(arrays)}; expected the names in its "
                f"`keeps`: {sorted(model.keeps)}."
            )
        self._kept = True
        start = time.perf_counter()
        kept = self._client.keep(arrays, **self._id)
        self.seconds += time.perf_counter() - start
        return kept

    def _check_stateful(self) -> None:
        if not self._plan.keeps_states:
            raise RuntimeError(
                f"{type(self._plan.model).__name__} has no property `keeps`, so its partitions "
                "keep nothing; expected the names of the arrays that its steps keep."
            )


class _Watching(_BoundServer):
    """`StepServer` of an evaluation, while no step runs: in SSP partitions may be ahead of it."""

    def state(self) -> Arrays | None:
        self._check_stateful()
        return self._client.state(partition=self.partition, clock=LATEST)


def _client(plan: Plan, layout: Layout, transport: Transport) -> ParameterClient:
    # in BSP a loss takes everybody back: what was pulled since is of no use
    run = None if plan.server.sync else plan.run
    return ParameterClient(plan.server, layout, transport, run)


def run_task(
    plan: Plan, data: Prepared, partition: int, clock: int, layout: Layout, transport: Transport
) -> dict[str, float]:
    """Run one step and return its figures: the model's sums, seconds and bytes."""
    start = time.perf_counter()
    client = _client(plan, layout, transport)
    server = _BoundServer(plan, data, client, transport.buffers, partition, clock)
    with _pools().limit(limits=1):  # a worker thread is the unit of parallelism, BLAS is not
        metrics = plan.model.step(data.slices[clock % plan.clocks_per_pass], server)
    if not server.pushed:
        raise RuntimeError(
            f"{type(plan.model).__name__}.step pushed nothing for partition {partition} at clock "
            f"{clock}; a step must push exactly once, if only zeros."
        )
    seconds = time.perf_counter() - start
    return {
        **_figures(metrics),
        "seconds": seconds,
        "compute_seconds": seconds - server.seconds,
        "pulled_bytes": float(client.traffic.pulled),
        "pushed_bytes": float(client.traffic.pushed),
    }


def run_evaluation(
    plan: Plan, data: Prepared, partition: int, clock: int, layout: Layout, transport: Transport
) -> Mapping[str, float]:
    """Evaluate one prepared partition of the held-out dataset at the state of `clock`."""
    client = _client(plan, layout, transport)
    server = _Watching(plan, data, client, transport.buffers, partition, clock)
    with _pools().limit(limits=1):
        return _figures(plan.model.evaluate(data.slices[0], server))


def _figures(metrics: Mapping[str, float]) -> dict[str, float]:
    # numpy's numbers, which models return without thought, could not stand in a manifest
    return {name: float(x) for name, x in metrics.items()}


def mean_metrics(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return sums over partitions divided by the samples, in the order given."""
    samples = sum(p["samples"] for p in parts)
    names = [n for n in parts[0] if n != "samples"]
    return {n: sum(p[n] for p in parts) / samples for n in names} | {"samples": samples}
