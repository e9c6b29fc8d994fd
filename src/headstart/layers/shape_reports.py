"""What one layer makes of an image: output shape, parameters, cost, unread pixels; a value that prints itself."""

from dataclasses import dataclass
from typing import Literal

from headstart.errors import ShapeError
from headstart.layers.shape_text import (
    axes_json,
    both,
    by,
    counted,
    keeping,
    output_lines,
    padded_lines,
    table,
    unread_lines,
)
from headstart.layers.shapes import Axis, Padding, size_keeping_padding
from headstart.layers.typed import Padding2d, check_counts, checked_size

Pair = int | tuple[int, int]  # one number for both axes, or (height, width)
PoolKind = Literal["max", "average", "l2"]
POOL_KINDS: dict[PoolKind, str] = {
    "max": "the largest value of the window",
    "average": "the mean of the window, padding counted as zeros",
    "l2": "the square root of the sum of squares of the window",
}


@dataclass(frozen=True)
class ConvShape:
    """A convolution's arithmetic.

    Args:
        rows, columns: the two spatial axes.
        channels: input channels.
        filters: output channels.
        groups: sets of channels that do not see each other; 1 is the ordinary convolution.
        bias: one more parameter a filter.
        padding: as the user gave it, for the text.
    """

    rows: Axis
    columns: Axis
    channels: int
    filters: int
    groups: int
    bias: bool
    padding: Padding2d

    @property
    def input(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        return self.rows.size, self.columns.size, self.channels

    @property
    def output(self) -> tuple[int, int, int]:
        """`(height, width, filters)`."""
        return self.rows.output, self.columns.output, self.filters

    @property
    def positions(self) -> int:
        """Places where the window stands: height x width of the output."""
        return self.rows.output * self.columns.output

    @property
    def multiplications_per_position(self) -> int:
        """Multiplications that one filter does at one place: kernel height x width x channels it sees."""
        return self.rows.kernel * self.columns.kernel * (self.channels // self.groups)

    @property
    def multiply_adds(self) -> int:
        """Multiplications of the whole layer on one image; adding the bias is not counted."""
        return self.positions * self.multiplications_per_position * self.filters

    @property
    def parameters(self) -> int:
        """`K*F*F*D_in + K` for K filters of F x F on D_in channels; without the last K where there is no bias."""
        return self.filters * (self.multiplications_per_position + self.bias)

    @property
    def size_keeping(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """`(before, after)` pixels of zero padding, for the rows and the columns, that keep the size at stride 1."""
        rows, columns = self.rows, self.columns
        return size_keeping_padding(rows.kernel, rows.dilation), size_keeping_padding(columns.kernel, columns.dilation)

    def to_text(self) -> str:
        """The arithmetic, one line a fact."""
        rows, columns = self.rows, self.columns
        window = f"{rows.kernel} x {columns.kernel} x {self.channels // self.groups}"
        return table(
            ("layer", f"convolution, {counted(self.filters, 'filter')} of {window}, {_how(self)}"),
            ("input", by(self.input)),
            *padded_lines(rows, columns, self.channels),
            ("output", by(self.output)),
            *output_lines(rows, columns),
            ("positions", f"{self.positions:,} = {rows.output} x {columns.output}"),
            ("multiplications", f"{self.multiplications_per_position:,} a position and filter = {window}"),
            (
                "multiply-adds",
                f"{self.multiply_adds:,} = {self.positions:,} x {self.multiplications_per_position:,} x {self.filters}",
            ),
            ("parameters", f"{self.parameters:,} = {self.filters} x {window}" + f" + {self.filters}" * self.bias),
            ("keeps the size", f"padding {keeping(self.size_keeping)} at stride 1"),
            *unread_lines(rows, columns),
        )

    def to_json(self) -> dict[str, object]:
        """The same facts for a program."""
        return {
            "layer": "conv",
            "input": list(self.input),
            "output": list(self.output),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "positions": self.positions,
            "multiplications_per_position": self.multiplications_per_position,
            "size_keeping_padding": [list(side) for side in self.size_keeping],
            **axes_json(self.rows, self.columns),
        }


@dataclass(frozen=True)
class PoolShape:
    """A pooling layer's arithmetic: no parameters, the depth stays.

    Args:
        rows, columns: the two spatial axes.
        channels: of the input and the output.
        kind: what is made of a window, a key of POOL_KINDS.
        padding: as the user gave it, for the text.
    """

    rows: Axis
    columns: Axis
    channels: int
    kind: PoolKind
    padding: Padding2d

    @property
    def input(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        return self.rows.size, self.columns.size, self.channels

    @property
    def output(self) -> tuple[int, int, int]:
        """`(height, width, channels)`."""
        return self.rows.output, self.columns.output, self.channels

    @property
    def positions(self) -> int:
        """Places where the window stands: height x width of the output."""
        return self.rows.output * self.columns.output

    def to_text(self) -> str:
        """The arithmetic, one line a fact."""
        rows, columns = self.rows, self.columns
        window = f"{rows.kernel} x {columns.kernel}"
        return table(
            ("layer", f"{self.kind} pooling of {window}, {_how(self)}: {POOL_KINDS[self.kind]}"),
            ("input", by(self.input)),
            *padded_lines(rows, columns, self.channels),
            ("output", by(self.output)),
            *output_lines(rows, columns),
            (
                "positions",
                f"{self.positions:,} = {rows.output} x {columns.output}, on each of {self.channels} channels",
            ),
            ("parameters", "0"),
            *unread_lines(rows, columns),
        )

    def to_json(self) -> dict[str, object]:
        """The same facts for a program."""
        return {
            "layer": "pool",
            "kind": self.kind,
            "input": list(self.input),
            "output": list(self.output),
            "parameters": 0,
            "positions": self.positions,
            **axes_json(self.rows, self.columns),
        }


def shape_conv(
    input_size: tuple[int, int, int],
    filters: int,
    kernel: Pair,
    *,
    stride: Pair = 1,
    padding: Padding2d = "valid",
    dilation: Pair = 1,
    groups: int = 1,
    bias: bool = True,
) -> ConvShape:
    """Work out a convolution by hand: what comes out, what it costs and what it never looks at.

    Args:
        input_size: `(height, width, channels)`.
        filters: output channels.
        kernel, stride, dilation: one number, or `(height, width)`.
        padding: 'valid', 'same', or pixels: one number, `(rows, columns)` or `(above, below, left, right)`.
        groups: divides both the channels and the filters; `groups == channels` is a depthwise convolution.
        bias: one more parameter a filter.

    Raises:
        ShapeError: the window does not fit, or a value is out of range.

    >>> layer = shape_conv((200, 200, 1), filters=16, kernel=2, stride=2)
    >>> layer.output, layer.parameters
    ((100, 100, 16), 80)
    """
    height, width, channels = checked_size(input_size)
    check_counts(filters=filters, groups=groups)
    if channels % groups or filters % groups:
        raise ShapeError(
            f"groups is {groups}, which does not divide both channels={channels} and filters={filters}; "
            "choose a common divisor, or 1 for an ordinary convolution"
        )
    row_side, column_side = _sides(padding)
    (kh, kw), (sh, sw), (dh, dw) = _pair(kernel), _pair(stride), _pair(dilation)
    return ConvShape(
        Axis.of(height, kh, sh, row_side, dh),
        Axis.of(width, kw, sw, column_side, dw),
        channels,
        filters,
        groups,
        bias,
        padding,
    )


def shape_pool(
    input_size: tuple[int, int, int],
    pool: Pair = 2,
    *,
    stride: Pair | None = None,
    padding: Padding2d = "valid",
    dilation: Pair = 1,
    kind: PoolKind = "max",
    ceil: bool = False,
) -> PoolShape:
    """Work out a pooling layer by hand.

    Args:
        input_size: `(height, width, channels)`.
        pool: window, one number or `(height, width)`.
        stride: as `pool` where it is not given.
        padding: as in `shape_conv`; explicit pixels at most half the window.
        dilation: pixels between the cells of a window.
        kind: 'max', 'average' or 'l2'.
        ceil: keep a last window that hangs over the end.

    Raises:
        ShapeError: the window does not fit, or a value is out of range.

    >>> shape_pool((100, 100, 15), 2).output, shape_pool((100, 100, 15), 2, stride=1).output
    ((50, 50, 15), (99, 99, 15))
    """
    height, width, channels = checked_size(input_size)
    if kind not in POOL_KINDS:
        raise ShapeError(f"pool kind is {kind!r}; expected one of {', '.join(POOL_KINDS)}")
    row_side, column_side = _sides(padding)
    (ph, pw), (dh, dw) = _pair(pool), _pair(dilation)
    sh, sw = (ph, pw) if stride is None else _pair(stride)
    return PoolShape(
        Axis.of_pool(height, ph, sh, row_side, dh, ceil),
        Axis.of_pool(width, pw, sw, column_side, dw, ceil),
        channels,
        kind,
        padding,
    )


def dense_parameters(inputs: int, units: int, bias: bool = True) -> int:
    """Parameters of a dense layer: every unit has one weight an input, and one bias.

    >>> dense_parameters(28 * 28, 30)
    23550
    """
    check_counts(inputs=inputs, units=units)
    return units * (inputs + bias)


def _pair(value: Pair) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _sides(padding: Padding2d) -> tuple[Padding, Padding]:
    """The padding of the rows and of the columns."""
    if not isinstance(padding, tuple):
        return padding, padding
    if len(padding) == 4:
        return padding[:2], padding[2:]
    if len(padding) == 2:
        return padding[0], padding[1]
    raise ShapeError(f"padding is {padding!r}; expected 1 number, 2 (rows, columns) or 4 (above, below, left, right)")


def _how(layer: ConvShape | PoolShape) -> str:
    """Stride, padding and what else is not ordinary, for the first line."""
    rows, columns = layer.rows, layer.columns
    parts = [f"stride {both(rows.stride, columns.stride)}", f"padding {layer.padding}"]
    if (rows.dilation, columns.dilation) != (1, 1):
        parts.append(f"dilation {both(rows.dilation, columns.dilation)}")
    if isinstance(layer, ConvShape) and layer.groups > 1:
        parts.append(f"{layer.groups} groups")
    return ", ".join(parts)
