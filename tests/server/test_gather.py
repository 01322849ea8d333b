"""Sums of the pushes of a clock: the same numbers with and without room for all rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from daskps.server.gather import Gathered, united
from daskps.server.slot import TableSlot
from daskps.server.tables import Init, Placement, TableSpec
from daskps.server.updaters import FTRL, AdaGrad, AnyUpdater

ROWS = 60
CHOICES = st.one_of(
    st.none(), st.lists(st.integers(0, ROWS - 1), max_size=20, unique=True).map(sorted)
)


def push_to(idx: list[int] | None, seed: int, shape: tuple[int, ...] = (3, 2)) -> np.ndarray:
    n = ROWS if idx is None else len(idx)
    return np.abs(np.random.default_rng(seed).normal(size=(n, *shape))).astype(np.float32)


def positions(idx: list[int] | None) -> np.ndarray | None:
    return None if idx is None else np.array(idx, np.uint32)


@settings(max_examples=100)
@given(clock=st.lists(CHOICES, max_size=6), ascending=st.booleans())
def test_sums_are_those_of_an_array_of_all_rows(
    clock: list[list[int] | None], ascending: bool
) -> None:
    gathered, expected = Gathered(), np.zeros((ROWS, 3, 2), np.float32)
    for number, idx in enumerate(clock):
        chosen, push = positions(idx), push_to(idx, number)
        expected[slice(None) if chosen is None else chosen] += push
        gathered.add(chosen, push, ROWS, ascending=ascending)
        push[:] = np.nan  # the sender uses its memory again
        if chosen is not None:
            chosen[:] = 0
    if gathered.total is None:
        assert not clock
        return
    found = np.zeros_like(expected)
    found[slice(None) if gathered.idx is None else gathered.idx] = gathered.total
    np.testing.assert_array_equal(found, expected)
    if gathered.idx is not None:
        assert (np.diff(gathered.idx.astype(np.int64)) > 0).all()


@given(
    a=st.lists(st.integers(0, 50), unique=True).map(sorted),
    b=st.lists(st.integers(0, 50), unique=True).map(sorted),
)
def test_united_is_the_ascending_union(a: list[int], b: list[int]) -> None:
    both = united(np.array(a, np.uint32), np.array(b, np.uint32))
    assert both.tolist() == sorted(set(a) | set(b))


def slot(updater: AnyUpdater, start: float = 0.0) -> TableSlot:
    return TableSlot(
        Placement(TableSpec("w", ROWS, 2, updater, init=Init("constant", start)), 1), 0
    )


@settings(max_examples=60, deadline=None)
@given(
    clocks=st.lists(st.lists(CHOICES, max_size=4), min_size=1, max_size=5),
    start=st.sampled_from([0.0, 1.0]),
    l1_ratio=st.sampled_from([0.0, 0.5]),
)
def test_a_clock_that_touches_few_rows_gives_the_bits_of_one_that_names_them_all(
    clocks: list[list[list[int] | None]], start: float, l1_ratio: float
) -> None:
    """A push of zeros names a row and changes nothing."""
    for updater in (AdaGrad(alpha=0.01, l1_ratio=l1_ratio), FTRL(alpha=0.01, l1_ratio=l1_ratio)):
        few, many = slot(updater, start), slot(updater, start)
        for t, clock in enumerate(clocks):
            for number, idx in enumerate(clock):
                push, whole = push_to(idx, number), np.zeros((ROWS, 3, 2), np.float32)
                whole[slice(None) if idx is None else idx] = push
                few.fold(positions(idx), push)
                many.fold(None, whole)
            if not clock:
                many.fold(None, np.zeros((ROWS, 3, 2), np.float32))
            few.commit(10.0 * t, 10.0)
            many.commit(10.0 * t, 10.0)
            if t == 2:  # a cut is loaded: which rows are not zero is found out anew
                few.load(None, few.rows.copy())
        if isinstance(updater, AdaGrad):
            assert few.rows.tobytes() == many.rows.tobytes()
        else:  # its duals are rescaled where a row is named, which rounds
            T = 10.0 * len(clocks)
            np.testing.assert_allclose(few.values(T), many.values(T), rtol=1e-5, atol=1e-7)


def test_rows_that_nobody_touches_take_no_room() -> None:
    spec = TableSpec("w", 100_000, 1, AdaGrad(alpha=1e-4))
    place = Placement(spec, 1)
    big = TableSlot(place, 0)
    idx = np.arange(0, 10_000, 2, dtype=np.uint32)
    for shift in (0, 1, 0):
        big.fold(idx + np.uint32(shift), np.ones((len(idx), 3, 1), np.float32))
    assert big.pending_nbytes <= 0.2 * big.nbytes  # 10 % of rows, 3 numbers and a position beside 2
    big.commit(0.0, 1.0)
    assert big.pending_nbytes == 0
