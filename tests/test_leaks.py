"""The leak checks see what they are there to see."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import leaks


def test_nothing_left_is_no_leak() -> None:
    leaks.warm_up()
    before = leaks.snapshot()
    with open(__file__) as file:
        file.read()
    assert leaks.leaks(before, patience=0) == []


def test_thread_is_seen_until_it_ends() -> None:
    before = leaks.snapshot()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="stray")
    thread.start()
    try:
        assert leaks.leaks(before, patience=0) == ["thread 'stray'"]
    finally:
        release.set()
        thread.join()
    assert leaks.leaks(before) == []


def test_child_process_is_seen_until_it_ends() -> None:
    before = leaks.snapshot()
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        found = leaks.leaks(before, patience=0)
        child.communicate(b"\n")
    assert any(line.startswith(f"process {child.pid}: ") for line in found)
    assert leaks.leaks(before) == []


def test_open_file_is_seen_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "open.txt"
    before = leaks.snapshot()
    with path.open("w"):
        found = leaks.leaks(before, patience=0)
    assert [line.partition(" -> ")[2] for line in found] == [str(path)]
    assert leaks.leaks(before) == []
