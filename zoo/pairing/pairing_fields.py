"""The data of a pairing: its ids and options with their types, defaults and checks. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, fields
from os import PathLike, fspath
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from zoo.common.options import Options
from zoo.errors import OptionError

__all__ = [
    "OPTION_NAMES",
    "WHOLE_NUMBERS",
    "AdapterPolicy",
    "PairingFields",
    "PairingOptions",
    "SizePolicy",
    "normalize_value",
]

AdapterPolicy: TypeAlias = Literal["auto", "none"]
SizePolicy: TypeAlias = Literal["auto", "pad", "resize", "error"]
Checkpointed: TypeAlias = Literal["encoder", "decoder", "both"]
CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "adapters": get_args(AdapterPolicy),
    "size_policy": get_args(SizePolicy),
    "gradient_checkpointing": (None, *get_args(Checkpointed)),
}
WHOLE_NUMBERS = {"classes": 1, "in_channels": 1, "levels": 1, "aux_levels": 0}
"""The options whose values are whole numbers, each with its smallest allowed value."""
LARGEST = 2**16
"""The largest allowed number of classes, since a mask has at most 16 bits per pixel. Image channels have the same limit."""
NO_OPTIONS = Options()


class PairingOptions(TypedDict, total=False):
    """The options of a `Pairing` as keyword arguments, for type checkers; `zoo.build` explains them."""

    classes: int
    in_channels: int
    weights: str | PathLike[str] | None
    levels: int | None
    image_size: tuple[int, int] | None
    adapters: AdapterPolicy
    size_policy: SizePolicy
    aux_levels: int
    gradient_checkpointing: Checkpointed | None
    encoder_options: Mapping[str, Any] | None
    decoder_options: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class PairingFields:
    """The data of a `Pairing`: two ids and their options, checked and stored as plain immutable data.

    Raises:
        OptionError: the value of an option is not valid.
    """

    encoder: str
    decoder: str
    _: KW_ONLY
    classes: int = 1
    in_channels: int = 3
    weights: str | None = None
    levels: int | None = None
    image_size: tuple[int, int] | None = None
    adapters: AdapterPolicy = "auto"
    size_policy: SizePolicy = "auto"
    aux_levels: int = 0
    gradient_checkpointing: Checkpointed | None = None
    encoder_options: Mapping[str, Any] = NO_OPTIONS
    decoder_options: Mapping[str, Any] = NO_OPTIONS

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, normalize_value(entry.name, getattr(self, entry.name)))


OPTION_NAMES = tuple(entry.name for entry in fields(PairingFields) if entry.name not in ("encoder", "decoder"))


def normalize_value(name: str, value: Any) -> Any:
    """Check the value of an id or an option, and return the value in the form in which a pairing stores it.

    Raises:
        OptionError: the value is not valid.
    """
    if name in ("encoder", "decoder"):
        if not isinstance(value, str):
            raise OptionError(f"{name} must be an id (a string such as 'resnet18' or 'unet-basic'); found {value!r}.")
    elif name in CHOICES:
        if value not in CHOICES[name]:
            raise OptionError(f"{name} must be one of {', '.join(map(repr, CHOICES[name]))}; found {value!r}.")
    elif name in ("encoder_options", "decoder_options"):
        if value is None:
            return NO_OPTIONS
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise OptionError(f"{name} must be a mapping of names to values, such as {{'norm': 'group'}}; found {value!r}.")
        return Options(value)
    elif name == "weights":
        if value is not None and not isinstance(value, str | PathLike):
            raise OptionError(f"weights must be None, a name or a file's path; found {value!r}.")
        return value if value is None else fspath(value)
    elif name == "image_size":
        return None if value is None else _normalize_size(value)
    elif value is not None or name != "levels":
        _check_whole_number(name, value, WHOLE_NUMBERS[name])
        if name in ("classes", "in_channels") and value > LARGEST:
            raise OptionError(f"{name} must be at most {LARGEST:,}; found {value:,}.")
    return value


def _check_whole_number(name: str, value: object, minimum: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise OptionError(f"{name} must be a whole number of at least {minimum}; found {value!r}.")


def _normalize_size(value: Any) -> tuple[int, int]:
    try:
        height, width = value
    except (TypeError, ValueError):
        raise OptionError(f"image_size must be a pair (height, width), such as (256, 320); found {value!r}.") from None
    _check_whole_number("image_size's height", height, 1)
    _check_whole_number("image_size's width", width, 1)
    return int(height), int(width)
