"""The licenses of a pairing's parts: the encoder's code, the decoder's code and the weights in use. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.registry.registry import Entry
from zoo.registry.specs import DecoderSpec, EncoderSpec

__all__ = ["Licenses", "licenses_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Licenses:
    """The licenses of a model's parts. A license is "" if the plugin does not state one.

    Attributes:
        encoder: the license of the encoder's code, as an SPDX id (`LicenseRef-...` for a license that SPDX does not list).
        decoder: the license of the decoder's code, also as an SPDX id.
        weights: the license of the pretrained weights in use; "" for random weights and for weights from a file.
    """

    encoder: str = ""
    decoder: str = ""
    weights: str = ""

    def __str__(self) -> str:
        """Return the licenses as text: the licenses of the code without repetition, and then the license of the weights."""
        code = dict.fromkeys(license or "not stated" for license in (self.encoder, self.decoder))
        return ", ".join(code) + (f"; weights: {self.weights}" if self.weights else "")


def licenses_of(encoder: Entry[EncoderSpec], decoder: Entry[DecoderSpec], weights: str | None) -> Licenses:
    """Return the licenses of a pairing.

    Args:
        encoder: the encoder.
        decoder: the decoder.
        weights: the `weights` of the pairing: a name, a file's path, or None.
    """
    spec = encoder.spec
    of_weights = spec.license_of_weights(weights)
    return Licenses(encoder=spec.license, decoder=decoder.spec.license, weights=of_weights)
