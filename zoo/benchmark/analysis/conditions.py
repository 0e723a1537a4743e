"""Parse conditions on rows, such as `latency<20ms`, and filter rows by them. Torch-free.

A condition is `NAME OP VALUE`. Several conditions can be passed one by one or joined by " and "; a row must meet all of them.

| NAME | OP | VALUE |
| --- | --- | --- |
| `latency`, `p90`, `busy` | `=` `!=` `<` `<=` `>` `>=` | a number in ms, or with the unit `us`, `ms` or `s` |
| `build`, `first` | `=` `!=` `<` `<=` `>` `>=` | a number in seconds, or with the unit `us`, `ms` or `s` |
| `memory`, `live`, `allocated`, `rss` | `=` `!=` `<` `<=` `>` `>=` | in MiB, or in `B` `KiB` `MiB` `GiB` `kB` `MB` `GB` |
| `parameters`, `parts` (of the encoder) | `=` `!=` `<` `<=` `>` `>=` | a number in millions, or with the unit `k`, `M` or `G` |
| `flops` | `=` `!=` `<` `<=` `>` `>=` | a number in GFLOPs, or with the unit `M`, `G` or `T` |
| `efficiency` | `=` `!=` `<` `<=` `>` `>=` | a number in percent |
| `ratio`, `busy_ratio`, `quality`, `quality_difference` | `=` `!=` `<` `<=` `>` `>=` | a number, or a percentage with `%` |
| `run`, `batch`, `throughput`, `rounds`, `fits` | `=` `!=` `<` `<=` `>` `>=` | a number |
| `size` | `=` `!=` `<` `<=` `>` `>=` `~` | `256x320`, or `256` for a square; `<` and `>` compare the number of pixels |
| `pairing`, `encoder`, `decoder`, `licenses`, `flags`, `failure` | `=` `!=` `~` | text; `~` takes a glob or part of the text |
| `mode`, `data`, `device`, `device_name`, `dtype`, `format`, `runtime`, `role` | `=` `!=` `~` | text, as above |
| `tie` | `=` `!=` | `yes` or `no`: whether the row ties with its baseline |
| any name | `=` `!=` | `none`, for a value that was not measured or does not apply |

`==` means `=`. `~` does not distinguish upper and lower case. Numbers are equal if they agree in the digits that are typed: a
latency of 14.87 ms meets `latency=14.9`. A row without a value meets only `=none`. It meets neither `=` nor `!=` with any other
value. Values may be quoted.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from zoo.benchmark.analysis.facts import Fact, Kind, find_fact
from zoo.benchmark.table.rows import Row
from zoo.common.format_names import format_names
from zoo.errors import OptionError
from zoo.registry.image_sizes import read_size

__all__ = ["Condition", "explain_no_match", "filter_rows", "parse_conditions"]

SHOWN_VALUES = 12
"""The largest number of values that a message lists."""

ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
SIGNS: dict[Kind, tuple[str, ...]] = {
    "number": ("=", "!=", *ORDERINGS),
    "size": ("=", "!=", *ORDERINGS, "~"),
    "text": ("=", "!=", "~"),
    "yes or no": ("=", "!="),
}
COMPARISON = re.compile(r"\s*([A-Za-z_]\w*)\s*(==|!=|<=|>=|=|<|>|~)(.*)", re.DOTALL)
JOINED = re.compile(r"\s+and\s+(?=[A-Za-z_]\w*\s*(?:==|!=|<=|>=|=|<|>|~))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition on a row.

    Attributes:
        fact: the property of the row that is compared, such as its latency.
        sign: the operator.
        value: the value as the user typed it.
        option: the command-line option that the condition comes from.
        meets: returns whether a row meets the condition.

    Raises:
        OptionError: the property cannot be compared with this operator or this value.
    """

    fact: Fact
    sign: str
    value: str
    option: str = "--where"
    meets: Callable[[Row], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "meets", _make_test(self))

    def __str__(self) -> str:
        return f"{self.fact.name}{self.sign}{self.value}" if self.option == "--where" else f"{self.option} {self.value}"


def parse_conditions(texts: Iterable[str]) -> list[Condition]:
    """Parse conditions in the syntax that this module's docstring describes.

    Raises:
        OptionError: a condition is malformed, or has an unknown name or an invalid value.
    """
    return [_parse_condition(part.strip()) for text in texts for part in JOINED.split(text)]


def filter_rows(rows: Iterable[Row], conditions: Iterable[Condition]) -> list[Row]:
    """Return the rows that meet all conditions."""
    return [row for row in rows if all(condition.meets(row) for condition in conditions)]


def explain_no_match(rows: Sequence[Row], conditions: Sequence[Condition]) -> str:
    """Return how many rows meet each condition; for a condition that no row meets, also which values the rows have."""
    return "\n".join([f"No row meets every condition. Of the {len(rows)} rows:", *_count_matches(rows, conditions)])


def _count_matches(rows: Sequence[Row], conditions: Sequence[Condition]) -> Iterator[str]:
    for condition in conditions:
        count = len(filter_rows(rows, [condition]))
        result = f"{count} meet it" if count else f"none meets it; {_describe_values(rows, condition.fact)}"
        yield f"  {condition}: {result}"


def _describe_values(rows: Sequence[Row], fact: Fact) -> str:
    values = [value for row in rows if (value := fact.value(row)) is not None]
    if not values:
        return f"no row has a value of {fact.name}"
    if fact.kind == "number":
        return f"{fact.name} ranges from {fact.format(min(values))} to {fact.format(max(values))}"
    names = list(dict.fromkeys(map(fact.format, values)))
    return f"{fact.name} is one of: {format_names(names, SHOWN_VALUES)}"


def _parse_condition(text: str) -> Condition:
    match = COMPARISON.fullmatch(text)
    if match is None or not match[3].strip():
        raise OptionError(
            f"--where {text!r} is not a condition. Write NAME OP VALUE, where OP is one of = != < <= > >= ~, such as "
            "'latency<20ms' or 'encoder~resnet*'."
        )
    value = match[3].strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    return Condition(fact=find_fact(match[1], "--where"), sign=match[2].replace("==", "="), value=value)


def _make_test(condition: Condition) -> Callable[[Row], bool]:
    fact, sign, text = condition.fact, condition.sign, condition.value
    where = f"--where '{condition}'" if condition.option == "--where" else str(condition)
    if text.lower() == "none" and sign in ("=", "!="):
        return lambda row: (fact.value(row) is None) is (sign == "=")
    if sign not in SIGNS[fact.kind]:
        kind = "a number" if fact.kind == "number" else fact.kind
        raise OptionError(
            f"{where}: for {fact.name} ({kind}), the operator must be one of {' '.join(SIGNS[fact.kind])}; found {sign}."
        )
    compare = _make_comparison(fact, sign, text, where)
    return lambda row: (value := fact.value(row)) is not None and compare(value)


def _make_comparison(fact: Fact, sign: str, text: str, where: str) -> Callable[[Any], bool]:
    """Return a function that tests a value. It must not be called with None, the value of a row that was not measured."""
    if sign == "~":
        pattern = text.lower() if any(wildcard in text for wildcard in "*?[") else f"*{text.lower()}*"
        return lambda value: fnmatchcase(fact.format(value).lower(), pattern)
    if fact.kind == "number":
        number, step = fact.parse(text, where)
        if sign in ORDERINGS:
            return lambda value: ORDERINGS[sign](value, number)
        return lambda value: (round(value / step) == round(number / step)) is (sign == "=")
    if fact.kind == "size":
        height, width = read_size(text, where)
        if sign in ORDERINGS:
            return lambda value: ORDERINGS[sign](value[0], height * width)
        return lambda value: (value[1:] == (height, width)) is (sign == "=")
    if fact.kind == "yes or no":
        text = text.lower()
        if text not in ("yes", "no"):
            raise OptionError(f"{where}: {fact.name} must be yes or no; found {text!r}.")
    return lambda value: (fact.format(value) == text) is (sign == "=")
