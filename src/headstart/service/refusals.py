"""How a request is refused: one form for every reason, and one line in the log for what nobody foresaw."""

import json
import os
import secrets
import sys
import traceback

from starlette.responses import Response

from headstart.files import shown

_PHRASES = {401: "unauthorized", 403: "forbidden", 408: "too_slow", 413: "too_large", 500: "internal", 503: "busy"}


class Refused(Exception):
    """A request that is not answered; becomes an answer with this status.

    Args:
        status: of HTTP.
        message: one sentence for the client.
        retry_after: seconds, for 503.
        code: one word for programs; by default that of the status.
    """

    def __init__(self, status: int, message: str, *, retry_after: int | None = None, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.code = code or _PHRASES.get(status, "bad_request")

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the answer says besides the sentence."""
        headers = [(b"content-type", b"application/json")]
        if self.retry_after is not None:
            headers.append((b"retry-after", str(self.retry_after).encode()))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers


def refusal(refused: Refused) -> Response:
    """The answer that tells it; the guard makes it of every `Refused` that an application raises."""
    body = error_body(refused.code, refused.message, secrets.token_hex(6))
    answer = Response(body, refused.status)
    answer.raw_headers.extend(refused.headers())
    return answer


def error_body(code: str, message: str, number: str) -> bytes:
    """What every refusal says: `{"error": {"code", "message", "id"}}`; the id is that of the line in the log."""
    return json.dumps({"error": {"code": code, "message": message, "id": number}}).encode()


def log_error(error: BaseException, number: str) -> None:
    """Write one line of JSON to stderr; nothing a client sent can end the line or colour it."""
    told = {"level": "error", "id": number, "error": type(error).__name__, "message": shown(str(error))[:300]}
    if os.environ.get("HEADSTART_TRACEBACK"):
        told["traceback"] = "".join(traceback.format_exception(error))
    sys.stderr.write(json.dumps(told) + "\n")
