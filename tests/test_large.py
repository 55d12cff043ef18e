"""The sections on ImageNet: the papers' settings, what they cost, and a run on a tiny image folder from end to end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lth.book import CHAPTERS, claims, cost, large, runner
from lth.book.presets import check_data, parameters
from lth.book.settings.base import Facts
from lth.errors import UsageError
from lth.files import ROOT
from lth.models import Model

ROWS = {f"E{row}.{name}" for row in (3, 4) for name in ("scratch", "rigl", "lottery", "small")}
SECTIONS = {"gradient_flow": ROWS | {"E4.set"}, "rti_repulsion": {"M12.gap"}}  # and their claims


def test_the_paper_settings_are_those_of_its_table():
    """[E, Table 4], and its epochs counted from the number of ImageNet's training images."""
    found = large.columns(parameters("gradient_flow", "imagenet"))
    vgg, resnet = found["E3"].recipe(), found["E4"].recipe(5_000)
    assert (vgg.steps, vgg.batch_size, vgg.lr) == (128_000, 1_024, 0.04)
    assert (resnet.steps, resnet.batch_size, resnet.lr, resnet.first_step) == (32_000, 4_096, 1.6, 5_000)
    for recipe in (vgg, resnet):
        epochs = np.array([recipe.warmup, *recipe.milestones]) * recipe.batch_size / 1_281_167
        assert np.allclose(epochs, [5, 30, 70, 90], atol=0.01)
        assert recipe.lr_factor(recipe.milestones[1]) == pytest.approx(0.01)
    gradual = found["E4"].gradual()
    assert (gradual.start, gradual.end, gradual.every, gradual.dense) == (5_000, 8_000, 2_000, "conv1.weight")
    rigl = found["E3"].rules(1_000)["RigL"]["RigL"]
    assert (rigl.every, rigl.end, rigl.drop_fraction, rigl.grow) == (500, 25_000, 0.1, "gradient")


@pytest.mark.parametrize("length", [1e-4, 3e-4, 0.013, 0.5])
def test_any_length_has_settings_that_can_be_trained(length):
    for column in large.columns(parameters("gradient_flow", "imagenet", {"imagenet_length": length})).values():
        assert column.rewind <= column.gradual().start < column.gradual().end
        assert column.recipe(column.rewind).steps == column.steps and column.rules(10)["SET"]["SET"].every >= 1


@pytest.mark.parametrize(("name", "dense"), [("vgg16", ""), ("resnet50_imagenet", "conv1.weight")])
def test_a_small_dense_network_has_as_many_parameters_as_a_sparse_one(name, dense):
    model = Model(name, (3, 224, 224), 1000)
    count = lambda one: sum(shape.numel() for shape in one.shapes.params.values())  # noqa: E731
    kept = [0.2 * model.shapes.params[n].numel() for n in model.prunable if n != dense]
    rest = count(model) - sum(model.shapes.params[n].numel() for n in model.prunable if n != dense)
    assert 0.9 < count(large.smaller(model, dense)) / (sum(kept) + rest) <= 1


def test_what_is_counted_is_what_the_literature_counts():
    """4.09 and 15.47 thousand million multiplications, each with an addition, less VGG's three linear layers."""
    assert large.flops("resnet50_imagenet", (3, 224, 224), 1000) == pytest.approx(2 * 4.09e9, rel=0.01)
    assert large.flops("vgg16", (3, 224, 224), 1000) == pytest.approx(2 * (15.47e9 - 0.124e9), rel=0.01)


def test_the_cost_follows_from_speeds_and_multiplications(tmp_path, monkeypatch):
    """A machine that trains one network at so many images a second, and that network itself as the question."""
    rows = [
        {"model": "vgg16", "image": "3×32×32", "precision": "bf16", "images_per_second": 5_000.0},
        {"model": "resnet20", "image": "3×32×32", "precision": "bf16", "images_per_second": 10.0},
    ]
    (tmp_path / "one.json").write_text(json.dumps({"device": "one", "rows": rows}), encoding="utf-8")
    monkeypatch.setattr(large, "BENCHMARKS", tmp_path)
    found = large.cost({"vgg16": 86_400 * 5_000 * 3}, side=32, classes=10)
    assert found.to_dict("records") == [{"network": "vgg16", "machine": "one", "precision": "bf16", "days": 3.0}]
    assert large.in_words(found).takes.tolist() == ["3 days"]
    assert large.in_words(found.assign(days=20_607.4)).takes.tolist() == ["56 years"]
    assert large.in_words(found.assign(days=365.2)).takes.tolist() == ["365 days"]
    assert large.in_words(found.assign(days=0.123)).takes.tolist() == ["0.12 days"]


def test_a_table_without_networks_has_the_papers_numbers_alone():
    assert "here" not in large.beside({}) and len(large.beside({})) > 10
    own = pd.DataFrame({"method": "Baseline", "init": "dense", "accuracy": [0.7, 0.72]})
    told = large.beside({"E4": own})
    assert "71.00 ± 1.00" in told.here.tolist() and "–" in told.here.tolist()


def test_images_are_counted_network_by_network():
    """The paper's: 13 trainings of each, one of which begins at step 5,000 of 32,000; four of each of Maene's."""
    settings = parameters("gradient_flow", "imagenet")
    assert cost.large_networks(settings) == Counter(
        {"vgg16": 3 * 13 * large.SEEN, "resnet50_imagenet": round(3 * (13 - 5 / 32) * large.SEEN)}
    )
    assert cost.one_shot(parameters("rti_repulsion", "imagenet"))["resnet50_imagenet"] == 3 * 4 * 90 * 1_281_167
    for chapter in SECTIONS:
        with_it, without = (cost.images(parameters(chapter, preset), 60_000) for preset in ("imagenet", "paper"))
        assert with_it["resnet50_imagenet"] > 0 and "resnet50_imagenet" not in without


def test_images_that_do_not_fit_are_refused_in_one_line(monkeypatch, tmp_path):
    facts = Facts("small", 100, 20, (3, 16, 16), 4)
    settings = parameters("gradient_flow", "imagenet")
    with pytest.raises(UsageError, match="a batch of 1024 for vgg16 is more than its 100 training images"):
        settings.check_imagenet(facts)
    with pytest.raises(UsageError, match="imagenet=imagenet does not fit the model vgg16: .* at least 16×16"):
        settings.check_imagenet(facts._replace(train=10_000, shape=(3, 14, 14)))
    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="unknown data set 'nowhere'"):
        check_data("gradient_flow", parameters("gradient_flow", "smoke", {"imagenet": "nowhere"}).model_dump())


def test_the_preset_needs_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for device in ("auto", "cpu"):
        with pytest.raises(UsageError, match="preset imagenet needs a GPU"):
            runner.prepare(["gradient_flow"], "imagenet", {}, device, tmp_path)


@pytest.mark.parametrize("chapter", SECTIONS)
def test_claims_that_need_more_are_judged_where_they_were_run(chapter):
    ids = {claim.id for claim in claims.ledger().values() if claim.chapter == chapter}
    needing = {name for name in ids if claims.ledger()[name].needs}
    assert needing == SECTIONS[chapter]
    claims.check_ids(chapter, sorted(ids))
    claims.check_ids(chapter, sorted(ids - needing))
    whole, paper = (parameters(chapter, preset).model_dump() for preset in ("imagenet", "paper"))
    for claim in (claims.ledger()[name] for name in needing):
        assert claim.setting(whole) == "paper" and claim.setting(paper) == "below"
        assert claim.setting(whole | {"imagenet_length": 0.3}) == "smaller"


def pictures(folder: Path) -> Path:
    """Twenty images of two classes for training, ten for the test."""
    random = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 5)):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("chapter", SECTIONS)
def test_the_sections_run_on_a_tiny_image_folder(chapter, given, tmp_path, monkeypatch):
    """The cells of the section and those above that it needs, under smoke; and without images."""
    monkeypatch.setattr(matplotlib, "use", lambda *_: None)
    for name, value in {"LTH_OUT": tmp_path / "out", "LTH_DEVICE": "cpu", "XDG_CACHE_HOME": tmp_path / "cache"}.items():
        monkeypatch.setenv(name, str(value))
    chosen = {"imagenet": str(pictures(tmp_path / "pets"))} if given else {}
    space = parameters(chapter, "smoke", chosen).model_dump()
    cells = json.loads((ROOT / CHAPTERS[chapter]).read_text(encoding="utf-8"))["cells"]
    wanted = ("import ", "from ", "chapter = ")
    last = max(i for i, cell in enumerate(cells) if cell["id"].startswith("large"))
    for cell in cells[: last + 1]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and (cell["id"].startswith("large") or source.startswith(wanted)):
            exec(compile(source, cell["id"], "exec"), space)  # noqa: S102 - the notebook's own
    if given:
        assert space["large_samples"].keys() == SECTIONS[chapter]
        assert all(np.isfinite(sample).all() and len(sample) == 2 for sample in space["large_samples"].values())
    else:
        assert space["large_samples"] == {}
    tables = {file.stem: pd.read_csv(file) for file in (tmp_path / "out" / "data").glob("large*.csv")}
    assert len(tables) == 2 and (tables["large_cost"].days > 0).all()


def test_samples_of_the_claims_are_network_by_network():
    """ResNet-50's small dense networks are to lie in between, and its SET: the smaller step counts."""
    accuracy = {
        ("Scratch", "original"): [0.60, 0.61],
        ("Scratch", "sparsity-aware"): [0.62, 0.65],
        ("SET", "sparsity-aware"): [0.63, 0.66],
        ("RigL", "sparsity-aware"): [0.66, 0.67],
        ("ticket", "ticket"): [0.63, 0.60],
        ("Small dense", "dense"): [0.64, 0.66],
    }
    rows = [(*cell, seed, x) for cell, both in accuracy.items() for seed, x in enumerate(both)]
    table = pd.DataFrame(rows, columns=["method", "init", "seed", "accuracy"])
    found = {name: sample.round(6).tolist() for name, sample in large.samples({"E3": table, "E4": table}).items()}
    assert found == {
        "E3.scratch": [2, 4], "E3.rigl": [4, 2], "E3.lottery": [3, -1], "E3.small": [2, 1],
        "E4.scratch": [2, 4], "E4.rigl": [4, 2], "E4.lottery": [1, -5], "E4.small": [2, 1], "E4.set": [1, 1],
    }  # fmt: skip
    assert large.samples({}) == {}
