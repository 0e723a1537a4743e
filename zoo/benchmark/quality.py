"""Quality in a benchmark: how pairings are trained and tested, and their scores. Torch-free."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from zoo.common.configuration import Count
from zoo.common.statistics import Difference, estimate_difference
from zoo.data.data_config import DataNamed
from zoo.errors import ConfigError
from zoo.training.settings import TrainSettings

__all__ = ["BUDGETS", "FLOORS", "OTHER_BUDGET", "Floor", "Quality", "QualityEntry", "format_budget"]

BUDGETS = {"texture-mosaic": 100, "brain-lobes": 400, "hela": 100, "blue-marble": 100}
"""The default number of training steps for each built-in task. After these steps, the mIoU of a U-Net on a pretrained
EfficientNet-lite0 has a standard deviation between seeds of less than 0.03: see docs/explanation/quality.md."""
OTHER_BUDGET = 300
"""The default number of training steps for other data, such as a user's own images."""

FLOORS = ("color look-up", "majority class")
"""The trivial baselines, which are not neural networks, named as in `zoo.data.baselines.BASELINES`.

Models should score above them."""
MINUTES = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*min(?:utes?)?")


def _read_budget(value: Any) -> Any:
    is_steps = isinstance(value, int) and not isinstance(value, bool) and value > 0
    match = MINUTES.fullmatch(value.strip()) if isinstance(value, str) else None
    if not is_steps and (match is None or float(match[1]) <= 0):
        raise ValueError(f"must be a number of steps, such as 300, or of minutes, such as '2 min'; found {value!r}")
    return value


Budget: TypeAlias = Annotated[int | str, BeforeValidator(_read_budget)]


class QualityEntry(TrainSettings):
    """How a benchmark trains and tests every model: on the same data, with the same budget, order of samples and seeds.

    The other keys are those of `TrainSettings`, such as batch and loss. The keys steps, epochs, seed, device, devices and
    init_from are refused.

    Attributes:
        data: the name of a task, a folder, or {source, ...} with the options of `zoo.open_data`.
        budget: the length of each training run: a number of optimizer steps, or a time in minutes ("2 min"). With a time, each
            model is trained for as many steps as it can do in this time. The default is the number in `BUDGETS` for a
            built-in task, and `OTHER_BUDGET` for other data.
        seeds: how many times each model is trained.
        first_seed: the seed of the first training of each model. The seeds of the further trainings are the next numbers.
        learning_rate: the highest learning rate of the one-cycle schedule. The default is three times that of `zoo.train`: at
            1e-3, some classes of brain-lobes were not learned in 400 steps (docs/explanation/quality.md).
        validations: the number of validations during training. With the default, 0, the last weights are tested, so that
            no model profits from a choice among several checkpoints.
        stop_after: the step after which training stops, long before the learning rate's schedule ends. The schedule is that of
            the whole budget. `zoo search` compares models after few steps in this way. By default, training ends with the
            budget.
    """

    data: DataNamed
    budget: Budget | None = None
    seeds: Count = 3
    first_seed: Annotated[int, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    validations: Annotated[int, Field(ge=0)] = 0
    stop_after: Count | None = None

    @model_validator(mode="after")
    def _refuse_keys_of_the_run(self) -> QualityEntry:
        instead = {
            "steps": "quality.budget",
            "epochs": "quality.budget",
            "seed": "quality.seeds and quality.first_seed",
            "devices": "device",
            "device": "device",
        }
        for name, key in instead.items():
            if getattr(self, name) != TrainSettings.model_fields[name].default:
                raise ValueError(f"quality in the file of a benchmark has no key {name}; set {key} instead")
        if self.stop_after is not None and (self.validations or self.seconds is not None):
            raise ValueError("stop_after requires a budget in steps, and validations: 0")
        if self.init_from is not None:
            raise ValueError(
                "quality in the file of a benchmark has no key init_from, since one model's weights fit only one pairing"
            )
        return self

    def with_budget(self) -> QualityEntry:
        """Return the entry with a budget: its own if it has one, otherwise the default for its data.

        Raises:
            ConfigError: `stop_after` exceeds the budget.
        """
        budget = self.budget or BUDGETS.get(self.data.source, OTHER_BUDGET)
        if self.stop_after is not None and isinstance(budget, int) and self.stop_after > budget:
            raise ConfigError(
                f"quality: stop_after is {self.stop_after}, but the budget is {budget} steps. Set a smaller stop_after, or a "
                "larger budget."
            )
        return self.model_copy(update={"budget": budget})

    @property
    def seconds(self) -> float | None:
        """The budget for training a model once, in seconds; None if the budget is a number of steps."""
        match = MINUTES.fullmatch(self.budget.strip()) if isinstance(self.budget, str) else None
        return 60 * float(match[1]) if match else None

    def settings(self, *, steps: int, seed: int, device: str) -> TrainSettings:
        """Return the settings for training a model once."""
        shared = self.model_dump(include=set(TrainSettings.model_fields))
        return TrainSettings(**{**shared, "steps": steps, "seed": seed, "device": device})


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The scores of a model on the test split of the data. The model was trained once for each seed.

    Attributes:
        data: the name of the data.
        classes: the names of the classes.
        seeds: the seeds with which training succeeded, in order.
        miou: the mean intersection over union, for each of `seeds`.
        iou: the intersection over union of each class, for each of `seeds`; None for a class that does not occur.
        steps: the number of optimizer steps, for each of `seeds`.
        seconds: the time of training and testing, for each of `seeds`.
        failures: a mapping from each seed with which training failed to the error.
        wanted: the number of seeds in the configuration.
    """

    data: str
    classes: tuple[str, ...]
    seeds: tuple[int, ...]
    miou: tuple[float, ...]
    iou: tuple[tuple[float | None, ...], ...]
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    failures: Mapping[int, str]
    wanted: int

    @property
    def has_failed(self) -> bool:
        """Whether training failed with every seed."""
        return bool(self.failures) and not self.seeds

    @property
    def mean(self) -> float | None:
        """The mean of `miou` over the seeds; None if no training succeeded."""
        return statistics.fmean(self.miou) if self.miou else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of `miou` over the seeds; None for fewer than two seeds."""
        return statistics.stdev(self.miou) if len(self.miou) > 1 else None

    def format(self) -> str:
        """Return the mean and the standard deviation as text, such as "0.863 ±0.010"."""
        if self.mean is None:
            return "failed"
        if self.deviation is None:
            return f"{self.mean:.3f} (1 seed)"
        return f"{self.mean:.3f} ±{self.deviation:.3f}"

    def difference(self, other: Quality) -> Difference | None:
        """Return the mean of `self.miou - other.miou` over the seeds in both results, with a confidence interval.

        Return None if they have no common seed.
        """
        own, others = dict(zip(self.seeds, self.miou, strict=True)), dict(zip(other.seeds, other.miou, strict=True))
        shared = sorted(own.keys() & others.keys())
        return estimate_difference([own[seed] - others[seed] for seed in shared]) if shared else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The score of a trivial baseline, which is not a neural network. Every model should have a higher score.

    Attributes:
        run: the number of the run.
        name: "color look-up" or "majority class".
        miou: the baseline's mean intersection over union on the test split of the data.
    """

    run: int
    name: str
    miou: float


def format_budget(entry: Mapping[str, Any], qualities: Sequence[Quality]) -> str:
    """Return the budget for training each model of a run, as text such as "100 steps of batch 8".

    Args:
        entry: the value of `quality` in the run's stored configuration.
        qualities: the results. If the budget is a time, the text includes their smallest and largest number of steps.
    """
    steps = sorted({steps for quality in qualities for steps in quality.steps})
    if isinstance(entry["budget"], str):
        span = f" ({steps[0]:,} to {steps[-1]:,} steps)" if steps else ""
        return f"{entry['budget'].strip()} of training each{span}, batch {entry['batch']}"
    stop = f"{entry['stop_after']:,} of " if entry.get("stop_after") else ""
    return f"{stop}{entry['budget']:,} steps of batch {entry['batch']}"
