"""What a plugin's code raised, as a row's text."""

from __future__ import annotations

from zoo.benchmark.messages import Failed
from zoo.benchmark.trial import Trial
from zoo.common.devices import is_out_of_memory

__all__ = ["failed", "told_failure"]


def told_failure(cause: BaseException) -> str:
    """Return an exception as one row's text."""
    return f"{type(cause).__name__}: {cause}".strip()


def failed(trial: Trial, cause: BaseException) -> Failed:
    """Return the message that a trial raised."""
    return Failed(trial=trial.key, kind="out of memory" if is_out_of_memory(cause) else "error", error=told_failure(cause))
