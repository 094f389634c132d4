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
    """Returns the path of the JSON file beside a cached array that describes the array.

    Args:
        cache: path of the array, such as `.../logits.npy`. The result is then `.../logits.json`.
    """
    return Path(cache).with_suffix(".json")


@dataclass(frozen=True)
class Layout:
    """Paths of the files of one experiment.

    Names passed to its functions may be Snakemake wildcards, such as "{teacher}". No function reads or writes a file.
    All results are below the folder `base`/`experiment`.

    `experiment.layout` is the object of an experiment that `config.load` returns. In the arguments, `trained` is the
    folder of a trained network, such as `results/digits/teachers/wide`.

    Attributes:
        experiment: name of the experiment, such as "digits".
        base: folder of all experiments.
    """

    experiment: str
    base: Path = Path("results")

    @cached_property
    def root(self) -> Path:
        """Folder of the experiment, such as `results/digits`."""
        return self.base / self.experiment

    @property
    def data(self) -> Path:
        """JSON file with size and hash of each split of the dataset, such as `results/digits/data.json`."""
        return self.root / "data.json"

    @property
    def extra_data(self) -> Path:
        """JSON file with the number and hash of the extra training images, which the step prepare-extra writes."""
        return self.root / "extra" / "data.json"

    @property
    def extra_labels(self) -> Path:
        """NumPy array of the labels of the extra training images that a teacher predicted; of the step label-extra."""
        return self.root / "extra" / "labels.npy"

    def teacher(self, teacher: str) -> Path:
        """Returns the folder of a teacher's checkpoints, training log and record.

        The record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs.

        Args:
            teacher: name of the teacher, such as "wide". The result is then `results/digits/teachers/wide`.
        """
        return self.root / "teachers" / teacher

    def student(self, teacher: str, student: str, method: str, seed: str | int) -> Path:
        """Returns the folder of one student training, with its checkpoints, training log and record.

        An example is `results/digits/students/wide/small/rslad/seed-0`. The record is the JSON file beside an output:
        its inputs, settings, code hash and hashes of the outputs.

        Args:
            teacher: name of the teacher, such as "wide", or of the entry of the experiment file that names several
                teachers; "none" for a method that needs no teacher.
            student: name of the student network, such as "small".
            method: name of the method in the experiment file, such as "rslad".
            seed: seed of the training.
        """
        return self.root / "students" / teacher / student / method / f"seed-{seed}"

    @staticmethod
    def checkpoint(trained: Path, name: str) -> Path:
        """Returns the path of a checkpoint, such as `.../seed-0/best.safetensors`.

        Args:
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
            name: "best", "last" or "imported".
        """
        return trained / f"{name}.safetensors"

    @staticmethod
    def curves(trained: Path) -> Path:
        """Returns the path of the metrics of a training, metrics.jsonl, with one line of JSON for each epoch.

        Args:
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
        """
        return trained / "metrics.jsonl"

    @staticmethod
    def training(trained: Path) -> tuple[Path, Path, Path]:
        """Returns the paths of the checkpoint "best", the checkpoint "last" and the metrics of a training.

        Args:
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
        """
        return Layout.checkpoint(trained, "best"), Layout.checkpoint(trained, "last"), Layout.curves(trained)

    @staticmethod
    def training_record(trained: Path) -> Path:
        """Returns the path of the record of a training or import, such as `.../seed-0/record.json`.

        The record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs.

        Args:
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
        """
        return trained / "record.json"

    @property
    def caches(self) -> Path:
        """Folder of the cached outputs of all teachers, such as `results/digits/cache`."""
        return self.root / "cache"

    def cache(self, teacher: str, kind: str, views: str = "") -> Path:
        """Returns the path of the array of a teacher's cached outputs, a .npy file.

        It has one row for each view of each training image. A view is what an augmentation makes of one image.

        Examples are `results/digits/cache/wide/logits.npy` for all crops and flips, and
        `results/digits/cache/wide/cutout-0a1b2c3d-seed-0-epochs-20/logits.npy` for the views of one training.

        Args:
            teacher: name of the teacher, such as "wide".
            kind: "logits" or "features".
            views: name of the views (augmented training images) of one training, such as
                `cutout-0a1b2c3d-seed-0-epochs-20`, as `ViewSet.name` returns it; "" for all crops and flips of each
                image.
        """
        return self.caches / teacher / views / f"{kind}.npy"

    def cache_files(self, teacher: str, kind: str, views: str = "") -> tuple[Path, Path]:
        """Returns the paths of a cached array of a teacher's outputs and of the JSON file that describes the array.

        Args:
            teacher: name of the teacher, such as "wide".
            kind: "logits" or "features".
            views: name of the views (augmented training images) of one training, such as
                `cutout-0a1b2c3d-seed-0-epochs-20`, as `ViewSet.name` returns it; "" for all crops and flips of each
                image.
        """
        return self.cache(teacher, kind, views), description_of(self.cache(teacher, kind, views))

    def cache_record(self, teacher: str, kind: str, views: str = "") -> Path:
        """Returns the path of the record of an array of a teacher's cached outputs.

        The record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs. This
        one is in the teacher's folder and not beside the array, as DVC does not version the arrays.

        An example is `results/digits/teachers/wide/cache-logits.record.json`.

        Args:
            teacher: name of the teacher, such as "wide".
            kind: "logits" or "features".
            views: name of the views (augmented training images) of one training, such as
                `cutout-0a1b2c3d-seed-0-epochs-20`, as `ViewSet.name` returns it; "" for all crops and flips of each
                image.
        """
        return self.teacher(teacher) / f"cache-{views}{'-' if views else ''}{kind}.record.json"

    def outcomes(self, trained: Path) -> Path:
        """Returns the path of the outcomes of a trained network, a Parquet file.

        Outcomes state for each test image and attack whether the model classifies the image correctly. An example is
        `results/digits/outcomes/students/wide/small/rslad/seed-0.parquet`.

        Args:
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
        """
        return self.root / "outcomes" / trained.relative_to(self.root).with_name(f"{trained.name}.parquet")

    def shard(self, trained: Path, shard: str) -> Path:
        """Returns the path of the part of a network's outcomes that one of several jobs makes, a Parquet file.

        Outcomes state for each test image and attack whether the network classifies the image correctly. An example is
        `results/digits/outcomes/students/wide/small/rslad/seed-0/1-of-3.parquet`.

        Args:
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
            shard: name of the part, NUMBER-of-JOBS, such as "1-of-3".
        """
        return self.root / "outcomes" / trained.relative_to(self.root) / f"{shard}.parquet"

    def record(self, artefact: Path) -> Path:
        """Returns the path of the record of a single file.

        The record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs. That of
        `data.json` is `data.record.json`. The record of a folder is record.json in it, see `training_record`.

        Args:
            artefact: path of the file.
        """
        return artefact.with_name(f"{artefact.stem}.record.json")

    def structure(self, trained: Path) -> Path:
        """Returns the path of the results of the structure analysis of a trained network, a JSON file.

        It has the correlations between the logits of the classes and the distances by which an attack moves the
        features.

        An example is `results/digits/structure/students/wide/small/rslad/seed-0.json`.

        Args:
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
        """
        return (self.root / "structure" / trained.relative_to(self.root)).with_name(f"{trained.name}.json")

    def target_data(self, target: str) -> Path:
        """Returns the path of the JSON file with the split sizes and hashes of a transfer dataset.

        An example is `results/digits/transfer/parity/data.json`.

        Args:
            target: key of the dataset under `transfer` in the experiment file, such as "parity".
        """
        return self.root / "transfer" / target / "data.json"

    def transferred(self, target: str, trained: Path) -> Path:
        """Returns the path of the outcomes of a model after transfer to another dataset, a Parquet file.

        Outcomes state for each test image and attack whether the model, with a new linear head, classifies the image
        correctly.

        An example is `results/digits/transfer/parity/students/wide/small/rslad/seed-0.parquet`.

        Args:
            target: key of the dataset under `transfer` in the experiment file, such as "parity".
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
        """
        return (self.root / "transfer" / target / trained.relative_to(self.root)).with_name(f"{trained.name}.parquet")

    def transferred_weights(self, target: str, trained: Path) -> Path:
        """Returns the path of the checkpoint of a model with a new linear head for another dataset.

        An example is `results/digits/transfer/parity/students/wide/small/rslad/seed-0.safetensors`.

        Args:
            target: key of the dataset under `transfer` in the experiment file, such as "parity".
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
        """
        return self.transferred(target, trained).with_suffix(".safetensors")

    def candidates(self, teacher: str, student: str, method: str) -> Path:
        """Returns the folder of a method's hyperparameter tuning.

        It has one folder for each candidate (one combination of values), candidates.json and choice.json.

        An example is `results/digits/tuning/wide/small/rslad`.

        Args:
            teacher: name of the teacher, such as "wide", or of the entry of the experiment file that names several
                teachers; "none" for a method that needs no teacher.
            student: name of the student network, such as "small".
            method: name of the method in the experiment file, such as "rslad".
        """
        return self.root / "tuning" / teacher / student / method

    def candidate(self, teacher: str, student: str, method: str, candidate: str) -> Path:
        """Returns the folder of the training of one candidate, a combination of hyperparameters that the tuning tries.

        An example is `results/digits/tuning/wide/small/rslad/learning_rate=0.1`.

        Args:
            teacher: name of the teacher, such as "wide", or of the entry of the experiment file that names several
                teachers; "none" for a method that needs no teacher.
            student: name of the student network, such as "small".
            method: name of the method in the experiment file, such as "rslad".
            candidate: name of the candidate, for example "learning_rate=0.1,beta=3.0".
        """
        return self.candidates(teacher, student, method) / candidate

    def compared(self, teacher: str, student: str, method: str) -> Path:
        """Returns the path of the JSON file with the values and validation accuracies of all candidates of a tuning.

        An example is `results/digits/tuning/wide/small/rslad/candidates.json`.

        Args:
            teacher: name of the teacher, such as "wide", or of the entry of the experiment file that names several
                teachers; "none" for a method that needs no teacher.
            student: name of the student network, such as "small".
            method: name of the method in the experiment file, such as "rslad".
        """
        return self.candidates(teacher, student, method) / "candidates.json"

    def choice(self, teacher: str, student: str, method: str) -> Path:
        """Returns the path of the JSON file with the hyperparameters that the tuning selected.

        An example is `results/digits/tuning/wide/small/rslad/choice.json`.

        Args:
            teacher: name of the teacher, such as "wide", or of the entry of the experiment file that names several
                teachers; "none" for a method that needs no teacher.
            student: name of the student network, such as "small".
            method: name of the method in the experiment file, such as "rslad".
        """
        return self.candidates(teacher, student, method) / "choice.json"

    def robustness(self, trained: Path) -> Path:
        """Returns the path of the accuracies of a network at several sizes eps of the perturbation, a JSON file.

        An example is `results/digits/robustness/students/wide/small/rslad/seed-0.json`.

        Args:
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
        """
        return (self.root / "robustness" / trained.relative_to(self.root)).with_name(f"{trained.name}.json")

    def gallery(self, trained: Path) -> Path:
        """Returns the path of some clean images and the adversarial images made for a network, an .npz file.

        An example is `results/digits/robustness/students/wide/small/rslad/seed-0.npz`.

        Args:
            trained: folder of a teacher or of one student training, as `teacher` or `student` returns it, such as
                `results/digits/students/wide/small/rslad/seed-0`.
        """
        return self.robustness(trained).with_suffix(".npz")

    def state(self, artefact: Path) -> Path:
        """Returns the folder of the saved progress of the job that makes `artefact`. DVC does not version it.

        An example is `results/digits/.state/students/wide/small/rslad/seed-0`.

        Args:
            artefact: output file or folder of the job, below `root`.
        """
        return self.states / artefact.relative_to(self.root)

    @property
    def states(self) -> Path:
        """Folder of the saved progress of all jobs, such as `results/digits/.state`."""
        return self.root / STATES

    def log(self, step: str, values: Iterable[str]) -> Path:
        """Returns the path of the log of a job.

        An example is `results/digits/logs/train-student/wide/small/rslad/seed-0.log`.

        Args:
            step: name of the command that runs the job, such as "train-student".
            values: values of the step's wildcards, each one or more parts of the path.
        """
        folder = self.root.joinpath("logs", step, *values)
        return folder.with_name(f"{folder.name}.log")

    @property
    def tables(self) -> Path:
        """Folder of the tables of results, such as `results/digits/tables`."""
        return self.root / "tables"

    def table(self, name: str) -> tuple[Path, ...]:
        """Returns the paths of a table as CSV, Markdown and LaTeX, in this order.

        Args:
            name: name of the table, such as "main".
        """
        return tuple(self.tables / f"{name}.{kind}" for kind in FORMATS)

    @property
    def figures(self) -> Path:
        """Folder of the figures, such as `results/digits/figures`."""
        return self.root / "figures"

    def pictures(self, comparisons: Iterable[tuple[str, str]], *names: str) -> tuple[Path, ...]:
        """Returns the paths of figures, each as SVG, PNG and PDF.

        An example is `results/digits/figures/wide/small/correlations.svg`.

        Args:
            comparisons: pairs of the name of a teacher and of a student; one folder of figures each.
            *names: names of the figures of each pair, such as "correlations".

        Returns:
            The paths, sorted by pair, then by name, then by format (svg, png, pdf).
        """
        panels = [self.figures / teacher / student for teacher, student in comparisons]
        return tuple(panel / f"{name}.{kind}" for panel in panels for name in names for kind in DRAWN)

    @property
    def metrics(self) -> Path:
        """Folder of JSON files with mean accuracies, which `dvc metrics` reads, such as `results/digits/metrics`.

        The accuracies are those on clean images and under the last attack of `evaluation.attacks`. There is one file
        for each teacher, and one for each combination of teacher, student and distillation method.
        """
        return self.root / "metrics"

    def headline(self, teacher: str, student: str | None = None, method: str | None = None) -> Path:
        """Returns the path of the main accuracies of a teacher or of a method's students, a JSON file.

        They are the mean accuracies over the seeds, clean and under the last attack of `evaluation.attacks`.

        An example is `results/digits/metrics/students/wide/small/rslad.json`.

        Args:
            teacher: name of the teacher, such as "wide", or of the entry of the experiment file that names several
                teachers; "none" for a method that needs no teacher.
            student: name of the student, or None for the teacher's accuracies.
            method: name of the method; None if `student` is None.
        """
        if student is None:
            return self.metrics / "teachers" / f"{teacher}.json"
        return self.metrics / "students" / teacher / student / f"{method}.json"

    @property
    def tracked(self) -> Path:
        """JSON file with the ids of the MLflow runs, such as `results/digits/mlflow.json`."""
        return self.root / "mlflow.json"

    @property
    def index(self) -> Path:
        """JSON file with the hashes of all outputs and records, such as `results/digits/provenance.json`.

        A record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs.
        """
        return self.root / "provenance.json"

    @property
    def metadata(self) -> Path:
        """Folder with a copy of Snakemake's metadata about the experiment's files, so that DVC can version it."""
        return self.root / ".metadata"

    @property
    def report(self) -> Path:
        """HTML report of the results, such as `results/digits/report.html`."""
        return self.root / "report.html"

    @property
    def workflow_report(self) -> Path:
        """HTML report that Snakemake generates, such as `results/digits/snakemake-report.html`."""
        return self.root / "snakemake-report.html"
