"""The quality that a run measures: on which data, with which budget and how often; and its result. Torch-free."""

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
from zoo.training.settings import TrainSettings

__all__ = ["BUDGETS", "FLOORS", "OTHER_BUDGET", "Floor", "Quality", "QualityEntry", "format_budget"]

BUDGETS = {"texture-mosaic": 100, "brain-lobes": 400, "hela": 100, "blue-marble": 100}
"""By built-in task, the steps after which seeds of one pairing differ by less than 0.03: see docs/explanation/quality.md."""
OTHER_BUDGET = 300
"""The steps on a user's own data."""

FLOORS = ("color look-up", "majority class")
"""What `zoo.data.baselines.BASELINES` calls them."""
MINUTES = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*min(?:utes?)?")


def _read_budget(value: Any) -> Any:
    is_steps = isinstance(value, int) and not isinstance(value, bool) and value > 0
    match = MINUTES.fullmatch(value.strip()) if isinstance(value, str) else None
    if not is_steps and (match is None or float(match[1]) <= 0):
        raise ValueError(f"a number of steps, such as 300, or of minutes, such as '2 min'; found {value!r}")
    return value


Budget: TypeAlias = Annotated[int | str, BeforeValidator(_read_budget)]


class QualityEntry(TrainSettings):
    """Every pairing trained on the same data with the same budget, order of the data and seeds, and tested.

    The other keys are those of `TrainSettings`, such as batch, learning_rate and loss.

    Attributes:
        data: a task's name, a folder, or {source, ...} with the options of `zoo.open_data`.
        budget: of each training: steps of the optimizer, or minutes ("2 min"): as many steps as a pairing does in that time.
            By default the task's own of `BUDGETS`, and `OTHER_BUDGET` on other data.
        seeds: how often each pairing is trained: with the seeds 0, 1, ...
        learning_rate: the highest of the one-cycle schedule. Three times the default of `zoo.train`: at 1e-3 some classes of
            brain-lobes were not learned in 400 steps (docs/explanation/quality.md).
        validations: none by default: the last weights are tested, so that no pairing gains by a choice among many.
    """

    data: DataNamed
    budget: Budget | None = None
    seeds: Count = 3
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    validations: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _refuse_keys_of_the_run(self) -> QualityEntry:
        instead = {"steps": "budget", "epochs": "budget", "seed": "seeds", "devices": "device", "device": "device"}
        for name, key in instead.items():
            if getattr(self, name) != TrainSettings.model_fields[name].default:
                raise ValueError(f"{name} is not a key of a benchmark's quality; {key} sets it for the whole run")
        if self.init_from is not None:
            raise ValueError("init_from is not a key of a benchmark's quality, since one model's weights fit only one pairing")
        return self

    def with_budget(self) -> QualityEntry:
        """Return the same with the default budget of its data where it has none."""
        return self.model_copy(update={"budget": self.budget or BUDGETS.get(self.data.source, OTHER_BUDGET)})

    @property
    def seconds(self) -> float | None:
        """The budget of a training where it is a time; None where it is a number of steps."""
        match = MINUTES.fullmatch(self.budget.strip()) if isinstance(self.budget, str) else None
        return 60 * float(match[1]) if match else None

    def settings(self, *, steps: int, seed: int, device: str) -> TrainSettings:
        """Return the settings of one training."""
        shared = self.model_dump(include=set(TrainSettings.model_fields))
        return TrainSettings(**{**shared, "steps": steps, "seed": seed, "device": device})


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """The scores of a model on the test part after several trainings.

    Attributes:
        data: the data's name.
        classes: their names.
        seeds: of the trainings that succeeded, in order.
        miou: the mean intersection over union by seed.
        iou: of each class by seed; None for a class that does not occur.
        steps: by seed.
        seconds: of training and testing, by seed.
        failures: the error of each training that failed, by seed.
        wanted: how many seeds the configuration has.
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
        """Whether every training failed."""
        return bool(self.failures) and not self.seeds

    @property
    def mean(self) -> float | None:
        """The mean over the seeds; None where every training failed."""
        return statistics.fmean(self.miou) if self.miou else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation over the seeds; None of fewer than two."""
        return statistics.stdev(self.miou) if len(self.miou) > 1 else None

    def format(self) -> str:
        """Return mean and deviation."""
        if self.mean is None:
            return "failed"
        if self.deviation is None:
            return f"{self.mean:.3f} (1 seed)"
        return f"{self.mean:.3f} ±{self.deviation:.3f}"

    def difference(self, other: Quality) -> Difference | None:
        """Return by how much it is better than another, over the seeds that both have; None where they share none."""
        own, others = dict(zip(self.seeds, self.miou, strict=True)), dict(zip(other.seeds, other.miou, strict=True))
        shared = sorted(own.keys() & others.keys())
        return estimate_difference([own[seed] - others[seed] for seed in shared]) if shared else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The score of a predictor that needs no network, which every model has to beat.

    Attributes:
        run: the run's number.
        name: "color look-up" or "majority class".
        miou: its mean intersection over union on the test part.
    """

    run: int
    name: str
    miou: float


def format_budget(entry: Mapping[str, Any], qualities: Sequence[Quality]) -> str:
    """Return the budget of each training of a run in words.

    Args:
        entry: the run's `quality`, as the store keeps it.
        qualities: the results, for the number of steps that a budget of time allowed.
    """
    steps = sorted({steps for quality in qualities for steps in quality.steps})
    if isinstance(entry["budget"], str):
        span = f" ({steps[0]:,} to {steps[-1]:,} steps)" if steps else ""
        return f"{entry['budget'].strip()} of training each{span}, batch {entry['batch']}"
    return f"{entry['budget']:,} steps of batch {entry['batch']}"
