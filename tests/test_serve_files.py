"""The unit of systemd and the container: what they promise, as far as it can be seen without running them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tidegate.settings.service import ServeSettings

FOLDER = Path(__file__).parents[1] / "examples" / "serve"
UNIT = (FOLDER / "tidegate.service").read_text()
DOCKERFILE = (FOLDER / "Dockerfile").read_text()


def option(name: str) -> str:
    """Return what an option of the unit is set to."""
    [value] = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def test_the_unit_leaves_more_time_than_a_drain_may_take() -> None:
    assert float(option("TimeoutStopSec")) > ServeSettings().grace + 5
    assert option("Type") == "notify"
    assert float(option("WatchdogSec")) > 0


def test_the_unit_is_restarted_unless_a_setting_is_wrong() -> None:
    from tidegate.cli.exit_codes import USAGE

    assert option("Restart") == "always"
    assert option("RestartPreventExitStatus") == str(USAGE)


@pytest.mark.parametrize(
    "setting", ["NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes", "CapabilityBoundingSet=", "UMask=0077"]
)
def test_the_unit_may_do_little(setting: str) -> None:
    assert setting in UNIT.splitlines()


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze, which comes with systemd")
    unit = tmp_path / "tidegate.service"
    unit.write_text(UNIT.replace(option("ExecStart").split()[0], "/bin/true"))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


def test_the_container_runs_as_nobody_in_particular_and_is_asked_for_its_health() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert re.search(r"^USER (?!0\b|root\b)\d+:\d+$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\n.*/healthz", last, re.MULTILINE)
    assert "COPY --from=build" in last, "what built it is left behind"
    assert "pip install" not in last


def test_the_container_has_a_client_for_each_kind_if_it_is_asked_for() -> None:
    extras = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    by_default, asked_for = re.findall(r"EXTRAS=([\w,]+)", DOCKERFILE + (FOLDER / "README.md").read_text())
    assert {"queue", "s3"} <= set(asked_for.split(","))
    assert {*by_default.split(","), *asked_for.split(",")} <= extras.keys()
    assert ".[serve,${EXTRAS}]" in DOCKERFILE
    assert DOCKERFILE.count("\nARG EXTRAS") == 2, "an argument before the first FROM is asked for again behind it"


def test_the_container_copies_what_there_is() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert names
    assert [name for name in names if not (FOLDER.parents[1] / name).exists()] == []
