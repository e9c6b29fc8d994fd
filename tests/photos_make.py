"""Photos made for the tests: small ones in every format and mode, and files that unpack to something huge."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def scene(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """A smooth colour picture without any symmetry, (height, width, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(0.5, 1.5, 3)
    red = 255 * x / max(1, width - 1)
    green = 255 * y / max(1, height - 1)
    blue = 127 + 120 * np.sin(a * x / 9 + b * y / 7 + c)
    return np.clip(np.stack([red, green, blue], 2), 0, 255).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    """The bytes of an image in a format of Pillow."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(pixels: np.ndarray, orientation: int, kind: str, **options: object) -> bytes:
    """The pixels as they are, tagged with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(pixels, kind, exif=exif, **options)


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes | None = None) -> bytes:
    """A PNG written chunk by chunk; without `rows` all its pixels are zero, compressed a row at a time."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * channels * depth + 7) // 8)
    packer = zlib.compressobj(9)
    if rows is None:
        data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    else:
        data = packer.compress(rows) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    palette = [(b"PLTE", b"\x10\x20\x30")] if colour == 3 else []
    chunks = [(b"IHDR", header), *palette, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def webp(width: int, height: int) -> bytes:
    """A lossless WebP of one colour in 34 bytes: five prefix codes of one symbol each, so a pixel costs no bit."""
    bits: list[int] = []

    def put(value: int, count: int) -> None:
        bits.extend(value >> i & 1 for i in range(count))

    put(0x2F, 8)
    put(width - 1, 14)
    put(height - 1, 14)
    put(0, 1 + 3)  # no alpha, version 0
    put(0, 1 + 1 + 1)  # no transform, no colour cache, no meta prefix codes
    for symbol in (90, 60, 30, 255, 0):  # green, red, blue, alpha, distance
        put(1, 1)  # simple code
        put(0, 1)  # of one symbol
        put(1, 1)  # of 8 bits
        put(symbol, 8)
    bits.extend([0] * (-len(bits) % 8))
    body = bytes(sum(bit << i for i, bit in enumerate(bits[k : k + 8])) for k in range(0, len(bits), 8))
    body += b"\0" * (len(body) % 2)
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def jpeg(width: int, height: int) -> bytes:
    """A grey colour JPEG (4:2:0): a block of 16 x 16 pixels by Pillow, its 32 bits repeated; sides of whole blocks."""
    small = encoded(np.full((16, 16, 3), 128, np.uint8), "JPEG", subsampling=2, optimize=False)
    frame = small.index(b"\xff\xc0")
    scan = small.index(b"\xff\xda")
    start = scan + 2 + struct.unpack_from(">H", small, scan + 2)[0]
    head = small[: frame + 5] + struct.pack(">HH", height, width) + small[frame + 9 : start]
    # 4 luma blocks "difference 0, end of block" = 00 1010; 2 chroma blocks = 00 00 (Annex K tables of ITU-T T.81)
    return head + b"\x28\xa2\x8a\x00" * (width // 16 * (height // 16)) + b"\xff\xd9"


def resized_header(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size than its data has."""
    frame = next(i for i in range(len(data)) if data[i : i + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def cmyk_profile(cyan: tuple[int, int, int]) -> bytes:
    """An ICC profile of a CMYK printer on white paper, whose cyan is another colour and every other mixture black.

    Args:
        cyan: the colour of that ink alone, as 8-bit ICC CIELAB: L* 0..255 for 0..100, a* and b* with 128 as zero.
    """
    identity, black = bytes(range(256)), bytes([0, 128, 128])
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])  # 4 inks, 3 coordinates, 2 grid points a side
    table += b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    table += identity * 4 + bytes([255, 128, 128]) + black * 7 + bytes(cyan) + black * 7 + identity * 3
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(4 + 4 + 2 + 1 + 67)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags, body = b"", b""
    offset = 128 + 4 + 12 * 4
    for name, content in (
        (b"A2B0", table),
        (b"desc", text),
        (b"cprt", b"text" + bytes(4) + b"none\0"),
        (b"wtpt", white),
    ):
        content += bytes(-len(content) % 4)
        tags += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = 128 + 4 + len(tags) + len(body)
    head = struct.pack(">I", size) + b"lcms" + struct.pack(">I", 0x02400000) + b"prtrCMYKLab " + bytes(12)
    head += b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head + bytes(128 - len(head)) + struct.pack(">I", 4) + tags + body


def seeds() -> dict[str, bytes]:
    """Twenty-four small valid photos in eight formats, for mutation."""
    picture = Image.fromarray(scene())
    other = Image.fromarray(scene(seed=1))
    alpha = picture.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(picture.size))
    deep = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21)
    palette = picture.quantize(16)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker"
    animated = {"save_all": True, "append_images": [other], "duration": 40}
    return {
        "jpeg": encoded(picture, "JPEG"),
        "jpeg progressive": encoded(picture, "JPEG", progressive=True),
        "jpeg grey": encoded(picture.convert("L"), "JPEG"),
        "jpeg cmyk": encoded(picture.convert("CMYK"), "JPEG"),
        "jpeg exif": encoded(picture, "JPEG", exif=exif),
        "jpeg multi-picture": encoded(picture, "MPO", save_all=True, append_images=[other]),
        "png": encoded(picture, "PNG"),
        "png alpha": encoded(alpha, "PNG"),
        "png palette": encoded(palette, "PNG", transparency=3),
        "png 16 bits": encoded(deep, "PNG"),
        "png animated": encoded(picture, "PNG", **animated),
        "png exif": encoded(picture, "PNG", exif=exif),
        "gif": encoded(palette, "GIF"),
        "gif animated": encoded(palette, "GIF", save_all=True, append_images=[other.quantize(16)], transparency=2),
        "bmp": encoded(picture, "BMP"),
        "bmp palette": encoded(palette, "BMP"),
        "webp": encoded(picture, "WEBP"),
        "webp lossless": encoded(alpha, "WEBP", lossless=True),
        "webp animated": encoded(picture, "WEBP", **animated),
        "tiff": encoded(picture, "TIFF"),
        "tiff lzw": encoded(picture, "TIFF", compression="tiff_lzw", tiffinfo={0x0112: 6}),
        "tiff jpeg": encoded(picture, "TIFF", compression="jpeg"),
        "tiff 16 bits": encoded(deep, "TIFF", compression="tiff_deflate"),
        "avif": encoded(picture, "AVIF", speed=10),
        "ppm": encoded(picture, "PPM"),
        "pgm 16 bits": b"P5 64 48 65535\n" + np.asarray(deep).astype(">u2").tobytes(),
    }
