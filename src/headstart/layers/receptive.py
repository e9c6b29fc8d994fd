"""Which input pixels a unit sees: the receptive field in closed form. Pure Python.

Along one axis a unit `u` of a layer sees the input pixels from `start + u*stride` to before `start + u*stride + size`;
numbers outside the image are padding. A window of a layer above a layer with field (r, j, s) makes it

    r' = r + dilation*(kernel - 1)*j        s' = s - padding_before*j        j' = j*stride

and where branches meet (a sum, a concatenation) the field is the smallest interval that holds theirs. Araujo, Norris &
Sim 2019, "Computing receptive fields of convolutional neural networks",
https://distill.pub/2019/computing-receptive-fields.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.errors import ShapeError
from headstart.layers.shapes import Axis


@dataclass(frozen=True)
class Field:
    """The receptive field along one axis; the default is that of an input pixel.

    Args:
        size: input pixels that a unit sees, padding included.
        stride: input pixels between neighbouring units.
        start: first input pixel that unit 0 sees; negative in the padding.
    """

    size: int = 1
    stride: int = 1
    start: int = 0

    def through(self, axis: Axis) -> "Field":
        """The field after one more sliding window.

        >>> Field().through(Axis.of(224, kernel=7, stride=2, padding=3))
        Field(size=7, stride=2, start=-3)
        """
        return Field(
            self.size + (axis.reach - 1) * self.stride,
            self.stride * axis.stride,
            self.start - axis.padding[0] * self.stride,
        )

    def whole(self, units: int) -> "Field":
        """The field of one unit that sees `units` neighbours: global pooling, or a dense layer on all of them."""
        return Field(self.size + (units - 1) * self.stride, self.stride, self.start)

    def joined(self, other: "Field") -> "Field | None":
        """The field of a unit that sees two layers; None if their units do not lie on the same grid.

        >>> Field(3, 1, -1).joined(Field(5, 1, -2))
        Field(size=5, stride=1, start=-2)
        """
        if self.stride != other.stride:
            return None
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return Field(end - start, self.stride, start)

    def pixels(self, unit: int, side: int) -> tuple[int, int]:
        """First and one past the last pixel of an image of `side` pixels that the unit sees.

        >>> Field(size=7, stride=2, start=-3).pixels(0, 224)
        (0, 4)
        """
        first = self.start + unit * self.stride
        return max(0, first), min(side, first + self.size)


@dataclass(frozen=True)
class ReceptiveField:
    """The fields of the rows and of the columns."""

    rows: Field = Field()
    columns: Field = Field()

    def through(self, rows: Axis, columns: Axis) -> "ReceptiveField":
        """After one more sliding window."""
        return ReceptiveField(self.rows.through(rows), self.columns.through(columns))

    def whole(self, rows: int, columns: int) -> "ReceptiveField":
        """Of one unit that sees all of `rows` x `columns` units."""
        return ReceptiveField(self.rows.whole(rows), self.columns.whole(columns))

    def joined(self, other: "ReceptiveField") -> "ReceptiveField | None":
        """Where two branches meet; None if their units do not lie on the same grid."""
        rows, columns = self.rows.joined(other.rows), self.columns.joined(other.columns)
        return None if rows is None or columns is None else ReceptiveField(rows, columns)

    def box(self, unit: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
        """`(x0, y0, x1, y1)`, half open: the part of an image `(height, width)` that the unit `(row, column)` sees."""
        top, bottom = self.rows.pixels(unit[0], size[0])
        left, right = self.columns.pixels(unit[1], size[1])
        return left, top, right, bottom

    def to_json(self) -> dict[str, int | list[int]]:
        """Size, stride and start; two numbers, rows and columns, where they differ."""
        rows, columns = self.rows, self.columns
        pairs = (
            ("size", rows.size, columns.size),
            ("stride", rows.stride, columns.stride),
            ("start", rows.start, columns.start),
        )
        return {name: row if row == column else [row, column] for name, row, column in pairs}


def field_of_chain(windows: Sequence[tuple[int, int, int]]) -> Field:
    """The field after a chain of windows, each `(kernel, stride, padding)`.

    Raises:
        ShapeError: a kernel or stride below 1, or a padding below 0.

    >>> field_of_chain([(3, 1, 1), (3, 1, 1), (2, 2, 0)])
    Field(size=6, stride=2, start=-2)
    """
    field = Field()
    for kernel, stride, padding in windows:
        if min(kernel, stride) < 1 or padding < 0:
            raise ShapeError(
                f"window ({kernel}, {stride}, {padding}): expected kernel and stride >= 1 and padding >= 0"
            )
        field = field.through(Axis(kernel, kernel, stride, (padding, padding)))
    return field
