"""Any matrix in memory to checked CSR rows.

Owns conversion of numpy, scipy.sparse, pydata/sparse, pandas and 2-d xarray data, and the checks
of values, column ids and weights. Does not shuffle or write; dask inputs are in `arrays`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import sparse
from numpy.typing import NDArray

from daskps.errors import DataError, DataTypeError

from .format import index_dtype
from .labels import Classes, encode
from .partition import Partition


def to_partition(
    X: Any, y: Any = None, weight: Any = None, where: str = ""
) -> tuple[Partition, Classes]:
    """Return checked rows and the classes of their label codes.

    Duplicate entries of a row are summed, as scipy does; stored zeros are kept.

    Parameters
    ----------
    X
        Matrix, shape (n_rows, n_features).
    y
        Labels, shape (n_rows,), or None.
    weight
        Sample weights, shape (n_rows,), or None.
    where
        The place for error messages, such as `" of block 3"`.

    Raises
    ------
    DataError
        If shapes do not fit or a value cannot be used.
    TypeError
        If `X` is of a type that is not known, or holds entries of one.
    """
    csr = _to_csr(X, where)
    n_rows, n_features = (int(n) for n in csr.shape)
    _check_indices(csr, where)
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    dtype = index_dtype(n_features)
    label, classes = (None, None) if y is None else encode(y, n_rows, where)
    part = Partition(
        np.asarray(csr.indptr, np.int64),
        csr.indices.astype(dtype),
        _values(csr, where),
        label,
        None if weight is None else check_weight(weight, n_rows, where),
        n_features,
    )
    return part, classes


def _to_csr(X: Any, where: str) -> Any:
    if hasattr(X, "to_numpy") and not scipy.sparse.issparse(X):
        X = X.data if isinstance(getattr(X, "data", None), sparse.SparseArray) else X.to_numpy()
    if isinstance(X, sparse.SparseArray):
        X = _from_pydata(X, where)
    elif not scipy.sparse.issparse(X):
        X = _from_dense(X, where)
    if X.ndim != 2:
        raise DataError(
            f"X has shape {X.shape!r}{where}, expected (rows, columns). Reshape your data: "
            "X.reshape(-1, 1) is a single column, X.reshape(1, -1) a single row."
        )
    if X.dtype.kind == "c":
        raise DataError(
            f"X has dtype {str(X.dtype)!r}{where}. Complex data not supported; use two columns, "
            "X.real and X.imag."
        )
    if X.dtype.kind not in "biuf":
        raise DataError(
            f"X has dtype {str(X.dtype)!r}{where}, expected numbers; encode other columns first."
        )
    return X.tocsr() if scipy.sparse.issparse(X) else scipy.sparse.csr_array(X)


def _from_pydata(X: Any, where: str) -> Any:
    if X.fill_value != 0:
        raise DataError(
            f"X has fill value {X.fill_value.item()!r}{where}, expected 0; "
            "use sparse.COO(X.todense())."
        )
    return X.asformat("coo").to_scipy_sparse() if X.ndim == 2 else X


def _from_dense(X: Any, where: str) -> NDArray[Any]:
    if not hasattr(X, "__array__") and not isinstance(X, (list, tuple)):
        name = f"{type(X).__module__}.{type(X).__qualname__}"
        raise TypeError(
            f"X must be array-like, sparse, dask, xarray, a Dataset or a path; got {name!r}. "
            "Use X.to_numpy() if it has that."
        )
    array = np.asarray(X)
    if array.dtype == object:
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise DataTypeError(
                f"X holds objects that are no numbers{where} ({error}); encode them first."
            ) from error
    return array


def _check_indices(csr: Any, where: str) -> None:
    indptr, indices, n_features = csr.indptr, csr.indices, csr.shape[1]
    if n_features == 0:
        raise DataError(
            f"X has 0 feature(s) (shape=({csr.shape[0]}, 0)) while a minimum of 1 is required"
            f"{where}; check how it was made."
        )
    if indptr[0] != 0 or indptr[-1] != len(indices) or np.any(np.diff(indptr) < 0):
        raise DataError(
            f"X is a damaged CSR matrix{where}: indptr must rise from 0 to {len(indices)}; "
            "build it again from coordinates."
        )
    if not len(indices) or (indices.min() >= 0 and indices.max() < n_features):
        return
    at = int(np.flatnonzero((indices < 0) | (indices >= n_features))[0])
    raise DataError(
        f"row {row_of(indptr, at)}{where} has column id {int(indices[at])!r}, expected 0 to "
        f"{n_features - 1}; correct the matrix or its shape."
    )


def _values(csr: Any, where: str) -> NDArray[np.float32] | None:
    with np.errstate(over="ignore"):
        values: NDArray[np.float32] = np.asarray(csr.data).astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        raise DataError(
            f"row {row_of(csr.indptr, at)}{where}, column {int(csr.indices[at])} holds "
            f"{csr.data[at].item()!r}, expected a finite number that float32 can hold, no NaN and "
            "no infinity; replace or remove it."
        )
    return None if np.all(values == 1) else values


def row_of(indptr: NDArray[Any], position: int) -> int:
    """Return the row that the stored value at `position` belongs to."""
    return int(np.searchsorted(indptr, position, side="right")) - 1


def check_weight(weight: Any, n_rows: int, where: str) -> NDArray[np.float32]:
    """Return sample weights as float32 after checking shape and values."""
    array = weight.to_numpy() if hasattr(weight, "to_numpy") else np.asarray(weight)
    if array.shape != (n_rows,):
        raise DataError(
            f"sample_weight has shape {array.shape!r}{where}, but X has {n_rows!r} rows; "
            "give one weight a row."
        )
    with np.errstate(over="ignore"):
        weights: NDArray[np.float32] = array.astype(np.float32)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise DataError(
            f"sample_weight of row {int(bad[0])}{where} is {array[bad[0]].item()!r}, expected a "
            "finite number >= 0; remove the row or correct the weight."
        )
    return weights
