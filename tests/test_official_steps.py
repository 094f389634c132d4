"""The official protocol against the papers' released codes: their training step, in plain torch and in our own words.

Each `step_of_...` below is one iteration of the loop in the authors' repository, read there: what is attacked from
where, in which mode, which batches go through the student in which order, the loss as it is coded, the update.
- RSLAD: zibojia/RSLAD, rslad_loss.py and resnet18_rslad_cifar10.py (the MobileNetV2 scripts train alike).
- SAT: MadryLab/cifar10_challenge, train.py, pgd_attack.py, model.py, on images in [0,1] instead of [0,255].
- TRADES: yaodongyu/TRADES, trades.py. MART: YisenWang/MART, mart.py and train_resnet.py.
- ARD: goldblum/AdversariallyRobustDistillation, main.py. IAD: ZFancy/IAD, IAD-I.py.
None of our losses, methods, attacks or the optimiser is used here, only the networks, the teacher's weights and the
random numbers; ours runs with what an experiment of `protocol: official` gives it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robust_distillation.config import load
from robust_distillation.models.checkpoint import build_model
from robust_distillation.randomness import generator
from robust_distillation.training import schedule
from robust_distillation.training import step as training_step
from robust_distillation.training.batches import Batch
from robust_distillation.training.teacher import Teacher
from robust_distillation.training.trainer import Trainer

SEED = 3
EXPERIMENT = """
name: parity
protocol: official
dataset: {{name: {dataset}, padding: 4}}
threat_model: {{norm: linf, eps: 8/255}}
seeds: [0]
teachers: {{robust: {{architecture: resnet, width: 4, trained_by: {{method: sat}}}}}}
students: {{resnet: {{}}, mobilenet_v2: {{}}, wide_resnet: {{}}}}
methods: {{rslad: {{}}, sat: {{}}, trades: {{}}, mart: {{}}, ard: {{}}, iad: {{}}}}
evaluation: {{attacks: [fgsm]}}
"""


# --- the released codes ---


@dataclass
class Code:
    """A student in training by a released code."""

    student: nn.Module
    teacher: nn.Module  # in eval mode
    learning_rate: float = 0.1
    weight_decay: float = 2e-4
    decayed: Callable[[nn.Module, str], bool] = lambda module, name: True
    velocity: dict = field(default_factory=dict)

    def update(self, loss) -> None:
        """SGD with momentum 0.9 and L2 weight decay."""
        names = [
            (module, name) for module in self.student.modules() for name in dict(module.named_parameters(recurse=False))
        ]
        parameters = [getattr(module, name) for module, name in names]
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for (module, name), parameter, gradient in zip(names, parameters, gradients, strict=True):
                if self.decayed(module, name):
                    gradient = gradient + self.weight_decay * parameter
                before = self.velocity.get((module, name))
                self.velocity[module, name] = gradient if before is None else 0.9 * before + gradient
                parameter -= self.learning_rate * self.velocity[module, name]

    def attacked(self, x, start, loss, eps: float, size: float):
        """Ten steps of `size` along the sign of the gradient, each followed by the ball and then by [0,1]."""
        x_adv = start
        for _ in range(10):
            x_adv = x_adv.detach().requires_grad_()
            [gradient] = torch.autograd.grad(loss(self.student(x_adv)), [x_adv])
            x_adv = x_adv.detach() + size * torch.sign(gradient)
            x_adv = torch.min(torch.max(x_adv, x - eps), x + eps)
            x_adv = torch.clamp(x_adv, 0.0, 1.0)
        return x_adv

    def taught(self, x):
        with torch.no_grad():
            return self.teacher(x)


def gaussian(x, epoch: int, step: int):
    return 0.001 * torch.randn(x.shape, generator=generator(SEED, "attack", epoch, step)).to(x)


def uniform(x, eps: float, epoch: int, step: int):
    return eps * (2 * torch.rand(x.shape, generator=generator(SEED, "attack", epoch, step)).to(x) - 1)


def step_of_rslad(code: Code, x, y, epoch: int, step: int, factor: int = 1):
    teacher_logits = code.taught(x)
    soft = F.softmax(teacher_logits, dim=1)

    def inner(logits):
        return torch.sum(F.kl_div(F.log_softmax(logits, dim=1), soft, reduction="none"))

    code.student.eval()
    x_adv = code.attacked(x, x + gaussian(x, epoch, step), inner, 8 / 255, 2 / 255)
    code.student.train()
    adv_logits = code.student(x_adv)
    nat_logits = code.student(x)

    def distance(logits):
        log_p = F.log_softmax(logits, dim=1)
        return factor * torch.mean(-log_p * soft + torch.log(soft + 1e-5) * soft)

    loss = 5 / 6 * distance(adv_logits) + 1 / 6 * distance(nat_logits)
    code.update(loss)
    return x_adv, loss


def step_of_rslad_on_100_classes(code: Code, x, y, epoch: int, step: int):
    return step_of_rslad(code, x, y, epoch, step, factor=10)


def step_of_sat(code: Code, x, y, epoch: int, step: int):
    code.student.train()  # the one graph of the attack and of the update: batch norm is never in eval mode
    start = torch.clamp(x + uniform(x, 8 / 255, epoch, step), 0, 1)
    x_adv = code.attacked(x, start, lambda logits: F.cross_entropy(logits, y, reduction="sum"), 8 / 255, 2 / 255)
    loss = F.cross_entropy(code.student(x_adv), y)
    code.update(loss)
    return x_adv, loss


def step_of_trades(code: Code, x, y, epoch: int, step: int):
    code.student.eval()

    def inner(logits):
        return F.kl_div(F.log_softmax(logits, dim=1), F.softmax(code.student(x), dim=1), reduction="sum")

    x_adv = code.attacked(x, x + gaussian(x, epoch, step), inner, 0.031, 0.007)
    code.student.train()
    natural = F.cross_entropy(code.student(x), y)
    log_adversarial = F.log_softmax(code.student(x_adv), dim=1)
    clean_again = F.softmax(code.student(x), dim=1)
    loss = natural + 6.0 * (1.0 / len(x)) * F.kl_div(log_adversarial, clean_again, reduction="sum")
    code.update(loss)
    return x_adv, loss


def step_of_mart(code: Code, x, y, epoch: int, step: int):
    code.student.eval()
    start = x + gaussian(x, epoch, step)
    x_adv = code.attacked(x, start, lambda logits: F.cross_entropy(logits, y), 0.031, 0.007)
    code.student.train()
    logits, logits_adv = code.student(x), code.student(x_adv)
    adv_probs, nat_probs = F.softmax(logits_adv, dim=1), F.softmax(logits, dim=1)
    top = torch.argsort(adv_probs, dim=1)[:, -2:]
    wrong = torch.where(top[:, -1] == y, top[:, -2], top[:, -1])
    boosted = F.cross_entropy(logits_adv, y) + F.nll_loss(torch.log(1.0001 - adv_probs + 1e-12), wrong)
    true_probs = nat_probs[torch.arange(len(y)), y]
    divergence = F.kl_div(torch.log(adv_probs + 1e-12), nat_probs, reduction="none").sum(dim=1)
    loss = boosted + 5.0 * (1.0 / len(x)) * torch.sum(divergence * (1.0000001 - true_probs))
    code.update(loss)
    return x_adv, loss


def attacked_by_ard(code: Code, x, y, epoch: int, step: int):
    """ARD's and IAD's AttackPGD: the student stays in train mode, so every step moves its running statistics."""
    code.student.train()
    start = x + uniform(x, 8 / 255, epoch, step)
    return code.attacked(x, start, lambda logits: F.cross_entropy(logits, y, reduction="sum"), 8 / 255, 2 / 255)


def step_of_ard(code: Code, x, y, epoch: int, step: int):
    temp, alpha = 30.0, 1.0
    x_adv = attacked_by_ard(code, x, y, epoch, step)
    outputs = code.student(x_adv)
    teacher_outputs = code.taught(x)
    basic_outputs = code.student(x)
    soft = F.softmax(teacher_outputs / temp, dim=1)
    distance = F.kl_div(F.log_softmax(outputs / temp, dim=1), soft, reduction="none").mean()  # over batch and classes
    loss = alpha * temp * temp * distance + (1.0 - alpha) * F.cross_entropy(basic_outputs, y)
    code.update(loss)
    return x_adv, loss


def step_of_iad(code: Code, x, y, epoch: int, step: int):
    alpha, beta, begin = 1.0, 0.1, 60
    teacher_outputs = code.taught(x)
    x_adv = attacked_by_ard(code, x, y, epoch, step)
    outputs = code.student(x_adv)
    code.student(x_adv).detach()  # asked again and not used
    guide = code.taught(x_adv)
    log_adversarial = F.log_softmax(outputs, dim=1)
    loss = F.kl_div(log_adversarial, F.softmax(teacher_outputs, dim=1), reduction="none").sum(dim=1).mean()
    if epoch - 1 >= begin:  # their epochs are counted from 0
        trust = F.softmax(guide, dim=1)[torch.arange(len(y)), y] ** beta
        own = F.kl_div(log_adversarial, F.softmax(code.student(x), dim=1), reduction="none").sum(dim=1)
        loss = loss + (own * (1 - trust)).mean()
    loss = loss + (1.0 - alpha) * F.cross_entropy(code.student(x), y)
    code.update(loss)
    return x_adv, loss


def is_weight(module: nn.Module, name: str) -> bool:
    """What Madry's weight decay knows: convolutions and the linear layer, neither biases nor batch norm."""
    return name == "weight" and isinstance(module, nn.Conv2d | nn.Linear)


FIRST = (1,) * 5
MART_ON_RESNET_18 = {"learning_rate": 0.01, "weight_decay": 3.5e-3}
CASES = {  # name: method, data set, the epoch of each step, its code's step, its code's settings
    "rslad": ("rslad", "cifar10", FIRST, step_of_rslad, {}),
    "rslad on 100 classes": ("rslad", "cifar100", FIRST, step_of_rslad_on_100_classes, {}),
    "sat": ("sat", "cifar10", FIRST, step_of_sat, {"decayed": is_weight}),
    "trades": ("trades", "cifar10", FIRST, step_of_trades, {}),
    "mart": ("mart", "cifar10", FIRST, step_of_mart, MART_ON_RESNET_18),
    "ard": ("ard", "cifar10", FIRST, step_of_ard, {}),
    "ard on 100 classes": ("ard", "cifar100", FIRST, step_of_ard, {}),
    "iad up to its begin": ("iad", "cifar10", (60, 60, 61, 61, 61), step_of_iad, {}),
    "iad from its begin": ("iad", "cifar10", (61,) * 5, step_of_iad, {}),
}
NARROW = {"resnet": {"width": 4}, "mobilenet_v2": {"width": 4}}
BOTH = [(case, architecture) for case in CASES for architecture in NARROW]
# Of MobileNetV2, whose depthwise convolutions are slow in double precision, only what the network can matter to.
DOUBLE = [
    (case, architecture)
    for case, architecture in BOTH
    if architecture == "resnet" or not ("100 classes" in case or case == "iad from its begin")
]


# --- ours ---


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    folder, found = tmp_path_factory.mktemp("official"), {}
    for dataset in ("cifar10", "cifar100"):
        path = folder / f"{dataset}.yaml"
        path.write_text(EXPERIMENT.format(dataset=dataset))
        found[dataset] = load(path)
    return found


def images(dtype, size: int, classes: int, step: int):
    """Images with many pixels at 0 and 1, where [0,1] binds."""
    own = generator(SEED, "images", step)
    x = torch.rand(size, 3, 32, 32, generator=own) * 1.4 - 0.2
    return x.clamp(0, 1).to(dtype), torch.randint(classes, (size,), generator=own)


def network(architecture: str, arguments: dict, classes: int, dtype, seed: int) -> nn.Module:
    """Fresh weights, and running statistics as of a network that has seen some images."""
    model = build_model({"name": architecture, **arguments}, (3, 32, 32), classes, seed).to(dtype).train()
    with torch.no_grad():
        for step in range(3):
            model(images(dtype, 8, classes, -1 - step)[0])
    return model


class Pair:
    """The same student twice: in the released code's hands and in ours."""

    def __init__(self, experiments, case: str, architecture: str, arguments: dict, dtype, monkeypatch):
        name, dataset, self.epochs, self.step, settings = CASES[case]
        experiment = experiments[dataset]
        self.classes, self.dtype = len(experiment.info.classes), dtype
        student = network(architecture, arguments, self.classes, dtype, 1)
        teacher = network("resnet", {"width": 4}, self.classes, dtype, 2).eval()
        self.code = Code(copy.deepcopy(student), copy.deepcopy(teacher), **settings)
        recipe = experiment.recipes[name, architecture]
        method = recipe.method.settings
        self.trainer = Trainer(
            student,
            method,
            recipe.training,
            experiment.threat_model,
            SEED,
            teachers={role: Teacher(teacher) for role in method.teachers()},
        )
        student.train()
        self.found, pgd = [], training_step.pgd

        def observed(*args, **options):
            self.found.append(pgd(*args, **options))
            return self.found[-1]

        monkeypatch.setattr(training_step, "pgd", observed)

    def advance(self, step: int, size: int):
        """x' and the loss of one step, theirs and ours."""
        x, labels = images(self.dtype, size, self.classes, step)
        epoch = self.epochs[step]
        theirs, their_loss = self.step(self.code, x, labels, epoch, step)
        index, views = torch.arange(size), torch.zeros(size, dtype=torch.long)
        our_loss = self.trainer.step(Batch(x, labels, index, views, epoch, step, step + 1))["loss"]
        assert 0.9 * 8 / 255 < (theirs - x).abs().max() < 1.1 * 8 / 255
        return theirs, their_loss.detach(), self.found[-1], our_loss


@pytest.mark.parametrize(("case", "architecture"), BOTH)
def test_first_step_in_single_precision(case, architecture, experiments, monkeypatch):
    """x' is the same bit by bit on every image, and the loss to 1e-6."""
    pair = Pair(experiments, case, architecture, NARROW[architecture], torch.float32, monkeypatch)
    theirs, their_loss, ours, our_loss = pair.advance(0, 8)
    assert torch.equal(ours, theirs)
    assert abs(our_loss - their_loss) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("case", "architecture"), [("rslad", "resnet"), ("ard", "mobilenet_v2")])
def test_first_step_at_full_width(case, architecture, experiments, monkeypatch):
    pair = Pair(experiments, case, architecture, {}, torch.float32, monkeypatch)
    theirs, their_loss, ours, our_loss = pair.advance(0, 4)
    assert torch.equal(ours, theirs)
    assert abs(our_loss - their_loss) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(("case", "architecture"), DOUBLE)
def test_five_steps_in_double_precision(case, architecture, experiments, monkeypatch):
    """x' up to rounding at every step, then weights and batch norm's buffers: momentum and weight decay included."""
    pair = Pair(experiments, case, architecture, NARROW[architecture], torch.float64, monkeypatch)
    before = copy.deepcopy(pair.trainer.student.state_dict())
    for step in range(5):
        theirs, their_loss, ours, our_loss = pair.advance(step, 8 if architecture == "resnet" else 4)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12), step
        assert abs(our_loss - their_loss) < 1e-9
    expected, found = pair.code.student.state_dict(), pair.trainer.student.state_dict()
    for name, tensor in expected.items():
        assert torch.allclose(found[name].double(), tensor.double(), rtol=0, atol=1e-9), name
        assert not torch.equal(tensor, before[name]), name


# --- the schedules ---


def milestones_at_the_end(epoch: int, milestones) -> float:
    """RSLAD: epochs from 1, and the rate of the optimiser times 0.1 at the end of a milestone."""
    rate = 0.1
    for earlier in range(1, epoch):
        rate *= 0.1 if earlier in milestones else 1
    return rate


def set_from(epoch: int, start: float) -> float:
    """TRADES and MART: epochs from 1, and the rate set at their begin."""
    return start * (0.001 if epoch >= 100 else 0.01 if epoch >= 90 else 0.1 if epoch >= 75 else 1)


def set_anew(epoch: int) -> float:
    """ARD and IAD: epochs from 0, and 0.1 times the first rate set at the begin of both milestones."""
    rate = 0.1
    for started in range(epoch):
        rate = 0.1 * 0.1 if started in (100, 150) else rate
    return rate


SCHEDULES = {
    "rslad": (300, 128, lambda epoch: milestones_at_the_end(epoch, (215, 260, 285))),
    "trades": (76, 128, lambda epoch: set_from(epoch, 0.1)),
    "mart": (120, 128, lambda epoch: set_from(epoch, 0.01)),
    "ard": (200, 128, set_anew),
    "iad": (200, 128, set_anew),
}


@pytest.mark.parametrize("architecture", ["resnet", "mobilenet_v2"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name, architecture, experiments):
    training = experiments["cifar10"].training_of(name, architecture)
    epochs, batch_size, rate = SCHEDULES[name]
    assert (training.epochs, training.batch_size) == (epochs, batch_size)
    for epoch in range(1, epochs + 1):
        assert schedule.learning_rate(training, epoch) == pytest.approx(rate(epoch), rel=1e-12), epoch


def test_schedule_of_mart_on_wide_resnets(experiments):
    """Its train_wideresnet.py has settings of its own."""
    recipe = experiments["cifar10"].recipes["mart", "wide_resnet"]
    assert (recipe.training.epochs, recipe.training.weight_decay, recipe.method.settings.beta) == (90, 7e-4, 6.0)
    for epoch in range(1, 91):
        assert schedule.learning_rate(recipe.training, epoch) == pytest.approx(set_from(epoch, 0.1), rel=1e-12), epoch


def test_schedule_of_sat(experiments):
    """80,000 steps of 128 images, the rate lower after 40,000 and 60,000: in whole epochs of 390 steps, for the images
    that do not fill a batch wait for the next shuffle."""
    training = experiments["cifar10"].training_of("sat")
    steps = 50_000 // 128
    assert training.batch_size == 128
    assert training.drop_last
    assert abs(training.epochs * steps - 80_000) < steps
    assert [round(milestone * steps / 20_000) for milestone in training.milestones] == [2, 3]
    assert all(abs(m * steps - round(m * steps, -4)) < steps for m in training.milestones)
    assert [schedule.learning_rate(training, epoch) for epoch in (1, 110, 200)] == pytest.approx([0.1, 0.01, 0.001])


def test_ard_has_larger_batches_on_100_classes(experiments):
    sizes = {name: experiments["cifar100"].training_of(name).batch_size for name in SCHEDULES}
    assert sizes == {"rslad": 128, "trades": 128, "mart": 128, "ard": 256, "iad": 128}


def test_rslad_looks_at_these_epochs(experiments):
    training = experiments["cifar10"].training_of("rslad")
    looked = [epoch for epoch in range(1, 301) if schedule.is_validation_epoch(training, epoch)]
    assert looked == [epoch for epoch in range(1, 301) if (epoch % 20 == 0 and epoch < 215) or epoch >= 215]
    assert training.selection.by == "pgd_trades"


def test_iad_looks_at_every_epoch(experiments):
    training = experiments["cifar10"].training_of("iad")
    assert all(schedule.is_validation_epoch(training, epoch) for epoch in range(1, 201))
    assert training.selection.by == "pgd10"
