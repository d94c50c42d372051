"""Settings over the configs of a bundle: taken as they are meant, or refused in a line."""

from pathlib import Path

import pytest

from medseg.bundle.overrides import merge_configs
from medseg.errors import BundleError


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("epochs: {{ number }}\n", "line 1 must be YAML.* Quote the text"),
        ("names: &all [*all]\n", "names#0 must be a value that does not hold itself"),
    ],
)
def test_a_config_that_cannot_be_read_is_refused_with_the_place(
    tmp_path: Path, text: str, place: str
) -> None:
    (tmp_path / "train.yaml").write_text(text)
    with pytest.raises(BundleError, match=rf"^train\.yaml {place}") as caught:
        merge_configs([tmp_path / "train.yaml"])
    assert caught.value.code == "bad-config"
