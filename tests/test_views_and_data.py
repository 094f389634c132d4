"""Views are torchvision's augmentation with a number; splits are real, disjoint and repeatable."""

from __future__ import annotations

import gzip
from itertools import combinations

import numpy as np
import pytest
import torch
from conftest import fashion_mnist_files
from torchvision.transforms.v2 import functional as torchvision

from robust_distillation import data, load_dataset
from robust_distillation.data import DataOptions, fashion_mnist
from robust_distillation.data.dataset import load
from robust_distillation.data.views import ViewScheme, epoch_order
from robust_distillation.errors import UserError

SCHEMES = [ViewScheme(0, False), ViewScheme(1, False), ViewScheme(2, True), ViewScheme(4, True)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_view_is_torchvisions_crop_and_flip(scheme):
    images = torch.randint(0, 256, (1, 3, 8, 6), dtype=torch.uint8)
    seen = set()
    for view in range(len(scheme)):
        flip, (dy, dx) = view // scheme.side**2, divmod(view % scheme.side**2, scheme.side)
        expected = torchvision.crop(torchvision.pad(images, [scheme.padding] * 4), dy, dx, 8, 6)
        expected = torchvision.horizontal_flip(expected) if flip else expected
        found = scheme.apply(images, torch.tensor([0]), torch.tensor([view]))
        assert torch.equal(found, expected)
        seen.add((dy, dx, flip))
    assert len(seen) == len(scheme) == (2 * scheme.padding + 1) ** 2 * (2 if scheme.flips else 1)
    assert torch.equal(scheme.apply(images, torch.tensor([0]), torch.tensor([scheme.identity])), images)


def test_a_batch_gives_each_image_its_own_view():
    scheme, images = ViewScheme(2, True), torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
    views = scheme.epoch(0, 1, 50)
    ids = torch.arange(50)
    whole = scheme.apply(images, ids, views)
    for row in ids.split(1):
        assert torch.equal(whole[row], scheme.apply(images[row], row, views[row]))


@pytest.mark.parametrize("channels", [1, 3])
def test_views_lie_in_memory_as_nchw(channels):
    # Of one channel, other strides are contiguous too: torch would compute channels-last, to other bits.
    scheme, images = ViewScheme(1, True), torch.randint(0, 256, (9, channels, 8, 8), dtype=torch.uint8)
    assert scheme.apply(images, torch.arange(9), scheme.epoch(0, 1, 9)).stride() == (channels * 64, 64, 8, 1)


def test_views_are_made_where_the_images_are():
    """Runs on torch's meta device, which has shapes only and refuses tensors of another device."""
    images, numbers = torch.empty(5, 3, 8, 8, dtype=torch.uint8, device="meta"), torch.arange(5)
    found = ViewScheme(2, True).apply(images, numbers, numbers)
    assert (found.device.type, found.dtype, tuple(found.shape)) == ("meta", torch.uint8, (5, 3, 8, 8))


def test_order_and_views_are_pure_functions_of_seed_and_epoch():
    scheme = ViewScheme(1, False)
    torch.manual_seed(5)
    first = epoch_order(3, 7, 100), scheme.epoch(3, 7, 100)
    torch.manual_seed(6)
    assert all(map(torch.equal, first, (epoch_order(3, 7, 100), scheme.epoch(3, 7, 100))))
    assert sorted(first[0].tolist()) == list(range(100))
    for other in ((4, 7), (3, 8)):
        assert not torch.equal(first[0], epoch_order(*other, 100))
        assert not torch.equal(first[1], scheme.epoch(*other, 100))
    many = torch.cat([scheme.epoch(0, epoch, 1000) for epoch in range(9)])
    assert (many.bincount(minlength=9) - 1000).abs().max() < 150  # uniform: sd 30


def test_digits_are_scikit_learns_and_the_splits_are_disjoint():
    from sklearn.datasets import load_digits

    splits = {split: load("digits", split) for split in ("train", "validation", "test")}
    pixels = {name: {image.numpy().tobytes() for image in split.images} for name, split in splits.items()}
    whole = {
        image.astype(np.uint8).tobytes(): label for image, label in zip(*load_digits(return_X_y=True), strict=True)
    }
    assert set().union(*pixels.values()) == set(whole)
    for split in splits.values():
        assert [whole[i.numpy().tobytes()] for i in split.images] == split.labels.tolist()
        assert split.labels.bincount(minlength=10).min() >= 0.06 * len(split)  # every class is there
    assert all(not pixels[a] & pixels[b] for a, b in combinations(pixels, 2))


def test_load_dataset_is_what_a_third_party_needs():
    images, labels = load_dataset("digits", "test")
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert images.shape == (500, 1, 8, 8)
    assert labels.shape == (500,)
    assert (images.min(), images.max()) == (0, 1)
    with pytest.raises(UserError, match=r"unknown split 'tset'\. Did you mean 'test'"):
        load_dataset("digits", "tset")


@pytest.mark.parametrize("name", data.names())
def test_every_dataset_says_what_it_is(name):
    info = data.info(name, DataOptions(size=16, classes=("a", "b"), folder="nowhere"))
    assert set(info.sizes) == {"train", "validation", "test"}
    assert info.shape[1:] == (16, 16)
    assert len(set(info.classes)) == len(info.classes) >= 2


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_parity_is_a_second_task_on_the_images_of_digits(split):
    digits, parity = load("digits", split), load("digits_parity", split)
    assert torch.equal(digits.images, parity.images)
    assert torch.equal(digits.labels % 2, parity.labels)
    assert parity.info.classes == ("even", "odd")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Debian's package is not seen."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "absent")
    return fashion_mnist_files(tmp_path)


def test_fashion_mnist_of_official_sizes(files):
    options = DataOptions(str(files))
    train, validation, test = (load("fashion_mnist", split, options) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (55000, 5000, 10000)
    number = validation.images[:, 0, 0, 0].long() * 256 + validation.images[:, 0, 0, 1]
    assert torch.equal(number, torch.arange(55000, 60000))
    assert torch.equal(validation.labels, number % 10)
    own = DataOptions(str(files), verify=False)  # the sizes found rule only where they are not the official ones
    assert load("fashion_mnist", "validation", own).digest() == validation.digest()


def test_fashion_mnist_from_debians_package(files, tmp_path, monkeypatch):
    package, there, elsewhere = tmp_path / "package", DataOptions(str(files)), DataOptions(str(tmp_path / "elsewhere"))
    package.mkdir()
    for file in (files / "FashionMNIST/raw").iterdir():
        (package / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 1))
    monkeypatch.setattr(fashion_mnist, "DEBIAN", package)
    fashion_mnist.check(DataOptions(str(tmp_path / "third"), download=False))
    assert load("fashion_mnist", "test", elsewhere).digest() == load("fashion_mnist", "test", there).digest()


@pytest.mark.skipif(not fashion_mnist.DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_real_fashion_mnist(tmp_path):
    test = load("fashion_mnist", "test", DataOptions(str(tmp_path)))
    assert test.labels.bincount().tolist() == [1000] * 10
    assert test.labels[:5].tolist() == [9, 2, 1, 1, 6]
    assert 0.2 < test.floats().mean() < 0.4


def test_fashion_mnist_that_is_missing_or_broken_is_named(files, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere.*is missing.*dataset-fashion-mnist.*download: true"):
        fashion_mnist.check(DataOptions(nowhere, download=False))
    fashion_mnist.check(DataOptions(nowhere))
    fashion_mnist.check(DataOptions(str(files), download=False))
    (files / "FashionMNIST/raw/t10k-images-idx3-ubyte").write_bytes(b"not an idx file")
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte cannot be read"):
        load("fashion_mnist", "test", DataOptions(str(files)))
