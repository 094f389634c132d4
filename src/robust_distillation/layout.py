"""Paths of the files below results/EXPERIMENT, for the Snakemake rules and the commands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from robust_distillation.resume import STATES


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

    @property
    def caches(self) -> Path:
        """Folder of the cached outputs of all teachers."""
        return self.root / "cache"

    def cache(self, teacher: str, kind: str) -> Path:
        """Returns the file of a teacher's cached outputs for the views of the training images.

        A view is one crop-and-flip of one image. kind: "logits" or "features".
        """
        return self.caches / teacher / f"{kind}.npy"

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

    def candidates(self, teacher: str, student: str, method: str) -> Path:
        """Returns the folder of a method's hyperparameter tuning: one folder for each candidate, and choice.json.

        Args:
            teacher: name of the teacher, or "none" for a method that needs no teacher.
            student: name of the student.
            method: name of the method.
        """
        return self.root / "tuning" / teacher / student / method

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

    def state(self, artefact: Path) -> Path:
        """Returns the folder of the resumable state of the job that makes `artefact`. DVC does not version it.

        artefact: output file or folder of the job.
        """
        return self.states / artefact.relative_to(self.root)

    @property
    def states(self) -> Path:
        """Folder of the resumable states of all jobs."""
        return self.root / STATES

    @property
    def tables(self) -> Path:
        """Folder of the tables."""
        return self.root / "tables"

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.root / "figures"

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
