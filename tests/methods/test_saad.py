"""SAAD against its formula and its released code.

Lee & Chung, TMLR 2026; HongsinLee/saad, saad.py, utils.py, attacks.py (`saad_inner_loss`) and main.sh.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import released
import torch
import torch.nn.functional as F
from formulas import close, kl, log_softmax, numeric_gradient
from pydantic import ValidationError
from released import Case, Code, check_first_step, check_five_steps, experiment_of, gaussian
from tabulated import EPOCH, EPOCHS, NAMES, Attacked, Tabulated, check_loss, check_objective, example

from robust_distillation import methods
from robust_distillation.methods import TEACHER
from robust_distillation.models.output import Output

MIRRORED = (*NAMES, "mirrored", "teacher_mirrored")
CLASSES = [10, 3]


def entropy_of(logits, order=1.0, log_constant=0.0):
    p = np.exp(log_softmax(logits))
    if order == 1:
        return -(p * np.log(p + log_constant)).sum(1)
    return np.log((p**order).sum(1) + log_constant) / (1 - order)


def formula(z, fixed, entropy_scale=5.0, order=1.0, log_constant=0.0, beta=0.0, igdm=(1.0, EPOCHS), **_):
    entropy = entropy_of(fixed.teacher_adversarial, order, log_constant)
    w = entropy_scale * (entropy - entropy.min())
    inside = kl(z.adversarial, fixed.teacher_adversarial)
    if igdm:
        alpha, ramp = igdm
        target = fixed.teacher_adversarial - fixed.teacher_mirrored
        inside = inside + alpha * EPOCH / ramp * kl(z.adversarial - z.mirrored, target)
    v = (w - w.min()) / (w.max() - w.min() + 1e-8)
    return w * inside + beta * (1 - v) * kl(z.clean, fixed.teacher)


class Sloped(Tabulated):
    """The teacher's logits rise linearly in the image, from those of the table on x, by `jacobian` [D,K]."""

    def __init__(self, z, y):
        super().__init__(z, y)
        rng = np.random.default_rng(7)
        self.jacobian = rng.normal(size=(self.x[0].numel(), z.teacher.shape[1]))
        table, rows = self.teacher[TEACHER], self.x.flatten(1)

        def asked(x):
            if not x.requires_grad:
                return table(x)
            self.asked.append("teacher's gradient")
            return Output(torch.tensor(z.teacher) + (x.flatten(1) - rows) @ torch.tensor(self.jacobian), None)

        self.teacher[TEACHER] = asked


SETTINGS = [
    {},
    {"beta": 0.7},
    {"entropy_scale": 2.0, "order": 2.0},
    {"order": 0.5, "beta": 0.7},
    {"log_constant": 1e-12},
    {"log_constant": 0.01, "order": 2.0},
    {"log_constant": 0.01, "beta": 0.7},
    {"igdm": None},
    {"igdm": {"alpha": 10.0, "ramp_epochs": 200}, "beta": 2.0},
    {"clean_pass": True},
    {"slope": 0.0},
]


def plain(settings):
    """The settings as the formula above takes them."""
    own = settings.get("igdm", {})
    return settings | {"igdm": own if own is None else (own.get("alpha", 1.0), own.get("ramp_epochs", EPOCHS))}


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_its_gradient(settings, kl_scale, classes):
    """Neither the teacher nor the weights have a gradient."""
    z, y = example(classes, names=MIRRORED)

    def parts(z, fixed):
        return np.zeros(len(y)), formula(z, fixed, **plain(settings))

    check_loss(methods.get("saad")(**settings), Sloped(z, y), parts, classes, kl_scale)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("slope", [1.0, 0.3, 0.0])
def test_inner_objective_and_its_gradient(slope, classes):
    """x is 0 and x' 1 in every pixel, so that the linear part is the sum of the label's column of the Jacobian."""
    z, y = example(classes, seed=1, names=MIRRORED)
    step = Sloped(z, y)

    def objective(z):
        target = z.teacher.copy()
        target[np.arange(len(y)), y] += slope * step.jacobian.sum(0)[y]
        return kl(z.adversarial, target)

    check_objective(methods.get("saad")(slope=slope), step, objective)


def test_without_a_slope_x_adversarial_is_that_of_rslad():
    z, y = example(10, names=MIRRORED)
    found = []
    for name, settings in (("saad", {"slope": 0.0}), ("rslad", {})):
        step = Sloped(z, y)
        methods.get(name)(**settings).loss(step)
        logits = torch.tensor(z.adversarial, requires_grad=True)
        values = step.objective(logits)
        found.append((values.detach(), *torch.autograd.grad(values.sum(), logits)))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def small_networks(linear_teacher: bool = False):
    """Two small networks in numpy and torch, and images."""
    rng = np.random.default_rng(0)
    weights = {name: (rng.normal(size=(6, 8)), rng.normal(size=(8, 4))) for name in ("student", "teacher")}

    def answer(x, name):
        first, second = weights[name]
        inside = x @ first
        return (inside if linear_teacher and name == "teacher" else np.tanh(inside)) @ second

    def asked(x, name):
        first, second = map(torch.tensor, weights[name])
        inside = x @ first
        return Output((inside if linear_teacher and name == "teacher" else inside.tanh()) @ second, None)

    return answer, asked, rng.normal(size=(3, 6)), np.array([2, 0, 3])


def objective_of_small(x, y, asked):
    objectives = []

    def attack(objective, *args):
        objectives.append((objective, args))
        raise Attacked

    step = SimpleNamespace(
        teacher={TEACHER: lambda x: asked(x, "teacher")},
        x=torch.tensor(x),
        labels=torch.tensor(y),
        attack=attack,
        once=lambda make: make(),
    )
    with pytest.raises(Attacked):
        methods.get("saad")().loss(step)
    [(objective, args)] = objectives
    return lambda images: objective(images, asked(images, "student").logits, *args)


def test_the_attack_climbs_through_the_student_and_the_linearised_teacher():
    """The gradient in x' against central differences; the teacher's gradient at x by central differences, too."""
    answer, asked, x, y = small_networks()
    rows, clean = np.arange(3), x.copy()
    gradient = numeric_gradient(lambda: answer(clean, "teacher")[rows, y].sum(), clean, h=1e-4)
    adversarial = x + np.random.default_rng(1).normal(size=x.shape)

    def values():
        target = answer(x, "teacher")
        target[rows, y] += (gradient * (adversarial - x)).sum(1)
        return kl(answer(adversarial, "student"), target)

    images = torch.tensor(adversarial, requires_grad=True)
    found = objective_of_small(x, y, asked)(images)
    found.sum().backward()
    close(found, values(), 1e-6)
    close(images.grad, numeric_gradient(lambda: values().sum(), adversarial, h=1e-4), 1e-6)


def test_of_a_linear_teacher_the_logit_of_the_label_is_exact():
    answer, asked, x, y = small_networks(linear_teacher=True)
    adversarial = x + np.random.default_rng(1).normal(size=x.shape)
    target, rows = answer(x, "teacher"), np.arange(3)
    target[rows, y] = answer(adversarial, "teacher")[rows, y]
    found = objective_of_small(x, y, asked)(torch.tensor(adversarial))
    close(found, kl(answer(adversarial, "student"), target))


@pytest.mark.parametrize("order", [0.5, 1.0, 2.0])
def test_entropy_by_hand(order):
    """log K of the uniform distribution, 0 of a sure one, and the Renyi entropy of (1/2, 1/4, 1/4)."""
    method = methods.get("saad")(order=order)
    logits = torch.tensor([[0.3] * 4, [90.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    close(method._entropy(logits), [np.log(4), 0.0])
    known = {0.5: 2 * np.log(0.5**0.5 + 2 * 0.25**0.5), 1.0: 1.5 * np.log(2), 2.0: -np.log(3 / 8)}
    close(method._entropy(torch.tensor([[0.5, 0.25, 0.25]]).double().log()), [known[order]])


def test_weights_are_0_for_the_surest_image_and_positive_for_all_others():
    z, y = example(10, names=MIRRORED)
    [adversarial] = methods.get("saad")(igdm=None).loss(Sloped(z, y))
    w = (adversarial.values / torch.tensor(kl(z.adversarial, z.teacher_adversarial))).detach().numpy()
    surest = entropy_of(z.teacher_adversarial).argmin()
    assert w[surest] == 0
    assert (np.delete(w, surest) > 0).all()
    *_, clean = methods.get("saad")(igdm=None, beta=1.0).loss(Sloped(z, y))
    routed = (clean.values / torch.tensor(kl(z.clean, z.teacher))).detach().numpy()
    assert abs(routed[surest] - 1) < 1e-12
    assert abs(routed[w.argmax()]) < 1e-7


def test_minimum_and_maximum_are_those_of_all_processes():
    """Checks the loss of one process, if the least and the greatest entropy are in the other one."""
    z, y = example(10, names=MIRRORED)
    step = Sloped(z, y)
    step.minimum, step.maximum = lambda values: values.min() - 0.2, lambda values: values.max() + 3.0
    adversarial, clean = methods.get("saad")(igdm=None, beta=1.0).loss(step)
    entropy = entropy_of(z.teacher_adversarial)
    w = 5 * (entropy - entropy.min() + 0.2)
    close(adversarial.values, w * kl(z.adversarial, z.teacher_adversarial))
    close(clean.values, (1 - w / (w.max() + 3 + 1e-8)) * kl(z.clean, z.teacher))


def test_a_batch_of_one_image_learns_the_clean_term_alone():
    z, y = example(10, size=1, names=MIRRORED)
    adversarial, igdm, clean = methods.get("saad")(beta=0.7).loss(Sloped(z, y))
    assert adversarial.values.item() == igdm.values.item() == 0
    close(clean.values, kl(z.clean, z.teacher))


@pytest.mark.parametrize(
    ("settings", "asked", "moved"),
    [
        ({}, ["adversarial", "mirrored"], []),
        ({"igdm": None}, ["adversarial"], []),
        ({"clean_pass": True}, ["adversarial", "mirrored"], ["clean"]),
        ({"beta": 1.0}, ["adversarial", "mirrored", "clean"], []),
        ({"beta": 1.0, "clean_pass": True}, ["adversarial", "mirrored", "clean"], []),
    ],
)
def test_passes(settings, asked, moved):
    z, y = example(10, names=MIRRORED)
    step = Sloped(z, y)
    terms = methods.get("saad")(**settings).loss(step)
    assert [one for one in step.asked if not one.startswith("teacher")] == asked
    assert step.moved == moved
    assert step.asked.count("teacher's gradient") == 1
    assert [term.name for term in terms] == [
        "adversarial",
        *["igdm"] * ("mirrored" in asked),
        *["clean"] * bool(settings.get("beta")),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"entropy_scale": 0.0},
        {"order": 0.0},
        {"slope": -1.0},
        {"beta": -0.1},
        {"log_constant": -1.0},
        {"igdm": {"gamma": 1}},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        methods.get("saad")(**settings)


# --- the released code ---


def step_of_saad(code: Code, x, y, epoch: int, step: int):
    """epochs 200, igdm_alpha 1 (10 on CIFAR-100), gamma 1, beta 0 as main.sh has them."""
    epochs, beta, rows = 200, 0.0, torch.arange(len(y))
    alpha = 1.0 if code.student.classifier.out_features == 10 else 10.0
    teacher_clean = code.taught(x)
    code.student.eval()
    copy = x.detach().clone().requires_grad_(True)
    [slope] = torch.autograd.grad(code.teacher(copy)[rows, y].sum(), copy)

    def inner(logits, x_adv):
        target = teacher_clean.clone()
        target[rows, y] = target[rows, y] + torch.einsum("bchw,bchw->b", slope, x_adv - x)
        return F.kl_div(F.log_softmax(logits, dim=1), F.softmax(target, dim=1), reduction="sum")

    x_adv = code.attacked(x, x + gaussian(x, epoch, step), inner)
    code.student.train()
    delta = x_adv - x
    teacher_plus, teacher_minus = code.taught(x_adv), code.taught(x - delta)
    plus, minus, clean = code.student(x_adv), code.student(x - delta), code.student(x)

    def distances(logits, target):
        return F.kl_div(F.log_softmax(logits, dim=1), F.softmax(target, dim=1), reduction="none").sum(dim=1)

    p = F.softmax(teacher_plus, dim=1)
    entropy = -(p * torch.log(p + 1e-12)).sum(dim=1)
    w = torch.clamp(5 * (entropy - entropy.min()), min=0.0)
    w_norm = (w - w.min()) / (w.max() - w.min() + 1e-8)
    own = alpha * (epoch / epochs) * distances(plus - minus, teacher_plus - teacher_minus)
    weighted = w * (distances(plus, teacher_plus) + own) + beta * (1 - w_norm) * distances(clean, teacher_clean)
    loss = weighted.mean()
    code.update(loss)
    return x_adv, loss


@pytest.fixture(autouse=True)
def teachers_are_sure_of_some_images(monkeypatch):
    """So that the weights differ: the teacher of these tests is untrained, with entropies of almost log K."""
    real = released.network

    def network(architecture, arguments, classes, dtype, seed):
        model = real(architecture, arguments, classes, dtype, seed)
        with torch.no_grad():
            model.classifier.weight.mul_(30 if seed == 2 else 1)
        return model

    monkeypatch.setattr(released, "network", network)


CASES = {
    "10 classes": Case("saad", step_of_saad, epochs=(1, 20, 60, 80, 100)),
    "100 classes": Case("saad", step_of_saad, "cifar100", epochs=(1, 20, 60, 80, 100)),
}


@pytest.mark.parametrize("case", CASES)
def test_first_step_of_the_released_code(case, monkeypatch):
    check_first_step(CASES[case], "resnet", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_five_steps_of_the_released_code(case, monkeypatch):
    check_five_steps(CASES[case], "resnet", monkeypatch)


def test_official_averages_from_epoch_95_on():
    training = experiment_of("saad").training_of("saad")
    assert (training.averaging.name, training.averaging.start, training.averaging.per) == ("swa", 94, "epoch")
    assert training.averaging.batch_norm == "reestimate"
    assert experiment_of("saad").recipes["saad", "resnet"].method.settings.igdm.alpha == 1
    assert experiment_of("saad", "cifar100").recipes["saad", "resnet"].method.settings.igdm.alpha == 10
