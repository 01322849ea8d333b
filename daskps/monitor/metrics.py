"""Prometheus metrics of runs, on the scheduler's ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from daskps.run.answers import FIELDS

GAUGES = {
    "clock": "Clocks that all partitions have finished",
    "target": "Clocks that they will finish",
    "loss": "Mean training loss of the last clock",
    "rate": "Samples a second",
    "workers": "Workers that hold a shard or have finished a task",
    "shards": "Shards",
}
COUNTERS = {
    "samples": "Samples that tasks have gone through",
    "pulled": "Bytes pulled",
    "pushed": "Bytes pushed",
    "recoveries": "Recoveries from the loss of shards",
}
SHARD_COUNTERS = (
    "Pulls that a shard has answered to other processes",
    "Time until the answers were there",
    "Bytes pulled of a shard by other processes",
    "Pushes that a shard has taken from other processes",
    "Time until it had confirmed them",
    "Bytes pushed to a shard by other processes",
)
"""In the order of `FIELDS`."""


class Collector:
    """Turns the newest figures of each run into metrics."""

    def __init__(self) -> None:
        self.runs: Mapping[str, Any] = {}

    def describe(self) -> list[Any]:
        """Return nothing, so that registering it collects nothing."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the metrics, with the run and its model as labels."""
        told = [view.latest for view in list(self.runs.values()) if view.latest]
        for family, names in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for name, text in names.items():
                metric = family(f"daskps_{name}", text, labels=["run", "model"])
                for latest in told:
                    metric.add_metric([latest["run"], latest["model"]], float(latest[name]))
                yield metric
        for field, text in zip(FIELDS, SHARD_COUNTERS, strict=True):
            counter = CounterMetricFamily(f"daskps_shard_{field}", text, labels=["run", "shard"])
            for latest in told:
                for shard, counts in latest["answers"].items():
                    counter.add_metric([latest["run"], shard], counts[FIELDS.index(field)])
            yield counter
        lag = GaugeMetricFamily(
            "daskps_partition_clock", "Finished clocks of a partition", labels=["run", "partition"]
        )
        for latest in told:
            for partition, clock in enumerate(latest["clocks"]):
                lag.add_metric([latest["run"], str(partition)], clock)
        yield lag


_collector: Collector | None = None


def add(runs: Mapping[str, Any]) -> None:
    """Serve the metrics of `runs`; of several schedulers in a process the last one's."""
    global _collector
    if _collector is None:
        _collector = Collector()
        REGISTRY.register(_collector)
    _collector.runs = runs
