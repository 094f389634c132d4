"""CRDND-style against a formula in numpy, and its attack against that of a re-run's code."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import close, unit
from pydantic import ValidationError
from released import gaussian, images, network
from tabulated import Tabulated, check_loss, check_objective, example, objective_of

from robust_distillation import methods
from robust_distillation.attacks.core import pgd
from robust_distillation.methods import Sizes
from robust_distillation.settings import ThreatModel

CRDND = methods.get("crdnd")
SETTINGS = [{}, {"denoise": "none"}, {"alpha": 0.3, "temperature": 2.0}, {"temperature": 0.1, "confidence": 1.0}]


def infonce(student, teacher, temperature=0.5):
    """Computes NT-Xent: each of 2N vectors against all others, averaged over the two vectors of an image."""
    n, vectors = len(student), unit(np.concatenate([student, teacher]))
    scores = np.exp(vectors @ vectors.T / temperature)
    np.fill_diagonal(scores, 0)
    positive = scores[np.arange(2 * n), (np.arange(2 * n) + n) % (2 * n)]
    return -np.log(positive / scores.sum(1)).reshape(2, n).mean(0)


def matrix(accuracy):
    """Column i: a_i on the diagonal, the rest shared by the other classes."""
    classes = len(accuracy)
    m = np.tile((1 - accuracy) / (classes - 1), (classes, 1))
    m[np.diag_indices(classes)] = accuracy
    return m


def crdnd(z, fixed, accuracy=None, alpha=0.8, temperature=0.5, **_):
    clean, adversarial = (
        infonce(logits if accuracy is None else logits @ matrix(a).T, target, temperature)
        for logits, target, a in zip(
            (z.clean, z.adversarial),
            (fixed.teacher, fixed.teacher_adversarial),
            (None, None) if accuracy is None else accuracy,
            strict=True,
        )
    )
    return (1 - alpha) * clean + alpha * adversarial, np.zeros(len(clean))


def state_of(method, classes, accuracy=None):
    sizes = Sizes(40, classes, torch.arange(40) % classes, (1, 2, 2), student_features=5, teacher_features={})
    own = {name: module.double() for name, module in method.build(sizes, torch.Generator()).items()}
    if own and accuracy is not None:
        own["classes"].accuracy.copy_(torch.tensor(accuracy))
    return own


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_its_gradient(settings, kl_scale, classes):
    """No gradient flows into the teacher's logits or into the accuracies."""
    z, y = example(classes)
    method, accuracy = CRDND(**settings), np.random.default_rng(1).uniform(size=(2, classes))
    own = state_of(method, classes, accuracy)
    step = Tabulated(z, y, own)
    known = accuracy if own else None
    check_loss(method, step, lambda z, fixed: crdnd(z, fixed, known, **settings), classes, kl_scale)
    assert step.asked == ["clean", "adversarial", "teacher", "teacher_adversarial"]
    assert step.moved == []


@pytest.mark.parametrize("confidence", [90.0, 2.0])
@pytest.mark.parametrize("classes", [10, 3])
def test_inner_objective_and_its_gradient(classes, confidence):
    """Checks the clamp: a margin above the confidence has the confidence as its value, and the gradient 0."""
    z, y = example(classes, seed=1)

    def formula(z):
        others = z.adversarial.copy()
        others[np.arange(len(y)), y] = -np.inf
        return np.minimum(others.max(1) - z.adversarial[np.arange(len(y)), y], confidence)

    assert (formula(z) == confidence).any() == (confidence == 2.0)
    method = CRDND(confidence=confidence)
    check_objective(method, Tabulated(z, y, state_of(method, classes)), formula)


def test_student_sees_x_before_the_attack():
    z, y = example(10)
    method = CRDND()
    step = Tabulated(z, y, state_of(method, 10))
    objective_of(method, step)
    assert step.asked == ["clean"]


@pytest.mark.parametrize(("n", "temperature"), [(1, 0.5), (2, 0.5), (5, 0.5), (5, 2.0)])
def test_orthonormal_logits_by_hand(n, temperature):
    """Both networks alike, the N images orthogonal: log( (e^(1/t) + 2N - 2) / e^(1/t) ); of one image 0."""
    z, y = example(6, size=n)
    z.clean = z.adversarial = z.teacher = z.teacher_adversarial = 3 * np.eye(6)[:n]
    expected = np.log((np.exp(1 / temperature) + 2 * n - 2) / np.exp(1 / temperature))
    terms = CRDND(denoise="none", temperature=temperature).loss(Tabulated(z, y))
    for term in terms:
        close(term.values, [expected] * n)
    close(sum(term.weight for term in terms), 1.0)


def test_small_temperatures_do_not_overflow():
    z, y = example(10)
    values = CRDND(denoise="none", temperature=0.001).loss(Tabulated(z, y))[0].values
    assert values.isfinite().all()


def test_denoising_by_hand():
    """The first class is right in 3 of 4 cases, the second always, the third never."""
    method = CRDND(temperature=1.0)
    found = matrix(np.array([0.75, 1.0, 0.0]))
    close(found, [[0.75, 0.0, 0.5], [0.125, 1.0, 0.5], [0.125, 0.0, 0.0]])
    module = __import__(type(method).__module__, fromlist=["denoised"])
    logits = np.array([[8.0, 0.0, 0.0], [0.0, 0.0, 4.0], [8.0, 1.0, 4.0]])
    close(
        module.denoised(torch.tensor(logits), torch.tensor([0.75, 1.0, 0.0]).double()),
        [[6.0, 1.0, 1.0], [2.0, 2.0, 0.0], [8.0, 4.0, 1.0]],
    )


def test_accuracies_over_three_epochs_by_hand():
    """Two steps an epoch, four classes. Counts of this epoch do not act before its end; a class that is not seen keeps
    its accuracy; epochs are not added up."""
    method = CRDND()
    own = state_of(method, 4)
    state = own["classes"]

    def step(labels, clean, adversarial):
        z, _ = example(4, size=len(labels))
        z.teacher, z.teacher_adversarial = 5 * np.eye(4)[clean], 5 * np.eye(4)[adversarial]
        before = state.accuracy.clone()
        terms = method.loss(Tabulated(z, np.array(labels), own))
        expected = crdnd(z, z, before.numpy())[0]
        close(0.2 * terms[0].values + 0.8 * terms[1].values, expected)
        assert torch.equal(state.accuracy, before)

    def end(epoch):
        method.after_epoch(SimpleNamespace(own=own, epoch=epoch))
        assert not state.right.any()
        assert not state.images.any()

    assert (state.accuracy == 1).all()
    step([0, 0, 1], [0, 1, 1], [0, 1, 0])
    step([0, 0, 3], [0, 0, 3], [1, 1, 2])
    assert state.images.tolist() == [4, 1, 0, 1]
    end(1)
    close(state.accuracy, [[0.75, 1, 1, 1], [0.25, 0, 1, 0]])
    step([0, 2], [0, 1], [0, 1])
    step([2, 2], [2, 0], [0, 0])
    end(2)
    close(state.accuracy, [[1, 1, 1 / 3, 1], [1, 0, 0, 0]])
    step([3, 3], [3, 2], [3, 3])
    end(3)
    close(state.accuracy, [[1, 1, 1 / 3, 0.5], [1, 0, 0, 1]])


def test_in_the_first_epoch_both_settings_are_the_same_bit_by_bit():
    z, y = example(10)
    found = []
    for settings in ({}, {"denoise": "none"}):
        method = CRDND(**settings)
        step = Tabulated(z, y, state_of(method, 10))
        terms = method.loss(step)
        sum((term.weight * term.values.mean()) for term in terms).backward()
        found.append(
            [*(term.values for term in terms), *(step.outputs[n].logits.grad for n in ("clean", "adversarial"))]
        )
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_images_of_all_processes_are_negatives_and_counted():
    """A process with the first half of a batch has the values that one with the whole batch has for these rows."""
    z, y = example(10, seed=3)
    method = CRDND(temperature=0.3)
    whole = Tabulated(z, y, state_of(method, 10))
    expected = [term.values[:4].detach() for term in method.loss(whole)]
    half = copy.copy(z)
    for name in ("clean", "adversarial", "teacher", "teacher_adversarial"):
        setattr(half, name, getattr(z, name)[:4])
    step = Tabulated(half, y[:4], state_of(method, 10))
    right = [torch.tensor((table.argmax(1) == y)[4:]).long() for table in (z.teacher, z.teacher_adversarial)]
    tables = (z.clean, z.teacher, z.adversarial, z.teacher_adversarial)
    rest = [torch.tensor(y[4:]), *right]  # in the order in which they are gathered
    for first, second in (tables[:2], tables[2:]):
        rest += [F.normalize(torch.tensor(table[4:]), dim=1) for table in (first, second)] + [torch.arange(4, 8)]
    step.gather = lambda values: torch.cat([values, rest.pop(0)])
    for term, values in zip(method.loss(step), expected, strict=True):
        close(term.values, values)
    assert rest == []
    for name in ("images", "right"):
        assert torch.equal(getattr(step.own["classes"], name), getattr(whole.own["classes"], name))


def test_methods_without_matrices_have_no_state():
    assert state_of(CRDND(denoise="none"), 10) == {}
    CRDND(denoise="none").after_epoch(SimpleNamespace(own={}))
    assert CRDND.official(10, "resnet") is None


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 1.5}, {"alpha": -0.1}, {"temperature": 0.0}, {"denoise": "learnt"}, {"confidence": -1.0}, {"beta": 1.0}],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        CRDND(**settings)


# --- the re-run ---


@pytest.mark.parametrize("confidence", [90.0, 0.0])
def test_attack_is_that_of_the_re_run_bit_by_bit(confidence):
    """SZU-AdvTech-2023/098, rslad_loss.py: cwloss and rslad_inner_loss. With a confidence of 0 the clamp acts."""
    student = network("resnet", {"width": 4}, 10, torch.float32, 1).eval()
    x, y = images(torch.float32, 8, 10, 0)

    def margin_loss(output):
        one_hot = F.one_hot(y, 10)
        real = (one_hot * output).sum(1)
        other = ((1.0 - one_hot) * output - one_hot * 10000.0).max(1)[0]
        return torch.sum(-torch.clamp(real - other + confidence, min=0.0))

    theirs = x + gaussian(x, 1, 0)
    for _ in range(10):
        theirs.requires_grad_()
        [gradient] = torch.autograd.grad(margin_loss(student(theirs)), [theirs])
        theirs = theirs.detach() + 2 / 255 * torch.sign(gradient)
        theirs = torch.clamp(torch.min(torch.max(theirs, x - 8 / 255), x + 8 / 255), 0.0, 1.0)
    ours = pgd(
        student,
        x,
        CRDND(confidence=confidence)._inner_objective,
        ThreatModel(eps=8 / 255),
        steps=10,
        step_size=2 / 255,
        noise=gaussian(x, 1, 0),
        mode="eval",
        project_start=False,
        objective_args=(y,),
    )
    assert torch.equal(ours, theirs)
    still = (ours - x).flatten(1).abs().amax(1) < 2 / 255  # where no step was made, only noise
    assert still.any() == (confidence == 0.0)  # images that are wrong from the start


def test_loss_is_that_of_the_re_run():
    """newCRLL.py: the mean over 2N vectors, and 0.2 and 0.8 of it."""
    z, y = example(10)

    def theirs(teacher, student, tau=0.5):
        size = len(student)
        both = torch.cat([F.normalize(student, dim=1), F.normalize(teacher, dim=1)])
        cosines = F.cosine_similarity(both.unsqueeze(1), both.unsqueeze(0), dim=2)
        positives = torch.cat([torch.diag(cosines, size), torch.diag(cosines, -size)])
        others = (~torch.eye(2 * size, dtype=bool)) * torch.exp(cosines / tau)
        return -torch.log(torch.exp(positives / tau) / others.sum(1)).sum() / (2 * size)

    logits = {name: torch.tensor(getattr(z, name)) for name in vars(z) if name != "epoch"}
    expected = 0.2 * theirs(logits["teacher"], logits["clean"])
    expected += 0.8 * theirs(logits["teacher_adversarial"], logits["adversarial"])
    terms = CRDND(denoise="none").loss(Tabulated(z, y))
    close(sum(term.weight * term.values.mean() for term in terms), expected)
