"""smp's decoders with atrous spatial pyramid pooling: DeepLabV3 and DeepLabV3+."""

from __future__ import annotations

from collections.abc import Sequence

from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3Decoder, DeepLabV3PlusDecoder
from torch import Tensor, nn

import zoo
from zoo_smp.ladder import IMAGE, SmpHead, check_widths, finish, on_exact_ladder
from zoo_smp.listing import are_counts

__all__ = ["DeepLabV3", "DeepLabV3Plus"]

RATES = (12, 24, 36)


class DeepLabV3(SmpHead, DeepLabV3Decoder):  # type: ignore[misc]
    """smp's DeepLabV3 decoder (Chen et al. 2017, arXiv:1706.05587; segmentation_models_pytorch).

    Shapes: one map (N, C, H/stride, W/stride) in a list -> (N, channels, H/stride, W/stride).

    Args:
        pyramid: the `FeatureMap` of the only map, which has the output stride.
        channels: the number of channels of every branch and of the output.
        output_stride: the stride of the map that the decoder reads, 8 or 16. If the encoder supports dilated convolutions, it
            is built with them, so that this is the stride of its coarsest map.
        atrous_rates: the three dilation rates.
        separable: whether the branches use depthwise separable convolutions.
        dropout: the probability of the dropout that follows the joined branches during training.
        norm: "batch" or "group".
    """

    def __init__(
        self,
        pyramid: zoo.plugin.Pyramid,
        *,
        channels: int = 256,
        output_stride: int = 8,
        atrous_rates: Sequence[int] = RATES,
        separable: bool = False,
        dropout: float = 0.5,
        norm: str = "batch",
    ) -> None:
        check_widths(channels=channels)
        check_rates(atrous_rates)
        super().__init__(pyramid[-1].channels, channels, tuple(atrous_rates), separable, dropout)
        self.out_channels, self.out_stride = channels, pyramid[-1].stride
        finish(self, norm)


class DeepLabV3Plus(SmpHead, DeepLabV3PlusDecoder):  # type: ignore[misc]
    """smp's DeepLabV3+ decoder (Chen et al. 2018, arXiv:1802.02611; segmentation_models_pytorch).

    Shapes: two maps (N, C_i, H/stride_i, W/stride_i), fine and coarse -> (N, channels, H/stride_0, W/stride_0).

    Args:
        pyramid: the `FeatureMap` of each of the two maps. The fine map has stride 4; the stride of the coarse map is the
            output stride.
        channels: the number of channels of every branch and of the output.
        output_stride: the stride of the coarse map that the decoder reads, 8 or 16. If the encoder supports dilated
            convolutions, it is built with them, so that this is the stride of its coarsest map.
        atrous_rates: the three dilation rates.
        separable: whether the branches use depthwise separable convolutions.
        dropout: the probability of the dropout that follows the joined branches during training.
        norm: "batch" or "group".

    Raises:
        zoo.errors.OptionError: an option is invalid, or the pyramid has only one map, because the argument `levels` of
            `zoo.build` is too low.
    """

    def __init__(
        self,
        pyramid: zoo.plugin.Pyramid,
        *,
        channels: int = 256,
        output_stride: int = 16,
        atrous_rates: Sequence[int] = RATES,
        separable: bool = True,
        dropout: float = 0.5,
        norm: str = "batch",
    ) -> None:
        check_widths(channels=channels)
        check_rates(atrous_rates)
        if len(pyramid) != 2:
            raise zoo.errors.OptionError(
                "smp:deeplabv3plus joins a fine and a coarse map, but with this value of levels, only one map is left. "
                "Pass a larger value for levels."
            )
        fine, coarse = pyramid
        # the maps in the order of smp's encoders: the image, the map at stride 2, the fine map, the coarse map
        super().__init__(
            encoder_channels=[IMAGE, 0, fine.channels, coarse.channels],
            encoder_depth=3,
            out_channels=channels,
            atrous_rates=tuple(atrous_rates),
            output_stride=output_stride,
            aspp_separable=separable,
            aspp_dropout=dropout,
        )
        self._levels = (fine.level, coarse.level)
        self.up = nn.Upsample(scale_factor=2 ** (coarse.level - fine.level), mode="bilinear", align_corners=True)
        self.out_channels, self.out_stride = channels, fine.stride
        finish(self, norm)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map at the fine map's resolution: (N, channels, H/stride_0, W/stride_0)."""
        fine, coarse = on_exact_ladder(features, self._levels, self._levels[-1])
        return super().forward([fine, fine, fine, coarse])  # type: ignore[no-any-return]


def check_rates(atrous_rates: Sequence[int]) -> None:
    """Raise an OptionError unless the dilation rates are three whole numbers of at least 1."""
    rates = list(atrous_rates) if isinstance(atrous_rates, list | tuple) else [atrous_rates]
    if len(rates) != 3 or not are_counts(*rates):
        raise zoo.errors.OptionError(
            f"atrous_rates must be three whole numbers of at least 1, such as (12, 24, 36); found {atrous_rates!r}."
        )
