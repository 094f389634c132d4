"""N-FGSM (de Jorge et al., NeurIPS 2022) against its formula and its released code."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from formulas import ce
from pydantic import ValidationError
from released import Case, Code, check_five_steps, experiment_of, uniform
from single_step import clipped, differing_pixels, perturbation_on_a_linear_model, rising_and_falling
from tabulated import Tabulated, check_loss, check_objective, example
from test_training import CPU, SCHEME, SETTINGS, THREAT, data, trainer_of  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.training import step as training_step
from robust_distillation.training.batches import batches
from robust_distillation.training.step import BatchStep


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
def test_loss_and_its_gradient(classes, kl_scale):
    z, y = example(classes)
    method = methods.get("n_fgsm")()
    check_loss(method, Tabulated(z, y), lambda z, _: (ce(z.adversarial, y), 0 * y), classes, kl_scale)
    check_objective(method, Tabulated(z, y), lambda z: ce(z.adversarial, y))


def test_it_takes_one_step_from_scaled_noise_and_projects_onto_no_ball():
    z, y = example(10)
    step = Tabulated(z, y)
    methods.get("n_fgsm")(noise=3.0, step_size=0.5).loss(step)
    assert torch.equal(step.changes.pop("noise"), torch.full_like(step.x, 0.03))
    assert step.changes == {"steps": 1, "step_size": pytest.approx(4 / 255), "eps": math.inf}
    assert step.asked == ["adversarial"]


@pytest.mark.parametrize("k", [2.0, 1.0, 0.0])
def test_moments_of_the_perturbation_are_the_integrals(k, monkeypatch):
    """2.3333 of eps^2 at k = 2."""
    delta, sign = perturbation_on_a_linear_model("n_fgsm", monkeypatch, noise=k)
    assert (delta * sign).mean() == pytest.approx(1, abs=1e-9)
    assert delta.square().mean() == pytest.approx(k**2 / 3 + 1, abs=1e-6)
    assert delta.abs().max() == pytest.approx(k + 1, abs=1e-2)


def test_images_are_in_range_and_beyond_the_ball(data, monkeypatch):  # noqa: F811
    found, pgd = [], training_step.pgd
    monkeypatch.setattr(training_step, "pgd", lambda *args, **named: found.append(pgd(*args, **named)) or found[-1])
    batch = next(batches(data, SCHEME, SETTINGS, 0, 1, CPU))
    BatchStep(trainer_of("n_fgsm", data), batch).evaluate()
    assert found[0].min() == 0
    assert found[0].max() == 1
    assert 2 * THREAT.eps < (found[0] - batch.x).abs().max() <= 3 * THREAT.eps + 1e-6


def step_of_n_fgsm(code: Code, x, y, epoch: int, step: int):
    """pdejorge/N-FGSM, train.py, without its option --clip."""
    code.learning_rate = rising_and_falling(0.2, 30)(step)
    code.student.train()
    eta = clipped(2 * uniform(x, 8 / 255, epoch, step), 0 - x, 1 - x).requires_grad_()
    [gradient] = torch.autograd.grad(F.cross_entropy(code.student(x + eta), y), [eta])
    x_adv = x + clipped(eta.detach() + 8 / 255 * torch.sign(gradient), 0 - x, 1 - x)
    loss = F.cross_entropy(code.student(x_adv), y)
    code.update(loss)
    return x_adv, loss


CASE = Case("n_fgsm", step_of_n_fgsm, code={"weight_decay": 5e-4}, reach=24 / 255)


def test_first_step_of_the_released_code_up_to_the_rounding_of_a_pixel(monkeypatch):
    different, pixels, loss = differing_pixels(CASE, monkeypatch)
    assert (different, pixels) == (0, 8 * 3 * 32 * 32)
    assert loss < 1e-6


@pytest.mark.slow
def test_five_steps_of_the_released_code(monkeypatch):
    check_five_steps(CASE, "resnet", monkeypatch)


def test_official_budget():
    training = experiment_of("n_fgsm").recipes["n_fgsm", "resnet"].training
    assert (training.epochs, training.learning_rate, training.weight_decay) == (30, 0.2, 5e-4)
    assert training.schedule == experiment_of("fgsm_rs").recipes["fgsm_rs", "resnet"].training.schedule


@pytest.mark.parametrize("wrong", [{"noise": -1.0}, {"step_size": 0.0}, {"clip": 1.0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        methods.get("n_fgsm")(**wrong)
