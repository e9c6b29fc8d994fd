"""Copies are found, exact and near, and different photos are not taken for copies."""

import hashlib
import io
import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from headstart.dataset import Dataset, Photo
from headstart.images import decode
from headstart.quality import duplicates
from headstart.quality.duplicates import clusters, find_duplicates, find_near, unite
from headstart.quality.fingerprint import PhotoFacts, photo_fingerprint
from headstart.readers.idx import read_idx

Thumb = np.ndarray


def draw_thumbs(count: int, seed: int, grain: int = 4) -> np.ndarray:
    """Random pictures of 16 x 16 cells with large shapes, no two alike."""
    coarse = np.random.default_rng(seed).normal(128, 50, (count, grain, grain))
    return np.clip(coarse.repeat(16 // grain, axis=1).repeat(16 // grain, axis=2), 0, 255).astype(np.uint8)


def shake(thumb: Thumb, levels: float, seed: int) -> Thumb:
    noise = np.random.default_rng(seed).normal(0, levels, thumb.shape)
    return np.clip(np.rint(thumb + noise), 0, 255).astype(np.uint8)


def near_by_definition(thumbs: np.ndarray) -> tuple[set[tuple[int, int]], set[int]]:
    """The rules of the module's docstring, one pair at a time, in double precision."""
    count = len(thumbs)
    flat, look, contrast = [], [], []
    for thumb in thumbs:
        centred = thumb.astype(np.float64).ravel() - thumb.mean()
        contrast.append(float(np.sqrt(np.mean(centred**2))))
        flat.append(contrast[-1] < 1.0)
        look.append(centred / max(np.linalg.norm(centred), 1e-12))
    distance = np.full((count, count), np.inf)
    for first, second in itertools.permutations(range(count), 2):
        if not flat[first] and not flat[second]:
            distance[first, second] = np.linalg.norm(look[first] - look[second])
    copies: set[tuple[int, int]] = set()
    alikes: set[tuple[int, int]] = set()
    for first, second in itertools.combinations(range(count), 2):
        if flat[first] or flat[second]:
            if flat[first] and flat[second] and np.array_equal(thumbs[first], thumbs[second]):
                copies.add((first, second))
            continue
        reach = min(0.25, max(0.05, 0.6 / min(contrast[first], contrast[second])))
        if distance[first, second] <= reach:
            copies.add((first, second))
        if distance[first, second] <= 0.25:
            alikes.add((first, second))

    def partners(pairs: set[tuple[int, int]], photo: int) -> int:
        return sum(photo in pair for pair in pairs)

    near = {pair for pair in copies if all(partners(copies, photo) <= 30 for photo in pair)}
    for pair in alikes - copies:
        if all(partners(alikes, photo) <= 30 for photo in pair):
            ninth = [np.sort(distance[photo])[8] if sum(~np.array(flat)) > 9 else 0.0 for photo in pair]
            if 3 * distance[pair] <= min(ninth):
                near.add(pair)
    return near, {photo for photo in range(count) if partners(copies, photo) > 30}


def found(thumbs: np.ndarray) -> tuple[set[tuple[int, int]], set[int]]:
    pairs, crowded = find_near(thumbs)
    assert pairs.tolist() == sorted(pairs.tolist())
    return {(int(first), int(second)) for first, second in pairs}, set(crowded.tolist())


def mixture(seed: int) -> np.ndarray:
    """Different pictures, copies of some at every degree, a family of look-alikes, faint and flat ones."""
    random = np.random.default_rng(seed)
    base = draw_thumbs(40, seed)
    copies = [shake(base[i], levels, seed + i) for i, levels in enumerate(np.geomspace(0.3, 20, 25))]
    family = [shake(base[30], 8, seed + 100 + i) for i in range(12)]
    faint = [(128 + (base[i].astype(float) - 128) * 0.06).astype(np.uint8) for i in range(6)]
    faint += [shake(thumb, 0.4, seed + 200) for thumb in faint]
    flat = [np.full((16, 16), level, dtype=np.uint8) for level in (0, 0, 128, 129, 129, 129, 255)]
    thumbs = np.stack([*base, *copies, *family, *faint, *flat])
    return thumbs[random.permutation(len(thumbs))]


@pytest.mark.parametrize("seed", range(6))
def test_near_copies_are_those_of_the_definition(seed: int) -> None:
    thumbs = mixture(seed)
    expected = near_by_definition(thumbs)
    assert len(expected[0]) > 15
    assert found(thumbs) == expected


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 13), (16, 3), (1000, 1000)])
def test_the_size_of_the_tiles_changes_nothing(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    thumbs = mixture(7)
    expected = near_by_definition(thumbs)
    monkeypatch.setattr(duplicates, "_ROWS", rows)
    monkeypatch.setattr(duplicates, "_COLUMNS", columns)
    assert found(thumbs) == expected


@pytest.mark.parametrize("count", [31, 32, 60])
def test_photos_of_one_fixed_scene_are_called_crowded_and_not_copies(count: int) -> None:
    scene = draw_thumbs(1, seed=1)[0]
    thumbs = np.stack([*(shake(scene, 0.7, seed) for seed in range(count)), *draw_thumbs(20, seed=2)])
    expected = near_by_definition(thumbs)
    pairs, crowded = found(thumbs)
    assert (pairs, crowded) == expected
    assert len(crowded) == (count if count > 31 else 0)
    assert bool(pairs) == (count <= 31)


def test_photos_of_one_colour_are_near_only_if_they_are_equal() -> None:
    levels = [0, 1, 2, 100, 100, 101, 255]
    pairs, crowded = found(np.stack([np.full((16, 16), level, dtype=np.uint8) for level in levels]))
    assert pairs == {(3, 4)}
    assert crowded == set()


def test_many_equal_flat_photos_are_crowded() -> None:
    pairs, crowded = found(np.zeros((40, 16, 16), dtype=np.uint8))
    assert pairs == set()
    assert crowded == set(range(40))


@pytest.mark.parametrize("count", [2, 3, 9])
def test_few_photos_are_near_only_as_copies_for_what_is_usual_is_not_known(count: int) -> None:
    base = draw_thumbs(count, seed=3)
    base[1] = shake(base[0], 8, seed=1)  # alike, not a copy
    assert found(base)[0] == set()
    base[1] = shake(base[0], 0.5, seed=1)
    assert found(base)[0] == {(0, 1)}


def test_brightness_and_contrast_do_not_hide_a_copy() -> None:
    base = draw_thumbs(20, seed=4)
    other = np.rint(base[5] * 0.8 + 20).astype(np.uint8)
    assert found(np.stack([*base, other]))[0] == {(5, 20)}


def test_memory_does_not_grow_with_the_square_of_the_photos() -> None:
    thumbs = draw_thumbs(8000, seed=5, grain=8)
    tracemalloc.start()
    find_near(thumbs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8000 * 8000 * 4 / 3  # one table of all distances would be three times that


# ---------------------------------------------------------------------------------------- exact copies


def facts_of(content: str, thumb: Thumb | None = None) -> PhotoFacts:
    digest = hashlib.sha256(content.encode()).hexdigest()
    if thumb is None:
        thumb = np.random.default_rng(int(digest[:8], 16)).integers(0, 255, (16, 16), dtype=np.uint8)
    return PhotoFacts(digest=digest, width=16, height=16, format="PNG", mode="RGB", thumb=thumb)


def test_exact_copies_are_all_pairs_of_equal_bytes() -> None:
    random = np.random.default_rng(0)
    contents = [str(number) for number in random.integers(0, 60, 150)]
    result = find_duplicates([facts_of(content) for content in contents])
    listed = {pair for group in result.exact for pair in itertools.combinations(group, 2)}
    equal = {(i, j) for i, j in itertools.combinations(range(150), 2) if contents[i] == contents[j]}
    assert listed == equal
    assert all(list(group) == sorted(group) for group in result.exact)
    assert len(result.near) == 0


def test_a_rejected_photo_is_nobodys_copy() -> None:
    broken = PhotoFacts(digest="0" * 64, rejected=("empty", "the file has no bytes"))
    result = find_duplicates([broken, broken, facts_of("a")])
    assert result.exact == ()
    assert len(result.near) == 0


@pytest.mark.parametrize("facts", [[], [facts_of("a")], [PhotoFacts(digest="0" * 64, rejected=("empty", ""))]])
def test_nothing_to_compare_gives_nothing(facts: list[PhotoFacts]) -> None:
    result = find_duplicates(facts)
    assert result.exact == ()
    assert result.near.shape == (0, 2)


# -------------------------------------------------------------------------------------------- clusters


def closed(count: int, links: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """All pairs joined by a chain of links (Warshall's algorithm)."""
    joined = np.eye(count, dtype=bool)
    for first, second in links:
        joined[first, second] = joined[second, first] = True
    for middle in range(count):
        joined |= np.outer(joined[:, middle], joined[middle])
    return {(int(i), int(j)) for i, j in np.argwhere(joined)}


@pytest.mark.parametrize("seed", range(5))
def test_photos_share_a_number_if_a_chain_joins_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    links = [tuple(pair) for pair in random.integers(0, 40, (30, 2)).tolist()]
    numbers = unite(40, links)
    assert {(i, j) for i in range(40) for j in range(40) if numbers[i] == numbers[j]} == closed(40, links)
    assert all(numbers[number] == number <= index for index, number in enumerate(numbers.tolist()))


def test_a_cluster_joins_copies_near_copies_and_groups(tmp_path: Path) -> None:
    thumbs = draw_thumbs(12, seed=6)
    facts = [facts_of(str(number), thumb) for number, thumb in enumerate(thumbs)]
    facts.append(facts_of("3", thumbs[3]))  # 12: the bytes of 3
    facts.append(facts_of("near 3", shake(thumbs[3], 0.5, 1)))  # 13: looks like 3
    groups = {13: "tom", 7: "tom", 8: "ann"}
    photos = tuple(Photo(f"{i}.png", label=i % 2, group=groups.get(i)) for i in range(14))
    dataset = Dataset(name="x", root=tmp_path, classes=("a", "b"), photos=photos)
    assert clusters(dataset, facts).tolist() == [0, 1, 2, 3, 4, 5, 6, 3, 8, 9, 10, 11, 3, 3]
    assert clusters(dataset, facts, find_duplicates(facts)).tolist() == clusters(dataset, facts).tolist()


# ----------------------------------------------------------------------------------------- real photos


def encode(picture: Image.Image, kind: str, **settings: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **settings)
    return out.getvalue()


def turned(picture: Image.Image, orientation: int) -> bytes:
    """The picture stored sideways or mirrored, with the EXIF tag that says how to turn it back (TIFF 6.0, tag 274)."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # the transposition that undoes the tag
    exif = Image.Exif()
    exif[274] = orientation
    return encode(picture.transpose(Image.Transpose(back)), "JPEG", quality=90, exif=exif)


def resized(picture: Image.Image, factor: float) -> Image.Image:
    size = (max(16, round(picture.width * factor)), max(16, round(picture.height * factor)))
    return picture.resize(size, Image.Resampling.BICUBIC)


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    **{f"JPEG quality {quality}": lambda p, q=quality: encode(p, "JPEG", quality=q) for quality in (50, 75, 95)},
    "PNG": lambda p: encode(p, "PNG", compress_level=1),
    "WebP": lambda p: encode(p, "WEBP", quality=80),
    "BMP": lambda p: encode(p, "BMP"),
    "GIF": lambda p: encode(p, "GIF"),
    **{f"EXIF orientation {code}": lambda p, c=code: turned(p, c) for code in range(2, 9)},
    **{f"resized to {factor:g}": lambda p, f=factor: encode(resized(p, f), "PNG") for factor in (0.25, 0.5, 0.73, 2)},
    "half size, JPEG 75": lambda p: encode(resized(p, 0.5), "JPEG", quality=75),
    "brightness 0.9": lambda p: encode(ImageEnhance.Brightness(p).enhance(0.9), "PNG"),
    "brightness 1.1": lambda p: encode(ImageEnhance.Brightness(p).enhance(1.1), "PNG"),
}


def thumb_of(source: bytes) -> Thumb:
    return photo_fingerprint(decode(source, target=256).pixels)[1]


def thumbs_of(paths: list[Path]) -> np.ndarray:
    return np.stack([thumb_of(path.read_bytes()) for path in paths])


def check_planted(paths: list[Path], originals: int) -> None:
    """Plant every kind of copy of some photos, one kind at a time, and demand that 95 % of each kind are found."""
    thumbs = thumbs_of(paths)
    assert len(find_near(thumbs)[0]) == 0  # a clean set
    chosen = np.random.default_rng(0).choice(len(paths), originals, replace=False)
    pictures = [Image.fromarray(decode(paths[index].read_bytes()).pixels) for index in chosen]
    for kind, copy in COPIES.items():
        copies = np.stack([thumb_of(copy(picture)) for picture in pictures])
        pairs = {tuple(pair) for pair in find_near(np.concatenate([thumbs, copies]))[0].tolist()}
        planted = {(int(index), len(paths) + place) for place, index in enumerate(chosen)}
        assert len(planted & pairs) >= 0.95 * originals, kind
        assert pairs <= planted, kind  # and nothing else


def test_re_encoded_turned_and_resized_photos_are_found_among_others(shared_data: Path) -> None:
    check_planted(sorted(shared_data.glob("cats_dogs/*/*.jpg"))[::8], originals=10)


@pytest.mark.full
@pytest.mark.parametrize("pattern", ["cats_dogs/*/*.jpg", "ants_bees/*/*/*.jpg", "omniglot/*/*.png"])
def test_planted_copies_are_found_in_the_whole_set(shared_data: Path, pattern: str) -> None:
    check_planted(sorted(shared_data.glob(pattern)), originals=60)


def test_all_copies_of_one_photo_stand_in_one_group(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("ants_bees/train/*/*.jpg"))[:40]
    sources = [path.read_bytes() for path in paths]
    picture = Image.fromarray(decode(sources[7]).pixels)
    sources += [copy(picture) for copy in COPIES.values()]
    facts = [facts_of(hashlib.sha256(source).hexdigest(), thumb_of(source)) for source in sources]
    photos = tuple(Photo(f"{number}.jpg", label=0) for number in range(len(sources)))
    numbers = clusters(Dataset(name="x", root=shared_data, classes=("a",), photos=photos), facts)
    assert set(numbers[40:].tolist()) == {7}
    assert numbers[:40].tolist() == list(range(40))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("cats_dogs/*/*.jpg", 0), ("ants_bees/*/*/*.jpg", 0), ("sign_digits/*/*.JPG", 0), ("omniglot/*/*.png", 0)],
)
def test_different_photos_are_not_taken_for_copies(shared_data: Path, pattern: str, expected: int) -> None:
    paths = sorted(shared_data.glob(pattern))[::3]
    pairs, crowded = find_near(thumbs_of(paths))
    assert len(pairs) == expected
    assert len(crowded) == 0


def test_different_digits_are_not_taken_for_copies(shared_data: Path) -> None:
    digits = read_idx(shared_data / "mnist" / "t10k-images-idx3-ubyte.gz")[:5000]
    thumbs = np.stack([photo_fingerprint(np.repeat(digit[:, :, None], 3, axis=2))[1] for digit in digits])
    pairs, crowded = find_near(thumbs)
    assert len(pairs) == 0  # of 12.5 million
    assert len(crowded) == 0


def test_two_photos_of_one_blood_smear_are_found(shared_data: Path) -> None:
    paths = sorted(shared_data.glob("blood_cells/JPEGImages/*.jpg"))[:120]
    pairs, _ = find_near(thumbs_of(paths))
    names = [tuple(paths[index].name for index in pair) for pair in pairs]
    assert names == [("BloodImage_00037.jpg", "BloodImage_00038.jpg")]  # the same cells, shifted by a few pixels
