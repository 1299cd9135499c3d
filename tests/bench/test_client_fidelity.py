"""The fidelity benchmark: it runs, it compares with the truth, and it says what it could not measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import client_fidelity


def test_help_answers() -> None:
    script = Path(client_fidelity.__file__)
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--out" in done.stdout


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STREAMS": 2, "REQUESTS": 4, "TOKENS": 9, "TTFT_MS": 10, "GAP_MS": 1}.items():
        monkeypatch.setattr(client_fidelity, name, value)
    monkeypatch.setattr(client_fidelity, "SCENARIOS", client_fidelity.SCENARIOS[-1:])


def test_a_pass_is_held_against_the_truth(
    small: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "result.json"
    monkeypatch.setattr(
        sys, "argv", ["x", "--repeats", "1", "--vllm-python", str(tmp_path / "none"), "--json", "--out", str(out)]
    )
    assert client_fidelity.main() == 0
    result = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == result
    (row,) = result["rows"]
    assert (row["client"], row["scenario"], row["requests"]) == ("labs", "role-4", 4)
    assert row["ttft_error_ms"]["median"] > 0  # a stamp cannot be before its emission
    assert row["cpu_us_per_event"]["n"] == 1
    assert "vllm" in result["unavailable"][0] and result["ratios"] == []


def test_a_client_that_fails_is_named(
    small: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = client_fidelity.Client("broken", sys.executable, "no_such_worker.py")
    monkeypatch.setattr(client_fidelity, "clients", lambda _: [broken])
    monkeypatch.setattr(sys, "argv", ["x", "--repeats", "1"])
    assert client_fidelity.main() == 2
    assert "broken failed in role-4" in capsys.readouterr().err
