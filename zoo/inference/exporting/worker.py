"""The process that writes one draft: `python -m zoo.inference.exporting.worker FOLDER`, as `limited.py` starts it."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from zoo.inference.deployment.checked import told
from zoo.inference.exporting.formats import write
from zoo.inference.exporting.limited import DRAFT, MODEL, OUTCOME

__all__: list[str] = []


def _outcome(folder: Path) -> dict[str, Any]:
    try:
        model = torch.load(folder / MODEL, weights_only=False)  # written a moment ago, into a folder of this user alone
        draft = pickle.loads((folder / DRAFT).read_bytes())
    except Exception as cause:  # noqa: BLE001 - classes that this process cannot import, in whichever way
        return {"unread": told(cause)}
    try:
        return asdict(write(model, draft))
    except Exception as cause:  # noqa: BLE001 - another library's refusal is told
        return {"failed": told(cause)}


if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / OUTCOME).write_text(json.dumps(_outcome(place)), encoding="utf-8")
