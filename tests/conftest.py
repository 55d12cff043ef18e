"""Small data and small populations that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

# One thread for each test, as many tests side by side as there are cores (`make test`): threads of tiny operations wait
# for one another, on a busy machine for minutes. To be set before numpy and torch are loaded; programs that tests start
# inherit it.
for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ[f"{library}_NUM_THREADS"] = "1"

import pytest
import torch

from lth.data import Data, Split, home
from lth.methods.init import glorot_uniform
from lth.models import Model
from lth.population import Population


def toy_data(examples: int = 300, shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10) -> Data:
    """Random images with labels that a network can learn: the brightest of `classes` stripes."""
    generator = torch.Generator().manual_seed(7)
    images = torch.randint(0, 120, (examples, *shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (examples,), generator=generator)
    height = shape[1] // classes
    for image, label in zip(images, labels, strict=True):
        image[:, label * height : (label + 1) * height] += 120
    train, test = Split(images[100:], labels[100:]), Split(images[:100], labels[:100])
    return Data("toy", train, test, classes, fingerprint="toy")


@pytest.fixture(scope="session")
def toy() -> Data:
    return toy_data()


@pytest.fixture
def lenets() -> Population:
    """Three dense LeNet5 with seeds 0, 1, 2."""
    return glorot_uniform(Model("lenet5"), seeds=range(3), method="dense")


def has_mnist() -> bool:
    """Whether the true MNIST lies under LTH_DATA."""
    return any((home() / part).exists() for part in ("mnist.safetensors", "MNIST/raw"))


def double(population: Population) -> Population:
    """The population in float64."""
    wide = population.with_theta(population.theta().double())
    return replace(wide, buffers={n: b.double() for n, b in wide.buffers.items()})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest tests are left to `LTH_THOROUGH=1`; those of minutes begin first: no core waits for the last."""
    longest = "test_every_chapter_runs", "test_interrupted_runs_go_on"
    items.sort(key=lambda item: not item.name.startswith(longest))
    if "LTH_THOROUGH" not in os.environ:
        for item in items:
            if item.get_closest_marker("thorough"):
                item.add_marker(pytest.mark.skip("takes long: LTH_THOROUGH=1 runs it too, and .ci/run"))


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests of what several threads do together are marked `threads`."""
    torch.set_num_threads(2 if request.node.get_closest_marker("threads") else 1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's store."""
    monkeypatch.setenv("LTH_STORE", str(tmp_path_factory.mktemp("store")))
