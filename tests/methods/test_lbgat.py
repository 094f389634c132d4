"""LBGAT (Cui et al., ICCV 2021): its formulas, and the released code (dvlab-research/LBGAT, lbgat.py)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from formulas import ce, close, kl
from pydantic import ValidationError
from released import Case, Code, check_first_step, check_five_steps, experiment_of, gaussian
from tabulated import Tabulated, check_loss, check_objective, example, objective_of

from robust_distillation import methods
from robust_distillation.training import schedule
from robust_distillation.training.reduction import reduce

NAMES = ("clean", "adversarial", "reference", "natural")
SMALL = {"name": "resnet", "depth": 18, "width": 4}


def lbgat(**settings):
    return methods.get("lbgat")(**settings)


def step_of(z, y):
    return Tabulated(z, y, networks=("natural",))


def formula(z, y, beta=6.0):
    guidance = ((z.adversarial - z.natural) ** 2).mean(1)
    return guidance + ce(z.natural, y), beta * kl(z.adversarial, z.clean)


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", [{}, {"beta": 0.0}, {"beta": 2.0}, {"beta": 0.0, "clean_pass": True}])
def test_loss_and_its_gradient_in_both_networks(settings, kl_scale, classes):
    """The squared difference is the mean over the classes, whatever the scale of divergences is."""
    z, y = example(classes, names=NAMES)
    beta = settings.get("beta", 6.0)
    check_loss(lbgat(**settings), step_of(z, y), lambda z, _: formula(z, y, beta), classes, kl_scale)


@pytest.mark.parametrize("beta", [0.0, 6.0])
def test_x_is_attacked_as_in_trades(beta):
    z, y = example(10, seed=1, names=NAMES)
    check_objective(lbgat(beta=beta), step_of(z, y), lambda z: kl(z.adversarial, z.reference))
    logits = torch.tensor(z.adversarial)
    trades = objective_of(methods.get("trades")(), Tabulated(z, y))(logits)
    assert torch.equal(objective_of(lbgat(beta=beta), step_of(z, y))(logits), trades)


def test_both_networks_are_pulled_towards_each_other():
    """The gradient of the squared difference in M is minus that in S: 2 (S - M) / (B K)."""
    z, y = example(10, seed=2, names=NAMES)
    step = step_of(z, y)
    guidance = lbgat().loss(step)[0]
    reduce([guidance], 10, "sum")[0].backward()
    student, natural = (step.outputs[name].logits.grad for name in ("adversarial", "natural"))
    close(student, 2 * (z.adversarial - z.natural) / z.natural.size)
    assert torch.equal(natural, -student)


def test_with_the_natural_model_equal_to_the_student_trades_is_left():
    for size in (8, 1):
        z, y = example(10, seed=3, size=size, names=NAMES)
        z.natural = z.adversarial = z.clean
        guidance, *others = lbgat().loss(step_of(z, y))
        close(guidance.values, [0] * size)
        for term, trades in zip(others, methods.get("trades")().loss(Tabulated(z, y)), strict=True):
            close(term.values, trades.values.detach())


@pytest.mark.parametrize(
    ("settings", "passes", "moved"),
    [
        ({}, ["adversarial", "clean", "natural"], []),
        ({"beta": 0.0}, ["adversarial", "natural"], []),
        ({"beta": 0.0, "clean_pass": True}, ["adversarial", "natural"], ["clean"]),
        ({"clean_pass": True}, ["adversarial", "clean", "natural"], []),
    ],
)
def test_order_of_passes(settings, passes, moved):
    z, y = example(10, names=NAMES)
    step = step_of(z, y)
    lbgat(**settings).loss(step)
    assert step.asked == ["reference", *passes]
    assert step.moved == moved


def test_architecture_of_the_natural_model():
    assert lbgat().networks({"name": "convnet"}) == {"natural": {"name": "resnet", "depth": 18, "width": 64}}
    assert lbgat(natural={"name": "convnet"}).natural == {"name": "convnet", "width": 16, "stages": 2, "depth": 2}
    assert lbgat(natural=SMALL).natural == SMALL


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": -1.0}, "greater than or equal to 0"),
        ({"natural": {}}, "name: unknown architecture nothing"),
        ({"natural": {"name": "resnett"}}, "Did you mean 'resnet'?"),
        ({"natural": {"name": "resnet", "deep": 18}}, "unknown key 'deep'"),
        ({"natural": {"name": "resnet", "depth": 20}}, "depth: 20 is not allowed"),
        ({"natural": {"name": "resnet", "width": 0}}, "width: 0 is not allowed, but a positive int"),
        ({"natural": {"name": "resnet", "width": "4"}}, "width: '4' is not allowed, but a positive int"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message.replace("?", r"\?")):
        lbgat(**settings)


# --- the released code ---


def step_of_lbgat(code: Code, x, y, epoch: int, step: int, beta=6.0):
    student, natural = code.student, code.own["natural"]
    student.eval()

    def inner(logits):
        return F.kl_div(F.log_softmax(logits, dim=1), F.softmax(student(x), dim=1), reduction="sum")

    x_adv = code.attacked(x, x + gaussian(x, epoch, step), inner, 0.031, 0.007)
    student.train()
    out_adv, out_natural, out = student(x_adv), student(x), natural(x)
    loss = F.mse_loss(out_adv, out) + F.cross_entropy(out, y)
    divergence = F.kl_div(F.log_softmax(out_adv, dim=1), F.softmax(out_natural, dim=1), reduction="sum")
    loss = loss + beta * (1.0 / len(x)) * divergence
    code.update(loss, "student", "natural")
    return x_adv, loss


def step_of_lbgat0(code: Code, x, y, epoch: int, step: int):
    return step_of_lbgat(code, x, y, epoch, step, beta=0.0)


# From epoch 2 on, where the rates agree.
CASES = {
    "lbgat6": Case("lbgat", step_of_lbgat, epochs=(2,) * 5, settings="{natural: {name: resnet, width: 4}}"),
    "lbgat0": Case("lbgat", step_of_lbgat0, epochs=(2,) * 5, settings="{natural: {name: resnet, width: 4}, beta: 0.0}"),
}


@pytest.mark.parametrize(
    ("case", "architecture"), [("lbgat6", "resnet"), ("lbgat6", "mobilenet_v2"), ("lbgat0", "resnet")]
)
@pytest.mark.slow
def test_first_step_in_single_precision(case, architecture, monkeypatch):
    check_first_step(CASES[case], architecture, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_five_steps_in_double_precision(case, monkeypatch):
    check_five_steps(CASES[case], "resnet", monkeypatch)


def test_schedule():
    training = experiment_of("lbgat").training_of("lbgat", "wide_resnet")
    assert (training.epochs, training.batch_size) == (100, 128)
    for epoch in range(2, 101):
        rate = 0.1 * (0.01 if epoch >= 91 else 0.1 if epoch >= 76 else 1)
        assert schedule.learning_rate(training, epoch) == pytest.approx(rate, rel=1e-12), epoch
    rates = [schedule.learning_rate(training, 1, number, 391) for number in range(391)]
    assert 0.02 < sum(rates) / 391 < 0.06  # 0.02 in theirs
