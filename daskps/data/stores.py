"""Where datasets are kept: paths, URLs and Zarr stores.

Owns opening and creating the group of a dataset, and refusing to overwrite. Does not know what
is inside (see `format`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import zarr
from zarr.core.sync import sync
from zarr.errors import GroupNotFoundError
from zarr.storage import LocalStore, MemoryStore, StorePath, ZipStore

from daskps.errors import DataError, DatasetFormatError

from .format import VERSION

STAGING = "_staging"
_METADATA = {"zarr.json", ".zgroup", ".zattrs", ".zmetadata"}


def resolve(store: Any) -> Any:
    """Return `store` in the form that any worker can open: absolute paths, other things as given.

    Parameters
    ----------
    store
        A path, a URL, or a Zarr store object.
    """
    if isinstance(store, zarr.Group):
        raise TypeError("store must be a path, URL or Zarr store, got a zarr.Group; use its store.")
    if not isinstance(store, (str, os.PathLike)):
        return store
    text = os.fspath(store)
    if text.startswith("file://"):
        return unquote(urlparse(text).path)
    return text if "://" in text else os.path.abspath(text)


def describe(store: Any) -> str:
    """Return the name of `store` for messages."""
    return store if isinstance(store, str) else str(store)


def is_shared(store: Any) -> bool:
    """Return whether other processes see what is written to `store`."""
    return not isinstance(store, (MemoryStore, ZipStore, dict))


def open_group(store: Any) -> zarr.Group:
    """Open the group `store` (resolved) for reading.

    Raises
    ------
    FileNotFoundError
        If there is nothing at a local path.
    DatasetFormatError
        If there is something that is no Zarr group.
    """
    name = describe(store)
    if isinstance(store, str) and "://" not in store and not Path(store).exists():
        raise FileNotFoundError(
            f"there is no dataset at {name!r}; check the path, or make one with "
            "daskps.read_svmlight or daskps.from_arrays."
        )
    try:
        return zarr.open_group(store, mode="r")
    except (GroupNotFoundError, FileNotFoundError, NotADirectoryError) as error:
        raise DatasetFormatError(
            f"{name!r} holds no Zarr group; expected a dataset made by daskps.read_svmlight "
            "or daskps.from_arrays."
        ) from error
    except ImportError as error:
        raise ImportError(
            f"{name!r} cannot be opened ({error}); install the package for this kind of URL here "
            "and on all workers: pip install 'daskps[remote]' has that for s3://, or gcsfs, adlfs."
        ) from error


class Target:
    """A store that a dataset is being written to; what was there stays until `begin`.

    Parameters
    ----------
    store
        Resolved store.
    overwrite
        Whether a Zarr group that is there may be replaced. Other files never are.

    Raises
    ------
    DataError
        If something is there that may not be replaced.
    """

    def __init__(self, store: Any, overwrite: bool) -> None:
        self.store = store
        existing = _existing(store)
        if existing == "files":
            raise DataError(
                f"{describe(store)!r} exists and is no Zarr group, so it is never overwritten; "
                "choose another store or remove it yourself."
            )
        if existing == "group" and not overwrite:
            raise DataError(
                f"{describe(store)!r} already holds a Zarr group; pass overwrite=True to replace "
                "it, or choose another store."
            )
        self._keeps_old = existing == "group"
        self.path = zarr.open_group(store, mode="a").store_path
        if not self._keeps_old:
            self.begin()

    def begin(self) -> zarr.Group:
        """Delete what was there but staged pieces; return an empty group, marked as incomplete."""
        self._keeps_old = False
        sync(_clear(self.path))
        group = zarr.open_group(self.path, mode="w-", zarr_format=3)
        group.attrs["daskps"] = {"format": "dataset", "version": VERSION, "complete": False}
        return group

    def remove_staging(self) -> None:
        """Delete staged pieces."""
        sync((self.path / STAGING).delete_dir())

    def give_up(self) -> None:
        """Delete all that was written."""
        self.remove_staging() if self._keeps_old else sync(self.path.delete_dir())


async def _clear(path: StorePath) -> None:
    for name in [name async for name in path.store.list_dir(path.path)]:
        if name in _METADATA:
            await (path / name).delete()
        elif name != STAGING:
            await (path / name).delete_dir()


def _existing(store: Any) -> str:
    try:
        zarr.open_group(store, mode="r")
        return "group"
    except (GroupNotFoundError, FileNotFoundError, NotADirectoryError):
        pass
    path = local_path(store)
    if path is not None and path.exists() and (path.is_file() or any(path.iterdir())):
        return "files"
    return "nothing"


def local_path(store: Any) -> Path | None:
    """Return the directory of a local store, None for others."""
    if isinstance(store, LocalStore):
        return store.root
    return Path(store) if isinstance(store, str) and "://" not in store else None
