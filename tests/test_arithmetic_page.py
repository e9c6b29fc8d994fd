"""The page on layers prints what the program prints."""

import doctest
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "arithmetic.md"


def test_every_example_of_the_page_prints_what_stands_there():
    result = doctest.testfile(str(PAGE), module_relative=False, verbose=False)
    assert result.attempted > 10
    assert result.failed == 0
