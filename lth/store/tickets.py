"""Tickets as files: weights to start from, the mask, and a card that says where they come from.

A ticket is a safetensors file that needs nothing of this library to be read:

    from safetensors import safe_open
    with safe_open("ticket.safetensors", "pt") as file:
        card = json.loads(file.metadata()["lth"])["card"]
        weights = {name: file.get_tensor(name) for name in file.keys()}

`params.NAME` and `buffers.NAME` are the entries of a PyTorch `state_dict`, `masks.NAME` is True where a weight of NAME
stays; each has the replica as its first axis, of which there is one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lth.errors import LthError, UsageError
from lth.population import Population
from lth.store.archives import FINAL
from lth.store.runs import Store
from lth.tensor_files import Tensors, load_tensors, save_tensors, unpacked
from lth.training.describe import tensors_hash

KINDS = ("params", "masks", "buffers")
KEY = re.compile("[0-9a-f]{16}")  # what a stored run is named


def save(path: Path, ticket: Population, **card: Any) -> None:
    """Writes one ticket, whole or not at all.

    card: whatever a reader should know, as JSON: `data`, `recipe`, `accuracy`, `source`. Sparsity and the weights that
          are left are added. Raises UsageError for more than one replica, or where a pruned weight is not zero.
    """
    if len(ticket) != 1:
        raise UsageError(f"a ticket is one network, not {len(ticket)}: choose it, as in population[[0]]")
    _write(path, {kind: dict(getattr(ticket, kind)) for kind in KINDS}, ticket.header, card)


def _write(path: Path, groups: dict[str, Tensors], header: dict[str, Any], card: dict[str, Any]) -> dict[str, Any]:
    """The file, from the tensors by kind and name; returns the whole card."""
    params, masks = groups["params"], groups["masks"]
    if revived := [name for name, mask in masks.items() if params[name].masked_fill(mask, 0).any()]:
        raise UsageError(f"{revived[0]} has weights outside its mask that are not zero: see lth.methods.prune.rewind")
    left = int(sum(mask.sum() for mask in masks.values()))
    total = sum(mask.numel() for mask in masks.values())
    counts = {"sparsity": 1 - left / total, "weights_left": left, "weights": total}
    card = {**card, **counts, "fingerprint": _fingerprint(groups)}
    tensors = {f"{kind}.{name}": groups[kind][name].contiguous().cpu() for kind in KINDS for name in groups[kind]}
    save_tensors(path, tensors, {**header, "compact": False, "card": card})
    return card


def export(store: Store, key: str, path: Path, step: int | None = None) -> dict[str, Any]:
    """Writes the network of a stored run as a ticket, and returns its card.

    step: of the kept steps the one whose weights the final mask is laid on; the final weights if None. Raises
    UsageError where there is no such run or step, LthError where the run is damaged.
    """
    if not KEY.fullmatch(key) or not store.holds(key, history_only=True):
        raise UsageError(f"no run {key} in {store.root}: see `lth store ls`")
    if path.suffix != ".safetensors" or not path.parent.is_dir():
        raise UsageError(f"{path}: name a file that ends with .safetensors, in a folder that is there")
    meta, folder = store.verify(key), store.root / "runs" / key
    if step is not None and not (folder / f"step_{step}.safetensors").is_file():
        kept = sorted(int(name[5:-12]) for name in meta["files"] if name.startswith("step_"))
        there = f"it has {', '.join(map(str, kept))}" if kept else "it has none between its start and its end"
        raise UsageError(
            f"run {key} has not kept step {step}: {there}. The start is not stored, for who trains has it: "
            "lth.store.tickets.save writes prune.rewind(run.final, run.at(0))[[0]]. A rewound ticket starts from a "
            "step of the run that it was pruned from: export that run, with --step"
        )
    if FINAL in meta.get("left out", ()):
        raise UsageError(f"run {key} came with the book without its weights: `lth store rm {key}`, then train it again")
    groups, header = unpacked(folder / FINAL)
    if step is not None:
        early, masks = unpacked(folder / f"step_{step}.safetensors")[0], groups["masks"]
        params = {n: p.masked_fill(~masks[n], 0) if n in masks else p for n, p in early["params"].items()}
        groups = {**early, "params": params, "masks": masks}
    if not all(weights.isfinite().all() for weights in groups["params"].values()):
        raise LthError(f"run {key} failed in training: its weights are no numbers")
    card = {name: meta[name] for name in ("data", "recipe", "replica", "torch")}
    card |= {"step": meta["recipe"]["steps"] if step is None else step, "source": f"run {key} of lth"}
    return _write(path, groups, header, card)


def _fingerprint(groups: dict[str, Tensors]) -> str:
    return tensors_hash({f"{kind}.{name}": tensor for kind in KINDS for name, tensor in groups[kind].items()})


def load(path: Path) -> tuple[Population, dict[str, Any]]:
    """A ticket and its card. Raises LthError, naming the file, where it is damaged or holds something else."""
    ticket = Population.load(path)
    card = load_tensors(path)[1].get("card")
    if card is None or len(ticket) != 1:
        raise LthError(f"{path} holds a population, but no ticket: it has no card")
    if card.get("fingerprint") != _fingerprint({kind: dict(getattr(ticket, kind)) for kind in KINDS}):
        raise LthError(f"{path} is damaged: its tensors are not those that its card was written for")
    return ticket, card
