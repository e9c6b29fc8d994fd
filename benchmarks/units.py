"""Seconds to find the photos that excite each unit of a layer, and whether what is shown of them is exact.

    python benchmarks/units.py ../shared/data/ants_bees [--photos 1000] [--layers stage5 head stem] [--units 60]

For each layer of EfficientNet-Lite0 with its published weights: the scan of all units over the photos (as many as
wanted: the same ones again, with other bytes behind their end), in a cache folder that holds no scan yet; the same scan
again; and one unit's nine projections. Then, for units drawn at random over those layers:

- recorded: the largest difference between a maximum in the scan and the value that torch gives for the photo read
  again, as a share of the value;
- crop: how many units keep their value to the last bit when everything outside their receptive field is noise;
- leak: how many projections have a value other than 0 outside the receptive field.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import torch
from features import repeated
from harness import machine, peak_memory

from headstart.dataset import Dataset
from headstart.explain.projection import project_units, rule_for
from headstart.explain.recording import reach
from headstart.explain.subject import Subject
from headstart.look.maps import route_to
from headstart.look.opening import open_subject
from headstart.look.scan import Scan, scan
from headstart.look.units import field_of, look_at_units
from headstart.look.wiring import row_of
from headstart.readers import open_dataset


def timed(subject: Subject, dataset: Dataset, layer: str) -> Scan:
    begun = time.perf_counter()
    found = scan(subject, dataset, layer)
    first = time.perf_counter() - begun
    begun = time.perf_counter()
    scan(subject, dataset, layer)
    second = time.perf_counter() - begun
    begun = time.perf_counter()
    look_at_units(subject, dataset, layer, [0]).sheet()
    page = time.perf_counter() - begun - second
    route = route_to(subject, layer)
    way = "torch" if route.output is None else f"engine to {route.output}" + (", then torch" if route.cut else "")
    each = 1000 * first / found.read
    print(f"| {layer} | {found.units} | {way} | {first:.1f} | {each:.0f} | {second:.2f} | {page:.1f} |", flush=True)
    return found


def exactness(subject: Subject, scans: Sequence[Scan], count: int, seed: int) -> None:
    """Draw units and their strongest photos; print how exact what is said of them is."""
    random = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    worst, kept, cropped, leaks = 0.0, 0, 0, 0
    for _ in range(count):
        found = scans[int(random.integers(len(scans)))]
        unit = int(random.integers(found.units))
        photo = found.best(unit, 9)[int(random.integers(9))]
        place, layer = found.place(photo, unit), found.layer
        seen = subject.photo(found.dataset.fetch(found.dataset.photos[photo]))
        x = subject.normalised(seen.pixels)
        field = row_of(subject, layer).receptive_field
        left, top, right, bottom = (max(0, edge) for edge in field_of(field, place))
        noisy = x + 5 * torch.randn(x.shape, generator=noise)
        noisy[:, :, top:bottom, left:right] = x[:, :, top:bottom, left:right]
        with torch.no_grad():
            value, again = (float(reach(subject, one, layer).before[0, unit][place]) for one in (x, noisy))
        worst = max(worst, abs(found.value(photo, unit) - value) / max(abs(value), 1e-6))
        cropped += not torch.equal(noisy, x)
        kept += value == again
        signal = project_units(subject, x, layer, [unit], [place], rule_for(subject, layer)[0])
        signal[:, :, top:bottom, left:right] = 0
        leaks += bool(signal.any())
    print(f"\n{count} units: recorded within {worst:.1e} of the value; {kept} of {count} keep it ({cropped} with noise "
          f"outside the field); {leaks} of {count} projections leak")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--layers", nargs="+", default=["stage3", "stage5", "head", "stem"])
    parser.add_argument("--units", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HEADSTART_CACHE"] = cache
        subject = open_subject("efficientnet-lite0")
        subject.logits([np.zeros(subject.preprocessing.shape, np.uint8)])  # converted, and everything imported
        subject.summary  # noqa: B018 - made once
        dataset = repeated(open_dataset(given.data), given.photos)
        print(f"\n{given.photos} photos of {dataset.name}, torch threads {torch.get_num_threads()}\n")
        print("| layer | units | way | scan, s | ms a photo | again, s | page of a unit, s |")
        print("|---|---|---|---|---|---|---|")
        scans = [timed(subject, dataset, layer) for layer in given.layers]
        print(f"\npeak memory {peak_memory():.0f} MB")
        exactness(subject, scans, given.units, given.seed)


if __name__ == "__main__":
    main()
