"""What a chapter trains, counted from its settings, beside what its notebook did train."""

from __future__ import annotations

from collections import Counter

import pytest

from lth.book import CHAPTERS, cost, rehearsal
from lth.book.presets import parameters

# images of all networks in the store after `lth run CHAPTER --preset smoke`, by architecture
SEEN = {
    "gradient_flow": {"lenet5": 11_040, "lenet_300_100": 11_040},
    "dst_updates": {"lenet5": 8_160},
    "lt_basin": {"lenet5": 51_840},
    "tweaks": {"resnet8": 6_528},
    "rti_repulsion": {"lenet_300_100": 390_600},
}


def close(counted: Counter[str], seen: dict[str, int]) -> None:
    """Within a few per cent: epochs do not divide evenly into batches, and tiny networks may coincide."""
    assert counted.keys() == seen.keys()
    for model, images in seen.items():
        assert counted[model] == pytest.approx(images, rel=0.04)


@pytest.mark.parametrize("chapter", SEEN)
def test_images_are_those_of_the_notebook(chapter):
    close(cost.images(parameters(chapter, "smoke"), 1437), SEEN[chapter])


@pytest.mark.thorough
@pytest.mark.parametrize("chapter", ["gradient_flow", "dst_updates", "lt_basin"])
def test_a_rehearsal_counts_as_many(chapter):
    values, seen = parameters(chapter, "smoke"), Counter()
    for kind, steps in rehearsal.rehearse(chapter, values.model_dump()).steps.items():
        model, _, batch = kind.split()
        seen[model] += steps * int(batch)
    close(cost.images(values, 1437), seen)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_what_takes_longer_costs_more(chapter):
    values = parameters(chapter, "gpu")
    more = parameters(chapter, "gpu", {"seeds": values.seeds + 1})
    for model, images in cost.images(values, 50_000).items():
        assert 0 < images <= cost.images(more, 50_000)[model] < 1.5 * images


def test_other_architectures_are_counted_by_themselves():
    values = parameters("tweaks", "paper")
    counted = cost.images(values, 45_000)
    assert counted.keys() == {values.model, *values.others}
    assert all(counted[other] < counted[values.model] / 5 for other in values.others)
