"""Rows of tables (Parquet, Hugging Face) as JSON has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

Other = Callable[[str, Any], Any]  # what becomes of a column's value that JSON has nothing for


def plain(row: Mapping[str, Any], other: Other) -> dict[str, Any]:
    """A row in the values of JSON: dates and times become text (ISO 8601), as UUIDs do, decimals numbers, and durations
    their seconds; what is something else (bytes, images) is what ``other`` makes of it.
    """
    return {column: _plain(value, partial(other, column)) for column, value in row.items()}


def _plain(value: Any, other: Callable[[Any], Any]) -> Any:
    match value:
        case None | str() | int() | float():
            return value
        case Mapping():
            return {str(name): _plain(inner, other) for name, inner in value.items()}
        case list() | tuple():
            return [_plain(inner, other) for inner in value]
        case date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
    return other(value)
