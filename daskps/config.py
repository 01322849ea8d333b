"""The part of Dask's configuration that daskps reads: defaults, and values that are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.config
import yaml
from dask.utils import parse_timedelta

_FOLDER = Path(__file__).parent
DEFAULTS: dict[str, Any] = yaml.safe_load((_FOLDER / "daskps.yaml").read_text("utf-8"))["daskps"]

dask.config.update_defaults({"daskps": DEFAULTS})


def schema() -> dict[str, Any]:
    """Return the schema of each key: ``type``, ``description`` and maybe ``minimum``."""
    whole = yaml.safe_load((_FOLDER / "daskps-schema.yaml").read_text("utf-8"))
    found: dict[str, Any] = whole["properties"]["daskps"]["properties"]
    return found


def get(key: str) -> Any:
    """Return what ``daskps.<key>`` is set to."""
    assert key in DEFAULTS, key
    return dask.config.get(f"daskps.{key}", DEFAULTS[key])


def seconds(key: str) -> float:
    """Return a time in seconds.

    Raises
    ------
    ValueError
        If it is no time, or not above 0.
    """
    value = get(key)
    try:
        found = float(parse_timedelta(value))
    except (ValueError, KeyError, TypeError, AttributeError):
        found = 0.0
    if isinstance(value, bool) or not found > 0:
        raise _refused(key, value, "a time above 0, such as '30s'")
    return found


def count(key: str) -> int:
    """Return an integer >= 0.

    Raises
    ------
    ValueError
        If it is none.
    """
    value = get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _refused(key, value, "an integer >= 0")
    return value


def switch(key: str) -> bool | None:
    """Return True, False, or None where that is the default.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    value = get(key)
    if not (isinstance(value, bool) or (value is None and DEFAULTS[key] is None)):
        raise _refused(key, value, "true or false" + " or null" * (DEFAULTS[key] is None))
    return value


def name(key: str) -> str | None:
    """Return a name, or None.

    Raises
    ------
    ValueError
        If it is neither.
    """
    value = get(key)
    if value is not None and not (isinstance(value, str) and value):
        raise _refused(key, value, "a name or null")
    found: str | None = value
    return found


def _refused(key: str, value: Any, expected: str) -> ValueError:
    return ValueError(
        f"daskps.{key} is {value!r} in Dask's configuration; expected {expected}. It is set in "
        f"{dask.config.PATH}, by the environment or by dask.config.set."
    )
