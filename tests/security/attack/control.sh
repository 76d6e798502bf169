# The control jail: what a sandbox would be if almost nothing stood between it and the host. It is
# the host's root with all capabilities and no filter, in a directory of its own (by chroot, which
# holds nobody), with the host's devices and /sys; something listens and descriptors came along.
# Run in a mount namespace of its own; argument 1 is the program of the probes. With two more it is run by
# who goes on from a warm start: the server's program, and the file.
set -e
mount --make-rprivate /
ip link set lo up || true
root=$(mktemp -d)
mount -t tmpfs control "$root"
cd "$root"
mkdir usr etc proc dev sys tmp root run var
for dir in bin sbin lib lib64; do ln -s usr/$dir $dir; done
mount --bind -o ro /usr usr
cp /etc/hosts /etc/passwd /etc/group /etc/machine-id etc/
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
cp "$1" probe.py
if [ $# = 3 ]; then
    mkdir -p var/cache/sandbar
    cp "$3" var/cache/sandbar/python
    touch sandbar
    mount --bind -o ro "$2" sandbar
    set -- /sandbar __resume
else
    set -- /usr/bin/python3 /probe.py
fi
/usr/bin/python3 -c '
import socket
tcp, local = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
local.bind("\0control-" + str(tcp.getsockname()[1]))
local.listen()
print(flush=True)
while True: local.accept()' >ready & listener=$!
while [ ! -s ready ]; do sleep 0.01; done
status=0
chroot . "$@" 9</ || status=$?
kill $listener
wait $listener || true
cd /
umount -l "$root"
rmdir "$root"
exit $status
