"""Energy counters, on files as Linux's powercap has them."""

from __future__ import annotations

from pathlib import Path

from robust_distillation.files import read_json
from robust_distillation.pipeline.energy import Meter
from robust_distillation.pipeline.record import Recorder

NAMES = {"0": "package-0", "0:0": "core", "1": "package-1", "2": "psys"}


def counters(folder: Path, zones: dict[str, int]) -> Path:
    for number, count in zones.items():
        zone = folder / f"intel-rapl:{number}"
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "name").write_text(f"{NAMES[number]}\n")
        (zone / "energy_uj").write_text(f"{count}\n")
        (zone / "max_energy_range_uj").write_text("262143328850\n")
    return folder


def test_packages_are_added_up_and_neither_their_parts_nor_the_platform(tmp_path):
    meter = Meter(counters(tmp_path, {"0": 1_000_000, "1": 5_000_000, "0:0": 0, "2": 0}))
    counters(tmp_path, {"0": 3_500_000, "1": 5_250_000, "0:0": 9, "2": 9_000_000})
    assert meter.read() == {"joules": 2.75, "source": "RAPL"}


def test_a_counter_that_began_again_goes_on(tmp_path):
    meter = Meter(counters(tmp_path, {"0": 262_143_000_000}))
    counters(tmp_path, {"0": 1_671_150})
    assert meter.read() == {"joules": 2.0, "source": "RAPL"}


def test_what_cannot_be_read_is_null(tmp_path):
    assert Meter(tmp_path / "nowhere").read() is None
    assert Meter(tmp_path).read() is None
    broken = counters(tmp_path / "broken", {"0": 1})
    (broken / "intel-rapl:0/energy_uj").write_text("")
    assert Meter(broken).read() is None
    meter = Meter(counters(tmp_path / "gone", {"0": 1, "1": 1}))
    (tmp_path / "gone/intel-rapl:1/energy_uj").unlink()
    assert meter.read() is None  # half a machine's energy would pass for all of it


def test_a_record_has_energy_or_null_and_the_peak_of_memory(tmp_path):
    recorder = Recorder("step", {}, "code")
    recorder.meter = Meter(counters(tmp_path / "powercap", {"0": 0}))
    counters(tmp_path / "powercap", {"0": 1_500_000})
    recorder.write(tmp_path / "record.json", {}, [])
    record = read_json(tmp_path / "record.json")
    assert record["energy"] == {"joules": 1.5, "source": "RAPL"}
    assert 10e6 < record["peak_memory_bytes"] < 1e12
    Recorder("step", {}, "code").write(tmp_path / "record.json", {}, [])
    energy = read_json(tmp_path / "record.json")["energy"]
    assert energy is None or energy["joules"] >= 0
