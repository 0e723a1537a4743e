"""The pydantic class of a data source's entry in a configuration file. This module does not import torch."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from zoo.common.configuration import Strict, one_of_kinds, shorten
from zoo.common.regular_files import is_folder
from zoo.data.tasks.optional_packages import REQUIRED_MODULES
from zoo.errors import DataError

__all__ = ["DataEntry", "DataNamed", "RangeEntry", "is_csv", "locate_data"]

Part: TypeAlias = Annotated[int, Field(ge=0, le=255)]
ColorEntry: TypeAlias = Annotated[
    tuple[Part, Part, Part], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
]
Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


def _check_range(pair: list[float]) -> list[float]:
    if not 0 < pair[1] - pair[0] < math.inf:
        raise ValueError(f"high must be greater than low in the pair [low, high]; found {pair}")
    return pair


RangeEntry: TypeAlias = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_check_range)]
"""A pair [low, high]: the pixel values that become 0 and 1."""


def locate_data(source: str, base: Path) -> str:
    """Return the absolute path if the source is a folder; otherwise return the source unchanged.

    Args:
        source: the path of a folder, or the name of a task or of a data set of torchvision.
        base: the folder that relative paths start from.

    Raises:
        DataError: the source is the name of a task and also a folder of images and masks.
    """
    folder = base / source
    if not is_folder(folder):
        return source
    if source not in REQUIRED_MODULES:
        # A symbolic link is not resolved, since the link's own name becomes the name of the data.
        return str(folder.resolve() if ".." in folder.parts else folder.absolute())
    if any((*folder.glob("images"), *folder.glob("*/images"))):
        raise DataError(
            f"{source} is a built-in task, but {folder.resolve()} is also a folder of images and masks. Use ./{source} for the "
            "folder. For the task, rename the folder, or run from another folder."
        )
    return source


def is_csv(group: str) -> bool:
    """Return whether the option `group` is the path of a CSV file. Otherwise it is a regular expression."""
    return group.lower().endswith(".csv")


def _check_group(group: str | None) -> str | None:
    if group is None or is_csv(group):
        return group
    try:
        re.compile(group)
    except (re.error, RecursionError, OverflowError) as cause:
        raise ValueError(f"{shorten(group)} is not a regular expression: {cause}") from None
    if not group:
        raise ValueError("a regular expression or the path of a .csv file is expected; found ''")
    return group


class DataEntry(Strict):
    """A task, a folder or a data set of torchvision, with the options of `zoo.open_data`.

    Attributes:
        source: the name of a task or of a data set of torchvision, or the path of a folder.
        classes: the class names of a folder; by default the class indexes.
        values: the mask value of each class of a folder, in the order of the classes.
        colors: the color of each class of a folder, if its masks are drawn in colors.
        ignored: the mask values of pixels to ignore; by default 255, if it is not a class.
        validation: the share of images for validation if the folder is not divided into train/, validation/ and test/.
        test: the share of images for the test if the folder is not divided.
        value_range: the pixel values of a folder that become 0 and 1, in the units of the files: [low, high] for all bands, or
            a list of such pairs, one for each band. Values outside the range are not clipped. "auto" is the range of the dtype
            for integers, and 0 to 1 for floats. If that range is mostly empty, or floats are outside it, "auto" measures the
            range of the training split.
        mean: the mean of each band of a folder, in the units of the files, or "auto" to measure it on the training split. With
            std, it replaces the normalization that the encoder's weights were trained with.
        std: the standard deviation of each band, in the same form as mean.
        group: which images of a folder belong together, such as the slices of one patient. All images of a group are put into
            the same split. The option is a regular expression or the path of a CSV file. The expression is searched in the name
            of an image without its suffix; its first capturing group, or else its whole match, names the group. The CSV file
            has a header. Its first column has the name of an image, and its second column has the group.
        root: the folder of a data set of torchvision.
        download: whether torchvision may download files that are not in the folder.
    """

    source: str
    classes: list[str] = []
    values: list[int] = []
    colors: list[ColorEntry] = []
    ignored: list[int | ColorEntry] | None = None
    validation: Share = 0.1
    test: Share = 0.1
    value_range: Annotated[
        Literal["auto"] | RangeEntry | list[RangeEntry],
        one_of_kinds("'auto', a pair [low, high] in which high is greater, or a list of such pairs, one for each band,"),
    ] = "auto"
    mean: Annotated[Literal["auto"] | list[float] | None, one_of_kinds("'auto' or a list of numbers, one for each band,")] = (
        None
    )
    std: Annotated[
        Literal["auto"] | list[Annotated[float, Field(gt=0)]] | None,
        one_of_kinds("'auto' or a list of numbers above 0, one for each band,"),
    ] = None
    group: Annotated[str | None, AfterValidator(_check_group)] = None
    root: str | None = None
    download: bool = False

    @model_validator(mode="after")
    def _has_mean_and_std(self) -> DataEntry:
        if (self.mean is None) != (self.std is None):
            given, missing = ("std", "mean") if self.mean is None else ("mean", "std")
            raise ValueError(f"{given} is set, but {missing} is not. Set both, or neither for the normalization of the weights")
        if (self.mean == "auto") != (self.std == "auto"):
            raise ValueError('mean and std must both be "auto", or both be lists of one number for each band')
        return self

    def options(self) -> dict[str, Any]:
        """Return the options for `zoo.open_data`. Options that equal their defaults are left out."""
        return self.model_dump(exclude={"source"}, exclude_defaults=True)

    def relative_to(self, base: Path) -> DataEntry:
        """Return the entry with absolute paths. Relative paths start from `base`, the folder of the configuration file.

        Raises:
            DataError: the source is the name of a task and also a folder of images and masks.
        """
        if self.root is not None:  # a data set of torchvision, even if a folder has the same name
            return self.model_copy(update={"root": str(base / Path(self.root).expanduser())})
        source = locate_data(self.source, base)
        if self.group is None or not is_csv(self.group):
            return self.model_copy(update={"source": source})
        return self.model_copy(update={"source": source, "group": str(base / Path(self.group).expanduser())})


DataNamed: TypeAlias = Annotated[
    DataEntry,
    BeforeValidator(
        lambda value: {"source": value} if isinstance(value, str) else value, json_schema_input_type=DataEntry | str
    ),
]
"""A `DataEntry`, or only its source as text."""
