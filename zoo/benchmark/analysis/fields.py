"""What of a row can be named, compared and limited: each column and a few facts beside, with their units. Torch-free."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, TypeAlias

from zoo.benchmark.table.columns import COLUMNS, Column
from zoo.benchmark.table.rows import Row
from zoo.common.suggestions import did_you_mean
from zoo.errors import OptionError

__all__ = ["Fact", "fact_named", "number_of", "quantity", "told_quantity"]

Kind: TypeAlias = Literal["number", "text", "size", "yes or no"]

TIME = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "kB": 1e3, "MB": 1e6, "GB": 1e9}
COUNT = {"k": 1e3, "M": 1e6, "G": 1e9}
FLOPS = {"M": 1e6, "G": 1e9, "T": 1e12, "MFLOPs": 1e6, "GFLOPs": 1e9, "TFLOPs": 1e12}
PERCENT = {"%": 0.01}
UNITS: dict[str, Mapping[str, float]] = {"ms": TIME, "s": TIME, "MiB": BYTES, "M": COUNT, "GFLOPs": FLOPS}
"""By the word in a column's heading that is its unit."""
SHARES = ("ratio", "busy_ratio", "quality", "quality_difference")

NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What a condition or a sort order may name: a column, or a fact of the row that is none.

    Attributes:
        suffixes: the units that its numbers may have, with their sizes.
        unit: the one that a bare number has; "" for none.
    """

    name: str
    kind: Kind
    value: Callable[[Row], Any]
    suffixes: Mapping[str, float]
    unit: str = ""


def fact_named(name: str, where: str) -> Fact:
    """Return a fact by its name.

    Raises:
        OptionError: there is none of that name; the message begins with `where`.
    """
    facts = _facts()
    if name not in facts:
        raise OptionError(f"{where}: there is no column {name!r}.{did_you_mean(name, facts)} There are: {', '.join(facts)}.")
    return facts[name]


def number_of(fact: Fact, text: str, where: str) -> tuple[float, int, float]:
    """Return the number in the fact's own unit, how many digits it has behind the point, and the size of the unit typed."""
    match = NUMBER.fullmatch(text.strip())
    units = {suffix.lower(): size for suffix, size in fact.suffixes.items()}
    suffix = match[2].strip().lower() if match else ""
    if fact.kind != "number" or match is None or (suffix and suffix not in units) or not math.isfinite(float(match[1])):
        example = f"such as 20{fact.unit}" if fact.unit else "without a unit" if not units else "such as 0.7"
        with_unit = f" It may have one of {' '.join(fact.suffixes)}." if units else ""
        bare = f" A bare number is in {fact.unit}." if fact.unit else ""
        raise OptionError(f"{where}: {text!r} is no value of {fact.name}; write a number, {example}.{with_unit}{bare}")
    size = units[suffix] if suffix else fact.suffixes.get(fact.unit, 1.0)
    digits = len(match[1].lower().partition("e")[0].partition(".")[2])
    return float(match[1]) * size, digits, size


def quantity(name: str, text: str, option: str = "") -> float:
    """Return a number with or without a unit in the column's own: seconds, bytes, parameters, FLOPs or a plain number.

    Args:
        name: of a column of numbers.
        text: such as "20ms"; a bare number has the unit of the column's heading.
        option: what the user typed it for, for the message.

    Raises:
        OptionError: no number, or no unit of this column.
    """
    return number_of(fact_named(name, option or name), text, option or name)[0]


def told_quantity(name: str, value: float) -> str:
    """Return a value as `quantity` reads it, in the unit of the column's heading."""
    fact = fact_named(name, name)
    return f"{value / fact.suffixes.get(fact.unit, 1.0):.6g}{fact.unit}"


def _facts() -> dict[str, Fact]:
    columns = [_fact_of(column) for column in COLUMNS]
    others = [_text_fact(name, attrgetter(name)) for name in ("encoder", "decoder", "device_name", "role", "failure")]
    tie = Fact(name="tie", kind="yes or no", value=_tie, suffixes={})
    return {fact.name: fact for fact in (*columns, *others, tie)}


def _fact_of(column: Column) -> Fact:
    if column.name == "size":
        return Fact(name="size", kind="size", value=column.value, suffixes={})
    if not column.is_number:
        return _text_fact(column.name, column.cell)
    if column.name == "efficiency":
        return Fact(name=column.name, kind="number", value=column.value, suffixes=PERCENT, unit="%")
    unit = next((word for word in column.heading.split() if word in UNITS), "")
    suffixes = UNITS[unit] if unit else PERCENT if column.name in SHARES else {}
    return Fact(name=column.name, kind="number", value=column.value, suffixes=suffixes, unit=unit)


def _text_fact(name: str, text: Callable[[Row], Any]) -> Fact:
    def value(row: Row) -> str | None:
        return None if text(row) in (None, "", "-") else str(text(row))

    return Fact(name=name, kind="text", value=value, suffixes={})


def _tie(row: Row) -> bool | None:
    return row.ratio.is_tie if row.ratio and not row.is_baseline else None
