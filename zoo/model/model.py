"""The segmentation model: encoder, adapters, decoder and head, with logits at the input's own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.errors import InputError, PluginError
from zoo.model.adapters import build_adapters
from zoo.model.inputs import check_image, explain_mismatch, is_autocast
from zoo.model.layers.checkpointing import run_checkpointed
from zoo.model.layers.normalization import Normalization
from zoo.model.layers.resizing import is_open, pad_map, resize_map
from zoo.model.norm_errors import explain_single_values, is_of_single_values
from zoo.model.outputs import describe, is_map, wrong_map
from zoo.model.parameters import floating_dtype
from zoo.pairing.pairing import Pairing
from zoo.pairing.plan import Plan
from zoo.registry.licenses import Licenses
from zoo.registry.specs import Preprocessing

__all__ = ["SegmentationModel"]


class SegmentationModel(nn.Module):
    """An encoder and a decoder joined by a plan. The model returns logits at the input's own size.

    Shapes: `forward` takes (N, in_channels, H, W) for any H, W and returns (N, classes, H, W). In train mode with
    `aux_levels`, it returns a tuple of such tensors: the logits, and the auxiliary logits of each coarser map.

    Attributes:
        encoder: the module that returns the plan's feature maps, fine to coarse.
        adapters: one module for each input of the decoder; the identity if nothing is inserted.
        decoder: the module that turns the adapted maps into one map.
        head: the module that turns the decoder's map into logits.
        aux_heads: the heads for the decoder's coarser maps, finest first; empty without `aux_levels`.
        pairing: the ids of the encoder and the decoder, and the options of the build.
        plan: the map and the adapters for each input of the decoder, and the image sizes that the model accepts.
        preprocessing: the mean, std and value range that the weights in use expect.
        value_range: for each channel, the pixel values of files that become 0 and 1; None if integers are scaled by the range
            of their dtype and floats are not scaled.
        class_names: the names of the classes, in the order of the logits; empty if they are unknown.
        colors: the color of each class, for drawing masks; empty if they are unknown.
        has_one_class_per_pixel: whether the classes exclude each other. It is False if each class was trained separately, with
            a sigmoid. `zoo.Predictor` refuses a model for which it is False.
        licenses: the licenses of the encoder's and the decoder's code, and of the weights in use.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        head: nn.Module,
        plan: Plan,
        pairing: Pairing,
        licenses: Licenses = Licenses(),  # noqa: B008 - immutable
        aux_heads: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapters = nn.ModuleList(build_adapters(route.adapters) for route in plan.routes)
        self.decoder = decoder
        self.head = head
        self.aux_heads = nn.ModuleList(aux_heads)
        self.plan = plan
        self.pairing = pairing
        self.licenses = licenses
        self.encoder_weights = pairing.encoder_weights
        self.has_one_class_per_pixel = True
        self.value_range: tuple[tuple[float, float], ...] | None = None
        self.class_names: tuple[str, ...] = ()
        self.colors: tuple[tuple[int, int, int], ...] = ()
        preprocessing = getattr(encoder, "preprocessing", None)
        self.preprocessing: Preprocessing = preprocessing or Preprocessing.identity(pairing.in_channels)
        self._sources = tuple(None if route.is_image else plan.maps.index(route.source.name) for route in plan.routes)
        channels = {route.source.name: route.source.channels for route in plan.routes if not route.is_image}
        self._map_channels = tuple(channels[name] for name in plan.maps)
        # a decoder that computes the logits itself need not declare out_channels
        self._decoder_channels: int = getattr(decoder, "out_channels", pairing.classes)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits of each pixel: (N, in_channels, H, W) -> (N, classes, H, W).

        In train mode with `aux_levels`, return a tuple of the logits and the auxiliary logits of each coarser map.

        Raises:
            InputError: the image does not have this shape or has no pixel, its size is refused by `size_policy`, or its dtype
                or device is not that of the parameters (under autocast, float16, bfloat16 and float32 are all accepted). In
                train mode, this error is also raised if the batch is empty, or if a norm receives a single value per channel.
        """
        check_image(image, self, self.pairing)
        height, width = image.shape[-2:]
        sizes = self.plan.sizes
        fitted: tuple[str, tuple[int, int]]
        if is_open(height, width) and sizes.why_closed is None:
            fitted = sizes.fit_open(height, width, torch.sym_max)
        else:
            fitted = sizes.fit(height, width)
        done, target = fitted
        if done == "refuse":
            raise InputError(f"{self.pairing.encoder} x {self.pairing.decoder} takes {sizes.refusal(height, width)}")
        if done == "pad":
            image = pad_map(image, target[0] - height, target[1] - width)
        elif done == "resize":
            image = resize_map(image, target)
        try:
            found = self._logits(image)
        except ValueError as cause:
            if not is_of_single_values(cause):
                raise
            raise InputError(explain_single_values(self, self._logits, image)) from cause
        except RuntimeError as cause:
            problem = explain_mismatch(image, self, self.pairing)
            if problem is None:
                raise
            raise InputError(problem) from cause

        def resize_logits(logits: Tensor) -> Tensor:
            logits = resize_map(logits, image.shape[-2:])
            if done == "pad":
                return logits[..., :height, :width]
            return resize_map(logits, (height, width)) if done == "resize" else logits

        return tuple(map(resize_logits, found)) if isinstance(found, tuple) else resize_logits(found)

    def normalize(self, images: Tensor) -> Tensor:
        """Normalize images (N, in_channels, H, W) in 0 to 1 as the encoder's weights expect (see `preprocessing`)."""
        return Normalization(self.preprocessing).to(images.device)(images)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Return the name of the weights that the encoder received last."""
        return f"encoder weights: {self.encoder_weights}"

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        """Load weights, as `nn.Module` does, and show in the model's repr that weights were loaded."""
        found = super().load_state_dict(*args, **options)
        self.encoder_weights = "loaded"
        return found

    def _logits(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits at the resolution of the heads. The image must have a size that the encoder accepts."""
        maps = self._maps(image)
        sources = self._in_decoders_dtype([image if source is None else maps[source] for source in self._sources])
        inputs = [
            x if _does_nothing(adapter) else adapter(x)
            for adapter, x in zip(self.adapters._modules.values(), sources, strict=True)
        ]
        has_aux = self.training and len(self.aux_heads) > 0
        batch = image.shape[0]

        if not has_aux:
            return self._head_logits(self._check_decoded(self.decoder(inputs), batch), batch)
        found = self.decoder.forward_aux(inputs)  # type: ignore[operator]
        if not isinstance(found, tuple | list) or len(found) != 2 or not isinstance(found[1], tuple | list):
            raise PluginError(
                f"forward_aux of the decoder {self.pairing.decoder} must return the decoder's map and a list of coarser maps; "
                f"found {describe(found)}."
            )
        finest, coarser = found
        if len(coarser) < len(self.aux_heads):
            raise PluginError(
                f"forward_aux of the decoder {self.pairing.decoder} returned {len(coarser)} coarser maps, but "
                f"aux_levels requires {len(self.aux_heads)}. Return one map for each of its `aux_channels`."
            )
        aux = (self._aux_logits(head, x, batch) for head, x in zip(self.aux_heads, coarser, strict=False))
        return (self._head_logits(self._check_decoded(finest, batch), batch), *aux)

    def _maps(self, image: Tensor) -> Sequence[Tensor]:
        """Run the encoder, check its maps, and return them: one for each map of the plan, in the plan's order."""
        encoder, names = self.pairing.encoder, self.plan.maps
        is_checkpointed = self.training and self.pairing.gradient_checkpointing in ("encoder", "both")
        maps = run_checkpointed(self.encoder, image) if is_checkpointed else self.encoder(image)
        if not isinstance(maps, tuple | list) or len(maps) != len(names):
            found = len(maps) if isinstance(maps, tuple | list) else describe(maps)
            raise PluginError(
                f"The encoder {encoder} must return {len(names)} maps ({', '.join(names)}), "
                f"but returned {found}. Its forward must return exactly the maps that it was built for, in a list."
            )
        batch = image.shape[0]
        for name, channels, x in zip(names, self._map_channels, maps, strict=True):
            if not is_map(x, channels, batch):
                raise wrong_map(
                    x,
                    of=f"The encoder {encoder}, map {name!r},",
                    channels=channels,
                    batch=batch,
                    remedy="Its pyramid must declare the channels that forward returns.",
                )
        return maps

    def _in_decoders_dtype(self, maps: list[Tensor]) -> list[Tensor]:
        """Cast the maps to the decoder's dtype, since an encoder that mixes dtypes or uses autocast may return another dtype.

        Nothing is cast if the caller uses autocast, because each layer then casts its inputs.
        """
        dtype = floating_dtype(self.decoder) or floating_dtype(self.head)
        if dtype is None or all(x.dtype == dtype for x in maps):
            return maps
        if is_autocast(maps[0].device.type):
            return maps
        return [x.to(dtype) for x in maps]

    def _check_decoded(self, x: object, batch: int) -> Tensor:
        """Check the decoder's map, and return it."""
        if not is_map(x, self._decoder_channels, batch):
            raise wrong_map(
                x,
                of=f"The decoder {self.pairing.decoder}",
                channels=self._decoder_channels,
                batch=batch,
                remedy="Set out_channels in its __init__ to the number of channels that forward returns in both modes. A "
                "decoder that computes the logits itself (makes_logits=True) must return one channel for each class.",
            )
        return x  # type: ignore[return-value]

    def _head_logits(self, x: Tensor, batch: int) -> Tensor:
        """Run the head, check its logits, and return them."""
        logits: Tensor = self.head(x)
        if not is_map(logits, self.pairing.classes, batch):
            raise wrong_map(
                logits,
                of=f"The head of {self.pairing.decoder}",
                channels=self.pairing.classes,
                batch=batch,
                remedy="make_head(classes) must return a module whose output has one channel for each class. To change the "
                "number of classes, build a new model (classes=).",
            )
        return logits

    def _aux_logits(self, head: nn.Module, x: object, batch: int) -> Tensor:
        """Return the logits of one of the decoder's coarser maps."""
        if not is_map(x, channels := head.in_channels, batch):  # type: ignore[arg-type]
            of, remedy = f"forward_aux of the decoder {self.pairing.decoder}", "`aux_channels` must list the maps' channels."
            raise wrong_map(x, of=of, channels=channels, batch=batch, remedy=remedy)  # type: ignore[arg-type]
        logits: Tensor = head(x)
        return logits


def _does_nothing(module: nn.Module | None) -> bool:
    """Return whether a module is an identity without hooks, so that calling it would only take time."""
    return type(module) is nn.Identity and not (
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )
