"""What authors of plugins use beside `zoo`: facts, specs, hooks, layers, and the matching of weights.

Its names stand in `plugin.pyi`, and are imported on first use: a plugin's hooks need no torch.
"""

from __future__ import annotations

from zoo.common.lazy_names import lazy_names

__getattr__, __all__ = lazy_names(__name__, __file__)


def __dir__() -> list[str]:
    return list(__all__)
