"""What a file is, told from its own bytes: its format, how many pictures it holds, how costly its JPEG coding is.

Nothing here decodes pixels, and nothing here raises on any bytes: a decoder is handed a file only after this room has
named it one of `READABLE`. The signatures are the published ones of each format (most are listed in the PRONOM registry
of The National Archives, https://www.nationalarchives.gov.uk/PRONOM/).
"""

import struct
from collections.abc import Iterator

READABLE = frozenset({"JPEG", "PNG", "GIF", "BMP", "WebP", "TIFF", "AVIF", "PPM"})

# Pictures that are refused by name. Each reader is code that strangers' files can attack; photos hardly ever come in
# these, and any photo program converts them.
UNSUPPORTED = frozenset(
    {
        "EPS",
        "PSD",
        "FITS",
        "ICNS",
        "ICO",
        "CUR",
        "SVG",
        "JPEG 2000",
        "JPEG XL",
        "JPEG XR",
        "HEIC",
        "TGA",
        "DDS",
        "OpenEXR",
        "Radiance HDR",
        "QOI",
        "SGI",
        "PCX",
        "XCF",
        "WMF",
        "DjVu",
        "DICOM",
        "camera raw",
    }
)

_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"%!PS", "EPS"),
    (0, b"\xc5\xd0\xd3\xc6", "EPS"),
    (0, b"8BPS", "PSD"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"icns", "ICNS"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"\x00\x00\x02\x00\x01\x00", "CUR"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"II\xbc\x01", "JPEG XR"),
    (0, b"DDS ", "DDS"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"qoif", "QOI"),
    (0, b"\x01\xda\x00", "SGI"),
    (0, b"\x01\xda\x01", "SGI"),
    (0, b"\x0a\x05\x01", "PCX"),
    (0, b"gimp xcf", "XCF"),
    (0, b"\xd7\xcd\xc6\x9a", "WMF"),
    (0, b"AT&TFORM", "DjVu"),
    (128, b"DICM", "DICOM"),
    (0, b"FUJIFILMCCD-RAW", "camera raw"),
    (0, b"IIU\x00", "camera raw"),
    (0, b"IIRO", "camera raw"),
    (8, b"CR\x02\x00", "camera raw"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"II+\x00", "TIFF"),
    (0, b"MM\x00+", "TIFF"),
    (0, b"%PDF", "PDF document"),
    (0, b"PK\x03\x04", "zip archive or office document"),
    (0, b"\x1f\x8b", "gzip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z archive"),
    (0, b"Rar!", "RAR archive"),
    (0, b"\x00\x05\x16\x07", "macOS resource file"),
    (0, b"Bud1", "macOS folder settings file"),
    (4, b"Bud1", "macOS folder settings file"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (0, b"\x7fELF", "program"),
    (0, b"MZ", "program"),
)

_SUFFIXES: dict[str, str] = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif", "jif", "mpo"), "JPEG"),
    **dict.fromkeys(("png", "apng"), "PNG"),
    **dict.fromkeys(("bmp", "dib"), "BMP"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("avif", "avifs"), "AVIF"),
    **dict.fromkeys(("ppm", "pgm", "pbm", "pnm", "pfm"), "PPM"),
    **dict.fromkeys(("heic", "heif", "hif"), "HEIC"),
    **dict.fromkeys(("jp2", "j2k", "jpf", "jpx"), "JPEG 2000"),
    **dict.fromkeys(("eps", "ps"), "EPS"),
    **dict.fromkeys(("tga", "icb", "vda", "vst"), "TGA"),
    **dict.fromkeys(("nef", "nrw", "dng", "arw", "sr2", "srf", "pef", "3fr", "iiq", "cr2", "raw"), "camera raw"),
    "gif": "GIF",
    "webp": "WebP",
    "psd": "PSD",
    "ico": "ICO",
    "svg": "SVG",
    "jxl": "JPEG XL",
}

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"})


def identify(data: bytes, name: str = "") -> str | None:
    r"""Name what the bytes of a file are.

    Args:
        data: the whole file, or at least its first 4 KB.
        name: the file's name; it only decides where the bytes alone cannot (TGA has no signature, and some camera
            raw files begin exactly as a TIFF).

    Returns:
        A member of `READABLE` or `UNSUPPORTED`, the words for another kind of file ("PDF document"), or None.

    >>> identify(b"\x89PNG\r\n\x1a\n"), identify(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), identify(b"hello")
    ('PNG', 'SVG', 'text')
    """
    by_name = _SUFFIXES.get(suffix_of(name))
    for offset, signature, found in _SIGNATURES:
        if data.startswith(signature, offset):
            return "camera raw" if (found, by_name) == ("TIFF", "camera raw") else found
    if data.startswith(b"RIFF"):
        return "WebP" if data[8:12] == b"WEBP" else "video or sound"
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    if data[:1] == b"P" and data[1:2] in b"123456f" and data[2:3] in b" \t\r\n#":
        return "PPM"
    return _text(data[:4096]) or ("TGA" if by_name == "TGA" else None)


def suffix_of(name: str) -> str:
    """The suffix of a file name, lower case and without the dot; "" if there is none."""
    stem, dot, suffix = name.rpartition(".")
    return suffix.lower() if dot and stem and "/" not in suffix else ""


def suffix_note(name: str, found: str) -> str | None:
    """Say so if a name promises another format than the content has.

    >>> suffix_note("cat.JPG", "PNG")
    'the suffix says JPEG, the content is PNG'
    """
    promised = _SUFFIXES.get(suffix_of(name), found)
    return None if promised == found else f"the suffix says {promised}, the content is {found}"


def count_frames(data: bytes, found: str) -> int:
    """How many pictures a GIF or a TIFF holds; 1 for other formats, whose header says it.

    Only the structure is walked, never a frame decoded, and each walk ends: a GIF's blocks follow one another, a chain
    of TIFF directories that returns to itself is left.

    Args:
        data: the whole file.
        found: its format.

    Returns:
        At least 1.
    """
    try:
        if found == "GIF":
            return max(1, sum(1 for _ in _gif_frames(data)))
        if found == "TIFF":
            return max(1, sum(1 for _ in _tiff_directories(data)))
    except (struct.error, IndexError):
        return 1
    return 1


def count_multi_picture(index: bytes) -> int:
    """How many pictures of equal rank a JPEG holds (stereo pair, panorama, burst), previews not counted.

    Args:
        index: the multi-picture index of the JPEG, from behind its label "MPF" (CIPA DC-007, section 5.2): one TIFF
            directory whose entry 0xB002 lists the pictures in 16 bytes each, led by their type.

    Returns:
        At least 1.
    """
    order = "<" if index[:2] == b"II" else ">"
    try:
        for position in _tiff_directories(index):
            for entry in range(struct.unpack_from(order + "H", index, position)[0]):
                tag, _, size, offset = struct.unpack_from(order + "HHII", index, position + 2 + 12 * entry)
                if tag == 0xB002:
                    types = [struct.unpack_from(order + "I", index, i)[0] for i in range(offset, offset + size, 16)]
                    return max(1, sum(1 for kind in types if kind & 0xFF0000 == 0x020000))
    except struct.error:
        return 1
    return 1


def is_cut_off(data: bytes, found: str) -> bool:
    """Whether a WebP file is shorter than its header says: its decoder itself does not tell truncated from damaged."""
    return found == "WebP" and len(data) >= 8 and struct.unpack_from("<I", data, 4)[0] + 8 > len(data)


def jpeg_is_buffered(data: bytes, scan: int, components: int) -> bool:
    """Whether a sequential JPEG spreads its colours over several scans, so that all coefficients must be held at once.

    Args:
        data: the whole file.
        scan: offset just behind the header of the first scan, bytes.
        components: colours of the picture.
    """
    header = 8 + 2 * components  # marker, length, count, two bytes a component, three of parameters (ITU-T T.81, B.2.3)
    return data[scan - header : scan - header + 2] != b"\xff\xda"


def _iso_media(data: bytes) -> str:
    length = struct.unpack_from(">I", data)[0]
    box = data[8 : min(length, 256)]
    brands = {box[:4], *(box[i : i + 4] for i in range(8, len(box), 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        return "HEIC"
    return "camera raw" if b"crx " in brands else "video"


def _text(head: bytes) -> str | None:
    if b"\x00" in head or not head.strip():
        return None
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # not merely a letter cut at the end
            return None
        text = head[: error.start].decode("utf-8")
    if any(not (letter.isprintable() or letter in "\t\r\n\f") for letter in text.removeprefix("\ufeff")):
        return None
    lower = text.lower()
    if "<svg" in lower:
        return "SVG"
    return "HTML page" if "<html" in lower or "<!doctype html" in lower else "text"


def _gif_frames(data: bytes) -> Iterator[int]:
    """The offset of each image descriptor (GIF89a specification, sections 18 to 25)."""
    position = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    while position < len(data):
        block = data[position]
        if block == 0x2C:
            yield position
            flags = data[position + 9]
            position += 11 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
        elif block == 0x21:
            position += 2
        else:  # the trailer, or nothing that belongs there
            return
        while data[position]:  # sub-blocks, each led by its length
            position += 1 + data[position]
        position += 1


def _tiff_directories(data: bytes) -> Iterator[int]:
    """The offset of each image file directory (TIFF 6.0, section 2; the big variant counts in 8 bytes)."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\x00", b"\x00+")
    pointer, count, entry = (order + "Q", order + "Q", 20) if big else (order + "I", order + "H", 12)
    position = struct.unpack_from(pointer, data, 8 if big else 4)[0]
    seen = set()
    while position and position < len(data) and position not in seen:
        yield position
        seen.add(position)
        entries = struct.unpack_from(count, data, position)[0]
        position = struct.unpack_from(pointer, data, position + struct.calcsize(count) + entries * entry)[0]
