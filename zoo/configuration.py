"""YAML files that say what is to be done: read without a key given twice, checked, each mistake named with its remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from zoo.errors import ConfigError
from zoo.hints import did_you_mean

__all__ = ["Count", "Side", "Size", "Strict", "checked", "read_mapping", "read_value", "written"]

Count: TypeAlias = Annotated[int, Field(ge=1)]
Size: TypeAlias = Annotated[
    tuple[Count, Count], BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
]
"""YAML has lists only; strict pydantic wants a pair to be a tuple."""
Side: TypeAlias = Count | Size


class Strict(BaseModel):
    """A part of a configuration: frozen, without unknown keys, without types brought to others."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_Model = TypeVar("_Model", bound=Strict)
ModelAt: TypeAlias = Callable[[Sequence[str | int]], type[Strict]]


def read_mapping(path: Path, example: str = "name: my-run") -> dict[Any, Any]:
    """Return a YAML file's keys and values.

    Raises:
        ConfigError: no such file, no YAML, or no keys and values.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"There is no configuration {path}; the project's own are in configs/.") from None
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path} could not be read: {cause}.") from cause
    except (yaml.YAMLError, RecursionError) as cause:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(cause).split())}.") from cause
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and values, such as '{example}'; found {type(content).__name__}.")
    return content


def checked(model: type[_Model], content: dict[Any, Any], told: str, model_at: ModelAt | None = None) -> _Model:
    """Return a configuration's content as a model.

    Args:
        model: what it must be.
        content: as it was read.
        told: what the message begins with, such as "run.yaml is no valid benchmark configuration".
        model_at: the model that holds the key at a place, for the keys that are allowed there; by default `model`.

    Raises:
        ConfigError: a line for each mistake.
    """
    try:
        return model.model_validate(content)
    except ValidationError as cause:
        lines = dict.fromkeys(_told(error, content, model_at or (lambda place: model)) for error in cause.errors())
        raise ConfigError("\n".join([f"{told}:", *lines])) from None


def read_value(text: str) -> Any:
    """Return one value as YAML reads it; what is none is text.

    >>> read_value("3e-3"), read_value("[96, 128]"), read_value("dice")
    (0.003, [96, 128], 'dice')
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return text


def written(content: dict[str, Any]) -> str:
    """Return plain data as the YAML that `read_mapping` reads as the same: text that it would take for a number is quoted."""
    told: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return told


class _Dumper(yaml.SafeDumper):
    """The standard one, but for what `_Loader` takes for a number."""


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, where the standard loader silently takes the last, and takes 1e-3 for a number.

    What contains itself is refused as well, and keys that are lists or mappings.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._open: list[str | None] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self._open:
                raise yaml.YAMLError(f"*{event.anchor} stands within what it names{event.start_mark}")
            return super().compose_node(parent, index)
        self._open.append(event.anchor)
        node = super().compose_node(parent, index)
        self._open.pop()
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key is text or a number; found another{key.start_mark}")
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.YAMLError(f"the key {key.value!r} stands twice, the second time in line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
    )


def _told(error: Any, content: dict[Any, Any], model_at: ModelAt) -> str:
    """Return one line for a person: the key, what was found and what is allowed."""
    location = list(error["loc"])
    if location[:1] == ["size"] and len(location) > 1:
        given = content["size"]
        place, found = (f"size.{location[1]}", given[location[1]]) if isinstance(location[1], int) else ("size", given)
        return f"  {place}: a side is a whole number of at least 1, or a pair [height, width]; found {found!r}."
    named = [part for part in location if part not in _TAGS]
    key = ".".join(str(part) for part in named) or "the file"
    if error["type"] == "extra_forbidden":
        allowed = list(model_at(location[:-1]).model_fields)
        hint = did_you_mean(str(location[-1]), allowed)
        return f"  {key}: unknown key.{hint} Allowed: {', '.join(allowed)}."
    if error["type"] == "missing":
        return f"  {key}: this key is required."
    message = str(error["msg"]).removeprefix("Value error, ")
    given = "" if error["type"] == "value_error" else f"; found {error['input']!r}"
    return f"  {key}: {message}{given}."


_TAGS = ("pairing", "reference", "count", "range", "bool", "constrained-int")
"""What pydantic names the kinds of a union in an error's place; a user wrote no such key."""
