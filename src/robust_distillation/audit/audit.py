"""Audits the results of an experiment, from every table cell back to the data.

The audit checks that each file has the hash in its record, that each record has the settings of the experiment and the
fingerprint of the code, that each table follows from its outcomes, and that all of it is what was committed. A record
is the JSON file beside an output with its inputs, hashes, code fingerprint and settings.

Every file is hashed and every table is made again. The root of trust is the dvc.lock of the last git commit. Without
it, files are checked against their records only, and the audit reports that nothing was checked against git.
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

NOT_IN_GIT = "not checked against git"


@dataclass(frozen=True)
class Finding:
    """Mistake that an audit found in one file or table cell.

    Attributes:
        place: path of the file. For a cell of a CSV table also the name of the cell, as in
            `results/digits/tables/main.csv, cell wide/small/rslad/best/autoattack`.
        problem: description of the mistake, for example `is missing`.
        step: command that makes the file, without the name of the program `robust-distillation`, for example `attack
            wide/small/rslad/seed-0`; `index` for results/EXPERIMENT/provenance.json, the list of all files, and for
            files that no command makes.
        dependents: paths of the files that are made from the outputs of that command, directly or through other files,
            in the order in which they are made. Empty if there are none.
    """

    place: str
    problem: str
    step: str
    dependents: tuple[str, ...] = ()


@dataclass
class Audit:
    """Result of an audit.

    Attributes:
        findings: the mistakes, a list of `Finding` (place, problem, step, dependents), in the order in which the files
            are made. Empty if everything is correct.
        notes: sentences about what could not be checked, each once, such as `made outside a git repository: only the
            code's fingerprint was checked`.
        commit: hash (40 digits) of the git commit with the dvc.lock that the files were compared with. None if no
            commit has a dvc.lock with this experiment.
        files: number of files that were hashed.
        records: number of records that were read. A record is the JSON file beside an output: its inputs, settings,
            code hash (a hash of the source code that the output depends on) and hashes of the outputs.
        cells: number of numbers in CSV tables that were computed again from the outcomes and compared.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commit: str | None = None
    files: int = 0
    records: int = 0
    cells: int = 0


def audit(experiment: Experiment) -> Audit:
    """Audits the files of an experiment in results/EXPERIMENT. Writes nothing there.

    Every file is hashed. The hash is compared with three places: its record (the JSON file beside it with inputs,
    settings, code hash and hashes of the outputs), the list of all files results/EXPERIMENT/provenance.json, and the
    dvc.lock of the last git commit. The settings in every record are compared with the experiment. The code hash in it
    (a hash of the source code that the output depends on) is compared with that of the present code. Every table is
    made again from the outcomes (one row per network, checkpoint and test image: correct or not under each attack).

    Args:
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it.
            Its paths are relative to the working directory.

    Returns:
        An Audit with the fields `findings` (mistakes, each with file, problem and the command that makes the file),
        `notes` (sentences about what could not be checked), `commit` (git commit of the dvc.lock, None without one),
        and the numbers `files`, `records` and `cells`. A missing or damaged file is a mistake in `findings` and raises
        no error. A missing file of a teacher's cached outputs is a note.
    """
    return _Auditor(experiment).run()


class _Auditor:
    """Collects the findings of one audit."""

    def __init__(self, experiment: Experiment):
        self.experiment, self.layout = experiment, experiment.layout
        self.chain = list(steps(experiment))
        self.result = Audit()
        self.reported: set[str] = set()  # files with a finding; other problems of the same file are not reported
        self.hashes: dict[Path, str | None] = {}
        self.commits: dict[str, bool] = {}

    def run(self) -> Audit:
        for step in self.chain:
            self._contents(step)
            self._record(step)
        self._index()
        self._committed()
        places = {str(file): rank for rank, step in enumerate(self.chain) for file in (*step.outputs, step.record)}
        order = {step.command: rank for rank, step in enumerate(self.chain)}
        self.result.findings.sort(key=lambda f: places.get(f.place, order.get(f.step, len(order))))
        self.result.notes = list(dict.fromkeys(self.result.notes))
        self.result.files = sum(digest is not None for digest in self.hashes.values())
        return self.result

    def _hash(self, path: Path) -> str | None:
        """Returns the sha256 of a file. None if there is no such file."""
        if path not in self.hashes:
            self.hashes[path] = sha256(path) if path.is_file() else None
        return self.hashes[path]

    def _find(self, step: Step | None, path: Path | str, problem: str, cell: str = "") -> None:
        """Adds a finding. step: the step that makes the file; None for the index."""
        self.reported.add(str(path))
        command = step.command if step else "index"
        dependents = self._dependents(step) if step else ()
        self.result.findings.append(Finding(f"{path}{cell}", problem, command, dependents))

    def _dependents(self, step: Step) -> tuple[str, ...]:
        """Lists the files that are made from the outputs of `step`, directly or through others."""
        reached, dependents = set(step.outputs), []
        for later in self.chain[self.chain.index(step) + 1 :]:
            if reached & set(later.inputs):
                reached |= set(later.outputs)
                dependents += map(str, later.outputs)
        return tuple(dependents)

    def _contents(self, step: Step) -> None:
        """Checks the content of a step's files: data, tables, and to which model checkpoints and outcomes belong."""
        try:
            checked = verify_files.check(step)
            self.result.cells += checked.cells
            self.result.notes += checked.notes
            for path, cell, problem in checked.problems:
                self._find(step, path, problem, cell)
        except (OSError, UserError, ValueError, KeyError, TypeError) as error:
            # A damaged file becomes a finding by its hash, below.
            self.result.notes.append(f"{step.command}: the content of its files could not be read ({_line(error)})")

    def _record(self, step: Step) -> None:
        """Checks a record against the experiment, the code, the files and git."""
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
        """Reads a JSON object. None, and a finding, if that fails."""
        try:
            content = read_json(path)
        except OSError:
            self._find(step, path, "is missing")
        except ValueError:
            self._find(step, path, "is no JSON")
        else:
            if isinstance(content, dict):
                return content
            self._find(step, path, "is no record")
        return None

    def _hashes_of(self, step: Step, record: dict[str, Any], group: str, files: tuple[Path, ...]) -> None:
        """Checks the hashes in a record. group: `inputs` or `outputs`; files: those of the step."""
        written = record.get(group)
        if not isinstance(written, dict) or set(written) != set(map(str, files)):
            names = set(written) if isinstance(written, dict) else set()
            odd = sorted(names ^ set(map(str, files)))
            self._find(step, step.record, f"{group}: names other files than the step's: {', '.join(odd[:3])}")
            return
        for file in files:
            here = self._hash(file)
            if here == written[str(file)] or str(file) in self.reported:
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
        """Checks the commit in a record."""
        if git is None:
            self.result.notes.append("made outside a git repository: only the code's fingerprint was checked")
        elif not isinstance(git, dict) or not isinstance(git.get("commit"), str):
            self._find(step, step.record, "git: names no commit")
        elif not self._known(git["commit"]):
            self._find(step, step.record, f"git: commit {short_repr(git['commit'])} is not in this repository")
        elif git.get("dirty"):
            self.result.notes.append(f"made beside uncommitted changes, at commit {git['commit'][:12]}")

    def _known(self, commit: str) -> bool:
        """Returns true if the commit exists in this repository. Outside a repository every commit passes."""
        if commit not in self.commits:
            exists = commit.isalnum() and git("cat-file", "-e", f"{commit}^{{commit}}") is not None
            self.commits[commit] = exists or not self._in_repository
        return self.commits[commit]

    @cached_property
    def _in_repository(self) -> bool:
        return git("rev-parse", "HEAD") is not None

    def _index(self) -> None:
        """Checks the index of all files and records."""
        path = self.layout.index
        index = self._read(None, path)
        if index is None:
            return
        if index.get("experiment") != self.experiment.name:
            self._find(None, path, f"experiment: {_difference(index.get('experiment'), self.experiment.name)}")
        records, artefacts = index.get("records"), index.get("artefacts")
        expected_records = {str(step.record): step for step in self.chain}
        outputs = {str(file): step for step in self.chain for file in step.outputs}
        for group, entries, expected in (("records", records, expected_records), ("artefacts", artefacts, outputs)):
            if not isinstance(entries, dict) or set(entries) != set(expected):
                odd = sorted(set(entries if isinstance(entries, dict) else ()) ^ set(expected))
                self._find(None, path, f"{group}: names other files than the experiment's: {', '.join(odd[:3])}")
                return
        for name, step in expected_records.items():
            if name not in self.reported and self._hash(step.record) != records[name]:
                self._find(step, name, f"is not the record that {path} names: it was changed after that was written")
        for name, step in outputs.items():
            self._indexed(path, name, step, artefacts[name])
        tracked = self._read(None, self.layout.tracked)
        if tracked is not None and index.get("mlflow") != tracked:
            self._find(None, path, f"mlflow: {_difference(index.get('mlflow'), tracked)}")

    def _indexed(self, index: Path, name: str, step: Step, entry: Any) -> None:
        """Checks the entry of one file in the index."""
        file = Path(name)
        here = self._hash(file)
        if name in self.reported or here is None:
            return
        expected = {"sha256": here, "record": str(step.record)} | ({} if step.rebuildable else {"md5": md5(file)})
        if entry != expected:
            self._find(step, name, f"does not match its entry in {index}: {_difference(entry, expected)}")

    def _committed(self) -> None:
        """Checks the files against the committed dvc.lock."""
        lock = dvc_lock.committed_lock(self.layout)
        if lock is None:
            self.result.notes.append(
                f"{NOT_IN_GIT}: no commit holds a {dvc_lock.LOCK} with this experiment, so a forgery that "
                "rewrites every file and record would not be noticed. Run dvc repro, then git commit"
            )
            return
        self.result.commit = lock.commit
        owners = {str(file): step for step in self.chain for file in (*step.outputs, step.record)}
        for place, problem in dvc_lock.deviations(lock):
            if place not in self.reported:
                self._find(owners.get(place), place, problem)
        for place, problem in _values(lock.params):
            self._find(None, place, problem)
        missing = [file for file in owners if not any(_within(file, out) for out in lock.outs)]
        missing = [file for file in missing if not self._rebuildable(Path(file))]
        if missing:
            self.result.notes.append(f"not in {dvc_lock.LOCK}: {len(missing)} files, the first is {missing[0]}")


def _within(file: str, out: str) -> bool:
    """Returns true if `file` is the DVC out `out` or lies in it."""
    return file == out or file.startswith(f"{out}/")


def _values(params: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields each experiment file whose values differ from the committed ones, and the problem."""
    from ruamel.yaml import YAML

    for path, committed in params.items():
        here = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else None
        if here != committed:
            yield path, f"is not what the committed {dvc_lock.LOCK} was made with: {_difference(here, committed)}"


def _difference(here: Any, expected: Any, key: str = "") -> str:
    """Describes the first place where two JSON values differ: the present value and the expected one."""
    if isinstance(here, dict) and isinstance(expected, dict):
        for name in sorted(here.keys() | expected.keys(), key=str):
            if here.get(name) != expected.get(name) or (name in here) != (name in expected):
                return _difference(here.get(name), expected.get(name), f"{key}.{name}" if key else str(name))
    return f"{key + ' is ' if key else 'is '}{short_repr(here)}, not {short_repr(expected)}"


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]


def _first_of(names: tuple[str, ...], most: int = 6) -> str:
    """Joins the first names with commas, and counts the rest."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def format_audit(result: Audit, experiment: Experiment) -> str:
    """Formats an audit as text of several lines for the terminal.

    Each mistake has three lines: the file or cell, the problem, and the command that makes the file. The first mistake
    has a fourth line with up to six files that are made from it, and the number of further ones. The notes follow, one
    a line. The last line has the experiment's name, the number of mistakes, of files, records and cells, and the
    commit.

    Args:
        result: the Audit that `audit` returns: mistakes, notes and counts.
        experiment: the parsed experiment file with all defaults filled in, as `config.load("params.yaml")` returns it;
            only its name is used.

    Returns:
        The text, without a newline at the end. Its last line is for example `digits: everything fits (212 files hashed,
        58 records, 340 table cells made again; checked against the dvc.lock of commit 56a940d74f9d)`.
    """
    lines = []
    for rank, finding in enumerate(result.findings):
        lines.append(f"{'DOES NOT FIT' if rank == 0 else 'nor does'}: {finding.place}")
        lines.append(f"  {finding.problem}")
        lines.append(f"  step: {finding.step}")
        if rank == 0 and finding.dependents:
            lines.append(f"  depends on it: {_first_of(finding.dependents)}")
    lines += [f"note: {note}" for note in result.notes]
    counted = f"{result.files} files hashed, {result.records} records, {result.cells} table cells made again"
    trust = f"checked against the {dvc_lock.LOCK} of commit {result.commit[:12]}" if result.commit else NOT_IN_GIT
    verdict = f"{len(result.findings)} do not fit" if result.findings else "everything fits"
    return "\n".join([*lines, f"{experiment.name}: {verdict} ({counted}; {trust})"])
