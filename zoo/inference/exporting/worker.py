"""Write one model to a file in the child process that `time_limit.py` starts."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from zoo.inference.deployment.checked import describe_failure
from zoo.inference.exporting.formats import write
from zoo.inference.exporting.time_limit import DRAFT, MODEL

__all__ = ["write_draft"]


def write_draft(folder: str) -> Iterator[dict[str, Any]]:
    """Write the model in a folder to the file that the draft in the folder describes. Yield the fields of `Written`.

    If the model cannot be loaded, yield the error as "unread" instead. If it cannot be written, yield the error as "failed".
    """
    try:
        model = torch.load(Path(folder) / MODEL, weights_only=False)  # trusted: just written to a private folder of this user
        draft = pickle.loads((Path(folder) / DRAFT).read_bytes())
    except Exception as cause:  # noqa: BLE001 - importing the model's classes can raise anything
        yield {"unread": describe_failure(cause)}
        return
    try:
        yield asdict(write(model, draft))
    except Exception as cause:  # noqa: BLE001 - the error of another library is reported
        yield {"failed": describe_failure(cause)}
