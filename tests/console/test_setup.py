"""Setting up: what is refused, with which line, and what is copied."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.stack import ROOT


@pytest.fixture
def setup() -> ModuleType:
    """tools/setup.py as a module; it is a script of no package."""
    spec = importlib.util.spec_from_file_location("runyard_setup", ROOT / "tools" / "setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_missing_venv_module_is_one_line_that_says_what_to_install(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(setup, "PYTHON", tmp_path / "no" / "python")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())
    with pytest.raises(setup.Failed, match="apt-get install python3-venv") as failed:
        setup.make_venv()
    assert "\n" not in str(failed.value)


def test_an_old_python_is_one_line(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(setup.Failed, match=r"Python 3\.11 or later is needed"):
        setup.main("runtime")


def test_packages_are_installed_only_if_their_lock_changed(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed: list[str] = []
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(setup, "show_pip", lambda command: installed.append(Path(command[-1]).stem))
    for kind in ("runtime", "runtime", "dev", "dev", "runtime"):
        setup.install_packages(kind)
    assert installed == ["runtime", "dev"]


def test_style_sheets_bring_their_images_and_name_no_missing_map(setup: ModuleType, tmp_path: Path) -> None:
    theme = tmp_path / "css" / "theme"
    theme.mkdir(parents=True)
    (tmp_path / "css" / "dot-1.png").write_bytes(b"png")
    (theme / "x.css").write_text("a{background:url(../dot-1.png)}\n/*# sourceMappingURL=x.css.map */")
    setup.copy(theme / "x.css", tmp_path / "out" / "x.css")
    assert (tmp_path / "out" / "dot-1.png").exists()
    assert (tmp_path / "out" / "x.css").read_text() == "a{background:url(./dot-1.png)}\n"


def test_the_lock_of_the_front_end_has_hashes_and_names_no_host() -> None:
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    for name, package in packages.items():
        assert not name or package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


def test_make_lists_its_targets() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("up", "start", "stop", "status", "test", "check", "fix", "demo", "bench", "docs"):
        assert f"make {target} " in listed
    assert "make admin-password" in listed
