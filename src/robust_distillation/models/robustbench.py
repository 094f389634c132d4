"""Models of RobustBench's zoo (Croce et al., NeurIPS 2021 datasets and benchmarks).

They are built by RobustBench's own package, which the optional extra `robustbench` installs. They take images in [0,1]:
a model that normalises its input does so inside.

The features are the input of the last linear layer, whose output are the logits. Refused are ensembles, networks that
do not end in a linear layer, and models that are loaded through timm instead of from one file.
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
THREATS = {"linf": "Linf", "l2": "L2", "corruptions": "corruptions"}  # name here: RobustBench's name


class RobustBenchModel(nn.Module):
    """A model of RobustBench's zoo with `features` and `classifier`, which distillation needs.

    It maps images [N,3,32,32] in [0, 1] to logits [N,K]. Its features [N,D] are the input of the network's last linear
    layer, recorded by a forward hook, and its classifier is that layer.

    Attributes:
        network: the network that RobustBench built.
    """

    def __init__(self, network: nn.Module):
        """Wraps a network.

        Args:
            network: a network that RobustBench built. Its last linear layer must give the logits; `check` verifies
                that.
        """
        super().__init__()
        self.network = network

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer of the network, from features to logits.

        Raises:
            IndexError: the network has no linear layer.
        """
        return [module for module in self.network.modules() if isinstance(module, nn.Linear)][-1]

    def features(self, x: Tensor) -> Tensor:
        """Computes features [N,D] of images `x` [N,3,32,32] in [0, 1]: the input of the last linear layer."""
        recorded = []
        hook = self.classifier.register_forward_pre_hook(lambda _, inputs: recorded.append(inputs[0]))
        try:
            self.network(x)
        finally:
            hook.remove()
        return recorded[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [N,K] of images `x` [N,3,32,32] in [0, 1]."""
        return self.classifier(self.features(x))

    def check(self, x: Tensor, classes: int, model: str) -> None:
        """Checks that the last linear layer of the network gives its logits, on a few images. Sets eval mode.

        Args:
            x: images [N,3,32,32] in [0, 1].
            classes: expected number K of logits.
            model: name of the model in the zoo, for the message.

        Raises:
            UserError: the logits of the network differ from those of its last linear layer by more than 0.0001, or do
                not have the shape [N,K].
        """
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
                "it has no features to distil from: choose another model"
            )


def package() -> ModuleType:
    """Imports the package robustbench and returns the module.

    RobustBench imports a module `autoattack`. If that is not installed, PyPI's `pyautoattack` is registered under its
    name in sys.modules.

    Raises:
        UserError: the package cannot be imported. The message has the command that installs it.
    """
    try:
        if importlib.util.find_spec("autoattack") is None:
            # RobustBench requires PyPI's pyautoattack, but imports it by the name of AutoAttack's repository.
            sys.modules["autoattack"] = importlib.import_module("pyautoattack")
        importlib.import_module("robustbench.utils")
        return importlib.import_module("robustbench")
    except ImportError as error:
        raise UserError(
            f"architecture robustbench needs the package robustbench {VERSION} ({error}). In the repository: {INSTALL}"
        ) from error


def entry(model: str, dataset: str, threat: str) -> dict[str, Any]:
    """Returns the entry of a model in RobustBench's zoo. Downloads nothing.

    Args:
        model: name in RobustBench's zoo, for example "Carmon2019Unlabeled".
        dataset: "cifar10" or "cifar100".
        threat: threat model for which the network was trained: "linf", "l2" or "corruptions".

    Returns:
        A dict with `model`, a function without arguments that builds the network with random weights, and `gdrive_id`,
        the id of the file of its trained weights on Google Drive.

    Raises:
        UserError: a name is unknown, the model is an ensemble or is not loaded from one file, or RobustBench is not
            installed.
    """
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
    selected = models[model]
    if not isinstance(selected["gdrive_id"], str):
        reason = "an ensemble" if isinstance(selected["gdrive_id"], list) else "loaded through timm, not from one file"
        raise UserError(f"RobustBench's {model} is {reason}, which is not supported: choose another model")
    return selected


def load(model: str, dataset: str, threat: str, folder: Path) -> nn.Module:
    """Loads a trained network of RobustBench's zoo with RobustBench's own code. The file cannot run code.

    Args:
        model: name in RobustBench's zoo, for example "Carmon2019Unlabeled".
        dataset: "cifar10" or "cifar100".
        threat: threat model for which the network was trained: "linf", "l2" or "corruptions".
        folder: folder in which RobustBench stores models, for example models/robustbench. A missing file is downloaded
            to `folder`/DATASET/THREAT/MODEL.pt.

    Returns:
        RobustBench's network on the CPU in eval mode, without `RobustBenchModel` around it.

    Raises:
        UserError: RobustBench is not installed, or the file does not fit the network.
    """
    utils = package().utils
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    unsafe = os.environ.pop(name, None)  # RobustBench does not set weights_only
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
) -> RobustBenchModel:
    """Builds a network of RobustBench's zoo with freshly drawn weights. `load` loads the trained ones.

    Args:
        shape: (C, H, W) of the images, always (3, 32, 32).
        classes: 10 for CIFAR-10 or 100 for CIFAR-100.
        model: name in RobustBench's zoo for this dataset and threat, for example "Carmon2019Unlabeled". Required: the
            default "" is refused.
        threat: threat model for which the network was trained: "linf" (default), "l2" or "corruptions".

    Returns:
        The network, wrapped so that it has `features` (images to penultimate features [N,D]) and `classifier` (the last
        linear layer).

    Raises:
        UserError: shape and classes are not those of CIFAR-10 or CIFAR-100, there is no such model, or RobustBench is
            not installed.
    """
    datasets = {size: name for name, size in DATASETS.items()}
    if (tuple(shape), classes) not in datasets:
        raise UserError(
            f"architecture robustbench is for CIFAR-10 and CIFAR-100, found {classes} classes, images {tuple(shape)}"
        )
    return RobustBenchModel(entry(model, datasets[tuple(shape), classes], threat)["model"]())
