"""PeerAiD (Jung et al., CVPR 2024): its formulas, and the released code (jaewonalive/PeerAiD, main.py, train_kd)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import ce, close, kl, log_softmax
from pydantic import ValidationError
from released import Case, Code, check_first_step, check_five_steps, experiment_of, gaussian
from tabulated import Tabulated, check_loss, check_objective, example, objective_of

from robust_distillation import methods
from robust_distillation.training import schedule
from robust_distillation.training.reduction import reduce

NAMES = ("clean", "adversarial", "peer_adversarial", "peer_reference")
DEFAULTS = {
    "gamma1": 1.0, "gamma2": 0.1, "lambda1": 0.0, "lambda2": 1.0, "lambda3": 1.0,
    "temperature": 5.0, "peer_temperature": 1.0,
}  # fmt: skip
# Every weight another number, and temperatures that are not 1.
OTHERS = {
    "gamma1": 0.7, "gamma2": 3.0, "lambda1": 0.4, "lambda2": 2.5, "lambda3": 1.5,
    "temperature": 2.0, "peer_temperature": 3.0,
}  # fmt: skip
SETTINGS = [
    {},
    OTHERS,
    {"detach_target": False},
    OTHERS | {"detach_target": False, "repeat_pass": True},
    *({**OTHERS, **dict.fromkeys(DEFAULTS.keys() - {name, "temperature", "peer_temperature"}, 0.0)} for name in
      ("gamma1", "gamma2", "lambda1", "lambda2", "lambda3")),
]  # fmt: skip


def peeraid(**settings):
    return methods.get("peeraid")(**settings)


def step_of(z, y):
    return Tabulated(z, y, networks=("peer",))


def formula(z, fixed, y, detach_target=True, **settings):
    """The two losses, without and with a divergence; `fixed` stands where the method lets no gradient through."""
    v = DEFAULTS | settings
    t, r = v["temperature"], v["peer_temperature"]
    target = (fixed if detach_target else z).adversarial
    of_peer = v["gamma2"] * r**2 * kl(z.peer_adversarial, target, r)
    of_student = v["lambda2"] * kl(z.adversarial, fixed.peer_adversarial, t) + v["lambda3"] * kl(
        z.adversarial, z.clean, t
    )
    labels = v["gamma1"] * ce(z.peer_adversarial, y) + v["lambda1"] * ce(z.adversarial, y)
    return labels, of_peer + t**2 * of_student


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_its_gradient_in_both_networks(settings, kl_scale, classes):
    z, y = example(classes, names=NAMES)
    own = {key: value for key, value in settings.items() if key != "repeat_pass"}
    check_loss(peeraid(**settings), step_of(z, y), lambda z, fixed: formula(z, fixed, y, **own), classes, kl_scale)


@pytest.mark.parametrize("classes", [10, 3])
def test_x_is_attacked_with_the_prediction_of_the_peer_in_eval_mode(classes):
    """RSLAD's objective, with the peer in the teacher's place and no temperature."""
    z, y = example(classes, seed=1, names=(*NAMES, "teacher"))
    check_objective(peeraid(**OTHERS), step_of(z, y), lambda z: kl(z.adversarial, z.peer_reference))
    z.teacher = z.peer_reference
    logits = torch.tensor(z.adversarial)
    rslad = objective_of(methods.get("rslad")(), Tabulated(z, y))(logits)
    assert torch.equal(objective_of(peeraid(), step_of(z, y))(logits), rslad)


@pytest.mark.parametrize(("classes", "r", "gamma2"), [(10, 1.0, 0.1), (3, 2.0, 1.0)])
def test_gradient_of_the_peers_loss_in_the_student(classes, r, gamma2):
    """By hand, with s = S^r(x') and p = P^r(x'): gamma2 r / (B K) s_i ((log s_i - log p_i) - KL(s || p)), or none."""
    z, y = example(classes, seed=2, names=NAMES)
    log_s, log_p = log_softmax(z.adversarial / r), log_softmax(z.peer_adversarial / r)
    s, distance = np.exp(log_s), kl(z.peer_adversarial, z.adversarial, r)
    expected = gamma2 * r / (len(y) * classes) * s * (log_s - log_p - distance[:, None])
    found = []
    for detach_target in (False, True):
        step = step_of(z, y)
        terms = peeraid(gamma2=gamma2, peer_temperature=r, detach_target=detach_target).loss(step)
        reduce([term for term in terms if term.name.startswith("peer")], classes, "mean")[0].backward()
        found.append(step.outputs["adversarial"].logits.grad)
    close(found[0], expected)
    assert found[1] is None


@pytest.mark.parametrize("repeat_pass", [False, True])
def test_order_of_passes(repeat_pass):
    z, y = example(10, names=NAMES)
    step = step_of(z, y)
    passes, move = step.asked, step.student.update_statistics
    step.student.update_statistics = lambda x: (passes.append("x' again"), move(x))
    peeraid(repeat_pass=repeat_pass).loss(step)
    again = ["x' again"] * repeat_pass
    assert passes == ["peer_reference", "peer_adversarial", "adversarial", *again, "clean"]
    assert step.moved == ["adversarial"] * repeat_pass


def test_of_one_image_each_network_has_its_loss():
    """A batch of one; and if both networks and both images agree, the labels alone are left."""
    z, y = example(10, size=1, names=NAMES)
    z.peer_adversarial = z.clean = z.adversarial
    terms = peeraid(**OTHERS).loss(step_of(z, y))
    for term in terms:
        close(term.values, np.zeros(1) if term.divergence else ce(z.adversarial, y))


@pytest.mark.parametrize(
    "settings",
    [*({name: -0.1} for name in DEFAULTS), {"temperature": 0.0}, {"peer_temperature": 0.0}, {"lambda4": 1.0}],
)
def test_settings_out_of_their_range_are_refused(settings):
    with pytest.raises(ValidationError):
        peeraid(**settings)


# --- the released code ---


def step_of_peeraid(code: Code, x, y, epoch: int, step: int, gamma2=0.1, lambdas=(0.0, 1.0, 1.0), t=5.0):
    peer, student = code.own["peer"], code.student
    peer.eval()
    with torch.no_grad():
        peer_logits = peer(x)
    peer.train()
    student.eval()

    def inner(logits):
        return torch.sum(F.kl_div(F.log_softmax(logits, dim=1), F.softmax(peer_logits, dim=1), reduction="none"))

    x_adv = code.attacked(x, x + gaussian(x, epoch, step), inner)
    student.train()

    def distance(logits, target, temperature):  # KLDivLoss as it is by default: over batch and classes
        log_p, q = F.log_softmax(logits / temperature, dim=1), F.softmax(target / temperature, dim=1)
        return F.kl_div(log_p, q, reduction="none").mean()

    of_peer = peer(x_adv)
    as_target = student(x_adv)  # with gradient
    loss_peer = F.cross_entropy(of_peer, y) + distance(of_peer, as_target, 1.0) * gamma2
    outputs, natural = student(x_adv), student(x)
    loss_student = F.cross_entropy(outputs, y) * lambdas[0]
    loss_student = loss_student + distance(outputs, of_peer.detach(), t) * (lambdas[1] * t * t)
    loss_student = loss_student + distance(outputs, natural, t) * (lambdas[2] * t * t)
    loss = loss_peer + loss_student
    code.update(loss, "peer", "student")
    return x_adv, loss


def step_on_100_classes(code: Code, x, y, epoch: int, step: int):
    return step_of_peeraid(code, x, y, epoch, step, gamma2=1.0)


CASES = {
    "cifar10": Case("peeraid", step_of_peeraid),
    "cifar100": Case("peeraid", step_on_100_classes, "cifar100"),
}


@pytest.mark.parametrize(
    ("case", "architecture"), [("cifar10", "resnet"), ("cifar10", "mobilenet_v2"), ("cifar100", "resnet")]
)
@pytest.mark.slow
def test_first_step_in_single_precision(case, architecture, monkeypatch):
    check_first_step(CASES[case], architecture, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_five_steps_in_double_precision(case, monkeypatch):
    check_five_steps(CASES[case], "resnet", monkeypatch)


def test_tiny_imagenet_has_settings_of_its_own():
    official = methods.get("peeraid").official(200, "resnet")
    own = {"gamma2": 100.0, "lambda1": 0.035, "lambda2": 35.0, "lambda3": 20.0, "temperature": 1.0}
    assert official.settings == {"detach_target": False, "repeat_pass": True, **own}
    assert (official.training["epochs"], official.training["milestones"]) == (200, [99, 149])
    assert official.training["averaging"] == {"name": "swa", "start": 99}


def test_schedule():
    """Their epochs are counted from 0; the rate falls, and the average begins, at 214."""
    training = experiment_of("peeraid").training_of("peeraid", "resnet")
    assert (training.epochs, training.batch_size, training.averaging.start) == (300, 128, 214)
    assert (training.averaging.per, training.averaging.batch_norm) == ("epoch", "reestimate")
    for epoch in range(300):
        rate = 0.1 / 10 ** sum(epoch >= begun for begun in (214, 259, 284))
        assert schedule.learning_rate(training, epoch + 1) == pytest.approx(rate, rel=1e-12), epoch
        assert schedule.is_validation_epoch(training, epoch + 1)
