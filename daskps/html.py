"""Small pieces of HTML for notebooks: tables of facts, and a line of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 220, 36
"""Of a line, in pixels."""


def facts(title: str, found: Mapping[str, Any], more: str = "") -> str:
    """Return a table of names and values under a title; `more` is HTML below it."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(str(name))}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in found.items()
    )
    return f"<div><b>{escape(title)}</b><table>{rows}</table>{more}</div>"


def grid(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table with a row of names."""
    top = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def line(values: Sequence[float], label: str) -> str:
    """Return a drawing of finite numbers from left to right; empty for fewer than two."""
    some = [(i, v) for i, v in enumerate(values) if math.isfinite(v)]
    if len(some) < 2:
        return ""
    low, high = min(v for _, v in some), max(v for _, v in some)
    across, up = WIDTH / max(1, len(values) - 1), (HEIGHT - 4) / ((high - low) or 1.0)
    points = " ".join(f"{i * across:.1f},{HEIGHT - 2 - (v - low) * up:.1f}" for i, v in some)
    return (
        f"<svg width='{WIDTH}' height='{HEIGHT}' role='img' aria-label='{escape(label)}'>"
        f"<title>{escape(label)}</title><polyline points='{points}' fill='none' "
        "stroke='#1f77b4' stroke-width='1.5'/></svg>"
    )
