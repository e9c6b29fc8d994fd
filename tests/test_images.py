"""The one decoder: which files are used, which are refused and why, and that every picture stands upright."""

import csv
import os
import socket
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageSequence

import photos_make
from headstart.errors import ConfigError, ImageRejected, ShapeError, UsageError
from headstart.images import DECODER_VERSION, REASONS, DecodeLimits, Picture, decode, formats, read_photo_bytes

# What the manifest calls a refusal -> our reason. "refuse:format" is a picture in a format that is not read.
REASON_OF = {"refuse:format": "unsupported_format"}
# Formats that are refused by name before anybody looks whether the file is damaged, too.
REFUSED_BY_NAME = {".j2k": "JPEG 2000", ".tga": "TGA", ".ico": "ICO", ".icns": "ICNS", ".heic": "HEIC", ".heif": "HEIC"}


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def odd(shared_data: Path) -> list[tuple[dict[str, str], Path, Picture | ImageRejected]]:
    """Every row of the manifest, its file, and what the decoder makes of it at full size."""
    folder = shared_data / "odd_images"
    return [(row, folder / row["file"], outcome(folder / row["file"])) for row in manifest(folder)]


def outcome(path: Path, target: int | None = None) -> Picture | ImageRejected:
    try:
        return decode(read_photo_bytes(path), target=target, name=path.name)
    except ImageRejected as error:
        return error


def as_expected(row: dict[str, str], result: Picture | ImageRejected) -> bool:
    if isinstance(result, Picture):
        return row["expect"] == "used"
    reason = REASON_OF.get(row["trainer_should"], row["trainer_should"].split(":")[-1])
    by_name = REFUSED_BY_NAME.get(Path(row["file"]).suffix, "no such format")
    named = result.reason == "unsupported_format" and by_name in result.detail
    return row["expect"] == "not_used" and (result.reason == reason or named)


def test_every_odd_file_is_used_or_refused_for_the_expected_reason(odd):
    assert len(odd) == 166
    # 253 bytes that claim 48 million pixels: where all of them are wanted, the claim alone is refused
    claimed = "irs_Bad_unusual_extend_buffer_usage.bmp"
    wrong = [(row["file"], str(result)) for row, _, result in odd if not as_expected(row, result)]
    assert [name for name, _ in wrong] == [claimed] and wrong[0][1].startswith("bomb")
    reduced = [(row, outcome(path, target=256)) for row, path, _ in odd]
    assert [(row["file"], str(result)) for row, result in reduced if not as_expected(row, result)] == []


def test_the_size_of_every_used_odd_file_is_the_upright_one(odd):
    for row, _, picture in odd:
        if isinstance(picture, Picture) and not row["size_after_exif_transpose"].startswith("err"):
            assert f"{picture.width}x{picture.height}" == row["size_after_exif_transpose"], row["file"]
            assert picture.pixels.shape == (picture.height, picture.width, 3)


def test_no_odd_file_becomes_one_flat_colour_unless_its_first_frame_is(odd):
    varied = 0
    for row, path, picture in odd:
        if not isinstance(picture, Picture):
            continue
        pixels = picture.pixels.reshape(-1, 3)
        if (pixels != pixels[0]).any():
            varied += 1
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                stored = np.asarray(image)
        assert (stored.reshape(-1, *stored.shape[2:]) == stored[0, 0]).all(), row["file"]
    assert varied > 70


def test_a_photo_is_the_same_bit_for_bit_whoever_decodes_it(odd):
    paths = [path for _, path, _ in odd]
    found: list[list[Picture | ImageRejected]] = [[], []]
    threads = [threading.Thread(target=lambda to=to: to.extend(map(outcome, paths))) for to in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (row, _, here), *there in zip(odd, *found, strict=True):
        for other in there:
            if isinstance(here, Picture):
                assert isinstance(other, Picture) and np.array_equal(here.pixels, other.pixels), row["file"]
            else:
                assert str(here) == str(other)


def upright_by_definition(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Where the Exif standard says that stored row 0 and column 0 are seen, pixel by pixel."""
    row_0, column_0 = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }[orientation]
    row, column = np.indices(stored.shape[:2])
    height, width = stored.shape[:2] if row_0 in ("top", "bottom") else stored.shape[1::-1]
    from_edge = {row_0: row, column_0: column}
    y = from_edge["top"] if "top" in from_edge else height - 1 - from_edge["bottom"]
    x = from_edge["left"] if "left" in from_edge else width - 1 - from_edge["right"]
    seen = np.zeros((height, width, 3), np.uint8)
    seen[y, x] = stored
    return seen


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF raw", "TIFF lzw", "WEBP"])
def test_every_orientation_is_turned_upright_as_the_standard_says(kind: str, orientation: int):
    stored = photos_make.scene(5, 7)
    options = {"TIFF lzw": {"compression": "tiff_lzw"}, "WEBP": {"lossless": True, "exact": True}}.get(kind, {})
    data = photos_make.with_orientation(stored, orientation, kind.split()[0], **options)
    picture = decode(data)
    assert np.array_equal(picture.pixels, upright_by_definition(stored, orientation))
    assert (picture.height, picture.width) == picture.pixels.shape[:2]


def test_all_22_turned_odd_files_come_out_upright(shared_data: Path):
    folder = shared_data / "odd_images"
    plain = decode((folder / "pil_hopper.jpg").read_bytes()).pixels.astype(int)
    turned = [row for row in manifest(folder) if row["exif_orientation"] in set("2345678")]
    assert len(turned) == 22
    for row in turned:
        pixels = decode((folder / row["file"]).read_bytes(), name=row["file"]).pixels.astype(int)
        if row["file"].startswith("pil_hopper"):
            reference = plain
        else:
            with Image.open(folder / row["file"]) as image:
                stored = np.asarray(image.convert("RGB"))
            if image.mode == "RGBA":  # the only one: its transparent parts are white here
                stored = decode(photos_make.encoded(image, "PNG")).pixels
            reference = upright_by_definition(stored, int(row["exif_orientation"])).astype(int)
        assert np.abs(pixels - reference).mean() <= 6, row["file"]
    with Image.open(folder / "pil_hopper_orientation_6.jpg") as image:  # the check can fail: as stored it is far off
        assert np.abs(np.asarray(image).astype(int) - plain).mean() >= 59


def test_an_avif_that_is_turned_by_its_own_boxes_is_turned_once(shared_data: Path):
    both = [decode((shared_data / "odd_images" / f"pil_{name}.avif").read_bytes()) for name in ("rot1mir0", "rot3mir1")]
    first, second = (picture.pixels.astype(int) for picture in both)
    assert first.shape == (427, 640, 3)
    # one landscape, sky above, stored in two ways; only the caption in the middle differs
    difference = np.abs(first - second)
    assert np.concatenate([difference[:130], difference[280:]]).mean() < 6
    assert first[:60].mean() > first[-60:].mean() + 50


def test_a_tiff_turned_by_its_xmp_alone_is_turned_once():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:li tiff:Orientation="6"/></x:xmpmeta>'
    stored = photos_make.scene(5, 7)
    picture = decode(photos_make.encoded(stored, "TIFF", tiffinfo={700: xmp}))
    assert np.array_equal(picture.pixels, upright_by_definition(stored, 6))
    assert (picture.width, picture.height) == (5, 7)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_only_the_first_frame_is_used_and_the_others_are_counted(kind: str, frames: int):
    pictures = [Image.fromarray(photos_make.scene(seed=seed)) for seed in range(frames)]
    data = photos_make.encoded(pictures[0], kind, save_all=True, append_images=pictures[1:])
    picture = decode(data)
    assert picture.frames == frames
    assert (f"only the first of {frames} frames is used" in picture.notes) == (frames > 1)
    assert np.abs(picture.pixels.astype(int) - photos_make.scene(seed=0)).mean() < 12


def test_frames_are_counted_as_pillow_does_by_seeking(shared_data: Path):
    seen = 0
    for path in sorted((shared_data / "odd_images").glob("*.[gt]if*")):
        data = path.read_bytes()
        found = formats.identify(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with Image.open(path) as image:
                    frames = sum(1 for _ in ImageSequence.Iterator(image))
            except Exception:  # damaged: no oracle
                continue
        assert formats.count_frames(data, str(found)) == frames, path.name
        seen += 1
    assert seen >= 20


def test_a_stereo_pair_counts_two_frames_and_a_preview_none(shared_data: Path):
    pair = decode((shared_data / "odd_images" / "pil_ignore_frame_size.mpo").read_bytes())
    assert (pair.format, pair.frames) == ("JPEG", 2)

    def index_of(*kinds: int) -> bytes:
        entry = struct.pack(">HHII", 0xB002, 7, 16 * len(kinds), 26)
        listed = b"".join(struct.pack(">I12x", kind) for kind in kinds)
        return b"MM\x00*" + struct.pack(">IH", 8, 1) + entry + bytes(4) + listed

    assert formats.count_multi_picture(index_of(0x20030000, 0x010001, 0x010002, 0)) == 1  # two previews, a gain map
    assert formats.count_multi_picture(index_of(0x20020001, 0x020001, 0x020001, 0x010001)) == 3  # a panorama
    for length in range(26):
        assert formats.count_multi_picture(index_of(0x20020002, 0x020002)[:length]) == 1


def test_a_directory_loop_and_a_chain_into_nowhere_end():
    tiff = bytearray(photos_make.encoded(photos_make.scene(4, 4), "TIFF"))
    first = int.from_bytes(tiff[4:8], "little")
    link = first + 2 + 12 * int.from_bytes(tiff[first : first + 2], "little")
    for target in (first, 2**32 - 1, len(tiff) - 1):
        tiff[link : link + 4] = target.to_bytes(4, "little")
        assert formats.count_frames(bytes(tiff), "TIFF") in (1, 2)
    assert formats.count_frames(b"GIF89a" + bytes(7) + b"\x2c", "GIF") == 1


def test_a_suffix_that_lies_is_noted_and_the_content_decides():
    data = photos_make.encoded(photos_make.scene(), "PNG")
    assert decode(data, name="cat.JPG").notes == ("the suffix says JPEG, the content is PNG",)
    assert decode(data, name="cat.heic").notes == ("the suffix says HEIC, the content is PNG",)
    assert decode(data, name="cat.png").notes == decode(data, name="cat").notes == decode(data).notes == ()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"8BPS\x00\x01", "PSD"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"icns\x00\x00\x10\x00", "ICNS"),
        (b"\x00\x00\x01\x00\x01\x00", "ICO"),
        (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'></svg>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\x00\x2f", "JPEG 2000"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom", "camera raw"),
        (b"DDS |\x00\x00\x00", "DDS"),
        (b"qoif\x00\x00\x00\x10", "QOI"),
        (b"gimp xcf v011", "XCF"),
        (bytes(128) + b"DICM\x02\x00", "DICOM"),
        (b"\x0a\x05\x01\x08", "PCX"),
    ],
)
def test_a_format_outside_the_list_is_refused_by_its_name(content: bytes, named: str):
    with pytest.raises(ImageRejected) as caught:
        decode(content + b"\n" * 64, name="photo.jpg")
    assert caught.value.reason in ("unsupported_format", "not_an_image")
    assert named in caught.value.detail


def test_what_has_no_signature_is_refused_by_its_suffix():
    header = bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0, 24, 0]) + bytes(12)
    with pytest.raises(ImageRejected, match="unsupported_format: TGA is not read here"):
        decode(header, name="a.tga")
    with pytest.raises(ImageRejected, match="unidentified"):
        decode(header, name="a.jpg")
    raw = photos_make.encoded(photos_make.scene(), "TIFF")  # the preview that leads a Nikon or Adobe raw file
    with pytest.raises(ImageRejected, match="unsupported_format: camera raw"):
        decode(raw, name="DSC_0001.NEF")
    assert decode(raw, name="scan.tif").format == "TIFF"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"PK\x03\x04\x14\x00", "zip"),
        (b"<!doctype html><html></html>", "HTML"),
        ("Grüße".encode(), "text"),
        (b"\x00\x05\x16\x07\x00\x02", "macOS"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "video"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", "video"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(content: bytes, named: str):
    with pytest.raises(ImageRejected, match="not_an_image") as caught:
        decode(content)
    assert named in caught.value.detail


def test_every_readable_format_is_identified_by_its_content():
    names = {"jpeg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "webp": "WebP", "tiff": "TIFF", "avif": "AVIF"}
    for label, data in photos_make.seeds().items():
        assert formats.identify(data) == decode(data).format == names.get(label.split()[0], "PPM"), label
    assert set(names.values()) | {"PPM"} == formats.READABLE


def test_a_truncated_webp_is_called_truncated():
    data = photos_make.encoded(photos_make.scene(), "WEBP")
    with pytest.raises(ImageRejected, match="truncated: the end of this WebP is missing"):
        decode(data[: len(data) // 2])


def test_damaged_metadata_does_not_lose_the_picture():
    pixels = photos_make.scene()
    picture = decode(photos_make.encoded(pixels, "PNG", exif=b"Exif\x00\x00no TIFF header at all"))
    assert np.array_equal(picture.pixels, pixels)
    assert picture.notes == ("the EXIF data is damaged: taken as upright",)


def test_a_process_in_which_pillow_invents_missing_pixels_is_told_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UsageError, match="set it to False"):
        decode(photos_make.encoded(photos_make.scene(), "JPEG"))


def test_arrays_are_taken_as_pixels():
    pixels = photos_make.scene()
    colour = decode(pixels)
    assert np.array_equal(colour.pixels, pixels) and (colour.format, colour.mode) == ("array", "RGB")
    grey = decode(np.ascontiguousarray(pixels[:, :, 0]), target=8)
    assert np.array_equal(grey.pixels, np.dstack([pixels[:, :, 0]] * 3)) and grey.mode == "L"
    assert (grey.height, grey.width, grey.reduction) == (48, 64, 1)
    assert pixels.flags.writeable and not colour.pixels.flags.writeable
    for wrong, reason in ((np.zeros((2, 2, 4), np.uint8), "unsupported_format"), (np.zeros((0, 5), np.uint8), "empty")):
        with pytest.raises(ImageRejected, match=reason):
            decode(wrong)


def test_a_picture_that_contradicts_itself_cannot_be_built():
    with pytest.raises(ShapeError, match=r"8 x 4 px reduced by 2 has pixels of shape \(2, 4, 3\), not \(4, 8, 3\)"):
        Picture(np.zeros((4, 8, 3), np.uint8), 8, 4, "PNG", "RGB", reduction=2)


def test_the_decoders_version_names_the_code_and_the_libraries():
    parts = DECODER_VERSION.split()
    assert parts[0].isdigit() and f"pillow-{Image.__version__}" in parts
    assert any(part.startswith("libjpeg_turbo-") for part in parts)


# Reading files


def test_reading_gives_the_bytes(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(b"abc" * 100_000)
    assert read_photo_bytes(tmp_path / "a.jpg") == b"abc" * 100_000


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "gone.jpg").symlink_to("nothing")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        server.bind("socket.jpg")
    (tmp_path / "file").touch()
    expected = {
        "pipe.jpg": "not_a_file: it is a pipe",
        "folder.jpg": "not_a_file: it is a folder",
        "device.jpg": "not_a_file: it is a device",
        "socket.jpg": "not_a_file: it is a socket",
        "loop.jpg": "unreadable",
        "gone.jpg": "missing",
        "nowhere/a.jpg": "missing",
        "file/a.jpg": "missing",
        "file": "empty",
        "a\0b.jpg": "missing",
        "\ud800.jpg": "missing",
        "a" * 300: "unreadable",
    }
    for name, start in expected.items():
        with pytest.raises(ImageRejected) as caught:
            read_photo_bytes(tmp_path / name)
        assert str(caught.value).startswith(start), name


def test_a_pipe_that_takes_the_place_of_a_file_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "real.jpg").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    before = (tmp_path / "real.jpg").stat()
    monkeypatch.setattr(Path, "stat", lambda self, **_: before)  # replaced between the look and the opening
    with pytest.raises(ImageRejected, match="not_a_file: it is a pipe"):
        read_photo_bytes(tmp_path / "pipe.jpg")


def test_a_file_above_the_limit_is_not_read(tmp_path: Path):
    with (tmp_path / "big.tif").open("wb") as file:
        file.truncate(10**12)  # a hole, no bytes on disk
    with pytest.raises(ImageRejected, match=r"too_large_file: .* 1000000 MB, the limit is 256 MB"):
        read_photo_bytes(tmp_path / "big.tif")
    (tmp_path / "a.jpg").write_bytes(bytes(11))
    assert len(read_photo_bytes(tmp_path / "a.jpg", DecodeLimits(max_bytes=11))) == 11
    with pytest.raises(ImageRejected, match="too_large_file"):
        read_photo_bytes(tmp_path / "a.jpg", DecodeLimits(max_bytes=10))
    with pytest.raises(ImageRejected, match="too_large_file"):
        decode(bytes(11), limits=DecodeLimits(max_bytes=10))


def test_a_file_without_permission_is_unreadable(tmp_path: Path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"x")
    secret.chmod(0)
    if os.geteuid():
        with pytest.raises(ImageRejected, match="unreadable"):
            read_photo_bytes(secret)
        return
    for folder in (tmp_path, *tmp_path.parents):  # root may read everything: ask as nobody, who must get that far
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 1 and folder != Path(folder.anchor):
            folder.chmod(folder.stat().st_mode | 0o011)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom headstart.images import *\nfrom headstart.errors import *\n"
        "os.setuid(65534)\ntry:\n    read_photo_bytes(Path(sys.argv[1]))\n"
        "except ImageRejected as error:\n    print(error.reason)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(secret)], capture_output=True, text=True, check=True)
    assert done.stdout == "unreadable\n"


HOSTILE = [
    "-rf.jpg",
    "..jpg",
    "a b.jpg",
    "tab\there.png",
    "line\nbreak.jpg",
    "\x1b[31mred.jpg",
    "bell\x07.gif",
    "\u202egpj.exe",
    "caf\udce9.jpg",
    "\u00e9.jpg",
    "e\u0301.jpg",
    "日本.webp",
    "😀.jpg",
    "%s%n.jpg",
    "{0}.jpg",
    "$(touch x).jpg",
    "'; DROP TABLE photos; --.jpg",
    "<script>alert(1)<script>.jpg",
    "=1+1.jpg",
    "con.jpg",
    "nul",
    ".hidden.jpg",
    "trailing. ",
    "a" * 250 + ".jpg",
    "\u200bzero.jpg",
    "\\back\\slash.jpg",
    "*?[!].jpg",
    "#fragment.jpg",
    "q?x=1.jpg",
    "%2e%2e%2f.jpg",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_changes_nothing(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(photos_make.encoded(photos_make.scene(), "PNG"))
    picture = decode(read_photo_bytes(path), name=name)
    assert np.array_equal(picture.pixels, photos_make.scene())
    assert all(note.isprintable() and name not in note for note in picture.notes)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + name.encode("utf-8", "surrogateescape"))
    with pytest.raises(ImageRejected) as caught:
        decode(read_photo_bytes(path), name=name)
    assert str(caught.value).isprintable() and str(tmp_path) not in str(caught.value)


def test_limits_are_checked_where_they_are_built():
    for wrong in (0, -1):
        with pytest.raises(ConfigError, match=f"max_pixels must be a whole number of at least 1, not {wrong}"):
            DecodeLimits(max_pixels=wrong)


def test_a_photo_below_the_smallest_side_is_too_small():
    data = photos_make.encoded(photos_make.scene(3, 40), "PNG")
    assert decode(data).height == 3
    with pytest.raises(ImageRejected, match="too_small: it has 40 x 3 pixels, the limit is 4 a side"):
        decode(data, limits=DecodeLimits(min_side=4))
    with pytest.raises(ImageRejected, match="too_small"):
        decode(photos_make.scene(3, 40), limits=DecodeLimits(min_side=4))


def test_reasons_are_codes_with_a_sentence():
    assert all(code.isidentifier() and sentence and sentence[0].islower() for code, sentence in REASONS.items())
