"""IAD-II (Zhu et al., ICLR 2022): its equations as in its code, and the released step of IAD-II.py in ZFancy/IAD."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import ce, kl, of_class
from pydantic import ValidationError
from released import NARROW, Case, Code, check_first_step, check_five_steps, experiment_of, uniform
from tabulated import EPOCH, Tabulated, check_loss, check_objective, example

from robust_distillation import methods
from robust_distillation.training import schedule

IAD2 = methods.get("iad2")
NAMES = ("adversarial", "robust_adversarial", "natural_adversarial", "clean")


def iad2(z, y, robust_weight=0.5, natural_weight=0.25, temperature=1.0, beta=0.1, begin=0):
    trust = of_class(z.robust_adversarial, y) ** beta if z.epoch > begin else np.ones(len(y))
    robust, natural = (
        temperature**2 * kl(z.adversarial, target, temperature)
        for target in (z.robust_adversarial, z.natural_adversarial)
    )
    own = temperature**2 * kl(z.adversarial, z.clean)  # no temperature in the softmaxes
    divergences = robust_weight * (trust * robust + (1 - trust) * own) + natural_weight * natural
    return (1 - robust_weight - natural_weight) * ce(z.adversarial, y), divergences


SETTINGS = [
    {},
    {"temperature": 2.0, "beta": 2.0},
    {"robust_weight": 0.7, "natural_weight": 0.1, "beta": 0.5},
    {"robust_weight": 1.0, "natural_weight": 0.0, "beta": 1.0},
    {"begin": EPOCH - 1},
    {"begin": EPOCH, "beta": 2.0},
]


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_its_gradient(settings, kl_scale, classes):
    """The gradient flows through S(x) too."""
    z, y = example(classes, names=NAMES)
    step = Tabulated(z, y)
    check_loss(IAD2(**settings), step, lambda z, _: iad2(z, y, **settings), classes, kl_scale)
    begun = settings.get("begin", 0) < EPOCH
    assert step.asked == list(NAMES if begun else NAMES[:3])
    assert not begun or step.outputs["clean"].logits.grad.abs().amax() > 1e-4
    assert step.moved == []


@pytest.mark.parametrize("classes", [10, 3])
def test_inner_objective_and_its_gradient(classes):
    z, y = example(classes, seed=1, names=NAMES)
    check_objective(IAD2(temperature=3.0), Tabulated(z, y), lambda z: ce(z.adversarial, y))


@pytest.mark.parametrize("settings", [{"begin": EPOCH}, {"beta": 0.0}])
def test_without_introspection_it_is_akd2_bit_for_bit(settings):
    z, y = example(10, names=NAMES)
    ours, akd2 = (
        {term.name: term for term in method.loss(Tabulated(z, y))}
        for method in (IAD2(temperature=2.0, **settings), methods.get("akd2")(temperature=2.0))
    )
    assert not ours.pop("introspection").values.any()
    assert ours.keys() == akd2.keys()
    for name, term in akd2.items():
        assert torch.equal(ours[name].values, term.values), name
        assert (ours[name].weight, ours[name].divergence) == (term.weight, term.divergence), name


def test_phases():
    assert IAD2().phases() == (1,)
    assert IAD2(begin=40).phases() == (1, 41)


def test_a_batch_of_one_image():
    z, y = example(5, size=1, names=NAMES)
    check_loss(IAD2(), Tabulated(z, y), lambda z, _: iad2(z, y), 5, "mean")


def test_a_teacher_that_excludes_the_label_leaves_it_to_the_student():
    """T_y(x') = 0 exactly: w = 0, and nothing is infinite."""
    z, y = example(4, names=NAMES)
    z.robust_adversarial = np.eye(4)[(y + 1) % 4] * 5000.0
    terms = SimpleNamespace(**{term.name: term.values for term in IAD2().loss(Tabulated(z, y))})
    assert not terms.robust.any()
    np.testing.assert_allclose(terms.introspection.detach(), kl(z.adversarial, z.clean))


@pytest.mark.parametrize(
    "settings",
    [
        {"robust_weight": 1.1},
        {"natural_weight": -0.1},
        {"temperature": 0.0},
        {"beta": -1.0},
        {"begin": -1},
        {"robust_weight": 0.7, "natural_weight": 0.4},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        IAD2(**settings)


def step_of_iad2(code: Code, x, y, epoch: int, step: int, begin: int = 0):
    alpha1, alpha2, temp, beta = 0.5, 0.25, 1.0, 0.1
    code.student.train()  # in the attack too: every step of it moves the running statistics
    start = x + uniform(x, 8 / 255, epoch, step)
    x_adv = code.attacked(x, start, lambda logits: F.cross_entropy(logits, y, reduction="sum"))
    outputs = code.student(x_adv)
    teacher, standard, guide = (code.taught(x_adv, role) for role in ("robust", "natural", "robust"))

    def distance(target, temperature=temp):
        soft = F.softmax(target / temperature, dim=1)
        return F.kl_div(F.log_softmax(outputs / temperature, dim=1), soft, reduction="none").sum(dim=1)

    loss = (1 - alpha1 - alpha2) * F.cross_entropy(outputs, y)
    if epoch - 1 >= begin:  # their epochs are counted from 0
        trust = F.softmax(guide, dim=1)[torch.arange(len(y)), y].pow(beta)
        own = distance(code.student(x), 1.0).mul(1 - trust).sum() / len(x)
        loss = loss + alpha1 * temp * temp * (distance(teacher).mul(trust).sum() / len(x) + own)
    else:
        loss = loss + alpha1 * temp * temp * distance(teacher).sum() / len(x)
    loss = loss + alpha2 * temp * temp * distance(standard).sum() / len(x)
    code.update(loss)
    return x_adv, loss


def step_of_an_earlier_version(code: Code, x, y, epoch: int, step: int):
    return step_of_iad2(code, x, y, epoch, step, begin=40)


CASES = {
    "10 classes": Case("iad2", step_of_iad2),
    "100 classes": Case("iad2", step_of_iad2, "cifar100"),
    "begin after 40 epochs": Case(
        "iad2", step_of_an_earlier_version, epochs=(40, 40, 41, 41, 41), settings="{begin: 40}"
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_first_step_in_single_precision(case, monkeypatch):
    check_first_step(CASES[case], "resnet", monkeypatch)


def test_first_step_of_mobilenet_in_single_precision(monkeypatch):
    check_first_step(CASES["10 classes"], "mobilenet_v2", monkeypatch, NARROW["mobilenet_v2"])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_five_steps_in_double_precision(case, monkeypatch):
    check_five_steps(CASES[case], "resnet", monkeypatch)


def test_protocol_of_the_released_code():
    experiment = experiment_of("iad2")
    training = experiment.training_of("iad2")
    rates = {1: 0.1, 100: 0.1, 101: 0.01, 150: 0.01, 151: 0.01, 200: 0.01}  # set anew at both milestones
    assert {epoch: schedule.learning_rate(training, epoch) for epoch in rates} == pytest.approx(rates)
    assert (training.epochs, training.batch_size, training.weight_decay) == (200, 128, 2e-4)
    assert (training.kl_scale, training.inner_attack.mode, training.selection.by) == ("sum", "train", "pgd10")
    assert all(schedule.is_validation_epoch(training, epoch) for epoch in range(1, 201))
    settings = experiment.recipes["iad2", "resnet"].method.settings.model_dump()
    weights = {"robust_weight": 0.5, "natural_weight": 0.25}
    assert settings == weights | {"temperature": 1.0, "beta": 0.1, "begin": 0}
