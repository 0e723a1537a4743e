"""The commands about data and training: train, data check."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.answers import Application, answer, console, note
from zoo.cli.application import app, fail
from zoo.common.format_names import format_names
from zoo.common.regular_files import is_folder

if TYPE_CHECKING:
    from zoo.training.settings import TrainSettings

__all__: list[str] = []

data_app = Application(help="Look through images and masks.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.command()
def train(
    what: Annotated[str, typer.Argument(metavar="CONFIG|ENCODER", help="A YAML file, or an encoder's id.", show_default=False)],
    decoder: Annotated[str | None, typer.Argument(help="A decoder's id, with an encoder's.", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A task (texture-mosaic, ...) or a folder of images/ and masks/.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The folder that keeps it.", show_default="runs/CONFIG or runs/ENCODER-DECODER-DATA"
        ),
    ] = None,
    weights: Annotated[str | None, typer.Option(help="The encoder's, such as 'imagenet'.", show_default="random")] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting, such as steps=500, batch=16, size=256, loss=dice, freeze_encoder=true, seed=1; before the file's.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a pairing on images with masks, and test it: as a YAML file says, or by two ids and --data.

    The same command goes on where it was interrupted. `zoo.load` reads the checkpoints.
    """
    import sys
    from dataclasses import replace

    from zoo.common.configuration import checked
    from zoo.data.data_config import DataEntry, locate_data
    from zoo.data.sources import open_data
    from zoo.training.fit import check_installed
    from zoo.training.run_folder import known_files
    from zoo.training.training import train as train_pairing

    changes = dict(_setting(text) for text in set or ())
    if _is_file(what):
        asked = _from_file(Path(what), decoder, data, weights, changes)
    else:
        asked = _asked(what, decoder, data, weights) | changes
    note(f"Encoder weights: {asked.get('weights') or 'random'}")
    entry = asked["data"]
    if not isinstance(entry, DataEntry):
        entry = checked(DataEntry, {"source": entry} if isinstance(entry, str) else entry, "The data cannot be opened")
    check_installed(locate_data(entry.source, Path()))
    in_file = asked.pop("output", None)
    place = output or Path(in_file or Path("runs") / _name(what, asked | {"data": entry.source}))
    try:
        opened = open_data(entry.source, earlier_scans=known_files(place), **entry.options())
        for line in opened.notes:
            note(f"{opened.name}: {line}.")
        asked["data"] = replace(opened, notes=())  # they are said
        result = train_pairing(**asked, output=place, show_progress=sys.stderr.isatty())
    except KeyboardInterrupt:
        fail(
            f"Interrupted. The last checkpoint in {place}, if there is one already, is kept, and the same command goes on from "
            "there.",
            130,
        )
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of the processes that trained on a device each, one prints the result
        _show(result)


@data_app.command()
def check(
    what: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|CONFIG",
            help="A folder of images/ and masks/, or of train/, ... with these two in each; or a training run's YAML file.",
        ),
    ],
    sheet: Annotated[Path, typer.Option(help="The file of the contact sheet.")] = Path("contact-sheet.png"),
) -> None:
    """Read every image and mask of a folder, and say what is there and what is wrong with it; draw a contact sheet.

    A YAML file also says what the masks' values stand for, so that the check finds all that training would refuse.
    Exit status 1: something is wrong.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from zoo.data.folder import data_from_report
    from zoo.data.folder_scan import scan_folder
    from zoo.data.masks.contact_sheet import contact_sheet
    from zoo.errors import DataError, OptionError
    from zoo.training.fit import crop_size

    folder, options, settings = _folder_of(what)
    report = scan_folder(folder)
    problems, notes = report.problems, report.notes
    if not problems:
        try:
            opened = data_from_report(report, **options)
            notes = opened.notes
            if settings:
                crop_size(opened, settings)
            elif opened.size is None:
                notes = (*notes, "images differ in size, so that training needs a size, the side of the crops")
        except DataError as cause:
            problems = (str(cause),)
    screen = console()
    facts = Table(box=box.SIMPLE_HEAD, show_header=False)
    for name, told in (
        ("pairs", ", ".join(f"{part} {count}" for part, count in sorted(report.counts.items())) or "none"),
        ("sizes", _counted({"x".join(map(str, size)): count for size, count in report.sizes.items()})),
        ("channels", _counted({str(number): count for number, count in report.channels.items()})),
        ("pixels", ", ".join(f"{name} from {low:g} to {high:g}" for name, (low, high) in report.ranges.items()) or "none"),
    ):
        facts.add_row(name, Text(told))
    screen.print(facts)
    total = sum(report.values.values())
    shares = Table(box=box.SIMPLE_HEAD)
    shares.add_column("mask value")
    shares.add_column("pixels", justify="right")
    shares.add_column("share", justify="right")
    for value, count in sorted(report.values.items(), key=lambda entry: -entry[1])[:64]:
        shares.add_row(Text(str(value)), f"{count:,}", f"{100 * count / total:.2f} %")
    if total:
        screen.print(shares)
    if (picture := contact_sheet(report)) is not None:
        try:
            picture.save(sheet)
        except (OSError, ValueError) as cause:
            raise OptionError(f"--sheet {sheet} cannot be written: {cause}. Give a path that ends in .png or .jpg.") from cause
        answer(f"{sheet} shows some of them with their masks.")
    for line in notes:
        answer(f"Note: {line}.")
    if problems:
        fail("\n".join([f"{len(problems)} problems:", *(f"  {line}" for line in problems)]), 1)
    answer("Nothing is wrong.")


def _folder_of(what: Path) -> tuple[Path, dict[str, Any], TrainSettings | None]:
    """Return the folder that is to be checked, with which options it is opened, and how a file says to train on it."""
    from zoo.errors import OptionError
    from zoo.training.config import load_train_config

    if not _is_file(str(what)):
        return what, {}, None
    config = load_train_config(what, {})
    data = config.data
    if data.root is not None or not is_folder(Path(data.source)):
        raise OptionError(f"zoo data check {what}: its data are {data.source}, and only a folder is checked.")
    return Path(data.source), data.options(), config


def _is_file(what: str) -> bool:
    return what.endswith((".yaml", ".yml"))


def _asked(encoder: str, decoder: str | None, data: str | None, weights: str | None) -> dict[str, Any]:
    from zoo.errors import OptionError

    missing = [name for name, given in (("a decoder's id", decoder), ("--data", data)) if given is None]
    if missing:
        raise OptionError(
            f"zoo train {encoder}: {' and '.join(missing)} is missing. Give ENCODER DECODER --data TASK|FOLDER, or the path "
            "of a YAML file."
        )
    return {"encoder": encoder, "decoder": decoder, "data": data, "weights": weights}


def _from_file(
    path: Path, decoder: str | None, data: str | None, weights: str | None, changes: dict[str, Any]
) -> dict[str, Any]:
    """Return what a file and the changes to it ask of `zoo.train`."""
    from zoo.data.data_config import locate_data
    from zoo.errors import OptionError
    from zoo.training.config import load_train_config

    if decoder is not None:
        raise OptionError(f"zoo train {path} {decoder}: the file names the decoder; `--set decoder={decoder}` names another.")
    folder = None if data is None else locate_data(data, Path())  # not from the file's own
    given = {name: value for name, value in (("data", folder), ("weights", weights)) if value is not None}
    config = load_train_config(path, changes | given)
    return config.options() | {"output": config.output, "data": config.data, "plugins": config.plugins}


def _name(what: str, asked: dict[str, Any]) -> str:
    if _is_file(what):
        return Path(what).stem
    parts = (asked["encoder"], asked["decoder"], asked["data"])
    return "-".join(part.replace(":", "_").strip("/").split("/")[-1] for part in parts)


def _setting(text: str) -> tuple[str, Any]:
    """Return NAME=VALUE, the value read as YAML reads it."""
    from zoo.common.configuration import read_value
    from zoo.errors import OptionError

    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise OptionError(f"--set {text}: a setting is NAME=VALUE, such as steps=500.")
    if not value.strip():
        raise OptionError(f"--set {text}: no value is given. For none, write {name}=null.")
    return name, read_value(value)


def _counted(counts: dict[str, int]) -> str:
    listed = sorted(counts.items(), key=lambda entry: -entry[1])
    return format_names((f"{name} ({count})" for name, count in listed), 8) or "none"


def _show(result: Any) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    answer(f"{result.pairing}, {result.data}, {result.steps} steps, {result.tested} checkpoint")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("test part")
    table.add_column("IoU", justify="right")
    for name, iou in zip(result.classes, result.test.iou, strict=True):
        table.add_row(Text(name), "-" if iou is None else f"{iou:.3f}")
    table.add_section()
    for name in ("miou", "dice", "accuracy"):
        table.add_row({"miou": "mean IoU", "dice": "mean Dice"}.get(name, name), f"{getattr(result.test, name):.3f}")
    console().print(table)
    answer(f'zoo.load("{result.checkpoint}") gives the model.')
