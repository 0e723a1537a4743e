"""A model's forward pass as a graph of tensor operations for images of one shape."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from zoo.errors import InputError

__all__ = ["Cost", "Graph", "argument", "capture", "input_of", "is_call", "pair", "place_of", "shape_of"]


_CONVOLUTIONS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding, torch.ops.aten.conv_transpose2d.input)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one call computes and writes.

    Attributes:
        flops: of products, two a multiplication and addition (`torch.utils.flop_counter`).
        written: bytes of the tensors that are made on the way.
        operations: how many make a tensor.
    """

    flops: int
    written: int
    operations: int

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            flops=self.flops - other.flops,
            written=self.written - other.written,
            operations=self.operations - other.operations,
        )


class Graph:
    """Operations, all without side effects, that make a model's output from an image of one shape, type and device.

    A node's `meta["val"]` is a fake tensor of the shape, type and device of what it gives.
    """

    def __init__(self, module: fx.GraphModule, made: int = 0) -> None:
        self.module = module
        self._made = made
        (image,) = module.graph.find_nodes(op="placeholder")
        self._fake = image.meta["val"].fake_mode

    @property
    def nodes(self) -> list[fx.Node]:
        """Return the nodes in the order in which they run, as they are now."""
        return list(self.module.graph.nodes)

    def calls(self, *targets: Callable[..., Any]) -> Iterator[fx.Node]:
        """Yield the nodes that call one of these operations and whose outcome is used, also while nodes are replaced."""
        for node in self.nodes:
            if is_call(node, *targets) and node.users:
                yield node

    def constant(self, node: Any) -> Tensor | None:
        """Return the tensor that a node holds; None if it is computed, or not a node."""
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return None
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(self.module.get_submodule(owner), name)
        return value.detach() if isinstance(value, Tensor) else None

    def add_constant(self, tensor: Tensor, before: fx.Node) -> fx.Node:
        """Return a new node, before another, that holds this tensor."""
        self._made += 1
        name = f"made_{self._made}"
        self.module.register_buffer(name, tensor)
        with self.module.graph.inserting_before(before):
            node = self.module.graph.get_attr(name)
        if not tensor.is_mkldnn:
            node.meta["val"] = self._fake.from_tensor(tensor, static_shapes=True)
        return node

    def add_call(
        self, target: Callable[..., Any], args: tuple[Any, ...], before: fx.Node, like: fx.Node | None = None
    ) -> fx.Node:
        """Return a new node, before another, that calls an operation.

        Args:
            target: the operation.
            args: as it takes them; nodes stand for tensors.
            before: the node that it is inserted before, and whose place in the model it takes.
            like: a node that gives the same shape and type; where there is none, the operation is run on fake tensors.
        """
        with self.module.graph.inserting_before(before):
            node = self.module.graph.call_function(target, args)
        node.meta["nn_module_stack"] = before.meta.get("nn_module_stack", {})
        node.meta["val"] = like.meta["val"] if like is not None else self._run_on_fakes(target, args)
        return node

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Let the users of one node use another; the next `tidy` removes the first."""
        old.replace_all_uses_with(new)

    def copy(self) -> Graph:
        """Return a copy of the graph that shares the tensors."""
        return Graph(fx.GraphModule(self.module, copy.deepcopy(self.module.graph)), made=self._made)

    def to_channels_last(self) -> None:
        """Bring the weights of convolutions into channels-last memory; those of other graphs stay as they are."""
        for node in self.module.graph.find_nodes(op="get_attr"):
            held = self.constant(node)
            if held is not None and held.ndim == 4 and any(is_call(user, *_CONVOLUTIONS) for user in node.users):
                self.replace(node, self.add_constant(held.contiguous(memory_format=torch.channels_last), node))
        self.tidy()

    def to_type(self, dtype: torch.dtype) -> None:
        """Compute in another floating-point type. Weights are cast now, the image in each call; the output keeps its type."""
        (image,) = self.module.graph.find_nodes(op="placeholder")
        output = self.module.graph.output_node()
        (result,) = output.args
        assert isinstance(result, fx.Node)
        usual = image.meta["val"].dtype
        for node in self.module.graph.find_nodes(op="get_attr"):
            held = self.constant(node)
            if held is not None and held.dtype == usual:
                self.replace(node, self.add_constant(held.to(dtype), node))
        cast = self.add_call(torch.ops.aten.to.dtype, (image, dtype), image.next)
        image.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)
        output.args = (self.add_call(torch.ops.aten.to.dtype, (result, usual), output, like=result),)
        self.tidy()

    def tidy(self) -> None:
        """Drop nodes and constants that nothing uses, and regenerate the code."""
        graph = self.module.graph
        graph.eliminate_dead_code()
        used = {str(node.target) for node in graph.find_nodes(op="get_attr")}
        for name in [name for name, _ in (*self.module.named_buffers(), *self.module.named_parameters())]:
            if name not in used:
                owner, _, last = name.rpartition(".")
                delattr(self.module.get_submodule(owner), last)
        graph.lint()
        self.module.recompile()

    def cost(self) -> Cost:
        """Return what one call computes and writes, by the shapes alone."""
        with self._fake, FlopCounterMode(display=False) as counter:
            ran = _OnFakes(self.module)
            ran.run(*(node.meta["val"] for node in self.module.graph.find_nodes(op="placeholder")))
        return Cost(flops=counter.get_total_flops(), written=ran.written, operations=ran.operations)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the output for an image of the shape, type and device that the graph was made for."""
        output: Tensor = self.module(image)
        return output

    def _run_on_fakes(self, target: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        with self._fake:
            return target(*fx.node.map_arg(args, lambda each: each.meta["val"]))


class _OnFakes(fx.Interpreter):
    """Runs a graph on fake tensors, and adds up what is written."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.written = self.operations = 0

    def run_node(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return node.meta["val"]
        value = super().run_node(node)
        if node.op == "call_function":
            made = [each for each in _tensors(value) if not each._is_view()]
            self.written += sum(each.numel() * each.element_size() for each in made)
            self.operations += bool(made)
        return value


def capture(model: nn.Module, image: Tensor) -> Graph:
    """Return the graph of a model in evaluation mode for images of this shape, type and device.

    The operations are PyTorch's (ATen), as `torch.export` finds them. The graph shares the model's parameters.

    Raises:
        InputError: the model gives something else than one tensor.
        Exception: whatever `torch.export` raises for a model that it cannot read.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is deprecated in a model's code, or in PyTorch's own
        module = torch.export.export(model, (image,), strict=False).run_decompositions({}).module()
    graph = module.graph
    for node in graph.find_nodes(op="call_module"):
        if str(node.target) == "_guards_fn":  # it checks the shape, and a graph is kept by the shape it is for
            graph.erase_node(node)
    output = graph.output_node()
    result = output.args[0]
    if isinstance(result, list | tuple):
        if len(result) != 1:
            raise InputError(f"deploy takes a model that returns one tensor; {type(model).__name__} returns {len(result)}.")
        output.args = (result[0],)
    graph.set_codegen(fx.graph.CodeGen())
    fake = next(iter(graph.find_nodes(op="placeholder"))).meta["val"].fake_mode
    for node in graph.find_nodes(op="get_attr"):
        owner, _, name = str(node.target).rpartition(".")
        node.meta["val"] = fake.from_tensor(getattr(module.get_submodule(owner), name), static_shapes=True)
    captured = Graph(fx.GraphModule(module, graph))
    captured.tidy()
    return captured


def is_call(node: Any, *targets: Callable[..., Any]) -> bool:
    """Whether a node calls one of these operations."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def place_of(node: fx.Node) -> str:
    """Return the name of the submodule that a node belongs to, such as "decoder.blocks.0.conv1"."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values() if path]
    return paths[-1] if paths else node.name


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor."""
    return tuple(node.meta["val"].shape)


def input_of(node: fx.Node) -> fx.Node:
    """Return the node of an operation's first argument."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def argument(node: fx.Node, index: int, name: str, default: Any = None) -> Any:
    """Return a call's argument, positional or by name, or its default."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return both numbers of an argument such as a stride, which may be one for both axes."""
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return (numbers[0], numbers[-1])


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [each for each in value if isinstance(each, Tensor)] if isinstance(value, list | tuple) else []
