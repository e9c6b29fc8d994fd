"""The report of runs that were really trained: every section is there, and says what the files of the run say."""

import base64
import csv
import json
import platform
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from conftest import make_photo_folder
from headstart.config import TrainConfig

SECTIONS = ("verdict", "next", "confusion", "mistakes", "trust", "data", "plan", "training", "made", "use")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two kinds that are easily told apart, a few of them under the wrong name."""
    folder = make_photo_folder(tmp_path_factory.mktemp("photos") / "shapes", per_class=30)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    for number, path in enumerate(sorted(classes[0].iterdir())[:12]):
        path.rename(classes[1] / f"stray{number}{path.suffix}")
    return folder


@pytest.fixture(scope="module", params=["auto", "scratch"])
def run(
    request: pytest.FixtureRequest, folder: Path, converted_backbones: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    settings: dict[str, Any] = {"budget": 1.0} if request.param == "auto" else {"net": "lenet", "epochs": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(converted_backbones))
        config = TrainConfig(strategy=request.param, **settings)
        return headstart.train(folder, tmp_path_factory.mktemp(request.param) / "run", config=config)


def sections(run: Any) -> dict[str, str]:
    """The markup of each section of the report, by its name."""
    text = (run.path / "report.html").read_text(encoding="utf-8")
    found = dict(re.findall(r'<section id="(\w+)"[^>]*>(.*?)</section>', text, re.S))
    assert list(found) == [name for name in SECTIONS if name in found]  # in this order
    return found


def words(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", markup)).replace("\xa0", " ").split())


def test_no_section_is_missing_and_the_page_is_small(run: Any) -> None:
    found = sections(run)
    assert set(SECTIONS) - set(found) <= set()
    assert (run.path / "report.html").stat().st_size < 5_000_000


def test_the_first_screen_says_how_good_how_sure_on_what_and_what_to_do_next(run: Any) -> None:
    verdict, test = words(sections(run)["verdict"]), run.metrics["test"]
    right = round(test["accuracy"] * run.metrics["data"]["test"])
    assert f"{right} of {run.metrics['data']['test']}" in verdict
    for end in test["accuracy_ci95"]:
        assert f"{100 * end:.1f}".removesuffix(".0") in verdict
    assert str(run.metrics["data"]["train"]) in verdict
    if run.metrics["diagnosis"]:
        assert run.metrics["diagnosis"][0]["finding"].split(".")[0] in verdict


def test_the_confusion_matrix_has_the_counts_of_the_test_and_each_cell_its_photos(run: Any) -> None:
    markup, rows = sections(run)["confusion"], list(run.predictions())
    [table] = re.findall(r'<table class="confusion">.*?</table>', markup, re.S)
    shown = [
        re.findall(r"<td[^>]*>(?:<a[^>]*>)?([\d,·]+)", line) for line in re.findall(r"<tr>.*?</tr>", table, re.S)[1:]
    ]
    counts = [[int(value) if value != "·" else 0 for value in line] for line in shown]
    confusion = run.metrics["test"]["confusion"]
    assert counts == [[*line, sum(line)] for line in confusion]
    assert np.sum(confusion) == len(rows) == run.metrics["data"]["test"]
    for row in rows:
        assert row["path"] in unescape(markup)


def test_the_mistakes_are_those_of_the_predictions(run: Any) -> None:
    wrong = [row["path"] for row in run.predictions() if row["label"] != row["predicted"]]
    said = words(sections(run)["mistakes"])
    assert all(path in said for path in wrong[:24])
    assert bool(wrong) != ("every test photo is named correctly" in said)


def test_the_plan_shows_its_evidence_with_the_numbers_of_plan_json(run: Any) -> None:
    markup, plan = sections(run)["plan"], run.plan
    said = words(markup)
    for sentence in plan["why"]:
        assert " ".join(sentence.split()) in said
    for row in plan["evidence"].get("candidates", []):
        assert row["strategy"] in said
        if row["accuracy"] is not None:
            assert f"{100 * row['accuracy']:.1f}" in said
    if plan["strategy"] == "scratch":
        assert "<svg" not in markup  # nothing was transferred
    else:
        [picture] = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", markup)
        told = words(base64.b64decode(picture).decode())
        for case in ("few photos, different", "few photos, similar", "many photos, different", "many photos, similar"):
            assert case in told
        similarity = plan["evidence"]["similarity"]
        assert "shapes" in told and f"{similarity['value']:.3f}" in told  # the place of these photos among them


def test_the_curves_are_those_of_the_history(run: Any) -> None:
    markup = sections(run)["training"]
    assert markup.count("<svg") >= 1
    if run.plan["strategy"] == "scratch":
        with (run.path / "history.csv").open(encoding="utf-8") as file:
            history = list(csv.DictReader(file))
        assert len(history) == run.config["epochs"] == 2
        for row in history:
            assert f"{float(row['val_accuracy']) * 100:.1f}".removesuffix(".0") in words(markup)
    else:
        twice = run.plan["evidence"]["forecast"]["twice"]
        assert f"{twice['photos']} photos: {100 * twice['accuracy']:.1f} %" in words(markup)


def test_how_it_was_made_names_layers_time_and_provenance(run: Any) -> None:
    markup = sections(run)["made"]
    [layers] = re.findall(r'<table class="layers">.*?</table>', markup, re.S)
    assert len(re.findall(r"<tr>", layers)) > 5
    facts = dict(re.findall(r'<tr><th scope="row">([^<]*)</th><td>(.*?)</td></tr>', markup, re.S))
    for name, value in run.config.items():  # every setting with its value
        assert name in facts, name
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert float(words(facts[name]).replace(",", "")) == pytest.approx(value)
        elif isinstance(value, str):
            assert words(facts[name]) == value
    provenance = markup.split("Provenance", 1)[1].split("<details>", 1)[0]
    for value in (headstart.__version__, platform.python_version(), np.__version__, run.metrics["data"]["fingerprint"]):
        assert str(value) in words(provenance)


def test_how_to_use_it_names_the_run_in_commands_that_exist(run: Any) -> None:
    said = words(sections(run)["use"])
    for command in ("headstart predict", "headstart serve", "headstart export", "import headstart"):
        assert command in said
    assert run.path.name in said


def test_the_calibration_counts_every_test_photo(run: Any) -> None:
    said = words(sections(run)["trust"])
    assert f"always {run.metrics['data']['test']}" in said
    document = json.loads((run.path / "metrics.json").read_text())
    assert f"{100 * document['test']['accuracy']:.1f}" in said
