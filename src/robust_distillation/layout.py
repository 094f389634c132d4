"""Paths of the files below results/EXPERIMENT, for the Snakemake rules and the commands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from robust_distillation.resume import STATES

FORMATS = ("csv", "md", "tex")  # file formats of a table
DRAWN = ("svg", "png", "pdf")  # file formats of a figure


def description_of(cache: str | Path) -> Path:
    """Returns the path of the JSON file beside a cached array that describes it. cache: path of the array."""
    return Path(cache).with_suffix(".json")


@dataclass(frozen=True)
class Layout:
    """Paths of the files of one experiment.

    Names passed to the methods may be Snakemake wildcards, such as "{teacher}". No method reads or writes a file.

    Attributes:
        experiment: name of the experiment.
        base: folder of all experiments.
    """

    experiment: str
    base: Path = Path("results")

    @cached_property
    def root(self) -> Path:
        """Folder of the experiment."""
        return self.base / self.experiment

    @property
    def data(self) -> Path:
        """File with the size and hash of each split of the dataset, which prepare-data writes."""
        return self.root / "data.json"

    def teacher(self, teacher: str) -> Path:
        """Returns the folder of a teacher's checkpoints, training log and record. teacher: name of the teacher."""
        return self.root / "teachers" / teacher

    def student(self, teacher: str, student: str, method: str, seed: str | int) -> Path:
        """Returns the folder of one student training, with its checkpoints, training log and record.

        Args:
            teacher: name of the teacher, or "none" for a method that needs no teacher.
            student: name of the student.
            method: name of the method.
            seed: seed of the training.
        """
        return self.root / "students" / teacher / student / method / f"seed-{seed}"

    @staticmethod
    def checkpoint(trained: Path, name: str) -> Path:
        """Returns the path of a checkpoint.

        trained: folder of a teacher or of one student training. name: "best", "last" or "imported".
        """
        return trained / f"{name}.safetensors"

    @staticmethod
    def curves(trained: Path) -> Path:
        """Returns the path of a training's metrics, a file of JSON lines with one line for each epoch.

        trained: folder of a teacher or of one student training.
        """
        return trained / "metrics.jsonl"

    @staticmethod
    def training(trained: Path) -> tuple[Path, Path, Path]:
        """Returns the paths of the files that a training writes: checkpoint "best", checkpoint "last", and metrics.

        trained: folder of a teacher or of one student training.
        """
        return Layout.checkpoint(trained, "best"), Layout.checkpoint(trained, "last"), Layout.curves(trained)

    @staticmethod
    def training_record(trained: Path) -> Path:
        """Returns the path of the record (inputs, hashes, code and settings as JSON) of a training or import.

        trained: folder of a teacher or of one student training.
        """
        return trained / "record.json"

    @property
    def caches(self) -> Path:
        """Folder of the cached outputs of all teachers."""
        return self.root / "cache"

    def cache(self, teacher: str, kind: str, views: str = "") -> Path:
        """Returns the path of the array of a teacher's cached outputs on views of the training images.

        Args:
            teacher: name of the teacher.
            kind: "logits" or "features".
            views: name of the views, or "" for all crops and flips of each image.
        """
        return self.caches / teacher / views / f"{kind}.npy"

    def cache_files(self, teacher: str, kind: str, views: str = "") -> tuple[Path, Path]:
        """Returns the paths of a cached array, as in `cache`, and of the JSON file that describes it."""
        return self.cache(teacher, kind, views), description_of(self.cache(teacher, kind, views))

    def cache_record(self, teacher: str, kind: str, views: str = "") -> Path:
        """Returns the path of the record of a cached array. It is in the teacher's folder, as DVC does not version the
        cache. The arguments are as in `cache`.
        """
        return self.teacher(teacher) / f"cache-{views}{'-' if views else ''}{kind}.record.json"

    def outcomes(self, trained: Path) -> Path:
        """Returns the path of a model's outcomes, a Parquet file.

        Outcomes state for each test image which attacks the model withstands.

        trained: folder of a teacher or of one student training.
        """
        return self.root / "outcomes" / trained.relative_to(self.root).with_name(f"{trained.name}.parquet")

    def shard(self, trained: Path, shard: str) -> Path:
        """Returns the path of a part of a model's outcomes, if several jobs attack the model.

        trained: folder of a teacher or of one student training. shard: name of the part.
        """
        return self.root / "outcomes" / trained.relative_to(self.root) / f"{shard}.parquet"

    def record(self, artefact: Path) -> Path:
        """Returns the path of the record (inputs, hashes, code and settings as JSON) of a single file.

        It is beside the file. The record of a folder is record.json in it, see `training_record`.

        artefact: path of the file.
        """
        return artefact.with_name(f"{artefact.stem}.record.json")

    def structure(self, trained: Path) -> Path:
        """Returns the path of a model's class structure, such as its mean logits for each class.

        trained: folder of a teacher or of one student training.
        """
        return (self.root / "structure" / trained.relative_to(self.root)).with_name(f"{trained.name}.json")

    def target_data(self, target: str) -> Path:
        """Returns the path of the file with the split sizes and hashes of a transfer dataset.

        target: name of the dataset in the experiment's `transfer`.
        """
        return self.root / "transfer" / target / "data.json"

    def transferred(self, target: str, trained: Path) -> Path:
        """Returns the path of the outcomes of a model after transfer to another dataset.

        target: name of the dataset in the experiment's `transfer`. trained: folder of a teacher or of one student
        training.
        """
        return (self.root / "transfer" / target / trained.relative_to(self.root)).with_name(f"{trained.name}.parquet")

    def transferred_weights(self, target: str, trained: Path) -> Path:
        """Returns the path of the checkpoint of a model with a new linear head for another dataset.

        target: name of the dataset in the experiment's `transfer`. trained: folder of a teacher or of one student
        training.
        """
        return self.transferred(target, trained).with_suffix(".safetensors")

    def candidates(self, teacher: str, student: str, method: str) -> Path:
        """Returns the folder of a method's hyperparameter tuning: one folder for each candidate, and choice.json.

        Args:
            teacher: name of the teacher, or "none" for a method that needs no teacher.
            student: name of the student.
            method: name of the method.
        """
        return self.root / "tuning" / teacher / student / method

    def candidate(self, teacher: str, student: str, method: str, candidate: str) -> Path:
        """Returns the folder of the training of one candidate, a combination of hyperparameters that the tuning tries.

        Args:
            teacher: name of the teacher, or "none" for a method that needs no teacher.
            student: name of the student.
            method: name of the method.
            candidate: name of the candidate, for example "learning_rate=0.1,beta=3.0".
        """
        return self.candidates(teacher, student, method) / candidate

    def compared(self, teacher: str, student: str, method: str) -> Path:
        """Returns the path of the results of all candidates of a tuning.

        Args:
            teacher: name of the teacher, or "none" for a method that needs no teacher.
            student: name of the student.
            method: name of the method.
        """
        return self.candidates(teacher, student, method) / "candidates.json"

    def choice(self, teacher: str, student: str, method: str) -> Path:
        """Returns the path of the file with the hyperparameters that the tuning selected.

        Args:
            teacher: name of the teacher, or "none" for a method that needs no teacher.
            student: name of the student.
            method: name of the method.
        """
        return self.candidates(teacher, student, method) / "choice.json"

    def robustness(self, trained: Path) -> Path:
        """Returns the path of a model's accuracy against eps, a JSON file.

        trained: folder of a teacher or of one student training.
        """
        return (self.root / "robustness" / trained.relative_to(self.root)).with_name(f"{trained.name}.json")

    def gallery(self, trained: Path) -> Path:
        """Returns the path of some adversarial images of a model, an .npz file.

        trained: folder of a teacher or of one student training.
        """
        return self.robustness(trained).with_suffix(".npz")

    def state(self, artefact: Path) -> Path:
        """Returns the folder of the saved progress of the job that makes `artefact`. DVC does not version it.

        artefact: output file or folder of the job.
        """
        return self.states / artefact.relative_to(self.root)

    @property
    def states(self) -> Path:
        """Folder of the saved progress of all jobs."""
        return self.root / STATES

    def log(self, step: str, values: Iterable[str]) -> Path:
        """Returns the path of the log of a job. step: name of its step. values: values of the step's wildcards."""
        return self.root.joinpath("logs", step, *values).with_suffix(".log")

    @property
    def tables(self) -> Path:
        """Folder of the tables."""
        return self.root / "tables"

    def table(self, name: str) -> tuple[Path, ...]:
        """Returns the paths of a table, one for each of FORMATS. name: name of the table."""
        return tuple(self.tables / f"{name}.{kind}" for kind in FORMATS)

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.root / "figures"

    def pictures(self, comparisons: Iterable[tuple[str, str]], *names: str) -> tuple[Path, ...]:
        """Returns the paths of the figures of several comparisons, one for each of DRAWN.

        comparisons: pairs of a teacher's and a student's name. names: names of the figures of each comparison.
        """
        panels = [self.figures / teacher / student for teacher, student in comparisons]
        return tuple(panel / f"{name}.{kind}" for panel in panels for name in names for kind in DRAWN)

    @property
    def metrics(self) -> Path:
        """Folder of the main accuracies, which `dvc metrics` reads: a file per teacher, and per student and method."""
        return self.root / "metrics"

    def headline(self, teacher: str, student: str | None = None, method: str | None = None) -> Path:
        """Returns the path of the main accuracies of a teacher, or of a student and method over all seeds.

        Args:
            teacher: name of the teacher, or "none" for a method that needs no teacher.
            student: name of the student, or None for the teacher's accuracies.
            method: name of the method; None if `student` is None.
        """
        if student is None:
            return self.metrics / "teachers" / f"{teacher}.json"
        return self.metrics / "students" / teacher / student / f"{method}.json"

    @property
    def tracked(self) -> Path:
        """File with the ids of the MLflow runs."""
        return self.root / "mlflow.json"

    @property
    def index(self) -> Path:
        """File with the hashes of all artefacts and records, written by the last step."""
        return self.root / "provenance.json"

    @property
    def metadata(self) -> Path:
        """Folder with Snakemake's metadata about the experiment's files, copied here so that DVC can version it."""
        return self.root / ".metadata"

    @property
    def report(self) -> Path:
        """HTML report of the results."""
        return self.root / "report.html"

    @property
    def workflow_report(self) -> Path:
        """Report that Snakemake generates."""
        return self.root / "snakemake-report.html"
