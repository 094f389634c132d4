"""What a browser shows of a run. SCREENSHOTS=FOLDER keeps the pictures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import services
from test_mlflow import LAYOUT, RSLAD, empty, here, ids, tiny  # noqa: F401

from robust_distillation.tracking import store
from robust_distillation.tracking.runs import import_runs

pytestmark = pytest.mark.services


def test_the_curves_of_a_run_are_drawn(here, chromium, tmp_path):  # noqa: F811
    import_runs(tiny(), LAYOUT)
    client = store.client()
    place, run = client.get_experiment_by_name("tiny").experiment_id, ids(client)[RSLAD]
    pictures, port = Path(os.environ.get("SCREENSHOTS", tmp_path)), services.free_port()
    with services.mlflow_server(here, "--backend-store-uri", store.store_uri(), port=port):
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        root = f"http://127.0.0.1:{port}/#/experiments/{place}"
        page.goto(f"{root}/runs/{run}/model-metrics")
        cards = page.get_by_test_id("experiment-view-compare-runs-card")
        card = cards.filter(has=page.get_by_text("selection_robust", exact=True))
        card.wait_for(timeout=120_000)
        card.scroll_into_view_if_needed()  # MLflow draws what is in sight
        line = card.locator(".scatterlayer .trace path.js-line").first  # beneath it lies the same, unsmoothed
        line.wait_for(state="attached")
        assert line.get_attribute("d").count("L") == 2  # three epochs
        page.wait_for_timeout(2000)
        page.screenshot(path=pictures / "curves.png")
        if "SCREENSHOTS" in os.environ:
            for name, address in {
                "run": f"{root}/runs/{run}",
                "runs": f"{root}/runs",
                "summary": f"{root}/runs/{ids(client)['summary']}/artifacts",
            }.items():
                page.goto(address)
                page.wait_for_timeout(6000)
                page.screenshot(path=pictures / f"{name}.png")
            Path(pictures / "page.html").write_text(page.content())
