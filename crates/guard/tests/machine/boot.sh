#!/bin/sh
# Boots systemd as process 1 over this system's own files: an overlay in front of /, thrown away with the mount namespace that it is in.
# Within new namespaces of mounts, processes and control groups: boot.sh FOLDER EBPF_GUARD PACKAGING
set -eu
folder=$1 guard=$2 packaging=$3

mount -t tmpfs -o mode=755,size=64m machine "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/root"
cd "$folder/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx

# As docs/guide/guard-alone.md says, but for the binary, which is large.
rm -f usr/bin/ebpf-guard
: > usr/bin/ebpf-guard
mount --bind "$guard" usr/bin/ebpf-guard
install -m 644 "$packaging/systemd/ebpf-guard.service" "$packaging/systemd/run-ebpfguard-bpf.mount" etc/systemd/system/
install -D -m 644 "$packaging/sysusers.d/ebpf-guard.conf" etc/sysusers.d/ebpf-guard.conf
install -D -m 644 "$packaging/tmpfiles.d/ebpf-guard.conf" etc/tmpfiles.d/ebpf-guard.conf
install -D -m 644 "$packaging/guard.toml" etc/ebpf-guard/guard.toml
# Nothing of this system's own services.
printf '[Unit]\nDescription=A machine with nothing to do\n' > etc/systemd/system/idle.target
: > etc/machine-id

exec chroot . /usr/bin/env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=idle.target --show-status=no
