"""The built-in device classes, and how a bad file is refused."""

from __future__ import annotations

import re
from dataclasses import fields
from importlib.resources import files
from pathlib import Path

import pytest

from firmware_profiles import ProfileError, Room, load, load_file, names
from protocol.limits import DOCUMENT_ATTEMPTS_MAX
from protocol.messages import Accelerator
from protocol.resources import ZERO, Resources

GOOD = files("firmware_profiles").joinpath("pi-4b-4g.toml").read_text()


def written(tmp_path: Path, text: str, name: str = "pi-4b-4g.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_the_promised_classes_are_there() -> None:
    assert {"pi-zero-2w", "pi-4b-4g", "pi-5-8g", "generic-linux", "jetson-orin-nano-8g"} <= set(names())
    assert list(names()) == sorted(names())


@pytest.mark.parametrize("name", names())
def test_every_class_loads_and_is_plausible(name: str) -> None:
    profile = load(name)
    assert profile.name == name
    assert profile.capacity.measured or profile.resources().memory_mib >= 100
    assert profile.presence.keep_alive_ms <= 3 * profile.presence.heartbeat_ms


def test_speed_is_told_against_a_pi_4() -> None:
    speeds = [load(name).capacity.core_speed_milli for name in ("pi-zero-2w", "pi-4b-4g", "pi-5-8g")]
    assert speeds == sorted(speeds) and speeds[1] == 1_000


def test_what_the_system_needs_is_not_offered() -> None:
    profile = load("pi-zero-2w")
    has = profile.capacity
    assert profile.resources() == Resources(
        4_000, has.memory_mib - has.system_memory_mib, has.disk_mib, 0, 30_000, 30_000, 0
    )
    assert has.for_tasks(200) == 100, "a machine smaller than its class offers half"


def test_a_generic_machine_is_measured() -> None:
    profile = load("generic-linux")
    assert profile.capacity.measured and profile.resources()[:4] == (0, 0, 0, 0)
    assert not load("pi-5-8g").capacity.measured


@pytest.mark.parametrize("name", names())
def test_all_of_what_a_class_has_may_be_promised(name: str) -> None:
    """No built-in class overcommits or keeps back more than its system."""
    profile = load(name)
    has = Resources(4_000, 3_000, 20_000, 1_000, 500, 600, 0)
    assert profile.offered(has) == has._replace(slots=DOCUMENT_ATTEMPTS_MAX)
    assert profile.offered(has._replace(slots=7)).slots == 7
    assert profile.offered(has._replace(slots=10**6)).slots == DOCUMENT_ATTEMPTS_MAX


def test_room_is_capacity_times_overcommit_less_headroom_and_never_negative(tmp_path: Path) -> None:
    text = GOOD.replace("cpu_overcommit_milli = 1000", "cpu_overcommit_milli = 2500")
    text = text.replace("headroom_cpu_milli = 0", "headroom_cpu_milli = 300")
    text = text.replace("headroom_memory_mib = 0", "headroom_memory_mib = 1000")
    text = text.replace("headroom_disk_mib = 0", "headroom_disk_mib = 1000")
    profile = load_file(written(tmp_path, text))
    offered = profile.offered(Resources(4_000, 3_000, 500, 1_000, 50, 60, 0))
    assert offered == Resources(9_700, 2_000, 0, 1_000, 50, 60, DOCUMENT_ATTEMPTS_MAX)
    assert min(profile.offered(ZERO)) == 0


def test_accelerators_have_names_and_their_sum_is_the_gpu_figure() -> None:
    profile = load("jetson-orin-nano-8g")
    assert profile.capacity.accelerators == (Accelerator("gpu0", "orin-nano-8g", 1_000),)
    assert profile.resources().gpu_milli == 1_000


@pytest.mark.parametrize("name", names())
def test_every_figure_that_is_no_plain_choice_names_its_source(name: str) -> None:
    text = files("firmware_profiles").joinpath(f"{name}.toml").read_text()
    sourced = ("core_speed_milli", "memory_mib", "boot_ms", "failures_per_day", "drift_ppm", "idle_mw")
    for key in (*sourced, "downlink_kbit_s", *(field.name for field in fields(Room))):
        assert re.search(rf"^{key} = \S+ +# \S", text, re.MULTILINE), key


NO_GPU = "accelerators = []"


def one_gpu(more: str = "", name: str = "gpu0", milli: int = 1_000, times: int = 1) -> str:
    """A list of equal accelerators, in TOML."""
    shown = str(milli).lower() if isinstance(milli, bool) else milli
    words = [f'name = "{name}"', 'model = "m"', f"milli = {shown}", *([more] if more else [])]
    return f"accelerators = [{', '.join(['{ ' + ', '.join(words) + ' }'] * times)}]"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("cores = 4", 'cores = "4"', "capacity.cores"),
        ("cores = 4", "cores = true", "capacity.cores"),
        ("cores = 4", "cores = 4.0", "capacity.cores"),
        ("cores = 4", "cores = -1", "capacity.cores"),
        ("cores = 4", "", "capacity.cores"),
        ("cores = 4", "cores = 4\nkernels = 4", "capacity.kernels"),
        ("rtc = false", "rtc = 0", "clock.rtc"),
        ("failures_per_day = 0.02", "failures_per_day = nan", "behaviour.failures_per_day"),
        ('"process", "python"', '"process", "process"', "firmware.runtimes"),
        ('"process", "python"', '"process", "magic"', "firmware.runtimes"),
        ('["process", "python", "container"]', "[]", "firmware.runtimes"),
        ('["process", "python", "container"]', '["process", 1]', "firmware.runtimes"),
        ('["process", "python", "container"]', '"process"', "firmware.runtimes"),
        ('update_method = "package"', 'update_method = "hope"', "firmware.update_method"),
        ("system_memory_mib = 300", "system_memory_mib = 3790", "capacity.system_memory_mib"),
        ("latency_p50_ms = 1 ", "latency_p50_ms = 9 ", "link.latency_p99_ms"),
        ("idle_mw = 2900", "idle_mw = 9000", "power.busy_mw"),
        ("heartbeat_ms = 10000", "heartbeat_ms = 10", "presence.heartbeat_ms"),
        ('name = "pi-4b-4g"', 'name = "pi-4b"', "name"),
        ('name = "pi-4b-4g"', 'name = "../etc"', "name"),
        ('title = "Raspberry Pi 4 Model B, 4 GB"', "title = 4", "title"),
        ("[clock]", "[clocks]", "clocks"),
        ("[room]", "[rooms]", "rooms"),
        ("slots = 0", "slots = 513", "capacity.slots"),
        ("cpu_overcommit_milli = 1000", "cpu_overcommit_milli = 999", "room.cpu_overcommit_milli"),
        ("cpu_overcommit_milli = 1000", "cpu_overcommit_milli = 1.5", "room.cpu_overcommit_milli"),
        ("headroom_cpu_milli = 0", "headroom_cpu_milli = 4000", "room.headroom_cpu_milli"),
        ("headroom_memory_mib = 0", "headroom_memory_mib = 3490", "room.headroom_memory_mib"),
        ("headroom_disk_mib = 0", "headroom_disk_mib = 24000", "room.headroom_disk_mib"),
        ("downlink_kbit_s = 940000", "downlink_kbit_s = 0", "link.downlink_kbit_s"),
        ("accelerators = []", "accelerators = {}", "capacity.accelerators"),
        ("accelerators = []", 'accelerators = ["gpu0"]', "capacity.accelerators[0]"),
        ("accelerators = []", 'accelerators = [{ name = "g" }]', "capacity.accelerators[0].model"),
        (NO_GPU, one_gpu("speed = 1"), "capacity.accelerators[0].speed"),
        (NO_GPU, one_gpu(milli=0), "capacity.accelerators[0]"),
        (NO_GPU, one_gpu(milli=True), "capacity.accelerators[0]"),
        (NO_GPU, one_gpu(milli=1_001), "capacity.accelerators[0]"),
        (NO_GPU, one_gpu(name="a,b"), "capacity.accelerators[0].name"),
        (NO_GPU, one_gpu(name=""), "capacity.accelerators[0].name"),
        (NO_GPU, one_gpu(times=2), "capacity.accelerators"),
        (NO_GPU, one_gpu(times=17), "capacity.accelerators"),
        (NO_GPU, one_gpu(), "capacity.gpu_milli"),
        ('title = "Raspberry Pi 4 Model B, 4 GB"', 'title = "x"\nextends = "pi-5-8g"', "extends"),
    ],
)
def test_a_bad_field_is_named_with_its_file(tmp_path: Path, old: str, new: str, key: str) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ProfileError) as caught:
        load_file(path)
    assert (caught.value.source, caught.value.key) == (str(path), key)
    assert str(caught.value).startswith(f"{path}: {key}: ") and "\n" not in str(caught.value)


def test_a_part_that_is_no_table_is_refused(tmp_path: Path) -> None:
    text = re.sub(r"\[clock\]\n(.+\n)+", "", GOOD).replace("title =", "clock = 1\ntitle =", 1)
    with pytest.raises(ProfileError, match="clock: expected a table"):
        load_file(written(tmp_path, text))


@pytest.mark.parametrize("text", ["[", "\0", "x" * 70_000, "a = " + "[" * 20_000])
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ProfileError):
        load_file(written(tmp_path, text))


def test_a_missing_file_and_an_unknown_name_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="No such file"):
        load_file(tmp_path / "none.toml")
    with pytest.raises(ProfileError, match=r"known: .*pi-5-8g"):
        load("../pi-5-8g")


def test_a_file_of_ones_own_loads(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace('name = "pi-4b-4g"', 'name = "my-board"'), "my-board.toml")
    assert load_file(path).name == "my-board"
