"""Repeated computations replayed as CUDA graphs: the same bits. Without a GPU, what a graph could get wrong is shown by
a replay that keeps the first call's function and copies later arguments into its buffers."""

from __future__ import annotations

from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import ClassVar, NamedTuple

import pytest
import torch
from test_training import ADVERSARIAL, CPU, SCHEME, SETTINGS, SINGLE_STEP, data, network, trainer_of  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.cuda_graph import (
    WARMUP_CALLS,
    GraphReplay,
    HeldTensorError,
    held_values,
    join_tensors,
    split_tensors,
)
from robust_distillation.methods import TeacherCalls, misclassification
from robust_distillation.models.output import Output
from robust_distillation.models.precision import TRAIN, configure_precision
from robust_distillation.training.batches import batches
from robust_distillation.training.step import FrozenTeacher
from robust_distillation.training.teacher import Teacher

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
GLOBAL = torch.ones(3)


class Pair(NamedTuple):
    output: Output
    epoch: int


def test_tensors_are_taken_out_of_arguments_and_others_put_in():
    labels, logits = torch.arange(3), torch.rand(3, 4)
    tensors, others = split_tensors((logits, Pair(Output(labels), 5)))
    assert list(map(id, tensors)) == list(map(id, (logits, labels)))
    assert others == [None, 5]
    replaced = [tensor + 1 for tensor in tensors]
    joined = join_tensors((logits, Pair(Output(labels), 5)), iter(replaced))
    assert joined == (replaced[0], Pair(Output(replaced[1]), 5))


def test_without_a_gpu_nothing_is_recorded():
    replay, x = GraphReplay(), torch.rand(3)
    for _ in range(WARMUP_CALLS + 2):
        assert torch.equal(replay(lambda x, y: x * y[0], x, (x,)), x * x)
    assert not replay.graphs


class FirstCall:
    """Replays on the CPU as a CUDA graph does: for each set of shapes, and of values that the function holds, it keeps
    the first function and its arguments; later arguments are copied into those, and the result is overwritten."""

    def __init__(self):
        self.kept, self.replayed = [], 0

    def __call__(self, function, *args):
        tensors, others = split_tensors(args)
        key = [[(tensor.shape, tensor.dtype) for tensor in tensors], others + held_values(function)]
        known = next((entry for entry in self.kept if entry[0] == key), None)
        if known is None:
            known = (key, function, [tensor.detach().clone() for tensor in tensors], [])
            self.kept.append(known)
        else:
            self.replayed += 1
        _, first, inputs, result = known
        for kept, tensor in zip(inputs, tensors, strict=True):
            kept.copy_(tensor.detach())
        value = first(*join_tensors(args, iter(inputs)))
        if not result:
            result.append(value.clone())
        return result[0].copy_(value)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.slow
def test_every_method_trains_the_same_where_the_first_call_is_replayed(name, mode, data):  # noqa: F811
    """An objective that held a tensor of its first batch would train on by it."""
    inner = SETTINGS.inner_attack.model_copy(update={"mode": mode})
    settings = SETTINGS.model_copy(update={"inner_attack": inner})
    replaying, plain = (trainer_of(name, data, settings=settings) for _ in range(2))
    replaying.replay, plain.replay = FirstCall(), None
    found, expected = trained(replaying, data), trained(plain, data)
    assert len(replaying.replay.kept) == 2  # of a whole batch, and of the smaller last one
    steps = 1 if name in SINGLE_STEP else SETTINGS.inner_attack.steps
    assert replaying.replay.replayed == 2 * 3 * steps - 2  # of two epochs of three batches
    for key in expected:
        assert torch.equal(found[key], expected[key]), key


class Held(methods.Method):
    """An objective that holds the labels of its batch."""

    terms: ClassVar = ("cross_entropy",)

    def loss(self, step):
        labels = step.labels
        step.attack(lambda x, logits: misclassification(x, logits, labels))


def holding(tensor):
    """Functions that hold a tensor, by the place that a message names."""

    def default(x, target=tensor):
        return x

    class Object:
        def __init__(self):
            self.inside = SimpleNamespace(deep={"key": [tensor]})

        def method(self, x):
            return x

    def by_name(x):
        return x * GLOBAL

    def inner(x):
        return x * tensor

    item, holder = (1, {"labels": tensor}), Object()
    return {
        "closure": ("tensor", lambda x: x * tensor),
        "default": ("a default of default", default),
        "tuple and dict": ("item[1]['labels']", lambda x: item),
        "function in a closure": ("tensor", lambda x: inner(x)),
        "partial": ("function[0]", partial(lambda target, x: x, tensor)),
        "method's object": ("method.__self__.inside.deep['key'][0]", holder.method),
        "global": ("GLOBAL", by_name),
        "object": ("holder.inside.deep['key'][0]", lambda x: holder),
    }


@pytest.mark.parametrize("way", holding(torch.ones(3)))
def test_a_held_tensor_is_found_wherever_it_hides(way):
    place, function = holding(torch.ones(3))[way]
    with pytest.raises(HeldTensorError) as found:
        held_values(function)
    assert found.value.place == place


def test_networks_and_numbers_may_be_held():
    model, asked, factor, names = network(4, 1), network(4, 2), 0.5, ("a", "b")
    teacher = FrozenTeacher(Teacher(asked), "teacher", TeacherCalls(live=True), Counter())
    values = held_values(lambda x: (model, teacher, factor, names))
    assert any(value is model for value in values)
    assert any(value is asked for value in values)
    assert {0.5, "a", "b"} <= {value for value in values if isinstance(value, float | str)}


def test_a_change_of_a_held_number_is_seen():
    """It would be frozen into a graph as well."""

    def function(factor):
        return lambda x: factor * x

    assert held_values(function(1.0)) == held_values(function(1.0))
    assert held_values(function(1.0)) != held_values(function(2.0))


def test_a_method_whose_objective_holds_a_tensor_is_refused_by_name(data):  # noqa: F811
    trainer = trainer_of("sat", data)
    trainer.method = Held()
    with pytest.raises(TypeError, match=r"method Held: .* holds a tensor, labels\. Give it to step\.attack"):
        trainer.step(next(batches(data, SCHEME, SETTINGS, 0, 1, CPU)))


def trainer_on(device, name, data, precision="exact", compiled=False, recorded=True):  # noqa: F811
    def prepare(model):
        return configure_precision(model, precision, TRAIN, compiled=compiled, recorded=recorded)

    trainer = trainer_of(name, data, device=device, prepare=prepare)
    if not recorded:
        trainer.replay = None
    return trainer


def trained(trainer, data, epochs=(1, 2)):  # noqa: F811
    """All weights and statistics after so many epochs, each of which ends with a smaller batch."""
    device = next(trainer.student.parameters()).device
    for epoch in epochs:
        trainer.begin_epoch(epoch)
        for batch in batches(data.first(80).to(device), SCHEME, SETTINGS, 0, epoch, device):
            trainer.step(batch)
    return {name: tensor.clone() for name, tensor in trainer.module.state_dict().items()}


@pytest.fixture
def cuda():
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.use_deterministic_algorithms(True)
    yield torch.device("cuda")
    torch.use_deterministic_algorithms(False)


@gpu
@pytest.mark.parametrize("precision", ["exact", "bf16"])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_training_finds_the_same_bits_recorded_or_not(name, precision, data, cuda):  # noqa: F811
    recording, plain = (trainer_on(cuda, name, data, precision, recorded=recorded) for recorded in (True, False))
    found, expected = trained(recording, data), trained(plain, data)
    assert len(recording.replay.graphs) == 2  # of the last epoch: a whole batch's and the smaller one's
    for key in expected:
        assert torch.equal(found[key], expected[key]), key


@gpu
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_statistics_that_an_attack_moves_move_as_often(mode, data, cuda):  # noqa: F811
    settings = SETTINGS.model_copy(update={"inner_attack": SETTINGS.inner_attack.model_copy(update={"mode": mode})})
    found = []
    for recorded in (True, False):
        trainer = trainer_on(cuda, "rslad", data, recorded=recorded)
        trainer.settings = settings
        found.append(trained(trainer, data))
    for key in found[0]:
        assert torch.equal(*(state[key] for state in found)), key


@gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_training_finds_the_same_bits_replayed_or_not(precision, data, cuda):  # noqa: F811
    torch._dynamo.reset()
    found, expected = (
        trained(trainer_on(cuda, "rslad", data, precision, compiled=True, recorded=recorded), data)
        for recorded in (True, False)
    )
    for key in expected:
        assert torch.equal(found[key], expected[key]), key


@gpu
@pytest.mark.parametrize("name", methods.names())
def test_no_step_waits_for_the_gpu(name, data, cuda):  # noqa: F811
    trainer = trainer_on(cuda, name, data, "bf16")
    trained(trainer, data, epochs=[1])
    batch = next(batches(data.to(cuda), SCHEME, SETTINGS, 0, 1, cuda))
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
