"""Reading of weight files from elsewhere, and conversion to the tensor names of a registered architecture.

No code in such a file runs: PyTorch files are loaded with weights_only=True, and safetensors files contain no code.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from robust_distillation.errors import UserError, short_repr
from robust_distillation.models import arguments, names
from robust_distillation.models.checkpoint import build_model

STATE_KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "student",
)  # keys that training scripts save weights under
WRAPPERS = ("module", "model", "net", "0", "1")  # prefixes of DataParallel, of a wrapper class, of nn.Sequential
# Names of the mean and std of a normalisation layer in front of the model.
NORMALISER = re.compile(r"(?:(?:0|normali[sz]er?)\.)?(mean|mu|std|sigma)")
COUNTER = "num_batches_tracked"
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
EXAMPLES = 3  # number of keys that a message lists

FOREIGN = (  # first bytes of files that people save as weights by mistake
    (rb"\s*<", "a web page, not a file of weights: open the address in a browser and download what it offers"),
    (rb"version https://git-lfs", "a pointer of git-lfs: fetch the file itself"),
    (rb"\x93NUMPY", "a NumPy file: take the PyTorch one (.pt)"),
    (rb"\x89HDF", "an HDF5 file: take the PyTorch one"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ", "compressed: unpack it"),
)


def check_kind(stream: BinaryIO, path: Path) -> None:
    """Checks by its first bytes whether a file can contain weights. Rewinds the stream to the start of the file.

    Args:
        stream: the file, opened in binary mode, at its start.
        path: path of the file, for the message.

    Raises:
        UserError: the file is empty, a web page, a pointer of git-lfs, a NumPy or HDF5 file, or compressed.
    """
    head = stream.read(512)
    stream.seek(0)
    if not head:
        raise UserError(f"{path} is empty: fetch it again")
    for pattern, what in FOREIGN:
        if re.match(pattern, head):
            raise UserError(f"{path} is {what}")


def read(stream: BinaryIO, path: Path) -> dict[str, Tensor]:
    """Reads the state dict of a PyTorch or safetensors file from elsewhere. No code in the file runs.

    A PyTorch file may contain the state dict, or a dict that has it under one of the keys in STATE_KEYS: `state_dict`,
    `model_state_dict`, `model`, `net` or `student`. Up to three such dicts may be nested.

    Args:
        stream: the file, opened in binary mode, at its start.
        path: path of the file, for messages.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        UserError: the file is broken, asks to run code, contains no state dict, or contains values other than plain
            tensors.
    """
    return _state(load(stream, path), path)


def load(stream: BinaryIO, path: Path) -> Any:
    """Loads the content of a PyTorch or safetensors file; its first bytes decide which of the two it is. No code in the
    file runs.

    Args:
        stream: the file, opened in binary mode, at its start.
        path: path of the file, for messages.

    Returns:
        The content with tensors on the CPU. For a safetensors file it is a dict of tensors by name, for a PyTorch file
        the object that was saved, such as a state dict or a dict that contains one.

    Raises:
        UserError: the file is broken or asks to run code.
    """
    head = stream.read(9)
    stream.seek(0)
    try:
        if head[8:] == b"{":
            content: Any = safetensors.torch.load(stream.read())
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about old formats
                content = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # the parsers raise many types on a broken file
        if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UserError(
                f"{path} asks to run {code[1]}, and no file is allowed to run code here. If you trust its author, load "
                "it with the code it came with and save the model's state dict alone"
            ) from error
        unpickler = re.search(r"WeightsUnpickler error: (.+)", str(error))
        reason = unpickler[1] if unpickler else (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path} is not a whole PyTorch or safetensors file ({reason[:160]}): fetch it again"
        ) from error
    return content


def _state(content: Any, path: Path) -> dict[str, Tensor]:
    """Finds the state dict in the content of a file. Raises UserError if there is none."""
    for _ in range(3):
        inner = [
            content[name] for name in STATE_KEYS if isinstance(content, dict) and isinstance(content.get(name), dict)
        ]
        if not inner:
            break
        content = inner[0]
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds no state dict but {_type_name(content)}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{path} holds more than tensors: {short_repr(name)} is {_type_name(value)}. Save the state dict "
                f"alone, or under one of the keys {', '.join(STATE_KEYS)}"
            )
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise UserError(f"{path}: {name} is not a plain tensor (quantised, sparse, or without values)")
    return dict(content)


def _type_name(value: Any) -> str:
    """Names the type of a value, for a message."""
    if isinstance(value, dict):
        return "a dict" if value else "an empty dict"
    return f"a {type(value).__name__}"


def convert(
    state: dict[str, Tensor],
    architecture: dict[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    path: Path,
    drop: tuple[str, ...] = (),
    normalisations: Iterable[dict[str, list[float]]] = (),
) -> dict[str, Tensor]:
    """Converts published weights to the names, dtypes and order of the state dict of a registered architecture.

    Prefixes of wrappers such as `module.` are removed, and so is a normalisation layer in front of the model. Batch
    norm counters (`num_batches_tracked`), which PyTorch before 0.4.1 did not save, are set to 0. Half and double
    precision become float32.

    Args:
        state: the published tensors by name, as `read` returns them; changed in place if the file has a normalisation
            layer.
        architecture: name and arguments of the architecture to convert to, for example `{"name": "resnet", "depth":
            18}`.
        shape: (C, H, W) of the images.
        classes: number of classes.
        path: path of the file, for messages.
        drop: prefixes of names to leave out, for example ("sub_block1.",). They are compared after the prefixes of
            wrappers are removed.
        normalisations: allowed values of a normalisation layer in the file, each `{"mean": [...], "std": [...]}` with C
            numbers. Differences below 0.001 are ignored.

    Returns:
        Copies of the tensors, by the names and in the order of the architecture's state dict.

    Raises:
        UserError: names, shapes or dtypes differ, a value is not finite, or the file contains a normalisation that is
            not allowed. If another registered architecture fits, the message names it.
    """
    expected = layout(architecture, shape, classes)
    state, normaliser = strip_wrappers(state, {name.partition(".")[0] for name in expected})
    _check_normaliser(normaliser, list(normalisations), path)
    state = {name: tensor for name, tensor in state.items() if not name.startswith(drop)}
    for name in expected:
        if name.endswith(f".{COUNTER}"):
            state.setdefault(name, torch.tensor(0))
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes != {name: size for name, (size, _) in expected.items()}:
        raise UserError(_misfit(shapes, expected, architecture, shape, classes, path))
    return {name: _value(name, state[name], kind, path) for name, (_, kind) in expected.items()}


def layout(
    architecture: dict[str, Any], shape: tuple[int, int, int], classes: int
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Returns the shape and dtype of each tensor in the state dict of an architecture, by name. Allocates no tensor.

    Args:
        architecture: name of a registered architecture and its arguments, for example `{"name": "resnet", "depth":
            18}`.
        shape: (C, H, W) of the images.
        classes: number of classes.

    Returns:
        Name of each tensor to (shape, dtype), in the order of the state dict, for example `{"conv1.weight": ((64, 3, 3,
        3), torch.float32), ...}`.

    Raises:
        UserError: the architecture is unknown or does not allow an argument.
    """
    with torch.device("meta"):
        model = build_model(architecture, shape, classes)
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}


def strip_wrappers(state: dict[str, Tensor], prefixes: set[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Removes the prefixes of wrapper modules from tensor names, and separates the tensors of a normalisation layer.

    For example `module.conv1.weight` becomes `conv1.weight`. A prefix is removed if all names have it and it is one of
    the constant WRAPPERS: `module`, `model`, `net`, `0` or `1`. This is repeated for nested wrappers.

    Args:
        state: the tensors by name; those of a normalisation layer may be removed from it in place.
        prefixes: first components of the architecture's own tensor names, for example {"conv1", "layer1"}. They are not
            taken for wrappers.

    Returns:
        A pair of dicts: the tensors of the model by name, and the tensors of the normalisation layer by "mean", "mu",
        "std" or "sigma" (empty if there is no such layer).
    """
    normaliser = {}
    while True:
        for name in [name for name in state if name.partition(".")[0] not in prefixes and NORMALISER.fullmatch(name)]:
            normaliser[NORMALISER.fullmatch(name)[1]] = state.pop(name)
        first = {name.partition(".")[0] for name in state}
        if len(first) != 1 or not first <= set(WRAPPERS) - prefixes or not all("." in name for name in state):
            return state, normaliser
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}


def _check_normaliser(normaliser: dict[str, Tensor], allowed: list[dict[str, list[float]]], path: Path) -> None:
    """Raises UserError if a file's normalisation is none of the allowed ones, up to 0.001 for rounding."""
    if not normaliser:
        return
    short = {"mu": "mean", "sigma": "std"}
    values_by_name = {short.get(name, name): tensor.double().flatten().tolist() for name, tensor in normaliser.items()}

    def same(a: list[float], b: list[float]) -> bool:
        return len(a) == len(b) and all(abs(x - y) < 1e-3 for x, y in zip(a, b, strict=True))

    if not any(all(same(values, one[name]) for name, values in values_by_name.items()) for one in allowed):
        text = ", ".join(
            f"{name} {[round(value, 4) for value in values[:4]]}" for name, values in values_by_name.items()
        )
        raise UserError(
            f"{path} carries a normalisation of its own ({text}), which is not the one chosen: give these numbers as "
            "`normalisation:`"
        )


def _value(name: str, tensor: Tensor, kind: torch.dtype, path: Path) -> Tensor:
    """Converts a tensor to the dtype `kind`, as a copy that shares no memory. Raises UserError if it does not fit."""
    if tensor.dtype not in (FLOATS if kind.is_floating_point else INTEGERS):
        raise UserError(f"{path}: {name} is of type {tensor.dtype}, expected {kind}")
    value = tensor.detach().to(kind, copy=True)
    check_finite(name, value, path)
    return value


def check_finite(name: str, value: Tensor, path: Path) -> None:
    """Checks that a tensor contains neither infinity nor NaN. Integer tensors always pass.

    Args:
        name: name of the tensor, for the message.
        value: the tensor, of any dtype.
        path: path of its file, for the message.

    Raises:
        UserError: a value is not finite.
    """
    if value.is_floating_point() and not value.isfinite().all():
        count = int((~value.isfinite()).sum())
        raise UserError(f"{path}: {name} holds {count} values that are not finite in {value.dtype}")


def _misfit(
    shapes: dict[str, tuple[int, ...]],
    expected: dict[str, tuple[tuple[int, ...], torch.dtype]],
    architecture: dict[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    path: Path,
) -> str:
    """Returns the message for tensors that do not fit an architecture, with an architecture that they fit, if any."""
    missing = [name for name in expected if name not in shapes]
    unknown = [name for name in shapes if name not in expected]
    other = [name for name in shapes if name in expected and shapes[name] != expected[name][0]]
    parts = []
    if missing:
        parts.append(f"{len(missing)} of its {len(expected)} keys are missing ({_first(missing)})")
    if unknown:
        parts.append(f"{len(unknown)} keys are unknown ({_first(unknown)})")
    if other:
        pairs = [f"{name} is {_size(shapes[name])}, expected {_size(expected[name][0])}" for name in other[:EXAMPLES]]
        parts.append(f"{len(other)} have another shape ({'; '.join(pairs)})")
    guess = guess_architecture(_without_counters(shapes), architecture, shape, classes)
    hint = f" It fits {_described(*guess)}." if guess else ""
    return f"{path} does not fit {_described(architecture, classes)}: {', '.join(parts)}.{hint}"


def _without_counters(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Leaves out the counters of batch norm layers, which old files do not have."""
    return {name: size for name, size in shapes.items() if not name.endswith(COUNTER)}


def guess_architecture(
    shapes: dict[str, tuple[int, ...]], architecture: dict[str, Any], shape: tuple[int, int, int], classes: int
) -> tuple[dict[str, Any], int] | None:
    """Searches the registered architectures for one whose tensors have the same names and shapes as those of a file.

    It serves error messages about a file that does not fit the architecture in the experiment file. Depth and similar
    arguments are found from the names, then width and number of classes from the shapes.

    Args:
        shapes: shape of each tensor by name, without batch norm counters, for example `{"conv1.weight": (64, 3, 3,
            3)}`.
        architecture: the architecture to try first, for example `{"name": "resnet", "depth": 18}`.
        shape: (C, H, W) of the images.
        classes: number of classes to try first.

    Returns:
        The architecture, in the form of the argument, and its number of classes; None if no architecture fits.
    """

    def sizes(candidate: dict[str, Any], count: int = classes) -> dict[str, tuple[int, ...]]:
        try:
            return _without_counters({name: size for name, (size, _) in layout(candidate, shape, count).items()})
        except Exception:  # an impossible combination may raise anything, and a mere hint must not fail
            return {}

    for name in dict.fromkeys([architecture["name"], *names()]):
        allowed = arguments(name)
        base = {"name": name, **{key: argument.default for key, argument in allowed.items()}}
        if name == architecture["name"]:
            base |= architecture
        if 4 * len(sizes(base).keys() & shapes) < len(shapes):
            continue
        options = {key: argument.choices or (base[key],) for key, argument in allowed.items()}
        if "width" in base:  # both are tried, as the narrowest networks have no shortcut in their first stage
            options["width"] = dict.fromkeys([base["width"], allowed["width"].default])
        for values in itertools.product(*options.values()):
            candidate = base | dict(zip(options, values, strict=True))
            expected = sizes(candidate)
            if expected.keys() != shapes.keys():
                continue
            pairs = [
                pair for key in expected for pair in zip(shapes[key], expected[key], strict=False) if pair[0] != pair[1]
            ]
            width = candidate.get("width", 1)
            widths = dict.fromkeys([width, *(width * new // old for new, old in pairs if width * new % old == 0)])
            biases = [size[0] for key, size in shapes.items() if key.endswith("bias")]
            for scaled, count in itertools.product(list(widths)[:4], {classes, *biases[-1:]}):
                scaled_candidate = candidate | ({"width": scaled} if "width" in base else {})
                if sizes(scaled_candidate, count) == shapes:
                    return scaled_candidate, count
    return None


def _described(architecture: dict[str, Any], classes: int) -> str:
    """Describes an architecture for a message."""
    settings = [f"{key} {value}" for key, value in architecture.items() if key != "name"]
    return f"architecture {architecture['name']} ({', '.join([*settings, f'{classes} classes'])})"


def _first(keys: list[str]) -> str:
    """Lists the first keys for a message."""
    more = f" and {len(keys) - EXAMPLES} more" if len(keys) > EXAMPLES else ""
    return ", ".join(keys[:EXAMPLES]) + more


def _size(shape: tuple[int, ...]) -> str:
    """Formats a shape for a message, for example "3x32x32"."""
    return "x".join(map(str, shape)) or "one number"
