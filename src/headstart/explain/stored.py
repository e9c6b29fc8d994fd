"""What the fast engine makes of photos, from the store where it is known: a photo that was trained on starts no engine.

The store is keyed by what a file holds, the preprocessing and the weights, so nothing stale can come out of it. Only of
photos with a digest anything is kept: those that were read from a path, not those that somebody sent.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from headstart.explain.subject import Photo, Subject
from headstart.features.decoding import Keeper, Recipe
from headstart.store import Store


def outputs_of(
    subject: Subject, photos: Sequence[Photo], names: tuple[str, ...]
) -> list[dict[str, Float32[np.ndarray, "..."]]]:
    """Some outputs of the backbone for each photo.

    Args:
        subject: a run or a pretrained backbone.
        photos: of `Subject.photo`.
        names: of `Backbone.outputs`.

    Returns:
        For each photo name -> values in the shape that the backbone gives.

    Raises:
        UsageError: there is no backbone, or it has no such output.
    """
    classifier = subject.classifier
    if classifier is None or not any(photo.digest for photo in photos):
        return _computed(subject, photos, names)
    backbone = classifier.backbone
    subject.check_outputs(names)
    fingerprints = {name: backbone.fingerprint(name, classifier.engine) for name in names}
    recipe = Recipe(backbone.preprocessing.decode_target(), backbone.preprocessing, fingerprints)
    keys = [
        {name: recipe.feature_key(photo.digest, name) for name in names} if photo.digest else {} for photo in photos
    ]
    with Store() as store:
        keeper = Keeper(store)
        known = keeper.get_many([key for own in keys for key in own.values()])
        missing = [place for place, own in enumerate(keys) if not own or not known.keys() >= set(own.values())]
        made = dict(zip(missing, _computed(subject, [photos[place] for place in missing], names), strict=True))
        keeper.put_many({key: made[place][name].reshape(-1) for place in made for name, key in keys[place].items()})
    return [
        made[place]
        if place in made
        else {name: np.asarray(known[key]).reshape(backbone.outputs[name]) for name, key in own.items()}
        for place, own in enumerate(keys)
    ]


def logits_of(subject: Subject, photos: Sequence[Photo]) -> Float32[np.ndarray, "photos classes"]:
    """Logits as of `Subject.logits`, of stored features where there are some."""
    if subject.classifier is None or not any(photo.digest for photo in photos):
        return subject.logits([photo.pixels for photo in photos])
    cut = subject.classifier.cut
    features = np.stack([found[cut].reshape(-1) for found in outputs_of(subject, photos, (cut,))])
    return subject.classifier.logits_from_features(features)


def _computed(
    subject: Subject, photos: Sequence[Photo], names: tuple[str, ...]
) -> list[dict[str, Float32[np.ndarray, "..."]]]:
    if not photos:
        return []
    computed = subject.outputs([photo.pixels for photo in photos], names)
    return [{name: computed[name][place] for name in names} for place in range(len(photos))]
