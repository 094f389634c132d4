"""Checkpoints: safetensors files that contain weights and everything needed to build the model. They cannot run code.

A checkpoint's metadata is one JSON object under the key KEY. Its entries are written by training and import:
"architecture" (`{"name": NAME, **arguments}`), "dataset" (with "shape" and "classes"), "normalisation", "threat_model",
"method", "protocol", "seed", "epoch" and hashes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save
from torch import nn

from robust_distillation.digests import canonical, digest
from robust_distillation.errors import UserError, short_repr
from robust_distillation.files import atomic_write
from robust_distillation.models import LARGEST, arguments, registry
from robust_distillation.models.normalised import Normalised

KEY = "robust_distillation"  # the only metadata key, since safetensors writes several keys in random order
DIGEST = "digest"  # entry of the metadata: hash of the weights and of all other entries
REMEDY = "Remove it, and start the experiment again to make it anew"


def save_checkpoint(path: str | Path, state: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
    """Writes a checkpoint, a safetensors file. The file appears complete or not at all, and replaces an existing one.

    The same arguments give the same bytes. `load_model` builds the model from such a file.

    Args:
        path: file to write, for example results/digits/teachers/wide/best.safetensors.
        state: the tensors of a model's state dict by name, on any device.
        metadata: JSON values that describe the model. `load_model` needs `architecture` (`{"name": NAME, **arguments}`,
            for example `{"name": "resnet", "depth": 18}`) and `dataset` (a dict with `shape`, [C, H, W], and `classes`,
            a list of names), and reads `normalisation` (`{"mean": [...], "std": [...]}` with C numbers each, or None).
            Further entries are stored as they are. A checksum of weights and metadata is added to the file under the
            key `digest`.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    metadata = {**metadata, DIGEST: _digest(tensors, metadata)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(tensors, {KEY: canonical(metadata)}))


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a checkpoint that `save_checkpoint` wrote, and verifies its checksum.

    Args:
        path: the safetensors file.

    Returns:
        The state dict (tensors by name, on the CPU), and the metadata without the checksum.

    Raises:
        UserError: the file is missing, damaged or changed, or was not written by `save_checkpoint`.
    """
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
        raise UserError(f"checkpoint {path}: is damaged or was changed, for its checksum does not match. {REMEDY}")
    return state, metadata


def _digest(state: dict[str, torch.Tensor], metadata: dict[str, Any]) -> str:
    """Computes the sha256 of weights and metadata."""
    return digest([weights_digest(state), metadata])


def weights_digest(state: dict[str, torch.Tensor]) -> str:
    """Computes the sha256 of the names, dtypes, shapes and values of a state dict, to recognise checkpoints with equal
    weights.

    Equal weights have an equal digest, whatever the order of the tensors and the metadata of their checkpoints.

    Args:
        state: the tensors by name, on any device.

    Returns:
        64 hexadecimal digits.
    """
    hasher = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


def build_model(architecture: dict[str, Any], shape: tuple[int, int, int], classes: int, seed: int = 0) -> nn.Module:
    """Builds a model with freshly drawn weights. The state of torch's global random generator is restored afterwards.

    Args:
        architecture: name of a registered architecture and its arguments, for example `{"name": "resnet", "depth":
            18}`. Arguments that are left out have the defaults of the architecture's `build`.
        shape: (C, H, W) of the images.
        classes: number of classes K.
        seed: seed of the initial weights.

    Returns:
        The model in train mode, on torch's default device. It maps images [N,C,H,W] to logits [N,K]. Its method
        `features` maps images to the penultimate features [N,D], and its `classifier` is the torch.nn.Linear from
        features to logits.

    Raises:
        UserError: the architecture is unknown, does not allow the value of an argument, or builds a network without
            `features` or `classifier`.
    """
    name = architecture["name"]
    settings = {key: value for key, value in architecture.items() if key != "name"}
    for key, argument in arguments(name).items():
        if argument.choices and settings.get(key, argument.default) not in argument.choices:
            allowed = ", ".join(map(str, argument.choices))
            raise UserError(f"architecture {name}: {key} should be one of {allowed}, found {short_repr(settings[key])}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = registry.module(name).build(tuple(shape), classes, **settings)
    # A property of the class is not evaluated: that of RobustBench's models searches the network.
    if not hasattr(type(model), "classifier") and not isinstance(getattr(model, "classifier", None), nn.Linear):
        lacking = "classifier, the torch.nn.Linear from features to logits"
    elif not callable(getattr(model, "features", None)):
        lacking = "features(x), the input [N,D] of its classifier"
    else:
        return model
    raise UserError(f"architecture {name}: {registry.file(name)}: the network that build returns lacks {lacking}")


def _check_fits(architecture: dict[str, Any], shape: list[int], classes: int, state: dict[str, torch.Tensor]) -> None:
    """Raises ValueError if the tensors of `state` have other names or shapes than those of the model.

    The model is built on the meta device, which allocates no memory: a checkpoint from elsewhere may ask for a model of
    any size.
    """
    for key, value in [*architecture.items(), *(("shape", size) for size in shape), ("classes", classes)]:
        if isinstance(value, int) and not 0 <= value <= LARGEST:
            raise ValueError(f"{key} should be between 0 and {LARGEST}, found {short_repr(value)}")
    with torch.device("meta"):
        described = build_model(architecture, shape, classes).state_dict()
    expected = {name: tensor.shape for name, tensor in described.items()}
    actual = {name: tensor.shape for name, tensor in state.items()}
    if differing := sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name)):
        raise ValueError(f"{len(differing)} tensors are missing, too many or of another shape, as {differing[0]}")


def load_model(path: str | Path) -> nn.Module:
    """Loads the model of a checkpoint that `save_checkpoint` wrote.

    If the metadata has a "normalisation", `{"mean": [...], "std": [...]}` with C numbers each, the returned module
    applies it to its input.

    Args:
        path: the safetensors file, for example results/digits/teachers/wide/best.safetensors.

    Returns:
        A module in eval mode on the CPU, with float32 weights. It maps images [N,C,H,W] in [0, 1] to logits [N,K]. Its
        method `features` maps images to the penultimate features [N,D], and its `classifier` is the torch.nn.Linear
        from features to logits.

    Raises:
        UserError: the file is missing or damaged, was not written by `save_checkpoint`, or its weights do not fit the
            architecture in its metadata.
    """
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
