"""Why a net cannot learn 50 photos: each cause has a function that looks for it in what was measured and says it in
words, with the numbers and what to do. `headstart.training.sanity` asks them in order of certainty.
"""

from collections.abc import Callable, Iterable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from headstart.diagnose import Finding, Share
from headstart.files import shown
from headstart.training.probes import Layer, Probe, ignored_by, is_same_for_all

LOUD, QUIET = 5.0, 0.05  # standard deviation of normalised pixels: beyond these they are not normalised
DEAD = 0.5  # share of a layer's units that give no answer to any photo
UNEVEN = 1e-4  # smallest over largest gradient of the layers: below, the small one learns nothing
HUGE = 20.0  # times the loss of guessing: a loss before the first step that the first weights are to blame for
LISTED = 4  # layers named in a sentence

#: what may be wrong; `Finding["cause"]` is one of these
CAUSES = (
    "input-not-finite",  # NaN or infinite pixels
    "input-constant",  # photos of one colour
    "frozen",  # weights that do not want a gradient, or that the optimiser was not given
    "input-ignored",  # the loss or the net does not look at the photo
    "dead-units",  # units that are silent for every photo, before the first step
    "no-gradient",  # a layer that the gradient does not reach
    "input-scale",  # pixels that were not normalised, or twice
    "gradient-explodes",
    "gradient-vanishes",
    "rate-too-high",
    "rate-too-low",
    "labels",  # they have nothing to do with the photos
    "capacity",  # the net is too small for 50 photos
    "unknown",
)


def finding(cause: str, what: str, evidence: str, remedy: str) -> Finding:
    """A finding as `headstart.diagnose` has it, and its cause for programs: one of `CAUSES`."""
    return {"finding": what, "evidence": evidence, "remedy": remedy, "expected_gain": None, "cause": cause}


def unusable_input(images: Float[Tensor, "photos channels height width"]) -> Finding | None:
    """Pixels that are no numbers, or photos without a picture."""
    broken = int((~images.isfinite().flatten(1).all(dim=1)).sum())
    if broken:
        return finding(
            "input-not-finite",
            f"{broken:,} of {len(images):,} photos have pixels that are no numbers.",
            "They are NaN or infinite when they reach the net; one such pixel makes every weight NaN in one step.",
            "Look at the normalisation: a division by a standard deviation of 0 does this.",
        )
    flat = images.flatten(1)
    empty = int((flat.amax(dim=1) == flat.amin(dim=1)).sum())
    if 2 * empty > len(images):
        return finding(
            "input-constant",
            f"{empty:,} of {len(images):,} photos are of one flat colour when they reach the net.",
            "All their pixels are equal: there is nothing to tell them apart by.",
            "Look at the decoding and the normalisation: integers divided by integers, a clip, a wrong channel.",
        )
    return None


def wrong_scale(images: Float[Tensor, "photos channels height width"], cured: bool | None) -> Finding | None:
    """Pixels far from mean 0 and standard deviation 1.

    Args:
        images: as they reach the net.
        cured: whether the same training succeeds with normalised photos; None: not tried.
    """
    mean, std = float(images.mean()), float(images.std())
    if QUIET <= std <= LOUD and abs(mean) <= LOUD:
        return None
    tried = {
        None: " It could learn them nevertheless: it will learn more slowly than it needs to.",
        True: " With mean 0 and standard deviation 1 the same training succeeds.",
        False: " With mean 0 and standard deviation 1 the same training fails too: this is not all that is wrong.",
    }[cured]
    how = "not normalised" if std > LOUD or abs(mean) > LOUD else "normalised twice"
    return finding(
        "input-scale",
        f"The photos seem to be {how}.",
        f"Their pixels have mean {mean:.3g} and standard deviation {std:.3g}; first weights are made for 0 and 1."
        f"{tried}",
        "Subtract the mean and divide by the standard deviation of the training photos, once, in training and in "
        "prediction.",
    )


def frozen_weights(layers: Sequence[Layer], forgotten: Iterable[str]) -> Finding | None:
    """Layers whose weights cannot change.

    Args:
        layers: of the net, in order.
        forgotten: names of layers that want a gradient but are not in the optimiser.
    """
    forgotten = list(forgotten)
    frozen = [layer.name for layer in layers if layer.frozen == layer.parameters]
    if not frozen and not forgotten:
        return None
    stuck = [layer.name for layer in layers if layer.name in {*frozen, *forgotten}]
    reasons = [
        f"{_names(frozen)}: requires_grad is off" if frozen else "",
        f"{_names(forgotten)}: not among the optimiser's parameters" if forgotten else "",
    ]
    every = len(stuck) == len(layers)
    return finding(
        "frozen",
        "No layer can learn: all weights are frozen."
        if every
        else f"{len(stuck)} of {len(layers)} layers cannot learn.",
        "; ".join(filter(None, reasons)) + ".",
        "Set requires_grad, and give the optimiser net.parameters() after the last layer was put in."
        if every
        else "If this is meant (a trained backbone below a new last layer), all is well. If not: set requires_grad, "
        "and make the optimiser after the last layer was put in.",
    )


def ignored_input(start: Probe, end: Probe, loss: Callable[[Tensor, Tensor], Tensor], silenced: bool) -> Finding | None:
    """A loss that looks at nothing, or a net that answers every photo alike.

    Args:
        start, end: before the first step and after the last.
        loss: of (logits, targets).
        silenced: a dead layer, or a signal that vanishes, explains an answer that is always the same.
    """
    ignored = ignored_by(loss, start.logits.shape[1])
    if ignored is not None:
        return finding(
            "input-ignored",
            f"The loss ignores {ignored}.",
            f"It is the same number, {start.loss:.3g} for the photos, whatever {ignored} may be: nothing can be "
            "learned from it.",
            "Look at what the loss is given: the net's output of this batch, not detached, and this batch's labels.",
        )
    if silenced or not (is_same_for_all(start.logits) and is_same_for_all(end.logits)):
        return None
    return finding(
        "input-ignored",
        "The net gives every photo the same answer: what it sees does not reach its output.",
        f"The outputs for {len(start.logits)} photos differ by less than rounding, before the first step and after the "
        "last.",
        "Follow one photo through the forward pass: somewhere it is multiplied by 0, overwritten, or not used.",
    )


def dead_units(start: Probe, passed: bool) -> Finding | None:
    """Units that are silent for every photo, before any step."""
    worst = sorted(((share, name) for name, share in start.dead.items() if share >= DEAD), reverse=True)
    if not worst:
        return None
    shares = ", ".join(f"{shown(name)} {_percent(share)}" for share, name in worst[:LISTED])
    total = worst[0][0] == 1.0
    return finding(
        "dead-units",
        "A layer is dead: none of its units answers any photo."
        if total
        else "Most units of a layer are dead: they answer no photo."
        + (" The rest could learn the photos nevertheless." if passed else ""),
        f"Silent for all {len(start.logits)} photos before the first step: {shares}. Where a unit is silent its "
        "gradient is 0, so it stays so.",
        "Look at how the weights and biases in front of it start: biases 0, weights by He's rule for ReLU. Then look "
        "at the normalisation.",
    )


def missing_gradient(start: Probe, end: Probe, silenced: bool) -> Finding | None:
    """Layers that no gradient reaches, before the first step and after the last.

    Args:
        start, end: before the first step and after the last.
        silenced: a dead layer explains a gradient of 0.
    """
    later = {layer.name: layer.gradient for layer in end.layers}
    learning = [layer for layer in start.layers if layer.frozen < layer.parameters]
    cut = [layer for layer in learning if not layer.gradient and not later.get(layer.name)]
    if silenced:
        cut = [layer for layer in cut if layer.gradient is None]
    if not cut:
        return None
    place = start.layers.index(cut[-1])
    after = start.layers[place + 1].name if place + 1 < len(start.layers) else "the loss"
    none = sum(layer.gradient is None for layer in cut)
    return finding(
        "no-gradient",
        f"The gradient does not reach {len(cut)} of {len(start.layers)} layers.",
        f"{_names([layer.name for layer in cut])}: "
        + ("no gradient at all" if none == len(cut) else "a gradient of exactly 0")
        + f". It is lost between {shown(cut[-1].name)} and {shown(after)}.",
        "Look there for detach(), .data, torch.no_grad(), a conversion to NumPy, or a step that has no slope, such as "
        "rounding, a sign or argmax.",
    )


def exploding_signal(start: Probe, chance: float) -> Finding | None:
    """A loss before the first step that only outputs far too large can give."""
    if start.loss <= HUGE * chance:
        return None
    return finding(
        "gradient-explodes",
        "The signal explodes on its way through the net.",
        f"Before the first step the loss is {start.loss:.3g}; a net that knows nothing should start near {chance:.3g}, "
        "the loss of guessing.",
        "Start the weights by He's rule (ReLU) or Glorot's (tanh), or put batch normalisation behind each layer; "
        "headstart layers gains shows where it grows.",
    )


def vanishing_gradient(start: Probe) -> Finding | None:
    """A gradient that dies out on its way, without a place where it is cut off."""
    gradients = [(layer.gradient, layer.name) for layer in start.layers if layer.gradient]
    if len(gradients) < 2 or min(gradients)[0] >= UNEVEN * max(gradients)[0]:
        return None
    (low, small), (high, large) = min(gradients), max(gradients)
    return finding(
        "gradient-vanishes",
        f"The gradient vanishes on its way to {shown(small)}.",
        f"It is {low:.2g} there and {high:.2g} at {shown(large)}: {high / low:.2g} times as much.",
        "Start the weights by He's rule (ReLU) or Glorot's (tanh), use ReLU instead of the sigmoid, or put batch "
        "normalisation behind each layer; headstart layers gains shows where it shrinks.",
    )


def wrong_rate(rate: float, better: float, before: str, after: str) -> Finding:
    """A learning rate that fails where another succeeds.

    Args:
        rate: the one that was set.
        better: one with which the same training succeeds.
        before, after: how the training ended with either.
    """
    high = better < rate
    return finding(
        "rate-too-high" if high else "rate-too-low",
        f"The learning rate is too {'high' if high else 'low'}: {rate:.2g}.",
        f"With it {before}; with {better:.2g} {after}.",
        f"Set --learning-rate {better:.2g}; headstart lr shows the whole range.",
    )


def shuffled_labels(neighbours: Share, chance: float, held_out: Share, guess: float, passed: bool) -> Finding:
    """Labels that nothing in the photos tells.

    Args:
        neighbours: photos whose most similar photo has their label.
        chance: the share of these in a random order of the labels.
        held_out: photos that a net recognises which was trained on others.
        guess: the share of these that the most frequent class alone gives.
        passed: the net could learn 50 photos by heart.
    """
    learned = "It learned 50 photos by heart, as a net can with any labels, but nothing" if passed else "Nothing"
    return finding(
        "labels",
        "The labels do not follow the photos: they seem to be shuffled against them.",
        f"{learned} that it learns holds for other photos: {held_out} are recognised, guessing gives "
        f"{_percent(guess)}. The photo that looks most like another has its label in {neighbours}; a random order "
        f"gives {_percent(chance)}.",
        "Look at a few photos with their labels. If they are wrong, see where the two lists are paired: one was "
        "sorted, shuffled or filtered without the other. If they are right, the classes differ in something too fine "
        "to find in so few photos.",
    )


def too_small(net: nn.Module, photos: int, right: int, fewer: int) -> Finding:
    """A net that learns a few photos by heart, but not 50."""
    weights = sum(parameter.numel() for parameter in net.parameters())
    return finding(
        "capacity",
        "The net is too small: it cannot tell the photos apart.",
        f"It learns {fewer} photos by heart, but of {photos} only {right}, with each learning rate that was tried. It "
        f"has {weights:,} weights.",
        "Make its narrowest layer wider, or use a larger net.",
    )


def unexplained(photos: int, right: int, rates: Sequence[float]) -> Finding:
    """None of the known causes."""
    tried = ", ".join(f"{rate:.2g}" for rate in rates)
    return finding(
        "unknown",
        "It cannot learn the photos by heart, and none of the usual causes is there.",
        f"{right} of {photos} are right at the end. Weights change, the gradient reaches every layer, the loss looks "
        f"at outputs and labels; learning rates tried: {tried}.",
        "Try more steps. Then take the net apart: train its last layer alone, add one layer after the other.",
    )


def _names(names: Sequence[str]) -> str:
    quoted = [shown(name) or "the net itself" for name in names]
    rest = len(quoted) - LISTED
    return ", ".join(quoted[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
