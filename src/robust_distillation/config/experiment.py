"""An experiment with every default filled in, and the run matrix that follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from robust_distillation import data, methods
from robust_distillation.config.schema import (
    Compute,
    DatasetSettings,
    Evaluation,
    Exclusion,
    ExperimentFile,
    ThreatModel,
    Training,
)

NO_TEACHER = "none"  # stands in paths and tables for methods that need none


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

    file: ExperimentFile
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
    def pairs(self) -> list[tuple[str, str]]:
        """(teacher, student) of each comparison: those with distilled runs; a student that has none stands alone."""
        distilled = {(run.teacher, run.student) for run in self.runs if run.teacher != NO_TEACHER}
        taught = {student for _, student in distilled}
        alone = {(NO_TEACHER, run.student) for run in self.runs if run.student not in taught}
        order = [(teacher, student) for teacher in [*self.teachers, NO_TEACHER] for student in self.students]
        return [pair for pair in order if pair in distilled | alone]

    @property
    def caches(self) -> tuple[tuple[str, str], ...]:
        """(teacher, kind) of each cache that some run reads."""
        return tuple(sorted({(r.teacher, kind) for r in self.runs for kind in self.methods[r.method].needs.cached}))

    # What each step depends on besides its input files, as JSON values: a rule's params, a record's settings.

    def _views(self, *splits: str) -> dict[str, Any]:
        """Which training images are used, and how they are augmented."""
        limit = {split: getattr(self.dataset.limit, split) for split in splits}
        return {"name": self.dataset.name, "padding": self.dataset.padding, "flips": self.info.flips, "limit": limit}

    def _trained(self, training: Training, architecture: dict, method: NamedMethod, seed: int) -> dict[str, Any]:
        return {
            "protocol": self.file.protocol,
            "dataset": self._views("train", "validation"),
            "threat_model": self.threat_model.model_dump(),
            "training": training.model_dump(),
            "compute": self.compute.model_dump(),
            "architecture": architecture,
            "method": method.resolved(),
            "seed": seed,
        }

    def data_settings(self) -> dict[str, Any]:
        return {"name": self.dataset.name}

    def teacher_settings(self, name: str) -> dict[str, Any]:
        teacher = self.teachers[name]
        return self._trained(teacher.training, teacher.architecture, teacher.trained_by, teacher.seed)

    def cache_settings(self, kind: str) -> dict[str, Any]:
        return {"kind": kind, "dataset": self._views("train"), "compute": self.compute.model_dump()}

    def student_settings(self, run: Run) -> dict[str, Any]:
        return self._trained(self.training, self.students[run.student], self.methods[run.method], run.seed)

    def attack_settings(self, checkpoints: list[str] | None = None) -> dict[str, Any]:
        evaluation = self.evaluation.model_dump(exclude={"jobs"})
        if checkpoints is not None:
            evaluation["checkpoints"] = checkpoints
        return {
            "dataset": self.data_settings(),
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
            "pairs": self.pairs,
            "methods": list(self.methods),
            "checkpoints": self.evaluation.checkpoints,
            "metrics": ["clean", *self.evaluation.attacks],
        }


def _matches(rule: Exclusion, run: Run) -> bool:
    return all(getattr(run, key) == value for key, value in rule.model_dump(exclude_none=True).items())
