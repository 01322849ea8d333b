"""Fixtures of the tests of commands."""

from __future__ import annotations

from cluster_tools import own_scratch

__all__ = ["own_scratch"]
