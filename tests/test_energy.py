"""Joules from a fake sysfs folder and a fake NVML: wrap-around, refusals, and a sentence where nothing can be read."""

import types

import pytest

from fmcore.energy import Meter


def domain(root, name, *, uj, label="package-0", wraps_at=1_000_000):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    (folder / "energy_uj").write_text(f"{uj}\n")
    return folder / "energy_uj"


def fake_nvml(*, joules=None, watts=None, count=1):
    """A module like pynvml: `joules` and `watts` are lists of what a card says next."""

    class NVMLError(Exception):
        pass

    def consumption(_):
        if joules is None:
            raise NVMLError("Not Supported")
        return joules.pop(0) * 1000

    def power(_):
        if not watts:
            raise NVMLError("GPU is lost")
        return watts.pop(0) * 1000

    return types.SimpleNamespace(
        NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetCount=lambda: count, nvmlDeviceGetHandleByIndex=lambda i: i,
        nvmlDeviceGetTotalEnergyConsumption=consumption, nvmlDeviceGetPowerUsage=power,
    )


def test_packages_and_memory_count_and_what_is_in_a_package_counts_once(tmp_path):
    package = domain(tmp_path, "intel-rapl:0", uj=100)
    memory = domain(tmp_path, "intel-rapl:0:1", uj=5, label="dram")
    core = domain(tmp_path, "intel-rapl:0:0", uj=50, label="core")
    meter = Meter(powercap=tmp_path)
    package.write_text("2000100")
    memory.write_text("500005")
    core.write_text("900050")
    joules, of_what = meter.read()
    assert joules == pytest.approx(2.5)
    assert "RAPL" in of_what and "All that the machine did" in of_what and "pynvml is not installed" in of_what


def test_a_counter_that_wrapped_goes_on_from_its_end(tmp_path):
    counter = domain(tmp_path, "intel-rapl:0", uj=900_000, wraps_at=1_000_000)
    meter = Meter(powercap=tmp_path)
    for reading in (999_000, 50_000, 950_000, 10_000):  # wraps twice
        counter.write_text(str(reading))
        meter.sample()
    assert meter.read()[0] == pytest.approx((100_000 + 50_000 + 900_000 + 60_000) / 1e6)


def test_no_counter_says_why_and_gives_no_number(tmp_path):
    joules, why = Meter(powercap=tmp_path / "nothing").read()
    assert joules is None and "no energy counter" in why and "nvidia-ml-py" in why


def test_counters_for_root_only_are_said_to_be(tmp_path, monkeypatch):
    counter = domain(tmp_path, "intel-rapl:0", uj=1)
    domain(tmp_path, "intel-rapl:1", uj=1, label="package-1")
    read = type(counter).read_text

    def refusing(path, *args, **kwargs):
        if path == counter:
            raise PermissionError(13, "Permission denied")
        return read(path, *args, **kwargs)

    monkeypatch.setattr(type(counter), "read_text", refusing)  # root reads what it likes, so the mode alone would test nothing
    joules, why = Meter(powercap=tmp_path).read()
    assert joules is None and "only root" in why, "one package of two would be taken for the whole"


def test_a_counter_that_goes_away_takes_the_figure_with_it(tmp_path):
    counter = domain(tmp_path, "intel-rapl:0", uj=1)
    meter = Meter(powercap=tmp_path)
    counter.unlink()
    joules, why = meter.read()
    assert joules is None and "could not be read to the end" in why


def test_rubbish_in_sysfs_is_no_counter(tmp_path):
    domain(tmp_path, "intel-rapl:0", uj="rubbish")
    assert Meter(powercap=tmp_path).read()[0] is None


def test_a_gpu_counter_is_taken_as_it_is(tmp_path):
    joules, of_what = Meter(powercap=tmp_path, nvml=fake_nvml(joules=[100.0, 130.0, 150.5])).read()
    assert joules == pytest.approx(30.0) and "NVML only" in of_what


def test_a_gpu_without_a_counter_is_measured_by_its_power_over_time(tmp_path):
    clock = iter([0.0, 10.0, 20.0])
    meter = Meter(powercap=tmp_path, nvml=fake_nvml(watts=[100.0, 200.0, 200.0]), monotonic=lambda: next(clock))
    meter.sample()
    assert meter.read()[0] == pytest.approx(150 * 10 + 200 * 10)


def test_both_add_up_and_a_lost_gpu_is_said(tmp_path):
    counter = domain(tmp_path, "intel-rapl:0", uj=0, wraps_at=10**9)
    both = Meter(powercap=tmp_path, nvml=fake_nvml(joules=[1.0, 3.0]))
    counter.write_text("5000000")
    assert both.read()[0] == pytest.approx(7.0)
    lost = Meter(powercap=tmp_path, nvml=fake_nvml(watts=[100.0]))
    counter.write_text("6000000")
    joules, of_what = lost.read()
    assert joules == pytest.approx(1.0) and "stopped answering" in of_what


def test_a_driver_without_a_gpu(tmp_path):
    joules, why = Meter(powercap=tmp_path, nvml=fake_nvml(joules=[], count=0)).read()
    assert joules is None and "NVML shows no GPU" in why
