"""The data path of its own: frames, doors and connections, without any Dask."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from daskps.errors import RunFailed, ShardLost, StaleLayout
from daskps.run.answers import FIELDS, Answers
from daskps.run.door import DoorKeeper
from daskps.run.parcels import Parcel
from daskps.run.peers import Peers
from daskps.run.wire import Answer, Inquiry, Stream
from daskps.server.buffers import Buffers
from daskps.server.client import ParameterClient
from daskps.server.keys import localise, whole_table
from daskps.server.layout import Layout, ShardRef
from daskps.server.messages import Pull, Want
from daskps.server.shard import Shard
from daskps.server.spec import ServerSpec
from daskps.server.tables import TableSpec
from daskps.server.updaters import AdaGrad, Add

SPEC = ServerSpec(
    (
        TableSpec("w", 5000, 2, AdaGrad(discount=True)),
        TableSpec("n", 300, 1, Add("int64")),
        TableSpec("h", 0, 1, Add("float64"), keys="hash"),
    ),
    8,
    2,
    float("inf"),
)


class Office:
    """Two shards behind doors, and what reaches them."""

    def __init__(self) -> None:
        slots = Layout.place(8, {s: ShardRef(s, 0, "", "") for s in range(2)})
        self.shards = {f"k{s}": Shard(SPEC, slots.slots_of(s), 1) for s in range(2)}
        self.keepers = [DoorKeeper("127.0.0.1", 0, self.find) for _ in range(2)]
        self.refs = {
            s: ShardRef(s, 0, f"tcp://{s}", f"k{s}", self.keepers[s].door) for s in range(2)
        }
        self.layout = Layout(1, slots.owners, self.refs)
        self.peers = Peers()
        self.buffers = Buffers()

    def find(self, number: int, incarnation: int, key: str) -> Shard:
        if key not in self.shards:
            raise ShardLost(f"{key} is not here")
        return self.shards[key]

    def local(self, ref: ShardRef) -> None:
        return None

    def send(self, calls: Any) -> Any:
        return self.peers.send(calls, 5.0)

    def client(self) -> ParameterClient:
        return ParameterClient(SPEC, self.layout, self)

    def pull_n(self, ref: ShardRef, timeout: float = 5.0) -> np.ndarray:
        shard = self.shards.get(ref.key, self.shards["k0"])
        out = np.empty((sum(len(v) for _, v in shard.values("n").values()), 1, 1), np.int64)
        self.peers.send([(ref, self.message(shard), [out])], timeout)()
        return out

    def message(self, shard: Shard, table: str = "n") -> Pull:
        slots = list(shard.values("n"))
        return Pull(1, 0, 0, (Want(table, slots[0], slots[-1] + 1, None, None),))

    def close(self) -> None:
        self.peers.rest()
        for keeper in self.keepers:
            keeper.close()


@pytest.fixture
def office() -> Iterator[Office]:
    office = Office()
    yield office
    office.close()
    deadline = time.monotonic() + 5
    while left := [t for t in threading.enumerate() if t.name == "daskps-door"]:
        assert time.monotonic() < deadline, left
        left[0].join(0.1)


def test_what_a_partition_keeps_goes_through_a_door(office: Office) -> None:
    office.layout = replace(office.layout, homes=(1, 0))
    client = office.client()
    first = {
        "topic": np.arange(12, dtype=np.uint16).reshape(3, 4),
        "none": np.zeros((0, 5), np.float32),
        "one": np.array(7.5),
    }
    assert client.state(partition=0, clock=0) is None
    assert client.keep(first, partition=0, clock=0) is first  # what came need not go back
    held = office.shards["k1"].kept(0)
    assert office.shards["k0"].kept(0) == {}
    again = client.keep({"topic": np.zeros(3)}, partition=0, clock=0)
    for found in (held, again, client.state(partition=0, clock=1)):
        assert found is not None
        assert list(found) == list(first)
        for name, array in first.items():
            assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "parcel",
    [
        pytest.param(Parcel("x", "|O", [1]), id="objects"),
        pytest.param(Parcel("x", "<f4", [-2]), id="negative"),
        pytest.param(Parcel("x", "<f4", [3]), id="other size"),
        pytest.param(Parcel("x", "nonsense", [2]), id="no type"),
    ],
)
def test_arrays_that_are_none_are_refused_and_the_connection_lives(
    office: Office, parcel: Parcel
) -> None:
    ref = office.refs[0]
    inquiry = Inquiry(0, 0, "k0", 1, 0, 0, "keep", [parcel])
    with socket.create_connection((ref.door.host, ref.door.port)) as sock:
        stream = Stream(sock)
        stream.deadline = time.monotonic() + 5
        stream.greet(ref.door.token)
        stream.send(inquiry, [np.zeros(2, np.float32)])
        answer, _ = stream.receive(Answer)
        assert answer.error in ("ValueError", "TypeError")
        stream.send(replace(inquiry, what="state", parcels=[]))
        assert stream.receive(Answer)[0] == Answer()


@settings(max_examples=25, deadline=None)
@given(
    keys=st.lists(st.integers(0, 4999), max_size=300),
    hashed=st.lists(st.integers(0, 2**64 - 1), max_size=20),
    seed=st.integers(0, 2**16),
)
def test_what_goes_through_a_door_arrives_bit_by_bit(
    keys: list[int], hashed: list[int], seed: int
) -> None:
    office = Office()
    try:
        places = SPEC.placements()
        keysets = [
            localise(places["w"], np.array(keys, np.uint32))[0],
            whole_table(places["n"]),
            localise(places["h"], np.array(hashed, np.uint64))[0],
        ]
        rng, client = np.random.default_rng(seed), office.client()
        deltas = [
            np.abs(rng.normal(size=(len(keysets[0]), 5, 2))).astype(np.float32),
            rng.integers(-(2**60), 2**60, (len(keysets[1]), 1, 1)),
            rng.normal(size=(len(keysets[2]), 1, 1)),
        ]
        assert client.push(keysets, deltas, partition=0, clock=0, samples=3.5)
        assert not client.push(keysets, deltas, partition=0, clock=0, samples=3.5)
        rows, samples = client.pull(keysets, partition=0, clock=1)
        assert samples == 3.5
        np.testing.assert_array_equal(rows[0][:, 1], deltas[0][:, 1])  # sums of squares, from zero
        np.testing.assert_array_equal(rows[1], deltas[1])
        np.testing.assert_array_equal(rows[2], deltas[2])
        assert client.traffic.pushed == 2 * sum(d.nbytes for d in deltas)
    finally:
        office.close()


def test_errors_of_a_shard_come_back_as_they_are_and_the_connection_lives(office: Office) -> None:
    office.shards["k0"].generation = 2
    with pytest.raises(StaleLayout, match="generation 1 reached a shard of generation 2"):
        office.pull_n(office.refs[0])
    office.shards["k0"].generation = 1
    assert not office.pull_n(office.refs[0]).any()
    with pytest.raises(ShardLost, match="k7 is not here"):
        office.pull_n(replace(office.refs[0], key="k7"))
    odd = [(office.refs[0], Pull(1, 0, 0, (Want("x", 0, 1, None, None),)), [np.empty((0, 1, 1))])]
    with pytest.raises(RunFailed, match=r"shard 0 on tcp://0 failed with KeyError: 'x'"):
        office.peers.send(odd, 5.0)()


def test_a_stranger_at_the_door_gets_no_answer(office: Office) -> None:
    door = office.keepers[0].door
    forged = replace(office.refs[0], door=replace(door, token="0" * len(door.token)))
    with pytest.raises(ShardLost, match=r"EOFError|Connection"):
        office.pull_n(forged)
    with socket.create_connection((door.host, door.port)) as sock:
        stream = Stream(sock)
        stream.greet(door.token)
        sock.sendall(b"\xff" * 64)  # no frame: a header of 4 GiB
        with pytest.raises((EOFError, OSError)):
            stream.receive(Answer)
    assert not office.pull_n(office.refs[0]).any()  # others are served as before


def test_a_frame_of_another_size_than_it_names_is_refused(office: Office) -> None:
    short = [np.empty((3, 1, 1), np.int64)]
    with pytest.raises((ShardLost, RunFailed)):
        office.peers.send([(office.refs[0], office.message(office.shards["k0"]), short)], 5.0)()
    assert not office.pull_n(office.refs[0]).any()


def test_what_each_shard_was_asked_is_counted_and_adds_up_to_all_of_it(office: Office) -> None:
    answers = Answers()
    office.send = lambda calls: office.peers.send(calls, 5.0, answers.add)
    office.layout = replace(office.layout, homes=(1, 0))
    client, keyset = office.client(), whole_table(SPEC.placements()["n"])
    client.push([keyset], [np.ones((300, 1, 1), np.int64)], partition=0, clock=0, samples=1)
    client.pull([keyset], partition=0, clock=1)
    client.keep({"kept": np.ones(1000, np.uint8)}, partition=0, clock=1)
    told = {s: dict(zip(FIELDS, counts, strict=True)) for s, counts in answers.told().items()}
    assert {s: (c["pulls"], c["pushes"]) for s, c in told.items()} == {"0": (1, 1), "1": (1, 2)}
    assert told["0"]["pulled"] + told["1"]["pulled"] == client.traffic.pulled == 2400
    assert told["0"]["pushed"] + told["1"]["pushed"] == client.traffic.pushed == 3400
    assert told["1"]["pushed"] == told["1"]["pulled"] + 1000
    assert all(c["pull_seconds"] > 0 < c["push_seconds"] for c in told.values())


def test_a_slow_shard_does_not_make_the_others_look_slow(office: Office) -> None:
    answered, found = threading.Event(), office.find

    def slow(number: int, incarnation: int, key: str) -> Shard:
        assert number or answered.wait(30)  # shard 0 answers after shard 1 has
        return found(number, incarnation, key)

    for keeper in office.keepers:
        keeper._find = slow
    heard: list[tuple[int, float]] = []

    def note(call: Any, answer: Any, seconds: float) -> None:
        heard.append((call[0].shard, seconds))
        answered.set()

    outs = [
        np.empty((sum(len(v) for _, v in s.values("n").values()), 1, 1), np.int64)
        for s in office.shards.values()
    ]
    messages = [office.message(s) for s in office.shards.values()]
    calls = list(zip(office.refs.values(), messages, [[out] for out in outs], strict=True))
    assert [seen.samples for seen in office.peers.send(calls, 10.0, note)()] == [0.0, 0.0]
    assert [shard for shard, _ in heard] == [1, 0]
    assert heard[0][1] < heard[1][1]


def test_waits_end_when_the_worker_is_lost(office: Office) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def silent(*ref: Any) -> Shard:
        asked.set()
        assert go_on.wait(30)
        raise ShardLost("too late")

    office.keepers[0]._find = silent
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            office.pull_n(office.refs[0], 60.0)
        except ShardLost as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert asked.wait(5)
    office.peers.lose("tcp://0")
    thread.join(5)
    go_on.set()
    assert not thread.is_alive()
    assert len(errors) == 1
    with pytest.raises(ShardLost, match="its worker is gone"):
        office.pull_n(office.refs[0])
    assert not office.pull_n(office.refs[1]).any()  # of another worker


def test_silence_ends_in_time(office: Office) -> None:
    go_on = threading.Event()
    office.keepers[0]._find = lambda *ref: go_on.wait(30)
    start = time.monotonic()
    with pytest.raises(ShardLost, match="no answer in time"):
        office.pull_n(office.refs[0], 0.2)
    assert time.monotonic() - start < 5
    go_on.set()


def test_nobody_listens_any_more(office: Office) -> None:
    office.keepers[0].close()
    with pytest.raises(ShardLost, match="Connection"):
        office.pull_n(office.refs[0])


def test_connections_are_used_again(office: Office) -> None:
    for _ in range(5):
        office.pull_n(office.refs[0])
    assert len(office.keepers[0]._streams) == 1
    office.peers.rest()
    deadline = time.monotonic() + 5
    while office.keepers[0]._streams:
        assert time.monotonic() < deadline
