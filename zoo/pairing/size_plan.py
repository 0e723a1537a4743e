"""What a model does with images of a size that its encoder does not accept. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from zoo.errors import OptionError
from zoo.registry.image_sizes import ImageSizes, Size, format_size

__all__ = ["SizePlan", "plan_sizes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizePlan:
    """What a model does with images of a size that its encoder does not accept.

    Attributes:
        policy: the `size_policy` of the pairing: "auto", "pad", "resize" or "error".
        sizes: the image sizes that need no padding or resizing, that is, those accepted by the encoder that is built for this
            plan. H and W must also be multiples of the coarsest stride in use, unless the encoder accepts only one size.
        image_size: the size that is passed to the encoder's factory; None if no size is passed.
        asked: the `image_size` of the pairing; None if the size may vary.
    """

    policy: str = "auto"
    sizes: ImageSizes = field(default_factory=ImageSizes)
    image_size: Size | None = None
    asked: Size | None = None

    def fit(self, height: int, width: int) -> tuple[Literal["as is", "pad", "resize", "refuse"], Size]:
        """Return what the model does with an image of this size, and the size of the image that the encoder then receives."""
        sizes = self.sizes
        if sizes.fixed is not None:
            target, larger = sizes.fixed, height > sizes.fixed[0] or width > sizes.fixed[1]
        else:
            target, larger = sizes.holding((height, width)), False
        if target == (height, width):
            return "as is", target
        if self.policy == "error" or (self.policy == "pad" and larger):
            return "refuse", target
        return ("resize" if self.policy == "resize" or larger else "pad"), target

    @property
    def why_closed(self) -> str | None:
        """The reason why a single exported graph cannot treat images of all sizes as the model does; None if it can."""
        if self.sizes.takes_any or self.policy == "resize":
            return None
        if self.sizes.fixed is not None:
            return (
                f"the encoder takes images of {format_size(self.sizes.fixed)} only, and what is done with other images "
                "depends on their size"
            )
        return "size_policy='error' refuses images of some sizes, which a graph cannot do" if self.policy == "error" else None

    def fit_open(self, height: int, width: int, larger: Callable[..., Any]) -> tuple[Literal["as is", "pad", "resize"], Size]:
        """Return what `fit` returns, but for an image whose size is symbolic, as during an export.

        Call this only if `why_closed` is None.

        A graph treats images of all sizes in the same way. So unless the encoder accepts every size, this never returns
        "as is": the graph pads or resizes even an image that already has the target size.

        Args:
            height: the symbolic height.
            width: the symbolic width.
            larger: `torch.sym_max`, which this torch-free module cannot import.
        """
        if self.sizes.takes_any:
            return "as is", (height, width)
        target = self.sizes.fixed or self.sizes.holding((height, width), larger)
        return ("resize" if self.policy == "resize" else "pad"), target

    def refusal(self, height: int, width: int) -> str:
        """Return the end of the message for a refused size: which sizes the model accepts, and how to accept other sizes."""
        takes = format_size(self.sizes.fixed) if self.sizes.fixed else str(self.sizes)
        if self.policy == "pad":
            takes = f"up to {takes}"
        advice = "size_policy='auto', which pads or resizes images"
        if self.sizes.adapts and self.asked is None:
            advice += ", or with image_size=(H, W), which builds the encoder for this size"
        return (
            f"images of {takes} (size_policy={self.policy!r}); found {height} x {width}. To accept other sizes, build the "
            f"model with {advice}."
        )

    @property
    def note(self) -> str:
        """A description of what the model does with images of each size, why, and at what cost."""
        notes = [self._describe_built_size(), self._describe_other_sizes()]
        return " ".join(note[0].upper() + note[1:] for note in notes if note)

    def _describe_built_size(self) -> str:
        if self.image_size is None:
            if self.asked is not None and self.sizes.fixed not in (None, self.asked):
                made_for = format_size(self.sizes.fixed)
                return f"image_size={format_size(self.asked)} changes nothing: the encoder is made for {made_for}."
            return ""
        text = f"the encoder is made for {format_size(self.image_size)}"
        if self.asked is not None and self.asked != self.image_size:
            text += (
                f", the smallest size for {format_size(self.asked)} ({_format_excess(self.image_size, self.asked)} more pixels)"
            )
        return text + "."

    def _describe_other_sizes(self) -> str:
        sizes, policy = self.sizes, f"(size_policy={self.policy!r})"
        padded = "padded on the right and at the bottom with zeros, and the logits are cropped"
        resized = "resized (bilinear), and the logits are resized back"
        if sizes.fixed is not None:
            where = f"an image that is not {format_size(sizes.fixed)}"
            if self.policy == "error":
                return f"{where} is refused {policy}."
            if self.policy == "pad":
                return f"a smaller image is {padded}; a larger one is refused {policy}."
            cost = f"every image costs as much as one of {format_size(sizes.fixed)}"
            can_adapt = sizes.adapts and self.asked is None
            way_out = ". To keep the detail of larger images, build with image_size=(H, W)" if can_adapt else ""
            if self.policy == "resize":
                return f"{where} is {resized} {policy}: {cost}{way_out}."
            return (
                f"a smaller image is {padded}; a larger one is {resized}, which loses detail {policy}. Once built, the encoder "
                f"accepts no other size, so {cost}{way_out}."
            )
        if sizes.takes_any:
            return "any H and W are accepted as they are."
        done = {"resize": resized, "error": "refused"}.get(self.policy, padded)
        where = f"if H or W is not a multiple of {sizes.multiple}"
        if sizes.minimum > sizes.multiple:
            where += f" or is below {sizes.holding((sizes.minimum, sizes.minimum))[0]}"
        if sizes.square:
            where += ", or if they differ"
        cost = ""
        if self.policy != "error":
            few = sizes.minimum <= sizes.multiple and not sizes.square
            count = f"up to {sizes.multiple - 1} more rows and columns" if few else "the added rows and columns are"
            cost = f": {count} to compute" if few else f": {count} computed as well"
        return f"{where}, the image is {done} {policy}{cost}."


def plan_sizes(sizes: ImageSizes, *, size_multiple: int, image_size: Size | None, policy: str) -> SizePlan:
    """Return the size plan of an encoder.

    Args:
        sizes: the image sizes that the encoder accepts.
        size_multiple: the number that H and W must be multiples of, so that every map has a whole number of pixels.
        image_size: the (H, W) of the images; None if the size may vary. An encoder that adapts to a size is built for the
            smallest possible size that is at least this size.
        policy: "auto", "pad", "resize" or "error".

    Raises:
        OptionError: the policy refuses `image_size`.
    """
    if sizes.fixed is None:
        sizes = replace(sizes, multiple=math.lcm(sizes.multiple, size_multiple))
    if image_size is None or not sizes.adapts:
        plan = SizePlan(policy=policy, sizes=sizes, asked=image_size)
    else:
        made_for = sizes.holding(image_size)
        built = replace(sizes, fixed=None if sizes.fixed is None else made_for)
        plan = SizePlan(policy=policy, sizes=built, image_size=made_for, asked=image_size)
    if image_size is not None and plan.fit(*image_size)[0] == "refuse":
        raise OptionError(f"image_size={format_size(image_size)} is refused: the model would take {plan.refusal(*image_size)}")
    return plan


def _format_excess(larger: Size, smaller: Size) -> str:
    return f"{larger[0] * larger[1] / (smaller[0] * smaller[1]) - 1:.0%}"
