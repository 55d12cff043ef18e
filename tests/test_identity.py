"""The name of a run: the same forever for lth's own, another whenever anything that decides a result is another."""

from __future__ import annotations

import copy
import enum
import importlib
import importlib.util
import json
import math
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import threading
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, is_dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import toy_data
from torch import nn
from torch.nn import functional as F

import lth
from lth import models
from lth.analysis.gradient_flow import GradientFlow
from lth.analysis.validation import Validation
from lth.data import Split
from lth.errors import UsageError
from lth.methods.dst import DST
from lth.methods.prune import Gradual
from lth.methods.repulsion import Repulsion
from lth.models import Model
from lth.population import Population
from lth.training import identity
from lth.training.batches import Batches
from lth.training.describe import describe, tensors_hash
from lth.training.identity import run_keys
from lth.training.plan import Plan, Probe
from lth.training.recipe import Recipe


def flat(model: Model | None = None, **columns: object) -> Population:
    """Two networks without a random number in them: weights −½ … ½ in the order of the tensor, every third gone."""
    of = (model or Model("lenet5")).shapes
    line = lambda shape: torch.arange(shape.numel()).reshape(shape).expand(2, *shape).clone()  # noqa: E731
    masks = {n: line(of.params[n]) % 3 > 0 for n in of.prunable}
    params = {n: line(shape) / shape.numel() - 0.5 for n, shape in of.params.items()}
    params = {n: p * masks[n] if n in masks else p for n, p in params.items()}
    buffers = {n: torch.ones(2, *shape) for n, shape in of.buffers.items()}
    return Population(model or Model("lenet5"), params, masks, buffers, pd.DataFrame({"seed": [0, 7], **columns}))


# --- lth's own ----------------------------------------------------------------------------------------------

FLOW = [Probe(100, GradientFlow(500), around_updates=True)]
HELD = [Probe(50, Validation(), at_start=False)]
EVCI = Recipe(steps=400, batch_size=32, lr=0.1, weight_decay=1e-4, decay="kernels_l2")
TWEAK = Recipe(steps=300, schedule="step", milestones=(150, 225), weight_decay=1e-4, augment=True, precision="bf16")
RESNET = Model("resnet20", (3, 32, 32), activation="swish", skips="conv")
PLACES = torch.arange(0, 44_190, 3).expand(2, -1)
REPULSION = Repulsion(torch.tensor([2.0, -1.0]), PLACES, (PLACES % 8 / 8)[:, None], torch.tensor([1, 1]))

# the kinds of runs of the chapters: a population, its recipe, and what else `train` is told
OWN = {
    "dense": (flat(), EVCI, {"probes": FLOW, "keep": [0, 99]}),
    "gradual": (flat(method="Pruned"), EVCI, {"updates": {"Pruned": Gradual(0.9, 100, 300, 10)}, "probes": FLOW}),
    "SET": (flat(method="SET"), EVCI, {"updates": {"SET": DST("random", 50, 400, 0.3, 500)}, "probes": FLOW}),
    "RigL": (flat(method="RigL"), EVCI, {"updates": {"RigL": DST("gradient", 50, 400)}, "probes": FLOW}),
    "inverted": (flat(method="inverted"), EVCI, {"updates": {"inverted": DST("least_gradient", 50, 400, 0.5)}}),
    "tweaks": (flat(RESNET, label_smoothing=[0.0, 0.3]), TWEAK, {"probes": HELD, "keep": [0, 10]}),
    "distilled": (flat(distill=[0.5, 0.0]), TWEAK, {"probes": HELD, "teacher": flat()}),
    "repelled": (flat(), Recipe(steps=200), {"penalty": REPULSION}),
    "rewound": (flat(level=3), Recipe(steps=200, first_step=20, optimizer="adam", lr=1e-3), {}),
}
KEYS = {
    "dense": ["d29652d840537821", "b46fb7f113d2abd5"],
    "gradual": ["411a59997620380d", "f73bce482c69f96b"],
    "SET": ["7b81bc998511c866", "23917e01ad66f494"],
    "RigL": ["cdcf5e09243d035e", "93d7c447064994cf"],
    "inverted": ["ecba1f2d277d1532", "3ce72838d4ef4c17"],
    "tweaks": ["0d8f5c76ddc76af2", "f58d860b985b3595"],
    "distilled": ["3fea12e6b113c6a9", "01b6dd5aa025e3c4"],
    "repelled": ["9bbb837fe3f6d70b", "77e26cd38408fd64"],
    "rewound": ["255067f20709f290", "51df7fd5415ac87a"],
}


@pytest.mark.parametrize("name", OWN)
def test_the_names_of_own_runs_are_the_same_forever(name, toy, monkeypatch):
    """Stored runs outlive versions of this code: a key that changes throws away every stored run."""
    monkeypatch.setattr(identity, "ENGINE", 1)
    population, recipe, kind = OWN[name]
    assert run_keys(population, Plan(toy, recipe, **kind)) == KEYS[name]
    monkeypatch.setattr(identity, "ENGINE", 99)
    assert not set(run_keys(population, Plan(toy, recipe, **kind))) & set(KEYS[name])


def test_no_two_classes_of_lth_share_a_name():
    """They are told by their name alone."""
    found = []
    for module in pkgutil.walk_packages(lth.__path__, "lth."):
        if module.name.rpartition(".")[2] != "__main__":
            for thing in vars(importlib.import_module(module.name)).values():
                if isinstance(thing, type) and is_dataclass(thing) and thing.__module__ == module.name:
                    found.append(thing.__name__)
    assert len(found) > 10 and sorted(found) == sorted(set(found))


# --- what is defined elsewhere ------------------------------------------------------------------------------

RULE = """
from __future__ import annotations
import functools
from dataclasses import dataclass, field
import numpy as np
import torch
import helpers
from helpers import scaled
from lth.methods import prune

SHARE, UNUSED = 0.8, 1
TABLE = {"fc1.weight": {0.5, 0.25, "a", "b"}}

def made(power):
    def inner(x):
        return x**power
    return inner

bent = made(2)

@functools.lru_cache
def remembered(x):
    return x * 3

@torch.no_grad()
def quiet(x):
    return x + 4

class Base:
    end = 30
    def due(self, step):
        return step == self.end

@dataclass(frozen=True)
class Rule(Base):
    \"\"\"Doc.\"\"\"
    level: float = 0.5
    scores: list = field(default_factory=lambda: [1, 2])
    key: object = lambda x: x + 5

    def __post_init__(self):
        object.__setattr__(self, "hidden", torch.arange(6))

    @property
    def half(self):
        return self.level / 7

    @staticmethod
    def still(x, by=8):
        return x * by

    @functools.cached_property
    def costly(self):
        return 9

    def masks(self, population, step, data):
        \"\"\"Doc.\"\"\"
        lowest = [x for x in TABLE if x is not None and len(x) > 10]
        try:
            weights = scaled(bent(SHARE)) + remembered(1) + quiet(2) + helpers.offset()
        except ValueError:
            weights = np.float64(11)
        return prune.masks_at_random(population, self.half * weights + self.still(1) + self.costly)
"""
HELPERS = """
OFFSET = 12
def scaled(x):
    return deeper(x) * 13
def deeper(x):
    return x - 14
def offset():
    return OFFSET
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Writes the two modules, each time to another folder, and gives the first."""

    def loaded(rule: str = RULE, helpers: str = HELPERS) -> ModuleType:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for name, text in (("helpers", helpers), ("rules", rule)):
            (folder / f"{name}.py").write_text(text, encoding="utf-8")
            spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)
            spec.loader.exec_module(module)
        return module

    return loaded


def told(module: ModuleType) -> str:
    return json.dumps(describe("the rule", module.Rule()), sort_keys=True)


EDITS = {
    "a constant": ("SHARE, UNUSED = 0.8", "SHARE, UNUSED = 0.3"),
    "a set in a constant": ('"b"}', '"c"}'),
    "a closure": ("made(2)", "made(3)"),
    "what a closure does": ("x**power", "x*power"),
    "behind a cache": ("x * 3", "x * 4"),
    "behind a decorator of torch": ("x + 4", "x + 5"),
    "the decorator": ("@torch.no_grad()", "@torch.enable_grad()"),
    "an attribute of a base class": ("end = 30", "end = 31"),
    "a method of a base class": ("step == self.end", "step >= self.end"),
    "a default of a field": ("level: float = 0.5", "level: float = 0.6"),
    "a factory of a field": ("[1, 2]", "[2, 1]"),
    "a function in a field": ("x + 5", "x + 6"),
    "an attribute that is no field": ("torch.arange(6)", "torch.arange(6) * 2"),
    "a property": ("level / 7", "level / 8"),
    "a static method": ("x * by", "x + by"),
    "a default of an argument": ("by=8", "by=9"),
    "a cached property": ("return 9", "return 10"),
    "a comprehension": ("> 10", "> 11"),
    "what is caught": ("ValueError", "TypeError"),
    "a constant inside": ("np.float64(11)", "np.float64(12)"),
    "a function of numpy": ("np.float64(11)", "np.float32(11)"),
    "a function of lth": ("prune.masks_at_random", "prune.magnitude_masks"),
    "the name": ("class Rule(Base)", "class Rule2(Base)"),
}
ELSEWHERE = {
    "a helper": ("* 13", "* 14"),
    "a helper's helper": ("x - 14", "x - 15"),
    "a helper's constant": ("OFFSET = 12", "OFFSET = 13"),
}
HARMLESS = {
    "comments": ("    def masks", "    # why\n    def masks"),
    "layout": ("self.still(1) + self.costly)", "self.still(1)\n            + self.costly\n        )"),
    "docstrings": ("Doc.", "Some other words."),
    "a docstring more": ("return self.level / 7", '"Half."\n        return self.level / 7'),
    "something unused": ("UNUSED = 0.8, 1", "UNUSED = 0.8, 2"),
    "lines above": ("SHARE, UNUSED", "\n\n\nSHARE, UNUSED"),
    "the order of methods": ("    end = 30\n", ""),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_rule_has_another_name(load, what):
    before, (old, new) = told(load()), EDITS[what]
    assert old in RULE
    module = load(RULE.replace(old, new))
    module.Rule = getattr(module, "Rule2", None) or module.Rule
    assert told(module) != before


@pytest.mark.parametrize("what", ELSEWHERE)
def test_an_edited_helper_gives_another_name(load, what):
    before, (old, new) = told(load()), ELSEWHERE[what]
    assert old in HELPERS and told(load(helpers=HELPERS.replace(old, new))) != before


@pytest.mark.parametrize("what", HARMLESS)
def test_what_does_not_decide_keeps_the_name(load, what):
    before, (old, new) = told(load()), HARMLESS[what]
    edited = RULE.replace(old, new)
    if not new:
        edited = edited.replace("== self.end\n", f"== self.end\n{old}")
    assert edited != RULE and told(load(edited)) == before
    rule = load().Rule()
    assert (rule.costly, rule.half) and json.dumps(describe("", rule), sort_keys=True) == before


def test_a_file_that_was_edited_after_its_import_does_not_mislead(load):
    module = load()
    before = told(module)
    Path(module.__file__).write_text(RULE.replace("0.8", "0.3"), encoding="utf-8")
    assert told(module) == before


SHELL = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from lth.training.describe import describe
shell = InteractiveShell.instance()
for cell in json.load(sys.stdin):
    shell.run_cell(cell).raise_error()
    print(json.dumps(describe("the rule", shell.user_ns["Rule"]()), sort_keys=True))
"""


@pytest.mark.thorough
def test_a_rule_in_a_notebook_has_the_name_it_has_in_a_file(load):
    """Whatever the order of sets in that process; run again as it was the same, and when it was edited another."""
    edited = RULE.replace("SHARE, UNUSED = 0.8", "SHARE, UNUSED = 0.3")
    file, other = told(load()), told(load(edited))
    folder = str(Path(sys.modules["helpers"].__file__).parent)
    told_there = []
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", SHELL],
            input=json.dumps([RULE, RULE, edited]),
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([folder, *sys.path])},
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        told_there.append([line for line in done.stdout.splitlines() if line.startswith("{")])
    assert told_there == [[file, file, other]] * 2 and file != other


def test_every_kind_of_value_is_told():
    class Colour(enum.Enum):
        RED, BLUE = 1, 2

    Pair = namedtuple("Pair", "a b")
    values = [
        *(None, True, 1, 1.5, "a", b"a", 1j, range(3), range(4), slice(1), {1: 2}, {"1": 2}, {1, 2}, {1, 3}),
        *(np.arange(3), np.arange(3.0), np.float32(1.25), torch.arange(3), torch.arange(3).bfloat16(), torch.float32),
        *(torch.device("cpu"), Path("a"), Pair(1, 2), Pair(2, 1), Colour.RED, Colour.BLUE, re.compile("a")),
        *(torch.relu, torch.sigmoid, np.add, np.mean, math.sin, len, "a".join, "b".join, flat(), Decimal("1.5")),
        *(pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 3]}), np.array(["a", None]), np.array(["b", None])),
        *(nn.Linear(1, 1, bias=False), nn.ReLU(), toy_data(), EVCI, TWEAK, DST, Gradual, F.relu, F.gelu),
        *(SimpleNamespace(a=1), SimpleNamespace(a=2), OrderedDict(a=1), partial(max, 1), partial(max, 2)),
        *(torch.no_grad()(flat), torch.no_grad()(told)),
    ]
    assert describe("it", torch) != describe("it", np)
    names = [json.dumps(describe("it", value), sort_keys=True) for value in values]
    twice = [name for name in names if names.count(name) > 1]
    assert not twice
    assert names == [json.dumps(describe("it", copy.deepcopy(value)), sort_keys=True) for value in values]


def test_two_equal_values_are_told_alike_whether_they_are_one_or_two():
    one, ring = [1, 2], []
    ring.append(ring)
    assert describe("it", [one, one]) == describe("it", [one, [1, 2]])
    assert describe("it", ring) == [{"told before": 0}]


def lock(population: Population, data: object) -> dict:
    return LOCK


def late(population: Population, data: object) -> dict:
    import test_losses

    return test_losses


def whole(population: Population, data: object) -> dict:
    return vars(importing)


LOCK, importing = threading.Lock(), sys.modules[__name__]


@dataclass(frozen=True)
class Held:
    """A rule that holds anything."""

    it: object

    def __call__(self, population: Population, data: object) -> dict:
        return {}


class Plain:
    """A rule that is no dataclass."""

    def due(self, step: int) -> bool:
        return False


@pytest.mark.parametrize(
    "kind, message",
    [
        ({"updates": {"a": Plain()}}, "the rule of 'a', Plain, is no dataclass: put @dataclass"),
        ({"updates": {"a": Held}}, "the rule of 'a' is the class Held itself: write Held"),
        ({"updates": {"a": Held(LOCK)}}, "the rule of 'a' → it is a lock, which cannot be looked into"),
        ({"updates": {"a": Held(i for i in [])}}, "is a generator, which cannot"),
        ({"updates": {"a": Held(importing)}}, "is test_identity, a module of your own: name what is used"),
        ({"probes": [Probe(10, lock)]}, "a probe → measure → LOCK is a lock"),
        ({"probes": [Probe(10, late)]}, "import test_losses is test_losses, imported inside a function"),
        ({"probes": [Probe(10, whole)]}, "importing is test_identity, a module"),
        ({"probes": [Probe(10, Held(Batches([0], 9, 3, False)))]}, "is a Batches, which changes from run to run"),
        ({"probes": [Probe(10, "loss")]}, "measures with a function or a dataclass that can be called, not 'loss'"),
        ({"probes": [Probe(10, Held)]}, "not <class"),
        ({"penalty": lambda params, masks: 0}, "the penalty, function, is no dataclass"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_what_cannot_be_told_is_refused_by_name(toy, kind, message):
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        run_keys(flat(method="a"), Plan(toy, EVCI, **kind))
    assert "\n" not in str(caught.value)


def test_own_rules_and_probes_may_read_the_labels(toy):
    """So that labels are part of the name; elsewhere they are not."""
    function = Probe(10, lambda population, data: {})
    for kind in ({"updates": {"a": Held(1)}}, {"probes": [Probe(10, Held(1))]}, {"probes": [function]}):
        one, other = (run_keys(flat(method="a", level=level), Plan(toy, EVCI, **kind)) for level in (1, 2))
        assert not set(one) & set(other)
    one, other = (run_keys(flat(method="b", level=level), Plan(toy, EVCI)) for level in (1, 2))
    assert one == other


@dataclass(frozen=True, eq=False)
class Darker(Split):
    """Images that are shown otherwise."""

    def scaled(self, images: torch.Tensor) -> torch.Tensor:
        return super().scaled(images) / 2


def test_images_that_are_shown_otherwise_are_other_data(toy):
    dark = replace(toy, train=Darker(toy.train.images, toy.train.labels))
    assert run_keys(flat(), Plan(dark, EVCI)) != run_keys(flat(), Plan(toy, EVCI))


NETWORK = """
from torch import nn

class Mine(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.conv = nn.Conv2d(shape[0], 4, 5)
        self.fc = nn.Linear(4 * (shape[1] - 4) * (shape[2] - 4), classes)

    def forward(self, x):
        return self.fc(self.conv(x).relu().flatten(1))
"""


def test_an_own_architecture_is_named_by_what_it_does(load, toy, monkeypatch):
    monkeypatch.setattr(models, "ARCHITECTURES", dict(models.ARCHITECTURES))
    keys = []
    for old, new in (("", ""), (".relu()", ".tanh()"), ("    def forward", "\n    def forward")):
        models.register("mine", load(NETWORK.replace(old, new)).Mine)
        own = flat(Model("mine"))
        keys.append([run_keys(own, Plan(toy, EVCI)), run_keys(flat(distill=1.0), Plan(toy, EVCI, teacher=own))])
    assert keys[0] == keys[2] and all(a != b for a, b in zip(keys[0], keys[1], strict=True))


def test_a_tensor_is_named_by_its_numbers_however_they_lie():
    """Among them a single one that was expanded, which torch takes for contiguous whatever its stride."""
    for plain in (torch.tensor([2.0]), torch.ones(3, 4), torch.arange(12.0).view(3, 4)):
        others = [plain.clone().t().contiguous().t(), torch.stack([plain, plain], -1)[..., 0]]
        others += [torch.tensor(2.0).expand(1).clone()] if plain.numel() == 1 else []
        assert {tensors_hash({"": other}) for other in others} == {tensors_hash({"": plain})}
