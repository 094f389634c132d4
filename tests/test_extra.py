"""Extra training images: files and folders, the composition of batches, labels by a teacher, and whole runs."""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys
import zipfile
from contextlib import suppress
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import REPOSITORY, environment, fresh_tree, snakemake
from PIL import Image
from ranks import first_steps
from ruamel.yaml import YAML
from test_every_setting import Killed, Memory, settings_with
from test_parallel import on_two
from test_training import CPU, SCHEME, SETTINGS, network, trainer_of

from robust_distillation.cache.fill import fill_cache
from robust_distillation.cache.store import CachedValues, cache_key
from robust_distillation.cli import main
from robust_distillation.config import load as load_experiment
from robust_distillation.data import extra, info
from robust_distillation.data.dataset import Dataset, load
from robust_distillation.data.extra import ExtraSource
from robust_distillation.data.views import epoch_order
from robust_distillation.errors import UserError
from robust_distillation.files import read_json
from robust_distillation.models.checkpoint import build_model, load_model, save_checkpoint
from robust_distillation.models.output import output
from robust_distillation.pipeline.steps import LabelExtra
from robust_distillation.pipeline.training_data import load_extra, load_training, predicted_labels
from robust_distillation.pipeline.versioning import stage
from robust_distillation.planning.cost import cache_bytes
from robust_distillation.planning.jobs import jobs_of
from robust_distillation.planning.plan import describe
from robust_distillation.resume import ResumableJob
from robust_distillation.stages import label_extra
from robust_distillation.training.batches import batches, epoch_batches
from robust_distillation.training.loop import train
from robust_distillation.training.parallel import Group
from robust_distillation.training.teacher import Teacher

DIGITS = info("digits")
OPTIONS = ["--experiment", "params.yaml", "--overlay", "extra.yaml"]


def grey(data: Dataset) -> np.ndarray:
    """The pixels as a file has them: [N,8,8,1], 255 for 1.0."""
    return np.rint(data.images.numpy() * (255 / 16)).astype(np.uint8).transpose(0, 2, 3, 1)


def generated(folder: Path, count: int = 64, name: str = "generated.npz") -> Path:
    """Digits of the test split as a published file has them: sorted by class."""
    data = load("digits", "test").first(count)
    order = data.labels.argsort(stable=True)
    np.savez(folder / name, image=grey(data)[order], label=data.labels[order].numpy())
    return folder / name


def pictures(folder: Path, count: int = 40, classes: bool = False) -> Path:
    data = load("digits", "test").first(count)
    for number, (image, label) in enumerate(zip(grey(data), data.labels, strict=True)):
        place = folder / DIGITS.classes[int(label)] if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{number:03}.png")
    return folder


def read(path: Path, **options) -> Dataset:
    return extra.load(ExtraSource(str(path), path.is_dir(), **options), DIGITS)


# Files and folders


def test_file_with_the_channels_last_or_first(tmp_path):
    data = load("digits", "test").first(30)
    for name, image in (("last", grey(data)), ("first", grey(data).transpose(0, 3, 1, 2))):
        np.savez_compressed(tmp_path / f"{name}.npz", image=image, label=data.labels.numpy().astype(np.uint8))
        found = read(tmp_path / f"{name}.npz", labels=True)
        assert found.digest() == data.digest(), name
    unlabelled = read(tmp_path / "last.npz")
    assert torch.equal(unlabelled.images, data.images)
    assert (unlabelled.labels == -1).all()


def test_colour_images_keep_their_pixels(tmp_path):
    image = np.random.RandomState(0).randint(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", image=image)
    found = extra.load(ExtraSource(str(tmp_path / "a.npz"), False), info("cifar10"))
    assert np.array_equal(found.images.numpy().transpose(0, 2, 3, 1), image)


def test_every_pixel_value_is_scaled_to_the_nearest_of_the_dataset(tmp_path):
    image = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    np.savez(tmp_path / "a.npz", image=image)
    assert np.array_equal(read(tmp_path / "a.npz").images.numpy().ravel(), np.rint(np.arange(256) * 16 / 255))


def test_limit_takes_a_random_subset_of_a_sorted_file(tmp_path):
    """The first images of a published file are all of one class; of a subset all classes are about as many."""
    count = 2000
    image = np.zeros((count, 8, 8, 1), np.uint8)
    image[:, 0, 0, 0], image[:, 1, 1, 0] = np.arange(count) % 256, np.random.RandomState(0).randint(0, 256, count)
    np.savez(tmp_path / "a.npz", image=image, label=np.arange(count) // (count // 10))
    whole, some = read(tmp_path / "a.npz", labels=True), read(tmp_path / "a.npz", labels=True, limit=400)
    assert whole.labels[:200].unique().tolist() == [0]
    by_class = some.labels.bincount(minlength=10)
    assert by_class.sum() == 400
    assert (by_class - 40).abs().max() < 4 * (400 * 0.1 * 0.9 * 0.8) ** 0.5  # hypergeometric
    assert read(tmp_path / "a.npz", labels=True, limit=400).digest() == some.digest()
    assert read(tmp_path / "a.npz", labels=True, limit=count).digest() == whole.digest()
    every, chosen = (
        {(*x.flatten().tolist(), int(y)) for x, y in zip(one.images, one.labels, strict=True)} for one in (whole, some)
    )
    assert chosen <= every


def test_folder_without_and_with_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = load("digits", "test").first(40)
    plain = read(pictures(tmp_path / "plain"))
    assert torch.equal(plain.images, data.images)
    assert (plain.labels == -1).all()
    sorted_ = read(pictures(tmp_path / "classes", classes=True), labels=True)
    assert torch.equal(sorted_.labels, data.labels.sort().values)
    assert (read(tmp_path / "classes").labels == -1).all()
    some = read(tmp_path / "classes", labels=True, limit=12)
    assert len(some) == 12
    assert len(some.labels.unique()) > 4


def test_colours_of_a_folder_become_the_grey_of_pillow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.random.RandomState(0).randint(0, 256, (8, 8, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(image).save(tmp_path / "a/1.png")
    expected = np.rint(np.asarray(Image.fromarray(image).convert("L")) * (16 / 255))
    assert np.array_equal(read(tmp_path / "a").images[0, 0].numpy(), expected)


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def zipped(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    stream = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


IMAGE = np.random.RandomState(1).randint(0, 256, (4, 8, 8, 1), dtype=np.uint8)
DAMAGED = bytearray(npz(image=IMAGE, label=np.arange(4)))
DAMAGED[300] ^= 255
BAD_FILES = {
    "empty": (b"", "cannot be read as an .npz file"),
    "text": (b"hello", "cannot be read as an .npz file"),
    "array": (npz(image=IMAGE)[:-30], "cannot be read as an .npz file"),
    "damaged": (bytes(DAMAGED), "Bad CRC"),
    "keys": (npz(images=IMAGE), "holds no array `image`, uint8 [N,8,8,1]"),
    "float": (npz(image=IMAGE / 255), "its image is float64 [4, 8, 8, 1], not uint8 [N,8,8,1]"),
    "signed": (npz(image=IMAGE.astype(np.int8)), "its image is int8"),
    "size": (npz(image=np.zeros((4, 32, 32, 3), np.uint8)), "uint8 [4, 32, 32, 3], not uint8 [N,8,8,1]"),
    "flat": (npz(image=IMAGE.reshape(4, 64)), "its image is uint8 [4, 64]"),
    "none": (npz(image=IMAGE[:0]), "holds no image"),
    "objects": (npz(image=np.array([IMAGE, None], dtype=object)), "Python objects, which are never loaded"),
    "label-objects": (npz(image=IMAGE, label=np.array([1, "a", 2, 3], dtype=object)), "label holds Python objects"),
    "label-float": (npz(image=IMAGE, label=np.zeros(4)), "its label is float64 [4], not integers [4]"),
    "label-count": (npz(image=IMAGE, label=np.arange(3)), "its label is int64 [3], not integers [4]"),
    "label-range": (npz(image=IMAGE, label=np.array([0, 1, 2, 10])), "run from 0 to 10, but there are 10 classes"),
    "label-negative": (npz(image=IMAGE, label=np.array([0, 1, 2, -1])), "run from -1 to 2"),
    "range": (npz(image=IMAGE % 17), "no pixel is above 16, but here 255 stands for 1.0"),
    "claims": (zipped(image=header((10**12, 8, 8, 1)) + b"1" * 100), "not those of uint8 [1000000000000, 8, 8, 1]"),
    "bomb": (
        zipped(zipfile.ZIP_DEFLATED, image=header((10**5, 8, 8, 1)) + bytes(64 * 10**5)),
        "more than 200 times its size",
    ),
    "no-array": (zipped(image=b"x"), "cannot be read as an .npz file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file_gives_one_message_and_writes_nothing(name, tmp_path, monkeypatch):
    """Runs the step's real command on a file that the experiment's check did not refuse."""
    content, says = BAD_FILES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").write_bytes(content)
    more = "labelled_by: wide" if name == "range" else "labels: true"
    (tmp_path / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    (tmp_path / "extra.yaml").write_text(f"name: bad\ndataset: {{extra: {{file: a.npz, {more}}}}}\n")
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(main, ["prepare-extra", *OPTIONS])
    assert result.exit_code == 2, result.output
    assert says in result.output
    assert "a.npz" in result.output
    assert len(result.output.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


BAD_FOLDERS = {
    "empty": ([], "holds no image"),
    "unknown": (["cat/1.png"], "unknown class 'cat'"),
    "mixed": (["1.png", "0/1.png"], "holds images and folders ('0')"),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folder_gives_one_message(name, tmp_path):
    files, says = BAD_FOLDERS[name]
    (tmp_path / "a").mkdir()
    for file in files:
        (tmp_path / "a" / file).parent.mkdir(exist_ok=True)
        Image.fromarray(IMAGE[0, ..., 0]).save(tmp_path / "a" / file)
    with pytest.raises(UserError, match=says.replace("(", r"\(").replace(")", r"\)")):
        extra.info(tmp_path / "a", True, DIGITS)


def test_link_out_of_a_folder_is_refused(tmp_path):
    pictures(tmp_path / "a", 2)
    Image.fromarray(IMAGE[0, ..., 0]).save(tmp_path / "b.png")
    (tmp_path / "a/link.png").symlink_to(tmp_path / "b.png")
    with pytest.raises(UserError, match="leads out of"):
        extra.info(tmp_path / "a", True, DIGITS)


# Batches


def with_extra(share: float, images: int = 20, own: int = 90) -> Dataset:
    return load("digits", "train").first(own).with_extra(load("digits", "test").first(images), share)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.29, 0.5, 0.7, 1.0])
def test_composition_of_every_batch(share, drop_last):
    data, settings = with_extra(share), SETTINGS.model_copy(update={"drop_last": drop_last})
    sizes = [32, 32] if drop_last else [32, 32, 26]
    visits, orders = torch.zeros(110, dtype=torch.int64), []
    for epoch in range(1, 8):
        found = epoch_batches(data, settings, 3, epoch)
        assert [len(ids) for ids in found] == sizes
        for ids in found:
            count = int((ids >= 90).sum())
            assert count == int(np.floor(round(len(ids) * share, 6)))
            for rank in range(2):  # each of two processes has its share of the extra images
                part = ids[Group(rank, 2).shard(len(ids))]
                assert abs(int((part >= 90).sum()) - count / 2) <= 1
        ids = torch.cat(found)
        own = ids[ids < 90]
        assert len(own.unique()) == len(own)  # of a permutation
        orders.append(own.tolist())
        visits += ids.bincount(minlength=110)
        assert visits[90:].max() - visits[90:].min() <= 1  # none twice before all once
    assert share == 1.0 or len({tuple(order) for order in orders}) == 7
    one, other = (torch.cat(epoch_batches(data, settings, seed, 1)) for seed in (3, 4))
    assert not torch.equal(one[one >= 90], other[other >= 90])


def test_part_of_a_batch_is_rounded_down_but_not_by_rounding_errors():
    """Compares with exact fractions, which have no rounding error."""
    for hundredths, size in product(range(101), (1, 32, 100, 128, 512)):
        assert extra.images_in_batch(size, hundredths / 100) == size * hundredths // 100


def test_every_process_needs_an_image_of_the_last_batch():
    """Checks that 33 training images leave one in the last batch, however many extra images there are."""
    data = with_extra(0.5, 31, 33)
    trainer = trainer_of("trades", data)
    trainer.group = Group(0, 2)
    with pytest.raises(UserError, match="33 images in batches of 32: one of them has 1, for 2 devices"):
        train(trainer, data, data.first(16), SCHEME, CPU)


def test_share_of_labelled_images_of_an_epoch():
    """Checks that 1,000 images in batches of 100, with a share of 0.7, give 300 of the training split in each epoch."""
    data = with_extra(0.7, 400, 1000)
    data = data.with_extra_labels(torch.full((400,), -1))
    settings = SETTINGS.model_copy(update={"batch_size": 100})
    for epoch in (1, 2):
        labels = torch.cat([batch.labels for batch in batches(data, SCHEME, settings, 0, epoch, CPU)])
        assert len(labels) == 1000
        assert int((labels >= 0).sum()) == 300


def test_batches_are_those_of_today_without_extra_images():
    """The formula of before: a permutation, cut."""
    data = load("digits", "train").first(90)
    found = epoch_batches(data, SETTINGS, 5, 2)
    assert [ids.tolist() for ids in found] == [ids.tolist() for ids in epoch_order(5, 2, 90).split(32)]


def test_views_of_training_images_do_not_depend_on_extra_ones():
    assert torch.equal(SCHEME.epoch(0, 1, 90), SCHEME.epoch(0, 1, 110)[:90])


# Trainings


@pytest.mark.parametrize("name", ["rslad", "trades", "crd"])
def test_training_goes_on_after_each_step(name):
    data = with_extra(0.5)

    def states(start: bytes | None = None) -> list[bytes]:
        memory = Memory(start, 2 if start else math.inf)
        with suppress(Killed):
            trainer = trainer_of(name, data, settings=settings_with({}))
            train(trainer, data, load("digits", "test").first(16), SCHEME, CPU, memory)
        return memory.states

    found = states()
    assert len(found) >= 2 * (3 + 1)
    for state, following in pairwise(found):
        assert states(state) == [state, following]


@pytest.mark.slow
def test_two_processes_take_the_same_first_steps_as_one(tmp_path):
    names = ["trades+adr", "rslad", "gacd"]
    together = on_two(tmp_path, "extra", *names)
    for name in names:
        alone, without = first_steps(name, Group(), "", 0.5), first_steps(name, Group(), "")
        assert not torch.equal(alone["losses"], without["losses"])
        for key, tensor in alone.items():
            assert torch.allclose(tensor.double(), together[name][key].double(), rtol=1e-11, atol=1e-9), (name, key)


def test_unlabelled_images_train_rslad_but_not_trades():
    data = with_extra(0.5)
    data = data.with_extra_labels(torch.full((20,), -1))
    trainer = trainer_of("rslad", data)
    for batch in batches(data, SCHEME, SETTINGS, 0, 1, CPU):
        assert torch.isfinite(trainer.step(batch)["loss"])
    with pytest.raises(UserError, match="needs labels, and 20 of the 110 training images have none"):
        trainer_of("trades", data)


def test_cache_equals_the_teacher_on_extra_images(tmp_path):
    data, teacher = with_extra(0.5), network(8, 2).eval()
    key = cache_key("teacher", data.digest(), SCHEME, "logits")
    fill_cache(tmp_path / "logits.npy", key, teacher, data, SCHEME, "logits")
    cached, asked = CachedValues(tmp_path / "logits.npy", key), 0
    for batch in batches(data, SCHEME, SETTINGS, 0, 1, CPU):
        live = output(teacher, batch.x).logits
        assert torch.allclose(Teacher(None, cached).clean(batch.x, batch.ids, batch.view_ids).logits, live, atol=1e-5)
        asked += int((batch.ids >= 90).sum())
    assert asked == 16 + 16 + 13


# Experiments

IMPORTED = "teachers: {wide: {trained_by: ~, training: ~, imported: {source: file, file: a.pt}}}"


def experiment_with(folder: Path, settings: str, more: str = "", limit: int | str = 96):
    (folder / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    (folder / "extra.yaml").write_text(
        f"name: extra\ndataset: {{limit: {{train: {limit}}}, extra: {settings}}}\nclaims: ~\ntuning: ~\n{more}"
    )
    return load_experiment("params.yaml", "extra.yaml")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_share_zero_is_no_extra_image(folder):
    generated(folder)
    settings = "{file: generated.npz, share: 0, labelled_by: wide}"
    found, without = experiment_with(folder, settings), experiment_with(folder, "~")
    assert found.extra is None
    jobs = [{name: job.flops for name, job in jobs_of(one).items()} for one in (found, without)]
    assert jobs[0] == jobs[1]
    assert [*map(found.student_settings, found.runs)] == [*map(without.student_settings, without.runs)]


def test_plan_counts_extra_images(folder):
    generated(folder)
    without, found = experiment_with(folder, "~"), experiment_with(folder, "{file: generated.npz, labelled_by: wide}")
    [old], [new] = ([one for one in each.caches if one.kind == "logits"] for each in (without, found))
    assert cache_bytes(found, new) == cache_bytes(without, old) * (96 + 64) / 96
    jobs, before = jobs_of(found), jobs_of(without)
    assert jobs.keys() - before.keys() == {"prepare-extra", "label-extra"}
    assert jobs["fill-cache wide logits"].flops == before["fill-cache wide logits"].flops * (96 + 64) / 96
    assert jobs["train-teacher wide"].flops == before["train-teacher wide"].flops
    assert jobs["train-student wide/small/rslad/seed-0"].flops == before["train-student wide/small/rslad/seed-0"].flops
    assert "label-extra" in jobs["train-student none/small/trades/seed-0"].needs
    assert "label-extra" not in jobs["train-student wide/small/rslad/seed-0"].needs
    assert not {"prepare-extra", "label-extra"} & {*jobs["train-teacher wide"].needs}  # it is what labels
    assert "prepare-extra" not in jobs["attack wide/small/rslad/seed-0"].needs
    text = describe(found)
    assert "Trained with 64 extra images (generated.npz), a share of 0.7 of each batch, labelled by wide for " in text
    assert "wide was trained without them." in text
    assert "results/extra/extra" in {path for out in stage(found, ["params.yaml"])["outs"] for path in out}
    assert "extra" not in describe(without).replace("Experiment extra", "")


def test_labels_of_the_source_need_no_teacher(folder):
    generated(folder)
    found = experiment_with(folder, "{file: generated.npz}")
    assert "label-extra" not in jobs_of(found)
    assert found.extra_source.labels
    assert found.teacher_settings("wide")["dataset"]["extra"] == {
        "file": "generated.npz", "images": 64, "labels": True, "share": 0.7, "labelled_by": None,
    }  # fmt: skip


def test_rslad_alone_needs_no_labels_of_an_imported_teacher(folder):
    pictures(folder / "images")
    found = experiment_with(folder, "{folder: images}", f"methods: {{{only('rslad')}}}\n{IMPORTED}\ntransfer: ~\n")
    assert [*found.methods] == ["rslad"]
    assert "without labels." in found.extra_text
    with pytest.raises(UserError, match=r"no labels, which methods.natural, methods.sat, .* need: name a teacher"):
        experiment_with(folder, "{folder: images}", f"{IMPORTED}\ntransfer: ~\n")


def only(*kept: str) -> str:
    """The entries of an overlay that takes the other methods of params.yaml away."""
    methods = YAML(typ="safe").load(REPOSITORY / "params.yaml")["methods"]
    return ", ".join(f"{name}: ~" for name in methods if name not in kept)


def test_teacher_beside_the_one_that_labels_waits_for_the_labels(folder):
    """Puts the labelling teacher after the other teacher in the file."""
    generated(folder)
    text = (REPOSITORY / "params.yaml").read_text()
    assert "\nteachers:\n" in text
    (folder / "params.yaml").write_text(
        text.replace("\nteachers:\n", "\nteachers:\n  first: {architecture: convnet, trained_by: {method: sat}}\n")
    )
    (folder / "extra.yaml").write_text("dataset: {extra: {file: generated.npz, labelled_by: wide}}\n")
    jobs = jobs_of(load_experiment("params.yaml", "extra.yaml"))
    names = [*jobs]
    assert "label-extra" in jobs["train-teacher first"].needs
    for name, job in jobs.items():
        assert all(names.index(need) < names.index(name) for need in job.needs)


REST = "{rest: true, limit: 500"


@pytest.mark.parametrize("protocol", ["controlled", "official"])
def test_rest_is_the_training_images_behind_the_limit(folder, protocol):
    found = experiment_with(
        folder,
        "{rest: true, labelled_by: wide}",
        f"protocol: {protocol}\nmethods: {{{only('rslad', 'trades')}}}\ntransfer: ~\nstructure: ~\nrobustness: ~\n",
    )
    whole = load("digits", "train")
    if protocol == "official":
        whole = whole.followed_by(load("digits", "validation"))
    assert CliRunner().invoke(main, ["prepare-data", *OPTIONS]).exit_code == 0
    assert CliRunner().invoke(main, ["prepare-extra", *OPTIONS]).exit_code == 0
    data = load_training(found)
    assert torch.equal(data.images, whole.images)
    assert torch.equal(data.labels[:96], whole.labels[:96])
    assert (data.labels[96:] == -1).all()
    assert found.extra_images == len(whole) - 96
    assert read_json("results/extra/extra/data.json")["images"] == len(whole) - 96
    text = f"Trained with {len(whole) - 96:,} extra images (the rest of the training split), a share of 0.7"
    assert text in describe(found)


def test_rest_may_be_a_random_subset_with_its_labels(folder):
    found = experiment_with(folder, f"{REST}}}")
    for command in ("prepare-data", "prepare-extra"):
        assert CliRunner().invoke(main, [command, *OPTIONS]).exit_code == 0
    assert jobs_of(found)["prepare-extra"].needs == ("prepare-data",)
    data, rest = load_training(found), load("digits", "train").after(96)
    rows = [int((rest.images == image).flatten(1).all(1).nonzero()[0]) for image in data.images[96:]]
    assert len(set(rows)) > 490  # digits has a few images twice
    assert rows != [*range(500)]
    assert torch.equal(data.labels[96:], rest.labels[rows])
    others = experiment_with(folder, f"{REST}, labels: false}}", f"methods: {{{only('rslad')}}}\n{IMPORTED}\n")
    assert others.extra_settings() == found.extra_settings() | {"labels": False}


@pytest.mark.parametrize(("limit", "rest", "says"), [
    ("~", "{rest: true}", "dataset.extra.rest: dataset.limit.train leaves no image out"),
    ("96", "{rest: true, limit: 5000}", "dataset.extra.limit: 5000 is more than the 904 images"),
    ("96", "{rest: true, file: a.npz}", "dataset.extra: give one of file, folder and rest: true"),
    ("96", "{rest: false}", "dataset.extra: give one of file, folder and rest: true"),
    ("96", "{rest: true, labels: true, labelled_by: wide}", "labels: true means those of the source"),
    ("96", "{rest: true, labels: false}", "its images have no labels, which"),
])  # fmt: skip
def test_rest_that_cannot_be_is_refused(folder, limit, rest, says):
    with pytest.raises(UserError, match=re.escape(says)):
        experiment_with(folder, rest, limit=limit)


def test_settings_of_the_rest_say_which_images(folder):
    """Two limits leave out other images, also where their number is the same."""
    kept = [experiment_with(folder, f"{REST}}}", limit=limit) for limit in (96, 97)]
    assert kept[0].extra_images == kept[1].extra_images == 500
    assert kept[0].extra_settings() != kept[1].extra_settings()


def test_changed_images_are_refused(folder):
    generated(folder)
    experiment_with(folder, "{file: generated.npz}")
    for command in (["prepare-data", *OPTIONS], ["prepare-extra", *OPTIONS]):
        assert CliRunner().invoke(main, command).exit_code == 0
    written = read_json("results/extra/extra/data.json")
    assert written["images"] == 64
    assert written["by_class"] == load("digits", "test").first(64).labels.bincount(minlength=10).tolist()
    image = np.load("generated.npz")["image"]
    image[5, 3, 3] ^= 128
    np.savez("generated.npz", image=image, label=np.load("generated.npz")["label"])
    result = CliRunner().invoke(main, ["train-teacher", "wide", *OPTIONS])
    assert result.exit_code == 2
    assert "the extra images changed since it was written" in result.output


def test_labelling_goes_on_where_it_was_stopped(folder, monkeypatch):
    """The labels are the predictions on the images as they are, whichever batch it was stopped after."""
    generated(folder)
    found = experiment_with(folder, "{file: generated.npz, labelled_by: wide}")
    [step] = LabelExtra.jobs(found)
    model = random_teacher(found)
    expected = model(load_extra(found).floats()).argmax(1)
    assert len(expected.unique()) > 1
    monkeypatch.setattr(label_extra, "BATCH", 20)
    stops = 0
    while True:
        with suppress(SystemExit), ResumableJob(folder / "state", {}, 10**6) as work:
            work.stopping = stops < 3
            stops += 1
            record = label_extra.run(step, work)
            break
    assert stops == 4
    assert torch.equal(predicted_labels(found), expected)
    assert record["by_class"] == expected.bincount(minlength=10).tolist()
    assert torch.equal(load_training(found).labels[96:], torch.full((64,), -1))
    np.save(found.layout.extra_labels, expected.numpy()[:-1])
    with pytest.raises(UserError, match="not one of 10 classes for each extra image"):
        predicted_labels(found)


def random_teacher(found) -> torch.nn.Module:
    """The teacher `wide` with random weights that predict several classes, where its training would leave them."""
    run("prepare-data")
    run("prepare-extra")
    architecture = found.teachers["wide"].architecture
    model = build_model(architecture, DIGITS.shape, 10, 3).eval().requires_grad_(False)
    model.classifier.bias -= model(load_extra(found).floats()).mean(0)
    dataset = {"shape": list(DIGITS.shape), "classes": list(DIGITS.classes)}
    metadata = {"architecture": architecture, "dataset": dataset}
    save_checkpoint(found.teacher_weights("wide"), model.state_dict(), metadata)
    return model


def run(*command: str) -> None:
    result = CliRunner().invoke(main, [*command, *OPTIONS])
    assert result.exit_code == 0, (result.output, result.exception)


def test_methods_with_and_without_predicted_labels_read_one_cache(folder):
    """RSLAD needs no label, ARD those that the teacher predicts."""
    generated(folder)
    more = "seeds: [0]\ntraining: {epochs: 1, milestones: [], inner_attack: {steps: 1}, selection: {steps: 1}}\n"
    more += "teachers: {wide: {width: 4, training: {epochs: 1, milestones: []}}}\nstudents: {small: {width: 2}}\n"
    found = experiment_with(folder, "{file: generated.npz, limit: 32, labelled_by: wide}", more)
    random_teacher(found)
    run("fill-cache", "wide", "logits")
    run("label-extra")
    for method in ("rslad", "ard"):
        run("train-student", f"wide/small/{method}/seed-0")
        record = read_json(f"results/extra/students/wide/small/{method}/seed-0/record.json")
        assert record["teacher_served_from"]["logits on clean views"] == "cache"
        assert ("results/extra/extra/labels.npy" in record["inputs"]) == (method == "ard")


SMALL = """
seeds: [0]
tuning: ~
training: {{epochs: 2, milestones: [], batch_size: 32, inner_attack: {{steps: 2}}, selection: {{steps: 2}}}}
teachers: {{wide: {{width: 8, training: {{epochs: 2, milestones: []}}}}}}
students: {{small: {{width: 4}}}}
methods: {{{methods}}}
evaluation: {{images: 16, attacks: [fgsm], checkpoints: [last]}}
robustness: ~
structure: ~
transfer: ~
claims: ~
"""


@pytest.mark.slow
def test_whole_runs_on_a_file_and_on_a_folder(tmp_path):
    """Trains by RSLAD, TRADES and SAT through Snakemake, then audits, and edits each source."""
    tree = fresh_tree(tmp_path / "tree")
    generated(tree)
    pictures(tree / "images")
    small = SMALL.format(methods=only("rslad", "trades", "sat"))
    sources = {"file": "{file: generated.npz, share: 0.5, limit: 48}", "folder": "{folder: images, labelled_by: wide}"}
    for name, source in sources.items():
        (tree / f"{name}.yaml").write_text(
            f"name: {name}\ndataset: {{limit: {{train: 64, validation: 32}}, extra: {source}}}{small}"
        )
        targets = ["results/file/tables/main.md"] if name == "file" else []
        result = snakemake(tree, "--cores", "2", *targets, overlay=f"{name}.yaml")
        assert result.returncode == 0, result.stdout + result.stderr
    check_file(tree)
    check_folder(tree)
    check_audit(tree)


def check_file(tree: Path) -> None:
    root = tree / "results/file"
    assert not (root / "extra/labels.npy").exists()  # the file has labels
    about = "Trained with 48 extra images (generated.npz), a share of 0.5 of each batch, "
    assert f"{about}with the labels of their source." in (root / "tables/main.md").read_text()
    assert read_json(root / "cache/wide/logits.json")["shape"][0] == 64 + 48
    for record in (root / "teachers/wide/record.json", root / "students/wide/small/rslad/seed-0/record.json"):
        found = read_json(record)
        assert found["settings"]["dataset"]["extra"]["images"] == 48
        assert "results/file/extra/data.json" in found["inputs"]


def check_folder(tree: Path) -> None:
    root = tree / "results/folder"
    labels = np.load(root / "extra/labels.npy")
    model = load_model(root / "teachers/wide/best.safetensors")
    expected = model(load("digits", "test").first(40).floats()).argmax(1)
    assert np.array_equal(labels, expected.numpy())
    assert read_json(root / "extra/labels.record.json")["by_class"] == np.bincount(labels, minlength=10).tolist()
    about = "Trained with 40 extra images (images), a share of 0.7 of each batch, labelled by wide for "
    for file in ("tables/main.md", "tables/main.tex", "report.html"):
        text = (root / file).read_text()
        assert about in text, file
        assert "wide was trained without them." in text, file
    reads = {}
    teachers = {"rslad": "wide", "trades": "none", "sat": "none"}
    folders = {"wide": "teachers/wide"} | {m: f"students/{t}/small/{m}/seed-0" for m, t in teachers.items()}
    for name, folder in folders.items():
        record = read_json(root / folder / "record.json")
        inputs = {Path(file).name for file in record["inputs"] if "/extra/" in file}
        reads[name] = inputs, record["settings"]["dataset"].get("extra", {}).get("labelled_by")
    assert reads == {
        "wide": (set(), None),
        "rslad": ({"data.json"}, None),
        "trades": ({"data.json", "labels.npy"}, "wide"),
        "sat": ({"data.json", "labels.npy"}, "wide"),
    }
    assert "results/folder/extra/labels.npy" in read_json(root / "provenance.json")["artefacts"]


def check_audit(tree: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "robust_distillation.cli", *arguments]
        command += ["--experiment", "params.yaml", "--overlay", "folder.yaml"]
        result = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True)
        return result.returncode, result.stdout + result.stderr

    code, text = run("audit")
    assert code == 0, text
    code, text = run("explain", "none/small/trades/last/fgsm")
    assert code == 0, text
    assert "Their labels" in text
    assert "results/folder/extra/labels.npy" in text
    (tree / "images/000.png").unlink()
    code, text = run("audit")
    assert code == 1
    assert "results/folder/extra/data.json" in text
