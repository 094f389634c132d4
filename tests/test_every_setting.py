"""Every method with every value of every setting of the training runs, and goes on from each of its saved states."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest
import torch
from test_training import CPU, SETTINGS, data, method_named, trainer_of  # noqa: F401 (a fixture)

from robust_distillation import augmentations, methods
from robust_distillation.data.dataset import Dataset
from robust_distillation.settings import Training
from robust_distillation.training.loop import train
from robust_distillation.training.tables import FOLDER

pytestmark = pytest.mark.slow  # each is fast, all of them take minutes

# The values of each setting that differ in more than a number, without the defaults.
VALUES = {
    "schedule": {
        "warmup": {"schedule": {"warmup": 1.5}},
        "cosine": {"milestones": [], "schedule": {"name": "cosine"}},
        "cosine-epoch": {"milestones": [], "schedule": {"name": "cosine", "per": "epoch"}},
        "cyclic": {"milestones": [], "schedule": {"name": "cyclic"}},
        "cyclic-linear": {"milestones": [], "schedule": {"name": "cyclic", "anneal": "linear", "start": 0.0}},
    },
    "averaging": {
        "swa": {"averaging": {"name": "swa"}},
        "swa-steps": {"averaging": {"name": "swa", "per": "step", "batch_norm": "copy", "start": 1}},
        "ema": {"averaging": {"name": "ema", "decay": 0.5}},
        "ema-ramp": {"averaging": {"name": "ema", "ramp": True, "batch_norm": "reestimate"}},
        "ema-epochs": {"averaging": {"name": "ema", "decay": 0.5, "per": "epoch", "batch_norm": "copy"}},
    },
    "weight_perturbation": {
        "wu2020": {"weight_perturbation": {"gamma": 0.01}},
        "adr": {"weight_perturbation": {"gamma": 0.01, "variant": "adr", "start": 1}},
    },
    "label_smoothing": {"smoothing": {"label_smoothing": 0.1}},
    "augmentation": {
        "cutout": {"augmentation": {"name": "cutout", "size": 3}},
        "crop_shift": {"augmentation": {"name": "crop_shift", "high": 4}},
        "idbh": {"augmentation": {"name": "idbh", "high": 4}},
        "rand_augment": {"augmentation": {"name": "rand_augment"}},
    },
    "extra": {"extra": {"extra": 0.4}, "unlabelled": {"extra": 0.4, "labels": False}},
    "selection": {"worst_class": {"selection": {"steps": 2, "by": "worst_class.apgd"}}},
}
ONE_EACH = ("trades", "rslad", "gacd", "mtard")  # labels alone, soft labels, features and a memory bank, own networks
SINGLE = {name: changes for values in VALUES.values() for name, changes in values.items()}
PAIRS = {
    f"{name} and {other}": first | second
    for one, two in combinations(VALUES.values(), 2)
    for name, first in one.items()
    for other, second in two.items()
}


def settings_with(changes: dict) -> Training:
    """Two epochs of three steps."""
    budget = SETTINGS.model_dump() | {"epochs": 2, "batch_size": 32, "milestones": [1]} | changes
    return Training.model_validate(budget | {"inner_attack": SETTINGS.inner_attack.model_dump() | {"steps": 2}})


class Killed(BaseException):
    pass


class Memory:
    """Saved states in memory: one after each step, each batch of a validation and each epoch, each content once.

    With a state to start from, the training is killed when it saves the next one. `files` has the files of tables that
    lay beside each state.
    """

    stopping = False
    files: ClassVar[dict[bytes, dict[str, bytes]]] = {}

    def __init__(self, start: bytes | None):
        self.start, self.states = start, [start] if start else []
        self.temporary = TemporaryDirectory()
        self.state_folder = Path(self.temporary.name)
        for name, content in self.files.get(start, {}).items():
            (self.state_folder / FOLDER).mkdir(exist_ok=True)
            (self.state_folder / FOLDER / name).write_bytes(content)

    def load(self):
        return self.start

    def should_save(self):
        return True

    def save(self, content: bytes):
        if content not in self.states:
            self.states.append(content)
            files = {path.name: path.read_bytes() for path in (self.state_folder / FOLDER).glob("*")}
            assert self.files.setdefault(content, files) == files
            if self.start:
                raise Killed


def images_with(changes: dict, data):  # noqa: F811
    """The training images: 90, and with `extra` 40 more, of which each batch has this share."""
    more = Dataset(data.images[90:130], data.labels[90:130], data.info)
    if not changes.get("labels", True):
        more = replace(more, labels=torch.full_like(more.labels, -1))
    return data.first(90).with_extra(more, changes["extra"]) if "extra" in changes else data.first(90)


def states_of(name: str, changes: dict, data, start: bytes | None = None) -> list[bytes]:  # noqa: F811
    memory, images = Memory(start), images_with(changes, data)
    settings = settings_with({key: value for key, value in changes.items() if key not in ("extra", "labels")})
    views = augmentations.from_settings(settings.augmentation).views(data.info, 1, 0, settings.epochs)
    with suppress(Killed):
        train(trainer_of(name, images, settings=settings), images, data.first(16), views, CPU, memory)
    return memory.states


def check_resume(name: str, changes: dict, data) -> None:  # noqa: F811
    """A training that is killed after any step ends as one that was not: from each state the next one follows."""
    Memory.files.clear()
    states = states_of(name, changes, data)
    assert len(states) >= 2 * (3 + 1)  # re-estimated statistics are saved in a validation
    for state, following in pairwise(states):
        assert states_of(name, changes, data, state) == [state, following]


def cases(names, values: dict) -> list[tuple[str, str]]:
    """All but unlabelled images with a method that needs labels, which is refused before any job."""
    return [(n, v) for n in names for v in values if "unlabelled" not in v or not method_named(n).needs_labels()]


@pytest.mark.parametrize(("name", "value"), cases(methods.names(), SINGLE))
def test_every_method_with_every_setting_goes_on_after_each_step(name, value, data):  # noqa: F811
    check_resume(name, SINGLE[value], data)


@pytest.mark.parametrize("average", ["ema", "swa"])
@pytest.mark.parametrize("name", ["sat", "trades", "fgsm_rs", "n_fgsm", "fgsm_pgi"])
def test_strong_recipes_are_settings_of_a_method(name, average, data):  # noqa: F811
    """An average, AWP, label smoothing and IDBH at once, as the strongest teachers are trained."""
    parts = [SINGLE[part] for part in (average, "wu2020", "smoothing", "idbh")]
    check_resume(name, {key: value for part in parts for key, value in part.items()}, data)


@pytest.mark.parametrize(("name", "pair"), cases(ONE_EACH, PAIRS))
def test_every_pair_of_settings_goes_on_after_each_step(name, pair, data):  # noqa: F811
    check_resume(name, PAIRS[pair], data)
