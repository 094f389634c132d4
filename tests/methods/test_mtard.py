"""MTARD (Zhao et al., ECCV 2022): its equations as in its code, its weight, its released step.

The released code is zhaoshiji123/MTARD, mtard_loss.py and mtard_resnet18_cifar10.py and ..._cifar100.py.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import ce, close, kl
from pydantic import ValidationError
from released import NARROW, Case, Code, Pair, check_first_step, check_five_steps, experiment_of, gaussian
from tabulated import Tabulated, check_loss, check_objective, example

from robust_distillation import methods
from robust_distillation.methods.balance import Balance
from robust_distillation.training import schedule

MTARD = methods.get("mtard")
NAMES = ("clean", "adversarial", "natural", "robust_adversarial")


def means(z, log_constant):
    """The losses of natural and robust teacher, [B] each."""
    pairs = ((z.clean, z.natural), (z.adversarial, z.robust_adversarial))
    return [kl(student, target, target_constant=log_constant) for student, target in pairs]


def moved(weight, natural, adversarial, first, rate=0.025):
    """w after a step with these mean losses, as in the authors' code."""
    l_natural, l_adversarial = natural / first[0], adversarial / first[1]
    return weight - rate * (weight - l_natural / (l_natural + l_adversarial))


def mtard(z, fixed, weight, first, rate=0.025, log_constant=0.0):
    natural, adversarial = means(z, log_constant)
    w = moved(weight, *(part.mean() for part in means(fixed, log_constant)), first, rate)
    return 0.0, w * natural + (1 - w) * adversarial


def balance(weight=0.5, first=(0.0, 0.0)):
    state = Balance().double()
    state.weight.fill_(weight)
    state.first_values.copy_(torch.tensor(first))
    return state


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean", "tenth"])
@pytest.mark.parametrize("settings", [{}, {"log_constant": 1e-5}, {"log_constant": 0.01}, {"rate": 0.7}])
def test_loss_and_its_gradient(settings, kl_scale, classes):
    """No gradient flows through the weight, which moves before it weighs."""
    (z, y), weight, first = example(classes, names=NAMES), 0.3, (0.7, 2.5)
    step = Tabulated(z, y, own={"balance": balance(weight, first)})
    check_loss(MTARD(**settings), step, lambda z, fixed: mtard(z, fixed, weight, first, **settings), classes, kl_scale)
    assert sorted(step.asked[:2]) == ["adversarial", "robust_adversarial"]
    assert sorted(step.asked[2:]) == ["clean", "natural"]
    assert step.moved == []


@pytest.mark.parametrize("classes", [10, 3])
def test_inner_objective_and_its_gradient(classes):
    z, y = example(classes, seed=1, names=NAMES)
    check_objective(MTARD(), Tabulated(z, y, own={"balance": balance()}), lambda z: ce(z.adversarial, y))


# --- the weight ---


def test_weight_over_three_steps_by_hand():
    """Checks the weight for relative losses 0.8 and 0.9 from the first step on; the numbers are worked out by hand."""
    state = balance(first=(1.0, 1.0))
    found = [float(state(torch.tensor(0.8), torch.tensor(0.9), 0.025)) for _ in range(3)]
    assert found == pytest.approx([0.499265, 0.498548, 0.497849], abs=1e-6)


@pytest.mark.parametrize("log_constant", [0.0, 1e-5])
@pytest.mark.parametrize("decay", [1.0, 0.1])
def test_weight_over_three_batches(decay, log_constant):
    """At first it stays at 1/2; then it moves by the ratio to the first losses, at a rate that falls as the learning
    rate does."""
    method, weight, first, found = MTARD(log_constant=log_constant), 0.5, None, []
    state = method.build(None, None)["balance"].double()
    for seed in range(3):
        z, y = example(10, seed, names=NAMES)
        now = [part.mean() for part in means(z, log_constant)]
        first = first or now
        weight = moved(weight, *now, first, 0.025 * decay)
        step = Tabulated(z, y, own={"balance": state})
        step.decay = decay
        terms = {term.name: term.weight for term in method.loss(step)}
        close(state.weight, weight)
        close(state.first_values, first)
        close(terms["natural"], weight)
        close(terms["adversarial"], 1 - weight)
        found.append(weight)
    assert found[0] == 0.5
    assert len({round(weight, 9) for weight in found}) == 3


def test_equal_relative_losses_keep_the_weight_at_a_half():
    state = balance()
    for scale in (1.0, 0.7, 0.2):
        close(state(torch.tensor(3.0 * scale), torch.tensor(0.4 * scale), 0.5), 0.5, 1e-6)


def test_a_batch_of_one_image():
    z, y = example(5, size=1, names=NAMES)
    first = [part.mean() for part in means(z, 0.0)]
    step = Tabulated(z, y, own={"balance": balance()})
    check_loss(MTARD(), step, lambda z, fixed: mtard(z, fixed, 0.5, first), 5, "mean")


@pytest.mark.parametrize("settings", [{"rate": 1.5}, {"rate": -0.1}, {"log_constant": -1.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        MTARD(**settings)


# --- the released code ---


def step_of_mtard(code: Code, x, y, epoch: int, step: int, factor: int = 1):
    state, milestones = code.state, (215, 260, 285)
    state.setdefault("nat", 1 / 2.0)
    passed = sum(milestone < epoch for milestone in milestones)
    code.learning_rate, rate = 0.1 * 0.1**passed, 0.025 * 0.1**passed  # both times 0.1 at the end of a milestone

    nat_teacher = code.taught(x, "natural")
    code.student.eval()
    x_adv = code.attacked(x, x + gaussian(x, epoch, step), lambda logits: F.cross_entropy(logits, y))
    code.student.train()
    adv_logits, adv_teacher = code.student(x_adv), code.taught(x_adv, "robust")
    nat_logits = code.student(x)

    def distance(logits, teacher):
        soft = F.softmax(teacher, dim=1)
        return factor * torch.mean(-F.log_softmax(logits, dim=1) * soft + torch.log(soft + 1e-5) * soft)

    adv_loss, nat_loss = distance(adv_logits, adv_teacher), distance(nat_logits, nat_teacher)
    state.setdefault("first_nat", nat_loss.item())
    state.setdefault("first_adv", adv_loss.item())
    relative_adv, relative_nat = adv_loss.item() / state["first_adv"], nat_loss.item() / state["first_nat"]
    state["nat"] = state["nat"] - rate * (state["nat"] - relative_nat / (relative_adv + relative_nat))
    loss = (1 - state["nat"]) * adv_loss + state["nat"] * nat_loss
    code.update(loss)
    return x_adv, loss


def step_of_mtard_on_100_classes(code: Code, x, y, epoch: int, step: int):
    return step_of_mtard(code, x, y, epoch, step, factor=10)


OVER_EPOCHS = (214, 215, 215, 216, 216)
CASES = {
    "10 classes": Case("mtard", step_of_mtard, epochs=OVER_EPOCHS),
    "100 classes": Case("mtard", step_of_mtard_on_100_classes, "cifar100", epochs=OVER_EPOCHS),
}


@pytest.mark.parametrize("case", CASES)
def test_first_step_in_single_precision(case, monkeypatch):
    check_first_step(CASES[case], "resnet", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_five_steps_in_double_precision(case, monkeypatch):
    check_five_steps(CASES[case], "resnet", monkeypatch)


def test_state_after_five_steps_over_a_milestone(monkeypatch):
    pair = Pair(CASES["10 classes"], "resnet", NARROW["resnet"], torch.float64, monkeypatch)
    for step in range(5):
        pair.advance(step, 2)
    state, own = pair.code.state, pair.trainer.own["balance"]
    close(own.weight, state["nat"])
    close(own.first_values * 0.1, [state["first_nat"], state["first_adv"]])  # theirs are means over the classes
    assert abs(state["nat"] - 0.5) > 1e-4


def test_protocol_of_the_released_code():
    for dataset in ("cifar10", "cifar100"):
        experiment = experiment_of("mtard", dataset)
        training = experiment.training_of("mtard")
        rates = {215: 0.1, 216: 0.01, 260: 0.01, 261: 1e-3, 285: 1e-3, 286: 1e-4, 300: 1e-4}
        assert {epoch: schedule.learning_rate(training, epoch) for epoch in rates} == pytest.approx(rates)
        assert (training.epochs, training.batch_size, training.kl_scale) == (300, 128, "tenth")
        validated = [epoch for epoch in range(1, 301) if schedule.is_validation_epoch(training, epoch)]
        assert validated == [epoch for epoch in range(1, 301) if (epoch % 20 == 0 and epoch < 215) or epoch >= 215]
        assert training.selection.by == "pgd_trades"
        settings = experiment.recipes["mtard", "resnet"].method.settings.model_dump()
        assert settings == {"rate": 0.025, "log_constant": 1e-5}


def test_log_constant_moves_the_relative_losses():
    z, y = example(10, names=NAMES)
    shift = [np.mean(with_it - without) for with_it, without in zip(means(z, 1e-5), means(z, 0.0), strict=True)]
    assert all(1e-6 < one < 1e-3 for one in shift)
    states = []
    for constant in (0.0, 1e-5):
        states.append(balance())
        MTARD(log_constant=constant).loss(Tabulated(z, y, own={"balance": states[-1]}))
    close(states[1].first_values - states[0].first_values, shift)
