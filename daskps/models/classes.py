"""Classes of a classifier: from the labels of a dataset to positions in `classes_`.

Owns the names, order and dtype of classes, and the view of a dataset whose labels are positions.
Labels are checked and counted when a dataset is made (`daskps.data`); nothing is read here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Dataset, Partition
from daskps.errors import DataError

UNKNOWN = -1
"""Position of a label that is none of the classes."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The distinct labels of a dataset."""

    values: NDArray[np.float64]
    """As they stand in partitions, ascending."""
    names: NDArray[Any]
    """What users call them, in the same order."""
    counts: NDArray[np.int64]
    """Rows of each."""

    @classmethod
    def of(cls, dataset: Dataset, y: Any = None) -> Labels:
        """Return the labels of `dataset`; integers in `y`, which it was made from, keep their type.

        Raises
        ------
        DataError
            If there are no labels, too many, or some that are no classes.
        """
        if not dataset.has_label:
            raise DataError(
                f"{dataset!r} has no labels. A classifier requires y to be passed, but the target "
                "y is None; a dataset can be made with class labels too."
            )
        found = dataset.label_counts()
        if found is None:
            raise DataError(
                f"{dataset!r} has more than 10,000 distinct labels, continuous ones perhaps; a "
                "classifier needs classes."
            )
        values, counts = found
        if dataset.classes is not None:
            return cls(values, dataset.classes[values.astype(np.intp)], counts)
        fractions = values[values != np.rint(values)]
        if len(fractions):
            raise DataError(
                f"label {fractions[0].item()!r} is no class but continuous: expected whole "
                "numbers, strings or booleans. Cut a quantity into classes first, for example "
                "y > threshold."
            )
        kind = _integer_type(y)
        return cls(values, values if kind is None else values.astype(kind), counts)

    def positions(self, classes: NDArray[Any]) -> NDArray[np.int64]:
        """Return where each label stands in `classes`, or `UNKNOWN`."""
        where = {name: i for i, name in enumerate(classes.tolist())}
        return np.array([where.get(name, UNKNOWN) for name in self.names.tolist()], np.int64)

    def counts_in(self, classes: NDArray[Any], what: str) -> NDArray[np.int64]:
        """Return the rows of each of `classes`.

        Parameters
        ----------
        classes
            Classes, ascending.
        what
            Names the data in the message.

        Raises
        ------
        DataError
            If there is a label that is none of them.
        """
        positions = self.positions(classes)
        if UNKNOWN in positions:
            stranger = self.names[positions == UNKNOWN][0]
            raise DataError(
                f"label {_plain(stranger)} of {what} is none of the classes "
                f"{classes.tolist()!r}; leave its rows out, or train with all classes (partial_fit "
                "learns of them by classes=)."
            )
        return np.bincount(positions, self.counts, len(classes)).astype(np.int64)


def agreed_classes(given: Any, known: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return the classes of a model: those that `partial_fit` is given, or those it has.

    Raises
    ------
    DataError
        If the two differ.
    """
    if given is None:
        return known
    classes = np.unique(np.asarray(given))
    if known is not None and classes.tolist() != known.tolist():
        raise DataError(
            f"classes={classes.tolist()!r} are not those of the model, {known.tolist()!r}; name "
            "them in the first call only."
        )
    return classes


def training_classes(labels: Labels, known: NDArray[Any] | None) -> NDArray[Any]:
    """Return the classes of a model: those that are known, else the labels, at least two.

    Raises
    ------
    DataError
        If there is one class only.
    """
    classes = labels.names if known is None else known
    if len(classes) < 2:
        raise DataError(
            f"the training data has one class only, {classes.tolist()!r}; expected at least two. "
            "Check how the labels were read."
        )
    return classes


class CodedDataset(Dataset):
    """A dataset seen with positions in `classes` as labels.

    Parameters
    ----------
    dataset
        Data with labels.
    classes
        Classes, ascending.
    what
        Names the data where a label that is none of them is an error; None makes it `UNKNOWN`.
    """

    def __init__(self, dataset: Dataset, classes: NDArray[Any], what: str | None) -> None:
        super().__init__(dataset._manifest, dataset._source, dataset._ranges)
        labels = Labels.of(dataset)
        if what is not None:
            labels.counts_in(classes, what)
        self._values = labels.values
        self._positions = labels.positions(classes).astype(np.float64)

    def partition(self, i: int) -> Partition:
        """Return partition `i`; see `Dataset.partition`."""
        part = super().partition(i)
        assert part.label is not None, self  # it was counted
        where = np.searchsorted(self._values, part.label)
        return dataclasses.replace(part, label=self._positions[where])


def _integer_type(y: Any) -> np.dtype[Any] | None:
    dtype = np.asarray(y).dtype if isinstance(y, (list, tuple)) else getattr(y, "dtype", None)
    dtype = getattr(dtype, "numpy_dtype", dtype)  # of pandas' nullable integers
    return dtype if isinstance(dtype, np.dtype) and dtype.kind in "iu" else None


def _plain(name: np.generic) -> str:
    return f"{name:g}" if isinstance(name, np.floating) else repr(name.item())
