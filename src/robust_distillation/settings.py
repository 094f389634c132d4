"""Settings that all higher layers share: threat model, inner attack, training, choice of the checkpoint, device.

They are plain values. `config` reads them from an experiment file and fills in their defaults.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from robust_distillation import optimizers
from robust_distillation.errors import short_repr, unknown

SGD_MOMENTUM = 0.9
CROP_FLIP = "crop_flip"  # name of the default augmentation
MISTAKE = "mistake"  # type of a validation error whose message is shown as it is
SELECTION_ATTACKS = ("apgd", "pgd10", "pgd_trades")
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
    """Base of all sections of an experiment file: pydantic models that are immutable, strictly typed (no conversion of
    text to numbers), and refuse unknown keys and infinite numbers.

    Raises:
        pydantic.ValidationError: if a subclass is created from a value that is not allowed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def mistake(message: str) -> PydanticCustomError:
    """Returns a validation error for a pydantic validator to raise, whose message is shown to the user unchanged.

    Args:
        message: text that is shown after the path of the setting, for example "AdamW has no momentum".
    """
    return PydanticCustomError(MISTAKE, "{message}", {"message": message})


class ThreatModel(Settings):
    """Threat model: the perturbed images x' of an image x that count as adversarial are at most `eps` from x in `norm`,
    and in [0, 1].

    It is the section `threat_model` of an experiment file.

    Attributes:
        norm: `linf` (largest difference of a pixel value) or `l2` (Euclidean norm of the difference of the images).
        eps: largest distance in the pixel range [0,1], such as 8/255, positive; at most 1 for `linf`. A text such as
            "8/255" is converted to a number.
    """

    norm: Literal["linf", "l2"] = "linf"
    eps: Distance

    @field_validator("eps")
    @classmethod
    def _not_in_grey_levels(cls, eps: float, known: ValidationInfo) -> float:
        if known.data.get("norm") == "linf" and eps > 1:
            raise ValueError("pixels lie in [0,1], so linf eps is at most 1 (8 grey levels are written 8/255)")
        return eps


class InnerAttack(Settings):
    """The inner maximisation of a training, `training.inner_attack`: PGD on the network in training makes adversarial
    images.

    PGD maximises the objective that the training method names, within the threat model. The settings other than the
    defaults exist because some released codes train with them.

    Attributes:
        steps: number of gradient steps of the attack.
        step_size: length of a step of the attack in the norm of the threat model, in the pixel range [0,1], positive. A
            text such as "2/255" is converted to a number.
        start: noise at the start: `uniform` in the ball of radius eps, `gaussian` (0.001 N(0,1), as in TRADES), or
            `zero`.
        eps: radius of the ball of this attack in the pixel range [0,1], such as 8/255; None: that of the threat model
            (TRADES and MART differ: 0.031).
        mode: mode of batch norm during the attack: `eval`, or `train` (Madry, ARD, IAD), which also changes its running
            statistics.
        project_start: True: x + noise is projected into the ball and into [0,1] before the first gradient. False: the
            first gradient is taken at x + noise, which may lie outside [0,1] (TRADES, ARD, IAD, RSLAD).
    """

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
    """The evaluation that chooses the checkpoint `best`, `training.selection`: highest accuracy under an attack, or
    another metric.

    Of equal epochs the one with the higher clean accuracy is chosen, then the earlier one. The images are the
    validation split or, under `protocol: official`, the test split. The attack has the norm and eps of the threat
    model.

    Attributes:
        by: the attack: `apgd` (APGD-CE of `steps` steps), `pgd10` (IAD: 10 steps of 2/255) or `pgd_trades` (RSLAD: 20
            steps of 0.003). The last two are for linf only. METRIC.ATTACK, such as `worst_class.apgd`, chooses by this
            metric under the attack (a module of the package `metrics`).
        steps: number of steps of the attack `apgd`; the other attacks ignore it.
        every: number of epochs from one evaluation to the next. The last epoch is always evaluated.
        every_epoch_after: epoch after which every epoch is evaluated (RSLAD: 214); None: `every` applies to all epochs.
    """

    by: str = Field(
        "apgd",
        description="a short APGD-CE; pgd_trades (RSLAD: 20 steps of 0.003) and pgd10 (IAD: 10 steps of 2/255); "
        "METRIC.ATTACK for another metric than accuracy",
    )
    steps: Positive = Field(10, description="of APGD-CE; the others have theirs")
    every: Positive = Field(1, description="epochs between two validations; the last epoch is always validated")
    every_epoch_after: Positive | None = Field(None, description="from here on every epoch is validated (RSLAD: 214)")

    @property
    def attack(self) -> str:
        """The attack: `apgd`, `pgd10` or `pgd_trades`."""
        return self.by.rpartition(".")[2]

    @property
    def metric(self) -> str:
        """The metric by which `best` is chosen, such as `worst_class`; "" for accuracy."""
        return self.by.rpartition(".")[0]

    @field_validator("by")
    @classmethod
    def _known_attack(cls, by: str) -> str:
        attack = by.rpartition(".")[2]
        if attack not in SELECTION_ATTACKS:
            raise mistake(unknown("attack", attack, SELECTION_ATTACKS))
        return by


class Optimizer(BaseModel):
    """The optimiser of a training, `training.optimizer`: a class of torch.optim and its options.

    All other keyword arguments are options of this class; an option that is left out has torch's default. Learning
    rate, weight decay and SGD's momentum are not options: they are keys of `training`. Example:
    `Optimizer(name="AdamW", betas=[0.9, 0.95])`.

    Attributes:
        name: class name in torch.optim, one of `optimizers.names()`; SGD if left out.

    Raises:
        pydantic.ValidationError: if the name, an option or the form of a value is not allowed.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)
    name: str = "SGD"

    @property
    def options(self) -> dict[str, Any]:
        """The options that were set, by name, without learning rate, weight decay and momentum; may be empty."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _known(self) -> Optimizer:
        if self.name in optimizers.REFUSED:
            allowed = ", ".join(optimizers.names())
            raise mistake(f"{self.name} cannot be used: {optimizers.REFUSED[self.name]}. Allowed: {allowed}")
        if self.name not in optimizers.names():
            raise mistake(unknown("optimizer", self.name, optimizers.names()))
        known = optimizers.options(self.name)
        if self.name == "SGD":
            del known["momentum"]  # a key of the training
        for key, value in self.options.items():
            if key not in known:
                raise mistake(unknown(f"option of {self.name}", key, known))
            if not optimizers.fits(value, known[key]):
                raise mistake(f"option {key} of {self.name}: give a value like {known[key]}, found {short_repr(value)}")
        return self


class Schedule(Settings):
    """The learning rate over a training, as a factor of `training.learning_rate`.

    The factor is a function of the number of optimisation steps that are done, so a training can be resumed at any of
    them. This class is the section `training.schedule` of an experiment file.

    Attributes:
        name: `multistep`: the factor falls at `training.milestones`. `cosine`: it falls along a half cosine from 1 to
            `end`. `cyclic`: it rises from `start` to 1 and then falls to `end` (torch's OneCycleLR).
        warmup: number of epochs in which the factor is also multiplied by a line that rises to 1, at least 0. In
            optimisation step t of the W of the warm-up, counted from 1, the line is t/W.
        per: when a cosine or cyclic factor changes: at every optimisation `step` or every `epoch`. The warm-up changes
            the factor at every optimisation step.
        start: factor in the first optimisation step of `cyclic`, in [0, 1]; None: 1/25, as in torch.
        end: factor that `cosine` and `cyclic` fall to, in [0, 1]; None: 0 for `cosine`, 4e-6 for `cyclic`, as in torch.
        peak: fraction of the training after which `cyclic` reaches 1, in (0, 1); None: 0.3, as in torch.
        anneal: shape of both parts of `cyclic`: `cos`, half cosines, or `linear`; None: `cos`.

    Raises:
        pydantic.ValidationError: if a value is not allowed, or a key does not belong to the schedule `name`.
    """

    name: Literal["multistep", "cosine", "cyclic"] = "multistep"
    warmup: float = Field(0.0, ge=0, le=100_000)
    per: Literal["step", "epoch"] = "step"
    start: float | None = Field(None, ge=0, le=1)
    end: float | None = Field(None, ge=0, le=1)
    peak: float | None = Field(None, gt=0, lt=1)
    anneal: Literal["cos", "linear"] | None = None

    @model_validator(mode="after")
    def _of_this_schedule(self) -> Schedule:
        defaults = {"cosine": {"end": 0.0}, "cyclic": {"start": 1 / 25, "end": 4e-6, "peak": 0.3, "anneal": "cos"}}
        own = defaults.get(self.name, {})
        for key in ("start", "end", "peak", "anneal"):
            if getattr(self, key) is None:
                object.__setattr__(self, key, own.get(key))
            elif key not in own:
                raise mistake(f"{key} means nothing for the schedule {self.name}: leave it out")
        return self


class Averaging(Settings):
    """Average of the student's weights over the training, which is evaluated and saved in place of the student.

    It is the section `training.averaging` of an experiment file. Weights are added after every optimisation step or
    epoch; the first weights are copied. The checkpoints `best` and `last` hold the average.

    Attributes:
        name: `swa`: the mean of all weights so far. `ema`: average = decay x average + (1 - decay) x weights.
        decay: factor of `ema`, in [0, 1); None: 0.999. `swa` has none.
        ramp: True: in the n-th update of `ema` after the copy, the factor is at most (1 + n) / (10 + n) (Gowal et al.,
            2020).
        start: number of epochs before the first weights are added. Until then the student is evaluated.
        per: when weights are added: after every optimisation `step` or every `epoch`; None: `epoch` for `swa`, `step`
            for `ema`.
        batch_norm: running statistics of the average's batch norm. `copy`: the student's. `average`: averaged like the
            weights. `reestimate`: computed anew from the training images without attack, before each validation. None:
            `reestimate` for `swa`, `average` for `ema`.

    Raises:
        pydantic.ValidationError: if a value is not allowed, also a `decay` or `ramp` for `swa`.
    """

    name: Literal["swa", "ema"]
    decay: float | None = Field(None, ge=0, lt=1)
    ramp: bool = False
    start: int = Field(0, ge=0, le=100_000)
    per: Literal["step", "epoch"] | None = None
    batch_norm: Literal["copy", "average", "reestimate"] | None = None

    @model_validator(mode="after")
    def _of_this_average(self) -> Averaging:
        if self.name == "swa" and (self.decay is not None or self.ramp):
            raise mistake("decay and ramp belong to ema; swa weighs all weights the same: leave them out")
        ema = self.name == "ema"
        defaults = {"per": "step", "batch_norm": "average"} if ema else {"per": "epoch", "batch_norm": "reestimate"}
        for key, value in (defaults | ({"decay": 0.999} if ema else {})).items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)
        return self


class WeightPerturbation(Settings):
    """Adversarial weight perturbation, AWP (Wu et al., NeurIPS 2020), around the loss of any method.

    It is the section `training.weight_perturbation` of an experiment file. After the adversarial images are made, the
    student's weights w are moved by v, along the gradient of the loss, and the optimiser uses the gradient at w + v.
    Each tensor of v has `gamma` times the norm of the tensor of w.

    Attributes:
        gamma: norm of v divided by that of w, greater than 0: 0.01 for SAT, 0.005 for TRADES.
        start: number of epochs without perturbation at the beginning (TRADES-AWP: 9).
        variant: `wu2020`: the authors' code. Tensors of more than one dimension are moved; batch norm's running
            statistics are those of the pass at w + v; v is subtracted after the optimiser's step, which therefore
            decays w + v. `adr`: the code of ADR (Wu et al., ICLR 2024). All parameters are moved; the running
            statistics are those of the pass at w; w is put back before the optimiser's step.
    """

    gamma: float = Field(gt=0, le=1)
    start: int = Field(0, ge=0, le=100_000)
    variant: Literal["wu2020", "adr"] = "wu2020"


class Training(Settings):
    """The settings of the training of one network, the section `training` of an experiment file.

    Under `protocol: controlled` they are the same for every training method. Under `protocol: official`, keys that an
    experiment leaves out have the values of the method's released code.

    Attributes:
        epochs: number of epochs.
        batch_size: number of images per optimisation step.
        learning_rate: learning rate of the first epoch.
        optimizer: the optimiser: its class name in torch.optim and its options.
        momentum: momentum of SGD, in [0, 1): 0.9 if left out. None for every other optimiser.
        weight_decay: weight decay of the optimiser, at least 0.
        weight_decay_on: `all` parameters, or the `weights` of convolutions and linear layers only (Madry).
        drop_last: True: the last batch of an epoch is left out if it is smaller than `batch_size` (Madry,
            RepDistiller).
        milestones: epochs, counted from 1 and ascending, after which the learning rate is multiplied by `factor`; empty
            by default.
        factor: factor of the learning rate at a milestone, in (0, 1].
        decay: `compounded`: each milestone multiplies the rate again. `from_initial`: every milestone sets the rate to
            `learning_rate` x `factor`, so that the second milestone changes nothing (ARD, IAD).
        schedule: the learning rate over the training. `milestones`, `factor` and `decay` belong to `multistep`.
        averaging: average of the student's weights that is evaluated in its place; None: no average.
        weight_perturbation: adversarial weight perturbation; None: no perturbation.
        label_smoothing: s in [0, 1). Wherever a loss or the objective of an attack is the cross-entropy with a hard
            label, the target is (1 - s) x one-hot + s / number of classes.
        kl_scale: reduction of a divergence over the classes: `sum`; `mean`, the sum divided by the number of classes
            (ARD); or `tenth`, the sum divided by 10 (RSLAD).
        augmentation: name of the augmentation and its options, for example `{"name": "crop_flip"}`; the experiment
            file's options are completed by the defaults of the augmentation.
        inner_attack: the attack that makes the adversarial images.
        selection: the evaluation that chooses the checkpoint `best`.

    Raises:
        pydantic.ValidationError: if a value is not allowed, also if the optimiser has no momentum or weight decay and
            one is set.
    """

    epochs: Epochs
    batch_size: Positive
    learning_rate: float = Field(gt=0)
    optimizer: Optimizer = Optimizer()
    momentum: float | None = Field(None, ge=0, lt=1, description="of SGD: 0.9 if left out; other optimizers have none")
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
    schedule: Schedule = Schedule()
    averaging: Averaging | None = Field(None, description="average of the weights, which is evaluated: swa or ema")
    weight_perturbation: WeightPerturbation | None = Field(None, description="AWP, around the loss of any method")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="wherever a hard label is used, in loss and attack")
    kl_scale: Literal["sum", "mean", "tenth"] = Field(
        "sum",
        description="divergences are summed over the classes, or averaged over them (ARD's KLDivLoss), or a tenth of "
        "the sum (RSLAD: averaged over 10 classes, and for 100 classes averaged and multiplied by 10)",
    )
    augmentation: dict[str, Any] = Field({"name": CROP_FLIP}, description="name and options: docs/experiment-file.md")
    inner_attack: InnerAttack
    selection: Selection = Selection()

    @model_validator(mode="after")
    def _fits_the_optimizer(self) -> Training:
        name = self.optimizer.name
        if name == "SGD" and self.momentum is None:
            object.__setattr__(self, "momentum", SGD_MOMENTUM)
        if name != "SGD" and self.momentum is not None:
            raise mistake(
                f"momentum is SGD's, and the optimizer is {name}: leave training.momentum out (in an overlay: null), "
                "or give it as an option of the optimizer if that has one"
            )
        if self.weight_decay and "weight_decay" not in optimizers.arguments(name):
            raise mistake(f"{name} has no weight decay: leave training.weight_decay out, or choose another optimizer")
        return self

    @model_validator(mode="after")
    def _fits_the_schedule(self) -> Training:
        if self.milestones and self.schedule.name != "multistep":
            raise mistake(
                f"milestones belong to the schedule multistep, and the schedule is {self.schedule.name}: leave "
                "training.milestones out (in an overlay: [])"
            )
        if self.schedule.warmup > self.epochs:
            raise mistake(f"schedule.warmup: {self.schedule.warmup:g} is more than the {self.epochs} epochs")
        for key in ("averaging", "weight_perturbation"):
            part = getattr(self, key)
            if part and part.start >= self.epochs:
                raise mistake(f"{key}.start: {part.start} leaves none of the {self.epochs} epochs")
        return self


class Compute(Settings):
    """Settings of the computation, the section `compute` of an experiment file. They can change results by rounding
    only.

    Attributes:
        precision: `exact`: float32, eager, memory format NCHW. `fp32`: float32 with channels-last memory format, and
            compiled if that saves time. `bf16-inner`: as `fp32`, but a network in training computes its inner
            maximisation in bfloat16. `bf16`: as `fp32`, but a network in training computes everything in bfloat16.
        compile: whether trainings use torch.compile; None: if they are long enough to save time by it. True is not
            allowed with `exact`.
        threads: number of torch's threads of each job.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: a free GPU, or the CPU if there is no GPU.
        jobs_per_gpu: number of jobs that may share a GPU if the device is `auto`. `model_dump()` leaves it out, so it
            is in no record of a result.
        save_every: seconds between two saved states of a job that can be resumed. `model_dump()` leaves it out, too.
    """

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
    def _not_exact(cls, compile: bool | None, info: ValidationInfo) -> bool | None:
        if compile and info.data.get("precision") == "exact":
            raise ValueError("precision: exact is eager; choose another")
        return compile
