"""What a service is told at its start."""

from dataclasses import dataclass, field

from headstart.errors import UsageError
from headstart.service.guard import GuardSettings


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """How much a service takes on.

    Args:
        guard: where it listens and whom it lets in.
        queue: photos that are being answered or wait for it; what comes beyond is told to come back.
        workers: processes that decode; 0: as many as processors, at most 4.
        threads: of the engine; 0: all processors this process may use.
        max_photos: of one request.
        decode_seconds: that decoding one photo may take.

    Raises:
        UsageError: a number out of range.
    """

    guard: GuardSettings = field(default_factory=GuardSettings)
    queue: int = 128
    workers: int = 0
    threads: int = 0
    max_photos: int = 32
    decode_seconds: float = 5.0

    def __post_init__(self) -> None:
        """Refuse numbers that make no service."""
        for name, least in (("queue", 1), ("workers", 0), ("threads", 0), ("max_photos", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise UsageError(f"{name} must be a whole number of at least {least}; received {value!r}")
        if not 0 < self.decode_seconds < 3600:
            raise UsageError(f"decode_seconds must be above 0 and below 3600; received {self.decode_seconds!r}")
