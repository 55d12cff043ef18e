"""lth.data against independent truth: scikit-learn, Pillow, files written here byte by byte."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import urllib.response
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import has_mnist, toy_data
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torchvision import datasets

from lth import data
from lth.data import official
from lth.errors import LthError, UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty LTH_DATA and an empty cache beside it; no server answers."""

    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setenv("LTH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def same(a: data.Data, b: data.Data) -> bool:
    return all(
        torch.equal(getattr(x, field), getattr(y, field))
        for x, y in ((a.train, b.train), (a.test, b.test))
        for field in ("images", "labels")
    )


# digits


def test_digits_are_scikit_learns() -> None:
    digits, source = data.load("digits"), load_digits()
    assert digits.shape == (1, 28, 28) and digits.classes == 10
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    ours = torch.cat([digits.train.images, digits.test.images])[:, 0].double().numpy()
    labels = torch.cat([digits.train.labels, digits.test.labels]).numpy()
    # enlarged once more with plain matrices: pixel i of 28 lies at (i + 0.5) * 8 / 28 - 0.5 of 8
    at = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    weight = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(8)))
    truth = np.einsum("ia,nab,jb->nij", weight, source.images * 255 / 16, weight)
    order_ours = np.lexsort(ours.reshape(len(ours), -1).T)
    order_truth = np.lexsort(truth.round().reshape(len(truth), -1).T)
    # every image once, in either split, with its own label
    assert np.abs(ours[order_ours] - truth[order_truth]).max() <= 0.51
    assert (labels[order_ours] == source.target[order_truth]).all()


def test_digits_split_is_stratified_disjoint_and_always_the_same() -> None:
    digits, again = data.load("digits"), data.load("digits")
    assert same(digits, again) and digits.fingerprint == again.fingerprint
    counts = np.bincount(load_digits().target)
    tested = torch.bincount(digits.test.labels).numpy()
    assert (np.abs(tested - counts / 5) < 1).all()
    assert ((torch.bincount(digits.train.labels).numpy() + tested) == counts).all()
    train = {image.numpy().tobytes() for image in digits.train.images}
    assert not any(image.numpy().tobytes() in train for image in digits.test.images)


@pytest.mark.parametrize(
    ("grey", "fingerprint"),
    [
        (False, "b81a29cf673b4ce819fcdf54e95d35a2b5f7d4316d1cae6441e05d232830bf7e"),
        (True, "ab04b6d043376464047e6cb63b2be6ce547d84034d213efdc99e882824d1bfc4"),
    ],
)
def test_the_fingerprint_of_a_plain_folder_stays(folder: Path, grey: bool, fingerprint: str) -> None:
    write_images(folder / "pets")
    for path in (folder / "pets").rglob("*.png") if grey else ():
        with Image.open(path) as image:
            Image.fromarray(np.array(image)[..., 0]).save(path)
    assert data.load("pets").fingerprint == fingerprint


def test_the_fingerprint_of_digits_stays() -> None:
    digits = data.load("digits")  # stored runs and published editions are named by it
    assert digits.fingerprint == "c48bc44e1f6c3152b5eda6dd82a23118123af3cb0c24a421a7eab1a03e5fd39d"
    assert digits.names == tuple("0123456789")


def test_pixels_gathers_rows_of_any_index_shape() -> None:
    split = data.load("digits").test
    for index in (torch.tensor(3), torch.tensor([5, 5, 0]), torch.arange(12).view(3, 4)):
        pixels = split.pixels(index)
        assert pixels.shape == (*index.shape, 1, 28, 28) and pixels.dtype == torch.float32
        assert np.array_equal(pixels.numpy(), split.images.numpy()[index.numpy()] / np.float32(255))
    assert split.pixels(torch.arange(360)).min() == 0 and split.pixels(torch.arange(360)).max() == 1


def test_moving_to_a_device_moves_both_splits() -> None:
    digits = data.load("digits")
    moved = digits.to("meta")
    for split in (moved.train, moved.test):
        assert split.images.device.type == split.labels.device.type == "meta"
    assert moved.fingerprint == digits.fingerprint and moved.shape == digits.shape
    assert data.load("digits", device="meta").train.images.device.type == "meta"


# image folders


def write_images(root: Path, size: int = 6, test: str = "test") -> dict[str, np.ndarray]:
    """Two classes, three training images and one test image of each, as PNG; returns their pixels by path."""
    rng, pixels = np.random.default_rng(0), {}
    for split, count in (("train", 3), (test, 1)):
        for kind in ("cat", "dog"):
            for i in range(count):
                path = root / split / kind / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels[f"{split}/{kind}/{i}"] = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels[f"{split}/{kind}/{i}"]).save(path)
    return pixels


def pack(source: Path, archive: Path, mode: str, inside: str = "") -> None:
    """Packs in an order of no meaning, as archives have it."""
    files = [path for path in source.rglob("*") if path.is_file()]
    files.sort(key=lambda path: hashlib.md5(path.name.encode()).digest())
    with tarfile.open(archive, f"w{mode}") as tar:
        for path in files:
            tar.add(path, inside + path.relative_to(source).as_posix())


def test_image_folder_has_the_written_pixels_and_labels(folder: Path) -> None:
    pixels = write_images(folder / "pets")
    (folder / "pets" / "train" / "notes.txt").write_text("not an image", encoding="utf-8")
    pets = data.load("pets")
    assert pets.name == "pets" and pets.classes == 2 and pets.shape == (3, 6, 6) and pets.names == ("cat", "dog")
    assert pets.train.labels.tolist() == [0, 0, 0, 1, 1, 1] and pets.test.labels.tolist() == [0, 1]
    for split in ("train", "test"):
        truth = [image.transpose(2, 0, 1) for path, image in pixels.items() if path.startswith(split)]
        assert np.array_equal(getattr(pets, split).images.numpy(), np.stack(truth))


@pytest.mark.parametrize(("ending", "mode"), [(".tar", ""), (".tar.gz", ":gz"), (".tgz", ":gz"), (".tar.xz", ":xz")])
@pytest.mark.parametrize("inside", ["", "./", "pets/"])
def test_archives_equal_the_directory(folder: Path, ending: str, mode: str, inside: str) -> None:
    write_images(folder / "plain")
    pack(folder / "plain", folder / f"packed{ending}", mode, inside)
    before = sorted(folder.rglob("*"))
    plain, packed = data.load("plain"), data.load("packed")
    assert same(plain, packed) and plain.fingerprint == packed.fingerprint
    assert packed.name == "packed" == data.load(str(folder / f"packed{ending}")).name
    assert sorted(folder.rglob("*")) == before, "nothing is unpacked beside the archive"


def test_directory_one_deeper_and_val_for_test(folder: Path) -> None:
    write_images(folder / "plain")
    write_images(folder / "outer" / "inner", test="val")
    assert same(data.load("plain"), data.load("outer"))


def test_grey_images_have_one_channel_unless_some_are_coloured(folder: Path) -> None:
    write_images(folder / "pets")
    for path in (folder / "pets").rglob("*.png"):
        with Image.open(path) as image:
            image.convert("L").save(path)
    grey = data.load("pets")
    assert grey.shape == (1, 6, 6)
    colour = np.full((6, 6, 3), (9, 99, 199), dtype=np.uint8)
    Image.fromarray(colour).save(folder / "pets" / "train" / "dog" / "9.png")
    mixed = data.load("pets")
    assert mixed.shape == (3, 6, 6)
    assert torch.equal(mixed.train.images[:6], grey.train.images.expand(-1, 3, -1, -1))
    assert mixed.train.images[6, :, 0, 0].tolist() == [9, 99, 199]


def test_decoding_is_done_once_until_a_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(folder / "pets")
    first = data.load("pets")
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or real(*a, **k))
    (folder / "pets" / "train" / "cat" / ".DS_Store").touch()
    assert same(first, data.load("pets")) and not opened
    path = folder / "pets" / "train" / "cat" / "0.png"
    pixels = np.array(real(path))
    pixels[2, 3, 1] ^= 1
    Image.fromarray(pixels).save(path)
    os.utime(path, ns=(1, 1))
    second = data.load("pets")
    assert opened
    assert (second.train.images != first.train.images).sum() == 1
    assert second.fingerprint != first.fingerprint


def test_what_lies_behind_a_link_is_seen_to_change(folder: Path) -> None:
    write_images(folder / "pets")
    (folder / "pets" / "train" / "dog").rename(folder.parent / "dogs")
    (folder / "pets" / "train" / "dog").symlink_to(folder.parent / "dogs")
    assert len(data.load("pets").train) == 6
    Image.new("RGB", (6, 6)).save(folder.parent / "dogs" / "9.png")
    assert len(data.load("pets").train) == 7
    (folder / "pets" / "train" / "emu").mkdir()
    with pytest.raises(LthError, match="train/emu in .* holds no images"):
        data.available("pets")


def age(path: Path) -> None:
    """Rewrites a kept file as an earlier version would have written it."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        meta = {"classes": "2", "fingerprint": file.metadata()["fingerprint"]}
    save_file({name: 255 - tensor for name, tensor in tensors.items()}, path, meta)


@pytest.mark.parametrize("name", ["pets", "mnist"])
@pytest.mark.parametrize("first", [data.load, data.available])
def test_what_an_older_version_kept_is_written_anew(folder: Path, tiny: None, name: str, first) -> None:
    write_images(folder / "pets")
    write_mnist(folder / "MNIST" / "raw", packed=True)
    before = data.load(name)
    (kept,) = folder.parent.rglob("*.safetensors")
    age(kept)
    first(name)
    after = data.load(name)
    assert same(before, after) and (after.names, after.classes) == (before.names, before.classes)
    assert list(folder.parent.rglob("*.safetensors")) == [kept]


def test_what_is_noteworthy_is_told_when_decoded_and_whenever_asked(folder: Path) -> None:
    write_images(folder / "pets", test="val")
    (folder / "pets" / "test").mkdir()
    told = "pets: test/ has no folder of a training class: val/ is used for testing"
    for ask in (data.load, data.available):
        with pytest.warns(UserWarning, match=told):
            ask("pets")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load("pets")  # in the chapter, after `available`: no stray lines on a page


def test_fingerprint_sees_labels_and_shapes(folder: Path) -> None:
    write_images(folder / "a")
    write_images(folder / "b")
    (folder / "b" / "train" / "cat").rename(folder / "b" / "train" / "zebra")
    (folder / "b" / "test" / "cat").rename(folder / "b" / "test" / "zebra")
    assert data.load("a").fingerprint != data.load("b").fingerprint


def test_unequal_sizes_are_named(folder: Path) -> None:
    write_images(folder / "pets")
    Image.new("RGB", (7, 5)).save(folder / "pets" / "train" / "dog" / "0.png")
    with pytest.raises(LthError, match=r"differ in size .*7×5"):
        data.load("pets")


def test_missing_split_and_strange_class_are_named(folder: Path) -> None:
    write_images(folder / "pets")
    (folder / "pets" / "test" / "dog").rename(folder / "pets" / "test" / "fox")
    with pytest.raises(LthError, match="classes without training images: fox"):
        data.load("pets")
    (folder / "pets" / "test").rename(folder / "pets" / "extra")
    with pytest.raises(LthError, match="no images in test/<class>/"):
        data.load("pets")


@pytest.mark.parametrize(("ending", "mode"), [(".tar", ""), (".tar.gz", ":gz"), (".tar.xz", ":xz")])
@pytest.mark.parametrize("damage", ["cut", "foreign"])
def test_damaged_archive_is_named_leaving_nothing(folder: Path, ending: str, mode: str, damage: str) -> None:
    write_images(folder / "plain", size=24)
    archive = folder / f"packed{ending}"
    pack(folder / "plain", archive, mode)
    content = archive.read_bytes()
    cut = content[: len(content) // 2 - 77]
    archive.write_bytes(cut if damage == "cut" else b"<html>not found</html>" * 90)
    with pytest.raises(LthError, match=rf"packed{ending} is damaged"):
        data.load("packed")
    assert not list(folder.parent.rglob("*.safetensors"))


def test_damaged_cache_says_what_to_delete(folder: Path) -> None:
    write_images(folder / "pets")
    fingerprint = data.load("pets").fingerprint
    (cached,) = folder.parent.rglob("*.safetensors")
    content = bytearray(cached.read_bytes())
    content[-1] ^= 1
    for broken in (bytes(content), bytes(content[:-9]), b""):
        cached.write_bytes(broken)
        with pytest.raises(LthError, match=rf"{cached} is damaged .*delete it"):
            data.load("pets")
    cached.unlink()
    assert data.load("pets").fingerprint == fingerprint


# torchvision's


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files: magic number 0x0800 + number of axes, their lengths, the bytes."""
    head = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(raw: Path, packed: bool) -> dict[str, np.ndarray]:
    """A tiny MNIST; returns its arrays by file name."""
    rng, arrays = np.random.default_rng(1), {}
    for split, count in (("train", 12), ("t10k", 4)):
        arrays[f"{split}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28))
        arrays[f"{split}-labels-idx1-ubyte"] = rng.integers(0, 10, count)
    raw.mkdir(parents=True)
    for name, array in arrays.items():
        path = raw / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return arrays


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Official data sets of 12 + 4 images."""
    for name, known in official.SETS.items():
        small = official.Official(known.torchvision, 12, 4)
        monkeypatch.setitem(official.SETS, name, small)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("name", "inside"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_files_packed_or_not(folder: Path, tiny: None, name: str, inside: str, packed: bool) -> None:
    arrays = write_mnist(folder / inside / "raw", packed)
    before = {path: path.read_bytes() for path in (folder / inside).rglob("*") if path.is_file()}
    mnist = data.load(name)
    assert mnist.shape == (1, 28, 28) and mnist.classes == 10 and mnist.name == name
    assert mnist.names == tuple(getattr(datasets, inside).classes)
    for split, prefix in ((mnist.train, "train"), (mnist.test, "t10k")):
        assert np.array_equal(split.images[:, 0].numpy(), arrays[f"{prefix}-images-idx3-ubyte"])
        assert np.array_equal(split.labels.numpy(), arrays[f"{prefix}-labels-idx1-ubyte"])
    assert {path: path.read_bytes() for path in (folder / inside).rglob("*") if path.is_file()} == before
    assert sorted(p.name for p in folder.iterdir()) == [inside, f"{name}.safetensors"]
    for path in before:
        path.unlink()
    assert data.load(name).fingerprint == mnist.fingerprint


def test_read_only_folder_is_read_and_the_cache_written(
    folder: Path, tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(folder / "MNIST" / "raw", packed=True)
    real = tempfile.TemporaryFile

    def refuse(*args: object, dir: Path, **kwargs: object):
        if dir == folder:  # the superuser may write anywhere, so permissions alone would prove nothing
            raise PermissionError(f"read-only: {dir}")
        return real(*args, dir=dir, **kwargs)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert len(data.load("mnist").train) == 12
    assert [p.name for p in folder.iterdir()] == ["MNIST"]
    assert [p.name for p in folder.parent.rglob("*.safetensors")] == ["mnist.safetensors"]


@pytest.mark.parametrize(("name", "key", "classes"), [("cifar10", "labels", 10), ("cifar100", "fine_labels", 100)])
def test_cifar_archive(
    folder: Path, tiny: None, monkeypatch: pytest.MonkeyPatch, name: str, key: str, classes: int
) -> None:
    names = [f"thing {i}" for i in range(classes)]
    kind = getattr(datasets, official.SETS[name].torchvision)
    rng, members, images, labels = np.random.default_rng(2), {}, {}, {}
    batches = {"train": [f for f, _ in kind.train_list], "test": [f for f, _ in kind.test_list]}
    sizes = {"train": np.diff(np.linspace(0, 12, len(batches["train"]) + 1).astype(int)), "test": [4]}
    for split, files in batches.items():
        parts = [(rng.integers(0, 256, (n, 3072), np.uint8), rng.integers(0, 10, n)) for n in sizes[split]]
        images[split] = np.concatenate([x for x, _ in parts]).reshape(-1, 3, 32, 32)
        labels[split] = np.concatenate([y for _, y in parts])
        for file, (x, y) in zip(files, parts, strict=True):
            members[file] = pickle.dumps({"data": x, key: y.tolist()})
    members[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: names})
    with tarfile.open(folder / kind.filename, "w:gz") as tar:
        for file, content in members.items():
            info = tarfile.TarInfo(f"{kind.base_folder}/{file}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(LthError, match="not at hand"):  # the md5 sums are not those of the true files
        data.load(name)
    md5 = {file: hashlib.md5(content).hexdigest() for file, content in members.items()}
    monkeypatch.setattr(kind, "train_list", [[file, md5[file]] for file in batches["train"]])
    monkeypatch.setattr(kind, "test_list", [[file, md5[file]] for file in batches["test"]])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5[kind.meta["filename"]]})
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5((folder / kind.filename).read_bytes()).hexdigest())
    cifar = data.load(name)
    assert cifar.shape == (3, 32, 32) and cifar.classes == classes and cifar.names == tuple(names)
    for split in ("train", "test"):
        assert np.array_equal(getattr(cifar, split).images.numpy(), images[split])
        assert np.array_equal(getattr(cifar, split).labels.numpy(), labels[split])


@pytest.mark.parametrize("damage", ["cut", "count", "foreign"])
def test_damaged_mnist_is_named_and_leaves_nothing(folder: Path, tiny: None, damage: str) -> None:
    raw = folder / "MNIST" / "raw"
    arrays = write_mnist(raw, packed=True)
    images = "train-images-idx3-ubyte"
    content = (raw / f"{images}.gz").read_bytes()
    if damage == "cut":
        content = content[:-500]
    elif damage == "count":
        content = gzip.compress(idx(arrays[images][:11]))
    else:
        content = gzip.compress(b"\0\0\x08\x03not the rest")
    (raw / f"{images}.gz").write_bytes(content)
    with pytest.raises(LthError, match="damaged"):
        data.load("mnist")
    assert [p.name for p in folder.iterdir()] == ["MNIST"]


@pytest.mark.parametrize("name", list(official.SETS))
@pytest.mark.parametrize("ask", [data.load, data.available])
def test_no_data_and_no_network_is_one_error_with_the_ways_out(folder: Path, name: str, ask) -> None:
    with pytest.raises(LthError) as raised:
        ask(name)
    message = str(raised.value)
    assert not isinstance(raised.value, UsageError) and "\n" not in message
    said = (name, str(folder), "LTH_DATA", f"lth data {name}", "dataset=digits", "no network in this test")
    assert [part for part in said if part not in message] == []
    assert not list(folder.iterdir())


def test_a_server_that_never_answers_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: time.sleep(2) or io.BytesIO())
    monkeypatch.setattr(official, "ANSWER_SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(LthError, match="no answer within 0.2 s"):
        data.load("cifar10")
    assert time.monotonic() - start < 2


def test_download_where_there_is_a_network(folder: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = write_mnist(folder.parent / "server", packed=True)
    asked = []

    def serve(request: urllib.request.Request, timeout: float = 0) -> urllib.response.addinfourl:
        asked.append(file := request.full_url.rsplit("/", 1)[1])
        if "yann" in request.full_url:
            raise urllib.error.URLError("this mirror is away")
        content = (folder.parent / "server" / file).read_bytes()
        answer = urllib.response.addinfourl(io.BytesIO(content), {}, request.full_url, 200)
        answer.length = len(content)
        return answer

    files = [file for file, _ in datasets.MNIST.resources]
    md5 = [hashlib.md5((folder.parent / "server" / file).read_bytes()).hexdigest() for file in files]
    monkeypatch.setattr(datasets.MNIST, "resources", list(zip(files, md5, strict=True)))
    monkeypatch.setattr(urllib.request, "urlopen", serve)
    mnist = data.load("mnist")
    assert np.array_equal(mnist.test.labels.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert set(asked) == set(files)
    asked.clear()
    assert data.load("mnist").fingerprint == mnist.fingerprint and not asked


# names


def test_unknown_name_says_the_nearest(folder: Path) -> None:
    write_images(folder / "pets")
    for wrong, near in (("mnsit", "mnist"), ("cifar-10", "cifar10"), ("pet", "pets")):
        with pytest.raises(UsageError, match=f"unknown data set '{wrong}' .did you mean {near}"):
            data.available(wrong)
    with pytest.raises(UsageError, match="known: digits, mnist, fashion_mnist, cifar10, cifar100"):
        data.load("zzz")
    with pytest.raises(UsageError, match="no image folder and no archive"):
        data.load(str(folder / "nothing"))


@pytest.mark.parametrize("name", ["", ".", "..", "/"])
def test_what_names_nothing_is_refused(folder: Path, name: str) -> None:
    write_images(folder)
    for ask in (data.load, data.available):
        with pytest.raises(UsageError, match="no name of a data set"):
            ask(name)


@pytest.mark.parametrize("path", ["./", "../pets", "../pets/", "../pets/."])
def test_a_folder_is_called_by_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    write_images(folder / "pets")
    monkeypatch.chdir(folder / "pets")
    assert data.load(path).name == "pets"


@pytest.mark.parametrize("ask", [data.load, data.available])
@pytest.mark.parametrize("name", ["mnist", "digits", "cifar10"])
@pytest.mark.parametrize("kind", ["folder", "deeper", "archive"])
def test_own_images_by_the_name_of_a_known_set_are_told(folder: Path, ask, name: str, kind: str) -> None:
    own = folder / (name if kind != "archive" else f"{name}.tar")
    if kind == "archive":
        write_images(folder.parent / "plain")
        pack(folder.parent / "plain", own, "")
    else:
        write_images(own / "inner" if kind == "deeper" else own)
    for wish in (name, str(own)):
        with pytest.raises(UsageError, match=rf"{own} has the name of a data set that lth knows: rename it"):
            ask(wish)
    (folder / ("mine.tar" if kind == "archive" else "mine")).symlink_to(own)
    assert len(data.load("mine").train) == 6


def test_other_folders_by_the_name_of_a_known_set_do_no_harm(folder: Path, tiny: None) -> None:
    write_mnist(folder / "MNIST" / "raw", packed=True)
    (folder / "mnist" / "notes").mkdir(parents=True)
    assert len(data.load("mnist").train) == 12


# put aside for validation


def labelled(*sizes: int) -> data.Data:
    """As many training images of each class, in the order of the classes, each with bytes of its own."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    images = torch.arange(len(labels)).view(-1, 1, 1, 1).expand(-1, 1, 1, 8).contiguous().view(torch.uint8)
    split = data.Split(images, labels)
    return data.Data("labelled", split, split, len(sizes), "labelled", tuple("abcdefghij"[: len(sizes)]))


@pytest.mark.parametrize("sizes", [(50, 50), (3, 3, 3, 3), (2, 100), (2, 2, 96), (7, 13, 29, 51), (1000, 5, 5)])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_every_class_stays_in_both_parts(sizes: tuple[int, ...], share: float) -> None:
    whole = labelled(*sizes)
    count = round(share * sum(sizes))
    if not len(sizes) <= count <= sum(sizes) - len(sizes):
        with pytest.raises(UsageError, match=f"each part needs {len(sizes)}, one of each class"):
            whole.hold_out(share)
        return
    for seed in range(5):
        held = whole.hold_out(share, seed)
        aside, rest = (torch.bincount(split.labels, minlength=len(sizes)) for split in (held.validation, held.train))
        assert (aside + rest).tolist() == list(sizes) and aside.sum() == count
        assert (aside > 0).all() and (rest > 0).all()
        fair = torch.tensor(sizes) * share
        assert ((aside - fair).abs() < 2).all()  # one by rounding, one for those who must stay
        assert torch.equal(held.train.labels, held.train.labels.sort().values), "the order of the data is kept"


def test_any_image_may_be_put_aside() -> None:
    whole = labelled(10, 10)
    images = [whole.hold_out(0.2, seed).validation.images.view(torch.int64).flatten() for seed in range(100)]
    assert torch.cat(images).unique().numel() == 20
    assert whole.hold_out(0.2).names == whole.names


def test_a_class_of_one_image_cannot_be_divided() -> None:
    with pytest.raises(UsageError, match="class b has one training image"):
        labelled(30, 1, 30).hold_out(0.1)
    assert len(labelled(30, 0, 30).hold_out(0.1).validation) == 6  # none at all is nobody's loss


def test_without_lth_data_the_cache_is_the_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LTH_DATA")
    assert data.home() == folder.parent / "cache" / "lth" / "data"
    write_images(data.home() / "pets")
    assert len(data.load("pets").train) == 6


def test_the_true_mnist() -> None:
    if not has_mnist():
        pytest.skip("no MNIST under LTH_DATA")
    mnist = data.load("mnist")
    assert (len(mnist.train), len(mnist.test), mnist.shape) == (60_000, 10_000, (1, 28, 28))
    assert abs(mnist.train.images.double().mean().item() / 255 - 0.1307) < 5e-5
    assert mnist.fingerprint == "05ab87c0464c87c8da6806c37a139b26b94c5fd43ab5ec5eb8c7169feae6a159"
    # the md5 sums of the four files as they were published
    for split, kind, md5 in (
        ("train", "images", "6bbc9ace898e44ae57da46a324031adb"),
        ("train", "labels", "a25bea736e30d166cdddb491f175f624"),
        ("test", "images", "2646ac647ad5339dbf082846283269ea"),
        ("test", "labels", "27ae3e4e09519cfbb04c329615203637"),
    ):
        array = getattr(getattr(mnist, split), kind).numpy()
        assert hashlib.md5(idx(array[:, 0] if kind == "images" else array)).hexdigest() == md5


def test_standardised_images_have_mean_0_and_variance_1():
    plain = toy_data(300, (3, 8, 8), 4)
    data = plain.standardised().hold_out(0.1)
    seen = plain.standardised().train.pixels(torch.arange(200)).double()
    assert seen.mean((0, 2, 3)).abs().max() < 1e-6
    assert (seen.var((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    whole = plain.train.pixels(torch.arange(200))
    for split in (data.train, data.validation, data.test, data.test.evenly(7), data.test.take([3, 1])):
        expected = (split.images / 255 - whole.mean((0, 2, 3)).view(3, 1, 1)) / (
            whole.double().std((0, 2, 3), correction=0).float().view(3, 1, 1)
        )
        found = split.to("cpu").pixels(torch.arange(len(split)))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    names = {d.fingerprint for d in (plain, plain.hold_out(), plain.standardised(), data)}
    assert len(names) == 4  # runs on them are different runs
    constant = replace(plain, train=replace(plain.train, images=torch.zeros_like(plain.train.images)))
    assert constant.standardised().train.pixels(torch.tensor([0])).isfinite().all()
