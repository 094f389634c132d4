"""Each method's loss and inner objective against formulas written again in numpy, in float64, values and gradients.

Sources of the formulas (S is the student, T the teacher, x' the adversarial image, CE the cross-entropy):
- SAT: Madry et al., ICLR 2018. TRADES: Zhang et al., ICML 2019. MART: Wang et al., ICLR 2020, constants as in its code.
- ARD (Goldblum et al., AAAI 2020), IAD (Zhu et al., ICLR 2022), RSLAD (Zi et al., ICCV 2021): Table 1 of the RSLAD
  paper, so ARD's CE has the temperature and IAD's divergences have no factor temperature^2; defaults as in their codes.
  What their released codes do otherwise (`tempered_cross_entropy`, `begin`, `teacher_weight`, `log_constant`): those.
- RSLAD's other labels and temperature: cross-entropy with y, TRADES' KL(S(x) || .), t^2 KL of the softened outputs.
- AdaAD (Huang et al., CVPR 2023): its equations.
- KD: Hinton et al., 2015. CRD: Tian et al., ICLR 2020. Weights as in CRD's released scripts.
- GACD-style, after what is quoted of Bai et al., arXiv 2009.09922: CE(S(x'), y) and, weighted by T_y, the
  noise-contrastive loss of CRD (Tian et al., ICLR 2020) with eps, noise, normaliser and banks as in CRD's code.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from formulas import ce, close, kl, log_softmax, numeric_gradient, of_class, unit
from pydantic import ValidationError
from scipy.stats import chisquare
from tabulated import EPOCH, Tabulated, check_loss, check_objective, example, objective_of
from torch import nn

from robust_distillation import methods
from robust_distillation.losses import kl_divergence, margin
from robust_distillation.methods import TEACHER, Sizes
from robust_distillation.models.output import Output
from robust_distillation.training.reduction import reduce
from robust_distillation.training.teacher import Teacher


def kd(z, y, gamma=0.1, alpha=0.9, temperature=4.0):
    return gamma * ce(z.clean, y), alpha * temperature**2 * kl(z.clean, z.teacher, temperature)


def mart(z, y, beta=5.0, log_constant=0.0, **_):
    others = np.exp(log_softmax(z.adversarial))
    others[np.arange(len(y)), y] = -1.0
    boosted = ce(z.adversarial, y) - np.log(1.0001 - others.max(1) + log_constant)
    distance = kl(z.adversarial, z.clean, student_constant=log_constant)
    return boosted, beta * distance * (1.0000001 - of_class(z.clean, y))


def ard(z, y, alpha=1.0, temperature=30.0, tempered_cross_entropy=True):
    soft = temperature**2 * kl(z.adversarial, z.teacher, temperature)
    return (1 - alpha) * ce(z.clean / temperature if tempered_cross_entropy else z.clean, y), alpha * soft


def iad(z, y, beta=0.1, temperature=1.0, begin=0, teacher_weight="trust", **_):
    trust = of_class(z.teacher_adversarial, y) ** beta
    by_teacher, by_itself = (kl(z.adversarial, target, temperature) for target in (z.teacher, z.clean))
    whole = trust * by_teacher + (1 - trust) * by_itself
    if z.epoch <= begin:
        whole = temperature**2 * by_teacher
    elif teacher_weight == "one":
        whole = temperature**2 * by_teacher + (1 - trust) * kl(z.adversarial, z.clean)
    return np.zeros(len(y)), whole


def rslad_part(z, y, logits, labels, temperature, constant=0.0, own="clean"):
    """One of RSLAD's three losses: without, and with a divergence."""
    if labels == "hard":
        return np.array([ce(logits, y), np.zeros(len(y))])
    target = getattr(z, {"teacher": "teacher", "student": own}[labels])
    distance = temperature**2 * kl(logits, target, temperature, target_constant=constant)
    return np.array([np.zeros(len(y)), distance])


def rslad(
    z, y, alpha=5 / 6, clean_labels="teacher", adversarial_labels="teacher", temperature=1.0, log_constant=0.0, **_
):
    clean = rslad_part(z, y, z.clean, clean_labels, temperature, log_constant)
    return (1 - alpha) * clean + alpha * rslad_part(z, y, z.adversarial, adversarial_labels, temperature, log_constant)


def rslad_inner(z, y, inner_labels="teacher", temperature=1.0, **_):
    return rslad_part(z, y, z.adversarial, inner_labels, temperature, own="reference").sum(0)


def adaad(z, y, alpha=1.0, **_):
    clean = (1 - alpha) * kl(z.clean, z.teacher)
    return np.zeros(len(y)), alpha * kl(z.adversarial, z.teacher_adversarial) + clean


# What is minimised: the part without, and the part with a divergence over the classes, which `kl_scale` scales.
OUTER = {
    "natural": lambda z, y: (ce(z.clean, y), np.zeros(len(y))),
    "sat": lambda z, y: (ce(z.adversarial, y), np.zeros(len(y))),
    "trades": lambda z, y, beta=6.0, **_: (ce(z.clean, y), beta * kl(z.adversarial, z.clean)),
    "kd": kd,
    "mart": mart,
    "ard": ard,
    "iad": iad,
    "rslad": rslad,
    "adaad": adaad,
}
# What x' maximises.
INNER = {name: lambda z, y, **_: ce(z.adversarial, y) for name in ("sat", "mart", "ard", "iad", "gacd")}
INNER["adaad"] = lambda z, y, **_: kl(z.adversarial, z.teacher_adversarial)
INNER["trades"] = lambda z, y, **_: kl(z.adversarial, z.reference)
INNER["rslad"] = rslad_inner
# With memory banks: see below.
CONTRASTIVE = {"crd", "gacd"}

SETTINGS = [
    *((name, {}) for name in OUTER),
    ("trades", {"beta": 2.0}),
    ("kd", {"gamma": 1.0, "alpha": 0.3, "temperature": 2.0}),
    ("mart", {"beta": 2.0}),
    ("mart", {"log_constant": 1e-12}),
    ("mart", {"log_constant": 0.01}),
    ("ard", {"alpha": 0.3, "temperature": 4.0}),
    ("ard", {"alpha": 0.3, "temperature": 4.0, "tempered_cross_entropy": False}),
    ("iad", {"beta": 2.0, "temperature": 4.0}),
    ("iad", {"beta": 2.0, "temperature": 4.0, "teacher_weight": "one"}),
    ("iad", {"beta": 2.0, "temperature": 4.0, "begin": EPOCH - 1}),
    ("iad", {"beta": 2.0, "temperature": 4.0, "begin": EPOCH}),
    ("iad", {"beta": 2.0, "temperature": 4.0, "begin": EPOCH, "teacher_weight": "one"}),
    ("rslad", {"alpha": 0.3}),
    ("rslad", {"temperature": 3.0}),
    ("rslad", {"log_constant": 1e-5}),
    ("rslad", {"log_constant": 0.01, "temperature": 3.0, "adversarial_labels": "student"}),
    *(
        ("rslad", {"clean_labels": clean, "adversarial_labels": adversarial, "inner_labels": inner})
        for clean in ("teacher", "hard")
        for adversarial in ("teacher", "hard", "student")
        for inner in ("teacher", "hard", "student")
    ),
    ("rslad", {"inner_labels": "student", "temperature": 3.0}),
    ("adaad", {"alpha": 0.3}),
    ("adaad", {"clean_pass": True}),
    *(("trades", {"clean_first": first}) for first in (False, True)),
    ("mart", {"clean_first": True}),
    ("iad", {"repeat_passes": True, "begin": EPOCH - 1}),
    ("iad", {"repeat_passes": True, "begin": EPOCH}),
]

# --- the tests ---


def test_every_method_of_the_package_has_a_formula():
    own = {name for name in methods.names() if methods.registry.module_name(name).startswith(methods.__name__ + ".")}
    files = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("methods/test_*.py")}
    assert sorted([*OUTER, *CONTRASTIVE, *files]) == sorted(own)
    assert set(INNER) == own - files - {"natural", "kd", "crd"}


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_loss_and_its_gradient(name, settings, kl_scale, classes):
    z, y = example(classes)
    check_loss(
        methods.get(name)(**settings), Tabulated(z, y), lambda z, _: OUTER[name](z, y, **settings), classes, kl_scale
    )


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize(("name", "settings"), [*(s for s in SETTINGS if s[0] in INNER), ("gacd", {})])
def test_inner_objective_and_its_gradient(name, settings, classes):
    z, y = example(classes, seed=1)
    check_objective(methods.get(name)(**settings), Tabulated(z, y), lambda z: INNER[name](z, y, **settings))


@pytest.mark.parametrize(
    ("settings", "teacher", "reference"),
    [
        ({}, True, False),
        ({"inner_labels": "student"}, True, True),
        ({"clean_labels": "hard", "adversarial_labels": "student", "inner_labels": "student"}, False, True),
        ({"clean_labels": "hard", "adversarial_labels": "hard", "inner_labels": "hard"}, False, False),
        ({"clean_labels": "hard", "adversarial_labels": "hard"}, True, False),
    ],
)
def test_rslad_asks_for_a_teacher_only_where_a_loss_uses_it(settings, teacher, reference):
    method, (z, y) = methods.get("rslad")(**settings), example(10)
    assert bool(method.teachers()) == teacher
    step, asked = Tabulated(z, y), []
    step.student = lambda x, train=False, real=step.student: asked.append(train) or real(x, train=train)
    method.loss(step)
    assert asked == [False] * reference + [True, True]


def test_rslad_with_other_labels_is_the_other_methods():
    """A tie between files: TRADES but for its weights, SAT, and PGD-AT's inner maximisation."""
    z, y = example(10)
    own = {"clean_labels": "hard", "adversarial_labels": "student", "inner_labels": "student"}
    ours, trades = methods.get("rslad")(**own), methods.get("trades")()
    step = Tabulated(z, y)
    for found, expected in zip(ours.loss(step), trades.loss(step), strict=True):
        close(found.values, expected.values.detach())
        assert found.divergence == expected.divergence
    logits = step.outputs["adversarial"].logits
    close(objective_of(ours, Tabulated(z, y))(logits), objective_of(trades, Tabulated(z, y))(logits).detach())
    hard = methods.get("rslad")(adversarial_labels="hard", inner_labels="hard")
    [sat] = methods.get("sat")().loss(step)
    close(hard.loss(step)[1].values, sat.values.detach())
    close(objective_of(hard, Tabulated(z, y))(logits), sat.values.detach())


def test_log_constant_of_rslad_moves_the_loss_and_no_gradient():
    found = []
    for constant in (0.0, 1e-5):
        z, y = example(10)
        method = methods.get("rslad")(log_constant=constant)
        step = Tabulated(z, y)
        loss, _ = reduce(method.loss(step), 10, "mean")
        loss.backward()
        found.append((loss.detach(), *(step.outputs[name].logits.grad for name in ("clean", "adversarial"))))
    without, with_it = found
    probabilities = np.exp(log_softmax(z.teacher))
    shift = (probabilities * np.log1p(1e-5 / probabilities)).mean()
    assert 1e-6 < shift < 1e-4
    close(with_it[0] - without[0], shift, 1e-12)
    for one, other in zip(without[1:], with_it[1:], strict=True):
        close(one, other, 1e-15)


def test_divergence_has_the_gradient_bits_of_the_released_codes():
    """They write kl_div(log_softmax, softmax); a sign step of an attack can hang on the last bit."""
    draw = torch.Generator().manual_seed(0)
    target = 3 * torch.randn(512, 10, generator=draw)
    logits, theirs = ((3 * torch.randn(512, 10, generator=draw)).requires_grad_() for _ in range(2))
    theirs.data.copy_(logits.data)
    kl_divergence(target, logits).sum().backward()
    nn.functional.kl_div(theirs.log_softmax(1), target.softmax(1), reduction="sum").backward()
    assert torch.equal(logits.grad, theirs.grad)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_divergence_is_finite_where_a_probability_underflows(temperature):
    """Closed form: all weight on the first class against all on the second, 200 logits apart."""
    target = torch.tensor([[0.0, -200.0], [0.0, 0.0]], requires_grad=True)
    logits = torch.tensor([[-200.0, 0.0], [0.0, -300.0]], requires_grad=True)
    assert target.softmax(1)[0, 1] == 0
    values = kl_divergence(target, logits, temperature)
    close(values, [200 / temperature, 150 / temperature - np.log(2)], 1e-5)
    values.sum().backward()
    close(logits.grad, np.array([[-1.0, 1.0], [0.5, -0.5]]) / temperature, 1e-6)
    assert torch.isfinite(target.grad).all()


def test_teacher_carries_no_gradient():
    model = nn.Module()
    model.features, model.classifier = nn.Linear(4, 3), nn.Linear(3, 2)
    teacher, x = Teacher(model), torch.rand(5, 4)
    for output in (teacher(x), teacher.clean(x, None, None)):
        assert not output.logits.requires_grad
        assert not output.features.requires_grad
    assert teacher(x.requires_grad_()).logits.requires_grad  # AdaAD attacks through it


# --- memory banks: CRD and GACD ---

SAMPLES, CLASS_SIZES = 40, (6, 0, 13, 21)  # one class without images
LABELS = np.random.default_rng(5).permutation(np.repeat(np.arange(4), CLASS_SIZES))
SMALL = {"dimension": 6, "negatives": 12}
BOTH = ("logits", "features")


def contrast(z, state, rows, positives, normalisers, temperature, sides="both"):
    """CRD's losses; the normalisers of (student's, teacher's) bank, this batch's if none are known; the projections.

    rows: the positive and the negatives of each image in the banks. positives: with the teacher as the only anchor,
    places in the batch; their projections by the student take the place of the first of `rows`.
    """
    student = unit(z.student_features @ state["student_head.weight"].T + state["student_head.bias"])
    teacher = unit(z.teacher_features @ state["teacher_head.weight"].T + state["teacher_head.bias"])
    pairs = [(state["student_bank"][rows], teacher), (state["teacher_bank"][rows], student)]
    if sides == "teacher_anchor":
        compared, _ = pairs.pop(0)
        pairs = [(np.concatenate([student[positives][:, None], compared[:, 1:]], 1), teacher)]
    scores = [np.exp((bank * v[:, None]).sum(2) / temperature) for bank, v in pairs]
    normalisers = normalisers or [s.mean() * SAMPLES for s in scores]
    values, noise = 0.0, (rows.shape[1] - 1) / SAMPLES
    for s, normaliser in zip(scores, normalisers, strict=True):
        p = s / normaliser
        values -= np.log(p[:, 0] / (p[:, 0] + noise + 1e-7)) + np.log(noise / (p[:, 1:] + noise + 1e-7)).sum(1)
    return values, normalisers, (student, teacher)


def gacd(z, y, values, beta=0.8, reweight=True, normalise_weights=False, **_):
    w = of_class(z.teacher, y) if reweight else np.ones(len(y))
    return ce(z.student, y).mean() + beta * (w * values).mean() / (w.mean() if normalise_weights else 1), 0.0


def crd(z, y, values, gamma=1.0, alpha=0.0, beta=0.8, kd_temperature=4.0, **_):
    soft = kd_temperature**2 * kl(z.student, z.teacher, kd_temperature).mean()
    return gamma * ce(z.student, y).mean() + beta * values.mean(), alpha * soft


def contrast_state(name, settings):
    labels = torch.tensor(LABELS)
    sizes = Sizes(SAMPLES, len(CLASS_SIZES), labels, (1, 8, 8), student_features=5, teacher_features={TEACHER: 4})
    return methods.get(name)(**settings).build(sizes, torch.Generator().manual_seed(1))["contrast"].double()


def snapshot(state):
    return {name: tensor.numpy().copy() for name, tensor in state.state_dict().items()}


def contrast_step(kinds, seed, index, state):
    """A step of which the student's features are given, of x' for GACD and of x for CRD. kinds: of the teacher's output
    that the method uses."""
    rng, y = np.random.default_rng(seed), LABELS[index]
    z = SimpleNamespace(student_features=rng.normal(size=(len(y), 5)))
    z.student, z.teacher, z.teacher_features = rng.normal(size=(3, len(y), 4))
    student = Output(*(torch.tensor(x, requires_grad=True) for x in (z.student, z.student_features)))
    teacher = Output(torch.tensor(z.teacher) if "logits" in kinds else None, torch.tensor(z.teacher_features))
    draws = torch.Generator().manual_seed(seed)
    return (
        z,
        y,
        student,
        SimpleNamespace(
            x=None,
            labels=torch.tensor(y),
            targets=torch.tensor(y),
            ids=torch.tensor(index),
            own={"contrast": state},
            student=lambda x, train: student,
            cached=lambda: teacher,
            teacher={TEACHER: lambda x: teacher},
            attack=lambda objective, *args: "x'",
            uniform=lambda *shape, dtype: torch.rand(len(y), *shape, generator=draws, dtype=dtype),
            gather=lambda values: values,
            mean=lambda values: values.mean(),
        ),
    )


def sample_negatives(state, labels, seed):
    """The negatives [B,K] of a step."""
    draws = torch.Generator().manual_seed(seed)
    return state.negatives_of(labels, torch.rand(len(labels), state.negatives, generator=draws, dtype=torch.float64))


def sample_positives(index, negatives, seed, positive="instance", sides="both"):
    """The positives [B] of a step: positions in the training images, or with the teacher as the only anchor in the
    batch. The second draw of the step chooses among the images of the class, in ascending order."""
    if positive == "instance":
        return list(range(len(index))) if sides == "teacher_anchor" else index
    draws = torch.Generator().manual_seed(seed)
    torch.rand(len(index), negatives, generator=draws, dtype=torch.float64)
    numbers = torch.rand(len(index), generator=draws, dtype=torch.float64).tolist()
    among = LABELS[index] if sides == "teacher_anchor" else LABELS
    of_class = [np.flatnonzero(among == LABELS[i]) for i in index]
    return [int(images[int(number * len(images))]) for images, number in zip(of_class, numbers, strict=True)]


OLD = {"normalise_weights": True, "positive": "instance", "sides": "both"}  # CRD's loss, weights of mean 1


@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("gacd", {}),
        ("gacd", {"beta": 2.0, "temperature": 0.5, "momentum": 0.8}),
        ("gacd", {"reweight": False, "normalise_weights": True}),
        ("gacd", {"negatives": 30, "temperature": 0.2}),
        ("gacd", {"teacher_sees": "adversarial"}),
        ("gacd", {"positive": "instance"}),
        ("gacd", {"sides": "both"}),
        ("gacd", {"sides": "both", "reweight": False}),
        ("gacd", OLD),
        ("gacd", OLD | {"temperature": 0.5, "momentum": 0.8, "teacher_sees": "adversarial"}),
        ("crd", {}),
        ("crd", {"alpha": 1.0}),
        ("crd", {"gamma": 0.5, "alpha": 0.3, "beta": 2.0, "temperature": 0.5, "momentum": 0.8, "kd_temperature": 2.0}),
    ],
)
def test_contrast_over_three_batches(name, other, kl_scale):
    """Value and gradients; banks updated after the loss; the normaliser of each bank fixed by the first batch."""
    settings = SMALL | other
    method, state = methods.get(name)(**settings), contrast_state(name, settings)
    classes, weighted = len(CLASS_SIZES), {"crd": crd, "gacd": gacd}[name]
    fixed, momentum = None, settings.get("momentum", 0.5)
    sides, positive = (getattr(method, key, default) for key, default in (("sides", "both"), ("positive", "instance")))
    for seed, index in enumerate([[3, 17, 30, 8], [8, 0, 39], [5, 17, 8, 21, 2, 11, 12]]):
        z, y, student, step = contrast_step(method.teachers()[TEACHER].cached or BOTH, seed, index, state)
        before = snapshot(state)
        negatives = sample_negatives(state, step.labels, seed).numpy()
        positives = sample_positives(index, state.negatives, seed, positive, sides)
        rows = np.column_stack([index if sides == "teacher_anchor" else positives, negatives])

        def formula(z=z, y=y, before=before, rows=rows, positives=positives, fixed=fixed):
            values, *found = contrast(z, before, rows, positives, fixed, settings.get("temperature", 0.07), sides)
            plain, divergence = weighted(z, y, values, **settings)
            return plain + divergence / (classes if kl_scale == "mean" else 1), *found

        loss, _ = reduce(method.loss(step), classes, kl_scale)
        expected, fixed, projections = formula()
        close(loss, expected)

        after = snapshot(state)
        close(torch.stack([state.student_normaliser, state.teacher_normaliser])[: len(fixed)], fixed)
        for bank, projection in zip(("student_bank", "teacher_bank"), projections, strict=True):
            updated = before[bank].copy()
            updated[index] = unit(momentum * updated[index] + (1 - momentum) * projection)
            close(after[bank], updated)

        state.zero_grad()
        loss.backward()
        pairs = [(student.logits.grad, z.student), (student.features.grad, z.student_features)]
        pairs += [(parameter.grad, before[name]) for name, parameter in state.named_parameters()]
        assert len(pairs) == 6
        known = partial(formula, fixed=fixed)  # no gradient through the normalisers
        for gradient, array in pairs:
            close(gradient, numeric_gradient(lambda f=known: f()[0], array), 1e-6)


def test_gacd_by_default_is_as_quoted_and_pictured():
    default = methods.get("gacd")()
    assert (default.positive, default.sides, default.teacher_sees) == ("class", "teacher_anchor", "clean")
    assert default.reweight
    assert not default.normalise_weights


@pytest.mark.parametrize(
    ("teacher_sees", "asked"), [("clean", ["cached", ("student", "x'")]), ("adversarial", ["x'", ("student", "x'")])]
)
def test_gacds_teacher_is_asked_where_the_setting_says(teacher_sees, asked):
    method, found = methods.get("gacd")(**SMALL, teacher_sees=teacher_sees), []
    *_, step = contrast_step(BOTH, 0, [3, 17], contrast_state("gacd", SMALL))
    cached, student = step.cached, step.student
    step.cached = lambda: (found.append("cached"), cached())[1]
    step.teacher = {TEACHER: lambda x: (found.append(x), cached())[1]}
    step.student = lambda x, train: (found.append(("student", x)), student(x, train))[1]
    method.loss(step)
    assert found == asked
    [calls] = method.teachers().values()
    assert (calls.cached, calls.live) == ((BOTH, False) if teacher_sees == "clean" else ((), True))


@pytest.mark.parametrize("positive", ["instance", "class"])
def test_only_positives_of_the_batch_give_the_student_a_gradient_where_the_teacher_is_the_anchor(positive):
    """Checks that positives from the memory bank leave the student without a gradient from the teacher's anchors."""
    for sides, of_student in (("teacher_anchor", True), ("both", True), ("bank", False)):
        state = contrast_state("gacd", SMALL)
        *_, student, step = contrast_step(BOTH, 0, [3, 17, 30], state)
        negatives = sample_negatives(state, step.labels, 0)
        v = nn.functional.normalize(state.teacher_head(step.cached().features), dim=1)
        if sides == "bank":
            values = state.nce(v, "student", torch.cat([step.ids[:, None], negatives], 1), step)
        else:
            values = state(student.features, step.cached().features, step, positive, sides)
        values.sum().backward()
        assert (student.features.grad is not None) == of_student


def test_positives_of_the_same_class_are_uniform_over_its_images():
    state = contrast_state("gacd", SMALL)
    labels = torch.full((4000,), 2)
    draws = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts = np.bincount(state.image_of_class(labels, draws).numpy(), minlength=SAMPLES)
    assert (counts[LABELS != 2] == 0).all()
    assert chisquare(counts[LABELS == 2]).pvalue > 0.01


def test_positives_of_the_batch_are_of_all_processes_and_uniform_over_the_class():
    """A process with 4,000 images of class 2, where another one has three images: two of this class."""
    state = contrast_state("gacd", SMALL)
    there = {1: torch.tensor([2, 3, 2]), 2: torch.arange(3.0)[:, None]}
    draws = torch.Generator().manual_seed(0)
    step = SimpleNamespace(
        labels=torch.tensor([2] + [3] * 3999),
        uniform=lambda dtype: torch.rand(4000, generator=draws, dtype=dtype),
        gather=lambda values: torch.cat([there[values.dim()], values[:1]]),
    )
    own = torch.full((4000, 1), 3.0)
    chosen = state.of_batch(own, "class", step)
    assert (chosen[1:] == 1).all()  # the only image of class 3
    assert chosen[0] in (0, 2, 3)
    step.labels = torch.full((4000,), 2)
    counts = np.bincount(state.of_batch(own, "class", step).flatten().long().numpy(), minlength=4)
    assert counts[1] == 0
    assert chisquare(counts[[0, 2, 3]]).pvalue > 0.01
    assert torch.equal(state.of_batch(own, "instance", step), own)


@pytest.mark.parametrize(
    "settings", [{"positive": "bank"}, {"sides": "student"}, {"teacher_sees": "both"}, {"normalise_weights": 1}]
)
def test_bad_settings_of_gacd_are_refused(settings):
    with pytest.raises(ValidationError):
        methods.get("gacd")(**settings)


@pytest.mark.parametrize("name", sorted(CONTRASTIVE))
def test_contrast_starts_as_crd(name):
    default = methods.get(name)()
    assert (default.dimension, default.negatives) == (128, 16384)
    state, bound = contrast_state(name, {"negatives": 1}), (128 / 3) ** -0.5
    for bank in (state.student_bank, state.teacher_bank):
        assert 0.99 * bound < bank.max() <= bound
        assert 0.99 * bound < -bank.min() <= bound
    assert not torch.equal(state.student_bank, state.teacher_bank)


def test_clean_baselines_ask_for_no_adversarial_image():
    """Table of a step without an attack: asking for one is an AttributeError."""
    for name, settings, kinds in (("kd", {}, ("logits",)), ("crd", {}, ("features",)), ("crd", {"alpha": 1.0}, BOTH)):
        method = methods.get(name)(**settings)
        assert [kind for _, kind in method.cached] == list(kinds), name
        state = contrast_state(name, SMALL) if name == "crd" else None
        *_, step = contrast_step(kinds, 0, [3, 17], state)
        del step.attack
        if name == "crd":
            assert {term.name for term in method.loss(step)} >= {"contrast"}
        assert not any(calls.loads_network for calls in method.teachers().values())


@pytest.mark.parametrize("label", [0, 2, 3])
def test_negatives_are_uniform_over_the_images_of_other_classes(label):
    state = contrast_state("gacd", SMALL | {"negatives": 5000})
    negatives = sample_negatives(state, torch.tensor([label, label]), label)
    assert negatives.shape == (2, 5000)
    assert not torch.equal(negatives[0], negatives[1])
    counts = np.bincount(negatives.numpy().ravel(), minlength=SAMPLES)
    assert (counts[label == LABELS] == 0).all()
    assert chisquare(counts[label != LABELS]).pvalue > 0.01


def test_margin_is_the_best_other_class_less_the_true_one():
    logits = torch.tensor([[1.0, 5.0, 4.0], [1.0, 5.0, 4.0], [2.0, 2.0, -9.0]], requires_grad=True)
    values = margin(logits, torch.tensor([1, 2, 0]))
    assert values.tolist() == [-1.0, 1.0, 0.0]
    values[:2].sum().backward()
    assert logits.grad.tolist() == [[0, -1, 1], [0, 1, -1], [0, 0, 0]]


# --- AdaAD's two networks ---


def test_adaads_attack_climbs_through_both_networks():
    """The gradient in x' of its objective, against central differences of the divergence between two small networks."""
    rng = np.random.default_rng(0)
    weights = {name: (rng.normal(size=(6, 8)), rng.normal(size=(8, 4))) for name in ("student", "teacher")}

    def answer(x, name):
        first, second = weights[name]
        return np.tanh(x @ first) @ second

    def asked(x, name):
        first, second = map(torch.tensor, weights[name])
        return Output((x @ first).tanh() @ second)

    x = rng.normal(size=(3, 6))
    step = SimpleNamespace(teacher={TEACHER: lambda x: asked(x, "teacher")}, x=torch.tensor(x))
    step.attack = lambda objective, *args: (_ for _ in ()).throw(Found(objective))
    with pytest.raises(Found) as found:
        methods.get("adaad")().loss(step)
    images = torch.tensor(x, requires_grad=True)
    values = found.value.args[0](images, asked(images, "student").logits)
    values.sum().backward()
    expected = numeric_gradient(lambda: kl(answer(x, "student"), answer(x, "teacher")).sum(), x)
    close(values, kl(answer(x, "student"), answer(x, "teacher")))
    close(images.grad, expected, 1e-6)
    assert (kl(answer(x, "teacher"), answer(x, "teacher")) < 1e-12).all()


class Found(Exception):
    """Carries the objective out of a method's loss."""
