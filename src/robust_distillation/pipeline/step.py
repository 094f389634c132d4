"""Declarations of steps: one job of an experiment, with the files, settings and code that it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from robust_distillation.pipeline.fingerprint import fingerprint

if TYPE_CHECKING:
    from robust_distillation.config import Experiment
    from robust_distillation.layout import Layout

TABLES = "tables, figures, tracking"
UNCHANGED = {"unchanged": True}  # returned by a run whose outputs are what they were: its record stays, too


class Argument(NamedTuple):
    """An argument of a step's command."""

    metavar: str  # in its help
    what: str  # names it in messages


class Step:
    """One job of an experiment. A subclass declares a step; an instance is the job with the values of its wildcards.

    Workflow rules, commands, records, resume, audit, plan and cluster profile follow from the declaration, which reads
    no results.
    """

    name: ClassVar[str]  # name of the command
    rule_name: ClassVar[str]  # name of the workflow's rule; default: `name` with _ for -
    run: ClassVar[str]  # `module:function`, called with the step and, if it is resumable, its saved state
    example: ClassVar[str] = ""  # example of the command; default: its name
    title: ClassVar[str] = ""  # row of the plan that counts its jobs; default: the name
    wildcards: ClassVar[dict[str, str]] = {}  # name -> regular expression of its values
    arguments: ClassVar[tuple[Argument, ...]] = ()
    options: ClassVar[dict[str, str]] = {}  # wildcards that the command takes as options, with their help
    not_asked: ClassVar[str] = ""  # the message if the experiment has no such job
    cost: ClassVar[str] = ""  # `module:function` that returns the work and the stored bytes of a job
    check: ClassVar[str] = ""  # `module:function` that checks the content of its outputs, for the audit
    remake: ClassVar[str] = ""  # `module:function` that makes its tables again, for the audit
    priority: ClassVar[int] = 0  # of the jobs that are ready, those of the highest priority are started first
    local: ClassVar[bool] = False  # on a cluster it runs beside Snakemake, where there is a network connection
    computes: ClassVar[bool] = False  # True: computes on images, with the experiment's threads and device
    grouped: ClassVar[bool] = False  # True: several of its jobs share one job of a cluster
    resumable: ClassVar[bool] = False  # True: saves its state and continues from it after a kill
    rebuildable: ClassVar[bool] = False  # True: its outputs are not versioned, may be absent and are made again

    def __init__(self, experiment: Experiment, layout: Layout | None = None, **values: str):
        """Names a job.

        Args:
            experiment: the resolved experiment.
            layout: paths of the job's outputs; None for those of the experiment.
            values: the value of each wildcard; in the pattern of a rule it is `{name}`.
        """
        self.experiment, self.values = experiment, values
        self.layout = layout or experiment.layout

    def __init_subclass__(cls) -> None:
        """Fills in the rule's name, the title and the example of a subclass that leaves them out."""
        if "name" in vars(cls):
            cls.rule_name = vars(cls).get("rule_name", cls.name.replace("-", "_"))
            cls.title = vars(cls).get("title", cls.title or cls.name)
            cls.example = vars(cls).get("example", cls.name)

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields the step's jobs; none if the experiment does not ask for it."""
        yield cls(experiment)

    @classmethod
    def pattern(cls, experiment: Experiment) -> Self:
        """Returns the step with wildcards in place of their values, for a rule."""
        return cls(experiment, **{name: f"{{{name}}}" for name in cls.wildcards})

    def reads(self) -> Iterable[Path]:
        """Yields the files that the job reads."""
        return ()

    def makes(self) -> Iterable[Path]:
        """Yields the files that the job makes, without its record."""
        raise NotImplementedError

    @cached_property
    def inputs(self) -> tuple[Path, ...]:
        """The files that the job reads."""
        return tuple(self.reads())

    @cached_property
    def outputs(self) -> tuple[Path, ...]:
        """The files that the job makes, without its record."""
        return tuple(self.makes())

    @property
    def record(self) -> Path | None:
        """The path of the job's record; None for the index, which dvc.lock vouches for."""
        return self.layout.record(self.outputs[0])

    @property
    def artefact(self) -> Path:
        """The file or folder after which the job's saved state is named."""
        return self.outputs[0]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the outputs depend on, besides inputs and code, as JSON values."""
        return {}

    @property
    def named(self) -> Iterable[str]:
        """The modules (dotted names) of the dataset, architectures, methods and attacks that the settings name."""
        return ()

    @property
    def code(self) -> str:
        """The fingerprint of the code that the job uses."""
        return _code(self.run.partition(":")[0], *self.named)

    @property
    def devices(self) -> int:
        """The number of devices that the job uses at once."""
        return 1

    @property
    def words(self) -> tuple[str, ...]:
        """The arguments of the job's command."""
        return tuple(self.values[name] for name in self.wildcards if name not in self.options)

    @property
    def command(self) -> str:
        """The command line that makes the outputs, after `robust-distillation`."""
        options = [f"--{name} {self.values[name]}" for name in self.options if name in self.values]
        return " ".join([self.name, *self.words, *options])

    @classmethod
    def constraints(cls, experiment: Experiment) -> dict[str, str]:
        """Returns the regular expression of each wildcard."""
        return cls.wildcards

    @classmethod
    def check_option(cls, name: str, value: str) -> None:
        """Raises UserError for a value that the option does not allow."""

    def elsewhere(self, base: Path) -> Self:
        """Returns the same job with outputs under the folder `base` in place of results."""
        from robust_distillation.layout import Layout

        return type(self)(self.experiment, Layout(self.experiment.name, base), **self.values)

    @property
    def log(self) -> Path:
        """The file of the job's messages."""
        return self.layout.log(self.name, self.values.values())

    @classmethod
    def refusal(cls, experiment: Experiment, text: str) -> str | None:
        """Returns a better message than that `text` is unknown; None if there is none."""
        return None

    def input_hashes(self) -> dict[Path, str]:
        """Returns the sha256 of each input."""
        from robust_distillation.files import sha256

        return {file: sha256(file) for file in self.inputs}


@cache  # thousands of jobs share a few
def _code(*modules: str) -> str:
    return fingerprint(modules)


def called(name: str) -> Any:
    """Returns the function that `module:function` names."""
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)
