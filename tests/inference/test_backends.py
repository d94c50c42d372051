"""Which library runs a network, and what is kept on disk for it."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medseg.bundle import export_network
from medseg.errors import BundleError, DependencyError, UsageError
from medseg.inference.backends import Chooser, Demand, Subject, choice, runners
from medseg.inference.backends import probe as probing
from medseg.inference.backends.runners import Kind
from medseg.inference.backends.store import ModelStore

SHAPE = (1, 16, 16, 8)
CPU = torch.device("cpu")


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Conv3d(1, 6, 3, padding=1),
        torch.nn.InstanceNorm3d(6, affine=True),
        torch.nn.LeakyReLU(0.01),
        torch.nn.Conv3d(6, 3, 3, padding=1),
    ).eval()


@pytest.fixture
def window() -> torch.Tensor:
    torch.manual_seed(4)
    return torch.nn.functional.interpolate(torch.randn(1, 1, 4, 4, 2), SHAPE[1:], mode="trilinear")


def _subject(network: torch.nn.Module, folder: Path | None = None) -> Subject:
    return Subject(network, SHAPE, "a-key", ModelStore(folder), threads=1)


def _installed(name: str) -> pytest.MarkDecorator:
    there = choice._is_installed(name)
    return pytest.mark.skipif(not there, reason=f"{name} is not installed")


@pytest.mark.parametrize(
    ("backend", "precision"),
    [
        ("torch", "fp32"),
        ("torch", "bf16"),
        pytest.param("openvino", "fp32", marks=_installed("openvino")),
        pytest.param("openvino", "bf16", marks=_installed("openvino")),
        pytest.param("onnx", "fp32", marks=_installed("onnx")),
        pytest.param("compile", "fp32", marks=pytest.mark.slow),
    ],
)
def test_every_library_gives_what_torch_gives(
    backend, precision, network, window, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(probing, "LEAST_AGREEMENT", 0.98)  # no trained network: many near ties
    monkeypatch.setattr(probing, "LEAST_FOREGROUND_DICE", 0.98)
    chosen = Chooser(backend, precision).choose(_subject(network, tmp_path), [window])
    assert chosen.refused == ()
    layouts = {"torch": ("torch", "channels_last")}
    assert chosen.probe.kind.library in layouts.get(backend, (backend,))
    assert chosen.probe.kind.precision == precision
    tolerance = 1e-4 if precision == "fp32" else 5e-2
    with torch.inference_mode():
        batch = torch.cat([window, window.flip(2)])
        expected = network(batch)
        torch.testing.assert_close(
            chosen.network(batch).float(), expected, rtol=tolerance, atol=tolerance
        )


@_installed("openvino")
def test_a_network_is_converted_once_and_its_speeds_are_measured_once(
    network, window, tmp_path, monkeypatch
) -> None:
    written = []
    write = runners.write_network

    def counting(*arguments) -> export_network.Written:
        written.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(runners, "write_network", counting)
    first = Chooser("openvino").choose(_subject(network, tmp_path), [window])
    assert len(written) == 1
    assert first.probe.seconds > 0
    again = Chooser("openvino").choose(_subject(network, tmp_path), [window])
    assert len(written) == 1
    assert again.probe.seconds == first.probe.seconds
    other = Subject(network, SHAPE, "another-key", ModelStore(tmp_path), threads=1)
    Chooser("openvino").choose(other, [window])
    assert len(written) == 2


SIGNAL_AFTER_OPENVINO = """
import os, signal, torch
from medseg.inference.backends.runners import Kind, Subject, build

network = torch.nn.Conv3d(1, 2, 3, padding=1).eval()
subject = Subject(network, (1, 8, 8, 8), "a-key")
several = [build(Kind("openvino", precision), subject) for precision in ("bf16", "fp32")]
while several:
    del several[0]
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@_installed("openvino")
@pytest.mark.slow
def test_signals_are_handled_after_networks_of_openvino_are_freed() -> None:
    command = [sys.executable, "-X", "faulthandler", "-c", SIGNAL_AFTER_OPENVINO]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def _wrong(subject: Subject, _: str) -> runners.Network:
    return lambda inputs: subject.network(inputs).flip(1)


def _failing(_: Subject, precision: str) -> runners.Network:
    msg = f"Exception from a.cpp:84:\nno {precision} here\n"
    raise RuntimeError(msg)


def _not_finite(subject: Subject, _: str) -> runners.Network:
    return lambda inputs: subject.network(inputs) / 0


@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        (_wrong, "its outputs differ by"),
        (_not_finite, "its outputs differ by"),
        (_failing, "RuntimeError: no fp32 here"),
    ],
)
def test_a_library_that_fails_or_is_wrong_gives_way_to_torch(
    builder, reason, network, window, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(runners._BUILDERS, "openvino", builder)
    monkeypatch.setitem(choice.PACKAGES, "openvino", ("torch",))
    monkeypatch.setattr(runners, "require_packages", lambda _: None)
    for _ in range(2):  # the second time speeds are known
        chosen = Chooser("openvino", "fp32").choose(_subject(network, tmp_path), [window])
        assert chosen.probe.kind == Kind("torch", "fp32")
        [(kind, why)] = chosen.refused
        assert kind == Kind("openvino", "fp32")
        assert why.startswith(reason)
        assert "\n" not in why
        with torch.inference_mode():
            assert torch.equal(chosen.network(window), network(window))
    monkeypatch.undo()
    if builder is _failing:  # and it works again: nothing of the failure is kept
        monkeypatch.setitem(runners._BUILDERS, "openvino", runners._BUILDERS["torch"])
        monkeypatch.setitem(choice.PACKAGES, "openvino", ("torch",))
        again = Chooser("openvino", "fp32").choose(_subject(network, tmp_path), [window])
        assert again.refused == ()


def test_half_precision_is_not_taken_by_a_window_with_nothing_in_it(network, window) -> None:
    chooser, subject = Chooser("torch"), _subject(network)
    with torch.no_grad():
        network[3].bias.copy_(torch.tensor([50.0, 0, 0]))
    nothing = chooser.choose(subject, [window])
    assert nothing.probe.kind.precision == "fp32"
    assert not nothing.is_final
    assert "nothing was found" in dict(nothing.refused)[Kind("torch", "bf16")]
    asked = Chooser("torch", "bf16").choose(subject, [window])
    assert asked.probe.kind.precision == "bf16"
    with torch.no_grad():
        network[3].bias.copy_(torch.tensor([0.0, 50, 0]))
    assert chooser.choose(subject, [window]).is_final


class TwoWays(torch.nn.Module):
    """Takes another branch where the image is bright: what a tracer does not see."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.layer(x)
        return found if float(x.mean()) > -0.5 else 30 * found.flip(1)


@_installed("openvino")
def test_a_network_that_lost_a_branch_in_conversion_is_refused(tmp_path) -> None:
    subject = Subject(TwoWays().eval(), (1, 16, 16, 16), "two-ways", ModelStore(tmp_path), 1)
    window = torch.rand(1, 1, 16, 16, 16)
    dark = window - 5
    for first, second in ((window, dark), (dark, window)):
        chosen = Chooser("openvino", "fp32").choose(subject, [first])
        with torch.inference_mode():
            for one in (first, second):
                if chosen.probe.kind.library == "torch":
                    torch.testing.assert_close(chosen.network(one), subject.network(one))
    assert Chooser("openvino", "fp32").choose(subject, [dark]).probe.kind.library == "torch"


@_installed("openvino")
@pytest.mark.parametrize("damage", ["model.bin", "model.xml"])
def test_a_damaged_copy_of_a_network_is_converted_anew(damage, network, window, tmp_path) -> None:
    subject = _subject(network, tmp_path)
    Chooser("openvino", "fp32").choose(subject, [window])
    [file] = tmp_path.rglob(damage)
    file.write_bytes(file.read_bytes()[:20])
    chosen = Chooser("openvino", "fp32").choose(subject, [window])
    assert chosen.probe.kind == Kind("openvino", "fp32")
    assert file.stat().st_size > 20


def test_a_network_with_several_outputs_is_said_to_have_them() -> None:
    class Pair(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    with pytest.raises(BundleError, match="one tensor of class maps, got tuple"):
        Chooser("torch").choose(Subject(Pair(), SHAPE, "k"), [torch.zeros(1, *SHAPE)])


def test_rounding_that_moves_a_structure_is_refused() -> None:
    expected = torch.zeros(1, 2, 30, 30, 30)
    expected[:, 1] = -1
    expected[:, 1, 10:17, 10:17, 10:17] = 1  # 343 of 27000 voxels
    found = expected.clone()
    found[:, 1, 10, 10:13, 10:17] = -1  # 21 voxels: 99.92 % of all agree
    dice = probing.foreground_dice(found, expected, regions=False)
    assert dice == pytest.approx(2 * 322 / (322 + 343))
    parity = probing.compare(lambda _: found, [probing.Trial(expected, expected)])
    assert parity.label_agreement > probing.LEAST_AGREEMENT
    probe = probing.Probe(Kind("torch", "bf16"), 1.0, probing.Parity(0.02, 1, 0.9992, ()), dice)
    assert probe.reason_against is not None
    assert "Dice 0.96" in probe.reason_against
    assert math.isnan(probing.foreground_dice(-expected.abs(), -expected.abs(), regions=True))


def test_the_window_in_which_something_is_found_decides_wherever_it_comes() -> None:
    empty, full = torch.zeros(1, 1, 12, 12, 12), torch.ones(1, 1, 12, 12, 12)

    def bright(window: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 - window, window - 0.5], dim=1)

    for windows in ([full, empty], [empty, full], [empty, empty, full]):
        examiner = probing.Examiner(bright, windows, regions=False)
        assert torch.equal(examiner.trial.image, full)
    examiner = probing.Examiner(bright, [empty, empty.clone()], regions=False)
    assert examiner.trial.image is empty


def test_the_dice_of_labels_is_a_mean_in_which_a_small_one_counts_as_much() -> None:
    labels = torch.zeros(1, 20, 20, 20, dtype=torch.int64)
    labels[:, :10] = 1  # 4000 voxels
    labels[:, 15:, :10, :5] = 2  # 250 voxels
    labels[:, 19, 19, 19] = 3  # too few to tell
    moved = labels.clone()
    moved[:, 15:, :2, :5] = 0  # 50 of the 250
    found, expected = (
        torch.nn.functional.one_hot(one, 4).movedim(-1, 1).float() for one in (moved, labels)
    )
    expected_mean = (1 + 2 * 200 / 450) / 2
    dice, voxels = probing.label_dice(found, expected, regions=False)
    assert (dice, voxels) == (pytest.approx(expected_mean), 4000 + 225)
    on = [2 * one[:, 1:3] - 1 for one in (found, expected)]
    dice, voxels = probing.label_dice(on[0], on[1], regions=True)
    assert (dice, voxels) == (pytest.approx(expected_mean), 4000 + 225)
    dice, voxels = probing.label_dice(-expected, -expected, regions=True)
    assert math.isnan(dice)
    assert voxels == 0


def test_what_one_demand_refuses_is_not_refused_where_less_is_asked(
    network, window, tmp_path
) -> None:
    subject = _subject(network, tmp_path)
    strict = Chooser("torch", "auto", demand=Demand(label_dice=1.1))
    assert strict.choose(subject, [window]).probe.kind.precision == "fp32"
    for asked in (Chooser("torch", "bf16", demand=strict.demand), Chooser("torch", "auto")):
        chosen = asked.choose(subject, [window])
        assert not [why for kind, why in chosen.refused if "label" in why]
    assert Chooser("torch", "bf16").choose(subject, [window]).probe.kind.precision == "bf16"
    again = strict.choose(subject, [window])
    assert any(why.endswith("(seen before)") for _, why in again.refused)


def test_what_is_demanded_of_half_precision_is_not_asked_of_it_when_it_is_chosen(
    network, window, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(probing, "LEAST_AGREEMENT", 0.98)  # no trained network: many near ties
    monkeypatch.setattr(probing, "LEAST_FOREGROUND_DICE", 0.98)
    few = Demand(voxels=10**6)
    chosen = Chooser("torch", "auto", demand=few).choose(_subject(network), [window])
    assert chosen.probe.kind.precision == "fp32"
    assert not chosen.is_final  # another image may have more
    assert "too little was found" in dict(chosen.refused)[Kind("torch", "bf16")]
    demand = Demand(label_dice=1.1)
    subject = _subject(network, tmp_path)
    chosen = Chooser("torch", "auto", demand=demand).choose(subject, [window])
    assert chosen.probe.kind.precision == "fp32"
    reasons = {str(kind): reason for kind, reason in chosen.refused}
    assert "mean Dice of" in reasons["torch-bf16"]
    chosen = Chooser("torch", "bf16", demand=demand).choose(subject, [window])
    assert chosen.probe.kind.precision == "bf16"
    impossible = Demand(agreement=1.1)
    chosen = Chooser("torch", "fp32", demand=impossible).choose(_subject(network), [window])
    assert chosen.refused == ()  # torch itself is what others are compared with


def test_differences_of_classes_are_found_one_by_one() -> None:
    expected = torch.zeros(2, 3, 4, 4, 4)
    found = expected.clone()
    found[1, 2, 3, 3, 3] = -0.25
    trial = probing.Trial(expected, expected)
    assert probing.compare(lambda _: found, [trial]).max_abs_difference == 0.25
    found[0, 0, 0, 0, 0] = math.nan
    assert math.isinf(probing.compare(lambda _: found, [trial]).max_abs_difference)


def test_of_many_classes_every_other_voxel_is_compared(network, window, monkeypatch) -> None:
    monkeypatch.setattr(probing, "FEWEST_FOREGROUND_VOXELS", 5)

    def foreground(limit: int) -> tuple[tuple[int, ...], probing.Probe]:
        monkeypatch.setattr(probing, "LARGEST_OUTPUT", limit)
        reference = runners.build(Kind("torch", "fp32"), _subject(network))
        examiner = probing.Examiner(reference, [window], regions=False)
        wrong = runners.build(Kind("torch", "fp32"), _subject(network))
        probe = examiner.examined(Kind("torch", "bf16"), lambda x: wrong(x) * -1, converted=True)
        return tuple(examiner.trial.expected.shape), probe

    whole, full = foreground(10**9)
    part, less = foreground(100)
    assert whole == (1, 3, *SHAPE[1:])
    assert part == (1, 3, 8, 8, 4)
    for probe in (full, less):
        assert probe.noise is not None
        assert probe.reason_against is not None
    assert 0.5 * full.label_voxels < less.label_voxels < 2 * full.label_voxels


def test_parts_of_large_windows_can_be_halved_as_often() -> None:
    def shapes(*size: int) -> set[tuple[int, ...]]:
        return {tuple(part.shape) for part in probing.parts_of([torch.rand(1, 2, *size)])}

    assert shapes(96, 96, 96) == {(1, 2, 64, 64, 64)}
    assert shapes(128, 112, 80) == {(1, 2, 64, 64, 48)}
    assert shapes(512, 640) == {(1, 2, 256, 320)}
    assert shapes(40, 56, 40) == set()  # is compared in no time
    assert shapes(101, 67, 83) == {(1, 2, 51, 34, 42)}
    window = torch.zeros(1, 1, 96, 96, 96)
    window[..., 60:, 60:, 60:] = torch.rand(36, 36, 36)
    first, *_ = probing.parts_of([window])
    assert torch.equal(first, window[..., 32:, 32:, 32:])


@pytest.mark.parametrize(
    ("backend", "precision"),
    [("torch", "bf16"), pytest.param("openvino", "fp32", marks=_installed("openvino"))],
)
def test_what_was_compared_on_a_whole_window_is_compared_on_a_part_of_it_later(
    backend, precision, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(probing, "LARGE_WINDOW", 1000)
    monkeypatch.setattr(probing, "LEAST_AGREEMENT", 0.9)  # no trained network: many near ties
    monkeypatch.setattr(probing, "LEAST_FOREGROUND_DICE", 0.9)
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1).eval()
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    subject = Subject(network, (1, 24, 24, 24), "a-key", ModelStore(tmp_path), threads=1)
    window = torch.rand(1, 1, 24, 24, 24) - 0.5
    first = Chooser(backend, precision).choose(subject, [window])
    assert (24, 24, 24) in seen
    seen.clear()
    again = Chooser(backend, precision).choose(subject, [window])
    assert set(seen) == {(16, 16, 16)}
    assert again.probe.kind == first.probe.kind
    assert again.probe.parity is not None
    assert again.probe.seconds == first.probe.seconds
    tolerance = 1e-4 if precision == "fp32" else 5e-2
    with torch.inference_mode():
        expected = torch.nn.functional.conv3d(window, network.weight, network.bias, padding=1)
        found = again.network(window).float()
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_a_network_that_takes_no_other_size_is_compared_on_whole_windows(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(probing, "LARGE_WINDOW", 1000)

    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv3d(1, 2, 1)
            self.place = torch.nn.Parameter(torch.rand(1, 2, 24, 24, 24))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) + self.place

    monkeypatch.setattr(probing, "LEAST_AGREEMENT", 0.9)
    monkeypatch.setattr(probing, "LEAST_FOREGROUND_DICE", 0.9)
    subject = Subject(Fixed().eval(), (1, 24, 24, 24), "b-key", ModelStore(tmp_path), threads=1)
    window = torch.rand(1, 1, 24, 24, 24)
    first, again = (Chooser("torch", "bf16").choose(subject, [window]) for _ in range(2))
    assert again.probe.parity is not None
    assert again.probe.parity.shapes == first.probe.parity.shapes == ((1, 1, 24, 24, 24),)


def test_what_is_not_installed_cannot_be_asked_for(monkeypatch) -> None:
    monkeypatch.setitem(export_network.PACKAGES, "openvino", ("no_such_package",))
    with pytest.raises(DependencyError, match="no_such_package"):
        Chooser("openvino").kinds(CPU)
    assert "openvino" not in {kind.library for kind in Chooser().kinds(CPU)}


def test_ways_that_are_tried(monkeypatch) -> None:
    def tried(backend: str, precision: str = "auto") -> list[str]:
        return [str(kind) for kind in Chooser(backend, precision).kinds(CPU)]

    assert tried("torch", "fp32") == ["torch-fp32"]
    assert tried("torch") == [
        "torch-bf16", "torch-fp32", "channels_last-bf16", "channels_last-fp32"
    ]  # fmt: skip
    monkeypatch.setattr(choice, "_is_installed", lambda name: name == "openvino")
    assert tried("auto") == ["openvino-bf16", "openvino-fp32", "torch-bf16", "torch-fp32"]
    monkeypatch.setattr(choice, "_is_installed", lambda _: False)
    assert tried("auto", "fp32") == ["torch-fp32", "channels_last-fp32"]


@pytest.mark.parametrize(("backend", "precision"), [("onnx", "bf16"), ("auto", "fp16")])
def test_what_cannot_be_run_is_refused(backend, precision) -> None:
    with pytest.raises(UsageError, match="must run"):
        Chooser(backend, precision).kinds(CPU)


@pytest.mark.parametrize(
    ("backend", "device"), [("cudagraph", "cpu"), ("tensorrt", "cpu"), ("openvino", "cuda")]
)
def test_a_library_for_another_device_is_refused(backend, device) -> None:
    with pytest.raises(UsageError, match="must be one of auto, torch, compile") as caught:
        Chooser(backend).kinds(torch.device(device))
    assert caught.value.code == "bad-backend"


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch", "cudagraph"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_gives_what_the_processor_gives(backend, precision, network, window) -> None:
    expected = network(window)
    device = torch.device("cuda")
    chosen = Chooser(backend, precision).choose(_subject(network.to(device)), [window.to(device)])
    assert chosen.refused == ()
    assert chosen.probe.kind.precision == precision
    tolerance = 1e-3 if precision == "fp32" else 5e-2
    for _ in range(2):
        found = chosen.network(window.to(device)).float().cpu()
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


class TestStore:
    def test_an_entry_is_written_once(self, tmp_path) -> None:
        store, writes = ModelStore(tmp_path / "deep" / "down"), []

        def write(folder: Path) -> None:
            writes.append(folder)
            (folder / "a").write_text("b")

        for _ in range(2):
            with store.folder("one", write) as folder:
                assert (folder / "a").read_text() == "b"
        assert len(writes) == 1
        assert [path.suffix for path in store.root.iterdir()] == [""]

    @pytest.mark.parametrize("kind", ["none", "file"])
    def test_without_a_usable_folder_all_works_and_nothing_stays(self, tmp_path, kind) -> None:
        (tmp_path / "file").write_text("in the way")
        store = ModelStore({"none": None, "file": tmp_path / "file"}[kind])
        with store.folder("one", lambda folder: (folder / "a").touch()) as folder:
            assert (folder / "a").exists()
        assert not folder.exists()
        store.note("x", {"y": 1})
        assert store.read("x") == {}

    def test_a_failing_write_leaves_nothing(self, tmp_path) -> None:
        store = ModelStore(tmp_path)

        def write(folder: Path) -> None:
            (folder / "a").touch()
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"), store.folder("one", write):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_under_the_store_costs_only_the_keeping(self, tmp_path) -> None:
        store = ModelStore(tmp_path / "full")

        def write(folder: Path) -> None:
            (folder / "a").touch()
            if folder.is_relative_to(tmp_path / "full"):
                raise OSError(28, "No space left on device")

        with store.folder("one", write) as folder:
            assert (folder / "a").exists()
        assert not folder.exists()
        assert list((tmp_path / "full").iterdir()) == []

    def test_what_was_not_used_for_longest_goes_first(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr("medseg.inference.backends.store.LARGEST_BYTES", 250)
        store = ModelStore(tmp_path)
        left = tmp_path / "killed.part"
        left.mkdir()
        os.utime(left, (0, 0))
        for number, name in enumerate(["one", "two", "three"]):
            with store.folder(name, lambda folder: (folder / "a").write_bytes(bytes(100))):
                pass
            for entry in tmp_path.glob("*/complete"):
                if entry.stat().st_mtime > time.time() - 60:
                    os.utime(entry, (1e9 + number, 1e9 + number))
        assert len(list(tmp_path.iterdir())) == 2
        assert not left.exists()

    def test_a_damaged_note_is_none(self, tmp_path) -> None:
        store = ModelStore(tmp_path)
        store.note("x", {"y": 1.5})
        assert store.read("x") == {"y": 1.5}
        [note] = tmp_path.iterdir()
        note.write_text("{")
        assert store.read("x") == {}
