"""The attack core and the named attacks, on models where the answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from pyautoattack import AutoAttack
from torch import nn

from robust_distillation import attacks
from robust_distillation.attacks.apgd import correct_under_apgd
from robust_distillation.attacks.core import l2_norm, pgd, project, starting_noise
from robust_distillation.errors import UserError
from robust_distillation.losses import cross_entropy
from robust_distillation.models.checkpoint import build_model
from robust_distillation.models.frozen import frozen
from robust_distillation.randomness import generator
from robust_distillation.settings import ThreatModel

LINF, L2 = ThreatModel(norm="linf", eps=0.1), ThreatModel(norm="l2", eps=0.25)
BOTH = pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
PAPER = ThreatModel(norm="linf", eps=8 / 255)  # for attacks whose steps are so many grey levels
MODULES = {name: attacks.registry.module(name) for name in attacks.names()}
FIXED_STEPS = {"pgd_sat": 2 / 255, "pgd_trades": 0.003, "cw": 2 / 255}
KNOWN = [
    pytest.param(name, threat, id=f"{name}-{threat.norm}")
    for name, module in MODULES.items()
    for threat in ([PAPER] if name in FIXED_STEPS else [LINF, L2])
    if threat.norm in module.NORMS
]


class TwoOfTen(nn.Module):
    """Ten classes of which two compete, linearly: the distance of an image from the boundary is known.

    The margin of class 0 over class 1 is w.x + b. It can be pushed by eps * ||w||_1 in the Linf ball and by
    eps * ||w||_2 in the L2 ball, as long as no pixel meets 0 or 1.
    """

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(1, 8, 8))

    def forward(self, x):
        margin = (x * self.weight).sum((1, 2, 3)) - 0.5 * self.weight.sum()
        others = torch.full((len(x), 8), -100.0)
        return torch.cat([torch.stack([margin / 2, -margin / 2], 1), others], 1)


def known_images(model: TwoOfTen, threat: ThreatModel):
    """Grey images at margins around what the threat model can push, their labels, and whether each must hold."""
    w = model.weight.detach()
    reach = threat.eps * (w.abs().sum() if threat.norm == "linf" else w.norm())
    margins = reach * torch.tensor([0.2, 0.9, 0.98, 1.02, 1.1, 1.5, -0.5, -1.5])
    x = 0.5 + margins[:, None, None, None] * w / w.norm() ** 2
    assert 0.1 < x.min() < x.max() < 0.9
    labels = torch.zeros(8, dtype=torch.long)  # the last two are misclassified to begin with
    return x, labels, margins > reach


@pytest.mark.slow
@pytest.mark.parametrize(("name", "threat"), KNOWN)
def test_outcome_is_the_known_one(name, threat):
    model = TwoOfTen().eval()
    x, labels, expected_robust = known_images(model, threat)
    if (
        name == "square"
    ):  # random search falls short of the reach: it must break the first image and none that must hold
        sure = torch.tensor([0, 3, 4, 5, 6, 7])
        x, labels, expected_robust = x[sure], labels[sure], expected_robust[sure]
    adversarial = MODULES[name].attack(model, x, labels, threat, seed=3)
    robust_correct = (model(x).argmax(1) == labels) & (model(adversarial).argmax(1) == labels)
    assert robust_correct.tolist() == expected_robust.tolist()
    distance = (adversarial - x).flatten(1)
    distance = distance.abs().amax(1) if threat.norm == "linf" else distance.norm(dim=1)
    assert distance.max() <= threat.eps + 1e-5
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1


def test_every_attack_names_the_norms_it_is_defined_for():
    for name, module in MODULES.items():
        assert isinstance(module.NORMS, tuple), name
        assert set(module.NORMS) <= {"linf", "l2"}, name
        assert attacks.registry.constant(name, "NORMS", ()) == module.NORMS, name
    assert {name for name, module in MODULES.items() if "l2" not in module.NORMS} == set(FIXED_STEPS)


@pytest.mark.parametrize("name", FIXED_STEPS)
def test_steps_in_grey_levels_are_refused_in_the_l2_ball(name):
    x = torch.rand(2, 1, 8, 8)
    with pytest.raises(UserError, match=rf"attack '{name}' is defined in the linf ball only, not in l2"):
        MODULES[name].attack(TwoOfTen(), x, torch.zeros(2, dtype=torch.long), L2, seed=0)


class Recording(nn.Module):
    """Remembers every batch it was asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.model(x)


@pytest.mark.parametrize("name", FIXED_STEPS)
def test_steps_of_the_published_attacks_one_by_one(name):
    """On a linear margin every step is known: from the uniform start by the step size, and no further than the ball."""
    model, step = TwoOfTen().eval(), FIXED_STEPS[name]
    x, labels, _ = known_images(model, PAPER)
    x[0], x[1] = 0.0, 1.0  # where [0,1] binds, too
    recording = Recording(model)
    found = MODULES[name].attack(recording, x, labels, PAPER, seed=3)
    expected = (x + starting_noise(x, PAPER, "uniform", generator(3, name))).clamp(0, 1)
    assert (expected - x).abs().max() > 0.9 * PAPER.eps
    low, high = (x - PAPER.eps).clamp(min=0), (x + PAPER.eps).clamp(max=1)
    assert len(recording.seen) == 20
    for seen in recording.seen:
        assert torch.allclose(seen, expected, atol=1e-6)
        expected = torch.minimum(torch.maximum(expected - step * model.weight.sign(), low), high)
    assert torch.allclose(found, expected, atol=1e-6)


def test_published_attacks_start_apart():
    x = torch.full((1, 1, 8, 8), 0.5)
    starts = []
    for name in FIXED_STEPS:
        recording = Recording(TwoOfTen())
        MODULES[name].attack(recording, x, torch.zeros(1, dtype=torch.long), PAPER, seed=3)
        starts.append(recording.seen[0])
    assert len({tuple(start.flatten().tolist()) for start in starts}) == len(FIXED_STEPS)


class ThreeClasses(nn.Module):
    """z = (2, 1 + x0 + 0.1 x1 - x2, x0 - 5 x1 + 5 x2): around (1/2, 1/2, 1/2) class 0 wins and class 1 comes second."""

    rows = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.1, -1.0], [1.0, -5.0, 5.0]])

    def forward(self, x):
        return x.flatten(1) @ self.rows.T + torch.tensor([2.0, 1.0, 0.0])


def test_cw_climbs_the_margin_where_the_cross_entropy_leads_elsewhere():
    """The margin's gradient is that of the runner-up alone; the third class pulls the cross-entropy the other way."""
    x, labels = torch.full((1, 1, 1, 3), 0.5), torch.zeros(1, dtype=torch.long)
    moves = {
        name: (MODULES[name].attack(ThreeClasses(), x, labels, PAPER, seed=0) - x).flatten() / PAPER.eps
        for name in ("cw", "pgd_sat")
    }
    assert torch.allclose(moves["cw"], torch.tensor([1.0, 1.0, -1.0]), atol=1e-5)
    assert torch.allclose(moves["pgd_sat"], torch.tensor([1.0, -1.0, 1.0]), atol=1e-5)


def test_cw_goes_on_where_the_image_is_lost_already():
    """No confidence at which it stops."""
    model = TwoOfTen().eval()
    x, labels, _ = known_images(model, PAPER)
    found = MODULES["cw"].attack(model, x[-1:], labels[-1:], PAPER, seed=0)
    assert model(x[-1:]).argmax(1) != 0
    assert torch.allclose(found - x[-1:], -PAPER.eps * model.weight.detach().sign(), atol=1e-5)


@BOTH
def test_square_asks_at_most_its_queries_and_leaves_alone_what_holds(threat, monkeypatch):
    """One query for the start, one for each proposal; besides, one for what is right before and one after."""
    model = TwoOfTen().eval()
    x, labels, expected_robust = known_images(model, threat)
    recording = Recording(model)
    monkeypatch.setattr(MODULES["square"], "QUERIES", 300)
    found = MODULES["square"].attack(recording, x, labels, threat, seed=3)
    assert len(recording.seen) == 300 + 3
    inside = torch.cat([(seen[:, None] - x).flatten(2).norm(math.inf if threat.norm == "linf" else 2, dim=2).amin(1)
                        for seen in recording.seen])  # fmt: skip
    assert inside.max() <= threat.eps + 1e-5
    right = model(x).argmax(1) == labels
    assert sum(len(seen) for seen in recording.seen[1:-1]) <= right.sum() * 301
    robust_correct = right & (model(found).argmax(1) == labels)
    assert robust_correct[expected_robust].all()
    assert torch.equal(found[robust_correct | ~right], x[robust_correct | ~right])


def test_square_is_the_one_of_standard_autoattack():
    """The same images, bit for bit, as AutoAttack restricted to it; 5,000 queries."""
    assert MODULES["square"].QUERIES == 5000
    model = TwoOfTen().eval()
    x, labels, _ = known_images(model, LINF)
    x, labels = x[:1], labels[:1]
    reference = AutoAttack(model, norm="Linf", eps=LINF.eps, seed=7, version="custom", attacks=["square"])
    expected, _ = reference.run_standard_evaluation(x, labels)
    found = MODULES["square"].attack(model, x, labels, LINF, seed=7)
    assert not torch.equal(found, x)
    assert torch.equal(found, expected)


@BOTH
def test_selection_attack_finds_the_known_outcome(threat):
    model = TwoOfTen().eval()
    x, labels, expected_robust = known_images(model, threat)
    clean, robust_correct = correct_under_apgd(model, x, labels, threat, steps=20, seed=0)
    assert clean.tolist() == [True] * 6 + [False] * 2
    assert robust_correct.tolist() == expected_robust.tolist()


@BOTH
@pytest.mark.parametrize("start", ["zero", "uniform", "gaussian"])
def test_pgd_raises_the_objective_inside_the_ball(threat, start):
    model = build_model({"name": "convnet", "width": 4}, (1, 8, 8), 10).train()
    x = torch.rand(16, 1, 8, 8, generator=generator(0, "x"))
    labels = torch.arange(16) % 10

    def objective(images, logits):
        return cross_entropy(logits, labels)

    noise = starting_noise(x, threat, start, generator(0, "a"))
    found = pgd(model, x, objective, threat, steps=10, step_size=threat.eps / 4, noise=noise)
    with frozen(model), torch.no_grad():
        assert (objective(found, model(found)) > objective(x, model(x))).all()
    assert (
        (found - x).flatten(1).abs().amax(1) if threat.norm == "linf" else l2_norm(found - x)
    ).max() < threat.eps + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found.requires_grad


def test_linf_step_by_step_against_plain_arithmetic():
    """Two steps on a linear objective, where every intermediate value can be written down."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    model[1].weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    x = torch.tensor([0.05, 0.5]).reshape(1, 1, 1, 2)
    found = pgd(model, x, lambda x, logits: -logits[:, 0], LINF, steps=2, step_size=0.08)
    # -logits[0] = x1 - x0: the first pixel falls to 0 (clamped), the second rises by 0.08 and then to the ball's edge.
    assert torch.allclose(found.flatten(), torch.tensor([0.0, 0.6]))


@BOTH
def test_starting_noise_is_in_the_ball_and_repeats(threat):
    x = torch.full((2000, 1, 4, 4), 0.5)
    first, second = (starting_noise(x, threat, "uniform", generator(1, "noise")) for _ in range(2))
    assert torch.equal(first, second)
    if threat.norm == "linf":
        assert first.abs().max() <= threat.eps
        assert first.std() == pytest.approx(threat.eps / 3**0.5, rel=0.02)
    else:
        radius = l2_norm(first)
        assert radius.max() <= threat.eps + 1e-6
        # Uniform in a ball of dimension 16: P(radius < r) = (r / eps)^16.
        assert (radius < 0.95 * threat.eps).float().mean() == pytest.approx(0.95**16, abs=0.04)


@BOTH
def test_projection_returns_points_of_the_ball_unchanged(threat):
    x = torch.rand(8, 1, 4, 4, generator=generator(0, "x"))
    inside = project(x, x + starting_noise(x, threat, "uniform", generator(0, "n")), threat)
    assert torch.allclose(project(x, inside, threat), inside, atol=1e-7)
    assert torch.equal(project(x, x, threat), x)


@pytest.mark.parametrize("fails", [False, True])
def test_model_is_put_back_whatever_happens(fails):
    model = build_model({"name": "convnet", "width": 4}, (1, 8, 8), 10).train()
    model.stem[1].eval()
    model.classifier.weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def objective(images, logits):
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not any(module.training for module in model.modules())
        if fails:
            raise RuntimeError("in the middle of an attack")
        return logits.sum(1)

    x = torch.rand(2, 1, 8, 8)
    if fails:
        with pytest.raises(RuntimeError, match="middle"):
            pgd(model, x, objective, LINF, steps=1, step_size=0.1)
    else:
        pgd(model, x, objective, LINF, steps=1, step_size=0.1)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
