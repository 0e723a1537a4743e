"""A draft written within a time: in a process of its own, which can be ended."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from zoo.errors import ExportError
from zoo.inference.exporting.formats import Draft, Written

__all__ = ["DRAFT", "MODEL", "OUTCOME", "HandOverError", "write_within"]

MODEL, DRAFT, OUTCOME = "model.pickle", "draft.pickle", "outcome.json"


class HandOverError(Exception):
    """The model cannot be read by another process."""


def write_within(seconds: float, model: nn.Module, draft: Draft) -> Written:
    """Do what `write` does, in another process that has so many seconds.

    Raises:
        HandOverError: the model's classes are those of a script or a notebook, say.
        ExportError: it was not done in time, or failed; the message says how.
    """
    with tempfile.TemporaryDirectory(prefix="zoo-export-") as name:
        folder = Path(name)
        try:
            torch.save(model, folder / MODEL)
            (folder / DRAFT).write_bytes(pickle.dumps(draft))
        except (pickle.PicklingError, AttributeError, TypeError) as cause:
            raise HandOverError(f"{type(cause).__name__}: {cause}") from cause
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
        with (folder / "errors.txt").open("w+", encoding="utf-8", errors="replace") as errors:
            command = [sys.executable, "-P", "-m", "zoo.inference.exporting.worker", name]
            try:
                done = subprocess.run(
                    command, env=environment, stdout=subprocess.DEVNULL, stderr=errors, timeout=seconds, check=False
                )
            except subprocess.TimeoutExpired as cause:
                raise ExportError(f"it was not done in {seconds:g} seconds") from cause
            errors.seek(0)
            last_words = errors.read().strip().splitlines()[-1:]
        if not (folder / OUTCOME).is_file():
            raise ExportError(f"its process ended with status {done.returncode}. {' '.join(last_words)}".strip())
        outcome = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
    if "unread" in outcome:
        raise HandOverError(outcome["unread"])
    if "failed" in outcome:
        raise ExportError(outcome["failed"])
    untried = tuple((batch, channels, height, width) for batch, channels, height, width in outcome["untried"])
    return Written(opset=outcome["opset"], untried=untried)
