"""The first boot of a vendor's machine: user data for cloud-init, the same for every vendor.

The data volume is not left to cloud-init's fs_setup and mounts. fs_setup formats a disk whose file system has
another label, even without `overwrite`, and mounts takes no LABEL= (cloudinit/config/cc_disk_setup.py and
cc_mounts.py, 22.4 to 25.1). A volume may hold the data of a former machine, so ours formats an empty one only.
"""

from __future__ import annotations

from collections.abc import Sequence

from deployer.core.machine import MachineSpec

LABEL = "deploy-data"
WHERE = "/srv/data"
# How data volumes look on the machine: Hetzner's, Amazon's (EBS on Nitro). Root disks, which have partitions, and
# instance stores, which lose their data, are passed over.
DEVICES = (
    "/dev/disk/by-id/scsi-0HC_Volume_*",
    "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol*",
)
# Seconds that the volume may be late: some vendors attach it to a machine that runs already.
PATIENCE = 90

# cloud-init runs it at each boot, before sshd starts: who can log in finds the volume mounted, or never will.
# sh: it runs where nothing is installed yet.
MOUNT = """\
label={label} where={where} left={patience}
mountpoint -q "$where" && exit 0
empty() {{ # 2: blkid(8) found nothing on it; neither a file system, nor a table of partitions, nor half of either
    blkid -p "$1" >/dev/null 2>&1; [ $? -eq 2 ]
}}
find_volume() {{
    for device in {devices}; do
        [ "$(blkid -p -s LABEL -o value "$device" 2>/dev/null)" = "$label" ] && return
    done
    for device in {devices}; do
        case $device in *-part[0-9]*) continue ;; esac
        [ -b "$device" ] && empty "$device" && mkfs.ext4 -q -m 1 -L "$label" "$device" && return
    done
    return 1
}}
until find_volume; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || {{ echo "deploy: no data volume, neither labelled $label nor empty" >&2; exit 1; }}
    sleep 1
done
mkdir -p "$where"
grep -q "^LABEL=$label " /etc/fstab 2>/dev/null ||
    echo "LABEL=$label $where ext4 defaults,nofail,x-systemd.device-timeout=30s 0 2" >>/etc/fstab
systemctl daemon-reload
# It may have grown since; an unchanged one is left as it is.
resize2fs "$device" >/dev/null 2>&1
mount "$device" "$where"
"""


def user_data(spec: MachineSpec, *, devices: Sequence[str] = DEVICES, patience: int = PATIENCE) -> str:
    """The text of a cloud-config: our host key, who may log in as root, and the data volume.

    The host key is the machine's only one from its first boot, so the first connection is already checked. A volume
    (spec.volume) is one of `devices` (shell patterns); it is waited for `patience` seconds, formatted as ext4 when
    it is empty, and mounted at /srv/data. Contains a secret: the host key's private half.
    """
    import yaml

    config: dict[str, object] = {
        "hostname": spec.name,
        "disable_root": False,
        "ssh_deletekeys": True,
        "ssh_genkeytypes": ["ed25519"],
        # Without "default": no user besides root is made. Its password, if the vendor set one, is locked; ssh_pwauth would
        # say more, but restarts sshd, late enough to cut off who was quick to log in.
        "users": [{"name": "root", "lock_passwd": True, "ssh_authorized_keys": list(spec.ssh_keys)}],
    }
    if spec.host_key:
        config["ssh_keys"] = {
            "ed25519_private": spec.host_key.rstrip("\n") + "\n",
            "ed25519_public": spec.host_key_public.strip() + "\n",
        }
    if spec.volume:
        config["bootcmd"] = [["sh", "-c", mount_script(devices, patience)]]
    return "#cloud-config\n" + yaml.safe_dump(config, sort_keys=False, width=1000)


def mount_script(devices: Sequence[str] = DEVICES, patience: int = PATIENCE, where: str = WHERE) -> str:
    """The script that formats the volume if it is empty and mounts it; safe to run at each boot."""
    return MOUNT.format(label=LABEL, where=where, patience=patience, devices=" ".join(devices))
