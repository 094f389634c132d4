"""What the training loop promises a method, and a method the training loop: for every method of the registry, and for
small ones that ask for what published methods ask for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from test_training import (  # noqa: F401 (a fixture)
    CPU,
    SCHEME,
    SETTINGS,
    THREAT,
    data,
    live_teachers,
    method_named,
    network,
    trainer_of,
)
from toy_methods import TOYS

from robust_distillation import methods
from robust_distillation.errors import UserError
from robust_distillation.losses import cross_entropy
from robust_distillation.methods import TEACHER, Method, TeacherCalls, Term
from robust_distillation.methods.igdm import IGDM
from robust_distillation.settings import ThreatModel
from robust_distillation.training import step as training_step
from robust_distillation.training.batches import batches
from robust_distillation.training.counting import calls_in_step
from robust_distillation.training.loop import train
from robust_distillation.training.step import BatchStep
from robust_distillation.training.trainer import Trainer, build_own

ALL = [*methods.names(), *TOYS]
# Settings under which a method calls other networks than by default.
VARIANTS = [
    *((name, {}) for name in ALL),
    ("rslad", {"inner_labels": "student"}),
    ("rslad", {"clean_labels": "hard", "adversarial_labels": "hard", "inner_labels": "hard"}),
    ("trades", {"clean_first": True}),
    ("iad", {"begin": 1, "repeat_passes": True}),
    ("adaad", {"alpha": 0.5}),
    ("adaad", {"clean_pass": True}),
    *((name, {"igdm": IGDM()}) for name in ("rslad", "ard", "iad", "adaad")),
    ("rslad", {"clean_labels": "hard", "adversarial_labels": "hard", "inner_labels": "hard", "igdm": IGDM()}),
    ("iad", {"begin": 1, "repeat_passes": True, "igdm": IGDM()}),
    ("adaiad", {"begin": 1, "repeat_passes": True}),
    ("dgad", {"group_batch_size": 32, "misplaced_bracket": True}),
    ("saad", {"igdm": None, "clean_pass": True}),
    ("saad", {"beta": 1.0}),
    ("crd", {"alpha": 1.0}),
    ("absld", {"multiply_temperatures": True}),
    ("iad2", {"begin": 1}),
    ("peeraid", {"detach_target": False, "repeat_pass": True}),
    ("lbgat", {"beta": 0.0}),
    ("lbgat", {"beta": 0.0, "clean_pass": True}),
    ("ckd", {"adversarial": True}),
    ("gacd", {"teacher_sees": "adversarial"}),
    ("gacd", {"sides": "both"}),
    ("crdnd", {"denoise": "none"}),
    ("cgard", {"constrained": False}),
    ("ciard", {"begin": 0, "clean_pass": True, "weights": "balanced"}),
    ("fgsm_pgi", {"prior": "epoch"}),
]


def one_batch(data, epoch: int = 1):  # noqa: F811
    return next(batches(data, SCHEME, SETTINGS, 0, epoch, CPU))


def buffers_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in trainer.module.named_buffers()}


# --- the loss of a batch, evaluated again ---


@pytest.mark.parametrize("name", ALL)
def test_the_loss_of_a_batch_is_the_same_again_and_moves_nothing_twice(name, data, monkeypatch):  # noqa: F811
    trainer, attacks, real = trainer_of(name, data), [], training_step.pgd

    def observed(*args, **options):
        attacks.append(real(*args, **options))
        return attacks[-1]

    monkeypatch.setattr(training_step, "pgd", observed)
    trainer.begin_epoch(2)
    trainer.step(one_batch(data, 2))  # so that no state is as at the start
    attacks.clear()
    before, step = buffers_of(trainer), BatchStep(trainer, one_batch(data, 2))
    loss, means = step.evaluate(repeatable=True)
    after, images = buffers_of(trainer), len(attacks)
    for _ in range(2):
        again, means_again = step.evaluate()
        step.restore()
        assert torch.equal(again, loss)
        assert means_again.keys() == means.keys()
        assert all(torch.equal(means_again[key], means[key]) for key in means)
    assert len(attacks) == images
    for key, buffer in buffers_of(trainer).items():
        assert torch.equal(buffer, after[key]), key
    assert any(not torch.equal(after[key], before[key]) for key in before), "the first evaluation moved nothing"


@pytest.mark.parametrize("name", ALL)
def test_under_perturbed_weights_the_loss_is_another_and_state_stays(name, data):  # noqa: F811
    trainer = trainer_of(name, data)
    trainer.begin_epoch(1)
    step = BatchStep(trainer, one_batch(data))
    loss, _ = step.evaluate(repeatable=True)
    after = buffers_of(trainer)
    with torch.no_grad():
        for parameter in trainer.student.parameters():
            parameter.add_(0.05 * torch.ones_like(parameter))
    perturbed, _ = step.evaluate()
    perturbed.backward()
    step.restore()
    assert not torch.equal(perturbed, loss)
    assert all(torch.equal(buffer, after[key]) for key, buffer in buffers_of(trainer).items())


def test_a_second_evaluation_must_be_announced(data):  # noqa: F811
    step = BatchStep(trainer_of("sat", data), one_batch(data))
    step.evaluate()
    with pytest.raises(RuntimeError, match="repeatable"):
        step.evaluate()


# --- calls of networks ---


def counted(name: str, settings: dict, info) -> Counter:
    method = method_named(name).model_copy(update=settings)
    found = Counter()
    for epoch in method.phases():
        found |= calls_in_step(method, SETTINGS, THREAT, info, {"name": "convnet", "width": 4}, epoch)
    return found


def expected_calls(method: Method) -> set[tuple[str, str, str]]:
    """Of teachers: one of each kind that is declared."""
    found = set()
    for role, calls in method.teachers().items():
        found |= {("cache", role, kind) for kind in calls.cached}
        found |= {("teacher", role, "ask")} if calls.live else set()
        found |= {("teacher", role, "attack")} if calls.gradient else set()
        found |= {("own", role, "train")} if calls.trained else set()
    return found


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_every_declared_call_comes_and_no_other(name, settings, data):  # noqa: F811
    method = method_named(name).model_copy(update=settings)
    asked = {key for key in counted(name, settings, data.info) if key[0] != "student"}
    own = {("own", peer, kind) for peer in method.networks({}) for kind in ("ask", "train", "attack")}
    moved = {("own", role, "ask") for role, calls in method.teachers().items() if calls.trained}
    assert expected_calls(method) <= asked
    assert asked <= expected_calls(method) | own | moved
    trained = {peer for peer in method.networks({}) if peer != "average"}  # ADR's follows the student
    assert {("own", peer, "train") for peer in trained} <= asked


@pytest.mark.parametrize(
    ("name", "settings", "student", "teacher"),
    [
        ("natural", {}, {"train": 1}, {}),
        ("sat", {}, {"attack": 3, "train": 1}, {}),
        ("fgsm_rs", {}, {"attack": 1, "train": 1}, {}),
        ("n_fgsm", {}, {"attack": 1, "train": 1}, {}),
        ("fgsm_pgi", {}, {"ask": 1, "train": 2}, {}),  # the gradient in the images costs as much as a forward pass
        ("trades", {}, {"ask": 1, "attack": 3, "train": 2}, {}),
        ("trades", {"clean_first": True}, {"ask": 2, "attack": 3, "train": 2}, {}),
        ("rslad", {}, {"attack": 3, "train": 2}, {}),
        ("iad", {}, {"attack": 3, "train": 2}, {"ask": 1}),
        ("adaad", {}, {"attack": 3, "train": 1}, {"attack": 3, "ask": 1}),
        ("adaad", {"igdm": IGDM()}, {"attack": 3, "train": 2}, {"attack": 3, "ask": 2}),
        ("rslad", {"igdm": IGDM()}, {"attack": 3, "train": 3}, {"ask": 2}),
        ("adaiad", {}, {"attack": 3, "train": 2}, {"attack": 3, "ask": 1}),
        ("dgad", {}, {"attack": 3, "train": 2}, {"attack": 3, "ask": 1}),
        ("saad", {}, {"attack": 3, "train": 2}, {"attack": 1, "ask": 2}),
        ("saad", {"clean_pass": True}, {"attack": 3, "ask": 1, "train": 2}, {"attack": 1, "ask": 2}),
        ("mtard", {}, {"attack": 3, "train": 2}, {"ask": 1}),
        ("absld", {}, {"attack": 3, "train": 2}, {}),
        ("b_mtard", {}, {"attack": 3, "train": 2}, {"ask": 1}),
        ("akd2", {}, {"attack": 3, "train": 1}, {"ask": 1}),
        ("iad2", {}, {"attack": 3, "train": 2}, {"ask": 1}),
        ("adr", {}, {"attack": 3, "train": 1}, {}),
        ("lbgat", {}, {"ask": 1, "attack": 3, "train": 2}, {}),
        ("lbgat", {"beta": 0.0, "clean_pass": True}, {"ask": 2, "attack": 3, "train": 1}, {}),
        ("peeraid", {}, {"attack": 3, "train": 2}, {}),
        ("peeraid", {"repeat_pass": True}, {"ask": 1, "attack": 3, "train": 2}, {}),
        ("cgard", {}, {"attack": 3, "train": 1}, {"attack": 3, "ask": 3 + 2}),
        ("ciard", {}, {"attack": 3, "train": 2}, {"ask": 1}),
        ("tald", {}, {"train": 1}, {"attack": 1, "ask": 1}),
    ],
)
def test_calls_in_a_step_by_hand(name, settings, student, teacher, data):  # noqa: F811
    """With three inner steps."""
    calls = counted(name, settings, data.info)
    assert {kind: count for (group, _, kind), count in calls.items() if group == "student"} == student
    assert {kind: count for (group, _, kind), count in calls.items() if group == "teacher"} == teacher


class Asks(Method):
    """Declares one thing and does another."""

    terms: ClassVar = ("cross_entropy",)
    cached_kinds: tuple[str, ...] = ()
    live: bool = False
    gradient: bool = False
    does: str = "live"

    def teachers(self):
        return {TEACHER: TeacherCalls(cached=self.cached_kinds, live=self.live, gradient=self.gradient)}

    def loss(self, step):
        if self.does == "cached":
            step.cached()
        elif self.does == "another":
            step.cached("another")
        elif self.does == "trained":
            step.teacher[TEACHER](step.x, train=True)
        else:
            step.teacher[TEACHER](step.x.clone().requires_grad_(self.does == "gradient"))
        return (Term("cross_entropy", cross_entropy(step.student(step.x, train=True).logits, step.labels)),)


@pytest.mark.parametrize(
    ("declared", "does", "message"),
    [
        ({"cached_kinds": ("logits",)}, "live", "not declared: give it live=True"),
        ({"cached_kinds": ("logits",), "live": True}, "gradient", "not declared: give it gradient=True"),
        ({"gradient": True}, "live", "not declared: give it live=True"),
        ({"live": True}, "cached", "cached output of teacher 'teacher' is not declared"),
        ({"cached_kinds": ("logits",)}, "another", "cached output of teacher 'another' is not declared"),
        ({"live": True}, "trained", "teacher 'teacher' is not trained: declare trained=True"),
    ],
)
def test_a_call_that_was_not_declared_is_refused(declared, does, message, data):  # noqa: F811
    method = Asks(does=does, **declared)
    trainer = Trainer(network(4, 1), method, SETTINGS, THREAT, 0, teachers=live_teachers(method))
    with pytest.raises(TypeError, match=message):
        trainer.step(one_batch(data))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_of_a_methods_own_ascends_as_that_of_the_step(norm, data):  # noqa: F811
    """PGD on the cross-entropy, written with `ascend`: the same images bit by bit."""
    method = method_named("sat")
    threat = ThreatModel(norm=norm, eps=0.15 if norm == "linf" else 0.5)
    trainer = Trainer(network(4, 1), method, SETTINGS, threat, 0)
    step, twin = (BatchStep(trainer, one_batch(data)) for _ in range(2))
    expected = step.attack(lambda x, logits, labels: cross_entropy(logits, labels), step.labels)
    images = twin.x + twin.starting_noise()
    images = twin.ascend(images, torch.zeros_like(images))
    for _ in range(SETTINGS.inner_attack.steps):
        images.requires_grad_()
        [gradient] = torch.autograd.grad(cross_entropy(twin.student(images).logits, twin.labels).sum(), [images])
        images = twin.ascend(images, gradient)
    assert torch.equal(images, expected)
    assert not images.requires_grad


def test_of_a_cached_output_only_what_is_declared_is_given(data):  # noqa: F811
    trainer = trainer_of("crd", data)
    output = BatchStep(trainer, one_batch(data)).cached()
    assert output.logits is None
    assert output.features.shape == (32, 16)


# --- what a method returns ---


class Returns(Method):
    terms: ClassVar = ("one", "two")
    what: str = ""

    def loss(self, step):
        values = cross_entropy(step.student(step.x, train=True).logits, step.labels)
        return {
            "nothing": (),
            "undeclared": (Term("three", values),),
            "twice": (Term("one", values), Term("one", values)),
            "reduced": (Term("one", values.mean()),),
            "by class": (Term("one", values[:, None].expand(-1, 2)),),
            "weights": (Term("one", values, values.detach()),),
            "infinite": (Term("one", values), Term("two", values / 0)),
        }[self.what]


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("nothing", TypeError, r"returned the terms \[\], declared are \['one', 'two'\]"),
        ("undeclared", TypeError, r"returned the terms \['three'\]"),
        ("twice", TypeError, r"returned the terms \['one', 'one'\]"),
        ("reduced", TypeError, r"values of term 'one' have the shape \[\], not \[32\]"),
        ("by class", TypeError, r"shape \[32, 2\], not \[32\]"),
        ("weights", TypeError, "weight of term 'one' has 1 dimensions"),
        ("infinite", UserError, "term 'two' is not finite in the first step"),
    ],
)
def test_what_a_method_returns_is_checked(what, error, message, data):  # noqa: F811
    trainer = Trainer(network(4, 1), Returns(what=what), SETTINGS, THREAT, 0)
    with pytest.raises(error, match=f"method Returns: .*{message}"):
        trainer.step(one_batch(data))


@pytest.mark.parametrize("name", ALL)
def test_images_without_labels_train_methods_that_need_none_and_no_other(name, data):  # noqa: F811
    method = method_named(name)
    without = replace(data, labels=torch.full_like(data.labels, -1))
    if method.needs_labels():
        with pytest.raises(UserError, match="needs labels, and 160 of the 160 training images have none"):
            build_own(method, without, network(4, 1), 0, {"name": "convnet", "width": 4})
    else:
        trainer = trainer_of(name, without)
        assert trainer.step(one_batch(without))["loss"].isfinite()


def test_which_methods_need_no_labels():
    assert {name for name in methods.names() if not method_named(name).needs_labels()} == {
        "adaad",
        "rslad",
        "teacher_ensemble",
    }
    assert methods.get("rslad")(clean_labels="hard").needs_labels()


# --- methods as published ones are ---


@pytest.mark.parametrize("name", TOYS)
def test_what_published_methods_need_is_served(name, data):  # noqa: F811
    """Trained to the end, without an edit of the loop."""
    trainer = trainer_of(name, data)
    before = {key: tensor.clone() for key, tensor in trainer.module.state_dict().items()}
    lines = train(trainer, data, data.first(40), SCHEME, CPU).counts.metrics
    assert len(lines) == SETTINGS.epochs
    after = trainer.module.state_dict()
    still = [key for key in before if torch.equal(before[key], after[key])]
    assert still in ([], ["own.temperatures.sums"]), still  # the sums of an epoch begin again


def test_a_peer_is_trained_with_its_own_rate_and_schedule(data):  # noqa: F811
    trainer = trainer_of("Peer", data)
    assert set(trainer.optimizers) == {"student", "peer"}
    rates = []
    for epoch in (1, 2, 3):
        trainer.set_learning_rates(epoch, 0, 1)
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers.values()])
    assert [round(rate, 9) for pair in rates for rate in pair] == [0.05, 0.025, 0.05, 0.0025, 0.005, 0.0025]
    assert [len(optimizer.param_groups) for optimizer in trainer.optimizers.values()] == [1, 2]
    trained = {id(p) for o in trainer.optimizers.values() for group in o.param_groups for p in group["params"]}
    assert trained == {id(parameter) for parameter in trainer.module.parameters()}


@pytest.mark.parametrize("decay", [0.75, 0.0])
def test_a_network_follows_another(decay, data):  # noqa: F811
    trainer = trainer_of("Peer", data)
    trainer.begin_epoch(1)
    trainer.step(one_batch(data))
    peer, student = trainer.own["peer"].state_dict(), trainer.student.state_dict()
    before = {name: tensor.clone() for name, tensor in peer.items()}
    step = BatchStep(trainer, one_batch(data))
    step.own["peer"].follow(step.student, decay)
    for name, tensor in peer.items():
        counts = not tensor.is_floating_point()
        expected = student[name] if counts or not decay else 0.75 * before[name] + 0.25 * student[name]
        assert torch.equal(tensor, expected), name
        assert counts or not torch.equal(before[name], student[name])


def test_progress_is_the_share_of_steps_that_are_done(data):  # noqa: F811
    trainer = trainer_of("sat", data)
    found = [
        BatchStep(trainer, batch).progress
        for epoch in (1, 2, 3)
        for batch in batches(data, SCHEME, SETTINGS, 0, epoch, CPU)
    ]
    assert found == pytest.approx([number / 15 for number in range(15)])


def test_a_teacher_that_is_trained_along_waits_for_its_first_gradient(data):  # noqa: F811
    trainer = trainer_of("TrainedTeacher", data)
    weight = trainer.own[TEACHER].classifier.weight
    start, frozen = weight.detach().clone(), trainer.teachers[TEACHER].network.classifier.weight.clone()
    trainer.begin_epoch(1)
    trainer.step(one_batch(data))
    assert torch.equal(weight, start)
    trainer.begin_epoch(2)
    trainer.step(one_batch(data, 2))
    assert not torch.equal(weight, start)
    assert torch.equal(trainer.teachers[TEACHER].network.classifier.weight, frozen)


def test_temperatures_by_class_move_after_the_epoch(data):  # noqa: F811
    trainer = trainer_of("ClassTemperatures", data)
    state = trainer.own["temperatures"]
    train(trainer, data, data.first(40), SCHEME, CPU)
    assert state.temperature.std() > 0.01
    assert (state.sums == 0).all()
