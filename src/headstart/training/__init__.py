"""Training a network from its first random weights: the loop, and what it goes by.

Importing this package loads torch, so only what trains a network does it, and inside functions.
"""
