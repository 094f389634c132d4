"""The types of an experiment file: what each setting means, its default, and what is allowed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

Checkpoint = Literal["best", "last"]


def _fraction(value: Any) -> Any:
    """8/255 as a number, the way the field writes it."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*/\s*([1-9][0-9]{0,8})\s*", value) if isinstance(value, str) else None
    return int(match[1]) / int(match[2]) if match else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]  # stands in paths
Distance = Annotated[float, BeforeValidator(_fraction), Field(gt=0)]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Limit(Settings):
    """Use only the first images of a split."""

    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None


class DatasetSettings(Settings):
    name: str
    padding: int = Field(0, ge=0, le=16, description="zero padding of the random crops; 0 switches them off")
    limit: Limit = Limit()
    folder: str = Field("data", description="where datasets that are files on disk lie")
    download: bool = Field(True, description="fetch files that are missing")


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
    """The inner maximisation of training."""

    steps: Positive = 10
    step_size: Distance
    start: Literal["uniform", "gaussian", "zero"] = "uniform"


class Selection(Settings):
    """How `best` is chosen on the validation split: accuracy under a short APGD-CE, ties by clean accuracy."""

    steps: Positive = 10
    every: Positive = Field(1, description="epochs between two looks; the last epoch is always looked at")


class Training(Settings):
    """The budget, the same for every method."""

    epochs: Positive
    batch_size: Positive
    learning_rate: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    milestones: list[Positive] = Field([], description="epochs after which the learning rate is multiplied by `factor`")
    factor: float = Field(0.1, gt=0, le=1)
    kl_scale: Literal["sum", "mean"] = Field(
        "sum", description="divergences summed over the classes, or their mean as in the code of RSLAD and ARD"
    )
    inner_attack: InnerAttack
    selection: Selection = Selection()


class Compute(Settings):
    """What moves the bits but not the experiment."""

    precision: Literal["exact"] = "exact"
    threads: Positive = Field(1, description="torch threads of each job; more cores run more jobs")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")


class Evaluation(Settings):
    images: Positive | None = Field(None, description="the first images of the test split; all where left out")
    attacks: list[str] = Field(min_length=1)
    checkpoints: list[Checkpoint] = Field(["best", "last"], min_length=1)
    block_size: Positive = Field(100, description="images attacked together under one seed")
    seed: Seed = 0
    jobs: Positive = Field(1, description="jobs that share the blocks of one run")


class Exclusion(Settings):
    """Runs to leave out: those that match every name given."""

    teacher: str | None = None
    student: str | None = None
    method: str | None = None
    seed: int | None = None


class TeacherEntry(Settings):
    """What a teacher's entry may hold besides its architecture's arguments."""

    trained_by: dict[str, Any]
    seed: Seed = 0
    checkpoint: Checkpoint = "best"
    training: dict[str, Any] = Field({}, description="what differs from the budget of the students")


class ExperimentFile(Settings):
    name: Name
    protocol: Literal["controlled"]
    dataset: DatasetSettings
    threat_model: ThreatModel
    training: dict[str, Any]
    compute: Compute = Compute()
    evaluation: Evaluation
    seeds: list[Seed] = Field(min_length=1)
    teachers: dict[Name, dict[str, Any] | None] = {}
    students: dict[Name, dict[str, Any] | None] = Field(min_length=1)
    methods: dict[Name, dict[str, Any] | None] = Field(min_length=1)
    exclude: list[Exclusion] = []
