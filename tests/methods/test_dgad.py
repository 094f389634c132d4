"""DGAD against its formula and its released code.

Park & Min, ECCV 2024; kunsaram01/DGAD, main.py (branch `DGAD`) and AT_helper.py.
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
from released import Case, Code, check_first_step, check_five_steps, gaussian
from tabulated import Attacked, Tabulated, check_loss, check_objective, example

from robust_distillation import methods
from robust_distillation.methods import TEACHER
from robust_distillation.methods.dgad import exchanged
from robust_distillation.models.output import Output
from robust_distillation.training.reduction import reduce


def swapped(logits, y):
    """Entry by entry: the best other class and the true one change places where the other is larger."""
    found = logits.copy()
    for row, label in zip(found, y, strict=True):
        other = max((k for k in range(len(row)) if k != label), key=lambda k: row[k])
        if row[other] > row[label]:
            row[other], row[label] = row[label], row[other]
    return found


def mask_of(z, y):
    return (z.teacher.argmax(1) != y).astype(float)


def formula(z, y, classes, kl_scale, beta=1.0, group_batch_size=None, misplaced_bracket=False):
    """The parts without and with a divergence. The scale of the divergences belongs to those of the groups alone."""
    m, size, b = mask_of(z, y), group_batch_size, len(y)
    on_clean, on_adversarial = kl(z.clean, swapped(z.teacher, y)), kl(z.adversarial, swapped(z.teacher_adversarial, y))
    own = beta * ((np.exp(log_softmax(z.adversarial)) - np.exp(log_softmax(z.clean))) ** 2).mean(1)
    if size is None:
        return own, m * on_clean + (1 - m) * on_adversarial
    n = m.sum()
    l_clean = (m * on_clean).sum() / n if n else 0.0
    l_adversarial = ((1 - m) * on_adversarial).sum() / (b - n) if n < b else 0.0
    if misplaced_bracket:
        return own, 0.5 * (n / size * l_clean + (size - n) / size) * l_adversarial
    return own, n / size * l_clean + (size - n) / size * l_adversarial


SETTINGS = [
    {},
    {"beta": 3.0},
    {"beta": 0.0},
    {"group_batch_size": 8},
    {"group_batch_size": 128},
    {"group_batch_size": 128, "misplaced_bracket": True},
    {"group_batch_size": 8, "misplaced_bracket": True, "beta": 3.0},
]


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_its_gradient(settings, kl_scale, classes):
    """The consistency has gradient in both passes, the bracket in both factors, the teacher and the weights none."""
    z, y = example(classes)
    assert 0 < mask_of(z, y).sum() < len(y)
    method = methods.get("dgad")(**settings)
    check_loss(method, Tabulated(z, y), lambda z, _: formula(z, y, classes, kl_scale, **settings), classes, kl_scale)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("wrong", ["all", "none"])
def test_a_group_without_images_counts_nothing(wrong, settings):
    z, y = example(10)
    right = z.teacher.argmax(1)
    y = (right + 1) % 10 if wrong == "all" else right
    assert mask_of(z, y).mean() == (wrong == "all")
    check_loss(methods.get("dgad")(**settings), Tabulated(z, y), lambda z, _: formula(z, y, 10, "sum", **settings), 10)


@pytest.mark.parametrize("seed", range(3))
def test_for_a_full_batch_the_released_formula_is_the_plain_one(seed):
    z, y = example(10, seed)
    plain, grouped = (
        reduce(methods.get("dgad")(**settings).loss(Tabulated(z, y)), 10, "sum")[0]
        for settings in ({}, {"group_batch_size": len(y)})
    )
    close(grouped, plain.detach(), 1e-12)
    smaller, _ = reduce(methods.get("dgad")(group_batch_size=128).loss(Tabulated(z, y)), 10, "sum")
    assert (smaller - plain).abs() > 1e-3


@pytest.mark.parametrize("classes", [10, 3])
def test_inner_objective_is_that_of_adaad(classes):
    """Without exchanged logits."""
    z, y = example(classes, seed=1)
    check_objective(methods.get("dgad")(), Tabulated(z, y), lambda z: kl(z.adversarial, z.teacher_adversarial))


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
        methods.get("dgad")().loss(step)
    images = torch.tensor(x, requires_grad=True)
    objectives[0](images, asked(images, "student").logits).sum().backward()
    gradient = numeric_gradient(lambda: kl(answer(x, "student"), answer(x, "teacher")).sum(), x, h=1e-4)
    close(images.grad, gradient, 1e-6)


def test_exchanged_logits():
    """An exchange of two entries, by which the label wins: the same numbers in every row, ties left alone."""
    logits = torch.tensor([[1.0, 5.0, 4.0], [1.0, 5.0, 4.0], [2.0, 2.0, -9.0], [2.0, 2.0, -9.0]])
    labels = torch.tensor([1, 2, 0, 1])
    found = exchanged(logits, labels)
    assert found.tolist() == [[1, 5, 4], [1, 4, 5], [2, 2, -9], [2, 2, -9]]
    many = 2 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 10
    found = exchanged(many, labels)
    assert torch.equal(found.argmax(1), labels)
    assert torch.equal(found.sort(1).values, many.sort(1).values)
    assert torch.equal(exchanged(found, labels), found)
    assert torch.equal(exchanged(found, many.argmax(1)), many)  # the exchange that undoes it
    assert np.array_equal(found.numpy(), swapped(many.numpy(), labels.numpy()))


def test_passes_and_terms():
    z, y = example(10)
    step = Tabulated(z, y)
    terms = methods.get("dgad")().loss(step)
    assert [one for one in step.asked if not one.startswith("teacher")] == ["clean", "adversarial"]
    assert [(term.name, term.weight, term.divergence) for term in terms] == [
        ("clean", 1.0, True),
        ("adversarial", 1.0, True),
        ("consistency", 1.0, False),
    ]


@pytest.mark.parametrize(
    "settings", [{"beta": -1.0}, {"group_batch_size": 0}, {"group_batch_size": 1.5}, {"misplaced_bracket": True}]
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        methods.get("dgad")(**settings)


def test_the_bracket_is_the_official_protocol_of_mobilenet_alone():
    official = methods.get("dgad").official
    assert official(10, "mobilenet_v2").settings == {"group_batch_size": 128, "misplaced_bracket": True}
    assert official(100, "resnet").settings == {"group_batch_size": 128, "misplaced_bracket": False}


# --- the released code ---


def step_of_dgad(code: Code, x, y, epoch: int, step: int):
    bs, alp_beta, rows = 128, 1.0, torch.arange(len(y))
    code.student.eval()

    def inner(logits, x_adv):
        target = F.softmax(code.teacher(x_adv), dim=1)
        return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="none").sum()

    x_adv = code.attacked(x, x + gaussian(x, epoch, step), inner)
    code.student.train()
    nat_out, adv_out = code.student(x), code.student(x_adv)
    nat_t, adv_t = code.taught(x), code.taught(x_adv)
    misled = nat_t.argmax(dim=1) != y
    n = float(misled.sum())
    top, place = nat_t.max(dim=1)
    true = nat_t[rows, y]
    nat_t[rows[misled], y[misled]] = top[misled]
    nat_t[rows[misled], place[misled]] = true[misled]
    true = adv_t[rows, y]
    top, place = adv_t.scatter(1, y[:, None], float("-inf")).max(dim=1)
    below = true - top < 0
    adv_t[rows[below], y[below]] = top[below]
    adv_t[rows[below], place[below]] = true[below]

    def distances(logits, target):
        return F.kl_div(F.log_softmax(logits, dim=1), F.softmax(target, dim=1), reduction="none").sum(dim=1)

    loss_clean = 1 / (n + 1e-10) * (misled * distances(nat_out, nat_t)).sum()
    loss_adv = 1 / (len(x) - n) * (~misled * distances(adv_out, adv_t)).sum()
    loss_alp = F.mse_loss(F.softmax(adv_out, dim=1), F.softmax(nat_out, dim=1))
    if code.state["mobilenet"]:
        loss = 0.5 * ((n / bs) * loss_clean + ((bs - n) / bs)) * loss_adv + alp_beta * loss_alp
    else:
        loss = (n / bs) * loss_clean + ((bs - n) / bs) * loss_adv + alp_beta * loss_alp
    code.state["groups"].append((int(n), len(x)))
    code.update(loss)
    return x_adv, loss


def case(dataset: str = "cifar10", mobilenet: bool = False) -> Case:
    return Case(
        "dgad", step_of_dgad, dataset, code={"weight_decay": 5e-4, "state": {"mobilenet": mobilenet, "groups": []}}
    )


@pytest.fixture(autouse=True)
def half_of_the_labels_are_the_teachers(monkeypatch):
    """So that both groups have images: the teacher of these tests has untrained weights."""
    real = released.images

    def images(dtype, size, classes, step):
        x, y = real(dtype, size, classes, step)
        if step >= 0:
            teacher = released.network("resnet", {"width": 4}, classes, dtype, 2).eval()
            y[::2] = teacher(x)[::2].argmax(1)
        return x, y

    monkeypatch.setattr(released, "images", images)


CASES = [("resnet", "cifar10"), ("resnet", "cifar100"), ("mobilenet_v2", "cifar10")]


@pytest.mark.parametrize(("architecture", "dataset"), CASES)
@pytest.mark.slow
def test_first_step_of_the_released_code(architecture, dataset, monkeypatch):
    known = case(dataset, architecture == "mobilenet_v2")
    check_first_step(known, architecture, monkeypatch)
    [(wrong, images)] = known.code["state"]["groups"]
    assert 0 < wrong < images


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "dataset"), CASES)
def test_five_steps_of_the_released_code(architecture, dataset, monkeypatch):
    check_five_steps(case(dataset, architecture == "mobilenet_v2"), architecture, monkeypatch)
