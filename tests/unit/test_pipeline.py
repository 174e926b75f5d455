from pathlib import Path

import pytest

from coreimage.config import Settings, Workspace
from coreimage.errors import DataError, IncompleteError, NotFoundError, TrustError
from coreimage.feeds import ChannelSettings, PublishedFeed
from coreimage.lib.progress import Silent
from coreimage.pipeline import importing, road

PUBLISHED = "www/cdimage/debian-core/trixie/daily-preinstalled/20261123"


def waiting_for_good(root: Path) -> Workspace:
    channel = ChannelSettings(project="debian-core", release="13", accept="good")
    return Workspace(root=root, settings=Settings(channels={"debian-core/13/stable": channel}))


def test_a_channel_whose_publication_is_not_marked_good_is_left_out(tmp_path: Path) -> None:
    (tmp_path / PUBLISHED).mkdir(parents=True)
    assert road.advance(waiting_for_good(tmp_path), progress=Silent()) == {}


def test_a_channel_without_any_publication_is_left_out(tmp_path: Path) -> None:
    assert road.advance(waiting_for_good(tmp_path), progress=Silent()) == {}


def test_a_channel_takes_series_and_product_from_its_definition(tmp_path: Path) -> None:
    own = tmp_path / "definitions/kiosk"
    own.mkdir(parents=True)
    (own / "definition.toml").write_text(
        'name = "kiosk"\ntitle = "Kiosk"\nextends = "debian-core"\nproduct = "kiosk"\n'
    )
    workspace = Workspace(root=tmp_path, settings=Settings())
    settings = importing.channel_settings(workspace, "kiosk/13/edge")
    found = [each for each in settings.files if isinstance(each, PublishedFeed)]
    assert [(each.series, each.product) for each in found] == [("trixie", "kiosk")] * 2


def test_a_channel_that_is_not_configured_needs_a_name_of_three_parts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'edge' is not configured"):
        importing.channel_settings(Workspace(root=tmp_path, settings=Settings()), "edge")


@pytest.mark.parametrize("channel", ["edge", "debian-core/13/stable"])
def test_an_architecture_that_no_device_has_is_refused_before_it_is_built(
    tmp_path: Path, channel: str
) -> None:
    with pytest.raises(NotFoundError, match="has no device of architecture 'arm64'") as caught:
        road.run_road(
            waiting_for_good(tmp_path),
            project="debian-core",
            release="13",
            arch="arm64",
            channel=channel,
            force=False,
            progress=Silent(),
        )
    line = 'devices = { generic_amd64 = "amd64", generic_arm64 = "arm64" }'
    assert caught.value.hint.startswith(f"write {line} below [channels.")
    assert not (tmp_path / "state").exists()


def test_a_channel_that_fails_does_not_keep_the_others_from_theirs() -> None:
    failures = {"a": TrustError("bad"), "b": TrustError("bad, too")}
    assert road._complaint({"a": failures["a"]}, {}) is failures["a"]
    assert road._complaint(failures, {}).exit_code == TrustError.exit_code
    some = road._complaint(failures, {"c": {}})
    assert isinstance(some, IncompleteError)
    assert "'a', 'b': bad" in some.message
