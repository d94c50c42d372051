"""Standard codes for the names of structures, for DICOM objects that want one for each.

Codes and meanings are those of SNOMED CT in DICOM PS3.16 as pydicom ships them. What is written
here is how people name structures.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medseg.volume import Concept, Label

PRIVATE_SCHEME = "99MEDSEG"
"""Coding scheme of structures that have no standard code."""

LATERALITIES = {"left": "Left", "right": "Right"}
"""Word of a name to the keyword of its code."""

LESIONS = {
    "abscess": "Abscess", "cyst": "Cyst", "edema": "Edema", "hemorrhage": "Hemorrhage",
    "lesion": "Lesion", "mass": "Mass", "metastasis": "NeoplasmSecondary", "necrosis": "Necrosis",
    "neoplasm": "Neoplasm", "nodule": "Nodule", "tumor": "Neoplasm", "cancer": "Neoplasm",
}  # fmt: skip
"""Last word of a name that says what is wrong with the structure before it."""

NAMES = {
    "adrenal": "AdrenalGland",
    "autochthon": "ErectorSpinaeMuscle",
    "body": "BodyStructure",
    "brachiocephalic trunk": "BrachiocephalicTrunk",
    "brachiocephalic vein": "BrachiocephalicVein",
    "brainstem": "BrainStem",
    "clavicula": "Clavicle",
    "csf": "CerebrospinalFluid",
    "iliac artery": "CommonIliacArtery",
    "iliac vein": "CommonIliacVein",
    "iliac vena": "CommonIliacVein",
    "large bowel": "LargeIntestine",
    "lung lower lobe": "LowerLobeOfLung",
    "lung middle lobe": "MiddleLobeOfRightLung",
    "lung upper lobe": "UpperLobeOfLung",
    "lv": "LeftVentricle",
    "muscle": "MuscleTissue",
    "oesophagus": "Esophagus",
    "rv": "RightVentricle",
    "skeletal muscle": "MuscleTissue",
    "small bowel": "SmallIntestine",
    "thyroid gland": "Thyroid",
    "spine": "StructureOfVertebralColumn",
    "subcutaneous fat": "SubcutaneousTissue",
    "urinary bladder": "UrinaryBladderStructure",
    "vessel": "BloodVessel",
}
"""Names that are no meaning of a code themselves, to the keyword of the code; American spelling."""

NO_TISSUES = frozenset({"Artery", "BloodVessel", "LymphNode", "Nerve", "Organ", "Vein"})
"""Kinds of CID 7166, tissues, that are structures of their own."""

SPELLINGS = (
    (r"tumou?rs?$", "tumor"), (r"oesophag", "esophag"), (r"oedema", "edema"),
    (r"haemorrhage", "hemorrhage"), (r"\bgrey\b", "gray"), (r"^metastases$", "metastasis"),
    (r"^vertebrae? ([cltCLT]\d+)$", r"\1 vertebra"), (r"\btumou?rs?\b", "tumor"),
)  # fmt: skip


@dataclass(frozen=True)
class StructureCode:
    """What a structure is, in codes.

    Attributes:
        category: Of CID 7150: anatomical structure, morphologically abnormal structure, tissue ...
        kind: The structure itself.
        laterality: Left or right, where the name says it.
        region: Where a lesion lies, where the name says it.
    """

    category: Code
    kind: Code
    laterality: Code | None = None
    region: Code | None = None

    @property
    def is_private(self) -> bool:
        """Whether no standard code is known."""
        return self.kind.scheme_designator == PRIVATE_SCHEME


def code_of_label(label: Label) -> StructureCode:
    """Return the codes of a label: those that its bundle states, else by its name.

    Args:
        label: The label.

    Returns:
        Its codes; which side it is on, its name decides, unless the code's meaning says so.

    Examples:
        >>> from medseg.volume import Concept
        >>> spleen = Concept("78961009", "SCT", "Spleen")
        >>> code_of_label(Label(1, "Milz", (9, 9, 9), code=spleen)).kind.meaning
        'Spleen'
    """
    by_name = code_of(label.name)
    if label.code is None:
        return by_name
    kind = _code(label.code)
    if (kind.value, kind.scheme_designator) == (
        by_name.kind.value,
        by_name.kind.scheme_designator,
    ):
        known = by_name
    else:
        keyword = _keyword_of_value().get(kind.value) if kind.scheme_designator == "SCT" else None
        category = _category(keyword) if keyword else codes.SCT.AnatomicalStructure
        known = StructureCode(category, kind, _side(label))
    category = known.category if label.category is None else _code(label.category)
    return replace(known, category=category, kind=kind)


def _code(concept: Concept) -> Code:
    return Code(concept.value, concept.scheme, concept.meaning)


def _side(label: Label) -> Code | None:
    """Return on which side a label is, where its name says so and the meaning of its code not."""
    words = re.sub(r"[^\w]+|_", " ", label.name).casefold().split()
    sides = [word for word in words if word in LATERALITIES]
    meaning = label.code.meaning.casefold() if label.code else ""
    if len(sides) != 1 or sides[0] in meaning:
        return None
    side: Code = getattr(codes.SCT, LATERALITIES[sides[0]])
    return side


def code_of(name: str) -> StructureCode:
    """Return the codes of a structure by its name.

    Args:
        name: As a bundle names it: `liver`, `kidney_left`, `liver tumour`, `vertebrae_L1`.

    Returns:
        Its codes; a private one, made of the name, where none is known.

    Examples:
        >>> code_of("kidney_left").kind.meaning, code_of("kidney_left").laterality.meaning
        ('Kidney', 'Left')
        >>> code_of("liver tumour").kind.value, code_of("liver tumour").region.meaning
        ('108369006', 'Liver')
        >>> code_of("no such thing").is_private
        True
    """
    words = re.sub(r"[^\w]+|_", " ", name).casefold().split()
    sides = [word for word in words if word in LATERALITIES]
    side = sides[0] if len(sides) == 1 else ""
    whole = _found(words)
    if whole is None and side:  # `left ventricle` has a code of its own, `left kidney` has none
        whole = _found([word for word in words if word != side])
    else:
        side = "" if whole is not None else side
    laterality = getattr(codes.SCT, LATERALITIES[side]) if side and whole is not None else None
    if whole is not None:
        return StructureCode(_category(whole), getattr(codes.SCT, whole), laterality)
    rest = [word for word in words if word != side]
    lesion = LESIONS.get(_spelt(rest[-1:]))
    where = _found(rest[:-1]) if lesion else None
    if lesion and where:
        return StructureCode(
            codes.SCT.MorphologicallyAbnormalStructure,
            getattr(codes.SCT, lesion),
            getattr(codes.SCT, LATERALITIES[side]) if side else None,
            getattr(codes.SCT, where),
        )
    digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:12].upper()
    private = Code(
        value=f"M{digest}", scheme_designator=PRIVATE_SCHEME, meaning=name[:64] or "none"
    )
    return StructureCode(codes.SCT.AnatomicalStructure, private)


def _spelt(words: Sequence[str]) -> str:
    """Return words in American spelling and the singular that codes have."""
    text = " ".join(words)
    for pattern, replacement in SPELLINGS:
        text = re.sub(pattern, replacement, text)
    return text


def _found(words: Sequence[str]) -> str | None:
    """Return the keyword of the code that words name."""
    text = _spelt(words)
    if not text:
        return None
    known = NAMES.get(text) or LESIONS.get(text)
    if known is not None:
        return known
    joined = text.replace(" ", "")
    table = _keywords()
    return table.get(joined) or table.get(joined.removesuffix("s"))


@cache
def _keywords() -> dict[str, str]:
    """Keywords of the kinds of segments of CID 7151, by the keyword in lower case."""
    named = {keyword.casefold(): keyword for keyword in codes.cid7151.dir()}
    return {name: keyword for name, keyword in named.items() if keyword in _snomed()}


@cache
def _keyword_of_value() -> dict[str, str]:
    """Keywords of lesions and of the kinds of segments of CID 7151, by the value of the code."""
    known = {*LESIONS.values(), *_keywords().values()}
    return {getattr(codes.SCT, keyword).value: keyword for keyword in known}


@cache
def _snomed() -> frozenset[str]:
    return frozenset(codes.SCT.dir())


@cache
def _group(number: int) -> frozenset[str]:
    return frozenset(getattr(codes, f"cid{number}").dir())


def _category(keyword: str) -> Code:
    category = "AnatomicalStructure"
    if keyword in _group(7159):
        category = "MorphologicallyAbnormalStructure"
    elif keyword in _group(7166) - NO_TISSUES:
        category = "Tissue"
    elif keyword in _group(7157):
        category = "PhysicalObject"
    code: Code = getattr(codes.SCT, category)
    return code
