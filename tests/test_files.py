"""Paths as users give them, and text files that are the same in every locale."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lth.errors import UsageError
from lth.files import ROOT, absolute, data_set, default_root, settle_environment, shown, write_text


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """The user works in tmp_path/here, and tmp_path/home is the home folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(
    ("given", "means"),
    [("mine", "here/mine"), ("./mine", "here/mine"), ("~/mine", "home/mine"), ("~", "home"), (".", "here")],
)
def test_a_path_is_absolute(place, given, means):
    assert absolute(given) == absolute(Path(given)) == place / means
    assert absolute(place / means) == place / means


@pytest.mark.parametrize(("given", "says"), [("", "empty"), ("~nobody-of-this-name/x", "~nobody-of-this-name/x")])
def test_a_path_that_means_nothing(given, says):
    with pytest.raises(UsageError, match=says):
        absolute(given)


def test_a_data_set_is_a_name_or_a_path(place):
    assert data_set("mnist") == "mnist" and data_set("pets") == "pets"  # looked for under LTH_DATA
    assert data_set("./pets") == str(place / "here" / "pets")
    assert data_set("~/pets.tar.gz") == str(place / "home" / "pets.tar.gz")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("mnist", "mnist"),
        ("/home/me/pets", "pets"),
        ("/home/me/a $x$", "a $x$"),
        ("/home/m\udce4use", "m\N{REPLACEMENT CHARACTER}use"),  # a byte of the file's name that is not UTF-8
    ],
)
def test_pages_show_the_name_of_a_data_set(given, name):
    assert shown(given) == name
    shown(given).encode()


@pytest.mark.parametrize("name", ["LTH_STORE", "LTH_DATA", "XDG_CACHE_HOME"])
def test_folders_of_the_environment_are_settled_once(place, monkeypatch, name):
    for given, means in (("~/s", "home/s"), ("s", "here/s"), (str(place / "s"), "s")):
        monkeypatch.setenv(name, given)
        settle_environment()
        assert os.environ[name] == str(place / means)
    monkeypatch.setenv(name, "")
    settle_environment()
    assert name not in os.environ


def test_where_the_store_is(monkeypatch, place):
    monkeypatch.setenv("LTH_STORE", str(place / "s"))
    assert default_root() == place / "s"
    for unset in (lambda: monkeypatch.setenv("LTH_STORE", ""), lambda: monkeypatch.delenv("LTH_STORE")):
        unset()
        assert default_root() == ROOT / ".lth" / "store"


def test_a_written_file_is_utf8(place):
    write_text(place / "x", "α 猫\n")
    assert (place / "x").read_bytes() == "α 猫\n".encode()
    assert sorted(path.name for path in place.iterdir()) == ["here", "x"]


def silent(tree: ast.AST) -> Iterator[int]:
    """Lines that read or write text without naming the encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        mode = next((a.value for a in call.args[1:2] if isinstance(a, ast.Constant)), "r")
        named = any(keyword.arg in ("encoding", None) for keyword in call.keywords)
        match call.func:
            case ast.Name(id="open") if "b" not in mode and not named:
                yield call.lineno
            case ast.Attribute(attr="read_text" | "write_text") if not named:
                yield call.lineno
            case _ if any(keyword.arg in ("text", "universal_newlines") for keyword in call.keywords) and not named:
                yield call.lineno


@pytest.mark.parametrize("folder", ["lth", "book", "benchmarks", "scripts", "tests"])
def test_every_text_file_names_its_encoding(folder):
    """Else it depends on the locale of whoever runs it."""
    for path in (ROOT / folder).rglob("*.py"):
        assert not list(silent(ast.parse(path.read_text(encoding="utf-8")))), path
