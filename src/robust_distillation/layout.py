"""Where everything lies under results/EXPERIMENT. The rules and the commands both ask here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from robust_distillation.resume import STATES


@dataclass(frozen=True)
class Layout:
    """Paths of one experiment; the arguments may be Snakemake wildcards."""

    experiment: str
    base: Path = Path("results")

    @cached_property
    def root(self) -> Path:
        return self.base / self.experiment

    @property
    def data(self) -> Path:
        return self.root / "data.json"

    def teacher(self, teacher: str) -> Path:
        return self.root / "teachers" / teacher

    def student(self, teacher: str, student: str, method: str, seed: str | int) -> Path:
        return self.root / "students" / teacher / student / method / f"seed-{seed}"

    @property
    def caches(self) -> Path:
        return self.root / "cache"

    def cache(self, teacher: str, kind: str) -> Path:
        return self.caches / teacher / f"{kind}.npy"

    def cache_record(self, teacher: str, kind: str) -> Path:
        """Beside the teacher, for the cache itself is not versioned."""
        return self.teacher(teacher) / f"cache-{kind}.record.json"

    def outcomes(self, trained: Path) -> Path:
        """The outcomes of the model in the folder `trained`."""
        return self.root / "outcomes" / trained.relative_to(self.root).with_name(f"{trained.name}.parquet")

    def shard(self, trained: Path, shard: str) -> Path:
        return self.root / "outcomes" / trained.relative_to(self.root) / f"{shard}.parquet"

    def record(self, artefact: Path) -> Path:
        """The record beside a single file; one of our folders has record.json."""
        return artefact.with_name(f"{artefact.stem}.record.json")

    def structure(self, trained: Path) -> Path:
        """What the model in the folder `trained` makes of the classes."""
        return (self.root / "structure" / trained.relative_to(self.root)).with_name(f"{trained.name}.json")

    def target_data(self, target: str) -> Path:
        return self.root / "transfer" / target / "data.json"

    def transferred(self, target: str, trained: Path) -> Path:
        """The outcomes of a model on another task; its weights lie beside them."""
        return (self.root / "transfer" / target / trained.relative_to(self.root)).with_name(f"{trained.name}.parquet")

    def candidates(self, teacher: str, student: str, method: str) -> Path:
        """The folder of a method's tuning: a folder per candidate, and choice.json."""
        return self.root / "tuning" / teacher / student / method

    def choice(self, teacher: str, student: str, method: str) -> Path:
        """What the tuning stage chose for a method's students."""
        return self.candidates(teacher, student, method) / "choice.json"

    def robustness(self, trained: Path) -> Path:
        """Accuracy of the model in the folder `trained` against eps; attacked images lie beside it as .npz."""
        return (self.root / "robustness" / trained.relative_to(self.root)).with_name(f"{trained.name}.json")

    def state(self, artefact: Path) -> Path:
        """What the job that makes `artefact`, a file or a folder, has done so far: outside of what is versioned."""
        return self.states / artefact.relative_to(self.root)

    @property
    def states(self) -> Path:
        return self.root / STATES

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def metrics(self) -> Path:
        """The folder of the headline numbers, a file per model and method: `dvc metrics` prints a row of each."""
        return self.root / "metrics"

    def headline(self, teacher: str, student: str | None = None, method: str | None = None) -> Path:
        """The headline numbers of a teacher itself, or of a student over its seeds."""
        if student is None:
            return self.metrics / "teachers" / f"{teacher}.json"
        return self.metrics / "students" / teacher / student / f"{method}.json"

    @property
    def tracked(self) -> Path:
        return self.root / "mlflow.json"

    @property
    def index(self) -> Path:
        """The hashes of all artefacts and records, written last."""
        return self.root / "provenance.json"

    @property
    def metadata(self) -> Path:
        """What Snakemake knows of this experiment's files, kept where DVC can version it."""
        return self.root / ".metadata"

    @property
    def report(self) -> Path:
        """What came out, for people."""
        return self.root / "report.html"

    @property
    def workflow_report(self) -> Path:
        """Snakemake's own report."""
        return self.root / "snakemake-report.html"
