"""A registry of container images, to be read from only: what of the OCI distribution specification a pull asks for.

    with Registry(folder, "registry.social.test", (GATEWAY, 9400)) as registry:
        reference = registry.add("guests/book", {"app": Path("/opt/x/main")}, environment={"PATH": "/app/bin"})
        # HOST:PORT/guests/book@sha256:...

An image is made of folders and files of this computer, as one layer. (distribution-spec 1.1, image-spec 1.1)
"""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import ssl
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.rig import objects

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layer(content: Mapping[str, Path | bytes]) -> bytes:
    """A tar of files and folders by their names in the image. The same content has the same bytes."""
    made = io.BytesIO()

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = "root"
        return info

    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, what in content.items():
            if isinstance(what, Path):
                tar.add(what, name, filter=plain)
            else:
                info = plain(tarfile.TarInfo(name))
                info.size, info.mode = len(what), 0o644
                tar.addfile(info, io.BytesIO(what))
        for name in ("tmp", "proc", "sys", "dev", "etc", "run"):
            folder = plain(tarfile.TarInfo(name))
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
    return made.getvalue()


class Registry:
    """Use as a context. ca: PEM of who signed its certificate. asked: paths, as they were asked for."""

    def __init__(self, folder: Path, host: str, listen: tuple[str, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.host = f"{host}:{listen[1]}"
        self.ca = objects.certificate(folder, host, listen[0])
        self.blobs: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []
        self._server = http.server.ThreadingHTTPServer(listen, _handler(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def __enter__(self) -> Registry:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Gone: connections are refused."""
        self._server.shutdown()
        self._server.server_close()

    def add(
        self,
        name: str,
        content: Mapping[str, Path | bytes],
        *,
        environment: Mapping[str, str],
        command: str = "",
    ) -> str:
        """Make an image of one layer and offer it; its reference."""
        tar = layer(content)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": [f"{key}={value}" for key, value in environment.items()],
                "Cmd": command.split(),
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
        }
        text = json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": digest(text), "size": len(text)},
            "layers": [{"mediaType": LAYER, "digest": digest(tar), "size": len(tar)}],
        }
        whole = json.dumps(manifest).encode()
        for kind, data in ((LAYER, tar), (CONFIG, text), (MANIFEST, whole)):
            self.blobs[digest(data)] = kind, data
        return f"{self.host}/{name}@{digest(whole)}"


def _handler(registry: Registry) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            registry.asked.append(self.path)
            kind, data = "application/json", b"{}"
            status = 200
            if self.path != "/v2/":
                # /v2/NAME/manifests/DIGEST and /v2/NAME/blobs/DIGEST
                found = registry.blobs.get(self.path.rpartition("/")[2])
                kind, data = found or ("application/json", b'{"errors": [{"code": "NOT_FOUND"}]}')
                status = 200 if found else 404
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            """Tests print enough."""

    return Handler
