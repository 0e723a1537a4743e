"""The specs of smp's twelve decoders.

Each spec has the name of the decoder's class as text, so that torch is imported only when a decoder is built.
"""

from __future__ import annotations

import zoo

__all__ = ["DECODERS", "are_counts"]

SMP = "segmentation_models_pytorch"
MIT = "MIT"
BSD = "BSD-3-Clause"

CHANNELS = zoo.plugin.Option(
    name="channels",
    default=None,
    summary="width of each upsampling step, coarse to fine; by default 256, 128, 64, 32, 16 (with fewer steps, the first of "
    "these numbers are left out)",
)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
BOTH = (True, False)
NORMS = ("batch", "group")

NORM = zoo.plugin.Option(
    name="norm",
    default="batch",
    summary="'batch', or 'group' (8 channels per group, or one group if 8 does not divide them)",
    choices=NORMS,
)
ATTENTION = zoo.plugin.Option(name="attention", default=None, summary="None, or 'scse'", choices=(None, "scse"))
INTERPOLATION = "how a map is upsampled: 'nearest', 'bilinear' or 'bicubic'"
NEAREST = zoo.plugin.Option(name="interpolation", default="nearest", summary=INTERPOLATION, choices=INTERPOLATIONS)
BILINEAR = zoo.plugin.Option(name="interpolation", default="bilinear", summary=INTERPOLATION, choices=INTERPOLATIONS)
CENTER = zoo.plugin.Option(
    name="center",
    default=False,
    summary="whether two more convolutions are applied to the coarsest map (smp does so for VGG)",
    choices=BOTH,
)
RATES = zoo.plugin.Option(name="atrous_rates", default=(12, 24, 36), summary="the three dilation rates")
DROPOUT = "dropout probability during training"

STEPWISE = zoo.Needs(min_levels=2, finest_stride=2)


def are_counts(*values: object) -> bool:
    """Return whether all values are whole numbers of at least 1, which is required of channel counts and dilation rates."""
    return all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in values)


def _width(default: int) -> zoo.plugin.Option:
    return zoo.plugin.Option(name="channels", default=default, summary="number of output channels")


def _separable(default: bool) -> zoo.plugin.Option:
    summary = "whether the branches use depthwise separable convolutions"
    return zoo.plugin.Option(name="separable", default=default, summary=summary, choices=BOTH)


def _dropout(default: float) -> zoo.plugin.Option:
    return zoo.plugin.Option(name="dropout", default=default, summary=DROPOUT)


def _output_stride(default: int, choices: tuple[int, ...], summary: str) -> zoo.plugin.Option:
    return zoo.plugin.Option(name="output_stride", default=default, summary=summary, choices=choices)


def _deeplabv3(output_stride: int = 8, **_: object) -> zoo.Needs:
    return zoo.Needs(strides=(output_stride,), output_stride=output_stride)


def _deeplabv3plus(output_stride: int = 16, **_: object) -> zoo.Needs:
    return zoo.Needs(strides=(4, output_stride), min_levels=1, output_stride=output_stride)


def _pan(output_stride: int = 16, **_: object) -> zoo.Needs:
    if output_stride == 32:
        return zoo.Needs(strides=(4, 8, 16, 32), min_levels=2)
    return zoo.Needs(min_levels=2, max_levels=4, distinct_strides=False, finest_stride=2, output_stride=16)


def _dpt(intermediate_channels: object = (256, 512, 1024, 1024), **_: object) -> zoo.Needs:
    widths = intermediate_channels if isinstance(intermediate_channels, list | tuple) else ()
    if not widths or not are_counts(*widths):
        raise zoo.errors.OptionError(
            "intermediate_channels of smp:dpt must be a list of whole numbers of at least 1, one for each map; "
            f"found {intermediate_channels!r}."
        )
    return zoo.Needs(min_levels=len(widths), max_levels=len(widths), distinct_strides=False, finest_stride=2)


DECODERS = (
    zoo.plugin.DecoderSpec(
        name="unet",
        factory="zoo_smp.unet:Unet",
        needs=STEPWISE,
        options=(
            CHANNELS,
            zoo.plugin.Option(
                name="norm",
                default="batch",
                summary="'batch', 'group' (8 channels per group, or one group if 8 does not divide them) or 'none'",
                choices=(*NORMS, "none"),
            ),
            ATTENTION,
            NEAREST,
            CENTER,
        ),
        out_stride=1,
        upsamples_learned=True,
        source=f"Ronneberger et al. 2015, U-Net (arXiv:1505.04597), as implemented in {SMP}",
        license="Apache-2.0",
    ),
    zoo.plugin.DecoderSpec(
        name="unetplusplus",
        factory="zoo_smp.stepwise:UnetPlusPlus",
        needs=STEPWISE,
        options=(CHANNELS, NORM, ATTENTION, NEAREST, CENTER),
        out_stride=1,
        upsamples_learned=True,
        source=f"Zhou et al. 2018, UNet++ (arXiv:1807.10165); {SMP}",
        license=MIT,
    ),
    zoo.plugin.DecoderSpec(
        name="manet",
        factory="zoo_smp.stepwise:MAnet",
        needs=STEPWISE,
        options=(
            CHANNELS,
            NORM,
            zoo.plugin.Option(name="pab_channels", default=64, summary="width of the position-wise attention"),
            NEAREST,
        ),
        out_stride=1,
        upsamples_learned=True,
        source=f"Fan et al. 2020, MA-Net (IEEE Access 8); {SMP}",
        license=MIT,
    ),
    zoo.plugin.DecoderSpec(
        name="linknet",
        factory="zoo_smp.stepwise:Linknet",
        needs=STEPWISE,
        options=(NORM,),
        out_stride=1,
        upsamples_learned=True,
        source=f"Chaurasia and Culurciello 2017, LinkNet (arXiv:1707.03718); {SMP}",
        license=MIT,
    ),
    zoo.plugin.DecoderSpec(
        name="fpn",
        factory="zoo_smp.fusing:FPN",
        needs=zoo.Needs(min_levels=2, max_levels=4, finest_stride=2),
        options=(
            zoo.plugin.Option(name="channels", default=256, summary="width of the decoder's own pyramid"),
            zoo.plugin.Option(name="segmentation_channels", default=128, summary="width of each level's branch"),
            zoo.plugin.Option(
                name="merge", default="add", summary="how the branches are joined: 'add' or 'cat'", choices=("add", "cat")
            ),
            _dropout(0.2),
            NEAREST,
        ),
        source=f"Kirillov et al. 2019, Panoptic Feature Pyramid Networks (arXiv:1901.02446); {SMP}",
        license=MIT,
    ),
    zoo.plugin.DecoderSpec(
        name="pspnet",
        factory="zoo_smp.pooled:PSPNet",
        needs=zoo.Needs(strides=(8,)),
        options=(_width(512), NORM, _dropout(0.2)),
        source=f"Zhao et al. 2017, Pyramid Scene Parsing Network (arXiv:1612.01105); {SMP}",
        license=MIT,
    ),
    zoo.plugin.DecoderSpec(
        name="pan",
        factory="zoo_smp.fusing:PAN",
        needs=_pan,
        options=(
            _width(32),
            _output_stride(16, (16, 32), "16 (by dilating the encoder, if it supports this) or 32"),
            BILINEAR,
            NORM,
        ),
        source=f"Li et al. 2018, Pyramid Attention Network (arXiv:1805.10180); {SMP}",
        license=MIT,
    ),
    zoo.plugin.DecoderSpec(
        name="deeplabv3",
        factory="zoo_smp.atrous:DeepLabV3",
        needs=_deeplabv3,
        options=(
            _width(256),
            _output_stride(8, (8, 16), "8 or 16, by dilating the encoder, if it supports this"),
            RATES,
            _separable(False),
            _dropout(0.5),
            NORM,
        ),
        source=f"Chen et al. 2017, DeepLabV3 (arXiv:1706.05587); {SMP}",
        license=BSD,
    ),
    zoo.plugin.DecoderSpec(
        name="deeplabv3plus",
        factory="zoo_smp.atrous:DeepLabV3Plus",
        needs=_deeplabv3plus,
        options=(
            _width(256),
            _output_stride(16, (8, 16), "8 or 16, by dilating the encoder, if it supports this"),
            RATES,
            _separable(True),
            _dropout(0.5),
            NORM,
        ),
        source=f"Chen et al. 2018, DeepLabV3+ (arXiv:1802.02611); {SMP}",
        license=BSD,
    ),
    zoo.plugin.DecoderSpec(
        name="upernet",
        factory="zoo_smp.pooled:UPerNet",
        needs=zoo.Needs(strides=(4, 8, 16, 32), min_levels=2),
        options=(_width(256), NORM),
        source=f"Xiao et al. 2018, Unified Perceptual Parsing (arXiv:1807.10221); {SMP}",
        license=MIT,
    ),
    zoo.plugin.DecoderSpec(
        name="segformer",
        factory="zoo_smp.fusing:Segformer",
        needs=STEPWISE,
        options=(_width(256), NORM),
        source=f"Xie et al. 2021, SegFormer (arXiv:2105.15203); {SMP}",
        license=MIT,
    ),
    zoo.plugin.DecoderSpec(
        name="dpt",
        factory="zoo_smp.fusing:DPT",
        needs=_dpt,
        options=(
            zoo.plugin.Option(
                name="channels", default=256, summary="width at which the levels are fused, and number of output channels"
            ),
            zoo.plugin.Option(
                name="intermediate_channels",
                default=(256, 512, 1024, 1024),
                summary="widths of the maps before they are fused; the decoder uses one map for each width",
            ),
            zoo.plugin.Option(
                name="readout",
                default="ignore",
                summary="'ignore', or 'cat' for one more linear layer on each map",
                choices=("ignore", "cat"),
            ),
            NORM,
        ),
        source=f"Ranftl et al. 2021, Vision Transformers for Dense Prediction (arXiv:2103.13413); {SMP}",
        license=MIT,
    ),
)
