"""Side-cars: what they record and what counts as the same file."""

from dataclasses import replace

import pytest

from coreimage.errors import DataError
from coreimage.systemimage.tree.pool import Recipe, SideCar, sidecar_path

RECIPE = Recipe(
    generator="cdimage-rootfs",
    generator_version=1,
    source="vivid-preinstalled-core-amd64.tar.gz",
    sha256="ab" * 32,
    settings={"xz": 1},
)


def test_a_side_car_reads_back() -> None:
    sidecar = SideCar(recipe=RECIPE, publication="p/s/d/20150511", version_detail="rootfs=20150511")
    assert SideCar.from_json(sidecar.to_json()) == sidecar


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"recipe": {"x": 1}}', "null"])
def test_a_malformed_side_car_is_a_data_error(text: str) -> None:
    with pytest.raises(DataError, match="side-car"):
        SideCar.from_json(text)


def test_a_renamed_input_is_the_same_input() -> None:
    assert replace(RECIPE, source="other.tar.gz").identity == RECIPE.identity


@pytest.mark.parametrize(
    "change",
    [{"generator_version": 2}, {"sha256": "cd" * 32}, {"settings": {"xz": 2}}, {"generator": "x"}],
)
def test_whatever_shapes_the_bytes_counts(change: dict[str, object]) -> None:
    assert replace(RECIPE, **change).identity != RECIPE.identity  # type: ignore[arg-type]


def test_the_path_of_a_side_car() -> None:
    assert sidecar_path("/pool/rootfs-00.tar.xz") == "/pool/rootfs-00.json"
