"""Counts the calls of networks in a training, and the floating-point operations (FLOPs) of calls.

The unit of operations is f, the forward FLOPs of one image. A gradient in the image costs as much again, a gradient in
the weights too. A training decides by its FLOPs whether it is compiled, so this module is part of its code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from robust_distillation import augmentations
from robust_distillation.config import Experiment, Recipe
from robust_distillation.digests import canonical
from robust_distillation.training.schedule import CURVE_IMAGES, validation_epochs

# Cost of a call per image, in f, by kind. `ask` and a `query` of Square: forward. A step of PGD (`attack`) and of
# APGD: forward, and backward to the image. A step of FAB: one more forward. `train`: backward to the weights too.
FORWARDS = {"ask": 1, "query": 1, "attack": 2, "apgd": 2, "fab": 3, "train": 3}

_counted_calls: dict[str, Counter[tuple[str, str, str]]] = {}  # by settings: many runs share them


@dataclass(frozen=True)
class Calls:
    """Calls of one network, all of one kind and on equally many images, from which the cost of a job is counted.

    A job is one run of a step of the workflow, such as the training of one student. `planning.calls.training` and the
    functions of `planning.cost` return lists of `Calls`.

    Attributes:
        network: the architecture, `{"name": NAME, **arguments}`, as canonical JSON text, for example
            `{"depth":18,"name":"resnet"}`.
        f: floating-point operations of the forward pass of one image.
        kind: `ask` (forward pass), `query` (forward pass of Square attack), `attack` (step of PGD), `apgd` (step of
            APGD), `fab` (step of FAB) or `train` (forward and backward pass to the weights).
        calls: number of calls that each device makes; may be a fraction.
        images: number of images of one call on one device; may be a fraction.
        use: use of the network, which decides its precision. `answer`: predictions that count, in float32. `search`:
            the bfloat16 copy that only proposes adversarial images. `train`: a network in training.
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
    """Returns the number of floating-point operations of all calls in `work`, on all devices.

    One call costs (number of images) x f x (factor of its kind), where f is the cost of the forward pass of one image.
    The factor is 1 for a forward pass, 2 for a step of PGD or APGD, 3 for a step of FAB or of training.

    Args:
        work: calls of networks, as `planning.calls.training` or `planning.cost.attacking` return them: lists of `Calls`
            with the fields `network`, `f` (operations of the forward pass of one image), `kind`, `calls`, `images` and
            `devices`.
    """
    return sum(part.flops for part in work)


class Network:
    """Collector of the calls of one network.

    Attributes:
        work: the calls so far, a list of `Calls`, in the order in which they were added.
    """

    def __init__(self, experiment: Experiment, architecture: dict[str, Any], use: str = "answer", devices: int = 1):
        """Starts without calls.

        Args:
            experiment: the parsed experiment file, as `config.load` returns it. Its dataset gives the size of images.
            architecture: name of a registered architecture and its arguments, such as `{"name": "resnet"}`.
            use: `answer`: predictions that count, in float32. `search`: the bfloat16 copy that only proposes
                adversarial images. `train`: a network in training.
            devices: number of devices (GPUs) that share the images of each call.
        """
        self.name, self.f, self.work = canonical(architecture), forward(experiment, architecture), []
        self.use, self.devices = use, devices

    def add_calls(self, kind: str, calls: float, images: float) -> None:
        """Adds calls of one kind.

        Args:
            kind: `ask` (forward pass), `query` (forward pass of Square attack), `attack` (step of PGD), `apgd` (step of
                APGD), `fab` (step of FAB) or `train` (forward and backward pass to the weights).
            calls: number of calls, may be a fraction; with 0 nothing is added.
            images: number of images of one call, which the devices share; with 0 nothing is added.
        """
        if calls and images:
            share = images / self.devices
            self.work.append(Calls(self.name, self.f, kind, calls, share, self.use, self.devices))

    def add_attack(self, calls: dict[str, int], times: float, images: float) -> None:
        """Adds runs of an attack.

        Args:
            calls: number of calls of one run of the attack, by kind, for example `{"attack": 20, "ask": 1}` for 20
                steps of PGD and one forward pass.
            times: number of runs of the attack, may be a fraction.
            images: number of images of one run, which the devices share.
        """
        for kind, count in calls.items():
            self.add_calls(kind, count * times, images)


def training(
    experiment: Experiment, recipe: Recipe, architecture: dict[str, Any], teacher: str | None, devices: int = 1
) -> list[Calls]:
    """Returns the calls of one training: of the student, its teachers, the networks that the method trains besides, and
    of the validations.

    The calls of an optimisation step are counted by running the method's code once, on tiny networks, for each phase (a
    range of epochs in which every optimisation step makes the same calls). A validation, which every device does on all
    images, is counted for one device. Teacher outputs that are read from a cache cost nothing; those of an augmentation
    with the option `cache: live` are counted.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        recipe: how the network is trained: `method` (distillation or training method with its settings) and `training`
            (epochs, batch size, inner attack, selection of the checkpoint), for example `experiment.recipes["rslad",
            "small"]`.
        architecture: architecture of the network that is trained, name of a registered architecture and its arguments,
            for example `{"name": "resnet", "depth": 18}`.
        teacher: name of a teacher, for example `wide`, or of an entry such as `pair: {roles: {robust: wrn, natural:
            resnet}}` under `teachers` in the experiment file, which names one teacher for each role (name under which
            the method calls a teacher). None or `none` for a method without a teacher.
        devices: number of devices (GPUs) that share each batch.

    Returns:
        One `Calls` for each network and kind of call, with the fields `network` (architecture as JSON text), `kind`
        (such as `ask`, a forward pass, or `attack`, a step of PGD), `calls` (number of calls) and `images` (number of
        images of one call). `planning.calls.flops` sums their floating-point operations.
    """
    settings, batch = recipe.training, recipe.training.batch_size
    steps = experiment.size("train") / batch  # of an epoch
    networks = _networks(experiment, recipe, architecture, teacher, devices)
    for (group, name, kind), calls in _calls(experiment, recipe, architecture).items():
        if group != "cache":
            networks[group, name].add_calls(kind, calls * steps, batch)
    by = settings.selection.attack
    kind, each = ("apgd", settings.selection.steps) if by == "apgd" else ("attack", {"pgd10": 10, "pgd_trades": 20}[by])
    validation = Network(experiment, architecture)
    images = experiment.size("validation") + min(CURVE_IMAGES, experiment.size("train"))
    validation.add_attack({kind: each, "ask": 2}, validation_epochs(settings), images)
    average = Network(experiment, architecture, devices=devices)
    if settings.averaging and settings.averaging.batch_norm == "reestimate":
        average.add_calls("ask", validation_epochs(settings, settings.averaging.start), experiment.size("train"))
    work = [part for network in (*networks.values(), validation, average) for part in network.work]
    if augmentations.from_settings(settings.augmentation).asks_live:
        work += asking(experiment, recipe, architecture, teacher, devices)
    return work


def asking(
    experiment: Experiment, recipe: Recipe, architecture: dict[str, Any], teacher: str | None, devices: int = 1
) -> list[Calls]:
    """Returns the calls by which the teachers' networks compute their outputs on the clean (not attacked) images of one
    training.

    They are needed only if the outputs are not read from a cache: with an augmentation whose option `cache` is `live`.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        recipe: how the network is trained: `method` (distillation or training method with its settings) and `training`
            (epochs, batch size, inner attack, selection of the checkpoint), for example `experiment.recipes["rslad",
            "small"]`.
        architecture: architecture of the network that is trained, name of a registered architecture and its arguments,
            for example `{"name": "resnet", "depth": 18}`.
        teacher: name of a teacher, for example `wide`, or of an entry such as `pair: {roles: {robust: wrn, natural:
            resnet}}` under `teachers` in the experiment file, which names one teacher for each role (name under which
            the method calls a teacher). None or `none` for a method without a teacher.
        devices: number of devices (GPUs) that share each batch.

    Returns:
        One `Calls` for each teacher, with the fields `network` (architecture as JSON text), `kind` (`ask`, a forward
        pass), `calls` (number of calls) and `images` (number of images of one call).
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
) -> dict[tuple[str, str], Network]:
    """Returns the networks that a training calls, by group and name as in `training.counting`."""
    method, roles = recipe.method.settings, experiment.roles(teacher) if teacher else {}
    found = {("student", "student"): Network(experiment, architecture, "train", devices)}
    for name, own in method.networks(architecture).items():
        found["own", name] = Network(experiment, own, "train", devices)
    for role, calls in method.teachers().items():
        its = experiment.teachers[roles[role]].architecture
        found["teacher", role] = Network(experiment, its, devices=devices)
        if calls.trained:
            found["own", role] = Network(experiment, its, "train", devices)
    return found


def _calls(experiment: Experiment, recipe: Recipe, architecture: dict[str, Any]) -> Counter[tuple[str, str, str]]:
    """Counts the calls per batch, summed over all epochs, by running one step of each of the method's phases."""
    threat, own = experiment.threat_model.model_dump(), [*recipe.method.settings.networks(architecture)]
    key = canonical([recipe.method.resolved(), recipe.training.model_dump(), threat, experiment.info.shape, own])
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


def forward(experiment: Experiment, architecture: dict[str, Any]) -> int:
    """Returns the number of floating-point operations of the forward pass of one image; a multiply-add counts as 2.

    Args:
        experiment: the parsed experiment file, as `config.load` returns it. Image shape and number of classes of its
            dataset are used.
        architecture: name of a registered architecture and its arguments, for example `{"name": "resnet", "depth":
            18}`.
    """
    return counted("forward_flops", canonical(architecture), experiment.info.shape, len(experiment.info.classes))


@cache
def counted(what: str, architecture: str, shape: tuple[int, int, int], classes: int) -> int:
    """Calls a function of `models.flops` for an architecture and keeps the result, so that each number is counted once.

    Args:
        what: name of the function: `forward_flops` (floating-point operations of one image), `parameter_bytes` or
            `feature_width`.
        architecture: name of a registered architecture and its arguments as canonical JSON text, for example
            `{"depth":18,"name":"resnet"}`.
        shape: (channels, height, width) of an image.
        classes: number of classes.

    Returns:
        The result of the function, an int.
    """
    import json

    from robust_distillation.models import flops

    return getattr(flops, what)(json.loads(architecture), shape, classes)
