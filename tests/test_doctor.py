"""The doctor says what is missing and what helps, and is 'ready' only when lab 3.3.1 can measure here."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from labs_helpers import doctor, machine
from labs_helpers.doctor import GIB, Diagnosis, EngineRow, Finding
from labs_helpers.machine import DockerState, Gpu, Memory
from labs_helpers.machine.memory_bandwidth import Bandwidth

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def no_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bandwidth is measured in test_machine.py."""
    band = Bandwidth(30.0, "measured", 256 << 20, None, 9, reader="numpy 2")
    monkeypatch.setattr(machine, "bandwidth", lambda *_args, **_options: band)


def a_machine(**fields: Any) -> machine.Machine:
    given: dict[str, Any] = {
        "kind": "cpu", "why": "no driver", "cpu": "AMD EPYC", "arch": "x86_64", "cores": 2, "memory_total": 24 * GIB,
        "gpu": None, "python": "3.12.1", "os": "Debian", "docker": DockerState("ready", "28.0"), **fields,
    }  # fmt: skip
    return machine.Machine(**given)


def rows(available: int = 0, installable: int = 0, unavailable: int = 0) -> list[EngineRow]:
    return [
        *(EngineRow(engine=f"a{i}", status="available", version="1") for i in range(available)),
        *(EngineRow(engine=f"i{i}", status="unavailable", reason="not installed", remedy="install it",
                    installable=True) for i in range(installable)),
        *(EngineRow(engine=f"u{i}", status="unavailable", reason="needs a GPU", remedy="buy one")
          for i in range(unavailable)),
    ]  # fmt: skip


def printed(found: Diagnosis, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    doctor.render(found, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_this_machine_is_examined_and_every_engine_is_listed(tmp_path: Path) -> None:
    from labs_helpers.engines import registry

    found = doctor.examine(tmp_path)
    assert [row.engine for row in found.engines] == [engine.name for engine in registry.engines()]
    assert all(row.reason and row.remedy for row in found.engines if row.status == "unavailable")
    assert found.ready == (not found.obstacles)
    assert found.memory_total >= found.memory_available > 0
    assert all(finding.remedy for finding in found.findings if finding.level != "good")


def test_the_json_form_is_the_whole_diagnosis(tmp_path: Path) -> None:
    found = doctor.examine(tmp_path)
    assert Diagnosis.model_validate_json(found.model_dump_json()) == found
    assert isinstance(json.loads(found.model_dump_json())["ready"], bool)


def test_people_see_reasons_and_remedies(tmp_path: Path) -> None:
    found = doctor.examine(tmp_path).model_copy(update={"engines": rows(1, 1, 1)})
    text = printed(found)
    for wanted in ("AMD" if "AMD" in found.card else found.card.split()[0], "30 GB/s", "needs a GPU", "buy one"):
        assert wanted in text


@pytest.mark.parametrize(
    ("engines", "level"),
    [
        (rows(3), "good"), (rows(1, 2), "good"), (rows(0, 3), "good"), (rows(2), "blocking"),
        (rows(2, 0, 4), "blocking"), (rows(1, 1, 4), "blocking"), ([], "blocking"),
    ],
)  # fmt: skip
def test_three_engines_must_be_here_or_installable(engines: list[EngineRow], level: str) -> None:
    assert doctor._enough_engines(engines).level == level


@pytest.mark.parametrize(("free", "level"), [(8 * GIB, "good"), (1 * GIB, "blocking")])
def test_memory_that_is_not_enough_is_an_obstacle(free: int, level: str) -> None:
    assert doctor._memory(free).level == level


def test_a_full_disk_is_an_obstacle_where_engines_must_still_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(100 * GIB, 99 * GIB, 1 * GIB))
    cache, results = doctor._disks(tmp_path / "results", rows(1, 2))
    assert cache.level == "blocking" and "1.0 GiB free" in cache.detail and "LABS_CACHE" in cache.remedy
    assert results.level == "good"
    assert doctor._disks(tmp_path / "results", rows(3))[0].level == "good"


def test_a_folder_that_is_a_file_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("")
    monkeypatch.setenv("LABS_CACHE", str(tmp_path / "cache" / "labs"))
    assert "is a file" in doctor._disks(tmp_path, rows(3))[0].detail


def test_a_folder_without_permission_is_an_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the answer of the operating system is given."""
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
    found = doctor._disk("disk of the cache", tmp_path / "cache", 1, "set LABS_CACHE")
    assert found.level == "blocking" and "no permission" in found.detail


@pytest.mark.parametrize(("version", "level"), [((3, 10), "blocking"), ((3, 11), "good"), ((3, 13), "good"),
                                                ((3, 14), "blocking")])  # fmt: skip
def test_python_must_be_one_the_course_supports(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], level: str
) -> None:
    monkeypatch.setattr("sys.version_info", (*version, 0, "final", 0))
    assert doctor._python().level == level


def test_a_missing_tool_limits_but_does_not_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "bwrap" else f"/usr/bin/{name}")
    found = {finding.name: finding for finding in doctor._tools()}
    assert found["bubblewrap"].level == "missing" and "apt-get install bubblewrap" in found["bubblewrap"].remedy
    assert found["g++"].level == found["git"].level == "good"


def test_no_docker_limits_but_does_not_block_the_cpu_profile() -> None:
    state = DockerState("no-permission", reason="may not use its socket", remedy="sudo usermod -aG docker me")
    (found,) = doctor._containers(a_machine(docker=state))
    assert found.level == "missing" and "may not use its socket" in found.detail and "usermod" in found.remedy


def test_a_gpu_that_containers_cannot_reach_is_said_so() -> None:
    spark = {"kind": "spark", "gpu": Gpu("NVIDIA GB10", (12, 1))}
    without = doctor._containers(a_machine(**spark))
    assert without[-1].name == "NVIDIA container toolkit" and "nvidia-ctk" in without[-1].remedy
    with_runtime = doctor._containers(a_machine(**spark, docker=DockerState("ready", "28.0", nvidia_runtime=True)))
    assert [finding.level for finding in with_runtime] == ["good"]


def test_a_gpu_that_torch_cannot_use_is_a_line_and_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    from labs_helpers.errors import LabsError

    def refuse(_machine: Any, _size: Any, *, device: str) -> Bandwidth:
        if device == "auto":
            raise LabsError("torch cannot use this GPU", "install the CUDA build")
        return Bandwidth(30.0, "measured", 256 << 20, None, 9)

    monkeypatch.setattr(machine, "bandwidth", refuse)
    *_, gpu = doctor._bandwidth(a_machine(kind="cuda", gpu=Gpu("NVIDIA H100", (9, 0))))
    assert gpu.source == "unknown" and gpu.gb_per_s is None and "CUDA build" in gpu.detail


def test_an_obstacle_makes_it_not_ready_and_is_named_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: Memory(2 * GIB, GIB // 2, "cgroup limit"))
    found = doctor.examine(tmp_path)
    assert not found.ready and [finding.name for finding in found.obstacles] == ["free memory"]
    assert printed(found).strip().splitlines()[-1] == "Not ready for lab 3.3.1: free memory"


def test_what_is_found_is_shown_as_text_and_never_as_markup(tmp_path: Path) -> None:
    odd = [Finding(name="disk", level="blocking", detail="/tmp/[red]x[/red]", remedy="[bold]y")]
    text = printed(doctor.examine(tmp_path).model_copy(update={"findings": odd}))
    assert "/tmp/[red]x[/red]" in text and "[bold]y" in text


def test_the_command_line_exits_by_readiness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from labs_helpers import cli

    diagnosis = doctor.examine(tmp_path)
    for ready in (True, False):
        monkeypatch.setattr(doctor, "examine", lambda ready=ready: diagnosis.model_copy(update={"ready": ready}))
        ran = CliRunner().invoke(cli.app, ["doctor", "--json"])
        assert ran.exit_code == (0 if ready else 1)
        assert json.loads(ran.stdout)["ready"] is ready
