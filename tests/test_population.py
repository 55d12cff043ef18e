"""A population: what is selected, joined, evaluated and saved is what was put in."""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import double
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from lth import population as population_module
from lth import tensor_files
from lth.data import Split
from lth.errors import LthError, UsageError
from lth.methods import prune
from lth.methods.init import glorot_uniform
from lth.models import Model
from lth.population import Population, concat
from lth.tensor_files import load_tensors
from lth.training.identity import tensors_hash


@pytest.fixture
def mixed(lenets) -> Population:
    """Four LeNet5, two of them sparse, with a frame of words, whole numbers, decimals and truth values."""
    sparse = prune.apply(lenets[[0, 2]], prune.magnitude_masks_per_layer(lenets[[0, 2]], 0.9))
    both = concat([sparse.label(method="LT, α ≤ 1"), lenets[:2].label(method='say "dense"')])
    return both.label(lr=[0.1, 1 / 3, 5e-324, 1e300], level=[3, 1, 0, 2], matching=[True, False, True, False])


def same(a: Population, b: Population) -> bool:
    """Bit-equal tensors, equal frames."""
    pairs = [(a.params, b.params), (a.masks, b.masks), (a.buffers, b.buffers)]
    tensors = all(list(p) == list(q) and all(torch.equal(t, q[n]) for n, t in p.items()) for p, q in pairs)
    return tensors and a.model == b.model and a.frame.equals(b.frame)


# --- choosing and combining ---------------------------------------------------------------------------------


def test_rows_of_the_frame_choose_replicas(mixed):
    chosen = mixed[mixed.frame.method == 'say "dense"']
    assert len(chosen) == 2 and chosen.frame.lr.tolist() == [5e-324, 1e300]
    assert chosen.frame.index.tolist() == [0, 1]
    for name, stack in mixed.params.items():
        assert torch.equal(chosen.params[name], torch.stack([stack[2], stack[3]]))
    assert same(mixed[2:], chosen)
    assert same(mixed[[3, 2, 3]][[1, 0]], chosen)
    assert same(mixed[-2], mixed[[2]])
    assert same(mixed[(mixed.frame.level > 0) & mixed.frame.matching], mixed[0])


def test_a_selection_is_a_copy(mixed):
    before = mixed.theta().clone()
    mixed[:].params["fc1.weight"].zero_()
    assert torch.equal(mixed.theta(), before)


@pytest.mark.parametrize("rows", [[], slice(4, None), np.zeros(4, bool)], ids=["list", "slice", "booleans"])
def test_a_selection_without_replicas_is_refused(mixed, rows):
    with pytest.raises(UsageError, match="no replicas"):
        mixed[rows]


def test_joining_restores_what_was_taken_apart(mixed):
    assert same(concat([mixed[[r]] for r in range(4)]), mixed)
    assert same(concat([mixed]), mixed)
    with pytest.raises(UsageError, match="one architecture"):
        concat([mixed, glorot_uniform(Model("lenet_300_100"), seeds=[0])])


def test_repeating_goes_round(mixed):
    twice = mixed.repeat(2)
    assert same(twice, concat([mixed, mixed]))
    assert twice.frame.level.tolist() == [3, 1, 0, 2, 3, 1, 0, 2]


def test_labels_change_the_frame_alone(mixed):
    told = mixed.label(method="x", level=[4, 5, 6, 7])
    assert told.frame.method.tolist() == ["x"] * 4 and told.frame.level.tolist() == [4, 5, 6, 7]
    assert mixed.frame.level.tolist() == [3, 1, 0, 2]
    assert torch.equal(told.theta(), mixed.theta())


def test_theta_is_the_parameters_in_the_order_of_the_module(mixed):
    expected = [torch.cat([p.flatten() for p in mixed.module(r).parameters()]) for r in range(4)]
    assert torch.equal(mixed.theta(), torch.stack(expected).detach())
    assert mixed.theta().shape == (4, 44_426)


def test_theta_goes_round(mixed):
    other = torch.randn(4, 44_426, generator=torch.Generator().manual_seed(1))
    assert torch.equal(mixed.with_theta(other).theta(), other)
    assert same(mixed.with_theta(mixed.theta()), mixed)


def test_the_mask_of_theta_hides_the_pruned_weights_and_no_bias(mixed):
    mask = mixed.theta_mask()
    at = 0
    for name, parameter in mixed.module(0).named_parameters():
        part = mask[:, at : at + parameter.numel()]
        kept = mixed.masks[name].flatten(1) if name in mixed.masks else torch.ones_like(part)
        assert torch.equal(part, kept), name
        at += parameter.numel()
    assert at == mask.shape[1]
    kept = sum(max(1, round(p.numel() * 0.1)) for p in mixed.module(0).parameters() if p.ndim > 1)
    assert (~mask[0]).sum() == 44_190 - kept
    assert mixed.sparsity().tolist() == pytest.approx([1 - kept / 44_190] * 2 + [0, 0])


# --- computing ----------------------------------------------------------------------------------------------


def test_a_module_looks_at_the_stacked_tensors(mixed):
    module = mixed.module(2)
    with torch.no_grad():
        module.fc3.bias += 1
    assert torch.all(mixed.params["fc3.bias"][2] == 1)
    assert torch.all(mixed.params["fc3.bias"][1] == 0)


@pytest.mark.parametrize("architecture", ["lenet5", "lenet_300_100"])
def test_evaluation_equals_a_plain_loop_over_images(toy, architecture, monkeypatch):
    monkeypatch.setattr(population_module, "BATCH", {"cpu": 11})
    population = glorot_uniform(Model(architecture), seeds=range(3), method="dense")
    few = Split(toy.test.images[:25], toy.test.labels[:25])
    measured = population.evaluate(few, together=2)
    logits = population.logits(few)
    for r in range(3):
        module = population.module(r)
        loss, wrong = [], 0
        for i, (image, label) in enumerate(zip(few.images, few.labels, strict=True)):
            out = module(image[None].float() / 255)[0].detach()
            torch.testing.assert_close(logits[r, i], out, rtol=1e-4, atol=1e-5)
            probabilities = np.exp(out.double().numpy()) / np.exp(out.double().numpy()).sum()
            loss.append(-np.log(probabilities[label]))
            wrong += int(probabilities.argmax() != int(label))
        assert measured.loss[r] == pytest.approx(np.mean(loss), rel=1e-5)
        assert measured.error[r] == wrong / len(few)
        assert measured.accuracy[r] == pytest.approx(1 - wrong / len(few))
    assert measured[["seed", "method"]].equals(population.frame[["seed", "method"]])
    assert "loss" not in population.frame


def test_evaluation_leaves_the_network_as_it_is(lenets, toy):
    before = lenets.theta().clone()
    assert not lenets.logits(toy.test).requires_grad
    assert torch.equal(lenets.theta(), before)


# --- keeping ------------------------------------------------------------------------------------------------


def test_saved_and_loaded_is_bit_equal(mixed, tmp_path):
    odd = mixed.params["fc2.weight"].clone()
    odd[0, 0, :4] = torch.tensor([-0.0, float("inf"), float("nan"), 1e-45])
    mixed = replace(mixed, params=mixed.params | {"fc2.weight": odd})
    mixed.save(tmp_path / "run.safetensors")
    loaded = Population.load(tmp_path / "run.safetensors")
    assert loaded.theta().numpy().tobytes() == mixed.theta().numpy().tobytes()
    assert torch.equal(loaded.theta_mask(), mixed.theta_mask())
    pd.testing.assert_frame_equal(loaded.frame, mixed.frame, check_exact=True)
    assert loaded.model == mixed.model and loaded.device.type == "cpu"
    assert os.listdir(tmp_path) == ["run.safetensors"]


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_compact_form_is_bit_equal_and_small(seed, replicas, density, wide):
    """With NaN, infinities and zeros of either sign among the weights that are left."""
    generator = torch.Generator().manual_seed(seed)
    network = glorot_uniform(Model("resnet8", (1, 12, 12), 3), seeds=range(replicas))
    masks = {n: torch.rand(m.shape, generator=generator) < density for n, m in network.masks.items()}
    params = {n: p + torch.rand(p.shape, generator=generator) for n, p in network.params.items()}
    for name in list(params)[:3]:
        params[name].flatten()[:4] = torch.tensor([math.nan, math.inf, -0.0, 0.0])
    params |= {n: torch.where(mask, params[n], 0.0) for n, mask in masks.items()}
    network = replace(double(network) if wide else network, masks=masks, params=params)
    if wide:
        network = replace(network, params={n: p.double() for n, p in params.items()})
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder, "plain"), Path(folder, "small")
        network.save(plain)
        network.save(small, compact=True)
        found = Population.load(small)
        assert tensors_hash(found.params) == tensors_hash(network.params)
        assert tensors_hash(found.masks) == tensors_hash(network.masks)
        assert tensors_hash(found.buffers) == tensors_hash(network.buffers) and found.frame.equals(network.frame)
        if density == 0.02:
            assert small.stat().st_size < plain.stat().st_size / 8


def test_parameters_keep_the_order_of_the_module_when_loaded(mixed, tmp_path):
    mixed.save(tmp_path / "a")
    loaded = Population.load(tmp_path / "a")
    assert list(loaded.params) == [name for name, _ in mixed.model.build().named_parameters()]
    assert list(loaded.masks) == mixed.model.prunable
    shuffled = replace(mixed, params=dict(sorted(mixed.params.items(), reverse=True)))
    assert torch.equal(shuffled.theta(), mixed.theta())


def test_a_population_with_shared_memory_can_be_saved(mixed, tmp_path):
    one = mixed[[1]]
    line = one.with_theta(one.theta() * 0.5)
    line.save(tmp_path / "line")
    assert same(Population.load(tmp_path / "line"), line)


def test_others_can_read_the_file_with_safetensors_alone(mixed, tmp_path):
    mixed.save(tmp_path / "a")
    with safe_open(tmp_path / "a", "numpy") as file:
        header = json.loads(file.metadata()["lth"])
        weight, mask = file.get_tensor("params.fc1.weight"), file.get_tensor("masks.fc1.weight")
    assert header["model"] == {"name": "lenet5", "shape": [1, 28, 28], "classes": 10}
    assert header["frame"]["lr"] == [0.1, 1 / 3, 5e-324, 1e300]
    assert (weight == mixed.params["fc1.weight"].numpy()).all()
    assert (mask == mixed.masks["fc1.weight"].numpy()).all()


def test_moving_keeps_everything(mixed):
    moved = mixed.to("cpu").to(torch.device("cpu"))
    assert same(moved, mixed)
    assert mixed.to("meta").device.type == "meta" and mixed.device.type == "cpu"


def test_writing_that_fails_leaves_the_older_file(mixed, lenets, tmp_path, monkeypatch):
    path = tmp_path / "run"
    lenets.save(path)

    def full_disk(tensors: object, file: Path, metadata: object) -> None:
        Path(file).write_bytes(b"the first half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "save_file", full_disk)
    with pytest.raises(LthError, match=f"cannot write {path}.*No space left"):
        mixed.save(path)
    assert os.listdir(tmp_path) == ["run"]
    assert same(Population.load(path), lenets)


def test_a_folder_that_is_not_there_is_named(mixed, tmp_path):
    with pytest.raises(LthError, match="nowhere"):
        mixed.save(tmp_path / "nowhere" / "run")


def _save(path: Path, tensors: dict, header: object) -> None:
    save_file(tensors, path, {"lth": json.dumps(header)})


# how a file can be wrong: what is written at its path, given the tensors and the header of a good one
DAMAGE = {
    "missing": lambda path, tensors, header: path.unlink(),
    "empty": lambda path, tensors, header: path.write_bytes(b""),
    "text": lambda path, tensors, header: path.write_text("not a population", encoding="utf-8"),
    "half": lambda path, tensors, header: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "a folder": lambda path, tensors, header: (path.unlink(), path.mkdir()),
    "no header": lambda path, tensors, header: save_file(tensors, path),
    "header is not JSON": lambda path, tensors, header: save_file(tensors, path, {"lth": "{"}),
    "header is a list": lambda path, tensors, header: _save(path, tensors, [1, 2]),
    "no model": lambda path, tensors, header: _save(path, tensors, {"frame": header["frame"]}),
    "unknown model": lambda path, tensors, header: _save(path, tensors, header | {"model": {"name": "alexnet"}}),
    "odd shape": lambda path, tensors, header: _save(
        path, tensors, header | {"model": {"name": "lenet5", "shape": [28, 28]}}
    ),
    "ragged frame": lambda path, tensors, header: _save(path, tensors, header | {"frame": {"a": [1, 2], "b": [1]}}),
    "frame is a number": lambda path, tensors, header: _save(path, tensors, header | {"frame": 7}),
    "row missing": lambda path, tensors, header: _save(path, tensors, header | {"frame": {"seed": [1, 2, 3]}}),
    "tensor missing": lambda path, tensors, header: _save(path, dict(list(tensors.items())[1:]), header),
    "foreign tensor": lambda path, tensors, header: _save(path, tensors | {"params.fc9": torch.ones(4)}, header),
    "foreign group": lambda path, tensors, header: _save(path, tensors | {"weights": torch.ones(4)}, header),
    "wrong shape": lambda path, tensors, header: _save(path, tensors | {"params.fc1.bias": torch.ones(4)}, header),
}


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_or_foreign_file_is_named(mixed, tmp_path, how, compact):
    path = tmp_path / "run.safetensors"
    mixed.save(path, compact=compact)
    DAMAGE[how](path, *load_tensors(path))
    with pytest.raises(LthError, match=str(path)) as caught:
        Population.load(path)
    assert "\n" not in str(caught.value)


# --- what does not fit together -----------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_by_name(lenets):
    def without(kind: str, name: str) -> Population:
        return replace(lenets, **{kind: {n: t for n, t in getattr(lenets, kind).items() if n != name}})

    with pytest.raises(UsageError, match="params do not fit lenet5.*conv1.bias"):
        without("params", "conv1.bias")
    with pytest.raises(UsageError, match="masks do not fit lenet5.*fc2.weight"):
        without("masks", "fc2.weight")
    with pytest.raises(UsageError, match="buffers do not fit lenet5.*running_mean"):
        replace(lenets, buffers={"running_mean": torch.zeros(3, 6)})
    with pytest.raises(UsageError, match=r"fc3.bias has shape \(2, 10\), expected \(3, 10\)"):
        replace(lenets, params=lenets.params | {"fc3.bias": torch.zeros(2, 10)})
    with pytest.raises(UsageError, match=r"fc3.weight has shape \(3, 10\)"):
        replace(lenets, masks=lenets.masks | {"fc3.weight": torch.ones(3, 10, dtype=torch.bool)})
    with pytest.raises(UsageError, match=r"expected \(2, "):
        replace(lenets, frame=lenets.frame[:2])
    with pytest.raises(UsageError, match="at least one replica"):
        replace(lenets, frame=lenets.frame[:0])
