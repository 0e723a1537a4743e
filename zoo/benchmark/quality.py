"""What a run measures of quality: on which data, with which budget and how often; and what that comes to. Torch-free."""

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

FLOORS = ("colour look-up", "majority class")
"""What `zoo.data.baselines.BASELINES` calls them."""
MINUTES = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*min(?:utes?)?")


def _read_budget(given: Any) -> Any:
    is_steps = isinstance(given, int) and not isinstance(given, bool) and given > 0
    match = MINUTES.fullmatch(given.strip()) if isinstance(given, str) else None
    if not is_steps and (match is None or float(match[1]) <= 0):
        raise ValueError(f"a number of steps, such as 300, or of minutes, such as '2 min'; found {given!r}")
    return given


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
    def _leaves_to_the_benchmark_what_is_its_own(self) -> QualityEntry:
        told = {"steps": "budget", "epochs": "budget", "seed": "seeds", "devices": "device", "device": "device"}
        for name, instead in told.items():
            if getattr(self, name) != TrainSettings.model_fields[name].default:
                raise ValueError(f"{name} is no key of a benchmark's quality; {instead} says it for the whole run")
        return self

    def with_budget(self) -> QualityEntry:
        """Return the same with the budget that its data have by default, where none is given."""
        return self.model_copy(update={"budget": self.budget or BUDGETS.get(self.data.source, OTHER_BUDGET)})

    @property
    def seconds(self) -> float | None:
        """The budget of a training, where it is time."""
        match = MINUTES.fullmatch(self.budget.strip()) if isinstance(self.budget, str) else None
        return 60 * float(match[1]) if match else None

    def settings(self, *, steps: int, seed: int, device: str) -> TrainSettings:
        """Return how one pairing is trained once."""
        shared = self.model_dump(include=set(TrainSettings.model_fields))
        return TrainSettings(**{**shared, "steps": steps, "seed": seed, "device": device})


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What training a pairing several times came to, on the test part.

    Attributes:
        data: the data's name.
        classes: their names.
        seeds: with which it was trained, in order.
        miou: the mean intersection over union of each.
        iou: by seed, of each class; None for one that does not occur.
        steps: of each.
        seconds: that training and testing took, of each.
        failures: by seed, why a training came to nothing.
        wanted: how many seeds were asked for.
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
        """Over the seeds; None where every training failed."""
        return statistics.fmean(self.miou) if self.miou else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation over the seeds; None of fewer than two."""
        return statistics.stdev(self.miou) if len(self.miou) > 1 else None

    def told(self) -> str:
        """Return mean and deviation."""
        if self.mean is None:
            return "failed"
        if self.deviation is None:
            return f"{self.mean:.3f} (1 seed)"
        return f"{self.mean:.3f} ±{self.deviation:.3f}"

    def difference(self, other: Quality) -> Difference | None:
        """Return by how much it is better than another, of the seeds that both have; None where there is none."""
        own, others = dict(zip(self.seeds, self.miou, strict=True)), dict(zip(other.seeds, other.miou, strict=True))
        shared = sorted(own.keys() & others.keys())
        return estimate_difference([own[seed] - others[seed] for seed in shared]) if shared else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What no network is needed for: the score of a look-up, which whatever is trained is to beat.

    Attributes:
        run: the run's number.
        name: "colour look-up" or "majority class".
        miou: its mean intersection over union on the test part.
    """

    run: int
    name: str
    miou: float


def format_budget(entry: Mapping[str, Any], qualities: Sequence[Quality]) -> str:
    """Return in words what each training of a run had, from the configuration as the store keeps it."""
    steps = sorted({steps for quality in qualities for steps in quality.steps})
    if isinstance(entry["budget"], str):
        found = f" ({steps[0]:,} to {steps[-1]:,} steps)" if steps else ""
        return f"{entry['budget'].strip()} of training each{found}, batch {entry['batch']}"
    return f"{entry['budget']:,} steps of batch {entry['batch']}"
