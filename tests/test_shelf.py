"""Converted nets in the cache: counted, checked and removed when nobody uses them."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from headstart.backbones import open_backbone
from headstart.backbones.shelf import check_shelf, look_at_shelf, prune_shelf
from headstart.cli import cli

LAST_WEEK = time.time() - 7 * 86_400


@pytest.fixture
def shelf(own_cache: Path, converted_backbones: Path) -> Path:
    shutil.copytree(converted_backbones / "backbones", own_cache / "backbones")
    (own_cache / "backbones" / "notes").mkdir()  # of somebody else
    return own_cache / "backbones"


def manifest_of(shelf: Path) -> Path:
    (manifest,) = shelf.glob("*/manifest.json")
    return manifest


def test_an_empty_cache_has_an_empty_shelf() -> None:
    assert (look_at_shelf().nets, look_at_shelf().bytes, look_at_shelf().oldest) == (0, 0, None)
    assert check_shelf().removed == prune_shelf(0).removed == 0


def test_nets_and_bytes_are_those_of_the_files(shelf: Path) -> None:
    seen = look_at_shelf()
    assert seen.nets == 1
    assert seen.bytes == sum(file.stat().st_size for file in manifest_of(shelf).parent.iterdir())


def test_only_what_was_not_used_for_so_long_is_removed(shelf: Path) -> None:
    os.utime(manifest_of(shelf), (LAST_WEEK, LAST_WEEK))
    assert prune_shelf(8).removed == 0
    assert prune_shelf(6).removed == 1
    assert not list(shelf.glob("*/manifest.json"))
    assert (shelf / "notes").is_dir()


def test_using_a_net_again_keeps_it(shelf: Path) -> None:
    os.utime(manifest_of(shelf), (LAST_WEEK, LAST_WEEK))
    open_backbone("efficientnet-lite0")
    assert prune_shelf(6).removed == 0


@pytest.mark.parametrize("file", ["model.bin", "weights.safetensors", "model.xml", "manifest.json"])
def test_a_changed_byte_in_any_file_is_found_and_the_net_made_again(shelf: Path, file: str) -> None:
    place = manifest_of(shelf).parent / file
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    assert check_shelf().removed == 1
    assert check_shelf().removed == 0
    assert open_backbone("efficientnet-lite0").graph().is_file()
    assert look_at_shelf().nets == 1


def test_the_commands_tell_of_both_halves_of_the_cache(shelf: Path) -> None:
    def told(*words: str) -> dict[str, object]:
        result = CliRunner().invoke(cli, ["cache", *words, "--json"], catch_exceptions=False)
        document: dict[str, object] = json.loads(result.stdout)["converted"]
        return document

    assert told("info")["nets"] == 1
    assert told("verify")["removed"] == 0
    assert told("prune", "--older-than", "0")["removed"] == 1
    assert told("info")["nets"] == 0
