"""What a fitted factorisation is asked: predictions, lists, neighbours, new users, quality.

Owns the questions; lists are made by `lists`, scores by `factored`, quality is measured by
`ranking`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from daskps.data import Dataset, Ratings, as_ratings, vocabulary
from daskps.errors import DataError
from daskps.models import ranking
from daskps.models.factored import Factored, Unknown
from daskps.models.lists import ListMaker, SeenBy, framed, lazily
from daskps.models.mf_users import fold_in, renumbered
from daskps.models.shown import Shown
from daskps.models.user_rows import StoredRows


class Recommender(Shown):
    """What can be asked of a fitted factorisation.

    A subclass sets `_factored`, and `_ratings` where it knows what users have rated.
    """

    _factored: Factored
    _ratings: Ratings | None = None

    loss: str
    reg: float
    confidence: float
    duplicates: Literal["error", "last", "mean"]

    @property
    def user_factors_(self) -> xr.DataArray:
        """Factors of users, (user, factor), with ids as coordinates; lazy if they are stored."""
        P = self._model().P
        return _labelled(P.lazy() if isinstance(P, StoredRows) else P, "user", self._model().users)

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
            return lazily(make, users)
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

    def fold_in(self, ratings: Any, *, unknown: Literal["raise", "drop"] = "raise") -> Self:
        """Return a model of new users, solved for from their ratings; items stay as they are.

        Parameters
        ----------
        ratings
            As in `fit`. Matrices have the columns of the training data.
        unknown
            What to do with ratings of items that were not in the training data: ``"raise"``, or
            ``"drop"`` leaves them out.

        Returns
        -------
        model
            Answers for these users alone, and leaves out what they have rated.

        Raises
        ------
        DataError
            If an item is unknown and `unknown` is ``"raise"``.
        """
        if unknown not in ("raise", "drop"):
            raise ValueError(f"unknown={unknown!r}; expected 'raise' or 'drop'.")
        model, new = self._model(), as_ratings(ratings, duplicates=self.duplicates)
        items = model.numbers(new.items, "item", unknown)
        confidence = float(self.confidence) if self.loss == "implicit" else None
        other: Self = clone(self)
        for name in ("history_", "n_iter_", "stop_reason_"):
            setattr(other, name, getattr(self, name))
        other._factored = fold_in(model, new, items, float(self.reg), confidence)
        other._ratings = renumbered(new, items, len(model.items))
        return other

    def rmse(self, test: Any, *, unknown: Unknown = "raise") -> float:
        """Return the root of the mean squared error over held-out ratings.

        Parameters
        ----------
        test
            As in `fit`.
        unknown
            What to do with ratings of unknown users or items; see `predict`. ``"drop"`` leaves
            them out.
        """
        return ranking.rmse(self._model(), as_ratings(test, duplicates=self.duplicates), unknown)

    def ranking(
        self,
        test: Any,
        k: int = 10,
        *,
        exclude_seen: bool = True,
        relevant: float | None = None,
    ) -> xr.Dataset:
        """Return precision, recall and NDCG of lists of `k` items against held-out ratings.

        Parameters
        ----------
        test
            As in `fit`; users and items that the model does not know do not count.
        k
            Length of a list.
        exclude_seen
            Whether lists leave out what users rated in the training data.
        relevant
            Rating from which on an item is relevant; None takes all that were rated.

        Returns
        -------
        found
            ``precision``, ``recall`` and ``ndcg``, means over the users with relevant items, whose
            number is the attribute ``users``.
        """
        seen = SeenBy(self._seen()) if exclude_seen else None
        held_out = as_ratings(test, duplicates=self.duplicates)
        return ranking.ranking(self._model(), held_out, seen, int(k), relevant)

    def _model(self) -> Factored:
        check_is_fitted(self, "_factored")
        return self._factored

    def _seen(self) -> Dataset:
        if self._ratings is None:
            raise DataError(
                "what users have seen is not known to this model, which was saved without the "
                "ratings; pass exclude_seen=False, or save it with seen=True."
            )
        return self._ratings.dataset


def _labelled(values: Any, dim: str, ids: Any) -> xr.DataArray:
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
