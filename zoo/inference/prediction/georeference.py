"""Use rasterio to read the georeference of a GeoTIFF, and to write a mask as a GeoTIFF with the same georeference."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.class_colors import Color
from zoo.data.formats.files import TIFF
from zoo.data.formats.pillow_limits import filter_warnings
from zoo.data.formats.tiff import open_raster

__all__ = ["Georeference", "georeference_of", "is_georeferenced", "write_georeferenced"]

INSTALL = "pip install 'segmentation-zoo[geo]'"
TAGS = (33550, 33922, 34264)
"""ModelPixelScale, ModelTiepoint, ModelTransformation (OGC GeoTIFF 1.1). A georeferenced TIFF has one of them."""

ROWS = 1024
"""The number of rows of a mask that are written at once: several rows of a GeoTIFF's tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Georeference:
    """The position of a raster on the earth, as rasterio represents it.

    Attributes:
        crs: the coordinate reference system; None if the file does not have one.
        transform: the affine transform from columns and rows to coordinates.
        gcps: the ground control points, if the file has these instead of a transform.
        has_gaps: whether some pixels may have no data.
    """

    crs: Any
    transform: Any
    gcps: tuple[Any, ...] = ()
    has_gaps: bool = False


def georeference_of(path: Path) -> Georeference | None:
    """Return the georeference of a file; None if the file is not a georeferenced TIFF, or if rasterio is not installed."""
    if path.suffix.lower() not in TIFF or find_spec("rasterio") is None:
        return None
    from rasterio.enums import MaskFlags
    from rasterio.errors import RasterioError

    try:
        with open_raster(path) as file:
            points, crs = file.gcps
            if not points and file.transform.is_identity and file.crs is None:
                return None
            has_gaps = any(MaskFlags.all_valid not in flags for flags in file.mask_flag_enums)
            return Georeference(crs=file.crs or crs, transform=file.transform, gcps=tuple(points), has_gaps=has_gaps)
    except RasterioError:
        return None  # GDAL cannot read the file; the error is reported when its pixels are read


def is_georeferenced(path: Path) -> bool:
    """Return whether a file is a georeferenced TIFF. Does not require rasterio."""
    if path.suffix.lower() not in TIFF:
        return False
    try:
        with filter_warnings("ignore", Warning), Image.open(path) as image:
            return any(tag in getattr(image, "tag_v2", {}) for tag in TAGS)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False


def write_georeferenced(
    path: Path, mask: np.ndarray, colors: tuple[Color, ...], georeference: Georeference, image: Path
) -> None:
    """Write a mask (H, W) as a GeoTIFF with lossless compression. A mask of the dtype uint8 has a palette.

    Pixels that are missing in the image (they have its nodata value or an opacity of 0, or the mask in the image's file
    excludes them) get the nodata value of the written file. That is the largest number of its dtype, such as 255 for uint8. If
    that number is a class, these pixels keep the predicted class, and the file declares no nodata value.

    Raises:
        OSError: the file cannot be written.
    """
    import rasterio
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    height, width = mask.shape
    facts: dict[str, Any] = {"gcps": list(georeference.gcps)} if georeference.gcps else {"transform": georeference.transform}
    if mask.dtype == np.uint8:
        facts["photometric"] = "palette"
    missing = mask.dtype.type(np.iinfo(mask.dtype).max)
    has_gaps = georeference.has_gaps and len(colors) <= missing
    if has_gaps:
        facts["nodata"] = int(missing)
    try:
        with (
            open_raster(image) if has_gaps else nullcontext() as source,
            rasterio.open(
                path,
                "w",
                driver="GTiff",
                height=height,
                width=width,
                count=1,
                dtype=mask.dtype.name,
                crs=georeference.crs,
                compress="deflate",
                tiled=True,
                bigtiff="if_safer",
                **facts,
            ) as file,
        ):
            if mask.dtype == np.uint8:  # written before the pixels, since the header cannot be changed afterwards
                file.write_colormap(1, {index: (*color, 255) for index, color in enumerate(colors)})
            for top in range(0, height, ROWS):
                rows = mask[top : top + ROWS]
                window = Window(0, top, width, len(rows))
                if source is not None:
                    rows = np.where(source.dataset_mask(window=window), rows, missing)
                file.write(rows, 1, window=window)
    except RasterioError as cause:
        raise OSError(str(cause)) from cause
