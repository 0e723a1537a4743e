"""Masks drawn over images, as a person looks at them."""

from __future__ import annotations

import numpy as np

from zoo.data.image_tensors import image_to_tensor

__all__ = ["covered", "visible"]

OPACITY = 0.55


def visible(image: np.ndarray) -> np.ndarray:
    """Return an image of any type as (H, W, 3) in 0 to 255; what is no 8-bit picture is stretched to what most pixels have."""
    pixels = image_to_tensor(image).numpy().transpose(1, 2, 0)
    pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, axis=-1)
    if image.dtype != np.uint8:
        low, high = np.percentile(pixels, (2, 98))
        pixels = ((pixels - low) / max(high - low, 1e-12)).clip(0, 1)
    found: np.ndarray = pixels * 255
    return found


def covered(pixels: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return an image under a mask drawn in colours, both (H, W, 3) in 0 to 255; black leaves it as it is."""
    found: np.ndarray = np.where((drawn > 0).any(axis=-1, keepdims=True), (1 - OPACITY) * pixels + OPACITY * drawn, pixels)
    return found
