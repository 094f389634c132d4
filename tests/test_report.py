"""The report: what is in it, and that it holds together."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import fresh_tree

from robust_distillation import config
from robust_distillation.cli import main
from robust_distillation.reporting.report import dag, page, results, robustness, tuning, verdicts
from robust_distillation.reporting.report.masking import gaps
from robust_distillation.reporting.report.report_data import load_report_data

REPORT = Path("results/tiny/report.html")
HOSTILE = "<script>alert(1)</script>"


class Elements(HTMLParser):
    """All start tags with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def here(finished, monkeypatch) -> Path:
    """Only to be read."""
    monkeypatch.chdir(finished)
    return finished


def tiny() -> config.Experiment:
    return config.load("params.yaml", "tiny.yaml")


def test_made_again_it_has_the_same_bytes(here):
    assert page.page(tiny()).encode() == REPORT.read_bytes()


def test_links_lead_somewhere_and_pictures_have_words(here):
    found = Elements(REPORT.read_text()).found
    ids = Counter(attributes["id"] for _, attributes in found if "id" in attributes)
    assert set(ids.values()) == {1}
    links = [attributes["href"] for tag, attributes in found if tag == "a"]
    assert len(links) > 30
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert all(attributes.get("alt") for tag, attributes in found if tag == "img")
    assert any(tag == "img" for tag, _ in found)
    images = sum(attributes.get("role") == "img" and bool(attributes.get("aria-label")) for _, attributes in found)
    hidden = sum(tag == "svg" and attributes.get("aria-hidden") == "true" for tag, attributes in found)
    assert images + hidden == sum(tag == "svg" for tag, _ in found)


def test_nothing_is_fetched(here):
    text = REPORT.read_text()
    assert len(text) < 10_000_000
    for _, attributes in Elements(text).found:
        for name in ("src", "href", "srcset", "xlink:href"):
            assert not re.match(r"(https?:)?//", attributes.get(name) or "")
    assert not re.search(r"""url\(\s*["']?(https?:)?//|@import""", text)


def test_names_are_escaped(here, monkeypatch):
    report = load_report_data(tiny())
    changed = replace(report, records={
        file: record | {"hardware": record["hardware"] | {"cpu": HOSTILE}} for file, record in report.records.items()
    })  # fmt: skip
    info = changed.experiment.info
    vars(changed.experiment)["info"] = replace(info, classes=(HOSTILE, *info.classes[1:]))  # a cached property
    monkeypatch.setattr(page, "load_report_data", lambda _: changed)
    text = page.page(changed.experiment)
    assert HOSTILE not in text
    assert text.count("&lt;script&gt;") > 2


def test_sections_without_inputs_are_left_out(here):
    report = replace(load_report_data(tiny()), tables={}, robustness={})
    sections = verdicts.claims, verdicts.comparisons, results.structures, tuning.section
    for section in (*sections, robustness.curves, robustness.gallery):
        assert section(report) is None


@pytest.mark.parametrize(
    ("left", "flagged"),
    [
        ({"pgd20": 50.0, "autoattack": 45.0, "square": 55.0}, ""),
        ({"pgd20": 50.0, "pgd10": 70.0, "autoattack": 39.0}, "11.0 points more than AutoAttack"),
        ({"pgd20": 50.0, "autoattack": 45.0, "square": 48.0}, "Square alone leaves 2.0 points less"),
    ],
)
def test_a_sign_of_gradient_masking(left, flagged):
    named = {"teacher": "wide", "student": "small", "method": "sat", "checkpoint": "best"}
    (gap,) = gaps(pd.DataFrame([{**named, "metric": metric, "mean": mean} for metric, mean in left.items()]))
    assert flagged in gap["reason"]
    assert bool(gap["reason"]) == bool(flagged)


def test_the_graph_follows_from_the_records():
    def record(step, inputs, outputs):
        return {"step": step, "inputs": dict.fromkeys(inputs, ""), "outputs": dict.fromkeys(outputs, ""),
                "time": {"seconds": 1.0}}  # fmt: skip

    records = [record("data", [], ["d"]), record("teach", ["d"], ["t"]), record("train", ["d", "t"], ["s"])]
    arrows = dag.edges(records)
    assert arrows == {("data", "teach"), ("data", "train"), ("teach", "train")}
    assert dag.reduced(arrows) == {("data", "teach"), ("teach", "train")}
    assert dag.layers(["train", "data", "teach"], arrows) == {"data": 0, "teach": 1, "train": 2}
    graph = dag.draw(records, dag.reduced(arrows))
    assert [node.step for node in graph.nodes] == ["data", "teach", "train"]
    assert [node.y for node in graph.nodes] == sorted({node.y for node in graph.nodes})
    assert len(graph.paths) == 2


def test_an_unfinished_run_has_none(tmp_path, monkeypatch):
    monkeypatch.chdir(fresh_tree(tmp_path / "tree"))
    made = CliRunner().invoke(main, ["report", "--overlay", "tiny.yaml"])
    assert made.exit_code == 2
    assert "is not there yet. Run the experiment first" in made.output
    assert not Path("results").exists()
