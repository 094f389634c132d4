"""Paths of the files below results/EXPERIMENT, for the Snakemake rules and the commands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from robust_distillation.resume import STATES

FORMATS = ("csv", "md", "tex")  # of a table
DRAWN = ("svg", "png", "pdf")  # formats of a figure


def description_of(cache: str | Path) -> Path:
    """Returns the JSON file that lies beside a cache file."""
    return Path(cache).with_suffix(".json")


@dataclass(frozen=True)
class Layout:
    """Paths of the files of one experiment.

    Names passed to the methods may be Snakemake wildcards, such as "{teacher}". `trained` is always the folder of a
    teacher or of one student training, as `teacher` and `student` return it.

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
        """Returns the folder of a teacher's checkpoints, training log and record."""
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
        """Returns the weights of the model in the folder `trained`; name: best, last or imported."""
        return trained / f"{name}.safetensors"

    @staticmethod
    def curves(trained: Path) -> Path:
        """Returns the metrics of the training in the folder `trained`, a line for each epoch."""
        return trained / "metrics.jsonl"

    @staticmethod
    def training(trained: Path) -> tuple[Path, Path, Path]:
        """Returns what a training writes into the folder `trained`: best and last checkpoint, and the curves."""
        return Layout.checkpoint(trained, "best"), Layout.checkpoint(trained, "last"), Layout.curves(trained)

    @staticmethod
    def training_record(trained: Path) -> Path:
        """Returns the record of the training, or import, in the folder `trained`."""
        return trained / "record.json"

    @property
    def caches(self) -> Path:
        """Folder of the cached outputs of all teachers."""
        return self.root / "cache"

    def cache(self, teacher: str, kind: str) -> Path:
        """Returns the file of a teacher's cached outputs for the views of the training images.

        A view is one crop-and-flip of one image. kind: "logits" or "features".
        """
        return self.caches / teacher / f"{kind}.npy"

    def cache_files(self, teacher: str, kind: str) -> tuple[Path, Path]:
        """Returns the array of a cache and its description."""
        return self.cache(teacher, kind), description_of(self.cache(teacher, kind))

    def cache_record(self, teacher: str, kind: str) -> Path:
        """Returns the record of a cache. kind: "logits" or "features".

        It lies in the teacher's folder, because DVC does not version the cache.
        """
        return self.teacher(teacher) / f"cache-{kind}.record.json"

    def outcomes(self, trained: Path) -> Path:
        """Returns the Parquet file of a model's outcomes: for each test image, which attacks the model withstands."""
        return self.root / "outcomes" / trained.relative_to(self.root).with_name(f"{trained.name}.parquet")

    def shard(self, trained: Path, shard: str) -> Path:
        """Returns the file of a part of the outcomes, if several jobs attack a model. shard: name of the part."""
        return self.root / "outcomes" / trained.relative_to(self.root) / f"{shard}.parquet"

    def record(self, artefact: Path) -> Path:
        """Returns the record (inputs, hashes, code and settings as JSON) of a single file, which lies beside it.

        The record of a folder is the file record.json in it.
        """
        return artefact.with_name(f"{artefact.stem}.record.json")

    def structure(self, trained: Path) -> Path:
        """Returns the file of a model's class structure, such as its mean logits for each class."""
        return (self.root / "structure" / trained.relative_to(self.root)).with_name(f"{trained.name}.json")

    def target_data(self, target: str) -> Path:
        """Returns the file with the sizes and hashes of a transfer dataset. target: name of the dataset."""
        return self.root / "transfer" / target / "data.json"

    def transferred(self, target: str, trained: Path) -> Path:
        """Returns the outcomes of a model after transfer to another dataset. Its new weights lie beside them.

        target: name of the dataset.
        """
        return (self.root / "transfer" / target / trained.relative_to(self.root)).with_name(f"{trained.name}.parquet")

    def transferred_weights(self, target: str, trained: Path) -> Path:
        """Returns the weights of a model with a head for another task."""
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
        """Returns the folder of one candidate's training.

        Args:
            teacher: name of the teacher, none for a method without one.
            student: name of the student.
            method: name of the method.
            candidate: name of the candidate.
        """
        return self.candidates(teacher, student, method) / candidate

    def compared(self, teacher: str, student: str, method: str) -> Path:
        """Returns the table of all candidates of a method.

        Args:
            teacher: name of the teacher, none for a method without one.
            student: name of the student.
            method: name of the method.
        """
        return self.candidates(teacher, student, method) / "candidates.json"

    def choice(self, teacher: str, student: str, method: str) -> Path:
        """Returns the file with the hyperparameters that the tuning selected.

        Args:
            teacher: name of the teacher, or "none" for a method that needs no teacher.
            student: name of the student.
            method: name of the method.
        """
        return self.candidates(teacher, student, method) / "choice.json"

    def robustness(self, trained: Path) -> Path:
        """Returns the file of a model's accuracy against eps. Some adversarial images lie beside it as .npz."""
        return (self.root / "robustness" / trained.relative_to(self.root)).with_name(f"{trained.name}.json")

    def gallery(self, trained: Path) -> Path:
        """Returns the attacked images of the model in the folder `trained`."""
        return self.robustness(trained).with_suffix(".npz")

    def state(self, artefact: Path) -> Path:
        """Returns the folder of the resumable state of the job that makes `artefact`. DVC does not version it.

        artefact: output file or folder of the job.
        """
        return self.states / artefact.relative_to(self.root)

    @property
    def states(self) -> Path:
        """Folder of the resumable states of all jobs."""
        return self.root / STATES

    def log(self, step: str, values: Iterable[str]) -> Path:
        """Returns what a job prints; values: of its wildcards."""
        return self.root.joinpath("logs", step, *values).with_suffix(".log")

    @property
    def tables(self) -> Path:
        """Folder of the tables."""
        return self.root / "tables"

    def table(self, name: str) -> tuple[Path, ...]:
        """Returns the files of a table, one for each of FORMATS."""
        return tuple(self.tables / f"{name}.{kind}" for kind in FORMATS)

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.root / "figures"

    def pictures(self, comparisons: Iterable[tuple[str, str]], *names: str) -> tuple[Path, ...]:
        """Returns the files of the figures `names` of each comparison (teacher, student), one for each of DRAWN."""
        panels = [self.figures / teacher / student for teacher, student in comparisons]
        return tuple(panel / f"{name}.{kind}" for panel in panels for name in names for kind in DRAWN)

    @property
    def metrics(self) -> Path:
        """Folder of the headline numbers, which `dvc metrics` reads: a file per teacher, and per student and method."""
        return self.root / "metrics"

    def headline(self, teacher: str, student: str | None = None, method: str | None = None) -> Path:
        """Returns the file of the headline numbers of a teacher, or of a student and method over all seeds.

        Args:
            teacher: name of the teacher, or "none" for a method that needs no teacher.
            student: name of the student, or None for the teacher's own numbers.
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
