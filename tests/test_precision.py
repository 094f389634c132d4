"""Modes of computing: what each of them changes, and what none may."""

from __future__ import annotations

import functools

import pytest
import torch
from test_training import CPU, OPTIONS, SCHEME, SETTINGS, THREAT, data, network  # noqa: F401 (a fixture)
from torch.utils._python_dispatch import TorchDispatchMode

from robust_distillation import methods, models
from robust_distillation.attacks import fgsm
from robust_distillation.attacks.core import maximise
from robust_distillation.config import load
from robust_distillation.evaluation import attack
from robust_distillation.evaluation.blocks import blocks
from robust_distillation.models.checkpoint import build_model, save_checkpoint, weights_digest
from robust_distillation.models.frozen import frozen
from robust_distillation.models.output import output
from robust_distillation.precision import PAYS, pays, prepared
from robust_distillation.teachers.live import LiveTeacher
from robust_distillation.training.loop import Trainer, batches, method_state, train

FAST = ("fp32", "bf16-inner", "bf16")
SMALL = {
    "convnet": {}, "resnet": {"width": 4}, "preact_resnet": {"width": 4}, "mobilenet_v2": {},
    "wide_resnet": {"depth": 10, "width": 1}, "dm_wide_resnet": {"depth": 10, "width": 1},
}  # fmt: skip
OWN = [name for name in models.names() if name != "robustbench"]  # that one needs a package of its own


def built(name: str):
    return build_model({"name": name, **SMALL[name]}, (3, 32, 32), 10)


@pytest.fixture
def x():
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def convolved_in(model, x) -> torch.dtype:
    """The type of what the model's first convolution answers."""
    found = []
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    with first.register_forward_hook(lambda _, __, answer: found.append(answer.dtype)):
        model(x)
    return found[0]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("precision", FAST)
def test_every_network_answers_nearly_the_same(precision, name, x):
    expected = output(built(name).eval(), x)
    model = prepared(built(name).eval(), precision, trained=True)
    found = output(model, x)
    off = 2e-4 if precision in ("fp32", "bf16-inner") else 0.1
    for known, ours in zip(expected, found, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - known).norm() < off * known.norm()
    assert model.state_dict().keys() == built(name).state_dict().keys()


@pytest.mark.parametrize(
    ("precision", "trained", "borrowed"),
    [
        ("fp32", torch.float32, torch.float32),
        ("bf16-inner", torch.float32, torch.bfloat16),
        ("bf16", torch.bfloat16, torch.bfloat16),
    ],
)
def test_passes_that_run_in_bfloat16_are_those_named(precision, trained, borrowed, x):
    model = prepared(network(4, 1), precision, trained=True)
    x = x[:, :1, :8, :8]
    assert convolved_in(model, x) == trained
    with frozen(model):
        assert convolved_in(model, x) == borrowed


@pytest.mark.parametrize("precision", FAST)
def test_what_is_not_trained_answers_in_fp32(precision, x):
    model = prepared(network(4, 1), precision)
    with frozen(model):
        assert convolved_in(model, x[:, :1, :8, :8]) == torch.float32


def test_a_search_in_bfloat16_is_judged_in_fp32(data, tmp_path, monkeypatch):  # noqa: F811
    about = {"shape": list(data.info.shape), "classes": list(data.info.classes)}
    path = tmp_path / "best.safetensors"
    save_checkpoint(
        path, network(4, 1).state_dict(), {"architecture": {"name": "convnet", "width": 4}, "dataset": about}
    )
    attacked, asked = [], []
    real, judged = fgsm.attack, attack.predict

    def spied(model, x, *given):
        with frozen(model):
            attacked.append(convolved_in(model, x))
        return real(model, x, *given)

    monkeypatch.setattr(fgsm, "attack", spied)
    monkeypatch.setattr(attack, "predict", lambda model, x: asked.append(convolved_in(model, x)) or judged(model, x))
    todo = blocks(20, 20, 0)
    found = {
        search: attack.attack_run({"best": path}, data, todo, ["fgsm"], THREAT, CPU, search=search)
        for search in ("fp32", "bf16")
    }
    assert attacked == [torch.float32, torch.bfloat16]
    assert set(asked) == {torch.float32}
    assert found["bf16"]["prediction"].equals(found["fp32"]["prediction"])


def test_tables_say_that_the_search_was_in_bfloat16(tmp_path):
    (tmp_path / "bf16.yaml").write_text("evaluation: {search: bf16}")
    assert load("params.yaml", str(tmp_path / "bf16.yaml")).matrix()["threat"].endswith("attacks searched in bfloat16")
    assert "bfloat16" not in load("params.yaml").matrix()["threat"]


def test_exact_changes_nothing():
    model = network(4, 1)
    assert prepared(model, "exact", trained=True) is model
    assert "features" not in vars(model)
    assert all(parameter.is_contiguous() for parameter in model.parameters())


@pytest.fixture
def traced(monkeypatch):
    """torch.compile as far as tracing: which graphs there are is known, and none becomes machine code."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield lambda: torch._dynamo.utils.counters["stats"]["unique_graphs"]
    torch._dynamo.reset()


def steps(model, *batches):
    for x in batches:
        model.train()
        attacked = maximise(model, x, lambda logits: logits.sum(1), THREAT, steps=2, step_size=0.01, start="zero")
        output(model, attacked).logits.sum().backward()
        output(model, x).logits.sum().backward()


@pytest.mark.parametrize("name", OWN)
def test_a_step_takes_two_whole_graphs(name, x, traced):
    """One for the image's gradient, one for the weights'."""
    steps(prepared(built(name), "bf16", trained=True, compiled=True), x[:2], x[2:])
    assert traced() == 2


def test_the_last_batch_of_an_epoch_has_graphs_of_its_own(x, traced):
    steps(prepared(built("convnet"), "fp32", trained=True, compiled=True), x, x[:3], x, x[:3])
    assert traced() == 4


class Syncs(TorchDispatchMode):
    """Operations that make the host wait for what a device computed."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, called, types, given=(), named=None):
        if called._schema.name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select"):
            self.found.append(called._schema.name)
        return called(*given, **(named or {}))


@pytest.mark.parametrize("name", methods.names())
def test_no_step_waits_for_the_device(name, data):  # noqa: F811
    method, model = methods.get(name)(**OPTIONS.get(name, {})), network(4, 1)
    width = 16 if method.needs.teacher_features else 0
    state, teacher = method_state(method, data, model, width, 0), LiveTeacher(network(8, 2).eval())
    trainer = Trainer(model, method, SETTINGS, THREAT, 0, state, teacher)
    batch = next(batches(data, SCHEME, SETTINGS, 0, 1, CPU))
    trainer.step(*batch, 1, 0)
    with Syncs() as syncs:
        found = trainer.step(*batch, 1, 1)
        assert syncs.found == []
        float(found["loss"])
    assert syncs.found == ["aten::_local_scalar_dense"]  # that one is seen


def test_a_compiled_training_repeats_itself_and_goes_as_the_eager_one(data):  # noqa: F811
    def trained(**options):
        model = prepared(network(4, 1), "fp32", trained=True, **options)
        trainer = Trainer(model, methods.get("sat")(), SETTINGS, THREAT, 0)
        metrics = train(trainer, data.first(64), data.first(32), SCHEME, CPU).counts.metrics
        return weights_digest(model.state_dict()), metrics

    first, eager = trained(compiled=True), trained()
    assert trained(compiled=True) == first
    for ours, known in zip(first[1], eager[1], strict=True):
        assert ours["loss"] == pytest.approx(known["loss"], rel=1e-3)


def test_looks_for_best_take_no_graphs(data, traced):  # noqa: F811
    """Images that fall drop out of them, at every look others."""
    model = prepared(network(4, 1), "fp32", trained=True, compiled=True)
    trainer = Trainer(model, methods.get("sat")(), SETTINGS.model_copy(update={"epochs": 3}), THREAT, 0)
    train(trainer, data.first(2 * SETTINGS.batch_size), data.first(50), SCHEME, CPU)
    assert traced() == 2


def test_long_trainings_pay_for_their_compiler():
    assert not pays(PAYS["cpu"] / 2, CPU)
    assert pays(2 * PAYS["cpu"], CPU)
