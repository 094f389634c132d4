"""From every table cell back to the data: is each file what its record says, each record what the experiment and the
code say, each table what its outcomes give, and all of it what was committed?

Nothing is believed that can be computed: every file is hashed, every table made again. The committed dvc.lock is the
root of trust; without it the chain is checked against itself, and the audit says that it is unanchored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from robust_distillation.audit import dvc_lock, verify_files
from robust_distillation.config import Experiment
from robust_distillation.errors import UserError, short_repr
from robust_distillation.files import md5, read_json, sha256
from robust_distillation.pipeline.record import git
from robust_distillation.pipeline.step import Step
from robust_distillation.pipeline.steps import steps


@dataclass(frozen=True)
class Finding:
    """Something that does not fit: a file, or a cell of a table; the step it belongs to; what is made from it."""

    place: str
    problem: str
    step: str
    dependents: tuple[str, ...] = ()


@dataclass
class Audit:
    """What was found, in the order of the chain."""

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    anchored: str | None = None  # the commit whose dvc.lock everything was held against
    files: int = 0
    records: int = 0
    cells: int = 0


def audit(experiment: Experiment) -> Audit:
    """Checks all that lies under results/EXPERIMENT. Reads only."""
    return _Auditor(experiment).run()


class _Auditor:
    def __init__(self, experiment: Experiment):
        self.experiment, self.layout = experiment, experiment.layout
        self.chain = list(steps(experiment))
        self.result = Audit()
        self.named: set[str] = set()  # files of which a finding speaks: what follows from it is not said again
        self.hashes: dict[Path, str | None] = {}
        self.commits: dict[str, bool] = {}

    def run(self) -> Audit:
        for step in self.chain:
            self._contents(step)
            self._record(step)
        self._index()
        self._anchor()
        places = {str(file): rank for rank, step in enumerate(self.chain) for file in (*step.outputs, step.record)}
        order = {step.command: rank for rank, step in enumerate(self.chain)}
        self.result.findings.sort(key=lambda f: places.get(f.place, order.get(f.step, len(order))))
        self.result.notes = list(dict.fromkeys(self.result.notes))
        self.result.files = sum(known is not None for known in self.hashes.values())
        return self.result

    def _hash(self, path: Path) -> str | None:
        """sha256, None where there is no such file."""
        if path not in self.hashes:
            self.hashes[path] = sha256(path) if path.is_file() else None
        return self.hashes[path]

    def _find(self, step: Step | None, path: Path | str, problem: str, cell: str = "") -> None:
        self.named.add(str(path))
        command = step.command if step else "index"
        dependents = self._dependents(step) if step else ()
        self.result.findings.append(Finding(f"{path}{cell}", problem, command, dependents))

    def _dependents(self, step: Step) -> tuple[str, ...]:
        """The files made from what `step` makes, and from those."""
        reached, found = set(step.outputs), []
        for later in self.chain[self.chain.index(step) + 1 :]:
            if reached & set(later.inputs):
                reached |= set(later.outputs)
                found += map(str, later.outputs)
        return tuple(found)

    def _contents(self, step: Step) -> None:
        """What is in the files: data, tables, and whose model or outcomes they are."""
        try:
            checked = verify_files.check(step)
            self.result.cells += checked.cells
            self.result.notes += checked.notes
            for path, cell, problem in checked.problems:
                self._find(step, path, problem, cell)
        except (OSError, UserError, ValueError, KeyError, TypeError) as error:
            # A file that cannot be read is named by its hash, below; here it only cannot be looked into.
            self.result.notes.append(f"{step.command}: its files could not be looked into ({_line(error)})")

    def _record(self, step: Step) -> None:
        record = self._read(step, step.record)
        if record is None:
            return
        self.result.records += 1
        expected = {
            "step": step.name,
            "code": step.code,
            "settings": json.loads(json.dumps(verify_files.settings_of(step))),
        }
        for key, value in expected.items():
            if record.get(key) != value:
                self._find(step, step.record, f"{key}: {_difference(record.get(key), value)}")
        self._hashes_of(step, record, "inputs", step.inputs)
        self._hashes_of(step, record, "outputs", step.outputs)
        self._commit(step, record.get("git"))

    def _read(self, step: Step | None, path: Path) -> dict[str, Any] | None:
        try:
            found = read_json(path)
        except OSError:
            self._find(step, path, "is missing")
        except ValueError:
            self._find(step, path, "is no JSON")
        else:
            if isinstance(found, dict):
                return found
            self._find(step, path, "is no record")
        return None

    def _hashes_of(self, step: Step, record: dict[str, Any], group: str, files: tuple[Path, ...]) -> None:
        written = record.get(group)
        if not isinstance(written, dict) or set(written) != set(map(str, files)):
            named = set(written) if isinstance(written, dict) else set()
            odd = sorted(named ^ set(map(str, files)))
            self._find(step, step.record, f"{group}: names other files than the step's: {', '.join(odd[:3])}")
            return
        for file in files:
            here = self._hash(file)
            if here == written[str(file)] or str(file) in self.named:
                continue
            if here is not None:
                problem = "is not what its record says" if group == "outputs" else f"is not what {step.record} read"
                self._find(step, file, f"{problem} (sha256 {here[:12]}, not {short_repr(written[str(file)])[1:13]})")
            elif self._rebuildable(file):
                self.result.notes.append(f"{file}: is not here, so it was not checked; its job fills it again")
            elif group == "outputs":
                self._find(step, file, "is missing")

    def _rebuildable(self, file: Path) -> bool:
        return any(step.rebuildable and file in step.outputs for step in self.chain)

    def _commit(self, step: Step, git: Any) -> None:
        if git is None:
            self.result.notes.append("made outside a git repository: the code's fingerprint alone says what it was")
        elif not isinstance(git, dict) or not isinstance(git.get("commit"), str):
            self._find(step, step.record, "git: names no commit")
        elif not self._known(git["commit"]):
            self._find(step, step.record, f"git: commit {short_repr(git['commit'])} is not in this repository")
        elif git.get("dirty"):
            self.result.notes.append(f"made beside uncommitted changes, at commit {git['commit'][:12]}")

    def _known(self, commit: str) -> bool:
        """Whether the commit exists here; outside a repository nothing can be said against it."""
        if commit not in self.commits:
            exists = commit.isalnum() and git("cat-file", "-e", f"{commit}^{{commit}}") is not None
            self.commits[commit] = exists or not self._in_repository
        return self.commits[commit]

    @cached_property
    def _in_repository(self) -> bool:
        return git("rev-parse", "HEAD") is not None

    def _index(self) -> None:
        path = self.layout.index
        index = self._read(None, path)
        if index is None:
            return
        if index.get("experiment") != self.experiment.name:
            self._find(None, path, f"experiment: {_difference(index.get('experiment'), self.experiment.name)}")
        records, artefacts = index.get("records"), index.get("artefacts")
        expected = {str(step.record): step for step in self.chain}
        made = {str(file): step for step in self.chain for file in step.outputs}
        for group, found, known in (("records", records, expected), ("artefacts", artefacts, made)):
            if not isinstance(found, dict) or set(found) != set(known):
                odd = sorted(set(found if isinstance(found, dict) else ()) ^ set(known))
                self._find(None, path, f"{group}: names other files than the experiment's: {', '.join(odd[:3])}")
                return
        for name, step in expected.items():
            if name not in self.named and self._hash(step.record) != records[name]:
                self._find(step, name, f"is not the record that {path} names: it was changed after that was written")
        for name, step in made.items():
            self._indexed(path, name, step, artefacts[name])
        tracked = self._read(None, self.layout.tracked)
        if tracked is not None and index.get("mlflow") != tracked:
            self._find(None, path, f"mlflow: {_difference(index.get('mlflow'), tracked)}")

    def _indexed(self, index: Path, name: str, step: Step, entry: Any) -> None:
        file = Path(name)
        here = self._hash(file)
        if name in self.named or here is None:
            return
        true = {"sha256": here, "record": str(step.record)} | ({} if step.rebuildable else {"md5": md5(file)})
        if entry != true:
            self._find(step, name, f"does not fit its entry in {index}: {_difference(entry, true)}")

    def _anchor(self) -> None:
        found = dvc_lock.anchor(self.layout)
        if found is None:
            self.result.notes.append(
                f"unanchored: no commit holds a {dvc_lock.LOCK} with this experiment, so that whoever rewrote "
                "everything would not be seen. dvc repro, then git commit"
            )
            return
        self.result.anchored = found.commit
        owners = {str(file): step for step in self.chain for file in (*step.outputs, step.record)}
        for place, problem in dvc_lock.deviations(found):
            if place not in self.named:
                self._find(owners.get(place), place, problem)
        for place, problem in _values(found.params):
            self._find(None, place, problem)
        apart = [file for file in owners if not any(_within(file, out) for out in found.outs)]
        apart = [file for file in apart if not self._rebuildable(Path(file))]
        if apart:
            self.result.notes.append(f"not in {dvc_lock.LOCK}: {len(apart)} files, the first is {apart[0]}")


def _within(file: str, out: str) -> bool:
    return file == out or file.startswith(f"{out}/")


def _values(params: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The experiment's files whose values are not those that were committed."""
    from ruamel.yaml import YAML

    for path, committed in params.items():
        here = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else None
        if here != committed:
            yield path, f"is not what the committed {dvc_lock.LOCK} was made with: {_difference(here, committed)}"


def _difference(here: Any, expected: Any, key: str = "") -> str:
    """The first place where two JSON values differ: what is here, and what should be."""
    if isinstance(here, dict) and isinstance(expected, dict):
        for name in sorted(here.keys() | expected.keys(), key=str):
            if here.get(name) != expected.get(name) or (name in here) != (name in expected):
                return _difference(here.get(name), expected.get(name), f"{key}.{name}" if key else str(name))
    return f"{key + ' is ' if key else 'is '}{short_repr(here)}, not {short_repr(expected)}"


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]


def listed(names: tuple[str, ...], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def described(result: Audit, experiment: Experiment) -> str:
    """The audit as people read it: the first thing that does not fit, with what depends on it, then the others."""
    lines = []
    for rank, finding in enumerate(result.findings):
        lines.append(f"{'DOES NOT FIT' if rank == 0 else 'nor does'}: {finding.place}")
        lines.append(f"  {finding.problem}")
        lines.append(f"  step: {finding.step}")
        if rank == 0 and finding.dependents:
            lines.append(f"  depends on it: {listed(finding.dependents)}")
    lines += [f"note: {note}" for note in result.notes]
    counted = f"{result.files} files hashed, {result.records} records, {result.cells} table cells made again"
    held = f"held against the {dvc_lock.LOCK} of commit {result.anchored[:12]}" if result.anchored else "unanchored"
    verdict = f"{len(result.findings)} do not fit" if result.findings else "everything fits"
    return "\n".join([*lines, f"{experiment.name}: {verdict} ({counted}; {held})"])
