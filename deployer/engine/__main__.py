"""Patch first: paramiko must be imported over gevent's sockets, or hosts run one after another."""

from gevent import monkey

monkey.patch_all()

from deployer.engine.server import main  # noqa: E402  (after the patch, by design)

main()
