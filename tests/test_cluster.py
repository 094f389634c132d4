"""The profile for a cluster, from the plan."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import REPOSITORY, environment, fresh_tree
from ruamel.yaml import YAML

from robust_distillation.cli import main
from robust_distillation.config import load
from robust_distillation.pipeline.steps import STEPS
from robust_distillation.planning import cluster
from robust_distillation.planning.jobs import by_step, jobs_of

RULES = {kind.rule_name for kind in STEPS}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def written(folder, *arguments: str) -> dict:
    result = CliRunner().invoke(main, ["cluster", str(folder), *arguments])
    assert result.exit_code == 0, result.output
    assert f"snakemake --profile {folder} --workflow-profile none --config experiment=" in result.output
    return YAML(typ="safe").load(folder / "config.yaml")


def test_every_rule_that_computes_has_limits_that_follow_its_largest_job(tmp_path):
    path = "experiments/rslad_cifar10.yaml"
    options = written(tmp_path / "lab", "--experiment", path, "--gpus", "--tflops", "5", "--partition", "gpu")
    asked = options["set-resources"]
    assert {"train_teacher", "fill_cache", "train_student", "attack"} <= set(asked) <= RULES
    assert options["default-resources"] == {"mem_mb": 2000, "runtime": 60, "slurm_partition": "gpu"}
    assert all(rule["gpu"] == 1 for rule in asked.values())
    experiment = load(path)
    found = by_step(jobs_of(experiment), lambda job: job.flops)
    largest = cluster.largest_flops(experiment)
    for step, flops in largest.items():
        minutes = int(asked[step.replace("-", "_")]["runtime"].removeprefix("attempt * "))
        assert (minutes - 10) * 60 * 5e12 == pytest.approx(3 * flops, abs=60 * 5e12), step
        assert flops <= found[step], step


def test_small_jobs_share_a_slurm_job_one_after_the_other(tmp_path):
    options = written(tmp_path / "lab", "--group", "6")
    assert options["groups"] == [f"{rule}=evaluations" for rule in ("attack", "structure", "robustness", "transfer")]
    assert options["group-components"] == ["evaluations=6"]
    assert options["cores"] == 1
    assert "mem_mb=local" in options["set-resource-scopes"]
    assert "groups" not in written(tmp_path / "other")


def test_reruns_are_decided_as_in_the_default_profile(tmp_path):
    default = YAML(typ="safe").load(REPOSITORY / "profiles/default/config.yaml")
    for folder in (tmp_path / "lab", REPOSITORY / "profiles/kubernetes"):
        options = written(folder) if folder.name == "lab" else YAML(typ="safe").load(folder / "config.yaml")
        assert {key: options[key] for key in default if key != "cores"} == {
            key: value for key, value in default.items() if key != "cores"
        }


def test_the_committed_profile_is_what_the_command_writes(tmp_path):
    written(tmp_path / "slurm")
    assert (tmp_path / "slurm/config.yaml").read_text() == (REPOSITORY / "profiles/slurm/config.yaml").read_text()


def test_a_profile_of_ones_own_is_not_overwritten(tmp_path):
    shutil.copy(REPOSITORY / "profiles/default/config.yaml", tmp_path)
    result = CliRunner().invoke(main, ["cluster", str(tmp_path)])
    assert result.exit_code == 2
    assert "was not written by this command" in result.output


@pytest.mark.services
def test_the_kubernetes_profile_plans(tmp_path):
    """A dry run is all that can be tried without a cluster."""
    pytest.importorskip("snakemake_executor_plugin_kubernetes")
    pytest.importorskip("snakemake_storage_plugin_fs")
    tree = fresh_tree(tmp_path / "tree")
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--profile", "profiles/kubernetes", "--workflow-profile", "none",
         "--default-storage-prefix", str(tmp_path / "store"),
         "--config", "experiment=params.yaml", "overlay=tiny.yaml"],
        cwd=tree, env=environment(tree), capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "train_teacher" in result.stdout + result.stderr
