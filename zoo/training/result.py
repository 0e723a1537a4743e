"""The result of a training run, and its file in the folder of the run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from zoo.common.configuration import Strict
from zoo.common.json_files import write_json
from zoo.errors import ConfigError
from zoo.training.run_folder import damage_error, read_run_file
from zoo.training.scores import Scores

__all__ = ["TrainResult", "read_result", "write_result"]

RESULT = "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The result of training.

    Attributes:
        pairing: the pairing as text.
        data: the name of the data.
        classes: the names of the classes, in the order of `test.iou`.
        steps: the number of optimizer steps of the whole run.
        seconds: the duration of the call that finished the run; a resumed run took longer in total.
        waiting: the share (0 to 1) of that call's training time in which training waited for images; None if at most one step
            was done in that call.
        tested: the name of the tested checkpoint, "best" or "last".
        test: the scores of this checkpoint on the test images, each of which counts once.
        validation: the mIoU of this checkpoint on the validation images, if `zoo search` trained the model; otherwise None.
        checkpoint: the file of this checkpoint, for `zoo.load`.
    """

    __pydantic_config__ = Strict.model_config  # for the validation in `read_result`

    pairing: str
    data: str
    classes: tuple[str, ...]
    steps: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    waiting: Annotated[float, Field(ge=0, le=1)] | None
    tested: Annotated[str, Field(pattern="^(best|last)$")]
    test: Scores
    validation: float | None = None
    checkpoint: Path

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dictionary that can be written as JSON."""
        return {**asdict(self), "test": self.test.as_dict(), "classes": list(self.classes), "checkpoint": str(self.checkpoint)}


def read_result(output: Path, run: str) -> TrainResult | None:
    """Return the result of a finished run; None if the run is not finished.

    Args:
        output: the folder of the run.
        run: the identity of the run, from `run_id`.

    Raises:
        ConfigError: the file is damaged, belongs to another run, or was written by an earlier version of zoo.
        ZooError: the tested checkpoint is missing, damaged, or belongs to another run.
    """
    from zoo.training.loop.checkpoint_files import read_checkpoint  # Lightning takes seconds to import

    path = output / RESULT
    if not path.exists():
        return None
    content = read_run_file(path)
    found_run = content.pop("run", None)
    try:
        # validated as JSON: the strict validation of Python data would refuse a list for a tuple, and text for a path
        result = TypeAdapter(TrainResult).validate_json(json.dumps(content))
    except ValidationError as cause:
        mistakes = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}; found {each['input']!r:.80}" for each in cause.errors())
        raise damage_error(path, "; ".join(mistakes)) from cause
    if len(result.test.iou) != len(result.classes):
        raise damage_error(path, f"{len(result.test.iou)} scores for {len(result.classes)} classes")
    if found_run is None:
        raise ConfigError(
            f"{path} was written by an earlier version of zoo, whose checkpoints do not record the run that they belong to. "
            f"Use another --output, or remove {output} to start the run again."
        )
    if found_run != run:
        raise damage_error(path, "it belongs to another run")
    checkpoint = output / f"{result.tested}.ckpt"
    read_checkpoint(checkpoint, run)
    return replace(result, checkpoint=checkpoint)


def write_result(output: Path, result: TrainResult, run: str) -> None:
    """Write the result of a run to its folder, with the identity of the run."""
    write_json(output / RESULT, result.as_dict() | {"run": run})
