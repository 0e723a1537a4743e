"""Make `Failure` messages from the exceptions that trials raise."""

from __future__ import annotations

from zoo.benchmark.messages import Failure
from zoo.benchmark.trial import Trial
from zoo.common.devices import is_out_of_memory

__all__ = ["failure_of", "format_error"]


def format_error(cause: BaseException) -> str:
    """Return an exception's class and message."""
    return f"{type(cause).__name__}: {cause}".strip()


def failure_of(trial: Trial, cause: BaseException) -> Failure:
    """Return the `Failure` message for a trial that raised an exception."""
    return Failure(trial=trial.key, kind="out of memory" if is_out_of_memory(cause) else "error", error=format_error(cause))
