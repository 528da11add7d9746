"""ls, pull, data."""

from __future__ import annotations
