"""Kernels of matrix factorisation against float64 references."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from daskps.kernels import mf
from daskps.kernels.top_k import Seen, top_k


def ratings(n_users: int, n_items: int, n: int, seed: int = 0) -> sp.csr_array:
    rng = np.random.default_rng(seed)
    keys = rng.choice(n_users * n_items, n, replace=False)
    values = rng.normal(size=n).astype(np.float32)
    return sp.csr_array((values, np.divmod(keys, n_items)), shape=(n_users, n_items))


def cut(X: sp.csr_array, n_blocks: int) -> list[mf.Block]:
    arrays = (X.indptr.astype(np.int64), X.indices.astype(np.uint32), X.data)
    return mf.blocks(*arrays, n_blocks, center=0.5, unit=2.0)


def test_blocks_hold_every_rating_once_scaled() -> None:
    X = ratings(300, 40, 3000)
    found = cut(X, 3)
    assert [set(b.items % 3) for b in found] == [{0}, {1}, {2}]
    back = np.zeros(X.shape)
    for b in found:
        assert not back[b.users, b.items].any()
        back[b.users, b.items] = b.ratings * 2.0 + 0.5
        assert (np.diff(b.users.astype(int)) >= 0).all()
    np.testing.assert_allclose(back, X.toarray(), atol=1e-6)


def test_visits_go_by_run_of_items_and_tile_of_users_and_else_by_chance() -> None:
    (block,) = cut(ratings(300, 40, 3000), 1)
    width = mf.RUN_BYTES // (4 * 16)  # runs of 16 items
    found = mf.in_order(block, block.items, width, 0)

    def sorted_rows(b: mf.Block) -> list[tuple[int, int, float]]:
        return sorted(zip(b.users.tolist(), b.items.tolist(), b.ratings.tolist(), strict=True))

    assert sorted_rows(found) == sorted_rows(block)
    place = found.items // 16 * 1000 + found.users // 64
    assert (np.diff(place.astype(int)) >= 0).all()
    assert (np.diff(found.users[place == 0].astype(int)) < 0).any()
    same, other = (mf.in_order(block, block.items, width, seed) for seed in (0, 1))
    np.testing.assert_array_equal(found.items, same.items)
    assert not np.array_equal(found.items, other.items)


def reference_sgd(
    b: mf.Block, rule: mf.Rule, P: np.ndarray, Q: np.ndarray, SP: np.ndarray, SQ: np.ndarray,
    all_factors: bool, response: np.ndarray,
) -> float:  # fmt: skip
    k, total = rule.n_factors, 0.0
    own = slice(0, k if all_factors else min(mf.LANES, k))
    for u, i, r in zip(b.users, b.items, b.ratings, strict=True):
        e = r - SP[u, 0] - SQ[i, 0] - P[u] @ Q[i]
        total += e * e
        response[i] += rule.eta / np.sqrt(SQ[i, 1]) * P[u] @ P[u], rule.eta / np.sqrt(SQ[i, 2])
        gp, gq = e * Q[i, own] - rule.l2 * P[u, own], e * P[u, own] - rule.l2 * Q[i, own]
        P[u, own] += rule.eta / np.sqrt(SP[u, 1]) * gp
        Q[i, own] += rule.eta / np.sqrt(SQ[i, 1]) * gq
        SP[u, 1] += (gp**2).mean()
        SQ[i, 1] += (gq**2).mean()
        if rule.biases:
            gu, gi = e - rule.bias_l2 * SP[u, 0], e - rule.bias_l2 * SQ[i, 0]
            SP[u, 0] += rule.eta / np.sqrt(SP[u, 2]) * gu
            SQ[i, 0] += rule.eta / np.sqrt(SQ[i, 2]) * gi
            SP[u, 2] += gu**2
            SQ[i, 2] += gi**2
    return total


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    ("k", "biases", "all_factors"), [(5, True, True), (20, True, False), (20, False, True)]
)
def test_sgd_is_that_of_the_equations(
    k: int, biases: bool, all_factors: bool, merged: bool
) -> None:
    rng, (block,) = np.random.default_rng(1), cut(ratings(30, 20, 250), 1)
    block = mf.in_order(block, block.items, mf.padded(k), 1)
    rule = mf.Rule(k, 0.1, 0.03, 0.05, biases)

    def start(n: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.zeros((n, mf.padded(k)), np.float32)
        rows[:, :k] = rng.normal(size=(n, k)) * 0.3
        return rows, np.tile(np.array([0, 1, 1, 1], np.float32), (n, 1))

    (P, SP), (Q, SQ) = start(30), start(20)
    wide = [a.astype(np.float64)[:, : k if a.shape[1] > 4 else 4] for a in (P, Q, SP, SQ)]
    response, expected = np.zeros((20, 2), np.float32), np.zeros((20, 2))
    how = {"all_factors": all_factors, "response": response if merged else None}
    total = mf.sgd(block, rule, P, Q, SP, SQ, **how)
    want = reference_sgd(block, rule, *wide, all_factors, expected)
    assert total == pytest.approx(want, rel=1e-4)
    if not merged:
        expected[:] = 0
    for got, ref in zip((P[:, :k], Q[:, :k], SP, SQ, response), (*wide, expected), strict=True):
        np.testing.assert_allclose(got, ref, rtol=2e-3, atol=2e-5)
    assert not P[:, k:].any()
    assert not Q[:, k:].any()


def test_rows_begin_where_lines_of_the_cache_do() -> None:
    for n in (1, 3, 1000):
        found = mf.rows(n, 32)
        assert found.shape == (n, 32)
        assert found.ctypes.data % mf.LINE == 0
        assert not found.any()


@pytest.mark.parametrize("implicit", [False, True])
def test_users_are_solved_for_and_items_get_their_sums(implicit: bool) -> None:
    rng, X = np.random.default_rng(2), ratings(40, 15, 300)
    k, l2, width = 6, 0.7, mf.padded(6)
    of = mf.entries(X.indptr.astype(np.int64), X.indices.astype(np.uint32), X.data, width)
    order = np.lexsort((of.items, np.repeat(np.arange(40), np.diff(X.indptr)) // (2**19 // 64)))
    np.testing.assert_array_equal(of.ordered, X.data[order])
    Y = np.zeros((15, width), np.float32)
    Y[:, :k] = rng.normal(size=(15, k))
    w = np.abs(X.data) if implicit else None
    t = 1 + w if w is not None else X.data
    gram = Y.T @ Y if implicit else None
    found = np.zeros((40, width), np.float32)
    loss = mf.solve_users(of, w, t, Y, gram, l2, 30, found)
    D = Y[:, :k].astype(np.float64)
    for u in range(40):
        own = slice(X.indptr[u], X.indptr[u + 1])
        R, c = D[X.indices[own]], np.ones(len(X.indices[own])) if w is None else w[own]
        A = (R.T * c) @ R + l2 * np.eye(k) * (1 if implicit else len(R))
        A += D.T @ D if implicit else 0
        np.testing.assert_allclose(found[u, :k], np.linalg.solve(A, R.T @ t[own]), atol=2e-3)

    users, columns = np.repeat(np.arange(40), np.diff(X.indptr)), X.indices
    s = np.einsum("nk,nk->n", found[users], Y[columns]).astype(float)
    errors = (t - s) ** 2 / 2 if w is None else t * (1 - s) ** 2 - s**2
    assert loss == pytest.approx(errors.sum(), rel=1e-4)

    out, V = np.zeros_like(Y), Y
    mf.item_sums(of, None if w is None else w[order], t[order], found, V, out)
    s = s * (1 if w is None else w)
    expected = np.zeros_like(out, np.float64)
    np.add.at(expected, columns, ((t - s)[:, None] * found[users]).astype(np.float64))
    np.testing.assert_allclose(out, expected, rtol=1e-3, atol=1e-3)


def test_the_largest_products_come_first_without_those_that_are_ruled_out() -> None:
    rng = np.random.default_rng(3)
    # whole numbers: products are exact, and many are equal
    P, Q = (rng.integers(-2, 3, (n, 3)).astype(np.float32) for n in (150, 4500))
    seen = sp.csr_array(rng.random((150, 4500)) < 0.3)
    best, which = top_k(P, Q, 7, Seen(seen.indptr.astype(np.int64), seen.indices.astype(np.uint32)))
    scores = np.where(seen.toarray(), -np.inf, P @ Q.T)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(which, order)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, order, axis=1))


def test_lists_are_short_where_few_are_left() -> None:
    all_but_one = Seen(np.array([0, 2]), np.array([0, 2], np.uint32))
    best, which = top_k(np.ones((1, 2), "f4"), np.ones((3, 2), "f4"), 5, all_but_one)
    assert which.tolist() == [[1, -1, -1, -1, -1]]
    assert np.isneginf(best[0, 1:]).all()


def test_entries_are_sorted_by_tile_and_item_also_where_there_are_many_items() -> None:
    X = ratings(5000, 200_000, 20_000)
    width = mf.TILE_BYTES // (4 * 100)  # tiles of 100 users
    of = mf.entries(X.indptr.astype(np.int64), X.indices.astype(np.uint32), X.data, width)
    rows = np.repeat(np.arange(5000), np.diff(X.indptr))
    order = np.lexsort((X.indices, rows // 100))
    np.testing.assert_array_equal(of.rows, rows[order])
    np.testing.assert_array_equal(of.columns, X.indices[order])
    np.testing.assert_array_equal(of.ordered, X.data[order])
