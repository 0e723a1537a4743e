"""The licenses of a pairing's parts: the encoder's code, the decoder's, and the weights in use. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.registry.registry import Entry
from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["Licenses", "licenses_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Licenses:
    """The licenses of a model's parts, "" where a plugin states none.

    Attributes:
        encoder: of the encoder's code, as an SPDX id (`LicenseRef-...` for one that SPDX does not list).
        decoder: of the decoder's code.
        weights: of the pretrained weights in use; "" for random ones and for a file's.
    """

    encoder: str = ""
    decoder: str = ""
    weights: str = ""

    def __str__(self) -> str:
        """Each license once: the encoder's code, the decoder's, then the weights'."""
        code = dict.fromkeys(license or "not stated" for license in (self.encoder, self.decoder))
        return ", ".join(code) + (f"; weights: {self.weights}" if self.weights else "")


def licenses_of(encoder: Entry[EncoderSpec], decoder: Entry[DecoderSpec], weights: str | None) -> Licenses:
    """Return the licenses of a pairing of these two with the weights of this name."""
    spec = encoder.spec
    of_weights = spec.license_of_weights(weights)
    return Licenses(encoder=spec.license, decoder=decoder.spec.license, weights=of_weights)
