"""A real server in a process of its own, on a port of this machine."""

import http.client
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from coreimage.lib import run

BIG = 64 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pool = tmp_path / "www/system-image/pool"
    pool.mkdir(parents=True)
    (tmp_path / "coreimage.toml").write_text("")
    (tmp_path / "www/system-image/channels.json").write_text("{}")
    with (pool / "big.tar.xz").open("wb") as file:
        file.truncate(BIG)
    return tmp_path


def argv(root: Path, *options: str) -> list[str]:
    command = [sys.executable, "-m", "coreimage", "serve", "--workspace", str(root)]
    return [*command, "--port", "0", *options]


@contextmanager
def serving(root: Path, *options: str) -> Iterator[tuple[run.Process[bytes], str, int]]:
    """Yield a server's process, its host and its port; it is asked to stop at the end."""
    with run.start(argv(root, *options), stdout=run.PIPE) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            assert line.startswith(f"serving {root} at http://127.0.0.1:")
            url = urlsplit(line.split()[-1])
            assert url.hostname is not None
            assert url.port is not None
            yield process, url.hostname, url.port
        finally:
            run.terminate(process)


def resident_bytes(process: run.Process[bytes]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def open_names(process: run.Process[bytes]) -> set[str]:
    names = set()
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            names.add(descriptor.readlink().name)
    return names


def test_head_then_get_on_one_connection(root: Path) -> None:
    with serving(root) as (_, host, port), closing(http.client.HTTPConnection(host, port)) as http_:
        for method, body in (("HEAD", b""), ("GET", b"{}"), ("GET", b"{}")):
            http_.request(method, "/channels.json")
            answer = http_.getresponse()
            assert answer.status == 200
            assert answer.getheader("content-length") == "2"
            assert answer.read() == body


def test_paths_as_clients_should_not_send_them(root: Path) -> None:
    with serving(root) as (_, host, port):
        for target in (
            "/../coreimage.toml",
            "/%2e%2e/coreimage.toml",
            "/..%2f..%2fcoreimage.toml",
            "/pool/../../../coreimage.toml",
            "//etc/passwd",
            "http://127.0.0.1/channels.json",
            "/channels.json%00",
            "/channels.json%0a",
            "/%",
        ):
            with socket.create_connection((host, port), 10) as connection:
                connection.sendall(
                    f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
                )
                answer = connection.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 404 "), target
            assert answer.endswith(b"\r\n\r\nnot found\n")


def test_big_files_in_constant_memory(root: Path) -> None:
    with serving(root) as (process, host, port):
        before = resident_bytes(process)
        counts = []

        def download() -> None:
            with closing(http.client.HTTPConnection(host, port)) as connection:
                connection.request("GET", "/pool/big.tar.xz")
                answer = connection.getresponse()
                counts.append(sum(len(chunk) for chunk in iter(lambda: answer.read(1 << 20), b"")))

        threads = [threading.Thread(target=download) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert counts == [BIG] * 4
        assert resident_bytes(process) - before < BIG // 2


def test_a_client_that_leaves_is_forgotten(root: Path) -> None:
    with serving(root) as (process, host, port):
        for _ in range(5):
            with socket.create_connection((host, port), 10) as connection:
                connection.sendall(b"GET /pool/big.tar.xz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        with closing(http.client.HTTPConnection(host, port)) as connection:
            for _ in range(1000):
                connection.request("GET", "/channels.json")
                connection.getresponse().read()
                if "big.tar.xz" not in open_names(process):
                    return
        pytest.fail("the file is still open")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_also_while_somebody_downloads(
    root: Path, number: signal.Signals
) -> None:
    with serving(root) as (process, host, port), socket.create_connection((host, port)) as slow:
        slow.sendall(b"GET /pool/big.tar.xz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(1000).startswith(b"HTTP/1.1 200 ")
        process.send_signal(number)

        assert process.wait(30) == 0


def test_the_ready_line_as_json(root: Path) -> None:
    with run.start(argv(root, "--json"), stdout=run.PIPE) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        run.terminate(process)

    assert ready["workspace"] == str(root)
    assert ready["url"].startswith("http://127.0.0.1:")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_once_ends_it_in_good_order(root: Path, number: signal.Signals) -> None:
    for wait in (0, 0.01):
        with run.start(argv(root), stdout=run.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait)
            process.send_signal(number)
            assert process.wait(30) == 0


def test_a_port_in_use_names_who_has_it(root: Path) -> None:
    with serving(root) as (process, _, port):
        second = run.run([*argv(root), "--port", str(port)], check=False, timeout=30)

    said = second.stderr.decode()
    assert second.status == 75
    assert second.stdout == b""
    assert f"port {port} of '127.0.0.1' is in use by " in said
    assert f"process {process.pid}" in said
    assert "hint: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("host", "complaint"),
    [
        ("192.0.2.1", "'192.0.2.1' is not an address of this machine"),
        ("not a host", "host 'not a host' has no address"),
    ],
)
def test_an_impossible_host(root: Path, host: str, complaint: str) -> None:
    done = run.run(argv(root, "--host", host), check=False, timeout=30)

    assert done.status == 2
    assert f"coreimage: error: {complaint}" in done.stderr.decode()


def test_requests_can_be_logged(root: Path) -> None:
    with (
        (root / "said").open("wb") as said,
        run.start(argv(root, "--log-requests"), stdout=run.PIPE, stderr=said) as process,
    ):
        assert process.stdout is not None
        url = urlsplit(process.stdout.readline().decode().split()[-1])
        with closing(http.client.HTTPConnection(str(url.hostname), url.port)) as connection:
            connection.request("GET", "/channels.json")
            connection.getresponse().read()
        process.send_signal(signal.SIGTERM)

    assert '"GET /channels.json HTTP/1.1" 200' in (root / "said").read_text()
