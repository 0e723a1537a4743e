"""A pairing as YAML says it: typed, and every mistake named."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from zoo.common.configuration import Count, Size, Strict

__all__ = ["PairingFile", "PairingOptions"]


class PairingOptions(Strict):
    """An encoder, a decoder and their options, as `zoo.build` takes them, but for what the data decide."""

    encoder: str
    decoder: str
    weights: str | None = None
    levels: Count | None = None
    image_size: Size | None = None
    adapters: Literal["auto", "none"] = "auto"
    size_policy: Literal["auto", "pad", "resize", "error"] = "auto"
    aux_levels: Annotated[int, Field(ge=0)] = 0
    gradient_checkpointing: Literal["encoder", "decoder", "both"] | None = None
    encoder_options: dict[str, Any] = {}
    decoder_options: dict[str, Any] = {}


class PairingFile(PairingOptions):
    """A pairing for `zoo.build`: an encoder, a decoder, and options for them."""

    classes: Count = 1
    in_channels: Count = 3
