"""The photos of a request: the body itself, or the files of a form. They stay in memory and are never written."""

from pathlib import PurePosixPath

from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from headstart.files import shown
from headstart.service.refusals import Refused

FIELDS = 16  # of a form, besides photos; they are ignored
FIELD_BYTES = 1024
NAME = 120  # letters of a file name that are said back
Upload = tuple[str, bytes]  # name, content


async def read_photos(request: Request, *, max_photos: int, max_body: int) -> list[Upload]:
    """Return the photos of a request with their names.

    Raises:
        Refused: another type of content, a form that is none, no photo, or too many.
    """
    kind = request.headers.get("content-type", "application/octet-stream").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        photos = await _form_photos(request, max_photos, max_body)
    elif kind.startswith("image/") or kind == "application/octet-stream":
        photos = [("", await request.body())]
    else:
        raise Refused(
            415, "send a photo with Content-Type image/jpeg (or another image type), or several as multipart/form-data"
        )
    if not photos:
        raise Refused(400, "the form holds no file; each photo is a part with a file name")
    return photos


async def _form_photos(request: Request, max_photos: int, max_body: int) -> list[Upload]:
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=max_photos, max_fields=FIELDS, max_part_size=FIELD_BYTES
    )
    parser.spool_max_size = max_body + 1  # never to the disk
    try:
        form = await parser.parse()
    except Refused:
        raise
    except Exception:  # whatever is wrong with a form of a stranger
        raise Refused(
            400, f"the form cannot be read, has more than {max_photos} files, or more than {FIELDS} other fields"
        ) from None
    files = [value for _, value in form.multi_items() if not isinstance(value, str)]
    return [(shown_name(file.filename or ""), await file.read()) for file in files]


def shown_name(name: str) -> str:
    r"""Return the last part of a file name as a client may see it again.

    >>> shown_name("../../etc/x.jpg"), shown_name("C:\\photos\\ant\x1b[31m.jpg")
    ('x.jpg', 'ant\\x1b[31m.jpg')
    """
    return shown(PurePosixPath(name.replace("\\", "/")).name)[-NAME:]
