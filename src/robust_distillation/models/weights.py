"""Reading a file of weights that came from elsewhere, and making it fit one of our architectures.

Nothing in such a file is executed: torch reads it with weights_only=True, safetensors holds no code.
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

from robust_distillation.errors import UserError, shown
from robust_distillation.models import arguments, names
from robust_distillation.models.checkpoint import build_model

NESTS = ("state_dict", "model_state_dict", "model", "net", "student")
WRAPPERS = ("module", "model", "net", "0", "1")  # DataParallel, a holder, the parts of a Sequential
NORMALISER = re.compile(r"(?:(?:0|normali[sz]er?)\.)?(mean|mu|std|sigma)")
COUNTER = "num_batches_tracked"
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
EXAMPLES = 3  # keys that a message names

FOREIGN = (  # how files begin that are saved as weights by mistake
    (rb"\s*<", "a web page, not a file of weights: open the address in a browser and download what it offers"),
    (rb"version https://git-lfs", "a pointer of git-lfs: fetch the file itself"),
    (rb"\x93NUMPY", "a NumPy file: take the PyTorch one (.pt)"),
    (rb"\x89HDF", "an HDF5 file: take the PyTorch one"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ", "compressed: unpack it"),
)


def check_kind(stream: BinaryIO, path: Path) -> None:
    """Raises UserError for a file that cannot be weights, judged by its first bytes. Leaves the stream at its start."""
    head = stream.read(512)
    stream.seek(0)
    if not head:
        raise UserError(f"{path} is empty: fetch it again")
    for pattern, what in FOREIGN:
        if re.match(pattern, head):
            raise UserError(f"{path} is {what}")


def read(stream: BinaryIO, path: Path) -> dict[str, Tensor]:
    """The state dict of a file, taken out of the dict that a training script saved around it. Raises UserError as
    `load` does, and for a file that holds anything but tensors."""
    return _state(load(stream, path), path)


def load(stream: BinaryIO, path: Path) -> Any:
    """What a PyTorch or safetensors file holds. Raises UserError for one that is broken or that would run code."""
    head = stream.read(9)
    stream.seek(0)
    try:
        if head[8:] == b"{":
            found: Any = safetensors.torch.load(stream.read())
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old formats
                found = torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:  # the parsers raise whatever they meet in a broken file
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
    return found


def _state(found: Any, path: Path) -> dict[str, Tensor]:
    for _ in range(3):
        inner = [found[name] for name in NESTS if isinstance(found, dict) and isinstance(found.get(name), dict)]
        if not inner:
            break
        found = inner[0]
    if not isinstance(found, dict) or not found:
        raise UserError(f"{path} holds no state dict but {_what(found)}")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(
                f"{path} holds more than tensors: {shown(name)} is {_what(value)}. Save the state dict alone, or under "
                f"one of the keys {', '.join(NESTS)}"
            )
        if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
            raise UserError(f"{path}: {name} is not a plain tensor (quantised, sparse, or without values)")
    return dict(found)


def _what(value: Any) -> str:
    if isinstance(value, dict):
        return "a dict" if value else "an empty dict"
    return f"a {type(value).__name__}"


def fit(
    state: dict[str, Tensor],
    architecture: dict[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    path: Path,
    drop: tuple[str, ...] = (),
    normalisations: Iterable[dict[str, list[float]]] = (),
) -> dict[str, Tensor]:
    """The state dict of `architecture` for images `shape` = (C, H, W) and `classes` classes, with its names, types and
    order, from a published one.

    Left out: `module.` and the like before every key, keys that begin with one of `drop`, and a normaliser, whose
    numbers must be those of one of `normalisations` (mean and std, C each). Batch counters that PyTorch before 0.4.1
    did not save are zero. Half and double precision become float32. Raises UserError where anything else differs.
    """
    expected = layout(architecture, shape, classes)
    state, normaliser = _ours(state, {name.partition(".")[0] for name in expected})
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
    """Names, shapes and types of an architecture's tensors, of which none is made."""
    with torch.device("meta"):
        model = build_model(architecture, shape, classes)
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}


def _ours(state: dict[str, Tensor], own: set[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Without what was wrapped around the model, and the tensors of a normaliser in front of it. `own`: how the
    architecture's names begin."""
    normaliser = {}
    while True:
        for name in [name for name in state if name.partition(".")[0] not in own and NORMALISER.fullmatch(name)]:
            normaliser[NORMALISER.fullmatch(name)[1]] = state.pop(name)
        first = {name.partition(".")[0] for name in state}
        if len(first) != 1 or not first <= set(WRAPPERS) - own or not all("." in name for name in state):
            return state, normaliser
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}


def _check_normaliser(normaliser: dict[str, Tensor], allowed: list[dict[str, list[float]]], path: Path) -> None:
    """Published codes round these numbers to three or four digits."""
    if not normaliser:
        return
    short = {"mu": "mean", "sigma": "std"}
    found = {short.get(name, name): tensor.double().flatten().tolist() for name, tensor in normaliser.items()}

    def same(a: list[float], b: list[float]) -> bool:
        return len(a) == len(b) and all(abs(x - y) < 1e-3 for x, y in zip(a, b, strict=True))

    if not any(all(same(values, one[name]) for name, values in found.items()) for one in allowed):
        text = ", ".join(f"{name} {[round(value, 4) for value in values[:4]]}" for name, values in found.items())
        raise UserError(
            f"{path} carries a normalisation of its own ({text}), which is not the one chosen: give these numbers as "
            "`normalisation:`"
        )


def _value(name: str, tensor: Tensor, kind: torch.dtype, path: Path) -> Tensor:
    """A copy of its own, so that equal storage in the file is not shared any more."""
    if tensor.dtype not in (FLOATS if kind.is_floating_point else INTEGERS):
        raise UserError(f"{path}: {name} is of type {tensor.dtype}, expected {kind}")
    value = tensor.detach().to(kind, copy=True)
    check_finite(name, value, path)
    return value


def check_finite(name: str, value: Tensor, path: Path) -> None:
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
    missing = [name for name in expected if name not in shapes]
    strange = [name for name in shapes if name not in expected]
    other = [name for name in shapes if name in expected and shapes[name] != expected[name][0]]
    parts = []
    if missing:
        parts.append(f"{len(missing)} of its {len(expected)} keys are missing ({_first(missing)})")
    if strange:
        parts.append(f"{len(strange)} keys are unknown ({_first(strange)})")
    if other:
        pairs = [f"{name} is {_size(shapes[name])}, expected {_size(expected[name][0])}" for name in other[:EXAMPLES]]
        parts.append(f"{len(other)} have another shape ({'; '.join(pairs)})")
    found = _fitting(_counted(shapes), architecture, shape, classes)
    hint = f" It fits {_described(*found)}." if found else ""
    return f"{path} does not fit {_described(architecture, classes)}: {', '.join(parts)}.{hint}"


def _counted(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: size for name, size in shapes.items() if not name.endswith(COUNTER)}


def _fitting(
    shapes: dict[str, tuple[int, ...]], architecture: dict[str, Any], shape: tuple[int, int, int], classes: int
) -> tuple[dict[str, Any], int] | None:
    """The architecture of ours, and the number of classes, whose tensors have these shapes, if one is found: first the
    depth by the names alone, then width and classes by the shapes."""

    def sizes(candidate: dict[str, Any], count: int = classes) -> dict[str, tuple[int, ...]]:
        try:
            return _counted({name: size for name, (size, _) in layout(candidate, shape, count).items()})
        except Exception:  # an impossible combination, whatever it raises: a hint is not worth a fault
            return {}

    for name in dict.fromkeys([architecture["name"], *names()]):
        known = arguments(name)
        base = {"name": name, **{key: argument.default for key, argument in known.items()}}
        if name == architecture["name"]:
            base |= architecture
        if 4 * len(sizes(base).keys() & shapes) < len(shapes):
            continue
        options = {key: argument.choices or (base[key],) for key, argument in known.items()}
        if "width" in base:  # both, as the narrowest networks have no shortcut in their first stage
            options["width"] = dict.fromkeys([base["width"], known["width"].default])
        for values in itertools.product(*options.values()):
            candidate = base | dict(zip(options, values, strict=True))
            have = sizes(candidate)
            if have.keys() != shapes.keys():
                continue
            pairs = [pair for key in have for pair in zip(shapes[key], have[key], strict=False) if pair[0] != pair[1]]
            width = candidate.get("width", 1)
            widths = dict.fromkeys([width, *(width * new // old for new, old in pairs if width * new % old == 0)])
            biases = [size[0] for key, size in shapes.items() if key.endswith("bias")]
            for scaled, count in itertools.product(list(widths)[:4], {classes, *biases[-1:]}):
                scaled_candidate = candidate | ({"width": scaled} if "width" in base else {})
                if sizes(scaled_candidate, count) == shapes:
                    return scaled_candidate, count
    return None


def _described(architecture: dict[str, Any], classes: int) -> str:
    settings = [f"{key} {value}" for key, value in architecture.items() if key != "name"]
    return f"architecture {architecture['name']} ({', '.join([*settings, f'{classes} classes'])})"


def _first(found: list[str]) -> str:
    more = f" and {len(found) - EXAMPLES} more" if len(found) > EXAMPLES else ""
    return ", ".join(found[:EXAMPLES]) + more


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
