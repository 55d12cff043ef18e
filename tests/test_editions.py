"""The published edition: whole, and its verdicts follow from the data published beside them."""

from __future__ import annotations

import io
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import stats

from lth.analysis import similarity, updates, weights
from lth.book import CHAPTERS, geometry, verdicts
from lth.book.claims import ledger
from lth.book.presets import parameters
from lth.book.rehearsal import rehearse
from lth.book.site import check
from lth.book.verdicts import PUBLISHED
from lth.files import ROOT
from lth.methods import imp, prune
from lth.population import Population, concat
from lth.store import archives as networks
from lth.store.archives import Archives, add, published, used
from lth.store.measures import Measures
from lth.store.runs import Store


def table(chapter: str, name: str) -> pd.DataFrame:
    """Data of the published edition; what was executed before a ticket had one name in all chapters has it, too."""
    return pd.read_csv(PUBLISHED / chapter / "data" / f"{name}.csv").replace({"method": networks.OLDER})


@pytest.mark.parametrize("chapter, notebook", CHAPTERS.items())
def test_every_chapter_is_published_whole(chapter, notebook):
    check(PUBLISHED, chapter, Path(notebook).name)
    stamp = json.loads((PUBLISHED / chapter / "provenance.json").read_text(encoding="utf-8"))
    assert "uncommitted" not in stamp["commit"]
    found = [finding["id"] for finding in json.loads((PUBLISHED / chapter / "claims.json").read_text(encoding="utf-8"))]
    if any(verdicts.findings(PUBLISHED)[claim_id].explored for claim_id in found if claim_id in ledger()):
        pytest.skip("the published edition is older than these claims")
    assert found == [claim.id for claim in ledger().values() if claim.chapter == chapter and not claim.needs]


def test_the_verdicts_of_the_basin_follow_from_its_tables():
    findings = verdicts.findings(PUBLISHED)
    if findings["E8.lt_barrier"].explored:
        pytest.skip("the published edition is older than these claims")
    learned = table("lt_basin", "distances").query("accuracy > 20")  # those that learned, of ten classes
    learned = learned.groupby(["method", "solution"])[["accuracy", "d_init", "d_final"]]
    ticket, scratch = (learned.mean().loc[method] for method in ("ticket", "Scratch (diff. init.)"))
    expected = {
        "E8.accuracy": ticket.accuracy - scratch.accuracy,
        "E8.d_init": scratch.d_init - ticket.d_init,
        "E8.d_final": scratch.d_final / ticket.d_final,
    }
    for claim_id, samples in expected.items():
        samples, finding = samples.dropna(), findings[claim_id]
        interval = stats.ttest_1samp(samples, 0).confidence_interval(0.95)
        assert finding.n == len(samples)
        assert [finding.value, finding.low, finding.high] == pytest.approx(
            [np.mean(samples), interval.low, interval.high]
        )
        least, _ = ledger()[claim_id].accept
        outcome = "confirmed" if interval.low > least else "contradicted" if interval.high <= least else "open"
        assert finding.outcome == outcome

    paths = table("lt_basin", "paths")
    lines = paths[(paths.method == "ticket") & (paths.path == "from the end") & paths.alpha.between(0, 1)]
    connected = []
    for _, line in lines.sort_values("alpha").groupby("solution"):
        chord = np.interp(line.alpha, [0, 1], [line.error.iloc[0], line.error.iloc[-1]])
        connected.append(100 * (line.error - chord).max() < 2)
    finding, told = findings["E8.lt_barrier"], stats.binomtest(sum(connected), len(connected)).proportion_ci(0.95)
    assert finding.n == len(connected) and finding.value == pytest.approx(100 * np.mean(connected))
    assert [finding.low, finding.high] == pytest.approx([100 * told.low, 100 * told.high])


def basin() -> dict[str, list[float]]:
    """How far tickets and scratch networks end from their pruning solution, from the networks alone."""
    own = {"model": "lenet5", "steps": verdicts.stamp(PUBLISHED / "lt_basin")["parameters"]["steps"]}
    solutions = published("lt_basin", method="Pruned (diff. init.)", **own)
    solutions = solutions[np.argsort(solutions.frame.solution)]
    order = {number: r for r, number in enumerate(solutions.frame.solution)}
    means, which = {}, ["seed", "init_seed"]
    told = table("lt_basin", "distances")
    # the first network of both kinds of scratch is the same, and travels under one name
    kinds = {"ticket": ["ticket"], "Scratch (diff. init.)": ["Scratch", "Scratch (diff. init.)"]}
    for method, names in kinds.items():
        here = told[told.method == method].set_index(which)
        ends = concat([published("lt_basin", method=name, **own) for name in names])
        ends = ends[pd.MultiIndex.from_frame(ends.frame[which]).isin(here.index)]
        assert len(ends) == len(here)
        here = here.loc[pd.MultiIndex.from_frame(ends.frame[which])]
        target = solutions[[order[number] for number in ends.frame.solution]]
        found = ends.frame.assign(d_final=similarity.l2_distances(ends, target).diagonal())
        assert found.d_final.to_numpy() == pytest.approx(here.d_final.to_numpy(), rel=1e-4)
        means[method] = found[here.accuracy.to_numpy() > 20].groupby("solution").d_final.mean()
    return {"E8.d_final": (means["Scratch (diff. init.)"] / means["ticket"]).dropna().tolist()}


def histories(chapter: str, sparsity: float, **labels: object) -> dict[str, pd.DataFrame]:
    """What was recorded in training the networks of an edition that have this sparsity and these labels, by run."""
    archives, found = Archives(networks.SHIPPED), {}
    for name in used(PUBLISHED / chapter):
        meta = json.loads(archives.read(f"{name}/meta.json")) if name.startswith("runs/") else {}
        if labels.items() <= meta.get("replica", {}).items():
            with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
                file.write(archives.read(f"{name}/final.safetensors"))
                file.flush()
                masks = list(Population.load(Path(file.name)).masks.values())
            left = sum(mask.sum().item() for mask in masks) / sum(mask.numel() for mask in masks)
            if meta["model"] == "lenet5" and round(1 - left, 2) == sparsity:
                history = pd.read_csv(io.BytesIO(archives.read(f"{name}/history.csv")))
                found[name] = history.assign(seed=meta["replica"]["seed"])
    return found


def initial_weights() -> dict[str, list[float]]:
    """By how many powers of ten the sparsity-aware weights raise the gradient flow before training, mask by mask."""
    flows = {}
    for kind in ("sparsity-aware", "original"):
        told = pd.concat(histories("gradient_flow", 0.95, method="Scratch", init=kind).values())
        flows[kind] = told[told.step == 0].set_index("seed").gradient_flow
    assert set(flows["original"].index) == set(flows["sparsity-aware"].index)
    return {"E6.start": np.log10(flows["sparsity-aware"] / flows["original"]).tolist()}


def mask_updates() -> dict[str, list[float]]:
    """What RigL's updates multiply the gradient's norm by in the first half of training: mean power of ten by mask."""
    every, steps = (verdicts.stamp(PUBLISHED / "dst_updates")["parameters"][name] for name in ("dst_every", "steps"))
    found = []
    for history in histories("dst_updates", 0.95, method="RigL", init="sparsity-aware").values():
        rows = updates.changes(history)
        if rows.step.min() == every:  # not one of those with more updates
            found.append(rows[rows.step <= steps / 2].powers.mean())
    return {"E7.rigl": found}


def small_weights() -> dict[str, list[float]]:
    """How many more weights (%) are small after weight rewinding than after fine-tuning, network by network."""
    told = verdicts.stamp(PUBLISHED / "lcs_geometry")["parameters"]

    def at(level: int, offset: int) -> Population:
        some = published("lcs_geometry", level=level)
        return some[((some.frame.seed - some.frame.init_seed) % 10_000 == offset).to_numpy()]

    solutions = [at(level, 0) for level in told["probed"]]
    projected = concat([prune.apply(some, prune.magnitude_masks(some, told["ratio"])) for some in solutions])
    outcomes = {
        "weight rewinding": concat([at(level + 1, 0).label(level=level) for level in told["probed"]]),
        "fine-tuning": concat([at(level, 700) for level in told["probed"]]),
    }
    found = weights.distribution(outcomes, projected, [1.0])
    return {"P6.ft": geometry.more_small(found, "weight rewinding", "fine-tuning").tolist()}


def raised_thresholds() -> dict[str, list[float]]:
    """How many times larger the threshold of tickets is than that of new weights, with SGD, network by network."""
    told = verdicts.stamp(PUBLISHED / "rti_repulsion")["parameters"]
    logs = {"ticket": [], "reinit": []}
    for level in (k for k in range(1, told["rounds"] + 1) if 2 <= 100 * (1 - told["ratio"]) ** k <= 30):
        both = published("rti_repulsion", level=level)
        first = both.frame.init_seed < 100_000  # the ladder's own weights; the others are new in every round
        for method, rows in (("ticket", first), ("reinit", ~first)):
            some = both[rows.to_numpy()]
            some = some[np.argsort(some.frame.network)]
            logs[method].append(np.log(imp.threshold(some, prune.magnitude_masks(some, told["ratio"])).numpy()))
    return {"M6.threshold": np.exp(np.mean(logs["ticket"], 0) - np.mean(logs["reinit"], 0)).tolist()}


def smoother_activation() -> dict[str, list[float]]:
    """How many points of accuracy Swish adds to sparse tickets, from what was recorded in training."""
    told, archives, found = verdicts.stamp(PUBLISHED / "tweaks")["parameters"], Archives(networks.SHIPPED), {}
    sparse = [level for level in told["levels"] if 100 * (1 - told["ratio"]) ** level <= 10]
    for name in used(PUBLISHED / "tweaks"):
        meta = json.loads(archives.read(f"{name}/meta.json")) if name.startswith("runs/") else {"recipe": {}}
        its = meta.get("replica", {})
        way = networks.OLDER.get(its.get("way"), its.get("way"))
        if way in ("ticket", "Swish") and its["level"] in sparse and "first_step" not in meta["recipe"]:
            history = pd.read_csv(io.BytesIO(archives.read(f"{name}/history.csv"))).dropna(subset="validation")
            best = history[history.validation == history.validation.max()].iloc[-1]
            assert (key := (way, its["level"], its["network"])) not in found
            found[key] = 100 * best.test
    means = pd.Series(found).groupby(level=[0, 2]).mean()
    return {"J1.swish_sparse": (means["Swish"] - means["ticket"]).tolist()}


# chapter → claim → its samples, from the networks that travel with the book
MEASURED_AGAIN = {
    "gradient_flow": initial_weights,
    "dst_updates": mask_updates,
    "lt_basin": basin,
    "rti_repulsion": raised_thresholds,
    "tweaks": smoother_activation,
    "lcs_geometry": small_weights,
}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_claim_comes_out_again_from_the_networks_that_travel(chapter):
    if not list(networks.SHIPPED.glob(f"{chapter}*.zip")):
        pytest.skip(f"no networks of {chapter} travel with the book yet")
    if not (PUBLISHED / chapter / "networks.json").exists():
        pytest.skip(f"the published edition of {chapter} is older than its networks")
    if chapter not in MEASURED_AGAIN:
        pytest.skip(f"no claim of {chapter} is measured again here yet")
    for claim_id, samples in MEASURED_AGAIN[chapter]().items():
        told = verdicts.findings(PUBLISHED)[claim_id]
        again = verdicts.judge(ledger()[claim_id], samples, verdicts.stamp(PUBLISHED / chapter)["parameters"])
        assert (again.n, again.outcome) == (told.n, told.outcome)
        assert [again.value, again.low, again.high] == pytest.approx([told.value, told.low, told.high], rel=1e-4)


# all networks that its edition used would be larger than all archives may be: what was measured travels, some ladders
PARTLY = {"rti_repulsion", "lcs_geometry"}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_all_that_an_edition_used_travels_or_nothing(chapter):
    """A chapter whose networks travel is executed again without training any."""
    if not list(networks.SHIPPED.glob(f"{chapter}*.zip")) or not (PUBLISHED / chapter / "networks.json").exists():
        pytest.skip(f"no networks of the published edition of {chapter} travel with the book yet")
    missing = set(used(PUBLISHED / chapter)) - set(Archives().files)
    assert not {name for name in missing if chapter not in PARTLY or name.startswith("measures/")}


@pytest.mark.thorough
@pytest.mark.parametrize("chapter", ["dst_updates"])  # which measures, and looks at kept steps
def test_a_chapter_from_its_archive_alone_is_the_same(chapter, tmp_path, monkeypatch):
    """Where nothing is but the archive nothing is trained, and tables and verdicts are the same to the bit."""
    notebook = json.loads((ROOT / CHAPTERS[chapter]).read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"][1:]
    values = parameters(chapter, "smoke").model_dump()

    def run(name: str, archives: Path) -> Path:
        monkeypatch.setenv("LTH_OUT", str(tmp_path / name))
        monkeypatch.setenv("LTH_STORE", str(tmp_path / f"store of {name}"))
        for kind in (Store, Measures):
            made = lambda root, kind=kind, on=None: kind(root, Archives(archives), on)  # noqa: E731
            monkeypatch.setattr(f"lth.book.chapter.{kind.__name__}", made)
        space = dict(values)
        for cell in cells:
            exec(cell, space)
        plt.close("all")
        return tmp_path / name

    first = run("first", tmp_path / "none")
    assert rehearse(chapter, values).there == {name for name in used(first) if name.startswith("runs/")}
    add(chapter, used(first), tmp_path / "store of first", tmp_path / "archives")
    monkeypatch.setattr("lth.store.runs.train", None)
    again = run("again", tmp_path / "archives")
    tables = sorted(path.name for path in (first / "data").iterdir())
    assert tables == sorted(path.name for path in (again / "data").iterdir()) and len(tables) > 2
    for name in tables:
        assert (again / "data" / name).read_bytes() == (first / "data" / name).read_bytes(), name
    for name in ("claims.json", "networks.json"):
        assert (again / name).read_text(encoding="utf-8") == (first / name).read_text(encoding="utf-8")


def test_the_note_counts_who_learns_without_weight_decay():
    """As `scripts/without_decay.py` found it, beside the same networks of the published edition."""
    told = pd.read_csv(ROOT / "book" / "editions" / "notes" / "without_decay.csv").set_index("seed")
    networks = pd.read_csv(PUBLISHED / "gradient_flow" / "data" / "accuracy.csv")
    networks = networks[(networks.method == "Scratch") & (networks.init == "original")].set_index("seed")
    assert told["with decay"].to_dict() == pytest.approx(networks.accuracy.to_dict(), abs=0.01)
    words = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight"]
    here, without = (words[(told[column] > 20).sum()] for column in ("with decay", "without"))
    note = (ROOT / "book" / "editions" / "notes" / "gradient_flow.md").read_text(encoding="utf-8")
    assert f"{without} of the {words[len(told)]} learn; with it, {here}." in note


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_note_points_at_what_the_published_chapter_shows(chapter):
    """Not at a figure or table that only the next edition has: the book would not build."""
    note = ROOT / "book" / "editions" / "notes" / f"{chapter}.md"
    labels = set(re.findall(r"\{numref\}`([\w-]+)`", note.read_text(encoding="utf-8"))) if note.exists() else set()
    shown = (PUBLISHED / chapter / Path(CHAPTERS[chapter]).name).read_text(encoding="utf-8")
    assert {label for label in labels if label not in shown} == set()
