"""Saved models: Zarr groups that `xarray.open_zarr` opens; no pickle in them.

Features whose weights are all zero take no room where that makes the model smaller: the columns of
the others are stored, and the coordinate ``feature`` holds their ids. The weights of hashed keys
always are stored so.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import GroupNotFoundError

from daskps.data import Hashing
from daskps.data.format import array_of
from daskps.errors import DatasetFormatError
from daskps.structs import known

VERSION = 2
"""1 had all features, no hashing and no number of features."""
FEATURE = "feature"
"""The dimension of features, and the coordinate that names those that are stored."""
_FITTED = ("n_iter_", "stop_reason_")


@known
class ModelManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known about a saved model before any array is read; written last."""

    format: str = "model"
    version: int = VERSION
    kind: str
    """Name of the estimator's class."""
    parameters: dict[str, Any]
    """As of `get_params`."""
    fitted: dict[str, Any]
    """Attributes that are plain values."""
    n_features: int | None = None
    """Features of the training data; None in version 1: as many as there are weights."""
    hashing: Hashing | None = None
    """How their column ids were hashed."""
    own: dict[str, Any] = {}
    """What a class of estimators that stores its arrays itself must know to read them."""


Arrays = Mapping[str, tuple[NDArray[Any], tuple[str, ...]]]
_Class = TypeVar("_Class", bound=type)
_KINDS: dict[str, type] = {}


def kind(estimator: _Class) -> _Class:
    """Register a class of estimators, by its name, as one that `load` knows."""
    _KINDS[estimator.__name__] = estimator
    return estimator


def kinds() -> dict[str, type]:
    """Return the classes of estimators that `load` knows, by name."""
    return dict(_KINDS)


def save(
    estimator: Any,
    arrays: Arrays,
    store: str | os.PathLike[str],
    *,
    overwrite: bool,
) -> None:
    """Write a fitted estimator.

    Parameters
    ----------
    estimator
        Of a class that is registered by `kind`.
    arrays
        By the name of an attribute, without the trailing underscore: its value and its dimensions.
    store, overwrite
        See `LinearEstimator.save`.
    """
    where = os.fspath(store)
    check_room(where, overwrite)
    group = zarr.open_group(where, mode="w", zarr_format=3)
    for name, (data, dims) in _stored(estimator, arrays).items():
        write_array(group, name, data, dims)
    _finish(estimator, where, group, estimator.n_features_in_, estimator.hashing_)


def save_own(estimator: Any, store: str | os.PathLike[str], *, overwrite: bool, **how: Any) -> None:
    """Write a fitted estimator that stores its arrays itself, by ``_write(group, **how)``.

    That returns what its ``_read(group, own)`` must know; see `save` for the parameters.
    """
    where = os.fspath(store)
    check_room(where, overwrite)
    group = zarr.open_group(where, mode="w", zarr_format=3)
    _finish(estimator, where, group, None, None, estimator._write(group, **how))


def _finish(
    estimator: Any,
    where: str,
    group: zarr.Group,
    n_features: int | None,
    hashing: Hashing | None,
    own: Mapping[str, Any] | None = None,
) -> None:
    """Write the history, then the manifest, which makes the model exist."""
    estimator.history_.to_zarr(where, group="history", mode="a", consolidated=False)
    manifest = ModelManifest(
        kind=type(estimator).__name__,
        parameters=_plain(estimator.get_params()),
        fitted={n: getattr(estimator, n) for n in (*_FITTED, *getattr(estimator, "_saved", ()))},
        n_features=n_features,
        hashing=hashing,
        own=dict(own or {}),
    )
    complete(where, msgspec.to_builtins(manifest))


def complete(where: str, manifest: Mapping[str, Any]) -> None:
    """Put the metadata of all arrays together, then write the manifest, which comes last."""
    with warnings.catch_warnings():
        # consolidated metadata is not in the v3 specification yet; xarray warns without it
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        group = zarr.consolidate_metadata(where, zarr_format=3)
    group.attrs["daskps"] = dict(manifest)


def _stored(estimator: Any, arrays: Arrays) -> Arrays:
    """Return what is written: all features, or those that have weights and their ids."""
    if estimator.keys == "hash":
        return {**arrays, FEATURE: (estimator.coef_keys_, (FEATURE,))}
    wide = {name: dims.index(FEATURE) for name, (_, dims) in arrays.items() if FEATURE in dims}
    if not wide:
        return arrays
    some: Any = False
    for name, axis in wide.items():
        data = np.moveaxis(arrays[name][0], axis, 0)
        some |= data.reshape(len(data), -1).any(axis=1)
    ids = np.flatnonzero(some).astype(np.uint64)
    dense = sum(arrays[name][0].nbytes for name in wide)
    if len(ids) * (dense / len(some) + ids.itemsize) >= dense:
        return arrays
    few = {
        name: (arrays[name][0].take(ids.astype(np.intp), axis), arrays[name][1])
        for name, axis in wide.items()
    }
    return {**arrays, **few, FEATURE: (ids, (FEATURE,))}


def check_room(where: str, overwrite: bool) -> None:
    """Raise FileExistsError if something stands at `where` that must not be replaced."""
    try:
        zarr.open_group(where, mode="r")
    except (GroupNotFoundError, FileNotFoundError, NotADirectoryError):
        path = None if "://" in where else Path(where)
        if path is not None and path.exists() and (path.is_file() or any(path.iterdir())):
            raise FileExistsError(
                f"{where!r} exists and is no Zarr group; it is never overwritten. Name another "
                "place."
            ) from None
        return
    if not overwrite:
        raise FileExistsError(f"{where!r} exists; pass overwrite=True or name another place.")


def write_array(group: zarr.Group, name: str, data: Any, dims: tuple[str, ...]) -> None:
    """Write an array with named dimensions and checksums."""
    array = create_array(group, name, data.shape, data.dtype, dims)
    array[...] = data.astype(object) if data.dtype.kind == "U" else data


def create_array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], dims: Sequence[str]
) -> zarr.Array[Any]:
    """Return an array with named dimensions and checksums, to be written."""
    kinds = {"U": "str", "O": "str"}
    return group.create_array(
        name,
        shape=shape,
        chunks=tuple(min(n, 2**20) or 1 for n in shape),
        dtype=kinds.get(dtype.kind, dtype),
        dimension_names=list(dims),
        compressors=[ZstdCodec(level=1), Crc32cCodec()],
    )


def _plain(parameters: dict[str, Any]) -> dict[str, Any]:
    plain = {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in parameters.items()}
    weights = plain.get("class_weight")
    if isinstance(weights, dict):  # JSON would turn the keys into strings
        plain["class_weight"] = [[_item(k), float(v)] for k, v in weights.items()]
    return {k: _item(v) for k, v in plain.items()}


def _item(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return x.tolist()
    return x.item() if isinstance(x, np.generic) else x


def load(store: str | os.PathLike[str]) -> Any:
    """Open a model that an estimator saved.

    Parameters
    ----------
    store
        Path or URL that was given to `save`.

    Returns
    -------
    estimator
        Of the class that was saved, fitted.

    Raises
    ------
    FileNotFoundError
        If there is nothing.
    DatasetFormatError
        If there is something else, or a model of a newer version.
    """
    where = os.fspath(store)
    try:
        group = zarr.open_group(where, mode="r", zarr_format=3)
    except (OSError, ValueError, KeyError) as error:
        raise FileNotFoundError(
            f"no saved model at {where!r} ({error}); check the path, or make one with save()."
        ) from error
    manifest = _manifest(group, where)
    if manifest.kind not in _KINDS:
        raise DatasetFormatError(
            f"model {where!r} is a {manifest.kind!r}, this daskps knows {sorted(_KINDS)}; install "
            "a newer daskps."
        )
    parameters = dict(manifest.parameters)
    if isinstance(parameters.get("class_weight"), list):
        parameters["class_weight"] = dict(parameters["class_weight"])
    model = _KINDS[manifest.kind](**parameters)
    if hasattr(model, "_read"):
        model._read(group, manifest.own)
    else:
        _set_arrays(model, group, manifest.n_features)
        model.hashing_ = manifest.hashing
    for name, value in manifest.fitted.items():
        setattr(model, name, value)
    model.history_ = xr.open_zarr(where, group="history", consolidated=False).load()
    return model


def _set_arrays(model: Any, group: zarr.Group, n_features: int | None) -> None:
    ids = _read(group, FEATURE) if FEATURE in group else None
    for name in set(group.array_keys()) - {FEATURE}:
        data = _read(group, name)
        dims = getattr(group[name].metadata, "dimension_names", None) or ()
        if ids is not None and model.keys == "range" and FEATURE in dims:
            data = _with_zeros(data, dims.index(FEATURE), ids, n_features)
        setattr(model, f"{name}_", data)
    if model.keys == "hash":
        model.coef_keys_ = ids
    model.n_features_in_ = model.coef_.shape[-1] if n_features is None else n_features


def _with_zeros(few: NDArray[Any], axis: int, ids: NDArray[Any], n: int | None) -> NDArray[Any]:
    assert n is not None, "version 1 stored all features"
    shape = list(few.shape)
    shape[axis] = n
    data = np.zeros(shape, few.dtype)
    data[(slice(None),) * axis + (ids.astype(np.intp),)] = few
    return data


def _read(group: zarr.Group, name: str) -> Any:
    data = np.asarray(array_of(group, name)[...])
    # numpy's variable-length strings have no direct cast to fixed-width ones
    return np.array(data.tolist(), dtype=str) if data.dtype.kind in "OT" else data


def _manifest(group: zarr.Group, where: str) -> ModelManifest:
    raw = group.attrs.get("daskps")
    if not isinstance(raw, dict) or raw.get("format") != "model":
        raise DatasetFormatError(
            f"{where!r} is no complete saved model (attribute daskps: {raw!r}); give the path "
            "that was given to save()."
        )
    if raw.get("version") not in range(1, VERSION + 1):
        raise DatasetFormatError(
            f"model {where!r} has format version {raw.get('version')!r}, this daskps reads 1 to "
            f"{VERSION}; install a newer daskps."
        )
    try:
        return msgspec.convert(raw, ModelManifest)
    except msgspec.ValidationError as error:
        raise DatasetFormatError(f"the manifest of model {where!r} is damaged: {error}") from error
