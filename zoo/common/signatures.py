"""Make `help` and editors show the individual parameters that a function accepts as `**options`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["show_options_of"]

_F = TypeVar("_F", bound=Callable[..., Any])


def show_options_of(*models: Callable[..., Any]) -> Callable[[_F], _F]:
    """Return a decorator that replaces `**options` in a function's signature.

    The replacement is the keyword-only parameters of other functions or classes, `models`.
    """

    def decorate(function: _F) -> _F:
        signature = inspect.signature(function)
        parameters = {name: each for name, each in signature.parameters.items() if each.kind is not each.VAR_KEYWORD}
        for model in models:
            for name, each in inspect.signature(model).parameters.items():
                if each.kind is each.KEYWORD_ONLY:
                    parameters.setdefault(name, each)
        function.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
        return function

    return decorate
