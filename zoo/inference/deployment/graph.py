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
    """The cost of one call of a graph.

    Attributes:
        flops: the FLOPs of convolutions and matrix products; a multiply-add counts as two (`torch.utils.flop_counter`).
        written: the bytes of all tensors that the operations create; views are not counted.
        operations: the number of operations that create a tensor.
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
    """Operations without side effects that compute a model's output from an image of one shape, type and device.

    The `meta["val"]` of a node is a fake tensor with the shape, type and device of the node's result.
    """

    def __init__(self, module: fx.GraphModule, made: int = 0) -> None:
        self.module = module
        self._made = made
        (image,) = module.graph.find_nodes(op="placeholder")
        self._fake = image.meta["val"].fake_mode

    @property
    def nodes(self) -> list[fx.Node]:
        """Return a list of the current nodes, in the order in which they run."""
        return list(self.module.graph.nodes)

    def calls(self, *targets: Callable[..., Any]) -> Iterator[fx.Node]:
        """Yield the nodes that call one of these operations and whose result is used.

        Nodes may be replaced during the iteration.
        """
        for node in self.nodes:
            if is_call(node, *targets) and node.users:
                yield node

    def constant(self, node: Any) -> Tensor | None:
        """Return the constant tensor of a node; None if the argument is not a node or its tensor is computed."""
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return None
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(self.module.get_submodule(owner), name)
        return value.detach() if isinstance(value, Tensor) else None

    def add_constant(self, tensor: Tensor, before: fx.Node) -> fx.Node:
        """Insert a node for a constant tensor before the node `before`, and return the new node."""
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
        """Insert a node that calls an operation before the node `before`, and return the new node.

        Args:
            target: the operation.
            args: the arguments of the operation, with nodes in place of tensors.
            before: the node that the new one precedes. The new node counts as part of the submodule of `before`.
            like: a node whose result has the same shape and type as that of the new node. If it is None, the operation is run
                on fake tensors to find them.
        """
        with self.module.graph.inserting_before(before):
            node = self.module.graph.call_function(target, args)
        node.meta["nn_module_stack"] = before.meta.get("nn_module_stack", {})
        node.meta["val"] = like.meta["val"] if like is not None else self._run_on_fakes(target, args)
        return node

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Make all users of the node `old` use the node `new` instead. The next `tidy` removes `old`."""
        old.replace_all_uses_with(new)

    def copy(self) -> Graph:
        """Return a copy of the graph that shares its tensors."""
        return Graph(fx.GraphModule(self.module, copy.deepcopy(self.module.graph)), made=self._made)

    def to_channels_last(self) -> None:
        """Convert the weights of convolutions to channels-last memory. Other graphs that share the weights are not changed."""
        for node in self.module.graph.find_nodes(op="get_attr"):
            held = self.constant(node)
            if held is not None and held.ndim == 4 and any(is_call(user, *_CONVOLUTIONS) for user in node.users):
                self.replace(node, self.add_constant(held.contiguous(memory_format=torch.channels_last), node))
        self.tidy()

    def to_type(self, dtype: torch.dtype) -> None:
        """Make the graph compute in the floating-point type `dtype`.

        The weights are cast now. In each call, the image is cast to `dtype`, and the output is cast back to its original type.
        """
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
        """Return the cost of one call, which depends only on the shapes."""
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
    """Runs a graph on fake tensors. It counts the operations that create a tensor, and the bytes of these tensors."""

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

    The operations are PyTorch's ATen operations, captured by `torch.export`. The graph shares the model's parameters.

    Raises:
        InputError: the model does not return exactly one tensor.
        Exception: any error that `torch.export` raises for a model that it cannot capture.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation warnings from the model's code or from PyTorch
        module = torch.export.export(model, (image,), strict=False).run_decompositions({}).module()
    graph = module.graph
    for node in graph.find_nodes(op="call_module"):
        if str(node.target) == "_guards_fn":  # this check of the shape is not needed: a graph is used for one shape only
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
    """Return whether a node calls one of these operations."""
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
    """Return an argument of a call, positional or by keyword; the default if the call does not pass it."""
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return two numbers, one for each axis, for an argument of a layer (such as its stride). A single number is repeated."""
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return (numbers[0], numbers[-1])


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [each for each in value if isinstance(each, Tensor)] if isinstance(value, list | tuple) else []
