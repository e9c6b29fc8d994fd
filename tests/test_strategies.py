"""Every strategy from the command line: a run of the same form, the same answers on every way, and honest words."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstart
from headstart import heads
from headstart.__main__ import main
from headstart.config import TrainConfig
from headstart.errors import ConfigError, UsageError
from headstart.images import decode
from headstart.job.advice import stand
from headstart.job.choices import OWN, check_settings
from headstart.job.material import Material, with_all_photos, with_validation
from headstart.job.preparations import PREPARATIONS, Preparation
from headstart.split import Split
from headstart.transfer.cases import CASES, STRATEGIES

QUICK = {
    "head": (),
    "early": (),
    "deeper": ("--cut", "stage7", "--epochs", "2", "--views", "2"),
    "full": ("--epochs", "1", "--batch-size", "8"),
    "scratch": ("--epochs", "1", "--batch-size", "8", "--image-size", "32"),
}


@pytest.mark.usefixtures("ready_cache")
@pytest.mark.parametrize("strategy", list(QUICK))
def test_a_strategy_ends_in_a_run_that_answers_the_same_on_every_way(
    strategy: str, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "run"
    words = ["train", photo_folder, "--strategy", strategy, "--out", place, "--quiet", "--json", *QUICK[strategy]]
    assert main([str(word) for word in words]) == 0
    metrics = json.loads(capsys.readouterr().out)
    plan = json.loads((place / "plan.json").read_text())
    assert metrics["plan"] == plan and plan["strategy"] == strategy
    assert plan["case"] in {*CASES, "scratch"} and plan["why"] and "<svg" not in (place / "plan.json").read_text()
    files = {path.name for path in place.iterdir()}
    assert files >= {"metrics.json", "plan.json", "config.json", "model.safetensors", "model.json", "predictions.csv"}
    assert ("history.csv" in files) == (strategy in PREPARATIONS)

    run = headstart.load(place)
    photo = next(photo_folder.rglob("*.png"))
    assert main(["predict", str(place), str(photo), "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)["probabilities"]
    own = run.predict(str(photo)).probabilities
    assert told == pytest.approx(own, abs=1e-12)
    prepared = run.classifier.backbone.preprocessing
    pixels = prepared.apply(decode(photo.read_bytes(), target=prepared.decode_target()))
    with torch.no_grad():
        whole = run.classifier.full_network()(torch.from_numpy(pixels[None])).numpy()[0]
    assert np.allclose(whole, list(own.values()), atol=1e-4)


@pytest.fixture
def few_epochs(photo_folder: Path, tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """Run strategy deeper, quickly; returns the exit status and the run."""

    def train(name: str, *words: str) -> tuple[int, Path]:
        given = ("--strategy", "deeper", "--cut", "stage7", "--views", "2", "--epochs", "3", "--quiet", *words)
        return main(["train", str(photo_folder), "--out", str(tmp_path / name), *given]), tmp_path / name

    return train


def documents(run: Path) -> tuple[dict, dict]:
    return json.loads((run / "metrics.json").read_text()), json.loads((run / "plan.json").read_text())


@pytest.mark.usefixtures("ready_cache")
def test_fine_tuning_ends_on_all_photos_and_is_judged_by_the_training_that_had_not_seen_the_validation(
    few_epochs: Callable[..., tuple[int, Path]],
) -> None:
    (_, once), (_, twice) = few_epochs("once", "--no-again"), few_epochs("twice")
    (first, plan), (second, plan_again) = documents(once), documents(twice)
    assert plan["best_epoch"] == plan_again["best_epoch"] == 3
    photos = first["data"]["train"] + first["data"]["validation"]
    assert plan_again["evidence"]["trained_again_on"] == photos and "trained_again_on" not in plan["evidence"]
    assert any(f"on all {photos} photos" in sentence for sentence in plan_again["why"])
    # the word on the validation photos is the same to the last digit but those of another engine; the weights are not
    assert second["validation"]["log_loss"] == pytest.approx(first["validation"]["log_loss"], rel=1e-3)
    assert (once / "history.csv").read_text().splitlines()[0] == (twice / "history.csv").read_text().splitlines()[0]
    assert (once / "model.safetensors").read_bytes() != (twice / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("ready_cache")
def test_fine_tuning_goes_on_where_it_stopped_also_in_the_training_on_all_photos(
    few_epochs: Callable[..., tuple[int, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.job import network
    from headstart.training.callbacks import LambdaCallback

    _, straight = few_epochs("straight")
    fits = []

    def interrupted(*words: Any, callbacks: Sequence[Any] = (), **settings: Any) -> Any:
        fits.append(len(callbacks))

        def stop(epoch: int, _: dict) -> None:
            if len(fits) == 2 and epoch == 1:
                raise KeyboardInterrupt

        return fit(*words, callbacks=[*callbacks, LambdaCallback(on_epoch_begin=stop)], **settings)

    fit = network.fit
    monkeypatch.setattr(network, "fit", interrupted)
    status, broken = few_epochs("broken", "--checkpoint-seconds", "0.001")
    assert status == 130 and fits == [1, 0] and not broken.exists()
    assert {path.name for path in (broken.parent / "broken.training").iterdir()} >= {"checkpoint", "again"}
    assert few_epochs("broken", "--resume")[0] == 0
    for name in ("model.safetensors", "plan.json", "predictions.csv"):
        assert (broken / name).read_bytes() == (straight / name).read_bytes(), name
    assert not (broken.parent / "broken.training").exists()


@pytest.mark.usefixtures("ready_cache")
def test_validation_photos_that_the_data_bring_are_never_trained_on(photo_folder: Path, tmp_path: Path) -> None:
    brought = tmp_path / "parts"
    for place in sorted(photo_folder.rglob("*.png")):
        part = ("train", "train", "val", "test")[int(place.stem) % 4]
        (brought / part / place.parent.name).mkdir(parents=True, exist_ok=True)
        (brought / part / place.parent.name / place.name).write_bytes(place.read_bytes())
    config = TrainConfig(strategy="deeper", cut="stage7", views=1, epochs=2)
    run = headstart.train(brought, tmp_path / "run", config=config, quiet=True)
    assert run.metrics["data"]["validation"] == 12 and "trained_again_on" not in run.plan["evidence"]


def test_photos_set_apart_come_back_in_their_places() -> None:
    rows = np.array([1, 4, 6, 8, 9])
    given = Split(rows, rows[:0], np.array([3]), np.array([0, 1, 0, 2, 1]), {}, "")
    apart = with_validation(given, 0)
    assert apart.validation.tolist() == [1, 6] and apart.train.tolist() == [4, 8, 9]
    whole = with_all_photos(apart)
    assert whole is not None and whole.train.tolist() == rows.tolist() and not len(whole.validation)
    assert whole.folds.tolist() == [3, 1, 3, 2, 1]  # a fold of their own
    assert with_all_photos(whole) is None


def test_every_strategy_has_its_settings_and_its_words() -> None:
    assert set(OWN) == {"auto", *STRATEGIES}
    assert set(PREPARATIONS) < set(STRATEGIES)
    assert all(case.strategy in case.candidates for case in CASES.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": "head", "epochs": 3}, ["--epochs", "deeper or full or scratch", "add --net"]),
        ({"strategy": "full", "cut": "stage5"}, ["--cut", "auto or head or early or deeper"]),
        ({"strategy": "full", "views": 2}, ["--views", "deeper"]),
        ({"strategy": "deeper", "budget": 5.0}, ["--budget", "auto"]),
        ({"net": "lenet", "large": True}, ["--large", "leave --net out"]),
        ({"net": "lenet", "backbone": "efficientnet-lite1"}, ["--backbone", "leave --net out"]),
    ],
)
def test_a_setting_that_a_strategy_does_not_look_at_is_refused(settings: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_settings(TrainConfig(**settings))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_scratch_without_a_net_trains_the_net_of_the_backbone() -> None:
    assert check_settings(TrainConfig(strategy="scratch")).net == "efficientnet-lite0"
    assert check_settings(TrainConfig(net="LeNet")).strategy == "scratch"
    assert check_settings(TrainConfig()).strategy == "auto"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("0", 0), ("5 m", 300)]
)
def test_a_length_of_time_is_read_in_seconds_minutes_and_hours(text: str, seconds: float) -> None:
    from headstart.cli.options import Duration

    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "5x", "nan", "inf", "1e12"])
def test_what_is_no_length_of_time_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(tmp_path), f"--budget={text}"]) == 2
    assert "no length of time; expected for example 90s, 5m or 1h" in capsys.readouterr().err


def noisy(folder: Path) -> Path:
    """Two classes that features hardly tell apart, of photos unlike any: something is left to gain."""
    draw = np.random.default_rng(0)
    from PIL import Image

    for name, level in (("more", 129), ("less", 127)):
        (folder / name).mkdir(parents=True)
        for number in range(24):
            pixels = np.clip(draw.normal(level, 60, (40, 40)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.usefixtures("ready_cache")
def test_a_budget_too_small_for_anything_gives_a_head_and_says_so(tmp_path: Path) -> None:
    run = headstart.train(noisy(tmp_path / "noise"), tmp_path / "run", config=TrainConfig(budget=0.01))
    plan = run.metrics["plan"]
    assert plan["strategy"] in ("head", "early") and plan["case"] == "small-different"
    [sentence] = [one for one in plan["why"] if "Strategy deeper was not tried" in one]
    assert "0 s of the budget are left" in sentence and "--budget" in sentence
    [deeper] = [row for row in plan["evidence"]["candidates"] if row["strategy"] == "deeper"]
    assert deeper["accuracy"] is None and deeper["seconds"] > 0.01
    notes = [row["sentence"] for row in plan["evidence"]["remedies"] if row["gain"] is None]
    assert plan["evidence"]["state"] == "neither" or any("more than is left of the budget" in note for note in notes)


@pytest.mark.usefixtures("ready_cache")
def test_auto_shows_its_evidence_and_looks_at_no_test_photo(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.job import advice as module

    seen = []
    measure = module.survey_photos

    def watched(dataset, **options):
        seen.append({photo.path for photo in dataset.photos})
        return measure(dataset, **options)

    monkeypatch.setattr(module, "survey_photos", watched)
    run = headstart.train(photo_folder, tmp_path / "run", config=TrainConfig(budget=0.0))
    evidence = run.metrics["plan"]["evidence"]
    assert {"size", "similarity", "probes", "candidates", "forecast", "remedies", "heads"} <= set(evidence)
    tested = {row["path"] for row in run.predictions()}
    assert seen and not seen[0] & tested  # what the similarity is measured on
    for candidate in evidence["candidates"]:
        assert set(candidate) == {
            *("strategy", "cut", "accuracy", "accuracy_ci95", "log_loss", "photos", "seconds", "note"),
        }
        if candidate["accuracy"] is not None:
            low, high = candidate["accuracy_ci95"]
            assert low <= candidate["accuracy"] <= high
            assert candidate["photos"] == run.metrics["data"]["train"]


@pytest.mark.usefixtures("ready_cache")
def test_the_same_photos_give_the_same_plan_and_large_overrides_the_rule(photo_folder: Path) -> None:
    plain = headstart.plan(photo_folder, config=TrainConfig(budget=0.0))
    again = headstart.plan(photo_folder, config=TrainConfig(budget=0.0))
    assert plain.to_json()["plan"]["why"] == again.to_json()["plan"]["why"]
    large = headstart.plan(photo_folder, config=TrainConfig(budget=0.0, large=True))
    assert plain.advice.standing.case.name.startswith("small-") and large.advice.standing.case.name.startswith("large-")
    assert "as asked for with --large" in large.advice.why[0]
    assert "full" in large.advice.standing.candidates


@pytest.mark.usefixtures("ready_cache")
def test_plan_prints_all_and_draws_the_picture(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "cases.svg"
    assert main(["plan", str(photo_folder), "--budget", "0", "--picture", str(picture), "--quiet"]) == 0
    text = capsys.readouterr().out
    for words in ("The case: small-", "What each cut tells", "pooled", "What each strategy would give", "More photos"):
        assert words in text
    assert picture.read_text().startswith("<svg") and "photos" in picture.read_text()
    assert main(["plan", str(photo_folder), "--budget", "0", "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"data", "plan", "timings"} and document["plan"]["case"].startswith("small-")


def test_a_plan_of_a_named_strategy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a plan chooses the strategy itself"):
        headstart.plan(tmp_path, config=TrainConfig(strategy="head"))


@pytest.mark.usefixtures("ready_cache")
def test_a_backbone_without_batch_norms_is_judged_by_its_probes_and_says_so(photo_folder: Path) -> None:
    import dataclasses

    from headstart.backbones import open_backbone
    from headstart.job.advice import cuts_to_probe, probe
    from headstart.job.material import look
    from headstart.readers import open_dataset

    config = TrainConfig()
    backbone = open_backbone("efficientnet-lite0")
    material = look(
        open_dataset(photo_folder), config, backbone, cuts=cuts_to_probe(backbone), folds=5, quiet=True, say=print
    )
    bare = dataclasses.replace(backbone, norms=())
    standing = stand(material, bare, config, probe(material, config, cuts_to_probe(bare)))
    assert standing.similarity.measure == "probes" and "no batch norm" in standing.why[1]
    with pytest.raises(UsageError):
        stand(material, bare, config)


@pytest.mark.usefixtures("ready_cache")
@pytest.mark.parametrize("wins", [True, False])
def test_a_network_is_taken_where_it_beats_the_head_on_photos_that_both_had_not_seen(
    photo_folder: Path, wins: bool
) -> None:
    import dataclasses

    from headstart.backbones import open_backbone
    from headstart.job.advice import stand
    from headstart.job.material import look
    from headstart.job.network import train_again
    from headstart.job.trial import try_networks
    from headstart.readers import open_dataset
    from headstart.transfer.held_out import Answers

    backbone, config = open_backbone("efficientnet-lite0"), TrainConfig(epochs=3, views=1, budget=1000.0)
    material = look(open_dataset(photo_folder), config, backbone, folds=5, quiet=True, say=print)
    standing = dataclasses.replace(stand(material, backbone, config), candidates=("head", "deeper"))
    held = int((material.split.folds == 0).sum())
    truth = material.labels(material.split.train)[material.split.folds == 0]
    said = np.eye(2, dtype=np.float32)[np.arange(held) % 2 if wins else truth]  # by a head that guesses, or knows
    head = Answers("the head", ((said, truth),))
    [tried] = try_networks(material, backbone, standing, head, config, quiet=True, say=lambda _: None)
    assert (tried.won is not None) == wins
    assert ("is taken" in tried.why) == wins and f"{head.held_out(1).losses.mean():.3f} of the head" in tried.why
    assert tried.candidate.photos == held and tried.candidate.accuracy is not None
    if wins:
        seen = {material.dataset.photos[row].path for row in tried.won.material.split.train}
        assert not seen & {material.dataset.photos[row].path for row in material.split.test}
        assert len(seen) == len(material.split.train) - held
        # all of them are learned from in the end, where the budget allows it
        words: list[str] = []
        first = dataclasses.replace(tried.won.trained, kept=3)  # the last epoch, which `again` asks for
        again = (tried.won.ready, first, tried.won.material)
        assert train_again(*again, left=0.0, quiet=True, say=words.append) is first
        assert "too little of the budget is left" in words[0]
        assert train_again(*again, quiet=True, say=words.append).photos == len(material.split.train)

        def broken(whole: Material) -> Preparation:
            second = tried.won.ready.again(whole)
            return dataclasses.replace(second, config=dataclasses.replace(second.config, learning_rate=0.5))

        spoilt = dataclasses.replace(tried.won.ready, again=broken)
        assert train_again(spoilt, *again[1:], quiet=True, say=words.append) is first
        assert "the first one is kept" in words[-1] and "photos it learned from" in words[-1]


def answered(right: int, seed: int, count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two classes, of which so many are right, and the labels."""
    truth = np.arange(count) % 2
    margin = np.where(np.arange(count) < right, 2.0, -2.0) + np.random.default_rng(seed).normal(size=count) / 2
    return np.stack([np.where(truth == 0, margin, 0), np.where(truth == 1, margin, 0)], 1).astype(np.float32), truth


@pytest.mark.usefixtures("ready_cache")
@pytest.mark.parametrize(
    ("network", "budget", "trained", "taken", "words"),
    [
        ((40, 0), 1e6, 1, True, "on 40 photos"),  # beyond doubt: one look is enough
        ((33, 24), 1e6, 2, False, "on 80 photos"),  # the second look says the contrary
        ((33, 35), 1e6, 2, True, "on 80 photos"),
        ((33, 24), 60.0, 1, True, "too little of the budget is left for a second look"),
        ((20, 40), 1e6, 1, False, "on 40 photos"),  # what loses at the first look is not trained again
    ],
)
def test_a_network_that_wins_by_little_is_trained_once_more_and_must_win_on_both_looks_together(
    photo_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: tuple[int, int],
    budget: float,
    trained: int,
    taken: bool,
    words: str,
) -> None:
    import dataclasses

    from headstart.backbones import open_backbone
    from headstart.job import trial
    from headstart.job.advice import stand
    from headstart.job.material import look
    from headstart.readers import open_dataset
    from headstart.transfer.held_out import Answers

    backbone, config = open_backbone("efficientnet-lite0"), TrainConfig(epochs=3, budget=budget)
    material = look(open_dataset(photo_folder), config, backbone, folds=5, quiet=True, say=print)
    standing = dataclasses.replace(stand(material, backbone, config), candidates=("head", "deeper"))
    looked: list[int] = []
    clock = [0.0]

    def train(self: object, asked: TrainConfig, fold: int) -> tuple[str, tuple[np.ndarray, np.ndarray]]:
        looked.append(fold)
        clock[0] += 50.0
        return f"fold {fold}", answered(network[fold], 7 + fold)

    monkeypatch.setattr(trial._Trial, "_train", train)
    monkeypatch.setattr(trial._Trial, "_shortened", lambda self, left: (config, 1.0))
    monkeypatch.setattr(trial.time, "perf_counter", lambda: clock[0])
    head = Answers("the head", (answered(28, 1), answered(30, 2)))
    [tried] = trial.try_networks(material, backbone, standing, head, config, quiet=True, say=lambda _: None)
    assert looked == list(range(trained))
    assert tried.won == ("fold 0" if taken else None) and words in tried.why
    assert ("is no clear gain" in tried.why) == (network[0] == 33)
    alone = Answers("the head", head.folds[:1])  # the data brought their validation photos: there is no second look
    [tried] = trial.try_networks(material, backbone, standing, alone, config, quiet=True, say=lambda _: None)
    assert looked == [*range(trained), 0] and (tried.won is not None) == (network[0] > 28)


@pytest.mark.usefixtures("ready_cache")
def test_a_head_and_a_network_that_say_the_same_are_equally_good(photo_folder: Path) -> None:
    import dataclasses

    from headstart.backbones import open_backbone
    from headstart.heads.calibration import tempered_losses
    from headstart.job.advice import fit_at, judged_at
    from headstart.job.material import look
    from headstart.job.pretrained import to_beat
    from headstart.readers import open_dataset

    backbone, config = open_backbone("efficientnet-lite0"), TrainConfig(head="ridge")
    material = look(open_dataset(photo_folder), config, backbone, folds=5, quiet=True, say=print)
    fitted = fit_at(material, config, "pooled")
    judged = judged_at(material, config, "pooled", fitted)
    assert len(to_beat(material, "pooled", fitted, judged).folds) == 2
    moved = np.where(material.split.folds == 1, 2, material.split.folds)  # photos that belong together fill few folds
    bare = dataclasses.replace(material, split=dataclasses.replace(material.split, folds=moved))
    assert len(to_beat(bare, "pooled", fitted, judged).folds) == 1
    found = to_beat(material, "pooled", fitted, judged).held_out(1).losses
    # the oracle: the same photos by ridge that was fitted to the other folds with the same strength
    first, train = material.split.folds == 0, material.split.train
    features, labels = material.survey.features["pooled"][train], material.labels(train)
    rest = features[~first].astype(np.float64)
    middle, target = rest.mean(axis=0), np.eye(2)[labels[~first]]
    shift, penalty = target.mean(axis=0), float(fitted.strength or 0) * features.shape[1]
    scale = float(np.mean((features - features.mean(axis=0)) ** 2))
    gram = (rest - middle).T @ (rest - middle) + penalty * scale * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, (rest - middle).T @ (target - shift))
    scores = (features[first] - middle) @ weights + shift
    expected = tempered_losses(scores.astype(np.float32), labels[first])  # what a network with these logits would get
    assert np.allclose(found, expected, rtol=0.05)
    assert found.mean() > 1.5 * judged.losses[first].mean()  # a prior of 40 photos is sharper than one of 8


@pytest.mark.usefixtures("ready_cache")
def test_a_trial_that_spent_the_whole_budget_leaves_the_remedies_unmeasured_and_does_not_fail(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.backbones import open_backbone
    from headstart.job import outlook
    from headstart.job.advice import advise, cuts_to_probe
    from headstart.job.material import look
    from headstart.readers import open_dataset

    monkeypatch.setattr(outlook, "backbone_status", lambda _: (False, "not installed"))
    monkeypatch.setattr(outlook, "GAP", -1.0)  # whatever it is, it counts as overfitting
    backbone, config = open_backbone("efficientnet-lite0"), TrainConfig()
    dataset = open_dataset(photo_folder)
    material = look(dataset, config, backbone, cuts=cuts_to_probe(backbone), folds=5, quiet=True, say=print)
    advice, material = advise(material, backbone, config)
    found = outlook.look_ahead("photos", material, backbone, advice, config, budget=-5.0, quiet=True, say=print)
    told = {remedy.name: remedy for remedy in found.remedies}
    assert found.state == "overfits" and "nothing else to try here" in told["another backbone"].sentence
    assert "more than is left of the budget" in told["augmentation"].sentence
    assert told["regularisation"].command == ""

    monkeypatch.setattr(outlook, "try_strengths", lambda *_, **__: {})  # so that only the hidden layer is left
    monkeypatch.setattr(outlook._Trying, "augmentation", lambda trying, _: trying.more_photos(trying.curve()))
    found = outlook.look_ahead("photos", material, backbone, advice, config, budget=60.0, quiet=True, say=print)
    remedy = next(one for one in found.remedies if one.name == "regularisation")
    train = material.split.train
    features, labels = material.survey.features[advice.cut][train], material.labels(train)
    settings = {"folds": material.split.folds, "clusters": material.clusters[train]}
    before, after = (
        100 * np.mean(heads.fit_head(kind, features, labels, 2, **settings).held_out.argmax(axis=1) == labels)
        for kind in ("ridge", "mlp")
    )
    assert f"{outlook.HIDDEN}: {before:.1f} % -> {after:.1f} %" in remedy.sentence
    assert remedy.command == f"headstart train photos --cut {advice.cut} --head mlp"


@pytest.mark.usefixtures("ready_cache")
@pytest.mark.parametrize(("strategy", "words"), [("early", "Strategy early was asked for"), ("auto", "The cut was")])
def test_a_cut_that_was_named_is_used_and_the_plan_says_who_named_what(
    photo_folder: Path, tmp_path: Path, strategy: str, words: str
) -> None:
    run = headstart.train(photo_folder, tmp_path / "run", config=TrainConfig(strategy=strategy, cut="stage4"))
    plan = run.metrics["plan"]
    assert plan["cut"] == "stage4" and plan["why"][0].startswith(words)
    assert plan["strategy"] == {"early": "early", "auto": "head"}[strategy]


@pytest.mark.usefixtures("ready_cache")
def test_plan_names_the_files_that_it_could_not_use(photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photo_folder / "bars" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert main(["plan", str(photo_folder), "--budget", "0", "--quiet"]) == 3
    assert "Skipped 1 files:\n  bars/broken.png: " in capsys.readouterr().out
