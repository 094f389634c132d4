"""Each dataset is read as torchvision reads it, from files that are whole, and nothing in a file is ever run."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import generated
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from scipy.io import savemat
from torchvision.transforms import v2

from robust_distillation import data, load_dataset
from robust_distillation.augmentations.crop_flip import CropFlip
from robust_distillation.config import ViewSet
from robust_distillation.data import DataOptions, fashion_mnist, published
from robust_distillation.data.dataset import load
from robust_distillation.data.decoding import decode
from robust_distillation.data.published import Download, PublishedFiles
from robust_distillation.data.resizing import resize
from robust_distillation.data.splits import split_slice
from robust_distillation.data.views import ViewScheme
from robust_distillation.errors import UserError
from robust_distillation.layout import Layout
from robust_distillation.pipeline import experiment_data

WRITERS = {
    "cifar10": generated.cifar10_files,
    "cifar100": generated.cifar100_files,
    "svhn": generated.svhn_files,
    "stl10": generated.stl10_files,
    "fashion_mnist": generated.fashion_mnist_files,
}
NAMES = list(WRITERS)
SPLITS = ("train", "validation", "test")
PLAIN = "cifar-10-batches-py/test_batch"


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Decoded images are kept below tmp_path, and Debian's package is not seen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "no-debian")


@pytest.fixture(scope="session")
def everything(tmp_path_factory) -> Path:
    """All generated files, by the command that writes them. Do not change them."""
    folder = tmp_path_factory.mktemp("everything")
    command = [sys.executable, str(Path(generated.__file__)), str(folder)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return folder


@pytest.fixture
def options(everything) -> DataOptions:
    return DataOptions(str(everything), download=False, verify=False)


def listing(folder: Path) -> list[Path]:
    return sorted(Path(folder).rglob("*"))


def said(action) -> str:
    """The one message of a UserError."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Reading


def as_torchvision_reads(name: str, folder: str, train: bool):
    """uint8 images [N,C,H,W] and labels of the whole file, by torchvision without its checksums."""

    class CIFAR10(torchvision.datasets.CIFAR10):
        train_list = [(file, None) for file, _ in torchvision.datasets.CIFAR10.train_list]  # noqa: RUF012
        test_list = [(file, None) for file, _ in torchvision.datasets.CIFAR10.test_list]  # noqa: RUF012
        meta = {**torchvision.datasets.CIFAR10.meta, "md5": None}  # noqa: RUF012

    class CIFAR100(torchvision.datasets.CIFAR100):
        train_list, test_list = [("train", None)], [("test", None)]
        meta = {**torchvision.datasets.CIFAR100.meta, "md5": None}  # noqa: RUF012

    class SVHN(torchvision.datasets.SVHN):
        split_list = {k: [*v[:2], None] for k, v in torchvision.datasets.SVHN.split_list.items()}  # noqa: RUF012

    class STL10(torchvision.datasets.STL10):
        train_list = [("train_X.bin", None), ("train_y.bin", None)]  # noqa: RUF012
        test_list = [("test_X.bin", None), ("test_y.bin", None)]  # noqa: RUF012

    if name in ("cifar10", "cifar100"):
        found = (CIFAR10 if name == "cifar10" else CIFAR100)(folder, train=train)
        return found.data.transpose(0, 3, 1, 2), found.targets
    if name == "fashion_mnist":
        found = torchvision.datasets.FashionMNIST(folder, train=train)
        return found.data[:, None], found.targets
    found = (SVHN if name == "svhn" else STL10)(folder, split="train" if train else "test")
    return found.data, found.labels


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_what_torchvision_reads(name, options):
    train, validation, test = (load(name, split, options) for split in SPLITS)
    whole = train.followed_by(validation)
    for ours, flag in ((whole, True), (test, False)):
        images, labels = as_torchvision_reads(name, options.folder, flag)
        assert torch.equal(ours.images, torch.as_tensor(images))
        assert ours.labels.tolist() == torch.as_tensor(labels).tolist()
        assert (ours.images.dtype, ours.labels.dtype) == (torch.uint8, torch.int64)
    assert len(validation) == len(whole) // 10
    assert data.info(name, options).sizes == {"train": len(train), "validation": len(validation), "test": len(test)}
    assert set(test.labels.tolist()) == set(range(len(test.info.classes)))


@pytest.mark.parametrize("name", NAMES)
def test_patterns_of_generated_classes_can_be_learned(name, options):
    """The class whose mean training image is nearest is nearly always right."""
    train, test = (load(name, split, options) for split in ("train", "test"))
    known = sorted(set(train.labels.tolist()))
    means = torch.stack([train.floats()[train.labels == label].mean(0).flatten() for label in known])
    nearest = torch.cdist(test.floats().flatten(1), means).argmin(1)
    right = [known[near] == label for near, label in zip(nearest, test.labels.tolist(), strict=True)]
    assert np.mean(right) > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_torchvisions(name):
    """Addresses, checksums, sizes and class names, as far as torchvision states them without the files."""
    ours = data.registry.module(name)
    theirs = getattr(torchvision.datasets, {"fashion_mnist": "FashionMNIST"}.get(name, name.upper()))
    if name in ("cifar10", "cifar100", "stl10"):
        (source,) = ours.FILES.sources
        assert (ours.FILES.url + source.name, source.md5) == (theirs.url, theirs.tgz_md5)
        known = {f"{theirs.base_folder}/{file}": code for file, code in theirs.train_list + theirs.test_list}
        known.pop("stl10_binary/unlabeled_X.bin", None)
        assert ours.FILES.md5 == known
        assert set(source.files) == set(known)
    elif name == "svhn":
        sources = {(ours.FILES.url + source.name, source.name, source.md5) for source in ours.FILES.sources}
        assert sources == {tuple(theirs.split_list[split]) for split in ("train", "test")}
        assert ours.FILES.md5 == {source.name: source.md5 for source in ours.FILES.sources}
    else:
        assert theirs.mirrors == [ours.FILES.url]
        assert {(source.name, source.md5) for source in ours.FILES.sources} == set(theirs.resources)
        assert list(ours.INFO.classes) == theirs.classes
    official = {"cifar10": (50000, 10000), "cifar100": (50000, 10000), "svhn": (73257, 26032), "stl10": (5000, 8000)}
    sizes = ours.INFO.sizes
    assert (sizes["train"] + sizes["validation"], sizes["test"]) == official.get(name, (60000, 10000))
    assert len(ours.INFO.classes) == (100 if name == "cifar100" else 10)
    assert ours.INFO.flips == (name != "svhn")


def test_cifar100_names_are_sorted_as_in_its_meta_file():
    names = data.info("cifar100").classes
    assert len(set(names)) == 100
    assert list(names) == sorted(names)
    assert (names[0], names[19], names[52], names[99]) == ("apple", "cattle", "oak_tree", "worm")


def test_the_end_of_the_training_images_is_the_validation_split():
    official = {"train": 45000, "validation": 5000, "test": 10000}
    assert split_slice("train", 50000, official) == slice(0, 45000)
    assert split_slice("validation", 50000, official) == slice(45000, 50000)
    with pytest.raises(ValueError, match="at least two are needed"):
        split_slice("train", 1, official)


@pytest.mark.parametrize(("found", "validation"), [(49999, 4999), (200, 20), (19, 1), (2, 1)])
def test_a_tenth_of_other_sizes_is_the_validation_split(found, validation):
    official = {"train": 45000, "validation": 5000, "test": 10000}
    assert split_slice("train", found, official) == slice(0, found - validation)
    assert split_slice("validation", found, official) == slice(found - validation, found)
    assert split_slice("test", found, official) == slice(0, found)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_the_official_ones_until_files_are_there(name, everything, tmp_path):
    absent = DataOptions(str(tmp_path / "absent"), verify=False)
    facts = data.registry.module(name).INFO
    assert data.info(name, absent) == data.info(name) == data.info(name, DataOptions(str(everything))) == facts


def test_planning_needs_neither_torch_nor_numpy(everything):
    """info() of every dataset whose files are not opened for it."""
    code = (
        "import sys; from robust_distillation import data; from robust_distillation.data import DataOptions\n"
        "for name in data.names(): data.info(name, DataOptions('nowhere', 8, classes=('a', 'b')))\n"
        f"there = DataOptions({str(everything)!r}, verify=False)\n"
        "assert data.info('cifar10', there).sizes == {'train': 180, 'validation': 20, 'test': 60}\n"
        "print(sorted({'torch', 'torchvision', 'numpy', 'scipy', 'PIL'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


# Sizes of images


@pytest.mark.parametrize(("height", "size"), [(96, 32), (28, 32), (32, 8), (8, 20)])
def test_resizing_is_torchvisions(height, size):
    images = torch.randint(0, 256, (7, 3, height, height), dtype=torch.uint8)
    assert torch.equal(resize(images, size), v2.functional.resize(images, [size, size], antialias=True))
    assert resize(images, None) is images


@pytest.mark.parametrize("name", ["stl10", "fashion_mnist", "svhn"])
def test_size_option(name, options):
    there = DataOptions(options.folder, 16, download=False, verify=False)
    whole, small = load(name, "test", options), load(name, "test", there)
    assert small.info.shape == data.info(name, there).shape == (whole.info.shape[0], 16, 16)
    assert torch.equal(small.images, v2.functional.resize(whole.images, [16, 16], antialias=True))
    assert torch.equal(small.labels, whole.labels)


def test_size_of_load_dataset():
    images, labels = load_dataset("digits", "validation", size=16)
    assert images.shape == (297, 1, 16, 16)
    assert 0.9 < images.max() <= 1
    assert torch.equal(labels, load_dataset("digits", "validation")[1])


# Pickles


def python2_batch(images: np.ndarray, labels: list[int], key: bytes = b"labels") -> bytes:
    """A batch in the opcodes with which Python 2 and its numpy wrote the published files."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"tR"
    kind = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = number(images.shape[0]) + number(images.shape[1]) + b"\x86"
    content = b"T" + struct.pack("<I", images.size) + images.tobytes()
    array += b"(" + number(1) + shape + kind + number(0) + content + b"tb"
    listed = b"](" + b"".join(map(number, labels)) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(key) + listed + b"u."


def cifar_with(folder: Path, content: bytes) -> DataOptions:
    """CIFAR-10 whose test batch is this pickle."""
    generated.cifar10_files(folder, train=10, test=10)
    (folder / PLAIN).write_bytes(content)
    return DataOptions(str(folder), download=False, verify=False)


def test_pickles_of_python_2_and_of_every_protocol(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    labels = [3, 0, 9, 3]
    old = python2_batch(images, labels)
    believed = pickle.loads(old, encoding="latin1")  # the bytes above are what numpy takes for such a file
    assert np.array_equal(believed["data"], images)
    assert believed["labels"] == labels
    new = [pickle.dumps({"data": images, "labels": labels}, protocol=protocol) for protocol in range(6)]
    for content in (old, *new):
        found = load("cifar10", "test", cifar_with(tmp_path, content))
        assert np.array_equal(found.images.flatten(1).numpy(), images)
        assert found.labels.tolist() == labels
    turned = pickle.dumps({"data": np.asfortranarray(images), "labels": labels}, protocol=4)
    assert np.array_equal(load("cifar10", "test", cifar_with(tmp_path, turned)).images.flatten(1).numpy(), images)


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("call", [os.mkdir, Path, eval, np.load, getattr], ids=lambda call: call.__name__)
def test_a_pickle_runs_nothing(tmp_path, call, protocol):
    bad = tmp_path / "made"
    evil = Calls(call, f"__import__('os').mkdir({str(bad)!r})" if call is eval else str(bad))
    content = pickle.dumps({"data": evil, "labels": []}, protocol=protocol)
    options = cifar_with(tmp_path, content)
    for action in (lambda: load("cifar10", "test", options), lambda: data.info("cifar10", options)):
        assert "test_batch cannot be read (it names" in said(action)
    assert not bad.exists()


def test_a_pickle_that_would_run_by_pickle_itself(tmp_path):
    """The call above is real: pickle makes the folder."""
    pickle.loads(pickle.dumps(Calls(os.mkdir, str(tmp_path / "made"))))
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize(
    ("module", "name"), [(b"numpy", b"ndarray.tofile"), (b"numpy", b"load"), (b"_codecs", b"lookup")]
)
def test_names_below_what_arrays_need_are_refused_too(module, name, tmp_path):
    """Protocol 4 looks up dotted names: numpy.ndarray.tofile would write files."""
    short = [b"\x8c" + bytes([len(text)]) + text for text in (module, name)]
    content = b"\x80\x04}(" + b"\x8c\x04data" + short[0] + short[1] + b"\x93u."
    assert "no array needs" in said(lambda: load("cifar10", "test", cifar_with(tmp_path, content)))


IMAGES = np.zeros((4, 3072), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "needle"),
    [
        (b"", "Ran out of input"),
        (b"<html>not found</html>", "cannot be read"),
        (pickle.dumps({"data": IMAGES, "labels": [0] * 4})[:-5000], "truncated"),
        (pickle.dumps([IMAGES]), "no mapping"),
        (pickle.dumps({"labels": [0] * 4}), "no array 'data'"),
        (pickle.dumps({"data": IMAGES.astype(float), "labels": [0] * 4}), "no array 'data' of bytes"),
        (pickle.dumps({"data": IMAGES[:, :9], "labels": [0] * 4}), "not [N, 3072]"),
        (pickle.dumps({"data": IMAGES, "fine_labels": [0] * 4}), "no list of numbers 'labels'"),
        (pickle.dumps({"data": IMAGES, "labels": [0] * 3}), "4 images and 3 labels"),
        (pickle.dumps({"data": IMAGES, "labels": ["0"] * 4}), "no list of numbers"),
        (pickle.dumps({"data": IMAGES, "labels": [0, 1, 2, 10]}), "labels under"),
        (pickle.dumps({"data": IMAGES, "labels": [0, 1, 2, -1]}), "run from -1 to 2"),
        (pickle.dumps({"data": IMAGES, "labels": [0, 1, 2, 10**30]}), "too large"),
        (pickle.dumps({"data": IMAGES[:0], "labels": []}), "there are no test images"),
    ],
)
def test_batches_that_are_none(tmp_path, content, needle):
    message = said(lambda: load("cifar10", "test", cifar_with(tmp_path, content)))
    assert needle in message
    assert str(tmp_path) in message


# Broken files of the other formats


X, Y = np.zeros((32, 32, 3, 4), dtype=np.uint8), np.ones((4, 1), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "needle"),
    [
        pytest.param(lambda whole: whole[: len(whole) // 2], "cannot be read", id="half"),
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b"no mat file" * 50, "cannot be read", id="text"),
        pytest.param({"X": X}, "no X and y", id="no-y"),
        pytest.param({"y": Y}, "no X", id="no-x"),
        pytest.param({"X": X[:16], "y": Y}, "not uint8 (32, 32, 3, N)", id="shape"),
        pytest.param({"X": X.astype(float), "y": Y}, "X is float64", id="images-of-float"),
        pytest.param({"X": X, "y": Y[:3]}, "4 images and 3 labels", id="counts"),
        pytest.param({"X": X, "y": 11 * Y}, "run from 11 to 11", id="labels"),
        pytest.param({"X": X, "y": Y / 2}, "labels of float64", id="labels-of-float"),
    ],
)
def test_broken_mat_files(content, needle, tmp_path):
    options = DataOptions(str(generated.svhn_files(tmp_path, 10, 10)), download=False, verify=False)
    path = tmp_path / "test_32x32.mat"
    if isinstance(content, dict):
        savemat(path, content)
    else:
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)
    message = said(lambda: load("svhn", "test", options))
    assert needle in message
    assert "svhn" in message


@pytest.mark.parametrize(
    ("images", "labels", "needle"),
    [
        pytest.param(-1, None, "test_X.bin cannot be read (its", id="images-cut"),
        pytest.param(None, -1, "test_y.bin cannot be read (it holds 3 labels of 4 images)", id="labels-cut"),
        pytest.param(None, b"\0\1\2\3", "run from -1 to 2", id="label-too-small"),
        pytest.param(None, b"\1\2\3\x0b", "run from 0 to 10", id="label-too-large"),
        pytest.param(b"", b"", "cannot be read", id="empty"),
    ],
)
def test_broken_stl10_files(images, labels, needle, tmp_path):
    """What stands in place of a file: None: nothing; a number: the file cut there."""
    options = DataOptions(str(generated.stl10_files(tmp_path, 10, 4)), download=False, verify=False)
    for name, content in (("test_X.bin", images), ("test_y.bin", labels)):
        path = tmp_path / "stl10_binary" / name
        path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:content])
    assert needle in said(lambda: load("stl10", "test", options))


def test_stl10_with_one_training_image(tmp_path):
    options = DataOptions(str(generated.stl10_files(tmp_path, 10, 4)), download=False, verify=False)
    place = tmp_path / "stl10_binary"
    images, labels = (place / "test_X.bin").read_bytes(), (place / "test_y.bin").read_bytes()
    (place / "train_X.bin").write_bytes(images[: 3 * 96 * 96])
    (place / "train_y.bin").write_bytes(labels[:1])
    assert "it holds 1 training images" in said(lambda: data.info("stl10", options))


def test_broken_idx_files(tmp_path):
    options = DataOptions(str(generated.fashion_mnist_files(tmp_path, 10, 4)), download=False, verify=False)
    place = tmp_path / "FashionMNIST/raw"
    images, labels = place / "t10k-images-idx3-ubyte", place / "t10k-labels-idx1-ubyte"
    pixels, classes = images.read_bytes(), labels.read_bytes()
    for first, second, needle in (
        (pixels[:-1], classes, "t10k-images-idx3-ubyte cannot be read (it holds 3135 bytes"),
        (pixels, classes[:-1], "t10k-labels-idx1-ubyte cannot be read"),
        (b"\0\0\x0d\3" + pixels[4:], classes, "no idx file of bytes"),
        (b"", classes, "no idx file"),
        (pixels[:6], classes, "cannot be read"),
        (classes, classes, "do not fit"),
        (pixels, classes[:-1] + b"\x0a", "to 10"),
    ):
        images.write_bytes(first)
        labels.write_bytes(second)
        assert needle in said(lambda: load("fashion_mnist", "test", options))
    images.write_bytes(pixels)
    labels.write_bytes(classes)
    message = said(lambda: load("fashion_mnist", "test", DataOptions(str(tmp_path), download=False)))
    assert "expected (10000, 1, 28, 28)" in message
    assert "dataset.verify: false" in message


# Fetching


@pytest.fixture
def served(tmp_path):
    """A folder, and the address of a real server of its files on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def pack(files: PublishedFiles, unpacked: Path, packed: Path) -> None:
    """The sources of a dataset, out of its unpacked files; archives hold more than is needed, as the real ones do."""
    place = unpacked / files.below
    for source in files.sources:
        if source.name.endswith(".tar.gz"):
            with tarfile.open(packed / source.name, "w:gz", compresslevel=1) as archive:
                add(archive, f"{Path(source.files[0]).parent}/unlabeled_X.bin", b"not needed")
                for file in source.files:
                    archive.add(place / file, file)
        elif source.name.endswith(".gz"):
            (packed / source.name).write_bytes(gzip.compress((place / source.files[0]).read_bytes(), 1))
        else:
            shutil.copy(place / source.name, packed)


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size, member.linkname = len(content), link
    member.type = tarfile.SYMTYPE if link else tarfile.REGTYPE
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("name", NAMES)
def test_files_are_fetched_from_a_mirror(name, served, options, tmp_path, capfd):
    folder, address = served
    files = data.registry.module(name).FILES
    pack(files, Path(options.folder), folder)
    fetched = DataOptions(str(tmp_path / "fetched"), verify=False, mirror=address)
    for split in SPLITS:
        assert load(name, split, fetched).digest() == load(name, split, options).digest()
    wanted = {files.folder(fetched) / file for source in files.sources for file in source.files}
    assert {path for path in listing(fetched.folder) if path.is_file()} == wanted  # no archive, nothing half done
    assert "100%" in capfd.readouterr().err  # torchvision's progress bar
    shutil.rmtree(folder)
    load(name, "test", fetched)  # nothing is fetched twice


@pytest.mark.parametrize("name", NAMES)
def test_sources_placed_by_hand_are_unpacked(name, options, tmp_path):
    files = data.registry.module(name).FILES
    there = DataOptions(str(tmp_path / "there"), download=False, verify=False)
    files.folder(there).mkdir(parents=True)
    pack(files, Path(options.folder), files.folder(there))
    message = said(lambda: load(name, "test", DataOptions(there.folder, download=False)))
    assert any(f"{files.folder(there) / source.name} is not the published file" in message for source in files.sources)
    data.registry.module(name).check(there)
    assert load(name, "test", there).digest() == load(name, "test", options).digest()


def published_cifar(options: DataOptions, packed: Path) -> PublishedFiles:
    """CIFAR-10's files under the checksums of the generated ones."""
    files = data.registry.module("cifar10").FILES
    pack(files, Path(options.folder), packed)
    (source,) = files.sources
    known = {file: md5((Path(options.folder) / file).read_bytes()).hexdigest() for file in source.files}
    packed_md5 = md5((packed / source.name).read_bytes()).hexdigest()
    return PublishedFiles("cifar10", files.url, (Download(source.name, packed_md5, source.files),), md5=known)


def test_checksums_that_fit_and_then_do_not(served, options, tmp_path):
    folder, address = served
    files = published_cifar(options, folder)
    there = DataOptions(str(tmp_path / "there"), mirror=address)
    files.fetch(there)
    path = files.verified_path(PLAIN, there)
    assert path.read_bytes() == (Path(options.folder) / PLAIN).read_bytes()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    message = said(lambda: files.verified_path(PLAIN, there))
    for needle in (f"{PLAIN} is not the published file", md5(content).hexdigest(), files.md5[PLAIN], "verify: false"):
        assert needle in message
    assert files.verified_path(PLAIN, DataOptions(there.folder, verify=False)) == path
    path.unlink()
    with pytest.raises(UserError, match=f"{PLAIN} cannot be read"):
        files.verified_path(PLAIN, DataOptions(there.folder))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fashion_mnist"])
def test_other_files_are_refused_by_their_checksum(name, options):
    message = said(lambda: load(name, "test", DataOptions(options.folder, download=False)))
    assert "is not the published file (md5" in message
    assert "dataset.verify: false" in message


@pytest.mark.parametrize("name", NAMES)
def test_downloads_of_something_else_are_refused(name, served, tmp_path):
    folder, address = served
    first = data.registry.module(name).FILES.sources[0].name
    (folder / first).write_bytes(b"<html>log in first</html>")
    there = DataOptions(str(tmp_path / "there"), mirror=address)
    message = said(lambda: load(name, "test", there))
    assert f"{address}{first} is not the published file (md5" in message
    assert not [path for path in listing(there.folder) if path.is_file()]


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_download_says_what_to_do_by_hand(name, served, tmp_path):
    _, address = served
    files = data.registry.module(name).FILES
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for mirror, reason in ((address, "HTTP Error 404"), (nobody, "refused")):
        there = DataOptions(str(tmp_path / "there"), mirror=mirror)
        message = said(lambda there=there: load(name, "test", there))
        first = files.sources[0].name
        for needle in (f"{mirror.rstrip('/')}/{first} could not be downloaded", reason, "dataset.mirror"):
            assert needle in message
        assert f"put {first} from {files.url} into {files.folder(there)}" in message
    assert not [path for path in listing(tmp_path / "there") if path.is_file()]


def test_a_server_that_falls_silent_does_not_hold_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "TIMEOUT", 0.2)
    before = socket.getdefaulttimeout()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and never answers
        there = DataOptions(str(tmp_path), mirror=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "timed out" in said(lambda: load("svhn", "test", there))
    assert socket.getdefaulttimeout() == before


def test_archives_cut_short_leave_no_half_file(served, options, tmp_path):
    folder, address = served
    pack(data.registry.module("cifar10").FILES, Path(options.folder), folder)
    archive = folder / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    there = DataOptions(str(tmp_path / "there"), verify=False, mirror=address)
    assert "cifar-10-python.tar.gz cannot be read" in said(lambda: load("cifar10", "test", there))
    for path in listing(there.folder):
        if path.is_file():  # those before the cut are whole
            assert path.read_bytes() == (Path(options.folder) / path.relative_to(there.folder)).read_bytes()


def test_an_archive_writes_nothing_but_what_is_asked_for(tmp_path):
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    with tarfile.open(place / "cifar-10-python.tar.gz", "w:gz") as archive:
        add(archive, "../out", b"x")
        add(archive, str(tmp_path / "absolute"), b"x")
        add(archive, "cifar-10-batches-py/data_batch_1", link="/etc/hostname")
        add(archive, "cifar-10-batches-py/../../data_batch_2", b"x")
    options = DataOptions(str(place), download=False, verify=False)
    assert "it holds no cifar-10-batches-py/data_batch_1" in said(lambda: load("cifar10", "test", options))
    assert listing(tmp_path) == [tmp_path / "a", place, place / "cifar-10-python.tar.gz"]


@pytest.mark.parametrize("name", NAMES)
def test_check_says_which_files_are_missing(name, tmp_path):
    module, folder = data.registry.module(name), tmp_path / "empty"
    folder.mkdir()
    message = said(lambda: module.check(DataOptions(str(folder), download=False)))
    for needle in ("is missing", str(folder), module.FILES.url, "dataset.download: true", "By hand: put"):
        assert needle in message
    assert all(source.name in message for source in module.FILES.sources)
    module.check(DataOptions(str(folder)))
    assert listing(tmp_path) == [folder]
    message = said(lambda: module.check(DataOptions(str(folder), mirror="/mnt/files")))
    assert "dataset.mirror: '/mnt/files' is not the address of a web server" in message


def test_check_names_only_what_is_missing(options, tmp_path):
    there = generated.svhn_files(tmp_path / "there", 10, 10)
    (there / "test_32x32.mat").unlink()
    message = said(lambda: data.registry.module("svhn").check(DataOptions(str(there), download=False)))
    assert "test_32x32.mat" in message
    assert "train_32x32.mat" not in message


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        assert "ermission denied" in said(lambda: load("svhn", "test", DataOptions(str(tmp_path / "new"))))
    finally:
        tmp_path.chmod(0o700)


# Images in folders of classes


@pytest.fixture
def folder(tmp_path) -> Path:
    return generated.image_folder_files(tmp_path / "images")


def of(folder: Path, size: int | None = 24, **more) -> DataOptions:
    return DataOptions(str(folder), size, **more)


def test_an_image_folder_is_read_shuffled_and_cut(folder):
    train, validation, test = (load("image_folder", split, of(folder)) for split in SPLITS)
    assert data.info("image_folder", of(folder)) == train.info
    assert train.info.shape == (3, 24, 24)
    assert train.info.classes == ("apple", "bird", "chair")
    assert train.info.sizes == {"train": 54, "validation": 6, "test": 24}
    for found, name in ((train.followed_by(validation), "train"), (test, "test")):
        there = torchvision.datasets.ImageFolder(str(folder / name))
        fit = v2.Compose([v2.Resize(24), v2.CenterCrop(24), v2.PILToTensor()])
        expected = {(fit(image).numpy().tobytes(), label) for image, label in there}
        assert {(i.numpy().tobytes(), int(c)) for i, c in zip(found.images, found.labels, strict=True)} == expected
        assert len(expected) == len(found) == len(there)
    for found in (train.first(12), test.first(12)):  # the first images are of all classes
        assert set(found.labels.tolist()) == {0, 1, 2}


def test_an_own_validation_folder_is_used(tmp_path):
    folder = generated.image_folder_files(tmp_path / "images", train=30, validation=9, test=6)
    assert data.info("image_folder", of(folder)).sizes == {"train": 30, "validation": 9, "test": 6}
    assert [len(load("image_folder", split, of(folder))) for split in SPLITS] == [30, 9, 6]
    (folder / "validation/bird").rename(folder / "validation/birds")
    assert "differ in these classes: 'bird', 'birds'" in said(lambda: data.info("image_folder", of(folder)))


@pytest.mark.parametrize("size", [(40, 32), (31, 64), (24, 24), (7, 50), (90, 91)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_decoding_is_torchvisions(tmp_path, size, mode):
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.fromarray(pixels).convert(mode).save(path)
    with Image.open(path) as image:
        expected = v2.functional.center_crop(v2.functional.resize(image.convert("RGB"), [24]), [24, 24])
    assert torch.equal(torch.as_tensor(decode(path, 24).copy()), v2.functional.pil_to_tensor(expected))


def test_what_is_no_image_is_passed_over(folder):
    before = load("image_folder", "train", of(folder)).digest()
    (folder / "train/apple/notes.txt").write_text("no image")
    (folder / "train/apple/._00001.png").write_bytes(b"what a Mac leaves behind")
    (folder / "train/apple/folder.png").mkdir()
    (folder / "train/.cache").mkdir()
    (folder / "train/list.csv").write_text("no class")
    assert load("image_folder", "train", of(folder)).digest() == before
    old = sorted((folder / "train/apple").glob("0*.png"))[0]
    old.rename(old.with_suffix(".PNG"))
    assert load("image_folder", "train", of(folder)).info.sizes == {"train": 54, "validation": 6, "test": 24}


def test_broken_images_are_named(folder, tmp_path):
    path = sorted((folder / "test/bird").iterdir())[0]
    whole = path.read_bytes()
    deep = io.BytesIO()
    Image.fromarray(np.full((30, 30), 40000, dtype=np.uint16)).save(deep, "PNG")
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"  # Pillow would start Ghostscript
    for number, (content, reason) in enumerate(
        [
            (whole[: len(whole) // 2], "truncated"),
            (b"", "cannot identify"),
            (b"<html></html>", "cannot identify"),
            (script, "cannot identify"),
            (deep.getvalue(), "more than 8 bits"),
        ]
    ):
        path.write_bytes(content)
        message = said(lambda: load("image_folder", "test", of(folder)))
        assert f"{path}: not an image that can be read" in message, number
        assert reason in message, number
    assert not (tmp_path / "data").exists()


def test_image_folders_that_cannot_be_used(folder, tmp_path):
    def check():
        data.registry.module("image_folder").check(of(folder))

    check()
    with pytest.raises(UserError, match=r"dataset\.size: an image_folder needs it"):
        data.info("image_folder", of(folder, None))
    (folder / "test/apple").rename(folder / "test/apples")
    assert "test and " in said(check)
    assert "differ in these classes: 'apple', 'apples'" in said(check)
    (folder / "test/apples").rename(folder / "test/apple")
    shutil.rmtree(folder / "test/bird")
    (folder / "test/bird").mkdir()
    assert "test/bird holds no image" in said(check)
    shutil.rmtree(folder / "test")
    assert "test is missing. Put the images into" in said(check)
    for name in ("bird", "chair"):
        shutil.rmtree(folder / "train" / name)
    generated.image_folder_files(folder, classes=("apple",), train=4, test=2)
    assert "fewer than two class folders" in said(check)


def test_links_out_of_an_image_folder_are_refused(folder, tmp_path):
    def check():
        data.registry.module("image_folder").check(of(folder))

    secret = tmp_path / "secret"
    secret.mkdir()
    shutil.copy(sorted((folder / "train/bird").iterdir())[0], secret / "image.png")
    inside = folder / "train/apple/inside.png"
    inside.symlink_to(sorted((folder / "train/bird").iterdir())[0])
    check()  # a link that stays inside
    assert data.info("image_folder", of(folder)).sizes["train"] == 55
    for place in ("train/apple/out.png", "train/zebra", "validation"):
        link = folder / place
        link.symlink_to(secret / "image.png" if place.endswith("png") else secret)
        assert f"{link} leads out of {folder}" in said(check)
        link.unlink()
    check()
    (tmp_path / "link").symlink_to(folder)  # the folder itself may be one
    data.registry.module("image_folder").check(of(tmp_path / "link"))


def test_an_absent_image_folder_can_be_planned(tmp_path, folder):
    absent = of(tmp_path / "absent", classes=("b", "a"))
    info = data.info("image_folder", absent)
    assert info.classes == ("a", "b")
    assert info.sizes == {"train": None, "validation": None, "test": None}
    message = said(lambda: data.registry.module("image_folder").check(absent))
    assert f"{tmp_path / 'absent' / 'train'} is missing. Put the images into" in message
    assert "is missing" in said(lambda: load("image_folder", "train", absent))
    assert "dataset.classes" in said(lambda: data.info("image_folder", of(tmp_path / "absent")))
    other = of(folder, classes=("apple", "bird", "dog"))
    assert "dataset.classes and" in said(lambda: data.info("image_folder", other))
    assert not (tmp_path / "data").exists()


def test_decoded_images_are_kept_and_checked(tmp_path):
    folder = generated.image_folder_files(tmp_path / "images", suffix=".bmp")
    before = load("image_folder", "test", of(folder))
    (kept,) = (tmp_path / "data/decoded").iterdir()
    whole = kept.read_bytes()

    image = sorted((folder / "test/bird").iterdir())[3]
    status, pixels = image.stat(), bytearray(image.read_bytes())
    pixels[-400:] = bytes(400)
    image.write_bytes(pixels)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load("image_folder", "test", of(folder)).digest() == before.digest()  # read from what was kept
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    after = load("image_folder", "test", of(folder))
    assert (after.images != before.images).flatten(1).any(1).sum() == 1  # a changed file is decoded again

    image.write_bytes(image.read_bytes())
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for broken in (whole[: len(whole) // 2], b"", bytes(flipped), b"no zip" * 100):
        kept.write_bytes(broken)
        assert load("image_folder", "test", of(folder)).digest() == after.digest()
        with np.load(kept) as found:
            assert np.array_equal(found["images"], after.images.numpy())
    assert load("image_folder", "test", of(folder, 16)).info.shape == (3, 16, 16)  # another size, another file
    assert len(list((tmp_path / "data/decoded").iterdir())) == 3


def test_folders_that_only_their_path_tells_apart_are_kept_apart(tmp_path):
    """Same names, byte sizes and file times: what an archive with fixed times unpacks to."""
    for split, grey in (("train", 10), ("test", 200)):
        for name in ("a", "b"):
            path = tmp_path / "images" / split / name / "0.bmp"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8), (grey,) * 3).save(path)
            os.utime(path, (0, 0))
    options = of(tmp_path / "images", 8)
    assert int(load("image_folder", "test", options).images.min()) == 200
    assert int(load("image_folder", "train", options).images.max()) == 10


def test_decoded_images_that_cannot_be_kept_are_used_all_the_same(folder, tmp_path, caplog):
    (tmp_path / "data").write_text("a file where the folder should be")
    assert len(load("image_folder", "test", of(folder))) == 24
    assert "cannot be kept" in caplog.text


# The data of an experiment


@pytest.fixture
def experiment(options):
    """What experiment_data.py asks of an experiment, with data.json written."""

    def made(selects_on_test: bool, **limit: int) -> SimpleNamespace:
        limits = SimpleNamespace(**{split: limit.get(split) for split in SPLITS})
        return SimpleNamespace(
            layout=Layout("small"),
            dataset=SimpleNamespace(name="cifar10", limit=limits, padding=4),
            data_options=options,
            info=data.info("cifar10", options),
            selects_on_test=selects_on_test,
        )

    path = Layout("small").data
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(experiment_data.describe_dataset("cifar10", options)))
    return made


def test_data_json_holds_size_and_hash_of_every_split(experiment, options):
    written = json.loads(Layout("small").data.read_text())
    assert written["name"] == "cifar10"
    assert {split: entry["images"] for split, entry in written["splits"].items()} == data.info("cifar10", options).sizes
    for split in SPLITS:
        assert written["splits"][split]["sha256"] == load("cifar10", split, options).digest()
    views = ViewSet("crop_flip", CropFlip())
    assert experiment_data.views_of(experiment(False), views) == ViewScheme(4, True)


def test_selection_on_the_test_set_trains_on_all_training_images(experiment, options):
    controlled, official = experiment(False, train=50), experiment(True, train=195, validation=30)
    parts = {split: load("cifar10", split, options) for split in SPLITS}
    assert torch.equal(experiment_data.load_split(controlled, "train").images, parts["train"].images[:50])
    assert experiment_data.load_split(controlled, "validation").digest() == parts["validation"].digest()
    train = experiment_data.load_split(official, "train")
    assert len(train) == 195  # beyond the 180 of the train split: the limit counts all of them
    whole = as_torchvision_reads("cifar10", options.folder, train=True)[0]
    assert torch.equal(train.images, torch.as_tensor(whole[:195].copy()))
    assert torch.equal(experiment_data.load_split(official, "validation").images, parts["test"].images[:30])
    assert experiment_data.load_split(official, "test").digest() == parts["test"].digest()


def test_images_that_changed_since_prepare_data_are_refused(experiment, tmp_path, monkeypatch):
    written = json.loads(Layout("small").data.read_text())
    written["splits"]["validation"]["sha256"] = "0" * 64
    Layout("small").data.write_text(json.dumps(written))
    experiment_data.load_split(experiment(False), "train")
    for made, split in ((experiment(False), "validation"), (experiment(True), "train")):
        assert "the validation images changed" in said(
            lambda made=made, split=split: experiment_data.load_split(made, split)
        )
