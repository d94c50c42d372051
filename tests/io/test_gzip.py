"""Streams through isa-l against the standard library."""

import gzip as zlib_gzip
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import InputError
from medseg.io import gzip

CONTENT = np.random.default_rng(0).integers(0, 9, 3_000_001).astype(np.uint8).tobytes()


def test_what_is_written_the_standard_library_reads(tmp_path: Path) -> None:
    with gzip.open_write(tmp_path / "a.gz") as stream:
        stream.write(CONTENT)
    assert zlib_gzip.decompress((tmp_path / "a.gz").read_bytes()) == CONTENT


def test_other_suffixes_are_not_compressed(tmp_path: Path) -> None:
    with gzip.open_write(tmp_path / "a.nii") as stream:
        stream.write(CONTENT)
    assert (tmp_path / "a.nii").read_bytes() == CONTENT


@pytest.mark.parametrize("compress", [True, False])
def test_reading_skips_fills_and_ends(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(zlib_gzip.compress(CONTENT, 1) if compress else CONTENT)
    assert gzip.is_gzip(path) is compress
    assert gzip.largest_uncompressed(path) >= len(CONTENT)
    buffer = np.empty(1_500_000, np.uint8)
    with gzip.open_read(path) as stream:
        gzip.skip(stream, 1_200_003)
        gzip.read_into(stream, buffer)
        gzip.drain(stream)
    assert buffer.tobytes() == CONTENT[1_200_003:2_700_003]
    with gzip.open_read(path) as stream, pytest.raises(EOFError):
        gzip.skip(stream, len(CONTENT) + 1)


def test_several_members_are_one_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(zlib_gzip.compress(b"ab") + zlib_gzip.compress(b"cd"))
    with gzip.open_read(path) as stream:
        assert stream.read() == b"abcd"


def test_errors_become_one_line_with_a_code(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    packed = zlib_gzip.compress(CONTENT)
    path.write_bytes(packed[: len(packed) // 2])
    with (
        pytest.raises(InputError, match="ends too early") as caught,
        gzip.input_errors(path),
        gzip.open_read(path) as stream,
    ):
        gzip.drain(stream)
    assert caught.value.code == "truncated"
    wrong = bytearray(packed)
    wrong[-5] ^= 1  # the checksum
    path.write_bytes(wrong)
    with (
        pytest.raises(InputError) as caught,
        gzip.input_errors(path),
        gzip.open_read(path) as stream,
    ):
        gzip.drain(stream)
    assert caught.value.code == "unreadable"
    with pytest.raises(InputError) as caught, gzip.input_errors(path):
        (tmp_path / "missing").open()
    assert caught.value.code == "not-found"
