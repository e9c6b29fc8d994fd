"""How far maps can be trusted: identities, sanity, pointing and curves at full size, with the spread over seeds.

    python benchmarks/trust.py WHAT DATA [--photos 100] [--seeds 3] [--methods cam gradient guided] [--cascade 8]
                               [--sheet FILE]

WHAT is a run's folder or a net's name; DATA anything `headstart train` takes. A seed draws the photos, the mosaics, the
places of the pasted photos and the shuffling. Every number is the mean over seeds [smallest to largest]. With
--cascade N the layers are shuffled down to the first, on N photos of the first seed.
"""

import argparse
import math
import statistics
import time
from pathlib import Path

from harness import machine

from headstart.explain import METHODS, default_methods
from headstart.look.material import gather
from headstart.look.opening import open_subject
from headstart.look.randomise import sanity
from headstart.look.trust import TESTS, Trust, trust


def over_seeds(values: list[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "–"
    return f"{statistics.mean(known):.3f} [{min(known):.3f} to {max(known):.3f}]"


def print_table(tables: list[Trust]) -> None:
    methods = [one.method.name for one in tables[0].judged]
    print(f"\n| test | {' | '.join(methods)} | to beat | targets a seed |")
    print("|---|" + "---|" * (len(methods) + 2))
    residuals = [[table.judged[place].residual for table in tables] for place in range(len(methods))]
    worst = ["–" if row[0] is None else f"{max(value or 0.0 for value in row):.1e}" for row in residuals]
    print(f"| largest residual of the identity | {' | '.join(worst)} | | {tables[0].photos} |")
    for key, title in TESTS.items():
        cells = []
        for place in range(len(methods)):
            numbers = [table.judged[place].numbers.get(key) for table in tables]
            cells.append(over_seeds([mean.value for mean in numbers if mean is not None]))
        beaten = ", ".join(
            f"{name} {over_seeds([table.to_beat[key][name].value for table in tables])}".strip()
            for name in tables[0].to_beat.get(key, {})
        )
        counts = {one.numbers[key].n for table in tables for one in table.judged if key in one.numbers}
        print(f"| {title} | {' | '.join(cells)} | {beaten} | {', '.join(map(str, sorted(counts)))} |")


def print_cascade(what: str, data: str, methods: list[str], photos: int) -> None:
    subject = open_subject(what)
    sure = gather(subject, data, photos).sure
    pairs = [(one.photo, one.target) for one in sure]
    levels = sanity(subject, pairs, [METHODS[name] for name in methods], depths=None)
    print(f"\nRank correlation with the map before, shuffled from the last layer down, {len(pairs)} photos\n")
    print(f"| shuffled down to | {' | '.join(methods)} |\n|---|" + "---|" * len(methods))
    for level in levels:
        print(f"| {level.name} | {' | '.join(f'{level.mean(name):.3f}' for name in methods)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what")
    parser.add_argument("data")
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=[], choices=sorted(METHODS))
    parser.add_argument("--cascade", type=int, default=0, metavar="N")
    parser.add_argument("--sheet", type=Path, help="where the picture of the first seed goes")
    arguments = parser.parse_args()
    print(machine())
    subject = open_subject(arguments.what)
    tables = []
    for seed in range(arguments.seeds):
        begin = time.perf_counter()
        tables.append(trust(subject, arguments.data, arguments.methods, photos=arguments.photos, seed=seed))
        print(f"\nseed {seed}, {time.perf_counter() - begin:.0f} s\n\n{tables[-1].to_text()}", flush=True)
    print_table(tables)
    if arguments.sheet is not None:
        tables[0].sheet().save(arguments.sheet)
    if arguments.cascade:
        names = [name for name in arguments.methods or default_methods(subject) if name != "deconv"]
        print_cascade(arguments.what, arguments.data, names, arguments.cascade)


if __name__ == "__main__":
    main()
