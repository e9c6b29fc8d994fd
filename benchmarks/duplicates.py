"""Near copies: how many planted ones are found, how many different photos are taken for copies, and what it costs.

    python benchmarks/duplicates.py ../shared/data [--sets cats_dogs,mnist] [--originals 60] [--sheets FOLDER]

For each set every photo is compared with every other; nothing is planted, so what is called near must be looked at:
`--sheets` draws those pairs. Then copies of `--originals` photos are added, one kind at a time.

What it printed, from which the thresholds of `headstart.quality.duplicates` were chosen (AMD EPYC). 60 originals;
"re-encoded": JPEG 95, 75 and 50, WebP, GIF, brightness x 0.9 and x 1.1, gamma 0.85; "resized": x 2 to x 0.25 and to
64 x 64, the kind of which fewest are found. Distances: the largest of a planted copy, and the smallest of two photos
that are not called near.

| set         | photos | pairs      | called near | re-encoded found | its largest | resized found | next pair |
|-------------|--------|------------|-------------|------------------|-------------|---------------|-----------|
| cats_dogs   | 1,000  | 499,500    | 0           | 100 %            | 0.106       | 100 %         | 0.489     |
| ants_bees   | 398    | 79,003     | 0           | 100 %            | 0.102       | 100 %         | 0.560     |
| sign_digits | 2,062  | 2,124,891  | 0           | 100 %            | 0.045       | 100 %         | 0.224     |
| omniglot    | 4,840  | 11,710,380 | 0           | 100 %            | 0.034       | 100 %         | 0.263     |
| blood_cells | 364    | 66,066     | 1           | 100 %            | 0.048       | 100 %         | 0.681     |
| mnist       | 5,000  | 12,497,500 | 0           | 100 %            | 0.078       | 0 % (28 px)   | 0.122     |
| elpv        | 2,624  | 3,441,376  | 210         | 100 %            | 0.084       | 85 % (nearest)| 0.058     |

The pair of blood_cells shows the same cells, shifted. Of the 210 of elpv 47 lie 542 numbers apart: one module was
photographed twice, sharp and blurred; the others that were looked at are neighbours with the same crystal grain. Digits
of 28 pixels are found at twice the size, not at half. Of photos cropped to their middle 98 % all are found but for elpv
(27 %) and to 95 % between none (elpv) and 65 % (cats_dogs).

A difference hash (10 bits of 64) finds as many copies, but also calls 2.5 % of the pairs of different hands, 4.5 % of
characters, 6.7 % of digits and 2.2 % of solar cells alike. A plain box filter for the thumbnail moves the copies of
small photos apart: hands at half size by 0.181 instead of 0.017 (95 % of the copies).

The search among 50,000 photos took 4.5 s (3.3 s of processor time, one thread, on a busy machine), a fingerprint of a
photo of 500 x 375 pixels 0.34 ms.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from harness import machine
from PIL import Image, ImageDraw, ImageEnhance

from headstart.dataset import Dataset
from headstart.images import decode
from headstart.quality.duplicates import find_near
from headstart.quality.fingerprint import photo_fingerprint
from headstart.readers import open_dataset

SETS = ("cats_dogs", "ants_bees", "sign_digits", "omniglot", "blood_cells", "mnist", "elpv")
MOST = 5000  # photos of a set
LARGE = 1600  # pixels a side of an original that copies are made of


def _encoded(photo: Image.Image, kind: str, **settings: object) -> Image.Image:
    out = io.BytesIO()
    photo.save(out, kind, **settings)
    return Image.fromarray(decode(out.getvalue()).pixels)


def _scaled(photo: Image.Image, factor: float, how: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    return photo.resize((max(1, round(photo.width * factor)), max(1, round(photo.height * factor))), how)


def _cropped(photo: Image.Image, part: float) -> Image.Image:
    x, y = photo.width * (1 - part) / 2, photo.height * (1 - part) / 2
    return photo.crop((round(x), round(y), round(photo.width - x), round(photo.height - y)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 95": lambda photo: _encoded(photo, "JPEG", quality=95),
    "JPEG 75": lambda photo: _encoded(photo, "JPEG", quality=75),
    "JPEG 50": lambda photo: _encoded(photo, "JPEG", quality=50),
    "WebP 80": lambda photo: _encoded(photo, "WEBP", quality=80),
    "GIF": lambda photo: _encoded(photo, "GIF"),
    "x 2": lambda photo: _scaled(photo, 2),
    "x 0.73": lambda photo: _scaled(photo, 0.73, Image.Resampling.BILINEAR),
    "x 0.5": lambda photo: _scaled(photo, 0.5),
    "x 0.5, JPEG 75": lambda photo: _encoded(_scaled(photo, 0.5), "JPEG", quality=75),
    "x 0.5, nearest": lambda photo: _scaled(photo, 0.5, Image.Resampling.NEAREST),
    "x 0.25": lambda photo: _scaled(photo, 0.25),
    "to 64 x 64": lambda photo: photo.resize((64, 64), Image.Resampling.BICUBIC),
    "brightness x 0.9": lambda photo: ImageEnhance.Brightness(photo).enhance(0.9),
    "brightness x 1.1": lambda photo: ImageEnhance.Brightness(photo).enhance(1.1),
    "gamma 0.85": lambda photo: photo.point([round(255 * (level / 255) ** 0.85) for level in range(256)] * 3),
    "middle 98 %": lambda photo: _cropped(photo, 0.98),
    "middle 95 %": lambda photo: _cropped(photo, 0.95),
}


def read(root: Path, name: str) -> Iterator[np.ndarray]:
    """Yield the pixels of up to `MOST` photos of a set."""
    if name == "blood_cells":  # not in class folders
        sources = (path.read_bytes() for path in sorted((root / name / "JPEGImages").glob("*.jpg"))[:MOST])
    else:
        data: Dataset = open_dataset(name if name == "elpv" else root / name)
        sources = (data.fetch(photo) for photo in data.photos[:MOST])
    for source in sources:
        yield decode(source, target=256).pixels


def look(photo: Image.Image | np.ndarray) -> tuple[int, np.ndarray]:
    return photo_fingerprint(np.asarray(photo))


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distance of each photo to its copy, by the formula of `headstart.quality.duplicates`."""
    return np.linalg.norm(_unit(first) - _unit(second), axis=1)


def _unit(thumbs: np.ndarray) -> np.ndarray:
    centred = thumbs.reshape(len(thumbs), -1).astype(float)
    centred -= centred.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)


def nearest_left(thumbs: np.ndarray, pairs: np.ndarray) -> float:
    """The smallest distance among the pairs that are not called near."""
    unit = _unit(thumbs)
    likeness = unit @ unit.T
    likeness[np.tril_indices(len(unit))] = -1
    likeness[tuple(pairs.T)] = -1
    return float(np.sqrt(2 - 2 * likeness.max()))


def boxed(photo: Image.Image) -> np.ndarray:
    return np.asarray(photo.convert("L").resize((16, 16), Image.Resampling.BOX))


def measure(root: Path, name: str, originals: int, sheets: Path | None) -> None:
    """Print what is found in one set, and of each kind of planted copy."""
    photos = list(read(root, name))
    looks = [look(photo) for photo in photos]
    hashes = np.array([dhash for dhash, _ in looks], dtype=np.uint64)
    thumbs = np.stack([thumb for _, thumb in looks])
    pairs, crowded = find_near(thumbs)
    count = len(thumbs) * (len(thumbs) - 1) // 2
    sample = hashes[:2000]
    alike = (np.bitwise_count(sample[:, None] ^ sample) <= 10).sum() - len(sample)
    print(
        f"\n{name}: {len(thumbs):,} photos, {count:,} pairs: {len(pairs)} near ({100 * len(pairs) / count:.4f} %), "
        f"{len(crowded)} crowded; the closest other pair at {nearest_left(thumbs, pairs):.3f}; "
        f"by difference hash (10 bits) {100 * alike / (len(sample) * (len(sample) - 1)):.3f} % of the pairs"
    )
    if sheets and len(pairs):
        draw_pairs(photos, pairs, sheets / f"{name}.png")
    chosen = np.random.default_rng(0).choice(len(photos), min(originals, len(photos)), replace=False)
    pictures = [Image.fromarray(photos[index]) for index in chosen]
    for picture in pictures:
        picture.thumbnail((LARGE, LARGE))
    print("  kind of copy       found   distance: median, 95 %, largest   by hash   95 % with a plain box")
    for kind, copy in COPIES.items():
        copies = [copy(picture) for picture in pictures]
        planted = [look(picture) for picture in copies]
        both = np.concatenate([thumbs, np.stack([thumb for _, thumb in planted])])
        near = {tuple(pair) for pair in find_near(both)[0].tolist()}
        hit = np.mean([(int(index), len(thumbs) + place) in near for place, index in enumerate(chosen)])
        apart = distances(thumbs[chosen], both[len(thumbs) :])
        hashed = np.bitwise_count(hashes[chosen] ^ np.array([dhash for dhash, _ in planted], dtype=np.uint64)) <= 10
        box = distances(np.stack([boxed(p) for p in pictures]), np.stack([boxed(p) for p in copies]))
        print(
            f"  {kind:<17} {100 * hit:5.0f} %   {np.median(apart):.3f}  {np.quantile(apart, 0.95):.3f}  "
            f"{apart.max():.3f}{100 * hashed.mean():18.0f} %   {np.quantile(box, 0.95):.3f}",
            flush=True,
        )


def draw_pairs(photos: list[np.ndarray], pairs: np.ndarray, path: Path, most: int = 60, side: int = 128) -> None:
    """A picture of up to `most` pairs, for eyes."""
    picked = pairs[np.linspace(0, len(pairs) - 1, min(most, len(pairs))).astype(int)]
    sheet = Image.new("RGB", (6 * (2 * side + 8), -(-len(picked) // 6) * (side + 14)), "white")
    for place, pair in enumerate(picked.tolist()):
        x, y = place % 6 * (2 * side + 8), place // 6 * (side + 14)
        ImageDraw.Draw(sheet).text((x, y), f"{pair[0]} and {pair[1]}", fill="black")
        for half, index in enumerate(pair):
            sheet.paste(Image.fromarray(photos[index]).resize((side, side)), (x + half * side, y + 12))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def cost(counts: tuple[int, ...] = (5_000, 20_000, 50_000)) -> None:
    """Print the time of the search among random pictures, and of one fingerprint."""
    random = np.random.default_rng(0)
    for count in counts:
        coarse = random.normal(128, 40, (count, 8, 8))
        thumbs = np.clip(coarse.repeat(2, axis=1).repeat(2, axis=2), 0, 255).astype(np.uint8)
        wall, processor = time.perf_counter(), time.process_time()
        find_near(thumbs)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(f"search among {count:,} photos: {wall:.1f} s, {processor:.1f} s of processor time")
    photo = random.integers(0, 256, (375, 500, 3), dtype=np.uint8)
    best = 1.0
    for _ in range(200):
        begun = time.perf_counter()
        photo_fingerprint(photo)
        best = min(best, time.perf_counter() - begun)
    print(f"fingerprint of a photo of 500 x 375 pixels: {1000 * best:.2f} ms, the best of 200")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--originals", type=int, default=60)
    parser.add_argument("--sheets", type=Path)
    given = parser.parse_args()
    print(machine())
    cost()
    for name in given.sets.split(","):
        measure(given.data, name, given.originals, given.sheets)


if __name__ == "__main__":
    main()
