"""Each method's loss and inner objective against formulas written again in numpy, in float64, values and gradients.

Sources of the formulas (S is the student, T the teacher, x' the adversarial image, CE the cross-entropy):
- SAT: Madry et al., ICLR 2018. TRADES: Zhang et al., ICML 2019. MART: Wang et al., ICLR 2020, constants as in its code.
- ARD (Goldblum et al., AAAI 2020), IAD (Zhu et al., ICLR 2022), RSLAD (Zi et al., ICCV 2021): Table 1 of the RSLAD
  paper, so ARD's CE has the temperature and IAD's divergences have no factor temperature^2; defaults as in their codes.
- GACD-style, this project's reading of Bai et al., arXiv 2009.09922: CE(S(x'), y) and, weighted by T_y(x), the
  noise-contrastive loss of CRD (Tian et al., ICLR 2020) with eps, noise, normaliser and banks as in CRD's code.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

from robust_distillation import methods
from robust_distillation.methods import Batch, Sizes
from robust_distillation.models.output import Output
from robust_distillation.teachers.live import LiveTeacher
from robust_distillation.training.reduction import reduce

# --- the formulas: logits [B,K] and labels [B] in, values [B] out ---


def log_softmax(logits):
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def of_class(logits, labels):
    return np.exp(log_softmax(logits))[np.arange(len(labels)), labels]


def ce(logits, labels):
    return -np.log(of_class(logits, labels))


def kl(student, target, temperature=1.0):
    """Student first, target second, as in the papers' table: sum_c b_c (log b_c - log a_c)."""
    a, b = log_softmax(student / temperature), log_softmax(target / temperature)
    return (np.exp(b) * (b - a)).sum(1)


def mart(z, y, beta=5.0):
    others = np.exp(log_softmax(z.adversarial))
    others[np.arange(len(y)), y] = -1.0
    boosted = ce(z.adversarial, y) - np.log(1.0001 - others.max(1))
    return boosted, beta * kl(z.adversarial, z.clean) * (1.0000001 - of_class(z.clean, y))


def ard(z, y, alpha=1.0, temperature=30.0):
    soft = temperature**2 * kl(z.adversarial, z.teacher, temperature)
    return (1 - alpha) * ce(z.clean / temperature, y), alpha * soft


def iad(z, y, beta=0.1, temperature=1.0):
    trust = of_class(z.teacher_adversarial, y) ** beta
    by_teacher, by_itself = (kl(z.adversarial, target, temperature) for target in (z.teacher, z.clean))
    return np.zeros(len(y)), trust * by_teacher + (1 - trust) * by_itself


def rslad(z, y, alpha=5 / 6):
    return np.zeros(len(y)), (1 - alpha) * kl(z.clean, z.teacher) + alpha * kl(z.adversarial, z.teacher)


# What is minimised: the part without, and the part with a divergence over the classes, which `kl_scale` scales.
OUTER = {
    "natural": lambda z, y: (ce(z.clean, y), np.zeros(len(y))),
    "sat": lambda z, y: (ce(z.adversarial, y), np.zeros(len(y))),
    "trades": lambda z, y, beta=6.0: (ce(z.clean, y), beta * kl(z.adversarial, z.clean)),
    "mart": mart,
    "ard": ard,
    "iad": iad,
    "rslad": rslad,
}
# What x' maximises.
INNER = {name: lambda z, y: ce(z.adversarial, y) for name in ("sat", "mart", "ard", "iad", "gacd")}
INNER["trades"] = lambda z, y: kl(z.adversarial, z.reference)
INNER["rslad"] = lambda z, y: kl(z.adversarial, z.teacher)

SETTINGS = [
    *((name, {}) for name in OUTER),
    ("trades", {"beta": 2.0}),
    ("mart", {"beta": 2.0}),
    ("ard", {"alpha": 0.3, "temperature": 4.0}),
    ("iad", {"beta": 2.0, "temperature": 4.0}),
    ("rslad", {"alpha": 0.3}),
]

# --- the same numbers for numpy and for torch ---


def example(classes, seed=0, size=8):
    """Logits of every pass and labels; the first half is mostly classified right, so that both cases occur."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=size)
    z = {}
    for name in ("clean", "adversarial", "reference", "teacher", "teacher_adversarial"):
        z[name] = 1.5 * rng.normal(size=(size, classes))
        z[name][np.arange(size // 2), y[: size // 2]] += 3
    return SimpleNamespace(**z), y


def as_batch(z, y, needs, inner=False):
    """The passes that the method declares, and no others; for the inner objective those made before x'."""
    names = ["reference"] if inner else ["reference", "clean", "adversarial", "teacher_adversarial"]
    names = [name for name in names if getattr(needs, name)] + ["teacher"] * needs.teacher_logits
    student = ("clean", "adversarial")
    passes = {name: Output(torch.tensor(getattr(z, name), requires_grad=name in student)) for name in names}
    return Batch(torch.tensor(y), torch.arange(len(y)), **passes)


def numeric_gradient(function, x, h=1e-6):
    """Central differences of `function()` in the entries of x, which it reads."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        here = x[i]
        x[i] = here + h
        above = function()
        x[i] = here - h
        gradient[i] = (above - function()) / (2 * h)
        x[i] = here
    return gradient


def close(actual, expected, tolerance=1e-9):
    np.testing.assert_allclose(torch.as_tensor(actual).detach(), expected, rtol=tolerance, atol=tolerance)


# --- the tests ---


def test_every_method_of_the_package_has_a_formula():
    own = {name for name in methods.names() if methods.registry.module_name(name).startswith(methods.__name__ + ".")}
    assert {*OUTER, "gacd"} == own
    assert set(INNER) == {name for name in own if methods.get(name).needs.adversarial}


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_loss_and_its_gradient(name, settings, kl_scale, classes):
    method, (z, y) = methods.get(name)(**settings), example(classes)

    def formula():
        plain, divergence = OUTER[name](z, y, **settings)
        return plain.mean() + divergence.mean() / (classes if kl_scale == "mean" else 1)

    batch = as_batch(z, y, method.needs)
    loss, _ = reduce(method.loss_terms(batch), classes, kl_scale)
    close(loss, formula())
    loss.backward()
    for student in ("clean", "adversarial"):
        found = getattr(batch, student)
        close(0.0 if found is None else found.logits.grad, numeric_gradient(formula, getattr(z, student)), 1e-6)


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize(("name", "settings"), [*(s for s in SETTINGS if s[0] in INNER), ("gacd", {})])
def test_inner_objective_and_its_gradient(name, settings, classes):
    method, (z, y) = methods.get(name)(**settings), example(classes, seed=1)
    logits = torch.tensor(z.adversarial, requires_grad=True)
    values = method.inner_objective(logits, as_batch(z, y, method.needs, inner=True))
    close(values, INNER[name](z, y))
    values.sum().backward()
    close(logits.grad, numeric_gradient(lambda: INNER[name](z, y).sum(), z.adversarial), 1e-6)


def test_teacher_carries_no_gradient():
    model = nn.Module()
    model.features, model.classifier = nn.Linear(4, 3), nn.Linear(3, 2)
    x = torch.rand(5, 4, requires_grad=True)
    for found in (LiveTeacher(model)(x), LiveTeacher(model).clean(x, None, None)):
        assert not found.logits.requires_grad
        assert not found.features.requires_grad


# --- GACD ---

SAMPLES, CLASS_SIZES = 40, (6, 0, 13, 21)  # one class without images
LABELS = np.random.default_rng(5).permutation(np.repeat(np.arange(4), CLASS_SIZES))
SMALL = {"dimension": 6, "negatives": 12}


def unit(v):
    return v / np.sqrt((v**2).sum(-1, keepdims=True))


def gacd(z, y, state, index, others, normalisers=None, beta=0.8, temperature=0.07, reweight=True, **_):
    """The loss; the normalisers of (student's, teacher's) bank, this batch's if none are given; the projections."""
    student = unit(z.student_features @ state["student_head.weight"].T + state["student_head.bias"])
    teacher = unit(z.teacher_features @ state["teacher_head.weight"].T + state["teacher_head.bias"])
    rows = np.column_stack([index, others])
    pairs = ((state["student_bank"][rows], teacher), (state["teacher_bank"][rows], student))
    scores = [np.exp((bank * v[:, None]).sum(2) / temperature) for bank, v in pairs]
    normalisers = normalisers or [s.mean() * SAMPLES for s in scores]
    values, noise = 0.0, others.shape[1] / SAMPLES
    for s, normaliser in zip(scores, normalisers, strict=True):
        p = s / normaliser
        values -= np.log(p[:, 0] / (p[:, 0] + noise + 1e-7)) + np.log(noise / (p[:, 1:] + noise + 1e-7)).sum(1)
    w = of_class(z.teacher, y) if reweight else np.ones(len(y))
    return ce(z.adversarial, y).mean() + beta * (w * values).sum() / w.sum(), normalisers, (student, teacher)


def gacd_state(settings):
    sizes = Sizes(SAMPLES, len(CLASS_SIZES), torch.tensor(LABELS), student_features=5, teacher_features=4)
    return methods.get("gacd")(**settings).build_state(sizes, torch.Generator().manual_seed(1)).double()


def snapshot(state):
    return {name: tensor.numpy().copy() for name, tensor in state.state_dict().items()}


def gacd_batch(seed, index):
    rng, y = np.random.default_rng(seed), LABELS[index]
    z = SimpleNamespace(student_features=rng.normal(size=(len(y), 5)))
    z.adversarial, z.teacher, z.teacher_features = rng.normal(size=(3, len(y), 4))
    student = Output(*(torch.tensor(x, requires_grad=True) for x in (z.adversarial, z.student_features)))
    teacher = Output(torch.tensor(z.teacher), torch.tensor(z.teacher_features))
    draw = torch.Generator().manual_seed(seed)
    return z, y, Batch(torch.tensor(y), torch.tensor(index), adversarial=student, teacher=teacher, generator=draw)


@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("other", [{}, {"beta": 2.0, "temperature": 0.5, "momentum": 0.8}, {"reweight": False}])
def test_gacd_over_three_batches(other, kl_scale):
    """Value and gradients; banks updated after the loss; the normaliser of each bank fixed by the first batch."""
    settings = SMALL | other
    method, state = methods.get("gacd")(**settings), gacd_state(settings)
    fixed, momentum = None, settings.get("momentum", 0.5)
    for seed, index in enumerate([[3, 17, 30, 8], [8, 0, 39], [5, 17, 8, 21, 2]]):
        z, y, batch = gacd_batch(seed, index)
        before = snapshot(state)
        others = state.draw_negatives(batch.labels, torch.Generator().manual_seed(seed)).numpy()
        loss, _ = reduce(method.loss_terms(batch, state), len(CLASS_SIZES), kl_scale)
        expected, fixed, projections = gacd(z, y, before, index, others, fixed, **settings)
        close(loss, expected)

        after = snapshot(state)
        close(torch.stack([state.student_normaliser, state.teacher_normaliser]), fixed)
        for bank, projection in zip(("student_bank", "teacher_bank"), projections, strict=True):
            updated = before[bank].copy()
            updated[index] = unit(momentum * updated[index] + (1 - momentum) * projection)
            close(after[bank], updated)

        state.zero_grad()
        loss.backward()
        student = batch.adversarial
        pairs = [(student.logits.grad, z.adversarial), (student.features.grad, z.student_features)]
        pairs += [(parameter.grad, before[name]) for name, parameter in state.named_parameters()]
        assert len(pairs) == 6
        formula = partial(gacd, z, y, before, index, others, fixed, **settings)  # no gradient through the normalisers
        for gradient, array in pairs:
            close(gradient, numeric_gradient(lambda f=formula: f()[0], array), 1e-6)


def test_gacd_starts_as_crd():
    default = methods.get("gacd")()
    assert (default.dimension, default.negatives) == (128, 16384)
    state, bound = gacd_state({"negatives": 1}), (128 / 3) ** -0.5
    for bank in (state.student_bank, state.teacher_bank):
        assert 0.99 * bound < bank.max() <= bound
        assert 0.99 * bound < -bank.min() <= bound
    assert not torch.equal(state.student_bank, state.teacher_bank)


@pytest.mark.parametrize("label", [0, 2, 3])
def test_negatives_are_uniform_over_the_images_of_other_classes(label):
    state = gacd_state(SMALL | {"negatives": 5000})
    drawn = state.draw_negatives(torch.tensor([label, label]), torch.Generator().manual_seed(label))
    assert drawn.shape == (2, 5000)
    assert not torch.equal(drawn[0], drawn[1])
    counts = np.bincount(drawn.numpy().ravel(), minlength=SAMPLES)
    assert (counts[label == LABELS] == 0).all()
    assert chisquare(counts[label != LABELS]).pvalue > 0.01
