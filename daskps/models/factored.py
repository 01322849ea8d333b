"""What a fitted factorisation is: factors, biases, ids. Scores of pairs, and what tops the lists.

A plain value that travels to workers. Owns no parameters and no training; containers of answers
are in `recommender`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from daskps.data import vocabulary
from daskps.data.vocabulary import Vocabulary
from daskps.kernels.top_k import Seen, top_k
from daskps.models.user_rows import Rows, StoredRows, blocks

F32 = NDArray[np.float32]
Unknown = Literal["raise", "popular", "drop"]

TASK = 1024
"""Users whose lists one thread makes at a time."""


@dataclass(frozen=True)
class Factored:
    """Score of user u and item i: ``center + b_u + b_i + <p_u, q_i>``.

    Parameters
    ----------
    users, items
        Ids.
    P, Q
        Factors, (n_users, k) and (n_items, k); those of users perhaps in a store.
    user_bias, item_bias
        Shape (n_users,) and (n_items,).
    center
        What all scores begin with.
    counts
        Ratings of each item in the training data, shape (n_items,).
    """

    users: Vocabulary
    items: Vocabulary
    P: Rows
    Q: F32
    user_bias: F32
    item_bias: F32
    center: float
    counts: NDArray[np.int64]

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        arrays: list[NDArray[Any]] = [self.Q, self.user_bias, self.item_bias, self.counts]
        if not isinstance(self.P, StoredRows):
            arrays.append(self.P)
        ids = sum(int(v.memory_usage()) for v in (self.users, self.items))
        return sum(a.nbytes for a in arrays) + ids

    def numbers(self, ids: Any, what: Literal["user", "item"], unknown: Unknown) -> NDArray[Any]:
        """Return the numbers of ids, -1 for unknown ones.

        Raises
        ------
        DataError
            If there are unknown ones and `unknown` is ``"raise"``.
        """
        found = vocabulary.codes(self.users if what == "user" else self.items, ids)
        if unknown == "raise" and (found < 0).any():
            raise vocabulary.unknown(ids, found, what)
        return found

    def scores(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the scores of pairs of numbers; what is unknown (-1) counts as average."""
        if isinstance(self.P, StoredRows) and (np.diff(users) < 0).any():  # each chunk once
            order = np.argsort(users, kind="stable")
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            return self.scores(users[order], items[order])[back]
        out = np.empty(len(users), np.float64)
        for start in range(0, len(users), 2**18):
            u, i = users[start : start + 2**18], items[start : start + 2**18]
            known_u, known_i = u >= 0, i >= 0
            product = np.einsum("nk,nk->n", self.P[u], self.Q[i]) * (known_u & known_i)
            biases = self.user_bias[u] * known_u + self.item_bias[i] * known_i
            out[start : start + 2**18] = self.center + product.astype(np.float64) + biases
        return out

    @cached_property
    def popular(self) -> NDArray[np.int64]:
        """Items in the order of how many rated them, the most first."""
        return np.argsort(-self.counts, kind="stable")

    def lists(
        self, users: NDArray[np.int64], k: int, seen: Any, among: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the top items of known users: scores and numbers, (n, k), -1 where none is left.

        Parameters
        ----------
        users
            Numbers, none unknown.
        k
            Length of a list.
        seen
            Called with numbers of users; returns CSR rows of items to leave out. None leaves none.
        among
            Numbers of the items to choose from, ascending; None stands for all.
        """
        wide = np.column_stack([self.Q, self.item_bias])
        wide = wide if among is None else wide[among]
        if not len(wide):  # nothing to choose from
            return np.full((len(users), k), -np.inf), np.full((len(users), k), -1, np.int64)

        def some(start: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
            own = users[start : start + TASK]
            P = np.column_stack([self.P[own], np.ones(len(own), np.float32)])
            best, which = top_k(P, wide, k, None if seen is None else _seen(seen(own), among))
            score = best.astype(np.float64) + (self.center + self.user_bias[own])[:, None]
            return score, which if among is None else np.where(which < 0, -1, among[which])

        return _in_threads(some, range(0, len(users), TASK), k)

    def alike(
        self, numbers: NDArray[np.int64], k: int, what: Literal["user", "item"]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the rows of factors with the largest cosine to some of them, without itself."""
        F = self.P if what == "user" else self.Q
        mine = _unit(F[numbers])
        found = np.full((len(numbers), k), -np.inf), np.full((len(numbers), k), -1, np.int64)
        for first, rows in blocks(F):
            unit = _unit(rows)

            def some(start: int, first: int = first, unit: F32 = unit) -> Lists:
                part = slice(start, start + TASK)
                best, which = top_k(mine[part], unit, k, _itself(numbers[part] - first, len(unit)))
                return best.astype(np.float64), np.where(which < 0, -1, which + first)

            found = _best(found, _in_threads(some, range(0, len(numbers), TASK), k), k)
        return found

    def of_users(self, users: Vocabulary, P: F32, bias: F32) -> Factored:
        """Return the same items for other users."""
        return replace(self, users=users, P=P, user_bias=bias)


Lists = tuple[NDArray[np.float64], NDArray[np.int64]]


def _unit(rows: F32) -> F32:
    """Return rows of length 1; those of zeros stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: F32 = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit


def _itself(numbers: NDArray[np.int64], n: int) -> Seen:
    """Return what rules out the row of each number, if it is one of `n`."""
    here = (numbers >= 0) & (numbers < n)
    return Seen(np.concatenate(([0], np.cumsum(here))), numbers[here].astype(np.uint32))


def _best(a: Lists, b: Lists, k: int) -> Lists:
    """Return the `k` best of two lists a row; of equal scores those of `a` stay."""
    scores, which = (np.concatenate(pair, axis=1) for pair in zip(a, b, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(which, order, axis=1)


def _seen(rows: Any, among: NDArray[np.int64] | None) -> Seen:
    """Return CSR rows as the kernels take them, columns numbered as in `among`."""
    rows = scipy.sparse.csr_array(rows)
    if among is not None:
        rows = rows[:, among]
    rows.sort_indices()
    return Seen(rows.indptr.astype(np.int64), rows.indices.astype(np.uint32))


def _in_threads(
    some: Callable[[int], tuple[NDArray[np.float64], NDArray[np.int64]]],
    starts: Sequence[int],
    k: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what `some` returns for each start, stacked."""
    if not starts:
        return np.empty((0, k)), np.empty((0, k), np.int64)
    # a thread is the unit of parallelism: products are small, BLAS would only wait for itself
    with threadpool_limits(1), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(some, starts))
    return np.concatenate([a for a, _ in found]), np.concatenate([b for _, b in found])
