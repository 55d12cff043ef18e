"""Image folders give exactly the images and classes that a person sees in them, or one line that says why not."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lth import data
from lth.data import image_folder
from lth.errors import LthError

NOBODY = 65534


def write(root: Path, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """train/<class>/0..2.png and test/<class>/0..1.png, 6×6 grey, each image with a brightness of its own."""
    for split, count in (("train", 3), ("test", 2)):
        for c, kind in enumerate(classes):
            for i in range(count):
                add(root / split / kind / f"{i}.png", grey(split, c, i))
    return root


def grey(split: str, label: int, i: int) -> int:
    return 100 * (split == "test") + 10 * label + i


def add(path: Path, brightness: int, size: tuple[int, int] = (6, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, brightness).save(path)


def seen(source: Path) -> tuple[list[int], list[int], tuple[str, ...], list[str]]:
    """Brightness of the training images and of the test images, class names, remarks; labels agree with them."""
    (train, labels), (test, test_labels), names, remarks = image_folder.read(source)
    values = []
    for images, of in ((train, labels), (test, test_labels)):
        assert images.shape[1:] == (1, 6, 6) and (images == images[:, :, :1, :1]).all() and len(images) == len(of)
        values.append(images[:, 0, 0, 0].tolist())
        assert [value // 10 % 10 for value in values[-1]] == of.tolist()
    return *values, names, remarks


ALL = ([0, 1, 2, 10, 11, 12], [100, 101, 110, 111])


def pack(source: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w") as tar:
        tar.add(source, arcname=source.name)
    return archive


@pytest.fixture(params=["directory", "archive"])
def as_is(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """The folder, and once more the folder packed."""
    return (lambda folder: folder) if request.param == "directory" else lambda x: pack(x, x.with_name("packed.tar"))


def test_plain(tmp_path: Path, as_is) -> None:
    assert seen(as_is(write(tmp_path / "pets"))) == (*ALL, ("cat", "dog"), [])


# what is hidden or a tool's


@pytest.mark.parametrize(
    "inside",
    [
        "train/.ipynb_checkpoints",
        "train/cat/.ipynb_checkpoints",
        "test/dog/@eaDir",
        "train/__MACOSX",
        "test/lost+found",
    ],
)
def test_hidden_and_tool_folders_are_not_looked_at(tmp_path: Path, as_is, inside: str) -> None:
    pets = write(tmp_path / "pets")
    add(pets / inside / "0-checkpoint.png", 99)
    add(pets / "train" / "cat" / "._0.png", 99)
    assert seen(as_is(pets)) == (*ALL, ("cat", "dog"), [])


# links


@pytest.mark.parametrize("what", ["train", "train/dog", "test/dog", "train/dog/1.png"])
def test_symbolic_links_are_followed(tmp_path: Path, what: str) -> None:
    pets = write(tmp_path / "pets")
    (pets / what).rename(tmp_path / "elsewhere")
    (pets / what).symlink_to(tmp_path / "elsewhere")
    assert seen(pets) == (*ALL, ("cat", "dog"), [])
    with pytest.raises(LthError, match=rf"{what} in .*packed\.tar is a symbolic link: .* --dereference"):
        image_folder.read(pack(pets, tmp_path / "packed.tar"))


def test_links_that_lead_nowhere_or_round_are_named(tmp_path: Path) -> None:
    pets = write(tmp_path / "pets")
    (pets / "train" / "emu").symlink_to(tmp_path / "away")
    with pytest.raises(LthError, match="train/emu cannot be read: No such file"):
        image_folder.read(pets)
    (pets / "train" / "emu").unlink()
    (pets / "train" / "dog" / "again").symlink_to(pets / "train")
    with pytest.raises(LthError, match="train/dog/again in .* is a link to a folder that it lies in"):
        image_folder.read(pets)


def test_hard_links_and_later_members_of_an_archive(tmp_path: Path) -> None:
    pets = write(tmp_path / "pets")
    os.link(pets / "train" / "cat" / "0.png", pets / "train" / "cat" / "3.png")
    archive = pack(pets, tmp_path / "packed.tar")
    assert seen(archive)[0] == [0, 1, 2, 0, 10, 11, 12]
    add(pets / "train" / "dog" / "1.png", 19)
    with tarfile.open(archive, "a") as tar:
        tar.add(pets / "train" / "dog" / "1.png", "pets/train/dog/1.png")
    assert seen(archive)[0] == [0, 1, 2, 0, 10, 19, 12]


@pytest.mark.parametrize("before", ["/", "../", "/pets/", "../pets/"])
def test_paths_of_an_archive_that_begin_outside(tmp_path: Path, before: str) -> None:
    pets = write(tmp_path / "pets")
    with tarfile.open(tmp_path / "packed.tar", "w") as tar:
        for path in sorted(pets.rglob("*.png")):
            info = tar.gettarinfo(path)
            info.name = before + path.relative_to(pets).as_posix()
            with path.open("rb") as file:
                tar.addfile(info, file)
    assert seen(tmp_path / "packed.tar") == (*ALL, ("cat", "dog"), [])


# what cannot be read


@pytest.fixture
def as_user() -> Iterator[Path]:
    """A folder of a user to whom permissions matter, who the test is from here on."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0:
            yield Path(folder)
            return
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            if not os.access(folder, os.W_OK, effective_ids=True):
                pytest.skip(f"a normal user cannot get at {folder}")
            yield Path(folder)
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("what", ["train", "train/dog", "test/dog", "train/dog/1.png"])
@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_what_may_not_be_read_is_named(as_user: Path, what: str, mode: int) -> None:
    pets = write(as_user / "pets")
    Image.init()
    is_file = (pets / what).is_file()
    (pets / what).chmod(mode if not is_file else 0o000)
    with pytest.raises(LthError, match=rf"{what}\S* .*cannot be read: Permission denied"):
        image_folder.read(pets)
    (pets / what).chmod(0o700)
    assert seen(pets) == (*ALL, ("cat", "dog"), [])


def test_an_archive_that_may_not_be_read_is_not_damaged(as_user: Path) -> None:
    archive = pack(write(as_user / "pets"), as_user / "packed.tar")
    archive.chmod(0)
    with pytest.raises(LthError, match=r"packed\.tar cannot be read: Permission denied"):
        image_folder.read(archive)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nnothing more"])
def test_a_damaged_image_is_named(tmp_path: Path, as_is, content: bytes) -> None:
    pets = write(tmp_path / "pets")
    (pets / "train" / "dog" / "1.png").write_bytes(content)
    with pytest.raises(LthError, match=r"train/dog/1\.png in .* is not a readable image"):
        image_folder.read(as_is(pets))


def test_several_pages_are_told(tmp_path: Path, as_is) -> None:
    pets = write(tmp_path / "pets")
    for i in range(2):
        pages = [Image.new("L", (6, 6), 20 + i), Image.new("L", (6, 6), 99)]
        path = pets / "train" / "emu" / f"{i}.tif"
        path.parent.mkdir(exist_ok=True)
        pages[0].save(path, save_all=True, append_images=pages[1:])
    add(pets / "test" / "emu" / "0.png", 120)
    train, test, names, remarks = seen(as_is(pets))
    assert train == [*ALL[0], 20, 21] and test == [*ALL[1], 120] and names == ("cat", "dog", "emu")
    assert len(remarks) == 1 and "2 files (" in remarks[0] and "train/emu/0.tif first) with several pages" in remarks[0]


def test_a_turned_image_has_the_size_it_is_seen_with(tmp_path: Path) -> None:
    pets = write(tmp_path / "pets")
    for path in pets.rglob("*.png"):
        Image.new("L", (4, 6), 50).save(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6, 4), 50).save(pets / "train" / "cat" / "0.png", exif=exif)
    assert image_folder.read(pets)[0][0].shape == (6, 1, 6, 4)


# classes


def test_spellings_of_a_name_are_one_class(tmp_path: Path, as_is) -> None:
    nfc, nfd = (unicodedata.normalize(form, "Äffchen") for form in ("NFC", "NFD"))
    pets = write(tmp_path / "pets", ("cat", nfc))
    (pets / "test" / nfc).rename(pets / "test" / nfd)
    assert nfc != nfd and seen(as_is(pets)) == (*ALL, ("cat", nfc), [])


@pytest.mark.parametrize("leave", ["nothing", "heic"])
@pytest.mark.parametrize("splits", [("train", "test"), ("train",), ("test",)])
def test_a_class_without_images_is_named_with_the_endings(tmp_path: Path, as_is, leave: str, splits) -> None:
    pets = write(tmp_path / "pets", ("cat", "dog", "emu"))
    for split in splits:
        shutil.rmtree(pets / split / "emu")
        (pets / split / "emu").mkdir()
        if leave == "heic":
            (pets / split / "emu" / "1.heic").write_bytes(b"something")
    with pytest.raises(LthError, match=rf"{splits[0]}/emu in .* holds no images \(\.png, \.jpg, .*\.tiff\)"):
        image_folder.read(as_is(pets))


def test_files_that_are_left_out_are_told(tmp_path: Path, as_is) -> None:
    pets = write(tmp_path / "pets")
    (pets / "train" / "notes.txt").write_text("in no class, and no image", encoding="utf-8")
    (pets / "train" / "cat" / "3.heic").write_bytes(b"something")
    add(pets / "test" / "5.png", 99)
    *values, names, remarks = seen(as_is(pets))
    assert (*values, names) == (*ALL, ("cat", "dog")) and len(remarks) == 2
    assert "test/5.png in no class folder: left out" in remarks[0]
    assert "train/cat/3.heic not ending in .png, .jpg" in remarks[1]


def test_folders_in_a_class_belong_to_it(tmp_path: Path, as_is) -> None:
    pets = write(tmp_path / "pets")
    add(pets / "train" / "dog" / "small" / "0.png", 13)
    assert seen(as_is(pets))[0] == [*ALL[0], 13]


def test_one_class_is_refused_by_name(tmp_path: Path, as_is) -> None:
    with pytest.raises(LthError, match="one class only, cat"):
        image_folder.read(as_is(write(tmp_path / "pets", ("cat",))))


def test_a_class_without_test_images_is_told_and_one_without_training_images_refused(tmp_path: Path, as_is) -> None:
    pets = write(tmp_path / "pets", ("cat", "dog", "emu"))
    shutil.rmtree(pets / "test" / "emu")
    assert seen(as_is(pets))[2:] == (("cat", "dog", "emu"), ["test/ has no images of emu"])
    shutil.rmtree(pets / "train" / "dog")
    with pytest.raises(LthError, match="test images of classes without training images: dog"):
        image_folder.read(as_is(pets))


# splits


@pytest.mark.parametrize("unlabelled", ["test/0.png", "test/images/0.png", "test/unknown/0.png", None])
def test_sorted_val_beside_unlabelled_test_is_used_and_told(tmp_path: Path, as_is, unlabelled: str | None) -> None:
    pets = write(tmp_path / "pets")
    (pets / "test").rename(pets / "val")
    if unlabelled:
        add(pets / unlabelled, 99)
    *values, names, remarks = seen(as_is(pets))
    assert (*values, names) == (*ALL, ("cat", "dog"))
    told = ["test/ has no folder of a training class: val/ is used for testing"]
    assert remarks == (told if unlabelled else [])


def test_val_beside_a_sorted_test_is_left_out_and_told(tmp_path: Path, as_is) -> None:
    pets = write(tmp_path / "pets")
    add(pets / "val" / "cat" / "0.png", 99)
    assert seen(as_is(pets)) == (*ALL, ("cat", "dog"), ["val/ is left out: test/ is used for testing"])


def test_splits_are_found_one_folder_deeper_and_in_one_place(tmp_path: Path, as_is) -> None:
    write(tmp_path / "all" / "pets")
    add(tmp_path / "all" / "docs" / "test" / "x" / "0.png", 99)
    assert seen(tmp_path / "all") == (*ALL, ("cat", "dog"), [])
    write(tmp_path / "all" / "birds")
    with pytest.raises(LthError, match=r"several data sets \(birds, pets\)"):
        image_folder.read(tmp_path / "all")


@pytest.mark.parametrize(
    ("gone", "named"), [("train", "train/<class>/"), ("test", r"test/<class>/ \(or val/<class>/\)")]
)
def test_a_missing_split_is_named(tmp_path: Path, as_is, gone: str, named: str) -> None:
    pets = write(tmp_path / "pets")
    shutil.rmtree(pets / gone)
    with pytest.raises(LthError, match=f"holds no images in {named}"):
        image_folder.read(as_is(pets))


def test_the_listing_sees_what_links_lead_to(tmp_path: Path) -> None:
    pets = write(tmp_path / "pets")
    (pets / "train" / "dog").rename(tmp_path / "elsewhere")
    (pets / "train" / "dog").symlink_to(tmp_path / "elsewhere")
    paths = [path for path, _ in image_folder.listing(pets)]
    assert paths == sorted(paths) and len(paths) == 10 + 6
    sizes = {path: status.st_size for path, status in image_folder.listing(pets)}
    assert sizes["train/dog/1.png"] == (tmp_path / "elsewhere" / "1.png").stat().st_size
    assert np.array_equal(image_folder.read(pets)[0][1], [0, 0, 0, 1, 1, 1])


def test_a_name_of_bytes_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTH_DATA", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = write(tmp_path / os.fsdecode(b"\xffpets"))
    for _ in range(2):  # decoded, then read
        assert len(data.load(str(source)).train) == 6
