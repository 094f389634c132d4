"""Modes of computing: what each of them changes, and what none may."""

from __future__ import annotations

import copy
import functools
from collections import Counter

import pandas as pd
import pytest
import torch
from test_training import CPU, SCHEME, SETTINGS, THREAT, data, network, trainer_of  # noqa: F401 (a fixture)
from torch.utils._python_dispatch import TorchDispatchMode

from robust_distillation import methods, models
from robust_distillation.attacks import fgsm
from robust_distillation.attacks.core import pgd
from robust_distillation.config import load
from robust_distillation.evaluation import attack
from robust_distillation.evaluation.blocks import blocks
from robust_distillation.models.checkpoint import build_model, save_checkpoint, weights_digest
from robust_distillation.models.frozen import frozen
from robust_distillation.models.normalised import Normalised
from robust_distillation.models.output import output
from robust_distillation.models.precision import (
    COMPILE_MIN_FLOPS,
    INFERENCE,
    SEARCH,
    TRAIN,
    configure_precision,
    evaluation_precision,
    fold_batch_norm,
    should_compile,
)
from robust_distillation.models.robustbench import RobustBenchModel
from robust_distillation.reporting import claims, comparisons, tables
from robust_distillation.reporting.table_spec import TableSpec
from robust_distillation.settings import Compute
from robust_distillation.training.batches import batches
from robust_distillation.training.loop import evaluate, train
from robust_distillation.training.trainer import Trainer

FAST = ("fp32", "bf16-inner", "bf16")
SMALL = {
    "convnet": {}, "resnet": {"width": 4}, "preact_resnet": {"width": 4}, "mobilenet_v2": {},
    "cifar_resnet": {"depth": 20, "width": 4},
    "wide_resnet": {"depth": 10, "width": 1}, "dm_wide_resnet": {"depth": 10, "width": 1},
}  # fmt: skip
OWN = [name for name in models.names() if name != "robustbench"]  # that one needs a package of its own


def built(name: str):
    return build_model({"name": name, **SMALL[name]}, (3, 32, 32), 10)


@pytest.fixture
def x():
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Convolved(TorchDispatchMode):
    """The types of what convolutions answer."""

    def __init__(self):
        super().__init__()
        self.types = set()

    def __torch_dispatch__(self, called, types, args=(), kwargs=None):
        answer = called(*args, **(kwargs or {}))
        if called._schema.name == "aten::convolution":
            self.types.add(answer.dtype)
        return answer


def convolved_in(model, x) -> torch.dtype:
    """The type of what all of the model's convolutions answer."""
    with Convolved() as seen:
        model(x)
    [found] = seen.types
    return found


def used(model):
    """With statistics of batch norm that are not those it begins with."""
    draws = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(generator=draws)
            module.running_var.uniform_(0.5, 2, generator=draws)
    return model.eval()


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("use", [TRAIN, INFERENCE, SEARCH])
@pytest.mark.parametrize("precision", FAST)
@pytest.mark.slow
def test_every_network_answers_nearly_the_same(precision, use, name, x):
    """So do its gradients in the image, in which nothing of it is left asking for one."""
    known, weights = used(built(name)), built(name).state_dict()
    model = configure_precision(copy.deepcopy(known), precision, use)
    low = use == SEARCH or (use == TRAIN and precision != "fp32")
    gradients = []
    for answering in (known, model):
        with frozen(answering):
            asked = x.clone().requires_grad_()
            answering(asked).square().sum().backward()
            gradients.append(asked.grad)
    pairs = [gradients, *zip(output(known, x), output(model, x), strict=True)]
    for expected, found in pairs:
        assert found.dtype == torch.float32
        off = 0.3 if low and expected is gradients[0] else 0.1 if low else 2e-4
        assert (found - expected).norm() < off * expected.norm()
    assert model.state_dict().keys() == weights.keys()


@pytest.mark.parametrize(("name", "left"), [("resnet", 0), ("mobilenet_v2", 0), ("preact_resnet", 9)])
def test_batch_norm_is_folded_where_it_follows_a_convolution(name, left, x):
    model = used(built(name))
    modules = list(fold_batch_norm(model).modules())
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in modules) == left
    assert all(not parameter.requires_grad for module in modules for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_all_own_networks_are_folded_normalised_or_not(name, normalised, x):
    model = Normalised(built(name), [0.5] * 3, [0.2] * 3) if normalised else built(name)
    known = used(copy.deepcopy(model))
    with Named() as plain:
        known(x)
    with Named() as fewer:
        configure_precision(used(model), "fp32")(x)
    assert fewer.counts["aten::native_batch_norm"] < plain.counts["aten::native_batch_norm"]


class Named(TorchDispatchMode):
    """How often each operation is called."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, called, types, args=(), kwargs=None):
        self.counts[called._schema.name] += 1
        return called(*args, **(kwargs or {}))


class Twice(torch.nn.Module):
    """One convolution under two batch norms, into which none can be folded."""

    def __init__(self):
        super().__init__()
        self.convolution, self.first, self.second = torch.nn.Conv2d(3, 3, 1), *map(torch.nn.BatchNorm2d, (3, 3))
        self.classifier = torch.nn.Linear(3, 10)

    def features(self, x):
        return self.second(self.convolution(self.first(self.convolution(x)))).mean((2, 3))

    def forward(self, x):
        return self.classifier(self.features(x))


def hooked() -> RobustBenchModel:
    """Its features are what a hook sees, and torch.fx runs none."""
    return RobustBenchModel(
        torch.nn.Sequential(
            torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
            torch.nn.Linear(3, 10),
        )
    )  # fmt: skip


@pytest.mark.parametrize("network", [Twice, lambda: Normalised(Twice(), [0.5] * 3, [0.2] * 3), hooked])
@pytest.mark.parametrize("use", [TRAIN, INFERENCE, SEARCH])
def test_networks_that_do_not_say_they_can_be_folded_are_not(network, use, x):
    model = used(network())
    known = model(x)
    configure_precision(model, "bf16", use)
    assert convolved_in(model, x) == (torch.float32 if use == INFERENCE else torch.bfloat16)
    for found in (model(x), output(model, x).logits):
        assert torch.allclose(found, known, atol=1e-6 if use == INFERENCE else 0.05)


@pytest.mark.parametrize(
    ("precision", "trained", "borrowed"),
    [
        ("fp32", torch.float32, torch.float32),
        ("bf16-inner", torch.float32, torch.bfloat16),
        ("bf16", torch.bfloat16, torch.bfloat16),
    ],
)
def test_passes_that_run_in_bfloat16_are_those_named(precision, trained, borrowed, x):
    model = configure_precision(network(4, 1), precision, TRAIN)
    x = x[:, :1, :8, :8]
    assert convolved_in(model, x) == trained
    with frozen(model):
        assert convolved_in(model, x) == borrowed
        with evaluation_precision():
            assert convolved_in(model, x) == torch.float32
        assert convolved_in(model, x) == borrowed


@pytest.mark.parametrize("precision", FAST)
def test_what_is_not_trained_answers_in_fp32(precision, x):
    model = configure_precision(network(4, 1), precision)
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

    def spied(model, x, *args):
        with frozen(model):
            attacked.append(convolved_in(model, x))
        return real(model, x, *args)

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


def test_a_best_is_chosen_in_fp32(data):  # noqa: F811
    model = configure_precision(network(4, 1), "bf16", TRAIN)
    trainer = Trainer(model, methods.get("sat")(), SETTINGS, THREAT, 0)
    with Convolved() as seen:
        evaluate(trainer, data.first(20), CPU)
    assert seen.types == {torch.float32}


def test_tables_say_where_the_search_was_in_bfloat16(tmp_path):
    """Transfers and analyses never do."""
    (tmp_path / "bf16.yaml").write_text("evaluation: {search: bf16}")
    low, full = (TableSpec(**load("params.yaml", overlay).matrix()) for overlay in (str(tmp_path / "bf16.yaml"), None))
    empty = pd.DataFrame(columns=["student"])
    judged = pd.DataFrame({"verdict": ["supported"], "scale": ["digits"]})

    def captions(spec):
        return tables.caption(empty, spec), comparisons.caption(spec), claims._caption(judged, spec)

    for told in captions(low):
        assert "attacks searched in bfloat16" in told
    for told in (*captions(full), low.threat, low.transferred([]).threat):
        assert "bfloat16" not in told


def test_exact_changes_nothing():
    model = network(4, 1)
    assert configure_precision(model, "exact", TRAIN) is model
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
        attacked = pgd(model, x, lambda x, logits: logits.sum(1), THREAT, steps=2, step_size=0.01)
        output(model, attacked).logits.sum().backward()
        output(model, x).logits.sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_a_step_takes_two_whole_graphs(name, x, traced):
    """One for the image's gradient, one for the weights'."""
    steps(configure_precision(built(name), "bf16", TRAIN, compiled=True), x[:2], x[2:])
    assert traced() == 2


def test_the_last_batch_of_an_epoch_has_graphs_of_its_own(x, traced):
    steps(configure_precision(built("convnet"), "fp32", TRAIN, compiled=True), x, x[:3], x, x[:3])
    assert traced() == 4


INDEXED = ("aten::index", "aten::index_put", "aten::index_put_")  # by a mask: as many as are true
WAITS = (
    "aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2",
    "aten::unique_dim", "aten::repeat_interleave", "aten::bincount",
)  # fmt: skip


class Syncs(TorchDispatchMode):
    """Operations that make the host wait for what a device computed."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, called, types, args=(), kwargs=None):
        name, answer = called._schema.name, called(*args, **(kwargs or {}))
        masks = [index for index in args[1] or () if index is not None] if name in INDEXED else []
        if name in WAITS or any(mask.dtype == torch.bool for mask in masks):
            self.found.append(name)
        return answer


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x[x > 1],
        lambda x: x.nonzero(), lambda x: x.unique(), lambda x: torch.equal(x, x), lambda x: torch.where(x > 1),
        lambda x: x.__setitem__(x > 1, torch.tensor([0.0])), lambda x: x.repeat_interleave(x.long()),
    ],
)  # fmt: skip
def test_what_waits_for_a_device_is_seen(waits):
    with Syncs() as syncs:
        waits(torch.arange(4.0))
    assert syncs.found


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.slow
def test_no_step_waits_for_the_device(name, data):  # noqa: F811
    trainer = trainer_of(name, data)
    batch = next(batches(data, SCHEME, SETTINGS, 0, 1, CPU))
    trainer.step(batch)
    with Syncs() as syncs:
        found = trainer.step(batch)
        assert syncs.found == []
        float(found["loss"])
    assert syncs.found == ["aten::_local_scalar_dense"]  # that one is seen


@pytest.mark.slow
def test_a_compiled_training_repeats_itself_and_goes_as_the_eager_one(data):  # noqa: F811
    def trained(**options):
        model = configure_precision(network(4, 1), "fp32", TRAIN, **options)
        trainer = Trainer(model, methods.get("sat")(), SETTINGS, THREAT, 0)
        metrics = train(trainer, data.first(64), data.first(32), SCHEME, CPU).counts.metrics
        return weights_digest(model.state_dict()), metrics

    first, eager = trained(compiled=True), trained()
    assert trained(compiled=True) == first
    for ours, known in zip(first[1], eager[1], strict=True):
        assert ours["loss"] == pytest.approx(known["loss"], rel=1e-3)


@pytest.mark.slow
def test_looks_for_best_take_no_graphs(data, traced):  # noqa: F811
    """Images that fall drop out of them, at every validation others."""
    model = configure_precision(network(4, 1), "fp32", TRAIN, compiled=True)
    trainer = Trainer(model, methods.get("sat")(), SETTINGS.model_copy(update={"epochs": 3}), THREAT, 0)
    train(trainer, data.first(2 * SETTINGS.batch_size), data.first(50), SCHEME, CPU)
    assert traced() == 2


def test_long_trainings_pay_for_their_compiler():
    left_open, asked, never = Compute(precision="fp32"), Compute(precision="fp32", compile=True), Compute()
    assert not should_compile(left_open, COMPILE_MIN_FLOPS["cpu"] / 2, "cpu")
    assert should_compile(left_open, 2 * COMPILE_MIN_FLOPS["cpu"], "cpu")
    assert should_compile(asked, 1, "cpu")
    assert not should_compile(never, 1e30, "cpu")
