"""The built-in tasks by their names, each made from data that an installed package carries."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

from zoo.common.suggestions import did_you_mean
from zoo.data.segmentation_data import SegmentationData
from zoo.errors import DataError

__all__ = ["TASKS", "task"]

TASKS = {
    "texture-mosaic": "zoo.data.tasks.texture_mosaic:texture_mosaic",
    "brain-lobes": "zoo.data.tasks.brain_lobes:brain_lobes",
    "hela": "zoo.data.tasks.hela:hela",
    "blue-marble": "zoo.data.tasks.blue_marble:blue_marble",
}


@cache
def task(name: str) -> SegmentationData:
    """Return a built-in task.

    Raises:
        DataError: there is none of that name, or a package that it is made from is not installed.
    """
    if name not in TASKS:
        raise DataError(f"There is no task {name!r}.{did_you_mean(name, TASKS)} There are: {', '.join(TASKS)}.")
    module, _, function = TASKS[name].partition(":")
    make: Callable[[], SegmentationData] = getattr(import_module(module), function)
    return make()
