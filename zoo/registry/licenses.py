"""The licences of a pairing's parts: the encoder's code, the decoder's, and the weights in use. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.registry.registry import Entry
from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["Licences", "licences_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Licences:
    """The licences of a model's parts, "" where a plugin states none.

    Attributes:
        encoder: of the encoder's code, as an SPDX id (`LicenseRef-...` for one that SPDX does not list).
        decoder: of the decoder's code.
        weights: of the pretrained weights in use; "" for random ones and for a file's.
    """

    encoder: str = ""
    decoder: str = ""
    weights: str = ""

    def __str__(self) -> str:
        """Each licence once: the encoder's code, the decoder's, then the weights'."""
        code = dict.fromkeys(licence or "not stated" for licence in (self.encoder, self.decoder))
        return ", ".join(code) + (f"; weights: {self.weights}" if self.weights else "")


def licences_of(encoder: Entry[EncoderSpec], decoder: Entry[DecoderSpec], weights: str | None) -> Licences:
    """Return the licences of a pairing of these two with the weights of this name."""
    spec = encoder.spec
    of_weights = spec.licence_of_weights(weights)
    return Licences(encoder=spec.licence, decoder=decoder.spec.licence, weights=of_weights)
