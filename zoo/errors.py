"""The one exception tree: everything that this library raises on purpose.

ZooError
├── UnknownIdError       no encoder or decoder of that name            (also a LookupError)
├── AmbiguousIdError     one bare name, several plugins                (also a LookupError)
├── RegistrationError    a spec or a run-time registration is wrong    (also a ValueError)
├── PluginError          a plugin could not be loaded, or its code raised; the cause is kept
├── OptionError          an option that does not exist or has no such value  (also a ValueError)
├── NegotiationError     this encoder cannot serve this decoder as asked
├── WeightsError         weights could not be found or do not fit
├── InputError           an image tensor that the model cannot take    (also a ValueError)
├── DataError            images or masks that cannot be read or do not fit one another  (also a ValueError)
├── ConfigError          a configuration file says something that cannot be  (also a ValueError)
├── ExportError          an exported file that does not do what the model does
└── StoreError           a results store that cannot be read or written
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
    """Something the caller can mend; the message says what was asked, what was found and what to do."""


class UnknownIdError(ZooError, LookupError):
    """No encoder or decoder has this id."""


class AmbiguousIdError(ZooError, LookupError):
    """A bare name that several plugins have; the message lists every full id."""


class RegistrationError(ZooError, ValueError):
    """A spec that contradicts itself, or a registration that would overwrite another."""


class PluginError(ZooError):
    """A plugin that could not be loaded, or whose code raised; `__cause__` is the plugin's own exception."""


class OptionError(ZooError, ValueError):
    """An option that does not exist, or a value that it cannot have."""


class NegotiationError(ZooError):
    """An encoder's pyramid cannot meet a decoder's needs under the rules asked for."""


class WeightsError(ZooError):
    """Weights that cannot be found, read, or matched to the module."""


class InputError(ZooError, ValueError):
    """An image tensor of a shape that the model cannot take."""


class DataError(ZooError, ValueError):
    """Images or masks that are missing, cannot be read, or do not fit one another; each is named."""


class ConfigError(ZooError, ValueError):
    """A configuration file with an unknown key, a wrong type or an impossible value."""


class ExportError(ZooError):
    """A model that cannot be exported as asked, or a file whose output is not the model's; nothing was written."""


class StoreError(ZooError):
    """A results store that cannot be opened, read or written."""
