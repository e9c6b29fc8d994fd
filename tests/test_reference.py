"""The slow NumPy layers: worked examples, finite differences for every gradient, and PyTorch in float64."""

import math

import numpy as np
import pytest

from headstart.errors import ShapeError
from headstart.layers import reference as ref
from headstart.layers import reference_gradients as grad

RANDOM = np.random.default_rng(0)
CONVOLUTIONS = [  # channels, filters, kernel, options
    (3, 4, (3, 3), {}),
    (2, 3, (2, 3), {"stride": 2}),
    (2, 2, (3, 1), {"padding": 2}),
    (2, 4, (2, 2), {"dilation": 2, "padding": 1}),
    (4, 6, (3, 2), {"groups": 2, "stride": 2, "padding": 1}),
    (3, 3, (3, 3), {"groups": 3}),
    (5, 4, (1, 1), {}),
]


def normal(*shape):
    return RANDOM.normal(size=shape)


def by_differences(function, x, step=1e-6):
    """The gradient of a number with respect to every entry of x, from the definition of a derivative."""
    gradient = np.zeros_like(x)
    for at in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[at] += step
        down[at] -= step
        gradient[at] = (function(up) - function(down)) / (2 * step)
    return gradient


def same(ours, expected, tolerance=1e-7):
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)


def from_torch(function, upstream, *arrays):
    """Output of a PyTorch function in float64, and the gradients it sends to its inputs."""
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    out = function(torch, *tensors)
    out.backward(torch.tensor(upstream) if out.ndim else None)
    return out.detach().numpy(), [tensor.grad.numpy() for tensor in tensors]


# --- convolution and dense -------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "filters", "kernel", "options"), CONVOLUTIONS)
def test_convolution_and_its_gradients_equal_pytorch_and_finite_differences(channels, filters, kernel, options):
    x, w = normal(1, channels, 5, 4), normal(filters, channels // options.get("groups", 1), *kernel)
    b = normal(filters)
    y = ref.conv2d(x, w, b, **options)
    upstream = normal(*y.shape)
    expected, gradients = from_torch(lambda torch, *t: torch.nn.functional.conv2d(*t, **options), upstream, x, w, b)
    same(y, expected, 1e-12)
    to_x, to_w, to_b = grad.conv2d_gradients(upstream, x, w, **options)
    for ours, theirs in zip((to_x, to_w, to_b), gradients, strict=True):
        same(ours, theirs, 1e-12)
    same(to_x, by_differences(lambda v: (ref.conv2d(v, w, b, **options) * upstream).sum(), x))
    same(to_w, by_differences(lambda v: (ref.conv2d(x, v, b, **options) * upstream).sum(), w))
    same(to_b, by_differences(lambda v: (ref.conv2d(x, w, v, **options) * upstream).sum(), b))


def test_convolution_of_a_4x4_image_by_hand():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    w = np.array([[[[1.0, 0.0], [0.0, -1.0]]]])  # a pixel minus its neighbour down to the right: always -5 here
    assert ref.conv2d(x, w).tolist() == [[[[-5.0] * 3] * 3]]
    assert ref.conv2d(x, w, stride=2, bias=np.array([1.0])).tolist() == [[[[-4.0] * 2] * 2]]


def test_convolution_does_not_flip_its_filter():
    x = np.zeros((1, 1, 3, 3))
    x[0, 0, 0, 1] = 1.0  # a spot in the first row ...
    w = np.arange(9.0).reshape(1, 1, 3, 3)
    assert ref.conv2d(x, w).item() == 1.0  # ... meets the filter's first row, not its last (7)


def test_a_1x1_convolution_is_a_weighted_sum_over_depth():
    x, w = normal(2, 5, 3, 4), normal(2, 5, 1, 1)
    y = ref.conv2d(x, w)
    for k in range(2):
        same(y[:, k], sum(x[:, d] * w[k, d, 0, 0] for d in range(5)), 1e-12)


def test_one_output_is_the_sum_of_one_small_filter_a_channel():
    x, w = normal(1, 3, 6, 6), normal(1, 3, 3, 3)
    terms = [ref.conv2d(x[:, d : d + 1], w[:, d : d + 1]) for d in range(3)]
    same(ref.conv2d(x, w), sum(terms), 1e-12)


def test_channels_that_do_not_match_are_refused_with_all_numbers():
    with pytest.raises(ShapeError, match="4 filters of depth 2 do not fit 3 channels in 1 groups"):
        ref.conv2d(normal(1, 3, 5, 5), normal(4, 2, 3, 3))
    with pytest.raises(ShapeError, match="window spans 7 px"):
        ref.conv2d(normal(1, 1, 5, 5), normal(1, 1, 7, 7))


def test_a_dense_layer_and_its_gradients_equal_pytorch_and_finite_differences():
    x, w, b = normal(3, 4), normal(2, 4), normal(2)
    upstream = normal(3, 2)
    expected, gradients = from_torch(lambda torch, *t: torch.nn.functional.linear(*t), upstream, x, w, b)
    same(ref.dense(x, w, b), expected, 1e-12)
    for ours, theirs in zip(grad.dense_gradients(upstream, x, w), gradients, strict=True):
        same(ours, theirs, 1e-12)
    same(grad.dense_gradients(upstream, x, w)[0], by_differences(lambda v: (ref.dense(v, w, b) * upstream).sum(), x))


# --- pooling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["max", "average", "l2"])
@pytest.mark.parametrize(("size", "stride"), [(2, None), (3, 2), (2, 1), (2, 3)])
def test_pooling_and_its_gradient_equal_pytorch_and_finite_differences(kind, size, stride):
    x = normal(2, 2, 7, 6)
    layer = {
        "max": lambda torch, t: torch.nn.functional.max_pool2d(t, size, stride),
        "average": lambda torch, t: torch.nn.functional.avg_pool2d(t, size, stride),
        "l2": lambda torch, t: torch.nn.functional.lp_pool2d(t, 2.0, size, stride),
    }[kind]
    y = ref.pool2d(x, size, stride, kind)
    upstream = normal(*y.shape)
    expected, (to_x,) = from_torch(layer, upstream, x)
    same(y, expected, 1e-12)
    ours = grad.pool2d_gradient(upstream, x, size, stride, kind)
    same(ours, to_x, 1e-9)
    same(ours, by_differences(lambda v: (ref.pool2d(v, size, stride, kind) * upstream).sum(), x))


def test_pooling_a_window_by_hand():
    x = np.array([[[[1.0, -2.0], [2.0, 4.0]]]])
    assert [ref.pool2d(x, 2, kind=kind).item() for kind in ("max", "average", "l2")] == [4.0, 1.25, 5.0]


def test_the_gradient_of_a_tied_maximum_goes_to_the_first_pixel_and_is_not_lost_where_windows_overlap():
    x = np.zeros((1, 1, 3, 3))
    upstream = np.ones((1, 1, 2, 2))
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert grad.pool2d_gradient(upstream, x, 2, 1).tolist() == [[expected]]
    peak = np.zeros((1, 1, 3, 3))
    peak[0, 0, 1, 1] = 5.0  # all four windows see it
    assert grad.pool2d_gradient(upstream, peak, 2, 1)[0, 0, 1, 1] == 4


def test_the_l2_norm_of_an_empty_window_has_gradient_0():
    assert (grad.pool2d_gradient(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 2, 2)), 2, kind="l2") == 0).all()


def test_global_average_pooling_and_its_gradient_equal_pytorch():
    x, upstream = normal(2, 3, 4, 5), normal(2, 3)
    expected, (to_x,) = from_torch(lambda torch, t: t.mean(dim=(2, 3)), upstream, x)
    same(ref.global_average_pool(x), expected, 1e-12)
    same(grad.global_average_pool_gradient(upstream, x), to_x, 1e-12)


# --- batch normalisation ---------------------------------------------------------------------


def test_batch_norm_and_its_gradients_equal_pytorch_and_finite_differences():
    x, scale, shift = 3 * normal(4, 3, 3, 2) + 1, normal(3), normal(3)
    upstream = normal(*x.shape)

    def ours(v):
        return ref.batch_norm(v, *ref.batch_statistics(v), scale, shift)

    expected, gradients = from_torch(
        lambda torch, t, g, b: torch.nn.functional.batch_norm(t, None, None, g, b, training=True),
        upstream,
        x,
        scale,
        shift,
    )
    same(ours(x), expected, 1e-10)
    for mine, theirs in zip(grad.batch_norm_gradients(upstream, x, scale), gradients, strict=True):
        same(mine, theirs, 1e-9)
    same(
        grad.batch_norm_gradients(upstream, x, scale)[0], by_differences(lambda v: (ours(v) * upstream).sum(), x), 1e-6
    )


def test_batch_norm_makes_mean_0_and_variance_1_before_its_scale_and_shift():
    x = 5 * normal(8, 2, 4, 4) - 3
    y = ref.batch_norm(x, *ref.batch_statistics(x), np.ones(2), np.zeros(2), epsilon=0.0)
    same(y.mean(axis=(0, 2, 3)), 0.0, 1e-12)
    same(y.var(axis=(0, 2, 3)), 1.0, 1e-12)


def test_running_statistics_and_inference_equal_pytorchs_layer():
    torch = pytest.importorskip("torch")
    layer = torch.nn.BatchNorm2d(3, dtype=torch.float64)
    running = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = 2 * normal(4, 3, 3, 3) + 1
        layer(torch.tensor(x))
        running = ref.running_statistics(running, x)
    same(running[0], layer.running_mean.numpy(), 1e-12)
    same(running[1], layer.running_var.numpy(), 1e-12)
    x = normal(2, 3, 3, 3)
    same(ref.batch_norm(x, *running, np.ones(3), np.zeros(3)), layer.eval()(torch.tensor(x)).detach().numpy(), 1e-12)


# --- dropout ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["inverted", "classical"])
def test_dropout_keeps_the_mean_between_training_and_use(kind):
    x, rate = np.ones((400, 500)), 0.3
    trained = ref.dropout(x, rate, ref.keep_mask(x.shape, rate, np.random.default_rng(1)), kind)
    used = ref.dropout(x, rate, None, kind)
    deviation = trained.std() / math.sqrt(x.size)
    assert abs(trained.mean() - used.mean()) < 5 * deviation


def test_inverted_dropout_changes_nothing_in_use_and_classical_dropout_nothing_that_survives():
    x, keep = normal(3, 4), np.array([[True, False, True, False]] * 3)
    assert (ref.dropout(x, 0.5, None) == x).all()
    assert (ref.dropout(x, 0.5, keep) == 2 * x * keep).all()
    assert (ref.dropout(x, 0.5, None, "classical") == x / 2).all()
    assert (ref.dropout(x, 0.5, keep, "classical") == x * keep).all()


def test_inverted_dropout_equals_pytorchs_given_the_same_mask():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    x = np.abs(normal(6, 7)) + 0.1
    theirs = torch.nn.functional.dropout(torch.tensor(x), 0.4, training=True).numpy()
    same(ref.dropout(x, 0.4, theirs != 0), theirs, 1e-12)


@pytest.mark.parametrize("kind", ["inverted", "classical"])
@pytest.mark.parametrize("training", [True, False])
def test_the_gradient_of_dropout_equals_finite_differences(kind, training):
    x, upstream = normal(3, 4), normal(3, 4)
    keep = ref.keep_mask((3, 4), 0.4, np.random.default_rng(2)) if training else None
    expected = by_differences(lambda v: (ref.dropout(v, 0.4, keep, kind) * upstream).sum(), x)
    same(grad.dropout_gradient(upstream, 0.4, keep, kind), expected)


def test_the_share_of_dropped_units_is_the_rate():
    kept = ref.keep_mask((1000, 1000), 0.2, np.random.default_rng(3)).mean()
    assert abs(kept - 0.8) < 5 * math.sqrt(0.2 * 0.8 / 1e6)


# --- activations and losses --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_activations_and_their_gradients_equal_pytorch_and_finite_differences(name):
    x, upstream = 3 * normal(5, 6), normal(5, 6)
    function, gradient = getattr(ref, name), getattr(grad, f"{name}_gradient")
    expected, (to_x,) = from_torch(lambda torch, t: getattr(torch, name)(t), upstream, x)
    same(function(x), expected, 1e-12)
    same(gradient(upstream, x), to_x, 1e-12)
    same(gradient(upstream, x), by_differences(lambda v: (function(v) * upstream).sum(), x))


def test_activations_of_huge_numbers_neither_overflow_nor_lose_their_limit():
    x = np.array([-1e4, -40.0, 0.0, 40.0, 1e4])
    same(ref.tanh(x), [-1, -1, 0, 1, 1], 1e-12)
    same(ref.sigmoid(x), [0, 0, 0.5, 1, 1], 1e-12)
    assert ref.relu(x).tolist() == [0, 0, 0, 40, 1e4]
    same(ref.softmax(np.array([[1e4, 0.0]])), [[1, 0]], 1e-12)


def test_the_gradient_of_a_sigmoid_is_never_more_than_a_quarter():
    x = np.linspace(-8, 8, 1001)
    assert grad.sigmoid_gradient(np.ones_like(x), x).max() == 0.25


def test_softmax_and_its_gradient_equal_pytorch_and_finite_differences():
    x, upstream = normal(4, 5), normal(4, 5)
    expected, (to_x,) = from_torch(lambda torch, t: torch.softmax(t, dim=1), upstream, x)
    same(ref.softmax(x), expected, 1e-12)
    same(ref.softmax(x).sum(axis=1), 1.0, 1e-12)
    same(grad.softmax_gradient(upstream, x), to_x, 1e-12)
    same(grad.softmax_gradient(upstream, x), by_differences(lambda v: (ref.softmax(v) * upstream).sum(), x))


@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_and_its_gradient_equal_pytorch_and_finite_differences(soft):
    x = normal(4, 3)
    targets = ref.softmax(normal(4, 3)) if soft else ref.one_hot(np.array([0, 2, 1, 2]), 3)
    expected, (to_x,) = from_torch(
        lambda torch, t: torch.nn.functional.cross_entropy(t, torch.tensor(targets)), None, x
    )
    same(ref.cross_entropy(x, targets), expected, 1e-12)
    same(grad.cross_entropy_gradient(x, targets), to_x, 1e-12)
    same(grad.cross_entropy_gradient(x, targets), by_differences(lambda v: ref.cross_entropy(v, targets), x))


def test_cross_entropy_of_an_undecided_net_is_the_logarithm_of_the_number_of_classes():
    targets = ref.one_hot(np.array([3, 7]), 10)
    assert ref.cross_entropy(np.zeros((2, 10)), targets) == pytest.approx(math.log(10), abs=1e-12)
    assert ref.cross_entropy(1e4 * targets, targets) == 0.0


def test_mean_squared_error_is_half_the_sum_of_squares_and_equals_pytorch():
    y, targets = normal(4, 3), ref.one_hot(np.array([0, 2, 1, 2]), 3)
    expected, (to_y,) = from_torch(
        lambda torch, t: 0.5 * torch.nn.functional.mse_loss(t, torch.tensor(targets), reduction="sum") / 4, None, y
    )
    same(ref.mean_squared_error(y, targets), expected, 1e-12)
    same(grad.mean_squared_error_gradient(y, targets), to_y, 1e-12)
    assert ref.mean_squared_error(np.array([[1.0, 3.0]]), np.array([[0.0, 1.0]])) == 2.5


def test_one_hot_labels_match_pytorch_and_a_label_out_of_range_is_refused():
    torch = pytest.importorskip("torch")
    labels = np.array([2, 0, 1])
    assert (ref.one_hot(labels, 4) == torch.nn.functional.one_hot(torch.tensor(labels), 4).numpy()).all()
    for wrong in ([0, 4], [-1, 2]):
        with pytest.raises(ShapeError, match="expected 0 to 3"):
            ref.one_hot(np.array(wrong), 4)


# --- all together --------------------------------------------------------------------------------


def test_backpropagation_through_a_small_network_by_hand_equals_pytorchs():
    torch = pytest.importorskip("torch")
    x, labels = normal(3, 1, 8, 8), np.array([0, 2, 1])
    w1, b1, w2, b2 = normal(4, 1, 3, 3), normal(4), normal(3, 4 * 9), normal(3)
    targets = ref.one_hot(labels, 3)
    # forward
    conv = ref.conv2d(x, w1, b1)
    active = ref.relu(conv)
    pooled = ref.pool2d(active, 2)
    flat = pooled.reshape(3, -1)
    logits = ref.dense(flat, w2, b2)
    # backward
    to_logits = grad.cross_entropy_gradient(logits, targets)
    to_flat, to_w2, to_b2 = grad.dense_gradients(to_logits, flat, w2)
    to_active = grad.pool2d_gradient(to_flat.reshape(pooled.shape), active, 2)
    _, to_w1, to_b1 = grad.conv2d_gradients(grad.relu_gradient(to_active, conv), x, w1)

    tensors = [torch.tensor(values, requires_grad=True) for values in (w1, b1, w2, b2)]
    hidden = torch.nn.functional.conv2d(torch.tensor(x), *tensors[:2]).relu()
    out = torch.nn.functional.max_pool2d(hidden, 2).flatten(1) @ tensors[2].T + tensors[3]
    torch.nn.functional.cross_entropy(out, torch.tensor(labels)).backward()
    for ours, theirs in zip((to_w1, to_b1, to_w2, to_b2), tensors, strict=True):
        same(ours, theirs.grad.numpy(), 1e-10)
