"""What partitions keep: it agrees with the tables after any loss, in every consistency."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from movers import Kept, Movers
from training import TroubledEngine, Wrapped, data

from daskps.errors import CheckpointError, StaleLayout
from daskps.run import events as ev
from daskps.run import launch, partition_states
from daskps.run.checkpoint import published, read_manifest
from daskps.run.launch import RunOptions, run_training
from daskps.run.plan import StepServer
from daskps.server.messages import Ask
from daskps.server.shard import Shard
from daskps.server.spec import ServerSpec
from daskps.server.states import States

SHARDS = 3
OPTIONS = RunOptions(max_iter=3, clocks_per_pass=2, checkpoint_every=2, n_shards=SHARDS)


def run(
    options: RunOptions = OPTIONS, trained: Any = None, *, trouble: Any = None, **kwargs: Any
) -> tuple[Kept, np.ndarray]:
    """Return what partitions kept, and the counts that the tables hold."""
    kept = Kept()

    def make(*args: Any, **options: Any) -> TroubledEngine:
        engine = TroubledEngine(*args, **options)
        engine.settled, engine.trouble = True, trouble
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "InProcessEngine", make)
        outcome = run_training(trained or Movers(), data(), options, collect=kept, **kwargs)
    return kept, outcome.values["count"][1][:, 0]


@functools.cache
def calm() -> list[bytes]:
    kept, counts = run()
    np.testing.assert_array_equal(kept.counts, counts)
    return kept.bits


def with_(**changes: Any) -> RunOptions:
    return RunOptions(**{f: getattr(OPTIONS, f) for f in OPTIONS.__slots__} | changes)


@pytest.mark.parametrize("shards", [1, 4])
def test_bits_depend_on_data_and_seed_only(shards: int) -> None:
    kept, counts = run(with_(n_shards=shards))
    assert kept.bits == calm()
    assert counts.sum() == data().nnz
    assert all(state["moves"] == 5 for state in kept.values())
    assert run(trained=Movers(seed=1))[0].bits != calm()


@settings(max_examples=8)
@given(
    moments=st.dictionaries(
        st.integers(0, 24), st.sets(st.integers(0, SHARDS - 1), min_size=1), min_size=1, max_size=3
    )
)
@pytest.mark.parametrize("consistency", ["bsp", "ssp", "asp"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_state_and_tables_agree_after_losses_at_any_moment(
    tmp_path_factory: Any, checkpointed: bool, consistency: str, moments: dict[int, set[int]]
) -> None:
    def trouble(engine: TroubledEngine, number: int, action: ev.Action) -> None:
        engine.lose(*moments.get(number, ()))

    store = str(tmp_path_factory.mktemp("ckpt") / "c.zarr") if checkpointed else None
    kept, counts = run(with_(consistency=consistency, checkpoint=store), trouble=trouble)
    np.testing.assert_array_equal(kept.counts, counts)
    assert counts.sum() == data().nnz
    if consistency == "bsp":
        assert kept.bits == calm()


class Failing(Movers):
    """Fails once at some steps, after it has kept its state; some shards have counted its push."""

    failed: set[tuple[int, int]] = set()  # noqa: RUF012  # a test empties it

    def step(self, rows: Any, server: StepServer) -> Any:
        at = (server.partition, server.clock)
        if at in self.failed or server.clock not in (0, 3):
            return super().step(rows, server)
        self.failed.add(at)
        # as if another attempt had moved them elsewhere: the random numbers differ
        return Movers(seed=99).step(rows, _Halved(server))


class _Halved:
    """A server whose second shard does not get the push."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def push(self, keysets: Any, deltas: Any, **kwargs: Any) -> None:
        client = self._server._client
        full = dict(client._held)
        client._held = dict([*full.items()][:1])
        try:
            self._server.push(keysets, deltas, **kwargs)
        finally:
            client._held = full
        raise OSError("the connection broke")


@pytest.mark.parametrize("consistency", ["bsp", "ssp", "asp"])
def test_an_attempt_that_failed_halfway_decides_what_counts(consistency: str) -> None:
    Failing.failed.clear()
    kept, counts = run(with_(consistency=consistency), Failing())
    assert len(Failing.failed) == 2 * data().n_partitions
    np.testing.assert_array_equal(kept.counts, counts)


@pytest.mark.parametrize("shards", [1, 5])
@pytest.mark.parametrize("consistency", ["bsp", "ssp"])
def test_resuming_brings_back_what_was_kept(tmp_path: Path, shards: int, consistency: str) -> None:
    store = str(tmp_path / "c.zarr")
    run(with_(consistency=consistency, checkpoint=store, max_iter=2))
    again = with_(consistency=consistency, checkpoint=store, resume=True, n_shards=shards)
    kept, counts = run(again)
    np.testing.assert_array_equal(kept.counts, counts)
    if consistency == "bsp":
        assert kept.bits == calm()


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_a_cut_with_a_bad_state_is_passed_over(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = str(tmp_path / "c.zarr")
    run(with_(checkpoint=store, max_iter=2))
    newest, _ = published(store)
    assert set(read_manifest(store, newest).states) == {
        f"{p}/{n}" for p in range(3) for n in ("box", "moves")
    }
    chunk = next(p for p in (tmp_path / "c.zarr" / newest / "state/1/box/c").rglob("*"))
    if how == "missing":
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    kept, _ = run(with_(checkpoint=store, resume=True))
    assert kept.bits == calm()
    assert "'box', which partition 1 keeps, cannot be read" in caplog.text


def test_arrays_of_any_shape_come_back_from_a_cut(tmp_path: Path) -> None:

    store = str(tmp_path / "c.zarr")
    zarr.open_group(store, mode="w").create_group("cut-1")
    states = {
        0: {"a": np.arange(24, dtype=np.int16).reshape(2, 3, 4), "b": np.float64(3.5).reshape(())},
        7: {"a": np.zeros((0, 3), np.int16), "b": np.array(np.nan)},
    }
    partition_states.write(store, "cut-1", states)
    listed = partition_states.sizes(states)
    again = partition_states.read(store, "cut-1", listed, [0, 7])
    for p, state in states.items():
        for name, array in state.items():
            assert again[p][name].shape == array.shape
            assert again[p][name].dtype == array.dtype
            np.testing.assert_array_equal(again[p][name], array)
    assert list(partition_states.read(store, "cut-1", listed, [7])) == [7]
    with pytest.raises(CheckpointError, match="'a', which partition 0 keeps"):
        partition_states.read(store, "cut-1", {**listed, "0/a": 50}, [0])


def test_the_first_attempt_wins_and_only_what_may_be_asked_for_stays() -> None:
    states = States()
    first, second = {"x": np.zeros(3)}, {"x": np.ones(3)}
    assert states.before(0, 0) is None
    assert states.keep(0, 0, first) is first
    assert states.before(0, 0) is None  # the step is done again: it begins where it began
    assert states.keep(0, 0, second) is first
    assert states.before(0, 1) is first
    assert states.keep(0, 1, second) is second
    assert states.nbytes == 48
    assert states.before(0, 2) is second
    assert states.nbytes == 24
    late = {"x": np.zeros(3)}
    assert states.keep(0, 0, late) is late  # its push will be refused
    # an older step is done again for other shards: nothing is nearer to what it began with
    assert states.before(0, 1) is second
    assert states.newest()[0] is second
    with pytest.raises(ValueError, match="read-only"):
        second["x"][0] = 5


def test_questions_of_another_generation_are_refused() -> None:
    shard = Shard(ServerSpec(Movers().tables(), 4, 2, 0), range(4), 3)
    with pytest.raises(StaleLayout):
        shard.ask(Ask(2, 0, 0, "state"))


@pytest.mark.parametrize(
    ("arrays", "again", "what"),
    [
        ({"box": 0}, False, r"expected the names in its `keeps`: \['box', 'moves'\]"),
        ({"box": 0, "moves": 0}, True, "expected one call of keep, before push"),
    ],
)
def test_what_a_step_may_not_do_is_said(arrays: Any, again: bool, what: str) -> None:
    class Wrong(Movers):
        def step(self, rows: Any, server: StepServer) -> Any:
            for _ in range(1 + again):
                server.keep({name: np.zeros(2) for name in arrays})
            raise AssertionError

    with pytest.raises((ValueError, RuntimeError), match=what):
        run(trained=Wrong())


def test_a_model_that_keeps_nothing_has_no_state() -> None:

    def step(inner: Any, rows: Any, server: StepServer) -> Any:
        server.state()

    with pytest.raises(RuntimeError, match="has no property `keeps`"):
        run_training(Wrapped(step), data(), RunOptions())
