"""AKD2 (Chen et al., ICLR 2021): its equations, and the released step of AKD2.py in ZFancy/IAD, which has it as a
baseline."""

import pytest
import torch.nn.functional as F
from formulas import ce, kl
from pydantic import ValidationError
from released import NARROW, Case, Code, check_first_step, check_five_steps, experiment_of, uniform
from tabulated import Tabulated, check_loss, check_objective, example

from robust_distillation import methods
from robust_distillation.training import schedule

AKD2 = methods.get("akd2")
NAMES = ("adversarial", "robust_adversarial", "natural_adversarial")


def akd2(z, y, robust_weight=0.5, natural_weight=0.25, temperature=1.0):
    robust, natural = (
        temperature**2 * kl(z.adversarial, target, temperature)
        for target in (z.robust_adversarial, z.natural_adversarial)
    )
    rest = 1 - robust_weight - natural_weight
    return rest * ce(z.adversarial, y), robust_weight * robust + natural_weight * natural


SETTINGS = [
    {},
    {"temperature": 2.0},
    {"robust_weight": 0.6, "natural_weight": 0.1, "temperature": 2.0},  # the code of Chen et al.
    {"robust_weight": 0.0, "natural_weight": 1.0},
    {"robust_weight": 0.0, "natural_weight": 0.0},
]


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_its_gradient(settings, kl_scale, classes):
    z, y = example(classes, names=NAMES)
    step = Tabulated(z, y)
    check_loss(AKD2(**settings), step, lambda z, _: akd2(z, y, **settings), classes, kl_scale)
    assert step.asked == list(NAMES)
    assert step.moved == []


@pytest.mark.parametrize("classes", [10, 3])
def test_inner_objective_and_its_gradient(classes):
    z, y = example(classes, seed=1, names=NAMES)
    check_objective(AKD2(temperature=3.0), Tabulated(z, y), lambda z: ce(z.adversarial, y))


def test_a_batch_of_one_image():
    z, y = example(5, size=1, names=NAMES)
    check_loss(AKD2(), Tabulated(z, y), lambda z, _: akd2(z, y), 5, "mean")


def test_targets_may_be_smoothed():
    """The cross-entropy has the targets of the step, not the labels."""
    z, y = example(4, names=NAMES)
    step, other = Tabulated(z, y), (y + 1) % 4
    step.targets = 0 * step.labels + step.labels.new_tensor(other)
    check_loss(AKD2(), step, lambda z, _: akd2(z, other), 4)


@pytest.mark.parametrize(
    "settings",
    [
        {"robust_weight": 1.1},
        {"natural_weight": -0.1},
        {"temperature": 0.0},
        {"robust_weight": 0.7, "natural_weight": 0.4},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        AKD2(**settings)


def step_of_akd2(code: Code, x, y, epoch: int, step: int):
    alpha1, alpha2, temp = 0.5, 0.25, 1.0
    code.student.train()  # in the attack too: every step of it moves the running statistics
    start = x + uniform(x, 8 / 255, epoch, step)
    x_adv = code.attacked(x, start, lambda logits: F.cross_entropy(logits, y, reduction="sum"))
    outputs = code.student(x_adv)
    teacher, standard = code.taught(x_adv, "robust"), code.taught(x_adv, "natural")

    def distance(target):
        soft = F.softmax(target / temp, dim=1)
        return F.kl_div(F.log_softmax(outputs / temp, dim=1), soft, reduction="none").sum(dim=1).sum() / len(x)

    loss = (1 - alpha1 - alpha2) * F.cross_entropy(outputs, y)
    loss = loss + alpha1 * temp * temp * distance(teacher) + alpha2 * temp * temp * distance(standard)
    code.update(loss)
    return x_adv, loss


@pytest.mark.parametrize("architecture", NARROW)  # batch norm is in train mode in the attack
@pytest.mark.slow
def test_first_step_in_single_precision(architecture, monkeypatch):
    check_first_step(Case("akd2", step_of_akd2), architecture, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_five_steps_in_double_precision(dataset, monkeypatch):
    check_five_steps(Case("akd2", step_of_akd2, dataset), "resnet", monkeypatch)


def test_protocol_of_the_released_code():
    experiment = experiment_of("akd2")
    training = experiment.training_of("akd2")
    rates = {1: 0.1, 100: 0.1, 101: 0.01, 150: 0.01, 151: 0.01, 200: 0.01}  # set anew at both milestones
    assert {epoch: schedule.learning_rate(training, epoch) for epoch in rates} == pytest.approx(rates)
    assert (training.epochs, training.batch_size, training.weight_decay) == (200, 128, 2e-4)
    assert (training.kl_scale, training.inner_attack.mode, training.selection.by) == ("sum", "train", "pgd10")
    assert all(schedule.is_validation_epoch(training, epoch) for epoch in range(1, 201))
    settings = experiment.recipes["akd2", "resnet"].method.settings.model_dump()
    assert settings == {"robust_weight": 0.5, "natural_weight": 0.25, "temperature": 1.0}
