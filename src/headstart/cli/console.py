"""Results as text for a terminal: short, aligned, the most important thing first."""

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.files import shown


def percent(share: float) -> str:
    """Write a share as a percentage.

    >>> percent(0.9477)
    '94.8 %'
    """
    return f"{100 * share:.1f} %"


def accuracy_line(what: str, judged: dict[str, Any], count: int) -> str:
    """One sentence: the accuracy, how sure it is, and on how many photos."""
    low, high = judged["accuracy_ci95"]
    return f"{what} {percent(judged['accuracy'])} on {count:,} photos (95 % interval {percent(low)} to {percent(high)})"


def class_table(judged: dict[str, Any]) -> list[str]:
    """The classes, worst F1 first: precision, recall, F1 and how many photos."""
    rows = sorted(judged["per_class"].items(), key=lambda item: (item[1]["f1"] or 0.0, item[0]))
    width = max(12, *(len(shown(name)) for name, _ in rows))
    lines = [f"  {'class':<{width}}  precision  recall      F1  photos"]
    for name, row in rows[:12]:
        cells = [f"{percent(row[key]) if row[key] is not None else '-':>7}" for key in ("precision", "recall", "f1")]
        lines.append(f"  {shown(name):<{width}}  {cells[0]:>9} {cells[1]} {cells[2]}  {row['support']:>6,}")
    if len(rows) > 12:
        lines.append(f"  ... and {len(rows) - 12} more classes, in the report")
    return lines


def training_text(metrics: dict[str, Any]) -> str:
    """Say what a run achieved, what is wrong and what to do next."""
    data, plan, timings = metrics["data"], metrics["plan"], metrics["timings"]
    network = "epochs" in plan
    lines = [
        accuracy_line("Test accuracy", metrics["test"], data["test"]),
        accuracy_line("Held-out     ", metrics["validation"], data["validation"] or data["train"]),
        f"Trained on {data['train']:,} photos, {len(metrics['classes'])} classes: "
        + (_trained_net(plan) if network else f"{plan['backbone']}, cut {plan['cut']}, head {plan['head']}"),
        f"Took {timings['total']:.1f} s; "
        + (
            f"{timings['fit']:.1f} s of it for training"
            if network
            else f"features of {metrics['features']['computed']:,} photos computed, "
            f"{metrics['features']['reused']:,} reused"
        ),
        "",
        *class_table(metrics["test"]),
    ]
    lines += skipped_lines(data["skipped"], "metrics.json")
    if metrics["diagnosis"]:
        lines += ["", "What to do next:"]
        lines += [f"  - {item['finding']} {item['remedy']}" for item in metrics["diagnosis"][:4]]
    lines += ["", f"Report: {metrics['run']}/report.html"]
    return "\n".join(lines)


def _trained_net(plan: dict[str, Any]) -> str:
    what = {
        "full": f"all of {plan['backbone']} from its pretrained weights",
        "deeper": f"{plan['backbone']} behind {plan['evidence'].get('trained_behind')}",
    }.get(plan["strategy"], f"{plan['net']} from random weights")
    return f"{what}, {plan['epochs']} epochs, weights of epoch {plan['best_epoch']}"


def skipped_lines(skipped: Sequence[Mapping[str, str]], place: str) -> list[str]:
    """Name the files that could not be used, at most eight of them, and say where the others are named."""
    if not skipped:
        return []
    lines = ["", f"Skipped {len(skipped)} files:"]
    lines += [f"  {shown(item['path'])}: {item['reason']}" for item in skipped[:8]]
    return lines + ([f"  ... and {len(skipped) - 8} more, in {place}"] if len(skipped) > 8 else [])


def evaluation_text(document: dict[str, Any]) -> str:
    """Say how a classifier does on other photos."""
    lines = [accuracy_line("Accuracy", document, document["n"]), "", *class_table(document)]
    return "\n".join([*lines, *skipped_lines(document["skipped"], "the output of --json")])


def explained_lines(photos: Sequence[Mapping[str, Any]]) -> list[str]:
    """What `headstart explain` prints: a photo, its maps with what they add up to, and where the pictures are."""
    lines = []
    for row in photos:
        if "error" in row:
            lines.append(f"{shown(row['path'])}: {row['error']}")
            continue
        best = row["predicted"]
        lines.append(f"{shown(row['path'])}: {shown(best['class'])} {percent(best['probability'])}")
        for one in row["maps"]:
            said = [] if one["check"] is None else [_added_up(one["check"])]
            said += [f"box {one['box'][:2]} to {one['box'][2:]}"] if one["box"] else []
            lines.append(f"  {one['method']}, {shown(one['class'])}: {'; '.join([*said, *one['stamps']]) or 'drawn'}")
        lines.append(f"  {row['folder']}/explanation.png")
    return lines


def _added_up(check: Mapping[str, Any]) -> str:
    return f"{check['law']}: {check['sum']:.4g} of {check['target']:.4g}"
