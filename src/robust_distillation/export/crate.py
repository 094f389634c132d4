"""Export of a finished experiment as an RO-Crate: its files, with its records as linked data.

A record is the JSON file beside an artefact that states the inputs, their hashes, the code and the settings. The crate
is an RO-Crate 1.1 (https://w3id.org/ro/crate/1.1). It follows the profile Provenance Run Crate 0.5
(https://w3id.org/ro/wfrun/provenance/0.5) and those that this profile extends. It has one CreateAction for the whole
run and one for each record, with the hashes in it.
"""

from __future__ import annotations

import mimetypes
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from rocrate.model import ComputationalWorkflow, ContextEntity, Entity, Person, SoftwareApplication
from rocrate.rocrate import ROCrate

from robust_distillation import __version__
from robust_distillation.config import Experiment, Run
from robust_distillation.errors import UserError
from robust_distillation.files import read_json, sha256
from robust_distillation.layout import Layout

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}  # terms that RO-Crate 1.1 lacks
WORKFLOW = Path("Snakefile")
CODE = (WORKFLOW, *map(Path, ("workflow", "profiles", "src", "pyproject.toml", "requirements.txt")))
# Media types that the module mimetypes does not know, by suffix.
FORMATS = {
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/vnd.safetensors",
    ".smk": "text/x-snakemake",
    ".tex": "application/x-tex",
    ".toml": "application/toml",
    ".yaml": "application/yaml",
    "": "text/x-snakemake",
}
COMPLETED = "http://schema.org/CompletedActionStatus"


@dataclass(frozen=True)
class Content:
    """Files and records of an experiment that go into an RO-Crate, a folder that describes its files as linked data.

    `collect_content` returns such an object. Paths are relative to the repository, which is the current folder. A
    record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs, and times.

    Attributes:
        experiment_files: path of the experiment file and, if there is one, of the overlay (a YAML file whose values
            replace those of the experiment file). A path outside of the repository is absolute.
        code: paths of the source code and the workflow: Snakefile, pyproject.toml, requirements.txt, and all files
            below workflow, profiles and src.
        results: paths of the results below results/EXPERIMENT, records included, for example
            results/digits/tables/main.csv.
        records: path of each record to its content (the parsed JSON), in the order in which the steps began.
    """

    experiment_files: tuple[Path, ...]
    code: tuple[Path, ...]
    results: tuple[Path, ...]
    records: dict[Path, dict[str, Any]]

    @property
    def files(self) -> tuple[Path, ...]:
        """Paths of all files of the crate, each once: code, experiment files, results."""
        return tuple(dict.fromkeys((*self.code, *self.experiment_files, *self.results)))

    @property
    def bytes(self) -> int:
        """Total size of the files in bytes, as they are on the disk now."""
        return sum(path.stat().st_size for path in self.files)

    @property
    def started(self) -> str:
        """Time at which the first step began, in ISO 8601. Raises ValueError without records."""
        return min(record["time"]["started"] for record in self.records.values())

    @property
    def ended(self) -> str:
        """Time at which the last step ended, in ISO 8601. Raises ValueError without records."""
        return max(record["time"]["ended"] for record in self.records.values())


def collect_content(experiment: Experiment, experiment_files: Iterable[str]) -> Content:
    """Lists the files of a finished experiment for an RO-Crate, and reads its records. Nothing is copied.

    A record is the JSON file beside an output: its inputs, settings, code hash and hashes of the outputs, and times.
    Files are searched in the current folder, which must be the top of the repository, and below results/EXPERIMENT.
    Left out are cached arrays of teachers, logs, hidden files, and files of students that are no longer in the
    experiment.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        experiment_files: path of the experiment file, for example `params.yaml`, and, if there is one, of the overlay
            (a YAML file whose values replace those of the experiment file).

    Returns:
        The paths of the files and the content of the records, the argument `content` of `write_crate`.

    Raises:
        UserError: the record or the outcomes of a model, the record of the data, or tables/main.csv is missing, or a
            record is damaged.
    """
    layout = experiment.layout
    missing = [path for path in _expected(experiment, layout) if not path.is_file()]
    if missing:
        raise UserError(
            f"experiment {experiment.name}: not finished, {missing[0]} is missing"
            + (f" (and {len(missing) - 1} more)" if missing[1:] else "")
            + f". Run it to its end first: robust-distillation reproduce {experiment.arguments}"
        )
    results = tuple(path for path in _files(layout.root) if _is_result(path, experiment, layout))
    records = {path: read_json(path) for path in results if path.name.endswith("record.json")}
    ordered = dict(sorted(records.items(), key=lambda item: (item[1]["time"]["started"], str(item[0]))))
    return Content(
        tuple(map(_relative, experiment_files)), tuple(path for top in CODE for path in _files(top)), results, ordered
    )


def _expected(experiment: Experiment, layout: Layout) -> Iterator[Path]:
    """Yields paths that exist if the experiment has finished."""
    teachers = [layout.teacher(name) for name in experiment.teachers]
    students = [layout.student(run.teacher, run.student, run.method, run.seed) for run in experiment.runs]
    yield layout.record(layout.data)
    for folder in teachers + students:
        yield from (layout.training_record(folder), layout.outcomes(folder), layout.record(layout.outcomes(folder)))
    yield layout.tables / "main.csv"


def _files(top: Path) -> Iterator[Path]:
    """Yields `top` if it is a file, else the files below it, without hidden files and files that Python makes."""
    if top.is_file():
        yield top
    for path in sorted(top.rglob("*")):
        parts = path.relative_to(top).parts
        if path.is_file() and not any(part.startswith(".") or part.endswith((".egg-info", ".pyc")) for part in parts):
            yield path


def _is_result(path: Path, experiment: Experiment, layout: Layout) -> bool:
    """Returns whether a file goes into the crate.

    Logs, cached arrays, and files of students that are no longer in the experiment do not.
    """
    cached = path.is_relative_to(layout.caches) and path.suffix == ".npy"
    if path.is_relative_to(layout.root / "logs") or cached:
        return False
    student = re.search(r"/students/([^/]+)/([^/]+)/([^/]+)/seed-(\d+)\b", str(path))
    return not student or Run(*student.groups()[:3], int(student[4])) in experiment.runs


def _relative(name: str) -> Path:
    """Returns a path relative to the working directory. A path outside of it stays absolute."""
    path = Path(name).resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def write_crate(experiment: Experiment, content: Content, target: Path, author: str, licence: str | None) -> None:
    """Writes an RO-Crate 1.1 for publication: copies of an experiment's files and ro-crate-metadata.json, which
    describes them.

    The metadata state for each job which files it read and made, their sha256, the code, and the times (profile
    Provenance Run Crate 0.5). The same arguments and files give the same bytes. After an error nothing is left.

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load` returns it.
        content: the files and records, from `collect_content`.
        target: path of the folder to write or, with the suffix .zip, of the archive, for example `digits.zip`. It must
            not exist.
        author: name of the person who publishes the crate.
        licence: URL of the licence, for example `https://creativecommons.org/licenses/by/4.0/`. None: the crate tells
            readers to ask the author before they use it.

    Raises:
        UserError: `target` exists, or the hash of a file is not the one in a record.
    """
    if target.exists():
        raise UserError(f"{target}: exists already. Remove it, or choose another place")
    crate = _Description(experiment, content, author, licence).crate
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        folder, packed = Path(temporary) / "crate", Path(temporary) / "crate.zip"
        crate.write(folder)
        if target.suffix == ".zip":
            _pack(folder, packed)
            packed.rename(target)
        else:
            folder.rename(target)


def _pack(folder: Path, packed: Path) -> None:
    """Packs a folder into a ZIP archive without times, so that equal folders give equal bytes."""
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            entry.compress_type = zipfile.ZIP_DEFLATED
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as destination:
                shutil.copyfileobj(source, destination)


class _Workflow(ComputationalWorkflow):
    """Workflow entity that is also a HowTo, the type that may have steps."""

    TYPES: ClassVar = [*ComputationalWorkflow.TYPES, "HowTo"]


class _Description:
    """Builder of the crate's metadata: the files first, then the workflow, then the actions."""

    def __init__(self, experiment: Experiment, content: Content, author: str, licence: str | None):
        self.experiment, self.content = experiment, content
        self.layout = experiment.layout
        self.crate = ROCrate(version="1.1")
        self.crate.metadata.extra_terms.update(TERMS)
        self.author = self.crate.add(Person(self.crate, "#author", properties={"name": author}))
        self.files = {path: self._file(path) for path in content.files if path != WORKFLOW}
        self.workflow = self._workflow()
        self.files[WORKFLOW] = self.workflow
        self.tools: dict[str, Entity] = {}
        self.steps: dict[str, Entity] = {}
        self._root(licence)
        self._actions()

    def _root(self, licence: str | None) -> None:
        """Describes the experiment: name, description, licence, author and profiles."""
        file, threat = self.experiment.file, self.experiment.threat_model
        self.crate.name = f"Experiment {self.experiment.name}: adversarial robustness distillation"
        self.crate.description = (
            f"Students distilled from adversarially robust teachers on {self.experiment.dataset.name}, and their "
            f"accuracy under attack ({threat.norm}, eps {threat.eps:.4g}). Protocol: {file.protocol}. "
            f"Methods: {', '.join(self.experiment.methods)}. Seeds: {', '.join(map(str, file.seeds))}."
        )
        self.crate.datePublished = self.content.ended
        self.crate.license = self._licence(licence)
        root = self.crate.root_dataset
        root["author"] = self.author
        root["conformsTo"] = [
            self._entity(url, "CreativeWork", name=name, version=url.rpartition("/")[2])
            for url, name in PROFILES.items()
        ]

    def _licence(self, licence: str | None) -> Entity:
        """Adds the licence. licence: its URL, or None if there is none."""
        if licence:
            return self._entity(licence, "CreativeWork", name=licence, description="How this crate may be used.")
        text = "The author has not stated how this may be used. Ask before using it."
        return self._entity("#licence", "CreativeWork", name="No licence given", description=text)

    def _entity(self, identifier: str, kind: str, **properties: Any) -> Entity:
        """Adds an entity that is not a file."""
        return self.crate.add(ContextEntity(self.crate, identifier, properties={"@type": kind, **properties}))

    def _properties(self, path: Path) -> dict[str, str]:
        """Returns media type, size and hash of a file."""
        return {
            "encodingFormat": FORMATS.get(path.suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream",
            "contentSize": str(path.stat().st_size),
            "sha256": sha256(path),
        }

    def _file(self, path: Path) -> Entity:
        """Adds a file. One from outside of the repository is placed at the top of the crate."""
        destination = path.name if path.is_absolute() else path
        return self.crate.add_file(path, destination, properties={"name": str(destination), **self._properties(path)})

    def _workflow(self) -> Entity:
        """Adds the workflow with its inputs and output."""
        workflow = self.crate.add_workflow(
            WORKFLOW, WORKFLOW, main=True, lang="snakemake", cls=_Workflow, properties=self._properties(WORKFLOW)
        )
        workflow["name"] = "robust-distillation"
        workflow["version"] = __version__
        workflow["author"] = self.author
        inputs = zip(("experiment", "overlay"), self.content.experiment_files, strict=False)
        workflow["input"] = _unlisted([self._parameter(name, path) for name, path in inputs])
        workflow["output"] = self._parameter("table", self.layout.tables / "main.csv")
        return workflow

    def _parameter(self, name: str, path: Path) -> Entity:
        """Adds a parameter of the workflow and links it with the file that is its value."""
        parameter = self.crate.add_formal_parameter(name, "File", f"#parameter/{name}", valueRequired=name != "overlay")
        parameter["workExample"] = self.files[path]
        self.files[path]["exampleOfWork"] = parameter
        return parameter

    def _actions(self) -> None:
        """Adds the actions: one for each record, one for the run, and those that Snakemake did to control them."""
        actions = [self._action(path, record) for path, record in self.content.records.items()]
        self.workflow["hasPart"] = list(self.tools.values())
        self.workflow["step"] = list(self.steps.values())
        run = self.crate.add_action(
            self.workflow,
            "#run",
            object=_unlisted([self.files[path] for path in self.content.experiment_files]),
            result=[self.files[path] for path in self.content.results],
            properties={
                "name": f"Run of experiment {self.experiment.name}",
                "description": "All steps, from the data to the tables. Each step has its own action.",
                **self._when(self.content.started, self.content.ended),
            },
        )
        controls = [
            self._entity(
                f"#control/{action.id[1:]}",
                "ControlAction",
                name=f"Start of {action['name']}",
                instrument=self.steps[record["step"]],
                object=action,
                agent=self.author,
            )
            for action, record in zip(actions, self.content.records.values(), strict=True)
        ]
        self._entity(
            "#orchestration",
            "OrganizeAction",
            name="Orchestration by Snakemake",
            instrument=self._engine(),
            object=controls,
            result=run,
            **self._when(self.content.started, self.content.ended),
        )
        self.crate.root_dataset["mentions"] = [run, *actions]

    def _when(self, started: str, ended: str) -> dict[str, Any]:
        """Returns the properties of a completed action."""
        return {"agent": self.author, "startTime": started, "endTime": ended, "actionStatus": COMPLETED}

    def _engine(self) -> Entity:
        """Adds Snakemake, with the versions that the records name."""
        versions = {record["versions"].get("snakemake") for record in self.content.records.values()} - {None}
        version = {"softwareVersion": ", ".join(sorted(versions))} if versions else {}
        url = "https://snakemake.github.io"
        return self.crate.add(
            SoftwareApplication(self.crate, url, properties={"name": "Snakemake", "url": {"@id": url}, **version})
        )

    def _action(self, path: Path, record: dict[str, Any]) -> Entity:
        """Adds the action that a record describes."""
        step, git = record["step"], record["git"]
        made = path.parent if path.name == "record.json" else path.with_name(path.name.removesuffix(".record.json"))
        commit = f"git commit {git['commit']}{' with changes' if git['dirty'] else ''}" if git else "no git commit"
        return self.crate.add_action(
            self._tool(step),
            f"#{made.as_posix()}",
            object=_unlisted(
                [self._file_entity(name, content_hash, path) for name, content_hash in record["inputs"].items()]
            ),
            result=_unlisted(
                [self._file_entity(name, content_hash, path) for name, content_hash in record["outputs"].items()]
            ),
            properties={
                "name": f"{step}: {made.relative_to(self.layout.root)}",
                "description": f"Code {record['code']}, {commit}, on {_hardware(record['hardware'])}. "
                "Settings and versions stand in the record.",
                "subjectOf": self.files[path],
                **self._when(record["time"]["started"], record["time"]["ended"]),
            },
        )

    def _tool(self, step: str) -> Entity:
        """Returns the command that runs a step. Adds the command and the step if they are new."""
        if step not in self.tools:
            properties = {"name": f"robust-distillation {step}", "softwareVersion": __version__}
            self.tools[step] = self.crate.add(
                SoftwareApplication(self.crate, f"#command/{step}", properties=properties)
            )
            self.steps[step] = self._entity(f"#step/{step}", "HowToStep", name=step, workExample=self.tools[step])
        return self.tools[step]

    def _file_entity(self, name: str, content_hash: str, record: Path) -> Entity:
        """Returns the entity of a file that a record names. A file outside of the crate is identified by its hash.

        Raises UserError if the file in the crate has another hash.
        """
        if entity := self.files.get(Path(name)):
            if entity["sha256"] != content_hash:
                raise UserError(
                    f"{name}: is not the file that {record} names (sha256 {content_hash[:12]}...). "
                    "`snakemake -n` shows what has to be made again"
                )
            return entity
        identifier = f"#sha256/{content_hash}/{quote(name)}"
        return self.crate.get(identifier) or self._entity(
            identifier,
            "CreativeWork",
            name=name,
            sha256=content_hash,
            description="Not in the crate: it is large or from elsewhere, and can be made or downloaded again.",
        )


def _unlisted(values: list[Any]) -> Any:
    """Replaces a list of one value by that value, as RO-Crate prescribes."""
    return values[0] if len(values) == 1 else values


def _hardware(hardware: dict[str, Any]) -> str:
    """Names CPU and GPU of a record."""
    return ", ".join(str(hardware[part]) for part in ("cpu", "gpu") if hardware.get(part))
