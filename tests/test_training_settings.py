"""Schedules, weight averaging, weight perturbation and label smoothing, against independent statements of each."""

from __future__ import annotations

import copy
from typing import ClassVar

import pytest
import torch
from pydantic import ValidationError
from test_training import CPU, SCHEME, SETTINGS, THREAT, data, network, trainer_of  # noqa: F401 (a fixture)
from torch import nn
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.optim import lr_scheduler

from robust_distillation import methods
from robust_distillation.config import load as load_experiment
from robust_distillation.methods import Method, Term
from robust_distillation.models.checkpoint import build_model
from robust_distillation.settings import Averaging, Schedule, Training, WeightPerturbation
from robust_distillation.training import loop as training_loop
from robust_distillation.training.averaging import build_average, reestimate_statistics
from robust_distillation.training.batches import Batch, batches
from robust_distillation.training.loop import evaluate, train
from robust_distillation.training.schedule import learning_rate
from robust_distillation.training.step import smoothed
from robust_distillation.training.trainer import Trainer

EPOCHS, STEPS = 7, 5


def budget(**changes) -> Training:
    """SETTINGS with other values, which may be nested dicts."""
    return Training.model_validate(SETTINGS.model_dump() | changes)


# Schedules


def linear_warmup(optimizer):
    """Two epochs, from 1/10 to 1 in the tenth step."""
    return lr_scheduler.LinearLR(optimizer, 1 / (2 * STEPS), 1, 2 * STEPS - 1)


SCHEDULES = {
    "multistep": ({"milestones": [3, 5]}, {}, "epoch", lambda o: lr_scheduler.MultiStepLR(o, [3, 5], 0.1)),
    "warmup": ({}, {"warmup": 2.0}, "step", linear_warmup),
    "cosine": ({}, {"name": "cosine"}, "step", lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS)),
    "cosine by epoch": (
        {},
        {"name": "cosine", "per": "epoch", "end": 0.1},
        "epoch",
        lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS, eta_min=0.03),
    ),
    "cosine and warmup": (
        {},
        {"name": "cosine", "warmup": 2.0},
        "step",
        lambda o: lr_scheduler.ChainedScheduler([linear_warmup(o), lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS)]),
    ),
    "cyclic": (
        {},
        {"name": "cyclic"},
        "step",
        lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=EPOCHS * STEPS, cycle_momentum=False),
    ),
    "cyclic by epoch": (
        {},
        {"name": "cyclic", "per": "epoch", "peak": 0.4},
        "epoch",
        lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=EPOCHS, pct_start=0.4, cycle_momentum=False),
    ),
    "linear cycle": (
        {},
        {"name": "cyclic", "anneal": "linear", "start": 0.1, "end": 0.01},
        "step",
        lambda o: lr_scheduler.OneCycleLR(
            o, 0.3, total_steps=EPOCHS * STEPS, div_factor=10, final_div_factor=10, anneal_strategy="linear",
            cycle_momentum=False,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_equals_torchs_over_a_whole_training(name):
    changes, schedule, per, theirs = SCHEDULES[name]
    settings = budget(**{"milestones": []} | changes, epochs=EPOCHS, learning_rate=0.3, schedule=schedule)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3, momentum=0.9)
    scheduler, rates, expected = theirs(optimizer), [], []
    for epoch in range(1, EPOCHS + 1):
        for step in range(STEPS):
            expected.append(optimizer.param_groups[0]["lr"])
            rates.append(learning_rate(settings, epoch, step, STEPS))
            optimizer.step()
            if (per == "step" or step == STEPS - 1) and (epoch, step) != (EPOCHS, STEPS - 1):
                scheduler.step()
    assert rates == pytest.approx(expected, rel=1e-12)
    assert len(set(rates)) > 1


def test_a_triangle_rises_from_0_to_its_peak_and_falls_to_0():
    """Checks the triangular cycle of the single-step codes (fast_adversarial)."""
    cycle = {"name": "cyclic", "anneal": "linear", "start": 0.0, "end": 0.0, "peak": 0.5}
    settings = budget(milestones=[], epochs=1, learning_rate=0.2, schedule=cycle)
    rates = [learning_rate(settings, 1, step, 21) for step in range(21)]
    assert rates[0] == rates[-1] == 0
    assert max(rates) == pytest.approx(0.2, rel=0.1)
    assert sorted(rates[:10]) == rates[:10]
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_the_optimizer_gets_the_rate_of_every_step(data):  # noqa: F811
    trainer = trainer_of("natural", data, settings=budget(milestones=[], schedule={"name": "cosine"}))
    used = []
    for epoch in (1, 2):
        trainer.begin_epoch(epoch)
        for batch in batches(data, SCHEME, trainer.settings, 0, epoch, CPU):
            trainer.step(batch)
            used.append(trainer.optimizers["student"].param_groups[0]["lr"])
    expected = [learning_rate(trainer.settings, epoch, step, 5) for epoch in (1, 2) for step in range(5)]
    assert used == expected
    assert len(set(used)) == 10


# Averages


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def followed(data, averaging: dict):  # noqa: F811
    """The student's weights after every step of three epochs of five steps, and the trainer."""
    trainer = trainer_of("natural", data, dtype=torch.float64, settings=budget(averaging=averaging))
    seen = []
    for epoch in (1, 2, 3):
        trainer.begin_epoch(epoch)
        for batch in batches(data, SCHEME, trainer.settings, 0, epoch, CPU):
            trainer.step(Batch(batch.x.double(), *list(vars(batch).values())[1:]))
            seen.append(weights_of(trainer.student))
    return seen, trainer


def hand_average(values: list[torch.Tensor], decay) -> torch.Tensor:
    """decay(n): of the n-th value after the first."""
    average = values[0]
    for n, value in enumerate(values[1:], 1):
        average = decay(n) * average + (1 - decay(n)) * value
    return average


AVERAGES = {
    "swa": ({"name": "swa"}, [4, 9, 14], lambda n: n / (n + 1)),
    "swa of steps after the first epoch": (
        {"name": "swa", "per": "step", "start": 1}, range(5, 15), lambda n: n / (n + 1),
    ),
    "ema": ({"name": "ema", "decay": 0.7}, range(15), lambda n: 0.7),
    "ema of epochs": ({"name": "ema", "decay": 0.7, "per": "epoch", "start": 1}, [9, 14], lambda n: 0.7),
    "ramp": ({"name": "ema", "decay": 0.5, "ramp": True}, range(15), lambda n: min(0.5, (1 + n) / (10 + n))),
}  # fmt: skip


@pytest.mark.parametrize("batch_norm", ["copy", "average"])
@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_is_that_of_the_weights_by_hand(name, batch_norm, data):  # noqa: F811
    averaging, steps, decay = AVERAGES[name]
    seen, trainer = followed(data, averaging | {"batch_norm": batch_norm})
    assert trainer.averaged_weights == len(steps)
    for key, value in trainer.evaluated.state_dict().items():
        values = [seen[step][key] for step in steps]
        running = "running" in key
        if "num_batches" in key or (running and batch_norm == "copy"):
            assert torch.equal(value, values[-1]), key
        else:
            assert torch.allclose(value, hand_average(values, decay), rtol=1e-12, atol=1e-14), key


def test_the_ramp_begins_at_two_elevenths_and_ends_at_the_decay():
    """After the copy, w = 2 and then 3: 1 -> 2/11 1 + 9/11 2 -> 3/12 of it + 9/12 3."""
    model = nn.Linear(1, 1, bias=False).double()
    average = build_average(model, Averaging(name="ema", decay=0.995, ramp=True))
    found = []
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
        found.append(average.module.weight.item())
    assert found == pytest.approx([1, 20 / 11, 0.25 * 20 / 11 + 0.75 * 3], rel=1e-12)


def test_until_it_starts_the_student_is_evaluated_and_the_checkpoints_say_so(data):  # noqa: F811
    trainer = trainer_of("natural", data, settings=budget(averaging={"name": "swa", "start": 1}))
    assert trainer.evaluated is trainer.student
    progress = train(trainer, data, data.first(20), SCHEME, CPU)
    assert [line["averaged_weights"] for line in progress.counts.metrics] == [0, 1, 2]
    assert trainer.evaluated is trainer.average.module
    assert progress.counts.best_averaged == [0, 1, 2][progress.counts.best_epoch - 1]
    assert not trainer.evaluated.training
    assert not any(parameter.requires_grad for parameter in trainer.evaluated.parameters())


def test_re_estimated_statistics_are_those_of_all_clean_images(data):  # noqa: F811
    """The first layer sees the images themselves, so its mean is that over all pixels of its own output."""
    trainer = trainer_of("natural", data, settings=budget(averaging={"name": "ema", "batch_norm": "reestimate"}))
    train(trainer, data.first(150), data.first(20), SCHEME, CPU)  # four batches of 32 and one of 22
    model = copy.deepcopy(trainer.average.module).double().eval()
    convolution = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    parts = [batch.x for batch in batches(data.first(150), SCHEME, SETTINGS, 0, 3, CPU)]
    outputs = convolution(torch.cat(parts).double())
    assert torch.allclose(norm.running_mean, outputs.mean((0, 2, 3)), atol=1e-6)
    variances = [convolution(part.double()).var((0, 2, 3)) for part in parts]
    expected = sum(len(part) * variance for part, variance in zip(parts, variances, strict=True)) / 150
    assert torch.allclose(norm.running_var, expected, rtol=1e-5)
    before = weights_of(model)
    reestimate_statistics(nn.Linear(2, 2), [])  # a network without batch norm is left alone
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# Weight perturbation


class AtX(Method):
    """CE(S(x), y): no attack, so that the passes are those of the update alone."""

    terms: ClassVar = ("cross_entropy",)

    def loss(self, step):
        logits = step.student(step.x, train=True).logits
        return (Term("cross_entropy", torch_cross_entropy(logits, step.labels, reduction="none")),)


def their_step(model, optimizer, x, y, gamma, variant, proxy_rate=0.01):
    """A step as the authors' codes describe it, restated: a copy of the network is moved by SGD on minus the loss."""
    if variant == "wu2020":
        proxy = copy.deepcopy(model).train()
        mover = torch.optim.SGD(proxy.parameters(), lr=proxy_rate)
        loss = -torch_cross_entropy(proxy(x), y)
        mover.zero_grad()
        loss.backward()
        mover.step()
        old, new = model.state_dict(), proxy.state_dict()
        shifts = {}
        for name, weight in old.items():
            if weight.ndim > 1 and "weight" in name:
                difference = new[name] - weight
                shifts[name] = weight.norm() / (difference.norm() + 1e-20) * difference
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in shifts:
                    parameter.add_(gamma * shifts[name])
        optimizer.zero_grad()
        torch_cross_entropy(model(x), y).backward()
        optimizer.step()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in shifts:
                    parameter.sub_(gamma * shifts[name])
        return
    optimizer.zero_grad()  # ADR's: a first pass that moves batch norm, a second that does not
    torch_cross_entropy(model(x), y).backward()
    old = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(gamma * parameter.norm() * parameter.grad / (parameter.grad.norm() + 1e-20))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    statistics = [weights_of(module) for module in norms]
    optimizer.zero_grad()
    torch_cross_entropy(model(x), y).backward()
    for module, values in zip(norms, statistics, strict=True):
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            getattr(module, key).copy_(values[key])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(old[name])
    optimizer.step()


@pytest.mark.parametrize("variant", ["wu2020", "adr"])
def test_a_perturbed_step_is_the_authors_on_resnet_18(variant):
    """Float64, three steps with momentum and weight decay."""
    ours = build_model({"name": "resnet", "depth": 18, "width": 16}, (3, 16, 16), 10, 5).double().train()
    theirs = copy.deepcopy(ours)
    settings = budget(
        milestones=[], weight_decay=5e-4, weight_perturbation={"gamma": 0.01, "variant": variant}, learning_rate=0.1
    )
    trainer = Trainer(ours, AtX(), settings, THREAT, 0)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    draws = torch.Generator().manual_seed(3)
    for step in range(3):
        x = torch.rand(6, 3, 16, 16, dtype=torch.float64, generator=draws)
        y, index = torch.randint(10, (6,), generator=draws), torch.arange(6)
        their_step(theirs, optimizer, x, y, 0.01, variant)
        trainer.step(Batch(x, y, index, index, 1, step, 3))
    for name, value in theirs.state_dict().items():
        found = ours.state_dict()[name]
        assert torch.allclose(found.double(), value.double(), rtol=0, atol=1e-9), name
    plain = Trainer(copy.deepcopy(theirs), AtX(), budget(milestones=[], learning_rate=0.1), THREAT, 0)
    assert plain.settings.weight_perturbation is None


class HalfSquare(Method):
    """L(w) = ||w||^2 / 2 of the student's weights."""

    terms: ClassVar = ("half_square",)

    def loss(self, step):
        norm = step.student.model.classifier.weight.square().sum() / 2
        return (Term("half_square", norm.expand(len(step.labels))),)


class LinearModel(nn.Module):
    """A network without any buffer."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(3, 10, bias=False).double()

    def features(self, x):
        return x.flatten(1)[:, :3]

    def forward(self, x):
        return self.classifier(self.features(x))


@pytest.mark.parametrize(
    ("variant", "weight_decay", "factor"),
    [
        ("wu2020", 0.0, 1 - 0.1 * 1.01),
        ("adr", 0.0, 1 - 0.1 * 1.01),
        ("wu2020", 5e-4, 1 - 0.1 * 1.01 * (1 + 5e-4)),  # the optimiser decays w + v
        ("adr", 5e-4, 1 - 0.1 * (1.01 + 5e-4)),  # the optimiser decays w
    ],
)
def test_the_order_of_restoring_and_the_optimizers_step_shows_in_the_weight_decay(variant, weight_decay, factor):
    model = LinearModel()
    before = model.classifier.weight.detach().clone()
    settings = budget(
        milestones=[], learning_rate=0.1, momentum=0.0, weight_decay=weight_decay,
        weight_perturbation={"gamma": 0.01, "variant": variant},
    )  # fmt: skip
    index = torch.arange(2)
    Trainer(model, HalfSquare(), settings, THREAT, 0).step(
        Batch(torch.rand(2, 1, 2, 2, dtype=torch.float64), index, index, index, 1, 0, 1)
    )
    assert torch.allclose(model.classifier.weight, factor * before, rtol=1e-12, atol=0)


def test_without_the_setting_and_before_its_start_nothing_differs(data):  # noqa: F811
    """Compares the weights of TRADES with and without the setting, epoch by epoch."""
    later = budget(weight_perturbation={"gamma": 0.01, "start": 2})
    trainers = [trainer_of("trades", data, settings=settings) for settings in (SETTINGS, later)]
    for epoch in (1, 2, 3):
        for trainer in trainers:
            trainer.begin_epoch(epoch)
            for batch in batches(data, SCHEME, SETTINGS, 0, epoch, CPU):
                trainer.step(batch)
        plain, perturbed = (weights_of(trainer.student) for trainer in trainers)
        same = all(torch.equal(value, perturbed[name]) for name, value in plain.items())
        assert same == (epoch < 3)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("variant", ["wu2020", "adr"])
def test_batch_norm_moves_once_in_a_perturbed_step(variant, mode, data):  # noqa: F811
    """Counts the moves: one by an evaluation of the loss, and one by each step of an attack in train mode."""
    attack = SETTINGS.inner_attack.model_copy(update={"mode": mode}).model_dump()
    settings = budget(inner_attack=attack, weight_perturbation={"gamma": 0.01, "variant": variant})
    trainer = trainer_of("sat", data, settings=settings)
    trainer.begin_epoch(1)
    norm = next(module for module in trainer.student.modules() if isinstance(module, nn.BatchNorm2d))
    for batch in batches(data, SCHEME, settings, 0, 1, CPU):
        before = int(norm.num_batches_tracked)
        trainer.step(batch)
        assert int(norm.num_batches_tracked) - before == 1 + 3 * (mode == "train")


# Label smoothing


def test_smoothed_labels_give_torchs_cross_entropy():
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 3, -1])
    targets = smoothed(labels, 4, 0.3).double()
    ours = methods.contract.cross_entropy(logits, targets)
    theirs = torch_cross_entropy(logits[:5], labels[:5], label_smoothing=0.3, reduction="none")
    assert torch.allclose(ours[:5], theirs, rtol=1e-6)
    assert ours[5] == 0
    assert smoothed(torch.tensor([2]), 4, 0.3).tolist()[0] == pytest.approx([0.075, 0.075, 0.775, 0.075])


# No cross-entropy with a hard label, neither in the loss nor in the attack.
UNTOUCHED = ("rslad", "absld", "adaad", "crdnd", "adaiad", "dgad", "saad", "teacher_ensemble")


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.slow
def test_smoothing_changes_every_method_that_uses_a_hard_label_and_no_other(name, data):  # noqa: F811
    results = []
    for smoothing in (0.0, 0.2):
        trainer = trainer_of(name, data, settings=budget(label_smoothing=smoothing))
        trainer.begin_epoch(1)
        for batch in batches(data, SCHEME, trainer.settings, 0, 1, CPU):
            trainer.step(batch)
        results.append(weights_of(trainer.student))
    same = all(torch.equal(value, results[1][key]) for key, value in results[0].items())
    assert same == (name in UNTOUCHED)


# What is refused


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schedule": {"name": "cosine"}}, "milestones belong to the schedule multistep"),
        ({"schedule": {"end": 0.1}}, "end means nothing for the schedule multistep"),
        ({"milestones": [], "schedule": {"name": "cosine", "peak": 0.3}}, "peak means nothing for the schedule cosine"),
        ({"schedule": {"warmup": 4.0}}, "warmup: 4 is more than the 3 epochs"),
        ({"averaging": {"name": "swa", "decay": 0.9}}, "decay and ramp belong to ema"),
        ({"averaging": {"name": "swa", "start": 3}}, "start: 3 leaves none of the 3 epochs"),
        ({"weight_perturbation": {"gamma": 0.01, "start": 3}}, "start: 3 leaves none of the 3 epochs"),
        ({"weight_perturbation": {"gamma": 0.0}}, "greater than 0"),
        ({"label_smoothing": 1.0}, "less than 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, named):
    with pytest.raises(ValidationError, match=named):
        budget(**changes)


def test_defaults_follow_the_kind():
    assert Averaging(name="swa").model_dump() == {
        "name": "swa", "decay": None, "ramp": False, "start": 0, "per": "epoch", "batch_norm": "reestimate",
    }  # fmt: skip
    assert Averaging(name="ema").decay == 0.999
    assert Schedule(name="cyclic").end == 4e-6
    assert WeightPerturbation(gamma=0.005).variant == "wu2020"


# Curves


def test_curves_have_the_accuracies_on_the_first_training_images_without_augmentation(data):  # noqa: F811
    """Clean by hand; under attack by the attack of the selection, which is the same on images of either split."""
    trainer = trainer_of("sat", data, settings=budget(selection={"steps": 2, "every": 2}))
    lines = train(trainer, data, data.first(150), SCHEME, CPU).counts.metrics
    assert ["train_clean" in line for line in lines] == [False, True, True]
    with torch.no_grad():
        right = trainer.student.eval()(data.floats()).argmax(1) == data.labels
    assert lines[-1]["train_clean"] == pytest.approx(right.float().mean().item())
    assert lines[-1]["selection_clean"] == pytest.approx(right[:150].float().mean().item())
    assert evaluate(trainer, data, CPU)[:2] == (lines[-1]["train_clean"], lines[-1]["train_robust"])
    assert 0 < lines[-1]["train_robust"] <= lines[-1]["train_clean"]


# Selection by another metric


@pytest.mark.parametrize(("by", "sign"), [("worst_class.apgd", 1), ("nsd.apgd", -1), ("mean.pgd10", 1)])
def test_best_is_the_epoch_with_the_best_value_of_the_metric(by, sign, data):  # noqa: F811
    """Class accuracies by hand, from what the attack of the selection finds after every epoch."""
    settings = budget(epochs=4, milestones=[], learning_rate=0.1, selection={"by": by, "steps": 2})
    trainer, scores = trainer_of("natural", data, settings=settings), []
    real = training_loop.evaluate_for_selection

    def observed(*arguments):
        clean, robust = real(*arguments)
        if len(clean) == 60:  # of the selection, not of the curve of training images
            labels = data.labels[:60]
            by_class = torch.stack([robust[labels == label].float().mean() for label in labels.unique()])
            values = {
                "worst_class": by_class.min(),
                "nsd": by_class.std(correction=0) / by_class.mean(),
                "mean": (clean.float().mean() + robust.float().mean()) / 2,
            }
            scores.append(sign * values[by.partition(".")[0]].item())
        return clean, robust

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training_loop, "evaluate_for_selection", observed)
        counts = train(trainer, data, data.first(60), SCHEME, CPU).counts
    assert [line["selection_score"] for line in counts.metrics] == pytest.approx(scores, nan_ok=True)
    assert counts.best_score[0] == pytest.approx(max(scores))


def test_captions_say_what_was_averaged_and_chosen_by(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("training: {averaging: {name: ema}, selection: {by: worst_class.apgd}}")
    selection = load_experiment("params.yaml", str(overlay)).matrix()["selection"]
    assert selection == "chosen on the validation split by worst_class.apgd, of averaged weights (ema)"
    assert load_experiment("params.yaml").matrix()["selection"] == "chosen on the validation split"
