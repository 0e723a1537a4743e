"""Encoders cut out of a module: a graph that computes only what its maps need, or the module itself with its maps recorded."""

from __future__ import annotations

import inspect
import operator
import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks

from zoo.errors import PluginError
from zoo.model.probing.measurement import Layout, as_map, attributes_kept, named_tensors, tokens_to_map

__all__ = ["Place", "RecordedEncoder", "Traced", "cut", "differing_scopes", "recorded", "trace"]

_ROOT = "module"  # where the traced module lies in the holder that is traced
_DEVICES = ("cpu", "cuda", "mps", "xpu")  # each with autocasting of its own
_IN_PLACE = {operator.setitem, operator.iadd, operator.isub, operator.imul, operator.itruediv}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a tensor appears in one call of a module: the submodule, which of its calls, and the key in what it returns."""

    path: str
    call: int
    key: str


@contextmanager
def recorded(module: nn.Module, paths: Iterable[str], put: Callable[[Place, Tensor], None]) -> Iterator[None]:
    """Tell `put` of each tensor that the submodules return, by temporary hooks that are gone afterwards."""
    calls: Counter[str] = Counter()

    def hook_of(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(submodule: nn.Module, arguments: Any, output: Any) -> None:
            calls[path] += 1
            for key, tensor in named_tensors(output):
                put(Place(path=path, call=calls[path], key=key), tensor)

        return hook

    handles = []
    try:
        for path in dict.fromkeys(paths):
            handles.append(module.get_submodule(path).register_forward_hook(hook_of(path)))  # noqa: PERF401 (removed if one fails)
        yield
    finally:
        for handle in handles:
            handle.remove()


class _AllFound(BaseException):
    """Ends a forward pass early; no `except Exception` in the module's code may take it for an error."""


@contextmanager
def _uncounted_calls() -> Iterator[None]:
    """Hide calls of modules from torch.export's tracer, which loses count of them where an exception ends several at once."""
    traced = nn.Module.__call__
    nn.Module.__call__ = nn.Module._call_impl  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__ = traced  # type: ignore[method-assign]


class RecordedEncoder(nn.Module):
    """A module that torch.fx cannot trace, run as it is up to its last map; the maps are what its submodules return.

    Hooks are on the submodules only while `forward` runs, and results in its locals; two threads must not run it at once.
    It pickles and copies where the module does. `torch.compile` leaves it eager, and `fullgraph=True` it cannot.
    `torch.export.export` with strict=False takes it where it takes the module up to its last map; with strict=True it cannot.
    """

    def __init__(self, module: nn.Module, places: Sequence[Place], layouts: Sequence[Layout]) -> None:
        super().__init__()
        self.module = module
        self.places = tuple(places)
        self.layouts = tuple(layouts)
        self.training = module.training

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps, NCHW, fine to coarse.

        Raises:
            PluginError: the module took a way on which one of the maps does not appear.
        """
        found: dict[Place, Tensor] = {}
        wanted = set(self.places)

        def put(place: Place, tensor: Tensor) -> None:
            if place in wanted:
                found[place] = tensor
                if len(found) == len(wanted):
                    raise _AllFound

        calls = _uncounted_calls() if torch.compiler.is_compiling() else nullcontext()
        with calls, recorded(self.module, (place.path for place in self.places), put), suppress(_AllFound):
            self.module(image)
        if missing := [place.path or f"output {place.key}" for place in self.places if place not in found]:
            raise PluginError(
                f"{type(self.module).__name__} gave no map at {', '.join(missing)} for an image of shape {tuple(image.shape)} "
                f"in {'train' if self.training else 'eval'} mode, and gave one when it was probed. Its forward must call the "
                "same submodules and return the same structure for every image and in both modes."
            )
        return [as_map(found[place], image, layout) for place, layout in zip(self.places, self.layouts, strict=True)]


@dataclass(slots=True, kw_only=True)
class Traced:
    """A module's whole graph, and the names that its values go by.

    Attributes:
        module: the graph with the modules it calls, shared with the traced one.
        names: (name, depth, node) as they were computed: depth 1 is what the module's own forward calls.
        scopes: the path of the module whose forward made the node.
        num_leaves: how many modules were kept whole.
        changing: the nodes that were seen to change what they are given.
    """

    module: fx.GraphModule
    names: list[tuple[str, int, fx.Node]] = field(default_factory=list)
    scopes: dict[fx.Node, str] = field(default_factory=dict)
    num_leaves: int = 0
    changing: set[fx.Node] = field(default_factory=set)

    def returned(self) -> dict[str, fx.Node]:
        """Return the nodes that the module itself returns, by their keys."""
        found: dict[str, fx.Node] = {}

        def collect(value: Any, name: str) -> None:
            if isinstance(value, fx.Node) and value.op == "call_function" and isinstance(value.target, type):
                # a named tuple or a dataclass, which fx makes by calling its class
                collect(value.kwargs if is_dataclass(value.target) else value.args, name)
            elif isinstance(value, fx.Node):
                found[name] = value
            elif isinstance(value, dict | list | tuple):
                for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                    collect(item, f"{name}.{key}" if name else str(key))

        collect(self.module.graph.output_node().args[0], "")
        return found


class _Holder(nn.Module):
    """Calls the module as a user does, and takes the constants that fx would put on it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor) -> Any:
        return self.module(image)


class _UntraceableError(Exception):
    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class _Surroundings:
    """What a context changes and a graph does not record: gradients, inference mode, autocasting, saved tensors' hooks."""

    def __init__(self) -> None:
        self._is_outermost = False
        self.hooks = saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        self._is_outermost = True
        return tensor

    def now(self) -> tuple[object, ...]:
        """Return the state; `hooks` must be entered, so that others (gradient checkpointing has some) are seen to hide them."""
        nesting = torch.autocast_increment_nesting()  # an autocast that is not enabled counts: it turns an outer one off
        torch.autocast_decrement_nesting()
        autocast = [(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in _DEVICES]
        self._is_outermost = False
        with torch.inference_mode(False), torch.enable_grad():
            torch.ones((), requires_grad=True).exp()
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), nesting, autocast, self._is_outermost


class _Proxy(fx.Proxy):
    """Refuses attributes that are set on it (`self.weight.data = ...`): a graph would leave them out."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in ("tracer", "node"):
            raise TypeError(f"a graph does not record that .{name} is set")
        object.__setattr__(self, name, value)


def _is_opaque(module: nn.Module) -> bool:
    """Whether a graph would leave out what a module does besides its forward: hooks, and a `train` of its own.

    That of torchvision's feature extractors switches between two graphs, which are compared.
    """
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    has_own_train = type(module).train is not nn.Module.train and not isinstance(module, fx.GraphModule)
    return any(hooks) or has_own_train


class _Tracer(fx.Tracer):
    """Records a module's graph, but for modules whose own forward enters a context: a graph would leave the context out."""

    proxy_buffer_attributes = True  # else what a forward computes from its buffers alone would become a constant

    def __init__(self, leaves: set[str], surroundings: _Surroundings) -> None:
        super().__init__()
        self.leaves = leaves
        self.surroundings = surroundings
        self.entered = [(_ROOT, surroundings.now())]  # the modules whose forward runs, and the state when it began
        self.named: list[tuple[str, int, fx.Node]] = []
        self.scopes: dict[fx.Node, str] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name == _ROOT:
            return False
        return _is_opaque(m) or module_qualified_name in self.leaves or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self.path_of_module(m)
        self._check_surroundings()
        self.entered.append((path, self.surroundings.now()))
        try:
            returned = super().call_module(m, forward, args, kwargs)
        except _UntraceableError:
            raise
        except Exception as cause:
            raise _UntraceableError(path) from cause
        finally:
            self.entered.pop()
        if isinstance(returned, fx.Proxy) and path != _ROOT and not self.is_leaf_module(m, path):
            self.named.append((path, path.count("."), returned.node))
        return returned

    def _check_surroundings(self) -> None:
        path, state = self.entered[-1]
        if self.surroundings.now() != state:
            raise _UntraceableError(path)

    def create_proxy(self, kind: str, *arguments: Any, **keywords: Any) -> fx.Proxy:
        self._check_surroundings()
        proxy = super().create_proxy(kind, *arguments, **keywords)
        node, scope = proxy.node, self.scope.module_path
        self.scopes[node] = scope
        if kind == "call_module":
            self.named.append((str(node.target), scope.count("."), node))
        elif kind.startswith("call_"):
            self.named.append((f"{scope}.{node.name}", scope.count(".") + 1, node))
        return proxy

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_arg(self, a: Any) -> Any:
        if isinstance(a, Tensor) and a.requires_grad and not isinstance(a, nn.Parameter):
            raise TypeError("a value computed from parameters outside the graph would become a constant")
        return super().create_arg(a)


def trace(module: nn.Module, leaves: set[str]) -> Traced | None:
    """Return the module's graph, or None where its own forward cannot be traced.

    A submodule that cannot be traced stays a module that the graph calls; it and those of its class are added to `leaves`.
    """
    if _is_opaque(module):
        return None
    paths = {f"{_ROOT}.{path}": submodule for path, submodule in module.named_modules() if path}
    while True:
        holder = _Holder(module)
        surroundings = _Surroundings()
        random_states = _random_states()
        try:
            with surroundings.hooks, attributes_kept(module):
                tracer = _Tracer(leaves, surroundings)
                graph = tracer.trace(holder)
        except _UntraceableError as error:
            if error.path not in paths or error.path in leaves:
                return None
            leaves |= {path for path, submodule in paths.items() if type(submodule) is type(paths[error.path])}
            continue
        except Exception:  # noqa: BLE001 (whatever the module's code makes of a proxy: it then runs as it is)
            return None
        if _random_states() != random_states:
            return None  # something was drawn, and would be the same in every call
        names = _unique(tracer.named)
        return Traced(module=fx.GraphModule(holder, graph), names=names, scopes=tracer.scopes, num_leaves=len(leaves))


def _random_states() -> tuple[Any, ...]:
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), pickle.dumps(np.random.get_state())


def _unique(named: list[tuple[str, int, fx.Node]]) -> list[tuple[str, int, fx.Node]]:
    seen: Counter[str] = Counter()
    unique = []
    for path, depth, node in named:
        name = path.removeprefix(f"{_ROOT}.")
        unique.append((f"{name}_{seen[name]}" if seen[name] else name, depth, node))
        seen[name] += 1
    return unique


def _needed(traced: Traced, chosen: Iterable[fx.Node], *, are_returned: bool) -> list[fx.Node]:
    """Return the image and what the chosen nodes are computed from, in-place changes to it and to buffers included.

    Where the module itself returns the chosen ones, what changes them afterwards is included as well.
    """
    graph, needed = traced.module.graph, set(chosen)
    for node in reversed(graph.nodes):
        if node.op == "output":
            continue
        is_in_place = node in traced.changing or _is_in_place(node)
        changed = _changed(node) if is_in_place and (are_returned or _before(node, needed)) else set()
        if node in needed or changed & needed or any(each.op == "get_attr" for each in changed):
            needed |= {node, *node.all_input_nodes}
    return [node for node in graph.nodes if node in needed or node.op == "placeholder"]


def _is_in_place(node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(node.graph.owning_module.get_submodule(str(node.target)), "inplace", False))  # type: ignore[union-attr]
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    called = node.op in ("call_function", "call_method")
    return called and (node.target in _IN_PLACE or _is_told_in_place(node) or (name[-1:] == "_" and name[-2:] != "__"))


def _is_told_in_place(node: fx.Node) -> bool:
    """Whether a function's argument `inplace`, by name or by position, is true."""
    if "inplace" in node.kwargs or not callable(node.target):
        return bool(node.kwargs.get("inplace"))
    try:
        return bool(inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments.get("inplace"))
    except (TypeError, ValueError):  # a built-in without a signature
        return False


def _changed(node: fx.Node) -> set[fx.Node]:
    """Return what an in-place node changes: its first argument, and what that may be a view of."""
    changed = set()
    base = node.args[0] if node.args else None
    while isinstance(base, fx.Node) and base not in changed:
        changed.add(base)
        base = base.args[0] if base.op in ("call_function", "call_method") and base.args else None
    return changed


def _before(node: fx.Node, needed: set[fx.Node]) -> bool:
    return any(node < other for other in needed)


def cut(
    traced: Traced, nodes: Sequence[fx.Node], layouts: Sequence[Layout], original: nn.Module, *, are_returned: bool
) -> fx.GraphModule:
    """Return a plain graph module that gives just these nodes, NCHW, and holds just what they need.

    Its modules are the original's own, under their own names; containers are new.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    root = nn.Module()
    targets = []
    for node in _needed(traced, nodes, are_returned=are_returned):
        copies[node] = graph.node_copy(node, lambda other: copies[other])
        if node.op in ("get_attr", "call_module"):
            targets.append(str(node.target))
            copies[node].target = targets[-1].removeprefix(f"{_ROOT}.")
    for target in sorted(targets, key=len):  # a module before what is read from inside it
        _place(root, target.removeprefix(f"{_ROOT}."), operator.attrgetter(target)(traced.module))
    image = next(node for node in graph.nodes if node.op == "placeholder")
    maps = []
    for node, layout in zip(nodes, layouts, strict=True):
        x = copies[node]
        if layout.tokens is not None:
            tokens = layout.tokens
            x = graph.call_function(tokens_to_map, (x, image, tokens.num_prefix_tokens, tokens.patch_size))
        elif layout.channels_last:
            x = graph.call_method("permute", (x, 0, 3, 1, 2))
        maps.append(x)
    graph.output(maps)
    encoder = fx.GraphModule(root, graph, class_name=f"{type(original).__name__}Encoder")
    originals = dict(original.named_modules())
    for path, submodule in encoder.named_modules():
        if path in originals and submodule is not originals[path]:  # a new container
            submodule.training = originals[path].training
    return encoder


def _place(root: nn.Module, target: str, value: Any) -> None:
    *path, name = target.split(".")
    for step in path:
        if not hasattr(root, step):
            root.add_module(step, nn.Module())
        root = getattr(root, step)
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter) and not hasattr(root, name):
        root.register_buffer(name, value)
    elif not hasattr(root, name):
        setattr(root, name, value)


def differing_scopes(
    first: Traced, firsts: Sequence[fx.Node], second: Traced, seconds: Sequence[fx.Node], *, are_returned: bool
) -> set[str] | None:
    """Return the paths of modules whose own code ran differently in two traces; None where they cannot be told."""
    one = _signatures(_needed(first, firsts, are_returned=are_returned), first.scopes)
    other = _signatures(_needed(second, seconds, are_returned=are_returned), second.scopes)
    if one == other:
        return set()
    scopes = {entry[0] for entry in [*one, *other]}
    differing = {scope for scope in scopes if [e[:4] for e in one if e[0] == scope] != [e[:4] for e in other if e[0] == scope]}
    return differing if differing and not differing & {"", _ROOT} else None


def _signatures(nodes: Sequence[fx.Node], scopes: Mapping[fx.Node, str]) -> list[tuple[str, str, str, str, tuple[int, ...]]]:
    index = {node: number for number, node in enumerate(nodes)}
    signatures = []
    for node in nodes:
        constants = fx.node.map_arg((node.args, node.kwargs), lambda _: None)
        inputs = tuple(index[other] for other in node.all_input_nodes)
        signatures.append((scopes.get(node, ""), node.op, str(node.target), repr(constants), inputs))
    return signatures
