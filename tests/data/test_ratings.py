"""Ratings: every input becomes the same rows, ids come back, splits share nothing."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import xarray as xr

from daskps import Ratings, open_ratings, read_ratings
from daskps.data import as_ratings, from_arrays
from daskps.errors import DataError, DataTypeError

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    keys = rng.choice(40 * 25, 400, replace=False)
    users, items = np.divmod(keys, 25)
    data = {"user": users * 10 + 7, "item": [f"i{i:02}" for i in items]}
    return pd.DataFrame({**data, "rating": rng.integers(1, 11, 400) / 2, "when": rng.random(400)})


def triples(r: Ratings) -> set[tuple[Any, Any, float]]:
    found, first = set(), 0
    for p in range(r.dataset.n_partitions):
        part = r.dataset.partition(p)
        for row in range(part.n_rows):
            for j in range(part.indptr[row], part.indptr[row + 1]):
                value = 1.0 if part.values is None else float(part.values[j])
                found.add((r.users[first + row], r.items[int(part.indices[j])], value))
        first += part.n_rows
    return found


def expected(frame: pd.DataFrame) -> set[tuple[Any, Any, float]]:
    return set(zip(frame.user, frame["item"], frame.rating, strict=True))


@pytest.mark.parametrize("suffix", [",", "\t", "::"])
@pytest.mark.parametrize("header", [True, False])
def test_text_is_read_whatever_separates_it(
    frame: pd.DataFrame, tmp_path: Path, suffix: str, header: bool
) -> None:
    lines = [f"{suffix}".join(map(str, row)) for row in frame.itertuples(index=False)]
    text = "\n".join(([suffix.join(frame.columns)] if header else []) + lines) + "\n"
    path = tmp_path / "ratings.dat"
    path.write_text(text)
    assert triples(read_ratings(path)) == expected(frame)
    with gzip.open(tmp_path / "r.gz", "wt") as file:
        file.write("about\n" + text)
    found = read_ratings(tmp_path / "r.gz", time="when", skip_lines=1)
    assert triples(found) == expected(frame)


def test_ids_that_look_like_numbers_in_one_file_only_are_text_in_all(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,x,3\n2,y,4\n")
    (tmp_path / "b.csv").write_text("1,y,5\nbob,x,1\n")
    expected = {("1", "x", 3), ("2", "y", 4), ("1", "y", 5), ("bob", "x", 1)}
    pattern, both = str(tmp_path / "*.csv"), [tmp_path / "a.csv", tmp_path / "b.csv"]
    assert triples(read_ratings(pattern)) == expected
    assert triples(as_ratings(pattern)) == triples(as_ratings(both)) == expected


def test_a_store_gives_back_what_memory_holds(frame: pd.DataFrame, tmp_path: Path) -> None:
    memory = read_ratings(frame, time="when", n_partitions=3)
    read_ratings(frame, tmp_path / "r.zarr", time="when", n_partitions=3)
    stored = open_ratings(tmp_path / "r.zarr")
    assert triples(stored) == triples(memory) == expected(frame)
    assert memory.times is not None
    assert stored.times is not None
    for p in range(3):
        np.testing.assert_array_equal(stored.times[p], memory.times[p])
    assert "ratings=400 users=40 items=25 partitions=3" in repr(stored)


@pytest.mark.parametrize(
    "ids",
    [
        [("a", 1), ("b", 2), ("a", 2)],
        [datetime.datetime(2020, 1, d) for d in (1, 2, 3)],
        [1, "one", None],
        [1.5, 2.5, -1.0],
        [2**63, 5, 7],
    ],
    ids=["tuples", "dates", "mixed", "floats", "large"],
)
def test_ids_of_any_kind_come_back_from_a_store(ids: list[Any], tmp_path: Path) -> None:
    column = pd.Series(ids, dtype=object) if None in ids or isinstance(ids[0], tuple) else ids
    if None in ids:
        column = pd.Series([1, "one", ("none",)], dtype=object)
    frame = pd.DataFrame({"user": column, "item": [1, 2, 3], "rating": 1.0})
    memory = read_ratings(frame)
    stored = read_ratings(frame, tmp_path / "r.zarr")
    assert set(memory.users) == set(frame.user)
    assert memory.users.tolist() == stored.users.tolist()


def test_matrices_are_numbered_and_xarray_brings_its_ids(tmp_path: Path) -> None:
    X = sp.random_array((30, 12), density=0.3, rng=np.random.default_rng(0), format="csr")
    X.data = np.round(X.data * 4 + 1).astype(np.float32)
    rows, columns = X.tocoo().coords
    want = set(zip(rows.tolist(), columns.tolist(), X.tocoo().data.tolist(), strict=True))
    blocks = da.from_array(X.toarray(), chunks=(7, 12))
    from_arrays(X, store=tmp_path / "d.zarr", shuffle=False)
    for given in (X, X.toarray(), X.tocoo(), blocks, str(tmp_path / "d.zarr")):
        assert triples(as_ratings(given)) == want
    named = xr.DataArray(X.toarray(), {"who": [f"u{i}" for i in range(30)]}, ("who", "what"))
    assert triples(as_ratings(named)) == {(f"u{u}", i, r) for u, i, r in want}


def test_duplicates_go_by_a_rule() -> None:
    rows = [("u", "i", 1.0, 9), ("v", "i", 3.0, 1), ("u", "i", 4.0, 5)]
    frame = pd.DataFrame(rows, columns=["user", "item", "rating", "when"])
    with pytest.raises(DataError, match="'u' rated item 'i' more than once"):
        read_ratings(frame)
    assert triples(read_ratings(frame, duplicates="last")) == {("u", "i", 4.0), ("v", "i", 3.0)}
    by_time = read_ratings(frame, duplicates="last", time="when")
    assert triples(by_time) == {("u", "i", 1.0), ("v", "i", 3.0)}
    assert triples(read_ratings(frame, duplicates="mean")) == {("u", "i", 2.5), ("v", "i", 3.0)}
    twice = sp.coo_array(([1.0, 3.0, 5.0], ([0, 0, 2], [1, 1, 0])), shape=(3, 2))
    with pytest.raises(DataError, match="more than once"):
        as_ratings(twice)
    assert triples(as_ratings(twice, duplicates="mean")) == {(0, 1, 2.0), (2, 0, 5.0)}


def test_splits_are_disjoint_and_complete(frame: pd.DataFrame, tmp_path: Path) -> None:
    for store in (None, tmp_path / "r.zarr"):
        r = read_ratings(frame, store, time="when", n_partitions=3)
        for a, b in (r.split(0.7), r.leave_out(2), r.leave_out(1, "time"), r.split_by_time(0.5)):
            assert triples(a) | triples(b) == expected(frame)
            assert not triples(a) & triples(b)
            assert a.dataset.n_rows == b.dataset.n_rows == 40
        latest = {t[:2] for t in triples(r.leave_out(1, "time")[1])}
        last = frame.sort_values("when").groupby("user").tail(1)
        assert latest == set(zip(last.user, last["item"], strict=True))
        before, after = r.split_by_time(when=0.25)
        assert len(triples(before)) == (frame.when < 0.25).sum()
        assert after.times is not None
        assert min(after.times[p].min() for p in range(3)) >= 0.25
    with pytest.raises(DataError, match="have no times"):
        read_ratings(frame).split_by_time(0.5)


@pytest.mark.parametrize("kind", ["text", "dates", "zone", "seconds"])
def test_ratings_are_split_at_a_date(tmp_path: Path, kind: str) -> None:
    days = pd.Series(pd.date_range("2015-09-20", periods=4, freq="12h"))
    times = {
        "text": days.dt.strftime("%Y-%m-%d %H:%M"),
        "dates": days,
        "zone": days.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"),
        "seconds": (days - pd.Timestamp(0)) // pd.Timedelta(seconds=1),
    }
    frame = pd.DataFrame({"user": list("abcd"), "item": 1, "rating": 2.0, "when": times[kind]})
    frame.to_csv(tmp_path / "r.csv", index=False)
    for source in (frame, tmp_path / "r.csv"):
        r = read_ratings(source, time="when")
        for when in ("2015-09-21", pd.Timestamp("2015-09-21T00:00Z"), 1442793600):
            before, after = r.split_by_time(when=when)
            assert {t[0] for t in triples(before)} == {"a", "b"}
            assert {t[0] for t in triples(after)} == {"c", "d"}
    with pytest.raises(DataError, match="when='soon' is no moment"):
        r.split_by_time(when="soon")
    with pytest.raises(DataTypeError, match="'when' of times holds neither numbers nor dates"):
        read_ratings(frame.assign(when="soon"), time="when")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rating": [1.0, np.nan]}, DataError, "rating in row 1 is .*nan"),
        ({"rating": [1.0, np.inf]}, DataError, "rating in row 1 is .*inf"),
        ({"rating": ["a", "b"]}, DataTypeError, "not numeric"),
        ({"user": [1, None]}, DataError, "'user' has no id in row 1"),
        ({"user": [[1], [2]]}, DataTypeError, "hashable"),
    ],
)
def test_bad_values_are_named(change: dict[str, Any], error: type, message: str) -> None:
    frame = pd.DataFrame({"user": [1, 2], "item": [1, 2], "rating": [1.0, 2.0], **change})
    with pytest.raises(error, match=message):
        read_ratings(frame)


def test_bad_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'rating'"):
        read_ratings(pd.DataFrame({"user": [1], "item": [2]}))
    with pytest.raises(DataError, match="no ratings"):
        read_ratings(pd.DataFrame({"user": [], "item": [], "rating": []}))
    (tmp_path / "two.csv").write_text("1,2\n")
    with pytest.raises(DataError, match="2 fields"):
        read_ratings(tmp_path / "two.csv")
    (tmp_path / "bad.csv").write_text("1,2,3\n4,5,six\n")
    with pytest.raises(DataTypeError, match=r"bad\.csv.* is not numeric"):
        read_ratings(tmp_path / "bad.csv")
    with pytest.raises(FileNotFoundError):
        read_ratings(tmp_path / "none.csv")
    with pytest.raises(TypeError, match="a int"):
        read_ratings(5)
    with pytest.raises(DataError, match="duplicates='first'"):
        read_ratings(pd.DataFrame(), duplicates="first")


def test_dask_frames_and_parquet_are_taken(frame: pd.DataFrame, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="dask.dataframe and Parquet need pyarrow")
    import dask.dataframe as dd

    found = read_ratings(dd.from_pandas(frame, npartitions=4), tmp_path / "r.zarr")
    assert triples(found) == expected(frame)
    frame.to_parquet(tmp_path / "r.parquet")
    assert triples(read_ratings(tmp_path / "r.parquet")) == expected(frame)


@pytest.mark.skipif(not (SHARED / "filmtrust").exists(), reason="no ../shared/data beside it")
def test_real_ratings_have_the_published_counts() -> None:
    found = read_ratings(SHARED / "filmtrust" / "ratings.tab", skip_lines=3, duplicates="last")
    assert (len(found.users), len(found.items), found.n_ratings) == (1508, 2071, 35494)
