"""The page "Make it yours": its snippets run one after the other, and what they make is what the page says."""

from __future__ import annotations

import ast
import re
import sys
import types

import pytest
import torch

from lth import models
from lth.book import cli
from lth.files import ROOT
from lth.methods import prune
from lth.models import ARCHITECTURES
from lth.store import tickets

PAGE = (ROOT / "book" / "yours.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """What the snippets define, run in an empty folder with a store of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("yours"))
        patch.setenv("LTH_STORE", str(tmp_path_factory.mktemp("store")))
        torch.set_num_threads(1)
        page = types.ModuleType("yours")
        patch.setitem(sys.modules, "yours", page)
        for snippet in SNIPPETS:
            exec(compile(snippet, "book/yours.md", "exec", dont_inherit=True), vars(page))
        yield vars(page)
    ARCHITECTURES.pop("small")
    for remembered in (models._template, models._outputs, models._shapes):
        remembered.cache_clear()


def test_it_learns_to_tell_the_pictures_apart(space):
    assert space["mine"].shape == (1, 12, 12) and space["mine"].names == ("noise", "stripes")
    assert space["run"].final.evaluate(space["mine"].test).accuracy.min() > 0.9


def test_the_score_keeps_what_moved_most(space):
    ticket, control = space["starts"]
    assert ticket.sparsity().tolist() == pytest.approx([0.8] * 3, abs=1e-3)
    assert torch.equal(ticket.weights_left(), control.weights_left())
    moved, kept = (torch.cat([space[of][n].flatten(1) for n in space["masks"]], 1) for of in ("moved", "masks"))
    assert (moved.masked_fill(~kept, torch.inf).amin(1) >= moved.masked_fill(kept, 0).amax(1)).all()
    assert set(space["tickets"].final.frame.method) == {"moved most", "at random"}


def test_the_rule_prunes_a_tenth_four_times_and_the_probe_sees_it(space):
    history = space["gradual"].history
    left = history[history.seed == 0].set_index("step").left
    whole = left[0]
    assert left[60] == pytest.approx(whole * 0.9**4, abs=3) and left.is_monotonic_decreasing
    final = space["gradual"].final
    lengths = history[history.step == 60].length.to_numpy()
    assert lengths == pytest.approx(final.theta().norm(dim=1).numpy())


def test_scores_take_two_lines_and_rules_six():
    (score,) = [snippet for snippet in SNIPPETS if "moved = " in snippet]
    (rule,) = [snippet for snippet in SNIPPETS if "class Tenth" in snippet]
    assert len(score.splitlines()) == 2 and len(rule[rule.index("@") :].splitlines()) == 6


def test_the_ticket_is_the_same_network_in_plain_pytorch(space):
    images = space["mine"].test.images / 255
    ticket = space["ticket"]
    with torch.no_grad():
        assert torch.allclose(space["net"].eval()(images), ticket.logits(space["mine"].test)[0], atol=1e-5)
    train = space["mine"].train
    space["net"].train()
    losses = [space["step"](train.images / 255, train.labels) for _ in range(20)]
    assert losses[-1] < losses[0] / 2
    for name, mask in space["parts"]["masks"].items():
        weight = space["net"].get_parameter(name)
        assert not weight[~mask].any() and weight[mask].any()
    assert space["card"]["weights_left"] == ticket.weights_left().item()


def test_no_line_of_code_is_cut_on_a_desk():
    assert max(map(len, "".join(SNIPPETS + COMMANDS).splitlines())) <= 84


def test_who_gets_a_ticket_needs_nothing_of_lth():
    """The snippets after the sentence that says so, and the class of the network."""
    after = PAGE[PAGE.index("nothing of `lth`") :]
    for snippet in re.findall(r"```python\n(.*?)```", after, re.DOTALL):
        imported = [node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert "lth" not in {(getattr(n, "module", None) or n.names[0].name).partition(".")[0] for n in imported}


def test_the_command_exports_from_the_store(space, monkeypatch, capsys):
    store, run = space["store"], space["run"]
    (line,) = COMMANDS
    key = next(iter(store.meta(space["dense"][[1]], space["mine"], space["recipe"], keep=[0, 10])))
    monkeypatch.setattr(sys, "argv", line.replace("KEY", key).split())
    monkeypatch.setenv("LTH_STORE", str(store.root))
    cli.cli(standalone_mode=False)
    assert "0.000" in capsys.readouterr().out  # a dense network has sparsity 0
    loaded, card = tickets.load("early.safetensors")
    assert torch.equal(loaded.theta(), run.at(10)[[1]].theta()) and card["step"] == 10
    assert torch.equal(prune.rewind(run.final, run.at(10)).theta()[1], loaded.theta()[0])


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (lambda: torch.nn.LayerNorm(12), "weights in a LayerNorm"),
        (lambda: torch.nn.Unflatten(1, (1, 1)), "cannot hold two networks side by side"),
    ],
)
def test_what_does_not_stack_is_refused_in_one_line(space, layer, says):
    def build(shape, classes):
        return torch.nn.Sequential(layer(), torch.nn.Flatten(), torch.nn.Linear(144, classes))

    models.register("odd", build)
    try:
        with pytest.raises(Exception, match=says) as refusal:
            models.Model("odd", (1, 12, 12), 2).build()
        assert "\n" not in str(refusal.value)
    finally:
        ARCHITECTURES.pop("odd")
