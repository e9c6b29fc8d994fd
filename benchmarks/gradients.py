"""What the gradient methods cost, how well integrated gradients add up, and what a deconvnet knows of the photo.

    python benchmarks/gradients.py PHOTOS [--photos 100] [--timed 20] [--reference 3] [--digits DATA] [--epochs 12]

PHOTOS is a folder of photos. On EfficientNet-Lite0 with its published weights, for the class that it predicts:

1. Wall seconds of each method and photo.
2. Integrated gradients: the share of the logit's rise that the sum misses, and the gradients it took; beside it the
   same of so many evenly spaced ones (midpoints). For `--reference` photos the correlation of the map with that of
   1,000 midpoints.
3. How far guided backpropagation is from the plain gradient (largest difference over largest gradient), and what
   Captum, where it is installed, says of the same net.
4. The cosine between the deconvnet pictures of pairs of photos, and between their guided ones, on EfficientNet-Lite0
   (no max pooling) and, with `--digits` (anything `headstart train` takes), on two small nets with two and three max
   pools, trained here for `--epochs`.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import machine, spread

from headstart.explain.explanation import Asked, Found
from headstart.explain.grad_cam import grad_cam, guided_grad_cam
from headstart.explain.gradients import deconv, gradient, guided, taken
from headstart.explain.integrated import integrated_gradients, slopes_at
from headstart.explain.subject import Photo, Subject
from headstart.look.opening import open_subject
from headstart.nets import build_net
from headstart.preprocess import Preprocessing
from headstart.readers import open_dataset

METHODS: dict[str, Callable[[Asked], Found]] = {
    "gradient": gradient,
    "guided": guided,
    "Grad-CAM": grad_cam,
    "guided Grad-CAM": guided_grad_cam,
    "integrated": integrated_gradients,
}
EVEN = (20, 50, 128)
PAIRS = 40
SUFFIXES = (".jpg", ".jpeg", ".png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--timed", type=int, default=20)
    parser.add_argument("--reference", type=int, default=3)
    parser.add_argument("--digits")
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    print(machine(), f"torch threads: {torch.get_num_threads()}", sep="\n")
    subject = open_subject("efficientnet-lite0")
    paths = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    random.Random(0).shuffle(paths)
    questions = [predicted(subject, subject.photo(path)) for path in paths[: given.photos]]
    times(questions[: given.timed])
    sums(questions, given.reference)
    against_captum(questions)
    pictures = [pairs_of("efficientnet-lite0", 0, questions, {"anyway": True})]
    if given.digits:
        pictures += [trained(name, given.digits, given.epochs) for name in ("small-cnn", "cifar-cnn")]
    print("\n| net | max pools | photos | cosine of deconvnet pictures | of guided pictures |\n|---|---|---|---|---|")
    print(*pictures, sep="\n")


def predicted(subject: Subject, photo: Photo) -> Asked:
    return Asked(subject, photo, int(subject.logits([photo.pixels])[0].argmax()))


def times(questions: Sequence[Asked]) -> None:
    print("\n| method | wall seconds a photo: median [lowest-highest] |\n|---|---|")
    gradient(questions[0])  # the first pays for what is set up once
    for name, method in METHODS.items():
        found = []
        for question in questions:
            start = time.perf_counter()
            method(question)
            found.append(time.perf_counter() - start)
        print(f"| {name} | {spread(found)} |")


def sums(questions: Sequence[Asked], reference: int) -> None:
    adaptive, used, stamped, even, likeness = [], [], 0, {steps: [] for steps in EVEN}, []
    for number, question in enumerate(questions):
        found = integrated_gradients(question)
        adaptive.append(100 * found.check.residual)
        used.append(found.parameters["gradients"])
        stamped += bool(found.stamps)
        for steps in EVEN if number < 20 else ():
            even[steps].append(100 * abs(midpoints(question, steps).sum() / found.check.target - 1))
        if number < reference:
            likeness.append(float(np.corrcoef(found.raw.reshape(-1), midpoints(question, 1000).reshape(-1))[0, 1]))
    print("\n| places on the way | gradients | % of the rise that the sum misses |\n|---|---|---|")
    print(f"| chosen by the error | {spread(used, 0)} | {spread(adaptive, 1)} |")
    for steps, errors in even.items():
        print(f"| even | {steps} | {spread(errors, 1)} |")
    print(f"\nNot converged (more than 2 %): {stamped} of {len(questions)} photos.")
    if likeness:
        print(f"Correlation with the map of 1,000 even places: {spread(likeness, 4)}.")


def midpoints(question: Asked, steps: int) -> np.ndarray:
    """Integrated gradients from the mean grey with even steps."""
    x = taken(question.subject, question.photo.pixels)
    total = torch.zeros_like(x)
    for part in ((torch.arange(steps) + 0.5) / steps).split(8):
        total += slopes_at(question.subject, part[:, None, None, None] * x, question.target)[1].sum(0, keepdim=True)
    return (total / steps * x)[0].double().numpy()


def against_captum(questions: Sequence[Asked]) -> None:
    apart = [largest(guided(question).raw - gradient(question).raw, gradient(question).raw) for question in questions]
    print(f"\nGuided against plain gradient, largest difference over largest gradient: {spread(apart)}.")
    try:
        from captum.attr import GuidedBackprop
    except ImportError:
        print("Captum is not installed.")
        return
    theirs = []
    for question in questions:
        x = taken(question.subject, question.photo.pixels).requires_grad_()
        found = GuidedBackprop(question.subject.net).attribute(x, target=question.target)[0].detach().numpy()
        theirs.append(largest(found - gradient(question).raw, gradient(question).raw))
    print(f"The same of Captum's guided backpropagation, which knows only ReLU: {spread(theirs)}.")


def largest(values: np.ndarray, over: np.ndarray) -> float:
    return float(np.abs(values).max() / np.abs(over).max())


def pairs_of(name: str, pools: int, questions: Sequence[Asked], settings: dict[str, Any]) -> str:
    """A row of the table: pairs of photos, each explained for the class of the first."""
    cosines: dict[str, list[float]] = {"deconv": [], "guided": []}
    count = min(PAIRS, len(questions) // 2)
    for one, other in zip(questions[:count], questions[count : 2 * count], strict=True):
        for rule, method in (("deconv", deconv), ("guided", guided)):
            raws = [
                method(Asked(one.subject, asked.photo, one.target, settings=settings)).raw.reshape(-1).astype(float)
                for asked in (one, other)
            ]
            cosines[rule].append(float(raws[0] @ raws[1] / np.linalg.norm(raws[0]) / np.linalg.norm(raws[1])))
    cells = " | ".join(spread(values, 3) for values in cosines.values())
    return f"| {name} | {pools} | {2 * count} | {cells} |"


def trained(name: str, data: str, epochs: int) -> str:
    """Train a small net on photos of 32 x 32 and compare pictures of photos that it has not seen."""
    dataset = open_dataset(data)
    preprocessing = Preprocessing(32, 1.0, (127.0,) * 3, (60.0,) * 3)
    torch.manual_seed(0)
    net = build_net(name, classes=len(dataset.classes))
    subject = Subject(name, preprocessing, tuple(dataset.classes), lambda: net, "")
    rows = np.random.default_rng(0).permutation(len(dataset.photos))[:3000]
    photos = [subject.photo(dataset.fetch(dataset.photos[row])) for row in rows]
    x = torch.from_numpy(preprocessing.normalise(np.stack([photo.pixels for photo in photos])))
    y = torch.tensor([dataset.photos[row].label for row in rows])
    held = len(rows) // 5
    optimiser, mixed = torch.optim.Adam(net.parameters(), 1e-3), np.random.default_rng(1)
    for _ in range(epochs):
        for batch in torch.from_numpy(mixed.permutation(np.arange(held, len(rows)))).split(64):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimiser.step()
    net.eval()
    with torch.no_grad():
        right = (net(x[:held]).argmax(1) == y[:held]).float().mean()
    questions = [predicted(subject, photo) for photo in photos[: min(held, 2 * PAIRS)]]
    pools = {"small-cnn": 2, "cifar-cnn": 3}[name]
    return pairs_of(f"{name}, {100 * right:.1f} % right on {held} photos", pools, questions, {})


if __name__ == "__main__":
    main()
