"""CKD against a formula in numpy, and against a step of its released code."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import ce, close, log_softmax, unit
from pydantic import ValidationError
from released import Case, Code, Pair, images
from tabulated import Tabulated, check_loss, check_objective, example

from robust_distillation import methods
from robust_distillation.training.schedule import learning_rate

CKD = methods.get("ckd")


def contrast(student, teacher, temperature=1.0):
    """Row i: the teacher's logits of image i against the student's of all images."""
    cosines = unit(teacher) @ unit(student).T
    return -np.diag(log_softmax(cosines / temperature))


def ckd(z, y, fixed, beta=100.0, temperature=1.0, adversarial=False):
    logits = z.adversarial if adversarial else z.clean
    return ce(logits, y) + beta * contrast(logits, fixed.teacher, temperature), np.zeros(len(y))


SETTINGS = [{}, {"beta": 50.0, "temperature": 2.0}, {"adversarial": True}, {"adversarial": True, "temperature": 0.1}]


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_its_gradient(settings, kl_scale, classes):
    z, y = example(classes)
    step = Tabulated(z, y)
    check_loss(CKD(**settings), step, lambda z, fixed: ckd(z, y, fixed, **settings), classes, kl_scale)
    assert step.asked == ["adversarial" if settings.get("adversarial") else "clean", "teacher"]
    assert step.moved == []


def test_inner_objective_of_adversarial_images():
    z, y = example(10, seed=1)
    check_objective(CKD(adversarial=True), Tabulated(z, y), lambda z: ce(z.adversarial, y))
    step = Tabulated(z, y)
    CKD().loss(step)
    assert step.objective is None  # no attack


def test_order_of_the_batch_does_not_matter():
    z, y = example(10, seed=2)
    values = CKD().loss(Tabulated(z, y))[1].values
    order = np.random.default_rng(0).permutation(len(y))
    z.clean, z.teacher = z.clean[order], z.teacher[order]
    close(CKD().loss(Tabulated(z, y[order]))[1].values, values.detach().numpy()[order])


def test_of_one_image_nothing_is_contrasted():
    z, y = example(10, size=1)
    term = CKD().loss(Tabulated(z, y))[1]
    close(term.values, [0.0])


def test_values_by_hand():
    """Two images with orthogonal logits: log(1 + e^-1) where both networks agree, log(1 + e) where they are exchanged;
    of length 1 or not."""
    z, y = example(2, size=2)
    z.clean, z.teacher = np.diag([3.0, 0.5]), np.eye(2)
    close(CKD().loss(Tabulated(z, y))[1].values, [np.log(1 + np.exp(-1))] * 2)
    z.clean = z.clean[::-1].copy()
    close(CKD().loss(Tabulated(z, y))[1].values, [np.log(1 + np.exp(1))] * 2)


def test_images_of_all_processes_are_negatives():
    """A process with the first half of a batch has the values that one with the whole batch has for these rows."""
    z, y = example(10, seed=3)
    whole = Tabulated(z, y)
    expected = CKD().loss(whole)[1].values[:4]
    everyone = F.normalize(torch.tensor(z.clean), dim=1)
    half = copy.copy(z)
    half.clean, half.teacher = z.clean[:4], z.teacher[:4]
    step = Tabulated(half, y[:4])
    step.gather = lambda values: torch.cat([values, everyone[4:]])
    close(CKD().loss(step)[1].values, expected.detach())


@pytest.mark.parametrize("settings", [{"beta": -1.0}, {"temperature": 0.0}, {"adversarial": 1}, {"gamma": 1.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        CKD(**settings)


# --- the released code ---


def step_of_ckd(code: Code, x, y, epoch: int, step: int):
    """ZhouXinzzzzz/CKD, distillers/CKD.py and engine/trainer.py, without its normalisation of images. No image is
    attacked: x is returned."""
    logits = code.student(x)
    with torch.no_grad():
        target = code.teacher(x)
    similarity = F.normalize(target, dim=1) @ F.normalize(logits, dim=1).t()
    contrast = F.cross_entropy(similarity / 1.0, torch.arange(len(x)))
    loss = 1.0 * F.cross_entropy(logits, y) + 100.0 * contrast
    code.update(loss)
    return x, loss


RELEASED = Case("ckd", step_of_ckd, "cifar100", code={"learning_rate": 0.05, "weight_decay": 5e-4})


def test_first_step_is_that_of_the_released_code(monkeypatch):
    pair = Pair(RELEASED, "resnet", {"width": 4}, torch.float32, monkeypatch)
    pair.found.append(None)  # x' of no attack
    _, theirs, _, ours = pair.advance(0, 8)
    assert abs(ours - theirs) < 1e-6 * theirs
    assert pair.found == [None]


@pytest.mark.slow
def test_five_steps_are_those_of_the_released_code(monkeypatch):
    pair = Pair(RELEASED, "resnet", {"width": 4}, torch.float64, monkeypatch)
    pair.found.append(None)
    before = copy.deepcopy(pair.trainer.student.state_dict())
    for step in range(5):
        _, theirs, _, ours = pair.advance(step, 8)
        assert abs(ours - theirs) < 1e-9 * theirs, step
    found = pair.trainer.student.state_dict()
    for key, tensor in pair.code.student.state_dict().items():
        assert torch.allclose(found[key].double(), tensor.double(), rtol=0, atol=1e-9), key
        assert not torch.equal(tensor, before[key]), key
    assert images(torch.float64, 8, 100, 0)[1].max() > 10  # labels of 100 classes


@pytest.mark.parametrize(("architecture", "batch", "rate"), [("resnet", 64, 0.05), ("mobilenet_v2", 32, 0.01)])
def test_official_schedule(architecture, batch, rate):
    training = RELEASED.experiment.recipes["ckd", architecture].training
    assert (training.epochs, training.batch_size, training.weight_decay) == (480, batch, 5e-4)
    for epoch in (1, 2, 241, 480):  # CosineAnnealingLR of 480 epochs, stepped after each
        expected = rate * (1 + np.cos(np.pi * (epoch - 1) / 480)) / 2
        assert learning_rate(training, epoch, number=5, steps=782) == pytest.approx(expected)
    assert (training.selection.metric, training.selection.attack, training.selection.every) == ("mean", "pgd10", 1)
    assert CKD.official(100, architecture).settings == {}
