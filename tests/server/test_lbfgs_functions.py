"""Server functions of L-BFGS: what they compute, on any number of shards, and once a call."""

from __future__ import annotations

import numpy as np
import pytest
from in_process import Group, alone, make_spec

from daskps.errors import StaleLayout
from daskps.server._quasi_newton import N_SUMS
from daskps.server.functions import Block
from daskps.server.tables import Init, TableSpec
from daskps.server.updaters import Add, Total

PAIRS, N = 3, 50.0


def tables(name: str, n_rows: int, width: int) -> list[TableSpec]:
    memory = width * (2 + 2 * PAIRS)
    return [
        TableSpec(name, n_rows, width, Add(), init=Init("normal", 1.0, 1)),
        TableSpec(name + "x", n_rows, width, Add(), init=Init("normal", 1.0, 2)),
        TableSpec(name + "g", n_rows, width, Total(), init=Init("normal", N, 3)),
        TableSpec(name + "h", n_rows, width, Add(), init=Init("constant", 2 * N)),
        TableSpec(name + "m", n_rows, memory, Add(), init=Init("normal", 1.0, 4)),
    ]


SPEC = make_spec(*tables("w", 300, 2), *tables("b", 1, 2))


def block(name: str, l2: float, l1: float) -> Block:
    return Block(*(name + ending for ending in ("", "x", "g", "h", "m")), l2=l2, l1=l1)


BLOCKS = [block("w", 0.5, 0.3), block("b", 0.0, 0.0)]


class Vectors:
    """The tables of a group as float64 vectors, with the penalty of every coordinate."""

    def __init__(self, group: Group) -> None:
        def both(ending: str) -> np.ndarray:
            parts = [group.values(name + ending)[1].astype(np.float64) for name in "wb"]
            return np.concatenate([p.reshape(len(p) * 2, -1) for p in parts])

        self.x0, self.x, g, h = (both(e)[:, 0] for e in ("", "x", "g", "h"))
        self.memory = both("m")
        self.l2 = np.where(np.arange(602) < 600, 0.5, 0.0)
        self.l1 = np.where(np.arange(602) < 600, 0.3, 0.0)
        self.c = 1 / np.sqrt(h / N + self.l2)
        self.now = g / N + self.l2 * self.x

    def slope(self, g: np.ndarray, x: np.ndarray) -> np.ndarray:
        shrunk = np.sign(g) * np.maximum(np.abs(g) - self.l1, 0)
        return np.where(x == 0, shrunk, g + self.l1 * np.sign(x))


@pytest.mark.parametrize("n_shards", [1, 2, 4])
def test_measure_gives_the_products_of_scaled_vectors(n_shards: int) -> None:
    group = Group(SPEC, n_shards)
    sums = np.asarray(group.reduce("lbfgs_measure", blocks=BLOCKS, n=N, pairs=PAIRS))
    v = Vectors(group)
    p, s, y = v.slope(v.now, v.x), v.x - v.x0, v.now - v.memory[:, 0]
    S, Y = v.memory[:, 2 : 2 + PAIRS], v.memory[:, 2 + PAIRS :]
    yc, pc = v.c * y, v.c * p
    first = [
        (v.l2 * v.x**2 / 2 + v.l1 * np.abs(v.x)).sum(),
        v.slope(v.memory[:, 0], v.x0) @ s,
        *(p @ s, s @ y, yc @ yc, pc @ pc, s @ p, yc @ pc, p @ p),
    ]
    np.testing.assert_allclose(sums[:N_SUMS], first, rtol=1e-9)
    np.testing.assert_allclose(sums[N_SUMS:], np.r_[S.T @ yc, Y.T @ yc, S.T @ pc, Y.T @ pc])
    assert (
        sums.tobytes()
        == np.asarray(
            Group(SPEC, 3).reduce("lbfgs_measure", blocks=BLOCKS, n=N, pairs=PAIRS)
        ).tobytes()
    )


@pytest.mark.parametrize("accept", [False, True])
def test_move_accepts_turns_and_steps_inside_the_orthant(accept: bool) -> None:
    group, old = Group(SPEC, 2), Vectors(Group(SPEC, 2))
    a = np.random.default_rng(0).normal(size=1 + 2 * PAIRS)
    group.reduce(
        "lbfgs_move", blocks=BLOCKS, n=N, accept=accept, pair=1, coefficients=a, length=0.7
    )
    new = Vectors(group)
    if accept:
        np.testing.assert_array_equal(new.x0, old.x)
        np.testing.assert_allclose(new.memory[:, 3], (old.x - old.x0) / old.c, rtol=1e-6)
        change = old.c * (old.now - old.memory[:, 0])
        np.testing.assert_allclose(new.memory[:, 3 + PAIRS], change, rtol=1e-5)
    else:
        np.testing.assert_array_equal(new.x0, old.x0)
        np.testing.assert_array_equal(new.memory[:, 2:], old.memory[:, 2:])
    p = new.c * new.slope(new.memory[:, 0], new.x0)
    d = -(np.column_stack([p, new.memory[:, 2:]]) @ a)
    d[(new.l1 > 0) & (d * p >= 0)] = 0
    np.testing.assert_allclose(new.memory[:, 1], d, rtol=1e-4, atol=1e-5)
    to = new.x0 + 0.7 * new.c * new.memory[:, 1]
    to[(new.l1 > 0) & (to * new.x0 <= 0)] = 0
    np.testing.assert_allclose(new.x, to, rtol=1e-5, atol=1e-6)
    assert 0 < np.count_nonzero(new.x == 0) < 300


def test_a_call_that_comes_again_is_not_run_again() -> None:
    shard = alone(make_spec(TableSpec("w", 20, 1, Add(), init=Init("constant", 1.0))))
    double = {"a": 1.0, "table": "w", "into": "w"}

    def value() -> float:
        return float(shard.values("w", [0])[0][1][0, 0])

    answers = [shard.apply("axpy", double, generation=1, once=(1, 0)) for _ in range(2)]
    assert value() == 2
    assert answers[0] == answers[1]
    shard.apply("axpy", double, generation=1, once=(1, 1))
    shard.apply("axpy", double, generation=1, once=(1, 0))
    assert value() == 4
    shard.apply("axpy", double, generation=1, once=(2, 0))
    assert value() == 8
    shard.restore(2, {0: 0, 1: 0, 2: 0}, 0.0, None)
    with pytest.raises(StaleLayout):  # it was sent before everybody went back
        shard.apply("axpy", double, generation=1, once=(2, 1))
    shard.apply("axpy", double, generation=2, once=(2, 0))
    assert value() == 2
