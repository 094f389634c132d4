"""A table of one's own, as docs/own-table.md adds it: three files, and all that follows from them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
from conftest import REPOSITORY, environment, planned

PACKAGE = Path("src/robust_distillation")


def put(file: Path, before: str, text: str) -> None:
    """Puts text before the first place of another."""
    content = file.read_text()
    assert before in content
    file.write_text(content.replace(before, text + before, 1))


def test_a_table_of_ones_own_touches_three_files(tree):
    module, step = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/own-table.md").read_text(), re.DOTALL)
    steps, page = tree / PACKAGE / "pipeline/steps.py", tree / PACKAGE / "reporting/report/page.py"
    (tree / PACKAGE / "reporting/report/worst_class.py").write_text(module)
    put(steps, "class Track(", f"{step}\n\n")
    put(steps, "Tabulate, DrawFigures", "WorstClass, ")
    put(
        page,
        "from robust_distillation.reporting.report.elements",
        "from robust_distillation.reporting.report import worst_class\n",
    )
    put(page, "cost.section", "worst_class.section, ")
    changed = subprocess.run(
        ["git", "status", "--porcelain", "src"], cwd=tree, capture_output=True, text=True, check=True
    )
    assert len(changed.stdout.splitlines()) == 3
    assert planned(tree) == {"worst_class", "track", "report_html", "index"}

    def command(*words: str) -> str:
        options = {"cwd": tree, "env": environment(tree), "capture_output": True, "text": True}
        result = subprocess.run([sys.executable, "-m", "robust_distillation.cli", *words], **options)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    command("worst-class", "--overlay", "tiny.yaml")
    made, main = (pd.read_csv(tree / f"results/tiny/tables/{name}.csv") for name in ("worst-class", "main"))
    assert len(made) == 3 * 2 + 1  # students by checkpoints, and the teacher
    assert made["pgd20"].max() <= main.loc[main["metric"].eq("pgd20"), "mean"].max()
    assert (tree / "results/tiny/tables/worst-class.record.json").is_file()
    command("report", "--overlay", "tiny.yaml")
    assert "The worst class" in (tree / "results/tiny/report.html").read_text()
    assert "worst-class" in command("--help")
