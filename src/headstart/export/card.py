"""The model card: what a model is, how good, for what, and how to use it, for whoever gets the file without the run.

Mitchell et al. 2019, "Model Cards for Model Reporting", arXiv:1810.03993: the sections follow theirs.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headstart.backbones import BACKBONES
from headstart.export.about import About
from headstart.export.formats import Format
from headstart.export.parity import Parity
from headstart.export.snippet import snippet
from headstart.files import shown
from headstart.report import facts
from headstart.runs import Run

_SPECIAL = frozenset("\\`*_{}[]<>#|~&$!")
FIRST = 20  # classes that are named in the first sentence


def model_card(run: Run, to: str, form: Format, about: About, parity: Parity) -> str:
    """Return the card as Markdown.

    Args:
        run: what was exported.
        to, form: the key and the entry of `headstart.export.formats.FORMATS`.
        about: what the file says about itself.
        parity: how far it is from the run.
    """
    parts = [
        _what(run, form),
        _how_good(run, parity),
        _use_and_limits(run),
        _preparation(run),
        _running(to, form),
        _origin(run, about),
    ]
    return "\n".join(line for part in parts for line in (*part, ""))


def plain(text: str) -> str:
    r"""A name as Markdown shows it letter by letter: no formatting, no link, no HTML, no control character.

    >>> print(plain("<b>a_b</b>"))
    \<b\>a\_b\</b\>
    """
    return "".join(f"\\{letter}" if letter in _SPECIAL else letter for letter in shown(text))


def share(value: float | None) -> str:
    """A share as a percentage; a dash where there is none.

    >>> share(0.9477), share(None)
    ('94.8 %', '-')
    """
    return "-" if value is None else f"{100 * value:.1f} %"


def _what(run: Run, form: Format) -> Iterator[str]:
    metrics, model = run.metrics, run.model
    classes, data = metrics["classes"], metrics["data"]
    named = ", ".join(map(plain, classes[:FIRST])) + (
        f" and {len(classes) - FIRST} more" if len(classes) > FIRST else ""
    )
    yield f"# {plain(str(data.get('name') or 'Model'))}: photos into {len(classes)} classes"
    yield ""
    yield f"It names the class of a photo, with a probability for each: {named}."
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| form | {form.title}: {', '.join(f'`{name}`' for name in form.files)} |"
    net, cut, kind = (plain(str(part)) for part in (model["backbone"]["name"], model["cut"], model["head"]["kind"]))
    yield f"| net | {net}, cut {cut}, head {kind} |"
    yield f"| trained on | {data['train']:,} photos |"
    yield f"| tested on | {data['test']:,} photos that took no part in any choice |"
    skipped = len(data.get("skipped", []))
    yield f"| left out | {skipped:,} files of {data['images']:,} that could not be used |"


def _how_good(run: Run, parity: Parity) -> Iterator[str]:
    metrics = run.metrics
    test, head = metrics["test"], facts.headline(metrics)
    yield "## How good it is"
    yield ""
    yield (
        f"**Test accuracy {share(head['accuracy'])}** on {head['photos']:,} photos, 95 % interval {share(head['low'])} "
        f"to {share(head['high'])}. Always answering '{plain(head['common'])}', the most frequent class, would give "
        f"{share(head['baseline'])}."
    )
    yield ""
    yield "| class | precision | recall | F1 | test photos |"
    yield "|---|---:|---:|---:|---:|"
    for row in facts.class_rows(test):
        cells = [share(row[key]) for key in ("precision", "recall", "f1")]
        yield f"| {plain(row['name'])} | {' | '.join(cells)} | {row['support']:,} |"
    yield ""
    yield from _mistakes(test, metrics["classes"])
    yield from _calibration(run, head)
    yield ""
    yield "What the file computes was compared with the run it comes from. " + parity.to_text()


def _mistakes(test: Mapping[str, Any], classes: Sequence[str]) -> Iterator[str]:
    if test.get("confusion") is None:
        return
    pairs = facts.confused_pairs(test, classes)[:4]
    if pairs:
        told = [f"{plain(p['label'])} as {plain(p['predicted'])} ({p['count']} of {p['total']})" for p in pairs]
        yield f"Most often taken for another: {', '.join(told)}."
        yield ""


def _calibration(run: Run, head: Mapping[str, Any]) -> Iterator[str]:
    test = run.metrics["test"]
    said = facts.calibration(list(run.predictions()))["said"]
    words = facts.calibration_words(said, head["low"], head["high"])
    loss = "-" if test.get("log_loss") is None else f"{test['log_loss']:.3f} nats"
    yield (
        f"Calibration: mean probability of its test answers {share(said)}, expected calibration error "
        f"{share(test.get('ece'))}, log loss {loss}. {words} "
        f"The logits are divided by the temperature {run.classifier.temperature:.4g} first."
    )


def _use_and_limits(run: Run) -> Iterator[str]:
    data, thresholds = run.metrics["data"], run.classifier.thresholds
    yield "## Intended use and limits"
    yield ""
    yield f"- For photos like the {data['train']:,} it was trained on: the same camera, light, place and framing."
    yield (
        "- The interval above covers the chance of the draw of the test photos. It does not cover photos of another "
        "kind: test it on your own before you rely on it."
    )
    yield (
        "- It gives one class a photo, always one of those it knows. A photo of something else gets one of them too, "
        "at times with a high probability."
    )
    yield "- It sees the centre of the photo only: see the next section."
    if thresholds is None:
        yield "- No threshold was set; where a mistake is costly, hand the answers of low probability to a person."
    else:
        named = zip(run.classifier.classes, thresholds, strict=True)
        limits = ", ".join(f"{plain(name)} {share(limit)}" for name, limit in named)
        yield f"- An answer below the threshold of its class counts as unsure: {limits}."
    for item in run.metrics.get("diagnosis", [])[:4]:
        yield f"- {plain(str(item['finding']))} {plain(str(item['evidence']))}"
    yield "- Not for decisions about people, nor where an error can hurt somebody, without a person who checks."


def _preparation(run: Run) -> Iterator[str]:
    prepared = run.classifier.backbone.preprocessing
    target, size, channels = prepared.decode_target(), prepared.size, prepared.channels
    yield "## How a photo becomes the input"
    yield ""
    yield "Inside the file: `(image - mean) / std`. Before it, in this order:"
    yield ""
    yield (
        f"1. Decode. While the shorter side has at least twice {target} pixels, halve the photo: a JPEG up to 8 times "
        "while it is decoded, the rest by averaging blocks. Transparency lies over white. Turn it as its EXIF "
        "orientation says."
    )
    step = 2
    if channels == 1:
        yield "2. Make it luminance (0.299 R + 0.587 G + 0.114 B, Pillow's mode `L`)."
        step = 3
    yield (
        f"{step}. Cut out the centre square, {prepared.crop_fraction:g} of the shorter side, and resize it to {size} x "
        f"{size} with Pillow's `{prepared.filter}` filter, in one call of `resize(box=...)`; the edges of the square "
        "need not be whole pixels."
    )
    colours = "one value of luminance" if channels == 1 else "red, green, blue"
    yield (
        f"{step + 1}. Hand it over as bytes: `image`, uint8 (batch, {size}, {size}, {channels}), {colours}, 0 to 255. "
        "Any number of photos at a time."
    )
    yield ""
    yield "Out come `probabilities` and `logits`, float32 (batch, classes), in the order of the classes above."


def _running(to: str, form: Format) -> Iterator[str]:
    yield "## Use it"
    yield ""
    yield f"`pip install numpy pillow {form.runs_with}`; save this beside the model and give it the names of photos:"
    yield ""
    yield "```python"
    yield snippet(to).rstrip("\n")
    yield "```"
    yield ""
    yield (
        "It prints the probabilities that `headstart predict` prints, for JPEG and PNG photos of 8 bits a channel. "
        "headstart treats grey of 16 bits, CMYK with a colour profile and CIELAB otherwise, and passes over damaged "
        "EXIF data."
    )


def _origin(run: Run, about: About) -> Iterator[str]:
    backbone, provenance = run.model["backbone"], run.metrics.get("provenance", {})
    yield "## Where it comes from"
    yield ""
    version, identity = about.content["headstart"], about.content["run"]["identity"]
    yield f"- Exported by headstart {version} from a run whose model has the identity `{identity}`."
    yield f"- Weights of the net: {plain(str(backbone['source']))}, SHA-256 `{backbone['weights_sha256']}`."
    if backbone["name"] in BACKBONES:
        yield "- The published ImageNet weights of EfficientNet-Lite are under Apache-2.0."
    fingerprint, seed = run.metrics["data"].get("fingerprint", "-"), provenance.get("seed", "-")
    yield f"- Data: fingerprint {plain(str(fingerprint))}; seed {plain(str(seed))}."
    yield (
        "- The file carries this as JSON, `headstart` in its metadata, with the SHA-256 of the text: classes in order, "
        f"temperature, thresholds, preparation, hashes of the weights. That SHA-256 is `{about.sha256}`."
    )
    yield "- `manifest.json` has size and SHA-256 of each file here, `parity.json` the comparison with the run."
