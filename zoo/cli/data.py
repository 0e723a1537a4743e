"""The command `zoo data check`: look for mistakes in a folder of images and masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.answers import Application, answer, show_parts
from zoo.cli.application import app, fail
from zoo.common.format_names import format_count, format_names
from zoo.common.regular_files import is_folder
from zoo.errors import DataError, OptionError

if TYPE_CHECKING:
    from zoo.common.grid import Grid
    from zoo.data.folders.layout import Pair
    from zoo.data.folders.scan import FolderReport
    from zoo.data.segmentation_data import SegmentationData
    from zoo.training.settings import TrainSettings

__all__: list[str] = []

MAX_VALUES = 64
"""The largest number of mask values that the table shows."""
MAX_COUNTS = 8
"""The largest number of image sizes, or of numbers of channels, that are listed on a line."""

data_app = Application(help="Check images and masks.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def check(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|CONFIG",
            help="A folder with images/ and masks/; a folder with train/, validation/ and test/, each with these two; or the "
            "YAML file of a training run.",
        ),
    ],
    sheet: Annotated[Path, typer.Option(help="The file of the contact sheet.")] = Path("contact-sheet.png"),
) -> None:
    """Read every image and mask of a folder, report what they contain and what is wrong, and draw a contact sheet.

    If you pass the YAML file of a training run, the check also knows what the mask values mean, and reports everything that
    training would refuse. The exit status is 1 if something is wrong.
    """
    from zoo.common.grid import Grid, GridRow, Heading
    from zoo.data.folders.open_folder import FolderSamples, data_from_report
    from zoo.data.folders.scan import scan_folder
    from zoo.data.masks.contact_sheet import contact_sheet
    from zoo.training.fit import crop_size

    folder, options, settings = _read_target(what)
    report = scan_folder(folder)
    problems, notes = report.problems, report.notes
    pairs: Sequence[Pair] = report.pairs
    scaling = ""
    if not problems:
        # Some mistakes appear only when the folder is opened with the options of the YAML file, as training opens it.
        try:
            opened = data_from_report(report, **options)
            notes = opened.notes
            assert isinstance(opened.train, FolderSamples)
            pairs, scaling = opened.train.pairs, _describe_scaling(opened)
            if settings:
                crop_size(opened, settings)
            elif opened.size is None:
                notes = (*notes, "images differ in size, so training needs the setting `size`, the side length of the crops")
        except DataError as cause:
            problems = (str(cause),)
    facts = {
        "pairs": ", ".join(f"{part} {count}" for part, count in sorted(report.counts.items())) or "none",
        "sizes": _format_counts({"x".join(map(str, size)): count for size, count in report.sizes.items()}),
        "channels": _format_counts(report.channels),
        "pixels": ", ".join(f"{name} from {low:g} to {high:g}" for name, (low, high) in report.ranges.items()) or "none",
    }
    headings = (Heading(text="folder"), Heading(text=str(folder), can_wrap=True))
    show_parts(Grid(headings=headings, sections=(tuple(GridRow(cells=cells) for cells in facts.items()),)))
    if len(report.channels) == 1:
        show_parts(_bands_table(report, pairs, "training split" if scaling else "all images"))
    if scaling:
        answer(scaling)
    if total := sum(report.values.values()):
        most_frequent = sorted(report.values.items(), key=lambda item: -item[1])[:MAX_VALUES]
        shares = [(str(value), f"{count:,}", f"{100 * count / total:.2f} %") for value, count in most_frequent]
        numbers = (Heading(text=text, is_number=True) for text in ("pixels", "share"))
        rows = tuple(GridRow(cells=cells) for cells in shares)
        show_parts(Grid(headings=(Heading(text="mask value"), *numbers), sections=(rows,)))
    if (picture := contact_sheet(report)) is not None:
        try:
            picture.save(sheet)
        except (OSError, ValueError) as cause:
            raise OptionError(f"--sheet {sheet} cannot be written: {cause}. Use a path that ends in .png or .jpg.") from cause
        answer(f"{sheet} shows some of the images with their masks.")
    for line in notes:
        answer(f"Note: {line}.")
    if problems:
        fail("\n".join([f"{format_count(len(problems), 'problem')}:", *(f"  {line}" for line in problems)]), 1)
    answer("Nothing is wrong.")


def _read_target(what: Path) -> tuple[Path, dict[str, Any], TrainSettings | None]:
    """Return the folder to check, the options to open it with and, if `what` is a YAML file, the settings for training."""
    from zoo.data.tasks.optional_packages import REQUIRED_MODULES
    from zoo.training.config import load_train_config

    if what.suffix not in (".yaml", ".yml"):
        return what, {}, None
    config = load_train_config(what, {})
    data = config.data
    if data.root is not None or data.source in REQUIRED_MODULES:
        kind = "a built-in task" if data.root is None else "a data set of torchvision"
        raise OptionError(f"zoo data check can check only folders, but `data` in {what} is {data.source}, {kind}.")
    if not is_folder(Path(data.source)):
        raise OptionError(
            f"zoo data check can check only folders, but `data` in {what} is {data.source}, and there is no such folder. "
            "A relative path starts from the folder of the YAML file."
        )
    return Path(data.source), data.options(), config


def _bands_table(report: FolderReport, pairs: Iterable[Pair], title: str) -> Grid:
    """Return a table with statistics of the images of these pairs, with a row for each band (channel)."""
    from zoo.common.grid import Grid, GridRow, Heading
    from zoo.data.folders.open_folder import band_statistics

    rows = [
        GridRow(
            cells=(
                str(index),
                dtype,
                *(f"{number:.6g}" for number in (band.minimum, band.maximum, band.low, band.high, band.mean, band.std)),
            )
        )
        for dtype, bands in band_statistics(report, pairs).items()
        for index, band in enumerate(bands, start=1)
    ]
    names = ("min", "max", "robust low", "robust high", "mean", "std")
    headings = (Heading(text=f"band, {title}"), Heading(text="dtype"), *(Heading(text=name, is_number=True) for name in names))
    return Grid(headings=headings, sections=(tuple(rows),))


def _describe_scaling(data: SegmentationData) -> str:
    """Return text that says which pixel values become 0 and 1, and how training then normalizes the pixels."""
    from zoo.data.value_ranges import format_range

    if data.value_range is None:
        text = "value_range: integers are scaled to 0 to 1 by the range of their dtype, and floats are not scaled."
    else:
        text = f"value_range: {format_range(data.value_range)} become 0 and 1."
    if data.preprocessing is None:
        return text
    mean, std = (
        ", ".join(f"{number:.4g}" for number in numbers) for numbers in (data.preprocessing.mean, data.preprocessing.std)
    )
    return f"{text} Then the mean is subtracted ({mean}), and the result is divided by std ({std})."


def _format_counts(counts: Mapping[Any, int]) -> str:
    most_frequent = sorted(counts.items(), key=lambda item: -item[1])
    return format_names((f"{name} ({count})" for name, count in most_frequent), MAX_COUNTS) or "none"
