"""The command `zoo export`: write a model as a file for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo.cli.answers import show_parts
from zoo.cli.application import app, fail
from zoo.cli.console import PluginOption, choose_format, load_plugins
from zoo.common.choices import EXPORT_TIMEOUT, EXPORT_TOLERANCE, ModelFormat
from zoo.errors import OptionError
from zoo.registry.image_sizes import read_size

__all__: list[str] = []


@app.command("export")
def export_model(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder that zoo.save wrote, a checkpoint of zoo train, or hf-hub:OWNER/NAME.", show_default=False
        ),
    ],
    format: Annotated[
        ModelFormat | None,
        typer.Option("--format", "-f", help="The format of the file.", show_default="by --output's suffix, or onnx"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file: .onnx, .pt2 or .xml.", show_default="MODEL's name in this folder"),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="HxW|N",
            help="The image size, if the file is for a single size.",
            show_default="the model's own, or 256x256",
        ),
    ] = None,
    fixed: Annotated[bool, typer.Option("--fixed", help="Write a file for a single size.")] = False,
    normalize: Annotated[
        bool,
        typer.Option("--normalize", help="Write a file that takes pixels and normalizes them itself."),
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="The largest accepted error, relative to the model's largest output.")
    ] = EXPORT_TOLERANCE,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="The time limit for writing a file for all sizes.")
    ] = EXPORT_TIMEOUT,
    plugin: PluginOption = None,
) -> None:
    """Write a trained model as ONNX, torch.export or OpenVINO, for any batch, height and width.

    The file is run at sizes that were not used for the export, and its output is compared with the model's. If zoo cannot write
    a file for all sizes, it writes a file for a single size, and puts this size in the file's name. If the output differs by
    more than the tolerance, the file is not kept, and the exit status is 2.
    """
    from zoo.checkpoints.loading import load
    from zoo.inference.exporting import FORMATS, export
    from zoo.inference.exporting.formats import why_not_format

    load_plugins(plugin)
    form = choose_format(format, output, {suffix: name for name, suffix in FORMATS.items()})
    path = output or Path(_default_stem(model) + FORMATS[form])
    single_size = None if size is None else read_size(size, "--size")
    if missing := why_not_format(form):  # checked before a model is downloaded
        raise OptionError(f"--format {form}: {missing}")
    try:
        report = export(
            load(model),
            path,
            format=form,
            size=single_size,
            fixed=fixed,
            normalize=normalize,
            tolerance=tolerance,
            timeout=timeout,
        )
    except KeyboardInterrupt:
        fail(f"Interrupted. {path} was not written.", 130)
    show_parts(*report.parts())


def _default_stem(model: str) -> str:
    name = model.split("/")[-1] if model.startswith("hf-hub:") else Path(model).resolve().name
    return name.removesuffix(".ckpt") or "model"
