"""The experiment file as types, and the run matrix that follows from it. Nothing else reads a params file.

`load("params.yaml")` returns an Experiment or raises one UserError that names every mistake: the field's path, what was
given, what is allowed, the nearest spelling. No torch is imported and nothing is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from robust_distillation import attacks, data, methods, models
from robust_distillation.errors import UserError, unknown

NO_TEACHER = "none"
Checkpoint = Literal["best", "last"]


def _fraction(value: Any) -> Any:
    """8/255 as a number, the way the field writes it."""
    match = re.fullmatch(r"\s*(\d+)\s*/\s*([1-9]\d*)\s*", value) if isinstance(value, str) else None
    return int(match[1]) / int(match[2]) if match else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]  # stands in paths
Distance = Annotated[float, BeforeValidator(_fraction), Field(gt=0)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Limit(Settings):
    """Use only the first images of a split."""

    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None


class DatasetSettings(Settings):
    name: str
    padding: int = Field(0, ge=0, le=16, description="zero padding of the random crops; 0 switches them off")
    limit: Limit = Limit()
    folder: str = Field("data", description="where datasets that are files on disk lie")
    download: bool = Field(True, description="fetch files that are missing")


class ThreatModel(Settings):
    """Images within `eps` of x in `norm`, and in [0,1]."""

    norm: Literal["linf", "l2"] = "linf"
    eps: Distance


class InnerAttack(Settings):
    """The inner maximisation of training."""

    steps: Positive = 10
    step_size: Distance
    start: Literal["uniform", "gaussian", "zero"] = "uniform"


class Selection(Settings):
    """How `best` is chosen on the validation split: accuracy under a short APGD-CE, ties by clean accuracy."""

    steps: Positive = 10
    every: Positive = Field(1, description="epochs between two looks; the last epoch is always looked at")


class Training(Settings):
    """The budget, the same for every method."""

    epochs: Positive
    batch_size: Positive
    learning_rate: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    milestones: list[Positive] = Field([], description="epochs after which the learning rate is multiplied by `factor`")
    factor: float = Field(0.1, gt=0, le=1)
    kl_scale: Literal["sum", "mean"] = Field(
        "sum", description="divergences summed over the classes, or their mean as in the code of RSLAD and ARD"
    )
    inner_attack: InnerAttack
    selection: Selection = Selection()


class Compute(Settings):
    """What moves the bits but not the experiment."""

    precision: Literal["exact"] = "exact"
    threads: Positive = Field(1, description="torch threads of each job; more cores run more jobs")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")


class Evaluation(Settings):
    images: Positive | None = Field(None, description="the first images of the test split; all where left out")
    attacks: list[str] = Field(min_length=1)
    checkpoints: list[Checkpoint] = Field(["best", "last"], min_length=1)
    block_size: Positive = Field(100, description="images attacked together under one seed")
    seed: Seed = 0
    jobs: Positive = Field(1, description="jobs that share the blocks of one run")


class Exclusion(Settings):
    """Runs to leave out: those that match every name given."""

    teacher: str | None = None
    student: str | None = None
    method: str | None = None
    seed: int | None = None


class _TeacherFile(Settings):
    """What a teacher's entry may hold besides its architecture's arguments."""

    trained_by: dict[str, Any]
    seed: Seed = 0
    checkpoint: Checkpoint = "best"
    training: dict[str, Any] = Field({}, description="what differs from the budget of the students")


class _File(Settings):
    name: Name
    protocol: Literal["controlled"]
    dataset: DatasetSettings
    threat_model: ThreatModel
    training: dict[str, Any]
    compute: Compute = Compute()
    evaluation: Evaluation
    seeds: list[Seed] = Field(min_length=1)
    teachers: dict[Name, dict[str, Any] | None] = {}
    students: dict[Name, dict[str, Any] | None] = Field(min_length=1)
    methods: dict[Name, dict[str, Any] | None] = Field(min_length=1)
    exclude: list[Exclusion] = []


@dataclass(frozen=True)
class NamedMethod:
    """A method with its settings, under the name that stands in paths."""

    kind: str
    settings: methods.Method

    @property
    def needs(self) -> methods.Needs:
        return self.settings.needs

    def resolved(self) -> dict[str, Any]:
        return {"name": self.kind, **self.settings.model_dump()}


@dataclass(frozen=True)
class Teacher:
    architecture: dict[str, Any]
    trained_by: NamedMethod
    seed: int
    checkpoint: str
    training: Training


@dataclass(frozen=True, order=True)
class Run:
    """One student training."""

    teacher: str
    student: str
    method: str
    seed: int


@dataclass(frozen=True)
class Experiment:
    """One params file, resolved: every default is filled in, every name exists."""

    file: _File
    training: Training
    teachers: dict[str, Teacher]
    students: dict[str, dict[str, Any]]
    methods: dict[str, NamedMethod]
    arguments: str  # the command line options that load this experiment again

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def dataset(self) -> DatasetSettings:
        return self.file.dataset

    @property
    def threat_model(self) -> ThreatModel:
        return self.file.threat_model

    @property
    def evaluation(self) -> Evaluation:
        return self.file.evaluation

    @property
    def compute(self) -> Compute:
        return self.file.compute

    @property
    def info(self) -> data.DatasetInfo:
        return data.info(self.dataset.name)

    def size(self, split: str) -> int:
        """How many images of a split the experiment uses."""
        limit = getattr(self.dataset.limit, split)
        return self.info.sizes[split] if limit is None else limit

    @property
    def test_images(self) -> int:
        return self.evaluation.images or self.size("test")

    @property
    def shards(self) -> int:
        """Jobs that share a run's blocks: never more than there are blocks."""
        return min(self.evaluation.jobs, -(-self.test_images // self.evaluation.block_size))

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Teachers x students x methods x seeds less the exclusions; methods without a teacher run once."""
        return tuple(run for run in self._matrix() if not any(_matches(rule, run) for rule in self.file.exclude))

    def _matrix(self) -> Iterator[Run]:
        for method, named in self.methods.items():
            for teacher in self.teachers if named.needs.teacher else (NO_TEACHER,):
                for student in self.students:
                    for seed in self.file.seeds:
                        yield Run(teacher, student, method, seed)

    @property
    def caches(self) -> tuple[tuple[str, str], ...]:
        """(teacher, kind) of each cache that some run reads."""
        return tuple(sorted({(r.teacher, kind) for r in self.runs for kind in self.methods[r.method].needs.cached}))

    # What each step depends on besides its input files, as JSON values: a rule's params, a record's settings.

    def _data(self) -> dict[str, Any]:
        limit = self.dataset.limit.model_dump()
        return {"name": self.dataset.name, "padding": self.dataset.padding, "flips": self.info.flips, "limit": limit}

    def _trained(self, training: Training, architecture: dict, method: NamedMethod, seed: int) -> dict[str, Any]:
        return {
            "protocol": self.file.protocol,
            "dataset": self._data(),
            "threat_model": self.threat_model.model_dump(),
            "training": training.model_dump(),
            "compute": self.compute.model_dump(),
            "architecture": architecture,
            "method": method.resolved(),
            "seed": seed,
        }

    def data_settings(self) -> dict[str, Any]:
        return {"name": self.dataset.name, "limit": self.dataset.limit.model_dump()}

    def teacher_settings(self, name: str) -> dict[str, Any]:
        teacher = self.teachers[name]
        return self._trained(teacher.training, teacher.architecture, teacher.trained_by, teacher.seed)

    def cache_settings(self, teacher: str, kind: str) -> dict[str, Any]:
        return {"kind": kind, "dataset": self._data(), "compute": self.compute.model_dump()}

    def student_settings(self, run: Run) -> dict[str, Any]:
        return self._trained(self.training, self.students[run.student], self.methods[run.method], run.seed)

    def attack_settings(self, checkpoints: list[str] | None = None) -> dict[str, Any]:
        evaluation = self.evaluation.model_dump(exclude={"jobs"})
        if checkpoints is not None:
            evaluation["checkpoints"] = checkpoints
        return {
            "dataset": self._data(),
            "threat_model": self.threat_model.model_dump(),
            "compute": self.compute.model_dump(),
            "evaluation": {**evaluation, "images": self.test_images},
        }

    def matrix(self) -> dict[str, Any]:
        """What a table needs to know to head it and to order its rows."""
        return {
            "experiment": self.name,
            "protocol": self.file.protocol,
            "threat": f"{self.threat_model.norm} eps {self.threat_model.eps:.4g}",
            "teachers": list(self.teachers),
            "students": list(self.students),
            "methods": list(self.methods),
            "checkpoints": self.evaluation.checkpoints,
            "metrics": ["clean", *self.evaluation.attacks],
        }


def _matches(rule: Exclusion, run: Run) -> bool:
    return all(getattr(run, key) == value for key, value in rule.model_dump(exclude_none=True).items())


# Reading


def load(path: str | Path, overlay: str | Path | None = None) -> Experiment:
    """The experiment in `path`, with the values of the overlay put in their place. Raises UserError."""
    raw = _read_yaml(path)
    arguments, source = f"--experiment {path}", str(path)
    if overlay is not None:
        raw = _overlaid(raw, _read_yaml(overlay))
        arguments, source = f"{arguments} --overlay {overlay}", f"{path} with {overlay}"
    problems: list[str] = []
    experiment = _resolve(raw, arguments, problems)
    if problems:
        raise UserError("\n".join(f"{source}: {problem}" for problem in problems))
    return experiment


def _read_yaml(path: str | Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"experiment file {path}: cannot be read ({reason})") from error
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1
        what = error.problem.split(" with value")[0].replace("found duplicate", "duplicate")
        raise UserError(f"{path}: line {line}: {what}. Give each name once") from error
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{path}: {where}not valid YAML ({getattr(error, 'problem', None) or error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: an experiment file is a mapping of settings, found {type(value).__name__}")
    return value


def _overlaid(base: Mapping, overlay: Mapping) -> dict:
    """`base` with the overlay's values in their place; mappings are merged, and null removes an entry."""
    merged = dict(base)
    for key, value in overlay.items():
        if value is None and key in merged:
            del merged[key]
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _overlaid(merged[key], value)
        else:
            merged[key] = value
    return merged


def _parse(model: type[BaseModel], value: Any, where: tuple, problems: list[str]) -> Any:
    """`model` of `value`, or None after adding what is wrong to `problems`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for found in error.errors():
            path = tuple(part for part in found["loc"] if part != "[key]")
            problems.append(f"{_path(where + path)}: {_wording(found, model, path)}")
        return None


def _path(parts: tuple) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".") or "the file"


def _wording(found: Any, model: type[BaseModel], path: tuple) -> str:
    """One mistake that pydantic found, in our words: what is allowed, and what was given."""
    kind, given, context = found["type"], found["input"], found.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown("key", path[-1], _fields(model, path[:-1]))
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        return unknown("value", given, re.findall(r"'([^']*)'", context["expected"]))
    if kind == "string_pattern_mismatch":
        if path[-1] == "device":
            return f"unknown device {given!r}. Allowed: auto, cpu, cuda, cuda:N"
        return (
            f"{given!r} cannot be a name: use letters, digits, '.', '_' and '-', first a letter or a digit, at most 64"
        )
    if kind == "too_short":
        return "is empty: give at least one"
    message = found["msg"][0].lower() + found["msg"][1:]
    shown = (
        repr(given) if not isinstance(given, dict | list) else f"a {'mapping' if isinstance(given, dict) else 'list'}"
    )
    return f"{message.replace('dictionary', 'mapping')}, found {shown}"


def _fields(model: Any, path: tuple) -> list[str]:
    """The keys allowed in the nested settings at `path`."""
    for part in path:
        if isinstance(part, str) and isinstance(model, type) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            model = next(
                (a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")), model
            )
    return list(model.model_fields)


def _resolve(raw: dict, arguments: str, problems: list[str]) -> Experiment | None:
    file = _parse(_File, raw, (), problems)
    if file is None:
        return None

    training = _training(file.training, ("training",), problems)
    teachers = {
        name: _teacher(name, entry or {}, file.training, training, problems) for name, entry in file.teachers.items()
    }
    students = {}
    for name, entry in file.students.items():
        entry = dict(entry or {})
        students[name] = _architecture(entry, entry.pop("architecture", name), ("students", name), problems)
    named = {
        name: _method(dict(entry or {}), name, ("methods", name), problems) for name, entry in file.methods.items()
    }

    _check_data(file, problems)
    _check_evaluation(file.evaluation, problems)
    if len(set(file.seeds)) < len(file.seeds):
        problems.append(f"seeds: {file.seeds} names a seed twice")
    if NO_TEACHER in file.teachers:
        problems.append(f"teachers.{NO_TEACHER}: this name is kept for methods that need no teacher; choose another")
    if not file.teachers:
        needing = [name for name, method in named.items() if method and method.needs.teacher]
        problems.extend(f"methods.{name}: needs a teacher, but no teacher is given under teachers" for name in needing)
    groups = {
        "teacher": {*file.teachers, NO_TEACHER},
        "student": file.students,
        "method": file.methods,
        "seed": file.seeds,
    }
    for i, rule in enumerate(file.exclude):
        given = rule.model_dump(exclude_none=True)
        if not given:
            problems.append(f"exclude[{i}]: matches every run. Give a teacher, student, method or seed")
        for key, value in given.items():
            if value not in groups[key]:
                problems.append(f"exclude[{i}].{key}: {unknown(key, value, map(str, groups[key]))}")
    if problems:
        return None
    experiment = Experiment(file, training, teachers, students, named, arguments)
    if not experiment.runs:
        problems.append("exclude: leaves no run")
    return experiment


def _training(budget: dict, where: tuple, problems: list[str]) -> Training | None:
    training = _parse(Training, budget, where, problems)
    if training and training.milestones != sorted(set(training.milestones)):
        problems.append(f"{_path(where)}.milestones: {training.milestones} must be ascending")
    elif training and training.milestones and training.milestones[-1] >= training.epochs:
        problems.append(
            f"{_path(where)}.milestones: {training.milestones[-1]} is never reached in {training.epochs} epochs"
        )
    return training


def _teacher(name: str, entry: dict, budget: dict, training: Training | None, problems: list[str]) -> Teacher | None:
    where, before = ("teachers", name), len(problems)
    keys = list(_TeacherFile.model_fields)
    architecture = {key: value for key, value in entry.items() if key not in keys}
    own = _parse(_TeacherFile, {key: value for key, value in entry.items() if key in keys}, where, problems)
    architecture = _architecture(architecture, architecture.pop("architecture", name), where, problems, besides=keys)
    if own is None:
        return None
    by = dict(own.trained_by)
    if "method" not in by:
        problems.append(f"{_path(where)}.trained_by.method: is missing")
        return None
    method = _method(by, by["method"], (*where, "trained_by"), problems)
    if method and method.needs.teacher:
        problems.append(f"{_path(where)}.trained_by.method: {method.kind!r} needs a teacher itself")
    if own.training:
        training = _training(_overlaid(budget, own.training), (*where, "training"), problems)
    if len(problems) > before or training is None:
        return None
    return Teacher(architecture, method, own.seed, own.checkpoint, training)


def _method(entry: dict, default: str, where: tuple, problems: list[str]) -> NamedMethod | None:
    kind = entry.pop("method", default)
    try:
        if not isinstance(kind, str):
            raise UserError(unknown("method", kind, methods.names()))
        method = methods.get(kind)
    except UserError as error:
        problems.append(f"{_path(where)}: {error}")
        return None
    settings = _parse(method, entry, where, problems)
    return None if settings is None else NamedMethod(kind, settings)


def _architecture(
    given: dict, name: Any, where: tuple, problems: list[str], besides: tuple | list = ()
) -> dict[str, Any]:
    """`{"name": ..., **all arguments}`; each argument must have the type that `build` declares, numbers be positive."""
    try:
        if not isinstance(name, str):
            raise UserError(unknown("architecture", name, models.names()))
        known = models.arguments(name)
    except UserError as error:
        problems.append(f"{_path(where)}: {error}")
        return {}
    for key, value in given.items():
        here, argument = _path((*where, key)), known.get(key)
        if argument is None:
            problems.append(f"{here}: {unknown('key', key, [*known, 'architecture', *besides])}")
        elif type(value).__name__ != argument.type:
            problems.append(f"{here}: input should be of type {argument.type}, found {value!r}")
        elif argument.choices and value not in argument.choices:
            problems.append(f"{here}: input should be one of {', '.join(map(str, argument.choices))}, found {value!r}")
        elif argument.type in ("int", "float") and value <= 0:
            problems.append(f"{here}: input should be greater than 0, found {value!r}")
    return {"name": name, **{key: given.get(key, argument.default) for key, argument in known.items()}}


def _check_data(file: _File, problems: list[str]) -> None:
    if file.dataset.name not in data.names():
        problems.append(f"dataset.name: {unknown('dataset', file.dataset.name, data.names())}")
        return
    info = data.info(file.dataset.name)
    for split, limit in file.dataset.limit.model_dump(exclude_none=True).items():
        if limit > info.sizes[split]:
            problems.append(f"dataset.limit.{split}: {limit} is more than the {info.sizes[split]} images of the split")
    test = file.dataset.limit.test or info.sizes["test"]
    if (file.evaluation.images or 0) > test:
        problems.append(f"evaluation.images: {file.evaluation.images} is more than the {test} images of the test split")


def _check_evaluation(evaluation: Evaluation, problems: list[str]) -> None:
    for i, name in enumerate(evaluation.attacks):
        if name not in attacks.names():
            problems.append(f"evaluation.attacks[{i}]: {unknown('attack', name, attacks.names())}")
    for key in ("attacks", "checkpoints"):
        names = getattr(evaluation, key)
        if len(set(names)) < len(names):
            problems.append(f"evaluation.{key}: {names} names one twice")
