"""The types of an experiment file: what each setting means, its default, and what is allowed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from robust_distillation.data.info import DataOptions

Checkpoint = Literal["best", "last"]
FRACTION = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*/\s*([1-9][0-9]{0,8})\s*")


def _fraction(value: Any) -> Any:
    """8/255 as a number, the way the field writes it."""
    match = FRACTION.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) / int(match[2]) if match else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]  # stands in paths
Distance = Annotated[float, BeforeValidator(_fraction), Field(gt=0)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]
Epochs = Annotated[int, Field(ge=1, le=100_000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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
        return DataOptions(self.folder, self.size, self.download, self.verify, self.mirror, tuple(self.classes))


class DatasetSettings(DataFiles):
    padding: int = Field(0, ge=0, le=16, description="zero padding of the random crops; 0 switches them off")
    limit: Limit = Limit()


class ThreatModel(Settings):
    """Images within `eps` of x in `norm`, and in [0,1]."""

    norm: Literal["linf", "l2"] = "linf"
    eps: Distance

    @field_validator("eps")
    @classmethod
    def _not_in_grey_levels(cls, eps: float, known: ValidationInfo) -> float:
        if known.data.get("norm") == "linf" and eps > 1:
            raise ValueError("pixels lie in [0,1], so linf eps is at most 1 (8 grey levels are written 8/255)")
        return eps


class InnerAttack(Settings):
    """The inner maximisation of training. What is not the default is what some released code does."""

    steps: Positive = 10
    step_size: Distance
    start: Literal["uniform", "gaussian", "zero"] = Field("uniform", description="gaussian: 0.001 N(0,1), as TRADES")
    eps: Distance | None = Field(None, description="where it differs from the threat model's (TRADES and MART: 0.031)")
    mode: Literal["eval", "train"] = Field(
        "eval", description="batch norm while attacking; train (Madry, ARD, IAD) also moves its running statistics"
    )
    project_start: bool = Field(
        True,
        description="false: the first gradient is taken at x + noise, which may lie outside [0,1] (TRADES, ARD...)",
    )


class Selection(Settings):
    """How `best` is chosen: the highest accuracy under an attack, ties by clean accuracy. On the validation split, or,
    under the official protocol, on the test split."""

    by: Literal["apgd", "pgd10", "pgd_trades"] = Field(
        "apgd", description="a short APGD-CE; pgd_trades (RSLAD: 20 steps of 0.003) and pgd10 (IAD: 10 steps of 2/255)"
    )
    steps: Positive = Field(10, description="of APGD-CE; the others have theirs")
    every: Positive = Field(1, description="epochs between two looks; the last epoch is always looked at")
    every_epoch_after: Positive | None = Field(None, description="from here on every epoch is looked at (RSLAD: 214)")


class Training(Settings):
    """How one network is trained. Under the controlled protocol it is the same for every method, under the official one
    what is not given is what the method's released code does."""

    epochs: Epochs
    batch_size: Positive
    learning_rate: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    weight_decay_on: Literal["all", "weights"] = Field(
        "all", description="weights: of convolutions and linear layers only, not biases and batch norm (Madry)"
    )
    drop_last: bool = Field(
        False, description="leave out an epoch's last batch where it is smaller (Madry, RepDistiller)"
    )
    milestones: list[Positive] = Field([], description="epochs after which the learning rate is multiplied by `factor`")
    factor: float = Field(0.1, gt=0, le=1)
    decay: Literal["compounded", "from_initial"] = Field(
        "compounded",
        description="from_initial: every milestone sets learning_rate x factor, so that the second changes nothing "
        "(ARD's and IAD's adjust_learning_rate)",
    )
    kl_scale: Literal["sum", "mean", "tenth"] = Field(
        "sum",
        description="divergences are summed over the classes, or averaged over them (ARD's KLDivLoss), or a tenth of "
        "the sum (RSLAD: averaged over 10 classes, and for 100 classes averaged and multiplied by 10)",
    )
    passes: list[Literal["clean", "adversarial"]] = Field(
        ["adversarial", "clean"],
        description="the order in which batches go through the student in train mode, each with its own batch norm "
        "statistics; one named twice goes through again and moves the running statistics again (TRADES)",
    )
    inner_attack: InnerAttack
    selection: Selection = Selection()

    @field_validator("passes")
    @classmethod
    def _both(cls, passes: list[str]) -> list[str]:
        if set(passes) != {"clean", "adversarial"}:
            raise ValueError("name both clean and adversarial")
        return passes


class Compute(Settings):
    """What moves the bits but not the experiment."""

    precision: Literal["exact", "fp32", "bf16-inner", "bf16"] = Field(
        "exact",
        description="exact: fp32, eager, NCHW; fp32: channels-last, and compiled where that pays; bf16-inner: the "
        "same, with what a network in training computes for its inner maximisation in bfloat16; bf16: all of training",
    )
    compile: bool | None = Field(
        None, description="whether trainings go through torch.compile; where left out, if they are long enough to pay"
    )
    threads: Positive = Field(1, description="torch threads of each job; more cores run more jobs")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")
    jobs_per_gpu: Positive = Field(1, exclude=True, description="that share a GPU where the device is auto")
    save_every: float = Field(
        300, gt=0, exclude=True, description="seconds between two saved states of a job; in no record: it moves nothing"
    )

    @field_validator("compile")
    @classmethod
    def _not_exact(cls, compile: bool | None, given: ValidationInfo) -> bool | None:
        if compile and given.data.get("precision") == "exact":
            raise ValueError("precision: exact is eager; choose another")
        return compile


class Evaluation(Settings):
    images: Positive | None = Field(None, description="the first images of the test split; all where left out")
    attacks: list[str] = Field(min_length=1)
    surrogate: str | None = Field(None, description="the teacher on which transfer_... attacks are crafted")
    checkpoints: list[Checkpoint] = Field(["best", "last"], min_length=1)
    block_size: Positive = Field(100, description="images attacked together under one seed")
    seed: Seed = 0
    search: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="in what attacks look for adversarial images; whether the model holds is decided in fp32, so "
        "bf16 can miss some: every table says so",
    )
    jobs: Positive = Field(1, description="jobs that share the blocks of one run")


class Structure(Settings):
    """Comparing what teacher and student know: correlation of the logits by class, and features under attack."""

    images: Positive | None = Field(None, description="the first images of the test split; all where left out")


class Robustness(Settings):
    """Accuracy against eps, and attacked images to look at."""

    eps: list[Distance] = Field(min_length=1, description="ascending; 0 is always measured")
    images: Positive | None = Field(None, description="the first images of the test split; all where left out")
    gallery: int = Field(6, ge=1, le=100, description="so many of them are stored, attacked at the threat model's eps")


class Transfer(Settings):
    """Another task for the students: the backbone frozen, a linear head trained, both attacked end to end."""

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
    """A part of the matrix under a title; what is left out is not narrowed."""

    title: str = Field(min_length=1, max_length=300)
    teachers: Names = None
    students: Names = None
    methods: Names = None
    checkpoints: Names = None
    metrics: Names = None


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else [value]


class Exclusion(Settings):
    """Runs to leave out: those that match all that is given, each a name or a list of names."""

    teacher: Annotated[Names, BeforeValidator(_listed)] = None
    student: Annotated[Names, BeforeValidator(_listed)] = None
    method: Annotated[Names, BeforeValidator(_listed)] = None
    seed: Annotated[list[int] | None, BeforeValidator(_listed)] = None


class Imported(Settings):
    """Weights that somebody published: see docs/importing.md."""

    source: str
    file: str | None = Field(None, description="where the file lies; the source's own name under models/ if left out")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    normalisation: str | None = Field(None, description="another than the source's")
    model: str | None = Field(None, description="robustbench: the name in its model zoo")


class TeacherEntry(Settings):
    """What a teacher's entry may hold besides its architecture's arguments."""

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
    """What an experiment asks its numbers: see `config.claims`."""

    claim: str = Field(min_length=1, max_length=300, description="A > B on METRIC [at best|last] [by X]")
    teachers: Names = None
    students: Names = None
    paper: str = Field("", max_length=1000, description="what the paper says, in our words")


Grid = dict[str, Annotated[list[Any], Field(min_length=1)]]


class Tuning(Settings):
    """The tuning stage of the controlled protocol: before its students, every method has the same number of short runs,
    and the values of the best on the validation split are the students'."""

    training: dict[str, Any] = Field({}, description="what differs from the budget in the short runs")
    grid: Grid = Field({}, description="values of the budget to compare, the same for every method")
    methods: dict[Name, Grid] = Field(
        {}, description="of a method: values of its settings, or of the budget in place of those in `grid`"
    )
    seed: Seed = Field(0, description="of the short runs; they share no random numbers with any student")


class ExperimentFile(Settings):
    name: Name
    protocol: Literal["controlled", "official"]
    dataset: DatasetSettings
    threat_model: ThreatModel
    training: dict[str, Any] = {}
    compute: Compute = Compute()
    evaluation: Evaluation
    seeds: list[Seed] = Field(min_length=1)
    teachers: dict[Name, dict[str, Any] | None] = {}
    students: dict[Name, dict[str, Any] | None] = Field(min_length=1)
    methods: dict[Name, dict[str, Any] | None] = Field(min_length=1)
    exclude: list[Exclusion] = []
    tuning: Tuning | None = None
    structure: Structure | None = None
    robustness: Robustness | None = None
    transfer: dict[Name, Transfer] = {}
    published: list[str] = Field([], description="references that the tables are compared to")
    published_as: dict[str, str] = Field({}, description="the names of ours that are called otherwise there")
    tables: dict[Name, Table] = {}
    claims: dict[Name, Annotated[ClaimEntry, BeforeValidator(_claimed)]] = {}
