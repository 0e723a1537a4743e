"""Write and read a run's checkpoints: whole files of finite weights, or an error that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from zoo.errors import WeightsError, ZooError
from zoo.matching import check_finite
from zoo.state_dicts import unpickled
from zoo.whole_files import draft_of

__all__ = ["WholeCheckpoints", "check_weights", "steps_of"]


class WholeCheckpoints(TorchCheckpointIO):
    """Writes each checkpoint beside its place and then puts it there in one step.

    Lightning itself writes into the temporary folder and moves the file from there. On another file system that is a copy
    over the old file: a kill or a full disk leaves neither the old checkpoint nor the new one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write a checkpoint, whole or not at all.

        Raises:
            ZooError: it cannot be written; the file before it stays.
        """
        place = Path(path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with draft_of(place) as draft:
                torch.save(checkpoint, draft)
        except (OSError, RuntimeError) as cause:  # a full disk is a RuntimeError of PyTorch's writer
            raise ZooError(
                f"{place} cannot be written: {cause}. The checkpoint before it is kept. Make room, or check the disk; the same "
                "command then goes on from there."
            ) from cause


def steps_of(place: Path) -> int:
    """Return after how many steps of the optimizer a checkpoint was written.

    Raises:
        ZooError: the file is damaged.
    """
    try:
        return int(unpickled(place)["global_step"])
    except Exception as cause:
        raise ZooError(
            f"{place} is damaged ({type(cause).__name__}), and the run cannot go on without it. Restore the file, or remove "
            f"{place.parent} to begin the run again."
        ) from cause


def check_weights(model: nn.Module, step: int, learning_rate: float) -> None:
    """Raise if training has made the weights useless.

    Raises:
        ZooError: a parameter holds NaN or infinity, or a buffer NaN. Infinity in a buffer may be an attention mask's.
    """
    tensors = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, Tensor)}
    try:
        check_finite(tensors, model, f"the model after step {step}")
    except WeightsError as cause:
        raise ZooError(
            f"Training diverged: a weight holds NaN or infinity after step {step}. The checkpoint before it is kept. Try a "
            f"lower learning_rate (now {learning_rate:g}), and look for NaN in the images. {cause}"
        ) from cause
