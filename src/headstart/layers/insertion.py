"""Put batch normalisation into a net that was made without, so that nothing changes at first.

A batch-norm that is inserted gets the mean and variance that its channel has on some photos as running statistics, the
square root of that variance as scale and that mean as shift: it undoes what it does. Training can then use it.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headstart.errors import ShapeError
from headstart.layers.trace import Trace, trace

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def insert_batch_norm(
    net: nn.Module, photos: Float[Tensor, "batch channels height width"], epsilon: float = 1e-5
) -> nn.Module:
    """A copy of the net with a batch-norm behind each convolution and dense layer that has none, the last one excepted.

    In use it gives the same outputs for every photo, but for rounding; a net that had no batch-norm at all also gives
    them while training, for `photos`. A layer "name" becomes "name.0", and its batch-norm is "name.1". Layers that run
    more than once are left as they are.

    Args:
        net: left as it is.
        photos: normalised; a hundred give good statistics.
        epsilon: of the batch-norms.

    Raises:
        ShapeError: the photos do not fit the net, or every layer has its batch-norm already.
    """
    changed = copy.deepcopy(net)
    names = layers_without_norm(trace(changed, tuple(photos.shape[1:])))
    if not names:
        raise ShapeError("no batch-norm to insert: every layer but the last has one, or the net has one layer only")
    statistics = _statistics(changed, photos, names)
    for name in names:
        layer = changed.get_submodule(name)
        mean, variance = statistics[name]
        norm = (nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d)(len(mean), eps=epsilon)
        norm.running_mean, norm.running_var = mean.clone(), variance.clone()
        norm.weight.data, norm.bias.data = (variance + epsilon).sqrt(), mean.clone()
        inserted = nn.Sequential(layer, norm.to(mean.dtype)).train(layer.training)
        changed.set_submodule(name, inserted)
    return changed


def layers_without_norm(run: Trace) -> list[str]:
    """Names of the convolutions and dense layers, without the last, whose output no batch-norm takes."""
    weighted = [number for number, step in enumerate(run.steps) if isinstance(step.layer, nn.Conv2d | nn.Linear)]
    normed = {number for step in run.steps if isinstance(step.layer, NORMS) for number in step.inputs}
    runs = [run.steps[number].layer for number in weighted]
    return [
        run.steps[number].name
        for number in weighted[:-1]
        if number not in normed and runs.count(run.steps[number].layer) == 1
    ]


def _statistics(net: nn.Module, photos: Tensor, names: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance (over n) of each channel behind each layer, on the net as used."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str, value: Tensor) -> None:
        axes = [axis for axis in range(value.ndim) if axis != 1]
        found[name] = value.mean(dim=axes), value.var(dim=axes, unbiased=False)

    modes = [(module, module.training) for module in net.modules()]
    hooks = [
        net.get_submodule(name).register_forward_hook(lambda _, __, value, name=name: keep(name, value))
        for name in names
    ]
    try:
        net.eval()
        with torch.no_grad():
            net(photos)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    return found
