"""Checkpoints: safetensors that carry all that is needed to use them. No file of ours can run code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import nn

from robust_distillation.errors import UserError, shown
from robust_distillation.files import canonical, digest, replacing
from robust_distillation.models import LARGEST, arguments, registry
from robust_distillation.models.normalised import Normalised

KEY = "robust_distillation"
DIGEST = "digest"  # in there: of the weights and of all else that is there
REMEDY = "Remove it, and start the experiment again to make it anew"
# One metadata key holding sorted JSON: several keys would be written in random order.


def save_checkpoint(path: str | Path, state: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
    """The same state and metadata give the same bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    metadata = {**metadata, DIGEST: _digest(tensors, metadata)}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, {KEY: canonical(metadata)}))


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the metadata. Raises UserError for a file that is missing, damaged, or not ours."""
    if not Path(path).is_file():
        raise UserError(f"checkpoint {path}: no such file")
    try:
        with safetensors.safe_open(str(path), framework="pt") as opened:
            metadata = json.loads((opened.metadata() or {}).get(KEY, "null"))
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(f"checkpoint {path}: not a whole safetensors file ({error}). {REMEDY}") from error
    if not isinstance(metadata, dict):
        raise UserError(f"checkpoint {path}: has no {KEY!r} metadata, so it was not written by this program")
    if metadata.pop(DIGEST, None) != _digest(state, metadata):
        raise UserError(f"checkpoint {path}: is damaged or was changed, its own checksum does not fit. {REMEDY}")
    return state, metadata


def _digest(state: dict[str, torch.Tensor], metadata: dict[str, Any]) -> str:
    return digest([weights_digest(state), metadata])


def weights_digest(state: dict[str, torch.Tensor]) -> str:
    """sha256 of names, types, shapes and values: equal for equal weights, whatever the metadata says."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def build_model(architecture: dict[str, Any], shape: tuple[int, int, int], classes: int, seed: int = 0) -> nn.Module:
    """A fresh model of `{"name": ..., **arguments}`, initialised from `seed`; the global generator stays as it was.

    Raises UserError for an unknown architecture and for a value that it does not allow."""
    name = architecture["name"]
    given = {key: value for key, value in architecture.items() if key != "name"}
    for key, argument in arguments(name).items():
        if argument.choices and given.get(key, argument.default) not in argument.choices:
            allowed = ", ".join(map(str, argument.choices))
            raise UserError(f"architecture {name}: {key} should be one of {allowed}, found {shown(given[key])}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return registry.module(name).build(tuple(shape), classes, **given)


def _check_fits(architecture: dict[str, Any], shape: list[int], classes: int, state: dict[str, torch.Tensor]) -> None:
    """Raises ValueError where the model would not have the tensors of `state`. Nothing is allocated to find out, for a
    stranger's description may ask for a model of any size."""
    for key, value in [*architecture.items(), *(("shape", size) for size in shape), ("classes", classes)]:
        if isinstance(value, int) and not 0 <= value <= LARGEST:
            raise ValueError(f"{key} should be between 0 and {LARGEST}, found {shown(value)}")
    with torch.device("meta"):
        described = build_model(architecture, shape, classes).state_dict()
    expected = {name: tensor.shape for name, tensor in described.items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    if differing := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        raise ValueError(f"{len(differing)} tensors are missing, too many or of another shape, as {differing[0]}")


def load_model(path: str | Path) -> nn.Module:
    """The model of a checkpoint in eval mode: input [N,C,H,W] in [0,1], output logits [N,K]. The metadata's
    "normalisation", `{"mean": [...], "std": [...]}` of C numbers each or None, is applied inside."""
    state, metadata = read_checkpoint(path)
    try:
        dataset, normalisation = metadata["dataset"], metadata.get("normalisation")
        _check_fits(metadata["architecture"], dataset["shape"], len(dataset["classes"]), state)
        model = build_model(metadata["architecture"], dataset["shape"], len(dataset["classes"]))
        model.load_state_dict(state)
        if normalisation is not None:
            model = Normalised(model, **normalisation)
            if not len(model.mean) == len(model.std) == dataset["shape"][0]:
                raise ValueError(f"normalisation is not for {dataset['shape'][0]} channels")
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, UserError) as error:
        raise UserError(f"checkpoint {path}: its weights do not fit its own description ({error})") from error
    return model.eval()
