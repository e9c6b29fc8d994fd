"""What looks on while a net is trained: Keras's callbacks by their names and arguments (keras.io/api/callbacks).

Where they differ from Keras's: EarlyStopping gives the best weights back, and ModelCheckpoint keeps the best only,
unless told otherwise; a watched quantity that is no number never counts as the best; one that the training does not
measure is an error at the start instead of a warning an hour later.
"""

from headstart.training.choosing import ClearlyBest
from headstart.training.hooks import Callback, LambdaCallback, Logs, TerminateOnNaN
from headstart.training.monitors import EarlyStopping, ModelCheckpoint, Monitor, ReduceLROnPlateau
from headstart.training.records import CSVLogger, TensorBoard

__all__ = [
    "CSVLogger",
    "Callback",
    "ClearlyBest",
    "EarlyStopping",
    "LambdaCallback",
    "Logs",
    "ModelCheckpoint",
    "Monitor",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
]
