"""ABSLD (Zhao et al., NeurIPS 2024): its equations as in its code, its class temperatures, its released step.

The released code is zhaoshiji123/ABSLD, absld_loss.py and resnet18_absld_cifar10.py.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import ce, close, kl
from pydantic import ValidationError
from released import NARROW, Case, Code, Pair, check_first_step, check_five_steps, experiment_of, gaussian
from tabulated import Tabulated, check_loss, check_objective, example
from test_training import CPU, OPTIONS, SCHEME, SETTINGS, data, trainer_of  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.losses import kl_divergence
from robust_distillation.methods import EpochEnd
from robust_distillation.training import schedule
from robust_distillation.training.batches import batches

ABSLD = methods.get("absld")


def state_of(method, temperatures):
    """The state for temperatures [2,K], first those for x'."""
    state = method.build(SimpleNamespace(classes=temperatures.shape[1]), None)["classes"].double()
    state.temperatures.copy_(torch.tensor(temperatures))
    return state


def some_temperatures(classes):
    return np.random.default_rng(7).uniform(0.5, 5, size=(2, classes))


def divided(z, y, temperatures, multiply_temperatures=False, **_):
    """T^a(x) and T^b(x) as logits."""
    a, b = temperatures[:, y, None]
    return (z.teacher / (a * b), z.teacher / (a * b)) if multiply_temperatures else (z.teacher / a, z.teacher / b)


def absld(z, y, temperatures, alpha=5 / 6, log_constant=0.0, **settings):
    robust, natural = divided(z, y, temperatures, **settings)
    clean = kl(z.clean, natural, target_constant=log_constant)
    return 0.0, (1 - alpha) * clean + alpha * kl(z.adversarial, robust, target_constant=log_constant)


SETTING = [
    {},
    {"alpha": 0.3},
    {"multiply_temperatures": True},
    {"log_constant": 1e-5},
    {"alpha": 0.0, "multiply_temperatures": True, "log_constant": 0.01},
]


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", SETTING)
def test_loss_and_its_gradient(settings, kl_scale, classes):
    method, (z, y), temperatures = ABSLD(**settings), example(classes), some_temperatures(classes)
    step = Tabulated(z, y, own={"classes": state_of(method, temperatures)})
    check_loss(method, step, lambda z, _: absld(z, y, temperatures, **settings), classes, kl_scale)
    assert step.asked == ["teacher", "adversarial", "clean"]
    assert step.moved == []


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("settings", SETTING)
def test_inner_objective_has_the_temperatures_for_adversarial_images(settings, classes):
    method, (z, y), temperatures = ABSLD(**settings), example(classes, seed=1), some_temperatures(classes)
    step = Tabulated(z, y, own={"classes": state_of(method, temperatures)})
    check_objective(method, step, lambda z: kl(z.adversarial, divided(z, y, temperatures, **settings)[0]))


# --- the temperatures ---


def end_of(state, next_decay=1.0):
    return EpochEnd({"classes": state}, epoch=1, epochs=3, decay=1.0, next_decay=next_decay)


def test_temperatures_over_three_epochs_by_hand():
    """Rows of sums are for x' and x. [3, 0, 0] less its mean is [2, -1, -1], divided by 2: [1, -0.5, -0.5]."""
    method = ABSLD()
    state = state_of(method, np.ones((2, 3)))
    steps = [
        (1.0, [[3.0, 0.0, 0.0], [0.0, 1.0, 2.0]], [[0.9, 1.05, 1.05], [1.1, 1.0, 0.9]]),
        (0.1, [[0.0, 6.0, 3.0], [5.0, 5.0, 5.0]], [[0.91, 1.04, 1.05], [1.1, 1.0, 0.9]]),  # no gap: no change
        (0.01, [[4.0, 4.0, 1.0], [0.0, 0.0, 9.0]], [[0.9095, 1.0395, 1.051], [1.1005, 1.0005, 0.899]]),
    ]
    for decay, sums, expected in steps:
        state.sums.copy_(torch.tensor(sums))
        method.after_epoch(end_of(state, decay))
        close(state.temperatures, expected)
        assert not state.sums.any()


def test_temperatures_stay_within_their_bounds():
    method = ABSLD(rate=8.0, temperature_min=0.25, temperature_max=4.0)
    state = state_of(method, np.ones((2, 3)))
    state.sums.copy_(torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 3.0]]))
    method.after_epoch(end_of(state))
    close(state.temperatures, [[0.25, 4.0, 4.0], [4.0, 4.0, 0.25]])


def test_sums_are_the_students_cross_entropies_by_class():
    method = ABSLD()
    state = state_of(method, np.ones((2, 4)))
    expected = np.zeros((2, 4))
    for seed in range(3):
        z, y = example(4, seed)
        y[:] = y % 3  # a class without images
        method.loss(Tabulated(z, y, own={"classes": state}))
        np.add.at(expected, (0, y), ce(z.adversarial, y))
        np.add.at(expected, (1, y), ce(z.clean, y))
    close(state.sums, expected)
    assert (expected[:, :3] > 0).all()
    assert not expected[:, 3].any()
    assert not state.sums.requires_grad


def test_a_batch_of_one_image():
    method, (z, y) = ABSLD(), example(5, size=1)
    state = state_of(method, some_temperatures(5))
    check_loss(
        method, Tabulated(z, y, own={"classes": state}), lambda z, _: absld(z, y, state.temperatures.numpy()), 5, "mean"
    )
    assert (state.sums > 0).sum() == 2


@pytest.mark.parametrize("settings", [{}, {"multiply_temperatures": True}, {"log_constant": 1e-5}])
def test_with_all_temperatures_1_it_is_rslad_bit_for_bit(settings, data, monkeypatch):  # noqa: F811
    """All of the first epoch; in the second one the temperatures differ."""
    monkeypatch.setitem(OPTIONS, "absld", settings)
    monkeypatch.setitem(OPTIONS, "rslad", {key: value for key, value in settings.items() if key == "log_constant"})
    ours, rslad = (trainer_of(name, data) for name in ("absld", "rslad"))
    for epoch, same in ((1, True), (2, False)):
        for trainer in (ours, rslad):
            trainer.begin_epoch(epoch)
            losses = [trainer.step(batch)["loss"] for batch in batches(data, SCHEME, SETTINGS, 0, epoch, CPU)]
            trainer.end_epoch(epoch)
        assert len(losses) == 5
        pairs = zip(ours.student.state_dict().values(), rslad.student.state_dict().values(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs) == same
    temperatures = ours.own["classes"].temperatures
    assert (temperatures != 1).any(1).all()
    assert not torch.equal(*temperatures)


@pytest.mark.parametrize(
    "settings",
    [{"alpha": 1.5}, {"rate": -0.1}, {"temperature_min": 0.0}, {"temperature_min": 2.0}, {"temperature_max": 0.9}],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        ABSLD(**settings)


# --- the released code ---


def step_of_absld(code: Code, x, y, epoch: int, step: int):
    state = code.state
    if not state:
        state |= {"tau_adv": x.new_ones(10), "tau_nat": x.new_ones(10), "rate": 0.1, "lr": 0.1, "epoch": epoch}
        state |= {"adv": x.new_zeros(10), "nat": x.new_zeros(10)}
    if epoch > state["epoch"]:  # what the code does at the end of an epoch
        if state["epoch"] in (215, 260, 285):
            state["lr"] *= 0.1
            state["rate"] *= 0.1
        for view in ("adv", "nat"):
            gap = state[view] - torch.mean(state[view])
            tau = state[f"tau_{view}"] - state["rate"] * gap / torch.max(torch.abs(gap))
            state[f"tau_{view}"], state[view] = torch.clamp(tau, 0.5, 5), x.new_zeros(10)
        state["epoch"] = epoch
    code.learning_rate = state["lr"]

    shared = code.taught(x)  # both detached tensors share its storage
    scaled_adv, scaled_nat = shared.detach(), shared.detach()
    for i, label in enumerate(y):
        scaled_adv[i] = scaled_adv[i] / state["tau_adv"][label]
        scaled_nat[i] = scaled_nat[i] / state["tau_nat"][label]
    assert scaled_adv.data_ptr() == scaled_nat.data_ptr()

    def inner(logits):
        return torch.sum(F.kl_div(F.log_softmax(logits, dim=1), F.softmax(scaled_adv, dim=1), reduction="none"))

    code.student.eval()
    x_adv = code.attacked(x, x + gaussian(x, epoch, step), inner)
    code.student.train()
    adv_logits = code.student(x_adv)
    nat_logits = code.student(x)
    for view, logits in (("adv", adv_logits), ("nat", nat_logits)):
        record = F.cross_entropy(logits.detach(), y, reduction="none")
        for i, label in enumerate(y):
            state[view][label] = state[view][label] + record[i]

    def distance(logits, scaled):
        soft = F.softmax(scaled, dim=1)
        return torch.mean(-torch.log(F.softmax(logits, dim=1)) * soft + torch.log(soft + 1e-5) * soft)

    loss = 5.0 / 6.0 * distance(adv_logits, scaled_adv) + 1.0 / 6.0 * distance(nat_logits, scaled_nat)
    code.update(loss)
    return x_adv, loss


OVER_EPOCHS = Case("absld", step_of_absld, epochs=(214, 215, 215, 216, 217))


@pytest.mark.parametrize("architecture", NARROW)
def test_first_step_in_single_precision(architecture, monkeypatch):
    check_first_step(Case("absld", step_of_absld), architecture, monkeypatch)


def test_a_step_with_other_temperatures_in_single_precision(monkeypatch):
    pair = Pair(Case("absld", step_of_absld), "resnet", NARROW["resnet"], torch.float32, monkeypatch)
    temperatures = torch.tensor(some_temperatures(10)).float()
    pair.trainer.own["classes"].temperatures.copy_(temperatures)
    zeros = {view: torch.zeros(10) for view in ("adv", "nat")}
    pair.code.state |= zeros | {"rate": 0.1, "lr": 0.1, "epoch": 1}
    pair.code.state |= {"tau_adv": temperatures[0].clone(), "tau_nat": temperatures[1].clone()}
    theirs, their_loss, ours, our_loss = pair.advance(0, 8)
    assert torch.equal(ours, theirs)
    assert abs(our_loss - their_loss) < 1e-6


@pytest.mark.slow
def test_five_steps_in_double_precision(monkeypatch):
    check_five_steps(OVER_EPOCHS, "resnet", monkeypatch)


def test_state_after_five_steps_over_a_milestone(monkeypatch):
    """Its rate falls before the update after epoch 215."""
    pair = Pair(OVER_EPOCHS, "resnet", NARROW["resnet"], torch.float64, monkeypatch)
    for step in range(5):
        pair.advance(step, 2)
    state, own = pair.code.state, pair.trainer.own["classes"]
    close(own.temperatures, torch.stack([state["tau_adv"], state["tau_nat"]]))
    close(own.sums, torch.stack([state["adv"], state["nat"]]))
    assert state["rate"] == pytest.approx(0.01)
    assert (own.temperatures - 1).abs().amax() > 0.05


def test_protocol_of_the_released_code():
    experiment = experiment_of("absld")
    training = experiment.training_of("absld")
    rates = {215: 0.1, 216: 0.01, 260: 0.01, 261: 1e-3, 285: 1e-3, 286: 1e-4, 300: 1e-4}
    assert {epoch: schedule.learning_rate(training, epoch) for epoch in rates} == pytest.approx(rates)
    validated = [epoch for epoch in range(1, 301) if schedule.is_validation_epoch(training, epoch)]
    assert validated == [epoch for epoch in range(1, 301) if (epoch % 10 == 0 and epoch < 215) or epoch >= 215]
    assert (training.epochs, training.batch_size, training.selection.by) == (300, 128, "pgd_trades")
    settings = experiment.recipes["absld", "resnet"].method.settings.model_dump()
    defaults = {"alpha": 5 / 6, "rate": 0.1, "temperature_min": 0.5, "temperature_max": 5.0}
    assert settings == defaults | {"multiply_temperatures": True, "log_constant": 1e-5}


def test_a_sharper_label_for_a_harder_class():
    """The direction of the update: a class above the mean gets a lower temperature, so a sharper label."""
    method = ABSLD()
    state = state_of(method, np.ones((2, 3)))
    state.sums.copy_(torch.tensor([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))
    method.after_epoch(end_of(state))
    logits = torch.tensor([[4.0, 1.0, 0.0]]).double()
    hard, easy = (logits / state.temperatures[0, k] for k in (0, 1))
    assert hard.softmax(1).amax() > easy.softmax(1).amax()
    assert kl_divergence(logits, hard) > 0
