import json
from pathlib import Path

import pytest

from medseg.cli.main import call
from medseg.data import limits
from medseg.workflows import doctor as doctor_module
from medseg.workflows import machine
from medseg.workflows.doctor import DoctorOptions, doctor, try_decoders

SYNTAXES = {
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
}  # fmt: skip


def test_every_encoding_is_tried_and_decodes_to_the_known_picture() -> None:
    entries = {entry["transfer_syntax_uid"]: entry for entry in try_decoders()}
    assert set(entries) == SYNTAXES
    assert [entry for entry in entries.values() if not entry["works"]] == []


def test_a_decoder_that_gives_wrong_values_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = doctor_module._unpacked

    def other_picture(text: str) -> bytes:
        raw = unpacked(text)
        return raw if b"DICM" in raw[:132] else bytes(len(raw))

    monkeypatch.setattr(doctor_module, "_unpacked", other_picture)
    entries = try_decoders()
    assert not any(entry["works"] for entry in entries)
    assert all("off by" in entry["message"] for entry in entries)


def test_the_document_has_every_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call(["doctor", "--json", "-o", str(tmp_path)])
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {
        "schema", "software", "devices", "cpu", "threads", "memory", "decoders", "bundles",
        "missing", "problems",
    }  # fmt: skip
    assert document["problems"] == []
    assert code == int(any(item["required"] for item in document["missing"]))
    assert document["memory"]["output_folder"] == str(tmp_path)
    assert document["memory"]["output_free_bytes"] > 0


def test_the_screen_shows_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    call(["doctor"])
    shown = capsys.readouterr().out
    for word in ("python", "cuda", "torch threads", "GiB", "JPEG 2000 lossless"):
        assert word in shown


def test_missing_packages_come_with_the_command_that_adds_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [
        "nibabel>=5.3",
        "monai>=1.6.1 ; python_version > '3'",
        "openvino>=2025.0; extra == 'openvino'",
        "ruff>=0.9; extra == 'dev'",
        "medseg[openvino]; extra == 'all'",
    ]
    monkeypatch.setattr(doctor_module, "requires", lambda _: lines)
    present = {"medseg": "1", "nibabel": "5"}
    monkeypatch.setattr(doctor_module, "_installed", present.get)
    first, second = doctor_module.missing()
    assert (first["what"], first["required"]) == ("monai", True)
    assert first["command"].endswith("-m pip install 'monai>=1.6.1'")
    assert (second["what"], second["required"]) == ("openvino (extra openvino)", False)
    assert second["command"].endswith("-m pip install 'openvino>=2025.0'")


def test_a_broken_part_is_reported_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        msg = "libcudart.so: cannot open"
        raise ImportError(msg)

    monkeypatch.setattr(doctor_module, "describe_devices", broken)
    result = doctor(DoctorOptions())
    assert result.exit_code == 1
    assert result.document["devices"] == {}
    assert result.document["problems"] == [
        {"step": "devices", "message": "ImportError: libcudart.so: cannot open"}
    ]
    assert result.document["decoders"]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_control_groups_limit_of_cores_is_read(
    files: dict[str, str], cores: float | None, tmp_path: Path
) -> None:
    _write(tmp_path, files)
    assert limits.cgroup_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "1073741824\n"}, 1 << 30),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, None),
        ({"memory/memory.limit_in_bytes": "4096"}, 4096),
        ({}, None),
    ],
)
def test_the_control_groups_limit_of_memory_is_read(
    files: dict[str, str], limit: int | None, tmp_path: Path
) -> None:
    _write(tmp_path, files)
    assert limits.cgroup_bytes(tmp_path) == limit


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_more_threads_than_the_control_group_allows_are_pointed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "cgroup_cores", lambda: 0.5)
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    threads = machine.describe_threads()
    assert threads["worth_using"] == 1
    assert threads["too_many"] is True
