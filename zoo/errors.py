"""The exceptions that this library raises on purpose.

ZooError
├── UnknownIdError       no encoder or decoder has this id                    (also a LookupError)
├── AmbiguousIdError     several plugins have this bare name                  (also a LookupError)
├── RegistrationError    a spec or a run-time registration is not valid       (also a ValueError)
├── PluginError          a plugin could not be loaded, or its code raised an exception
├── OptionError          an option does not exist or has an invalid value     (also a ValueError)
├── NegotiationError     an encoder's feature maps do not meet a decoder's needs
├── WeightsError         weights cannot be found, cannot be read or do not fit
├── InputError           the model cannot accept an image tensor              (also a ValueError)
├── DataError            images or masks cannot be read or do not match       (also a ValueError)
├── ConfigError          a configuration file is not valid                    (also a ValueError)
├── ExportError          a model cannot be exported, or the file's output differs from the model's
└── StoreError           a results store cannot be read or written
"""

from __future__ import annotations

__all__ = [
    "AmbiguousIdError",
    "ConfigError",
    "DataError",
    "ExportError",
    "InputError",
    "NegotiationError",
    "OptionError",
    "PluginError",
    "RegistrationError",
    "StoreError",
    "UnknownIdError",
    "WeightsError",
    "ZooError",
]


class ZooError(Exception):
    """An error that the caller can correct. The message says what was requested, what was found and what to do."""


class UnknownIdError(ZooError, LookupError):
    """No encoder or decoder has this id."""


class AmbiguousIdError(ZooError, LookupError):
    """Several plugins have an encoder or a decoder with this bare name. The message lists their full ids."""


class RegistrationError(ZooError, ValueError):
    """The spec of an encoder or a decoder is not valid, or a registration would overwrite an earlier one."""


class PluginError(ZooError):
    """A plugin could not be loaded, or its code raised an exception (kept as `__cause__`)."""


class OptionError(ZooError, ValueError):
    """An option does not exist, or its value is not valid."""


class NegotiationError(ZooError):
    """An encoder's feature maps cannot meet a decoder's needs with the requested options."""


class WeightsError(ZooError):
    """Weights cannot be found, cannot be read, or do not match the module."""


class InputError(ZooError, ValueError):
    """The model cannot accept an image tensor of this shape."""


class DataError(ZooError, ValueError):
    """Images or masks are missing, cannot be read or used, or do not match one another."""


class ConfigError(ZooError, ValueError):
    """A configuration file has an unknown key, a wrong type or an invalid value, or a device cannot be used."""


class ExportError(ZooError):
    """A model cannot be exported as requested, or the exported file's output differs from the model's. No file was written."""


class StoreError(ZooError):
    """A results store cannot be opened, read or written."""
