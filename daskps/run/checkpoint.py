"""Checkpoints: one consistent cut of a run, as a Zarr group that exists once it is published.

A cut is a group ``cut-<clock>`` inside the checkpoint's group. Slots are chunks with a crc32c
each, written by the shards' workers; the manifest is an attribute that the driver writes last, and
a group without it is not a checkpoint. Nothing in it is pickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.core.sync import sync

from daskps import html
from daskps.data.format import array_of
from daskps.errors import CheckpointError
from daskps.run.chunks import ChunkWriter, batches
from daskps.run.events import Turn
from daskps.run.ledger import Ledger
from daskps.server.frozen import Frozen
from daskps.server.slot import in_key_order
from daskps.server.spec import ServerSpec
from daskps.server.tables import Placement, TableSpec
from daskps.structs import known

logger = logging.getLogger("daskps")

VERSION = 2
"""Version 1 had all rows of all tables; it is still read."""

NAMES: Any = {"name": "default", "separator": "."}
"""Of chunks: files of one folder, for a folder or three for each take as long as what is in it."""


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Where cuts go, and how many are kept."""

    store: str
    fingerprint: str
    """Describes the model's settings, for the manifest."""
    keep: int = 2

    def _repr_html_(self) -> str:
        found = [facts(self.store, cut) for cut in published(self.store)]
        names = ("cut", "clock", "passes", "loss", "rows")
        rows = [[entry.get(n, "unreadable") for n in names] for entry in found]
        return html.facts("checkpoint", {"store": self.store}, html.grid(names, rows))


@known
class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What must be known about a cut before any chunk is read."""

    format: str = "checkpoint"
    version: int = VERSION
    model: str
    """Describes the model's settings; a resumed run must have the same."""
    server: ServerSpec
    clocks_per_pass: int
    clocks: list[int]
    """Finished clocks, which are also the applied push ids, of each partition."""
    samples: list[float]
    """Samples seen by each slot."""
    rows: dict[str, list[int]]
    """Rows of each slot of each table that are in the cut; others are as they begin."""
    partition_rows: list[int]
    """Rows of each partition of the training data: the fingerprint that `resume` checks."""
    ledger: dict[str, Any]
    states: dict[str, int] = {}
    """Bytes of each array that a partition keeps, by ``partition/name``."""


def _open(store: Any, mode: Any = "r") -> zarr.Group:
    try:
        return zarr.open_group(store, mode=mode, zarr_format=3)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"checkpoint store {store!r} cannot be opened: {error}. Give a folder or URL that "
            "every worker can write to."
        ) from error


def create(
    store: str, cut: str, spec: ServerSpec, rows: Mapping[str, Mapping[int, int]]
) -> dict[str, list[int]]:
    """Make the empty arrays of a cut; return the rows in each slot of each table."""
    group = _open(store, "a").create_group(cut, overwrite=True)
    sizes = {name: [by_slot[s] for s in sorted(by_slot)] for name, by_slot in rows.items()}
    keyed = _keyed(spec, sizes)
    for t in spec.tables:
        longest = max(1, *sizes[t.name])
        shape = (len(sizes[t.name]), longest, t.updater.n_fields, t.width)
        names = (f"slot_{t.name}", f"row_{t.name}", f"field_{t.name}", f"value_{t.name}")
        _array(group, t.name, shape, t.updater.dtype, names)
        if keyed[t.name]:
            _array(group, f"{t.name}_key", shape[:2], _key_type(t), names[:2])
    return sizes


def _keyed(spec: ServerSpec, rows: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Return the slots of each table whose rows have keys, or positions because they are few."""
    return {
        t.name: [
            s
            for s, n in enumerate(rows.get(t.name, ()))
            if t.keys != "range" or n < place.slot_rows(s)
        ]
        for t, place in ((t, spec.placements()[t.name]) for t in spec.tables)
    }


def _key_type(table: TableSpec) -> np.dtype[Any]:
    return np.dtype(np.uint32 if table.keys == "range" else np.uint64)


def _array(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], dims: Iterable[str]
) -> None:
    group.create_array(
        name,
        shape=shape,
        chunks=(1, *shape[1:]),
        dtype=dtype,
        dimension_names=list(dims),
        fill_value=_missing(dtype),
        chunk_key_encoding=NAMES,
        compressors=[Crc32cCodec()],  # parameters do not compress; the checksum does matter
        # slots are written whole, also when they are all zeros: a missing chunk is an error
        config={"write_empty_chunks": True},
    )


def _missing(dtype: np.dtype[Any]) -> Any:
    """Return the fill value: what no row can hold, so that a missing chunk shows itself."""
    if dtype.kind == "f":
        return np.nan
    return np.iinfo(dtype).min if dtype.kind == "i" else np.iinfo(dtype).max


def write_slots(
    store: str,
    cut: str,
    tables: Frozen,
    written: Callable[[str, Sequence[int]], None] = lambda table, slots: None,
) -> None:
    """Write the given slots of every table; runs on the worker that holds them.

    `written` is told which slots of which table are stored, as it goes on.
    """
    group = zarr.open_group(store, path=cut, mode="r+")
    for name, slots in tables.items():
        array = array_of(group, name)
        rows_to = ChunkWriter(array)
        named = f"{name}_key"
        keys_to = ChunkWriter(array_of(group, named)) if named in group else None
        for some in batches(list(slots), array):
            held = {slot: in_key_order(*slots[slot]) for slot in some}
            rows_to.put({slot: rows for slot, (_, rows) in held.items()})
            keys = {slot: k for slot, (k, _) in held.items() if k is not None}
            if keys_to is not None and keys:
                keys_to.put(keys)
            written(name, some)


def publish(store: str, cut: str, manifest: Manifest) -> None:
    """Make the cut exist."""
    raw = msgspec.to_builtins(manifest)
    if math.isinf(manifest.server.staleness):  # JSON has no infinity
        raw["server"]["staleness"] = None
    zarr.open_group(store, path=cut, mode="r+").attrs["daskps"] = raw


def discard(store: str, cuts: Iterable[str]) -> None:
    """Delete cuts, published or not; what cannot be deleted stays."""
    for cut in cuts:
        with contextlib.suppress(OSError, KeyError):
            path = _open(store, "r+").store_path / cut
            # the manifest first: a half-deleted cut must not open
            sync(path.store.delete(f"{path.path}/zarr.json"))
            sync(path.store.delete_dir(path.path))


def published(store: str) -> list[str]:
    """Return the names of complete cuts, newest first; empty when there is no such store."""
    names = []
    for name in _cuts(store):
        # not by group.groups(): one torn or half-deleted cut must not hide the others
        with contextlib.suppress(OSError, KeyError, ValueError):
            if "daskps" in zarr.open_group(store, path=name, mode="r", zarr_format=3).attrs:
                names.append(name)
    return sorted(names, reverse=True)


def usable(store: str, clocks: Mapping[int, int]) -> list[str]:
    """Return the cuts to go back to from `clocks`, newest first.

    One that is ahead was published while another loss took the run back behind it.
    """
    found = []
    for cut in published(store):
        try:
            then = read_manifest(store, cut).clocks
        except CheckpointError as error:
            logger.warning("%s", error)
            continue
        if all(c <= clocks[p] for p, c in enumerate(then)):
            found.append(cut)
    return found


def prune(store: str, cut: str, keep: int) -> None:
    """Delete all but the new `cut` and the ``keep - 1`` published ones before it.

    That is what is older, what was never finished, and what lies ahead, in a future that a loss
    took back.
    """
    before = [name for name in published(store) if name < cut]
    discard(store, set(_cuts(store)) - {cut, *before[: keep - 1]})


def _cuts(store: str) -> list[str]:
    """Return the names of all cuts, complete or not."""
    try:
        path = zarr.open_group(store, mode="r", zarr_format=3).store_path
    except (OSError, KeyError, ValueError):
        return []

    async def names() -> list[str]:
        return [name async for name in path.store.list_dir(path.path)]

    return [name for name in sync(names()) if name.startswith("cut-")]


def _with_infinity(raw: Any) -> Any:
    if raw["server"]["staleness"] is None:
        return {**raw, "server": {**raw["server"], "staleness": math.inf}}
    return raw


def read_manifest(store: str, cut: str) -> Manifest:
    """Return the checked manifest of a cut.

    Raises
    ------
    CheckpointError
        If it is missing, malformed, or of a newer version.
    """
    where = f"cut {cut!r} of checkpoint {store!r}"
    try:
        raw = zarr.open_group(store, path=cut, mode="r").attrs["daskps"]
        version = raw.get("version") if isinstance(raw, dict) else None
        if version not in (1, VERSION):
            raise CheckpointError(
                f"{where} has version {version!r}; this daskps reads versions 1 to {VERSION}. Use "
                "the daskps that wrote it, or start without resume=True."
            )
        return msgspec.convert(_with_infinity(raw), Manifest)
    except (OSError, KeyError, ValueError, msgspec.ValidationError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{where} has no readable manifest ({error}); delete that cut to use the one before."
        ) from error


def facts(store: str, cut: str) -> dict[str, Any]:
    """Return what is to be said of a cut; of one that cannot be read, why.

    ``clock`` is what all partitions have finished, ``loss`` that of the last clock.
    """
    try:
        manifest = read_manifest(store, cut)
    except CheckpointError as error:
        return {"cut": cut, "usable": False, "why": str(error)}
    history = ledger_from_builtins(manifest.ledger, manifest.clocks_per_pass).to_xarray()
    return {
        "cut": cut,
        "usable": True,
        "clock": min(manifest.clocks),
        "passes": min(manifest.clocks) // manifest.clocks_per_pass,
        "loss": float(history["loss"][-1]) if history.clock.size else math.nan,
        "partitions": len(manifest.clocks),
        "tables": ", ".join(t.name for t in manifest.server.tables),
        "rows": sum(
            t.n_rows if t.keys == "range" else sum(manifest.rows[t.name])
            for t in manifest.server.tables
        ),
        "stored": sum(sum(sizes) for sizes in manifest.rows.values()),
    }


def read_slots(store: str, cut: str, manifest: Manifest, slots: Iterable[int]) -> Frozen:
    """Return keys and rows of the given slots of every table, as shards froze them.

    Raises
    ------
    CheckpointError
        If a chunk is missing, or fails its checksum; or if keys or positions do not ascend, or
        positions are beyond their slot.
    """
    group = zarr.open_group(store, path=cut, mode="r")
    wanted, tables = set(slots), {}
    # by the manifest: an array of keys that is gone must not make a range table of a hash table
    where = f"cut {cut!r} of checkpoint {store!r}"
    keyed, places = _keyed(manifest.server, manifest.rows), manifest.server.placements()
    for name, sizes in manifest.rows.items():
        some = [s for s in range(len(sizes)) if s in wanted]
        rows = _chunks(group, name, some, sizes, where)
        keys: dict[int, Any] = {}
        if held := sorted(wanted & set(keyed[name])):
            keys = _chunks(group, f"{name}_key", held, sizes, where)
        for slot, found in keys.items():
            _check_keys(found, places[name], slot, where)
        tables[name] = {s: (keys.get(s), rows[s]) for s in some}
    return tables


def _check_keys(keys: NDArray[Any], place: Placement, slot: int, where: str) -> None:
    name = f"{place.spec.name}_key"
    if not bool((keys[1:] > keys[:-1]).all()):
        raise _unreadable(name, [slot], where, "its entries do not ascend")
    if place.spec.keys == "range" and len(keys) and int(keys[-1]) >= place.slot_rows(slot):
        beyond = f"position {keys[-1]} is beyond the {place.slot_rows(slot)} rows of the slot"
        raise _unreadable(name, [slot], where, beyond)


def _chunks(
    group: zarr.Group, name: str, slots: list[int], sizes: list[int], where: str
) -> dict[int, Any]:
    out = {}
    try:
        array = array_of(group, name)
    except Exception as error:
        raise _unreadable(name, slots, where, f"its metadata is damaged: {error}") from error
    for some in batches(slots, array):
        try:
            block = np.asarray(array[some[0] : some[-1] + 1])
        except Exception as error:  # codecs raise many kinds for damaged bytes
            raise _unreadable(name, some, where, str(error)) from error
        for i, slot in enumerate(some):
            if np.array_equal(block[i].flat[:1], [array.fill_value], equal_nan=True):
                raise _unreadable(name, [slot], where, "a chunk is missing")
            # a copy: a view would keep the whole batch alive
            out[slot] = block[i, : sizes[slot]].copy()
    return out


def _unreadable(name: str, slots: list[int], where: str, why: str) -> CheckpointError:
    which = f"slot {slots[0]}" if len(slots) == 1 else f"a slot of {slots[0]}..{slots[-1]}"
    return CheckpointError(
        f"{which} of table {name!r} in {where} cannot be read: {why}. The cut before is used where "
        "there is one."
    )


def ledger_to_builtins(ledger: Ledger) -> dict[str, Any]:
    """Return the ledger as plain data, for a manifest."""
    return {
        "parts": [[c, p, m] for c, e in ledger.parts.items() for p, m in e.items()],
        "evaluations": list(ledger.evaluations.items()),
        "turns": [[c, *dataclasses.astuple(turn)] for c, turn in ledger.turns.items()],
        "recoveries": [list(r) for r in ledger.recoveries],
    }


def ledger_from_builtins(raw: Mapping[str, Any], clocks_per_pass: int) -> Ledger:
    """Return the ledger of a manifest."""
    ledger = Ledger(clocks_per_pass)
    for clock, partition, metrics in raw["parts"]:
        ledger.parts.setdefault(clock, {})[partition] = dict(metrics)
    ledger.evaluations = {int(c): float(x) for c, x in raw["evaluations"]}
    ledger.turns = {int(c): Turn(*turn) for c, *turn in raw.get("turns", ())}
    ledger.recoveries = [(int(c), float(s)) for c, s in raw["recoveries"]]
    return ledger
