"""The arithmetic of one spatial axis: output length, padding, and the pixels no window ever reads. Pure Python.

Formulas: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
'valid' and 'same' are Keras's words: 'valid' adds nothing and gives `ceil((size - reach + 1) / stride)`, 'same' adds
what makes the output `ceil(size / stride)`.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from headstart.errors import ShapeError

Padding = int | tuple[int, int] | Literal["valid", "same"]  # one axis: pixels on each side, (before, after), or a rule

MAX_SIDE = 1_000_000  # px; a longer side is a typing error, and the exact list of unread pixels would take minutes


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: Padding = 0, dilation: int = 1) -> int:
    """Length of one spatial axis after a convolution.

    `floor((size + before + after - dilation*(kernel - 1) - 1) / stride) + 1` (arXiv:1603.07285, relation 15).

    Args:
        size: input length, pixels, >= 1.
        kernel, stride, dilation: >= 1.
        padding: pixels added on each side, or `(before, after)`, >= 0; or 'valid' (none), or 'same'.

    Returns:
        Output length, pixels.

    Raises:
        ShapeError: the window does not fit inside the padded input, or a value is out of range.

    >>> conv_output_size(224, kernel=7, stride=2, padding=3)
    112
    >>> conv_output_size(32, kernel=5), conv_output_size(32, kernel=5, stride=2, padding="same")
    (28, 16)
    """
    return Axis.of(size, kernel, stride, padding, dilation).output


def pool_output_size(
    size: int, pool: int, stride: int | None = None, padding: Padding = 0, dilation: int = 1, ceil: bool = False
) -> int:
    """Length of one spatial axis after pooling, whatever the kind of pooling.

    Args:
        size: input length, pixels, >= 1.
        pool: window, pixels, >= 1.
        stride: pixels between windows, >= 1; the window's own size where it is not given.
        padding: as in `conv_output_size`; explicit pixels may be at most half the window.
        dilation: pixels between the cells of a window, >= 1.
        ceil: keep a last window that hangs over the end (PyTorch's `ceil_mode`), as long as it starts inside the input.

    Returns:
        Output length, pixels.

    Raises:
        ShapeError: the window does not fit, the padding is more than half the window, or a value is out of range.

    >>> pool_output_size(100, 2), pool_output_size(100, 2, stride=1)
    (50, 99)
    """
    return Axis.of_pool(size, pool, stride, padding, dilation, ceil).output


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Pixels that the 'same' rule adds before and after, so that the output is `ceil(size / stride)`.

    The odd pixel goes behind, as in TensorFlow and Keras. Networks trained there (EfficientNet-Lite) need exactly this.

    Returns:
        `(before, after)`, pixels.

    >>> same_padding(224, kernel=3, stride=2), same_padding(225, kernel=3, stride=2)
    ((0, 1), (1, 1))
    """
    _check_positive(size=size, kernel=kernel, stride=stride, dilation=dilation)
    wanted = -(-size // stride)
    total = max((wanted - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
    return total // 2, total - total // 2


def size_keeping_padding(kernel: int, dilation: int = 1) -> tuple[int, int]:
    """Zero padding that keeps a size at stride 1: `(kernel - 1) / 2` on each side.

    Returns:
        `(before, after)`, pixels; an even reach needs one more behind than before.

    >>> size_keeping_padding(5), size_keeping_padding(2)
    ((2, 2), (0, 1))
    """
    _check_positive(kernel=kernel, dilation=dilation)
    total = dilation * (kernel - 1)
    return total // 2, total - total // 2


@dataclass(frozen=True)
class Axis:
    """One spatial axis under a sliding window; build it with `Axis.of` or `Axis.of_pool`, which check the values.

    Args:
        size: input length, pixels.
        kernel, stride, dilation: of the window.
        padding: `(before, after)`, pixels.
        ceil: a last window may hang over the end.
    """

    size: int
    kernel: int
    stride: int
    padding: tuple[int, int]
    dilation: int = 1
    ceil: bool = False

    @classmethod
    def of(cls, size: int, kernel: int, stride: int = 1, padding: Padding = 0, dilation: int = 1) -> "Axis":
        """The axis of a convolution, checked. Raises ShapeError."""
        _check_positive(size=size, kernel=kernel, stride=stride, dilation=dilation)
        return cls(size, kernel, stride, _pixels(padding, size, kernel, stride, dilation), dilation)._checked()

    @classmethod
    def of_pool(
        cls,
        size: int,
        pool: int,
        stride: int | None = None,
        padding: Padding = 0,
        dilation: int = 1,
        ceil: bool = False,
    ) -> "Axis":
        """The axis of a pooling layer, checked; without a stride it is the pool size. Raises ShapeError."""
        step = pool if stride is None else stride
        _check_positive(size=size, pool=pool, stride=step, dilation=dilation)
        sides = _pixels(padding, size, pool, step, dilation)
        if padding != "same" and max(sides) > pool // 2:
            raise ShapeError(
                f"padding is {max(sides)} px but a pool of {pool} px allows at most half of it, {pool // 2} px "
                f"(size={size}): a window would see nothing but padding; use less padding or a larger pool"
            )
        return cls(size, pool, step, sides, dilation, ceil)._checked()

    def _checked(self) -> "Axis":
        """The axis itself, if there is room for one window; with `ceil` the only window may hang over the end."""
        if self.output >= 1:
            return self
        before, after = self.padding
        raise ShapeError(
            f"window spans {self.reach} px but the padded input is {self.padded} px (size={self.size}, "
            f"padding={before}+{after}, kernel={self.kernel}, dilation={self.dilation}); "
            "use a larger image, a smaller kernel or more padding"
        )

    @property
    def reach(self) -> int:
        """Input pixels from the first to the last cell of one window."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def padded(self) -> int:
        """Length with its padding, pixels."""
        return self.size + sum(self.padding)

    @property
    def exact_output(self) -> Fraction:
        """The output length before rounding, `(padded - reach)/stride + 1`; a whole number where the windows fit."""
        return Fraction(self.padded - self.reach, self.stride) + 1

    @property
    def output(self) -> int:
        """Output length, pixels."""
        steps = self.padded - self.reach
        if not self.ceil:
            return steps // self.stride + 1
        windows = -(-steps // self.stride) + 1
        starts_outside = (windows - 1) * self.stride >= self.size + self.padding[0]
        return windows - starts_outside  # PyTorch drops a window that would start in the padding behind the input

    @property
    def unread(self) -> tuple[int, ...]:
        """Positions of the padded axis that no window reads, counted from 0 at the first padding pixel."""
        end = max(self.padded, (self.output - 1) * self.stride + self.reach)
        seen = bytearray(end)
        inner, outer = sorted([(self.kernel, self.dilation), (self.output, self.stride)])
        for first in range(0, inner[0] * inner[1], inner[1]):  # fewer, longer runs: one slice a cell or a window
            stop = first + (outer[0] - 1) * outer[1] + 1
            seen[first : stop : outer[1]] = b"\x01" * outer[0]
        return tuple(at for at in range(self.padded) if not seen[at])

    @property
    def unread_pixels(self) -> tuple[int, ...]:
        """Pixels of the image itself, from 0, that no window reads."""
        before = self.padding[0]
        return tuple(at - before for at in self.unread if 0 <= at - before < self.size)


def _pixels(padding: Padding, size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Turn a padding of any form into checked `(before, after)` pixels."""
    if padding == "valid":
        return 0, 0
    if padding == "same":
        return same_padding(size, kernel, stride, dilation)
    sides = padding if isinstance(padding, tuple) else (padding, padding)
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 0 for side in sides):
        raise ShapeError(
            f"padding is {padding!r}; expected 'valid', 'same', pixels >= 0, or a pair (before, after) of them"
        )
    return sides


def _check_positive(**values: int) -> None:
    """Refuse anything but whole numbers from 1 to MAX_SIDE, naming all the values."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
            received = ", ".join(f"{key}={other!r}" for key, other in values.items())
            raise ShapeError(f"{name} is {value!r}; expected a whole number from 1 to {MAX_SIDE} (received {received})")
