"""Cost of the steps of an experiment but trainings, before any of them runs: calls of each network, sizes of files.

From the calls follow floating-point operations, and time on a machine that was measured. See `calls`, which counts
those of trainings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from robust_distillation import attacks
from robust_distillation.columns import AUGMENTED, ON_SURROGATE, attack_of
from robust_distillation.config import Cache, Experiment, ViewSet
from robust_distillation.digests import canonical
from robust_distillation.planning.calls import Calls, Network, counted

PGD = {"attack": 20, "ask": 1}
# Calls for an image that no attack fools. AutoAttack: 100 steps of APGD-CE, 9 x 100 of APGD-T, 9 x 100 of FAB-T, 5,000
# queries of Square; 9,700 f, which agrees with a measurement.
ATTACKS = {
    "fgsm": {"attack": 1, "ask": 1},
    **dict.fromkeys(("pgd20", "pgd_sat", "pgd_trades", "cw"), PGD),
    "mifgsm": {"attack": 10, "ask": 1},
    "square": {"query": 5000},
    "apgd_ce_t": {"apgd": 1000},
    "autoattack": {"apgd": 1000, "fab": 900, "query": 5000},
}
OTHER_ATTACK = {"attack": 50}  # assumed for an attack of another package
QUERIED = ("square", "apgd_ce_t", "autoattack")  # an image is left out once it is misclassified
SURVIVORS = 0.5  # assumed share of the images that QUERIED attacks do not fool
ROBUSTNESS = {"apgd": 50, "ask": 2}  # for each eps of the curve, as if no image was fooled at a smaller eps
FILLED_AT_ONCE = 512  # images of one call when a cache is filled


def filling(experiment: Experiment, filled: Cache) -> list[Calls]:
    """Returns the calls that fill one cache of a teacher: one forward pass of every view of every training image, in
    batches of 512.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        filled: the cache, an element of `experiment.caches`: `teacher` (its name), `kind` (`logits` or `features`) and
            `views` (the augmentation, seed and epochs).

    Returns:
        One `Calls` for each network and kind of call, with the fields `network` (architecture as JSON text), `kind`
        (such as `ask`, a forward pass, or `attack`, a step of PGD), `calls` (number of calls) and `images` (number of
        images of one call). `planning.calls.flops` sums their floating-point operations.
    """
    teacher = Network(experiment, experiment.teachers[filled.teacher].architecture)
    teacher.add_calls("ask", cached_rows(experiment, filled.views) / FILLED_AT_ONCE, FILLED_AT_ONCE)
    return teacher.work


def labelling(experiment: Experiment, architecture: dict[str, Any]) -> list[Calls]:
    """Returns the work of labelling the extra training images: one call of a teacher's network on each.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        architecture: architecture of the teacher, `{"name": NAME, **arguments}`.
    """
    teacher = Network(experiment, architecture)
    teacher.add_calls("ask", experiment.extra_images / FILLED_AT_ONCE, FILLED_AT_ONCE)
    return teacher.work


def attacking(experiment: Experiment, architecture: dict[str, Any], checkpoints: int) -> list[Calls]:
    """Returns the calls of all attacks of the evaluation on one trained model.

    The attacks are `evaluation.attacks` of the experiment file. `transfer_pgd20` is pgd20 crafted on the surrogate,
    another network (the teacher `evaluation.surrogate`); its calls are those of the surrogate's network.
    `transfer_augmented_pgd20` asks it about several transformed copies of each image.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        architecture: architecture of the model, name of a registered architecture and its arguments, for example
            `{"name": "resnet", "depth": 18}`.
        checkpoints: number of checkpoints of the model that are attacked.

    Returns:
        One `Calls` for each network and kind of call, with the fields `network` (architecture as JSON text), `kind`
        (such as `ask`, a forward pass, or `attack`, a step of PGD), `calls` (number of calls) and `images` (number of
        images of one call). `planning.calls.flops` sums their floating-point operations.
    """
    images = experiment.test_images
    block = min(images, experiment.evaluation.block_size)
    work: list[Calls] = []
    names = experiment.evaluation.attacks
    for i, name in enumerate(names):
        on_surrogate = name.startswith(ON_SURROGATE)
        copies = len(experiment.model_augmentation.all_copies) if name.startswith(AUGMENTED) else 1
        at = experiment.teachers[experiment.surrogate].architecture if on_surrogate else architecture
        use = "search" if experiment.evaluation.search == "bf16" and not on_surrogate else "answer"
        times = checkpoints * images / block
        before = attacks.continued_by(name)
        saved = attack_of(before) if before in names[:i] else None
        work += attack(experiment, at, attack_of(name), times, block, use, copies, saved)
    return work


def attack(
    experiment: Experiment, architecture: dict[str, Any], name: str, times: float, images: float, use: str = "answer",
    copies: int = 1, saved: str | None = None,
) -> list[Calls]:  # fmt: skip
    """Returns the calls of one attack.

    Square and AutoAttack are counted on half of the images: both attacks drop an image as soon as it is misclassified,
    and half of the images are assumed to resist. An attack of another package is counted as 50 steps of PGD.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        architecture: architecture of the attacked network, name of a registered architecture and its arguments, for
            example `{"name": "resnet", "depth": 18}`.
        name: name of the attack, without the prefix `transfer_`, for example `pgd20`.
        times: number of times that the attack is run; may be a fraction.
        images: number of images of each run.
        use: `answer`: predictions that count, in float32. `search`: the bfloat16 copy that only proposes adversarial
            images.
        copies: number of transformed copies of each image that the attack asks the network about in each step.
        saved: name of an attack that the images have been through and that this one goes on from; None: there is none.

    Returns:
        One `Calls` for each network and kind of call, with the fields `network` (architecture as JSON text), `kind`
        (such as `ask`, a forward pass, or `attack`, a step of PGD), `calls` (number of calls) and `images` (number of
        images of one call). `planning.calls.flops` sums their floating-point operations.
    """
    network = Network(experiment, architecture, use)
    share = SURVIVORS if name in QUERIED else 1
    for kind, count in ATTACKS.get(name, OTHER_ATTACK).items():
        count -= ATTACKS[saved].get(kind, 0) if saved else 0
        network.add_calls(kind, count * times, images * share * (1 if kind == "ask" else copies))
    return network.work


def structure(experiment: Experiment, architecture: dict[str, Any]) -> list[Calls]:
    """Returns the calls of the structure analysis of one model (how its logits correlate between classes, and how far
    PGD moves its features): 20 steps of PGD on the images.

    Args:
        experiment: the parsed experiment file, as `config.load` returns it. It must have the key `structure`, which
            decides the number of images.
        architecture: architecture of the model, name of a registered architecture and its arguments, for example
            `{"name": "resnet", "depth": 18}`.

    Returns:
        One `Calls` for each network and kind of call, with the fields `network` (architecture as JSON text), `kind`
        (such as `ask`, a forward pass, or `attack`, a step of PGD), `calls` (number of calls) and `images` (number of
        images of one call). `planning.calls.flops` sums their floating-point operations.
    """
    network = Network(experiment, architecture)
    network.add_attack(PGD, 1, experiment.structure_images)
    return network.work


def robustness(experiment: Experiment, architecture: dict[str, Any]) -> list[Calls]:
    """Returns the calls that measure one model's accuracy at each radius eps that the experiment lists (50 steps of
    APGD for each), and those for its stored adversarial images (20 steps of PGD).

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it. It must have
            the key `robustness`, with the list `eps` (in the pixel range [0,1], such as 8/255) and `gallery`, the
            number of stored images.
        architecture: architecture of the model, name of a registered architecture and its arguments, for example
            `{"name": "resnet", "depth": 18}`.

    Returns:
        One `Calls` for each network and kind of call, with the fields `network` (architecture as JSON text), `kind`
        (such as `ask`, a forward pass, or `attack`, a step of PGD), `calls` (number of calls) and `images` (number of
        images of one call). `planning.calls.flops` sums their floating-point operations.
    """
    network, asked = Network(experiment, architecture), experiment.file.robustness
    network.add_attack(ROBUSTNESS, len(asked.eps), experiment.robustness_images)
    network.add_attack(PGD, 1, asked.gallery)
    return network.work


def transfer(experiment: Experiment, architecture: dict[str, Any], target: str) -> list[Calls]:
    """Returns the calls of the transfer of one model to another dataset: features of all training and validation
    images, and the attacks. The training of the linear head is neglected.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        architecture: architecture of the model, name of a registered architecture and its arguments, for example
            `{"name": "resnet", "depth": 18}`.
        target: name of the other dataset, a key under `transfer` in the experiment file, for example `parity`.

    Returns:
        One `Calls` for each network and kind of call, with the fields `network` (architecture as JSON text), `kind`
        (such as `ask`, a forward pass, or `attack`, a step of PGD), `calls` (number of calls) and `images` (number of
        images of one call). `planning.calls.flops` sums their floating-point operations.
    """
    network, asked = Network(experiment, architecture), experiment.file.transfer[target]
    sizes = experiment.target_info(target).sizes
    images = asked.images or sizes["test"]
    network.add_calls("ask", 1, (sizes["train"] or 0) + (sizes["validation"] or 0))
    block = min(images, experiment.evaluation.block_size)
    return network.work + [
        part for name in asked.attacks for part in attack(experiment, architecture, name, images / block, block)
    ]


def shared(work: list[Calls], jobs: int) -> list[Calls]:
    """Divides calls among several jobs that share work equally, and returns the calls of one of these jobs.

    Args:
        work: calls of networks of the whole work, a list of `Calls` as `attacking` returns it.
        jobs: number of jobs that share the work, at least 1.

    Returns:
        New `Calls`, as many as in `work`, with each number of calls divided by `jobs`.
    """
    return [replace(part, calls=part.calls / jobs) for part in work]


def views_per_image(experiment: Experiment, views: ViewSet) -> int:
    """Returns the number of views of a training image, a view being what the augmentation makes of the image.

    For crops and flips (`crop_flip`) it is 162 for a padding of 4 with mirroring. For an augmentation that draws anew
    in every epoch it is the number of epochs.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        views: the augmentation with its options, the seed and the epochs of a training, as `experiment.view_set`
            returns them.
    """
    from robust_distillation.pipeline.experiment_data import views_of

    return len(views_of(experiment, views))


def cached_rows(experiment: Experiment, views: ViewSet) -> int:
    """Returns the number of rows of a teacher's cache: training images, with extra ones, times views of each
    image.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        views: the augmentation with its options, the seed and the epochs of a training, as `experiment.view_set`
            returns them.
    """
    return (experiment.size("train") + experiment.extra_images) * views_per_image(experiment, views)


def cache_width(experiment: Experiment, teacher: str, kind: str) -> int:
    """Returns the number of values that a teacher's cache has for each view of an image.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        teacher: name of the teacher, for example `wide`.
        kind: `logits` or `features`.

    Returns:
        The number of classes for `logits`, the width of the penultimate features for `features`.
    """
    if kind == "logits":
        return len(experiment.info.classes)
    architecture = canonical(experiment.teachers[teacher].architecture)
    return counted("feature_width", architecture, experiment.info.shape, len(experiment.info.classes))


def cache_bytes(experiment: Experiment, filled: Cache) -> int:
    """Returns the size of a teacher's cache in bytes: 4 for each value of each view of each training image.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        filled: the cache, an element of `experiment.caches`: `teacher` (its name), `kind` (`logits` or `features`) and
            `views` (the augmentation, seed and epochs).
    """
    return 4 * cached_rows(experiment, filled.views) * cache_width(experiment, filled.teacher, filled.kind)


def weights(experiment: Experiment, architecture: dict[str, Any]) -> int:
    """Returns the size of a model's parameters and buffers in bytes.

    Args:
        experiment: the parsed experiment file, as `config.load` returns it. Image shape and number of classes of its
            dataset are used.
        architecture: name of a registered architecture and its arguments, for example `{"name": "resnet", "depth":
            18}`.
    """
    return counted("parameter_bytes", canonical(architecture), experiment.info.shape, len(experiment.info.classes))
