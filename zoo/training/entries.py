"""The training settings that have keys of their own: losses, callbacks and loggers. This module does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, JsonValue, PlainValidator, ValidationError, field_validator

from zoo.common.configuration import Strict
from zoo.common.import_path import is_import_path
from zoo.common.options import plain
from zoo.common.suggestions import did_you_mean

__all__ = ["LOSSES", "LossEntry", "LossTerm", "ObjectEntry", "Objects", "Positive", "entry_at", "read_loss"]

Positive: TypeAlias = Annotated[float, Field(gt=0)]

LOSSES = ("cross-entropy", "soft-cross-entropy", "dice", "jaccard", "tversky", "focal", "lovasz", "mcc")
"""The names of the losses that zoo provides. `zoo.training.losses` explains the losses."""


class ObjectEntry(Strict):
    """A callback or a logger: the import path of its class (of Lightning or your own), and the arguments of the class.

    Attributes:
        class_path: the import path of the class: package.module.Name, or file.py:Name relative to the folder of the YAML file.
        init_args: the keyword arguments of the class.
    """

    class_path: str
    init_args: dict[str, JsonValue] = {}

    @field_validator("class_path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        if not is_import_path(path):
            raise ValueError(
                f"an import path such as lightning.pytorch.callbacks.LearningRateMonitor is required; found {path!r}"
            )
        return path


def _read_objects(value: Any) -> Any:
    return [{"class_path": each} if isinstance(each, str) else each for each in value] if isinstance(value, list) else value


Objects: TypeAlias = Annotated[
    list[ObjectEntry], BeforeValidator(_read_objects, json_schema_input_type=list[ObjectEntry | str])
]
"""A list of callbacks or loggers. Each is given as an `ObjectEntry`, or only as the import path of its class."""


def entry_at(location: Sequence[str | int], model: type[Strict]) -> type[Strict]:
    """Return the pydantic class that declares the keys at a location in the settings. `model` is the class of the top level."""
    return ObjectEntry if location[:1] in (["callbacks"], ["loggers"]) else model


class LossTerm(Strict):
    """One term of a loss.

    Attributes:
        loss: a loss's name, or the import path of your own function or class: package.module.Name, or file.py:Name.
        weight: the factor of the term.
        options: the loss's keyword arguments, such as alpha and beta of tversky.
    """

    loss: str
    weight: Positive = 1.0
    options: dict[str, JsonValue] = {}

    @field_validator("loss")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in LOSSES and not is_import_path(name):
            raise ValueError(
                f"{name!r} is not a loss.{did_you_mean(name, LOSSES, likeness=0.7)} Losses: {', '.join(LOSSES)}; or the import "
                "path of your own function, such as mypackage.losses.boundary or losses.py:boundary"
            )
        return name


def read_loss(value: Any) -> list[LossTerm]:
    """Return the terms of a loss that is given as a name, a sum of names, a mapping of names to weights, or a list."""
    if isinstance(value, str):
        names = [value] if is_import_path(value) else value.split("+")
        return [LossTerm(loss=name.strip()) for name in names]
    if isinstance(value, Mapping):
        return [LossTerm(loss=name, weight=_to_float(weight)) for name, weight in value.items()]
    if isinstance(value, list | tuple):
        return [LossTerm(loss=each) if isinstance(each, str) else LossTerm.model_validate(each) for each in value]
    raise ValueError(
        f"a loss must be a name such as dice, a sum such as cross-entropy+dice, a mapping or a list; found {value!r}"
    )


def _check_loss(value: Any) -> Any:
    """Check the terms of a loss, and return the loss as plain data. A function is replaced by its import path."""
    if callable(value):
        value = _path_of(value)
    try:
        terms = read_loss(value)
    except ValidationError as cause:  # pydantic would list the mistakes of each kind of entry
        raise ValueError("; ".join(_format_mistake(each) for each in cause.errors())) from cause
    if not terms:
        raise ValueError("at least one loss is required")
    if isinstance(value, str | Mapping):
        return plain(value)
    return [each if isinstance(each, str) else term.model_dump() for each, term in zip(value, terms, strict=True)]


def _format_mistake(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    where = ".".join(map(str, error["loc"]))
    return message if error["type"] == "value_error" else f"{where}: {message}; found {error['input']!r:.80}"


def _to_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _path_of(function: Callable[..., Any]) -> str:
    """Return the import path of a function. A resumed run and other processes use the path to find the function again."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module is None or not name.isidentifier():
        raise ValueError(
            f"a loss must be a function or a class at the top level of a module, so that a resumed run finds it; found "
            f"{function!r}"
        )
    return f"{module}:{name}"


LossEntry: TypeAlias = Annotated[
    Any, PlainValidator(_check_loss, json_schema_input_type=str | dict[str, float] | list[LossTerm | str])
]
