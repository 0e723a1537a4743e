"""The facts (properties) of a row that conditions, limits and sort orders can name, and how values are parsed. Torch-free."""

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

__all__ = ["FACTS", "Fact", "Kind", "find_fact"]

Kind: TypeAlias = Literal["number", "text", "size", "yes or no"]

TIME = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
BYTES = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "kB": 1e3, "MB": 1e6, "GB": 1e9}
COUNT = {"k": 1e3, "M": 1e6, "G": 1e9}
FLOPS = {"M": 1e6, "G": 1e9, "T": 1e12, "MFLOPs": 1e6, "GFLOPs": 1e9, "TFLOPs": 1e12}
PERCENT = {"%": 0.01}
UNITS: dict[str, Mapping[str, float]] = {"ms": TIME, "s": TIME, "MiB": BYTES, "M": COUNT, "GFLOPs": FLOPS}
"""For each unit in the heading of a column, the units in which users may write a number, with the sizes of these units."""
SHARES = ("ratio", "busy_ratio", "quality", "quality_difference")

NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A property of a row, such as its latency, that a condition, a limit or a sort order can name.

    Attributes:
        name: the name of the fact. Most facts have the name of a column of the table.
        kind: the kind of value.
        value: returns a row's value; None if the row does not have it. Numbers are in seconds, bytes, parameters or FLOPs, or
            have no unit. A size is (pixels, height, width), so that sizes are ordered by their number of pixels.
        units: the units in which a number may be written, with their sizes.
        unit: the unit of a number that is written without a unit; "" for none.
    """

    name: str
    kind: Kind
    value: Callable[[Row], Any]
    units: Mapping[str, float]
    unit: str = ""

    def parse(self, text: str, where: str) -> tuple[float, float]:
        """Parse a number with an optional unit.

        Return the number, and the size of one step of its last digit. Both are in the unit of `value`: "20ms" becomes 0.02 and
        0.001 (seconds).

        Raises:
            OptionError: the text is not a number, or its unit is not one of `units`. The message begins with `where`.
        """
        match = NUMBER.fullmatch(text.strip())
        units = {unit.lower(): size for unit, size in self.units.items()}
        unit = match[2].strip().lower() if match else ""
        if self.kind != "number" or match is None or (unit and unit not in units) or not math.isfinite(float(match[1])):
            example = f"such as 20{self.unit}" if self.unit else "such as 0.7" if units else "without a unit"
            choices = f" Units are {' '.join(self.units)}." if units else ""
            default = f" A number without a unit is in {self.unit}." if self.unit else ""
            raise OptionError(f"{where}: {self.name} cannot be {text!r}. Write a number, {example}.{choices}{default}")
        size = units[unit] if unit else self.units.get(self.unit, 1.0)
        decimals = len(match[1].lower().partition("e")[0].partition(".")[2])
        return float(match[1]) * size, size / 10**decimals

    def format(self, value: Any) -> str:
        """Return a value as text. A number is written in `unit`, so that `parse` can read it."""
        if self.kind == "number":
            return f"{value / self.units.get(self.unit, 1.0):.6g}{self.unit}"
        if self.kind == "size":
            return f"{value[1]}x{value[2]}"
        return {True: "yes", False: "no"}[value] if self.kind == "yes or no" else str(value)

    def format_limit(self, value: float, *, is_upper: bool) -> str:
        """Return the tightest limit that a number meets and that has three digits, as `parse` reads it."""
        size = self.units.get(self.unit, 1.0)
        step = 10.0 ** (math.floor(math.log10(value / size)) - 2) if value > 0 else 1.0
        steps = math.ceil(value / size / step) if is_upper else math.floor(value / size / step)
        while True:
            text = self.format(steps * step * size)
            limit, _ = self.parse(text, self.name)  # the text may be a rounded value, so the limit is tested as written
            if value <= limit if is_upper else value >= limit:
                return text
            steps += 1 if is_upper else -1


def find_fact(name: str, where: str) -> Fact:
    """Return a fact by its name.

    Raises:
        OptionError: no fact has that name. The message begins with `where`.
    """
    if name not in FACTS:
        raise OptionError(f"{where}: there is no column {name!r}.{did_you_mean(name, FACTS)} Choose from: {', '.join(FACTS)}.")
    return FACTS[name]


def _text_fact(name: str, text: Callable[[Row], Any]) -> Fact:
    def value(row: Row) -> str | None:
        return None if text(row) in (None, "", "-") else str(text(row))

    return Fact(name=name, kind="text", value=value, units={})


def _column_fact(column: Column) -> Fact:
    if column.name == "size":
        return Fact(name="size", kind="size", value=lambda row: (row.height * row.width, row.height, row.width), units={})
    if not column.is_number:
        return _text_fact(column.name, column.cell)
    if column.name == "efficiency":
        return Fact(name=column.name, kind="number", value=column.value, units=PERCENT, unit="%")
    unit = next((word for word in column.heading.split() if word in UNITS), "")
    units = UNITS[unit] if unit else PERCENT if column.name in SHARES else {}
    return Fact(name=column.name, kind="number", value=column.value, units=units, unit=unit)


def _is_tie(row: Row) -> bool | None:
    return row.ratio.is_tie if row.ratio and not row.is_baseline else None


FACTS = {
    fact.name: fact
    for fact in (
        *(_column_fact(column) for column in COLUMNS),
        *(_text_fact(name, attrgetter(name)) for name in ("encoder", "decoder", "device_name", "role", "failure")),
        Fact(name="tie", kind="yes or no", value=_is_tie, units={}),
    )
}
"""All facts by name. The facts of the columns come first, in the order of the columns."""
