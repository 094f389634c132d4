"""Cost of the steps of an experiment, before any of them runs: calls of each network by kind and number of images.

From them follow floating-point operations, and time on a machine that was measured. The unit of operations is f, the
forward FLOPs of one image. A gradient in the image costs as much again, a gradient in the weights too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from robust_distillation import augmentations
from robust_distillation.columns import ON_SURROGATE
from robust_distillation.config import Cache, Experiment, Recipe, ViewSet
from robust_distillation.digests import canonical
from robust_distillation.training.schedule import validation_epochs

# Cost of a call per image, in f, by kind. `ask` and a `query` of Square: forward. A step of PGD (`attack`) and of
# APGD: forward, and backward to the image. A step of FAB: one more forward. `train`: backward to the weights too.
FORWARDS = {"ask": 1, "query": 1, "attack": 2, "apgd": 2, "fab": 3, "train": 3}
PGD = {"attack": 20, "ask": 1}
# Calls for an image that no attack fools. AutoAttack: 100 steps of APGD-CE, 9 x 100 of APGD-T, 9 x 100 of FAB-T, 5,000
# queries of Square; 9,700 f, which agrees with a measurement.
ATTACKS = {
    "fgsm": {"attack": 1, "ask": 1},
    **dict.fromkeys(("pgd20", "pgd_sat", "pgd_trades", "cw"), PGD),
    "square": {"query": 5000},
    "autoattack": {"apgd": 1000, "fab": 900, "query": 5000},
}
OTHER_ATTACK = {"attack": 50}  # assumed for an attack of another package
QUERIED = ("square", "autoattack")  # an image is left out once it is misclassified
SURVIVORS = 0.5  # assumed share of the images that QUERIED attacks do not fool
ROBUSTNESS = {"apgd": 50, "ask": 2}  # for each eps of the curve, as if no image was fooled at a smaller eps
FILLED_AT_ONCE = 512  # images of one call when a cache is filled


_counted_calls: dict[str, Counter[tuple[str, str, str]]] = {}  # by settings: many runs share them


@dataclass(frozen=True)
class Calls:
    """Calls of one network, all of one kind and on equally many images: the unit in which the cost of a job is counted.

    Attributes:
        network: the architecture, `{"name": NAME, **arguments}`, as canonical JSON text.
        f: floating-point operations of the forward pass of one image.
        kind: `ask` (forward pass), `query` (forward pass of Square attack), `attack` (step of PGD), `apgd` (step of
            APGD), `fab` (step of FAB) or `train` (forward and backward pass to the weights).
        calls: number of calls that each device makes; may be a fraction.
        images: number of images of one call on one device; may be a fraction.
        use: use of the network, which decides its precision: `answer` (inference in float32), `search` (inference in
            bfloat16, to propose adversarial images) or `train` (a network in training).
        devices: number of devices that each make these calls at the same time.
    """

    network: str
    f: int
    kind: str
    calls: float
    images: float
    use: str = "answer"
    devices: int = 1

    @property
    def flops(self) -> float:
        """Floating-point operations of all calls on all devices."""
        return self.devices * self.calls * self.images * FORWARDS[self.kind] * self.f


def flops(work: Iterable[Calls]) -> float:
    """Returns the number of floating-point operations of all calls in `work`, on all their devices.

    One call costs its images times f times the cost of its kind, where f is the cost of the forward pass of one image:
    1 for a forward pass, 2 for a step of PGD or APGD, 3 for a step of FAB or of training.

    Args:
        work: calls of networks, as `training` or `attacking` return them.
    """
    return sum(part.flops for part in work)


class _Network:
    """Collects the calls of one architecture."""

    def __init__(self, experiment: Experiment, architecture: dict[str, Any], use: str = "answer", devices: int = 1):
        self.name, self.f, self.work = canonical(architecture), forward(experiment, architecture), []
        self.use, self.devices = use, devices

    def add_calls(self, kind: str, calls: float, images: float) -> None:
        """Adds calls of one kind on `images` images each, which the devices share."""
        if calls and images:
            share = images / self.devices
            self.work.append(Calls(self.name, self.f, kind, calls, share, self.use, self.devices))

    def add_attack(self, calls: dict[str, int], times: float, images: float) -> None:
        """Adds `times` runs of an attack whose calls by kind are `calls`, on `images` images."""
        for kind, count in calls.items():
            self.add_calls(kind, count * times, images)


def training(
    experiment: Experiment, recipe: Recipe, architecture: dict[str, Any], teacher: str | None, devices: int = 1
) -> list[Calls]:
    """Returns the calls of one training: of the student, its teachers, the networks that the method trains besides, and
    of the validations.

    The calls of an optimisation step are counted by running the method's code once, on tiny networks, for each phase (a
    range of epochs in which every optimisation step makes the same calls). A validation, which every device does on all
    images, is counted for one device. Teacher outputs that are read from a cache cost nothing.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        recipe: how the network is trained: `method` (distillation or training method with its settings) and `training`
            (epochs, batch size, inner attack, selection of the checkpoint), for example `experiment.recipes["rslad",
            "small"]`.
        architecture: architecture of the network that is trained, name of a registered architecture and its arguments,
            for example `{"name": "resnet", "depth": 18}`.
        teacher: name of a teacher, for example `wide`, or of an entry of the experiment file that assigns several
            teachers to the roles of a method. None or `none` for a method without a teacher.
        devices: number of devices that share each batch.

    Returns:
        One `Calls` for each network and kind of call: the network as JSON text, the kind (such as `ask`, a forward
        pass), the number of calls and the images of a call. `flops` sums their operations.
    """
    settings, batch = recipe.training, recipe.training.batch_size
    steps = experiment.size("train") / batch  # of an epoch
    networks = _networks(experiment, recipe, architecture, teacher, devices)
    for (group, name, kind), calls in _calls(experiment, recipe, architecture).items():
        if group != "cache":
            networks[group, name].add_calls(kind, calls * steps, batch)
    by = settings.selection.by
    kind, each = ("apgd", settings.selection.steps) if by == "apgd" else ("attack", {"pgd10": 10, "pgd_trades": 20}[by])
    validation = _Network(experiment, architecture)
    validation.add_attack({kind: each, "ask": 2}, validation_epochs(settings), experiment.size("validation"))
    average = _Network(experiment, architecture, devices=devices)
    if settings.averaging and settings.averaging.batch_norm == "reestimate":
        average.add_calls("ask", validation_epochs(settings, settings.averaging.start), experiment.size("train"))
    work = [part for network in (*networks.values(), validation, average) for part in network.work]
    if augmentations.from_settings(settings.augmentation).asks_live:
        work += asking(experiment, recipe, architecture, teacher, devices)
    return work


def asking(
    experiment: Experiment, recipe: Recipe, architecture: dict[str, Any], teacher: str | None, devices: int = 1
) -> list[Calls]:
    """Returns the calls of the teachers' networks on the clean views of one training, if no cache answers.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        recipe: method and training settings.
        architecture: architecture of the network that is trained, `{"name": NAME, **arguments}`.
        teacher: name of a teacher, or of an entry that assigns several teachers to the roles of a method.
        devices: number of devices that share each batch.
    """
    batch = recipe.training.batch_size
    networks = _networks(experiment, recipe, architecture, teacher, devices)
    read: Counter[str] = Counter()  # of each role; logits and features that are read together come from one call
    for (group, role, _), calls in _calls(experiment, recipe, architecture).items():
        if group == "cache":
            read[role] = max(read[role], calls)
    for role, calls in read.items():
        networks["teacher", role].add_calls("ask", calls * experiment.size("train") / batch, batch)
    return [part for network in networks.values() for part in network.work]


def _networks(
    experiment: Experiment, recipe: Recipe, architecture: dict[str, Any], teacher: str | None, devices: int
) -> dict[tuple[str, str], _Network]:
    """Returns the networks that a training calls, by group and name as in `training.counting`."""
    method, roles = recipe.method.settings, experiment.roles(teacher) if teacher else {}
    found = {("student", "student"): _Network(experiment, architecture, "train", devices)}
    for name, own in method.networks(architecture).items():
        found["own", name] = _Network(experiment, own, "train", devices)
    for role, calls in method.teachers().items():
        its = experiment.teachers[roles[role]].architecture
        found["teacher", role] = _Network(experiment, its, devices=devices)
        if calls.trained:
            found["own", role] = _Network(experiment, its, "train", devices)
    return found


def _calls(experiment: Experiment, recipe: Recipe, architecture: dict[str, Any]) -> Counter[tuple[str, str, str]]:
    """Counts the calls per batch, summed over all epochs, by running one step of each of the method's phases."""
    threat = experiment.threat_model.model_dump()
    key = canonical(
        [recipe.method.resolved(), recipe.training.model_dump(), threat, experiment.info.shape, architecture]
    )
    if key not in _counted_calls:
        _counted_calls[key] = _count_calls(experiment, recipe, architecture)
    return _counted_calls[key]


def _count_calls(experiment: Experiment, recipe: Recipe, architecture: dict[str, Any]) -> Counter[tuple[str, str, str]]:
    from robust_distillation.training.counting import calls_in_step

    method, settings = recipe.method.settings, recipe.training
    perturb = settings.weight_perturbation
    starts = sorted({*method.phases(), perturb.start + 1 if perturb else 1})
    starts = [epoch for epoch in starts if epoch <= settings.epochs]
    found: Counter[tuple[str, str, str]] = Counter()
    for first, following in zip(starts, [*starts[1:], settings.epochs + 1], strict=True):
        calls = calls_in_step(method, settings, experiment.threat_model, experiment.info, architecture, first)
        for key, count in calls.items():
            found[key] += count * (following - first)
    return found


def filling(experiment: Experiment, filled: Cache) -> list[Calls]:
    """Returns the work of filling one cache of a teacher: its output on every view."""
    teacher = _Network(experiment, experiment.teachers[filled.teacher].architecture)
    teacher.add_calls("ask", cached_rows(experiment, filled.views) / FILLED_AT_ONCE, FILLED_AT_ONCE)
    return teacher.work


def attacking(experiment: Experiment, architecture: dict[str, Any], checkpoints: int) -> list[Calls]:
    """Returns the calls of all attacks of the evaluation on one trained model.

    The attacks are `evaluation.attacks` of the experiment file. An attack named `transfer_...` is crafted on the
    surrogate (the teacher `evaluation.surrogate`), and its calls are those of the surrogate's network.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        architecture: architecture of the model, name of a registered architecture and its arguments, for example
            `{"name": "resnet", "depth": 18}`.
        checkpoints: number of checkpoints of the model that are attacked.

    Returns:
        One `Calls` for each network and kind of call: the network as JSON text, the kind (such as `ask`, a forward
        pass), the number of calls and the images of a call. `flops` sums their operations.
    """
    images = experiment.test_images
    block = min(images, experiment.evaluation.block_size)
    work: list[Calls] = []
    for name in experiment.evaluation.attacks:
        on_surrogate, bare = name.startswith(ON_SURROGATE), name.removeprefix(ON_SURROGATE)
        at = experiment.teachers[experiment.surrogate].architecture if on_surrogate else architecture
        use = "search" if experiment.evaluation.search == "bf16" and not on_surrogate else "answer"
        work += attack(experiment, at, bare, checkpoints * images / block, block, use)
    return work


def attack(
    experiment: Experiment, architecture: dict[str, Any], name: str, times: float, images: float, use: str = "answer"
) -> list[Calls]:
    """Returns the calls of one attack.

    Square and AutoAttack are counted on half of the images: they stop for an image that is misclassified. An attack of
    another package is counted as 50 steps of PGD.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        architecture: architecture of the attacked network, name of a registered architecture and its arguments, for
            example `{"name": "resnet", "depth": 18}`.
        name: name of the attack, without the prefix `transfer_`, for example `pgd20`.
        times: number of times that the attack is run; may be a fraction.
        images: number of images of each run.
        use: use of the network, which decides its precision: `answer` (inference in float32) or `search` (inference in
            bfloat16).

    Returns:
        One `Calls` for each network and kind of call: the network as JSON text, the kind (such as `ask`, a forward
        pass), the number of calls and the images of a call. `flops` sums their operations.
    """
    network = _Network(experiment, architecture, use)
    share = SURVIVORS if name in QUERIED else 1
    network.add_attack(ATTACKS.get(name, OTHER_ATTACK), times, images * share)
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
        One `Calls` for each network and kind of call: the network as JSON text, the kind (such as `ask`, a forward
        pass), the number of calls and the images of a call. `flops` sums their operations.
    """
    network = _Network(experiment, architecture)
    network.add_attack(PGD, 1, experiment.structure_images)
    return network.work


def robustness(experiment: Experiment, architecture: dict[str, Any]) -> list[Calls]:
    """Returns the calls that measure one model's accuracy at each radius eps that the experiment lists (50 steps of
    APGD for each), and those for its stored adversarial images (20 steps of PGD).

    Args:
        experiment: the parsed experiment file, as `config.load` returns it. It must have the key `robustness`, with the
            list `eps` and the number of stored images, `gallery`.
        architecture: architecture of the model, name of a registered architecture and its arguments, for example
            `{"name": "resnet", "depth": 18}`.

    Returns:
        One `Calls` for each network and kind of call: the network as JSON text, the kind (such as `ask`, a forward
        pass), the number of calls and the images of a call. `flops` sums their operations.
    """
    network, asked = _Network(experiment, architecture), experiment.file.robustness
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
        One `Calls` for each network and kind of call: the network as JSON text, the kind (such as `ask`, a forward
        pass), the number of calls and the images of a call. `flops` sums their operations.
    """
    network, asked = _Network(experiment, architecture), experiment.file.transfer[target]
    sizes = experiment.target_info(target).sizes
    images = asked.images or sizes["test"]
    network.add_calls("ask", 1, (sizes["train"] or 0) + (sizes["validation"] or 0))
    block = min(images, experiment.evaluation.block_size)
    return network.work + [
        part for name in asked.attacks for part in attack(experiment, architecture, name, images / block, block)
    ]


def shared(work: list[Calls], jobs: int) -> list[Calls]:
    """Returns the calls of one of several jobs that share work equally.

    Args:
        work: calls of networks of the whole work.
        jobs: number of jobs that share the work, at least 1.

    Returns:
        `work` with each number of calls divided by `jobs`.
    """
    return [replace(part, calls=part.calls / jobs) for part in work]


def views_per_image(experiment: Experiment, views: ViewSet) -> int:
    """Returns the number of views of a training image in a set of views."""
    from robust_distillation.pipeline.experiment_data import views_of

    return len(views_of(experiment, views))


def cached_rows(experiment: Experiment, views: ViewSet) -> int:
    """Returns the number of rows of a cache: training images times views."""
    return experiment.size("train") * views_per_image(experiment, views)


def forward(experiment: Experiment, architecture: dict[str, Any]) -> int:
    """Returns the number of floating-point operations of the forward pass of one image; a multiply-add counts as 2.

    Args:
        experiment: the parsed experiment file, as `config.load` returns it. Image shape and number of classes of its
            dataset are used.
        architecture: name of a registered architecture and its arguments, for example `{"name": "resnet", "depth":
            18}`.
    """
    return _counted("forward_flops", canonical(architecture), experiment.info.shape, len(experiment.info.classes))


def cache_width(experiment: Experiment, teacher: str, kind: str) -> int:
    """Returns the number of values that a teacher's cache has for each view (crop-and-flip) of an image.

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
    return _counted("feature_width", architecture, experiment.info.shape, len(experiment.info.classes))


def cache_bytes(experiment: Experiment, filled: Cache) -> int:
    """Returns the size of a teacher's cache in bytes."""
    return 4 * cached_rows(experiment, filled.views) * cache_width(experiment, filled.teacher, filled.kind)


def weights(experiment: Experiment, architecture: dict[str, Any]) -> int:
    """Returns the size of a model's parameters and buffers in bytes.

    Args:
        experiment: the parsed experiment file, as `config.load` returns it. Image shape and number of classes of its
            dataset are used.
        architecture: name of a registered architecture and its arguments, for example `{"name": "resnet", "depth":
            18}`.
    """
    return _counted("parameter_bytes", canonical(architecture), experiment.info.shape, len(experiment.info.classes))


@cache
def _counted(what: str, architecture: str, shape: tuple[int, int, int], classes: int) -> int:
    import json

    from robust_distillation.models import flops

    return getattr(flops, what)(json.loads(architecture), shape, classes)
