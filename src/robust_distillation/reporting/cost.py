"""What the steps of an experiment will cost, in floating-point operations and bytes, before any of them runs.

The unit is f, the forward FLOPs of one image. A gradient in the image costs as much again, one in the weights too: 2 f
for a step of an attack, 3 f for a training pass.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from robust_distillation.config import ON_SURROGATE, Experiment, Recipe
from robust_distillation.files import canonical
from robust_distillation.training.schedule import looks

# Forward passes per image, its final look included. AutoAttack for one that survives: 100 steps of APGD-CE, 9 x 100
# of APGD-T, 9 x 100 of FAB-T at 3 f, 5,000 queries of Square; 9,700 f where it was measured.
ATTACKS = {"fgsm": 3, "pgd20": 41, "pgd_sat": 41, "pgd_trades": 41, "cw": 41, "square": 5000, "autoattack": 9700}
QUERIED = ("square", "autoattack")  # stop at images that fell
APGD = 102  # 50 steps, for each eps of the robustness curve; images that fell earlier are counted too
SURVIVORS = 0.5  # share of the images that these attacks work through to the end: an assumption
OTHER_ATTACK = 100  # of one that somebody added


@dataclass
class Costs:
    """FLOPs and bytes by step, for the whole experiment."""

    flops: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)


def costs(experiment: Experiment) -> Costs:
    found, views = Costs(), views_of(experiment)
    for teacher in experiment.teachers.values():
        checkpoints = 1 if teacher.imported else 2
        found.bytes["checkpoints"] += checkpoints * weights(experiment, teacher.architecture)
        if teacher.recipe:
            found.flops["train-teacher"] += training(experiment, teacher.recipe, teacher.architecture, None)
        found.flops["attack"] += attacking(experiment, teacher.architecture, 1)
        found.flops += analysing(experiment, teacher.architecture)
        found.bytes["checkpoints"] += len(experiment.file.transfer) * weights(experiment, teacher.architecture)
    for name, kind in experiment.caches:
        architecture = experiment.teachers[name].architecture
        rows = experiment.size("train") * views
        found.flops["fill-cache"] += rows * forward(experiment, architecture)
        found.bytes["cache"] += 4 * rows * cache_width(experiment, name, kind)
    for teacher, student, method in experiment.tuned:
        for candidate in experiment.candidates[method]:
            recipe = experiment.short_recipe(student, method, candidate)
            found.flops["tune"] += training(experiment, recipe, experiment.students[student], teacher)
    for run in experiment.runs:
        architecture, recipe = experiment.students[run.student], experiment.recipes[run.method, run.student]
        found.bytes["checkpoints"] += 2 * weights(experiment, architecture)
        found.flops["train-student"] += training(experiment, recipe, architecture, run.teacher)
        found.flops["attack"] += attacking(experiment, architecture, len(experiment.evaluation.checkpoints))
        found.flops += analysing(experiment, architecture)
        found.bytes["checkpoints"] += len(experiment.file.transfer) * weights(experiment, architecture)
    return found


def training(experiment: Experiment, recipe: Recipe, architecture: dict[str, Any], teacher: str | None) -> float:
    """FLOPs of one training, with its looks for `best`."""
    needs, settings, f = recipe.method.needs, recipe.training, forward(experiment, architecture)
    per_image = 0.0
    if needs.reference:
        per_image += f
    if needs.adversarial:
        per_image += 2 * f * settings.inner_attack.steps
    passed: set[str] = set()
    for name in recipe.method.settings.passes(settings.passes, settings.epochs):
        if getattr(needs, name):
            per_image += f if name in passed else 3 * f
            passed.add(name)
    if needs.teacher_adversarial:
        per_image += forward(experiment, experiment.teachers[teacher].architecture)
    steps = {"apgd": settings.selection.steps, "pgd10": 10, "pgd_trades": 20}[settings.selection.by]
    looking = looks(settings) * experiment.size("validation") * (2 * steps + 2) * f
    return settings.epochs * experiment.size("train") * per_image + looking


def attacking(experiment: Experiment, architecture: dict[str, Any], checkpoints: int) -> float:
    """FLOPs of all attacks on one model."""
    f = forward(experiment, architecture)
    surrogate = experiment.surrogate and forward(experiment, experiment.teachers[experiment.surrogate].architecture)
    total = 0.0
    for name in experiment.evaluation.attacks:
        attacked = surrogate if name.startswith(ON_SURROGATE) else f
        total += attack_passes(name.removeprefix(ON_SURROGATE)) * attacked
    return total * checkpoints * experiment.test_images


def attack_passes(name: str) -> float:
    """Forward passes of an attack per image, on average."""
    return ATTACKS.get(name, OTHER_ATTACK) * (SURVIVORS if name in QUERIED else 1)


def analysing(experiment: Experiment, architecture: dict[str, Any]) -> Counter[str]:
    """FLOPs of each analysis of one model that the experiment asks for; all transfers together."""
    f, found = forward(experiment, architecture), Counter()
    if experiment.file.structure:
        found["structure"] = experiment.structure_images * ATTACKS["pgd20"] * f
    if robustness := experiment.file.robustness:
        attacked = experiment.robustness_images * len(robustness.eps) * APGD
        found["robustness"] = (attacked + robustness.gallery * ATTACKS["pgd20"]) * f
    for target, transfer in experiment.file.transfer.items():
        info = experiment.target_info(target)
        images = transfer.images or info.sizes["test"]
        found["transfer"] += ((info.sizes["train"] or 0) + (info.sizes["validation"] or 0)) * f
        found["transfer"] += sum(map(attack_passes, transfer.attacks)) * images * f
    return found


def views_of(experiment: Experiment) -> int:
    return (2 * experiment.dataset.padding + 1) ** 2 * (2 if experiment.info.flips else 1)


def forward(experiment: Experiment, architecture: dict[str, Any]) -> int:
    return _counted("forward_flops", canonical(architecture), experiment.info.shape, len(experiment.info.classes))


def cache_width(experiment: Experiment, teacher: str, kind: str) -> int:
    if kind == "logits":
        return len(experiment.info.classes)
    architecture = canonical(experiment.teachers[teacher].architecture)
    return _counted("feature_width", architecture, experiment.info.shape, len(experiment.info.classes))


def weights(experiment: Experiment, architecture: dict[str, Any]) -> int:
    """Bytes of a model's parameters."""
    return _counted("parameter_bytes", canonical(architecture), experiment.info.shape, len(experiment.info.classes))


@cache
def _counted(what: str, architecture: str, shape: tuple[int, int, int], classes: int) -> int:
    import json

    from robust_distillation.models import flops

    return getattr(flops, what)(json.loads(architecture), shape, classes)
