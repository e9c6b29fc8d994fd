"""Photos that a browser sends are decoded once in a process that can be killed, before this one touches them."""

import asyncio

from starlette.requests import Request

from headstart.errors import ImageRejected
from headstart.images import DEFAULT_LIMITS
from headstart.service.decoding import Decoders


class Screen:
    """Where sent photos are tried. Its process starts with the first photo.

    Args:
        seconds: that one photo may take.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        self._decoders = Decoders(None, count=1, max_bytes=DEFAULT_LIMITS.max_bytes, seconds=seconds)
        self._open = False
        self._starting = asyncio.Lock()

    async def photo(self, request: Request) -> bytes:
        """The photo that is the body of a request; it stays in memory.

        Raises:
            ImageRejected: nothing was sent, or it cannot be read, takes too long, or breaks the decoder.
            HeadstartError: the process does not start.
        """
        content = await request.body()
        if not content:
            raise ImageRejected("empty", "no photo was sent; send the bytes of an image file as the body")
        async with self._starting:
            if not self._open:
                await self._decoders.open()
                self._open = True
        await self._decoders.check("", content)
        return content

    async def close(self) -> None:
        """End the process."""
        await self._decoders.close()


async def photo_bytes(request: Request) -> bytes:
    """The photo that was sent as the body of a request, after the application's `Screen` has tried it."""
    screen: Screen = request.app.state.screen
    return await screen.photo(request)
