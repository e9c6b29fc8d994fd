"""Folders of photos as they really are: junk, links, pipes and odd names; none of it stops the reading or is opened."""

import hashlib
import os
import socket
import subprocess
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.dataset import SKIP_REASONS, Dataset
from headstart.errors import DataError
from headstart.readers import open_dataset
from headstart.readers.folders import MANIFEST_SUFFIXES
from headstart.readers.tables import TABLES

posix_only = pytest.mark.skipif(os.name == "nt", reason="needs POSIX names, links and pipes")


def plant(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode("utf-8", "surrogateescape"))
    return root


def verdicts(data: Dataset) -> dict[str, str]:
    """Every path that the data set mentions: "photo" or the reason it was skipped for."""
    return {photo.path: "photo" for photo in data.photos} | {item.path: item.reason for item in data.skipped}


def paths_of(data: Dataset) -> list[str]:
    return [photo.path for photo in data.photos]


def fingerprint(root: Path) -> str:
    """Names, kinds, contents and times of everything under a folder."""
    digest = hashlib.sha256()
    for place in sorted(root.rglob("*")):
        info = place.lstat()
        digest.update(repr((place, info.st_mode, info.st_mtime_ns, info.st_ctime_ns, info.st_size)).encode())
        if place.is_file():
            digest.update(place.read_bytes())
    return digest.hexdigest()


# layouts


def test_class_folders_give_sorted_classes_and_photos(tmp_path: Path) -> None:
    data = open_dataset(plant(tmp_path / "pets", "b/2.jpg", "b/10.PNG", "a/x.webp", "Z/1.gif"))
    assert data.name == "pets"
    assert data.classes == ("Z", "a", "b")
    assert [(photo.path, data.classes[photo.label], photo.split) for photo in data.photos] == [
        ("Z/1.gif", "Z", None),
        ("a/x.webp", "a", None),
        ("b/10.PNG", "b", None),
        ("b/2.jpg", "b", None),
    ]


def test_folders_inside_a_class_folder_belong_to_the_class(tmp_path: Path) -> None:
    data = open_dataset(plant(tmp_path, "cat/2019/may/1.jpg", "cat/2.jpg", "dog/train/3.jpg"))
    assert data.classes == ("cat", "dog")
    assert paths_of(data) == ["cat/2.jpg", "cat/2019/may/1.jpg", "dog/train/3.jpg"]


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"),
        ("TRAINING", "train"),
        ("val", "val"),
        ("Valid", "val"),
        ("validation", "val"),
        ("test", "test"),
        ("Testing", "test"),
        ("HoldOut", "test"),
    ],
)
def test_split_folders_are_known_by_all_their_names(tmp_path: Path, folder: str, split: str) -> None:
    data = open_dataset(plant(tmp_path, f"{folder}/cat/1.jpg", f"{folder}/dog/2.jpg", "train/cat/3.jpg"))
    assert data.classes == ("cat", "dog")
    assert {photo.path: photo.split for photo in data.photos}[f"{folder}/dog/2.jpg"] == split


def test_a_class_of_one_split_only_is_a_class(tmp_path: Path) -> None:
    data = open_dataset(plant(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/c/1.jpg"))
    assert data.classes == ("a", "b", "c")


def test_two_folders_of_one_split_are_one_split(tmp_path: Path) -> None:
    data = open_dataset(plant(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "validation/a/2.jpg"))
    assert Counter(photo.split for photo in data.photos) == {"train": 1, "val": 2}


def test_folders_beside_the_splits_are_skipped_by_name(tmp_path: Path) -> None:
    data = open_dataset(plant(tmp_path, "train/a/1.jpg", "test/a/2.jpg", "masks/a/1.png", "docs/a.jpg"))
    assert data.classes == ("a",)
    assert verdicts(data)["masks/a/1.png"] == "no_split"
    assert verdicts(data)["docs/a.jpg"] == "no_split"


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    data = open_dataset(plant(tmp_path, "train/1.jpg", "bus/2.jpg", "train/steam/3.jpg"))
    assert data.classes == ("bus", "train")
    assert {photo.split for photo in data.photos} == {None}


def test_unlabelled_test_photos_are_skipped_and_the_rest_is_read(tmp_path: Path) -> None:
    data = open_dataset(plant(tmp_path, "train/a/1.jpg", "train/b/2.jpg", "test/7.jpg"))
    assert paths_of(data) == ["train/a/1.jpg", "train/b/2.jpg"]
    assert verdicts(data)["test/7.jpg"] == "no_class"


def test_splits_without_class_folders_are_refused_with_an_example(tmp_path: Path) -> None:
    plant(tmp_path, "train/1.jpg", "test/2.jpg")
    with pytest.raises(DataError, match=r"'test', 'train' .*no class folders; expected for example test/cat/1.jpg"):
        open_dataset(tmp_path)


def test_photos_beside_the_class_folders_are_skipped(tmp_path: Path) -> None:
    data = open_dataset(plant(tmp_path, "a/1.jpg", "b/1.jpg", "loose.jpg"))
    assert verdicts(data)["loose.jpg"] == "no_class"


def test_empty_class_folders_are_no_classes_and_a_warning_names_them(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg", "b/1.jpg", "notes/readme.txt", "hidden/.thumb.jpg")
    (tmp_path / "empty\x1b[31m").mkdir()
    data = open_dataset(tmp_path)
    assert data.classes == ("a", "b")
    assert data.warnings == (
        r"no photo in the folders 'empty\x1b[31m', 'hidden', 'notes': they are no classes of this data set",
    )


def test_an_empty_class_folder_in_a_split_is_warned_about_only_if_the_class_is_empty_everywhere(tmp_path: Path) -> None:
    plant(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg")
    (tmp_path / "test" / "b").mkdir()
    assert open_dataset(tmp_path).warnings == ()
    (tmp_path / "test" / "wasp").mkdir()
    assert "'wasp'" in open_dataset(tmp_path).warnings[0]


@pytest.mark.parametrize(("one", "other"), [("Cats", "cats"), ("Maße", "masse"), ("caf\u00e9", "cafe\u0301")])
def test_classes_that_look_alike_are_warned_about(tmp_path: Path, one: str, other: str) -> None:
    plant(tmp_path, f"{one}/1.jpg", f"{other}/2.jpg")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system takes the two names for one")
    data = open_dataset(tmp_path)
    assert len(data.classes) == 2
    assert "differ only in case or in how their letters are encoded" in data.warnings[0]


def test_a_folder_too_high_is_pointed_at_the_folder_inside(tmp_path: Path) -> None:
    data = open_dataset(plant(tmp_path, "dataset/cat/1.jpg", "dataset/dog/2.jpg"))
    assert data.classes == ("dataset",)
    assert f"if these are the classes, give {tmp_path / 'dataset'}" in data.warnings[0]


# nothing to read


def test_an_empty_folder_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no photos in class folders under .*; expected one sub-folder per class"):
        open_dataset(tmp_path)


def test_loose_photos_alone_are_refused_and_counted(tmp_path: Path) -> None:
    plant(tmp_path, "1.jpg", "2.jpg", "notes.txt")
    with pytest.raises(DataError, match=r"2 photos lie directly in the folder, such as '1.jpg', '2.jpg'") as caught:
        open_dataset(tmp_path)
    assert "not_an_image 1" in str(caught.value)


def test_a_manifest_beside_loose_photos_is_recommended(tmp_path: Path) -> None:
    plant(tmp_path, "1.jpg", "labels.csv")
    with pytest.raises(DataError, match=r"if 'labels.csv' lists the labels, give that file"):
        open_dataset(tmp_path)
    assert set(MANIFEST_SUFFIXES) == set(TABLES)


# junk: what is planted into a good data set, where it shows up, and as what


def text(path: str) -> Callable[[Path], None]:
    return lambda root: plant(root, path) and None


def folder(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).mkdir(parents=True)


def link(path: str, target: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(target.format(outside=root.parent / "outside", root=root))

    return make


def pipe(path: str) -> Callable[[Path], None]:
    return lambda root: os.mkfifo(root / path)


def unix_socket(path: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        here = Path.cwd()
        os.chdir((root / path).parent)  # the name of a socket may have only about 100 bytes
        try:
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(Path(path).name)
        finally:
            os.chdir(here)

    return make


IGNORED = "ignored"
JUNK = [
    ("finder", text(".DS_Store"), ".DS_Store", IGNORED),
    ("finder in a class", text("cat/.DS_Store"), "cat/.DS_Store", IGNORED),
    ("mac companion", text("cat/._1.jpg"), "cat/._1.jpg", IGNORED),
    ("mac archive", text("__MACOSX/cat/._1.jpg"), "__MACOSX", IGNORED),
    ("mac archive inside a class", text("cat/__MACOSX/2.jpg"), "cat/__MACOSX", IGNORED),
    ("windows thumbnails", text("cat/Thumbs.db"), "cat/Thumbs.db", IGNORED),
    ("windows thumbnails in capitals", text("cat/THUMBS.DB"), "cat/THUMBS.DB", IGNORED),
    ("windows folder settings", text("dog/desktop.ini"), "dog/desktop.ini", IGNORED),
    ("synology thumbnails", text("cat/@eaDir/1.jpg/SYNOPHOTO_THUMB.jpg"), "cat/@eaDir", IGNORED),
    ("windows bin", text("$RECYCLE.BIN/cat/1.jpg"), "$RECYCLE.BIN", IGNORED),
    ("git", text(".git/objects/1.jpg"), ".git", IGNORED),
    ("notebook", text("cat/.ipynb_checkpoints/1-checkpoint.jpg"), "cat/.ipynb_checkpoints", IGNORED),
    ("hidden photo", text("cat/.hidden.jpg"), "cat/.hidden.jpg", IGNORED),
    ("hidden class", text(".cache/1.jpg"), ".cache", IGNORED),
    ("hidden link", link("cat/.link.jpg", "{outside}/secret.jpg"), "cat/.link.jpg", IGNORED),
    ("read me", text("README.md"), "README.md", "not_an_image"),
    ("labels", text("labels.csv"), "labels.csv", "not_an_image"),
    ("annotation", text("cat/1.xml"), "cat/1.xml", "not_an_image"),
    ("half a download", text("cat/1.jpg.part"), "cat/1.jpg.part", "not_an_image"),
    ("editor's copy", text("cat/1.jpg~"), "cat/1.jpg~", "not_an_image"),
    ("archive", text("cat/photos.zip"), "cat/photos.zip", "not_an_image"),
    ("film", text("cat/walk.MP4"), "cat/walk.MP4", "not_an_image"),
    ("page", text("cat/index.html"), "cat/index.html", "not_an_image"),
    ("no suffix", text("cat/IMG_0001"), "cat/IMG_0001", "photo"),
    ("two suffixes", text("cat/1.tar.jpeg"), "cat/1.tar.jpeg", "photo"),
    ("suffix in capitals", text("cat/1.JPG"), "cat/1.JPG", "photo"),
    ("suffix alone after blanks", text("cat/ .jpg"), "cat/ .jpg", "photo"),
    ("format we refuse later", text("cat/1.psd"), "cat/1.psd", "photo"),
    ("folder named like a photo", text("cat/album.jpg/1.jpg"), "cat/album.jpg/1.jpg", "photo"),
    ("loose photo", text("1.jpg"), "1.jpg", "no_class"),
    ("pipe", pipe("cat/pipe.jpg"), "cat/pipe.jpg", "not_a_file"),
    ("pipe as a class", pipe("class"), "class", "not_a_file"),
    ("socket", unix_socket("cat/socket.jpg"), "cat/socket.jpg", "not_a_file"),
    ("link to a pipe", lambda root: (pipe("p")(root), link("cat/p.jpg", "../p")(root)), "cat/p.jpg", "not_a_file"),
    ("link to a photo inside", link("cat/again.jpg", "../dog/1.jpg"), "cat/again.jpg", "photo"),
    ("link to a photo inside, absolute", link("cat/again.jpg", "{root}/dog/1.jpg"), "cat/again.jpg", "photo"),
    ("link to nothing", link("cat/gone.jpg", "nowhere.jpg"), "cat/gone.jpg", "missing"),
    ("link to itself", link("cat/self.jpg", "self.jpg"), "cat/self.jpg", "link"),
    (
        "two links in a circle",
        lambda r: (link("cat/x.jpg", "y.jpg")(r), link("cat/y.jpg", "x.jpg")(r)),
        "cat/x.jpg",
        "link",
    ),
    ("link to the folder above", link("cat/up", ".."), "cat/up", "link"),
    ("link to its own folder", link("cat/here", "."), "cat/here", "link"),
    ("link to another class", link("felines", "cat"), "felines", "link"),
    ("link to a photo outside", link("cat/out.jpg", "{outside}/secret.jpg"), "cat/out.jpg", "outside"),
    ("link outside, relative", link("cat/out.jpg", "../../outside/secret.jpg"), "cat/out.jpg", "outside"),
    ("link to a folder outside", link("secrets", "{outside}"), "secrets", "outside"),
    ("link to nothing outside", link("cat/out.jpg", "{outside}/nowhere.jpg"), "cat/out.jpg", "outside"),
    ("link to the root of the disk", link("cat/disk", "/"), "cat/disk", "outside"),
    ("link to a device", link("cat/zero.jpg", "/dev/zero"), "cat/zero.jpg", "outside"),
    ("neighbour with the same beginning", link("cat/out.jpg", "../../data2/1.jpg"), "cat/out.jpg", "outside"),
]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    plant(tmp_path, "outside/secret.jpg", "outside/cat/secret2.jpg", "data2/1.jpg")
    return plant(tmp_path / "data", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")


def test_there_are_more_than_thirty_cases_of_junk() -> None:
    assert len({name for name, *_ in JUNK}) == len(JUNK) >= 40


@posix_only
@pytest.mark.parametrize(("make", "path", "expected"), [case[1:] for case in JUNK], ids=[case[0] for case in JUNK])
def test_junk_gets_its_verdict_and_changes_nothing_else(pets: Path, make: Callable, path: str, expected: str) -> None:
    before = open_dataset(pets)
    make(pets)
    data = open_dataset(pets)
    assert set(paths_of(before)) <= set(paths_of(data))
    assert data.classes == before.classes
    assert verdicts(data).get(path, IGNORED) == expected
    assert data.ignored - before.ignored == (expected == IGNORED)
    assert {item.reason for item in data.skipped} <= SKIP_REASONS.keys()
    assert not any("secret" in name for name in paths_of(data))


@posix_only
def test_with_all_junk_at_once_nothing_hangs_and_no_file_is_opened(pets: Path) -> None:
    for _, make, path, _ in JUNK:
        if not os.path.lexists(pets / path):
            make(pets)
    program = (
        "import sys, headstart.readers as readers\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, values: opened.append(values[0]) if event == 'open' else None)\n"
        "data = readers.open_dataset(sys.argv[1])\n"
        "print([str(name) for name in opened if str(name).startswith(sys.argv[2])], len(data.skipped) > 20)\n"
    )
    root = str(pets.parent)
    done = subprocess.run(
        [sys.executable, "-c", program, str(pets), root], capture_output=True, timeout=120, check=True
    )
    assert done.stdout.decode().strip() == "[] True"


@posix_only
def test_nothing_changes_in_the_folder_of_the_photos(pets: Path) -> None:
    for name, make, path, _ in JUNK:
        if not os.path.lexists(pets / path) and name != "link to the root of the disk":
            make(pets)
    before = fingerprint(pets.parent)
    open_dataset(pets)
    open_dataset(pets, follow_links=True)
    assert fingerprint(pets.parent) == before


# links on request


@posix_only
def test_links_out_of_the_folder_are_followed_on_request(pets: Path) -> None:
    link("cat/out.jpg", "{outside}/secret.jpg")(pets)
    link("fox", "{outside}/cat")(pets)
    data = open_dataset(pets, follow_links=True)
    assert {"cat/out.jpg", "fox/secret2.jpg"} <= set(paths_of(data))
    assert data.classes == ("cat", "dog", "fox")


@posix_only
def test_circles_end_even_when_links_are_followed(pets: Path) -> None:
    link("cat/up", "{root}/..")(pets)  # from there, the data themselves are reached again
    link("cat/a/loop", "../..")(pets)
    link("cat/b/loop", "../a")(pets)
    data = open_dataset(pets, follow_links=True)
    assert {"cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"} <= set(paths_of(data))
    real = [os.path.realpath(pets / path) for path in paths_of(data)]
    assert len(real) == len(set(real))


@posix_only
def test_a_hundred_links_to_each_other_are_read_in_linear_time(tmp_path: Path) -> None:
    for number in range(100):  # followed one into the other, 2^100 paths
        plant(tmp_path, f"cat/{number}/1.jpg")
        for name in ("one", "two"):
            link(f"cat/{number}/{name}", f"../{(number + 1) % 100}")(tmp_path)
    plant(tmp_path, "dog/1.jpg")
    for follow in (False, True):
        assert len(open_dataset(tmp_path, follow_links=follow).photos) == 101


@posix_only
def test_a_class_folder_that_is_a_link_to_a_hidden_store_inside_is_read(tmp_path: Path) -> None:
    plant(tmp_path, ".store/c1/1.jpg", "dog/1.jpg")
    link("cat", ".store/c1")(tmp_path)
    assert paths_of(open_dataset(tmp_path)) == ["cat/1.jpg", "dog/1.jpg"]


@posix_only
def test_a_folder_given_by_a_link_is_read(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(pets)
    data = open_dataset(tmp_path / "way")
    assert len(data.photos) == 4
    assert data.name == "data"


# depth and permission


@posix_only
@pytest.mark.parametrize(("name", "levels", "readable"), [("d", 1010, True), ("d" * 200, 30, False)])
def test_a_tree_deeper_than_the_stack_is_read_and_one_too_long_for_a_path_is_named(
    tmp_path: Path, name: str, levels: int, readable: bool
) -> None:
    plant(tmp_path, "cat/1.jpg", "dog/1.jpg")
    handle = os.open(tmp_path / "cat", os.O_RDONLY)
    for _ in range(levels):  # step by step, as the whole path may be longer than the system takes
        os.mkdir(name, dir_fd=handle)
        deeper = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = deeper
    os.close(os.open("2.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=handle))
    os.close(handle)
    try:
        data = open_dataset(tmp_path)
        assert len(data.photos) == 2 + readable
        assert [item.reason for item in data.skipped] == ([] if readable else ["unreadable"])
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "cat"], check=True)


@posix_only
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root reads what has no permission bits")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    plant(tmp_path, "cat/1.jpg", "dog/1.jpg", "fox/1.jpg")
    (tmp_path / "fox").chmod(0)
    try:
        assert verdicts(open_dataset(tmp_path))["fox"] == "unreadable"
    finally:
        (tmp_path / "fox").chmod(0o755)


def test_a_folder_that_fails_while_it_is_read_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path, "cat/1.jpg", "dog/1.jpg", "fox/1.jpg")
    real = os.scandir

    def failing(place: Path) -> object:
        if Path(place).name == "fox":
            raise PermissionError(13, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", failing)
    data = open_dataset(tmp_path)
    assert [(item.path, item.reason, item.detail) for item in data.skipped] == [
        ("fox", "unreadable", "Permission denied")
    ]
    with pytest.raises(DataError, match=r"cannot read the folder .*fox: Permission denied"):
        open_dataset(tmp_path / "fox")


# names

NAUGHTY = [
    b"plain",
    b" leading blank",
    b"trailing blank ",
    b"-rf",
    b"--help",
    b"-",
    b"~",
    b"~root",
    b"*",
    b"?",
    b"[abc]",
    b"{a,b}",
    b"$HOME",
    b"$(touch x)",
    b"`touch x`",
    b"a;b",
    b"a|b",
    b"a&b",
    b"a>b",
    b"a<b",
    b"a\\b",
    b"x\\..\\..\\etc\\passwd",
    b"C:\\x",
    b"a:b",
    b'quote"quote',
    b"it's",
    b"a,b",
    b"a\tb",
    b"a\nb",
    b"a\rb",
    b"a\r\nb",
    b"bell\x07",
    b"\x1b[31mred\x1b[0m",
    b"\x1b]0;title\x07",
    b"\x01\x02\x1f\x7f",
    b"#17",
    b"train-images#17",
    b"%00",
    b"%2e%2e%2f",
    b"a%b%s%n",
    b"=1+1",
    b"+1",
    b"@SUM(A1)",
    b"<script>alert(1)",
    b"<img src=x onerror=alert(1)>",
    b"' OR 1=1 --",
    b"NULL",
    b"None",
    b"nan",
    b"undefined",
    b"0",
    b"1e309",
    b"CON",
    b"aux.txt.d",
    b"COM1",
    b"a..",
    b"...x"[3:] + b"...",
    b"\xe2\x80\xae txt.gpj",
    b"\xe2\x80\x8f\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d",
    b"\xd9\x85\xd8\xb1\xd8\xad\xd8\xa8\xd8\xa7",
    b"\xe2\x80\x8b zero width",
    b"\xef\xbb\xbfbom",
    b"\xc2\xa0nbsp",
    b"\xe2\x80\xa8line separator",
    b"\xc2\x85next line",
    b"\xf0\x9f\x98\x80\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9",
    b"\xf0\x9f\x87\xa9\xf0\x9f\x87\xaa",
    b"caf\xc3\xa9",
    b"cafe\xcc\x81",
    b"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e",
    b"Z\xcd\x91\xcc\xab\xcc\x8ealgo",
    b"caf\xe9 in latin-1",
    b"\xff\xfe\xfd",
    b"\xed\xa0\x80 surrogate",
    b"\xc0\xaf overlong",
    b"\xf5 beyond",
    b"half \xe2\x80",
    b"x" * 240,
    "ﬁ".encode(),
    "İstanbul".encode(),
    "\U000e0041".encode(),
]


@posix_only
def test_there_are_more_than_sixty_hostile_names() -> None:
    assert len(set(NAUGHTY)) == len(NAUGHTY) >= 60


def plant_names(root: Path, names: list[bytes]) -> set[bytes]:
    """A class folder of each name, with a photo of that name in it; return the paths."""
    made = set()
    for name in names:
        place = root / os.fsdecode(name)
        place.mkdir(parents=True)
        (place / os.fsdecode(name + b".jpg")).write_bytes(name)
        made.add(name + b"/" + name + b".jpg")
    return made


@posix_only
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS allows valid UTF-8 only")
def test_hostile_names_come_back_byte_for_byte_and_open_the_right_file(tmp_path: Path) -> None:
    made = plant_names(tmp_path, NAUGHTY)
    data = open_dataset(tmp_path)
    assert {os.fsencode(photo.path) for photo in data.photos} == made
    assert {os.fsencode(name) for name in data.classes} == set(NAUGHTY)
    assert list(data.classes) == sorted(data.classes)
    for photo in data.photos:
        content = data.fetch(photo)
        assert content == os.fsencode(data.classes[photo.label])
    assert data.skipped == ()


@posix_only
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS allows valid UTF-8 only")
def test_no_control_character_of_a_name_reaches_a_message(tmp_path: Path) -> None:
    for name in NAUGHTY:
        (tmp_path / os.fsdecode(name)).mkdir()
    plant_names(tmp_path / "plain", NAUGHTY)
    data = open_dataset(tmp_path)
    messages = [*data.warnings, *(item.detail for item in data.skipped)]
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path / os.fsdecode(NAUGHTY[32]))
    for message in (*messages, str(caught.value)):
        assert message.isprintable()
        message.encode("utf-8")


def test_the_same_letters_in_two_encodings_are_two_files(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    plant(tmp_path, *(f"cat/{name}.jpg" for name in names), "dog/1.jpg")
    if len(list((tmp_path / "cat").iterdir())) == 1:
        pytest.skip("this file system takes the two names for one")
    assert len(open_dataset(tmp_path).photos) == 3


# real data, counted by another program


def find(root: Path) -> list[str]:
    """Every regular file, as the program `find` lists them."""
    found = subprocess.run(["find", ".", "-type", "f", "-print0"], cwd=root, capture_output=True, check=True)
    return os.fsdecode(found.stdout).split("\0")[:-1]


@posix_only
@pytest.mark.parametrize("name", ["ants_bees", "cats_dogs", "sign_digits", "omniglot"])
def test_every_file_of_the_real_data_is_a_photo_or_accounted_for(shared_data: Path, name: str) -> None:
    data = open_dataset(shared_data / name)
    files = [Path(file) for file in find(shared_data / name)]
    hidden = [file for file in files if file.name.startswith(".")]
    assert data.ignored == len(hidden)
    assert len(data.photos) + len(data.skipped) == len(files) - len(hidden)
    pictures = [
        file for file in files if file not in hidden and file.suffix in {".jpg", ".JPG", ".jpeg", ".png", ".gif"}
    ]
    assert Counter(data.classes[photo.label] for photo in data.photos) == Counter(file.parent.name for file in pictures)


def test_ants_and_bees_have_the_published_counts_and_the_gif_is_left_to_the_decoder(shared_data: Path) -> None:
    data = open_dataset(shared_data / "ants_bees")
    assert data.classes == ("ants", "bees")
    counts = Counter(photo.split for photo in data.photos)
    assert counts == {"train": 244 + 1, "val": 153}  # and one picture that says "image not found"
    assert "train/ants/imageNotFound.gif" in paths_of(data)
    assert data.ignored == 2


@pytest.mark.full
def test_listing_is_linear_in_the_number_of_files(tmp_path: Path) -> None:
    seconds = []
    for count in (10_000, 100_000):
        root = tmp_path / str(count)
        for number in range(count):
            place = root / str(number % 10)
            if number < 10:
                place.mkdir(parents=True)
            (place / f"{number}.jpg").touch()
        begun = time.process_time()
        assert len(open_dataset(root).photos) == count
        seconds.append(time.process_time() - begun)
    assert seconds[1] < 20 * seconds[0]
