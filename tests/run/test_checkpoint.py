"""Checkpoints: a cut exists when its manifest does, and damage of any kind is noticed."""

from __future__ import annotations

import errno
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore, MemoryStore

from daskps.data.format import array_of
from daskps.errors import CheckpointError
from daskps.run import checkpoint, chunks
from daskps.run.ledger import Ledger
from daskps.server.keys import localise
from daskps.server.messages import Push, Want
from daskps.server.shard import Shard
from daskps.server.slot import in_key_order
from daskps.server.spec import ServerSpec
from daskps.server.tables import Init, TableSpec
from daskps.server.updaters import FTRL, SGD, AdaGrad, Add

N_SLOTS = 8
SPEC = ServerSpec(
    (
        TableSpec("w", 100, 2, FTRL(), init=Init("normal", 1.0)),
        TableSpec("bias", 1, 2, AdaGrad(discount=True)),
        TableSpec("count", 0, 1, Add("int64"), keys="hash"),
        TableSpec("zeros", 40, 1, Add("uint32")),
        TableSpec("wide", 40_000, 1, SGD(discount=True), init=Init("constant", 0.5)),
    ),
    N_SLOTS,
    2,
    math.inf,
)
CUT = "cut-00000003"


KEYS = np.arange(30, dtype=np.uint64) * np.uint64(2**59)
WHOLE = 5
"""The slot of which all rows of the wide table change; of others the first and the third do."""


def frozen(slots: list[int]) -> Any:
    """Return the rows of a shard that holds `slots`; not every slot has hashed keys."""
    return shard_of(slots).frozen("cut")


def shard_of(slots: list[int]) -> Shard:
    shard = Shard(SPEC, slots, 1)
    keys = KEYS[np.isin(SPEC.placements()["count"].slots(KEYS), slots)]
    keyset, _ = localise(SPEC.placements()["count"], keys)
    wants = tuple(keyset.want(s, s + 1) for s in slots)
    ones = [np.ones((sum(w.sizes), 1, 1), np.int64) for w in wants]
    few = [Want("wide", s, s + 1, [2], np.array([0, 2], np.uint32)) for s in slots if s != WHOLE]
    every = [Want("wide", s, s + 1, None, None) for s in slots if s == WHOLE]
    rows = SPEC.placements()["wide"].slot_rows(WHOLE)
    pushes = [np.ones((n, 4, 1), np.float32) for n in [2] * len(few) + [rows] * len(every)]
    shard.push(Push(1, 0, 0, 1.0, (*wants, *few, *every), [*ones, *pushes]))
    shard.freeze("cut")
    return shard


def write(
    store: str, cut: str = CUT, *, publish: bool = True, clock: int = 3, parts: Any = None
) -> Any:
    """Write a cut as two workers and the driver do."""
    parts = parts or [frozen([0, 1, 5]), frozen([2, 3, 4, 6, 7])]
    rows: dict[str, dict[int, int]] = {}
    for part in parts:
        for name, slots in part.items():
            rows.setdefault(name, {}).update({s: len(r) for s, (_, r) in slots.items()})
    sizes = checkpoint.create(store, cut, SPEC, rows)
    for part in parts:
        checkpoint.write_slots(store, cut, part)
    manifest = checkpoint.Manifest(
        model="model",
        server=SPEC,
        clocks_per_pass=1,
        clocks=[clock, clock + 1],
        samples=[7.0] * N_SLOTS,
        rows=sizes,
        partition_rows=[10, 20],
        ledger=checkpoint.ledger_to_builtins(Ledger(1)),
    )
    if publish:
        checkpoint.publish(store, cut, manifest)
    return parts, manifest


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "ckpt.zarr")


def read(store: str, cut: str = CUT) -> Any:
    return checkpoint.read_slots(store, cut, checkpoint.read_manifest(store, cut), range(N_SLOTS))


def test_what_is_written_is_read_slot_by_slot(store: str) -> None:
    parts, manifest = write(store)
    assert checkpoint.published(store) == [CUT]
    assert checkpoint.read_manifest(store, CUT) == manifest
    for part in parts:
        some = sorted(part["w"])
        again = checkpoint.read_slots(store, CUT, manifest, some)
        assert {n: sorted(t) for n, t in again.items()} == {n: sorted(t) for n, t in part.items()}
        for name, slots in part.items():
            for s, (keys, rows) in slots.items():
                np.testing.assert_array_equal(again[name][s][0], keys)
                np.testing.assert_array_equal(again[name][s][1], rows)
                assert again[name][s][1].dtype == rows.dtype


def test_slots_of_which_few_rows_changed_are_stored_as_these(store: str) -> None:
    _, manifest = write(store)
    sizes = [SPEC.placements()["wide"].slot_rows(s) for s in range(N_SLOTS)]
    assert manifest.rows["wide"] == [n if s == WHOLE else 2 for s, n in enumerate(sizes)]
    found = checkpoint.facts(store, CUT)
    assert found["rows"] == 100 + 1 + 30 + 40 + 40_000
    assert found["stored"] == 100 + 1 + 30 + 40 + 14 + sizes[WHOLE]
    again, slots = Shard(SPEC, range(N_SLOTS), 1), list(range(N_SLOTS))
    again.restore(2, {0: 1, 1: 1}, 1.0, read(store))
    before = shard_of(slots)
    for name in manifest.rows:
        expected = before.values(name)
        for slot, (keys, values) in again.values(name).items():
            np.testing.assert_array_equal(keys, expected[slot][0])
            assert values.tobytes() == expected[slot][1].tobytes()


def test_a_cut_of_version_1_is_still_read(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(checkpoint.NAMES, "separator", "/")  # a folder for each chunk, as it was
    """All rows of all tables stood in it, and no positions."""
    shard = shard_of(list(range(N_SLOTS)))
    shard.freeze("cut", whole=True)
    parts, manifest = write(store, parts=[shard.frozen("cut")])
    old = msgspec.structs.replace(manifest, version=1)
    checkpoint.publish(store, CUT, old)
    assert "wide_key" not in zarr.open_group(store, path=CUT, mode="r")
    for name, slots in read(store).items():
        for s, (keys, rows) in slots.items():
            held, expected = in_key_order(*parts[0][name][s])
            np.testing.assert_array_equal(keys, held)
            np.testing.assert_array_equal(rows, expected)


def test_slots_are_moved_in_runs_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of positions would take zarr ten times as long as a slice."""
    array: Any = zarr.create_array({}, shape=(40, 4), chunks=(1, 4), dtype="float32")
    monkeypatch.setattr(chunks, "BATCH", 3 * 16)
    slots = [0, 1, 5, 6, 7, 8, 9, 30]
    runs = list(chunks.batches(slots, array))
    assert runs == [[0, 1], [5, 6, 7], [8, 9], [30]]
    assert list(chunks.batches([], array)) == []


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_chunks_read_as_they_were_written_and_end_in_zeros(kind: str, tmp_path: Path) -> None:
    place: Any = LocalStore(tmp_path) if kind == "folder" else MemoryStore()
    options: Any = {"chunks": (1, 4, 2), "dtype": "float32", "compressors": [Crc32cCodec()]}
    array: Any = zarr.create_array(place, shape=(3, 4, 2), **options)
    rows = np.arange(16, dtype=np.float32).reshape(8, 2)
    chunks.ChunkWriter(array).put({0: rows[:3], 2: rows[::2]})
    np.testing.assert_array_equal(array[0], [*rows[:3], [0, 0]])
    np.testing.assert_array_equal(array[2], rows[::2])


def test_a_chunk_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array: Any = zarr.create_array(LocalStore(tmp_path), shape=(2, 4), chunks=(1, 4), dtype="u4")

    def full(path: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "no space is left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        chunks.ChunkWriter(array).put({0: np.arange(4, dtype=np.uint32)})
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["zarr.json"]


def test_a_cut_without_its_manifest_does_not_exist(store: str) -> None:
    assert checkpoint.published(store) == []
    write(store, publish=False)
    assert checkpoint.published(store) == []
    with pytest.raises(CheckpointError, match="no readable manifest"):
        checkpoint.read_manifest(store, CUT)


def test_xarray_opens_a_cut(store: str) -> None:
    parts, _ = write(store)
    with xr.open_zarr(f"{store}/{CUT}", consolidated=False) as cut:
        assert cut["w"].dims == ("slot_w", "row_w", "field_w", "value_w")
        np.testing.assert_array_equal(cut["w"][0], parts[0]["w"][0][1])
        expected = {"w", "bias", "count", "count_key", "zeros", "wide", "wide_key"}
        assert set(cut.variables) == expected
        assert cut.attrs["daskps"]["clocks"] == [3, 4]


def test_nothing_in_a_cut_is_a_pickle(store: str) -> None:
    write(store)
    for path in Path(store).rglob("zarr.json"):
        text = json.loads(path.read_text())
        assert "pickle" not in str(text)
    files = {p.name for p in Path(store).rglob("*") if p.is_file()}
    assert {name for name in files if not re.fullmatch(r"c(\.\d+)+", name)} == {"zarr.json"}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def tamper(cut: Path, at: list[int]) -> None:
    """Write other positions of the first slot, with a checksum that is right."""
    group = zarr.open_group(cut, mode="r+")
    chunks.ChunkWriter(array_of(group, "wide_key")).put({0: np.array(at, np.uint32)})


DAMAGE = {
    "bit": (lambda cut: flip(cut / "w/c.2.0.0.0"), "'w' .*cannot be read"),
    "bit in keys": (lambda cut: flip(cut / "count_key/c.2.0"), "'count_key' .*cannot be read"),
    "short": (lambda cut: (cut / "w/c.2.0.0.0").write_bytes(b"123456"), "'w' .*cannot be read"),
    "empty": (lambda cut: (cut / "w/c.2.0.0.0").write_bytes(b""), "'w' .*cannot be read"),
    "no chunk": (lambda cut: (cut / "w/c.2.0.0.0").unlink(), "slot 2 .*'w'.*chunk is missing"),
    "no integers": (lambda cut: (cut / "zeros/c.2.0.0.0").unlink(), "'zeros'.*is missing"),
    "no array": (lambda cut: shutil.rmtree(cut / "bias"), "'bias' .*cannot be read"),
    "no positions": (lambda cut: (cut / "wide_key/c.2.0").unlink(), "slot 2 .*'wide_key'.*missing"),
    "no order": (lambda cut: tamper(cut, [7, 5]), "slot 0 .*'wide_key'.*do not ascend"),
    "twice": (lambda cut: tamper(cut, [7, 7]), "slot 0 .*'wide_key'.*do not ascend"),
    "beyond": (
        lambda cut: tamper(cut, [2, 5120]),
        "slot 0 .*'wide_key'.*position 5120 is beyond the 5120 rows",
    ),
    "no keys": (lambda cut: shutil.rmtree(cut / "count_key"), "'count_key' .*cannot be read"),
    "array torn": (lambda cut: (cut / "w/zarr.json").write_text('{"za'), "'w' .*cannot be read"),
    "no manifest": (lambda cut: (cut / "zarr.json").unlink(), "no readable manifest"),
    "manifest torn": (lambda cut: (cut / "zarr.json").write_text('{"za'), "no readable manifest"),
    "no cut": (shutil.rmtree, "no readable manifest"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_a_checkpoint_error_and_leaves_the_cut_before(
    store: str, damage: Any, message: str
) -> None:
    write(store, "cut-00000001")
    write(store, CUT)
    damage(Path(store) / CUT)
    with pytest.raises(CheckpointError, match=f"{message}.*"):
        read(store)
    assert checkpoint.published(store)[-1] == "cut-00000001"
    read(store, "cut-00000001")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"version": 3}, "version 3; this daskps reads versions 1 to 2", id="newer"),
        pytest.param({"version": None}, "version None", id="no version"),
        pytest.param({"clocks": "many"}, "no readable manifest .*clocks", id="malformed"),
    ],
)
def test_a_manifest_that_is_not_understood(store: str, change: Any, message: str) -> None:
    _, manifest = write(store)
    raw = msgspec.to_builtins(manifest) | change
    zarr.open_group(store, path=CUT, mode="r+").attrs["daskps"] = raw
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read_manifest(store, CUT)


def test_pruning_keeps_the_newest_and_takes_what_nobody_will_use(store: str) -> None:
    for clock in (2, 4, 6, 9):
        write(store, f"cut-{clock:08d}", publish=clock != 4)
    zarr.open_group(store, mode="a").create_group("mine")
    write(store, "cut-00000007")
    checkpoint.prune(store, "cut-00000007", keep=2)
    assert checkpoint.published(store) == ["cut-00000007", "cut-00000006"]
    assert sorted(p.name for p in Path(store).iterdir() if p.is_dir()) == [
        "cut-00000006",
        "cut-00000007",
        "mine",
    ]
    checkpoint.prune(store, "cut-00000007", keep=1)
    assert checkpoint.published(store) == ["cut-00000007"]
    checkpoint.discard(store, ["cut-00000001"])  # not there: nothing to do


def test_a_cut_is_written_over_one_of_the_same_name(store: str) -> None:
    write(store, clock=5)
    write(store, publish=False)
    assert checkpoint.published(store) == []
    _, manifest = write(store)
    assert checkpoint.read_manifest(store, CUT) == manifest


def test_a_store_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(CheckpointError, match=rf"{file}.*cannot be opened.*every worker"):
        checkpoint.create(str(file), CUT, SPEC, {})
    assert checkpoint.published(str(file)) == []
