"""Pictures that a net asks for, changes that fool it, and maps of photos: how well each works, and how long it takes.

    python benchmarks/dreams.py [--net NAME_OR_RUN] [--classes N] [--pixels] [--steps N] [--dream DATA]
                                [--fooled N DATA] [--map N DATA] [--seeds N] [--colours DATA] [--out FOLDER]

Pictures: for N classes spread evenly over the net's, made by gradient ascent, stored in whole grey levels and read
again: the probability of the class, the logit, what is left of it under 8 random moves, and the seconds. The same
steps on pixels and without moves stand beside them, in a second table (`--pixels`).
Dreams: of one photo of DATA, for two layers.
Changes: of N photos of DATA the smallest that were found, with random signs for comparison.
Maps: trustworthiness and labels among the nearest, for each seed (another choice of N photos each).
Colours: how much photos vary along the three axes of `headstart.look.canvas`, before a sigmoid; nothing else is done.
DATA is anything `headstart train` takes.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np
import torch
from harness import machine, spread

from headstart.dataset import Dataset
from headstart.errors import ImageRejected
from headstart.explain.subject import Photo, Subject
from headstart.images import decode
from headstart.look.adversarial import DRAWS, LARGEST, adversarial
from headstart.look.canvas import AXES, as_seen, moved
from headstart.look.dream import dream
from headstart.look.features import feature_map
from headstart.look.maximise import KEPT, MOVES, RATE, maximise
from headstart.look.opening import open_subject
from headstart.readers import open_dataset
from headstart.transfer.similarity import choose_photos

SURE = 0.9  # probability from which on a picture counts as recognised


def pictures(subject: Subject, count: int, steps: int, out: Path | None) -> None:
    places = [round(number * (len(subject.classes) - 1) / max(count - 1, 1)) for number in range(count)]
    print(f"| class | logit, start -> picture | moved {MOVES} times | share left | probability | seconds |")
    print("|---|---|---|---|---|---|")
    sure, kept, seconds = 0, 0, []
    for place in places:
        made = maximise(subject, classes=[subject.classes[place]], steps=steps)
        one = made.drawn[0]
        sure, kept = sure + ((one.probability or 0.0) >= SURE), kept + (one.left >= KEPT)
        seconds.append(made.seconds)
        print(
            f"| {one.aim.label} | {one.first:.1f} -> {one.value:.1f} | {np.mean(one.moved):.1f} ({min(one.moved):.1f}"
            f"-{max(one.moved):.1f}) | {one.left:.2f} | {one.probability:.3f} | {made.seconds:.1f} |",
            flush=True,
        )
        if out is not None:
            made.sheet().save(out / f"class-{place}.png")
    print(
        f"\nprobability {SURE} or more: {sure} of {count}; {KEPT:.0%} or more left: {kept} of {count}; "
        f"seconds a picture of {steps} steps: {spread(seconds, 1)}\n"
    )


def on_pixels(subject: Subject, count: int, steps: int) -> None:
    """The same climb on the pixels themselves, always in the same place: what the waves and the moves are for."""
    places = [round(number * (len(subject.classes) - 1) / max(count - 1, 1)) for number in range(count)]
    size, _, channels = subject.preprocessing.shape
    print(f"| class, pixels without moves | logit | moved {MOVES} times | share left |\n|---|---|---|---|")
    for place in places:
        generator = torch.Generator().manual_seed(0)
        values = (0.01 * torch.randn(channels, size, size, generator=generator)).requires_grad_()
        optimiser = torch.optim.Adam([values], lr=RATE)
        for _ in range(steps):
            logit = subject.net(as_seen(subject, torch.sigmoid(values)))[0, place]
            (values.grad,) = torch.autograd.grad(-logit, values)
            optimiser.step()
        with torch.no_grad():
            pixels = np.rint(torch.sigmoid(values).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            x = subject.normalised(pixels)
            value = float(subject.net(x)[0, place])
            left = float(np.mean([float(subject.net(moved(x, generator))[0, place]) for _ in range(MOVES)]))
        print(f"| {subject.classes[place]} | {value:.1f} | {left:.1f} | {left / value:.2f} |", flush=True)
    print()


def photos_of(subject: Subject, data: str, count: int, seed: int = 0) -> list[Photo]:
    dataset = open_dataset(data)
    chosen = [dataset.photos[row] for row in choose_photos(dataset.labels(), count, seed)]
    found = []
    for listed in chosen:
        try:
            found.append(dataclasses.replace(subject.photo(dataset.fetch(listed)), name=listed.path))
        except ImageRejected as error:
            print(f"left out {listed.path}: {error.reason}")
    return found


def fooled(subject: Subject, count: int, data: str, out: Path | None) -> None:
    made = adversarial(subject, photos_of(subject, data, count))
    flips = made.flips
    print(f"| {len(flips)} photos, grey levels | median | 10 % | 90 % | none found |\n|---|---|---|---|---|")
    rows = {
        "signs, as stored": [np.inf if flip.signs is None else flip.signs.largest for flip in flips],
        "signs, not rounded": [np.inf if flip.signs is None else flip.signs.exact for flip in flips],
        "shortest, root mean square, as stored": [
            np.inf if flip.shortest is None else flip.shortest.typical for flip in flips
        ],
        "shortest, % of the photo's length": [
            np.inf if flip.shortest is None else 100 * flip.shortest.relative for flip in flips
        ],
        "random signs that turn half of the draws": [flip.noise_size or np.inf for flip in flips],
    }
    for name, values in rows.items():
        found = np.quantile(values, (0.5, 0.1, 0.9), method="lower")
        missing = int(np.isinf(values).sum())
        print(f"| {name} | {found[0]:.3g} | {found[1]:.3g} | {found[2]:.3g} | {missing} |")
    turned = sum(flip.noise for flip in flips if flip.signs is not None)
    draws = DRAWS * sum(flip.signs is not None for flip in flips)
    print(f"\nrandom signs of the size that turns the photo by its gradient (at most {LARGEST}): {turned} of {draws}")
    print(f"seconds a photo: {made.seconds / len(flips):.1f}\n")
    if out is not None:
        for name, sheet in list(made.sheets().items())[:4]:
            sheet.save(out / f"fooled-{name}")


def dreams(subject: Subject, data: str, out: Path | None) -> None:
    for layer in ("stage5", "stage6"):
        made = dream(subject, photos_of(subject, data, 1)[0], layer)
        print(f"{made.to_text()}; {made.seconds:.1f} s")
        if out is not None:
            made.sheet().save(out / f"dream-{layer}.png")
    print()


def maps(subject: Subject, count: int, data: str, seeds: int, out: Path | None) -> None:
    dataset: Dataset = open_dataset(data)
    trust: dict[str, list[float]] = {}
    alike: dict[str, list[float]] = {}
    seconds = []
    for seed in range(seeds):
        begun = time.perf_counter()
        made = feature_map(subject, dataset, most=count, seed=seed)
        seconds.append(time.perf_counter() - begun)
        for name, share in made.trust.items():
            trust.setdefault(name, []).append(share)
        for name, share in made.alike.items():
            alike.setdefault(name, []).append(share)
        if out is not None and seed == 0:
            made.sheet().save(out / "map.png")
    print(f"| {count} photos of {dataset.name}, {seeds} choices | |\n|---|---|")
    print("\n".join(f"| trustworthiness, {name} | {spread(values, 3)} |" for name, values in trust.items()))
    print("\n".join(f"| same label among 5, {name} | {spread(values, 3)} |" for name, values in alike.items()))
    print(f"| seconds, features included | {spread(seconds, 1)} |\n")


def colours(data: str) -> None:
    """Standard deviations along the axes, of values that a sigmoid would turn into the photo's."""
    dataset = open_dataset(data)
    axes = (AXES / AXES.norm(dim=1, keepdim=True)).numpy().astype(np.float64)
    total, count = np.zeros(3), 0
    for row in choose_photos(dataset.labels(), 100):
        pixels = decode(dataset.fetch(dataset.photos[row]), target=64).pixels.reshape(-1, 3) / 255
        inside = np.clip(pixels, 1 / 512, 1 - 1 / 512)
        total, count = total + (np.log(inside / (1 - inside)) @ axes.T).var(axis=0), count + 1
    spreads = np.sqrt(total / count)
    print(f"{count} photos: {spreads.round(2).tolist()}, as shares {(spreads / spreads[0]).round(2).tolist()}")


def main() -> None:
    """Measure what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="efficientnet-lite0")
    parser.add_argument("--classes", type=int, default=0, metavar="N")
    parser.add_argument("--pixels", action="store_true")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--fooled", nargs=2, metavar=("N", "DATA"))
    parser.add_argument("--dream", metavar="DATA")
    parser.add_argument("--map", nargs=2, metavar=("N", "DATA"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--colours", metavar="DATA")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    print(machine() + "\n")
    if given.colours:
        colours(given.colours)
        return
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
    subject = open_subject(given.net)
    if given.classes:
        pictures(subject, given.classes, given.steps, given.out)
        if given.pixels:
            on_pixels(subject, given.classes, given.steps)
    if given.dream:
        dreams(subject, given.dream, given.out)
    if given.fooled:
        fooled(subject, int(given.fooled[0]), given.fooled[1], given.out)
    if given.map:
        maps(subject, int(given.map[0]), given.map[1], given.seeds, given.out)


if __name__ == "__main__":
    main()
