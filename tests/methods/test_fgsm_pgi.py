"""FGSM-PGI (Jia et al., ECCV 2022) against its formula and its released code, and its table of starts through kills."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import killed_training
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from formulas import ce, close, log_softmax
from pydantic import ValidationError
from released import SEED, Case, Code, check_five_steps, experiment_of
from single_step import clipped, differing_pixels
from tabulated import Tabulated, check_loss, example
from test_training import CPU, SCHEME, SETTINGS, data, trainer_of  # noqa: F401 (a fixture)

from robust_distillation import methods
from robust_distillation.errors import UserError
from robust_distillation.methods.fgsm_pgi import FGSMPGI
from robust_distillation.methods.table import ImageTable
from robust_distillation.models.output import Output
from robust_distillation.randomness import generator
from robust_distillation.resume import ResumableJob
from robust_distillation.training import loop
from robust_distillation.training import step as training_step
from robust_distillation.training.batches import batches
from robust_distillation.training.loop import train
from robust_distillation.training.step import BatchStep, smoothed
from robust_distillation.training.tables import TableFiles

EPS = 8 / 255
PIXELS = (1, 2, 2)


class Prior(Tabulated):
    """A step whose student answers the start from the table `start`, with a known gradient in the image, and x' from
    the table `adversarial`."""

    def __init__(self, z, y, table=None, x=None, slope=None):
        super().__init__(z, y, {"starts": table or ImageTable(len(y))})
        rng = np.random.default_rng(3)
        self.x = torch.tensor(rng.random((len(y), *PIXELS))) if x is None else x
        self.slope = torch.tensor(rng.normal(size=(z.start.shape[1], 4))) if slope is None else slope
        self.draws = torch.tensor(rng.random((len(y), *PIXELS)))
        self.seen = []

        def student(images, *, train):
            assert train
            self.seen.append(images.detach())
            name = "start" if len(self.seen) == 1 else "adversarial"
            logits = self.answer(name, True).logits
            if name == "start":
                logits = logits + (images - images.detach()).flatten(1) @ self.slope.T
            return Output(logits)

        self.student = student

    def uniform(self, *shape):
        assert shape == PIXELS
        return self.draws


def tables(classes, seed=0, epoch=3):
    return example(classes, seed, names=("start", "adversarial"), epoch=epoch)


@pytest.mark.parametrize("classes", [10, 3])
@pytest.mark.parametrize("kl_scale", ["sum", "mean"])
@pytest.mark.parametrize("settings", [{}, {"weight": 0.7}, {"prior": "epoch"}, {"weight": 0.0}])
def test_loss_and_its_gradient_in_both_outputs(settings, classes, kl_scale):
    z, y = tables(classes)
    weight = settings.get("weight", 10.0)

    def formula(z, _):
        return ce(z.adversarial, y) + weight * ((z.adversarial - z.start) ** 2).mean(1), 0 * y

    step = Prior(z, y)
    check_loss(methods.get("fgsm_pgi")(**settings), step, formula, classes, kl_scale)
    assert len(step.seen) == 2


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("project_start", [True, False])
@pytest.mark.parametrize("prior", ["momentum", "epoch"])
def test_starts_over_three_steps_by_hand(prior, project_start, smoothing):
    """Other images in each step, as of another crop; the starts of the last step come from all before."""
    method, table, rng = FGSMPGI(prior=prior, momentum=0.4), ImageTable(8), np.random.default_rng(1)
    d = m = None
    for number in range(3):
        z, y = tables(10, seed=number)
        x = np.where(rng.random((8, 4)) < 0.3, rng.integers(2, size=(8, 4)), rng.random((8, 4)))
        step = Prior(z, y, table, torch.tensor(x.reshape(8, *PIXELS)))
        step.inner = step.inner.model_copy(update={"project_start": project_start})
        if smoothing:
            step.targets = smoothed(step.labels, 10, smoothing).double()
        if d is None:
            d, m = EPS * np.sign(step.draws.numpy().reshape(8, 4) - 0.5), np.zeros((8, 4))
        target = (1 - smoothing) * np.eye(10)[y] + smoothing / 10
        gradient = (np.exp(log_softmax(z.start)) - target) @ step.slope.numpy()
        start = x + d

        def projected(direction, d=d, x=x):
            return np.clip(np.clip(d + EPS * np.sign(direction), -EPS, EPS), -x, 1 - x)

        m = gradient / np.abs(gradient).sum() + 0.4 * m
        used = projected(gradient)
        d = projected(m) if prior == "momentum" else used
        method.loss(step)
        close(step.seen[0].flatten(1), np.clip(start, 0, 1) if project_start else start, 1e-7)
        close(step.seen[1].flatten(1), x + used, 1e-7)
        close(table.values["d"].flatten(1), d, 1e-7)
        assert ("m" in table.values) == (prior == "momentum")
        if prior == "momentum":
            close(table.values["m"].flatten(1), m, 1e-7)


def test_starts_are_drawn_anew_after_every_reset_and_for_an_image_that_was_left_out(data):  # noqa: F811
    settings = SETTINGS.model_copy(update={"batch_size": 64, "drop_last": True})  # 32 of 160 are left out
    trainer, seen = trainer_of("fgsm_pgi", data, settings=settings), []
    trainer.method = FGSMPGI(reset=2)
    table = trainer.own["starts"]
    for epoch in (1, 2, 3):
        trainer.begin_epoch(epoch)
        known = table.version > 0
        for batch in batches(data, SCHEME, settings, 0, epoch, CPU):
            step = BatchStep(trainer, batch)
            _, d, m = trainer.method._start(step)
            fresh = ~known[batch.ids]
            assert torch.equal(d[fresh].abs(), torch.full_like(d[fresh], 0.15))
            assert not m[fresh].any()
            assert m[~fresh].flatten(1).any(1).all()
            seen.append(int(fresh.sum()))
            trainer.step(batch)
        trainer.end_epoch(epoch)
        assert bool((table.version > 0).any()) == (epoch != 2)
    assert sum(seen[:2]) == 128
    assert 0 < sum(seen[2:4]) < 128
    assert sum(seen[4:]) == 128


def step_of_fgsm_mep(code: Code, x, y, epoch: int, step: int):
    """jiaxiaojunQAQ/FGSM-PGI, FGSM_MEP.py: the same images in each step, so each is an epoch later."""
    eps, classes = torch.full_like(x, 8 / 255), code.student.classifier.out_features
    smoothing = 0.4 * classes / (classes - 1)
    q = ((1 - smoothing) * torch.eye(classes)[y] + smoothing / classes).to(x.dtype)  # 0.6 for y, in float32 as theirs

    def smooth_loss(logits):
        return (-q * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean()

    if not code.state:
        draws = torch.rand(x.shape, generator=generator(SEED, "method", epoch, step)).to(x)
        code.state = {"delta": eps * torch.sign(2 * draws - 1), "momentum": torch.zeros_like(x)}
    code.student.train()
    delta = code.state["delta"].clone().requires_grad_()
    first = code.student(x + delta)
    [gradient] = torch.autograd.grad(smooth_loss(first), [delta], retain_graph=True)
    delta = delta.detach()
    code.state["momentum"] = gradient / torch.norm(gradient, p=1) + code.state["momentum"] * 0.3
    following = clipped(delta + eps * torch.sign(code.state["momentum"]), -eps, eps)
    code.state["delta"] = clipped(following, 0 - x, 1 - x)
    x_adv = x + clipped(clipped(delta + eps * torch.sign(gradient), -eps, eps), 0 - x, 1 - x)
    second = code.student(x_adv)
    loss = smooth_loss(second) + 10 * F.mse_loss(second, first)
    code.update(loss)
    return x_adv, loss


CASES = {
    name: Case("fgsm_pgi", step_of_fgsm_mep, dataset, code={"weight_decay": 5e-4})
    for name, dataset in (("10 classes", "cifar10"), ("100 classes", "cifar100"))
}


@pytest.fixture
def observed(monkeypatch):
    """x' reaches the comparison as that of other methods does."""
    real = FGSMPGI._search
    monkeypatch.setattr(training_step, "pgd", lambda images: images)
    monkeypatch.setattr(FGSMPGI, "_search", lambda *args: training_step.pgd(real(*args)))


@pytest.mark.usefixtures("observed")
@pytest.mark.parametrize("case", CASES)
def test_first_step_of_the_released_code(case, monkeypatch):
    different, pixels, loss = differing_pixels(CASES[case], monkeypatch, tolerance=0)
    assert (different, pixels) == (0, 8 * 3 * 32 * 32)
    assert loss < 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("observed")
@pytest.mark.parametrize("case", CASES)
def test_five_steps_of_the_released_code(case, monkeypatch):
    check_five_steps(CASES[case], "resnet", monkeypatch)


def test_official_settings_follow_the_classes():
    ten, hundred = (experiment_of("fgsm_pgi", name).recipes["fgsm_pgi", "resnet"] for name in ("cifar10", "cifar100"))
    assert (ten.method.settings.reset, hundred.method.settings.reset) == (40, 10)
    targets = [
        smoothed(torch.tensor([0]), classes, recipe.training.label_smoothing)[0]
        for classes, recipe in ((10, ten), (100, hundred))
    ]
    for target in targets:
        assert target[0] == pytest.approx(0.6, abs=1e-6)
        assert target[1:].tolist() == pytest.approx([0.4 / (len(target) - 1)] * (len(target) - 1), abs=1e-6)
    assert ten.training.milestones == [100, 105]


def test_label_smoothing_of_another_benchmark_is_another_number():
    """FastAT gives torch 0.4: 0.64 and 0.04, where the authors' code has 0.6 and 0.0444."""
    assert smoothed(torch.tensor([1]), 10, 0.4)[0, :2].tolist() == pytest.approx([0.04, 0.64])


@pytest.mark.parametrize(
    "wrong", [{"prior": "batch"}, {"step_size": 0.0}, {"weight": -1.0}, {"momentum": 1.0}, {"reset": 0}]
)
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        methods.get("fgsm_pgi")(**wrong)


# The table of starts in saved states

ROW = 8 * 8 * 4 * 2  # bytes of a digit's start and momentum


def sizes_after(method: str, data, folder, epochs: int) -> list[tuple[int, list[int]]]:  # noqa: F811
    """Bytes of the state, and of each file of rows beside it, at each save of a training that saves whenever it can."""
    found = []

    class Observed(ResumableJob):
        def save(self, payload):
            super().save(payload)
            files = self.state_folder.glob("tables/*")
            found.append((len(payload), sorted(file.stat().st_size for file in files)))

    settings = SETTINGS.model_copy(update={"epochs": epochs, "milestones": []})
    with Observed(folder, {}, 0) as work:
        train(trainer_of(method, data, settings=settings), data, data.first(20), SCHEME, CPU, work)
    return found


@pytest.mark.slow
def test_a_state_stays_small_and_a_save_writes_changed_rows_only(data, tmp_path):  # noqa: F811
    """160 images in five steps an epoch: a file of 32 rows at each, no row more than three times on the disk."""
    plain, ours = (sizes_after(name, data, tmp_path / name, 4) for name in ("fgsm_rs", "fgsm_pgi"))
    for (before, none), (size, files) in zip(plain, ours, strict=True):
        assert none == []
        assert 0 < size - before < 160 * 8 + 1500  # the number of the write of each row, and names
        assert all(32 * ROW < file < 32 * (ROW + 8) + 500 for file in files)
    assert max(len(files) for _, files in ours) <= 11  # those of this epoch and the one before, and of the last state
    assert not tmp_path.exists()


class Killed(BaseException):
    pass


def killed_after(steps: int, data, folder, monkeypatch) -> None:  # noqa: F811
    trainer, real, calls = trainer_of("fgsm_pgi", data), training_step.BatchStep.evaluate, 0

    def evaluate(self, repeatable=False):
        nonlocal calls
        calls += 1
        if calls > steps:
            raise Killed
        return real(self, repeatable)

    with monkeypatch.context() as patched:
        patched.setattr(training_step.BatchStep, "evaluate", evaluate)
        with pytest.raises(Killed), ResumableJob(folder, {}, 0) as work:
            train(trainer, data, data.first(20), SCHEME, CPU, work)


def ended(data, folder=None, settings=SETTINGS):  # noqa: F811
    """Weights, table and curves of a whole training."""
    trainer = trainer_of("fgsm_pgi", data, settings=settings)
    if folder is None:
        progress = train(trainer, data, data.first(20), SCHEME, CPU)
    else:
        with ResumableJob(folder, {}, 0) as work:
            progress = train(trainer, data, data.first(20), SCHEME, CPU, work)
    return trainer.module.state_dict() | trainer.own["starts"].values, progress.counts.metrics


def same(found, expected) -> bool:
    (tensors, lines), (others, other_lines) = found, expected
    equal = tensors.keys() == others.keys() and all(torch.equal(tensors[key], value) for key, value in others.items())
    return equal and lines == other_lines


@pytest.mark.parametrize("damage", ["state", "nothing"])
@pytest.mark.slow
def test_the_state_before_has_its_rows_too(damage, data, tmp_path, monkeypatch):  # noqa: F811
    killed_after(8, data, tmp_path, monkeypatch)
    if damage == "state":
        [state] = tmp_path.rglob("state")
        state.write_bytes(state.read_bytes()[:-1])
    assert same(ended(data, tmp_path), ended(data))


def test_the_state_before_has_its_rows_where_the_newest_has_none_of_them(data, tmp_path, monkeypatch):  # noqa: F811
    """One step an epoch, killed between the step of the third epoch and its validation, and the state is lost."""
    settings, real, calls = SETTINGS.model_copy(update={"batch_size": 160}), loop.evaluate, 0

    def evaluate(*args):
        nonlocal calls
        calls += 1
        if calls == 5:  # two in each epoch
            raise Killed
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "evaluate", evaluate)
        with pytest.raises(Killed):
            ended(data, tmp_path, settings)
    assert sorted(path.name for path in tmp_path.rglob("*.rows")) == ["starts-2-2.rows", "starts-3-3.rows"]
    [state] = tmp_path.rglob("state")
    state.write_bytes(b"")
    assert same(ended(data, tmp_path, settings), ended(data, settings=settings))


@pytest.mark.parametrize("damage", ["flipped", "removed"])
def test_rows_that_are_damaged_are_not_used(damage, data, tmp_path, monkeypatch):  # noqa: F811
    killed_after(7, data, tmp_path, monkeypatch)
    file = max(tmp_path.rglob("*.rows"))
    content = file.read_bytes()
    file.unlink() if damage == "removed" else file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="is damaged"), ResumableJob(tmp_path, {}, 0) as work:
        train(trainer_of("fgsm_pgi", data), data, data.first(20), SCHEME, CPU, work)


def test_rows_of_a_save_that_was_not_finished_are_not_used(data, tmp_path, monkeypatch):  # noqa: F811
    """Killed between the rows and the state, then in another branch of the same training."""
    killed_after(7, data, tmp_path, monkeypatch)
    [folder] = tmp_path.rglob("tables")
    newest = max(folder.iterdir(), key=lambda path: int(path.stem.split("-")[-1]))
    stale = folder / "starts-8-8.rows"
    content = newest.read_bytes()
    stale.write_bytes(content)
    trainer = trainer_of("fgsm_pgi", data)
    trainer.own["starts"].writes += 7
    TableFiles(trainer.own, folder).load()
    assert not stale.exists()
    (folder / "starts-8-9.rows").write_bytes(b"half")
    assert same(ended(data, tmp_path), ended(data))


STEP = "robust_distillation.training.trainer:Trainer.step"


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again_ends_in_the_same_bytes(tmp_path):
    """kill -9 within an epoch, while rows or a state are written or renamed, and while old rows are removed."""
    kills = [
        (STEP, 3), ("os:replace", 1), ("os:replace", 6), ("os:fsync", 3), ("os:fsync", 4), (STEP, 4),
        ("robust_distillation.training.tables:TableFiles.remove_old", 3), ("pathlib:Path.unlink", 9),
        ("robust_distillation.resume:ResumableJob.save", 5),
    ]  # fmt: skip
    codes = {}
    for name, runs in (("alone", [()]), ("killed", [*kills, ()])):
        command = [sys.executable, killed_training.__file__, "fgsm_pgi", str(tmp_path / name), json.dumps(runs)]
        codes[name] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert codes == {"alone": [0], "killed": [-signal.SIGKILL] * len(kills) + [0]}
    alone, killed = ((tmp_path / f"{name}.json").read_text() for name in ("alone", "killed"))
    assert killed == alone
