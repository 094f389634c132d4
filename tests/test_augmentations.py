"""Augmentations by their definitions; views as pure functions of (seed, epoch, index); records against the live
teacher."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, TINY
from ruamel.yaml import YAML
from safetensors.torch import load_file
from scipy.stats import chisquare
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from robust_distillation import augmentations
from robust_distillation.augmentations import colour, pixels
from robust_distillation.augmentations.draws import STEP, Draws, _hashed
from robust_distillation.augmentations.idbh import IDBH, POLICIES
from robust_distillation.augmentations.rand_augment import OPERATIONS, SIGNED, RandAugment
from robust_distillation.config import Experiment, load
from robust_distillation.data.dataset import Dataset
from robust_distillation.data.info import DatasetInfo
from robust_distillation.files import read_json
from robust_distillation.pipeline.experiment_data import views_of
from robust_distillation.pipeline.run import run_step
from robust_distillation.pipeline.steps import FillCache, FillRecords, PrepareData, TrainStudent, TrainTeacher, Tune
from robust_distillation.planning import calls, cost
from robust_distillation.planning.plan import describe
from robust_distillation.settings import Training
from robust_distillation.training.batches import batches
from robust_distillation.training.parallel import Group

COLOUR = DatasetInfo((3, 32, 32), ("a", "b"), True, {})
GREY = DatasetInfo((1, 8, 8), ("a", "b"), False, {}, 16)
LARGE = DatasetInfo((3, 96, 96), ("a", "b"), True, {})
RANDOM = {  # augmentation, and its options for small images
    "crop_shift": {"high": 5},
    "cutout": {"size": 3},
    "idbh": {"high": 5},
    "rand_augment": {},
}
NAMES = [name for name in augmentations.names() if name != "crop_flip"]
LIKELY = 1e-3  # least p-value, with fixed seeds


def images_of(info: DatasetInfo, count: int = 24, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(info.max_value + 1, (count, *info.shape), generator=draws, dtype=torch.uint8)


def views(name: str, info: DatasetInfo = COLOUR, seed: int = 0, epochs: int = 4, **options):
    return augmentations.from_settings({"name": name, **options}).views(info, 4, seed, epochs)


def draws_of(count: int, seed: int = 0, epoch: int = 1) -> Draws:
    return Draws(seed, np.full(count, epoch), np.arange(count))


# Random numbers


def test_the_hash_is_that_of_splitmix64():
    """The first numbers of its reference implementation, from the states 0 and 1234567."""
    states = np.array([0, 1234567], np.uint64)
    found = [_hashed(states + STEP * np.full(1, count, np.uint64)).tolist() for count in (1, 2, 3)]
    assert found == [
        [0xE220A8397B1DCDAF, 6457827717110365317],
        [0x6E789E6AA1B965F4, 3203168211198807973],
        [0x06C45D188009454F, 9817491932198370423],
    ]


@pytest.mark.parametrize("along", ["ids", "epochs", "calls", "seeds"])
@pytest.mark.slow
def test_numbers_are_uniform_and_neighbours_are_independent(along):
    count = 40_000
    zeros, steps = np.zeros(count, np.int64), np.arange(count)
    if along == "calls":
        draws = Draws(0, zeros[:1], zeros[:1])
        found = np.concatenate([draws.uniform() for _ in range(count)])
    elif along == "seeds":
        found = np.concatenate([Draws(seed, zeros[:1], zeros[:1]).uniform() for seed in range(count)])
    else:
        found = Draws(3, *((steps, zeros) if along == "epochs" else (zeros, steps))).uniform()
    assert 0 <= found.min() < found.max() < 1
    assert chisquare(np.histogram(found, 64, (0, 1))[0]).pvalue > LIKELY
    for lag in (1, 2, 128):
        pairs = np.histogram2d(found[:-lag], found[lag:], 16, ((0, 1), (0, 1)))[0]
        assert chisquare(pairs.ravel()).pvalue > LIKELY
        assert abs(np.corrcoef(found[:-lag], found[lag:])[0, 1]) < 4 / math.sqrt(count)
    bits = (found * 2**20).astype(np.int64)
    assert all(abs((bits >> bit & 1).mean() - 0.5) < 4 * 0.5 / math.sqrt(count) for bit in range(20))


def test_no_two_of_seed_epoch_index_and_call_share_a_number():
    epochs, ids = (part.ravel() for part in np.mgrid[0:40, 0:40])
    batches_ = [Draws(seed, epochs, ids) for seed in range(20)]
    found = np.concatenate([draws.uniform() for draws in batches_ for _ in range(5)])
    assert len(np.unique(found)) == len(found) == 160_000


def test_integers_are_all_equally_likely_also_between_bounds_of_each_row():
    draws = draws_of(60_000)
    assert chisquare(np.bincount(draws.integers(0, 7), minlength=7)).pvalue > LIKELY
    high = np.arange(60_000) % 3 + 1
    found = draws.integers(0, high)
    for bound in (2, 3):
        assert chisquare(np.bincount(found[high == bound], minlength=bound)).pvalue > LIKELY
    assert set(found[high == 1]) == {0}


# Views are pure functions of (seed, epoch, index)


@pytest.mark.parametrize("info", [GREY, COLOUR, LARGE], ids=["grey 8x8", "colour 32x32", "colour 96x96"])
@pytest.mark.parametrize("name", NAMES)
def test_a_view_depends_on_seed_epoch_and_index_alone(name, info):
    images, ids, epoch = images_of(info), torch.arange(24) + 7, torch.tensor([2] * 24)
    options = RANDOM.get(name, {})
    scheme = views(name, info, **options)
    torch.manual_seed(1)
    whole = scheme.apply(images, ids, epoch)
    before = torch.get_rng_state()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scheme.apply(images[order], ids[order], epoch), whole[order])
    for part in (ids[3:4] - 7, torch.arange(5, 16), order[:9]):
        assert torch.equal(scheme.apply(images[part], ids[part], epoch[part]), whole[part])
    mixed = torch.arange(24) % 3
    expected = torch.stack([scheme.apply(images, ids, torch.full((24,), e)) for e in range(3)])
    assert torch.equal(scheme.apply(images, ids, mixed), expected[mixed, torch.arange(24)])
    assert torch.equal(torch.get_rng_state(), before)  # torch's generator is not used
    for other in (scheme.apply(images, ids, epoch - 1), scheme.apply(images, ids + 1, epoch)):
        assert not torch.equal(other, whole)
    assert not torch.equal(views(name, info, seed=1, **options).apply(images, ids, epoch), whole)
    assert (whole.dtype, whole.shape, whole.stride()) == (torch.uint8, images.shape, images.stride())
    assert whole.max() <= info.max_value
    assert torch.equal(images, images_of(info))  # not modified


@pytest.mark.slow
def test_another_process_has_the_same_views():
    code = (
        "import hashlib, torch\nfrom robust_distillation import augmentations\n"
        "from robust_distillation.data.info import DatasetInfo\n"
        "info = DatasetInfo((3, 32, 32), ('a', 'b'), True, {})\n"
        "draws = torch.Generator().manual_seed(0)\n"
        "images = torch.randint(256, (24, 3, 32, 32), generator=draws, dtype=torch.uint8)\n"
        "for name in ('crop_shift', 'cutout', 'idbh', 'rand_augment'):\n"
        "    scheme = augmentations.from_settings({'name': name}).views(info, 4, 5, 9)\n"
        "    made = scheme.apply(images, torch.arange(24), torch.full((24,), 8))\n"
        "    print(hashlib.sha256(made.numpy().tobytes()).hexdigest())\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    images, found = images_of(COLOUR), []
    for name in RANDOM:
        made = views(name, seed=5, epochs=9).apply(images, torch.arange(24), torch.full((24,), 8))
        found.append(hashlib.sha256(made.numpy().tobytes()).hexdigest())
    assert printed.stdout.split() == found


def test_view_numbers_are_those_of_the_epochs():
    scheme = views("cutout", seed=3, epochs=5)
    assert len(scheme) == 5
    assert scheme.epoch(3, 5, 4).tolist() == [4] * 4
    for seed, epoch in ((2, 1), (3, 0), (3, 6)):
        with pytest.raises(ValueError, match="views of seed 3, epochs 1 to 5"):
            scheme.epoch(seed, epoch, 4)


@pytest.mark.parametrize("name", ["crop_shift", "cutout"])
def test_pixels_are_moved_where_the_images_are(name):
    """Runs on torch's meta device, which has shapes only and refuses tensors of another device."""
    images, ids = torch.empty(5, 3, 32, 32, dtype=torch.uint8, device="meta"), torch.arange(5)
    assert views(name).apply(images, ids, ids % 4).device.type == "meta"


def test_batches_are_the_same_for_any_processes_and_after_a_stop():
    settings = Training.model_validate(
        {"epochs": 4, "batch_size": 7, "learning_rate": 0.1, "inner_attack": {"step_size": 0.1}}
    )
    data = Dataset(images_of(COLOUR), torch.arange(24) % 2, COLOUR)
    scheme, cpu = views("idbh"), torch.device("cpu")
    whole = list(batches(data, scheme, settings, 0, 3, cpu))
    stopped = list(batches(data, scheme, settings, 0, 3, cpu, 2))
    assert all(torch.equal(a.x, b.x) for a, b in zip(whole[2:], stopped, strict=True))
    ranks = [list(batches(data, scheme, settings, 0, 3, cpu, 0, Group(rank, 2))) for rank in range(2)]
    for one, *shares in zip(whole, *ranks, strict=True):
        assert torch.equal(torch.cat([share.x for share in shares]), one.x)
        assert one.view_ids.tolist() == [2] * len(one.ids)


# Cutout, CropShift, erasing, by their definitions


def test_crop_shift_cuts_off_s_lines_in_all():
    count, low, high = 22_000, 0, 11
    made = pixels.random_crop_shift(torch.ones(count, 1, 32, 32, dtype=torch.uint8), draws_of(count), low, high)[:, 0]
    rows, columns = (made.amax(axis) == 0 for axis in (2, 1))
    cut = rows.sum(1) + columns.sum(1)
    assert chisquare(cut.bincount(minlength=high)).pvalue > LIKELY
    for s in (1, 4, 10):  # the columns among them are uniform
        assert chisquare(columns.sum(1)[cut == s].bincount(minlength=s + 1)).pvalue > LIKELY
    assert float((cut == 0).float().mean()) == pytest.approx(1 / 11, abs=4 * math.sqrt(10 / 121 / count))
    kept = made.float().mean((1, 2))
    exact = np.mean([np.mean([(32 - c) * (32 - s + c) for c in range(s + 1)]) for s in range(high)]) / 1024
    assert exact == pytest.approx(0.848633, abs=1e-6)
    assert float(kept.mean()) == pytest.approx(exact, abs=4 * float(kept.std()) / math.sqrt(count))


def test_crop_shift_puts_a_crop_of_any_place_at_any_place():
    """Compares with the released code's way: crop, pad each side by what was cut off, crop to the whole size."""
    count, side = 24_000, 6
    image = torch.arange(1, side * side + 1, dtype=torch.uint8).view(1, 1, side, side)
    made = pixels.random_crop_shift(image.expand(count, 1, side, side), draws_of(count), 2, 3)[:, 0]  # s = 2
    seen = Counter(found.numpy().tobytes() for found in made)
    expected = Counter()
    for columns in range(3):
        rows, ways = 2 - columns, 3 * ((3 - columns) * (columns + 1)) ** 2
        for top, left in np.ndindex(rows + 1, columns + 1):
            crop = image[0, 0, top : top + side - rows, left : left + side - columns]
            padded = torch.nn.functional.pad(crop, [columns, columns, rows, rows])
            for y, x in np.ndindex(rows + 1, columns + 1):
                expected[padded[y : y + side, x : x + side].numpy().tobytes()] += count / ways
    assert seen.keys() == expected.keys()
    assert chisquare(*([counts[key] for key in expected] for counts in (seen, expected))).pvalue > LIKELY


def test_cutout_is_one_square_around_a_uniform_centre():
    count, blank = 20_000, torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
    augmentation = augmentations.from_settings({"name": "cutout"})
    info = DatasetInfo((1, 32, 32), ("a", "b"), False, {})
    black = augmentation.augment(blank.expand(count, 1, 32, 32), draws_of(count), info, 0)[:, 0] == 0
    rows, columns = (black.any(axis).sum(1) for axis in (2, 1))
    assert torch.equal(black.sum((1, 2)), rows * columns)  # a box
    lengths = np.bincount([min(32, c + 9) - max(0, c - 9) for c in range(32)], minlength=19)
    for found in (rows, columns):
        seen = found.bincount(minlength=19).numpy()
        assert not seen[lengths == 0].any()
        assert chisquare(seen[lengths > 0], count * lengths[lengths > 0] / 32).pvalue > LIKELY
    full, exact = float((rows * columns == 324).float().mean()), (15 / 32) ** 2
    assert exact == pytest.approx(0.2197, abs=5e-5)
    assert full == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / count))
    first = black.any(2).long().argmax(1)[(rows == 18)]
    assert chisquare(first.bincount(minlength=15)).pvalue > LIKELY
    assert augmentation.augment(blank.clone(), Draws(0, np.array([1]), np.array([0])), info, 0).shape == blank.shape


@pytest.mark.parametrize("area", [(0.02, 0.33), (0.02, 0.5)])
def test_erasing_is_torchvisions(area):
    count, blank = 6_000, torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
    black = pixels.random_erasing(blank.expand(count, 1, 32, 32), draws_of(count), 1.0, area)[:, 0] == 0
    rows, columns = (black.any(axis).sum(1) for axis in (2, 1))
    assert torch.equal(black.sum((1, 2)), rows * columns)
    # A side is rounded by at most half a pixel.
    assert ((rows - 0.5) * (columns - 0.5) <= area[1] * 1024).all()
    assert ((rows + 0.5) * (columns + 0.5) >= area[0] * 1024).all()
    assert ((rows - 0.5) / (columns + 0.5) <= 3.3).all()
    assert ((rows + 0.5) / (columns - 0.5) >= 0.3).all()
    torch.manual_seed(0)
    theirs = v2.RandomErasing(p=1, scale=area)
    boxes = [theirs.make_params([blank[0]]) for _ in range(count)]
    top, left = (black.any(axis).long().argmax(1) for axis in (2, 1))
    for found, key in ((rows, "h"), (columns, "w"), (top, "i"), (left, "j")):
        expected = np.array([box[key] for box in boxes])
        edges = np.unique(np.quantile(expected, np.linspace(0, 1, 9)))
        seen, known = (np.histogram(values, [*edges[:-1], 33])[0] for values in (found.numpy(), expected))
        difference = ((seen - known) ** 2 / np.maximum(seen + known, 1)).sum()  # two samples of the same size
        assert difference < 30  # chi-square with at most 8 degrees of freedom: p = 0.0002


@pytest.mark.parametrize(("strength", "probability"), [("weak", 0.5), ("strong", 1.0)])
def test_strength_is_the_share_of_erased_images(strength, probability):
    count = 4000
    blank = torch.full((count, 1, 16, 16), 255, dtype=torch.uint8)
    chosen = IDBH(strength=strength)
    erased = pixels.random_erasing(blank, draws_of(count), {"weak": 0.5, "strong": 1.0}[chosen.strength], (0.1, 0.2))
    share = float((erased.amin((1, 2, 3)) == 0).float().mean())
    assert share == pytest.approx(probability, abs=4 * math.sqrt(probability * (1 - probability) / count) + 1e-9)


# Colours and affine maps


def affine(**changed):
    return partial(functional.affine, **{"angle": 0, "translate": [0, 0], "scale": 1, "shear": [0, 0], **changed})


SINGLE = {  # operation, its parameter, and the same by torchvision
    "saturation": (1.4, partial(functional.adjust_saturation, saturation_factor=1.4)),
    "brightness": (0.6, partial(functional.adjust_brightness, brightness_factor=0.6)),
    "contrast": (1.7, partial(functional.adjust_contrast, contrast_factor=1.7)),
    "sharpness": (0.3, partial(functional.adjust_sharpness, sharpness_factor=0.3)),
    "autocontrast": (0.0, functional.autocontrast),
    "equalize": (0.0, functional.equalize),
    "posterize": (5, partial(functional.posterize, bits=5)),
    "solarize": (99.0, partial(functional.solarize, threshold=99.0)),
    "rotate": (-7, partial(functional.rotate, angle=-7)),
    "shear_x": (8.0, affine(shear=[8.0, 0])),
    "shear_y": (-8.0, affine(shear=[0, -8.0])),
    "corner_shear_x": (8.0, affine(shear=[8.0, 0], center=[0, 0])),
    "corner_shear_y": (8.0, affine(shear=[0, 8.0], center=[0, 0])),
    "translate_x": (-5.0, affine(translate=[-5, 0])),
    "translate_y": (4.0, affine(translate=[0, 4])),
}


def photo(info: DatasetInfo = COLOUR) -> torch.Tensor:
    """Smooth images [2,C,H,W] whose range is not the whole one, so that every operation changes them."""
    channels, height, width = info.shape
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 2, width), indexing="ij")
    waves = [torch.sin(x * (c + 1) + k) * torch.cos(y - c) for k in range(2) for c in range(channels)]
    whole = torch.stack(waves).view(2, channels, height, width)
    return ((0.5 + 0.35 * whole) * info.max_value).round().to(torch.uint8)


@pytest.mark.parametrize("name", SINGLE)
def test_an_operation_is_torchvisions_on_its_image_and_leaves_the_others(name):
    value, expected = SINGLE[name]
    images = photo()
    made = colour.apply_each(images, [None, colour.operation(name, value)], COLOUR)
    assert torch.equal(made[0], images[0])
    assert torch.equal(made[1], expected(images[1]))
    assert not torch.equal(made[1], images[1])


@pytest.mark.parametrize("name", SINGLE)
def test_images_of_another_range_are_scaled_to_bytes_and_back(name):
    if name == "saturation":
        return  # means nothing to grey images
    value, expected = SINGLE[name]
    images = photo(GREY)
    made = colour.apply_each(images, [colour.operation(name, value), None], GREY)
    assert torch.equal(made[1], images[1])
    exact = expected((images[:1].double() * 255 / 16).round().to(torch.uint8))
    assert torch.equal(made[:1], (exact.double() * 16 / 255).round().to(torch.uint8))
    assert made.max() <= 16


def test_an_unknown_operation_is_refused():
    with pytest.raises(ValueError, match="there is no operation 'blur'"):
        colour.operation("blur")


@pytest.mark.parametrize("magnitude", [0, 5, 14, 30])
def test_operations_of_rand_augment_are_torchvisions(magnitude):
    """Each by torchvision's own class, which draws from its generator, with the sign in our hands."""
    theirs, ours = v2.RandAugment(magnitude=magnitude), RandAugment(magnitude=magnitude)
    names = ("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast",
             "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize")  # fmt: skip
    assert list(theirs._AUGMENTATION_SPACE) == list(names)
    image = photo()[0]
    for name, known in zip(OPERATIONS, names, strict=True):
        magnitudes, signed = theirs._AUGMENTATION_SPACE[known]
        assert signed is (name in SIGNED)
        bins = magnitudes(31, 32, 32)
        for sign in (1, -1):
            value = 0.0 if bins is None else float(bins[magnitude]) * (sign if signed else 1)
            expected = theirs._apply_image_or_video_transform(image, known, value, theirs.interpolation, theirs._fill)
            operation = ours._operation(name, sign, 32, 32)
            assert torch.equal(operation(image) if operation else image, expected), (name, sign)


def test_rand_augment_draws_every_operation_alike_before_crop_and_flip():
    count, images = 600, photo()[:1].expand(600, 3, 32, 32)
    made = RandAugment(magnitude=20).augment(images, draws_of(count), COLOUR, 4)
    draws, kinds = draws_of(count), []
    expected, ours = images.clone(), RandAugment(magnitude=20)
    for _ in range(2):
        kind, negative = draws.integers(0, 14), draws.coin()
        kinds += kind.tolist()
        for row in range(count):
            operation = ours._operation(OPERATIONS[kind[row]], -1 if negative[row] else 1, 32, 32)
            expected[row] = operation(expected[row]) if operation else expected[row]
    view = draws.integers(0, 162)
    for row in range(count):
        flip, (dy, dx) = view[row] // 81, divmod(view[row] % 81, 9)
        crop = functional.crop(functional.pad(expected[row], [4] * 4), dy, dx, 32, 32)
        expected[row] = functional.horizontal_flip(crop) if flip else crop
    assert torch.equal(made, expected)
    assert chisquare(np.bincount(kinds, minlength=14)).pvalue > LIKELY


@pytest.mark.parametrize("policy", ["color", "shape"])
@pytest.mark.parametrize("strength", ["weak", "strong"])
def test_idbh_is_flip_crop_shift_one_operation_and_erasing_in_this_order(policy, strength):
    """Image by image, with the definitions of the paper's code and torchvision's functions."""
    count, high, (low, angle), degrees, area, erased = {
        "color": (150, 11, (0.05, 0.15), 10, 0.33, None),
        "shape": (150, 9, (0.05, 0.35), 30, 0.5, None),
    }[policy]
    draws, images = draws_of(count), images_of(COLOUR, count)
    made = IDBH(policy=policy, strength=strength).augment(images, draws_of(count), COLOUR, 4)
    flip, s = draws.coin(), draws.integers(0, high)
    columns = draws.integers(0, s + 1)
    rows = s - columns
    top, left, y, x = (draws.integers(0, lost + 1) for lost in (rows, columns, rows, columns))
    kind, u, negative, vertical = draws.uniform(), draws.uniform(), draws.coin(), draws.coin()
    erased = draws.coin(0.5 if strength == "weak" else 1.0)
    boxes = [(draws.uniform(0.02, area), draws.uniform(math.log(0.3), math.log(3.3))) for _ in range(10)]
    place = draws.uniform(), draws.uniform()
    for row in range(count):
        image = functional.horizontal_flip(images[row]) if flip[row] else images[row]
        window = image[:, top[row] : top[row] + 32 - rows[row], left[row] : left[row] + 32 - columns[row]]
        image = torch.zeros_like(image)
        image[:, y[row] : y[row] + 32 - rows[row], x[row] : x[row] + 32 - columns[row]] = window
        sign, value = -1 if negative[row] else 1, u[row]
        shares = np.cumsum([0.125] * 8 if policy == "color" else [0.08, 0.08, 0.04, 0.08, 0.04, 0.08, 0.3, 0.3])
        match int((kind[row] >= shares[:-1]).sum()):
            case 0:
                image = functional.adjust_saturation(image, 0.1 + 1.8 * value)
            case 1:
                image = functional.adjust_brightness(image, 0.5 + 1.4 * value)
            case 2:
                image = functional.adjust_contrast(image, 0.5 + 1.4 * value)
            case 3:
                image = functional.adjust_sharpness(image, 0.1 + 1.8 * value)
            case 4:
                image = functional.autocontrast(image)
            case 5:
                image = functional.equalize(image)
            case 6:
                shear = sign * math.degrees(low + (angle - low) * value)
                image = functional.affine(image, 0, [0, 0], 1, [0.0, shear] if vertical[row] else [shear, 0.0])
            case 7:
                image = functional.rotate(image, sign * (1 + math.floor(degrees * value)))
        for share, aspect in boxes if erased[row] else ():
            size = 1024 * share[row]
            h, w = (round(math.sqrt(size * factor)) for factor in (math.exp(aspect[row]), math.exp(-aspect[row])))
            if h < 32 and w < 32:
                begin = [math.floor(p[row] * (32 - side + 1)) for p, side in zip(place, (h, w), strict=True)]
                image = functional.erase(image, *begin, h, w, torch.zeros(1, dtype=torch.uint8))
                break
        assert torch.equal(made[row], image), row


def test_probabilities_of_idbh_sum_to_1():
    assert all(sum(policy.probabilities) == pytest.approx(1) for policy in POLICIES.values())


@pytest.mark.slow
def test_torchvision_is_imported_for_colours_alone():
    code = (
        "import sys, torch\nfrom robust_distillation import augmentations\n"
        "from robust_distillation.data.info import DatasetInfo\n"
        "info, images = DatasetInfo((3, 32, 32), (), True, {}), torch.zeros(2, 3, 32, 32, dtype=torch.uint8)\n"
        "for name in ('crop_flip', 'crop_shift', 'cutout'):\n"
        "    scheme = augmentations.from_settings({'name': name}).views(info, 4, 0, 1)\n"
        "    scheme.apply(images, torch.arange(2), torch.arange(2))\n"
        "print('torchvision' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# The experiment, its caches and its plan


def experiment(folder: Path, augmentation: dict | None = None, **more) -> Experiment:
    overlay = YAML(typ="safe").load(TINY) | {"name": "views", "tuning": None, "claims": None}
    overlay |= {"methods": dict.fromkeys(("sat", "trades", "mart", "iad", "natural")), **more}
    overlay["training"] |= {"augmentation": augmentation} if augmentation else {}
    YAML().dump(overlay, folder / "overlay.yaml")
    return load(REPOSITORY / "params.yaml", str(folder / "overlay.yaml"))


def test_runs_with_the_same_teacher_augmentation_seed_and_epochs_share_records(tmp_path):
    chosen = {"name": "idbh", "high": 5}
    tuning = {"training": {"epochs": 1, "milestones": []}}
    made = experiment(tmp_path, chosen, seeds=[0, 1], tuning=tuning)
    names = {cache.views.name for cache in made.caches}
    number = next(iter(names)).split("-")[1]
    assert names == {f"idbh-{number}-seed-{seed}-epochs-{epochs}" for seed, epochs in ((0, 3), (1, 3), (2**31, 1))}
    assert not list(FillCache.jobs(made))
    fills = {step.command: step for step in FillRecords.jobs(made)}
    assert len(fills) == 6  # three trainings' views, logits and features
    trainings = {(step.values["method"], step.values["seed"]): step for step in TrainStudent.jobs(made)}
    logits = fills[f"fill-records wide idbh-{number}-seed-1-epochs-3 logits"]
    assert set(logits.outputs) < set(trainings["rslad", "1"].inputs)
    assert set(logits.outputs) < set(trainings["gacd", "1"].inputs)
    candidates = [step for step in Tune.jobs(made) if step.values["method"] == "rslad"]
    short = fills[f"fill-records wide idbh-{number}-seed-{2**31}-epochs-1 logits"]
    assert all(set(short.outputs) < set(step.inputs) for step in candidates)
    other = experiment(tmp_path, chosen | {"strength": "weak"}, seeds=[0, 1])
    assert not names & {cache.views.name for cache in other.caches}
    options, training = {"strength": "strong", "policy": "color", "high": 5}, {"seed": 1, "epochs": 3}
    assert logits.settings["views"] == {"augmentation": {"name": "idbh", **options}, **training}
    key = views_of(made, logits.cache.views).key
    assert key == {"padding": 1, "flips": False, "augmentation": "IDBH", "options": options, **training}


def test_without_records_a_training_reads_the_teachers_network(tmp_path):
    made = experiment(tmp_path, {"name": "cutout", "size": 3, "cache": "live"})
    assert not made.caches
    assert not [*FillRecords.jobs(made), *FillCache.jobs(made)]
    [rslad] = [step for step in TrainStudent.jobs(made) if step.values["method"] == "rslad"]
    assert made.teacher_weights("wide") in rslad.inputs
    assert any(name.endswith("convnet") for name in rslad.named)
    assert "logits (live), features (live)" in describe(made)


def test_code_of_an_augmentation_reruns_what_uses_it(tmp_path):
    for name, options in RANDOM.items():
        made = experiment(tmp_path, {"name": name, **options})
        for step in (*TrainTeacher.jobs(made), *FillRecords.jobs(made), *TrainStudent.jobs(made)):
            assert f"robust_distillation.augmentations.{name}" in step.named


def test_another_name_replaces_the_options(tmp_path):
    teachers = {"wide": {"training": {"augmentation": {"name": "crop_flip"}}}}
    made = experiment(tmp_path, {"name": "crop_shift", "high": 4, "low": 2}, teachers=teachers)
    assert made.teachers["wide"].recipe.training.augmentation == {"name": "crop_flip"}
    own = {"wide": {"training": {"augmentation": {"high": 3}}}}
    made = experiment(tmp_path, {"name": "crop_shift", "high": 4, "low": 2}, teachers=own)
    resolved = {"name": "crop_shift", "cache": "records", "low": 2, "high": 3}
    assert made.teachers["wide"].recipe.training.augmentation == resolved


def test_plan_prints_bytes_and_operations_of_records_and_of_the_live_teacher(tmp_path):
    texts = {}
    for choice in ("records", "live"):
        made = experiment(tmp_path, {"name": "idbh", "high": 5, "cache": choice})
        texts[choice] = describe(made).splitlines()
    f = calls.forward(made, made.teachers["wide"].architecture)
    rows = 96 * 3
    sizes = [  # logits and features once, for gacd, rslad and ard; or asked by each of them
        f"    records: {4 * rows * (10 + 16) / 1e6:.1f} MB, {2 * rows * f / 1e15:.4g} PFLOP",
        f"    live: no file, {3 * rows * f / 1e15:.4g} PFLOP",
    ]
    for text in texts.values():
        begin = next(number for number, line in enumerate(text) if "by training.augmentation.cache" in line)
        assert text[begin + 1 : begin + 3] == sizes
    assert any(line.startswith("  cache of wide, idbh-") for line in texts["records"])
    assert not any(line.startswith("  cache of wide") for line in texts["live"])
    assert not any("augmentation.cache" in line for line in describe(load(REPOSITORY / "params.yaml")).splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["idbh", "cutout"])
def test_records_are_the_live_teacher_bit_for_bit(name, tmp_path, monkeypatch):
    """Through the real steps: the same student in the end, from a file of the size that the plan says."""
    weights = {}
    monkeypatch.chdir(tmp_path)
    for choice in ("records", "live"):
        made = experiment(tmp_path, {"name": name, **RANDOM[name], "cache": choice})
        todo = [*PrepareData.jobs(made), *TrainTeacher.jobs(made), *FillRecords.jobs(made)]
        todo += [step for step in TrainStudent.jobs(made) if step.values["method"] in ("rslad", "gacd")]
        for step in todo:
            run_step(step)
        for step in FillRecords.jobs(made):
            assert step.outputs[0].stat().st_size == cost.cache_bytes(made, step.cache) + 128  # and NumPy's header
        for step in todo:
            if isinstance(step, TrainStudent):
                weights[choice, step.values["method"]] = load_file(step.outputs[1])
                served = read_json(step.record)["teacher_served_from"]
                assert set(served.values()) == {"cache" if choice == "records" else "live teacher"}
    for method in ("rslad", "gacd"):
        stored, live = weights["records", method], weights["live", method]
        assert stored.keys() == live.keys()
        assert all(torch.equal(stored[key], live[key]) for key in stored)
