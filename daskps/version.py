"""The version of this package; the one in pyproject.toml is the same, by a test."""

from __future__ import annotations

VERSION = "0.1.0.dev0"
