"""The types of an experiment file: meaning, default and allowed values of each setting."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from robust_distillation.data.info import DataOptions
from robust_distillation.settings import Compute, Distance, Epochs, Name, Positive, Seed, Settings, ThreatModel

Checkpoint = Literal["best", "last"]


class Limit(Settings):
    """Use only the first images of a split."""

    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None


class DataFiles(Settings):
    """A dataset and where its files lie."""

    name: str
    size: int | None = Field(None, ge=4, le=1024, description="every image is resized to size x size")
    folder: str = Field("data", description="where datasets that are files on disk lie")
    download: bool = Field(True, description="fetch files that are missing")
    verify: bool = Field(
        True, description="compare the files with torchvision's checksums; false for files of one's own"
    )
    mirror: str | None = Field(None, description="URL of the folder to fetch files from instead of the original one")
    classes: list[str] = Field([], description="image_folder: the classes, needed only before the folder is there")

    @property
    def options(self) -> DataOptions:
        """The options of the dataset's module."""
        return DataOptions(self.folder, self.size, self.download, self.verify, self.mirror, tuple(self.classes))


class DatasetSettings(DataFiles):
    """The dataset of an experiment, its augmentation and the number of its images."""

    padding: int = Field(0, ge=0, le=16, description="zero padding of the random crops; 0 switches them off")
    limit: Limit = Limit()


class Evaluation(Settings):
    """The attacks on trained networks."""

    images: Positive | None = Field(None, description="the first images of the test split; all where left out")
    attacks: list[str] = Field(min_length=1)
    surrogate: str | None = Field(None, description="the teacher on which transfer_... attacks are crafted")
    checkpoints: list[Checkpoint] = Field(["best", "last"], min_length=1)
    block_size: Positive = Field(100, description="images attacked together under one seed")
    seed: Seed = 0
    search: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="precision of the network that is attacked; the network in fp32 classifies the adversarial images, "
        "so bf16 can miss some: every table says so",
    )
    jobs: Positive = Field(1, description="jobs that share the blocks of one run")


class Structure(Settings):
    """The comparison of teacher and student: correlation of the logits by class, and features under attack."""

    images: Positive | None = Field(None, description="the first images of the test split; all where left out")


class Robustness(Settings):
    """Accuracy against eps, and a gallery of attacked images."""

    eps: list[Distance] = Field(min_length=1, description="ascending; 0 is always measured")
    images: Positive | None = Field(None, description="the first images of the test split; all where left out")
    gallery: int = Field(6, ge=1, le=100, description="so many of them are stored, attacked at the threat model's eps")


class Transfer(Settings):
    """Transfer to another task: a linear head is trained on the frozen backbone, and both are attacked end to end."""

    dataset: DataFiles
    epochs: Epochs
    batch_size: Positive
    learning_rate: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    attacks: list[str] = Field(min_length=1)
    images: Positive | None = Field(None, description="the first images of the test split; all where left out")


Names = list[str] | None


class Table(Settings):
    """A part of the main table under a title; a key that is left out selects all rows or columns."""

    title: str = Field(min_length=1, max_length=300)
    teachers: Names = None
    students: Names = None
    methods: Names = None
    checkpoints: Names = None
    metrics: Names = None


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]


class Exclusion(Settings):
    """Runs to leave out: those that match all keys. Each key has a name or a list of names."""

    teacher: Annotated[Names, BeforeValidator(_listed)] = None
    student: Annotated[Names, BeforeValidator(_listed)] = None
    method: Annotated[Names, BeforeValidator(_listed)] = None
    seed: Annotated[list[int] | None, BeforeValidator(_listed)] = None


class Imported(Settings):
    """A source of published weights: see docs/importing.md."""

    source: str
    file: str | None = Field(None, description="where the file lies; the source's own name under models/ if left out")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    normalisation: str | None = Field(None, description="another than the source's")
    model: str | None = Field(None, description="robustbench: the name in its model zoo")


class TeacherEntry(Settings):
    """Keys of an entry under `teachers`; all others are arguments of its architecture."""

    roles: dict[Name, Name] | None = Field(
        None, description="no network of its own: the teachers that stand in each role of a method with several"
    )
    trained_by: dict[str, Any] | None = None
    imported: Imported | None = None
    seed: Seed = 0
    checkpoint: Checkpoint = "best"
    devices: Positive = Field(1, description="that train it together; the batch is shared out among them")
    batch_norm: Literal["synchronised", "local"] = Field("synchronised", description="over the batch, or each share")
    training: dict[str, Any] = Field({}, description="what differs from the budget of the students")


def _claimed(value: Any) -> Any:
    return {"claim": value} if isinstance(value, str) else value


class ClaimEntry(Settings):
    """A statement that the results support or refute: see `config.claims`."""

    claim: str = Field(min_length=1, max_length=300, description="A > B on METRIC [at best|last] [by X]")
    teachers: Names = None
    students: Names = None
    paper: str = Field("", max_length=1000, description="what the paper says, in our words")


Grid = dict[str, Annotated[list[Any], Field(min_length=1)]]


class Tuning(Settings):
    """The tuning stage of the controlled protocol.

    Before its students, every method has the same number of short runs. The students are trained with the values of the
    run with the highest accuracy on the validation split.
    """

    training: dict[str, Any] = Field({}, description="what differs from the budget in the short runs")
    grid: Grid = Field({}, description="values of the budget to compare, the same for every method")
    methods: dict[Name, Grid] = Field(
        {}, description="of a method: values of its settings, or of the budget in place of those in `grid`"
    )
    seed: Seed = Field(0, description="of the short runs; they share no random numbers with any student")


class ExperimentFile(Settings):
    """The top level of an experiment file."""

    name: Name
    protocol: Literal["controlled", "official"]
    dataset: DatasetSettings
    threat_model: ThreatModel
    training: dict[str, Any] = Field({})
    compute: Compute = Compute()
    evaluation: Evaluation
    seeds: list[Seed] = Field(min_length=1)
    teachers: dict[Name, dict[str, Any] | None] = Field({})
    students: dict[Name, dict[str, Any] | None] = Field(min_length=1)
    methods: dict[Name, dict[str, Any] | None] = Field(min_length=1)
    exclude: list[Exclusion] = Field([])
    tuning: Tuning | None = None
    structure: Structure | None = None
    robustness: Robustness | None = None
    transfer: dict[Name, Transfer] = Field({})
    published: list[str] = Field([], description="references that the tables are compared to")
    published_as: dict[str, str] = Field({}, description="the names of ours that are called otherwise there")
    tables: dict[Name, Table] = Field({})
    claims: dict[Name, Annotated[ClaimEntry, BeforeValidator(_claimed)]] = Field({})
