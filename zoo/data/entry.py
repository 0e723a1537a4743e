"""The data that a configuration names. Torch-free."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from zoo.configuration import Strict

__all__ = ["DataEntry", "DataNamed"]

Part: TypeAlias = Annotated[int, Field(ge=0, le=255)]
ColourEntry: TypeAlias = Annotated[
    tuple[Part, Part, Part], BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)
]
Share: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


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
        """Return the entry with paths that are found from a configuration's folder made absolute."""
        changed = {}
        if (base / self.source).is_dir():
            changed["source"] = str(base / self.source)
        if self.root is not None:
            changed["root"] = str(base / Path(self.root).expanduser())
        return self.model_copy(update=changed)


DataNamed: TypeAlias = Annotated[
    DataEntry,
    BeforeValidator(
        lambda given: {"source": given} if isinstance(given, str) else given, json_schema_input_type=DataEntry | str
    ),
]
"""The same, where a bare name stands for an entry without options."""
