"""Transfer learning that chooses by measurement: how similar, how many, what each strategy would give."""
