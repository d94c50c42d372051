"""Find, load and build MONAI bundles."""

from medseg.bundle.find import find_bundle, list_bundles, search_path
from medseg.bundle.load import Bundle, InputRule, load_bundle

__all__ = ["Bundle", "InputRule", "find_bundle", "list_bundles", "load_bundle", "search_path"]
