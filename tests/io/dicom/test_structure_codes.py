import pytest

from medseg.io.dicom.structure_codes import LESIONS, NAMES, _snomed, code_of, code_of_label
from medseg.volume import Concept, Label


def test_every_keyword_of_the_tables_is_a_code_that_there_is() -> None:
    assert {*NAMES.values(), *LESIONS.values()} <= _snomed()


@pytest.mark.parametrize(
    ("name", "value", "side", "region", "category"),
    [
        ("liver", "10200004", None, None, "Anatomical Structure"),
        ("Liver", "10200004", None, None, "Anatomical Structure"),
        ("kidney_left", "64033007", "Left", None, "Anatomical Structure"),
        ("Right Kidney", "64033007", "Right", None, "Anatomical Structure"),
        ("left ventricle", "87878005", None, None, "Anatomical Structure"),
        ("vertebrae_L5", "49668003", None, None, "Anatomical Structure"),
        ("lung_upper_lobe_left", "45653009", "Left", None, "Anatomical Structure"),
        ("oesophagus", "32849002", None, None, "Anatomical Structure"),
        ("tumour", "108369006", None, None, "Morphologically Abnormal Structure"),
        ("tumors", "108369006", None, None, "Morphologically Abnormal Structure"),
        ("liver tumour", "108369006", None, "Liver", "Morphologically Abnormal Structure"),
        ("kidney_cyst_left", "367643001", "Left", "Kidney", "Morphologically Abnormal Structure"),
        ("oedema", "79654002", None, None, "Morphologically Abnormal Structure"),
        ("subcutaneous_fat", "71966008", None, None, "Tissue"),
    ],
)
def test_names_have_the_codes_of_the_standard(
    name: str, value: str, side: str | None, region: str | None, category: str
) -> None:
    found = code_of(name)
    assert (found.kind.value, found.kind.scheme_designator) == (value, "SCT")
    assert (found.laterality.meaning if found.laterality else None) == side
    assert (found.region.meaning if found.region else None) == region
    assert found.category.meaning == category
    assert not found.is_private


@pytest.mark.parametrize(
    "name", ["Anterior", "core", "left right kidney x", "été", "1", "_", "x" * 99]
)
def test_other_names_have_private_codes_of_their_own(name: str) -> None:
    found = code_of(name)
    assert found.is_private
    assert len(found.kind.value) <= 16  # what a CodeValue may have
    assert len(found.kind.meaning) <= 64
    assert found.kind.value == code_of(name.upper()).kind.value
    assert found.kind.value != code_of(f"{name} b").kind.value


KIDNEY = Concept("64033007", "SCT", "Kidney")
LEFT_LUNG = Concept("44029006", "SCT", "Left lung")
ABSCESS = Concept("44132006", "SCT", "Abscess")
OWN = Concept("X1", "99OWN", "Own thing")


@pytest.mark.parametrize(
    ("name", "stated", "side", "category"),
    [
        ("kidney_left", KIDNEY, "Left", "Anatomical Structure"),
        ("Niere left", KIDNEY, "Left", "Anatomical Structure"),
        ("Lunge left", LEFT_LUNG, None, "Anatomical Structure"),
        ("Eiter", ABSCESS, None, "Morphologically Abnormal Structure"),
        ("thing", OWN, None, "Anatomical Structure"),
    ],
)
def test_what_a_bundle_states_goes_before_the_name(
    name: str, stated: Concept, side: str | None, category: str
) -> None:
    found = code_of_label(Label(1, name, (1, 2, 3), code=stated))
    kind = found.kind
    assert (kind.value, kind.scheme_designator, kind.meaning) == tuple(stated)
    assert (found.laterality.meaning if found.laterality else None) == side
    assert found.category.meaning == category
    assert not found.is_private
    tissue = Concept("85756007", "SCT", "Tissue")
    found = code_of_label(Label(1, name, (1, 2, 3), code=stated, category=tissue))
    assert found.category.meaning == "Tissue"


def test_a_label_without_a_code_has_that_of_its_name() -> None:
    assert code_of_label(Label(1, "liver tumour", (1, 2, 3))) == code_of("liver tumour")
