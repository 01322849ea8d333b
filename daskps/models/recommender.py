"""What a fitted factorisation is asked: predictions, lists, neighbours, new users.

Owns the containers of questions and answers. Scores and lists are made by `factored`, quality is
measured by `ranking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dask
import numpy as np
import pandas as pd
import scipy.sparse
import xarray as xr
from dask.sizeof import sizeof
from numpy.typing import NDArray

from daskps.cluster import current_client
from daskps.data import Dataset, vocabulary
from daskps.data.ratings import Ratings, first_users
from daskps.errors import DataError
from daskps.models.answers import LARGE
from daskps.models.factored import Factored, Unknown

COLUMNS = ("user", "item", "score", "rank")


@dataclass(frozen=True, slots=True)
class SeenBy:
    """What the users of a dataset have rated."""

    dataset: Dataset

    def __call__(self, users: NDArray[np.int64]) -> Any:
        """Return CSR rows, one for each of `users`, which are numbers."""
        first = first_users(self.dataset)
        owner = np.searchsorted(first, users, side="right") - 1
        order, parts = np.argsort(owner, kind="stable"), []
        for p in np.unique(owner):
            rows = self.dataset.partition(int(p)).to_scipy()
            parts.append(rows[users[owner == p] - first[p]])
        back = np.empty(len(users), np.int64)
        back[order] = np.arange(len(users))
        return scipy.sparse.vstack(parts, format="csr")[back]


@dataclass(frozen=True, slots=True)
class ListMaker:
    """How lists are made, once the users are known; it travels to workers."""

    model: Factored
    k: int
    seen: SeenBy | None
    among: NDArray[np.int64] | None
    unknown: Unknown

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        return int(self.model.__sizeof__())

    def __call__(self, ids: Any) -> pd.DataFrame:
        """Return the lists of `ids`, one after the other."""
        ids = vocabulary.of(ids)
        numbers = self.model.numbers(ids, "user", self.unknown)
        known = numbers >= 0
        scores, which = self.model.lists(numbers[known], self.k, self.seen, self.among)
        if self.unknown == "popular" and not known.all():
            scores, which = self._with_popular(known, scores, which)
            known = np.ones(len(ids), bool)
        return framed(ids[known], self.model.items, scores, which, COLUMNS)

    def _with_popular(
        self, known: NDArray[np.bool_], scores: NDArray[Any], which: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        order = self.model.popular
        if self.among is not None:
            order = order[np.isin(order, self.among)]
        order = order[: self.k]
        all_scores = np.full((len(known), self.k), -np.inf)
        all_which = np.full((len(known), self.k), -1, np.int64)
        all_scores[known], all_which[known] = scores, which
        all_which[~known, : len(order)] = order
        all_scores[~known, : len(order)] = self.model.center + self.model.item_bias[order]
        return all_scores, all_which


def framed(
    left: Any, right: Any, scores: NDArray[Any], which: NDArray[Any], columns: Sequence[str]
) -> pd.DataFrame:
    """Return lists, (n, k), as a table with a row for each entry; -1 is none."""
    there = which >= 0
    rank = np.broadcast_to(np.arange(1, which.shape[1] + 1), which.shape)[there]
    one = left.take(np.repeat(np.arange(len(left)), there.sum(axis=1)))
    data = (one, right.take(which[there]), scores[there], rank)
    return pd.DataFrame(dict(zip(columns, data, strict=True)))


class Recommender:
    """What can be asked of a fitted factorisation.

    A subclass sets `_factored`, and `_ratings` where it knows what users have rated.
    """

    _factored: Factored
    _ratings: Ratings | None = None

    @property
    def user_factors_(self) -> xr.DataArray:
        """Factors of users, (user, factor), with ids as coordinates."""
        return _labelled(self._model().P, "user", self._model().users)

    @property
    def item_factors_(self) -> xr.DataArray:
        """Factors of items, (item, factor), with ids as coordinates."""
        return _labelled(self._model().Q, "item", self._model().items)

    @property
    def user_bias_(self) -> xr.DataArray:
        """Biases of users; zeros where there are none."""
        return _labelled(self._model().user_bias, "user", self._model().users)

    @property
    def item_bias_(self) -> xr.DataArray:
        """Biases of items; zeros where there are none."""
        return _labelled(self._model().item_bias, "item", self._model().items)

    @property
    def mean_(self) -> float:
        """Mean rating, which scores begin with; 0 with implicit feedback."""
        return self._model().center

    def predict(self, users: Any, items: Any, *, unknown: Unknown = "raise") -> Any:
        """Return the score of each pair of a user and an item.

        Parameters
        ----------
        users, items
            Ids, of the same length, or one id for all.
        unknown
            What to do with ids that were not in the training data: ``"raise"``; ``"popular"``
            takes them as average, so that what is known of the other one decides; ``"drop"`` gives
            NaN.

        Returns
        -------
        scores
            Shape (n,), float64.

        Raises
        ------
        DataError
            If an id is unknown and `unknown` is ``"raise"``, or lengths differ.
        """
        model = self._model()
        _check_unknown(unknown)
        u, i = (_several(ids) for ids in (users, items))
        if len(u) != len(i) and 1 not in (len(u), len(i)):
            raise DataError(
                f"predict got {len(u)} users and {len(i)} items; expected pairs, or one id for all."
            )
        n = max(len(u), len(i)) if min(len(u), len(i)) else 0
        numbers = model.numbers(u, "user", unknown), model.numbers(i, "item", unknown)
        nu, ni = (np.broadcast_to(x, n) if len(x) == 1 else x for x in numbers)
        found = model.scores(nu, ni)
        return np.where((nu < 0) | (ni < 0), np.nan, found) if unknown == "drop" else found

    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: Any = None,
        unknown: Unknown = "raise",
    ) -> Any:
        """Return the items with the highest scores for each user.

        Parameters
        ----------
        users
            Ids; None stands for all users. A dask Series or array gives a dask DataFrame, whose
            partitions are computed where and when they are needed.
        k
            Length of a list; where fewer items are left it is shorter.
        exclude_seen
            Whether items are left out that the user has rated in the training data.
        candidates
            Ids of the items to choose from; None stands for all.
        unknown
            What to do with users that were not in the training data: ``"raise"``; ``"popular"``
            gives them the items that most users rated; ``"drop"`` gives them no list.

        Returns
        -------
        lists
            Columns user, item, score and rank (from 1); one user after the other, in their order.

        Raises
        ------
        DataError
            If an id is unknown, or what users have seen is not.
        """
        model = self._model()
        _check_unknown(unknown)
        _check_k(k)
        among = None
        if candidates is not None:
            among = np.unique(model.numbers(_several(candidates), "item", "raise"))
        seen = SeenBy(self._seen()) if exclude_seen else None
        make = ListMaker(model, int(k), seen, among, unknown)
        if users is None:
            return make(model.users)
        if hasattr(users, "to_delayed") and hasattr(users, "dask"):
            return _lazily(make, users)
        return make(_several(users))

    def similar_items(self, items: Any, k: int = 10) -> pd.DataFrame:
        """Return the items whose factors point most nearly the same way.

        Parameters
        ----------
        items
            Ids, or one.
        k
            Length of a list.

        Returns
        -------
        neighbours
            Columns item, similar, score (cosine) and rank.
        """
        return self._similar(items, k, "item")

    def similar_users(self, users: Any, k: int = 10) -> pd.DataFrame:
        """Return the users whose factors point most nearly the same way; see `similar_items`."""
        return self._similar(users, k, "user")

    def _similar(self, ids: Any, k: int, what: Literal["user", "item"]) -> pd.DataFrame:
        model = self._model()
        _check_k(k)
        wanted = _several(ids)
        numbers = model.numbers(wanted, what, "raise")
        scores, which = model.alike(numbers, int(k), what)
        every = model.users if what == "user" else model.items
        return framed(wanted, every, scores, which, (what, "similar", "score", "rank"))

    def _model(self) -> Factored:
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self, "_factored")
        return self._factored

    def _seen(self) -> Dataset:
        if self._ratings is None:
            raise DataError(
                "what users have seen is not known to this model, which was saved without the "
                "ratings; pass exclude_seen=False, or save it with seen=True."
            )
        return self._ratings.dataset


def _labelled(values: NDArray[Any], dim: str, ids: Any) -> xr.DataArray:
    dims = (dim, "factor")[: values.ndim]
    labels = np.empty(len(ids), object)
    labels[:] = list(ids)
    plain = ids.to_numpy() if ids.dtype != object else labels
    return xr.DataArray(values, {dim: (dim, plain)}, dims)


def _several(ids: Any) -> Any:
    """Return ids as an index, also if it is one."""
    one = isinstance(ids, (str, bytes, tuple)) or not np.iterable(ids)
    return vocabulary.of([ids] if one else ids)


def _check_unknown(unknown: Any) -> None:
    if unknown not in ("raise", "popular", "drop"):
        raise ValueError(f"unknown={unknown!r}; expected 'raise', 'popular' or 'drop'.")


def _check_k(k: Any) -> None:
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"k={k!r}; expected an integer >= 1.")


def _lazily(make: ListMaker, users: Any) -> Any:
    """Return the lists of a dask collection of users as a dask DataFrame."""
    import dask.dataframe as dd

    client = current_client()
    if client is None or client.asynchronous or sizeof(make) < LARGE:
        shared = dask.delayed(make, pure=False, traverse=False)
    else:
        shared = client.scatter(make, broadcast=True, hash=False)
    ask = dask.delayed(_lists, pure=False)
    parts = np.ravel(users.to_delayed()).tolist()
    meta = make(make.model.users[:1])[:0]
    return dd.from_delayed([ask(shared, part) for part in parts], meta=meta, verify_meta=False)


def _lists(make: ListMaker, ids: Any) -> pd.DataFrame:
    return make(ids)
