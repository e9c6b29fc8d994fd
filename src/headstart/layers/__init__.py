"""What a layer does: shapes, receptive fields, hand-made filters, every formula in slow NumPy, tables of whole nets."""
