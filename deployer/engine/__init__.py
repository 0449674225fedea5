"""The child process that holds the SSH connections and drives pyinfra. Started by flow/client.py as
`python -m deployer.engine`; nothing imports it."""
