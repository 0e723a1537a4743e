"""Three U-Net decoders: a basic one, one with bilinear upsampling, and one with attention gates on the skips."""

from __future__ import annotations

from collections.abc import Iterator

import zoo

OPTIONS = (
    zoo.plugin.Option(
        name="channels",
        default=None,
        summary="width of each upsampling step, coarse to fine; by default 16 times the stride of the step's output, at most "
        "256 (256, 128, 64, 32, 16 for a pyramid of strides 2 to 32)",
    ),
    zoo.plugin.Option(
        name="norm",
        default="batch",
        summary="'batch', 'group' (8 channels per group, or one group if 8 does not divide them) or 'none'",
        choices=("batch", "group", "none"),
    ),
    zoo.plugin.Option(
        name="dropout", default=0.0, summary="share of the channels that are dropped after each upsampling step during training"
    ),
    zoo.plugin.Option(
        name="head_kernel_size", default=3, summary="kernel size of the convolution that computes the logits", choices=(3, 1)
    ),
)
RONNEBERGER = "Ronneberger et al. 2015, U-Net (arXiv:1505.04597)"


@zoo.plugin.hookimpl
def zoo_decoders() -> Iterator[zoo.plugin.DecoderSpec]:
    """Yield the three U-Nets."""
    for name, factory, source in (
        ("unet-basic", "UNetBasic", RONNEBERGER),
        ("unet-bilinear", "UNetBilinear", f"{RONNEBERGER}, with bilinear upsampling"),
        ("unet-attention", "UNetAttention", "Oktay et al. 2018, Attention U-Net (arXiv:1804.03999)"),
    ):
        yield zoo.plugin.DecoderSpec(
            name=name,
            factory=f"zoo_unet.decoders:{factory}",
            needs=zoo.Needs(min_levels=2),
            options=OPTIONS,
            out_stride=1,
            upsamples_learned=True,
            source=source,
            license="Apache-2.0",
        )
