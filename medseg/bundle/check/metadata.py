"""Rules of the metadata: MONAI's schema and what the model zoo asks for beyond it."""

import re
from collections.abc import Iterator
from typing import Any

from medseg.bundle.check.documents import get, nodes_of
from medseg.bundle.check.fault import Fault, nearest, shown

METADATA = "configs/metadata.json"
FORMAT = "network_data_format"

SCHEMA_NAME = re.compile(r"meta_schema_(\d{8})\.json$")
SCHEMA_DATE = "20240725"

TYPES: dict[str, type] = {
    "schema": str, "version": str, "changelog": dict, "monai_version": str,
    "pytorch_version": str, "numpy_version": str, "required_packages_version": dict,
    "task": str, "description": str, "authors": str, "copyright": str, "data_source": str,
    "data_type": str, "image_classes": str, "label_classes": str, "pred_classes": str,
    "eval_metrics": dict, "intended_use": str, "references": list, "supported_apps": dict,
    "network_data_format": dict,
}  # fmt: skip
"""Fields of meta_schema_20240725 and their types."""

REQUIRED = (
    "schema", "version", "monai_version", "pytorch_version", "numpy_version",
    "required_packages_version", "task", "description", "authors", "copyright",
    "network_data_format",
)  # fmt: skip
"""Fields that meta_schema_20240725 requires."""

REQUIRED_BY_ZOO = ("changelog",)

REPLACED = {"required_packages_version": "optional_packages_version"}
"""Fields and what they were called before the schema of 2024."""

OWN_FIELDS = ("name", "medseg", "optional_packages_version", "license", "licence")
"""Further fields in use; the schema allows any."""

TENSOR_TYPES: dict[str, tuple[type, ...]] = {
    "type": (str,), "format": (str,), "num_channels": (int,), "spatial_shape": (list,),
    "dtype": (str,), "value_range": (list,), "is_patch_data": (bool,), "channel_def": (dict,),
}  # fmt: skip
TENSOR_REQUIRED = ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range")
TENSOR_FIELDS = (*TENSOR_TYPES, "modality")
"""Fields of an input or output of the network; `modality` is in MONAI's specification."""

DTYPES = (
    "float16",
    "float32",
    "float64",
    "bfloat16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "bool",
    "float",
    "double",
    "long",
    "int",
)

FIELD_HINTS = {
    "schema": "the URL of meta_schema_20240725.json",
    "version": '"0.1.0"',
    "changelog": 'changelog: {"0.1.0": "first version"}',
    "required_packages_version": 'required_packages_version: {"nibabel": "5.3.0", ...}',
    "network_data_format": '{"inputs": {"image": {...}}, "outputs": {"pred": {...}}}',
}

SEMANTIC_VERSION = re.compile(r"\d+\.\d+\.\d+(?:[-+.]?[0-9A-Za-z.-]+)?")


def check_metadata(metadata: dict[str, Any]) -> Iterator[Fault]:
    """Check the metadata without a schema file and offline.

    Args:
        metadata: Content of metadata.json.

    Yields:
        Faults `metadata-missing`, `metadata-type`, `empty-text`, `bad-schema`, `bad-version`,
        `version-not-in-changelog`; warnings `unknown-field` and `old-schema`.
    """
    yield from _schema(metadata)
    yield from _fields(metadata)
    yield from _versions(metadata)
    yield from _texts(metadata)
    for name, value in metadata.items():
        if name.endswith("_data_format") and isinstance(value, dict):
            yield from _network_format(name, value)


def _schema(metadata: dict[str, Any]) -> Iterator[Fault]:
    stated = metadata.get("schema")
    if not isinstance(stated, str) or not stated.strip():
        return
    match = SCHEMA_NAME.search(stated)
    rule = f"the URL of meta_schema_{SCHEMA_DATE}.json"
    if not match:
        do = f"write .../meta_schema_{SCHEMA_DATE}.json"
        yield Fault("bad-schema", METADATA, "schema", shown(stated), rule, do)
    elif match[1] < SCHEMA_DATE:
        do = f"name meta_schema_{SCHEMA_DATE}.json"
        for new, old in REPLACED.items():
            if old in metadata and new not in metadata:
                do += f", and rename {old} to {new}"
        place = (METADATA, "schema", shown(stated))
        yield Fault("old-schema", *place, rule, do, severity="warning")


def _is_replaced(metadata: dict[str, Any], name: str) -> bool:
    """Whether a field goes by its old name in a document of an old schema, which is told once."""
    match = SCHEMA_NAME.search(str(metadata.get("schema")))
    return match is not None and match[1] < SCHEMA_DATE and REPLACED.get(name) in metadata


def _fields(metadata: dict[str, Any]) -> Iterator[Fault]:
    for name in (*REQUIRED, *REQUIRED_BY_ZOO):
        if name not in metadata and not _is_replaced(metadata, name):
            similar = nearest(name, [other for other in metadata if other not in TYPES])
            do = f"rename {similar}" if similar else f"add {FIELD_HINTS.get(name, name)}"
            yield Fault(
                "metadata-missing",
                METADATA,
                name,
                "(none)",
                f"the field {name} ({TYPES[name].__name__})",
                do,
            )
    for name, value in metadata.items():
        wanted = TYPES.get(name)
        if wanted and not isinstance(value, wanted):
            yield _type(name, value, wanted.__name__)
        elif not wanted and name not in OWN_FIELDS and not name.endswith("_data_format"):
            meant = nearest(name, (*TYPES, *OWN_FIELDS))
            if meant and meant not in metadata and meant not in REQUIRED:
                yield Fault(
                    "unknown-field",
                    METADATA,
                    name,
                    shown(value),
                    "fields of MONAI's schema",
                    f"write {meant}",
                    severity="warning",
                )


def _type(key: str, value: Any, wanted: str) -> Fault:
    return Fault(
        "metadata-type",
        METADATA,
        key,
        shown(value),
        f"a value of type {wanted}",
        f"write {key.rpartition('#')[2]} as {wanted}",
    )


def _versions(metadata: dict[str, Any]) -> Iterator[Fault]:
    version, changelog = metadata.get("version"), metadata.get("changelog")
    changelog = changelog if isinstance(changelog, dict) else None
    stated = [("version", version)]
    stated += [(f"{n}_version", metadata.get(f"{n}_version")) for n in _LIBRARIES]
    stated += [(f"changelog#{name}", name) for name in changelog or ()]
    packages = metadata.get("required_packages_version")
    if isinstance(packages, dict):
        stated += [(f"required_packages_version#{name}", value) for name, value in packages.items()]
    for key, value in stated:
        if isinstance(value, str) and value and not SEMANTIC_VERSION.fullmatch(value):
            is_package = key.startswith("required_packages_version")
            yield Fault(
                "bad-version",
                METADATA,
                key,
                shown(value),
                "a version of three numbers, as 1.2.3",
                f"write {_three_parts(value)}",
                severity="warning" if is_package else "error",
            )
    if isinstance(version, str) and changelog is not None and version not in changelog:
        yield Fault(
            "version-not-in-changelog",
            METADATA,
            "version",
            version,
            f"a version that changelog explains: {', '.join(changelog) or 'none'}",
            f'add "{version}": "what changed" to changelog',
        )


_LIBRARIES = ("monai", "pytorch", "numpy")


def _three_parts(version: str) -> str:
    numbers = re.findall(r"\d+", version)[:3]
    return ".".join([*numbers, "0", "0", "0"][:3])


def _texts(metadata: dict[str, Any]) -> Iterator[Fault]:
    for key, value in nodes_of(metadata):
        if isinstance(value, str) and not value.strip():
            name = key.rpartition("#")[2]
            yield Fault(
                "empty-text",
                METADATA,
                key,
                '""',
                "text that says something",
                f"fill in {name}, or remove it where it is not required",
            )


def _network_format(key: str, value: dict[str, Any]) -> Iterator[Fault]:
    for side in ("inputs", "outputs", "post_processed_outputs"):
        place = f"{key}#{side}"
        if side not in value:
            if side in ("inputs", "outputs"):
                yield Fault(
                    "metadata-missing",
                    METADATA,
                    place,
                    "(none)",
                    f"the field {side}",
                    f"add what the network {'takes' if side == 'inputs' else 'gives'}",
                )
            continue
        if not isinstance(value[side], dict):
            yield _type(place, value[side], "dict")
            continue
        for name, tensor in value[side].items():
            if isinstance(tensor, dict):
                yield from _tensor(f"{place}#{name}", tensor)
            elif not isinstance(tensor, int | float | str):
                yield _type(f"{place}#{name}", tensor, "dict")
    for side in set(value) - {"inputs", "outputs", "post_processed_outputs"}:
        meant = nearest(side, ("inputs", "outputs", "post_processed_outputs"))
        do = f"write {meant}" if meant else f"remove {side}"
        yield Fault(
            "unknown-field",
            METADATA,
            f"{key}#{side}",
            shown(value[side]),
            "inputs, outputs or post_processed_outputs",
            do,
        )


def check_names_of_tensors(metadata: dict[str, Any]) -> Iterator[Fault]:
    """Check that the tensors go by the names that MONAI's commands and medseg look for.

    Args:
        metadata: Content of metadata.json.

    Yields:
        Faults `metadata-missing`.
    """
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        tensors = get(metadata, f"{FORMAT}#{side}")
        if isinstance(tensors, dict) and name not in tensors:
            others = ", ".join(map(str, tensors))
            yield Fault(
                "metadata-missing",
                METADATA,
                f"{FORMAT}#{side}#{name}",
                f"(none beside {others})" if others else "(none)",
                f"the field {name}, which verify_net_in_out and medseg look for",
                f"rename {others}" if len(tensors) == 1 else f"add {name}",
            )


def _tensor(place: str, tensor: dict[str, Any]) -> Iterator[Fault]:
    for name in TENSOR_REQUIRED:
        if name not in tensor:
            similar = nearest(name, [other for other in tensor if other not in TENSOR_FIELDS])
            yield Fault(
                "metadata-missing",
                METADATA,
                f"{place}#{name}",
                "(none)",
                f"the field {name}",
                f"rename {similar}" if similar else f"add {name}",
            )
    for name, value in tensor.items():
        wanted = TENSOR_TYPES.get(name)
        if wanted and (
            not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted)
        ):
            yield _type(f"{place}#{name}", value, wanted[0].__name__)
        elif name not in TENSOR_FIELDS:
            meant = nearest(name, TENSOR_FIELDS)
            yield Fault(
                "unknown-field",
                METADATA,
                f"{place}#{name}",
                shown(value),
                shown(f"one of {', '.join(TENSOR_FIELDS)}"),
                f"write {meant}" if meant else f"remove {name}",
                severity="warning",
            )
    yield from _tensor_values(place, tensor)


def _tensor_values(place: str, tensor: dict[str, Any]) -> Iterator[Fault]:
    dtype, shape, limits = (tensor.get(name) for name in ("dtype", "spatial_shape", "value_range"))
    if isinstance(dtype, str) and dtype and dtype not in DTYPES:
        meant = nearest(dtype, DTYPES)
        yield Fault(
            "metadata-type",
            METADATA,
            f"{place}#dtype",
            dtype,
            shown(f"one of {', '.join(DTYPES)}"),
            f"write {meant or 'float32'}",
        )
    for index, size in enumerate(shape if isinstance(shape, list) else []):
        is_pattern = isinstance(size, str) and re.fullmatch(r"[\d\s*pn+/()-]+", size)
        if not is_pattern and (not isinstance(size, int) or isinstance(size, bool)):
            yield Fault(
                "metadata-type",
                METADATA,
                f"{place}#spatial_shape#{index}",
                shown(size),
                "a number, or a rule such as '*', '16*n' or '2**p'",
                "write the size of a patch in voxels",
            )
    if isinstance(limits, list) and not _is_range(limits):
        yield Fault(
            "metadata-type",
            METADATA,
            f"{place}#value_range",
            shown(limits),
            "two numbers, the lower one first; or none",
            "write for example [0, 1]",
        )


def _is_range(limits: list[Any]) -> bool:
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in limits):
        return False
    return not limits or (len(limits) == 2 and limits[0] <= limits[1])
