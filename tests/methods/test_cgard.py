"""CGARD-style: its loss, and its search with both networks' gradients, against numpy and central differences."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from formulas import ce, close, kl, numeric_gradient
from tabulated import Tabulated, check_loss, example
from test_training import SETTINGS, THREAT, data, live_teachers, network, trainer_of  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.errors import UserError
from robust_distillation.losses import cross_entropy
from robust_distillation.methods import TEACHER
from robust_distillation.models.output import Output
from robust_distillation.settings import ThreatModel, Training
from robust_distillation.training.batches import Batch
from robust_distillation.training.step import BatchStep
from robust_distillation.training.trainer import Trainer

CGARD = methods.get("cgard")
NAMES = ("adversarial", "teacher_adversarial", "teacher_mirrored")

# --- the loss ---


def outer(z, alpha=0.7, **_):
    """The teacher at x'_T stands in the table of the mirrored images."""
    found = (1 - alpha) * kl(z.adversarial, z.teacher_mirrored) + alpha * kl(z.adversarial, z.teacher_adversarial)
    return np.zeros(len(found)), found


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", [{}, {"alpha": 0.2}, {"alpha": 1.0}, {"alpha": 0.0, "constrained": False}])
def test_loss_and_its_gradient(settings, kl_scale, classes, monkeypatch):
    z, y = example(classes, names=NAMES)
    step = Tabulated(z, y)
    monkeypatch.setattr(CGARD, "_search", lambda self, step: (step.adversarial, -step.adversarial))
    check_loss(CGARD(**settings), step, lambda z, _: outer(z, **settings), classes, kl_scale)
    assert step.asked == ["adversarial", "teacher_mirrored", "teacher_adversarial"]
    assert step.moved == []


# --- the search ---

EPS, SIZE, STEPS, SHAPE = 0.1, 0.04, 3, (5, 1, 2, 3)


class Small:
    """Two networks of two layers, answered in numpy and in torch; a step that keeps what the search climbs along."""

    def __init__(self, seed, constrained_on=None):
        rng = np.random.default_rng(seed)
        self.weights = {name: (rng.normal(size=(6, 8)), rng.normal(size=(8, 4))) for name in ("student", "teacher")}
        self.x, self.y = rng.uniform(0.2, 0.8, size=SHAPE), rng.integers(4, size=SHAPE[0])
        self.noise = [0.05 * rng.normal(size=SHAPE) for _ in range(2)]
        self.climbed, draws = [], iter([*self.noise])
        self.step = SimpleNamespace(
            x=torch.tensor(self.x),
            targets=torch.tensor(self.y),
            labels=torch.tensor(self.y),
            inner=SimpleNamespace(steps=STEPS, step_size=SIZE, mode="eval", project_start=False),
            starting_noise=lambda: torch.tensor(next(draws)),
            student=lambda x: self.asked(x, "student"),
            teacher={TEACHER: lambda x: self.asked(x, "teacher")},
            cached=lambda: self.asked(torch.tensor(self.x), "teacher"),
            ascend=self.ascend,
        )

    def answer(self, x, name):
        first, second = self.weights[name]
        return np.tanh(x.reshape(len(x), -1) @ first) @ second

    def asked(self, x, name):
        first, second = map(torch.tensor, self.weights[name])
        return Output((x.flatten(1) @ first).tanh() @ second)

    def ascend(self, images, gradient):
        self.climbed.append((images.detach().numpy().copy(), gradient.numpy()))
        return torch.tensor(self.moved(images.detach().numpy(), gradient.numpy()))

    def moved(self, images, gradient):
        return np.clip(np.clip(images + SIZE * np.sign(gradient), self.x - EPS, self.x + EPS), 0, 1)

    def distance(self, own, its):
        student, teacher = self.answer(own, "student"), self.answer(its, "teacher")
        return (kl(student, teacher) + kl(teacher, student)) / 2

    def searched(self, constrained=True):
        """x'_S and x'_T by central differences, and how often an image was set back."""
        own, its = (self.x + noise for noise in self.noise)
        back = []
        for _ in range(STEPS):
            pair = [
                numeric_gradient(lambda a=own, b=its: self.distance(a, b).sum(), image, 1e-4) for image in (own, its)
            ]
            own, its = (self.moved(image, gradient) for image, gradient in zip((own, its), pair, strict=True))
            worse = ce(self.answer(its, "teacher"), self.y) > ce(self.answer(self.x, "teacher"), self.y)
            back.append(worse)
            if constrained:
                its = np.where(worse[:, None, None, None], self.x, its)
        return own, its, np.array(back)


@pytest.mark.parametrize("seed", range(3))
def test_the_search_climbs_through_both_networks(seed):
    """Its gradients in both images, against central differences of the objective."""
    small = Small(seed)
    CGARD()._search(small.step)
    assert len(small.climbed) == 2 * STEPS
    for (own, along), (its, across) in zip(small.climbed[::2], small.climbed[1::2], strict=True):
        for image, gradient in ((own, along), (its, across)):
            expected = numeric_gradient(lambda a=own, b=its: small.distance(a, b).sum(), image, 1e-4)
            close(gradient, expected, 1e-6)
            assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_images_of_the_search(seed, constrained):
    small = Small(seed)
    own, its = CGARD(constrained=constrained)._search(small.step)
    expected_own, expected_its, back = small.searched(constrained)
    close(own, expected_own, 1e-12)
    close(its, expected_its, 1e-12)
    assert back.any()
    assert not back.all()
    if constrained:
        assert (its[torch.tensor(back[-1])] == small.step.x[torch.tensor(back[-1])]).all()
        worse = ce(small.answer(its.numpy(), "teacher"), small.y) - ce(small.answer(small.x, "teacher"), small.y)
        assert (worse <= 1e-12).all()


def test_the_start_is_projected_where_the_setting_says_so():
    """Checks that a step without a gradient comes first, so that the first gradients are taken inside of the ball."""
    small = Small(0)
    small.noise[0] *= 5
    small.step.inner.project_start = True
    CGARD()._search(small.step)
    assert len(small.climbed) == 2 * STEPS + 2
    for number in range(2):
        images, gradient = small.climbed[number]
        assert (gradient == 0).all()
        close(images, small.x + small.noise[number])
        close(small.climbed[number + 2][0], np.clip(images, small.x - EPS, small.x + EPS).clip(0, 1))
    assert np.abs(small.noise[0]).max() > EPS


def test_the_constraint_changes_the_teachers_images_at_once_and_the_students_later():
    with_it, without = ([*Small(0).searched(constrained)] for constrained in (True, False))
    assert not np.array_equal(with_it[1], without[1])


def trainer_with(settings=SETTINGS, threat=THREAT, **options):
    method = CGARD(**options)
    return Trainer(network(4, 1), method, settings, threat, 0, teachers=live_teachers(method))


def some_images(size=6):
    x = torch.rand(size, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    index = torch.arange(size)
    return Batch(x, index % 10, index, torch.zeros(size, dtype=torch.long), 1, 0, 1)


def kl_of(q, p):
    return (q.softmax(1) * (q.log_softmax(1) - p.log_softmax(1))).sum(1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("size", [6, 1])
def test_on_real_networks(norm, size):
    """Both images in the ball, each other's better than noise; the teacher is never worse at its image than at x."""
    threat = ThreatModel(norm=norm, eps=0.15 if norm == "linf" else 0.5)
    trainer = trainer_with(threat=threat)
    step = BatchStep(trainer, some_images(size))
    own, its = trainer.method._search(step)
    teacher, student = trainer.teachers[TEACHER].network, trainer.student.eval()
    for images in (own, its):
        length = (images - step.x).abs().amax() if norm == "linf" else (images - step.x).flatten(1).norm(dim=1).amax()
        assert length <= threat.eps + 1e-6
        assert images.min() >= 0
        assert images.max() <= 1
        assert not images.requires_grad
    assert not torch.equal(own, its)
    with torch.no_grad():
        at_its, clean = (cross_entropy(teacher(images), step.labels) for images in (its, step.x))
        assert (at_its <= clean + 1e-6).all()
        start = BatchStep(trainer, some_images(size))
        noise = [start.ascend(start.x + start.starting_noise(), torch.zeros_like(start.x)) for _ in range(2)]
        pairs = [(student(a), teacher(b)) for a, b in ((own, step.x), (noise[0], step.x))]
        found, before = (kl_of(s, t) + kl_of(t, s) for s, t in pairs)
        assert (found > before).float().mean() > 0.5


@pytest.mark.parametrize("start", ["gaussian", "uniform"])
def test_each_image_starts_from_noise_of_its_own(start):
    settings = SETTINGS.model_dump() | {"inner_attack": {"steps": 1, "step_size": 1e-9, "start": start}}
    trainer = trainer_with(Training.model_validate(settings), constrained=False)
    step = BatchStep(trainer, some_images())
    own, its = trainer.method._search(step)
    assert (own - its).abs().mean() > 1e-4
    assert (own - step.x).abs().max() > 1e-4


def test_batch_norm_in_train_mode_is_refused():
    settings = SETTINGS.model_dump()
    settings["inner_attack"] |= {"mode": "train"}
    with pytest.raises(UserError, match=r"cgard: .*inner_attack\.mode"):
        trainer_with(Training.model_validate(settings)).step(some_images())


def test_without_the_constraint_no_label_and_no_clean_output_is_used():
    method = CGARD(constrained=False)
    assert method.cached == ()
    assert not method.needs_labels()
    small = Small(0)
    del small.step.targets, small.step.labels, small.step.cached
    method._search(small.step)
    assert CGARD().cached == ((TEACHER, "logits"),)
    assert CGARD().needs_labels()
    assert CGARD.official(10, "resnet") is None


@pytest.mark.parametrize(
    "settings", [{"alpha": 1.2}, {"alpha": -0.1}, {"constrained": "yes"}, {"beta": 1.0}, {"alpha": float("nan")}]
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match="validation error"):
        CGARD(**settings)
