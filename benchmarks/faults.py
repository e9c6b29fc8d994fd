"""Planted faults: how often the 50-photo check names the right one first, and how often it blames a sound set-up.

    python benchmarks/faults.py DATA... [--seeds 5] [--first-seed 500] [--faults NAME...]

DATA as for `headstart train`; small photos are best. Every fault is planted in three nets on every data set with every
seed; the seed draws the weights, the 50 photos, the optimiser, and which of several forms the fault has. Seeds from 500
on were not looked at while the rules of `headstart.training` were written.
"""

import argparse
import dataclasses
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from harness import machine
from torch import Tensor, nn

from headstart.config import LoopConfig, TrainConfig
from headstart.diagnose import Share
from headstart.errors import ConfigError
from headstart.job.practice import take_sample
from headstart.training.losses import make_loss
from headstart.training.optimisers import make_optimiser, usual_rate
from headstart.training.sanity import check_net

NETS = ("lenet", "small-cnn", "mlp")
PHOTOS = 1000


@dataclasses.dataclass
class SetUp:
    """What a fault may spoil."""

    net: nn.Module
    images: Tensor
    labels: Tensor
    config: LoopConfig
    classes: int
    random: random.Random
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    make: Callable[[nn.Module, LoopConfig], torch.optim.Optimizer] = make_optimiser


class Through(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return self.function(x)


def weighted(net: nn.Module) -> list[str]:
    return [name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def wrap(net: nn.Module, name: str, after: Callable[[Tensor], Tensor]) -> None:
    """Let a function loose on the output of a layer."""
    net.get_submodule(name).register_forward_hook(lambda _module, _input, output: after(output))


def shuffled(case: SetUp) -> None:
    order = torch.randperm(len(case.labels), generator=torch.Generator().manual_seed(case.random.randrange(10**6)))
    case.labels = case.labels[order]


def frozen(case: SetUp) -> None:
    layers = weighted(case.net)
    form = case.random.choice(("all", "all but the last", "not in the optimiser"))
    if form == "not in the optimiser":
        left_out = case.random.choice(layers)

        def make(net: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
            kept = [value for name, value in net.named_parameters() if not name.startswith(left_out + ".")]
            return torch.optim.Adam(kept, usual_rate(config))

        case.make = make
        return
    for name in layers if form == "all" else layers[:-1]:
        case.net.get_submodule(name).requires_grad_(False)


def rate_too_high(case: SetUp) -> None:
    factor = case.random.choice((1000, 3000, 10000))
    case.config = dataclasses.replace(case.config, learning_rate=usual_rate(case.config) * factor)


def rate_too_low(case: SetUp) -> None:
    factor = case.random.choice((1e-3, 1e-4, 1e-5))
    case.config = dataclasses.replace(case.config, learning_rate=usual_rate(case.config) * factor)


def dead(case: SetUp) -> None:
    layer: Any = case.net.get_submodule(case.random.choice(weighted(case.net)[:-1]))
    share = case.random.choice((0.8, 0.9, 1.0))
    with torch.no_grad():
        layer.bias[: round(share * len(layer.bias))] = -1000.0


def ignored(case: SetUp) -> None:
    form = case.random.choice(("input", "output", "labels"))
    plain = make_loss(case.config, case.classes)
    if form == "input":
        wrap(case.net, weighted(case.net)[0], lambda x: 0 * x + x.mean(dim=0, keepdim=True).detach())
    elif form == "output":
        case.loss = lambda logits, labels: plain(0 * logits, labels)
    else:
        case.loss = lambda logits, labels: plain(logits, 0 * labels)


def cut(case: SetUp) -> None:
    form: Callable[[Tensor], Tensor] = case.random.choice((torch.detach, torch.round, torch.sign))
    wrap(case.net, case.random.choice(weighted(case.net)[:-1]), form)


def scale(case: SetUp) -> None:
    levels = 60 * case.images + 110  # as they were, more or less
    form = case.random.choice(("raw", "twice", "nan", "flat"))
    if form == "raw":
        case.images = levels
    elif form == "twice":
        case.images = (levels / 255 - 0.43) / 60
    elif form == "nan":
        case.images = torch.where(torch.rand(case.images.shape) < 0.01, torch.nan, case.images)
    else:
        case.images = torch.div(levels.clamp(0, 254), 255, rounding_mode="floor")


#: fault -> how it is planted, and the causes that name it
FAULTS: dict[str, tuple[Callable[[SetUp], None], set[str]]] = {
    "labels shuffled": (shuffled, {"labels"}),
    "frozen weights": (frozen, {"frozen"}),
    "learning rate too high": (rate_too_high, {"rate-too-high"}),
    "learning rate too low": (rate_too_low, {"rate-too-low"}),
    "dead units": (dead, {"dead-units"}),
    "input or output ignored": (ignored, {"input-ignored"}),
    "no gradient through a layer": (cut, {"no-gradient"}),
    "normalisation off": (scale, {"input-scale", "input-constant", "input-not-finite"}),
    "none": (lambda _: None, set()),
}


def run(samples: dict[tuple[str, str], Any], seed: int, fault: str) -> dict[tuple[str, str], str]:
    """The first cause named in every data set and net, "" where there is none."""
    named = {}
    for (data, net), sample in samples.items():
        chance = random.Random(f"{seed} {data} {net} {fault}")
        config = LoopConfig(optimiser=chance.choice(("adam", "sgd")), seed=seed)
        mean, std = (torch.tensor(levels)[:, None, None] for levels in (sample.mean, sample.std))
        torch.manual_seed(seed)
        images = (sample.pixels.float() - mean) / std
        case = SetUp(sample.build(), images, sample.labels, config, len(sample.classes), chance)
        FAULTS[fault][0](case)
        result = check_net(
            case.net, case.images, case.labels, case.config, classes=case.classes, loss=case.loss, make=case.make
        )
        causes = [item["cause"] for item in result.findings]
        named[data, net] = causes[0] if causes else "" if result.passed else "failed"
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=500)
    parser.add_argument("--photos", type=int, default=PHOTOS)
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), help="only these, by name")
    given = parser.parse_args()
    torch.set_num_threads(1)
    begun = time.perf_counter()
    samples = {}
    for data in given.data:
        for net in NETS:
            try:
                config = TrainConfig(net=net, image_size=28 if net == "lenet" else 8)
                samples[data, net] = take_sample(data, config, photos=given.photos)
            except ConfigError as error:
                sys.exit(str(error))
    print(machine(), end="\n\n")
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    print(f"{len(given.data)} data sets, {len(NETS)} nets, seeds {seeds[0]} to {seeds[-1]}, {given.photos} photos\n")
    print("| planted | named first | otherwise |\n|---|---|---|")
    hits = planted = 0
    for fault in given.faults:
        causes = FAULTS[fault][1]
        named: list[tuple[str, str, int, str]] = []
        for seed in seeds:
            named += [(*place, seed, cause) for place, cause in run(samples, seed, fault).items()]
        right = sum(cause in (causes or {""}) for *_, cause in named)
        wrong = Counter(cause or "nothing" for *_, cause in named if cause not in (causes or {""}))
        print(f"| {fault} | {right} of {len(named)} | {', '.join(f'{c} {n}' for c, n in wrong.items())} |", flush=True)
        for data, net, seed, cause in named:
            if cause not in (causes or {""}):
                print(f"  {fault}: {data} {net} seed {seed}: {cause or 'nothing'}", file=sys.stderr, flush=True)
        if causes:
            hits, planted = hits + right, planted + len(named)
        else:
            print(f"\nfalse alarms on sound set-ups: {Share.of(len(named) - right, len(named))}")
    if planted:
        print(f"named first: {Share.of(hits, planted)}")
    print(f"{time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
