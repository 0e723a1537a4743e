"""The entry for data in a configuration file. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from zoo.common.configuration import Strict
from zoo.common.regular_files import is_folder
from zoo.data.tasks.optional_packages import REQUIRED_MODULES
from zoo.errors import DataError

__all__ = ["DataEntry", "DataNamed", "locate_data"]

Part: TypeAlias = Annotated[int, Field(ge=0, le=255)]
ColorEntry: TypeAlias = Annotated[
    tuple[Part, Part, Part], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
]
Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


def locate_data(source: str, base: Path) -> str:
    """Return the absolute path of a folder; the name of a task or of another data set is returned unchanged.

    Args:
        source: a path or a name, as a user writes it.
        base: the folder that relative paths start from.

    Raises:
        DataError: the source is the name of a task and also a folder of images and masks.
    """
    folder = base / source
    if not is_folder(folder):
        return source
    if source not in REQUIRED_MODULES:
        return str(folder.resolve() if ".." in folder.parts else folder.absolute())  # a link gives the data its own name
    if any((*folder.glob("images"), *folder.glob("*/images"))):
        raise DataError(
            f"{source} is a built-in task, and {folder.resolve()} is a folder of images and masks. Give ./{source} for the "
            "folder; for the task, rename the folder or run from another one."
        )
    return source


class DataEntry(Strict):
    """A task, a folder or a data set of torchvision, with the options that `zoo.open_data` documents."""

    source: str
    classes: list[str] = []
    values: list[int] = []
    colors: list[ColorEntry] = []
    ignored: list[int | ColorEntry] | None = None
    validation: Share = 0.1
    test: Share = 0.1
    root: str | None = None
    download: bool = False

    def options(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, for `zoo.open_data`."""
        return self.model_dump(exclude={"source"}, exclude_defaults=True)

    def relative_to(self, base: Path) -> DataEntry:
        """Return the entry with absolute paths, where relative ones start from the folder of the configuration.

        Raises:
            DataError: the source is the name of a task and also a folder of images and masks.
        """
        if self.root is not None:  # a data set of torchvision: a folder of the same name is something else
            return self.model_copy(update={"root": str(base / Path(self.root).expanduser())})
        return self.model_copy(update={"source": locate_data(self.source, base)})


DataNamed: TypeAlias = Annotated[
    DataEntry,
    BeforeValidator(
        lambda value: {"source": value} if isinstance(value, str) else value, json_schema_input_type=DataEntry | str
    ),
]
"""The same, or only the source as text."""
