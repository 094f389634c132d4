"""TALD-style: its particles and its loss against numpy, and its step against the released code.

`step_of_tald` is one iteration of the loop in the authors' repository (PotatoThanh/Adversarial-local-distribution-
regularization-for-knowledge-distillation, attack_ALD.py and helper/loops_lossald.py, `--distill kd`), on images in
[0,1]: its distances are multiplied by the mean standard deviation by which its images are divided.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import ce, close, kl, log_softmax, numeric_gradient
from released import SEED, Case, Code, Pair, experiment_of, images
from tabulated import check_loss

from robust_distillation import methods
from robust_distillation.methods import TEACHER
from robust_distillation.methods.tald import stein
from robust_distillation.models.output import Output
from robust_distillation.randomness import generator
from robust_distillation.training import schedule

TALD = methods.get("tald")
SCALE = 0.2667  # (0.2675 + 0.2565 + 0.2761) / 3, rounded

# --- the loss ---


class Near:
    """A step whose networks answer from tables: the student for all x' and x, the teacher for x' and for x."""

    def __init__(self, z, y, epoch=1):
        self.z, self.outputs, self.asked = z, {}, []
        self.labels = self.targets = torch.tensor(y)
        self.rows, self.total, self.x = slice(0, len(y)), len(y), torch.zeros(len(y), 1, 2, 2).double()
        self.teacher = {TEACHER: lambda x: self.answer("near", x)}

    def answer(self, name, x, trained=False):
        self.asked.append(name)
        assert len(x) == len(getattr(self.z, name))
        self.outputs[name] = Output(torch.tensor(getattr(self.z, name), requires_grad=trained))
        return self.outputs[name]

    def student(self, x, *, train):
        assert train
        return self.answer("student", x, trained=True)

    def cached(self):
        return Output(torch.tensor(self.z.teacher))

    def once(self, make):
        return make()


def tables(classes, size=8, images=3, particles=2):
    rng = np.random.default_rng(0)
    near = particles * min(images, size)
    shapes = {"student": near + size, "teacher": size, "near": near}
    z = {name: 1.5 * rng.normal(size=(rows, classes)) for name, rows in shapes.items()}
    return SimpleNamespace(**z), rng.integers(classes, size=size)


def outer(z, y, images=3, particles=2, gamma=0.1, alpha=0.9, beta=0.01, temperature=4.0):
    near = len(z.near)
    labels = np.concatenate([np.tile(y[:images], particles), y])
    logits = z.student[near:]
    squares = (ce(z.student, labels) - ce(np.concatenate([z.near, z.teacher]), labels)) ** 2
    plain = gamma * ce(logits, y).mean() + beta * squares.mean()
    return plain, alpha * temperature**2 * kl(logits, z.teacher, temperature)


SMALL = {"images": 3, "particles": 2}


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        SMALL | {"beta": 2.0},
        SMALL | {"gamma": 0.0, "alpha": 0.0, "beta": 1.0},
        SMALL | {"gamma": 1.0, "alpha": 0.3, "temperature": 2.0},
        {"images": 1, "particles": 1, "beta": 1.0},
        {"images": 20, "particles": 3, "beta": 1.0},
    ],
)
def test_loss_and_its_gradient(settings, kl_scale, classes, monkeypatch):
    z, y = tables(classes, images=settings["images"], particles=settings["particles"])
    made = torch.zeros(len(z.near), 1, 2, 2).double()
    monkeypatch.setattr(TALD, "_particles", lambda self, step, here, first: made)
    step = Near(z, y)
    check_loss(TALD(**settings), step, lambda z, _: outer(z, y, **settings), classes, kl_scale)
    assert step.asked == ["student", "near"]


def test_the_squares_of_particles_are_added_to_those_of_their_image(monkeypatch):
    z, y = tables(10)
    made = torch.zeros(len(z.near), 1, 2, 2).double()
    monkeypatch.setattr(TALD, "_particles", lambda self, step, here, first: made)
    _, _, distribution = TALD(**SMALL).loss(Near(z, y))
    expected = (ce(z.student[6:], y) - ce(z.teacher, y)) ** 2
    for image in range(3):
        for row in (image, 3 + image):
            expected[image] += (ce(z.student[[row]], y[[image]]) - ce(z.near[[row]], y[[image]]))[0] ** 2
    close(distribution.values, expected * 8 / 14)


def test_without_particles_weight_the_loss_is_kds(monkeypatch):
    z, y = tables(10)
    made = torch.zeros(len(z.near), 1, 2, 2).double()
    monkeypatch.setattr(TALD, "_particles", lambda self, step, here, first: made)
    cross_entropy, distillation, distribution = TALD(**SMALL, beta=0.0).loss(Near(z, y))
    student = Output(torch.tensor(z.student[len(z.near) :]))
    step = SimpleNamespace(x=None, targets=torch.tensor(y), student=lambda x, train: student, cached=Near(z, y).cached)
    for ours, theirs in zip((cross_entropy, distillation), methods.get("kd")().loss(step), strict=True):
        assert torch.equal(ours.values, theirs.values)
        assert (ours.weight, ours.divergence) == (theirs.weight, theirs.divergence)
    assert distribution.weight == 0.0


# --- the particles ---


def random_units(rows, width=60, seed=0):
    draws = torch.rand(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    return draws / draws.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("width", [192, 3072])
def test_the_narrow_kernel_is_the_identity(width):
    """At the authors' width, 10^(1-4), no particle feels another: exactly, in double precision."""
    d = random_units(40, width)
    scores = torch.randn(40, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.equal(stein(d, d, scores, 1e-3), scores / 40)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_a_wide_kernel_against_its_definition(sigma):
    d, scores = random_units(7).numpy(), np.random.default_rng(2).normal(size=(7, 60))
    expected = np.zeros_like(d)
    for i in range(7):
        for j in range(7):
            other = d[j].copy()

            def kernel(i=i, other=other):
                return np.exp(-((d[i] - other) ** 2).sum() / (2 * sigma**2 + 1e-8))

            expected[i] += (kernel() * scores[j] + numeric_gradient(kernel, other)) / 7
    rows = [1, 4]
    found = stein(torch.tensor(d[rows]), torch.tensor(d), torch.tensor(scores), sigma)
    close(found, expected[rows], 1e-6)


def test_particles_repel_each_other():
    d = random_units(2)
    first, second = stein(d, d, torch.zeros_like(d), 1.0)
    assert (first @ (d[0] - d[1])) > 0
    close(first, -second, 1e-12)


def length_one(v):
    v = v / (np.abs(v).max(-1, keepdims=True) + 1e-12)
    return v / np.sqrt((v**2).sum(-1, keepdims=True) + 1e-6)


class Small:
    """A teacher of two layers on images of 6 pixels, answered in numpy and in torch, and a step around it."""

    def __init__(self, size=4, particles=3):
        rng = np.random.default_rng(0)
        self.weights = 2 * rng.normal(size=(6, 8)), rng.normal(size=(8, 5))
        self.x, self.draws = rng.uniform(0.3, 0.7, size=(size, 1, 2, 3)), rng.uniform(size=(size, particles, 1, 2, 3))
        self.step = SimpleNamespace(
            x=torch.tensor(self.x),
            uniform=lambda *shape, dtype: torch.tensor(self.draws),
            teacher={TEACHER: self.asked},
            cached=lambda: self.asked(torch.tensor(self.x)),
            gather=lambda values: values,
        )

    def asked(self, x):
        first, second = map(torch.tensor, self.weights)
        return Output((x.flatten(1) @ first).tanh() @ second)

    def soft(self, x):
        first, second = self.weights
        return np.exp(log_softmax(np.tanh(x.reshape(len(x), -1) @ first) @ second))

    def expected(self, rows, probe, radius, sigma):
        """x' of each of the first `rows` images and each draw, the draws one after the other."""
        particles = self.draws.shape[1]
        x = np.concatenate([self.x[:rows]] * particles)
        d = np.concatenate([self.draws[:rows, n] for n in range(particles)]).reshape(len(x), -1) - 0.5
        d = length_one(d)

        def distance():
            return ((self.soft(x.reshape(len(x), -1) + probe * d) - self.soft(x)) ** 2).mean()

        score = numeric_gradient(distance, d)
        path = np.zeros_like(d)
        for i in range(len(d)):
            for j in range(len(d)):
                k = np.exp(-((d[i] - d[j]) ** 2).sum() / (2 * sigma**2 + 1e-8))
                path[i] += (k * score[j] + 2 / (2 * sigma**2 + 1e-8) * (d[i] - d[j]) * k) / len(d)
        return x + radius * length_one(path).reshape(x.shape)


@pytest.mark.parametrize(
    "settings", [{}, {"sigma": 0.8}, {"sigma": 30.0}, {"probe": 0.5, "radius": 0.05}, {"sigma": 1.5, "radius": 0.1}]
)
@pytest.mark.parametrize("rows", [1, 3, 4])
def test_particles_against_central_differences(rows, settings):
    """The teacher's gradient at the probe, the kernel, the length of the path, the order of the images."""
    small = Small()
    method = TALD(images=rows, particles=3, **settings)
    found = method._particles(small.step, rows, rows)
    expected = small.expected(rows, method.probe, method.radius, method.sigma)
    assert not found.requires_grad
    x = np.concatenate([small.x[:rows]] * 3)
    path, expected = ((images - x) / method.radius for images in (found.numpy(), expected))
    close(path, expected, 1e-5)
    close(np.sqrt((path**2).sum((1, 2, 3))), np.ones(3 * rows), 1e-5)


def test_particles_stay_in_the_pixel_range():
    small = Small()
    small.step.x = small.step.x.round()
    found = TALD(images=4, particles=3, radius=1.0)._particles(small.step, 4, 4)
    assert found.min() == 0
    assert found.max() == 1


def test_a_process_makes_the_particles_of_its_own_rows():
    """Two processes: the second has no first image and makes none; the first needs nothing of the second."""
    small = Small()
    whole = TALD(images=2, particles=3, sigma=1.0)._particles(small.step, 2, 2)
    gathered = []

    def gather(values):
        gathered.append(values)
        return torch.cat([values, torch.zeros(2, *values.shape[1:], dtype=values.dtype)])

    first = Small()
    first.step.gather = gather
    first.step.x, first.draws, first.x = small.step.x[:2], small.draws[:2], small.x[:2]
    close(TALD(images=2, particles=3, sigma=1.0)._particles(first.step, 2, 2), whole, 1e-12)
    second, of_all = Small(), iter(gathered)
    second.step.gather = lambda values: next(of_all)
    assert len(TALD(images=2, particles=3)._particles(second.step, 0, 2)) == 0


# --- the released code ---


def unit_as_released(d):
    largest = d.abs().flatten(1).max(1)[0].view(-1, 1, 1, 1)
    d = d / (1e-12 + largest)
    return d / torch.sqrt(1e-6 + d.pow(2).sum((1, 2, 3), keepdim=True))


def particles_as_released(code: Code, x, epoch: int, step: int, n: int = 4):
    draws = torch.rand(len(x), n, *x.shape[1:], generator=generator(SEED, "method", epoch, step), dtype=x.dtype)
    first = x[:10].repeat(n, 1, 1, 1)
    d = unit_as_released(torch.cat([draws[:10, number] for number in range(n)]).sub(0.5))
    with torch.no_grad():
        target = code.teacher(first)
    d = d.detach().requires_grad_()
    distance = F.mse_loss(F.softmax(code.teacher(first + 10.0 * SCALE * d), 1), F.softmax(target, 1))
    [score] = torch.autograd.grad(distance.sum(), [d])
    flat, score = d.reshape(len(first), -1), score.reshape(len(first), -1)
    fixed = flat.detach()
    squares = -2 * flat.matmul(fixed.t())
    squares = squares + flat.matmul(flat.t()).diag().unsqueeze(1) + fixed.matmul(fixed.t()).diag().unsqueeze(0)
    sigma = 10 ** int(1 - n)
    kernel = (-1.0 / (1e-8 + 2 * sigma**2) * squares).exp()
    repulsion = -torch.autograd.grad(kernel.sum(), flat)[0]
    path = (kernel.detach().matmul(score) + repulsion) / len(first)
    return (first + 0.0005 * SCALE * unit_as_released(path.reshape(first.shape))).clamp(0, 1).detach()


def step_of_tald(code: Code, x, y, epoch: int, step: int):
    code.student.train()
    near = particles_as_released(code, x, epoch, step)
    whole, labels = torch.cat([near, x]), torch.cat([y[:10].repeat(4), y])
    student = code.student(whole)
    with torch.no_grad():
        teacher = code.teacher(whole)
    theirs = F.cross_entropy(teacher, labels, reduction="none").detach()
    gap = F.mse_loss(F.cross_entropy(student, labels, reduction="none"), theirs)
    logits, soft = student[len(near) :], teacher[len(near) :]
    distance = F.kl_div(F.log_softmax(logits / 4, dim=1), F.softmax(soft / 4, dim=1), reduction="sum") * 16 / len(x)
    loss = 0.1 * F.cross_entropy(logits, y) + 0.9 * distance + 0.01 * gap
    code.update(loss)
    return near, loss


CASE = Case("tald", step_of_tald, "cifar100", code={"learning_rate": 0.05, "weight_decay": 5e-4})


def pair_of(dtype, monkeypatch) -> Pair:
    pair = Pair(CASE, "resnet", {"width": 4}, dtype, monkeypatch)
    real = TALD._particles

    def observed(self, *args):
        pair.found.append(real(self, *args))
        return pair.found[-1]

    monkeypatch.setattr(TALD, "_particles", observed)
    return pair


@pytest.mark.parametrize("size", [14, 6])
def test_first_step_in_single_precision(size, monkeypatch):
    """x' bit by bit."""
    theirs, their_loss, ours, our_loss = pair_of(torch.float32, monkeypatch).advance(0, size)
    assert len(ours) == 4 * min(size, 10)
    x, _ = images(torch.float32, size, 100, 0)
    assert ((theirs - x[:10].repeat(4, 1, 1, 1)).abs() > 0).float().mean() > 0.5
    assert torch.equal(ours, theirs)
    assert abs(our_loss - their_loss) < 1e-6 * max(1, abs(their_loss))


@pytest.mark.slow
def test_five_steps_in_double_precision(monkeypatch):
    pair = pair_of(torch.float64, monkeypatch)
    for step in range(5):
        theirs, their_loss, ours, our_loss = pair.advance(step, 12)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-15), step
        assert abs(our_loss - their_loss) < 1e-9 * max(1, abs(their_loss)), step
    found = pair.trainer.student.state_dict()
    for key, tensor in pair.code.student.state_dict().items():
        assert torch.allclose(found[key].double(), tensor.double(), rtol=0, atol=1e-9), key


def test_schedule_of_the_released_code():
    training = experiment_of("tald", "cifar100").training_of("tald", "resnet")
    assert (training.epochs, training.batch_size, training.weight_decay) == (240, 64, 5e-4)
    for epoch in range(1, 241):
        rate = 0.05 * 0.1 ** sum(epoch > milestone for milestone in (150, 180, 210))
        assert schedule.learning_rate(training, epoch) == pytest.approx(rate, rel=1e-12), epoch
    assert experiment_of("tald", "cifar100").training_of("tald", "mobilenet_v2").learning_rate == 0.01


def test_distances_are_the_authors_in_units_of_pixels():
    method = TALD()
    mean = (0.2675 + 0.2565 + 0.2761) / 3
    assert method.probe == pytest.approx(10 * mean, rel=1e-3)
    assert method.radius == pytest.approx(0.0005 * mean, rel=1e-3)
    assert method.sigma == 10.0 ** (1 - method.particles)


@pytest.mark.parametrize(
    "settings",
    [{"images": 0}, {"particles": 0}, {"radius": 0.0}, {"probe": -1.0}, {"sigma": 0.0}, {"beta": -0.1}, {"n": 4}],
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match="validation error"):
        TALD(**settings)
