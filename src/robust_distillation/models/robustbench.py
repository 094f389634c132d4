"""The models of RobustBench's zoo (Croce et al., NeurIPS 2021 datasets and benchmarks), built by its own package, the
optional extra `robustbench`. They take images in [0,1]: where a model normalises, it does so inside.

Features are the input of the last linear layer, which for every single network of the zoo gives the logits. Ensembles,
networks that end otherwise, and those that come through timm instead of as one file are refused.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robust_distillation.errors import UserError, unknown

VERSION = "1.1.1"
INSTALL = "pip install -c requirements.txt --editable '.[robustbench]'"
DATASETS = {"cifar10": ((3, 32, 32), 10), "cifar100": ((3, 32, 32), 100)}
THREATS = {"linf": "Linf", "l2": "L2", "corruptions": "corruptions"}  # our name to RobustBench's


class Wrapped(nn.Module):
    """`network`, with the parts that distillation asks for. Images [N,3,32,32] to logits [N,K]."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    @property
    def classifier(self) -> nn.Linear:
        return [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1]

    def features(self, x: Tensor) -> Tensor:
        """Images [N,3,32,32] to the input [N,D] of the classifier."""
        seen = []
        hook = self.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.network(x)
        finally:
            hook.remove()
        return seen[-1]

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))

    def check(self, x: Tensor, classes: int, model: str) -> None:
        """Raises UserError where the logits for `x` are not the last linear layer's of the features."""
        self.eval()
        with torch.no_grad():
            logits = self.network(x)
            try:
                same = torch.allclose(self.classifier(self.features(x)), logits, atol=1e-4)
            except (IndexError, RuntimeError):  # no linear layer, none that ran, or other shapes
                same = False
        if not same or logits.shape != (len(x), classes):
            raise UserError(
                f"RobustBench's {model} does not end in a linear layer that gives the logits of {classes} classes, so "
                "it has no features to distil from: take another model"
            )


def package() -> ModuleType:
    """RobustBench's package. Raises UserError with the line that installs it."""
    try:
        if importlib.util.find_spec("autoattack") is None:
            # It asks for PyPI's pyautoattack, but imports it under the name that the repository's package has.
            sys.modules["autoattack"] = importlib.import_module("pyautoattack")
        importlib.import_module("robustbench.utils")
        return importlib.import_module("robustbench")
    except ImportError as error:
        raise UserError(
            f"architecture robustbench needs the package robustbench {VERSION} ({error}). In the repository: {INSTALL}"
        ) from error


def entry(model: str, dataset: str, threat: str) -> dict[str, Any]:
    """The zoo's entry: `model`, which builds the network, and `gdrive_id`. Raises UserError for an unknown name, an
    ensemble, and a model that is not one file."""
    if dataset not in DATASETS:
        raise UserError(unknown("data set of RobustBench", dataset, DATASETS))
    if threat not in THREATS:
        raise UserError(unknown("threat of RobustBench", threat, THREATS))
    if not model:
        raise UserError("architecture robustbench needs `model:`, a name in RobustBench's zoo")
    package()
    zoo = importlib.import_module("robustbench.model_zoo")
    enums = importlib.import_module("robustbench.model_zoo.enums")
    models = zoo.model_dicts[enums.BenchmarkDataset(dataset)].get(enums.ThreatModel(THREATS[threat]), {})
    if model not in models:
        raise UserError(unknown(f"model of RobustBench for {dataset}, {threat}:", model, models))
    found = models[model]
    if not isinstance(found["gdrive_id"], str):
        what = "an ensemble" if isinstance(found["gdrive_id"], list) else "loaded through timm, not from one file"
        raise UserError(f"RobustBench's {model} is {what}, which is not supported: take another model")
    return found


def load(model: str, dataset: str, threat: str, folder: Path) -> nn.Module:
    """The trained network, from its file below `folder`, by the package's own rules. No file runs code."""
    utils = package().utils
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    unsafe = os.environ.pop(name, None)  # the package leaves weights_only at its default
    try:
        return utils.load_model(model, model_dir=folder, dataset=dataset, threat_model=THREATS[threat]).eval()
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"RobustBench's {model}: its file does not fit its network ({reason})") from error
    finally:
        if unsafe is not None:
            os.environ[name] = unsafe


def build(
    shape: tuple[int, int, int],
    classes: int,
    *,
    model: str = "",
    threat: Literal["linf", "l2", "corruptions"] = "linf",
) -> Wrapped:
    """model: a name in the zoo for `threat` and the CIFAR data set with so many classes."""
    datasets = {size: name for name, size in DATASETS.items()}
    if (tuple(shape), classes) not in datasets:
        raise UserError(
            f"architecture robustbench is for CIFAR-10 and CIFAR-100, found {classes} classes, images {tuple(shape)}"
        )
    return Wrapped(entry(model, datasets[tuple(shape), classes], threat)["model"]())
