"""Whether compression changed an image's numbers, as far as the compressed bytes say."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Loss", "loss_in"]

START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
"""Of JPEG 2000, alone or in the boxes of a `.jp2`."""
CODING_STYLE = b"\xff\x52"
TRANSFORM = 13
"""From the marker of the coding style on: the byte that names the wavelet, 0 for the one that is always lossy (9-7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A compression that changes numbers, or may have changed them.

    Attributes:
        name: of the compression.
        is_certain: whether it did; else the file does not say.
    """

    name: str
    is_certain: bool


def loss_in(content: bytes) -> Loss | None:
    """Return what WebP or JPEG 2000 lost; None where nothing was lost, and for other formats."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return Loss(name="lossy WebP", is_certain=True) if b"VP8 " in _webp_chunks(content) else None
    start = content.find(START_OF_CODESTREAM)
    if start < 0:
        return None
    place = start + 2
    while (length := int.from_bytes(content[place + 2 : place + 4], "big")) > 0:
        if content[place : place + 2] == CODING_STYLE:
            return Loss(name="JPEG 2000", is_certain=content[place + TRANSFORM : place + TRANSFORM + 1] == b"\0")
        place += 2 + length
    return Loss(name="JPEG 2000", is_certain=False)


def _webp_chunks(content: bytes) -> set[bytes]:
    """Return the names of a WebP's chunks."""
    names, place = set(), 12
    while name := content[place : place + 4]:
        names.add(name)
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8 + length + length % 2
    return names
