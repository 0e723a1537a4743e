"""Pair any image encoder with any segmentation decoder in one call, and measure which pairing to pick.

This is the public API for users and scripts. Its names are listed in `__init__.pyi` and imported on first use. Therefore,
`import zoo`, listing ids and making plans do not import torch. `zoo.plugin` has further names for authors of plugins, and
`zoo.errors` has the errors.
"""

from __future__ import annotations

from typing import Any

from zoo.common.lazy_names import lazy_names

_get, _names = lazy_names(__name__, __file__)
__all__ = [*_names, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("segmentation-zoo")
    return _get(name)


def __dir__() -> list[str]:
    return list(__all__)
