"""ADR (Wu et al., ICLR 2024): its formulas, and the released code (yuyuwu5/ADR, adr.py, advTrainer.py, PGD-AT).

The code updates its average after the optimiser's step, ours before the next one; the tests below tell them apart.
"""

from __future__ import annotations

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import close, log_softmax
from pydantic import ValidationError
from released import Case, Code, Pair, check_first_step, check_five_steps, experiment_of, uniform
from tabulated import EPOCH, EPOCHS, Tabulated, check_loss, check_objective, example
from test_training import CPU, SCHEME, SETTINGS, data, trainer_of  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.settings import Training
from robust_distillation.training import schedule
from robust_distillation.training.batches import batches
from robust_distillation.training.reduction import reduce

NAMES = ("adversarial", "average_reference")
DEFAULTS = {"temperature_start": 2.5, "temperature_end": 2.0, "interpolation_start": 0.7, "interpolation_end": 0.95}
SETTINGS_HERE = [
    {},
    {"temperature_start": 1.0, "temperature_end": 0.5, "interpolation_start": 0.2, "interpolation_end": 0.3},
    {"interpolation_start": 0.0, "interpolation_end": 0.0},
    {"interpolation_start": 1.0, "interpolation_end": 1.0},
]


def adr(**settings):
    return methods.get("adr")(**settings)


def step_of(z, y, progress=(EPOCH - 1) / EPOCHS):
    """A step that keeps which network the average followed, and how."""
    step = Tabulated(z, y, networks=("average",))
    step.progress, step.followed = progress, []
    step.own["average"].follow = lambda other, decay: step.followed.append((other, decay))
    return step


def annealed(start, end, progress):
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def rectified(logits, y, progress, hard=None, **settings):
    v = DEFAULTS | settings
    p = np.exp(log_softmax(logits / annealed(v["temperature_start"], v["temperature_end"], progress)))
    gap = p.max(1) - p[np.arange(len(y)), y]
    weight = annealed(v["interpolation_start"], v["interpolation_end"], progress) - gap
    weight = np.clip(weight, 0, 1)[:, None]
    return weight * p + (1 - weight) * (np.eye(p.shape[1])[y] if hard is None else hard)


def soft_ce(logits, q):
    return -(q * log_softmax(logits)).sum(1)


def labels_of(logits, y, progress=0.0, **settings):
    """The labels q, read off the gradient of the cross-entropy in the logits: (softmax - q) / B."""
    z, _ = example(len(logits[0]), size=len(y), names=NAMES)
    z.average_reference = np.array(logits, dtype=float)
    step = step_of(z, np.array(y), progress)
    reduce(adr(**settings).loss(step), len(logits[0]), "sum")[0].backward()
    return np.exp(log_softmax(z.adversarial)) - len(y) * step.outputs["adversarial"].logits.grad.numpy()


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("progress", [0.0, 0.3])
@pytest.mark.parametrize("settings", SETTINGS_HERE)
def test_loss_and_its_gradient(settings, progress, kl_scale, classes):
    """No gradient flows into the average, and there is no divergence to scale."""
    z, y = example(classes, names=NAMES)

    def formula(z, fixed):
        return soft_ce(z.adversarial, rectified(fixed.average_reference, y, progress, **settings)), np.zeros(len(y))

    check_loss(adr(**settings), step_of(z, y, progress), formula, classes, kl_scale)


@pytest.mark.parametrize("classes", [10, 3])
def test_x_is_attacked_with_the_rectified_labels(classes):
    z, y = example(classes, seed=1, names=NAMES)
    check_objective(adr(), step_of(z, y, 0.3), lambda z: soft_ce(z.adversarial, rectified(z.average_reference, y, 0.3)))


@pytest.mark.parametrize(
    ("logits", "temperature", "interpolation", "expected"),
    [
        ((3, 0, 0), 2.0, 0.7, (0.784007, 0.107997, 0.107997)),
        ((0, 3, 0), 1.0, 0.9, (0.965787, 0.032590, 0.001623)),  # the average is wrong
        ((1, 1.5, 0), 2.0, 0.7, (0.606434, 0.267301, 0.126264)),
        ((-10, 10), 2.0, 0.7, (1, 0)),  # and this wrong: the hard label
    ],
)
def test_labels_by_hand(logits, temperature, interpolation, expected):
    """Values of a pocket calculator, for an image of class 0, one in a batch and three."""
    own = {"temperature_start": temperature, "temperature_end": temperature}
    own |= {"interpolation_start": interpolation, "interpolation_end": interpolation}
    for size in (1, 3):
        close(labels_of([logits] * size, [0] * size, **own), [expected] * size, 2e-6)


def test_temperature_and_interpolation_are_halfway_in_the_middle():
    """2.25 and 0.825, as if they had been that from the start on; the end is what they move to."""
    logits, y = [(3, 0, 0), (0, 1, 2)], [0, 0]
    middle = {"temperature_start": 2.25, "temperature_end": 2.25}
    middle |= {"interpolation_start": 0.825, "interpolation_end": 0.825}
    close(labels_of(logits, y, 0.5), labels_of(logits, y, **middle))
    last = {"temperature_start": 2.0, "interpolation_start": 0.95}
    close(labels_of(logits, y, 1.0), labels_of(logits, y, **last))


def test_smoothed_labels_are_rectified():
    z, y = example(10, names=NAMES)
    step = step_of(z, y, 0.3)
    step.targets = torch.tensor(0.9 * np.eye(10)[y] + 0.01)
    q = rectified(z.average_reference, y, 0.3, step.targets.numpy())
    check_loss(adr(), step, lambda z, _: (soft_ce(z.adversarial, q), np.zeros(len(y))), 10)


def test_order_of_passes():
    z, y = example(10, names=NAMES)
    for progress, decay in ((0.0, 0.0), (1e-9, 0.9)):
        step = step_of(z, y, progress)
        adr(decay=0.9).loss(step)
        assert step.asked == ["average_reference", "adversarial"]
        assert step.followed == [(step.student, decay)]


def test_with_hard_labels_it_is_sat():
    """Checks that ADR is SAT if the average's prediction has the weight 0."""
    z, y = example(10, names=NAMES)
    step = step_of(z, y)
    [term] = adr(interpolation_start=0.0, interpolation_end=0.0).loss(step)
    [sat] = methods.get("sat")().loss(step)
    close(term.values, sat.values.detach(), 1e-15)


@pytest.mark.parametrize(
    "settings",
    [
        {"decay": 1.1}, {"decay": -0.1}, {"temperature_start": 0.0}, {"temperature_end": -1.0},
        {"interpolation_start": 1.1}, {"interpolation_end": -0.1}, {"temperature": 2.0},
    ],
)  # fmt: skip
def test_settings_out_of_their_range_are_refused(settings):
    with pytest.raises(ValidationError):
        adr(**settings)


# --- the average ---


def copied(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("variant", [None, "wu2020", "adr"])
def test_the_average_over_three_steps(variant, data):  # noqa: F811
    """A copy of the initial student, then 0.995 A + 0.005 S after each step, perturbed weights or not."""
    awp = {"weight_perturbation": {"gamma": 0.1, "variant": variant}} if variant else {}
    trainer = trainer_of("adr", data, settings=Training.model_validate(SETTINGS.model_dump() | awp))
    trainer.begin_epoch(1)
    average, expected = trainer.own["average"], copied(trainer.student)
    assert not torch.equal(average.classifier.weight, expected["classifier.weight"])
    for batch in list(batches(data, SCHEME, SETTINGS, 0, 1, CPU))[:4]:
        trainer.step(batch)
        for name, tensor in average.state_dict().items():
            assert torch.equal(tensor, expected[name]), (batch.number, name)
        for name, tensor in copied(trainer.student).items():
            expected[name] = 0.995 * expected[name] + (1 - 0.995) * tensor if tensor.is_floating_point() else tensor
    assert all(parameter.grad is None for parameter in average.parameters())
    assert (expected["classifier.weight"] - trainer.student.classifier.weight).abs().max() > 1e-4


# --- the released code ---


def cosine_scheduler(start, end, epochs, steps):
    iters = np.arange(epochs * steps)
    return end + 0.5 * (start - end) * (1 + np.cos(np.pi * iters / len(iters)))


def step_of_adr(code: Code, x, y, epoch: int, step: int, temperatures=(2.5, 2.0), classes=10, awp=False, exactly=False):
    """exactly: x' is projected as in theirs, x + clamp(x' - x), which rounds where min and max do not."""
    student = code.student
    ema = code.state.setdefault("ema", copy.deepcopy(student).eval())
    now, steps = (epoch - 1) * (step + 1) + step, step + 1  # of an epoch, as the tests have it
    temperature = cosine_scheduler(*temperatures, 200, steps)[now]
    interpolation = cosine_scheduler(0.7, 0.85 if awp else 0.95, 200, steps)[now]
    with torch.no_grad():
        prob = F.softmax(ema(x) / temperature, dim=1)
        target_prob, (max_prob, _) = prob[torch.arange(len(y)), y], torch.max(prob, 1)
        per_image = torch.clamp(interpolation - (max_prob - target_prob), 0.0, 1.0).unsqueeze(1)
        label = per_image * prob + (1 - per_image) * F.one_hot(y, num_classes=classes)
    start = torch.clamp(x + uniform(x, 8 / 255, epoch, step), 0, 1)
    if exactly:
        x_adv = start
        for _ in range(10):
            x_adv = x_adv.detach().requires_grad_()
            [gradient] = torch.autograd.grad(F.cross_entropy(student(x_adv), label), x_adv)
            delta = torch.clamp(x_adv.detach() + 2 / 255 * gradient.sign() - x, -8 / 255, 8 / 255)
            x_adv = torch.clamp(x + delta, 0, 1)
    else:
        x_adv = code.attacked(x, start, lambda logits: F.cross_entropy(logits, label))
    loss = F.cross_entropy(student(x_adv), label)
    code.own["average"].load_state_dict(ema.state_dict())  # ours is compared before its next move
    nesterov(code, loss)
    with torch.no_grad():
        for own, other in zip(ema.state_dict().values(), student.state_dict().values(), strict=True):
            own.copy_(0.995 * own + (1.0 - 0.995) * other if own.is_floating_point() else other)  # a count is not used
    return x_adv, loss


def nesterov(code: Code, loss):
    """torch's SGD with Nesterov's momentum 0.9 and weight decay 5e-4."""
    parameters = list(code.student.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            gradient = gradient + 5e-4 * parameter
            velocity = code.velocity.get(parameter)
            code.velocity[parameter] = gradient if velocity is None else 0.9 * velocity + gradient
            parameter -= 0.1 * (gradient + 0.9 * code.velocity[parameter])


TO_100 = (1, 20, 50, 80, 100)  # the rate is 0.1 until then
CASES = {
    "cifar10": Case("adr", step_of_adr, epochs=TO_100),
    "cifar100": Case("adr", partial(step_of_adr, temperatures=(1.5, 1.0), classes=100), "cifar100", epochs=TO_100),
}


@pytest.mark.parametrize(
    ("case", "architecture"), [("cifar10", "resnet"), ("cifar10", "mobilenet_v2"), ("cifar100", "resnet")]
)
@pytest.mark.slow
def test_first_step_in_single_precision(case, architecture, monkeypatch):
    check_first_step(CASES[case], architecture, monkeypatch)


def test_x_differs_from_theirs_by_the_rounding_of_their_projection(monkeypatch):
    """A pixel inside the ball comes out of x + (x' - x) as x' or as its neighbour: 57 of 24,576 by less than 4e-9. No
    gradient changes its sign by that."""
    pair = Pair(Case("adr", partial(step_of_adr, exactly=True)), "resnet", {"width": 4}, torch.float32, monkeypatch)
    theirs, _, ours, _ = pair.advance(0, 8)
    difference = (theirs - ours).abs()
    assert 0 < (difference > 0).sum() < 100
    assert difference.max() < 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_five_steps_in_double_precision(case, monkeypatch):
    check_five_steps(CASES[case], "resnet", monkeypatch)


def test_tiny_imagenet_has_settings_of_its_own():
    official = methods.get("adr").official(200, "wide_resnet")
    own = {"temperature_start": 2.0, "temperature_end": 1.5, "interpolation_start": 0.5, "interpolation_end": 0.9}
    assert official.settings == own
    assert (official.training["epochs"], official.training["milestones"]) == (80, [40, 60])


def test_schedule():
    """Theirs falls with the first step after 100 and 150 epochs."""
    training = experiment_of("adr").training_of("adr", "resnet")
    assert (training.epochs, training.batch_size, training.drop_last) == (200, 128, True)
    assert training.optimizer.options == {"nesterov": True}
    for epoch in range(1, 201):
        rate = 0.1 * (0.01 if epoch > 150 else 0.1 if epoch > 100 else 1)
        assert schedule.learning_rate(training, epoch) == pytest.approx(rate, rel=1e-12), epoch
        assert schedule.is_validation_epoch(training, epoch)
