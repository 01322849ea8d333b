"""Slots and states on their way from one shard to another, as arrays with names.

``samples`` (of a shard that hands over slots), ``row/<table>/<slot>``, ``key/<table>/<slot>`` and
``state/<partition>/<name>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.server.messages import Arrays

Tables = Mapping[str, Mapping[int, tuple[NDArray[np.uint64] | None, NDArray[Any]]]]


def pack(samples: float | None, tables: Tables, states: Mapping[int, Arrays]) -> Arrays:
    """Return everything by name; rows and states are not copied.

    Parameters
    ----------
    samples
        That the shard has seen; None if it hands over no slot: without one it has seen nothing.
    tables
        Keys and rows of the slots, those that hold none left out.
    states
        Of partitions.
    """
    found: dict[str, NDArray[Any]] = {} if samples is None else {"samples": np.array(samples)}
    for name, slots in tables.items():
        for slot, (keys, rows) in slots.items():
            found[f"row/{name}/{slot}"] = rows
            if keys is not None:
                found[f"key/{name}/{slot}"] = keys
    for partition, state in states.items():
        found |= {f"state/{partition}/{name}": array for name, array in state.items()}
    return found


def unpack(
    parts: Iterable[Arrays], names: Iterable[str]
) -> tuple[float, dict[str, dict[int, Any]], dict[int, dict[str, NDArray[Any]]]]:
    """Put what came from several shards together.

    Parameters
    ----------
    parts
        As `pack` made them.
    names
        Of all tables.

    Returns
    -------
    samples
        The least that any of the shards had seen.
    tables, states
        As `Shard.restore` takes them.
    """
    tables: dict[str, dict[int, Any]] = {name: {} for name in names}
    states: dict[int, dict[str, NDArray[Any]]] = {}
    samples = []
    for part in parts:
        if "samples" in part:  # also where the slots hold no rows, as most of a small table's
            samples.append(float(part["samples"]))
        for label, array in part.items():
            match label.split("/", 2):
                case ["row", *_]:
                    name, slot = label[4:].rsplit("/", 1)
                    tables[name][int(slot)] = (part.get(f"key/{name}/{slot}"), array)
                case ["state", partition, name]:
                    states.setdefault(int(partition), {})[name] = array
    return min(samples, default=0.0), tables, states
