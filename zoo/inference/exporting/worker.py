"""Write one draft in a child process, as `time_limit.py` asks for it."""

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
    """Yield what became of the draft in a folder: what was written, why it failed, or why the model cannot be read here."""
    try:
        model = torch.load(Path(folder) / MODEL, weights_only=False)  # written a moment ago, into a folder of this user alone
        draft = pickle.loads((Path(folder) / DRAFT).read_bytes())
    except Exception as cause:  # noqa: BLE001 - classes that this process cannot import, in whichever way
        yield {"unread": describe_failure(cause)}
        return
    try:
        yield asdict(write(model, draft))
    except Exception as cause:  # noqa: BLE001 - the error of another library is reported
        yield {"failed": describe_failure(cause)}
