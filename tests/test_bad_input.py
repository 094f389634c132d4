"""Broken experiment files and command lines: each gives one clear message before any job starts; nothing is written.

Every case is the repository's params.yaml with one thing broken. It is read by `config.load`, by `plan` and by `check`;
a few also by the real `snakemake`.
"""

from __future__ import annotations

import copy
import datetime
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from robust_distillation.cli import main
from robust_distillation.config import load
from robust_distillation.data import fashion_mnist
from robust_distillation.errors import UserError
from robust_distillation.reporting.plan import describe

REPOSITORY = Path(__file__).resolve().parent.parent
WHOLE = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
VALID = WHOLE[: WHOLE.index("\nclaims:")]  # without what would name every other mistake once more
FILE, OVERLAY = "broken.yaml", "overlay.yaml"
GONE = object()
FEW = 12  # lines, where a file holds more mistakes than anyone would read
JARGON = "Traceback|NoneType|instance of|unicode string|ScalarNode|set_int_max|value error|object at 0x"

Writer = Callable[[Path], Any]


# How a file is broken: each makes a function that writes it


def parsed(text: str = VALID) -> dict:
    return YAML(typ="safe", pure=True).load(text)


def dumped(raw: Any) -> str:
    out = StringIO()
    YAML(typ="safe", pure=True).dump(raw, out)
    return out.getvalue()


def whole(content: str | bytes) -> Writer:
    content = content.encode() if isinstance(content, str) else content
    return lambda file: file.write_bytes(content)


def changed(*changes: tuple) -> Writer:
    """For each (*path, value) the value in place of what is there; GONE takes it away."""

    def write(file: Path) -> None:
        raw = parsed()
        for *path, key, value in changes:
            holder = raw
            for part in path:
                holder = holder[part]
            if value is GONE:
                del holder[key]
            else:
                holder[key] = value
        file.write_text(dumped(raw), encoding="utf-8")

    return write


def put(*path_and_value: Any) -> Writer:
    return changed(path_and_value)


def drop(*path: Any) -> Writer:
    return changed((*path, GONE))


def rename(*path: Any, to: Any) -> Writer:
    def write(file: Path) -> None:
        raw = holder = parsed()
        for part in path[:-1]:
            holder = holder[part]
        holder[to] = holder.pop(path[-1])
        file.write_text(dumped(raw), encoding="utf-8")

    return write


def plant(*path_and_yaml: Any) -> Writer:
    """YAML text at the path: what no dump would write."""
    *path, text = path_and_yaml

    def write(file: Path) -> None:
        put(*path, "HERE-IT-GOES")(file)
        file.write_text(file.read_text(encoding="utf-8").replace("HERE-IT-GOES", text), encoding="utf-8")

    return write


def prepend(text: str) -> Writer:
    return whole(text + VALID)


def laughs(levels: int = 9) -> str:
    """A list of 9 ** (levels + 1) zeros in half a kilobyte of aliases, if anything walks through it."""
    text = "&a0 [0, 0, 0, 0, 0, 0, 0, 0, 0]"
    for level in range(1, levels + 1):
        text = f"&a{level} [{text}, {', '.join([f'*a{level - 1}'] * 8)}]"
    return text


def merged_laughs(levels: int = 9) -> str:
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, levels + 1):
        lines.append(f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}")
    return "\n".join(lines) + "\n"


def shared_budget(file: Path) -> None:
    """A teacher's budget that holds itself, and is the students' too."""
    raw = parsed()
    raw["teachers"]["wide"]["training"], raw["training"] = "FIRST", "SECOND"
    budget = "&budget {epochs: 20, more: *budget}"
    file.write_text(dumped(raw).replace("FIRST", budget).replace("SECOND", "*budget"), encoding="utf-8")


@dataclass(frozen=True)
class Case:
    """`needles` must all be in the message; of a tuple, at least one."""

    write: Writer
    needles: tuple
    lines: int
    seconds: float
    overlay: Writer | None

    @property
    def options(self) -> list[str]:
        return ["--experiment", FILE, *(["--overlay", OVERLAY] if self.overlay else [])]


def case(name: str, write: Writer, *needles: Any, lines: int = 1, seconds: float = 60, overlay: Writer | None = None):
    return pytest.param(Case(write, needles, lines, seconds, overlay), id=name)


def nothing(file: Path) -> None:
    """No file at all."""


BAD_NAME = "cannot be a name: use letters, digits"
TRADES = {"architecture": "convnet", "trained_by": {"method": "trades"}}
ALIASES = ("alias", "anchor")  # a file may also be refused for what it is made of

UNKNOWN_KEYS = [
    case("top", put("trainings", 1), "trainings: unknown key 'trainings'. Did you mean 'training'?", "Allowed:"),
    case("top-case", rename("seeds", to="Seeds"), "Seeds", "Did you mean 'seeds'?", "seeds: is missing", lines=2),
    case("training", put("training", "epoch", 3), "training.epoch:", "Did you mean 'epochs'?", "batch_size"),
    case("inner", put("training", "inner_attack", "step", 3), "training.inner_attack.step:", "Did you mean 'steps'?"),
    case("selection", put("training", "selection", "evry", 3), "training.selection.evry:", "Did you mean 'every'?"),
    case("evaluation", put("evaluation", "image", 3), "evaluation.image:", "Did you mean 'images'?", "block_size"),
    case("dataset", put("dataset", "pading", 1), "dataset.pading:", "Did you mean 'padding'?", "download"),
    case("limit", put("dataset", "limit", {"tran": 3}), "dataset.limit.tran:", "Did you mean 'train'?", "validation"),
    case("threat", put("threat_model", "epsilon", 1), "threat_model.epsilon:", "Did you mean 'eps'?", "norm"),
    case(
        "compute",
        put("compute", {"threds": 2}),
        "compute.threds:",
        "Did you mean 'threads'?",
        "compile, device, jobs_per_gpu, precision",
    ),
    case("teacher", put("teachers", "wide", "widht", 3), "teachers.wide.widht:", "Did you mean 'width'?", "trained_by"),
    case(
        "teacher-training",
        put("teachers", "wide", "training", "epoch", 3),
        "teachers.wide.training.epoch:",
        "Did you mean 'epochs'?",
    ),
    case(
        "trained-by",
        put("teachers", "wide", "trained_by", "bta", 3),
        "teachers.wide.trained_by.bta:",
        "Did you mean 'beta'?",
    ),
    case("student", put("students", "small", "widht", 3), "students.small.widht:", "Did you mean 'width'?", "stages"),
    case("student-seed", put("students", "small", "seed", 3), "students.small.seed: unknown key 'seed'", "depth"),
    case("method", put("methods", "rslad", {"alhpa": 0.5}), "methods.rslad.alhpa:", "Did you mean 'alpha'?"),
    case("method-without", put("methods", "sat", {"beta": 1}), "methods.sat.beta: unknown key 'beta'"),
    case("exclude", put("exclude", [{"methd": "ard"}]), "exclude[0].methd:", "Did you mean 'method'?", "student"),
    case("two", lambda file: whole("metod: 1\ndatset: 1\n" + VALID)(file), "'methods'?", "'dataset'?", lines=2),
]

WRONG_TYPES = [
    case("text-for-int", put("training", "epochs", "20"), "training.epochs:", "integer", "'20'"),
    case("bool-for-int", put("training", "epochs", True), "training.epochs:", "integer", "true"),
    case("float-for-int", put("training", "epochs", 20.5), "training.epochs:", "integer", "20.5"),
    case("whole-float-for-int", put("training", "batch_size", 64.0), "training.batch_size:", "integer", "64.0"),
    case("sexagesimal", plant("training", "epochs", "1:30"), "training.epochs:", "integer", "'1:30'"),
    case("list-for-int", put("evaluation", "jobs", [1]), "evaluation.jobs:", "integer", "a list"),
    case("text-for-float", put("training", "learning_rate", "fast"), "training.learning_rate:", "number", "'fast'"),
    case("bool-for-float", put("threat_model", "eps", True), "threat_model.eps:", "number", "true"),
    case("text-for-bool", put("dataset", "download", "no"), "dataset.download:", "boolean", "'no'"),
    case("list-for-mapping", put("training", [1]), "training:", "mapping", "a list"),
    case("list-for-section", put("evaluation", ["fgsm"]), "evaluation:", "mapping", "a list"),
    case("list-for-methods", put("methods", ["rslad"]), "methods:", "mapping", "a list"),
    case("list-for-method", put("methods", "rslad", ["alpha"]), "methods.rslad:", "mapping", "a list"),
    case("int-for-mapping", put("dataset", "limit", 5), "dataset.limit:", "mapping", "5"),
    case("int-for-student", put("students", "small", 8), "students.small:", "mapping", "8"),
    case(
        "text-for-trained-by", put("teachers", "wide", "trained_by", "trades"), "teachers.wide.trained_by:", "mapping"
    ),
    case("mapping-for-list", put("seeds", {0: 1}), "seeds:", "list", "a mapping"),
    case("int-for-list", put("seeds", 3), "seeds:", "list", "3"),
    case("text-for-list", put("evaluation", "attacks", "fgsm"), "evaluation.attacks:", "list", "'fgsm'"),
    case("int-in-attacks", put("evaluation", "attacks", [3]), "evaluation.attacks[0]:", "string", "3"),
    case("text-in-exclude", put("exclude", ["ard"]), "exclude[0]:", "mapping", "'ard'"),
    case("int-for-text", put("name", 2024), "name:", "string", "2024"),
    case("int-for-dataset", put("dataset", "name", 3), "dataset.name:", "string", "3"),
    case("int-for-folder", put("dataset", "folder", 3), "dataset.folder:", "string", "3"),
    case("null-section", put("training", None), "training:", "mapping", ("None", "null", "nothing", "empty")),
    case("null-inner", put("training", "inner_attack", None), "training.inner_attack:", "mapping"),
    case("null-value", put("threat_model", "eps", None), "threat_model.eps:", "number"),
    case("null-list", put("seeds", None), "seeds:", "list"),
    case("width-text", put("students", "small", "width", "8"), "students.small.width:", "int", "'8'"),
    case("width-bool", put("teachers", "wide", "width", True), "teachers.wide.width:", "int", "true"),
    case("width-null", put("students", "small", "width", None), "students.small.width:", "int"),
    case("depth-float", put("students", "small", "depth", 2.0), "students.small.depth:", "int", "2.0"),
    case("alpha-text", put("methods", "rslad", {"alpha": "x"}), "methods.rslad.alpha:", "number", "'x'"),
    case("int-key", put("methods", 3, {"method": "sat"}), ("methods.3", "methods[3]"), "string", "3"),
    case("bool-key", put("methods", True, {"method": "sat"}), ("methods.True", "methods.true"), "string"),
    case("list-key", plant("exclude", "[{? [a, b] : 1}]"), "exclude[0]", ("string", "key"), "'a', 'b'"),
]

IMPOSSIBLE_VALUES = [
    case("eps-negative", put("threat_model", "eps", -0.1), "threat_model.eps:", "greater than 0", "-0.1"),
    case("eps-zero", put("threat_model", "eps", 0), "threat_model.eps:", "greater than 0", "found 0"),
    case("eps-inf-text", put("threat_model", "eps", "inf"), "threat_model.eps:", "number", "'inf'"),
    case("eps-inf", put("threat_model", "eps", float("inf")), "threat_model.eps:", "finite", "inf"),
    case("eps-nan", put("threat_model", "eps", float("nan")), "threat_model.eps:", "finite", "nan"),
    case("eps-huge-float", plant("threat_model", "eps", "1e999"), "threat_model.eps:", "finite"),
    case("eps-8/0", put("threat_model", "eps", "8/0"), "threat_model.eps:", "number", "'8/0'"),
    case("eps-0/255", put("threat_model", "eps", "0/255"), "threat_model.eps:", "greater than 0", "'0/255'"),
    case("eps-negative-fraction", put("threat_model", "eps", "-8/255"), "threat_model.eps:", "'-8/255'"),
    case("eps-huge-fraction", put("threat_model", "eps", "9" * 330 + "/3"), "threat_model.eps:", ("finite", "number")),
    case("eps-8-of-255-forgotten", put("threat_model", "eps", 8), "threat_model.eps:", "8"),
    case("step-size", put("training", "inner_attack", "step_size", 0), "training.inner_attack.step_size:", "than 0"),
    case("norm-l1", put("threat_model", "norm", "l1"), "threat_model.norm:", "'l1'", "Allowed: l2, linf"),
    case("norm-2", put("threat_model", "norm", 2), "threat_model.norm:", "unknown value 2", "Allowed: l2, linf"),
    case("norm-L2", put("threat_model", "norm", "L2"), "threat_model.norm:", "Did you mean 'l2'?"),
    case("alpha", put("methods", "rslad", {"alpha": 1.5}), "methods.rslad.alpha:", "equal to 1", "1.5"),
    case("temperature", put("methods", "ard", {"temperature": 0}), "methods.ard.temperature:", "greater than 0"),
    case("method-inf", put("methods", "ard", {"temperature": float("inf")}), "methods.ard.temperature:", "finite"),
    case("method-nan", put("methods", "mart", {"beta": float("nan")}), "methods.mart.beta:", "nan"),
    case("teacher-inf", put("teachers", "wide", "trained_by", "beta", float("inf")), "wide.trained_by.beta:", "finite"),
    case("negatives", put("methods", "gacd", {"negatives": 0}), "methods.gacd.negatives:", "equal to 1", "found 0"),
    case("no-seeds", put("seeds", []), "seeds: is empty: give at least one"),
    case("seeds-repeated", put("seeds", [0, 1, 1]), "seeds:", "1 is named twice", "twice"),
    case("seed-negative", put("seeds", [0, -1]), "seeds[1]:", "equal to 0", "-1"),
    case("seed-huge", put("seeds", [2**31]), "seeds[0]:", "less than", "2147483648"),
    case("seed-text", put("seeds", ["0"]), "seeds[0]:", "integer", "'0'"),
    case("seed-bool", put("seeds", [True]), "seeds[0]:", "integer", "true"),
    case("teacher-seed", put("teachers", "wide", "seed", -1), "teachers.wide.seed:", "equal to 0", "-1"),
    case("epochs-zero", put("training", "epochs", 0), "training.epochs:", "equal to 1", "found 0"),
    case("batch-size-zero", put("training", "batch_size", 0), "training.batch_size:", "equal to 1", "found 0"),
    case("learning-rate-zero", put("training", "learning_rate", 0), "training.learning_rate:", "greater than 0"),
    case("momentum-1", put("training", "momentum", 1), "training.momentum:", "less than 1", "found 1"),
    case("weight-decay", put("training", "weight_decay", -1), "training.weight_decay:", "equal to 0", "-1"),
    case("descending", put("training", "milestones", [17, 12]), "training.milestones:", "[17, 12]", "ascending"),
    case("milestone-twice", put("training", "milestones", [12, 12]), "training.milestones:", "[12, 12]", "ascending"),
    case("milestone-late", put("training", "milestones", [12, 20]), "training.milestones:", "20 is never reached"),
    case("milestone-zero", put("training", "milestones", [0, 3]), "training.milestones[0]:", "equal to 1", "found 0"),
    case(
        "teacher-milestone-late",
        put("teachers", "wide", "training", {"epochs": 10}),
        "teachers.wide.training.milestones: 17 is never reached in 10 epochs",
    ),
    case("images", put("evaluation", "images", 501), "evaluation.images: 501", "500 images of the test split"),
    case("images-zero", put("evaluation", "images", 0), "evaluation.images:", "equal to 1", "found 0"),
    case("limit", put("dataset", "limit", {"train": 1001}), "dataset.limit.train: 1001", "1000 images of the split"),
    case("limit-zero", put("dataset", "limit", {"test": 0}), "dataset.limit.test:", "equal to 1", "found 0"),
    case(
        "limit-of-images",
        put("dataset", "limit", {"test": 100}),
        "evaluation.images: 300",
        "100 images of the test",
        lines=2,
    ),
    case("search", put("evaluation", "search", "fp16"), "evaluation.search:", "'fp16'", "Allowed: bf16, fp32"),
    case("block-size", put("evaluation", "block_size", 0), "evaluation.block_size:", "equal to 1", "found 0"),
    case("jobs", put("evaluation", "jobs", 0), "evaluation.jobs:", "equal to 1", "found 0"),
    case("threads", put("compute", {"threads": 0}), "compute.threads:", "equal to 1", "found 0"),
    case("padding-negative", put("dataset", "padding", -1), "dataset.padding:", "equal to 0", "-1"),
    case("padding-huge", put("dataset", "padding", 17), "dataset.padding:", "equal to 16", "17"),
    case("width-zero", put("students", "small", "width", 0), "students.small.width:", "greater than 0", "found 0"),
    case("width-negative", put("teachers", "wide", "width", -8), "teachers.wide.width:", "greater than 0", "-8"),
    case(
        "wide-resnet-depth",
        put("students", "wrn", {"architecture": "wide_resnet", "depth": 11}),
        "students.wrn.depth:",
        "10, 16, 22",
        "found 11",
    ),
    case("device", put("compute", {"device": "gpu"}), "compute.device:", "'gpu'", "Allowed: auto, cpu, cuda, cuda:N"),
    case("device-number", put("compute", {"device": "cuda:x"}), "compute.device:", "'cuda:x'", "cuda:N"),
    case("device-arabic-digit", put("compute", {"device": "cuda:\u0663"}), "compute.device:", "cuda:N"),
    case("precision", put("compute", {"precision": "fp16"}), "compute.precision:", "'fp16'", "Allowed:", "exact"),
    case("compile", put("compute", {"compile": True}), "compute.compile:", "exact", "choose another"),
    case("protocol", put("protocol", "oficial"), "protocol:", "'oficial'", "Allowed:", "controlled"),
    case("kl-scale", put("training", "kl_scale", "summ"), "training.kl_scale:", "Did you mean 'sum'?", "mean, sum"),
    case(
        "start", put("training", "inner_attack", "start", "unifrom"), "inner_attack.start:", "Did you mean 'uniform'?"
    ),
    case("timestamp", plant("training", "factor", "2001-12-14t99:59:43"), "not valid YAML", ("hour", "time", "date")),
    case("huge-int", plant("training", "epochs", "9" * 5000), ("not valid YAML", "training.epochs:")),
    case("huge-fraction-text", put("threat_model", "eps", "9" * 5000 + "/3"), "threat_model.eps:"),
]

UNKNOWN_NAMES = [
    case("method", put("methods", "rslat", {}), "methods.rslat:", "unknown method", "Did you mean 'rslad'?", "gacd"),
    case("method-given", put("methods", "x", {"method": "rslat"}), "methods.x.method:", "Did you mean 'rslad'?"),
    case("method-number", put("methods", "x", {"method": 3}), "methods.x", "unknown method 3", "Allowed: ard"),
    case("method-upper-case", rename("methods", "rslad", to="RSLAD"), "methods.RSLAD:", "Did you mean 'rslad'?"),
    case("method-shared-module", put("methods", "contrast", {}), "methods.contrast: unknown method", "Allowed: ard"),
    case(
        "architecture",
        put("students", "small", "architecture", "convnt"),
        "students.small.architecture:",
        "Did you mean 'convnet'?",
        "wide_resnet",
    ),
    case("architecture-list", put("students", "small", "architecture", ["convnet"]), "students.small", "architecture"),
    case("architecture-null", put("students", "small", "architecture", None), "students.small", "architecture"),
    case("architecture-missing", drop("students", "small", "architecture"), "students.small", "unknown architecture"),
    case("student-null", put("students", "small", None), "students.small", "unknown architecture", "convnet"),
    case("teacher-null", put("teachers", "wide", None), "wide.trained_by: is missing", "imported"),
    case("dataset", put("dataset", "name", "digit"), "dataset.name:", "Did you mean 'digits'?", "fashion_mnist"),
    case("dataset-unlike", put("dataset", "name", "cifar"), "dataset.name:", "'cifar'", "Allowed: cifar10"),
    case("dataset-published-name", put("dataset", "name", "FashionMNIST"), "Did you mean 'fashion_mnist'?"),
    case("attack", put("evaluation", "attacks", ["fgsm", "autoatack"]), "attacks[1]:", "Did you mean 'autoattack'?"),
    case("attack-upper-case", put("evaluation", "attacks", ["PGD20"]), "attacks[0]:", "Did you mean 'pgd20'?"),
    case("attack-shared-module", put("evaluation", "attacks", ["core"]), "attacks[0]: unknown attack 'core'"),
    case("checkpoint", put("evaluation", "checkpoints", ["bset"]), "checkpoints[0]:", "Did you mean 'best'?", "last"),
    case("teacher-checkpoint", put("teachers", "wide", "checkpoint", "bset"), "wide.checkpoint:", "mean 'best'?"),
    case("no-checkpoints", put("evaluation", "checkpoints", []), "evaluation.checkpoints: is empty"),
    case("no-attacks", put("evaluation", "attacks", []), "evaluation.attacks: is empty"),
    case("no-students", put("students", {}), "students: is empty"),
    case("no-methods", put("methods", {}), "methods: is empty"),
    case(
        "checkpoints-repeated", put("evaluation", "checkpoints", ["best", "best"]), "evaluation.checkpoints:", "twice"
    ),
    case("attacks-repeated", put("evaluation", "attacks", ["fgsm", "fgsm"]), "evaluation.attacks:", "twice"),
    case("teacher-none", put("teachers", "none", TRADES), "teachers.none:", "no teacher", "choose another"),
    case("no-teacher", put("teachers", {}), "methods.rslad: needs a teacher", "methods.ard", lines=4),
    case("teachers-left-out", drop("teachers"), "methods.iad: needs a teacher", "methods.gacd", lines=4),
    case(
        "teacher-distilled",
        put("teachers", "wide", "trained_by", {"method": "rslad"}),
        "teachers.wide.trained_by.method:",
        "'rslad' needs a teacher itself",
    ),
    case(
        "trained-by-unknown",
        put("teachers", "wide", "trained_by", {"method": "trads"}),
        "teachers.wide.trained_by.method:",
        "Did you mean 'trades'?",
    ),
    case(
        "devices-on-one-gpu",
        changed(("teachers", "wide", "devices", 2), ("compute", {"device": "cuda:1"})),
        "teachers.wide.devices:",
        "compute.device cuda:1 is one GPU",
        "auto",
    ),
    case("no-trained-by", drop("teachers", "wide", "trained_by"), "teachers.wide.trained_by: is missing"),
    case("no-trained-by-method", drop("teachers", "wide", "trained_by", "method"), "trained_by.method: is missing"),
    case("exclude-method", put("exclude", [{"method": "rslat"}]), "exclude[0].method:", "Did you mean 'rslad'?"),
    case(
        "exclude-teacher", put("exclude", [{"teacher": "wid"}]), "exclude[0].teacher:", "Did you mean 'wide'?", "none"
    ),
    case("exclude-student", put("exclude", [{"student": "smal"}]), "exclude[0].student:", "Did you mean 'small'?"),
    case("exclude-seed", put("exclude", [{"seed": 1}, {"seed": 9}]), "exclude[1].seed:", "seed 9", "Allowed: 0, 1, 2"),
    case("exclude-all", put("exclude", [{"student": "small"}]), "exclude: leaves no run"),
    case("exclude-empty", put("exclude", [{}]), "exclude[0]: matches every run", "Give a teacher, student"),
    case("exclude-mapping", put("exclude", {"method": "ard"}), "exclude:", "list", "a mapping"),
]

MISSING_KEYS = [
    case(f"no-{'-'.join(path)}", drop(*path), f"{'.'.join(path)}: is missing")
    for path in [
        *[(key,) for key in ("name", "protocol", "dataset", "threat_model", "seeds", "training", "students")],
        *[("methods",), ("evaluation",), ("dataset", "name"), ("threat_model", "eps"), ("evaluation", "attacks")],
        *[("training", "epochs"), ("training", "batch_size"), ("training", "inner_attack", "step_size")],
    ]
    if path != ("training", "epochs")
] + [
    # The teacher gives its own epochs: only the students' are missing.
    case("no-training-epochs", drop("training", "epochs"), "training.epochs: is missing"),
    case("teacher-epochs-null", put("teachers", "wide", "training", {"epochs": None}), "wide.training.epochs:"),
]

NAMES = [
    case("slash", put("name", "a/b"), "name: 'a/b'", BAD_NAME),
    case("dots", put("name", ".."), "name: '..'", BAD_NAME),
    case("hidden", put("name", ".hidden"), "name: '.hidden'", BAD_NAME),
    case("space", put("name", "my digits"), "name: 'my digits'", BAD_NAME),
    case("empty", put("name", ""), "name: ''", BAD_NAME),
    case("newline", put("name", "a\n"), r"name: 'a\n'", BAD_NAME),
    case("long", put("name", "a" * 65), "name:", "at most 64"),
    case("method-slash", put("methods", "a/b", {"method": "sat"}), "methods.a/b: 'a/b'", BAD_NAME),
    case("method-dots", put("methods", "..", {"method": "sat"}), "methods", "'..'", BAD_NAME),
    case("method-empty", put("methods", "", {"method": "sat"}), "methods", "''", BAD_NAME),
    case("student-space", put("students", "a b", {"architecture": "convnet"}), "students.a b: 'a b'", BAD_NAME),
    case("student-braces", put("students", "{x}", {"architecture": "convnet"}), "students.{x}: '{x}'", BAD_NAME),
    case("student-dash", put("students", "-x", {"architecture": "convnet"}), "students.-x: '-x'", BAD_NAME),
    case("teacher-climbs", put("teachers", "../../x", TRADES), "teachers.../../x: '../../x'", BAD_NAME),
    case("teacher-shell", put("teachers", "$(id)", TRADES), "teachers.$(id): '$(id)'", BAD_NAME),
    case("name-with-newline", put("methods", "a\nb", {"method": "sat"}), "methods.", r"'a\nb'", BAD_NAME),
    case("key-with-newline", put("a\nb", 1), r"unknown key 'a\nb'"),
    case("key-with-escape", put("\x1b[31m", 1), r"unknown key '\x1b[31m'"),
    case("very-long", put("name", "a" * 100_000), "name:", "at most 64"),
    case("very-long-dataset", put("dataset", "name", "a" * 100_000), "dataset.name: unknown dataset", "Allowed:"),
]

FILES = [
    case("missing", nothing, FILE, "No such file"),
    case("directory", Path.mkdir, FILE, "directory"),
    case("empty", whole(""), FILE, "empty"),
    case("comments-only", whole("# nothing\n"), FILE, "empty"),
    case("list", whole("- 1\n- 2\n"), FILE, "mapping of settings", "list"),
    case("text", whole("digits\n"), FILE, "mapping of settings", "found 'digits'"),
    case("binary", whole(bytes(range(256))), FILE, "not UTF-8 text"),
    case("utf-16", whole(VALID.encode("utf-16")), FILE, "not UTF-8 text"),
    case("latin-1", whole(f"# Andr\u00e9\n{VALID}".encode("latin-1")), FILE, "not UTF-8 text"),
    case("zero-byte", whole(VALID + "\0"), FILE, "not valid YAML"),
    case("syntax", prepend("dataset: {name: digits\n"), FILE, "line", "not valid YAML"),
    case("tab", prepend("compute:\n\tthreads: 1\n"), FILE, "line 2", "not valid YAML"),
    case("quote-left-open", whole(VALID + 'exclude: "\n'), FILE, "line", "not valid YAML"),
    case("two-documents", whole(f"{VALID}---\n{VALID}"), FILE, "line", "document"),
    case("yaml-9", prepend("%YAML 9.9\n---\n"), FILE, "line 1", "not valid YAML"),
    case("key-twice", prepend("name: other\n"), FILE, "duplicate key", "name", "line", "Give each name once"),
    case("method-twice", plant("methods", "rslad", "{}\n  rslad: {alpha: 0.5}"), "duplicate key", "rslad", "line"),
    case("unknown-alias", plant("seeds", "*nothing"), "line", "alias", "nothing"),
    case("python-object", plant("name", "!!python/object/apply:os.system ['touch pwned']"), "python/object", "line"),
    case("python-whole", whole("!!python/object/apply:os.system ['touch pwned']\n"), "python/object", "line 1"),
    case("python-name", plant("seeds", "!!python/name:os.system"), "python/name", "line"),
    case("own-tag", plant("seeds", "!seeds [0]"), "!seeds", "line"),
    case("bytes", plant("name", "!!binary aGVsbG8="), "name:", "string"),
    case("broken-bytes", plant("name", "!!binary a"), "not valid YAML", "base64", "line"),
    case("date", plant("name", "2020-01-01"), "name:", "string", "2020"),
    case("no-date", plant("name", "2020-99-99"), "not valid YAML", "month"),
    case("set", plant("seeds", "!!set {0, 1}"), "seeds:", "list"),
    case("tag-int", plant("training", "epochs", "!!int x"), "not valid YAML", "'x'"),
    case("tag-int-empty", plant("training", "epochs", "!!int ''"), "not valid YAML"),
    case("tag-float-empty", plant("threat_model", "eps", "!!float ''"), "not valid YAML"),
    case("tag-bool", plant("dataset", "download", "!!bool x"), "not valid YAML"),
    case("nested-list-key", prepend("? [a, [b]]\n: 1\n"), ("not valid YAML", "key")),
    case("set-of-lists", plant("seeds", "!!set {? [a, [b]]}"), ("not valid YAML", "seeds:")),
    case("mapping-key", prepend("? {a: 1}\n: 1\n"), "not valid YAML", "key"),
    case("merge-of-nothing", prepend("<<: 1\n"), "not valid YAML", "merging"),
    case("holds-itself", plant("training", "loop", "&loop [*loop]"), ("training.loop: unknown key", *ALIASES)),
    case("deep-flow", prepend("x: " + "[" * 1200 + "]" * 1200 + "\n"), ("not valid YAML", "nested")),
    case("deep-left-open", prepend("x: " + "{a: " * 1200 + "\n"), ("not valid YAML", "nested")),
    case("deep-block", whole("".join(" " * i + "a:\n" for i in range(1500))), "too large"),
    case("deep-seeds", plant("seeds", "[" * 100 + "0" + "]" * 100), ("seeds[0]:", "nested")),
    case("megabytes", whole("seeds:\n" + "- 0\n" * 1_000_000), FILE, ("large", "big", "seeds")),
    case("flood-of-keys", prepend("".join(f"k{i}: 1\n" for i in range(1000))), "unknown key 'k0'", lines=FEW),
    case("flood-of-seeds", put("seeds", [-1] * 1000), "seeds[0]:", lines=FEW),
    case("flood-of-repeated-seeds", put("seeds", [1] * 1000), "seeds:", "twice"),
    case("no-experiment", whole("cores: all\nkeep-going: true\n"), "cores: unknown key", "is missing", lines=FEW),
]

LAUGHS = [
    case("protocol", plant("protocol", laughs()), ("protocol:", *ALIASES)),
    case("name", plant("name", laughs()), ("name:", *ALIASES)),
    case("width", plant("students", "small", "width", laughs()), ("students.small.width:", *ALIASES)),
    case("architecture", plant("students", "small", "architecture", laughs()), ("small", *ALIASES)),
    case("method", plant("methods", "x", f"{{method: {laughs()}}}"), ("methods.x", *ALIASES)),
    case("alpha", plant("methods", "rslad", f"{{alpha: {laughs()}}}"), ("rslad.alpha:", *ALIASES)),
    case("unknown-key", plant("training", "x", laughs()), ("training.x: unknown key", *ALIASES)),
    case("merge", prepend(merged_laughs()), ("unknown key 'a0'", "merge", *ALIASES), seconds=2, lines=FEW),
    case("budget", shared_budget, ("training.more: unknown key", *ALIASES), seconds=2, lines=FEW),
]

OVERLAYS = [
    case("missing", whole(VALID), OVERLAY, "No such file", overlay=nothing),
    case("unknown-key", whole(VALID), OVERLAY, "Did you mean 'training'?", overlay=whole("trainings: {epochs: 1}\n")),
    case("unknown-null", whole(VALID), "trainig: unknown key", "'training'?", overlay=whole("trainig: ~\n")),
    case("nested", whole(VALID), "evaluation.image:", "mean 'images'?", overlay=whole("evaluation: {image: 1}\n")),
    case("setting", whole(VALID), "methods.rslad.alpha:", "found 2", overlay=whole("methods: {rslad: {alpha: 2}}\n")),
    case("takes-away", whole(VALID), "seeds: is missing", overlay=whole("seeds: ~\n")),
    case("empty", whole(VALID), OVERLAY, "empty", overlay=whole("")),
    case("list", whole(VALID), OVERLAY, "mapping", "list", overlay=whole("- 1\n")),
    case("syntax", whole(VALID), OVERLAY, "line", "not valid YAML", overlay=whole("a: [\n")),
    case("key-twice", whole(VALID), OVERLAY, "line 2", "duplicate key", overlay=whole("name: a\nname: b\n")),
    case(
        "both-hold-themselves",
        plant("training", "&t {more: *t}"),
        ("training.more: unknown key", *ALIASES),
        overlay=whole("training: &t {more: *t}\n"),
        lines=FEW,
    ),
]


def official(*changes: tuple) -> Writer:
    """Of what params.yaml holds, the part that has an official protocol."""
    reset = [
        ("protocol", "official"),
        ("training", {}),
        ("tuning", GONE),
        ("teachers", "wide", "training", {}),
        ("methods", "gacd", GONE),
    ]
    return changed(*reset, *changes)


def l2(*changes: tuple) -> Writer:
    return changed(("threat_model", {"norm": "l2", "eps": 1.0}), *changes)


BOTH = "all methods share one budget"
OFFICIAL = [
    case("kd", official(("methods", "kd", {})), "methods.kd: kd has no official protocol", "protocol: controlled"),
    case("crd", official(("methods", "x", {"method": "crd"})), "methods.x.method: crd has no official protocol"),
    case(
        "gacd",
        changed(("protocol", "official"), ("tuning", GONE)),
        "methods.gacd: gacd has no official protocol: leave it out",
    ),
    case(
        "teacher", official(("teachers", "wide", "trained_by", {"method": "kd"})), "wide.trained_by.method: kd has no"
    ),
    case("l2", official(("threat_model", {"norm": "l2", "eps": 1.0})), "threat_model.norm: l2 has no", "use linf"),
    case(
        "method-epochs",
        official(("methods", "sat", {"training": {"epochs": 50}})),
        "methods.sat.training.milestones: 154 is never reached in 50 epochs",
    ),
    case(
        "teacher-epochs",
        official(("teachers", "wide", "training", {"epochs": 50})),
        "teachers.wide.training.milestones: 74 is never reached in 50 epochs",
    ),
    case("epochs", official(("training", {"epochs": 20})), "training.milestones:", "never reached in 20 epochs"),
    case("key", official(("training", {"epoch": 20})), "training.epoch: unknown key", "Did you mean 'epochs'?"),
    case("value", official(("training", {"learning_rate": -1})), "training.learning_rate:", "greater than 0", "-1"),
    case("taken-away", official(("training", {"learning_rate": None})), "training.learning_rate: is missing"),
    case(
        "two",
        official(("training", {"batch_size": 0}), ("methods", "sat", {"training": {"momentum": 2}})),
        "training.batch_size:",
        "methods.sat.training.momentum:",
        lines=2,
    ),
    case("method-text", official(("methods", "sat", {"training": "long"})), "methods.sat.training:", "mapping", "long"),
    case("setting", official(("methods", "mart", {"beta": -1})), "methods.mart.beta:", "equal to 0", "-1"),
    case("limit", official(("dataset", "limit", {"train": 1298})), "dataset.limit.train: 1298", "1297 images"),
    case(
        "batch",
        official(("dataset", "limit", {"train": 100})),
        "training.batch_size: 128 is more than the 100 training images",
        "drop_last",
    ),
    case("controlled", put("methods", "sat", {"training": {"epochs": 3}}), "methods.sat.training:", BOTH),
    case("controlled-list", put("methods", "sat", {"training": [1]}), "methods.sat.training:"),
    case("controlled-null", put("methods", "sat", {"training": None}), "methods.sat.training:", "mapping"),
    case(
        "trained-by",
        put("teachers", "wide", "trained_by", "training", {"epochs": 3}),
        "teachers.wide.trained_by.training: unknown key 'training'",
    ),
]

BUDGETS = [
    case("passes-one", put("training", "passes", ["clean"]), "training.passes: name both", "found 'clean'"),
    case("passes-none", put("training", "passes", []), "training.passes: name both clean and adversarial"),
    case("passes-text", put("training", "passes", "clean"), "training.passes:", "list", "'clean'"),
    case("passes", put("training", "passes", ["clean", "adversarail"]), "passes[1]:", "Did you mean 'adversarial'?"),
    case("decay", put("training", "decay", "from_intial"), "training.decay:", "Did you mean 'from_initial'?"),
    case("decay-on", put("training", "weight_decay_on", "weight"), "weight_decay_on:", "mean 'weights'?", "all"),
    case("drop-last", put("training", "drop_last", "yes"), "training.drop_last:", "boolean", "'yes'"),
    case("drop-all", changed(("training", "drop_last", True), ("training", "batch_size", 2000)), "2000", "1000 train"),
    case("by", put("training", "selection", "by", "pgd_trade"), "selection.by:", "Did you mean 'pgd_trades'?", "apgd"),
    case("by-l2", l2(("training", "selection", "by", "pgd10")), "selection.by: pgd10 is not defined", "l2"),
    case("after", put("training", "selection", "every_epoch_after", 0), "selection.every_epoch_after:", "equal to 1"),
    case("mode", put("training", "inner_attack", "mode", "trian"), "inner_attack.mode:", "mean 'train'?", "eval"),
    case("eps", put("training", "inner_attack", "eps", 0), "training.inner_attack.eps:", "greater than 0", "found 0"),
    case("eps-text", put("training", "inner_attack", "eps", "8/0"), "training.inner_attack.eps:", "number", "'8/0'"),
    case("eps-grey", put("training", "inner_attack", "eps", 8), "training.inner_attack.eps:", "8/255", "found 8.0"),
    case("step-grey", put("training", "inner_attack", "step_size", 2), "inner_attack.step_size:", "8/255", "found 2.0"),
    case(
        "project",
        put("training", "inner_attack", "project_start", "no"),
        "inner_attack.project_start:",
        "boolean",
        "no",
    ),
    case("teacher", put("teachers", "wide", "training", "decay", "x"), "teachers.wide.training.decay:", "compounded"),
    case(
        "shared-and-own", changed(("training", "factor", 2), ("teachers", "wide", "training", {})), "training.factor:"
    ),
    case("labels", put("methods", "rslad", {"inner_labels": "own"}), "methods.rslad.inner_labels:", "hard, student"),
    case("weight", put("methods", "iad", {"teacher_weight": "ones"}), "methods.iad.teacher_weight:", "mean 'one'?"),
]

HERE = ("transfer", GONE)  # its images are those of the digits


def images(**settings: Any) -> Writer:
    """A folder that is not there."""
    return changed(("dataset", {"name": "image_folder", "folder": "nowhere", **settings}), HERE)


FOUR = {"size": 8, "classes": ["a", "b", "c", "d"]}
DATA = [
    case("size-small", put("dataset", "size", 3), "dataset.size:", "equal to 4", "found 3"),
    case("size-large", put("dataset", "size", 2000), "dataset.size:", "equal to 1024", "found 2000"),
    case("size-text", put("dataset", "size", "32"), "dataset.size:", "integer", "'32'"),
    case("verify", put("dataset", "verify", "no"), "dataset.verify:", "boolean", "'no'"),
    case("mirror", put("dataset", "mirror", 3), "dataset.mirror:", "string", "3"),
    case("classes-text", put("dataset", "classes", "a"), "dataset.classes:", "list", "'a'"),
    case("classes-int", put("dataset", "classes", [1]), "dataset.classes[0]:", "string", "1"),
    case("classes-known", put("dataset", "classes", ["a", "b"]), "dataset.classes: means nothing for digits"),
    case("folder", images(size=8), "dataset.folder:", "nowhere/train is missing", "nowhere/test/CLASS/", "classes"),
    case("folder-size", images(), "dataset.size: is missing", "pixels"),
    case("folder-limit", images(**FOUR), "dataset.limit: give train, validation, test", "'nowhere' is not there"),
    case(
        "folder-limit-test",
        images(**FOUR, limit={"train": 9, "validation": 9}),
        "dataset.limit: give test as long as the folder 'nowhere' is not there",
    ),
    case("folder-class", images(size=8, classes=["a"]), "dataset.classes: give at least two, each once"),
    case("folder-classes", images(size=8, classes=["a", "b", "a"]), "dataset.classes: give at least two, each once"),
]

OWN = {"source": "file", "file": "mine.pt"}
TARGET = ("transfer", "parity")


def importing(chosen: Any, **entry: Any) -> Writer:
    return changed(("dataset", {"name": "cifar10"}), HERE, ("teachers", "wide", {"imported": chosen, **entry}))


def own(**entry: Any) -> Writer:
    return importing(OWN, architecture="convnet", **entry)


IMPORTED = "teachers.wide.imported."
ZOO = {"source": "robustbench", "model": "Chen2021LTD_WRN34_10"}
MADRY = {"source": "trades_wrn_34_10"}
NOTHING = "means nothing for an imported teacher; leave it out"
IMPORTS = [
    case("source", importing({"source": "trades_wrn_34_1"}), f"{IMPORTED}source:", "Did you mean 'trades_wrn_34_10'?"),
    case(
        "source-case",
        importing({"source": "TRADES-WRN-34-10"}),
        "Did you mean 'trades_wrn_34_10'?",
        "docs/importing.md",
    ),
    case("source-int", importing({"source": 3}), f"{IMPORTED}source:", "string", "3"),
    case("no-source", importing({"file": "mine.pt"}), f"{IMPORTED}source: is missing"),
    case("text", importing("trades_wrn_34_10"), "teachers.wide.imported:", "mapping", "'trades_wrn_34_10'"),
    case("key", importing({**MADRY, "sha": "0"}), f"{IMPORTED}sha:", "Did you mean 'sha256'?", "normalisation"),
    case("sha256", importing({**MADRY, "sha256": "0" * 63}), f"{IMPORTED}sha256:", "64 digits 0-9 and a-f"),
    case("sha256-hex", importing({**MADRY, "sha256": "g" * 64}), f"{IMPORTED}sha256:", "64 digits 0-9 and a-f"),
    case("norm", importing({**MADRY, "normalisation": "cifar1"}), f"{IMPORTED}normalisation:", "'cifar10'?", "none"),
    case("no-file", importing({"source": "file"}, architecture="convnet"), f"{IMPORTED}file: is missing", "weights"),
    case("no-model", importing({"source": "robustbench"}), f"{IMPORTED}model: is missing", "RobustBench's model zoo"),
    case("model", importing({**MADRY, "model": "x"}), f"{IMPORTED}model: means nothing for trades_wrn_34_10"),
    case("zoo-file", importing({**ZOO, "file": "mine.pt"}), f"{IMPORTED}file: means nothing for robustbench"),
    case("zoo-norm", importing({**ZOO, "normalisation": "none"}), f"{IMPORTED}normalisation: means nothing"),
    case("zoo-architecture", importing(ZOO, architecture="resnet"), "teachers.wide.architecture:", "leave it out"),
    case("both", put("teachers", "wide", "imported", OWN), "teachers.wide: is either trained_by or imported, not both"),
    case("training", own(training={"epochs": 3}), f"teachers.wide.training: {NOTHING}"),
    case("checkpoint", own(checkpoint="best"), f"teachers.wide.checkpoint: {NOTHING}"),
    case("seed", own(seed=0), f"teachers.wide.seed: {NOTHING}"),
    case("argument", importing(MADRY, depht=10), "teachers.wide.depht:", "Did you mean 'depth'?", "imported"),
    case("depth", importing(MADRY, depth=11), "teachers.wide.depth:", "10, 16, 22", "found 11"),
    case("width", importing(MADRY, width="10"), "teachers.wide.width:", "int", "'10'"),
    case("architecture", importing(MADRY, architecture="resnet"), "wide.architecture: is the source's, wide_resnet"),
    case("own-architecture", importing(OWN, architecture="resnt"), "wide.architecture:", "Did you mean 'resnet'?"),
    case(
        "dataset",
        put("teachers", "wide", {"imported": MADRY}),
        "trades_wrn_34_10 is for cifar10, the experiment for digits",
    ),
    case(
        "zoo-dataset",
        changed(("dataset", {"name": "svhn"}), HERE, ("teachers", "wide", {"imported": ZOO})),
        "RobustBench's zoo is for cifar10 and cifar100, found svhn",
    ),
    case(
        "zoo-transfer",
        changed(
            ("dataset", {"name": "cifar10"}),
            (*TARGET, "dataset", {"name": "svhn"}),
            ("teachers", "wide", {"imported": ZOO}),
        ),
        "can be given no new head",
    ),
    case(
        "grey",
        put("teachers", "wide", {"imported": {**OWN, "normalisation": "cifar10"}, "architecture": "convnet"}),
        f"{IMPORTED}normalisation: cifar10 is for colour images",
    ),
    case("no-architecture", importing(OWN), "teachers.wide: unknown architecture 'wide'", "resnet"),
]


def attacked(*names: str, **settings: Any) -> tuple:
    return ("evaluation", {"images": 300, "attacks": list(names), **settings})


PARITY = {"name": "digits_parity", "padding": 1}
ATTACKS = [
    case("no-surrogate", changed(attacked("transfer_cw", "fgsm")), "evaluation.surrogate: is missing", "transfer_cw"),
    case("surrogate", put("evaluation", "surrogate", "wid"), "evaluation.surrogate:", "Did you mean 'wide'?"),
    case("surrogate-none", put("evaluation", "surrogate", "none"), "evaluation.surrogate: unknown teacher 'none'"),
    case("surrogate-int", put("evaluation", "surrogate", 3), "evaluation.surrogate:", "string", "3"),
    case(
        "transfer",
        changed(attacked("fgsm", "transfer_pgd2", surrogate="wide")),
        "evaluation.attacks[1]: unknown attack 'transfer_pgd2'. Did you mean 'transfer_pgd20'?",
        "transfer_square",
    ),
    case(
        "transfer-nothing", changed(attacked("transfer_", surrogate="wide")), "attacks[0]: unknown attack 'transfer_'"
    ),
    case("transfer-twice", changed(attacked("transfer_transfer_cw", surrogate="wide")), "attacks[0]: unknown attack"),
    case("repeated", changed(attacked("transfer_cw", "transfer_cw", surrogate="wide")), "'transfer_cw' is named twice"),
    *[
        case(f"l2-{name}", l2(attacked("fgsm", name)), f"evaluation.attacks[1]: {name} is not defined for the norm l2")
        for name in ("pgd_sat", "pgd_trades", "cw")
    ],
    case("l2-transfer", l2(attacked("transfer_cw", surrogate="wide")), "transfer_cw is not defined for the norm l2"),
    case("classes", changed(("dataset", PARITY), HERE), "evaluation.attacks[2]: autoattack needs at least 4", "has 2"),
    case("target-classes", put("transfer", "parity", "attacks", ["autoattack"]), "parity.attacks[0]: autoattack needs"),
]

ANALYSES = [
    case("images", put("structure", {"images": 501}), "structure.images: 501", "500 images of the test split"),
    case("images-zero", put("structure", {"images": 0}), "structure.images:", "equal to 1", "found 0"),
    case(
        "images-limit", changed(("dataset", "limit", {"test": 300}), ("structure", {"images": 301})), "the 300 images"
    ),
    case("key", put("structure", {"image": 1}), "structure.image:", "Did you mean 'images'?"),
    case("bool", put("structure", True), "structure:", "mapping", "true"),
    case("eps-none", put("robustness", {}), "robustness.eps: is missing"),
    case("eps-empty", put("robustness", {"eps": []}), "robustness.eps: is empty: give at least one"),
    case("eps-order", put("robustness", "eps", [0.2, 0.1]), "robustness.eps: [0.2, 0.1] must be ascending"),
    case("eps-twice", put("robustness", "eps", [0.1, "1/10"]), "robustness.eps: [0.1, 0.1] must be ascending"),
    case("eps-zero", put("robustness", "eps", [0, 0.1]), "robustness.eps[0]:", "greater than 0", "found 0"),
    case("eps-grey", put("robustness", "eps", [4, 8]), "robustness.eps:", "8/255", "found 8"),
    case("eps-images", put("robustness", "images", 501), "robustness.images: 501", "500 images of the test split"),
    case("gallery", put("robustness", "gallery", 0), "robustness.gallery:", "found 0"),
    case(
        "shape", put(*TARGET, "dataset", {"name": "fashion_mnist"}), "transfer.parity.dataset:", "(1, 28, 28)", "size"
    ),
    case("channels", put(*TARGET, "dataset", {"name": "cifar10", "size": 8}), "(3, 8, 8), the students take (1, 8, 8)"),
    case("dataset", put(*TARGET, "dataset", "name", "digit_parity"), "parity.dataset.name:", "mean 'digits_parity'?"),
    case("dataset-text", put(*TARGET, "dataset", "digits_parity"), "transfer.parity.dataset:", "mapping"),
    case("dataset-key", put(*TARGET, "dataset", "padding", 1), "transfer.parity.dataset.padding:", "Allowed: classes"),
    case("no-dataset", drop(*TARGET, "dataset"), "transfer.parity.dataset: is missing"),
    case(
        "folder",
        put(*TARGET, "dataset", {"name": "image_folder", "folder": "nowhere", "size": 8}),
        "transfer.parity.dataset.folder:",
        "nowhere/train is missing",
    ),
    case(
        "folder-images",
        changed(
            (
                "dataset",
                {"name": "image_folder", "folder": "x", "limit": {"train": 9, "validation": 9, "test": 300}, **FOUR},
            ),
            (
                "transfer",
                "parity",
                "dataset",
                {"name": "image_folder", "folder": "nowhere", "size": 8, "classes": ["odd", "even"]},
            ),
            ("transfer", "parity", "images", GONE),
        ),
        "transfer.parity.images: is needed as long as the folder 'nowhere' is not there",
    ),
    case("attack", put(*TARGET, "attacks", ["pgd2"]), "transfer.parity.attacks[0]:", "Did you mean 'pgd20'?"),
    case("attack-transfer", put(*TARGET, "attacks", ["transfer_pgd20"]), "parity.attacks[0]: unknown attack"),
    case("attack-l2", l2((*TARGET, "attacks", ["cw"])), "transfer.parity.attacks[0]: cw is not defined", "l2"),
    case("no-attacks", put(*TARGET, "attacks", []), "transfer.parity.attacks: is empty"),
    case(
        "attacks-repeated", put(*TARGET, "attacks", ["fgsm", "fgsm"]), "transfer.parity.attacks: 'fgsm' is named twice"
    ),
    case("test-images", put(*TARGET, "images", 501), "transfer.parity.images: 501", "500 images of the split"),
    case("rate", put(*TARGET, "learning_rate", 0), "transfer.parity.learning_rate:", "greater than 0"),
    case("target-key", put(*TARGET, "epoch", 3), "transfer.parity.epoch:", "Did you mean 'epochs'?"),
    case("no-epochs", drop(*TARGET, "epochs"), "transfer.parity.epochs: is missing"),
    case("name", rename("transfer", "parity", to="a/b"), "transfer.a/b: 'a/b'", BAD_NAME),
    case("list", put("transfer", ["parity"]), "transfer:", "mapping", "a list"),
]


def view(**chosen: Any) -> Writer:
    return put("tables", {"mine": {"title": "Mine", **chosen}})


ON_CIFAR = ("dataset", {"name": "cifar10"})
TABLES = [
    case("teacher", view(teachers=["wid"]), "tables.mine.teachers:", "Did you mean 'wide'?"),
    case("student", view(students=["smal"]), "tables.mine.students:", "Did you mean 'small'?"),
    case("method", view(methods=["sat", "rslat"]), "tables.mine.methods:", "Did you mean 'rslad'?"),
    case("checkpoint", view(checkpoints=["bset"]), "tables.mine.checkpoints:", "Did you mean 'best'?"),
    case("metric", view(metrics=["autoatack"]), "tables.mine.metrics:", "Did you mean 'autoattack'?", "clean"),
    case("metric-not-measured", view(metrics=["square"]), "tables.mine.metrics: unknown metric 'square'", "fgsm"),
    case("no-methods", view(methods=[]), "tables.mine.methods: is empty: name at least one method"),
    case("text", view(methods="rslad"), "tables.mine.methods:", "list", "'rslad'"),
    case("key", view(method=["rslad"]), "tables.mine.method:", "Did you mean 'methods'?"),
    *[
        case(f"kept-{name}", put("tables", {name: {"title": "Mine"}}), f"tables.{name}: this name is kept", "another")
        for name in ("main", "structure", "comparisons", "claims", "transfer-parity", "transfer-x")
    ],
    case("no-title", put("tables", {"mine": {}}), "tables.mine.title: is missing"),
    case("empty-title", put("tables", {"mine": {"title": ""}}), "tables.mine.title:", "at least 1 character"),
    case("long-title", put("tables", {"mine": {"title": "x" * 301}}), "tables.mine.title:", "at most 300"),
    case("name", put("tables", {"a/b": {"title": "Mine"}}), "tables.a/b: 'a/b'", BAD_NAME),
    case("null", put("tables", {"mine": None}), "tables.mine:", "mapping"),
    case(
        "published",
        changed(ON_CIFAR, HERE, ("published", ["rslad_cifar10_whitebox"])),
        "published: unknown reference",
        "Did you mean 'rslad_cifar10_white_box'?",
    ),
    case(
        "published-elsewhere",
        put("published", ["rslad_cifar100_white_box"]),
        "published: rslad_cifar100_white_box is about cifar100, the experiment about digits",
    ),
    case(
        "published-of-several",
        changed(("published", ["teachers"])),
        "published: teachers is about cifar10 and cifar100, the experiment about digits",
    ),
    case("published-text", put("published", "teachers"), "published:", "list", "'teachers'"),
    case("as", put("published_as", {"wid": "wrn34_10_trades"}), "published_as.wid:", "Did you mean 'wide'?", "rslad"),
    case("as-theirs", put("published_as", {"wide": "wrn34_trades"}), "published_as.wide:", "mean 'wrn34_10_trades'?"),
    case("as-int", put("published_as", {"wide": 3}), "published_as.wide:", "string", "3"),
    case("exclude", put("exclude", [{"method": ["sat", "rslat"]}]), "exclude[0].method:", "Did you mean 'rslad'?"),
    case("exclude-none", put("exclude", [{"method": []}]), "exclude[0].method: is empty: name at least one method"),
    case("exclude-null", put("exclude", [{"seed": 0, "method": None}]), "exclude[0].method: is empty", "leave it out"),
    case("exclude-seed", put("exclude", [{"seed": [0, 9]}]), "exclude[0].seed:", "seed 9", "Allowed: 0, 1, 2"),
    case("exclude-seed-text", put("exclude", [{"seed": ["0"]}]), "exclude[0].seed[0]:", "integer", "'0'"),
    case("exclude-nested", put("exclude", [{"method": [["sat"]]}]), "exclude[0].method[0]:", "string", "a list"),
    case("exclude-key", put("exclude", [{"methods": ["sat"]}]), "exclude[0].methods:", "Did you mean 'method'?"),
]


def claimed(text: Any, **more: Any) -> Writer:
    return put("claims", {"mine": {"claim": text, **more} if more else text})


CLAIMS = [
    case("method", claimed("rslat > sat on clean"), "claims.mine: unknown method 'rslat'. Did you mean 'rslad'?"),
    case("other", claimed("rslad > trade on clean"), "claims.mine: unknown method 'trade'. Did you mean 'trades'?"),
    case("metric", claimed("rslad > sat on autoatack"), "claims.mine: unknown metric", "mean 'autoattack'?", "clean"),
    case("not-measured", claimed("rslad > sat on square"), "claims.mine: unknown metric 'square'", "fgsm"),
    case("checkpoint", claimed("rslad > sat on clean at bset"), "claims.mine: unknown checkpoint", "mean 'best'?"),
    case(
        "checkpoint-not-kept",
        changed(("evaluation", "checkpoints", ["best"]), ("claims", {"mine": "rslad > sat on clean at last"})),
        "claims.mine: unknown checkpoint 'last'",
        "Allowed: best",
    ),
    case("itself", claimed("rslad > rslad on clean"), "claims.mine: compares rslad with itself"),
    case("structure", claimed("gacd < ard on structure.correlation"), "mean 'structure.correlation_distance'?"),
    case(
        "structure-last",
        claimed("gacd < ard on structure.feature_distance at last"),
        "claims.mine: structure is measured at the first of evaluation.checkpoints, best: leave out `at`",
    ),
    case(
        "structure-not-asked",
        changed(("structure", GONE), ("claims", {"mine": "gacd < ard on structure.feature_distance"})),
        "claims.mine: unknown metric 'structure.feature_distance'",
    ),
    case("target", claimed("gacd > ard on transfer-party.pgd20"), "Did you mean 'transfer-parity.pgd20'?"),
    case("target-metric", claimed("gacd > ard on transfer-parity.fgsm"), "unknown metric 'transfer-parity.fgsm'"),
    case("transfer-last", claimed("gacd > ard on transfer-parity.clean at last"), "transfer is measured at the first"),
    *[
        case(f"form-{number}", claimed(text), "claims.mine: is not of the form A > B on METRIC", "found")
        for number, text in enumerate((
            "rslad", "rslad > sat", "rslad = sat on clean", "rslad >> sat on clean now", "rslad > sat on", "> on clean",
            "rslad beats sat on clean", "rslad > sat on clean at", "rslad > sat on clean by", "rslad >= sat on clean",
            "rslad > sat on clean by 1 at best", "rslad > sat on clean on fgsm", " ", "rslad\n", "x" * 300,
        ))
    ],
    case("margin", claimed("rslad > sat on clean by 1%"), "claims.mine: by: is not a number", "'1%'"),
    case("margin-word", claimed("rslad > sat on clean by far"), "claims.mine: by: is not a number", "'far'"),
    case("margin-nan", claimed("rslad > sat on clean by nan"), "claims.mine: by: is not a number", "'nan'"),
    case("margin-huge", claimed("rslad > sat on clean by 1e99"), "claims.mine: by: is not a number"),
    case("long", claimed("x" * 301), "claims.mine.claim:", "at most 300"),
    case("empty", claimed(""), "claims.mine.claim:", "at least 1 character"),
    case("number", claimed(3), "claims.mine:", "mapping", "found 3"),
    case("list", claimed(["rslad > sat on clean"]), "claims.mine:", "mapping", "a list"),
    case("null", claimed(None), "claims.mine:", "mapping", "nothing"),
    case("text", put("claims", "rslad > sat on clean"), "claims:", "mapping"),
    case("no-claim", put("claims", {"mine": {"paper": "so"}}), "claims.mine.claim: is missing"),
    case("key", claimed("rslad > sat on clean", teacher=["wide"]), "claims.mine.teacher:", "Did you mean 'teachers'?"),
    case("teacher", claimed("rslad > sat on clean", teachers=["wid"]), "claims.mine.teachers:", "mean 'wide'?"),
    case("student", claimed("rslad > sat on clean", students=["smal"]), "claims.mine.students:", "mean 'small'?"),
    case("no-students", claimed("rslad > sat on clean", students=[]), "claims.mine.students: is empty"),
    case("students-text", claimed("rslad > sat on clean", students="small"), "claims.mine.students:", "list"),
    case("paper", claimed("rslad > sat on clean", paper=3), "claims.mine.paper:", "string", "3"),
    case("paper-long", claimed("rslad > sat on clean", paper="x" * 1001), "claims.mine.paper:", "at most 1000"),
    case("name", put("claims", {"a/b": "rslad > sat on clean"}), "claims.a/b: 'a/b'", BAD_NAME),
    case(
        "excluded",
        changed(("exclude", [{"method": "rslad"}]), ("claims", {"mine": "rslad > sat on clean"})),
        "claims.mine: covers no teacher and student for which both methods are trained",
    ),
    case(
        "several",
        put("claims", {"one": "rslat > sat on clean", "two": "rslad > sta on claen by"}),
        "claims.one: unknown method 'rslat'",
        "claims.two: is not of the form",
        lines=2,
    ),
    case(
        "several-in-one",
        claimed("rslat > sta on claen at end"),
        "method 'rslat'", "method 'sta'", "metric 'claen'", "checkpoint 'end'",
        lines=4,
    ),
]  # fmt: skip

GROUPS = {
    "key": UNKNOWN_KEYS,
    "type": WRONG_TYPES,
    "value": IMPOSSIBLE_VALUES,
    "unknown": UNKNOWN_NAMES,
    "missing": MISSING_KEYS,
    "name": NAMES,
    "file": FILES,
    "laughs": LAUGHS,
    "overlay": OVERLAYS,
    "official": OFFICIAL,
    "budget": BUDGETS,
    "data": DATA,
    "import": IMPORTS,
    "attack": ATTACKS,
    "analysis": ANALYSES,
    "table": TABLES,
    "claim": CLAIMS,
}
CASES = [
    pytest.param(*found.values, id=f"{group}-{found.id}") for group, members in GROUPS.items() for found in members
]


# What every case is held to


class Expired(BaseException):
    """Passes through every `except Exception`."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fails the test where it takes longer, which a message about a text file never does."""

    def expire(*_: Any) -> None:
        raise Expired

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except Expired:
        # What was being handled may be as large as the file made it: pytest must not print it.
        raise pytest.fail.Exception(f"no answer after {seconds:g} s", pytrace=False) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def listing(folder: Path) -> dict[str, int | None]:
    """Every path under the folder, and the size of each file."""
    return {
        str(path.relative_to(folder)): path.stat().st_size if path.is_file() else None for path in folder.rglob("*")
    }


def cut(text: str) -> str:
    return text if len(text) < 1500 else f"{text[:1500]}... ({len(text)} characters)"


def check_message(text: str, found: Case) -> None:
    """Short, without jargon, with all it must name."""
    lines = text.rstrip("\n").split("\n")
    assert len(lines) <= found.lines, f"{len(lines)} lines for one mistake: {cut(text)}"
    longest = max(map(len, lines))
    assert longest <= 500, f"a line of {longest} characters: {cut(text)}"
    for needle in found.needles:
        alternatives = needle if isinstance(needle, tuple) else (needle,)
        assert any(part in text for part in alternatives), f"{needle!r} is not in: {text}"
    jargon = re.search(JARGON, text)
    assert not jargon, f"{jargon[0]!r} says nothing to who wrote the file: {text}"
    assert text.replace("\n", "").isprintable(), f"control characters in {text!r}"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def broken(request, folder) -> Case:
    """The case with its files written."""
    found: Case = request.param
    found.write(folder / FILE)
    if found.overlay:
        found.overlay(folder / OVERLAY)
    return found


def test_params_file_that_all_cases_break_is_valid(folder):
    (folder / FILE).write_text(dumped(parsed()), encoding="utf-8")
    before = listing(folder)
    assert set(load(FILE).runs) == set(load(REPOSITORY / "params.yaml").runs)
    for command in ("plan", "check"):
        result = CliRunner().invoke(main, [command, "--experiment", FILE])
        assert result.exit_code == 0, result.output
    assert listing(folder) == before


@pytest.mark.parametrize("broken", CASES, indirect=True)
def test_load_says_what_is_wrong(broken, folder):
    before = listing(folder)
    with within(broken.seconds), pytest.raises(UserError) as caught:
        load(FILE, OVERLAY if broken.overlay else None)
    check_message(str(caught.value), broken)
    assert re.match(rf"(experiment file )?({FILE}|{OVERLAY})", str(caught.value))
    assert listing(folder) == before


@pytest.mark.parametrize("broken", CASES, indirect=True)
def test_plan_and_check_exit_with_2(broken, folder):
    before = listing(folder)
    for command in ("plan", "check"):
        with within(broken.seconds):
            result = CliRunner().invoke(main, [command, *broken.options])
        assert result.exit_code == 2, f"{command}: {result.exception!r} {cut(result.output)}"
        assert result.output.startswith("Error: ")
        check_message(result.output.removeprefix("Error: "), broken)
        assert listing(folder) == before


# Missing data

NOWHERE = changed(("dataset", {"name": "fashion_mnist", "folder": "empty", "download": False}), HERE)


@pytest.fixture
def without_data(folder, monkeypatch) -> Path:
    """An experiment on images that are nowhere and may not be fetched."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN", folder / "nowhere")
    NOWHERE(folder / FILE)
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def downloads(monkeypatch) -> list[str]:
    """The addresses that were asked for, in torchvision's place; none answers."""
    asked = []

    def download_url(url: str, *_: Any, **__: Any) -> None:
        asked.append(url)
        raise OSError("no network")

    utils = SimpleNamespace(download_url=download_url)
    modules = {"": SimpleNamespace(), ".datasets": SimpleNamespace(utils=utils), ".datasets.utils": utils}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"torchvision{name}", module)
    return asked


def test_check_says_which_data_are_missing(without_data):
    before = listing(without_data)
    assert load(FILE).dataset.name == "fashion_mnist"  # the file itself is right
    result = CliRunner().invoke(main, ["check", "--experiment", FILE])
    assert result.exit_code == 2, result.output
    assert result.output.count("\n") == 1
    for needle in ("Error: dataset fashion_mnist: empty/FashionMNIST/raw/", "is missing", "dataset.download: true"):
        assert needle in result.output
    assert listing(without_data) == before


def test_prepare_data_fetches_nothing_that_may_not_be_fetched(without_data, downloads):
    before = listing(without_data)
    result = CliRunner().invoke(main, ["prepare-data", "--experiment", FILE])
    assert result.exit_code == 2, f"{result.exception!r} {result.output}"
    assert "is missing" in result.output
    assert downloads == []
    assert listing(without_data) == before


def test_prepare_data_asks_a_server_where_it_may_and_leaves_no_file_when_none_answers(without_data, downloads):
    changed(("dataset", {"name": "fashion_mnist", "folder": "empty"}), HERE)(without_data / FILE)
    result = CliRunner().invoke(main, ["prepare-data", "--experiment", FILE])
    assert result.exit_code == 2, f"{result.exception!r} {result.output}"
    assert "could not be downloaded (no network)" in result.output
    assert downloads == [f"{fashion_mnist.FILES.url}train-images-idx3-ubyte.gz"]
    assert not [path for path in (without_data / "empty").rglob("*") if path.is_file()]


@pytest.mark.parametrize("command", ["check", "prepare-data"])
def test_a_mirror_that_is_no_web_server_is_refused_before_any_job(command, without_data, downloads):
    given = {"name": "fashion_mnist", "folder": "empty", "mirror": "ftp://example.org/x"}
    changed(("dataset", given), HERE)(without_data / FILE)
    before = listing(without_data)
    result = CliRunner().invoke(main, [command, "--experiment", FILE])
    assert result.exit_code == 2, f"{result.exception!r} {result.output}"
    assert result.output.startswith("Error: dataset.mirror: 'ftp://example.org/x' is not the address of a web server")
    assert result.output.count("\n") == 1
    assert downloads == []
    assert listing(without_data) == before


# Command lines

SHARD = "give it as I-of-N"
COMMANDS = {
    "run": ("train-student wide/small/rslat/seed-0", ["wide/small/rslat/seed-0", "mean 'wide/small/rslad/seed-0'?"]),
    "run-seed": ("train-student wide/small/rslad/seed-7", ["wide/small/rslad/seed-7", "Did you mean"]),
    "run-of-no-teacher": ("train-student wide/small/sat/seed-0", ["unknown run", "none/small/sat/seed-0"]),
    "run-climbs": ("train-student ../../x", ["unknown run", "'../../x'"]),
    "teacher": ("train-teacher wid", ["unknown teacher 'wid'", "Did you mean 'wide'?"]),
    "teacher-left-out": ("train-teacher", ["Missing argument 'TEACHER'"]),
    "cache-teacher": ("fill-cache wid logits", ["unknown teacher 'wid'", "Did you mean 'wide'?"]),
    "cache-kind": ("fill-cache wide logit", ["'logit' is not one of 'logits', 'features'"]),
    "attack-teacher": ("attack wid", ["'wid'", "Did you mean 'wide'?"]),
    "attack-run": ("attack wide/small/rslat/seed-0", ["Did you mean 'wide/small/rslad/seed-0'?"]),
    "merge-teacher": ("merge-outcomes wid", ["'wid'", "Did you mean 'wide'?"]),
    "transfer-target": ("transfer parit wide", ["unknown transfer", "Did you mean 'parity'?"]),
    "report-target": ("report-transfer parit", ["unknown transfer", "Did you mean 'parity'?"]),
    "prepare-target": ("prepare-data --target parit", ["unknown transfer", "Did you mean 'parity'?"]),
    "shard-above": ("attack wide --shard 3-of-2", ["--shard '3-of-2'", SHARD]),
    "shard-zero": ("attack wide --shard 0-of-2", ["--shard '0-of-2'", SHARD]),
    "shard-none": ("attack wide --shard 1-of-0", ["--shard '1-of-0'", SHARD]),
    "shard-half": ("attack wide --shard 1-of-", ["--shard '1-of-'", SHARD]),
    "shard-text": ("attack wide --shard ../x", ["--shard '../x'", SHARD]),
    "shard-negative": ("attack wide --shard=-1-of-2", ["--shard '-1-of-2'", SHARD]),
    "shard-empty": ("attack wide --shard ''", ["--shard ''", SHARD]),
    "command": ("plna", ["No such command 'plna'", "plan"]),
    "option": ("plan --experimnt params.yaml", ["--experimnt", "--experiment"]),
    "argument": ("plan params.yaml", ["unexpected extra argument", "params.yaml"]),
    "no-file": ("plan --experiment ''", ["experiment file", "cannot be read"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_bad_command_line_exits_with_2(name, folder):
    line, needles = COMMANDS[name]
    shutil.copy(REPOSITORY / "params.yaml", folder)
    before = listing(folder)
    with within(60):  # some import torch first
        result = CliRunner().invoke(main, shlex.split(line))
    assert result.exit_code == 2, f"{result.exception!r} {result.output}"
    assert "Traceback" not in result.output
    assert result.output.count("\n") <= 4  # click adds two lines on the usage
    for needle in needles:
        assert needle in result.output
    assert listing(folder) == before


@pytest.mark.parametrize("name", ["my experiment.yaml", "a;b.yaml", "it's.yaml", "$HOME.yaml"])
def test_path_of_the_experiment_survives_the_shell(name, folder):
    """The rules put `arguments` into their commands."""
    (folder / name).write_text(VALID, encoding="utf-8")
    shown = subprocess.run(["bash", "-c", f"printf '%s\\n' {load(name).arguments}"], capture_output=True, text=True)
    assert shown.stdout == f"--experiment\n{name}\n", shown.stderr


# Any mistake whatever

VALUES = [
    *[None, True, False, 0, -1, 7, 10**30, 1.5, -0.5, 1e-300, float("inf"), float("nan"), "", "text", "8/255", "none"],
    *["best", "convnet", "\u00e9", "a b", [], [1, "a"], [[]], [None], {}, {"x": {}}, {"method": "sat"}, {1: 2}],
    *[datetime.date(2020, 1, 1), b"bytes"],
]
KEYS = ["x", "", "none", "method", "name", "seed", "training", 3, True, None, 1.5, "a/b"]
SNIPPETS = [
    *["[", "]", "{", "}", ":", ": ", "- ", ",", "&a ", "*a", "!!int ", "!!bool ", "!!float ", "!!set ", "!x ", "? "],
    *["\t", "\n", "\n---\n", "<<: ", "\x07", "\u00e9", "0x", *"|>#%~@` -9", '"', "'"],
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) in a tree."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def mutated(rng: random.Random) -> str:
    """The valid params with one or two nodes replaced by a value of another type, deleted, or under another key."""
    raw = parsed()
    for _ in range(rng.choice([1, 1, 2])):
        holder, key = rng.choice(list(places(raw)))
        change = rng.choice(["replace", "replace", "delete", "rename"])
        if change == "replace":
            others = [value for value in VALUES if type(value) is not type(holder[key])]
            holder[key] = copy.deepcopy(rng.choice(others))
        elif change == "delete" or isinstance(holder, list):
            del holder[key]
        else:
            nearly = [f"{key}s", str(key)[:-1], str(key).upper()]
            holder[rng.choice(KEYS + nearly)] = holder.pop(key)
    return dumped(raw)


def scribbled(rng: random.Random) -> str:
    """The text of the valid params with a few edits that know nothing of YAML."""
    text = VALID
    for _ in range(rng.choice([1, 2, 3])):
        at = rng.randrange(len(text))
        change = rng.choice(["insert", "insert", "delete", "repeat"])
        if change == "insert":
            text = text[:at] + rng.choice(SNIPPETS) + text[at:]
        elif change == "delete":
            text = text[:at] + text[at + rng.choice([1, 1, 5, 40]) :]
        else:
            text = text[:at] + text[at : at + rng.choice([1, 10, 80])] + text[at:]
    return text


@pytest.mark.parametrize("change", [mutated, scribbled])
def test_any_file_is_either_planned_or_refused(change, folder):
    rng, faults, refused = random.Random(2021), [], 0
    for number in range(200):
        text = change(rng)
        (folder / FILE).write_text(text, encoding="utf-8")
        try:
            with within(5):
                describe(load(FILE))
        except UserError as error:
            refused += 1
            if not str(error).startswith((FILE, f"experiment file {FILE}")):
                faults.append(f"{number}: no file is named: {error}")
        except Exception as error:
            faults.append(f"{number}: {error!r}\n{text}")
    assert not faults, f"{len(faults)} of 200:\n" + "\n".join(faults[:3])
    assert 50 < refused < 200
    assert listing(folder).keys() == {FILE}


# The workflow


@pytest.fixture
def workflow(folder) -> Path:
    """What snakemake needs, beside an experiment file."""
    shutil.copy(REPOSITORY / "Snakefile", folder)
    for name in ("workflow", "profiles"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "params.yaml", folder)
    return folder


def snakemake(folder: Path, *arguments: str, path: str = "") -> str:
    """What a start that must fail prints. Only Snakemake's own log may be left by it."""
    commands = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY / "src"), path])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CACHE_HOME": str(folder.parent / f"{folder.name}-cache"),
    }
    before = listing(folder)
    result = subprocess.run(
        [commands / "snakemake", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    output = result.stdout + result.stderr
    assert result.returncode != 0, cut(output)
    assert "Traceback" not in output
    assert "site-packages" not in output
    assert "src/robust_distillation" not in output, f"a frame of ours: {cut(output)}"
    after = {name: size for name, size in listing(folder).items() if not name.startswith(".snakemake")}
    assert after == before
    return output


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        pytest.param(put("protocol", "oficial"), ["protocol: unknown value 'oficial'"], id="value"),
        pytest.param(put("threat_model", {"norm": "l1", "eps": -1}), ["threat_model.norm:", "found -1"], id="two"),
        pytest.param(nothing, ["cannot be read (No such file or directory)"], id="no-file"),
    ],
)
def test_snakemake_says_it_once_and_starts_nothing(write, expected, workflow):
    write(workflow / FILE)
    with pytest.raises(UserError) as caught:
        load(FILE)
    output = snakemake(workflow, "-n", "--config", f"experiment={FILE}")
    assert output.count(str(caught.value)) == 1
    for needle in expected:
        assert output.count(needle) == 1
    assert "Job stats" not in output


def test_snakemake_refuses_an_empty_experiment(workflow):
    assert "experiment" in snakemake(workflow, "-n", "--config", "experiment=")


def test_snakemake_refuses_a_misspelt_config_key(workflow):
    put("protocol", "oficial")(workflow / FILE)
    assert "experimnt" in snakemake(workflow, "-n", "--config", f"experimnt={FILE}")


def test_snakemake_starts_no_job_where_data_are_missing(workflow):
    """A real run, which ends before its first job. Debian's package is hidden from it."""
    NOWHERE(workflow / FILE)
    (workflow / "hide").mkdir()
    (workflow / "hide" / "sitecustomize.py").write_text(
        "from pathlib import Path\nfrom robust_distillation.data import fashion_mnist\n"
        "fashion_mnist.DEBIAN = Path('nowhere')\n"
    )
    output = snakemake(workflow, "--config", f"experiment={FILE}", path=str(workflow / "hide"))
    assert output.count("dataset fashion_mnist: empty/FashionMNIST/raw/") == 1
    assert "rule prepare_data" not in output
