"""An experiment with every default filled in, and the runs that follow from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from robust_distillation import augmentations, data, methods
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
from robust_distillation.digests import digest
from robust_distillation.layout import Layout
from robust_distillation.settings import CROP_FLIP, Compute, ThreatModel, Training

IMPORTED = "imported"  # the checkpoint of a teacher that was not trained here
FIRST_TUNING_SEED = 2**31  # no student has one as large


@dataclass(frozen=True)
class NamedMethod:
    """A method with its settings.

    Its name in paths and tables is its key in `Experiment.methods`; `kind` is the name of its class in the registry.
    """

    kind: str
    settings: methods.Method

    @property
    def teachers(self) -> dict[str, methods.TeacherCalls]:
        """The declared calls to each teacher, by role."""
        return self.settings.teachers()

    @property
    def has_teacher(self) -> bool:
        """True if the method asks a teacher."""
        return bool(self.teachers)

    def resolved(self) -> dict[str, Any]:
        """Returns name and settings as JSON values."""
        return {"name": self.kind, **self.settings.model_dump()}


@dataclass(frozen=True)
class Recipe:
    """The method and the training settings of one architecture; under the official protocol both may depend on it."""

    method: NamedMethod
    training: Training


@dataclass(frozen=True)
class Teacher:
    """A network that students learn from or that transfer attacks are crafted on; trained in the experiment or
    imported.

    Attributes:
        architecture: name and arguments of the architecture.
        recipe: method and training settings; None for an imported teacher.
        imported: source of the published weights; None for a teacher that is trained.
        seed: seed of its training.
        checkpoint: the checkpoint that students learn from: `best`, `last` or `imported`.
        devices: number of devices that share its training.
        batch_norm: `synchronised` over the devices, or `local` to each.
    """

    architecture: dict[str, Any]
    recipe: Recipe | None
    imported: Imported | None
    seed: int
    checkpoint: str
    devices: int = 1
    batch_norm: str = "synchronised"

    @property
    def origin(self) -> str:
        """The value of `method` in its rows of outcomes and tables: the method that trained it, or the source of its
        weights.
        """
        return self.recipe.method.kind if self.recipe else self.imported.model or self.imported.source


@dataclass(frozen=True)
class ViewSet:
    """The views on which trainings train: one table for all trainings, or those of the epochs of one training.

    Attributes:
        kind: name of the augmentation.
        augmentation: the augmentation with its options.
        seed: seed of the training; 0 for a table.
        epochs: number of epochs of the training; 0 for a table.
    """

    kind: str
    augmentation: augmentations.Augmentation
    seed: int = 0
    epochs: int = 0

    @property
    def name(self) -> str:
        """The name in paths; empty for the table of crops and flips, `dataset.padding` of which is the experiment's."""
        if self.kind == CROP_FLIP:
            return ""
        options = self.augmentation.options()
        training = "" if self.augmentation.enumerable else f"-seed-{self.seed}-epochs-{self.epochs}"
        return f"{self.kind}-{digest(options)[:8]}{training}"

    def resolved(self) -> dict[str, Any]:
        """Returns name and options of the augmentation, seed and epochs as JSON values."""
        options = {"name": self.kind, **self.augmentation.options()}
        return {"augmentation": options, "seed": self.seed, "epochs": self.epochs}


class Cache(NamedTuple):
    """A teacher's stored outputs on a set of views.

    Attributes:
        teacher: name of the teacher.
        kind: `logits` or `features`.
        views: the views.
    """

    teacher: str
    kind: str
    views: ViewSet


@dataclass(frozen=True, order=True)
class Run:
    """One training of a student.

    Attributes:
        teacher: name of the teacher or of the entry that gives several teachers roles; `none` for a method without one.
        student: name of the student.
        method: name of the method.
        seed: seed of the training.
    """

    teacher: str
    student: str
    method: str
    seed: int


@dataclass(frozen=True, eq=False)
class Experiment:
    """One experiment file, resolved: every default is filled in, every name exists.

    Two experiments are equal only if they are the same object, so that results can be cached per experiment.

    Attributes:
        file: the parsed experiment file.
        teachers: the teachers by name.
        teacher_groups: name of an entry that gives teachers roles -> role -> name of a teacher.
        students: name of a student -> name and arguments of its architecture.
        recipes: (method, student) -> how the student is trained by the method.
        arguments: the command line options that load this experiment again.
        candidates: candidates of the tuning stage, by method and name; empty without that stage.
    """

    file: ExperimentFile
    teachers: dict[str, Teacher]
    teacher_groups: dict[str, dict[str, str]]
    students: dict[str, dict[str, Any]]
    recipes: dict[tuple[str, str], Recipe]
    arguments: str
    candidates: dict[str, dict[str, Candidate]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The experiment's name, also that of its folder of results."""
        return self.file.name

    @cached_property
    def layout(self) -> Layout:
        """The paths of the experiment's files."""
        return Layout(self.name)

    def teacher_weights(self, name: str) -> Path:
        """Returns the path of the checkpoint of a teacher that students learn from."""
        return self.layout.checkpoint(self.layout.teacher(name), self.teachers[name].checkpoint)

    @property
    def dataset(self) -> DatasetSettings:
        """The settings of the dataset."""
        return self.file.dataset

    @property
    def threat_model(self) -> ThreatModel:
        """Norm and radius of all attacks."""
        return self.file.threat_model

    @property
    def evaluation(self) -> Evaluation:
        """The settings of the attacks on trained networks."""
        return self.file.evaluation

    @property
    def compute(self) -> Compute:
        """The settings of the computation."""
        return self.file.compute

    @property
    def data_options(self) -> DataOptions:
        """The dataset's folder, image size and download options."""
        return self.dataset.options

    @cached_property
    def info(self) -> data.DatasetInfo:
        """Classes, image shape and sizes of the splits of the dataset."""
        return data.info(self.dataset.name, self.data_options)

    @property
    def selects_on_test(self) -> bool:
        """True under the official protocol: as in the papers' codes, the test split chooses `best`."""
        return self.file.protocol == "official"

    def size(self, split: str) -> int:
        """Returns the number of images of a split that the experiment uses."""
        limit = getattr(self.dataset.limit, split)
        if limit is not None:
            return limit
        sizes = self.info.sizes
        if self.selects_on_test:
            return {"train": sizes["train"] + sizes["validation"]}.get(split, sizes["test"])
        return sizes[split]

    @cached_property
    def methods(self) -> dict[str, NamedMethod]:
        """The methods by name, with their settings for the first student; the calls of teachers are those for all."""
        first = next(iter(self.students))
        return {method: recipe.method for (method, student), recipe in self.recipes.items() if student == first}

    def training_of(self, method: str, student: str | None = None) -> Training:
        """Returns the training settings of a method for a student; by default for the first one."""
        return self.recipes[method, student or next(iter(self.students))].training

    @property
    def test_images(self) -> int:
        """The number of test images that are attacked."""
        return self.evaluation.images or self.size("test")

    @property
    def shards(self) -> int:
        """The number of jobs that share the blocks of one model's attacks; at most the number of blocks."""
        return min(self.evaluation.jobs, -(-self.test_images // self.evaluation.block_size))

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Teachers x students x methods x seeds without the exclusions.

        A method without a teacher runs once for each student and seed.
        """
        return tuple(run for run in self._matrix() if not any(_matches(rule, run) for rule in self.file.exclude))

    def _matrix(self) -> Iterator[Run]:
        for method, named in self.methods.items():
            for teacher in self.teachers_for(named):
                for student in self.students:
                    for seed in self.file.seeds:
                        yield Run(teacher, student, method, seed)

    def roles(self, name: str) -> dict[str, str]:
        """Returns the teachers behind the teacher name of a run: role -> name of a teacher.

        A single teacher has the role `teacher`. `none` has no teachers.
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
        """(teacher, student, method) of each choice of the tuning stage; empty without that stage."""
        return tuple(dict.fromkeys((r.teacher, r.student, r.method) for r in self.runs if self.file.tuning))

    def tuning_recipe(self, student: str, method: str, candidate: str) -> Recipe:
        """Returns method and training settings of a candidate's short run in the tuning stage.

        Args:
            student: name of the student.
            method: name of the method.
            candidate: name of the candidate.
        """
        chosen = self.candidates[method][candidate]
        return apply_candidate(self.recipes[method, student], chosen, self.file.tuning.training)

    @property
    def tuning_seed(self) -> int:
        """The seed of the short runs of the tuning stage."""
        return FIRST_TUNING_SEED + self.file.tuning.seed

    @property
    def comparisons(self) -> list[Comparison]:
        """The (teacher, student) pairs whose methods are compared.

        One for each teacher and student with distilled runs. A student without any has one without a teacher.
        """
        distilled = {(run.teacher, run.student) for run in self.runs if run.teacher != NO_TEACHER}
        taught = {student for _, student in distilled}
        alone = {(NO_TEACHER, run.student) for run in self.runs if run.student not in taught}
        order = [
            Comparison(teacher, student)
            for teacher in [*self.teachers, *self.teacher_groups, NO_TEACHER]
            for student in self.students
        ]
        return [comparison for comparison in order if comparison in distilled | alone]

    def view_set(self, training: Training, seed: int) -> ViewSet:
        """Returns the views of a training.

        Args:
            training: the training settings.
            seed: seed of the training.
        """
        kind, augmentation = training.augmentation["name"], augmentations.from_settings(training.augmentation)
        return ViewSet(kind, augmentation, *(() if augmentation.enumerable else (seed, training.epochs)))

    def caches_of(self, teacher: str, method: methods.Method, views: ViewSet) -> tuple[Cache, ...]:
        """Returns the caches that a training reads; none if its augmentation asks the networks live.

        Args:
            teacher: the name under which the teachers stand in runs.
            method: the method, which declares its cached calls by role.
            views: the views of the training.
        """
        if views.augmentation.asks_live:
            return ()
        return tuple(dict.fromkeys(Cache(self.roles(teacher)[role], kind, views) for role, kind in method.cached))

    @cached_property
    def caches(self) -> tuple[Cache, ...]:
        """The caches that some run or candidate reads."""
        found = {
            cache
            for teacher, recipe, _, seed in self.distillations
            for cache in self.caches_of(teacher, recipe.method.settings, self.view_set(recipe.training, seed))
        }
        return tuple(sorted(found, key=lambda cache: (cache.teacher, cache.kind, cache.views.name)))

    @property
    def distillations(self) -> Iterator[tuple[str, Recipe, dict[str, Any], int]]:
        """Teacher, recipe, architecture and seed of each training of a student: of runs, then of candidates."""
        for run in self.runs:
            yield run.teacher, self.recipes[run.method, run.student], self.students[run.student], run.seed
        for teacher, student, method in self.tuned:
            for candidate in self.candidates[method]:
                recipe = self.tuning_recipe(student, method, candidate)
                yield teacher, recipe, self.students[student], self.tuning_seed

    # Settings that each step depends on besides its input files, as JSON values.

    def _view_settings(self, *splits: str) -> dict[str, Any]:
        """Returns the settings that determine the training images and their augmentation."""
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
        """The settings of the computation of networks that are not trained."""
        return self.compute.model_dump(exclude={"compile"})

    def _training_settings(self, recipe: Recipe, architecture: dict, seed: int) -> dict[str, Any]:
        """Returns all settings that a training depends on."""
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
        """Returns the settings that determine the images of the experiment's dataset, or of the dataset of a transfer
        target.
        """
        return _images(self.dataset if target is None else self.file.transfer[target].dataset)

    def teacher_settings(self, name: str) -> dict[str, Any]:
        """Returns the settings that a teacher's training or import depends on."""
        teacher = self.teachers[name]
        if teacher.imported:
            own = teacher.imported.model_dump()
            return {"imported": own, "architecture": teacher.architecture, "dataset": self.data_settings()}
        settings = self._training_settings(teacher.recipe, teacher.architecture, teacher.seed)
        if teacher.devices > 1:
            settings["devices"] = {"count": teacher.devices, "batch_norm": teacher.batch_norm}
        return settings

    def cache_settings(self, kind: str, views: ViewSet) -> dict[str, Any]:
        """Returns the settings that a cache depends on.

        Args:
            kind: `logits` or `features`.
            views: the views.
        """
        settings = {"kind": kind, "dataset": self._view_settings("train"), "compute": self._inference_settings}
        return settings | ({"views": views.resolved()} if views.name else {})

    def student_settings(self, run: Run, recipe: Recipe | None = None) -> dict[str, Any]:
        """Returns the settings that a student's training depends on.

        Args:
            run: the training.
            recipe: method and training settings after the choice of the tuning stage; None: those before it, as in the
                params of the workflow's rule.
        """
        recipe = recipe or self.recipes[run.method, run.student]
        return self._training_settings(recipe, self.students[run.student], run.seed)

    def candidate_settings(self, student: str, method: str, candidate: str) -> dict[str, Any]:
        """Returns the settings that the short run of a candidate depends on.

        Args:
            student: name of the student.
            method: name of the method.
            candidate: name of the candidate.
        """
        recipe = self.tuning_recipe(student, method, candidate)
        return self._training_settings(recipe, self.students[student], self.tuning_seed)

    def choice_settings(self, method: str) -> dict[str, Any]:
        """Returns a method's candidates in the grid's order, which decides between equals."""
        return {"candidates": [candidate.resolved() for candidate in self.candidates[method].values()]}

    def tuning_settings(self) -> dict[str, Any]:
        """Returns the settings that the table of the tuning stage shows above its rows."""
        training = next(iter(self.recipes.values())).training
        return {
            "experiment": self.name,
            "threat": self._threat,
            "images": self.size("validation"),
            "epochs": self.file.tuning.training.get("epochs", training.epochs),
        }

    def attack_settings(self, checkpoints: list[str]) -> dict[str, Any]:
        """Returns the settings that the attacks on one model depend on.

        Args:
            checkpoints: names of the model's checkpoints that are attacked.
        """
        evaluation = {**self.evaluation.model_dump(exclude={"jobs"}), "checkpoints": checkpoints}
        return {
            "dataset": self.data_settings(),
            "threat_model": self.threat_model.model_dump(),
            "compute": self._inference_settings,
            "evaluation": {**evaluation, "images": self.test_images},
        }

    @property
    def surrogate(self) -> str | None:
        """The teacher on which transfer attacks are crafted; None without such attacks."""
        asked = any(name.startswith(ON_SURROGATE) for name in self.evaluation.attacks)
        return self.evaluation.surrogate if asked else None

    @property
    def structure_images(self) -> int:
        """The number of test images of the structure analysis."""
        return self.file.structure.images or self.size("test")

    def structure_settings(self) -> dict[str, Any]:
        """Returns the settings that the structure analysis of a model depends on."""
        return {
            "dataset": self.data_settings(),
            "threat_model": self.threat_model.model_dump(),
            "compute": self._inference_settings,
            "images": self.structure_images,
            "seed": self.evaluation.seed,
        }

    @property
    def robustness_images(self) -> int:
        """The number of test images of the accuracy against eps."""
        return self.file.robustness.images or self.size("test")

    def robustness_settings(self) -> dict[str, Any]:
        """Returns the settings that a model's accuracy against eps depends on."""
        return {
            **self.file.robustness.model_dump(),
            "dataset": self.data_settings(),
            "threat_model": self.threat_model.model_dump(),
            "compute": self._inference_settings,
            "images": self.robustness_images,
            "seed": self.evaluation.seed,
        }

    def target_info(self, target: str) -> data.DatasetInfo:
        """Returns classes, image shape and sizes of the dataset of a transfer target."""
        chosen = self.file.transfer[target].dataset
        return data.info(chosen.name, chosen.options)

    def transfer_settings(self, target: str) -> dict[str, Any]:
        """Returns the settings that the transfer of a model to a target depends on."""
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
        """Returns the settings that tables and figures depend on: headings, and the order of their rows and columns."""
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
    """Returns the settings that determine the images; the folder only if no checksum is known."""
    own = files.name == "image_folder" or not files.verify
    return {"name": files.name, "size": files.size} | ({"folder": files.folder} if own else {})


def _matches(rule: Exclusion, run: Run) -> bool:
    return all(getattr(run, key) in values for key, values in rule.model_dump(exclude_none=True).items())
