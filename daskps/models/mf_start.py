"""Where a factorisation goes on from: the rows of the users and items that a fit before knew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daskps.data import vocabulary
from daskps.data.ratings import Ratings, first_users
from daskps.models.factored import Factored
from daskps.models.mf_als import ALSFactors
from daskps.models.mf_sgd import SGDFactors
from daskps.models.user_rows import Rows
from daskps.run.launch import N_SLOTS
from daskps.run.state import State
from daskps.server.messages import Arrays
from daskps.server.spec import ServerSpec

F32 = NDArray[np.float32]


def going_on(model: SGDFactors | ALSFactors, before: Factored, ratings: Ratings) -> State:
    """Return what a run over `ratings` begins with.

    Users and items that the fit before did not know, or that had no ratings then, begin as in any
    first fit; so does all else that a solver keeps.
    """
    dataset = ratings.dataset
    spec = ServerSpec(model.tables(), N_SLOTS, dataset.n_partitions, 0)
    known, Q, bias = _of(ratings.items, before.items, before.Q, before.item_bias)
    values = {name: (rows, known) for name, rows in model.item_tables(Q, bias).items()}
    first = first_users(dataset)

    def kept(partition: int) -> Arrays:
        own = ratings.users[first[partition] : first[partition + 1]]
        known, P, bias = _of(own, before.users, before.P, before.user_bias)
        return model.user_state(partition, P, bias, known)

    return State.begin(spec, values, kept)


def _of(
    ids: vocabulary.Vocabulary, among: vocabulary.Vocabulary, factors: Rows, bias: F32
) -> tuple[NDArray[np.bool_], F32, F32]:
    """Return which of `ids` have factors that are not all zero, and those; zeros for others."""
    numbers = vocabulary.codes(among, ids)
    rows, biases = np.zeros((len(ids), factors.shape[1]), np.float32), np.zeros(len(ids), "f4")
    there = np.flatnonzero(numbers >= 0)
    rows[there], biases[there] = factors[numbers[there]], bias[numbers[there]]
    return np.asarray(rows.any(axis=1)), rows, biases
