"""Energy counters, on files as Linux's powercap has them."""

from __future__ import annotations

from pathlib import Path

from robust_distillation.files import read_json
from robust_distillation.provenance.energy import Meter
from robust_distillation.provenance.record import Recorder


def counters(folder: Path, **zones: int) -> Path:
    for name, count in zones.items():
        zone = folder / name.replace("_", ":").replace("rapl", "intel-rapl")
        zone.mkdir(parents=True, exist_ok=True)
        (zone / "energy_uj").write_text(f"{count}\n")
        (zone / "max_energy_range_uj").write_text("262143328850\n")
    return folder


def test_packages_are_added_up_and_what_lies_in_them_is_not(tmp_path):
    meter = Meter(counters(tmp_path, rapl_0=1_000_000, rapl_1=5_000_000, rapl_0_0=400_000))
    counters(tmp_path, rapl_0=3_500_000, rapl_1=5_250_000, rapl_0_0=9_000_000)
    assert meter.read() == {"joules": 2.75, "source": "RAPL"}


def test_a_counter_that_began_again_goes_on(tmp_path):
    meter = Meter(counters(tmp_path, rapl_0=262_143_000_000))
    counters(tmp_path, rapl_0=1_671_150)
    assert meter.read() == {"joules": 2.0, "source": "RAPL"}


def test_what_cannot_be_read_is_null(tmp_path):
    assert Meter(tmp_path / "nowhere").read() is None
    assert Meter(tmp_path).read() is None
    broken = counters(tmp_path / "broken", rapl_0=1)
    (broken / "intel-rapl:0/energy_uj").write_text("")
    assert Meter(broken).read() is None
    meter = Meter(counters(tmp_path / "gone", rapl_0=1, rapl_1=1))
    (tmp_path / "gone/intel-rapl:1/energy_uj").unlink()
    assert meter.read() is None  # half a machine's energy would pass for all of it


def test_a_record_has_energy_or_null_and_the_peak_of_memory(tmp_path):
    recorder = Recorder("step", {}, "code")
    recorder.meter = Meter(counters(tmp_path / "powercap", rapl_0=0))
    counters(tmp_path / "powercap", rapl_0=1_500_000)
    recorder.write(tmp_path / "record.json", {}, [])
    record = read_json(tmp_path / "record.json")
    assert record["energy"] == {"joules": 1.5, "source": "RAPL"}
    assert 10e6 < record["peak_memory_bytes"] < 1e12
    Recorder("step", {}, "code").write(tmp_path / "record.json", {}, [])
    energy = read_json(tmp_path / "record.json")["energy"]
    assert energy is None or energy["joules"] >= 0
