"""The data that a configuration names. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from zoo.common.configuration import Strict
from zoo.common.regular_files import is_folder
from zoo.data.tasks.extras import NEEDED
from zoo.errors import DataError

__all__ = ["DataEntry", "DataNamed", "locate_data"]

Part: TypeAlias = Annotated[int, Field(ge=0, le=255)]
ColourEntry: TypeAlias = Annotated[
    tuple[Part, Part, Part], BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
]
Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


def locate_data(source: str, base: Path) -> str:
    """Return a folder's path, absolute; a name that is no folder's, or a task's, as it is.

    Args:
        source: what a user names.
        base: the folder that paths are found from.

    Raises:
        DataError: it is a task's name and a folder of images and masks.
    """
    place = base / source
    if not is_folder(place):
        return source
    if source not in NEEDED:
        return str(place.resolve() if ".." in place.parts else place.absolute())  # a link's own name is the data's
    if any((*place.glob("images"), *place.glob("*/images"))):
        raise DataError(
            f"{source} is a built-in task, and {place.resolve()} is a folder of images and masks. Give ./{source} for the "
            "folder; for the task, rename the folder or start from another one."
        )
    return source


class DataEntry(Strict):
    """A task, a folder or one of torchvision's data sets, with its options; `zoo.open_data` says what they mean."""

    source: str
    classes: list[str] = []
    values: list[int] = []
    colours: list[ColourEntry] = []
    ignored: list[int | ColourEntry] | None = None
    validation: Share = 0.1
    test: Share = 0.1
    root: str | None = None
    download: bool = False

    def options(self) -> dict[str, Any]:
        """Return the options that are not the usual ones, for `zoo.open_data`."""
        return self.model_dump(exclude={"source"}, exclude_defaults=True)

    def relative_to(self, base: Path) -> DataEntry:
        """Return the entry with paths that are found from a configuration's folder made absolute.

        Raises:
            DataError: a task's name that is a folder's as well.
        """
        if self.root is not None:  # of one of torchvision's data sets, whose name may be a folder's
            return self.model_copy(update={"root": str(base / Path(self.root).expanduser())})
        return self.model_copy(update={"source": locate_data(self.source, base)})


DataNamed: TypeAlias = Annotated[
    DataEntry,
    BeforeValidator(
        lambda given: {"source": given} if isinstance(given, str) else given, json_schema_input_type=DataEntry | str
    ),
]
"""The same, where a bare name stands for an entry without options."""
