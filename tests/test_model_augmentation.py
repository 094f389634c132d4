"""Transfer attacks whose gradients are averaged over transformed copies, against loops over pixels and hand gradients.

Every operation is affine around an image, T(x) = A x + b. The tests write A and b pixel by pixel; from these and the
gradients of a small network by hand follow the steps of whole attacks.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from bad_input import dumped, parsed
from torch import nn

from robust_distillation import attacks, config
from robust_distillation.attacks.augmented import OPERATIONS, AugmentedModel, attack_augmented, transformed
from robust_distillation.attacks.core import starting_noise
from robust_distillation.attacks.policy import AUTOMA, Branch, ModelAugmentation, Operation
from robust_distillation.augmentations.draws import Draws
from robust_distillation.data.dataset import load
from robust_distillation.evaluation.attack import attack_block, attack_run
from robust_distillation.evaluation.blocks import blocks, shard
from robust_distillation.export.card import describe_attack
from robust_distillation.models.checkpoint import build_model, save_checkpoint
from robust_distillation.models.precision import EXACT, load_for_inference
from robust_distillation.randomness import derived_seed, generator
from robust_distillation.reporting import tables
from robust_distillation.reporting.table_spec import TableSpec, metric_title
from robust_distillation.settings import ThreatModel

SHAPE = (2, 12, 6)
SIZE = math.prod(SHAPE)
CPU = torch.device("cpu")
MODULES = {name: attacks.registry.module(name) for name in attacks.names()}
ABLE = [name for name, module in MODULES.items() if getattr(module, "AUGMENTABLE", False)]
LINF, L2 = ThreatModel(norm="linf", eps=0.1), ThreatModel(norm="l2", eps=0.5)


def pixel(channel: int, row: int, column: int) -> int:
    return (channel * SHAPE[1] + row) * SHAPE[2] + column


def moving(source) -> tuple[np.ndarray, np.ndarray]:
    """A and b of a map that takes every pixel (row, column) from source(row, column); None: grey."""
    a, b = np.zeros((SIZE, SIZE)), np.zeros(SIZE)
    for channel in range(SHAPE[0]):
        for row in range(SHAPE[1]):
            for column in range(SHAPE[2]):
                found = source(row, column)
                to = pixel(channel, row, column)
                if found is None or not (0 <= found[0] < SHAPE[1] and 0 <= found[1] < SHAPE[2]):
                    b[to] = 0.5
                else:
                    a[to, pixel(channel, *found)] = 1
    return a, b


def affine(operation: Operation, x: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A and b of an operation for each image of the batch x [B,SIZE]."""
    count, (height, width) = len(x), SHAPE[1:]
    draws = Draws(seed, np.zeros(count, np.int64), np.arange(count))
    chosen, strengths = draws.uniform() < operation.probability, draws.integers(0, operation.range)
    name, maps = operation.name, []
    if name == "resize_padding":
        sizes = [[2 * (1 + int(m * side / 100)) for m in strengths] for side in (height, width)]
        tops, lefts = (draws.integers(0, np.array(lost)) for lost in sizes)
    elif name == "translation":
        signs = [np.where(draws.uniform() < 0.5, -1, 1) for _ in range(2)]
    elif name == "rotation":
        sign = np.where(draws.uniform() < 0.5, -1, 1)
    elif name == "gaussian_noise":
        noise = torch.randn(count, *SHAPE, generator=generator(seed, "noise")).double().numpy().reshape(count, -1)
    for i in range(count):
        m, one = int(strengths[i]), np.eye(SIZE)
        if not chosen[i]:
            maps.append((one, np.zeros(SIZE)))
        elif name == "resize_padding":
            h, w, top, left = height - sizes[0][i], width - sizes[1][i], int(tops[i]), int(lefts[i])
            maps.append(
                moving(
                    lambda r, c, h=h, w=w, top=top, left=left: (
                        (math.floor((r - top) * height / h), math.floor((c - left) * width / w))
                        if top <= r < top + h and left <= c < left + w
                        else None
                    )
                )
            )
        elif name == "translation":
            down, right = (int(s[i]) * int(0.02 * m * side + 1e-9) for s, side in zip(signs, SHAPE[1:], strict=True))
            maps.append(moving(lambda r, c, down=down, right=right: (r - down, c - right)))
        elif name == "rotation":
            turn = complex(math.cos(math.radians(3 * m)), int(sign[i]) * math.sin(math.radians(3 * m)))
            centre = complex((height - 1) / 2, (width - 1) / 2)

            def turned(r, c, turn=turn, centre=centre):
                z = (complex(r, c) - centre) * turn + centre
                return round(z.real), round(z.imag)

            maps.append(moving(turned))
        elif name == "horizontal_flip":
            maps.append(moving(lambda r, c: (r, width - 1 - c)))
        elif name == "vertical_flip":
            maps.append(moving(lambda r, c: (height - 1 - r, c)))
        elif name == "scaling":
            maps.append(((1 - m / 10) * one, np.full(SIZE, 0.5 * m / 10)))
        elif name == "invert":
            maps.append((-one, np.ones(SIZE)))
        elif name == "solarize":
            above = x[i] > 1 - 0.09 * m
            maps.append((np.diag(np.where(above, -1.0, 1.0)), above.astype(float)))
        else:
            noised = x[i] + m / 60 * noise[i]
            inside = (noised > 0) & (noised < 1)
            maps.append((np.diag(inside.astype(float)), np.where(inside, m / 60 * noise[i], noised >= 1)))
    return maps


def composed(branch: Branch, x: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A and b of all operations of a branch for each image."""
    maps, now = [(np.eye(SIZE), np.zeros(SIZE)) for _ in x], x
    for place, operation in enumerate(branch.operations):
        steps = affine(operation, now, derived_seed(seed, place))
        maps = [(a2 @ a1, a2 @ b1 + b2) for (a1, b1), (a2, b2) in zip(maps, steps, strict=True)]
        now = np.stack([a @ one + b for (a, b), one in zip(maps, x, strict=True)])
    return maps


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=generator(seed, "images"), dtype=torch.float64)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_and_its_gradient_against_loops_over_pixels(name):
    x = images(12)
    operation = Operation(name=name, probability=0.8, range=10)
    x.requires_grad_(True)
    found = transformed(x, Branch(operations=[operation]), 7)
    upstream = torch.randn(found.shape, generator=generator(1, "upstream"), dtype=torch.float64)
    [gradient] = torch.autograd.grad((found * upstream).sum(), [x])
    flat, g = x.detach().flatten(1).numpy(), upstream.flatten(1).numpy()
    maps = affine(operation, flat, derived_seed(7, 0))
    for i, (a, b) in enumerate(maps):
        assert found[i].detach().flatten().numpy() == pytest.approx(a @ flat[i] + b, abs=1e-12)
        assert gradient[i].flatten().numpy() == pytest.approx(a.T @ g[i], abs=1e-12)
    changed = (found.detach() != x.detach()).flatten(1).any(1)
    assert 4 <= changed.sum() <= 12
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_operations_are_those_of_the_settings():
    named = "resize_padding translation rotation gaussian_noise horizontal_flip vertical_flip scaling invert solarize"
    assert " ".join(OPERATIONS) == " ".join(Operation.model_fields["name"].annotation.__args__) == named


def test_default_is_the_released_policy():
    """Types by number, probabilities in tenths and ranges as in autoaug_op3_avg.txt of the authors' code."""
    released = [
        [9, [6, 9, 6], [2, 2, 7], [0, 8, 8]],
        [9, [0, 4, 3], [8, 0, 2], [2, 0, 4]],
        [9, [0, 8, 4], [4, 6, 2], [8, 2, 1]],
    ]
    types = Operation.model_fields["name"].annotation.__args__  # in the order of the numbers of the code
    expected = [
        Branch(
            weight=weight / 9,
            operations=[Operation(name=types[t], probability=p / 10, range=r) for t, p, r in operations],
        )
        for weight, *operations in released
    ]
    assert ModelAugmentation().branches == expected == AUTOMA


class Tiny(nn.Module):
    """z = V tanh(W x), whose gradients are simple."""

    def __init__(self):
        super().__init__()
        draws = np.random.default_rng(3)
        self.w, self.v = draws.normal(0, 0.5, (6, SIZE)), draws.normal(0, 2, (4, 6))

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ torch.from_numpy(self.w).T) @ torch.from_numpy(self.v).T

    def logits_and_hidden(self, x: np.ndarray):
        hidden = np.tanh(self.w @ x)
        return self.v @ hidden, hidden

    def gradient(self, x: np.ndarray, label: int, objective: str) -> np.ndarray:
        z, hidden = self.logits_and_hidden(x)
        if objective == "margin":
            other = max((k for k in range(len(z)) if k != label), key=lambda k: z[k])
            on_z = np.zeros(len(z))
            on_z[other], on_z[label] = 1, -1
        else:
            on_z = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            on_z[label] -= 1
        return self.w.T @ ((self.v.T @ on_z) * (1 - hidden**2))


POLICY = ModelAugmentation(
    copies=2,
    branches=[
        Branch(weight=3.0, operations=[Operation(name="rotation", range=6), Operation(name="scaling", range=5)]),
        Branch(
            operations=[
                Operation(name="resize_padding", probability=0.7, range=9),
                Operation(name="solarize", probability=0.5, range=8),
                Operation(name="gaussian_noise", range=7),
                Operation(name="horizontal_flip", probability=0.5),
            ]
        ),
        Branch(weight=0.5),
    ],
)
RUNS = {  # attack: threat model, steps, size of a step, objective
    "fgsm-linf": (LINF, 1, LINF.eps, "ce"),
    "fgsm-l2": (L2, 1, L2.eps, "ce"),
    "pgd20-linf": (LINF, 20, LINF.eps / 4, "ce"),
    "pgd20-l2": (L2, 20, L2.eps / 4, "ce"),
    "cw-linf": (LINF, 20, 2 / 255, "margin"),
    "pgd_sat-linf": (LINF, 20, 2 / 255, "ce"),
    "pgd_trades-linf": (LINF, 20, 0.003, "ce"),
    "mifgsm-linf": (LINF, 10, LINF.eps / 10, "ce"),
    "mifgsm-l2": (L2, 10, L2.eps / 10, "ce"),
}


def averaged_gradient(
    model: Tiny, x: np.ndarray, labels: list[int], objective: str, seed: int, step: int
) -> np.ndarray:
    """Mean gradient over the six copies, with the weights 3, 1, 1/2, 3, 1, 1/2, from matrices."""
    total = np.zeros_like(x)
    for copy in range(6):
        branch, weight = POLICY.branches[copy % 3], (3, 1, 0.5)[copy % 3] / 9
        maps = composed(branch, x, derived_seed(seed, "model augmentation", step, copy))
        for i, (a, b) in enumerate(maps):
            total[i] += weight * (a.T @ model.gradient(a @ x[i] + b, labels[i], objective))
    return total


SLOW = ("pgd20-l2", "pgd_sat-linf", "pgd_trades-linf")


@pytest.mark.parametrize("run", [pytest.param(run, marks=pytest.mark.slow) if run in SLOW else run for run in RUNS])
@pytest.mark.slow
def test_attack_against_matrices(run):
    name, (threat, steps, size, objective) = run.split("-")[0], RUNS[run]
    model, labels, count = Tiny().eval(), [0, 3], 2
    x = images(count, seed=5)
    found = attack_augmented(MODULES[name].attack, model, x, torch.tensor(labels), threat, 11, POLICY)
    clean = x.flatten(1).numpy()
    now, momentum = clean, np.zeros_like(clean)
    if name not in ("fgsm", "mifgsm"):  # attacks with a random start; that of the whole repeated batch is drawn
        noise = starting_noise(x.repeat(6, 1, 1, 1), threat, "uniform", generator(11, name))[:count]
        now = projected(clean, clean + noise.flatten(1).numpy(), threat)
    for step in range(steps):
        g = averaged_gradient(model, now, labels, objective, 11, step)
        if name == "mifgsm":
            momentum = momentum + g / np.abs(g).mean(1, keepdims=True)
            g = momentum
        way = np.sign(g) if threat.norm == "linf" else g / np.linalg.norm(g, axis=1, keepdims=True)
        now = projected(clean, now + size * way, threat)
    assert found.flatten(1).numpy() == pytest.approx(now, abs=1e-9)
    assert found.shape == x.shape


def projected(clean: np.ndarray, x: np.ndarray, threat: ThreatModel) -> np.ndarray:
    if threat.norm == "linf":
        return np.clip(np.clip(x, clean - threat.eps, clean + threat.eps), 0, 1)
    length = np.linalg.norm(x - clean, axis=1, keepdims=True)
    return np.clip(clean + (x - clean) * np.minimum(1, threat.eps / np.maximum(length, 1e-12)), 0, 1)


def test_every_attack_with_the_flag_is_tested_here_and_none_of_autoattack_has_it():
    assert set(ABLE) == {run.split("-")[0] for run in RUNS} == set(MODULES) - {"square", "apgd_ce_t", "autoattack"}


@pytest.mark.parametrize("name", ABLE)
def test_one_copy_without_operations_is_the_plain_attack(name):
    """Bit for bit, in float32, with the same starting noise."""
    model = build_model({"name": "convnet", "width": 4}, (1, 8, 8), 10, 1).eval()
    x, labels = torch.rand(6, 1, 8, 8, generator=generator(2, "x")), torch.arange(6)
    plain = MODULES[name].attack(model, x, labels, LINF, 3)
    alone = ModelAugmentation(branches=[Branch()])
    assert torch.equal(attack_augmented(MODULES[name].attack, model, x, labels, LINF, 3, alone), plain)
    augmented = attack_augmented(MODULES[name].attack, model, x, labels, LINF, 3, ModelAugmentation())
    assert not torch.equal(augmented, plain)
    assert (augmented - x).abs().max() <= LINF.eps + 1e-6
    assert model.training is False
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_first_gradients_of_an_image_do_not_depend_on_the_others():
    """The transformations of an image follow from its position. (FGSM has no starting noise.)"""
    model, x, labels = Tiny().eval(), images(5), torch.tensor([0, 1, 2, 3, 0])
    policy = ModelAugmentation()
    found = attack_augmented(MODULES["fgsm"].attack, model, x, labels, L2, 3, policy)
    others = torch.cat([x[:2], images(3, seed=9)])
    again = attack_augmented(MODULES["fgsm"].attack, model, others, labels, L2, 3, policy)
    assert torch.allclose(found[:2], again[:2], atol=1e-12)
    assert not torch.allclose(found[2:], again[2:], atol=1e-3)


def test_every_pass_copy_and_seed_draws_anew():
    seen = []

    class Recording(nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.flatten(1)[:, :3]

    x = images(1)
    policy = ModelAugmentation(copies=2, branches=[Branch(operations=[Operation(name="gaussian_noise", range=10)] * 3)])
    for seed in (0, 1):
        model = AugmentedModel(Recording(), policy, seed)
        for _ in range(2):
            model(x.repeat(2, 1, 1, 1))
    rows = torch.cat(seen).flatten(1)
    assert len(rows) == 8
    assert len({tuple(row.tolist()) for row in rows}) == 8


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A student's checkpoint and another network as surrogate, both trained for a moment."""
    data = load("digits", "train")
    x, labels, found = data.floats(data.images[:300]), data.labels[:300], []
    for width in (4, 6):
        torch.manual_seed(width)
        model = build_model({"name": "convnet", "width": width}, (1, 8, 8), 10, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
        for _ in range(40):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), labels).backward()
            optimizer.step()
        found.append(model.eval())
    path = tmp_path_factory.mktemp("student") / "best.safetensors"
    about = {"shape": list(data.info.shape), "classes": list(data.info.classes)}
    save_checkpoint(path, found[0].state_dict(), {"architecture": {"name": "convnet", "width": 4}, "dataset": about})
    return path, found[1]


@pytest.mark.slow
def test_outcomes_do_not_depend_on_the_jobs_and_go_on_after_a_stop(networks):
    """One job, three jobs, and one attack that was saved before: the same table; the plain attack is untouched."""
    path, surrogate = networks
    data, threat, cut = load("digits", "test"), ThreatModel(eps=0.15), blocks(50, 10, 0)
    names = ["transfer_pgd20", "transfer_augmented_pgd20", "transfer_augmented_mifgsm"]

    def attacked(todo, names=names, augmentation=ModelAugmentation()):  # noqa: B008 (immutable)
        found = attack_run({"best": path}, data, todo, names, threat, CPU, surrogate, augmentation=augmentation)
        return found.sort_values("index", ignore_index=True)

    whole = attacked(cut)
    parts = pd.concat([attacked(shard(cut, job, 3)) for job in (1, 2, 3)]).sort_values("index", ignore_index=True)
    pd.testing.assert_frame_equal(parts, whole)
    plain = attacked(cut, names[:1], None)
    pd.testing.assert_frame_equal(plain, whole[list(plain)])
    assert 0.1 < whole["transfer_augmented_pgd20"].mean() < whole["prediction"].eq(whole["label"]).mean()
    confidences = [f"{name}.confidence" for name in names[:2]]
    assert (whole[confidences[0]] != whole[confidences[1]]).any()

    model, results = load_for_inference(path, EXACT, CPU), {}
    attack_block(model, data, cut[1], names[:2], threat, CPU, surrogate, results, augmentation=ModelAugmentation())
    again = attack_block(model, data, cut[1], names, threat, CPU, surrogate, results, augmentation=ModelAugmentation())
    expected = whole[whole["block"] == 1].drop(columns="checkpoint").reset_index(drop=True)
    pd.testing.assert_frame_equal(again[list(expected)], expected)


def experiment_with(folder, attacks, **evaluation):
    """params.yaml with other attacks, on the teacher `wide` as surrogate."""
    raw = parsed()
    raw["evaluation"] = {"images": 300, "attacks": attacks, "surrogate": "wide", **evaluation}
    file = folder / "experiment.yaml"
    file.write_text(dumped(raw))
    return config.load(file)


def test_settings_records_and_captions_say_it_only_where_it_is_asked_for(tmp_path):
    plain = experiment_with(tmp_path, ["fgsm", "transfer_cw"])
    unused = experiment_with(tmp_path, ["fgsm", "transfer_cw"], model_augmentation={"copies": 3})
    assert "model_augmentation" not in plain.attack_settings(["best"])["evaluation"]
    assert unused.attack_settings(["best"]) == plain.attack_settings(["best"])
    assert unused.matrix() == plain.matrix()
    assert "augmented" not in plain.matrix()
    asked = experiment_with(tmp_path, ["transfer_cw", "transfer_augmented_cw"], model_augmentation={})
    written = asked.attack_settings(["best"])["evaluation"]["model_augmentation"]
    assert written["branches"][0]["operations"][0] == {"name": "scaling", "probability": 0.9, "range": 6}
    spec = TableSpec(**asked.matrix())
    assert spec.augmented == (
        "transfer augmented: in each step the surrogate's gradient is the mean over 3 randomly transformed copies "
        "(AutoMA-style: its released policy)."
    )
    own = ModelAugmentation(branches=[Branch(operations=[Operation(name="rotation", range=3)])])
    assert own.describe().endswith("the mean over a randomly transformed copy (rotation).")
    rows = [
        {"teacher": "none", "student": "small", "method": "sat", "checkpoint": "best", "metric": metric, "mean": 50.0}
        | {"n_seeds": 1, "n_images": 300, "sd": math.nan}
        for metric in ("transfer_cw", "transfer_augmented_cw")
    ]
    assert tables.caption(pd.DataFrame(rows), spec).endswith(spec.augmented)
    assert spec.augmented not in tables.caption(pd.DataFrame(rows[:1]), spec)


def test_titles_and_descriptions_of_augmented_attacks():
    assert metric_title("transfer_augmented_pgd20") == "transfer augmented PGD-20"
    assert metric_title("worst_class.transfer_augmented_mifgsm").endswith(", transfer augmented MI-FGSM")
    assert metric_title("transfer_pgd20") == "transfer PGD-20"
    description = describe_attack("transfer_augmented_mifgsm")
    assert description.startswith("MI-FGSM (Dong et al., CVPR 2018)")
    assert description.endswith("Its gradient is averaged over transformed copies of each image.")
