"""Archives of networks: what was packed trains nowhere else, to the bit, and never comes half."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lth.book.cli import cli
from lth.errors import LthError, UsageError
from lth.methods import prune
from lth.store import archives as networks
from lth.store import tickets
from lth.store.archives import Archives, pack
from lth.store.runs import Store
from lth.training.identity import run_keys
from lth.training.recipe import Recipe

RECIPE = Recipe(steps=12, batch_size=8)


@pytest.fixture
def trained(lenets, toy, tmp_path):
    """A store with two sparse networks, their population, and the names of their runs."""
    start = prune.apply(lenets, prune.magnitude_masks_per_layer(lenets, 0.9))[:2]
    store = Store(tmp_path / "store", Archives(tmp_path / "none"))
    store.train(start, toy, RECIPE, keep=[0, 6])
    names = [f"runs/{folder.name}" for folder in (store.root / "runs").iterdir()]
    return store, start, names


def test_packed_networks_are_not_trained_again(trained, toy, tmp_path, monkeypatch):
    store, start, names = trained
    size = pack(names, store.root, tmp_path / "archives" / "chapter.zip")
    assert size < 2.5 * 2 * 2 * 44_426 * 4 / 10  # of two states of two networks at 10 %, with masks and tables
    before = store.train(start, toy, RECIPE, keep=[0, 6])
    monkeypatch.setattr("lth.store.runs.train", None)
    other = Store(tmp_path / "other", Archives(tmp_path / "archives"))
    after = other.train(start, toy, RECIPE, keep=[0, 6])
    for one, two in ((before.final, after.final), (before.at(6), after.at(6)), (before.at(0), after.at(0))):
        assert all(torch.equal(p, two.params[n]) for n, p in one.params.items())
        assert all(torch.equal(m, two.masks[n]) for n, m in one.masks.items())
    assert before.history.equals(after.history)
    assert torch.equal(before.at(0).theta(), start.theta())
    assert sorted(f"runs/{folder.name}" for folder in (other.root / "runs").iterdir()) == sorted(names)


def test_the_same_networks_make_the_same_archive(trained, tmp_path):
    store, _, names = trained
    pack(names, store.root, tmp_path / "one.zip")
    pack(names[::-1] * 2, store.root, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_archives_are_never_rewritten(trained, tmp_path):
    store, _, names = trained
    pack(names[:1], store.root, tmp_path / "one.zip")
    before = (tmp_path / "one.zip").read_bytes()
    with pytest.raises(LthError, match="never rewritten"):
        pack(names, store.root, tmp_path / "one.zip")
    with pytest.raises(LthError, match="runs/0000 is not in the store"):
        pack(["runs/0000"], store.root, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == before and not list(tmp_path.glob("*two*"))


def test_measures_are_files_and_travel_too(tmp_path):
    file = tmp_path / "store" / "measures" / "ab.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"measured")
    pack(["measures/ab.safetensors"], tmp_path / "store", tmp_path / "archives" / "a.zip")
    archives = Archives(tmp_path / "archives")
    assert archives.bring("measures/ab.safetensors", tmp_path / "other")
    assert (tmp_path / "other" / "measures" / "ab.safetensors").read_bytes() == b"measured"
    assert not archives.bring("measures/cd.safetensors", tmp_path / "other")
    assert not Archives(tmp_path / "nowhere").bring("measures/ab.safetensors", tmp_path / "other")


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_a_damaged_archive_is_named(content, tmp_path):
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(LthError, match=r"bad.zip is damaged.*get it again"):
        Archives(tmp_path).bring("runs/00", tmp_path / "store")


def test_a_run_cut_short_in_an_archive_is_told_as_damaged(trained, toy, tmp_path):
    store, start, names = trained
    key = run_keys(start, plan(toy))[0]
    archive = tmp_path / "archives" / "one.zip"
    pack([f"runs/{key}"], store.root, archive)
    torn = archive.with_name("torn.zip")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(torn, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[:-1] if name.endswith("final.safetensors") else old.read(name))
    archive.unlink()
    with pytest.raises(LthError, match=f"run {key} .* is damaged .final.safetensors"):
        Store(tmp_path / "other", Archives(torn.parent)).train(start[[0]], toy, RECIPE, keep=[0, 6])


def plan(data):
    from lth.training.plan import Plan

    return Plan(data, RECIPE, keep=(0, 6))


def test_the_books_own_archives_are_small_and_whole():
    """All of them together stay below 60 MB, and each file says what it is."""
    files = list(networks.SHIPPED.glob("*.zip"))
    assert sum(file.stat().st_size for file in files) < 60e6
    for name, members in Archives().files.items():
        assert Path(name).parts[0] in ("runs", "measures"), name
        if name.startswith("runs/"):
            with zipfile.ZipFile(members[f"{name}/meta.json"]) as archive:
                meta = json.loads(archive.read(f"{name}/meta.json"))
            kept = {f"{name}/{file}" for file in meta["files"] if file.endswith(".safetensors")}
            whole = {f"{name}/{file}" for file in meta["files"]} - kept | {f"{name}/meta.json"}
            assert whole <= set(members) <= whole | kept


def test_a_chapter_adds_only_what_no_archive_holds(trained, tmp_path, monkeypatch):
    store, _, names = trained
    folder, none = tmp_path / "archives", dict.fromkeys(names, ())
    assert networks.add("lt_basin", {names[0]: [6]}, store.root, folder)[:2] == (folder / "lt_basin.zip", 1)
    before = (folder / "lt_basin.zip").read_bytes()
    assert networks.add("lt_basin", none, store.root, folder)[:2] == (folder / "lt_basin-2.zip", 1)
    assert networks.add("tweaks", none | {names[0]: [0, 6]}, store.root, folder) == (None, 0, 0)
    assert networks.add("tweaks", none | {names[1]: [6]}, store.root, folder)[:2] == (folder / "tweaks.zip", 1)
    assert (folder / "lt_basin.zip").read_bytes() == before
    held = Archives(folder)
    assert set(held.files) == set(names) and {held.chapter(name) for name in names} == {"lt_basin"}
    monkeypatch.setattr(networks, "LIMIT", 1_000)
    (store.root / "measures").mkdir()
    (store.root / "measures" / "ab.safetensors").write_bytes(b"measured")
    with pytest.raises(LthError, match=r"would have .* leave out a chapter, or train fewer"):
        networks.add("tweaks", {"measures/ab.safetensors": ()}, store.root, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["lt_basin-2.zip", "lt_basin.zip", "tweaks.zip"]


def test_kept_steps_that_nobody_looks_at_stay_behind(trained, toy, tmp_path, monkeypatch):
    """The rest of the run is there to the bit; who asks for such a step hears why it is not."""
    store, start, names = trained
    whole = store.train(start, toy, RECIPE, keep=[0, 6])
    networks.add("lt_basin", dict.fromkeys(names, ()), store.root, tmp_path / "archives")
    monkeypatch.setattr("lth.store.runs.train", None)
    run = Store(tmp_path / "other", Archives(tmp_path / "archives")).train(start, toy, RECIPE, keep=[0, 6])
    assert torch.equal(run.final.theta(), whole.final.theta()) and run.history.equals(whole.history)
    assert torch.equal(run.at(0).theta(), start.theta())
    with pytest.raises(LthError, match="step 6 of these networks does not travel with the book"):
        run.at(6)
    networks.add("tweaks", dict.fromkeys(names, [6]), store.root, tmp_path / "archives")
    run = Store(tmp_path / "third", Archives(tmp_path / "archives")).train(start, toy, RECIPE, keep=[0, 6])
    assert torch.equal(run.at(6).theta(), whole.at(6).theta())


def test_weights_that_nobody_looks_at_stay_behind(trained, toy, tmp_path, monkeypatch):
    """Histories alone travel; who needs the weights trains them, once."""
    store, start, names = trained
    before = store.train(start, toy, RECIPE, keep=[0, 6])
    networks.add("chapter", dict.fromkeys(names), store.root, tmp_path / "archives")
    monkeypatch.setattr(networks, "SHIPPED", tmp_path / "archives")
    other = Store(tmp_path / "other", Archives(tmp_path / "archives"))
    with monkeypatch.context() as patch:
        patch.setattr("lth.store.runs.train", None)
        after = other.train(start, toy, RECIPE, keep=[0, 6], history_only=True)
    assert before.history.equals(after.history) and after.final.theta().isnan().all()
    assert torch.equal(after.final.theta_mask(), before.final.theta_mask()) and not after.failed
    with pytest.raises(LthError, match="step 6 of these networks does not travel"):
        after.at(6)
    key = names[0].partition("/")[2]
    assert "came without its weights" in other.about(key)[1]
    with pytest.raises(UsageError, match="without its weights"):
        tickets.export(other, key, tmp_path / "ticket.safetensors")
    with pytest.raises(LthError, match="no networks of chapter travel"):
        networks.published("chapter")
    again = other.train(start, toy, RECIPE, keep=[0, 6])
    for one, two in ((before.final, again.final), (before.at(6), again.at(6))):
        assert torch.equal(one.theta(), two.theta())
    monkeypatch.setattr("lth.store.runs.train", None)
    other.train(start, toy, RECIPE, keep=[0, 6])
    third = Store(tmp_path / "third", Archives(tmp_path / "archives"))  # weights that come from another machine
    third.train(start, toy, RECIPE, keep=[0, 6], history_only=True)
    for name in names:
        files = [file for file in (store.root / name).iterdir() if file.is_file()]
        networks.put(third.root, name, {f"{name}/{file.name}": file.read_bytes() for file in files})
    assert torch.equal(third.train(start, toy, RECIPE, keep=[0, 6]).final.theta(), before.final.theta())


def test_the_first_weights_are_in_no_archive(trained):
    """What a seed gives again is drawn again: only what training made is kept."""
    store, _, names = trained
    for name in names:
        assert sorted(path.name for path in (store.root / name).iterdir()) == [
            "final.safetensors", "history.csv", "meta.json", "step_6.safetensors"  # of steps 0 and 6 that are kept
        ]  # fmt: skip


def test_an_execution_that_does_not_say_what_it_used_is_told(tmp_path):
    with pytest.raises(UsageError, match="execute it again with `lth run lt_basin`"):
        networks.used(tmp_path / "lt_basin")


def test_the_commands_pack_list_and_unpack(trained, tmp_path, monkeypatch):
    store, _, names = trained
    told = tmp_path / "edition" / "lt_basin" / "networks.json"
    told.parent.mkdir(parents=True)
    told.write_text(json.dumps({names[0]: [6], names[1]: []}), encoding="utf-8")
    monkeypatch.setattr(networks, "SHIPPED", tmp_path / "archives")
    monkeypatch.setenv("LTH_STORE", str(store.root))
    call = lambda *words: CliRunner().invoke(cli, ["networks", *words], catch_exceptions=False).output  # noqa: E731
    pack_it = ("pack", "3", "--edition", str(tmp_path / "edition"))
    assert "lt_basin.zip: 2 parts, 0." in call(*pack_it)
    assert "nothing that is not packed yet" in call(*pack_it)
    assert "2 networks, 0 measures" in call("ls") and "of 60 MB" in call("ls")
    monkeypatch.setenv("LTH_STORE", str(tmp_path / "other"))
    assert "2 parts more, 0 were there" in call("unpack", "lt_basin")
    assert "0 parts more, 2 were there" in call("unpack")
    assert (tmp_path / "other" / names[0] / "step_6.safetensors").exists()
    assert not (tmp_path / "other" / names[1] / "step_6.safetensors").exists()
    with pytest.raises(UsageError, match="no archive in .* has networks of tweaks"):
        call("unpack", "tweaks")
