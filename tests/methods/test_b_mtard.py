"""B-MTARD (Zhao, Wang and Wei, TPAMI 2024): its equations as in its code, weight, temperatures, its released step.

The released code is zhaoshiji123/MTARD-extension, resnet18_mtard_cifar10.py; its attack is that of zhaoshiji123/MTARD.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import ce, close, kl, log_softmax
from pydantic import ValidationError
from released import NARROW, Case, Code, Pair, check_first_step, check_five_steps, experiment_of, gaussian
from tabulated import Tabulated, check_loss, check_objective, example
from test_training import CPU, OPTIONS, SCHEME, SETTINGS, data, trainer_of  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.training import schedule
from robust_distillation.training.batches import batches

BMTARD = methods.get("b_mtard")
NAMES = ("clean", "adversarial", "natural", "robust_adversarial")


def means(z, taus, log_constant):
    """The losses of natural and robust teacher, [B] each; taus: temperatures of (robust, natural)."""
    pairs = ((z.clean, z.natural / taus[1]), (z.adversarial, z.robust_adversarial / taus[0]))
    return [kl(student, target, target_constant=log_constant) for student, target in pairs]


def moved(weight, natural, adversarial, first, rate=0.025):
    """w after a step with these mean losses, by the three updates of the authors' code."""
    relative = np.array([natural / first[0], adversarial / first[1]])
    inverse = relative / relative.mean()
    weights = np.array([weight, 1 - weight])
    weights = np.maximum(weights - rate * (weights - inverse / inverse.sum()), 0)
    return (weights / weights.sum())[0]


def entropy_sums(z, taus, log_constant):
    """The mean of p log(p + c) of (robust, natural), as in the authors' code."""
    found = []
    for logits, tau in zip((z.robust_adversarial, z.natural), taus, strict=True):
        p = np.exp(log_softmax(logits / tau))
        found.append((p * np.log(p + log_constant)).mean())
    return found


def changed(z, taus, log_constant, rate, low=1.0, high=10.0):
    """The temperatures of (robust, natural) after a step."""
    robust, natural = entropy_sums(z, taus, log_constant)
    after = taus[0] - rate * np.sign(robust / natural - 1), taus[1] - rate * np.sign(natural / robust - 1)
    return [max(min(high, tau), low) for tau in after]


def b_mtard(z, fixed, weight, first, taus, rate=0.025, log_constant=0.0, **_):
    natural, adversarial = means(z, taus, log_constant)
    w = moved(weight, *(part.mean() for part in means(fixed, taus, log_constant)), first, rate)
    return 0.0, w * natural + (1 - w) * adversarial


def state_of(method, weight=0.5, first=(0.0, 0.0), taus=(1.0, 1.0)):
    state = {name: module.double() for name, module in method.build(None, None).items()}
    state["balance"].weight.fill_(weight)
    state["balance"].first_values.copy_(torch.tensor(first))
    state["temperatures"].robust.fill_(taus[0])
    state["temperatures"].natural.fill_(taus[1])
    return state


def temperatures_of(state):
    return torch.stack([state["temperatures"].robust, state["temperatures"].natural])


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean", "tenth"])
@pytest.mark.parametrize(
    "settings", [{}, {"log_constant": 1e-5}, {"log_constant": 0.01}, {"rate": 0.7, "temperature_rate": 0.5}]
)
def test_loss_and_its_gradient(settings, kl_scale, classes):
    """The temperatures are those from before the step; no gradient flows through the weight."""
    method, (z, y), weight, first, taus = BMTARD(**settings), example(classes, names=NAMES), 0.3, (0.7, 2.5), (1.5, 2.5)
    step = Tabulated(z, y, own=state_of(method, weight, first, taus))

    def formula(z, fixed):
        return b_mtard(z, fixed, weight, first, taus, **settings)

    check_loss(method, step, formula, classes, kl_scale)
    assert sorted(step.asked[:2]) == ["adversarial", "robust_adversarial"]
    assert sorted(step.asked[2:]) == ["clean", "natural"]
    assert step.moved == []


@pytest.mark.parametrize("classes", [10, 3])
def test_inner_objective_and_its_gradient(classes):
    z, y = example(classes, seed=1, names=NAMES)
    check_objective(BMTARD(), Tabulated(z, y, own=state_of(BMTARD())), lambda z: ce(z.adversarial, y))


# --- the temperatures and the weight ---


@pytest.mark.parametrize("sharp", ["natural", "robust_adversarial"])
def test_temperatures_over_three_steps_by_hand(sharp):
    """The sharper teacher's rises by 0.001 a step; the other's stays at its floor 1."""
    z, y = example(10, names=NAMES)
    setattr(z, sharp, 4 * getattr(z, sharp))
    state = state_of(BMTARD())
    for expected in (1.001, 1.002, 1.003):
        BMTARD().loss(Tabulated(z, y, own=state))
        close(temperatures_of(state), [1.0, expected] if sharp == "natural" else [expected, 1.0])


@pytest.mark.parametrize("log_constant", [0.0, 1e-5])
@pytest.mark.parametrize("decay", [1.0, 0.1])
def test_state_over_batches(decay, log_constant):
    """Large moves, so that both bounds are hit and the entropies change sides."""
    settings = {"temperature_rate": 3.0, "temperature_min": 0.5, "temperature_max": 4.0, "log_constant": log_constant}
    method, weight, first, taus, seen = BMTARD(**settings), 0.5, None, [1.0, 1.0], []
    state = state_of(method)
    for seed in range(6):
        z, y = example(10, seed, names=NAMES)
        z.natural *= 3 if seed < 3 else 0.2
        now = [part.mean() for part in means(z, taus, log_constant)]
        first = first or now
        weight = moved(weight, *now, first, 0.025 * decay)
        taus = changed(z, taus, log_constant, 3.0 * decay, 0.5, 4.0)
        step = Tabulated(z, y, own=state)
        step.decay = decay
        terms = {term.name: term.weight for term in method.loss(step)}
        close(terms["natural"], weight)
        close(terms["adversarial"], 1 - weight)
        close(state["balance"].first_values, first)
        close(temperatures_of(state), taus)
        seen.append(taus)
    assert weight != 0.5
    assert {tau for pair in seen for tau in pair} >= ({0.5, 4.0} if decay == 1 else {1.3})


def test_equal_entropies_move_no_temperature():
    z, y = example(10, names=NAMES)
    z.natural = z.robust_adversarial
    state = state_of(BMTARD(), taus=(2.0, 2.0))
    BMTARD().loss(Tabulated(z, y, own=state))
    assert temperatures_of(state).tolist() == [2.0, 2.0]


def test_a_teacher_that_is_sure_of_every_image_gets_a_higher_temperature():
    """Its probabilities are 1 and 0 exactly; nothing is infinite or not a number."""
    z, y = example(10, names=NAMES)
    z.natural = np.eye(10)[y] * 5000.0
    state = state_of(BMTARD())
    terms = BMTARD().loss(Tabulated(z, y, own=state))
    close(temperatures_of(state), [1.0, 1.001])
    assert all(torch.isfinite(term.values).all() for term in terms)


@pytest.mark.parametrize("log_constant", [0.0, 1e-5])
def test_with_fixed_temperatures_it_is_mtard_bit_for_bit(log_constant, data, monkeypatch):  # noqa: F811
    monkeypatch.setitem(OPTIONS, "b_mtard", {"temperature_rate": 0.0, "log_constant": log_constant})
    monkeypatch.setitem(OPTIONS, "mtard", {"log_constant": log_constant})
    ours, mtard = (trainer_of(name, data) for name in ("b_mtard", "mtard"))
    for trainer in (ours, mtard):
        trainer.begin_epoch(1)
        for batch in batches(data, SCHEME, SETTINGS, 0, 1, CPU):
            trainer.step(batch)
    for name, tensor in mtard.student.state_dict().items():
        assert torch.equal(ours.student.state_dict()[name], tensor), name
    assert torch.equal(ours.own["balance"].weight, mtard.own["balance"].weight)
    assert ours.own["balance"].weight != 0.5


def test_a_batch_of_one_image():
    method, (z, y), taus = BMTARD(), example(5, size=1, names=NAMES), (1.5, 2.5)
    first = [part.mean() for part in means(z, taus, 0.0)]
    step = Tabulated(z, y, own=state_of(method, taus=taus))
    check_loss(method, step, lambda z, fixed: b_mtard(z, fixed, 0.5, first, taus), 5, "mean")


@pytest.mark.parametrize(
    "settings",
    [
        {"rate": 1.5},
        {"temperature_rate": -0.1},
        {"temperature_min": 0.0},
        {"temperature_min": 2.0},
        {"temperature_max": 0.9},
        {"log_constant": -1.0},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        BMTARD(**settings)


# --- the released code ---


def step_of_b_mtard(code: Code, x, y, epoch: int, step: int, factor: int = 1):
    state = code.state or code.state.update(w_adv=1 / 2.0, w_nat=1 / 2.0, t_adv=1, t_nat=1) or code.state
    passed = sum(milestone < epoch for milestone in (215, 260, 285))  # all rates times 0.1 at the end of a milestone
    code.learning_rate, weight_rate, temp_rate = (rate * 0.1**passed for rate in (0.1, 0.025, 0.001))

    code.student.eval()
    x_adv = code.attacked(x, x + gaussian(x, epoch, step), lambda logits: F.cross_entropy(logits, y))
    code.student.train()
    adv_logits, adv_teacher = code.student(x_adv), code.taught(x_adv, "robust")
    nat_logits, nat_teacher = code.student(x), code.taught(x, "natural")
    adv_soft, nat_soft = F.softmax(adv_teacher / state["t_adv"], dim=1), F.softmax(nat_teacher / state["t_nat"], dim=1)

    def distance(logits, soft):
        return factor * torch.mean(-F.log_softmax(logits, dim=1) * soft + torch.log(soft + 1e-5) * soft)

    adv_loss, nat_loss = distance(adv_logits, adv_soft), distance(nat_logits, nat_soft)
    adv_entropy, nat_entropy = (torch.mean(torch.log(soft + 1e-5) * soft) for soft in (adv_soft, nat_soft))
    t_adv = state["t_adv"] - temp_rate * torch.sign(adv_entropy / nat_entropy - 1).item()
    t_nat = state["t_nat"] - temp_rate * torch.sign(nat_entropy / adv_entropy - 1).item()
    state["t_adv"], state["t_nat"] = max(min(10, t_adv), 1), max(min(10, t_nat), 1)

    state.setdefault("first_nat", nat_loss.item())
    state.setdefault("first_adv", adv_loss.item())
    relative_adv, relative_nat = adv_loss.item() / state["first_adv"], nat_loss.item() / state["first_nat"]
    average = (relative_adv + relative_nat) / 2
    inverse_adv, inverse_nat = relative_adv / average, relative_nat / average
    w_nat = state["w_nat"] - weight_rate * (state["w_nat"] - inverse_nat / (inverse_adv + inverse_nat))
    w_adv = state["w_adv"] - weight_rate * (state["w_adv"] - inverse_adv / (inverse_adv + inverse_nat))
    w_nat, w_adv = max(w_nat, 0), max(w_adv, 0)
    state["w_nat"], state["w_adv"] = w_nat / (w_adv + w_nat), w_adv / (w_adv + w_nat)
    loss = state["w_adv"] * adv_loss + state["w_nat"] * nat_loss
    code.update(loss)
    return x_adv, loss


def step_of_b_mtard_on_100_classes(code: Code, x, y, epoch: int, step: int):
    """Not released: the divergence is times 10, as in MTARD's code."""
    return step_of_b_mtard(code, x, y, epoch, step, factor=10)


OVER_EPOCHS = (214, 215, 215, 216, 216)
CASES = {
    "10 classes": Case("b_mtard", step_of_b_mtard, epochs=OVER_EPOCHS),
    "100 classes": Case("b_mtard", step_of_b_mtard_on_100_classes, "cifar100", epochs=OVER_EPOCHS),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_first_step_in_single_precision(case, monkeypatch):
    check_first_step(CASES[case], "resnet", monkeypatch)


@pytest.mark.slow
def test_five_steps_in_double_precision(monkeypatch):
    check_five_steps(CASES["10 classes"], "resnet", monkeypatch)


def test_state_after_five_steps_over_a_milestone(monkeypatch):
    """Three steps of 0.001 and two of 0.0001, if the entropies keep their order."""
    pair = Pair(CASES["10 classes"], "resnet", NARROW["resnet"], torch.float64, monkeypatch)
    for step in range(5):
        pair.advance(step, 2)
    state, own = pair.code.state, pair.trainer.own
    close(own["balance"].weight, state["w_nat"])
    close(temperatures_of(own), [state["t_adv"], state["t_nat"]])
    assert abs(state["w_nat"] - 0.5) > 1e-4
    assert max(state["t_adv"], state["t_nat"]) > 1.0005


def test_protocol_of_the_released_code():
    experiment = experiment_of("b_mtard")
    training = experiment.training_of("b_mtard")
    rates = {215: 0.1, 216: 0.01, 260: 0.01, 261: 1e-3, 285: 1e-3, 286: 1e-4, 300: 1e-4}
    assert {epoch: schedule.learning_rate(training, epoch) for epoch in rates} == pytest.approx(rates)
    assert (training.epochs, training.batch_size, training.kl_scale) == (300, 128, "tenth")
    validated = [epoch for epoch in range(1, 301) if schedule.is_validation_epoch(training, epoch)]
    assert validated == [epoch for epoch in range(1, 301) if (epoch % 20 == 0 and epoch < 215) or epoch >= 215]
    assert training.selection.by == "mean.pgd_trades"
    settings = experiment.recipes["b_mtard", "resnet"].method.settings.model_dump()
    bounds = {"temperature_min": 1.0, "temperature_max": 10.0}
    assert settings == bounds | {"rate": 0.025, "temperature_rate": 0.001, "log_constant": 1e-5}
