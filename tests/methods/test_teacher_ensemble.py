"""The mean of several teachers, with RSLAD's losses, against numpy."""

import numpy as np
import pytest
import torch
from formulas import close, log_softmax
from tabulated import Tabulated, check_loss, check_objective, example, objective_of

from robust_distillation import methods
from robust_distillation.methods import TeacherCalls
from robust_distillation.training.reduction import reduce

NAMES = ("clean", "adversarial", "first", "second", "third", "a", "b", "teacher")
THREE = {"members": ["first", "second", "third"]}
SETTINGS = [
    {},
    {"mean": "logits"},
    {"alpha": 0.3},
    {"alpha": 0.0},
    {"alpha": 1.0, "mean": "logits"},
    THREE,
    THREE | {"mean": "logits", "alpha": 0.3},
    {"members": ["a", "b"]},
]


def distance(z, student, members=("first", "second"), mean="probabilities", **_):
    """sum_c q (log q - log p) of each image, with q of all teachers on clean images."""
    tables = np.stack([getattr(z, member) for member in members])
    q = np.exp(log_softmax(tables.mean(0)))
    if mean == "probabilities":
        q = np.stack([np.exp(log_softmax(table)) for table in tables]).mean(0)
    return (q * (np.log(q) - log_softmax(student))).sum(1)


def outer(z, alpha=5 / 6, **settings):
    found = (1 - alpha) * distance(z, z.clean, **settings) + alpha * distance(z, z.adversarial, **settings)
    return np.zeros(len(found)), found


def ensemble(**settings):
    return methods.get("teacher_ensemble")(**settings)


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_its_gradient(settings, kl_scale, classes):
    z, y = example(classes, names=NAMES)
    step = Tabulated(z, y)
    check_loss(ensemble(**settings), step, lambda z, _: outer(z, **settings), classes, kl_scale)
    assert step.asked == [*settings.get("members", ("first", "second")), "adversarial", "clean"]


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("settings", SETTINGS)
def test_inner_objective_and_its_gradient(settings, classes):
    z, y = example(classes, seed=1, names=NAMES)
    step = Tabulated(z, y)
    check_objective(ensemble(**settings), step, lambda z: distance(z, z.adversarial, **settings))


@pytest.mark.parametrize(("mean", "q"), [("probabilities", [0.5, 0.5]), ("logits", [0.5, 0.5])])
def test_two_teachers_that_contradict_each_other_by_hand(mean, q):
    """0.9 and 0.1 for the first class: the mean is 1/2 in both ways, and the divergence from 1/2 is 0."""
    z, y = example(2, names=NAMES, size=1)
    z.first, z.second = np.log([[0.9, 0.1]]), np.log([[0.1, 0.9]])
    z.clean, z.adversarial = np.log([q]), np.log([[0.25, 0.75]])
    clean, adversarial = ensemble(mean=mean).loss(Tabulated(z, y))
    close(clean.values, [0.0])
    close(adversarial.values, [0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)])


def test_means_differ_where_the_teachers_are_sure_to_different_degrees():
    """0.8 and 0.5: the mean of the probabilities is 0.65, the normalised geometric mean is sqrt(4) / (sqrt(4) + 1)."""
    z, y = example(2, names=NAMES, size=1)
    z.first, z.second = np.log([[0.8, 0.2]]), np.log([[0.5, 0.5]])
    for mean, q in (("probabilities", 0.65), ("logits", 2 / 3)):
        z.clean = np.log([[q, 1 - q]])
        close(ensemble(mean=mean).loss(Tabulated(z, y))[0].values, [0.0])


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_equal_teachers_are_rslads_teacher(mean):
    """Bit by bit for logits; the logarithm of a softmax rounds."""
    z, y = example(10, names=NAMES)
    z.first = z.second = z.teacher
    found = []
    for method in (ensemble(mean=mean), methods.get("rslad")()):
        step = Tabulated(z, y)
        loss, means = reduce(method.loss(step), 10, "mean")
        loss.backward()
        gradients = [step.outputs[name].logits.grad for name in ("clean", "adversarial")]
        values = objective_of(method, Tabulated(z, y))(step.outputs["adversarial"].logits)
        found.append([loss.detach(), *means.values(), *gradients, values.detach()])
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs, 1e-13)
        assert mean == "probabilities" or torch.equal(ours, theirs)


def test_a_batch_of_one_and_probabilities_that_underflow_are_finite():
    z, y = example(10, names=NAMES, size=1)
    z.first = 300 * z.first
    z.second = 300 * z.second
    for settings in ({}, {"mean": "logits"}):
        step = Tabulated(z, y)
        loss, _ = reduce(ensemble(**settings).loss(step), 10, "sum")
        loss.backward()
        assert loss.isfinite()
        assert step.outputs["adversarial"].logits.grad.isfinite().all()


def test_each_member_is_a_teacher_whose_logits_are_cached():
    method = ensemble(members=["cnn", "vit", "mixer"])
    assert method.teachers() == dict.fromkeys(["cnn", "vit", "mixer"], TeacherCalls(cached=("logits",)))
    assert method.cached == (("cnn", "logits"), ("vit", "logits"), ("mixer", "logits"))
    assert not method.needs_labels()
    assert method.official(10, "resnet") is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"members": ["one"]}, "at least 2"),
        ({"members": [str(number) for number in range(9)]}, "at most 8"),
        ({"members": ["one", "one"]}, "twice"),
        ({"members": ["one", ""]}, "pattern"),
        ({"members": ["one", "../two"]}, "pattern"),
        ({"members": 2}, "list"),
        ({"mean": "median"}, "probabilities"),
        ({"alpha": 1.1}, "less than or equal"),
        ({"alpha": -0.1}, "greater than or equal"),
        ({"teachers": 2}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ensemble(**settings)
