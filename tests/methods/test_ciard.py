"""CIARD-style: its losses and its state against numpy, and its step against the released code.

`step_of_ciard` is one iteration of the loop in the authors' repository (eminentgu/CIARD, CIARD.py).
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import ce, close, kl, log_softmax
from released import Case, Code, check_first_step, check_five_steps, experiment_of, gaussian
from tabulated import EPOCH, Tabulated, check_loss, check_objective, example
from test_training import SETTINGS, THREAT, data, live_teachers, network, trainer_of  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.methods import TeacherCalls
from robust_distillation.settings import Training
from robust_distillation.training import schedule
from robust_distillation.training.batches import Batch
from robust_distillation.training.reduction import reduce
from robust_distillation.training.trainer import Trainer, build_own

CIARD = methods.get("ciard")
NAMES = ("clean", "adversarial", "natural", "natural_adversarial", "robust_adversarial")

# --- the loss ---


def magnitude(value):
    return math.floor(math.log10(value))


def parts(z, fixed, a=1.0, b=1.0, push=5.0, log_constant=0.0, **_):
    """The losses [B] with the natural teacher and the robust one, and the mean of the push over its images."""
    y = z.labels
    natural = kl(z.clean, z.natural / b, target_constant=log_constant)
    adversarial = kl(z.adversarial, fixed.robust_adversarial / a, target_constant=log_constant)
    wrong = z.natural_adversarial.argmax(1) != y
    if not wrong.any():
        return natural, adversarial, 0.0
    values = kl(z.adversarial / push, z.natural_adversarial, target_constant=log_constant)
    return natural, adversarial, values[wrong].mean()


def outer(z, fixed, begin=50, weights=(1.0, 1.0), **settings):
    natural, adversarial, push = parts(z, fixed, **settings)
    own, its, pushed = (np.mean(values) for values in parts(fixed, fixed, **settings))
    weight = 10.0 ** (min(magnitude(own), magnitude(its)) - magnitude(pushed)) if pushed else 0.0
    teacher = ce(z.robust_adversarial, z.labels).mean() if z.epoch > begin else 0.0
    return teacher, weights[0] * natural.mean() + weights[1] * adversarial.mean() - weight * push


def step_of(classes, seed=0, scale=1.0, a=1.0, b=1.0, epoch=EPOCH, method=None):
    z, y = example(classes, seed, names=NAMES, epoch=epoch)
    for name in NAMES:
        setattr(z, name, scale * getattr(z, name))
    z.labels = y
    state = {name: module.double() for name, module in (method or CIARD()).build(None, None).items()}
    state["temperatures"].robust.fill_(a)
    state["temperatures"].natural.fill_(b)
    return Tabulated(z, y, own=state, networks=("robust",))


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize(
    ("settings", "temperatures"),
    [
        ({}, {}),
        ({"begin": EPOCH - 1}, {}),
        ({"begin": EPOCH}, {"a": 2.0, "b": 1.5}),
        ({"push": 2.0, "begin": 0}, {"b": 3.0}),
        ({"log_constant": 1e-5, "begin": 0}, {"a": 1.7}),
        ({"clean_pass": True}, {}),
    ],
)
def test_loss_and_its_gradient(settings, temperatures, kl_scale, classes):
    """No gradient from the student's losses to the robust teacher, nor through the weight of the push."""
    step = step_of(classes, **temperatures)
    check_loss(CIARD(**settings), step, lambda z, fixed: outer(z, fixed, **settings, **temperatures), classes, kl_scale)
    assert step.asked == ["clean", "adversarial", "robust_adversarial", "natural_adversarial", "natural"]
    assert step.moved == (["robust"] if settings.get("clean_pass") else [])


@pytest.mark.parametrize(
    ("scale", "near", "weight"),
    [(1.0, 1.0, 10.0), (1.0, 0.3, 1.0), (1.0, 0.03, 0.01), (20.0, 0.1, 0.01), (3.0, 0.01, 1e-4)],
)
def test_the_weight_of_the_push_is_a_power_of_ten(scale, near, weight):
    """It gives the push the order of magnitude of the smaller one of the others, here of the natural teacher's."""

    def step():
        found = step_of(10, scale=scale)
        found.z.natural = found.z.clean + near * (found.z.natural - found.z.clean)
        return found

    natural, adversarial, push = CIARD().loss(step())
    own, its, pushed = (float(term.values.detach().mean()) for term in (natural, adversarial, push))
    close(push.weight, -weight, 1e-12)
    assert not push.weight.requires_grad
    assert magnitude(weight * pushed) == min(magnitude(own), magnitude(its))
    check_loss(CIARD(), step(), outer, 10)


@pytest.mark.parametrize("size", [8, 1])
def test_no_image_that_the_natural_teacher_classifies_wrongly(size):

    def step():
        found = step_of(10)
        for name in NAMES:
            setattr(found.z, name, getattr(found.z, name)[:size])
        found.x, found.adversarial = found.x[:size], found.adversarial[:size]
        found.z.labels = found.z.natural_adversarial.argmax(1)
        found.labels = found.targets = torch.tensor(found.z.labels)
        return found

    assert (CIARD(begin=0).loss(step())[2].values == 0).all()
    known = step()
    check_loss(CIARD(begin=0), known, lambda z, fixed: outer(z, fixed, begin=0), 10)
    assert known.outputs["adversarial"].logits.grad.isfinite().all()


def test_no_wrong_image_in_single_precision_gives_a_finite_gradient():
    step = step_of(10)
    step.z.labels = step.z.natural_adversarial.argmax(1)
    for name in NAMES:
        setattr(step.z, name, getattr(step.z, name).astype(np.float32))
    step.labels = step.targets = torch.tensor(step.z.labels)
    loss, _ = reduce(CIARD().loss(step), 10, "sum")
    loss.backward()
    assert loss.dtype == torch.float32
    assert step.outputs["adversarial"].logits.grad.isfinite().all()


@pytest.mark.parametrize("classes", [10, 3])
def test_inner_objective_and_its_gradient(classes):
    check_objective(CIARD(), step_of(classes), lambda z: ce(z.adversarial, z.labels))


# --- the state ---


def entropy(logits, constant=0.0):
    p = np.exp(log_softmax(logits))
    return -(p * np.log(p + constant)).sum(1).mean()


@pytest.mark.parametrize("log_constant", [0.0, 1e-5])
@pytest.mark.slow
def test_temperatures_over_four_steps(log_constant):
    """The losses have those from before the step. The teacher with the higher entropy gets the lower temperature."""
    settings = {"log_constant": log_constant, "temperature_rate": 0.5}
    method, first = CIARD(**settings), step_of(10)
    a, b, path = 1.0, 1.0, []
    for seed in range(4):
        step = step_of(10, seed, scale=(1.0, 3.0, 0.3, 1.0)[seed])
        step.own["temperatures"] = first.own["temperatures"]
        step.z.natural = step.z.natural * (5 if seed != 2 else 0.1)  # mostly the sharper one
        check_loss(method, step, lambda z, fixed, a=a, b=b: outer(z, fixed, a=a, b=b, **settings), 10)
        robust, natural = (entropy(t, log_constant) for t in (step.z.robust_adversarial / a, step.z.natural / b))
        a, b = (min(max(t - 0.5 * np.sign(d), 1), 10) for t, d in ((a, robust - natural), (b, natural - robust)))
        found = step.own["temperatures"]
        close([found.robust, found.natural], [a, b])
        path.append((a, b))
    assert path == [(1.0, 1.5), (1.0, 2.0), (1.5, 1.5), (1.0, 2.0)]


def test_temperatures_stay_below_ten():
    step = step_of(10, b=9.9998)
    step.z.natural = 50 * step.z.natural
    CIARD().loss(step)
    close(step.own["temperatures"].natural, 10.0)
    close(step.own["temperatures"].robust, 1.0)


@pytest.mark.parametrize(
    ("settings", "epoch", "change"),
    [
        ({}, 3, 0.001 * 0.25),
        ({"temperature_rate": 0.0}, 3, 0.0),
        ({"rates_until": 3}, 3, 0.001),
        ({"rates_until": 2}, 3, 0.0),
        ({"rates_until": 214, "temperature_rate": 0.01}, 214, 0.01),
        ({"rates_until": 214, "temperature_rate": 0.01}, 215, 0.0),
    ],
)
def test_rate_of_the_temperatures(settings, epoch, change):
    step = step_of(10, epoch=epoch)
    step.decay = 0.25
    step.z.natural = 5 * step.z.natural
    CIARD(**settings).loss(step)
    close(step.own["temperatures"].natural, 1 + change, 1e-12)


def test_balanced_weights_are_mtards():
    """Moved before they weigh, by the ratio to the first losses; rates as those of the temperatures."""
    settings = {"weights": "balanced", "temperature_rate": 0.0, "rate": 0.3, "rates_until": 9}
    method, state, first, weight = CIARD(**settings), {}, None, 0.5
    for seed in range(3):
        step = step_of(10, seed, method=method)
        step.own |= state
        state = {name: step.own[name] for name in ("temperatures", "balance")}
        natural, adversarial, _ = (np.mean(values) for values in parts(step.z, step.z))
        first = first or (natural, adversarial)
        own, its = natural / first[0], adversarial / first[1]
        weight -= 0.3 * (weight - own / (own + its))
        check_loss(method, step, lambda z, fixed, w=weight: outer(z, fixed, weights=(w, 1 - w)), 10)
        close(state["balance"].weight, weight)
    assert abs(weight - 0.5) > 1e-3


# --- the teacher that is trained along ---


def test_declarations():
    method = CIARD()
    assert method.teachers() == {
        "robust": TeacherCalls(trained=True),
        "natural": TeacherCalls(cached=("logits",), live=True),
    }
    assert method.needs_labels()
    assert method.phases() == (1, 51)
    assert CIARD(begin=0).phases() == (1,)


def trained(begin, epochs, data, **settings):  # noqa: F811
    """The robust teacher's weights and running means after one step in each of the epochs."""
    method, model = CIARD(begin=begin, **settings), network(4, 1)
    copies = {"robust": network(8, 2)}
    own = build_own(method, data, model, 0, {"name": "convnet", "width": 4}, {"robust": 16, "natural": 16}, copies)
    trainer = Trainer(model, method, SETTINGS, THREAT, 0, own, live_teachers(method))
    found = []
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    index = torch.arange(16)
    for epoch in range(1, epochs + 1):
        trainer.begin_epoch(epoch)
        trainer.step(Batch(x, index % 10, index, torch.zeros(16, dtype=torch.long), epoch, 0, 1))
        found.append({name: tensor.clone() for name, tensor in trainer.own["robust"].state_dict().items()})
    return found, trainer


def test_the_robust_teacher_waits_and_its_batch_norm_does_not(data):  # noqa: F811
    found, trainer = trained(1, 2, data, teacher_learning_rate=0.1)
    start = network(8, 2).state_dict()
    weights = [name for name, _ in network(8, 2).named_parameters()]
    means = [name for name in start if name.endswith("running_mean")]
    assert means
    for name in weights:
        assert torch.equal(found[0][name], start[name]), name
        assert not torch.equal(found[1][name], start[name]), name
    assert all(not torch.equal(found[0][name], start[name]) for name in means)
    frozen = trainer.teachers["robust"].network.state_dict()
    assert all(torch.equal(frozen[name], start[name]) for name in start)


def test_its_optimiser_is_sgd_whatever_the_students_is(data):  # noqa: F811
    adam = SETTINGS.model_dump() | {"optimizer": {"name": "AdamW"}, "momentum": None, "learning_rate": 1e-3}
    budget = CIARD(teacher_learning_rate=0.02).optimisation(Training.model_validate(adam))["robust"]
    assert budget.optimizer.name == "SGD"
    assert (budget.momentum, budget.learning_rate, budget.weight_decay) == (0.1, 0.02, 2e-4)
    Training.model_validate(budget.model_dump())
    trainer = trained(1, 1, data)[1]
    assert set(trainer.optimizers) == {"student", "robust"}
    [group] = trainer.optimizers["robust"].param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.1, 2e-4)


def released_rate(epoch, start, rate):
    """Their schedule, and the factor that ours leaves out."""
    if epoch < start:
        return rate, 1.0
    part = (epoch - start) / (300 - start)
    return rate * (0.5 + 0.5 * math.cos(math.pi * part)), math.exp(-0.01 * part**2)


def test_schedules_of_the_released_code():
    recipe = experiment_of("ciard").recipes["ciard", "mobilenet_v2"]
    student, teacher = recipe.training, recipe.method.settings.optimisation(recipe.training)["robust"]
    assert (student.epochs, student.batch_size, student.weight_decay) == (300, 128, 2e-4)
    for training, start, rate in ((student, 150, 0.1), (teacher, 50, 1e-4)):
        for epoch in range(1, 301):
            expected, left_out = released_rate(epoch, start, rate)
            found = schedule.learning_rate(training, epoch)
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-15), epoch
            assert abs(found - expected * left_out) <= 0.0013 * rate
    looked = [epoch for epoch in range(1, 301) if schedule.is_validation_epoch(student, epoch)]
    assert looked == [epoch for epoch in range(2, 301) if epoch % 10 == 0 or epoch >= 250]
    assert student.selection.by == "mean.pgd_trades"
    assert recipe.method.settings.rates_until == 214


@pytest.mark.parametrize(("begin", "epochs"), [(0, 10), (3, 10), (10, 10), (50, 10)])
def test_rate_of_the_teacher_with_other_numbers_of_epochs(begin, epochs):
    settings = Training.model_validate(SETTINGS.model_dump() | {"epochs": epochs})
    budget = CIARD(begin=begin).optimisation(settings)["robust"]
    rates = [schedule.learning_rate(budget, epoch) for epoch in range(1, epochs + 1)]
    if begin == 3:
        assert rates[:3] == [1e-4] * 3
        close(rates, [1e-4 * (1 + math.cos(math.pi * max(0, epoch - 3) / 7)) / 2 for epoch in range(1, 11)], 1e-9)
    assert all(0 <= rate <= 1e-4 for rate in rates)


# --- the released code ---


def divergence(log_p, q):
    return torch.mean(-log_p * q + torch.log(q + 1e-5) * q)


def step_of_ciard(code: Code, x, y, epoch: int, step: int):
    state, robust = code.state, code.own["robust"].train()
    state.setdefault("adv", 1)
    state.setdefault("nat", 1)
    code.student.train()
    student_nat, teacher_nat = code.student(x), code.taught(x, "natural")
    with torch.no_grad():
        robust(x)
    code.student.eval()
    start = x + gaussian(x, epoch, step)
    x_adv = code.attacked(x, start, lambda logits: F.cross_entropy(logits, y, reduction="sum"), 8 / 255, 2 / 255)
    code.student.train()
    student_adv, teacher_adv, nat_adv = code.student(x_adv), robust(x_adv), code.taught(x_adv, "natural")

    soft_adv = F.softmax(teacher_adv.detach() / state["adv"], dim=1)
    soft_nat = F.softmax(teacher_nat / state["nat"], dim=1)
    first = divergence(F.log_softmax(student_adv, dim=1), soft_adv)
    second = divergence(F.log_softmax(student_nat, dim=1), soft_nat)
    adv, nat = (torch.mean(torch.log(soft + 1e-5) * soft) for soft in (soft_adv, soft_nat))
    rate = 0.001 if epoch < 215 else 0.0
    state["adv"] = max(min(10, state["adv"] - rate * torch.sign(adv / nat - 1).item()), 1)
    state["nat"] = max(min(10, state["nat"] - rate * torch.sign(nat / adv - 1).item()), 1)
    total = first + second
    wrong = (nat_adv.argmax(dim=1) != y).nonzero(as_tuple=True)[0]
    if len(wrong):
        third = divergence(F.log_softmax(student_adv[wrong] / 5, dim=1), F.softmax(nat_adv[wrong], dim=1))
        target = min(magnitude(first.item()), magnitude(second.item()))
        total = total - 10 ** (target - magnitude(third.item())) * third
    code.learning_rate = released_rate(epoch, 150, 0.1)[0]
    code.update(total)
    if epoch <= 50:
        return x_adv, total
    own = F.cross_entropy(teacher_adv, y)
    teacher = state.setdefault("teacher", Code(robust, {}, momentum=0.1))
    teacher.learning_rate = released_rate(epoch, 50, 1e-4)[0]
    teacher.update(own)
    return x_adv, total + own


CASES = {
    "before the teacher's training": Case("ciard", step_of_ciard, epochs=(50,) * 5),
    "with it": Case("ciard", step_of_ciard, epochs=(50, 50, 51, 51, 51)),
    "the rates are zero": Case("ciard", step_of_ciard, epochs=(214, 214, 220, 220, 220)),
}


@pytest.mark.parametrize("case", ["before the teacher's training", "the rates are zero"])
@pytest.mark.parametrize("architecture", ["resnet", "mobilenet_v2"])
@pytest.mark.slow
def test_first_step_in_single_precision(case, architecture, monkeypatch):
    check_first_step(CASES[case], architecture, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_five_steps_in_double_precision(case, monkeypatch):
    check_five_steps(CASES[case], "resnet", monkeypatch)


@pytest.mark.parametrize(
    "settings",
    [
        {"begin": -1},
        {"teacher_learning_rate": 0.0},
        {"teacher_momentum": 1.0},
        {"push": 0.0},
        {"weights": "two"},
        {"rate": 1.5},
        {"rates_until": 0},
        {"temperature_rate": -0.1},
        {"temperature": 2.0},
    ],
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match="validation error"):
        CIARD(**settings)
