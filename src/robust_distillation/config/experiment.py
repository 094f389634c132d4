"""An experiment with every default filled in, and the runs that follow from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from robust_distillation import augmentations, data, methods
from robust_distillation.attacks.policy import ModelAugmentation
from robust_distillation.columns import AUGMENTED, NO_TEACHER, ON_SURROGATE
from robust_distillation.comparison import Comparison
from robust_distillation.config.schema import (
    DataFiles,
    DatasetSettings,
    Evaluation,
    Exclusion,
    ExperimentFile,
    Extra,
    Imported,
    Transfer,
)
from robust_distillation.config.tuning import Candidate, apply_candidate
from robust_distillation.data import extra as extra_data
from robust_distillation.data.extra import ExtraInfo, ExtraSource
from robust_distillation.data.info import DataOptions
from robust_distillation.digests import digest
from robust_distillation.layout import Layout
from robust_distillation.settings import CROP_FLIP, Compute, ThreatModel, Training

IMPORTED = "imported"  # the checkpoint of a teacher that was not trained here
FIRST_TUNING_SEED = 2**31  # no student has one as large


@dataclass(frozen=True)
class NamedMethod:
    """A distillation or training method, such as RSLAD or TRADES, with its settings.

    The name of the method in paths and tables is not part of it: that is the key in `Experiment.methods`.

    Attributes:
        kind: name of the method in the registry, that is of its module in `robust_distillation.methods`, such as
            "rslad".
        settings: an instance of the method's class, such as `RSLAD(alpha=0.5)`, whose fields are the settings.
    """

    kind: str
    settings: methods.Method

    @property
    def teachers(self) -> dict[str, methods.TeacherCalls]:
        """The outputs of teachers that the method needs: role to a TeacherCalls; empty without a teacher.

        A role is the name under which the method calls one of its teachers, such as `robust`; with a single teacher it
        is `teacher`. A TeacherCalls has the fields `cached` (outputs read from files: `logits`, `features`), and
        `live`, `gradient` and `trained` (whether the teacher's network is called, called with gradient, or trained).
        """
        return self.settings.teachers()

    @property
    def has_teacher(self) -> bool:
        """True if the method uses at least one teacher."""
        return bool(self.teachers)

    def resolved(self) -> dict[str, Any]:
        """Returns `kind` (under the key `name`) and every setting as a dict of JSON values.

        An example is {"name": "trades", "beta": 6.0, "clean_first": False}.
        """
        return {"name": self.kind, **self.settings.model_dump()}


@dataclass(frozen=True)
class Recipe:
    """A method and the training settings with which one network is trained.

    Under the official protocol (the settings of the methods' released codes) method and training settings may depend on
    the architecture.

    Attributes:
        method: the method with its settings: `method.kind`, such as "rslad", and `method.settings`.
        training: the settings under `training`: epochs, batch size, optimiser, learning rate, inner maximisation and
            choice of the checkpoint `best`.
    """

    method: NamedMethod
    training: Training


@dataclass(frozen=True)
class Teacher:
    """A network that students learn from or that transfer attacks are crafted on.

    It is trained in the experiment or imported.

    Attributes:
        architecture: name and arguments of the architecture, such as {"name": "convnet", "width": 32}.
        recipe: the method and the training settings by which it is trained; None for an imported teacher.
        imported: source of the published weights, such as `Imported(source="robustbench", model=...)`; None for a
            teacher that is trained.
        seed: seed of its training; 0 for an imported teacher.
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
        """The value of `method` in the teacher's rows of outcomes and tables.

        It is the method that trained the teacher, or the source of its weights (for RobustBench, the name in its model
        zoo).
        """
        return self.recipe.method.kind if self.recipe else self.imported.model or self.imported.source


@dataclass(frozen=True)
class ViewSet:
    """The augmented training images (views) that trainings use.

    A view is what an augmentation makes of a training image. There are two cases. The augmentation `crop_flip` has one
    set of views, all crops and flips, for all trainings. The other augmentations draw new views in each epoch, so every
    training has a set of its own. `Experiment.view_set` makes the object.

    Attributes:
        kind: name of the augmentation, such as `cutout`.
        augmentation: the augmentation with its options, such as `Cutout(size=18)`.
        seed: seed of the training; 0 for a set that all trainings share.
        epochs: number of epochs of the training; 0 for a set that all trainings share.
    """

    kind: str
    augmentation: augmentations.Augmentation
    seed: int = 0
    epochs: int = 0

    @property
    def name(self) -> str:
        """The name of the set in paths, such as `cutout-0a1b2c3d-seed-0-epochs-20`; "" for crops and flips.

        The eight digits are a hash of the augmentation's options.
        """
        if self.kind == CROP_FLIP:
            return ""
        options = self.augmentation.options()
        training = "" if self.augmentation.enumerable else f"-seed-{self.seed}-epochs-{self.epochs}"
        return f"{self.kind}-{digest(options)[:8]}{training}"

    def resolved(self) -> dict[str, Any]:
        """Returns all that determines the set, besides the dataset, as a dict of JSON values.

        An example is {"augmentation": {"name": "cutout", "size": 18}, "seed": 0, "epochs": 20}.
        """
        options = {"name": self.kind, **self.augmentation.options()}
        return {"augmentation": options, "seed": self.seed, "epochs": self.epochs}


class Cache(NamedTuple):
    """A file with a teacher's outputs on a set of augmented training images, which is computed before a training.

    `Experiment.caches` lists the files of an experiment.

    Attributes:
        teacher: name of the teacher, such as "wide".
        kind: `logits` or `features`.
        views: the set of augmented images, a ViewSet: `kind` (name of the augmentation), `augmentation`, `seed` and
            `epochs`; `views.name` is its name in paths.
    """

    teacher: str
    kind: str
    views: ViewSet


@dataclass(frozen=True, order=True)
class Run:
    """One training of one student by one distillation or training method with one seed.

    `experiment.runs` lists the runs of an experiment.

    Attributes:
        teacher: name of the teacher, such as "wide", or of an entry under `teachers` that names several teachers, such
            as `pair: {roles: {robust: wide, natural: resnet}}`; `none` for a method without a teacher.
        student: name of the student network, such as "small".
        method: name under which the method stands in the experiment file, such as "rslad".
        seed: seed of the training.
    """

    teacher: str
    student: str
    method: str
    seed: int


@dataclass(frozen=True, eq=False)
class Experiment:
    """One experiment file, resolved: all defaults are filled in, and all names in it exist.

    Two experiments are equal only if they are the same object, so that computed values can be stored for each object.

    `config.load("params.yaml")` makes it.

    Attributes:
        file: the parsed experiment file, an object with its top-level keys as attributes, such as `file.seeds`.
        teachers: name of a teacher to a Teacher: its architecture, how it is trained or from where it is imported, its
            seed, and the checkpoint that students learn from.
        teacher_groups: name of an entry under `teachers` that names several teachers, to their names by role. The entry
            `pair: {roles: {robust: wide, natural: resnet}}` gives {"pair": {"robust": "wide", "natural": "resnet"}}. A
            role is the name under which a method calls one of its teachers.
        students: name of a student to the name and arguments of its architecture, such as {"small": {"name": "convnet",
            "width": 8}}.
        recipes: (method, student), such as ("rslad", "small"), to a Recipe: the method with its settings (`method`) and
            the training settings (`training`) with which this student is trained.
        arguments: the command line options that load this experiment again, such as "--experiment params.yaml".
        candidates: method to its candidates (combinations of hyperparameter values that the tuning tries), by name,
            such as {"rslad": {"learning_rate=0.1": Candidate(...)}}; empty if the experiment file has no `tuning`.
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
        """The experiment's name, which is also the name of its folder below `results`."""
        return self.file.name

    @cached_property
    def layout(self) -> Layout:
        """The object that returns the paths of all files of the experiment, such as `layout.tables`."""
        return Layout(self.name)

    def teacher_weights(self, name: str) -> Path:
        """Returns the path of the checkpoint of the teacher `name` from which students learn.

        Raises:
            KeyError: if `name` is no teacher with a network of its own.
        """
        return self.layout.checkpoint(self.layout.teacher(name), self.teachers[name].checkpoint)

    @property
    def dataset(self) -> DatasetSettings:
        """The section `dataset` of the experiment file: name, files, image size, padding and limits."""
        return self.file.dataset

    @property
    def threat_model(self) -> ThreatModel:
        """The section `threat_model` of the experiment file: `norm` and `eps` of all attacks."""
        return self.file.threat_model

    @property
    def evaluation(self) -> Evaluation:
        """The section `evaluation` of the experiment file: the attacks on trained networks."""
        return self.file.evaluation

    @property
    def compute(self) -> Compute:
        """The section `compute` of the experiment file: precision, device and threads."""
        return self.file.compute

    @property
    def data_options(self) -> DataOptions:
        """The dataset's folder, image size and download options, in the form that `data.dataset.load` takes."""
        return self.dataset.options

    @cached_property
    def info(self) -> data.DatasetInfo:
        """Facts about the dataset: `shape` (C,H,W), `classes` (names), `sizes` of the splits, `flips`, `max_value`."""
        return data.info(self.dataset.name, self.data_options)

    @property
    def selects_on_test(self) -> bool:
        """True under the official protocol: as in the papers' codes, the test split chooses `best`."""
        return self.file.protocol == "official"

    def size(self, split: str) -> int:
        """Returns the number of images of a split that the experiment uses.

        Args:
            split: `train`, `validation` or `test`. Under the official protocol the training images include the
                validation images, and the validation split is the test split. `dataset.limit` may make the number
                smaller.
        """
        limit = getattr(self.dataset.limit, split)
        if limit is not None:
            return limit
        sizes = self.info.sizes
        if self.selects_on_test:
            return {"train": sizes["train"] + sizes["validation"]}.get(split, sizes["test"])
        return sizes[split]

    @cached_property
    def extra(self) -> Extra | None:
        """The settings of the extra training images; None without them, or if no batch has any (`share` 0)."""
        extra = self.dataset.extra
        return extra if extra and extra.share else None

    @cached_property
    def _extra_info(self) -> ExtraInfo:
        """Number of the images in the source, and whether it has labels: from the settings as long as it is missing."""
        extra = self.extra
        if extra.path is None:
            return ExtraInfo(self.left_out, True)
        found = extra_data.info(extra.path, extra.folder is not None, self.info)
        return found or ExtraInfo(extra.limit or 0, bool(extra.labels))

    @property
    def left_out(self) -> int:
        """The number of images of the training split that `dataset.limit.train` leaves out."""
        sizes = self.info.sizes
        whole = sizes["train"] + (sizes["validation"] if self.selects_on_test else 0)
        return whole - min(whole, self.dataset.limit.train or whole)

    @property
    def extra_source(self) -> ExtraSource:
        """The place of the extra images and the choice of those that are used. Call it only if `extra` is not None."""
        extra, labelled = self.extra, self._extra_info.labelled and self.extra.labelled_by is None
        labels = labelled if extra.labels is None else extra.labels
        return ExtraSource(extra.path, extra.folder is not None, extra.limit, labels)

    @property
    def extra_images(self) -> int:
        """The number of extra training images that the experiment uses; 0 without them."""
        return (self.extra.limit or self._extra_info.images) if self.extra else 0

    def has_extra(self, teacher: str | None = None) -> bool:
        """Returns True if a training has the extra images: every one has them but that of the teacher that labels them.

        Args:
            teacher: name of the teacher that is trained; None for a student.
        """
        return bool(self.extra) and (teacher is None or teacher != self.extra.labelled_by)

    def has_predicted_labels(self, *, teacher: str | None = None, method: str = "", student: str = "") -> bool:
        """Returns True if a training reads the labels of the extra images that a teacher predicted.

        Args:
            teacher: name of the teacher that is trained; None for a student or a candidate of the tuning stage.
            method: name of the method of the student.
            student: name of the student.
        """
        if not self.extra or self.extra.labelled_by is None or not self.has_extra(teacher):
            return False
        if teacher is not None:
            recipe = self.teachers[teacher].recipe
            return bool(recipe) and recipe.method.settings.needs_labels()
        return self._needs_labels(method, student)

    def _needs_labels(self, method: str, student: str) -> bool:
        """Returns True if a method needs labels, with its settings or those of a candidate."""
        recipes = [self.recipes[method, student]]
        recipes += [self.tuning_recipe(student, method, name) for name in self.candidates.get(method, {})]
        return any(recipe.method.settings.needs_labels() for recipe in recipes)

    @cached_property
    def labelled_trainings(self) -> tuple[str, ...]:
        """The entries of the experiment file whose trainings have the extra images and need labels: `methods.trades`,
        `teachers.wide`.
        """
        if not self.extra:
            return ()
        trained = dict.fromkeys((run.method, run.student) for run in self.runs)
        found = [f"methods.{method}" for method, student in trained if self._needs_labels(method, student)]
        found += [
            f"teachers.{name}"
            for name, teacher in self.teachers.items()
            if teacher.recipe and self.has_extra(name) and teacher.recipe.method.settings.needs_labels()
        ]
        return tuple(dict.fromkeys(found))

    @property
    def teachers_text(self) -> str:
        """The teachers and where each comes from, for the plan and the start of a run, such as `wide (trained here by
        trades)`; `none` without teachers.
        """
        came = {
            name: f"trained here by {teacher.origin}" if teacher.recipe else f"imported from {teacher.origin}"
            for name, teacher in self.teachers.items()
        }
        return ", ".join(f"{name} ({where})" for name, where in came.items()) or "none"

    @property
    def extra_text(self) -> str:
        """A sentence on the extra images for captions and the plan; empty without them."""
        extra = self.extra
        if not extra:
            return ""
        labels, by = "without labels", extra.labelled_by
        if self.extra_source.labels:
            labels = "with the labels of their source"
        elif by is not None and self.labelled_trainings:
            labels = f"labelled by {by} for {', '.join(name.partition('.')[2] for name in self.labelled_trainings)}"
        where = "the rest of the training split" if extra.path is None else Path(extra.path).name
        count = f"{self.extra_images:,} extra images ({where})"
        without = "" if by is None or self.teachers[by].imported else f" {by} was trained without them."
        return f"Trained with {count}, a share of {extra.share:g} of each batch, {labels}.{without}"

    @cached_property
    def methods(self) -> dict[str, NamedMethod]:
        """Name of a method in the experiment file to the method with its settings for the first student.

        Each is a NamedMethod: `kind`, such as "rslad", and `settings`. Which outputs of teachers a method needs is the
        same for all students.
        """
        first = next(iter(self.students))
        return {method: recipe.method for (method, student), recipe in self.recipes.items() if student == first}

    def training_of(self, method: str, student: str | None = None) -> Training:
        """Returns the settings (epochs, batch size, learning rate, ...) with which a method trains a student.

        Args:
            method: name of the method in the experiment file, such as "rslad".
            student: name of the student, such as "small"; None: the first one of the experiment file.
        """
        return self.recipes[method, student or next(iter(self.students))].training

    @property
    def test_images(self) -> int:
        """The number of test images that are attacked."""
        return self.evaluation.images or self.size("test")

    @property
    def shards(self) -> int:
        """The number of jobs that share the attacks on one model.

        It is `evaluation.jobs`, at most the number of blocks (sets of test images that are attacked together as one
        batch).
        """
        return min(self.evaluation.jobs, -(-self.test_images // self.evaluation.block_size))

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All trainings of students: teachers x students x methods x seeds, without the exclusions.

        A method without a teacher has one run for each student and seed, with the teacher `none`.
        """
        return tuple(run for run in self._matrix() if not any(_matches(rule, run) for rule in self.file.exclude))

    def _matrix(self) -> Iterator[Run]:
        for method, named in self.methods.items():
            for teacher in self.teachers_for(named):
                for student in self.students:
                    for seed in self.file.seeds:
                        yield Run(teacher, student, method, seed)

    def roles(self, name: str) -> dict[str, str]:
        """Returns the names of the teachers that a training uses, by role.

        A role is the name under which a method calls one of its teachers, such as `robust`.

        Args:
            name: value of `teacher` of a run: the name of a teacher, such as "wide"; the name of an entry under
                `teachers` that names several teachers, such as "pair" for `pair: {roles: {robust: wide, natural:
                resnet}}`; or "none".

        Returns:
            Role to the name of a teacher: {"teacher": "wide"} for a single teacher, {"robust": "wide", "natural":
            "resnet"} for the entry; empty for "none".
        """
        if name == NO_TEACHER:
            return {}
        return self.teacher_groups.get(name) or {methods.TEACHER: name}

    def teachers_for(self, method: NamedMethod) -> tuple[str, ...]:
        """Returns the values of `teacher` in the runs (trainings of students) of a method.

        Args:
            method: the method with its settings, a value of `Experiment.methods`.

        Returns:
            The names of all teachers that can be used alone, and of all entries such as `pair: {roles: {robust: wide,
            natural: resnet}}` under `teachers`, that have every role of the method. A role is the name under which the
            method calls one of its teachers. ("none",) for a method without a teacher.
        """
        if not method.has_teacher:
            return (NO_TEACHER,)
        return tuple(
            name for name in (*self.teachers, *self.teacher_groups) if {*method.teachers} <= {*self.roles(name)}
        )

    @cached_property
    def tuned(self) -> tuple[tuple[str, str, str], ...]:
        """Each (teacher, student, method) whose hyperparameters are tuned; empty without `tuning`."""
        return tuple(dict.fromkeys((r.teacher, r.student, r.method) for r in self.runs if self.file.tuning))

    def tuning_recipe(self, student: str, method: str, candidate: str) -> Recipe:
        """Returns the method and training settings of a candidate's short run in the tuning stage.

        A candidate is one combination of hyperparameter values that the tuning stage tries.

        Args:
            student: name of the student, such as "small".
            method: name of the method in the experiment file, such as "rslad".
            candidate: name of the candidate, such as "learning_rate=0.1".

        Returns:
            A Recipe: the method with its settings (`method`) and the training settings (`training`).
        """
        chosen = self.candidates[method][candidate]
        return apply_candidate(self.recipes[method, student], chosen, self.file.tuning.training)

    @property
    def tuning_seed(self) -> int:
        """The seed of the short runs of the tuning stage."""
        return FIRST_TUNING_SEED + self.file.tuning.seed

    @property
    def comparisons(self) -> list[Comparison]:
        """The pairs of a teacher and a student within which distillation methods are compared.

        They are named tuples, such as `Comparison("wide", "small")`. There is one pair for each teacher and student
        with trainings that have a teacher. A student without trainings that have a teacher has one pair with the
        teacher `none`.
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
        """Returns the set of augmented training images (views) that a training uses.

        Args:
            training: the training settings; `augmentation` and `epochs` are used.
            seed: seed of the training.

        Returns:
            A ViewSet: `kind` (name of the augmentation), `augmentation`, `seed` and `epochs`. Seed and epochs are 0 for
            crops and flips, which all trainings share.
        """
        kind, augmentation = training.augmentation["name"], augmentations.from_settings(training.augmentation)
        return ViewSet(kind, augmentation, *(() if augmentation.enumerable else (seed, training.epochs)))

    def caches_of(self, teacher: str, method: methods.Method, views: ViewSet) -> tuple[Cache, ...]:
        """Returns the files of teachers' outputs that a training reads.

        Args:
            teacher: value of `teacher` of the run: name of a teacher, such as "wide", or of an entry under `teachers`
                that names several teachers, such as `pair: {roles: {robust: wide, natural: resnet}}`.
            method: the settings of the method, an instance of its class. It declares which outputs it reads.
            views: the set of augmented images of the training, as `view_set` returns it.

        Returns:
            One Cache (name of the teacher, `logits` or `features`, and `views`) for each file. Empty if the method
            reads no stored output, or if the option `cache` of the augmentation is `live`: the teachers' networks then
            run during the training.
        """
        if views.augmentation.asks_live:
            return ()
        return tuple(dict.fromkeys(Cache(self.roles(teacher)[role], kind, views) for role, kind in method.cached))

    @cached_property
    def caches(self) -> tuple[Cache, ...]:
        """The files of teachers' outputs that some training of a student or some candidate of the tuning reads.

        Each is a Cache: `teacher`, `kind` (`logits` or `features`) and `views`. They are sorted by these three.
        """
        found = {
            cache
            for teacher, recipe, _, seed in self.distillations
            for cache in self.caches_of(teacher, recipe.method.settings, self.view_set(recipe.training, seed))
        }
        return tuple(sorted(found, key=lambda cache: (cache.teacher, cache.kind, cache.views.name)))

    @property
    def distillations(self) -> Iterator[tuple[str, Recipe, dict[str, Any], int]]:
        """All trainings of students: those of the runs, then the short ones of the tuning's candidates.

        Each is a tuple (teacher, recipe, architecture, seed): name of the teacher, such as "wide"; the Recipe (method
        and training settings); name and arguments of the student's architecture, such as {"name": "convnet", "width":
        8}; and the seed.
        """
        for run in self.runs:
            yield run.teacher, self.recipes[run.method, run.student], self.students[run.student], run.seed
        for teacher, student, method in self.tuned:
            for candidate in self.candidates[method]:
                recipe = self.tuning_recipe(student, method, candidate)
                yield teacher, recipe, self.students[student], self.tuning_seed

    # Settings that each step depends on besides its input files, as JSON values.

    def extra_settings(self) -> dict[str, Any]:
        """Returns the settings that determine the extra images and their labels, as a dict of JSON values."""
        source = self.extra_source
        where = {"folder" if source.is_folder else "file": source.path}
        if source.path is None:
            where = {"rest": {"after": self.dataset.limit.train, "selects_on_test": self.selects_on_test}}
        return {**where, "images": self.extra_images, "labels": source.labels}

    def _view_settings(self, *splits: str, extra: bool = True) -> dict[str, Any]:
        """Returns the settings that determine the training images and their augmentation."""
        limit = {split: getattr(self.dataset.limit, split) for split in splits}
        return ({"extra": self.extra_settings()} if extra and self.extra else {}) | {
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

    def _training_settings(
        self, recipe: Recipe, architecture: dict, seed: int, extra: bool, predicted: bool
    ) -> dict[str, Any]:
        """Returns all settings that a training depends on.

        Args:
            recipe: method and training settings.
            architecture: name and arguments of the architecture.
            seed: seed of the training.
            extra: True if it has the extra images.
            predicted: True if a teacher predicted their labels.
        """
        images = self._view_settings("train", "validation", extra=extra)
        if "extra" in images:
            images["extra"] |= {"share": self.extra.share, "labelled_by": self.extra.labelled_by if predicted else None}
        return {
            "protocol": self.file.protocol,
            "dataset": images,
            "threat_model": self.threat_model.model_dump(),
            "training": recipe.training.model_dump(),
            "compute": self.compute.model_dump(),
            "architecture": architecture,
            "method": recipe.method.resolved(),
            "seed": seed,
        }

    def data_settings(self, target: str | None = None) -> dict[str, Any]:
        """Returns the settings that determine the images of a dataset.

        Args:
            target: key under `transfer` in the experiment file, for the dataset of that transfer; None: the
                experiment's dataset.

        Returns:
            A dict of JSON values: `name`, `size` (side in pixels to which images are resized, None for their own size),
                and `folder` if no checksum of the files is known. An example is {"name": "cifar10", "size": None}.
        """
        return _images(self.dataset if target is None else self.file.transfer[target].dataset)

    def teacher_settings(self, name: str) -> dict[str, Any]:
        """Returns the settings that the training or import of the teacher `name` depends on, as a dict of JSON values.

        For a training the keys are `protocol`, `dataset`, `threat_model`, `training`, `compute`, `architecture`,
        `method`, `seed`, and `devices` if several share it. For an import they are `imported`, `architecture` and
        `dataset`.
        """
        teacher = self.teachers[name]
        if teacher.imported:
            own = teacher.imported.model_dump()
            return {"imported": own, "architecture": teacher.architecture, "dataset": self.data_settings()}
        extra, predicted = self.has_extra(name), self.has_predicted_labels(teacher=name)
        settings = self._training_settings(teacher.recipe, teacher.architecture, teacher.seed, extra, predicted)
        if teacher.devices > 1:
            settings["devices"] = {"count": teacher.devices, "batch_norm": teacher.batch_norm}
        return settings

    def cache_settings(self, kind: str, views: ViewSet) -> dict[str, Any]:
        """Returns the settings that a file of a teacher's outputs depends on, as a dict of JSON values.

        Args:
            kind: `logits` or `features`.
            views: the set of augmented training images for which the file has outputs, as `view_set` returns it.

        Returns:
            A dict with `kind`, `dataset` and `compute`. It also has `views` (augmentation, seed and epochs), unless the
            augmented images are all crops and flips.
        """
        settings = {"kind": kind, "dataset": self._view_settings("train"), "compute": self._inference_settings}
        return settings | ({"views": views.resolved()} if views.name else {})

    def labelling_settings(self) -> dict[str, Any]:
        """Returns the settings that the predicted labels of the extra images depend on, as a dict of JSON values."""
        return {
            "dataset": {**self.data_settings(), "extra": self.extra_settings()},
            "compute": self._inference_settings,
        }

    def student_settings(self, run: Run, recipe: Recipe | None = None) -> dict[str, Any]:
        """Returns the settings that the training of a student depends on, as a dict of JSON values.

        Args:
            run: the training, such as `Run("wide", "small", "rslad", 0)`: names of teacher, student and method, and the
                seed.
            recipe: method and training settings with the hyperparameters that the tuning stage chose. None: the
                settings of the experiment file, without the choice.

        Returns:
            A dict with `protocol`, `dataset`, `threat_model`, `training`, `compute`, `architecture`, `method` and
            `seed`.
        """
        recipe = recipe or self.recipes[run.method, run.student]
        predicted = self.has_predicted_labels(method=run.method, student=run.student)
        return self._training_settings(recipe, self.students[run.student], run.seed, self.has_extra(), predicted)

    def candidate_settings(self, student: str, method: str, candidate: str) -> dict[str, Any]:
        """Returns the settings that the short run of a candidate depends on, as a dict of JSON values.

        A candidate is one combination of hyperparameter values of the tuning stage.

        Args:
            student: name of the student, such as "small".
            method: name of the method in the experiment file, such as "rslad".
            candidate: name of the candidate, such as "learning_rate=0.1".

        Returns:
            A dict with `protocol`, `dataset`, `threat_model`, `training`, `compute`, `architecture`, `method` and
            `seed`.
        """
        recipe = self.tuning_recipe(student, method, candidate)
        predicted = self.has_predicted_labels(method=method, student=student)
        return self._training_settings(recipe, self.students[student], self.tuning_seed, self.has_extra(), predicted)

    def choice_settings(self, method: str) -> dict[str, Any]:
        """Returns the candidates of a method in the order of the tuning's grid, for the settings of the choice.

        A candidate is one combination of hyperparameter values that the tuning stage tries. Of equally good candidates
        the first is chosen.

        Args:
            method: name of the method in the experiment file, such as "rslad".

        Returns:
            A dict of JSON values, such as {"candidates": [{"training": {"learning_rate": 0.1}, "method": {"beta":
            3.0}}, ...]}.
        """
        return {"candidates": [candidate.resolved() for candidate in self.candidates[method].values()]}

    def tuning_settings(self) -> dict[str, Any]:
        """Returns the settings that the table of the tuning stage shows above its rows.

        Call it only for an experiment with a tuning stage.

        Returns:
            `experiment` (its name), `threat` (such as "linf eps 0.15"), `images` (number of validation images),
            `epochs` (of a short run) and `by` (what the candidates are compared by, `training.selection.by`).
        """
        training = next(iter(self.recipes.values())).training
        return {
            "experiment": self.name,
            "threat": self._threat,
            "images": self.size("validation"),
            "epochs": self.file.tuning.training.get("epochs", training.epochs),
            "by": training.selection.by,
        }

    def attack_settings(self, checkpoints: list[str]) -> dict[str, Any]:
        """Returns the settings that the attacks on one trained network depend on, as a dict of JSON values.

        Args:
            checkpoints: names of the network's checkpoints that are attacked, such as ["best", "last"].

        Returns:
            A dict with `dataset`, `threat_model`, `compute` and `evaluation`.
        """
        evaluation = self.evaluation.model_dump(exclude={"jobs", "metrics", "model_augmentation"})
        if self.model_augmentation:
            evaluation["model_augmentation"] = self.model_augmentation.model_dump()
        return {
            "dataset": self.data_settings(),
            "threat_model": self.threat_model.model_dump(),
            "compute": self._inference_settings,
            "evaluation": {**evaluation, "checkpoints": checkpoints, "images": self.test_images},
        }

    @property
    def surrogate(self) -> str | None:
        """Name of the teacher on which `transfer_` attacks are crafted; None if there are none."""
        asked = any(name.startswith(ON_SURROGATE) for name in self.evaluation.attacks)
        return self.evaluation.surrogate if asked else None

    @property
    def model_augmentation(self) -> ModelAugmentation | None:
        """The transformed copies over which `transfer_augmented_` attacks average; None if there are none."""
        asked = any(name.startswith(AUGMENTED) for name in self.evaluation.attacks)
        return self.evaluation.model_augmentation if asked else None

    @property
    def structure_images(self) -> int:
        """The number of test images of the structure analysis, for an experiment with the key `structure`."""
        return self.file.structure.images or self.size("test")

    def structure_settings(self) -> dict[str, Any]:
        """Returns the settings that the structure analysis of a model depends on, as a dict of JSON values.

        Call it only for an experiment with the key `structure`. The keys are `dataset`, `threat_model`, `compute`,
        `images` (their number) and `seed`.
        """
        return {
            "dataset": self.data_settings(),
            "threat_model": self.threat_model.model_dump(),
            "compute": self._inference_settings,
            "images": self.structure_images,
            "seed": self.evaluation.seed,
        }

    @property
    def robustness_images(self) -> int:
        """The number of test images of the accuracy against eps, for an experiment with the key `robustness`."""
        return self.file.robustness.images or self.size("test")

    def robustness_settings(self) -> dict[str, Any]:
        """Returns the settings that the accuracy of a model against eps depends on, as a dict of JSON values.

        Call it only for an experiment with the key `robustness`. The keys are `eps` (list of distances), `images`
        (their number), `gallery`, `dataset`, `threat_model`, `compute` and `seed`.
        """
        return {
            **self.file.robustness.model_dump(),
            "dataset": self.data_settings(),
            "threat_model": self.threat_model.model_dump(),
            "compute": self._inference_settings,
            "images": self.robustness_images,
            "seed": self.evaluation.seed,
        }

    def target_info(self, target: str) -> data.DatasetInfo:
        """Returns classes, image shape and sizes of the dataset of a transfer.

        Args:
            target: key under `transfer` in the experiment file, such as "parity".
        """
        chosen = self.file.transfer[target].dataset
        return data.info(chosen.name, chosen.options)

    def transfer_settings(self, target: str) -> dict[str, Any]:
        """Returns the settings that the transfer of a model to another dataset depends on, as a dict of JSON values.

        Args:
            target: key under `transfer` in the experiment file, such as "parity".

        Returns:
            A dict with the settings of the head (`epochs`, `batch_size`, `learning_rate`, `momentum`, `weight_decay`),
            `attacks`, `dataset`, `images` (number of test images), `threat_model`, `compute`, `block_size` and `seed`.
        """
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

    @property
    def _selection(self) -> str:
        """Describes how the checkpoint `best` was chosen, and that checkpoints hold averaged weights."""
        on_test = "on the test split, as in the papers' codes"
        rules = [f"chosen {on_test if self.selects_on_test else 'on the validation split'}"]
        recipes = self.recipes.values()
        by = {recipe.training.selection.by for recipe in recipes if recipe.training.selection.metric}
        rules += [f"by {name}" for name in sorted(by)]
        averages = sorted({recipe.training.averaging.name for recipe in recipes if recipe.training.averaging})
        return " ".join(rules) + (f", of averaged weights ({', '.join(averages)})" if averages else "")

    def matrix(self) -> dict[str, Any]:
        """Returns the settings that tables and figures depend on: headings, and the order of their rows and columns.

        Returns:
            A dict of JSON values. `experiment` is the name, `protocol` is `controlled` or `official`, `threat` is a
            text such as "linf eps 0.15", and `search` is the precision of the attacked network, such as "fp32".
            `comparisons` is a list of pairs of a teacher and a student, such as ("wide", "small"). `methods`,
            `checkpoints` and `metrics` (`clean`, then the attacks) are lists of names; `further` is the list of metrics
            beside accuracy, such as ["worst_class.autoattack"]. `selection` is a text on how `best` is chosen,
            `extra` a sentence on extra training images ("" without them). `published`, `published_as` and `tables` are
            as in the experiment file. Only if there are `transfer_augmented_` attacks, `augmented` is a sentence on
            them.
        """
        return {
            "experiment": self.name,
            "protocol": self.file.protocol,
            "threat": self._threat,
            "search": self.evaluation.search,
            "comparisons": self.comparisons,
            "methods": list(self.methods),
            "checkpoints": self.evaluation.checkpoints,
            "metrics": ["clean", *self.evaluation.attacks],
            "further": self.evaluation.metrics,
            "selection": self._selection,
            "extra": self.extra_text,
            "published": self.file.published,
            "published_as": self.file.published_as,
            "tables": {name: table.model_dump() for name, table in self.file.tables.items()},
            **({"augmented": self.model_augmentation.describe()} if self.model_augmentation else {}),
        }


def _images(files: DataFiles) -> dict[str, Any]:
    """Returns the settings that determine the images; the folder only if no checksum is known."""
    own = files.name == "image_folder" or not files.verify
    return {"name": files.name, "size": files.size} | ({"folder": files.folder} if own else {})


def _matches(rule: Exclusion, run: Run) -> bool:
    return all(getattr(run, key) in values for key, values in rule.model_dump(exclude_none=True).items())
