"""Checks for both encoders and decoders: determinism, no state between calls, training, and building without side effects."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from zoo.common.format_names import format_names
from zoo.errors import ZooError
from zoo.model.norm_errors import is_of_single_values
from zoo.model.probing.measurement import leaves
from zoo.testing.report import Finding, NotApplicable
from zoo.testing.snapshots import difference, distance, same, scale, snapshot, state_of
from zoo.testing.subject import Subject, factory_of, on_meta_or_real
from zoo.testing.surroundings import make_generator

__all__ = ["MODULE_CHECKS"]


def eval_is_deterministic(subject: Subject) -> None:
    """In eval mode, the module returns the same output for the same input, bit for bit, whatever the random state is."""
    module = subject.module
    with torch.no_grad():
        first = subject.outputs(module, subject.inputs())
        second = [entry.clone() for entry in first]
        torch.rand(1)
        again = _run_unseeded(subject, module)
    if not same(second, again):
        raise Finding(
            expected="the same output, bit for bit, for the same input twice in eval mode",
            found=f"outputs that differ by up to {distance(second, again)}",
            remedy="use no random numbers in eval mode (check self.training, or use torch.nn's own dropout)",
        )


def eval_keeps_no_state(subject: Subject) -> None:
    """A forward pass in eval mode changes no later output, no parameter, no buffer and no attribute."""
    module = subject.module
    with torch.no_grad():
        weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        first = [entry.clone() for entry in subject.outputs(module, subject.inputs())]
        before = {**snapshot(module), **weights}  # buffers may be computed and stored in the first call
        subject.outputs(module, subject.inputs(3, other=True, seed=1))
        after = snapshot(module)
        again = subject.outputs(module, subject.inputs())
    if not same(first, again):
        raise Finding(
            expected="the same output for the same input, after a call with an input of a different size and batch",
            found=f"outputs that differ by up to {distance(first, again)}: the module keeps state between calls",
            remedy="store nothing between calls; compute everything that depends on the input in each call",
        )
    if changed := difference(before, after):
        raise Finding(
            expected="parameters, buffers and attributes that forward passes in eval mode do not change",
            found=f"changed: {format_names(changed)}",
            remedy="use local variables; a module that stores tensors of a call occupies their memory and cannot be exported",
        )


def inputs_are_not_modified(subject: Subject) -> None:
    """A forward pass does not change its input, in train mode and in eval mode, since another branch may need the input too."""
    for module in (subject.module, subject.trainee):
        given = subject.inputs()
        expected = [entry.clone() for entry in given]
        with torch.no_grad():
            subject.outputs(module, given)
        if not same(expected, given):
            raise Finding(
                expected="a forward pass that does not change its input",
                found="an input tensor was changed in place" + (" in train mode" if module.training else ""),
                remedy="apply no in-place operation (add_, relu_, inplace=True) to an input; create a new tensor first",
            )


def batch_is_kept(subject: Subject) -> None:
    """In eval mode, each output has an entry for each image of the batch, and no entry depends on the other images."""
    with torch.no_grad():
        whole = subject.outputs(subject.module, subject.inputs(3))
        for batch in (1, 2):
            part = subject.outputs(subject.module, [entry[:batch] for entry in subject.inputs(3)])
            expected = [(batch, *entry.shape[1:]) for entry in whole]
            found = [tuple(entry.shape) for entry in part]
            if found != expected:
                raise Finding(
                    expected=f"shapes {expected} for a batch of {batch}, as for a batch of 3 (N, C, h, w)",
                    found=str(found),
                    remedy="preserve the first axis; reshape with x.shape[0] or flatten(1), never with a constant batch size",
                )
            if not all(
                torch.allclose(one, many[:batch], rtol=1e-3, atol=1e-3 * scale(many))
                for one, many in zip(part, whole, strict=True)
            ):
                raise Finding(
                    expected="the same map for an image in eval mode, whatever other images are in its batch",
                    found=f"values for a batch of {batch} that differ from those of the same images in a batch of 3",
                    remedy="let no operation mix values along the first axis, except a norm in train mode",
                )


def gradients_are_finite(subject: Subject) -> None:
    """After a backward pass in train mode, the gradient of every parameter that has a gradient is finite."""
    module = subject.trainee
    module.zero_grad(set_to_none=True)
    backward(subject.outputs(module, subject.inputs()))
    bad = [name for name, entry in module.named_parameters() if entry.grad is not None and not entry.grad.isfinite().all()]
    if bad:
        raise Finding(
            expected="finite gradients, with random weights and random inputs",
            found=f"NaN or infinite gradients of {format_names(bad)}",
            remedy="look for a division, log or sqrt at 0 and add an epsilon",
        )


def train_mode_gives_what_eval_mode_gives(subject: Subject) -> None:
    """In train mode, the outputs have the same shapes and the gradients reach the same maps and parameters as in eval mode."""
    expected, reached_in_eval = _shapes_and_reach(subject, subject.module)
    found, reached = _shapes_and_reach(subject, subject.trainee)
    if found != expected:
        raise Finding(
            expected=f"the shapes {expected} in train mode, as in eval mode",
            found=str(found),
            remedy="return the same shapes in both modes, since the decoder or the head is built for them; return a decoder's "
            "coarser maps for deep supervision from forward_aux",
        )
    if missing := [name for name in reached_in_eval if name not in reached]:
        raise Finding(
            expected="gradients that reach the same maps and parameters in train mode as in eval mode",
            found=f"none for {format_names(missing)}",
            remedy="do not detach tensors or enter torch.no_grad() in train mode only; to freeze parameters, set requires_grad",
        )


def training_takes_a_batch_of_one(subject: Subject) -> None:
    """In train mode, a batch of one image either works or is refused with a message that says what to do.

    A norm's ValueError about a single value per channel is allowed as well, because `SegmentationModel` adds the name of the
    layer and the remedies to the message of this error.
    """
    try:
        backward(subject.outputs(subject.trainee, subject.inputs(1, other=True)))
    except ZooError:
        return
    except ValueError as cause:
        if not is_of_single_values(cause):
            raise


def building_twice_gives_the_same(subject: Subject) -> None:
    """Two modules that are built with the same seed have the same weights, whatever was built between them."""
    first = state_of(subject.build())  # a module that has not run: a forward pass may fill in buffers
    on_meta_or_real(lambda _: subject.build_differently())
    second = state_of(subject.build())
    if changed := difference(first, second):
        raise Finding(
            expected="the same names, shapes and values from the same seed, after a different module was built",
            found=f"differing: {format_names(changed)}",
            remedy="let the factory depend only on its arguments: use no list or dict as a default value, change no class "
            "attribute, and use PyTorch's random generator instead of your own",
        )


def options_are_not_edited(subject: Subject) -> None:
    """Building changes neither the options that are passed to the factory nor the factory's default values."""
    declared = {option.name: option.default for option in subject.entry.spec.options or ()}
    given = {name: _mutable(value) for name, value in {**declared, **subject.options}.items()}
    before, defaults = copy.deepcopy(given), _defaults(subject)
    on_meta_or_real(lambda _: subject.build(given))
    changed = [name for name in before if not same(before[name], given.get(name))]
    changed += [name for name, text in _defaults(subject).items() if text != defaults.get(name)]
    if changed or list(before) != list(given):
        raise Finding(
            expected="options and default values that the factory does not change",
            found=f"changed in place: {format_names(changed or given)}",
            remedy="copy a list or dict before changing it (list(channels), [*channels])",
        )


def registry_entry_is_not_edited(subject: Subject) -> None:
    """Building and running a module must not change its registry entry, because the next build uses the same entry."""
    with torch.no_grad():
        subject.outputs(getattr(subject.whole, subject.kind), subject.inputs())
    spec, (text, constants) = subject.entry.spec, subject.first_seen
    if repr(spec) != text or not same(constants, dict(spec.constants)):
        raise Finding(
            expected=f"the unchanged entry of the registry: {text}",
            found=repr(spec),
            remedy="copy the values in the spec's constants, options and needs before changing them",
        )


def documentation_names_source_and_shapes(subject: Subject) -> None:
    """The spec names a source and a license, and the factory's docstring states the shapes."""
    spec = subject.entry.spec
    factory: Any = factory_of(subject.entry)
    factory = getattr(factory, "func", factory)  # the function in a functools.partial
    text = (factory.__doc__ or "") + (getattr(getattr(factory, "forward", None), "__doc__", "") or "")
    missing = [f"spec.{name} is empty" for name in ("source", "license") if not getattr(spec, name).strip()]
    if "Shapes" not in text and "(N," not in text:
        missing.append("the factory's docstring does not state the shapes")
    if missing:
        raise Finding(
            expected="source= (paper or repository), license= (an SPDX id), and a docstring that states the shapes",
            found="; ".join(missing),
            remedy="pass source= and license= to the spec, and write a line in the docstring such as "
            '"Shapes: (N, C, H, W) -> (N, out_channels, H, W)."',
        )


def backward(outputs: list[Tensor]) -> None:
    """Run a backward pass from a randomly weighted sum of all outputs.

    The weights are needed because the gradient of a plain sum may vanish in a norm in train mode.
    """
    loss = sum((entry * torch.randn(entry.shape, generator=make_generator(7))).sum() for entry in outputs)
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        raise NotApplicable("no output has a gradient, so there is nothing to train")
    loss.backward()  # type: ignore[no-untyped-call]


def _shapes_and_reach(subject: Subject, module: nn.Module) -> tuple[list[tuple[int, ...]], list[str]]:
    """Return the shapes of a module's outputs, and the names of what the outputs' gradients reach.

    The names are "the parameters", if any parameter is reached, and "map 1", ... for the input maps of a decoder.
    """
    given = [entry.requires_grad_(subject.kind == "decoder") for entry in subject.inputs()]
    outputs = subject.outputs(module, given)
    reached = {id(leaf) for leaf in leaves(outputs)}
    names = ["the parameters"] if any(id(entry) in reached for entry in module.parameters()) else []
    names += [f"map {index}" for index, entry in enumerate(given, start=1) if id(entry) in reached]
    return [tuple(entry.shape) for entry in outputs], names


def _run_unseeded(subject: Subject, module: nn.Module) -> list[Tensor]:
    """Run a module without setting the fixed seed that `subject.outputs` sets."""
    given = subject.inputs()
    output = module(given if subject.kind == "decoder" else given[0])
    return [output] if isinstance(output, Tensor) else list(output)


def _mutable(value: Any) -> Any:
    return [_mutable(entry) for entry in value] if isinstance(value, list | tuple) else copy.deepcopy(value)


def _defaults(subject: Subject) -> dict[str, str]:
    """Return the default values in the signature of the subject's factory, as text."""
    try:
        parameters = inspect.signature(factory_of(subject.entry)).parameters
    except (TypeError, ValueError):
        return {}
    return {f"the default of {name}": repr(entry.default) for name, entry in parameters.items()}


MODULE_CHECKS = (
    batch_is_kept,
    inputs_are_not_modified,
    eval_is_deterministic,
    eval_keeps_no_state,
    gradients_are_finite,
    train_mode_gives_what_eval_mode_gives,
    training_takes_a_batch_of_one,
    building_twice_gives_the_same,
    options_are_not_edited,
    registry_entry_is_not_edited,
    documentation_names_source_and_shapes,
)
