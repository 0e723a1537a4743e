"""The API for authors of plugins, in addition to `zoo`: specs, hooks, layers, and functions that load weights.

`plugin.pyi` lists the names. Each name is imported on first use, so that a plugin's hooks do not import torch.
"""

from __future__ import annotations

from zoo.common.lazy_names import lazy_names

__getattr__, __all__ = lazy_names(__name__, __file__)


def __dir__() -> list[str]:
    return list(__all__)
