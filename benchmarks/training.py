"""Training from scratch: headstart's loop against Keras 3 on each of its backends and a plain PyTorch loop.

    python benchmarks/training.py [--keras-tensorflow PYTHON] [--keras-jax PYTHON] [--keras-torch PYTHON]
        [--nets lenet,cifar-cnn] [--rounds 9] [--photos 12800] [--batch 128]

PYTHON is an interpreter that has Keras and that backend; without it the contender is left out. Same net, batch,
optimiser (Adam), precision (float32) and bytes of photos; every contender also counts loss and accuracy. Each is a
process of its own that trains one epoch when told to; the rounds take all of them in turn, in an order that changes, so
that what else the machine does falls on all alike. A ratio is taken within a round.

`headstart:no-shortcuts` is without `headstart.training.shortcuts`, `headstart:memory-returned` without
`headstart.allocator`. `headstart:spin=N`, which must be named in --only,
has its threads look N times for work before they sleep (GOMP_SPINCOUNT; plain `headstart` has the command's own N), and
`headstart:passive` has them sleep at once (OMP_WAIT_POLICY). `keras-tensorflow:off` is without its XLA compiler.

The multiply-add limit: one trained photo takes three times the multiply-adds of a forward pass (forward, gradient of
the inputs, gradient of the weights; less those of the first layer's inputs), and a large matrix product, measured in
the same rounds, says how many the machine can do.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from harness import machine, spread

from headstart.__main__ import SPIN

PEERS = Path(__file__).with_name("training_peers.py")
OWN = "headstart"
GEMM_MILLIONS = 100_000  # multiply-adds of one round of matrix products


def forward_macs(net: str) -> int:
    """Multiply-adds of one photo."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from headstart.nets import build_net

    model, shape = (build_net(net, 10, padding=2), (1, 28, 28)) if net == "lenet" else (build_net(net, 10), (3, 32, 32))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


class Contender:
    """A process that trains one epoch when told to."""

    def __init__(self, name: str, python: str, net: str, photos: int, batch: int) -> None:
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
        if name.startswith(OWN):
            quiet["GOMP_SPINCOUNT"] = SPIN  # as the command does; read when torch is loaded
        if name.endswith(":passive"):
            quiet["OMP_WAIT_POLICY"] = "passive"  # likewise
        if ":spin=" in name:
            quiet["GOMP_SPINCOUNT"] = name.split("=")[1]  # likewise
        command = [python, str(PEERS), name, net, str(photos), str(batch)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | quiet,
        )
        self.start = self.answer()

    def answer(self) -> float:
        """Wait for the number that it prints."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended; run it alone to see why")
        return float(line)

    def epoch(self) -> float:
        """Photos a second of one more epoch."""
        if self.process.stdin:
            print("go", file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        """End it."""
        self.process.communicate()


def contenders(arguments: argparse.Namespace) -> dict[str, str]:
    """Their interpreters by name."""
    ways = ("no-shortcuts", "memory-returned", "one-thread", "passive")
    ours = (OWN, *(f"{OWN}:{way}" for way in ways), "torch", "torch:channels-last")
    chosen = dict.fromkeys(ours, sys.executable)
    if arguments.keras_tensorflow:
        chosen |= {"keras-tensorflow": arguments.keras_tensorflow, "keras-tensorflow:off": arguments.keras_tensorflow}
    if arguments.keras_jax:
        chosen["keras-jax"] = arguments.keras_jax
    if arguments.keras_torch:
        chosen["keras-torch"] = arguments.keras_torch
    only = arguments.only.split(",") if arguments.only else chosen
    chosen |= {name: sys.executable for name in only if name.startswith(f"{OWN}:spin=")}
    return {name: python for name, python in chosen.items() if name in only or name == OWN}


def measure(net: str, arguments: argparse.Namespace) -> None:
    running = {
        name: Contender(name, python, net, arguments.photos, arguments.batch)
        for name, python in contenders(arguments).items()
    }
    running["sgemm"] = Contender("sgemm", sys.executable, net, GEMM_MILLIONS, 0)
    rates: dict[str, list[float]] = {name: [] for name in running}
    order = list(running)
    shuffler = random.Random(0)
    for _ in range(arguments.rounds):
        shuffler.shuffle(order)
        for name in order:
            time.sleep(0.3)  # threads of the one before go to sleep
            rates[name].append(running[name].epoch())
    for contender in running.values():
        contender.close()
    macs = forward_macs(net)
    gemm = [rate * 1e6 for rate in rates.pop("sgemm")]  # multiply-adds a second
    print(f"\n{net}: {arguments.batch} photos a step, {arguments.photos:,} an epoch; {macs:,} multiply-adds forward")
    print(f"matrix products: {spread([2e-9 * rate for rate in gemm], 0)} GFLOP/s; limit: median / (3 x forward)")
    limit = statistics.median(gemm) / (3 * macs)
    print("| | photos/s | headstart is faster by | of the limit | first epoch with start, s |\n|---|---|---|---|---|")
    for name, values in sorted(rates.items(), key=lambda pair: -statistics.median(pair[1])):
        ratios = [own / other for own, other in zip(rates[OWN], values, strict=True)]
        faster = "" if name == OWN else f"{spread(ratios)}"
        print(
            f"| {name} | {spread(values, 0)} | {faster} | {statistics.median(values) / limit:.0%} | "
            f"{running[name].start:.1f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="lenet,cifar-cnn")
    parser.add_argument("--keras-tensorflow", metavar="PYTHON")
    parser.add_argument("--keras-jax", metavar="PYTHON")
    parser.add_argument("--keras-torch", metavar="PYTHON")
    parser.add_argument("--only", default="", help="contenders, comma-separated; all by default")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--photos", type=int, default=12_800, help="of an epoch")
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    print(machine())
    for net in arguments.nets.split(","):
        measure(net, arguments)


if __name__ == "__main__":
    main()
