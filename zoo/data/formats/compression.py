"""Detect from compressed bytes whether the compression was lossy."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Loss", "find_loss"]

START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
"""The first marker of JPEG 2000 data, which a `.jp2` file contains within its boxes."""
CODING_STYLE = b"\xff\x52"
TRANSFORM = 13
"""The offset from the coding style marker to the byte that names the wavelet. 0 is the 9-7 wavelet, which is lossy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """A compression that has changed values, or may have changed them.

    Attributes:
        name: the name of the compression.
        is_certain: whether it has certainly changed values. False if the file does not record this.
    """

    name: str
    is_certain: bool


def find_loss(content: bytes) -> Loss | None:
    """Return the lossy compression of WebP or JPEG 2000 data; None for lossless compression and for other formats."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return Loss(name="lossy WebP", is_certain=True) if b"VP8 " in _webp_chunks(content) else None
    start = content.find(START_OF_CODESTREAM)
    if start < 0:
        return None
    # Each segment begins with a marker of two bytes and its length, which does not include the marker.
    offset = start + 2
    while (length := int.from_bytes(content[offset + 2 : offset + 4], "big")) > 0:
        if content[offset : offset + 2] == CODING_STYLE:
            return Loss(name="JPEG 2000", is_certain=content[offset + TRANSFORM : offset + TRANSFORM + 1] == b"\0")
        offset += 2 + length
    return Loss(name="JPEG 2000", is_certain=False)


def _webp_chunks(content: bytes) -> set[bytes]:
    """Return the names of the chunks of a WebP file."""
    names, offset = set(), 12  # after the header "RIFF", the size and "WEBP"
    while name := content[offset : offset + 4]:
        names.add(name)
        length = int.from_bytes(content[offset + 4 : offset + 8], "little")
        offset += 8 + length + length % 2  # chunks are padded to an even length
    return names
