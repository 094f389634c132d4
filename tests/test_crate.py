"""An experiment as a research object: complete, true to its records, and accepted by a published validator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner, Result
from conftest import TINY
from rocrate.rocrate import ROCrate

from robust_distillation.cli import main
from robust_distillation.files import read_json, sha256

METADATA = "ro-crate-metadata.json"
# The validator cannot live beside our pins. The older rocrate is there for its copy of the context of RO-Crate 1.1.
VALIDATOR = ("roc-validator==0.13.0", "rocrate==0.14.0")
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
SEED = """
import io, sys
from importlib.util import find_spec
from pathlib import Path
from requests.adapters import HTTPAdapter
from requests_cache import CachedSession
from urllib3 import HTTPResponse

class FromDisk(HTTPAdapter):
    def send(self, request, **options):
        place = Path(find_spec("rocrate").submodule_search_locations[0], "data/ro-crate.jsonld")
        body, kind = io.BytesIO(place.read_bytes()), {"Content-Type": "application/ld+json"}
        return self.build_response(
            request, HTTPResponse(body, kind, 200, preload_content=False, request_url=request.url)
        )

session = CachedSession(sys.argv[1], expire_after=-1, backend="sqlite")
session.mount("https://", FromDisk())
session.get(sys.argv[2])
"""


def export(tree: Path, target: Path, *options: str) -> Result:
    arguments = ["export", "crate", "--overlay", "tiny.yaml", "--to", str(target), "--author", "Ada", *options]
    before = Path.cwd()
    os.chdir(tree)
    try:
        return CliRunner().invoke(main, arguments)
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("crate") / "tiny"
    result = export(finished, folder)
    assert result.exit_code == 0, result.output
    return folder


def ids(value) -> set[str]:
    """The entities that a property of the metadata names."""
    values = value if isinstance(value, list) else [value]
    return {entry["@id"] for entry in values if isinstance(entry, dict)}


def test_crate_opens_and_every_file_is_what_it_says(written):
    crate = ROCrate(written)
    assert crate.mainEntity.id == "Snakefile"
    assert crate.mainEntity["programmingLanguage"]["name"] == "Snakemake"
    assert (crate.root_dataset["author"]["name"], crate.license["name"]) == ("Ada", "No licence given")
    listed = {unquote(entity.id): entity for entity in crate.data_entities}
    on_disk = {path.relative_to(written).as_posix() for path in written.rglob("*") if path.is_file()}
    assert set(listed) == on_disk - {METADATA}
    assert all(sha256(written / path) == entity["sha256"] for path, entity in listed.items())
    for name in ("students/wide/small/gacd/seed-0/best.safetensors", "tables/main.csv", "data.record.json"):
        assert f"results/tiny/{name}" in listed
    assert {"params.yaml", "tiny.yaml", "workflow/rules/steps.smk"} < set(listed)
    assert not [path for path in listed if "/logs/" in path or path.endswith((".npy", ".pyc"))]


def test_every_record_is_an_action_and_nothing_is_named_that_is_not_there(written):
    graph = {entity["@id"]: entity for entity in read_json(written / METADATA)["@graph"]}
    profiles = ids(graph["./"]["conformsTo"])
    outside = {*profiles, CONTEXT.removesuffix("/context"), "https://w3id.org/workflowhub/workflow-ro-crate/1.0"}
    for entity in graph.values():
        named = set().union(*(ids(value) for key, value in entity.items() if key not in ("identifier", "url")))
        assert named - outside - {"https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"} <= set(graph)
    actions = {entity["@id"]: entity for entity in graph.values() if entity["@type"] == "CreateAction"}
    records = {path: read_json(path) for path in written.rglob("*record.json")}
    assert len(actions) == len(records) + 1
    assert ids(graph["./"]["mentions"]) == set(actions)
    told = {unquote(next(iter(ids(action["subjectOf"])))): action for name, action in actions.items() if name != "#run"}
    for path, record in records.items():
        action = told[path.relative_to(written).as_posix()]
        for group, stated in (("object", "inputs"), ("result", "outputs")):
            hashes = {graph[name]["name"]: graph[name]["sha256"] for name in ids(action.get(group, []))}
            assert hashes == record[stated]
        assert (action["startTime"], action["endTime"]) == (record["time"]["started"], record["time"]["ended"])
        assert graph[action["instrument"]["@id"]]["name"] == f"robust-distillation {record['step']}"
    assert "results/tiny/tables/main.csv" in ids(actions["#run"]["result"])


def test_folder_and_zip_hold_the_same_bytes_each_time(finished, written, tmp_path):
    for name in ("once.zip", "again.zip"):
        assert export(finished, tmp_path / name).exit_code == 0
    assert (tmp_path / "once.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "once.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert files == {
        path.relative_to(written).as_posix(): path.read_bytes() for path in written.rglob("*") if path.is_file()
    }


def test_what_is_unfinished_changed_or_there_already_is_refused(tree, tmp_path):
    target = tmp_path / "out/crate"

    def refused(message: str, place: Path = target) -> None:
        result = export(tree, place)
        assert (result.exit_code, "Traceback" in result.output) == (2, False)
        assert message in result.output
        assert not target.exists()
        assert not list(tmp_path.glob("out/*")) or place is not target

    best = tree / "results/tiny/students/wide/small/rslad/seed-0/best.safetensors"
    content = best.read_bytes()
    best.write_bytes(content + b"x")
    refused("best.safetensors: is not the file that results/tiny/")
    best.write_bytes(content)
    record = best.with_name("record.json")
    kept = record.rename(tmp_path / "record.json")
    refused("not finished, results/tiny/students/wide/small/rslad/seed-0/record.json is missing. Run it")
    shutil.copy(kept, record)
    refused("exists already", tmp_path)
    # What the experiment no longer has stays out: its files lie there still.
    without = TINY.replace("methods: {", "methods: {gacd: ~, ").replace("gacd: {negatives: 16, dimension: 8}", "")
    (tree / "tiny.yaml").write_text(without.partition("claims:")[0] + "claims: ~\n")
    result = export(tree, target)
    assert result.exit_code == 0, result.output
    assert not list(target.rglob("gacd/seed-0*"))


@pytest.fixture(scope="module")
def validate(tmp_path_factory):
    """A function: crate, profile -> whether the validator accepts it, and what it found."""
    folder = tmp_path_factory.mktemp("validator")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    installed = subprocess.run([folder / "bin/pip", "install", "--quiet", *VALIDATOR], capture_output=True, text=True)
    if installed.returncode:
        said = installed.stderr.strip().splitlines()[-1]
        pytest.skip(f"needs a package index, for {' and '.join(VALIDATOR)} cannot live beside our pins: {said}")
    cache = folder / "cache"
    subprocess.run([folder / "bin/python", "-c", SEED, cache, CONTEXT], check=True)

    def run(crate: Path, profile: str) -> tuple[bool, list[str]]:
        report = folder / "report.json"
        report.unlink(missing_ok=True)
        options = ["--offline", "--cache-path", cache, "--no-auto-profile", "--requirement-severity", "required"]
        command = [
            folder / "bin/rocrate-validator",
            "--no-interactive",
            "validate",
            *options,
            "--profile-identifier",
            profile,
        ]
        result = subprocess.run(
            [*command, "--output-format", "json", "--output-file", report, crate], capture_output=True, text=True
        )
        found = json.loads(report.read_text())
        assert found["passed"] == (result.returncode == 0), result.stdout + result.stderr
        return found["passed"], [issue["message"] for issue in found["issues"]]

    return run


@pytest.mark.services
@pytest.mark.parametrize(
    "profile",
    [
        "ro-crate-1.1",
        "workflow-ro-crate-1.0",
        "process-run-crate-0.5",
        "workflow-run-crate-0.5",
        "provenance-run-crate-0.5",
    ],
)
def test_published_validator_accepts_the_crate(validate, written, profile):
    assert validate(written, profile) == (True, [])


@pytest.mark.services
def test_published_validator_refuses_broken_crates(validate, written, tmp_path):
    folder = shutil.copytree(written, tmp_path / "crate")
    (folder / "results/tiny/tables/main.csv").unlink()
    passed, found = validate(folder, "ro-crate-1.1")
    assert not passed
    assert any("main.csv" in message for message in found)
    text = (written / METADATA).read_text()
    for old, new, about in (
        ('"mainEntity"', '"about"', "Main Workflow"),
        ('"instrument"', '"about"', "instrument"),
        ('"ComputationalWorkflow",', "", "Main Workflow"),
    ):
        folder = shutil.copytree(written, tmp_path / str(len(list(tmp_path.iterdir()))))
        assert old in text
        (folder / METADATA).write_text(text.replace(old, new))
        passed, found = validate(folder, "provenance-run-crate-0.5")
        assert not passed
        assert any(about in message for message in found), found
