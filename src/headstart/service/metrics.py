"""What a service did, as Prometheus reads it (text format 0.0.4)."""

from collections import Counter
from collections.abc import Callable, Mapping

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts of requests and photos. Labels come from this program alone, never from a client.

    Args:
        routes: the paths that are told apart; every other one counts as "other".
        gauges: name -> help and what to ask for the value at the moment.
    """

    def __init__(self, routes: tuple[str, ...], gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._routes = frozenset(routes)
        self._gauges = dict(gauges)
        self._requests: Counter[tuple[str, int]] = Counter()
        self._photos: Counter[str] = Counter({"predicted": 0, "unreadable": 0})
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0
        self._timed = 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count an answer; the time only of predictions that were made."""
        route = path if path in self._routes else "other"
        self._requests[route, status] += 1
        if route == "/v1/predict" and status == 200:
            self._timed += 1
            self._seconds += seconds
            for bound in BUCKETS:
                self._buckets[bound] += seconds <= bound

    def photo(self, outcome: str) -> None:
        """Count a photo: "predicted" or "unreadable"."""
        self._photos[outcome] += 1

    def text(self) -> str:
        """The page that Prometheus fetches."""
        lines = [*_head("headstart_requests_total", "counter", "Answers by route and status.")]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'headstart_requests_total{{route="{route}",status="{status}"}} {count}')
        lines += _head("headstart_photos_total", "counter", "Photos by what became of them.")
        lines += [f'headstart_photos_total{{outcome="{name}"}} {count}' for name, count in sorted(self._photos.items())]
        name = "headstart_predict_seconds"
        lines += _head(name, "histogram", "From the head of a request to the end of its answer, answers of status 200.")
        lines += [f'{name}_bucket{{le="{bound:g}"}} {self._buckets[bound]}' for bound in BUCKETS]
        lines += [f'{name}_bucket{{le="+Inf"}} {self._timed}', f"{name}_sum {self._seconds:.6f}"]
        lines.append(f"{name}_count {self._timed}")
        for gauge, (told, value) in self._gauges.items():
            kind = "counter" if gauge.endswith("_total") else "gauge"
            lines += [*_head(gauge, kind, told), f"{gauge} {value():g}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, told: str) -> list[str]:
    return [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
