"""Every method with every value of every setting of the training runs, and goes on from each of its saved states.

Each value runs a step of every method with the other settings at their defaults. The trainings that are killed after
each of their steps have many settings at once: with every method each value occurs, and with one method of each kind
every pair of values of two settings, the defaults among them.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from itertools import combinations, pairwise, zip_longest
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


def settings_with(changes: dict) -> Training:
    """Two epochs of three steps."""
    budget = SETTINGS.model_dump() | {"epochs": 2, "batch_size": 32, "milestones": [1]} | changes
    return Training.model_validate(budget | {"inner_attack": SETTINGS.inner_attack.model_dump() | {"steps": 2}})


def training_with(changes: dict) -> Training:
    """The changes without those of the images."""
    return settings_with({key: value for key, value in changes.items() if key not in ("extra", "labels")})


class Killed(BaseException):
    pass


class Memory:
    """Saved states in memory: one after each step, each batch of a validation and each epoch, each content once.

    The training is killed when it saves the state of number `most`, counted with the one it starts from. `files` has
    the files of tables that lay beside each state.
    """

    stopping = False
    files: ClassVar[dict[bytes, dict[str, bytes]]] = {}

    def __init__(self, start: bytes | None, most: float = math.inf):
        self.start, self.most, self.states = start, most, [start] if start else []
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
            if len(self.states) == self.most:
                raise Killed


def images_with(changes: dict, data):  # noqa: F811
    """The training images: 90, and with `extra` 40 more, of which each batch has this share."""
    more = Dataset(data.images[90:130], data.labels[90:130], data.info)
    if not changes.get("labels", True):
        more = replace(more, labels=torch.full_like(more.labels, -1))
    return data.first(90).with_extra(more, changes["extra"]) if "extra" in changes else data.first(90)


def states_of(
    name: str,
    changes: dict,
    data,  # noqa: F811
    start: bytes | None = None,
    most: float = math.inf,
) -> list[bytes]:
    memory, images, settings = Memory(start, most), images_with(changes, data), training_with(changes)
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
        assert states_of(name, changes, data, state, most=2) == [state, following]


def values_of(name: str) -> list[list[str]]:
    """The values of each setting: all but unlabelled images with a method that needs labels, which is refused."""
    unfit = {"unlabelled"} if method_named(name).needs_labels() else set()
    return [[value for value in values if value not in unfit] for values in VALUES.values()]


def changes_of(values: str) -> dict:
    """The changes of values that are joined by `+`."""
    return {key: change for value in values.split("+") for key, change in SINGLE[value].items()}


def covering(settings: list[list[str]]) -> list[str]:
    """Combinations of values in which every pair of values of two settings occurs; "" stands for the default.

    Each combination starts with a pair that is missing and takes the value of every other setting that adds the most.
    """
    factors = [["", *values] for values in settings]
    missing = {
        frozenset([(i, first), (j, second)])
        for i, j in combinations(range(len(factors)), 2)
        for first in factors[i]
        for second in factors[j]
    }
    rows = []
    while missing:
        row = dict(min(missing, key=sorted))
        for i, values in enumerate(factors):
            if i not in row:
                row[i] = max(values, key=lambda v: sum(frozenset([(i, v), taken]) in missing for taken in row.items()))
        missing -= {frozenset(pair) for pair in combinations(row.items(), 2)}
        rows.append("+".join(row[i] for i in range(len(factors)) if row[i]))
    return [row for row in rows if row]


def each_once(settings: list[list[str]]) -> list[str]:
    """Combinations of values in which every value occurs once."""
    return ["+".join(filter(None, row)) for row in zip_longest(*settings)]


def test_combinations_hold_every_pair():
    rows = [row.split("+") for row in covering(list(map(list, VALUES.values())))]
    taken = {frozenset(pair) for row in rows for pair in combinations(row, 2)}
    for one, two in combinations(VALUES.values(), 2):
        assert {frozenset([first, second]) for first in one for second in two} <= taken
    assert {value for row in each_once(list(map(list, VALUES.values()))) for value in row.split("+")} == set(SINGLE)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_trains_an_epoch_with_every_setting(name, data):  # noqa: F811
    """The other settings have their defaults."""
    for value in [value for values in values_of(name) for value in values]:
        assert len(states_of(name, SINGLE[value], data, most=4)) == 4, value


@pytest.mark.parametrize(
    ("name", "values"),
    [(name, row) for name in methods.names() for row in (covering if name in ONE_EACH else each_once)(values_of(name))],
)
def test_training_goes_on_after_each_step(name, values, data):  # noqa: F811
    check_resume(name, changes_of(values), data)


@pytest.mark.parametrize("average", ["ema", "swa"])
@pytest.mark.parametrize("name", ["sat", "trades", "fgsm_rs", "n_fgsm", "fgsm_pgi"])
def test_strong_recipes_are_settings_of_a_method(name, average, data):  # noqa: F811
    """An average, AWP, label smoothing and IDBH at once, as the strongest teachers are trained."""
    check_resume(name, changes_of(f"{average}+wu2020+smoothing+idbh"), data)
