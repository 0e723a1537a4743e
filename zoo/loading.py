"""From a checkpoint to the model that it was taken of."""

from __future__ import annotations

import pickle
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from zoo.errors import WeightsError
from zoo.licences import Licences
from zoo.model import SegmentationModel, build_pairing
from zoo.pairing import Pairing
from zoo.specs import Preprocessing

__all__ = ["load"]

PREFIX = "model."


def load(path: str | PathLike[str]) -> SegmentationModel:
    """Return the model of a checkpoint that `zoo.train` wrote, in eval mode, with its weights and its normalisation.

    Only tensors and plain data are read, never code.

    Args:
        path: of `best.ckpt` or `last.ckpt`.

    Raises:
        WeightsError: no such file, one that is broken, may hold code or is none of zoo's, or weights that do not fit.
        ZooError: the pairing cannot be built here, for want of a plugin, say.
    """
    place = Path(path)
    checkpoint = _read(place)
    facts = checkpoint.get("zoo")
    if not isinstance(facts, dict) or not facts.get("pairing"):
        raise WeightsError(f"{place} is no checkpoint of a pairing; `zoo train` writes one.")
    pairing = Pairing(**facts["pairing"])
    model = build_pairing(replace(pairing, weights=None))
    state = {key.removeprefix(PREFIX): value for key, value in checkpoint["state_dict"].items() if key.startswith(PREFIX)}
    try:
        model.load_state_dict(state)
    except RuntimeError as cause:
        raise WeightsError(f"{place} does not fit {pairing}: {cause}") from cause
    model.pairing = pairing
    model.preprocessing = _preprocessing(facts["preprocessing"])
    model.licences = Licences(**facts["licences"])
    return model.eval()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"There is no checkpoint {path}.") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as cause:
        what = "may hold code, and is not read" if isinstance(cause, pickle.UnpicklingError) else "is broken or no checkpoint"
        raise WeightsError(f"{path} {what} ({type(cause).__name__}).") from cause
    if not isinstance(found, dict) or "state_dict" not in found:
        raise WeightsError(f"{path} is no checkpoint of a pairing; `zoo train` writes one.")
    return found


def _preprocessing(facts: dict[str, Any]) -> Preprocessing:
    low, high = facts["value_range"]
    return Preprocessing(mean=tuple(facts["mean"]), std=tuple(facts["std"]), value_range=(low, high))
