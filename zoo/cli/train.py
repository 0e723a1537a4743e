"""The command `zoo train`: train a pairing and test it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.answers import answer, note, show_parts
from zoo.cli.application import app, fail
from zoo.cli.console import PluginOption

if TYPE_CHECKING:
    from zoo.training.result import TrainResult

__all__: list[str] = []

DATA = "data."
"""The beginning of the name of a setting that is an option of the data, such as data.values."""
WITH_PATHS = ("init_from", "loss", "callbacks", "loggers")
"""The settings that contain paths. A relative path on the command line starts from the working directory; a relative path in a
YAML file starts from the folder of that file."""


@app.command()
def train(
    what: Annotated[str, typer.Argument(metavar="CONFIG|ENCODER", help="A YAML file, or an encoder's id.", show_default=False)],
    decoder: Annotated[str | None, typer.Argument(help="A decoder's id, after an encoder's id.", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A task (texture-mosaic, ...) or a folder of images/ and masks/.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The folder for checkpoints and scores.",
            show_default="runs/CONFIG or runs/ENCODER-DECODER-DATA",
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The encoder's pretrained weights, such as 'imagenet'.", show_default="random")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting, such as steps=500, loss=dice, freeze_encoder=true, or an option of the data, such as "
            "data.values=[0,255]; overrides the file.",
            show_default=False,
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Train a pairing on images with masks, and test it. Pass a YAML file, or two ids and --data.

    The same command resumes an interrupted training run. `zoo.load` reads the checkpoints.
    """
    import sys
    from dataclasses import replace

    from zoo.common.configuration import checked
    from zoo.data.data_config import DataEntry, locate_data
    from zoo.data.sources import open_data
    from zoo.training.config import TrainConfig
    from zoo.training.entries import entry_at
    from zoo.training.fit import check_installed
    from zoo.training.run_folder import known_files
    from zoo.training.training import train as train_pairing

    changes = dict(_parse_setting(text) for text in set or ())
    data_options = {name.removeprefix(DATA): changes.pop(name) for name in [*changes] if name.startswith(DATA)}
    if _is_file(what):
        arguments = _arguments_from_file(Path(what), decoder, data, weights, changes)
    else:
        arguments = _arguments_from_ids(what, decoder, data, weights) | changes
        checked(TrainConfig, arguments, "A setting is wrong", lambda location: entry_at(location, TrainConfig))
    if plugin:
        arguments["plugins"] = [*arguments.get("plugins", ()), *map(str, plugin)]
    start = arguments.get("init_from")
    note(f"Weights: {start}" if start else f"Encoder weights: {arguments.get('weights') or 'random'}")
    entry = arguments["data"]
    if isinstance(entry, DataEntry):
        entry = {"source": entry.source, **entry.options()}
    entry = checked(
        DataEntry, ({"source": entry} if isinstance(entry, str) else entry) | data_options, "The data cannot be opened"
    )
    check_installed(locate_data(entry.source, Path()))
    in_file = arguments.pop("output", None)
    folder = output or Path(in_file or Path("runs") / _default_folder_name(what, arguments | {"data": entry.source}))
    try:
        opened = open_data(entry.source, earlier_scans=known_files(folder), **entry.options())
        for line in opened.notes:
            note(f"{opened.name}: {line}.")
        arguments["data"] = replace(opened, notes=())  # the notes were printed above
        result = train_pairing(**arguments, output=folder, show_progress=sys.stderr.isatty())
    except KeyboardInterrupt:
        fail(
            f"Interrupted. Any checkpoint already written to {folder} is kept; the same command resumes the training.",
            130,
        )
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of several training processes (one per device), only the first prints
        _show_result(result)


def _is_file(what: str) -> bool:
    return what.endswith((".yaml", ".yml"))


def _arguments_from_ids(encoder: str, decoder: str | None, data: str | None, weights: str | None) -> dict[str, Any]:
    from zoo.errors import OptionError

    missing = [name for name, value in (("a decoder's id", decoder), ("--data", data)) if value is None]
    if missing:
        raise OptionError(
            f"zoo train {encoder} lacks {' and '.join(missing)}. Give ENCODER DECODER --data TASK|FOLDER, or the path "
            "of a YAML file."
        )
    return {"encoder": encoder, "decoder": decoder, "data": data, "weights": weights}


def _arguments_from_file(
    path: Path, decoder: str | None, data: str | None, weights: str | None, changes: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of `zoo.train`: the content of a YAML file, with the keys replaced that options override."""
    from zoo.common.configuration import checked
    from zoo.data.data_config import locate_data
    from zoo.errors import OptionError
    from zoo.training.config import load_train_config
    from zoo.training.settings import TrainSettings

    if decoder is not None:
        raise OptionError(
            f"zoo train {path} {decoder}: the file names the decoder. To change it, use `--set decoder={decoder}`."
        )
    folder = None if data is None else locate_data(data, Path())  # relative to the working directory, not to the file's folder
    if paths := {name: value for name, value in changes.items() if name in WITH_PATHS}:
        located = checked(TrainSettings, paths, "A setting is wrong").relative_to(Path.cwd())
        changes = changes | located.model_dump(include={*paths})
    overrides = {name: value for name, value in (("data", folder), ("weights", weights)) if value is not None}
    config = load_train_config(path, changes | overrides)
    return config.options() | {"output": config.output, "data": config.data, "plugins": config.plugins}


def _default_folder_name(what: str, arguments: dict[str, Any]) -> str:
    if _is_file(what):
        return Path(what).stem
    parts = (arguments["encoder"], arguments["decoder"], arguments["data"])
    return "-".join(part.replace(":", "_").strip("/").split("/")[-1] for part in parts)


def _parse_setting(text: str) -> tuple[str, Any]:
    """Return the name and the value in NAME=VALUE. The value is parsed as YAML."""
    from zoo.common.configuration import read_value
    from zoo.errors import OptionError

    name, sign, value = text.partition("=")
    if not sign or not name.removeprefix(DATA).isidentifier():
        raise OptionError(f"--set {text}: a setting must be written NAME=VALUE, such as steps=500 or data.values=[0, 255].")
    if not value.strip():
        raise OptionError(f"--set {text}: the value is missing. For no value, write {name}=null.")
    return name, read_value(value)


def _show_result(result: TrainResult) -> None:
    from zoo.common.grid import Grid, GridRow, Heading, Line

    title = f"{result.pairing}, {result.data}, {result.steps} steps, {result.tested} checkpoint"
    iou = [("-" if value is None else f"{value:.3f}") for value in result.test.iou]
    averages = {"mean IoU": result.test.miou, "mean Dice": result.test.dice, "accuracy": result.test.accuracy}
    table = Grid(
        headings=(Heading(text="test split"), Heading(text="IoU", is_number=True)),
        sections=(
            tuple(GridRow(cells=cells) for cells in zip(result.classes, iou, strict=True)),
            tuple(GridRow(cells=(name, f"{value:.3f}")) for name, value in averages.items()),
        ),
    )
    show_parts(Line(text=title), table)
    waiting = "" if result.waiting is None else f" Training waited for images {100 * result.waiting:.0f} % of the time."
    answer(f'zoo.load("{result.checkpoint}") loads the model.{waiting}')
