"""How the arithmetic of a layer is written: the lines of its text and the entries of its JSON."""

from headstart.layers.shapes import Axis


def by(size: tuple[int, ...]) -> str:
    """A size as text: `224 x 224 x 3`."""
    return " x ".join(str(side) for side in size)


def table(*lines: tuple[str, str]) -> str:
    """Two columns, the first as wide as its longest name."""
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in lines)


def counted(number: int, noun: str) -> str:
    """`1 filter`, `2 filters`."""
    return f"{number} {noun}" + "s" * (number != 1)


def both(rows: object, columns: object) -> str:
    """What holds on both axes, once where it is the same."""
    return str(rows) if rows == columns else f"{rows} x {columns}"


def keeping(sides: tuple[tuple[int, int], tuple[int, int]]) -> str:
    """The padding of the rows and the columns, `(before, after)` each, in words."""
    texts = [str(before) if before == after else f"{before} before and {after} behind" for before, after in sides]
    return both(*texts)


def padded_lines(rows: Axis, columns: Axis, channels: int) -> list[tuple[str, str]]:
    """A line for the padded input, where there is padding."""
    if not any(rows.padding + columns.padding):
        return []
    top, bottom, left, right = *rows.padding, *columns.padding
    where = f"{top} above, {bottom} below, {left} left, {right} right"
    return [("inside", f"{by((rows.padded, columns.padded, channels))} with the padding ({where})")]


def output_lines(rows: Axis, columns: Axis) -> list[tuple[str, str]]:
    """The formula with its numbers, once where both axes are alike."""
    pairs = [("rows", rows), ("columns", columns)] if rows != columns else [("rows, columns", rows)]
    return [(name, _formula(axis)) for name, axis in pairs]


def _formula(axis: Axis) -> str:
    exact = axis.exact_output
    text = f"({axis.size} - {axis.reach} + {sum(axis.padding)})/{axis.stride} + 1 = "
    if exact.denominator == 1:
        return text + str(axis.output)
    verb = "up" if axis.output > exact else "down"
    return text + f"{float(exact):.2f}, rounded {verb} to {axis.output}: the windows do not fit"


def unread_lines(rows: Axis, columns: Axis) -> list[tuple[str, str]]:
    """Which lines no window reads."""
    if not rows.unread and not columns.unread:
        return [("never read", "nothing")]
    if rows == columns:
        return [("never read", _unread(rows, "rows and columns"))]
    return [("never read", f"{_unread(rows, 'rows')}; {_unread(columns, 'columns')}")]


def _unread(axis: Axis, what: str) -> str:
    """Say which lines no window reads, in the image's own numbering."""
    own = axis.unread_pixels
    padding = len(axis.unread) - len(own)
    shown = ", ".join(map(str, own[:8])) + (", ..." if len(own) > 8 else "")
    parts = [f"{len(own)} of the image's {what} (number {shown}, counted from 0)"] if own else []
    parts += [f"{padding} of the padding's {what}"] if padding else []
    return " and ".join(parts) or f"no {what}"


def axes_json(rows: Axis, columns: Axis) -> dict[str, object]:
    """Window, padding and unread lines of both axes, for a program."""
    return {
        "kernel": [rows.kernel, columns.kernel],
        "stride": [rows.stride, columns.stride],
        "dilation": [rows.dilation, columns.dilation],
        "padding": {
            "top": rows.padding[0],
            "bottom": rows.padding[1],
            "left": columns.padding[0],
            "right": columns.padding[1],
        },
        "padded": [rows.padded, columns.padded],
        "fits": rows.exact_output.denominator == columns.exact_output.denominator == 1,
        "never_read": {
            "rows": {"count": len(rows.unread), "image": list(rows.unread_pixels)},
            "columns": {"count": len(columns.unread), "image": list(columns.unread_pixels)},
        },
    }
