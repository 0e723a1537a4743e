"""The options of an encoder or a decoder, as an immutable, hashable mapping of plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zoo.errors import OptionError

__all__ = ["Options", "UnquotedText", "plain"]


class UnquotedText(str):
    """Text that has no quotes in a YAML file, and that other YAML parsers would read as a boolean, a number or a date."""

    __slots__ = ()


class Options(Mapping[str, Any]):
    """The options of an encoder or a decoder, as an immutable, hashable mapping. Lists in it become tuples."""

    __slots__ = ("_items",)

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self._items = tuple(sorted((name, _frozen(value)) for name, value in (options or {}).items()))

    def __getitem__(self, name: str) -> Any:
        return dict(self._items)[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return f"Options({dict(self._items)!r})"


def plain(value: Any) -> Any:
    """Return a value for YAML or JSON: mappings in it are converted to dicts, and tuples to lists."""
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, tuple):
        return [plain(entry) for entry in value]
    return value


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Options(value)
    if isinstance(value, list | tuple):
        return tuple(_frozen(entry) for entry in value)
    if isinstance(value, UnquotedText):
        raise OptionError(
            f"An option's value must be plain data; found {value} without quotes, which other YAML parsers "
            "read as another type. Write true or false, a decimal number such as 1000, or text in quotes."
        )
    if value is None or isinstance(value, str | int | float):
        return value
    raise OptionError(f"An option's value must be plain data (numbers, strings, lists, mappings); found {value!r}.")
