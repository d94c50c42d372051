"""The surface of each label, read back byte by byte."""

import struct
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import OutputError, UsageError
from medseg.geometry import LPS_TO_RAS, apply_affine, voxel_volume_ml
from medseg.io.meshes import FORMATS, write_meshes
from medseg.volume import Label, Segmentation, Source, make_labels
from medseg.workflows.label_outputs import MESH_FORMATS
from tests.phantoms import abdomen, oblique_affine


def read_stl(path: Path) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Return the header, (N, 3) normals and (N, 3, 3) corners of a binary STL."""
    content = path.read_bytes()
    [count] = struct.unpack_from("<I", content, 80)
    assert len(content) == 84 + 50 * count
    rows = [struct.unpack_from("<12fH", content, 84 + 50 * n) for n in range(count)]
    values = np.array([row[:12] for row in rows]).reshape(count, 4, 3)
    assert all(row[12] == 0 for row in rows)
    return content[:80], values[:, 0], values[:, 1:]


def read_ply(path: Path) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """Return the header, (N, 3) points, their colours, and (M, 3) triangles of a binary PLY."""
    header, _, content = path.read_bytes().partition(b"end_header\n")
    text = header.decode()
    points, faces = (
        int(text.split(f"element {what} ")[1].split()[0]) for what in ("vertex", "face")
    )
    assert len(content) == 15 * points + 13 * faces
    vertices = [struct.unpack_from("<3f3B", content, 15 * n) for n in range(points)]
    rows = [struct.unpack_from("<B3i", content, 15 * points + 13 * n) for n in range(faces)]
    assert {row[0] for row in rows} == {3}
    values = np.array(vertices)
    return text, values[:, :3], values[:, 3:], np.array(rows)[:, 1:]


def read_obj(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return comments and names, (N, 3) points and (M, 3) triangles of an OBJ, counted from 0."""
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    points = np.array([row[1:] for row in rows if row[0] == "v"], float)
    triangles = np.array([row[1:] for row in rows if row[0] == "f"], int) - 1
    return [" ".join(row) for row in rows if row[0] in "#o"], points, triangles


@pytest.mark.parametrize("smoothing", [0, 15])
def test_all_formats_hold_the_same_surface(tmp_path: Path, smoothing: int) -> None:
    segmentation = two(oblique_affine("PIR"))
    written = {
        kind: write_meshes(segmentation, tmp_path, smoothing=smoothing, file_format=kind)
        for kind in ("stl", "ply", "obj")
    }
    for label, stl, ply, obj in zip(segmentation.labels, *written.values(), strict=False):
        assert (ply.name, obj.name) == (f"{stl.stem}.ply", f"{stl.stem}.obj")
        _, _, corners = read_stl(stl)
        header, points, colors, triangles = read_ply(ply)
        assert header.splitlines()[:3] == [
            *("ply", "format binary_little_endian 1.0"),
            "comment medseg; SPACE=LPS; UNIT=mm",
        ]
        assert (colors == label.color).all()
        np.testing.assert_array_equal(points[triangles], corners)
        said, points, triangles = read_obj(obj)
        assert said == ["# medseg; SPACE=LPS; UNIT=mm", f"o {label.name.replace(' ', '_')}"]
        assert np.abs(points[triangles] - corners).max() < 1e-4


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of stl, obj, ply, got 'vtk'"):
        write_meshes(two(np.eye(4)), tmp_path / "meshes", file_format="vtk")
    assert not list(tmp_path.iterdir())


def test_the_workflow_offers_the_formats_that_there_are() -> None:
    assert tuple(FORMATS) == MESH_FORMATS


def two(affine: np.ndarray, *, order: str = "F") -> Segmentation:
    array = np.zeros((30, 24, 20), np.uint8, order=order)
    grid = np.ogrid[:30, :24, :20]
    array[
        sum(((x - c) / r) ** 2 for x, c, r in zip(grid, (11, 9, 8), (9, 8, 7), strict=True)) <= 1
    ] = 1
    array[22:, 15:, 12:] = 2  # in a corner of the image
    return Segmentation(array, affine, make_labels(["left/right lung", "été", "none"]))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SAL"])
def test_a_surface_lies_in_the_patient_where_its_label_does(
    tmp_path: Path, codes: str, order: str
) -> None:
    segmentation = two(oblique_affine(codes), order=order)
    paths = write_meshes(segmentation, tmp_path / "meshes")
    assert [path.name for path in paths] == ["left_right_lung.stl", "été.stl"]
    for number, path in enumerate(paths, start=1):
        header, normals, corners = read_stl(path)
        assert b"SPACE=LPS" in header
        assert not header.startswith(b"solid")
        middle = corners.reshape(-1, 3).mean(axis=0)
        volumes = np.linalg.det(corners - middle) / 6
        mask = segmentation.array == number
        wanted = mask.sum() * voxel_volume_ml(segmentation.affine) * 1000
        assert volumes.sum() == pytest.approx(wanted, rel=0.02)
        centre = (volumes[:, None] * (corners - middle).sum(axis=1) / 4).sum(axis=0) / volumes.sum()
        truth = apply_affine(LPS_TO_RAS @ segmentation.affine, np.argwhere(mask).mean(axis=0))
        assert np.allclose(centre + middle, truth, rtol=0, atol=0.03)
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        length = np.linalg.norm(across, axis=1)
        assert ((normals * across).sum(axis=1) > 0.999 * length).all()


def test_each_corner_is_shared_after_rounding_to_float32(tmp_path: Path) -> None:
    """Viewers join equal corners: each edge must be gone along as often as back."""
    affine = oblique_affine("LPS")
    affine[:3, 3] = (-900, 1200, -1500)
    for path in write_meshes(two(affine), tmp_path):
        _, _, corners = read_stl(path)
        _, index = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
        sides = index.reshape(-1, 3)[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        there = sorted(map(tuple, sides.tolist()))
        assert there == sorted(map(tuple, sides[:, ::-1].tolist()))


def test_organs_keep_their_volume(tmp_path: Path) -> None:
    volume, mask = abdomen()
    names = [str(number) for number in range(1, int(mask.max()) + 1)]
    segmentation = Segmentation(mask, volume.affine, make_labels(names))
    for path in write_meshes(segmentation, tmp_path):
        _, _, corners = read_stl(path)
        voxels = int((mask == int(path.stem)).sum())
        if voxels > 500:
            enclosed = np.linalg.det(corners - corners.mean(axis=(0, 1))).sum() / 6
            assert enclosed == pytest.approx(voxels * 512, rel=0.02)


def test_a_region_that_others_lie_within_is_whole(tmp_path: Path) -> None:
    array = np.zeros((12, 12, 12), np.uint8)
    array[2:10, 2:10, 2:10], array[4:8, 4:8, 4:8] = 1, 2
    labels = (Label(1, "whole", (1, 1, 1), (1, 2)), Label(2, "core", (2, 2, 2)))
    whole, _ = write_meshes(Segmentation(array, np.eye(4), labels), tmp_path, smoothing=0)
    _, _, corners = read_stl(whole)
    assert np.linalg.det(corners).sum() / 6 == pytest.approx(8**3, rel=0.03)
    assert (np.abs(corners - LPS_TO_RAS[:3, :3] @ [5.5, 5.5, 5.5]).max(axis=2) > 2).all()


def test_three_hundred_labels_of_one_voxel_have_a_surface_each(tmp_path: Path) -> None:
    array = np.zeros((21, 21, 21), np.uint16)
    array[1::2, 1::2, 1::2].reshape(-1)[:] = 0
    places = np.argwhere(np.ones((7, 7, 7)))[:300] * 3
    array[tuple(places.T)] = np.arange(1, 301)
    names = [f"n{n}" for n in range(1, 301)]
    paths = write_meshes(Segmentation(array, np.eye(4), make_labels(names)), tmp_path)
    assert len(paths) == 300
    for place, path in zip(places, paths, strict=True):
        _, _, corners = read_stl(path)
        assert len(corners) == 8
        assert np.allclose(corners.mean(axis=(0, 1)), place * [-1, -1, 1], rtol=0, atol=1e-5)


def test_an_empty_mask_has_a_folder_without_surfaces(tmp_path: Path) -> None:
    empty = Segmentation(np.zeros((5, 6, 7), np.uint8), np.eye(4), make_labels(["a"]))
    assert write_meshes(empty, tmp_path / "meshes") == []
    assert list((tmp_path / "meshes").iterdir()) == []


def test_nothing_in_it_names_the_source(tmp_path: Path) -> None:
    segmentation = two(np.eye(4))
    source = Source(path=Path("/home/DOE^JANE/scan.nii"))
    named = Segmentation(segmentation.array, segmentation.affine, segmentation.labels, source)
    header, _, _ = read_stl(write_meshes(named, tmp_path)[0])
    assert header.rstrip() == b"binary STL of medseg; SPACE=LPS; UNIT=mm"


def test_pictures_are_refused(tmp_path: Path) -> None:
    flat = Segmentation(np.zeros((4, 5), np.uint8), np.eye(3), ())
    with pytest.raises(UsageError, match="3D volume"):
        write_meshes(flat, tmp_path / "meshes")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_of_a_surface(tiny_disk: Path) -> None:
    with pytest.raises(OutputError, match="space for left_right_lung") as caught:
        write_meshes(two(np.eye(4)), tiny_disk / "meshes")
    assert caught.value.code == "disk-full"
    assert list((tiny_disk / "meshes").iterdir()) == []
