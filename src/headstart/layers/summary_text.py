"""The table of a net as text."""

from headstart.layers.receptive import ReceptiveField
from headstart.layers.summary import BYTES, LayerRow, Summary

HEADER = ("layer (type)", "output", "parameters", "field", "step", "start", "multiply-adds", "memory", "trains")
LEFT = 2  # columns that are aligned at the left; the others hold numbers
GAP = "  "


def summary_text(table: Summary) -> str:
    """The rows with their totals."""
    cells = [HEADER, ("input", _shape(table.input), "", "1", "1", "0", "", "", ""), *map(_cells, table.layers)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
    lines = [_line(row, widths) for row in cells]
    rule = "-" * max(map(len, lines))
    size = _shape(table.input)
    return "\n".join([f"{table.net} on photos of {size}", rule, lines[0], rule, *lines[1:], rule, *_totals(table)])


def memory_text(count: int) -> str:
    """A number of bytes in the largest unit that keeps it above 1.

    >>> memory_text(12_845_056), memory_text(4000)
    ('12.2 MiB', '3.9 KiB')
    """
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.1f} {unit}" if unit != "B" else f"{count} B"


def _cells(row: LayerRow) -> tuple[str, ...]:
    """One row as text."""
    return (
        f"{row.name} ({row.type})" if row.known else f"{row.name} ({row.type}: unknown layer)",
        _shape(row.output_shape),
        f"{row.parameters:,}",
        *_field(row.receptive_field),
        "?" if row.macs is None else f"{row.macs:,}" if row.macs else "",
        memory_text(row.memory),
        _trains(row),
    )


def _trains(row: LayerRow) -> str:
    """Whether training changes the layer's parameters."""
    if not row.parameters:
        return ""
    return "no" if not row.trainable else "yes" if row.trainable == row.parameters else "part"


def _field(field: ReceptiveField | None) -> tuple[str, str, str]:
    """Size, stride and start; rows x columns where they differ."""
    if field is None:
        return "?", "?", "?"
    texts = field.to_json().values()
    size, step, start = ("x".join(map(str, value)) if isinstance(value, list) else str(value) for value in texts)
    return size, step, start


def _totals(table: Summary) -> list[str]:
    frozen = table.total_parameters - table.trainable_parameters
    lines = [
        f"parameters     {table.total_parameters:,} ({memory_text(BYTES * table.total_parameters)}): "
        f"{table.trainable_parameters:,} trainable, {frozen:,} frozen"
    ]
    if table.statistics:
        both = table.total_parameters + table.statistics
        lines.append(f"statistics     {table.statistics:,} running means and variances (Keras counts both: {both:,})")
    lines += [
        f"multiply-adds  {table.macs:,} a photo, of convolutions and dense layers",
        f"activations    {memory_text(table.activation_bytes)} a photo, every layer's output in float32",
        "field, step, start: pixels of the photo that one unit sees, from one unit to the next, first seen by unit 0",
    ]
    if table.unknown:
        lines.append(f"unknown layers {', '.join(table.unknown)}: fields and costs behind them are not known either")
    if table.unreached:
        lines.append(f"not run        {', '.join(table.unreached)}: counted in the totals only")
    return lines


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    padded = [
        f"{cell:<{width}}" if column < LEFT else f"{cell:>{width}}"
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return GAP.join(padded).rstrip()
