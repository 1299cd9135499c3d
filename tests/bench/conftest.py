"""The oracle as a fixture: one process for all tests, forgotten between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.oracle.process import OracleProcess
from tests.oracle.process import oracle as run_oracle

settings.register_profile("labs", deadline=None)  # how quick the machine is decides no test
settings.load_profile("labs")


@pytest.fixture(scope="session")
def oracle_process() -> Iterator[OracleProcess]:
    with run_oracle() as running:
        yield running


@pytest.fixture
def oracle(oracle_process: OracleProcess) -> OracleProcess:
    oracle_process.forget()
    return oracle_process


@pytest.fixture
def one_slot_oracle() -> Iterator[OracleProcess]:
    """Serves one request at a time; the others queue."""
    with run_oracle("--slots", "1", "--ttft-ms", "30", "--gap-ms", "1") as running:
        yield running
