"""This program itself as a wheel, from a checkout or from where it is installed: no builder and no registry is needed."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from deployer import __version__
from deployer.core.resources import shipped

NAME = "deploy-toolkit"
FILE = f"deploy_toolkit-{__version__}-py3-none-any.whl"
_INFO = f"deploy_toolkit-{__version__}.dist-info"
_PACKAGES = ("deployer", "providers")
# Shipped beside the packages; core/resources.py finds them inside of a wheel.
_SHIPPED = ("templates", "inventories")


def build() -> bytes:
    """The wheel; the same files give the same bytes."""
    content = io.BytesIO()
    records = []
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _files():
            archive.writestr(_entry(name), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            records.append(f"{name},sha256={digest},{len(data)}")
        records.append(f"{_INFO}/RECORD,,")
        archive.writestr(_entry(f"{_INFO}/RECORD"), "\n".join(records) + "\n")
    return content.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _files() -> Iterator[tuple[str, bytes]]:
    top = Path(__file__).resolve().parents[2]
    listed = {}
    for package in _PACKAGES:
        for path in _below(top / package):
            listed[str(path.relative_to(top))] = path
    for kind in _SHIPPED:
        folder = shipped(kind)
        for path in _below(folder):
            listed[f"deployer/_{kind}/{path.relative_to(folder)}"] = path
    for name in sorted(listed):
        yield name, listed[name].read_bytes()
    yield f"{_INFO}/METADATA", _metadata(top).encode()
    yield (
        f"{_INFO}/WHEEL",
        b"Wheel-Version: 1.0\nGenerator: deploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    )
    yield f"{_INFO}/entry_points.txt", b"[console_scripts]\ndeploy = deployer.cli.main:main\n"


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".age"):
            yield path


def _metadata(top: Path) -> str:
    project = top / "pyproject.toml"
    if not project.is_file():
        from importlib.metadata import PackageNotFoundError, distribution

        try:
            return distribution(NAME).read_text("METADATA") or ""
        except PackageNotFoundError:
            return f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {__version__}\n"
    import tomllib

    body = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    lines = ["Metadata-Version: 2.1", f"Name: {NAME}", f"Version: {__version__}"]
    lines += [f"Summary: {body['description']}", f"Requires-Python: {body['requires-python']}"]
    lines += [f"Requires-Dist: {item}" for item in body["dependencies"]]
    for extra, items in body["optional-dependencies"].items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f'Requires-Dist: {item}; extra == "{extra}"' for item in items]
    return "\n".join(lines) + "\n"
