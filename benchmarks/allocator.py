"""Keeping freed memory in the process (`headstart.allocator`) against giving it back: seconds and page faults a step.

    python benchmarks/allocator.py [--rounds 5] [--only lenet,cifar-cnn,...]

Each step runs in a process of its own, kept or not, in turns; what a process prints is the median of its steps after
the first two. A ratio is taken within a round.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

from harness import machine, spread

#: name -> photos a step, pixels of a side, channels, steps that are timed
NETS = {
    "lenet": (128, 28, 1, 60),
    "cifar-cnn": (128, 32, 3, 30),
    "resnet18": (16, 224, 3, 3),
    "efficientnet-lite0": (16, 224, 3, 4),
}
PICTURE, GRADIENTS = "picture", "gradients"
STEPS = 20  # of gradient ascent


def training(net: str) -> Callable[[], None]:
    """One step: forward, loss, backward, Adam."""
    import torch

    from headstart.nets import build_net

    photos, side, channels, _ = NETS[net]
    torch.manual_seed(0)
    model = build_net(net, 10, **({"padding": 2} if net == "lenet" else {})).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)
    images = torch.randn(photos, channels, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (photos,))

    def step() -> None:
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def picture() -> Callable[[], None]:
    """So many steps of the picture that a net asks for."""
    from headstart.look.maximise import maximise
    from headstart.look.opening import open_subject

    subject = open_subject("efficientnet-lite0")
    return lambda: maximise(subject, classes=("207",), steps=STEPS) and None


def gradients() -> Callable[[], None]:
    """Integrated gradients of a photo of noise, outside the block that `explain` puts around it."""
    import numpy as np

    from headstart.explain import METHODS, Asked
    from headstart.look.opening import open_subject

    subject = open_subject("efficientnet-lite0")
    photo = subject.photo(np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8))
    method = METHODS["ig"]
    return lambda: method.find(Asked(subject, photo, 207, None, 0, dict(method.settings))) and None


def child(job: str, kept: bool) -> None:
    from headstart.allocator import memory_kept

    alone = {PICTURE: picture, GRADIENTS: gradients}
    step = alone[job]() if job in alone else training(job)
    seconds, faults = [], []
    with memory_kept() if kept else nullcontext():
        for number in range(2 + (2 if job in alone else NETS[job][3])):
            before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
            step()
            if number >= 2:
                seconds.append(time.perf_counter() - begun)
                faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(statistics.median(seconds), statistics.median(faults), peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join([*NETS, GRADIENTS, PICTURE]))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], arguments.child[1] == "kept")
        return
    print(machine())
    columns = (
        "step",
        "ms, kept",
        "ms, given back",
        "kept is faster by",
        "page faults, kept",
        "back",
        "MB, kept",
        "back",
    )
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for job in arguments.only.split(","):
        told: dict[str, list[list[float]]] = {"kept": [], "back": []}
        for number in range(arguments.rounds):
            for way in sorted(told, reverse=bool(number % 2)):
                done = subprocess.run(
                    [sys.executable, __file__, "--child", job, way], capture_output=True, text=True, check=True
                )
                told[way].append([float(word) for word in done.stdout.split()])
        kept, back = (list(zip(*told[way], strict=True)) for way in ("kept", "back"))
        faster = [other / own for own, other in zip(kept[0], back[0], strict=True)]
        middle = [f"{statistics.median(values):,.0f}" for values in (kept[1], back[1], kept[2], back[2])]
        told_of = {PICTURE: f"{STEPS} steps of a picture for a class", GRADIENTS: "integrated gradients of a photo"}
        what = told_of.get(job) or f"{job}, {NETS[job][0]} photos"
        times = " | ".join(spread([1e3 * value for value in values], 1) for values in (kept[0], back[0]))
        print(f"| {what} | {times} | {spread(faster)} | {' | '.join(middle)} |", flush=True)


if __name__ == "__main__":
    main()
