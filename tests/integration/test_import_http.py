"""Files of images from web servers, and the reasons to trust them."""

import hashlib
import os
from pathlib import Path

import pytest

from coreimage.config import Workspace
from coreimage.errors import (
    CoreImageError,
    DataError,
    NotFoundError,
    TrustError,
    UnavailableError,
)
from coreimage.lib import fetch, files, run
from tests.integration import liar
from tests.integration.import_sources import (  # noqa: F401  fixtures are found by their names
    Import,
    content,
    gpg_fixture,
    ready_fixture,
    refused,
    run_import_fixture,
    sign_sums,
    vendor_fixture,
    web_fixture,
    www_fixture,
)
from tests.integration.liar import Liar
from tests.support.foreign_keys import ForeignGpg


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between attempts."""
    monkeypatch.setattr(fetch, "_pause", lambda *_: None)


def shop(web: Liar, **more: str) -> dict[str, str]:
    url = f"{web.url}/shop-1.0.tar.gz"
    return {"generator": "http", "name": "shop", "url": url, **more}


def test_a_file_by_its_digest(ready: Workspace, run_import: Import, web: Liar, www: Path) -> None:
    feed = shop(web, sha256=files.sha256_of(www / "shop-1.0.tar.gz"))
    result = run_import(feed)
    assert content(ready, result, "shop", "system/opt/shop") == b"1.0"
    asked = len(web.requests)
    assert not run_import(feed).changed
    assert len(web.requests) == asked  # it is known without asking
    web.lies["/shop-1.0.tar.gz"] = liar.flipped
    other = shop(web, sha256="0" * 64)
    refused(ready, TrustError, "is not what was signed", lambda: run_import(other))


@pytest.mark.usefixtures("vendor")
def test_a_monitored_file_by_a_signed_list(
    ready: Workspace, run_import: Import, web: Liar, www: Path, gpg: ForeignGpg
) -> None:
    sign_sums(gpg, www)
    gpg.sign(www / "shop.version", www / "shop.version.gpg", "--local-user", "vendor")
    feed = {
        "generator": "http",
        "name": "shop",
        "url": f"{web.url}/shop-{{version}}.tar.gz",
        "monitor": f"{web.url}/shop.version",
        "sha256sums": f"{web.url}/SHA256SUMS",
        "keyring": "keys/vendor.asc",
    }
    first = run_import(feed)
    assert first.image.version_detail == "shop=1.0,version=1"
    asked = [path for path, _ in web.requests].count("/shop-1.0.tar.gz")
    assert not run_import(feed).changed
    assert [path for path, _ in web.requests].count("/shop-1.0.tar.gz") == asked == 1
    (www / "shop.version").write_text("1.1\n")
    refused(ready, TrustError, "shop.version", lambda: run_import(feed))
    (www / "shop.version.gpg").unlink()
    gpg.sign(www / "shop.version", www / "shop.version.gpg", "--local-user", "vendor")
    second = run_import(feed)
    assert second.image.version_detail == "shop=1.1,version=2"
    assert content(ready, second, "shop", "system/opt/shop") == b"1.1"
    (www / "SHA256SUMS.gpg").unlink()
    sign_sums(gpg, www, by="stranger")
    refused(ready, TrustError, "SHA256SUMS", lambda: run_import(feed))


@pytest.mark.usefixtures("vendor")
def test_a_file_by_its_own_signature(
    ready: Workspace, run_import: Import, web: Liar, www: Path, gpg: ForeignGpg
) -> None:
    path = www / "shop-1.0.tar.gz"
    gpg.sign(path, www / "shop.sig", "--local-user", "vendor")
    feed = shop(web, signature=f"{web.url}/shop.sig", keyring="keys/vendor.asc")
    assert run_import(feed).changed
    assert not run_import(feed).changed
    path.write_bytes((www / "shop-1.1.tar.gz").read_bytes())
    refused(ready, TrustError, "data was changed", lambda: run_import(feed))


def test_a_file_by_the_certificate_of_its_server(
    ready: Workspace,
    run_import: Import,
    www: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENSSL_CONF", os.devnull)
    key, pem, both = (tmp_path / name for name in ("key.pem", "cert.pem", "both.pem"))
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test"]
    extensions = ["-addext", "subjectAltName=IP:127.0.0.1"]
    run.run([*argv, *extensions, "-keyout", key, "-out", pem])
    both.write_text(pem.read_text() + key.read_text())
    with liar.serving(www, certificate=both) as web, liar.serving(www) as plain:
        feed = shop(web, trust="tls", monitor=f"{web.url}/shop.version")
        refused(ready, UnavailableError, "certificate", lambda: run_import(feed))
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        result = run_import(feed)
        assert result.image.version_detail == "shop=1.0,version=1"
        assert not run_import(feed).changed
        web.lies["/shop-1.0.tar.gz"] = liar.redirect(f"{plain.url}/shop-1.1.tar.gz")
        refused(ready, UnavailableError, "which is refused", lambda: run_import(feed))


@pytest.mark.parametrize(
    "lie", [liar.failing, liar.hidden_longer, liar.redirect("file:///etc/fstab")]
)
def test_servers_that_fail_or_lie(
    ready: Workspace,
    run_import: Import,
    web: Liar,
    www: Path,
    lie: liar.Behaviour,
) -> None:
    web.lies["/shop-1.0.tar.gz"] = lie
    feed = shop(web, sha256=files.sha256_of(www / "shop-1.0.tar.gz"))
    refused(ready, CoreImageError, "shop-1.0", lambda: run_import(feed))


def test_an_endless_file_ends_at_its_limit(ready: Workspace, run_import: Import, web: Liar) -> None:
    web.lies["/shop-1.0.tar.gz"] = liar.endless
    feed = {**shop(web, sha256="0" * 64), "max_size": 3 << 20}
    refused(ready, UnavailableError, "is longer than 3145728 bytes", lambda: run_import(feed))


def test_a_file_that_is_no_tarball(
    ready: Workspace, run_import: Import, web: Liar, www: Path
) -> None:
    (www / "shop-1.0.tar.gz").write_bytes(b"<html>404</html>")
    feed = shop(web, sha256=hashlib.sha256(b"<html>404</html>").hexdigest())
    refused(ready, DataError, "is not compressed", lambda: run_import(feed))


def test_an_absent_file(ready: Workspace, run_import: Import, web: Liar) -> None:
    feed = {**shop(web, sha256="0" * 64), "url": f"{web.url}/absent.tar.gz"}
    refused(ready, NotFoundError, r"absent\.tar\.gz", lambda: run_import(feed))


def test_a_monitor_that_holds_a_page(
    ready: Workspace, run_import: Import, web: Liar, www: Path
) -> None:
    (www / "shop.version").write_text("<html>\nlogin</html>\n")
    feed = shop(web, sha256="0" * 64, monitor=f"{web.url}/shop.version")
    found = refused(ready, DataError, "does not hold one version", lambda: run_import(feed))
    assert "such as 1.2-3" in found.hint
