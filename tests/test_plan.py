"""What `plan` says an experiment costs, against counts by hand and against what torch counts in a real step."""

from __future__ import annotations

import copy
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import REPOSITORY
from ruamel.yaml import YAML
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from robust_distillation import attacks, methods
from robust_distillation.cli import main
from robust_distillation.config import Experiment, load
from robust_distillation.data.dataset import Dataset
from robust_distillation.models.checkpoint import build_model
from robust_distillation.models.flops import parameter_bytes
from robust_distillation.models.output import Output, output
from robust_distillation.planning import calls, cost
from robust_distillation.planning.jobs import by_step, jobs_of
from robust_distillation.planning.jobs import written as written_by
from robust_distillation.planning.plan import describe
from robust_distillation.settings import Selection
from robust_distillation.training.batches import Batch
from robust_distillation.training.schedule import validation_epochs
from robust_distillation.training.teacher import Teacher
from robust_distillation.training.trainer import Trainer, build_own

EXPERIMENTS = [REPOSITORY / "params.yaml", *sorted((REPOSITORY / "experiments").glob("*.yaml"))]
RESNET, WIDE = {"architecture": "resnet", "depth": 18}, {"architecture": "wide_resnet", "depth": 34, "width": 10}
GIGA = 1e9
RESNET_F, WIDE_F = 1.111 * GIGA, 13.318 * GIGA  # forward FLOPs of a CIFAR image, counted by torch
RESNET_NAMED = {"name": "resnet", "depth": 18, "width": 64}  # as resolved
METHODS = {
    "natural": {}, "sat": {}, "trades": {}, "mart": {}, "ard": {}, "iad": {}, "rslad": {},
    "own": {"method": "rslad", "inner_labels": "student"},
}  # fmt: skip


def written(folder: Path, raw: dict) -> Experiment:
    path = folder / "experiment.yaml"
    with open(path, "w", encoding="utf-8") as stream:
        YAML(typ="safe", pure=True).dump(raw, stream)
    return load(path)


def official(folder: Path, **changes: Any) -> Experiment:
    raw = {
        "name": "plan",
        "protocol": "official",
        "dataset": {"name": "cifar10", "padding": 4},
        "threat_model": {"norm": "linf", "eps": "8/255"},
        "seeds": [0, 1],
        "teachers": {"wide": {"imported": {"source": "trades_wrn_34_10"}}},
        "students": {"resnet18": RESNET},
        "methods": METHODS,
        "evaluation": {"attacks": ["fgsm"]},
    }
    return written(folder, raw | changes)


def flops_of(experiment: Experiment) -> dict[str, float]:
    """Of the steps that compute."""
    return {step: flops for step, flops in by_step(jobs_of(experiment), lambda job: job.flops).items() if flops}


def per_image(experiment: Experiment, method: str, f: float = RESNET_F) -> float:
    """FLOPs of one image in one training step, without the validations for `best`; f: of the student's forward pass."""
    recipe = experiment.recipes[method, "resnet18"]
    whole = calls.flops(calls.training(experiment, recipe, experiment.students["resnet18"], "wide"))
    steps = {"apgd": 10, "pgd10": 10, "pgd_trades": 20}[recipe.training.selection.by]
    validation_flops = validation_epochs(recipe.training) * 10_500 * (2 * steps + 2) * f
    return (whole - validation_flops) / recipe.training.epochs / 50_000


# Training


def test_rslad_step_costs_what_was_counted(tmp_path):
    """Of the released code, by torch: inner 10 x (1.11 + 1.11) and outer 2 x (1.11 + 2.22) are 28.9 GFLOP an image. Its
    teacher's 13.3 more are in the cache here."""
    assert per_image(official(tmp_path), "rslad") / GIGA == pytest.approx(28.9, abs=0.1)


@pytest.mark.parametrize(
    ("method", "forwards", "teachers"),
    [
        ("natural", 3, 0),  # x forward and backward; no attack
        ("sat", 20 + 3, 0),  # ten steps, x' forward and backward
        ("trades", 1 + 20 + 3 + 3 + 1, 0),  # S(x) for the attack, then x, x', and x again without gradient
        ("mart", 20 + 3 + 3, 0),
        ("ard", 20 + 3 + 3, 0),
        # x' twice, x once without gradient; after 60 of 200 epochs x twice, and the teacher sees x'
        ("iad", 20 + 3 + 1 + 0.3 + 0.7 * (3 + 1), 0.7),
        ("rslad", 20 + 3 + 3, 0),
        ("own", 1 + 20 + 3 + 3, 0),  # S(x) for the attack
    ],
)
def test_training_costs_its_forward_passes(method, forwards, teachers, tmp_path):
    expected = forwards * RESNET_F + teachers * WIDE_F
    assert per_image(official(tmp_path), method) == pytest.approx(expected, rel=0.002)


def test_looks_for_best_are_paid_on_the_images_it_is_chosen_on(tmp_path):
    """20 steps of 2 f on each of 10,000 test images and 500 training images, and the predictions on x and x'."""
    experiment = official(tmp_path, training={"milestones": []})
    student = experiment.students["resnet18"]
    wide = calls.flops(calls.training(experiment, experiment.recipes["rslad", "resnet18"], student, "wide"))
    few = official(tmp_path, training={"milestones": [], "selection": {"every": 300, "every_epoch_after": None}})
    less = calls.flops(calls.training(few, few.recipes["rslad", "resnet18"], student, "wide"))
    assert wide - less == pytest.approx(95 * 10_500 * 42 * RESNET_F, rel=0.002)


@pytest.mark.parametrize(
    ("every", "after", "expected"), [(1, None, 20), (3, None, 7), (7, 15, 7), (50, None, 1), (50, 19, 1)]
)
def test_looks_in_20_epochs(every, after, expected):
    training = load(REPOSITORY / "params.yaml").training_of("rslad")
    training = training.model_copy(update={"selection": Selection(every=every, every_epoch_after=after)})
    assert validation_epochs(training) == expected  # the last epoch is always validated


class Cached(Teacher):
    """A teacher whose answers on x cost nothing."""

    def __init__(self, model: torch.nn.Module, x: torch.Tensor):
        super().__init__(model)
        self.answer = output(model, x)

    def clean(self, *_: torch.Tensor) -> Output:
        return self.answer


class Counter(TorchDispatchMode):
    """FLOPs by torch's own formulas. Its FlopCounterMode does not stand the gradients in the image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        if formula := flop_registry.get(operation.overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=found)
        return found


@pytest.mark.parametrize("perturbed", [None, "wu2020", "adr"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.slow
def test_a_real_step_costs_what_is_planned(method, perturbed, tmp_path):
    """Torch's counter over a step of the training loop. It counts a little less: where the weights' gradient is taken,
    the image's is not."""
    teacher = {"architecture": "resnet", "width": 12, "trained_by": {"method": "sat"}}
    student = {"architecture": "resnet", "width": 8}
    named = METHODS | {"iad": {"begin": 0}}  # one phase
    awp = {"weight_perturbation": {"gamma": 0.01, "variant": perturbed}} if perturbed else {}
    experiment = official(
        tmp_path, teachers={"wide": teacher}, students={"resnet18": student}, methods=named, training=awp
    )
    recipe, architecture = experiment.recipes[method, "resnet18"], experiment.students["resnet18"]
    model = build_model(architecture, (3, 32, 32), 10).train()
    x, labels, index = torch.rand(2, 3, 32, 32), torch.tensor([3, 7]), torch.arange(2)
    wide, settings = build_model(experiment.teachers["wide"].architecture, (3, 32, 32), 10), recipe.method.settings
    teachers = {role: Cached(wide, x) for role in settings.teachers()}
    trainer = Trainer(model, settings, recipe.training, experiment.threat_model, 0, teachers=teachers)
    with Counter() as counter:
        trainer.step(Batch(x, labels, index, index, recipe.training.epochs, 0, 1))
    counted, planned = (
        counter.flops / 2,
        per_image(experiment, method, calls.forward(experiment, architecture)),
    )
    assert counted == pytest.approx(planned, rel=0.03)
    assert counted <= planned


OPTIONS = {name: {"negatives": 2, "dimension": 8} for name in ("crd", "gacd")}  # the plan counts networks alone
OPTIONS["lbgat"] = {"natural": {"name": "resnet", "depth": 18, "width": 4}}


# A call is planned as one pass over the batch. TALD's are passes over particles, and over these and the batch.
OTHER_IMAGES = ("tald",)


@pytest.mark.parametrize("name", [name for name in methods.names() if name not in OTHER_IMAGES])
@pytest.mark.slow
def test_a_step_of_every_method_costs_what_is_planned(name, tmp_path):
    """Checks each phase of a method, with all that it trains or asks besides the student."""
    options = OPTIONS.get(name, {})
    method = methods.get(name)(**options)
    epochs = max(method.phases())
    wide_alone = {"wide": {"architecture": "resnet", "width": 12, "trained_by": {"method": "sat"}}}
    together = {"all": {"roles": dict.fromkeys(method.teachers(), "wide")}} if method.teachers() else {}
    experiment = official(
        tmp_path,
        protocol="controlled",
        teachers=wide_alone | together,
        students={"resnet18": {"architecture": "resnet", "width": 8}},
        methods={name: options},
        training={
            "epochs": epochs,
            "batch_size": 4,
            "learning_rate": 0.1,
            "milestones": [],
            "inner_attack": {"steps": 10, "step_size": "2/255"},
        },
        exclude=[{"teacher": "wide"}] if set(method.teachers()) == {"teacher"} else [],
    )
    recipe, architecture = experiment.recipes[name, "resnet18"], experiment.students["resnet18"]
    data = Dataset(torch.zeros(8, 3, 32, 32, dtype=torch.uint8), torch.arange(8), experiment.info)
    x, labels, index = torch.rand(4, 3, 32, 32), torch.tensor([3, 7, 1, 2]), torch.arange(4)

    def counted(epoch: int) -> float:
        student = build_model(architecture, (3, 32, 32), 10).train()
        wide = build_model(experiment.teachers["wide"].architecture, (3, 32, 32), 10)
        teachers = {role: Cached(wide, x) for role in method.teachers()}
        copies = {role: copy.deepcopy(wide) for role, calls in method.teachers().items() if calls.trained}
        widths = dict.fromkeys(method.teachers(), wide.classifier.in_features)
        own = build_own(method, data, student, 0, architecture, widths, copies)
        trainer = Trainer(student, method, recipe.training, experiment.threat_model, 0, own, teachers)
        trainer.begin_epoch(epoch)
        with Counter() as counter:
            trainer.step(Batch(x, labels, index, index, epoch, 0, 1))
        return counter.flops / len(x)

    lasting = [end - start for start, end in pairwise([*method.phases(), epochs + 1])]
    found = sum(counted(epoch) * share for epoch, share in zip(method.phases(), lasting, strict=True)) / epochs
    f = calls.forward(experiment, architecture)
    planned = calls.flops(calls.training(experiment, recipe, architecture, "all" if method.teachers() else "none"))
    validations = validation_epochs(recipe.training) * (5_000 + 500) * (2 * recipe.training.selection.steps + 2) * f
    assert found == pytest.approx((planned - validations) / epochs / 45_000, rel=0.03)


def test_a_perturbation_costs_an_evaluation_of_the_loss_more_from_its_start_on(tmp_path):
    """Adds a forward and backward pass of x' to SAT: 3 f to 23 f, in 90 of 100 epochs."""
    training = {"epochs": 100, "milestones": [75], "weight_perturbation": {"gamma": 0.01, "start": 10}}
    assert per_image(official(tmp_path, training=training), "sat") == pytest.approx((23 + 0.9 * 3) * RESNET_F, rel=2e-3)


def test_re_estimated_statistics_cost_a_pass_over_the_training_images_at_each_validation(tmp_path):
    training = {
        "epochs": 100,
        "milestones": [75],
        "selection": {"every": 10},
        "averaging": {"name": "swa", "start": 55},
    }
    averaged = per_image(official(tmp_path, training=training), "sat")
    of_students = per_image(official(tmp_path, training=training | {"averaging": None}), "sat")
    assert (averaged - of_students) * 100 == pytest.approx(5 * RESNET_F, rel=2e-3)  # after epochs 60, 70, ... 100


# Attacks, caches, checkpoints


def test_attacks_cost_their_passes(tmp_path):
    """20 steps of 2 f and a last forward pass. AutoAttack to its end: APGD-CE 100 steps, APGD-T and FAB-T 100 for each
    of 9 classes, FAB's at 3 f, Square 5,000 queries; on half of the images."""
    autoattack = 2 * 100 + 9 * 2 * 100 + 9 * 3 * 100 + 5000
    assert sum(count * calls.FORWARDS[kind] for kind, count in cost.ATTACKS["autoattack"].items()) == autoattack
    evaluation = {"attacks": ["fgsm", "pgd20", "pgd_sat", "cw", "square", "autoattack"], "images": 700}
    experiment = official(tmp_path, evaluation=evaluation, methods={"rslad": {}})
    forwards = 3 + 3 * 41 + (5000 + autoattack) / 2
    student = 2 * 700 * forwards * RESNET_F  # two checkpoints
    assert calls.flops(cost.attacking(experiment, RESNET_NAMED, 2)) == pytest.approx(student, rel=0.002)
    teacher = 700 * forwards * WIDE_F
    assert flops_of(experiment)["attack"] == pytest.approx(2 * student + teacher, rel=0.002)  # two seeds


def test_transfer_attacks_are_paid_by_the_surrogate(tmp_path):
    evaluation = {"attacks": ["pgd20", "transfer_pgd20"], "surrogate": "wide", "images": 100}
    experiment = official(tmp_path, evaluation=evaluation)
    found = calls.flops(cost.attacking(experiment, RESNET_NAMED, 1))
    assert found == pytest.approx(100 * 41 * (RESNET_F + WIDE_F), rel=0.002)


def test_transformed_copies_multiply_the_steps_on_the_surrogate(tmp_path):
    """Two copies of three branches: six times 20 steps of two passes, and one prediction."""
    evaluation = {
        "attacks": ["pgd20", "transfer_augmented_pgd20"],
        "surrogate": "wide",
        "images": 100,
        "model_augmentation": {"copies": 2},
    }
    experiment = official(tmp_path, evaluation=evaluation)
    found = calls.flops(cost.attacking(experiment, RESNET_NAMED, 1))
    assert found == pytest.approx(100 * (41 * RESNET_F + 241 * WIDE_F), rel=0.002)


def test_disk_of_caches_and_checkpoints(tmp_path):
    """A ResNet-18 has 11,173,962 parameters, and batch norm on 4,800 channels in 20 layers keeps two statistics of
    each channel and a counter of 8 bytes in each layer."""
    experiment = official(tmp_path, methods={"sat": {}, "rslad": {}})
    disk = written_by(jobs_of(experiment))
    assert disk["cache"] == 50_000 * 162 * 10 * 4
    assert flops_of(experiment)["fill-cache"] == pytest.approx(50_000 * 162 * WIDE_F, rel=0.002)
    one = 4 * (11_173_962 + 2 * 4_800) + 8 * 20
    wide = parameter_bytes(experiment.teachers["wide"].architecture, (3, 32, 32), 10)
    assert wide == pytest.approx(4 * 46_160_474, rel=0.002)
    assert disk["checkpoints"] == 2 * 2 * 2 * one + wide  # methods x seeds x (best, last), and an imported one
    text = describe(experiment)
    assert "cache of wide, logits: 8100000 x 10 x 4 bytes = 324.0 MB" in text
    assert f"in all: {(324e6 + 8 * one + wide) / 1e6:.1f} MB" in text


def test_features_are_as_wide_as_the_teachers_last_layer(tmp_path):
    experiment = load(REPOSITORY / "experiments/gacd_cifar10.yaml")
    assert cost.cache_width(experiment, "wrn-34-10", "features") == 640
    assert cost.cache_width(experiment, "wrn-34-10", "logits") == 10
    assert written_by(jobs_of(experiment))["cache"] == 45_000 * 162 * (640 + 10) * 4


def test_default_experiment_costs_what_is_counted_by_hand():
    """params.yaml, step by step, in forward passes of the student (s) and the teacher (t) on an 8x8 image."""
    experiment = load(REPOSITORY / "params.yaml")
    s = calls.forward(experiment, experiment.students["small"])
    t = calls.forward(experiment, experiment.teachers["wide"].architecture)
    a_pass = {"natural": 3, "sat": 23, "trades": 27, "mart": 26, "ard": 26, "iad": 26, "rslad": 26, "gacd": 23}
    validation = (297 + 500) * 22  # images of the selection, and of training
    validations = 10 * validation  # every second of 20 epochs, 10 steps of APGD
    attacks = 300 * (3 + 41 + 9700 / 2)
    transfer = 1297 + 300 * (41 + 5000 / 2)
    expected = {
        "train-teacher": (30 * 1000 * 27 + 15 * validation) * t,
        "fill-cache": 2 * 1000 * 9 * t,
        "tune": 2 * ((7 * 1000 * sum(a_pass.values()) + 8 * validation) * s + 7 * 1000 * t),  # validated once
        "train-student": 3 * ((20 * 1000 * sum(a_pass.values()) + 8 * validations) * s + 20 * 1000 * t),
        "attack": 24 * 2 * attacks * s + attacks * t,
        "structure": 500 * 41 * (24 * s + t),
        "robustness": (300 * 6 * 102 + 6 * 41) * (24 * s + t),
        "transfer": transfer * (24 * s + t),
    }
    assert flops_of(experiment) == pytest.approx(expected)


def test_what_autoattack_goes_on_from_is_planned_once(tmp_path):
    assert attacks.continued_by("transfer_autoattack") == "transfer_apgd_ce_t"
    assert attacks.continued_by("pgd20") is None
    costs = {}
    for names in ("autoattack", "apgd_ce_t", "apgd_ce_t, autoattack", "fgsm, autoattack", "fgsm"):
        (tmp_path / "overlay.yaml").write_text(f"evaluation: {{attacks: [{names}]}}\nclaims: ~\n")
        costs[names] = flops_of(load(REPOSITORY / "params.yaml", tmp_path / "overlay.yaml"))["attack"]
    assert costs["apgd_ce_t, autoattack"] == pytest.approx(costs["autoattack"])
    assert costs["fgsm, autoattack"] == pytest.approx(costs["autoattack"] + costs["fgsm"])
    assert 0.1 < costs["apgd_ce_t"] / costs["autoattack"] < 0.25


# The text


PAGE = (REPOSITORY / "docs/paper-experiments.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_plan_prints_hours_and_disk_without_data(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["plan", "--experiment", str(path), "--tflops", "20"])
    assert result.exit_code == 0, result.output
    assert not list(tmp_path.iterdir())
    jobs, text = jobs_of(load(path)), result.output
    rows = re.findall(r"^([a-z][a-z -]+?)  +[0-9.e+-]+ +([0-9.e+-]+)$", text.split("GPU-hours\n")[1], re.MULTILINE)
    hours = {step: float(number) for step, number in rows}
    expected = {step: flops / 20e12 / 3600 for step, flops in flops_of(load(path)).items()}
    assert hours == pytest.approx(expected | {"in all": sum(expected.values())}, rel=1e-3)
    lines = text.split("Disk\n")[1].splitlines()
    sizes = [float(size) * {"MB": 1e6, "GB": 1e9}[unit] for size, unit in re.findall(r"([0-9.]+) (MB|GB)$", text, re.M)]
    if f"[`{path.stem}`]" in PAGE:
        found = 2 * sum(expected.values())  # the page's are at 10 TFLOP/s
        row = (
            f"| {len(load(path).runs)} | {float(f'{found:.4g}'):,.0f} | {sum(written_by(jobs).values()) / 1e9:.2f} GB |"
        )
        assert row in next(line for line in PAGE.splitlines() if f"[`{path.stem}`]" in line)
    kept = [line for line in lines if re.match("  (cache of|checkpoints:|in all:) ", line)]  # the others: what if
    assert len(sizes) == len(kept) == len(load(path).caches) + 2
    assert (
        sizes[-1] == pytest.approx(sum(sizes[:-1]), rel=0.03) == pytest.approx(sum(written_by(jobs).values()), rel=0.02)
    )


def test_every_experiment_stands_on_the_page_but_those_that_need_no_gpu():
    rows = re.findall(r"^\| \[`(\w+)`\]", PAGE, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert {path.stem for path in EXPERIMENTS} - set(rows) == {"params", "fashion_mnist", "cifar10_jpeg"}


@pytest.mark.slow
def test_the_part_that_the_page_shows_costs_what_it_says(tmp_path):
    (tmp_path / "part.yaml").write_text(PAGE.split("```yaml\n")[1].split("```")[0])
    part = load(REPOSITORY / "experiments/rslad_cifar10.yaml", tmp_path / "part.yaml")
    hours = sum(flops_of(part).values()) / 1e13 / 3600
    assert (
        f"{len(part.runs)} students, {hours:.0f} GPU-hours, {sum(written_by(jobs_of(part)).values()) / 1e9:.2f} GB"
        in PAGE
    )


def test_faster_devices_need_less_time():
    experiment = load(REPOSITORY / "params.yaml")
    assert "at 10 TFLOP/s" in describe(experiment)
    hours = [float(describe(experiment, speed).split("in all")[2].split()[1]) for speed in (10, 100)]
    assert hours[0] == pytest.approx(10 * hours[1], rel=1e-3)
