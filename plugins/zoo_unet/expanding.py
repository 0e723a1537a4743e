"""What every U-Net's decoder does, whatever its steps are: one step after the other, from the coarsest map to the finest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

import zoo

__all__ = ["ExpandingPath"]


class ExpandingPath(nn.Module):
    """Takes steps up, each joined by a skip where there is one (Ronneberger et al. 2015, arXiv:1505.04597).

    A subclass has the steps, modules of (map, skip or None), and `_skips`, each one's place among the features.

    Shapes: a list of maps (N, C_i, H/stride_i, W/stride_i), fine to coarse -> (N, out_channels, H, W).
    """

    _skips: tuple[int | None, ...]
    _checkpoints = False

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the map at the image's resolution: (N, out_channels, H, W)."""
        return self._decoded(features, None)  # no coarser map is held once it has served

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep no step's activations for the gradient, but compute them again (timm's name for it)."""
        self._checkpoints = enable

    def forward_aux(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the same, and each coarser step's map, the finest of these first: (N, aux_channels[i], H/2^(i+1), ...)."""
        maps: list[Tensor] = []
        finest = self._decoded(features, maps)
        return finest, maps[-2::-1]

    def _steps_up(self) -> Iterable[nn.Module]:
        """Return the steps, coarse to fine."""
        raise NotImplementedError

    def _coarsest(self, features: Sequence[Tensor]) -> Tensor:
        """Return what the first step takes."""
        return features[-1]

    def _decoded(self, features: Sequence[Tensor], maps: list[Tensor] | None) -> Tensor:
        """Return the finest step's map, and put each step's into a list, if there is one, coarse to fine."""
        x = self._coarsest(features)
        for step, skip in zip(self._steps_up(), self._skips, strict=True):
            taken = (x, None if skip is None else features[skip])
            x = zoo.plugin.checkpointed(step, *taken) if self._checkpoints and self.training else step(*taken)
            if maps is not None:
                maps.append(x)
        return x
