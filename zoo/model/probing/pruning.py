"""Find the parameters that receive no gradient from the outputs, and remove them from an encoder."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice

from torch import Tensor, nn

from zoo.model.probing.measurement import META_SIZES, REAL_SIZES, leaves, preserve_state, run, set_modes
from zoo.registry.image_sizes import Size

__all__ = ["prune_unused", "unused_parameters"]

SIZES: dict[bool, tuple[Size, ...]] = {
    True: (META_SIZES[0][0], META_SIZES[0][0][::-1], META_SIZES[1][0], (32, 48)),
    False: (REAL_SIZES[0][0], REAL_SIZES[0][0][::-1], REAL_SIZES[1][0], (32, 48)),
}
"""The image sizes for running an encoder on the meta device (True) and on tensors with values (False).

There are several sizes, because a forward may branch on the image's shape.
"""


def prune_unused(encoder: nn.Module, in_channels: int, image_size: Size | None = None) -> nn.Module:
    """Return the encoder without its unused parameters: in train and in eval mode, they receive no gradient from its maps.

    Args:
        encoder: a module that returns a list of maps.
        in_channels: the number of channels of the encoder's images.
        image_size: the (H, W) of an encoder that takes images of a single size.
    """
    called: set[str] = set()
    ran: list[tuple[Size, bool]] = []
    all_names = [name for name, _ in encoder.named_parameters()]
    unused = all_names
    with preserve_state(encoder):
        for training in (False, True):
            set_modes(encoder, training=training)
            runs = _runs(encoder, in_channels, image_size, called)
            for where, maps, stand_ins in islice(runs, 1) if training else runs:
                ran.append(where)
                still = set(unused_parameters(encoder, maps, stand_ins))
                unused = [name for name in unused if name in still]
    if not unused or unused == all_names:
        return encoder
    lighter = _drop_parameters(encoder, unused, called)
    size, on_meta = ran[0]
    try:
        with preserve_state(lighter):
            run(lighter, size, in_channels, on_meta=on_meta)
    except Exception:  # noqa: BLE001 (the encoder reads an attribute of a submodule that it does not call)
        return _drop_parameters(encoder, unused, {name for name, _ in encoder.named_modules()})
    return lighter


def _runs(
    encoder: nn.Module, in_channels: int, image_size: Size | None, called: set[str]
) -> Iterator[tuple[tuple[Size, bool], list[Tensor], dict[str, Tensor]]]:
    """For each size that the encoder accepts, yield (size, on_meta), the encoder's maps, and its parameters in this run.

    The encoder runs on tensors with values only if it accepts no size on the meta device. The paths of the submodules that the
    encoder calls are added to `called`.
    """
    for on_meta, sizes in SIZES.items():
        is_taken = False
        for size in sizes if image_size is None else (image_size,):
            try:
                with _note_calls(encoder, called):
                    maps, stand_ins = run(encoder, size, in_channels, on_meta=on_meta)
            except Exception:  # noqa: BLE001 (the encoder refuses this size or device; the next is tried)
                continue
            is_taken = True
            yield (size, on_meta), maps, stand_ins
        if is_taken:
            return


def unused_parameters(module: nn.Module, outputs: Iterable[Tensor], stand_ins: Mapping[str, Tensor] | None = None) -> list[str]:
    """Return the names of a module's parameters that receive no gradient from the outputs.

    Such parameters cost memory and time, and `DistributedDataParallel` waits for their gradients. They are found in
    autograd's graph of the run, without computing gradients. A gradient that happens to be zero counts as a gradient.

    Args:
        module: the module. A shared parameter is named once.
        outputs: the outputs of a run of the module with gradients enabled.
        stand_ins: a mapping from the name of each parameter to the tensor that replaced it in that run, as for
            `torch.func.functional_call`; None if the module ran with its own parameters.
    """
    reached = {id(leaf) for leaf in leaves(outputs)}
    used = module.named_parameters() if stand_ins is None else stand_ins.items()
    return [name for name, tensor in used if id(tensor) not in reached]


@contextmanager
def _note_calls(module: nn.Module, called: set[str]) -> Iterator[None]:
    """Collect the paths of the submodules that are called, in the set `called`."""
    handles = []
    try:
        for path, submodule in module.named_modules():
            if path:
                handles.append(submodule.register_forward_pre_hook(lambda *_, path=path: called.add(path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _drop_parameters(encoder: nn.Module, unused: Iterable[str], called: set[str]) -> nn.Module:
    """Return a copy of the encoder without the named parameters. It shares all other parameters.

    A submodule that is never called is replaced with the identity. A submodule that is called keeps the
    values of its named parameters as buffers.
    """
    dead = set(unused)
    # Only modules on the path to a change are copied, each once: the user's encoder must not change.
    top = _copy_shallowly(encoder)
    owned = {"": top}
    dropped: list[str] = []

    def own(path: str) -> nn.Module:
        """Return the copy of a submodule. The first call makes the copy, and inserts it into the copy of the parent."""
        if path not in owned:
            parent, _, name = path.rpartition(".")
            owned[path] = _copy_shallowly(top.get_submodule(path))
            own(parent)._modules[name] = owned[path]
        return owned[path]

    def is_idle(path: str) -> bool:
        """Return whether a submodule has no parameter in use, and neither it nor a module inside it is called."""
        held = {f"{path}.{name}" for name, _ in top.get_submodule(path).named_parameters(remove_duplicate=False)}
        return held <= dead and not any(f"{other}.".startswith(f"{path}.") for other in called)

    for full in sorted(dead):
        if any(full.startswith(f"{path}.") for path in dropped):
            continue
        path, _, name = full.rpartition(".")
        steps = path.split(".")
        # The outermost idle ancestor is replaced as a whole. Its other parameters, which follow in sorted order, are skipped.
        idle = [above for above in (".".join(steps[: end + 1]) for end in range(len(steps))) if above and is_idle(above)]
        if idle:
            parent, _, step = idle[0].rpartition(".")
            own(parent)._modules[step] = nn.Identity()
            dropped.append(idle[0])
        else:
            # The forward reads this value, but the value receives no gradient. As a buffer, it is kept and not optimized.
            module = own(path)
            value = module._parameters.pop(name)
            module.register_buffer(name, None if value is None else value.detach())
    return top


def _copy_shallowly(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    for name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
        twin.__dict__[name] = copy.copy(module.__dict__[name])
    return twin
