"""The model: encoder, plan's adapters, decoder, head, at the input's own size; and `build`, which makes it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.adapters import build_adapters
from zoo.batch_norms import is_for_want_of_values, told_want_of_values
from zoo.checkpointing import checkpointed
from zoo.errors import InputError, OptionError, PluginError, ZooError
from zoo.licences import Licences, licences_of
from zoo.pairing import Pairing
from zoo.plan import Plan
from zoo.planning import EncoderLike, Resolved, asked, resolve
from zoo.recomputation import recomputed_activations
from zoo.registry import Entry
from zoo.specs import DecoderSpec, EncoderSpec, Factory, Preprocessing

__all__ = ["SegmentationModel", "build", "build_pairing"]


class SegmentationModel(nn.Module):
    """An encoder and a decoder joined by a plan; gives logits at the input's own size.

    Shapes: `forward` takes (N, in_channels, H, W) for any H, W and returns (N, classes, H, W); with `aux_levels`, in train
    mode, a tuple of such: the logits, and those of each coarser map.

    Attributes:
        encoder: returns the plan's maps, fine to coarse.
        adapters: one module a decoder input; the identity where nothing is inserted.
        decoder: the maps in, one map out.
        head: the decoder's map in, logits out.
        aux_heads: the same for the decoder's coarser maps, the finest of these first; empty but with `aux_levels`.
        pairing: what was asked for.
        plan: what the negotiation made of it.
        preprocessing: mean, std and value range of the weights in use.
        class_names: in the order of the logits; empty where nobody said.
        colours: one a class, to draw masks with; empty likewise.
        licences: of the encoder's and the decoder's code, and of the weights in use.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        head: nn.Module,
        plan: Plan,
        pairing: Pairing,
        licences: Licences = Licences(),  # noqa: B008 - a frozen fact
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
        self.licences = licences
        self.class_names: tuple[str, ...] = ()
        self.colours: tuple[tuple[int, int, int], ...] = ()
        preprocessing = getattr(encoder, "preprocessing", None)
        self.preprocessing: Preprocessing = preprocessing or Preprocessing.identity(pairing.in_channels)
        self._sources = tuple(plan.maps.index(route.source.name) for route in plan.routes)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits of each pixel: (N, in_channels, H, W) -> (N, classes, H, W); auxiliary ones in train mode beside.

        Raises:
            InputError: the tensor is not of that shape, its size is refused under `size_policy="error"`, or, in train mode,
                batch and size leave a norm a single value a channel.
        """
        self._check(image)
        height, width = image.shape[-2:]
        done, (fitted_height, fitted_width) = self.plan.sizes.fit(height, width)
        if done == "refuse":
            raise InputError(f"{self.pairing.encoder} x {self.pairing.decoder} takes {self.plan.sizes.refusal(height, width)}")
        if done == "pad":
            image = F.pad(image, (0, fitted_width - width, 0, fitted_height - height))
        elif done == "resize":
            image = F.interpolate(image, size=(fitted_height, fitted_width), mode="bilinear", align_corners=False)
        try:
            found = self._logits(image)
        except ValueError as cause:
            if not is_for_want_of_values(cause):
                raise
            raise InputError(told_want_of_values(self, cause, tuple(image.shape))) from cause

        def sized(logits: Tensor) -> Tensor:
            if logits.shape[-2:] != image.shape[-2:]:
                logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
            if done == "resize":
                return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
            return logits[..., :height, :width]

        return tuple(map(sized, found)) if isinstance(found, tuple) else sized(found)

    def save(
        self, folder: str | PathLike[str], *, classes: Sequence[str] = (), metrics: Mapping[str, Any] | None = None
    ) -> Path:
        """Save the model as a folder that `zoo.load` reads: weights as safetensors, `config.yaml`, and a model card.

        A saved model that is there already is replaced; whenever this is interrupted, the folder holds the one or the other.

        Args:
            folder: a new one, an empty one, or a saved model's.
            classes: their names; by default those that the model has.
            metrics: plain data about how good it is, for the card.

        Raises:
            OptionError: the encoder is a module of yours, which no id names, or there are other than `classes` names.
            ConfigError: the folder holds other files.
        """
        save_model = importlib.import_module("zoo.saving").save_model  # above this module, which knows nothing of files
        place: Path = save_model(self, folder, classes=classes, metrics=metrics)
        return place

    def push_to_hub(
        self,
        repository: str,
        *,
        classes: Sequence[str] = (),
        metrics: Mapping[str, Any] | None = None,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        commit_message: str = "Push a model",
    ) -> str:
        """Save the model as `save` does, and upload it to the Hugging Face hub in one commit, for `zoo.load("hf-hub:...")`.

        Args:
            repository: OWNER/NAME; made if it is not there.
            classes: as for `save`.
            metrics: as for `save`.
            private: whether a repository that is made is private; None for the owner's default.
            token: that may write there; by default the one of `hf auth login` or the variable HF_TOKEN.
            branch: that it goes to, by default main.
            create_pr: as a pull request.
            commit_message: of the commit.

        Returns:
            The commit's URL.

        Raises:
            WeightsError: the hub cannot be reached, or refuses.
            OptionError: as `save`.
        """
        share = importlib.import_module("zoo.sharing").push_to_hub
        options = {"private": private, "token": token, "branch": branch, "create_pr": create_pr}
        url: str = share(self, repository, classes=classes, metrics=metrics, commit_message=commit_message, **options)
        return url

    @classmethod
    def from_pretrained(
        cls,
        place: str | PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> SegmentationModel:
        """Return the model that a folder or a repository holds, as `zoo.load` does.

        Args:
            place: a folder that `save` wrote, or OWNER/NAME on the Hugging Face hub.
            revision: a branch, a tag or a commit of the repository.
            token: for a private repository.
            cache_dir: where what is fetched is kept, if not where huggingface_hub does.
            force_download: fetch it even if it is kept.
            local_files_only: fetch nothing.

        Raises:
            ZooError: as `zoo.load`.
        """
        options = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "force_download": force_download,
            "local_files_only": local_files_only,
        }
        found: SegmentationModel = importlib.import_module("zoo.sharing").from_pretrained(place, **options)
        return found

    def _logits(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the heads' logits, at whatever resolution they give them, for an image of a size that the encoder takes."""
        maps = checkpointed(self.encoder, image) if self._is_checkpointed("encoder") else self.encoder(image)
        if len(maps) != len(self.plan.maps):
            raise PluginError(
                f"The encoder {self.pairing.encoder} was asked for {len(self.plan.maps)} maps ({', '.join(self.plan.maps)}) "
                f"and returned {len(maps)}; its forward must return just the maps it was built for."
            )
        inputs = [adapter(maps[source]) for adapter, source in zip(self.adapters, self._sources, strict=True)]
        has_aux = self.training and len(self.aux_heads) > 0

        with recomputed_activations(is_on=self.training and not self._is_checkpointed("decoder")):
            if not has_aux:
                logits: Tensor = self.head(self.decoder(inputs))
                return logits
            finest, coarser = self.decoder.forward_aux(inputs)  # type: ignore[operator]
            aux = (head(x) for head, x in zip(self.aux_heads, coarser, strict=False))
            return (self.head(finest), *aux)

    def _is_checkpointed(self, name: str) -> bool:
        return self.training and self.pairing.gradient_checkpointing in (name, "both")

    def _check(self, image: Tensor) -> None:
        channels = self.pairing.in_channels
        if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != channels:
            found = tuple(image.shape) if isinstance(image, Tensor) else repr(image)
            raise InputError(
                f"{self.pairing.encoder} x {self.pairing.decoder} takes images of shape (N, {channels}, H, W); "
                f"found {found}. Add the batch axis, or build with in_channels= as your images have."
            )

        if not image.is_floating_point():
            raise InputError(
                f"{self.pairing.encoder} x {self.pairing.decoder} takes floating-point images; found {image.dtype}. Bring them "
                "to model.preprocessing's value range, subtract its mean and divide by its std."
            )


def build(
    encoder: EncoderLike | Pairing,
    decoder: str | None = None,
    *,
    classes: int = 1,
    in_channels: int = 3,
    weights: str | PathLike[str] | None = None,
    levels: int | None = None,
    image_size: tuple[int, int] | None = None,
    adapters: str = "auto",
    size_policy: str = "auto",
    aux_levels: int = 0,
    gradient_checkpointing: str | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    decoder_options: Mapping[str, Any] | None = None,
) -> SegmentationModel:
    """Pair an encoder with a decoder; channels and strides are negotiated.

    Args:
        encoder: an encoder's id (`zoo list encoders`), or any `nn.Module` whose intermediate maps can be found: they are
            measured (`zoo.probe`), and the model shares the module's parameters and keeps its modes. Or a whole pairing
            (`zoo.Pairing.from_yaml(path)`), and nothing beside it.
        decoder: a decoder's id (`zoo list decoders`).
        classes: the number of logits a pixel gets.
        in_channels: the number of channels the image has.
        weights: None for random ones, a name the encoder knows ("imagenet"), "hf-hub:OWNER/NAME", or a file's path.
        levels: how many of the encoder's strides to use, counted from the finest; None for all.
        image_size: (H, W) that the model will see: an encoder that is made for one size is made for it (position
            embeddings, windows); the others work at any size, and it changes nothing. None where it may vary.
        adapters: "auto" inserts what the negotiation finds, "none" refuses to insert anything.
        size_policy: for images whose size the encoder cannot take as it is: "pad" them (and crop the logits), "resize" them
            (and the logits back), or "error"; "auto" pads where it can and resizes what is larger than the one size an
            encoder takes.
        aux_levels: how many of the decoder's coarser maps get a head of their own (deep supervision): in train mode the
            model returns a tuple, the logits and those of each such map, the finest first, all at the image's size.
        gradient_checkpointing: "encoder", "decoder" or "both": activations are computed again for the gradient in place of
            being kept, which takes time and saves memory in training; of the encoder as a whole, of a decoder step by step.
        encoder_options: keywords for the encoder.
        decoder_options: keywords for the decoder.

    Returns:
        A plain `nn.Module`: (N, in_channels, H, W) -> (N, classes, H, W), in train mode.

    Raises:
        ZooError: an unknown id or option, a plan that cannot be made, weights that do not fit, or a plugin that failed.

    Example:
        >>> model = zoo.build("resnet18", "unet-basic", classes=3)
    """
    options = {
        "classes": classes,
        "in_channels": in_channels,
        "weights": weights,
        "levels": levels,
        "image_size": image_size,
        "adapters": adapters,
        "size_policy": size_policy,
        "aux_levels": aux_levels,
        "gradient_checkpointing": gradient_checkpointing,
        "encoder_options": {} if encoder_options is None else encoder_options,
        "decoder_options": {} if decoder_options is None else decoder_options,
    }
    return _built(resolve(*asked(encoder, decoder, options)))


def build_pairing(
    pairing: Pairing, encoder: Entry[EncoderSpec] | None = None, decoder: Entry[DecoderSpec] | None = None
) -> SegmentationModel:
    """Build the model of a pairing; a side that is given is one that no registry knows. Raises as `build` does."""
    return _built(resolve(pairing, encoder, decoder))


def _built(resolved: Resolved) -> SegmentationModel:
    encoder = _encoder(resolved)
    decoder = _decoder(resolved)
    head = _head(decoder, resolved)
    aux_heads = _aux_heads(decoder, resolved)
    if resolved.pairing.gradient_checkpointing in ("decoder", "both"):
        _checkpoint_steps(decoder, resolved)
    licences = licences_of(resolved.encoder, resolved.decoder, resolved.pairing.weights)
    return SegmentationModel(encoder, decoder, head, resolved.plan, resolved.pairing, licences, aux_heads)


def _encoder(resolved: Resolved) -> nn.Module:
    pairing = resolved.pairing
    given = {"maps": resolved.plan.maps, "in_channels": pairing.in_channels, "weights": pairing.weights}
    if resolved.plan.sizes.image_size is not None:
        given["image_size"] = resolved.plan.sizes.image_size
    return _made(resolved.encoder, (), given, {**pairing.encoder_options, **resolved.plan.encoder_options})


def _decoder(resolved: Resolved) -> nn.Module:
    decoder = _made(resolved.decoder, (resolved.plan.pyramid,), {}, resolved.pairing.decoder_options)
    for name in ("out_channels", "out_stride"):
        value = getattr(decoder, name, None)
        if not isinstance(value, int | float) or value < 1:
            raise PluginError(
                f"The decoder {resolved.decoder.id} needs a number of at least 1 as `{name}`, and has {value!r}; "
                f"set self.{name} in its __init__, so that the head can be made for it."
            )
    return decoder


def _head(decoder: nn.Module, resolved: Resolved) -> nn.Module:
    classes = resolved.pairing.classes
    make_head = getattr(decoder, "make_head", None)
    if make_head is None:
        return _pointwise(int(decoder.out_channels), classes)  # type: ignore[arg-type]
    try:
        head = make_head(classes)
    except ZooError:
        raise
    except Exception as cause:
        raise PluginError(f"make_head of {resolved.decoder.full_id} raised {type(cause).__name__}: {cause}.") from cause
    if not isinstance(head, nn.Module):
        raise PluginError(f"make_head of the decoder {resolved.decoder.id} must return an nn.Module; found {head!r}.")
    return head


def _aux_heads(decoder: nn.Module, resolved: Resolved) -> list[nn.Module]:
    wanted, classes = resolved.pairing.aux_levels, resolved.pairing.classes
    if not wanted:
        return []
    widths = tuple(getattr(decoder, "aux_channels", ()))
    if len(widths) < wanted:
        has = f"has {len(widths)} coarser maps here" if widths else "gives no coarser maps (`aux_channels` and `forward_aux`)"
        raise OptionError(f"aux_levels={wanted}: the decoder {resolved.decoder.id} {has}.")
    return [_pointwise(width, classes) for width in widths[:wanted]]


def _pointwise(in_channels: int, classes: int) -> nn.Conv2d:
    """Return a 1x1 convolution without a bias to begin with (Glorot and Bengio 2010)."""
    head = nn.Conv2d(in_channels, classes, kernel_size=1)
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    return head


def _checkpoint_steps(decoder: nn.Module, resolved: Resolved) -> None:
    """Have a decoder keep its steps' inputs alone: as a whole it would hold all again when the backward pass begins."""
    switch = getattr(decoder, "set_grad_checkpointing", None)
    if switch is None:
        raise OptionError(
            f"gradient_checkpointing={resolved.pairing.gradient_checkpointing!r}: the decoder {resolved.decoder.id} has no "
            "steps to checkpoint (`set_grad_checkpointing`). Give 'encoder'."
        )
    switch(True)


def _made(
    entry: Entry[Any],
    arguments: tuple[Any, ...],
    given: dict[str, Any],
    options: Mapping[str, Any],
) -> nn.Module:
    """Call a plugin's factory; what it raises is the plugin's error, with its cause."""
    try:
        factory = _imported(entry.spec.factory)
    except Exception as cause:
        raise PluginError(
            f"The factory {entry.spec.factory!r} of {entry.full_id} could not be imported: {type(cause).__name__}: {cause}."
        ) from cause
    named = _keywords(factory, len(arguments))
    keywords = {**given, **entry.spec.constants}
    _check_accepted(entry, named, keywords, options)
    try:
        module = factory(*arguments, **keywords, **options)
    except ZooError:
        raise
    except Exception as cause:
        raise PluginError(
            f"The factory of {entry.full_id} raised {type(cause).__name__}: {cause} (options {dict(options)!r})."
        ) from cause
    if not isinstance(module, nn.Module):
        raise PluginError(f"The factory of {entry.full_id} must return a torch.nn.Module; found {module!r}.")
    return module


def _imported(factory: Factory) -> Any:
    if not isinstance(factory, str):
        return factory
    module_name, _, path = factory.partition(":")
    target: Any = importlib.import_module(module_name)
    for name in path.split("."):
        target = getattr(target, name)
    return target


def _keywords(factory: Any, num_arguments: int) -> dict[str, inspect.Parameter] | None:
    """Return a factory's parameters behind its positional arguments; None where it has no signature to read."""
    try:
        return dict(list(inspect.signature(factory).parameters.items())[num_arguments:])
    except (TypeError, ValueError):
        return None


def _check_accepted(
    entry: Entry[Any], named: dict[str, inspect.Parameter] | None, keywords: dict[str, Any], options: Mapping[str, Any]
) -> None:
    """Refuse an option that the factory has no keyword for, before it is called."""
    for name in options:
        if name in keywords:
            raise OptionError(f"{name!r} is no option of {entry.id}; zoo gives it itself.")
    if named is None or any(parameter.kind is parameter.VAR_KEYWORD for parameter in named.values()):
        return
    accepted = [name for name in named if name not in keywords]
    for name in options:
        if name not in accepted:
            raise OptionError(f"{entry.id} has no option {name!r}. Its options: {', '.join(accepted) or 'none'}.")
