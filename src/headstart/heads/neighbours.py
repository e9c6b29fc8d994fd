"""Heads that compare a photo with the known ones: the nearest neighbours, and the nearest centroid of a class."""

import time

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from headstart.heads.calibration import tempered_losses
from headstart.heads.checks import Material, distinct, one_hot
from headstart.heads.model import FittedHead, Head, shares, unit
from headstart.heads.ridge import row

NEIGHBOURS = (1, 3, 5, 9, 15, 25, 50)
SHRINKAGES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # photos' worth of the overall mean that each centroid takes in
BLOCK = 1024  # photos compared with all others a time


def fit_knn(material: Material, kind: str = "knn") -> FittedHead:
    """Fit nearest neighbours by cosine; see `headstart.heads.fit_head`.

    The number of neighbours is the one with the lowest leave-one-out log loss; photos of the same cluster of near
    duplicates are not asked about one another.
    """
    start = time.perf_counter()
    references = unit(material.features).astype(np.float32)
    votes = (one_hot(material.labels, material.classes) * material.weights[:, None]).astype(np.float32)
    # Half a photo more for each class, so that none has a prior of 0.
    prior = (votes.sum(axis=0) + 0.5) / (votes.sum() + 0.5 * material.classes)
    tried, held_outs = [], []
    everyone = np.arange(len(references))
    for asked, poll in _polls(references, votes, material.groups).items():
        held_outs.append(shares(poll, prior.astype(np.float32)))
        losses = tempered_losses(held_outs[-1], material.labels)
        tried.append(row(kind, asked, losses, held_outs[-1], material, everyone, "leave-one-out"))
    best = int(np.argmin([entry["log_loss"] for entry in tried]))
    settings = {"neighbours": int(NEIGHBOURS[best]), "prior": [float(share) for share in prior]}
    head = Head(kind, {"references": references, "votes": votes}, settings)
    return FittedHead(head, held_outs[best], NEIGHBOURS[best], tuple(tried), time.perf_counter() - start)


def _polls(
    references: Float32[np.ndarray, "photos features"],
    votes: Float32[np.ndarray, "photos classes"],
    groups: Int64[np.ndarray, "photos"],
) -> dict[int, Float32[np.ndarray, "photos classes"]]:
    """Votes of the nearest 1, 3, 5 .. photos outside the group of each photo."""
    polls = {asked: np.zeros_like(votes) for asked in NEIGHBOURS}
    most = min(NEIGHBOURS[-1], len(references))
    for at in range(0, len(references), BLOCK):
        rows = slice(at, at + BLOCK)
        near = references[rows] @ references.T
        same = groups[rows][:, None] == groups
        near[same] = -np.inf
        chosen = np.argpartition(-near, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(near, chosen, axis=1), axis=1, kind="stable")
        chosen = np.take_along_axis(chosen, order, axis=1)
        given = votes[chosen] * np.isfinite(np.take_along_axis(near, chosen, axis=1))[:, :, None]
        for asked, poll in polls.items():
            poll[rows] = given[:, :asked].sum(axis=1)
    return polls


def fit_centroid(material: Material, kind: str = "centroid") -> FittedHead:
    """Fit nearest centroids; see `headstart.heads.fit_head`.

    The logit of a class is minus half the squared distance to its centroid, which is linear in the features once what
    all classes share is dropped. A centroid is the mean of its class and of some photos' worth of the overall mean
    (shrinkage as in a normal prior for the means; Efron & Morris 1975), how many being chosen on held-out folds.
    """
    start = time.perf_counter()
    features = material.features.astype(np.float64)
    middle = np.average(features, axis=0, weights=material.weights)
    centred = features - middle
    scale = float(np.sqrt(np.mean(np.square(centred)))) or 1.0
    centred /= scale
    hits = one_hot(material.labels, material.classes) * material.weights[:, None]
    everyone = np.arange(len(features))
    tried, held_outs = [], []
    for shrinkage in SHRINKAGES:
        held_out = np.zeros((len(features), material.classes), np.float32)
        for fold in distinct(material.folds):
            out = material.folds == fold
            weight, bias = _centroids(centred[~out], hits[~out], shrinkage)
            held_out[out] = centred[out] @ weight.T + bias
            _mute(held_out, out, hits[~out].sum(axis=0) == 0)
        held_outs.append(held_out)
        losses = tempered_losses(held_out, material.labels)
        tried.append(row(kind, shrinkage, losses, held_out, material, everyone, "folds"))
    best = int(np.argmin([entry["log_loss"] for entry in tried]))
    weight, bias = _centroids(centred, hits, SHRINKAGES[best])
    absent = hits.sum(axis=0) == 0
    weight[absent], bias[absent] = 0, (centred @ weight.T + bias).min()
    weight = weight / scale
    bias = bias - weight @ middle
    head = Head(kind, {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)})
    return FittedHead(head, held_outs[best], SHRINKAGES[best], tuple(tried), time.perf_counter() - start)


def _mute(logits: Float32[np.ndarray, "photos classes"], rows: np.ndarray, absent: np.ndarray) -> None:
    """Give classes of which no photo was known the lowest logit of all: nothing speaks for them."""
    if absent.any():
        logits[np.ix_(rows, absent)] = logits[rows].min()


def _centroids(
    centred: Float[np.ndarray, "photos features"], hits: Float64[np.ndarray, "photos classes"], shrinkage: float
) -> tuple[Float64[np.ndarray, "classes features"], Float64[np.ndarray, "classes"]]:
    """Weight and bias of the nearest centroid; a class without photos has the overall mean until it is muted."""
    mass = hits.sum(axis=0)
    mean = mass @ (hits.T @ centred / np.maximum(mass, np.finfo(np.float64).tiny)[:, None]) / mass.sum()
    sums = hits.T @ (centred - mean)
    centroids = sums / np.maximum(mass + shrinkage, np.finfo(np.float64).tiny)[:, None] + mean
    return centroids, -0.5 * np.square(centroids).sum(axis=1)
