"""FGSM-RS (Wong et al., ICLR 2020) against its formula and its released code."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from formulas import ce
from pydantic import ValidationError
from released import Case, Code, check_five_steps, experiment_of, uniform
from single_step import clipped, differing_pixels, perturbation_on_a_linear_model, rising_and_falling
from tabulated import Tabulated, check_loss, check_objective, example
from test_training import CPU, SCHEME, SETTINGS, data, trainer_of  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.training import schedule
from robust_distillation.training.batches import batches


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
def test_loss_and_its_gradient(classes, kl_scale):
    z, y = example(classes)
    method = methods.get("fgsm_rs")()
    check_loss(method, Tabulated(z, y), lambda z, _: (ce(z.adversarial, y), 0 * y), classes, kl_scale)
    check_objective(method, Tabulated(z, y), lambda z: ce(z.adversarial, y))


@pytest.mark.parametrize("factor", [1.25, 0.5])
def test_it_takes_one_step_of_a_length_relative_to_eps(factor):
    z, y = example(10)
    step = Tabulated(z, y)
    methods.get("fgsm_rs")(step_size=factor).loss(step)
    assert step.changes == {"noise": None, "steps": 1, "step_size": pytest.approx(factor * 8 / 255, rel=1e-15)}
    assert step.asked == ["adversarial"]


def test_moments_of_the_perturbation_are_the_integrals(monkeypatch):
    """u uniform in [-1, 1], clip(u + 1.25): mean 55/64, mean square 101/128, at the bound with probability 5/8."""
    delta, sign = perturbation_on_a_linear_model("fgsm_rs", monkeypatch)
    assert (delta * sign).mean() == pytest.approx(0.859375, abs=1e-6)
    assert delta.square().mean() == pytest.approx(0.7890625, abs=1e-6)
    assert (delta.abs() > 1 - 1e-9).double().mean() == 0.625


def test_it_is_sat_with_one_step_of_its_length(data):  # noqa: F811
    """Bit by bit, over an epoch, whatever the inner attack of the protocol does."""
    one = {"steps": 1, "step_size": 1.25 * 0.15, "mode": "train"}
    ends = []
    for name, inner in (("sat", one), ("fgsm_rs", {"steps": 9, "step_size": 0.001, "mode": "train"})):
        attack = SETTINGS.inner_attack.model_copy(update=inner)
        trainer = trainer_of(name, data, settings=SETTINGS.model_copy(update={"inner_attack": attack}))
        trainer.begin_epoch(1)
        for batch in batches(data, SCHEME, SETTINGS, 0, 1, CPU):
            trainer.step(batch)
        ends.append(trainer.student.state_dict())
    assert all(torch.equal(ends[1][key], value) for key, value in ends[0].items())


def test_a_batch_of_one(data):  # noqa: F811
    trainer = trainer_of("fgsm_rs", data)
    batch = next(batches(data, SCHEME, SETTINGS, 0, 1, CPU))
    one = replace(batch, x=batch.x[:1], labels=batch.labels[:1], ids=batch.ids[:1], view_ids=batch.view_ids[:1])
    assert torch.isfinite(trainer.step(one)["loss"])


def step_of_fgsm_rs(code: Code, x, y, epoch: int, step: int):
    """locuslab/fast_adversarial, CIFAR10/train_fgsm.py: the perturbation, not the image, is what is clipped."""
    code.learning_rate = rising_and_falling(0.2, 15)(step)
    eps, alpha = torch.full_like(x, 8 / 255), 10 / 255
    code.student.train()
    delta = clipped(uniform(x, 8 / 255, epoch, step), 0 - x, 1 - x).requires_grad_()
    [gradient] = torch.autograd.grad(F.cross_entropy(code.student(x + delta), y), [delta])
    delta = clipped(delta.detach() + alpha * torch.sign(gradient), -eps, eps)
    x_adv = x + clipped(delta, 0 - x, 1 - x)
    loss = F.cross_entropy(code.student(x_adv), y)
    code.update(loss)
    return x_adv, loss


CASE = Case("fgsm_rs", step_of_fgsm_rs, code={"weight_decay": 5e-4})


def test_first_step_of_the_released_code_up_to_the_rounding_of_a_pixel(monkeypatch):
    different, pixels, loss = differing_pixels(CASE, monkeypatch)
    assert (different, pixels) == (0, 8 * 3 * 32 * 32)
    assert loss < 1e-6


@pytest.mark.slow
def test_five_steps_of_the_released_code(monkeypatch):
    check_five_steps(CASE, "resnet", monkeypatch)


def test_official_learning_rate_is_that_of_torchs_cyclic_schedule():
    """Theirs reaches the peak one step later, and 0 one step after the last."""
    training = experiment_of("fgsm_rs").recipes["fgsm_rs", "resnet"].training
    assert (training.epochs, training.batch_size, training.weight_decay) == (15, 128, 5e-4)
    assert training.weight_decay_on == "all"
    steps = 391
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
    half = 15 * steps / 2
    theirs = torch.optim.lr_scheduler.CyclicLR(optimizer, 0.0, 0.2, step_size_up=half, step_size_down=half)
    for done in range(15 * steps):
        ours = schedule.learning_rate(training, 1 + done // steps, done % steps, steps)
        assert abs(ours - optimizer.param_groups[0]["lr"]) < 0.2 / half * 1.01
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize("wrong", [{"step_size": 0.0}, {"step_size": -1.0}, {"steps": 2}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        methods.get("fgsm_rs")(**wrong)
