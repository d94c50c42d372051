"""The rules against what `get_plans_for_configuration` of nnU-Net 2.8.1 answers."""

import math

import numpy as np
import pytest

from medseg.planning.memory import features
from medseg.planning.normalization import scheme_for
from medseg.planning.patch import plan_patch
from medseg.planning.spacing import coarser, resampled_shape, target_spacing
from medseg.planning.topology import topology

ANSWERS = [
    # spacing, median shape, cases, classes, memory; patch, batch, poolings (of nnU-Net 2.8.1)
    ((1, 1, 1), (36, 50, 35), 260, 3, 8, (40, 56, 40), 9, (3, 3, 3)),
    ((2.5, 0.8, 0.8), (120, 512, 512), 100, 3, 8, (48, 224, 192), 2, (3, 5, 5)),
    ((5, 0.6, 0.6), (24, 400, 400), 100, 3, 8, (16, 320, 320), 2, (2, 6, 6)),
    ((1.5, 1.5, 1.5), (267, 341, 341), 300, 105, 8, (96, 128, 128), 2, (4, 5, 5)),
    ((1, 1, 1), (155, 240, 240), 400, 4, 24, (128, 224, 224), 2, (5, 5, 5)),
    ((0.8, 0.8), (512, 512), 100, 3, 8, (512, 512), 5, (7, 7)),
    ((3.6, 0.62, 0.62), (20, 320, 319), 32, 3, 8, (20, 320, 256), 2, (2, 6, 6)),
    ((1, 1, 1), (18, 20, 19), 30, 2, 8, (20, 20, 20), 2, (2, 2, 2)),
    ((0.5, 0.5), (256, 256), 20, 2, 4, (256, 256), 2, (6, 6)),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: "x".join(map(str, answer[1])))
def test_patch_batch_and_poolings_are_nnunets(answer: tuple) -> None:  # type: ignore[type-arg]
    spacing, median, cases, classes, memory, patch, batch, poolings = answer
    plan = plan_patch(
        spacing,
        median,
        dataset_voxels=math.prod(median) * cases,
        classes=classes,
        memory_gb=memory,
    )
    assert plan.topology.patch_size == patch
    assert plan.batch_size == batch
    assert plan.topology.poolings == poolings


def test_kernels_of_anisotropic_images_are_nnunets() -> None:
    found = topology((3.6, 0.62, 0.62), (20, 320, 256))
    assert found.kernels == ((1, 3, 3), (1, 3, 3), *[(3, 3, 3)] * 5)
    assert found.strides == (
        (1, 1, 1),
        (1, 2, 2),
        (1, 2, 2),
        (2, 2, 2),
        (2, 2, 2),
        (1, 2, 2),
        (1, 2, 2),
    )


def test_features_double_up_to_a_limit() -> None:
    assert features(7, 2) == (32, 64, 128, 256, 512, 512, 512)
    assert features(6, 3) == (32, 64, 128, 256, 320, 320)


@pytest.mark.parametrize("edge", range(4, 80, 7))
def test_the_patch_is_a_multiple_of_its_poolings_and_keeps_four_voxels(edge: int) -> None:
    found = topology((1, 1.3, 2.5), (edge, 2 * edge, 40))
    for size, wished, count in zip(
        found.patch_size, (edge, 2 * edge, 40), found.poolings, strict=True
    ):
        assert size >= wished
        assert size % 2**count == 0
        assert size // 2**count >= 4 or count == 0


def test_less_memory_never_makes_a_larger_patch() -> None:
    voxels = [
        math.prod(
            plan_patch(
                (1, 1, 1), (200, 200, 200), dataset_voxels=1e9, classes=3, memory_gb=memory
            ).topology.patch_size
        )
        for memory in (4, 8, 16, 32)
    ]
    assert voxels == sorted(voxels)


def test_isotropic_data_are_brought_to_the_median_spacing() -> None:
    spacing, coarse = target_spacing([(1, 1, 1), (1, 1, 2), (1, 1, 2.5)], [(90, 90, 50)] * 3)
    assert spacing == (1.0, 1.0, 2.0)
    assert coarse is None


def test_the_coarse_axis_of_anisotropic_data_gets_the_tenth_percentile() -> None:
    spacings = [(0.6, 0.6, z) for z in np.linspace(3, 7, 21)]
    spacing, coarse = target_spacing(spacings, [(320, 320, 20)] * 21)
    assert coarse == 2
    assert spacing[2] == pytest.approx(3.4)


def test_many_voxels_along_the_coarse_axis_are_no_anisotropy() -> None:
    spacings = [(0.6, 0.6, 5.0)] * 4
    assert target_spacing(spacings, [(100, 100, 60)] * 4) == ((0.6, 0.6, 5.0), None)


def test_the_coarse_axis_never_gets_finer_than_the_others() -> None:
    spacings = [(1, 1, 0.5)] * 2 + [(1, 1, 5.0)] * 8
    spacing, coarse = target_spacing(spacings, [(300, 300, 20)] * 10)
    assert coarse == 2
    assert spacing[2] >= 1.0


def test_a_low_resolution_makes_fine_axes_coarser_first() -> None:
    assert coarser((1.0, 1.0, 3.0)) == pytest.approx((1.03, 1.03, 3.0))
    assert coarser((1.0, 1.0, 1.5)) == pytest.approx((1.03, 1.03, 1.545))


def test_resampled_shapes_are_rounded() -> None:
    assert resampled_shape((35, 51, 35), (1, 1, 1), (2, 0.5, 1)) == (18, 102, 35)


def test_ct_is_clipped_and_others_are_not() -> None:
    numbers = {"mean": 99.0, "std": 40.0, "p00_5": -17.0, "p99_5": 201.0}
    scheme, _ = scheme_for("CT", numbers, 1.0)
    assert scheme == {"scheme": "ct", "low": -17.0, "high": 201.0, "mean": 99.0, "std": 40.0}
    assert scheme_for("MR", numbers, 1.0)[0] == {"scheme": "zscore", "nonzero": False}
    assert scheme_for("", numbers, 0.6)[0] == {"scheme": "zscore", "nonzero": True}
