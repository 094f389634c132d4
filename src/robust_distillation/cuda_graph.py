"""Captures a repeated GPU computation as a CUDA graph and replays it.

Starting kernels one by one takes the host longer than a small network's kernels take the GPU. A graph starts the same
kernels, so it computes the same bits.
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
    """Calls functions that all compute the same: `replay(function, *args)` returns `function(*args)`.

    From the third call with the same shapes on, a CUDA graph is replayed, one for each set of shapes. Only the tensors
    among the arguments may differ between replays: they are copied into the graph's inputs. A change of any other
    argument, or of a value that the function holds, discards the graphs. The result, a tensor, is overwritten by the
    next call. On other devices than a GPU the function is called.

    Args of a call:
        function: a function of tensors that returns a tensor. It must not hold tensors: see `held_values`.
        args: tensors, and tuples and dataclasses of them and of other values. The first is a tensor.
    """

    def __init__(self) -> None:
        self.constants: list[Any] = []
        self.calls: dict[tuple, int] = {}
        self.graphs: dict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, function: Callable[..., Tensor], *args: Any) -> Tensor:
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
    """Splits tuples and dataclasses into the tensors and the other values that they are made of."""
    if isinstance(value, Tensor):
        return [value], []
    if is_dataclass(value):
        value = tuple(getattr(value, field.name) for field in fields(value))
    if not isinstance(value, tuple):
        return [], [value]
    parts = [split_tensors(part) for part in value]
    return [tensor for tensors, _ in parts for tensor in tensors], [other for _, others in parts for other in others]


def join_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """Builds the same tuples and dataclasses of other tensors, in the order of `split_tensors`."""
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
    """Raised for a function that holds a tensor; `place` names it."""

    def __init__(self, place: str):
        super().__init__(f"holds a tensor, {place}: give it as an argument")
        self.place = place


def held_values(function: Callable[..., Any]) -> list[Any]:
    """Lists the values that a function refers to besides its arguments: code, networks, numbers, in closures, defaults
    and attributes.

    Networks and other modules are allowed: their tensors change in place. So are objects with a `replay_key`, which
    identifies them: two objects with the same key compute the same.

    Raises:
        HeldTensorError: the function holds a tensor, also within a container or an object.
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
