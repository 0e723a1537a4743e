"""Read and validate YAML configuration files. Duplicate keys are refused, and each error says how to correct the mistake."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from zoo.common.options import UnquotedText
from zoo.common.regular_files import check_regular
from zoo.common.suggestions import did_you_mean
from zoo.errors import ConfigError, OptionError

__all__ = [
    "Count",
    "Side",
    "Size",
    "Strict",
    "checked",
    "one_of_kinds",
    "read_mapping",
    "read_option",
    "read_value",
    "shorten",
    "written",
]

Count: TypeAlias = Annotated[int, Field(ge=1)]
LONGEST_SIDE = 2**17
"""The longest allowed side of an image, in pixels. A square RGB image of this side takes 200 GB in float32."""
Length: TypeAlias = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]
Size: TypeAlias = Annotated[
    tuple[Length, Length], BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
]
"""A pair [height, width]. The list that YAML gives is converted to a tuple, since strict pydantic accepts only a tuple here."""
Side: TypeAlias = Length | Size


class Strict(BaseModel):
    """The base class for each part of a configuration. It is frozen, refuses unknown keys and converts no types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


SHOWN = 120
"""How many characters of a value a message shows at most."""
DEEPEST = 32
"""How many levels deep the lists and mappings of a configuration may be nested."""
MOST_BYTES = 16 * 2**20
"""The largest size of a configuration file, in bytes. A larger file is refused before it is read into memory."""
MOST_REPEATED = 100_000
"""How many characters and values the YAML aliases of a file may repeat in total. Without a limit, a kilobyte of aliases
can expand to gigabytes."""
_CORE = "tag:yaml.org,2002:"

_Model = TypeVar("_Model", bound=Strict)
ModelAt: TypeAlias = Callable[[Sequence[str | int]], type[Strict]]


def read_mapping(path: Path, example: str = "name: my-run") -> dict[Any, Any]:
    """Return the keys and values of a YAML file.

    Args:
        path: the file.
        example: a valid line of such a file, for the error message if the content is not a mapping.

    Raises:
        ConfigError: the file does not exist, cannot be read, is too large, is not valid YAML, or is not a mapping.
    """
    try:
        check_regular(path)
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ConfigError(
                f"{path} has {size:,} bytes, but a configuration may have at most {MOST_BYTES:,}. Use another file."
            )
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"The configuration {path} does not exist; the project's examples are in configs/.") from None
    except OSError as cause:
        raise ConfigError(f"{path} could not be read: {cause.strerror}.") from cause
    except UnicodeDecodeError as cause:
        raise ConfigError(f"{path} could not be read: {cause}.") from cause
    except yaml.YAMLError as cause:
        raise ConfigError(f"{path} is not valid YAML: {_format_yaml_error(cause)}.") from cause
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must contain keys and values, such as '{example}'; found {type(content).__name__}.")
    return content


def checked(model: type[_Model], content: dict[Any, Any], heading: str, model_at: ModelAt | None = None) -> _Model:
    """Validate the content of a configuration and return it as an instance of a pydantic class.

    Args:
        model: the pydantic class.
        content: the keys and values, as `read_mapping` returns them.
        heading: the beginning of the error message, such as "run.yaml is not a valid benchmark configuration".
        model_at: a function that returns the pydantic class that declares the keys at a location in the configuration. The
            error message for an unknown key lists these keys as the allowed ones. By default, `model` declares all keys.

    Raises:
        ConfigError: the content is not valid. The message has a line for each mistake.
    """
    try:
        return model.model_validate(content)
    except ValidationError as cause:
        lines = dict.fromkeys(_format_error(error, content, model_at or (lambda location: model)) for error in cause.errors())
        raise ConfigError("\n".join([f"{heading}:", *lines])) from None


def read_value(text: str) -> Any:
    """Parse text as one YAML value, and return the value. If the text is not valid YAML, return the text unchanged.

    Raises:
        OptionError: the value is valid YAML but not allowed in a configuration, such as a number of 5,000 digits.

    >>> read_value("3e-3"), read_value("[96, 128]"), read_value("dice")
    (0.003, [96, 128], 'dice')
    """
    try:
        found = yaml.load(text, Loader=_Loader)
    except _RefusedValue as cause:
        raise _refusal(text, cause) from cause
    except yaml.YAMLError:
        return text
    return str(found) if isinstance(found, UnquotedText) else found


def read_option(name: str, text: str) -> Any:
    """Parse the value of an encoder's or a decoder's option as YAML, and return it. Unlike `read_value`, refuse invalid YAML.

    Raises:
        OptionError: the text is not valid YAML, or the value is not allowed in a configuration.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as cause:
        raise _refusal(f"{name}={text}", cause) from cause


def _refusal(text: str, cause: yaml.YAMLError) -> OptionError:
    return OptionError(f"{shorten(text)} cannot be used: {_format_yaml_error(cause)}.")


def _format_yaml_error(cause: yaml.YAMLError) -> str:
    """Return what is wrong with YAML text, and where, in one line. PyYAML's own message has several lines."""
    if isinstance(cause, yaml.MarkedYAMLError):
        problem = ", ".join(text for text in (cause.context, cause.problem) if text)
        return f"{problem}{_format_mark(cause.problem_mark or cause.context_mark)}"
    return " ".join(str(cause).split()).replace(' in "<unicode string>",', " at")


def _format_mark(mark: Any) -> str:
    """Return a location in YAML as text that begins with a space; "" if PyYAML does not know the location."""
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"


def shorten(value: object) -> str:
    """Return the repr of a value for a message. A repr of more than `SHOWN` characters is cut off."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def one_of_kinds(expected: str) -> WrapValidator:
    """Return a pydantic validator for a union of types. It raises a single error for a value that fits none of the types.

    Args:
        expected: what the value must be, for the error message.
    """

    def validate(value: Any, validate_kinds: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate_kinds(value)
        except ValidationError:
            raise ValueError(f"{expected} is expected; found {shorten(value)}") from None

    return WrapValidator(validate)


def written(content: dict[str, Any]) -> str:
    """Return data as YAML that `read_mapping` converts back to equal data. Text that looks like a number is quoted for this."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


class _RefusedValue(yaml.YAMLError):
    """A value is valid YAML but not allowed in a configuration."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, except that it also quotes text that `_Loader` would read as another type."""


class _Loader(yaml.SafeLoader):
    """A strict loader for YAML 1.2 with the core schema: `no` and `2026-02-03` are text, and 1e-3 is a number.

    Text that a YAML 1.1 parser would read as another type (`no`, `010`, `1_000`, `1:30`, dates) becomes `UnquotedText`. The
    loader refuses duplicate keys, keys that are not scalars, tags beyond the core schema, values that contain themselves, deep
    nesting, and aliases that expand to more than `MOST_REPEATED` characters and values.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[dict[Any, Any]] = {
        tag: yaml.SafeLoader.yaml_constructors[tag]
        for tag in (None, *(f"{_CORE}{name}" for name in ("null", "bool", "seq", "map")))
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._open: list[str | None] = []
        self._size = 0
        self._repeated = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self._open:
                raise _RefusedValue(f"*{event.anchor} is inside the value that it refers to{_format_mark(event.start_mark)}")
            size = self._sizes.get(str(event.anchor), 0)
            self._size += size
            self._repeated += size
            if self._repeated > MOST_REPEATED:
                raise _RefusedValue(f"aliases repeat more than {MOST_REPEATED:,} characters{_format_mark(event.start_mark)}")
            return super().compose_node(parent, index)
        if len(self._open) == DEEPEST:
            raise _RefusedValue(f"more than {DEEPEST} levels of lists and mappings{_format_mark(event.start_mark)}")
        before = self._size
        self._size += 1
        if isinstance(event, yaml.ScalarEvent):
            self._size += len(event.value)
            if any("\ud800" <= sign <= "\udfff" for sign in event.value):
                raise _RefusedValue(f"half of a surrogate pair is not a character{_format_mark(event.start_mark)}")
        self._open.append(event.anchor)
        node = super().compose_node(parent, index)
        self._open.pop()
        if event.anchor:
            self._sizes[event.anchor] = self._size - before
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError) as cause:
            kind = node.tag.removeprefix(_CORE)
            raise _RefusedValue(f"{shorten(node.value)} is not a valid {kind}{_format_mark(node.start_mark)}") from cause

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key must be text or a number; found a list or a mapping{_format_mark(key.start_mark)}")
            value = key.value if key.tag == f"{_CORE}merge" else str(self.construct_object(key))  # 1, "1" and 0x1 are one key
            if key.tag != f"{_CORE}merge" and value in seen:
                raise yaml.YAMLError(
                    f"the key {shorten(key.value)} is given twice, the second time in line {key.start_mark.line + 1}"
                )
            seen.add(value)
        return super().construct_mapping(node, deep)

    def text(self, node: yaml.ScalarNode) -> str:
        """Return a value that is text.

        If the text has no quotes and a YAML 1.1 parser would read it as another type, return an `UnquotedText`.
        """
        found: str = self.construct_scalar(node)
        elsewhere = _OTHER_READER.resolve(yaml.ScalarNode, found, (True, False))  # type: ignore[no-untyped-call]
        return UnquotedText(found) if node.style is None and elsewhere in _MISTAKABLE else found

    def whole_number(self, node: yaml.ScalarNode) -> int:
        """Return a whole number of at most 64 bits."""
        value = int(self.construct_scalar(node), 0)
        if not -(2**63) <= value < 2**63:
            raise _RefusedValue(f"{shorten(node.value)} needs more than 64 bits{_format_mark(node.start_mark)}")
        return value

    def number(self, node: yaml.ScalarNode) -> float:
        """Return a float. Only `.inf` in the file gives infinity. A number that is too large for a float is refused."""
        written_as = self.construct_scalar(node).lower()
        value = float(re.sub(r"\.(inf|nan)$", r"\1", written_as))
        if math.isinf(value) and "inf" not in written_as:
            raise _RefusedValue(f"{shorten(node.value)} is larger than any float{_format_mark(node.start_mark)}")
        return value


_OTHER_READER = yaml.SafeLoader("")
_MISTAKABLE = tuple(f"{_CORE}{name}" for name in ("bool", "int", "float", "timestamp"))
_PLAIN = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+))|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "merge": (r"<<", "<"),
}
"""For each type of YAML 1.2's core schema: the pattern of an unquoted value, and the characters that it may begin with."""
for _kind, (_pattern, _first) in _PLAIN.items():
    for _each in (_Loader, _Dumper):
        _each.add_implicit_resolver(f"{_CORE}{_kind}", re.compile(f"(?:{_pattern})$"), list(_first))
for _kind, _constructor in (("str", _Loader.text), ("int", _Loader.whole_number), ("float", _Loader.number)):
    _Loader.add_constructor(f"{_CORE}{_kind}", _constructor)


def _format_error(error: Any, content: dict[Any, Any], model_at: ModelAt) -> str:
    """Return the line of an error message for one mistake: the key, the value that was found and what is allowed."""
    location = list(error["loc"])
    if location[:1] == ["size"] and len(location) > 1:
        size = content["size"]
        key, found = (f"size.{location[1]}", size[location[1]]) if isinstance(location[1], int) else ("size", size)
        return f"  {key}: a side must be a whole number from 1 to {LONGEST_SIDE:,}, or a pair [height, width]; found {found!r}."
    named = location[:1] + [part for part in location[1:] if part not in _TAGS]
    key = ".".join(str(part) for part in named) or "the file"
    if error["type"] == "extra_forbidden":
        allowed = list(model_at(location[:-1]).model_fields)
        hint = did_you_mean(str(location[-1]), allowed)
        return f"  {key}: unknown key.{hint} Allowed: {', '.join(allowed)}."
    if error["type"] == "missing":
        return f"  {key}: this key is required."
    message = str(error["msg"]).removeprefix("Value error, ")
    found = "" if error["type"] == "value_error" else f"; found {shorten(error['input'])}"
    return f"  {key}: {message}{found}."


_TAGS = ("pairing", "reference", "count", "range", "bool", "constrained-int")
"""The names of union members, which pydantic puts into the location of an error although the user did not write them."""
