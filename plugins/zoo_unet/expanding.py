"""The expanding path of every U-Net decoder: a sequence of steps from the coarsest map to the image's resolution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

import zoo

__all__ = ["ExpandingPath", "step_widths"]


class ExpandingPath(nn.Module):
    """A sequence of upsampling steps.

    If the pyramid has a map with the stride of a step's output, this map is the step's skip. The method is that of Ronneberger
    et al. 2015 (arXiv:1505.04597). A subclass builds the steps. Each step is a module that is called with a map, and with a
    skip or None. `_step_channels` contains the (in, skip, out) channels of each step.

    Shapes: a list of maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, out_channels, H, W).
    """

    _checkpoints = False

    def __init__(self, pyramid: zoo.plugin.Pyramid, channels: Sequence[int] | None) -> None:
        super().__init__()
        widths = step_widths(channels, pyramid[-1].level)
        index_of = {entry.level: index for index, entry in enumerate(pyramid)}
        # the index of each step's skip among the features; None for a level without a map
        self._skips = tuple(index_of.get(level) for level in range(pyramid[-1].level - 1, -1, -1))
        skip_channels = [0 if skip is None else pyramid[skip].channels for skip in self._skips]
        self._step_channels = tuple(zip([pyramid[-1].channels, *widths], skip_channels, widths, strict=False))
        self.out_channels = widths[-1]
        self.out_stride: float = 1
        self.aux_channels = tuple(reversed(widths[:-1]))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map at the image's resolution: (N, out_channels, H, W)."""
        return self._decode(features, None)  # no list keeps the coarser maps, so each is freed after the step that reads it

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each step's activations in the backward pass instead of storing them. With `enable` False, store them."""
        self._checkpoints = enable

    def forward_aux(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return two values: the map that `forward` returns, and the list of the coarser steps' maps, finest first.

        Shapes of the list: (N, aux_channels[i], H/2^(i+1), W/2^(i+1)).
        """
        maps: list[Tensor] = []
        finest = self._decode(features, maps)
        return finest, maps[-2::-1]

    def _steps_up(self) -> Iterable[nn.Module]:
        """Return the modules that upsample, coarse to fine: one for each entry of `_skips`."""
        raise NotImplementedError

    def _coarsest(self, features: Sequence[Tensor]) -> Tensor:
        """Return the input of the first (coarsest) step."""
        return features[-1]

    def _decode(self, features: Sequence[Tensor], maps: list[Tensor] | None) -> Tensor:
        """Return the finest step's map. If `maps` is a list, append the map of each step to it, coarse to fine."""
        x = self._coarsest(features)
        for step, skip in zip(self._steps_up(), self._skips, strict=True):
            inputs = (x, None if skip is None else features[skip])
            x = zoo.plugin.run_checkpointed(step, *inputs) if self._checkpoints and self.training else step(*inputs)
            if maps is not None:
                maps.append(x)
        return x


def step_widths(channels: Sequence[int] | None, num_steps: int) -> list[int]:
    """Return the number of output channels of each step, coarse to fine.

    If `channels` is None, each number is 16 times the stride of the step's output, at most 256.

    Raises:
        zoo.errors.OptionError: `channels` does not have one whole number of at least 1 for each step.
    """
    levels = range(num_steps - 1, -1, -1)
    if channels is None:
        return [min(256, 16 * 2**level) for level in levels]
    widths = list(channels) if isinstance(channels, Sequence) else [channels]
    if len(widths) != num_steps or not all(type(width) is int and width >= 1 for width in widths):
        strides = ", ".join(str(2**level) for level in levels)
        raise zoo.errors.OptionError(
            f"channels must be {num_steps} whole numbers of at least 1, for the maps at the strides {strides}, in this order; "
            f"found {channels!r}."
        )
    return widths
