"""A finished experiment as a research object: its files, and the records as linked data.

An RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) of the profile Provenance Run Crate 0.5
(https://w3id.org/ro/wfrun/provenance/0.5) and those that it extends: one CreateAction for the whole run, and one for
each record with the hashes that it states.
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
TERMS = {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}  # that RO-Crate 1.1 itself does not have
WORKFLOW = Path("Snakefile")
CODE = (WORKFLOW, *map(Path, ("workflow", "profiles", "src", "pyproject.toml", "requirements.txt")))
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
    """What goes into a crate. Paths are relative to the checkout, as they stand in the records."""

    given: tuple[Path, ...]  # the experiment file, and the overlay
    code: tuple[Path, ...]
    results: tuple[Path, ...]
    records: dict[Path, dict[str, Any]]  # in the order in which the steps began

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((*self.code, *self.given, *self.results)))

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    @property
    def started(self) -> str:
        return min(record["time"]["started"] for record in self.records.values())

    @property
    def ended(self) -> str:
        return max(record["time"]["ended"] for record in self.records.values())


def content_of(experiment: Experiment, given: Iterable[str]) -> Content:
    """The files and records of a finished experiment; the cache's arrays and the logs stay out.

    given: the experiment file and, if there is one, the overlay. Raises UserError where a record or the table is
    missing.
    """
    layout = Layout(experiment.name)
    missing = [path for path in _expected(experiment, layout) if not path.is_file()]
    if missing:
        raise UserError(
            f"experiment {experiment.name}: not finished, {missing[0]} is not there"
            + (f" (and {len(missing) - 1} more)" if missing[1:] else "")
            + f". Run it to its end first: robust-distillation reproduce {experiment.arguments}"
        )
    results = tuple(path for path in _files(layout.root) if _belongs(path, experiment, layout))
    records = {path: read_json(path) for path in results if path.name.endswith("record.json")}
    ordered = dict(sorted(records.items(), key=lambda item: (item[1]["time"]["started"], str(item[0]))))
    return Content(tuple(map(_inside, given)), tuple(path for top in CODE for path in _files(top)), results, ordered)


def _expected(experiment: Experiment, layout: Layout) -> Iterator[Path]:
    """What an experiment that ran to its end has at the least."""
    teachers = [layout.teacher(name) for name in experiment.teachers]
    students = [layout.student(run.teacher, run.student, run.method, run.seed) for run in experiment.runs]
    yield layout.record(layout.data)
    for folder in teachers + students:
        yield from (folder / "record.json", layout.outcomes(folder), layout.record(layout.outcomes(folder)))
    yield layout.tables / "main.csv"


def _files(top: Path) -> Iterator[Path]:
    """`top` itself, or all files below it that are not hidden and not made by Python."""
    if top.is_file():
        yield top
    for path in sorted(top.rglob("*")):
        parts = path.relative_to(top).parts
        if path.is_file() and not any(part.startswith(".") or part.endswith((".egg-info", ".pyc")) for part in parts):
            yield path


def _belongs(path: Path, experiment: Experiment, layout: Layout) -> bool:
    """Not logs and the cache's arrays, nor what is left of a method or seed that the experiment no longer has."""
    if path.is_relative_to(layout.root / "logs") or path.suffix == ".npy":
        return False
    student = re.search(r"/students/([^/]+)/([^/]+)/([^/]+)/seed-(\d+)\b", str(path))
    return not student or Run(*student.groups()[:3], int(student[4])) in experiment.runs


def _inside(name: str) -> Path:
    """A file's place in the checkout; one from elsewhere lies at the crate's top."""
    path = Path(name).resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def write_crate(experiment: Experiment, content: Content, target: Path, author: str, licence: str | None) -> None:
    """Writes a folder or, where `target` ends in .zip, one file: whole or not at all, the same bytes every time.

    Raises UserError where `target` exists, and where a file is no longer the one that its record tells of.
    """
    if target.exists():
        raise UserError(f"{target}: is there already. Remove it, or choose another place")
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
    """A ZIP without the time of its making."""
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            entry.compress_type = zipfile.ZIP_DEFLATED
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as destination:
                shutil.copyfileobj(source, destination)


class _Workflow(ComputationalWorkflow):
    TYPES: ClassVar = [*ComputationalWorkflow.TYPES, "HowTo"]  # as it has steps


class _Description:
    """Builds the crate: files first, then the workflow, then what was done."""

    def __init__(self, experiment: Experiment, content: Content, author: str, licence: str | None):
        self.experiment, self.content = experiment, content
        self.layout = Layout(experiment.name)
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
            self._about(url, "CreativeWork", name=name, version=url.rpartition("/")[2])
            for url, name in PROFILES.items()
        ]

    def _licence(self, licence: str | None) -> Entity:
        if licence:
            return self._about(licence, "CreativeWork", name=licence, description="How this crate may be used.")
        unsaid = "The author has not said how this may be used. Ask before using it."
        return self._about("#licence", "CreativeWork", name="No licence given", description=unsaid)

    def _about(self, identifier: str, kind: str, **properties: Any) -> Entity:
        """Adds an entity that is no file."""
        return self.crate.add(ContextEntity(self.crate, identifier, properties={"@type": kind, **properties}))

    def _properties(self, path: Path) -> dict[str, str]:
        return {
            "encodingFormat": FORMATS.get(path.suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream",
            "contentSize": str(path.stat().st_size),
            "sha256": sha256(path),
        }

    def _file(self, path: Path) -> Entity:
        place = path.name if path.is_absolute() else path
        return self.crate.add_file(path, place, properties={"name": str(place), **self._properties(path)})

    def _workflow(self) -> Entity:
        workflow = self.crate.add_workflow(
            WORKFLOW, WORKFLOW, main=True, lang="snakemake", cls=_Workflow, properties=self._properties(WORKFLOW)
        )
        workflow["name"] = "robust-distillation"
        workflow["version"] = __version__
        workflow["author"] = self.author
        inputs = zip(("experiment", "overlay"), self.content.given, strict=False)
        workflow["input"] = _unlisted([self._parameter(name, path) for name, path in inputs])
        workflow["output"] = self._parameter("table", self.layout.tables / "main.csv")
        return workflow

    def _parameter(self, name: str, path: Path) -> Entity:
        """A slot of the workflow, and the file that fills it."""
        slot = self.crate.add_formal_parameter(name, "File", f"#parameter/{name}", valueRequired=name != "overlay")
        slot["workExample"] = self.files[path]
        self.files[path]["exampleOfWork"] = slot
        return slot

    def _actions(self) -> None:
        done = [self._action(path, record) for path, record in self.content.records.items()]
        self.workflow["hasPart"] = list(self.tools.values())
        self.workflow["step"] = list(self.steps.values())
        run = self.crate.add_action(
            self.workflow,
            "#run",
            object=_unlisted([self.files[path] for path in self.content.given]),
            result=[self.files[path] for path in self.content.results],
            properties={
                "name": f"Run of experiment {self.experiment.name}",
                "description": "All steps, from the data to the tables; their own actions say what each made of what.",
                **self._when(self.content.started, self.content.ended),
            },
        )
        controls = [
            self._about(
                f"#control/{action.id[1:]}",
                "ControlAction",
                name=f"Start of {action['name']}",
                instrument=self.steps[record["step"]],
                object=action,
                agent=self.author,
            )
            for action, record in zip(done, self.content.records.values(), strict=True)
        ]
        self._about(
            "#orchestration",
            "OrganizeAction",
            name="Orchestration by Snakemake",
            instrument=self._engine(),
            object=controls,
            result=run,
            **self._when(self.content.started, self.content.ended),
        )
        self.crate.root_dataset["mentions"] = [run, *done]

    def _when(self, started: str, ended: str) -> dict[str, Any]:
        return {"agent": self.author, "startTime": started, "endTime": ended, "actionStatus": COMPLETED}

    def _engine(self) -> Entity:
        versions = {record["versions"].get("snakemake") for record in self.content.records.values()} - {None}
        known = {"softwareVersion": ", ".join(sorted(versions))} if versions else {}
        url = "https://snakemake.github.io"
        return self.crate.add(
            SoftwareApplication(self.crate, url, properties={"name": "Snakemake", "url": {"@id": url}, **known})
        )

    def _action(self, path: Path, record: dict[str, Any]) -> Entity:
        """What one record tells."""
        step, git = record["step"], record["git"]
        made = path.parent if path.name == "record.json" else path.with_name(path.name.removesuffix(".record.json"))
        commit = f"git commit {git['commit']}{' with changes' if git['dirty'] else ''}" if git else "no git commit"
        return self.crate.add_action(
            self._tool(step),
            f"#{made.as_posix()}",
            object=_unlisted([self._known(name, known, path) for name, known in record["inputs"].items()]),
            result=_unlisted([self._known(name, known, path) for name, known in record["outputs"].items()]),
            properties={
                "name": f"{step}: {made.relative_to(self.layout.root)}",
                "description": f"Code {record['code']}, {commit}, on {_hardware(record['hardware'])}. "
                "Settings and versions stand in the record.",
                "subjectOf": self.files[path],
                **self._when(record["time"]["started"], record["time"]["ended"]),
            },
        )

    def _tool(self, step: str) -> Entity:
        """The command of a step; the step itself is added with it."""
        if step not in self.tools:
            properties = {"name": f"robust-distillation {step}", "softwareVersion": __version__}
            self.tools[step] = self.crate.add(
                SoftwareApplication(self.crate, f"#command/{step}", properties=properties)
            )
            self.steps[step] = self._about(f"#step/{step}", "HowToStep", name=step, workExample=self.tools[step])
        return self.tools[step]

    def _known(self, name: str, known: str, record: Path) -> Entity:
        """The file that a record names, if it is still the same; one that is not in the crate by its hash."""
        if entity := self.files.get(Path(name)):
            if entity["sha256"] != known:
                raise UserError(
                    f"{name}: is not the file that {record} tells of (sha256 {known[:12]}...). "
                    "`snakemake -n` says what has to be made again"
                )
            return entity
        identifier = f"#sha256/{known}/{quote(name)}"
        return self.crate.get(identifier) or self._about(
            identifier,
            "CreativeWork",
            name=name,
            sha256=known,
            description="Not in the crate: it is large, or not ours, and can be made or fetched again.",
        )


def _unlisted(values: list[Any]) -> Any:
    """RO-Crate writes a list of one as the one."""
    return values[0] if len(values) == 1 else values


def _hardware(hardware: dict[str, Any]) -> str:
    return ", ".join(str(hardware[part]) for part in ("cpu", "gpu") if hardware.get(part))
