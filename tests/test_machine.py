"""What a machine is taken for, how much memory is really free, and the roof its bandwidth sets."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers import machine
from labs_helpers.errors import LabsError
from labs_helpers.machine import docker_daemon, memory_bandwidth
from labs_helpers.machine.detection import classify, detect, released_as_spark, usable_cores
from labs_helpers.machine.docker_daemon import DockerState
from labs_helpers.machine.nvml import Gpu, gpu_memory, query_gpu
from labs_helpers.results import Spread

GIB = 2**30
GB10 = Gpu("NVIDIA GB10", (12, 1), "580.95")
H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0), "570.1", 80 * GIB)


def a_machine(kind: str = "cpu", gpu: Gpu | None = None, **fields: Any) -> machine.Machine:
    given: dict[str, Any] = {
        "kind": kind,
        "why": "a test",
        "cpu": "AMD EPYC",
        "arch": "x86_64",
        "cores": 2,
        "memory_total": 24 * GIB,
        "gpu": gpu,
        "python": "3.12.1",
        "os": "Debian",
        "docker": DockerState("ready", "28.0"),
        **fields,
    }
    return machine.Machine(**given)


def write(root: Path, **files: str) -> Path:
    """Files under `root`; `__` in a name stands for a slash, `_dot_` for a dot."""
    for name, text in files.items():
        path = root / name.replace("_dot_", ".").replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:       131072000 kB\nMemFree:  1000 kB\nMemAvailable:   98304000 kB\nBuffers: 0 kB\n"


class FakeNvml:
    """The calls of pynvml that are used, answering as one GPU does; `memory` may be an error to raise."""

    class NVMLError(Exception):
        pass

    class NVMLError_LibraryNotFound(NVMLError):
        pass

    class NVMLError_DriverNotLoaded(NVMLError):
        pass

    class NVMLError_NoPermission(NVMLError):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    def __init__(
        self,
        name: Any = "NVIDIA GB10",
        capability: Any = (12, 1),
        memory: Any = None,
        count: int = 1,
        init: Exception | None = None,
    ) -> None:
        self.name, self.capability, self.memory, self.count, self.init = name, capability, memory, count, init
        self.open_sessions = 0

    def nvmlInit(self) -> None:
        if self.init:
            raise self.init
        self.open_sessions += 1

    def nvmlShutdown(self) -> None:
        self.open_sessions -= 1

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, _handle: int) -> Any:
        return self.name

    def nvmlDeviceGetCudaComputeCapability(self, _handle: int) -> Any:
        if isinstance(self.capability, Exception):
            raise self.capability
        return self.capability

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"580.95"

    def nvmlDeviceGetMemoryInfo(self, _handle: int) -> Any:
        if isinstance(self.memory, Exception):
            raise self.memory
        return self.memory


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(**answers: Any) -> FakeNvml:
        fake = FakeNvml(**answers)
        monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
        return fake

    return install


# -- what it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "gpu", "release", "kind"),
    [
        ("aarch64", GB10, False, "spark"),
        ("aarch64", Gpu("NVIDIA Graphics Device", (12, 1)), False, "spark"),
        ("aarch64", Gpu("NVIDIA Graphics Device", None), True, "spark"),
        ("aarch64", Gpu("NVIDIA GH200 480GB", (9, 0)), False, "cuda"),
        ("x86_64", Gpu("NVIDIA RTX PRO", (12, 1)), False, "cuda"),
        ("x86_64", H100, False, "cuda"),
        ("x86_64", None, False, "cpu"),
        ("aarch64", None, False, "cpu"),
        ("aarch64", None, True, "cpu"),
    ],
)
def test_the_kind_of_machine(arch: str, gpu: Gpu | None, release: bool, kind: str) -> None:
    found, why = classify(arch, gpu, "no driver" if gpu is None else "", release)
    assert found == kind
    assert why


def test_a_spark_whose_gpu_cannot_be_reached_says_so() -> None:
    kind, why = classify("aarch64", None, "the NVIDIA driver is installed but not loaded", True)
    assert kind == "cpu" and "DGX Spark" in why and "not loaded" in why


def test_release_files_of_a_spark(tmp_path: Path) -> None:
    assert not released_as_spark(tmp_path)
    assert released_as_spark(write(tmp_path / "a", **{"etc__dgx-release": 'DGX_NAME="DGX Spark"\n'}))
    assert released_as_spark(write(tmp_path / "b", **{"etc__fastos-release": ""}))
    assert not released_as_spark(write(tmp_path / "c", **{"etc__dgx-release": 'DGX_NAME="DGX Server"\n'}))


def test_detecting_this_machine_names_no_host_and_fits_into_json() -> None:
    import socket

    here = detect()
    text = json.dumps(here.card()) + str(here)
    assert here.cores >= 1 and here.memory_total > GIB // 2 and here.cpu
    assert here.label in here.card()["label"]
    assert socket.gethostname() not in here.label and str(Path.home()) not in text


def test_labels() -> None:
    assert a_machine().label == "AMD EPYC, 2 cores, 24 GiB"
    assert a_machine(cores=1).label == "AMD EPYC, 1 core, 24 GiB"
    assert a_machine("cuda", H100).label == "NVIDIA H100 80GB HBM3, AMD EPYC, 2 cores, 24 GiB"
    assert a_machine("spark", GB10, cores=20, memory_total=120 * GIB).label == "DGX Spark (GB10), 20 cores, 120 GiB"


# -- the NVIDIA library ------------------------------------------------------------------------------------------------


def test_a_spark_has_a_gpu_without_memory_of_its_own(nvml: Any, tmp_path: Path) -> None:
    fake = nvml(memory=FakeNvml.NVMLError_NotSupported("Not Supported"))
    gpu, why = query_gpu()
    assert gpu == Gpu("NVIDIA GB10", (12, 1), "580.95", None) and why == ""
    assert gpu_memory() is None
    free = machine.free_memory(write(tmp_path, proc__meminfo=MEMINFO))
    assert free == machine.Memory(131072000 * 1024, 98304000 * 1024, "/proc/meminfo")
    assert fake.open_sessions == 0


@pytest.mark.parametrize(
    "memory", [SimpleNamespace(total="[N/A]", free="[N/A]"), SimpleNamespace(total=0, free=0), None]
)
def test_not_available_memory_is_read_from_the_host(nvml: Any, tmp_path: Path, memory: Any) -> None:
    nvml(memory=memory)
    assert machine.free_memory(write(tmp_path, proc__meminfo=MEMINFO)).source == "/proc/meminfo"


def test_a_discrete_gpu_answers_for_its_own_memory(nvml: Any, tmp_path: Path) -> None:
    nvml(name=b"NVIDIA H100 80GB HBM3", capability=(9, 0), memory=SimpleNamespace(total=80 * GIB, free=79 * GIB))
    gpu, _ = query_gpu()
    assert gpu and gpu.name == "NVIDIA H100 80GB HBM3" and gpu.memory_total == 80 * GIB
    assert machine.free_memory(write(tmp_path, proc__meminfo=MEMINFO)) == machine.Memory(80 * GIB, 79 * GIB, "NVML")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FakeNvml.NVMLError_LibraryNotFound("x"), "no NVIDIA driver library"),
        (FakeNvml.NVMLError_DriverNotLoaded("x"), "not loaded"),
        (FakeNvml.NVMLError_NoPermission("x"), "may not talk"),
        (FakeNvml.NVMLError("version mismatch"), "version mismatch"),
    ],
)
def test_each_way_to_have_no_gpu_has_its_own_words(nvml: Any, error: Exception, said: str) -> None:
    nvml(init=error)
    gpu, why = query_gpu()
    assert gpu is None and said in why
    assert gpu_memory() is None


def test_a_driver_without_gpus_is_no_gpu(nvml: Any) -> None:
    fake = nvml(count=0)
    assert query_gpu() == (None, "the NVIDIA driver sees no GPU")
    assert fake.open_sessions == 0


def test_an_unknown_capability_is_left_open(nvml: Any) -> None:
    nvml(capability=FakeNvml.NVMLError_NotSupported("x"))
    gpu, _ = query_gpu()
    assert gpu and gpu.capability is None


# -- memory and cores --------------------------------------------------------------------------------------------------


def test_free_memory_is_what_the_kernel_calls_available_not_free(tmp_path: Path) -> None:
    assert machine.host_memory(write(tmp_path, proc__meminfo=MEMINFO)).available == 98304000 * 1024


def test_a_v2_cgroup_limit_counts_less_what_can_be_reclaimed(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/box\n",
        sys__fs__cgroup__box__memory_dot_max=str(8 * GIB),
        sys__fs__cgroup__box__memory_dot_current=str(5 * GIB),
        sys__fs__cgroup__box__memory_dot_stat=f"anon {3 * GIB}\ninactive_file {2 * GIB}\n",
    )
    assert machine.host_memory(root) == machine.Memory(8 * GIB, 5 * GIB, "cgroup limit")


def test_a_v1_cgroup_limit_counts(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="4:cpu,cpuacct:/\n3:memory:/docker/abc\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes=str(4 * GIB),
        sys__fs__cgroup__memory__memory_dot_usage_in_bytes=str(1 * GIB),
    )
    assert machine.host_memory(root) == machine.Memory(4 * GIB, 3 * GIB, "cgroup limit")


def test_the_tightest_of_nested_limits_counts(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/outer/inner\n",
        sys__fs__cgroup__outer__memory_dot_max=str(6 * GIB),
        sys__fs__cgroup__outer__memory_dot_current=str(5 * GIB),
        sys__fs__cgroup__outer__inner__memory_dot_max="max\n",
        sys__fs__cgroup__outer__inner__memory_dot_current=str(GIB),
    )
    assert machine.host_memory(root) == machine.Memory(6 * GIB, 1 * GIB, "cgroup limit")


@pytest.mark.parametrize("limit", ["max\n", str(9223372036854771712), "", "nonsense"])
def test_no_limit_is_no_limit(tmp_path: Path, limit: str) -> None:
    root = write(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max=limit,
        sys__fs__cgroup__memory_dot_current=str(GIB),
    )
    assert machine.host_memory(root).source == "/proc/meminfo"


def test_a_group_over_its_limit_has_nothing_free(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_dot_max=str(GIB),
        sys__fs__cgroup__memory_dot_current=str(2 * GIB),
    )
    assert machine.host_memory(root).available == 0


def test_without_proc_the_operating_system_is_asked(tmp_path: Path) -> None:
    assert machine.host_memory(tmp_path).source == "psutil"


def test_a_cpu_quota_limits_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(16)))
    assert usable_cores(write(tmp_path / "none", proc__self__cgroup="0::/\n")) == 16
    v2 = write(tmp_path / "v2", proc__self__cgroup="0::/\n", sys__fs__cgroup__cpu_dot_max="150000 100000\n")
    assert usable_cores(v2) == 2
    v1 = write(
        tmp_path / "v1",
        proc__self__cgroup="1:cpu,cpuacct:/\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="400000\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000\n",
    )
    assert usable_cores(v1) == 4
    unlimited = write(
        tmp_path / "v1u",
        proc__self__cgroup="1:cpu:/\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="-1\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000\n",
    )
    assert usable_cores(unlimited) == 16


# -- Docker ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cause", "docker_installed", "status", "remedy"),
    [
        (PermissionError(13, "Permission denied"), True, "no-permission", "usermod -aG docker"),
        (FileNotFoundError(2, "No such file or directory"), True, "daemon-down", "systemctl start docker"),
        (ConnectionRefusedError(111, "Connection refused"), True, "daemon-down", "systemctl start docker"),
        (FileNotFoundError(2, "No such file or directory"), False, "no-client", "apt-get install docker.io"),
        (TimeoutError("Read timed out."), True, "timeout", "restart docker"),
        (ValueError("strange"), True, "error", "docker info"),
    ],
)
def test_each_way_docker_fails_has_its_own_remedy(
    monkeypatch: pytest.MonkeyPatch, cause: Exception, docker_installed: bool, status: str, remedy: str
) -> None:
    from docker.errors import DockerException

    def fail(**_options: Any) -> None:
        try:
            raise ConnectionError("Connection aborted.", cause)
        except ConnectionError as wrapped:
            raise DockerException(f"Error while fetching server API version: {wrapped}") from wrapped

    monkeypatch.setattr("docker.from_env", fail)
    monkeypatch.setattr(docker_daemon.shutil, "which", lambda _name: "/usr/bin/docker" if docker_installed else None)
    monkeypatch.setattr(docker_daemon, "_in_docker_group", lambda: False)
    state = machine.docker_state()
    assert state.status == status and remedy in state.remedy and state.reason and not state.ready


def test_in_the_group_but_not_logged_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("docker.from_env", fail)
    monkeypatch.setattr(docker_daemon, "_in_docker_group", lambda: True)
    assert "log out" in machine.docker_state().remedy


@pytest.mark.parametrize(
    ("info", "can"),
    [
        ({"Runtimes": {"runc": {}, "nvidia": {}}}, True),
        ({"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=all"}]}, True),
        ({"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"Source": "cdi", "ID": "vendor.com/nic=0"}]}, False),
        ({"Runtimes": None, "DiscoveredDevices": None}, False),
        ({}, False),
    ],
)
def test_the_nvidia_runtime_is_seen(monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], can: bool) -> None:
    client = SimpleNamespace(info=lambda: {"ServerVersion": "28.2", **info}, close=lambda: None)
    monkeypatch.setattr("docker.from_env", lambda **_options: client)
    state = machine.docker_state()
    assert state.ready and state.version == "28.2" and state.nvidia_runtime is can


# -- bandwidth and roofline --------------------------------------------------------------------------------------------


def test_8b_weights_in_bf16_allow_17_tokens_per_second_on_a_spark() -> None:
    spark = a_machine("spark", GB10)
    found = machine.bandwidth(spark)
    assert found.source == "published" and found.gb_per_s == 273 and "NVIDIA" in (found.cited_from or "")
    assert machine.roofline(found, 16e9) == pytest.approx(17.06, abs=0.01)
    assert found.as_measurement(spark).source == "reference"


@given(st.floats(1, 1e4), st.floats(1e6, 1e12), st.floats(1.1, 10))
def test_the_roof_falls_with_bytes_and_rises_with_bandwidth(rate: float, size: float, factor: float) -> None:
    roof = machine.roofline(rate, size)
    assert machine.roofline(rate, size * factor) < roof < machine.roofline(rate * factor, size)


@pytest.mark.parametrize(("rate", "size"), [(0, 1e9), (-1, 1e9), (100, 0), (100, -5)])
def test_no_roof_from_nonsense(rate: float, size: float) -> None:
    with pytest.raises(LabsError, match="no roofline"):
        machine.roofline(rate, size)


def test_kv_cache_of_llama_8b_is_128_kib_per_token_of_context() -> None:
    assert machine.kv_bytes(layers=32, kv_heads=8, head_dim=128, context=1) == 128 * 1024
    assert machine.kv_bytes(layers=32, kv_heads=8, head_dim=128, context=1000, bytes_per_element=1) == 64 * 1024 * 1000


def test_a_batch_shares_the_weights_but_not_the_cache() -> None:
    assert machine.bytes_per_token(16_000, 100) == 16_100
    assert machine.bytes_per_token(16_000, 100, batch=16) == 1_100


def test_measured_bandwidth_is_the_best_pass_with_its_spread() -> None:
    found = machine.bandwidth(a_machine(cores=2), 8 << 20)
    assert found.source == "measured" and found.cited_from is None
    assert found.working_set_bytes == 8 << 20 and found.n >= 6
    assert found.spread and found.spread.high == found.gb_per_s >= found.spread.low > 0
    assert found.busy or machine.bandwidth(a_machine(cores=2), 8 << 20) is found


def test_measured_reading_is_no_faster_than_any_memory() -> None:
    """Catches a kernel that reads only part of the array, and bytes counted in the wrong unit."""
    assert machine.bandwidth(a_machine(cores=1), 64 << 20).gb_per_s < 2000


def test_the_passes_read_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one core busy for a known time per byte, the rate comes out as that time says."""
    import time

    class Slow:
        def __init__(self) -> None:
            self.bytes = 0

        def reduce(self, share: Any) -> None:
            self.bytes += share.nbytes
            time.sleep(share.nbytes / 8e9)

    kernels = [Slow(), Slow(), Slow()]
    for name, kernel in zip(("bitwise_or", "add", "maximum"), kernels, strict=True):
        monkeypatch.setattr(f"numpy.{name}", kernel)
    size = 128 << 20
    passes = list(memory_bandwidth._host_passes(size, 2))
    rounds = sum(kernel.bytes for kernel in kernels) / size
    assert rounds == len(passes) + len(kernels)  # the first round of each kernel is not timed
    assert all(one.seconds >= size / 2 / 8e9 for one in passes)


def test_a_machine_whose_cores_others_use_gives_a_lower_bound_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that sleeps has not got its core, as one that another program pushed aside."""
    import time

    asleep = SimpleNamespace(reduce=lambda _share: time.sleep(0.002))
    for name in ("bitwise_or", "add", "maximum"):
        monkeypatch.setattr(f"numpy.{name}", asleep)
    here = a_machine(cores=2)
    found = machine.bandwidth(here, 65 << 20)
    assert found.busy and "lower bound" in str(found)
    assert found.as_measurement(here).flags == ("machine-busy",)
    monkeypatch.undo()
    assert machine.bandwidth(here, 65 << 20) is not found


def test_a_reader_that_keeps_its_core_is_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.thread_time", itertools.count(step=1e6).__next__)  # more than any clock on the wall
    assert all(one.calm for one in memory_bandwidth._host_passes(8 << 20, 2))


def test_a_working_set_is_held_within_bounds() -> None:
    assert machine.bandwidth(a_machine(cores=1), 1).working_set_bytes == memory_bandwidth.SMALLEST_WORKING_SET
    assert memory_bandwidth.dram_working_set() >= 256 << 20


def test_the_last_level_cache_is_summed_over_its_instances(tmp_path: Path) -> None:
    for cpu, group in enumerate(["0-1", "0-1", "2-3", "2-3"]):
        for index, (level, size) in enumerate([(1, "32K"), (3, "16384K")]):
            folder = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
            folder.mkdir(parents=True)
            (folder / "level").write_text(f"{level}\n")
            (folder / "size").write_text(f"{size}\n")
            (folder / "shared_cpu_list").write_text(f"{group if level == 3 else cpu}\n")
    assert memory_bandwidth.last_level_cache(tmp_path) == 2 * 16384 * 1024
    assert memory_bandwidth.last_level_cache(tmp_path / "nothing") == 0


def test_the_gpu_passes_run_on_any_torch_device() -> None:
    passes = list(memory_bandwidth._torch_passes("cpu", 4 << 20))
    assert len(passes) >= 4 and min(one.seconds for one in passes) > 0


def test_a_gpu_that_torch_cannot_use_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(LabsError, match="cannot use this machine's GPU"):
        machine.bandwidth(a_machine("cuda", H100), 5 << 20)


def test_the_cpu_profile_on_a_gpu_machine_is_bound_by_the_host() -> None:
    assert machine.bandwidth(a_machine("spark", GB10), 8 << 20, device="cpu").source == "measured"


def test_the_roofline_record_carries_model_precision_and_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SimpleNamespace(name="labs-13m", precision="fp32", bytes_per_token=8 << 20)
    here = a_machine(cores=2)

    def read(_device: str, _cores: int, size: int) -> machine.Bandwidth:
        return machine.Bandwidth(30.0, "measured", size, Spread(low=10, high=30, kind="minmax"), 9, reader="numpy 2")

    monkeypatch.setattr(memory_bandwidth, "_measure", read)
    found = machine.roofline_measurement(here, model)
    band = machine.bandwidth(here, 8 << 20)
    assert (found.metric, found.unit, found.model, found.precision) == ("roofline", "tok/s", "labs-13m", "fp32")
    assert found.value == pytest.approx(band.gb_per_s * 1e9 / (8 << 20))
    assert found.spread and found.spread.high == found.value == pytest.approx(3 * found.spread.low)
    assert found.source == "measured" and found.n == band.n == 9 and "8 MiB" in found.load.workload
    with_cache = machine.roofline_measurement(here, model, kv_cache_bytes=8 << 20)
    assert with_cache.value == pytest.approx(found.value / 2)
