"""What daskps is tested with, for testing models of your own: clusters that suffer, and what holds.

`chaos` fits an estimator while workers are killed, stopped, slowed, retired and joined, and while
the checkpoint's store is full, gone or damaged, as a `Schedule` says; then it checks that the
result is what it would have been.
"""

from __future__ import annotations

from daskps.testing.farm import Farm, assert_clean, left_behind, wait_until
from daskps.testing.harness import Calm, Report, calm_run, chaos
from daskps.testing.schedule import (
    DiskFull,
    Join,
    Kill,
    Retire,
    Schedule,
    Slow,
    Stop,
    StoreGone,
    TornChunk,
    all_or_nothing,
)
from daskps.testing.watch import fingerprint

__all__ = [
    "Calm",
    "DiskFull",
    "Farm",
    "Join",
    "Kill",
    "Report",
    "Retire",
    "Schedule",
    "Slow",
    "Stop",
    "StoreGone",
    "TornChunk",
    "all_or_nothing",
    "assert_clean",
    "calm_run",
    "chaos",
    "fingerprint",
    "left_behind",
    "wait_until",
]
