"""A pairing's ids and options as keys of a YAML file, with the types, defaults and checks of `Pairing`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import MISSING, fields
from functools import partial
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import Field, PlainValidator, create_model

from zoo.common.configuration import Strict
from zoo.common.options import plain
from zoo.errors import OptionError
from zoo.pairing.pairing_fields import WHOLE_NUMBERS, PairingFields, normalize_value

__all__ = ["PairingFile", "with_pairing_keys"]

_Model = TypeVar("_Model", bound=Strict)


def with_pairing_keys(*, without: Collection[str] = ()) -> Callable[[type[_Model]], type[_Model]]:
    """Return a decorator that adds the fields of `Pairing`, except those in `without`, to a pydantic class as keys."""
    hints = get_type_hints(PairingFields)
    keys: dict[str, Any] = {}
    for entry in fields(PairingFields):
        if entry.name not in without:
            # The check is that of `Pairing`, so YAML and Python give the same errors. The type is only for the JSON schema.
            check = PlainValidator(partial(_check, entry.name), json_schema_input_type=hints[entry.name])
            minimum: dict[str, Any] = {"minimum": WHOLE_NUMBERS[entry.name]} if entry.name in WHOLE_NUMBERS else {}
            default = ... if entry.default is MISSING else plain(entry.default)
            keys[entry.name] = (Annotated[Any, check, Field(json_schema_extra=minimum)], default)

    def add_keys(model: type[_Model]) -> type[_Model]:
        return create_model(model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **keys)

    return add_keys


def _check(name: str, value: Any) -> Any:
    """Check a value, and return it as plain data that pydantic can write as JSON."""
    try:
        return plain(normalize_value(name, value))
    except OptionError as cause:
        raise ValueError(str(cause).removesuffix(".")) from cause


@with_pairing_keys()
class PairingFile(Strict):
    """A pairing for `zoo.build`: an encoder, a decoder, and options for them."""
