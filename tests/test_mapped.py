"""Images in a mapped file: those that torchvision makes of the folder, whole or not at all, refused in one line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from lth import data
from lth.data import mapped
from lth.errors import LthError, UsageError

SIDE = 16


def picture(number: int, size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Noise, another one for each number."""
    shape = size[::-1] if mode == "L" else (*size[::-1], 3)
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8), mode)


def write(root: Path, train: int = 5, test: int = 3) -> Path:
    """Images of several sizes and kinds, in two classes."""
    kinds = [((40, 20), "RGB", "png"), ((18, 27), "L", "png"), ((20, 20), "RGB", "jpg")]
    for c, label in enumerate(("cat", "dog")):
        for split, count in (("train", train), ("val", test)):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                size, mode, ending = kinds[i % 3]
                picture(100 * c + i, size, mode).save(root / split / label / f"{i}.{ending}")
    return root


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images; data sets are kept beside it. One process decodes, block by block of four."""
    monkeypatch.setenv("LTH_DATA", str(tmp_path / "home"))
    monkeypatch.setattr(mapped, "BLOCK", 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    return write(tmp_path / "pets")


def expected(folder: Path, split: str) -> torch.Tensor:
    """Scaled, then the square in the middle: torchvision's transforms on Pillow's images."""
    transform = v2.Compose([v2.Resize(SIDE), v2.CenterCrop(SIDE), v2.PILToTensor()])
    found = []
    for file in sorted((folder / split).rglob("*.*")):
        with Image.open(file) as image:
            found.append(transform(image.convert("RGB")))
    return torch.stack(found)


def test_the_file_holds_what_torchvision_makes_of_the_folder(pets):
    told: list[str] = []
    path = mapped.decode("animals", pets, SIDE, told.append)
    found = data.load("animals")
    for split, folder in ((found.train, "train"), (found.test, "val")):
        apart = (split.images.int() - expected(pets, folder).int()).abs()
        assert apart.max() <= 1 and split.on_disk  # a rounding
        assert split.labels.tolist() == [0] * (len(split) // 2) + [1] * (len(split) // 2)
    assert found.names == ("cat", "dog") and found.classes == 2 and found.name == "animals"
    assert told[0].startswith("10 training and 6 test images: 0.00 GiB in ") and told[-1] == "100 %"
    assert [file.name for file in path.parent.iterdir()] == ["animals.map.safetensors"]


def test_networks_see_the_middle_standardised(pets):
    mapped.decode("animals", pets, SIDE)
    found = data.load("animals")
    assert found.shape == (3, 14, 14)
    whole = found.train.images / 255
    mean, std = whole.mean((0, 2, 3)).view(3, 1, 1), whole.std((0, 2, 3), correction=0).view(3, 1, 1)
    index = torch.tensor([[3, 0], [9, 9]])
    truth = v2.CenterCrop(14)((whole - mean) / std)[index]
    assert torch.allclose(found.train.pixels(index), truth, atol=1e-5)
    assert torch.allclose(found.train.take([3, 9]).pixels(torch.tensor([0])), truth[0, :1], atol=1e-5)
    assert not found.train.take([3]).on_disk and found.standardised() is found


def test_the_fingerprint_is_that_of_the_same_images_in_memory(pets):
    mapped.decode("animals", pets, SIDE)
    found = data.load("animals")
    own = [replace(split, images=split.images.clone(), on_disk=False) for split in (found.train, found.test)]
    assert found.fingerprint == data.fingerprint(*own)
    without = [replace(split, seen=0) for split in own]
    assert data.fingerprint(*without) == replace(found, train=without[0], test=without[1]).standardised().fingerprint
    assert found.fingerprint != data.fingerprint(*without)


def test_what_was_stopped_goes_on(pets, monkeypatch):
    written, write = [], mapped._write

    def stopped(*block: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(block[1])
        write(*block)

    monkeypatch.setattr(mapped, "_write", stopped)
    with pytest.raises(KeyboardInterrupt):
        mapped.decode("animals", pets, SIDE)
    with pytest.raises(UsageError, match="unknown data set 'animals'"):
        data.load("animals")
    monkeypatch.setattr(mapped, "_write", lambda *block: (written.append(block[1]), write(*block)))
    path = mapped.decode("animals", pets, SIDE)
    assert len(written) == len(set(written)) == 5  # 10 and 6 images, four to a block
    mapped.verify(path)
    mapped.decode("animals", pets, SIDE)
    assert len(written) == 5  # it is there


def test_an_image_that_cannot_be_read_leaves_no_file(pets):
    (pets / "val" / "dog" / "1.png").write_bytes(b"no image")
    with pytest.raises(LthError, match="val/dog/1.png in .* is not a readable image") as error:
        mapped.decode("animals", pets, SIDE)
    assert "\n" not in str(error.value)
    picture(7, (20, 20)).save(pets / "val" / "dog" / "1.png")
    path = mapped.decode("animals", pets, SIDE)
    assert [file.name for file in path.parent.iterdir()] == ["animals.map.safetensors"]  # what was begun before is gone


def swap(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(at, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


BROKEN = "animals.map.safetensors is damaged .*--from"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut short": (lambda path: os.truncate(path, path.stat().st_size - 1), BROKEN),
    "empty": (lambda path: os.truncate(path, 0), BROKEN),
    "other file": (lambda path: path.write_bytes(b"images"), BROKEN),
    "another data set": (lambda path: path.rename(path.with_name("plants.map.safetensors")), "the data set animals"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_not_what_its_name_says_is_refused(damage, pets):
    path = mapped.decode("animals", pets, SIDE)
    harm, told = DAMAGE[damage]
    harm(path)
    name = next(path.parent.iterdir()).name.partition(".")[0]
    for ask in (data.load, data.available):
        with pytest.raises(LthError, match=told) as error:
            ask(name)
        assert "\n" not in str(error.value)


def test_a_byte_that_changed_is_found_when_all_is_read(pets):
    path = mapped.decode("animals", pets, SIDE)
    swap(path, -100)
    with pytest.raises(LthError, match="its content is not what was written"):
        mapped.verify(path)


def test_a_name_means_one_set_of_images(pets, tmp_path):
    mapped.decode("animals", pets, SIDE)
    with pytest.raises(UsageError, match="has other images, or another --side"):
        mapped.decode("animals", pets, 2 * SIDE)
    with pytest.raises(UsageError, match="has other images, or another --side"):
        mapped.decode("animals", write(tmp_path / "more", train=6), SIDE)
    shutil.copytree(pets, tmp_path / "home" / "animals")
    assert data.load("animals").train.on_disk  # not the folder


def test_what_cannot_be_is_told_before_any_work(pets, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no such folder"):
        mapped.decode("animals", tmp_path / "nowhere", SIDE)
    with pytest.raises(UsageError, match="from 8 to 4096"):
        mapped.decode("animals", pets, 2)
    with pytest.raises(LthError, match="are needed: point LTH_DATA to another disk"):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 100))
        mapped.decode("animals", pets, SIDE)


def test_nothing_of_it_is_put_aside_in_memory(pets):
    mapped.decode("animals", pets, SIDE)
    with pytest.raises(UsageError, match="nothing of it can be put aside"):
        data.load("animals").hold_out(0.5)


def test_one_process_at_a_time(pets):
    noted = mapped.writable(mapped.home()) / ".animals.noted"
    with mapped._alone(noted), pytest.raises(UsageError, match="another process is making"), mapped._alone(noted):
        pass


@pytest.mark.thorough
def test_several_processes_and_one_killed(tmp_path, monkeypatch):
    """`lth data` is killed in the middle; the same command ends with the file that one process alone makes."""
    folder = write(tmp_path / "pets", train=700, test=100)
    environment = os.environ | {"LTH_DATA": str(tmp_path / "killed")}
    command = [sys.executable, "-m", "lth", "data", "animals", "--from", str(folder), "--side", "64"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as first:
        while "%" not in first.stdout.readline().decode():
            assert first.poll() is None
        os.killpg(first.pid, signal.SIGKILL)
    assert list((tmp_path / "killed").glob("*.safetensors")) == []
    done = subprocess.run(command, capture_output=True, env=environment, check=True, encoding="utf-8")
    monkeypatch.setenv("LTH_DATA", str(tmp_path / "whole"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
    mapped.decode("animals", folder, 64)
    assert f"fingerprint {data.load('animals').fingerprint[:16]}" in done.stdout
