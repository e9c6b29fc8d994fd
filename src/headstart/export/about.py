"""What an exported file says about itself: one JSON text in its metadata, and the SHA-256 of that text beside it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from headstart import __version__
from headstart.errors import ExportError
from headstart.export.graph import IMAGE, LOGITS, PROBABILITIES
from headstart.runs import Run

SCHEMA = 1  # of the text: raise it when a reader of the old one could misread the new one
KEY, HASH_KEY = "headstart", "headstart_sha256"  # under which the text and its hash stand in a file


@dataclass(frozen=True)
class About:
    """The description of a model that travels inside its file.

    Args:
        text: a JSON object, ASCII, one line.
        sha256: of the text.
    """

    text: str
    sha256: str

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object."""
        content: dict[str, Any] = json.loads(self.text)
        return content


def describe(run: Run) -> About:
    """Write down everything that a program must know to use the model of a run, and what it was made from."""
    classifier, model = run.classifier, run.model
    preprocessing = classifier.backbone.preprocessing
    side, channels = preprocessing.size, preprocessing.channels
    test = run.metrics["test"]
    content = {
        "schema": SCHEMA,
        "headstart": __version__,
        "classes": list(classifier.classes),
        "temperature": float(classifier.temperature),
        "thresholds": None if classifier.thresholds is None else list(classifier.thresholds),
        "input": {"name": IMAGE, "type": "uint8", "shape": ["batch", side, side, channels],
                  "channels": "luminance" if channels == 1 else "red, green, blue"},
        "outputs": {PROBABILITIES: "softmax(logits / temperature), float32 (batch, classes)",
                    LOGITS: "float32 (batch, classes)"},
        "preprocessing": {**preprocessing.to_dict(), "channels": channels,
                          "shortest_side": preprocessing.decode_target()},
        "inside": "(image - mean) / std is part of the graph; crop and resize are not",
        "net": {"name": model["backbone"]["name"], "weights_sha256": model["backbone"]["weights_sha256"],
                "cut": classifier.cut, "head": classifier.head.kind,
                "head_sha256": model["head"]["weights_sha256"]},
        "run": {"identity": model["identity"], "test_accuracy": test["accuracy"],
                "test_accuracy_ci95": test["accuracy_ci95"]},
    }  # fmt: skip
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return About(text, hashlib.sha256(text.encode()).hexdigest())


def checked(text: str | None, sha256: str | None, name: str) -> About:
    """The description as it was read from a file.

    Raises:
        ExportError: it is missing or does not fit its hash.
    """
    if text is None or hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise ExportError(f"{name} does not carry its description as it was written; export the run again")
    return About(text, sha256)
