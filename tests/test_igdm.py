"""IGDM, a term of other methods: its formula on each of them, the released igdm.py, and nothing where it is not set.

Lee et al., ICLR 2025: alpha (e/E) KL(T(x') - T(2x-x') || S(x') - S(2x-x')), teacher constant. Released code:
HongsinLee/saad, igdm.py.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import close, kl
from pydantic import ValidationError
from released import Case, Code, check_first_step, check_five_steps, gaussian
from tabulated import EPOCH, EPOCHS, NAMES, Tabulated, check_loss, check_objective, example
from test_cuda_graph import FirstCall, trained
from test_methods_parity import INNER, OUTER
from test_training import SETTINGS, THREAT, data, live_teachers, network  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.methods import TEACHER, TeacherCalls
from robust_distillation.methods.igdm import IGDM, igdm_terms
from robust_distillation.models.output import Output
from robust_distillation.training.trainer import Trainer

BASES = ("rslad", "ard", "iad", "adaad")
MIRRORED = (*NAMES, "mirrored", "teacher_mirrored")
SETTING = {"alpha": 20.0}


def step_of(classes, seed=0):
    z, y = example(classes, seed, names=MIRRORED)
    return z, y, Tabulated(z, y)


def term_of(z, fixed, alpha=20.0, ramp_epochs=None):
    target = fixed.teacher_adversarial - fixed.teacher_mirrored
    return alpha * EPOCH / (ramp_epochs or EPOCHS) * kl(z.adversarial - z.mirrored, target)


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean", "tenth"])
@pytest.mark.parametrize(
    ("name", "settings", "own"),
    [
        *((name, {}, SETTING) for name in BASES),
        *((name, {"alpha": 0.3}, {"alpha": 0.5, "ramp_epochs": 200}) for name in ("rslad", "ard", "adaad")),
        ("iad", {"begin": EPOCH}, SETTING),
        ("rslad", {"adversarial_labels": "student", "inner_labels": "student"}, SETTING),
        ("rslad", {"clean_labels": "hard", "adversarial_labels": "hard", "inner_labels": "hard"}, SETTING),
    ],
)
def test_loss_and_its_gradient(name, settings, own, kl_scale, classes):
    """The teacher has no gradient, both of the student's passes have one."""
    _, y, step = step_of(classes)

    def formula(z, fixed):
        plain, divergence = OUTER[name](z, y, **settings)
        return plain, divergence + term_of(z, fixed, **own)

    check_loss(methods.get(name)(**settings, igdm=own), step, formula, classes, kl_scale)


@pytest.mark.parametrize("name", BASES)
def test_x_adversarial_is_that_of_the_method_alone(name):
    _, y, step = step_of(10, seed=1)
    check_objective(methods.get(name)(igdm=SETTING), step, lambda z: INNER[name](z, y))


@pytest.mark.parametrize(
    ("name", "settings", "asked"),
    [
        ("rslad", {}, ["adversarial", "mirrored", "clean"]),
        ("ard", {}, ["adversarial", "mirrored", "clean"]),
        ("iad", {}, ["adversarial", "mirrored", "clean"]),
        ("adaad", {}, ["adversarial", "mirrored"]),
        ("adaad", {"alpha": 0.5}, ["clean", "adversarial", "mirrored"]),
    ],
)
def test_mirrored_images_follow_the_adversarial_ones(name, settings, asked):
    *_, step = step_of(10)
    terms = methods.get(name)(**settings, igdm=SETTING).loss(step)
    assert [one for one in step.asked if not one.startswith("teacher")] == asked
    assert step.asked.count("teacher_adversarial") == 1
    assert terms[-1].name == "igdm"
    assert terms[-1].weight == 20.0 * EPOCH / EPOCHS


@pytest.mark.parametrize("name", BASES)
def test_without_the_setting_nothing_is_asked_for_it(name):
    method, (*_, step) = methods.get(name)(), step_of(10)
    terms = method.loss(step)
    assert "igdm" not in {term.name for term in terms}
    assert not {"mirrored", "teacher_mirrored"} & {*step.asked}
    assert "teacher_adversarial" not in step.asked or name in ("iad", "adaad")


def test_the_teacher_is_called_only_where_it_is_needed():
    hard = {"clean_labels": "hard", "adversarial_labels": "hard", "inner_labels": "hard"}
    rslad = methods.get("rslad")
    assert rslad().teachers() == {TEACHER: TeacherCalls(cached=("logits",))}
    assert rslad(igdm=SETTING).teachers() == {TEACHER: TeacherCalls(cached=("logits",), live=True)}
    assert rslad(**hard).teachers() == {}
    assert rslad(**hard, igdm=SETTING).teachers() == {TEACHER: TeacherCalls(live=True)}
    assert not methods.get("ard")().teachers()[TEACHER].live
    assert methods.get("ard")(igdm=SETTING).teachers()[TEACHER].live


def test_the_ramp_grows_with_the_epoch_and_on_after_its_end():
    def weight(epoch, **settings):
        own = Output(torch.zeros(2, 3), None)
        step = SimpleNamespace(x=torch.zeros(2, 4), epoch=epoch, epochs=50)
        step.teacher, step.student = {TEACHER: lambda x: own}, lambda x, train: own
        [term] = igdm_terms(IGDM(alpha=8.0, **settings), step, step.x, own.logits)
        return term.weight

    assert [weight(epoch) for epoch in (1, 25, 50)] == [0.16, 4.0, 8.0]
    assert [weight(epoch, ramp_epochs=20) for epoch in (5, 20, 40)] == [2.0, 8.0, 16.0]


def test_of_linear_networks_it_compares_twice_the_change_of_their_logits():
    """And the mirrored images are not clamped: they leave [0,1]."""
    rng, seen = np.random.default_rng(0), []
    x = rng.uniform(size=(3, 6)).round()  # pixels at 0 and 1
    d = rng.uniform(-0.1, 0.1, size=x.shape)
    d = np.clip(x + d, 0, 1) - x
    student, teacher = rng.normal(size=(2, 6, 4))

    def asked(x, weight):
        seen.append(x)
        return Output(x @ torch.tensor(weight) + 0.7, None)

    step = SimpleNamespace(x=torch.tensor(x), epoch=1, epochs=1, teacher={TEACHER: lambda x: asked(x, teacher)})
    step.student = lambda x, train: asked(x, student)
    adversarial = torch.tensor(x + d)
    [term] = igdm_terms(IGDM(), step, adversarial, asked(adversarial, student).logits)
    close(term.values, kl(2 * d @ student, 2 * d @ teacher))
    assert min(float(images.min()) for images in seen) < 0
    assert max(float(images.max()) for images in seen) > 1
    step.student = lambda x, train: asked(x, teacher)
    [same] = igdm_terms(IGDM(), step, adversarial, asked(adversarial, teacher).logits)
    close(same.values, np.zeros(3))


@pytest.mark.parametrize(
    "setting",
    [
        {"alpha": -1.0},
        {"alpha": float("inf")},
        {"alpha": "1"},
        {"ramp_epochs": 0},
        {"ramp_epochs": 1.5},
        {"beta": 1.0},
        3,
    ],
)
def test_bad_settings_are_refused(setting):
    with pytest.raises(ValidationError, match="igdm"):
        methods.get("rslad")(igdm=setting)


@pytest.mark.parametrize("name", BASES)
def test_it_trains_the_same_where_the_first_call_of_the_attack_is_replayed(name, data):  # noqa: F811
    def trainer():
        method = methods.get(name)(igdm=SETTING)
        return Trainer(network(4, 1), method, SETTINGS, THREAT, 0, teachers=live_teachers(method))

    replaying, plain = trainer(), trainer()
    replaying.replay, plain.replay = FirstCall(), None
    found, expected = trained(replaying, data), trained(plain, data)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


# --- the released code ---


def step_of_igdm(code: Code, x, y, epoch: int, step: int):
    """Weight decay is 2e-4, the ramp has 200 epochs; eps and the size of a step are exchanged if `exchanged`."""
    eps, size = (2 / 255, 8 / 255) if code.state["exchanged"] else (8 / 255, 2 / 255)
    code.student.eval()

    def inner(logits, x_adv):
        target = F.softmax(code.teacher(x_adv), dim=1)
        return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="none").sum()

    x_adv = code.attacked(x, x + gaussian(x, epoch, step), inner, eps=eps, size=size)
    code.student.train()
    delta = x_adv - x
    plus_t, minus_t = code.taught(x_adv), code.taught(x - delta)
    plus, minus = code.student(x + delta), code.student(x - delta)

    def batch_mean(logits, target):
        return F.kl_div(F.log_softmax(logits, dim=1), F.softmax(target, dim=1), reduction="batchmean")

    loss = batch_mean(plus, plus_t) + 20 * (epoch / 200) * batch_mean(plus - minus, plus_t - minus_t)
    code.update(loss)
    return x_adv, loss


def case(exchanged: bool) -> Case:
    """Returns the case of the released code, with the settings that the docstring of IGDM names."""
    radius = "inner_attack: {eps: 2/255, step_size: 8/255}, " if exchanged else ""
    training = f"{{weight_decay: 2e-4, kl_scale: sum, {radius}selection: {{by: pgd_trades}}}}"
    settings = f"{{clean_pass: false, igdm: {{alpha: 20, ramp_epochs: 200}}, training: {training}}}"
    code = {"state": {"exchanged": exchanged}}
    return Case("adaad", step_of_igdm, epochs=(1, 20, 60, 80, 100), code=code, settings=settings)


@pytest.mark.parametrize("exchanged", [False, True])
def test_first_step_of_the_released_code(exchanged, monkeypatch):
    check_first_step(case(exchanged), "resnet", monkeypatch)


@pytest.mark.slow
def test_five_steps_of_the_released_code(monkeypatch):
    check_five_steps(case(exchanged=False), "resnet", monkeypatch)
