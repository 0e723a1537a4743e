"""What training came to, and the file of a run's folder that keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from zoo.common.configuration import Count, Strict, checked
from zoo.common.json_files import write_json
from zoo.errors import ConfigError
from zoo.training.run_folder import damage_error, read_run_file
from zoo.training.scores import Scores

__all__ = ["TrainResult", "read_result", "write_result"]

RESULT = "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What training came to.

    Attributes:
        pairing: what was trained.
        data: the data's name.
        classes: their names, in the order of `test.iou`.
        steps: of the optimizer that were done.
        seconds: that this call took; a run that was resumed took more in all.
        tested: "best" or "last": the checkpoint that was tested.
        test: its scores on the test part, each image counted once.
        checkpoint: its file, for `zoo.load`.
    """

    pairing: str
    data: str
    classes: tuple[str, ...]
    steps: int
    seconds: float
    tested: str
    test: Scores
    checkpoint: Path

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "test": self.test.as_dict(), "classes": list(self.classes), "checkpoint": str(self.checkpoint)}


Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class _ScoresFile(Strict):
    """`Scores` as a file holds them."""

    miou: Share
    dice: Share
    accuracy: Share
    iou: list[Share | None]
    pixels: Count


class _ResultFile(Strict):
    """A `TrainResult` as its file holds it."""

    pairing: str
    data: str
    classes: list[str]
    steps: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    tested: Literal["best", "last"]
    test: _ScoresFile
    checkpoint: str
    run: str | None = None


def read_result(output: Path, run: str) -> TrainResult | None:
    """Return the result of a run that was finished, whose tested checkpoint is still there; None of one that was not.

    Args:
        output: the run's folder.
        run: its identity, as `run_id` gives it.

    Raises:
        ConfigError: the file is damaged, another run's or of an earlier version.
        ZooError: the checkpoint is missing, damaged or another run's.
    """
    from zoo.training.checkpoint_files import read_checkpoint  # Lightning takes seconds to import

    path = output / RESULT
    if not path.exists():
        return None
    facts = checked(
        _ResultFile, read_run_file(path), f"{path} is damaged. Restore it, or remove {output} to begin the run again"
    )
    if len(facts.test.iou) != len(facts.classes):
        raise damage_error(path, f"{len(facts.test.iou)} scores for {len(facts.classes)} classes")
    if facts.run is None:
        raise ConfigError(
            f"{path} is of an earlier version of zoo, whose checkpoints do not say which run they are of. Give another "
            f"--output, or remove {output} to begin the run again."
        )
    if facts.run != run:
        raise damage_error(path, "it is another run's")
    checkpoint = output / f"{facts.tested}.ckpt"
    read_checkpoint(checkpoint, run)
    told = facts.model_dump(exclude={"run"}) | {"classes": tuple(facts.classes), "checkpoint": checkpoint}
    return TrainResult(**told | {"test": Scores(**told["test"] | {"iou": tuple(facts.test.iou)})})


def write_result(output: Path, result: TrainResult, run: str) -> None:
    """Keep a result in its run's folder, with the run's identity."""
    write_json(output / RESULT, result.as_dict() | {"run": run})
