"""Declares every step of an experiment, in the order in which data goes through them.

A new table or analysis is a class here, the module that it names, and the page that shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from robust_distillation.columns import ON_SURROGATE
from robust_distillation.errors import UserError
from robust_distillation.pipeline.models import Model, model_in, student_folder
from robust_distillation.pipeline.models import models as models_of
from robust_distillation.pipeline.step import TABLES, Argument, Step

if TYPE_CHECKING:
    from robust_distillation.config import Cache, Experiment, Recipe, Run, Teacher, ViewSet
    from robust_distillation.config.schema import DataFiles

ONE = "[^/]+"
TEACHER, STUDENT, METHOD = {"teacher": ONE}, {"student": ONE}, {"method": ONE}
TRAINED = {"trained": f"(teachers/{ONE}|students/{ONE}/{ONE}/{ONE}/seed-[0-9]+)"}  # the folder of a model
MODEL = Argument("MODEL", "teacher or run of experiment")
SHARD = re.compile("([0-9]+)-of-([0-9]+)")
TARGET = Argument("TARGET", "transfer of experiment")


# Data


class PrepareData(Step):
    """Fetch the dataset if it is missing, and write down its splits with their hashes."""

    name = "prepare-data"
    run = "robust_distillation.stages.prepare_data:run"
    check = "robust_distillation.audit.verify_files:check_images"
    local = True

    def makes(self) -> Iterable[Path]:
        """Yields the description of the dataset."""
        return (self.layout.data,)

    @property
    def files(self) -> DataFiles:
        """The dataset's name and the options of its files."""
        return self.experiment.dataset

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the images."""
        return self.experiment.data_settings()

    @property
    def named(self) -> Iterable[str]:
        """The module of the dataset."""
        return (_dataset(self.files.name),)


class PrepareTarget(PrepareData):
    """Fetch the dataset of the transfer to TARGET if it is missing, and write down its splits with their hashes."""

    name = "prepare-target"
    title = "prepare-data"
    example = "prepare-target parity"
    wildcards: ClassVar = {"target": ONE}
    arguments = (TARGET,)

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each transfer target."""
        return (cls(experiment, target=target) for target in experiment.file.transfer)

    def makes(self) -> Iterable[Path]:
        """Yields the description of the target's dataset."""
        return (self.layout.target_data(self.values["target"]),)

    @property
    def files(self) -> DataFiles:
        """The name of the target's dataset and the options of its files."""
        return self.experiment.file.transfer[self.values["target"]].dataset

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the target's images."""
        return self.experiment.data_settings(self.values["target"])


# Teachers and what they say


class _OfTeacher(Step):
    """A step that makes a teacher's weights."""

    wildcards: ClassVar = TEACHER
    arguments = (Argument("TEACHER", "teacher of experiment"),)
    priority = 100  # everything that is distilled waits for it
    cost = "robust_distillation.planning.jobs:teacher_cost"
    check = "robust_distillation.audit.verify_files:check_weights"

    @property
    def folder(self) -> Path:
        return self.layout.teacher(self.values["teacher"])

    @classmethod
    def constraints(cls, experiment: Experiment) -> dict[str, str]:
        """Returns the names of the teachers of this step only: training and import write the same record."""
        return {"teacher": "|".join(re.escape(step.values["teacher"]) for step in cls.jobs(experiment))}

    @property
    def teacher(self) -> Teacher:
        return self.experiment.teachers[self.values["teacher"]]

    def reads(self) -> Iterable[Path]:
        return (self.layout.data,)

    @property
    def record(self) -> Path:
        return self.layout.training_record(self.folder)

    @property
    def settings(self) -> dict[str, Any]:
        return self.experiment.teacher_settings(self.values["teacher"])


class TrainTeacher(_OfTeacher):
    """Train a teacher of the experiment."""

    name = "train-teacher"
    example = "train-teacher wide"
    run = "robust_distillation.stages.train:train_teacher"
    computes = resumable = True

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each teacher that is trained."""
        return (cls(experiment, teacher=name) for name, one in experiment.teachers.items() if not one.imported)

    @classmethod
    def refusal(cls, experiment: Experiment, text: str) -> str | None:
        """Returns the command for a teacher that is imported instead."""
        imported = text in experiment.teachers
        return f"teacher {text}: is imported, not trained: robust-distillation import-teacher {text}" * imported

    def makes(self) -> Iterable[Path]:
        """Yields the checkpoints and the training curves."""
        return self.layout.training(self.folder)

    @property
    def artefact(self) -> Path:
        """The folder of the training."""
        return self.folder

    @property
    def named(self) -> Iterable[str]:
        """The modules of dataset, augmentation, architecture and method."""
        return _training(self.experiment, self.teacher.architecture, self.teacher.recipe)

    @property
    def devices(self) -> int:
        """The number of devices that share the training."""
        return self.teacher.devices


class ImportTeacher(_OfTeacher):
    """Import the published weights of a teacher: fetched if their source has a URL, and checked."""

    name = "import-teacher"
    example = "import-teacher wrn-34-10 --experiment experiments/rslad_cifar10.yaml"
    run = "robust_distillation.stages.import_teacher:run"
    local = True

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each imported teacher."""
        return (cls(experiment, teacher=name) for name, one in experiment.teachers.items() if one.imported)

    @classmethod
    def refusal(cls, experiment: Experiment, text: str) -> str | None:
        """Returns the command for a teacher that is trained instead."""
        trained = text in experiment.teachers
        return f"teacher {text}: is trained, not imported: robust-distillation train-teacher {text}" * trained

    def makes(self) -> Iterable[Path]:
        """Yields the imported checkpoint."""
        return (self.layout.checkpoint(self.folder, "imported"),)

    @property
    def named(self) -> Iterable[str]:
        """The modules of dataset and architecture."""
        return _dataset(self.experiment.dataset.name), _architecture(self.teacher.architecture)


class FillCache(Step):
    """Store a teacher's logits or features for every crop and flip of every training image."""

    name = "fill-cache"
    example = "fill-cache wide logits"
    run = "robust_distillation.stages.fill_cache:run"
    wildcards: ClassVar = TEACHER | {"kind": "logits|features"}
    arguments = (Argument("TEACHER", "teacher of experiment"), Argument("KIND", "cache of experiment"))
    cost = "robust_distillation.planning.jobs:cache_cost"
    priority = 90
    computes = resumable = rebuildable = True

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each table of crops and flips that some training reads."""
        for teacher, kind, views in experiment.caches:
            if not views.name:
                yield cls(experiment, teacher=teacher, kind=kind)

    @property
    def cache(self) -> Cache:
        """The cache that the job fills."""
        named = self.values["teacher"], self.values["kind"], self.values.get("views", "")
        return next(one for one in self.experiment.caches if (one.teacher, one.kind, one.views.name) == named)

    def reads(self) -> Iterable[Path]:
        """Yields the data and the teacher's weights."""
        return self.layout.data, self.experiment.teacher_weights(self.values["teacher"])

    def makes(self) -> Iterable[Path]:
        """Yields the cached values and their description."""
        return self.layout.cache_files(**self.values)

    @property
    def record(self) -> Path:
        """The record beside the cache."""
        return self.layout.cache_record(**self.values)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of views, kind of output and inference."""
        return self.experiment.cache_settings(self.values["kind"], self.cache.views)

    @property
    def named(self) -> Iterable[str]:
        """The modules of dataset, augmentation and architecture."""
        architecture = self.experiment.teachers[self.values["teacher"]].architecture
        augmentation = _augmentation(self.cache.views.kind)
        return _dataset(self.experiment.dataset.name), augmentation, _architecture(architecture)


class FillRecords(FillCache):
    """Store a teacher's logits or features for the views of all epochs of one training. VIEWS are an augmentation that
    draws other views in every epoch, with its seed and epochs.
    """

    name = title = "fill-records"
    example = "fill-records wide idbh-0a1b2c3d-seed-0-epochs-200 logits"
    wildcards: ClassVar = TEACHER | {"views": ONE, "kind": "logits|features"}
    arguments = (FillCache.arguments[0], Argument("VIEWS", "views of experiment"), FillCache.arguments[1])
    not_asked = "has no augmentation whose views are drawn in every epoch, or asks the teachers live"

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each set of views, teacher and kind that some training reads."""
        for teacher, kind, views in experiment.caches:
            if views.name:
                yield cls(experiment, teacher=teacher, views=views.name, kind=kind)


# Students, and the settings that are tuned for them


class _Training(Step):
    """A training by a method: of a student, or of a candidate of the tuning stage."""

    computes = resumable = True

    @property
    def method(self) -> Any:
        return self.experiment.methods[self.values["method"]]

    @property
    def architecture(self) -> dict[str, Any]:
        return self.experiment.students[self.values["student"]]

    def reads(self) -> Iterable[Path]:
        """Yields the data, and the weights and cached outputs of the method's teachers."""
        yield self.layout.data
        yield from dict.fromkeys(self.experiment.teacher_weights(self.roles[role]) for role in self.method.teachers)
        for teacher, kind, views in self.caches:
            yield from self.layout.cache_files(teacher, kind, views.name)

    @property
    def roles(self) -> dict[str, str]:
        """Returns the teachers by role."""
        return self.experiment.roles(self.values["teacher"])

    @property
    def caches(self) -> tuple[Cache, ...]:
        """Returns the caches that the training reads."""
        return self.experiment.caches_of(self.values["teacher"], self.method.settings, self.views)

    @property
    def views(self) -> ViewSet:
        """The views of the training."""
        return self.experiment.view_set(self.recipe.training, self.training_seed)

    @property
    def named(self) -> Iterable[str]:
        yield from _training(self.experiment, self.architecture, self.recipe)
        for role, calls in self.method.teachers.items():
            if calls.loads_network or (calls.cached and self.views.augmentation.asks_live):
                yield _architecture(self.experiment.teachers[self.roles[role]].architecture)
        yield from map(_architecture, self.method.settings.networks(self.architecture).values())

    @property
    def artefact(self) -> Path:
        return self.folder

    @property
    def record(self) -> Path:
        return self.layout.training_record(self.folder)

    def input_hashes(self) -> dict[Path, str]:
        """Returns the sha256 of each input; that of a cache was written when it was filled."""
        from robust_distillation.cache.store import sha256_of
        from robust_distillation.files import sha256

        caches = [self.layout.cache(teacher, kind, views.name) for teacher, kind, views in self.caches]
        return {file: sha256_of(file) if file in caches else sha256(file) for file in self.inputs}


class Tune(_Training):
    """Train one candidate of a method's grid for a few epochs. MODEL is TEACHER/STUDENT/METHOD."""

    name = "tune"
    example = "tune wide/small/rslad learning_rate=0.1"
    run = "robust_distillation.stages.train:train_candidate"
    cost = "robust_distillation.planning.jobs:candidate_cost"
    wildcards: ClassVar = TEACHER | STUDENT | METHOD | {"candidate": ONE}
    arguments = (Argument("MODEL", "tuned method of experiment"), Argument("CANDIDATE", "candidate of"))
    not_asked = "has no tuning stage: give its file the key `tuning`"
    priority = 50  # a method's students wait for all of them

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each candidate of each tuned method."""
        for teacher, student, method in experiment.tuned:
            for candidate in experiment.candidates[method]:
                yield cls(experiment, teacher=teacher, student=student, method=method, candidate=candidate)

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments TEACHER/STUDENT/METHOD and the candidate's name."""
        return _model_name(self), self.values["candidate"]

    @property
    def folder(self) -> Path:
        """The folder of the candidate's training."""
        return self.layout.candidate(*_model_values(self), self.values["candidate"])

    def makes(self) -> Iterable[Path]:
        """Yields the training curves."""
        return (self.layout.curves(self.folder),)

    @property
    def recipe(self) -> Recipe:
        """The method and training settings of the candidate's short run."""
        return self.experiment.tuning_recipe(self.values["student"], self.values["method"], self.values["candidate"])

    @property
    def training_seed(self) -> int:
        """The seed of all candidates."""
        return self.experiment.tuning_seed

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the candidate's training depends on."""
        values = self.values
        return self.experiment.candidate_settings(values["student"], values["method"], values["candidate"])


class Choose(Step):
    """Choose between a method's candidates. MODEL is TEACHER/STUDENT/METHOD.

    The highest accuracy on the validation split under APGD-CE decides, then the clean one, then the grid's order.
    """

    name = "choose"
    example = "choose wide/small/rslad"
    run = "robust_distillation.stages.choose:run"
    check = "robust_distillation.audit.verify_files:check_choice"
    wildcards: ClassVar = TEACHER | STUDENT | METHOD
    arguments = (Argument("MODEL", "tuned method of experiment"),)
    not_asked = Tune.not_asked
    priority = 50

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each tuned method, with its teacher and student."""
        for teacher, student, method in experiment.tuned:
            yield cls(experiment, teacher=teacher, student=student, method=method)

    @property
    def words(self) -> tuple[str, ...]:
        """The argument TEACHER/STUDENT/METHOD."""
        return (_model_name(self),)

    def reads(self) -> Iterable[Path]:
        """Yields the training curves of all candidates."""
        for candidate in self.experiment.candidates[self.values["method"]]:
            yield self.layout.curves(self.layout.candidate(*_model_values(self), candidate))

    def makes(self) -> Iterable[Path]:
        """Yields the choice and the scores of all candidates."""
        return self.layout.choice(*_model_values(self)), self.layout.compared(*_model_values(self))

    @property
    def settings(self) -> dict[str, Any]:
        """The candidates in the grid's order."""
        return self.experiment.choice_settings(self.values["method"])


class TrainStudent(_Training):
    """Train one student. RUN is TEACHER/STUDENT/METHOD/seed-N; TEACHER is none for a method that needs none."""

    name = "train-student"
    example = "train-student wide/small/rslad/seed-0"
    run = "robust_distillation.stages.train:train_student"
    cost = "robust_distillation.planning.jobs:student_cost"
    check = "robust_distillation.audit.verify_files:check_weights"
    wildcards: ClassVar = TEACHER | STUDENT | METHOD | {"seed": r"\d+"}
    arguments = (Argument("RUN", "run of experiment"),)

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each run."""
        return (cls.of(experiment, run) for run in experiment.runs)

    @classmethod
    def of(cls, experiment: Experiment, run: Run) -> Self:
        """Returns the training of `run`."""
        return cls(experiment, teacher=run.teacher, student=run.student, method=run.method, seed=str(run.seed))

    @property
    def words(self) -> tuple[str, ...]:
        """The argument TEACHER/STUDENT/METHOD/seed-N."""
        return (f"{_model_name(self)}/seed-{self.values['seed']}",)

    @property
    def log(self) -> Path:
        """The log file, named after the run."""
        return self.layout.log(self.name, self.words)

    @property
    def training_run(self) -> Run:
        """The run of the experiment."""
        from robust_distillation.config import Run

        return Run(*_model_values(self), int(self.values["seed"]))

    @property
    def training_seed(self) -> int:
        """The seed of the run."""
        return int(self.values["seed"])

    @property
    def folder(self) -> Path:
        """The folder of the training."""
        return self.layout.student(*_model_values(self), self.values["seed"])

    @property
    def choice(self) -> Path | None:
        """The file with the settings that the tuning stage chose; None without that stage."""
        return self.layout.choice(*_model_values(self)) if self.experiment.file.tuning else None

    def reads(self) -> Iterable[Path]:
        """Yields the inputs of the training, and the choice of the tuning stage."""
        yield from super().reads()
        if self.choice:
            yield self.choice

    def makes(self) -> Iterable[Path]:
        """Yields the checkpoints and the training curves."""
        return self.layout.training(self.folder)

    @property
    def recipe(self) -> Recipe:
        """The method and training settings before the choice of the tuning stage."""
        return self.experiment.recipes[self.values["method"], self.values["student"]]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings before the choice of the tuning stage; the record has those after it."""
        return self.experiment.student_settings(self.training_run)


# Attacks and analyses of each model


class OfModel(Step):
    """A step that evaluates one trained network."""

    wildcards: ClassVar = TRAINED
    arguments = (MODEL,)
    computes = grouped = True

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields the step's jobs for all models."""
        return (one for model in models_of(experiment) for one in cls.of(experiment, model))

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields the step's jobs for one model."""
        yield cls(experiment, trained=model.folder.relative_to(experiment.layout.root).as_posix())

    @property
    def folder(self) -> Path:
        """The folder of the model."""
        return self.layout.root / self.values["trained"]

    @cached_property
    def model(self) -> Model:
        """The trained network."""
        return model_in(self.experiment, self.experiment.layout.root / self.values["trained"])

    @property
    def words(self) -> tuple[str, ...]:
        """The model's name."""
        return (self.model.name,)

    def reads(self) -> Iterable[Path]:
        """Yields the data and the model's headline checkpoint."""
        return self.layout.data, self.model.headline[1]

    @property
    def named(self) -> Iterable[str]:
        """The modules of dataset and architecture."""
        return _dataset(self.experiment.dataset.name), _architecture(self.model.architecture)


class Attack(OfModel):
    """Attack the checkpoints of a student (TEACHER/STUDENT/METHOD/seed-N) or of a teacher (its name)."""

    name = "attack"
    example = "attack wide/small/rslad/seed-0"
    run = "robust_distillation.stages.attack:run"
    cost = "robust_distillation.planning.jobs:attack_cost"
    check = "robust_distillation.audit.verify_files:check_outcomes"
    options: ClassVar = {"shard": "I-of-N: only this share of the blocks."}
    resumable = True

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields one job, or one for each shard of the blocks."""
        [one] = super().of(experiment, model)
        if experiment.shards == 1:
            yield one
        else:
            for shard in _shards(experiment):
                yield cls(experiment, **one.values, shard=shard)

    @classmethod
    def constraints(cls, experiment: Experiment) -> dict[str, str]:
        """Returns the regular expressions of the wildcards, with that of the shard if there are several."""
        return cls.wildcards | ({"shard": SHARD.pattern} if experiment.shards > 1 else {})

    @classmethod
    def check_option(cls, name: str, value: str) -> None:
        """Raises UserError for a shard that is not I-of-N."""
        found = SHARD.fullmatch(value)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--shard {value!r}: give it as I-of-N with I from 1 to N, e.g. 2-of-3")

    @classmethod
    def pattern(cls, experiment: Experiment) -> Self:
        """Returns the step with wildcards, with that of the shard if there are several."""
        one = super().pattern(experiment)
        if experiment.shards > 1:
            one.values["shard"] = "{shard}"
        return one

    def reads(self) -> Iterable[Path]:
        """Yields the data, all evaluated checkpoints of the model, and the weights of the surrogate."""
        yield self.layout.data
        yield from self.model.checkpoints.values()
        if self.experiment.surrogate:
            yield self.experiment.teacher_weights(self.experiment.surrogate)

    def makes(self) -> Iterable[Path]:
        """Yields the outcomes, or those of the shard."""
        if "shard" in self.values:
            return (self.layout.shard(self.folder, self.values["shard"]),)
        return (self.layout.outcomes(self.folder),)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the attacks, and the model's keys."""
        return self.experiment.attack_settings(list(self.model.checkpoints)) | {"model": self.model.keys}

    @property
    def named(self) -> Iterable[str]:
        """The modules of attacks, dataset, architecture and the surrogate's architecture."""
        yield from _attacks(self.experiment.evaluation.attacks)
        yield from super().named
        if self.experiment.surrogate:
            yield _architecture(self.experiment.teachers[self.experiment.surrogate].architecture)


class MergeOutcomes(OfModel):
    """Merge the outcomes of a model's shards."""

    name = "merge-outcomes"
    example = "merge-outcomes wide/small/rslad/seed-0"
    title = "attack"
    run = "robust_distillation.stages.merge_outcomes:run"
    check = "robust_distillation.audit.verify_files:check_outcomes"
    not_asked = "attacks each model in one job: give evaluation.jobs more than 1"
    computes = grouped = False

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields one job if the attacks are split into shards."""
        if experiment.shards > 1:
            yield from super().of(experiment, model)

    def reads(self) -> Iterable[Path]:
        """Yields the outcomes of all shards."""
        return (self.layout.shard(self.folder, shard) for shard in _shards(self.experiment))

    def makes(self) -> Iterable[Path]:
        """Yields the outcomes of the model."""
        return (self.layout.outcomes(self.folder),)

    @property
    def settings(self) -> dict[str, Any]:
        """The number of shards."""
        return {"shards": self.experiment.shards}

    @property
    def named(self) -> Iterable[str]:
        """No module: nothing is computed on images."""
        return ()


class Structure(OfModel):
    """Measure how a model's logits relate the classes, and how far an attack moves its features."""

    name = "structure"
    example = "structure wide/small/rslad/seed-0"
    run = "robust_distillation.stages.structure:run"
    cost = "robust_distillation.planning.jobs:structure_cost"
    not_asked = "does not ask for this: add `structure: {}` to its file"

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields one job if the experiment has the structure analysis."""
        if experiment.file.structure:
            yield from super().of(experiment, model)

    def makes(self) -> Iterable[Path]:
        """Yields the class structure."""
        return (self.layout.structure(self.folder),)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the analysis, and the model's keys."""
        return self.experiment.structure_settings() | {"model": self.model.keys}


class Robustness(OfModel):
    """Measure a model's accuracy under attacks of growing eps, and keep some attacked images."""

    name = "robustness"
    example = "robustness wide/small/rslad/seed-0"
    run = "robust_distillation.stages.robustness:run"
    cost = "robust_distillation.planning.jobs:robustness_cost"
    not_asked = "does not ask for this: add `robustness: {eps: [...]}` to its file"

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields one job if the experiment measures accuracy against eps."""
        if experiment.file.robustness:
            yield from super().of(experiment, model)

    def makes(self) -> Iterable[Path]:
        """Yields the curve and the gallery of attacked images."""
        return self.layout.robustness(self.folder), self.layout.gallery(self.folder)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the curve, and the model's keys."""
        return self.experiment.robustness_settings() | {"model": self.model.keys}


class Transfer(OfModel):
    """Train a linear head for another task on a model's frozen backbone, and attack both end to end."""

    name = "transfer"
    example = "transfer parity wide/small/rslad/seed-0"
    run = "robust_distillation.stages.transfer:run"
    cost = "robust_distillation.planning.jobs:transfer_cost"
    wildcards: ClassVar = {"target": ONE} | TRAINED
    arguments = (TARGET, MODEL)
    resumable = True

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields one job for each transfer target."""
        [one] = super().of(experiment, model)
        return (cls(experiment, target=target, **one.values) for target in experiment.file.transfer)

    @property
    def words(self) -> tuple[str, ...]:
        """The target and the model's name."""
        return self.values["target"], self.model.name

    def reads(self) -> Iterable[Path]:
        """Yields the description of the target's data and the model's headline checkpoint."""
        return self.layout.target_data(self.values["target"]), self.model.headline[1]

    def makes(self) -> Iterable[Path]:
        """Yields the outcomes on the target and the weights with the new head."""
        target = self.values["target"]
        return self.layout.transferred(target, self.folder), self.layout.transferred_weights(target, self.folder)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the transfer, and the model's keys."""
        return self.experiment.transfer_settings(self.values["target"]) | {"model": self.model.keys}

    @property
    def named(self) -> Iterable[str]:
        """The modules of the target's dataset, the architecture and the attacks."""
        chosen = self.experiment.file.transfer[self.values["target"]]
        yield _dataset(chosen.dataset.name)
        yield _architecture(self.model.architecture)
        yield from _attacks(chosen.attacks)


# Tables and figures


class _Table(Step):
    """A step that computes nothing on images."""

    title = TABLES

    @property
    def settings(self) -> dict[str, Any]:
        return self.experiment.matrix()


class Tabulate(_Table):
    """Make the comparison tables (CSV, Markdown, LaTeX) and the headline metrics from the outcomes."""

    name = "tabulate"
    run = remake = "robust_distillation.reporting.stages.tabulate:run"

    def reads(self) -> Iterable[Path]:
        """Yields the outcomes of all models."""
        return outcomes(self.experiment)

    def makes(self) -> Iterable[Path]:
        """Yields the tables and the headline metrics of each teacher and method."""
        experiment, layout = self.experiment, self.layout
        for name in ("main", *experiment.file.tables):
            yield from layout.table(name)
        yield from (layout.headline(name) for name in experiment.teachers)
        yield from sorted({layout.headline(run.teacher, run.student, run.method) for run in experiment.runs})


class DrawFigures(_Table):
    """Draw accuracies, attacks and methods compared, training curves, and robustness by class and against eps."""

    name = "draw-figures"
    run = "robust_distillation.reporting.stages.draw_figures:run"

    def reads(self) -> Iterable[Path]:
        """Yields outcomes, training curves and accuracy against eps of all models."""
        yield from outcomes(self.experiment)
        yield from (self.layout.curves(student_folder(self.experiment, run)) for run in self.experiment.runs)
        yield from (step.outputs[0] for step in Robustness.jobs(self.experiment))

    def makes(self) -> Iterable[Path]:
        """Yields the pictures of each comparison."""
        names = ["overview", "attacks", "differences", "training", "trade-off", "per-class"]
        names += ["robustness"] if self.experiment.file.robustness else []
        return self.layout.pictures(self.experiment.comparisons, *names)

    @property
    def record(self) -> Path:
        """The record in the folder of the figures."""
        return self.layout.record(self.layout.figures / "figures.png")


class Compare(_Table):
    """Compare every two methods on the same images and seeds, and judge the experiment's claims."""

    name = "compare"
    run = remake = "robust_distillation.reporting.stages.compare:run"

    def reads(self) -> Iterable[Path]:
        """Yields the files that comparisons and claims depend on."""
        return (file for files in self.evidence.values() for file in files)

    @cached_property
    def evidence(self) -> dict[str, list[Path]]:
        """The files that comparisons and claims depend on, by analysis: "" for the experiment's test images."""
        from robust_distillation.config import claims_of

        layout, folders = self.experiment.layout, [model.folder for model in models_of(self.experiment)]
        files = {"": outcomes(self.experiment)}
        for analysis in dict.fromkeys(claim.statement.analysis for claim in claims_of(self.experiment)):
            if analysis == "structure":
                files[analysis] = [layout.structure(folder) for folder in folders]
            elif analysis:
                target = analysis.removeprefix("transfer-")
                files[analysis] = [layout.transferred(target, folder) for folder in folders]
        return files

    def makes(self) -> Iterable[Path]:
        """Yields the tables of comparisons and claims."""
        return *self.layout.table("comparisons"), *self.layout.table("claims")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of tables and claims."""
        from robust_distillation.config import comparison_settings

        return comparison_settings(self.experiment)


class ReportStructure(_Table):
    """Make the table and the figures of how the models relate the classes."""

    name = "report-structure"
    run = "robust_distillation.reporting.stages.report_structure:run"
    remake = "robust_distillation.reporting.stages.report_structure:make_tables"
    not_asked = Structure.not_asked

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job if the experiment has the structure analysis."""
        if experiment.file.structure:
            yield cls(experiment)

    def reads(self) -> Iterable[Path]:
        """Yields the class structure of all models."""
        return (self.experiment.layout.structure(model.folder) for model in models_of(self.experiment))

    def makes(self) -> Iterable[Path]:
        """Yields the table and the pictures of each comparison."""
        pictures = self.layout.pictures(self.experiment.comparisons, "correlations", "feature-distances")
        return *self.layout.table("structure"), *pictures


class ReportTransfer(_Table):
    """Make the table and the figures of the transfer to another task."""

    name = "report-transfer"
    example = "report-transfer parity"
    run = "robust_distillation.reporting.stages.report_transfer:run"
    remake = "robust_distillation.reporting.stages.report_transfer:make_tables"
    wildcards: ClassVar = {"target": ONE}
    arguments = (TARGET,)

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each transfer target."""
        return (cls(experiment, target=target) for target in experiment.file.transfer)

    def reads(self) -> Iterable[Path]:
        """Yields the outcomes of all models on the target."""
        layout, target = self.experiment.layout, self.values["target"]
        return (layout.transferred(target, model.folder) for model in models_of(self.experiment))

    def makes(self) -> Iterable[Path]:
        """Yields the table and the pictures of each comparison."""
        name = f"transfer-{self.values['target']}"
        return *self.layout.table(name), *self.layout.pictures(self.experiment.comparisons, name)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of tables, and the attacks on the target."""
        return self.experiment.matrix() | {"attacks": self.experiment.file.transfer[self.values["target"]].attacks}


class ReportTuning(_Table):
    """Make the table of the tuning stage: every candidate, its accuracy on the validation split, and the choice."""

    name = "report-tuning"
    run = remake = "robust_distillation.reporting.stages.report_tuning:run"
    not_asked = Tune.not_asked

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job if the experiment has a tuning stage."""
        if experiment.file.tuning:
            yield cls(experiment)

    def reads(self) -> Iterable[Path]:
        """Yields the scores of all candidates."""
        return (self.experiment.layout.compared(*names) for names in self.experiment.tuned)

    def makes(self) -> Iterable[Path]:
        """Yields the table."""
        return self.layout.table("tuning")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the table shows above its rows."""
        return self.experiment.tuning_settings()


# What people see, and the index of everything


class Track(_Table):
    """Import finished runs into MLflow; what is there already stays. MLFLOW_TRACKING_URI chooses another store."""

    name = "track"
    run = "robust_distillation.tracking.track:run"
    local = True  # where MLflow's store is

    def reads(self) -> Iterable[Path]:
        """Yields the data's description, outcomes, checkpoints and curves with their records, tables and figures."""
        experiment = self.experiment
        yield experiment.layout.data
        yield from outcomes(experiment)
        for step in computed(experiment):
            if isinstance(step, TrainTeacher | ImportTeacher | TrainStudent):
                yield from (*step.outputs, step.record)
        yield from (file for step in tables(experiment) for file in step.outputs)

    def makes(self) -> Iterable[Path]:
        """Yields the list of imported runs."""
        return (self.layout.tracked,)

    @property
    def settings(self) -> dict[str, Any]:
        """No settings: everything follows from the inputs."""
        return {}


class Report(_Table):
    """Make the report: the results as one HTML file that needs no network."""

    name = "report"
    rule_name = "report_html"  # `report` is a word of Snakemake's
    run = "robust_distillation.reporting.stages.report:run"

    def reads(self) -> Iterable[Path]:
        """Yields the results that the report shows, and the records of all computed steps."""
        experiment = self.experiment
        yield experiment.layout.data
        yield from outcomes(experiment)
        yield from shown_tables(experiment)
        yield from (experiment.layout.curves(student_folder(experiment, run)) for run in experiment.runs)
        yield from (file for step in computed(experiment) if isinstance(step, Robustness) for file in step.outputs)
        yield from (step.outputs[0] for step in computed(experiment) if isinstance(step, Structure | Transfer))
        yield from (step.record for step in computed(experiment))

    def makes(self) -> Iterable[Path]:
        """Yields the HTML file."""
        return (self.layout.report,)


class Index(_Table):
    """Write down the hashes of all artefacts and records, once everything is made."""

    name = "index"
    run = "robust_distillation.stages.index:run"
    record = None  # dvc.lock holds its hash

    def reads(self) -> Iterable[Path]:
        """Yields the versioned outputs and the records of all other steps."""
        for step in steps(self.experiment):
            if not step.rebuildable:
                yield from step.outputs
            yield step.record

    def makes(self) -> Iterable[Path]:
        """Yields the index."""
        return (self.layout.index,)

    @property
    def settings(self) -> dict[str, Any]:
        """No settings: everything follows from the inputs."""
        return {}


COMPUTED: tuple[type[Step], ...] = (
    PrepareData, PrepareTarget, ImportTeacher, TrainTeacher, FillCache, FillRecords, Tune, Choose, TrainStudent, Attack,
    MergeOutcomes, Structure, Robustness, Transfer,
)  # fmt: skip
TABULATED: tuple[type[Step], ...] = (Tabulate, DrawFigures, Compare, ReportStructure, ReportTransfer, ReportTuning)
STEPS = (*COMPUTED, *TABULATED, Track, Report, Index)


@cache
def computed(experiment: Experiment) -> tuple[Step, ...]:
    """Returns the jobs that make data, networks and evaluations of each network."""
    return tuple(step for kind in COMPUTED for step in kind.jobs(experiment))


@cache
def tables(experiment: Experiment) -> tuple[Step, ...]:
    """Returns the jobs that make tables and figures."""
    return tuple(step for kind in TABULATED for step in kind.jobs(experiment))


@cache
def steps(experiment: Experiment) -> tuple[Step, ...]:
    """Returns every job but the index, each after those whose files it reads."""
    return *computed(experiment), *tables(experiment), Track(experiment), Report(experiment)


def evaluations(experiment: Experiment, model: Model) -> Iterator[Step]:
    """Yields the attacks and analyses of a model."""
    for kind in COMPUTED:
        if issubclass(kind, OfModel):
            yield from kind.of(experiment, model)


def steps_of_model(experiment: Experiment, model: Model) -> Iterator[Step]:
    """Yields the jobs about one model only: its training or import, then its attacks and analyses."""
    if model.run:
        yield TrainStudent.of(experiment, model.run)
    else:
        kind = ImportTeacher if experiment.teachers[model.name].imported else TrainTeacher
        yield kind(experiment, teacher=model.name)
    yield from evaluations(experiment, model)


def outcomes(experiment: Experiment) -> list[Path]:
    """Returns the outcome files of all models."""
    return [experiment.layout.outcomes(model.folder) for model in models_of(experiment)]


def shown_tables(experiment: Experiment) -> list[Path]:
    """Returns the tables of the report: all that are always made, and claims if there are some."""
    apart = {*experiment.file.tables, *([] if experiment.file.claims else ["claims"])}
    made = [file for step in tables(experiment) for file in step.outputs if file.suffix == ".csv"]
    return [file for file in made if file.stem not in apart]


def _dataset(name: str) -> str:
    from robust_distillation import data

    return data.registry.module_name(name)


def _architecture(architecture: dict[str, Any]) -> str:
    from robust_distillation import models

    return models.registry.module_name(architecture["name"])


def _augmentation(name: str) -> str:
    from robust_distillation import augmentations

    return augmentations.registry.module_name(name)


def _training(experiment: Experiment, architecture: dict[str, Any], recipe: Recipe) -> tuple[str, ...]:
    from robust_distillation import methods

    augmentation, method = _augmentation(recipe.training.augmentation["name"]), recipe.method.kind
    dataset = _dataset(experiment.dataset.name)
    return dataset, augmentation, _architecture(architecture), methods.registry.module_name(method)


def _attacks(names: Iterable[str]) -> tuple[str, ...]:
    from robust_distillation import attacks

    return tuple(attacks.registry.module_name(name.removeprefix(ON_SURROGATE)) for name in names)


def _shards(experiment: Experiment) -> list[str]:
    return [f"{number}-of-{experiment.shards}" for number in range(1, experiment.shards + 1)]


def _model_values(step: Step) -> tuple[str, str, str]:
    return step.values["teacher"], step.values["student"], step.values["method"]


def _model_name(step: Step) -> str:
    return "/".join(_model_values(step))
