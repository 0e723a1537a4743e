"""Write and read the checkpoints of a run. Only complete files with finite weights are accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from zoo.checkpoints.matching import check_finite
from zoo.checkpoints.state_dicts import unpickled
from zoo.common.atomic_write import draft_of
from zoo.errors import WeightsError, ZooError

__all__ = ["WholeCheckpoints", "check_weights", "read_checkpoint", "read_fitting"]

PARTS = ("global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks")
"""The entries of a checkpoint that Lightning needs to resume."""


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint to a temporary file in the same folder, and then replaces the old checkpoint in one operation.

    Without this class, Lightning would write to the system's temporary folder, and move the file from there. If that folder is
    on another file system, moving means that the new file is copied over the old one. If the process is killed during the copy,
    or the disk is full, both checkpoints are lost.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, completely or not at all.

        Raises:
            ZooError: the checkpoint cannot be written. The previous checkpoint is kept.
        """
        place = Path(path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with draft_of(place) as draft:
                torch.save(checkpoint, draft)
        except (OSError, RuntimeError) as cause:  # if the disk is full, PyTorch's writer raises a RuntimeError
            raise ZooError(
                f"{place} cannot be written: {cause}. The previous checkpoint is kept. Free disk space, or check the disk. "
                "Then run the same command again to continue from the previous checkpoint."
            ) from cause


def read_checkpoint(place: Path, run: str) -> dict[str, Any]:
    """Return a checkpoint of a run.

    Args:
        place: the file of the checkpoint.
        run: the identity of the run (`run_id`), which `fit` writes to each checkpoint.

    Raises:
        ZooError: the file is missing, damaged, or belongs to another run.
    """
    remedy = f"Without it, the run cannot be resumed. Restore the file, or remove {place.parent} to start the run again."
    if not place.is_file():
        raise ZooError(f"The checkpoint {place} is {'not a regular file' if place.exists() else 'missing'}. {remedy}")
    try:
        found = unpickled(place)
        missing = [name for name in PARTS if name not in found]
        if missing or type(found["global_step"]) is not int or not isinstance(found["state_dict"], dict):
            raise ValueError(f"no {missing[0]}" if missing else "no count of steps, or no weights")
    except Exception as cause:
        raise ZooError(f"The checkpoint {place} is damaged ({type(cause).__name__}). {remedy}") from cause
    facts = found.get("zoo")
    if not isinstance(facts, dict) or facts.get("run") != run:
        raise ZooError(
            f"{place} is not a checkpoint of this run: it was written with other settings, data, versions or code. "
            f"Restore this run's checkpoint, or remove {place.parent} to start the run again."
        )
    return dict(found)


def read_fitting(place: Path, run: str, module: LightningModule, most: int) -> dict[str, Any]:
    """Return a checkpoint of a run after checking that it fits the run's model.

    Args:
        place: the file of the checkpoint.
        run: as for `read_checkpoint`.
        module: the module into which the checkpoint will be loaded.
        most: the number of steps of the whole run.

    Raises:
        ZooError: as for `read_checkpoint`. Also if the weights or the number of steps cannot belong to this run, or if the
            weights contain NaN or infinity.
    """
    found = read_checkpoint(place, run)
    state, wanted = found["state_dict"], module.state_dict()
    other = [name for name in state.keys() | wanted.keys() if not _is_alike(state.get(name), wanted.get(name))]
    steps = int(found["global_step"])
    if other or not 0 <= steps <= most:
        what = f"its tensor {sorted(map(str, other))[0]} is not the model's" if other else f"{steps} of {most} steps"
        raise ZooError(f"{place} is damaged ({what}). Restore the file, or remove {place.parent} to start the run again.")
    check_finite(state, module, str(place))
    return found


def _is_alike(found: object, wanted: object) -> bool:
    if not isinstance(found, Tensor) or not isinstance(wanted, Tensor):
        return type(found) is type(wanted)
    return found.shape == wanted.shape and found.dtype == wanted.dtype


def check_weights(model: nn.Module, step: int, learning_rate: float) -> None:
    """Check that training has not diverged.

    Raises:
        ZooError: a parameter, or a statistic of a normalization layer, contains NaN or infinity, or another buffer contains
            NaN.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    try:
        check_finite(tensors, model, f"the model after step {step}")
    except WeightsError as cause:
        raise ZooError(
            f"Training diverged: a weight holds NaN or infinity after step {step}. The previous checkpoint is kept. Try a "
            f"lower learning_rate (now {learning_rate:g}), and look for NaN in the images. {cause}"
        ) from cause
