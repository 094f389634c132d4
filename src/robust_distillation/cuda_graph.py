"""Captures a repeated GPU computation as a CUDA graph and replays it.

Starting the kernels one by one costs the CPU more time than the kernels of a small network need on the GPU. A graph
starts the same kernels at once, so it computes the same bits.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

WARMUP_CALLS = 2  # calls with each set of shapes that are not captured: in the first ones, libraries set themselves up


class GraphReplay:
    """Caller of one repeated GPU computation: captures it as a CUDA graph and replays the graph in later calls.

    An instance is called as `replay(function, *args)` and returns a tensor equal to `function(*args)`. An instance
    serves one computation: the functions of all calls must compute the same, such as one step of an attack. `function`
    may be another object in each call.

    The first two calls with the same shapes and dtypes of tensors run the function. The third captures a graph and
    replays it, and later ones replay it. There is one graph for each combination of shapes and dtypes. Only the values
    of the tensors may differ between replays: they are copied into the inputs of the graph. If any other argument
    changes, or a value that the function refers to (see `held_values`), all graphs are discarded and captured anew.

    The returned tensor belongs to the graph: the next call overwrites it. Clone it to keep it. If the first tensor of
    the arguments is not on a CUDA device, the function is called and nothing is captured.
    """

    def __init__(self) -> None:
        """Creates a caller without any graph."""
        self.constants: list[Any] = []
        self.calls: dict[tuple, int] = {}
        self.graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, function: Callable[..., Tensor], *args: Any) -> Tensor:
        """Calls a function or replays its CUDA graph.

        Args:
            function: maps the arguments to a tensor. It must not refer to tensors other than its arguments and the
                parameters and buffers of modules.
            *args: tensors, tuples and dataclasses that contain tensors, and other values. They contain one tensor at
                least.

        Returns:
            The result of `function(*args)`. After a replay the next call overwrites it.

        Raises:
            HeldTensorError: on a GPU, if the function refers to another tensor.
        """
        tensors, constants = split_tensors(args)
        if not tensors[0].is_cuda:
            return function(*args)
        constants += held_values(function)
        if constants != self.constants:
            self.constants, self.calls, self.graphs = constants, {}, {}
        key = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        self.calls[key] = self.calls.get(key, 0) + 1
        if self.calls[key] <= WARMUP_CALLS:
            return function(*args)
        if key not in self.graphs:
            self.graphs[key] = self._capture(function, args, tensors)
        graph, inputs, result = self.graphs[key]
        for kept, tensor in zip(inputs, tensors, strict=True):
            kept.copy_(tensor)
        graph.replay()
        return result

    def _capture(
        self, function: Callable[..., Tensor], args: tuple, tensors: list[Tensor]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        """Returns the graph, its inputs and its result."""
        inputs, graph = [tensor.detach().clone() for tensor in tensors], torch.cuda.CUDAGraph()
        with torch.cuda.device(inputs[0].device), torch.cuda.graph(graph):  # it captures the current device alone
            result = function(*join_tensors(args, iter(inputs)))
        return graph, inputs, result


def split_tensors(value: Any) -> tuple[list[Tensor], list[Any]]:
    """Splits a value that contains tensors into the tensors and the other values.

    Args:
        value: a tensor, a tuple or a dataclass instance, nested to any depth, or any other value. Lists and dicts count
            as other values and are not searched for tensors.

    Returns:
        The tensors and the other values, two lists, each in the order in which the elements of the tuples and the
        fields of the dataclasses occur. For example `(x, (y, 5))` gives `([x, y], [5])`.
    """
    if isinstance(value, Tensor):
        return [value], []
    if is_dataclass(value):
        value = tuple(getattr(value, field.name) for field in fields(value))
    if not isinstance(value, tuple):
        return [], [value]
    parts = [split_tensors(part) for part in value]
    return [tensor for tensors, _ in parts for tensor in tensors], [other for _, others in parts for other in others]


def join_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Rebuilds a value with other tensors in place of its tensors: the inverse of `split_tensors`.

    Args:
        value: a tensor, a tuple or a dataclass instance, nested to any depth, or any other value. It stays unchanged.
        tensors: the new tensors, in the order in which `split_tensors(value)` lists the present ones. One is taken from
            the iterator for each tensor in `value`.

    Returns:
        A value of the same structure and types with the new tensors. All other values are the same objects.
    """
    if isinstance(value, Tensor):
        return next(tensors)
    if is_dataclass(value):
        changes = {field.name: join_tensors(getattr(value, field.name), tensors) for field in fields(value)}
        return replace(value, **changes)
    if isinstance(value, tuple):
        parts = [join_tensors(part, tensors) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


class HeldTensorError(TypeError):
    """Error for a function that refers to a tensor which is not among its arguments.

    A CUDA graph would replay the values that this tensor had when the graph was captured.

    Attributes:
        place: expression that names the tensor, for example `labels` or `options['weights'][0]`.
    """

    def __init__(self, place: str):
        """Creates the error.

        Args:
            place: expression that names the tensor, for example `labels` or `options['weights'][0]`.
        """
        super().__init__(f"holds a tensor, {place}: give it as an argument")
        self.place = place


def held_values(function: Callable[..., Any]) -> list[Any]:
    """Lists the values that a function refers to besides its arguments, such as numbers in its closure.

    They are found in closures, defaults, functools.partial, bound objects, inner functions, attributes and containers.
    Among global variables, only tensors, containers and partials are found. If the lists of two functions are equal,
    the functions compute the same, so that a captured CUDA graph can be replayed for both. Changed weights of a module
    do not change the list.

    Args:
        function: function, method, functools.partial or callable object.

    Returns:
        A flat list of the values in the order in which they are found: code objects, numbers, strings, types and
        modules (`nn.Module`). A container contributes its elements; another object contributes its type and its
        attributes. An object with an attribute `replay_key` contributes only that attribute, which must be equal for
        two objects that compute the same. For example `held_values(functools.partial(f, 3))` is `[f.__code__, 3]`, if
        `f` refers to nothing else.

    Raises:
        HeldTensorError: if a tensor is found that is not a parameter or buffer of an `nn.Module`, also within a
            container or an attribute.
    """
    values: list[Any] = []
    _collect(function, getattr(function, "__name__", "function"), values, set())
    return values


def _collect(value: Any, place: str, values: list[Any], seen: set[int]) -> None:
    if isinstance(value, Tensor):
        raise HeldTensorError(place)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | type | types.ModuleType):
        values.append(value)
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        values.append(value)
    elif hasattr(value, "replay_key"):
        values.append(value.replay_key)
    elif isinstance(value, types.FunctionType):
        _collect_function(value, place, values, seen)
    elif isinstance(value, types.MethodType):
        _collect(value.__func__, place, values, seen)
        _collect(value.__self__, f"{place}.__self__", values, seen)
    elif isinstance(value, functools.partial):
        for part in (value.func, value.args, value.keywords):
            _collect(part, place, values, seen)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            values.append(key)
            _collect(item, f"{place}[{key!r}]", values, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for number, item in enumerate(value):
            _collect(item, f"{place}[{number}]", values, seen)
    elif getattr(value, "__dict__", None) or hasattr(type(value), "__slots__"):
        values.append(type(value))
        names = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
        for name in names:
            if hasattr(value, name):
                _collect(getattr(value, name), f"{place}.{name}", values, seen)
    else:
        values.append(value)


def _collect_function(function: types.FunctionType, place: str, values: list[Any], seen: set[int]) -> None:
    values.append(function.__code__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            content = cell.cell_contents
        except ValueError:  # not bound yet
            continue
        _collect(content, name, values, seen)
    for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        _collect(default, f"a default of {place}", values, seen)
    for name in _names(function.__code__):
        content = function.__globals__.get(name)
        if isinstance(content, Tensor | Mapping | list | tuple | set | functools.partial):
            _collect(content, name, values, seen)


def _names(code: types.CodeType) -> Iterator[str]:
    """Yields the global names that a code object uses, those of functions within it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)
