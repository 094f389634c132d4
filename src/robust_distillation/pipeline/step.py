"""Declarations of steps: one job of an experiment, with the files, settings and code that it depends on."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    """An argument of the command line command of a step of the workflow.

    Attributes:
        metavar: name in the command's help, in capitals, for example `MODEL`.
        what: kind of its values, for the message about an unknown value, for example `teacher of experiment`.
    """

    metavar: str
    what: str


class Step(ABC):
    """One job of an experiment, with the files, settings and code that it depends on.

    A job is one run of a step, such as the training of one student. A subclass declares a step, the kind of its jobs;
    `pipeline.steps` has all subclasses. An instance is one job, with a value for each wildcard. A wildcard is a part of
    the outputs' paths that differs between the jobs of a step, such as the name of the teacher. The workflow rule, the
    command, the record (the JSON file beside the outputs: inputs, settings, code hash and hashes of the outputs), saved
    states, audit, plan and cluster profile follow from the declaration. The class reads no results.

    A subclass overrides `reads` and `makes` (paths of inputs and outputs), `settings`, and `jobs` (the jobs that an
    experiment asks for). All attributes but `experiment`, `layout` and `values` are class constants.

    Attributes:
        name: name of the command, for example `train-student`.
        rule_name: name of the workflow rule; by default `name` with _ in place of -.
        run: `module:function` that makes the outputs, for example `robust_distillation.stages.attack:run`. The function
            is called with the job and, if `resumable`, with its saved state.
        example: example of the command, for example `train-teacher wide`; by default `name`.
        title: row of the plan that counts the step's jobs; by default that of the base class, or else `name`.
        wildcards: name of each wildcard to the regular expression of its values, for example `{"teacher": "[^/]+"}`.
        arguments: arguments of the command, in order.
        options: wildcards that the command takes as options, with the help of each.
        not_asked: text of the error message if the experiment has no job of this step.
        cost: `module:function` that returns the calls of networks and the stored bytes of a job; "" for no cost.
        check: `module:function` that checks the content of the outputs, for the audit; "" for no such function.
        remake: `module:function` that makes the tables of the step again, for the audit; "" for no such function.
        priority: of the jobs that are ready, those of the highest priority are started first.
        local: True if, on a cluster, the job runs beside Snakemake, where there is a network connection.
        computes: True if the job computes on images, with the experiment's threads and device.
        grouped: True if several jobs of the step may share one job of a cluster.
        resumable: True if the job saves its state and continues from it after a kill.
        rebuildable: True if the outputs are not versioned, may be absent and are then made again.
        experiment: the parsed experiment file with all defaults filled in.
        layout: paths of the job's outputs.
        values: wildcard to its value in this job, for example `{"teacher": "wide"}`.
    """

    name: ClassVar[str]
    rule_name: ClassVar[str]
    run: ClassVar[str]
    example: ClassVar[str] = ""
    title: ClassVar[str] = ""
    wildcards: ClassVar[dict[str, str]] = {}
    arguments: ClassVar[tuple[Argument, ...]] = ()
    options: ClassVar[dict[str, str]] = {}
    not_asked: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    check: ClassVar[str] = ""
    remake: ClassVar[str] = ""
    priority: ClassVar[int] = 0
    local: ClassVar[bool] = False
    computes: ClassVar[bool] = False
    grouped: ClassVar[bool] = False
    resumable: ClassVar[bool] = False
    rebuildable: ClassVar[bool] = False

    def __init__(self, experiment: Experiment, layout: Layout | None = None, **values: str):
        """Creates a job. Reads and writes no file.

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
            layout: object that gives all paths below results/EXPERIMENT, for the job's outputs. None:
                `experiment.layout`.
            **values: the value of each wildcard, for example `teacher="wide"`. For a workflow rule it is the wildcard
                in braces, `teacher="{teacher}"`.
        """
        self.experiment, self.values = experiment, values
        self.layout = layout or experiment.layout

    def __init_subclass__(cls) -> None:
        """Fills in `rule_name`, `title` and `example` of a subclass that has a `name` and leaves them out."""
        if "name" in vars(cls):
            cls.rule_name = vars(cls).get("rule_name", cls.name.replace("-", "_"))
            cls.title = vars(cls).get("title", cls.title or cls.name)
            cls.example = vars(cls).get("example", cls.name)

    @classmethod
    def jobs(cls, experiment: Experiment) -> Iterator[Self]:
        """Yields the jobs of this step that an experiment asks for; none if it does not ask for the step.

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        """
        yield cls(experiment)

    @classmethod
    def pattern(cls, experiment: Experiment) -> Self:
        """Returns an instance of the step with wildcards in braces in place of values, from which a workflow rule takes
        the paths.

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.

        Returns:
            The instance; `values` is for example `{"teacher": "{teacher}"}`.
        """
        return cls(experiment, **{name: f"{{{name}}}" for name in cls.wildcards})

    def reads(self) -> Iterable[Path]:
        """Yields the paths of the files that the job reads."""
        return ()

    @abstractmethod
    def makes(self) -> Iterable[Path]:
        """Yields the paths of the files that the job makes, without its record."""

    @cached_property
    def inputs(self) -> tuple[Path, ...]:
        """Paths of the files that the job reads."""
        return tuple(self.reads())

    @cached_property
    def outputs(self) -> tuple[Path, ...]:
        """Paths of the files that the job makes, without its record."""
        return tuple(self.makes())

    @property
    def record(self) -> Path | None:
        """Path of the JSON file that lists the job's inputs, settings, code and hashes. None for the step `index`."""
        return self.layout.record(self.outputs[0])

    @property
    def artefact(self) -> Path:
        """The output file or folder after which the folder of the job's saved state is named."""
        return self.outputs[0]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the outputs depend on, besides inputs and code, as JSON values."""
        return {}

    @property
    def named(self) -> Iterable[str]:
        """Dotted names of the modules that the settings name, for example `robust_distillation.methods.rslad`.

        These are the modules of the dataset, architectures, methods, attacks and metrics. They are found by name at run
        time, so they are hashed in addition to those that `run` imports.
        """
        return ()

    @property
    def code(self) -> str:
        """Hash of the code that the job uses: the module of `run`, the modules of `named`, and all that they import."""
        return _code(self.run.partition(":")[0], *self.named)

    @property
    def devices(self) -> int:
        """Number of devices (GPUs) that the job uses at once."""
        return 1

    @property
    def words(self) -> tuple[str, ...]:
        """Values of the command's arguments, in order. By default the values of the wildcards that are no options."""
        return tuple(self.values[name] for name in self.wildcards if name not in self.options)

    @property
    def command(self) -> str:
        """The command line that makes the outputs, after `robust-distillation`, such as `fill-cache wide logits`."""
        options = [f"--{name} {self.values[name]}" for name in self.options if name in self.values]
        return " ".join([self.name, *self.words, *options])

    @classmethod
    def constraints(cls, experiment: Experiment) -> dict[str, str]:
        """Returns the regular expression of each wildcard, by name, for the step's workflow rule.

        Some steps allow only names that the experiment has.

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        """
        return cls.wildcards

    @classmethod  # noqa: B027 (a hook: few steps have options)
    def check_option(cls, name: str, value: str) -> None:
        """Checks the value of an option of the step's command. The base class accepts every value.

        Args:
            name: name of the option, for example `shard`.
            value: the value, as typed.

        Raises:
            UserError: if the option does not allow the value.
        """

    def elsewhere(self, base: Path) -> Self:
        """Returns the same job with its outputs below another folder.

        The audit uses it to make tables again. The inputs of a job whose step has `remake` stay below
        results/EXPERIMENT.

        Args:
            base: folder in place of `results`; the outputs lie in base/EXPERIMENT.
        """
        from robust_distillation.layout import Layout

        return type(self)(self.experiment, Layout(self.experiment.name, base), **self.values)

    @property
    def log(self) -> Path:
        """Path of the file with the job's messages, below results/EXPERIMENT/logs."""
        return self.layout.log(self.name, self.values.values())

    @classmethod
    def refusal(cls, experiment: Experiment, text: str) -> str | None:
        """Returns a message for an unknown value of a command's argument that explains more than the general one.

        Args:
            experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
            text: the value, which no job of this step has.

        Returns:
            The message. None or "" if there is no better message than the general one.
        """
        return None

    def input_hashes(self) -> dict[Path, str]:
        """Returns the path of each input to its sha256. Reads the files."""
        from robust_distillation.files import sha256

        return {file: sha256(file) for file in self.inputs}


@cache  # thousands of jobs share a few
def _code(*modules: str) -> str:
    return fingerprint(modules)


def called(name: str) -> Any:
    """Imports a module and returns the function in it that a declaration names. Despite the name, the function is not
    called.

    Args:
        name: `module:function`, for example `robust_distillation.stages.attack:run`, as in the attribute `run` of a
            step.

    Returns:
        The function.

    Raises:
        ImportError: if there is no such module.
        AttributeError: if the module has no such function.
    """
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)
