"""The report in a browser: sorting, links, charts, a phone's width, the dark scheme and print; no network, no error."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.services
COLUMN = "rows => rows.map(row => row.children[3].textContent.trim()).filter(text => text)"
ROWS = "#results table tbody tr"


@pytest.fixture
def opened(chromium, finished):
    """A function: options of the browser's context -> the page, and what its console and its requests reported."""
    contexts = []

    def open_page(**options):
        context = chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page, said, asked = context.new_page(), [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((finished / "results/tiny/report.html").as_uri())
        page.wait_for_selector("#results table thead th.dt-orderable-asc, #results table thead .dt-column-order")
        return page, said, asked

    yield open_page
    for context in contexts:
        context.close()


def test_page_has_no_error_and_asks_for_nothing(opened, finished):
    page, said, asked = opened()
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [(finished / "results/tiny/report.html").as_uri()]
    assert page.title()


def test_a_click_on_a_head_sorts(opened):
    page, said, _ = opened()
    head = page.locator("#results table").first.locator("thead th.dt-orderable-asc").nth(3)
    orders = []
    for order in ("ascending", "descending"):
        head.click()
        head.and_(page.locator(f"[aria-sort={order}]")).wait_for()  # rows are sorted after the click has returned
        texts = page.locator("#results table").first.locator("tbody tr").evaluate_all(COLUMN)
        orders.append([float(text.split()[0]) for text in texts])
    assert sorted(orders[0]) in (orders[0], orders[0][::-1])
    assert orders[1] == orders[0][::-1]
    assert len(set(orders[0])) > 1
    assert said == []


def test_every_link_leads_to_something_that_is_then_seen(opened):
    page, _, _ = opened()
    targets = page.eval_on_selector_all(
        "a[href^='#']", "links => links.map(link => link.getAttribute('href').slice(1))"
    )
    assert len(targets) > 20
    for target in dict.fromkeys(targets):
        page.evaluate("target => { location.hash = target }", target)
        assert page.locator(f"[id='{target}']").count() == 1, target
        assert page.locator(f"[id='{target}']").first.is_visible(), target


def test_charts_are_drawn_and_told_in_words(opened):
    page, _, _ = opened()
    panels = page.eval_on_selector_all(
        ".panel",
        "panels => panels.map(p => [p.getAttribute('aria-label'), p.querySelectorAll('svg path').length,"
        " p.querySelector('svg').getBoundingClientRect().width])",
    )
    assert len(panels) >= 5
    for label, marks, width in panels:
        assert label
        assert marks > 3
        assert width > 100
    pictures = page.eval_on_selector_all("img", "all => all.map(i => [i.alt, i.complete && i.naturalWidth])")
    assert pictures
    assert all(alt and width for alt, width in pictures)


def test_a_phone_never_scrolls_the_page_sideways(opened):
    page, _, _ = opened(viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_dark_scheme_and_print(opened, tmp_path):
    page, _, _ = opened()
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(background) != light
    page.emulate_media(media="print", color_scheme="light")
    heights = page.eval_on_selector_all("details .record", "all => all.map(one => one.getBoundingClientRect().height)")
    assert heights
    assert all(heights)
    page.pdf(path=tmp_path / "report.pdf")
    assert Path(tmp_path / "report.pdf").stat().st_size > 20_000
