"""pyproject.toml, requirements.lock and environment.yml say the same."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"] + EXTRAS["dev"]]
LOCKED = [
    Requirement(line)
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]


def exact(requirement: Requirement) -> bool:
    return [s.operator for s in requirement.specifier] == ["=="] and "*" not in str(requirement.specifier)


@pytest.mark.parametrize("direct", DIRECT, ids=str)
def test_every_direct_dependency_has_the_same_pin_in_the_lock(direct: Requirement) -> None:
    assert exact(direct)
    found = [r for r in LOCKED if r.name == direct.name]
    assert [r.specifier for r in found] == [direct.specifier], "edit pyproject.toml, then: make lock"
    assert found[0].marker is None


def test_what_is_installed_on_top_of_the_lock_has_exact_pins() -> None:
    assert all(exact(Requirement(line)) for extra in EXTRAS.values() for line in extra)


def test_lock_holds_exact_pins_and_nothing_else() -> None:
    assert all(exact(r) and r.url is None for r in LOCKED)
    assert len(LOCKED) > len(DIRECT)
    names = [r.name for r in LOCKED]
    assert sorted(names) == sorted(set(names)), "one version of each package, whatever the Python"


def test_lock_covers_what_its_packages_need() -> None:
    locked = {r.name.lower() for r in LOCKED if r.marker is None or r.marker.evaluate()}
    for name in locked:
        for line in metadata.requires(name) or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert need.name.lower().replace("_", "-").replace(".", "-") in locked, f"{name} needs {need}"


def test_installed_versions_are_the_locked_ones() -> None:
    for requirement in LOCKED:
        if requirement.marker is None or requirement.marker.evaluate():
            installed = metadata.version(requirement.name)
            assert installed in requirement.specifier, f"{requirement} is locked: make test installs it"


def test_environment_installs_the_lock_and_this_project() -> None:
    (pip,) = [entry["pip"] for entry in ENVIRONMENT if isinstance(entry, dict)]
    assert pip == ["-r requirements.lock", "-e ."]


def test_python_versions_agree() -> None:
    (line,) = [e for e in ENVIRONMENT if isinstance(e, str) and e.startswith("python")]
    supported = SpecifierSet(PROJECT["requires-python"])
    assert line.removeprefix("python=") in supported
    setup = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    lowest = min(int(minor) for minor in range(20) if f"3.{minor}" in supported)
    assert f">= 3{lowest:02d}" in setup
