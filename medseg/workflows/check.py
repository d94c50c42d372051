"""Find every fault of a bundle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundle import find_bundle
from medseg.bundle.check import Fault, Inapplicable, check_bundle, inapplicable_to

SCHEMA = 1

WRONG = 2
"""Exit code for a bundle with errors: nothing that needs it can be started."""


@dataclass(frozen=True)
class CheckResult:
    """The faults of one bundle.

    Attributes:
        root: The bundle's folder.
        faults: Its faults, errors first.
        inapplicable: Commands that a bundle of this kind cannot be given to; no faults.
    """

    root: Path
    faults: tuple[Fault, ...]
    inapplicable: tuple[Inapplicable, ...] = ()

    @property
    def errors(self) -> int:
        """Number of errors."""
        return sum(fault.severity == "error" for fault in self.faults)

    @property
    def warnings(self) -> int:
        """Number of warnings."""
        return len(self.faults) - self.errors

    @property
    def exit_code(self) -> int:
        """0, or 2 when there are errors."""
        return WRONG if self.errors else 0

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        error = None
        if self.errors:
            codes = sorted({fault.code for fault in self.faults if fault.severity == "error"})
            message = f"{self.root.name} has {self.errors} errors: {', '.join(codes)}"
            error = {"code": "bundle-faults", "message": message}
        return {
            "schema": SCHEMA,
            "error": error,
            "bundle": {"name": self.root.name, "root": str(self.root)},
            "errors": self.errors,
            "warnings": self.warnings,
            "problems": [fault.as_json() for fault in self.faults],
            "does_not_apply": [one.as_json() for one in self.inapplicable],
        }


def check(name: str) -> CheckResult:
    """Check a bundle, offline and without running anything of it.

    Args:
        name: Folder or name of a bundle; of a folder nothing is expected.

    Returns:
        All its faults.

    Raises:
        BundleError: If there is neither such a folder nor such a name.
    """
    root = Path(name)
    root = root.resolve() if root.is_dir() else find_bundle(name)
    return CheckResult(root, tuple(check_bundle(root)), inapplicable_to(root))
