"""The forms of the pages: a few fields of text, never a file."""

from urllib.parse import parse_qsl

from starlette.requests import Request

from headstart.errors import UsageError
from headstart.service.refusals import Refused

KIND = "application/x-www-form-urlencoded"
LARGEST = 65_536  # bytes of a form
FIELDS = 64


async def fields_of(request: Request) -> dict[str, str]:
    """The fields of a form without the spaces around their values; of several of one name the last counts.

    Raises:
        UsageError: another type of content, or too many fields.
        Refused: too large; no more of it is read.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != KIND:
        raise UsageError(f"a form was expected, with Content-Type {KIND}")
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > LARGEST:
            raise Refused(413, f"the form is larger than {LARGEST:,} bytes")
    try:
        pairs = parse_qsl(content.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        raise UsageError(f"the form has more than {FIELDS} fields") from None
    return {name: value.strip() for name, value in pairs}
