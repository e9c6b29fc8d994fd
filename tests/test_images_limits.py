"""What a file may cost: memory, time, other programs, and noise on the user's terminal."""

import io
import json
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

import photos_make
from headstart.errors import ImageRejected
from headstart.images import DecodeLimits, decode, pillow

TESTS = Path(__file__).parent


def measured(tmp_path: Path, files: dict[str, tuple[bytes, int | None]]) -> dict[str, dict]:
    """What `photos_memory.py` finds for each file: outcome, seconds, rise and estimate of memory in MiB."""
    arguments = []
    for name, (data, target) in files.items():
        (tmp_path / name).write_bytes(data)
        arguments.append(f"{tmp_path / name}:{target or ''}")
    done = subprocess.run(
        [sys.executable, TESTS / "photos_memory.py", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stderr == ""
    return dict(zip(files, map(json.loads, done.stdout.splitlines()), strict=True))


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")


@needs_proc
def test_legal_bombs_are_refused_at_once_or_decoded_in_little_memory(tmp_path: Path):
    files: dict[str, tuple[bytes, int | None, str]] = {  # 86 kB, 34 bytes, ...: the sizes say how little it takes
        "178 megapixels.png": (photos_make.png(13370, 13370, depth=8, colour=0), 256, "PNG"),
        "178 megapixels colour.png": (photos_make.png(13370, 13370, depth=8, colour=2, rows=b"\0"), 256, "bomb"),
        "89 megapixels.png": (photos_make.png(9450, 9450, depth=8, colour=0), 256, "PNG"),
        "89 megapixels whole.png": (photos_make.png(9450, 9450, depth=8, colour=0, rows=b"\0"), None, "bomb"),
        "178 megapixels.webp": (photos_make.webp(13370, 13370), 256, "bomb"),
        "16 megapixels.webp": (photos_make.webp(4000, 4000), 256, "WebP"),
        "178 megapixels.jpg": (photos_make.jpeg(13376, 13360), 256, "JPEG"),
        "178 megapixels whole.jpg": (photos_make.jpeg(13376, 13360), None, "bomb"),
    }
    found = measured(tmp_path, {name: (data, target) for name, (data, target, _) in files.items()})
    for name, result in found.items():
        assert result["outcome"] == files[name][2], (name, result)
        assert result["rise"] <= (150 if name.endswith("jpg") else 300), (name, result)
        if result["outcome"] == "bomb":
            assert result["seconds"] <= 0.050 and result["rise"] < 5, (name, result)


def costly(side: int) -> dict[str, Callable[[], tuple[bytes, int | None]]]:
    """A photo in every form whose memory is estimated in its own way."""
    picture = Image.fromarray(photos_make.scene(300, 300)).resize((side, side), Image.Resampling.NEAREST)
    alpha = picture.copy()
    alpha.putalpha(Image.linear_gradient("L").resize((side, side)))

    def kind(name: str, target: int | None, image: Image.Image = picture, **options: object):
        return lambda: (photos_make.encoded(image, name, **options), target)

    lzw = {"compression": "tiff_lzw"}
    return {
        "plain.jpg": kind("JPEG", None),
        "progressive.jpg": kind("JPEG", 256, progressive=True),
        "turned.jpg": lambda: (photos_make.with_orientation(np.asarray(picture), 6, "JPEG"), None),
        "deep.png": lambda: (photos_make.encoded(np.asarray(picture)[:, :, 0].astype(np.uint16) * 200, "PNG"), 256),
        "one strip.tif": kind("TIFF", 256, **lzw, tiffinfo={278: side}),
        "drafted.jpg": kind("JPEG", 256),
        "progressive 444.jpg": kind("JPEG", 256, progressive=True, subsampling=0),
        "cmyk.jpg": kind("JPEG", 256, picture.convert("CMYK")),
        "alpha.png": kind("PNG", 256, alpha),
        "palette.gif": kind("GIF", 256, picture.quantize(64)),
        "whole.gif": kind("GIF", None, picture.quantize(64)),
        "lossy.webp": kind("WEBP", 256, method=0),
        "444.avif": kind("AVIF", 256, speed=10, subsampling="4:4:4"),
        "alpha.avif": kind("AVIF", 256, alpha, speed=10),
        "raw.tif": kind("TIFF", 256),
        "strips.tif": kind("TIFF", 256, **lzw),
        "turned.tif": kind("TIFF", 256, **lzw, tiffinfo={274: 6}),
        "float.tif": kind("TIFF", 256, picture.convert("F")),
        "plain.bmp": kind("BMP", 256),
    }


def check_estimates(found: dict[str, dict]) -> None:
    for name, result in found.items():
        assert result["outcome"] != "bomb"
        assert result["rise"] <= result["estimated"] * 1.05 + 14, (name, result)  # strips and the heap take the rest


@needs_proc
def test_the_estimated_memory_is_an_upper_bound(tmp_path: Path):
    kinds = list(costly(2400).items())[:5]
    check_estimates(measured(tmp_path, {name: make() for name, make in kinds}))


@needs_proc
@pytest.mark.full
def test_the_estimated_memory_is_an_upper_bound_for_every_variant(tmp_path: Path):
    check_estimates(measured(tmp_path, {name: make() for name, make in costly(3900).items()}))


def test_a_jpeg_that_spreads_its_coefficients_over_scans_is_estimated_by_them():
    picture = Image.fromarray(photos_make.scene(64, 64))
    sides = 12000
    for options, bytes_a_pixel in (({"progressive": True}, 3), ({"progressive": True, "subsampling": 0}, 6)):
        data = photos_make.resized_header(photos_make.encoded(picture, "JPEG", **options), sides, sides)
        with pytest.raises(
            ImageRejected, match="bomb: decoding this JPEG of 12000 x 12000 pixels needs about"
        ) as caught:
            decode(data, target=256)
        told = int(re.search(r"about (\d+) MiB", caught.value.detail)[1])  # type: ignore[index]
        assert told == pytest.approx(sides**2 * (bytes_a_pixel + 4 / 64) / 2**20, rel=0.02)


def test_the_message_of_a_bomb_names_the_limit_and_how_to_raise_it():
    data = photos_make.png(300, 200, depth=8, colour=2)
    with pytest.raises(ImageRejected, match=r"has 300 x 200 = 0 million .* raise DecodeLimits\(max_pixels=...\)"):
        decode(data, limits=DecodeLimits(max_pixels=59_999))
    with pytest.raises(ImageRejected, match=r"limit is 0; .* raise DecodeLimits\(max_memory=...\)"):
        decode(data, limits=DecodeLimits(max_memory=300 * 200 * 7 - 1))
    assert decode(data, limits=DecodeLimits(max_pixels=60_000, max_memory=300 * 200 * 7)).width == 300


def test_a_pixel_limit_that_another_library_set_does_not_matter(monkeypatch: pytest.MonkeyPatch):
    data = photos_make.png(300, 200, depth=8, colour=2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert decode(data).width == 300
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageRejected, match="bomb"):
        decode(photos_make.resized_header(photos_make.encoded(photos_make.scene(), "JPEG"), 65500, 65500))


def test_a_small_file_that_would_keep_the_decoder_busy_is_refused():
    scan = photos_make.encoded(Image.new("RGB", (800, 800)), "JPEG", progressive=True)
    last = scan.rindex(b"\xff\xda")
    repeated = scan[:-2] + scan[last:-2] * 3000 + b"\xff\xd9"
    for data in (repeated, b"P6 1000 1000 100\n" + bytes(3_000_000), b"P2 1000 1000 255\n" + b"1 " * 1_000_000):
        with pytest.raises(ImageRejected, match=r"bomb: decoding this variant of .* would take too long"):
            decode(data)
    assert decode(scan).width == 800
    assert decode(b"P6 20 10 100\n" + bytes([50]) * 600).pixels.tolist() == [[[128] * 3] * 20] * 10


def test_memory_that_runs_out_is_a_reason_like_any_other(monkeypatch: pytest.MonkeyPatch):
    def exhausted(*_: object) -> None:
        raise MemoryError

    data = photos_make.encoded(photos_make.scene(), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    with pytest.raises(ImageRejected, match="bomb: memory ran out while decoding this PNG"):
        decode(data)


def test_the_decoder_never_starts_ghostscript(shared_data: Path, tmp_path: Path):
    mark = tmp_path / "called"
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    files = [str(path) for path in sorted((shared_data / "odd_images").glob("*eps*"))]
    assert len(files) == 2
    ours = (
        "import sys\nfrom pathlib import Path\nfrom headstart.errors import ImageRejected\n"
        "from headstart.images import decode, read_photo_bytes\n"
        "for name in sys.argv[1:]:\n    try:\n        decode(read_photo_bytes(Path(name)), name=name)\n"
        "    except ImageRejected as error:\n        print(error.reason)\n"
        "print('PIL.EpsImagePlugin' in sys.modules)"
    )
    plain = "import sys\nfrom PIL import Image\nImage.open(sys.argv[1]).load()"
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", ours, *files], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["unsupported_format", "unsupported_format", "False"]
    assert not mark.exists()
    subprocess.run([sys.executable, "-c", plain, files[0]], env=environment, capture_output=True, check=False)
    assert mark.exists()  # plain Pillow does call it, so the trap works


def test_two_threads_decode_noisy_files_without_a_warning_or_a_lost_filter(shared_data: Path):
    names = ["pil_crash-2020-10-test.tif", "pil_hopper_bad_exif.jpg", "pil_syntax_num_frames_zero.png"]
    files = [(shared_data / "odd_images" / name).read_bytes() for name in names]
    found: list[str] = []

    def work() -> None:
        for _ in range(15):
            for data in files:
                try:
                    found.append(decode(data).format)
                except ImageRejected as error:
                    found.append(error.reason)

    threads = [threading.Thread(target=work) for _ in range(2)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told == []
        with Image.open(io.BytesIO(files[1])) as image:  # the same file does warn where nobody asked for silence
            image.getexif()
        assert "Corrupt EXIF data" in str(told[0].message)
    assert found.count("corrupt") == 60 and found.count("JPEG") == 30


def test_warnings_of_pillow_are_silent_only_while_this_thread_decodes():
    def warn(module: str) -> None:
        warnings.warn_explicit("odd", UserWarning, "file.py", 1, module=module, registry={})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pillow.quiet():
            warn("PIL.TiffImagePlugin")
            with pytest.raises(UserWarning):
                warn("numpy")
            other: list[BaseException] = []

            def elsewhere() -> None:
                try:
                    warn("PIL.TiffImagePlugin")
                except UserWarning as error:
                    other.append(error)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            assert len(other) == 1
        with pytest.raises(UserWarning):
            warn("PIL.TiffImagePlugin")
        count = len(warnings.filters)
        for _ in range(5):
            warnings.simplefilter("error")
            with pillow.quiet():
                warn("PIL.PngImagePlugin")
        assert len(warnings.filters) <= count + 1


def test_damaged_files_print_nothing(shared_data: Path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom headstart.errors import ImageRejected\n"
        "from headstart.images import decode, read_photo_bytes\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n    try:\n        decode(read_photo_bytes(path))\n"
        "    except ImageRejected:\n        pass"
    )
    folder = shared_data / "odd_images"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
