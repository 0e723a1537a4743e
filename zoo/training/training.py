"""`zoo.train`: train a pairing, and write the trained model and its scores to a folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, overload

from zoo.common.configuration import checked
from zoo.common.signatures import show_options_of
from zoo.data.data_config import locate_data
from zoo.data.segmentation_data import SegmentationData
from zoo.data.sources import open_data
from zoo.errors import OptionError
from zoo.pairing.pairing import Pairing
from zoo.registry.plugin_files import load_plugin_file
from zoo.training.config import TrainOptions
from zoo.training.entries import entry_at
from zoo.training.fit import check_installed, fit
from zoo.training.result import TrainResult
from zoo.training.run_folder import known_files
from zoo.training.settings import TrainSettings

__all__ = ["train"]


DataLike: TypeAlias = SegmentationData | str | PathLike[str]
"""What `zoo.open_data` accepts."""


@overload
def train(
    encoder: Pairing,
    decoder: DataLike,
    *,
    output: str | PathLike[str],
    plugins: Sequence[str | PathLike[str]] = (),
    show_progress: bool = False,
    **options: Any,
) -> TrainResult: ...


@overload
def train(
    encoder: str | Pairing,
    decoder: str | None = None,
    data: DataLike | None = None,
    *,
    output: str | PathLike[str],
    plugins: Sequence[str | PathLike[str]] = (),
    show_progress: bool = False,
    **options: Any,
) -> TrainResult: ...


@show_options_of(Pairing, TrainSettings)
def train(
    encoder: str | Pairing,
    decoder: DataLike | None = None,
    data: DataLike | None = None,
    *,
    output: str | PathLike[str],
    plugins: Sequence[str | PathLike[str]] = (),
    show_progress: bool = False,
    **options: Any,
) -> TrainResult:
    """Train an encoder and a decoder on images with masks, test them, and write the result to a folder.

    If the same call is repeated after an interruption, it resumes the run. After the run is finished, it immediately returns
    the result. Data, weights files and plugin files count as the same if their content is the same.

    Args:
        encoder: an encoder's id; or a whole `zoo.Pairing` with its options, in which case the next argument is the data.
        decoder: a decoder's id; or the data, if `encoder` is a whole pairing.
        data: what `zoo.open_data` accepts or returns, or your own `SegmentationData`.
        output: the folder; `zoo.load` reads its `best.ckpt` or `last.ckpt`.
        plugins: Python files that register encoders or decoders. zoo runs these files.
        show_progress: whether to draw a progress bar.
        options: the options of `zoo.build` (`classes` and `in_channels` are by default those of the data), and the settings
            that `TrainSettings` explains: epochs, steps, batch, size, loss, learning_rate, freeze_encoder, seed, ...

    Raises:
        ZooError: an id is unknown, the data cannot be used for training, an option is wrong, or the folder contains a run
            with other settings or other data.

    Example:
        >>> result = zoo.train("resnet18", "unet-basic", "cells/", output="runs/cells", loss="dice", steps=500)
        >>> result = zoo.train(zoo.Pairing("resnet18", "unet-basic", classes=2), "cells/", output="runs/cells-2")
    """
    files = [Path(plugin) for plugin in plugins]
    for file in files:
        load_plugin_file(file)
    error = "zoo.train has no such options"
    pairing: Pairing | None = None
    if isinstance(encoder, Pairing):
        if decoder is not None and data is not None:
            raise OptionError(
                f"{encoder} is a whole pairing, but a decoder was passed with it. Call zoo.train(pairing, data, output=...)."
            )
        pairing, data = encoder, decoder if data is None else data
        settings = checked(TrainSettings, options, error, lambda location: entry_at(location, TrainSettings))
    else:
        content = {"encoder": encoder, "decoder": decoder, **options}
        config = checked(TrainOptions, content, error, lambda location: entry_at(location, TrainOptions))
        settings = config.settings()
    if data is None:
        raise OptionError(
            "zoo.train needs data: the name of a task, a folder of images/ and masks/, or a zoo.SegmentationData."
        )
    if not isinstance(data, SegmentationData):
        check_installed(locate_data(str(data), Path()))
    opened = open_data(data, earlier_scans=known_files(Path(output)))
    for note in opened.notes:
        logging.getLogger(__name__).warning("%s: %s.", opened.name, note)
    wanted = pairing or config.pairing(opened)
    return fit(wanted, opened, settings, Path(output), plugins=files, show_progress=show_progress)
