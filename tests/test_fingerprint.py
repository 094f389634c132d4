"""What moves the hash of a step's code, and what does not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, TINY, environment, fresh_tree, snakemake
from mutation import mutated
from same_bytes import compared_files

from robust_distillation.pipeline import fingerprint
from robust_distillation.pipeline.fingerprint import REGISTRIES, STOPS, closure, forget, stop_of
from robust_distillation.pipeline.step import Step
from robust_distillation.pipeline.steps import STEPS

PACKAGE = REPOSITORY / "src/robust_distillation"
SHARDED = """
evaluation: {jobs: 3, block_size: 100}
training: {augmentation: {name: crop_shift, high: 3}}
dataset: {extra: {file: nowhere.npz, limit: 9, labelled_by: wide}}
"""
PLAIN = {
    "outside/__init__.py": "",
    "outside/method.py": "from outside.parts import scale\n\ndef f(x):\n    return scale(x) + 1\n",
    "outside/parts.py": "import math\n\ndef scale(x):\n    return 2 * math.sqrt(x)\n",
    "outside/others.py": "import math\n\ndef scale(x):\n    return 3 * math.sqrt(x)\n",
}
MESSAGE = """
import logging
log = logging.getLogger(__name__)

def check(x, y):
    log.info("got %s", x)
    if x > 3:
        raise ValueError(f"x is {x}, more than {y:.2f}" + " allowed" * 2)
"""


@pytest.fixture
def hashed(tmp_path, monkeypatch):
    """The hash of outside.method, a package of somebody else's, with some of its files changed."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(changes: dict[str, str] | None = None, module: str = "outside.method") -> str:
        shutil.rmtree(tmp_path / "outside", ignore_errors=True)
        for name, text in {**PLAIN, **(changes or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        forget()
        return fingerprint.fingerprint([module])

    yield of
    forget()


@pytest.mark.parametrize(
    "changes",
    [
        {"outside/method.py": PLAIN["outside/method.py"].replace("\n\n", "  # why\n\n").replace("(x)", "( x )")},
        {"outside/method.py": '"""About."""\n' + PLAIN["outside/method.py"].replace("x):\n", 'x):\n    """Adds."""\n')},
        {"outside/method.py": PLAIN["outside/method.py"].replace("outside.parts", ".parts")},
        {
            "outside/method.py": PLAIN["outside/method.py"].replace("outside.parts", "outside.deeper.pieces"),
            "outside/deeper/__init__.py": "",
            "outside/deeper/pieces.py": PLAIN["outside/parts.py"],
            "outside/parts.py": "",
        },
        {
            "outside/method.py": PLAIN["outside/method.py"].replace(
                "\n\n", "\n\nif TYPE_CHECKING:\n    from outside.others import X\n\n", 1
            ),
        },
    ],
    ids=["comment", "docstring", "relative", "moved", "types"],
)
def test_what_changes_no_number_moves_no_hash(hashed, changes):
    assert hashed(changes) == hashed()


@pytest.mark.parametrize(
    "changes",
    [
        {"outside/method.py": PLAIN["outside/method.py"].replace("+", "-")},
        {"outside/parts.py": PLAIN["outside/parts.py"].replace("2", "4")},
        {"outside/parts.py": PLAIN["outside/parts.py"].replace("import math", "import cmath as math")},
        {"outside/method.py": PLAIN["outside/method.py"].replace("outside.parts", "outside.others")},
        {"outside/parts.py": PLAIN["outside/parts.py"] + "\nTABLE = 'numbers.csv'\n", "outside/numbers.csv": "1,2\n"},
    ],
    ids=["operator", "import", "other-library", "other-module", "data-file"],
)
def test_what_changes_a_number_moves_the_hash(hashed, changes):
    assert hashed(changes) != hashed()


def test_a_package_without_init_file_is_hashed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bare").mkdir()
    module = tmp_path / "bare/method.py"
    module.write_text(PLAIN["outside/method.py"].replace("outside", "bare"))
    (tmp_path / "bare/parts.py").write_text(PLAIN["outside/parts.py"])
    forget()
    assert closure(["bare.method"]) == {"bare.method", "bare.parts"}
    known = fingerprint.fingerprint(["bare.method"])
    (tmp_path / "bare/parts.py").write_text(PLAIN["outside/others.py"])
    forget()
    assert fingerprint.fingerprint(["bare.method"]) != known


def test_an_import_of_another_module_with_the_same_files_moves_the_hash(hashed):
    """Both modules are in the closure, before and after: it is the name in the code that stands for the other one."""
    both = "from outside import others, parts\nfrom outside.{} import scale\n\ndef f(x):\n    return scale(x) + 1\n"
    assert hashed({"outside/method.py": both.format("parts")}) != hashed({"outside/method.py": both.format("others")})


def test_data_files_that_a_module_names_are_hashed(hashed):
    named = {"outside/parts.py": PLAIN["outside/parts.py"] + "\nTABLE, PAGES = 'numbers.csv', 'pages'\n"}
    files = {"outside/numbers.csv": "1,2\n", "outside/pages/page.html": "<p>", "outside/other.csv": "1\n"}
    known = hashed(named | files)
    assert hashed(named | files | {"outside/numbers.csv": "1,3\n"}) != known
    assert hashed(named | files | {"outside/pages/page.html": "<b>"}) != known
    assert hashed(named | files | {"outside/other.csv": "2\n"}) == known


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("x is {x}, more than", "{x} is above the", True),
        (" allowed", " permitted", True),
        ("got %s", "found %s", True),
        ("{y:.2f}", "{y}", True),
        ("is {x}", "is {y}", False),
        ("* 2", "* 3", False),
        ("ValueError", "TypeError", False),
        ("x > 3", "x > 4", False),
    ],
)
def test_the_text_of_a_message_is_left_out_and_what_is_computed_in_it_is_not(hashed, old, new, same):
    assert old in MESSAGE
    reworded = MESSAGE.replace(old, new)
    assert (hashed({"outside/method.py": MESSAGE}) == hashed({"outside/method.py": reworded})) is same


def test_imports_inside_functions_count_and_registries_are_not_followed():
    reached = closure(["robust_distillation.training.run"])
    assert {f"robust_distillation.{name}" for name in ("randomness", "attacks.core", "methods.contract")} <= reached
    assert not {name for name in reached if name.rpartition(".")[2] in ("rslad", "trades", "wide_resnet", "cw")}
    # gacd reaches its memory bank only inside a function.
    assert "robust_distillation.methods.contrast" in closure(["robust_distillation.methods.gacd"])


def test_stops_are_there_and_have_a_reason_each():
    for name, reason in STOPS.items():
        place = PACKAGE.joinpath(*name.split("."))
        assert (place / "__init__.py").is_file() or place.with_suffix(".py").is_file(), name
        assert len(reason.split()) >= 2


def codes(tree: Path) -> dict[str, str]:
    """The hash of each step of the default experiment, as the package in `tree` tells it."""
    code = (
        "import json\nfrom robust_distillation import config\nfrom robust_distillation.pipeline.steps import steps\n"
        "experiment = config.load('params.yaml')\n"
        "print(json.dumps({step.command: step.code for step in steps(experiment)}))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


@pytest.mark.slow
def test_a_module_of_ours_that_moves_and_a_message_that_is_reworded_rerun_nothing(tmp_path):
    shutil.copytree(REPOSITORY / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    before = codes(tmp_path)
    source = tmp_path / "src/robust_distillation"
    (source / "basics").mkdir()
    (source / "basics/__init__.py").write_text('"""Moved here."""\n')
    for name in ("losses", "randomness", "digests"):
        (source / f"{name}.py").rename(source / f"basics/{name}.py")
    reworded = 0
    for file in source.rglob("*.py"):
        text = file.read_text()
        new = re.sub(r"robust_distillation\.(losses|randomness|digests)\b", r"robust_distillation.basics.\1", text)
        new = re.sub(r'raise (\w*Error)\(f?"', r"\g<0>Well, ", new)
        reworded += new.count("Well, ")
        file.write_text(new)
    assert reworded > 20
    assert codes(tmp_path) == before


# What decides a number lies in the hash of a step


def sources() -> list[str]:
    """All modules and data files of the package, relative to the checkout."""
    files = [file for file in (REPOSITORY / "src").rglob("*") if file.is_file()]
    apart = ("__pycache__", "robust_distillation.egg-info")
    kept = [file.relative_to(REPOSITORY) for file in files if not set(apart) & set(file.parts)]
    return sorted(map(str, kept))


def stops(file: str) -> bool:
    """Whether the hash stops at a file, on purpose."""
    *folders, name = Path(file).relative_to("src").parts
    module = ".".join([*folders, name.removesuffix(".py")] if name.endswith(".py") else folders)
    module = module.removesuffix(".__init__")
    if module.partition(".")[0] != "robust_distillation":
        return module == "snakemake_logger_plugin_robust_distillation"  # shows how far Snakemake is
    registry = file.endswith("__init__.py") and module.removeprefix("robust_distillation.") in REGISTRIES
    return registry or stop_of(module) is not None


@pytest.fixture(scope="module")
def moved(made_once) -> dict[str, list[str]]:
    """For each file of the package the steps whose code moves with a constant in it."""

    def find(tree: Path) -> None:
        shutil.copytree(REPOSITORY / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        shutil.copytree(REPOSITORY / "experiments", tree / "experiments")
        shutil.copy(REPOSITORY / "params.yaml", tree)
        (tree / "tiny.yaml").write_text(TINY)
        (tree / "sharded.yaml").write_text(SHARDED)
        command = [sys.executable, REPOSITORY / "tests/hashed_steps.py", "codes", *sources()]
        result = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        (tree / "found.json").write_text(result.stdout)

    return json.loads((made_once("moved", find) / "found.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("file", sources())
def test_a_constant_of_every_file_is_in_the_code_of_some_step_or_stands_on_the_list_of_stops(moved, file):
    empty = not (REPOSITORY / file).read_text().strip()
    assert bool(moved[file]) is not (stops(file) or empty)


@pytest.mark.slow
@pytest.mark.parametrize("kind", STEPS, ids=lambda kind: kind.name)
def test_an_edit_of_what_a_step_runs_moves_no_other_steps_code(moved, kind):
    def module(step: type[Step]) -> str:
        return step.run.partition(":")[0]

    file = f"src/{module(kind).replace('.', '/')}.py"
    assert set(moved[file]) == {step.name for step in STEPS if module(step) == module(kind)}


def run_of(tree: Path, *command: str | Path) -> str | None:
    """What a command prints in a checkout; None if it fails."""
    result = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True)
    return result.stdout if result.returncode == 0 else None


@pytest.mark.tiny
def test_constants_of_the_stops_and_of_the_rules_move_no_outcome_unless_a_job_says_so(finished, tmp_path):
    """Each is changed by itself first: does a job declare other settings, inputs or outputs then, or does the change
    stop all jobs? All others are changed together, and the miniature is run."""
    tree = fresh_tree(tmp_path / "tree")
    (tree / "sharded.yaml").write_text(SHARDED)
    declared = (sys.executable, REPOSITORY / "tests/hashed_steps.py", "declared")
    rules = (sys.executable, "-m", "snakemake", "-n", "--quiet", "--config", "overlay=tiny.yaml")
    asked = {file: declared for file in sources() if stops(file)}
    asked |= {str(file.relative_to(tree)): rules for file in [tree / "Snakefile", *tree.glob("workflow/rules/*.smk")]}
    before = {command: run_of(tree, *command) for command in (declared, rules)}
    assert all(before.values())
    silent = {}
    for file, command in asked.items():
        content, changed = (tree / file).read_bytes(), mutated(tree / file, numbers=True)
        (tree / file).write_bytes(changed)
        if run_of(tree, *command) == before[command]:
            silent[file] = changed
        (tree / file).write_bytes(content)
    assert len(silent) > 40
    for file, changed in silent.items():
        (tree / file).write_bytes(changed)
    result = snakemake(tree, "--cores", "2", "results/tiny/tables/main.csv")
    assert result.returncode == 0, result.stdout + result.stderr
    results = tree / "results/tiny"
    compared = compared_files(results)
    assert {kind for kind, _ in compared.values()} >= {"weights", "curves", "outcomes", "main table"}
    for name, (_, comparison) in compared.items():
        assert not comparison(finished / "results/tiny" / name, results / name), name
