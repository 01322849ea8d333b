"""What every worker must know of a run, and what a model must be to be trained by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from numpy.typing import DTypeLike, NDArray

from daskps.data import Partition
from daskps.run.events import Turn
from daskps.server.keys import KeySet
from daskps.server.messages import Arrays
from daskps.server.spec import ServerSpec
from daskps.server.tables import Placement, TableSpec


class StepServer(Protocol):
    """What a model's step sees of the parameter server: bound to one (partition, clock)."""

    @property
    def sync(self) -> bool:
        """Whether pushes of a clock are merged together (BSP)."""
        ...

    @property
    def partition(self) -> int:
        """Number of the partition that the step is for."""
        ...

    @property
    def clock(self) -> int:
        """Clock that the step is for."""
        ...

    @property
    def passes(self) -> int:
        """How often the run has gone over the rows of this clock before."""
        ...

    @property
    def samples_together(self) -> int:
        """Samples that are merged together with this push: of all partitions in BSP."""
        ...

    def scratch(self, purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return memory with arbitrary content, for this step and this purpose."""
        ...

    def pull(self, keysets: Sequence[KeySet]) -> tuple[list[NDArray[Any]], float]:
        """Return the rows of each key set, and the samples that the shards had seen."""
        ...

    def rows(self, keyset: KeySet) -> Arrays:
        """Return rows of a table of cells: ``lengths``, ``columns`` and ``counts``, read-only."""
        ...

    def histogram(self, table: str) -> Arrays:
        """Return how many cells of a table have which count: ``counts`` and ``cells``."""
        ...

    def push(
        self, keysets: Sequence[KeySet], deltas: Sequence[NDArray[Any]], *, samples: float
    ) -> None:
        """Send deltas, once a step."""
        ...

    def state(self) -> Arrays | None:
        """Return what this partition kept the last time, read-only; None if it never did."""
        ...

    def keep(self, arrays: Arrays) -> Arrays:
        """Keep arrays until the partition's next step: once a step, before it pushes.

        They become read-only. What is returned counts: the same, or what an attempt of this very
        step kept before it failed, whose push may have reached some shards. Deltas that must agree
        with the state to the last bit in SSP and ASP are made of what is returned.
        """
        ...


class Model(Protocol):
    """A model is tables and a step; it is pickled to workers, so it holds settings only."""

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables that hold the parameters."""
        ...

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> Any:
        """Return what `step` needs of some rows of a partition: those of one clock.

        Called once where the partition is loaded. The result must have a true `__sizeof__`.
        """
        ...

    def step(self, data: Any, server: StepServer) -> Mapping[str, float]:
        """Pull, compute over prepared rows, push.

        The result must depend on the arguments alone. It holds the sums ``loss`` and ``samples``.
        """
        ...

    def evaluate(self, data: Any, server: StepServer) -> Mapping[str, float]:
        """Return the sums ``loss`` and ``samples`` over prepared rows, pushing nothing.

        Where partitions keep state, the server's is that of the training data's partition of the
        same number: held-out rows stand where their training rows do.
        """
        ...


class ServerFunctions(Protocol):
    """Server functions, run on every shard once a turn and call, however often that is repeated."""

    def __call__(self, function: str, **params: Any) -> Any:
        """Return what the slots' parts merge to; see `daskps.server.functions`."""
        ...


@runtime_checkable
class Conducted(Model, Protocol):
    """A model that acts on its tables after each clock, by server functions; BSP only.

    Its turns run in the driver, which sees what functions return: never the tables themselves.
    """

    @property
    def results(self) -> tuple[str, ...]:
        """Tables that hold the result; the others never leave the shards."""
        ...

    def take_turn(
        self, server: ServerFunctions, sums: Mapping[str, float], before: Mapping[str, Any] | None
    ) -> Turn:
        """Act on the tables after a clock.

        It is repeated when a shard did not answer, and then must call the same functions: the
        result must depend on the arguments alone.

        Parameters
        ----------
        server
            Runs server functions.
        sums
            Figures of the clock's steps, summed over partitions.
        before
            State of the turn before; None in the first.
        """
        ...


@runtime_checkable
class Onlooking(Conducted, Protocol):
    """A conducted model whose turns change nothing: the next clock runs while it looks.

    What it sees is the tables after the clock that the turn is about, whatever the next one has
    pushed by then.
    """

    @property
    def looks_at(self) -> tuple[str, ...]:
        """Names of the server functions that its turns call, none of which changes a table."""
        ...


@runtime_checkable
class Stateful(Model, Protocol):
    """A model whose partitions keep arrays from step to step (`StepServer.keep`).

    After a loss of a shard everybody goes back to the last cut, in every consistency, so that the
    tables and what the partitions keep agree; but see `Rebuilding`.
    """

    @property
    def keeps(self) -> tuple[str, ...]:
        """Names of the arrays."""
        ...


@runtime_checkable
class Rebuilding(Stateful, Protocol):
    """A stateful model that can make what a partition keeps from its rows and the tables.

    Its tables need not agree with the states to the last bit. So after a loss in SSP and ASP the
    lost shards alone go back; and where no whole cut is left, one without some states will do.
    Its steps ask for their state before they pull.
    """

    def rebuild_state(self, data: Sequence[Any], server: StepServer) -> Arrays:
        """Return what a partition may go on from whose state is lost.

        Parameters
        ----------
        data
            What `Model.step` gets at each clock of a pass.
        server
            Of the step that needs the state; for pulls.
        """
        ...


@runtime_checkable
class Sliced(Model, Protocol):
    """A model that cuts partitions in its own way, not into runs of rows."""

    def cut(
        self,
        partition: Partition,
        number: int,
        clocks_per_pass: int,
        placements: Mapping[str, Placement],
    ) -> Sequence[Any]:
        """Return what `step` gets at each clock of a pass; see `Model.prepare`."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A partition ready to train on: one entry a slice, so that each pulls its own keys only."""

    slices: tuple[Any, ...]

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        return sum(s.__sizeof__() for s in self.slices)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run as workers see it."""

    run: str
    model: Model
    server: ServerSpec
    clocks_per_pass: int
    partition_rows: tuple[int, ...]
    call_timeout: float = 10.0
    """Seconds that one call to a shard may take before the shard counts as silent."""

    def slice_of(self, n_rows: int, clock: int) -> slice:
        """Return the rows of a partition that `clock` is about."""
        s, of = clock % self.clocks_per_pass, self.clocks_per_pass
        return slice(n_rows * s // of, n_rows * (s + 1) // of)

    @property
    def looks_on(self) -> bool:
        """Whether the model's turns change nothing."""
        return isinstance(self.model, Onlooking)

    @property
    def keeps_states(self) -> bool:
        """Whether partitions keep anything."""
        return isinstance(self.model, Stateful)

    @property
    def rebuilds(self) -> bool:
        """Whether what partitions keep can be made again where it is lost."""
        return isinstance(self.model, Rebuilding)

    def prepare(self, partition: Partition, number: int) -> Prepared:
        """Return a partition of the training data, cut into the slices of a pass."""
        places = self.server.placements()
        if isinstance(self.model, Sliced):
            return Prepared(tuple(self.model.cut(partition, number, self.clocks_per_pass, places)))
        cuts = (self.slice_of(partition.n_rows, c) for c in range(self.clocks_per_pass))
        parts = (partition.rows(cut.start, cut.stop) for cut in cuts)
        return Prepared(tuple(self.model.prepare(part, places) for part in parts))

    def prepare_whole(self, partition: Partition, number: int) -> Prepared:
        """Return a partition of the held-out data, in one piece."""
        return Prepared((self.model.prepare(partition, self.server.placements()),))

    def samples_of(self, clock: int, partition: int) -> int:
        """Return the samples that are merged together with (partition, clock)."""
        together = self.partition_rows if self.server.sync else (self.partition_rows[partition],)
        slices = (self.slice_of(n, clock) for n in together)
        return sum(r.stop - r.start for r in slices)
