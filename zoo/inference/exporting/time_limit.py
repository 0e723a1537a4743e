"""Write a model to a file within a time limit, in another process, which is ended when the limit is exceeded."""

from __future__ import annotations

import pickle
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from zoo.common.child_process import ChildProcess, Task, describe_end
from zoo.errors import ExportError
from zoo.inference.exporting.formats import Draft, Written

__all__ = ["DRAFT", "MODEL", "HandOverError", "write_within"]

MODEL, DRAFT = "model.pickle", "draft.pickle"


class HandOverError(Exception):
    """The model cannot be loaded in another process."""


def write_within(seconds: float, model: nn.Module, draft: Draft) -> Written:
    """Write a model to a file, as `write` does, but in another process and with a time limit in seconds.

    Raises:
        HandOverError: the other process cannot load the model. The model's classes may be defined in a script or a notebook.
        ExportError: the export took too long or failed; the message states the reason.
    """
    with tempfile.TemporaryDirectory(prefix="zoo-export-") as name:
        folder = Path(name)
        try:
            torch.save(model, folder / MODEL)
            (folder / DRAFT).write_bytes(pickle.dumps(draft))
        except (pickle.PicklingError, AttributeError, TypeError) as cause:
            raise HandOverError(f"{type(cause).__name__}: {cause}") from cause
        child = ChildProcess()
        watch = _Deadline(seconds)
        try:
            task = Task(function="zoo.inference.exporting.worker:write_draft", arguments={"folder": name})
            outcome = next(child.run(task, watch), None)
            if outcome is None and watch.is_over:
                raise ExportError(
                    f"it took longer than {seconds:g} seconds. Set a longer timeout, or export for a single size only"
                )
            if outcome is None:
                raise ExportError(f"its process {describe_end(child.status)}. {child.last_words().strip()}".strip())
        finally:
            child.close()
    if "unread" in outcome:
        raise HandOverError(outcome["unread"])
    if "failed" in outcome:
        raise ExportError(outcome["failed"])
    untried = tuple((batch, channels, height, width) for batch, channels, height, width in outcome["untried"])
    return Written(opset=outcome["opset"], untried=untried)


class _Deadline:
    """Ends a process when its time limit is reached. The time that the process needs to start counts, too."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.is_over = False

    def heard(self) -> None:
        pass

    def judge(self, process: int | None) -> bool:
        self.is_over = time.monotonic() > self._end
        return self.is_over
