"""Saved models on the Hugging Face hub: pushed there, and loaded from there, by huggingface_hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from zoo.errors import WeightsError
from zoo.hub import HUB, hub_folder
from zoo.loading import load
from zoo.model import SegmentationModel
from zoo.saving import save_model

__all__ = ["from_pretrained", "push_to_hub"]


class _Shared(ModelHubMixin):
    """A model as huggingface_hub handles one: it asks for a folder, and uploads it in one commit."""

    def __init__(self, save: Callable[[Path], Path]) -> None:
        self._save = save  # what could be JSON would go into a `config.json` of the mixin's own

    def _save_pretrained(self, save_directory: Path) -> None:
        self._save(save_directory)


def push_to_hub(
    model: SegmentationModel,
    repository: str,
    *,
    classes: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
    **options: Any,
) -> str:
    """Save a model and upload it; see `SegmentationModel.push_to_hub`."""
    try:
        save = partial(save_model, model, classes=classes, metrics=metrics)
        url: str = _Shared(save).push_to_hub(repository.removeprefix(HUB), **options)
    except (HfHubHTTPError, HFValidationError, OSError) as cause:
        told = str(cause).strip().partition("\n")[0]
        raise WeightsError(
            f"{model.pairing} could not be pushed to {repository}: {type(cause).__name__}: {told} Give OWNER/NAME, and a "
            "token that may write there (token=..., `hf auth login`, or the variable HF_TOKEN)."
        ) from cause
    return url


def from_pretrained(place: str | PathLike[str], **options: Any) -> SegmentationModel:
    """Return the model of a folder or a repository; see `SegmentationModel.from_pretrained`."""
    name = str(place)
    if Path(name).is_dir():
        return load(name)
    return load(hub_folder(name if name.startswith(HUB) else f"{HUB}{name}", **options))
