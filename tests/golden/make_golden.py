"""Make the golden run of the present schema: `python tests/golden/make_golden.py`, once, when a schema is released.

It is kept for ever: every later version of the program must open it and give the same outputs. So that it takes some
kilobytes and not 19 MB, it refers to the published backbone by name and hash instead of holding it, and its head takes
the 16 features of an early cut. The expected outputs are worked out here from the definition, in double precision.
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from headstart.backbones import open_backbone  # noqa: E402
from headstart.classifier import Classifier  # noqa: E402
from headstart.heads import Head  # noqa: E402
from headstart.runs import SCHEMA, write_run  # noqa: E402
from make_run import CONFIG, small_metrics, small_rows  # noqa: E402

CLASSES = ("ants", "bees", "=wasps\n")
TEMPERATURE = 1.3
PLAN = {"case": "small-similar", "strategy": "head", "cut": "stage1", "head": "ridge", "why": ["Few photos."]}


def main() -> None:
    backbone, cut = open_backbone("efficientnet-lite0"), "stage1"
    draw = np.random.default_rng(1)
    weight = draw.normal(size=(len(CLASSES), backbone.cuts[cut])).astype(np.float32)
    bias = draw.normal(size=len(CLASSES)).astype(np.float32)
    features = draw.normal(size=(4, backbone.cuts[cut])).astype(np.float32)
    classifier = Classifier(
        backbone=backbone,
        cut=cut,
        head=Head("ridge", {"weight": weight, "bias": bias}, {"strength": 0.5}),
        classes=CLASSES,
        temperature=TEMPERATURE,
        thresholds=(0.5, 0.6, 0.7),
    )
    rows = small_rows(CLASSES, count=12)
    write_run(
        HERE / f"run-{SCHEMA}",
        classifier=classifier,
        metrics=small_metrics(rows, CLASSES),
        plan=PLAN,
        config=CONFIG,
        predictions=rows,
        history=[{"epoch": 1, "loss": 0.7}],
        report="<!doctype html><title>golden</title>\n",
        embed_backbone=False,
    )
    logits = features.astype(np.float64) @ weight.T.astype(np.float64) + bias
    powers = np.exp(logits / TEMPERATURE)
    expected = {
        "classes": CLASSES,
        "features": features.tolist(),
        "logits": logits.tolist(),
        "probabilities": (powers / powers.sum(axis=1, keepdims=True)).tolist(),
    }
    (HERE / f"expected-{SCHEMA}.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
