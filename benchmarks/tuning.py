"""An epoch of fine-tuning from cached activations against an epoch of the whole net, side by side.

    python benchmarks/tuning.py [--photos 96] [--rounds 5] [--cuts stage3,stage4,stage5,stage6,stage7]

Photos of noise, forward and backward passes and the optimiser's step in batches of 32, AdamW, every scheme once a
round: the whole net in eager torch with its batch norms training (in torch's usual layout and in channels_last), the
end of the net with the frozen part computed again in every epoch, and the end alone from cached activations, batch
norms folded.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from harness import machine, spread
from torch import Tensor, nn

from headstart.backbones import open_backbone
from headstart.layers.summary import summarise
from headstart.transfer.tail import Tail

BATCH, CLASSES = 32, 10


def epoch(net: nn.Module, inputs: Tensor, before: Callable[[Tensor], Tensor] | None = None) -> Callable[[], float]:
    """A function that trains for one epoch and gives its seconds."""
    labels = torch.arange(len(inputs)) % CLASSES
    optimiser = torch.optim.AdamW([one for one in net.parameters() if one.requires_grad], 1e-4, fused=True)

    def run() -> float:
        begun = time.perf_counter()
        for start in range(0, len(inputs), BATCH):
            given = inputs[start : start + BATCH]
            if before is not None:
                with torch.no_grad():
                    given = before(given)
            loss = nn.functional.cross_entropy(net(given), labels[start : start + BATCH])
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return time.perf_counter() - begun

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cuts", default="stage3,stage4,stage5,stage6,stage7")
    arguments = parser.parse_args()
    print(machine())
    backbone = open_backbone("efficientnet-lite0")
    photos = torch.randn(arguments.photos, 3, 224, 224)
    last = photos.contiguous(memory_format=torch.channels_last)
    nets = [backbone.net().train() for _ in range(2)]
    for net in nets:
        net.classifier = nn.Linear(1280, CLASSES)
    nets[1] = nets[1].to(memory_format=torch.channels_last)
    runs = {"whole net": epoch(nets[0], photos), "whole net, channels_last": epoch(nets[1], last)}
    shares = {"whole net": 1.0, "whole net, channels_last": 1.0}
    total, behind = work(backbone.net())
    for cut in arguments.cuts.split(","):
        tail = Tail(backbone.net(), cut, None, CLASSES).to(memory_format=torch.channels_last).train()
        channels, height, width = backbone.outputs[f"{cut}_map"]
        maps = torch.randn(arguments.photos, channels, height, width).contiguous(memory_format=torch.channels_last)
        runs[f"behind {cut}, cached"] = epoch(tail, maps)
        shares[f"behind {cut}, cached"] = behind[cut] / total
    frozen = backbone.net().to(memory_format=torch.channels_last)
    again = Tail(backbone.net(), "stage5", None, CLASSES).to(memory_format=torch.channels_last).train()
    runs["behind stage5, computed again"] = epoch(again, last, lambda given: frozen.stages(given)["stage5"])
    shares["behind stage5, computed again"] = behind["stage5"] / total
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(arguments.rounds + 1):
        for name, run in runs.items():
            took = run()
            if round_number:  # the first warms up
                seconds[name].append(took)
    print("\n| what is trained | multiply-adds | ms a photo | times as fast as the whole net, channels_last |")
    print("|---|---|---|---|")
    whole = seconds["whole net, channels_last"]
    for name, values in seconds.items():
        ratios = [other / own for other, own in zip(whole, values, strict=True)]
        each = 1000 * statistics.median(values) / arguments.photos
        print(f"| {name} | {100 * shares[name]:.0f} % | {each:.1f} | {spread(ratios, 1)} |")


def work(net: nn.Module) -> tuple[int, dict[str, int]]:
    """Multiply-adds of a net, and of what lies behind each of its stages."""
    layers = summarise(net, (224, 224, 3)).layers
    total, behind, done = sum(layer.macs or 0 for layer in layers), {}, 0
    for stage in net.cuts:
        done += sum(layer.macs or 0 for layer in layers if layer.name.split(".")[0] == stage)
        behind[stage] = total - done
    return total, behind


if __name__ == "__main__":
    main()
