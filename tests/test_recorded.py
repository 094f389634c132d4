"""What is computed again and again: the same, recorded or not. On a GPU graphs are recorded, elsewhere calls are."""

from __future__ import annotations

import pytest
import torch
from test_training import ADVERSARIAL, OPTIONS, SCHEME, SETTINGS, THREAT, data, network  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.cache.live import LiveTeacher
from robust_distillation.cuda_graph import BEFORE, Recorded, joined, parted
from robust_distillation.methods import Batch
from robust_distillation.models.output import Output
from robust_distillation.models.precision import TRAIN, prepared
from robust_distillation.training.loop import Trainer, batches, method_state

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


def test_tensors_are_taken_out_of_a_batch_and_others_put_in():
    labels, index, logits = torch.arange(3), torch.arange(3) + 7, torch.rand(3, 4)
    batch = Batch(labels, index, teacher=Output(logits), epoch=5)
    tensors, facts = parted((logits, batch))
    assert list(map(id, tensors)) == list(map(id, (logits, labels, index, logits)))
    assert facts == [None, None, None, None, None, None, 5]
    others = [tensor + 1 for tensor in tensors]
    found = joined((logits, batch), iter(others))
    assert found == (others[0], Batch(others[1], others[2], teacher=Output(others[3]), epoch=5))
    assert batch.labels is labels


def test_without_a_gpu_nothing_is_recorded():
    recorded, x = Recorded(), torch.rand(3)
    for _ in range(BEFORE + 2):
        assert torch.equal(recorded(lambda x, y: x * y[0], x, (x,)), x * x)
    assert not recorded.graphs


def trainer_on(device, name, data, precision="exact", compiled=False, recorded=True):  # noqa: F811
    method = methods.get(name)(**OPTIONS.get(name, {}))
    model = prepared(network(4, 1).to(device), precision, TRAIN, compiled=compiled, recorded=recorded)
    state = method_state(method, data, model, 16 if method.needs.teacher_features else 0, 0)
    teacher = LiveTeacher(network(8, 2).eval().to(device))
    trainer = Trainer(model, method, SETTINGS, THREAT, 0, state and state.to(device), teacher)
    if not recorded:
        trainer.recorded = None
    return trainer


def trained(trainer, data, epochs=(1, 2)):  # noqa: F811
    """All weights and statistics after so many epochs, each of which ends with a smaller batch."""
    device = next(trainer.model.parameters()).device
    for epoch in epochs:
        trainer.model.train()
        for step, batch in enumerate(batches(data.first(80).to(device), SCHEME, SETTINGS, 0, epoch, device)):
            trainer.step(*batch, epoch, step)
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


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
    assert len(recording.recorded.graphs) == 2  # of the last epoch: a whole batch's and the smaller one's
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
        trainer.step(*batch, 1, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
