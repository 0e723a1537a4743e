"""`Predictor`: predict the masks of images of any size, whole or in overlapping tiles without visible seams."""

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
from zoo.inference.deployment.deployed import Deployed
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
"""Called with the share of an image that is finished, in 0 to 1."""

_FLIPS: dict[Flips, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (-1,)),
    "all": ((), (-1,), (-2,), (-2, -1)),
}
WHOLE = 2048 * 2048
"""The largest number of pixels of an image that `tile="auto"` predicts whole."""


class Predictor:
    """Predicts the class of each pixel of an image.

    Images are normalized as the model's weights require (`model.preprocessing`). Large images are predicted in overlapping
    tiles, whose probabilities are averaged with weights. The weight of a tile decreases to 0 towards its edge.

    Attributes:
        model: the model, in evaluation mode.
        classes: the names of a mask's values. A model with one class has two values: the background and that class.
        colors: the colors of a mask's values.

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
        """Set up a model for inference.

        Args:
            model: a model that was built, loaded or deployed, or what `zoo.load` accepts, such as the path of a folder. The
                model is set to evaluation mode and moved to the device.
            device: the device to compute on. "auto" is the accelerator if there is one, and otherwise the CPU. None leaves a
                model on its device; for a model that is loaded from a path, None stands for "auto".
            tile: the side of a tile in pixels, a multiple of the encoder's coarsest stride. "auto" divides images of more than
                2048x2048 pixels into tiles of about 1024 pixels. None never divides images. If the encoder is made for one
                image size, tiles have that size, and larger images are divided. With None, the model resizes larger images.
            overlap: the overlap of neighboring tiles in pixels, at most half of a tile; None for a fourth of a tile. There is
                no seam if the class of a pixel depends only on pixels no farther away than a fourth of the overlap.
            batch: the largest number of tiles, or of images of the same size, in one call of the model.
            flips: "horizontal" averages the probabilities of an image and its mirror image. "all" averages the probabilities
                of all four combinations of horizontal and vertical flips (test-time augmentation).
            precision: "bfloat16" computes in bfloat16 with autocast. It is not accepted for a deployed model, whose precision
                `zoo.deploy` has chosen.

        Raises:
            OptionError: an option has an invalid value, or a pixel may belong to several classes of the model (its
                `has_one_class_per_pixel` is False).
            ConfigError: the device does not exist on this machine.
            ZooError: the model cannot be loaded, for one of the reasons that `zoo.load` lists.
        """
        if not isinstance(batch, int) or batch < 1:
            raise OptionError(f"batch must be an integer of at least 1; found {batch!r}.")
        if flips not in get_args(Flips):
            raise OptionError(f"flips must be one of {', '.join(map(repr, get_args(Flips)))}; found {flips!r}.")
        if precision not in PRECISIONS:
            raise OptionError(f"precision must be one of {', '.join(map(repr, PRECISIONS))}; found {precision!r}.")
        if isinstance(model, str | PathLike):
            model = load(model)
            device = device or "auto"
        elif not isinstance(model, SegmentationModel | Deployed):
            raise OptionError(
                f"A Predictor requires a model from zoo.build, zoo.load or zoo.deploy, or a path; found {model!r:.80}."
            )
        if isinstance(model, Deployed) and precision != "float32":
            raise OptionError(
                f"precision={precision!r} has no effect on a deployed model, whose precision zoo.deploy has chosen by its "
                "tolerance=. Leave precision= out."
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
                f"The model {original.pairing} has a separate sigmoid for each of its {original.pairing.classes} classes, so "
                "a pixel may belong to several classes. A Predictor assigns exactly one class to each pixel. Apply the sigmoid "
                "to the model's logits yourself, or, if its classes exclude each other, set model.has_one_class_per_pixel = "
                "True."
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
        """Return the batch size: the largest number of images in one call of the model.

        Only images of the same size share a batch.
        """
        return self._batch

    @property
    def mask_type(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Return the dtype of masks."""
        return np.dtype(np.uint8 if len(self.classes) <= np.iinfo(np.uint8).max + 1 else np.uint16)

    @property
    def num_channels(self) -> int:
        """Return the number of probabilities of a pixel: one for each of the model's logits."""
        return self._facts.pairing.classes

    @property
    def pairing(self) -> Pairing:
        """Return the pairing that the model was built from."""
        return self._facts.pairing

    @property
    def in_channels(self) -> int:
        """Return the number of channels of the model's images."""
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
            image: the path of a file, an array (H, W) or (H, W, channels) of integers or of floats in 0 to 1, a Pillow image,
                or a float tensor (channels, H, W) in 0 to 1. If the model has a `value_range`, all of these except tensors are
                scaled by it. They must then be in the units of the training images. If they seem to be in another unit, a
                warning is issued. A gray image is repeated for a model of three channels. An alpha channel is left out.
            probabilities: True returns the probabilities, (classes, H, W) in float32. They can also be written to an array,
                which may be memory-mapped from a file.
            mask: an array (H, W) to write the mask to, which may be memory-mapped (`numpy.lib.format.open_memmap`).
            any_size: whether to read a file of more pixels than Pillow's default limit.
            progress: called after each row of tiles with the share of the image that is finished.

        Raises:
            DataError: the image cannot be read, or its channels cannot be converted to those of the model.
            InputError: the model does not accept the size of the image or fails on it, or memory runs out.
            OptionError: `mask` or `probabilities` has another shape, or a dtype that cannot represent the results.
        """
        picture = self.open(image, any_size=any_size)
        if picture.note:
            warnings.warn(printable(f"{picture.note}."), stacklevel=2)
        return self.of_picture(picture, probabilities=probabilities, mask=mask, progress=progress)

    def open(self, image: ImageLike, *, any_size: bool = False) -> Picture:
        """Open an image for the model. See `__call__` for the arguments and errors."""
        return open_picture(image, self.in_channels, value_range=self._facts.value_range, any_size=any_size)

    def of_picture(
        self,
        picture: Picture,
        *,
        probabilities: bool | np.ndarray = False,
        mask: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Return the prediction for an image that `open` returned. See `__call__` for the arguments and errors."""
        with self._explain_out_of_memory(picture.size):
            canvas = self._canvas(picture.size, mask, probabilities)
            if self.takes_whole(picture.size):
                canvas.put(0, self._probabilities(self._normalized_window(picture, 0, 0, picture.size)[None])[0])
            else:
                self._put_tiles(picture, canvas, progress)
        return self._make_prediction(canvas)

    def many(self, pictures: Sequence[Picture], *, probabilities: bool = False) -> list[Prediction]:
        """Predict several images of one size as one batch. `takes_whole` must be True for this size."""
        with self._explain_out_of_memory(pictures[0].size):
            probabilities_of_each = self._probabilities(
                torch.stack([self._normalized_window(each, 0, 0, each.size) for each in pictures])
            )
            canvases = [self._canvas(each.size, None, probabilities) for each in pictures]
            for canvas, each in zip(canvases, probabilities_of_each, strict=True):
                canvas.put(0, each)
        return [self._make_prediction(canvas) for canvas in canvases]

    def takes_whole(self, size: tuple[int, int]) -> bool:
        """Return whether an image of the size (H, W) is predicted whole and not in tiles."""
        if self._tile is None:
            return True
        if self._is_asked or self._facts.plan.sizes.sizes.fixed:
            return size[0] <= self._tile[0] and size[1] <= self._tile[1]
        return size[0] * size[1] <= WHOLE

    @contextmanager
    def _explain_out_of_memory(self, size: tuple[int, int]) -> Iterator[None]:
        """A context that replaces an out-of-memory error by an InputError that says what to change.

        Args:
            size: the height and width of the images that are predicted in the context.
        """
        try:
            yield
        except (RuntimeError, MemoryError, ForeignError) as cause:
            if not is_out_of_memory(cause):
                raise
            tiles = "" if self.takes_whole(size) or self._tile is None else f" in tiles of {self._tile[0]}x{self._tile[1]}"
            raise InputError(
                f"{size[0]}x{size[1]} pixels{tiles} do not fit into the memory of {self._device}. Set a smaller tile=, "
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
        """Return the normalized pixels of a window, (channels, H, W).

        The part beyond the bottom or right edge of the image is left out.
        """
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
        """Return the probabilities (N, classes, H, W), float32, averaged over the flips."""
        total: Tensor | None = None
        with torch.inference_mode():
            for dims in self._flips:
                logits = self._logits(images.flip(dims) if dims else images).float().flip(dims)
                probabilities = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
                total = probabilities if total is None else total + probabilities
        assert total is not None
        if total.isnan().any():
            raise InputError(
                f"The model's logits contain NaN for images {tuple(images.shape)}, so they do not determine a class. Check its "
                f"weights, and whether precision={self._precision!r} can represent its values."
            )
        return total / len(self._flips) if len(self._flips) > 1 else total

    def _logits(self, images: Tensor) -> Tensor:
        """Return the logits of the model. If the model raises an error, report the shape of the images."""
        try:
            with foreign_code(), autocast(images, self._precision):
                logits: Tensor = self.model(images)
        except ForeignError as failure:
            if is_out_of_memory(failure):
                raise
            raise InputError(f"The model fails on images {tuple(images.shape)}: {failure}") from failure.__cause__
        return logits
