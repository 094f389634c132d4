"""AdaIAD and AdaAD against their formulas and the one released code of both.

Huang et al., CVPR 2023; boyellow/AdaAD, main.py (branches `AdaAD` and `AdaAD_with_IAD1`) and AT_helper.py.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import close, kl, numeric_gradient, of_class
from pydantic import ValidationError
from released import NARROW, Case, Code, Pair, check_first_step, check_five_steps, gaussian
from tabulated import EPOCH, Attacked, Tabulated, check_loss, check_objective, example

from robust_distillation import methods
from robust_distillation.methods import TEACHER
from robust_distillation.models.output import Output


def formula(z, y, fixed, beta=0.1, temperature=30.0, begin=0, **_):
    taught = temperature**2 * kl(z.adversarial, fixed.teacher_adversarial, temperature)
    if z.epoch <= begin:
        return taught
    return taught + (1 - of_class(fixed.teacher_adversarial, y) ** beta) * kl(z.adversarial, z.clean)


SETTINGS = [
    {},
    {"beta": 2.0, "temperature": 4.0},
    {"begin": EPOCH - 1, "temperature": 4.0},
    {"begin": EPOCH, "temperature": 4.0},
    {"begin": EPOCH - 1, "repeat_passes": True},
    {"begin": EPOCH, "repeat_passes": True},
]


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_its_gradient(settings, kl_scale, classes):
    """The introspection has gradient in both of the student's passes, its weight none."""
    z, y = example(classes)

    def parts(z, fixed):
        return np.zeros(len(y)), formula(z, y, fixed, **settings)

    check_loss(methods.get("adaiad")(**settings), Tabulated(z, y), parts, classes, kl_scale)


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("settings", SETTINGS)
def test_inner_objective_and_its_gradient(settings, classes):
    z, y = example(classes, seed=1)
    method = methods.get("adaiad")(**settings)
    check_objective(method, Tabulated(z, y), lambda z: kl(z.adversarial, z.teacher_adversarial))


def test_the_attack_climbs_through_both_networks():
    """The gradient in x' of its objective, against central differences of the divergence between two small networks."""
    rng = np.random.default_rng(0)
    weights = {name: (rng.normal(size=(6, 8)), rng.normal(size=(8, 4))) for name in ("student", "teacher")}
    x, objectives = rng.normal(size=(3, 6)), []

    def answer(x, name):
        first, second = weights[name]
        return np.tanh(x @ first) @ second

    def asked(x, name):
        first, second = map(torch.tensor, weights[name])
        return Output((x @ first).tanh() @ second, None)

    def attack(objective, *args):
        objectives.append(objective)
        raise Attacked

    step = SimpleNamespace(teacher={TEACHER: lambda x: asked(x, "teacher")}, x=torch.tensor(x), attack=attack)
    with pytest.raises(Attacked):
        methods.get("adaiad")().loss(step)
    images = torch.tensor(x, requires_grad=True)
    values = objectives[0](images, asked(images, "student").logits)
    values.sum().backward()
    close(values, kl(answer(x, "student"), answer(x, "teacher")))
    close(
        images.grad,
        numeric_gradient(lambda: kl(answer(x, "student"), answer(x, "teacher")).sum(), x, h=1e-4),
        1e-6,
    )


@pytest.mark.parametrize(
    ("settings", "asked", "moved"),
    [
        ({}, ["adversarial", "clean"], []),
        ({"begin": EPOCH}, ["adversarial"], ["clean"]),
        ({"repeat_passes": True}, ["adversarial", "clean"], ["clean", "clean"]),
        ({"repeat_passes": True, "begin": EPOCH}, ["adversarial"], ["clean", "clean"]),
    ],
)
def test_passes_through_the_student(settings, asked, moved):
    z, y = example(10)
    step = Tabulated(z, y)
    methods.get("adaiad")(**settings).loss(step)
    assert [one for one in step.asked if not one.startswith("teacher")] == asked
    assert step.moved == moved


def test_with_beta_0_it_is_adaad_at_its_temperature():
    """No introspection is left; at temperature 1 nothing else differs."""
    z, y = example(10)
    step = Tabulated(z, y)
    taught, own = methods.get("adaiad")(beta=0.0, temperature=1.0).loss(step)
    [adaad] = methods.get("adaad")().loss(Tabulated(z, y))
    assert torch.equal(taught.values, adaad.values)
    assert (own.values == 0).all()


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"beta": -0.1}, {"begin": -1}, {"begin": 1.5}, {"alpha": 1.0}]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        methods.get("adaiad")(**settings)


# --- the released code ---


def attacked(code: Code, x, epoch: int, step: int):
    """Both networks in eval mode; the gradient is taken through the target, too."""
    code.student.eval()

    def inner(logits, x_adv):
        target = F.softmax(code.teacher(x_adv), dim=1)
        return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="none").sum()

    x_adv = code.attacked(x, x + gaussian(x, epoch, step), inner)
    code.student.train()
    return x_adv


def distance(logits, target, temperature=1.0):
    log_p = F.log_softmax(logits / temperature, dim=1)
    return F.kl_div(log_p, F.softmax(target / temperature, dim=1), reduction="none").sum(dim=1)


def step_of_adaad(code: Code, x, y, epoch: int, step: int):
    x_adv = attacked(code, x, epoch, step)
    code.student(x)  # its divergence has the weight 1 - alpha = 0
    values = distance(code.student(x_adv), code.taught(x_adv))
    loss = values.mean() / (10 if code.student.classifier.out_features == 10 else 1)  # KLDivLoss() on CIFAR-10
    code.update(loss)
    return x_adv, loss


def step_of_adaiad(code: Code, x, y, epoch: int, step: int):
    t, beta, begin = 30.0, 0.1, 60
    x_adv = attacked(code, x, epoch, step)
    code.student(x)
    adv_outputs, teacher_outputs = code.student(x_adv), code.taught(x_adv)
    loss = t * t * distance(adv_outputs, teacher_outputs, t).mean()
    if epoch - 1 >= begin:  # its epochs are counted from 0
        trust = F.softmax(teacher_outputs, dim=1)[torch.arange(len(y)), y] ** beta
        loss = loss + (distance(adv_outputs, code.student(x)) * (1 - trust)).mean()
    loss = loss + 0.0 * F.cross_entropy(code.student(x), y)
    code.update(loss)
    return x_adv, loss


DECAY = {"weight_decay": 5e-4}
CASES = {
    "adaad": Case("adaad", step_of_adaad, code=DECAY),
    "adaad on 100 classes": Case("adaad", step_of_adaad, "cifar100", code=DECAY),
    "adaiad up to its begin": Case("adaiad", step_of_adaiad, code=DECAY, epochs=(60, 60, 61, 61, 61)),
    "adaiad from its begin": Case("adaiad", step_of_adaiad, code=DECAY, epochs=(61,) * 5),
    "adaiad on 100 classes": Case("adaiad", step_of_adaiad, "cifar100", code=DECAY, epochs=(60, 60, 61, 61, 61)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_first_step_of_the_released_code(case, monkeypatch):
    """x' bit by bit. t^2 = 900 multiplies the rounding of AdaIAD's loss: the logarithms of a sum of K terms."""
    if "adaad" in case:
        check_first_step(CASES[case], "resnet", monkeypatch)
        return
    pair = Pair(CASES[case], "resnet", NARROW["resnet"], torch.float32, monkeypatch)
    theirs, their_loss, ours, our_loss = pair.advance(0, 8)
    assert torch.equal(ours, theirs)
    assert abs(our_loss - their_loss) < 900 * torch.finfo(torch.float32).eps


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_five_steps_of_the_released_code(case, monkeypatch):
    check_five_steps(CASES[case], "resnet", monkeypatch)
