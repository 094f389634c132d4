"""The official protocol against the papers' released codes: their training step, in plain torch and in our own words.

Each `step_of_...` below is one iteration of the loop in the authors' repository, read there: what is attacked from
where, in which mode, which batches go through the student in which order, the loss as it is coded, the update.
- RSLAD: zibojia/RSLAD, rslad_loss.py and resnet18_rslad_cifar10.py (the MobileNetV2 scripts train alike).
- SAT: MadryLab/cifar10_challenge, train.py, pgd_attack.py, model.py, on images in [0,1] instead of [0,255].
- TRADES: yaodongyu/TRADES, trades.py. MART: YisenWang/MART, mart.py and train_resnet.py.
- ARD: goldblum/AdversariallyRobustDistillation, main.py. IAD: ZFancy/IAD, IAD-I.py.
Newer methods have theirs in tests/methods/. tests/released.py says how they are compared.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from released import NARROW, Case, Code, check_first_step, check_five_steps, experiment_of, gaussian, uniform
from torch import nn

from robust_distillation.training import schedule


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


MART_ON_RESNET_18 = {"learning_rate": 0.01, "weight_decay": 3.5e-3}
CASES = {
    "rslad": Case("rslad", step_of_rslad),
    "rslad on 100 classes": Case("rslad", step_of_rslad_on_100_classes, "cifar100"),
    "sat": Case("sat", step_of_sat, code={"decayed": is_weight}),
    "trades": Case("trades", step_of_trades),
    "mart": Case("mart", step_of_mart, code=MART_ON_RESNET_18),
    "ard": Case("ard", step_of_ard),
    "ard on 100 classes": Case("ard", step_of_ard, "cifar100"),
    "iad up to its begin": Case("iad", step_of_iad, epochs=(60, 60, 61, 61, 61)),
    "iad from its begin": Case("iad", step_of_iad, epochs=(61,) * 5),
}
BOTH = [(case, architecture) for case in CASES for architecture in NARROW]
# Of MobileNetV2, whose depthwise convolutions are slow in double precision, only what the network can matter to.
DOUBLE = [
    (case, architecture)
    for case, architecture in BOTH
    if architecture == "resnet" or not ("100 classes" in case or case == "iad from its begin")
]


@pytest.mark.parametrize(("case", "architecture"), BOTH)
@pytest.mark.slow
def test_first_step_in_single_precision(case, architecture, monkeypatch):
    check_first_step(CASES[case], architecture, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "architecture"), [("rslad", "resnet"), ("ard", "mobilenet_v2")])
def test_first_step_at_full_width(case, architecture, monkeypatch):
    check_first_step(CASES[case], architecture, monkeypatch, {}, 4)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "architecture"), DOUBLE)
def test_five_steps_in_double_precision(case, architecture, monkeypatch):
    check_five_steps(CASES[case], architecture, monkeypatch)


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
def test_schedule(name, architecture):
    training = experiment_of(name).training_of(name, architecture)
    epochs, batch_size, rate = SCHEDULES[name]
    assert (training.epochs, training.batch_size) == (epochs, batch_size)
    for epoch in range(1, epochs + 1):
        assert schedule.learning_rate(training, epoch) == pytest.approx(rate(epoch), rel=1e-12), epoch


def test_schedule_of_mart_on_wide_resnets():
    """Its train_wideresnet.py has settings of its own."""
    recipe = experiment_of("mart").recipes["mart", "wide_resnet"]
    assert (recipe.training.epochs, recipe.training.weight_decay, recipe.method.settings.beta) == (90, 7e-4, 6.0)
    for epoch in range(1, 91):
        assert schedule.learning_rate(recipe.training, epoch) == pytest.approx(set_from(epoch, 0.1), rel=1e-12), epoch


def test_schedule_of_sat():
    """80,000 steps of 128 images, the rate lower after 40,000 and 60,000: in whole epochs of 390 steps, for the images
    that do not fill a batch wait for the next shuffle."""
    training = experiment_of("sat").training_of("sat")
    steps = 50_000 // 128
    assert training.batch_size == 128
    assert training.drop_last
    assert abs(training.epochs * steps - 80_000) < steps
    assert [round(milestone * steps / 20_000) for milestone in training.milestones] == [2, 3]
    assert all(abs(m * steps - round(m * steps, -4)) < steps for m in training.milestones)
    assert [schedule.learning_rate(training, epoch) for epoch in (1, 110, 200)] == pytest.approx([0.1, 0.01, 0.001])


def test_ard_has_larger_batches_on_100_classes():
    sizes = {name: experiment_of(name, "cifar100").training_of(name).batch_size for name in SCHEDULES}
    assert sizes == {"rslad": 128, "trades": 128, "mart": 128, "ard": 256, "iad": 128}


def test_rslad_looks_at_these_epochs():
    training = experiment_of("rslad").training_of("rslad")
    looked = [epoch for epoch in range(1, 301) if schedule.is_validation_epoch(training, epoch)]
    assert looked == [epoch for epoch in range(1, 301) if (epoch % 20 == 0 and epoch < 215) or epoch >= 215]
    assert training.selection.by == "pgd_trades"


def test_iad_looks_at_every_epoch():
    training = experiment_of("iad").training_of("iad")
    assert all(schedule.is_validation_epoch(training, epoch) for epoch in range(1, 201))
    assert training.selection.by == "pgd10"
