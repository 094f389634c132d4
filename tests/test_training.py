"""The training step: inner maximisations, cache against live teacher, determinism."""

from __future__ import annotations

import copy
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_methods import TOYS

from robust_distillation import methods
from robust_distillation.attacks.core import pgd, starting_noise
from robust_distillation.cache.fill import fill_cache
from robust_distillation.cache.store import CachedValues, cache_key
from robust_distillation.data.dataset import load
from robust_distillation.data.views import ViewScheme, epoch_order
from robust_distillation.errors import UserError
from robust_distillation.methods import TEACHER
from robust_distillation.models.checkpoint import build_model, weights_digest
from robust_distillation.models.frozen import frozen
from robust_distillation.models.output import output
from robust_distillation.randomness import generator
from robust_distillation.settings import ThreatModel, Training
from robust_distillation.training.batches import batches
from robust_distillation.training.divergence import Diverged
from robust_distillation.training.loop import train
from robust_distillation.training.parallel import Group
from robust_distillation.training.schedule import learning_rate
from robust_distillation.training.step import BatchStep
from robust_distillation.training.teacher import Teacher
from robust_distillation.training.trainer import Trainer, build_own

CPU = torch.device("cpu")
THREAT = ThreatModel(eps=0.15)
SCHEME = ViewScheme(1, False)
SETTINGS = Training.model_validate(
    {
        "epochs": 3,
        "batch_size": 32,
        "learning_rate": 0.05,
        "weight_decay": 5e-4,
        "milestones": [2],
        "inner_attack": {"steps": 3, "step_size": 0.05},
        "selection": {"steps": 2},
    }
)
OPTIONS = {name: {"negatives": 16, "dimension": 8} for name in ("crd", "gacd")}
OPTIONS["lbgat"] = {"natural": {"name": "convnet", "width": 4}}
OPTIONS["saad"] = {"entropy_scale": 50_000.0}  # the teachers here are untrained: their entropies hardly differ
OPTIONS["ciard"] = {"begin": 1}  # so that the teacher is trained
CLEAN = ("natural", "kd", "crd", "ckd", "tald")
OWN_ATTACK = ("cgard", "fgsm_pgi")  # do not call step.attack
SINGLE_STEP = ("fgsm_rs", "n_fgsm")
ADVERSARIAL = [name for name in methods.names() if name not in (*CLEAN, *OWN_ATTACK)]
DISTILLED = [name for name in methods.names() if methods.get(name)().teachers()]


@pytest.fixture(scope="module")
def data():
    return load("digits", "train").first(160)


def network(width: int, seed: int, dtype=torch.float32):
    return build_model({"name": "convnet", "width": width}, (1, 8, 8), 10, seed).to(dtype)


def method_named(name: str) -> methods.Method:
    return (TOYS.get(name) or methods.get(name))(**OPTIONS.get(name, {}))


def live_teachers(method: methods.Method, dtype=torch.float32) -> dict[str, Teacher]:
    """A network for each role, which also answers for clean views."""
    return {role: Teacher(network(8, 2 + number, dtype)) for number, role in enumerate(method.teachers())}


def trainer_of(
    name: str,
    data,
    teachers=None,
    dtype=torch.float32,
    seed: int = 0,
    settings=SETTINGS,
    device=CPU,
    prepare=None,
    group=None,
) -> Trainer:
    method = method_named(name)
    model = network(4, 1, dtype).to(device)
    model = prepare(model) if prepare else model
    widths = dict.fromkeys(method.teachers(), 16)
    copies = {role: network(8, 2, dtype) for role, calls in method.teachers().items() if calls.trained}
    architecture = {"name": "convnet", "width": 4}
    own = build_own(method, data, model, seed, architecture, widths, copies).to(device, dtype)
    teachers = live_teachers(method, dtype) if teachers is None else teachers
    for teacher in teachers.values():
        if teacher.network is not None:
            teacher.network.to(device)
    return Trainer(model, method, settings, THREAT, seed, own, teachers, group or Group())


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.slow
def test_inner_maximisation_raises_its_objective_in_the_ball(name, data):
    """On a half-trained student, so that the loss surface is that of training."""
    trainer = trainer_of(name, data)
    for batch in batches(data, SCHEME, SETTINGS, 0, 1, CPU):
        trainer.step(batch)
    asked, x = [], batch.x

    class Observed(BatchStep):
        def attack(self, objective, *args, **changes):
            asked.append((objective, args))
            return super().attack(objective, *args, **changes)

    Observed(trainer, batch).evaluate()
    [(objective, args)] = asked

    def attacked(steps):
        noise = starting_noise(x, THREAT, "uniform", generator(0, "attack"))
        return pgd(trainer.student, x, objective, THREAT, steps=steps, step_size=0.04, noise=noise, objective_args=args)

    begun, found = attacked(0), attacked(10)
    assert (found - x).abs().max() <= THREAT.eps + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    with frozen(trainer.student), torch.no_grad():
        end, start, clean = (objective(images, trainer.student(images), *args) for images in (found, begun, x))
    assert (end > start).all()
    assert (end > clean).all()


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.slow
def test_training_lowers_the_loss(name, data):
    trainer = trainer_of(name, data)
    fixed = next(iter(batches(data, SCHEME, SETTINGS, 0, 1, CPU)))
    trainer.student.train()
    losses = [float(trainer.step(fixed)["loss"]) for _ in range(12)]
    assert losses[-1] < losses[0]


@pytest.fixture(scope="module")
def caches(data, tmp_path_factory):
    """A float64 teacher and the cache of all that methods ask of it."""
    teacher = network(8, 2, torch.float64).eval()
    folder, values = tmp_path_factory.mktemp("cache"), {}
    for kind in ("logits", "features"):
        key = cache_key("teacher", data.digest(), SCHEME, kind)
        fill_cache(folder / f"{kind}.npy", key, teacher, data, SCHEME, kind)
        values[kind] = CachedValues(folder / f"{kind}.npy", key)
    return teacher, values


@pytest.mark.parametrize("name", DISTILLED)
@pytest.mark.slow
def test_five_steps_from_the_cache_equal_five_with_the_live_teacher(name, data, caches):
    model, values = caches
    roles, ends = method_named(name).teachers(), []
    for teacher in (Teacher(model), Teacher(model, **values)):
        trainer = trainer_of(name, data, dict.fromkeys(roles, teacher), torch.float64)
        trainer.student.train()
        for batch in batches(data, SCHEME, SETTINGS, 0, 1, CPU):
            trainer.step(replace(batch, x=batch.x.double()))
        assert batch.number == 4
        ends.append(trainer.module.state_dict())
    start = trainer_of(name, data, dtype=torch.float64).student.state_dict()
    assert (ends[0]["student.classifier.weight"] - start["classifier.weight"]).abs().max() > 1e-3  # it did learn
    for key, tensor in ends[0].items():
        assert torch.allclose(tensor.double(), ends[1][key].double(), rtol=0, atol=1e-9), key


def test_cache_equals_the_teacher_on_the_augmented_image(data, tmp_path):
    """Single images through the teacher against what one pass in large batches stored."""
    teacher = network(8, 2).eval()
    expected = {}
    for kind in ("logits", "features"):
        key = cache_key("teacher", data.digest(), SCHEME, kind)
        fill_cache(tmp_path / f"{kind}.npy", key, teacher, data, SCHEME, kind)
        expected[kind] = CachedValues(tmp_path / f"{kind}.npy", key)
    index = torch.randint(len(data), (200,), generator=generator(0, "index"))
    views = torch.randint(len(SCHEME), (200,), generator=generator(0, "view"))
    stored = {kind: values(index, views) for kind, values in expected.items()}
    for i in range(200):
        x = data.views(SCHEME, index[i : i + 1], views[i : i + 1])
        with torch.no_grad():
            live = output(teacher, x)
        assert torch.allclose(stored["logits"][i], live.logits[0], rtol=0, atol=1e-5)
        assert torch.allclose(stored["features"][i], live.features[0], rtol=0, atol=1e-5)
        assert stored["logits"][i].argmax() == live.logits[0].argmax()
    assert stored["logits"].dtype == torch.float32


def test_cache_of_something_else_is_refused(data, tmp_path):
    key = cache_key("teacher", data.digest(), SCHEME, "logits")
    fill_cache(tmp_path / "logits.npy", key, network(8, 2), data, SCHEME, "logits")
    for other in ({**key, "teacher": "another"}, {**key, "data": "another"}, {**key, "padding": 2}):
        with pytest.raises(UserError, match="belongs to another"):
            CachedValues(tmp_path / "logits.npy", other)


def test_cache_is_read_where_it_lies_and_says_when_that_ends(data, tmp_path):
    key = cache_key("teacher", data.digest(), SCHEME, "logits")
    fill_cache(tmp_path / "logits.npy", key, network(8, 2), data, SCHEME, "logits")
    values = CachedValues(tmp_path / "logits.npy", key)
    stored = np.load(tmp_path / "logits.npy")
    index, views = torch.tensor([159, 0, 7]), torch.tensor([8, 0, 3])
    assert torch.equal(values(index, views), torch.from_numpy(stored[[159 * 9 + 8, 0, 7 * 9 + 3]]))
    os.truncate(tmp_path / "logits.npy", 1000)  # as a file that is overwritten, or a disk that is gone
    with pytest.raises(UserError, match=r"is shorter than it was\. Is its disk still there\?"):
        values(index, views)


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.names())
def test_same_seed_same_weights_and_another_seed_others(name, data):
    def run(seed):
        torch.manual_seed(torch.seed() % 1000)  # no hidden state: the global generator must not matter
        trainer = trainer_of(name, data, seed=seed)
        progress = train(trainer, data, data.first(40), SCHEME, CPU)
        return weights_digest(progress.best), weights_digest(trainer.student.state_dict()), progress.counts.metrics

    assert run(0) == run(0)
    assert run(0)[1] != run(1)[1]


def test_best_is_the_highest_validation_accuracy_under_attack(data):
    validation = load("digits", "validation").first(60)
    counts = train(trainer_of("sat", data), data, validation, SCHEME, CPU).counts
    scores = [(line["selection_robust"], line["selection_clean"]) for line in counts.metrics]
    assert counts.best_epoch == 1 + scores.index(max(scores))
    assert [line["learning_rate"] for line in counts.metrics] == pytest.approx([0.05, 0.05, 0.005])


def test_learning_rate_falls_after_each_milestone():
    settings = SETTINGS.model_copy(update={"epochs": 300, "milestones": [215, 260, 285], "learning_rate": 0.1})
    rates = {epoch: learning_rate(settings, epoch) for epoch in (1, 215, 216, 260, 261, 285, 286, 300)}
    expected = {1: 0.1, 215: 0.1, 216: 0.01, 260: 0.01, 261: 1e-3, 285: 1e-3, 286: 1e-4, 300: 1e-4}
    assert rates == pytest.approx(expected)


def test_training_leaves_the_teacher_alone(data):
    teacher = network(8, 2).train()
    before = copy.deepcopy(teacher.state_dict())
    trainer = trainer_of("adaad", data, {TEACHER: Teacher(teacher)})
    trainer.step(next(iter(batches(data, SCHEME, SETTINGS, 0, 1, CPU))))
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_diverging_training_names_the_step_and_its_images(data):
    trainer = trainer_of("sat", data)
    real = trainer.step

    def step(batch):
        means = real(batch)
        return {**means, "loss": means["loss"] * float("nan")} if (batch.epoch, batch.number) == (2, 3) else means

    trainer.step = step
    images = epoch_order(0, 2, len(data)).split(32)[3][:8].tolist()
    with pytest.raises(Diverged) as raised:
        train(trainer, data, data.first(40), SCHEME, CPU)
    named = f"the loss is nan in epoch 2, step 3 (training images {', '.join(map(str, images))} and 24 more). Lower"
    assert str(raised.value).startswith(named)
    assert [line["epoch"] for line in raised.value.metrics] == [1]


def test_weights_that_the_last_update_of_an_epoch_made_infinite_are_not_looked_at(data):
    """Checks that the epoch whose last update did it is neither logged nor recorded."""
    trainer = trainer_of("sat", data)
    real, last = trainer.step, -(-len(data) // SETTINGS.batch_size) - 1

    def step(batch):
        means = real(batch)
        if (batch.epoch, batch.number) == (2, last):
            torch.nn.init.constant_(trainer.student.classifier.bias, float("inf"))
        return means

    trainer.step = step
    with pytest.raises(Diverged, match=f"classifier.bias .* is not finite after epoch 2, step {last + 1}. ") as raised:
        train(trainer, data, data.first(40), SCHEME, CPU)
    assert [line["epoch"] for line in raised.value.metrics] == [1]
