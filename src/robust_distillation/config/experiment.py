"""An experiment with every default filled in, and the run matrix that follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from robust_distillation import data, methods
from robust_distillation.columns import NO_TEACHER, ON_SURROGATE
from robust_distillation.comparison import Comparison
from robust_distillation.config.schema import (
    DataFiles,
    DatasetSettings,
    Evaluation,
    Exclusion,
    ExperimentFile,
    Imported,
    Transfer,
)
from robust_distillation.config.tuning import Candidate, apply_candidate
from robust_distillation.data.info import DataOptions
from robust_distillation.layout import Layout
from robust_distillation.settings import Compute, ThreatModel, Training

IMPORTED = "imported"  # the checkpoint of a teacher that was not trained here
FIRST_TUNING_SEED = 2**31  # no student has one as large


@dataclass(frozen=True)
class NamedMethod:
    """A method with its settings, under the name that stands in paths."""

    kind: str
    settings: methods.Method

    @property
    def teachers(self) -> dict[str, methods.TeacherCalls]:
        """How the method asks its teachers, by role."""
        return self.settings.teachers()

    @property
    def has_teacher(self) -> bool:
        return bool(self.teachers)

    def resolved(self) -> dict[str, Any]:
        return {"name": self.kind, **self.settings.model_dump()}


@dataclass(frozen=True)
class Recipe:
    """How one architecture is trained by one method: under the official protocol both may depend on either."""

    method: NamedMethod
    training: Training


@dataclass(frozen=True)
class Teacher:
    """A network that teaches or, as surrogate, is attacked in the students' place: trained here, or imported."""

    architecture: dict[str, Any]
    recipe: Recipe | None
    imported: Imported | None
    seed: int
    checkpoint: str  # that students learn from
    devices: int = 1  # that train it together
    batch_norm: str = "synchronised"  # over them, or `local`

    @property
    def origin(self) -> str:
        """What stands as its method in outcomes and tables: the method that trained it, or the source."""
        return self.recipe.method.kind if self.recipe else self.imported.model or self.imported.source


@dataclass(frozen=True, order=True)
class Run:
    """One student training."""

    teacher: str
    student: str
    method: str
    seed: int


@dataclass(frozen=True, eq=False)  # the same one is, so that what follows from it may be kept
class Experiment:
    """One params file, resolved: every default is filled in, every name exists."""

    file: ExperimentFile
    teachers: dict[str, Teacher]
    teacher_groups: dict[str, dict[str, str]]  # name of an entry with roles -> role -> name of a teacher
    students: dict[str, dict[str, Any]]
    recipes: dict[tuple[str, str], Recipe]  # by method and student
    arguments: str  # the command line options that load this experiment again
    candidates: dict[str, dict[str, Candidate]] = field(default_factory=dict)  # of the tuning stage, by method and name

    @property
    def name(self) -> str:
        return self.file.name

    @cached_property
    def layout(self) -> Layout:
        """Where its files lie."""
        return Layout(self.name)

    def teacher_weights(self, name: str) -> Path:
        """The checkpoint of a teacher that students learn from."""
        return self.layout.checkpoint(self.layout.teacher(name), self.teachers[name].checkpoint)

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
    def data_options(self) -> DataOptions:
        return self.dataset.options

    @cached_property
    def info(self) -> data.DatasetInfo:
        return data.info(self.dataset.name, self.data_options)

    @property
    def selects_on_test(self) -> bool:
        """The official protocol: as in the papers' codes all images train and the test split chooses `best`."""
        return self.file.protocol == "official"

    def size(self, split: str) -> int:
        """How many images of a split the experiment uses."""
        limit = getattr(self.dataset.limit, split)
        if limit is not None:
            return limit
        sizes = self.info.sizes
        if self.selects_on_test:
            return {"train": sizes["train"] + sizes["validation"]}.get(split, sizes["test"])
        return sizes[split]

    @cached_property
    def methods(self) -> dict[str, NamedMethod]:
        """By name, as the first student is trained: what a method needs does not depend on the student."""
        first = next(iter(self.students))
        return {method: recipe.method for (method, student), recipe in self.recipes.items() if student == first}

    def training_of(self, method: str, student: str | None = None) -> Training:
        return self.recipes[method, student or next(iter(self.students))].training

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
            for teacher in self.teachers_for(named):
                for student in self.students:
                    for seed in self.file.seeds:
                        yield Run(teacher, student, method, seed)

    def roles(self, name: str) -> dict[str, str]:
        """Returns the teachers behind a name as it stands in runs and paths: role -> name of a teacher.

        A teacher that stands alone has the role `teacher`. `none` has no teachers.
        """
        if name == NO_TEACHER:
            return {}
        return self.teacher_groups.get(name) or {methods.TEACHER: name}

    def teachers_for(self, method: NamedMethod) -> tuple[str, ...]:
        """Returns the names under which a method is trained: teachers and groups that fill its roles, or `none`."""
        if not method.has_teacher:
            return (NO_TEACHER,)
        return tuple(
            name for name in (*self.teachers, *self.teacher_groups) if {*method.teachers} <= {*self.roles(name)}
        )

    @cached_property
    def tuned(self) -> tuple[tuple[str, str, str], ...]:
        """(teacher, student, method) of each choice of the tuning stage; none where there is no such stage."""
        return tuple(dict.fromkeys((r.teacher, r.student, r.method) for r in self.runs if self.file.tuning))

    def tuning_recipe(self, student: str, method: str, candidate: str) -> Recipe:
        """How a candidate of the tuning stage is trained."""
        chosen = self.candidates[method][candidate]
        return apply_candidate(self.recipes[method, student], chosen, self.file.tuning.training)

    @property
    def comparisons(self) -> list[Comparison]:
        """One per teacher and student with distilled runs; a student without any has one with no teacher."""
        distilled = {(run.teacher, run.student) for run in self.runs if run.teacher != NO_TEACHER}
        taught = {student for _, student in distilled}
        alone = {(NO_TEACHER, run.student) for run in self.runs if run.student not in taught}
        order = [
            Comparison(teacher, student)
            for teacher in [*self.teachers, *self.teacher_groups, NO_TEACHER]
            for student in self.students
        ]
        return [comparison for comparison in order if comparison in distilled | alone]

    @property
    def caches(self) -> tuple[tuple[str, str], ...]:
        """(teacher, kind) of each cache that some run reads."""
        return tuple(
            sorted(
                {
                    (self.roles(run.teacher)[role], kind)
                    for run in self.runs
                    for role, kind in self.methods[run.method].settings.cached
                }
            )
        )

    # What each step depends on besides its input files, as JSON values: a rule's params, a record's settings.

    def _view_settings(self, *splits: str) -> dict[str, Any]:
        """Which training images are used, and how they are augmented."""
        limit = {split: getattr(self.dataset.limit, split) for split in splits}
        return {
            **_images(self.dataset),
            "padding": self.dataset.padding,
            "flips": self.info.flips,
            "limit": limit,
            "selects_on_test": self.selects_on_test,
        }

    @property
    def _inference_settings(self) -> dict[str, Any]:
        """How a network computes that is not trained."""
        return self.compute.model_dump(exclude={"compile"})

    def _training_settings(self, recipe: Recipe, architecture: dict, seed: int) -> dict[str, Any]:
        return {
            "protocol": self.file.protocol,
            "dataset": self._view_settings("train", "validation"),
            "threat_model": self.threat_model.model_dump(),
            "training": recipe.training.model_dump(),
            "compute": self.compute.model_dump(),
            "architecture": architecture,
            "method": recipe.method.resolved(),
            "seed": seed,
        }

    def data_settings(self, target: str | None = None) -> dict[str, Any]:
        """Of the experiment's dataset, or of a transfer's."""
        return _images(self.dataset if target is None else self.file.transfer[target].dataset)

    def teacher_settings(self, name: str) -> dict[str, Any]:
        teacher = self.teachers[name]
        if teacher.imported:
            own = teacher.imported.model_dump()
            return {"imported": own, "architecture": teacher.architecture, "dataset": self.data_settings()}
        settings = self._training_settings(teacher.recipe, teacher.architecture, teacher.seed)
        if teacher.devices > 1:
            settings["devices"] = {"count": teacher.devices, "batch_norm": teacher.batch_norm}
        return settings

    def cache_settings(self, kind: str) -> dict[str, Any]:
        return {"kind": kind, "dataset": self._view_settings("train"), "compute": self._inference_settings}

    def student_settings(self, run: Run, recipe: Recipe | None = None) -> dict[str, Any]:
        """recipe: with what the tuning stage chose, where there is one; a rule's params are without."""
        recipe = recipe or self.recipes[run.method, run.student]
        return self._training_settings(recipe, self.students[run.student], run.seed)

    def candidate_settings(self, student: str, method: str, candidate: str) -> dict[str, Any]:
        seed = FIRST_TUNING_SEED + self.file.tuning.seed
        return self._training_settings(self.tuning_recipe(student, method, candidate), self.students[student], seed)

    def choice_settings(self, method: str) -> dict[str, Any]:
        """In the grid's order, which decides ties."""
        return {"candidates": [candidate.resolved() for candidate in self.candidates[method].values()]}

    def tuning_settings(self) -> dict[str, Any]:
        """What the table of the tuning stage needs to know to head it."""
        training = next(iter(self.recipes.values())).training
        return {
            "experiment": self.name,
            "threat": self._threat,
            "images": self.size("validation"),
            "epochs": self.file.tuning.training.get("epochs", training.epochs),
        }

    def attack_settings(self, checkpoints: list[str]) -> dict[str, Any]:
        """checkpoints: those of the model that is attacked; a teacher has others than the students."""
        evaluation = {**self.evaluation.model_dump(exclude={"jobs"}), "checkpoints": checkpoints}
        return {
            "dataset": self.data_settings(),
            "threat_model": self.threat_model.model_dump(),
            "compute": self._inference_settings,
            "evaluation": {**evaluation, "images": self.test_images},
        }

    @property
    def surrogate(self) -> str | None:
        """The teacher that transfer attacks are crafted on; None where no attack asks for one."""
        asked = any(name.startswith(ON_SURROGATE) for name in self.evaluation.attacks)
        return self.evaluation.surrogate if asked else None

    @property
    def structure_images(self) -> int:
        return self.file.structure.images or self.size("test")

    def structure_settings(self) -> dict[str, Any]:
        return {
            "dataset": self.data_settings(),
            "threat_model": self.threat_model.model_dump(),
            "compute": self._inference_settings,
            "images": self.structure_images,
            "seed": self.evaluation.seed,
        }

    @property
    def robustness_images(self) -> int:
        return self.file.robustness.images or self.size("test")

    def robustness_settings(self) -> dict[str, Any]:
        return {
            **self.file.robustness.model_dump(),
            "dataset": self.data_settings(),
            "threat_model": self.threat_model.model_dump(),
            "compute": self._inference_settings,
            "images": self.robustness_images,
            "seed": self.evaluation.seed,
        }

    def target_info(self, target: str) -> data.DatasetInfo:
        chosen = self.file.transfer[target].dataset
        return data.info(chosen.name, chosen.options)

    def transfer_settings(self, target: str) -> dict[str, Any]:
        chosen: Transfer = self.file.transfer[target]
        return {
            **chosen.model_dump(exclude={"dataset"}),
            "dataset": _images(chosen.dataset),
            "images": chosen.images or self.target_info(target).sizes["test"],
            "threat_model": self.threat_model.model_dump(),
            "compute": self._inference_settings,
            "block_size": self.evaluation.block_size,
            "seed": self.evaluation.seed,
        }

    @property
    def _threat(self) -> str:
        return f"{self.threat_model.norm} eps {self.threat_model.eps:.4g}"

    def matrix(self) -> dict[str, Any]:
        """What a table needs to know to head it and to order its rows."""
        return {
            "experiment": self.name,
            "protocol": self.file.protocol,
            "threat": self._threat,
            "search": self.evaluation.search,
            "comparisons": self.comparisons,
            "methods": list(self.methods),
            "checkpoints": self.evaluation.checkpoints,
            "metrics": ["clean", *self.evaluation.attacks],
            "selection": "chosen on the test split, as in the papers' codes"
            if self.selects_on_test
            else "chosen on the validation split",
            "published": self.file.published,
            "published_as": self.file.published_as,
            "tables": {name: table.model_dump() for name, table in self.file.tables.items()},
        }


def _images(files: DataFiles) -> dict[str, Any]:
    """What decides which images these are. Where files lie and come from does not, but of files of one's own."""
    own = files.name == "image_folder" or not files.verify
    return {"name": files.name, "size": files.size} | ({"folder": files.folder} if own else {})


def _matches(rule: Exclusion, run: Run) -> bool:
    return all(getattr(run, key) in values for key, values in rule.model_dump(exclude_none=True).items())
