"""Files to analyse, and which tools are there to do it."""

import shutil

import pytest

GZIP_MEMBER = bytes.fromhex("1f8b0800000000000003") + b"\xcb\x48\xcd\xc9\xc9\x07\x00\x86\xa6\x10\x36\x05\x00\x00\x00"
PROGRAM = b"\x7fELF\x02\x01\x01" + bytes(57) + b"a printable text\0" + bytes(503) + GZIP_MEMBER

RULES = """
rule program : exe small { strings: $magic = { 7f 45 4c 46 } $text = "printable" condition: $magic at 0 and $text }
rule nothing { condition: false }
"""


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")
