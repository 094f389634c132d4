"""Finds names and words for which the field has better ones, in code, docstrings, messages and docs."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Files that still have such names or words. Shorten the lists, never extend them.
NAMES_NOT_YET: list[str] = []
WORDS_NOT_YET: list[str] = []

# An identifier that is found nowhere, and the one that stands in its place.
NAMES = {
    "_answering": "inference_settings",
    "_fitting": "guess_architecture",
    "_ours": "strip_wrappers",
    "_trained": "training_settings",
    "_views": "data_settings",
    "at_any_time": "set_snapshot",
    "BEFORE": "WARMUP_CALLS",
    "between": "on_batch_end",
    "Damaged": "CorruptFileError",
    "device_of": "select_device",
    "drawn": "noise_shard",
    "due": "should_save",
    "FACTS": "INFO",
    "few_to_many": "seeds_label",
    "Finished": "MlflowRun",
    "given": "objective_args",
    "GRAPHS": "MAX_GRAPHS",
    "held": "robust_correct",
    "held_on_selection": "evaluate_for_selection",
    "in_halves": "split_on_oom",
    "ITSELF": "TEACHER_ROW",
    "lack": "system_fault",
    "lessons": "open_teacher",
    "Link": "Step",
    "loaded": "load_for_inference",
    "looked_at": "is_validation_epoch",
    "looking": "evaluation_precision",
    "looks": "validation_epochs, evaluations",
    "Material": "ReportData",
    "Matrix": "TableSpec",
    "maximise": "pgd",
    "NESTS": "STATE_KEYS",
    "over_seeds": "aggregate_label",
    "overlaid": "deep_merge",
    "PAYS": "COMPILE_MIN_FLOPS",
    "prepared": "configure_precision",
    "published_pgd": "linf_pgd",
    "ran_out": "is_out_of_memory",
    "Recorded": "GraphReplay",
    "sent": "to_device",
    "short_recipe": "tuning_recipe",
    "shown": "short_repr",
    "stories": "lineage",
    "story": "lineage",
    "Teaching": "TeacherSource",
    "white": "max_value",
    "with_candidate": "apply_candidate",
    "Work": "ResumableJob",
}
# Names that are good words elsewhere: what a class must not define, and what a module at its top level must not.
MEMBERS = {
    "Batch": {"index": "sample_ids", "views": "view_ids"},
    "DatasetInfo": {"white": "max_value"},
    "Experiment": {"pairs": "comparisons"},
    "Group": {"first": "broadcast", "gathered": "all_gather", "rows": "shard", "joined": "init_group"},
    "Needs": {"reference": "clean_eval"},
    "ResumableJob": {"keep": "link_outputs"},
    "Step": {"about": "steps_of_model", "index": "sample_ids", "views": "view_ids"},
}
TOP_LEVEL = {"about": "steps_of_model", "fit": "convert", "gather": "load_report_data", "joined": "init_group"}
MODULES = {
    "anchor": "dvc_lock",
    "compute": "device",
    "contents": "verify_files",
    "finished": "mlflow_run",
    "marks": "legend",
    "material": "report_data",
    "memory": "device",
    "parts": "elements",
    "recorded": "cuda_graph",
    "stories": "lineage",
    "story": "lineage",
    "teaching": "teacher_source",
    "words": "text",
}
WORDS = {
    "a look is a validation, looked at is evaluated or read, to look for is to search": re.compile(
        r"\blook(s|ed|ing)? (at|for|into)\b"
        r"|\b(a|one|two|each|every|best|last|first|the|no|more) looks?\b(?! (up|like)\b)",
        re.I,
    ),
    "itself is the teacher's row": re.compile(r"\bteachers? (itself|themselves)\b", re.I),
    "given is a value, an argument, a setting": re.compile(
        r"\b(what|all that|of what) is (not )?given\b|\bthe given\b|\bgiven ones\b",
        re.I,
    ),
    "said is reported, printed, warned": re.compile(r"\bsaid\b", re.I),
}

SELF = Path(__file__).resolve()
PYTHON = sorted(
    file for folder in ("src", "tests", "benchmarks", "docs") for file in (ROOT / folder).rglob("*.py") if file != SELF
)
SNAKEMAKE = [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields line and name of every identifier in a syntax tree: used, bound, defined or imported.

    `between` as an attribute is left out: it is a method of a pandas Series.
    """
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.Attribute(attr="between"):
                continue
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield line, name
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield line, name
            case ast.alias():
                yield from ((line, name) for name in (node.asname or node.name).split("."))
            case ast.keyword(arg=str(name)) | ast.ExceptHandler(name=str(name)):
                yield line, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield line, name


def defined(body: list[ast.stmt]) -> Iterator[tuple[int, str]]:
    """Yields line and name of what the statements of a class or module define."""
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                yield node.lineno, name


def old_names(text: str, snakemake: bool = False) -> list[str]:
    """Returns one line for each identifier of a file for which there is a better name."""
    if snakemake:  # no syntax tree: the names among the tokens
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        used = [(token.start[0], token.string) for token in tokens if token.type == tokenize.NAME]
        return [f"line {line}: {name}, now {NAMES[name]}" for line, name in used if name in NAMES]
    tree = ast.parse(text)
    problems = [f"line {line}: {name}, now {NAMES[name]}" for line, name in identifiers(tree) if name in NAMES]
    for node in ast.walk(tree):
        members = MEMBERS.get(node.name, {}) if isinstance(node, ast.ClassDef) else {}
        scope = defined(node.body) if members else ()
        problems += [f"line {line}: {node.name}.{name}, now {members[name]}" for line, name in scope if name in members]
    problems += [
        f"line {line}: {name}, now {TOP_LEVEL[name]}" for line, name in defined(tree.body) if name in TOP_LEVEL
    ]
    return problems


def old_words(text: str) -> list[str]:
    """Returns one line for each place in a text that uses a word of the dialect."""
    return [
        f"{reason}: ...{' '.join(text[max(0, match.start() - 30) : match.end() + 20].split())}..."
        for reason, pattern in WORDS.items()
        for match in pattern.finditer(text)
    ]


def texts(tree: ast.AST) -> Iterator[str]:
    """Yields the docstrings, messages and other texts of a syntax tree: literals of more than one word."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value


def checked(files: list[Path], not_yet: list[str]) -> list[str]:
    """Returns the paths, relative to the repository, of the files that are not excepted."""
    return [path for file in files if (path := file.relative_to(ROOT).as_posix()) not in not_yet]


@pytest.mark.parametrize("path", checked([*PYTHON, *SNAKEMAKE], NAMES_NOT_YET))
def test_no_identifier_is_of_the_dialect(path):
    file = ROOT / path
    assert not old_names(file.read_text(encoding="utf-8"), snakemake=file in SNAKEMAKE)


@pytest.mark.parametrize("path", checked([*PYTHON, *DOCS], WORDS_NOT_YET))
def test_no_text_is_of_the_dialect(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert not [one for part in (texts(ast.parse(text)) if path.endswith(".py") else [text]) for one in old_words(part)]


def test_no_module_is_named_in_the_dialect():
    files = checked(sorted((ROOT / "src").rglob("*.py")), [])
    assert not [f"{file}, now {MODULES[Path(file).stem]}" for file in files if Path(file).stem in MODULES]


def test_exceptions_are_still_needed():
    for path in NAMES_NOT_YET:
        assert old_names((ROOT / path).read_text(encoding="utf-8"), snakemake=path.endswith(".smk")), path


@pytest.mark.parametrize(
    "source",
    [
        "def looked_at(): pass",
        "x.held = 1",
        "f(given=1)",
        "from a import maximise as m, shown",
        "import a.story",
        "def f(drawn): pass",
        "class Group:\n    def first(self): pass",
        "class Batch:\n    index: int",
        "def gather(): pass",
        "try: pass\nexcept OSError as held: pass",
    ],
)
def test_each_name_is_found(source):
    assert old_names(source)


@pytest.mark.parametrize("source", ["first = gathered = rows = 1", "batch.index", "from a import helds", "keep()"])
def test_good_names_are_not_found(source):
    assert not old_names(source)


def test_names_in_rules_are_found():
    assert old_names("rule a:\n    input: lambda w: looked_at(w)[1]\n", snakemake=True)


@pytest.mark.parametrize(
    "text",
    [
        "two looks at the weights",
        "The candidate with the best look",
        "images to look at",
        "`best` is looked for on the test set",
        "the teachers themselves first",
        "all that is given, each a name",
        "nothing can be said against it",
    ],
)
def test_each_word_is_found(text):
    assert old_words(text)


@pytest.mark.parametrize("text", ["looks up a name", "a name that looks like one", "given a model and images"])
def test_good_words_are_not_found(text):
    assert not old_words(text)
