"""Declares every step of an experiment, in the order in which data goes through them.

A new table or analysis is a class here, the module that it names, and the page that shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from robust_distillation.columns import NO_TEACHER, attack_of
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
    """Fetch the dataset if it is missing, and write the size and the hash of each split to data.json.

    The images are stored in the folder `dataset.folder` of the experiment file. Writes results/EXPERIMENT/data.json.
    Later steps refuse images with other hashes.
    """

    name = "prepare-data"
    run = "robust_distillation.stages.prepare_data:run"
    check = "robust_distillation.audit.verify_files:check_images"
    local = True

    def makes(self) -> Iterable[Path]:
        """Yields the path of data.json, the description of the dataset."""
        return (self.layout.data,)

    @property
    def files(self) -> DataFiles:
        """Dataset and location of the images: `name`, `folder`, `size` (side in pixels or None), `download`,
        `verify`.
        """
        return self.experiment.dataset

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the images."""
        return self.experiment.data_settings()

    @property
    def named(self) -> Iterable[str]:
        """Dotted name of the module of the dataset."""
        return (_dataset(self.files.name),)


class PrepareTarget(PrepareData):
    """Fetch the dataset of the transfer to TARGET if it is missing, and write the size and the hash of each split.

    TARGET is a name under "transfer" in the experiment file. Writes results/EXPERIMENT/transfer/TARGET/data.json.
    """

    name = "prepare-target"
    title = "prepare-data"
    example = "prepare-target parity"
    wildcards: ClassVar = {"target": ONE}
    arguments = (TARGET,)

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each dataset under `transfer` in the file of `experiment`."""
        return (cls(experiment, target=target) for target in experiment.file.transfer)

    def makes(self) -> Iterable[Path]:
        """Yields the path of the description of the target's dataset (data.json)."""
        return (self.layout.target_data(self.values["target"]),)

    @property
    def files(self) -> DataFiles:
        """Dataset of the target and location of the images: `name`, `folder`, `size` (side in pixels or None),
        `download`.
        """
        return self.experiment.file.transfer[self.values["target"]].dataset

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the images of the target's dataset."""
        return self.experiment.data_settings(self.values["target"])


class PrepareExtra(Step):
    """Write the number and the hash of the extra training images, and how many are of each class.

    The images are those under `dataset.extra` in the experiment file. Writes results/EXPERIMENT/extra/data.json. Later
    steps refuse images with another hash.
    """

    name = "prepare-extra"
    run = "robust_distillation.stages.prepare_extra:run"
    check = "robust_distillation.audit.verify_files:check_extra"
    not_asked = "has no extra images: give its file the key `dataset.extra`"
    local = True

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job if `experiment` has extra images; else none."""
        if experiment.extra:
            yield cls(experiment)

    def reads(self) -> Iterable[Path]:
        """Yields the path of the description of the dataset, if the extra images are of its training split."""
        return (self.layout.data,) if self.experiment.extra.rest else ()

    def makes(self) -> Iterable[Path]:
        """Yields the path of the description of the extra images."""
        return (self.layout.extra_data,)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the extra images."""
        return {"dataset": self.experiment.data_settings(), "extra": self.experiment.extra_settings()}

    @property
    def named(self) -> Iterable[str]:
        """Dotted name of the module of the dataset."""
        return (_dataset(self.experiment.dataset.name),)


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
        """Folder of the teacher, results/EXPERIMENT/teachers/TEACHER."""
        return self.layout.teacher(self.values["teacher"])

    @classmethod
    def constraints(cls, experiment: Experiment) -> dict[str, str]:
        """Returns the regular expression of the wildcard `teacher`: the names of the teachers of this step only.

        Training and import write the same record, so that their names must not overlap.

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        """
        return {"teacher": "|".join(re.escape(step.values["teacher"]) for step in cls.jobs(experiment))}

    @property
    def teacher(self) -> Teacher:
        """The teacher: architecture, training settings or source of its weights, seed."""
        return self.experiment.teachers[self.values["teacher"]]

    def reads(self) -> Iterable[Path]:
        """Yields the path of the dataset's description."""
        return (self.layout.data,)

    @property
    def record(self) -> Path:
        """Path of the job's record, record.json in the folder of the teacher."""
        return self.layout.training_record(self.folder)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the training or import depends on, as JSON values."""
        return self.experiment.teacher_settings(self.values["teacher"])


class TrainTeacher(_OfTeacher):
    """Train a teacher of the experiment. Writes the checkpoints best and last, and the training curves.

    TEACHER is a name under "teachers" in the experiment file. Reads data.json and the images. Writes best.safetensors,
    last.safetensors and metrics.jsonl (one line per epoch) to results/EXPERIMENT/teachers/TEACHER.
    """

    name = "train-teacher"
    example = "train-teacher wide"
    run = "robust_distillation.stages.train:train_teacher"
    computes = resumable = True

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each teacher of `experiment` that is trained, not imported."""
        return (cls(experiment, teacher=name) for name, one in experiment.teachers.items() if not one.imported)

    @classmethod
    def refusal(cls, experiment: Experiment, text: str) -> str | None:
        """Returns a message that names the command import-teacher, or "".

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
            text: a value of the argument TEACHER. If it is no teacher of the experiment, "" is returned.
        """
        imported = text in experiment.teachers
        return f"teacher {text}: is imported, not trained: robust-distillation import-teacher {text}" * imported

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the descriptions and labels of the images."""
        return _images(self, self.has_extra, self.has_predicted_labels)

    def makes(self) -> Iterable[Path]:
        """Yields the paths of the checkpoint `best`, the checkpoint `last` and the training curves (metrics.jsonl)."""
        return self.layout.training(self.folder)

    @property
    def has_extra(self) -> bool:
        """True if the training has extra images."""
        return self.experiment.has_extra(self.values["teacher"])

    @property
    def has_predicted_labels(self) -> bool:
        """True if another teacher predicted the labels of the extra images."""
        return self.experiment.has_predicted_labels(teacher=self.values["teacher"])

    @property
    def artefact(self) -> Path:
        """Folder of the training."""
        return self.folder

    @property
    def named(self) -> Iterable[str]:
        """The modules of dataset, augmentation, architecture and method."""
        return _training(self.experiment, self.teacher.architecture, self.teacher.recipe)

    @property
    def devices(self) -> int:
        """Number of devices (GPUs) that share the training."""
        return self.teacher.devices


class ImportTeacher(_OfTeacher):
    """Import the published weights of a teacher as a checkpoint.

    TEACHER is a name under "teachers" in the experiment file, with the key "imported". The file is downloaded if it is
    missing and its source has a URL. Its hash is checked. Writes
    results/EXPERIMENT/teachers/TEACHER/imported.safetensors.
    """

    name = "import-teacher"
    example = "import-teacher wrn-34-10 --experiment experiments/rslad_cifar10.yaml"
    run = "robust_distillation.stages.import_teacher:run"
    local = True

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each imported teacher of `experiment`."""
        return (cls(experiment, teacher=name) for name, one in experiment.teachers.items() if one.imported)

    @classmethod
    def refusal(cls, experiment: Experiment, text: str) -> str | None:
        """Returns a message that names the command train-teacher, or "".

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
            text: a value of the argument TEACHER. If it is no teacher of the experiment, "" is returned.
        """
        trained = text in experiment.teachers
        return f"teacher {text}: is trained, not imported: robust-distillation train-teacher {text}" * trained

    def makes(self) -> Iterable[Path]:
        """Yields the path of the checkpoint, imported.safetensors."""
        return (self.layout.checkpoint(self.folder, "imported"),)

    @property
    def named(self) -> Iterable[str]:
        """Dotted names of the modules of dataset and architecture."""
        return _dataset(self.experiment.dataset.name), _architecture(self.teacher.architecture)


class LabelExtra(Step):
    """Label the extra training images by the predictions of a teacher, for the methods that need labels.

    The teacher is that of `dataset.extra.labelled_by` in the experiment file. Reads the description of the extra
    images, the images and the teacher's checkpoint. Writes results/EXPERIMENT/extra/labels.npy, a class for each image.
    """

    name = "label-extra"
    run = "robust_distillation.stages.label_extra:run"
    cost = "robust_distillation.planning.jobs:label_cost"
    not_asked = "trains no network on extra images that a teacher labels"
    priority = 95
    computes = resumable = True

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job if some training of `experiment` reads labels that a teacher predicts; else none."""
        if experiment.labelled_trainings and experiment.extra.labelled_by is not None:
            yield cls(experiment)

    @property
    def teacher(self) -> Teacher:
        """The teacher that predicts the labels."""
        return self.experiment.teachers[self.experiment.extra.labelled_by]

    @property
    def weights(self) -> Path:
        """Path of the teacher's checkpoint."""
        return self.experiment.teacher_weights(self.experiment.extra.labelled_by)

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the description of the extra images and of the teacher's checkpoint."""
        return self.layout.extra_data, self.weights

    def makes(self) -> Iterable[Path]:
        """Yields the path of the labels."""
        return (self.layout.extra_labels,)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the images and of the inference."""
        return self.experiment.labelling_settings()

    @property
    def named(self) -> Iterable[str]:
        """The modules of dataset and architecture."""
        return _dataset(self.experiment.dataset.name), _architecture(self.teacher.architecture)


class FillCache(Step):
    """Store a teacher's logits or features for every view (crop and flip) of every training image.

    KIND is logits or features. Reads the teacher's checkpoint. Writes the array
    results/EXPERIMENT/cache/TEACHER/KIND.npy and KIND.json, which describes it.
    """

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
        """Yields one job for each cache of a teacher's logits or features on crops and flips that `experiment`
        reads.
        """
        for teacher, kind, views in experiment.caches:
            if not views.name:
                yield cls(experiment, teacher=teacher, kind=kind)

    @property
    def cache(self) -> Cache:
        """The cache that the job fills: `teacher` (its name), `kind` (`logits` or `features`) and `views`."""
        named = self.values["teacher"], self.values["kind"], self.values.get("views", "")
        return next(one for one in self.experiment.caches if (one.teacher, one.kind, one.views.name) == named)

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the descriptions of the images and of the teacher's checkpoint."""
        return *_images(self, self.experiment.has_extra()), self.experiment.teacher_weights(self.values["teacher"])

    def makes(self) -> Iterable[Path]:
        """Yields the paths of the array of cached values (.npy) and of the JSON file that describes it."""
        return self.layout.cache_files(**self.values)

    @property
    def record(self) -> Path:
        """Path of the job's record, in the folder of the teacher, since the cache is not versioned."""
        return self.layout.cache_record(**self.values)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the views, the kind of output (`logits` or `features`) and the computation of the network."""
        return self.experiment.cache_settings(self.values["kind"], self.cache.views)

    @property
    def named(self) -> Iterable[str]:
        """Dotted names of the modules of dataset, augmentation and the teacher's architecture."""
        architecture = self.experiment.teachers[self.values["teacher"]].architecture
        augmentation = _augmentation(self.cache.views.kind)
        return _dataset(self.experiment.dataset.name), augmentation, _architecture(architecture)


class FillRecords(FillCache):
    """Store a teacher's logits or features for the views of all epochs of one training.

    VIEWS names an augmentation that draws other views in every epoch, with the seed and the epochs of the training.
    KIND is logits or features. Reads the teacher's checkpoint. Writes the array
    results/EXPERIMENT/cache/TEACHER/VIEWS/KIND.npy and KIND.json, which describes it.
    """

    name = title = "fill-records"
    example = "fill-records wide idbh-0a1b2c3d-seed-0-epochs-200 logits"
    wildcards: ClassVar = TEACHER | {"views": ONE, "kind": "logits|features"}
    arguments = (FillCache.arguments[0], Argument("VIEWS", "views of experiment"), FillCache.arguments[1])
    not_asked = "has no augmentation whose views are drawn in every epoch, or asks the teachers live"

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each set of drawn views, teacher and kind that some training of `experiment` reads."""
        for teacher, kind, views in experiment.caches:
            if views.name:
                yield cls(experiment, teacher=teacher, views=views.name, kind=kind)


# Students, and the settings that are tuned for them


class _Training(Step):
    """A training by a method: of a student, or of a candidate of the tuning stage."""

    computes = resumable = True

    @property
    def method(self) -> Any:
        """The method with its settings."""
        return self.experiment.methods[self.values["method"]]

    @property
    def architecture(self) -> dict[str, Any]:
        """Name and arguments of the student's architecture."""
        return self.experiment.students[self.values["student"]]

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the descriptions and labels of the images, and of the teachers' checkpoints and cached
        outputs.
        """
        yield from _images(self, self.has_extra, self.has_predicted_labels)
        yield from dict.fromkeys(self.experiment.teacher_weights(self.roles[role]) for role in self.method.teachers)
        for teacher, kind, views in self.caches:
            yield from self.layout.cache_files(teacher, kind, views.name)

    @property
    def has_extra(self) -> bool:
        """True if the training has extra images."""
        return self.experiment.has_extra()

    @property
    def has_predicted_labels(self) -> bool:
        """True if a teacher predicted the labels of the extra images."""
        return self.experiment.has_predicted_labels(method=self.values["method"], student=self.values["student"])

    @property
    def roles(self) -> dict[str, str]:
        """Role (part of a teacher in the method, such as `teacher`, `robust` or `natural`) to name of the teacher."""
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
        """Folder of the training."""
        return self.folder

    @property
    def record(self) -> Path:
        """Path of the job's record, record.json in the folder of the training."""
        return self.layout.training_record(self.folder)

    def input_hashes(self) -> dict[Path, str]:
        """Returns the path of each input to its sha256. That of a cached array is read from its description."""
        from robust_distillation.cache.store import sha256_of
        from robust_distillation.files import sha256

        caches = [self.layout.cache(teacher, kind, views.name) for teacher, kind, views in self.caches]
        return {file: sha256_of(file) if file in caches else sha256(file) for file in self.inputs}


class Tune(_Training):
    """Train one candidate, a combination of hyperparameter values of a method's grid, for a few epochs.

    MODEL is TEACHER/STUDENT/METHOD; TEACHER is none for a method that needs none. CANDIDATE is for example
    learning_rate=0.1,beta=3.0. Reads data.json, and the teacher's checkpoint and cached outputs. Writes the training
    curves results/EXPERIMENT/tuning/TEACHER/STUDENT/METHOD/CANDIDATE/metrics.jsonl.
    """

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
        """Yields one job for each candidate of each tuned teacher, student and method of `experiment`."""
        for teacher, student, method in experiment.tuned:
            for candidate in experiment.candidates[method]:
                yield cls(experiment, teacher=teacher, student=student, method=method, candidate=candidate)

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of the command: TEACHER/STUDENT/METHOD and the candidate's name."""
        return _model_name(self), self.values["candidate"]

    @property
    def folder(self) -> Path:
        """Folder of the candidate's training."""
        return self.layout.candidate(*_model_values(self), self.values["candidate"])

    def makes(self) -> Iterable[Path]:
        """Yields the path of the training curves (metrics.jsonl). A candidate's checkpoints are not kept."""
        return (self.layout.curves(self.folder),)

    @property
    def recipe(self) -> Recipe:
        """The method with its settings and the training settings of the candidate's short run."""
        return self.experiment.tuning_recipe(self.values["student"], self.values["method"], self.values["candidate"])

    @property
    def training_seed(self) -> int:
        """The seed of all candidates."""
        return self.experiment.tuning_seed

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the candidate's training depends on, as JSON values."""
        values = self.values
        return self.experiment.candidate_settings(values["student"], values["method"], values["candidate"])


class Choose(Step):
    """Choose between the candidates of a method. MODEL is TEACHER/STUDENT/METHOD.

    A candidate is a combination of hyperparameter values. The one with the highest accuracy on the validation split
    under the attack of training.selection is chosen. Of equals it is the one with the highest clean accuracy, then the
    first in the grid's order.

    Reads the training curves of all candidates. Writes choice.json (the chosen values) and candidates.json (the
    accuracies of all candidates) to results/EXPERIMENT/tuning/TEACHER/STUDENT/METHOD.
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
        """Yields one job for each tuned teacher, student and method of `experiment`."""
        for teacher, student, method in experiment.tuned:
            yield cls(experiment, teacher=teacher, student=student, method=method)

    @property
    def words(self) -> tuple[str, ...]:
        """The argument of the command: TEACHER/STUDENT/METHOD."""
        return (_model_name(self),)

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the training curves of all candidates, in the grid's order."""
        for candidate in self.experiment.candidates[self.values["method"]]:
            yield self.layout.curves(self.layout.candidate(*_model_values(self), candidate))

    def makes(self) -> Iterable[Path]:
        """Yields the paths of choice.json (the chosen candidate) and candidates.json (the scores of all candidates)."""
        return self.layout.choice(*_model_values(self)), self.layout.compared(*_model_values(self))

    @property
    def settings(self) -> dict[str, Any]:
        """The candidates in the grid's order, as JSON values."""
        return self.experiment.choice_settings(self.values["method"])


class TrainStudent(_Training):
    """Train one student. RUN is TEACHER/STUDENT/METHOD/seed-N; TEACHER is none for a method that needs none.

    Writes the checkpoints best and last, and the training curves. If the experiment has a tuning stage, the student is
    trained with the hyperparameter values that it chose.

    Reads data.json, the teacher's checkpoint and cached outputs, and the choice of the tuning stage. Writes
    best.safetensors, last.safetensors and metrics.jsonl (one line per epoch) to
    results/EXPERIMENT/students/TEACHER/STUDENT/METHOD/seed-N.
    """

    name = "train-student"
    example = "train-student wide/small/rslad/seed-0"
    run = "robust_distillation.stages.train:train_student"
    cost = "robust_distillation.planning.jobs:student_cost"
    check = "robust_distillation.audit.verify_files:check_weights"
    wildcards: ClassVar = TEACHER | STUDENT | METHOD | {"seed": r"\d+"}
    arguments = (Argument("RUN", "run of experiment"),)

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each training of one student by one distillation method with one seed in `experiment`."""
        return (cls.of(experiment, run) for run in experiment.runs)

    @classmethod
    def of(cls, experiment: Experiment, run: Run) -> Self:
        """Returns the job that trains one student.

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
            run: the training: teacher (`none` for a method without one), student, method and seed.
        """
        return cls(experiment, teacher=run.teacher, student=run.student, method=run.method, seed=str(run.seed))

    @property
    def words(self) -> tuple[str, ...]:
        """The argument of the command, for example `wide/small/rslad/seed-0`."""
        return (f"{_model_name(self)}/seed-{self.values['seed']}",)

    @property
    def log(self) -> Path:
        """Path of the file with the job's messages: logs/train-student/TEACHER/STUDENT/METHOD/seed-N.log.

        It is below results/EXPERIMENT.
        """
        return self.layout.log(self.name, self.words)

    @property
    def training_run(self) -> Run:
        """The training that the job makes: teacher, student, method and seed (int)."""
        from robust_distillation.config import Run

        return Run(*_model_values(self), int(self.values["seed"]))

    @property
    def training_seed(self) -> int:
        """The seed of the training."""
        return int(self.values["seed"])

    @property
    def folder(self) -> Path:
        """Folder of the training."""
        return self.layout.student(*_model_values(self), self.values["seed"])

    @property
    def choice(self) -> Path | None:
        """Path of choice.json with the hyperparameter values that the tuning stage chose. None without that stage."""
        return self.layout.choice(*_model_values(self)) if self.experiment.file.tuning else None

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the dataset's description, the teachers' checkpoints and cached outputs, and choice.json.

        The teachers are those that the method asks. choice.json is read only if there is a tuning stage.
        """
        yield from super().reads()
        if self.choice:
            yield self.choice

    def makes(self) -> Iterable[Path]:
        """Yields the paths of the checkpoint `best`, the checkpoint `last` and the training curves (metrics.jsonl)."""
        return self.layout.training(self.folder)

    @property
    def recipe(self) -> Recipe:
        """The method with its settings and the training settings, before the choice of the tuning stage."""
        return self.experiment.recipes[self.values["method"], self.values["student"]]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the training depends on, before the choice of the tuning stage.

        The record has the settings after the choice.
        """
        return self.experiment.student_settings(self.training_run)


# Attacks and analyses of each model


class OfModel(Step):
    """Base class of the steps that evaluate trained networks, teachers and students: attacks and analyses.

    The wildcard `trained` is the folder of a network below results/EXPERIMENT, for example `teachers/wide`. A subclass
    defines `name`, `run`, `makes` and `settings`; the subclass reads data.json and the network's first evaluated
    checkpoint.
    """

    wildcards: ClassVar = TRAINED
    arguments = (MODEL,)
    computes = grouped = True

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields the step's jobs for all trained networks of `experiment`, teachers first."""
        return (one for model in models_of(experiment) for one in cls.of(experiment, model))

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields the step's jobs for one trained network; none if the experiment does not ask for the step.

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
            model: a teacher or a student.
        """
        yield cls(experiment, trained=model.folder.relative_to(experiment.layout.root).as_posix())

    @property
    def folder(self) -> Path:
        """Folder of the network's training or import."""
        return self.layout.root / self.values["trained"]

    @cached_property
    def model(self) -> Model:
        """The trained network that the job evaluates: `name`, `keys`, `architecture` and `checkpoints` (name to
        path).
        """
        return model_in(self.experiment, self.experiment.layout.root / self.values["trained"])

    @property
    def words(self) -> tuple[str, ...]:
        """The argument of the command: name of a teacher, or TEACHER/STUDENT/METHOD/seed-N."""
        return (self.model.name,)

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the dataset's description and of the first evaluated checkpoint, see `Model.headline`."""
        return self.layout.data, self.model.headline[1]

    @property
    def named(self) -> Iterable[str]:
        """Dotted names of the modules of the dataset and of the network's architecture."""
        return _dataset(self.experiment.dataset.name), _architecture(self.model.architecture)


class Attack(OfModel):
    """Attack the checkpoints of a model with all attacks of the experiment, on the test images.

    MODEL is TEACHER/STUDENT/METHOD/seed-N for a student, or the name of a teacher. Writes the outcomes: for each image
    and attack whether the network is correct.

    Reads data.json and the checkpoints. Writes results/EXPERIMENT/outcomes/students/MODEL.parquet, or
    outcomes/teachers/MODEL.parquet for a teacher. If several jobs share the attacks, each job writes its part,
    MODEL/1-of-3.parquet, and the command merge-outcomes makes one file of them.
    """

    name = "attack"
    example = "attack wide/small/rslad/seed-0"
    run = "robust_distillation.stages.attack:run"
    cost = "robust_distillation.planning.jobs:attack_cost"
    check = "robust_distillation.audit.verify_files:check_outcomes"
    options: ClassVar = {"shard": "I-of-N: only this share of the blocks."}
    resumable = True

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields one job for `model`, or one for each shard if `evaluation.jobs` of `experiment` is more than 1.

        A shard, named I-of-N, is the share of the test images that one of N jobs attacks.
        """
        [one] = super().of(experiment, model)
        if experiment.shards == 1:
            yield one
        else:
            for shard in _shards(experiment):
                yield cls(experiment, **one.values, shard=shard)

    @classmethod
    def constraints(cls, experiment: Experiment) -> dict[str, str]:
        """Returns the regular expression of each wildcard, that of `shard` only if `experiment` has several shards."""
        return cls.wildcards | ({"shard": SHARD.pattern} if experiment.shards > 1 else {})

    @classmethod
    def check_option(cls, name: str, value: str) -> None:
        """Checks that the value of the option has the form I-of-N with I from 1 to N, for example 2-of-3.

        Args:
            name: name of the option; always `shard`.
            value: the value, as typed.

        Raises:
            UserError: if the value has another form.
        """
        found = SHARD.fullmatch(value)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(f"--shard {value!r}: give it as I-of-N with I from 1 to N, e.g. 2-of-3")

    @classmethod
    def pattern(cls, experiment: Experiment) -> Self:
        """Returns the step with its wildcards in braces, that of `shard` only if `experiment` has several shards."""
        one = super().pattern(experiment)
        if experiment.shards > 1:
            one.values["shard"] = "{shard}"
        return one

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the dataset's description and of all evaluated checkpoints of the model.

        If there are transfer attacks, adds the checkpoint of the surrogate, the teacher on which they are crafted.
        """
        yield self.layout.data
        yield from self.model.checkpoints.values()
        if self.experiment.surrogate:
            yield self.experiment.teacher_weights(self.experiment.surrogate)

    def makes(self) -> Iterable[Path]:
        """Yields the path of the outcomes (Parquet) of the model, or of the job's shard of them."""
        if "shard" in self.values:
            return (self.layout.shard(self.folder, self.values["shard"]),)
        return (self.layout.outcomes(self.folder),)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the attacks, and the values of teacher, student, method and seed in the outcomes."""
        return self.experiment.attack_settings(list(self.model.checkpoints)) | {"model": self.model.keys}

    @property
    def named(self) -> Iterable[str]:
        """Dotted names of the modules of the attacks, the dataset, and the architectures of model and surrogate."""
        yield from _attacks(self.experiment.evaluation.attacks)
        yield from super().named
        if self.experiment.surrogate:
            yield _architecture(self.experiment.teachers[self.experiment.surrogate].architecture)


class MergeOutcomes(OfModel):
    """Merge the outcomes of a model from the jobs that shared its attacks. MODEL is as for the command attack.

    Outcomes state for each test image and attack whether the network is correct. Reads the files MODEL/1-of-3.parquet
    and so on. Writes results/EXPERIMENT/outcomes/students/MODEL.parquet, or outcomes/teachers/MODEL.parquet for a
    teacher.
    """

    name = "merge-outcomes"
    example = "merge-outcomes wide/small/rslad/seed-0"
    title = "attack"
    run = "robust_distillation.stages.merge_outcomes:run"
    check = "robust_distillation.audit.verify_files:check_outcomes"
    not_asked = "attacks each model in one job: give evaluation.jobs more than 1"
    computes = grouped = False

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields one job for `model` if the attacks of `experiment` are split into several jobs; else none."""
        if experiment.shards > 1:
            yield from super().of(experiment, model)

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the outcomes of all shards, in their order."""
        return (self.layout.shard(self.folder, shard) for shard in _shards(self.experiment))

    def makes(self) -> Iterable[Path]:
        """Yields the path of the outcomes of the model (Parquet)."""
        return (self.layout.outcomes(self.folder),)

    @property
    def settings(self) -> dict[str, Any]:
        """The number of shards."""
        return {"shards": self.experiment.shards}

    @property
    def named(self) -> Iterable[str]:
        """No modules: nothing is computed on images."""
        return ()


class Structure(OfModel):
    """Measure how a model's logits correlate between the classes, and how far an attack (PGD-20) moves its features.

    MODEL is TEACHER/STUDENT/METHOD/seed-N for a student, or the name of a teacher. Reads data.json and the first
    evaluated checkpoint. Writes results/EXPERIMENT/structure/students/MODEL.json, or structure/teachers/MODEL.json for
    a teacher.
    """

    name = "structure"
    example = "structure wide/small/rslad/seed-0"
    run = "robust_distillation.stages.structure:run"
    cost = "robust_distillation.planning.jobs:structure_cost"
    not_asked = "does not ask for this: add `structure: {}` to its file"

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields one job for `model` if `experiment` has the structure analysis; else none."""
        if experiment.file.structure:
            yield from super().of(experiment, model)

    def makes(self) -> Iterable[Path]:
        """Yields the path of the measurements (JSON)."""
        return (self.layout.structure(self.folder),)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the analysis, and the values of teacher, student, method and seed in the results."""
        return self.experiment.structure_settings() | {"model": self.model.keys}


class Robustness(OfModel):
    """Measure a model's accuracy under attacks (APGD-CE) of growing eps, and keep some attacked images.

    MODEL is TEACHER/STUDENT/METHOD/seed-N for a student, or the name of a teacher. Reads data.json and the first
    evaluated checkpoint. Writes the accuracies, results/EXPERIMENT/robustness/students/MODEL.json, and the images,
    MODEL.npz; for a teacher both in robustness/teachers.
    """

    name = "robustness"
    example = "robustness wide/small/rslad/seed-0"
    run = "robust_distillation.stages.robustness:run"
    cost = "robust_distillation.planning.jobs:robustness_cost"
    not_asked = "does not ask for this: add `robustness: {eps: [...]}` to its file"

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields one job for `model` if `experiment` measures accuracy against eps; else none."""
        if experiment.file.robustness:
            yield from super().of(experiment, model)

    def makes(self) -> Iterable[Path]:
        """Yields the paths of the curve (JSON) and of the attacked images (.npz)."""
        return self.layout.robustness(self.folder), self.layout.gallery(self.folder)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the analysis, and the values of teacher, student, method and seed in the results."""
        return self.experiment.robustness_settings() | {"model": self.model.keys}


class Transfer(OfModel):
    """Train a linear head for another dataset on a model's frozen backbone, and attack the two together.

    TARGET is a name under "transfer" in the experiment file. MODEL is TEACHER/STUDENT/METHOD/seed-N for a student, or
    the name of a teacher.

    Reads the first evaluated checkpoint. Writes the outcomes (for each test image of TARGET and attack whether the
    network is correct), results/EXPERIMENT/transfer/TARGET/students/MODEL.parquet, and the checkpoint with the new
    head, MODEL.safetensors; for a teacher both in transfer/TARGET/teachers.
    """

    name = "transfer"
    example = "transfer parity wide/small/rslad/seed-0"
    run = "robust_distillation.stages.transfer:run"
    cost = "robust_distillation.planning.jobs:transfer_cost"
    wildcards: ClassVar = {"target": ONE} | TRAINED
    arguments = (TARGET, MODEL)
    resumable = True

    @classmethod
    def of(cls, experiment: Experiment, model: Model) -> Iterator[Self]:
        """Yields one job for `model` and each dataset under `transfer` in the file of `experiment`."""
        [one] = super().of(experiment, model)
        return (cls(experiment, target=target, **one.values) for target in experiment.file.transfer)

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of the command: the target, and the model's name."""
        return self.values["target"], self.model.name

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the description of the target's dataset and of the model's first evaluated checkpoint."""
        return self.layout.target_data(self.values["target"]), self.model.headline[1]

    def makes(self) -> Iterable[Path]:
        """Yields the paths of the outcomes on the target's test images and of the checkpoint with a new head."""
        target = self.values["target"]
        return self.layout.transferred(target, self.folder), self.layout.transferred_weights(target, self.folder)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the transfer, and the values of teacher, student, method and seed in the outcomes."""
        return self.experiment.transfer_settings(self.values["target"]) | {"model": self.model.keys}

    @property
    def named(self) -> Iterable[str]:
        """Dotted names of the modules of the target's dataset, the model's architecture and the attacks."""
        chosen = self.experiment.file.transfer[self.values["target"]]
        yield _dataset(chosen.dataset.name)
        yield _architecture(self.model.architecture)
        yield from _attacks(chosen.attacks)


# Tables and figures


class _Table(Step):
    """A step that computes nothing on images: it makes tables, figures or reports from results."""

    title = TABLES

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of tables and figures: headings, and the order of their rows and columns."""
        return self.experiment.matrix()

    @property
    def named(self) -> Iterable[str]:
        return _metrics(self.experiment.evaluation.metrics)


class Tabulate(_Table):
    """Make the comparison tables (CSV, Markdown, LaTeX) and the files of main accuracies from the outcomes.

    The main accuracies are, for each teacher and each method, the clean one and the one under the last attack, as means
    over the seeds.

    Reads the outcomes of all models. Writes results/EXPERIMENT/tables/main.csv, main.md and main.tex, the same for each
    name under "tables" in the experiment file, and the main accuracies, metrics/teachers/TEACHER.json and
    metrics/students/TEACHER/STUDENT/METHOD.json.
    """

    name = "tabulate"
    run = remake = "robust_distillation.reporting.stages.tabulate:run"

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the outcomes of all models."""
        return outcomes(self.experiment)

    def makes(self) -> Iterable[Path]:
        """Yields the paths of all tables and of the main accuracies.

        The tables are `main` and those under `tables` in the experiment file. Main accuracies are a JSON file for each
        teacher, and for each teacher, student and method of the runs.
        """
        experiment, layout = self.experiment, self.layout
        for name in ("main", *experiment.file.tables):
            yield from layout.table(name)
        yield from (layout.headline(name) for name in experiment.teachers)
        yield from sorted({layout.headline(run.teacher, run.student, run.method) for run in experiment.runs})


class Compare(_Table):
    """Compare methods on the same images and seeds, and test the claims of the experiment file.

    Each method is compared to the one that the experiment file names under "compare_to", or to the method without a
    teacher that is best on the validation split. A claim is a statement such as "rslad > sat" under "claims" in the
    experiment file. Reads the outcomes of all models, and the training curves of students without a teacher. Writes
    results/EXPERIMENT/tables/comparisons.csv and claims.csv, with the same tables as .md and .tex.
    """

    name = "compare"
    run = remake = "robust_distillation.reporting.stages.compare:run"

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the files of `evidence`, and of the training curves by which the reference is chosen."""
        yield from (file for files in self.evidence.values() for file in files)
        if self.experiment.file.compare_to is None:
            alone = (run for run in self.experiment.runs if run.teacher == NO_TEACHER)
            yield from (self.layout.curves(student_folder(self.experiment, run)) for run in alone)

    @cached_property
    def evidence(self) -> dict[str, list[Path]]:
        """Paths of the files that comparisons and claims depend on, by the analysis that wrote them.

        The key is "" for the outcomes on the experiment's test images. A claim is a sentence of the experiment file
        such as `rslad > ard on autoattack`. If claims are about other analyses, the keys `structure` and
        `transfer-TARGET` (outcomes on another dataset) are present too. Each value has one file per model.
        """
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
        """Yields the paths of the tables `comparisons` and `claims`."""
        return *self.layout.table("comparisons"), *self.layout.table("claims")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the tables, and the claims, as JSON values."""
        from robust_distillation.config import comparison_settings

        return comparison_settings(self.experiment)

    @property
    def named(self) -> Iterable[str]:
        """The modules of the metrics that tables and claims name."""
        from robust_distillation.config import claims_of

        claimed = (claim.statement for claim in claims_of(self.experiment))
        claimed = (statement.metric for statement in claimed if not statement.analysis)
        return _metrics([*self.experiment.evaluation.metrics, *claimed])


class DrawFigures(_Table):
    """Draw the figures of accuracies, attacks, differences between methods, training curves and trade-off.

    There are also accuracies by class and, if the experiment measures them, against eps. Each pair of student and
    teacher has its own figures.

    Reads outcomes, training curves, accuracies against eps and the table of comparisons. Writes
    results/EXPERIMENT/figures/TEACHER/STUDENT/overview.svg, overview.png and overview.pdf, and so on.
    """

    name = "draw-figures"
    run = "robust_distillation.reporting.stages.draw_figures:run"

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the outcomes and eps curves of all models, of the training curves of all students, and of
        the table of comparisons.
        """
        yield self.layout.table("comparisons")[0]
        yield from outcomes(self.experiment)
        yield from (self.layout.curves(student_folder(self.experiment, run)) for run in self.experiment.runs)
        yield from (step.outputs[0] for step in Robustness.jobs(self.experiment))

    def makes(self) -> Iterable[Path]:
        """Yields the paths of the figures of each student and teacher, FIGURE.svg, .png and .pdf."""
        names = ["overview", "attacks", "differences", "training", "trade-off", "per-class"]
        names += ["robustness"] if self.experiment.file.robustness else []
        return self.layout.pictures(self.experiment.comparisons, *names)

    @property
    def record(self) -> Path:
        """Path of the job's record, in the folder of all figures."""
        return self.layout.record(self.layout.figures / "figures.png")


class ReportStructure(_Table):
    """Make the table and the figures of class correlations and feature distances of the models.

    The table has, for each teacher and method, the measurements of the command structure as means over the seeds. Reads
    the files that the command structure wrote. Writes results/EXPERIMENT/tables/structure.csv, .md and .tex, and
    figures/TEACHER/STUDENT/correlations.svg and feature-distances.svg, with the same figures as .png and .pdf.
    """

    name = "report-structure"
    run = "robust_distillation.reporting.stages.report_structure:run"
    remake = "robust_distillation.reporting.stages.report_structure:make_tables"
    not_asked = Structure.not_asked

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job if `experiment` has the structure analysis; else none."""
        if experiment.file.structure:
            yield cls(experiment)

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the measured class correlations and feature distances of all models."""
        return (self.experiment.layout.structure(model.folder) for model in models_of(self.experiment))

    def makes(self) -> Iterable[Path]:
        """Yields the paths of the table, and of the figures of each student and teacher."""
        pictures = self.layout.pictures(self.experiment.comparisons, "correlations", "feature-distances")
        return *self.layout.table("structure"), *pictures


class ReportTransfer(_Table):
    """Make the table and the figures of the transfer to TARGET, a name under "transfer" in the experiment file.

    They show, for each teacher and method, the clean and robust accuracies on TARGET as means over the seeds. Reads the
    outcomes that the command transfer wrote. Writes results/EXPERIMENT/tables/transfer-TARGET.csv, .md and .tex, and
    figures/TEACHER/STUDENT/transfer-TARGET.svg, .png and .pdf.
    """

    name = "report-transfer"
    example = "report-transfer parity"
    run = "robust_distillation.reporting.stages.report_transfer:run"
    remake = "robust_distillation.reporting.stages.report_transfer:make_tables"
    wildcards: ClassVar = {"target": ONE}
    arguments = (TARGET,)

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job for each dataset under `transfer` in the file of `experiment`."""
        return (cls(experiment, target=target) for target in experiment.file.transfer)

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the outcomes of all models on the target's test images."""
        layout, target = self.experiment.layout, self.values["target"]
        return (layout.transferred(target, model.folder) for model in models_of(self.experiment))

    def makes(self) -> Iterable[Path]:
        """Yields the paths of the table, and of the figures of each student and teacher."""
        name = f"transfer-{self.values['target']}"
        return *self.layout.table(name), *self.layout.pictures(self.experiment.comparisons, name)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the tables, and the attacks on the target."""
        return self.experiment.matrix() | {"attacks": self.experiment.file.transfer[self.values["target"]].attacks}


class ReportTuning(_Table):
    """Make the table of the tuning stage: every candidate, its accuracy on the validation split, and the choice.

    A candidate is a combination of hyperparameter values. Reads the files candidates.json that the command choose
    wrote. Writes results/EXPERIMENT/tables/tuning.csv, .md and .tex.
    """

    name = "report-tuning"
    run = remake = "robust_distillation.reporting.stages.report_tuning:run"
    not_asked = Tune.not_asked

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields one job if `experiment` has a tuning stage; else none."""
        if experiment.file.tuning:
            yield cls(experiment)

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the scores of all candidates, candidates.json.

        There is one for each tuned teacher, student and method.
        """
        return (self.experiment.layout.compared(*names) for names in self.experiment.tuned)

    def makes(self) -> Iterable[Path]:
        """Yields the paths of the table."""
        return self.layout.table("tuning")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the table shows above its rows."""
        return self.experiment.tuning_settings()


# What people see, and the index of everything


class Track(_Table):
    """Import finished trainings into MLflow. Runs that are in its store already stay as they are.

    The store is the SQLite file mlflow.db in the current folder; the environment variable MLFLOW_TRACKING_URI chooses
    another one. Reads records, outcomes, training curves, tables and figures. Writes results/EXPERIMENT/mlflow.json, a
    hash of each imported run.
    """

    name = "track"
    run = "robust_distillation.tracking.track:run"
    local = True  # where MLflow's store is

    def reads(self) -> Iterable[Path]:
        """Yields the paths of data.json, outcomes, checkpoints, training curves, their records, tables and figures."""
        experiment = self.experiment
        yield experiment.layout.data
        yield from outcomes(experiment)
        for step in computed(experiment):
            if isinstance(step, TrainTeacher | ImportTeacher | TrainStudent):
                yield from (*step.outputs, step.record)
        yield from (file for step in tables(experiment) for file in step.outputs)

    def makes(self) -> Iterable[Path]:
        """Yields the path of mlflow.json, the list of imported runs."""
        return (self.layout.tracked,)

    @property
    def settings(self) -> dict[str, Any]:
        """No settings: everything follows from the inputs."""
        return {}


class Report(_Table):
    """Make report.html: the results on one page that needs no network.

    Reads outcomes, tables, training curves, the results of the analyses, and the records (the JSON files beside the
    outputs: its inputs, settings, code hash and hashes of the outputs). Writes results/EXPERIMENT/report.html.
    """

    name = "report"
    rule_name = "report_html"  # `report` is a word of Snakemake's
    run = "robust_distillation.reporting.stages.report:run"

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the results that the report shows, and of the records of all steps of `computed`."""
        experiment = self.experiment
        yield experiment.layout.data
        yield from outcomes(experiment)
        yield from shown_tables(experiment)
        yield from (experiment.layout.curves(student_folder(experiment, run)) for run in experiment.runs)
        yield from (file for step in computed(experiment) if isinstance(step, Robustness) for file in step.outputs)
        yield from (step.outputs[0] for step in computed(experiment) if isinstance(step, Structure | Transfer))
        yield from (step.record for step in computed(experiment))

    def makes(self) -> Iterable[Path]:
        """Yields the path of report.html."""
        return (self.layout.report,)


class Index(_Table):
    """Write the index: the hashes of all outputs and records, after everything else is made.

    A record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs. Reads all
    outputs and records of the experiment. Writes results/EXPERIMENT/provenance.json.
    """

    name = "index"
    run = "robust_distillation.stages.index:run"
    record = None  # dvc.lock holds its hash

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the versioned outputs and of the records of all other steps."""
        for step in steps(self.experiment):
            if not step.rebuildable:
                yield from step.outputs
            yield step.record

    def makes(self) -> Iterable[Path]:
        """Yields the path of the index, provenance.json."""
        return (self.layout.index,)

    @property
    def settings(self) -> dict[str, Any]:
        """No settings: everything follows from the inputs."""
        return {}


COMPUTED: tuple[type[Step], ...] = (
    PrepareData, PrepareTarget, PrepareExtra, ImportTeacher, TrainTeacher, LabelExtra, FillCache,
    FillRecords, Tune, Choose, TrainStudent, Attack, MergeOutcomes, Structure, Robustness, Transfer,
)  # fmt: skip
TABULATED: tuple[type[Step], ...] = (Tabulate, Compare, DrawFigures, ReportStructure, ReportTransfer, ReportTuning)
STEPS = (*COMPUTED, *TABULATED, Track, Report, Index)


@cache
def computed(experiment: Experiment) -> tuple[Step, ...]:
    """Returns the jobs that make data, networks, caches, and evaluations of each network.

    A job is one run of a step, such as the training of one student. The jobs that make tables, figures, the MLflow
    import, the report and the index are left out.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.

    Returns:
        The jobs, each after the jobs whose outputs it reads. A job has `inputs`, `outputs` and `record` (paths),
        `settings`, and `command` (its command line).
    """
    return tuple(_ordered(step for kind in COMPUTED for step in kind.jobs(experiment)))


@cache
def tables(experiment: Experiment) -> tuple[Step, ...]:
    """Returns the jobs that make tables and figures from results.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.

    Returns:
        The jobs, for example those of the commands tabulate, draw-figures and compare. A job is one run of a step. It
        has `inputs`, `outputs` and `record` (paths), `settings`, and `command` (its command line).
    """
    return tuple(step for kind in TABULATED for step in kind.jobs(experiment))


@cache
def steps(experiment: Experiment) -> tuple[Step, ...]:
    """Returns every job of an experiment but the one that writes the index, each after the jobs whose outputs it reads.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.

    Returns:
        The jobs, instances of the classes of `pipeline.steps`. A job is one run of a step, such as the training of one
        student. It has `inputs`, `outputs` and `record` (paths), `settings`, and `command` (its command line, for
        example `train-teacher wide`).
    """
    return *computed(experiment), *tables(experiment), Track(experiment), Report(experiment)


def evaluations(experiment: Experiment, model: Model) -> Iterator[Step]:
    """Yields the jobs that evaluate one trained network: attacks, merging of the outcomes of attacks that several jobs
    share, and analyses.

    The analyses are those that the experiment asks for: class correlations, accuracy against eps, transfer to another
    dataset.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        model: a teacher or a student, one of `pipeline.models.models(experiment)`.

    Yields:
        Jobs (a job is one run of a step) with `inputs`, `outputs` and `record` (paths), `settings`, and `command` (the
        command line, for example `attack wide`).
    """
    for kind in COMPUTED:
        if issubclass(kind, OfModel):
            yield from kind.of(experiment, model)


def steps_of_model(experiment: Experiment, model: Model) -> Iterator[Step]:
    """Yields the jobs about one trained network only: its training or import, then its attacks and analyses.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        model: a teacher or a student, one of `pipeline.models.models(experiment)`.

    Yields:
        Jobs with `inputs`, `outputs` and `record` (paths), `settings`, and `command` (the command line, for example
        `train-teacher wide`).
    """
    if model.run:
        yield TrainStudent.of(experiment, model.run)
    else:
        kind = ImportTeacher if experiment.teachers[model.name].imported else TrainTeacher
        yield kind(experiment, teacher=model.name)
    yield from evaluations(experiment, model)


def outcomes(experiment: Experiment) -> list[Path]:
    """Returns the paths of the outcomes of all models (Parquet files), teachers first.

    Outcomes have one row per test image and checkpoint, and state for each attack whether the image is classified
    correctly. An example is results/digits/outcomes/students/wide/small/rslad/seed-0.parquet. The files need not exist
    yet.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
    """
    return [experiment.layout.outcomes(model.folder) for model in models_of(experiment)]


def shown_tables(experiment: Experiment) -> list[Path]:
    """Returns the paths of the CSV files of the tables that the HTML report shows, for example
    results/digits/tables/main.csv.

    All tables that the experiment makes are shown, with two exceptions: the tables under `tables` in the experiment
    file (parts of the main table), and claims.csv if the experiment makes no claims.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
    """
    apart = {*experiment.file.tables, *([] if experiment.file.claims else ["claims"])}
    made = [file for step in tables(experiment) for file in step.outputs if file.suffix == ".csv"]
    return [file for file in made if file.stem not in apart]


def _ordered(jobs: Iterable[Step]) -> Iterator[Step]:
    """Yields jobs, each after those whose outputs it reads; otherwise in their order.

    A teacher that is trained on images that another one labels comes after the labels.
    """
    waiting = dict.fromkeys(jobs)
    makers = {file: job for job in waiting for file in job.outputs}

    def with_makers(job: Step) -> Iterator[Step]:
        if job in waiting:
            del waiting[job]
            for maker in {makers[file]: None for file in job.inputs if file in makers}:
                yield from with_makers(maker)
            yield job

    for job in list(waiting):
        yield from with_makers(job)


def _images(step: Step, extra: bool, predicted: bool = False) -> Iterator[Path]:
    """Yields the descriptions of the training images, and the predicted labels of the extra ones."""
    yield step.layout.data
    if extra:
        yield step.layout.extra_data
    if predicted:
        yield step.layout.extra_labels


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
    by = recipe.training.selection
    selection = ("robust_distillation.metrics", *_metrics([by.by])) if by.metric else ()
    return dataset, augmentation, _architecture(architecture), methods.registry.module_name(method), *selection


def _attacks(names: Iterable[str]) -> tuple[str, ...]:
    from robust_distillation import attacks

    return tuple(attacks.registry.module_name(attack_of(name)) for name in names)


def _metrics(names: Iterable[str]) -> tuple[str, ...]:
    from robust_distillation import metrics

    kinds = dict.fromkeys(kind for kind, _ in map(metrics.split, names) if kind)
    return tuple(metrics.registry.module_name(kind) for kind in kinds)


def _shards(experiment: Experiment) -> list[str]:
    return [f"{number}-of-{experiment.shards}" for number in range(1, experiment.shards + 1)]


def _model_values(step: Step) -> tuple[str, str, str]:
    return step.values["teacher"], step.values["student"], step.values["method"]


def _model_name(step: Step) -> str:
    return "/".join(_model_values(step))
