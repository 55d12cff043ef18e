"""What measures goes on with smaller pieces where a GPU's memory is short, and finds the same."""

from __future__ import annotations

import warnings

import pytest
import torch
from conftest import toy_data
from pretend_gpu import pretend_gpu

from lth import memory
from lth.analysis import hessian
from lth.data import Split
from lth.errors import LthError
from lth.gradients import mean_gradients
from lth.methods import init, scores, tweaks
from lth.models import Model
from lth.population import Population

MEASURES = {
    "logits": lambda p, data: p.logits(data.test),
    "evaluation": lambda p, data: torch.tensor(p.evaluate(data.test).loss),
    "gradients": lambda p, data: torch.cat([g.flatten(1) for g in mean_gradients(p, data.test)[0].values()], 1),
    "GraSP": lambda p, data: torch.cat([s.flatten(1) for s in scores.grasp(p, data.test).values()], 1),
    "GradInit": lambda p, data: torch.stack([*tweaks.GradInit(iterations=2, batch_size=8)(p, data.train).values()]),
    "hvp": lambda p, data: hessian.hvp(p, data.test, torch.ones_like(p.theta())),
    "Lanczos": lambda p, data: hessian.lanczos(p, data.test, 3).values[0],
    "top": lambda p, data: hessian.top(p, data.test, 1, steps=3, tolerance=9.0).values,
    "exact Hessian": lambda p, data: next(hessian.exact(p, data.test)),
}


def images_and_replicas(most: int, population: Population, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The device holds no more than `most` images, times replicas, at a time. Returns what it was asked for."""
    asked, pixels, take, together = [], Split.pixels, Population.__getitem__, [len(population)]

    def some(self: Population, rows: object) -> Population:
        found = take(self, rows)
        together[0] = len(found)
        return found

    def load(self: Split, index: torch.Tensor) -> torch.Tensor:
        asked.append(len(index) * together[0])
        if asked[-1] > most:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return pixels(self, index)

    monkeypatch.setattr(Population, "__getitem__", some)
    monkeypatch.setattr(Split, "pixels", load)
    return asked


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.thorough) if n == "exact Hessian" else n for n in MEASURES]
)
def test_measures_take_smaller_pieces_where_memory_is_short(name, monkeypatch):
    model = Model("lenet5", (1, 16, 16), widths=(2, 3, 5, 4))
    population, data = init.kaiming_normal(model, range(4), method="dense"), toy_data(140, (1, 16, 16))
    if name == "exact Hessian":
        population = population[[0]]
    monkeypatch.setattr(memory.gc, "collect", lambda: 0)  # takes long
    monkeypatch.setattr("lth.population.TOGETHER", 2**18)  # a small GPU
    for budget in ("PRODUCT", "KEPT", "ENTRIES"):
        monkeypatch.setattr(hessian, budget, {"cuda": 2**18})
    with pretend_gpu():
        population, data = population.to("cuda"), data.to("cuda")
        data = type(data)(data.name, data.train, Split(data.test.images[:20], data.test.labels[:20]), 10, "toy")
        expected = MEASURES[name](population, data).cpu()
        asked = images_and_replicas(20 if len(population) > 1 else 5, population, monkeypatch)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = MEASURES[name](population, data).cpu()
        assert max(asked) > asked[-1]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_where_not_even_the_smallest_pieces_fit_it_is_said(monkeypatch):
    monkeypatch.setattr(memory.gc, "collect", lambda: 0)
    population = init.kaiming_normal(Model("lenet5", (1, 16, 16)), [0], method="dense")
    images_and_replicas(0, population, monkeypatch)
    with pytest.raises(LthError, match="the GPU's memory is too small or too full for Population.logits"):
        population.evaluate(toy_data(140, (1, 16, 16)).test)


def test_other_errors_are_not_taken_for_short_memory():
    for error in (ValueError("out of memory"), RuntimeError("an illegal memory access"), KeyboardInterrupt()):
        assert not memory.is_short(error)
        calls = []

        @memory.in_less_room
        def fail(error: BaseException = error, calls: list = calls) -> None:
            calls.append(memory.room(8))
            raise error

        with pytest.raises(type(error)):
            fail()
        assert calls == [8]
    assert memory.room(100) == 100
