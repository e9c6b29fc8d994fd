"""`headstart plan`: everything that strategy "auto" goes by, and what would help, without training a network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.backbones import open_backbone
from headstart.config import TrainConfig
from headstart.errors import ConfigError
from headstart.files import shown
from headstart.job.advice import Advice, advise, candidates_of, cuts_to_probe, picture_of
from headstart.job.choices import check_settings
from headstart.job.material import Material, Timings, look
from headstart.job.outlook import Outlook, look_ahead
from headstart.readers import open_dataset


@dataclass(frozen=True, eq=False)
class Plan:
    """What was found.

    Args:
        name: of the data set.
        material: its photos.
        advice: the case, the probes and the choice.
        outlook: what would help.
        backbone: name of the net.
        seconds: wall-clock time of each step.
    """

    name: str
    material: Material
    advice: Advice
    outlook: Outlook
    backbone: str
    seconds: dict[str, float]

    @property
    def picture(self) -> str:
        """The four cases with these photos placed among them: SVG."""
        return picture_of(self.name, self.advice.standing)

    def to_json(self) -> dict[str, Any]:
        """The document of `headstart plan --json`: `data`, `plan` as in plan.json, `timings`."""
        advice = self.advice
        rows = [candidate.to_json() for candidate in candidates_of(advice)]
        return {
            "data": self.material.about,
            "plan": {
                "case": advice.standing.case.name,
                "strategy": advice.strategy,
                "backbone": self.backbone,
                "cut": advice.cut,
                "why": list(advice.why),
                "evidence": {**advice.to_json(), "candidates": rows, **self.outlook.to_json()},
            },
            "timings": self.seconds,
        }

    def to_text(self) -> str:
        """The same for a person."""
        advice, outlook = self.advice, self.outlook
        lines = [f"The case: {advice.standing.case.name}", *(f"  {sentence}" for sentence in advice.why)]
        lines += ["", "What each cut tells (linear probe, every training photo held out once):"]
        lines += [f"  {'cut':10s} {'features':>8s}  accuracy  (95 % interval)     log loss  distance"]
        stages = advice.standing.similarity.stages
        for one in advice.probes:
            distance = f"{stages[one.cut]:8.3f}" if one.cut in stages else "       -"
            mark = "  <- chosen" if one.cut == advice.cut else ""
            lines.append(
                f"  {one.cut:10s} {one.length:8,d}  {100 * one.accuracy:6.1f} %  ({100 * one.low:.1f} to "
                f"{100 * one.high:.1f} %)    {one.log_loss:8.3f}  {distance}{mark}"
            )
        lines += ["", "What each strategy would give:"]
        for candidate in candidates_of(advice):
            if candidate.accuracy is None or candidate.low is None or candidate.high is None:
                lines.append(f"  {candidate.strategy:8s} {candidate.note}")
            else:
                lines.append(
                    f"  {candidate.strategy:8s} {100 * candidate.accuracy:.1f} % ({100 * candidate.low:.1f} to "
                    f"{100 * candidate.high:.1f} %) at {candidate.cut}; {candidate.note}"
                )
        said = {
            "overfits": "It overfits: it knows its training photos better than unseen ones. What would help:",
            "underfits": "It underfits: it cannot tell even its training photos apart. What would help:",
            "neither": "It neither overfits nor underfits beyond chance. What would help:",
        }
        lines += ["", said[outlook.state]]
        for remedy in outlook.remedies:
            lines.append(f"  - {remedy.sentence}" + (f"\n      {remedy.command}" if remedy.command else ""))
        return "\n".join(lines)


def plan(
    data: str | Path,
    *,
    config: TrainConfig | None = None,
    follow_links: bool = False,
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
) -> Plan:
    """Measure everything that `train` would go by, and train no network.

    Args:
        data: as for `headstart.train`; the photos of its final test are left alone.
        config: `backbone`, `weights`, `budget` and `large` count besides `seed` and the like. The budget is for what
            takes long: changed views and other backbones.
        follow_links: also read what symbolic links inside the folder point to.
        quiet: show no progress line.
        say: receives a sentence at each step; None: silence.

    Raises:
        HeadstartError: the data or the settings cannot be used; the text says what to do.
    """
    config = check_settings(TrainConfig() if config is None else config)
    if config.strategy != "auto":
        raise ConfigError(f"a plan chooses the strategy itself; leave out --net and --strategy {config.strategy}")
    say = say or (lambda _: None)
    clock = Timings()
    with clock.step("scan"):
        dataset = open_dataset(data, follow_links=follow_links)
        say(f"{len(dataset.photos):,} photos in {len(dataset.classes)} classes")
    with clock.step("start"):
        backbone = open_backbone(config.backbone, Path(config.weights) if config.weights else None, say=say)
    with clock.step("features"):
        cuts = cuts_to_probe(backbone)
        material = look(dataset, config, backbone, cuts=cuts, folds=config.folds, quiet=quiet, say=say)
    with clock.step("evidence"):
        advice, material = advise(material, backbone, config, quiet=quiet)
    with clock.step("outlook"):
        outlook = look_ahead(
            shown(str(data)), material, backbone, advice, config, budget=config.budget, quiet=quiet, say=say
        )
    return Plan(dataset.name, material, advice, outlook, backbone.name, clock.to_json())
