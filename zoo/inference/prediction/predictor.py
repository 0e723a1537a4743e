"""`Predictor`: predict images of any size, whole or in overlapping tiles that leave no seam."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from zoo.checkpoints.loading import load
from zoo.common.choices import Flips, Precision
from zoo.common.devices import choose_device, is_out_of_memory
from zoo.common.foreign_code import ForeignError, foreign_code
from zoo.common.printable import printable
from zoo.errors import InputError, OptionError
from zoo.inference.deployment import Deployed
from zoo.inference.prediction.picture import ImageLike, Picture, open_picture
from zoo.inference.prediction.prediction import Canvas, Prediction, check_array, mask_values
from zoo.inference.runtimes import PRECISIONS, autocast
from zoo.model.layers.normalization import Normalization
from zoo.model.model import SegmentationModel
from zoo.model.tiled_prediction import predict_in_tiles
from zoo.model.tiles import TileLike, tile_axes, tile_sides
from zoo.pairing.pairing import Pairing

__all__ = ["Predictor", "Progress", "TileLike"]

Progress: TypeAlias = Callable[[float], None]
"""Called with the share of an image that is done, in 0 to 1."""

_FLIPS: dict[Flips, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (-1,)),
    "all": ((), (-1,), (-2,), (-2, -1)),
}
WHOLE = 2048 * 2048
"""The most pixels of an image that "auto" predicts whole."""


class Predictor:
    """Predicts the class of each pixel of an image.

    Images are brought to what the model's weights were trained on (`model.preprocessing`). Large ones are predicted in
    overlapping tiles, whose probabilities are blended: near its edge a tile counts less, and at its edge not at all.

    Attributes:
        model: what predicts, in evaluation mode.
        classes: the names of a mask's values. A model with one class has two: the rest, and that one.
        colors: one for each.

    Example:
        >>> predictor = zoo.Predictor("model/", flips="horizontal")
        >>> prediction = predictor("street.jpg", probabilities=True)
        >>> prediction.mask.shape, prediction.probabilities.shape
        ((1080, 1920), (19, 1080, 1920))
    """

    def __init__(
        self,
        model: SegmentationModel | Deployed | str | PathLike[str],
        *,
        device: str | torch.device | None = None,
        tile: TileLike = "auto",
        overlap: int | None = None,
        batch: int = 1,
        flips: Flips = "none",
        precision: Precision = "float32",
    ) -> None:
        """Take a model over, for inference.

        Args:
            model: one that was built, loaded or deployed, which is put into evaluation mode and on the device; or what
                `zoo.load` takes.
            device: where to compute; "auto" is the accelerator if there is one, else the CPU. None leaves a model where it is,
                and is "auto" for one that is loaded.
            tile: the side of a tile in pixels, a multiple of the encoder's coarsest stride; None never makes tiles, and "auto"
                makes some of about 1024 pixels for images of more than 2048x2048. An encoder that is made for one size has
                tiles of that size, for whatever is larger; None has the model resize it.
            overlap: of neighboring tiles, in pixels, at most half of one; None for a fourth. No seam is left where a
                fourth of it is at least what an output pixel sees to each side.
            batch: tiles, or images of one size, that are put through the model together.
            flips: "horizontal" averages over an image and its mirror image, "all" over all four flips (test-time augmentation).
            precision: "bfloat16" computes in it by autocast; a deployed model has its own.

        Raises:
            OptionError: a value that an option cannot have, or a model whose pixels may have several classes.
            ConfigError: there is no such device here.
            ZooError: what `zoo.load` raises.
        """
        if not isinstance(batch, int) or batch < 1:
            raise OptionError(f"batch is a number of images, at least 1; found {batch!r}.")
        if flips not in get_args(Flips):
            raise OptionError(f"flips is one of {', '.join(map(repr, get_args(Flips)))}; found {flips!r}.")
        if precision not in PRECISIONS:
            raise OptionError(f"precision is one of {', '.join(map(repr, PRECISIONS))}; found {precision!r}.")
        if isinstance(model, str | PathLike):
            model = load(model)
            device = device or "auto"
        elif not isinstance(model, SegmentationModel | Deployed):
            raise OptionError(
                f"A Predictor is made of a model that zoo.build, zoo.load or zoo.deploy gave; found {model!r:.80}."
            )
        if isinstance(model, Deployed) and precision != "float32":
            raise OptionError(
                f"precision={precision!r} changes nothing in a deployed model: zoo.deploy chose, by its tolerance=."
            )
        if isinstance(device, str):
            device = choose_device(device)
        self.model = (model if device is None else model.to(device)).eval()
        original = model.original if isinstance(model, Deployed) else model
        assert isinstance(original, SegmentationModel)
        self._facts = original
        self._device = next(original.parameters()).device
        if not original.has_one_class_per_pixel:
            raise OptionError(
                f"{original.pairing} has a sigmoid for each of its {original.pairing.classes} classes, and a pixel may have "
                "several; a Predictor gives each pixel one class. Apply the sigmoid to the model's logits yourself, or set "
                "model.has_one_class_per_pixel = True if its classes exclude each other."
            )
        self._normalize = Normalization(original.preprocessing).to(self._device)
        self._flips = _FLIPS[flips]
        self._batch = batch
        self._precision = precision
        self._tile, self._overlap = tile_sides(original.plan.sizes.sizes, tile, overlap)
        self._is_asked = tile not in ("auto", None)
        self.classes, self.colors = mask_values(original)

    @property
    def batch(self) -> int:
        """Return how many images of one size are put through the model together."""
        return self._batch

    @property
    def mask_type(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Return the type of a mask's numbers."""
        return np.dtype(np.uint8 if len(self.classes) <= np.iinfo(np.uint8).max + 1 else np.uint16)

    @property
    def num_channels(self) -> int:
        """Return how many probabilities a pixel has: one for each of the model's logits."""
        return self._facts.pairing.classes

    @property
    def pairing(self) -> Pairing:
        """Return what the model was built from."""
        return self._facts.pairing

    @property
    def in_channels(self) -> int:
        """Return how many channels the model's images have."""
        return self._facts.pairing.in_channels

    def __call__(
        self,
        image: ImageLike,
        *,
        probabilities: bool | np.ndarray = False,
        mask: np.ndarray | None = None,
        any_size: bool = False,
        progress: Progress | None = None,
    ) -> Prediction:
        """Return the prediction for one image.

        Args:
            image: a file's path, an array (H, W) or (H, W, channels) of whole numbers or floats in 0 to 1, Pillow's image, or a
                float tensor (channels, H, W) in 0 to 1. If the model has a `value_range`, all but a tensor are scaled by it:
                they must be in the units of the training images, and a warning says so if they seem to have others. Gray is
                repeated for a model of three channels, opacity left out.
            probabilities: True keeps them, (classes, H, W) in float32; an array, perhaps mapped from a file, is written to.
            mask: an array (H, W) to write the mask to, perhaps mapped from a file (`numpy.lib.format.open_memmap`).
            any_size: read a file of more pixels than Pillow opens unasked.
            progress: called with the share that is done, after each row of tiles.

        Raises:
            DataError: the image cannot be read, or has other channels than the model takes.
            InputError: the model refuses its size or fails on it, or it does not fit into memory.
            OptionError: an array to write to has another shape, or a type that does not hold its numbers.
        """
        picture = self.open(image, any_size=any_size)
        if picture.note:
            warnings.warn(printable(f"{picture.note}."), stacklevel=2)
        return self.of_picture(picture, probabilities=probabilities, mask=mask, progress=progress)

    def open(self, image: ImageLike, *, any_size: bool = False) -> Picture:
        """Return an image that was opened for the model; arguments and errors as for a call."""
        return open_picture(image, self.in_channels, value_range=self._facts.value_range, any_size=any_size)

    def of_picture(
        self,
        picture: Picture,
        *,
        probabilities: bool | np.ndarray = False,
        mask: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Return the prediction for an image that was opened; arguments and errors as for a call."""
        with self._explain_out_of_memory(picture.size):
            canvas = self._canvas(picture.size, mask, probabilities)
            if self.takes_whole(picture.size):
                canvas.put(0, self._probabilities(self._normalized_window(picture, 0, 0, picture.size)[None])[0])
            else:
                self._put_tiles(picture, canvas, progress)
        return self._make_prediction(canvas)

    def many(self, pictures: Sequence[Picture], *, probabilities: bool = False) -> list[Prediction]:
        """Return the predictions for images of one size that are taken whole, put through the model together."""
        with self._explain_out_of_memory(pictures[0].size):
            probabilities_of_each = self._probabilities(
                torch.stack([self._normalized_window(each, 0, 0, each.size) for each in pictures])
            )
            canvases = [self._canvas(each.size, None, probabilities) for each in pictures]
            for canvas, each in zip(canvases, probabilities_of_each, strict=True):
                canvas.put(0, each)
        return [self._make_prediction(canvas) for canvas in canvases]

    def takes_whole(self, size: tuple[int, int]) -> bool:
        """Whether an image of this (H, W) is put through the model as one."""
        if self._tile is None:
            return True
        if self._is_asked or self._facts.plan.sizes.sizes.fixed:
            return size[0] <= self._tile[0] and size[1] <= self._tile[1]
        return size[0] * size[1] <= WHOLE

    @contextmanager
    def _explain_out_of_memory(self, size: tuple[int, int]) -> Iterator[None]:
        """Say what to do where a prediction for images of this (H, W) needs more memory than there is."""
        try:
            yield
        except (RuntimeError, MemoryError, ForeignError) as cause:
            if not is_out_of_memory(cause):
                raise
            tiles = "" if self.takes_whole(size) or self._tile is None else f" in tiles of {self._tile[0]}x{self._tile[1]}"
            raise InputError(
                f"{size[0]}x{size[1]} pixels{tiles} do not fit into the memory of {self._device}. Give a smaller tile=, "
                "batch=1, or precision='bfloat16'."
            ) from cause

    def _canvas(self, size: tuple[int, int], mask: np.ndarray | None, probabilities: bool | np.ndarray) -> Canvas:
        whole = (self.num_channels, *size)
        kept = None
        if isinstance(probabilities, np.ndarray):
            kept = probabilities
        elif probabilities:
            kept = np.empty(whole, dtype=np.float32)
        check_array("mask", mask, size, self.mask_type)
        check_array("probabilities", kept, whole, np.dtype(np.float16))
        return Canvas(mask=np.empty(size, dtype=self.mask_type) if mask is None else mask, probabilities=kept)

    def _make_prediction(self, canvas: Canvas) -> Prediction:
        return Prediction(mask=canvas.mask, probabilities=canvas.probabilities, classes=self.classes, colors=self.colors)

    def _normalized_window(self, picture: Picture, top: int, left: int, size: tuple[int, int]) -> Tensor:
        """Return a window's pixels, or those of it that the image has, as the model takes them: (channels, H, W)."""
        pixels: Tensor = self._normalize(picture.window(top, left, *size, self._device)[None])[0]
        return pixels

    def _put_tiles(self, picture: Picture, canvas: Canvas, progress: Progress | None) -> None:
        assert self._tile is not None
        rows, columns = tile_axes(picture.size, sizes=self._facts.plan.sizes.sizes, tile=self._tile, overlap=self._overlap)

        def write(top: int, probabilities: Tensor) -> None:
            canvas.put(top, probabilities)
            if progress is not None:
                progress((top + probabilities.shape[1]) / rows.length)

        predict_in_tiles(
            rows,
            columns,
            batch=self._batch,
            device=self._device,
            read=lambda top, left: self._normalized_window(picture, top, left, (rows.tile, columns.tile)),
            predict=self._probabilities,
            write=write,
        )

    def _probabilities(self, images: Tensor) -> Tensor:
        """Return (N, classes, H, W), float32, averaged over the flips."""
        total: Tensor | None = None
        with torch.inference_mode():
            for dims in self._flips:
                logits = self._logits(images.flip(dims) if dims else images).float().flip(dims)
                probabilities = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
                total = probabilities if total is None else total + probabilities
        assert total is not None
        if total.isnan().any():
            raise InputError(
                f"The model's logits hold NaN for images {tuple(images.shape)}, so that no class is right. Its weights are "
                f"useless, or precision={self._precision!r} does not hold its numbers."
            )
        return total / len(self._flips) if len(self._flips) > 1 else total

    def _logits(self, images: Tensor) -> Tensor:
        """Return what the model gives, or say which images it fails on: a plugin's raises what it comes upon."""
        try:
            with foreign_code(), autocast(images, self._precision):
                logits: Tensor = self.model(images)
        except ForeignError as failure:
            if is_out_of_memory(failure):
                raise
            raise InputError(f"The model fails on images {tuple(images.shape)}: {failure}") from failure.__cause__
        return logits
