"""Draw masks over images."""

from __future__ import annotations

import numpy as np

from zoo.data.image_tensors import image_to_tensor

__all__ = ["overlay_mask", "to_rgb"]

OPACITY = 0.55


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return an image of any dtype as (H, W, 3) in 0 to 255. Unless its dtype is uint8, its contrast is stretched."""
    pixels = image_to_tensor(image).numpy().transpose(1, 2, 0)
    pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, axis=-1)
    if image.dtype != np.uint8:
        low, high = np.percentile(pixels, (2, 98))
        pixels = ((pixels - low) / max(high - low, 1e-12)).clip(0, 1)
    rgb: np.ndarray = pixels * 255
    return rgb


def overlay_mask(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Blend a mask of colors over an image, both (H, W, 3) in 0 to 255; black pixels of the mask are transparent."""
    blended: np.ndarray = np.where((mask > 0).any(axis=-1, keepdims=True), (1 - OPACITY) * pixels + OPACITY * mask, pixels)
    return blended
