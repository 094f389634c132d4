"""Published checkpoints that can be imported by name. This module does not import torch.

An entry has a URL or a hash only if the publisher states it. The hash of a file in a pinned package was computed from
that package. docs/importing.md names the source of each entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OWN_FILE = "file"  # source of your own file of weights; the experiment file has its path
ROBUSTBENCH = "robustbench"  # source of the models of RobustBench's zoo, see pipeline.importing.import_robustbench


@dataclass(frozen=True)
class KnownCheckpoint:
    """Published checkpoint, an entry of the dict SOURCES, that an experiment file can import by name as a teacher.

    Attributes:
        architecture: name and arguments of a registered architecture, for example `{"name": "resnet", "depth": 18}`.
        dataset: name of the dataset that the network was trained on, for example `cifar10`.
        normalisation: key of NORMALISATIONS, a dict of mean and std for images in [0, 1], for example `cifar10`; None
            if the network takes images in [0, 1].
        file: usual name of the file, for example `model_cifar_wrn.pt`.
        url: address from which the file is downloaded; None if no direct address is known.
        page: web page on which a person finds the file.
        sha256: hash of the file, 64 hexadecimal digits; None if the publisher states none.
        threat: threat model that the network was trained for, for example `linf 8/255` (eps in the pixel range [0,1]);
            `none` for standard training.
        drop: prefixes of tensor names in the file that no forward pass uses, for example ("sub_block1.",).
        package: folder of an installed Python package that contains the file, for example `pyautoattack/examples`; None
            if no package contains it.
        note: published accuracies (clean / AutoAttack, in percent) and remarks.
    """

    architecture: dict[str, Any]
    dataset: str
    normalisation: str | None
    file: str
    url: str | None
    page: str
    sha256: str | None
    threat: str
    drop: tuple[str, ...] = ()
    package: str | None = None
    note: str = ""


# Mean and std for images in [0,1], by name.
NORMALISATIONS: dict[str, dict[str, list[float]]] = {
    # google-deepmind/deepmind-research, adversarial_robustness/pytorch/model_zoo.py; RobustBench and RSLAD use the same
    "cifar10": {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2471, 0.2435, 0.2616]},
    "cifar100": {"mean": [0.5071, 0.4865, 0.4409], "std": [0.2673, 0.2564, 0.2762]},
}

DEEPMIND = "https://github.com/google-deepmind/deepmind-research/tree/master/adversarial_robustness"
STORAGE = "https://storage.googleapis.com/dm-adversarial-robustness"
RSLAD = "https://github.com/zibojia/RSLAD"


def _deepmind(
    file: str, depth: int, width: int, published: str, threat: str = "linf 8/255", more: str = ""
) -> KnownCheckpoint:
    """Returns the entry of a DeepMind checkpoint.

    Args:
        file: name of the file, which begins with the name of the dataset.
        depth: depth of the WRN.
        width: widening factor of the WRN.
        published: clean and AutoAttack accuracy (percent, full test set) in DeepMind's README.
        threat: threat model that it was trained for.
        more: a remark, or "".
    """
    dataset = file.partition("_")[0]
    return KnownCheckpoint(
        architecture={"name": "dm_wide_resnet", "depth": depth, "width": width},
        dataset=dataset,
        normalisation=dataset,
        file=file,
        url=f"{STORAGE}/{file}",
        page=DEEPMIND,
        sha256=None,
        threat=threat,
        note=f"published clean / AutoAttack: {published}{'; ' if more else ''}{more}",
    )


def _rslad(model: str, architecture: dict[str, Any], dataset: str) -> KnownCheckpoint:
    """Returns the entry of a student that RSLAD's authors announce.

    Architecture and key names are those in their training scripts.

    Args:
        model: name of the architecture in the file name.
        architecture: `{"name": NAME, **arguments}`.
        dataset: name of the dataset.
    """
    return KnownCheckpoint(
        architecture=architecture,
        dataset=dataset,
        normalisation=None,
        file=f"rslad_{model}_{dataset}.pth",
        url=None,
        page=RSLAD,
        sha256=None,
        threat="linf 8/255",
        note="the authors' README announces the students, but no link to a file could be verified; their scripts save "
        "a state dict from DataParallel, in some versions under `student`, and name it by its accuracy: rename it",
    )


def _robustbench(
    model: str, architecture: dict[str, Any], dataset: str, drive: str, published: str, more: str
) -> KnownCheckpoint:
    """Returns the entry of a model of RobustBench's zoo that is one of the architectures here.

    It needs no package of RobustBench. Its file lies where that package puts it.

    Args:
        model: name in RobustBench's zoo.
        architecture: `{"name": NAME, **arguments}`; a `dm_wide_resnet` is normalised by the numbers of its dataset.
        dataset: name of the dataset.
        drive: id of the file on Google Drive, as RobustBench 1.1.1 has it.
        published: clean and AutoAttack accuracy (percent, full test set) of RobustBench, or of the authors.
        more: a remark.
    """
    return KnownCheckpoint(
        architecture=architecture,
        dataset=dataset,
        normalisation=dataset if architecture["name"] == "dm_wide_resnet" else None,
        file=f"robustbench/{dataset}/Linf/{model}.pt",
        url=None,
        page=f"https://drive.google.com/file/d/{drive}/view",
        sha256=None,
        threat="linf 8/255",
        drop=UNUSED_PREFIXES.get(architecture["name"], ()),
        note=f"published clean / AutoAttack: {published}; {more}. RobustBench's {model}",
    )


# Prefixes of keys to drop from your own files, by architecture: TRADES' class, and many after it, has an unused stage.
UNUSED_PREFIXES: dict[str, tuple[str, ...]] = {"wide_resnet": ("sub_block1.",)}

EXTRA = "trained with extra images that were withdrawn"
DDPM = "trained with CutMix and 1M generated images"

SOURCES: dict[str, KnownCheckpoint] = {
    "trades_wrn_34_10": KnownCheckpoint(
        architecture={"name": "wide_resnet", "depth": 34, "width": 10},
        dataset="cifar10",
        normalisation=None,
        file="model_cifar_wrn.pt",
        url=None,
        page="https://drive.google.com/file/d/10sHvaXhTNZGz618QmD5gSOAjO3rMzV33/view",
        sha256=None,
        threat="linf 0.031",
        drop=UNUSED_PREFIXES["wide_resnet"],
        note="published clean / AutoAttack at 0.031: 84.92 / 53.08. RSLAD's CIFAR-10 teacher. The page is linked from "
        "the README of yaodongyu/TRADES and needs a browser. A third party, not the authors, records the sha256 "
        "2ede52bd042bbdf40a0c27e8008034afd9cbb0b256b9077a255e555d25f957f4",
    ),
    "deepmind_wrn_70_16_cifar100": _deepmind(
        "cifar100_linf_wrn70-16_without.pt",
        70,
        16,
        "60.86 / 30.03",
        more="RSLAD's CIFAR-100 teacher, which RSLAD's code normalises with `cifar10`, DeepMind's and RobustBench's "
        "with `cifar100`. A third party, not the authors, records the sha256 "
        "3114df6b9d5adf9f275e8fea5a91b71c61df78a568ad31544b6950807d595c8c",
    ),
    "deepmind_wrn_70_16_cifar100_extra": _deepmind(
        "cifar100_linf_wrn70-16_with.pt", 70, 16, "69.15 / 36.88", more=EXTRA
    ),
    "deepmind_wrn_70_16_cifar100_ddpm": _deepmind(
        "cifar100_linf_wrn70-16_cutmix_ddpm.pt", 70, 16, "63.56 / 34.64", more=DDPM
    ),
    "deepmind_wrn_28_10_cifar100_ddpm": _deepmind(
        "cifar100_linf_wrn28-10_cutmix_ddpm.pt", 28, 10, "62.41 / 32.06", more=DDPM
    ),
    "deepmind_wrn_70_16_cifar10": _deepmind("cifar10_linf_wrn70-16_without.pt", 70, 16, "85.29 / 57.20"),
    "deepmind_wrn_34_20_cifar10": _deepmind("cifar10_linf_wrn34-20_without.pt", 34, 20, "85.64 / 56.86"),
    "deepmind_wrn_70_16_cifar10_extra": _deepmind("cifar10_linf_wrn70-16_with.pt", 70, 16, "91.10 / 65.88", more=EXTRA),
    "deepmind_wrn_28_10_cifar10_extra": _deepmind("cifar10_linf_wrn28-10_with.pt", 28, 10, "89.48 / 62.80", more=EXTRA),
    "deepmind_wrn_106_16_cifar10_ddpm": _deepmind(
        "cifar10_linf_wrn106-16_cutmix_ddpm_v2.pt", 106, 16, "88.50 / 64.64", more=DDPM
    ),
    "deepmind_wrn_70_16_cifar10_ddpm": _deepmind(
        "cifar10_linf_wrn70-16_cutmix_ddpm_v2.pt", 70, 16, "88.54 / 64.25", more=DDPM
    ),
    "deepmind_wrn_28_10_cifar10_ddpm": _deepmind(
        "cifar10_linf_wrn28-10_cutmix_ddpm_v2.pt", 28, 10, "87.33 / 60.75", more=DDPM
    ),
    "deepmind_wrn_70_16_cifar10_l2": _deepmind("cifar10_l2_wrn70-16_without.pt", 70, 16, "90.90 / 74.50", "l2 128/255"),
    "deepmind_wrn_70_16_cifar10_l2_extra": _deepmind(
        "cifar10_l2_wrn70-16_with.pt", 70, 16, "94.74 / 80.53", "l2 128/255", EXTRA
    ),
    "deepmind_wrn_70_16_cifar10_l2_ddpm": _deepmind(
        "cifar10_l2_wrn70-16_cutmix_ddpm_v2.pt", 70, 16, "92.41 / 80.42", "l2 128/255", DDPM
    ),
    "deepmind_wrn_28_10_cifar10_l2_ddpm": _deepmind(
        "cifar10_l2_wrn28-10_cutmix_ddpm_v2.pt", 28, 10, "91.79 / 78.80", "l2 128/255", DDPM
    ),
    "ltd_wrn_34_10_cifar10": _robustbench(
        "Chen2021LTD_WRN34_10",
        {"name": "wide_resnet", "depth": 34, "width": 10},
        "cifar10",
        "1-0RoQKYvHLNh7hZ71wJjSit1XtrJQo9D",
        "85.21 / 56.94",
        "LTD (Chen and Lee, 2021), a teacher of IGDM and SAAD",
    ),
    "ltd_wrn_34_20_cifar10": _robustbench(
        "Chen2021LTD_WRN34_20",
        {"name": "wide_resnet", "depth": 34, "width": 20},
        "cifar10",
        "1-5JmY9rapuGwCUc2nPvy7Rb_sn_dHhFm",
        "86.03 / 57.71",
        "LTD, the teacher of AdaAD",
    ),
    "ltd_wrn_34_10_cifar100": _robustbench(
        "Chen2021LTD_WRN34_10",
        {"name": "wide_resnet", "depth": 34, "width": 10},
        "cifar100",
        "1-I4NZyULdEWH46b4EaCTxuuRo4eFXsg_",
        "64.07 / 30.59",
        "LTD, the teacher of AdaAD",
    ),
    "bdm_wrn_28_10_cifar10": _robustbench(
        "Wang2023Better_WRN-28-10",
        {"name": "dm_wide_resnet", "depth": 28, "width": 10},
        "cifar10",
        "1-6MYKJdECDVGaWjj6GgqvaT95BGKhUvI",
        "92.44 / 67.31",
        "BDM (Wang et al., 2023), trained by TRADES with generated images",
    ),
    "bdm_wrn_28_10_cifar100": _robustbench(
        "Wang2023Better_WRN-28-10",
        {"name": "dm_wide_resnet", "depth": 28, "width": 10},
        "cifar100",
        "1-jOu3wKWyw0XnBCXDGR32xn8Bw9GTJgh",
        "72.58 / 38.83",
        "BDM, trained with generated images, IGDM's teacher",
    ),
    "gowal2021_wrn_28_10_cifar10": _robustbench(
        "Gowal2021Improving_28_10_ddpm_100m",
        {"name": "dm_wide_resnet", "depth": 28, "width": 10},
        "cifar10",
        "12L8YE6VBgUDKyW6GMSNefSYj2gg4LEKx",
        "87.50 / 63.44",
        "Gowal et al. (2021), trained with 100M generated images, a teacher of SAAD",
    ),
    "bartoldson_wrn_94_16_cifar10": _robustbench(
        "Bartoldson2024Adversarial_WRN-94-16",
        {"name": "dm_wide_resnet", "depth": 94, "width": 16},
        "cifar10",
        "1g6o9H1b6vjoBi1USdCBt64C8B8LPiioX",
        "93.68 / 73.71",
        "Bartoldson et al. (2024), trained with generated images, a teacher of SAAD",
    ),
    "rslad_resnet18_cifar10": _rslad("resnet18", {"name": "resnet", "depth": 18, "width": 64}, "cifar10"),
    "rslad_resnet18_cifar100": _rslad("resnet18", {"name": "resnet", "depth": 18, "width": 64}, "cifar100"),
    "rslad_mobilenet_v2_cifar10": _rslad("mobilenet_v2", {"name": "mobilenet_v2", "width": 32}, "cifar10"),
    "rslad_mobilenet_v2_cifar100": _rslad("mobilenet_v2", {"name": "mobilenet_v2", "width": 32}, "cifar100"),
    "ard_mobilenet_v2_cifar10": KnownCheckpoint(
        architecture={"name": "mobilenet_v2", "width": 32},
        dataset="cifar10",
        normalisation=None,
        file="ard_mobilenet_v2_cifar10.t7",
        url=None,
        page="https://drive.google.com/drive/folders/15Od-zi6HGwQoIym3AkLGzLVPaR8oH9UR",
        sha256=None,
        threat="linf 8/255",
        note="distilled by ARD from TRADES' WRN-34-10. The page is linked from the README of "
        "goldblum/AdversariallyRobustDistillation; its script saves the state dict under `net`, as epoch=N.t7: "
        "rename it. The published file itself was not seen",
    ),
    "pyautoattack_resnet18": KnownCheckpoint(
        architecture={"name": "resnet", "depth": 18, "width": 64},
        dataset="cifar10",
        normalisation=None,
        file="model_test.pt",
        url=None,
        page="https://pypi.org/project/pyautoattack/0.2.0/",
        sha256="399f52da9f914c323fa5a6096d60f460a3449a59b64a6405200c1e629f8425a7",
        threat="none",
        package="pyautoattack/examples",
        note="lies in every installation. Accurate, not robust. The sha256 is that of the file in the wheel "
        "of version 0.2.0, whose own RECORD states it",
    ),
}


def names() -> tuple[str, ...]:
    """Returns the names that an experiment file may use as `source` of an imported teacher.

    The names are the keys of the dict SOURCES, such as `trades_wrn_34_10`, `file` (a file of the user's own) and
    `robustbench` (a model of RobustBench's zoo).
    """
    return (*SOURCES, OWN_FILE, ROBUSTBENCH)
