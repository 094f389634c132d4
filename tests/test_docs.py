"""What README.md and docs/ say can be done: links lead somewhere, commands exist, the pages' own examples run."""

from __future__ import annotations

import ast
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from conftest import REPOSITORY, environment, fresh_tree, snakemake
from generated import image_folder_files
from ruamel.yaml import YAML

from robust_distillation import config
from robust_distillation.cli import main
from robust_distillation.pipeline.steps import STEPS

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NAMES = [page.name for page in PAGES]
TO_WRITE = {
    "experiments/birds.yaml",
    "profiles/lab/config.yaml",
    "src/robust_distillation/methods/half.py",
    "src/robust_distillation/attacks/margin_pgd.py",
    "src/robust_distillation/metrics/confident_errors.py",
    "src/robust_distillation/data/bloodmnist.py",
    "src/robust_distillation/models/mlp.py",
    "src/robust_distillation/augmentations/invert.py",
    "src/robust_distillation/reporting/report/worst_seed.py",
}  # by the reader


def prose(page: Path) -> str:
    """Without blocks of code, whose `#` is no heading and whose brackets are no links."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_relative_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_can_be_reached_from_the_readme():
    reached, todo = set(), [REPOSITORY / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        links = {(page.parent / name).resolve() for name in re.findall(r"\]\(([^)#\s:]+\.md)", prose(page))}
        todo += links - reached
    assert set(PAGES) <= reached


def commands(page: Path) -> list[list[str]]:
    """The words of each `robust-distillation ...`, in blocks and in lines."""
    text = page.read_text().replace("\\\n", " ")
    spans = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose(page))
    lines = [line for line in text.splitlines() if re.match(r" {4,}|\$ ", line)]
    spans = [span.replace("\n", " ") for span in spans]
    found = [re.search(r"(?:^|\s|/)robust-distillation ([a-z].*)", line) for line in [*lines, *spans]]
    return [shlex.split(match[1], comments=True) for match in found if match]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_command_and_option_exists(page):
    declared = set(re.findall(r'^    name = "([\w-]+)"', page.read_text(), flags=re.M))  # by a step of an example
    for words in commands(page):
        command: click.Command = main
        for word in words:
            if word in declared:
                break
            if isinstance(command, click.Group):
                assert word in command.commands, f"{page.name}: robust-distillation {' '.join(words)}"
                command = command.commands[word]
            elif word.startswith("-"):
                known = {name for option in command.params for name in option.opts}
                assert word.partition("=")[0] in known | {"--help"}, f"{page.name}: {' '.join(words)}"
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"(?:`| {4})make ([a-z-]+)", page.read_text()))
    assert named <= targets, f"{page.name}: make {named - targets}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_file_of_the_project_that_is_named_is_there(page):
    for name in re.findall(r"`((?:src|experiments|profiles|workflow|tests)/[\w./-]+)`", page.read_text()):
        assert (REPOSITORY / name).exists() or name in TO_WRITE, f"{page.name}: {name}"


def test_pictures_are_those_that_make_docs_draws():
    pictures = runpy.run_path(str(REPOSITORY / "docs/pictures.py"))["PICTURES"]
    kept = {path.stem: path.read_text(encoding="utf-8") for path in (REPOSITORY / "docs/pictures").glob("*.svg")}
    assert kept == {name: draw() for name, draw in pictures.items()}, "run make docs"


def test_pictures_name_code_that_exists():
    module = runpy.run_path(str(REPOSITORY / "docs/pictures.py"))
    nodes = [node for flow in (module["BATCH"], module["NUMBER"]) for node in flow.nodes.values()]
    places = [
        node.where for node in nodes if node.where not in ("dvc.lock", "provenance.json") and "/" not in node.where
    ]
    assert len(places) > 10
    for place in places:
        module, _, name = place.partition(":")
        file = (REPOSITORY / "src/robust_distillation" / module.replace(".", "/")).with_suffix(".py")
        assert file.is_file(), place
        defined = {getattr(node, "name", None) for node in ast.parse(file.read_text()).body}
        assert not name or name in defined, place


def test_architecture_names_every_package_and_module_of_the_layers():
    layers = runpy.run_path(str(REPOSITORY / "docs/pictures.py"))["layers"]()
    rows = re.findall(r"^\| ([1-9]) \| `(\w+)` \|", (REPOSITORY / "docs/architecture.md").read_text(), flags=re.M)
    ranks = range(len(layers), 0, -1)
    expected = {(str(rank), name) for rank, layer in zip(ranks, layers, strict=True) for name in layer.modules}
    assert sorted(rows) == sorted(expected)


def test_profiles_agree_on_what_runs_again_and_name_rules_that_exist():
    read = YAML(typ="safe").load
    default, slurm = (read(REPOSITORY / f"profiles/{name}/config.yaml") for name in ("default", "slurm"))
    del default["cores"]
    assert default.items() <= slurm.items()
    assert set(slurm["set-resources"]) <= {step.rule_name for step in STEPS}


def blocks(page: str, language: str) -> list[str]:
    """The blocks of code of a page, brought to the left margin."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", (REPOSITORY / "docs" / page).read_text(), flags=re.M | re.S)
    return [re.sub(rf"^{margin}", "", code, flags=re.M) for margin, code in found]


SMALL = """
training: {epochs: 1, batch_size: 16, milestones: [], inner_attack: {steps: 1}, selection: {steps: 1}}
dataset: {padding: 1}
teachers: {large: {width: 2}}
students: {small: {width: 2}}
evaluation: {images: 8, attacks: [fgsm]}
"""


@pytest.mark.slow
def test_own_data_gives_a_student_as_the_page_says(tmp_path, monkeypatch):
    experiment, use = *blocks("own-data.md", "yaml"), *blocks("own-data.md", "python")
    assert len(experiment.splitlines()) <= 20
    tree = fresh_tree(tmp_path / "tree")
    image_folder_files(tree / "data/birds", ("crane", "owl", "robin", "swift"), train=40, test=16)
    (tree / "params.yaml").write_text(experiment)  # where the tests' snakemake looks
    (tree / "small.yaml").write_text(SMALL)
    monkeypatch.chdir(tree)
    assert len(config.load("params.yaml").runs) == 9
    student = "students/large/small/rslad/seed-0"
    made = snakemake(tree, "--cores", "2", f"results/birds/{student}/best.safetensors", overlay="small.yaml")
    assert made.returncode == 0, made.stdout + made.stderr
    used = subprocess.run(
        [sys.executable, "-c", use], cwd=tree, env=environment(tree), capture_output=True, text=True, timeout=120
    )
    assert used.returncode == 0, used.stderr
    assert re.fullmatch(r"tensor\([01]\.\d*\)\n", used.stdout)
